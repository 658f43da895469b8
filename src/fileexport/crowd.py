"""The connections of one factory: their deadlines by one timer, and their end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds between two looks at all deadlines: one timer, not one for each connection.
SWEEP = 1.0


class Member(Protocol):
    """A connection."""

    def look(self, now: float) -> object:
        """End what takes too long; called every `SWEEP` seconds."""

    def retire(self) -> object:
        """Begin nothing more, and end when what was begun is done."""

    def abort(self) -> object:
        """Break off at once."""


M = TypeVar("M", bound=Member)


class Crowd(Generic[M]):
    """All connections of one factory, from `join` to `leave`.

    `lingers` says whether something of those that left is still at work, which `drain` waits for.
    """

    def __init__(self, reactor: IReactorTime, lingers: Callable[[], bool] = lambda: False) -> None:
        self._reactor = reactor
        self._lingers = lingers
        #: Whether nobody is to join any more.
        self.stopping = False
        self._members: set[M] = set()
        self._sweep: IDelayedCall | None = None
        self._drained: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[M]:
        """Those that are there now, who may leave meanwhile."""
        return iter(tuple(self._members))

    def join(self, member: M) -> None:
        """A connection stands."""
        self._members.add(member)
        if self._sweep is None:
            self._sweep = self._reactor.callLater(SWEEP, self._look)

    def leave(self, member: M) -> None:
        """A connection is gone."""
        self._members.discard(member)
        self.settle()

    def drain(self) -> Deferred[None]:
        """Have all of them retire; fires when nobody is left."""
        self.stopping = True
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        for member in self:
            member.retire()
        self.settle()
        return drained

    def break_all(self) -> None:
        """Break what is still open; `drain` fires then."""
        for member in self:
            member.abort()

    def settle(self) -> None:
        """Let `drain` fire where nobody is left and nothing lingers."""
        if self._members:
            return
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if self._lingers():
            return
        drained, self._drained = self._drained, []
        for deferred in drained:
            deferred.callback(None)

    def _look(self) -> None:
        self._sweep = self._reactor.callLater(SWEEP, self._look) if self._members else None
        now = self._reactor.seconds()
        for member in self:
            member.look(now)
