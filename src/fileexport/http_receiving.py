"""Bodies that are stored while they come: from a request to a function that writes, piece by piece.

A piece is written in a thread while the next arrives. Nobody reads ahead of the disk: of each body no more
than two pieces are in memory, and of all of them together no more than a budget, and what arrived at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fileexport.errors import OverloadedError
from fileexport.pools import Worker
from fileexport.tokens import Principal
from fileexport.web.failures import HttpError
from fileexport.web.request import Request

#: Bodies that are taken in at once; one more is asked to come back.
MAX_BODIES = 256
#: Bytes that wait for the piece before them to be written, until no more is asked for; one read of the
#: connection may come on top.
MAX_WAITING = 512 << 10
#: What a piece takes beside its bytes: a client may send one byte at a time.
PIECE_COST = 64
#: Bytes of all bodies in memory; beyond it each has one piece at a time.
BUDGET = 64 << 20

#: Takes a piece; called in a thread, one piece after the other. Where it returns True it has more to do with
#: it, and is called again, without content, when it is its turn.
Take = Callable[[bytes], object]


def holder_of(request: Request, who: Principal) -> str:
    """What others read who find a path busy that this request writes."""
    return f"{who.name} from {request.client or 'a UNIX socket'}"


def check_length(request: Request, limit: int) -> int | None:
    """How long the body is that is announced, None where that is not said; 413 for more than `limit`."""
    length = request.head.length
    if length is not None and length > limit:
        raise too_large(limit)
    return length


def too_large(limit: int) -> HttpError:
    """The answer to a file that is longer than `limit` bytes."""
    sentence = f"a file of more than {limit} bytes is not taken"
    return HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)


def refuse_coding(request: Request) -> None:
    """Raise 415 for a body in a coding: what is stored is what was sent, and nobody could tell that it is."""
    codings = b",".join(request.fields(b"content-encoding")).strip().lower()
    if codings not in (b"", b"identity"):
        sentence = "send the content as it is, without a Content-Encoding"
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, sentence, ((b"Accept-Encoding", b"identity"),))


class Receiver:
    """Takes the bodies in of all requests of a daemon; `worker` is where they are written."""

    def __init__(self, worker: Worker, most: int = MAX_BODIES) -> None:
        self._worker = worker
        self._most = most
        #: Bodies that are under way, and their bytes in memory.
        self.open = 0
        self.held = 0

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place for one body; ask for it before you begin. Raises `OverloadedError` where all are taken."""
        if self.open >= self._most:
            raise OverloadedError
        self.open += 1
        try:
            yield Place(self, self._worker)
        finally:
            self.open -= 1


class Place:
    """The place of a request whose body is stored: see `Receiver.place`."""

    def __init__(self, receiver: Receiver, worker: Worker) -> None:
        self._receiver = receiver
        self._worker = worker

    async def receive(self, request: Request, take: Take, *, limit: int | None = None) -> int:
        """Hand the rest of the request's body to `take`, piece by piece; how many bytes that were.

        A client that waits for 100 gets it now. When this returns or raises, no call of `take` runs, and
        there will be none; all that came was handed to it, unless it raised. Raises what `take` did,
        `PeerGone`, `MalformedRequest` (400, 408), 413 for more than `limit` bytes, and `OverloadedError`
        where there is no thread to be had: what is left of the body is not read then, and the connection ends
        with the answer.
        """
        flow = _Flow(self._receiver, self._worker, take)
        request.wire.stream()
        count = 0
        try:
            while piece := await request.wire.receive():
                count += len(piece)
                if limit is not None and count > limit:
                    raise too_large(limit)
                flow.put(piece)
                await flow.room()
        finally:
            await flow.ended()
        flow.check()
        return count


class _Flow:
    """Pieces on their way into a thread: one is written, the others wait to be the next one."""

    def __init__(self, receiver: Receiver, worker: Worker, take: Take) -> None:
        self._receiver = receiver
        self._worker = worker
        self._take = take
        self._waiting: list[bytes] = []
        self._size = 0
        self._is_writing = False
        self._problem: Failure | None = None
        #: Whoever waits for a write to end.
        self._turn: Deferred[None] | None = None

    def put(self, piece: bytes) -> None:
        """Have it written after those before it. Raises what kept one of them from being written."""
        self.check()
        cost = len(piece) + PIECE_COST
        self._waiting.append(piece)
        self._size += cost
        self._receiver.held += cost
        self._begin()

    async def room(self) -> None:
        """Wait until more may come. Raises what kept a piece from being written."""
        while self._is_full and self._problem is None:
            await self._written()
        self.check()

    async def ended(self) -> None:
        """Wait until nothing is written any more."""
        while self._is_writing:
            await self._written()

    def check(self) -> None:
        """Raise what kept a piece from being written."""
        if self._problem is not None:
            self._problem.raiseException()

    @property
    def _is_full(self) -> bool:
        short = self._receiver.held > BUDGET
        return self._is_writing if short else self._size >= MAX_WAITING

    def _written(self) -> Deferred[None]:
        """Fires when the write has ended that is under way."""
        self._turn = Deferred()
        return self._turn

    def _begin(self) -> None:
        if self._is_writing or self._problem is not None or not self._waiting:
            return
        pieces, size = self._waiting, self._size
        self._waiting, self._size = [], 0
        self._is_writing = True
        self._hand(pieces, size)

    def _hand(self, pieces: list[bytes], size: int) -> None:
        self._worker.run(_hand, self._take, pieces).addBoth(self._ended_one, size)

    def _ended_one(self, outcome: object, size: int) -> None:
        if outcome is True:
            # Others had to wait for the thread long enough.
            self._hand([b""], size)
            return
        self._is_writing = False
        self._receiver.held -= size
        if isinstance(outcome, Failure):
            self._problem = outcome
            # Nobody wants these any more.
            self._receiver.held -= self._size
            self._waiting, self._size = [], 0
        self._begin()
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.callback(None)


def _hand(take: Take, pieces: list[bytes]) -> object:
    return take(pieces[0] if len(pieces) == 1 else b"".join(pieces))
