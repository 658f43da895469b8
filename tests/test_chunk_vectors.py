"""Where files are cut: the committed chunks are what the code says, so that no release cuts another way."""

from __future__ import annotations

import hashlib
import io
import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.sync.chunks import Chunk, cut
from tests.vectors import compare


def numbers(size: int) -> bytes:
    """Content that looks like nothing in particular, and is the same everywhere."""
    blocks = (hashlib.sha256(b"chunks" + number.to_bytes(4, "big")).digest() for number in itertools.count())
    return b"".join(itertools.islice(blocks, -(-size // 32)))[:size]


def chunks_of(content: bytes, average: int, step: int | None = None) -> list[Chunk]:
    """The chunks of content that arrives in steps."""
    stream = io.BytesIO(content)

    def read_into(view: memoryview) -> int:
        return stream.readinto(view[:step])

    return list(cut(read_into, average))


#: What is cut: average, what stands in front, bytes of content, whether they are zeros.
CASES: dict[str, tuple[int, bytes, int, bool]] = {
    "some chunks": (32768, b"", 400_000, False),
    "the same behind three others": (32768, b"new", 400_000, False),
    "the same, larger chunks": (65536, b"", 400_000, False),
    "the largest chunks": (262144, b"", 1_200_001, False),
    "the smallest chunks": (4096, b"", 60_000, False),
    "nothing": (32768, b"", 0, False),
    "the least chunk": (32768, b"", 8192, False),
    "one byte more than the least": (32768, b"", 8193, False),
    "zeros": (32768, b"", 140_001, True),
}


class ChunkVectorTests(SynchronousTestCase):
    """tests/vectors/chunks.json."""

    def test_vectors(self) -> None:
        """The committed chunks are those of the code, and together they are the file."""
        rows: list[dict[str, Any]] = []
        for name, (average, before, size, zeros) in CASES.items():
            content = before + (bytes(size) if zeros else numbers(size))
            found = chunks_of(content, average)
            self.assertEqual(sum(chunk.size for chunk in found), len(content), name)
            rows.append(
                {
                    "name": name,
                    "average": average,
                    "before": before.hex(),
                    "size": size,
                    "zeros": zeros,
                    "chunks": [[chunk.size, chunk.digest.hex()] for chunk in found],
                }
            )
        compare(self, "chunks.json", rows)

    def test_insertion(self) -> None:
        """Three bytes in front change the first chunk alone."""
        content = numbers(1_000_000)
        old, new = chunks_of(content, 32768), chunks_of(b"new" + content, 32768)
        self.assertEqual(old[1:], new[1:])
        self.assertEqual(old[0].size + 3, new[0].size)

    @settings(max_examples=20, deadline=None, database=None)
    @given(st.integers(1, 300_000))
    def test_any_fragmentation(self, step: int) -> None:
        """The chunks do not depend on how the content is read."""
        content = numbers(600_000)
        self.assertEqual(chunks_of(content, 32768, step), chunks_of(content, 32768))
