"""A file on its way to a client of the transfer protocol: sent, compressed where that is of use, and hashed.

The hash is calculated in a thread beside the sending, never far ahead of it: what one of the two has read
from a slow disk the other finds in memory.
"""

from __future__ import annotations

import os

from blake3 import blake3
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.python.failure import Failure

from fileexport.disk.jail import Opened
from fileexport.errors import ChangedWhileRead
from fileexport.pools import Worker
from fileexport.transfer_streams import Stream
from fileexport.wire.zstd import MAX_CONTENT, PAUSE, Shrinker

#: Bytes that are sent and hashed before the two wait for each other's begin, and of one read.
SPAN = 16 << 20
_READ = 1 << 20
#: Less is not worth a thread's turn to compress it.
_LEAST_SHRUNK = 4096


class Download:
    """One file of `size` bytes, open until `close` has ended: parts of it are sent, all of it is hashed."""

    def __init__(
        self,
        stream: Stream,
        worker: Worker,
        packs: DeferredSemaphore,
        descriptor: int,
        size: int,
        *,
        with_digest: bool,
    ) -> None:
        """`packs`: places of the connection's compressed pieces, each until it was sent."""
        self._stream = stream
        self._worker = worker
        self._packs = packs
        self._descriptor = descriptor
        self._digest = Digest(worker, descriptor, size) if with_digest else None
        #: Bytes until it is tried again whether the content becomes smaller.
        self._pause = 0

    async def send(self, start: int, stop: int) -> None:
        """Send this part. Raises as `Stream.send_span` does."""
        most = self._stream.most_packed(MAX_CONTENT)
        while start < stop:
            if not self._pause and self._stream.shrinks and min(most, stop - start) >= _LEAST_SHRUNK:
                start = await self._send_packed(start, stop, most)
            if not self._pause:
                self._pause = PAUSE
            size = min(self._pause, stop - start)
            self._pause -= size
            start = await self._send_plain(start, start + size)

    async def digest(self) -> bytes | None:
        """The BLAKE3 of the whole file, where that was asked for."""
        return None if self._digest is None else await self._digest.value()

    async def close(self) -> None:
        """Let go: no thread uses the descriptor any more when this returns."""
        if self._digest is not None:
            await self._digest.close()

    async def _send_plain(self, start: int, stop: int) -> int:
        for begin in range(start, stop, SPAN):
            end = min(begin + SPAN, stop)
            self._allow(end)
            await self._stream.send_span(self._descriptor, begin, end)
        return stop

    async def _send_packed(self, start: int, stop: int, most: int) -> int:
        """Send as long as it becomes smaller; returns where that ended.

        The next piece is made when this one has been handed to the transport, and while that sends it.
        """
        shrinker = Shrinker()
        while start < stop:
            end = min(start + most, stop)
            # First, so that nobody keeps a place whose client takes nothing.
            await self._stream.credit(end - start)
            async with self._packs:
                packed = await self._worker.run(_packed, shrinker, self._descriptor, start, end)
                if packed is None:
                    break
                self._allow(end)
                await self._stream.send_packed(packed)
            start = end
        return start

    def _allow(self, limit: int) -> None:
        if self._digest is not None:
            self._digest.allow(limit)


def _packed(shrinker: Shrinker, descriptor: int, start: int, stop: int) -> bytes | None:
    data = os.pread(descriptor, stop - start, start)
    if len(data) < stop - start:
        raise ChangedWhileRead
    return shrinker.pack(data)


class Digest:
    """The BLAKE3 of an open file, calculated in steps in a worker's threads."""

    def __init__(self, worker: Worker, descriptor: int, size: int) -> None:
        self._worker = worker
        self._descriptor = descriptor
        self._size = size
        self._hasher = blake3()
        self._position = self._limit = 0
        self._error: Failure | None = None
        self._step: Deferred[None] | None = None

    def allow(self, limit: int) -> None:
        """Have it go on up to here."""
        self._limit = max(self._limit, limit)
        self._go_on()

    async def value(self) -> bytes:
        """The hash of the whole file. Raises `ChangedWhileRead`, `OSError`, `OverloadedError`."""
        self.allow(self._size)
        while self._step is not None:
            await settled(self._step)
        if self._error is not None:
            self._error.raiseException()
        return self._hasher.digest()

    async def close(self) -> None:
        """Stop; the descriptor is not used any more when this returns."""
        self._limit = self._position
        if self._step is not None:
            await settled(self._step)

    def _go_on(self) -> None:
        if self._step is None and self._error is None and self._position < self._limit:
            stop = min(self._limit, self._position + SPAN)
            # Its own: a worker may be done at once.
            self._step = step = Deferred[None]()
            self._worker.run(self._hash, self._position, stop).addBoth(self._stepped, stop, step)

    def _stepped(self, outcome: None | Failure, stop: int, step: Deferred[None]) -> None:
        self._step = None
        if isinstance(outcome, Failure):
            self._error = outcome
        else:
            self._position = stop
        self._go_on()
        step.callback(None)

    def _hash(self, start: int, stop: int) -> None:
        buffer = memoryview(bytearray(min(_READ, stop - start)))
        while start < stop:
            count = os.preadv(self._descriptor, [buffer[: stop - start]], start)
            if not count:
                raise ChangedWhileRead
            self._hasher.update(buffer[:count])
            start += count


def changed(opened: Opened) -> bool:
    """Whether an open file is not what it was when it was opened.

    Whoever may write can put its mtime back, but not its ctime. That is another one also where its last name
    went away, as when a new file takes its place: then nobody opens it to write any more.
    """
    now, before = os.fstat(opened.descriptor), opened.stat
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        return True
    return now.st_nlink > 0 and now.st_ctime_ns != before.st_ctime_ns


async def settled(deferred: Deferred[None]) -> None:
    """Wait until a Deferred has fired, either way; its result stays."""
    waiting: Deferred[None] = Deferred()

    def pass_on(result: None) -> None:
        waiting.callback(None)

    deferred.addBoth(pass_on)
    await waiting
