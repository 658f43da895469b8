"""Lanes: order, batches, and when they are full."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import OverloadedError
from fileexport.lanes import ALWAYS, MOST, TURN, Budget, Lane
from tests.helpers import Immediate

P = ParamSpec("P")
T = TypeVar("T")


class Later(Immediate):
    """A worker that begins what it was given when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)
        return waiting.addCallback(lambda _: function(*args, **kwargs))

    def go_on(self) -> None:
        """Carry out what waits now."""
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            one.callback(None)


class Closed:
    """A worker that takes no work."""

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return fail(OverloadedError())


class Hops(MemoryReactorClock):
    """A reactor that counts how often a thread calls it, and hears it at its next turn."""

    def __init__(self) -> None:
        MemoryReactorClock.__init__(self)
        self.heard: list[Callable[[], object]] = []

    def callFromThread(self, callable: Callable[..., object], *args: object, **kwargs: object) -> None:
        self.heard.append(lambda: callable(*args, **kwargs))


class LaneTests(SynchronousTestCase):
    """One connection's work."""

    def setUp(self) -> None:
        self.reactor = Hops()
        self.core: Any = self.reactor
        self.worker = Later()
        self.budget = Budget(1 << 20)
        self.told: list[str] = []
        self.lane = self.make()

    def make(self) -> Lane:
        """A lane of the same daemon."""
        return Lane(
            self.core,
            self.worker,
            self.budget,
            on_full=lambda: self.told.append("full"),
            on_free=lambda: self.told.append("free"),
        )

    def test_order(self) -> None:
        """What is put is carried out in that order, and each gets its own result."""
        done: list[int] = []

        def note(number: int) -> int:
            done.append(number)
            return number * 2

        results = [self.lane.put(partial(note, number)) for number in range(5)]
        self.assertEqual(done, [])
        self.worker.go_on()
        self.assertEqual(done, [0, 1, 2, 3, 4])
        self.assertEqual([self.successResultOf(result) for result in results], [0, 2, 4, 6, 8])

    def test_one_thread(self) -> None:
        """However much is put, one thread is asked for, and the reactor is woken once in a batch."""
        for _ in range(10):
            self.lane.put(int)
        self.assertEqual(len(self.worker.waiting), 1)
        self.worker.go_on()
        self.assertEqual(len(self.reactor.heard), 1)
        self.assertEqual(self.worker.waiting, [])

    def test_failure(self) -> None:
        """What raises fails alone: the next is carried out."""
        bad, good = self.lane.put(lambda: 1 // 0), self.lane.put(lambda: 1)
        self.worker.go_on()
        self.failureResultOf(bad, ZeroDivisionError)
        self.assertEqual(self.successResultOf(good), 1)

    def test_put_by_a_result(self) -> None:
        """What a result makes its reader put comes behind what is queued."""
        done: list[str] = []
        first = self.lane.put(lambda: done.append("first"))
        first.addCallback(lambda _: self.lane.put(lambda: done.append("third")))
        self.lane.put(lambda: done.append("second"))
        self.worker.go_on()
        self.worker.go_on()
        self.assertEqual(done, ["first", "second", "third"])

    def test_others_have_their_turn(self) -> None:
        """A long queue gives its thread back after a while, for others that wait for one."""
        results = [self.lane.put(int) for _ in range(TURN + 1)]
        self.worker.go_on()
        self.assertNoResult(results[-1])
        self.assertEqual(len(self.worker.waiting), 1)
        self.worker.go_on()
        self.successResultOf(results[-1])

    def test_settled(self) -> None:
        """Whoever waits for a lane waits for what was put before, not for what comes later."""
        self.successResultOf(self.lane.settled())
        self.lane.put(int)
        settled = self.lane.settled()
        self.assertNoResult(settled)
        self.worker.go_on()
        self.successResultOf(settled)

    def test_full(self) -> None:
        """A lane is full when more than its most waits, and free when half of that is done."""
        self.budget = Budget(2 * MOST)
        self.lane = self.make()
        for _ in range(4):
            self.lane.put(int, MOST // 4)
        self.assertEqual(self.told, [])
        self.lane.put(int, 1)
        self.assertEqual(self.told, ["full"])
        self.worker.go_on()
        self.assertEqual(self.told, ["full", "free"])
        self.assertEqual(self.lane.queued_bytes, 0)

    def test_charged(self) -> None:
        """What waits elsewhere for its place counts as what is queued does."""
        self.budget = Budget(2 * MOST)
        self.lane = self.make()
        self.lane.charge(MOST)
        self.lane.put(int, 1)
        self.assertEqual(self.told, ["full"])
        self.worker.go_on()
        self.assertEqual(self.told, ["full"])
        self.lane.charge(-MOST)
        self.assertEqual(self.told, ["full", "free"])
        self.assertEqual((self.lane.queued_bytes, self.budget.taken), (0, 0))

    def test_common_budget(self) -> None:
        """Where others hold the common budget, a lane is full with what it always may hold."""
        other = self.make()
        self.lane.put(int, MOST - 1)
        self.told.clear()
        other.put(int, ALWAYS)
        self.assertEqual(self.told, [])
        other.put(int, 1)
        self.assertEqual(self.told, ["full"])
        self.worker.go_on()
        self.assertEqual(self.budget.taken, 0)

    def test_refused(self) -> None:
        """Where the pool takes no work, all that is queued fails, and nothing stays counted."""
        lane = Lane(self.core, Closed(), self.budget, on_full=int, on_free=int)
        self.failureResultOf(lane.put(int, MOST), OverloadedError)
        self.assertEqual((lane.queued_bytes, self.budget.taken), (0, 0))
