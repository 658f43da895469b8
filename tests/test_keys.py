"""What `fileexport.keys` promises."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import ssl
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.keys import generate_keys, pin_of, pin_of_certificate, read_pin

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
#: A certificate and its pin, both made with OpenSSL's command line.
VECTOR = """-----BEGIN CERTIFICATE-----
MIIBdjCCAR2gAwIBAgIUVuX0JVcfdJeHjpcLhe5QMf40a3QwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGdmVjdG9yMB4XDTI2MTEyMTE0NDAyNloXDTM2MTExODE0NDAy
NlowETEPMA0GA1UEAwwGdmVjdG9yMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
z4h+A4+F+WPExWm/l2WiqzPfu8ibwq8isX7Ky/IMl1jjDg6ywA+SQ5pgv1oVD3sw
TVdwT7lEEwNhXI8+ZWnPr6NTMFEwHQYDVR0OBBYEFCkHvsrQ9P+g2SxxbDCx4WJ9
haYEMB8GA1UdIwQYMBaAFCkHvsrQ9P+g2SxxbDCx4WJ9haYEMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgTDSuUUBhpVMUcS4dwZ6Dyh5nf8VRX1N6
7qQcHuWNMFACIBwpcnTI+xNabK1yVrLbTU9HCcprydamGGlmBMl6L8L4
-----END CERTIFICATE-----
"""
VECTOR_PIN = "sha256/" + "/FAD2e37PmC+7wK+va0LdN0TILTYcLTLFeiW8klh4QQ="


def handshake(pem: str, server_hostname: str) -> str | None:
    """Shake hands in memory with a client that trusts only this certificate; return the TLS version."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "key.pem")
        file.write_text(pem)
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(file)
    client_context = ssl.create_default_context(cadata=pem[pem.index("-----BEGIN CERTIFICATE") :])
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server, server_hostname=server_hostname)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
    return client.version()


