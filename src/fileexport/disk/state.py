"""What must survive a kill: jobs, the messages of their ends, and the attempts to deliver them.

One SQLite database in the state directory. All SQL is here, so that another database could take its place.
Each method is one short transaction: when it has returned, what it says is on stable storage; when it has
raised, nothing changed.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Collection
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from fileexport.disk.access_store import AccessStore
from fileexport.disk.contents_cache import ContentsCache
from fileexport.disk.database import Database
from fileexport.disk.schema import (
    ATTEMPT_COLUMNS,
    JOB_COLUMNS,
    MESSAGE_COLUMNS,
    MIGRATIONS,
    AttemptRow,
    Callback,
    JobRow,
    JobState,
    MessageRow,
    MessageState,
    new_message_id,
)
from fileexport.disk.uploads_store import UploadsStore
from fileexport.errors import BusyError, ConflictError, QueueFull

#: Seconds that an ended job is kept, and how many of them at most.
KEPT_TIME = 24 * 3600.0
KEPT_JOBS = 1_000
#: Seconds after its end that a job waits for its messages: ten attempts, each put off by a day at most.
UNDELIVERED_TIME = 10 * 24 * 3600.0
#: Messages that are still to be delivered, of all jobs: they outlive `KEPT_JOBS`.
MAX_MESSAGES = 10_000
#: Those of them that one owner may have, so that a dead receiver is not everybody's trouble.
MAX_OWN_MESSAGES = MAX_MESSAGES // 4
#: The part of the queue that an owner may fill while others have something in it.
OWN_PART = 0.75
#: Requests that share one job: each adds a message or a key.
MAX_SHARED = 64
#: Attempts of a message that are remembered: two schedules of ten.
MAX_ATTEMPTS = 20
#: Rows of one answer.
MAX_ROWS = 1_000
#: Characters of an order: some paths of 4 KiB, escaped as JSON does it.
MAX_ORDER = 256 << 10
#: Characters of a result: a hundred names of skipped files, likewise.
MAX_RESULT = 4 << 20

_ACTIVE = "state IN ('queued', 'running')"


class State:
    """The state database, open. Thread-safe: one connection, used by one thread at a time.

    Must not be carried over a fork: open it after a daemon has detached.

    All methods raise `OSError` where the disk refuses (ENOSPC when it is full) and `StateError` where the
    database is damaged. Rows come back as they are after the call.
    """

    def __init__(self, directory: Path, now: Callable[[], float] = time.time) -> None:
        """Open the database of a state directory, or make it; `now` is in seconds since 1970.

        Raises `StateError` with one line that names what is wrong: another daemon has it (it is kept by
        flock(2), which a kill releases), it is damaged, a newer version wrote it, the disk refuses.
        """
        self._now = now
        self._database = Database(directory, MIGRATIONS)
        #: What is known of files' contents.
        self.contents = ContentsCache(self._database, now)
        #: Who is signed in, and what is shared.
        self.access = AccessStore(self._database)
        #: Uploads that can be resumed.
        self.uploads = UploadsStore(self._database, now)

    def close(self) -> None:
        """Close the database and let others have it. A second time does nothing."""
        self._database.close()

    # -- jobs

    def job_by_key(self, owner: str, key: str, request: str) -> JobRow | None:
        """The job that this owner's key stands for; None where it stands for none.

        `request` is a text of what the client asks for, the same for the same request. Raises `ConflictError`
        where the key was used for another one.
        """
        with self._database.reading() as t:
            return _known(t, owner, key, request)

    def add_job(
        self,
        row: JobRow,
        callback: Callback | None = None,
        *,
        key: str | None = None,
        request: str = "",
        limit: int,
    ) -> JobRow:
        """Queue a job, or find the one that the request shares; its end is told to `callback`.

        A key that stands for a job gives that one, as `job_by_key` does, and nothing is added. An equal order
        of the same owner that has not ended is shared. Raises `ConflictError` as `job_by_key`, `BusyError`
        while another order writes the target, `QueueFull` where as many jobs are queued as may be (`limit`;
        less for an owner while others wait) or as many messages wait, `ValueError` for too long an order.
        """
        if len(row.order) > MAX_ORDER:
            raise ValueError(f"an order has more than {MAX_ORDER} characters")
        with self._database.transaction() as t:
            if key is not None and (known := _known(t, row.owner, key, request)) is not None:
                return known
            query = f"SELECT {JOB_COLUMNS} FROM jobs WHERE target = ? AND {_ACTIVE}"
            active = _first_job(t, query, os.fsencode(row.target))
            if active is None:
                active = _insert(t, row, limit)
            elif active.cancelling or (active.owner, active.order) != (row.owner, row.order):
                raise BusyError("another job is writing this path: try again later")
            if key is not None:
                _add_key(t, active, key, request)
            if callback is not None:
                _add_message(t, active, callback)
            return active

    def next_job(self) -> JobRow | None:
        """Make the oldest queued job a running one; None when there is none."""
        with self._database.transaction() as t:
            query = f"SELECT {JOB_COLUMNS} FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1"
            row = _first_job(t, query)
            if row is None:
                return None
            row = replace(row, state=JobState.RUNNING, started=self._now())
            t.execute(
                "UPDATE jobs SET state = 'running', started = ? WHERE id = ? AND state = 'queued'",
                (row.started, row.id),
            )
            return row

    def end_job(
        self, job: str, state: JobState, result: str | None = None, error: str | None = None
    ) -> JobRow | None:
        """Give a running job its end, and make its messages due, all or nothing; old jobs are forgotten.

        None, and nothing changes, where it does not run. Raises `ValueError` for a state that is no end, or a
        result that is too long.
        """
        if not state.ended or len(result or "") > MAX_RESULT:
            raise ValueError(f"a job does not end as {state}, or its result is too long")
        with self._database.transaction() as t:
            return _end(t, job, "running", self._now(), state, result, error)

    def cancel_job(self, job: str) -> JobRow | None:
        """Cancel a queued job, with its messages due, or mark a running one as `cancelling`.

        The mark outlives a kill. None, and nothing changes, where the job has ended or there is none.
        """
        with self._database.transaction() as t:
            if (ended := _end(t, job, "queued", self._now(), JobState.CANCELLED)) is not None:
                return ended
            marked = t.execute("UPDATE jobs SET cancelling = 1 WHERE id = ? AND state = 'running'", (job,))
            return _job(t, job) if marked.rowcount else None

    def requeue_running(self) -> int:
        """Put the running jobs back in the queue, where they were, and count them.

        Those that were marked as `cancelling` become cancelled, with their messages due.
        """
        with self._database.transaction() as t:
            marked = t.execute("SELECT id FROM jobs WHERE state = 'running' AND cancelling").fetchall()
            for (job,) in marked:
                _end(t, job, "running", self._now(), JobState.CANCELLED)
            return t.execute(
                "UPDATE jobs SET state = 'queued', started = NULL WHERE state = 'running'"
            ).rowcount

    def job(self, job: str) -> JobRow | None:
        """The job with this id, or None."""
        with self._database.reading() as t:
            return _job(t, job)

    def jobs(self, owner: str | None = None, *, limit: int = MAX_ROWS) -> list[JobRow]:
        """The newest jobs, of one owner or of all, newest first; at most `limit` and at most `MAX_ROWS`."""
        where, values = ("1", ()) if owner is None else ("owner = ?", (owner,))
        query = f"SELECT {JOB_COLUMNS} FROM jobs WHERE {where} ORDER BY number DESC LIMIT ?"
        with self._database.reading() as t:
            return [_job_row(row) for row in t.execute(query, (*values, max(0, min(limit, MAX_ROWS))))]

    def counts(self) -> dict[JobState, int]:
        """How many jobs there are in each state."""
        with self._database.reading() as t:
            found = dict(t.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in JobState}

    def prune(self, now: float) -> int:
        """Forget jobs that ended `KEPT_TIME` before `now`, or before `KEPT_JOBS` others; count them.

        One with a message still to be delivered stays, until `UNDELIVERED_TIME` after its end.
        """
        with self._database.transaction() as t:
            return _prune(t, now)

    # -- messages

    def due_messages(self, now: float, limit: int, without: Collection[str] = ()) -> list[MessageRow]:
        """Messages to be sent by the time `now`, the longest due first; at most `limit` and `MAX_ROWS`.

        None of those that go to one of the places `without`.
        """
        marks = ", ".join("?" * len(without))
        query = f"""
            SELECT {MESSAGE_COLUMNS} FROM messages
            WHERE state = 'due' AND due <= ? AND place NOT IN ({marks}) ORDER BY due LIMIT ?
        """
        values = (now, *without, max(0, min(limit, MAX_ROWS)))
        with self._database.reading() as t:
            return [_message_row(row) for row in t.execute(query, values)]

    def next_due(self, after: float = 0.0) -> float | None:
        """When the next message is to be sent after the time `after`; None when there is none."""
        query = "SELECT min(due) FROM messages WHERE state = 'due' AND due > ?"
        with self._database.reading() as t:
            [due] = t.execute(query, (after,)).fetchone()
        return None if due is None else float(due)

    def attempted(
        self, sent: MessageRow, attempt: AttemptRow, state: MessageState, due: float | None = None
    ) -> bool:
        """Note an attempt to deliver a message that was due, and what becomes of it.

        `sent` is the message as the attempt found it. `state` is DUE with the time of the next attempt, or an
        end. False, and nothing changes, where the message is not as it was: it is to be sent again from the
        first, or not there any more. The last `MAX_ATTEMPTS` attempts are kept.
        """
        if (state is MessageState.DUE) is (due is None):
            raise ValueError("a message has a time when it is due, and only then")
        with self._database.transaction() as t:
            changed = t.execute(
                """
                UPDATE messages SET state = ?, attempts = attempts + 1, due = ?
                WHERE id = ? AND state = 'due' AND attempts = ? AND due = ?
                """,
                (state, due, sent.id, sent.attempts, sent.due),
            )
            if not changed.rowcount:
                return False
            t.execute(f"INSERT INTO attempts ({ATTEMPT_COLUMNS}) VALUES (?, ?, ?, ?, ?)", astuple(attempt))
            t.execute(
                """
                DELETE FROM attempts WHERE message = ? AND number <= (
                    SELECT number FROM attempts WHERE message = ? ORDER BY number DESC LIMIT 1 OFFSET ?)
                """,
                (attempt.message, attempt.message, MAX_ATTEMPTS),
            )
            return True

    def redeliver(self, job: str) -> int:
        """Make the messages of an ended job due now, with all their attempts before them; count them.

        A plain GET says that the job is done: after another end there is none to be sent.
        """
        with self._database.transaction() as t:
            return t.execute(
                """
                UPDATE messages SET state = 'due', attempts = 0, due = ?
                WHERE job = ? AND state != 'waiting'
                  AND (kind != 'get' OR (SELECT state FROM jobs WHERE id = messages.job) = 'done')
                """,
                (self._now(), job),
            ).rowcount

    def messages(self, job: str) -> list[MessageRow]:
        """The messages of a job, in the order of their requests."""
        query = f"SELECT {MESSAGE_COLUMNS} FROM messages WHERE job = ? ORDER BY number"
        with self._database.reading() as t:
            return [_message_row(row) for row in t.execute(query, (job,))]

    def attempts(self, job: str) -> list[AttemptRow]:
        """The attempts to deliver a job's messages, oldest first."""
        query = f"""
            SELECT {ATTEMPT_COLUMNS} FROM attempts
            WHERE message IN (SELECT id FROM messages WHERE job = ?) ORDER BY number
        """
        with self._database.reading() as t:
            return [AttemptRow(*row) for row in t.execute(query, (job,))]


