"""One operation of the transfer protocol as its coroutine sees it: what comes, what goes, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fileexport.errors import JobCancelled, PeerGone
from fileexport.transfer_output import LEAST, Output, Pace
from fileexport.wire.frames import Data
from fileexport.wire.messages import Copy, End, Files, Message, Offer, Open, Write
from fileexport.wire.session import Received, Session
from fileexport.wire.zstd import MAX_CONTENT

T = TypeVar("T")

#: What operations do with what came: a list of `Data` and `Copy`, or of `Files`, and the bytes that it keeps.
Consumer = Callable[[list[Any], int], Deferred[Any]]

#: What the objects around a piece of content, or around a small file, take beside its bytes; and a range.
KEPT, KEPT_RANGE = 512, 192
#: Bytes that are kept until they are handed over, also in the midst of a turn.
_MOST_KEPT = 2 << 20
#: More bytes than a message has beside its rows, and than the fields around a path, a text or content.
FIELDS = 64


class Cancelled(JobCancelled):
    """The client has cancelled the operation."""


class Stream:
    """One operation that is under way.

    `gone` says why nobody wants its result any more; `check` raises that, also in other threads.
    """

    def __init__(self, number: int, operation: Open, session: Session, output: Output, now: float) -> None:
        self.number = number
        self.operation = operation
        self.begun = now
        #: Payload bytes of content that were sent or received, compressed as they were.
        self.moved = 0
        #: How the client's content gets on.
        self.pace = Pace(now)
        self.gone: Exception | None = None
        self._session = session
        self._output = output
        self._consumer: Consumer | None = None
        self._on_gone: Callable[[Exception], object] | None = None
        #: What came since it was last handed over, its bytes of credit, and the bytes that it keeps.
        self._came: list[Any] = []
        self._size = self._kept = 0
        #: Calls of the operation that have not ended, each for content or for what must come before it.
        self._working = 0
        #: Whether what came is more work than its bytes say.
        self._is_much = False
        self._end: End | None = None
        self._awaited: Deferred[End] | None = None
        self._waits: set[Deferred[Any]] = set()

    # -- for the operation

    def check(self) -> None:
        """Raise `Cancelled`, `PeerGone`, or what else has ended the operation. Any thread may call it."""
        if self.gone is not None:
            raise self.gone

    def guarded(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], Any]:
        """The call of a function that `check` comes before: nobody begins what nobody wants any more."""

        def call() -> Any:
            self.check()
            return function(*args, **kwargs)

        return call

    def receive(self, consumer: Consumer) -> None:
        """Have `consumer` called with the `Data` and `Copy`, or `Files`, that come.

        It fires when those are dealt with.
        """
        self._consumer = consumer

    def on_gone(self, function: Callable[[Exception], object]) -> None:
        """Have the function called with the reason, once, when nobody wants the result any more.

        What it puts into the lane stands before all that the client says after that.
        """
        self._on_gone = function

    def working(self, work: Deferred[T]) -> Deferred[T]:
        """Work of ours, which the client's content waits for: the client is not late meanwhile."""
        self._working += 1
        return work.addBoth(self._worked)

    async def ended(self) -> End:
        """The client's END; raises as `check`, and what the consumer failed with."""
        self.check()
        if self._end is not None:
            return self._end
        self._awaited = awaited = Deferred[End]()
        return await awaited

    def say(self, message: Message) -> None:
        """Send a message. Raises as `check`, and `ValueError` where it is too long."""
        self.check()
        self._session.send(message, self.number)
        self._output.flush_soon()

    async def say_when_free(self, message: Message, size: int = 0) -> None:
        """Send one of many messages, `size` bytes of content: when the client takes it."""
        await self.room(size)
        self.say(message)
        self._count(size)

    async def room(self, size: int) -> None:
        """Wait until the client takes `size` bytes of content at once."""
        self.check()
        await self._output.room(self.number, size)

    async def credit(self, size: int) -> None:
        """Wait until the client has given credit for `size` bytes of content."""
        self.check()
        if self._session.credit(self.number) < size:
            await self.room(size)

    async def send_span(self, descriptor: int, start: int, stop: int) -> None:
        """Send a part of a file as `Output.send_span` does."""
        self.check()
        await self._output.send_span(self.number, descriptor, start, stop, self._count)

    async def send_packed(self, payload: bytes) -> None:
        """Send a compressed frame."""
        self.check()
        await self._output.send_packed(self.number, payload, self._count)

    async def wait(self, deferred: Deferred[Any]) -> Any:
        """Wait for a Deferred that is cancelled when nobody wants its result any more."""
        self.check()
        self._waits.add(deferred)
        try:
            return await deferred
        finally:
            self._waits.discard(deferred)

    @property
    def shrinks(self) -> bool:
        """Whether both sides compress content."""
        return "zstd" in self._session.features

    def most(self, wanted: int) -> int:
        """Bytes of rows in one message, at most `wanted`: so many the client takes at once."""
        limit = self._offer.control - FIELDS
        return min(wanted, limit, self._offer.stream_credit, self._offer.connection_credit)

    def most_packed(self, wanted: int) -> int:
        """The same for one frame of compressed DATA, which cannot be made shorter.

        A client may keep credit back until half a window is owed: more would wait for ever.
        """
        offer = self._offer
        return min(wanted, offer.data, offer.stream_credit // 2, offer.connection_credit // 2)

    @property
    def _offer(self) -> Offer:
        assert self._session.peer is not None
        return self._session.peer.limits

    # -- for the connection

    def is_late(self, now: float) -> bool:
        """Whether the client should have sent more than it has: we could have taken it."""
        if self._working or not self._session.receivable(self.number):
            self.pace.begin(now)
        return self._consumer is not None and self._end is None and self.pace.is_over(now)

    @property
    def outlives(self) -> bool:
        """Whether what the client has sent is still of use where its connection breaks.

        Nobody works for one that is gone on what nobody can continue, nor on megabytes packed into nothing or
        copied from elsewhere.
        """
        operation = self.operation
        return isinstance(operation, Write) and operation.source is not None and not self._is_much

    def content(self, found: Data | Received, size: int, now: float) -> None:
        """Content came, which takes `size` bytes of credit; `hand_over` brings it to the operation."""
        if self.gone is not None or self._consumer is None:
            return
        self._count(size)
        self._size += size
        if isinstance(found, Data):
            self.pace.moved(size, now)
            # What is compressed keeps little, and is much work.
            self._kept += KEPT + (MAX_CONTENT if found.compressed and found.first else size)
            self._is_much |= found.compressed
            self._came.append(found)
        elif isinstance(found.message, Files):
            # However small: they are committed, and hold nothing then.
            self.pace.moved(LEAST, now)
            self._kept += size + KEPT * len(found.message.files)
            self._came.append(found.message)
        elif isinstance(found.message, Copy):
            # So much content we need not be sent.
            self.pace.moved(sum(one.size for one in found.message.ranges), now)
            self._kept += KEPT + KEPT_RANGE * len(found.message.ranges)
            self._is_much = True
            self._came.append(found.message)
        if self._kept >= _MOST_KEPT:
            self.hand_over()

    def hand_over(self) -> None:
        """Give what came to the operation, all at once: a piece for itself costs more than writing it."""
        came, size, kept = self._came, self._size, self._kept
        self._came, self._size, self._kept = [], 0, 0
        if came and self.gone is None and self._consumer is not None:
            work = self._consumer(_alone(came), kept)
            self.working(work).addCallbacks(self._consumed, self._failed, callbackArgs=(size,))

    def end(self, end: End) -> None:
        """The client has sent all."""
        self.hand_over()
        self._end = end
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.callback(end)

    def give_up(self, error: Exception) -> None:
        """End the operation: the first reason counts."""
        if self.gone is not None:
            return
        self.gone = error
        if self._on_gone is not None:
            self._on_gone(error)
        self._output.drop(self.number, error)
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.errback(error)
        self.hurry()

    def hurry(self) -> None:
        """Wait for nothing that takes its time: who waits answers with what is."""
        for wait in tuple(self._waits):
            wait.cancel()

    # -- inside

    def _count(self, size: int) -> None:
        self.moved += size

    def _worked(self, result: T) -> T:
        self._working -= 1
        return result

    def _consumed(self, result: object, size: int) -> None:
        self._session.consumed(self.number, size)
        self._output.flush_soon()

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        self.give_up(error if isinstance(error, Exception) else PeerGone())


def _alone(came: list[Any]) -> list[Any]:
    """Content that keeps little more than its own bytes: a piece is a view of all that came with it."""
    pieces = [one.piece for one in came if isinstance(one, Data)]
    if not pieces or 2 * sum(map(len, pieces)) >= memoryview(pieces[0].obj).nbytes:
        return came
    return [
        one._replace(piece=memoryview(bytes(one.piece))) if isinstance(one, Data) else one for one in came
    ]
