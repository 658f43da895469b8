"""Threads and their queue."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from fileexport.errors import OverloadedError
from fileexport.pools import Pool, Steps, surely
from tests.helpers import Immediate, Refusing

#: Seconds after which a test that waits for a thread has failed.
PATIENCE = 20


@implementer(IReactorFromThreads)
class Turns:
    """As much of a reactor as a pool needs: the test's own thread carries out what threads hand over."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], object]] = queue.Queue()

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        self._calls.put(lambda: callable(*args, **kwargs))

    def turn(self) -> None:
        """Wait for the next call from a thread and carry it out."""
        self._calls.get(timeout=PATIENCE)()

    def finish(self, work: Deferred[Any]) -> None:
        """Turn until the work has ended, one way or the other."""
        ended: list[object] = []

        def end(result: Any) -> Any:
            ended.append(result)
            return result

        work.addBoth(end)
        while not ended:
            self.turn()


class Work:
    """A function that says when it begins and ends only when it may."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, value: str = "done") -> str:
        self.begun.set()
        if not self.may_end.wait(PATIENCE):
            raise TimeoutError
        return value


class NoThreadTests(SynchronousTestCase):
    """A system that gives no thread."""

    def test_refused(self) -> None:
        """The work fails and the pool goes on: as soon as there are threads again it works."""
        reactor = Turns()
        pool = Pool(reactor, "test", 1, 2)
        pool.start()
        self.addCleanup(pool.stop)

        def refuse(*_: object, **__: object) -> None:
            raise RuntimeError("can't start new thread")

        patch = self.patch(ThreadPool, "callInThreadWithCallback", refuse)
        for _ in range(3):
            self.failureResultOf(pool.run(int), OverloadedError)
        patch.restore()
        result = pool.run(int)
        reactor.turn()
        self.assertEqual(self.successResultOf(result), 0)


class PoolCase(SynchronousTestCase):
    """Has a pool of one thread and a queue of two."""

    def setUp(self) -> None:
        self.reactor = Turns()
        self.pool = Pool(self.reactor, "test", 1, 2)
        self.pool.start()
        self.addCleanup(self.pool.stop)

    def busy(self) -> tuple[Work, Deferred[str]]:
        """Work that occupies the one thread until it may end."""
        work = Work()
        result = self.pool.run(work)
        self.assertTrue(work.begun.wait(PATIENCE))
        self.addCleanup(work.may_end.set)
        return work, result

    def finish(self, work: Work) -> None:
        """Let the work end and the reactor hear of it."""
        work.may_end.set()
        self.reactor.turn()


class PoolTests(PoolCase):
    """A bounded pool."""

    def test_result(self) -> None:
        """The result of a function arrives in the reactor's thread; the function ran in another."""
        result = self.pool.run(lambda a, b: (threading.get_ident(), a + b), 1, b=2)
        self.assertNoResult(result)
        self.reactor.turn()
        thread, total = self.successResultOf(result)
        self.assertEqual(total, 3)
        self.assertNotEqual(thread, threading.get_ident())

    def test_exception(self) -> None:
        """What the function raises arrives as a failure, and the thread serves the next one."""
        result = self.pool.run(int, "x")
        self.reactor.turn()
        self.failureResultOf(result, ValueError)
        again = self.pool.run(int, "7")
        self.reactor.turn()
        self.assertEqual(self.successResultOf(again), 7)

    def test_order(self) -> None:
        """What waits begins in the order in which it came."""
        work, _ = self.busy()
        order: list[int] = []
        self.pool.run(order.append, 1)
        self.pool.run(order.append, 2)
        self.finish(work)
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(order, [1, 2])

    def test_limit(self) -> None:
        """What finds the queue full fails at once, and there is room again after one has begun."""
        work, first = self.busy()
        waiting = [self.pool.run(int, "1"), self.pool.run(int, "2")]
        self.failureResultOf(self.pool.run(int, "3"), OverloadedError)
        self.finish(work)
        self.assertEqual(self.successResultOf(first), "done")
        waiting.append(self.pool.run(int, "4"))
        for _ in waiting:
            self.reactor.turn()
        self.assertEqual([self.successResultOf(one) for one in waiting], [1, 2, 4])

    def test_threads_at_once(self) -> None:
        """As many functions run at once as there are threads."""
        pool = Pool(self.reactor, "three", 3, 0)
        pool.start()
        self.addCleanup(pool.stop)
        works = [Work() for _ in range(3)]
        for work in works:
            pool.run(work)
        self.assertTrue(all(work.begun.wait(PATIENCE) for work in works))
        self.failureResultOf(pool.run(int), OverloadedError)
        for work in works:
            self.finish(work)

    def test_cancel_waiting(self) -> None:
        """Cancelled work that waits never runs and leaves its place in the queue."""
        work, _ = self.busy()
        ran: list[int] = []
        first, second = self.pool.run(ran.append, 1), self.pool.run(ran.append, 2)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        third = self.pool.run(ran.append, 3)
        self.finish(work)
        self.reactor.turn()
        self.reactor.turn()
        self.successResultOf(second)
        self.successResultOf(third)
        self.assertEqual(ran, [2, 3])

    def test_cancel_running(self) -> None:
        """Cancelled work that runs keeps its thread until it ends, and its result is dropped."""
        work, result = self.busy()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        waits = self.pool.run(int, "5")
        self.assertNoResult(waits)
        self.finish(work)
        self.reactor.turn()
        self.assertEqual(self.successResultOf(waits), 5)

    def test_stop(self) -> None:
        """Stopping waits for what runs, drops what waits, and takes no more."""
        work, result = self.busy()
        waits = self.pool.run(int, "5")
        stopped, again = self.pool.stop(), self.pool.stop()
        self.failureResultOf(waits, OverloadedError)
        self.failureResultOf(self.pool.run(int, "6"), OverloadedError)
        self.assertNoResult(stopped)
        self.finish(work)
        self.assertEqual(self.successResultOf(result), "done")
        self.successResultOf(stopped)
        self.successResultOf(again)
        self.assertEqual([t for t in threading.enumerate() if t.name.startswith("PoolThread-test-")], [])

    def test_abandon(self) -> None:
        """Abandoning waits for nothing: what waits fails, and a thread ends when its work does."""
        work, result = self.busy()
        [thread] = [t for t in threading.enumerate() if t.name.startswith("PoolThread-test-")]
        waits, stopped = self.pool.run(int, "5"), self.pool.stop()
        self.assertNoResult(stopped)
        self.pool.abandon()
        self.successResultOf(stopped)
        self.successResultOf(self.pool.stop())
        self.failureResultOf(waits, OverloadedError)
        self.failureResultOf(self.pool.run(int, "6"), OverloadedError)
        work.may_end.set()
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())
        self.assertNoResult(result)

    def test_abandon_idle(self) -> None:
        """The threads of an abandoned pool without work end at once."""
        self.pool.run(int, "5")
        self.reactor.turn()
        threads = [t for t in threading.enumerate() if t.name.startswith("PoolThread-test-")]
        self.pool.abandon()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual([thread for thread in threads if thread.is_alive()], [])

    def test_daemonic(self) -> None:
        """A program that ends does not wait for the threads."""
        result = self.pool.run(lambda: threading.current_thread().daemon)
        self.reactor.turn()
        self.assertIs(self.successResultOf(result), True)

    def test_idle_stop(self) -> None:
        """A pool without work stops at once, also one that never ran."""
        self.successResultOf(self.pool.stop())
        self.successResultOf(self.pool.stop())
        self.successResultOf(Pool(self.reactor, "never", 1, 1).stop())

    def test_start_again(self) -> None:
        """A pool may be started again after it has stopped, and not before."""
        self.assertRaises(RuntimeError, self.pool.start)
        work, _ = self.busy()
        stopped = self.pool.stop()
        self.assertRaises(RuntimeError, self.pool.start)
        self.finish(work)
        self.successResultOf(stopped)
        self.pool.start()
        result = self.pool.run(int, "7")
        self.reactor.turn()
        self.assertEqual(self.successResultOf(result), 7)

    def test_not_started(self) -> None:
        """A pool that was never started takes no work."""
        self.failureResultOf(Pool(self.reactor, "never", 1, 1).run(int), OverloadedError)


