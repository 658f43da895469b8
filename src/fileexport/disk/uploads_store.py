"""Resumable uploads as the state database knows them: whose, of what, for where, and whether they are done.

How much of each has come is not here: the journal beside its content knows (`fileexport.disk.partials`).
"""

from __future__ import annotations

import enum
import secrets
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from fileexport.disk.database import Database

#: Seconds after its last byte that an upload waits for more, and that one that is done is remembered.
KEPT_TIME = 24 * 3600.0
#: Uploads that are done and remembered, at most, but for some; and how many are done between two looks.
KEPT_DONE, LOOK_EVERY = 10_000, 256

_COLUMNS = "id, owner, path, size, metadata, conflict, mtime_ns, created, touched, identity, done"


class Conflict(enum.StrEnum):
    """What becomes of an upload to a name that is there."""

    ABORT = "abort"
    REPLACE = "replace"
    RENAME = "rename"


@dataclass(frozen=True, slots=True)
class UploadRow:
    """An upload. Times are seconds since 1970; `path` is bytes, as the file system has it.

    - `metadata`: as the client sent it; nothing any more when it is done.
    - `touched`: when something of it came last.
    - `identity`: device and inode of its content, once that is about to get its name.
    - `done`: whether it has its name.
    """

    id: str
    owner: str
    path: bytes
    size: int
    metadata: str
    conflict: Conflict
    mtime_ns: int | None
    created: float
    touched: float
    identity: tuple[int, int] | None = None
    done: bool = False

    @property
    def expires(self) -> float:
        """Until when it is kept if nothing comes."""
        return self.touched + KEPT_TIME


def new_upload_id() -> str:
    """22 characters that nobody guesses (128 bits)."""
    return secrets.token_urlsafe(16)


class UploadsStore:
    """The uploads in a database. Thread-safe, and as durable as `State`, whose errors it raises."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        """`now` is in seconds since 1970."""
        self._database = database
        self._finished = 0
        #: The clock that all times here are of.
        self.now = now

    def add(self, row: UploadRow, limit: int, keep: Collection[str] = ()) -> list[UploadRow] | None:
        """Add an upload. Where its owner has `limit` unfinished ones, the oldest make way: they are returned.

        None of those in `keep`; None, and nothing is added, where all would be.
        """
        with self._database.transaction() as t:
            own = _rows(t, "owner = ? AND NOT done ORDER BY touched, number", row.owner)
            idle = [one for one in own if one.id not in keep]
            surplus = max(0, len(own) + 1 - limit)
            if len(idle) < surplus:
                return None
            t.executemany("DELETE FROM uploads WHERE id = ?", [(one.id,) for one in idle[:surplus]])
            marks = ", ".join("?" * len(_values(row)))
            t.execute(f"INSERT INTO uploads ({_COLUMNS}) VALUES ({marks})", _values(row))
            return idle[:surplus]

    def get(self, upload: str) -> UploadRow | None:
        """The upload with this id, or None."""
        with self._database.reading() as t:
            found = _rows(t, "id = ?", upload)
        return found[0] if found else None

    def unfinished(self, owner: str) -> list[UploadRow]:
        """What an owner has begun and not finished, oldest first; also what has expired."""
        with self._database.reading() as t:
            return _rows(t, "owner = ? AND NOT done ORDER BY number", owner)

    def targets(self) -> list[bytes]:
        """The paths of all unfinished uploads."""
        with self._database.reading() as t:
            return [path for (path,) in t.execute("SELECT path FROM uploads WHERE NOT done")]

    def undecided(self) -> list[UploadRow]:
        """Those that were about to get their names when the daemon ended, or are about to now."""
        with self._database.reading() as t:
            return _rows(t, "identity IS NOT NULL AND NOT done ORDER BY number")

    def touch(self, upload: str) -> float:
        """Something of it came: it is kept for `KEPT_TIME` from now. Returns the time."""
        now = self.now()
        with self._database.transaction() as t:
            t.execute("UPDATE uploads SET touched = ? WHERE id = ?", (now, upload))
        return now

    def divert(self, upload: str, path: bytes) -> None:
        """It is about to get this name."""
        with self._database.transaction() as t:
            t.execute("UPDATE uploads SET path = ? WHERE id = ?", (path, upload))

    def committing(self, upload: str, identity: tuple[int, int] | None) -> None:
        """Its content, of this identity, is about to get its name; None: it did not."""
        text = None if identity is None else f"{identity[0]}:{identity[1]}"
        with self._database.transaction() as t:
            t.execute("UPDATE uploads SET identity = ? WHERE id = ?", (text, upload))

    def finish(self, upload: str) -> None:
        """It has its name."""
        change = "UPDATE uploads SET done = 1, metadata = '', touched = ? WHERE id = ?"
        with self._database.transaction() as t:
            t.execute(change, (self.now(), upload))
            self._finished += 1
            if self._finished % LOOK_EVERY == 0:
                _trim(t)

    def remove(self, upload: str) -> None:
        """Forget it."""
        with self._database.transaction() as t:
            t.execute("DELETE FROM uploads WHERE id = ?", (upload,))

    def expire(self, keep: Collection[str] = ()) -> None:
        """Forget what has waited too long, or was done too long ago: none of those in `keep`."""
        oldest = self.now() - KEPT_TIME
        with self._database.transaction() as t:
            t.execute("DELETE FROM uploads WHERE done AND touched < ?", (oldest,))
            _trim(t)
            late = t.execute("SELECT id FROM uploads WHERE NOT done AND touched < ?", (oldest,)).fetchall()
            t.executemany("DELETE FROM uploads WHERE id = ?", [one for one in late if one[0] not in keep])


def _trim(t: sqlite3.Connection) -> None:
    """Of those that are done only the newest are remembered."""
    t.execute(
        """
        DELETE FROM uploads WHERE number IN (
            SELECT number FROM uploads WHERE done ORDER BY touched DESC, number DESC
            LIMIT -1 OFFSET ?)
        """,
        (KEPT_DONE,),
    )


def _rows(t: sqlite3.Connection, where: str, *values: object) -> list[UploadRow]:
    return [_row(found) for found in t.execute(f"SELECT {_COLUMNS} FROM uploads WHERE {where}", values)]


def _row(found: tuple[Any, ...]) -> UploadRow:
    *first, identity, done = found
    upload, owner, path, size, metadata, conflict, mtime_ns, created, touched = first
    device, _, inode = (identity or "").partition(":")
    return UploadRow(
        upload,
        owner,
        path,
        size,
        metadata,
        Conflict(conflict),
        mtime_ns,
        created,
        touched,
        (int(device), int(inode)) if identity else None,
        bool(done),
    )


def _values(row: UploadRow) -> tuple[object, ...]:
    identity = None if row.identity is None else f"{row.identity[0]}:{row.identity[1]}"
    facts = row.id, row.owner, row.path, row.size, row.metadata, row.conflict.value, row.mtime_ns
    return (*facts, row.created, row.touched, identity, row.done)
