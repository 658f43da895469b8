"""Connections and requests: limits, order, stopping, and peers that go away."""

from __future__ import annotations

import os
from collections.abc import Sequence
from random import Random

from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent

from fileexport.disk.sender import STALL
from fileexport.web.connection import IDLE_TIME
from fileexport.web.head import MAX_FIELDS, MAX_FIELDS_SIZE, MAX_HEAD, MAX_LINE
from fileexport.web.intake import MAX_IGNORED_BODY
from fileexport.web.request import MAX_PARAMETERS
from tests.helpers import Held
from tests.http_client import Connection, HttpCase, HttpHarness, encode

#: Larger than all buffers, compressed as well.
LARGE = Random(0).randbytes(3_000_000)
GET_SMALL = encode("GET", "/small", {}, b"")
GET_LARGE = encode("GET", "/large", {}, b"")
DELETE = "/delete?dir=/&name=small"


class RequestCase(HttpCase):
    """Has a small and a large file."""

    def setUp(self) -> None:
        super().setUp()
        self.small = self.write("small", b"small file")
        self.large = self.write("large", LARGE)
        self.web = self.harness()

    def begin(self, request: bytes = GET_LARGE, web: HttpHarness | None = None) -> Connection:
        """A connection on which an answer has begun and waits for its peer."""
        connection = (web or self.web).connect()
        connection.send(request)
        connection.turn()
        begun = connection.wire.value()
        self.assertIn(begun[:12], (b"HTTP/1.1 200", b"HTTP/1.1 206"))
        self.assertLess(len(begun), len(LARGE))
        return connection


