"""Files that come in by the transfer protocol: what the connection's lane does with their content.

The methods of these classes are called by the lane, in its thread, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fileexport.errors import BadRequestError, OutOfRange, PeerGone
from fileexport.transfer_streams import Stream
from fileexport.uploads import Committed, SmallFiles, Upload
from fileexport.wire.frames import Data
from fileexport.wire.messages import End, Files
from fileexport.wire.zstd import Grower

#: Small files, and bytes of them, after which they are committed; and seconds, so that what came by a slow
#: link outlives its end.
COMMIT_FILES, COMMIT_BYTES, COMMIT_SECONDS = 4096, 32 << 20, 1.0


class Incoming:
    """One file. Content may come before it is known whether it may be written: it waits in the lane."""

    def __init__(self, stream: Stream, begin: Callable[[], Upload], least: int, *, is_kept: bool) -> None:
        """`least`: bytes of each DATA frame but the last. `is_kept`: whether who was lost can go on later."""
        self._stream = stream
        self._begin = begin
        self._least = least
        self._is_kept = is_kept
        #: Whether something came that was not written: what comes behind it has no place.
        self._is_broken = False
        self._upload: Upload | None = None
        self._grower = Grower()

    def begin(self) -> int:
        """Begin; returns the offset from which content is wanted."""
        self._stream.check()
        self._upload = self._begin()
        return self._upload.offset

    def take(self, pieces: Sequence[Data]) -> None:
        """Write content. Raises `OutOfRange`, `CorruptedResponse`, and as `Upload.write`."""
        upload = self._upload
        if upload is None or self._is_broken or not self._is_wanted:
            # Where it has not begun, whoever waits for that knows why.
            return
        self._is_broken = True
        for data in pieces:
            self._take(upload, data)
        self._is_broken = False

    @property
    def _is_wanted(self) -> bool:
        """Whether content shall be written, also where its sender was lost on the way."""
        gone = self._stream.gone
        return gone is None or (self._is_kept and isinstance(gone, PeerGone | TimeoutError))

    def _take(self, upload: Upload, data: Data) -> None:
        if data.first and not data.compressed and data.size < min(self._least, upload.size - upload.offset):
            raise OutOfRange(f"a piece of {data.size} bytes: at least {self._least} are wanted")
        content = self._grower.feed(data)
        if content is not None:
            upload.write(content)

    def finish(self, end: End) -> None:
        """Commit. Raises as `Upload.finish`."""
        if end.size is None or end.digest is None:
            raise BadRequestError("the end of a file without its size and hash")
        assert self._upload is not None
        self._upload.finish(end.size, end.digest)

    def suspend(self) -> None:
        """Keep what has come, where that can be continued."""
        if self._upload is not None:
            self._upload.suspend()

    def discard(self) -> None:
        """Forget it; nothing happens after `finish`."""
        if self._upload is not None:
            self._upload.discard()


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
        """Stage files; tells what became of all so far where they were committed."""
        self._stream.check()
        if self._files is None:
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

    def commit(self) -> Committed:
        """Commit what has come; tells what became of all since the last time."""
        self._stream.check()
        assert self._files is not None
        self._pending = self._bytes = 0
        committed = self._files.commit()
        self._committed = self._seconds()
        return committed

    def discard(self) -> None:
        """Forget what is not committed."""
        if self._files is not None:
            self._files.discard()
