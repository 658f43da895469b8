"""Globs, excludes and names that are taken."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from fileexport.client.selection import Child, expand, is_glob, joined, numbered

TREE = {
    "": [(".h", True), ("a", True), ("b.txt", False), ("c.txt", False)],
    ".h": [("z.txt", False)],
    "a": [("d", True), ("x.txt", False)],
    "a/d": [("y.txt", False)],
}


def children(directory: str, deep: bool) -> Iterator[Child]:
    """The listing of `TREE`."""
    if directory not in TREE:
        raise FileNotFoundError(directory)
    for name, is_directory in TREE[directory]:
        yield name, is_directory
        if deep and is_directory:
            for path, inner in children(joined(directory, name), True):
                yield f"{name}/{path}", inner


class GlobTests(SynchronousTestCase):
    """`expand`."""

    def check(self, pattern: str, *names: str, recursive: bool = False) -> None:
        """The pattern names just these, in any order, each once."""
        found = [path for path, _ in expand(pattern, children, recursive=recursive)]
        self.assertEqual(sorted(found), sorted(names), pattern)

    def test_one_level(self) -> None:
        """Wildcards stand for what is in one name, and never for a slash."""
        self.check("*.txt", "b.txt", "c.txt")
        self.check("?.txt", "b.txt", "c.txt")
        self.check("[!b].txt", "c.txt")
        self.check("*", "a", "b.txt", "c.txt")
        self.check("a/*", "a/d", "a/x.txt")
        self.check("*/x.txt", "a/x.txt")
        self.check("./a//*.txt", "a/x.txt")

    def test_hidden(self) -> None:
        """A dot in front is found only by a dot."""
        self.check(".*", ".h")
        self.check(".*/*", ".h/z.txt")
        self.check("**/z.txt", recursive=True)

    def test_deep(self) -> None:
        """Two stars stand for any directories, none too, where they may."""
        self.check("**/*.txt", "a/x.txt", "a/d/y.txt", "b.txt", "c.txt", recursive=True)
        self.check("**/d/*", "a/d/y.txt", recursive=True)
        self.check("a/**", "a/d", "a/d/y.txt", "a/x.txt", recursive=True)
        self.check("**/**/y.txt", "a/d/y.txt", recursive=True)

    def test_not_deep(self) -> None:
        """Where they may not, two stars are one."""
        self.check("**/*.txt", "a/x.txt")
        self.check("**", "a", "b.txt", "c.txt")

    def test_nothing(self) -> None:
        """What is not there is not found, and that is no error."""
        for pattern in ("*.csv", "none/*", "b.txt/*", "*/none"):
            self.check(pattern)

    def test_kind(self) -> None:
        """It is told what is a directory."""
        self.assertEqual(dict(expand("*", children)), {"a": True, "b.txt": False, "c.txt": False})

    def test_is_glob(self) -> None:
        """Only three characters make a glob."""
        self.assertEqual(
            [is_glob(text) for text in ("*", "a?b", "a[", "a]{}!", "")], [True] * 3 + [False] * 2
        )

    def test_time(self) -> None:
        """Many stars cost no more than few."""
        pattern = "/".join(["**", "*"] * 30) + "/none"

        def deep(directory: str, below: bool) -> Iterator[Child]:
            yield "/".join(["n"] * 60), False

        self.assertEqual(list(expand(pattern, deep, recursive=True)), [])


class NumberTests(SynchronousTestCase):
    """`numbered`."""

    def test_first_free(self) -> None:
        """The first number that is free, before the last suffix."""
        for name, other in (
            ("a.txt", "a (1).txt"),
            ("a.tar.gz", "a.tar (1).gz"),
            ("a", "a (1)"),
            (".hidden", ".hidden (1)"),
        ):
            self.assertEqual(numbered(name, lambda name: False), other)
        taken = {"a (1).txt", "a (2).txt"}
        self.assertEqual(numbered("a.txt", taken.__contains__), "a (3).txt")
