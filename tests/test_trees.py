"""Directories as one stream: complete or broken, with the length that was promised."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.jail import Entry, Jail, Opened, View
from fileexport.disk.trees import Tree, TreeForm, archived
from fileexport.errors import ChangedWhileRead, FileNameError
from fileexport.paths import MAX_DEPTH, RelPath

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SIZED = (TreeForm.TAR, TreeForm.ZIP)


class TreeCase(SynchronousTestCase):
    """Has a directory with files of some sizes, odd names, links and what is no file."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.files = {
            "a.txt": b"hello\n",
            "empty": b"",
            "sub/block": b"b" * 512,
            "sub/deep/large": os.urandom(700_000),
            "sub/" + "n" * 200: b"long name",
            "sub/été": b"unicode",
            "zz": b"last",
        }
        for name, content in self.files.items():
            path = self.root / "top" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.utime(path, (1_700_000_000, 1_700_000_000))
        (self.root / "top" / "hollow").mkdir()
        (self.root / "outside").write_text("secret")
        top = self.root / "top"
        top.joinpath("link").symlink_to("a.txt")
        top.joinpath("out").symlink_to("../outside")
        top.joinpath("dangling").symlink_to("nowhere")
        top.joinpath("loop").symlink_to(".")
        os.mkfifo(top / "fifo")
        top.joinpath(".hidden").write_text("dot")
        self.jail = Jail(os.fspath(self.root))
        self.addCleanup(self.jail.close)

    def tree(self, source: Any = None, *, hidden: bool = False) -> Tree:
        """The directory `top`, seen from inside itself."""
        return Tree(source or self.jail, View(RelPath.parse("top"), hidden), RelPath(), "top")

    def made(self, form: TreeForm, tree: Tree | None = None) -> bytes:
        """The whole archive; its length is the promised one."""
        length, pieces = archived(tree or self.tree(), form)
        data = b"".join(pieces)
        if length is not None:
            self.assertEqual(len(data), length)
        self.assertEqual(length is not None, form in SIZED)
        return data

    def opened_tar(self, form: TreeForm = TreeForm.TAR, tree: Tree | None = None) -> tarfile.TarFile:
        """The archive as the standard library reads it."""
        data = self.made(form, tree)
        if form is TreeForm.TAR_GZ:
            data = gzip.decompress(data)
        if form is TreeForm.TAR_ZST:
            data = zstd.decompress(data)
        return tarfile.open(fileobj=io.BytesIO(data))

    def expected(self) -> dict[str, bytes | None]:
        """What belongs into the archive; None is a directory."""
        found: dict[str, bytes | None] = {f"top/{name}": data for name, data in self.files.items()}
        found.update({f"top/{name}": None for name in ("hollow", "sub", "sub/deep")})
        found["top/link"] = self.files["a.txt"]
        return found


