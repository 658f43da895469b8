"""A remote file that is read like a local one: any part of it, and what follows before it is asked for.

There is no thread: what is read ahead is what the server may send before somebody takes it.
"""

from __future__ import annotations

import errno
import io
import operator
import os
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, NoReturn

from blake3 import blake3

from fileexport.client.answers import Stalled
from fileexport.client.chunks import Retries
from fileexport.client.listings import grower
from fileexport.errors import ChangedWhileRead, CorruptedResponse
from fileexport.wire import messages as m

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from fileexport.client.connection import Wait
    from fileexport.client.pool import Pool
    from fileexport.paths import RelPath

#: Bytes that are asked for where nobody knows what is read next, and how many times more when it was what
#: follows: so what was fetched for nothing is never much more than what was read.
_FIRST, _GROWTH = 64 << 10, 4
#: Whoever has read so much in a row gets the rest of the file as it comes: the stream's credit bounds it.
_WHOLE = 4 << 20
#: Bytes over which it costs less to read on than to ask again.
_SKIP = 64 << 10
#: The last position that a file may have.
_LAST = (1 << 63) - 1


class Flow:
    """One `read` operation: a part of one version of a file, byte after byte, up to `stop`.

    `content` is what the server says of the file, `offset` the next byte that `take` gives, `came` the next
    one that comes. Where all up to the end was asked for, and `hasher` has seen what is before it, the
    server's hash is compared. Raises as `Client` does; it is over then.
    """

    content: m.Content
    stop: int

    def __init__(
        self,
        pool: Pool,
        asked: m.Read,
        wait: Wait,
        first: m.Content | None,
        hasher: blake3 | None = None,
    ) -> None:
        """`first`: what was said of the file before; what says otherwise now is `ChangedWhileRead`."""
        self.offset = self.came = asked.offset
        self.is_over = False
        self._hasher = hasher
        self._rest = memoryview(b"")
        self._steps = self._run(pool, asked, wait, first)
        next(self._steps)

    def take(self, most: int) -> memoryview:
        """The next bytes, at most so many; before `stop` at least one. Valid until the next call."""
        if not self._rest:
            self._rest = next(self._steps)
        piece, self._rest = self._rest[:most], self._rest[most:]
        self.offset += len(piece)
        return piece

    def finish(self) -> None:
        """Hear how it ends, at `stop`: `ChangedWhileRead` where what came is not of one version."""
        for _ in self._steps:
            raise CorruptedResponse("more of a file than was asked for")

    def close(self) -> None:
        """Cancel what is left of it."""
        self._rest = memoryview(b"")
        self._steps.close()

    def _run(
        self, pool: Pool, asked: m.Read, wait: Wait, first: m.Content | None
    ) -> Generator[memoryview, None, None]:
        """First something empty, when the server has answered; then all that comes."""
        try:
            with pool.operation(asked, wait, path=str(asked.path), again=True) as operation:
                self._agree(operation.reply(m.Content), asked, first)
                yield memoryview(b"")
                grow = grower(operation.session.features)
                while not isinstance(found := operation.content(), m.End):
                    piece = grow(found)
                    operation.consumed(len(found.piece))
                    if piece:
                        self._heard(piece)
                        yield memoryview(piece)
                self._check(found, asked.length is None)
        finally:
            self.is_over = True

    def _agree(self, content: m.Content, asked: m.Read, first: m.Content | None) -> None:
        self.content = content
        if first is not None and _marks(content) != _marks(first):
            raise ChangedWhileRead
        if content.offset != asked.offset:
            raise CorruptedResponse("a file that begins where nobody asked for it")
        self.stop = content.size
        if asked.length is not None:
            self.stop = min(content.size, asked.offset + asked.length)

    def _heard(self, piece: bytes | memoryview) -> None:
        if self.came + len(piece) > self.stop:
            raise CorruptedResponse("more of a file than was asked for")
        if self._hasher is not None:
            self._hasher.update(piece)
        self.came += len(piece)

    def _check(self, end: m.End, is_whole: bool) -> None:
        is_right = not is_whole or self._hasher is None or end.digest == self._hasher.digest()
        if self.came != self.stop or end.size != self.content.size or not is_right:
            raise ChangedWhileRead


def _marks(content: m.Content) -> tuple[bytes, int, int]:
    return content.version, content.size, content.mtime


