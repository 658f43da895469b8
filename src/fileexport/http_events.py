"""What happens, told as it happens: Server-Sent Events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import Hashable

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds of silence after which a comment is sent, so that nothing on the way takes the stream for dead.
HEARTBEAT = 15.0
#: Things of which the latest news may wait for a slow reader; with more the oldest news are dropped.
MAX_PENDING = 1024

CONTENT_TYPE = b"text/event-stream; charset=utf-8"


def event(kind: str, data: object) -> bytes:
    """One event as it stands in the stream; `data` goes as JSON, which has no line ends of its own."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode("ascii"), msgspec.json.encode(data))


class EventStream:
    """Events for one reader, as `disk.sender.pump` takes them.

    Of each subject only the latest event waits: a reader that is slow misses steps, never the end. The
    first thing sent tells the reader to come back after two seconds when the stream breaks.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._pending: dict[Hashable, bytes] = {}
        self._ended = False
        self._reader: Deferred[bytes | None] | None = None
        self._beat: IDelayedCall | None = None
        self.tell(None, b"retry: 2000\n\n")

    def tell(self, subject: Hashable, text: bytes) -> None:
        """Send `text`, made by `event`, in the place of what still waits of this subject."""
        if self._ended:
            return
        self._pending.pop(subject, None)
        self._pending[subject] = text
        if len(self._pending) > MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        self._answer()

    def end(self) -> None:
        """Let the stream end when what waits has been sent; a second time does nothing."""
        self._ended = True
        self._answer()

    def next(self) -> Deferred[bytes | None]:
        """All that waits, or what comes next; None at the end."""
        if self._pending or self._ended:
            return succeed(self._taken())
        self._reader = Deferred()
        self._beat = self._clock.callLater(HEARTBEAT, self.tell, None, b":\n\n")
        return self._reader

    def close(self) -> Deferred[None]:
        """Nobody reads any more."""
        self._ended = True
        self._pending.clear()
        self._answer()
        return succeed(None)

    def _taken(self) -> bytes | None:
        pending, self._pending = self._pending, {}
        return b"".join(pending.values()) or None

    def _answer(self) -> None:
        reader, self._reader = self._reader, None
        beat, self._beat = self._beat, None
        if beat is not None and beat.active():
            beat.cancel()
        if reader is not None:
            reader.callback(self._taken())
