"""What is done with every scenario, whatever goes wrong in it.

Import the module, not its class: trial runs the tests of every class that a test module can name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.proof.disk_scenarios import (
    Beside,
    Compress,
    CompressAgain,
    Create,
    CreateOnly,
    CreateRefused,
    Discard,
    InPlace,
    Overwrite,
    Recover,
    Remove,
    RemoveChosen,
    Scenario,
)
from tests.proof.transfer_scenarios import (
    Batched,
    BatchedTogether,
    ChangeSteps,
    ChangeTogether,
    Forget,
    MakeDirectories,
    MakeDirectory,
    MakeSteps,
    RemoveTree,
    Rename,
    RenameTree,
    ReplaceLink,
    Resume,
    Rewind,
    UnknownSize,
)


class ScenarioCase(SynchronousTestCase, ABC):
    """Lets `check` loose on every scenario, each with its files below `root`, which is not there yet."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()) / "root"
        self.root.parent.mkdir(parents=True)

    @abstractmethod
    def check(self, kind: type[Scenario]) -> None:
        """Let it go wrong in every way and look; raises `failureException` that names scenario and call."""

    def test_create(self) -> None:
        """A new file is there whole, or not at all."""
        self.check(Create)

    def test_overwrite(self) -> None:
        """A file holds its old version or its new one."""
        self.check(Overwrite)

    def test_create_only(self) -> None:
        """So does one that may not replace another, whether there is another or not."""
        self.check(CreateOnly)
        self.check(CreateRefused)

    def test_discard(self) -> None:
        """What is thrown away changes nothing."""
        self.check(Discard)

    def test_beside(self) -> None:
        """A living writer's file survives what happens to another, and the recovery after it."""
        self.check(Beside)

    def test_remove(self) -> None:
        """Files go in their order; the count is of those that went, whoever does it again counts the rest."""
        self.check(Remove)
        self.check(RemoveChosen)

    def test_recover(self) -> None:
        """A recovery counts what is gone, can be done again, and touches nothing but what is in staging."""
        self.check(Recover)

    def test_compress(self) -> None:
        """The archive of a job is there whole, or what was there before; its notes never stay."""
        self.check(Compress)
        self.check(CompressAgain)

    def test_resume(self) -> None:
        """A file that is written in parts holds its old version or its new one; what was kept is no other."""
        self.check(Resume)

    def test_rewind(self) -> None:
        """So does one whose pieces are taken back, and of what was taken back nothing is ever kept."""
        self.check(Rewind)
        self.check(UnknownSize)

    def test_forget(self) -> None:
        """What is forgotten is gone, or kept as it was; the old version stays."""
        self.check(Forget)

    def test_batched(self) -> None:
        """Small files that come together are each there whole, or as they were."""
        self.check(Batched)
        self.check(BatchedTogether)

    def test_directories(self) -> None:
        """A directory is made, or moved, in one step; removed from within, and counted."""
        self.check(MakeDirectory)
        self.check(MakeDirectories)
        self.check(RenameTree)
        self.check(RemoveTree)

    def test_rename(self) -> None:
        """A file has its old name or its new one."""
        self.check(Rename)

    def test_steps(self) -> None:
        """Small changes in one go are each made in one step, and counted."""
        self.check(MakeSteps)
        self.check(ReplaceLink)
        self.check(ChangeSteps)
        self.check(ChangeTogether)

    def test_control(self) -> None:
        """A file that is written in place is found out: without that the proof would be void."""
        error = self.assertRaises(self.failureException, self.check, InPlace)
        self.assertRegex(str(error), r"InPlace, (after )?call \d")
