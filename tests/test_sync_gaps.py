"""Gaps of a recipe, told anew in finer pieces."""

from __future__ import annotations

import random
from collections.abc import Sequence
from io import BytesIO

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.sync import gaps as limits
from fileexport.sync.chunks import AVERAGES, FINE, LITERAL, Chunk, Piece, cut, joined, recipe
from fileexport.sync.gaps import LEAST_GAP, MAX_GAP, MAX_RANGED, MAX_RANGES, Range, gaps, refined

KIB = 1 << 10
BASE = random.Random(5).randbytes(600 * KIB)


def chunks(content: bytes, average: int = AVERAGES[0]) -> list[Chunk]:
    """The chunks of some bytes."""
    return list(cut(BytesIO(content).readinto, average))


class Cutter:
    """Cuts ranges of a content, and remembers which."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[list[Range]] = []

    def __call__(self, ranges: Sequence[Range]) -> list[list[Chunk]]:
        self.asked.append(list(ranges))
        return [chunks(self.content[offset : offset + size], FINE) for offset, size in ranges]


def put_together(pieces: Sequence[Piece], new: bytes, bases: Sequence[bytes]) -> bytes:
    """The file that the pieces tell."""
    return b"".join(
        (new if base == LITERAL else bases[base])[offset : offset + size] for base, offset, size in pieces
    )


def literal(pieces: Sequence[Piece]) -> int:
    """Bytes that no base has."""
    return sum(piece.size for piece in pieces if piece.base == LITERAL)


def edited(content: bytes, edits: Sequence[tuple[int, int, int]]) -> bytes:
    """The content with bytes removed and others put there: at, removed, put."""
    for at, removed, put in edits:
        content = content[:at] + random.Random(at).randbytes(put) + content[at + removed :]
    return content


_sizes = st.integers(0, 40 * KIB)
_edits = st.lists(st.tuples(st.integers(0, len(BASE)), _sizes, _sizes), max_size=6)


class RefinedTests(SynchronousTestCase):
    """`refined`."""

    def refined(self, new: bytes, *bases: bytes) -> tuple[list[Piece], list[Piece]]:
        """The recipe, and its finer one."""
        coarse = list(recipe(chunks(new), [chunks(base) for base in bases]))
        self.new, self.bases = Cutter(new), [Cutter(base) for base in bases]
        return coarse, refined(coarse, [len(base) for base in bases], self.new, self.bases)

    @settings(max_examples=60, deadline=None)
    @given(_edits)
    def test_any(self, edits: list[tuple[int, int, int]]) -> None:
        """The pieces are the file, no more of it is literal than before, and no two pieces could be one."""
        new = edited(BASE, edits)
        coarse, fine = self.refined(new, BASE, BASE[::-1])
        self.assertEqual(put_together(fine, new, [BASE, BASE[::-1]]), new)
        self.assertTrue(literal(fine) <= literal(coarse))
        self.assertEqual(list(joined(fine)), fine)
        self.assertTrue(all(piece.size > 0 for piece in fine))

    def test_edits(self) -> None:
        """Each small edit costs the few fine chunks around it."""
        edits = [(at, 100, 100) for at in range(50 * KIB, len(BASE), 150 * KIB)]
        coarse, fine = self.refined(edited(BASE, edits), BASE)
        most = 2 * 4 * FINE * len(edits)
        self.assertTrue(literal(fine) < most < literal(coarse), (literal(coarse), literal(fine)))

    def test_removed(self) -> None:
        """Where much was removed, no more of it is looked at than could be in the gap, at either end."""
        coarse, fine = self.refined(BASE[: 100 * KIB] + BASE[500 * KIB :], BASE)
        self.assertTrue(literal(fine) < literal(coarse))
        looked = sum(size for ranges in self.bases[0].asked for _, size in ranges)
        self.assertTrue(looked <= 2 * literal(coarse), looked)

    def test_two_bases(self) -> None:
        """A gap between copies of two bases begins as one of them goes on, and ends as the other did."""
        old, other = BASE[: 300 * KIB], BASE[300 * KIB :]
        new = old[: 200 * KIB] + other[100 * KIB :]
        coarse, fine = self.refined(new, old, other)
        self.assertEqual(put_together(fine, new, [old, other]), new)
        self.assertTrue(literal(fine) <= 2 * 4 * FINE < literal(coarse), (literal(coarse), literal(fine)))

    def test_nothing_to_find(self) -> None:
        """Of equal files, and of those that share nothing, nothing is cut again."""
        for new, old in ((BASE, BASE), (BASE, BASE[::-1]), (b"", BASE), (BASE, b"")):
            coarse, fine = self.refined(new, old)
            self.assertEqual((fine, self.new.asked, self.bases[0].asked), (coarse, [], []))

    def test_at_once(self) -> None:
        """No more is asked for at once than is allowed, and all gaps are looked at."""
        edits = [(at, 10, 10) for at in range(50 * KIB, len(BASE), 100 * KIB)]
        new = edited(BASE, edits)
        _, whole = self.refined(new, BASE)
        for name, value in (("MAX_RANGES", 4), ("MAX_RANGED", 200 * KIB)):
            patch = self.patch(limits, name, value)
            _, fine = self.refined(new, BASE)
            patch.restore()
            self.assertEqual(fine, whole)
            for ranges in self.new.asked + self.bases[0].asked:
                size = sum(one.size for one in ranges)
                self.assertTrue(
                    len(ranges) <= 4 if name == "MAX_RANGES" else size <= 200 * KIB or len(ranges) == 1
                )
            self.assertGreater(len(self.new.asked), 1)

    def test_many_pieces(self) -> None:
        """What is told in too many pieces already stays as it is."""
        self.patch(limits, "_MAX_PIECES", 2)
        coarse, fine = self.refined(edited(BASE, [(300 * KIB, 9, 9)]), BASE)
        self.assertEqual((fine, self.new.asked), (coarse, []))


_SIZES = (1 << 30, 1 << 28)
_copies = st.builds(
    lambda base, offset, size: Piece(base, min(offset, _SIZES[base] - size), size),
    st.integers(0, 1),
    st.integers(0, 1 << 30),
    st.integers(1, 1 << 20),
)
_literals = st.builds(Piece, st.just(LITERAL), st.integers(0, 1 << 40), st.integers(1, 2 * MAX_GAP))


class GapsTests(SynchronousTestCase):
    """`gaps`."""

    @given(st.lists(st.tuples(_literals, _copies), max_size=4), st.booleans(), st.booleans())
    def test_bounds(self, both: list[tuple[Piece, Piece]], has_first: bool, has_last: bool) -> None:
        """Ranges lie in their bases, of a copy beside the gap, and are together at most twice as long."""
        whole = [piece for pair in both for piece in pair]
        pieces = whole[not has_first : len(whole) - (not has_last)]
        for gap in gaps(pieces, _SIZES):
            self.assertEqual(pieces[gap.at], Piece(LITERAL, *gap.new))
            self.assertTrue(LEAST_GAP <= gap.new.size <= MAX_GAP)
            self.assertTrue(1 <= len(gap.old) <= 2)
            beside = {pieces[at].base for at in (gap.at - 1, gap.at + 1) if 0 <= at < len(pieces)}
            for base, (offset, size) in gap.old:
                self.assertIn(base, beside)
                self.assertTrue(size > 0 and offset >= 0 and offset + size <= _SIZES[base])
            self.assertTrue(sum(part.size for _, part in gap.old) <= 2 * gap.new.size)
            self.assertTrue(2 * gap.new.size <= MAX_RANGED and len(gap.old) <= MAX_RANGES)
