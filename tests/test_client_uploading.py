"""The blocking client sends one file: chunks, cuts, resumption, and what the server is told."""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue

import msgspec
from blake3 import blake3

from fileexport.client import chunks
from fileexport.errors import (
    BusyError,
    ChangedWhileRead,
    CorruptedResponse,
    DestinationNotFound,
    FileNameError,
    SourceNotFound,
)
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import DEFAULT_OFFER
from tests.client_server import RAISED, Peer, ServerCase, raising

MIB = 1 << 20
SMALL = bytes(range(256)) * 4 + b"and 28 bytes more than that."
LARGE = blake3(b"seed").digest(length=5 * MIB + 5)


class Receiver:
    """Takes uploads honestly, and remembers them."""

    def __init__(self) -> None:
        self.kept = b""
        self.asked: list[m.Write] = []
        self.got: list[bytes] = []
        self.content: dict[str, bytes] = {}

    def __call__(self, peer: Peer) -> None:
        while True:
            self.one(peer)

    def one(self, peer: Peer) -> None:
        """Take one upload; who asks after a cut hears that nothing is there."""
        stream, asked = peer.hear(m.Open)
        while isinstance(asked, m.Stat):
            peer.say(m.Reset(1), stream)
            stream, asked = peer.hear(m.Open)
        assert isinstance(asked, m.Write)
        self.asked.append(asked)
        if asked.source is not None:
            peer.say(m.Ready(len(self.kept)), stream)
        try:
            got, end = peer.content(stream)
        except AssertionError:
            # The client has cancelled.
            return
        self.got.append(got)
        whole = self.kept + got
        assert (end.size, end.digest) == (len(whole), blake3(whole).digest())
        self.content[str(asked.path)] = whole
        peer.say(end, stream)


class UploadCase(ServerCase):
    """Files here."""

    def setUp(self) -> None:
        super().setUp()
        self.small, self.large = self.here / "small", self.here / "large"
        self.small.write_bytes(SMALL)
        self.large.write_bytes(LARGE)


class WholeTests(UploadCase):
    """Files that arrive."""

    def test_small_and_large(self) -> None:
        """Content, size, time and name arrive, whatever the size."""
        receiver = Receiver()
        (self.here / "empty").touch()
        with self.server(receiver).client() as client:
            for name in ("small", "large", "empty"):
                self.assertTrue(client.upload_file(self.here / name, "/d", name + ".new"))
        found = {path: len(content) for path, content in receiver.content.items()}
        self.assertEqual(found, {"/d/small.new": len(SMALL), "/d/large.new": len(LARGE), "/d/empty.new": 0})
        self.assertEqual(receiver.content["/d/large.new"], LARGE)
        self.assertEqual(receiver.asked[1].mtime, os.stat(self.large).st_mtime_ns)
        self.assertIsNone(receiver.asked[0].source)
        self.assertFalse(receiver.asked[0].replace)

    def test_permissions(self) -> None:
        """Permissions are said where that is wished, and not otherwise."""
        receiver = Receiver()
        os.chmod(self.small, 0o4751)
        with self.server(receiver).client() as client:
            client.upload_file(self.small, "/d")
            client.upload_file(self.small, "/d", keep_mode=True)
        self.assertEqual([one.mode for one in receiver.asked], [None, 0o751])

    def test_small_windows(self) -> None:
        """A server that takes little at once gets it in small frames."""
        receiver = Receiver()
        offer = m.Offer(control=1024, data=512, streams=1, stream_credit=700, connection_credit=800)
        self.large.write_bytes(LARGE[:MIB])
        with self.server(receiver, offer=offer).client() as client:
            self.assertTrue(client.upload_file(self.large, "/"))
        self.assertEqual(receiver.content["/large"], LARGE[:MIB])

    def test_compressed(self) -> None:
        """Where both sides know zstd and it is of use, content is compressed."""
        got: list[Data] = []
        self.small.write_bytes(b"again and again " * 10_000)

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            while isinstance(found := peer.next(), Data):
                got.append(found)
            assert isinstance(found.message, m.End)
            peer.say(found.message, stream)

        with self.server(script, features=("zstd",)).client(compression=True) as client:
            self.assertTrue(client.upload_file(self.small, "/"))
        self.assertTrue(all(one.compressed for one in got))
        self.assertTrue(sum(len(one.piece) for one in got) < 16_000)

    def test_chunks(self) -> None:
        """1,052 bytes with chunks of 512 are three calls, whose remaining bytes include the chunk in hand."""
        calls: list[object] = []
        receiver = Receiver()

        def process(*call: object) -> None:
            calls.append(call)

        with self.server(receiver).client() as client:
            done = client.upload_file(self.small, "/", "x", 512, process)
        self.assertTrue(done)
        parts = [(SMALL[:512], 1052), (SMALL[512:1024], 540), (SMALL[1024:], 28)]
        self.assertEqual(calls, [(part, left, 1052, "x") for part, left in parts])
        self.assertEqual(receiver.content["/x"], SMALL)

    def test_largest_chunk(self) -> None:
        """A chunk size that this server does not take is a ValueError; without a callback it is no matter."""
        receiver = Receiver()
        offer = m.Offer(control=65536, data=4096, streams=1, stream_credit=MIB, connection_credit=MIB)
        with self.server(receiver, offer=offer).client() as client:
            self.assertRaises(ValueError, client.upload_file, self.small, "/", None, 8192, lambda *_: True)
            self.assertTrue(client.upload_file(self.small, "/", None, 4096, lambda *_: True))
            self.assertTrue(client.upload_file(self.small, "/", None, MIB))
            for size in (0, 511, MIB + 1):
                self.assertRaises(ValueError, client.upload_file, self.small, "/", None, size)


