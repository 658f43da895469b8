"""Many small changes while others change the same tree, or the disk fails in between."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from fileexport.disk import flushing
from fileexport.disk.staging import Identity, identity
from fileexport.disk.steps import Expected
from fileexport.errors import BusyError, ConflictError, DestinationNotFound
from fileexport.wire.bounds import MAX_INTEGER
from tests.test_jail import P
from tests.test_steps import TIME, StepsCase
from tests.watched import Later


def before(action: Callable[[], object]) -> Callable[[Identity, str], AbstractContextManager[object]]:
    """A hold that another one's change comes before, once."""
    waiting = [action]

    @contextmanager
    def hold(directory: Identity, name: str) -> Iterator[None]:
        if waiting:
            waiting.pop()()
        yield

    return hold


class JudgedTests(StepsCase):
    """What is judged is what the step finds when it has the name."""

    def test_link_moved(self) -> None:
        """A link that another one put there meanwhile is judged, not what was there before."""
        self.write("d/x")
        (self.root / "d/e").mkdir()

        def exchange() -> None:
            (self.root / "d/x").unlink()
            (self.root / "d/x").symlink_to("../y")

        steps = self.steps(hold=before(exchange))
        self.assertRaises(ConflictError, steps.move, P("d/x"), P("x"))
        self.assertEqual(self.tree(), ["d", "d/e", "d/x -> ../y"])

    def test_directory_moved(self) -> None:
        """So is how deep the new place lies: it may have been moved itself."""
        (self.root / "a/x/d").mkdir(parents=True)
        (self.root / "a/x/l").symlink_to("../../file")
        (self.root / "a/x/d/l").symlink_to("../../../file")
        for name in "dl":
            (self.root / "b/c/e").mkdir(parents=True)
            steps = self.steps(hold=before(lambda: (self.root / "b/c/e").rename(self.root / "e")))
            self.assertRaises(ConflictError, steps.move, P(f"a/x/{name}"), P("b/c/e/new"))
            (self.root / "e").rmdir()
            (self.root / "b/c").rmdir()
            (self.root / "b").rmdir()

    def test_removed(self) -> None:
        """What takes the place of a file meanwhile is judged as what it is."""
        self.write("x")

        def exchange() -> None:
            (self.root / "x").unlink()
            self.write("x/inside")

        steps = self.steps(hold=before(exchange))
        self.assertRaises(IsADirectoryError, steps.remove, P("x"))

    def test_expected(self) -> None:
        """What is not as expected stays as it is: a size, a time, each for itself."""
        file, directory = self.write("d/file", "12345"), self.root / "d"
        (self.root / "d/l").symlink_to("file")
        for path in (file, directory / "l", directory):
            os.utime(path, ns=(TIME, TIME), follow_symlinks=False)
        steps = self.steps()
        wrong: tuple[tuple[str, Expected], ...] = (
            *(("d/file", (4, None)), ("d/file", (None, 1)), ("d/file", (5, TIME + 1))),
            *(("d/l", (0, 1)), ("d/l", (4, None)), ("d", (5, None)), ("d", (0, TIME))),
        )
        for name, expected in wrong:
            self.assertRaises(ConflictError, steps.remove, P(name), expected)
            self.assertRaises(ConflictError, steps.move, P(name), P("new"), False, expected)
            self.assertRaises(ConflictError, steps.set, P(name), 1, None, expected)
        self.assertRaises(ConflictError, steps.set, P(""), 1, None, (5, None))
        self.assertEqual(file.stat().st_mtime_ns, TIME)
        steps.set(P("d/file"), 7, 0o600, (5, TIME))
        steps.move(P("d/file"), P("d/new"), False, (5, 7))
        steps.remove(P("d/new"), (5, None))
        steps.remove(P("d/l"), (0, TIME))
        steps.remove(P("d"), (0, None))
        self.assertEqual(self.tree(), [])

    def test_expected_far(self) -> None:
        """A time that no message can say is expected as the nearest that one can."""
        file = self.write("file")
        os.utime(file, (10**10, 10**10))
        if file.stat().st_mtime_ns > MAX_INTEGER:
            self.steps().remove(P("file"), (None, MAX_INTEGER))

    def test_make_mode(self) -> None:
        """A directory is made with its mode, whatever the umask has; it is flushed where that took a call."""
        self.addCleanup(os.umask, os.umask(0o077))
        steps = self.steps()
        for name, mode in (("a", 0o755), ("b", 0o700), ("c", 0o000), ("a/d", 0o7770)):
            steps.make(P(name), mode)
            self.assertEqual((self.root / name).stat().st_mode & 0o7777, mode & 0o777)
        steps.finish()
        steps.make(P("a/e"))
        self.assertEqual((self.root / "a/e").stat().st_mode & 0o777, 0o700)
        self.assertRaises(FileExistsError, steps.make, P("a"), 0o700)

    def test_make_mode_failed(self) -> None:
        """Where the mode cannot be given there is no directory."""
        self.addCleanup(os.umask, os.umask(0o077))

        def fail(name: str, arguments: tuple[Any, ...], keywords: object) -> None:
            if name == "fchmod":
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        steps = self.steps(jail=self.jailed(fail))
        self.refuses(errno.EIO, steps.make, P("a"), 0o755)
        self.assertEqual(self.tree(), [])

    def test_set_failed(self) -> None:
        """Where only one of time and mode can be set, both stay as they were."""
        file = self.write("file")
        file.chmod(0o644)
        os.utime(file, ns=(TIME, TIME))
        for call in ("fchmod", "utime"):
            later = Later()
            steps = self.steps(jail=self.jailed(later))

            def fail(name: str, arguments: tuple[Any, ...], keywords: object) -> None:
                if name == call:  # noqa: B023  # each round has its own jail
                    later.then = None  # noqa: B023
                    raise OSError(errno.EIO, os.strerror(errno.EIO))

            later.then = fail
            self.refuses(errno.EIO, steps.set, P("file"), 5, 0o600)
            status = file.stat()
            self.assertEqual((status.st_mtime_ns, status.st_mode & 0o777), (TIME, 0o644))

    def test_one_place(self) -> None:
        """A move whose two paths are one place says so; it is not busy with itself."""
        self.write("v/file")
        (self.root / "cur").symlink_to("v")
        held: set[tuple[Identity, str]] = set()

        @contextmanager
        def hold(directory: Identity, name: str) -> Iterator[None]:
            if (directory, name) in held:
                raise BusyError
            held.add((directory, name))
            yield
            held.discard((directory, name))

        steps = self.steps(hold=hold)
        self.assertRaises(ConflictError, steps.move, P("v/file"), P("cur/file"), True)
        self.assertEqual(self.tree(), ["cur -> v", "v", "v/file"])


