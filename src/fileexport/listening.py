"""Listeners: opening and closing them, all or none, and who can reach them.

Outermost stands the gate, so that a refused connection costs no TLS handshake; TLS stands directly around the
door's factory, which says by `IProtocolNegotiationFactory` what ALPN may choose.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from functools import partial

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from fileexport.addresses import Address, read_address
from fileexport.endpoints import (
    BACKLOG,
    Endpoint,
    Reactor,
    TlsContext,
    is_loopback_name,
    listen_on_ipv6,
    read_endpoint,
    socket_endpoint,
)
from fileexport.errors import ConfigurationError, ListenError
from fileexport.gate import Gate, GatedFactory, ip_of
from fileexport.option_values import shown

#: Port 0 on two addresses: how often the second may find the first one's number taken.
_ATTEMPTS = 8
_WEAK = "a weak token needs TLS outside loopback: fileexport generate-token makes a better one"
#: How the sentence of a `ListenError` ends where somebody else has the address.
IN_USE = "the address is in use"
_REASONS = {
    errno.EADDRINUSE: IN_USE,
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


class Listener:
    """One endpoint: closed at first, then listening, then closed again.

    - `description`: its string, or how a person would call it.
    - `is_tls`: whether what passes is encrypted. TLS that a plugin's endpoint brings itself is not known of.
    - `is_loopback`: whether only this machine can connect, which holds for UNIX sockets too; None before
      `listen` where only the bound socket can tell.
    - `ports`: what listens; empty when nothing does.
    """

    def __init__(self, reactor: Reactor, description: str, endpoint: Endpoint) -> None:
        self.description = description
        self.is_tls = endpoint.tls is not None
        self.is_loopback = endpoint.is_loopback
        self.ports: tuple[IListeningPort, ...] = ()
        self._reactor = reactor
        self._endpoint = endpoint

    async def listen(self, factory: IProtocolFactory, gate: Gate) -> None:
        """Accept connections for `factory` that pass `gate`. Raises `ListenError`; nothing is open then."""
        door = factory
        if self._endpoint.tls is not None:
            door = TLSMemoryBIOFactory(self._endpoint.tls, False, factory, clock=self._reactor)
        try:
            self.ports = tuple(await self._endpoint.open(GatedFactory(door, gate)))
        except ListenError:
            raise
        except Exception as error:  # a plugin's endpoint may raise anything
            raise _cannot_listen(self.description, error) from error
        self.is_loopback = all(_is_local(port.getHost()) for port in self.ports)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens: ``127.0.0.1:9006``, ``[::1]:9006``, ``unix:/path``."""
        return tuple(_shown(port.getHost()) for port in self.ports)

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can reach it without TLS; of one that cannot be judged yet, False."""
        return not self.is_tls and self.is_loopback is False

    @property
    def places(self) -> tuple[str, ...]:
        """The addresses for a banner: ``tcp 127.0.0.1:6768``, ``tls [::1]:6768``, ``unix:/path``."""
        kind = "tls" if self.is_tls else "tcp"
        return tuple(a if a.startswith("unix:") else f"{kind} {a}" for a in self.addresses)

    @property
    def tcp_addresses(self) -> tuple[tuple[Address, int], ...]:
        """Address and port of each of its sockets that TCP reaches; ``0.0.0.0`` and ``::`` as they are."""
        hosts = [port.getHost() for port in self.ports]
        return tuple(
            (read_address(host.host), host.port)
            for host in hosts
            if isinstance(host, IPv4Address | IPv6Address)
        )

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses for a browser, ``http://…/`` or ``https://…/``; ``unix:/path`` as it is."""
        scheme = "https" if self.is_tls else "http"
        return tuple(a if a.startswith("unix:") else f"{scheme}://{a}/" for a in self.addresses)

    async def stop(self) -> None:
        """Accept no more; connections that came in stay. Nothing happens when it does not listen.

        Returns when the sockets are closed. A reactor that does not run cannot close them yet: this returns
        at once then.
        """
        ports, self.ports = self.ports, ()
        await _close(self._reactor, ports)


