"""The power fails after each step of what the jail does, on a disk that keeps no more than it must."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.jail import Jail
from fileexport.disk.recovery import PATIENCE
from fileexport.paths import RESERVED
from tests.proof.counts import SOAK, Tally
from tests.proof.disk_histories import DIRECTORIES, PLANS, History, P, Plan, by_chance, on_disk
from tests.proof.disk_model import (
    CHANGING,
    READING,
    Call,
    Flush,
    Names,
    Promise,
    Recording,
    kind_of_descriptor,
)
from tests.proof.lossy_disk import Crashed, LossyDisk
from tests.watched import NAMES

#: Histories by chance, operations in each, and the states looked at after each step of one.
HISTORIES, OPERATIONS, STATES = (60, 12, 40) if SOAK else (12, 6, 20)
#: After each step of a plan all states are looked at, and there are never more than these.
ALL = 1 << 14
#: Of so many states one is made real, and recovered by the jail itself.
SAMPLE = 40

_TALLY = Tally("power-loss states")
_MUTANTS = Tally("power-loss mutants caught")


class PowerLossCase(SynchronousTestCase):
    """Plays histories, and looks at what a loss of power may leave of them."""

    def setUp(self) -> None:
        self.work = Path(self.mktemp())
        self._numbers = count()

    def play(self, plan: Plan, kind: type[Recording] = Recording, *, durable: bool = True) -> History:
        """Let a history happen on a tree of its own."""
        number = next(self._numbers)
        history = History(self.work / f"root-{number}", number, kind, durable=durable)
        try:
            for happen in plan:
                happen(history)
        finally:
            history.close()
        return history

    def losses(self, history: History, limit: int) -> Iterator[tuple[LossyDisk, Crashed, str]]:
        """Each state that a loss of power may leave, after each step, and which promise it breaks."""
        random, disk = Random(0), LossyDisk(history.calls.start)
        for step in history.calls.log:
            disk.take(step)
            # The beginning of something changes nothing.
            if not isinstance(step, Promise) or step.acknowledged:
                for state in disk.losses(random, limit):
                    yield disk, state, disk.broken(state)


class PowerLossTests(PowerLossCase):
    """Whole versions, the new one once that was said; what was said to be deleted stays deleted."""

    def check(self, history: History, limit: int, what: str) -> None:
        """No state may break a promise; some are made real and recovered."""
        for number, (_, state, broken) in enumerate(self.losses(history, limit)):
            self.assertEqual(broken, "", what)
            if number % SAMPLE == 0:
                self.check_recovery(state)
            _TALLY.add(1)

    def check_recovery(self, state: Crashed) -> None:
        """The jail removes what is in staging, and nothing else."""
        root = self.work / f"crashed-{next(self._numbers)}"
        root.mkdir()
        state.build(root)
        jail = Jail(str(root), durable=False)
        later = time.time_ns() + 2 * PATIENCE
        removed = jail.recover((P(directory) for directory in DIRECTORIES), now=later)
        jail.close()
        self.assertEqual(removed, len(state.staged))
        files = {path: file for path, file in state.files.items() if path not in state.orphans}
        self.assertEqual((on_disk(root).files, list(root.rglob(RESERVED))), (files, []))

    def test_plans(self) -> None:
        """In short histories, every state there is."""
        for what, plan in PLANS.items():
            self.check(self.play(plan), ALL, what)

    def test_chance(self) -> None:
        """In histories by chance, with several writers at once, as many as there is time for."""
        for number in range(HISTORIES):
            self.check(self.play(by_chance(OPERATIONS)), STATES, f"history {number}")


class ModelTests(PowerLossCase):
    """Whether the model can be believed."""

    def test_calls(self) -> None:
        """Every call of the jail is known for one that changes the disk, or one that does not."""
        self.assertEqual(CHANGING | READING, NAMES)
        self.assertEqual(CHANGING & READING, frozenset())

    def test_complete(self) -> None:
        """The log tells all: done again, it leads to what is really on the disk."""
        for plan in (*PLANS.values(), *[by_chance(OPERATIONS)] * 5):
            history = self.play(plan)
            disk = LossyDisk(history.calls.start)
            for step in history.calls.log:
                disk.take(step)
            self.assertEqual(disk.everything(), on_disk(history.root))


class NoFileFlush(Recording):
    """A mutant: files are not flushed."""

    def _note_fsync(self, call: Call, descriptor: int) -> None:
        if kind_of_descriptor(call) != "file":
            super()._note_fsync(call, descriptor)

    def _note_fdatasync(self, call: Call, descriptor: int) -> None:
        pass

    def _note_syncfs(self, call: Call, descriptor: int) -> None:
        pass


class NoDirectoryFlush(Recording):
    """A mutant: directories are not flushed."""

    def _note_fsync(self, call: Call, descriptor: int) -> None:
        if kind_of_descriptor(call) != "directory":
            super()._note_fsync(call, descriptor)


class NoFlushAfterRemoval(Recording):
    """A mutant: a directory is not flushed when the last that happened in it was a removal."""

    def _note_fsync(self, call: Call, descriptor: int) -> None:
        node = self._node(descriptor)
        changes = [step.changes for step in self.log if isinstance(step, Names) and step.directory == node]
        if not changes or changes[-1][-1][1] is not None:
            super()._note_fsync(call, descriptor)


class EarlyAcknowledgement(Recording):
    """A mutant: what is being done is said to be done before its file is flushed."""

    before = "file"

    def _note_fsync(self, call: Call, descriptor: int) -> None:
        # A journal is flushed when nothing is to be said.
        if kind_of_descriptor(call) == self.before and self._changes:
            self.acknowledge(ended=False)
        super()._note_fsync(call, descriptor)


class HastyAcknowledgement(EarlyAcknowledgement):
    """A mutant: it is said when the file has its name, before the directory is flushed."""

    before = "directory"


class LateFlush(Recording):
    """A mutant: files are flushed after one of them got its name, not before."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._late: list[int] = []

    def _note_fsync(self, call: Call, descriptor: int) -> None:
        if kind_of_descriptor(call) == "file":
            self._late.append(self._node(descriptor))
        else:
            super()._note_fsync(call, descriptor)

    def _note_rename(self, call: Call, *arguments: Any, **keywords: Any) -> None:
        super()._note_rename(call, *arguments, **keywords)
        self.log += map(Flush, self._late)
        self._late.clear()

    _note_rename_new = _note_rename


