"""Bodies on their way to the disk: how much is in memory, who waits for whom, and every way to break off."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fileexport.crowd import SWEEP
from fileexport.errors import OverloadedError, PeerGone
from fileexport.http_receiving import (
    BUDGET,
    MAX_BODIES,
    MAX_WAITING,
    PIECE_COST,
    Receiver,
    check_length,
    holder_of,
    refuse_coding,
)
from fileexport.pools import Worker
from fileexport.tokens import Principal, Right
from fileexport.web.connection import BODY_TIME
from fileexport.web.failures import HttpError
from fileexport.web.failures import fail as fail_request
from fileexport.web.head import Head
from fileexport.web.intake import STEP
from fileexport.web.request import Request
from fileexport.web.site import Site
from tests.helpers import Held, Immediate
from tests.http_client import Connection, encode

LIMIT = 10 << 20
TEXT = b"text/plain"
PIECE = bytes(range(256)) * 256
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def announced(size: int, **fields: str) -> bytes:
    """The head of a request whose body has this size."""
    return encode("PUT", "/x", {"Content-Length": str(size), **fields}, b"")


class Busy(Immediate):
    """A worker that has no thread to give."""

    def run(self, function: Callable[..., Any], /, *args: object, **kwargs: object) -> Any:
        return fail(OverloadedError())


class ReceivingCase(SynchronousTestCase):
    """A site whose only answer is how many bytes it has handed on."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.site = Site(
            self.clock, self.serve, record=lambda request: None, now=lambda: 0.0, reads=lambda head: True
        )
        self.taken: list[bytes] = []
        self.problems: list[Exception] = []
        self.requests: list[Request] = []
        #: What stands for the disk.
        self.take: Callable[[bytes], object] = self.taken.append
        self.use(Immediate())

    def use(self, worker: Worker, most: int = MAX_BODIES) -> None:
        """Let bodies be written there from now on."""
        self.receiver = Receiver(worker, most)

    async def serve(self, request: Request) -> None:
        self.requests.append(request)
        try:
            with self.receiver.place() as place:
                count = await place.receive(request, self.take, limit=LIMIT)
        except PeerGone as error:
            self.problems.append(error)
            raise
        except Exception as error:
            self.problems.append(error)
            return fail_request(request, error, plain=True, prefix="")
        request.answer(HTTPStatus.OK, b"%d" % count, TEXT)

    def connect(self, *sent: bytes) -> Connection:
        """A connection on which this was sent."""
        connection = Connection(self.site, self.clock)
        connection.send(*sent)
        return connection


