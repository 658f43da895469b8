"""Files that come in by the transfer protocol: what the connection's lane does with their content.

The methods of these classes are called by the lane, in its thread, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fileexport.errors import BadRequestError, FileExportError
from fileexport.transfer_streams import Stream
from fileexport.uploads import Committed, SmallFiles, Upload
from fileexport.wire.frames import Data
from fileexport.wire.messages import End, Files
from fileexport.wire.zstd import Grower

#: Small files, and bytes of them, after which they are committed.
COMMIT_FILES, COMMIT_BYTES = 4096, 32 << 20


class OutOfRange(FileExportError, ValueError):
    """A value is out of its range."""


class Incoming:
    """One file. Content may come before it is known whether it may be written: it waits in the lane."""

    def __init__(self, stream: Stream, begin: Callable[[], Upload], least: int) -> None:
        """`least`: bytes of each DATA frame but the last."""
        self._stream = stream
        self._begin = begin
        self._least = least
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
        if upload is None or not self._stream.is_wanted:
            # Where it has not begun, whoever waits for that knows why.
            return
        for data in pieces:
            self._take(upload, data)

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

    def __init__(self, stream: Stream, begin: Callable[[], SmallFiles]) -> None:
        self._stream = stream
        self._begin = begin
        self._files: SmallFiles | None = None
        self._count = self._pending = self._bytes = 0

    def begin(self) -> None:
        """Begin."""
        self._stream.check()
        self._files = self._begin()

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
        if self._pending >= COMMIT_FILES or self._bytes >= COMMIT_BYTES:
            return self.commit()
        return None

    def commit(self) -> Committed:
        """Commit what has come; tells what became of all since the last time."""
        self._stream.check()
        assert self._files is not None
        self._pending = self._bytes = 0
        return self._files.commit()

    def discard(self) -> None:
        """Forget what is not committed."""
        if self._files is not None:
            self._files.discard()
