"""Who is signed in, and what is shared by a link, as the state database keeps it.

Each method is one short transaction, as those of `State`: on stable storage when it has returned, nothing
changed when it has raised. All raise `OSError` where the disk refuses and `StateError` for damage.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from fileexport.disk.database import Database
from fileexport.errors import ConflictError
from fileexport.paths import RelPath

#: Bytes of a secret of our own.
_SECRET = 32

_FORGET_SESSION = "DELETE FROM sessions WHERE digest = ?"


@dataclass(frozen=True, slots=True)
class SessionRow:
    """Somebody who is signed in. Times are seconds since 1970; `expires` is the first that is too late.

    `digest` is that of what their cookie holds, `token` the id of their token, and `proof` a digest of what
    is kept of it.
    """

    digest: bytes
    token: bytes
    proof: bytes = field(repr=False)
    created: float
    expires: float


@dataclass(frozen=True, slots=True)
class ShareRow:
    """A link to a part of the root. Times as those of `SessionRow`; `expires` is a whole number.

    `owner` is `Principal.owner` of whoever made it. What was shared as a file is no link to a directory that
    takes its place, nor the other way round.
    """

    id: str
    owner: str
    path: RelPath
    is_directory: bool
    created: float
    expires: float

    @property
    def place(self) -> bytes:
        """The path as bytes; that of a directory ends with a slash."""
        return os.fsencode(str(self.path)) + (b"/" if self.is_directory and self.path else b"")


class AccessStore:
    """The tables of sessions, of shares, and of the secrets that are behind both. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def secret(self, name: str) -> bytes:
        """32 random bytes: the same for one name in one state, made when they are first asked for."""
        query = "SELECT value FROM secrets WHERE name = ?"
        with self._database.reading() as t:
            row = t.execute(query, (name,)).fetchone()
        if row is None:
            with self._database.transaction() as t:
                made = secrets.token_bytes(_SECRET)
                t.execute("INSERT OR IGNORE INTO secrets (name, value) VALUES (?, ?)", (name, made))
                row = t.execute(query, (name,)).fetchone()
        return bytes(row[0])

    # -- sessions

    def sessions(self) -> list[SessionRow]:
        """All sessions, the oldest first."""
        query = "SELECT digest, token, proof, created, expires FROM sessions ORDER BY created, digest"
        with self._database.reading() as t:
            return [SessionRow(*row) for row in t.execute(query)]

    def add_session(self, row: SessionRow, gone: Iterable[bytes] = ()) -> None:
        """Add a session, and forget those of the digests `gone`."""
        with self._database.transaction() as t:
            t.executemany(_FORGET_SESSION, ((digest,) for digest in gone))
            t.execute(
                "INSERT INTO sessions (digest, token, proof, created, expires) VALUES (?, ?, ?, ?, ?)",
                (row.digest, row.token, row.proof, row.created, row.expires),
            )

    def remove_sessions(self, gone: Iterable[bytes]) -> None:
        """Forget the sessions of these digests that are there."""
        with self._database.transaction() as t:
            t.executemany(_FORGET_SESSION, ((digest,) for digest in gone))

    # -- shares

    def shares(self) -> list[ShareRow]:
        """All shares, the oldest first."""
        query = "SELECT id, owner, path, created, expires FROM shares ORDER BY created, id"
        with self._database.reading() as t:
            return [_share(*row) for row in t.execute(query)]

    def add_share(self, row: ShareRow, *, own_limit: int, limit: int) -> None:
        """Add a share; those that have expired when it is made are forgotten.

        Raises `ConflictError` where its owner has `own_limit` others, or all together have `limit`.
        """
        with self._database.transaction() as t:
            t.execute("DELETE FROM shares WHERE expires <= ?", (row.created,))
            [own] = t.execute("SELECT count(*) FROM shares WHERE owner = ?", (row.owner,)).fetchone()
            [count] = t.execute("SELECT count(*) FROM shares").fetchone()
            if own >= own_limit or count >= limit:
                raise ConflictError("as many links are shared as may be: revoke one that is not needed")
            t.execute(
                "INSERT INTO shares (id, owner, path, created, expires) VALUES (?, ?, ?, ?, ?)",
                (row.id, row.owner, row.place, row.created, row.expires),
            )

    def remove_shares(self, gone: Iterable[str]) -> None:
        """Forget the shares with these ids that are there."""
        with self._database.transaction() as t:
            t.executemany("DELETE FROM shares WHERE id = ?", ((share,) for share in gone))


def _share(share: str, owner: str, place: bytes, created: float, expires: float) -> ShareRow:
    return ShareRow(share, owner, RelPath.parse(os.fsdecode(place)), place.endswith(b"/"), created, expires)
