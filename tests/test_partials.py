"""Files that are written in parts: begun, kept, gone on with, committed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any

from blake3 import blake3

from fileexport.disk import partials
from fileexport.disk.calls import Calls
from fileexport.disk.jail import Jail
from fileexport.disk.partials import JOURNAL, KEPT, Partial
from fileexport.errors import BusyError, FileNameError, OverloadedError
from tests.test_staging import ALL, Counted, P, StagingCase
from tests.watched import in_child, unprivileged

KEY: dict[str, Any] = {"key": b"source", "owner": b"owner"}


class PartialsCase(StagingCase):
    """Begins files of ten bytes."""

    def begin(
        self,
        path: str = "d/file",
        *,
        size: int = 10,
        key: bytes | None = b"source",
        owner: bytes = b"owner",
        jail: Jail | None = None,
    ) -> Partial:
        return (jail or self.jail).partial(ALL, P(path), size=size, key=key, owner=owner)

    def kept(self, content: bytes = b"01234", **how: Any) -> None:
        """Write a part, and let go of it."""
        partial = self.begin(**how)
        partial.write(content)
        partial.suspend()

    def taken_up(self, **how: Any) -> int:
        """From where it would go on; then it is gone."""
        partial = self.begin(**how)
        offset = partial.offset
        partial.discard()
        return offset

    def names(self, prefix: str) -> list[str]:
        return [name for name in self.left() if name.startswith(prefix)]


class WholeTests(PartialsCase):
    """Written in one go."""

    def test_committed(self) -> None:
        """It appears whole, with its time, and nothing is left of what was beside it."""
        for key in (None, b"source"):
            partial = self.begin(key=key)
            partial.write(b"01234")
            partial.write(memoryview(b"56789"))
            self.assertEqual(partial.offset, 10)
            self.assertEqual(partial.hasher.digest(), blake3(b"0123456789").digest())
            partial.commit(mtime_ns=1_700_000_000_123_456_789)
            self.assertEqual(self.file.read_bytes(), b"0123456789")
            self.assertEqual(self.file.stat().st_mtime_ns, 1_700_000_000_123_456_789)
            self.assertEqual(self.left(), [])

    def test_new_only(self) -> None:
        """Without `replace` a taken name stays as it is, and the partial is gone."""
        partial = self.begin(size=0)
        self.fails(errno.EEXIST, partial.commit, None, False)
        self.assertEqual((self.file.read_text(), self.left()), ("old", []))

    def test_mode(self) -> None:
        """A file that is replaced leaves its mode, without setuid; a new one, and a link, has the umask's."""
        previous = os.umask(0o027)
        self.addCleanup(os.umask, previous)
        (self.root / "d/link").symlink_to("file")
        self.file.chmod(0o4751)
        for path, mode in (("d/file", 0o751), ("d/new", 0o640), ("d/link", 0o640)):
            self.begin(path, size=0).commit()
            self.assertEqual(stat.S_IMODE((self.root / path).lstat().st_mode), mode)

    def test_given_mode(self) -> None:
        """A mode that is given counts for a new file and a replaced one, whatever the umask; no setuid."""
        previous = os.umask(0o077)
        self.addCleanup(os.umask, previous)
        for path in ("d/file", "d/new"):
            self.begin(path, size=0).commit(None, True, 0o4664)
            self.assertEqual(stat.S_IMODE((self.root / path).stat().st_mode), 0o664)

    def test_names(self) -> None:
        """What cannot be staged cannot be begun: nothing is made."""
        self.assertRaises(FileNameError, self.begin, "d/a:b")
        for path, number in (("", errno.EACCES), ("missing/x", errno.ENOENT), ("d/file/x", errno.ENOTDIR)):
            self.fails(number, self.begin, path)
        self.assertFalse(self.staging.exists())

    def test_ends_once(self) -> None:
        """After its end nothing does anything any more."""
        for end in (Partial.commit, Partial.suspend, Partial.discard):
            partial = self.begin()
            partial.write(b"0123456789")
            end(partial)
            partial.suspend()
            partial.discard()
            self.assertEqual(partial.descriptor, -1)
            self.assertRaises(OSError, partial.write, b"x")
        self.assertEqual(self.file.read_bytes(), b"0123456789")


