"""The key and the certificate of the daemon, and the pin by which a client knows them again.

Pure: no files. cryptography is imported where it is used: it costs more than all the rest of a command.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

#: How long a certificate is valid. Clients that hold the pin do not look at it; others would be cut off.
_LIFETIME = timedelta(days=3653)
#: The certificate begins this much earlier, for clients whose clock is behind.
_SKEW = timedelta(days=1)
_PIN_PREFIX = "sha256/"
#: 32 bytes in standard base64: the last of 43 characters carries four bits, so it is one of sixteen.
_PIN = re.compile(_PIN_PREFIX + "([A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)")


def generate_keys(now: datetime | None = None) -> tuple[str, str]:
    """Make ``(public_key, private_key)``: the pin, and PEM text of a new P-256 key and its certificate.

    The pin is `pin_of` the second. The key is unencrypted PKCS #8: keep the text in a file of mode 0600. The
    certificate is self-signed, for ten years from `now`, for a server (no authority) called ``localhost``,
    ``127.0.0.1`` or ``::1``; elsewhere a client needs the pin. `now` has a time zone; the clock is
    read only where it is left out.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(key, now or datetime.now(UTC))
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate_pem = certificate.public_bytes(serialization.Encoding.PEM)
    return _pin(certificate), (key_pem + certificate_pem).decode("ascii")


def pin_of(pem_text: str) -> str:
    """Return ``sha256/`` and standard base64 of SHA-256 of the public key.

    What is hashed is the SubjectPublicKeyInfo in DER (RFC 7469, section 2.4) of the first certificate in
    `pem_text`; keys beside it are not looked at. Raises ValueError, which shows nothing of the text, where
    there is no certificate that can be read.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return _pin(x509.load_pem_x509_certificate(pem_text.encode("utf-8", "surrogatepass")))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("the PEM text holds no certificate that can be read") from None


def pin_of_certificate(der: bytes) -> str:
    """Return the pin, as `pin_of` does, of a certificate in DER, as a TLS connection shows that of its peer.

    Raises ValueError where the bytes are no certificate, or one with a kind of key that is not known.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return _pin(x509.load_der_x509_certificate(der))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("the certificate cannot be read") from None


def read_pin(text: str) -> bytes:
    """Read a pin in its one spelling: the 32 bytes of the hash. Raises ValueError, one line for people."""
    match = _PIN.fullmatch(text)
    if match is None:
        raise ValueError("a public key is sha256/ and 44 characters, as fileexport generate-keys prints it")
    return base64.b64decode(match[1])


def _pin(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import serialization

    info = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return _PIN_PREFIX + base64.b64encode(hashlib.sha256(info).digest()).decode("ascii")


def _certificate(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fileexport")])
    addresses = [x509.IPAddress(ip_address(literal)) for literal in ("127.0.0.1", "::1")]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_only_signatures(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )


def _only_signatures() -> x509.KeyUsage:
    """TLS 1.2 with ECDHE, and TLS 1.3, use the key to sign and for nothing else."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
