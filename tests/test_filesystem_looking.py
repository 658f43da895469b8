"""fsspec's file system, what it says without changing anything: paths, URLs, listings, what is where."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import fsspec
from twisted.trial.unittest import SynchronousTestCase

from fileexport.client.remote.filesystem import FileExportFileSystem
from fileexport.errors import AuthenticationError, FileNameError
from tests.filesystem_case import MTIME, TOKEN, FileSystemCase

STRIPPED = (
    ("fileexport://host:1/a%20b/c", "/a b/c"),
    ("fileexport://host/a/", "/a"),
    ("fileexport://host", "/"),
    ("fileexport:///a%2520", "/a%20"),
    ("fileexport://host/%ff", "/\udcff"),
    ("fileexport://host/a?b#c", "/a?b#c"),
    ("/a%20b", "/a%20b"),
    ("/a//b/", "/a/b"),
    ("a/b", "/a/b"),
    ("", "/"),
    ("/", "/"),
)


class PathTests(SynchronousTestCase):
    """Paths and URLs."""

    def test_paths(self) -> None:
        """URLs are decoded, paths are not; what was stripped once stays what it is."""
        for given, path in STRIPPED:
            self.assertEqual(FileExportFileSystem._strip_protocol(given), path, given)
            self.assertEqual(FileExportFileSystem._strip_protocol(path), path, given)
        several = [given for given, _ in STRIPPED]
        self.assertEqual(FileExportFileSystem._strip_protocol(several), [path for _, path in STRIPPED])

    def test_bad_urls(self) -> None:
        """A URL with a user, or names that cannot be one, is refused, and what it says is not repeated."""
        error = self.assertRaises(
            ValueError, FileExportFileSystem._get_kwargs_from_urls, "fileexport://me:secret@host/a"
        )
        self.assertNotIn("secret", str(error))
        for path in ("/a/../b", "/a%2Fb", "/a%00b"):
            self.assertRaises(FileNameError, FileExportFileSystem._strip_protocol, f"fileexport://host{path}")

    def test_servers(self) -> None:
        """A URL gives host and port as far as it has them, a path none."""
        asked = FileExportFileSystem._get_kwargs_from_urls
        self.assertEqual(asked("fileexport://host:1/a"), {"hostname": "host", "port": 1})
        self.assertEqual(asked("fileexport://[::1]/a"), {"hostname": "::1"})
        self.assertEqual(asked("fileexport:///a"), {})
        self.assertEqual(asked("/a"), {})


class InstanceTests(FileSystemCase):
    """File systems as fsspec keeps and copies them."""

    def test_options(self) -> None:
        """An option that nobody knows is refused by its name, and fsspec's own are taken."""
        error = self.assertRaises(TypeError, self.made, public_kye="sha256/x")
        self.assertIn("public_kye", str(error))
        self.made(skip_instance_cache=True, use_listings_cache=False, asynchronous=False, max_paths=3)
        error = self.assertRaises(ValueError, FileExportFileSystem, "127.0.0.1", "x", token=TOKEN)
        self.assertNotIn("FILEEXPORT_PORT", str(error))

    def test_kept(self) -> None:
        """The same options give the same file system, others another one."""
        self.assertIs(self.made(), self.fs)
        self.assertIsNot(self.made(timeout=1000), self.fs)

    def test_url(self) -> None:
        """The URL of a path leads back to it, whatever its name."""
        for path in ("/a b/c*d?[e]", "/%20", "/\udcff", "/"):
            url = self.fs.unstrip_protocol(path)
            self.assertEqual(self.fs._strip_protocol(url), path)
            self.assertEqual(
                self.fs._get_kwargs_from_urls(url), {"hostname": "127.0.0.1", "port": self.server.port}
            )
            self.assertEqual(self.fs.unstrip_protocol(url), url)
        six = FileExportFileSystem("::1", 1, token=TOKEN)
        self.assertEqual(fsspec.url_to_fs(six.unstrip_protocol("/a"), token=TOKEN)[1], "/a")
        error = self.assertRaises(ValueError, fsspec.url_to_fs, "fileexport://[::1]/a", token=TOKEN)
        self.assertIn("IPv6", str(error))

    def test_without_secrets(self) -> None:
        """As JSON without passwords it has no token; with them it comes back as it was."""
        self.assertNotIn(TOKEN, self.fs.to_json(include_password=False))
        self.assertIn(TOKEN, self.fs.to_json())
        self.assertEqual(FileExportFileSystem.from_json(self.fs.to_json()), self.fs)
        self.assertEqual(json.loads(self.fs.to_json())["protocol"], "fileexport")

    def test_environment(self) -> None:
        """What no option says comes from the environment; a host that is named has no port of another."""
        bare = {name: value for name, value in os.environ.items() if not name.startswith("FILEEXPORT_")}
        self.patch(os, "environ", bare)
        error = self.assertRaises(ValueError, FileExportFileSystem, "localhost", self.server.port)
        self.assertIn("FILEEXPORT_TOKEN", str(error))
        self.put("a")
        given = {"FILEEXPORT_TOKEN": TOKEN, "FILEEXPORT_HOSTNAME": "127.0.0.1"}
        self.patch(os, "environ", {**bare, **given, "FILEEXPORT_PORT": str(self.server.port)})
        self.assertEqual(FileExportFileSystem(skip_instance_cache=True).ls("/", detail=False), ["/a"])
        self.assertEqual(
            FileExportFileSystem("localhost", skip_instance_cache=True).server, ("localhost", 6768)
        )


