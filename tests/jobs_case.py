"""A queue of jobs whose threads run when the test says so."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.schema import Callback, JobRow
from fileexport.disk.state import State
from fileexport.jobs import Event, Jobs, Order, Work
from fileexport.meter import Meter
from fileexport.pools import Worker

P = ParamSpec("P")
T = TypeVar("T")

PING = Callback("get", "http://192.0.2.7:9010/ping", "192.0.2.7", False)
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/srv/secret")


class Turned:
    """A `fileexport.pools.Worker` whose functions run in `turn`, in the caller's thread.

    `at_once`: they run without it. While there is an `error`, it refuses all with it.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.at_once = at_once
        self.error: Exception | None = None
        self.waiting: deque[tuple[Deferred[Any], Callable[[], Any]]] = deque()

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        if self.error is not None:
            return fail(self.error)
        if self.at_once:
            return execute(function, *args, **kwargs)
        result: Deferred[T] = Deferred()
        self.waiting.append((result, partial(function, *args, **kwargs)))
        return result

    def turn(self) -> None:
        """Run the function that has waited longest."""
        result, call = self.waiting.popleft()
        outcome = execute(call)
        if not result.called:
            outcome.chainDeferred(result)


class JobsCase(SynchronousTestCase):
    """Has a queue of two places that runs; its state answers at once, its work takes turns.

    What the work does is in `todo`: it makes the result. Events are in `events`, ends are counted in `ends`.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.state = State(self.directory, self.now)
        self.addCleanup(lambda: self.state.close())
        self.pool, self.disk = Turned(), Turned(at_once=True)
        self.todo: Work = lambda order, meter: {"size": 5}
        self.done: list[Order] = []
        self.ends = 0
        self.events: list[Event] = []
        self.jobs = self.make()
        self.successResultOf(self.jobs.start())
        self.ends = 0

    def now(self) -> float:
        """The time, in seconds since 1970."""
        return 1000.0 + self.clock.seconds()

    def make(self, pool: Worker | None = None) -> Jobs:
        """A queue on the state, stopped when the test ends."""

        def work(order: Order, meter: Meter) -> dict[str, Any]:
            self.done.append(order)
            return self.todo(order, meter)

        def ended() -> None:
            self.ends += 1

        jobs = Jobs(
            self.clock,
            self.state,
            work,
            pool=pool or self.pool,
            disk=self.disk,
            now=self.now,
            cores=2,
            ended=ended,
        )
        self.addCleanup(self.end, jobs, self.pool)
        return jobs

    def end(self, jobs: Jobs, pool: Turned) -> None:
        """Stop a queue: no coroutine of it may outlive its test."""
        self.disk.error, self.disk.at_once = None, True
        stopped = jobs.stop()
        while worker := next((each for each in (self.disk, pool) if each.waiting), None):
            worker.turn()
        self.successResultOf(stopped)

    def kill(self) -> None:
        """Go on with another queue, as if the first one's process had been killed."""
        self.pool = Turned()
        self.jobs = self.make()

    def start(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """Begin something."""
        return Deferred.fromCoroutine(coroutine)

    def get(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> T:
        """The result of something that needs no turn."""
        return self.successResultOf(self.start(coroutine))

    def submit(self, target: str = "/a", **more: Any) -> JobRow:
        """Queue a job of ann's."""
        order = {"target": target}
        return self.get(self.jobs.submit(order, owner="ann", target=target, **more))

    def found(self, row: JobRow) -> JobRow:
        """The job as it is now."""
        found = self.get(self.jobs.get(row.id))
        assert found is not None
        return found

    def states(self, *rows: JobRow) -> list[str]:
        """The states that the jobs are in now."""
        return [self.found(row).state.value for row in rows]

    def watch(self) -> None:
        """Note all events from now on."""
        self.addCleanup(self.jobs.subscribe(self.events.append))

    def seen(self) -> list[tuple[str, str]]:
        """Targets and states of the events of state, which are taken away."""
        seen = [(event.job.target, event.job.state.value) for event in self.events if event.kind == "state"]
        self.events.clear()
        return seen
