"""The factory of all connections of the transfer protocol: what they share, their deadlines, their end."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from zope.interface import implementer

from fileexport.exports import Exports
from fileexport.lanes import Budget, Lane
from fileexport.pools import Worker
from fileexport.tokens import Principal, TokenTable
from fileexport.transfer_access import Lobby, Shares
from fileexport.transfer_connection import Finished, TransferConnection
from fileexport.transfer_desk import READS, Beside, Desk, Limits, Rooms
from fileexport.wire.frames import ALPN
from fileexport.wire.session import DEFAULT_OFFER

#: Seconds between two looks at all deadlines: one timer, not one for each connection.
SWEEP = 1.0
#: Long steps of reads, hashing for instance, of all connections together: fewer than there are threads, so
#: that short ones find one free. Connections have their turns, as each has `READS` at most.
HEAVY = 8


@implementer(IProtocolNegotiationFactory)
class TransferFactory(Factory):
    """All connections of the transfer protocol, on whatever listeners.

    `lanes` is where changes are made, `reads` where all else is done: who has much to be hashed keeps no
    change waiting. `tokens` is asked at each authentication and each second after it; `record` is called
    once for each operation, when it has ended. `max_chunk`: bytes of one DATA frame that a client may send.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        exports: Exports,
        tokens: Callable[[], TokenTable],
        lanes: Worker,
        reads: Worker,
        rooms: Rooms,
        *,
        now: Callable[[], float],
        record: Callable[[Finished], object],
        limits: Limits,
        max_chunk: int = DEFAULT_OFFER.data,
    ) -> None:
        self.reactor = reactor
        self.tokens = tokens
        self.now = now
        self.finished = record
        self.offer = msgspec.structs.replace(DEFAULT_OFFER, data=min(max_chunk, DEFAULT_OFFER.data))
        self.decoy = secrets.token_bytes(32)
        self.lobby = Lobby()
        self.shares = Shares()
        self.stopping = False
        self._exports = exports
        self._lanes = lanes
        self._reads = reads
        self._heavy = Beside(reads, HEAVY)
        self._rooms = rooms
        self._limits = limits
        self._budget = Budget()
        self._connections: set[TransferConnection] = set()
        #: Those that are gone, while threads are at work for them.
        self._behind: set[TransferConnection] = set()
        self._sweep: IDelayedCall | None = None
        self._drained: list[Deferred[None]] = []
        self._broken = False

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS may negotiate."""
        return [ALPN]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make a connection, unless we are stopping."""
        return None if self.stopping else TransferConnection(self)

    def desk(self, who: Principal, peer: str, on_full: Callable[[bool], object]) -> Desk:
        """What the operations of a connection need that was let in."""
        lane = Lane(
            self.reactor,
            self._lanes,
            self._budget,
            on_full=lambda: on_full(True),
            on_free=lambda: on_full(False),
        )
        return Desk(
            reactor=self.reactor,
            who=who,
            holder=f"{who.name} from {peer}",
            exports=self._exports,
            rooms=self._rooms,
            lane=lane,
            reads=Beside(self._reads, READS),
            heavy=Beside(self._heavy, READS),
            limits=self._limits,
        )

    def joined(self, connection: TransferConnection) -> None:
        """A connection stands."""
        self._connections.add(connection)
        if self._sweep is None:
            self._sweep = self.reactor.callLater(SWEEP, self._look)

    def left(self, connection: TransferConnection) -> None:
        """A connection is gone, or its last work is done."""
        self._connections.discard(connection)
        (self._behind.add if connection.working else self._behind.discard)(connection)
        self._settle()

    def renew(self) -> None:
        """The tokens are others now: who came by one that counts no longer begins nothing more."""
        for connection in tuple(self._connections):
            connection.check_token()

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def drain(self) -> Deferred[None]:
        """Accept and begin nothing more; fires when what was begun is done and all connections are gone."""
        self.stopping = True
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        for connection in tuple(self._connections):
            connection.retire()
        self._settle()
        return drained

    def break_all(self) -> None:
        """Break what is still open; `drain` fires then, whatever threads still do."""
        self._broken = True
        for connection in tuple(self._connections):
            connection.abort()
        self._settle()

    def _look(self) -> None:
        self._sweep = self.reactor.callLater(SWEEP, self._look) if self._connections else None
        now = self.reactor.seconds()
        for connection in tuple(self._connections):
            connection.look(now)

    def _settle(self) -> None:
        if self._connections:
            return
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if self._behind and not self._broken:
            return
        drained, self._drained = self._drained, []
        for deferred in drained:
            deferred.callback(None)
