"""fsspec's file system, what it changes: directories, copies, contents, local files."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from typing import Any

import fsspec
from fsspec.callbacks import Callback

from fileexport.client.remote.reading import Flow
from fileexport.errors import DestinationNotFound
from fileexport.wire.messages import Read
from tests.filesystem_case import MTIME, READER, FileSystemCase

#: More than what travels among small files, and not the same anywhere.
LARGE = b"".join(number.to_bytes(4) for number in range(50_000))


class DirectoryTests(FileSystemCase):
    """Directories, and what goes."""

    def test_mkdir(self) -> None:
        """A new directory, its parents too where that is wished; one that is there raises."""
        self.fs.mkdir("/a/b")
        self.fs.mkdir(self.url("/a/c%20d/"), create_parents=False)
        self.assertEqual(self.below(), ["a", "a/b", "a/c d"])
        for path in ("/a", "/"):
            self.assertRaises(FileExistsError, self.fs.mkdir, path)
        self.assertRaises(DestinationNotFound, self.fs.mkdir, "/x/y", create_parents=False)

    def test_makedirs(self) -> None:
        """Parents are made; what is there may stay, unless it is a file."""
        self.put("f")
        self.fs.makedirs("/a/b/c")
        for path in ("/a/b/c", "/a/b", "/"):
            self.fs.makedirs(path, exist_ok=True)
            self.assertRaises(FileExistsError, self.fs.makedirs, path)
        error = self.assertRaises(FileExistsError, self.fs.makedirs, "/f", exist_ok=True)
        self.assertEqual(error.filename, "/f")
        self.assertRaises(OSError, self.fs.makedirs, "/f/g", exist_ok=True)

    def test_through_links(self) -> None:
        """A link to a directory is one, above what is made and at its end."""
        self.put("d/f")
        (self.root / "link").symlink_to("d")
        self.fs.mkdir("/link/a/b")
        self.fs.makedirs("/link/c/e", exist_ok=True)
        self.fs.makedirs("/link", exist_ok=True)
        self.fs.put_file(str(self.root / "d" / "f"), "/link/new/f")
        self.assertEqual(self.below(self.root / "d"), ["a", "a/b", "c", "c/e", "f", "new", "new/f"])

    def test_replaced(self) -> None:
        """What takes a place just before the removal stays: a directory that of a file, and back."""
        self.put("f")
        file, directory, stat = self.root / "f", self.root / "d", self.fs.client.stat
        directory.mkdir()

        def meanwhile(*acts: Callable[[], object]) -> None:
            def look(path: str) -> Any:
                self.fs.client.stat, found = stat, stat(path)
                for act in acts:
                    act()
                return found

            self.fs.client.stat = look

        meanwhile(directory.rmdir, lambda: self.put("d"))
        self.assertRaises(NotADirectoryError, self.fs.rmdir, "/d")
        meanwhile(file.unlink, file.mkdir)
        self.assertRaises(IsADirectoryError, self.fs.rm_file, "/f")
        self.assertEqual((self.held("d"), file.is_dir()), (b"d", True))

    def test_rmdir(self) -> None:
        """An empty directory goes; a full one, and a file, stay."""
        self.put("d/f")
        self.fs.mkdir("/e")
        self.fs.rmdir("/e")
        self.assertNotIsInstance(self.assertRaises(OSError, self.fs.rmdir, "/d"), IsADirectoryError)
        self.assertRaises(NotADirectoryError, self.fs.rmdir, "/d/f")
        self.assertRaises(FileNotFoundError, self.fs.rmdir, "/e")
        self.assertEqual(self.below(), ["d", "d/f"])

    def test_rm(self) -> None:
        """Files, many and by globs too; directories with all that is in them only where that is wished."""
        self.put("a", "b", "c1", "c2", "d/e/f")
        self.fs.rm_file("/a")
        self.assertRaises(IsADirectoryError, self.fs.rm_file, "/d")
        self.assertRaises(IsADirectoryError, self.fs.rm, "/d")
        self.fs.rm(["/b", self.url("/c*")])
        self.assertEqual(self.below(), ["d", "d/e", "d/e/f"])
        self.fs.rm(["/d", "/d/e"], recursive=True)
        self.assertEqual(self.below(), [])
        for recursive in (False, True):
            error = self.assertRaises(FileNotFoundError, self.fs.rm, "/d", recursive=recursive)
            self.assertEqual(error.filename, "/d")

    def test_rm_to_a_depth(self) -> None:
        """With a depth, what lies deeper stays, and so does the directory that it lies in."""
        self.put("d/a", "d/e/f")
        self.assertRaises(IsADirectoryError, self.fs.rm, "/d", recursive=True, maxdepth=1)
        self.assertEqual(self.below(), ["d", "d/e", "d/e/f"])

    def test_rm_of_a_link(self) -> None:
        """What a link leads to stays."""
        self.put("d/f")
        (self.root / "link").symlink_to("d")
        self.fs.rm("/link", recursive=True)
        self.assertEqual(self.below(), ["d", "d/f"])


class CopyTests(FileSystemCase):
    """Copies and moves, within the server."""

    def test_cp(self) -> None:
        """A copy has content, time and permissions, replaces what is there, and does not travel."""
        self.put("f", content=LARGE)
        self.put("g")
        (self.root / "f").chmod(0o750)
        before = sum(self.fs.client.traffic)
        self.fs.cp_file("/f", "/g")
        self.assertLess(sum(self.fs.client.traffic) - before, len(LARGE) // 2)
        found = (self.root / "g").stat()
        self.assertEqual((self.held("g"), found.st_mtime_ns, found.st_mode & 0o777), (LARGE, MTIME, 0o750))
        self.put("empty", content=b"")
        self.fs.cp_file("/empty", "/g")
        self.assertEqual(self.held("g"), b"")

    def test_cp_of_a_tree(self) -> None:
        """A directory with all that is in it, an empty one too."""
        self.put("d/e/f", "d/g")
        (self.root / "d" / "empty").mkdir()
        self.fs.cp("/d", "/copy", recursive=True)
        self.assertEqual(self.below(self.root / "copy"), self.below(self.root / "d"))

    def test_cp_to_nowhere(self) -> None:
        """A directory that is missing is made with `auto_mkdir` only; a source that is missing raises."""
        self.put("f")
        self.assertRaises(DestinationNotFound, self.fs.cp_file, "/f", "/x/y/f")
        self.made(auto_mkdir=True).cp_file("/f", "/x/y/f")
        self.assertEqual(self.held("x/y/f"), b"f")
        self.assertRaises(FileNotFoundError, self.fs.cp_file, "/nothing", "/g")
        self.assertRaises(IsADirectoryError, self.fs.cp_file, "/f", "/x")

    def test_mv(self) -> None:
        """Another name, for directories too; a file there is replaced, into a directory it goes."""
        self.put("f", "g", "d/e")
        self.fs.mv("/f", "/g")
        self.assertEqual(self.held("g"), b"f")
        self.fs.mv("/g", "/d")
        self.fs.mv("/d", "/x")
        self.fs.mv("/x", "/x")
        self.assertEqual(self.below(), ["x", "x/e", "x/g"])
        self.fs.mv(["/x/e", "/x/g"], ["/e", self.url("/g")])
        self.assertRaises(FileNotFoundError, self.fs.mv, "/nothing", "/x")
        self.assertRaises(DestinationNotFound, self.fs.mv, "/e", "/new/e")
        self.made(auto_mkdir=True).mv("/e", "/new/")
        self.assertEqual(self.below(), ["g", "new", "new/e", "x"])

    def test_mv_of_several(self) -> None:
        """Several go into a directory, and so does what is in one; no glob is expanded."""
        self.put("a1", "a2", "b")
        self.fs.mkdir("/d")
        self.fs.mv(["/a1", "/a2"], "/d")
        self.assertRaises(FileNotFoundError, self.fs.mv, "/b*", "/d")
        self.assertRaises(FileNotFoundError, self.fs.mv, "/b*/", "/d", recursive=True)
        self.assertEqual(self.below(), ["b", "d", "d/a1", "d/a2"])
        self.fs.mv("/d/", "/e", recursive=True)
        self.assertEqual(self.below(), ["b", "e", "e/a1", "e/a2"])


class OddNameTests(FileSystemCase):
    """Names that fsspec would take for patterns."""

    def setUp(self) -> None:
        super().setUp()
        self.put("a[1]", "a1", "b*", "bb", "c?", "cc", "d[1]/x", "d1/precious")
        self.all = self.below()

    def gone(self, *names: str) -> None:
        """These are gone, and nothing else; they come back."""
        self.assertEqual(self.below(), [one for one in self.all if one not in names])
        self.put(*(one for one in names if one != "d[1]"))

    def test_rm(self) -> None:
        """What is there as it is written goes, and nothing that it would name as a pattern."""
        for name in ("a[1]", "b*", "c?"):
            for remove in (self.fs.rm, self.fs.delete, self.fs.rm_file):
                remove(f"/{name}")
                self.gone(name)
        self.fs.rm("/d[1]", recursive=True)
        self.gone("d[1]", "d[1]/x")
        self.fs.rm(["/d[1]", "/a[1]", "/b?"], recursive=True)
        self.gone("d[1]", "d[1]/x", "a[1]", "b*", "bb")
        self.fs.rm(["/b*", "/none*"])
        self.gone("b*")
        self.assertRaises(FileNotFoundError, self.fs.rm, ["/n[1]", "/none*"])

    def test_mv(self) -> None:
        """So do moves."""
        for move in (self.fs.mv, self.fs.move):
            move("/a[1]", "/new")
            self.assertEqual(self.held("new"), b"a[1]")
            (self.root / "new").unlink()
            self.gone("a[1]")
            move("/d[1]/", "/new", recursive=True)
            self.assertEqual(self.held("new/x"), b"d[1]/x")
            self.fs.rm("/new", recursive=True)
            self.gone("d[1]", "d[1]/x")

    def test_contents(self) -> None:
        """So do what is read, copied and fetched."""
        self.assertEqual(self.fs.cat("/a[1]"), b"a[1]")
        self.assertEqual(self.fs.cat("/d[1]", recursive=True), {"/d[1]/x": b"d[1]/x"})
        self.assertEqual(self.fs.expand_path("/c?"), ["/c?"])
        self.assertEqual(self.fs.expand_path("/[bc]?"), ["/b*", "/bb", "/c?", "/cc"])
        self.fs.cp("/a[1]", "/new")
        self.fs.cp("/a[1]", self.url("/d1/"))
        self.fs.cp("/d[1]", "/copy", recursive=True)
        self.assertEqual(
            (self.held("new"), self.held("d1/a[1]"), self.held("copy/x")), (b"a[1]",) * 2 + (b"d[1]/x",)
        )
        self.fs.get("/a[1]", str(self.here / "new"))
        self.fs.get("/d[1]", str(self.here), recursive=True)
        self.assertEqual(self.below(self.here), ["d[1]", "d[1]/x", "new"])


class ContentTests(FileSystemCase):
    """Contents."""

    def test_cat_file(self) -> None:
        """The whole, and the parts that slices name."""
        self.put("f", content=LARGE)
        self.assertEqual(self.fs.cat_file("/f"), LARGE)
        for start, end in (
            (0, 10),
            (1000, None),
            (None, 5),
            (-7, None),
            (5, -5),
            (10, 5),
            (0, 1 << 40),
            (0, -1),
        ):
            self.assertEqual(self.fs.cat_file("/f", start, end), LARGE[start:end], (start, end))
        self.assertEqual(self.fs.cat_ranges(["/f", "/f"], [0, 9], [4, 12]), [LARGE[:4], LARGE[9:12]])
        self.assertEqual((self.fs.head("/f", 3), self.fs.tail("/f", 3)), (LARGE[:3], LARGE[-3:]))
        self.assertEqual(self.fs.read_block("/f", 8, 4), LARGE[8:12])
        self.assertRaises(IsADirectoryError, self.fs.cat_file, "/")

    def test_parts_only(self) -> None:
        """What is read in part, or only looked at to be copied, is not fetched beside that."""
        self.put("f", content=LARGE)
        asked: list[int | None] = []
        was = Flow._run

        def run(flow: Flow, pool: Any, read: Read, *others: Any) -> Any:
            asked.append(read.length)
            return was(flow, pool, read, *others)

        self.patch(Flow, "_run", run)
        self.fs.cat_file("/f", 70_000, 70_100)
        self.fs.cat_file("/f", -5)
        self.fs.cp_file("/f", "/g")
        self.assertEqual((asked, self.held("g")), ([0, 100, 0, 5, 0], LARGE))

    def test_cat(self) -> None:
        """One file gives its content; several, a glob, or a directory give those of each, large ones too."""
        self.put("d/a", "d/e/b")
        self.put("d/large", content=LARGE)
        self.assertEqual(self.fs.cat(self.url("/d/a")), b"d/a")
        found = {"/d/a": b"d/a", "/d/e/b": b"d/e/b", "/d/large": LARGE}
        self.assertEqual(self.fs.cat("/d", recursive=True), found)
        self.assertEqual(self.fs.cat(list(found)), found)
        self.assertEqual(self.fs.cat("/d/l*"), {"/d/large": LARGE})
        self.assertEqual(
            self.fs.cat(["/d/a", "/d/large"], start=1, end=3), {"/d/a": b"/a", "/d/large": LARGE[1:3]}
        )

    def test_cat_errors(self) -> None:
        """What cannot be read raises, is left out, or stands in the place of its content."""
        self.put("a")
        error = self.assertRaises(FileNotFoundError, self.fs.cat, ["/a", "/x"])
        self.assertEqual(error.filename, "/x")
        self.assertEqual(self.fs.cat(["/a", "/x"], on_error="omit"), {"/a": b"a"})
        found = self.fs.cat(["/a", "/x"], on_error="return")
        self.assertEqual(found["/a"], b"a")
        self.assertIsInstance(found["/x"], FileNotFoundError)
        self.assertRaises(IsADirectoryError, self.fs.cat, ["/a", "/"])

    def test_pipe(self) -> None:
        """Content is put there, small and large, in the place of what is there unless it is to be new."""
        for content in (b"", b"some", LARGE):
            self.fs.pipe_file("/f", content)
            self.assertEqual(self.held("f"), content)
        self.fs.pipe({"/g": b"1", self.url("/h%20i"): b"2"})
        self.assertEqual((self.held("g"), self.held("h i")), (b"1", b"2"))
        self.assertRaises(FileExistsError, self.fs.pipe_file, "/f", b"new", mode="create")
        self.assertEqual(self.held("f"), LARGE)
        self.fs.pipe_file("/n", memoryview(b"new"), mode="create")
        self.assertEqual(self.held("n"), b"new")

    def test_auto_mkdir(self) -> None:
        """Directories above what is written are made where that is wished, and not otherwise."""
        for fill in (b"small", LARGE):
            self.assertRaises(FileNotFoundError, self.fs.pipe_file, "/x/y/f", fill)
        self.assertRaises(FileNotFoundError, self.fs.open, "/x/y/f", "wb")
        making = self.made(auto_mkdir=True)
        making.pipe_file("/x/y/f", b"small")
        making.pipe_file("/z/f", LARGE)
        making.touch("/t/f")
        self.assertEqual(self.below(), ["t", "t/f", "x", "x/y", "x/y/f", "z", "z/f"])

    def test_touch(self) -> None:
        """A file becomes empty, or keeps its content and gets the time of now; a missing one is made."""
        self.put("f", "g")
        self.fs.touch("/f")
        self.fs.touch("/g", truncate=False)
        self.fs.touch("/new", truncate=False)
        self.assertEqual((self.held("f"), self.held("g"), self.held("new")), (b"", b"g", b""))
        self.assertGreater((self.root / "g").stat().st_mtime_ns, MTIME)
        self.assertRaises(FileNotFoundError, self.fs.touch, "/x/y", truncate=False)

    def test_rights(self) -> None:
        """A token that may only read changes nothing."""
        self.put("f")
        reader = self.made(token=READER)
        self.assertEqual(reader.cat("/f"), b"f")
        for change in (reader.touch, reader.mkdir, reader.rm, lambda path: reader.open(path, "wb").close()):
            self.assertRaises(PermissionError, change, "/f")
        self.assertEqual(self.held("f"), b"f")

    def test_mapping(self) -> None:
        """As a mapping it holds files by their paths."""
        store = self.fs.get_mapper("/store", create=True)
        store["a"] = b"1"
        store.setitems({"b": b"2", "c": LARGE})
        self.assertEqual(store.getitems(["a", "b", "c"]), {"a": b"1", "b": b"2", "c": LARGE})
        del store["a"]
        self.assertEqual((sorted(store), "a" in store), (["b", "c"], False))


class OpenTests(FileSystemCase):
    """Files that are opened; see also `test_filesystem_files`."""

    def test_modes(self) -> None:
        """Text and bytes are read and written; what cannot be says so."""
        with self.fs.open("/f", "w", encoding="utf-16", newline="\r\n") as file:
            file.write("ä\n")
        self.assertEqual(self.held("f"), "ä\r\n".encode("utf-16"))
        with self.fs.open(self.url("/f"), "r", encoding="utf-16") as file:
            self.assertEqual(file.readlines(), ["ä\n"])
        with self.fs.open("/n", "xb") as file:
            file.write(b"1")
        self.assertRaises(FileExistsError, self.fs.open, "/n", "x")
        for mode in ("ab", "r+b", "a"):
            self.assertRaises(io.UnsupportedOperation, self.fs.open, "/f", mode)
        self.fs.write_text("/t", "ö", encoding="utf-8")
        self.assertEqual(self.fs.read_text("/t", encoding="utf-8"), "ö")

    def test_compression(self) -> None:
        """What is packed on its way is committed when it is closed, and read again."""
        for mode, content in (("wb", b"some"), ("wt", "some")):
            file = self.fs.open("/f.gz", mode, compression="infer")
            file.write(content)
            file.close()
            self.assertEqual(gzip.decompress(self.held("f.gz")), b"some")
        with self.fs.open("/f.gz", "rt", compression="gzip") as file:
            self.assertEqual(file.read(), "some")

    def test_exceptions(self) -> None:
        """An exception in the block leaves what was there, for bytes, text, and what is packed."""
        self.put("f", content=b"old")
        ways: tuple[tuple[str, str | None, Any], ...] = (
            ("wb", None, b"new"),
            ("w", None, "new"),
            ("wb", "gzip", b"new"),
            ("wt", "bz2", "new"),
        )
        for mode, compression, content in ways:
            with (
                self.assertRaises(ZeroDivisionError),
                self.fs.open("/f", mode, compression=compression) as file,
            ):
                file.write(content)
                raise ZeroDivisionError
            self.assertTrue(file.closed)
            self.assertEqual(self.held("f"), b"old", mode)

    def test_by_url(self) -> None:
        """`fsspec.open` finds the server in the URL, and the directories above what it writes are made."""
        with fsspec.open(self.url("/a%20b/f.txt.gz"), "w", compression="infer", **self.options) as file:
            file.write("some")
        self.assertEqual(gzip.decompress(self.held("a b/f.txt.gz")), b"some")
        with fsspec.open(self.url("/a%20b/f.txt.gz"), "r", compression="infer", **self.options) as file:
            self.assertEqual(file.read(), "some")
        files = fsspec.open_files(self.url("/a%20b/*"), "rb", **self.options)
        self.assertEqual([one.path for one in files], ["/a b/f.txt.gz"])

    def test_inside_an_archive(self) -> None:
        """A file of an archive there is read by a chain of URLs."""
        local = fsspec.filesystem("zip", fo=str(self.root / "a.zip"), mode="w")
        local.pipe("in.txt", b"some")
        local.close()
        with fsspec.open(f"zip://in.txt::{self.url('/a.zip')}", "rb", fileexport=self.options) as file:
            self.assertEqual(file.read(), b"some")


class TransferTests(FileSystemCase):
    """Files of this machine."""

    def test_put_and_get(self) -> None:
        """A file comes and goes with its time, its directory is made, and a callback sees how far it is."""
        (self.here / "f").write_bytes(LARGE)
        os.utime(self.here / "f", ns=(MTIME, MTIME))
        put, got = Callback(), Callback()
        self.fs.put_file(str(self.here / "f"), "/x/y/f", callback=put)
        self.fs.get_file("/x/y/f", str(self.here / "a" / "b"), callback=got)
        self.assertEqual((self.held("x/y/f"), (self.here / "a" / "b").read_bytes()), (LARGE, LARGE))
        self.assertEqual((self.here / "a" / "b").stat().st_mtime_ns, MTIME)
        for callback in (put, got):
            self.assertEqual((callback.value, callback.size), (len(LARGE), len(LARGE)))

    def test_callbacks(self) -> None:
        """Files that travel at once are told of too, empty ones as well."""
        for content in (b"", b"some"):
            (self.here / "f").write_bytes(content)
            put, got = Callback(), Callback()
            self.fs.put_file(str(self.here / "f"), "/f", callback=put)
            self.fs.get_file("/f", str(self.here / "f"), callback=got)
            for callback in (put, got):
                self.assertEqual((callback.value, callback.size), (len(content), len(content)))

    def test_create(self) -> None:
        """What is to be new does not replace anything, by default it does."""
        self.put("f", content=b"old")
        (self.here / "f").write_bytes(b"new")
        with self.assertRaises(FileExistsError):
            self.fs.put_file(str(self.here / "f"), "/f", mode="create")
        self.assertEqual(self.held("f"), b"old")
        self.fs.put_file(str(self.here / "f"), "/f")
        self.assertEqual(self.held("f"), b"new")

    def test_open_file(self) -> None:
        """A file is fetched into one that is open."""
        self.put("f")
        target = io.BytesIO()
        self.fs.get_file("/f", target)
        self.assertEqual(target.getvalue(), b"f")

    def test_trees(self) -> None:
        """Directories each way, empty ones too."""
        (self.here / "d" / "empty").mkdir(parents=True)
        (self.here / "d" / "f").write_bytes(b"f")
        self.fs.put(str(self.here / "d"), "/e", recursive=True)
        self.assertEqual(self.below(), ["e", "e/empty", "e/f"])
        self.fs.get("/e", str(self.here / "back"), recursive=True)
        self.assertEqual(self.below(self.here / "back"), ["empty", "f"])

    def test_missing(self) -> None:
        """What is missing raises, and nothing is left here."""
        self.assertRaises(FileNotFoundError, self.fs.get_file, "/x", str(self.here / "x"))
        self.assertRaises(FileNotFoundError, self.fs.put_file, str(self.here / "x"), "/d/x")
        self.assertEqual((self.below(), self.below(self.here)), ([], []))
