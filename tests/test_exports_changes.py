"""The verbs of the transfer protocol, and who may."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk import walks
from fileexport.disk.jail import Jail
from fileexport.errors import (
    BusyError,
    ConflictError,
    DestinationNotFound,
    FileExportError,
    FileNameError,
    OverloadedError,
)
from fileexport.exports import Exports, file_version
from fileexport.paths import RESERVED, RelPath
from fileexport.tokens import Principal, Right
from fileexport.wire.messages import SmallFile
from tests.hostile import HIDDEN, NEIGHBOUR, SECRET, UNDER, VECTORS, build
from tests.test_exports import ALL, ROOT, STRANGER, ExportsCase, P, principal


class RightsTests(ExportsCase):
    """What each right opens."""

    def test_each_verb(self) -> None:
        """Every verb needs its own right and is refused with any other before the disk is touched."""
        self.write("a", "b")
        upload: dict[str, Any] = {"size": 0, "mtime_ns": 0, "replace": True, "source": None, "holder": ""}
        verbs: tuple[tuple[Right, Callable[[Principal], object]], ...] = (
            (Right.READ, lambda who: self.exports.stat(who, P("a"))),
            (Right.READ, lambda who: self.exports.walk(who, ROOT)),
            (Right.READ, lambda who: self.exports.hashes(who, ROOT)),
            (Right.WRITE, lambda who: self.exports.make_directory(who, P("n"))),
            (Right.WRITE, lambda who: self.exports.make_directories(who, P("n/o"))),
            (Right.WRITE, lambda who: self.exports.make_file(who, P("n"))),
            (Right.WRITE, lambda who: self.exports.rename(who, P("a"), P("n"), holder="I")),
            (Right.WRITE, lambda who: self.exports.begin_upload(who, P("n"), **upload)),
            (Right.WRITE, lambda who: self.exports.begin_small_files(who, ROOT, replace=True, holder="")),
            (Right.DELETE, lambda who: self.exports.remove_path(who, P("a"))),
        )
        self.calls.clear()
        for right, verb in verbs:
            for rights in (Right(0), Right.ALL & ~right):
                with self.assertRaises(PermissionError):
                    verb(principal(rights=rights))
        self.assertEqual(self.calls, [])

    def test_no_more_than_needed(self) -> None:
        """A caller with that right alone is served."""
        self.write("a")
        writer = principal(rights=Right.WRITE)
        self.exports.make_directory(writer, P("d"))
        self.exports.make_file(writer, P("d/f"))
        self.exports.rename(writer, P("a"), P("d/a"), holder="I")
        self.assertEqual(len(list(self.exports.walk(principal(rights=Right.READ), ROOT, recursive=True))), 3)
        self.assertEqual(self.exports.remove_path(principal(rights=Right.DELETE), P("d"), recursive=True), 3)


class ReadingTests(ExportsCase):
    """Single paths, walks, hashes, versions."""

    def walked(self, exports: Exports, path: str, who: Principal = ALL) -> list[str]:
        return [str(found) for found, _ in exports.walk(who, P(path), recursive=True)]

    def test_stat(self) -> None:
        """A path is what a listing shows of it: a link is a link."""
        self.write("d/file")
        (self.root / "link").symlink_to("d")
        for path, kind, size in (("d/file", "file", 6), ("d", "directory", 0), ("link", "link", 1)):
            entry = self.exports.stat(ALL, P(path))
            self.assertEqual((entry.name, entry.kind, entry.size), (P(path).name, kind, size))
        self.assertEqual(self.exports.stat(ALL, P("link/file")).kind, "file")
        self.assertEqual(self.exports.stat(ALL, ROOT).kind, "directory")
        for path in ("missing", RESERVED, "d/missing"):
            self.refuses(FileNotFoundError, self.exports.stat, ALL, P(path))

    def test_above(self) -> None:
        """Above the exported directories these are all there is."""
        self.write("a/x", "b/c/y", "b/z", "n")
        exports = self.exporting("a", "b/c")
        self.assertEqual(self.walked(exports, ""), ["/a", "/a/x", "/b/c", "/b/c/y"])
        self.assertEqual(self.walked(exports, "b"), ["/c", "/c/y"])
        self.assertEqual(exports.stat(ALL, P("b")).kind, "directory")
        for path, files in (("", ["a/x", "b/c/y"]), ("b", ["c/y"])):
            hashed = [(str(row[0]), row[2]) for row in exports.hashes(ALL, P(path)) if row]
            whole = [f"{path}/{file}".lstrip("/") for file in files]
            expected = [
                (f"/{file}", blake3(one.encode()).digest()) for file, one in zip(files, whole, strict=True)
            ]
            self.assertEqual(hashed, expected)
        for path in ("n", "b/z"):
            self.refuses(FileNotFoundError, exports.stat, ALL, P(path))
            self.refuses(FileNotFoundError, exports.walk, ALL, P(path))
            self.refuses(FileNotFoundError, exports.hashes, ALL, P(path))

    def test_names(self) -> None:
        """All walks of a daemon together keep so many names; what one kept the next may."""
        self.patch(walks, "MAX_KNOWN", 6)
        exports = self.exporting()
        self.write("a/1", "a/2", "a/3", "a/4")
        first = exports.walk(ALL, P("a"))
        self.assertEqual(str(next(first)[0]), "/1")
        second = exports.walk(ALL, P("a"))
        self.refuses(OverloadedError, next, second)
        self.refuses(OverloadedError, list, exports.hashes(ALL, P("a")))
        del first
        self.assertEqual(len(list(exports.walk(ALL, P("a")))), 4)
        self.assertEqual(len(list(exports.hashes(ALL, ROOT))), 4)

    def test_hashes(self) -> None:
        """Of a file, and of all files below a directory."""
        self.write("d/a", "d/e/b")
        found = list(self.exports.hashes(ALL, P("d")))
        self.assertEqual(
            found, [(P("a"), 3, blake3(b"d/a").digest()), (P("e/b"), 5, blake3(b"d/e/b").digest())]
        )
        self.assertEqual(list(self.exports.hashes(ALL, P("d/a"))), [(ROOT, 3, blake3(b"d/a").digest())])

    def test_version(self) -> None:
        """It stays while the file does, and is another after any change."""
        self.write("a")

        def version() -> bytes:
            opened = self.exports.open(ALL, P("a"))
            assert opened is not None
            with opened:
                return file_version(opened)

        seen = [version()]
        self.assertEqual((version(), len(seen[0])), (seen[0], 16))
        for change in (
            lambda: os.utime(self.root / "a", ns=(1, 1)),
            lambda: (self.root / "a").write_bytes(b"longer than that"),
            lambda: os.replace(self.root / "b", self.root / "a"),
        ):
            self.write("b")
            change()
            self.assertNotIn(version(), seen)
            seen.append(version())


class ChangingTests(ExportsCase):
    """What may be changed, and where."""

    def test_missing_parents(self) -> None:
        """Where the directory is not there, it is the destination that is missing."""
        self.write("a")
        for verb in (self.exports.make_directory, self.exports.make_file):
            self.refuses(DestinationNotFound, verb, ALL, P("missing/x"))
            self.refuses(NotADirectoryError, verb, ALL, P("a/x"))
        self.refuses(
            DestinationNotFound, lambda: self.exports.rename(ALL, P("a"), P("missing/x"), holder="I")
        )
        error = self.assertRaises(
            FileNotFoundError, self.exports.rename, ALL, P("missing"), P("x"), holder="I"
        )
        self.assertNotIsInstance(error, DestinationNotFound)

    def test_links_stay_inside(self) -> None:
        """A rename is the step of `change`: no link comes to lead outside, and who writes is left alone."""
        self.write("a/b/d/file", "a/b/x")
        (self.root / "a/b/d/l").symlink_to("../../x")
        self.refuses(ConflictError, lambda: self.exports.rename(ALL, P("a/b/d/l"), P("l"), holder="I"))
        self.refuses(ConflictError, lambda: self.exports.rename(ALL, P("a/b/d"), P("d"), holder="I"))
        how: dict[str, Any] = {"size": 3, "mtime_ns": None, "replace": True, "source": None, "holder": "he"}
        upload = self.exports.begin_upload(ALL, P("a/b/x"), **how)
        self.refuses(BusyError, lambda: self.exports.rename(ALL, P("a/b/x"), P("a/b/y"), holder="I"))
        upload.discard()
        self.exports.rename(ALL, P("a/b/x"), P("a/b/y"), holder="I")

    def test_exported(self) -> None:
        """What is exported, or holds it, is neither removed, moved, replaced nor made; what is in it is."""
        self.write("a/b/x", "a/n", "c/d/y")
        exports = self.exporting("a", "a/b", "c/d")
        for path in ("", "a", "a/b", "c", "c/d"):
            for verb in (
                lambda path: exports.remove_path(ALL, path, recursive=True),
                lambda path: exports.rename(ALL, path, P("a/new"), holder="I"),
                lambda path: exports.rename(ALL, P("a/n"), path, replace=True, holder="I"),
            ):
                self.refuses(PermissionError, verb, P(path))
            self.refuses(FileExistsError, exports.make_directory, ALL, P(path))
            exports.make_directory(ALL, P(path), exist_ok=True)
        exports.rename(ALL, P("a/b/x"), P("c/d/x"), holder="I")
        self.assertEqual(exports.remove_path(ALL, P("c/d/x")), 1)

    def test_own_part(self) -> None:
        """A token's own part stays, whatever it may do in it."""
        self.write("a/x")
        who = principal("/a")
        self.refuses(PermissionError, lambda: self.exports.remove_path(who, P("a"), recursive=True))
        self.refuses(FileNotFoundError, self.exports.remove_path, who, P("b"))
        self.refuses(DestinationNotFound, lambda: self.exports.rename(who, P("a/x"), P("x"), holder="I"))
        self.assertEqual(self.exports.remove_path(who, P("a/x")), 1)

    def test_others_exported(self) -> None:
        """What is exported, but not in the own part, is as little there as what is nowhere."""
        self.write("a/x", "b/y", "c/d/z")
        exports, who = self.exporting("a", "b", "c/d"), principal("/a")
        for path in ("b", "c", "c/d", "nothing"):
            error = self.assertRaises(FileNotFoundError, exports.remove_path, who, P(path), recursive=True)
            self.assertNotIsInstance(error, DestinationNotFound)
            error = self.assertRaises(FileNotFoundError, exports.rename, who, P(path), P("a/n"), holder="I")
            self.assertNotIsInstance(error, DestinationNotFound)
            self.refuses(DestinationNotFound, partial(exports.rename, who, P("a/x"), P(path), holder="I"))
            self.refuses(DestinationNotFound, exports.make_directory, who, P(path))
        self.refuses(PermissionError, exports.remove_path, principal("/c/d"), P("c"))

    def test_words(self) -> None:
        """What cannot be moved is told why."""
        self.write("d/x")
        self.refuses(ConflictError, lambda: self.exports.rename(ALL, P("d"), P("d/e"), holder="I"))


