"""What lies below a directory: names, hashes."""

from __future__ import annotations

import os

from blake3 import blake3

from fileexport.disk import walks
from fileexport.disk.jail import View
from fileexport.disk.walks import Names, hashes, walk
from fileexport.errors import BadRequestError, OverloadedError
from fileexport.paths import MAX_DEPTH, RESERVED, RelPath
from tests.test_jail import ALL, PLAIN, JailCase, P
from tests.watched import forbid, unprivileged


class WalkTests(JailCase):
    """Names."""

    def walked(self, path: str = "", view: View = ALL, *, recursive: bool = True) -> list[str]:
        return [str(found) for found, _ in walk(self.jail, view, P(path), recursive=recursive)]

    def test_order(self) -> None:
        """Sorted by name, each directory before what is in it; without `recursive` nothing below."""
        for path in ("b/z", "b/a/x", "a", "c/q"):
            self.write(path)
        self.assertEqual(self.walked(), ["/a", "/b", "/b/a", "/b/a/x", "/b/z", "/c", "/c/q"])
        self.assertEqual(self.walked("b"), ["/a", "/a/x", "/z"])
        self.assertEqual(self.walked(recursive=False), ["/a", "/b", "/c"])

    def test_entries(self) -> None:
        """All kinds come as they are; links are not entered; ours and unseen ones are left out."""
        self.write("d/file")
        self.write("d/.hidden")
        self.write(f"d/{RESERVED}/x")
        (self.root / "link").symlink_to("d")
        os.mkfifo(self.root / "fifo")
        found = {str(path): entry.kind for path, entry in walk(self.jail, PLAIN, P(""), recursive=True)}
        self.assertEqual(found, {"/d": "directory", "/d/file": "file", "/fifo": "other", "/link": "link"})
        self.assertIn("/d/.hidden", self.walked())

    def test_what_cannot_be_listed(self) -> None:
        """The top must be a directory that may be listed; below it such a one has no inside."""
        self.write("d/e/f")
        self.write("d/x").chmod(0o644)
        self.assertRaises(FileNotFoundError, self.walked, "missing")
        self.assertRaises(NotADirectoryError, self.walked, "d/x")
        self.root.chmod(0o755)
        forbid(self, self.root / "d/e", 0o311)
        with unprivileged():
            self.assertEqual(self.walked("d"), ["/e", "/x"])
            self.assertRaises(PermissionError, self.walked, "d/e")

    def test_gone_meanwhile(self) -> None:
        """A directory that goes away while the walk is on has nothing in it."""
        self.write("a")
        self.write("b/c")
        seen = []
        for path, _ in walk(self.jail, ALL, P(""), recursive=True):
            seen.append(str(path))
            if str(path) == "/a":
                (self.root / "b/c").unlink()
                (self.root / "b").rmdir()
        self.assertEqual(seen, ["/a", "/b"])

    def test_too_deep(self) -> None:
        """What no path can name is left out."""
        (self.root / "/".join("d" * (MAX_DEPTH + 2))).mkdir(parents=True)
        self.assertEqual(len(self.walked()), MAX_DEPTH)
        self.assertEqual(len(self.walked("d/d")), MAX_DEPTH - 2)

    def test_too_many(self) -> None:
        """The names in memory are bounded, not those of the whole tree."""
        self.patch(walks, "MAX_KNOWN", 5)
        for number in range(4):
            for name in "ab":
                self.write(f"{number}/{name}")
        self.assertEqual(len(self.walked()), 12)
        for number in range(5, 8):
            self.write(f"0/{number}")
        self.assertRaises(BadRequestError, self.walked)

    def test_together(self) -> None:
        """Walks that share a budget keep so many names together, and give them back however they end."""
        for name in ("a", "b", "c/d", "c/e"):
            self.write(name)
        names = Names(4)
        first = walk(self.jail, ALL, P(""), recursive=True, names=names)
        self.assertEqual([str(next(first)[0]), str(next(first)[0])], ["/a", "/b"])
        second = walk(self.jail, ALL, P("c"), recursive=True, names=names)
        self.assertEqual(names.kept, 1)
        next(second)
        third = walk(self.jail, ALL, P(""), recursive=True, names=names)
        self.assertRaises(OverloadedError, next, third)
        self.assertEqual(names.kept, 2)
        self.assertEqual([str(path) for path, _ in first], ["/c", "/c/d", "/c/e"])
        self.assertEqual(names.kept, 1)
        second.close()
        self.assertEqual(names.kept, 0)


class HashesTests(JailCase):
    """Hashes."""

    def test_tree(self) -> None:
        """Every regular file below, by its path from there; links are not followed."""
        content = {"a": b"", "d/b": b"1" * 3_000_000, "d/e/c": b"2"}
        for path, data in content.items():
            self.write(path).write_bytes(data)
        (self.root / "link").symlink_to("a")
        os.mkfifo(self.root / "fifo")
        expected = [(P(path), len(data), blake3(data).digest()) for path, data in content.items()]
        self.assertEqual(list(hashes(self.jail, ALL, P(""), lambda: None)), expected)

    def test_file(self) -> None:
        """A file itself has the empty path."""
        self.write("a", "content")
        found = list(hashes(self.jail, ALL, P("a"), lambda: None))
        self.assertEqual(found, [(RelPath(), 7, blake3(b"content").digest())])
        self.assertRaises(FileNotFoundError, list, hashes(self.jail, ALL, P("missing"), lambda: None))

    def test_steps(self) -> None:
        """Within a large file nothing takes long: what is no result comes now and then."""
        self.patch(walks, "STEP", 2 << 20)
        content = bytes(5 << 20)
        self.write("a").write_bytes(content)
        found = list(hashes(self.jail, ALL, P(""), lambda: None))
        self.assertEqual(found, [None, None, (P("a"), len(content), blake3(content).digest())])

    def test_cancelled(self) -> None:
        """The check may end it."""
        self.write("a").write_bytes(bytes(5_000_000))
        left = 3

        def check() -> None:
            nonlocal left
            left -= 1
            if not left:
                raise KeyError

        self.assertRaises(KeyError, list, hashes(self.jail, ALL, P("a"), check))
