"""TLS as it passes on the wire: its versions, that nothing passes in the clear, new certificates."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import struct
import threading
from urllib.parse import urlsplit

from twisted.trial.unittest import SkipTest

from fileexport.keys import generate_keys, pin_of
from tests.proof import daemon as proof_daemon
from tests.proof.asking import Kept, any_certificate, ask
from tests.proof.bad_proxy import BadProxy
from tests.proof.commands import DaemonCase, eventually
from tests.proof.counts import SOAK
from tests.proof.daemon import PATIENCE, Daemon
from tests.proof.process import MIB, say
from tests.proof.proxy import Way

#: What the large file is full of, and its length.
MARKER = b"<this must never be seen on the wire>"
LARGE = (256 if SOAK else 16) * MIB
#: Versions as TLS writes them (RFC 8446, 4.2.1; RFC 8996 retires the old ones).
SSL_3, TLS_1_0, TLS_1_1, TLS_1_2, TLS_1_3 = 0x0300, 0x0301, 0x0302, 0x0303, 0x0304
#: RFC 8446, 6: the alert's description where the version is not supported.
PROTOCOL_VERSION = 70


def hello(version: int) -> bytes:
    """A ClientHello of a client that knows no version above this one (RFC 5246, 7.4.1.2).

    Written by hand: the TLS library of a new system does not send such any more.
    """
    # ECDHE with ECDSA and RSA: AES-GCM, which TLS 1.2 brought, and CBC, which the older ones have; RSA alone.
    suites = bytes.fromhex("c02bc02fc009c00ac013c014002f0035000a")
    # P-256 and P-384, uncompressed points, ECDSA and RSA with SHA-256.
    extensions = bytes.fromhex("000a0006000400170018000b00020100000d0006000404030401")
    body = struct.pack(">H", version) + os.urandom(32) + b"\0"
    body += struct.pack(">H", len(suites)) + suites + b"\1\0"
    body += struct.pack(">H", len(extensions)) + extensions
    message = b"\1" + struct.pack(">I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack(">H", len(message)) + message


def reaction(port: int, version: int) -> tuple[int, bytes]:
    """What comes back to such a hello: the record's type, and what stands in it."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as end:
        end.sendall(hello(version))
        data = end.recv(5000)
    return data[0], data[5:]


