"""The queue over a stop, a start, and a disk or a pool that refuses."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

from twisted.internet.defer import Deferred

from fileexport.disk.schema import JobRow, JobState
from fileexport.errors import OverloadedError, StateError
from fileexport.jobs import OPENING_TIME, RETRY_TIME, Jobs, Order
from fileexport.meter import Meter
from fileexport.pools import Pool
from tests.jobs_case import FULL, PING, JobsCase
from tests.test_pools import PATIENCE, Turns


class StopTests(JobsCase):
    """Stopping, and starting again."""

    def test_interrupted(self) -> None:
        """A stop interrupts what runs, waits for it, and leaves all that is unfinished in the queue."""
        stops: list[Deferred[None]] = []

        def todo(order: Order, meter: Meter) -> dict[str, Any]:
            meter.check()
            stops.append(self.jobs.stop())
            meter.check()
            return {}

        self.todo = todo
        rows = [self.submit(target) for target in ("/a", "/b", "/c")]
        waits = self.start(self.jobs.wait(rows[0].id, 60))
        self.watch()
        self.pool.turn()
        waited = self.successResultOf(waits)
        self.assertEqual(waited and waited.state, JobState.RUNNING)
        self.assertNoResult(stops[0])
        self.pool.turn()
        self.successResultOf(stops[0])
        self.assertEqual(self.states(*rows), ["queued"] * 3)
        self.assertEqual((self.seen(), self.ends, self.clock.getDelayedCalls()), ([], 0, []))

    def test_refusing(self) -> None:
        """Before its start and after its stop the queue takes nothing, and nobody waits."""
        row = self.submit()
        stops = [self.jobs.stop(), self.jobs.stop()]
        self.pool.turn()
        for stopped in stops:
            self.successResultOf(stopped)
        for jobs in (self.jobs, self.make()):
            submitted = self.start(jobs.submit({}, owner="ann", target="/b"))
            self.failureResultOf(submitted, OverloadedError)
            self.assertEqual(self.get(jobs.wait(row.id, 60)), self.found(row))

    def test_finished_meanwhile(self) -> None:
        """What ends before it looks ends as it did, and what was cancelled is cancelled, at a stop too."""

        def todo(order: Order, meter: Meter) -> dict[str, Any]:
            if order["target"] == "/cancelled":
                self.get(self.jobs.cancel(self.state.jobs()[0].id))
            stops.append(self.jobs.stop())
            if order["target"] == "/failed":
                raise FULL
            if order["target"] == "/cancelled":
                meter.check()
            return {}

        stops: list[Deferred[None]] = []
        self.todo = todo
        for state in ("done", "failed", "cancelled"):
            row = self.submit(f"/{state}")
            self.pool.turn()
            self.successResultOf(stops.pop())
            self.assertEqual(self.states(row), [state])
            self.successResultOf(self.jobs.start())

    def test_again(self) -> None:
        """The next start carries out what was left, in its old order; also when the last one was killed."""
        rows = [self.submit(target) for target in ("/a", "/b", "/c")]
        self.kill()
        self.successResultOf(self.jobs.start())
        self.assertEqual(self.states(*rows), ["running", "running", "queued"])
        for _ in rows:
            self.pool.turn()
        self.assertEqual([order["target"] for order in self.done], ["/a", "/b", "/c"])

    def test_cancelled_before_a_kill(self) -> None:
        """What was cancelled before a kill does not run again, and whoever wanted it is told."""
        row = self.submit(message=PING)
        self.get(self.jobs.cancel(row.id))
        self.kill()
        self.successResultOf(self.jobs.start())
        self.assertEqual((self.states(row), self.ends, self.done), (["cancelled"], 1, []))
        self.assertIsNotNone(self.state.next_due())

    def test_same_queue_again(self) -> None:
        """A queue that was stopped may be started again."""
        row = self.submit()
        stopped = self.jobs.stop()
        self.pool.turn()
        self.successResultOf(stopped)
        self.successResultOf(self.jobs.start())
        self.pool.turn()
        self.assertEqual(self.states(row), ["done"])


class RefusalTests(JobsCase):
    """A disk or a pool that refuses for a while."""

    def test_submit(self) -> None:
        """An order that cannot be recorded is not taken: the caller is told why."""
        self.disk.error = FULL
        submitted = self.start(self.jobs.submit({}, owner="ann", target="/a"))
        self.assertIs(self.failureResultOf(submitted, OSError).value, FULL)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.disk.error = None
        self.assertEqual(self.state.jobs(), [])

    def test_end(self) -> None:
        """An end that cannot be recorded is tried again until it is; the job keeps its place."""
        row = self.submit(message=PING)
        self.watch()
        self.disk.error = FULL
        self.pool.turn()
        self.clock.pump([RETRY_TIME] * 3)
        self.assertEqual(self.state.jobs()[0].state, JobState.RUNNING)
        self.disk.error = None
        self.clock.advance(RETRY_TIME)
        self.assertEqual((self.states(row), self.seen(), self.ends), (["done"], [("/a", "done")], 1))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 4)

    def test_stop(self) -> None:
        """A stop does not wait for a disk that refuses: the next start carries the job out again."""
        row = self.submit()
        self.disk.error = StateError("damaged")
        self.pool.turn()
        self.successResultOf(self.jobs.stop())
        self.assertEqual(len(self.flushLoggedErrors(StateError)), 3)
        self.disk.error = None
        self.assertEqual((self.states(row), self.clock.getDelayedCalls()), (["running"], []))

    def test_unforeseen(self) -> None:
        """What nobody foresaw keeps no job from its end either, nor another from its start."""
        first, second, third = (self.submit(target) for target in ("/a", "/b", "/c"))
        self.disk.error = sqlite3.OperationalError("unable to do it")
        self.pool.turn()
        self.disk.error = None
        self.clock.advance(RETRY_TIME)
        self.assertEqual(self.states(first, second, third), ["done", "running", "running"])
        self.fail_once(self.state, "next_job", MemoryError())
        fourth = self.submit("/d")
        self.pool.turn()
        self.assertEqual(self.states(second, fourth), ["done", "queued"])
        self.clock.advance(RETRY_TIME)
        self.assertEqual(self.states(third, fourth), ["running", "running"])
        for kind in (sqlite3.OperationalError, MemoryError):
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def fail_once(self, target: object, name: str, error: Exception) -> None:
        """Have the next call of a method raise."""
        whole, errors = getattr(target, name), [error]

        def fail(*arguments: Any) -> Any:
            if errors:
                raise errors.pop()
            return whole(*arguments)

        self.patch(target, name, fail)

    def refused_start(self) -> tuple[JobRow, Deferred[None]]:
        """A job that ran when the process was killed, and a start on a disk that refuses."""
        row = self.submit()
        self.kill()
        self.disk.error = FULL
        return row, self.jobs.start()

    def test_start(self) -> None:
        """A queue that cannot be opened is opened when it can be; an order waits for that, not for ever."""
        row, starting = self.refused_start()
        late = self.start(self.jobs.submit({}, owner="ann", target="/late"))
        self.clock.advance(OPENING_TIME - 1)
        early = self.start(self.jobs.submit({}, owner="ann", target="/early"))
        self.assertNoResult(late)
        self.clock.advance(1)
        self.failureResultOf(late, OverloadedError)
        self.disk.error = None
        self.assertNoResult(starting)
        self.clock.advance(RETRY_TIME - OPENING_TIME)
        self.successResultOf(starting)
        self.assertEqual((self.states(row, self.successResultOf(early)), self.ends), (["running"] * 2, 1))
        self.assertEqual((len(self.flushLoggedErrors(OSError)), self.clock.getDelayedCalls()), (1, []))

    def test_stop_while_starting(self) -> None:
        """A stop ends a start that is tried again and again; who waited for it is refused."""
        row, starting = self.refused_start()
        early = self.start(self.jobs.submit({}, owner="ann", target="/early"))
        self.successResultOf(self.jobs.stop())
        self.successResultOf(starting)
        self.failureResultOf(early, OverloadedError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.disk.error = None
        self.assertEqual(self.states(row), ["running"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 3)

    def test_old_jobs_at_a_start(self) -> None:
        """That old jobs cannot be removed keeps no start from success."""
        self.kill()
        self.fail_once(self.state, "prune", StateError("damaged"))
        self.successResultOf(self.jobs.start())
        self.assertEqual(self.states(self.submit()), ["running"])
        self.assertEqual(len(self.flushLoggedErrors(StateError)), 1)

    def test_pool(self) -> None:
        """A job for which there is no thread keeps its place, and has one later or goes back at a stop."""
        self.pool.error = OverloadedError()
        rows = [self.submit("/a"), self.submit("/b")]
        self.clock.advance(RETRY_TIME)
        self.pool.error = None
        self.clock.advance(RETRY_TIME)
        self.pool.turn()
        self.assertEqual(self.states(*rows), ["done", "running"])
        self.pool.error = OverloadedError()
        last = self.submit("/c")
        stopped = self.jobs.stop()
        self.pool.turn()
        self.successResultOf(stopped)
        self.assertEqual(self.states(rows[1], last), ["queued", "queued"])


class ThreadTests(JobsCase):
    """With threads."""

    def setUp(self) -> None:
        super().setUp()
        self.turns = Turns()
        self.threads = Pool(self.turns, "jobs", 2, 0)
        self.threads.start()
        self.addCleanup(self.threads.stop)
        self.begun, over = threading.Event(), threading.Event()
        self.addCleanup(over.set)

        def todo(order: Order, meter: Meter) -> dict[str, Any]:
            self.begun.set()
            while not over.wait(0.001):
                meter.advance(1)
                meter.check()
            return {}

        self.todo = todo
        self.jobs: Jobs = self.make(self.threads)
        self.successResultOf(self.jobs.start())

    def test_cancel(self) -> None:
        """Cancelling reaches the thread that works; how far it is can be read meanwhile."""
        row = self.submit()
        self.assertTrue(self.begun.wait(PATIENCE))
        self.assertIsNotNone(self.jobs.progress(row.id))
        self.assertTrue(self.get(self.jobs.cancel(row.id)))
        self.turns.turn()
        self.assertEqual(self.states(row), ["cancelled"])

    def test_stop(self) -> None:
        """So does a stop; the job is back in the queue."""
        row = self.submit()
        self.assertTrue(self.begun.wait(PATIENCE))
        stopped = self.jobs.stop()
        self.turns.turn()
        self.successResultOf(stopped)
        self.assertEqual(self.states(row), ["queued"])
