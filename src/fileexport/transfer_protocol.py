"""The factory of all connections of the transfer protocol: what they share, their deadlines, their end."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from zope.interface import implementer

from fileexport.crowd import Crowd
from fileexport.exports import Exports
from fileexport.lanes import Budget, Lane
from fileexport.pools import Worker
from fileexport.tokens import Principal, TokenTable
from fileexport.transfer_access import Lobby, Shares
from fileexport.transfer_connection import Finished, TransferConnection
from fileexport.transfer_desk import READS, Beside, Desk, Limits, Rooms
from fileexport.wire.frames import ALPN
from fileexport.wire.session import DEFAULT_OFFER

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
        self._exports = exports
        self._lanes = lanes
        self._reads = reads
        self._heavy = Beside(reads, HEAVY)
        self._rooms = rooms
        self._limits = limits
        self._budget = Budget()
        #: Those that are gone, while threads are at work for them.
        self._behind: set[TransferConnection] = set()
        self._broken = False
        self._connections: Crowd[TransferConnection] = Crowd(
            reactor, lingers=lambda: bool(self._behind) and not self._broken
        )

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS may negotiate."""
        return [ALPN]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make a connection, unless we are stopping."""
        return None if self._connections.stopping else TransferConnection(self)

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
        self._connections.join(connection)

    def left(self, connection: TransferConnection) -> None:
        """A connection is gone, or its last work is done."""
        (self._behind.add if connection.working else self._behind.discard)(connection)
        self._connections.leave(connection)

    def renew(self) -> None:
        """The tokens are others now: who came by one that counts no longer begins nothing more."""
        for connection in self._connections:
            connection.check_token()

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def drain(self) -> Deferred[None]:
        """Accept and begin nothing more; fires when what was begun is done and all connections are gone."""
        return self._connections.drain()

    def break_all(self) -> None:
        """Break what is still open; `drain` fires then, whatever threads still do."""
        self._broken = True
        self._connections.break_all()
        self._connections.settle()
