"""Chunk lists: those of a file here, cut by a thread of its own, and those of a file of the server."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

from blake3 import blake3

from fileexport.client.answers import Stalled
from fileexport.client.chunks import Retries
from fileexport.client.connection import Wait
from fileexport.client.operation import Operation
from fileexport.client.pool import Pool
from fileexport.errors import ChangedWhileRead, CorruptedResponse
from fileexport.paths import RelPath
from fileexport.sync.chunks import FINE, SPREAD, Chunk, cut
from fileexport.sync.gaps import Range
from fileexport.wire import messages as m

#: Chunks of one list: a terabyte of the largest. A longer one is of no use.
MAX_CHUNKS = 4 << 20

T = TypeVar("T")
Waits = Callable[[], Wait]


class _Stopped(Exception):
    """Nobody waits for these chunks any more."""


class Cutting:
    """The chunks of an open file, cut by a thread beside everything else once it is begun, and its hash.

    What is known of the other side's chunks is said by `add` while they come: as far as the two are equal,
    this side need not look where its chunks end, which is most of the work. So it goes behind the other
    side, not beside it.
    """

    def __init__(self, descriptor: int, size: int, average: int, *, is_hashed: bool = False) -> None:
        """`is_hashed`: whether the hash of the whole is wanted."""
        self._descriptor = descriptor
        self._size = size
        self._average = average
        self._hasher = blake3() if is_hashed else None
        self._offset = 0
        self._chunks: list[Chunk] = []
        self._error: BaseException | None = None
        self._is_stopped = False
        self._thread: threading.Thread | None = None
        self._turn = threading.Condition()
        #: The other side's chunks, where each of them stands, and the one that was found here last.
        self._theirs: list[Chunk] = []
        self._places: dict[Chunk, int] = {}
        self._place = -1
        self._are_all = False

    def begin(self) -> None:
        """Begin; a second time does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="fileexport-cut", daemon=True)
            self._thread.start()

    def add(self, chunks: Iterable[Chunk]) -> None:
        """The next chunks of the other side; those beyond as many as this one can have are left out."""
        with self._turn:
            room = most_chunks(self._size, self._average) - len(self._theirs)
            for chunk in islice(chunks, max(room, 0)):
                self._places.setdefault(chunk, len(self._theirs))
                self._theirs.append(chunk)
            self._turn.notify()

    def chunks(self) -> list[Chunk]:
        """All chunks, when they are there; no more of the other side's come. Raises as `digest`."""
        with self._turn:
            self._are_all = True
            self._turn.notify()
        self._end()
        return self._chunks

    def reached(self, offset: int) -> None:
        """The sending is at `offset`: this is not bound to it."""

    def digest(self) -> bytes:
        """The hash of the whole, when all is read. Raises `ChangedWhileRead` where it is short, `OSError`."""
        self._end()
        assert self._hasher is not None
        return self._hasher.digest()

    def stop(self) -> None:
        """End the thread; it may never have begun."""
        with self._turn:
            self._is_stopped = True
            self._turn.notify()
        if self._thread is not None:
            self._thread.join()

    def _end(self) -> None:
        self.begin()
        assert self._thread is not None
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._chunks = list(cut(self._read_into, self._average, self._check, self._guess))
            if self._offset != self._size:
                raise ChangedWhileRead
        except BaseException as error:
            self._error = error

    def _read_into(self, buffer: memoryview) -> int:
        wanted = buffer[: self._size - self._offset]
        count = os.preadv(self._descriptor, [wanted], self._offset)
        if self._hasher is not None:
            self._hasher.update(wanted[:count])
        self._offset += count
        return count

    def _check(self) -> None:
        if self._is_stopped:
            raise _Stopped

    def _guess(self, last: Chunk | None) -> Chunk | None:
        """What the other side has behind the last chunk, if it has that; waits for it where it may come."""
        if last is not None:
            place = self._place + 1
            if not (place < len(self._theirs) and self._theirs[place] == last):
                place = self._places.get(last, -1)
            if place < 0:
                return None
            self._place = place
        with self._turn:
            while self._place + 1 >= len(self._theirs) and not (self._are_all or self._is_stopped):
                self._turn.wait()
        return self._theirs[self._place + 1] if self._place + 1 < len(self._theirs) else None


def cut_ranges(descriptor: int, ranges: Sequence[Range]) -> list[list[Chunk]]:
    """The chunks of ranges of a file, each cut by itself and fine. Raises `ChangedWhileRead`, `OSError`."""
    found: list[list[Chunk]] = []
    for start, size in ranges:
        offset, end = start, start + size

        def read_into(buffer: memoryview, end: int = end) -> int:
            nonlocal offset
            count = os.preadv(descriptor, [buffer[: end - offset]], offset)
            offset += count
            return count

        found.append(list(cut(read_into, FINE)))
        if offset != end:
            raise ChangedWhileRead
    return found


