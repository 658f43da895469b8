"""How much a server may say of its files, and what makes content of what it sends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fileexport.client.names import RemoteEntry
from fileexport.errors import CorruptedResponse
from fileexport.wire.frames import Data

#: Entries of one listing, and hashes of one tree: more is no directory, but a server that never ends.
MAX_ENTRIES = 10_000_000
#: Characters of the paths of listings that are kept whole: entries may be many, or long, not both.
MAX_KEPT = 256 << 20

Grow = Callable[[Data], "bytes | memoryview | None"]


class Kept:
    """How much of one or several listings is kept in memory: no server decides that."""

    def __init__(self) -> None:
        self._count = self._size = 0

    def all(self, found: Iterable[RemoteEntry]) -> Iterator[RemoteEntry]:
        """One more listing, entry by entry; raises `CorruptedResponse` where that is too much together."""
        for entry in found:
            self._count += 1
            self._size += len(entry.path)
            if self._count > MAX_ENTRIES or self._size > MAX_KEPT:
                raise CorruptedResponse("a listing that is too long to be kept")
            yield entry


def counted(count: int, batch: int) -> int:
    """How many entries came, with this batch. Raises `CorruptedResponse` where no honest server says that."""
    if not batch:
        raise CorruptedResponse("a batch with nothing in it")
    if count + batch > MAX_ENTRIES:
        raise CorruptedResponse(f"more than {MAX_ENTRIES} entries in one answer")
    return count + batch


def grower(features: frozenset[str]) -> Grow:
    """What makes content of pieces of DATA."""
    if "zstd" not in features:
        return _plain
    from fileexport.wire.zstd import Grower

    return Grower().feed


def _plain(data: Data) -> memoryview:
    return data.piece