# -- parts of transactions


def _job_row(row: tuple[Any, ...]) -> JobRow:
    job = JobRow(*row)
    return replace(
        job, state=JobState(job.state), target=os.fsdecode(job.target), cancelling=bool(job.cancelling)
    )


def _message_row(row: tuple[Any, ...]) -> MessageRow:
    kind, url, address, loopback, secret, message, job, state, attempts, due = row
    return MessageRow(
        kind,
        url,
        address,
        bool(loopback),
        secret,
        id=message,
        job=job,
        state=MessageState(state),
        attempts=attempts,
        due=due,
    )


def _first_job(t: sqlite3.Connection, query: str, *values: object) -> JobRow | None:
    row = t.execute(query, values).fetchone()
    return None if row is None else _job_row(row)


def _job(t: sqlite3.Connection, job: str) -> JobRow | None:
    return _first_job(t, f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ?", job)


def _count(t: sqlite3.Connection, table: str, where: str, *values: object) -> int:
    [count] = t.execute(f"SELECT count(*) FROM {table} WHERE {where}", values).fetchone()
    return int(count)


def _known(t: sqlite3.Connection, owner: str, key: str, request: str) -> JobRow | None:
    """The job that a key stands for. A job that is forgotten takes its keys along."""
    found = t.execute("SELECT job, request FROM keys WHERE owner = ? AND key = ?", (owner, key)).fetchone()
    if found is None:
        return None
    job, asked = found
    if asked != _digest(request):
        raise ConflictError("this Idempotency-Key stands for another request")
    return _job(t, job)


def _digest(request: str) -> bytes:
    """What is kept of a request: it may be long."""
    return hashlib.sha256(request.encode("utf-8", "surrogatepass")).digest()


def _insert(t: sqlite3.Connection, row: JobRow, limit: int) -> JobRow:
    queued = _count(t, "jobs", "state = 'queued'")
    own = _count(t, "jobs", "state = 'queued' AND owner = ?", row.owner)
    if queued >= limit or (own < queued and own >= limit * OWN_PART):
        raise QueueFull
    t.execute(
        "INSERT INTO jobs (id, owner, state, task, target, created) VALUES (?, ?, ?, ?, ?, ?)",
        (row.id, row.owner, row.state, row.order, os.fsencode(row.target), row.created),
    )
    return row


def _add_key(t: sqlite3.Connection, job: JobRow, key: str, request: str) -> None:
    _check_shared(t, "keys", job)
    values = (job.owner, key, job.id, _digest(request))
    t.execute("INSERT INTO keys (owner, key, job, request) VALUES (?, ?, ?, ?)", values)


def _add_message(t: sqlite3.Connection, job: JobRow, callback: Callback) -> None:
    _check_shared(t, "messages", job)
    undelivered = "state IN ('waiting', 'due')"
    if (
        _count(t, "messages", f"{undelivered} AND owner = ?", job.owner) >= MAX_OWN_MESSAGES
        or _count(t, "messages", undelivered) >= MAX_MESSAGES
    ):
        raise QueueFull("too many messages are still to be delivered: try again later")
    message = (*astuple(callback), new_message_id(), job.id, MessageState.WAITING, 0, None)
    values = (job.owner, callback.place, *message)
    marks = ", ".join("?" * len(values))
    t.execute(f"INSERT INTO messages (owner, place, {MESSAGE_COLUMNS}) VALUES ({marks})", values)


def _check_shared(t: sqlite3.Connection, table: str, job: JobRow) -> None:
    if _count(t, table, "job = ?", job.id) >= MAX_SHARED:
        raise QueueFull("too many requests share this job: try again later")


def _end(
    t: sqlite3.Connection,
    job: str,
    expected: str,
    now: float,
    state: JobState,
    result: str | None = None,
    error: str | None = None,
) -> JobRow | None:
    """End a job that is in the `expected` state, and make its messages due; the job as it is then.

    Whatever ends makes others old: so there are never many more than `KEPT_JOBS`.
    """
    ended = t.execute(
        """
        UPDATE jobs SET state = ?, ended = ?, result = ?, error = ?, cancelling = 0
        WHERE id = ? AND state = ?
        """,
        (state, now, result, error, job, expected),
    )
    if not ended.rowcount:
        return None
    t.execute("UPDATE messages SET state = 'due', due = ? WHERE job = ? AND state = 'waiting'", (now, job))
    row = _job(t, job)
    _prune(t, now)
    return row


def _prune(t: sqlite3.Connection, now: float) -> int:
    return t.execute(
        """
        DELETE FROM jobs
        WHERE ended IS NOT NULL
          AND (ended < ? OR (ended, number) <= (
              SELECT ended, number FROM jobs WHERE ended IS NOT NULL
              ORDER BY ended DESC, number DESC LIMIT 1 OFFSET ?))
          AND (ended < ? OR NOT EXISTS (
              SELECT 1 FROM messages WHERE messages.job = jobs.id AND messages.state = 'due'))
        """,
        (now - KEPT_TIME, KEPT_JOBS, now - UNDELIVERED_TIME),
    ).rowcount
