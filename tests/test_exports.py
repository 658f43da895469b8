"""Every verb, and who may."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fileexport import exports_reading
from fileexport.disk.jail import Jail
from fileexport.errors import BadRequestError, FileNameError
from fileexport.exports import ANY, Exports, Pattern
from fileexport.paths import MAX_DEPTH, RESERVED, RelPath
from fileexport.tokens import Principal, Right
from tests.hostile import HIDDEN, NEIGHBOUR, SECRET, UNDER, VECTORS, build
from tests.watched import WatchedCalls, forbid, unprivileged

P = RelPath.parse
ROOT = RelPath()


def principal(under: str = "/", rights: Right = Right.ALL, *, sees_hidden: bool = True) -> Principal:
    return Principal("someone", rights, P(under), sees_hidden)


ALL = principal()
STRANGER = Principal.anonymous(Right.ALL)


class ExportsCase(SynchronousTestCase):
    """Has a root, a jail on it, and the calls that reached the disk."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()) / "root"
        self.root.mkdir(parents=True)
        self.calls: list[str] = []
        watched = WatchedCalls(lambda name, arguments, keywords: self.calls.append(name))
        self.jail = Jail(str(self.root), calls=watched)
        self.addCleanup(self.jail.close)
        self.exports = self.exporting()

    def exporting(self, *directories: str) -> Exports:
        return Exports(self.jail, tuple(map(P, directories)))

    def write(self, *paths: str) -> None:
        """Make files that hold their own path."""
        for path in paths:
            file = self.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.fsencode(path))

    def read(self, exports: Exports, who: Principal, path: str) -> str:
        """What a caller gets for a path: the content, the kind, or the error."""
        try:
            opened = exports.open(who, P(path))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        if opened is None:
            return "virtual"
        with opened:
            return "directory" if opened.is_directory else os.read(opened.descriptor, 999).decode()

    def names(self, path: str, who: Principal = ALL, **how: Any) -> list[str]:
        return [entry.name for entry in self.exports.files(who, P(path), **how)]

    def refuses(self, kind: type[Exception], function: Callable[..., object], *arguments: Any) -> None:
        self.assertRaises(kind, function, *arguments)


class RightsTests(ExportsCase):
    """What each right opens."""

    def test_each_verb(self) -> None:
        """Every verb needs its own right and is refused with any other before the disk is touched."""
        self.write("a", "b")
        verbs: tuple[tuple[Right, Callable[[Principal], object]], ...] = (
            (Right.READ, lambda who: self.exports.open(who, P("a"))),
            (Right.READ, lambda who: self.exports.browse(who, ROOT)),
            (Right.READ, lambda who: self.exports.files(who, ROOT)),
            (Right.READ, lambda who: self.exports.open(who, P("missing"))),
            (Right.DELETE, lambda who: self.exports.remove_file(who, P("a"))),
            (Right.DELETE, lambda who: self.exports.remove_file(who, P("missing"))),
            (Right.DELETE, lambda who: self.exports.remove_matching(who, ROOT, ANY)),
        )
        self.calls.clear()
        for right, verb in verbs:
            for rights in (Right(0), Right.ALL & ~right):
                with self.assertRaises(PermissionError):
                    verb(principal(rights=rights))
        self.assertEqual(self.calls, [])
        self.assertEqual(set(os.listdir(self.root)), {"a", "b"})

    def test_no_more_than_needed(self) -> None:
        """A caller with that right alone is served."""
        self.write("a", "b")
        reader, remover = principal(rights=Right.READ), principal(rights=Right.DELETE)
        self.assertEqual(self.read(self.exports, reader, "a"), "a")
        self.assertEqual(len(self.exports.browse(reader, ROOT)), 2)
        self.exports.remove_file(remover, P("a"))
        self.assertEqual(self.exports.remove_matching(remover, ROOT, ANY), 1)


