"""An SQLite database of one process: opened under a lock, every commit flushed, errors as what they mean."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fileexport.errors import StateError

DATABASE = "state.sqlite3"
LOCK = "state.lock"

_IN_USE = "the state directory is in use by another daemon: --state gives this one its own"
#: SQLite's primary result codes.
_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_CANTOPEN: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
}
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Database:
    """One connection, used by one thread at a time; any thread may.

    Must not be carried over a fork.
    """

    def __init__(self, directory: Path, migrations: Sequence[Sequence[str]]) -> None:
        """Open the database of a directory, or make it, and bring its tables to the last version.

        `migrations`: the statements that make each version out of the one before. Raises `StateError` with
        one line that names what is wrong; nothing stays open or locked then.
        """
        self._path = directory / DATABASE
        self._guard = threading.Lock()
        with ExitStack() as undo:
            try:
                self._lock = _lock(directory / LOCK)
                undo.callback(os.close, self._lock)
                _make(self._path)
                # No transactions of Python's own, and no waiting: the lock keeps everybody else away.
                self._connection = sqlite3.connect(
                    self._path, timeout=0, isolation_level=None, check_same_thread=False
                )
                undo.callback(self._connection.close)
                with self.reading() as connection:
                    self._configure(connection)
                    self._migrate(connection, migrations)
                _flush(directory)
            except OSError as error:
                raise StateError(f"{self._path}: {error.strerror}") from error
            except sqlite3.Error as error:
                raise StateError(f"{self._path}: {error}") from error
            undo.pop_all()

    def close(self) -> None:
        """Close the database and let others have it. A second time does nothing."""
        with self._guard:
            try:
                self._connection.close()
            finally:
                lock, self._lock = self._lock, -1
                if lock >= 0:
                    os.close(lock)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for statements that change nothing.

        Raises `OSError` for what the disk refuses (ENOSPC when it is full) and `StateError` for damage.
        """
        try:
            with self._guard:
                yield self._connection
        except sqlite3.DatabaseError as error:
            # The extended codes have theirs in the low byte. Our own mistakes stay what they are.
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGED:
                raise self._damaged() from error
            if code in _ERRNO:
                raise OSError(_ERRNO[code], os.strerror(_ERRNO[code]), str(self._path)) from error
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection in a transaction: on stable storage when it is left, undone when anything raises.

        Raises as `reading` does.
        """
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # After some errors of the disk SQLite has gone back by itself.
                with suppress(sqlite3.Error):
                    connection.rollback()
                raise

    def _configure(self, connection: sqlite3.Connection) -> None:
        # Exclusive: without shared memory, which some file systems lack and a full one refuses.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL: the log has been flushed when a commit returns.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        [verdict] = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise self._damaged()

    def _migrate(self, connection: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> None:
        [version] = connection.execute("PRAGMA user_version").fetchone()
        known = len(migrations)
        if version > known:
            raise StateError(
                f"{self._path}: a newer fileexport made it (version {version}, this one knows {known})"
            )
        if version == known:
            return
        connection.execute("BEGIN IMMEDIATE")
        for step in migrations[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {known}")
        connection.execute("COMMIT")

    def _damaged(self) -> StateError:
        return StateError(f"{self._path}: the database is damaged: move it away and start again")


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise StateError(_IN_USE) from None
        raise
    return descriptor


def _make(path: Path) -> None:
    """See to it that there is a file that only its owner reads: SQLite gives its log the same mode."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _flush(directory: Path) -> None:
    """Flush the names in a directory; SQLite flushes the content of its files."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
