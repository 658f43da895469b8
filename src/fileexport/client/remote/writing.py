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
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from fileexport.client.answers import name_file
from fileexport.client.chunks import Manner
from fileexport.client.uploading import Source, Upload

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed import ReadableBuffer, WriteableBuffer

    from fileexport.client.connection import Wait
    from fileexport.client.pool import Pool
    from fileexport.paths import RelPath


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
                warnings.warn(f"{name} was not closed: nothing is written", ResourceWarning, 2, source=self)
                self.discard()


class RemoteWriter(Committing, io.RawIOBase):
    """A file that replaces one of the server when it is closed, in one step; `exclusive`: a new one.

    What is written lies in a temporary file of this machine (see `tempfile.gettempdir`). `close` raises what
    `Client.upload_file` does; it is closed in any case then, and the server has the old file, except where
    that says that it is not known. With `commits` false, `close` only ends the writing: then there is
    `commit`, or `discard`.
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
        self.name = str(path)
        self.mode = "xb" if exclusive else "wb"
        self._pool = pool
        self._path = path
        self._manner = Manner(wait, replace=not exclusive)
        self._commits = commits
        self._leave = leave
        self._is_broken = False
        with tempfile.TemporaryFile(buffering=0) as file:
            self._descriptor = os.dup(file.fileno())

    # As of every raw file.

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Keep the bytes, all or some of them; returns how many. After an error nothing is committed."""
        self._check_open()
        try:
            return os.write(self._descriptor, data)
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
        self._check_open()
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        """The position, in bytes."""
        return self.seek(0, io.SEEK_CUR)

    def truncate(self, size: int | None = None, /) -> int:
        """Have it end here, or at `size`."""
        self._check_open()
        end = self.tell() if size is None else size
        os.ftruncate(self._descriptor, end)
        return end

    def close(self) -> None:
        """Commit, as the class says."""
        if self.closed:
            return
        try:
            if self._is_broken:
                raise OSError(errno.EIO, "not all of it could be kept here: nothing was sent", self.name)
            if self._commits:
                self.commit()
        except BaseException:
            self._let_go()
            raise
        finally:
            super().close()

    def __del__(self) -> None:
        super().__del__()
        # One whose `close` does not commit, and nobody else did.
        with suppress(AttributeError):
            self._let_go()

    # The end.

    def commit(self) -> None:
        """Send what was written; it is closed then. Does nothing where that is done, or it was discarded."""
        try:
            if self._descriptor >= 0:
                Upload(self._pool, Written(self._descriptor), self._path, self._manner).run()
        finally:
            self._let_go()

    def discard(self) -> None:
        """Close, and throw away what was written; nothing where it was committed."""
        self._commits = self._is_broken = False
        self._let_go()
        self.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            if self._leave is not None:
                self._leave()


class BufferedRemoteWriter(Committing, io.BufferedWriter):
    """A `RemoteWriter` with a buffer."""

    raw: RemoteWriter

    def discard(self) -> None:
        """Close, and throw away what was written."""
        self.raw.discard()


class TextRemoteWriter(Committing, io.TextIOWrapper):
    """Text over a `BufferedRemoteWriter`, or over another one that can `discard`."""

    buffer: BufferedRemoteWriter

    def discard(self) -> None:
        """Close, and throw away what was written."""
        self.buffer.discard()
