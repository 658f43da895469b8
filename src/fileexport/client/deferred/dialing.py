"""The connection of an `AsyncClient`: made when it is needed, over any endpoint, one for all operations.

Operations get their places on it in the order in which they asked.
"""

from __future__ import annotations

import copy
import errno
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from OpenSSL import SSL, crypto
from service_identity import VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet import error as errors
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IOpenSSLClientConnectionCreator,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from fileexport.client.connection import Traffic, no_answer, not_connected
from fileexport.client.deferred.link import Link, Met
from fileexport.client.login import Server
from fileexport.client.security import Security, is_loopback
from fileexport.errors import AuthenticationError
from fileexport.wire.frames import ALPN


class Place(NamedTuple):
    """The right to one stream on a link. `was_idle`: the link had been there before it was asked for."""

    link: Link
    was_idle: bool

    def free(self) -> None:
        """Give it back; any thread."""
        self.link.give_back(1)


class _Waiter:
    """Somebody who wants a place, and how long they wait for a connection."""

    def __init__(self, seconds: float, cancel: Callable[[_Waiter], None]) -> None:
        self.deferred: Deferred[Place] = Deferred(lambda _: cancel(self))
        self.seconds = seconds
        self.timer: IDelayedCall | None = None
        #: Whether there was no connection at some time.
        self.was_alone = False

    def disarm(self) -> None:
        """Their time does not run any more."""
        timer, self.timer = self.timer, None
        if timer is not None and timer.active():
            timer.cancel()


class Switchboard:
    """Gives out places on the connection to one server, which it makes when somebody asks for one.

    `seconds` are those that connecting may take. `end` is called when the reactor ends before it is closed.
    All of it happens in the reactor's thread.
    """

    def __init__(
        self,
        reactor: Any,
        server: Server,
        endpoint: IStreamClientEndpoint | None,
        seconds: float,
        end: Callable[[], object],
    ) -> None:
        self.reactor = reactor
        self.server = server
        self.lock = threading.RLock()
        self.traffic = Traffic()
        self._endpoint = endpoint
        self._seconds = seconds
        self._at_end = end
        self._trigger: object = None
        self._creator = _Creator(server.security, server.hostname) if server.security.is_encrypted else None
        self._link: Link | None = None
        self._links: set[Link] = set()
        self._waiting: deque[_Waiter] = deque()
        self._attempt: Deferred[None] | None = None
        #: Also while the first step of an attempt is taken.
        self._is_connecting = False

    def place(self, seconds: float) -> Deferred[Place]:
        """A place for one operation. Connecting may take `seconds`, waiting for others as long as it takes.

        Fails as `Server.enter` raises. Cancelled, it gives up its place in the queue.
        """
        waiter = _Waiter(seconds, self._forget)
        self._waiting.append(waiter)
        self._serve()
        return waiter.deferred

    async def close(self) -> None:
        """End all connections, and what is under way on them; what comes later connects again."""
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            self.reactor.removeSystemEventTrigger(trigger)
        if self._attempt is not None:
            self._attempt.cancel()
        self._fail(CancelledError())
        for link in tuple(self._links):
            link.leave(CancelledError())
        for link in tuple(self._links):
            await _ended(link)

    def _at_shutdown(self) -> object:
        self._trigger = None
        return self._at_end()

    def _forget(self, waiter: _Waiter) -> None:
        waiter.disarm()
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        if not self._waiting and self._attempt is not None:
            self._attempt.cancel()

    def _serve(self) -> None:
        """Give out what there is, and see to it that there is something."""
        while (link := self._usable()) is not None and self._waiting:
            with link.lock:
                if link.places <= 0:
                    break
                link.places -= 1
            waiter = self._waiting.popleft()
            waiter.disarm()
            waiter.deferred.callback(Place(link, not waiter.was_alone))
        for waiter in self._waiting:
            if link is not None:
                waiter.disarm()
            elif waiter.timer is None:
                waiter.was_alone = True
                waiter.timer = self.reactor.callLater(waiter.seconds, self._expire, waiter)
        if self._waiting and link is None and not self._is_connecting:
            self._connect()

    def _usable(self) -> Link | None:
        if self._link is not None and self._link.is_leaving:
            self._link = None
        return self._link

    def _expire(self, waiter: _Waiter) -> None:
        self._forget(waiter)
        waiter.deferred.errback(no_answer(waiter.seconds))

    def _fail(self, error: BaseException | None) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            waiter.disarm()
            waiter.deferred.errback(copy.copy(error))

    # Connecting.

    def _connect(self) -> None:
        if self._trigger is None:
            self._trigger = self.reactor.addSystemEventTrigger("before", "shutdown", self._at_shutdown)
        self._is_connecting = True
        self._attempt = attempt = Deferred.fromCoroutine(self._enter())
        timer = self.reactor.callLater(self._seconds, attempt.cancel)

        def done(result: object) -> None:
            is_late = not timer.active()
            if not is_late:
                timer.cancel()
            self._attempt, self._is_connecting = None, False
            if isinstance(result, Failure):
                self._fail(no_answer(self._seconds) if is_late else result.value)
            self._serve()

        attempt.addBoth(done)

    async def _enter(self) -> None:
        """Make a connection, and be let in."""
        made: list[Link] = []
        where = f"{self.server.hostname} port {self.server.port}"
        # Without a token nobody is called.
        self.server.proof()
        try:
            await (self._endpoint or self._dial()).connect(self._factory(made))
        except (errors.ConnectError, errors.DNSLookupError) as error:
            raise _not_connected(error, where) from None
        (link,) = made[-1:]
        await link.ready
        self._link = link

    def _dial(self) -> IStreamClientEndpoint:
        """TCP; an address is not looked up."""
        host, port = self.server.hostname, self.server.port
        for is_address, kind in ((isIPAddress, TCP4ClientEndpoint), (isIPv6Address, TCP6ClientEndpoint)):
            if is_address(host):
                return kind(self.reactor, host, port, self._seconds)
        return HostnameEndpoint(self.reactor, host, port, self._seconds)

    def _factory(self, made: list[Link]) -> Any:
        """Makes the link, with TLS where that is wanted; `made` gets it."""
        inner = _Factory(partial(self._make, made))
        if self._creator is None:
            return inner
        self._creator.prepare()
        # By its own clock: the default one is that of the global reactor.
        return TLSMemoryBIOFactory(self._creator, True, inner, clock=self.reactor)

    def _make(self, made: list[Link]) -> Link:
        link = Link(self.reactor, self.lock, self.traffic, self._meet, self._serve)
        made.append(link)
        self._links.add(link)
        link.gone.addCallback(lambda _: self._links.discard(link))
        return link

    def _meet(self, transport: Any) -> Met:
        """Judge who is there. Raises `AuthenticationError`, and ValueError for plain text to another machine.

        Where the endpoint brought TLS, that has judged them.
        """
        peer = transport.getPeer()
        binding = b""
        if self._creator is not None:
            binding = self._creator.bind(transport)
        elif ISSLTransport.providedBy(transport):
            binding = self.server.security.binding(_certificate(transport))
        elif isinstance(peer, IPv4Address | IPv6Address):
            self.server.check_address(peer.host)
        elif not isinstance(peer, UNIXAddress) and self.server.security.tls is None:
            raise ValueError(f"whether {peer} is this machine is not known: tls=False allows plain text")
        return Met(self.server.proof(), binding, self.server.features(_is_near(peer)))