class LimitTests(RequestCase):
    """What one request may make us keep."""

    def assertRefused(self, status: int, *pieces: bytes) -> None:
        """The request is answered so, once, its connection is closed, and nothing was done."""
        connection = self.web.connect()
        connection.send(*pieces)
        answer = connection.receive()
        self.assertEqual((answer.status, answer.field("Connection")), (status, "close"))
        self.assertEqual(answer.field("X-Content-Type-Options"), "nosniff")
        self.assertEqual(connection.settle(), b"")
        self.assertTrue(connection.closed)
        self.assertTrue(self.small.exists())

    def test_body_too_large(self) -> None:
        """A body that is announced as too large is 413 before it comes, and nothing is processed."""
        for method in ("POST", "DELETE"):
            head = encode(method, DELETE, {"Content-Length": str(MAX_IGNORED_BODY + 1)}, b"")
            self.assertRefused(413, head)
            self.assertRefused(413, head + b"x" * (MAX_IGNORED_BODY + 1) + GET_SMALL)
        self.assertRefused(413, encode("POST", DELETE, {"Content-Length": "9" * 30}, b""))

    def test_chunked_body_too_large(self) -> None:
        """A body of unknown length is 413 as soon as it is too large, in one piece and in many."""
        head = encode("POST", DELETE, {"Transfer-Encoding": "chunked"}, b"")
        chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
        chunks = [chunk] * (MAX_IGNORED_BODY // 4096) + [b"1\r\nx\r\n", b"0\r\n\r\n"]
        self.assertRefused(413, head, *chunks)
        self.assertRefused(413, b"".join((head, *chunks, GET_SMALL)))

    def test_body_that_is_ignored(self) -> None:
        """A body within the limit is read and dropped, and the next request is understood."""
        connection = self.web.connect()
        body = b"GET /delete HTTP/1.1\r\n\r\n".ljust(MAX_IGNORED_BODY, b"x")
        connection.send(encode("POST", DELETE, {}, body) + GET_SMALL)
        self.assertEqual(connection.receive().text, "deleted 1 file")
        self.assertEqual(connection.receive().status, 404)
        chunked = encode("GET", "/-/health", {"Transfer-Encoding": "chunked"}, b"")
        connection.send(chunked, b"3\r\nabc\r\n", b"0\r\n\r\n")
        self.assertEqual(connection.receive().text, "ok")

    def test_malformed_chunk(self) -> None:
        """A chunk that is none is 400, and its request is not processed."""
        head = encode("POST", DELETE, {"Transfer-Encoding": "chunked"}, b"")
        for chunk in (b"zz\r\n", b"-1\r\n", b"3\r\nabcdef\r\n0\r\n\r\n"):
            self.assertRefused(400, head, chunk)

    def test_too_many_header_bytes(self) -> None:
        """More header than fits is 431, in many fields and in one; a request line that is too long is 414."""
        fields = {f"X-{number}": "x" * 1000 for number in range(MAX_FIELDS_SIZE // 1000 + 1)}
        self.assertRefused(431, encode("GET", DELETE, fields, b""))
        self.assertRefused(431, encode("GET", DELETE, {"X": "x" * MAX_FIELDS_SIZE}, b""))
        self.assertRefused(414, encode("GET", DELETE + "x" * MAX_LINE, {}, b""))

    def test_line_without_end(self) -> None:
        """A line that does not end is not collected for ever."""
        self.assertRefused(414, b"GET /" + b"x" * MAX_LINE)
        self.assertRefused(431, b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD)

    def test_too_many_fields(self) -> None:
        """One field more than is allowed is 431; as many as are allowed are fine."""
        fields = {f"X-{number}": "x" for number in range(MAX_FIELDS - 1)}
        self.assertEqual(self.web.get("/small", fields).status, 200)
        self.assertRefused(431, encode("GET", DELETE, fields | {"X": "x"}, b""))

    def test_parameters(self) -> None:
        """Too many parameters are 400, and so is one that stands twice, in any spelling."""
        many = [f"p{number}" for number in range(MAX_PARAMETERS)]
        self.assertEqual(self.web.get("/small?" + "&".join(many)).status, 200)
        self.assertEqual(self.web.get("/small?" + "&".join([*many, "one=more"])).status, 400)
        for query in ("a=1&a=2", "a&a", "a=1&%61=2", "a+b=1&a%20b=1"):
            self.assertEqual(self.web.get("/small?" + query).status, 400, query)
        self.assertEqual(self.web.get("/small?&&a=1&&b=&&").status, 200)

    def test_no_http(self) -> None:
        """What is no HTTP gets 400 and the end of the connection."""
        for line in (
            b"nonsense",
            b"GET",
            b"GET /",
            b"GET  / HTTP/1.1",
            b"\x16\x03\x01 a b",
        ):
            self.assertRefused(400, line + b"\r\n\r\n" + GET_SMALL)
        for field in (b"no colon", b": empty", b"spa ce: x", b"X: a\x00b", b"Content-Length: -1"):
            self.assertRefused(400, b"GET %s HTTP/1.1\r\n%s\r\n\r\n" % (DELETE.encode(), field) + GET_SMALL)
        both = {"Content-Length": "3", "Transfer-Encoding": "chunked"}
        self.assertRefused(400, encode("POST", DELETE, both, b"") + b"0\r\n\r\n")


class OrderTests(RequestCase):
    """Several requests on one connection."""

    def test_keep_alive(self) -> None:
        """One connection serves one request after the other, errors and redirects among them."""
        connection = self.web.connect()
        for target, status in (("/small", 200), ("/nope", 404), ("/delete", 400), ("/?json", 200)):
            connection.send(encode("GET", target, {}, b""))
            self.assertEqual(connection.receive().status, status)
        self.assertFalse(connection.closed)

    def test_pipelining(self) -> None:
        """Requests that come at once are answered in their order, a large answer before a small one."""
        connection = self.web.connect()
        head = encode("HEAD", "/small", {}, b"")
        connection.send(GET_SMALL + GET_LARGE + head + encode("GET", "/nope", {}, b"") + GET_SMALL)
        self.assertEqual(connection.receive().body, b"small file")
        self.assertEqual(connection.receive().body, LARGE)
        self.assertEqual(connection.receive(head=True).status, 200)
        self.assertEqual(connection.receive().status, 404)
        self.assertEqual(connection.receive().body, b"small file")
        targets = [target for _, target, _ in self.web.recorded]
        self.assertEqual(targets, ["/small", "/large", "/small", "/nope", "/small"])

    def test_pipelining_waits(self) -> None:
        """A request that waits for a pool is answered before those behind it, which are not begun."""
        worker = Held()
        web = self.harness(worker=worker)
        connection = web.connect()
        connection.send(encode("GET", "/list?dir=/", {}, b"") + encode("GET", "/-/health", {}, b""))
        self.assertEqual(connection.settle(), b"")
        worker.work()
        self.assertIn(b"small", connection.receive().body)
        self.assertEqual(connection.receive().text, "ok")

    def test_many_requests_at_once(self) -> None:
        """A thousand requests in one piece are answered, each once."""
        connection = self.web.connect()
        connection.send(encode("GET", "/-/health", {}, b"") * 1000)
        self.assertEqual([connection.receive().text for _ in range(1000)], ["ok"] * 1000)
        self.assertEqual(connection.settle(), b"")

    def test_byte_by_byte(self) -> None:
        """A request may come byte by byte."""
        connection = self.web.connect()
        connection.send(*(bytes([byte]) for byte in GET_SMALL * 2))
        self.assertEqual([connection.receive().body for _ in range(2)], [b"small file"] * 2)

    def test_close(self) -> None:
        """Who asks for the end of the connection, or speaks HTTP/1.0, gets it behind the answer."""
        connection = self.web.connect()
        connection.send(encode("GET", "/large", {"Connection": "close"}, b"") + GET_SMALL)
        answer = connection.receive()
        self.assertEqual((answer.body, answer.field("Connection")), (LARGE, "close"))
        self.assertEqual((connection.settle(), connection.closed), (b"", True))
        old = self.web.raw(b"GET /small HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + GET_SMALL)
        self.assertEqual((old[:8], old.count(b"HTTP/1."), old[-10:]), (b"HTTP/1.1", 1, b"small file"))

    def test_idle(self) -> None:
        """A connection on which nothing comes is closed, a long answer on it is not."""
        idle, busy = self.web.connect(), self.begin()
        busy.wire.drain()
        for _ in range(4):
            busy.turn()
            self.web.clock.advance(IDLE_TIME / 4)
        idle.turn()
        self.assertTrue(idle.closed)
        self.assertFalse(busy.closed)
        self.assertEqual(busy.receive().body, LARGE)


class DrainTests(RequestCase):
    """Stopping."""

    def drain(self) -> list[None]:
        """Begin to drain; the list has an element when that is done."""
        done: list[None] = []
        self.web.site.drain().addCallback(done.append)
        return done

    def test_nothing_open(self) -> None:
        """Without connections it is done at once, and as often as it is asked."""
        self.assertEqual((self.drain(), self.drain()), ([None], [None]))

    def test_idle_connections(self) -> None:
        """Idle connections are closed, used before or not, and no new one is made."""
        fresh, used = self.web.connect(), self.web.connect()
        used.send(GET_SMALL)
        used.receive()
        done = self.drain()
        for connection in (fresh, used):
            connection.turn()
            self.assertEqual((connection.closed, connection.aborted), (True, False))
        self.assertEqual(done, [None])
        self.assertIsNone(self.web.site.buildProtocol(fresh.wire.getPeer()))

    def test_answer_in_flight(self) -> None:
        """An answer that has begun is completed, then its connection closes, and the draining is done."""
        connection = self.begin(GET_LARGE + GET_SMALL)
        done = self.drain()
        self.assertEqual(connection.receive().body, LARGE)
        self.assertEqual((connection.settle(), connection.closed, connection.aborted), (b"", True, False))
        self.assertEqual(done, [None])

    def test_answer_that_has_not_begun(self) -> None:
        """An answer that begins only now says that it is the last."""
        worker = Held()
        self.web = self.harness(worker=worker)
        connection = self.web.connect()
        connection.send(encode("GET", "/list?dir=/", {}, b""))
        done = self.drain()
        connection.settle()
        self.assertEqual((connection.closed, done), (False, []))
        worker.work()
        self.assertEqual(connection.receive().field("Connection"), "close")
        connection.settle()
        self.assertEqual((connection.closed, done), (True, [None]))

    def test_part_of_a_head(self) -> None:
        """A connection without a whole head is closed at once: there is no request that could be answered."""
        for used in (b"", GET_SMALL):
            for part in (b"\r\n", b"\r\n\r\n", b"G", b"GET", GET_SMALL[:-1], b"\r\n\r\n" + GET_SMALL[:-1]):
                self.web = self.harness()
                connection = self.web.connect()
                connection.send(used, part)
                recorded = len(self.web.recorded)
                done = self.drain()
                connection.settle()
                self.assertEqual((connection.closed, connection.aborted, done), (True, False, [None]), part)
                self.assertEqual(len(self.web.recorded), recorded)

    def test_head_that_waits(self) -> None:
        """A head that is whole, but waits until the answer before it is taken, is answered as the last."""
        for rest, statuses in ((GET_SMALL * 2, [200]), (b"nonsense\r\n\r\n", [400]), (GET_SMALL[:-1], [])):
            self.web = self.harness()
            connection = self.web.connect()
            while connection.wire.pending <= connection.wire.buffer:
                connection.send(encode("GET", "/-/health", {}, b""))
            connection.send(rest)
            self.web.recorded.clear()
            done = self.drain()
            self.assertFalse(connection.closed)
            connection.settle()
            self.assertEqual([status for _, _, status in self.web.recorded], statuses, rest)
            self.assertEqual((connection.closed, connection.aborted, done), (True, False, [None]))

    def test_part_of_a_body(self) -> None:
        """A request of whose body a part has come is answered when the rest comes, as the last."""
        connection = self.web.connect()
        connection.send(encode("GET", "/small", {"Content-Length": "5"}, b"bo"))
        done = self.drain()
        connection.settle()
        self.assertFalse(connection.closed)
        connection.send(b"dy." + GET_SMALL)
        answer = connection.receive()
        self.assertEqual((answer.body, answer.field("Connection")), (b"small file", "close"))
        self.assertEqual((connection.settle(), connection.closed, done), (b"", True, [None]))

    def test_break_all(self) -> None:
        """What is still open can be broken, and then the draining is done; nobody takes it for complete."""
        connections = [self.begin(), self.begin(), self.web.connect()]
        connections[2].send(encode("GET", "/small", {"Content-Length": "5"}, b""))
        done = self.drain()
        self.assertEqual(done, [])
        self.web.site.break_all()
        self.web.clock.advance(0)
        self.assertEqual([connection.aborted for connection in connections], [True] * 3)
        self.assertEqual((done, self.web.site.open), ([None], 0))

    def test_gone_while_stopping(self) -> None:
        """A peer that leaves during the stop, before its answer begins, leaves no error behind."""
        worker = Held()
        self.web = self.harness(worker=worker)
        connection = self.web.connect()
        connection.send(encode("GET", "/list?dir=/", {}, b""))
        done = self.drain()
        connection.lose()
        self.assertEqual(done, [None])
        worker.work()


class LossTests(RequestCase):
    """Answers that cannot be finished: nothing leaks, and nothing incomplete looks complete."""

    KINDS = {
        "plain": GET_LARGE,
        "range": encode("GET", "/large", {"Range": "bytes=1-2899999"}, b""),
        "ranges": encode("GET", "/large", {"Range": "bytes=1-1000000,1100000-2899999"}, b""),
        "zip": encode("GET", "/get?dir=/&name=large&compress=zip", {}, b""),
        "gz": encode("GET", "/get?dir=/&name=large&compress=gz", {}, b""),
        "zst": encode("GET", "/get?dir=/&name=large&compress=zst", {}, b""),
    }

    def descriptors(self) -> set[str]:
        """All descriptors of this process."""
        return set(os.listdir("/proc/self/fd"))

    def test_no_answer_keeps_a_descriptor(self) -> None:
        """Every descriptor that an answer needed is closed when it has been given."""
        (self.root / "d").mkdir()
        before = self.descriptors()
        for target in ("/small", "/d", "/d/", "/d/x", "/small/", "/?json", "/list?dir=d", "/list?dir=small"):
            self.web.get(target)
        for name in ("small", "large", "d", "nope"):
            for form in ("", "&compress=gz", "&compress=no"):
                self.web.get(f"/get?dir=/&name={name}{form}")
                self.web.request("HEAD", f"/get?dir=/&name={name}{form}")
        for headers in ({"If-Match": '"x"'}, {"If-None-Match": "*"}, {"Range": "bytes=99999999-"}):
            self.web.get("/large", headers)
        self.web.get("/delete?dir=/&name=d")
        self.web.get("/delete?dir=/&prefix=small")
        self.assertEqual(self.descriptors() - before, set())

    def test_peer_goes_away(self) -> None:
        """A peer that leaves in the middle of an answer leaves no descriptor, no timer and no error."""
        before = self.descriptors()
        for kind, request in self.KINDS.items():
            connection = self.web.connect()
            connection.send(request)
            self.assertEqual(len(self.descriptors() - before), 1, kind)
            connection.lose()
            self.web.clock.advance(0)
            self.assertEqual(self.descriptors() - before, set(), kind)
            self.assertEqual(self.web.clock.getDelayedCalls(), [], kind)
        self.assertEqual(len(self.web.recorded), len(self.KINDS))

    def test_peer_goes_away_while_a_pool_works(self) -> None:
        """Nor does one that leaves while a thread works for it, and the work's end is no error."""
        for target in ("/list?dir=/", "/", "/delete?dir=/&name=x", "/get?dir=/&name=large&compress=gz"):
            worker = Held()
            web = self.harness(worker=worker)
            root = self.descriptors()
            connection = web.connect()
            connection.send(encode("GET", target, {}, b""))
            connection.lose()
            worker.work()
            worker.work()
            self.assertEqual(self.descriptors() - root, set(), target)
            self.assertEqual(len(web.recorded), 1, target)

    def assertBrokenOff(self, events: Sequence[LogEvent]) -> None:
        """One line says why, and there is no traceback: that files change is no mistake of ours."""
        (line,) = [(event["log_level"], formatEvent(event)) for event in events]
        self.assertEqual(line[0], LogLevel.info)
        self.assertRegex(line[1], "an answer to .* was broken off: .+")

    def test_file_shrinks(self) -> None:
        """A file that becomes shorter while it is sent breaks the connection: the peer sees no clean end."""
        for kind in ("plain", "range", "ranges"):
            connection = self.begin(self.KINDS[kind])
            os.truncate(self.large, 1_000_000)
            with capturedLogs() as events:
                connection.settle()
            self.assertEqual((connection.closed, connection.aborted), (True, True), kind)
            self.assertBrokenOff(events)
            self.large.write_bytes(LARGE)

    def test_file_shrinks_under_a_compressor(self) -> None:
        """A compressed stream of such a file has no last chunk, and its connection is broken."""
        for kind in ("zip", "gz", "zst"):
            connection = self.web.connect()
            connection.send(self.KINDS[kind])
            os.truncate(self.large, 300_000)
            with capturedLogs() as events:
                answer = connection.settle()
            self.assertFalse(answer.endswith(b"0\r\n\r\n"), kind)
            self.assertTrue(connection.aborted, kind)
            self.assertBrokenOff(events)
            self.large.write_bytes(LARGE)

    def test_failure_before_the_first_byte(self) -> None:
        """A file that ends before its first byte is 503, and nothing of the promised answer is left."""
        for target in ("/get?dir=/&name=small", "/get?dir=/&name=small&compress=gz"):
            self.patch(os, "pread", lambda descriptor, size, offset: b"")
            answer = self.web.get(target, {"Range": "bytes=2-4"})
            self.assertEqual(answer.status, 503)
            for name in ("ETag", "Last-Modified", "Content-Range", "Content-Disposition", "Accept-Ranges"):
                self.assertEqual(answer.fields(name), [], name)
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_peer_takes_nothing(self) -> None:
        """A peer that takes nothing for too long loses its connection; one that takes a little does not."""
        before = self.descriptors()
        stuck, slow = self.begin(), self.begin()
        for _ in range(8):
            self.web.clock.advance(STALL / 4)
            slow.turn()
        self.assertEqual((stuck.aborted, slow.aborted), (True, False))
        self.assertEqual(self.flushLoggedErrors(), [], "an everyday event needs no traceback")
        self.assertEqual(slow.receive().body, LARGE)
        self.assertEqual(self.descriptors() - before, set())

    def test_memory_is_bounded(self) -> None:
        """No more than a few slices wait for a peer that takes nothing."""
        for request in self.KINDS.values():
            connection = self.web.connect()
            connection.send(request)
            for _ in range(100):
                self.web.clock.advance(0)
            self.assertLess(connection.wire.highest, 512 << 10)
            connection.lose()
