"""The path of universal-pathlib."""

from __future__ import annotations

import os
import pickle
from typing import Any

from upath import UPath
from upath.registry import register_implementation

from fileexport.client.remote.filesystem_path import FileExportPath
from fileexport.testing import serving
from tests.filesystem_case import MTIME, TOKEN, FileSystemCase

NAMES = ("a b", "100%25", "q?#", "[x]", "ä", "\udcff")


class UPathTests(FileSystemCase):
    """`UPath` of a URL."""

    def setUp(self) -> None:
        super().setUp()
        # As the installed package's entry point does.
        register_implementation("fileexport", FileExportPath, clobber=True)

    def path(self, text: str = "/") -> Any:
        """A path of a URL that is spelled like this."""
        return UPath(self.url(text), **self.options)

    def test_urls(self) -> None:
        """A URL gives a path, and the path its URL, whatever the name; so does a pickle."""
        for name in NAMES:
            path = self.path() / name / "x"
            self.assertIsInstance(path, FileExportPath)
            self.assertEqual(path.path, f"/{name}/x")
            for again in (UPath(str(path), **self.options), pickle.loads(pickle.dumps(path))):
                self.assertEqual((again, again.path, hash(again)), (path, path.path, hash(path)))
            self.assertEqual((path.as_uri(), path.parent.name), (str(path), name))
        self.assertEqual(str(self.path("/a%20b") / "c"), self.url("/a%20b/c"))
        self.assertEqual(str(UPath("/a b", protocol="fileexport", token="fex1_token")), "fileexport:///a%20b")
        six = UPath("/", protocol="fileexport", hostname="::1", token="fex1_token")
        self.assertEqual(str(six), "fileexport://[0000:0000:0000:0000:0000:0000:0000:0001]:6768/")
        self.assertEqual(UPath(str(six), token="fex1_token").fs.server[1], 6768)
        self.assertEqual(str(self.path("/a/b").relative_to(self.path("/a"))), "b")

    def test_looking(self) -> None:
        """Directories are listed, searched and walked, and files know what they are."""
        self.put("d/x.csv", "d/e/y.csv", "d/e/z")
        (self.root / "link").symlink_to("d/x.csv")
        top = self.path("/d")
        self.assertEqual(sorted(one.path for one in top.iterdir()), ["/d/e", "/d/x.csv"])
        self.assertEqual([one.path for one in top.glob("*.csv")], ["/d/x.csv"])
        self.assertEqual(sorted(one.path for one in top.rglob("*.csv")), ["/d/e/y.csv", "/d/x.csv"])
        self.assertEqual([(one.path, *rest) for one, *rest in top.walk()][1], ("/d/e", [], ["y.csv", "z"]))
        self.assertEqual((top / "x.csv").stat().st_size, 7)
        self.assertTrue(top.is_dir() and (top / "x.csv").is_file() and self.path("/link").is_symlink())
        self.assertFalse((top / "no").exists())

    def test_contents(self) -> None:
        """Text and bytes are written and read; an exception leaves what was there."""
        path = self.path("/f")
        path.write_text("some", encoding="utf-8")
        self.assertEqual((path.read_text(encoding="utf-8"), path.read_bytes()), ("some", b"some"))
        with self.assertRaises(ZeroDivisionError), path.open("w") as file:
            file.write("new")
            raise ZeroDivisionError
        self.assertEqual(self.held("f"), b"some")
        path.touch()
        self.assertRaises(FileExistsError, path.touch, exist_ok=False)

    def test_glob_below_odd_names(self) -> None:
        """The name of the path itself is no pattern."""
        top = self.path()
        self.put("d[1]/x", "d1/precious")
        self.assertEqual([one.path for one in (top / "d[1]").glob("*")], ["/d[1]/x"])
        self.assertEqual([one.path for one in (top / "d[1]").rglob("x")], ["/d[1]/x"])

    def test_changing(self) -> None:
        """What removes and renames does as in pathlib: no tree goes unasked, nothing into a directory."""
        self.put("d/e/f", "g")
        top = self.path()
        self.assertRaises(OSError, (top / "d").rmdir)
        self.assertRaises(IsADirectoryError, (top / "d" / "e").unlink)
        self.assertRaises(OSError, (top / "g").rename, top / "d")
        self.assertRaises(NotADirectoryError, (top / "g").rmdir)
        self.assertEqual((top / "g").replace(top / "d" / "e" / "f"), top / "d" / "e" / "f")
        self.assertEqual(self.held("d/e/f"), b"g")
        self.assertEqual((top / "d" / "e" / "f").rename("/h").path, "/h")
        self.assertEqual((top / "h").rename(self.url("/i%20j")).path, "/i j")
        self.assertRaises(NotImplementedError, (top / "i j").rename, "k")
        (top / "i j").unlink()
        (top / "i j").unlink(missing_ok=True)
        self.assertRaises(FileNotFoundError, (top / "i j").unlink)
        (top / "d" / "e").rmdir()
        (top / "x" / "y").mkdir(parents=True)
        (top / "x").rmdir(recursive=True)
        self.assertEqual(self.below(), ["d"])

    def test_odd_names(self) -> None:
        """What stands in a name is no pattern: nothing else goes."""
        for number, name in enumerate(("[x]", "*", "?")):
            self.put(f"{name}/f", "x/f", f"{name}.txt", "x.txt", content=b"odd")
            here = self.path() / name
            self.assertEqual(here.move(self.path("/m")).path, "/m")
            self.path("/m").move_into(self.path("/x"))
            here.with_name(f"{name}.txt").move(self.url(f"/moved{number}"))
            self.put(f"{name}/f")
            here.rmdir(recursive=True)
            self.assertEqual(self.held("x/m/f"), b"odd")
            self.path("/x/m").rmdir(recursive=True)
        # It is the same file, no copy of it.
        self.assertEqual((self.root / "moved0").stat().st_mtime_ns, MTIME)
        moved = [f"moved{number}" for number in range(3)]
        self.assertEqual(self.below(), [*moved, "x", "x.txt", "x/f"])

    def test_move_away(self) -> None:
        """What is moved to elsewhere is there, and no more here."""
        self.put("*/f", "x/f")
        self.path("/*").move(UPath(self.here / "to"))
        self.assertEqual((self.here / "to" / "f").read_bytes(), b"*/f")
        self.assertEqual(self.below(), ["x", "x/f"])
        error = self.assertRaises(FileNotFoundError, self.path("/x").move, UPath(self.here / "no" / "to"))
        self.assertEqual((error.filename, self.below()), (str(self.here / "no" / "to"), ["x", "x/f"]))

    def test_links_stay(self) -> None:
        """A link is no directory to be removed; it is moved as a link."""
        self.put("d/f")
        (self.root / "link").symlink_to("d")
        self.assertRaises(NotADirectoryError, self.path("/link").rmdir, recursive=True)
        self.path("/link").move(self.path("/other"))
        self.assertTrue((self.root / "other").is_symlink())
        self.path("/link2").mkdir(parents=True)
        self.assertEqual(self.below(), ["d", "d/f", "link2", "other"])

    def test_touch(self) -> None:
        """A file that came meanwhile keeps what it has, and a link that leads nowhere is left alone."""
        self.put("f")
        (self.root / "broken").symlink_to("nothing")
        # As if it had come after the question.
        self.path("/f").fs.exists = lambda path, **kwargs: False
        self.addCleanup(vars(self.path("/f").fs).pop, "exists")
        self.path("/f").touch()
        self.assertEqual(self.held("f"), b"f")
        self.assertGreater((self.root / "f").stat().st_mtime_ns, MTIME)
        self.assertRaises(FileExistsError, self.path("/f").touch, exist_ok=False)
        self.assertRaises(OSError, self.path("/broken").touch)
        self.assertTrue((self.root / "broken").is_symlink())
        self.assertRaises(FileNotFoundError, self.path("/a/b").touch)
        UPath(self.url("/a/b"), **self.options, auto_mkdir=True).touch(0o600)
        self.assertEqual((self.root / "a" / "b").stat().st_mode & 0o777, 0o600)


