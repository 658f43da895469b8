"""Bodies that a route reads: whole, piece by piece, on time and too late, wanted and refused."""

from __future__ import annotations

from http import HTTPStatus

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fileexport.crowd import SWEEP
from fileexport.errors import PeerGone
from fileexport.web.connection import BODY_TIME
from fileexport.web.failures import fail
from fileexport.web.head import Head, MalformedRequest
from fileexport.web.request import Request
from fileexport.web.site import Site
from tests.http_client import Connection, encode

LIMIT = 100
TEXT = b"text/plain"
HELLO = encode("POST", "/echo", {}, b"hello")
CHUNKED = (
    b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: x\r\n\r\n"
)
GET = encode("GET", "/other", {}, b"")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECTS = {"Expect": "100-continue", "Content-Length": "5"}


class BodyTests(SynchronousTestCase):
    """`/echo` reads its body and answers with it; `/refuse` refuses without reading it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.problems: list[BaseException] = []
        self.records: list[Request] = []
        self.site = Site(
            self.clock,
            self.serve,
            record=self.records.append,
            now=lambda: 0.0,
            reads=lambda head: head.target != b"/other",
        )
        self.connection = Connection(self.site, self.clock)

    async def serve(self, request: Request) -> None:
        if request.path == b"/refuse":
            return request.answer(HTTPStatus.UNAUTHORIZED, b"no", TEXT)
        try:
            body = await request.read_body(LIMIT)
        except MalformedRequest as error:
            return fail(request, error, plain=True, prefix="")
        except PeerGone as error:
            self.problems.append(error)
            raise
        request.answer(HTTPStatus.OK, b"<" + body + b">", TEXT)

    def answers(self, *pieces: bytes) -> list[tuple[int, bytes]]:
        """Status and body of all answers to what is sent, in these pieces, on a new connection."""
        self.connection = Connection(self.site, self.clock)
        self.connection.send(*pieces)
        found: list[tuple[int, bytes]] = []
        while True:
            try:
                answer = self.connection.receive()
            except AssertionError:
                return found
            found.append((answer.status, answer.body))

    def test_forms(self) -> None:
        """A body is read by its length or in chunks, whole, byte by byte, between other requests."""
        for request in (HELLO, CHUNKED):
            stream = GET + request + request + GET
            expected = [(200, b"<>"), (200, b"<hello>"), (200, b"<hello>"), (200, b"<>")]
            self.assertEqual(self.answers(stream), expected)
            self.assertEqual(self.answers(*(stream[i : i + 1] for i in range(len(stream)))), expected)
            self.assertFalse(self.connection.closed)

    def test_none(self) -> None:
        """Without a body there is nothing to read, and the connection goes on."""
        self.assertEqual(self.answers(encode("POST", "/echo", {}, b"") + GET), [(200, b"<>"), (200, b"<>")])
        self.assertFalse(self.connection.closed)

    def test_too_long(self) -> None:
        """A body beyond the limit is 413 as soon as that is known, and the connection ends."""
        long = encode("POST", "/echo", {"Content-Length": str(LIMIT + 1)}, b"")
        chunks = CHUNKED.partition(b"\r\n\r\n")[0] + b"\r\n\r\n65\r\n" + b"x" * (LIMIT + 1)
        for request in (long, chunks):
            self.assertEqual([status for status, _ in self.answers(request)], [413])
            self.assertTrue(self.connection.closed or self.connection.wire.disconnecting)
        exact = encode("POST", "/echo", {}, b"x" * LIMIT)
        self.assertEqual(self.answers(exact), [(200, b"<" + b"x" * LIMIT + b">")])

    def test_malformed(self) -> None:
        """A chunk that cannot be read is 400, and nothing behind it is taken for a request."""
        broken = CHUNKED.replace(b"2;x=y", b"zz") + GET
        self.assertEqual([status for status, _ in self.answers(broken)], [400])

    def test_refused_before_it_came(self) -> None:
        """Who is refused without being read gets the answer at once, and it is the last."""
        self.assertEqual(self.answers(HELLO.replace(b"/echo", b"/refuse") + GET), [(401, b"no")])
        self.assertEqual(self.answers(HELLO.replace(b"/echo", b"/refuse")[:-5]), [(401, b"no")])

    def test_continue(self) -> None:
        """100 is sent when the body is wanted, once, and never when it has begun to come or is refused."""
        asking = encode("POST", "/echo", EXPECTS, b"")
        self.connection.send(asking)
        self.assertEqual(self.connection.settle(), CONTINUE)
        self.connection.send(b"hel")
        self.assertEqual(self.connection.settle(), b"")
        self.connection.send(b"lo")
        self.assertEqual(self.connection.receive().body, b"<hello>")
        self.assertEqual(
            self.answers(asking + b"hello" + asking + b"again"), [(200, b"<hello>"), (200, b"<again>")]
        )
        self.assertEqual(self.answers(asking.replace(b"/echo", b"/refuse")), [(401, b"no")])

    def test_too_slow(self) -> None:
        """A body that trickles is 408 when its time is over, however lively its sender."""
        self.connection.send(encode("POST", "/echo", {"Content-Length": "90"}, b""))
        for _ in range(int(BODY_TIME / SWEEP) + 2):
            self.connection.send(b"x")
            self.clock.advance(SWEEP)
        self.assertEqual(self.connection.receive().status, 408)

    def test_gone(self) -> None:
        """A peer that leaves in the middle ends the reading, and is recorded once."""
        self.connection.send(HELLO[:-2])
        self.connection.lose()
        self.assertEqual([type(error) for error in self.problems], [PeerGone])
        self.assertEqual(len(self.records), 1)

    def test_backpressure(self) -> None:
        """What nobody takes yet is held up to a bound, then the peer is not read any more."""
        waiting: list[Request] = []

        async def serve(request: Request) -> None:
            waiting.append(request)

        self.site.serve = serve
        self.connection.send(encode("POST", "/echo", {"Content-Length": "9999999"}, b""))
        self.connection.send(*[b"x" * 30_000] * 10)
        self.assertFalse(self.connection.wire.reading)
        self.assertEqual(len(waiting), 1)
        taken = len(self.successResultOf(waiting[0].wire.receive()))
        self.assertLess(taken, 100_000)

    def test_head_says_who_reads(self) -> None:
        """The site is asked with the head itself whether its body is read."""
        seen: list[Head] = []

        def reads(head: Head) -> bool:
            seen.append(head)
            return False

        self.site.reads = reads
        self.assertEqual(self.answers(HELLO), [(200, b"<>")])
        self.assertEqual([(head.method, head.target, head.length) for head in seen], [(b"POST", b"/echo", 5)])
