"""Endpoint strings: what each kind needs to listen with a reactor of our own, and TLS for them.

Twisted's ``ssl:`` and ``tls:`` take the clock of their TLS from the global reactor and would hang under
another one. What is made here leaves TLS out; `fileexport.listening` adds it, with the right clock.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import stat
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL.crypto import X509, PKey
from OpenSSL.SSL import Connection
from OpenSSL.SSL import Error as TlsError
from twisted.internet import unix
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, TCP4ServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.ssl import Certificate, CertificateOptions, TLSVersion, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from fileexport.addresses import read_address
from fileexport.errors import ConfigurationError

#: IReactorCore, IReactorTime, IReactorTCP, IReactorUNIX and IReactorSocket in one; no type says that.
Reactor = Any
Opener = Callable[[IProtocolFactory], Coroutine[Deferred[Any], Any, Sequence[IListeningPort]]]

#: Connections that may wait to be accepted. With Twisted's 50, a burst makes clients wait a second.
BACKLOG = 1024
#: The arguments of the strings that we look into, in the order of `serverFromString`.
_ARGUMENTS = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "tls": ("path", "port", "backlog", "interface"),
    "ssl": ("port", "privateKey", "certKey", "sslmethod", "interface", "backlog", "extraCertChain"),
    "unix": ("address", "mode", "backlog", "lockfile"),
}
#: The authorities of the peer: Twisted has this argument of ``ssl:`` for clients only.
_AUTHORITIES = "caCertsDir"
_DEFAULT_PORT = {"tls": "443"}
_EVERY_INTERFACE = {"tcp": "", "ssl": "", "tcp6": "::", "tls": "::"}


class Endpoint(NamedTuple):
    """An endpoint string, read.

    - `open` listens, without TLS, and returns what listens; it raises what Twisted or a plugin raises.
    - `tls`: what makes its TLS connections; None: it speaks plain text.
    - `is_loopback`: whether only this machine can connect (UNIX sockets included); None: the bound socket
      will tell.
    """

    open: Opener
    tls: IOpenSSLServerConnectionCreator | None
    is_loopback: bool | None


@implementer(IOpenSSLServerConnectionCreator)
class TlsContext:
    """The key and certificate that new connections get: TLS 1.2 and 1.3.

    `pem_text` holds an unencrypted private key, its certificate, and, optionally, the chain to the authority
    (RFC 7468), in any order. With `authorities` a client must show a certificate that one of them has signed.
    Raises `ConfigurationError`, which shows nothing of the text.

    Any number of listeners and doors share it: what ALPN may choose is asked of the door of each connection.
    """

    def __init__(self, pem_text: str, authorities: Sequence[x509.Certificate] = ()) -> None:
        self._authorities = tuple(authorities)
        self._options = _certificate_options(pem_text, self._authorities)

    def reload(self, pem_text: str) -> None:
        """Use another key and certificate from the next connection on.

        Raises `ConfigurationError`; the old ones stay then.
        """
        self._options = _certificate_options(pem_text, self._authorities)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> Connection:
        """Twisted asks this for each connection."""
        return self._options.serverConnectionForTLS(protocol)


def tls_context(private_key: str) -> TlsContext:
    """TLS with this PEM text, for a program that has it. Raises ValueError, which shows nothing of it."""
    try:
        return TlsContext(private_key)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


def _certificate_options(pem_text: str, authorities: Sequence[x509.Certificate]) -> CertificateOptions:
    trusted = [Certificate(X509.from_cryptography(authority)) for authority in authorities]
    data = pem_text.encode("utf-8", "surrogateescape")
    try:
        key = load_pem_private_key(data, None)
        certificates = x509.load_pem_x509_certificates(data)
        own = [c for c in certificates if c.public_key() == key.public_key()]
        if not own:
            raise ConfigurationError("private key: none of the certificates belongs to it")
        options = CertificateOptions(
            privateKey=PKey.from_cryptography_key(key),  # type: ignore[arg-type]  # TypeError where it cannot
            certificate=X509.from_cryptography(own[0]),
            extraCertChain=[X509.from_cryptography(c) for c in certificates if c not in own],
            raiseMinimumTo=TLSVersion.TLSv1_2,
            trustRoot=trustRootFromCertificates(trusted) if trusted else None,
        )
        options.getContext()  # OpenSSL has its say now, not at the first connection
    except (ValueError, TypeError, UnsupportedAlgorithm, TlsError):
        raise ConfigurationError(
            "private key: wanted is PEM text with an unencrypted key and a certificate, both good for TLS 1.2"
        ) from None
    return options


def read_endpoint(reactor: Reactor, description: str, private_key: TlsContext | None) -> Endpoint:
    """Read an endpoint string; with `private_key`, TCP kinds that bring no TLS of their own get it.

    Raises ValueError and `ConfigurationError` with a sentence for people, OSError for a file that the
    string names, and whatever Twisted's parser or a plugin raises.
    """
    kind, arguments = _split(description)
    if kind in _EVERY_INTERFACE:
        return _read_tcp(reactor, description, kind, arguments, private_key)
    if kind == "stdio" or (kind == "unix" and not arguments.get("address")):
        raise ValueError(f"{kind}: needs a path" if kind == "unix" else "stdio: does not listen")
    endpoint = (
        _from_systemd(reactor, description) if kind == "systemd" else serverFromString(reactor, description)
    )
    if kind == "unix":
        has_lock = int(arguments.get("lockfile", "1")) != 0
        return Endpoint(partial(_listen_unix, endpoint, arguments["address"], has_lock), None, True)
    if isinstance(endpoint, AdoptedStreamServerEndpoint) and endpoint.addressFamily == socket.AF_UNIX:
        return Endpoint(partial(_adopt_unix, reactor, endpoint.fileno), None, True)
    return Endpoint(partial(_listen, endpoint), private_key, None)


def socket_endpoint(reactor: Reactor, given: socket.socket, private_key: TlsContext | None) -> Endpoint:
    """Read an application's own listening socket: TCP, or UNIX, which gets no TLS.

    What opens it listens on a duplicate, so the socket stays the application's to close; but it does not
    block any more. Raises ValueError with a sentence for people where it is not such a socket, OSError where
    it is closed.
    """
    if isinstance(given, ssl.SSLSocket):
        # Its duplicate would speak plain text.
        raise ValueError("it speaks TLS already; give the socket beneath, and a private key")
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    is_listening = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if given.type != socket.SOCK_STREAM or given.family not in families or not is_listening:
        raise ValueError("it is not a listening socket for TCP or UNIX connections")
    if given.family == socket.AF_UNIX:
        return Endpoint(partial(_adopt_duplicate, reactor, given), None, True)
    is_local = is_loopback_name(given.getsockname()[0])
    return Endpoint(partial(_adopt_duplicate, reactor, given), private_key, is_local)


def _from_systemd(reactor: Reactor, description: str) -> IStreamServerEndpoint:
    """The endpoint of a socket that systemd hands over. Raises ValueError: what is missing, what to write."""
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except LookupError:
        # Twisted has taken the variables away by now, so how many there are cannot be said.
        raise ValueError(
            "no such socket was handed over (LISTEN_FDS): start the daemon through a systemd .socket unit"
            " that has it, or listen with tcp: or unix:"
        ) from None
    except (ValueError, TypeError, AttributeError):
        # No index, no number, an unknown word or family: Twisted answers each with another of these.
        raise ValueError(
            "write systemd:domain=INET:index=0 (or INET6, UNIX) for the first socket that a systemd .socket"
            " unit hands over (LISTEN_FDS)"
        ) from None
    return endpoint


def _read_tcp(
    reactor: Reactor, description: str, kind: str, arguments: dict[str, str], tls: TlsContext | None
) -> Endpoint:
    port = arguments.get("port", _DEFAULT_PORT.get(kind, ""))
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError("the port must be a number from 0 to 65535")
    interface = arguments.get("interface", _EVERY_INTERFACE[kind])
    local = is_loopback_name(interface)
    if kind == "ssl":
        context = _ssl_context(arguments)
        endpoint = TCP4ServerEndpoint(reactor, int(port), int(arguments.get("backlog", BACKLOG)), interface)
        return Endpoint(partial(_listen, endpoint), context, local)
    if kind == "tls":
        os.stat(arguments.get("path", ""))  # Twisted takes a missing directory for an empty one
        parts: Any = serverFromString(reactor, description)
        return Endpoint(partial(_listen, parts.endpoint), parts.connectionCreator, local)
    if "backlog" not in arguments:
        description += f":backlog={BACKLOG}"
    return Endpoint(partial(_listen, serverFromString(reactor, description)), tls, local)


def is_loopback_name(interface: str) -> bool | None:
    """Whether binding to `interface` is binding to loopback; None for a name that is no address."""
    try:
        return read_address(interface).is_loopback if interface else False
    except ValueError:
        return None


def _split(description: str) -> tuple[str, dict[str, str]]:
    """The kind of an endpoint string, and its arguments by name where we know their names.

    A backslash takes the meaning from the character after it; a field's first ``=`` ends its name.
    """
    kind, *fields = re.findall(r"(?:^|:)((?:\\.|[^:\\])*)", description, re.DOTALL)
    names = iter(_ARGUMENTS.get(kind.lower(), ()))
    arguments = {}
    for field in fields:
        named = re.fullmatch(r"((?:\\.|[^=\\])*)=(.*)", field, re.DOTALL)
        name, value = named.groups() if named else (next(names, ""), field)
        arguments[_unescaped(name)] = _unescaped(value)
    return kind.lower(), arguments


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _ssl_context(arguments: dict[str, str]) -> TlsContext:
    """The files of an ssl: string; it has no choice of methods and no Diffie-Hellman parameters here.

    Beside Twisted's arguments it takes ``caCertsDir``, by name only: clients need a certificate then.
    """
    known = sorted({*_ARGUMENTS["ssl"], _AUTHORITIES} - {"sslmethod"})
    if unknown := sorted(set(arguments).difference(known)):
        raise ValueError(f"ssl: takes {', '.join(known)}; not {', '.join(unknown) or 'more'}")
    key = arguments.get("privateKey", "server.pem")
    files = dict.fromkeys([key, arguments.get("certKey", key), arguments.get("extraCertChain", key)])
    authorities = _authorities_in(arguments[_AUTHORITIES]) if _AUTHORITIES in arguments else []
    return TlsContext("\n".join(map(_read, files)), authorities)


def _authorities_in(directory: str) -> list[x509.Certificate]:
    """The certificates in a directory's files ``*.pem``. Raises OSError, and ValueError: none, or bad."""
    found: list[x509.Certificate] = []
    for name in sorted(os.listdir(directory)):
        if name.endswith(".pem"):
            path = os.path.join(directory, name)
            try:
                found += x509.load_pem_x509_certificates(_read(path).encode("ascii", "replace"))
            except ValueError:
                raise ValueError(f"{path}: holds no certificate that can be read") from None
    if not found:
        # Nobody could ever connect.
        raise ValueError(f"{directory}: has no authority's certificate in a file *.pem")
    return found


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode("ascii", "replace")


