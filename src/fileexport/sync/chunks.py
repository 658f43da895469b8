"""Files as chunks: FastCDC cuts them, BLAKE3 names them, and a new file is told in pieces of old ones. Pure.

The parameters belong to the transfer protocol (docs/protocol.md): both sides must cut alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias

#: Smaller files travel whole.
LEAST = 128 << 10
#: The average sizes in which a file may be cut, and the one for parts of a file.
AVERAGES = (32 << 10, 64 << 10, 256 << 10)
FINE = 4 << 10
#: Files from these sizes on are cut by the second and the third average.
_LARGER = (64 << 20, 1 << 30)
#: The smallest and the largest chunk are a quarter of the average and four times as much.
SPREAD = 4
#: Largest chunks that are read at a time.
_READ = 4
#: The base of a piece that no base has.
LITERAL = -1


class Chunk(NamedTuple):
    """A part of a file: its length in bytes, and its BLAKE3."""

    size: int
    digest: bytes


class Piece(NamedTuple):
    """A range of the new file: of `bases[base]` from `offset` on, or a literal (`LITERAL`).

    A literal's `offset` is the one in the new file.
    """

    base: int
    offset: int
    size: int


def average_for(size: int) -> int:
    """The average in which a file of `size` bytes is cut, so that lists stay short and pieces small."""
    return AVERAGES[sum(size >= least for least in _LARGER)]


#: Is told the chunk that was cut last, None at first, and says which one may come next, if it knows any.
Guess: TypeAlias = Callable[["Chunk | None"], "Chunk | None"]


def _nothing() -> None:
    pass


def _unknown(last: Chunk | None) -> Chunk | None:
    return None


class _Window:
    """What was read and is not cut yet."""

    def __init__(
        self, read_into: Callable[[memoryview], int], check: Callable[[], object], longest: int
    ) -> None:
        self._read_into = read_into
        self._check = check
        self._longest = longest
        self._buffer = memoryview(bytearray(_READ * longest))
        self._start = self._end = 0
        self._is_whole = False

    def view(self) -> memoryview:
        """What comes next, as much as a chunk may have of it; empty at the end."""
        if self._end - self._start < self._longest and not self._is_whole:
            self._fill()
        return self._buffer[self._start : min(self._end, self._start + self._longest)]

    def take(self, size: int) -> None:
        """So much of it is cut."""
        self._start += size

    def _fill(self) -> None:
        rest = self._end - self._start
        self._buffer[:rest] = self._buffer[self._start : self._end]
        self._start, self._end = 0, rest
        while self._end < len(self._buffer) and not self._is_whole:
            self._check()
            count = self._read_into(self._buffer[self._end :])
            self._end += count
            self._is_whole = not count


def cut(
    read_into: Callable[[memoryview], int],
    average: int,
    check: Callable[[], object] = _nothing,
    guess: Guess = _unknown,
) -> Iterator[Chunk]:
    """Yield the chunks of what `read_into` gives until it gives 0.

    It holds sixteen times the average. `check` is called before every read, and ends the work by raising.
    To find where a chunk ends costs more than to hash it: where `guess` is right, that is saved. It says
    chunks that some file was cut into; what follows the end of that file may be cut elsewhere then, but the
    chunks are always those of the content, and only the last is shorter than chunks are. Raises `ValueError`
    for an average that is neither `FINE` nor one of `AVERAGES`, and what the functions raise.
    """
    if average not in (FINE, *AVERAGES):
        raise ValueError(f"files are not cut into chunks of {average} bytes")
    from blake3 import blake3
    from pyfastcdc import FastCDC

    least, longest = average // SPREAD, average * SPREAD
    cutter = FastCDC(average, min_size=least, max_size=longest, normalized_chunking=1, seed=0)
    window = _Window(read_into, check, longest)
    last: Chunk | None = None
    while view := window.view():
        likely = guess(last)
        if (
            likely is None
            or not min(least, len(view)) <= likely.size <= len(view)
            or blake3(view[: likely.size]).digest() != likely.digest
        ):
            size = next(cutter.cut_buf(view)).length
            likely = Chunk(size, blake3(view[:size]).digest())
        last = likely
        window.take(last.size)
        yield last


class _Bases:
    """Where the bases have which chunk: of equal ones the first."""

    def __init__(self, bases: Sequence[Sequence[Chunk]]) -> None:
        self._bases = bases
        self._starts = [list(accumulate((chunk.size for chunk in base), initial=0)) for base in bases]
        self._places: dict[Chunk, tuple[int, int]] = {}
        for number in reversed(range(len(bases))):
            base = bases[number]
            for at in reversed(range(len(base))):
                self._places[base[at]] = (number, at)

    def find(self, chunk: Chunk, after: tuple[int, int] | None) -> tuple[int, int] | None:
        """The place (base, number) of a chunk, if possible the one next to `after`."""
        if after is not None:
            number, at = after[0], after[1] + 1
            base = self._bases[number]
            if at < len(base) and base[at] == chunk:
                return number, at
        return self._places.get(chunk)

    def offset(self, place: tuple[int, int]) -> int:
        return self._starts[place[0]][place[1]]


def recipe(new: Iterable[Chunk], bases: Sequence[Sequence[Chunk]]) -> Iterator[Piece]:
    """Tell a file in pieces of others: in its order, and neighbours in one where they are that on both sides.

    What several bases have is taken from the one that was read last, where that goes on so, else from the
    first. The time is linear in the number of chunks.
    """
    return joined(_told(new, _Bases(bases)))


def _told(new: Iterable[Chunk], known: _Bases) -> Iterator[Piece]:
    place: tuple[int, int] | None = None
    position = 0
    for chunk in new:
        place = known.find(chunk, place)
        if place is None:
            yield Piece(LITERAL, position, chunk.size)
        else:
            yield Piece(place[0], known.offset(place), chunk.size)
        position += chunk.size


def joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same, neighbours in one where they are that on both sides."""
    last: Piece | None = None
    for piece in pieces:
        if last is None:
            last = piece
        elif last.base == piece.base and last.offset + last.size == piece.offset:
            last = Piece(last.base, last.offset, last.size + piece.size)
        else:
            yield last
            last = piece
    if last is not None:
        yield last


def pieces_from(pieces: Iterable[Piece], offset: int) -> Iterator[Piece]:
    """What is left of the pieces behind the first `offset` bytes of the new file."""
    for piece in pieces:
        if offset >= piece.size:
            offset -= piece.size
        elif offset:
            yield Piece(piece.base, piece.offset + offset, piece.size - offset)
            offset = 0
        else:
            yield piece
