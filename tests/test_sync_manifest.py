"""What lies in a tree."""

from __future__ import annotations

import posixpath

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.paths import MAX_TARGET
from fileexport.sync.manifest import Entry, Manifest, leads_inside

FILE = Entry("file", 1, 2, 0o644)
DIRECTORY = Entry("directory", 0, 3, 0o755)


class ManifestTests(SynchronousTestCase):
    """`Manifest`."""

    def setUp(self) -> None:
        self.manifest = Manifest(
            DIRECTORY,
            {
                "b/c": {"f": FILE},
                "": {"b": DIRECTORY, "a": DIRECTORY, "z": FILE},
                "b": {"d": FILE, "c": DIRECTORY},
                "a": {},
            },
        )

    def test_entries(self) -> None:
        """Parents come before their children, and the names of a directory are sorted."""
        paths = [path for path, _ in self.manifest.entries()]
        self.assertEqual(paths, ["a", "b", "z", "b/c", "b/d", "b/c/f"])
        self.assertEqual(self.manifest.count(), len(paths))

    def test_get(self) -> None:
        """An entry is found by its path, the top by the empty one."""
        self.assertEqual(
            dict(self.manifest.entries()), {p: self.manifest.get(p) for p, _ in self.manifest.entries()}
        )
        self.assertIs(self.manifest.get(""), DIRECTORY)
        for path in ("c", "a/b", "z/f", "b/c/f/g", "/", "a/"):
            self.assertIsNone(self.manifest.get(path), path)

    def test_nothing(self) -> None:
        """A directory that does not exist holds nothing."""
        self.assertIsNone(Manifest().top)
        self.assertEqual(list(Manifest().entries()), [])
        self.assertEqual(Manifest().count(), 0)

    def test_not_entered(self) -> None:
        """A directory without its folder is an entry all the same."""
        manifest = Manifest(DIRECTORY, {"": {"d": DIRECTORY}})
        self.assertEqual(list(manifest.entries()), [("d", DIRECTORY)])


class LinkTests(SynchronousTestCase):
    """`leads_inside`."""

    def test_inside(self) -> None:
        """What leads to the top or below may be made."""
        for path, target in (
            ("l", "x"),
            ("l", "."),
            ("l", "./x//y/"),
            ("a/l", "../x"),
            ("a/l", ".."),
            ("a/b/l", "../../x"),
            ("a/b/l", ".././../x"),
            ("l", "..."),
            ("l", "\udcff"),
            ("l", "x" * MAX_TARGET),
        ):
            self.assertTrue(leads_inside(path, target), (path, target))

    def test_outside(self) -> None:
        """What is absolute, climbs too far or climbs after a name, which may be a link, may not."""
        for path, target in (
            ("l", ""),
            ("l", "/"),
            ("l", "/x"),
            ("l", ".."),
            ("a/l", "../../x"),
            ("a/l", "x/.."),
            ("a/b/l", "../x/../y"),
            ("l", "x\0y"),
            ("l", "x" * (MAX_TARGET + 1)),
            ("l", "é" * (MAX_TARGET // 2 + 1)),
        ):
            self.assertFalse(leads_inside(path, target), (path, target))

    @given(
        st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4),
        st.lists(st.sampled_from(["..", ".", "", "a", "b"]), min_size=1, max_size=6),
    )
    def test_any(self, place: list[str], names: list[str]) -> None:
        """Read as a path, a text that may be made never climbs above the top."""
        path, target = "/".join(place), "/".join(names)
        if leads_inside(path, target):
            where = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            self.assertFalse(where.startswith(("..", "/")), where)
