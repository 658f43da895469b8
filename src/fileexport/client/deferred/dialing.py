"""The connection of an `AsyncClient`: made when it is needed, over any endpoint, one for all operations.

Operations get their places on it in the order in which they asked.
"""

from __future__ import annotations

import copy
import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from OpenSSL import SSL, crypto
from service_identity import VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet import error as errors
from twisted.internet import tcp
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
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from fileexport.client.connection import MAX_TIMEOUT, Traffic, no_answer, not_connected
from fileexport.client.deferred.link import Link, Met
from fileexport.client.login import Server
from fileexport.client.security import Security, is_here, is_loopback
from fileexport.errors import AuthenticationError
from fileexport.wire.frames import ALPN

#: Encrypted bytes of one read.
_TLS_BUFFER = 256 << 10


class Place(NamedTuple):
    """The right to one stream on a link. `was_idle`: the link had been there before it was asked for."""

    link: Link
    was_idle: bool

    def free(self) -> None:
        """Give it back; any thread."""
        self.link.give_back(1)


class _Waiter:
    """Somebody who wants a place, the connection that there was when they asked, and how long they wait."""

    def __init__(self, link: Link | None, seconds: float, cancel: Callable[[_Waiter], None]) -> None:
        self.deferred: Deferred[Place] = Deferred(lambda _: cancel(self))
        self.link = link
        self.seconds = seconds
        self.timer: IDelayedCall | None = None

    def disarm(self) -> None:
        """Their time does not run any more."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()


class Parting(NamedTuple):
    """What ends when a client is closed: who waits, and the connections."""

    waiting: Sequence[_Waiter]
    links: Sequence[Link]


class Switchboard:
    """Gives out places on the connection to one server, which it makes when somebody asks for one.

    `end` is called when the reactor ends before it is closed. All of it happens in the reactor's thread.
    """

    def __init__(
        self,
        reactor: Any,
        server: Server,
        endpoint: IStreamClientEndpoint | None,
        end: Callable[[], object],
    ) -> None:
        self.reactor = reactor
        self.server = server
        self.lock = threading.RLock()
        self.traffic = Traffic()
        self._endpoint = endpoint
        self._at_end = end
        self._trigger: object = None
        self._creator = _Creator(server.security, server.hostname) if server.security.is_encrypted else None
        self._link: Link | None = None
        self._links: set[Link] = set()
        self._waiting: deque[_Waiter] = deque()
        self._attempt: Deferred[Link] | None = None
        #: Also while the first step of an attempt is taken.
        self._is_connecting = False
        #: When the last gives up of those for whom the attempt was begun.
        self._attempt_end = 0.0
        #: When a connection came or went.
        self._changed_at = 0.0

    def place(self, seconds: float) -> Deferred[Place]:
        """A place for one operation. Connecting may take `seconds`.

        Waiting for others takes as long as these go on; TimeoutError where nothing does for `seconds`. Fails
        as `Server.enter` raises. Cancelled, it gives up its place in the queue.
        """
        waiter = _Waiter(self._usable(), seconds, self._forget)
        self._waiting.append(waiter)
        self._serve()
        if not waiter.deferred.called:
            waiter.timer = self.reactor.callLater(seconds, self._look_at, waiter, self.reactor.seconds())
        return waiter.deferred

    def part(self) -> Parting:
        """What there is now, to be ended by `close`; tells nobody. Who comes later connects again."""
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            self.reactor.removeSystemEventTrigger(trigger)
        waiting, self._waiting = tuple(self._waiting), deque()
        self._drop_attempt()
        self._link = None
        return Parting(waiting, tuple(self._links))

    async def close(self, parting: Parting) -> None:
        """End connections, and what is under way on them."""
        _fail(parting.waiting, CancelledError())
        for link in parting.links:
            link.leave(CancelledError())
        for link in parting.links:
            await _ended(link)

    def _at_shutdown(self) -> object:
        self._trigger = None
        return self._at_end()

    def _forget(self, waiter: _Waiter) -> None:
        waiter.disarm()
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        # Those who came later have not waited for the whole of it; for them there is another one.
        if not self._waiting or self.reactor.seconds() >= self._attempt_end:
            self._drop_attempt()
            self._serve()

    def _serve(self) -> None:
        """Give out what there is, and see to it that there is something."""
        while (link := self._usable()) is not None and self._waiting:
            with link.lock:
                if link.places <= 0:
                    break
                link.places -= 1
            waiter = self._waiting.popleft()
            waiter.disarm()
            waiter.deferred.callback(Place(link, waiter.link is link))
        if self._waiting and link is None and not self._is_connecting:
            self._connect()

    def _usable(self) -> Link | None:
        if self._link is not None and self._link.is_leaving:
            self._link, self._changed_at = None, self.reactor.seconds()
        return self._link

    def _look_at(self, waiter: _Waiter, since: float) -> None:
        """Somebody has waited long; it counts from when something went on the last time."""
        link = self._usable()
        since = max(since, self._changed_at, link.moved_at if link is not None else 0.0)
        left = since + waiter.seconds - self.reactor.seconds()
        if left > 0:
            waiter.timer = self.reactor.callLater(left, self._look_at, waiter, since)
            return
        self._forget(waiter)
        waiter.deferred.errback(no_answer(waiter.seconds) if link is None else _no_place(waiter.seconds))

    # Connecting.

    def _connect(self) -> None:
        if self._trigger is None:
            self._trigger = self.reactor.addSystemEventTrigger("before", "shutdown", self._at_shutdown)
        self._is_connecting = True
        self._attempt_end = self.reactor.seconds() + max(waiter.seconds for waiter in self._waiting)
        self._attempt = attempt = Deferred.fromCoroutine(self._enter())

        def done(result: Link | Failure) -> None:
            if self._attempt is not attempt:
                return
            self._attempt, self._is_connecting = None, False
            if isinstance(result, Failure):
                waiting, self._waiting = self._waiting, deque()
                _fail(waiting, result.value)
            else:
                self._link, self._changed_at = result, self.reactor.seconds()
            self._serve()

        attempt.addBoth(done)

    def _drop_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self._is_connecting = False
            attempt.cancel()

    async def _enter(self) -> Link:
        """Make a connection, and be let in. It ends when nobody waits for it any more."""
        made: list[Link] = []
        where = f"{self.server.hostname} port {self.server.port}"
        # Without a token nobody is called.
        self.server.proof()
        factory = self._factory(made)
        endpoint = self._endpoint or self._dial()
        try:
            await endpoint.connect(factory)
        except CancelledError:
            raise
        except Exception as error:
            raise _not_connected(error, where) from error
        if not made or made[-1].transport is None:
            raise ConnectionError(f"{where}: the endpoint made no connection")
        await made[-1].ready
        return made[-1]

    def _dial(self) -> IStreamClientEndpoint:
        """TCP; an address is not looked up."""
        host, port = self.server.hostname, self.server.port
        for is_address, kind in ((isIPAddress, TCP4ClientEndpoint), (isIPv6Address, TCP6ClientEndpoint)):
            if is_address(host):
                return kind(self.reactor, host, port, MAX_TIMEOUT / 1000)
        _encoded(host)
        return HostnameEndpoint(self.reactor, host, port, MAX_TIMEOUT / 1000)

    def _factory(self, made: list[Link]) -> Any:
        """Makes the link, with TLS where that is wanted; `made` gets it."""
        inner = _Factory(partial(self._make, made))
        if self._creator is None:
            return inner
        self._creator.prepare()
        # By its own clock: the default one is that of the global reactor.
        factory = TLSMemoryBIOFactory(self._creator, True, inner, clock=self.reactor)
        factory.protocol = _Encrypted
        return factory

    def _make(self, made: list[Link]) -> Link:
        link = Link(self.reactor, self.lock, self.traffic, self._meet, self._serve)
        made.append(link)
        link.made.addCallback(lambda _: self._links.add(link))
        link.gone.addCallback(lambda _: self._links.discard(link))
        return link

    def _meet(self, transport: Any) -> Met:
        """Judge who is there. Raises `AuthenticationError`, and ValueError for plain text to another machine.

        Where the endpoint brought TLS, that has judged them.
        """
        peer = transport.getPeer()
        is_near = self._is_near(peer)
        binding = b""
        if self._creator is not None:
            binding = self._creator.bind(transport)
        elif ISSLTransport.providedBy(transport):
            binding = self.server.security.binding(_certificate(transport))
        elif not is_near:
            if isinstance(peer, IPv4Address | IPv6Address) and not is_loopback(peer.host):
                self.server.security.check_address(peer.host)
            elif self.server.security.tls is None:
                where = f"{self.server.hostname}, reached through {peer},"
                raise ValueError(f"whether {where} is this machine is not known: tls=False allows plain text")
            self.server.check_token()
        return Met(self.server.proof(), binding, self.server.features(is_near))

    def _is_near(self, peer: IAddress) -> bool:
        """Whether the server is this machine; what an endpoint meets here may carry on to another."""
        if isinstance(peer, IPv4Address | IPv6Address):
            return is_loopback(peer.host) and (self._endpoint is None or is_here(self.server.hostname))
        return isinstance(peer, UNIXAddress)


def _fail(waiting: Iterable[_Waiter], error: BaseException | None) -> None:
    for waiter in waiting:
        waiter.disarm()
        if not waiter.deferred.called:
            waiter.deferred.errback(copy.copy(error))


def _no_place(seconds: float) -> TimeoutError:
    words = f"no operation could begin: none of those under way went on for {seconds:g} s"
    return TimeoutError(errno.ETIMEDOUT, words)


def _ended(link: Link) -> Deferred[None]:
    ended: Deferred[None] = Deferred()
    link.gone.addCallback(lambda _: ended.callback(None))
    return ended


def _not_connected(error: Exception, where: str) -> OSError:
    """The failure of an endpoint as the exception that it is elsewhere."""
    if isinstance(error, OSError) and not isinstance(error, errors.DNSLookupError):
        return not_connected(error, where)
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


class _Encrypted(BufferingTLSTransport):
    """TLS over which a link hears all that one read has brought at once, not record by record."""

    def makeConnection(self, transport: Any) -> None:
        """Begin the handshake."""
        if isinstance(transport, tcp.Connection):
            transport.bufferSize = _TLS_BUFFER
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Bytes came, of some records."""
        link: Any = self.wrappedProtocol
        link.collect()
        super().dataReceived(data)
        link.hear()


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """TLS by the rules of `Security`: the pin, or authorities and the name."""

    def __init__(self, security: Security, hostname: str) -> None:
        self._security = security
        self._hostname = hostname
        self._is_address = isIPAddress(hostname) or isIPv6Address(hostname)
        self._name = b""
        self._context: SSL.Context | None = None

    def prepare(self) -> SSL.Context:
        """Read the certificate files; raises ValueError with the name of one that cannot be used.

        ConnectionError for a name that is none.
        """
        if self._context is not None:
            return self._context
        if not self._is_address:
            self._name = _encoded(self._hostname)
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
            connection.set_tlsext_host_name(self._name)
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


def _encoded(hostname: str) -> bytes:
    """A host's name as it is looked up. Raises ConnectionError where it cannot be one."""
    try:
        return hostname.encode("idna")
    except UnicodeError:
        raise ConnectionError(f"{hostname}: not a host name") from None


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
