"""Pieces and ranges onto a connection."""

from __future__ import annotations

import os
import socket
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any, TypeVar

from twisted.internet import tcp
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from fileexport.disk.sender import PIECE, SLICE, STALL, Stalled, Valve, pump, send_span
from fileexport.errors import ChangedWhileRead, PeerGone
from fileexport.pools import Steps
from tests.helpers import Immediate, SlowTransport

T = TypeVar("T")


class Source:
    """Pieces that the test hands out one by one."""

    def __init__(self) -> None:
        self.asked: list[Deferred[bytes | None]] = []
        self.closed = 0

    def next(self) -> Deferred[bytes | None]:
        self.asked.append(Deferred())
        return self.asked[-1]

    async def close(self) -> None:
        self.closed += 1


class SenderCase(SynchronousTestCase):
    """Has a clock, a slow peer and a signal for its loss."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.peer = SlowTransport()
        self.lost: Deferred[None] = Deferred()

    def valve(self) -> Valve:
        return Valve(self.peer, self.clock, self.lost)

    def start(self, work: Coroutine[Deferred[object], object, T]) -> Deferred[T]:
        """Run a coroutine until it waits."""
        return Deferred.fromCoroutine(work)

    def settle(self, rounds: int = 100) -> None:
        """Let the peer take everything and the reactor turn, again and again."""
        for _ in range(rounds):
            self.peer.drain()
            self.clock.advance(0)

    def file(self, content: bytes) -> int:
        """A descriptor of a file with `content`, closed after the test."""
        descriptor = os.open(self.mktemp(), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, descriptor)
        os.write(descriptor, content)
        return descriptor

    async def span(self, descriptor: int, start: int, stop: int, peer: SlowTransport | None = None) -> int:
        """Send one span through a valve of its own."""
        with Valve(peer or self.peer, self.clock, self.lost) as valve:
            return await send_span(valve, descriptor, start, stop)

    async def pumped(self, pieces: Source | Steps[bytes]) -> int:
        """Pump through a valve of its own."""
        with self.valve() as valve:
            return await pump(valve, pieces)


class SpanTests(SenderCase):
    """A range of a descriptor."""

    def test_ranges(self) -> None:
        """Exactly the bytes of the range are written, and their number is the result."""
        content = os.urandom(5 * SLICE + 7)
        descriptor = self.file(content)
        ends = (0, 1, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE, len(content))
        for start in ends:
            for stop in (end for end in ends if end >= start):
                self.peer = SlowTransport()
                sending = self.start(self.span(descriptor, start, stop))
                self.settle()
                self.assertEqual(self.successResultOf(sending), stop - start)
                self.assertEqual(self.peer.value(), content[start:stop])

    def test_empty_range(self) -> None:
        """A range of no bytes ends at once and writes nothing, even of an empty file."""
        self.assertEqual(self.successResultOf(self.start(self.span(self.file(b""), 0, 0))), 0)
        self.assertEqual(self.peer.touched, 0)

    def test_descriptor_is_not_moved(self) -> None:
        """The descriptor stays where it was."""
        descriptor = self.file(b"0123456789")
        os.lseek(descriptor, 3, os.SEEK_SET)
        self.successResultOf(self.start(self.span(descriptor, 0, 10)))
        self.assertEqual(os.lseek(descriptor, 0, os.SEEK_CUR), 3)

    def test_others_get_their_turn(self) -> None:
        """Of two readers that are never full, each gets one slice and then waits for the other's."""
        order: list[str] = []
        sending = []
        descriptor = self.file(bytes(3 * SLICE))
        for name in ("a", "b"):
            peer = SlowTransport(100 * SLICE, partial(order.append, name))
            sending.append(self.start(self.span(descriptor, 0, 3 * SLICE, peer)))
        self.settle()
        for one in sending:
            self.successResultOf(one)
        self.assertEqual(order, ["a", "b"] * 3)

    def test_slow_reader(self) -> None:
        """No more than two slices ever wait for a slow reader."""
        sending = self.start(self.span(self.file(bytes(50 * SLICE)), 0, 50 * SLICE))
        for _ in range(10):
            self.clock.advance(0)
        self.assertEqual(self.peer.pending, 2 * SLICE)
        self.settle()
        self.successResultOf(sending)
        self.assertEqual(self.peer.highest, 2 * SLICE)

    def test_truncated(self) -> None:
        """A file that becomes shorter raises, with nothing but its own bytes written."""
        content = os.urandom(4 * SLICE)
        descriptor = self.file(content)
        sending = self.start(self.span(descriptor, 0, 4 * SLICE))
        os.ftruncate(descriptor, 2 * SLICE + 5)
        self.settle()
        self.failureResultOf(sending, ChangedWhileRead)
        self.assertEqual(self.peer.value(), content[: 2 * SLICE + 5])
        self.assertIsNone(self.peer.producer)

    def test_read_error(self) -> None:
        """An error of the disk reaches the caller, and the producer is taken off."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        self.failureResultOf(self.start(self.span(reader, 0, 1)), OSError)
        self.assertIsNone(self.peer.producer)

    def test_lost_while_full(self) -> None:
        """A reader that goes away while it is waited for ends the sending."""
        sending = self.start(self.span(self.file(bytes(9 * SLICE)), 0, 9 * SLICE))
        self.clock.advance(0)
        self.peer.lose()
        self.failureResultOf(sending, PeerGone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost_between_slices(self) -> None:
        """A reader that goes away during the reactor's turn ends the sending at the next one."""
        self.peer.buffer = 100 * SLICE
        sending = self.start(self.span(self.file(bytes(9 * SLICE)), 0, 9 * SLICE))
        self.peer.lose()
        self.clock.advance(0)
        self.failureResultOf(sending, PeerGone)
        self.assertEqual(self.peer.touched, 1)


