"""The server of the transfer protocol: who may speak, until when, and what becomes of what was begun."""

from __future__ import annotations

import os
from typing import Any

from blake3 import blake3

from fileexport import transfer_output
from fileexport.disk.sender import STALL
from fileexport.errors import BadRequestError, CorruptedResponse, OverloadedError, PeerGone
from fileexport.lanes import MOST
from fileexport.transfer_connection import LINGER_TIME, PING_TIME, SILENCE
from fileexport.transfer_streams import Cancelled
from fileexport.wire import messages as m
from fileexport.wire.frames import PREFACE
from fileexport.wire.session import DEFAULT_OFFER
from tests.test_lanes import Later
from tests.transfer_peer import Peer, TransferCase, Wire, code, expect, path

MIB = 1 << 20


class ConversationTests(TransferCase):
    """What holds for all operations."""

    def test_many_at_once(self) -> None:
        """Streams do not wait for each other: two uploads whose pieces come in turns are both whole."""
        peer = self.client()
        first = peer.begin(m.Write(path("a"), 2000, 0))
        second = peer.begin(m.Write(path("b"), 2000, 0))
        for letter in (b"x", b"y"):
            peer.data(first, letter * 1000)
            peer.data(second, letter.upper() * 1000)
        peer.end(second, 2000, blake3(b"X" * 1000 + b"Y" * 1000).digest())
        peer.end(first, 2000, blake3(b"x" * 1000 + b"y" * 1000).digest())
        self.assertEqual((self.root / "a").read_bytes(), b"x" * 1000 + b"y" * 1000)
        self.assertEqual((self.root / "b").read_bytes(), b"X" * 1000 + b"Y" * 1000)

    def test_error(self) -> None:
        """An error ends its stream, with a sentence that names no path of the machine; others go on."""
        peer = self.client()
        last = self.assertReset(peer.ask(m.Stat(path("missing"))), FileNotFoundError)
        self.assertEqual(last.message, "there is no such file or directory")
        self.assertIsInstance(peer.ask(m.Stat(path("")))[-1], m.End)

    def test_unexpected(self) -> None:
        """What nobody expected is logged with its traceback, and the client learns only that it happened."""

        def broken(*args: Any) -> None:
            raise ZeroDivisionError("secret")

        self.patch(self.exports, "stat", broken)
        last = self.client().ask(m.Stat(path("")))[-1]
        self.assertEqual(last, m.Reset(17, "something failed on the server; its log says what"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unreadable(self) -> None:
        """An OPEN that is none is refused alone."""
        peer = self.client()
        stream = peer.session.open(m.Stat(path("a")))
        peer.raw(peer.session.take().replace(b"stat", b"spit"))
        self.assertReset(peer.said(stream), BadRequestError)
        self.assertIsInstance(peer.ask(m.Stat(path("")))[-1], m.End)

    def test_recorded(self) -> None:
        """Each operation is recorded once, with who asked for it and how it ended."""
        peer = self.client()
        peer.write("a", b"hello")
        peer.ask(m.Stat(path("b")))
        written, missing = self.done
        self.assertEqual(
            (expect(m.Write, written.operation).path, written.who, written.length, written.error),
            (path("a"), "alice", 5, None),
        )
        self.assertIsInstance(missing.error, FileNotFoundError)

    def test_order(self) -> None:
        """Changes happen in the order in which they were asked for, and a look sees those before it."""
        worker = Later()
        self.factory = self.make(worker)
        peer = self.client()
        peer.session.open(m.MakeDirectory(path("d")))
        peer.session.open(m.Rename(path("d"), path("e")))
        look = peer.session.open(m.Stat(path("e")))
        peer.turn()
        self.assertEqual(peer.said(look), [])
        while worker.waiting:
            worker.go_on()
            peer.turn()
        self.assertIsInstance(peer.said(look)[-1], m.End)


class CancelTests(TransferCase):
    """RESET from the client."""

    def setUp(self) -> None:
        super().setUp()
        self.later = Later()

    def slow(self) -> Peer:
        """A client whose operations begin when the test wants it."""
        self.factory = self.make(self.later)
        return self.client()

    def go_on(self, peer: Peer) -> None:
        """Carry out all that waits."""
        while self.later.waiting:
            self.later.go_on()
            peer.turn()

    def test_upload(self) -> None:
        """A cancelled upload leaves nothing, also no lease: the next one may come."""
        peer = self.client()
        stream = peer.begin(m.Write(path("a"), 2000, 0, source=b"x"))
        peer.data(stream, b"x" * 1000)
        peer.session.reset(stream)
        peer.turn()
        self.assertEqual(list((self.root / ".fileexport").iterdir()), [])
        self.assertIsInstance(self.done[0].error, Cancelled)
        self.assertIsInstance(peer.write("a", b"hello")[-1], m.End)

    def test_before_it_began(self) -> None:
        """What was cancelled before it began never happens."""
        peer = self.slow()
        stream = peer.begin(m.MakeDirectory(path("d")))
        peer.session.reset(stream)
        peer.turn()
        self.go_on(peer)
        self.assertFalse((self.root / "d").exists())

    def test_no_pile(self) -> None:
        """Operations that are cancelled at once count until their work has ended: work does not pile up."""
        peer = self.slow()
        for _ in range(DEFAULT_OFFER.streams):
            peer.session.reset(peer.begin(m.Hash(path(""))))
        late = peer.begin(m.Hash(path("")))
        self.assertReset(peer.said(late), OverloadedError)
        self.go_on(peer)
        last = peer.begin(m.Hash(path("")))
        self.go_on(peer)
        self.assertIsInstance(peer.said(last)[-1], m.End)

    def test_download(self) -> None:
        """A cancelled download sends nothing more, and the connection can be used on."""
        (self.root / "a").write_bytes(b"x" * MIB * 4)
        peer = self.client(offer=m.Offer(**{**DEFAULT_OFFER_FIELDS, "stream_credit": MIB}))
        self.patch(peer.session, "consumed", lambda stream, count: None)
        stream = peer.begin(m.Read(path("a")))
        self.assertEqual(sum(len(what) for what in peer.said(stream) if isinstance(what, bytes)), MIB)
        peer.session.reset(stream)
        peer.turn()
        self.assertEqual(self.done[-1].length, MIB)
        self.assertIsInstance(peer.ask(m.Stat(path("a")))[-1], m.End)

    def test_job(self) -> None:
        """Whoever waits for a job and cancels is not waited for."""
        peer = self.client()
        (self.root / "d").mkdir()
        job = expect(m.Jobs, peer.ask(m.Compress(path("d")))[0]).jobs[0]
        peer.ask(m.GetJob(job.id, 60))
        self.assertEqual(peer.server.working, {})


DEFAULT_OFFER_FIELDS = {
    name: getattr(DEFAULT_OFFER, name)
    for name in ("control", "data", "streams", "stream_credit", "connection_credit")
}


class LostTests(TransferCase):
    """The connection ends."""

    def parts(self) -> list[str]:
        """What lies in staging."""
        staging = self.root / ".fileexport"
        return sorted(one.name[:5] for one in staging.iterdir()) if staging.exists() else []

    def test_resumed(self) -> None:
        """What has come of an upload with a source is kept, and the next one goes on from there."""
        content = os.urandom(3 * MIB)
        peer = self.client()
        stream = peer.begin(m.Write(path("a"), len(content), 0, source=b"key"))
        peer.data(stream, content[:MIB])
        peer.lose()
        self.assertIn("part-", self.parts())
        peer = self.client()
        stream = peer.begin(m.Write(path("a"), len(content), 0, source=b"key"))
        self.assertEqual(peer.said(stream), [m.Ready(MIB)])
        peer.data(stream, content[MIB : 2 * MIB])
        peer.data(stream, content[2 * MIB :])
        peer.end(stream, len(content), blake3(content).digest())
        self.assertIsInstance(peer.said(stream)[-1], m.End)
        self.assertEqual((self.root / "a").read_bytes(), content)

    def test_what_was_queued(self) -> None:
        """What had arrived when the connection was lost is written too: it need not be sent again."""
        later = Later()
        self.factory = self.make(later)
        peer = self.client()
        stream = peer.session.open(m.Write(path("a"), 2 * MIB, 0, source=b"key"))
        peer.turn()
        later.go_on()
        peer.turn()
        peer.data(stream, b"x" * MIB)
        peer.lose()
        drained = self.factory.drain()
        self.assertNoResult(drained)
        while later.waiting:
            later.go_on()
            self.clock.advance(0)
        self.successResultOf(drained)
        self.assertEqual([one.stat().st_size for one in (self.root / ".fileexport").glob("part-*")], [MIB])

    def test_thrown_away(self) -> None:
        """Without a source nothing is kept of a file that is not whole; a small one that is stays."""
        peer = self.client()
        stream = peer.begin(m.Write(path("a"), 2000, 0))
        peer.data(stream, b"x" * 1000)
        small = peer.begin(m.WriteFiles(path("")))
        file = m.SmallFile(path("b"), 0, blake3(b"b").digest(), b"b")
        peer.session.send(m.Files([file]), small)
        peer.turn()
        peer.lose()
        self.assertEqual(self.parts(), [])
        self.assertEqual((self.root / "b").read_bytes(), b"b")
        self.assertFalse((self.root / "a").exists())
        self.assertEqual(self.factory.open, 0)

    def test_at_any_byte(self) -> None:
        """Wherever a conversation is cut, nothing stays open, and no part of a file has its name."""
        said = self.conversation()
        before = len(os.listdir("/proc/self/fd"))
        for cut in range(0, len(said), 7):
            peer = self.client()
            peer.server.dataReceived(said[:cut])
            peer.lose()
            self.assertFalse((self.root / "f").exists())
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(self.parts(), [])

    def conversation(self) -> bytes:
        """What a client says after it was let in: all but the last byte of an upload, and more."""
        peer = self.client()
        peer.reads = False
        session = peer.session
        session.open(m.List(path("")))
        session.open(m.MakeDirectory(path("d"), exist_ok=True))
        stream = session.open(m.Write(path("f"), 600, 0))
        session.data_header(stream, 600)
        return session.take() + b"x" * 600


class EndTests(TransferCase):
    """How a connection ends, and when."""

    def test_stop(self) -> None:
        """A stop says GOAWAY, lets what was begun end, begins nothing more and closes."""
        peer = self.client()
        stream = peer.begin(m.Write(path("a"), 1000, 0))
        drained = self.factory.drain()
        peer.turn()
        self.assertIsInstance(peer.got[-1][1], m.GoAway)
        self.assertFalse(peer.is_closed)
        peer.data(stream, b"x" * 1000)
        peer.end(stream, 1000, blake3(b"x" * 1000).digest())
        self.assertIsInstance(peer.got[-1][1], m.End)
        self.assertTrue(peer.is_closed)
        self.assertNoResult(drained)
        peer.lose()
        self.successResultOf(drained)
        self.assertIsNone(self.factory.buildProtocol(None))

    def test_stop_idle(self) -> None:
        """Connections on which nothing goes on are closed at once by a stop, strangers too."""
        peers = self.client(), self.connect()
        self.factory.drain()
        self.assertTrue(all(peer.is_closed for peer in peers))

    def test_broken_off(self) -> None:
        """When the time for a stop is over, what still goes on is cut."""
        peer = self.client()
        peer.begin(m.Write(path("a"), 1000, 0))
        drained = self.factory.drain()
        self.factory.break_all()
        self.assertTrue(peer.transport.aborted)
        peer.lose()
        self.successResultOf(drained)

    def test_clients_goodbye(self) -> None:
        """When the client says GOAWAY, its last operations end, and then the connection."""
        peer = self.client()
        stream = peer.begin(m.Write(path("a"), 1000, 0))
        peer.session.leave()
        peer.turn()
        self.assertFalse(peer.is_closed)
        peer.data(stream, b"x" * 1000)
        peer.end(stream, 1000, blake3(b"x" * 1000).digest())
        self.assertTrue(peer.is_closed)

    def test_garbage(self) -> None:
        """Whoever does not speak the protocol is told so, and the connection ends."""
        for said in (b"GET / HTTP/1.1\r\n\r\n", PREFACE + b"\xff" * 12, PREFACE + bytes(12)):
            server: Any = self.factory.buildProtocol(None)
            transport = Wire()
            server.makeConnection(transport)
            self.addCleanup(server.connectionLost)
            server.dataReceived(said)
            self.assertTrue(transport.disconnecting)
            transport.clear()
            server.dataReceived(said)
            self.assertEqual(transport.value(), b"")

    def test_broken_later(self) -> None:
        """The same after it was let in: it learns why, and what it had begun is given up."""
        peer = self.client()
        peer.begin(m.Write(path("a"), 1000, 0))
        peer.raw(b"\0\0\0\0\x7f\0\0\0\0\0\0\0")
        last = expect(m.GoAway, peer.got[-1][1])
        self.assertEqual(last.code, code(CorruptedResponse))
        self.clock.advance(1)
        self.clock.pump([1.0] * int(LINGER_TIME))
        self.assertTrue(peer.transport.aborted)
        peer.lose()
        self.assertEqual(len(self.done), 1)

    def test_broken_at_work(self) -> None:
        """Work that ends after its client broke the protocol answers nobody, and is no error of ours."""
        later = Later()
        self.factory = self.make(later)
        peer = self.client()
        peer.begin(m.Stat(path("")))
        peer.raw(b"\0\0\0\0\x7f\0\0\0\0\0\0\0")
        later.go_on()
        self.assertIsInstance(self.done[0].error, PeerGone)
        self.assertEqual(peer.server.working, {})

    def test_silence(self) -> None:
        """A silent client is asked whether it is there; if it says nothing, the connection ends."""
        quiet, polite = self.client(), self.client()
        quiet.reads = False
        for _ in range(int(SILENCE) + 1):
            self.clock.advance(1)
            polite.turn()
        self.assertTrue(quiet.transport.aborted)
        self.assertIn(b"\x08\x00\x00\x00", quiet.transport.value())
        self.assertFalse(polite.transport.aborted)
        self.assertGreater(SILENCE, PING_TIME)

    def test_stalled_upload(self) -> None:
        """An upload of which nothing comes for too long ends; what has come is kept for its source."""
        peer = self.client()
        stream = peer.begin(m.Write(path("a"), 2000, 0, source=b"key"))
        peer.data(stream, b"x" * 1000)
        for _ in range(int(STALL) + 2):
            self.clock.advance(1)
            peer.turn()
        self.assertReset(peer.said(stream), TimeoutError)
        stream = peer.begin(m.Write(path("a"), 2000, 0, source=b"key"))
        self.assertEqual(peer.said(stream), [m.Ready(1000)])


class PressureTests(TransferCase):
    """Who cannot keep up makes the other wait."""

    def test_full_lane(self) -> None:
        """When the disk does not keep up, nothing is read from the network until it has caught up."""
        later = Later()
        self.factory = self.make(later)
        peer = self.client()
        stream = peer.begin(m.Write(path("a"), 8 * MIB, 0))
        for _ in range(MOST // MIB):
            self.assertEqual(peer.transport.producerState, "producing")
            peer.data(stream, b"x" * MIB)
        self.assertEqual(peer.transport.producerState, "paused")
        while later.waiting:
            later.go_on()
            self.clock.advance(0)
        self.assertEqual(peer.transport.producerState, "producing")

    def test_no_credit(self) -> None:
        """Content is sent as far as the client has given credit, and goes on with more."""
        (self.root / "a").write_bytes(b"x" * 3000)
        offer = m.Offer(**{**DEFAULT_OFFER_FIELDS, "stream_credit": 1000})
        peer = self.client(offer=offer)
        held: list[tuple[int, int]] = []
        consumed = peer.session.consumed
        self.patch(peer.session, "consumed", lambda *args: held.append(args))
        stream = peer.begin(m.Read(path("a")))
        self.assertEqual([len(what) for what in peer.said(stream) if isinstance(what, bytes)], [1000])
        while held:
            consumed(*held.pop())
            peer.turn()
        self.assertIsInstance(peer.said(stream)[-1], m.End)

    def test_no_credit_for_too_long(self) -> None:
        """A stream that gets no credit for too long ends alone, and gives its file back."""
        (self.root / "a").write_bytes(b"x" * 3000)
        peer = self.client(offer=m.Offer(**{**DEFAULT_OFFER_FIELDS, "stream_credit": 1000}))
        self.patch(peer.session, "consumed", lambda *args: None)
        stream = peer.begin(m.Read(path("a")))
        for _ in range(int(STALL) + 2):
            self.clock.advance(1)
            peer.turn()
        self.assertReset(peer.said(stream), TimeoutError)
        self.assertFalse(peer.is_closed)

    def test_unread_answers(self) -> None:
        """A client that asks and never reads is not read from any more, and given up after a while."""
        self.patch(transfer_output, "MAX_UNSENT", 4096)
        peer = self.client()
        peer.server._output.pauseProducing()
        peer.reads = False
        for _ in range(100):
            if peer.transport.producerState == "paused":
                break
            for _ in range(8):
                peer.session.send(m.Ping(b"x" * 64))
            peer.server.dataReceived(peer.session.take())
        self.assertLess(len(peer.transport.value()), 3 * 4096)
        self.assertEqual(peer.transport.producerState, "paused")
        peer.server._output.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(peer.transport.producerState, "producing")

    def test_reads_nothing(self) -> None:
        """A client that takes nothing for too long is given up."""
        peer = self.client()
        peer.server._output.pauseProducing()
        for _ in range(int(STALL) + 2):
            self.clock.advance(1)
        self.assertTrue(peer.transport.aborted)
