"""What the state database holds: its records as Python sees them, and its tables as they came to be."""

from __future__ import annotations

import enum
import secrets
from dataclasses import dataclass, field


class JobState(enum.StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the job stays as it is now."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class MessageState(enum.StrEnum):
    """Where a message to a job's caller stands."""

    #: Its job has not ended.
    WAITING = "waiting"
    #: To be sent at the time `due`.
    DUE = "due"
    DELIVERED = "delivered"
    #: The receiver wants no more of them.
    GONE = "gone"
    #: No attempt succeeded, and there will be no other.
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job. Times are seconds since 1970, None until they come."""

    id: str
    #: The name of the principal who asked.
    owner: str
    state: JobState
    #: What to do, as JSON: equal orders have equal text.
    order: str
    #: The place that the job writes, one text for each; no two jobs write one at the same time.
    target: str
    created: float
    started: float | None = None
    ended: float | None = None
    #: JSON, of a job that is done.
    result: str | None = None
    #: The sentence for people, of a job that failed.
    error: str | None = None
    #: It runs, and was asked to stop.
    cancelling: bool = False


@dataclass(frozen=True, slots=True)
class Callback:
    """Whom a caller wants told of a job's end, and what is known of that caller."""

    #: "get" or "webhook".
    kind: str
    url: str
    address_of_requester: str
    #: The requester may name this machine itself.
    loopback_allowed: bool
    #: Signs the webhook.
    secret: str | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """Scheme, host and port: callbacks of one place have one receiver, as URLs come in one spelling."""
        return "/".join(self.url.split("/", 3)[:3])


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRow(Callback):
    """A callback and its fate. The id stays the same in all attempts; `due` is seconds since 1970."""

    id: str
    #: The id of its job.
    job: str
    state: MessageState
    #: Attempts since the job's end, or since the last redelivery.
    attempts: int
    due: float | None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt to deliver a message, at a time in seconds since 1970."""

    message: str
    at: float
    #: HTTP's status, None where there was no answer.
    status: int | None
    #: Why there was no answer, for people.
    error: str | None
    #: The first line of the answer's body.
    first_line: str


def new_job_id() -> str:
    """22 characters that nobody guesses (128 bits)."""
    return secrets.token_urlsafe(16)


def new_message_id() -> str:
    """`msg_` and 22 characters that nobody guesses."""
    return f"msg_{secrets.token_urlsafe(16)}"


#: Columns in the order of the records' fields.
JOB_COLUMNS = "id, owner, state, task, target, created, started, ended, result, error, cancelling"  # JobRow
MESSAGE_COLUMNS = (
    "kind, url, address_of_requester, loopback_allowed, secret, id, job, state, attempts, due"  # MessageRow
)
ATTEMPT_COLUMNS = "message, at, status, error, first_line"

_FIRST = (
    # `number` is the order of arrival. `target` is a path, and so bytes. The unique index keeps two jobs from
    # one target, whatever the code above it believes.
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
        task TEXT NOT NULL,
        target BLOB NOT NULL,
        created REAL NOT NULL,
        started REAL,
        ended REAL,
        result TEXT,
        error TEXT,
        cancelling INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX jobs_by_state ON jobs (state, number)",
    "CREATE INDEX jobs_by_owner ON jobs (owner, number)",
    "CREATE INDEX jobs_by_end ON jobs (ended, number) WHERE ended IS NOT NULL",
    "CREATE UNIQUE INDEX jobs_writing ON jobs (target) WHERE state IN ('queued', 'running')",
    # Not a column of `jobs`: requests that share a job have a key each. `request` is a digest of what
    # the client asked for.
    """
    CREATE TABLE keys (
        owner TEXT NOT NULL,
        key TEXT NOT NULL,
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        request BLOB NOT NULL,
        PRIMARY KEY (owner, key)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX keys_by_job ON keys (job)",
    # `owner` is the job's: what waits is counted, and what is due is chosen, from the indexes alone.
    """
    CREATE TABLE messages (
        number INTEGER PRIMARY KEY,
        owner TEXT NOT NULL,
        place TEXT NOT NULL,
        kind TEXT NOT NULL,
        url TEXT NOT NULL,
        address_of_requester TEXT NOT NULL,
        loopback_allowed INTEGER NOT NULL,
        secret TEXT,
        id TEXT NOT NULL UNIQUE,
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'due', 'delivered', 'gone', 'given_up')),
        attempts INTEGER NOT NULL DEFAULT 0,
        due REAL
    )
    """,
    "CREATE INDEX messages_by_job ON messages (job)",
    "CREATE INDEX messages_due ON messages (due, place) WHERE state = 'due'",
    "CREATE INDEX messages_undelivered ON messages (owner) WHERE state IN ('waiting', 'due')",
    """
    CREATE TABLE attempts (
        number INTEGER PRIMARY KEY,
        message TEXT NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
        at REAL NOT NULL,
        status INTEGER,
        error TEXT,
        first_line TEXT NOT NULL
    )
    """,
    "CREATE INDEX attempts_by_message ON attempts (message, number)",
)

_SECOND = (
    # What was read of files: `place` says of which and what, `version` when they were so. `used` is a day,
    # counted from 1970, and `size` what the row counts.
    """
    CREATE TABLE contents (
        number INTEGER PRIMARY KEY,
        place BLOB NOT NULL UNIQUE,
        version BLOB NOT NULL,
        used INTEGER NOT NULL,
        size INTEGER NOT NULL,
        data BLOB NOT NULL
    )
    """,
    "CREATE INDEX contents_by_use ON contents (used, number, size)",
)

_THIRD = (
    # Resumable uploads over HTTP. `path` is a path, and so bytes. `identity` is the device and inode of the
    # staged file once it is about to be committed: they say after a kill whether it was.
    """
    CREATE TABLE uploads (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        path BLOB NOT NULL,
        size INTEGER NOT NULL,
        metadata TEXT NOT NULL,
        conflict TEXT NOT NULL,
        mtime_ns INTEGER,
        created REAL NOT NULL,
        touched REAL NOT NULL,
        identity TEXT,
        done INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX uploads_by_owner ON uploads (owner, done, touched)",
    "CREATE INDEX uploads_by_touch ON uploads (touched)",
    # Who is signed in, by a digest of what their cookie holds. `proof` is a digest of what is kept of the
    # token: with another token under the same id a session is over.
    """
    CREATE TABLE sessions (
        digest BLOB NOT NULL PRIMARY KEY,
        token BLOB NOT NULL,
        proof BLOB NOT NULL,
        created REAL NOT NULL,
        expires REAL NOT NULL
    ) WITHOUT ROWID
    """,
    # Links that show a part of the root to whoever has them.
    """
    CREATE TABLE shares (
        id TEXT NOT NULL PRIMARY KEY,
        owner TEXT NOT NULL,
        path BLOB NOT NULL,
        created REAL NOT NULL,
        expires REAL NOT NULL
    ) WITHOUT ROWID
    """,
    # Random values that this daemon made for itself.
    "CREATE TABLE secrets (name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
)

#: What makes each version of the tables out of the one before; their number is the version.
MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND, _THIRD)
