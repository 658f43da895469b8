"""TLS of the transfer protocol: the right server is known, and nobody else hears a proof of the token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trustme

from fileexport.errors import AuthenticationError
from fileexport.keys import generate_keys, pin_of
from fileexport.wire.frames import HEADER_SIZE, LARGEST, PREFACE, Frame, FrameReader, FrameType
from tests.proof.cut_proxy import CutProxy
from tests.proof.process import MIB
from tests.proof.proxy import Way
from tests.proof.tls_ends import TlsEnd
from tests.proof.transfer_case import TransferCase, content

MARKER = b"<this must never be seen on the wire>"


def frames(said: bytes) -> list[FrameType]:
    """The types of the frames that were said."""
    reader, found = FrameReader(LARGEST), []
    reader.feed(said)
    while (event := reader.next_event()) is not None:
        found.append(event.type if isinstance(event, Frame) else FrameType.DATA)
    return found


class TlsCase(TransferCase):
    """Has an authority, certificates of it and of another one, and keys with a pin."""

    def setUp(self) -> None:
        super().setUp()
        self.authority, self.other = trustme.CA(), trustme.CA()
        self.ca_file = self.write("ca.pem", self.authority.cert_pem.bytes())
        self.localhost = self.certificate(self.authority, "localhost", "127.0.0.1")
        self.pin, keys = generate_keys()
        self.keys = self.write("keys.pem", keys.encode(), 0o600)

    def certificate(self, authority: trustme.CA, *names: str) -> Path:
        """A PEM file with a key and its certificate for these names."""
        made = authority.issue_cert(*names)
        return self.write(
            f"{len(list(self.base.iterdir()))}.pem", made.private_key_and_cert_chain_pem.bytes(), 0o600
        )

    def ssl(self, certificate: Path) -> int:
        """The port of a daemon that listens with an `ssl:` endpoint."""
        listener = f"ssl:0:privateKey={certificate}:certKey={certificate}:interface=127.0.0.1"
        return self.daemon(listener=listener).transfer_port

    def works(self, port: int, **options: Any) -> None:
        """A client with these options does its work there."""
        client = self.client(port, timeout=10_000, **options)
        source = self.source("source", MIB, "some")
        self.assertTrue(
            client.upload_file(
                str(source),
                "/",
                "there",
            )
        )
        self.assertEqual(b"".join(client.read("/there")), content("some", MIB))
        self.assertEqual(client.remove("/there"), 1)


class RightTests(TlsCase):
    """Servers that are the right ones."""

    def test_authority(self) -> None:
        """An `ssl:` endpoint with a certificate of an authority, for a name and for an address."""
        port = self.ssl(self.localhost)
        self.works(port, hostname="localhost", ca_file=str(self.ca_file))
        self.works(port, ca_file=str(self.ca_file))
        self.works(port, public_key=pin_of(self.localhost.read_text()))

    def test_pin(self) -> None:
        """--private-key with `generate-keys`, known by its pin, under any name."""
        port = self.daemon("--private-key", str(self.keys)).transfer_port
        self.works(port, public_key=self.pin)
        self.works(port, hostname="localhost", public_key=self.pin)

    def test_command(self) -> None:
        """The variables of the command line do the same."""
        port = self.daemon("--private-key", str(self.keys)).transfer_port
        done = self.command(self.environ(port, FILEEXPORT_PUBLIC_KEY=self.pin), "directory", "made")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        other = generate_keys()[0]
        done = self.command(self.environ(port, FILEEXPORT_PUBLIC_KEY=other), "list")
        self.assertEqual((done.returncode, done.stdout, len(done.stderr.splitlines())), (6, "", 1))
        done = self.command(self.environ(port), "list")
        self.assertIn(done.returncode, (5, 7), "plain TCP to a TLS listener")
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_nothing_in_the_clear(self) -> None:
        """Of content, names and the token nothing passes in the clear."""
        port = self.daemon("--private-key", str(self.keys)).transfer_port
        source = self.write("source", MARKER * (MIB // len(MARKER)))
        with CutProxy(port, record=True) as proxy, self.client(proxy.port, public_key=self.pin) as client:
            client.upload_file(str(source), "/", "a-name-of-its-own")
            client.list_files("/")
            client.download_file("/a-name-of-its-own", str(self.base))
        passed = proxy.recorded()
        self.assertGreater(len(passed), 2 * len(source.read_bytes()))
        for secret in (MARKER[:12], b"a-name-of-its-own", self.token.encode(), PREFACE):
            self.assertNotIn(secret, passed)


class WrongTests(TlsCase):
    """Servers that are not the right ones, as far as the client can know."""

    def refuses(self, certificate: Path, **options: Any) -> None:
        """The client refuses this certificate, and has said nothing at all inside TLS by then."""
        with TlsEnd(certificate) as end:
            client = self.client(end.port, timeout=5_000, **options)
            error = self.assertRaises(AuthenticationError, client.list_files, "/")
            self.assertEqual(end.heard(), b"", options)
        self.assertEqual(len(str(error).splitlines()), 1)
        # The control: this very certificate, and a client that wants it.
        with TlsEnd(certificate) as end:
            right = pin_of(certificate.read_text())
            client = self.client(end.port, timeout=300, public_key=right)
            self.assertRaises(TimeoutError, client.list_files, "/")
            self.assertEqual(frames(end.heard()), [FrameType.HELLO])

    def test_name(self) -> None:
        """A certificate of the right authority for another name or address than was asked for."""
        self.refuses(self.certificate(self.authority, "elsewhere.example"), ca_file=str(self.ca_file))
        self.refuses(self.certificate(self.authority, "localhost"), ca_file=str(self.ca_file))
        for_address = self.certificate(self.authority, "127.0.0.1")
        self.refuses(for_address, hostname="localhost", ca_file=str(self.ca_file))

    def test_authority(self) -> None:
        """One of another authority, one that signed itself, and one where the system's authorities decide."""
        self.refuses(self.certificate(self.other, "127.0.0.1"), ca_file=str(self.ca_file))
        self.refuses(self.keys, ca_file=str(self.ca_file))
        self.refuses(self.localhost, tls=True)

    def test_pin(self) -> None:
        """Another key than that of the pin, whatever its certificate says."""
        self.refuses(self.localhost, public_key=self.pin)
        self.refuses(self.write("second.pem", generate_keys()[1].encode(), 0o600), public_key=self.pin)

    def test_man_in_the_middle(self) -> None:
        """One with a good certificate who passes all on to the real server gets nobody in."""
        port = self.ssl(self.localhost)
        middle = self.certificate(self.authority, "127.0.0.1")
        with TlsEnd(middle, passes_to=port) as end:
            client = self.client(end.port, timeout=10_000, ca_file=str(self.ca_file))
            self.assertRaises(AuthenticationError, client.list_files, "/")
            said = frames(end.heard())
        self.assertIn(FrameType.PROOF, said, "the proof was made for another certificate: this is the test")
        self.assertNotIn(FrameType.OPEN, said)
        # The control: with the server's own certificate it does get through.
        with TlsEnd(self.localhost, passes_to=port) as end:
            client = self.client(end.port, timeout=10_000, ca_file=str(self.ca_file))
            self.assertEqual(client.list_files("/"), {})
            client.close()
            self.assertIn(FrameType.OPEN, frames(end.heard()))

    def test_downgrade(self) -> None:
        """A client that wants TLS says nothing to a server that speaks none."""
        port = self.daemon().transfer_port
        with CutProxy(port, record=True) as proxy:
            for options in ({"tls": True}, {"public_key": self.pin}, {"ca_file": str(self.ca_file)}):
                client = self.client(proxy.port, timeout=2_000, **options)
                self.assertRaises(OSError, client.list_files, "/")
            said = proxy.recorded(Way.UP)
        self.assertNotIn(PREFACE, said)
        self.assertNotIn(bytes([FrameType.AUTH]) + bytes(HEADER_SIZE - 5), said)