class CancelTests(UploadCase):
    """Uploads that their caller ends."""

    def test_cancel(self) -> None:
        """False cancels: the server is told so on the stream, and the client goes on with the connection."""
        for path in (self.small, self.large):
            receiver = Receiver()
            told: list[m.Message] = []

            def script(peer: Peer, receiver: Receiver = receiver, told: list[m.Message] = told) -> None:
                stream, asked = peer.hear(m.Write)
                if asked.source is not None:
                    peer.say(m.Ready(0), stream)
                while isinstance(found := peer.next(), Data) or isinstance(found.message, m.MoreCredit):
                    pass
                told.append(found.message)
                receiver(peer)

            server = self.server(script)
            with server.client() as client:
                size = path.stat().st_size
                done = client.upload_file(
                    path, "/", None, 512, lambda data, left, *_, size=size: left > size // 2
                )
                self.assertFalse(done)
                self.assertTrue(client.upload_file(path, "/"))
            self.assertEqual(told, [m.Reset()])
            self.assertEqual(server.connections, 1)

    def test_exceptions(self) -> None:
        """What the callback raises comes out, `KeyboardInterrupt` too; the server is told to keep nothing."""
        told: SimpleQueue[m.Message] = SimpleQueue()

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            peer.say(m.Ready(0), stream)
            while isinstance(found := peer.next(), Data):
                pass
            told.put(found.message)
            peer.next()

        for kind in RAISED:
            server = self.server(script)
            with server.client() as client:
                self.assertRaises(kind, client.upload_file, self.large, "/", process_chunk=raising(kind))
                self.assertEqual(told.get(timeout=20), m.Reset())

    def test_exception_behind_a_cut(self) -> None:
        """What the callback raises comes out also where the connection has gone."""
        is_called, is_cut = threading.Event(), threading.Event()

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            peer.say(m.Ready(0), stream)
            is_called.wait()
            peer.break_off()
            is_cut.set()

        def process(*_: object) -> None:
            is_called.set()
            is_cut.wait()
            raise ZeroDivisionError

        server = self.server(script)
        with server.client() as client:
            self.assertRaises(ZeroDivisionError, client.upload_file, self.large, "/", process_chunk=process)
        self.assertEqual(server.connections, 1)

    def test_interrupted(self) -> None:
        """Ctrl-C while the progress is shown leaves what the server has for the next call."""
        told: SimpleQueue[m.Message] = SimpleQueue()

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            peer.say(m.Ready(0), stream)
            try:
                while isinstance(found := peer.next(), Data):
                    pass
                told.put(found.message)
            except ConnectionError:
                told.put(m.Ping(b"cut"))

        def progress(done: int, size: int) -> None:
            raise KeyboardInterrupt

        with self.server(script).client() as client:
            self.assertRaises(KeyboardInterrupt, client.upload_file, self.large, "/", progress=progress)
            self.assertEqual(told.get(timeout=20), m.Ping(b"cut"))


