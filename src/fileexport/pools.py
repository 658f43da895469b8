"""Threads for work that would hold up the reactor: a bounded pool, and generators that run in it by steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from fileexport.errors import OverloadedError

P = ParamSpec("P")
T = TypeVar("T")

_STOPPING = "the server is stopping"


class Worker(Protocol):
    """Runs functions somewhere else: a `Pool`, or a stand-in that runs them at once."""

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Fires with the function's result or its exception."""


async def surely(worker: Worker, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the function in a thread, or here where none is to be had: for what must not be left undone.

    Raises what the function does, which is no `OverloadedError`.
    """
    try:
        return await worker.run(function, *args, **kwargs)
    except OverloadedError:
        return function(*args, **kwargs)


class _DaemonicThread(Thread):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, daemon=True)


class _DaemonicThreads(ThreadPool):
    threadFactory = _DaemonicThread


@dataclass(frozen=True, slots=True)
class _Job(Generic[T]):
    work: Callable[[], T]
    result: Deferred[T]


class Pool:
    """A number of threads and a bounded queue before them.

    Its methods belong to the reactor's thread. A thread is started when there is work for it, and is
    daemonic: a program that ends without a stop does not wait for it. A pool that was stopped may be started
    again.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, threads: int, limit: int) -> None:
        """`threads` functions run at once, `limit` more may wait; `name` is for the threads' names."""
        self._reactor = reactor
        self._name = name
        self._count = threads
        self._limit = limit
        self._threads: ThreadPool | None = None
        self._stopping: list[Deferred[None]] = []
        self._running = 0
        # Ours, not ThreadPool's: that one has no bound, and when it stops it carries out all that waits.
        self._waiting: deque[_Job[Any]] = deque()

    def start(self) -> None:
        """Take work from now on. Raises `RuntimeError` until an earlier run has stopped."""
        if self._threads is not None:
            raise RuntimeError(f"the pool {self._name} runs already")
        self._threads = _DaemonicThreads(0, self._count, self._name)
        self._threads.start()

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call the function in a thread; fires in the reactor's thread with its result or its exception.

        Fails with `OverloadedError` when `limit` others wait, while the pool does not run, and where the
        system gives no thread. Cancelling takes waiting work out of the queue; work that runs goes on, and
        its result is dropped.
        """
        if self._threads is None or self._stopping:
            return fail(OverloadedError(_STOPPING))
        if self._running >= self._count and len(self._waiting) >= self._limit:
            return fail(OverloadedError())
        job = _Job(partial(function, *args, **kwargs), Deferred[T](self._forget))
        self._waiting.append(job)
        self._begin()
        return job.result

    def stop(self) -> Deferred[None]:
        """Take no more work; fires when the running work has ended and the threads are gone.

        Work that waits never runs: its Deferreds fail with `OverloadedError`. Threads at rest end now, the
        others when their work does.
        """
        stopped: Deferred[None] = Deferred()
        self._stopping.append(stopped)
        waiting, self._waiting = self._waiting, deque()
        for job in waiting:
            job.result.errback(OverloadedError(_STOPPING))
        if self._threads is not None:
            self._threads.adjustPoolsize(0, 0)
        self._end_if_idle()
        return stopped

    def abandon(self) -> None:
        """Stop without waiting; what running work comes to is dropped, and Deferreds of `stop` fire."""
        self.stop()
        self._threads = None
        self._end_if_idle()

    def _begin(self) -> None:
        if self._threads is None or self._running >= self._count or not self._waiting:
            return
        job = self._waiting.popleft()
        self._running += 1
        try:
            outcome = deferToThreadPool(self._reactor, self._threads, job.work)
        except RuntimeError:
            # The system gives no thread.
            outcome = fail(OverloadedError())
        outcome.addBoth(self._ended, job)

    def _ended(self, outcome: Any, job: _Job[Any]) -> None:
        self._running -= 1
        self._begin()
        if not job.result.called:
            if isinstance(outcome, Failure):
                job.result.errback(outcome)
            else:
                job.result.callback(outcome)
        self._end_if_idle()

    def _forget(self, result: Deferred[Any]) -> None:
        self._waiting = deque(job for job in self._waiting if job.result is not result)

    def _end_if_idle(self) -> None:
        if not self._stopping or (self._running and self._threads is not None):
            return
        threads, self._threads = self._threads, None
        stopping, self._stopping = self._stopping, []
        if threads is not None:
            threads.stop()
        for stopped in stopping:
            stopped.callback(None)


class Steps(Generic[T]):
    """A generator whose steps run in a worker's threads, one at a time and each when it is asked for.

    Its values are never None: that means the end. With a generator of bytes it is what
    `fileexport.disk.sender.pump` sends.
    """

    def __init__(self, worker: Worker, generator: Generator[T, None, None]) -> None:
        self._worker = worker
        self._generator = generator
        self._ended = False
        self._step: Deferred[None] | None = None

    def next(self) -> Deferred[T | None]:
        """The next value, or None after the last; fails as the generator raises, or as `Worker.run` does.

        Cancelling drops the value. Raises `RuntimeError` while another step runs.
        """
        if self._step is not None:
            raise RuntimeError("a step runs already")
        # A Deferred of its own: cancelling it must not make the running step look ended.
        result: Deferred[T | None] = Deferred()
        self._step = Deferred()
        self._worker.run(next, self._generator, None).addBoth(self._stepped).chainDeferred(result)
        return result

    async def close(self) -> None:
        """Close the generator in a thread, after the step that may be running; harmless when it has ended.

        Raises what the generator's own cleaning up raises. When no thread may be had it is closed here.
        """
        if self._step is not None:
            await self._step
        if self._ended:
            return
        self._ended = True
        await surely(self._worker, self._generator.close)

    def _stepped(self, outcome: T | None | Failure) -> T | None | Failure:
        self._ended = outcome is None
        step, self._step = self._step, None
        if step is not None:
            step.callback(None)
        return outcome
