"""The durable queue: what is asked for is done once it can be, also after a kill; what is done is passed in.

Jobs are rows of `fileexport.disk.state`; here is who runs when, how far each is, and who is told. Nothing
polls: a job starts when it is queued or when another ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from fileexport.disk.schema import Callback, JobRow, JobState, new_job_id
from fileexport.disk.state import State
from fileexport.errors import (
    BadRequestError,
    FileExportError,
    JobCancelled,
    OverloadedError,
    UnexpectedError,
    row_for,
    sentence_for,
)
from fileexport.meter import Meter, Progress
from fileexport.paths import printable
from fileexport.pools import Worker

P = ParamSpec("P")
T = TypeVar("T")

#: Jobs that wait: beyond, `QueueFull`.
MAX_QUEUED = 64
#: Characters of an Idempotency-Key.
MAX_KEY = 255
#: Seconds between two events of progress.
PROGRESS_TIME = 0.25
#: Seconds before what the disk or the pool refused is tried again.
RETRY_TIME = 5.0
#: Seconds that an order waits for the queue to be opened.
OPENING_TIME = 3.0

_CLOSED = "no jobs are taken now: try again later"

Order = Mapping[str, Any]
#: Carries out an order in a thread, and returns what JSON can hold; what it raises, the job failed with.
#: It may be carried out again after a kill, also where it had succeeded.
Work = Callable[[Order, Meter], dict[str, Any]]


class Event(NamedTuple):
    """News of a job: its state changed ("state"), or it got on ("progress")."""

    kind: str
    job: JobRow
    progress: Progress | None


class _Running(NamedTuple):
    meter: Meter
    row: JobRow


class _Outcome(NamedTuple):
    """What the work made, as JSON, or what it raised."""

    result: str | None
    failure: Failure | None = None


class Jobs:
    """The queue and what runs of it. Its methods belong to the reactor's thread.

    Where the database refuses, a method raises as `State`'s does and nothing has changed. What the queue does
    by itself is tried again every `RETRY_TIME` then, and is done after the next start at the latest.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        state: State,
        work: Work,
        *,
        pool: Worker,
        disk: Worker,
        now: Callable[[], float],
        cores: int,
        ended: Callable[[], None],
    ) -> None:
        """`cores` jobs run at once, each in a thread of `pool`; `disk` is one thread, for the state only.

        `now` is in seconds since 1970. `ended` is called when a job has ended, and so may have messages due.
        """
        self._reactor = reactor
        self._state = state
        self._work = work
        self._pool = pool
        self._disk = disk
        self._now = now
        self._cores = cores
        self._ended = ended
        #: Between a start and a stop.
        self._begun = False
        #: Orders that came while the queue was being opened; None before and after.
        self._early: set[Deferred[None]] | None = None
        self._running: dict[str, _Running] = {}
        #: Somebody fills the free places, and whether there is more to fill them with.
        self._filling = self._more = False
        self._tasks: set[Deferred[None]] = set()
        self._rests: set[Deferred[None]] = set()
        self._waiting: dict[str, list[Deferred[JobRow | None]]] = {}
        self._listeners: list[Callable[[Event], None]] = []
        self._ticking: IDelayedCall | None = None

    # -- starting and stopping

    def start(self) -> Deferred[None]:
        """Put what ran at the last end back in the queue, and begin; fires when it is back, or at a stop.

        Where the state refuses, nothing runs until it does not any more.
        """
        return self._spawn(self._start())

    def stop(self) -> Deferred[None]:
        """Take no more orders and interrupt what runs; fires when that has ended and is back in the queue.

        What does not call `Meter.check` is waited for. Whoever waits for a job is answered now.
        """
        return Deferred.fromCoroutine(self._stop())

    @property
    def _open(self) -> bool:
        """Whether orders are taken, and carried out."""
        return self._begun and self._early is None

    async def _start(self) -> None:
        self._begun, early = True, set[Deferred[None]]()
        self._early = early
        requeued = await self._try(self._state.requeue_running)
        self._early = None
        for waiter in tuple(early):
            waiter.callback(None)
        if requeued is not None:
            self._ended()
            self._fill_places()
            await self._prune()

    async def _stop(self) -> None:
        self._begun = False
        for running in self._running.values():
            running.meter.interrupt()
        for rest in tuple(self._rests):
            rest.callback(None)
        for job in tuple(self._waiting):
            self._answer(job, None)
        while self._tasks:
            await DeferredList(tuple(self._tasks))
        try:
            await self._disk.run(self._state.requeue_running)
        except Exception:
            # The next start does it.
            self._log.failure("the running jobs could not be put back in the queue")
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    # -- orders

    async def submit(
        self,
        order: Order,
        *,
        owner: str,
        target: str,
        key: str | None = None,
        request: str = "",
        message: Callback | None = None,
    ) -> JobRow:
        """Queue an order; returns when its job is on stable storage: a new one, or one that it shares.

        See `State.add_job` for what is shared and what it raises. `target` is the place that the work will
        write, `key` an Idempotency-Key and `request` what it stands for, as in `find`. Raises
        `BadRequestError` for a key that is none, `ValueError` for an order that is not JSON,
        `OverloadedError` after `stop`. While the queue is opened, it waits for `OPENING_TIME`.
        """
        if self._early is not None:
            await self._opened(self._early)
        if not self._open:
            raise OverloadedError(_CLOSED)
        _check_key(key)
        row = JobRow(new_job_id(), owner, JobState.QUEUED, _encode(order), target, self._now())
        try:
            add = partial(self._state.add_job, key=key, request=request, limit=MAX_QUEUED)
            added = await self._disk.run(add, row, message)
            if added.id == row.id:
                self._publish(added)
            return added
        finally:
            # Also when the caller has gone meanwhile: the job may be there.
            self._fill_places()

    async def find(self, owner: str, key: str, request: str) -> JobRow | None:
        """The job that an owner's Idempotency-Key stands for, ended or not; None where it stands for none.

        To be asked before anything else is checked: whoever repeats a request gets its job also where it
        could not be made any more. `request` is a text of what is asked for, equal for equal requests; raises
        `ConflictError` where the key stands for another one, `BadRequestError` for a key that is none.
        """
        _check_key(key)
        return await self._disk.run(self._state.job_by_key, owner, key, request)

    async def get(self, job: str) -> JobRow | None:
        """The job with this id; None where there is none, or none any more."""
        return await self._disk.run(self._state.job, job)

    async def list(self, owner: str | None = None, *, limit: int = 100) -> list[JobRow]:
        """The newest jobs of one owner or of all, as `State.jobs` gives them."""
        return await self._disk.run(self._state.jobs, owner, limit=limit)

    async def cancel(self, job: str) -> bool:
        """Cancel a job: at once while it is queued, else when its work next calls `Meter.check`.

        True when that is on stable storage; a work that has finished meanwhile still ends as done. False
        where the job has ended before, or there is none.
        """
        row = await self._disk.run(self._state.cancel_job, job)
        if row is None:
            return False
        if (running := self._running.get(job)) is not None:
            self._running[job] = running._replace(row=row)
            running.meter.interrupt()
        self._publish(row)
        if row.state.ended:
            self._ended()
        return True

    async def wait(self, job: str, seconds: float) -> JobRow | None:
        """The job when it has ended, or as it is after so many seconds; None where there is none."""
        # Before the job is read, so that no end is missed.
        waiter: Deferred[JobRow | None] = Deferred()
        self._waiting.setdefault(job, []).append(waiter)
        timer = self._reactor.callLater(seconds, self._give_up, waiter)
        try:
            row = await self.get(job)
            if row is None or row.state.ended or not self._open:
                return row
            return await waiter or await self.get(job)
        finally:
            if timer.active():
                timer.cancel()
            self._forget(job, waiter)

    # -- news

    def progress(self, job: str) -> Progress | None:
        """How far a running job is; None for any other."""
        running = self._running.get(job)
        return running and running.meter.read()

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Have a listener called with all events from now on, until the returned function is called.

        Of progress there are four events a second for each running job. What a listener raises is logged.
        """
        # One of its own: the same function may subscribe twice.
        own = partial(listener)
        self._listeners.append(own)
        self._tick_later()

        def unsubscribe() -> None:
            if own in self._listeners:
                self._listeners.remove(own)

        return unsubscribe

    def _publish(self, row: JobRow) -> None:
        self._tell(Event("state", row, self.progress(row.id)))
        if row.state.ended:
            self._answer(row.id, row)

    def _tell(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                self._log.failure("a listener failed")

    def _tick_later(self) -> None:
        if self._ticking is None and self._listeners and self._running:
            self._ticking = self._reactor.callLater(PROGRESS_TIME, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        if self._listeners:
            for running in tuple(self._running.values()):
                self._tell(Event("progress", running.row, running.meter.read()))
        self._tick_later()

    def _answer(self, job: str, row: JobRow | None) -> None:
        for waiter in self._waiting.pop(job, []):
            if not waiter.called:
                waiter.callback(row)

    def _give_up(self, waiter: Deferred[JobRow | None]) -> None:
        if not waiter.called:
            waiter.callback(None)

    def _forget(self, job: str, waiter: Deferred[JobRow | None]) -> None:
        waiters = self._waiting.get(job, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._waiting.pop(job, None)

    # -- running

    def _fill_places(self) -> None:
        """Start what there is a place for."""
        self._more = True
        if self._open and not self._filling:
            self._filling = True
            self._spawn(self._fill())

    async def _fill(self) -> None:
        try:
            while self._open and self._more and len(self._running) < self._cores:
                self._more = False
                row = await self._try(self._state.next_job)
                if row is not None and self._open:
                    self._more = True
                    self._running[row.id] = _Running(Meter(self._reactor.seconds), row)
                    self._spawn(self._run(row))
        finally:
            self._filling = False

    async def _run(self, row: JobRow) -> None:
        """Carry a job out and record its end, unless a stop comes first: then it stays a running one."""
        meter = self._running[row.id].meter
        self._publish(row)
        self._tick_later()
        try:
            outcome = await self._carry_out(row, meter)
            if outcome is None or self._was_stopped(outcome):
                return
            ended = await self._try(partial(self._state.end_job, row.id, *self._verdict(row, outcome)))
            if ended is None:
                return
            self._publish(ended)
            self._ended()
        finally:
            del self._running[row.id]
            self._fill_places()

    async def _carry_out(self, row: JobRow, meter: Meter) -> _Outcome | None:
        """The work, in a thread; None where no thread was to be had before the stop."""
        while self._begun:
            try:
                return await self._pool.run(_carry_out, self._work, row.order, meter)
            except OverloadedError:
                # The pool's own: the work's are in the outcome.
                await self._rest()
        return None

    def _was_stopped(self, outcome: _Outcome) -> bool:
        """Whether a stop ended the work. The state knows of a job that was cancelled too: it will not run."""
        return not self._begun and bool(outcome.failure and outcome.failure.check(JobCancelled))

    def _verdict(self, row: JobRow, outcome: _Outcome) -> tuple[JobState, str | None, str | None]:
        """How a job ends: its state, its result, the sentence of its failure."""
        failure = outcome.failure
        if failure is None:
            return JobState.DONE, outcome.result, None
        if failure.check(JobCancelled) and self._running[row.id].row.cancelling:
            return JobState.CANCELLED, None, None
        error: BaseException = UnexpectedError()
        if isinstance(failure.value, FileExportError | OSError):
            error = failure.value
        if row_for(error).kind is UnexpectedError:
            self._log.failure("the job {job} failed", failure, job=row.id)
        return JobState.FAILED, None, printable(sentence_for(error))

    async def _try(self, call: Callable[[], T]) -> T | None:
        """The result of a call to the state, tried until it succeeds; None where a stop comes first."""
        while True:
            try:
                return await self._disk.run(call)
            except Exception:
                # Also what nobody foresaw: to give up would leave a job that runs until the next start.
                self._log.failure("the state of the jobs could not be changed; trying again")
            if not self._begun:
                return None
            await self._rest()

    async def _prune(self) -> None:
        try:
            await self._disk.run(self._state.prune, self._now())
        except Exception:
            # The next end does it.
            self._log.failure("old jobs could not be removed")

    async def _opened(self, early: set[Deferred[None]]) -> None:
        """Wait for the queue to be opened, but not for ever."""
        opened: Deferred[None] = Deferred()
        early.add(opened)
        timer = self._reactor.callLater(OPENING_TIME, opened.callback, None)
        try:
            await opened
        finally:
            early.discard(opened)
            if timer.active():
                timer.cancel()

    async def _rest(self) -> None:
        """Wait before something is tried again; a stop ends it."""
        rest: Deferred[None] = Deferred()
        self._rests.add(rest)
        timer = self._reactor.callLater(RETRY_TIME, rest.callback, None)
        try:
            await rest
        finally:
            self._rests.discard(rest)
            if timer.active():
                timer.cancel()

    def _spawn(self, coroutine: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
        """Run a coroutine that `stop` waits for; what it raises is logged."""
        task = Deferred.fromCoroutine(coroutine)
        self._tasks.add(task)
        task.addErrback(lambda failure: self._log.failure("a job was lost until the next start", failure))
        return task.addBoth(lambda _: self._tasks.discard(task))


def _check_key(key: str | None) -> None:
    if key is not None and not (1 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise BadRequestError(f"an Idempotency-Key is 1 to {MAX_KEY} printable ASCII characters")


def _encode(value: object) -> str:
    """JSON, the same for equal values. Raises `ValueError` for what JSON cannot hold."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError("not JSON") from error


def _carry_out(work: Work, order: str, meter: Meter) -> _Outcome:
    """In the pool's thread: the outcome, whatever the work raises; the pool's own errors are others."""
    try:
        meter.check()
        return _Outcome(_encode(work(json.loads(order), meter)))
    except BaseException:
        return _Outcome(None, Failure())