class InfoTests(FileSystemCase):
    """What is where."""

    def test_info(self) -> None:
        """A file, a directory and the root, with size, type and time."""
        self.put("d/f", content=b"12345")
        info = self.fs.info("/d/f")
        self.assertEqual(info["mtime"], MTIME / 10**9)
        self.assertEqual(
            (info["name"], info["size"], info["type"], info["mtime_ns"]), ("/d/f", 5, "file", MTIME)
        )
        self.assertEqual(self.fs.info(self.url("/d"))["type"], "directory")
        self.assertEqual(self.fs.info("/")["name"], "/")
        self.assertEqual(
            (self.fs.size("/d/f"), self.fs.modified("/d/f")), (5, datetime.fromtimestamp(MTIME / 10**9, UTC))
        )

    def test_absent(self) -> None:
        """What is not there, or cannot be, raises, and does not exist."""
        self.put("f")
        self.assertRaises(FileNotFoundError, self.fs.info, "/x")
        self.assertRaises(FileNotFoundError, self.fs.ls, "/x")
        self.assertRaises(NotADirectoryError, self.fs.info, "/f/x")
        for path in ("/x", "/f/x", "/a/../f", "/" + "n" * 300):
            self.assertFalse(self.fs.exists(path) or self.fs.lexists(path))
            self.assertFalse(self.fs.isfile(path) or self.fs.isdir(path))

    def test_links(self) -> None:
        """A link is what it leads to; one that leads nowhere remains a link, and does not exist."""
        self.put("d/f", content=b"12345")
        for name, target in (("file", "d/f"), ("dir", "d"), ("gone", "x"), ("out", "/etc")):
            (self.root / name).symlink_to(target)
        info = self.fs.info("/file")
        self.assertEqual(
            (info["name"], info["size"], info["type"], info["islink"]), ("/file", 5, "file", True)
        )
        self.assertEqual(
            [one["type"] for one in self.fs.ls("/")], ["directory", "link", "link", "link", "link"]
        )
        self.assertTrue(self.fs.isfile("/file") and self.fs.isdir("/dir"))
        self.assertEqual(self.fs.ls("/dir", detail=False), ["/dir/f"])
        for path in ("/gone", "/out"):
            self.assertEqual(self.fs.info(path)["type"], "link")
            self.assertEqual((self.fs.exists(path), self.fs.lexists(path)), (False, True))

    def test_errors_are_not_absence(self) -> None:
        """A wrong token, and a server that is gone, are exceptions where fsspec would see nothing there."""
        wrong = self.made(token="fex1_somebody-" + "else" * 10)
        self.assertRaises(AuthenticationError, wrong.exists, "/")
        gone = FileExportFileSystem("127.0.0.1", 1, token=TOKEN)
        for ask in (gone.exists, gone.isdir, gone.isfile, gone.find, gone.glob):
            self.assertRaises(ConnectionError, ask, "/*")

    def test_versions(self) -> None:
        """The key of a file changes with its time, its checksum with its content alone."""
        self.put("f")
        key, checksum = self.fs.ukey("/f"), self.fs.checksum("/f")
        os.utime(self.root / "f")
        self.assertNotEqual(self.fs.ukey("/f"), key)
        self.assertEqual(self.fs.checksum("/f"), checksum)
        self.put("f", content=b"other")
        self.assertNotEqual(self.fs.checksum("/f"), checksum)
        self.assertRaises(IsADirectoryError, self.fs.checksum, "/")
        # Nothing is hashed for that.
        self.patch(self.fs.client, "hashes", None)
        self.assertRaises(IsADirectoryError, self.fs.checksum, "/")


