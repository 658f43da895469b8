"""DEFLATE in blocks: one stream, whoever compressed which block."""

from __future__ import annotations

import gzip
import random
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.deflate import (
    BLOCK,
    NO_THREADS,
    Threads,
    blocks,
    deflate,
    gz,
    joined_checksum,
    ordered,
    seconds,
)

SIZES = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7)


def text(size: int) -> bytes:
    """Lines that compress as a dump does."""
    lines = b"".join(b"INSERT INTO t VALUES (%d, 'name %d');\n" % (i, i * i) for i in range(size // 24 + 1))
    return lines[:size]


def cut(content: bytes, size: int) -> Iterator[bytes]:
    """The content in pieces."""
    return (content[start : start + size] for start in range(0, len(content), size))


class StreamTests(SynchronousTestCase):
    """What the blocks are together."""

    def test_round_trip(self) -> None:
        """Content of every size around a block, however it is cut, comes back byte for byte."""
        for size in SIZES:
            for content in (text(size), random.Random(7).randbytes(size), bytes(size)):
                for piece in (1000, 256 << 10, 5 * BLOCK):
                    done = [deflate(block) for block in blocks(cut(content, piece))]
                    stream = b"".join(block.data for block in done)
                    self.assertEqual(zlib.decompress(stream, -zlib.MAX_WBITS), content, (size, piece))
                    self.assertEqual(sum(block.size for block in done), size)

    def test_one_stream(self) -> None:
        """The last block ends the stream, no other does, and nothing is behind it."""
        done = [deflate(block).data for block in blocks(cut(text(4 * BLOCK), 9999))]
        self.assertGreater(len(done), 3)
        reader = zlib.decompressobj(-zlib.MAX_WBITS)
        for data in done:
            self.assertFalse(reader.eof)
            reader.decompress(data)
        self.assertTrue(reader.eof)
        self.assertEqual(reader.unused_data, b"")

    def test_checksums(self) -> None:
        """The checksums of the blocks make that of the content."""
        content, checksum = text(3 * BLOCK + 7), 0
        for block in map(deflate, blocks(cut(content, 70_000))):
            checksum = joined_checksum(checksum, block.checksum, block.size)
        self.assertEqual(checksum, zlib.crc32(content))

    def test_a_block_knows_the_one_before(self) -> None:
        """What stood in the block before is not spelled out again."""
        noise = random.Random(7).randbytes(16 << 10)
        first, second = blocks([noise * (BLOCK // len(noise)), noise])
        self.assertEqual((first.is_last, second.is_last), (False, True))
        self.assertLess(len(deflate(second).data), len(noise) // 10)

    def test_threads_change_nothing(self) -> None:
        """The same bytes come out, however many threads there are."""
        content = text(9 * BLOCK)
        streams = set()
        for count in (0, 1, 2, 4):
            threads = Threads(count)
            streams.add(b"".join(gz(cut(content, 99_999), "n", 1e9, threads)))
            threads.close()
        [stream] = streams
        self.assertEqual(gzip.decompress(stream), content)

    def test_close_to_gzip(self) -> None:
        """A dump is at most 7 % larger than zlib's level 6 makes it."""
        content = text(4 * BLOCK)
        size = sum(len(deflate(block).data) for block in blocks([content]))
        self.assertLess(size, 1.07 * len(zlib.compress(content, 6)))

    def test_seconds(self) -> None:
        """Times that 32 bits cannot hold are moved to the nearest that they can."""
        self.assertEqual([seconds(time) for time in (-1.0, 7.9, 2.0**40)], [0, 7, 2**32 - 1])


class OrderedTests(SynchronousTestCase):
    """Work over threads, results in order."""

    def threads(self, count: int) -> Threads:
        """So many threads, until the test ends."""
        made = Threads(count)
        self.addCleanup(made.close)
        return made

    def test_order(self) -> None:
        """Results come in the order of the items, whichever is finished first."""
        later = threading.Event()

        def work(item: int) -> int:
            if item == 0:
                later.wait()
            elif item == 1:
                later.set()
            return -item

        self.assertEqual(list(ordered(work, range(50), self.threads(3))), [-item for item in range(50)])

    def test_ahead(self) -> None:
        """Only so many items are taken before their results are: memory is bounded."""
        taken: list[int] = []

        def items() -> Iterator[int]:
            for item in range(100):
                taken.append(item)
                yield item

        results = ordered(abs, items(), self.threads(2))
        for expected in range(10):
            self.assertEqual(next(results), expected)
            self.assertLessEqual(len(taken), expected + 4)
        results.close()
        self.assertLess(len(taken), 14)

    def test_errors(self) -> None:
        """What the items or the work raise comes out; the threads serve others afterwards, then end."""

        def broken() -> Iterator[int]:
            yield from range(5)
            raise LookupError

        before = threading.active_count()
        threads = Threads(2)
        with self.assertRaises(LookupError):
            list(ordered(abs, broken(), threads))
        with self.assertRaises(ZeroDivisionError):
            list(ordered(lambda item: 1 // (item - 7), range(99), threads))
        self.assertEqual(list(ordered(abs, range(9), threads)), list(range(9)))
        threads.close()
        self.assertEqual(threading.active_count(), before)

    def test_shared(self) -> None:
        """Streams that are made together have no more threads than one has, and hold less each."""
        threads, seen, taken = self.threads(4), set[int](), [0, 0]

        def items(stream: int) -> Iterator[int]:
            for item in range(100):
                taken[stream] += 1
                yield item

        def work(item: int) -> int:
            seen.add(threading.get_ident())
            return item

        with threads.used(), threads.used():
            streams = [ordered(work, items(stream), threads) for stream in (0, 1)]
            for expected in range(100):
                self.assertEqual([next(stream) for stream in streams], [expected, expected])
                self.assertLessEqual(max(taken), expected + 4)
        self.assertLessEqual(len(seen), 4)

    def test_share(self) -> None:
        """Who is there shares what there is, and each has one at least."""
        threads = self.threads(4)
        shares = [threads.share]
        with ExitStack() as users:
            for _ in range(6):
                users.enter_context(threads.used())
                shares.append(threads.share)
        self.assertEqual([*shares, threads.share], [4, 4, 2, 1, 1, 1, 1, 4])

    def test_no_threads(self) -> None:
        """With none, the caller's own thread does it, however many share them."""
        with NO_THREADS.used():
            seen = set(ordered(lambda item: threading.get_ident(), range(9), NO_THREADS))
        self.assertEqual(seen, {threading.get_ident()})
