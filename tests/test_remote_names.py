"""What remote paths are called, which server they are of, and how long they keep its client."""

from __future__ import annotations

import copy
import gc
import operator
import os
import pickle
import threading
import weakref
from collections.abc import Callable
from pathlib import PurePosixPath

from twisted.trial.unittest import SynchronousTestCase

from fileexport import Client, FileNameError, RemotePath
from fileexport.client.remote.names import read_place, url_of
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from tests.client_server import TOKEN, Peer, ServerCase
from tests.odd_names import ODD_NAMES

PATHS = ("/", "/a", "/a/b.tar.gz", "/a/b/.hidden", "//a//b/./c/", "/a/../b", "/caf\udce9/x.", "/a\nb")
#: What a path says of itself as `PurePosixPath` does.
SAID: tuple[Callable[[PurePosixPath], object], ...] = (
    *(str, lambda path: path.parts, lambda path: path.name, lambda path: path.stem),
    *(lambda path: path.suffix, lambda path: path.suffixes, lambda path: path.as_posix()),
    *(lambda path: str(path.parent), lambda path: [str(one) for one in path.parents]),
    *(lambda path: (path.root, path.anchor, path.drive), lambda path: path.is_absolute()),
    *(lambda path: str(path / "x" / "y/z"), lambda path: str(path / "/x"), lambda path: str(path.joinpath())),
    *(lambda path: str(path.joinpath("a", PurePosixPath("b"))), lambda path: path.match("*.gz")),
    *(lambda path: str(path.relative_to("/")), lambda path: path.is_relative_to("/a")),
    *(lambda path: str((path / "n.a").with_name("m")), lambda path: str((path / "n.a").with_stem("m"))),
    lambda path: str((path / "n.a").with_suffix(".b")),
)
URLS = (
    ("fileexport://host:1/a/b", ("host", 1, "/a/b")),
    ("FileExport://host/", ("host", None, "/")),
    ("fileexport://host", ("host", None, "/")),
    ("fileexport://host:/a", ("host", None, "/a")),
    ("fileexport:///a//b/", (None, None, "/a/b")),
    ("fileexport://:7/a", (None, 7, "/a")),
    ("fileexport://[::1]:7/a", ("::1", 7, "/a")),
    ("fileexport://h/%2520%FF%C3%A9\xe9?a=b#c@d:e", ("h", None, "/%20\udcff\xe9\xe9?a=b#c@d:e")),
    ("/plain/%20?x", (None, None, "/plain/%20?x")),
)
NO_URLS = (
    *("", "a", "a/b", "fileexport:/a", "file:///a", "fileexport://user@host/a", "fileexport://u:p@host/"),
    *("fileexport://host:0/", "fileexport://host:65536/", "fileexport://host:x/", "fileexport://a:1:2/"),
    *("fileexport://[::1/a", "fileexport://::1/a", "fileexport://host?x/a", "fileexport://a b/"),
)


