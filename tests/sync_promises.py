"""What a synchronisation promises, whichever side is the source."""

from __future__ import annotations

import os
from abc import ABC
from pathlib import Path
from typing import Any

from fileexport.client.syncing import SyncProgress
from fileexport.errors import DeletionRefused, DestinationNotFound, SourceNotFound
from tests.odd_names import ODD_NAMES
from tests.sync_case import MTIME, BothWays, Link, Made, fill, snapshot

BIG = os.urandom(600_000)
TREE: Made = {
    **{
        "a": b"1",
        "b.txt": b"22",
        "empty": b"",
        "d/c": b"333",
        "d/e/f": b"4" * 65_536,
        "d/e/g": b"5" * 65_537,
    },
    **{"d/nothing": None, "big": BIG, "link": Link("d/c"), "d/up": Link("../a"), "d/dangling": Link("none")},
}


class Promises(BothWays, ABC):
    """The tests of both directions."""

    def filled(self, entries: Made = TREE, **how: Any) -> None:
        """The source has these, and both are equal."""
        fill(self.source, entries)
        self.equal(**how)

    # -- equal

    def test_first(self) -> None:
        """All kinds of entries, sizes and times of a tree come over, of directories and the top too."""
        fill(self.source, TREE)
        result = self.equal()
        files = sum(isinstance(what, bytes) for what in TREE.values())
        done = result.done
        self.assertEqual((done["send"], done["link"], done["make_directory"]), (files, 3, 3))
        whole = sum(len(what) for what in TREE.values() if isinstance(what, bytes))
        self.assertEqual((result.bytes_sent, result.bytes_saved), (whole, 0))
        self.assertEqual(result.plan.totals.bytes, whole)

    def test_second(self) -> None:
        """The second run does nothing: no file byte travels."""
        self.filled()
        result = self.equal()
        self.assertEqual((result.plan.actions, result.bytes_sent, sum(result.done.values())), ([], 0, 0))
        self.assertEqual(result.plan.totals.unchanged, result.plan.totals.entries)

    def test_modes(self) -> None:
        """Modes are kept, of files that nobody may write and directories that nobody may read too."""
        self.filled()
        modes = {"a": 0o755, "b.txt": 0o400, "big": 0o604, "d/c": 0o000, "d/e": 0o500, "d/nothing": 0o711}
        for name, mode in modes.items():
            (self.source / name).chmod(mode)
        self.addCleanup(os.chmod, self.source / "d/e", 0o755)
        self.addCleanup(os.chmod, self.target / "d/e", 0o755)
        result = self.sync()
        found = snapshot(self.target)
        self.assertEqual({name: found[name].mode for name in modes}, modes)
        self.assertEqual((result.done["set"], result.bytes_sent), (len(modes), 0))

    def test_new_destination(self) -> None:
        """A destination that is missing is made; the directory that it lies in must be there."""
        fill(self.source, TREE)
        self.target.rmdir()
        self.equal()
        self.target = self.target / "none" / "none"
        self.place_target()
        before = snapshot(self.target.parent.parent)
        for dry_run in (True, False):
            self.assertRaises(DestinationNotFound, self.sync, dry_run=dry_run)
        self.assertEqual(snapshot(self.target.parent.parent), before)

    def test_changed(self) -> None:
        """A file that changed comes over; of a large one only what changed in it."""
        self.filled()
        changed = BIG[:300_000] + b"new" + BIG[300_000:]
        fill(self.source, {"a": b"2", "big": changed}, MTIME + 1)
        result = self.equal()
        self.assertEqual((result.done["send"], result.done["update"]), (1, 1))
        self.assertLess(result.bytes_sent, 400_000)
        self.assertEqual(result.bytes_sent + result.bytes_saved, len(changed) + 1)

    def test_deep_change(self) -> None:
        """Where only something deep below changes, the top keeps its time, and nothing is left to do."""
        self.filled()
        fill(self.source, {"d/e/f": b"6"})
        self.equal()
        self.assertEqual(self.sync().plan.actions, [])

    def test_touched(self) -> None:
        """Of a file with the same content and another time no byte travels."""
        self.filled()
        fill(self.source, {}, MTIME + 5)
        for name in ("a", "big"):
            os.utime(self.source / name, ns=(MTIME + 5, MTIME + 5))
        self.assertEqual(self.equal().bytes_sent, 0)

    def test_checksum(self) -> None:
        """With the same size and time only `checksum` sees other content."""
        self.filled()
        fill(self.target, {"a": b"X", "big": BIG[::-1]})
        self.assertEqual(self.sync().plan.actions, [])
        self.equal(checksum=True)

    def test_moved(self) -> None:
        """With `delete` no byte of what was moved travels: a file, a tree; nor of a second file like it."""
        self.filled({**TREE, "other/big": BIG[1:]})
        (self.source / "big").rename(self.source / "d" / "renamed")
        (self.source / "other").rename(self.source / "elsewhere")
        (self.source / "twin").write_bytes(BIG)
        result = self.equal(delete=True)
        self.assertEqual((result.bytes_sent, result.done["move"], result.done["copy"]), (0, 2, 1))
        self.assertEqual(result.bytes_saved, 3 * len(BIG) - 1)

    def test_copied(self) -> None:
        """Without `delete` what was moved is a copy, and the old name stays."""
        self.filled({"big": BIG})
        (self.source / "big").rename(self.source / "renamed")
        result = self.sync()
        self.assertEqual((result.bytes_sent, result.done["copy"]), (0, 1))
        self.assertEqual({path.name for path in self.target.iterdir()}, {"big", "renamed"})
        self.assertEqual((self.target / "renamed").read_bytes(), BIG)

    def test_replaced(self) -> None:
        """A file takes the place of a directory, a directory that of a file, links that of both, and back."""
        before: Made = {"f": b"1", "d/x/y": b"2", "l": Link("f"), "m": Link("d"), "n": b"3", "e/z": b"4"}
        after: Made = {"f/a/b": b"1", "d": b"2", "l": b"3", "m/c": b"4", "n": Link("d"), "e": Link("l")}
        for one, other in ((before, after), (after, before)):
            self.empty(self.source)
            self.empty(self.target)
            fill(self.target, one)
            fill(self.source, other)
            self.equal(delete=True, max_delete="100%")

    def test_way_back(self) -> None:
        """What made way has its name again where its replacement fails, a directory with all it holds."""
        fill(self.source, {"d": b"1", "e/x": b"2", "f": Link("d"), "g": b"3"})
        fill(self.target, {"d/keep": b"x", "d/sub/keep": b"y", "e": b"4", "f": b"5", "g": Link("out/../..")})
        before = snapshot(self.target)

        def progress(now: SyncProgress) -> None:
            if now.action is not None and now.action.kind == "aside":
                self.empty(self.source)
                (self.source / "f").symlink_to("d")

        result = self.sync(delete=True, max_delete="100%", progress=progress)
        self.assertEqual({problem.path for problem in result.problems}, {"d", "e/x", "g"})
        after = snapshot(self.target)
        for name in ("d", "d/keep", "d/sub/keep", "g"):
            self.assertEqual(after[name].what, before[name].what)
        self.assertEqual((after["e"].what, after["f"].what), (None, "d"))
        self.assertEqual([name for name in after if "-old" in name], [])

    def test_way_kept(self) -> None:
        """After a failure nothing that made way is removed: it has its other name, and that is told."""
        fill(self.source, {"a": b"1" * 100_000, "d": b"2", "z/x": b"3"})
        fill(self.target, {"d/keep": b"x", "z/x/y": b"1"})

        def progress(now: SyncProgress) -> None:
            if now.action is not None and now.action.kind == "aside":
                (self.target / "a").mkdir(exist_ok=True)

        result = self.sync(delete=True, progress=progress, max_delete="100%")
        told = {problem.path for problem in result.problems if problem.at_destination}
        self.assertLessEqual({"d.fileexport-old", "z/x.fileexport-old"}, told)
        found = snapshot(self.target)
        self.assertEqual((found["d.fileexport-old/keep"].what, found["d"].what), (b"x", b"2"))
        self.assertEqual(result.removed, 0)
        (self.target / "a").rmdir()
        self.equal(delete=True, max_delete="100%")

    def test_set_meanwhile(self) -> None:
        """A file that changed since it was looked at does not get the old one's time."""
        fill(self.source, {"a": b"1", "b": b"2"})
        self.equal()
        os.utime(self.source / "b", ns=(MTIME + 5, MTIME + 5))
        fill(self.source, {"0": b"0"})
        os.utime(self.source / "b", ns=(MTIME + 5, MTIME + 5))

        def progress(now: SyncProgress) -> None:
            if now.action is not None and now.action.kind == "send":
                fill(self.target, {"b": b"3"}, MTIME + 9)

        result = self.sync(progress=progress)
        self.assertEqual([tuple(one) for one in result.problems], [("b", "it changed meanwhile", True)])
        found = snapshot(self.target)["b"]
        self.assertEqual((found.what, found.mtime_ns), (b"3", MTIME + 9))

    def test_new_directories(self) -> None:
        """Until all is done only its owner may look into a new directory."""
        fill(self.source, {"d/e/f": b"1"})
        self.target.rmdir()
        modes: set[int] = set()

        def progress(now: SyncProgress) -> None:
            if now.action is not None and now.action.kind == "send":
                modes.update(one.mode for one in snapshot(self.target).values() if one.what is None)

        self.sync(progress=progress)
        self.assertEqual(modes, {0o700})
        self.equal()

    def test_patterns_unknown(self) -> None:
        """Where a .gitignore file cannot be used nothing is removed, and it is told; the rest is sent."""
        fill(self.source, {"l/.gitignore": Link("x"), "l/a": b"1", "d/.gitignore/x": b"2", "big/b": b"3"})
        fill(
            self.source, {"big/.gitignore": b"#" * (1 << 20) + b"\n", "out/.gitignore": Link("y"), "c": b"1"}
        )
        fill(self.source, {"medium/.gitignore": b"#" * 100_000 + b"\nx\n", "medium/x": b"1"})
        fill(self.target, {"l/mine": b"4", "d/e/mine": b"5", "big/mine": b"6", "gone": b"7"})
        result = self.sync(delete=True, gitignore=True, exclude=["out/"], max_delete="100%")
        self.assertEqual({problem.path for problem in result.problems}, {"l", "d", "big"})
        found = snapshot(self.target)
        self.assertLessEqual({"l/mine", "d/e/mine", "big/mine", "l/a", "big/b", "c"}, found.keys())
        self.assertTrue(found.keys().isdisjoint({"gone", "out", "medium/x"}))

    def test_in_the_way(self) -> None:
        """Without `delete` a directory that holds something stays; an empty one makes place."""
        fill(self.source, {"d": b"1", "e": b"2", "f": b"3"})
        fill(self.target, {"d/keep": b"x", "e": None})
        result = self.sync()
        self.assertEqual([problem.path for problem in result.problems], ["d"])
        found = snapshot(self.target)
        self.assertEqual((found["d/keep"].what, found["e"].what, found["f"].what), (b"x", b"2", b"3"))

    def test_odd_names(self) -> None:
        """Names that surprise come over as they are, or are reported; none is silently left out."""
        for number, name in enumerate(ODD_NAMES):
            fill(self.source / f"d{number}", {name: name.encode("utf-8", "surrogateescape")})
        fill(self.source, {})
        result = self.sync()
        left_out = {problem.path for problem in result.problems}
        expected = {
            name: found
            for name, found in snapshot(self.source).items()
            if name not in left_out and found.what
        }
        self.assertEqual({name: one for name, one in snapshot(self.target).items() if one.what}, expected)

    def test_links_outside(self) -> None:
        """A link that leads outside is left out and named, and nothing is done to what has its name there."""
        fill(self.source, {"in": Link("d/x"), "d/x": b"1", "out": Link("../x"), "d/abs": Link("/etc/passwd")})
        fill(self.target, {"out": b"mine"})
        result = self.sync(delete=True)
        self.assertEqual({problem.path for problem in result.problems}, {"out", "d/abs"})
        found = snapshot(self.target)
        self.assertEqual((found["out"].what, found["in"].what), (b"mine", "d/x"))
        self.assertNotIn("d/abs", found)

    # -- rules

    def test_no_delete(self) -> None:
        """Without `delete` what the source does not have stays."""
        fill(self.target, {"mine": b"1", "d/mine": b"2"})
        fill(self.source, TREE)
        self.sync()
        found = snapshot(self.target)
        self.assertEqual((found.pop("mine").what, found.pop("d/mine").what), (b"1", b"2"))
        self.assertEqual(found, snapshot(self.source))

    def test_delete(self) -> None:
        """With `delete` it goes, in the end, directories with all that lies in them."""
        fill(self.target, {"mine": b"mine", "d/mine/a/b": b"mine", "d/l": Link("mine")})
        fill(self.source, TREE)
        result = self.equal(delete=True, max_delete=5)
        self.assertEqual(result.done["remove"], 5)
        kinds = [action.kind for action in result.plan.actions]
        self.assertEqual(set(kinds[kinds.index("remove") :]), {"remove", "set"})

    def test_max_delete(self) -> None:
        """Past the limit nothing at all is done, and the error says how many it would be."""
        fill(self.source, {"new": b"22"})
        fill(self.target, {f"old{number}": b"1" for number in range(10)})
        before = snapshot(self.target)
        for limit in ("50%", "9", 9, "90%", 0, "0%"):
            error = self.assertRaises(DeletionRefused, self.sync, delete=True, max_delete=limit)
            self.assertIn("10", str(error))
            self.assertRaises(DeletionRefused, self.sync, delete=True, max_delete=limit, dry_run=True)
        self.assertEqual(snapshot(self.target), before)
        self.equal(delete=True, max_delete=10)
        self.assertRaises(ValueError, self.sync, delete=True, max_delete="many")

    def test_empty_source(self) -> None:
        """An empty source removes nothing, whatever the limit; nor does one that is missing."""
        fill(self.target, {"a": b"1", "d/b": b"2"})
        before = snapshot(self.target)
        self.assertRaises(DeletionRefused, self.sync, delete=True, max_delete="100%")
        fill(self.source, {"only": b"1"})
        self.assertRaises(DeletionRefused, self.sync, delete=True, max_delete="100%", exclude=["only"])
        (self.source / "only").unlink()
        self.source.rmdir()
        self.assertRaises(SourceNotFound, self.sync, delete=True, max_delete="100%")
        self.assertEqual(snapshot(self.target), before)

    def test_no_directory(self) -> None:
        """A source or a destination that is a file is `NotADirectoryError`."""
        fill(self.source, TREE)
        self.target.rmdir()
        self.target.write_bytes(b"1")
        self.assertRaises(NotADirectoryError, self.sync)
        self.target.unlink()
        self.empty(self.source)
        self.source.rmdir()
        self.source.write_bytes(b"1")
        self.assertRaises(NotADirectoryError, self.sync)

    def test_excluded(self) -> None:
        """What is excluded is neither sent nor removed, nor is what holds it; `include` takes it back."""
        fill(self.source, {"a.o": b"1", "keep.o": b"2", "b.c": b"3", "build/x": b"4", "d/build/y": b"5"})
        fill(self.target, {"old.o": b"6", "old.c": b"7", "gone/old.o": b"8", "gone/old.c": b"9", "x": b"1"})
        self.sync(delete=True, exclude=["*.o", "/build/"], include=["keep.o"], max_delete="100%")
        found = {name for name, one in snapshot(self.target).items() if one.what is not None}
        self.assertEqual(found, {"keep.o", "b.c", "d/build/y", "old.o", "gone/old.o"})
        self.assertRaises(ValueError, self.sync, exclude=["!"])

    def test_gitignore(self) -> None:
        """With `gitignore` the files of that name in the source decide, the deepest one first."""
        tree: Made = {
            **{".gitignore": b"*.o\n/build/\n", "a.o": b"1", "b.c": b"2", "build/x": b"3"},
            **{"d/.gitignore": b"!keep.o\n", "d/keep.o": b"4", "d/e/b.o": b"5", "d/build/x": b"6"},
        }
        fill(self.source, tree)
        fill(self.target, {"mine.o": b"7"})
        self.sync(delete=True, gitignore=True)
        found = {name for name, one in snapshot(self.target).items() if one.what is not None}
        expected = {".gitignore", "b.c", "d/.gitignore", "d/keep.o", "d/build/x", "mine.o"}
        self.assertEqual(found, expected)
        self.equal(delete=True)

    # -- what is said of it

    def test_dry_run(self) -> None:
        """A dry run says what would be done, and does nothing."""
        fill(self.source, TREE)
        fill(self.target, {"mine": b"1", "a": Link("x")})
        before = snapshot(self.target)
        dry = self.sync(delete=True, dry_run=True)
        self.assertEqual(snapshot(self.target), before)
        self.assertEqual((dry.dry_run, dry.bytes_sent, sum(dry.done.values())), (True, 0, 0))
        self.assertEqual(self.equal(delete=True).plan, dry.plan)

    def test_progress(self) -> None:
        """`progress` is called after each action with totals that are true from the beginning."""
        fill(self.source, {**TREE, "huge": os.urandom(3_000_000)})
        seen: list[SyncProgress] = []
        result = self.sync(progress=seen.append)
        self.assertEqual([one.action for one in seen if one.action is not None], result.plan.actions)
        self.assertEqual({one.totals for one in seen}, {result.plan.totals})
        last = seen[-1]
        self.assertEqual((last.files_done, last.bytes_done), (last.totals.files, last.totals.bytes))
        self.assertEqual([one.bytes_done for one in seen], sorted(one.bytes_done for one in seen))
        self.assertTrue([one for one in seen if one.action is None])

    def test_progress_raises(self) -> None:
        """What `progress` raises is passed on as it is; run again, it goes on."""
        fill(self.source, {**TREE, "huge": os.urandom(3_000_000)})
        for kind in (ZeroDivisionError, FileNotFoundError, ConnectionError, KeyboardInterrupt):
            for wants_action in (True, False):

                def progress(now: SyncProgress, kind: Any = kind, wants_action: bool = wants_action) -> None:
                    if (now.action is not None) is wants_action:
                        raise kind("mine")

                if wants_action or kind is not KeyboardInterrupt:
                    error = self.assertRaises(kind, self.sync, progress=progress, checksum=True)
                    self.assertEqual(error.args, ("mine",))
        self.equal()

    def test_interrupted(self) -> None:
        """Broken off after any action, the next run does what is missing, and no more."""
        fill(self.source, TREE)
        fill(self.target, {"mine": b"1"})
        rest = self.sync(delete=True, dry_run=True).plan.actions
        for _ in range(len(rest)):
            stopper = Stopper()
            self.assertRaises(KeyboardInterrupt, self.sync, delete=True, progress=stopper)
            left = self.sync(delete=True, dry_run=True).plan.actions
            self.assertLess(len(left), len(rest))
            rest = left
            if not rest:
                break
        self.equal(delete=True)

    # -- helpers

    def place_target(self) -> None:
        """The target is another path now."""
        if self.target.is_relative_to(self.there):
            self.remote = f"/there/{self.target.relative_to(self.there)}"
            self.there = self.target
        else:
            self.here = self.target

    def empty(self, top: Path) -> None:
        """Remove all that lies in a directory."""
        for path in sorted(top.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()


class Stopper:
    """Ctrl-C at the first action that is not about times."""

    def __call__(self, now: SyncProgress) -> None:
        if now.action is not None:
            raise KeyboardInterrupt
