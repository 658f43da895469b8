"""Names that are made, moved and removed, whatever is exchanged meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from itertools import count
from typing import Any

from fileexport.disk import changes
from fileexport.disk.calls import Calls
from fileexport.disk.jail import Jail, View
from fileexport.disk.staging import identity
from fileexport.errors import BusyError, ConflictError, FileNameError
from fileexport.paths import RESERVED
from tests.test_jail import ALL, JailCase, P
from tests.watched import Later, WatchedCalls

PLAIN = View(hidden=False)


class MakeTests(JailCase):
    """Directories and empty files."""

    def test_directory(self) -> None:
        """It is there, with the umask's mode; a second time only with `exist_ok`."""
        self.jail.make_directory(ALL, P("a"))
        self.jail.make_directory(ALL, P("a/b"))
        self.assertTrue((self.root / "a/b").is_dir())
        self.refuses(errno.EEXIST, self.jail.make_directory, ALL, P("a"))
        self.jail.make_directory(ALL, P("a"), exist_ok=True)
        self.refuses(errno.ENOENT, self.jail.make_directory, ALL, P("missing/b"))

    def test_in_the_way(self) -> None:
        """A file or a link with the name is no directory, also where the link leads to one."""
        self.write("file")
        (self.root / "d").mkdir()
        (self.root / "link").symlink_to("d")
        for name in ("file", "link"):
            with self.assertRaises(FileExistsError):
                self.jail.make_directory(ALL, P(name), exist_ok=True)

    def test_directories(self) -> None:
        """All that are missing are made, through links beneath too; how many is said, and 0 in the end."""
        (self.root / "d").mkdir()
        (self.root / "link").symlink_to("d")
        for path, made in (("d", 0), ("link", 0), ("link/a/b", 2), ("d/a/b", 0), ("d/a/c", 1), ("", 0)):
            self.assertEqual(self.jail.make_directories(ALL, P(path)), made, path)
        self.assertEqual(sorted(os.listdir(self.root / "d/a")), ["b", "c"])

    def test_directories_in_the_way(self) -> None:
        """Something else in the way is a file that exists, or no directory; nothing is made then."""
        self.write("d/file")
        (self.root / "nowhere").symlink_to("missing")
        for path in ("d/file", "nowhere"):
            self.refuses(errno.EEXIST, self.jail.make_directories, ALL, P(path))
        for path in ("d/file/a", "d/file/a/b", "nowhere/a", "nowhere/a/b"):
            self.refuses(errno.ENOTDIR, self.jail.make_directories, ALL, P(path))
        for path, view in (("a/b/c:d/e", ALL), ("a/.b/c", PLAIN), (f"a/{RESERVED}/b", ALL)):
            with self.assertRaises((FileNameError, PermissionError)):
                self.jail.make_directories(view, P(path))
        self.assertEqual(sorted(os.listdir(self.root)), ["d", "nowhere"])

    def test_directories_flushed(self) -> None:
        """Each is flushed before the next is made, and so is the name of the last that was there."""
        (self.root / "d").mkdir()
        seen: list[str] = []
        jail = Jail(str(self.root), calls=WatchedCalls(lambda name, *_: seen.append(name)))
        self.addCleanup(jail.close)
        jail.make_directories(ALL, P("d/a/b"))
        flushed = [name for name in seen if name in ("mkdir", "fsync")]
        self.assertEqual(flushed, ["fsync", "mkdir", "fsync", "mkdir", "fsync"])

    def test_directories_gone(self) -> None:
        """One that goes away meanwhile is missed, not made again."""

        def remove(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if name == "mkdir" and arguments[0] == "b":
                (self.root / "a").rmdir()

        jail = Jail(str(self.root), calls=WatchedCalls(remove))
        self.addCleanup(jail.close)
        self.refuses(errno.ENOENT, jail.make_directories, ALL, P("a/b"))
        self.assertEqual(os.listdir(self.root), [])

    def test_file(self) -> None:
        """It is there and empty; one that is there is never made empty."""
        self.jail.make_file(ALL, P("new"))
        self.assertEqual((self.root / "new").read_bytes(), b"")
        file = self.write("file")
        self.refuses(errno.EEXIST, self.jail.make_file, ALL, P("file"))
        content = file.read_text()
        self.jail.make_file(ALL, P("file"), exist_ok=True)
        self.assertEqual(file.read_text(), content)
        (self.root / "link").symlink_to("file")
        (self.root / "d").mkdir()
        for name in ("link", "d"):
            with self.assertRaises(FileExistsError):
                self.jail.make_file(ALL, P(name), exist_ok=True)

    def test_names(self) -> None:
        """A name that may not be new is refused, and so are ours and unseen ones."""
        for make in (self.jail.make_directory, self.jail.make_file):
            self.assertRaises(FileNameError, make, ALL, P("a:b"))
            for view, path in ((ALL, ""), (ALL, RESERVED), (ALL, f"{RESERVED}/x"), (PLAIN, ".x")):
                self.refuses(errno.EACCES, make, view, P(path))
        self.assertEqual(os.listdir(self.root), [])


class RenameTests(JailCase):
    """Another name."""

    def rename(self, path: str, target: str, *, replace: bool = False, view: View = ALL) -> None:
        self.jail.rename(view, P(path), view, P(target), replace=replace)

    def test_kinds(self) -> None:
        """A file, a directory with its contents, and a link itself move, also between directories."""
        self.write("a/file", "1")
        (self.root / "a/link").symlink_to("file")
        (self.root / "b").mkdir()
        self.rename("a/file", "b/moved")
        self.rename("a/link", "a/other")
        self.rename("a", "b/a")
        self.assertEqual((self.root / "b/moved").read_text(), "1")
        self.assertEqual(os.readlink(self.root / "b/a/other"), "file")
        self.assertEqual(os.listdir(self.root), ["b"])

    def test_taken(self) -> None:
        """A taken name is refused; with `replace` a file or link gives way, never a directory."""
        for name in ("a", "b", "d/x"):
            self.write(name, name)
        (self.root / "link").symlink_to("d")
        (self.root / "empty").mkdir()
        for target in ("b", "d", "link", "empty", "a"):
            with self.assertRaises(FileExistsError):
                self.rename("a", target)
        for source, target, kind in (
            *(("a", "d", IsADirectoryError), ("a", "empty", IsADirectoryError)),
            *(("d", "a", NotADirectoryError), ("d", "empty", IsADirectoryError)),
        ):
            with self.assertRaises(kind):
                self.rename(source, target, replace=True)
        self.rename("a", "b", replace=True)
        self.rename("b", "link", replace=True)
        self.assertEqual(((self.root / "link").read_text(), (self.root / "d/x").read_text()), ("a", "d/x"))

    def test_itself(self) -> None:
        """Nothing moves onto itself, under whatever name, nor into itself."""
        self.write("a", "1")
        (self.root / "hard").hardlink_to(self.root / "a")
        (self.root / "d/e").mkdir(parents=True)
        (self.root / "link").symlink_to("d/e")
        for source, target in (("a", "a"), ("a", "hard"), ("d", "d/e/d"), ("d", "link/d"), ("d/e", "d/e/e")):
            with self.assertRaises(ConflictError):
                self.rename(source, target, replace=True)
        with self.assertRaises(ConflictError):
            self.rename("d", "d/e/d")
        self.assertEqual(sorted(os.listdir(self.root)), ["a", "d", "hard", "link"])

    def test_names(self) -> None:
        """Ours and unseen ones are neither moved nor made; a new name follows the rule for new ones."""
        self.write("a")
        self.write(".x")
        self.write(f"{RESERVED}/x")
        self.assertRaises(FileNameError, self.rename, "a", "a:b")
        for view, source, target, number in (
            *((ALL, RESERVED, "b", errno.ENOENT), (ALL, f"{RESERVED}/x", "b", errno.ENOENT)),
            *((ALL, "a", RESERVED, errno.EACCES), (ALL, "a", f"{RESERVED}/b", errno.EACCES)),
            *((PLAIN, ".x", "b", errno.ENOENT), (PLAIN, "a", ".b", errno.EACCES)),
            *((ALL, "missing", "b", errno.ENOENT), (ALL, "a", "missing/b", errno.ENOENT)),
        ):
            with self.assertRaises(OSError) as caught:
                self.rename(source, target, view=view)
            self.assertEqual(caught.exception.errno, number, (source, target))

    def test_taken_meanwhile(self) -> None:
        """A name that is taken after the look at it stays as it is: a directory is no exception."""
        self.write("a/file")
        self.write("f")
        for name, replace in (("a", False), ("a", True), ("f", False)):
            later = Later()
            jail = Jail(str(self.root), calls=WatchedCalls(later))
            self.addCleanup(jail.close)

            def take(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
                if name.startswith("rename"):
                    (self.root / "new").mkdir(exist_ok=True)

            later.then = take
            with self.assertRaises(FileExistsError):
                jail.rename(ALL, P(name), ALL, P("new"), replace=replace)
            (self.root / "new").rmdir()
        self.assertEqual(sorted(os.listdir(self.root)), ["a", "f"])

    def test_another_file_system(self) -> None:
        """What cannot move there says so in words."""
        self.write("a")
        for number in (errno.EXDEV, errno.EBUSY):

            def refuse(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
                if name == "rename":
                    raise OSError(number, "no")  # noqa: B023  # each round has its own jail

            jail = Jail(str(self.root), calls=WatchedCalls(refuse))
            self.addCleanup(jail.close)
            error = self.assertRaises(ConflictError, jail.rename, ALL, P("a"), ALL, P("b"), replace=True)
            self.assertRegex(str(error), "file system")


class RemoveTreeTests(JailCase):
    """Directories with all that is in them."""

    def remove(self, path: str, view: View = ALL, **how: Any) -> int:
        return self.jail.remove_tree(view, P(path), **how)

    def test_single(self) -> None:
        """A file, a link itself, an empty directory; what is not there is not found."""
        self.write("file")
        (self.root / "empty").mkdir()
        (self.root / "link").symlink_to("empty")
        for name in ("file", "link", "empty"):
            self.assertEqual(self.remove(name), 1)
            self.refuses(errno.ENOENT, self.remove, name)
        self.assertEqual(os.listdir(self.root), [])

    def test_tree(self) -> None:
        """Files, links and directories are counted, each once; what links lead to stays."""
        for path in ("d/a", "d/b/c", "d/b/e/f", "stays/x"):
            self.write(path)
        (self.root / "d/link").symlink_to("../stays")
        os.mkfifo(self.root / "d/b/fifo")
        self.refuses(errno.ENOTEMPTY, self.remove, "d")
        self.assertEqual(self.remove("d", recursive=True), 8)
        self.assertEqual((os.listdir(self.root), os.listdir(self.root / "stays")), (["stays"], ["x"]))

    def test_deep(self) -> None:
        """Deeper than descriptors are held, and than any path can name."""
        self.patch(changes, "MAX_HELD", 3)
        (self.root / "d").mkdir()
        self.chain(70)
        self.assertEqual(self.remove("d", recursive=True), 71 * 2)

    def chain(self, depth: int) -> None:
        """Directories in each other, with a file in each."""
        here = os.open(self.root / "d", os.O_RDONLY)
        for level in range(depth + 1):
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
            if level < depth:
                os.mkdir("d", dir_fd=here)
                below = os.open("d", os.O_RDONLY, dir_fd=here)
                os.close(here)
                here = below
        os.close(here)

    def test_moved_meanwhile(self) -> None:
        """A directory that is moved elsewhere while it is emptied: what is there stays."""
        self.patch(changes, "MAX_HELD", 1)
        later = Later()
        jail = Jail(str(self.root), calls=WatchedCalls(later))
        self.addCleanup(jail.close)
        self.write("d/e/f/g/file")
        (self.outside / "keep").mkdir(parents=True)
        (self.outside / "keep/file").write_text("")

        def move(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if name == "open" and arguments[0] == ".." and (self.root / "d/e/f").exists():
                (self.root / "d/e/f").rename(self.outside / "keep/f")

        later.then = move
        with self.assertRaises(ConflictError):
            jail.remove_tree(ALL, P("d"), recursive=True)
        self.assertTrue((self.outside / "keep/file").exists())

    def left_unflushed(self, work: Callable[[Jail], object]) -> set[str]:
        """The directories that lost an entry and were not flushed since, nor went themselves."""
        changed: set[tuple[int, int]] = set()

        class Noting(Calls):
            def unlink(self, name: str, *, dir_fd: int) -> None:
                super().unlink(name, dir_fd=dir_fd)
                changed.add(identity(os.fstat(dir_fd)))

            def rmdir(self, name: str, *, dir_fd: int) -> None:
                super().rmdir(name, dir_fd=dir_fd)
                changed.add(identity(os.fstat(dir_fd)))

            def fsync(self, descriptor: int) -> None:
                changed.discard(identity(os.fstat(descriptor)))

        jail = Jail(str(self.root), calls=Noting())
        self.addCleanup(jail.close)
        work(jail)
        paths = [self.root, *self.root.rglob("*")]
        return {str(path.relative_to(self.root)) for path in paths if identity(path.lstat()) in changed}

    def test_flushed(self) -> None:
        """However it ends, what went is flushed in each directory that stays."""
        self.patch(changes, "MAX_HELD", 2)

        def refused(view: View, kind: type[Exception], check: Callable[[], object]) -> Callable[[Jail], None]:
            def work(jail: Jail) -> None:
                with self.assertRaises(kind):
                    jail.remove_tree(view, P("d"), recursive=True, check=check)

            return work

        def stop() -> None:
            if not (self.root / "d/e/f/g/h/3").exists():
                raise KeyError

        def build() -> None:
            for path in (".x", "1", "e/.x", "e/2", "e/f/.x", "e/f/0", "e/f/g/h/3", "e/f/g/h/4"):
                self.write(f"d/{path}")

        for work in (
            refused(PLAIN, IsADirectoryError, lambda: None),
            refused(ALL, KeyError, stop),
            refused(PLAIN, KeyError, stop),
        ):
            build()
            self.assertEqual(self.left_unflushed(work), set())

    def test_ours(self) -> None:
        """A staging in the tree goes with it, what can be continued too, unless somebody writes there."""
        self.write("d/e/x")
        staged = self.jail.stage(View(P("d/e")), P("new"), exported=P("d/e"))
        (self.root / "d/e" / RESERVED / "part-1").write_text("")
        self.assertRaises(BusyError, self.remove, "d", recursive=True)
        staged.discard()
        self.write("d/e/x")
        self.jail.stage(View(P("d/e")), P("new"), exported=P("d/e")).keep()
        (self.root / "d/e" / RESERVED / "part-1").write_text("")
        self.assertEqual(self.remove("d", recursive=True), 3)
        for path in (RESERVED, f"{RESERVED}/x"):
            self.write(f"{RESERVED}/x")
            self.refuses(errno.ENOENT, self.remove, path)

    def test_unseen(self) -> None:
        """What the caller may not see stays, and so does what holds it."""
        self.write("d/.x")
        self.write("d/e/y")
        with self.assertRaises(IsADirectoryError):
            self.remove("d", PLAIN, recursive=True)
        self.assertEqual(os.listdir(self.root / "d"), [".x"])
        self.refuses(errno.ENOENT, lambda: self.remove("d/.x", PLAIN))

    def test_cancelled(self) -> None:
        """The check may end it between two entries."""
        for number in range(5):
            self.write(f"d/{number}")
        left = iter([None, None])

        def check() -> None:
            if next(left, 1) is not None:
                raise KeyError

        self.assertRaises(KeyError, self.remove, "d", recursive=True, check=check)
        self.assertEqual(len(os.listdir(self.root / "d")), 3)


class ExchangeTests(JailCase):
    """At each call in turn a directory is exchanged with a link that leads outside."""

    def exchanged(self, work: Callable[[Jail], object], victim: str) -> None:
        """Do it again and again until it was left in peace; nothing outside changes."""
        for number in count(1):
            self.build()
            left = number

            def swap(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
                nonlocal left
                left -= 1
                place = self.root / victim
                if left == 0 and place.is_dir():
                    place.rename(self.root / "old")
                    place.symlink_to(self.outside)

            later = Later()
            jail = Jail(str(self.root), calls=WatchedCalls(later))
            later.then = swap
            try:
                work(jail)
            except (OSError, ConflictError):
                pass
            finally:
                later.then = None
                jail.close()
            self.assertEqual(self.all_outside(), ["e", "e/f", "f"], (number, victim))
            self.assertEqual((self.outside / "f").read_text(), "outside")
            if left > 0:
                return

    def build(self) -> None:
        for directory in (self.root, self.outside):
            shutil.rmtree(directory, ignore_errors=True)
        for path in ("d/e/f", "d/f", "x"):
            self.write(path)
        (self.outside / "e").mkdir(parents=True)
        for path in ("f", "e/f"):
            (self.outside / path).write_text("outside")

    def all_outside(self) -> list[str]:
        return sorted(str(path.relative_to(self.outside)) for path in self.outside.rglob("*"))

    def test_each_verb(self) -> None:
        """No verb makes, changes or removes anything outside."""

        def batch(jail: Jail) -> None:
            small = jail.batch(ALL, replace=True)
            try:
                small.add(P("d/f"), b"new")
                small.add(P("d/e/n"), b"new")
                small.commit()
            finally:
                small.discard()

        def partial(jail: Jail) -> None:
            jail.partial(ALL, P("d/f"), size=0, key=b"k").commit()

        verbs: tuple[Callable[[Jail], object], ...] = (
            lambda jail: jail.remove_tree(ALL, P("d"), recursive=True),
            lambda jail: jail.remove_tree(ALL, P("d/e"), recursive=True),
            lambda jail: jail.remove_tree(ALL, P("d/f")),
            lambda jail: jail.make_directory(ALL, P("d/n")),
            lambda jail: jail.make_directories(ALL, P("d/e/n/o")),
            lambda jail: jail.make_file(ALL, P("d/n")),
            lambda jail: jail.rename(ALL, P("d/f"), ALL, P("n")),
            lambda jail: jail.rename(ALL, P("x"), ALL, P("d/f"), replace=True),
            *(batch, partial),
        )
        for verb in verbs:
            for victim in ("d", "d/e"):
                self.exchanged(verb, victim)
