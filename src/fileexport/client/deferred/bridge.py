"""The blocking client's own code in threads, for a reactor.

A thread lives while there is work, and no longer: at most 16 of them are at work, whatever is asked. Those
whose callbacks wait for something do not count, so that it can be a further transfer.
"""

from __future__ import annotations

import copy
import errno
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from fileexport.client.blocking import Client
from fileexport.client.chunks import PAUSING
from fileexport.client.connection import Wait
from fileexport.client.deferred.channel import BridgePool, Job
from fileexport.client.deferred.dialing import Place, Switchboard
from fileexport.client.deferred.link import Link

#: Threads at work at once; and with those whose callbacks wait.
MAX_THREADS = 16
_MAX_ALL = 256

T = TypeVar("T")
Given = ParamSpec("Given")


class _Inside(Client):
    """The blocking client's verbs over a link; for jobs alone."""

    def __init__(self, pool: BridgePool, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout


class Late(Deferred[T]):
    """It does not fail as soon as it is cancelled, but when that has had its effect."""

    def __init__(self, cancel: Callable[[], object]) -> None:
        super().__init__()
        self._tell = cancel

    def cancel(self) -> None:
        """Cancel what it stands for."""
        if self.called:
            super().cancel()
        else:
            self._tell()


class _Work(Generic[T]):
    """A function that a thread is to call, as a part of a job."""

    def __init__(self, job: Job, function: Callable[[], T], cancel: Callable[[_Work[T]], object]) -> None:
        self.job = job
        self._function = function
        self.deferred: Deferred[T] = Late(lambda: cancel(self))

    def run(self) -> T | Failure:
        """Call it, in a thread."""
        self.job.begin()
        PAUSING.set(self.job.pause)
        try:
            self.job.check()
            return self._function()
        except BaseException as error:
            return Failure(error)

    def fire(self, found: T | Failure) -> None:
        """This is what became of it."""
        deferred = self.deferred
        # It knows us, by its `cancel`: neither waits for the garbage collector.
        del self.deferred
        if self.job.is_cancelled:
            deferred.errback(CancelledError())
        else:
            deferred.callback(found)


class _Answer(Generic[T]):
    """What the reactor's thread answers a job that waits for it.

    `sleeps` is told 1 where the answer comes later, and -1 then, or when nobody waits for it any more.
    """

    def __init__(
        self, job: Job, undo: Callable[[T], object], sleeps: Callable[[int], object] | None = None
    ) -> None:
        self._job = job
        self._undo = undo
        self._sleeps = sleeps
        self._is_asleep = False
        self._deferred: Deferred[Any] | None = None
        #: Its result, or Failure, once it is there.
        self.found: Any = None
        self.is_there = self.is_unwanted = False

    def begin(self, function: Callable[[], T | Deferred[T]]) -> None:
        """Call the function."""
        if not self.is_unwanted:
            self._deferred = maybeDeferred(function)
            self._deferred.addBoth(self._fired)
            if self._sleeps is not None and not self.is_there:
                self._is_asleep = True
                self._sleeps(1)

    def _wake(self) -> None:
        if self._is_asleep and self._sleeps is not None:
            self._is_asleep = False
            self._sleeps(-1)

    def _fired(self, found: T | Failure) -> None:
        self._wake()
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
        self._wake()
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
        self._seconds = Wait(timeout).seconds
        self._waiting: deque[_Work[Any]] = deque()
        #: All that has not fired.
        self._works: set[_Work[Any]] = set()
        #: All that have not ended; how many take work yet; and how many of those wait in a callback.
        self._threads: set[threading.Thread] = set()
        self._running = self._asleep = 0
        self._patience: IDelayedCall | None = None
        self._idle: list[Deferred[None]] = []

    def run(self, function: Callable[[], T], job: Job | None = None) -> Deferred[T]:
        """Call a function in a thread, when there is one.

        Cancelled, it is told at its next wait; the Deferred fails when the thread is done with it.
        """
        work = _Work(job or self.job(), function, self._cancel)
        deferred = work.deferred
        self._works.add(work)
        self._waiting.append(work)
        self._start()
        return deferred

    def job(self) -> Job:
        """One that several functions may be parts of, one after the other."""
        return Job(self.lock)

    def _cancel(self, work: _Work[Any]) -> None:
        work.job.cancel()
        with self.lock:
            is_waiting = work in self._waiting
            if is_waiting:
                self._waiting.remove(work)
        if is_waiting:
            self._fire(work, None)

    def _fire(self, work: _Work[Any], found: object) -> None:
        self._works.discard(work)
        work.fire(found)

    def _start(self) -> None:
        """One more thread, where there is work for it."""
        with self.lock:
            if not self._waiting or self._running - self._asleep >= MAX_THREADS:
                return
            is_full = self._running >= _MAX_ALL
            self._running += not is_full
        if is_full:
            if self._patience is None:
                self._patience = self.reactor.callLater(self._seconds, self._give_up)
            return
        thread = threading.Thread(target=self._work, name="fileexport-bridge", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            with self.lock:
                self._running -= 1
            self._fail(error)
        else:
            self._threads.add(thread)

    def _work(self) -> None:
        """The life of a thread."""
        while True:
            with self.lock:
                if not self._waiting or self._running - self._asleep > MAX_THREADS:
                    self._running -= 1
                    break
                work = self._waiting.popleft()
            self.reactor.callFromThread(self._done, work, work.run())
            # Nothing of it lives on in here.
            del work
        self.reactor.callFromThread(self._rest, threading.current_thread())

    def _done(self, work: _Work[Any], found: object) -> None:
        self._fire(work, found)
        self._start()

    def _rest(self, thread: threading.Thread) -> None:
        thread.join()
        self._threads.discard(thread)
        if not self._threads:
            idle, self._idle = self._idle, []
            for deferred in idle:
                deferred.callback(None)

    def _sleeps(self, change: int) -> None:
        """A job's callback waits for something, or does not any more."""
        with self.lock:
            self._asleep += change
        if self._patience is not None and change < 0:
            self._patience.cancel()
            self._patience = None
        self._start()

    def _give_up(self) -> None:
        """Callbacks wait in all threads: for what waits for a thread, most likely."""
        self._patience = None
        words = f"{_MAX_ALL} callbacks have been waiting for {self._seconds:g} s, and hold all threads"
        self._fail(TimeoutError(errno.ETIMEDOUT, words))

    def _fail(self, error: Exception) -> None:
        """No thread will come to what waits, unless one is at work: it comes to it then."""
        with self.lock:
            waiting = () if self._running > self._asleep else tuple(self._waiting)
            for work in waiting:
                self._waiting.remove(work)
        for work in waiting:
            self._fire(work, Failure(copy.copy(error)))

    async def close(self) -> None:
        """Cancel all jobs; returns when the last thread is gone."""
        for work in tuple(self._works):
            self._cancel(work)
        if self._threads:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle

    # In a job's thread.

    def ask(
        self,
        function: Callable[[], T | Deferred[T]],
        undo: Callable[[T], object] = lambda found: None,
        sleeps: Callable[[int], object] | None = None,
    ) -> T:
        """Call a function in the reactor's thread; returns its result, a Deferred's too, or raises.

        `undo` gets a result that comes when it is not wanted any more. `sleeps` as for `_Answer`.
        """
        job = Job.current()
        answer = _Answer(job, undo, sleeps)
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
            return self.ask(lambda: called(*args, **named), sleeps=self._sleeps)

        return there

    @staticmethod
    def check(progress: object) -> None:
        """For a job's progress, in its thread: raises where it is not wanted any more."""
        Job.current().check()

    def _take(self, seconds: float) -> tuple[Link, bool]:
        place = self.ask(lambda: self._board.place(seconds), Place.free)
        return place.link, place.was_idle
