"""Remote files that are read: any part, in any order, of one version, whatever becomes of the connection."""

from __future__ import annotations

import copy
import errno
import io
import os
import pickle
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from fileexport.client.blocking import Client
from fileexport.client.connection import Wait
from fileexport.client.remote.files import reader
from fileexport.client.remote.reading import RemoteReader
from fileexport.errors import AuthenticationError, ChangedWhileRead, CorruptedResponse
from fileexport.paths import RelPath
from fileexport.testing import serving
from fileexport.wire import messages as m
from tests.client_server import Peer, Script, ServerCase
from tests.test_client_waiting import TIMEOUT, WaitingCase

KIB, MIB = 1 << 10, 1 << 20
CONTENT = blake3(b"reading").digest(length=7 * MIB + 5)
TOKEN = "fex1_reading-" + "x1Y2z3W4" * 5


class Asked(NamedTuple):
    """A part of the file that was asked for; a length of None is all up to the end."""

    offset: int
    length: int | None
    version: bytes | None


class FileServer:
    """Answers each `read` of one file honestly, and remembers it; a connection only up to so many bytes."""

    def __init__(self, content: bytes = CONTENT, cuts: Sequence[int] = ()) -> None:
        self.content = content
        self.version = b"v1"
        self.asked: list[Asked] = []
        self._cuts = iter(cuts)

    def __call__(self, peer: Peer) -> None:
        left = next(self._cuts, 1 << 60)
        while True:
            stream, read = peer.hear(m.Read)
            self.asked.append(Asked(read.offset, read.length, read.version))
            known = read.version in (None, self.version)
            start = read.offset if known else 0
            stop = len(self.content)
            if read.length is not None:
                stop = min(stop, start + read.length)
            peer.say(m.Content(len(self.content), 7, self.version, start, 0o640), stream)
            for at in range(start, stop, 64 * KIB):
                end = min(at + 64 * KIB, stop)
                if left < end - at:
                    return
                left -= end - at
                peer.data(stream, self.content[at:end])
            if left == 0:
                return
            digest = blake3(self.content).digest() if read.length is None else None
            peer.say(m.End(len(self.content), digest), stream)


def raw(client: Client, ahead: int = 0) -> RemoteReader:
    """The file, open."""
    return reader(client, "/d/a", ahead)


def pieces(file: RemoteReader, size: int) -> bytes:
    """All of it, read in pieces of at most so many bytes."""
    return b"".join(iter(lambda: file.read(size), b""))


class ReadingCase(ServerCase):
    """A server of one file."""

    def opened(self, *scripts: Script) -> RemoteReader:
        """The file, open until the test is over."""
        client = self.server(*scripts).client()
        self.addCleanup(client.close)
        file = raw(client)
        self.addCleanup(file.close)
        return file