class GoOnTests(PartialsCase):
    """After a break."""

    def test_goes_on(self) -> None:
        """It goes on from where it was, with the hash of all that is there."""
        self.kept()
        self.assertEqual((len(self.names(KEPT)), len(self.names(JOURNAL))), (1, 1))
        partial = self.begin()
        self.assertEqual(partial.offset, 5)
        partial.write(b"56789")
        self.assertEqual(partial.hasher.digest(), blake3(b"0123456789").digest())
        partial.commit()
        self.assertEqual((self.file.read_bytes(), self.left()), (b"0123456789", []))

    def test_others(self) -> None:
        """Another key, owner, size, directory or name is another file."""
        self.kept()
        (self.root / "e").mkdir()
        for how in ({"key": b"other"}, {"owner": b"x"}, {"size": 11}, {"path": "e/file"}, {"path": "d/x"}):
            self.assertEqual(self.taken_up(**how), 0)
        self.assertEqual(self.taken_up(), 5)

    def test_through_a_link(self) -> None:
        """Whatever links lead there, it is the same file."""
        (self.root / "link").symlink_to("d")
        self.kept()
        self.assertEqual(self.taken_up(path="link/file"), 5)

    def test_not_kept(self) -> None:
        """Without a key, and before the first byte, nothing is kept."""
        self.kept(key=None)
        self.kept(b"")
        self.assertEqual(self.left(), [])

    def test_killed(self) -> None:
        """Of what a killed writer wrote, that counts which it had noted."""
        self.patch(partials, "_NOTE_EVERY", 4)
        self.killed()
        partial = self.begin()
        self.assertEqual(partial.offset, 4)
        partial.write(b"xyz---")
        partial.commit()
        self.assertEqual(self.file.read_bytes(), b"0123xyz---")

    def killed(self) -> None:
        """Write seven bytes, one by one, and die."""

        def write() -> None:
            partial = self.begin()
            for byte in b"0123456":
                partial.write(bytes([byte]))

        self.assertEqual(in_child(write), 0)

    def overwrite(self, prefix: str, offset: int, data: bytes) -> None:
        """Change what is kept, or its journal."""
        with open(self.staging / self.names(prefix)[0], "r+b") as file:
            file.seek(offset)
            file.write(data)

    def test_power_lost(self) -> None:
        """Where less is there than was noted last, that counts which was flushed."""
        self.patch(partials, "_NOTE_EVERY", 1)
        self.patch(partials, "_FLUSH_EVERY", 3)
        losses: tuple[Callable[[], object], ...] = (
            lambda: os.truncate(self.staging / self.names(KEPT)[0], 6),
            lambda: self.overwrite(KEPT, 6, b"\0"),
            lambda: self.overwrite(JOURNAL, 3, b"\1"),
        )
        for lose in losses:
            self.killed()
            lose()
            partial = self.begin()
            self.assertEqual(partial.offset, 6)
            partial.write(b"xyz-")
            partial.commit()
            self.assertEqual((self.file.read_bytes(), self.left()), (b"012345xyz-", []))

    def test_lies(self) -> None:
        """A journal that does not fit the content is not believed, nor is one that is torn or missing."""

        def overwrite(prefix: str, offset: int, data: bytes) -> None:
            # A journal says it twice.
            for place in (offset, offset + 72) if prefix == JOURNAL else (offset,):
                self.overwrite(prefix, place, data)

        lies: tuple[Callable[[], object], ...] = (
            lambda: overwrite(KEPT, 2, b"X"),
            lambda: overwrite(JOURNAL, 3, b"\1"),
            lambda: overwrite(JOURNAL, 50, b"\1"),
            lambda: os.truncate(self.staging / self.names(KEPT)[0], 4),
            lambda: os.truncate(self.staging / self.names(JOURNAL)[0], 71),
            lambda: (self.staging / self.names(JOURNAL)[0]).unlink(),
        )
        for lie in lies:
            self.kept()
            lie()
            partial = self.begin()
            self.assertEqual(partial.offset, 0)
            partial.write(b"abcdefghij")
            partial.commit()
            self.assertEqual((self.file.read_bytes(), self.left()), (b"abcdefghij", []))

    def test_longer_than_noted(self) -> None:
        """What was written behind the journal's offset is written anew."""
        self.kept()
        with open(self.staging / self.names(KEPT)[0], "ab") as file:
            file.write(b"????")
        partial = self.begin()
        partial.write(b"56789")
        partial.commit()
        self.assertEqual(self.file.read_bytes(), b"0123456789")

    def test_killed_in_commit(self) -> None:
        """It goes on from one whose mode already forbids to write; that of a living writer keeps it."""
        for directory in (self.root, self.root / "d"):
            directory.chmod(0o777)
        with unprivileged():
            partial = self.begin()
            partial.write(b"01234")
        [name] = self.names(KEPT)
        (self.staging / name).chmod(0o444)
        with unprivileged():
            self.assertRaises(BusyError, self.begin)
        self.assertEqual(stat.S_IMODE((self.staging / name).stat().st_mode), 0o444)
        with unprivileged():
            partial.suspend()
            self.assertEqual(self.taken_up(), 5)
        self.assertEqual(self.left(), [])

    def test_check(self) -> None:
        """What is there is read again piece by piece; the check may end that, and all of it stays."""
        self.patch(partials, "_PIECE", 2)
        self.kept()
        left = 2

        def check() -> None:
            nonlocal left
            left -= 1
            if not left:
                raise KeyError

        self.assertRaises(KeyError, self.jail.partial, ALL, P("d/file"), size=10, **KEY, check=check)
        self.assertEqual(self.taken_up(), 5)

    def test_stopping(self) -> None:
        """Nor does a jail that is interrupted read on."""
        self.kept()
        jail = Jail(str(self.root))
        self.addCleanup(jail.close)
        jail.interrupt()
        self.assertRaises(OverloadedError, self.begin, jail=jail)
        self.assertEqual(self.taken_up(), 5)

    def test_flushes(self) -> None:
        """Content is flushed before the journal vouches for it, and a journal that is left is flushed."""
        for durable, order in (
            (True, "write pwrite write fdatasync pwrite pwrite write pwrite fdatasync pwrite pwrite fsync"),
            (False, "write pwrite write pwrite write pwrite pwrite"),
        ):
            self.patch(partials, "_NOTE_EVERY", 1)
            self.patch(partials, "_FLUSH_EVERY", 4)
            seen: list[str] = []
            watched = "write pwrite fdatasync fsync".split()

            def note(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
                seen.extend([name] if name in watched else [])  # noqa: B023  # each round has its own

            partial = self.begin(jail=self.watched(note, durable=durable))
            for piece in (b"01", b"23", b"4"):
                partial.write(piece)
            partial.suspend()
            self.assertEqual(" ".join(seen), order)
            self.begin().discard()


class WriterTests(PartialsCase):
    """One file has one writer."""

    def test_other_process(self) -> None:
        """While somebody writes it, nobody else can begin it; after that, they go on with it."""
        partial = self.begin()
        partial.write(b"01234")
        self.assertRaises(BusyError, self.begin)
        self.assertEqual(in_child(lambda: self.assertRaises(BusyError, self.begin)), 0)
        partial.suspend()
        self.assertEqual(self.taken_up(), 5)

    def test_committed_meanwhile(self) -> None:
        """Who opened a partial that is committed before it got the lock begins anew, not in the file."""
        first = self.begin()
        first.write(b"0123456789")

        def commit(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if name == "lock" and first.descriptor >= 0:
                first.commit()

        partial = self.begin(jail=self.watched(commit))
        self.assertEqual(partial.offset, 0)
        partial.write(b"other")
        partial.suspend()
        self.assertEqual(self.file.read_bytes(), b"0123456789")
        self.assertEqual(self.taken_up(), 5)

    def test_always_gone(self) -> None:
        """Where each one goes away before it is locked, it is given up; nothing is left."""

        def remove(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            for found in self.names(KEPT) if name == "lock" else ():
                (self.staging / found).unlink()

        self.assertRaises(BusyError, self.begin, jail=self.watched(remove))
        self.assertEqual(self.left(), [])

    def test_failed_write(self) -> None:
        """After a write that failed it takes no more and is not committed; what was noted before is kept."""

        class Full(Calls):
            full = False

            def write(self, descriptor: int, data: bytes | memoryview) -> int:
                if self.full:
                    raise OSError(errno.ENOSPC, "full")
                self.full = len(data) > 4
                return super().write(descriptor, data[:2])

        self.patch(partials, "_NOTE_EVERY", 4)
        self.patch(partials, "_FLUSH_EVERY", 4)
        for end, offset in ((Partial.suspend, 4), (Partial.commit, 0)):
            calls = Full()
            jail = Jail(str(self.root), calls=calls)
            self.addCleanup(jail.close)
            partial = self.begin(jail=jail)
            partial.write(b"0123")
            partial.write(b"4")
            self.fails(errno.ENOSPC, partial.write, b"567890")
            calls.full = False
            self.fails(errno.EIO, partial.write, b"5")
            if offset:
                end(partial)
            else:
                self.fails(errno.EIO, end, partial)
            self.assertEqual(self.taken_up(), offset)
            self.assertEqual((self.file.read_text(), self.left()), ("old", []))

    def test_failed_flush(self) -> None:
        """Pages that were lost are lost: a flush that failed is never made good by the next one."""
        self.patch(partials, "_NOTE_EVERY", 4)
        self.patch(partials, "_FLUSH_EVERY", 4)
        left = 0

        def lose(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            nonlocal left
            left -= name == "fdatasync"
            if name == "fdatasync" and not left:
                raise OSError(errno.EIO, "lost")

        jail = self.watched(lose)
        for number, kept in ((1, 0), (2, 4)):
            for end in (Partial.commit, Partial.suspend):
                left = number
                partial = self.begin(jail=jail)
                for piece in (b"0123", b"4567")[: number - 1]:
                    partial.write(piece)
                self.fails(errno.EIO, partial.write, b"abcd")
                self.fails(errno.EIO, partial.write, b"ef")
                if end is Partial.commit:
                    self.fails(errno.EIO, partial.commit)
                else:
                    partial.suspend()
                    self.assertEqual(len(self.left()), 2 if kept else 0)
                    self.assertEqual(self.taken_up(), kept)
                self.assertEqual((self.file.read_text(), self.left()), ("old", []))

    def test_interrupted(self) -> None:
        """Whoever is interrupted in a write, by a signal as a rule, keeps what was there before it."""
        for interrupted, offset in (("write", 5), ("fdatasync", 8)):
            self.patch(partials, "_NOTE_EVERY", 8)
            self.patch(partials, "_FLUSH_EVERY", 8)
            seen: list[str] = []

            def interrupt(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
                seen.append(name)  # noqa: B023  # each round has its own
                if name == interrupted and seen.count(name) == (2 if name == "write" else 1):  # noqa: B023
                    raise KeyboardInterrupt

            partial = self.begin(jail=self.watched(interrupt))
            partial.write(b"01234")
            self.assertRaises(KeyboardInterrupt, partial.write, b"567")
            self.fails(errno.EIO, partial.write, b"8")
            partial.suspend()
            self.assertEqual(self.taken_up(), offset)
            partial = self.begin()
            self.assertEqual(self.left() != [], True)
            partial.discard()

    def test_interrupted_hash(self) -> None:
        """Offset and hash belong together wherever the interruption comes."""

        class Interrupted:
            def __init__(self, hasher: Any) -> None:
                self._hasher = hasher

            def copy(self) -> Interrupted:
                return Interrupted(self._hasher.copy())

            def digest(self) -> bytes:
                found: bytes = self._hasher.digest()
                return found

            def update(self, data: bytes) -> None:
                self._hasher.update(data)
                if data == b"567":
                    raise KeyboardInterrupt

        self.patch(partials, "blake3", lambda *data: blake3(*data) if data else Interrupted(blake3()))
        partial = self.begin()
        partial.write(b"01234")
        self.assertRaises(KeyboardInterrupt, partial.write, b"567")
        partial.suspend()
        self.assertEqual(self.taken_up(), 5)

    def test_room(self) -> None:
        """Where the rest has no room nothing is begun; what was kept stays."""
        self.kept()
        for size, number in ((1 << 30, None), (1 << 31, errno.ENOSPC)):
            jail = Jail(str(self.root), calls=Counted(1 << 20, (1 << 18) + 20_000))
            self.addCleanup(jail.close)
            if number is None:
                self.begin(size=size, jail=jail).discard()
            else:
                self.fails(number, self.begin, size=size, jail=jail)
        self.assertEqual(len(self.left()), 2)
        self.assertEqual(self.taken_up(), 5)

    def test_room_while_writing(self) -> None:
        """The room is looked at again and again."""
        self.patch(partials, "_LOOK_EVERY", 4)
        calls = Counted(1 << 20, 1 << 19)
        jail = Jail(str(self.root), calls=calls)
        self.addCleanup(jail.close)
        partial = self.begin(jail=jail)
        partial.write(b"012")
        calls.figures = Counted(1 << 20, 0).figures
        self.fails(errno.ENOSPC, partial.write, b"34")
        partial.suspend()
        self.assertEqual(self.taken_up(), 3)
