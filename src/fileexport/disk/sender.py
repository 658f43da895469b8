"""Bytes onto a connection as fast as its peer takes them: pieces of a stream, a range of a descriptor.

A `Valve` is the producer of both. It is a push producer, because pull producers of a request or of a TLS
transport run on the global Cooperator, which stands still under a private reactor. A large range goes past it
where the transport is plain TCP: `_Direct` puts it onto the socket by sendfile(2), asked by the transport
itself.

Whatever `pump` and `send_span` raise, the answer is incomplete: the caller aborts the connection and never
ends the answer cleanly.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable
from types import TracebackType
from typing import Protocol

from twisted.internet import tcp
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from fileexport.errors import ChangedWhileRead, PeerGone

#: Seconds that a peer may take nothing before its connection is given up: nginx' `send_timeout`, long enough
#: for a laptop that changes its network, short enough that dead readers do not fill the connection table.
STALL = 60.0

#: Bytes in one write, and in one read on the reactor's thread. A TLS transport is fastest with it, and a slow
#: peer empties the transport's buffer, which is what we see of its progress, well within `STALL`.
SLICE = 64 << 10

#: Bytes asked of one sendfile(2): the socket's buffer takes less, and larger pieces brought nothing.
PIECE = 1 << 20

#: What a file system that knows no sendfile(2) answers: the file is read and written then.
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Stalled(TimeoutError):
    """The other side took nothing for too long."""


class Outlet(Protocol):
    """Where bytes go: what a request of `twisted.web` and a transport both offer."""

    def write(self, data: bytes, /) -> object: ...

    def registerProducer(self, producer: IPushProducer, streaming: bool, /) -> object: ...

    def unregisterProducer(self) -> object: ...


class Lender(Protocol):
    """An outlet that can give its transport away for a while, for bytes that go past it."""

    def lend(self) -> object | None:
        """The transport beneath, with no producer of its own until `reclaim`; None where there is none.

        What was written before has been handed to the transport.
        """

    def reclaim(self, sent: int) -> None:
        """Take the transport back, which may be dead; `sent` bytes went onto it meanwhile."""


class Pieces(Protocol):
    """What `pump` sends; `fileexport.pools.Steps` makes one of a generator."""

    def next(self) -> Awaitable[bytes | None]:
        """The next piece, or None after the last."""

    def close(self) -> Awaitable[None]:
        """End the source, after the step that may be running; harmless when it has ended."""


@implementer(IPushProducer)
class Valve:
    """Writes to an outlet while it takes bytes and waits while it does not; a context manager.

    Inside the `with` block the valve is the outlet's producer. It may serve one coroutine at a time and any
    number of writes, spans and pumps in turn, so that an answer of several parts has one valve.

    `lost` fires, either way, when the outlet must not be used any more (a request's `notifyFinish()`). After
    that, or after `stopProducing`, everything that waits or writes raises `PeerGone`, and the outlet is not
    touched again. When the peer takes nothing for `stall` seconds they raise `Stalled`.
    """

    def __init__(
        self,
        outlet: Outlet,
        clock: IReactorTime,
        lost: Deferred[None],
        stall: float = STALL,
        *,
        lender: Lender | None = None,
    ) -> None:
        self._outlet = outlet
        self._lender = lender
        self._clock = clock
        self._lost = lost
        self._stall = stall
        self._gone = False
        self._stalled = False
        self._paused_since: float | None = None
        self._waiting: Deferred[None] | None = None
        self._watch: IDelayedCall | None = None
        self._direct: _Direct | None = None

    def __enter__(self) -> Valve:
        self._lost.addBoth(lambda _: self.stopProducing())
        if not self._gone:
            self._watch = self._clock.callLater(self._stall, self._check)
            self._outlet.registerProducer(self, True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_watch()
        if not self._gone:
            self._outlet.unregisterProducer()

    async def write(self, data: bytes) -> None:
        """Write all of `data`, a slice at a time; returns when the outlet has the last slice."""
        for start in range(0, len(data), SLICE):
            await self.flowing()
            self._outlet.write(data[start : start + SLICE])

    def flowing(self) -> Deferred[None]:
        """Fires when the outlet takes bytes; fails with `PeerGone` or `Stalled`."""
        if (problem := self._problem()) is not None:
            return fail(problem)
        if self._paused_since is None:
            return succeed(None)
        self._waiting = Deferred()
        return self._waiting

    async def turn(self) -> None:
        """Let the reactor serve others, then wait as `flowing` does."""
        if self._paused_since is None:
            await deferLater(self._clock, 0)
        await self.flowing()

    async def send_directly(self, descriptor: int, start: int, stop: int) -> int:
        """Send what can go past Python; returns the offset from which the rest must be read and written."""
        if self._lender is None:
            return start
        transport = self._lender.lend()
        try:
            plain = plain_socket(transport)
            if plain is None:
                return start
            direct = _Direct(plain, self._clock, descriptor, start, stop)
            self._direct = direct
            direct.begin()
            await direct.done
            return direct.offset
        except PeerGone:
            # The transport is dead before anybody else hears of it.
            self._gone = True
            raise
        finally:
            direct_now, self._direct = self._direct, None
            if transport is not None:
                self._lender.reclaim(direct_now.offset - start if direct_now else 0)

    def pauseProducing(self) -> None:
        """The outlet's buffer is full (`IPushProducer`)."""
        if self._paused_since is None:
            self._paused_since = self._clock.seconds()

    def resumeProducing(self) -> None:
        """The outlet's buffer is empty again (`IPushProducer`)."""
        self._paused_since = None
        self._wake()

    def stopProducing(self) -> None:
        """The connection is gone (`IPushProducer`)."""
        self._gone = True
        self._end_watch()
        if self._direct is not None:
            self._direct.stopProducing()
        self._wake()

    def _problem(self) -> Exception | None:
        if self._gone:
            return PeerGone()
        if self._stalled:
            return Stalled()
        return None

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        if (problem := self._problem()) is not None:
            waiting.errback(problem)
        else:
            waiting.callback(None)

    def _check(self) -> None:
        """One timer for the whole life of the valve: pauses come thousands of times a second."""
        now = self._clock.seconds()
        since = now if self._paused_since is None else self._paused_since
        if self._direct is not None:
            since = self._direct.moved
        if now - since < self._stall:
            self._watch = self._clock.callLater(since + self._stall - now, self._check)
            return
        self._watch = None
        self._stalled = True
        if self._direct is not None:
            self._direct.give_up(Stalled())
        self._wake()

    def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()


async def pump(valve: Valve, pieces: Pieces) -> int:
    """Send every piece; returns how many bytes that were.

    A piece is asked for only while the outlet takes bytes, so that one piece at most is held here. The pieces
    are closed before this returns or raises. Raises `PeerGone`, `Stalled`, and what `pieces.next` raises.
    """
    sent = 0
    try:
        await valve.flowing()
        while (piece := await pieces.next()) is not None:
            await valve.write(piece)
            sent += len(piece)
            await valve.flowing()
    finally:
        await pieces.close()
    return sent


async def send_span(valve: Valve, descriptor: int, start: int, stop: int) -> int:
    """Send the bytes from `start` up to, not including, `stop` of a regular file; returns how many that were.

    The descriptor is neither moved nor closed, and must stay open until this has ended. The reactor gets a
    turn after each piece, so that one fast reader does not keep it from the others. Raises `ChangedWhileRead`
    when the file ends before `stop`, `PeerGone`, `Stalled`, and `OSError` as reading does.
    """
    await valve.flowing()
    offset = start
    if stop - start > SLICE:
        offset = await valve.send_directly(descriptor, start, stop)
    while offset < stop:
        data = os.pread(descriptor, min(SLICE, stop - offset), offset)
        if not data:
            raise ChangedWhileRead(f"the file ended at {offset}, {stop} was promised")
        await valve.write(data)
        offset += len(data)
        if offset < stop:
            await valve.turn()
    return stop - start


def plain_socket(transport: object) -> tcp.Server | None:
    """The transport, where bytes may be put straight onto its socket; else None.

    Under TLS `fileno()`, `.socket` and even `ITCPTransport` look just like those of plain TCP, and sendfile
    would put plain text into the encrypted stream. The class and its `TLS` flag are the only safe test.
    """
    if isinstance(transport, tcp.Server) and not transport.TLS:
        return transport
    return None


@implementer(IPullProducer)
class _Direct:
    """A range of a file straight onto a socket, by sendfile(2): the kernel copies, Python never sees a byte.

    The transport asks for more each time its own buffer is empty, so whatever was written before leaves
    first. `offset` is where the next byte is, `moved` when that was last changed. `done` fires when all has
    been handed to the kernel, or when sendfile does not work for this file (`offset` is short then); it fails
    as `send_span` does.
    """

    def __init__(
        self, transport: tcp.Server, clock: IReactorTime, descriptor: int, start: int, stop: int
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._descriptor = descriptor
        self.offset = start
        self.moved = clock.seconds()
        self._stop = stop
        self._begun = False
        self.done: Deferred[None] = Deferred()

    def begin(self) -> None:
        """Become the transport's producer; it has none now."""
        self._transport.registerProducer(self, False)
        self._begun = True
        self._transport.startWriting()

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        if not self._begun or self.done.called:
            # Registering asks at once, when something may still be buffered.
            return
        try:
            count = min(PIECE, self._stop - self.offset)
            sent = os.sendfile(self._transport.fileno(), self._descriptor, self.offset, count)
        except BlockingIOError:
            sent = -1
        except OSError as error:
            self._end(error)
            return
        if sent == 0:
            self._end(ChangedWhileRead(f"the file ended at {self.offset}, {self._stop} was promised"))
            return
        if sent > 0:
            self.offset += sent
            self.moved = self._clock.seconds()
        if self.offset < self._stop:
            self._transport.startWriting()
        else:
            self._end(None)

    def stopProducing(self) -> None:
        """The connection is gone."""
        if not self.done.called:
            self.done.errback(PeerGone())

    def give_up(self, error: Exception) -> None:
        """End it from outside."""
        if not self.done.called:
            self._transport.unregisterProducer()
            self.done.errback(error)

    def _end(self, error: Exception | None) -> None:
        self._transport.unregisterProducer()
        if error is None or (isinstance(error, OSError) and error.errno in _NO_SENDFILE):
            self.done.callback(None)
        elif isinstance(error, ConnectionError):
            self.done.errback(PeerGone())
        else:
            self.done.errback(error)
