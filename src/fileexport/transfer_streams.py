"""One operation of the transfer protocol as its coroutine sees it: what comes, what goes, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fileexport.errors import JobCancelled, PeerGone
from fileexport.transfer_output import Output
from fileexport.wire.frames import Data
from fileexport.wire.messages import End, Message, Offer, Open
from fileexport.wire.session import Received, Session

#: Bytes of a message beside its rows.
_FIELDS = 64


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
        #: Bytes of content that were sent or received, and when the client last sent something.
        self.moved = 0
        self.heard = now
        self.gone: Exception | None = None
        self._session = session
        self._output = output
        self._consumer: Callable[[list[Any]], Deferred[Any]] | None = None
        #: What came since it was last handed over, and its bytes of credit.
        self._came: list[Any] = []
        self._size = 0
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

    def receive(self, consumer: Callable[[list[Any]], Deferred[Any]]) -> None:
        """Have `consumer` called with the `Data` or `Files` that come; it fires when those are dealt with."""
        self._consumer = consumer

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
        self.check()
        await self._output.room(self.number, size)
        self.say(message)

    async def send_span(self, descriptor: int, start: int, stop: int) -> None:
        """Send a part of a file as `Output.send_span` does."""
        self.check()
        await self._output.send_span(self.number, descriptor, start, stop)
        self.moved += stop - start

    async def send_packed(self, payload: bytes, size: int) -> None:
        """Send a compressed frame that holds `size` bytes of content."""
        self.check()
        await self._output.send_packed(self.number, payload)
        self.moved += size

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
        limit = self._offer.control - _FIELDS
        return min(wanted, limit, self._offer.stream_credit, self._offer.connection_credit)

    def most_data(self, wanted: int) -> int:
        """The same for one frame of DATA."""
        offer = self._offer
        return min(wanted, offer.data, offer.stream_credit, offer.connection_credit)

    @property
    def _offer(self) -> Offer:
        assert self._session.peer is not None
        return self._session.peer.limits

    @property
    def is_wanted(self) -> bool:
        """Whether what has come shall be kept, also where its sender was lost on the way. For any thread."""
        return self.gone is None or isinstance(self.gone, PeerGone | TimeoutError)

    # -- for the connection

    @property
    def is_receiving(self) -> bool:
        """Whether the operation waits for content of the client."""
        return self._consumer is not None and self._end is None

    def content(self, found: Data | Received, size: int) -> None:
        """Content came, which takes `size` bytes of credit; `hand_over` brings it to the operation."""
        if self.gone is None and self._consumer is not None:
            self.moved += size
            self._size += size
            self._came.append(found if isinstance(found, Data) else found.message)

    def hand_over(self) -> None:
        """Give what came to the operation, all at once: a piece for itself costs more than writing it."""
        came, size = self._came, self._size
        self._came, self._size = [], 0
        if came and self.gone is None and self._consumer is not None:
            self._consumer(came).addCallbacks(self._consumed, self._failed, callbackArgs=(size,))

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

    def _consumed(self, result: object, size: int) -> None:
        self._session.consumed(self.number, size)
        self._output.flush_soon()

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        self.give_up(error if isinstance(error, Exception) else PeerGone())
