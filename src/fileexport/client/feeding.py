"""The content of a file in its order: parts out of files here, the others asked for in bulk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType

from fileexport.client.connection import Wait
from fileexport.client.listings import grower
from fileexport.client.operation import Operation
from fileexport.client.pool import Pool
from fileexport.disk.jail import Opened
from fileexport.errors import ChangedWhileRead, CorruptedResponse
from fileexport.paths import RelPath
from fileexport.sync.chunks import LITERAL, Piece
from fileexport.wire import messages as m

#: Bytes of the file that one request for parts of it reaches over: the server waits while we copy.
_REACH = 1 << 30

Waits = Callable[[], Wait]


class Feed:
    """The content of a file, piece by piece: out of bases here, or from the server, which is asked for many.

    A context manager; `travelled` are bytes of content that came.
    """

    def __init__(self, pool: Pool, path: RelPath, version: bytes, size: int, wait: Waits) -> None:
        self._pool = pool
        self._path = path
        self._version = version
        self._size = size
        self._wait = wait
        self._bases: Sequence[Opened] = ()
        self._pieces: Iterator[Piece] = iter(())
        #: Those that the present request was made for.
        self._waiting: deque[Piece] = deque()
        self._held = ExitStack()
        self._operation: Operation | None = None
        self._rest = memoryview(b"")
        self.travelled = 0

    def begin(self, bases: Sequence[Opened], pieces: Iterator[Piece]) -> None:
        """Take the content from here on out of these."""
        self._bases = bases
        self._pieces = pieces

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._end()
        self._held.__exit__(kind, error, trace)

    def read_into(self, buffer: memoryview) -> None:
        """Fill the buffer. Raises `ChangedWhileRead` where base or file is another, and as `answer` does."""
        while buffer:
            if not self._waiting:
                self._end()
                self._ask()
            base, offset, size = self._waiting.popleft()
            part = buffer[:size]
            if base == LITERAL:
                count = self._receive(part)
            elif not (count := self._bases[base].read_at(part, offset)):
                raise ChangedWhileRead
            if count < size:
                self._waiting.appendleft(Piece(base, offset + count, size - count))
            buffer = buffer[count:]

    def _ask(self) -> None:
        """The next pieces; and those of them that are not here from the server."""
        spans: list[m.Span] = []
        reach = 0
        for piece in self._pieces:
            self._waiting.append(piece)
            reach += piece.size
            if piece.base == LITERAL:
                spans.append(m.Span(piece.offset, piece.size))
            if len(spans) == m.MAX_BATCH or reach >= _REACH:
                break
        if not spans:
            return
        asked = m.Read(self._path, version=self._version, ranges=spans)
        begun = self._pool.operation(asked, self._wait(), path=str(self._path), again=True)
        self._operation = self._held.enter_context(begun)
        self._grow = grower(self._operation.session.features)
        found = self._operation.reply(m.Content)
        if found.version != self._version or found.size != self._size:
            raise ChangedWhileRead

    def _receive(self, buffer: memoryview) -> int:
        operation = self._operation
        assert operation is not None
        while not self._rest:
            found = operation.content()
            if isinstance(found, m.End):
                raise CorruptedResponse("less of a file than was asked for")
            piece = self._grow(found)
            operation.consumed(len(found.piece))
            if piece is not None:
                self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self.travelled += count
        return count

    def _end(self) -> None:
        """The server has said all that it was asked for."""
        operation, self._operation = self._operation, None
        if operation is None:
            return
        if self._rest or operation.end().size != self._size:
            raise CorruptedResponse("more of a file than was asked for, or of another one")
        self._held.close()