def _is_near(peer: IAddress) -> bool:
    """Whether a peer is this machine."""
    if isinstance(peer, IPv4Address | IPv6Address):
        return is_loopback(peer.host)
    return isinstance(peer, UNIXAddress)


def _ended(link: Link) -> Deferred[None]:
    ended: Deferred[None] = Deferred()
    link.gone.addCallback(lambda _: ended.callback(None))
    return ended


def _not_connected(error: Exception, where: str) -> OSError:
    """The failure of an endpoint as the exception that it is elsewhere."""
    if isinstance(error, errors.TimeoutError):
        return not_connected(TimeoutError(), where)
    number = getattr(error, "osError", None)
    if isinstance(error, errors.ConnectionRefusedError) and not isinstance(number, int):
        number = errno.ECONNREFUSED
    if isinstance(number, int):
        return not_connected(OSError(number, os.strerror(number)), where)
    return not_connected(ConnectionError(str(error).rstrip(".")), where)


class _Factory(Factory):
    """Makes the link of one attempt."""

    noisy = False

    def __init__(self, make: Callable[[], Link]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> Link:
        """Make it."""
        return self._make()


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """TLS by the rules of `Security`: the pin, or authorities and the name."""

    def __init__(self, security: Security, hostname: str) -> None:
        self._security = security
        self._hostname = hostname
        self._is_address = isIPAddress(hostname) or isIPv6Address(hostname)
        self._context: SSL.Context | None = None

    def prepare(self) -> SSL.Context:
        """Read the certificate files; raises ValueError with the name of one that cannot be used."""
        if self._context is not None:
            return self._context
        security = self._security
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_alpn_protos([ALPN])
        if security.public_key is None:
            context.set_verify(SSL.VERIFY_PEER)
            if security.ca_file is not None:
                _load(context.load_verify_locations, security.ca_file)
            else:
                context.set_default_verify_paths()
        if security.client_certificate is not None:
            _load(context.use_certificate_chain_file, security.client_certificate)
            _load(context.use_privatekey_file, security.client_certificate)
        self._context = context
        return context

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A connection for Twisted."""
        connection = SSL.Connection(self.prepare(), None)
        connection.set_connect_state()
        if not self._is_address:
            connection.set_tlsext_host_name(self._hostname.encode("idna"))
        return connection

    def bind(self, transport: Any) -> bytes:
        """Judge who answered, after the handshake. Raises `AuthenticationError`."""
        if self._security.public_key is None:
            try:
                verify = verify_ip_address if self._is_address else verify_hostname
                verify(transport.getHandle(), self._hostname)
            except (VerificationError, ValueError):
                raise AuthenticationError(
                    f"the server's certificate: it is not for {self._hostname}"
                ) from None
        return self._security.binding(_certificate(transport))


def _certificate(transport: Any) -> bytes | None:
    """The certificate that the other side of TLS showed, in DER."""
    found = transport.getPeerCertificate()
    return None if found is None else crypto.dump_certificate(crypto.FILETYPE_ASN1, found)


def _load(load: Callable[[str], object], file: str) -> None:
    try:
        load(file)
    except (SSL.Error, OSError) as error:
        reason = getattr(error, "strerror", None) or "it cannot be read"
        raise ValueError(f"{file}: this certificate file cannot be used: {reason}") from None
