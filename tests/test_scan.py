"""A directory and all below it as a manifest."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from fileexport.disk import scan as scan_module
from fileexport.disk import walks
from fileexport.disk.calls import Calls
from fileexport.disk.jail import Jail, View
from fileexport.disk.resolve import Openat2, Resolver, Walk
from fileexport.disk.scan import Part, entry_of, manifest_of, scan
from fileexport.disk.walks import Names
from fileexport.errors import BadRequestError, OverloadedError, PeerGone
from fileexport.paths import MAX_DEPTH, RESERVED
from fileexport.sync.manifest import Entry, omission
from tests.hostile import SECRET, build
from tests.test_jail import ALL, PLAIN, JailCase, P
from tests.watched import Later, WatchedCalls, forbid, unprivileged

TIME = 1_700_000_000_123_456_789


class ScanCase(JailCase):
    """Has a jail that resolves in one way, and somebody in front of its calls."""

    strategy: Callable[[Calls], Resolver] = Openat2

    def setUp(self) -> None:
        super().setUp()
        self.later = Later()
        self.jail = Jail(str(self.root), calls=WatchedCalls(self.later), resolver=self.strategy)
        self.addCleanup(self.jail.close)

    def parts(self, path: str = "", view: View = ALL) -> list[Part]:
        return list(scan(self.jail, view, P(path)))

    def paths(self, path: str = "", view: View = ALL) -> list[str]:
        return [found for found, _ in manifest_of(scan(self.jail, view, P(path))).entries()]


class ScanTests(ScanCase):
    """What it finds."""

    def test_entries(self) -> None:
        """Kind, size, time in nanoseconds and permissions, and the text of a link; the top's own first."""
        self.write("d/file", "12345").chmod(0o640)
        os.utime(self.root / "d/file", ns=(0, TIME))
        (self.root / "link").symlink_to("../any where")
        os.mkfifo(self.root / "fifo", 0o600)
        for path in ("d", ""):
            (self.root / path).chmod(0o2750 if path else 0o755)
            os.utime(self.root / path, ns=(0, TIME + 1))
        link = (self.root / "link").lstat().st_mtime_ns
        fifo = (self.root / "fifo").stat().st_mtime_ns
        directory = Entry("directory", 0, TIME + 1, 0o750)
        top = Entry("directory", 0, TIME + 1, 0o755)
        expected = [
            Part(
                P(""),
                [
                    ("d", directory),
                    ("fifo", Entry("other", 0, fifo, 0o600)),
                    ("link", Entry("link", 0, link, 0, "../any where")),
                ],
                own=top,
            ),
            Part(P("d"), [("file", Entry("file", 5, TIME, 0o640))]),
        ]
        self.assertEqual(self.parts(), expected)
        manifest = manifest_of(self.parts())
        self.assertEqual((manifest.top, manifest.count()), (top, 4))
        self.assertEqual(manifest.get("d/file"), Entry("file", 5, TIME, 0o640))

    def test_order(self) -> None:
        """Names are sorted, a directory comes before those in it, and each has a part, also an empty one."""
        for path in ("b/z", "b/a/x", "a", "c/q"):
            self.write(path)
        (self.root / "b/empty").mkdir()
        found = [(str(part.path), [name for name, _ in part.entries]) for part in self.parts()]
        expected = [("/", ["a", "b", "c"]), ("/b", ["a", "empty", "z"]), ("/b/a", ["x"])]
        self.assertEqual(found, [*expected, ("/b/empty", []), ("/c", ["q"])])

    def test_below(self) -> None:
        """Paths are from the directory asked for; a link may lead to that one, but to no other."""
        self.write("d/e/file")
        (self.root / "d/again").symlink_to("e")
        (self.root / "link").symlink_to("d")
        self.assertEqual(self.paths("link"), ["again", "e", "e/file"])
        self.assertEqual(self.paths("e", View(P("d"))), ["file"])

    def test_views(self) -> None:
        """Ours is never there, at any depth; hidden names and all below them only for who may see them."""
        for path in ("a/.hidden/x", f"{RESERVED}/x", f"a/{RESERVED}/x", "a/y", ".z"):
            self.write(path)
        self.assertEqual(self.paths(), [".z", "a", "a/.hidden", "a/y", "a/.hidden/x"])
        self.assertEqual(self.paths(view=PLAIN), ["a", "a/y"])

    def test_large(self) -> None:
        """A directory with more entries than a part holds comes in several, sorted over all."""
        self.patch(scan_module, "MAX_ENTRIES", 3)
        self.patch(scan_module, "_STEP", 2)
        names = [f"{number:02}" for number in range(8)]
        for name in reversed(names):
            self.write(name)
        parts = self.parts()
        self.assertEqual([len(part.entries) for part in parts], [3, 3, 2])
        self.assertEqual([name for part in parts for name, _ in part.entries], names)
        self.assertEqual([part.own is None for part in parts], [False, True, True])
        self.assertEqual(manifest_of(parts).count(), 8)

    def test_odd_names(self) -> None:
        """Names that are no UTF-8, or hold control characters, come as they are."""
        names = ["new\nline", os.fsdecode(b"\xff\xfe"), "é", "a:b", "-rf"]
        for name in names:
            self.write(name)
        self.assertEqual(self.paths(), sorted(names))

    def test_unnamed(self) -> None:
        """What lies so deep that no path can name it is counted, and reported."""
        deep = P("d/" * (MAX_DEPTH - 1) + "d")
        here = os.open(self.root, os.O_RDONLY)
        for name in (*deep, "x"):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        parts = self.parts()
        self.assertEqual((parts[-1].path, parts[-1].entries, parts[-1].omitted), (deep, [], 1))
        self.assertEqual(manifest_of(parts).unreadable, {"/".join(deep): omission(1)})
        # The limit is that of a path from the root on.
        self.assertEqual(self.parts("d")[-1].omitted, 1)
        self.assertEqual(list(scan(self.jail, View(P("d")), P("")))[-1].omitted, 1)

    def test_entry_of(self) -> None:
        """Bits above 0o777 are no part of it, and only a file has a size."""
        file = self.write("file", "123")
        file.chmod(0o6755)
        self.assertEqual(entry_of(file.stat()).mode, 0o755)
        self.assertEqual(entry_of(self.root.stat()).size, 0)