class ValveTests(SenderCase):
    """The producer itself."""

    def test_push_producer(self) -> None:
        """It is registered as a push producer, and taken off at the end with its timer."""
        with self.valve() as valve:
            self.assertIs(self.peer.producer, valve)
            self.assertIs(self.peer.streaming, True)
        self.assertIsNone(self.peer.producer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_parts_share_a_valve(self) -> None:
        """One valve carries an answer of several parts in their order."""

        async def parts(descriptor: int) -> None:
            with self.valve() as valve:
                await valve.write(b"<")
                await send_span(valve, descriptor, 2, 5)
                await valve.write(b"|")
                await send_span(valve, descriptor, 0, 1)
                await valve.write(b">")

        self.successResultOf(self.start(parts(self.file(b"abcdef"))))
        self.assertEqual(self.peer.value(), b"<cde|a>")

    def test_write_in_slices(self) -> None:
        """A large write waits for the reader like everything else."""

        async def large() -> None:
            with self.valve() as valve:
                await valve.write(bytes(10 * SLICE))

        sending = self.start(large())
        self.assertEqual(self.peer.pending, 2 * SLICE)
        self.settle()
        self.successResultOf(sending)
        self.assertEqual(len(self.peer.value()), 10 * SLICE)

    def test_full_from_the_start(self) -> None:
        """An outlet that pauses its producer at once gets nothing until it resumes it."""

        async def write() -> None:
            with self.valve() as valve:
                valve.pauseProducing()
                await valve.write(b"x")

        sending = self.start(write())
        self.assertEqual(self.peer.value(), b"")
        self.peer.registered().resumeProducing()
        self.successResultOf(sending)
        self.assertEqual(self.peer.value(), b"x")

    def test_stall(self) -> None:
        """A reader that takes nothing for the whole deadline is given up, and not before."""
        sending = self.start(self.span(self.file(bytes(9 * SLICE)), 0, 9 * SLICE))
        self.clock.advance(0)
        self.clock.pump([STALL - 1, 0.5])
        self.assertNoResult(sending)
        self.clock.advance(0.5)
        self.failureResultOf(sending, Stalled)
        self.assertIsNone(self.peer.producer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow_is_not_stalled(self) -> None:
        """A reader that takes a little within each deadline is served to the end."""
        sending = self.start(self.span(self.file(bytes(9 * SLICE)), 0, 9 * SLICE))
        for _ in range(12):
            self.clock.pump([0, STALL - 1])
            self.peer.drain()
        self.successResultOf(sending)

    def test_deadline_counts_from_the_pause(self) -> None:
        """A pause that begins late in the timer's round has its whole deadline."""
        sending = self.start(self.span(self.file(bytes(9 * SLICE)), 0, 9 * SLICE))
        self.clock.pump([0, STALL - 1])
        self.peer.drain()
        self.clock.advance(0)
        self.clock.advance(STALL - 0.5)
        self.assertNoResult(sending)
        self.clock.advance(1)
        self.failureResultOf(sending, Stalled)

    def test_lost_signal(self) -> None:
        """The signal of the loss ends what waits, and its failure is not left unhandled."""
        sending = self.start(self.span(self.file(bytes(9 * SLICE)), 0, 9 * SLICE))
        self.clock.advance(0)
        self.lost.errback(Failure(ConnectionLost()))
        self.failureResultOf(sending, PeerGone)

    def test_lost_before(self) -> None:
        """An outlet that was lost before is not touched."""
        self.lost.errback(Failure(ConnectionLost()))
        self.failureResultOf(self.start(self.span(self.file(b"x"), 0, 1)), PeerGone)
        self.assertEqual((self.peer.touched, self.peer.producer), (0, None))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_signal_after_the_end(self) -> None:
        """A signal that comes after the end disturbs nobody."""
        self.successResultOf(self.start(self.span(self.file(b"x"), 0, 1)))
        self.lost.callback(None)
        self.assertEqual(self.peer.value(), b"x")

    def test_cancelled(self) -> None:
        """Cancelling takes the producer off; the outlet may resume it before that has any effect."""
        sending = self.start(self.span(self.file(bytes(9 * SLICE)), 0, 9 * SLICE))
        self.clock.advance(0)
        producer = self.peer.registered()
        sending.cancel()
        self.failureResultOf(sending, CancelledError)
        self.assertIsNone(self.peer.producer)
        producer.resumeProducing()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class DirectTests(SenderCase):
    """Ranges that go past Python, onto a real socket, whose transport the test calls as a reactor would."""

    def setUp(self) -> None:
        super().setUp()
        near, self.far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(self.far.close)
        near.setblocking(False)
        reactor: Any = MemoryReactorClock()
        port: Any = None
        self.transport = tcp.Server(near, Protocol(), ("127.0.0.1", 1), port, 0, reactor)

    def lend(self) -> object:
        """What the valve writes to (`Lender`)."""
        return self.transport

    def reclaim(self, sent: int) -> None:
        """Nobody wants it back (`Lender`)."""

    def sending(self) -> Deferred[int]:
        """Send more than the socket holds, and fill it."""
        size = 50 * PIECE
        descriptor = os.open(self.mktemp(), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, descriptor)
        os.truncate(descriptor, size)

        async def send() -> int:
            with Valve(self.peer, self.clock, self.lost, lender=self) as valve:
                return await send_span(valve, descriptor, 0, size)

        started = self.start(send())
        self.fill()
        return started

    def fill(self) -> None:
        """Write until the socket is full."""
        for _ in range(100):
            self.transport.doWrite()

    def test_stall(self) -> None:
        """A reader that takes nothing for the whole deadline is given up, and not before."""
        sending = self.sending()
        self.clock.advance(STALL - 0.5)
        self.assertNoResult(sending)
        self.clock.advance(0.5)
        self.failureResultOf(sending, Stalled)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow_is_not_stalled(self) -> None:
        """A reader that takes something late in the timer's round has a whole deadline again."""
        sending = self.sending()
        self.clock.advance(STALL - 1)
        self.assertTrue(self.far.recv(PIECE))
        self.fill()
        self.clock.advance(STALL - 0.5)
        self.assertNoResult(sending)
        self.clock.advance(0.5)
        self.failureResultOf(sending, Stalled)


class PumpTests(SenderCase):
    """Pieces of a stream."""

    def generate(self, count: int, size: int) -> Generator[bytes, None, None]:
        """`count` pieces; `made` counts them, `ended` says that the generator was left."""
        self.made = 0
        self.ended = False
        try:
            for number in range(count):
                self.made += 1
                yield bytes([number]) * size
        finally:
            self.ended = True

    def test_all_pieces(self) -> None:
        """Every piece arrives in its order, whatever its size."""
        for size in (1, SLICE, 5 * SLICE + 1):
            self.peer = SlowTransport()
            sending = self.start(self.pumped(Steps(Immediate(), self.generate(20, size))))
            self.settle()
            self.assertEqual(self.successResultOf(sending), 20 * size)
            self.assertEqual(self.peer.value(), b"".join(bytes([n]) * size for n in range(20)))
            self.assertTrue(self.ended)

    def test_no_pieces(self) -> None:
        """A stream of no pieces ends at once."""
        self.assertEqual(
            self.successResultOf(self.start(self.pumped(Steps(Immediate(), self.generate(0, 1))))), 0
        )

    def test_slow_reader(self) -> None:
        """Nothing is asked for while the reader is full."""
        sending = self.start(self.pumped(Steps(Immediate(), self.generate(50, SLICE))))
        self.assertEqual((self.made, self.peer.pending), (2, 2 * SLICE))
        self.clock.advance(1)
        self.assertEqual(self.made, 2)
        self.settle()
        self.successResultOf(sending)
        self.assertEqual(self.peer.highest, 2 * SLICE)

    def test_lost_in_the_middle(self) -> None:
        """A reader that goes away has the generator closed."""
        sending = self.start(self.pumped(Steps(Immediate(), self.generate(50, SLICE))))
        self.peer.lose()
        self.failureResultOf(sending, PeerGone)
        self.assertEqual((self.made, self.ended), (2, True))

    def test_lost_during_a_step(self) -> None:
        """A step that runs is waited for; then the source is closed and its last piece dropped."""
        source = Source()
        sending = self.start(self.pumped(source))
        self.peer.lose()
        self.assertNoResult(sending)
        self.assertEqual(source.closed, 0)
        source.asked[0].callback(b"late")
        self.failureResultOf(sending, PeerGone)
        self.assertEqual((source.closed, self.peer.value()), (1, b""))

    def test_source_fails(self) -> None:
        """What the source raises reaches the caller after the source was closed."""
        source = Source()
        sending = self.start(self.pumped(source))
        source.asked[0].callback(b"one")
        source.asked[1].errback(OSError("broken"))
        self.failureResultOf(sending, OSError)
        self.assertEqual((source.closed, self.peer.value(), self.peer.producer), (1, b"one", None))

    def test_stall(self) -> None:
        """A reader that takes nothing is given up and the generator closed."""
        sending = self.start(self.pumped(Steps(Immediate(), self.generate(50, SLICE))))
        self.clock.advance(STALL)
        self.failureResultOf(sending, Stalled)
        self.assertTrue(self.ended)

    def test_slow_source_is_no_stall(self) -> None:
        """The deadline is the reader's: a source may take its time."""
        source = Source()
        sending = self.start(self.pumped(source))
        self.clock.pump([STALL, STALL, STALL])
        source.asked[0].callback(b"at last")
        source.asked[1].callback(None)
        self.assertEqual(self.successResultOf(sending), 7)


class Streaming(Resource):
    """Answers with a span through a valve, as a route does."""

    isLeaf = True

    def __init__(self, clock: Clock, descriptor: int, length: int) -> None:
        Resource.__init__(self)
        self.clock, self.descriptor, self.length = clock, descriptor, length
        self.sending: Deferred[None] | None = None

    def render_GET(self, request: Request) -> int:
        self.sending = Deferred.fromCoroutine(self.answer(request))
        return NOT_DONE_YET

    async def answer(self, request: Request) -> None:
        with Valve(request, self.clock, request.notifyFinish()) as valve:
            await send_span(valve, self.descriptor, 0, self.length)
        request.finish()


class RequestTests(SenderCase):
    """A request of twisted.web as the outlet."""

    def request(self, content: bytes) -> Streaming:
        """Ask for `content` over a slow connection."""
        resource = Streaming(self.clock, self.file(content), len(content))
        self.channel = Site(resource, reactor=self.clock).buildProtocol(None)
        self.channel.makeConnection(self.peer)
        self.channel.dataReceived(b"GET / HTTP/1.0\r\n\r\n")
        return resource

    def test_whole_body(self) -> None:
        """The body arrives whole and never more than two slices and the header wait."""
        content = os.urandom(20 * SLICE)
        resource = self.request(content)
        self.settle()
        assert resource.sending is not None
        self.successResultOf(resource.sending)
        self.assertEqual(self.peer.value().partition(b"\r\n\r\n")[2], content)
        self.assertLess(self.peer.highest, 3 * SLICE)

    def test_connection_lost(self) -> None:
        """A connection lost in the middle ends the sending without another word to the request."""
        resource = self.request(bytes(20 * SLICE))
        self.clock.advance(0)
        self.peer.lose()
        self.channel.connectionLost(Failure(ConnectionLost()))
        self.clock.advance(0)
        assert resource.sending is not None
        self.failureResultOf(resource.sending, PeerGone)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_lost_without_a_word_to_the_producer(self) -> None:
        """A loss that only the request reports is noticed too."""
        resource = self.request(bytes(20 * SLICE))
        self.clock.advance(0)
        self.channel.connectionLost(Failure(ConnectionLost()))
        assert resource.sending is not None
        self.failureResultOf(resource.sending, PeerGone)