class SurelyTests(PoolCase):
    """What must not be left undone."""

    def test_thread(self) -> None:
        """It is done in a thread where there is one; what it raises is told."""
        done = Deferred.fromCoroutine(surely(self.pool, threading.get_ident))
        self.reactor.turn()
        self.assertNotEqual(self.successResultOf(done), threading.get_ident())
        failed = Deferred.fromCoroutine(surely(Immediate(), int, "x"))
        self.failureResultOf(failed, ValueError)

    def test_no_thread(self) -> None:
        """Without one it is done here; another error is no reason to do it again."""
        worker = Refusing()
        worker.error = OverloadedError()
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(surely(worker, int, "11", base=2))), 3)
        worker.error = ZeroDivisionError()
        self.failureResultOf(Deferred.fromCoroutine(surely(worker, int, "1")), ZeroDivisionError)


class StepsTests(PoolCase):
    """A generator in the pool."""

    def count(self, work: Work | None = None) -> Generator[int, None, None]:
        """Yields 1 and 2; `work` runs between them; `left` remembers the thread that left it."""
        self.left: list[int] = []
        try:
            yield 1
            if work is not None:
                work()
            yield 2
        finally:
            self.left.append(threading.get_ident())

    def step(self, steps: Steps[int]) -> int | None:
        """The next value."""
        result = steps.next()
        self.reactor.turn()
        return self.successResultOf(result)

    def test_values(self) -> None:
        """Each value comes when it is asked for, and None after the last; closing then does nothing."""
        steps = Steps(self.pool, self.count())
        self.assertEqual([self.step(steps) for _ in range(4)], [1, 2, None, None])
        self.successResultOf(Deferred.fromCoroutine(steps.close()))
        self.assertEqual(len(self.left), 1)

    def test_exception(self) -> None:
        """What the generator raises fails the step."""
        steps = Steps(Immediate(), (1 // n for n in (1, 0)))
        self.assertEqual(self.successResultOf(steps.next()), 1)
        self.failureResultOf(steps.next(), ZeroDivisionError)
        self.successResultOf(Deferred.fromCoroutine(steps.close()))

    def test_close_in_a_thread(self) -> None:
        """Closing leaves the generator in a thread of the pool, once."""
        steps = Steps(self.pool, self.count())
        self.step(steps)
        closed = Deferred.fromCoroutine(steps.close())
        self.reactor.turn()
        self.successResultOf(closed)
        self.successResultOf(Deferred.fromCoroutine(steps.close()))
        self.assertEqual(len(self.left), 1)
        self.assertNotEqual(self.left[0], threading.get_ident())

    def test_close_waits_for_the_step(self) -> None:
        """Closing while a step runs waits for its end, also when that step was cancelled."""
        work = Work()
        self.addCleanup(work.may_end.set)
        steps = Steps(self.pool, self.count(work))
        self.step(steps)
        running = steps.next()
        self.assertTrue(work.begun.wait(PATIENCE))
        self.assertRaises(RuntimeError, steps.next)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        closed = Deferred.fromCoroutine(steps.close())
        self.assertNoResult(closed)
        self.finish(work)
        self.assertNoResult(closed)
        self.reactor.turn()
        self.successResultOf(closed)
        self.assertEqual(len(self.left), 1)

    def test_close_without_a_thread(self) -> None:
        """Where no thread may be had the generator is closed all the same."""
        steps = Steps(self.pool, self.count())
        self.step(steps)
        self.successResultOf(self.pool.stop())
        self.successResultOf(Deferred.fromCoroutine(steps.close()))
        self.assertEqual(self.left, [threading.get_ident()])
