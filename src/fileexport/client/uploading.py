"""One file to the server: at full speed, in chunks that its caller sees, and again after a cut."""

from __future__ import annotations

import errno
import os
import stat
import threading
from typing import Protocol

from blake3 import blake3

from fileexport.client.answers import Stalled, no_directory
from fileexport.client.chunks import CallerRaised, Chunks, Manner, Reports, Retries
from fileexport.client.conversations import hashes
from fileexport.client.operation import Operation
from fileexport.client.pool import Pool
from fileexport.client.sources import Opener, SourceTree
from fileexport.errors import (
    BusyError,
    ChangedWhileRead,
    CorruptedResponse,
)
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.bounds import clamped

#: From this size on an upload that is cut is continued, and hashed beside the sending.
_LARGE = 1 << 20
_PIECE = 1 << 20
#: A frame of content that passes through Python: what TLS takes at once is a part of it.
_COPIED = 256 << 10
#: Smaller frames are not worth their header, unless the server's windows are that small.
_LEAST = 64 << 10
#: The hash runs before the sending at most so far, so that a file is read from its disk once.
_AHEAD = 64 << 20


class Source:
    """A regular file here, open. Raises `SourceNotFound`, `IsADirectoryError`, else `OSError`."""

    def __init__(self, path: str, tree: SourceTree | None = None) -> None:
        """In a `tree` no link is followed to it."""
        with Opener() as opener:
            self.descriptor = opener.open(path, tree)
        self.status = os.fstat(self.descriptor)
        try:
            if stat.S_ISDIR(self.status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            if not stat.S_ISREG(self.status.st_mode):
                raise PermissionError(errno.EACCES, "not a regular file", path)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """In bytes, as it was opened."""
        return self.status.st_size

    @property
    def identity(self) -> bytes:
        """16 bytes that another file, or another content of it, does not have."""
        return blake3(repr(_marks(self.status)).encode("ascii")).digest(length=16)

    def check_same(self) -> None:
        """Raise `ChangedWhileRead` where it was written to since it was opened."""
        if _marks(os.fstat(self.descriptor)) != _marks(self.status):
            raise ChangedWhileRead

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _marks(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Hashing(Protocol):
    """The BLAKE3 of a file that is being sent, made beside the sending."""

    def reached(self, offset: int) -> None: ...
    def digest(self) -> bytes: ...
    def stop(self) -> None: ...


class SourceHash:
    """BLAKE3 of an open file: a large one by a thread beside the sending, a small one when it is asked."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._hasher = blake3()
        self._error: BaseException | None = None
        self._turn = threading.Condition()
        self._limit = _AHEAD
        self._is_stopped = False
        self._thread: threading.Thread | None = None
        if source.size > _LARGE:
            self._thread = threading.Thread(target=self._run, name="fileexport-hash", daemon=True)
            self._thread.start()

    def reached(self, offset: int) -> None:
        """The sending is at `offset`."""
        if offset + _AHEAD >= self._limit + _PIECE:
            with self._turn:
                self._limit = offset + _AHEAD
                self._turn.notify()

    def digest(self) -> bytes:
        """The hash of the whole file. Raises `ChangedWhileRead` where it became shorter, and `OSError`."""
        if self._thread is None:
            self._read_all()
        else:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._hasher.digest()

    def stop(self) -> None:
        """End the thread."""
        with self._turn:
            self._is_stopped = True
            self._turn.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._read_all()
        except BaseException as error:
            self._error = error

    def _read_all(self) -> None:
        self._hasher.reset()
        buffer = memoryview(bytearray(min(_PIECE, self._source.size)))
        offset = 0
        while offset < self._source.size and not self._is_stopped:
            count = os.preadv(self._source.descriptor, [buffer[: self._source.size - offset]], offset)
            if not count:
                raise ChangedWhileRead
            self._hasher.update(buffer[:count])
            offset += count
            with self._turn:
                while offset >= self._limit and not self._is_stopped:
                    self._turn.wait()


def upload(pool: Pool, source: str, target: RelPath, manner: Manner) -> bool:
    """Send the file `source` so that it is `target`; False where `process_chunk` cancelled it.

    Once it returns True the server has committed content, name and modification time. A source that changes
    meanwhile is sent once more from its beginning, `process_chunk` being called again; then it is
    `ChangedWhileRead`. After a cut it goes on by itself, and where the server gave up because the caller took
    so long. After an error nothing stands under the name that was not there before; of a large file the
    server keeps for a day what it got, and a further call goes on there.
    """
    return send(pool, source, target, manner)[0]


def send(pool: Pool, source: str, target: RelPath, manner: Manner) -> tuple[bool, int]:
    """As `upload`; also how many bytes of content travelled."""
    travelled = 0
    for is_last_try in (False, True):
        with Source(source, manner.tree) as opened:
            one = Upload(pool, opened, target, manner)
            try:
                return one.run(), travelled + one.travelled
            except ChangedWhileRead:
                if is_last_try:
                    raise
                travelled += one.travelled
                continue
            except CallerRaised as raised:
                error = raised.error
        # Out here, so that it is what it was: with its own cause and context.
        raise error
    raise AssertionError


class Upload:
    """One file on its way, over as many connections as it takes."""

    def __init__(
        self, pool: Pool, source: Source, target: RelPath, manner: Manner, hashing: Hashing | None = None
    ) -> None:
        """`hashing`: where the hash of the source is made already."""
        self._pool = pool
        self._source = source
        self._target = target
        self._chunks = manner.chunks(source.size, target.name)
        self._reports = manner.reports(source.size)
        self._wait = manner.wait
        mark = source.identity if source.size >= _LARGE else None
        mode = source.status.st_mode & 0o777 if manner.keep_mode else None
        self._asked = m.Write(
            target, source.size, clamped(source.status.st_mtime_ns), manner.replace, mark, mode
        )
        #: Bytes of content that were sent, twice what was sent again.
        self.travelled = 0
        self._hash = hashing or SourceHash(source)
        self._retries = Retries()
        self._has_ended = self._is_doubtful = False

    def run(self) -> bool:
        """Send it. Raises what the server says, `ChangedWhileRead`, and what reading and the caller raise."""
        was_cut = False
        try:
            while True:
                try:
                    return (self._is_doubtful and self._is_committed()) or self._attempt()
                except (ConnectionError, Stalled) as error:
                    self._retries.after(error)
                    was_cut = True
                    self._is_doubtful |= self._has_ended
                except BusyError as error:
                    # What a cut connection held is not free at once.
                    if not was_cut:
                        raise
                    self._retries.after(error)
                except FileExistsError:
                    if self._is_doubtful and not self._asked.replace and self._is_there():
                        return True
                    raise
                except FileNotFoundError as error:
                    raise no_directory(error, str(self._target.parent)) from None
        finally:
            self._hash.stop()

    def _is_committed(self) -> bool:
        """Whether an attempt that was cut had been carried out after all: content and time are ours."""
        path = str(self._target)
        try:
            with self._pool.operation(m.Stat(self._target), self._wait(), path=path, again=True) as operation:
                found = operation.reply(m.Entries).entries
                operation.end()
            ours = [(self._source.size, self._asked.mtime)]
            return [(one.size, one.mtime) for one in found] == ours and self._is_there()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False

    def _is_there(self) -> bool:
        """Whether what stands under the name is ours: an answer that was lost had said so."""
        found = [(one.size, one.digest) for one in self._pool.iterate(hashes(self._target), self._wait())]
        return found == [(self._source.size, self._hash.digest())]

    def _attempt(self) -> bool:
        resumes = self._asked.source is not None
        path = str(self._target)
        with self._pool.operation(self._asked, self._wait(), path=path, answered=resumes) as operation:
            offset = operation.reply(m.Ready).offset if resumes else 0
            if offset > self._source.size:
                raise CorruptedResponse("the server has more of the file than there is")
            self._retries.begun_at(offset)
            sending = Sending(operation, self._source, self._hash, self._reports)
            try:
                self._send(operation, sending, offset)
            finally:
                self.travelled += sending.travelled
            if self._chunks is not None and self._chunks.stopped:
                return False
            self._finish(operation)
        return True

    def _send(self, operation: Operation, sending: Sending, offset: int) -> None:
        """All content from `offset` on."""
        sending.run(offset, self._chunks)

    def _finish(self, operation: Operation) -> None:
        self._source.check_same()
        digest = self._hash.digest()
        self._source.check_same()
        operation.say(m.End(self._source.size, digest))
        self._has_ended = True
        found = operation.answer()
        while isinstance(found, m.Ready):
            found = operation.answer()
        if found != m.End(self._source.size, digest):
            raise CorruptedResponse("the server committed something else")


class Sending:
    """The content of one file onto one stream."""

    def __init__(self, operation: Operation, source: Source, hash: Hashing, reports: Reports) -> None:
        self._operation = operation
        self._connection = operation.connection
        #: Bytes of content that were sent.
        self.travelled = 0
        self._source = source
        self._hash = hash
        self._reports = reports
        session = operation.session
        assert session.peer is not None
        offer = session.peer.limits
        self._largest = offer.data
        self._half = min(offer.stream_credit, offer.connection_credit) // 2
        self._least = max(min(_LEAST, offer.data, self._half), 1)
        #: Credit that is not used.
        self._spare = 0
        self._shrink = None
        if "zstd" in session.features:
            from fileexport.wire.zstd import Shrinker

            self._shrink = Shrinker().pack

    def spare_half(self) -> None:
        """Keep what is on its way small, where it is lost with the connection; half a window is enough."""
        self._spare = max(self._half - self._least, 0)

    def run(self, offset: int, chunks: Chunks | None) -> None:
        """Send all from `offset` on, and all to `chunks` that they have not seen, until they want no more."""
        self._hash.reached(offset)
        if chunks is not None:
            self._send_chunks(offset, chunks)
        else:
            self.send_span(offset, self._source.size)

    def send_span(self, offset: int, end: int) -> None:
        """Send what lies from `offset` to `end`. Raises `ChangedWhileRead` where the file is shorter."""
        if self._connection.can_send_file and self._shrink is None:
            self._send_file(offset, end)
        else:
            self._send_copied(offset, end)

    def _send_file(self, offset: int, end: int) -> None:
        while offset < end:
            size = self._room(end - offset)
            wait = self._operation.wait
            if not self._connection.send_file(
                self._operation.stream, self._source.descriptor, offset, size, wait
            ):
                raise ChangedWhileRead
            self.travelled += size
            offset += size
            self.at(offset)

    def _send_copied(self, offset: int, end: int) -> None:
        buffer = memoryview(bytearray(min(_COPIED, end - offset)))
        while offset < end:
            # No more than one frame holds: what is left of a piece may be too short for a frame of its own.
            count = self._read(buffer[: self._room(end - offset)], offset)
            self._send(buffer[:count])
            offset += count
            self.at(offset)

    def _send_chunks(self, offset: int, chunks: Chunks) -> None:
        buffer = memoryview(bytearray(min(_COPIED, self._source.size)))
        position = min(offset, chunks.fed)
        while position < self._source.size:
            is_there = position < offset
            # As in `_send_copied`; and what is there already ends where the rest begins.
            wanted = offset - position if is_there else self._room(self._source.size - position)
            count = self._read(buffer[:wanted], position)
            if position + count > chunks.fed and not chunks.feed(buffer[chunks.fed - position : count]):
                return
            if not is_there:
                self._send(buffer[:count])
            position += count
            self.at(position)

    def _read(self, buffer: memoryview, offset: int) -> int:
        count = os.preadv(self._source.descriptor, [buffer[: self._source.size - offset]], offset)
        if not count:
            raise ChangedWhileRead
        return count

    def _send(self, content: memoryview) -> None:
        """Send what there was room for. Not in parts: one that is too short for a frame may be left."""
        packed = self._shrink(content) if self._shrink is not None else None
        self._connection.send_content(
            self._operation.stream,
            content if packed is None else packed,
            self._operation.wait,
            compressed=packed is not None,
        )
        self.travelled += len(content)

    def _room(self, left: int) -> int:
        """How much the next frame may hold, of `left` bytes."""
        while not (room := self._operation.room(min(self._least, left) + self._spare)):
            self._operation.reply(m.Ready)
        return min(room - self._spare, left, self._largest)

    def at(self, offset: int) -> None:
        """All before `offset` is there, or on its way."""
        self._hash.reached(offset)
        self._reports.at(offset)