class AskingTests(ReadingCase):
    """What is asked for: no more than is probably wanted."""

    def test_sequential(self) -> None:
        """Who reads on gets more each time, and in the end the rest, whose hash is compared."""
        server = FileServer()
        file = self.opened(server)
        self.assertEqual(pieces(file, 10 * KIB), CONTENT)
        starts = [0, 64 * KIB, 320 * KIB, 1344 * KIB, 5440 * KIB]
        lengths = [64 * KIB, 256 * KIB, MIB, 4 * MIB, None]
        self.assertEqual([one.offset for one in server.asked], starts)
        self.assertEqual([one.length for one in server.asked], lengths)
        self.assertEqual([one.version for one in server.asked], [None, *[b"v1"] * 4])

    def test_readall(self) -> None:
        """Who wants all asks for the rest at once."""
        server = FileServer()
        self.assertEqual(self.opened(server).read(), CONTENT)
        self.assertEqual([one.length for one in server.asked], [64 * KIB, None])

    def test_random(self) -> None:
        """Small reads here and there ask for 64 KiB each, large ones for what they need; no hash is made."""
        server = FileServer()
        file = self.opened(server)
        for offset, size, asked in ((MIB, 10, 64 * KIB), (5, 10, 64 * KIB), (2 * MIB, 3 * MIB, 3 * MIB)):
            file.seek(offset)
            self.assertEqual(file.read(size), CONTENT[offset : offset + size])
            self.assertEqual(server.asked[-1], (offset, asked, b"v1"))
        file.seek(-10, os.SEEK_END)
        self.assertEqual(file.read(), CONTENT[-10:])
        self.assertEqual(server.asked[-1].length, 10)

    def test_buffer(self) -> None:
        """A buffer that is filled wants little where it is used here and there."""
        server = FileServer()
        client = self.server(server).client()
        with client, client.open("/d/a", "rb") as file:
            for offset in (MIB, 4 * MIB, 2 * MIB):
                file.seek(offset)
                self.assertEqual(file.read(10), CONTENT[offset : offset + 10])
        self.assertEqual([one.length for one in server.asked], [64 * KIB] * 4)

    def test_near(self) -> None:
        """A small step forward asks for nothing; a seek alone, or one behind the end, neither."""
        server = FileServer()
        file = self.opened(server)
        for offset in (100, 5000, 60 * KIB):
            file.seek(offset)
            self.assertEqual(file.read(10), CONTENT[offset : offset + 10])
        file.seek(5 * MIB)
        self.assertEqual(file.seek(-1, os.SEEK_CUR), 5 * MIB - 1)
        self.assertEqual(file.seek(10, os.SEEK_END), len(CONTENT) + 10)
        self.assertEqual((file.read(5), file.read(), file.tell()), (b"", b"", len(CONTENT) + 10))
        self.assertEqual(len(server.asked), 1)

    def test_parts(self) -> None:
        """`pread` asks for its part alone, and leaves the position where it is."""
        server = FileServer()
        file = self.opened(server)
        file.seek(7)
        self.assertEqual(file.pread(3 * MIB, 2 * MIB), CONTENT[2 * MIB : 5 * MIB])
        self.assertEqual(server.asked[1:], [(2 * MIB, 3 * MIB, b"v1")])
        self.assertEqual(file.pread(100, len(CONTENT) - 5), CONTENT[-5:])
        self.assertEqual((file.pread(1, len(CONTENT)), file.pread(0, 5), file.tell()), (b"", b"", 7))
        self.assertEqual(len(server.asked), 3)
        for size, offset in ((-1, 0), (1, -1)):
            self.assertRaises(ValueError, file.pread, size, offset)

    def test_one_connection(self) -> None:
        """What is left unread is cancelled: the next read has the same connection."""
        server = self.server(FileServer())
        with server.client() as client:
            for _ in range(3):
                with raw(client) as file:
                    file.read(10)
                    file.seek(5 * MIB)
                    self.assertEqual(file.read(10), CONTENT[5 * MIB :][:10])
        self.assertEqual(server.connections, 1)

    def test_about(self) -> None:
        """An open file knows what the server said of it."""
        file = self.opened(FileServer())
        self.assertEqual((file.size, file.mtime_ns, file.permissions), (len(CONTENT), 7, 0o640))
        self.assertEqual((file.version, file.name, file.mode), (b"v1", "/d/a", "rb"))
        self.assertTrue(file.readable() and file.seekable() and not file.writable() and not file.isatty())
        self.assertRaises(io.UnsupportedOperation, file.fileno)
        self.assertRaises(io.UnsupportedOperation, file.write, b"")

    def test_closed(self) -> None:
        """A closed file takes nothing but another `close`."""
        file = self.opened(FileServer())
        file.close()
        file.close()
        calls: tuple[Callable[[], object], ...] = (
            file.read,
            file.tell,
            lambda: file.seek(0),
            lambda: file.pread(1, 0),
            lambda: file.readinto(bytearray(1)),
        )
        for call in calls:
            self.assertRaises(ValueError, call)

    def test_seek(self) -> None:
        """A position before the beginning is none, nor is a whence that is not known."""
        file = self.opened(FileServer())
        error = self.assertRaises(OSError, file.seek, -1)
        self.assertEqual((error.errno, error.filename), (errno.EINVAL, "/d/a"))
        self.assertRaises(ValueError, file.seek, 0, 3)

    def test_numbers(self) -> None:
        """Positions and sizes are numbers that a file can have; otherwise the position stays."""
        file = self.opened(FileServer())
        file.seek(4)
        for far in (1 << 63, 1 << 70):
            self.assertRaises(OSError, file.seek, far)
        self.assertRaises(OSError, file.seek, (1 << 63) - 1, os.SEEK_END)
        for wrong in ((1.5,), (0, "x"), (None,), (0, None)):
            self.assertRaises(TypeError, file.seek, *wrong)
        for size, offset in ((1.5, 0), (None, 0), (1, "x")):
            self.assertRaises(TypeError, file.pread, size, offset)
        self.assertEqual((file.tell(), file.read(None)), (4, CONTENT[4:]))
        buffered = io.BufferedReader(file)
        buffered.seek(9)
        self.assertRaises(OSError, buffered.seek, (1 << 63) - 1, os.SEEK_END)
        self.assertEqual((buffered.tell(), buffered.read(3)), (9, CONTENT[9:12]))

    def test_copies(self) -> None:
        """There is one of each, whatever its buffer."""
        file = self.opened(FileServer())
        for one in (file, io.BufferedReader(file)):
            for copied in (copy.copy, copy.deepcopy, pickle.dumps):
                self.assertRaises(TypeError, copied, one)