class ContentTests(TreeCase):
    """What is in the archive."""

    def test_tar_forms(self) -> None:
        """Each tar form holds every file with its content, and links to files as those files."""
        for form in (TreeForm.TAR, TreeForm.TAR_GZ, TreeForm.TAR_ZST):
            found: dict[str, bytes | None] = {}
            with self.opened_tar(form) as archive:
                for member in archive:
                    content = archive.extractfile(member)
                    found[member.name] = content.read() if content else None
            self.assertEqual(found, self.expected(), form)

    def test_zip(self) -> None:
        """The zip holds the same, stored, and its checksums are right."""
        with zipfile.ZipFile(io.BytesIO(self.made(TreeForm.ZIP))) as archive:
            self.assertIsNone(archive.testzip())
            found = {
                info.filename.rstrip("/"): None if info.is_dir() else archive.read(info)
                for info in archive.infolist()
            }
            modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
        self.assertEqual(found, self.expected())
        self.assertTrue(stat.S_ISREG(modes["top/a.txt"]) and stat.S_ISDIR(modes["top/sub/"]))

    def test_chosen(self) -> None:
        """Only the entries that were chosen are in it, with all below them; links among them as ever."""
        chosen = frozenset(("sub", "link", "a.txt", "loop"))
        parts = ("top/sub", "top/link", "top/a.txt")
        for form in (TreeForm.TAR, TreeForm.TAR_GZ):
            with self.opened_tar(form, replace(self.tree(), chosen=chosen)) as archive:
                found = archive.getnames()
            self.assertEqual(found, sorted(name for name in self.expected() if name.startswith(parts)))
        with zipfile.ZipFile(
            io.BytesIO(self.made(TreeForm.ZIP, replace(self.tree(), chosen=chosen)))
        ) as packed:
            self.assertEqual({name.rstrip("/") for name in packed.namelist()}, set(found))
        with self.opened_tar(tree=replace(self.tree(), chosen=frozenset())) as archive:
            self.assertEqual(archive.getnames(), [])

    def test_chosen_unknown(self) -> None:
        """A name that is not there, or may not be seen, or is none, is refused before the first byte."""
        for name, kind in (
            *(
                ("missing", FileNotFoundError),
                (".hidden", FileNotFoundError),
                (".fileexport", FileNotFoundError),
            ),
            *(("..", FileNameError), ("sub/deep", FileNameError), ("", FileNameError)),
        ):
            for form in TreeForm:
                chosen = frozenset((name, "a.txt"))
                self.assertRaises(kind, archived, replace(self.tree(), chosen=chosen), form)

    def test_chosen_gone(self) -> None:
        """One that goes away after that breaks the archive."""
        _, pieces = archived(replace(self.tree(), chosen=frozenset(("a.txt", "zz"))), TreeForm.TAR)
        (self.root / "top/zz").unlink()
        self.assertRaises(OSError, list, pieces)

    def test_time_and_mode(self) -> None:
        """Members keep their time and their mode, never setuid, and belong to nobody."""
        os.chmod(self.root / "top" / "a.txt", 0o4751)
        with self.opened_tar() as archive:
            member = archive.getmember("top/a.txt")
        self.assertEqual((member.mtime, member.mode), (1_700_000_000, 0o751))
        self.assertEqual((member.uid, member.gid, member.uname, member.gname), (0, 0, "", ""))

    def test_order(self) -> None:
        """Members come by name, each directory before what is in it; twice made is twice the same."""
        with self.opened_tar() as archive:
            names = archive.getnames()
        self.assertEqual(names, sorted(names))
        for form in TreeForm:
            self.assertEqual(self.made(form), self.made(form), form)

    def test_hidden_names(self) -> None:
        """What the caller may not see is not in it."""
        with self.opened_tar() as archive:
            self.assertNotIn("top/.hidden", archive.getnames())
        with self.opened_tar(tree=self.tree(hidden=True)) as archive:
            self.assertIn("top/.hidden", archive.getnames())

    def test_names_that_are_no_text(self) -> None:
        """Bytes that are not UTF-8 survive a tar; in a zip they are replaced, and no name is a path there."""
        name = os.fsdecode(b"bad\xff")
        (self.root / "top" / name).write_bytes(b"x")
        (self.root / "top" / "back\\slash").write_bytes(b"y")
        with self.opened_tar() as archive:
            self.assertIn(f"top/{name}", archive.getnames())
        with zipfile.ZipFile(io.BytesIO(self.made(TreeForm.ZIP))) as zipped:
            self.assertTrue({"top/bad\ufffd", "top/back_slash"} <= set(zipped.namelist()))

    def test_names_that_become_the_same(self) -> None:
        """In a zip the second of two names that would be the same is numbered; none that fits changes."""
        for name in (b"bad\xff", b"bad\xfe", b"a\\b", b"a_b"):
            (self.root / "top" / os.fsdecode(name)).write_bytes(name)
        with zipfile.ZipFile(io.BytesIO(self.made(TreeForm.ZIP))) as zipped:
            found = {
                name: zipped.read(f"top/{name}") for name in ("a_b", "a_b (2)", "bad\ufffd", "bad\ufffd (2)")
            }
            self.assertEqual(len(set(zipped.namelist())), len(zipped.infolist()))
        self.assertEqual(list(found.values()), [b"a_b", b"a\\b", b"bad\xfe", b"bad\xff"])

    def test_empty_directory(self) -> None:
        """A directory with nothing in it is a valid archive of nothing."""
        empty = Tree(self.jail, View(RelPath.parse("top")), RelPath.parse("hollow"), "hollow")
        with self.opened_tar(tree=empty) as archive:
            self.assertEqual(archive.getnames(), [])
        self.assertEqual(zipfile.ZipFile(io.BytesIO(self.made(TreeForm.ZIP, empty))).namelist(), [])

    def test_nothing_stays_open(self) -> None:
        """An archive that is given up in the middle leaves no descriptor."""
        before = set(os.listdir("/proc/self/fd"))
        for form in TreeForm:
            _, pieces = archived(self.tree(), form)
            next(pieces)
            pieces.close()
        self.assertEqual(set(os.listdir("/proc/self/fd")) - before, set())


