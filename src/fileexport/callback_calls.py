"""One call to a target: its addresses judged, the first that can be reached dialled, the answer read.

The answer may be hostile: a few kilobytes of it are read, within ten seconds from the first step to the last,
and only printable characters come out.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from OpenSSL.SSL import Error as TlsError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
)
from twisted.internet.error import TimeoutError as DialTimedOut
from twisted.internet.interfaces import (
    IConsumer,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from fileexport.addresses import Address, read_address
from fileexport.callback_targets import MAX_ADDRESSES, Asker, Target, Targets
from fileexport.errors import CallbackRefusedError, FileExportError
from fileexport.pools import Worker

#: IReactorCore, IReactorTime and IReactorTCP in one; no type says that.
Reactor = Any

#: Seconds for all of a call: finding the address, connecting, the answer.
CALL_TIME = 10.0
#: Seconds of it that an address may take to be reached when there is another one to try.
DIAL_TIME = 3.0
#: Seconds for the other side to close after a complete answer, before the connection is cut.
CLOSE_TIME = 1.0
#: Bytes of an answer that are read: of its head as many as a head to us may have, and of its body.
MAX_HEAD = 16 << 10
MAX_BODY = 4 << 10
#: Characters of an answer's text that are logged and kept.
MAX_SHOWN = 200
#: Bytes of a Retry-After field; a date has 29.
MAX_RETRY_AFTER = 64

#: How an answer begins (RFC 9112, 4), interim ones (RFC 9110, 15.2) with a 1; and how a head ends.
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9])[0-9]{2}[ \r\n]")
_STATUS_SIZE = len(b"HTTP/1.1 200 ")
_HEAD_END = re.compile(rb"\n\r?\n")

#: What becomes of a `CancelledError` in Twisted's client, unless it is wrapped.
_CANCELLED = (CancelledError, ConnectingCancelledError)
#: What went wrong, for people: the first that fits.
_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((TimedOut, DialTimedOut, TCPTimedOutError), "no answer in time"),
    ((DNSLookupError,), "the name has no address"),
    ((ConnectionRefusedError,), "connection refused"),
    ((ConnectError,), "cannot connect"),
    ((TlsError, VerificationError), "no TLS, or its certificate is not accepted"),
    ((ConnectionDone, ConnectionLost), "the connection was closed without a whole answer"),
)


class CallFailed(Exception):
    """There was no answer; the text says why, in a few words."""


class Answer(NamedTuple):
    """What a receiver answered; the texts are printable and short."""

    status: int
    reason: str
    first_line: str
    retry_after: str = ""


def is_local(address: Address) -> bool:
    """Whether an address belongs to this machine, loopback included; where that cannot be told, it does."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        # Only an address of this machine can be bound to, and a datagram socket sends nothing by that.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