class ChangeTests(ReadingCase):
    """What is read is of one version."""

    def test_replaced(self) -> None:
        """Once the file is another one, each further operation says so; the position stays."""
        server = FileServer()
        file = self.opened(server)
        self.assertEqual(file.read(64 * KIB), CONTENT[: 64 * KIB])
        server.version = b"v2"
        for _ in range(2):
            self.assertRaises(ChangedWhileRead, file.read, 10)
            self.assertRaises(ChangedWhileRead, file.read)
            self.assertRaises(ChangedWhileRead, file.pread, 10, 5 * MIB)
        self.assertEqual(file.tell(), 64 * KIB)
        server.version = b"v1"
        self.assertEqual(file.read(10), CONTENT[64 * KIB :][:10])

    def test_hash(self) -> None:
        """What was read from the beginning to the end has the server's hash, or it is told at the end."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(MIB, 7, b"v1"), stream)
            peer.data(stream, bytes(64 * KIB))
            peer.say(m.End(MIB), stream)
            stream, asked = peer.hear(m.Read)
            peer.say(m.Content(MIB, 7, b"v1", asked.offset), stream)
            peer.data(stream, bytes(MIB - asked.offset))
            peer.say(m.End(MIB, blake3(b"other").digest()), stream)
            peer.next()

        file = self.opened(script)
        self.assertRaises(ChangedWhileRead, file.read)
        self.assertEqual(file.tell(), 0)

    def test_said_by_the_server(self) -> None:
        """The server sees it change under way: what it sent of that is not given away unseen."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(1000, 7, b"v1"), stream)
            peer.data(stream, bytes(1000))
            peer.say(m.Reset(21), stream)
            peer.next()

        self.assertRaises(ChangedWhileRead, self.opened(script).read)

    def test_lies(self) -> None:
        """A server that sends more, less, or from elsewhere is found out."""

        def script(offset: int, size: int) -> Script:
            def lie(peer: Peer) -> None:
                stream, _ = peer.hear(m.Read)
                peer.say(m.Content(1000, 7, b"v1", offset), stream)
                peer.data(stream, bytes(size))
                peer.say(m.End(1000), stream)
                peer.next()

            return lie

        client = self.server(script(5, 995)).client()
        self.assertRaises(CorruptedResponse, raw, client)
        self.assertRaises(CorruptedResponse, self.opened(script(0, 1001)).read)
        self.assertRaises(ChangedWhileRead, self.opened(script(0, 999)).read)


class CutTests(ReadingCase):
    """Connections that break."""

    def test_cuts(self) -> None:
        """However often it is cut, all is read once and in order, and its hash compared."""
        for size in (10 * KIB, 300 * KIB, 2 * MIB):
            server = FileServer(cuts=[100 * KIB, 0, MIB, 64 * KIB, 3 * MIB, 2 * MIB, 64 * KIB])
            file = self.opened(server)
            self.assertEqual(pieces(file, size), CONTENT)
            self.assertEqual(server.asked[-1].length, None)

    def test_all_at_once(self) -> None:
        """So does who reads all at once, and who wants a part."""
        cuts = [100 * KIB, 0, 3 * MIB, len(CONTENT) - 3200 * KIB, MIB, 0, 64 * KIB]
        file = self.opened(FileServer(cuts=cuts))
        self.assertEqual(file.read(), CONTENT)
        self.assertEqual(file.pread(3 * MIB, 5), CONTENT[5 : 3 * MIB + 5])

    def test_before_the_end(self) -> None:
        """A cut between the last byte and the end asks once more whether it was all of one version."""
        server = FileServer(CONTENT[: 64 * KIB], cuts=[64 * KIB])
        self.assertEqual(self.opened(server).read(), server.content)
        self.assertEqual([one.offset for one in server.asked], [0, 64 * KIB])

        server = FileServer(cuts=[MIB])
        file = self.opened(server)
        server.version = b"v2"
        self.assertRaises(ChangedWhileRead, file.pread, MIB - 64 * KIB, 5)

    def test_for_ever(self) -> None:
        """A server that always breaks before anything came is a `ConnectionError`; the position stays."""
        server = FileServer(cuts=[64 * KIB, *[0] * 9])
        file = self.opened(server)
        self.assertEqual(file.read(10), CONTENT[:10])
        file.seek(MIB)
        self.assertRaises(ConnectionError, file.read, 10)
        self.assertEqual((file.tell(), file.read(10)), (MIB, CONTENT[MIB:][:10]))

    def test_opening(self) -> None:
        """Opening does not try again and again: who is not there is said at once."""
        server = self.server(lambda peer: None)
        self.assertRaises(ConnectionError, raw, server.client())
        self.assertEqual(server.connections, 1)

    def test_interrupted(self) -> None:
        """After Ctrl-C, or whatever else, a further read gives the bytes that come next."""

        def wait() -> Wait:
            if errors:
                raise errors.pop()
            return Wait(TIMEOUT)

        errors: list[BaseException] = []
        client = self.server(FileServer()).client()
        self.addCleanup(client.close)
        file = RemoteReader(client._pool, RelPath(("a",)), wait)
        self.addCleanup(file.close)
        got = b""
        for error in (KeyboardInterrupt(), AuthenticationError()):
            got += file.read(100 * KIB)
            file.seek(MIB)
            errors.append(error)
            self.assertRaises(type(error), file.read, 10)
            file.seek(len(got))
        self.assertEqual(got + file.read(), CONTENT)


