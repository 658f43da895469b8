"""A private reactor in a thread of its own: started, asked, stopped, and nothing of it is left behind.

The global reactor is neither used nor made, so the application's own is not in the way, whichever it is.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar, overload

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds after which a thread that waits for the end looks whether a signal has come.
_NAP = 0.5
_ITSELF = "the reactor's thread cannot wait for itself"


class ReactorEnded(RuntimeError):
    """The reactor's thread does not run, or ended before there was a result."""


class Latch:
    """Something that happens once. Who waits for it may be interrupted anywhere, and holds up nobody.

    `threading.Event` can keep its lock taken where a signal's exception comes just then: whoever sets it
    waits for ever. Here the one who sets takes no lock.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def set(self) -> None:
        """It has happened; only one thread may say so, as often as it likes."""
        if not self.is_set:
            self.is_set = True
            self._lock.release()

    def wait(self) -> None:
        """Wait until it has happened."""
        # Not for ever: a signal that comes just before the main thread sleeps is heard by Python when it
        # wakes up, and one who was interrupted may have kept the lock.
        while not self.is_set:
            if self._lock.acquire(timeout=_NAP):
                self._lock.release()


class _Result:
    """What a call comes to, told by one thread to one that waits."""

    def __init__(self) -> None:
        self._is_there = Latch()
        self._value: Any = None
        self._error: BaseException | None = None

    def set(self, value: Any = None, error: BaseException | None = None) -> None:
        """It has come to a value, or to an error."""
        self._value, self._error = value, error
        self._is_there.set()

    def wait(self) -> Any:
        """The value, when it is there. Raises the error."""
        self._is_there.wait()
        if self._error is not None:
            raise self._error
        return self._value


class ReactorThread:
    """A reactor in a thread: begins by `start`, ends by `stop` or `leave`, and has one run.

    - `reactor` is the reactor; None before `start`. It takes no signals, and never becomes the global one.
    - The thread, and all that it begins, are daemonic: a program that ends does not wait for them.
    - A fork does not take the thread along: in the new process it does not run, and nothing waits for it.

    All methods may be called in any thread, `leave` in a signal handler as well.
    """

    def __init__(self, name: str) -> None:
        """`name` is for the thread."""
        self.reactor: Any = None
        self._name = name
        # Reentrant, for signal handlers that run while their own thread is in here.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None  # that was started
        self._started = Latch()
        self._ended = Latch()
        self._refused: BaseException | None = None
        self._is_open = self._is_leaving = False
        self._waiting: set[_Result] = set()
        self._process = os.getpid()

    @property
    def is_inside(self) -> bool:
        """Whether the caller runs in this thread."""
        return self._is_ours and threading.current_thread() is self._thread

    @property
    def is_running(self) -> bool:
        """Whether the thread runs: from `start` on until nothing of it is left."""
        return self._thread is not None and not self._ended.is_set and self._is_ours

    def start(self) -> None:
        """Start the thread; its reactor turns when this returns.

        Raises RuntimeError when it was started before or the system gives no thread, and OSError when it
        gives no descriptors; nothing is left then.
        """
        with self._lock:
            if self._thread is not None:
                raise RuntimeError("a reactor's thread has one run")
            self._started, self._ended, self._refused = Latch(), Latch(), None
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            # By another thread: `Thread.start` waits for an Event, and a signal would interrupt it here.
            _thread.start_new_thread(self._launch, (self._thread,))
            self._started.wait()
        except RuntimeError:
            self._thread = None
            raise
        except BaseException:
            # An interrupted start: the thread runs, or is about to.
            self.leave()
            raise
        if self._refused is not None:
            if self._thread.ident is None:
                self._thread = None
            else:
                self._thread.join()
            raise self._refused

    @overload
    def call(self, function: Callable[P, Deferred[T]], *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    def call(self, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function in the reactor's thread, and wait for what it returns, a Deferred's result too.

        Raises what it raises, `ReactorEnded` when the thread does not run or ends before there is a result,
        and RuntimeError when it is the caller's own. An exception in the caller, as by Ctrl-C, ends the
        waiting only.
        """
        if self.is_inside:
            raise RuntimeError(_ITSELF)
        if not self._is_ours:
            raise ReactorEnded
        result = _Result()
        with self._lock:
            if not self._is_open:
                raise ReactorEnded
            self._waiting.add(result)
            self.reactor.callFromThread(self._carry_out, result, function, args, kwargs)
        return result.wait()

    def leave(self) -> None:
        """Ask the reactor to stop, and do not wait; nothing happens when it does not run.

        Its shutdown triggers run first, and Deferreds that they return are waited for.
        """
        if not self._is_ours:
            return  # nobody may be left here who lets go of the lock
        with self._lock:
            self._is_leaving = self._thread is not None
            if self._is_open:
                self.reactor.callFromThread(self._stop)

    def join(self) -> None:
        """Wait until the thread has ended; one that was not started has.

        Raises RuntimeError in the thread itself.
        """
        if self.is_inside:
            raise RuntimeError(_ITSELF)
        if self._thread is not None and self._is_ours:
            # An interrupted `Thread.join` may take a thread for ended that is not.
            self._ended.wait()
            if self._thread.ident is not None:
                self._thread.join()

    def stop(self) -> None:
        """`leave` and `join`: afterwards neither a thread nor a descriptor of the reactor's is there.

        Raises RuntimeError in the thread itself, which stops nevertheless.
        """
        self.leave()
        self.join()

    @property
    def _is_ours(self) -> bool:
        """Whether this is the process that has made it."""
        return self._process == os.getpid()

    def _launch(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except BaseException as error:
            self._refuse(error)

    def _refuse(self, error: BaseException) -> None:
        self._refused = error
        self._ended.set()
        self._started.set()

    def _run(self) -> None:
        try:
            # Here, and not in `start`: no signal's handler interrupts what this thread does.
            reactor = self.reactor = _Reactor()
        except BaseException as error:
            return self._refuse(error)
        reactor.callWhenRunning(self._started.set)
        with self._lock:
            self._is_open = True
            if self._is_leaving:
                self.leave()
        try:
            reactor.run(installSignalHandlers=False)
        finally:
            self._close()

    def _close(self) -> None:
        with self._lock:
            # Calls that came too late to be carried out are told so, and further ones refused.
            self._is_open = False
            waiting, self._waiting = self._waiting, set()
        self.reactor.close()
        for result in waiting:
            result.set(error=ReactorEnded())
        self._started.set()
        self._ended.set()

    def _carry_out(
        self, result: _Result, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> None:
        def take(outcome: Any) -> None:
            with self._lock:
                if result not in self._waiting:
                    return  # it was told of the end
                self._waiting.discard(result)
            if isinstance(outcome, Failure):
                result.set(error=outcome.value)
            else:
                result.set(outcome)

        maybeDeferred(function, *args, **kwargs).addBoth(take)

    def _stop(self) -> None:
        with suppress(ReactorNotRunning):  # somebody else asked as well
            self.reactor.stop()


class _Reactor(EPollReactor):
    """A reactor whose own descriptors can be closed: Twisted leaves them to the end of the process."""

    # Whoever asks Twisted for its "I/O thread" means the application's.
    _registerAsIOThread = False

    def __init__(self) -> None:
        self._waking = threading.RLock()
        try:
            super().__init__()
        except BaseException:
            if hasattr(self, "_poller"):
                self._poller.close()
            raise

    def wakeUp(self) -> None:
        """Make it look at what other threads have left for it; nothing happens when it is closed."""
        # Not without the lock: the number of a closed descriptor is soon another file's.
        with self._waking:
            if self.waker is not None:
                self.waker.wakeUp()

    def close(self) -> None:
        """Give the descriptors back, after the run."""
        with self._waking:
            waker, self.waker = self.waker, None
            if waker is not None:
                self.removeReader(waker)
                waker.connectionLost(None)
        self._poller.close()
