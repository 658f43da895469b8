"""The verbs that tell what is in files, and copy it, and who may."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk import contents
from fileexport.disk.jail import Jail
from fileexport.errors import BadRequestError, ConflictError, FileExportError, FileNameError
from fileexport.exports import Exports, file_version
from fileexport.paths import RelPath
from fileexport.sync.chunks import AVERAGES
from fileexport.tokens import Principal, Right
from tests.hostile import HIDDEN, NEIGHBOUR, SECRET, UNDER, VECTORS, build
from tests.test_contents import CONTENT, chunks_of
from tests.test_exports import ALL, STRANGER, ExportsCase, P, principal
from tests.watched import forbid, open_descriptors, unprivileged

#: Of a file of as many bytes as all the names here have.
UPLOAD: dict[str, Any] = {"size": 1, "mtime_ns": 0, "replace": True, "source": None, "holder": ""}


class ContentsCase(ExportsCase):
    """Has a large file; no descriptor may stay open."""

    def setUp(self) -> None:
        super().setUp()
        (self.root / "d").mkdir()
        self.file = self.root / "d/large"
        self.file.write_bytes(CONTENT)
        before = open_descriptors()
        self.addCleanup(lambda: self.assertEqual(open_descriptors() - before, set()))

    def version(self, path: str = "d/large") -> bytes:
        """The version of a file that is read."""
        opened = self.exports.open(ALL, P(path))
        assert opened is not None
        with opened:
            return file_version(opened)


class RightsTests(ContentsCase):
    """What each right opens."""

    def test_each_verb(self) -> None:
        """Without the right to read nothing is told or copied, and the disk is not touched."""
        verbs: tuple[Callable[[Principal], object], ...] = (
            lambda who: self.exports.hash_files(who, [P("d/large")]),
            lambda who: self.exports.chunks(who, P("d/large"), AVERAGES[0]),
            lambda who: self.exports.begin_upload(who, P("n"), bases=[(P("d/large"), None)], **UPLOAD),
        )
        self.calls.clear()
        for verb in verbs:
            for rights in (Right(0), Right.ALL & ~Right.READ):
                with self.assertRaises(PermissionError):
                    verb(principal(rights=rights))
        self.assertEqual(self.calls, [])


class HashesTests(ContentsCase):
    """Of many files."""

    def test_hashes(self) -> None:
        """Each path comes with size and BLAKE3, in order; what cannot be read is left out."""
        self.write("a", "c")
        (self.root / "link").symlink_to("gone")
        os.mkfifo(self.root / "fifo")
        paths = [P(path) for path in ("c", "missing", "d", "a/x", "link", "fifo", "", "d/large", "a", "a")]
        found = list(self.exports.hash_files(ALL, paths))
        expected = [("/c", b"c"), ("/d/large", CONTENT), ("/a", b"a"), ("/a", b"a")]
        self.assertEqual(
            [(str(row[0]), row[1], row[2]) for row in found if row],
            [(path, len(content), blake3(content).digest()) for path, content in expected],
        )

    def test_forbidden(self) -> None:
        """A file that we may not read is left out."""
        self.write("a", "b")
        forbid(self, self.root / "a", 0o000)
        with unprivileged():
            found = list(self.exports.hash_files(ALL, [P("a"), P("b")]))
        self.assertEqual([str(row[0]) for row in found if row], ["/b"])

    def test_turns(self) -> None:
        """Within a large file None comes, so that others have their turn."""
        self.patch(contents, "STEP", 1)
        self.patch(contents, "_PIECE", len(CONTENT) // 4)
        rows = list(self.exports.hash_files(ALL, [P("d/large")]))
        self.assertEqual(rows[:-1], [None] * 4)

    def test_check(self) -> None:
        """What the check raises ends it, whatever it is."""
        for error in (KeyError(), TimeoutError(), FileNameError()):
            left = 3

            def check(error: Exception = error) -> None:
                nonlocal left
                left -= 1
                if left <= 0:
                    raise error

            paths = [P("d/large"), P("d/large")]
            with self.assertRaises(type(error)):
                list(self.exports.hash_files(ALL, paths, check=check))


class ChunksTests(ContentsCase):
    """Of one file."""

    def test_chunks(self) -> None:
        """The chunks of the file come with the version that a reader gets."""
        for average in AVERAGES:
            version, found = self.exports.chunks(ALL, P("d/large"), average)
            self.assertEqual(version, self.version())
            chunks = [chunk for some in found for chunk in some]
            self.assertEqual(chunks, chunks_of(CONTENT, average))

    def test_left(self) -> None:
        """Whoever closes them early, or at once, leaves nothing open."""
        self.patch(contents, "MAX_CHUNKS", 1)
        for count in range(3):
            _, found = self.exports.chunks(ALL, P("d/large"), AVERAGES[0])
            for _ in range(count):
                next(found)
            found.close()

    def test_refused(self) -> None:
        """Only files have chunks, of the averages that there are."""
        for path, kind in (("d", IsADirectoryError), ("", IsADirectoryError), ("x", FileNotFoundError)):
            self.refuses(kind, self.exports.chunks, ALL, P(path), AVERAGES[0])
        for average in (0, 512, AVERAGES[0] + 1, 4 << 20):
            self.refuses(BadRequestError, self.exports.chunks, ALL, P("d/large"), average)


class BasesTests(ContentsCase):
    """Files that content is copied from."""

    def test_version(self) -> None:
        """A base is what was meant, or there is no upload: gone, changed, or no file."""
        old = self.version()
        for path, version in (("d", None), ("", None), ("x", None), ("x", old), ("d/large/x", None)):
            self.refused(path, version)
        self.exports.begin_upload(ALL, P("n"), bases=[(P("d/large"), old)], **UPLOAD).discard()
        os.utime(self.file)
        self.refused("d/large", old)
        self.exports.begin_upload(ALL, P("n"), bases=[(P("d/large"), None)], **UPLOAD).discard()

    def refused(self, path: str, version: bytes | None) -> None:
        bases = [(P("d/large"), None), (P(path), version)]
        for _ in range(2):
            with self.assertRaises(ConflictError):
                self.exports.begin_upload(ALL, P("n"), bases=bases, **UPLOAD)

    def test_own_part(self) -> None:
        """What the caller may not see is no base, and neither is what lies above the exported ones."""
        self.write("e/f", ".h")
        exports = self.exporting("d", "e")
        for who, path in (
            *((ALL, ""), (principal("/d"), "e/f"), (STRANGER, ".h"), (STRANGER, "d/.h")),
            (ALL, ".h"),
        ):
            with self.assertRaises(ConflictError):
                exports.begin_upload(who, P("d/n"), bases=[(P(path), None)], **UPLOAD)


class HostileTests(SynchronousTestCase):
    """The hostile tree."""

    def test_nothing_outside(self) -> None:
        """Of what is outside of the caller's part nothing is hashed, cut or copied."""
        top = Path(self.mktemp())
        build(top / "root", top / "outside")
        jail = Jail(str(top / "root"))
        self.addCleanup(jail.close)
        for directories, who, markers in (
            ((), ALL, (SECRET,)),
            ((), STRANGER, (SECRET, HIDDEN)),
            ((), principal(UNDER), (SECRET, NEIGHBOUR)),
            ((P(UNDER),), ALL, (SECRET, NEIGHBOUR)),
        ):
            exports = Exports(jail, directories)
            hashed = {blake3(marker.encode()).digest() for marker in markers}
            for vector in VECTORS:
                with contextlib.suppress(FileNameError):
                    seen = set(self.seen(exports, who, P(vector.path)))
                    self.assertEqual(seen & hashed, set(), vector.label)

    def seen(self, exports: Exports, who: Principal, path: RelPath) -> list[bytes]:
        """The hashes of all that is told, or copied, of a path."""
        found = [row[2] for row in exports.hash_files(who, [path]) if row]
        with contextlib.suppress(OSError):
            lists = exports.chunks(who, path, AVERAGES[0])[1]
            found += [chunk.digest for chunks in lists for chunk in chunks]
        target = who.under / "copy" if who.under else P(UNDER) / "copy"
        for marker in (SECRET, NEIGHBOUR, HIDDEN):
            with contextlib.suppress(OSError, FileExportError):
                size = len(marker)
                how = {**UPLOAD, "size": size}
                upload = exports.begin_upload(who, target, bases=[(path, None)], **how)
                try:
                    upload.copy(0, 0, size)
                    upload.finish(size, blake3(marker.encode()).digest())
                    found.append(blake3(marker.encode()).digest())
                finally:
                    upload.discard()
        return found