class FoundAgainTests(StepsCase):
    """Directories are found again where links led to them."""

    def test_moved(self) -> None:
        """A directory that was reached through a link is not taken for what is there after it moved."""
        self.write("v1/file", "v1")
        (self.root / "cur").symlink_to("v1")
        steps = self.steps()
        steps.make(P("cur/a"))
        steps.move(P("v1"), P("old"))
        self.assertRaises(DestinationNotFound, steps.make, P("cur/b"))
        steps.make(P("v1"))
        steps.make(P("cur/c"))
        self.assertEqual(self.tree(), ["cur -> v1", "old", "old/a", "old/file", "v1", "v1/c"])

    def test_removed(self) -> None:
        """So it is for one that was removed, and where the link itself was made anew, moved or replaced."""
        for name in ("v1", "v2", "file"):
            (self.root / name).mkdir() if name != "file" else self.write(name)
        (self.root / "cur").symlink_to("v1")
        (self.root / "far").symlink_to("cur")
        steps = self.steps()
        steps.make(P("far/a"))
        steps.link(P("cur"), "v2", True)
        steps.make(P("far/b"))
        steps.remove(P("v2/b"))
        steps.remove(P("v2"))
        self.assertRaises(DestinationNotFound, steps.make, P("far/c"))
        steps.make(P("v2"))
        steps.make(P("far/d"))
        steps.move(P("file"), P("cur"), True)
        self.assertRaises((DestinationNotFound, NotADirectoryError), steps.make, P("far/e"))
        self.assertEqual(self.tree(), ["cur", "far -> cur", "v1", "v1/a", "v2", "v2/d"])


class FlushedTests(StepsCase):
    """What is flushed, and in which order."""

    def flushing(self) -> list[str]:
        """What is flushed from now on: the paths of directories, or the call that flushes all."""
        seen: list[str] = []
        names = {identity(path.stat()): path.name for path in self.root.rglob("*") if path.is_dir()}

        def note(name: str, arguments: tuple[Any, ...], keywords: object) -> None:
            if name == "fsync":
                seen.append(names[identity(os.fstat(arguments[0]))])
            elif name == "syncfs":
                seen.append(name)

        self.jail = self.jailed(note)
        return seen

    def test_targets_first(self) -> None:
        """A directory that a name went to is flushed before the one that it left."""
        for names in (("a", "b"), ("b", "a")):
            for name in "ab":
                self.write(f"{name}/{name}")
            seen = self.flushing()
            steps = self.steps()
            old, new = names
            steps.make(P(f"{old}/new"))
            steps.move(P(f"{old}/{old}"), P(f"{new}/moved"), True)
            steps.finish()
            self.assertEqual(seen, [new, old])
            (self.root / old / "new").rmdir()

    def test_no_order(self) -> None:
        """Where names went both ways all is flushed at once; without such a call, each."""
        for has_syncfs in (True, False):
            self.patch(flushing, "has_syncfs", lambda has_syncfs=has_syncfs: has_syncfs)
            for name in "ab":
                self.write(f"{name}/{name}")
            seen = self.flushing()
            steps = self.steps()
            steps.move(P("a/a"), P("b/a"), True)
            steps.move(P("b/b"), P("a/b"), True)
            steps.finish()
            self.assertEqual(sorted(seen), ["syncfs"] if has_syncfs else ["a", "b"])

    def test_removed(self) -> None:
        """A directory that was removed needs no flush, whatever was done in it."""
        self.write("d/e/file")
        seen = self.flushing()
        steps = self.steps()
        steps.remove(P("d/e/file"))
        steps.set(P("d/e"), 5, None)
        steps.remove(P("d/e"))
        steps.finish()
        self.assertEqual(seen, ["d"])
