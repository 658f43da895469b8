"""Many small files that come in together."""

from __future__ import annotations

import os
import stat
from typing import Any

from fileexport.errors import BusyError, ChangedWhileRead, DestinationNotFound, FileNameError
from fileexport.paths import MAX_DEPTH, MAX_NAME
from fileexport.small_files import SmallFiles
from fileexport.wire.messages import SmallFile
from tests.uploads_case import ALL, BOB, P, UploadsCase, digest


class SmallFilesTests(UploadsCase):
    """Many small files."""

    def begin(self, directory: str = "", *, replace: bool = True, max_size: int | None = None) -> SmallFiles:
        small = self.exports.begin_small_files(
            ALL, P(directory), replace=replace, holder="alice here", max_size=max_size
        )
        self.addCleanup(small.discard)
        return small

    def files(self, *paths: str) -> list[SmallFile]:
        """Files that hold their own path."""
        return [SmallFile(P(path), 10**18, digest(path.encode()), path.encode()) for path in paths]

    def test_committed(self) -> None:
        """Numbers that are there come as ranges; others with what went wrong; all in their order."""
        (self.root / "d/sub").mkdir()
        small = self.begin("d")
        wrong = SmallFile(P("wrong"), 0, digest(b"a"), b"b")
        small.add(
            5, [*self.files("a", "b"), wrong, *self.files("sub/c", "missing/d", "sub", "a:b", "/", "e")]
        )
        ranges, failures = small.commit()
        self.assertEqual(ranges, [(5, 2), (8, 1), (13, 1)])
        kinds = (ChangedWhileRead, DestinationNotFound, IsADirectoryError, FileNameError, FileNameError)
        self.assertEqual(
            [(index, type(error)) for index, error in failures],
            list(zip((7, 9, 10, 11, 12), kinds, strict=True)),
        )
        self.assertEqual(small.commit(), ([], []))
        small.add(14, self.files("f"))
        self.assertEqual(small.commit(), ([(14, 1)], []))
        self.assertEqual((self.root / "d/sub/c").read_text(), "sub/c")
        self.assertEqual((self.root / "d/e").stat().st_mtime_ns, 10**18)
        small.discard()
        self.assertEqual(self.left(), [])

    def test_too_long(self) -> None:
        """A file that is longer than the limit is refused for itself."""
        small = self.begin(max_size=3)
        small.add(0, self.files("abc", "abcd", "ab"))
        ranges, failures = small.commit()
        self.assertEqual((ranges, [index for index, _ in failures]), ([(0, 1), (2, 1)], [1]))
        self.assertIsInstance(failures[0][1], ValueError)
        self.assertIn("the limit is 3", str(failures[0][1]))
        self.assertFalse((self.root / "abcd").exists())

    def test_new_only(self) -> None:
        """Without `replace` a taken name stays."""
        small = self.begin(replace=False)
        small.add(0, self.files("d/file", "d/new"))
        ranges, failures = small.commit()
        self.assertEqual((ranges, [type(error) for _, error in failures]), ([(1, 1)], [FileExistsError]))
        self.assertEqual(self.file.read_text(), "old")

    def test_one_writer(self) -> None:
        """A name that is being written is busy for small files, and the other way round until the commit."""
        upload = self.exports.begin_upload(
            BOB, P("d/file"), size=0, mtime_ns=0, replace=True, source=None, holder="bob here"
        )
        small = self.begin()
        small.add(0, self.files("d/file", "d/new"))
        busy: dict[str, Any] = {"size": 0, "mtime_ns": 0, "replace": True, "source": None, "holder": "x"}
        self.assertRaises(BusyError, self.exports.begin_upload, BOB, P("d/new"), **busy)
        (index, error), *others = small.commit().failures
        assert isinstance(error, BusyError)
        self.assertEqual((index, error.holder, others), (0, "bob here", []))
        upload.discard()
        for path in ("d/file", "d/new"):
            self.exports.begin_upload(BOB, P(path), **busy).discard()

    def test_discarded(self) -> None:
        """What was not committed is gone, and its names are free."""
        small = self.begin()
        small.add(0, self.files("d/file", "d/new"))
        small.discard()
        small.discard()
        self.assertEqual(
            (os.listdir(self.root / "d"), self.file.read_text(), self.left()), (["file"], "old", [])
        )
        again = self.begin()
        again.add(0, self.files("d/file"))
        self.assertEqual(again.commit().ranges, [(0, 1)])

    def test_missing(self) -> None:
        """The directory must be there."""
        for path in ("missing", "d/missing"):
            self.assertRaises(DestinationNotFound, self.begin, path)
        self.assertRaises(NotADirectoryError, self.begin, "d/file")

    def test_several_exported(self) -> None:
        """From above the exported directories files go into each, and nowhere else."""
        (self.root / "e").mkdir()
        self.exports = self.exporting("d", "e")
        small = self.begin()
        small.add(0, self.files("d/x", "top", "e/x", "e", "other/x"))
        ranges, failures = small.commit()
        self.assertEqual((ranges, [index for index, _ in failures]), ([(0, 1), (2, 1)], [1, 3, 4]))

    def test_too_deep(self) -> None:
        """A file that no path could name is not made."""
        deep = "/".join(["d" * 60] * (MAX_DEPTH - 1))
        here = os.open(self.root, os.O_RDONLY)
        for name in deep.split("/"):
            os.mkdir(name, dir_fd=here)
            here, above = os.open(name, os.O_RDONLY, dir_fd=here), here
            os.close(above)
        os.close(here)
        small = self.begin(deep)
        small.add(0, [SmallFile(P(name), 0, digest(b""), b"") for name in ("fits", "n" * MAX_NAME)])
        ranges, failures = small.commit()
        self.assertEqual((ranges, [type(error) for _, error in failures]), ([(0, 1)], [FileNameError]))

    def test_modes(self) -> None:
        """A file has the mode that was given; without one it has that of the old version."""
        self.file.chmod(0o604)
        small = self.exports.begin_small_files(ALL, P("d"), replace=True, holder="")
        self.addCleanup(small.discard)
        modes = {"a": 0o751, "b": 0o400, "file": None}
        small.add(0, [SmallFile(P(name), 0, digest(b""), b"", mode) for name, mode in modes.items()])
        small.commit()
        found = [stat.S_IMODE((self.root / "d" / name).stat().st_mode) for name in modes]
        self.assertEqual(found, [0o751, 0o400, 0o604])
