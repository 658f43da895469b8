"""Whom the blocking client believes: pins, authorities, names, proofs; and what it says before."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme
from twisted.trial.unittest import SynchronousTestCase

from fileexport.client.connection import Wait
from fileexport.client.login import Server
from fileexport.client.security import Security, is_loopback
from fileexport.errors import AuthenticationError, CorruptedResponse
from fileexport.keys import generate_keys
from fileexport.wire import messages as m
from fileexport.wire.frames import ALPN, PREFACE
from tests.client_server import TOKEN, ClientOptions, Peer, Script, ScriptedServer


def serve(peer: Peer) -> None:
    """Answer each listing with nothing."""
    while True:
        stream, _ = peer.hear(m.List)
        peer.say(m.End(), stream)


class SecurityTests(SynchronousTestCase):
    """TLS, and the proofs."""

    def setUp(self) -> None:
        self.here = Path(self.mktemp())
        self.here.mkdir()
        self.spoken: list[str | None] = []

    def speak(self, peer: Peer) -> None:
        """Note what was agreed on, and serve."""
        assert isinstance(peer.socket, ssl.SSLSocket)
        self.spoken.append(peer.socket.selected_alpn_protocol())
        self.assertIn(peer.socket.version(), ("TLSv1.2", "TLSv1.3"))
        serve(peer)

    def server(self, pem: str, binding: str | None = None) -> ScriptedServer:
        """A TLS server with this key and certificate; bound to those of `binding`, if it is an impostor."""
        file = self.here / f"{len(list(self.here.iterdir()))}.pem"
        file.write_text(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.set_alpn_protocols([ALPN.decode()])
        text = binding or pem
        certificate = ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE") :])
        server = ScriptedServer(self.speak, tls=context, certificate=certificate)
        self.addCleanup(server.close)
        return server

    def test_pin(self) -> None:
        """The right pin is enough, whatever the certificate says; the handshake names the protocol."""
        pin, pem = generate_keys()
        with self.server(pem).client(public_key=pin) as client:
            self.assertEqual(client.list_files("/"), {})
        self.assertEqual(self.spoken, ["fileexport/1"])

    def test_wrong_pin(self) -> None:
        """Another key is refused, and nothing is said to it, not even HELLO."""
        pin, _ = generate_keys()
        server = self.server(generate_keys()[1])
        with server.client(public_key=pin) as client:
            self.assertRaises(AuthenticationError, client.list_files, "/")
        self.assertEqual(self.spoken, [])

    def test_authority(self) -> None:
        """With an authority, its certificates for the host's name are believed, and no others."""
        authority = trustme.CA()
        trusted = self.here / "ca.crt"
        authority.cert_pem.write_to_path(str(trusted))

        def pem(issuer: trustme.CA, name: str) -> str:
            return issuer.issue_cert(name).private_key_and_cert_chain_pem.bytes().decode()

        with self.server(pem(authority, "127.0.0.1")).client(ca_file=trusted) as client:
            self.assertEqual(client.list_files("/"), {})
        for wrong in (pem(authority, "example.com"), pem(trustme.CA(), "127.0.0.1")):
            with self.server(wrong).client(ca_file=trusted) as client:
                self.assertRaises(AuthenticationError, client.list_files, "/")

    def test_system_authorities(self) -> None:
        """`tls=True` believes the system's authorities only."""
        with self.server(generate_keys()[1]).client(tls=True) as client:
            self.assertRaises(AuthenticationError, client.list_files, "/")

    def test_binding(self) -> None:
        """A proof is for one certificate: who passes it on to the real server is not let in."""
        pin, pem = generate_keys()
        with self.server(pem, binding=generate_keys()[1]).client(public_key=pin) as client:
            self.assertRaises(AuthenticationError, client.list_files, "/")

    def test_client_certificate(self) -> None:
        """A client certificate is shown where the server wants one."""
        authority = trustme.CA()
        shown = self.here / "client.pem"
        authority.issue_cert("ada@example.com").private_key_and_cert_chain_pem.write_to_path(str(shown))
        pin, pem = generate_keys()
        file = self.here / "server.pem"
        file.write_text(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
        certificate = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE") :])
        server = ScriptedServer(serve, tls=context, certificate=certificate)
        self.addCleanup(server.close)
        with server.client(public_key=pin, client_certificate=shown) as client:
            self.assertEqual(client.list_files("/"), {})
        with server.client(public_key=pin) as client:
            self.assertRaises(ConnectionError, client.list_files, "/")

    def test_no_tls_there(self) -> None:
        """A server that speaks no TLS is a `ConnectionError`."""
        server = ScriptedServer(lambda peer: peer.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), raw=True)
        self.addCleanup(server.close)
        with server.client(tls=True) as client:
            self.assertRaises(ConnectionError, client.list_files, "/")

    def test_files(self) -> None:
        """A certificate file that is missing, or none, is a ValueError that names it; nobody is asked."""
        none, bad = self.here / "none.pem", self.here / "bad.pem"
        bad.write_text("no certificate")
        server = ScriptedServer(serve)
        self.addCleanup(server.close)
        for file in (none, bad, self.here):
            both: tuple[ClientOptions, ...] = ({"ca_file": file}, {"client_certificate": file})
            for options in both:
                with server.client(**options) as client:
                    error = self.assertRaises(ValueError, client.list_files, "/")
                self.assertIn(str(file), str(error))
        self.assertEqual(server.connections, 0)


