"""Resumable uploads on the disk and in the state."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from fileexport import resumable_files as limits
from fileexport.disk.calls import Calls
from fileexport.disk.uploads_store import KEPT_TIME, Conflict, UploadRow
from fileexport.errors import (
    BusyError,
    ConflictError,
    DestinationNotFound,
    FileNameError,
    NotGranted,
    OverloadedError,
    PeerGone,
)
from fileexport.exports import Exports
from fileexport.resumable_files import Filing, Gone, Wish, path_of
from fileexport.tokens import Principal, Right
from fileexport.uploads import Upload
from tests.resumable_case import ResumableCase
from tests.uploads_case import ALL, BOB, CONTENT, P


class FilingCase(ResumableCase):
    """What is done of uploads in threads, done here."""

    def setUp(self) -> None:
        super().setUp()
        self.filing = self.filing_of(self.exports)

    def filing_of(self, exports: Exports) -> Filing:
        return Filing(exports, lambda: self.store)

    def create(self, wish: Wish | None = None, who: Principal = ALL) -> UploadRow:
        """Begin one; those that make way for it are forgotten."""
        row, oldest = self.filing.create(who, f"{who.name} here", wish or self.wish(), ())
        for one in oldest:
            self.filing.forget(who, one, None)
        return row

    def open(self, row: UploadRow, who: Principal = ALL) -> Upload:
        return self.filing.open(who, f"{who.name} here", row, lambda: False)

    def send(self, row: UploadRow, content: bytes) -> UploadRow:
        """Append to an upload and let go of it; the row as it is then."""
        opened = self.open(row)
        part = self.filing.part(ALL, row, opened, None)
        part.take(content)
        self.assertIsNone(part.settle(None))
        opened.suspend()
        return part.row

    def row(self, row: UploadRow, who: Principal = ALL) -> UploadRow:
        """The row as it is now."""
        return self.filing.row(who, row.id, False)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.root / "d"))


class CreationTests(FilingCase):
    """What is refused is refused before the first byte."""

    def test_created(self) -> None:
        """It is in the state, and nothing is on the disk."""
        row = self.create(self.wish(mtime_ns=5, metadata="a YQ=="))
        self.assertEqual(self.row(row), row)
        self.assertEqual((row.owner, path_of(row), row.size), ("alice", P("d/new"), 10))
        self.assertEqual((row.mtime_ns, row.metadata, row.expires), (5, "a YQ==", self.time + KEPT_TIME))
        self.assertEqual([self.names(), self.left()], [["file"], []])

    def test_refused(self) -> None:
        """Rights, names, what is there, a directory that is not, and room; nothing is kept of them."""
        reader = Principal("alice", Right.READ, P(""))
        for error, wish, who in (
            (NotGranted, self.wish(), reader),
            (FileExistsError, self.wish("file"), ALL),
            (FileNameError, self.wish("a|b"), ALL),
            (PermissionError, self.wish(".fileexport"), ALL),
            (DestinationNotFound, self.wish(directory=P("no")), ALL),
            (IsADirectoryError, self.wish("d", directory=P(""), conflict=Conflict.REPLACE), ALL),
            (NotADirectoryError, self.wish(directory=P("d/file")), ALL),
        ):
            with self.subTest(wish):
                self.assertRaises(error, self.create, wish, who)
        full = self.assertRaises(OSError, self.create, self.wish(size=1 << 60))
        self.assertEqual(full.errno, errno.ENOSPC)
        self.assertEqual(self.store.unfinished("alice"), [])

    def test_replacing(self) -> None:
        """What is there may be replaced; until the end the old version stays."""
        row = self.create(self.wish("file", conflict=Conflict.REPLACE))
        self.send(row, CONTENT[:4])
        self.assertEqual(self.file.read_text(), "old")
        self.send(self.row(row), CONTENT[4:])
        self.assertEqual(self.file.read_bytes(), CONTENT)

    def test_renaming(self) -> None:
        """A name that is free on the disk, and that no other upload is about to take."""
        rows = [self.create(self.wish("file", conflict=Conflict.RENAME)) for _ in range(3)]
        self.assertEqual([path_of(row).name for row in rows], ["file (1)", "file (2)", "file (3)"])

    def test_no_name(self) -> None:
        """Without a name it has its id's."""
        row = self.create(self.wish(None))
        self.assertEqual(path_of(row), P("d") / row.id)

    def test_directories(self) -> None:
        """Those of its path are made; one that is there stays as it is."""
        for name in ("x/y/1", "x/y/2"):
            self.send(self.create(self.wish(name)), CONTENT)
        self.assertEqual(sorted(os.listdir(self.root / "d/x/y")), ["1", "2"])

    def test_empty(self) -> None:
        """One without content is there at once."""
        row = self.create(self.wish(size=0, mtime_ns=10**18))
        self.assertTrue(row.done)
        self.assertEqual(os.stat(self.root / "d/new").st_mtime_ns, 10**18)
        self.assertEqual(self.filing.standing(ALL, self.row(row))[1], 0)
        self.assertEqual(self.left(), [])

    def test_empty_and_busy(self) -> None:
        """Where somebody writes its path nothing is kept of it."""
        other = self.open(self.create())
        self.assertRaises(BusyError, self.create, self.wish(size=0))
        self.assertEqual(len(self.store.unfinished("alice")), 1)
        other.discard()

    def test_making_way(self) -> None:
        """The oldest of too many goes with its content; where all are in use there is no other."""
        self.patch(limits, "MAX_OWN", 2)
        first, second = self.create(self.wish("1")), self.create(self.wish("2"))
        self.send(first, CONTENT[:5])
        self.assertEqual(len(self.left()), 2)
        third = self.create(self.wish("3"))
        self.assertRaises(FileNotFoundError, self.row, first)
        self.assertEqual(self.left(), [])
        in_use = (second.id, third.id)
        self.assertRaises(OverloadedError, self.filing.create, ALL, "", self.wish("4"), in_use)
        self.assertEqual([row.id for row in self.store.unfinished("alice")], [second.id, third.id])


