"""What leaves a connection of the transfer protocol.

Content goes from a file onto the socket by sendfile(2) behind the header of each DATA frame, where the
transport is plain TCP; Python sees no byte of it then. Elsewhere it is read and written in slices. Between
a header and the end of its content nothing else may be written: `Output` sees to that for all streams.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from fileexport.disk.sender import PIECE, SLICE, STALL, Stalled, plain_socket
from fileexport.errors import ChangedWhileRead, PeerGone
from fileexport.wire.session import Session

#: Bytes of answers that a peer may leave unread before we stop to read what it asks.
MAX_UNSENT = 1 << 20
#: Bytes that must get on in `STALL` seconds: 1 KiB a second, so that nobody holds anything for hours.
LEAST = int(STALL) << 10


class Pace:
    """Whether something gets on that waits for the other side: `LEAST` bytes in `STALL` seconds."""

    __slots__ = ("_moved", "_since")

    def __init__(self, now: float) -> None:
        self.begin(now)

    def begin(self, now: float) -> None:
        """Count from now on: until now it was not the other side that we waited for."""
        self._since = now
        self._moved = 0

    def moved(self, count: int, now: float) -> None:
        """So many bytes got on."""
        self._moved += count
        if self._moved >= LEAST:
            self.begin(now)

    def is_over(self, now: float) -> bool:
        """Whether it was too slow."""
        return now - self._since > STALL


@dataclass(eq=False, slots=True)
class _Content:
    """Bytes on their way as DATA of one stream: of a file, or `payload` in one frame."""

    stream: int
    offset: int
    stop: int
    pace: Pace
    #: Is told how many bytes went.
    count: Callable[[int], object]
    descriptor: int = -1
    payload: bytes = b""
    #: Whether sendfile does not work for this file.
    by_hand: bool = False
    #: Why it is not wanted any more; the frame that has begun is sent to its end.
    dropped: Exception | None = None
    done: Deferred[None] = field(default_factory=Deferred)

    @property
    def needs(self) -> int:
        """The credit without which nothing of it can go."""
        return len(self.payload) or 1


@dataclass(eq=False, slots=True)
class _Waiter:
    """Somebody who has a message for a stream that takes `size` bytes of credit."""

    stream: int
    size: int
    since: float
    done: Deferred[None] = field(default_factory=Deferred)


@implementer(IPushProducer)
class Output:
    """All that leaves one connection: what the session has to say, and content behind its headers.

    Streams with content take turns, a frame each. `on_choked` is called with True when a peer leaves too many
    answers unread, and with False when it has taken them.
    """

    def __init__(
        self, session: Session, transport: Any, clock: IReactorTime, on_choked: Callable[[bool], object]
    ) -> None:
        self._session = session
        self._transport = transport
        self._clock = clock
        self._on_choked = on_choked
        self._plain: tcp.Server | None = plain_socket(transport)
        self._contents: deque[_Content] = deque()
        self._waiters: deque[_Waiter] = deque()
        #: The frame that is on its way by sendfile: whose it is, the rest of its header, its bytes left.
        self._current: _Content | None = None
        self._head = b""
        self._left = 0
        #: Bytes that the transport has not handed on, so far as it tells.
        self._unsent = 0
        self._choked = self._paused = self._scheduled = self._pumping = self._ended = False
        #: Whether there is nothing that the peer should take, and how it takes what there is.
        self._idle = True
        self._pace = Pace(clock.seconds())
        # A pull producer of plain TCP is asked each time the transport's buffer is empty. TLS would run
        # one on the global Cooperator, which stands still under a private reactor.
        transport.registerProducer(self, self._plain is None)

    # -- what others call

    def flush(self) -> None:
        """Write what the session has to say and what may go; nothing while a frame is on its way."""
        self._scheduled = False
        if self._ended:
            return
        if self._current is None:
            self._write(self._session.take())
            self._pump()
        self._weigh()

    def flush_soon(self) -> None:
        """The same at the reactor's next turn, once for all that is said until then."""
        if not self._scheduled and not self._ended:
            self._scheduled = True
            self._clock.callLater(0, self.flush)

    def send_span(
        self, stream: int, descriptor: int, start: int, stop: int, count: Callable[[int], object]
    ) -> Deferred[None]:
        """Send a part of a file as DATA; fires when it was handed over, or must not be used any more.

        `count` is told of bytes as they go. The descriptor is not moved, and stays open until then. Fails
        with `ChangedWhileRead` where the file ends before `stop`, `OSError` as reading does, `Stalled` where
        next to no credit came for too long, `PeerGone`, and what `drop` was given. The connection can be used
        on after all of them but `PeerGone`.
        """
        return self._add(_Content(stream, start, stop, Pace(self._clock.seconds()), count, descriptor))

    def send_packed(self, stream: int, payload: bytes, count: Callable[[int], object]) -> Deferred[None]:
        """Send one compressed frame; the rest as `send_span`."""
        pace = Pace(self._clock.seconds())
        return self._add(_Content(stream, 0, len(payload), pace, count, payload=payload))

    def room(self, stream: int, size: int = 0) -> Deferred[None]:
        """Fires when a message may be said that takes `size` bytes of credit: now, not a turn later."""
        if self._ended:
            return fail(PeerGone())
        waiter = _Waiter(stream, size, self._clock.seconds())
        self._waiters.append(waiter)
        self._pump()
        return waiter.done

    def drop(self, stream: int, error: Exception) -> None:
        """A stream has ended: what is still to be sent on it fails."""
        for content in [one for one in self._contents if one.stream == stream]:
            if content is self._current:
                content.dropped = error
            else:
                self._finish(content, error)
        for waiter in [one for one in self._waiters if one.stream == stream]:
            self._give_up(waiter, error)

    def expire(self, now: float) -> bool:
        """Give up streams that got next to no credit for too long; True where the peer takes next to nothing.

        Who waits for the transport alone waits no longer than the transport does.
        """
        for content in tuple(self._contents):
            if content is self._current or self._session.credit(content.stream) >= content.needs:
                content.pace.begin(now)
            elif content.pace.is_over(now):
                self._finish(content, Stalled())
        for waiter in [one for one in self._waiters if now - one.since > STALL]:
            if self._session.credit(waiter.stream) < waiter.size:
                self._give_up(waiter, Stalled())
        return not self._idle and self._pace.is_over(now)

    def end(self) -> None:
        """Write what there is to be said, and nothing after it; whoever waits gets `PeerGone`."""
        if self._ended:
            return
        if self._current is None:
            self._write(self._session.take())
        self._transport.unregisterProducer()
        self.stopProducing()

    # -- what the transport calls

    def pauseProducing(self) -> None:
        """Its buffer is full."""
        self._paused = True
        self._idle = False
        self._pace.begin(self._clock.seconds())

    def resumeProducing(self) -> None:
        """Its buffer is empty."""
        self._paused = False
        if self._unsent:
            self._pace.begin(self._clock.seconds())
        self._unsent = 0
        self._pump()
        self._weigh()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._ended = True
        self._current = None
        for content in tuple(self._contents):
            self._finish(content, PeerGone())
        for waiter in tuple(self._waiters):
            self._give_up(waiter, PeerGone())

    # -- inside

    def _add(self, content: _Content) -> Deferred[None]:
        if self._ended:
            return fail(PeerGone())
        if content.offset >= content.stop:
            return succeed(None)
        self._contents.append(content)
        self._pump()
        return content.done

    def _write(self, *data: bytes) -> None:
        size = sum(map(len, data))
        if not size:
            return
        self._work()
        if self._plain is not None or self._paused:
            self._unsent += size
        self._transport.write(data[0] if len(data) == 1 else b"".join(data))

    def _work(self) -> None:
        """There is something to be taken."""
        if self._idle:
            self._idle = False
            self._pace.begin(self._clock.seconds())

    def _weigh(self) -> None:
        """Say whether too many answers wait: in the transport, or behind the frame that is on its way."""
        choked = self._unsent + self._session.unsent > MAX_UNSENT
        if choked != self._choked:
            self._choked = choked
            self._on_choked(choked)

    def _pump(self) -> None:
        """Send what can go now: messages first, then a frame of each stream in turn."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while not self._ended and self._step():
                pass
        finally:
            self._pumping = False

    def _step(self) -> bool:
        """Do one thing; False where the transport has to do the next one, or nothing can go."""
        if self._current is not None:
            return self._go_on_sending(self._current)
        if self._paused or (self._plain is not None and self._unsent):
            return False
        if said := self._session.take():
            self._write(said)
            return True
        while self._waiters and not self._scheduled and self._wake():
            pass
        content = self._next()
        if content is None or self._ended:
            self._idle = True
            return False
        self._begin(content)
        return True

    def _wake(self) -> bool:
        """Tell the first of those who can say something now."""
        for waiter in self._waiters:
            if not waiter.size or self._session.credit(waiter.stream) >= waiter.size:
                self._waiters.remove(waiter)
                waiter.done.callback(None)
                return True
        return False

    def _next(self) -> _Content | None:
        """The content whose turn it is; it goes behind the others."""
        for _ in range(len(self._contents)):
            content = self._contents[0]
            self._contents.rotate(-1)
            if self._session.credit(content.stream) >= content.needs:
                return content
        return None

    def _begin(self, content: _Content) -> None:
        """Send a frame, or begin with it."""
        stream, limits = content.stream, self._session.limits
        if content.payload:
            self._session.data_header(stream, len(content.payload), compressed=True)
            self._write(self._session.take(), content.payload)
            self._advance(content, len(content.payload))
            return
        size = min(content.stop - content.offset, self._session.credit(stream), limits.data)
        if self._plain is None or content.by_hand:
            self._send_slice(content, min(size, SLICE))
            return
        self._left = min(size, PIECE)
        self._session.data_header(stream, self._left)
        self._head = self._session.take()
        self._work()
        self._current = content

    def _send_slice(self, content: _Content, size: int) -> None:
        try:
            data = os.pread(content.descriptor, size, content.offset)
            if not data:
                raise _changed()
        except (OSError, ChangedWhileRead) as error:
            self._finish(content, error)
            return
        self._session.data_header(content.stream, len(data))
        self._write(self._session.take(), data)
        self._advance(content, len(data))

    def _go_on_sending(self, content: _Content) -> bool:
        """Put more of the present frame onto the socket; False where that has to wait for the next turn."""
        assert self._plain is not None
        try:
            if self._head:
                # Header and content shall leave in one packet.
                self._head = self._head[self._plain.socket.send(self._head, socket.MSG_MORE) :]
            sent = 0
            if not self._head:
                sent = os.sendfile(self._plain.fileno(), content.descriptor, content.offset, self._left)
                if not sent:
                    raise _changed()
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            self._plain.abortConnection()
            return False
        except (OSError, ChangedWhileRead) as error:
            self._fill_up(content, error)
            return False
        self._plain.startWriting()
        if sent:
            self._left -= sent
            self._pace.moved(sent, self._clock.seconds())
            if not self._left:
                self._current = None
            self._advance(content, sent)
        return False

    def _fill_up(self, content: _Content, error: Exception) -> None:
        """Send by hand the rest of the frame; what the file does not have is filled with zeros.

        The stream is reset then, and the connection goes on.
        """
        try:
            data = os.pread(content.descriptor, self._left, content.offset)
        except OSError as unreadable:
            data, error = b"", unreadable
        missing, self._left = self._left - len(data), 0
        self._current = None
        content.by_hand = True
        head, self._head = self._head, b""
        self._write(head, data, bytes(missing))
        if missing:
            self._finish(content, error)
        else:
            self._advance(content, len(data))

    def _advance(self, content: _Content, count: int) -> None:
        content.offset += count
        content.count(count)
        content.pace.moved(count, self._clock.seconds())
        if content is self._current:
            return
        if content.dropped is not None:
            self._finish(content, content.dropped)
        elif content.offset >= content.stop:
            self._finish(content)

    def _finish(self, content: _Content, error: Exception | None = None) -> None:
        self._contents.remove(content)
        if error is None:
            content.done.callback(None)
        else:
            content.done.errback(error)

    def _give_up(self, waiter: _Waiter, error: Exception) -> None:
        self._waiters.remove(waiter)
        waiter.done.errback(error)


def _changed() -> ChangedWhileRead:
    return ChangedWhileRead("the file became shorter while it was sent")


def hung_up(transport: Any) -> bool:
    """Whether the other end has closed, also while what it sent before is not read (Linux)."""
    fileno = getattr(transport, "fileno", None)
    if fileno is None or (descriptor := fileno()) < 0:
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return bool(poll.poll(0))
