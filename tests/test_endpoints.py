"""Reading endpoint strings, and TLS with a key that can change."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_PEM, load_privatekey
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from fileexport.endpoints import Endpoint, TlsContext, read_endpoint
from fileexport.errors import ConfigurationError

CA = trustme.CA()
#: What ALPN calls the protocols of the two doors.
NAMES = (b"http/1.1", b"fileexport/1")


@implementer(IProtocolNegotiationFactory)
class Door(Factory[Protocol]):
    """A door that says what it is called."""

    protocol = Protocol

    def __init__(self, name: bytes) -> None:
        self.name = name

    def acceptableProtocols(self) -> list[bytes]:
        return [self.name]


def pem_for(name: str = "localhost", ca: trustme.CA = CA) -> str:
    """Key, certificate and chain for `name`."""
    return ca.issue_cert(name).private_key_and_cert_chain_pem.bytes().decode("ascii")


def client_context(*protocols: bytes, version: int | None = None) -> SSL.Context:
    """A client that trusts everybody, offers `protocols` by ALPN, and speaks one version of TLS, if told."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if protocols:
        context.set_alpn_protos(list(protocols))
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")  # so that it is the server who refuses old versions
    return context


def shake_hands(server: IProtocol, context: SSL.Context, transport: StringTransport) -> SSL.Connection:
    """Connect `server` to a TLS client in memory; raises the client's `SSL.Error` where they do not agree."""
    server.makeConnection(transport)
    client = SSL.Connection(context)
    client.set_connect_state()
    for _ in range(4):  # flights of a handshake
        try:
            client.do_handshake()
        except SSL.WantReadError:
            done = False
        else:
            done = True
        carry(client, server, transport)
        if done:
            return client
    raise AssertionError("the handshake has no end")


def carry(client: SSL.Connection, server: IProtocol, transport: StringTransport) -> None:
    """Bring what both have to say to the other."""
    with contextlib.suppress(SSL.WantReadError):  # nothing to say
        server.dataReceived(client.bio_read(1 << 16))
    if answer := transport.value():
        client.bio_write(answer)
        transport.clear()


def served(client: SSL.Connection) -> list[str]:
    """The certificates that the server showed, as PEM, its own first."""
    chain = client.get_peer_cert_chain() or []
    return [c.to_cryptography().public_bytes(Encoding.PEM).decode("ascii") for c in chain]


def certificates_in(pem: str) -> list[str]:
    """The certificates in a PEM text, in order."""
    parts = pem.partition("-----BEGIN CERT")
    return ["-----BEGIN CERT" + part for part in (parts[1] + parts[2]).split("-----BEGIN CERT")[1:]]


