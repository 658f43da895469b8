"""The path of universal-pathlib."""

from __future__ import annotations

import pickle
from typing import Any

from upath import UPath
from upath.registry import register_implementation

from fileexport.client.remote.filesystem_path import FileExportPath
from tests.filesystem_case import FileSystemCase

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