class Fake:
    """Files that exist only as numbers: sizes and counts that no test disk has."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries

    def entries(self, view: View, path: RelPath) -> Iterator[Entry]:
        return iter(self._entries)

    def open(self, view: View, path: RelPath) -> Opened:
        raise AssertionError("only the length is asked for")

    def stat(self, view: View, path: RelPath) -> os.stat_result:
        raise AssertionError("only the length is asked for")

    lstat = stat


class LengthTests(TreeCase):
    """The promised length, where the numbers become large."""

    def test_members_beyond_four_gib(self) -> None:
        """The zip grows by the ZIP64 fields of a large member, and of those that begin behind it."""
        small = Entry("b", "file", 1, 0, 0o100644)
        plain, _ = archived(Tree(Fake([small]), View(), RelPath(), "t"), TreeForm.ZIP)
        large = Entry("a", "file", 5 << 30, 0, 0o100644)
        both, _ = archived(Tree(Fake([large, small]), View(), RelPath(), "t"), TreeForm.ZIP)
        assert plain is not None and both is not None
        fixed = 30 + 46 + 2 * len("t/a")
        # Large: 20 in its head, 24 behind it, 20 in the directory. Small: 12 for its offset. End: 56 + 20.
        self.assertEqual(both - plain, (5 << 30) + fixed + 20 + 24 + 20 + 12 + 76)

    def test_many_members(self) -> None:
        """Past 65,535 members the end of the zip has its ZIP64 record."""
        ends = []
        for count in (0xFFFE, 0xFFFF):
            entries = [Entry(f"{number:05}", "file", 0, 0, 0o100644) for number in range(count)]
            length, _ = archived(Tree(Fake(entries), View(), RelPath(), "t"), TreeForm.ZIP)
            assert length is not None
            ends.append(length - count * (30 + 16 + 46 + 2 * len("t/00000")))
        self.assertEqual(ends, [22, 22 + 56 + 20])

    def test_the_end_record(self) -> None:
        """The end says where the directory begins and how many members there are."""
        data = self.made(TreeForm.ZIP)
        _, _, _, _, count, size, offset, _ = struct.unpack("<4sHHHHLLH", data[-22:])
        self.assertEqual((offset + size, count), (len(data) - 22, len(self.expected())))


class ChangeTests(TreeCase):
    """A tree that does not hold still."""

    def broken(self, form: TreeForm, change: Any) -> bytes:
        """What came before the archive of a tree that changed under it broke."""
        _, pieces = archived(self.tree(), form)
        change()
        came: list[bytes] = []
        with self.assertRaises((ChangedWhileRead, OSError)):
            came.extend(pieces)
        return b"".join(came)

    def test_a_file_that_changed_its_size(self) -> None:
        """A file that grew, shrank or went away after the answer began breaks every form."""
        path = self.root / "top" / "sub" / "block"
        for change in (
            lambda: path.write_bytes(b"b" * 513),
            lambda: path.write_bytes(b""),
            lambda: path.unlink(),
        ):
            for form in TreeForm:
                path.write_bytes(b"b" * 512)
                self.broken(form, change)

    def test_a_file_more(self) -> None:
        """A file that came after the length was promised breaks it: nothing is sent past the length."""
        for form in SIZED:
            length, _ = archived(self.tree(), form)
            assert length is not None
            came = self.broken(form, (self.root / "top" / f"new-{form.value}").touch)
            self.assertLessEqual(len(came), length)

    def test_a_tree_that_is_another(self) -> None:
        """What came, went, or became no file after the answer began breaks every form before its end.

        So does what took the place of something as long as itself.
        """
        top = self.root / "top"

        def fifo() -> None:
            (top / "empty").unlink()
            os.mkfifo(top / "empty")

        def directory() -> None:
            (top / "empty").unlink()
            (top / "empty").mkdir()

        def file() -> None:
            empty = top / "empty"
            if empty.is_dir():
                empty.rmdir()
            else:
                empty.unlink()
            empty.touch()

        for change, undo in (
            (lambda: (top / "zz").rename(top / ".zz"), lambda: (top / ".zz").rename(top / "zz")),
            (lambda: (top / "zz").rename(top / "zy"), lambda: (top / "zy").rename(top / "zz")),
            ((top / "new").touch, (top / "new").unlink),
            ((top / "new").mkdir, (top / "new").rmdir),
            (fifo, file),
            (directory, file),
        ):
            for form in TreeForm:
                came = self.broken(form, change)
                undo()
                self.assertNotEqual(came[-8:], self.made(form)[-8:])

    def test_what_cannot_be_read(self) -> None:
        """A file that may not be opened breaks every form; none ends without it."""
        outer = self.jail

        class Refusing(Fake):
            def __init__(self) -> None:
                super().__init__([])

            def entries(self, view: View, path: RelPath) -> Iterator[Entry]:
                return outer.entries(view, path)

            def stat(self, view: View, path: RelPath) -> os.stat_result:
                return outer.stat(view, path)

            def open(self, view: View, path: RelPath) -> Opened:
                if path.name == "block":
                    raise PermissionError(13, "Permission denied")
                return outer.open(view, path)

        for form in TreeForm:
            _, pieces = archived(self.tree(Refusing()), form)
            with self.assertRaises(PermissionError):
                list(pieces)

    def test_what_lies_too_deep(self) -> None:
        """A tree deeper than any path is refused, before the first byte."""
        path = self.root / "top" / "/".join(["d"] * (MAX_DEPTH + 1))
        path.mkdir(parents=True)
        for form in TreeForm:
            with self.assertRaises(FileNameError):
                archived(self.tree(), form)
