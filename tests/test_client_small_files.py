"""Many small files, each way: batches, outcomes, and servers that lie about them."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Unpack
from unittest import SkipTest

from blake3 import blake3

from fileexport.client import small_files
from fileexport.client.blocking import Client
from fileexport.client.downloading import Destination
from fileexport.client.names import LocalFile, Outcome
from fileexport.client.sources import SourceTree
from fileexport.errors import (
    ChangedWhileRead,
    CorruptedResponse,
    DestinationNotFound,
    FileNameError,
    SourceNotFound,
)
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from tests.client_server import Peer, Script, ServerCase, ServerOptions


def small(path: str, content: bytes, digest: bytes | None = None, mode: int | None = None) -> m.SmallFile:
    """A file of the wire."""
    return m.SmallFile(RelPath(path.split("/")), 7, digest or blake3(content).digest(), content, mode)


class SmallCase(ServerCase):
    """A directory of files here."""

    def setUp(self) -> None:
        super().setUp()
        self.got: dict[str, bytes] = {}

    def client(self, *scripts: Script, **options: Unpack[ServerOptions]) -> Client:
        """A client of a server with these scripts."""
        return self.server(*scripts, **options).client()

    def local(self, name: str, content: bytes | None = None, size: int | None = None) -> LocalFile:
        """A file here, written where content is given; it belongs to ``s/NAME`` there."""
        path = self.here / name
        if content is not None:
            path.write_bytes(content)
        status = os.stat(path) if content is not None else None
        found = size if size is not None else status.st_size if status else 0
        return LocalFile(f"s/{name}", str(path), found, status.st_mtime_ns if status else 0)

    def files(self, peer: Peer, stream: int) -> int:
        """Take all files of a stream; returns how many."""
        count = 0
        while True:
            found = peer.next()
            assert not isinstance(found, m.Message)
            message = getattr(found, "message", None)
            if isinstance(message, m.Files):
                peer.session.consumed(stream, getattr(found, "size", 0))
                for file in message.files:
                    assert blake3(file.content).digest() == file.digest
                    self.got[str(file.path)] = file.content
                count += len(message.files)
            elif isinstance(message, m.End):
                return count

    def take_all(self, peer: Peer) -> None:
        """Commit whatever comes."""
        while True:
            stream, _ = peer.hear(m.WriteFiles)
            count = self.files(peer, stream)
            if count:
                peer.say(m.Outcome([m.Range(0, count)]), stream)
            peer.say(m.End(), stream)


def failures(outcomes: Iterable[Outcome]) -> dict[str, type[Exception]]:
    """Of the files that failed, how."""
    return {one.file.path: type(one.error) for one in outcomes if one.error is not None}


class UploadTests(SmallCase):
    """Small files to the server."""

    def test_many(self) -> None:
        """Files of all sizes up to 64 KiB arrive in as many batches as it takes, each with its outcome."""
        files = [self.local(str(i), bytes([i % 251]) * (i * 37 % 65537)) for i in range(1500)]
        outcomes = list(self.client(self.take_all).upload_small(files, "/d"))
        self.assertEqual(len(outcomes), 1500)
        self.assertEqual(failures(outcomes), {})
        self.assertEqual(self.got, {f"/{file.path}": Path(file.local).read_bytes() for file in files})

    def test_permissions(self) -> None:
        """Permissions are said where that is wished, and not otherwise."""
        said: list[int | None] = []

        def script(peer: Peer) -> None:
            while True:
                stream, _ = peer.hear(m.WriteFiles)
                _, found = peer.hear(m.Files)
                said.extend(file.mode for file in found.files)
                peer.hear(m.End)
                peer.say(m.Outcome([m.Range(0, len(found.files))]), stream)
                peer.say(m.End(), stream)

        file = self.local("a", b"x")
        os.chmod(file.local, 0o750)
        client = self.client(script)
        self.assertEqual(failures(client.upload_small([file], "/d")), {})
        self.assertEqual(failures(client.upload_small([file], "/d", modes=True)), {})
        self.assertEqual(said, [None, 0o750])

    def test_small_windows(self) -> None:
        """A server that takes little at once gets small batches; what does not fit at all is a failure."""
        offer = m.Offer(control=1024, data=512, streams=1, stream_credit=2000, connection_credit=2000)
        files = [self.local(str(i), bytes(i)) for i in range(0, 1200, 60)]
        outcomes = list(self.client(self.take_all, offer=offer).upload_small(files, "/d"))
        found = failures(outcomes)
        self.assertEqual(set(found.values()), {ValueError})
        self.assertEqual(len(found) + len(self.got), len(files))
        self.assertTrue(len(self.got) > 10)

    def test_local_failures(self) -> None:
        """What is missing, too large, a directory or a FIFO here is an outcome; the others arrive."""
        os.mkfifo(self.here / "fifo")
        (self.here / "directory").mkdir()
        bad = [
            self.local("none"),
            self.local("fifo"),
            self.local("directory"),
            self.local("big", bytes(65537)),
        ]
        bad.append(LocalFile("../up", str(self.here / "big"), 1, 0))
        files = [*bad, self.local("good", b"good"), self.local("grown", b"grown since", size=3)]
        outcomes = list(self.client(self.take_all).upload_small(files, "/d"))
        kinds = {"s/none": SourceNotFound, "s/fifo": PermissionError, "s/directory": IsADirectoryError}
        self.assertEqual(failures(outcomes), {**kinds, "s/big": ValueError, "../up": FileNameError})
        self.assertEqual(self.got, {"/s/good": b"good", "/s/grown": b"grown since"})

    def test_remote_failures(self) -> None:
        """What the server says of a file is its outcome."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.WriteFiles)
            self.files(peer, stream)
            peer.say(m.Outcome([m.Range(1, 1)], [m.Failure(0, 4, ""), m.Failure(2, 1, "")]), stream)
            peer.say(m.End(), stream)
            peer.next()

        files = [self.local(str(i), b"") for i in range(3)]
        outcomes = list(self.client(script).upload_small(files, "/d"))
        self.assertEqual(failures(outcomes), {"s/0": FileExistsError, "s/2": DestinationNotFound})
        self.assertEqual(getattr(outcomes[-1].error, "filename", None), "/d/s")

    def test_lies(self) -> None:
        """Outcomes twice, of files that nobody sent, of none, or left out break the protocol."""
        lies = [
            [m.Outcome([m.Range(0, 3)])],
            [m.Outcome([m.Range(0, 2**32 - 1)])],
            [m.Outcome([m.Range(0, 1), m.Range(0, 1)])],
            [m.Outcome([], [m.Failure(7, 4, "")])],
            [m.Outcome([m.Range(0, 1)])],
            [m.Outcome()],
        ]
        for lie in lies:

            def script(peer: Peer, lie: list[m.Outcome] = lie) -> None:
                stream, _ = peer.hear(m.WriteFiles)
                self.files(peer, stream)
                for one in [*lie, m.End()]:
                    peer.say(one, stream)
                peer.next()

            files = [self.local(str(i), b"") for i in range(2)]
            self.assertRaises(CorruptedResponse, list, self.client(script).upload_small(files, "/d"))

    def test_links(self) -> None:
        """In a tree nothing is sent that a link leads to which came after it was listed."""
        top = self.here / "top"
        (top / "d").mkdir(parents=True)
        (top / "e").mkdir()
        outside = self.here / "outside"
        outside.mkdir()
        for name in ("d/a", "d/b", "e/a", "good", "../outside/a", "../outside/b"):
            (top / name).write_bytes(name.encode())
        (self.here / "named").symlink_to("top")
        tree = SourceTree.of(str(self.here / "named"))
        names = ("d/a", "d/b", "e/a", "good")
        files = [LocalFile(name, f"{self.here}/named/{name}", 3, 0, tree) for name in names]
        (top / "d").rename(top / "moved")
        (top / "d").symlink_to(outside)
        (top / "e" / "a").unlink()
        (top / "e" / "a").symlink_to("../good")
        outcomes = list(self.client(self.take_all).upload_small(files, "/d"))
        self.assertEqual(failures(outcomes), dict.fromkeys(["d/a", "d/b", "e/a"], SourceNotFound))
        self.assertEqual(self.got, {"/good": b"good"})
        (self.here / "named").unlink()
        (self.here / "named").symlink_to("outside")
        files = [LocalFile("a", f"{self.here}/named/a", 3, 0, tree)]
        outcomes = list(self.client(self.take_all).upload_small(files, "/d"))
        self.assertEqual((failures(outcomes), len(self.got)), ({"a": SourceNotFound}, 1))
        self.assertEqual(getattr(outcomes[0].error, "filename", None), f"{self.here}/named/a")

    def test_distant_times(self) -> None:
        """A time that cannot be said is the nearest one that can."""
        said: list[int] = []

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.WriteFiles)
            _, found = peer.hear(m.Files)
            said.extend(file.mtime for file in found.files)
            peer.hear(m.End)
            peer.say(m.Outcome([m.Range(0, len(found.files))]), stream)
            peer.say(m.End(), stream)
            peer.next()

        file = self.local("a", b"x")
        os.utime(file.local, (10_000_000_000, 10_000_000_000))
        if os.stat(file.local).st_mtime_ns < 2**63:
            raise SkipTest("this file system has no such time")
        self.assertEqual(failures(self.client(script).upload_small([file], "/d")), {})
        self.assertEqual(said, [2**63 - 1])