class RemoteReader(io.RawIOBase):
    """A file of the server, open for reading: `size` bytes, changed at `mtime_ns`, with these `permissions`.

    All that is read is of one version, that of when it was opened: once the file is another one, a read
    raises `ChangedWhileRead`. So it does at the end of more than 64 KiB that were read from the beginning,
    where they do not have the server's hash. A cut connection costs time only, and so does a server that gave
    up because nobody read for so long. After an error the position is what it was before, and a further read
    goes on there.

    Its time-out is for each answer; what is between two reads does not count. Threads may share `pread`, and
    nothing else.
    """

    mode = "rb"

    def __init__(
        self,
        pool: Pool,
        path: RelPath,
        wait: Callable[[], Wait],
        *,
        ahead: int = 0,
        in_parts: bool = False,
        leave: Callable[[], object] | None = None,
    ) -> None:
        """Raises what `Client` does, `FileNotFoundError` and `IsADirectoryError` among it.

        Who reads up to `ahead` bytes at once fills a buffer, and is content with less. Who only uses `pread`
        reads `in_parts`: nothing is fetched before. `leave` is called when it was closed.
        """
        self._flow: Flow | None = None
        self._leave = leave
        self.name = str(path)
        self._pool = pool
        self._path = path
        self._wait = wait
        self._ahead = ahead
        self._position = 0
        self._span = _FIRST
        self._hasher: blake3 | None = blake3()
        self._flow = Flow(pool, m.Read(path, length=0 if in_parts else _FIRST), wait(), None, self._hasher)
        self._content = self._flow.content
        if in_parts:
            # Its connection is free for the parts.
            self._flow.finish()

    @property
    def size(self) -> int:
        """In bytes."""
        return self._content.size

    @property
    def mtime_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        return self._content.mtime

    @property
    def permissions(self) -> int | None:
        """Those of owner, group and others; None where the server does not say."""
        return self._content.mode

    @property
    def version(self) -> bytes:
        """Other bytes where the file is another one, or was changed."""
        return self._content.version

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    # As of every raw file.

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position, in bytes."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position, also behind the end; costs nothing. `OSError`: before 0, or too far."""
        self._check_open()
        offset, whence = operator.index(offset), operator.index(whence)
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
        found = (0, self._position, self.size)[whence] + offset
        if not 0 <= found <= _LAST:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), self.name)
        self._position = found
        return found

    def read(self, size: int | None = -1, /) -> bytes:
        """At most so many bytes, and those that one operation gives; below 0, or None, all."""
        return super().read(-1 if size is None else size) or b""

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer, or the part of it that one operation gives; 0 at the end."""
        self._check_open()
        with memoryview(buffer) as view, view.cast("B") as whole:

            def put(piece: memoryview, at: int) -> None:
                whole[at : at + len(piece)] = piece

            return self._read_on(len(whole), len(whole) if len(whole) > self._ahead else 1, put)

    def readall(self) -> bytes:
        """All from the position on."""
        self._check_open()
        start, whole = self._position, io.BytesIO()
        try:
            while left := max(self.size - self._position, 0):
                self._read_on(left, left, lambda piece, at: whole.write(piece))
        except BaseException:
            self._position = start
            raise
        return whole.getvalue()

    def write(self, data: ReadableBuffer, /) -> int:
        """Nothing can be written."""
        raise io.UnsupportedOperation("not writable")

    def pread(self, size: int, offset: int) -> bytes:
        """`size` bytes from `offset` on, fewer at the end; the position stays. Raises ValueError below 0."""
        self._check_open()
        size, offset = operator.index(size), operator.index(offset)
        if size < 0 or offset < 0:
            raise ValueError("a part of a file begins and ends behind its beginning")
        stop, whole, retries = min(offset + size, self.size), io.BytesIO(), Retries()
        while offset < stop:
            retries.begun_at(whole.tell())
            try:
                self._copy_part(offset + whole.tell(), stop, whole)
                break
            except (ConnectionError, Stalled) as error:
                retries.after(error)
        return whole.getvalue()

    def close(self) -> None:
        """Cancel what is under way."""
        if self.closed:
            return
        try:
            self._forget()
        finally:
            super().close()
            if self._leave is not None:
                self._leave()

    # Inside.

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _ask(self, offset: int, length: int | None, hasher: blake3 | None = None) -> Flow:
        asked = m.Read(self._path, offset, length, self._content.version or None)
        return Flow(self._pool, asked, self._wait(), self._content, hasher)

    def _copy_part(self, start: int, stop: int, target: io.BytesIO) -> None:
        flow = self._ask(start, stop - start)
        try:
            while flow.offset < flow.stop:
                target.write(flow.take(stop - start))
            flow.finish()
        finally:
            flow.close()

    def _read_on(self, most: int, wanted: int, put: Callable[[memoryview, int], object]) -> int:
        """Read from the position on: at most so many bytes, all that are `wanted`, less where the file ends.

        `put(piece, at)` gets them, `at` bytes behind the first one.
        """
        start, done, retries = self._position, 0, Retries()
        if start >= self.size or not most:
            return 0
        while True:
            retries.begun_at(done)
            try:
                flow = self._flow_at(start + done, wanted - done)
                while done < most and flow.offset < flow.stop:
                    piece = flow.take(most - done)
                    put(piece, done)
                    done += len(piece)
                if flow.offset == flow.stop:
                    flow.finish()
                break
            except (ConnectionError, Stalled) as error:
                retries.after(error)
            except BaseException:
                # It may have been between any two steps of ours, Ctrl-C for instance.
                self._forget()
                raise
        self._position = start + done
        return done

    def _forget(self) -> None:
        """Nothing is known any more of where what is under way stands."""
        flow, self._flow, self._hasher = self._flow, None, None
        if flow is not None:
            flow.close()

    def _flow_at(self, offset: int, wanted: int) -> Flow:
        """An operation whose next byte is this one."""
        flow = self._flow
        if (
            flow is not None
            and not flow.is_over
            and flow.offset <= offset < flow.stop
            and offset - flow.offset <= _SKIP
        ):
            while flow.offset < offset:
                flow.take(offset - flow.offset)
            return flow
        self._span = self._span * _GROWTH if flow is not None and flow.offset == offset else _FIRST
        if offset == 0:
            self._hasher = blake3()
        elif flow is None or flow.came != offset:
            self._hasher = None
        if flow is not None:
            flow.close()
        rest = self.size - offset
        self._span = max(self._span, wanted)
        length: int | None = min(self._span, rest)
        if self._span > max(_WHOLE, wanted) or self._span >= rest:
            # All up to the end; with the hash of the file where there is something to compare it with.
            length = rest if self._hasher is None else None
        self._flow = self._ask(offset, length, self._hasher)
        return self._flow