class CutTests(UploadCase):
    """Connections that break."""

    def test_goes_on(self) -> None:
        """After a cut the rest is sent, from where the server is; the hash is of the whole."""
        receiver = Receiver()

        def cut(peer: Peer) -> None:
            stream, asked = peer.hear(m.Write)
            receiver.asked.append(asked)
            peer.say(m.Ready(0), stream)
            while len(receiver.kept) < 2 * MIB:
                found = peer.next()
                assert isinstance(found, Data)
                receiver.kept += bytes(found.piece)

        seen = bytearray()

        def process(data: bytes, *_: object) -> bool:
            seen.extend(data)
            return True

        for callback in (None, process):
            receiver.kept = b""
            with self.server(cut, receiver).client() as client:
                self.assertTrue(client.upload_file(self.large, "/", process_chunk=callback))
            self.assertEqual(receiver.content["/large"], LARGE)
            self.assertTrue(len(receiver.got[-1]) <= len(LARGE) - 2 * MIB)
        self.assertEqual(bytes(seen), LARGE)
        sources = {asked.source for asked in receiver.asked}
        self.assertEqual([len(source or b"") for source in sources], [16])

    def test_lost_answer(self) -> None:
        """A file whose commit was not acknowledged, and is there with its time and hash, has arrived."""

        def lost(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            peer.content(stream)

        def stat(peer: Peer, answer: m.Message) -> None:
            stream, _ = peer.hear(m.Stat)
            peer.say(answer, stream)
            if not isinstance(answer, m.Reset):
                peer.say(m.End(), stream)

        def hashes(peer: Peer) -> None:
            while True:
                found = peer.next()
                if not isinstance(found, Data) and isinstance(found.message, m.Hash):
                    break
            one = m.FileHash(RelPath(), len(SMALL), blake3(SMALL).digest())
            peer.say(m.Hashes([one]), found.stream)
            peer.say(m.End(), found.stream)
            peer.next()

        def late(peer: Peer) -> None:
            stat(peer, m.Reset(1))
            stream, _ = peer.hear(m.Write)
            peer.say(m.Reset(4), stream)
            hashes(peer)

        def there(peer: Peer) -> None:
            mtime = os.stat(self.small).st_mtime_ns
            stat(peer, m.Entries([m.Entry(RelPath(), "file", len(SMALL), mtime)]))
            hashes(peer)

        def old(peer: Peer) -> None:
            stat(peer, m.Entries([m.Entry(RelPath(), "file", len(SMALL), 1)]))
            receiver(peer)

        receiver = Receiver()
        for script, replaces in ((late, False), (there, False), (there, True), (old, True)):
            with self.server(lost, script).client() as client:
                self.assertTrue(client.upload_file(self.small, "/", replace=replaces))
        self.assertEqual(list(receiver.content), ["/small"])

    def test_gives_up(self) -> None:
        """Cut after cut without progress is a `ConnectionError`."""

        def cut(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            peer.say(m.Ready(0), stream)

        server = self.server(cut)
        with server.client() as client:
            self.assertRaises(ConnectionError, client.upload_file, self.large, "/")
        self.assertEqual(server.connections, 1 + len(chunks.BACKOFF))

    def test_no_server(self) -> None:
        """Where nobody listens there is one try."""
        server = self.server(Receiver())
        server.close()
        with server.client() as client:
            self.assertRaises(ConnectionRefusedError, client.upload_file, self.small, "/")


class RefusalTests(UploadCase):
    """Uploads that come to nothing."""

    def refused(self, reset: m.Reset) -> Exception | None:
        """What an upload raises that the server ends so; the client goes on."""
        receiver = Receiver()

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            peer.say(reset, stream)
            receiver(peer)

        raised = None
        with self.server(script).client() as client:
            try:
                client.upload_file(self.large, "/d")
            except Exception as error:
                raised = error
            self.assertTrue(client.upload_file(self.small, "/d"))
        return raised

    def test_errors(self) -> None:
        """The server's codes are the exceptions of the table, with the path where Python's own have one."""
        missing = self.refused(m.Reset(1, "no such directory"))
        self.assertIsInstance(missing, DestinationNotFound)
        self.assertEqual(getattr(missing, "filename", None), "/d")
        taken = self.refused(m.Reset(4, "taken"))
        self.assertIsInstance(taken, FileExistsError)
        self.assertEqual(getattr(taken, "filename", None), "/d/large")
        busy = self.refused(m.Reset(11, "later\x1b[2J", "ada", 5))
        assert isinstance(busy, BusyError)
        self.assertEqual((str(busy), busy.holder, busy.since), ("later?[2J", "ada", 5))
        self.assertIsInstance(self.refused(m.Reset(7)), PermissionError)
        self.assertIsInstance(self.refused(m.Reset(8)), FileNameError)
        self.assertEqual(getattr(self.refused(m.Reset(20)), "errno", None), 28)

    def test_changed(self) -> None:
        """A source that the server finds changed is sent once more; then it is `ChangedWhileRead`."""
        count: list[int] = []

        def script(peer: Peer) -> None:
            while True:
                stream, _ = peer.hear(m.Write)
                count.append(stream)
                peer.content(stream)
                peer.say(m.Reset(21), stream)

        with self.server(script).client() as client:
            self.assertRaises(ChangedWhileRead, client.upload_file, self.small, "/")
        self.assertEqual(len(count), 2)

    def test_lies(self) -> None:
        """A server that has more than there is, or committed something else, broke the protocol."""

        def more(peer: Peer) -> None:
            stream, asked = peer.hear(m.Write)
            peer.say(m.Ready(asked.size + 1), stream)

        def other(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            peer.say(m.Ready(0), stream)
            peer.content(stream)
            peer.say(m.End(5, bytes(32)), stream)

        for lie in (more, other):
            with self.server(lie).client() as client:
                self.assertRaises(CorruptedResponse, client.upload_file, self.large, "/")

    def test_sources(self) -> None:
        """A source that is missing, a directory or a FIFO is refused without waiting."""
        os.mkfifo(self.here / "fifo")
        server = self.server(Receiver())
        with server.client() as client:
            self.assertRaises(SourceNotFound, client.upload_file, self.here / "none", "/")
            self.assertRaises(IsADirectoryError, client.upload_file, self.here, "/")
            self.assertRaises(PermissionError, client.upload_file, self.here / "fifo", "/")
            self.assertRaises(ValueError, client.upload_file, self.small, "d")
            self.assertRaises(FileNameError, client.upload_file, self.small, "/d", "a/b")
        self.assertEqual(server.connections, 0)

    def test_no_reader(self) -> None:
        """A server that takes no content is left after the time-out; the next call is carried out."""
        receiver = Receiver()
        waiting: list[Peer] = []

        def script(peer: Peer) -> None:
            if waiting:
                receiver(peer)
            waiting.append(peer)
            stream, _ = peer.hear(m.Write)
            peer.say(m.Ready(0), stream)
            while True:
                peer.next()

        offer = msgspec.structs.replace(DEFAULT_OFFER, stream_credit=MIB)
        with self.server(script, offer=offer).client() as client:
            self.assertRaises(TimeoutError, client.upload_file, self.large, "/", timeout=50)
            self.assertTrue(client.upload_file(self.small, "/"))

    def test_taken_by_the_same(self) -> None:
        """A name that is taken is `FileExistsError`, also where its content is the same."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            peer.content(stream)
            peer.say(m.Reset(4), stream)
            peer.next()

        with self.server(script).client() as client:
            error = self.assertRaises(FileExistsError, client.upload_file, self.small, "/")
        self.assertEqual(error.filename, "/small")