class GoingOnTests(FilingCase):
    """Part after part."""

    def test_parts(self) -> None:
        """It goes on where it was, and gets its name and its time at the end."""
        row = self.create(self.wish(mtime_ns=10**18))
        for start in range(0, 10, 3):
            self.assertEqual(self.filing.standing(ALL, self.row(row)), (row, start))
            self.assertEqual(self.names(), ["file"])
            self.send(self.row(row), CONTENT[start : start + 3])
        self.assertEqual((self.root / "d/new").read_bytes(), CONTENT)
        self.assertEqual(os.stat(self.root / "d/new").st_mtime_ns, 10**18)
        done, offset = self.filing.standing(ALL, self.row(row))
        self.assertEqual((done.done, offset, self.left()), (True, 10, []))

    def test_of_one_name(self) -> None:
        """Two of one name do not mix: the second finds a file there, and goes on when that is gone."""
        first, second = self.create(), self.create()
        self.send(first, b"aaaaa")
        self.send(second, b"bbbbb")
        self.send(first, b"aaaaa")
        self.assertRaises(FileExistsError, self.send, second, b"bbbbb")
        self.assertEqual((self.root / "d/new").read_bytes(), b"a" * 10)
        (self.root / "d/new").unlink()
        self.send(second, b"bbbbb")
        self.assertEqual((self.root / "d/new").read_bytes(), b"b" * 10)
        self.assertEqual(self.left(), [])

    def test_name_that_was_taken(self) -> None:
        """Where somebody else made a file of its name meanwhile both stay, until that one goes."""
        for conflict, make in (
            (Conflict.ABORT, lambda: self.theirs.write_text("theirs")),
            (Conflict.REPLACE, self.theirs.mkdir),
        ):
            with self.subTest(conflict):
                row = self.create(self.wish(conflict=conflict))
                part = self.filing.part(ALL, row, self.open(row), None)
                part.take(CONTENT)
                make()
                self.assertRaises((FileExistsError, IsADirectoryError), part.settle, None)
                self.assertEqual(self.filing.standing(ALL, self.row(row)), (row, 10))
                self.assertRaises((FileExistsError, IsADirectoryError), self.send, row, b"")
                self.theirs.rmdir() if self.theirs.is_dir() else self.theirs.unlink()
                self.assertTrue(self.send(row, b"").done)
                self.assertEqual((self.theirs.read_bytes(), self.left()), (CONTENT, []))
                self.theirs.unlink()

    @property
    def theirs(self) -> Path:
        return self.root / "d/new"

    def test_other_name_at_the_end(self) -> None:
        """One that may have another name gets the next one that is free and nobody writes, if it must."""
        for is_open in (True, False):
            with self.subTest(is_open):
                row = self.create(self.wish(conflict=Conflict.RENAME))
                if is_open:
                    part = self.filing.part(ALL, row, self.open(row), None)
                    part.take(CONTENT)
                else:
                    self.send(row, CONTENT[:4])
                for name in ("new", "new (1)"):
                    (self.root / "d" / name).write_text("theirs")
                other = self.exports.begin_upload(ALL, P("d/new (2)"), replace=False, holder="")
                if is_open:
                    self.assertIsNone(part.settle(None))
                    found = part.row
                else:
                    found = self.send(row, CONTENT[4:])
                other.discard()
                self.assertEqual((path_of(found), found.done), (P("d/new (3)"), True))
                self.assertEqual(self.row(row).path, found.path)
                self.assertEqual((self.root / "d/new (3)").read_bytes(), CONTENT)
                self.assertEqual((self.theirs.read_text(), self.left()), ("theirs", []))
                for name in ("new", "new (1)", "new (3)"):
                    (self.root / "d" / name).unlink()

    def test_path_that_is_written(self) -> None:
        """Who would have to wait for another one learns it before it sends anything."""
        row, opened = self.create(), self.open(self.create())
        self.assertRaises(BusyError, self.create)
        self.assertRaises(BusyError, self.filing.standing, ALL, row)
        self.assertEqual(self.filing.standing(ALL, row, True), (row, 0))
        opened.discard()
        self.assertEqual(self.filing.standing(ALL, row), (row, 0))

    def test_others(self) -> None:
        """Nobody else's upload is seen."""
        row = self.create()
        self.assertRaises(FileNotFoundError, self.row, row, BOB)
        self.assertRaises(FileNotFoundError, self.row, replace(row, id="unknown"))
        self.assertEqual(self.filing.unfinished(BOB, P(""), {}), [])

    def test_listing(self) -> None:
        """The unfinished ones below a directory, each with what has come of it."""
        one, two, other = (
            self.create(self.wish("1")),
            self.create(self.wish("x/2")),
            self.create(self.wish("3")),
        )
        self.send(one, CONTENT[:3])
        self.send(other, CONTENT)
        self.create(self.wish("4", directory=P("")))
        found = self.filing.unfinished(ALL, P("d"), {two.id: 7})
        self.assertEqual(found, [(one, 3), (two, 7)])
        self.assertEqual(self.filing.unfinished(ALL, P("d/x"), {}), [(two, 0)])

    def test_expiry(self) -> None:
        """A day after its last byte it is gone, for everybody, unless it is in use; then it is forgotten."""
        row = self.create()
        self.time += KEPT_TIME - 1
        row = self.send(row, CONTENT[:3])
        self.time += KEPT_TIME - 1
        self.assertEqual(self.row(row), row)
        self.time += 1
        self.assertRaises(Gone, self.row, row)
        self.assertEqual(self.filing.unfinished(ALL, P(""), {}), [])
        self.assertEqual(self.filing.row(ALL, row.id, True), row)
        self.time += 1
        self.filing.recover([row.id])
        self.assertRaises(Gone, self.row, row)
        self.filing.recover([])
        error = self.assertRaises(FileNotFoundError, self.row, row)
        self.assertNotIsInstance(error, Gone)

    def test_touch(self) -> None:
        """That something comes is noted now and then, also while one part takes long."""
        row = self.create()
        opened = self.open(row)
        part = self.filing.part(ALL, row, opened, None)
        self.time += limits.TOUCH_EVERY / 2
        part.take(b"0")
        self.assertEqual(self.row(row).touched, row.touched)
        self.time += limits.TOUCH_EVERY
        part.take(b"1")
        noted = self.time
        self.time += 1
        part.take(b"2")
        self.assertEqual(self.row(row).touched, noted)
        self.assertEqual(part.row, self.row(row))
        opened.discard()

    def test_forgotten(self) -> None:
        """What came goes with it, whether it is open or not; a file that is done stays."""
        for is_open in (False, True):
            row = self.create()
            self.send(row, CONTENT[:3])
            self.filing.forget(ALL, row, self.open(row) if is_open else None)
            self.assertRaises(FileNotFoundError, self.row, row)
            self.assertEqual(self.left(), [])
        row = self.create()
        self.send(row, CONTENT)
        self.filing.forget(ALL, self.row(row), None)
        self.assertRaises(FileNotFoundError, self.row, row)
        self.assertEqual((self.root / "d/new").read_bytes(), CONTENT)

    def test_forgotten_elsewhere(self) -> None:
        """What another process writes is not forgotten."""
        row = self.create()
        opened = self.filing_of(self.exporting()).open(ALL, "", row, lambda: False)
        opened.write(b"0")
        self.assertRaises(BusyError, self.filing.forget, ALL, row, None)
        self.assertEqual(self.row(row), row)
        opened.discard()

    def test_client_that_left(self) -> None:
        """Nothing is read again for nobody."""
        row = self.send(self.create(), CONTENT[:3])
        self.assertRaises(PeerGone, self.filing.open, ALL, "", row, lambda: True)
        self.assertEqual(self.filing.standing(ALL, row), (row, 3))

    def test_directory_that_went(self) -> None:
        """Without its directory nothing of it is there."""
        row = self.send(self.create(self.wish("x/1")), CONTENT[:3])
        (self.root / "d/x").rmdir()
        self.assertEqual(self.filing.standing(ALL, row), (row, 0))
        self.assertRaises(DestinationNotFound, self.open, row)
        self.filing.forget(ALL, row, None)

    def test_directory_that_was_moved(self) -> None:
        """Where its directory is not at its path at the end, what came is kept for when it is there again."""
        for conflict in Conflict:
            for is_another in (False, True):
                with self.subTest(conflict, is_another=is_another):
                    row = self.create(self.wish("x/1", conflict=conflict))
                    part = self.filing.part(ALL, row, self.open(row), None)
                    part.take(CONTENT)
                    (self.root / "d/x").rename(self.root / "d/y")
                    if is_another:
                        (self.root / "d/x").mkdir()
                    self.assertRaises((DestinationNotFound, ConflictError), part.settle, None)
                    if is_another:
                        (self.root / "d/x").rmdir()
                    (self.root / "d/y").rename(self.root / "d/x")
                    self.assertEqual(self.filing.standing(ALL, self.row(row)), (row, 10))
                    self.assertTrue(self.send(row, b"").done)
                    found = self.root / "d/x/1"
                    self.assertEqual((found.read_bytes(), self.left()), (CONTENT, []))
                    found.unlink()

    def test_directory_that_cannot_be_read(self) -> None:
        """One that cannot be looked at hides no other: these are listed, decided, expire; and it can go."""
        rows = [self.create(self.wish(name)) for name in ("x/1", "2", "3")]
        for row in rows[:2]:
            opened = self.open(row)
            opened.write(CONTENT)
            self.store.committing(row.id, opened.identity)
            opened.finish()
        (self.root / "d/x").rename(self.root / "y")
        (self.root / "d/x").symlink_to("x")
        listed = self.filing.unfinished(ALL, P(""), {})
        self.assertEqual([(row.id, offset) for row, offset in listed], [(row.id, 0) for row in rows])
        self.filing.recover([])
        self.assertEqual([failure.check(OSError) for failure in self.flushLoggedErrors()], [OSError])
        self.assertTrue(self.row(rows[1]).done)
        self.filing.forget(ALL, rows[0], None)
        self.assertRaises(FileNotFoundError, self.row, rows[0])
        self.time += KEPT_TIME + 1
        self.filing.recover([])
        self.assertEqual(self.store.unfinished("alice"), [])


