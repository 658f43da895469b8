"""Connections in memory: how long each step may take, how one ends, how much is read ahead."""

from __future__ import annotations

from importlib.util import find_spec

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from fileexport.endpoints import TlsContext
from fileexport.web.connection import (
    BODY_TIME,
    HEAD_TIME,
    IDLE_TIME,
    LINGER_MOST,
    LINGER_STEP,
    LINGER_TIME,
    MAX_AHEAD,
    STALL_TIME,
)
from tests import http_client
from tests.helpers import Held
from tests.http_client import Connection, HttpCase, Wire, encode
from tests.test_endpoints import carry, client_context, pem_for, shake_hands

GET = encode("GET", "/f", {}, b"")
HEALTH = encode("GET", "/-/health", {}, b"")
#: A body that is refused before it has come.
TOO_LONG = encode("POST", "/delete?dir=/&name=f", {"Content-Length": "70000"}, b"")


class HalfClosing(Wire):
    """A wire whose one direction can be closed; its client keeps the other one open."""

    write_closed = False

    def loseWriteConnection(self) -> None:
        self.write_closed = True


class UnderTls(StringTransport):
    """What TLS stands on: TCP."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is delayed here."""


class ConnectionCase(HttpCase):
    """Has a small file, and a connection."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.write("f", b"a small file")
        self.web = self.harness()
        self.connection = self.web.connect()

    def wait(self, seconds: float) -> None:
        """Let time pass in which the client takes what there is."""
        self.web.clock.advance(seconds)
        self.connection.turn()

    def assertTimedOut(self) -> None:
        """The connection was closed, behind an answer that says why."""
        answer = self.connection.receive()
        self.assertEqual((answer.status, answer.field("Connection")), (408, "close"))
        self.connection.turn()
        self.assertEqual((self.connection.closed, self.connection.aborted), (True, False))
        self.assertEqual(self.web.recorded[-1], ("-", "-", 408))


class DeadlineTests(ConnectionCase):
    """Deadlines are absolute: a byte now and then does not move them."""

    def test_nothing_comes(self) -> None:
        """A new connection on which nothing comes is closed without a word."""
        self.wait(HEAD_TIME - 1)
        self.assertFalse(self.connection.closed)
        self.wait(1)
        self.assertEqual((self.connection.closed, self.connection.aborted), (True, False))
        self.assertEqual((self.connection.settle(), self.web.recorded), (b"", []))

    def test_slow_head(self) -> None:
        """A head that comes byte by byte has the time of one that comes at once, then it is 408."""
        for at in range(int(HEAD_TIME)):
            self.assertFalse(self.connection.closed)
            self.connection.send(GET[at : at + 1])
            self.wait(1)
        self.assertTimedOut()

    def test_slow_empty_lines(self) -> None:
        """Empty lines do not keep a connection either."""
        for _ in range(4):
            self.connection.send(b"\r\n")
            self.wait(HEAD_TIME / 4 - 0.25)
            self.assertFalse(self.connection.closed)
        self.wait(1)
        self.assertEqual((self.connection.closed, self.connection.settle()), (True, b""))

    def test_idle(self) -> None:
        """A connection that was used may rest for longer, and a head that begins then has its own time."""
        self.connection.send(GET)
        self.connection.receive()
        self.wait(IDLE_TIME - 1)
        self.connection.send(GET[:9])
        self.wait(HEAD_TIME - 1)
        self.connection.send(GET[9:])
        self.assertEqual(self.connection.receive().status, 200)
        self.wait(IDLE_TIME - 1)
        self.assertFalse(self.connection.closed)
        self.wait(1)
        self.assertEqual((self.connection.closed, self.connection.aborted), (True, False))
        self.assertEqual(self.connection.settle(), b"")

    def test_slow_second_head(self) -> None:
        """A second head that is slow is 408 as well, whether it began with the first or later."""
        for begin in (lambda: None, lambda: self.wait(IDLE_TIME / 2)):
            self.connection = self.web.connect()
            self.connection.send(GET)
            self.connection.receive()
            begin()
            for at in range(int(HEAD_TIME)):
                self.assertFalse(self.connection.closed)
                self.connection.send(GET[at : at + 1])
                self.wait(1)
            self.assertTimedOut()
        self.connection = self.web.connect()
        self.connection.send(GET + GET[:9])
        self.connection.receive()
        self.wait(HEAD_TIME)
        self.assertTimedOut()

    def test_slow_body(self) -> None:
        """A body has its time as a whole, sized or chunked, and its request is not processed."""
        sized = encode("POST", "/delete?dir=/&name=f", {"Content-Length": "1000"}, b"")
        chunked = encode("POST", "/delete?dir=/&name=f", {"Transfer-Encoding": "chunked"}, b"")
        for head, piece in ((sized, b"x"), (chunked, b"1\r\nx\r\n")):
            self.connection = self.web.connect()
            self.connection.send(head)
            for _ in range(int(BODY_TIME) // 5):
                self.assertFalse(self.connection.closed)
                self.connection.send(piece)
                self.wait(5)
            self.assertTimedOut()
        self.assertTrue(self.file.exists())

    def test_answer_takes_its_time(self) -> None:
        """A request that waits for the disk has no deadline, nor has the next one before its turn."""
        worker = Held()
        self.web = self.harness(worker=worker)
        self.connection = self.web.connect()
        self.connection.send(encode("GET", "/list?dir=/", {}, b"") + GET[:9])
        self.wait(1000)
        self.assertFalse(self.connection.closed)
        worker.work()
        self.assertEqual(self.connection.receive().status, 200)
        self.wait(HEAD_TIME)
        self.assertTimedOut()


class StallTests(ConnectionCase):
    """Peers that do not take their answers."""

    def test_takes_nothing(self) -> None:
        """Who takes nothing of many small answers gets no more, and is cut off after a minute."""
        self.connection.send(HEALTH * 1000)
        processed = len(self.web.recorded)
        self.assertLess(processed, 500)
        self.web.clock.advance(STALL_TIME - 1)
        self.assertFalse(self.connection.aborted)
        self.web.clock.advance(1)
        self.assertTrue(self.connection.aborted)
        self.web.clock.advance(0)
        self.assertEqual((self.connection.closed, len(self.web.recorded)), (True, processed))

    def test_takes_late(self) -> None:
        """Who takes them late, again and again, gets them all, in their order."""
        self.connection.send(b"".join(encode("GET", f"/f?{n}", {}, b"") for n in range(1000)))
        got = b""
        while len(self.web.recorded) < 1000:
            self.web.clock.advance(STALL_TIME - 1)
            self.connection.turn()
            self.assertFalse(self.connection.closed)
        got = self.connection.settle()
        self.assertEqual(got.count(b"HTTP/1.1 200 OK\r\n"), 1000)
        self.assertEqual([target for _, target, _ in self.web.recorded], [f"/f?{n}" for n in range(1000)])

    def test_last_answer(self) -> None:
        """The last answer of a connection may be taken slowly too, and is cut off after a minute."""
        self.write("large", b"x" * 60_000)
        last = encode("GET", "/large", {"Connection": "close"}, b"")
        stuck = self.web.connect()
        for connection in (self.connection, stuck):
            connection.send(last)
        self.web.clock.advance(STALL_TIME - 1)
        self.assertEqual(self.connection.receive().body, b"x" * 60_000)
        self.connection.turn()
        self.assertEqual((self.connection.closed, self.connection.aborted), (True, False))
        self.assertFalse(stuck.aborted)
        self.web.clock.advance(1)
        self.assertTrue(stuck.aborted)


class LingerTests(ConnectionCase):
    """Closing while the peer still sends: it must be able to read its answer."""

    def setUp(self) -> None:
        self.patch(http_client, "Wire", HalfClosing)
        super().setUp()

    def assertLingers(self, status: int, *sent: bytes) -> Connection:
        """The answer arrives, and then the server has closed its side only."""
        connection = self.web.connect()
        connection.send(*sent)
        answer = connection.receive()
        self.assertEqual((answer.status, answer.field("Connection")), (status, "close"))
        self.assertLingering(connection)
        return connection

    def assertLingering(self, connection: Connection) -> None:
        """Only the server's side is closed."""
        wire = connection.wire
        self.assertIsInstance(wire, HalfClosing)
        self.assertTrue(getattr(wire, "write_closed", False))
        self.assertEqual((connection.closed, wire.disconnecting, wire.aborted), (False, False, False))

    def test_unread_body(self) -> None:
        """What comes of a refused body is dropped, and the connection is cut after a while."""
        connection = self.assertLingers(413, TOO_LONG, b"x" * 100)
        for _ in range(int(LINGER_TIME) - 1):
            connection.send(b"x" * 70000, GET)
            self.web.clock.advance(1)
            self.assertLingering(connection)
        self.web.clock.advance(1)
        self.assertTrue(connection.aborted)
        self.assertEqual([status for *_, status in self.web.recorded], [413])
        self.assertTrue(self.file.exists())

    def test_much_of_an_unread_body(self) -> None:
        """Who sends fast has more time to come to the end, but not for ever."""
        connection = self.assertLingers(413, TOO_LONG)
        for _ in range(int(LINGER_TIME * LINGER_MOST) - 1):
            connection.send(*[b"x" * 65536] * (LINGER_STEP // 65536))
            self.web.clock.advance(1)
            self.assertLingering(connection)
        self.web.clock.advance(1)
        self.assertTrue(connection.aborted)

    def test_peer_closes(self) -> None:
        """A peer that closes in the meantime ends it properly."""
        connection = self.assertLingers(413, TOO_LONG)
        connection.lose()
        self.web.clock.advance(LINGER_TIME)
        self.assertEqual((connection.closed, connection.aborted), (True, False))

    def test_kinds(self) -> None:
        """So it is wherever more may come: bad heads and bodies, no 100, requests behind the last one."""
        self.assertLingers(400, b"GET / HTTP/1.1\r\n: \r\n\r\n")
        self.assertLingers(431, encode("GET", "/f", {"X": "x" * 20_000}, b""))
        self.assertLingers(414, b"GET /" + b"x" * 9000)
        self.assertLingers(400, encode("GET", "/f", {"Transfer-Encoding": "chunked"}, b"x\r\n"))
        self.assertLingers(200, encode("GET", "/f", {"Expect": "100-continue", "Content-Length": "5"}, b""))
        self.assertLingers(200, encode("GET", "/f", {"Connection": "close"}, b"") + GET)

    def test_all_was_read(self) -> None:
        """Where nothing more is expected, the connection is closed at once."""
        self.connection.send(encode("GET", "/f", {"Connection": "close"}, b""))
        self.connection.receive()
        self.connection.turn()
        self.assertEqual((self.connection.closed, self.connection.aborted), (True, False))

    def test_stopping(self) -> None:
        """A stop does not take the answer away from a peer that still sends, and waits no longer for it."""
        connection = self.assertLingers(413, TOO_LONG)
        done: list[None] = []
        self.web.site.drain().addCallback(done.append)
        self.connection.turn()
        self.assertLingering(connection)
        self.web.clock.advance(LINGER_TIME)
        self.web.clock.advance(0)
        self.assertEqual((connection.aborted, done), (True, [None]))


class AheadTests(ConnectionCase):
    """What arrives behind a request that is being answered."""

    def setUp(self) -> None:
        super().setUp()
        self.worker = Held()
        self.web = self.harness(worker=self.worker)
        self.connection = self.web.connect()
        self.connection.send(encode("GET", "/list?dir=/", {}, b""))

    def test_bounded(self) -> None:
        """Reading stops when too much has arrived, goes on when there is room, and nothing is lost."""
        count = 5000
        piece = HEALTH * 10
        self.connection.send(*[piece] * (count // 10))
        self.assertFalse(self.connection.wire.reading)
        self.worker.work()
        self.assertEqual(self.connection.receive().status, 200)
        self.assertEqual({self.connection.receive().text for _ in range(count)}, {"ok"})
        self.assertTrue(self.connection.wire.reading)
        self.assertEqual(self.connection.settle(), b"")
        self.assertEqual(len(self.web.recorded), count + 1)

    def test_limit(self) -> None:
        """Just as much as is allowed does not stop it."""
        self.connection.send(b"x" * MAX_AHEAD)
        self.assertTrue(self.connection.wire.reading)
        self.connection.send(b"x")
        self.assertFalse(self.connection.wire.reading)

    def test_closing(self) -> None:
        """A connection that closes reads again, so that it learns of its end."""
        last = self.web.connect()
        last.send(encode("GET", "/list?dir=/", {"Connection": "close"}, b""))
        for connection in (self.connection, last):
            connection.send(b"x" * (MAX_AHEAD + 1))
            self.assertFalse(connection.wire.reading)
        self.worker.work()
        for connection, statuses in ((self.connection, [200, 414]), (last, [200])):
            self.assertEqual([connection.receive().status for _ in statuses], statuses)
            self.assertTrue(connection.wire.reading)

    def test_not_begun(self) -> None:
        """Whoever leaves meanwhile has asked for nothing that came behind."""
        self.connection.send(encode("GET", "/delete?dir=/&name=f", {}, b""))
        self.connection.lose()
        self.worker.work()
        self.assertTrue(self.file.exists())
        self.assertEqual(len(self.web.recorded), 1)


class TlsTests(ConnectionCase):
    """Encrypted connections, in memory."""

    def setUp(self) -> None:
        super().setUp()
        context = TlsContext(pem_for())
        self.factory = TLSMemoryBIOFactory(context, False, self.web.site, clock=self.web.clock)
        self.transport = UnderTls()

    def server(self) -> TLSMemoryBIOProtocol:
        """The server's end of a new connection, which is lost when the test is over."""
        server: TLSMemoryBIOProtocol = self.factory.buildProtocol(self.connection.wire.getPeer())
        self.addCleanup(server.connectionLost, Failure(ConnectionDone()))
        return server

    def test_protocols(self) -> None:
        """Only HTTP/1.1 is negotiated, though h2 is installed here."""
        self.assertIsNotNone(find_spec("h2"))
        for offered, chosen in (((b"h2", b"http/1.1"), b"http/1.1"), ((), b"")):
            client = shake_hands(self.server(), client_context(*offered), UnderTls())
            self.assertEqual(client.get_alpn_proto_negotiated(), chosen, offered)
        with self.assertRaises(SSL.Error):
            shake_hands(self.server(), client_context(b"h2"), UnderTls())

    def test_silent_handshake(self) -> None:
        """A handshake that does not end has the time of a head, then the connection is broken."""
        server = self.server()
        server.makeConnection(self.transport)
        server.dataReceived(b"\x16\x03\x01")
        self.web.clock.advance(HEAD_TIME - 1)
        self.assertFalse(self.transport.disconnecting or self.transport.disconnected)
        self.web.clock.advance(1)
        self.assertTrue(self.transport.disconnected)

    def test_https_target(self) -> None:
        """A target of https is answered over TLS."""
        server = self.server()
        client = shake_hands(server, client_context(), self.transport)
        client.send(b"GET https://localhost/f HTTP/1.1\r\nHost: localhost\r\n\r\n")
        carry(client, server, self.transport)
        self.web.clock.advance(0)
        carry(client, server, self.transport)
        answer = client.recv(10_000)
        self.assertEqual((answer[:12], answer[-12:]), (b"HTTP/1.1 200", b"a small file"))
