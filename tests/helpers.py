"""What several tests share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import StringTransport

from fileexport.testing import Immediate as Immediate

P = ParamSpec("P")
T = TypeVar("T")


class Held:
    """A worker whose work is done when the test says so."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], object]] = []

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        result: Deferred[T] = Deferred()
        self._waiting.append(lambda: execute(partial(function, *args, **kwargs)).chainDeferred(result))
        return result

    def work(self) -> None:
        """Do all that waits."""
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            job()


class Refusing(Immediate):
    """A worker that does its work at once, or fails with `error` while there is one."""

    error: Exception | None = None

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return fail(self.error) if self.error else super().run(function, *args, **kwargs)


class SlowTransport(StringTransport):
    """A transport that takes what is written until its buffer is full, and empties it when it is told to."""

    def __init__(self, buffer: int = 64 << 10, wrote: Callable[[], object] = lambda: None) -> None:
        StringTransport.__init__(self)
        self.wrote = wrote
        self.buffer = buffer
        self.pending = 0
        self.highest = 0
        self.touched = 0

    def write(self, data: bytes) -> None:
        StringTransport.write(self, data)
        self.touched += 1
        self.wrote()
        self.pending += len(data)
        self.highest = max(self.highest, self.pending)
        if self.producer is not None and self.pending > self.buffer:
            self.producer.pauseProducing()

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def drain(self) -> None:
        """Take all that is in the buffer."""
        was_full, self.pending = self.pending > self.buffer, 0
        if self.producer is not None and was_full:
            self.producer.resumeProducing()

    def lose(self) -> None:
        """Lose the connection, as a transport tells its producer."""
        producer = self.registered()
        self.producer = None
        producer.stopProducing()

    def registered(self) -> IPushProducer:
        """The producer, which must be there."""
        if self.producer is None:
            raise AssertionError("no producer is registered")
        return IPushProducer(self.producer)
