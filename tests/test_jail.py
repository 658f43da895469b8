"""One directory and nothing else: every verb of the jail."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from fileexport.disk.calls import Calls
from fileexport.disk.jail import Entry, Jail, View, kind_of
from fileexport.disk.resolve import Openat2, Resolver, Walk
from fileexport.errors import FileNameError, OverloadedError
from fileexport.paths import RESERVED, RelPath
from tests.hostile import HIDDEN, NEIGHBOUR, OPEN, SECRET, UNDER, VECTORS, build
from tests.watched import FailAt, WatchedCalls, forbid, open_descriptors, unprivileged

ALL = View()
PLAIN = View(hidden=False)
STRATEGIES: tuple[Callable[[Calls], Resolver], ...] = (Openat2, Walk)

P = RelPath.parse


class JailCase(SynchronousTestCase):
    """Has a root with a jail on it; no descriptor may stay open."""

    def setUp(self) -> None:
        work = Path(self.mktemp())
        self.root, self.outside = work / "root", work / "outside"
        self.root.mkdir(parents=True)
        self.before = open_descriptors()
        self.addCleanup(self.nothing_stays_open)
        self.jail = Jail(str(self.root))
        self.addCleanup(self.jail.close)

    def nothing_stays_open(self) -> None:
        self.assertEqual(open_descriptors() - self.before, set())

    def write(self, path: str, content: str = OPEN) -> Path:
        """Make a file and the directories above it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file

    def refuses(self, number: int, function: Callable[..., object], *arguments: Any) -> None:
        """The call must fail with this errno."""
        with self.assertRaises(OSError) as caught:
            function(*arguments)
        self.assertEqual(caught.exception.errno, number, arguments)

    def names(self, path: str, view: View = ALL) -> set[str]:
        return {entry.name for entry in self.jail.entries(view, P(path))}


