"""What is in a file: its hash, and the chunks it is cut into. Read once while the file stays as it is.

What was read is remembered by device, inode, size, mtime and ctime of the file. A file that was changed just
now is not remembered: it may change again within the same tick of the file system's clock, and look the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from struct import Struct
from typing import Protocol

from blake3 import blake3

from fileexport.disk.contents_cache import MAX_DATA
from fileexport.disk.views import Opened
from fileexport.errors import ChangedWhileRead
from fileexport.sync.chunks import FINE, LEAST, Chunk, cut
from fileexport.sync.gaps import Range

#: Smaller files are not remembered: to read them again costs no more than to ask.
WORTH = LEAST
#: Nanoseconds that a file has to be left alone before it is read, to be remembered: the coarsest clock of a
#: file system (FAT) ticks every two seconds.
SETTLED = 2 * 10**9
#: Chunks of one list, and bytes of a file that are read before others have their turn.
MAX_CHUNKS, STEP = 1024, 64 << 20
_PIECE = 1 << 20

#: A chunk as it is remembered.
_CHUNK = Struct(">I32s")


class Cache(Protocol):
    """Where it is remembered; nothing of it raises."""

    def get(self, place: bytes, version: bytes) -> bytes | None: ...
    def add(self, place: bytes, version: bytes, data: bytes) -> None: ...
    def flush(self) -> None: ...


def _nothing() -> None:
    """Nobody wants to end it."""


class Contents:
    """Reads files through `cache`, if there is one; it may be set later. Thread-safe, the cache given.

    Each call has a regular file open; where its descriptor stands does not matter. `check` is called between
    pieces and may raise. With `fresh` the file is read whatever is remembered. All raise `OSError`.
    """

    def __init__(self, cache: Cache | None = None, now: Callable[[], int] = time.time_ns) -> None:
        """`now` is in nanoseconds since 1970."""
        self.cache = cache
        self._now = now

    def digest(
        self, opened: Opened, check: Callable[[], object] = _nothing, *, fresh: bool = False
    ) -> tuple[int, bytes]:
        """Size and BLAKE3 of a file, as it was read."""
        hashing = self.hashing(opened, check, fresh=fresh)
        while True:
            try:
                next(hashing)
            except StopIteration as end:
                size, digest = end.value
                self.flush()
                return size, digest

    def hashing(
        self, opened: Opened, check: Callable[[], object] = _nothing, *, fresh: bool = False
    ) -> Generator[None, None, tuple[int, bytes]]:
        """The same; yields within a large file, so that no step takes long. `flush` after the last file."""
        entry = _Entry(self.cache, opened, "digest", self._now())
        known = None if fresh else entry.get()
        if known is not None and len(known) == blake3.digest_size:
            return opened.stat.st_size, known
        hasher, size, paused = blake3(), 0, 0
        buffer = memoryview(bytearray(min(_PIECE, max(opened.stat.st_size, 1))))
        while count := opened.read_at(buffer, size):
            check()
            hasher.update(buffer[:count])
            size += count
            if size - paused >= STEP:
                paused = size
                yield
        digest = hasher.digest()
        entry.add(size, digest)
        return size, digest

    def chunks(
        self, opened: Opened, average: int, check: Callable[[], object] = _nothing, *, fresh: bool = False
    ) -> Iterator[list[Chunk]]:
        """The chunks of a file of this `average` size, in order: at most `MAX_CHUNKS` in each list.

        No list takes long; only the last step stores what was read.
        """
        entry = _Entry(self.cache, opened, f"chunks of {average}", self._now())
        known = None if fresh else _unpacked(entry.get(), opened.stat.st_size)
        if known is not None:
            check()
            for first in range(0, len(known), MAX_CHUNKS):
                yield known[first : first + MAX_CHUNKS]
            return
        size = 0
        packed = bytearray()
        for chunks in _batches(cut(_Reader(opened).read_into, average, check)):
            size += sum(chunk.size for chunk in chunks)
            if entry.is_wanted and len(packed) <= MAX_DATA:
                packed += b"".join(_CHUNK.pack(*chunk) for chunk in chunks)
            yield chunks
        if len(packed) <= MAX_DATA:
            entry.add(size, bytes(packed))
        self.flush()

    def parts(
        self, opened: Opened, ranges: Sequence[Range], check: Callable[[], object] = _nothing
    ) -> Iterator[list[Chunk]]:
        """The fine chunks of parts of a file, each cut by itself, in lists as those of `chunks`.

        They are not remembered: who has compared once asks for others. Raises `ChangedWhileRead` where the
        file ends before.
        """
        yield from _batches(chunk for part in ranges for chunk in _part(opened, part, check))

    def flush(self) -> None:
        """Have stored what was read."""
        if self.cache is not None:
            self.cache.flush()


class _Reader:
    """Reads an open file from an offset to its end, or `size` bytes of it."""

    def __init__(self, opened: Opened, offset: int = 0, size: int | None = None) -> None:
        self._opened = opened
        self._offset = offset
        self.left = size

    def read_into(self, buffer: memoryview) -> int:
        count = self._opened.read_at(buffer[: self.left], self._offset)
        self._offset += count
        if self.left is not None:
            self.left -= count
        return count


def _part(opened: Opened, part: Range, check: Callable[[], object]) -> Iterator[Chunk]:
    reader = _Reader(opened, *part)
    yield from cut(reader.read_into, FINE, check)
    if reader.left:
        raise ChangedWhileRead


class _Entry:
    """What is remembered of one file."""

    def __init__(self, cache: Cache | None, opened: Opened, what: str, now: int) -> None:
        status = opened.stat
        self._opened = opened
        self._cache = cache if status.st_size >= WORTH else None
        self._place = _digest(status.st_dev, status.st_ino, what)
        self._version = _version(status)
        is_settled = now - max(status.st_mtime_ns, status.st_ctime_ns) >= SETTLED
        #: Whether it will be remembered, if it stays as it is.
        self.is_wanted = self._cache is not None and is_settled

    def get(self) -> bytes | None:
        """What is remembered of it as it was opened."""
        return None if self._cache is None else self._cache.get(self._place, self._version)

    def add(self, size: int, data: bytes) -> None:
        """Remember it, unless the file did not stay as it was opened; `size` bytes of it were read."""
        if self._cache is None or not self.is_wanted or size != self._opened.stat.st_size:
            return
        with suppress(OSError):
            if _version(self._opened.stat_now()) == self._version:
                self._cache.add(self._place, self._version, data)


def _version(status: os.stat_result) -> bytes:
    return _digest(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _digest(*values: object) -> bytes:
    """Of numbers of any size: a database may hold only some."""
    return blake3(repr(values).encode("ascii")).digest(length=16)


def _batches(chunks: Iterator[Chunk]) -> Iterator[list[Chunk]]:
    found: list[Chunk] = []
    size = 0
    for chunk in chunks:
        found.append(chunk)
        size += chunk.size
        if len(found) >= MAX_CHUNKS or size >= STEP:
            yield found
            found, size = [], 0
    if found:
        yield found


def _unpacked(data: bytes | None, size: int) -> list[Chunk] | None:
    """The chunks that are remembered of a file of this size; None where they are not such."""
    if data is None or len(data) % _CHUNK.size:
        return None
    chunks = [Chunk(*row) for row in _CHUNK.iter_unpack(data)]
    is_right = all(chunk.size for chunk in chunks) and sum(chunk.size for chunk in chunks) == size
    return chunks if is_right else None