class SlowTests(WaitingCase):
    """Readers that take their time."""

    def test_patience(self) -> None:
        """What a reader does between two reads takes none of the server's time."""
        with self.server(FileServer()).client(timeout=TIMEOUT) as client, raw(client) as file:
            got = b""
            while piece := file.read(500 * KIB):
                got += piece
                self.clock.wait()
        self.assertEqual(got, CONTENT)

    def test_given_up(self) -> None:
        """A read that the server gave up, because its caller took so long, goes on where it was."""
        offsets: list[int] = []

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(len(CONTENT), 7, b"v1"), stream)
            peer.data(stream, CONTENT[: 10 * KIB])
            peer.say(m.Reset(14, "took nothing for too long"), stream)
            stream, asked = peer.hear(m.Read)
            offsets.append(asked.offset)
            peer.answer_read(stream, CONTENT, offset=asked.offset)
            peer.next()

        with self.server(script).client() as client, raw(client) as file:
            self.assertEqual(file.read(), CONTENT)
        self.assertEqual(offsets, [10 * KIB])

    def test_silence(self) -> None:
        """A server that does not go on has its time; then a further read asks once more."""
        honest = FileServer()

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(len(CONTENT), 7, b"v1"), stream)
            peer.data(stream, CONTENT[:10])
            peer.next()

        with self.server(script, honest).client() as client:
            file = reader(client, "/a", timeout=50)
            error = self.assertRaises(TimeoutError, file.readinto, bytearray(100))
            self.assertEqual((error.filename, file.tell()), ("/a", 0))
            self.assertEqual(file.read(20), CONTENT[:20])
            file.close()