class BasesTests(ExportsCase):
    """What a caller may see of the root."""

    def test_bases(self) -> None:
        """The exported directories are cut to the caller's part, whichever of the two is deeper."""
        for directories, under, bases in (
            ((), "/", ["/"]),
            ((), "/a", ["/a"]),
            (("a", "b/c"), "/", ["/a", "/b/c"]),
            (("a", "b/c"), "/b", ["/b/c"]),
            (("a", "b/c"), "/b/c", ["/b/c"]),
            (("a", "b/c"), "/b/c/d", ["/b/c/d"]),
            (("a", "b/c"), "/b/cc", []),
            (("a", "b/c"), "/x", []),
            (("a",), "/ab", []),
            (("ab",), "/a", []),
            (("a", "a/b"), "/a/b", ["/a/b"]),
        ):
            found = self.exporting(*directories).bases(principal(under))
            self.assertEqual([str(base) for base in found], bases, (directories, under))

    def test_reading(self) -> None:
        """What is outside does not exist, what is above is a directory of the exported ones."""
        self.write("a/f", "ab/f", "b/c/d/f", "b/c/f", "b/f", "f")
        exports = self.exporting("a", "b/c")
        for who, path, answer in (
            *((ALL, "", "virtual"), (ALL, "a", "directory"), (ALL, "a/f", "a/f"), (ALL, "b", "virtual")),
            *(
                (ALL, "b/c", "directory"),
                (ALL, "b/c/d/f", "b/c/d/f"),
                (ALL, "f", "ENOENT"),
                (ALL, "b/f", "ENOENT"),
            ),
            *((ALL, "ab", "ENOENT"), (ALL, "ab/f", "ENOENT"), (ALL, "b/d", "ENOENT"), (ALL, "A", "ENOENT")),
            *(
                (principal("/b"), "", "virtual"),
                (principal("/b"), "b", "virtual"),
                (principal("/b"), "a/f", "ENOENT"),
            ),
            *((principal("/b"), "b/c/f", "b/c/f"), (principal("/b/c/d"), "b/c/d/f", "b/c/d/f")),
            *((principal("/b/c/d"), "b/c", "virtual"), (principal("/b/c/d"), "b/c/f", "ENOENT")),
            *(
                (principal("/x"), "", "virtual"),
                (principal("/x"), "a", "ENOENT"),
                (principal("/x"), "x", "ENOENT"),
            ),
        ):
            self.assertEqual(self.read(exports, who, path), answer, (who.under, path))

    def test_virtual_directories(self) -> None:
        """Above the exported directories these are all there is, each named by its path from there."""
        self.write("a/f", "b/c/f", "b/f", "f")
        exports = self.exporting("a", "b/c", "gone")

        def listed(path: str, who: Principal = ALL) -> list[tuple[str, str]]:
            return [(entry.name, entry.kind) for entry in exports.browse(who, P(path))]

        self.assertEqual(listed(""), [("a", "directory"), ("b/c", "directory"), ("gone", "other")])
        self.assertEqual(listed("b"), [("c", "directory")])
        self.assertEqual(listed("b/c"), [("f", "file")])
        self.assertEqual(listed("", principal("/b/c")), [("b/c", "directory")])
        self.assertEqual(listed("", principal("/x")), [])
        self.refuses(FileNotFoundError, exports.browse, principal("/x"), P("x"))
        self.refuses(FileNotFoundError, exports.browse, ALL, P("bb"))

    def test_virtual_directories_do_nothing_else(self) -> None:
        """They hold no files and nothing in them is removed."""
        self.write("a/f", "f")
        exports = self.exporting("a")
        self.assertEqual(exports.files(ALL, ROOT), [])
        self.refuses(FileNotFoundError, exports.remove_matching, ALL, ROOT, ANY)
        self.refuses(FileNotFoundError, exports.remove_file, ALL, P("f"))
        self.refuses(FileNotFoundError, exports.remove_file, ALL, ROOT)
        self.assertTrue((self.root / "f").exists())

    def test_directories_themselves(self) -> None:
        """An exported directory is never removed, nor is what else is a directory."""
        self.write("a/b/f")
        for path in ("a", "a/b"):
            self.refuses(IsADirectoryError, self.exporting("a").remove_file, ALL, P(path))
        self.refuses(IsADirectoryError, self.exports.remove_file, ALL, ROOT)

    def test_links_over_the_boundary(self) -> None:
        """A link that leads out of the caller's part leads nowhere, though it stays in the root."""
        self.write("a/f", "b/f")
        (self.root / "a/out").symlink_to("../b/f")
        (self.root / "a/out-and-in").symlink_to("../a/f")
        (self.root / "a/dir").symlink_to("../b")
        for exports, who in ((self.exporting("a"), ALL), (self.exports, principal("/a"))):
            for path in ("a/out", "a/out-and-in", "a/dir", "a/dir/f"):
                self.assertEqual(self.read(exports, who, path), "ENOENT")
            self.assertEqual([entry.name for entry in exports.files(who, P("a"))], ["f"])
        self.assertEqual(self.read(self.exports, ALL, "a/out"), "b/f")

    def test_hidden(self) -> None:
        """Hidden names do not exist for who may not see them, a link to them neither; ours for nobody."""
        self.write(".env", ".git/config", "f", f"{RESERVED}/x", f"d/{RESERVED}/x", "d/.x", "d/f")
        (self.root / "link").symlink_to(".env")
        for path in (".env", ".git", ".git/config", "d/.x", "link"):
            self.assertEqual(self.read(self.exports, STRANGER, path), "ENOENT")
            self.assertNotEqual(self.read(self.exports, ALL, path), "ENOENT")
            self.refuses(FileNotFoundError, self.exports.remove_file, STRANGER, P(path).parent / "missing")
        for path in (RESERVED, f"{RESERVED}/x", f"d/{RESERVED}/x"):
            for who in (ALL, STRANGER):
                self.assertEqual(self.read(self.exports, who, path), "ENOENT")
                self.refuses(FileNotFoundError, self.exports.remove_file, who, P(path))
        self.assertEqual([entry.name for entry in self.exports.browse(STRANGER, ROOT)], ["d", "f", "link"])
        self.assertEqual(
            [entry.name for entry in self.exports.browse(ALL, ROOT)], [".git", "d", ".env", "f", "link"]
        )
        self.assertEqual(self.names("", STRANGER), ["f"])
        self.assertEqual(self.names("", STRANGER, recursive=True), ["d/f", "f"])

    def test_hidden_base(self) -> None:
        """A hidden directory that is exported is seen by all who come; what is hidden in it is not."""
        self.write(".public/f", ".public/.x", ".private/f")
        exports = self.exporting(".public")
        answers = [self.read(exports, STRANGER, path) for path in (".public/f", ".public/.x", ".private/f")]
        self.assertEqual(answers, [".public/f", "ENOENT", "ENOENT"])