class GenerateKeysTests(SynchronousTestCase):
    """The pair that `generate_keys` makes."""

    def setUp(self) -> None:
        self.public_key, self.private_key = generate_keys(NOW)
        self.certificate = x509.load_pem_x509_certificate(self.private_key.encode("ascii"))

    def test_key(self) -> None:
        """The text holds an unencrypted PKCS #8 key on P-256, then its certificate."""
        self.assertTrue(self.private_key.startswith("-----BEGIN PRIVATE KEY-----\n"))
        self.assertTrue(self.private_key.endswith("-----END CERTIFICATE-----\n"))
        key = serialization.load_pem_private_key(self.private_key.encode("ascii"), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.assertEqual(key.curve.name, "secp256r1")
        self.assertEqual(key.public_key(), self.certificate.public_key())

    def test_pin(self) -> None:
        """The public key is the pin of the private one, and that of the key itself."""
        self.assertEqual(self.public_key, pin_of(self.private_key))
        key = serialization.load_pem_private_key(self.private_key.encode("ascii"), None)
        info = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        expected = base64.b64encode(hashlib.sha256(info).digest()).decode("ascii")
        self.assertEqual(self.public_key, f"sha256/{expected}")

    def test_names(self) -> None:
        """The certificate is called fileexport and serves localhost and both loopback addresses."""
        (common_name,) = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        self.assertEqual(common_name.value, "fileexport")
        names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["localhost"])
        self.assertEqual(
            names.get_values_for_type(x509.IPAddress),
            [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")],
        )

    def test_purpose(self) -> None:
        """The certificate is for a server, signed by itself, and can vouch for no other."""
        self.certificate.verify_directly_issued_by(self.certificate)
        extensions = self.certificate.extensions
        self.assertFalse(extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
        self.assertFalse(extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign)
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        self.assertEqual(list(purposes), [ExtendedKeyUsageOID.SERVER_AUTH])

    def test_lifetime(self) -> None:
        """The certificate is valid from a little before now, for ten years and a few days at most."""
        self.assertLess(self.certificate.not_valid_before_utc, NOW)
        self.assertGreaterEqual(self.certificate.not_valid_after_utc, NOW.replace(year=NOW.year + 10))
        self.assertLess(self.certificate.not_valid_after_utc, NOW + timedelta(days=3660))

    def test_every_pair_is_new(self) -> None:
        """Two pairs have neither key nor serial number in common."""
        public_key, private_key = generate_keys(NOW)
        other = x509.load_pem_x509_certificate(private_key.encode("ascii"))
        self.assertNotEqual(public_key, self.public_key)
        self.assertNotEqual(other.serial_number, self.certificate.serial_number)

    def test_a_strict_client_accepts_it(self) -> None:
        """A client that trusts the certificate verifies the names in it, and no other name."""
        _, private_key = generate_keys()
        for name in ("localhost", "127.0.0.1", "::1"):
            self.assertEqual(handshake(private_key, name), "TLSv1.3")
        self.assertRaises(ssl.SSLCertVerificationError, handshake, private_key, "example.org")


class PinTests(SynchronousTestCase):
    """The pin of a PEM text."""

    def test_vector(self) -> None:
        """The pin is what another implementation computes."""
        self.assertEqual(pin_of(VECTOR), VECTOR_PIN)

    def test_first_certificate_counts(self) -> None:
        """Of a chain, the first certificate has the pin, whatever stands before it."""
        public_key, private_key = generate_keys(NOW)
        self.assertEqual(pin_of(f"comment\n{VECTOR}{private_key}"), VECTOR_PIN)
        self.assertEqual(pin_of(private_key + VECTOR), public_key)

    def test_no_certificate(self) -> None:
        """A text without a readable certificate is a ValueError that shows nothing of it."""
        _, private_key = generate_keys(NOW)
        key_alone = private_key[: private_key.index("-----BEGIN CERTIFICATE")]
        damaged = VECTOR.replace("MIIBdjCC", "MIIBdjCD")
        for text in ("", "no PEM", "\ud800ä\0", key_alone, damaged, VECTOR[:200], key_alone + damaged):
            with self.subTest(text=text[:30]):
                error = self.assertRaises(ValueError, pin_of, text)
                self.assertEqual(str(error), "the PEM text holds no certificate that can be read")

    def test_der(self) -> None:
        """A certificate in DER has the same pin; what is none is a ValueError."""
        der = ssl.PEM_cert_to_DER_cert(VECTOR)
        self.assertEqual(pin_of_certificate(der), VECTOR_PIN)
        for data in (b"", b"no DER", der[:-1], der + b"x", VECTOR.encode("ascii")):
            error = self.assertRaises(ValueError, pin_of_certificate, data)
            self.assertEqual(str(error), "the certificate cannot be read")

    def test_read(self) -> None:
        """A pin that is read is the hash of the public key."""
        info = x509.load_pem_x509_certificate(VECTOR.encode("ascii")).public_key()
        der = info.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.assertEqual(read_pin(VECTOR_PIN), hashlib.sha256(der).digest())

    @given(st.binary(min_size=32, max_size=32))
    def test_read_back(self, digest: bytes) -> None:
        """Every hash has one spelling, which is read back, and no other is."""
        encoded = base64.b64encode(digest).decode("ascii")
        self.assertEqual(read_pin(f"sha256/{encoded}"), digest)
        last = chr(ord(encoded[42]) + 1)
        for text in (
            *(encoded, f"SHA256/{encoded}", f"sha256:{encoded}", f"sha1/{encoded}", f"sha256//{encoded}"),
            *(f"sha256/{encoded[:-1]}", f"sha256/{encoded}=", f"sha256/{encoded}\n", f" sha256/{encoded}"),
            *(f"sha256/{encoded[:42]}{last}=", f"sha256/{encoded[1:]}", f"sha256/_{encoded[1:]}", ""),
        ):
            error = self.assertRaises(ValueError, read_pin, text)
            self.assertEqual(len(str(error).splitlines()), 1)


class ImportTests(SynchronousTestCase):
    """What importing costs."""

    def test_cryptography_waits(self) -> None:
        """Importing the module does not import cryptography, so that a client command starts fast."""
        program = "import sys, fileexport.keys; sys.exit('cryptography' in sys.modules)"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        result = subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=False)
        self.assertEqual(result.returncode, 0)
