"""What a caller sees of a transfer under way: its chunks, which it may stop, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fileexport.client.connection import Wait
    from fileexport.client.sources import SourceTree

#: Sizes of chunks that are allowed, in bytes; a server may allow less.
MIN_CHUNK, MAX_CHUNK = 512, 1 << 20
DEFAULT_CHUNK = 64 << 10
#: Bytes between two reports of progress.
_REPORT_EVERY = 1 << 20
#: Seconds before the next try after a cut; one more cut without progress is the end. Together half a minute:
#: a daemon restarts, and a laptop changes its network, in less.
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)

#: `process_chunk(chunk_data, remaining_bytes, file_size, file_name)`; False cancels.
ProcessChunk = Callable[[bytes, int, int, str], object]
#: `progress(bytes_done, size)`
Progress = Callable[[int, int], object]


#: How this thread waits before it tries again, where that can be cancelled; otherwise it sleeps.
PAUSING: ContextVar[Callable[[float], object] | None] = ContextVar("PAUSING", default=None)


def pause(seconds: float) -> None:
    """Wait before the next try."""
    (PAUSING.get() or time.sleep)(seconds)


def check_chunk_size(size: int) -> None:
    """Raise ValueError where no chunk may have this size."""
    if not MIN_CHUNK <= size <= MAX_CHUNK:
        raise ValueError(f"a chunk has {MIN_CHUNK} to {MAX_CHUNK} bytes, not {size}")


class CallerRaised(Exception):
    """What a caller's function raised: none of our own errors, whatever its type."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class Chunks:
    """Hands the content of one file to a caller, in chunks of one size; only the last may be shorter.

    `stopped`: the caller said False, or raised.
    """

    def __init__(self, process: ProcessChunk, chunk_size: int, file_size: int, file_name: str) -> None:
        self._process = process
        self._size = chunk_size
        self._file_size = file_size
        self._file_name = file_name
        self._held = bytearray()
        self._handed = 0
        self.stopped = False

    @property
    def fed(self) -> int:
        """Bytes that were fed so far, from the file's beginning."""
        return self._handed + len(self._held)

    def feed(self, content: bytes | memoryview) -> bool:
        """Take the next bytes. False: the caller wants no more. What it raises is `CallerRaised`."""
        rest = memoryview(content)
        if self._held:
            missing = self._size - len(self._held)
            self._held += rest[:missing]
            rest = rest[missing:]
            if len(self._held) < self._size and not self._is_last():
                return True
            held, self._held = bytes(self._held), bytearray()
            if not self._hand(held):
                return False
        while len(rest) >= self._size:
            if not self._hand(bytes(rest[: self._size])):
                return False
            rest = rest[self._size :]
        self._held += rest
        if self._held and self._is_last():
            held, self._held = bytes(self._held), bytearray()
            return self._hand(held)
        return True

    def _is_last(self) -> bool:
        return self.fed >= self._file_size

    def _hand(self, chunk: bytes) -> bool:
        self.stopped = True
        try:
            answer = self._process(chunk, self._file_size - self._handed, self._file_size, self._file_name)
        except BaseException as error:
            raise CallerRaised(error) from None
        self._handed += len(chunk)
        self.stopped = answer is not None and not answer
        return not self.stopped


class Reports:
    """Tells a caller how far a file is: about once a MiB, and at its end."""

    def __init__(self, progress: Progress | None, size: int) -> None:
        self._progress = progress
        self._size = size
        self._told = 0

    def at(self, done: int) -> None:
        """So many bytes have gone over. What the caller raises is `CallerRaised`.

        Not so Ctrl-C: whoever is shown how far it is did not cancel, and may want to go on later.
        """
        if self._progress is not None and (
            done - self._told >= _REPORT_EVERY or done >= self._size > self._told
        ):
            self._told = done
            try:
                self._progress(done, self._size)
            except Exception as error:
                raise CallerRaised(error) from None


class Manner(NamedTuple):
    """How a file goes over, as its caller wishes.

    `file_name` is what `process_chunk` gets; without it, the file's own name there. `wait` gives the patience
    for one operation. With `keep_mode` the file's permissions go with it. What is sent may lie in a `tree`.
    """

    wait: Callable[[], Wait]
    replace: bool = False
    chunk_size: int = DEFAULT_CHUNK
    process_chunk: ProcessChunk | None = None
    progress: Progress | None = None
    file_name: str | None = None
    keep_mode: bool = False
    tree: SourceTree | None = None

    def chunks(self, size: int, name: str) -> Chunks | None:
        """What hands a file of `size` bytes to the caller; None where it does not want to see it."""
        if self.process_chunk is None:
            return None
        return Chunks(self.process_chunk, self.chunk_size, size, self.file_name or name)

    def reports(self, size: int) -> Reports:
        """What tells the caller how far a file of `size` bytes is."""
        return Reports(self.progress, size)


class Retries:
    """How often a transfer that is cut goes on: as long as it comes further, and a few times more."""

    def __init__(self) -> None:
        self._reached = -1
        self._failed = 0
        self.has_begun = False

    def begun_at(self, offset: int) -> None:
        """The server answered: it goes on from `offset`."""
        self.has_begun = True
        if offset > self._reached:
            self._reached = offset
            self._failed = 0

    def after(self, error: Exception) -> None:
        """Wait before the next try; raises `error` where there is none."""
        if not self.has_begun or self._failed >= len(BACKOFF):
            raise error
        pause(BACKOFF[self._failed])
        self._failed += 1
