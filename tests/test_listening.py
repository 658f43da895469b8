"""Opening listeners, all or none; what goes through them; and who can reach them."""

from __future__ import annotations

import errno
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    clientFromString,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IProtocolNegotiationFactory,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from fileexport.endpoints import TlsContext
from fileexport.errors import ConfigurationError, ListenError
from fileexport.gate import Gate
from fileexport.listening import (
    IN_USE,
    check_exposure,
    check_tokens,
    default_listener,
    open_listeners,
    parse_listener,
)
from tests.test_endpoints import carry, client_context, pem_for, served, shake_hands

CLIENT = IPv4Address("TCP", "127.0.0.1", 40_000)
DONE = Failure(ConnectionDone())


class Echo(Protocol):
    """Answers what it is sent, and tells its factory of the connection."""

    factory: Echoes

    def connectionMade(self) -> None:
        self.factory.made.append(self)

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def connectionLost(self, reason: Failure = DONE) -> None:
        self.factory.lost.append(self)


@implementer(IProtocolNegotiationFactory)
class Echoes(Factory[Echo]):
    """A door that speaks HTTP/1.1 by its own account."""

    protocol = Echo
    noisy = False

    def __init__(self) -> None:
        self.made: list[Echo] = []
        self.lost: list[Echo] = []

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]