class Caller:
    """Makes requests to targets, each on a connection of its own."""

    def __init__(
        self, reactor: Reactor, targets: Targets, names: Worker, trust: Certificate | None = None
    ) -> None:
        """`names` carries out lookups of names, which may hang for longer than anybody waits for them.

        `trust` is the authority whose certificates are accepted; None: those that the system trusts.
        """
        self._reactor = reactor
        self._targets = targets
        self._names = names
        self._trust = trust

    async def check(self, target: Target, asker: Asker) -> None:
        """Raise `CallbackRefusedError` unless the target is allowed as its name stands now; dials nothing.

        A name that cannot be found in time is refused with the same sentence. Raises `OverloadedError` where
        no more names can be looked up now.
        """
        checking = Deferred.fromCoroutine(self._choose(target, asker))
        try:
            await checking.addTimeout(CALL_TIME, self._reactor)
        except (TimedOut, DNSLookupError):
            raise CallbackRefusedError() from None

    async def call(
        self, target: Target, asker: Asker, fields: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        """GET the target, or POST `body` to it; redirects are not followed.

        An answer counts when its head is complete, also one whose body is cut off or does not end in time.
        Raises `CallbackRefusedError` and `OverloadedError`, when nothing was dialled, and `CallFailed`. The
        connection is closed in every case.
        """
        calling = Deferred.fromCoroutine(self._call(target, asker, fields, body))
        try:
            return await calling.addTimeout(CALL_TIME, self._reactor)
        except (FileExportError, CallFailed, CancelledError):
            raise
        except Exception as error:  # whatever the other side made of Twisted's client
            raise CallFailed(_why(error)) from error

    async def _choose(self, target: Target, asker: Asker) -> Sequence[Address]:
        addresses = await self._resolve(target.host) if isinstance(target.host, str) else [target.host]
        return self._targets.choose(target, addresses, asker)

    async def _resolve(self, name: str) -> Sequence[Address]:
        # Not the reactor's resolver: others would wait behind a slow name, and the end of the process, too.
        try:
            found = await self._names.run(socket.getaddrinfo, name, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise DNSLookupError() from error
        # One too many is enough to be refused.
        return [read_address(str(place[0])) for *_, place in found[: MAX_ADDRESSES + 1]]

    async def _call(
        self, target: Target, asker: Asker, fields: Mapping[str, str], body: bytes | None
    ) -> Answer:
        # Imported late: it is large, every start would wait for it, and most daemons call nobody.
        from twisted.web.client import Agent
        from twisted.web.http_headers import Headers

        route = _Route(self._reactor, target, await self._choose(target, asker), self._trust)
        agent = Agent.usingEndpointFactory(self._reactor, route)
        headers = Headers({"User-Agent": ["fileexport"], **{name: [text] for name, text in fields.items()}})
        method, content = (b"GET", None) if body is None else (b"POST", _Content(body))
        try:
            response = await agent.request(method, target.url.encode("ascii"), headers, content)
            beginning = _Beginning()
            response.deliverBody(beginning)
            await beginning.wait()
        except Exception as error:
            route.cut()
            if any(isinstance(cause, _CANCELLED) for cause in _causes(error)):
                raise CancelledError() from None
            if route.exhausted:
                raise CallFailed("the answer is not HTTP/1, or its head is too long") from error
            raise
        await route.close(graceful=beginning.complete)
        retry_after = response.headers.getRawHeaders(b"retry-after") or [b""]
        return Answer(
            response.code,
            _first_line(response.phrase),
            _first_line(beginning.data),
            _first_line(retry_after[0][:MAX_RETRY_AFTER]),
        )


def _first_line(raw: bytes) -> str:
    """The first line as printable text of at most `MAX_SHOWN` characters."""
    text = re.split(rb"[\r\n]", raw, maxsplit=1)[0].decode("utf-8", "replace")[:MAX_SHOWN]
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def _causes(error: BaseException) -> list[BaseException]:
    """What Twisted's client raised, and what it had wrapped."""
    return [error, *(failure.value for failure in getattr(error, "reasons", ()))]


def _why(error: BaseException) -> str:
    """A few words about what Twisted's client raised."""
    causes = _causes(error)
    for kinds, reason in _REASONS:
        if any(isinstance(cause, kinds) for cause in causes):
            return reason
    return "the answer is not HTTP/1" if len(causes) > 1 else f"it failed ({type(error).__name__})"


@implementer(IBodyProducer)
class _Content:
    """The body of a request, sent at once."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length = len(content)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """There is no more to come."""

    resumeProducing = stopProducing = pauseProducing


class _Beginning(Protocol):
    """Takes the first `MAX_BODY` bytes of a body; `complete` says that it had no more."""

    def __init__(self) -> None:
        self.data = b""
        self.complete = False
        self._ended: Deferred[None] = Deferred()

    async def wait(self) -> None:
        """Returns when there is enough, when there is no more, and when it is cancelled."""
        try:
            await self._ended
        except CancelledError:
            return  # in time or not, the answer itself is there

    def dataReceived(self, data: bytes) -> None:
        self.data = (self.data + data)[:MAX_BODY]
        if len(self.data) == MAX_BODY:
            self._end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.complete = len(self.data) < MAX_BODY
        self._end()

    def _end(self) -> None:
        if not self._ended.called:
            self._ended.callback(None)


class _Connection(ProtocolWrapper):
    """Stands between the transport and Twisted's client: reads no more than we want, and no interim answers.

    Twisted's client sets no bound to a head, and writes a line to the log for each interim answer.
    """

    def __init__(self, factory: WrappingFactory[_Connection], wrapped: IProtocol) -> None:
        super().__init__(factory, wrapped)
        self.lost: Deferred[None] = Deferred()
        self._left = MAX_HEAD + MAX_BODY
        #: What came before the final answer, None behind its beginning; and how much of it has no end.
        self._held: bytes | None = b""
        self._searched = 0

    @property
    def exhausted(self) -> bool:
        """Whether no more is read: there was enough, or it was no answer."""
        return not self._left

    def dataReceived(self, data: bytes) -> None:
        data = data[: self._left]
        self._left -= len(data)
        if self._held is not None:
            data = self._begin(data)
        if data:
            self.wrappedProtocol.dataReceived(data)
        if not self._left:
            self.cut()

    def _begin(self, data: bytes) -> bytes:
        """The beginning of the final answer, or nothing as long as it is not there."""
        held = (self._held or b"") + data
        while (status := _STATUS.match(held)) and status[1] == b"1":
            end = _HEAD_END.search(held, max(_STATUS_SIZE - 1, self._searched - 2))
            if end is None:
                self._held, self._searched = held, len(held)
                return b""
            held, self._searched = held[end.end() :], 0
        if len(held) < _STATUS_SIZE:
            self._held = held
            return b""
        self._held = None
        if status:
            return held
        self._left = 0
        return b""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if not self.lost.called:
            self.lost.callback(None)

    def cut(self) -> None:
        """Close at once, whatever is in flight. Harmless when the connection is gone."""
        if not self.lost.called:
            self.abortConnection()


@implementer(IStreamClientEndpoint, IAgentEndpointFactory)
class _Route:
    """The way to a target's addresses, which were all judged: the first that can be reached."""

    def __init__(
        self, reactor: Reactor, target: Target, addresses: Sequence[Address], trust: Certificate | None
    ) -> None:
        self._reactor = reactor
        self._target = target
        self._addresses = addresses
        self._trust = trust
        self._connection: _Connection | None = None

    def endpointForURI(self, uri: object) -> _Route:
        """Twisted's agent asks where a URL leads: always here."""
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        inner: WrappingFactory[_Connection] = WrappingFactory(factory)
        inner.protocol, inner.noisy = _Connection, False
        outer: IProtocolFactory = inner
        if self._target.scheme == "https":
            options = optionsForClientTLS(str(self._target.host), self._trust)
            outer = TLSMemoryBIOFactory(options, True, inner, clock=self._reactor)
        protocol = await self._reach(outer)
        connection = protocol if isinstance(protocol, _Connection) else protocol.wrappedProtocol
        self._connection = connection
        return connection.wrappedProtocol

    async def _reach(self, factory: IProtocolFactory) -> Any:
        *others, last = self._addresses
        for address in others:
            try:
                return await self._endpoint(address, DIAL_TIME).connect(factory)
            except ConnectError:
                continue  # ``localhost`` has two addresses, and often a listener on one of them
        return await self._endpoint(last, CALL_TIME).connect(factory)

    def _endpoint(self, address: Address, seconds: float) -> IStreamClientEndpoint:
        kind = TCP4ClientEndpoint if address.version == 4 else TCP6ClientEndpoint
        return kind(self._reactor, str(address), self._target.port, timeout=seconds)

    @property
    def exhausted(self) -> bool:
        """Whether all that we want to read of the answer was read."""
        return self._connection is not None and self._connection.exhausted

    def cut(self) -> None:
        """Close at once, if there is a connection."""
        if self._connection is not None:
            self._connection.cut()

    async def close(self, *, graceful: bool) -> None:
        """Close; `graceful` gives the other side a moment, which TLS needs for its farewell."""
        connection = self._connection
        if graceful and connection is not None and not connection.lost.called:
            try:
                await connection.lost.addTimeout(CLOSE_TIME, self._reactor)
            except (TimedOut, CancelledError):
                connection.abortConnection()
                return
        self.cut()
