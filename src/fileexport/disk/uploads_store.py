"""Resumable uploads as the state database knows them: whose, of what, for where, and whether they are done.

How much of each has come is not here: the journal beside its content knows (`fileexport.disk.partials`).
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from fileexport.disk.database import Database

#: Seconds after its last byte that an upload waits for more, and that one that is done is remembered.
KEPT_TIME = 24 * 3600.0
#: Uploads that are done and remembered, at most.
KEPT_DONE = 10_000

_COLUMNS = "id, owner, path, size, metadata, replace, mtime_ns, created, touched, identity, done"


@dataclass(frozen=True, slots=True)
class UploadRow:
    """An upload. Times are seconds since 1970; `path` is bytes, as the file system has it.

    - `metadata`: as the client sent it.
    - `replace`: whether a file that is there makes way.
    - `touched`: when something of it came last.
    - `identity`: device and inode of its content, once that is about to get its name.
    - `done`: whether it has its name.
    """

    id: str
    owner: str
    path: bytes
    size: int
    metadata: str
    replace: bool
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

    def committing(self, upload: str, identity: tuple[int, int] | None) -> None:
        """Its content, of this identity, is about to get its name; None: it did not."""
        text = None if identity is None else f"{identity[0]}:{identity[1]}"
        with self._database.transaction() as t:
            t.execute("UPDATE uploads SET identity = ? WHERE id = ?", (text, upload))

    def finish(self, upload: str) -> None:
        """It has its name."""
        with self._database.transaction() as t:
            t.execute("UPDATE uploads SET done = 1, touched = ? WHERE id = ?", (self.now(), upload))

    def remove(self, upload: str) -> None:
        """Forget it."""
        with self._database.transaction() as t:
            t.execute("DELETE FROM uploads WHERE id = ?", (upload,))

    def expire(self, keep: Collection[str] = ()) -> list[UploadRow]:
        """Forget what has waited too long, or was done too long ago; returns those that were not done.

        None of those in `keep`.
        """
        oldest = self.now() - KEPT_TIME
        with self._database.transaction() as t:
            t.execute("DELETE FROM uploads WHERE done AND touched < ?", (oldest,))
            t.execute(
                """
                DELETE FROM uploads WHERE number IN (
                    SELECT number FROM uploads WHERE done ORDER BY touched DESC, number DESC
                    LIMIT -1 OFFSET ?)
                """,
                (KEPT_DONE,),
            )
            late = [row for row in _rows(t, "NOT done AND touched < ?", oldest) if row.id not in keep]
            t.executemany("DELETE FROM uploads WHERE id = ?", [(row.id,) for row in late])
            return late


def _rows(t: sqlite3.Connection, where: str, *values: object) -> list[UploadRow]:
    return [_row(found) for found in t.execute(f"SELECT {_COLUMNS} FROM uploads WHERE {where}", values)]


def _row(found: tuple[Any, ...]) -> UploadRow:
    *first, identity, done = found
    upload, owner, path, size, metadata, replace, mtime_ns, created, touched = first
    device, _, inode = (identity or "").partition(":")
    return UploadRow(
        upload,
        owner,
        path,
        size,
        metadata,
        bool(replace),
        mtime_ns,
        created,
        touched,
        (int(device), int(inode)) if identity else None,
        bool(done),
    )


def _values(row: UploadRow) -> tuple[object, ...]:
    identity = None if row.identity is None else f"{row.identity[0]}:{row.identity[1]}"
    facts = row.id, row.owner, row.path, row.size, row.metadata, row.replace, row.mtime_ns
    return (*facts, row.created, row.touched, identity, row.done)
