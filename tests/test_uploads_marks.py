"""A file that comes in without an announcement, or of which a part is taken back."""

from __future__ import annotations

import errno
import sys
from typing import Any

from fileexport import leases
from fileexport.disk import partials
from fileexport.errors import BusyError, ChangedWhileRead, PeerGone
from fileexport.uploads import Upload
from tests.test_staging import Counted
from tests.uploads_case import ALL, CONTENT, P, UploadsCase, digest
from tests.watched import WatchedCalls


class UnannouncedTests(UploadsCase):
    """What comes without a size, a hash, a source."""

    def begin(self, path: str = "d/file", **how: Any) -> Upload:
        return self.exports.begin_upload(ALL, P(path), **{"replace": True, "holder": "x", **how})

    def test_unknown_size(self) -> None:
        """As much as comes is meant, also nothing; what is said at the end is compared all the same."""
        for content, said in (
            *((CONTENT, (None, None)), (b"", (None, None)), (b"", (0, digest(b"")))),
            *((CONTENT, (10, None)), (CONTENT, (None, digest(CONTENT)))),
        ):
            upload = self.begin()
            self.assertEqual(upload.size, sys.maxsize)
            upload.write(content)
            upload.finish(*said)
            self.assertEqual((self.file.read_bytes(), self.left()), (content, []))
        for said in ((9, None), (11, None), (None, digest(b"other"))):
            upload = self.begin()
            upload.write(CONTENT)
            self.assertRaises(ChangedWhileRead, upload.finish, *said)
        self.assertEqual((self.file.read_bytes(), self.left()), (CONTENT, []))

    def test_announced(self) -> None:
        """Without a word at the end what was announced counts."""
        upload = self.begin(size=10)
        upload.write(CONTENT[:9])
        self.assertRaises(ChangedWhileRead, upload.finish)
        self.assertEqual((self.file.read_text(), self.left()), ("old", []))
        upload = self.begin(size=10)
        upload.write(CONTENT)
        upload.finish()
        self.assertEqual(self.file.read_bytes(), CONTENT)

    def test_not_kept(self) -> None:
        """A file without a size is never continued: it has no source, and a break leaves nothing."""
        self.assertRaises(ValueError, self.begin, source=b"s")
        upload = self.begin()
        upload.write(CONTENT)
        upload.suspend()
        self.assertEqual(self.left(), [])
        self.begin().discard()

    def test_full(self) -> None:
        """It needs more room than the reserve, and looks for it while it comes."""
        self.exports = self.exporting(calls=Counted(1 << 20, 0))
        self.assertEqual(self.assertRaises(OSError, self.begin).errno, errno.ENOSPC)
        calls = Counted(1 << 20, 1 << 19)
        self.exports = self.exporting(calls=calls)
        self.patch(partials, "_LOOK_EVERY", 4)
        upload = self.begin()
        upload.write(CONTENT)
        calls.figures = Counted(1 << 20, 0).figures
        self.assertEqual(self.assertRaises(OSError, upload.write, CONTENT).errno, errno.ENOSPC)
        self.assertRaises(OSError, upload.finish)
        self.assertEqual((self.file.read_text(), self.left()), ("old", []))

    def test_check(self) -> None:
        """The check comes when all is flushed and nothing is named; what it raises leaves the old version."""
        calls: list[str] = []
        self.exports = self.exporting(calls=WatchedCalls(lambda name, *_: calls.append(name)))
        seen: list[str] = []

        def check() -> None:
            seen[:] = calls
            self.assertEqual(self.file.read_text(), "old")
            raise KeyError

        for source in (b"s", None):
            upload = self.begin(size=10, source=source)
            upload.write(CONTENT)
            self.assertRaises(KeyError, lambda: upload.finish(check=check))  # noqa: B023  # called at once
            self.assertEqual(seen[-1], "fsync")
            self.assertEqual((self.file.read_text(), self.left()), ("old", []))
        upload = self.begin()
        upload.finish(check=lambda: seen.append("asked"))
        self.assertEqual((seen[-1], self.file.read_bytes()), ("asked", b""))

    def test_identity(self) -> None:
        """It is known before the commit what the committed file will be."""
        upload = self.begin()
        identity = upload.identity
        upload.finish()
        status = self.file.stat()
        self.assertEqual(identity, (status.st_dev, status.st_ino))
        with self.assertRaises(OSError):
            upload.identity  # noqa: B018  # asking is what fails


class MarkTests(UploadsCase):
    """Content that is believed later, or never."""

    def begin(self, **how: Any) -> Upload:
        given = {"size": 10, "replace": True, "source": b"s", "holder": "x"}
        return self.exports.begin_upload(ALL, P("d/file"), **{**given, **how})

    def test_taken_back(self) -> None:
        """What is taken back is not in the file, nor in its hash."""
        upload = self.begin()
        upload.write(CONTENT[:4])
        mark = upload.mark()
        upload.write(b"wrong!")
        upload.rewind(mark)
        self.assertEqual(upload.offset, 4)
        upload.mark()
        upload.write(CONTENT[4:])
        upload.accept()
        upload.finish(10, digest(CONTENT))
        self.assertEqual(self.file.read_bytes(), CONTENT)

    def test_kept(self) -> None:
        """At a break that is kept which was accepted."""
        upload = self.begin()
        upload.mark()
        upload.write(CONTENT[:4])
        upload.accept()
        upload.mark()
        upload.write(CONTENT[4:])
        upload.suspend()
        self.assertEqual(self.exports.kept_upload(ALL, P("d/file"), size=10, source=b"s"), 4)

    def test_for_the_heir(self) -> None:
        """Where the same client came again nothing is taken back or accepted any more."""
        self.patch(leases, "QUIET", 0)
        upload = self.begin()
        mark = upload.mark()
        self.assertRaises(BusyError, self.begin)
        self.assertRaises(PeerGone, upload.rewind, mark)
        self.assertRaises(PeerGone, upload.accept)
        upload.suspend()

    def test_not_accepted(self) -> None:
        """With an open mark nothing is committed: the old version stays, the lease is free."""
        upload = self.begin()
        upload.mark()
        upload.write(CONTENT)
        self.assertRaises(RuntimeError, upload.finish)
        self.assertEqual((self.file.read_text(), self.left()), ("old", []))
        self.begin().discard()