class LoopbackTests(SynchronousTestCase):
    """Against a real server."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        server = self.enterContext(serving(self.root, token=TOKEN))
        self.port = server.port
        self.client = self.enterContext(server.client())

    @contextmanager
    def file(self, content: bytes, mode: str = "rb", buffering: int = -1) -> Iterator[io.BufferedReader]:
        """A file with this content, open."""
        (self.root / "a").write_bytes(content)
        with self.client.open("/a", mode, buffering=buffering) as opened:
            yield cast(io.BufferedReader, opened)

    def test_sizes(self) -> None:
        """Files of all sizes are read whole, with all sizes of buffers."""
        for size in (0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 320 * KIB, 320 * KIB + 1, MIB, 6 * MIB):
            for buffering in (-1, 0, 2, 5000, 2 * MIB)[: 5 if size < MIB else 2]:
                with self.file(CONTENT[:size], buffering=buffering) as file:
                    self.assertEqual(file.read(), CONTENT[:size])
                    self.assertEqual((file.read(), file.read(1), file.tell()), (b"", b"", size))

    def test_as_in_memory(self) -> None:
        """Whatever is read in whatever order is what a file in memory gives."""
        for seed in range(4):
            chance = random.Random(seed)
            with self.file(CONTENT[: 3 * MIB], buffering=chance.choice((-1, 0, 100, 100_000))) as file:
                model = io.BytesIO(CONTENT[: 3 * MIB])
                for _ in range(60):
                    name, *values = chance.choice(
                        (
                            ("seek", chance.randrange(4 * MIB)),
                            ("seek", -chance.randrange(3 * MIB), os.SEEK_END),
                            ("seek", chance.randrange(100_000), os.SEEK_CUR),
                            ("tell",),
                            ("readline",),
                            ("read", chance.randrange(100)),
                            ("read", chance.randrange(2 * MIB)),
                        )
                    )
                    expected = getattr(model, name)(*values)
                    found = getattr(file, name)(*values)
                    while name == "read" and isinstance(file, RemoteReader) and len(found) < len(expected):
                        found += file.read(len(expected) - len(found))
                    self.assertEqual(found, expected, (seed, name, values))

    def test_errors(self) -> None:
        """What cannot be read is said when it is opened, with its path."""
        (self.root / "d").mkdir()
        for path, kind in (
            ("/none", FileNotFoundError),
            ("/d", IsADirectoryError),
            ("/", IsADirectoryError),
            ("/d/none/x", FileNotFoundError),
        ):
            error = self.assertRaises(kind, self.client.open, path)
            self.assertEqual((type(error), error.filename), (kind, path))

    def test_changed(self) -> None:
        """A file that is replaced, or written to, is not mixed with what it was."""

        def replace() -> None:
            (self.root / "b").write_bytes(bytes(MIB))
            (self.root / "b").rename(self.root / "a")

        def append() -> None:
            with (self.root / "a").open("ab") as file:
                file.write(b"x")

        for change in (replace, append):
            with self.file(CONTENT[:MIB]) as file:
                file.seek(500 * KIB)
                file.read(1)
                change()
                file.seek(5)
                self.assertRaises(ChangedWhileRead, file.read)

    def test_put_back(self) -> None:
        """So it is where who wrote to the file has put its time back."""
        # More than is on its way, and more than is hashed before it is.
        path, content = self.root / "a", CONTENT * 6

        def edit() -> None:
            before = path.stat()
            with path.open("r+b") as file:
                for at in (0, len(content) - 9):
                    file.seek(at)
                    file.write(b"edit")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

        with self.file(content) as file:
            file.read(5 * MIB)
            edit()
            self.assertRaises(ChangedWhileRead, file.read)
        path.write_bytes(content)
        pieces = self.client.read("/a")
        next(pieces)
        edit()
        self.assertRaises(ChangedWhileRead, list, pieces)

    def test_several(self) -> None:
        """Several files of one client, and several threads with parts of one, do not disturb each other."""
        with self.file(CONTENT) as one, self.client.open("/a", "rb") as other:
            for at in range(0, MIB, 100 * KIB):
                for file in (one, other):
                    self.assertEqual(file.read(100 * KIB), CONTENT[at:][: 100 * KIB])
            raw_file = one.raw
            assert isinstance(raw_file, RemoteReader)
            found: dict[int, bytes] = {}

            def part(offset: int) -> None:
                for _ in range(5):
                    found[offset] = raw_file.pread(200 * KIB, offset)

            threads = [threading.Thread(target=part, args=(number * MIB,)) for number in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(found, {at: CONTENT[at : at + 200 * KIB] for at in range(0, 6 * MIB, MIB)})

    def test_compressed(self) -> None:
        """It is the same where the content is compressed on its way."""
        text = b"the same line again and again\n" * 100_000
        (self.root / "a").write_bytes(text)
        with Client("127.0.0.1", self.port, TOKEN, compression=True) as client:
            with client.open("/a", "rb") as file:
                self.assertEqual(file.read(10), text[:10])
                file.seek(10**6)
                self.assertEqual(file.read(), text[10**6 :])
                file.seek(0)
                self.assertEqual(file.read(), text)
            self.assertLess(client.traffic[1], 100_000)

    def test_fork(self) -> None:
        """After a fork both processes read on, each for itself."""
        with self.file(CONTENT) as file:
            self.assertEqual(file.read(2 * MIB), CONTENT[: 2 * MIB])
            child = os.fork()
            if not child:
                try:
                    os._exit(0 if file.read() == CONTENT[2 * MIB :] else 1)
                finally:
                    os._exit(2)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            self.assertEqual(file.read(), CONTENT[2 * MIB :])

    def test_forgotten(self) -> None:
        """A file that nobody closed gives its connection back when it is collected."""
        (self.root / "a").write_bytes(CONTENT)
        for _ in range(100):
            self.client.open("/a", "rb").read(10)
        self.assertLessEqual(len(self.client._pool._idle), 1)