class OtherServerTests(FileSystemCase):
    """Paths of two servers."""

    def setUp(self) -> None:
        super().setUp()
        register_implementation("fileexport", FileExportPath, clobber=True)
        self.far = self.here / "far"
        self.far.mkdir()
        self.other = self.enterContext(serving(self.far, token=TOKEN))
        self.put("x", "y")
        (self.far / "y").write_text("far")

    def path(self, text: str) -> Any:
        """A path of the first."""
        return UPath(self.url(text), **self.options)

    def test_refused(self) -> None:
        """A path, or a URL, of another server is none of this: nothing is renamed, copied or joined."""
        url = f"fileexport://127.0.0.1:{self.other.port}/y"
        for target in (url, UPath(url, **self.options), url.replace("127.0.0.1", "localhost")):
            for act in (self.path("/x").rename, self.path("/x").replace, self.path("/x").joinpath):
                self.assertRaises(ValueError, act, target)
        for act in (self.path("/x").copy, self.path("/x").move, self.path("/x").copy_into):
            self.assertRaises(ValueError, act, url)
        self.assertRaises(ValueError, self.path("/x").rename, UPath(self.here / "y"))
        self.assertRaises(ValueError, self.path("/x").rename, "fileexport://127.0.0.1/y")
        self.assertRaises(ValueError, self.path("/x").rename, "fileexport://:6768/y")
        self.assertRaises(TypeError, self.path("/x").rename, self.fs.client.path("/y"))
        self.assertEqual((self.below(), self.held("y")), (["x", "y"], b"y"))
        self.assertEqual((self.far / "y").read_text(), "far")

    def test_same(self) -> None:
        """One server has several spellings, and what a URL leaves out is the same."""
        self.patch(os, "environ", os.environ | self.server.environment)
        here = UPath("fileexport:///y", token=TOKEN)
        self.assertEqual(self.path("/x").rename(here), here)
        self.assertEqual(here.rename("fileexport:///z").path, "/z")
        self.assertEqual(self.path("/z").rename(f"fileexport://:{self.server.port}/x").path, "/x")
        self.assertEqual(self.path("/x").rename("/x").path, "/x")
        self.assertEqual((self.below(), self.held("x")), (["x"], b"x"))

    def test_move(self) -> None:
        """A tree is moved from one server to another."""
        self.put("d/e/f", "d/g")
        there = UPath(f"fileexport://127.0.0.1:{self.other.port}/d", **self.options)
        self.assertEqual(self.path("/d").move(there), there)
        self.assertEqual(
            (self.below(), self.below(self.far)), (["x", "y"], ["d", "d/e", "d/e/f", "d/g", "y"])
        )
