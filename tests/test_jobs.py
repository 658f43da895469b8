"""The queue: who runs when, how each ends, and who hears of it."""

from __future__ import annotations

import errno
import math
from typing import Any

from twisted.internet.defer import CancelledError

from fileexport import jobs as limits
from fileexport.disk.schema import JobRow, JobState, MessageState
from fileexport.errors import (
    BadRequestError,
    BusyError,
    ChangedWhileRead,
    ConflictError,
    JobCancelled,
    OverloadedError,
    QueueFull,
    UnexpectedError,
    sentence_of,
)
from fileexport.jobs import Event, Order
from fileexport.meter import Meter
from tests.jobs_case import FULL, PING, JobsCase


class SubmitTests(JobsCase):
    """`Jobs.submit` and what comes of it."""

    def test_life(self) -> None:
        """An order is queued, runs at once where there is a place, and is done with its result."""
        self.watch()
        row = self.submit(message=PING)
        self.assertEqual((row.state, row.created), (JobState.QUEUED, 1000.0))
        self.assertEqual(self.states(row), ["running"])
        self.clock.advance(7)
        self.pool.turn()
        done = self.found(row)
        self.assertEqual((done.state, done.result, done.ended), (JobState.DONE, '{"size":5}', 1007.0))
        self.assertEqual(self.done, [{"target": "/a"}])
        self.assertEqual(self.seen(), [("/a", "queued"), ("/a", "running"), ("/a", "done")])
        self.assertEqual((self.ends, self.state.next_due()), (1, 1007.0))

    def test_places(self) -> None:
        """As many run as there are places, the oldest first; each end starts the next."""
        rows = [self.submit(target) for target in ("/a", "/b", "/c", "/d")]
        self.assertEqual(self.states(*rows), ["running", "running", "queued", "queued"])
        self.pool.turn()
        self.assertEqual(self.states(*rows), ["done", "running", "running", "queued"])
        for _ in range(3):
            self.pool.turn()
        self.assertEqual(self.states(*rows), ["done"] * 4)
        self.assertEqual([order["target"] for order in self.done], ["/a", "/b", "/c", "/d"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """Work that needs no time is no trouble, however much of it there is."""
        self.pool.at_once = True
        rows = [self.submit(f"/{number}") for number in range(200)]
        self.assertEqual(self.states(*rows), ["done"] * 200)

    def test_durable(self) -> None:
        """An order is acknowledged when its record is durable, not before."""
        self.disk.at_once = False
        submitted = self.start(self.jobs.submit({}, owner="ann", target="/a"))
        self.assertNoResult(submitted)
        self.assertEqual(self.state.jobs(), [])
        self.disk.turn()
        self.assertEqual([self.successResultOf(submitted)], self.state.jobs())

    def test_early(self) -> None:
        """An order that comes while the queue is being opened waits for that."""
        self.kill()
        self.disk.at_once = False
        starting = self.jobs.start()
        submitted = self.start(self.jobs.submit({}, owner="ann", target="/early"))
        gone = self.start(self.jobs.submit({}, owner="ann", target="/gone"))
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertNoResult(submitted)
        while self.disk.waiting:
            self.disk.turn()
        self.successResultOf(starting)
        self.assertEqual(self.successResultOf(submitted).target, "/early")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_caller_gone(self) -> None:
        """A caller that does not wait for the acknowledgement leaves a job that is carried out."""
        self.disk.at_once = False
        submitted = self.start(self.jobs.submit({}, owner="ann", target="/a"))
        submitted.cancel()
        self.failureResultOf(submitted, CancelledError)
        while self.disk.waiting:
            self.disk.turn()
        self.assertEqual([row.state for row in self.state.jobs()], [JobState.RUNNING])

    def test_shared(self) -> None:
        """Equal orders share one job, however their keys are sorted, and nobody is told twice."""
        self.watch()
        first = self.get(self.jobs.submit({"a": 1, "b": [2]}, owner="ann", target="/a", key="k"))
        self.seen()
        second = self.get(self.jobs.submit({"b": [2], "a": 1}, owner="ann", target="/a", message=PING))
        self.assertEqual((second.id, second.state), (first.id, JobState.RUNNING))
        self.pool.turn()
        self.assertEqual((self.seen(), len(self.done)), ([("/a", "done")], 1))
        again = self.get(self.jobs.submit({"changed": 1}, owner="ann", target="/a", key="k"))
        self.assertEqual((again.id, again.state), (first.id, JobState.DONE))
        self.assertEqual(self.seen(), [])

    def test_find(self) -> None:
        """A key finds its job, before and after its end, without an order; not for another request."""
        self.assertIsNone(self.get(self.jobs.find("ann", "k", "r")))
        row = self.submit(key="k", request="r")
        self.pool.turn()
        self.assertEqual(self.get(self.jobs.find("ann", "k", "r")), self.found(row))
        self.assertIsNone(self.get(self.jobs.find("bob", "k", "r")))
        self.failureResultOf(self.start(self.jobs.find("ann", "k", "other")), ConflictError)

    def test_refused(self) -> None:
        """A busy target, a key of another request and a full queue are refused, and leave nothing."""
        self.patch(limits, "MAX_QUEUED", 1)
        for target in ("/a", "/b", "/c"):
            self.submit(target, key=target, request=target)
        for order, target, key, kind in (
            ({"other": 1}, "/a", None, BusyError),
            ({"other": 1}, "/b", "/a", ConflictError),
            ({}, "/d", None, QueueFull),
        ):
            submitted = self.start(
                self.jobs.submit(order, owner="ann", target=target, key=key, request=target)
            )
            self.failureResultOf(submitted, kind)
        self.assertEqual(len(self.state.jobs()), 3)

    def test_bad_orders(self) -> None:
        """What is no JSON, or no key, is refused."""
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for order in ({"a": math.nan}, {"a": b""}, {"a": deep}, {"a": "x" * 300_000}):
            submitted = self.start(self.jobs.submit(order, owner="ann", target="/a"))
            self.failureResultOf(submitted, ValueError)
        for key in ("", "k" * 256, "ä", "a\n"):
            self.failureResultOf(self.start(self.jobs.find("ann", key, "")), BadRequestError)
            submitted = self.start(self.jobs.submit({}, owner="ann", target="/a", key=key))
            self.failureResultOf(submitted, BadRequestError)
        self.assertEqual(self.state.jobs(), [])

    def test_listing(self) -> None:
        """Jobs are listed, newest first, of one owner or of all."""
        rows = [self.submit(target) for target in ("/a", "/b", "/c")]
        ids = [row.id for row in rows]
        self.assertEqual([row.id for row in self.get(self.jobs.list())], ids[::-1])
        self.assertEqual([row.id for row in self.get(self.jobs.list("ann", limit=1))], ids[2:])
        self.assertEqual(self.get(self.jobs.list("bob")), [])
        self.assertIsNone(self.get(self.jobs.get("missing")))

    def test_forgotten(self) -> None:
        """An end makes room: jobs that ended a day before are forgotten."""
        old = self.submit("/a")
        self.pool.turn()
        self.clock.advance(24 * 3600 + 1)
        self.submit("/b")
        self.pool.turn()
        self.assertIsNone(self.get(self.jobs.get(old.id)))


class EndTests(JobsCase):
    """How a job ends."""

    def raising(self, error: BaseException) -> JobRow:
        """A job whose work raises, as it ends."""

        def todo(order: Order, meter: Meter) -> dict[str, Any]:
            raise error

        self.todo = todo
        row = self.submit()
        self.pool.turn()
        return self.found(row)

    def test_foreseen(self) -> None:
        """What was foreseen is the job's failure, in a sentence that shows no path of the machine."""
        for error, sentence in (
            (ChangedWhileRead("/a/b changed while it was read"), "/a/b changed while it was read"),
            (ChangedWhileRead("\udcff changed"), "\ufffd changed"),
            (FULL, "the disk is full"),
            (FileNotFoundError(errno.ENOENT, "no", "/srv/secret"), "there is no such file or directory"),
            (OverloadedError(), sentence_of(OverloadedError)),
            (JobCancelled(), "the job was cancelled"),
        ):
            row = self.raising(error)
            self.assertEqual((row.state, row.error, row.result), (JobState.FAILED, sentence, None))

    def test_unforeseen(self) -> None:
        """What was not foreseen is told as such, and the log says what it was."""
        for error in (
            KeyError("x"),
            ValueError("y"),
            OSError(errno.EIO, "z"),
            SystemExit(1),
            RecursionError(),
        ):
            row = self.raising(error)
            self.assertEqual((row.state, row.error), (JobState.FAILED, sentence_of(UnexpectedError)))
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 1, error)

    def test_strange_result(self) -> None:
        """A result that is no JSON is no result."""
        self.todo = lambda order, meter: {"digest": b"raw"}
        row = self.submit()
        self.pool.turn()
        self.assertEqual(self.states(row), ["failed"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_messages_after_a_failure(self) -> None:
        """Whoever wants to be told is told of a failure too."""
        row = self.submit(message=PING)
        self.todo = lambda order, meter: {"size": order["missing"]}
        self.pool.turn()
        self.flushLoggedErrors(KeyError)
        [message] = self.state.messages(row.id)
        self.assertEqual((message.state, self.ends), (MessageState.DUE, 1))


class CancelTests(JobsCase):
    """`Jobs.cancel`."""

    def cancel(self, row: JobRow) -> bool:
        """Cancel a job."""
        return self.get(self.jobs.cancel(row.id))

    def test_queued(self) -> None:
        """A queued job is cancelled at once and never runs; its messages are due."""
        self.submit("/a"), self.submit("/b")
        row = self.submit("/c", message=PING)
        self.watch()
        self.assertTrue(self.cancel(row))
        self.assertEqual((self.seen(), self.ends), ([("/c", "cancelled")], 1))
        self.assertEqual(self.state.next_due(), 1000.0)
        self.pool.turn()
        self.pool.turn()
        self.assertEqual((len(self.done), len(self.pool.waiting)), (2, 0))

    def test_running(self) -> None:
        """A running job ends when its work next looks; until then it is marked, and keeps its place."""

        def todo(order: Order, meter: Meter) -> dict[str, Any]:
            meter.check()
            self.assertTrue(self.cancel(row))
            self.assertTrue(self.found(row).cancelling)
            self.assertEqual(self.states(row, later), ["running", "queued"])
            meter.check()
            return {}

        self.todo = todo
        row, _, later = self.submit("/a"), self.submit("/b"), self.submit("/c")
        self.watch()
        self.pool.turn()
        self.assertEqual(self.states(row, later), ["cancelled", "running"])
        self.assertEqual(self.seen(), [("/a", "running"), ("/a", "cancelled"), ("/c", "running")])
        self.assertEqual(self.ends, 1)

    def test_before_its_thread(self) -> None:
        """A job that is cancelled before a thread has begun with it is not begun."""
        row = self.submit()
        self.assertTrue(self.cancel(row))
        self.pool.turn()
        self.assertEqual((self.states(row), self.done), (["cancelled"], []))

    def test_too_late(self) -> None:
        """Work that has finished before it looked ends as it did: its archive is there."""
        for divisor, end in ((1, "done"), (0, "failed")):

            def todo(order: Order, meter: Meter, divisor: int = divisor) -> dict[str, Any]:
                self.assertTrue(self.cancel(self.state.jobs()[0]))
                return {"size": 1 // divisor}

            self.todo = todo
            row = self.submit()
            self.pool.turn()
            self.assertEqual((self.states(row), self.found(row).cancelling), ([end], False))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_ended(self) -> None:
        """What has ended, or never was, is not cancelled."""
        row = self.submit()
        self.pool.turn()
        self.watch()
        self.assertFalse(self.cancel(row))
        self.assertFalse(self.get(self.jobs.cancel("missing")))
        self.assertEqual((self.seen(), self.states(row)), ([], ["done"]))


class WaitTests(JobsCase):
    """`Jobs.wait`."""

    def test_end(self) -> None:
        """All who wait for a job are answered when it ends, and no timer stays."""
        row = self.submit()
        waits = [self.start(self.jobs.wait(row.id, 60)) for _ in range(3)]
        self.assertNoResult(waits[0])
        self.pool.turn()
        for wait in waits:
            self.assertEqual(self.successResultOf(wait), self.found(row))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_time(self) -> None:
        """Who has waited long enough is told how it is then."""
        row = self.submit()
        wait = self.start(self.jobs.wait(row.id, 60))
        self.clock.advance(59)
        self.assertNoResult(wait)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(wait), self.found(row))
        self.pool.turn()

    def test_ended(self) -> None:
        """For what has ended, or never was, nobody waits."""
        row = self.submit()
        self.pool.turn()
        self.assertEqual(self.get(self.jobs.wait(row.id, 60)), self.found(row))
        self.assertIsNone(self.get(self.jobs.wait("missing", 60)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_end_while_asking(self) -> None:
        """An end that comes while the job is being looked up is not missed."""
        row = self.submit()
        self.disk.at_once = False
        wait = self.start(self.jobs.wait(row.id, 60))
        self.pool.turn()
        while self.disk.waiting:
            self.disk.turn()
        ended = self.successResultOf(wait)
        self.assertEqual(ended and ended.state, JobState.DONE)

    def test_gone(self) -> None:
        """Who goes while waiting leaves nothing, and others wait on."""
        row = self.submit()
        gone, stays = [self.start(self.jobs.wait(row.id, 60)) for _ in range(2)]
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.pool.turn()
        self.assertEqual(self.successResultOf(stays), self.found(row))


class NewsTests(JobsCase):
    """Progress and events."""

    def test_progress(self) -> None:
        """How far a job is can be asked while it runs, and only then."""

        def todo(order: Order, meter: Meter) -> dict[str, Any]:
            meter.bytes_total = 300
            self.clock.advance(1)
            meter.advance(100, 1)
            progress = self.jobs.progress(row.id)
            self.assertEqual(progress, (100, 300, 1, None, 100.0, 2.0))
            return {}

        self.todo = todo
        row, _, queued = self.submit("/a"), self.submit("/b"), self.submit("/c")
        self.assertIsNone(self.jobs.progress(queued.id))
        self.pool.turn()
        self.assertEqual(self.states(row), ["done"])
        self.assertIsNone(self.jobs.progress(row.id))
        self.assertIsNone(self.jobs.progress("missing"))

    def test_events(self) -> None:
        """Of what runs there are four events a second, while there is somebody who listens."""
        self.submit()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        stop = self.jobs.subscribe(self.events.append)
        self.clock.pump([0.05] * 41)
        self.assertEqual([(e.kind, e.job.target) for e in self.events], [("progress", "/a")] * 8)
        stop(), stop()
        self.clock.advance(1)
        self.assertEqual((len(self.events), self.clock.getDelayedCalls()), (8, []))

    def test_nothing_runs(self) -> None:
        """While nothing runs no timer does, whoever listens."""
        self.watch()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.submit()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.pool.turn()
        self.clock.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_broken_listener(self) -> None:
        """A listener that fails is logged, and neither the job nor the others suffer."""

        def listener(event: Event) -> None:
            raise ZeroDivisionError

        self.jobs.subscribe(listener)
        self.watch()
        row = self.submit()
        self.pool.turn()
        self.assertEqual((self.states(row), len(self.seen())), (["done"], 3))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_twice(self) -> None:
        """One listener may subscribe twice, and then leave once."""
        stop = self.jobs.subscribe(self.events.append)
        self.jobs.subscribe(self.events.append)
        stop(), stop()
        self.submit()
        self.assertEqual(len(self.seen()), 2)