class Listed(NamedTuple):
    """A file of the server as it cuts it."""

    path: RelPath
    version: bytes
    chunks: list[Chunk]


class Known(NamedTuple):
    """What is known of a file before it is asked for: its version, and the sizes of what is cut of it."""

    version: bytes
    sizes: Sequence[int]


def most_chunks(size: int, average: int) -> int:
    """As many chunks as a file of this size can have, about four times as many as others have."""
    return size // (average // SPREAD) + 1


def ask_chunks(
    pool: Pool,
    path: RelPath,
    average: int,
    wait: Waits,
    cuttings: Callable[[], Sequence[Cutting]],
    *,
    known: Known | None = None,
    room: int = MAX_CHUNKS,
) -> Listed | None:
    """The chunks of a file of the server; None where they are more than there is `room` for.

    `cuttings` is called when it begins to cut, and says who is to know these chunks while they come. Raises
    `ChangedWhileRead` where it is not as `known`.
    """
    asked = m.GetChunks(path, average)

    def read(operation: Operation) -> Listed | None:
        found = _read(operation, asked, known, room, cuttings())
        return None if found is None else Listed(path, found[0], found[1][0])

    return _asked(pool, asked, wait, read)


def ask_ranges(
    pool: Pool, path: RelPath, version: bytes, wait: Waits, ranges: Sequence[Range]
) -> list[list[Chunk]]:
    """The same of ranges of this version of the file, each cut by itself and fine.

    Raises `ChangedWhileRead` where it is another version by now.
    """
    asked = m.GetChunks(path, FINE, ranges=[m.Span(*one) for one in ranges])
    known = Known(version, [size for _, size in ranges])
    found = _asked(pool, asked, wait, partial(_read, asked=asked, known=known))
    if found is None:
        raise CorruptedResponse("more chunks than those of the ranges")
    return found[1]


def _asked(pool: Pool, asked: m.GetChunks, wait: Waits, read: Callable[[Operation], T]) -> T:
    retries = Retries()
    while True:
        try:
            with pool.operation(asked, wait(), path=str(asked.path), answered=False) as operation:
                retries.begun_at(0)
                return read(operation)
        except (ConnectionError, Stalled) as error:
            retries.after(error)


def _read(
    operation: Operation,
    asked: m.GetChunks,
    known: Known | None,
    room: int = MAX_CHUNKS,
    cuttings: Sequence[Cutting] = (),
) -> tuple[bytes, list[list[Chunk]]] | None:
    """The version, and the chunks of each range; None where they are too many."""
    chunks: list[Chunk] = []
    version = None if known is None else known.version
    most = room if known is None else sum(most_chunks(size, asked.average) for size in known.sizes)
    is_first = True
    while not isinstance(found := operation.answer(), m.End):
        if not isinstance(found, m.Chunks) or not (found.chunks or is_first):
            raise CorruptedResponse("an answer of another kind, or with nothing in it")
        is_first = False
        if version not in (None, found.version):
            raise ChangedWhileRead
        version = found.version
        more = [Chunk(row.size, row.digest) for row in found.chunks]
        chunks += more
        if known is not None and len(chunks) > most:
            raise CorruptedResponse("more chunks than the file can have")
        if len(chunks) > room:
            return None
        for cutting in cuttings:
            cutting.add(more)
    if is_first or version is None or found.size != sum(chunk.size for chunk in chunks):
        raise CorruptedResponse("chunks that are not the whole of a file")
    return version, _parts(chunks, asked.average, [found.size] if known is None else known.sizes)


def _parts(chunks: Sequence[Chunk], average: int, sizes: Sequence[int]) -> list[list[Chunk]]:
    """The chunks of ranges of these sizes, if they can be that: only the last of a range may be short."""
    least, most = average // SPREAD, average * SPREAD
    found: list[list[Chunk]] = []
    rest = iter(chunks)
    for left in sizes:
        part: list[Chunk] = []
        while left:
            chunk = next(rest, None)
            if chunk is None or not min(least, left) <= chunk.size <= min(most, left):
                raise CorruptedResponse(
                    "chunks that are not as long as chunks are, or fewer than there must be"
                )
            part.append(chunk)
            left -= chunk.size
        found.append(part)
    if next(rest, None) is not None:
        raise CorruptedResponse("more chunks than those of the file")
    return found
