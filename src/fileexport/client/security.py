"""Whom the client believes: TLS by CA and name, or by the pin of a key; and when plain TCP will do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from fileexport.addresses import read_address
from fileexport.errors import AuthenticationError
from fileexport.wire.frames import ALPN

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable


class Secured(NamedTuple):
    """A socket after the handshake, and what the proof of the token is bound to (empty without TLS)."""

    socket: socket.socket
    binding: bytes


@dataclass(frozen=True)
class Security:
    """How a client and its server know each other on the wire.

    - `public_key`, a pin: TLS, and the server's key must be this one. Names, authorities and dates of its
      certificate are not looked at.
    - `ca_file`: TLS, and the certificate must come from one of these authorities and name the host.
    - `tls=True`: the same with the system's authorities.
    - none of them: plain TCP, to this machine only; `tls=False` allows it to others.

    `client_certificate` is a PEM file with the key and the certificate that the client shows. Raises
    ValueError for what contradicts itself, and for a pin that is none.
    """

    public_key: str | None = None
    ca_file: str | None = None
    tls: bool | None = None
    client_certificate: str | None = None
    #: How to say that TLS is wanted, or is not, in terms of who made this.
    advice: str = "give public_key, ca_file or tls=True for TLS, or tls=False"

    def __post_init__(self) -> None:
        if self.public_key is not None:
            from fileexport.keys import read_pin

            read_pin(self.public_key)
        if self.public_key is not None and self.ca_file is not None:
            raise ValueError("either public_key or ca_file: with a pin no authority is asked")
        if self.tls is False and self._wants_tls:
            raise ValueError("tls=False contradicts public_key, ca_file and client_certificate")

    @property
    def _wants_tls(self) -> bool:
        return any(value is not None for value in (self.public_key, self.ca_file, self.client_certificate))

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS is spoken."""
        return bool(self.tls) or self._wants_tls

    def check_address(self, address: str) -> None:
        """Refuse plain TCP to another machine, unless `tls=False` said so; raises ValueError."""
        if not self.is_encrypted and self.tls is None and not is_loopback(address):
            raise ValueError(f"{address} is another machine: {self.advice}")

    @cached_property
    def _context(self) -> ssl.SSLContext:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([ALPN.decode("ascii")])
        if self.public_key is not None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca_file is not None:
            _load(context.load_verify_locations, self.ca_file)
        else:
            context.load_default_certs()
        if self.client_certificate is not None:
            _load(context.load_cert_chain, self.client_certificate)
        return context

    def prepare(self) -> None:
        """Read the certificate files; raises ValueError with the name of one that cannot be used."""
        if self.is_encrypted:
            _ = self._context

    def secure(self, plain: socket.socket, hostname: str) -> Secured:
        """Shake hands, and check who answers, within the time-out of the socket, which the result takes.

        Raises `AuthenticationError` where it is not the server that is wanted, `TimeoutError`, else
        `ConnectionError`; the socket is closed then.
        """
        if not self.is_encrypted:
            return Secured(plain, b"")
        import ssl

        try:
            secured = self._context.wrap_socket(plain, server_hostname=hostname)
        except ssl.SSLCertVerificationError as error:
            plain.close()
            raise AuthenticationError(f"the server's certificate: {error.verify_message}") from None
        except TimeoutError:
            plain.close()
            raise TimeoutError("the server does not answer the TLS handshake in time") from None
        except OSError as error:
            plain.close()
            reason = getattr(error, "reason", None) or error
            raise ConnectionError(f"no TLS with this server: {reason}") from None
        try:
            return Secured(secured, self.binding(secured.getpeercert(binary_form=True)))
        except BaseException:
            secured.close()
            raise

    def binding(self, certificate: bytes | None) -> bytes:
        """What the proof is bound to, by the server's certificate (DER), if that has the pin that is wanted.

        Raises `AuthenticationError`.
        """
        from fileexport.keys import pin_of_certificate
        from fileexport.proofs import end_point_binding

        if certificate is None:
            raise AuthenticationError("the server shows no certificate")
        try:
            if self.public_key is not None and pin_of_certificate(certificate) != self.public_key:
                raise AuthenticationError("the server's key is not the one that public_key names")
            return end_point_binding(certificate)
        except ValueError:
            raise AuthenticationError("the server's certificate cannot be read") from None


def _load(load: Callable[[str], None], file: str) -> None:
    """Read a certificate file. What is wrong with it is no error of the server's, as other `OSError` are."""
    try:
        load(file)
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror
        raise ValueError(f"{file}: this certificate file cannot be used: {reason}") from None


def is_here(hostname: str) -> bool:
    """Whether a name or an address means this very machine, whoever is asked."""
    if hostname.rstrip(".").lower() == "localhost":
        return True
    try:
        return is_loopback(hostname)
    except ValueError:
        return False


def is_loopback(address: str) -> bool:
    """Whether an address, as the system's resolver writes it, is this very machine."""
    return read_address(address.partition("%")[0]).is_loopback
