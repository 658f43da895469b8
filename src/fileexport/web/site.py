"""The factory of all HTTP/1.1 connections that one listener accepts: their deadlines, and their end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocolNegotiationFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from fileexport.web.connection import Connection
from fileexport.web.head import Head
from fileexport.web.request import Request

#: Seconds between two looks at all deadlines: one timer for a listener, not one for each connection.
SWEEP = 1.0


class Recorder(Protocol):
    """Writes the access log."""

    def __call__(self, request: Request, /) -> None: ...


@implementer(IProtocolNegotiationFactory)
class Site(Factory):
    """All connections of one listener.

    `serve` answers each request, and `reads` says whether it will read the body that a head announces;
    `record` is called once for each, when its answer has left or its peer is
    gone. `local` says whether the listener is loopback: the service sets it when the socket is bound.
    """

    noisy = False
    local = False
    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        serve: Callable[[Request], Coroutine[Any, Any, None]],
        *,
        record: Recorder,
        now: Callable[[], float],
        reads: Callable[[Head], bool] = lambda head: False,
    ) -> None:
        self._reactor = reactor
        self.serve = serve
        self.record = record
        self.now = now
        self.reads = reads
        self.stopping = False
        self._connections: set[Connection] = set()
        self._sweep: IDelayedCall | None = None
        self._drained: list[Deferred[None]] = []

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS may negotiate: HTTP/1.1, also where h2 is installed."""
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make a connection, unless we are stopping."""
        if self.stopping:
            return None
        connection = Connection(self._reactor)
        connection.factory = self
        return connection

    def joined(self, connection: Connection) -> None:
        """A connection stands."""
        self._connections.add(connection)
        if self._sweep is None:
            self._sweep = self._reactor.callLater(SWEEP, self._look)

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._settle()

    def _look(self) -> None:
        """End what is past its deadline."""
        self._sweep = self._reactor.callLater(SWEEP, self._look) if self._connections else None
        now = self._reactor.seconds()
        for connection in tuple(self._connections):
            if connection.deadline is not None and connection.deadline <= now:
                connection.expire()

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def drain(self) -> Deferred[None]:
        """Accept nothing more, close idle connections; fires when the last answer has left."""
        self.stopping = True
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        for connection in tuple(self._connections):
            connection.retire()
        self._settle()
        return drained

    def break_all(self) -> None:
        """Break what is still open; `drain` fires then."""
        for connection in tuple(self._connections):
            connection.abort()

    def _settle(self) -> None:
        if self._connections:
            return
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        drained, self._drained = self._drained, []
        for deferred in drained:
            deferred.callback(None)
