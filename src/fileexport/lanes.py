"""Lanes: the work of one connection in the order in which it came, away from the reactor.

A lane has one thread of a pool at a time. It carries out all that is queued without going back to the
reactor between two pieces, and results come back in batches: a large upload costs few wake-ups.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from fileexport.pools import Worker

T = TypeVar("T")

#: Bytes that may wait in a lane: always, and where the common budget allows it.
ALWAYS = 256 << 10
MOST = 4 << 20
#: Bytes beyond `ALWAYS` that all lanes of a daemon may hold together.
BUDGET = 64 << 20
#: Pieces of work after which a lane goes to the end of the pool's queue: others wait for a thread too.
TURN = 64


class Budget:
    """What all lanes together hold beyond what each of them always may."""

    def __init__(self, size: int = BUDGET) -> None:
        self._size = size
        self.taken = 0

    @property
    def is_overdrawn(self) -> bool:
        """Whether lanes have to be content with what they always may hold."""
        return self.taken > self._size


class _Task(NamedTuple, Generic[T]):
    function: Callable[[], T]
    cost: int
    result: Deferred[T]

    def run(self) -> T | Failure:
        """The function's result, or what it raised."""
        try:
            return self.function()
        except BaseException:
            return Failure()


class _Done(NamedTuple):
    result: Deferred[Any]
    cost: int
    outcome: Any


class Lane:
    """An ordered queue of functions, run by one thread at a time.

    Its methods belong to the reactor's thread. `on_full` is called when no more should be put into it for
    now, `on_free` when there is room again; nothing is refused in between. What is queued keeps its order
    also where a function raises: the next one runs.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        worker: Worker,
        budget: Budget,
        *,
        on_full: Callable[[], object],
        on_free: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._worker = worker
        self._budget = budget
        self._on_full = on_full
        self._on_free = on_free
        #: From the reactor to the thread, and back.
        self._queue: deque[_Task[Any]] = deque()
        self._done: deque[_Done] = deque()
        self._running = False
        #: Whether a delivery is on its way to the reactor.
        self._told = False
        self._full = False
        self.queued_bytes = self._held_up = 0

    def put(self, function: Callable[[], T], cost: int = 0) -> Deferred[T]:
        """Queue a function; fires in the reactor's thread with its result or its exception.

        `cost` is how many bytes are kept for it. Fails with `OverloadedError`, with all that is queued, where
        the pool takes no work.
        """
        result: Deferred[T] = Deferred()
        self._queue.append(_Task(function, cost, result))
        self.charge(cost)
        self._begin()
        return result

    def settled(self) -> Deferred[None]:
        """Fires when all that has been put has ended."""
        return self.put(_nothing) if self.is_busy else succeed(None)

    @property
    def is_busy(self) -> bool:
        """Whether something that was put has not ended."""
        return self._running or bool(self._queue)

    def charge(self, cost: int, held_up: int = 0) -> None:
        """Count so many bytes more, or less: of what is queued here, or waits elsewhere to be queued.

        `held_up` of them wait for work that is long. Were nothing read for so long, the client could not even
        ask whether we live, or cancel it: they fill the lane only where the common budget is overdrawn.
        """
        if not cost:
            return
        before = max(self.queued_bytes - ALWAYS, 0)
        self.queued_bytes += cost
        self._budget.taken += max(self.queued_bytes - ALWAYS, 0) - before
        self._held_up += held_up
        short = self._budget.is_overdrawn
        counted = self.queued_bytes - (0 if short else self._held_up)
        if not self._full and counted > (ALWAYS if short else MOST):
            self._full = True
            self._on_full()
        elif self._full and counted <= (ALWAYS if short else MOST // 2):
            self._full = False
            self._on_free()

    # -- in the reactor's thread

    def _begin(self) -> None:
        if self._queue and not self._running:
            self._running = True
            self._worker.run(self._work).addBoth(self._worked)

    def _worked(self, refused: Failure | None) -> None:
        """The thread has ended its turn, or there was none to be had."""
        self._running = False
        self._deliver()
        if refused is not None:
            queue, self._queue = self._queue, deque()
            self._done.extend(_Done(task.result, task.cost, refused) for task in queue)
            self._deliver()
        self._begin()

    def _deliver(self) -> None:
        # First, so that what is done from here on is told again.
        self._told = False
        while self._done:
            done = self._done.popleft()
            self.charge(-done.cost)
            if isinstance(done.outcome, Failure):
                done.result.errback(done.outcome)
            else:
                done.result.callback(done.outcome)

    # -- in the pool's thread

    def _work(self) -> None:
        for _ in range(TURN):
            try:
                task = self._queue.popleft()
            except IndexError:
                # The end of this turn delivers the last results.
                return
            if self._done and not self._told:
                self._told = True
                self._reactor.callFromThread(self._deliver)
            self._done.append(_Done(task.result, task.cost, task.run()))
            # Not until the next one: it may hold a megabyte.
            del task


def _nothing() -> None:
    """Is done at once."""
