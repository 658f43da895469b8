"""Chunks of a file here, cut while those of the other side come."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from fileexport.client.cutting import Cutting, cut_ranges
from fileexport.errors import ChangedWhileRead
from fileexport.sync.chunks import AVERAGES, FINE, LITERAL, Chunk, Piece, recipe
from fileexport.sync.gaps import Range
from tests.delta_server import chunks_of

AVERAGE = AVERAGES[0]
CONTENT = random.Random(8).randbytes(2_000_000)


def literal(pieces: Iterable[Piece]) -> int:
    """Bytes that no base has."""
    return sum(piece.size for piece in pieces if piece.base == LITERAL)


class CuttingCase(SynchronousTestCase):
    """Has an open file."""

    def setUp(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(CONTENT)
        self.descriptor = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, self.descriptor)

    def cutting(self, size: int = len(CONTENT)) -> Cutting:
        """What cuts it, and hashes it."""
        cutting = Cutting(self.descriptor, size, AVERAGE, is_hashed=True)
        self.addCleanup(cutting.stop)
        return cutting


class CuttingTests(CuttingCase):
    """`Cutting`."""

    def test_alone(self) -> None:
        """Where the other side says nothing, it cuts by itself; chunks and hash are those of the file."""
        cutting = self.cutting()
        self.assertEqual(cutting.chunks(), chunks_of(CONTENT, AVERAGE))
        self.assertEqual(cutting.digest(), blake3(CONTENT).digest())

    def test_behind(self) -> None:
        """Whatever the other side has, and however that comes, the chunks are the file's, and no worse."""
        edited = CONTENT[:500_000] + b"new" + CONTENT[500_000:]
        moved = CONTENT[1_000_000:] + CONTENT[:1_000_000]
        for theirs in (CONTENT, edited, edited[100:], moved, CONTENT[:700_000], bytes(2_000_000), b""):
            for step in (1, 7, 1000):
                cutting = self.cutting()
                cutting.begin()
                chunks = chunks_of(theirs, AVERAGE)
                for start in range(0, len(chunks), step):
                    cutting.add(chunks[start : start + step])
                found = cutting.chunks()
                at = 0
                for size, digest in found:
                    self.assertEqual(blake3(CONTENT[at : at + size]).digest(), digest)
                    at += size
                self.assertEqual((at, cutting.digest()), (len(CONTENT), blake3(CONTENT).digest()))
                alone = recipe(chunks_of(CONTENT, AVERAGE), [chunks])
                self.assertTrue(literal(recipe(found, [chunks])) <= literal(alone))

    def test_lies(self) -> None:
        """Chunks of the other side that are none are not believed."""
        cutting = self.cutting()
        expected = chunks_of(CONTENT, AVERAGE)
        cutting.add([Chunk(size, bytes(32)) for size in (1, 5000, 1 << 40)] + expected[::-1])
        self.assertEqual(cutting.chunks(), expected)

    def test_shorter(self) -> None:
        """A file that ends too early has changed."""
        cutting = self.cutting(len(CONTENT) + 1)
        self.assertRaises(ChangedWhileRead, cutting.chunks)
        self.assertRaises(ChangedWhileRead, cutting.digest)

    def test_stop(self) -> None:
        """It ends wherever it is: before it began, while it waits for the other side, when it is done."""
        cutting = self.cutting()
        cutting.stop()
        waiting = self.cutting()
        waiting.begin()
        waiting.stop()
        done = self.cutting()
        done.chunks()
        done.stop()


class RangesTests(CuttingCase):
    """`cut_ranges`."""

    def test_ranges(self) -> None:
        """Each range is cut by itself, in any order."""
        ranges = [Range(900_000, 100_000), Range(0, 30_000), Range(5, 0)]
        expected = [chunks_of(CONTENT[offset : offset + size], FINE) for offset, size in ranges]
        self.assertEqual(cut_ranges(self.descriptor, ranges), expected)

    def test_shorter(self) -> None:
        """A range behind the end is of a file that has changed."""
        self.assertRaises(ChangedWhileRead, cut_ranges, self.descriptor, [Range(len(CONTENT) - 5, 6)])