class ProofTests(SynchronousTestCase):
    """The token is proved by both sides."""

    def server(self, script: Script, raw: bool = True) -> ScriptedServer:
        """A server with one script."""
        server = ScriptedServer(script, raw=raw)
        self.addCleanup(server.close)
        return server

    def test_wrong_token(self) -> None:
        """A wrong token is an `AuthenticationError`, and a right one is let in afterwards."""
        server = self.server(serve, raw=False)
        with server.client(token="another-token") as client:
            self.assertRaises(AuthenticationError, client.list_files, "/")
        with server.client() as client:
            self.assertEqual(client.list_files("/"), {})

    def test_no_token(self) -> None:
        """Without a token nothing is connected; one that cannot be one is a ValueError."""
        server = self.server(serve)
        with server.client(token=None) as client:
            self.assertRaises(AuthenticationError, client.list_files, "/")
        self.assertRaises(ValueError, server.client, token="short")
        self.assertEqual(server.connections, 0)

    def test_impostor(self) -> None:
        """A server that does not know the token is told nothing after the proof."""
        told: list[object] = []

        def impostor(peer: Peer) -> None:
            peer.hear(m.Hello)
            peer.hear(m.Auth)
            peer.say(m.Challenge(bytes(32)))
            peer.hear(m.Proof)
            peer.say(m.Welcome(bytes(32), ["read"]))
            told.append(peer.next())

        with self.server(impostor).client() as client:
            self.assertRaises(AuthenticationError, client.list_files, "/")
        self.assertEqual(told, [])

    def test_token_is_never_said(self) -> None:
        """The token is not among the bytes that the client sends, nor in its repr."""
        said = bytearray()

        def script(peer: Peer) -> None:
            receive, session = peer.session.receive, peer.session

            def noted(data: bytes) -> None:
                said.extend(data)
                receive(data)

            self.patch(session, "receive", noted)
            peer.let_in()
            serve(peer)

        with self.server(script).client() as client:
            client.list_files("/")
        self.assertIn(PREFACE, said)
        self.assertNotIn(TOKEN.encode(), said)
        self.assertNotIn(TOKEN, repr(Server("host", 1, TOKEN, Security())))

    def test_other_protocols(self) -> None:
        """A server of another protocol, or one out of order, is `CorruptedResponse`."""

        def http(peer: Peer) -> None:
            peer.socket.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        def early(peer: Peer) -> None:
            peer.hear(m.Hello)
            peer.raw(bytes.fromhex("00000000 12 00 0000 00000001"))

        for script in (http, early):
            with self.server(script).client() as client:
                self.assertRaises(CorruptedResponse, client.list_files, "/")

    def test_silence(self) -> None:
        """A server that says nothing is left after the time-out."""

        def silent(peer: Peer) -> None:
            peer.socket.recv(1 << 16)
            peer.socket.recv(1 << 16)

        with self.server(silent).client(timeout=50) as client:
            self.assertRaises(TimeoutError, client.list_files, "/")


class PlainTests(SynchronousTestCase):
    """Plain TCP."""

    def test_other_machines(self) -> None:
        """Plain TCP goes to this machine only, unless `tls=False` says otherwise."""
        plain = Security()
        for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
            plain.check_address(address)
        for address in ("192.0.2.1", "2001:db8::1", "0.0.0.0", "fe80::1%eth0"):
            self.assertRaises(ValueError, plain.check_address, address)
            Security(tls=False).check_address(address)
            Security(tls=True).check_address(address)
        self.assertFalse(is_loopback("10.0.0.1"))

    def test_refused_before_connecting(self) -> None:
        """A server elsewhere is refused before a packet is sent, and a weak token is not proved there."""
        for server in (
            Server("192.0.2.1", 1, TOKEN, Security()),
            Server("192.0.2.1", 1, "password", Security(tls=False)),
        ):
            self.assertRaises(ValueError, server.enter, Wait(10_000))

    def test_contradictions(self) -> None:
        """What contradicts itself, and a pin that is none, is a ValueError."""
        pin, _ = generate_keys()
        self.assertRaises(ValueError, Security, public_key=pin, tls=False)
        self.assertRaises(ValueError, Security, public_key=pin, ca_file="x")
        self.assertRaises(ValueError, Security, ca_file="x", tls=False)
        for bad in ("", "sha256/", pin[:-1], pin.removeprefix("sha256/"), pin[:-2] + "B="):
            self.assertRaises(ValueError, Security, public_key=bad)
        self.assertTrue(Security(public_key=pin).is_encrypted)
