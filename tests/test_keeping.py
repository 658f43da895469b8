"""What is kept under a key: how far it came, for how long it waits, how it is forgotten."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

from fileexport.disk import partials
from fileexport.disk.keeping import MAX_KEPT
from fileexport.disk.partials import JOURNAL, KEPT
from fileexport.disk.recovery import PATIENCE
from fileexport.errors import BusyError
from tests.test_partials import KEY, PartialsCase
from tests.test_staging import ALL, P
from tests.watched import in_child

DAY_AFTER = PATIENCE + 60 * 10**9


class KeptTests(PartialsCase):
    """What the journal vouches for, without the content being read; and what is forgotten."""

    def offset(self, path: str = "d/file", *, size: int = 10, **how: Any) -> int:
        return self.jail.kept(ALL, P(path), size=size, **{**KEY, **how})

    def forget(self, path: str = "d/file", *, size: int = 10, **how: Any) -> bool:
        return self.jail.forget(ALL, P(path), size=size, **{**KEY, **how})

    def test_kept(self) -> None:
        """It is said how far; others have nothing there, and no staging is made for the question."""
        self.assertEqual((self.offset(), self.forget(), self.staging.exists()), (0, False, False))
        self.kept()
        self.assertEqual(self.offset(), 5)
        for how in ({"key": b"x"}, {"owner": b"x"}, {"size": 11}, {"path": "d/x"}):
            self.assertEqual((self.offset(**how), self.forget(**how)), (0, False))
        self.assertEqual(self.taken_up(), 5)

    def test_through_a_link(self) -> None:
        """Whatever links lead there, it is the same file."""
        (self.root / "link").symlink_to("d")
        self.kept()
        self.assertEqual(self.offset("link/file"), 5)
        self.assertEqual((self.forget("link/file"), self.left()), (True, []))

    def test_less_there(self) -> None:
        """After a loss of power that counts which was flushed, where the content is that long."""
        self.patch(partials, "_NOTE_EVERY", 1)
        self.patch(partials, "_FLUSH_EVERY", 3)

        def write() -> None:
            partial = self.begin()
            for byte in b"0123456":
                partial.write(bytes([byte]))

        self.assertEqual(in_child(write), 0)
        [name] = self.names(KEPT)
        for there, offset in ((7, 7), (6, 6), (5, 0)):
            with open(self.staging / name, "r+b") as file:
                file.truncate(there)
            self.assertEqual(self.offset(), offset)

    def test_no_journal(self) -> None:
        """Without a journal, or with one that is torn, nothing is vouched for."""
        self.kept()
        [name] = self.names(JOURNAL)
        (self.staging / name).write_bytes(b"torn")
        self.assertEqual(self.offset(), 0)
        (self.staging / name).unlink()
        self.assertEqual(self.offset(), 0)
        self.assertEqual((self.forget(), self.left()), (True, []))

    def test_forgotten(self) -> None:
        """It is gone with its journal, once; then it begins anew."""
        self.kept()
        self.assertEqual((self.forget(), self.forget(), self.left()), (True, False, []))
        self.assertEqual((self.offset(), self.taken_up()), (0, 0))

    def test_living(self) -> None:
        """A writer's offset can be asked for; nobody takes it away, in this process or another."""
        self.patch(partials, "_NOTE_EVERY", 4)
        partial = self.begin()
        partial.write(b"01234")
        partial.write(b"5")
        self.assertEqual(self.offset(), 5)
        self.assertRaises(BusyError, self.forget)
        self.assertEqual(in_child(lambda: self.assertRaises(BusyError, self.forget)), 0)
        partial.write(b"6789")
        partial.commit()
        self.assertEqual((self.forget(), self.file.read_bytes()), (False, b"0123456789"))

    def test_committed_meanwhile(self) -> None:
        """What was committed between the look and the lock is not taken away."""
        first = self.begin()
        first.write(b"0123456789")

        def commit(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if name == "lock" and first.descriptor >= 0:
                first.commit()

        jail = self.watched(commit)
        self.assertFalse(jail.forget(ALL, P("d/file"), size=10, **KEY))
        self.assertEqual((self.file.read_bytes(), self.left()), (b"0123456789", []))

    def test_no_directory(self) -> None:
        """Where there is no such directory there is no answer either."""
        self.fails(errno.ENOENT, self.offset, "missing/file")
        self.fails(errno.ENOENT, self.forget, "missing/file")


class AgeTests(PartialsCase):
    """What is kept, and for how long."""

    def recover(self, later: int = 0) -> int:
        return self.jail.recover([P("")], now=time.time_ns() + later)

    def test_a_day(self) -> None:
        """A partial waits for a day, then it goes with its journal; so does a journal alone at once."""
        self.kept()
        self.assertEqual((self.recover(), len(self.left())), (0, 2))
        self.assertEqual((self.recover(DAY_AFTER), self.staging.exists()), (2, False))
        self.kept()
        (self.staging / self.names(KEPT)[0]).unlink()
        self.assertEqual((self.recover(), self.staging.exists()), (1, False))

    def test_living(self) -> None:
        """One that is being written stays, however old."""
        partial = self.begin()
        partial.write(b"01234")
        self.assertEqual(self.recover(DAY_AFTER), 0)
        partial.write(b"56789")
        partial.commit()
        self.assertEqual(self.file.read_bytes(), b"0123456789")

    def test_whatever_time(self) -> None:
        """The time that a killed commit gave to its content makes it neither older nor newer."""
        self.kept()
        [name] = self.names(KEPT)
        os.utime(self.staging / name, ns=(1, 1))
        self.assertEqual((self.recover(), len(self.left())), (0, 2))
        os.utime(self.staging / name, ns=(2**62, 2**62))
        self.assertEqual((self.recover(DAY_AFTER), self.staging.exists()), (2, False))

    def test_too_many(self) -> None:
        """An owner has so many; with one more the oldest goes that nobody writes, and nobody else's."""
        self.kept(owner=b"other")
        others = self.names(KEPT)[0].split("-")[1]
        self.kept(path="d/oldest")
        [oldest] = [name for name in self.names(KEPT) if not name.startswith(KEPT + others)]
        os.utime(self.staging / oldest, ns=(2**62, 2**62))
        # Until the file system's clock has gone on.
        while self.file.stat().st_ctime_ns <= (self.staging / oldest).stat().st_ctime_ns:
            self.file.touch()
        for number in range(1, MAX_KEPT):
            self.kept(path=f"d/{number}")
        there = set(self.names(KEPT))
        self.kept(path="d/one-more")
        self.assertEqual(there - set(self.names(KEPT)), {oldest})
        self.assertEqual(len(self.names(JOURNAL)), len(self.names(KEPT)))
