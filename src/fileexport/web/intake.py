"""The body of one request on its way to the answer that reads it, and how long that may take.

A body that is kept in memory has its time as a whole. One that is stored on the way may be as long as it
likes: its sender has to keep sending, and the time in which we do not ask counts for nobody.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from fileexport.web.body import Body, body_of
from fileexport.web.head import Head

#: Bytes of a body that no route reads: more are refused.
MAX_IGNORED_BODY = 64 * 1024
#: Bytes of one read from the socket while a body is streamed: each is a way to a thread and back, which costs
#: more than to copy them.
READ_SIZE = 1024 * 1024
#: Bytes of a streamed body after which its sender has all the time again.
STEP = 4096


class Ignored:
    """The body of a request that nobody reads: it is passed over, to a bound."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self._body = body_of(head.length)
        self._count = 0

    @property
    def is_oversized(self) -> bool:
        """Whether it is longer than is passed over."""
        return self._count > MAX_IGNORED_BODY

    @property
    def rest(self) -> bytes:
        """What arrived behind its end."""
        return self._body.rest

    def feed(self, data: bytes) -> bool:
        """Take what arrived; whether it is over, or oversized. Raises `MalformedRequest`."""
        self._count += len(self._body.feed(data))
        return self._body.done or self.is_oversized


class Intake:
    """One body. Its pieces are asked for one at a time; the connection gives what arrives.

    It has so many `seconds` from `now`; where it is streamed, for each `STEP` bytes.

    - `deadline`: when what is asked for must have come, in the reactor's seconds; None: nobody asks.
    - `waits`: whether the client waits to be told that its body is wanted.
    """

    def __init__(self, body: Body, now: float, *, seconds: float, waits: bool) -> None:
        self.waits = waits
        self.deadline: float | None = None
        self.is_streamed = False
        self._body = body
        self._seconds = seconds
        self._until = now + seconds
        self._receiver: Deferred[bytes] | None = None
        # Of a streamed body: seconds that are left for the present step, and its bytes that have come.
        self._left = seconds
        self._came = 0
        self._asked = 0.0
        #: What reads from the socket, and how much it did at a time before.
        self._reader: Any = None
        self._usual = 0

    @property
    def is_done(self) -> bool:
        """Whether the body has come to its end."""
        return self._body.done

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for a piece."""
        return self._receiver is not None

    @property
    def rest(self) -> bytes:
        """What arrived behind the end of the body."""
        return self._body.rest

    def stream(self, transport: Any) -> None:
        """Let the body be as long as it likes, and be read in large pieces until `end`."""
        if self.is_streamed:
            return
        self.is_streamed = True
        # The socket's own transport reads; that of TLS stands on it.
        reader = getattr(transport, "transport", transport)
        usual = getattr(reader, "bufferSize", None)
        if usual is not None:
            self._reader, self._usual = reader, usual
            reader.bufferSize = READ_SIZE

    def end(self) -> None:
        """The request was answered."""
        if self._reader is not None:
            self._reader.bufferSize = self._usual

    def want(self, now: float) -> Deferred[bytes]:
        """Fires with the next piece, empty at the end; fails as `fail` says."""
        self._receiver = receiver = Deferred[bytes]()
        self._asked = now
        self.deadline = now + self._left if self.is_streamed else self._until
        return receiver

    def feed(self, data: bytes, now: float) -> bytes:
        """Take what arrived; return the content in it. Raises `MalformedRequest`."""
        piece = self._body.feed(data)
        if self.is_streamed:
            self._count(len(piece), now)
        return piece

    def _count(self, size: int, now: float) -> None:
        self._came += size
        self._left -= now - self._asked
        self._asked = now
        if self._came >= STEP:
            self._came, self._left = 0, self._seconds
        self.deadline = now + self._left

    def give(self, piece: bytes) -> None:
        """Hand a piece to who waits."""
        receiver = self._settle()
        if receiver is not None:
            receiver.callback(piece)

    def fail(self, error: Exception) -> None:
        """Tell who waits that no more comes."""
        receiver = self._settle()
        if receiver is not None:
            receiver.errback(error)

    def _settle(self) -> Deferred[bytes] | None:
        self.deadline = None
        receiver, self._receiver = self._receiver, None
        return receiver
