"""Files as chunks: FastCDC cuts them, BLAKE3 names them, and a new file is told in pieces of old ones. Pure.

The parameters belong to the transfer protocol (docs/protocol.md): both sides must cut alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

#: Smaller files travel whole.
LEAST = 128 << 10
#: The average sizes in which a file may be cut.
AVERAGES = (32 << 10, 64 << 10, 256 << 10)
#: Files from these sizes on are cut by the second and the third average.
_LARGER = (64 << 20, 1 << 30)
#: The smallest and the largest chunk are a quarter of the average and four times as much.
_SPREAD = 4
#: Bytes that a piece grows to, and a chunk more: the first ones are told while a file is still being cut.
MAX_PIECE = 16 << 20
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


def _nothing() -> None:
    pass


class _Source:
    """What the cutter reads from."""

    def __init__(self, read_into: Callable[[memoryview], int], check: Callable[[], object]) -> None:
        self._read_into = read_into
        self._check = check

    def readinto(self, view: memoryview) -> int:
        self._check()
        return self._read_into(view)


def cut(
    read_into: Callable[[memoryview], int], average: int, check: Callable[[], object] = _nothing
) -> Iterator[Chunk]:
    """Yield the chunks of what `read_into` gives until it gives 0.

    It holds eight times the average. `check` is called before every read, and ends the work by raising.
    Raises `ValueError` for an average that is none of `AVERAGES`, and what `read_into` raises.
    """
    if average not in AVERAGES:
        raise ValueError(f"files are not cut into chunks of {average} bytes")
    from blake3 import blake3
    from pyfastcdc import FastCDC

    cutter = FastCDC(
        average,
        min_size=average // _SPREAD,
        max_size=average * _SPREAD,
        normalized_chunking=1,
        seed=0,
    )
    for chunk in cutter.cut_stream(_Source(read_into, check)):
        yield Chunk(chunk.length, blake3(chunk.data).digest())


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

    `new` is read no further than is needed for what was told. What several bases have is taken from the one
    that was read last, where that goes on so, else from the first. The time is linear in the number of
    chunks.
    """
    known = _Bases(bases)
    place: tuple[int, int] | None = None
    last: Piece | None = None
    position = 0
    for chunk in new:
        place = known.find(chunk, place)
        if place is None:
            piece = Piece(LITERAL, position, chunk.size)
        else:
            piece = Piece(place[0], known.offset(place), chunk.size)
        position += chunk.size
        if last is None:
            last = piece
        elif last.base == piece.base and last.offset + last.size == piece.offset and last.size < MAX_PIECE:
            last = last._replace(size=last.size + piece.size)
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
