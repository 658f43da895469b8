"""Compressed DATA: round trips, giving up, and bombs."""

from __future__ import annotations

import contextlib
import random
import sys
import tracemalloc
from unittest import SkipTest

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import CorruptedResponse
from fileexport.wire.frames import Data
from fileexport.wire.zstd import MAX_CONTENT, PAUSE, Grower, Shrinker

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

quick = settings(max_examples=150, deadline=None, database=None)
NOISE = random.Random(5).randbytes(64 << 10)
TEXT = b"a line that comes again and again\n" * 2000


def pieces(packed: bytes, places: list[int], *, compressed: bool = True) -> list[Data]:
    """A DATA frame as it may arrive."""
    edges = sorted({0, len(packed), *(place for place in places if place < len(packed))})
    return [
        Data(1, len(packed), len(packed) - end, compressed, memoryview(packed)[start:end])
        for start, end in zip(edges, edges[1:], strict=False)
    ]


def grown(packed: bytes, places: list[int] | None = None) -> bytes:
    """What a receiver makes of compressed content."""
    grower = Grower()
    found = [grower.feed(piece) for piece in pieces(packed, places or [])]
    assert found[:-1] == [None] * (len(found) - 1) and found[-1] is not None
    return bytes(found[-1])


class RoundTripTests(SynchronousTestCase):
    """What shrinks grows again."""

    @quick
    @given(st.binary(min_size=1, max_size=40), st.integers(1, 2000), st.lists(st.integers(1, 99), max_size=3))
    def test_any_content(self, word: bytes, times: int, places: list[int]) -> None:
        """Content comes back as it was, in whatever pieces the frame arrives; or it is sent as it is."""
        content = word * times
        packed = Shrinker().pack(content)
        if packed is not None:
            self.assertLessEqual(len(packed), len(content) - len(content) // 8)
            self.assertEqual(grown(packed, places), content)

    def test_one_after_the_other(self) -> None:
        """Each block is a frame of its own, which needs none before it."""
        shrinker = Shrinker()
        first, second = shrinker.pack(TEXT), shrinker.pack(memoryview(TEXT)[::-1].tobytes())
        assert first is not None and second is not None
        self.assertEqual((grown(second), grown(first)), (TEXT[::-1], TEXT))
        grower = Grower()
        for piece in [*pieces(first, [5]), *pieces(second, [])]:
            last = grower.feed(piece)
        self.assertEqual(last, TEXT[::-1])

    def test_as_it_is(self) -> None:
        """What is not compressed passes through at once, piece by piece, without a copy."""
        for piece in pieces(TEXT, [3, 9], compressed=False):
            self.assertIs(Grower().feed(piece), piece.piece)

    def test_largest(self) -> None:
        """The largest content is 1 MiB; more, or nothing, is refused by both sides."""
        whole = bytes(MAX_CONTENT)
        packed = Shrinker().pack(whole)
        assert packed is not None
        self.assertEqual(grown(packed), whole)
        for wrong in (b"", whole + b"x"):
            self.assertRaises(ValueError, Shrinker().pack, wrong)
            self.assertRaises(CorruptedResponse, grown, zstd.compress(wrong))


class PauseTests(SynchronousTestCase):
    """Content that does not shrink."""

    def test_pause(self) -> None:
        """After a block that does not shrink by an eighth, the next 64 MiB are sent as they are."""
        shrinker = Shrinker()
        self.assertIsNotNone(shrinker.pack(TEXT))
        self.assertIsNone(shrinker.pack(NOISE))
        block = bytes(MAX_CONTENT)
        for _ in range(PAUSE // MAX_CONTENT):
            self.assertIsNone(shrinker.pack(block))
        self.assertIsNotNone(shrinker.pack(block))

    def test_an_eighth(self) -> None:
        """Less than an eighth is not worth the work."""
        self.assertIsNone(Shrinker().pack(NOISE[:60_000] + bytes(5_000)))
        self.assertIsNotNone(Shrinker().pack(NOISE[:50_000] + bytes(15_000)))


class HostileTests(SynchronousTestCase):
    """What is no content."""

    def test_bombs(self) -> None:
        """A frame of much content is refused when one byte over 1 MiB was made; the rest takes no memory."""
        bomb = zstd.compress(bytes(512 << 20))
        self.assertLess(len(bomb), 1 << 20)
        unknown = zstd.ZstdCompressor()
        parts = [unknown.compress(bytes(1 << 20)) for _ in range(64)]
        for packed in (bomb, b"".join([*parts, unknown.flush()])):
            tracemalloc.start()
            try:
                self.assertRaises(CorruptedResponse, grown, packed)
                self.assertLess(tracemalloc.get_traced_memory()[1], 8 << 20)
            finally:
                tracemalloc.stop()

    def test_wide_window(self) -> None:
        """A frame whose window would take more than 8 MiB is refused, however little it says."""
        wide = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
        packed = wide.compress(b"little") + wide.flush()
        if packed[5] >> 3 != 17:
            raise SkipTest("this zstd writes another window than it is told")
        self.assertRaises(CorruptedResponse, grown, packed)

    def test_not_one_frame(self) -> None:
        """Two frames, half a frame, a frame with something behind it, or none at all are refused."""
        packed = zstd.compress(TEXT)
        skippable = b"\x50\x2a\x4d\x18\x01\x00\x00\x00x"
        for wrong in (packed * 2, packed[:-1], packed + b"x", skippable, skippable + packed, b"x", TEXT):
            self.assertRaises(CorruptedResponse, grown, wrong)

    @quick
    @given(st.binary(min_size=1, max_size=80), st.booleans())
    def test_random_bytes(self, noise: bytes, framed: bool) -> None:
        """Random bytes give content or `CorruptedResponse`."""
        with contextlib.suppress(CorruptedResponse):
            self.assertLessEqual(len(grown(zstd.compress(TEXT)[:9] * framed + noise)), MAX_CONTENT)