class NameTests(SynchronousTestCase):
    """What needs no server."""

    def setUp(self) -> None:
        self.client = Client("localhost", 7, TOKEN)
        self.other = Client("localhost", 8, TOKEN)

    def test_pure(self) -> None:
        """Paths say of themselves what paths of pathlib do."""
        for text in PATHS:
            local = PurePosixPath(text.replace("//", "/"))
            for say in SAID:
                remote = RemotePath(text, client=self.client)
                self.assertEqual(say(remote), say(local), text)  # type: ignore[arg-type]  # it has the same names

    def test_wrong_names(self) -> None:
        """What pathlib refuses is refused."""
        path = RemotePath("/a", client=self.client)
        for act in (
            lambda: path.with_name("a/b"),
            lambda: path.with_suffix("b"),
            lambda: (path / "/").with_name("a"),
            lambda: path.relative_to("/b"),
            lambda: path.relative_to(RemotePath("/", client=self.other)),
            lambda: path / RemotePath("/", client=self.other),
        ):
            self.assertRaises(ValueError, act)
        self.assertRaises(TypeError, os.fspath, path)
        self.assertRaises(TypeError, open, path)

    def test_urls(self) -> None:
        """URLs name host, port and path; users, and what is none, are refused."""
        for text, place in URLS:
            self.assertEqual(read_place(text), place, text)
        for text in NO_URLS:
            self.assertRaises(ValueError, RemotePath, text)
        self.assertRaises(FileNameError, RemotePath, "fileexport://host/a%2Fb")
        self.assertRaises(FileNameError, RemotePath, "fileexport://host/../b")

    def test_secrets(self) -> None:
        """What stands where a server should be may be a token: no error shows it."""
        for text in ("//h:{}/a", "//{}@h/a", "//u:{}@h/a", "//{} x/a", "/{}@h/a", "{}@h/a"):
            wrong = f"fileexport:{text.format(TOKEN)}"
            for act in (RemotePath, self.client.path, self.client.path("/a").rename):
                self.assertNotIn(TOKEN, str(self.assertRaises(ValueError, act, wrong)), text)
        self.assertIn("'a/b'", str(self.assertRaises(ValueError, RemotePath, "a/b")))

    def test_uri(self) -> None:
        """Every name comes back from the URL of its path."""
        for name in ODD_NAMES:
            path = RemotePath("/x", client=self.client) / name
            self.assertTrue(path.as_uri().startswith("fileexport://localhost:7/x/"), name)
            self.assertTrue(path.as_uri().isascii() and path.as_uri().isprintable(), name)
            self.assertEqual(RemotePath(path.as_uri(), client=self.client), path)
        self.assertEqual(read_place(url_of("fe80::1%eth0", 7, [])), ("fe80::1%eth0", 7, "/"))

    def test_equal(self) -> None:
        """Paths are equal, and hash so, where path and server are, however these were named."""
        one = RemotePath("/a/b", client=self.client)
        with Client("LOCALHOST", 7, TOKEN) as again:
            self.assertEqual(one, RemotePath("/a//b/", client=again))
            self.assertEqual(hash(one), hash(again.path("/a/b")))
        for other in (self.client.path("/a"), self.other.path("/a/b"), "/a/b", PurePosixPath("/a/b")):
            self.assertNotEqual(one, other)
        self.assertEqual(RemotePath(one), one)
        self.assertNotEqual(RemotePath("fileexport://localhost:8/a/b"), one)

    def test_order(self) -> None:
        """Paths are sorted as those of pathlib."""
        texts = ["/b", "/a/b", "/a", "/a.b", "/a/a", "/"]
        found = [str(path) for path in sorted(self.client.path(text) for text in texts)]
        self.assertEqual(found, [str(path) for path in sorted(map(PurePosixPath, texts))])
        self.assertTrue(self.client.path("/a") <= self.client.path("/a") < self.client.path("/b"))
        self.assertRaises(TypeError, operator.lt, self.client.path("/a"), "/b")

    def test_repr(self) -> None:
        """A path shows its server where that is known without looking; never a token."""
        self.assertEqual(repr(self.client.path("/a b")), "RemotePath('fileexport://localhost:7/a%20b')")
        self.assertEqual(repr(RemotePath("fileexport://[::1]/a")), "RemotePath('fileexport://[::1]:6768/a')")
        self.assertEqual(repr(RemotePath("/a b")), "RemotePath('/a b')")

    def test_other_server(self) -> None:
        """A URL beside a client names its server, or nothing that contradicts it."""
        for text in ("fileexport://localhost:7/a", "fileexport://LocalHost:7/a", "fileexport:///a", "/a"):
            self.assertEqual(self.client.path(text), self.client.path("/a"))
        for text in ("fileexport://localhost:8/a", "fileexport://127.0.0.1:7/a", "fileexport://:8/a"):
            self.assertRaises(ValueError, self.client.path, text)

    def test_copies(self) -> None:
        """A copy is the path itself; a pickle finds its server anew, and no client goes into one."""
        path = RemotePath("fileexport://localhost:7/a/caf%E9")
        for same in (copy.copy(path), copy.deepcopy(path), pickle.loads(pickle.dumps(path))):
            self.assertEqual((same, type(same)), (path, RemotePath))
        self.assertNotIn(TOKEN.encode(), pickle.dumps(path))
        plain = pickle.loads(pickle.dumps(RemotePath("/a")))
        self.assertEqual((plain, repr(plain)), (RemotePath("/a"), "RemotePath('/a')"))
        self.assertRaises(TypeError, pickle.dumps, self.client.path("/a"))
        self.assertIs(copy.deepcopy(self.client.path("/a")).client, self.client)

    def test_no_environment(self) -> None:
        """Where the environment names no server that is said at the first use, and paths can be compared."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FILEEXPORT_")}
        self.patch(os, "environ", kept)
        path = RemotePath("/a") / "b"
        self.assertEqual(path, RemotePath("/a/b"))
        self.assertNotEqual(path, self.client.path("/a/b"))
        for act in (path.exists, path.as_uri, lambda: path.client):
            self.assertIn("FILEEXPORT_HOSTNAME", str(self.assertRaises(ValueError, act)))


class ClientTests(ServerCase):
    """The client of paths that were given none."""

    def setUp(self) -> None:
        super().setUp()
        self.left = threading.Event()
        self.one = self.server(self.script)
        environ = {"FILEEXPORT_HOSTNAME": "127.0.0.1", "FILEEXPORT_PORT": str(self.one.port)}
        self.patch(os, "environ", {**os.environ, **environ, "FILEEXPORT_TOKEN": TOKEN})

    def script(self, peer: Peer) -> None:
        """Everything is a file; who goes says goodbye."""
        try:
            while True:
                stream, asked = peer.hear(m.Open)
                if isinstance(asked, m.Stat):
                    peer.say(m.Entries([m.Entry(RelPath(), "file", 1, 1)]), stream)
                    peer.say(m.End(), stream)
                else:
                    peer.answer_read(stream, b"content")
        except ConnectionError as error:
            if "goodbye" in str(error):
                self.left.set()
            raise

    def test_shared(self) -> None:
        """Paths from one path share its client, and its connection, which ends with the last of them."""
        path = RemotePath("/a")
        below = path / "b" / "c"
        last = below.parent
        self.assertTrue(path.exists() and below.exists() and last.exists())
        self.assertIs(path.client, last.client)
        self.assertEqual(self.one.connections, 1)
        client = weakref.ref(path.client)
        del path, below
        gc.collect()
        self.assertIsNotNone(client())
        self.assertFalse(self.left.is_set())
        del last
        gc.collect()
        self.assertIsNone(client())
        self.assertTrue(self.left.wait(30))

    def test_open_file(self) -> None:
        """A file that is open keeps the client, also when its path is gone."""
        file = (RemotePath("/a") / "b").open("rb")
        gc.collect()
        with file:
            self.assertEqual(file.read(), b"content")
        del file
        gc.collect()
        self.assertTrue(self.left.wait(30))

    def test_named(self) -> None:
        """The URL comes before the environment, which has the token."""
        path = RemotePath(f"fileexport://127.0.0.1:{self.one.port}/a")
        os.environ.update({"FILEEXPORT_HOSTNAME": "no.invalid", "FILEEXPORT_PORT": "1"})
        self.assertTrue(path.exists())
        self.assertEqual(path, RemotePath("/a", client=path.client))
        self.assertEqual(path.as_uri(), f"fileexport://127.0.0.1:{self.one.port}/a")

    def test_given(self) -> None:
        """A client that was given is its caller's: paths that go leave it as it is."""
        with self.one.client() as client:
            self.assertTrue(client.path("/a").exists())
            gc.collect()
            self.assertTrue(client.path("/b").exists())
            self.assertEqual(self.one.connections, 1)
            self.assertFalse(self.left.is_set())
        self.assertTrue(self.left.wait(30))
