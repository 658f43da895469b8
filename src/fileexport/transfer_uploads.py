"""Files that come in by the transfer protocol: what the connection's lane does with their content.

The methods of `Incoming` and `IncomingFiles` are called by the lane, in its thread, one after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore

from fileexport.errors import BadRequestError, ChangedWhileRead, OutOfRange, PeerGone
from fileexport.lanes import Lane
from fileexport.small_files import Committed, SmallFiles
from fileexport.transfer_streams import KEPT, KEPT_RANGE, Stream
from fileexport.uploads import Upload
from fileexport.wire.frames import Data
from fileexport.wire.messages import Copy, CopyRange, End, Files
from fileexport.wire.zstd import Grower

#: Small files, and bytes of them, after which they are committed; and seconds, so that what came by a slow
#: link outlives its end.
COMMIT_FILES, COMMIT_BYTES, COMMIT_SECONDS = 4096, 8 << 20, 1.0
#: Bytes that are copied until others have their turn in the lane, and what a range counts at least.
STEP, LEAST_STEP = 16 << 20, 16 << 10


def is_of_use(gone: Exception | None) -> bool:
    """Whether what has come is of use, also where its sender was lost on the way."""
    return gone is None or isinstance(gone, PeerGone | TimeoutError)


class Incoming:
    """One file. Content may come before it is known whether it may be written: it waits in the lane."""

    def __init__(
        self, stream: Stream, begin: Callable[[], Upload], least: int, *, is_kept: bool, has_bases: bool
    ) -> None:
        """`least`: bytes of each DATA frame but the last. `is_kept`: whether who was lost can go on later.

        `has_bases`: whether copies may come; a shorter frame may stand before each.
        """
        self._stream = stream
        self._begin = begin
        self._least = least
        self._is_kept = is_kept
        self._has_bases = has_bases
        #: What came and was not written: after a step, the rest of what is to be copied, and what follows.
        self._waiting: deque[Data | CopyRange] = deque()
        #: Whether something came that was not written: what comes behind it has no place.
        self._is_broken = False
        #: Whether the last DATA frame was so short that only a copy may stand behind it.
        self._is_short = False
        self._upload: Upload | None = None
        self._grower = Grower()

    def begin(self) -> int:
        """Begin; returns the offset from which content is wanted."""
        self._stream.check()
        self._upload = self._begin()
        return self._upload.offset

    def take(self, came: Sequence[Data | Copy]) -> bool:
        """Write what came, as `go_on` does."""
        for one in came:
            if isinstance(one, Copy):
                self._waiting.extend(one.ranges)
            else:
                self._waiting.append(one)
        return self.go_on()

    def go_on(self) -> bool:
        """Write what waits, of bases no more than a step; tells whether there is more.

        Raises `OutOfRange`, `CorruptedResponse`, `BadRequestError`, and as `Upload.write` and `Upload.copy`.
        """
        upload, gone = self._upload, self._stream.gone
        if upload is None or self._is_broken or not (gone is None or (self._is_kept and is_of_use(gone))):
            # Where it has not begun, whoever waits for that knows why.
            self._waiting.clear()
            return False
        self._is_broken = True
        left = STEP
        while self._waiting and left > 0:
            found = self._waiting.popleft()
            if isinstance(found, Data):
                self._take(upload, found)
            else:
                left -= self._copy(upload, found, left)
        self._is_broken = False
        return bool(self._waiting)

    def _take(self, upload: Upload, data: Data) -> None:
        if data.first and not data.compressed:
            short = data.size < min(self._least, upload.size - upload.offset)
            if self._is_short or (short and not self._has_bases):
                raise OutOfRange(f"a piece of less than {self._least} bytes, and more behind it")
            self._is_short = short
        content = self._grower.feed(data)
        if content is not None:
            upload.write(content)

    def _copy(self, upload: Upload, found: CopyRange, most: int) -> int:
        """Copy a range, at most so much of it; returns what that counts."""
        if found.size > upload.size - upload.offset:
            raise ChangedWhileRead
        self._is_short = False
        size = min(found.size, most)
        # Nobody works on for one that is gone: a few bytes of theirs ask for as much as the file may hold.
        upload.copy(found.base, found.offset, size, self._stream.check)
        if size < found.size:
            self._waiting.appendleft(CopyRange(found.base, found.offset + size, found.size - size))
        return max(size, LEAST_STEP)

    def finish(self, end: End) -> None:
        """Commit. Raises as `Upload.finish`."""
        if end.size is None or end.digest is None:
            raise BadRequestError("the end of a file without its size and hash")
        assert self._upload is not None
        self._upload.finish(end.size, end.digest)

    def suspend(self) -> None:
        """Keep what has come, where that can be continued."""
        self._waiting.clear()
        if self._upload is not None:
            self._upload.suspend()

    def discard(self) -> None:
        """Forget it; nothing happens after `finish`."""
        self._waiting.clear()
        if self._upload is not None:
            self._upload.discard()


class Feeder:
    """Brings to an upload what comes for it, in its order. Its methods belong to the reactor's thread.

    Content goes through the lane as it comes. A copy is as much work as its client likes: it is done in
    steps, between which others have their turn. What comes behind it waits here; the connection is heard
    meanwhile.
    """

    def __init__(self, stream: Stream, lane: Lane, copies: DeferredSemaphore, incoming: Incoming) -> None:
        """`copies`: the steps that the connection may have in its lane at a time."""
        self._stream = stream
        self._lane = lane
        self._copies = copies
        self._incoming = incoming
        #: Held while there is something to be copied.
        self._order = DeferredLock()

    def take(self, came: list[Any], kept: int) -> Deferred[Any]:
        """Fires when `came`, which keeps `kept` bytes, is written; fails as that does."""
        if self._order.locked or any(isinstance(one, Copy) for one in came):
            return Deferred.fromCoroutine(self._take(came))
        return self._lane.put(partial(self._incoming.take, came), kept)

    async def _take(self, came: list[Data | Copy]) -> None:
        # The credit of the connection bounds the content; what stands around it, only this.
        content = sum(len(one.piece) for one in came if isinstance(one, Data))
        ranges = sum(len(one.ranges) for one in came if isinstance(one, Copy))
        kept = content + KEPT * len(came) + KEPT_RANGE * ranges
        self._lane.charge(kept, content)
        try:
            async with self._order:
                await self._take_by_steps(came)
        finally:
            self._lane.charge(-kept, -content)

    async def _take_by_steps(self, came: list[Any]) -> None:
        step, is_done = partial(self._incoming.take, came), False
        try:
            while not is_done:
                async with self._copies:
                    self._stream.check()
                    is_done = not await self._lane.put(step)
                step = partial(self._incoming.go_on)
        except Exception as error:
            # Now: what waits behind it has its turn next.
            self._stream.give_up(error)
            raise

    async def settled(self) -> None:
        """Wait until all that came is in the lane, or written."""
        async with self._order:
            self._stream.check()


class IncomingFiles:
    """Many small files. They are committed now and then, so that neither side keeps too many."""

    def __init__(self, stream: Stream, begin: Callable[[], SmallFiles], seconds: Callable[[], float]) -> None:
        self._stream = stream
        self._begin = begin
        self._seconds = seconds
        self._files: SmallFiles | None = None
        #: When the last commit ended.
        self._committed = 0.0
        self._count = self._pending = self._bytes = 0

    def begin(self) -> None:
        """Begin."""
        self._stream.check()
        self._files = self._begin()
        self._committed = self._seconds()

    def take(self, came: Sequence[Files]) -> Committed | None:
        """Stage files; tells what became of all so far where they were committed.

        None is staged for one who is gone: they come again, and others may have written the same names since.
        """
        if self._files is None or self._stream.gone is not None:
            return None
        for found in came:
            self._files.add(self._count, found.files)
            self._count += len(found.files)
            self._pending += len(found.files)
            self._bytes += sum(len(file.content) for file in found.files)
        is_time = self._seconds() - self._committed >= COMMIT_SECONDS
        if is_time or self._pending >= COMMIT_FILES or self._bytes >= COMMIT_BYTES:
            return self.commit()
        return None

    def commit(self) -> Committed | None:
        """Commit what is staged, also for one who was lost; tells what became of all since the last time.

        Its names were ours since then: nothing newer is replaced.
        """
        if self._files is None or not is_of_use(self._stream.gone):
            return None
        self._pending = self._bytes = 0
        committed = self._files.commit()
        self._committed = self._seconds()
        return committed

    def discard(self) -> None:
        """Forget what is not committed."""
        if self._files is not None:
            self._files.discard()