class HostileTests(SynchronousTestCase):
    """The table of hostile paths through every verb of the transfer protocol."""

    def setUp(self) -> None:
        work = Path(self.mktemp())
        self.root, self.outside = work / "root", work / "outside"
        build(self.root, self.outside)
        self.jail = Jail(str(self.root))
        self.addCleanup(self.jail.close)

    def test_reading(self) -> None:
        """No caller sees what is outside the root or outside the own part."""
        hashed = {marker: blake3(marker.encode()).hexdigest() for marker in (SECRET, NEIGHBOUR, HIDDEN)}
        for directories, who, markers in (
            ((), ALL, (SECRET,)),
            ((), STRANGER, (SECRET, HIDDEN)),
            ((), principal(UNDER), (SECRET, NEIGHBOUR)),
            ((P(UNDER),), ALL, (SECRET, NEIGHBOUR)),
        ):
            exports = Exports(self.jail, directories)
            for vector in VECTORS:
                seen = self.seen(exports, who, vector.path)
                for marker in markers:
                    self.assertNotIn(marker, seen, vector.label)
                    self.assertNotIn(hashed[marker], seen, vector.label)

    def seen(self, exports: Exports, who: Principal, text: str) -> str:
        """All that the reading verbs show of a path."""
        found: list[str] = []
        with contextlib.suppress(OSError, FileNameError):
            path = P(text)
            with contextlib.suppress(OSError):
                found += [str(one) for one, _ in exports.walk(who, path, recursive=True)]
            with contextlib.suppress(OSError):
                found += [row[2].hex() for row in exports.hashes(who, path) if row]
        return " ".join(found)

    def test_changing(self) -> None:
        """Nothing outside is made, changed, moved or removed, and nothing of ours."""
        (self.root / RESERVED).mkdir(exist_ok=True)
        (self.root / RESERVED / "mine").write_text("ours")
        before = self.state()
        exports = Exports(self.jail)
        for vector in VECTORS:
            try:
                path = P(vector.path)
            except FileNameError:
                continue
            for verb in self.verbs(exports, path):
                with contextlib.suppress(OSError, FileExportError):
                    verb()
            self.assertEqual(self.state(), before, vector.label)

    def state(self) -> dict[str, bytes]:
        files = [*self.outside.rglob("*"), self.root / RESERVED / "mine"]
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in files}

    def verbs(self, exports: Exports, path: RelPath) -> tuple[Callable[[], object], ...]:
        """What changes something, none of it the tree that the vectors need."""

        def upload() -> None:
            upload = exports.begin_upload(
                ALL, path / "n", size=0, mtime_ns=0, replace=True, source=b"s", holder="x"
            )
            upload.finish(0, blake3().digest())

        def small() -> None:
            files = exports.begin_small_files(ALL, path, replace=True, holder="x")
            files.add(0, [SmallFile(RelPath(("n",)), 0, blake3().digest(), b"")])
            files.commit()
            files.discard()

        return (
            lambda: exports.make_directories(ALL, path / "made" / "new"),
            lambda: exports.remove_path(ALL, path / "made", recursive=True),
            lambda: exports.make_directory(ALL, path / "new"),
            lambda: exports.rename(ALL, path / "new", path / "moved", holder="I"),
            lambda: exports.make_file(ALL, path / "moved" / "n"),
            lambda: exports.remove_path(ALL, path / "moved", recursive=True),
            lambda: exports.remove_path(ALL, path / SECRET, recursive=True),
            *(upload, small),
            lambda: exports.remove_path(ALL, path / "n"),
        )
