"""A reactor of its own in a thread of its own: asked, stopped, and nothing left."""

from __future__ import annotations

import os
import resource
import signal
import threading
from typing import NoReturn

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from fileexport.reactor_thread import Latch, ReactorEnded, ReactorThread
from tests.threads_case import ThreadsCase
from tests.watched import open_descriptors


def fail_with(error: BaseException) -> NoReturn:
    raise error


def no_thread(thread: threading.Thread) -> NoReturn:
    """What Python says where the system gives no thread."""
    raise RuntimeError("can't start new thread")


class Case(ThreadsCase):
    """Makes threads, which are stopped when the test is over."""

    def started(self) -> ReactorThread:
        thread = ReactorThread("test")
        thread.start()
        self.addCleanup(thread.stop)
        return thread


class CallTests(Case):
    """What the thread is asked."""

    def test_result(self) -> None:
        """A function is called in the thread, with its arguments, and its result comes back."""
        thread = self.started()
        self.assertEqual(thread.call(divmod, 17, 5), (3, 2))
        self.assertNotEqual(thread.call(threading.get_ident), threading.get_ident())
        self.assertEqual(thread.call(threading.current_thread).name, "test")
        self.assertEqual(thread.call(int, "11", base=2), 3)

    def test_deferred(self) -> None:
        """The result of a Deferred is waited for, and that of a coroutine."""
        thread = self.started()

        async def later() -> int:
            return await deferLater(thread.reactor, 0, lambda: 5)

        self.assertEqual(thread.call(deferLater, thread.reactor, 0, lambda: 4), 4)
        self.assertEqual(thread.call(lambda: succeed(3)), 3)
        self.assertEqual(thread.call(lambda: Deferred.fromCoroutine(later())), 5)

    def test_exceptions(self) -> None:
        """What the function raises, or its Deferred fails with, is raised; the thread goes on."""
        thread = self.started()
        for error in (ZeroDivisionError(), SystemExit(3), KeyboardInterrupt()):
            found = self.assertRaises(type(error), thread.call, fail_with, error)
            self.assertIs(found, error)
            found = self.assertRaises(
                type(error), thread.call, lambda e=error: deferLater(thread.reactor, 0, fail_with, e)
            )
            self.assertIs(found, error)
        self.assertEqual(thread.call(abs, -1), 1)

    def test_together(self) -> None:
        """Many threads may ask at once; each gets its own answer."""
        thread = self.started()
        found: dict[int, int] = {}

        def ask(number: int) -> None:
            found[number] = thread.call(deferLater, thread.reactor, 0, lambda: number * number)

        askers = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        self.assertEqual(found, {number: number * number for number in range(20)})

    def test_inside(self) -> None:
        """The thread cannot wait for itself, and knows that it is itself."""
        thread = self.started()
        self.assertFalse(thread.is_inside)
        self.assertTrue(thread.call(lambda: thread.is_inside))
        for wait in (lambda: thread.call(abs, -1), thread.join):
            self.assertRaises(RuntimeError, thread.call, wait)
        self.assertEqual(thread.call(abs, -1), 1)

    def test_not_running(self) -> None:
        """Before its start and after its end it takes no calls, and there is nothing to wait for."""
        thread = ReactorThread("test")
        self.check_idle(thread)
        thread.start()
        thread.stop()
        self.check_idle(thread)

    def check_idle(self, thread: ReactorThread) -> None:
        """It does not run."""
        self.assertRaises(ReactorEnded, thread.call, abs, -1)
        for harmless in (thread.leave, thread.join, thread.stop):
            harmless()
        self.assertFalse(thread.is_running)

    def test_end_while_waiting(self) -> None:
        """Who waits for a result when the thread ends is told that there will be none."""
        thread = self.started()
        never: Deferred[None] = Deferred()

        def begin() -> Deferred[None]:
            thread.leave()
            return never

        self.assertRaises(ReactorEnded, thread.call, begin)
        thread.join()
        never.callback(None)  # too late for everybody

    def test_interrupted(self) -> None:
        """An interrupted caller stops waiting; the thread goes on."""
        thread = self.started()
        never: Deferred[None] = Deferred()
        with self.interrupting() as interrupt:
            thread.call(lambda: (interrupt(), never)[1])
        self.assertEqual(thread.call(abs, -1), 1)


