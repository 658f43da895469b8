"""Both protocols at one listener: who is who, what a silent client gets, what TLS has to say about it."""

from __future__ import annotations

import contextlib

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure

from fileexport.assembly import GRACE, ExportService
from fileexport.crowd import SWEEP
from fileexport.shared import FIRST_TIME, LINGER_TIME
from fileexport.transfer_output import Output
from fileexport.web import connection
from fileexport.wire import messages as m
from fileexport.wire.frames import ALPN, PREFACE
from fileexport.wire.session import DEFAULT_OFFER, Session
from fileexport.wire.streams import Role
from tests.http_client import encode
from tests.machine import TOKEN, ServiceCase
from tests.test_assembly_transfer import Agent
from tests.test_endpoints import carry, client_context, pem_for
from tests.transfer_peer import Wire, path

HEALTH = encode("GET", "/-/health", {}, b"")


class Silent:
    """A client that has said nothing yet; `value` is what it was told."""

    def __init__(self, case: ServiceCase, which: int = 0) -> None:
        peer = IPv4Address("TCP", "127.0.0.1", 40_000)
        server = case.factory(which).buildProtocol(peer)
        assert server is not None
        self.server: IProtocol = server
        self.transport = Wire(peerAddress=peer)
        self.server.makeConnection(self.transport)
        self.is_lost = False
        case.addCleanup(self.lose)

    def say(self, data: bytes) -> None:
        """Send bytes, all at once."""
        self.server.dataReceived(data)

    @property
    def value(self) -> bytes:
        """All that the server has said."""
        return bytes(self.transport.value())

    def lose(self) -> None:
        """Lose the connection."""
        if not self.is_lost:
            self.is_lost = True
            self.server.connectionLost(Failure(ConnectionDone()))


class SharedCase(ServiceCase):
    """A daemon whose HTTP listeners answer the transfer protocol too."""

    def shared(self, **given: list[str] | bool) -> ExportService:
        """A daemon with one listener for both, and with these options."""
        options: dict[str, list[str] | bool] = {
            "transfer": ["shared"],
            "http": ["tcp:9006:interface=127.0.0.1"],
            **given,
        }
        return self.started(token_file=self.tokens(), **options)

    def agent(self, which: int = 0) -> Agent:
        """A client of the transfer protocol that was let in; lost when the test is over."""
        agent = Agent(self, which)
        self.addCleanup(agent.lose)
        agent.login(TOKEN)
        return agent