class FlowTests(ReceivingCase):
    """What is written when, and what is read meanwhile."""

    def test_whole(self) -> None:
        """A body of any size comes through in order, by its length and in chunks; the next one follows."""
        count = 40
        chunk = b"%x\r\n%s\r\n" % (len(PIECE), PIECE)
        chunked = b"PUT /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        streams = [
            [announced(count * len(PIECE)), *[PIECE] * count],
            [chunked, *[chunk] * count, b"0\r\n\r\n"],
        ]
        for stream in streams:
            self.taken.clear()
            connection = self.connect(*stream, announced(2) + b"ab")
            self.assertEqual(connection.receive().text, str(count * len(PIECE)))
            self.assertEqual(connection.receive().text, "2")
            self.assertEqual(b"".join(self.taken), PIECE * count + b"ab")
            self.assertFalse(connection.closed)

    def test_nothing(self) -> None:
        """A request without a body hands nothing on."""
        self.assertEqual(self.connect(encode("PUT", "/x", {}, b"")).receive().text, "0")
        self.assertEqual(self.taken, [])

    def test_bytes_alone(self) -> None:
        """However it is cut, it is the same."""
        stream = announced(20) + b"x" * 20
        connection = self.connect(*(stream[at : at + 1] for at in range(len(stream))))
        self.assertEqual(connection.receive().text, "20")
        self.assertEqual(b"".join(self.taken), b"x" * 20)

    def test_while_it_writes(self) -> None:
        """While a piece is written the next ones are collected to a bound, and nobody is read beyond it."""
        held = Held()
        self.use(held)
        count = 64
        connection = self.connect(announced(count * len(PIECE)), *[PIECE] * count)
        self.assertFalse(connection.wire.reading)
        self.assertEqual(self.taken, [])
        most = 0
        while not connection.wire.value():
            most = max(most, self.receiver.held)
            held.work()
            connection._deliver()
        self.assertEqual(b"".join(self.taken), PIECE * count)
        self.assertLessEqual(most, 2 * MAX_WAITING + 3 * len(PIECE))
        self.assertLess(len(self.taken), count / 4)
        self.assertEqual((self.receiver.held, self.receiver.open), (0, 0))

    def test_by_turns(self) -> None:
        """Who has not done with a piece is called again, behind whoever waits, and before the next piece."""
        held = Held()
        self.use(held)
        order: list[bytes] = []
        left = iter((True, True, False, False))

        def take(piece: bytes) -> bool:
            order.append(piece)
            return next(left)

        self.take = take
        connection = self.connect(announced(4), b"ab", b"cd")
        held.run(order.append, b"somebody else")
        held.work()
        held.work()
        self.assertEqual(order, [b"ab", b"somebody else", b""])
        held.work()
        held.work()
        self.assertEqual(order[3:], [b"", b"cd"])
        self.assertEqual((connection.receive().text, self.receiver.held), ("4", 0))

    def test_short_pieces(self) -> None:
        """Pieces of a byte or two are counted for what they take: they fill no memory either."""
        held = Held()
        self.use(held)
        connection = self.connect(announced(MAX_WAITING))
        count = 0
        while connection.wire.reading:
            connection.send(b"xy")
            count += 1
        self.assertLess(count, MAX_WAITING // PIECE_COST + STEP)
        self.assertLessEqual(self.receiver.held, MAX_WAITING + 2 * PIECE_COST)
        held.work()
        held.work()
        self.assertEqual(len(b"".join(self.taken)), 2 * count)

    def test_budget(self) -> None:
        """When all together hold too much, each has one piece at a time."""
        held = Held()
        self.use(held)
        self.receiver.held = BUDGET
        connection = self.connect(announced(4 * len(PIECE)), *[PIECE] * 4)
        self.assertEqual(self.receiver.held, BUDGET + len(PIECE) + PIECE_COST)
        while not connection.wire.value():
            held.work()
            connection._deliver()
        self.assertEqual([len(piece) for piece in self.taken], [len(PIECE)] * 4)
        self.assertEqual(self.receiver.held, BUDGET)

    def test_continue(self) -> None:
        """A client that waits for 100 gets it when its body is asked for; who has no place does not."""
        connection = self.connect(announced(2, Expect="100-continue"))
        self.assertEqual(connection.settle(), CONTINUE)
        connection.send(b"ab")
        self.assertEqual(connection.receive().text, "2")
        self.use(Immediate(), most=0)
        answer = self.connect(announced(2, Expect="100-continue")).receive()
        self.assertEqual((answer.status, answer.field("Retry-After")), (503, "10"))

    def test_places(self) -> None:
        """Who comes when all places are taken is asked to come again, and a place is free again after."""
        self.use(Immediate(), most=1)
        first = self.connect(announced(2) + b"a")
        self.assertEqual(self.connect(announced(2) + b"ab").receive().status, 503)
        first.send(b"b")
        self.assertEqual(first.receive().status, 200)
        self.assertEqual(self.connect(announced(2) + b"ab").receive().status, 200)
        self.assertEqual(self.receiver.open, 0)

    def test_reads_in_large_pieces(self) -> None:
        """A transport with a buffer reads larger pieces for a streamed body, and as before after it."""
        connection = Connection(self.site, self.clock)
        wire: Any = connection.wire
        wire.bufferSize = 1000
        connection.send(announced(2) + b"a")
        self.assertGreater(wire.bufferSize, 100_000)
        connection.send(b"b")
        self.assertEqual((connection.receive().status, wire.bufferSize), (200, 1000))


class BreakTests(ReceivingCase):
    """Whatever ends it, no write is left behind, and its place is free again."""

    def tearDown(self) -> None:
        self.assertEqual((self.receiver.held, self.receiver.open), (0, 0))

    def test_peer_leaves(self) -> None:
        """Who leaves while a piece is written: that and what came are written, then it is over."""
        held = Held()
        self.use(held)
        connection = self.connect(announced(100), b"abc", b"def")
        connection.lose()
        self.assertEqual(self.problems, [])
        held.work()
        self.assertEqual(self.problems, [])
        held.work()
        self.assertEqual([type(error) for error in self.problems], [PeerGone])
        self.assertEqual(self.taken, [b"abc", b"def"])

    def test_peer_leaves_before_it_is_read(self) -> None:
        """Who has left before anybody asks for the body is gone."""
        held = Held()
        self.use(held)
        connection = self.connect(announced(2 * len(PIECE) + MAX_WAITING), *[PIECE] * 9)
        self.assertFalse(connection.wire.reading)
        connection.lose()
        held.work()
        held.work()
        self.assertEqual([type(error) for error in self.problems], [PeerGone])

    def test_abort(self) -> None:
        """A request that is broken off from elsewhere ends as if its peer had left."""
        connection = self.connect(announced(100), b"abc")
        self.requests[0].abort()
        connection.turn()
        self.assertEqual([type(error) for error in self.problems], [PeerGone])
        self.assertEqual(self.taken, [b"abc"])

    def test_take_fails(self) -> None:
        """What the disk says is what is raised; nothing is handed on after it, and the connection ends."""

        def take(piece: bytes) -> None:
            self.taken.append(piece)
            raise OSError(28, "full")

        self.take = take
        held = Held()
        self.use(held)
        connection = self.connect(announced(100), b"abc", b"def")
        held.work()
        connection.send(b"ghi")
        answer = connection.receive()
        self.assertEqual((answer.status, answer.field("Connection")), (507, "close"))
        self.assertEqual(self.taken, [b"abc"])

    def test_last_take_fails(self) -> None:
        """So it is where the last piece fails."""

        def take(piece: bytes) -> None:
            raise OSError(28, "full")

        self.take = take
        held = Held()
        self.use(held)
        connection = self.connect(announced(3), b"abc")
        held.work()
        self.assertEqual(connection.receive().status, 507)

    def test_no_thread(self) -> None:
        """Where no thread is to be had the client may come again."""
        self.use(Busy())
        self.assertEqual(self.connect(announced(9), b"abc").receive().status, 503)

    def test_too_long(self) -> None:
        """A chunked body beyond the limit is 413, and the rest of it is not read."""
        head = b"PUT /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"%x\r\n%s\r\n" % (len(PIECE), PIECE)
        connection = self.connect(head, *[chunk] * (LIMIT // len(PIECE) + 1))
        self.assertEqual(connection.receive().status, 413)
        self.assertLessEqual(sum(map(len, self.taken)), LIMIT)

    def test_malformed(self) -> None:
        """A body that cannot be read is 400; what came before it was handed on."""
        head = b"PUT /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection = self.connect(head, b"3\r\nabc\r\n", b"zz\r\n")
        self.assertEqual(connection.receive().status, 400)
        self.assertEqual(self.taken, [b"abc"])


class PatienceTests(ReceivingCase):
    """How long a body may take."""

    def pass_time(self, seconds: float) -> None:
        """Let time pass, as the site's timer sees it."""
        for _ in range(int(seconds / SWEEP)):
            self.clock.advance(SWEEP)

    def test_long(self) -> None:
        """Who keeps sending may take longer than any deadline."""
        connection = self.connect(announced(10 * STEP))
        for _ in range(10):
            self.pass_time(BODY_TIME - 2)
            connection.send(b"x" * STEP)
        self.assertEqual(connection.receive().status, 200)

    def test_silent(self) -> None:
        """Who sends nothing for the time is told so, and what came was handed on."""
        connection = self.connect(announced(10 * STEP), b"x" * STEP)
        self.pass_time(BODY_TIME + 1)
        self.assertEqual(connection.receive().status, 408)
        self.assertEqual(self.taken, [b"x" * STEP])

    def test_trickle(self) -> None:
        """A byte now and then is not enough."""
        connection = self.connect(announced(10 * STEP))
        for _ in range(int(BODY_TIME) + 2):
            connection.send(b"x")
            self.pass_time(1)
        self.assertEqual(connection.receive().status, 408)

    def test_our_time(self) -> None:
        """The time that the disk takes is not counted against the peer."""
        held = Held()
        self.use(held)
        connection = self.connect(announced(MAX_WAITING + 3 * len(PIECE) + STEP), *[PIECE] * 11)
        self.assertFalse(connection.wire.reading)
        self.pass_time(10 * BODY_TIME)
        held.work()
        held.work()
        self.pass_time(BODY_TIME / 2)
        connection.send(b"x" * STEP)
        held.work()
        held.work()
        self.assertEqual(connection.receive().status, 200)


class FieldTests(ReceivingCase):
    """What is known of a body before it comes."""

    def request(self, **fields: bytes) -> Request:
        """A request with these fields."""
        lines = [(name.lower().replace("_", "-").encode(), value) for name, value in fields.items()]
        by_name: dict[bytes, list[bytes]] = {}
        for name, value in lines:
            by_name.setdefault(name, []).append(value)
        length = int(fields["content_length"]) if "content_length" in fields else None
        wire: Any = self.connect().channel
        return Request(wire, Head(b"PUT", b"/x", 1, lines, by_name, None, length), started=0, now=0)

    def test_length(self) -> None:
        """An announced length is told, and refused beyond the limit; without one it is not known."""
        self.assertEqual(check_length(self.request(content_length=b"5"), 5), 5)
        self.assertIsNone(check_length(self.request(), 5))
        with self.assertRaises(HttpError) as caught:
            check_length(self.request(content_length=b"6"), 5)
        self.assertEqual(caught.exception.status, 413)

    def test_coding(self) -> None:
        """Content in a coding is refused; identity is none."""
        refuse_coding(self.request())
        refuse_coding(self.request(content_encoding=b"identity"))
        for coding in (b"gzip", b"identity, br", b"x"):
            with self.assertRaises(HttpError) as caught:
                refuse_coding(self.request(content_encoding=coding))
            self.assertEqual(caught.exception.status, 415)

    def test_holder(self) -> None:
        """Others read who writes, and from where."""
        who = Principal.anonymous(Right.WRITE)
        self.assertEqual(holder_of(self.request(), who), "anonymous from 127.0.0.1")