class TlsCase(DaemonCase):
    """Has a file full of a marker, and keys."""

    def setUp(self) -> None:
        super().setUp()
        self.content = MARKER * (LARGE // len(MARKER))
        (self.root / "large").write_bytes(self.content)
        (self.root / "small").write_bytes(MARKER)
        self.key = self.write("server.pem", generate_keys()[1].encode(), 0o600)
        self.context = any_certificate()
        self.daemons = 0

    def daemon(self, *options: str) -> tuple[Daemon, int]:
        """A daemon until the test is over, and the port where it speaks TLS."""
        self.daemons += 1
        # A state for each: two daemons do not share one.
        daemon = Daemon(self.root, "--state", str(self.base / f"state-{self.daemons}"), *options)
        daemon.__enter__()
        self.addCleanup(daemon.kill)
        found = daemon.expect(r"HTTP on https://127\.0\.0\.1:(\d+)/")
        return daemon, int(found[1])

    def with_private_key(self) -> tuple[Daemon, int]:
        """A daemon with --private-key."""
        self.patch(proof_daemon, "_BANNER", r"HTTP on (https://127\.0\.0\.1:\d+/)")
        return self.daemon("--private-key", str(self.key))

    def every_kind(self) -> tuple[tuple[str, int], ...]:
        """All three ways to TLS, each with a port where it is spoken."""
        named = self.write("certificates/localhost.pem", self.key.read_bytes(), 0o600)
        single = f"ssl:0:privateKey={self.key}:interface=127.0.0.1"
        directory = f"tls:{named.parent}:0:interface=127.0.0.1"
        return (
            ("ssl:", self.daemon("--http", single)[1]),
            ("tls:", self.daemon("--http", directory, "--state", str(self.base / "state2"))[1]),
            ("--private-key", self.with_private_key()[1]),
        )


class VersionTests(TlsCase):
    """Which versions are spoken."""

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken, and a client that knows only older ones is told so and left."""
        for kind, port in self.every_kind():
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = any_certificate()
                context.minimum_version = context.maximum_version = version
                self.assertEqual(ask(port, "/small", tls=context).body, MARKER, (kind, version))
            for old in (SSL_3, TLS_1_0, TLS_1_1):
                record, content = reaction(port, old)
                self.assertEqual((record, content[1]), (21, PROTOCOL_VERSION), (kind, hex(old)))

    def test_control(self) -> None:
        """The same hello is answered by a server that does speak TLS 1.1, and by ours as of TLS 1.2."""
        _, port = self.with_private_key()
        self.assertEqual(reaction(port, TLS_1_2)[0], 22)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.load_cert_chain(self.key)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=_shake_hands, args=(listening, context), daemon=True)
            thread.start()
            record, content = reaction(listening.getsockname()[1], TLS_1_1)
            thread.join(PATIENCE)
        if record == 21:
            raise SkipTest("this machine has no TLS 1.1 at all: that we refuse it shows nothing")
        self.assertEqual((record, content[:1]), (22, b"\2"))


def _shake_hands(listening: socket.socket, context: ssl.SSLContext) -> None:
    end, _ = listening.accept()
    try:
        context.wrap_socket(end, server_side=True)
    except (ssl.SSLError, OSError):
        end.close()


class WireTests(TlsCase):
    """What passes on the wire."""

    def test_no_plaintext(self) -> None:
        """Of a large file nothing passes in the clear, on any kind of listener, and what arrives is right."""
        for kind, port in self.every_kind():
            for target in ("/large", "/get?dir=/&name=large"):
                passed = self.passed(port, target, self.content, self.context)
                self.assertNotIn(MARKER[:12], passed, (kind, target))
                self.assertGreater(len(passed), len(self.content))
            say(f"TLS: {LARGE // MIB} MiB on {kind}: nothing of it passed in the clear")

    def test_ranges(self) -> None:
        """Parts of a file, and what comes after another answer on one connection, are no exception."""
        _, port = self.with_private_key()
        with BadProxy(port, record=True) as proxy, Kept(proxy.port, tls=self.context) as client:
            for first in (0, 1, 70_000, LARGE // 2):
                answer = client.ask("/large", fields={"Range": f"bytes={first}-"})
                self.assertEqual((answer.status, answer.body), (206, self.content[first:]))
                self.assertEqual(client.ask("/small").body, MARKER)
            self.assertNotIn(MARKER[:12], proxy.passed(Way.DOWN))

    def test_control(self) -> None:
        """Without TLS the proxy sees the file as it is."""
        with Daemon(self.root) as daemon:
            passed = self.passed(urlsplit(daemon.url).port or 0, "/large", self.content, None)
        self.assertTrue(passed.endswith(self.content))

    def passed(self, port: int, target: str, content: bytes, tls: ssl.SSLContext | None) -> bytes:
        """What passes towards the client, who gets exactly this content."""
        with BadProxy(port, record=True) as proxy:
            self.assertEqual(ask(proxy.port, target, tls=tls).body, content)
            return proxy.passed(Way.DOWN)


class ReloadTests(TlsCase):
    """Certificates that change while the daemon runs."""

    def pin(self, port: int) -> str:
        """Of the certificate that a new connection is shown."""
        return pin_of(ssl.get_server_certificate(("127.0.0.1", port), timeout=PATIENCE))

    def test_reload(self) -> None:
        """SIGHUP brings a changed certificate to new connections; one that stands goes on as it was."""
        daemon, port = self.with_private_key()
        old = pin_of(self.key.read_text())
        self.assertEqual(self.pin(port), old)
        with Kept(port, tls=self.context) as standing:
            self.assertEqual(standing.ask("/small").body, MARKER)
            pin, text = generate_keys()
            self.key.write_text(text)
            self.assertEqual(self.pin(port), old)
            os.kill(daemon.pid, signal.SIGHUP)
            daemon.expect("the private key was read again")
            self.assertEqual(self.pin(port), pin)
            self.assertEqual(standing.ask("/large").body, self.content)
        self.assertEqual(daemon.stop(), 0)

    def test_bad(self) -> None:
        """A new file that is no good is told in the log, and the old certificate stays."""
        daemon, port = self.with_private_key()
        old = pin_of(self.key.read_text())
        key, other = self.key.read_text(), generate_keys()[1]
        mixed = other[: other.index("-----BEGIN CERTIFICATE")] + key[key.index("-----BEGIN CERTIFICATE") :]
        for number, text in enumerate(("", "no PEM at all", key[:200], mixed), 1):
            self.key.write_text(text)
            os.kill(daemon.pid, signal.SIGHUP)
            self.complaints(daemon, number)
            self.assertEqual(self.pin(port), old)
            self.assertEqual(ask(port, "/small", tls=self.context).body, MARKER)
        self.key.unlink()
        os.kill(daemon.pid, signal.SIGHUP)
        self.complaints(daemon, 5)
        self.assertEqual(self.pin(port), old)
        self.assertNotIn("Traceback", daemon.output)
        self.assertEqual(daemon.stop(), 0)

    def complaints(self, daemon: Daemon, count: int) -> None:
        """Wait until the log has said so often that something was not read again."""
        eventually(f"{count} complaints", lambda: daemon.output.count("not reloaded:") == count)
