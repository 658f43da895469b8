"""A remote file that is written like a local one: kept here until it is closed, then committed whole.

An upload says its size before its content, and is continued after a cut: so what is written waits in a
temporary file here, and a writer that takes its time holds nothing on the server.
"""

from __future__ import annotations

import abc
import errno
import io
import os
import tempfile
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from fileexport.client.answers import name_file
from fileexport.client.chunks import Manner
from fileexport.client.uploading import Source, Upload
from fileexport.errors import BusyError, OverloadedError
from fileexport.wire.messages import MAX_INLINE

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed import ReadableBuffer, WriteableBuffer

    from fileexport.client.connection import Wait
    from fileexport.client.pool import Pool
    from fileexport.paths import RelPath


#: Errors after which the same content may be sent again.
_LATER = (ConnectionError, TimeoutError, BusyError, OverloadedError)


class Written(Source):
    """A file without a name, of which this process has the only descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.status = os.fstat(descriptor)


class Committing(io.IOBase):
    """What commits when it is closed, and only then.

    A `with` block that an exception leaves discards what was written, and so does who forgets to close.
    """

    @abc.abstractmethod
    def discard(self) -> None:
        """Close, and throw away what was written; nothing where it is closed."""

    def __reduce__(self) -> NoReturn:
        # A copy would write to the same file here.
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        # What was not made, or has lost what it writes to, has nothing to throw away.
        with suppress(ValueError, AttributeError):
            if not self.closed:
                name = getattr(self, "name", "?")
                try:
                    warnings.warn(
                        f"{name} was not closed: nothing is written", ResourceWarning, 2, source=self
                    )
                finally:
                    # Warnings may be exceptions.
                    self.discard()


class RemoteWriter(Committing, io.RawIOBase):
    """A file that replaces one of the server when it is closed, in one step; `exclusive`: a new one.

    What is written lies in a temporary file of this machine (see `tempfile.gettempdir`). `close` raises what
    `Client.upload_file` does; the server has the old file then, except where that says that it is not known.
    After `ConnectionError`, `TimeoutError`, `BusyError` and `OverloadedError` it is still open, with its
    content, and may be closed again; after others it is closed. With `commits` false, `close` only ends the
    writing: then there is `commit`, or `discard`.

    Threads may share it; what one of them writes after another's `close` is a ValueError.
    """

    def __init__(
        self,
        pool: Pool,
        path: RelPath,
        wait: Callable[[], Wait],
        *,
        exclusive: bool = False,
        commits: bool = True,
        leave: Callable[[], object] | None = None,
    ) -> None:
        """`leave` is called when it was committed or discarded. Raises `OSError` of this machine."""
        self._descriptor = -1
        # Whatever uses the descriptor: closed meanwhile, its number may be another file's.
        self._lock = threading.RLock()
        self.name = str(path)
        self.mode = "xb" if exclusive else "wb"
        self._pool = pool
        self._path = path
        self._manner = Manner(wait, replace=not exclusive)
        self._commits = commits
        self._leave = leave
        self._is_broken = False
        #: What is to be committed, where it is too little to be worth a descriptor.
        self._kept: bytes | None = None
        self._descriptor = _unnamed()

    # As of every raw file.

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Keep the bytes, all or some of them; returns how many.

        After an error nothing is committed, except that what are no bytes is a TypeError only.
        """
        with self._lock, memoryview(data) as content:
            try:
                return os.write(self._open_descriptor(), content)
            except (ValueError, BufferError):
                raise
            except BaseException as error:
                self._is_broken = True
                if isinstance(error, OSError):
                    name_file(error, tempfile.gettempdir())
                raise

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Nothing can be read."""
        raise io.UnsupportedOperation("not readable")

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position within what was written."""
        with self._lock:
            return os.lseek(self._open_descriptor(), offset, whence)

    def tell(self) -> int:
        """The position, in bytes."""
        return self.seek(0, io.SEEK_CUR)

    def truncate(self, size: int | None = None, /) -> int:
        """Have it end here, or at `size`."""
        with self._lock:
            end = self.tell() if size is None else size
            os.ftruncate(self._open_descriptor(), end)
            return end

    def close(self) -> None:
        """Commit, as the class says."""
        with self._lock:
            if self.closed:
                return
            if self._is_broken:
                self._end()
                raise OSError(errno.EIO, "not all of it could be kept here: nothing was sent", self.name)
            if self._commits:
                self.commit()
            else:
                self._keep()
                super().close()

    def __del__(self) -> None:
        super().__del__()
        # One whose `close` does not commit, and nobody else did.
        with suppress(AttributeError):
            self._let_go()

    # The end.

    def commit(self) -> None:
        """Send what was written; it is closed then, except as `close` says. Nothing is done a second time."""
        with self._lock:
            try:
                if self._kept is not None:
                    self._descriptor, self._kept = _unnamed(self._kept), None
                if self._descriptor >= 0:
                    Upload(self._pool, Written(self._descriptor), self._path, self._manner).run()
            except _LATER:
                raise
            except BaseException:
                self._end()
                raise
            self._end()

    def discard(self) -> None:
        """Close, and throw away what was written; nothing where it was committed."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        try:
            self._let_go()
        finally:
            super().close()

    def _keep(self) -> None:
        """Hold what is small in memory until it is committed: there may be thousands of such files."""
        if os.fstat(self._descriptor).st_size <= MAX_INLINE:
            self._kept = os.pread(self._descriptor, MAX_INLINE, 0)
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _open_descriptor(self) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self._descriptor

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        kept, self._kept = self._kept, None
        if descriptor < 0 and kept is None:
            return
        try:
            if descriptor >= 0:
                os.close(descriptor)
        finally:
            if self._leave is not None:
                self._leave()


def _unnamed(content: bytes = b"") -> int:
    """A descriptor of a new file of this machine without a name."""
    with tempfile.TemporaryFile(buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        return os.dup(file.fileno())


class BufferedRemoteWriter(Committing, io.BufferedWriter):
    """A `RemoteWriter` with a buffer."""

    raw: RemoteWriter

    def close(self) -> None:
        """Commit, or remain open, as the `RemoteWriter` says."""
        # Python's own would be without its buffer then.
        try:
            if not self.closed:
                self.flush()
        finally:
            self.raw.close()

    def discard(self) -> None:
        """Close, and throw away what was written."""
        self.raw.discard()


class TextRemoteWriter(Committing, io.TextIOWrapper):
    """Text over a `BufferedRemoteWriter`, or over another one that can `discard`."""

    buffer: BufferedRemoteWriter

    def discard(self) -> None:
        """Close, and throw away what was written."""
        self.buffer.discard()
