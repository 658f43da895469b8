"""A private reactor in a thread of its own: started, asked, stopped, and nothing of it is left behind.

The global reactor is neither used nor made, so the application's own is not in the way, whichever it is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
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
        self._started = threading.Event()
        self._ended = threading.Event()
        self._refused: BaseException | None = None
        self._is_open = self._is_leaving = False
        self._waiting: set[Future[Any]] = set()
        self._process = os.getpid()

    @property
    def is_inside(self) -> bool:
        """Whether the caller runs in this thread."""
        return self._is_ours and threading.current_thread() is self._thread

    @property
    def is_running(self) -> bool:
        """Whether the thread runs: from `start` on until nothing of it is left."""
        return self._thread is not None and not self._ended.is_set() and self._is_ours

    def start(self) -> None:
        """Start the thread; its reactor turns when this returns.

        Raises RuntimeError when it was started before or the system gives no thread, and OSError when it
        gives no descriptors; nothing is left then.
        """
        with self._lock:
            if self._thread is not None:
                raise RuntimeError("a reactor's thread has one run")
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            self._thread.start()
            self._started.wait()
        except RuntimeError:
            self._thread = None
            raise
        except BaseException:
            # An interrupted start: the thread runs, or is about to.
            self.leave()
            raise
        if self._refused is not None:
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
        result: Future[Any] = Future()
        with self._lock:
            if not self._is_open:
                raise ReactorEnded
            self._waiting.add(result)
            self.reactor.callFromThread(self._carry_out, result, function, args, kwargs)
        return result.result()

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
            # An interrupted `Thread.join` may take a thread for ended that is not. And not for ever: a signal
            # that comes just before the main thread sleeps is heard by Python when it wakes up.
            while not self._ended.wait(_NAP):
                pass
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

    def _run(self) -> None:
        try:
            # Here, and not in `start`: no signal's handler interrupts what this thread does.
            reactor = self.reactor = _Reactor()
        except BaseException as error:
            self._refused = error
            self._ended.set()
            self._started.set()
            return
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
            result.set_exception(ReactorEnded())
        self._started.set()
        self._ended.set()

    def _carry_out(
        self, result: Future[Any], function: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> None:
        def take(outcome: Any) -> None:
            with self._lock:
                if result not in self._waiting:
                    return  # it was told of the end
                self._waiting.discard(result)
            if isinstance(outcome, Failure):
                result.set_exception(outcome.value)
            else:
                result.set_result(outcome)

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
