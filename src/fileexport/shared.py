"""Both protocols at one listener: the client's first byte says which, and ALPN must not have said another.

HTTP's server says nothing before its client does, and the transfer protocol's client begins with a byte that
begins no request. So nothing is said here until the first byte has come, and one byte is enough.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocolNegotiationFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from fileexport.crowd import Crowd
from fileexport.transfer_connection import TransferConnection
from fileexport.transfer_protocol import TransferFactory
from fileexport.web.connection import Connection
from fileexport.web.site import Site
from fileexport.wire.frames import ALPN, PREFACE

#: Seconds for the first byte, the TLS handshake included. They count into the chosen protocol's own time.
FIRST_TIME = 10.0
#: Seconds that a peer has to close its side when we have closed ours.
LINGER_TIME = 5.0
HTTP_ALPN = b"http/1.1"


@implementer(IProtocolNegotiationFactory)
class SharedFactory(Factory):
    """All connections of one listener that answers HTTP by `site` and the transfer protocol by `transfers`.

    Counts, drains and breaks only those that have not said anything yet: after their first byte they are
    connections of one of the two factories, which are asked for themselves.
    """

    noisy = False
    _log = Logger()

    def __init__(self, reactor: IReactorTime, site: Site, transfers: TransferFactory) -> None:
        self._reactor = reactor
        self._site = site
        self._transfers = transfers
        self._silent: Crowd[_Undecided] = Crowd(reactor)

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS may negotiate; the first that the client offers too."""
        return [ALPN, HTTP_ALPN]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make a connection, unless we are stopping."""
        return None if self._silent.stopping else _Undecided(self, addr)

    @property
    def open(self) -> int:
        """How many connections have not said anything yet."""
        return len(self._silent)

    def drain(self) -> Deferred[None]:
        """Accept nothing more, close those that have not said anything; fires when none is left."""
        return self._silent.drain()

    def break_all(self) -> None:
        """Break those that are still there; `drain` fires then."""
        self._silent.break_all()

    # -- what connections ask

    def joined(self, connection: _Undecided) -> None:
        """A connection stands; it has its time to say something."""
        self._silent.join(connection)

    def left(self, connection: _Undecided) -> None:
        """A connection is gone, or has become one of the two."""
        self._silent.leave(connection)

    def seconds(self) -> float:
        """The time for deadlines."""
        return self._reactor.seconds()

    def choose(
        self, first: int, negotiated: bytes | None, address: IAddress | None
    ) -> Connection | TransferConnection | None:
        """The protocol that begins with this byte; None where TLS has negotiated the other one."""
        name = ALPN if first == PREFACE[0] else HTTP_ALPN
        if negotiated not in (None, name):
            self._log.info(
                "{peer} agreed on {agreed} by ALPN and spoke another protocol",
                peer=getattr(address, "host", "unix"),
                agreed=str(negotiated, "ascii", "replace"),
            )
            return None
        door = self._transfers if name == ALPN else self._site
        chosen: Connection | TransferConnection | None = door.buildProtocol(address)
        return chosen


class _Undecided(Protocol):
    """A connection that becomes one of the two protocols inside itself.

    The transport stays that of this object for all its life (`gate` says why), but the chosen protocol is
    connected to the real one: it writes, pauses and sends files as if nobody stood between. `deadline`: when
    the present step must be done, in the reactor's seconds.
    """

    deadline: float
    _since: float

    def __init__(self, house: SharedFactory, address: IAddress | None) -> None:
        self._house = house
        self._address = address
        self._chosen: Connection | TransferConnection | None = None
        self._closing = False

    def connectionMade(self) -> None:
        """The connection stands, before any handshake."""
        self._since = self._house.seconds()
        self.deadline = self._since + FIRST_TIME
        self._house.joined(self)

    def dataReceived(self, data: bytes) -> None:
        """Bytes arrived: the first one decides."""
        if self._chosen is None:
            if self._closing:
                return
            self._decide(data[0])
            if self._chosen is None:
                self.abort()
                return
        self._chosen.dataReceived(data)

    def _decide(self, first: int) -> None:
        transport: Any = self.transport
        negotiated = getattr(transport, "negotiatedProtocol", None)
        self._chosen = chosen = self._house.choose(first, negotiated, self._address)
        if chosen is not None:
            chosen.since = self._since
            # Before we leave: a daemon that stops does not miss it in between.
            chosen.makeConnection(transport)
            self._house.left(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self._closing = True
        # Also where what was chosen failed to begin.
        self._house.left(self)
        if self._chosen is not None:
            self._chosen.connectionLost(reason)

    # -- while nothing was said

    def look(self, now: float) -> None:
        """End what takes too long."""
        if now < self.deadline:
            return
        if self._closing:
            self.abort()
        else:
            self.retire()

    def retire(self) -> None:
        """Close without a word; the peer has its time to do the same."""
        transport: Any = self.transport
        if not self._closing:
            self._closing = True
            self.deadline = self._house.seconds() + LINGER_TIME
            transport.loseConnection()

    def abort(self) -> None:
        """Break the connection."""
        transport: Any = self.transport
        self._closing = True
        transport.abortConnection()