def parse_listener(
    reactor: Reactor, description: str, *, private_key_context: TlsContext | None = None
) -> Listener:
    """Read an endpoint string: ``tcp:``, ``tcp6:``, ``ssl:``, ``tls:``, ``unix:``, ``systemd:``, a plugin's.

    With `private_key_context` it speaks TLS, unless it does already or is a UNIX socket. Files that ``ssl:``
    and ``tls:`` name are read now. Raises `ListenError`, with one line.
    """
    try:
        endpoint = read_endpoint(reactor, description, private_key_context)
    except Exception as error:  # a plugin's parser may raise anything
        raise _cannot_listen(description, error) from error
    return Listener(reactor, description, endpoint)


def default_listener(
    reactor: Reactor,
    port: int,
    *,
    everywhere: bool = False,
    private_key_context: TlsContext | None = None,
) -> Listener:
    """Listen on `port` of 127.0.0.1 and, where there is one, of ::1; 0: a port that is free on both.

    With `everywhere` it is that port of every interface, IPv4 and, where there is one, IPv6.
    """
    first, second = ("0.0.0.0", "::") if everywhere else ("127.0.0.1", "::1")
    opener = partial(_listen_on_one_port, reactor, port, first, second)
    return Listener(reactor, f"tcp:{port}", Endpoint(opener, private_key_context, not everywhere))


def interface_listener(
    reactor: Reactor, port: int, address: str | None, *, private_key_context: TlsContext | None = None
) -> Listener:
    """Listen on `port` of the interface that has this address, or this name of the machine's.

    None: of loopback, ``""``: of every interface, as `default_listener`. Raises `ListenError` for a name that
    is unknown.
    """
    if not address:
        everywhere = address is not None
        return default_listener(reactor, port, everywhere=everywhere, private_key_context=private_key_context)
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ListenError(f"cannot listen on {shown(address)}: there is no such address") from None
    literal = str(found[0][4][0])
    opener = partial(_listen_alone, reactor, port, literal)
    endpoint = Endpoint(opener, private_key_context, is_loopback_name(literal))
    return Listener(reactor, _at(literal, port), endpoint)


def adopted_listener(
    reactor: Reactor, given: socket.socket, *, private_key_context: TlsContext | None = None
) -> Listener:
    """Listen on an application's own listening socket, TCP or UNIX, which stays its own to close.

    What listens is a duplicate; the socket is set to non-blocking, and connections go to whoever accepts
    first. With `private_key_context` TCP speaks TLS. Raises `ListenError` where it is no such socket.
    """
    try:
        endpoint = socket_endpoint(reactor, given, private_key_context)
    except (OSError, ValueError) as error:
        raise _cannot_listen("the given socket", error) from error
    return Listener(reactor, "the given socket", endpoint)


def check_exposure(listeners: Iterable[Listener], *, insecure_plaintext: bool) -> None:
    """Refuse listeners that other machines can reach without TLS, unless `insecure_plaintext`.

    Raises `ConfigurationError`, one line for each. Those that cannot be judged before they listen pass.
    """
    problems = [
        f"{listener.description} is open to other machines without TLS:"
        " give --private-key, or --insecure-plaintext to have it so"
        for listener in listeners
        if listener.is_exposed
    ]
    if problems and not insecure_plaintext:
        raise ConfigurationError(*problems)


def check_tokens(listeners: Iterable[Listener], weak: Sequence[str]) -> None:
    """Refuse weak tokens where other machines can overhear a proof of them: the `TokenTable.warnings`.

    Raises `ConfigurationError`, with those lines and one that says why. Judges listeners that listen.
    """
    if weak and any(listener.is_exposed for listener in listeners):
        raise ConfigurationError(*weak, _WEAK)


