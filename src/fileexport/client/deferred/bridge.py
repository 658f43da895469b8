"""The blocking client's own code in threads, for a reactor: its transfers, its trees, its iterators.

A thread lives while there is work, and no longer: at most 16 of them, whatever is asked.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from fileexport.client.blocking import Client
from fileexport.client.chunks import PAUSING
from fileexport.client.deferred.calling import Talker
from fileexport.client.deferred.channel import Abandoned, BridgePool, Job
from fileexport.client.deferred.dialing import Place, Switchboard
from fileexport.client.deferred.link import Link

#: Threads at once.
MAX_THREADS = 16
#: What an iterator has found and nobody took, until it pauses.
_AHEAD = 1024

T = TypeVar("T")
Given = ParamSpec("Given")


class _Inside(Client):
    """The blocking client's verbs over a link; for jobs alone."""

    def __init__(self, pool: BridgePool, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout


class _Answer(Generic[T]):
    """What the reactor's thread answers a job that waits for it."""

    def __init__(self, job: Job, undo: Callable[[T], object]) -> None:
        self._job = job
        self._undo = undo
        self._deferred: Deferred[Any] | None = None
        #: Its result, or Failure, once it is there.
        self.found: Any = None
        self.is_there = self.is_unwanted = False

    def begin(self, function: Callable[[], T | Deferred[T]]) -> None:
        """Call the function."""
        if not self.is_unwanted:
            self._deferred = maybeDeferred(function)
            self._deferred.addBoth(self._fired)

    def _fired(self, found: T | Failure) -> None:
        if self.is_unwanted:
            if not isinstance(found, Failure):
                self._undo(found)
            return
        with self._job.bell:
            self.found, self.is_there = found, True
            self._job.bell.notify_all()

    def abandon(self) -> None:
        """The job does not want it any more."""
        self.is_unwanted = True
        if self.is_there:
            if not isinstance(self.found, Failure):
                self._undo(self.found)
        elif self._deferred is not None:
            self._deferred.cancel()


class Bridge:
    """Runs jobs. `client` is what they use; to be called in the reactor's thread."""

    def __init__(self, board: Switchboard, timeout: float | None) -> None:
        self._board = board
        self.lock, self.reactor = board.lock, board.reactor
        self.pool = BridgePool(board.server, board.traffic, self._take)
        self.client = _Inside(self.pool, timeout)
        self._waiting: deque[Callable[[], None]] = deque()
        self._threads: set[threading.Thread] = set()
        self._jobs: dict[Job, Deferred[Any]] = {}
        self._idle: list[Deferred[None]] = []

    def run(self, function: Callable[[], T], job: Job | None = None) -> Deferred[T]:
        """Call a function in a thread, when there is one. Cancelled, it ends at its next wait."""
        job = job or self.job()
        deferred: Deferred[T] = Deferred(lambda _: job.cancel())

        def work() -> None:
            found: T | Failure
            job.begin()
            PAUSING.set(job.pause)
            try:
                job.check()
                found = function()
            except BaseException as error:
                found = Failure(error)
            self.reactor.callFromThread(self._done, job, deferred, found)

        self._jobs[job] = deferred
        self._waiting.append(work)
        self._start()
        return deferred

    def job(self) -> Job:
        """One that several functions may be parts of, one after the other."""
        return Job(self.lock)

    def _start(self) -> None:
        with self.lock:
            if not self._waiting or len(self._threads) >= MAX_THREADS:
                return
            thread = threading.Thread(target=self._work, name="fileexport-bridge")
            self._threads.add(thread)
        thread.start()

    def _work(self) -> None:
        """The life of a thread."""
        while True:
            with self.lock:
                if not self._waiting:
                    self._threads.discard(threading.current_thread())
                    break
                work = self._waiting.popleft()
            work()
            # Nothing of it lives on in here.
            del work
        self.reactor.callFromThread(self._rest, threading.current_thread())

    def _done(self, job: Job, deferred: Deferred[T], found: T | Failure) -> None:
        if self._jobs.get(job) is deferred:
            del self._jobs[job]
        if not deferred.called:
            if isinstance(found, Failure):
                deferred.errback(CancelledError() if found.check(Abandoned) else found)
            else:
                deferred.callback(found)
        self._start()

    def _rest(self, thread: threading.Thread) -> None:
        thread.join()
        if not self._threads:
            idle, self._idle = self._idle, []
            for deferred in idle:
                deferred.callback(None)

    async def close(self) -> None:
        """Cancel all jobs; returns when the last thread is gone."""
        for job, deferred in tuple(self._jobs.items()):
            job.cancel()
            deferred.cancel()
        if self._threads:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle

    # In a job's thread.

    def ask(
        self, function: Callable[[], T | Deferred[T]], undo: Callable[[T], object] = lambda found: None
    ) -> T:
        """Call a function in the reactor's thread; returns its result, a Deferred's too, or raises.

        `undo` gets a result that comes when it is not wanted any more.
        """
        job = Job.current()
        answer = _Answer(job, undo)
        self.reactor.callFromThread(answer.begin, function)
        try:
            with job.bell:
                while not answer.is_there:
                    job.wait()
        except BaseException:
            self.reactor.callFromThread(answer.abandon)
            raise
        found: T | Failure = answer.found
        if isinstance(found, Failure):
            assert found.value is not None
            raise found.value
        return found

    def here(self, function: Callable[Given, T] | None) -> Callable[Given, T] | None:
        """A caller's function for a job: called in the reactor's thread; it may return a Deferred."""
        if function is None:
            return None
        called = function

        def there(*args: Given.args, **named: Given.kwargs) -> T:
            return self.ask(lambda: called(*args, **named))

        return there

    def _take(self, seconds: float) -> tuple[Link, bool]:
        place = self.ask(lambda: self._board.place(seconds), Place.free)
        return place.link, place.was_idle


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
        deferred: Deferred[T] = Deferred(lambda _: taken.cancel())
        if self._is_awaited:
            raise RuntimeError("the item before this one is still awaited")
        if self._has_ended:
            deferred.errback(StopAsyncIteration())
            return deferred
        self._is_awaited = True
        taken: Deferred[T] = self._engine.next()
        taken.addBoth(self._took, deferred)
        return deferred

    def _took(self, found: T | Failure, deferred: Deferred[T]) -> None:
        self._is_awaited = False
        if isinstance(found, Failure):
            self._has_ended = True
            self._engine.stop()
        if deferred.called:
            return
        if isinstance(found, Failure):
            deferred.errback(found)
        else:
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

    def __init__(self, bridge: Bridge, make: Callable[[], Iterator[T]]) -> None:
        self._bridge = bridge
        self._lock = bridge.lock
        self._reactor = bridge.reactor
        self._make = make
        self._job = bridge.job()
        self._iterator: Iterator[T] | None = None
        self._items: deque[T] = deque()
        self._waiting: Deferred[T] | None = None
        self._turn: Deferred[bool] | None = None
        self._end: Failure | None = None
        self._is_told = False

    def next(self) -> Deferred[T]:
        """The next item."""
        deferred: Deferred[T] = Deferred(lambda _: self._job.cancel())
        self._waiting = deferred
        self._look()
        return deferred

    def _look(self) -> None:
        """Give out what is there, and have more made."""
        with self._lock:
            self._is_told = False
            has_item = bool(self._items)
            left = len(self._items)
        if self._end is None and self._turn is None and left <= _AHEAD // 2:
            self._turn = turn = self._bridge.run(self._step, self._job)
            turn.addBoth(self._turned)
        waiting = self._waiting
        if waiting is None:
            return
        if has_item:
            self._waiting = None
            waiting.callback(self._items.popleft())
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
        for item in self._iterator:
            with self._lock:
                self._items.append(item)
                is_full = len(self._items) >= _AHEAD
                tells, self._is_told = not self._is_told, True
            if tells:
                self._reactor.callFromThread(self._look)
            if is_full:
                return False
            self._job.check()
        return True

    def stop(self) -> Deferred[None]:
        """Cancel it; fires when the iterator is closed."""
        self._waiting = None
        self._end = self._end or Failure(StopAsyncIteration())
        self._job.cancel()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._turn is not None:
            turned: Deferred[None] = Deferred()
            self._turn.addCallback(lambda _: turned.callback(None))
            await turned
        close = getattr(self._iterator, "close", None)
        if close is not None:
            self._iterator = iter(())
            await self._bridge.run(close)