class FilesTests(ExportsCase):
    """Listing the files of a directory."""

    def test_regular_files_by_name(self) -> None:
        """Regular files come by name with their sizes; directories and what is special do not."""
        self.write("b", "a", "B", "c/d", "\udcff")
        os.mkfifo(self.root / "fifo")
        found = self.exports.files(ALL, ROOT)
        self.assertEqual(
            [(entry.name, entry.size) for entry in found], [("B", 1), ("a", 1), ("b", 1), ("\udcff", 1)]
        )

    def test_links(self) -> None:
        """A link to a file counts with that file's size and time; one to anything else does not."""
        self.write("d/file")
        os.utime(self.root / "d/file", ns=(0, 5))
        for name, target in (
            *(("link", "d/file"), ("again", "link"), ("dir", "d"), ("dangling", "x"), ("loop", "loop")),
            *(("out", "../../passwd"), ("absolute", str((self.root / "d/file").absolute()))),
        ):
            (self.root / name).symlink_to(target)
        found = self.exports.files(ALL, ROOT)
        self.assertEqual(
            [(entry.name, entry.size, entry.mtime_ns) for entry in found], [("again", 6, 5), ("link", 6, 5)]
        )

    def test_recursive(self) -> None:
        """With `recursive` the files below come too, named by their path from there."""
        self.write("a", "d/b", "d/e/c", "d-/x")
        (self.root / "link").symlink_to("d")
        (self.root / "d/up").symlink_to("..")
        (self.root / "d/a").symlink_to("../a")
        self.assertEqual(self.names("", recursive=True), ["a", "d-/x", "d/a", "d/b", "d/e/c"])
        self.assertEqual(self.names("d", recursive=True), ["a", "b", "e/c"])
        self.assertEqual(self.names("d"), ["a", "b"])

    def test_other_answers(self) -> None:
        """What is missing is not there, and a file is no directory, not even for a prefix of it."""
        self.write("f")
        self.refuses(FileNotFoundError, self.exports.files, ALL, P("missing"))
        self.refuses(NotADirectoryError, self.exports.files, ALL, P("f"))
        self.refuses(NotADirectoryError, self.exports.browse, ALL, P("f"))

    def test_unlistable_below(self) -> None:
        """A directory below that may not be listed costs the listing nothing but itself."""
        self.write("a", "lost+found/x", "z/y")
        forbid(self, self.root / "lost+found", 0)
        with unprivileged():
            self.assertEqual(self.names("", recursive=True), ["a", "z/y"])
            self.refuses(PermissionError, self.exports.files, ALL, P("lost+found"))

    def test_gone_below(self) -> None:
        """A directory below that goes away while the listing is made is left out."""
        self.write("a", "d/x")
        scans = 0

        def vanish(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            nonlocal scans
            scans += name == "scan"
            if scans == 1 and name == "close":
                shutil.rmtree(self.root / "d", ignore_errors=True)

        jail = Jail(str(self.root), calls=WatchedCalls(vanish))
        self.addCleanup(jail.close)
        self.assertEqual([entry.name for entry in Exports(jail).files(ALL, ROOT, recursive=True)], ["a"])

    def test_too_deep(self) -> None:
        """What lies deeper than a path can name is left out; it does not spoil the rest."""
        # 63 names, and one more that still makes a path of them.
        deepest = "/".join("d" * (MAX_DEPTH - 1))
        self.write("a", f"{deepest}/x", f"{deepest}/d/y", f"{deepest}/d/d/z")
        (self.root / deepest / "d/link").symlink_to("../x")
        self.assertEqual(self.names("", recursive=True), ["a", f"{deepest}/x"])
        self.assertEqual(self.names(f"{deepest}/d"), ["y"])
        self.assertEqual(self.names("d/d", recursive=True), [f"{deepest}/x".removeprefix("d/d/")])

    def test_limit(self) -> None:
        """A listing of more files than may be held is refused."""
        self.write("a", "b", "d/c")
        self.patch(exports_reading, "MAX_LISTED", 2)
        self.assertEqual(self.names("d", recursive=True), ["c"])
        self.refuses(BadRequestError, lambda: self.exports.files(ALL, ROOT, recursive=True))
        self.refuses(BadRequestError, self.exports.browse, ALL, ROOT)
        self.assertEqual(len(self.exports.browse(ALL, P("d"))), 1)


class RemoveTests(ExportsCase):
    """Removing."""

    def matching(self, prefix: str, suffix: str, who: Principal = ALL) -> int:
        return self.exports.remove_matching(who, ROOT, Pattern(prefix, suffix))

    def test_file(self) -> None:
        """One file is removed by its path, a link itself; what is missing is an error."""
        self.write("d/a", "d/b")
        (self.root / "d/link").symlink_to("a")
        for path in ("d/link", "d/b"):
            self.exports.remove_file(ALL, P(path))
        self.assertEqual(os.listdir(self.root / "d"), ["a"])
        for path in ("d/b", "missing/a"):
            self.refuses(FileNotFoundError, self.exports.remove_file, ALL, P(path))
        self.refuses(NotADirectoryError, self.exports.remove_file, ALL, P("d/a/x"))

    def test_both_ends(self) -> None:
        """A name must match prefix and suffix, which may overlap in it; the count is what is gone."""
        names = ("a.sql", "ab.sql", "a.txt", "b.sql", "a", ".sql", "a.sql.gz", "aba", "ab")
        for prefix, suffix, gone in (
            *(("a", ".sql", {"a.sql", "ab.sql"}), ("", ".sql", {"a.sql", "ab.sql", "b.sql", ".sql"})),
            *(("a", "", set(names) - {"b.sql", ".sql"}), ("ab", "ba", {"aba"}), ("a", "a", {"a", "aba"})),
            *(("a.sql", "a.sql", {"a.sql"}), ("A", "", set()), ("*", "*", set()), ("", "", set(names))),
            *(("ab.sqlx", "", set()), ("a.sql.gz", "gz", {"a.sql.gz"})),
        ):
            self.write(*names)
            self.assertEqual(self.matching(prefix, suffix), len(gone), (prefix, suffix))
            self.assertEqual(set(os.listdir(self.root)), set(names) - gone, (prefix, suffix))

    def test_only_files(self) -> None:
        """Directories and what lies in them stay, and so does what no listing of files shows."""
        self.write("xa", "xd/xa", ".xh")
        os.mkfifo(self.root / "xfifo")
        (self.root / "xlink").symlink_to("xd/xa")
        (self.root / "xdangling").symlink_to("missing")
        (self.root / "xdir").symlink_to("xd")
        self.assertEqual(self.matching("x", ""), 2)
        self.assertEqual(set(os.listdir(self.root)), {"xd", ".xh", "xfifo", "xdangling", "xdir"})
        self.assertEqual(os.listdir(self.root / "xd"), ["xa"])

    def test_unseen(self) -> None:
        """What the caller may not see is not removed, ours by nobody."""
        self.write(".a", "b", f"{RESERVED}/x")
        self.assertEqual(self.matching("", "", STRANGER), 1)
        self.assertEqual(self.matching("", ""), 1)
        self.assertEqual(os.listdir(self.root), [RESERVED])

    def test_nothing(self) -> None:
        """Where nothing matches nothing is flushed; a directory that is missing is an error."""
        self.calls.clear()
        self.assertEqual(self.matching("x", ""), 0)
        self.assertNotIn("fsync", self.calls)
        self.refuses(FileNotFoundError, self.exports.remove_matching, ALL, P("missing"), ANY)


class HostileTests(SynchronousTestCase):
    """The table of hostile paths through every verb."""

    def test_reading(self) -> None:
        """No caller sees what is outside the root or outside the own part, by `under` or by `--dir`."""
        work = Path(self.mktemp())
        build(work / "root", work / "outside")
        jail = Jail(str(work / "root"))
        self.addCleanup(jail.close)
        for directories, who, markers in (
            ((), ALL, (SECRET,)),
            ((), STRANGER, (SECRET, HIDDEN)),
            ((), principal(UNDER), (SECRET, NEIGHBOUR)),
            ((P(UNDER),), ALL, (SECRET, NEIGHBOUR)),
            ((P(UNDER),), STRANGER, (SECRET, NEIGHBOUR, HIDDEN)),
        ):
            exports = Exports(jail, directories)
            for vector in VECTORS:
                seen = self.seen(exports, who, vector.path)
                for marker in markers:
                    self.assertNotIn(marker, seen, vector.label)

    def seen(self, exports: Exports, who: Principal, text: str) -> str:
        """All that the reading verbs show of a path."""
        found: list[str] = []
        try:
            path = P(text)
        except FileNameError:
            return ""
        try:
            opened = exports.open(who, path)
            if opened is not None:
                with opened:
                    if not opened.is_directory:
                        found.append(os.read(opened.descriptor, 999).decode())
        except OSError:
            pass
        for verb in (exports.browse, exports.files):
            try:
                found += [entry.name for entry in verb(who, path)]
            except OSError:
                continue
        return " ".join(found)
