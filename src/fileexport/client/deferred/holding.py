"""What has come on a link and was not taken yet. Who takes nothing must not fill the memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall

from fileexport.wire.frames import Data
from fileexport.wire.session import Event

#: Bytes that wait for their receivers, as they came on the wire, until nothing more is read; and seconds
#: until who holds most is given up. Content, which credit holds back, does not count.
MAX_HELD = 8 << 20
PATIENCE = 10.0
#: What an event takes beside its bytes; content in smaller pieces counts after all.
SMALL = 512


class Receiver(Protocol):
    """Whom a stream's answers are for. Called with the lock held, but for `turn`."""

    @property
    def events(self) -> Inbox:
        """What came and was not taken."""

    def heard(self) -> None:
        """Something came."""

    def credited(self) -> None:
        """More may be said, perhaps."""

    def lost(self, error: Exception) -> None:
        """Nothing more comes behind what has come."""

    def turn(self) -> None:
        """Something was heard, or lost; in the reactor's thread, without the lock."""


class Inbox:
    """What came for one receiver, in its order. To be used with the lock of the link held."""

    def __init__(self, holding: Holding) -> None:
        #: What of it counts, in bytes.
        self.held = 0
        self._holding = holding
        self._events: deque[tuple[Event, int]] = deque()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event, size: int, owner: Receiver) -> None:
        """Something came for its owner: a piece of content, or a message of so many bytes."""
        counted = _counted(event, size)
        self._events.append((event, counted))
        if counted:
            self.held += counted
            self._holding.add(self, owner, counted)

    def popleft(self) -> Event:
        """Take the first."""
        event, counted = self._events.popleft()
        if counted:
            self.held -= counted
            self._holding.take(self, counted)
        return event

    def clear(self) -> None:
        """Nobody wants them."""
        self._events.clear()
        counted, self.held = self.held, 0
        self._holding.take(self, counted)


def _counted(event: Event, size: int) -> int:
    """What an event takes beyond what credit holds back."""
    if isinstance(event, Data):
        return 0 if len(event.piece) >= SMALL else SMALL
    return 0 if event.size >= SMALL else SMALL + size


class Holding:
    """What all receivers of a link hold. While it is too much, the transport is paused.

    When that has lasted too long, `give_up` is called for whom holds most, in the reactor's thread; it clears
    their inbox.
    """

    def __init__(self, reactor: Any, lock: threading.RLock, give_up: Callable[[Receiver], object]) -> None:
        self._reactor = reactor
        self._lock = lock
        self._give_up = give_up
        self._transport: Any = None
        self._total = 0
        self._owners: dict[Inbox, Receiver] = {}
        self._is_paused = False
        self._timer: IDelayedCall | None = None

    def begin(self, transport: Any) -> None:
        """This is what is read from."""
        self._transport = transport

    # With the lock held, in any thread.

    def add(self, inbox: Inbox, owner: Receiver, size: int) -> None:
        """Somebody's inbox holds so much more."""
        self._total += size
        self._owners[inbox] = owner

    def take(self, inbox: Inbox, size: int) -> None:
        """It holds so much less."""
        self._total -= size
        if not inbox.held:
            self._owners.pop(inbox, None)
        if self._is_paused and self._total <= MAX_HELD // 2:
            self._reactor.callFromThread(self._go_on)

    # In the reactor's thread.

    def look(self) -> None:
        """Read nothing more while too much waits."""
        if not self._is_paused and self._total > MAX_HELD and self._transport is not None:
            self._is_paused = True
            self._transport.pauseProducing()
            self._timer = self._reactor.callLater(PATIENCE, self._lose_patience)

    def end(self) -> None:
        """There is no connection any more."""
        self._transport = None
        self._is_paused = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _lose_patience(self) -> None:
        while True:
            with self._lock:
                if self._total <= MAX_HELD // 2:
                    break
                slowest = self._owners[max(self._owners, key=lambda one: one.held)]
            self._give_up(slowest)
        self._go_on()

    def _go_on(self) -> None:
        with self._lock:
            if not self._is_paused or self._total > MAX_HELD // 2:
                return
        self._is_paused = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._transport.resumeProducing()
