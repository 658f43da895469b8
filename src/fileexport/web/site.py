"""The factory of all HTTP/1.1 connections that one listener accepts: their deadlines, and their end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocolNegotiationFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from fileexport.crowd import Crowd
from fileexport.web.connection import Connection
from fileexport.web.head import Head
from fileexport.web.request import Request


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
        self._crowd: Crowd[Connection] = Crowd(reactor)

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
        self._crowd.join(connection)

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self._crowd.leave(connection)

    @property
    def stopping(self) -> bool:
        """Whether nothing more is accepted."""
        return self._crowd.stopping

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._crowd)

    def drain(self) -> Deferred[None]:
        """Accept nothing more, close connections without a request; fires when the last answer has left."""
        return self._crowd.drain()

    def break_all(self) -> None:
        """Break what is still open; `drain` fires then."""
        self._crowd.break_all()