class OpenTests(JailCase):
    """Opening and stat."""

    def test_file(self) -> None:
        """A file comes as a descriptor with its stat, and is read from the start."""
        self.write("a/b.txt", "content")
        with self.jail.open(ALL, P("a/b.txt")) as opened:
            self.assertFalse(opened.is_directory)
            self.assertEqual(os.read(opened.descriptor, 99), b"content")
            self.assertEqual(opened.stat.st_size, 7)

    def test_directory(self) -> None:
        """A directory is opened too, the root itself as well."""
        self.write("a/b.txt")
        for path in ("", "a"):
            with self.jail.open(ALL, P(path)) as opened:
                self.assertTrue(opened.is_directory)
                self.assertEqual(opened.stat.st_ino, (self.root / path).stat().st_ino)

    def test_closed_once(self) -> None:
        """A second close does nothing, also when the number has been given to another file."""
        self.write("a")
        opened = self.jail.open(ALL, P("a"))
        opened.close()
        other = os.open(self.root, os.O_RDONLY)
        opened.close()
        os.close(other)

    def test_special(self) -> None:
        """A FIFO without a writer is refused at once, not waited for, and so is a socket."""
        os.mkfifo(self.root / "fifo")
        os.mknod(self.root / "socket", stat.S_IFSOCK | 0o600)
        self.refuses(errno.EACCES, self.jail.open, ALL, P("fifo"))
        self.refuses(errno.ENXIO, self.jail.open, ALL, P("socket"))
        self.refuses(errno.ENOTDIR, self.jail.open, ALL, P("fifo/x"))
        for name in ("fifo", "socket"):
            self.assertEqual(kind_of(self.jail.stat(ALL, P(name)).st_mode), "other")

    def test_device(self) -> None:
        """A device is no file that could be read."""
        try:
            os.mknod(self.root / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
        except PermissionError as error:
            raise SkipTest("only root makes devices") from error
        self.refuses(errno.EACCES, self.jail.open, ALL, P("zero"))

    def test_stat_without_the_right_to_read(self) -> None:
        """A stat needs no right to read the file; opening does."""
        self.write("a").chmod(0)
        with unprivileged():
            self.assertEqual(self.jail.stat(ALL, P("a")).st_size, len(OPEN))
            self.refuses(errno.EACCES, self.jail.open, ALL, P("a"))

    def test_pass_without_the_right_to_list(self) -> None:
        """What lies in a directory that may be entered but not listed can be opened."""
        self.write("a/b").chmod(0o644)
        forbid(self, self.root / "a", 0o311)
        with unprivileged():
            self.jail.open(ALL, P("a/b")).close()
            self.refuses(errno.EACCES, list, self.jail.entries(ALL, P("a")))

    def test_hidden(self) -> None:
        """A caller who may not see hidden names finds none, however deep."""
        for path in (".env", "a/.git/config", f"a/{RESERVED}/x"):
            self.write(path)
            self.refuses(errno.ENOENT, self.jail.open, PLAIN, P(path))
            self.refuses(errno.ENOENT, self.jail.stat, PLAIN, P(path))
        self.jail.open(ALL, P("a/.git/config")).close()
        self.refuses(errno.ENOENT, self.jail.open, ALL, P(f"a/{RESERVED}/x"))

    def test_base(self) -> None:
        """A view sees beneath its base only, whose own names may be hidden."""
        self.write(".part/a")
        self.write("b")
        (self.root / ".part/up").symlink_to("../b")
        view = View(P(".part"), hidden=False)
        self.jail.open(view, P("a")).close()
        self.jail.open(view, P("")).close()
        self.refuses(errno.ENOENT, self.jail.open, view, P("up"))
        self.refuses(errno.ENOENT, self.jail.open, View(P("missing")), P("a"))
        self.refuses(errno.ENOTDIR, self.jail.open, View(P("b")), P(""))
        self.refuses(errno.ENOENT, self.jail.open, View(P(RESERVED)), P(""))

    def test_link_as_base(self) -> None:
        """A base that is a link counts as what it leads to, but never outside the root."""
        self.write("real/a")
        self.outside.mkdir()
        (self.outside / "a").write_text(SECRET)
        (self.root / "part").symlink_to("real")
        (self.root / "away").symlink_to("../outside")
        self.jail.open(View(P("part")), P("a")).close()
        self.refuses(errno.ENOENT, self.jail.open, View(P("away")), P("a"))

    def test_bound_base(self) -> None:
        """Where the base is bound no link leads to it, and only where it is a file it may be one."""
        self.write("real/a")
        self.write("real/deep/b")
        (self.root / "real/in").symlink_to("a")
        (self.root / "real/up").symlink_to("../real/a")
        (self.root / "part").symlink_to("real")
        (self.root / "file").symlink_to("real/a")
        directory, file = partial(View, bound="directory"), partial(View, bound="file")
        for path in ("", "a", "deep/b", "in"):
            self.jail.open(directory(P("real")), P(path)).close()
        with self.jail.open(file(P("real/a")), P("")) as opened:
            self.assertFalse(opened.is_directory)
        self.refuses(errno.ENOENT, self.jail.open, directory(P("real")), P("up"))
        for base in ("part", "part/deep", "file", "real/in"):
            for view in (directory(P(base)), file(P(base))):
                for path in ("", "b"):
                    self.refuses(errno.ENOENT, self.jail.open, view, P(path))
                    self.refuses(errno.ENOENT, self.jail.stat, view, P(path))
                self.refuses(errno.ENOENT, list, self.jail.entries(view, P("")))
        self.refuses(errno.ENOTDIR, self.jail.open, directory(P("real/a")), P(""))
        self.refuses(errno.ENOTDIR, self.jail.open, file(P("real/a")), P("x"))

    def test_closed(self) -> None:
        """After the jail was closed every verb fails; closing again does nothing."""
        self.write("a")
        self.jail.close()
        self.jail.close()
        self.refuses(errno.EBADF, self.jail.open, ALL, P("a"))
        self.refuses(errno.EBADF, self.jail.stat, ALL, P("a"))
        self.refuses(errno.EBADF, self.jail.remove, ALL, P(""), ["a"])
        self.refuses(errno.EBADF, self.jail.stage, ALL, P("b"))

    def test_no_root(self) -> None:
        """A root that is missing or no directory is an error, and nothing stays open."""
        file = self.write("a")
        before = open_descriptors()
        for path, number in ((file, errno.ENOTDIR), (self.root / "missing", errno.ENOENT)):
            self.refuses(number, Jail, str(path))
        calls = WatchedCalls(FailAt(2, errno.EMFILE))
        self.refuses(errno.EMFILE, lambda: Jail(str(self.root), calls=calls))
        self.assertEqual(open_descriptors() - before, set())


class EntriesTests(JailCase):
    """Listing."""

    def test_kinds(self) -> None:
        """Every entry says what it is, with its own size and time; a link is never followed."""
        self.write("file", "12345")
        os.utime(self.root / "file", ns=(0, 1_700_000_000_123_456_789))
        self.write("directory/x")
        (self.root / "link").symlink_to("/proc/version")
        os.mkfifo(self.root / "fifo")
        found = {entry.name: entry for entry in self.jail.entries(ALL, P(""))}
        self.assertEqual(
            {name: (entry.kind, entry.size) for name, entry in found.items()},
            {"file": ("file", 5), "directory": ("directory", 0), "link": ("link", 13), "fifo": ("other", 0)},
        )
        self.assertEqual(found["file"].mtime_ns, 1_700_000_000_123_456_789)
        self.assertTrue(stat.S_ISREG(found["file"].mode))

    def test_odd_names(self) -> None:
        """A name that is not UTF-8 is listed, and leads back to its file."""
        names = {
            os.fsdecode(raw)
            for raw in (b"\xff", b"latin-\xe9", b"a\nb", b"\x1b[31m", b"..\\..", "\u00e9".encode())
        }
        for name in names:
            self.write(name)
        self.assertEqual(self.names(""), names)
        for name in names:
            self.jail.open(ALL, RelPath((name,))).close()

    def test_hidden(self) -> None:
        """Our own directory is never listed, other hidden names only to who may see them."""
        for path in (".env", "plain", f"{RESERVED}/x", f"a/{RESERVED}/x", "a/.b"):
            self.write(path)
        self.assertEqual(self.names(""), {".env", "plain", "a"})
        self.assertEqual(self.names("a"), {".b"})
        self.assertEqual(self.names("", PLAIN), {"plain", "a"})
        self.assertEqual(self.names("a", PLAIN), set())

    def test_not_a_directory(self) -> None:
        """A file has no entries, nor has a link to one; what is missing is not there."""
        self.write("file")
        (self.root / "link").symlink_to("file")
        for path, number in (("file", errno.ENOTDIR), ("link", errno.ENOTDIR), ("missing", errno.ENOENT)):
            self.refuses(number, lambda path=path: list(self.jail.entries(ALL, P(path))))

    def test_gone_meanwhile(self) -> None:
        """An entry that goes away while the directory is listed is left out."""
        for number in range(50):
            self.write(f"{number}")
        entries = self.jail.entries(ALL, P(""))
        first = next(entries).name
        for number in range(50):
            (self.root / f"{number}").unlink()
        self.assertEqual({first, *(entry.name for entry in entries)}, {first})

    def test_abandoned(self) -> None:
        """A listing that is not read to its end is closed with its iterator."""
        for number in range(50):
            self.write(f"{number}")
        entries = self.jail.entries(ALL, P(""))
        next(entries)
        del entries

    def test_interrupted(self) -> None:
        """A listing fails at its next entry once the jail is interrupted, and leaves nothing open."""
        self.write("a")
        self.write("b")
        entries = self.jail.entries(ALL, P(""))
        next(entries)
        self.jail.interrupt()
        self.assertRaises(OverloadedError, next, entries)

    def test_twice(self) -> None:
        """A directory that was listed can be listed again through the same jail."""
        self.write("a")
        self.assertEqual((self.names(""), self.names("")), ({"a"}, {"a"}))


class RemoveTests(JailCase):
    """Removing."""

    def test_counts(self) -> None:
        """The answer counts what was there and is gone; what was not there is no error."""
        for name in ("a", "b", "c"):
            self.write(f"d/{name}")
        self.assertEqual(self.jail.remove(ALL, P("d"), ["a", "missing", "b", "a"]), 2)
        self.assertEqual(self.names("d"), {"c"})
        self.assertEqual(self.jail.remove(ALL, P("d"), []), 0)

    def test_chosen(self) -> None:
        """What is chosen from a directory's entries is removed; what the caller may not see is no choice."""
        for path in ("d/a", "d/ab", "d/b", "d/.a", f"d/{RESERVED}/a"):
            self.write(path)
        offered: list[str] = []

        def choose(entry: Entry) -> bool:
            offered.append(entry.name)
            return entry.name.startswith("a")

        self.assertEqual(self.jail.remove_chosen(PLAIN, P("d"), choose), 2)
        self.assertEqual((sorted(offered), self.names("d")), (["a", "ab", "b"], {".a", "b"}))

    def test_exchanged_while_choosing(self) -> None:
        """A directory that takes the place of the listed one meanwhile loses nothing."""
        self.write("d/a")
        self.write("other/a")

        def choose(entry: Entry) -> bool:
            (self.root / "d").rename(self.root / "moved")
            (self.root / "other").rename(self.root / "d")
            return True

        self.assertEqual(self.jail.remove_chosen(ALL, P("d"), choose), 1)
        self.assertEqual((self.names("d"), self.names("moved")), ({"a"}, set()))

    def test_link_itself(self) -> None:
        """A link is removed, never what it leads to; one that leads to a directory too."""
        self.write("file")
        (self.root / "directory").mkdir()
        for target in ("file", "directory", "missing", "/proc/version"):
            (self.root / "link").symlink_to(target)
            self.assertEqual(self.jail.remove(ALL, P(""), ["link"]), 1)
        self.assertEqual(self.names(""), {"file", "directory"})

    def test_directory(self) -> None:
        """A directory is refused, an empty one too; what came before it is gone."""
        (self.root / "directory").mkdir()
        self.write("a")
        self.refuses(errno.EISDIR, self.jail.remove, ALL, P(""), ["a", "directory", "b"])
        self.assertEqual(self.names(""), {"directory"})

    def test_only_names(self) -> None:
        """Whatever is no name is refused before anything is touched at its place."""
        self.write("a/b")
        self.write("c")
        for name in ("..", "../c", "b/../../c", "/proc/version", "", ".", "a\0", "./b"):
            self.assertRaises(FileNameError, self.jail.remove, ALL, P("a"), [name])
        self.assertEqual((self.names(""), self.names("a")), ({"a", "c"}, {"b"}))

    def test_hidden(self) -> None:
        """What the caller may not see is not there to be removed."""
        for path in (".env", f"{RESERVED}/x"):
            self.write(path)
        self.assertEqual(self.jail.remove(PLAIN, P(""), [".env", RESERVED]), 0)
        self.refuses(errno.ENOENT, self.jail.remove, ALL, P(RESERVED), ["x"])
        self.assertEqual(self.jail.remove(ALL, P(""), [".env", RESERVED]), 1)
        self.assertTrue((self.root / RESERVED / "x").exists())

    def test_flushed(self) -> None:
        """The directory is flushed once after the last removal, after a failure too, but not for nothing."""
        calls: list[str] = []
        watched = WatchedCalls(lambda name, arguments, keywords: calls.append(name))
        for names, flushes in ((["a", "b"], 1), (["missing"], 0), (["a", "directory"], 1)):
            for durable in (True, False):
                self.write("a")
                self.write("b")
                (self.root / "directory").mkdir(exist_ok=True)
                jail = Jail(str(self.root), calls=watched, durable=durable)
                calls.clear()
                with contextlib.suppress(IsADirectoryError):
                    jail.remove(ALL, P(""), names)
                order = [name for name in calls if name in ("unlink", "fsync")]
                self.assertEqual(order.count("fsync"), flushes * durable)
                self.assertEqual(order, sorted(order, reverse=True), "unlink comes before fsync")
                jail.close()


class HostileTests(SynchronousTestCase):
    """The table of hostile paths against every verb, by both strategies."""

    def setUp(self) -> None:
        work = Path(self.mktemp())
        self.root, self.outside = work / "root", work / "outside"
        build(self.root, self.outside)
        self.addCleanup(shutil.rmtree, work)

    def paths(self) -> Iterator[tuple[str, RelPath]]:
        """Those that are a path at all; the others never come so far."""
        for vector in VECTORS:
            try:
                yield vector.label, P(vector.path)
            except FileNameError:
                continue

    def seen(self, jail: Jail, view: View, path: RelPath) -> str:
        """All that a caller learns of a path: content, names, the size by stat."""
        found = []
        try:
            with jail.open(view, path) as opened:
                if not opened.is_directory:
                    found.append(os.read(opened.descriptor, 1000).decode())
            found += [entry.name for entry in jail.entries(view, path)]
        except OSError:
            pass
        try:
            status = jail.stat(view, path)
            found += [
                name for name, inodes in self.inodes.items() if (status.st_dev, status.st_ino) in inodes
            ]
        except OSError:
            pass
        return " ".join(found)

    def mark(self) -> None:
        """Note by inode what nobody, or not everybody, may see."""
        self.inodes: dict[str, set[tuple[int, int]]] = {}
        for top in (self.root, self.outside):
            for directory, _, names in os.walk(top):
                for name in names:
                    path = Path(directory, name)
                    if path.is_file() and not path.is_symlink():
                        status = path.stat()
                        self.inodes.setdefault(path.read_text(), set()).add((status.st_dev, status.st_ino))

    def test_reading(self) -> None:
        """Nothing outside the root, the base or the caller's sight is opened, listed or even measured."""
        self.mark()
        shown = 0
        for resolver in STRATEGIES:
            jail = Jail(str(self.root), resolver=resolver)
            for view, markers in (
                (ALL, (SECRET,)),
                (PLAIN, (SECRET, HIDDEN)),
                (View(P(UNDER)), (SECRET, NEIGHBOUR)),
                (View(P(UNDER), hidden=False), (SECRET, NEIGHBOUR, HIDDEN)),
            ):
                for label, path in self.paths():
                    rest = path.beneath(view.base)
                    for asked in (path, rest) if rest is not None else (path,):
                        seen = self.seen(jail, view, asked)
                        shown += OPEN in seen
                        for marker in markers:
                            self.assertNotIn(marker, seen, label)
            jail.close()
        self.assertGreater(shown, 50, "what may be seen is seen")

    def test_changing(self) -> None:
        """Nothing outside is removed or written, nothing of ours and nothing that may not be seen."""
        kept = self.protected()
        for resolver in STRATEGIES:
            jail = Jail(str(self.root), resolver=resolver, durable=False, may_be_new=bool)
            for label, path in self.paths():
                view = View(P(UNDER), hidden=False)
                for asked in (path, path.beneath(view.base)):
                    if asked:
                        self.change(jail, view, asked)
                        self.assertEqual(self.protected(), kept, label)
            jail.close()

    def change(self, jail: Jail, view: View, path: RelPath) -> None:
        with contextlib.suppress(OSError):
            jail.remove(view, path.parent, [path.name])
        with contextlib.suppress(OSError), jail.stage(view, path) as staged:
            staged.write(b"new")
            staged.commit()

    def protected(self) -> list[str]:
        """Every file that must stay."""
        places = [self.outside, self.root / "ab", self.root / ".hidden", self.root / UNDER / ".hidden"]
        places += [self.root / ".fileexport", self.root / UNDER / ".fileexport"]
        found = [str(path) for place in places for path in sorted(place.rglob("*"))]
        return found + sorted(os.listdir(self.root)) + sorted(os.listdir(self.root.parent))