class Wanted:
    """Wants its bytes to be these."""

    def __init__(self, wanted: bytes) -> None:
        self._wanted = wanted
        self._got = b""

    def update(self, piece: bytes) -> None:
        self._got += piece

    def check(self) -> None:
        if self._got != self._wanted:
            raise ZeroDivisionError


class CheckedTests(FilingCase):
    """Parts of which all counts or nothing."""

    def test_right(self) -> None:
        """What is as it was promised counts."""
        row = self.create()
        opened = self.open(row)
        for content in (CONTENT[:5], CONTENT[5:]):
            part = self.filing.part(ALL, row, opened, Wanted(content))
            part.take(content)
            self.assertIsNone(part.settle(None))
        self.assertEqual((self.root / "d/new").read_bytes(), CONTENT)

    def test_wrong(self) -> None:
        """What is not, or was broken off, goes again; the upload goes on where it was."""
        row = self.create()
        opened = self.open(row)
        gone = PeerGone()
        for content, problem in ((CONTENT[:5], None), (CONTENT, None), (b"0", gone), (CONTENT, gone)):
            with self.subTest((content, problem)):
                part = self.filing.part(ALL, row, opened, Wanted(b"other"))
                part.take(content)
                found = part.settle(problem)
                self.assertIsInstance(found, type(problem) if problem else ZeroDivisionError)
                self.assertEqual((opened.offset, part.row.done), (0, False))
        part = self.filing.part(ALL, row, opened, None)
        part.take(CONTENT)
        self.assertIsNone(part.settle(None))
        self.assertEqual((self.root / "d/new").read_bytes(), CONTENT)


