"""A file that comes in: through the verbs, onto the disk."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from fileexport import leases
from fileexport.disk import partials
from fileexport.disk.calls import Calls
from fileexport.disk.resolve import Walk
from fileexport.errors import (
    BadRequestError,
    BusyError,
    ChangedWhileRead,
    ConflictError,
    DestinationNotFound,
    FileNameError,
    PeerGone,
)
from fileexport.paths import RESERVED
from fileexport.tokens import Principal, Right
from fileexport.uploads import Upload
from tests.test_staging import Counted
from tests.uploads_case import ALL, BOB, CONTENT, P, UploadsCase, digest
from tests.watched import open_descriptors


class UploadTests(UploadsCase):
    """One file."""

    def begin(self, path: str = "d/file", who: Principal = ALL, **how: Any) -> Upload:
        given = {
            "size": 10,
            "mtime_ns": 10**18,
            "replace": True,
            "source": b"s",
            "holder": f"{who.name} here",
        }
        return self.exports.begin_upload(who, P(path), **{**given, **how})

    def test_moved(self) -> None:
        """In a directory that was moved meanwhile, within or out of what is exported, nothing is stored."""
        for source in (b"s", None):
            for exports in (self.exports, self.exporting("d"), self.exporting("d", resolver=Walk)):
                self.exports = exports
                upload = self.begin(source=source)
                upload.write(CONTENT)
                (self.root / "d").rename(self.root.parent / "away")
                with self.assertRaises(ConflictError):
                    upload.finish(10, digest(CONTENT))
                (self.root.parent / "away").rename(self.root / "d")
                self.assertEqual(self.file.read_text(), "old")
                self.assertEqual([*self.root.rglob("new-*"), *self.root.rglob("part-*")], [])

    def test_finished(self) -> None:
        """It appears at the end, with its time; the lease is free then."""
        for _ in range(2):
            upload = self.begin()
            self.assertEqual((upload.offset, upload.size), (0, 10))
            upload.write(memoryview(CONTENT))
            upload.finish(10, digest(CONTENT))
            upload.suspend()
            upload.discard()
        self.assertEqual((self.file.read_bytes(), self.file.stat().st_mtime_ns), (CONTENT, 10**18))
        self.assertEqual(self.left(), [])

    def test_goes_on(self) -> None:
        """After a break the same caller goes on with the same source; nobody else does."""
        upload = self.begin()
        upload.write(CONTENT[:4])
        upload.suspend()
        for who, source in ((BOB, b"s"), (ALL, b"other"), (ALL, None)):
            other = self.begin(who=who, source=source)
            self.assertEqual(other.offset, 0)
            other.discard()
        upload = self.begin()
        self.assertEqual(upload.offset, 4)
        upload.write(CONTENT[4:])
        upload.finish(10, digest(CONTENT))
        self.assertEqual(self.file.read_bytes(), CONTENT)

    def test_wrong(self) -> None:
        """Another size or hash than announced: the old version stays, content and lease are gone."""
        for content, size, hashed in (
            *((CONTENT, 10, b"other"), (CONTENT, 9, CONTENT), (CONTENT[:9], 9, CONTENT[:9])),
            *((CONTENT[:9], 10, CONTENT), (b"", 0, b"")),
        ):
            upload = self.begin()
            upload.write(content)
            self.assertRaises(ChangedWhileRead, upload.finish, size, digest(hashed))
            self.assertEqual((self.file.read_text(), self.left()), ("old", []))

    def test_too_much(self) -> None:
        """More than was announced is refused, and nothing of it is written."""
        upload = self.begin()
        upload.write(CONTENT[:9])
        self.assertRaises(ChangedWhileRead, upload.write, b"9+")
        upload.write(b"9")
        upload.finish(10, digest(CONTENT))
        self.assertEqual(self.file.read_bytes(), CONTENT)

    def test_one_writer(self) -> None:
        """Whatever links lead there: who comes second is told who was first. Another name is free."""
        (self.root / "link").symlink_to("d")
        upload = self.begin()
        for path, source in (("d/file", b"s"), ("link/file", b"t"), ("d/file", None)):
            error = self.assertRaises(BusyError, self.begin, path, BOB, source=source)
            self.assertEqual(error.holder, "alice here")
            self.assertGreater(error.since or 0, 10**18)
        self.begin("d/other", BOB).discard()
        upload.discard()
        self.begin(who=BOB).discard()

    def test_parts_of_the_root(self) -> None:
        """Tokens of one name that see other parts are other owners."""
        inner = Principal("alice", Right.ALL, P("d"))
        upload = self.begin()
        upload.write(CONTENT[:4])
        upload.suspend()
        other = self.begin(who=inner)
        self.assertEqual(other.offset, 0)
        other.write(CONTENT[:3])
        other.suspend()
        for who, offset in ((ALL, 4), (inner, 3)):
            upload = self.begin(who=who)
            self.assertEqual(upload.offset, offset)
            upload.discard()

    def test_failed_flush(self) -> None:
        """After a flush that failed nothing is committed, whatever is called behind it."""
        self.patch(partials, "_NOTE_EVERY", 4)
        self.patch(partials, "_FLUSH_EVERY", 4)

        class Losing(Calls):
            lost = 0

            def fdatasync(self, descriptor: int) -> None:
                self.lost += 1
                if self.lost == 1:
                    raise OSError(errno.EIO, "lost")

        for size in (10, 4):
            self.exports = self.exporting(calls=Losing())
            upload = self.begin(size=size)
            self.assertRaises(OSError, upload.write, CONTENT[:4])
            if size > 4:
                self.assertRaises(OSError, upload.write, CONTENT[4:])
            error = self.assertRaises(OSError, upload.finish, size, digest(CONTENT[:size]))
            self.assertEqual(error.errno, errno.EIO)
            upload.suspend()
            self.assertEqual((self.file.read_text(), self.left()), ("old", []))
            self.begin(who=BOB).discard()

    def test_comes_again(self) -> None:
        """A client whose connection was lost unnoticed comes again: what it left goes on."""
        self.patch(leases, "QUIET", 0)
        told: list[str] = []
        old = self.begin(revoked=lambda: told.append("gone"))
        old.write(CONTENT[:4])
        for how in ({"who": BOB}, {"source": b"t"}, {"size": 11}, {"source": None}):
            self.assertRaises(BusyError, self.begin, **how)
        old.write(CONTENT[4:5])
        self.assertRaises(BusyError, self.begin)
        self.assertEqual(told, ["gone"])
        self.assertRaises(PeerGone, old.write, CONTENT[5:])
        self.assertRaises(PeerGone, old.finish, 10, digest(CONTENT))
        self.assertRaises(BusyError, self.begin)
        old.suspend()
        upload = self.begin()
        self.assertEqual(upload.offset, 5)
        upload.write(CONTENT[5:])
        old.suspend()
        upload.finish(10, digest(CONTENT))
        self.assertEqual(self.file.read_bytes(), CONTENT)

    def test_comes_again_soon(self) -> None:
        """A writer that is at work is not disturbed by a second one of the same client."""
        old = self.begin()
        old.write(CONTENT[:4])
        self.assertRaises(BusyError, self.begin)
        old.write(CONTENT[4:])
        old.finish(10, digest(CONTENT))
        self.assertEqual(self.file.read_bytes(), CONTENT)

    def test_read_again(self) -> None:
        """The check may end the reading of what is there; all of that stays, and the place is free."""
        upload = self.begin()
        upload.write(CONTENT[:4])
        upload.suspend()

        def check() -> None:
            raise KeyError

        self.assertRaises(KeyError, self.begin, check=check)
        upload = self.begin()
        self.assertEqual(upload.offset, 4)
        upload.discard()

    def test_refused(self) -> None:
        """What cannot be written is refused before the first byte, and may be tried again."""
        (self.root / "d/sub").mkdir()
        (self.root / "out").symlink_to("..")
        for _ in range(2):
            for path, kind in (
                *(
                    ("missing/x", DestinationNotFound),
                    ("out/x", DestinationNotFound),
                    ("d/sub", IsADirectoryError),
                ),
                *(("d/file/x", NotADirectoryError), ("d/a:b", FileNameError), ("", IsADirectoryError)),
                *((RESERVED, PermissionError), (f"d/{RESERVED}/x", PermissionError)),
            ):
                self.assertRaises(kind, self.begin, path)
            self.assertRaises(FileExistsError, self.begin, replace=False)
        self.assertEqual(self.left(), [])

    def test_taken_meanwhile(self) -> None:
        """Without `replace` a file that came meanwhile stays."""
        upload = self.begin("d/new", replace=False)
        upload.write(CONTENT)
        (self.root / "d/new").write_text("theirs")
        self.assertRaises(FileExistsError, upload.finish, 10, digest(CONTENT))
        self.assertEqual(((self.root / "d/new").read_text(), self.left()), ("theirs", []))

    def test_full(self) -> None:
        """Where it has no room it is not begun; nothing is left, the lease neither."""
        self.exports = self.exporting(calls=Counted(1 << 20, 0))
        for source in (b"s", None):
            for _ in range(2):
                error = self.assertRaises(OSError, self.begin, size=1, source=source)
                self.assertEqual(error.errno, errno.ENOSPC)
        self.assertEqual(self.left(), [])

    def test_exported(self) -> None:
        """It is staged in the exported directory; neither that nor what is above is written."""
        self.exports = self.exporting("d")
        upload = self.begin("d/x")
        self.assertEqual(os.listdir(self.root / "d" / RESERVED)[0][:5] in ("part-", "mark-"), True)
        upload.discard()
        self.assertRaises(IsADirectoryError, self.begin, "d")
        self.assertRaises(IsADirectoryError, self.begin, "")
        self.assertRaises(DestinationNotFound, self.begin, "x")


class CopyTests(UploadTests):
    """One file, of which a part is in other files already; and all that is true of any."""

    def begin(self, path: str = "d/file", who: Principal = ALL, **how: Any) -> Upload:
        """It may copy from the old version and from another file, which hold the same bytes."""
        bases = self.root / "d/base", self.root / "d/other"
        for base in bases:
            base.write_bytes(b"01234-56789")
        named = [(P(f"d/{base.name}"), None) for base in bases]
        return super().begin(path, who, **{"bases": named, **how})

    def test_copied(self) -> None:
        """What is copied and what is written, in order, is the file; a base may be what it replaces."""
        upload = self.begin()
        upload.copy(1, 0, 3)
        upload.write(b"34")
        upload.copy(0, 6, 5)
        upload.finish(10, digest(CONTENT))
        self.assertEqual(self.file.read_bytes(), CONTENT)
        upload = self.begin(bases=[(P("d/file"), None)])
        upload.copy(0, 5, 5)
        upload.copy(0, 0, 5)
        upload.finish(10, digest(b"5678901234"))
        self.assertEqual((self.file.read_bytes(), self.left()), (b"5678901234", []))

    def test_resumed(self) -> None:
        """After a break it goes on behind what was copied, from other bases too."""
        upload = self.begin()
        upload.copy(0, 0, 5)
        upload.suspend()
        upload = self.begin(bases=[(P("d/other"), None)])
        self.assertEqual(upload.offset, 5)
        upload.copy(0, 6, 5)
        upload.finish(10, digest(CONTENT))
        self.assertEqual(self.file.read_bytes(), CONTENT)

    def test_refused_copies(self) -> None:
        """More than was announced, more than the base has, and bases that were not named are refused."""
        upload = self.begin()
        self.assertRaises(ChangedWhileRead, upload.copy, 0, 0, 11)
        for number in (2, -1):
            self.assertRaises(BadRequestError, upload.copy, number, 0, 1)
        for offset in (6, 2**63 - 1):
            self.assertRaises(ChangedWhileRead, upload.copy, 0, offset, 6)
        self.assertEqual(upload.offset, 0)
        os.truncate(self.root / "d/base", 5)
        self.assertRaises(ChangedWhileRead, upload.copy, 0, 0, 6)
        self.assertEqual(upload.offset, 5)
        upload.discard()
        self.assertEqual((self.file.read_text(), self.left()), ("old", []))

    def test_descriptors(self) -> None:
        """However many bases are named, one is open at a time, and none before something is copied."""
        (self.root / "d/base").write_bytes(b"0123456789")
        names = [P("d/base"), P("d/file")] * 8
        self.file.write_bytes(b"0123456789")
        before = len(open_descriptors())
        upload = self.begin(size=16, bases=[])
        plain = len(open_descriptors())
        upload.discard()
        upload = self.begin(size=16, bases=[(name, None) for name in names])
        self.assertEqual(len(open_descriptors()), plain)
        for number in range(16):
            upload.copy(number, 0, 1)
            self.assertEqual(len(open_descriptors()), plain + 1)
        upload.discard()
        self.assertEqual(len(open_descriptors()), before)

    def test_another_base(self) -> None:
        """A base that became another one since the beginning is refused when it is wanted."""
        upload = self.begin()
        upload.copy(0, 0, 1)
        (self.root / "d/other").write_bytes(b"another")
        self.assertRaises(ConflictError, upload.copy, 1, 0, 1)
        upload.copy(0, 1, 1)
        self.assertEqual(upload.offset, 2)
        upload.discard()

    def test_ended_by_check(self) -> None:
        """The check may end a copy; what came until then is kept."""

        def check() -> None:
            if upload.offset:
                raise KeyError

        self.patch(partials, "_COPIED", 4)
        upload = self.begin()
        self.assertRaises(KeyError, upload.copy, 0, 0, 10, check)
        upload.suspend()
        upload = self.begin()
        self.assertEqual(upload.offset, 4)
        upload.discard()

    def test_copies_for_the_heir(self) -> None:
        """A client that came again for the same file has it: the one before copies nothing any more."""
        upload = self.begin()
        self.patch(leases, "QUIET", 0)
        self.assertRaises(BusyError, self.begin)
        self.assertRaises(PeerGone, upload.copy, 0, 0, 1)
        upload.suspend()


class ModeTests(UploadsCase):
    """Modes that are given."""

    def test_modes(self) -> None:
        """A file has the mode that was given; without one it has that of the old version."""
        for mode, found in ((0o4640, 0o640), (None, 0o640), (0o444, 0o444)):
            upload = self.exports.begin_upload(
                ALL, P("d/file"), size=0, mtime_ns=0, replace=True, source=None, holder="", mode=mode
            )
            upload.finish(0, digest(b""))
            self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), found)
