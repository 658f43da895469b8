"""Many small changes for a principal, and a whole directory as a manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fileexport.disk.calls import Calls
from fileexport.disk.jail import Jail
from fileexport.disk.resolve import Openat2, Resolver, Walk
from fileexport.disk.scan import Part, manifest_of
from fileexport.errors import (
    BusyError,
    ConflictError,
    DestinationNotFound,
    FileNameError,
    NotGranted,
    PeerGone,
)
from fileexport.exports import Exports
from fileexport.paths import RESERVED, RelPath
from fileexport.tokens import Principal, Right
from fileexport.wire import messages as m
from tests.hostile import HIDDEN, NEIGHBOUR, SECRET, UNDER, VECTORS, build
from tests.test_exports import ALL, ExportsCase, P, principal
from tests.watched import WatchedCalls, forbid, open_descriptors, unprivileged

TIME = 1_700_000_000_123_456_789


def link(path: str, target: str, *, replace: bool = False) -> m.LinkStep:
    return m.LinkStep(P(path), os.fsencode(target), replace)


def move(path: str, target: str, *, replace: bool = False) -> m.MoveStep:
    return m.MoveStep(P(path), P(target), replace)


class SteppingCase(ExportsCase):
    """Carries steps out."""

    def run_steps(
        self, *steps: m.AnyStep, who: Principal = ALL, exports: Exports | None = None
    ) -> list[type[Exception] | None]:
        """What became of each."""
        results = (exports or self.exports).carry_out(who, steps, holder="somebody")
        return [None if error is None else type(error) for error in results]

    def tree(self) -> list[str]:
        paths = (path for path in self.root.rglob("*") if RESERVED not in path.parts)
        return sorted(str(path.relative_to(self.root)) for path in paths)


class CarryOutTests(SteppingCase):
    """Steps, their order, and what becomes of each."""

    def test_all(self) -> None:
        """All kinds are done in their order, flushed once for each directory, and nothing is left open."""
        self.write("a/file", "a/old")
        self.calls.clear()
        results = self.run_steps(
            m.MakeStep(P("a/d")),
            link("a/d/l", "../file"),
            link("a/d/l", "../moved", replace=True),
            move("a/file", "a/moved"),
            m.RemoveStep(P("a/old")),
            m.SetStep(P("a/moved"), TIME, 0o600),
            m.SetStep(P("a"), TIME, None),
        )
        self.assertEqual(results, [None] * 7)
        self.assertEqual(self.tree(), ["a", "a/d", "a/d/l", "a/moved"])
        self.assertEqual(os.readlink(self.root / "a/d/l"), "../moved")
        self.assertEqual((self.root / "a").stat().st_mtime_ns, TIME)
        self.assertEqual((self.root / "a/moved").stat().st_mode & 0o777, 0o600)
        # The two directories, and the file that was set.
        self.assertEqual(self.calls.count("fsync"), 3)

    def test_each_for_itself(self) -> None:
        """One that fails says why, and the next is done."""
        self.write("file", "d/inside")
        results = self.run_steps(
            m.MakeStep(P("file")),
            m.MakeStep(P("missing/d")),
            m.MakeStep(P("a:b")),
            link("l", "../out"),
            link("l", "/etc"),
            m.RemoveStep(P("missing")),
            m.RemoveStep(P("d")),
            m.SetStep(P("missing"), 1, None),
            move("missing", "x"),
            move("file", "missing/x"),
            m.MakeStep(P("done")),
        )
        expected: list[type[Exception] | None] = [
            *(FileExistsError, DestinationNotFound, FileNameError, ConflictError, ConflictError),
            *(FileNotFoundError, IsADirectoryError, FileNotFoundError, FileNotFoundError),
            *(DestinationNotFound, None),
        ]
        self.assertEqual(results, expected)
        self.assertEqual(self.tree(), ["d", "d/inside", "done", "file"])

    def test_rights(self) -> None:
        """A removal needs DELETE, all else WRITE, each before the disk is touched."""
        self.write("file", "old")
        steps: list[m.AnyStep] = [
            m.MakeStep(P("d")),
            link("l", "x"),
            move("file", "moved"),
            m.SetStep(P("file"), 1, None),
            m.RemoveStep(P("old")),
        ]
        self.calls.clear()
        for rights, allowed in (
            (Right.READ | Right.WRITE, 4),
            (Right.READ | Right.DELETE, -1),
            (Right(0), 0),
        ):
            refused = steps[4:] if allowed == 4 else steps[:4] if allowed else steps
            with self.subTest(rights=rights):
                results = self.run_steps(*refused, who=principal(rights=rights))
                self.assertEqual(results, [NotGranted] * len(refused))
        self.assertEqual(self.calls, [])
        # What is moved is there under another name for the next step.
        moved = m.SetStep(P("moved"), 1, None)
        writer = principal(rights=Right.WRITE)
        self.assertEqual(self.run_steps(*steps[:3], moved, who=writer), [None] * 4)
        self.assertEqual(self.run_steps(steps[4], who=principal(rights=Right.DELETE)), [None])

    def test_exported(self) -> None:
        """An exported directory is neither made, replaced, moved nor removed; its time may be set."""
        self.write("a/x/file", "b/file", "c/file")
        exports = self.exporting("a/x", "b")
        for path in ("a/x", "b", "a", "/"):
            results = self.run_steps(
                m.MakeStep(P(path)),
                link(path, "x", replace=True),
                move("b/file", path, replace=True),
                move(path, "b/moved"),
                m.RemoveStep(P(path)),
                exports=exports,
            )
            self.assertEqual(results, [FileExistsError] + [PermissionError] * 4, path)
        self.assertEqual(self.run_steps(m.SetStep(P("b"), TIME, 0o750), exports=exports), [None])
        self.assertEqual((self.root / "b").stat().st_mtime_ns, TIME)
        self.assertEqual(self.run_steps(m.SetStep(P("a"), TIME, None), exports=exports), [FileNotFoundError])

    def test_outside(self) -> None:
        """What is not exported, or not below the token's part, is not there for any step."""
        self.write("a/file", "c/file")
        steps = (
            m.MakeStep(P("c/d")),
            link("c/l", "x"),
            move("a/file", "c/moved"),
            move("c/file", "a/moved"),
            m.RemoveStep(P("c/file")),
            m.SetStep(P("c/file"), 1, None),
        )
        expected = [DestinationNotFound] * 3 + [FileNotFoundError] * 3
        self.assertEqual(self.run_steps(*steps, exports=self.exporting("a")), expected)
        self.assertEqual(self.run_steps(*steps, who=principal("a")), expected)
        self.assertEqual(self.tree(), ["a", "a/file", "c", "c/file"])

    def test_border_of_a_token(self) -> None:
        """A link leads to where its maker may look, not beside it."""
        self.write("a/b/file")
        steps = (link("a/l", "../x"), link("a/b/l", "../../x"), link("a/b/m", "../x"))
        self.assertEqual(self.run_steps(*steps, who=principal("a")), [ConflictError, ConflictError, None])
        self.assertEqual(
            self.run_steps(*steps, exports=self.exporting("a")), [ConflictError] * 2 + [FileExistsError]
        )

    def test_between_exported(self) -> None:
        """A file moves from one exported directory to another, nothing else does."""
        self.write("a/file", "a/d/x", "b/taken")
        (self.root / "a/l").symlink_to("file")
        exports = self.exporting("a", "b")
        results = self.run_steps(
            move("a/file", "b/taken"),
            move("a/file", "b/taken", replace=True),
            move("a/l", "b/l"),
            move("a/d", "b/d"),
            move("a/d/x", "b/missing/x"),
            exports=exports,
        )
        self.assertEqual(results, [FileExistsError, None, ConflictError, ConflictError, DestinationNotFound])
        self.assertEqual((self.root / "b/taken").read_text(), "a/file")

    def test_busy(self) -> None:
        """A name that somebody writes is left to him; it is free again after, and so it is after a step."""
        self.write("d/file", "d/other")
        how: dict[str, Any] = {"size": 3, "mtime_ns": None, "replace": True, "source": None, "holder": "he"}
        upload = self.exports.begin_upload(ALL, P("d/file"), **how)
        steps = (
            m.RemoveStep(P("d/file")),
            m.SetStep(P("d/file"), 1, None),
            move("d/other", "d/file", replace=True),
            move("d/file", "d/new"),
            link("d/file", "x", replace=True),
        )
        self.assertEqual(self.run_steps(*steps), [BusyError] * 5)
        errors = self.exports.carry_out(ALL, steps[:1], holder="I")
        self.assertEqual([getattr(error, "holder", "") for error in errors], ["he"])
        upload.discard()
        self.assertEqual(self.run_steps(steps[1], steps[0]), [None, None])
        self.exports.begin_upload(ALL, P("d/file"), **how).discard()

    def test_few_descriptors(self) -> None:
        """However many exported directories steps are in, those of one hold directories open at a time."""
        names = [f"x{number}" for number in range(40)]
        for name in names:
            (self.root / name).mkdir()
        exports = self.exporting(*names)
        most, before = 0, len(open_descriptors())

        def steps() -> Iterator[m.AnyStep]:
            nonlocal most
            for name in names:
                yield m.MakeStep(P(f"{name}/d"))
                yield m.MakeStep(P(f"{name}/d/e"))
                most = max(most, len(open_descriptors()) - before)

        self.calls.clear()
        self.assertEqual(exports.carry_out(ALL, steps(), holder="I"), [None] * 80)
        self.assertLessEqual(most, 4)
        self.assertEqual(self.calls.count("fsync"), 80)

    def test_expected(self) -> None:
        """A step names what it expects; what is another one now stays, also between two exported ones."""
        self.write("a/file", "b/file")
        exports = self.exporting("a", "b")
        size = (self.root / "a/file").stat().st_size
        results = self.run_steps(
            m.RemoveStep(P("a/file"), size + 1),
            m.MoveStep(P("a/file"), P("a/new"), size=size, mtime=1),
            m.MoveStep(P("a/file"), P("b/new"), size=size + 1),
            m.SetStep(P("a/file"), 1, old_mtime=5),
            m.SetStep(P("a/file"), 1, old_size=size),
            m.MoveStep(P("a/file"), P("b/new"), size=size, mtime=1),
            m.RemoveStep(P("b/new"), size, 1),
            m.MakeStep(P("a/d"), 0o711),
            exports=exports,
        )
        self.assertEqual(results, [ConflictError] * 4 + [None] * 4)
        self.assertEqual((self.root / "a/d").stat().st_mode & 0o777, 0o711)

    def test_cut_short(self) -> None:
        """Steps that end early, or by an error, leave those before done and flushed."""

        def steps() -> Iterator[m.AnyStep]:
            yield m.MakeStep(P("a"))
            raise PeerGone

        self.calls.clear()
        with self.assertRaises(PeerGone):
            self.exports.carry_out(ALL, steps(), holder="")
        self.assertEqual((self.tree(), self.calls.count("fsync")), (["a"], 1))
        self.assertEqual(self.run_steps(), [])

    def test_flush_fails(self) -> None:
        """Where a directory cannot be flushed nothing is said to be done."""

        def fail(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if name == "fsync":
                raise OSError(5, "broken")

        jail = Jail(str(self.root), calls=WatchedCalls(fail))
        self.addCleanup(jail.close)
        results = self.run_steps(m.MakeStep(P("a")), m.RemoveStep(P("b")), exports=Exports(jail))
        self.assertEqual(results, [OSError, FileNotFoundError])

    def test_hidden(self) -> None:
        """Hidden names are out of reach for who may not see them."""
        self.write(".x", "y")
        plain = principal(sees_hidden=False)
        results = self.run_steps(m.RemoveStep(P(".x")), m.MakeStep(P(".z")), move("y", ".y"), who=plain)
        self.assertEqual(results, [FileNotFoundError, PermissionError, PermissionError])


class HostileTests(SteppingCase):
    """The table of hostile names and links, for every step."""

    strategies: tuple[Callable[[Calls], Resolver], ...] = (Openat2, Walk)

    def test_vectors(self) -> None:
        """Nothing outside is made, changed, moved or removed, nor beside the token's own part."""
        work = self.root.parent / "h"
        build(work / "root", work / "outside")
        paths = [path for path in map(parsed, (vector.path for vector in VECTORS)) if path is not None]
        for strategy in self.strategies:
            jail = Jail(str(work / "root"), resolver=strategy, durable=False)
            self.addCleanup(jail.close)
            before = self.state(work)
            for path in paths:
                Exports(jail).carry_out(principal(UNDER), self.steps_to(path), holder="")
            self.assertEqual(self.state(work), before)

    def steps_to(self, path: RelPath) -> list[m.AnyStep]:
        """Steps that change the very path and what lies below it, also as a target."""
        steps: list[m.AnyStep] = []
        for one in filter(None, (path, joined(path, "secret.txt"), joined(path, "new"))):
            steps += [
                m.MakeStep(one),
                m.LinkStep(one, b"x"),
                m.SetStep(one, 1, 0o777),
                m.MoveStep(P(f"{UNDER}/moving"), one, True),
                m.RemoveStep(joined(path, "new") or one),
                m.MoveStep(one, P(f"{UNDER}/taken"), True),
            ]
        return steps

    def state(self, work: Path) -> dict[str, tuple[int, int, int]]:
        """What is outside of the part, and as it was."""
        found = {}
        for path in work.rglob("*"):
            parts = path.relative_to(work).parts
            is_own = parts[:2] == ("root", UNDER) and RESERVED not in parts
            if not is_own and parts[:3] != ("root", RESERVED):
                status = path.lstat()
                found[str(path)] = (status.st_ino, status.st_mode, status.st_mtime_ns)
        return {path: row for path, row in found.items() if path != str(work / "root")}


def parsed(text: str) -> RelPath | None:
    """The path, where the text is one."""
    try:
        return P(text)
    except FileNameError:
        return None


def joined(path: RelPath, name: str) -> RelPath | None:
    """The path with another name behind, where there is room."""
    try:
        return path / name
    except FileNameError:
        return None


class ManifestTests(SteppingCase):
    """A whole directory."""

    def manifest(self, path: str = "", who: Principal = ALL, exports: Exports | None = None) -> list[Part]:
        return list((exports or self.exports).manifest(who, P(path)))

    def paths(self, path: str = "", who: Principal = ALL, exports: Exports | None = None) -> list[str]:
        return [name for name, _ in manifest_of(self.manifest(path, who, exports)).entries()]

    def test_right(self) -> None:
        """It needs READ."""
        self.calls.clear()
        with self.assertRaises(NotGranted):
            self.exports.manifest(principal(rights=Right.ALL & ~Right.READ), P(""))
        self.assertEqual(self.calls, [])

    def test_directory(self) -> None:
        """All below it, with its own entry in front; what is none is refused."""
        self.write("d/e/file", "d/.x", "other")
        self.assertEqual(self.paths("d"), [".x", "e", "e/file"])
        self.assertEqual(self.paths("d", principal(sees_hidden=False)), ["e", "e/file"])
        own = self.manifest("d")[0].own
        self.assertEqual(own and own.mtime_ns, (self.root / "d").stat().st_mtime_ns)
        self.assertRaises(NotADirectoryError, self.manifest, "other")
        self.assertRaises(FileNotFoundError, self.manifest, "missing")
        self.assertRaises(FileNotFoundError, self.manifest, "other", principal("d"))

    def test_above(self) -> None:
        """Above the exported directories there are only these and the way to them."""
        self.write("a/x/file", "a/y/file", "b/z/.hidden", "b/z/deep/file", "c/file")
        exports = self.exporting("a/x", "b/z", "missing")
        expected = ["a", "b", "missing", "a/x", "a/x/file", "b/z", "b/z/.hidden", "b/z/deep", "b/z/deep/file"]
        self.assertEqual(self.paths(exports=exports), expected)
        self.assertEqual(self.paths("a", exports=exports), ["x", "x/file"])
        self.assertEqual(self.paths(exports=exports, who=principal("b")), ["b", "b/z", *expected[6:]])
        parts = self.manifest(exports=exports)
        self.assertEqual([part.own is None for part in parts], [False] + [True] * (len(parts) - 1))
        entries = manifest_of(parts)
        self.assertEqual(entries.folders["b"]["z"].mtime_ns, (self.root / "b/z").stat().st_mtime_ns)
        self.assertEqual(entries.folders[""]["missing"].kind, "other")

    def test_above_unreadable(self) -> None:
        """An exported directory that may not be listed says so; whoever gives up ends it all the same."""
        self.write("a/file", "b/file")
        exports = self.exporting("a", "b")
        forbid(self, self.root / "a", 0o311)
        with unprivileged():
            parts = self.manifest(exports=exports)
        self.assertEqual(manifest_of(parts).unreadable, {"a": "Permission denied"})
        self.assertEqual([path for path, _ in manifest_of(parts).entries()], ["a", "b", "b/file"])

        def check() -> None:
            raise PeerGone

        with self.assertRaises(PeerGone):
            list(exports.manifest(ALL, P(""), check=check))

    def test_hostile(self) -> None:
        """Nobody learns a name, or the content of one, that is not his to see."""
        build(self.root.parent / "h/root", self.root.parent / "h/outside")
        jail = Jail(str(self.root.parent / "h/root"), calls=Calls())
        self.addCleanup(jail.close)
        exports = Exports(jail)
        for who, markers in (
            (ALL, (SECRET,)),
            (principal(UNDER), (SECRET, NEIGHBOUR)),
            (principal(sees_hidden=False), (SECRET, HIDDEN)),
        ):
            told = repr(list(exports.manifest(who, P(UNDER if who.under else ""))))
            self.assertEqual([marker for marker in markers if marker in told], [])
