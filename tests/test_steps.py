"""Many small changes beneath one directory."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

from fileexport.disk import flushing
from fileexport.disk import steps as steps_module
from fileexport.disk.calls import Calls
from fileexport.disk.jail import Jail, View
from fileexport.disk.resolve import Openat2, Resolver, Walk
from fileexport.disk.staging import Identity, identity
from fileexport.disk.steps import Hold, Steps, unheld
from fileexport.errors import BusyError, ConflictError, DestinationNotFound, FileNameError
from fileexport.paths import RESERVED
from tests.test_jail import ALL, PLAIN, JailCase, P
from tests.watched import FailAt, Later, WatchedCalls, unprivileged

TIME = 1_700_000_000_123_456_789


class StepsCase(JailCase):
    """Has a jail that resolves in one way, and keeps the names of its calls."""

    strategy: Callable[[Calls], Resolver] = Openat2

    def setUp(self) -> None:
        super().setUp()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.jail = self.jailed(self.note)

    def note(self, name: str, arguments: tuple[Any, ...], keywords: object) -> None:
        self.calls.append((name, arguments))

    def jailed(self, watch: Callable[..., object], *, durable: bool = True, root: Path | None = None) -> Jail:
        jail = Jail(
            str(root or self.root), calls=WatchedCalls(watch), resolver=self.strategy, durable=durable
        )
        self.addCleanup(jail.close)
        return jail

    def steps(self, view: View = ALL, *, jail: Jail | None = None, hold: Hold = unheld) -> Steps:
        steps = (jail or self.jail).steps(view, hold=hold)
        self.addCleanup(steps.close)
        return steps

    def tree(self) -> list[str]:
        """All paths below the root but what is in staging; a link with its text."""
        paths = (path for path in self.root.rglob("*") if RESERVED not in path.parts)
        return sorted(
            f"{path.relative_to(self.root)}{f' -> {os.readlink(path)}' if path.is_symlink() else ''}"
            for path in paths
        )

    def flushed(self) -> list[str]:
        """The calls that flushed something."""
        return [name for name, _ in self.calls if name in ("fsync", "syncfs")]


class ChangeTests(StepsCase):
    """What each step does."""

    def test_make(self) -> None:
        """A directory is there; a taken name and a missing directory above are refused."""
        steps = self.steps()
        steps.make(P("a"))
        steps.make(P("a/b"))
        self.write("file")
        (self.root / "link").symlink_to("a")
        for name in ("a", "file", "link"):
            self.assertRaises(FileExistsError, steps.make, P(name))
        self.assertRaises(DestinationNotFound, steps.make, P("missing/b"))
        self.refuses(errno.ENOTDIR, steps.make, P("file/b"))
        steps.finish()
        self.assertEqual(self.tree(), ["a", "a/b", "file", "link -> a"])

    def test_link(self) -> None:
        """A link is made with its text; in place of another, or of a file, only with `replace`."""
        self.write("d/file")
        steps = self.steps()
        steps.link(P("d/l"), "../any where/\udcff")
        for name in ("l", "file"):
            self.assertRaises(FileExistsError, steps.link, P(f"d/{name}"), "x")
        steps.link(P("d/l"), "file", True)
        steps.link(P("d/file"), ".", True)
        self.assertRaises(IsADirectoryError, steps.link, P("d"), "x", True)
        self.assertRaises(DestinationNotFound, steps.link, P("missing/l"), "x")
        steps.finish()
        self.assertEqual(self.tree(), ["d", "d/file -> .", "d/l -> file"])
        self.assertEqual(os.listdir(self.root / RESERVED), [])

    def test_move(self) -> None:
        """A file, a link itself, and a directory get another name; a file gives way only with `replace`."""
        for name in ("a", "b", "d/x"):
            self.write(name, name)
        (self.root / "d/l").symlink_to("x")
        (self.root / "e").mkdir()
        steps = self.steps()
        self.assertRaises(FileExistsError, steps.move, P("a"), P("b"))
        steps.move(P("a"), P("b"), True)
        steps.move(P("d/l"), P("e/m"))
        steps.move(P("d"), P("e/d"))
        self.assertRaises(DestinationNotFound, steps.move, P("b"), P("missing/b"))
        self.refuses(errno.ENOENT, steps.move, P("missing"), P("c"))
        self.assertRaises(IsADirectoryError, steps.move, P("b"), P("e/d"), True)
        self.assertRaises(ConflictError, steps.move, P("b"), P("b"), True)
        steps.finish()
        self.assertEqual(self.tree(), ["b", "e", "e/d", "e/d/x", "e/m -> x"])
        self.assertEqual((self.root / "b").read_text(), "a")

    def test_remove(self) -> None:
        """A file, a link itself and an empty directory go; one that is not empty stays, with all in it."""
        self.write("d/e/file")
        (self.root / "d/l").symlink_to("e")
        steps = self.steps()
        self.assertRaises(IsADirectoryError, steps.remove, P("d/e"))
        for path in ("d/l", "d/e/file", "d/e"):
            steps.remove(P(path))
        self.refuses(errno.ENOENT, steps.remove, P("d/e"))
        self.write("d/other")
        self.assertRaises(IsADirectoryError, steps.remove, P("d"))
        steps.finish()
        self.assertEqual(self.tree(), ["d", "d/other"])

    def test_staging_goes(self) -> None:
        """A directory with nothing but a staging of ours counts as empty, unless somebody writes there."""
        inner = Jail(str(self.write("d/file").parent))
        self.addCleanup(inner.close)
        staged = inner.stage(ALL, P("new"))
        (self.root / "d/file").unlink()
        steps = self.steps()
        self.assertRaises(IsADirectoryError, steps.remove, P("d"))
        staged.discard()
        self.assertEqual(os.listdir(self.root / "d"), [RESERVED])
        steps.remove(P("d"))
        self.assertEqual(self.tree(), [])

    def test_set(self) -> None:
        """Time and permissions are set, each alone too, of a file, a directory, and the base itself."""
        file = self.write("d/file")
        steps = self.steps()
        for path in ("d/file", "d", ""):
            steps.set(P(path), TIME, 0o750)
            status = (self.root / path).stat()
            self.assertEqual((status.st_mtime_ns, stat.S_IMODE(status.st_mode)), (TIME, 0o750))
        steps.set(P("d/file"), TIME + 1, None)
        steps.set(P("d/file"), None, 0o600)
        steps.finish()
        self.assertEqual((file.stat().st_mtime_ns, file.stat().st_mode & 0o7777), (TIME + 1, 0o600))
        self.refuses(errno.ENOENT, steps.set, P("d/missing"), TIME, None)

    def test_special_bits(self) -> None:
        """No step gives setuid, setgid or sticky; a file loses them by a mode, a directory keeps its own."""
        file = self.write("d/file")
        steps = self.steps()
        file.chmod(0o6755)
        (self.root / "d").chmod(0o3755)
        steps.set(P("d/file"), None, 0o7711)
        steps.set(P("d"), None, 0o4700)
        self.assertEqual(file.stat().st_mode & 0o7777, 0o711)
        self.assertEqual((self.root / "d").stat().st_mode & 0o7777, 0o3700)

    def test_set_unreadable(self) -> None:
        """Who owns a file may set what it may not read."""
        file = self.write("file")
        directory = self.root / "d"
        directory.mkdir()
        self.root.chmod(0o755)
        for path in (file, directory):
            os.chown(path, 65534, 65534) if os.geteuid() == 0 else None
            path.chmod(0)
        with unprivileged():
            steps = self.steps()
            for name in ("file", "d"):
                steps.set(P(name), TIME, 0o200)
            steps.finish()
        for path in (file, directory):
            status = path.stat()
            self.assertEqual((status.st_mtime_ns, status.st_mode & 0o777), (TIME, 0o200))
            path.chmod(0o755)
        self.assertEqual(self.flushed(), ["syncfs"])

    def test_set_elsewhere(self) -> None:
        """Where a file cannot be held unread, that is refused."""
        self.patch(steps_module, "_O_PATH", 0)
        self.write("file").chmod(0)
        self.root.chmod(0o755)
        with unprivileged():
            self.refuses(errno.EACCES, self.steps().set, P("file"), TIME, None)

    def test_names(self) -> None:
        """Ours and unseen names are refused, so are those that may not be new, and the base itself."""
        self.write(".hidden")
        self.write("file")
        steps, plain = self.steps(), self.steps(PLAIN)
        make: Callable[[Steps, str], object] = lambda steps, path: steps.make(P(path))  # noqa: E731
        link: Callable[[Steps, str], object] = lambda steps, path: steps.link(P(path), "x", True)  # noqa: E731
        move: Callable[[Steps, str], object] = lambda steps, path: steps.move(P("file"), P(path), True)  # noqa: E731
        for new in (make, link, move):
            self.assertRaises(FileNameError, new, steps, "a:b")
            for path in ("", RESERVED, f"{RESERVED}/x"):
                self.refuses(errno.EACCES, new, steps, path)
            self.refuses(errno.EACCES, new, plain, ".x")
        self.refuses(errno.EACCES, steps.remove, P(""))
        self.refuses(errno.EACCES, steps.move, P(""), P("x"))
        for old in (
            steps.remove,
            lambda path: steps.move(path, P("x")),
            lambda path: steps.set(path, 1, None),
        ):
            self.refuses(errno.ENOENT, old, P(RESERVED))
            self.refuses(errno.ENOENT, old, P(f"{RESERVED}/x"))
        self.refuses(errno.ENOENT, plain.remove, P(".hidden"))
        self.assertEqual(self.tree(), [".hidden", "file"])


class TogetherTests(StepsCase):
    """Many steps in one go."""

    def test_flushed_once(self) -> None:
        """Every directory that was changed is flushed once at the end, and not before; others never."""
        for name in "abc":
            self.write(f"{name}/file")
        steps = self.steps()
        for name in ("x", "y", "z"):
            steps.make(P(f"a/{name}"))
        steps.link(P("a/l"), "file")
        steps.move(P("a/file"), P("b/moved"))
        self.assertRaises(FileExistsError, steps.make, P("c/file"))
        self.assertEqual(self.flushed(), [])
        steps.finish()
        self.assertEqual(self.flushed(), ["fsync"] * 2)
        steps.finish()
        self.assertEqual(self.flushed(), ["fsync"] * 2)
        steps.remove(P("b/moved"))
        steps.close()
        self.assertEqual(self.flushed(), ["fsync"] * 3)

    def test_set_flushed(self) -> None:
        """What was set is flushed for itself, once."""
        self.write("a/file")
        steps = self.steps()
        for mtime in (1, 2):
            steps.set(P("a/file"), mtime, None)
            steps.set(P("a"), mtime, None)
        steps.remove(P("a/file"))
        steps.finish()
        self.assertEqual(self.flushed(), ["fsync"] * 2)

    def test_many(self) -> None:
        """Of many a flush of their file system is made; few descriptors are held open."""
        self.patch(flushing, "MAX_FLUSHED", 4)
        self.patch(steps_module, "MAX_PARENTS", 4)
        steps = self.steps()
        for number in range(20):
            steps.make(P(f"{number}"))
            steps.make(P(f"{number}/x"))
            self.assertLessEqual(len(os.listdir("/proc/self/fd")) - len(self.before), 4 + 4 + 2)
        steps.finish()
        self.assertEqual(self.flushed(), ["syncfs"])
        steps.make(P("1/y"))
        steps.finish()
        self.assertEqual(self.flushed(), ["syncfs", "fsync"])
        self.assertEqual(len(self.tree()), 41)

    def test_many_elsewhere(self) -> None:
        """Where there is no such flush each is flushed for itself."""
        self.patch(flushing, "MAX_FLUSHED", 4)
        self.patch(steps_module, "MAX_PARENTS", 4)
        self.patch(flushing, "has_syncfs", lambda: False)
        steps = self.steps()
        for number in range(20):
            steps.make(P(f"{number}"))
            steps.make(P(f"{number}/x"))
        steps.finish()
        self.assertNotIn("syncfs", self.flushed())
        self.assertGreaterEqual(len(self.flushed()), 21)

    def test_flush_failed_elsewhere(self) -> None:
        """There no step fails for the flush of those before it; the end of all does."""
        self.patch(flushing, "MAX_FLUSHED", 2)
        self.patch(steps_module, "MAX_PARENTS", 4)
        self.patch(flushing, "has_syncfs", lambda: False)
        failing = Later()
        steps = self.steps(jail=self.jailed(failing))

        def fail(name: str, arguments: tuple[Any, ...], keywords: object) -> None:
            if name == "fsync":
                failing.then = None
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        failing.then = fail
        for number in range(9):
            steps.make(P(f"{number}"))
            steps.make(P(f"{number}/x"))
        self.assertIsNone(failing.then)
        self.refuses(errno.EIO, steps.finish)
        steps.finish()

    def test_not_durable(self) -> None:
        """A jail without flushes makes none."""
        jail = self.jailed(self.note, durable=False)
        self.write("file")
        steps = self.steps(jail=jail)
        steps.make(P("a"))
        steps.set(P("file"), 1, None)
        steps.remove(P("file"))
        steps.finish()
        self.assertEqual((self.flushed(), self.tree()), ([], ["a"]))

    def test_names_anew(self) -> None:
        """A directory that went, moved, or took a link's place is another one for the steps after that."""
        self.write("other/file")
        (self.root / "l").symlink_to("other")
        steps = self.steps()
        steps.make(P("a"))
        steps.make(P("a/x"))
        steps.remove(P("a/x"))
        steps.remove(P("a"))
        steps.make(P("a"))
        steps.make(P("a/y"))
        steps.move(P("a"), P("b"))
        self.assertRaises(DestinationNotFound, steps.make, P("a/z"))
        steps.make(P("b/z"))
        steps.make(P("l/in-other"))
        steps.remove(P("l"))
        steps.make(P("l"))
        steps.make(P("l/in-l"))
        steps.finish()
        self.assertEqual(
            self.tree(), ["b", "b/y", "b/z", "l", "l/in-l", "other", "other/file", "other/in-other"]
        )

    def test_names_anew_again(self) -> None:
        """So it is for directories that were passed on the way, however often one of that name comes."""
        steps = self.steps()
        for _ in range(3):
            for path in ("a", "a/b", "a/b/c", "a/b/c/d", "z"):
                steps.make(P(path))
            steps.move(P("a/b"), P("z/b"))
            self.assertRaises(FileNotFoundError, steps.remove, P("a/b/c/d"))
            steps.make(P("a/b"))
            self.assertRaises(DestinationNotFound, steps.make, P("a/b/c/d"))
            for path in ("z/b/c/d", "z/b/c", "z/b", "z", "a/b", "a"):
                steps.remove(P(path))
        steps.finish()
        self.assertEqual(self.tree(), [])

    def test_held(self) -> None:
        """Each name is held while it is changed, by its directory; who has it is not disturbed."""
        self.write("d/file")
        (self.root / "e").mkdir()
        held: list[tuple[Identity, str]] = []

        def hold(directory: Identity, name: str) -> AbstractContextManager[object]:
            held.append((directory, name))
            if name == "busy":
                raise BusyError
            return nullcontext()

        d, e = (identity((self.root / name).stat()) for name in ("d", "e"))
        steps = self.steps(hold=hold)
        steps.make(P("d/a"))
        steps.link(P("d/l"), "x")
        steps.set(P("d/file"), 1, None)
        steps.move(P("d/file"), P("e/file"))
        steps.remove(P("d/l"))
        self.assertEqual(held, [(d, "a"), (d, "l"), (d, "file"), (e, "file"), (d, "file"), (d, "l")])
        for step in (
            lambda: steps.make(P("d/busy")),
            lambda: steps.link(P("d/busy"), "x"),
            lambda: steps.move(P("e/file"), P("d/busy"), True),
        ):
            self.assertRaises(BusyError, step)
        self.write("d/busy")
        for step in (
            lambda: steps.set(P("d/busy"), 1, None),
            lambda: steps.remove(P("d/busy")),
            lambda: steps.move(P("d/busy"), P("e/x")),
        ):
            self.assertRaises(BusyError, step)
        self.assertEqual(self.tree(), ["d", "d/a", "d/busy", "e", "e/file"])

    def test_failing(self) -> None:
        """Whatever call fails, the error comes out, and no descriptor stays open."""
        for number in count(1):
            self.write("d/file")
            (self.root / "d/l").symlink_to("x")
            failing = FailAt(number, errno.EIO)
            later = Later()
            jail = Jail(str(self.root), resolver=self.strategy, calls=WatchedCalls(later))
            failed, later.then = False, failing
            try:
                with jail.steps(ALL) as steps:
                    steps.make(P("d/a"))
                    steps.link(P("d/l"), "y", True)
                    steps.set(P("d/file"), 1, 0o600)
                    steps.move(P("d/file"), P("d/a/file"))
                    steps.remove(P("d/l"))
                    steps.finish()
            except OSError as error:
                failed = True
                self.assertEqual(error.errno, errno.EIO, failing.reached)
            later.then = None
            jail.close()
            self.assertTrue(failed or not failing.reached or failing.reached == "rmdir", failing.reached)
            for path in ("d/a/file", "d/a", "d/file", "d/l"):
                if (self.root / path).is_dir():
                    (self.root / path).rmdir()
                else:
                    (self.root / path).unlink(missing_ok=True)
            if not failing.reached:
                return


class WalkChangeTests(ChangeTests):
    """The same, one name at a time."""

    strategy = Walk


class WalkTogetherTests(TogetherTests):
    """The same, one name at a time."""

    strategy = Walk
