"""The work of a compression job that fails: the sentence, and that nothing is left or lost."""

from __future__ import annotations

import os
import shutil

from fileexport.errors import (
    BadRequestError,
    ChangedWhileRead,
    ConflictError,
    JobCancelled,
    OverloadedError,
    sentence_for,
)
from fileexport.meter import Meter
from tests.compression_case import SQL, CompressionCase, Counted, Stopping
from tests.watched import forbid, unprivileged


class FailureTests(CompressionCase):
    """When it cannot be done: what was there stays, and nothing else."""

    def test_cancelled(self) -> None:
        """A job that is interrupted ends with `JobCancelled`, wherever it is."""
        for source in ("d/dump.sql", "d"):
            order = self.order(source, "zip")
            for number in (1, 2, 5):
                self.fails(JobCancelled, order, Stopping(number))

    def test_a_stop_of_the_jail(self) -> None:
        """When the jail stops first, it is still the meter's word that counts."""
        order, meter = self.order("d"), Meter(lambda: 0.0)
        self.jail.interrupt()
        self.fails(OverloadedError, order, meter)
        meter.interrupt()
        self.fails(JobCancelled, order, meter)

    def test_no_room(self) -> None:
        """Without room for a tenth of the source it is not begun."""
        order = self.order("d")
        self.disk.free = 10_000 + len(SQL) // 10 - 1
        self.assertEqual(sentence_for(self.fails(OSError, order)), "the disk is full")

    def test_the_room_goes(self) -> None:
        """When only the reserve is left, it ends before the disk is full."""
        (self.root / "d" / "noise").write_bytes(os.urandom(40 << 20))
        order = self.order("d/noise", "zip")

        def fill() -> None:
            self.disk.free = 9_999

        self.assertEqual(sentence_for(self.fails(OSError, order, Stopping(9, fill))), "the disk is full")

    def test_changes(self) -> None:
        """A source that changes while it is read is named."""
        dump = self.root / "d" / "dump.sql"
        error = self.fails(ChangedWhileRead, self.order("d"), Stopping(12, lambda: dump.write_bytes(b"x")))
        self.assertIn("dump.sql", sentence_for(error))

    def test_a_tree_that_is_another(self) -> None:
        """A file that comes or goes between the count and the packing fails the job; the tree is named."""
        sub = self.root / "d" / "sub"

        def fifo() -> None:
            (sub / "b").unlink()
            os.mkfifo(sub / "b")

        changes = (
            (sub / "new").touch,
            lambda: (sub / "new").unlink(),
            lambda: (sub / "a").rename(sub / "b"),
            fifo,
        )
        for change in changes:
            order, meter = self.order("d"), Counted(change)
            error = self.fails(ChangedWhileRead, order, meter)
            self.assertEqual(sentence_for(error), "d changed while it was read: try again")

    def test_unreadable(self) -> None:
        """What may not be read is named."""
        order = self.order("d")
        forbid(self, self.root / "d" / "sub", 0)
        self.root.chmod(0o777)
        (self.root / "d.tgz").touch()
        with unprivileged():
            error = self.assertRaises(PermissionError, self.work, order, Meter(lambda: 0.0))
        self.assertEqual(sentence_for(error), "d/sub cannot be read")

    def test_what_came_between(self) -> None:
        """What an order refuses, the work refuses too: things change before its turn comes."""
        order = self.order("d/sub", "zip")
        shutil.rmtree(self.root / "d" / "sub")
        self.fails(FileNotFoundError, order)
        (self.root / "d" / "sub.zip").unlink()
        (self.root / "d" / "sub.zip").mkdir()
        (self.root / "d" / "sub").mkdir()
        self.assertRaises(IsADirectoryError, self.work, order, Meter(lambda: 0.0))
        bare = self.order("d/dump.sql", "gz")
        (self.root / "d" / "dump.sql").unlink()
        (self.root / "d" / "dump.sql").mkdir()
        self.fails(BadRequestError, bare)

    def test_a_directory_that_was_moved(self) -> None:
        """Nothing is written where its directory was moved out, or moved aside and made anew."""
        away, here = self.root.with_name(self.root.name + "-away"), self.root / "d" / "sub"

        def aside() -> None:
            here.rename(self.root / "aside")
            here.mkdir()

        for where, move in ((away, lambda: here.rename(away)), (self.root / "aside", aside)):
            meter = Meter(lambda: 0.0)
            stopping = Stopping(4, move)
            order = self.order("d/sub/a", "zip")
            error = self.assertRaises(ConflictError, self.work, order, stopping)
            self.assertIn("the directory of the archive was moved", sentence_for(error))
            self.assertEqual(sorted(os.listdir(where)), [".hidden", "a"])
            self.assertFalse(here.exists() and os.listdir(here))
            shutil.rmtree(here, ignore_errors=True)
            where.rename(here)
        order = self.order("d/sub/a", "zip")
        aside_again = self.root / "aside"
        here.rename(aside_again)
        shutil.copytree(aside_again, here)
        # Before the work began: what the path names now is meant.
        self.work(order, meter)
        self.assertEqual(sorted(os.listdir(here)), [".hidden", "a", "a.zip"])

    def test_outside(self) -> None:
        """An order whose paths are not beneath its base makes nothing."""
        order = self.order("d/sub/a", "gz") | {"base": "/d/sub", "target": "/d/a.gz"}
        self.fails(FileNotFoundError, order)