class LateMode(Recording):
    """A mutant: the permissions are set after the flush."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._late: dict[int, tuple[Call, int]] = {}

    def _note_fchmod(self, call: Call, descriptor: int, mode: int) -> None:
        self._late[descriptor] = (call, mode)

    def _note_fsync(self, call: Call, descriptor: int) -> None:
        super()._note_fsync(call, descriptor)
        if descriptor in self._late:
            call, mode = self._late.pop(descriptor)
            super()._note_fchmod(call, descriptor, mode)


#: Plans in which single files get new versions.
_UPLOADS = ("create", "overwrite", "create only", "crowd")


class MutantTests(PowerLossCase):
    """Each mutant loses something: a model that would not see it proves nothing."""

    def check(self, kind: type[Recording], *plans: str, durable: bool = True) -> None:
        """Each of these plans catches it, and so do histories by chance."""
        for what in plans:
            history = self.play(PLANS[what], kind, durable=durable)
            self.assertTrue(any(broken for *_, broken in self.losses(history, ALL)), what)
        histories = (self.play(by_chance(OPERATIONS), kind, durable=durable) for _ in range(HISTORIES))
        self.assertTrue(any(broken for history in histories for *_, broken in self.losses(history, STATES)))
        _MUTANTS.add(1, kind.__name__ if durable else "durable=False")

    def test_file(self) -> None:
        """Without a flush of the file, before it gets its name."""
        self.check(NoFileFlush, *_UPLOADS, "resume", "rewind", "batch", "batch together")
        self.check(NoFileFlush, "set", "set together")
        self.check(LateFlush, *_UPLOADS, "resume", "rewind", "batch")
        self.check(LateMode, *_UPLOADS)

    def test_directory(self) -> None:
        """Without a flush of the directory, after an upload or a removal."""
        self.check(NoDirectoryFlush, *_UPLOADS, "remove", "batch", "directory", "directories", "rename")
        self.check(NoDirectoryFlush, "remove tree", "link", "steps")
        self.check(NoFlushAfterRemoval, "remove", "remove chosen", "create and remove", "remove tree")

    def test_acknowledgement(self) -> None:
        """When it is said before it is so."""
        self.check(EarlyAcknowledgement, *_UPLOADS, "resume", "batch", "set")
        self.check(HastyAcknowledgement, "create", "overwrite", "crowd", "remove", "remove chosen", "batch")
        self.check(HastyAcknowledgement, "link")

    def test_not_durable(self) -> None:
        """A jail without flushes, which is promised to survive `kill -9`, and does, but not this."""
        self.check(Recording, "create", "overwrite", "remove", "remove chosen", "batch", durable=False)
        self.check(Recording, "link", "steps", "set", durable=False)
