"""What is in files: read once, and again when they changed."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk import contents as limits
from fileexport.disk.contents import SETTLED, WORTH, Contents
from fileexport.disk.contents_cache import ContentsCache
from fileexport.disk.database import Database
from fileexport.disk.jail import Jail, Opened, View
from fileexport.disk.schema import MIGRATIONS
from fileexport.errors import ChangedWhileRead
from fileexport.paths import RelPath
from fileexport.sync.chunks import AVERAGES, FINE, Chunk, cut
from fileexport.sync.gaps import Range
from tests.watched import NAMES, FailAt, Later, WatchedCalls, open_descriptors

CONTENT = random.Random(6).randbytes(WORTH * 3)
AVERAGE = AVERAGES[0]


def chunks_of(content: bytes, average: int = AVERAGE) -> list[Chunk]:
    """The chunks of bytes."""
    rest = memoryview(content)

    def read_into(buffer: memoryview) -> int:
        nonlocal rest
        count = min(len(rest), len(buffer))
        buffer[:count] = rest[:count]
        rest = rest[count:]
        return count

    return list(cut(read_into, average))


class ContentsCase(SynchronousTestCase):
    """Has a large file that was left alone for long, and a cache; counts the reads."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()) / "root"
        self.root.mkdir(parents=True)
        self.file = self.root / "file"
        self.file.write_bytes(CONTENT)
        self.reads = 0
        self.watch = Later()
        before = open_descriptors()
        self.addCleanup(lambda: self.assertEqual(open_descriptors() - before, set()))
        self.jail = Jail(str(self.root), calls=WatchedCalls(self.called))
        self.addCleanup(self.jail.close)
        self.database = Database(self.root.parent, MIGRATIONS)
        self.addCleanup(self.database.close)
        #: How long ago the file was changed.
        self.age = SETTLED
        self.contents = Contents(ContentsCache(self.database), self.now)

    def called(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.reads += name == "pread"
        self.watch(name, arguments, keywords)

    def now(self) -> int:
        status = self.file.stat()
        return max(status.st_mtime_ns, status.st_ctime_ns) + self.age

    def opened(self, name: str = "file") -> Opened:
        """The file, closed after the test."""
        opened = self.jail.open(View(), RelPath.parse(name))
        self.addCleanup(opened.close)
        return opened

    def digest(self, name: str = "file", **how: Any) -> bytes:
        """The hash that is told of a file."""
        return self.contents.digest(self.opened(name), **how)[1]

    def chunks(self, average: int = AVERAGE, **how: Any) -> list[Chunk]:
        """The chunks that are told of the file."""
        return [chunk for found in self.contents.chunks(self.opened(), average, **how) for chunk in found]

    def reads_of(self, function: Callable[..., object], *arguments: Any, **how: Any) -> int:
        """How often a call reads."""
        before = self.reads
        function(*arguments, **how)
        return self.reads - before

    def is_read(self, **how: Any) -> bool:
        """Whether the file is read for its hash, and for its chunks; the same is true of both."""
        both = {bool(self.reads_of(function, **how)) for function in (self.digest, self.chunks)}
        [one] = both
        return one

    def rewrite(self, content: bytes) -> None:
        """Write the file anew, in place, with the old mtime."""
        old = self.file.stat().st_mtime_ns
        with open(self.file, "r+b") as file:
            file.write(content)
        os.utime(self.file, ns=(old, old))


class ReadTests(ContentsCase):
    """What is in a file, with a cache and without."""

    def test_digest(self) -> None:
        """Size and BLAKE3, of empty and small files too, wherever the descriptor stands."""
        (self.root / "empty").touch()
        (self.root / "small").write_bytes(b"small")
        for cache in (self.contents.cache, None):
            self.contents.cache = cache
            for name, content in (("file", CONTENT), ("small", b"small"), ("empty", b"")):
                opened = self.opened(name)
                os.lseek(opened.descriptor, 3, os.SEEK_SET)
                expected = len(content), blake3(content).digest()
                self.assertEqual([self.contents.digest(opened) for _ in range(2)], [expected] * 2)

    def test_chunks(self) -> None:
        """The chunks of each average are those of `cut`, read or remembered; an empty file has none."""
        for average in AVERAGES:
            expected = chunks_of(CONTENT, average)
            self.assertEqual([self.chunks(average) for _ in range(2)], [expected] * 2)
        (self.root / "empty").touch()
        self.assertEqual(list(self.contents.chunks(self.opened("empty"), AVERAGE)), [])

    def test_parts(self) -> None:
        """Parts are cut by themselves and not remembered; one that became shorter is said to be."""
        parts = [Range(WORTH, WORTH), Range(5, 10_000)]
        expected = [chunk for at, size in parts for chunk in chunks_of(CONTENT[at : at + size], FINE)]
        for _ in range(2):
            found = [chunk for some in self.contents.parts(self.opened(), parts) for chunk in some]
            self.assertEqual(found, expected)
        self.assertTrue(self.is_read())
        opened = self.opened()
        os.truncate(self.file, 10_000)
        self.assertRaises(ChangedWhileRead, list, self.contents.parts(opened, parts[1:]))

    def test_lists(self) -> None:
        """No list has too many chunks, and none takes long, read or remembered."""
        self.patch(limits, "MAX_CHUNKS", 2)
        for _ in range(2):
            counts = [len(found) for found in self.contents.chunks(self.opened(), AVERAGE)]
            self.assertEqual((set(counts[:-1]), sum(counts)), ({2}, len(chunks_of(CONTENT))))
        self.patch(limits, "STEP", 1)
        counts = [len(found) for found in self.contents.chunks(self.opened(), AVERAGE, fresh=True)]
        self.assertEqual(set(counts), {1})

    def test_steps(self) -> None:
        """Within a large file a hash stops now and then; what is remembered needs no stop."""
        self.patch(limits, "STEP", 1)
        self.patch(limits, "_PIECE", WORTH)
        for stops in (3, 0):
            hashing = self.contents.hashing(self.opened())
            self.assertEqual(len(list(hashing)), stops)
            self.contents.flush()

    def test_check(self) -> None:
        """The check ends it between two pieces, and nothing is remembered."""

        def check() -> None:
            raise KeyError

        for function in (self.digest, self.chunks):
            self.assertRaises(KeyError, function, check=check)
        self.assertTrue(self.is_read())

    def test_failed(self) -> None:
        """What the disk says is raised, and nothing is remembered."""
        for function in (self.digest, self.chunks):
            for number in (1, 2):
                self.watch.then = FailAt(number, errno.EIO, tuple(NAMES - {"pread"}))
                self.assertRaises(OSError, function)
        self.watch.then = None
        self.assertTrue(self.is_read())


class RememberedTests(ContentsCase):
    """When a file is read, and when not."""

    def test_once(self) -> None:
        """A file is read once while it stays as it is, whoever opens it, also after a start."""
        self.assertTrue(self.is_read())
        self.assertFalse(self.is_read())
        self.database.close()
        self.database = Database(self.root.parent, MIGRATIONS)
        self.addCleanup(self.database.close)
        self.contents = Contents(ContentsCache(self.database), self.now)
        self.assertFalse(self.is_read())

    def test_changed(self) -> None:
        """Other content of the same size and mtime is read: the file's ctime tells."""
        self.is_read()
        other = CONTENT[::-1]
        self.rewrite(other)
        self.assertEqual((self.digest(), self.chunks()), (blake3(other).digest(), chunks_of(other)))

    def test_replaced(self) -> None:
        """So is another file of this name."""
        self.is_read()
        (self.root / "new").write_bytes(CONTENT[::-1])
        (self.root / "new").rename(self.file)
        self.assertTrue(self.is_read())

    def test_fresh(self) -> None:
        """Who wants it fresh has it read, and that is remembered for others."""
        self.assertTrue(self.is_read(fresh=True))
        self.assertTrue(self.is_read(fresh=True))
        self.assertFalse(self.is_read())

    def test_just_changed(self) -> None:
        """A file that was changed less than two seconds ago is read again: it may change unseen."""
        self.age = SETTLED - 1
        self.assertTrue(self.is_read())
        self.assertTrue(self.is_read())
        self.age = SETTLED
        self.assertTrue(self.is_read())
        self.assertFalse(self.is_read())

    def test_changed_meanwhile(self) -> None:
        """A file that changes while it is read is not remembered."""
        self.digest(check=lambda: self.rewrite(CONTENT))
        self.chunks(check=lambda: self.rewrite(CONTENT))
        self.assertTrue(self.is_read())
        opened = self.opened()
        os.truncate(self.file, WORTH)
        digest = self.contents.digest(opened, fresh=True)
        self.assertEqual(digest, (WORTH, blake3(CONTENT[:WORTH]).digest()))
        self.assertTrue(self.is_read())

    def test_left(self) -> None:
        """Chunks that were not read to the end are not remembered."""
        self.patch(limits, "MAX_CHUNKS", 1)
        found = self.contents.chunks(self.opened(), AVERAGE)
        next(iter(found))
        self.assertGreater(self.reads_of(self.chunks), 0)

    def test_too_many(self) -> None:
        """A list that is too long to be remembered is not collected either."""
        self.patch(limits, "MAX_DATA", 100)
        added: list[int] = []
        cache = self.contents.cache
        assert cache is not None
        self.patch(cache, "add", lambda place, version, data: added.append(len(data)))
        self.assertEqual(self.chunks(), chunks_of(CONTENT))
        self.assertEqual(added, [])

    def test_small(self) -> None:
        """A small file is always read."""
        os.truncate(self.file, WORTH - 1)
        self.assertTrue(self.is_read())
        self.assertTrue(self.is_read())

    def test_wrong(self) -> None:
        """What is remembered of a file but cannot be of it is not believed."""

        class Liar:
            data = b""

            def get(self, place: bytes, version: bytes) -> bytes:
                return self.data

            def add(self, place: bytes, version: bytes, data: bytes) -> None:
                """Forget it."""

            def flush(self) -> None:
                """Nothing to store."""

        self.contents.cache = liar = Liar()
        for data in (b"", b"x", bytes(31), bytes(36), bytes(40)):
            liar.data = data
            self.assertEqual((self.digest(), self.chunks()), (blake3(CONTENT).digest(), chunks_of(CONTENT)))

    def test_odd_numbers(self) -> None:
        """Times that no database holds are no trouble."""
        os.utime(self.file, ns=(-(10**9), -(10**9)))
        self.assertTrue(self.is_read())
        self.assertFalse(self.is_read())
