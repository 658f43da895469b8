"""What `upload_files` and `download_files` both promise, whichever side is the source."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from fileexport.client.selection import CONFLICTS
from fileexport.errors import BusyError, FileNameError, SourceNotFound
from tests.cli_case import CliCase, fill, tree

TREE: dict[str, bytes | str | None] = {
    **{"a.txt": "1", "b.csv": "22", ".hidden.txt": "3", "d/c.txt": "4", "d/e/f.txt": "55", "d/e/g.csv": "6"},
    **{"d/empty": None, "big.txt": os.urandom(200_000)},
}
TEXTS = {"a.txt", "big.txt", "d/c.txt", "d/e/f.txt"}


def files_of(directory: Path) -> set[str]:
    """The paths of all files below a directory."""
    return {name for name, content in tree(directory).items() if content is not None}


class BothWays(CliCase, ABC):
    """A subclass says how files move; `source` and `target` are directories on the disk."""

    source: Path
    target: Path

    @abstractmethod
    def move(self, source: Any, **how: Any) -> bool:
        """Move from `source` to `target`, the names seen from `source`."""

    def test_glob(self) -> None:
        """A glob is seen from the relative directory, and structure below it is kept."""
        fill(self.source, TREE)
        self.assertIs(self.move("**/*.txt", recursive=True), True)
        self.assertEqual(files_of(self.target), TEXTS)
        for name in TEXTS:
            self.assertEqual((self.target / name).read_bytes(), (self.source / name).read_bytes())

    def test_not_recursive(self) -> None:
        """Without `recursive` two stars are one, and directories that match are not taken."""
        fill(self.source, TREE)
        self.move("**/*.txt")
        self.assertEqual(files_of(self.target), {"d/c.txt"})
        self.move("*")
        self.assertEqual(files_of(self.target), {"d/c.txt", "a.txt", "b.csv", "big.txt"})

    def test_directory(self) -> None:
        """A directory comes whole; without `recursive` it is `IsADirectoryError`."""
        fill(self.source, TREE)
        self.assertRaises(IsADirectoryError, self.move, "d")
        self.move("d", recursive=True)
        self.assertEqual(
            tree(self.target), {n: c for n, c in tree(self.source).items() if n.split("/")[0] == "d"}
        )

    def test_all(self) -> None:
        """A dot is everything, hidden names too."""
        fill(self.source, TREE)
        self.move(".", recursive=True)
        self.assertEqual(tree(self.target), tree(self.source))

    def test_several(self) -> None:
        """Sources may be several, also with what lies deep and alone."""
        fill(self.source, TREE)
        self.move(["a.txt", "d/e/*.csv", Path("d/c.txt")])
        self.assertEqual(files_of(self.target), {"a.txt", "d/e/g.csv", "d/c.txt"})

    def test_exclude(self) -> None:
        """Excludes are gitignore patterns, seen from the relative directory."""
        fill(self.source, TREE)
        self.move("*", recursive=True, exclude_files=["*.csv", "/d/e", "!b.csv"])
        self.assertEqual(files_of(self.target), {"a.txt", "b.csv", "big.txt", "d/c.txt"})

    def test_process_file(self) -> None:
        """Each file's path and size is asked about; False leaves it."""
        fill(self.source, TREE)
        asked: dict[str, int] = {}

        def process(path: str, size: int) -> bool:
            asked[path] = size
            return path != "d/c.txt"

        self.assertTrue(self.move("**/*.txt", recursive=True, process_file=process))
        self.assertEqual(asked, {"a.txt": 1, "big.txt": 200_000, "d/c.txt": 1, "d/e/f.txt": 2})
        self.assertEqual(files_of(self.target), TEXTS - {"d/c.txt"})

    def test_process_chunk(self) -> None:
        """Chunks are named by the path at the destination, and are exact."""
        fill(self.source, {"d/f": b"x" * 1052, "d/empty": ""})
        seen: list[tuple[int, int, int, str]] = []

        def process(data: bytes, remaining: int, size: int, name: str) -> bool:
            seen.append((len(data), remaining, size, name))
            return True

        self.assertIs(self.move("d", recursive=True, chunk_size=512, process_chunk=process), True)
        self.assertEqual(seen, [(512, 1052, 1052, "d/f"), (512, 540, 1052, "d/f"), (28, 28, 1052, "d/f")])
        self.assertEqual(tree(self.target), tree(self.source))

    def test_cancel(self) -> None:
        """A chunk that is answered by False cancels: nothing is left of its file, what was done stays."""
        fill(self.source, {"a": "1", "b": "2", "c": "3"})
        result = self.move("*", process_chunk=lambda data, remaining, size, name: name != "b")
        self.assertIs(result, False)
        self.assertEqual(files_of(self.target), {"a"})
        self.assertTrue(self.move("c"))

    def test_exception(self) -> None:
        """What a callback raises is passed on, and the client goes on."""
        fill(self.source, {"a": "1"})
        for kind in (RuntimeError, FileExistsError, ConnectionError, KeyboardInterrupt):

            def process(*words: object, kind: type[BaseException] = kind) -> bool:
                raise kind("mine")

            error = self.assertRaises(kind, self.move, "*", process_chunk=process)
            self.assertEqual(error.args, ("mine",))
            self.assertRaises(kind, self.move, "*", process_file=process)
            self.assertEqual(files_of(self.target), set())
        self.assertTrue(self.move("*"))

    def test_exception_of_our_kinds(self) -> None:
        """What a callback raises is never judged: not as a conflict, nor as a name that is left out."""
        fill(self.source, {"d/a": "1", "d/b": "2"})
        for kind in (FileExistsError, FileNameError, BusyError, PermissionError, IsADirectoryError):

            def process(*words: object, kind: type[Exception] = kind) -> bool:
                raise kind("mine")

            for conflict in CONFLICTS:
                how: dict[str, Any] = {"recursive": True, "process_conflict": conflict}
                for callback in ("process_chunk", "process_file"):
                    error = self.assertRaises(kind, self.move, "d", **how, **{callback: process})
                    self.assertEqual(error.args, ("mine",))
        self.assertEqual(files_of(self.target), set())

    def test_conflicts(self) -> None:
        """abort raises before anything is sent, skip leaves, replace replaces, rename finds another name."""
        fill(self.source, {"d/a.txt": "new", "d/b.txt": "new"})
        fill(self.target, {"d/b.txt": "old"})
        self.assertRaises(FileExistsError, self.move, "d", recursive=True)
        self.assertEqual(files_of(self.target), {"d/b.txt"})
        self.move("d", recursive=True, process_conflict="skip")
        self.assertEqual(tree(self.target), {"d": None, "d/a.txt": "new", "d/b.txt": "old"})
        self.move("d/b.txt", process_conflict="rename")
        self.assertEqual((self.target / "d/b (1).txt").read_text(), "new")
        self.move("d/*", process_conflict="replace")
        self.assertEqual((self.target / "d/b.txt").read_text(), "new")
        self.assertRaises(ValueError, self.move, "d", process_conflict="ask")

    def test_missing(self) -> None:
        """A source that is not there, and a glob that finds nothing, are `SourceNotFound`."""
        for source in ("none", "*.none", "none/*"):
            self.assertRaises(SourceNotFound, self.move, source)