class RunTests(Case):
    """Start and end."""

    def test_one_run(self) -> None:
        """A thread has one run: it is not started twice, nor again."""
        thread = self.started()
        self.assertTrue(thread.is_running)
        self.assertRaises(RuntimeError, thread.start)
        self.assertTrue(thread.is_running)
        thread.stop()
        self.assertFalse(thread.is_running)
        self.assertRaises(RuntimeError, thread.start)

    def test_nothing_left(self) -> None:
        """Of a run no thread and no descriptor is left, the reactor's own pool and open sockets included."""

        def run() -> None:
            thread = ReactorThread("test")
            thread.start()
            done: Deferred[int] = Deferred()
            thread.reactor.callInThread(thread.reactor.callFromThread, done.callback, 7)
            self.assertEqual(thread.call(lambda: done), 7)
            self.assertEqual(thread.call(lambda: thread.reactor.resolve("127.0.0.1")), "127.0.0.1")
            thread.stop()

        self.unchanged(run)

    def test_several(self) -> None:
        """Several run at the same time, and none hears of the others' ends."""
        first, second, third = (self.started() for _ in range(3))
        self.assertEqual(len({thread.call(threading.get_ident) for thread in (first, second, third)}), 3)
        second.stop()
        self.assertEqual((first.call(abs, -1), third.call(abs, -3)), (1, 3))

    def test_shutdown(self) -> None:
        """What is to be done before the end is done, and waited for."""
        thread = self.started()
        done: list[str] = []

        async def close() -> None:
            for _ in range(3):
                await deferLater(thread.reactor, 0, done.append, "turn")

        thread.reactor.addSystemEventTrigger(
            "before", "shutdown", lambda: Deferred.fromCoroutine(close()).addErrback(self.fail)
        )
        thread.stop()
        self.assertEqual(len(done), 3)

    def test_leave(self) -> None:
        """The thread itself may ask for its end, more than once; others wait for it by joining."""
        thread = self.started()

        def leave_twice() -> int:
            thread.leave()
            thread.leave()
            return 5

        self.assertEqual(thread.call(leave_twice), 5)
        thread.join()
        self.assertFalse(thread.is_running)
        self.assertFalse(any(other.name == "test" for other in threading.enumerate()))

    def test_stopped_together(self) -> None:
        """Any number of threads may stop it at once."""
        thread = self.started()
        stoppers = [threading.Thread(target=thread.stop) for _ in range(5)]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join()
        self.assertFalse(thread.is_running)

    def test_join_interrupted(self) -> None:
        """Who waits for the end can be interrupted; the thread goes on."""
        thread = self.started()
        with self.interrupting() as interrupt:
            thread.reactor.callFromThread(interrupt)
            thread.join()
        self.assertEqual(thread.call(abs, -1), 1)

    def test_woken_late(self) -> None:
        """A thread that hands something over after the end touches no descriptor that is another's by now."""
        thread = self.started()
        thread.stop()
        thread.reactor.callFromThread(self.fail)
        thread.reactor.wakeUp()

    def test_fork(self) -> None:
        """In a forked process it does not run, and nothing waits for it."""
        thread = self.started()
        child = os.fork()
        if not child:
            try:
                signal.alarm(20)
                thread.stop()
                self.assertFalse(thread.is_running)
                self.assertRaises(ReactorEnded, thread.call, int)
                again = ReactorThread("child")
                again.start()
                again.stop()
                os._exit(0)
            finally:
                os._exit(1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(thread.call(int, "5"), 5)

    def test_interrupted_waiter(self) -> None:
        """One who waited and was interrupted, its lock in hand, holds up neither who sets nor who waits."""
        latch = Latch()
        latch.set()
        latch._lock.acquire()
        latch.set()
        latch.wait()
        self.assertTrue(latch.is_set)

    def test_no_descriptors(self) -> None:
        """Where the system gives no descriptors the start fails, and leaves nothing."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        for spare in (0, 1, 2):
            before = open_descriptors()
            numbers = sorted(map(int, before))
            free = [n for n in range(numbers[-1] + 4) if n not in numbers]
            resource.setrlimit(resource.RLIMIT_NOFILE, (free[spare], limits[1]))
            try:
                self.assertRaises(OSError, ReactorThread("test").start)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            self.assertEqual(open_descriptors(), before)

    def test_no_thread(self) -> None:
        """Where the system gives no thread the start fails and leaves nothing; it may be tried again."""
        thread = ReactorThread("test")
        before = open_descriptors()
        patch = self.patch(threading.Thread, "start", no_thread)
        self.assertRaises(RuntimeError, thread.start)
        patch.restore()
        self.assertEqual(open_descriptors(), before)
        self.assertFalse(thread.is_running)
        thread.stop()
        thread.start()
        self.addCleanup(thread.stop)
        self.assertEqual(thread.call(abs, -1), 1)