class ListingTests(FileSystemCase):
    """What lies below."""

    def setUp(self) -> None:
        super().setUp()
        self.put("b", "a", "d/x.csv", "d/e/y.csv", "d/e/z.txt")

    def test_ls(self) -> None:
        """A directory sorted, with infos or names; of a file itself."""
        self.assertEqual(self.fs.ls("/", detail=False), ["/a", "/b", "/d"])
        self.assertEqual(self.fs.ls("/d"), [self.fs.info("/d/e"), self.fs.info("/d/x.csv")])
        self.assertEqual(self.fs.ls("/a"), [self.fs.info("/a")])

    def test_find(self) -> None:
        """All files below a path, to a depth, with directories too, of a file itself, of nothing none."""
        self.assertEqual(self.fs.find("/d"), ["/d/e/y.csv", "/d/e/z.txt", "/d/x.csv"])
        self.assertEqual(self.fs.find("/", maxdepth=2), ["/a", "/b", "/d/x.csv"])
        self.assertEqual(self.fs.find("/d", maxdepth=1, withdirs=True), ["/d", "/d/e", "/d/x.csv"])
        self.assertEqual(self.fs.find("/d/e", detail=True)["/d/e/y.csv"], self.fs.info("/d/e/y.csv"))
        self.assertEqual((self.fs.find("/a"), self.fs.find("/x")), (["/a"], []))
        self.assertRaises(ValueError, self.fs.find, "/", maxdepth=0)

    def test_find_follows_no_links(self) -> None:
        """A link to a directory is one entry, at any depth."""
        (self.root / "d" / "loop").symlink_to("../d")
        for depth in (None, 5):
            self.assertEqual(len([one for one in self.fs.find("/d", maxdepth=depth) if "loop" in one]), 1)

    def test_one_listing(self) -> None:
        """What lies below is asked for at once, however many directories there are."""
        for number in range(100):
            self.put(f"many/{number}/f")
        before = self.fs.client.traffic[0]
        self.assertEqual(len(self.fs.find("/many")), 100)
        self.assertLess(self.fs.client.traffic[0] - before, 1000)

    def test_du(self) -> None:
        """Bytes together, or of each."""
        self.assertEqual(self.fs.du("/d"), len("d/x.csv" + "d/e/y.csv" + "d/e/z.txt"))
        self.assertEqual(self.fs.du("/d", total=False, maxdepth=1), {"/d/x.csv": 7})

    def test_glob(self) -> None:
        """Patterns within a name, and through directories."""
        self.assertEqual(self.fs.glob("/d/*.csv"), ["/d/x.csv"])
        self.assertEqual(self.fs.glob(self.url("/**/*.csv")), ["/d/e/y.csv", "/d/x.csv"])
        self.assertEqual(self.fs.glob("/?"), ["/a", "/b", "/d"])
        self.assertEqual((self.fs.glob("/a"), self.fs.glob("/x*")), (["/a"], []))

    def test_walk(self) -> None:
        """Directory by directory."""
        self.assertEqual(
            list(self.fs.walk("/d")), [("/d", ["e"], ["x.csv"]), ("/d/e", [], ["y.csv", "z.txt"])]
        )
