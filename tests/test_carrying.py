"""`Up` and `Down`: how each action is done, and that none reaches out of the destination."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3

from fileexport.client.carrying import Carried, Carrier, Down, Up
from fileexport.client.ends import LocalTree, RemoteTree, hash_both, look
from fileexport.errors import ChangedWhileRead, DestinationNotFound, FileNameError
from fileexport.sync.manifest import Entry
from fileexport.sync.plan import Action
from tests.sync_case import MTIME, Link, SyncCase, fill, snapshot

CHUNKS = os.urandom(300_000)
DIRECTORY = Entry("directory", 0, MTIME, 0o750)


def content(size: int, mode: int = 0o640) -> Entry:
    """A file of this size."""
    return Entry("file", size, MTIME, mode)


def send(path: str, size: int) -> Action:
    """A file to be sent."""
    return Action("send", path, size, content(size))


def nothing(done: int, size: int) -> None:
    """Nobody looks."""


class BothTests(SyncCase):
    """What the carriers have in common."""

    def ends(self) -> tuple[LocalTree, RemoteTree]:
        """The two trees."""
        return LocalTree(str(self.here)), RemoteTree(self.client, self.remote)

    def ways(self) -> list[tuple[Carrier, Path, Path]]:
        """Both carriers with their sources and destinations."""
        ways: list[tuple[Carrier, Path, Path]] = [
            (Up(self.client, *self.ends(), None), self.here, self.there),
            (Down(self.client, *self.ends(), None), self.there, self.here),
        ]
        for way, _, _ in ways:
            self.addCleanup(way.close)
        return ways

    def errors(self, outcomes: Iterable[Carried]) -> dict[str, type[Exception] | None]:
        """What became of each path."""
        return {one.action.path: None if one.error is None else type(one.error) for one in outcomes}

    def test_steps(self) -> None:
        """Directories, links, moves, removals, times and modes; each has its outcome, in their order."""
        for way, _, target in self.ways():
            fill(target, {"old": b"1", "gone/x": b"2", "l": Link("old")})
            actions = [
                Action("make_directory", "d", entry=DIRECTORY),
                Action("move", "d/new", 1, content(1), ("old",)),
                Action("link", "d/up", entry=Entry("link", 0, 0, 0, "../l")),
                Action("link", "l", entry=Entry("link", 0, 0, 0, "d/new")),
                Action("remove", "gone"),
                Action("remove", "gone/x"),
                Action("remove", "gone"),
                Action("set", "d/new", entry=content(1)),
                Action("set", "d", entry=DIRECTORY),
                Action("set", "", entry=DIRECTORY),
            ]
            outcomes = [*way.steps(actions[:7]), *way.steps(actions[7:])]
            way.close()
            self.assertEqual([one.action for one in outcomes], actions)
            failed = [one.action for one in outcomes if one.error is not None]
            self.assertEqual(failed, [actions[4]])
            found = snapshot(target)
            self.assertEqual(set(found), {".", "d", "d/new", "d/up", "l"})
            self.assertEqual((found["d"].mode, found["d"].mtime_ns), (0o750, MTIME))
            self.assertEqual(found["."], found["d"])
            self.assertEqual(found["d/new"], (b"1", 0o640, MTIME))
            self.assertEqual((found["d/up"].what, found["l"].what), ("../l", "d/new"))
            for name in ("d/new", "d/up", "l"):
                (target / name).unlink()
            (target / "d").rmdir()

    def test_names(self) -> None:
        """What is no path below the destination is an error for itself, and the others are done."""
        for way, _, target in self.ways():
            bad = ["../out", "a//b", "a/../../out", "/etc/out", ".."]
            actions = [Action("make_directory", path, entry=DIRECTORY) for path in (*bad, "good")]
            found = self.errors(way.steps(actions))
            self.assertEqual(found, {**dict.fromkeys(bad, FileNameError), "good": None})
            found = self.errors(way.steps([Action("remove", path) for path in bad]))
            self.assertEqual(found, dict.fromkeys(bad, FileNameError))
            around = {path.name for path in target.parent.iterdir()}
            self.assertLessEqual(around, {"here", "root", "there", ".fileexport"})
            (target / "good").rmdir()

    def test_small(self) -> None:
        """Small files arrive with time and mode; one that fails does so for itself."""
        for way, source, target in self.ways():
            fill(source, {"a": b"1", "d/b": b"22"})
            (source / "d/b").chmod(0o750)
            (target / "d").mkdir()
            actions = [send("a", 1), send("d/b", 2), send("none", 3), send("../out", 1)]
            found = self.errors(way.small(actions))
            self.assertEqual((found["a"], found["d/b"], found["../out"]), (None, None, FileNameError))
            self.assertTrue(issubclass(found["none"] or int, FileNotFoundError))
            there = snapshot(target)
            self.assertEqual(there["d/b"], (b"22", 0o750, MTIME))
            self.empty(source, target)

    def test_one(self) -> None:
        """A large file travels whole, or without what is there; how many bytes that were is returned."""
        for way, source, target in self.ways():
            fill(source, {"big": CHUNKS})
            fill(target, {"old": CHUNKS[1:]})
            self.assertEqual(way.one(send("whole", 0)._replace(path="big"), nothing), len(CHUNKS))
            (target / "big").unlink()
            update = Action("update", "big", len(CHUNKS), content(len(CHUNKS)), ("old",))
            self.assertLess(way.one(update, nothing), len(CHUNKS))
            self.assertEqual((target / "big").read_bytes(), CHUNKS)
            self.empty(source, target)

    def test_copy(self) -> None:
        """A copy has the content that was meant, or is none."""
        for way, _, target in self.ways():
            fill(target, {"old": CHUNKS})
            copy = Action("copy", "new", len(CHUNKS), content(len(CHUNKS)), ("old",))
            self.assertRaises(ChangedWhileRead, way.copy, copy, bytes(32))
            self.assertFalse((target / "new").exists())
            way.copy(copy, blake3(CHUNKS).digest())
            self.assertEqual(snapshot(target)["new"], (CHUNKS, 0o640, MTIME))
            self.empty(target)

    def test_links_out(self) -> None:
        """No action goes through a link that leads out, nor makes one."""
        outside = Path(self.mktemp()).absolute()
        fill(outside, {"x": b"mine", "d/y": b"mine"})
        before = snapshot(outside)
        for way, source, target in self.ways():
            fill(source, {"l/x": b"1", "l/big": CHUNKS})
            (target / "l").symlink_to(outside)
            actions = [
                Action("make_directory", "l/new", entry=DIRECTORY),
                Action("remove", "l/x"),
                Action("move", "stolen", 1, content(1), ("l/x",)),
                Action("link", "l/link", entry=Entry("link", 0, 0, 0, "x")),
                Action("set", "l/x", entry=content(4)),
                Action("set", "l", entry=DIRECTORY),
                Action("link", "abs", entry=Entry("link", 0, 0, 0, str(outside))),
                Action("link", "up", entry=Entry("link", 0, 0, 0, "../../..")),
            ]
            outcomes = [*way.steps(actions), *way.small([send("l/x", 1)])]
            self.assertEqual([one.action for one in outcomes if one.error is None], [])
            self.assertRaises(OSError, way.one, send("l/big", len(CHUNKS)), nothing)
            self.assertEqual(snapshot(outside), before)
            self.assertEqual([path.name for path in target.iterdir() if path.name != ".fileexport"], ["l"])
            self.empty(source, target)

    def test_top(self) -> None:
        """The top is made where the directory that it lies in is there."""
        for path in (self.here, self.there):
            path.rmdir()
        make = Action("make_directory", "", entry=DIRECTORY)
        for way, _, target in self.ways():
            self.assertEqual(self.errors(way.steps([make])), {"": None})
            self.assertTrue(target.is_dir())
        here, there = LocalTree(str(self.here / "a/b")), RemoteTree(self.client, "/there/a/b")
        for end in (here, there):
            self.assertRaises(DestinationNotFound, end.check, False)
        self.assertEqual([one.top for one in look(here, there)], [None, None])

    def test_portable(self) -> None:
        """Of a remote tree it is known which names may be new, also where it is to be made."""
        for remote in ("/", "/there", "/new"):
            here, there = look(LocalTree(str(self.here)), RemoteTree(self.client, remote))
            self.assertEqual((here.is_portable, there.is_portable), (False, True), remote)

    def test_hashes(self) -> None:
        """Both sides' hashes at once; what cannot be read has none."""
        for top in (self.here, self.there):
            fill(top, {"a": b"1", "d/b": CHUNKS})
        paths = ["a", "d/b", "none", "d"]
        expected = {"a": blake3(b"1").digest(), "d/b": blake3(CHUNKS).digest()}
        self.assertEqual(hash_both(*self.ends(), paths, paths), (expected, expected))
        self.assertEqual(hash_both(*self.ends(), [], ["a"], fresh=True), ({}, {"a": expected["a"]}))
        self.assertEqual(hash_both(*self.ends(), ["a"], []), ({"a": expected["a"]}, {}))

    def empty(self, *tops: Path) -> None:
        """Remove what lies in these directories."""
        for top in tops:
            for path in sorted(top.rglob("*"), reverse=True):
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                else:
                    path.unlink()
