"""Chunk lists: those of a file here, cut by a thread of its own, and those of a file of the server."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fileexport.client.answers import Stalled
from fileexport.client.chunks import Retries
from fileexport.client.connection import Wait
from fileexport.client.operation import Operation
from fileexport.client.pool import Pool
from fileexport.errors import ChangedWhileRead, CorruptedResponse
from fileexport.paths import RelPath
from fileexport.sync.chunks import Chunk, cut
from fileexport.wire import messages as m

#: Chunks of one list: a terabyte of the largest. A longer one is of no use.
_MAX_CHUNKS = 4 << 20
#: The largest chunk is so many averages long.
_SPREAD = 4

Waits = Callable[[], Wait]


class _Stopped(Exception):
    """Nobody waits for these chunks any more."""


class Cutting:
    """The chunks of an open file, cut by a thread beside everything else.

    `reached` is told how far it has read.
    """

    def __init__(
        self, descriptor: int, size: int, average: int, reached: Callable[[int], object] = lambda offset: None
    ) -> None:
        self._descriptor = descriptor
        self._size = size
        self._average = average
        self._reached = reached
        self._offset = 0
        self._chunks: list[Chunk] = []
        self._error: BaseException | None = None
        self._is_done = self._is_stopped = False
        self._turn = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="fileexport-cut", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Chunk]:
        """All chunks from the first on, waiting for them. Raises `ChangedWhileRead`, `OSError`."""
        at = 0
        while True:
            with self._turn:
                while at == len(self._chunks) and not self._is_done:
                    self._turn.wait()
                end = len(self._chunks)
            if at == end:
                break
            yield from self._chunks[at:end]
            at = end
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the thread; the chunks that are there stay."""
        self._is_stopped = True
        self._thread.join()

    def _run(self) -> None:
        try:
            for chunk in cut(self._read_into, self._average, self._check):
                with self._turn:
                    self._chunks.append(chunk)
                    self._turn.notify()
            if self._offset != self._size:
                raise ChangedWhileRead
        except BaseException as error:
            self._error = error
        with self._turn:
            self._is_done = True
            self._turn.notify()

    def _read_into(self, buffer: memoryview) -> int:
        count = os.preadv(self._descriptor, [buffer[: self._size - self._offset]], self._offset)
        self._offset += count
        self._reached(self._offset)
        return count

    def _check(self) -> None:
        if self._is_stopped:
            raise _Stopped


class Listed(NamedTuple):
    """A file of the server as it cuts it."""

    path: RelPath
    version: bytes
    chunks: list[Chunk]


def ask_chunks(
    pool: Pool, path: RelPath, average: int, wait: Waits, begun: Callable[[], object]
) -> Listed | None:
    """The chunks of a file of the server; None where they are too many. `begun` is called while it cuts."""
    retries = Retries()
    while True:
        try:
            asked = m.GetChunks(path, average)
            with pool.operation(asked, wait(), path=str(path), answered=False) as operation:
                retries.begun_at(0)
                begun()
                return _read(operation, path, average)
        except (ConnectionError, Stalled) as error:
            retries.after(error)


def _read(operation: Operation, path: RelPath, average: int) -> Listed | None:
    chunks: list[Chunk] = []
    version: bytes | None = None
    while not isinstance(found := operation.answer(), m.End):
        if not isinstance(found, m.Chunks) or (version is not None and not found.chunks):
            raise CorruptedResponse("an answer of another kind, or with nothing in it")
        if version not in (None, found.version):
            raise ChangedWhileRead
        version = found.version
        if any(row.size > _SPREAD * average for row in found.chunks):
            raise CorruptedResponse("a chunk that is longer than chunks are")
        chunks += [Chunk(row.size, row.digest) for row in found.chunks]
        if len(chunks) > _MAX_CHUNKS:
            return None
    if version is None or found.size != sum(chunk.size for chunk in chunks):
        raise CorruptedResponse("chunks that are not the whole of a file")
    return Listed(path, version, chunks)