class Failing(Calls):
    """A disk that fails in one call, once it is told to."""

    failing: str | None = None
    number = errno.EIO

    def _fail(self, name: str) -> None:
        if name == self.failing:
            self.failing = None
            raise OSError(self.number, os.strerror(self.number))

    def write(self, descriptor: int, data: Any) -> int:
        self._fail("write")
        return super().write(descriptor, data)

    def rename_new(self, *args: Any, **how: Any) -> None:
        self._fail("rename")
        super().rename_new(*args, **how)


class TroubleTests(FilingCase):
    """Breaks, failures, and kills between two steps."""

    def test_broken_off(self) -> None:
        """What came before a break is kept; the problem is told."""
        row = self.create()
        opened = self.open(row)
        part = self.filing.part(ALL, row, opened, None)
        part.take(CONTENT[:4])
        gone = PeerGone()
        self.assertIs(part.settle(gone), gone)
        opened.suspend()
        self.assertEqual(self.filing.standing(ALL, row), (row, 4))

    def test_broken_off_when_whole(self) -> None:
        """Where all of it came it is done, whatever became of who sent it."""
        row = self.create()
        part = self.filing.part(ALL, row, self.open(row), None)
        part.take(CONTENT)
        self.assertIsInstance(part.settle(PeerGone()), PeerGone)
        self.assertTrue(part.row.done)
        self.assertEqual((self.root / "d/new").read_bytes(), CONTENT)

    def test_full_disk(self) -> None:
        """A write that fails is told as it is, and what came before it stays."""
        calls = Failing()
        calls.number = errno.ENOSPC
        self.filing = self.filing_of(self.exporting(calls=calls))
        row = self.send(self.create(), CONTENT[:4])
        opened = self.open(row)
        part = self.filing.part(ALL, row, opened, None)
        calls.failing = "write"
        problem = self.assertRaises(OSError, part.take, CONTENT[4:])
        self.assertIs(self.assertRaises(OSError, part.settle, problem), problem)
        opened.suspend()
        self.assertEqual(self.filing.standing(ALL, row), (row, 4))
        self.send(row, CONTENT[4:])
        self.assertEqual((self.root / "d/new").read_bytes(), CONTENT)

    def test_commit_that_fails(self) -> None:
        """It begins again from nothing, and can be finished then."""
        calls = Failing()
        self.filing = self.filing_of(self.exporting(calls=calls))
        row = self.create()
        opened = self.open(row)
        part = self.filing.part(ALL, row, opened, None)
        part.take(CONTENT)
        calls.failing = "rename"
        self.assertRaises(OSError, part.settle, None)
        self.assertIsNone(calls.failing)
        opened.suspend()
        self.assertEqual([self.names(), self.left()], [["file"], []])
        self.assertEqual(self.filing.standing(ALL, self.row(row)), (row, 0))
        self.send(row, CONTENT)
        self.assertEqual((self.root / "d/new").read_bytes(), CONTENT)

    def test_killed_before_the_name(self) -> None:
        """Where the name was not given it is not done."""
        row = self.send(self.create(), CONTENT[:4])
        opened = self.open(row)
        self.store.committing(row.id, opened.identity)
        opened.suspend()
        self.filing.recover([])
        found, offset = self.filing.standing(ALL, self.row(row))
        self.assertEqual((found.done, offset), (False, 4))

    def test_killed_behind_the_name(self) -> None:
        """Where the name was given it is done, though nobody had noted that."""
        for recovers in (False, True):
            with self.subTest(recovers):
                row = self.create(self.wish(f"new {recovers}"))
                opened = self.open(row)
                opened.write(CONTENT)
                self.store.committing(row.id, opened.identity)
                opened.finish()
                if recovers:
                    self.filing.recover([])
                    self.assertTrue(self.row(row).done)
                found, offset = self.filing.standing(ALL, self.row(row))
                self.assertEqual((found.done, offset), (True, 10))
                self.assertTrue(self.row(row).done)

    def test_recovery_leaves_the_living(self) -> None:
        """What is in use is decided by whoever has it."""
        row = self.create()
        opened = self.open(row)
        opened.write(CONTENT)
        self.store.committing(row.id, opened.identity)
        opened.finish()
        self.filing.recover([row.id])
        self.assertFalse(self.row(row).done)
