"""What is remembered of files, in a database that may forget it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection, connect
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk import contents_cache as limits
from fileexport.disk.contents_cache import ContentsCache
from fileexport.disk.database import DATABASE, Database
from fileexport.disk.schema import MIGRATIONS

DAY = 86_400.0
A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


class CountedDatabase(Database):
    """Counts its transactions."""

    count = 0

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        self.count += 1
        with super().transaction() as t:
            yield t


class CacheCase(SynchronousTestCase):
    """Has an empty cache, on the first day."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.time = 0.0
        self.open()
        self.addCleanup(lambda: self.database.close())

    def open(self) -> None:
        """Open it, as after a start."""
        self.database = CountedDatabase(self.directory, MIGRATIONS)
        self.cache = ContentsCache(self.database, lambda: self.time)

    def reopen(self) -> None:
        self.database.close()
        self.open()

    def add(self, *places: bytes, version: bytes = A, data: bytes = b"data") -> None:
        for place in places:
            self.cache.add(place, version, data)
        self.cache.flush()

    def known(self, *places: bytes) -> list[bytes]:
        return [place for place in places if self.cache.get(place, A) is not None]

    def change(self, statement: str, *values: Any) -> None:
        """Change the database behind its back."""
        self.database.close()
        connection = connect(self.directory / DATABASE)
        connection.execute(statement, values)
        connection.commit()
        connection.close()
        self.open()


class KeptTests(CacheCase):
    """What is added can be got."""

    def test_kept(self) -> None:
        """It is there for this place and version only, also after a start."""
        self.assertIsNone(self.cache.get(A, A))
        self.add(A)
        for _ in range(2):
            self.assertEqual(self.cache.get(A, A), b"data")
            self.assertIsNone(self.cache.get(A, B))
            self.assertIsNone(self.cache.get(B, A))
            self.reopen()

    def test_another_version(self) -> None:
        """A new version takes the place of the old one."""
        self.add(A)
        self.add(A, version=B, data=b"")
        self.assertIsNone(self.cache.get(A, A))
        self.assertEqual(self.cache.get(A, B), b"")

    def test_together(self) -> None:
        """Many are stored in one transaction, when enough have come; nothing new needs none."""
        self.patch(limits, "_WAITING_ROWS", 3)
        for place in (A, B):
            self.cache.add(place, A, b"")
        self.assertEqual((self.known(A, B), self.database.count), ([], 0))
        self.cache.add(C, A, b"")
        self.assertEqual((self.known(A, B, C), self.database.count), ([A, B, C], 1))
        self.cache.flush()
        self.assertEqual(self.database.count, 1)

    def test_large(self) -> None:
        """Much data is stored at once, and too much is not remembered at all."""
        self.cache.add(A, A, bytes(limits._WAITING_BYTES))
        self.assertEqual((self.known(A), self.database.count), ([A], 1))
        self.add(B, data=bytes(limits.MAX_DATA + 1))
        self.assertEqual(self.known(A, B), [A])


class BoundTests(CacheCase):
    """What is too much goes."""

    def setUp(self) -> None:
        super().setUp()
        # Three of those below.
        self.patch(limits, "MAX_KEPT", 3 * (100 + limits._ROW))

    def test_oldest(self) -> None:
        """What was not used for the longest time goes first; a use counts once a day."""
        self.add(A, B, C, data=bytes(100))
        self.time = DAY
        self.assertEqual(self.known(A), [A])
        self.add(b"d", data=bytes(100))
        self.assertEqual(self.known(A, B, C, b"d"), [A, C, b"d"])

    def test_counted(self) -> None:
        """What an earlier process stored counts, and what was replaced does not."""
        self.add(A, B, C, data=bytes(100))
        self.reopen()
        for _ in range(5):
            self.add(C, data=bytes(100))
        self.assertEqual(self.known(A, B, C), [A, B, C])
        self.add(b"d", data=bytes(100))
        self.assertEqual(self.known(A, B, C, b"d"), [B, C, b"d"])


class BrokenTests(CacheCase):
    """Nothing of it raises."""

    def test_rows(self) -> None:
        """A row that is not what was stored is not known, and can be replaced."""
        for column, value in (
            ("data", b""),
            ("data", b"short"),
            ("data", "text"),
            ("data", 5),
            ("data", bytes(20)),
            ("place", B),
            ("version", B),
        ):
            self.add(A)
            self.change(f"UPDATE contents SET {column} = ?", value)
            self.assertEqual(self.known(A, B), [], (column, value))
            self.assertIsNone(self.cache.get(A, B))
            self.change("DELETE FROM contents")
        self.add(A)
        self.change("UPDATE contents SET data = ?", b"")
        self.add(A)
        self.assertEqual(self.known(A), [A])

    def test_full(self) -> None:
        """A full disk costs only what was to be stored, and there is room again later."""
        self.add(A)
        with self.database.reading() as t:
            [pages] = t.execute("PRAGMA page_count").fetchone()
            t.execute(f"PRAGMA max_page_count = {pages}")
        self.add(B, data=bytes(50_000))
        self.assertEqual(self.known(A, B), [A])
        with self.database.reading() as t:
            t.execute("PRAGMA max_page_count = 10000")
        self.add(B, data=bytes(50_000))
        self.assertEqual(self.known(A, B), [A, B])

    def test_closed(self) -> None:
        """After the end of the database nothing is known and nothing is stored."""
        self.add(A)
        self.database.close()
        self.assertEqual(self.known(A), [])
        self.add(B)
        self.open()
        self.assertEqual(self.known(A, B), [A])

    def test_damaged(self) -> None:
        """A database that is damaged while it is open knows nothing."""
        self.add(A, data=bytes(50_000))
        self.reopen()
        size = os.path.getsize(self.directory / DATABASE)
        with open(self.directory / DATABASE, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        with self.database.reading() as t:
            t.execute("PRAGMA shrink_memory")
        self.assertEqual(self.known(A), [])
        self.add(B)
