"""Who may come in, and whether every place is given back."""

from __future__ import annotations

from ipaddress import ip_network

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from fileexport.addresses import Network, read_address
from fileexport.gate import Gate, GatedFactory, Slot, ip_of

DONE = Failure(ConnectionDone())


def tcp(host: str, port: int = 40_000) -> IAddress:
    """The address of a TCP client."""
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)


UNIX = UNIXAddress(None)


class Recorder(Protocol):
    """Remembers what happened to it."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)

    def connectionLost(self, reason: Failure = DONE) -> None:
        self.events.append("lost")


@implementer(IHalfCloseableProtocol, IHandshakeListener, ILoggingContext)
class Curious(Recorder):
    """Wants to know of everything that a transport can tell."""

    def readConnectionLost(self) -> None:
        self.events.append("read closed")

    def writeConnectionLost(self) -> None:
        self.events.append("write closed")

    def handshakeCompleted(self) -> None:
        self.events.append("handshake")

    def logPrefix(self) -> str:
        return "curious"


class Doors(Factory[Recorder]):
    """Hands out the protocols that it was given; an exception is raised instead, None is None."""

    noisy = False

    def __init__(self, *protocols: Recorder | Exception | None) -> None:
        self.protocols = list(protocols)

    def buildProtocol(self, addr: IAddress | None) -> Recorder | None:
        protocol = self.protocols.pop(0)
        if isinstance(protocol, Exception):
            raise protocol
        return protocol


class GateTests(SynchronousTestCase):
    """`Gate` by itself."""

    def setUp(self) -> None:
        self.calls: list[str] = []

    def gate(
        self,
        *filters: str,
        max_concurrent: int = 100,
        per_address: int = 100,
        max_total: int | None = None,
    ) -> Gate:
        """A gate that notes its calls."""
        networks: list[Network] = [ip_network(text) for text in filters]
        return Gate(
            filters=networks,
            max_concurrent=max_concurrent,
            per_address=per_address,
            max_total=max_total,
            on_full=lambda: self.calls.append("full"),
            on_exhausted=lambda: self.calls.append("exhausted"),
        )

    def enter(self, gate: Gate, address: IAddress) -> Slot:
        """Come in; being refused fails the test."""
        slot = gate.admit(address)
        assert slot is not None
        return slot

    def test_counts(self) -> None:
        """The gate knows how many are in, and a place that is given back twice counts once."""
        gate = self.gate()
        first, _ = self.enter(gate, tcp("192.0.2.1")), self.enter(gate, UNIX)
        self.assertEqual(gate.open, 2)
        first.release()
        first.release()
        self.assertEqual(gate.open, 1)

    def test_no_filter(self) -> None:
        """Without a filter every address comes in."""
        gate = self.gate()
        for host in ("192.0.2.1", "2001:db8::1", "fe80::1%eth0", "::ffff:192.0.2.1"):
            self.assertIsNotNone(gate.admit(tcp(host)), host)

    def test_filter(self) -> None:
        """With filters only their addresses come in."""
        gate = self.gate("192.0.2.0/24", "2001:db8::/32")
        for host, welcome in (
            ("192.0.2.255", True),
            ("192.0.3.1", False),
            ("2001:db8::1", True),
            ("2001:db9::1", False),
            ("127.0.0.1", False),
            ("::1", False),
        ):
            self.assertEqual(gate.admit(tcp(host)) is not None, welcome, host)

    def test_filter_mapped(self) -> None:
        """An IPv4 client of a dual-stack socket is judged by its IPv4 address."""
        gate = self.gate("192.0.2.0/24")
        self.assertIsNotNone(gate.admit(tcp("::ffff:192.0.2.7")))
        self.assertIsNone(gate.admit(tcp("::ffff:192.0.3.7")))
        self.assertIsNone(self.gate("::/0").admit(tcp("::ffff:192.0.2.7")))

    def test_filter_unix(self) -> None:
        """A client on a UNIX socket has no address and passes every filter."""
        self.assertIsNotNone(self.gate("192.0.2.0/24").admit(UNIX))

    def test_concurrent(self) -> None:
        """One more than may be in is refused, of whatever kind, until one has gone."""
        gate = self.gate(max_concurrent=2)
        first, _ = self.enter(gate, tcp("192.0.2.1")), self.enter(gate, UNIX)
        self.assertIsNone(gate.admit(tcp("192.0.2.2")))
        self.assertIsNone(gate.admit(UNIX))
        first.release()
        self.assertIsNotNone(gate.admit(tcp("192.0.2.2")))

    def test_per_address(self) -> None:
        """One address that holds all its places leaves those of others alone."""
        gate = self.gate(per_address=1)
        slot = self.enter(gate, tcp("192.0.2.1"))
        self.assertIsNone(gate.admit(tcp("192.0.2.1", 40_001)))
        self.assertIsNone(gate.admit(tcp("::ffff:192.0.2.1")))
        self.assertIsNotNone(gate.admit(tcp("192.0.2.2")))
        slot.release()
        self.assertIsNotNone(gate.admit(tcp("192.0.2.1")))

    def test_per_address_unix(self) -> None:
        """UNIX sockets are not bound by the limit for one address."""
        gate = self.gate(per_address=1)
        self.enter(gate, UNIX)
        self.assertIsNotNone(gate.admit(UNIX))

    def test_total(self) -> None:
        """After the last connection the gate is full; when all have gone it is exhausted, each once."""
        gate = self.gate(max_total=2)
        first = self.enter(gate, tcp("192.0.2.1"))
        first.release()
        self.assertEqual(self.calls, [])
        second = self.enter(gate, UNIX)
        self.assertEqual(self.calls, ["full"])
        self.assertIsNone(gate.admit(tcp("192.0.2.1")))
        second.release()
        second.release()
        self.assertIsNone(gate.admit(tcp("192.0.2.1")))
        self.assertEqual(self.calls, ["full", "exhausted"])

    def test_total_waits_for_all(self) -> None:
        """The gate is not exhausted while an earlier connection is still in."""
        gate = self.gate(max_total=2)
        first, second = self.enter(gate, UNIX), self.enter(gate, UNIX)
        second.release()
        self.assertEqual(self.calls, ["full"])
        first.release()
        self.assertEqual(self.calls, ["full", "exhausted"])

    def test_total_counts_admitted(self) -> None:
        """Connections that were refused do not count towards the total."""
        gate = self.gate("192.0.2.0/24", max_total=1, per_address=1)
        for _ in range(3):
            self.assertIsNone(gate.admit(tcp("198.51.100.1")))
        self.assertIsNotNone(gate.admit(tcp("192.0.2.1")))

    def test_no_total(self) -> None:
        """Without a total the gate is never full."""
        gate = self.gate()
        for _ in range(50):
            self.enter(gate, UNIX).release()
        self.assertEqual(self.calls, [])

    def test_addresses(self) -> None:
        """Only TCP addresses hold an IP address, and IPv4 has one spelling."""
        self.assertEqual(ip_of(tcp("::ffff:127.0.0.1")), read_address("127.0.0.1"))
        self.assertEqual(ip_of(tcp("2001:DB8:0::1")), read_address("2001:db8::1"))
        self.assertIsNone(ip_of(UNIX))
        self.assertRaises(ValueError, read_address, "localhost")


class GatedFactoryTests(SynchronousTestCase):
    """`GatedFactory` around a door's factory."""

    def setUp(self) -> None:
        self.gate = Gate(max_concurrent=1, on_exhausted=lambda: None)

    def build(self, *protocols: Recorder | Exception | None) -> IProtocol:
        """The first protocol that comes through the gate."""
        protocol = GatedFactory(Doors(*protocols), self.gate).buildProtocol(tcp("192.0.2.1"))
        assert protocol is not None
        return protocol

    def test_passes_on(self) -> None:
        """The door's protocol gets the real transport, the data and the end of the connection."""
        inner = Recorder()
        outer, transport = self.build(inner), StringTransport()
        outer.makeConnection(transport)
        outer.dataReceived(b"data")
        self.assertIs(inner.transport, transport)
        self.assertEqual(self.gate.open, 1)
        outer.connectionLost(DONE)
        self.assertEqual(inner.events, ["made", b"data", "lost"])
        self.assertEqual(self.gate.open, 0)

    def test_refused(self) -> None:
        """A refused connection gets no protocol, and the door never hears of it."""
        factory = GatedFactory(Doors(Recorder()), self.gate)
        self.assertIsNotNone(factory.buildProtocol(UNIX))
        self.assertIsNone(factory.buildProtocol(UNIX))

    def test_no_protocol(self) -> None:
        """A door that builds no protocol leaves its place free."""
        self.assertIsNone(GatedFactory(Doors(None), self.gate).buildProtocol(UNIX))
        self.assertEqual(self.gate.open, 0)

    def test_raising_factory(self) -> None:
        """A door that raises leaves its place free."""
        factory = GatedFactory(Doors(KeyError("door")), self.gate)
        self.assertRaises(KeyError, factory.buildProtocol, UNIX)
        self.assertEqual(self.gate.open, 0)

    def test_raising_connection_lost(self) -> None:
        """The place is free also when the protocol fails at the end of its connection."""

        class Bad(Recorder):
            def connectionLost(self, reason: Failure = DONE) -> None:
                raise KeyError("lost")

        outer = self.build(Bad())
        outer.makeConnection(StringTransport())
        self.assertRaises(KeyError, outer.connectionLost, DONE)
        self.assertEqual(self.gate.open, 0)

    def test_raising_make_connection(self) -> None:
        """A protocol that fails at once has its connection cut, and the place is free when that is done."""

        class Bad(Recorder):
            def makeConnection(self, transport: ITransport) -> None:
                raise KeyError("made")

        outer, transport = self.build(Bad()), StringTransport()
        self.assertRaises(KeyError, outer.makeConnection, transport)
        self.assertTrue(transport.disconnected)
        outer.connectionLost(DONE)
        self.assertEqual(self.gate.open, 0)

    def test_interfaces(self) -> None:
        """Twisted asks the gated protocol for half-closing, handshakes and the log as it would the door's."""
        inner = Curious()
        outer = self.build(inner)
        half, tls = IHalfCloseableProtocol(outer), IHandshakeListener(outer)
        half.readConnectionLost()
        half.writeConnectionLost()
        tls.handshakeCompleted()
        self.assertEqual(inner.events, ["read closed", "write closed", "handshake"])
        self.assertEqual(ILoggingContext(outer).logPrefix(), "curious")

    def test_only_its_interfaces(self) -> None:
        """A protocol that does not speak of half-closing is not claimed to."""
        outer = self.build(Recorder())
        self.assertFalse(IHalfCloseableProtocol.providedBy(outer))
        self.assertFalse(IHandshakeListener.providedBy(outer))
        self.assertTrue(IProtocol.providedBy(outer))

    def test_web_site(self) -> None:
        """A request through the gate is answered, and its connection counts until it is closed."""
        root = Resource()
        root.putChild(b"", Resource())
        outer = GatedFactory(Site(root, reactor=Clock()), self.gate).buildProtocol(tcp("192.0.2.1"))
        assert outer is not None
        transport = StringTransport()
        outer.makeConnection(transport)
        outer.dataReceived(b"GET /none HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        self.assertIn(b"404", transport.value().splitlines()[0])
        outer.connectionLost(DONE)
        self.assertEqual(self.gate.open, 0)

    def test_start_and_stop(self) -> None:
        """The door hears once when the first socket opens and once when the last one closes."""
        events: list[str] = []

        class Door(Doors):
            def startFactory(self) -> None:
                events.append("start")

            def stopFactory(self) -> None:
                events.append("stop")

        factory = GatedFactory(Door(), self.gate)
        factory.doStart()
        factory.doStart()
        factory.doStop()
        self.assertEqual(events, ["start"])
        factory.doStop()
        self.assertEqual(events, ["start", "stop"])


class ProxyTests(SynchronousTestCase):
    """Trusted reverse proxies, and the clients that they speak for."""

    def test_the_proxy_itself_is_not_held_back(self) -> None:
        """Neither filters nor the limit for an address count for a trusted proxy's connections."""
        gate = Gate(
            filters=[ip_network("192.0.2.0/24")],
            trusted=[ip_network("10.0.0.1")],
            per_address=1,
            on_exhausted=lambda: None,
        )
        self.assertTrue(all(gate.admit(tcp("10.0.0.1")) for _ in range(3)))
        self.assertIsNone(gate.admit(tcp("10.0.0.2")))

    def test_its_clients_are(self) -> None:
        """They count for the addresses that it names, and a place that was given back is free again."""
        gate = Gate(
            filters=[ip_network("192.0.2.0/24")],
            trusted=[ip_network("10.0.0.1")],
            per_address=2,
            on_exhausted=lambda: None,
        )
        slots = [gate.enter(read_address("192.0.2.7")) for _ in range(3)]
        self.assertEqual([slot is not None for slot in slots], [True, True, False])
        self.assertIsNone(gate.enter(read_address("198.51.100.1")))
        for slot in slots[:2]:
            assert slot is not None
            slot.release()
        self.assertIsNotNone(gate.enter(read_address("192.0.2.7")))
        self.assertEqual(gate.open, 0)
