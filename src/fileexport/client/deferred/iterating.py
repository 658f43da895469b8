"""Async iterators: the items of a conversation, or of a blocking iterator that threads step through."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from fileexport.client.deferred.bridge import Bridge, Late
from fileexport.client.deferred.calling import Talker

#: What an iterator has found and nobody took, until it pauses: items, and bytes of their content.
_AHEAD = 1024
_AHEAD_BYTES = 1 << 20

T = TypeVar("T")


class Engine(Protocol[T]):
    """What an async iterator takes its items from; in the reactor's thread."""

    def next(self) -> Deferred[T]:
        """The next one; fails with StopAsyncIteration behind the last."""

    def stop(self) -> Deferred[None]:
        """Nobody wants more."""


class Results(Generic[T]):
    """An async iterator. `aclose` ends it early, and so does being forgotten; items come one by one."""

    def __init__(self, reactor: Any, engine: Engine[T]) -> None:
        self._reactor = reactor
        self._engine = engine
        self._has_ended = self._is_awaited = False

    def __aiter__(self) -> Results[T]:
        return self

    def __anext__(self) -> Deferred[T]:
        """A Deferred; it raises what the blocking iterator raises. Cancelled, it ends the iterator."""
        if self._is_awaited:
            raise RuntimeError("the item before this one is still awaited")
        if self._has_ended:
            return fail(StopAsyncIteration())
        self._is_awaited = True
        taken: Deferred[T] = self._engine.next()
        deferred: Deferred[T] = Late(taken.cancel)
        taken.addBoth(self._took, deferred)
        return deferred

    def _took(self, found: T | Failure, deferred: Deferred[T]) -> None:
        self._is_awaited = False
        if isinstance(found, Failure):
            self._has_ended = True
            self._engine.stop()
        deferred.callback(found)

    def aclose(self) -> Deferred[None]:
        """End it."""
        if self._has_ended:
            return succeed(None)
        self._has_ended = True
        return self._engine.stop()

    def __del__(self) -> None:
        # Garbage is collected in any thread.
        if not self._has_ended:
            with suppress(Exception):
                self._reactor.callFromThread(self._engine.stop)


class Telling(Generic[T]):
    """The items of a conversation."""

    def __init__(self, talker: Talker[T, None]) -> None:
        self._talker = talker
        self._items: deque[T] = deque()

    def next(self) -> Deferred[T]:
        """The next item."""
        if self._items:
            return succeed(self._items.popleft())
        return Deferred.fromCoroutine(self._next())

    async def _next(self) -> T:
        while not self._items:
            found = await self._talker.on()
            if found is None:
                raise StopAsyncIteration
            self._items.extend(found.items)
        return self._items.popleft()

    def stop(self) -> Deferred[None]:
        """Cancel it."""
        self._talker.end()
        return succeed(None)


class Stepping(Generic[T]):
    """The items of a blocking iterator, which a thread steps through ahead of who takes them.

    Between two turns, while enough is there, it holds no thread.
    """

    def __init__(
        self, bridge: Bridge, make: Callable[[], Iterator[T]], weigh: Callable[[T], int] = lambda item: 0
    ) -> None:
        """`weigh` says how many bytes of content an item holds."""
        self._bridge = bridge
        self._lock = bridge.lock
        self._reactor = bridge.reactor
        self._make = make
        self._weigh = weigh
        self._job = bridge.job()
        self._iterator: Iterator[T] | None = None
        self._items: deque[T] = deque()
        #: Bytes of the items.
        self._weight = 0
        self._waiting: Deferred[T] | None = None
        self._turn: Deferred[bool] | None = None
        self._end: Failure | None = None
        self._is_told = False

    def next(self) -> Deferred[T]:
        """The next item."""
        deferred: Deferred[T] = Late(self._cancel)
        self._waiting = deferred
        self._look()
        return deferred

    def _look(self) -> None:
        """Give out what is there, and have more made."""
        with self._lock:
            self._is_told = False
            waiting = self._waiting
            is_served = waiting is not None and bool(self._items)
            if is_served:
                item = self._items.popleft()
                self._weight -= self._weigh(item)
            is_short = len(self._items) <= _AHEAD // 2 and self._weight <= _AHEAD_BYTES // 2
        if self._end is None and self._turn is None and is_short:
            self._turn = turn = self._bridge.run(self._step, self._job)
            turn.addBoth(self._turned)
        if waiting is None or self._waiting is not waiting:
            return
        if is_served:
            self._waiting = None
            waiting.callback(item)
        elif self._end is not None:
            self._waiting = None
            waiting.errback(self._end)

    def _turned(self, found: bool | Failure) -> None:
        self._turn = None
        if self._end is None and isinstance(found, Failure):
            self._end = found
        elif self._end is None and found:
            self._end = Failure(StopAsyncIteration())
        self._look()

    def _step(self) -> bool:
        """Find more, in a thread; True at the end."""
        if self._iterator is None:
            self._iterator = self._make()
        try:
            for item in self._iterator:
                with self._lock:
                    self._items.append(item)
                    self._weight += self._weigh(item)
                    is_full = len(self._items) >= _AHEAD or self._weight >= _AHEAD_BYTES
                    tells, self._is_told = not self._is_told, True
                if tells:
                    self._reactor.callFromThread(self._look)
                if is_full:
                    return False
                self._job.check()
        except BaseException:
            self._release()
            raise
        self._release()
        return True

    def _release(self) -> None:
        """Close the iterator, in a thread."""
        iterator, self._iterator = self._iterator, iter(())
        close = getattr(iterator, "close", None)
        if close is not None:
            close()

    def stop(self) -> Deferred[None]:
        """Cancel it; fires when the iterator is closed."""
        self._waiting = None
        self._end = self._end or Failure(StopAsyncIteration())
        self._cancel()
        return Deferred.fromCoroutine(self._close())

    def _cancel(self) -> None:
        self._job.cancel()
        if self._turn is not None:
            self._turn.cancel()

    async def _close(self) -> None:
        if self._turn is not None:
            turned: Deferred[None] = Deferred()
            self._turn.addCallback(lambda _: turned.callback(None))
            await turned
        if hasattr(self._iterator, "close"):
            # Where the client is closed before there is a thread for it, it ends by being forgotten.
            with suppress(CancelledError):
                await self._bridge.run(self._release)
