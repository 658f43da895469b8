"""What the operations of one connection work with: who asks, where things are done, what they share.

Changes go through the connection's lane, in the order of their frames. Reads begin when the changes that
came before them are done, and run beside what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore

from fileexport.exports import Exports
from fileexport.jobs import Jobs
from fileexport.lanes import Lane
from fileexport.pools import Steps, Worker
from fileexport.tokens import Principal
from fileexport.transfer_streams import Stream
from fileexport.wire import messages as m

P = ParamSpec("P")
T = TypeVar("T")

#: Messages with their bytes of content; an empty tuple between two gives others their turn.
Answers = Generator[tuple[m.Message, int] | tuple[()], None, None]

#: Reads of one connection that are in a thread at a time, so that others find one free; and its listings and
#: the like that are begun and not ended: each keeps names.
READS = 4
#: Compressed pieces of one connection that wait to be sent, or are made: as many as one file has.
PACKED = 2
#: Steps of copying of one connection that are in its lane: nothing else waits there for more than one.
COPIES = 1


class Rooms(Protocol):
    """The rooms behind the door; they are there before the first operation."""

    @property
    def jobs(self) -> Jobs: ...


class Beside:
    """So many places of a worker: the others wait here, the first one first."""

    def __init__(self, worker: Worker, places: int) -> None:
        self._worker = worker
        self._places = DeferredSemaphore(places)

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Fires with the function's result or its exception."""
        return self._places.run(self._worker.run, function, *args, **kwargs)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes: of a file that comes in, and of each of its DATA frames but the last."""

    file_size: int = 1 << 40
    min_chunk: int = 512


@dataclass(frozen=True, slots=True)
class Desk:
    """What the operations of one connection work with. `holder` is what others read who find a path busy.

    `heavy` is for steps that take more than a moment: they never have all threads of `reads`.
    """

    reactor: Any
    who: Principal
    holder: str
    exports: Exports
    rooms: Rooms
    lane: Lane
    reads: Worker
    heavy: Worker
    limits: Limits
    walks: DeferredSemaphore = field(default_factory=lambda: DeferredSemaphore(READS))
    packs: DeferredSemaphore = field(default_factory=lambda: DeferredSemaphore(PACKED))
    copies: DeferredSemaphore = field(default_factory=lambda: DeferredSemaphore(COPIES))

    async def change(
        self, stream: Stream, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call the function in the lane, unless nobody wants it any more."""
        result: T = await self.lane.put(stream.guarded(function, *args, **kwargs))
        return result

    async def read(self, stream: Stream, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in a thread when the changes that came before are done."""
        await self.lane.settled()
        result: T = await self.reads.run(stream.guarded(function, *args, **kwargs))
        return result

    async def answer(
        self, stream: Stream, answers: Answers, worker: Worker, end: Callable[[], m.End] = m.End
    ) -> None:
        """Say what a generator yields, as fast as the client takes it, and END; its steps run in `worker`.

        `end` is asked for the last word when all has been said.
        """
        await self.lane.settled()
        async with self.walks:
            stream.check()
            steps = Steps(worker, answers)
            try:
                while (found := await steps.next()) is not None:
                    if found:
                        await stream.say_when_free(*found)
            finally:
                await steps.close()
        stream.say(end())
