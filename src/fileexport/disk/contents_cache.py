"""What is known of files' contents, kept in the state database: a hint that may be forgotten at any time.

Nothing here raises: what the disk refuses, or a row that is not what was stored, is only not known.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from hmac import compare_digest
from threading import Lock

from blake3 import blake3

from fileexport.disk.database import Database
from fileexport.errors import StateError

#: Bytes of all rows together; what was not used for the longest time goes. So many have the chunks of a
#: hundred gigabytes. The whole database is checked at each start: this adds some hundredths of a second.
MAX_KEPT = 64 << 20
#: Bytes of one row: one file shall not drive out all others.
MAX_DATA = MAX_KEPT // 16
#: What a row costs beside its data: its key, and its place in the tables.
_ROW = 128
#: Rows, and bytes of them, that wait for their transaction: each costs a flush.
_WAITING_ROWS, _WAITING_BYTES = 512, 1 << 20
_DAY = 86_400
_CHECK_SIZE = 16


class ContentsCache:
    """Rows of bytes: one for each `place`, good for one `version` of what is there. Thread-safe."""

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        """`now` is in seconds since 1970."""
        self._database = database
        self._now = now
        self._lock = Lock()
        self._waiting: dict[bytes, tuple[bytes, bytes]] = {}
        self._used: set[bytes] = set()
        self._bytes = 0
        #: Bytes of all rows; None until they were counted.
        self._kept: int | None = None

    def get(self, place: bytes, version: bytes) -> bytes | None:
        """What was added for this version of a place; None where that is not known."""
        query = "SELECT used, data FROM contents WHERE place = ? AND version = ?"
        try:
            with self._database.reading() as t:
                row = t.execute(query, (place, version)).fetchone()
        except (OSError, StateError, sqlite3.Error):
            return None
        if row is None:
            return None
        used, stored = row
        if not isinstance(stored, bytes):
            return None
        check, data = stored[:_CHECK_SIZE], stored[_CHECK_SIZE:]
        if not compare_digest(check, _check(place, version, data)):
            return None
        if used != self._today():
            with self._lock:
                self._used.add(place)
        return data

    def add(self, place: bytes, version: bytes, data: bytes) -> None:
        """Remember it in place of what was known of other versions. Too much data is not remembered.

        It is stored when enough has come, or by `flush`.
        """
        if len(data) > MAX_DATA:
            return
        with self._lock:
            self._waiting[place] = version, data
            self._bytes += len(data)
            is_enough = len(self._waiting) >= _WAITING_ROWS or self._bytes >= _WAITING_BYTES
        if is_enough:
            self.flush()

    def flush(self) -> None:
        """Store what was added, in one transaction; what cannot be stored is forgotten."""
        with self._lock:
            if not self._waiting and len(self._used) < _WAITING_ROWS:
                # That a row was used is worth no transaction of its own.
                return
            waiting, self._waiting = self._waiting, {}
            used, self._used = self._used, set()
            self._bytes = 0
            try:
                with self._database.transaction() as t:
                    kept = self._count(t) if self._kept is None else self._kept
                    self._kept = None
                    kept = self._store(t, waiting, used, kept)
                self._kept = kept
            except (OSError, StateError, sqlite3.Error):
                return

    # -- the parts of a transaction

    def _store(
        self,
        t: sqlite3.Connection,
        waiting: dict[bytes, tuple[bytes, bytes]],
        used: set[bytes],
        kept: int,
    ) -> int:
        today = self._today()
        t.executemany("UPDATE contents SET used = ? WHERE place = ?", ((today, place) for place in used))
        for place, (version, data) in waiting.items():
            kept -= _forget(t, place)
            row = (place, version, today, len(data) + _ROW, _check(place, version, data) + data)
            t.execute("INSERT INTO contents (place, version, used, size, data) VALUES (?, ?, ?, ?, ?)", row)
            kept += len(data) + _ROW
        gone = []
        for number, size in t.execute("SELECT number, size FROM contents ORDER BY used, number"):
            if kept <= MAX_KEPT:
                break
            gone.append((number,))
            kept -= size
        t.executemany("DELETE FROM contents WHERE number = ?", gone)
        return kept

    @staticmethod
    def _count(t: sqlite3.Connection) -> int:
        [size] = t.execute("SELECT coalesce(sum(size), 0) FROM contents").fetchone()
        return int(size)

    def _today(self) -> int:
        return int(self._now() // _DAY)


def _check(place: bytes, version: bytes, data: bytes) -> bytes:
    return blake3(place + version + data).digest(length=_CHECK_SIZE)


def _forget(t: sqlite3.Connection, place: bytes) -> int:
    """Delete what is known of a place, and say how many bytes that was."""
    found = t.execute("SELECT number, size FROM contents WHERE place = ?", (place,)).fetchone()
    if found is None:
        return 0
    number, size = found
    t.execute("DELETE FROM contents WHERE number = ?", (number,))
    return int(size)