class TlsContextTests(SynchronousTestCase):
    """`TlsContext` in front of a client in memory."""

    def connect(self, context: TlsContext, client: SSL.Context | None = None) -> SSL.Connection:
        """A client that has shaken hands with a new connection of `context`."""
        factory = TLSMemoryBIOFactory(context, False, Factory.forProtocol(Protocol), clock=Clock())
        server = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40_000))
        return shake_hands(server, client or client_context(), StringTransport())

    def test_serves_its_certificate(self) -> None:
        """A client is shown the certificate that lies beside the key."""
        pem = pem_for()
        self.assertEqual(served(self.connect(TlsContext(pem))), certificates_in(pem))

    def test_order(self) -> None:
        """The key's own certificate is found wherever it stands, and the chain follows it."""
        pem = pem_for("a.example", CA.create_child_ca())
        key, (own, between) = pem.partition("-----BEGIN CERT")[0], certificates_in(pem)
        for text in (key + own + between, own + between + key, between + key + own):
            self.assertEqual(served(self.connect(TlsContext(text))), [own, between])

    def test_kinds_of_keys(self) -> None:
        """RSA keys serve as those on elliptic curves do."""
        leaf = CA.issue_cert("localhost", key_type=trustme.KeyType.RSA)
        pem = leaf.private_key_and_cert_chain_pem.bytes().decode("ascii")
        self.assertEqual(served(self.connect(TlsContext(pem))), certificates_in(pem))

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken, 1.0 and 1.1 refused."""
        context = TlsContext(pem_for())
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            client = self.connect(context, client_context(version=version))
            self.assertEqual(client.get_protocol_version(), version)
        for version in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
            refusal = self.assertRaises(SSL.Error, self.connect, context, client_context(version=version))
            self.assertIn("alert protocol version", str(refusal))

    def test_reload(self) -> None:
        """After a reload new connections get the new certificate, and old ones go on."""
        first, second = pem_for(), pem_for()
        context = TlsContext(first)
        old = self.connect(context)
        context.reload(second)
        self.assertEqual(served(self.connect(context)), certificates_in(second))
        self.assertEqual(served(old), certificates_in(first))
        self.assertEqual(old.send(b"still"), 5)

    def test_two_doors(self) -> None:
        """Doors that share a context answer to their own names only, in whatever order clients come."""
        context, clock = TlsContext(pem_for()), Clock()
        doors = [TLSMemoryBIOFactory(context, False, Door(name), clock=clock) for name in NAMES]
        servers = [door.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40_000)) for door in doors]
        for server, name in reversed(list(zip(servers, NAMES, strict=True))):
            client = shake_hands(server, client_context(*NAMES), StringTransport())
            self.assertEqual(client.get_alpn_proto_negotiated(), name)
        for door, stranger in zip(doors, reversed(NAMES), strict=True):
            server = door.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40_000))
            self.assertRaises(SSL.Error, shake_hands, server, client_context(stranger), StringTransport())

    def test_clients_certificate(self) -> None:
        """With authorities only a client whose certificate one of them has signed gets through."""
        theirs, strangers = trustme.CA(), trustme.CA()
        authority = x509.load_pem_x509_certificate(theirs.cert_pem.bytes())
        context = TlsContext(pem_for(), [authority])
        for ca, welcome in ((theirs, True), (strangers, False), (None, False)):
            client = client_context(version=SSL.TLS1_2_VERSION)
            if ca is not None:
                leaf = ca.issue_cert("client")
                client.use_certificate(x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()))
                client.use_privatekey(load_privatekey(FILETYPE_PEM, leaf.private_key_pem.bytes()))
            for load in (lambda: None, lambda: context.reload(pem_for())):
                load()
                if welcome:
                    self.connect(context, client)
                else:
                    self.assertRaises(SSL.Error, self.connect, context, client)

    def test_bad_pem(self) -> None:
        """Whatever cannot serve is refused with one line that shows nothing of it, and the old one stays."""
        good = pem_for()
        key, own = good.partition("-----BEGIN CERT")[0], certificates_in(good)[0]
        secret = ec.generate_private_key(ec.SECP256R1())
        locked = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass"))
        weak = rsa.generate_private_key(65_537, 1024)
        weak_pem = weak.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
        context = TlsContext(good)
        for text in (
            "",
            "no PEM",
            "\udc80\0",
            key,
            own,
            key + pem_for().partition("-----BEGIN CERT")[1],
            key + certificates_in(pem_for())[0],
            locked.decode("ascii") + own,
            weak_pem + own,
            good.replace("A", "B"),
        ):
            for load in (TlsContext, context.reload):
                problem = str(self.assertRaises(ConfigurationError, load, text))
                self.assertTrue(problem.startswith("private key: "), problem)
                self.assertEqual(len(problem.splitlines()), 1)
                self.assertFalse([line for line in text.splitlines() if len(line) > 20 and line in problem])
        self.assertEqual(served(self.connect(context)), [own])


class ReadEndpointTests(SynchronousTestCase):
    """`read_endpoint` on the kinds of strings."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.pem = self.directory / "server.pem"
        self.pem.write_text(pem_for())

    def read(self, description: str, key: TlsContext | None = None) -> Endpoint:
        """Read it with this test's reactor."""
        return read_endpoint(self.reactor, description, key)

    def assertAll(self, cases: Sequence[tuple[str, bool | None]]) -> None:
        """Each string is as local as its case says."""
        for description, local in cases:
            self.assertIs(self.read(description).is_loopback, local, description)

    def test_loopback_tcp(self) -> None:
        """A TCP string's interface tells who can connect: without one, everybody; a name leaves it open."""
        self.assertAll(
            [
                ("tcp:9006", False),
                ("tcp:9006:interface=", False),
                ("tcp:9006:interface=127.0.0.1", True),
                ("tcp:9006:127.0.0.1", True),
                ("tcp:9006:127.8.8.8:50", True),
                ("tcp:interface=127.0.0.1:port=9006", True),
                ("tcp:9006:interface=0.0.0.0", False),
                ("tcp:9006:interface=192.0.2.1", False),
                (r"tcp:9006:interface=\:\:1", True),
                (r"tcp:9006:interface=\:\:", False),
                ("tcp:9006:interface=localhost", None),
                ("tcp6:9006", False),
                (r"tcp6:9006:interface=\:\:1", True),
                (r"tcp6:9006:50:\:\:1", True),
                (r"tcp6:9006:interface=\:\:ffff\:127.0.0.1", True),
                (r"tcp6:9006:interface=\:\:ffff\:192.0.2.1", False),
            ]
        )

    def test_loopback_tls(self) -> None:
        """Strings that bring their own TLS tell the same."""
        self.assertAll(
            [
                (f"ssl:9006:privateKey={self.pem}", False),
                (f"ssl:9006:{self.pem}:interface=127.0.0.1", True),
                (f"tls:{self.directory}", False),
                (f"tls:{self.directory}:443", False),
                (f"tls:{self.directory}:9006:interface=127.0.0.1", True),
            ]
        )

    def test_who_speaks_tls(self) -> None:
        """A private key gives TLS to TCP and to plugins' endpoints; not to UNIX sockets or over TLS."""
        key = TlsContext(pem_for())
        for description in ("tcp:9006", "tcp6:9006", "haproxy:tcp:9006"):
            self.assertIsNone(self.read(description).tls)
            self.assertIs(self.read(description, key).tls, key)
        self.assertIsNone(self.read("unix:/run/f.sock", key).tls)
        for description in (f"ssl:9006:{self.pem}", f"tls:{self.directory}:9006"):
            tls = self.read(description, key).tls
            self.assertIsNotNone(tls)
            self.assertIsNot(tls, key)

    def test_ssl_files(self) -> None:
        """Key, certificate and chain may lie in three files, or in one."""
        pem = pem_for("a.example", CA.create_child_ca())
        own, between = certificates_in(pem)
        for name, text in (("k", pem.partition("-----BEGIN CERT")[0]), ("c", own), ("x", between)):
            (self.directory / name).write_text(text)
        here = self.directory
        apart = f"ssl:1:privateKey={here}/k:certKey={here}/c:extraCertChain={here}/x"
        self.assertIsInstance(self.read(apart).tls, TlsContext)
        self.pem.write_text(pem)
        self.assertIsInstance(self.read(f"ssl:1:privateKey={self.pem}").tls, TlsContext)
        self.assertRaises(ConfigurationError, self.read, f"ssl:1:privateKey={here}/k")

    def test_ssl_arguments(self) -> None:
        """What ssl: has in Twisted and not here is refused, never left out silently."""
        for more in ("sslmethod=TLSv1_METHOD", "dhParameters=dh.pem", "color=blue"):
            description = f"ssl:9006:privateKey={self.pem}:{more}"
            problem = self.assertRaises(ValueError, self.read, description)
            self.assertIn(more.partition("=")[0], str(problem))
        many = ":".join(["ssl", "1", str(self.pem), str(self.pem), "", "", "50", str(self.pem), "dh"])
        self.assertRaises(ValueError, self.read, many)

    def test_ssl_authorities(self) -> None:
        """The authorities of clients' certificates are the files *.pem of a directory, one at least."""
        directory = self.directory / "authorities"
        description = f"ssl:1:{self.pem}:caCertsDir={directory}"
        self.assertRaises(FileNotFoundError, self.read, description)
        directory.mkdir()
        (directory / "README").write_text("none of these")
        self.assertIn("no authority", str(self.assertRaises(ValueError, self.read, description)))
        (directory / "a.pem").write_bytes(CA.cert_pem.bytes())
        tls = self.read(description).tls
        assert tls is not None
        server = TLSMemoryBIOFactory(tls, False, Factory.forProtocol(Protocol), clock=Clock())
        self.assertRaises(
            SSL.Error,
            shake_hands,
            server.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40_000)),
            client_context(version=SSL.TLS1_2_VERSION),
            StringTransport(),
        )
        (directory / "b.pem").write_text("-----BEGIN")
        self.assertIn("b.pem", str(self.assertRaises(ValueError, self.read, description)))

    def test_ssl_socket(self) -> None:
        """An ssl: string listens where it says, with its backlog."""
        opened = self.read(f"ssl:9006:{self.pem}:interface=127.0.0.1:backlog=7")
        self.successResultOf(Deferred.fromCoroutine(opened.open(Factory())))
        (port, _, backlog, interface) = self.reactor.tcpServers[0]
        self.assertEqual((port, backlog, interface), (9006, 7, "127.0.0.1"))

    def test_bad_ports(self) -> None:
        """A port is a number from 0 to 65535 in ASCII digits."""
        for port in ("", "http", "-1", "65536", "9" * 20, "٣", "80 "):
            self.assertRaises(ValueError, self.read, f"tcp:{port}")
            self.assertRaises(ValueError, self.read, f"tcp6:{port}")
            self.assertRaises(ValueError, self.read, f"ssl:{port}:{self.pem}")
            self.assertRaises(ValueError, self.read, f"tls:{self.directory}:{port}")

    def test_missing_files(self) -> None:
        """A file that an encrypted endpoint names must be there."""
        self.assertRaises(FileNotFoundError, self.read, f"ssl:9006:{self.directory}/none.pem")
        self.assertRaises(FileNotFoundError, self.read, f"tls:{self.directory}/none:9006")

    def test_no_listeners(self) -> None:
        """Strings that cannot listen are refused before they do harm."""
        for description in ("stdio:", "unix:", "tcp", "", "nothing:1", ":", "tcp4:9006"):
            self.assertRaises(ValueError, self.read, description)
