"""A second look at what a recipe leaves out: gaps between copies are cut finer, and told anew. Pure.

An edit of a few bytes costs whole chunks, large ones in large files. What changed lies between two copies as
a rule, and what stood there before lies between the same two places of a base: both are short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from fileexport.sync.chunks import FINE, LITERAL, Chunk, Piece, joined, recipe

#: Bytes of a gap: a smaller one has nothing to be found in it, a larger one is no edit.
LEAST_GAP, MAX_GAP = 2 * FINE, 32 << 20
#: Ranges of a file that may be asked for at once, and bytes of them together.
MAX_RANGES, MAX_RANGED = 1024, 128 << 20
#: Pieces of one file, beyond which no gap is looked at: they are all kept.
_MAX_PIECES = 128 << 10


class Range(NamedTuple):
    """A part of a file."""

    offset: int
    size: int


class Gap(NamedTuple):
    """Piece number `at`, which no base has, and parts of bases, by number, that may have parts of it."""

    at: int
    new: Range
    old: tuple[tuple[int, Range], ...]


#: Cuts ranges of a file, at most `MAX_RANGES` of `MAX_RANGED` bytes, each by itself and by `FINE`.
CutRanges: TypeAlias = Callable[[Sequence[Range]], Sequence[Sequence[Chunk]]]


def gaps(pieces: Sequence[Piece], sizes: Sequence[int]) -> Iterator[Gap]:
    """The gaps of a recipe from bases of these sizes.

    A gap may begin with what follows the copy before it, and end with what the copy behind it follows: no
    more than its own length either way, and nothing that the other copy takes. Where this meets it is one.
    """
    for at, (base, start, size) in enumerate(pieces):
        if base != LITERAL or not LEAST_GAP <= size <= MAX_GAP:
            continue
        old: list[tuple[int, Range]] = []
        before = pieces[at - 1] if at else None
        behind = pieces[at + 1] if at + 1 < len(pieces) else None
        between = None
        if before is not None and behind is not None and before.base == behind.base:
            between = behind.offset - before.offset - before.size
        if before is not None and between is not None and 0 <= between <= 2 * size:
            old.append((before.base, Range(before.offset + before.size, between)))
        else:
            if before is not None:
                first = before.offset + before.size
                old.append((before.base, Range(first, min(size, sizes[before.base] - first))))
            if behind is not None:
                first = max(behind.offset - size, 0)
                old.append((behind.base, Range(first, behind.offset - first)))
        old = [found for found in old if found[1].size]
        if old:
            yield Gap(at, Range(start, size), tuple(old))


def refined(
    pieces: Sequence[Piece], sizes: Sequence[int], cut_new: CutRanges, cut_bases: Sequence[CutRanges]
) -> list[Piece]:
    """The same file in finer pieces: what its gaps share with the bases comes from there too.

    `sizes` are those of the bases. Raises what the functions raise.
    """
    told: dict[int, list[Piece]] = {}
    count = len(pieces)
    for batch in _batches(gaps(pieces, sizes)):
        if count > _MAX_PIECES:
            break
        for gap, found in zip(batch, _told(batch, cut_new, cut_bases), strict=True):
            told[gap.at] = found
            count += len(found)
    return list(joined(one for at, piece in enumerate(pieces) for one in told.get(at, (piece,))))


def _batches(found: Iterator[Gap]) -> Iterator[list[Gap]]:
    """Gaps, so many that their ranges may be asked for at once, of whichever file."""
    batch: list[Gap] = []
    ranges = size = 0
    for gap in found:
        # Of each side, and of the old one two ranges at most, together twice as long.
        if batch and (ranges + 2 > MAX_RANGES or size + 2 * gap.new.size > MAX_RANGED):
            yield batch
            batch, ranges, size = [], 0, 0
        batch.append(gap)
        ranges += 2
        size += 2 * gap.new.size
    if batch:
        yield batch


def _told(batch: Sequence[Gap], cut_new: CutRanges, cut_bases: Sequence[CutRanges]) -> Iterator[list[Piece]]:
    old: list[Iterator[Sequence[Chunk]]] = []
    for number, cut_base in enumerate(cut_bases):
        wanted = [part for gap in batch for base, part in gap.old if base == number]
        old.append(iter(cut_base(wanted) if wanted else ()))
    for gap, new in zip(batch, cut_new([gap.new for gap in batch]), strict=True):
        parts = [next(old[base]) for base, _ in gap.old]
        yield [_placed(piece, gap) for piece in recipe(new, parts)]


def _placed(piece: Piece, gap: Gap) -> Piece:
    """A piece of a gap as one of the whole file: there its ranges were the bases."""
    if piece.base == LITERAL:
        return piece._replace(offset=gap.new.offset + piece.offset)
    base, part = gap.old[piece.base]
    return Piece(base, part.offset + piece.offset, piece.size)