class FirstByteTests(SharedCase):
    """The first byte decides."""

    def test_both(self) -> None:
        """One port serves both, each client its own protocol, many at a time."""
        self.shared()
        self.assertEqual(len(self.machine.tcpServers), 1)
        agent, other = self.agent(), self.agent()
        self.assertEqual(self.get("/hello.txt").body, b"hello\n")
        for each in (agent, other):
            self.assertEqual(each.wait(each.begin(m.Read(path("hello.txt"))))[1], b"hello\n")
        self.assertEqual(self.get("/hello.txt").body, b"hello\n")

    def test_preface_waits(self) -> None:
        """Who has said nothing is told nothing; the first byte of the preface brings the server's."""
        self.shared()
        client = Silent(self)
        self.machine.advance(1)
        self.assertEqual(client.value, b"")
        client.say(PREFACE[:1])
        self.assertEqual(client.value[: len(PREFACE)], PREFACE)

    def test_byte_by_byte(self) -> None:
        """Neither protocol needs more than one byte at a time."""
        self.shared()
        client = Silent(self)
        for byte in HEALTH:
            self.assertEqual(client.value, b"")
            client.say(bytes([byte]))
        self.machine.advance(0)
        self.assertTrue(client.value.startswith(b"HTTP/1.1 200 OK\r\n"))
        said = Session(Role.CLIENT, DEFAULT_OFFER).take()
        self.assertTrue(said.startswith(PREFACE))
        client = Silent(self)
        for byte in said:
            client.say(bytes([byte]))
        self.assertEqual(client.value[: len(PREFACE)], PREFACE)
        self.assertFalse(client.transport.disconnecting)

    def test_garbage(self) -> None:
        """What is neither is HTTP's to refuse, and what only begins as the preface the other one's."""
        self.shared()
        for said in (b"nonsense\r\n\r\n", b"\r\n\r\nnonsense\r\n\r\n", b"\x88FX1\r\n\x1a\n\r\n\r\n"):
            client = Silent(self)
            client.say(said)
            self.assertTrue(client.value.startswith(b"HTTP/1.1 400 "), said)
            self.assertTrue(client.transport.disconnecting)
        client = Silent(self)
        client.say(b"\x89GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(client.value.startswith(PREFACE))
        self.assertNotIn(b"HTTP", client.value)
        self.assertTrue(client.transport.disconnecting)

    def test_real_transport(self) -> None:
        """The chosen protocol has the transport for itself: nothing stands between it and the socket."""
        self.shared()
        for said, kind in ((b"G", connection.Connection), (PREFACE[:1], Output)):
            client = Silent(self)
            self.assertIsNone(client.transport.producer)
            client.say(said)
            self.assertIsInstance(client.transport.producer, kind)

    def test_others_beside(self) -> None:
        """Listeners of the transfer protocol alone may stand beside, and speak at once."""
        self.shared(transfer=["shared", "tcp:1:interface=127.0.0.1"], transfer_port=["2"])
        self.assertEqual([server[0] for server in self.machine.tcpServers], [9006, 1, 2, 2])
        self.assertEqual(
            self.said[1:6],
            [
                "HTTP on http://127.0.0.1:9006/",
                "transfer on tcp 127.0.0.1:9006",
                "transfer on tcp 127.0.0.1:1",
                "transfer on tcp 127.0.0.1:2",
                "transfer on tcp [::1]:2",
            ],
        )
        self.assertEqual(Silent(self, 1).value[: len(PREFACE)], PREFACE)
        self.assertIsInstance(self.agent(1).got[-1][1], m.Welcome)

    def test_local(self) -> None:
        """Each listener knows by its own address whether it is local, as without the other protocol."""
        self.shared(http=["tcp:1:interface=127.0.0.1", "tcp:2"], insecure_plaintext=True)
        self.assertEqual(self.get("/stop", 1).status, 403)
        self.assertEqual(self.get("/stop", 0).body, b"stopping")


class SilentTests(SharedCase):
    """Clients that say nothing."""

    def test_too_long(self) -> None:
        """Who says nothing for ten seconds is closed, and broken where it does not close its side either."""
        self.shared()
        client = Silent(self)
        self.machine.pump([SWEEP] * int(FIRST_TIME - 1))
        self.assertFalse(client.transport.disconnecting)
        self.machine.pump([SWEEP] * 2)
        self.assertTrue(client.transport.disconnecting)
        self.assertFalse(client.transport.aborted)
        self.machine.pump([SWEEP] * int(LINGER_TIME + 1))
        self.assertTrue(client.transport.aborted)
        self.assertEqual(client.value, b"")

    def test_too_late(self) -> None:
        """What comes after the time is over is not read."""
        self.shared()
        client = Silent(self)
        self.machine.pump([SWEEP] * int(FIRST_TIME + 1))
        client.say(HEALTH)
        self.machine.advance(0)
        self.assertEqual(client.value, b"")

    def test_own_time(self) -> None:
        """The first byte wins no time: header and authentication have ten seconds from the beginning."""
        for first in (b"G", PREFACE[:1]):
            with self.subTest(first=first):
                self.machine = type(self.machine)()
                self.shared()
                client = Silent(self)
                self.machine.pump([SWEEP] * int(FIRST_TIME - 1))
                client.say(first)
                self.assertFalse(client.transport.disconnecting)
                self.machine.pump([SWEEP] * 2)
                self.assertTrue(client.transport.disconnecting)

    def test_next_head(self) -> None:
        """A later header has its own time."""
        self.shared()
        client = Silent(self)
        self.machine.pump([SWEEP] * int(FIRST_TIME - 1))
        client.say(HEALTH)
        self.machine.pump([SWEEP] * int(FIRST_TIME))
        client.say(b"G")
        self.machine.pump([SWEEP] * int(FIRST_TIME - 1))
        self.assertFalse(client.transport.disconnecting)
        self.machine.pump([SWEEP] * 2)
        self.assertTrue(client.transport.disconnecting)

    def test_counts(self) -> None:
        """A connection counts once, from the beginning to its end, whatever it becomes."""
        service = self.shared()
        first, second, third = Silent(self), Silent(self), Silent(self)
        self.assertEqual(service.connections, 3)
        second.say(b"G")
        third.say(PREFACE[:1])
        self.assertEqual(service.connections, 3)
        for client in (first, second, third):
            client.lose()
        self.assertEqual(service.connections, 0)

    def test_failed_beginning(self) -> None:
        """A connection whose protocol fails to begin is gone with its socket, and holds up no stop."""
        service = self.shared()
        client = Silent(self)
        client.transport.registerProducer(client.transport, True)
        self.assertRaises(RuntimeError, client.say, b"G")
        client.lose()
        self.assertEqual(service.connections, 0)

    def test_stop(self) -> None:
        """A stop closes those who have said nothing at once, and leaves no timer."""
        service = self.shared()
        client = Silent(self)
        done = service.stopService()
        self.assertTrue(client.transport.disconnecting)
        self.assertFalse(client.transport.aborted)
        client.say(HEALTH)
        self.assertEqual(client.value, b"")
        client.lose()
        self.machine.advance(0)
        self.machine.finish(done)
        self.successResultOf(done)
        self.assertEqual(self.machine.getDelayedCalls(), [])
        self.assertIsNone(self.factory().buildProtocol(IPv4Address("TCP", "127.0.0.1", 40_000)))

    def test_stop_late(self) -> None:
        """A silent client that does not close its side holds up a stop for as long as an answer may."""
        service = self.shared()
        client = Silent(self)
        done = service.stopService()
        self.machine.advance(GRACE)
        self.assertTrue(client.transport.aborted)
        client.lose()
        self.machine.finish(done)
        self.successResultOf(done)

    def test_max_connections(self) -> None:
        """A silent connection is one of those that --max-connections counts."""
        self.shared(max_connections=["1"])
        client = Silent(self)
        client.lose()
        self.assertEqual(self.stops, 1)


class TlsTests(SharedCase):
    """ALPN and the first byte."""

    def setUp(self) -> None:
        super().setUp()
        self.key = self.base / "key.pem"
        self.key.write_text(pem_for())

    def speak(self, said: bytes, *protocols: bytes) -> tuple[bytes, bytes]:
        """What was agreed on, and what is answered."""
        client, server, transport = self.connect_tls(client_context(*protocols))
        client.send(said)
        received = b""
        for _ in range(10):
            carry(client, server, transport)
            self.machine.advance(0)
            with contextlib.suppress(SSL.Error):
                received += client.recv(1 << 16)
        self.is_aborted = bool(transport.disconnecting)
        return client.get_alpn_proto_negotiated(), received

    def test_agreed(self) -> None:
        """Each protocol is spoken where ALPN chose it, and where the client left ALPN out."""
        self.shared(private_key=[str(self.key)])
        for offered, agreed in (([b"h2", b"http/1.1"], b"http/1.1"), ([], b"")):
            found, answer = self.speak(HEALTH, *offered)
            self.assertEqual(found, agreed)
            self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), offered)
        for offered, agreed in (([ALPN], ALPN), ([b"http/1.1", ALPN], ALPN), ([], b"")):
            found, answer = self.speak(PREFACE[:1], *offered)
            self.assertEqual(found, agreed)
            self.assertEqual(answer[: len(PREFACE)], PREFACE)
            self.assertFalse(self.is_aborted)

    def test_disagreement(self) -> None:
        """Who agrees on one protocol and speaks the other gets no answer, and is closed at once."""
        self.shared(private_key=[str(self.key)])
        for said, agreed in ((HEALTH, ALPN), (PREFACE, b"http/1.1")):
            found, answer = self.speak(said, agreed)
            self.assertEqual((found, answer, self.is_aborted), (agreed, b"", True))
            sentence = f"127.0.0.1 agreed on {agreed.decode()} by ALPN and spoke another protocol"
            self.assertIn(sentence, self.logged())

    def test_silent(self) -> None:
        """Nothing is said to a client that has agreed and says nothing, and its time is the same."""
        self.shared(private_key=[str(self.key)])
        client, server, transport = self.connect_tls(client_context(ALPN))
        carry(client, server, transport)
        self.assertRaises(SSL.WantReadError, client.recv, 1)
        self.machine.pump([SWEEP] * int(FIRST_TIME + 1))
        carry(client, server, transport)
        self.assertRaises(SSL.ZeroReturnError, client.recv, 1)

    def test_no_handshake(self) -> None:
        """Who never begins TLS is closed in the same time."""
        self.shared(private_key=[str(self.key)])
        client = Silent(self)
        self.machine.pump([SWEEP] * int(FIRST_TIME + LINGER_TIME + 2))
        self.assertTrue(client.transport.disconnecting)
