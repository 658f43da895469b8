"""Directories with their structure, each way, and that a server cannot lead a download elsewhere."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from blake3 import blake3

from fileexport.client.blocking import Client
from fileexport.disk.batches import Batch
from fileexport.errors import CorruptedResponse, DestinationNotFound, SourceNotFound
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from tests.client_server import Peer, Script, ServerCase

LARGE = bytes(70_000)


class Tree:
    """A server that has, and takes, directories and files."""

    def __init__(self, files: dict[str, bytes] | None = None, extra: tuple[m.Entry, ...] = ()) -> None:
        self.files = dict(files or {})
        self.directories = {"/"} | {str(parent) for path in self.files for parent in Path(path).parents}
        self.extra = extra

    def __call__(self, peer: Peer) -> None:
        while True:
            stream, operation = peer.hear(m.Open)
            try:
                self.answer(peer, stream, operation)
            except AssertionError:
                # The client has cancelled.
                continue

    def answer(self, peer: Peer, stream: int, asked: m.Open) -> None:
        """Carry out one operation."""
        match asked:
            case m.List(path=path) if str(path) in self.directories:
                peer.say(m.Entries([*self.entries(str(path)), *self.extra]), stream)
            case m.MakeDirectory(path=path, exist_ok=exist_ok) if str(path.parent) in self.directories:
                if str(path) in self.directories and not exist_ok:
                    return peer.say(m.Reset(4), stream)
                self.directories.add(str(path))
            case m.Write(path=path):
                if asked.source is not None:
                    peer.say(m.Ready(), stream)
                self.files[str(path)], end = peer.content(stream)
                return peer.say(end, stream)
            case m.WriteFiles(path=path):
                count = 0
                while isinstance(files := getattr(peer.next(), "message", None), m.Files):
                    count += len(files.files)
                    for file in files.files:
                        self.files[str(path + file.path)] = file.content
                if count:
                    peer.say(m.Outcome([m.Range(0, count)]), stream)
            case m.Read(path=path):
                return peer.answer_read(stream, self.files[str(path)])
            case m.ReadFiles(paths=paths):
                for path in paths:
                    content = self.files[str(path)]
                    one = m.SmallFile(path, 7, blake3(content).digest(), content)
                    peer.say(m.Files([one]), stream)
            case _:
                return peer.say(m.Reset(1), stream)
        return peer.say(m.End(), stream)

    def entries(self, above: str) -> list[m.Entry]:
        """A listing."""
        return [
            m.Entry(
                RelPath((os.path.basename(path),)),
                "file" if path in self.files else "directory",
                len(self.files.get(path, b"")),
                7,
            )
            for path in sorted(self.directories - {"/"} | self.files.keys())
            if os.path.dirname(path) == above
        ]


class DirectoryCase(ServerCase):
    """A directory here."""

    def client(self, script: Script) -> Client:
        """A client of a server with this script."""
        return self.server(script).client()

    def content(self) -> dict[str, bytes]:
        """All files here."""
        found = (path for path in self.here.rglob("*") if path.is_file())
        return {"/" + str(path.relative_to(self.here)): path.read_bytes() for path in found}


class DiskTests(DirectoryCase):
    """What the system says of open files."""

    def test_full_disk(self) -> None:
        """A full disk here is said of the small file that was to come."""

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(Batch, "add", full)
        error = self.assertRaises(
            OSError, self.client(Tree({"/d/a": b"a"})).download_directory, "/d", self.here
        )
        self.assertEqual((error.errno, error.filename), (errno.ENOSPC, str(self.here / "d" / "a")))


class UploadTests(DirectoryCase):
    """Directories to the server."""

    def setUp(self) -> None:
        super().setUp()
        for name, content in (
            ("x/a", b"a"),
            ("x/y/large", LARGE),
            ("x/z/.hidden", b""),
            ("x/.fileexport/no", b""),
        ):
            path = self.here / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (self.here / "x/empty").mkdir()
        (self.here / "x/link").symlink_to("a")

    def test_structure(self) -> None:
        """Files and directories arrive, empty ones too; links and our own directory are left out."""
        expected = {"/n/a": b"a", "/n/y/large": LARGE, "/n/z/.hidden": b""}
        for process in (None, lambda *_: True):
            tree = Tree()
            self.assertTrue(
                self.client(tree).upload_directory(self.here / "x", "/", "n", process_chunk=process)
            )
            self.assertEqual(tree.files, expected)
            self.assertEqual(tree.directories, {"/", "/n", "/n/y", "/n/z", "/n/empty"})

    def test_callback(self) -> None:
        """`process_chunk` gets paths below the directory, and False cancels the rest."""
        names: list[str] = []

        def process(data: bytes, left: int, size: int, name: str) -> bool:
            names.append(name)
            return name != "y/large"

        tree = Tree()
        self.assertFalse(self.client(tree).upload_directory(f"{self.here}/x/", "/", None, 512, process))
        self.assertEqual(names, ["a", "y/large"])
        self.assertEqual(tree.files, {"/x/a": b"a"})

    def test_refused(self) -> None:
        """A name that is taken, what is missing on either side, and a file as source are refused."""
        client = self.client(Tree({"/x/old": b""}))
        self.assertRaises(FileExistsError, client.upload_directory, self.here / "x", "/")
        self.assertRaises(DestinationNotFound, client.upload_directory, self.here / "x", "/none")
        self.assertRaises(SourceNotFound, client.upload_directory, self.here / "none", "/")
        self.assertRaises(NotADirectoryError, client.upload_directory, self.here / "x/a", "/")


class DownloadTests(DirectoryCase):
    """Directories from the server."""

    FILES = {"/d/a": b"a", "/d/s/t/b": b"b" * 9, "/d/s/large": LARGE}

    def test_structure(self) -> None:
        """Files and directories arrive, and nothing else is left."""
        for process in (None, lambda *_: True):
            name = f"n{process is None}"
            client = self.client(Tree(self.FILES, extra=()))
            self.assertTrue(client.download_directory("/d", self.here, name, process_chunk=process))
            found = {path.removeprefix(f"/{name}"): content for path, content in self.content().items()}
            expected = {path.removeprefix("/d"): content for path, content in self.FILES.items()}
            self.assertEqual({path: found[path] for path in expected}, expected)
        self.assertEqual(sorted(os.listdir(self.here)), ["nFalse", "nTrue"])
        self.assertEqual(sorted(os.listdir(self.here / "nTrue")), ["a", "s"])

    def test_cancel(self) -> None:
        """False cancels the rest; files that were done stay."""
        client = self.client(Tree(self.FILES))
        names: list[str] = []

        def process(data: bytes, left: int, size: int, name: str) -> bool:
            names.append(name)
            return name == "a"

        self.assertFalse(client.download_directory("/d", self.here, None, 512, process))
        self.assertEqual(names, ["a", "s/large"])
        self.assertEqual(self.content(), {"/d/a": b"a"})

    def test_refused(self) -> None:
        """A name that is taken, and what is missing, are refused."""
        client = self.client(Tree(self.FILES))
        (self.here / "d").touch()
        self.assertRaises(FileExistsError, client.download_directory, "/d", self.here)
        self.assertRaises(SourceNotFound, client.download_directory, "/none", self.here)
        self.assertRaises(DestinationNotFound, client.download_directory, "/d", self.here / "none")
        self.assertEqual(os.listdir(self.here), ["d"])

    def test_lies(self) -> None:
        """Names that lead further down, no name and our own directory write nothing elsewhere."""
        for path in (("a", "b"), ()):
            client = self.client(Tree(self.FILES, extra=(m.Entry(RelPath(path), "file", 1, 0),)))
            self.assertRaises(CorruptedResponse, client.download_directory, "/d", self.here, "n")
        for name in (".fileexport", ".fileexport/x"):
            client = self.client(Tree({**self.FILES, f"/d/{name}": b"x"}))
            self.assertRaises(PermissionError, client.download_directory, "/d", self.here, str(len(name)))
        self.assertFalse(any(".fileexport" in path for path in self.content()))

    def test_links_in_the_way(self) -> None:
        """A link that somebody puts in the way while directories are made is not followed."""
        outside = Path(self.mktemp())
        outside.mkdir()
        here = self.here

        class Slow(Tree):
            def answer(self, peer: Peer, stream: int, asked: m.Open) -> None:
                if isinstance(asked, m.List) and asked.path.name == "s":
                    (here / "d/s").symlink_to(outside.absolute())
                super().answer(peer, stream, asked)

        client = self.client(Slow(self.FILES))
        self.assertRaises(FileExistsError, client.download_directory, "/d", self.here)
        self.assertEqual(os.listdir(outside), [])