class FailureTests(ScanCase):
    """What cannot be listed, and what goes away or is exchanged meanwhile."""

    def test_top(self) -> None:
        """The top must be a directory that may be listed."""
        self.write("file")
        (self.root / "closed").mkdir()
        self.assertRaises(FileNotFoundError, self.parts, "missing")
        self.assertRaises(NotADirectoryError, self.parts, "file")
        self.assertRaises(FileNotFoundError, self.parts, RESERVED)
        forbid(self, self.root / "closed", 0o311)
        with unprivileged():
            self.assertRaises(PermissionError, self.parts, "closed")

    def test_unreadable(self) -> None:
        """A directory that may not be listed, or not be looked into, says so; all others are there."""
        for path in ("a/file", "b/file", "c/file"):
            self.write(path)
        forbid(self, self.root / "a", 0o311)
        forbid(self, self.root / "b", 0o644)
        with unprivileged():
            parts = {str(part.path): part for part in self.parts()}
        for path in ("/a", "/b"):
            self.assertEqual(
                (parts[path].entries, getattr(parts[path].error, "errno", 0)), ([], errno.EACCES)
            )
        self.assertEqual(len(parts["/c"].entries), 1)
        manifest = manifest_of(parts.values())
        self.assertEqual(manifest.unreadable, dict.fromkeys(("a", "b"), "Permission denied"))
        self.assertEqual(sorted(manifest.folders), ["", "c"])

    def test_broken(self) -> None:
        """A directory of which only a part can be read gives that part, and the error."""
        for name in "abcd":
            self.write(f"d/{name}")

        def fail(name: str, arguments: object, keywords: object) -> None:
            if name == "lstat" and isinstance(arguments, tuple) and arguments[0] == "c":
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.later.then = fail
        part = self.parts()[-1]
        self.assertEqual([name for name, _ in part.entries], ["a", "b"])
        self.assertEqual(getattr(part.error, "errno", 0), errno.EIO)
        self.assertEqual(manifest_of(self.parts()).get("d/b"), part.entries[1][1])

    def test_gone(self) -> None:
        """A directory that goes away meanwhile says so; an entry that does is left out."""
        self.write("a/file")
        self.write("b")
        parts = scan(self.jail, ALL, P(""))
        next(parts)
        (self.root / "a").rename(self.root / "z")
        self.assertEqual(getattr(next(parts).error, "errno", 0), errno.ENOENT)

        def remove(name: str, arguments: object, keywords: object) -> None:
            if name == "lstat" and isinstance(arguments, tuple) and arguments[0] == "b":
                (self.root / "b").unlink()

        self.later.then = remove
        self.assertEqual(self.paths(), ["z", "z/file"])

    def test_exchanged(self) -> None:
        """No link is followed that takes a directory's place, nor another directory entered."""
        self.write("a/file")
        self.write("other/secret", SECRET)
        for exchange in (lambda: (self.root / "a").symlink_to("other"), lambda: (self.root / "a").mkdir()):
            parts = scan(self.jail, ALL, P(""))
            next(parts)
            (self.root / "a").rename(self.root / "away")
            exchange()
            part = next(parts)
            self.assertEqual((str(part.path), part.entries), ("/a", []))
            self.assertEqual(getattr(part.error, "errno", 0), errno.ENOENT)
            parts.close()
            (self.root / "a").unlink() if (self.root / "a").is_symlink() else (self.root / "a").rmdir()
            (self.root / "away").rename(self.root / "a")

    def test_link_exchanged(self) -> None:
        """A link that becomes a file between two looks is a file."""
        (self.root / "link").symlink_to("x")

        def exchange(name: str, arguments: object, keywords: object) -> None:
            if name == "readlink":
                self.later.then = None
                (self.root / "link").unlink()
                self.write("link", "file")

        self.later.then = exchange
        (found,) = self.parts()
        self.assertEqual([(name, entry.kind) for name, entry in found.entries], [("link", "file")])

    def test_check(self) -> None:
        """Whoever gives up ends it, though what he raises may look like an error of the disk."""
        self.write("a/file")
        calls = 0

        def check() -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise PeerGone

        with self.assertRaises(PeerGone):
            list(scan(self.jail, ALL, P(""), check))

    def test_limits(self) -> None:
        """Names that are kept at once are bounded, of one scan and of all; none is kept after it."""
        for name in "abcd":
            self.write(name)
        names = Names(limit=3)
        self.assertRaises(OverloadedError, list, scan(self.jail, ALL, P(""), names=names))
        self.assertEqual(names.kept, 0)
        self.patch(walks, "MAX_KNOWN", 3)
        self.assertRaises(BadRequestError, self.parts)
        self.patch(walks, "MAX_KNOWN", 4)
        names = Names()
        for _ in scan(self.jail, ALL, P(""), names=names):
            pass
        self.assertEqual((len(self.paths()), names.kept), (4, 0))
        # What was entered is kept no longer.
        self.write("a-/b/c/d/e/f/g")
        self.assertEqual(len(list(scan(self.jail, ALL, P("a-"), names=Names(limit=1)))), 6)

    def test_hostile(self) -> None:
        """Of a tree full of links and pipes nothing outside is listed, nor opened."""
        build(self.root.parent / "hostile/root", self.root.parent / "hostile/outside")
        with_links = Jail(str(self.root.parent / "hostile/root"), resolver=self.strategy)
        self.addCleanup(with_links.close)
        manifest = manifest_of(scan(with_links, ALL, P("")))
        self.assertEqual([path for path, _ in manifest.entries() if SECRET in path], [])
        self.assertEqual(manifest.unreadable, {})
        entries = dict(manifest.entries())
        self.assertEqual(entries["links/outside-dir"].kind, "link")
        self.assertEqual(entries["special/fifo"].kind, "other")


class WalkScanTests(ScanTests):
    """The same, one name at a time."""

    strategy = Walk


class WalkFailureTests(FailureTests):
    """The same, one name at a time."""

    strategy = Walk
