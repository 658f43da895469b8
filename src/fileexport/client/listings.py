"""What the server says of its files: listings, hashes, and the content of one as it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fileexport.client.connection import Wait
from fileexport.client.names import RemoteEntry, RemoteHash
from fileexport.client.pool import Pool
from fileexport.errors import ChangedWhileRead, CorruptedResponse
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.frames import Data

#: Entries of one listing, and hashes of one tree: more is no directory, but a server that never ends.
MAX_ENTRIES = 10_000_000
#: Characters of the paths of listings that are kept whole: entries may be many, or long, not both.
MAX_KEPT = 256 << 20

Grow = Callable[[Data], "bytes | memoryview | None"]


def entries(pool: Pool, path: RelPath, recursive: bool, wait: Wait) -> Iterator[RemoteEntry]:
    """The entries of a directory as they come. Raises what the server says, `CorruptedResponse` for a lie."""
    count = 0
    with pool.operation(m.List(path, recursive), wait, path=str(path), again=True) as operation:
        while (found := operation.batch(m.Entries)) is not None:
            count = _counted(count, len(found.entries))
            for entry in found.entries:
                if not entry.path or (len(entry.path.parts) > 1 and not recursive):
                    raise CorruptedResponse("an entry of a listing that is none of its names")
                yield RemoteEntry("/".join(entry.path.parts), entry.type, entry.size, entry.mtime)


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


def hashes(pool: Pool, path: RelPath, wait: Wait) -> Iterator[RemoteHash]:
    """The hash of a file, or of each file below a directory, as they come."""
    count = 0
    with pool.operation(m.Hash(path), wait, path=str(path), again=True) as operation:
        while (found := operation.batch(m.Hashes)) is not None:
            count = _counted(count, len(found.hashes))
            for one in found.hashes:
                yield RemoteHash("/".join(one.path.parts), one.size, one.digest)


def _counted(count: int, batch: int) -> int:
    if not batch:
        raise CorruptedResponse("a batch with nothing in it")
    if count + batch > MAX_ENTRIES:
        raise CorruptedResponse(f"more than {MAX_ENTRIES} entries in one answer")
    return count + batch


def content(pool: Pool, path: RelPath, wait: Wait) -> Iterator[bytes]:
    """The content of a file as it comes; at its end `ChangedWhileRead` where it was not all of one file."""
    from blake3 import blake3

    hasher, size = blake3(), 0
    with pool.operation(m.Read(path), wait, path=str(path), again=True) as operation:
        announced = operation.reply(m.Content)
        if announced.offset:
            raise CorruptedResponse("a file that does not begin at its beginning")
        grow = grower(operation.session.features)
        while not isinstance(found := operation.content(), m.End):
            piece = grow(found)
            operation.consumed(len(found.piece))
            if piece is not None:
                size += len(piece)
                if size > announced.size:
                    raise CorruptedResponse("a file that is longer than was said")
                hasher.update(piece)
                yield bytes(piece)
        if found.size != size or announced.size != size or found.digest != hasher.digest():
            raise ChangedWhileRead


def grower(features: frozenset[str]) -> Grow:
    """What makes content of pieces of DATA."""
    if "zstd" not in features:
        return _plain
    from fileexport.wire.zstd import Grower

    return Grower().feed


def _plain(data: Data) -> memoryview:
    return data.piece