class Receiver(Protocol):
    """A client: sends `request`, and fires `answer` with as many bytes as that had."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.received = b""
        self.answer: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.request)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= len(self.request):
            self.answer.callback(self.received)


def gate(**limits: Any) -> Gate:
    """A gate that lets everybody in, unless `limits` say otherwise."""
    return Gate(**{"on_exhausted": lambda: None, **limits})


class Sockets(MemoryReactorClock):
    """A machine in memory on which binding to an address can fail; `problems` has the next outcomes."""

    def __init__(self, **problems: list[int]) -> None:
        super().__init__()
        self.problems = problems

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        outcomes = self.problems.get("six" if ":" in interface else "four", [])
        if outcomes and (number := outcomes.pop(0)):
            raise CannotListenError(interface, port, OSError(number, os.strerror(number)))
        made: IListeningPort = super().listenTCP(port, factory, backlog, interface)
        return made


class MemoryTests(SynchronousTestCase):
    """Listeners on sockets in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.factory = Echoes()
        self.key = TlsContext(pem_for())

    def run_now(self, work: Coroutine[Deferred[Any], Any, Any]) -> None:
        """The work must be done at once."""
        self.successResultOf(Deferred.fromCoroutine(work))

    def accepted(self, description: str, key: TlsContext | None, through: Gate) -> IProtocol | None:
        """What the listener builds for a new connection."""
        self.run_now(
            parse_listener(self.reactor, description, private_key_context=key).listen(self.factory, through)
        )
        factory: IProtocolFactory = self.reactor.tcpServers[-1][1]
        return factory.buildProtocol(CLIENT)

    def test_plain(self) -> None:
        """A plain listener gives the door the bytes as they come."""
        server, transport = self.accepted("tcp:9006", None, gate()), StringTransport()
        assert server is not None
        server.makeConnection(transport)
        server.dataReceived(b"hello")
        self.assertEqual(transport.value(), b"hello")
        self.assertIs(self.factory.made[0].transport, transport)

    def encrypted(self) -> list[tuple[str, TlsContext | None]]:
        """One listener of each kind that speaks TLS, with its private key."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "server.pem").write_text(pem_for())
        return [
            ("tcp:9006", self.key),
            ("tcp6:9006", self.key),
            (f"ssl:9006:{directory}/server.pem", None),
            (f"tls:{directory}:9006", None),
        ]

    def test_tls(self) -> None:
        """Every encrypted listener takes its time from its own reactor, and ALPN from the door."""
        for description, key in self.encrypted():
            server, transport = self.accepted(description, key, gate()), StringTransport()
            assert server is not None
            client = shake_hands(server, client_context(b"h2", b"http/1.1"), transport)
            self.assertEqual(client.get_alpn_proto_negotiated(), b"http/1.1", description)
            client.send(b"hello")
            carry(client, server, transport)
            self.assertRaises(SSL.WantReadError, client.recv, 100)
            self.reactor.advance(0)
            carry(client, server, transport)
            self.assertEqual(client.recv(100), b"hello", description)

    def test_tls_counts(self) -> None:
        """A connection that never speaks TLS counts while it is open; one too many is refused before TLS."""
        for description, key in self.encrypted():
            through = gate(max_concurrent=1)
            server = self.accepted(description, key, through)
            assert server is not None
            server.makeConnection(StringTransport())
            self.assertIsNone(self.accepted(description, key, through), description)
            server.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
            server.connectionLost(DONE)
            self.assertEqual(through.open, 0, description)

    def test_reload(self) -> None:
        """A listener shows the certificate that was read last."""
        server = self.accepted("tcp:9006", self.key, gate())
        self.key.reload(second := pem_for())
        assert server is not None
        self.assertIn(served(shake_hands(server, client_context(), StringTransport()))[0], second)

    def test_descriptions(self) -> None:
        """A listener knows its string, and whether it is encrypted."""
        listener = parse_listener(self.reactor, "tcp6:9006", private_key_context=self.key)
        self.assertEqual((listener.description, listener.is_tls), ("tcp6:9006", True))
        plain = parse_listener(self.reactor, "unix:/run/f.sock", private_key_context=self.key)
        self.assertEqual((plain.is_tls, plain.is_loopback), (False, True))
        self.assertEqual((plain.ports, plain.urls), ((), ()))

    def test_bad_descriptions(self) -> None:
        """A string that cannot be read is one line that names it."""
        missing = self.mktemp()
        for description, reason in (
            ("tcp:http", "the port must be a number from 0 to 65535"),
            ("tcp:9006:color=blue", "the description is not valid"),
            ("nothing:1", "Unknown endpoint type: 'nothing'"),
            ("stdio:", "stdio: does not listen"),
            ("unix:", "unix: needs a path"),
            ("systemd:domain=INET:index=0", "no such socket was handed over (LISTEN_FDS)"),
            ("systemd:domain=INET:name=web", "no such socket was handed over (LISTEN_FDS)"),
            ("systemd:", "write systemd:domain=INET:index=0"),
            ("systemd:domain=INET", "write systemd:domain=INET:index=0"),
            ("systemd:domain=INET:index=first", "write systemd:domain=INET:index=0"),
            ("systemd:domain=INET:index=0:color=blue", "write systemd:domain=INET:index=0"),
            (f"ssl:9006:{missing}", f"{missing}: No such file or directory"),
            (f"ssl:9006:{__file__}", "private key: wanted is PEM text"),
            (f"tls:{missing}:9006", f"{missing}: No such file or directory"),
            ("two\nlines", "Unknown endpoint type"),
        ):
            problem = str(self.assertRaises(ListenError, parse_listener, self.reactor, description))
            self.assertTrue(
                problem.startswith(f"cannot listen on {description}: {reason}".replace("\n", " ")), problem
            )
            self.assertEqual(len(problem.splitlines()), 1)

    def test_socket_problems(self) -> None:
        """What the system says of a socket becomes one sentence, and nothing listens."""
        description = "tcp:9006:interface=127.0.0.1"
        for number, reason in (
            (errno.EADDRINUSE, IN_USE),
            (errno.EACCES, "permission denied"),
            (errno.EADDRNOTAVAIL, "this machine has no such address"),
            (errno.ENOBUFS, os.strerror(errno.ENOBUFS)),
        ):
            listener = parse_listener(Sockets(four=[number]), description)
            failure = self.failureResultOf(
                Deferred.fromCoroutine(listener.listen(self.factory, gate())), ListenError
            )
            self.assertEqual(str(failure.value), f"cannot listen on {description}: {reason}")
            self.assertEqual(listener.ports, ())

    def test_default(self) -> None:
        """The default is the same port on 127.0.0.1 and on ::1, and only this machine can connect."""
        listener = default_listener(self.reactor, 9006)
        self.assertTrue(listener.is_loopback)
        self.run_now(listener.listen(self.factory, gate()))
        sockets = [(port, interface) for port, _, _, interface in self.reactor.tcpServers]
        self.assertEqual(sockets, [(9006, "127.0.0.1"), (9006, "::1")])
        self.assertEqual(listener.is_tls, False)
        self.assertEqual(default_listener(self.reactor, 9006, private_key_context=self.key).is_tls, True)

    def test_default_without_ipv6(self) -> None:
        """A machine without IPv6 has just the first address."""
        for number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            listener = default_listener(Sockets(six=[number]), 9006)
            self.run_now(listener.listen(self.factory, gate()))
            self.assertEqual(len(listener.ports), 1)

    def test_default_busy(self) -> None:
        """A given port that is busy on either address is an error that names the address."""
        for problems, address in (
            ({"four": [errno.EADDRINUSE]}, "127.0.0.1"),
            ({"six": [errno.EADDRINUSE]}, "[::1]"),
        ):
            listener = default_listener(Sockets(**problems), 9006)
            failure = self.failureResultOf(
                Deferred.fromCoroutine(listener.listen(self.factory, gate())), ListenError
            )
            self.assertEqual(str(failure.value), f"cannot listen on {address}:9006: {IN_USE}")
            self.assertEqual(listener.ports, ())

    def test_default_any_port(self) -> None:
        """Any port means one that is free on both addresses: another is tried, though not for ever."""
        busy = errno.EADDRINUSE
        for outcomes, tried in (([busy, busy, 0], True), ([busy] * 100, False)):
            machine = Sockets(six=outcomes)
            done = Deferred.fromCoroutine(default_listener(machine, 0).listen(self.factory, gate()))
            if tried:
                self.successResultOf(done)
            else:
                self.failureResultOf(done, ListenError)

    def test_exposure(self) -> None:
        """Listeners that others can reach without TLS are refused, each by its name; those unknown pass."""
        machine, key = self.reactor, self.key
        safe = [
            parse_listener(machine, "tcp:1:interface=127.0.0.1"),
            parse_listener(machine, "tcp:2", private_key_context=key),
            parse_listener(machine, "unix:/run/f.sock"),
            parse_listener(machine, "tcp:3:interface=localhost"),
            default_listener(machine, 4),
        ]
        check_exposure(safe, insecure_plaintext=False)
        open_to_all = [parse_listener(machine, "tcp:5"), parse_listener(machine, "tcp6:6")]
        error = self.assertRaises(
            ConfigurationError, check_exposure, safe + open_to_all, insecure_plaintext=False
        )
        self.assertEqual([line.split()[0] for line in error.problems], ["tcp:5", "tcp6:6"])
        check_exposure(open_to_all, insecure_plaintext=True)

    def test_weak_tokens(self) -> None:
        """Weak tokens are refused where one listener is open to others without TLS, each with its line."""
        machine = self.reactor
        safe = [
            default_listener(machine, 4),
            parse_listener(machine, "tcp:2", private_key_context=self.key),
            parse_listener(machine, "unix:/run/f.sock"),
        ]
        exposed = parse_listener(machine, "tcp:5")
        self.assertEqual([door.is_exposed for door in (*safe, exposed)], [False, False, False, True])
        check_tokens(safe, ["one", "two"])
        check_tokens([*safe, exposed], [])
        error = self.assertRaises(ConfigurationError, check_tokens, [*safe, exposed], ["one", "two"])
        self.assertEqual(error.problems[:2], ("one", "two"))
        self.assertEqual(len(error.problems), 3)
        self.assertIn("TLS", error.problems[2])

    def test_exposure_before_listening(self) -> None:
        """When one listener must not be, none is opened, not even for a moment."""
        doors = [(parse_listener(self.reactor, text), self.factory) for text in ("tcp:1:127.0.0.1", "tcp:2")]
        self.failureResultOf(Deferred.fromCoroutine(open_listeners(doors, gate())), ConfigurationError)
        self.assertEqual(self.reactor.tcpServers, [])
        self.run_now(open_listeners(doors, gate(), insecure_plaintext=True))
        self.assertEqual(len(self.reactor.tcpServers), 2)


class PrivateReactorTests(SynchronousTestCase):
    """A listener on a reactor that is not the global one."""

    def test_tls(self) -> None:
        """A TLS request is answered under a private reactor, again and again."""
        for _ in range(2):
            private = EPollReactor()
            outcome: list[object] = []

            async def exchange(private: EPollReactor = private, outcome: list[object] = outcome) -> None:
                listener = default_listener(private, 0, private_key_context=TlsContext(pem_for()))
                await listener.listen(Echoes(), gate())
                address = listener.addresses[0].replace("127.0.0.1:", "tcp:127.0.0.1:")
                endpoint = wrapClientTLS(CertificateOptions(), clientFromString(private, address), private)
                client = await connectProtocol(endpoint, Receiver(b"x" * 100_000))
                outcome.append(await client.answer)
                client.transport.loseConnection()
                await listener.stop()

            def finish(
                result: object, private: EPollReactor = private, outcome: list[object] = outcome
            ) -> None:
                outcome.append(result)
                private.callLater(0, private.stop)

            private.callWhenRunning(lambda: Deferred.fromCoroutine(exchange()).addBoth(finish))
            deadline = private.callLater(30, private.stop)
            private.run(installSignalHandlers=False)
            self.assertTrue(deadline.active())
            self.assertEqual(outcome, [b"x" * 100_000, None])