async def _listen(endpoint: IStreamServerEndpoint, factory: IProtocolFactory) -> Sequence[IListeningPort]:
    return (await endpoint.listen(factory),)


async def _listen_unix(
    endpoint: IStreamServerEndpoint, path: str, has_lock: bool, factory: IProtocolFactory
) -> Sequence[IListeningPort]:
    _remove_stale(path)
    try:
        return (await endpoint.listen(factory),)
    except CannotListenError as error:
        if has_lock and isinstance(error.socketError, OSError):
            # Twisted took the lock before the socket failed; it would say "in use" the next time.
            with suppress(OSError):
                os.unlink(path + ".lock")
        raise


def _remove_stale(path: str) -> None:
    """Remove the socket at `path`, and Twisted's lock beside it, if nobody listens there any more.

    Twisted asks only whether a process with the number in the lock lives: in a container, where numbers
    repeat, a killed daemon would block the next one for ever.
    """
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            if stat.S_ISLNK(os.lstat(path + ".lock").st_mode):
                os.unlink(path + ".lock")


class _InheritedUnixPort(unix.Port):
    """A listening UNIX socket that systemd made and keeps.

    Twisted's own adoption sets the file's mode to 666, which fails where the file is not ours, and shuts the
    socket down and removes its file at the end. A port without a name in the file system does none of that.
    """

    _shouldShutdown = False

    def __init__(self, inherited: socket.socket, factory: IProtocolFactory, reactor: Reactor) -> None:
        super().__init__(b"\0", factory, BACKLOG, reactor=reactor)
        self._preexistingSocket = inherited


async def _adopt_unix(reactor: Reactor, fileno: int, factory: IProtocolFactory) -> Sequence[IListeningPort]:
    inherited = socket.socket(fileno=fileno)
    inherited.setblocking(False)
    inherited.set_inheritable(False)
    port: IListeningPort = _InheritedUnixPort(inherited, factory, reactor)
    port.startListening()
    return (port,)


async def _adopt_duplicate(
    reactor: Reactor, given: socket.socket, factory: IProtocolFactory
) -> Sequence[IListeningPort]:
    if given.family == socket.AF_UNIX:
        return await _adopt_unix(reactor, given.dup().detach(), factory)
    given.setblocking(False)
    # Duplicated by Twisted.
    return (reactor.adoptStreamPort(given.fileno(), given.family, factory),)


async def listen_on_ipv6(reactor: Reactor, port: int, factory: IProtocolFactory) -> Sequence[IListeningPort]:
    """Listen on every IPv6 address, and on no IPv4 one: another socket may have the port there.

    Raises OSError.
    """
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as made:
        # Twisted has no way to set the second one.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(("::", port))
        made.listen(BACKLOG)
        return await _adopt_duplicate(reactor, made, factory)