async def open_listeners(
    doors: Sequence[tuple[Listener, IProtocolFactory]], gate: Gate, *, insecure_plaintext: bool = False
) -> None:
    """Open every listener for its factory, or none.

    Raises what `check_exposure` does, before anything listens where the strings tell, and `ListenError`;
    those that were open already are closed again, as `Listener.stop` does.
    """
    check_exposure([listener for listener, _ in doors], insecure_plaintext=insecure_plaintext)
    opened: list[Listener] = []
    try:
        for listener, factory in doors:
            await listener.listen(factory, gate)
            opened.append(listener)
            check_exposure([listener], insecure_plaintext=insecure_plaintext)
    except Exception:
        for listener in opened:
            await listener.stop()
        raise


async def _listen_on_one_port(
    reactor: Reactor, port: int, four: str, six: str, factory: IProtocolFactory
) -> Sequence[IListeningPort]:
    """Listen on the same port of an IPv4 and an IPv6 address."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return await _listen_on_both(reactor, port, four, six, factory)
        except ListenError as error:
            if port or _number_of(error.__cause__) != errno.EADDRINUSE:
                raise
    return await _listen_on_both(reactor, port, four, six, factory)


async def _listen_on_both(
    reactor: Reactor, port: int, four: str, six: str, factory: IProtocolFactory
) -> Sequence[IListeningPort]:
    first = await _listen_tcp(reactor, port, four, factory)
    host = first.getHost()
    try:
        number = host.port if isinstance(host, IPv4Address) else port
        return first, await _listen_tcp(reactor, number, six, factory)
    except ListenError as error:
        if _number_of(error.__cause__) in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return (first,)  # a machine without IPv6
        await _close(reactor, [first])
        raise


async def _listen_alone(
    reactor: Reactor, port: int, interface: str, factory: IProtocolFactory
) -> Sequence[IListeningPort]:
    return (await _listen_tcp(reactor, port, interface, factory),)


async def _listen_tcp(
    reactor: Reactor, port: int, interface: str, factory: IProtocolFactory
) -> IListeningPort:
    try:
        if interface == "::":
            return (await listen_on_ipv6(reactor, port, factory))[0]
        endpoint = TCP4ServerEndpoint(reactor, port, BACKLOG, interface)
        bound: IListeningPort = await endpoint.listen(factory)
    except Exception as error:
        raise _cannot_listen(_at(interface, port), error) from error
    return bound


async def _close(reactor: Reactor, ports: Sequence[IListeningPort]) -> None:
    closing = gatherResults([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)
    if reactor.running:
        await closing


def _is_local(address: IAddress) -> bool:
    ip = ip_of(address)
    return isinstance(address, UNIXAddress) if ip is None else ip.is_loopback


def _shown(address: IAddress) -> str:
    if isinstance(address, IPv4Address | IPv6Address):
        return _at(address.host, address.port)
    if isinstance(address, UNIXAddress) and address.name is not None:
        return "unix:" + address.name.decode("utf-8", "replace").replace("\0", "@")
    return str(address)


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cannot_listen(description: str, error: Exception) -> ListenError:
    reason = _reason(error.socketError if isinstance(error, CannotListenError) else error)
    return ListenError(" ".join(f"cannot listen on {description}: {reason}".splitlines()))


def _reason(error: object) -> str:
    if isinstance(error, OSError):
        if reason := _REASONS.get(error.errno or 0):
            return reason
        if isinstance(error, socket.gaierror):
            return "there is no such address"
        text = error.strerror or str(error)
        return f"{error.filename}: {text}" if error.filename else text
    if isinstance(error, ValueError | ConfigurationError):
        return str(error)
    if isinstance(error, str):  # Twisted's word for the lock of a UNIX socket that another process holds
        return _REASONS[errno.EADDRINUSE]
    return "the description is not valid"


def _number_of(error: BaseException | None) -> int | None:
    cause = error.socketError if isinstance(error, CannotListenError) else error
    return cause.errno if isinstance(cause, OSError) else None