class DownloadTests(SmallCase):
    """Small files from the server."""

    def test_many(self) -> None:
        """Files arrive with content and time; what the server refuses is an outcome of its own."""

        def script(peer: Peer) -> None:
            while True:
                stream, asked = peer.hear(m.ReadFiles)
                for index, path in enumerate(asked.paths):
                    if path.name == "no":
                        peer.say(m.Outcome([], [m.Failure(index, 1, "")]), stream)
                        continue
                    peer.say(m.Files([small("/".join(path.parts), path.name.encode() * 5)]), stream)
                peer.say(m.End(), stream)

        files = [self.local(name) for name in ("no", *map(str, range(1100)))]
        outcomes = list(self.client(script).download_small(files, "/d"))
        self.assertEqual(len(outcomes), 1101)
        self.assertEqual(failures(outcomes), {"s/no": SourceNotFound})
        self.assertEqual((self.here / "77").read_bytes(), b"77" * 5)
        self.assertEqual(os.stat(self.here / "77").st_mtime_ns, 7)
        self.assertEqual(len(os.listdir(self.here)), 1100)

    def test_committed_on_the_way(self) -> None:
        """Within a request too, what came is committed now and then."""
        committed: list[int] = []

        def script(peer: Peer) -> None:
            stream, asked = peer.hear(m.ReadFiles)
            for path in asked.paths:
                peer.say(m.Files([small("/".join(path.parts), bytes(1024))]), stream)
            peer.say(m.End(), stream)
            peer.next()

        self.patch(small_files, "_COMMITTED", 8 << 10)
        files = [self.local(str(number)) for number in range(20)]
        for outcome in self.client(script).download_small(files, "/d"):
            self.assertIsNone(outcome.error)
            committed.append(sum(name.isdigit() for name in os.listdir(self.here)))
        self.assertEqual(sorted(set(committed)), [8, 16, 20])

    def test_many_directories(self) -> None:
        """However many directories the files belong to, few descriptors are held."""

        def script(peer: Peer) -> None:
            while True:
                stream, asked = peer.hear(m.ReadFiles)
                for path in asked.paths:
                    peer.say(m.Files([small("/".join(path.parts), b"x")]), stream)
                peer.say(m.End(), stream)

        client = self.client(script)
        files = [self.local(f"{number}/a") for number in range(300)]
        for file in files:
            os.mkdir(os.path.dirname(file.local))
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limit)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 150, limit[1]))
        outcomes = list(client.download_small(files, "/d"))
        self.assertEqual((len(outcomes), failures(outcomes)), (300, {}))
        self.assertEqual({tuple(os.listdir(os.path.dirname(file.local))) for file in files}, {("a",)})

    def test_permissions(self) -> None:
        """Permissions are kept where that is wished; otherwise a file that is replaced leaves its own."""

        def script(peer: Peer) -> None:
            while True:
                stream, _ = peer.hear(m.ReadFiles)
                peer.say(m.Files([small("d/s/a", b"new", mode=0o751)]), stream)
                peer.say(m.End(), stream)

        file = self.local("a", b"old")
        os.chmod(file.local, 0o640)
        client = self.client(script)
        for modes, wanted in ((False, 0o640), (True, 0o751)):
            self.assertEqual(failures(client.download_small([file], "/d", replace=True, modes=modes)), {})
            self.assertEqual(os.stat(file.local).st_mode & 0o777, wanted)

    def test_place(self) -> None:
        """Into a place that is open files go by their paths in it, and never out of it."""

        def script(peer: Peer) -> None:
            stream, asked = peer.hear(m.ReadFiles)
            peer.say(m.Files([small("/".join(path.parts), b"x") for path in asked.paths]), stream)
            peer.say(m.End(), stream)
            peer.next()

        (self.here / "place" / "b").mkdir(parents=True)
        (self.here / "place" / "out").symlink_to("..")
        paths = ("a", "b/c", "out/d", "../e", "none/f")
        files = [LocalFile(name, path, 1, 0) for name, path in zip("12345", paths, strict=True)]
        with Destination(str(self.here / "place")) as place:
            found = failures(self.client(script).download_small(files, "/d", place=place))
        self.assertEqual(sorted(found), ["3", "4", "5"])
        self.assertEqual(sorted(os.listdir(self.here / "place")), ["a", "b", "out"])
        self.assertEqual(os.listdir(self.here / "place" / "b"), ["c"])
        self.assertEqual(os.listdir(self.here), ["place"])

    def test_taken(self) -> None:
        """A name that is taken is `FileExistsError` unless `replace`."""

        def script(peer: Peer) -> None:
            while True:
                stream, asked = peer.hear(m.ReadFiles)
                peer.say(m.Files([small("d/s/a", b"new")]), stream)
                peer.say(m.End(), stream)

        file = self.local("a", b"old")
        client = self.client(script)
        self.assertEqual(failures(client.download_small([file], "/d")), {"s/a": FileExistsError})
        self.assertEqual((self.here / "a").read_bytes(), b"old")
        self.assertEqual(failures(client.download_small([file], "/d", replace=True)), {})
        self.assertEqual((self.here / "a").read_bytes(), b"new")

    def test_lies(self) -> None:
        """Files that nobody asked for, or asked for once and sent twice, are not written."""
        for names in (["d/s/b"], ["d/s/a", "d/s/a"], ["a"], []):

            def script(peer: Peer, names: list[str] = names) -> None:
                stream, _ = peer.hear(m.ReadFiles)
                for name in names:
                    peer.say(m.Files([small(name, b"x")]), stream)
                peer.say(m.End(), stream)
                peer.next()

            file = self.local("a")._replace(local=str(self.here / f"a{len(names)}"))
            self.assertRaises(CorruptedResponse, list, self.client(script).download_small([file], "/d"))
        self.assertTrue(set(os.listdir(self.here)) <= {"a1", "a2"})

    def test_wrong_hash(self) -> None:
        """A file with a wrong hash is not written."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.ReadFiles)
            peer.say(m.Files([small("d/s/a", b"x", bytes(32)), small("d/s/b", b"y")]), stream)
            peer.say(m.End(), stream)
            peer.next()

        files = [self.local("a"), self.local("b")]
        outcomes = list(self.client(script).download_small(files, "/d"))
        self.assertEqual(failures(outcomes), {"s/a": ChangedWhileRead})
        self.assertEqual(os.listdir(self.here), ["b"])

    def test_cut(self) -> None:
        """After a cut, what had come stays, and the rest is asked for."""
        asked: list[list[str]] = []

        def script(peer: Peer) -> None:
            stream, operation = peer.hear(m.ReadFiles)
            asked.append([path.name for path in operation.paths])
            for path in operation.paths[: 2 if len(asked) == 1 else None]:
                peer.say(m.Files([small("/".join(path.parts), b"x")]), stream)
            if len(asked) > 1:
                peer.say(m.End(), stream)
                peer.next()

        files = [self.local(name) for name in "abc"]
        outcomes = list(self.client(script).download_small(files, "/d"))
        self.assertEqual(failures(outcomes), {})
        self.assertEqual(asked, [["a", "b", "c"], ["c"]])
        self.assertEqual(sorted(os.listdir(self.here)), ["a", "b", "c"])
