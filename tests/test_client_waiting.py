"""What time-outs of the blocking client count: the server's time, and none of its caller's."""

from __future__ import annotations

import errno
import time

from blake3 import blake3

from fileexport.client import connection
from fileexport.client.connection import Wait, dial
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from tests.client_server import Peer, ServerCase
from tests.transfer_peer import code

MIB = 1 << 20
CONTENT = blake3(b"seed").digest(length=4 * MIB + 5)
#: Milliseconds that a server has, which answers at once.
TIMEOUT = 10_000


class Clock:
    """The system's, put forward by hand."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic() + self._ahead

    def wait(self) -> None:
        """Let more time go by than the server has."""
        self._ahead += TIMEOUT


class WaitingCase(ServerCase):
    """A clock that the client goes by."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.patch(connection, "time", self.clock)


class SlowCallerTests(WaitingCase):
    """Callers that take their time."""

    def process(self, *_: object) -> None:
        """A slow `process_chunk`."""
        self.clock.wait()

    def test_download(self) -> None:
        """A slow `process_chunk` costs a download nothing."""
        with self.server(lambda peer: peer.send_file(CONTENT)).client(timeout=TIMEOUT) as client:
            self.assertTrue(client.download_file("/a", self.here, process_chunk=self.process))
        self.assertEqual((self.here / "a").read_bytes(), CONTENT)

    def test_upload(self) -> None:
        """A slow `process_chunk` costs an upload nothing that the server allows."""
        got: list[bytes] = []

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            peer.say(m.Ready(0), stream)
            content, end = peer.content(stream)
            got.append(content)
            peer.say(end, stream)

        (self.here / "a").write_bytes(CONTENT)
        with self.server(script).client(timeout=TIMEOUT) as client:
            self.assertTrue(client.upload_file(self.here / "a", "/", process_chunk=self.process))
        self.assertEqual(got, [CONTENT])

    def test_iterators(self) -> None:
        """The time of listings, hashes and contents begins with their first step, and again with each."""
        entries = [m.Entry(RelPath((name,)), "file", 5, 9) for name in "ab"]
        hashes = [m.FileHash(RelPath((name,)), 5, bytes(32)) for name in "ab"]

        def script(peer: Peer) -> None:
            for kind, answers in (
                (m.List, [m.Entries([one]) for one in entries]),
                (m.Hash, [m.Hashes([one]) for one in hashes]),
            ):
                stream, _ = peer.hear(kind)
                for answer in (*answers, m.End()):
                    peer.say(answer, stream)
            peer.send_file(CONTENT)
            peer.next()

        with self.server(script).client(timeout=TIMEOUT) as client:
            counts = []
            for found in (client.entries("/"), client.hashes("/"), client.read("/a")):
                self.clock.wait()
                count = 0
                for one in found:
                    self.clock.wait()
                    count += len(one) if isinstance(one, bytes) else 1
                counts.append(count)
        self.assertEqual(counts, [2, 2, len(CONTENT)])

    def test_stalled_upload(self) -> None:
        """An upload that the server gave up, because its caller took so long, goes on as after a cut."""
        kept = bytearray()
        offsets: list[int] = []

        def script(peer: Peer) -> None:
            while True:
                stream, asked = peer.hear(m.Open)
                if isinstance(asked, m.Stat):
                    # It had said all before it heard of the reset: it looks whether that was enough.
                    peer.say(m.Reset(code(FileNotFoundError)), stream)
                    continue
                offsets.append(len(kept))
                peer.say(m.Ready(len(kept)), stream)
                if len(offsets) == 1:
                    while len(kept) < MIB:
                        kept.extend(getattr(peer.next(), "piece", b""))
                    peer.say(m.Reset(14, "took nothing for too long"), stream)
                    while peer.session.is_open(stream):
                        peer.next()
                    continue
                content, end = peer.content(stream)
                kept.extend(content)
                peer.say(end, stream)

        (self.here / "a").write_bytes(CONTENT)
        seen: list[bytes] = []
        server = self.server(script)
        with server.client() as client:
            done = client.upload_file(self.here / "a", "/", process_chunk=lambda data, *_: seen.append(data))
        self.assertTrue(done)
        self.assertEqual((bytes(kept), b"".join(seen)), (CONTENT, CONTENT))
        self.assertEqual((len(offsets), server.connections), (2, 1))

    def test_stalled_download(self) -> None:
        """A download that the server gave up, because its caller took so long, goes on where it was."""
        offsets: list[int] = []

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(len(CONTENT), 7, b"v1"), stream)
            peer.data(stream, CONTENT[:MIB])
            peer.say(m.Reset(14, "took nothing for too long"), stream)
            stream, asked = peer.hear(m.Read)
            offsets.append(asked.offset)
            peer.answer_read(stream, CONTENT, offset=asked.offset)

        with self.server(script).client() as client:
            self.assertTrue(client.download_file("/a", self.here, process_chunk=lambda *_: None))
        self.assertEqual((self.here / "a").read_bytes(), CONTENT)
        self.assertEqual(offsets, [MIB])

    def test_stalled_for_ever(self) -> None:
        """A server that gives up again and again, without progress, is a `TimeoutError`."""

        def script(peer: Peer) -> None:
            while True:
                stream, _ = peer.hear(m.Write)
                peer.say(m.Reset(14), stream)

        (self.here / "a").write_bytes(CONTENT)
        with self.server(script).client() as client:
            self.assertRaises(TimeoutError, client.upload_file, self.here / "a", "/")


class SilentServerTests(WaitingCase):
    """Servers that take too long."""

    def test_no_answer(self) -> None:
        """A server that never answers, or only talks of other things, has its time and no more."""

        def silent(peer: Peer) -> None:
            peer.hear(m.List)
            peer.next()

        def talking(peer: Peer) -> None:
            peer.hear(m.List)
            while True:
                peer.raw(m.encode(m.Pong(b"?")) * 100)

        def generous(peer: Peer) -> None:
            stream, _ = peer.hear(m.List)
            while True:
                peer.raw(m.encode(m.MoreCredit(1), stream) * 100)

        for script in (silent, talking, generous):
            with self.server(script).client() as client:
                self.assertRaises(TimeoutError, next, client.entries("/", timeout=50))

    def test_in_the_middle(self) -> None:
        """One that stops in the midst of a file has its time for the next piece."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(len(CONTENT), 7, b""), stream)
            peer.data(stream, CONTENT[:10])
            peer.next()

        with self.server(script).client() as client:
            pieces = client.read("/a", timeout=50)
            self.assertEqual(next(pieces), CONTENT[:10])
            self.assertRaises(TimeoutError, next, pieces)

    def test_dialling(self) -> None:
        """No connection in time is a `TimeoutError` with the number of its kind."""
        server = self.server(lambda peer: None)
        wait = Wait(TIMEOUT)
        error = self.assertRaises(
            TimeoutError, dial, "127.0.0.1", server.port, lambda address: self.clock.wait(), wait
        )
        self.assertEqual(error.errno, errno.ETIMEDOUT)
        self.assertIn(str(server.port), str(error))
