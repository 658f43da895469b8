"""Who is signed in: a value that only their browser has, for as long as their token counts.

Looked up in memory, and written through: a session survives a restart of the daemon. What is kept of its
value is a digest, so that who reads the database is not signed in.
"""

from __future__ import annotations

import hashlib
import secrets
from hmac import compare_digest

from fileexport.disk.access_store import AccessStore, SessionRow
from fileexport.pools import Worker
from fileexport.tokens import Entry, Principal, TokenTable

#: Seconds that a session lasts.
SESSION_TIME = 30 * 86_400
#: Sessions of one token: at one more its oldest ends. And of all: then the oldest of the token that has most.
MAX_OWN_SESSIONS, MAX_SESSIONS = 50, 1_000


class Sessions:
    """The sessions of one state. Its methods belong to the reactor's thread; `disk` runs the store's.

    `cookie` is the name of the cookie that holds a session's value: another one for each state, so that two
    daemons on one host do not sign each other's users out.
    """

    def __init__(self, store: AccessStore, disk: Worker) -> None:
        """Reads what the store has. Raises as it does."""
        self._store = store
        self._disk = disk
        self._rows = {row.digest: row for row in store.sessions()}
        self.cookie = f"fileexport-{store.secret('cookie')[:4].hex()}"

    def find(self, value: str, tokens: TokenTable, now: float) -> Principal | None:
        """Whose session this value is; None where it is none, or is over, or its token does not count now.

        `now` is in seconds since 1970, here as everywhere.
        """
        row = self._rows.get(_digest(value))
        if row is None or now >= row.expires:
            return None
        entry = tokens.entry(row.token)
        return entry.principal if entry and _is_of(row, entry) and now < entry.expires else None

    async def begin(self, entry: Entry, now: float) -> str:
        """Begin a session of a token, and return its value. Raises as the store; there is none then."""
        value = secrets.token_urlsafe(32)
        row = SessionRow(_digest(value), entry.verifier.id, _proof(entry), now, now + SESSION_TIME)
        gone = self._gone(row)
        await self._disk.run(self._store.add_session, row, gone)
        for digest in gone:
            self._rows.pop(digest, None)
        self._rows[row.digest] = row
        return value

    async def end(self, value: str) -> None:
        """End the session of this value, if it is one. Raises as the store; it goes on then."""
        digest = _digest(value)
        if digest in self._rows:
            await self._disk.run(self._store.remove_sessions, [digest])
            self._rows.pop(digest, None)

    async def renew(self, tokens: TokenTable) -> None:
        """These tokens count now: sessions of others are over, and do not come back with their token.

        Raises as the store; they stay until the next time then, though they do not count.
        """
        gone = [digest for digest, row in self._rows.items() if not _is_of(row, tokens.entry(row.token))]
        if gone:
            await self._disk.run(self._store.remove_sessions, gone)
        for digest in gone:
            self._rows.pop(digest, None)

    def _gone(self, new: SessionRow) -> list[bytes]:
        """The sessions that make room for a new one: those that are over, else of its own token.

        Nobody signs others out by signing in: another token's end only where it has more of them.
        """
        gone: list[bytes] = []
        # By token, in the order in which they began.
        left: dict[bytes, list[bytes]] = {}
        for row in (*self._rows.values(), new):
            if new.created < row.expires:
                left.setdefault(row.token, []).append(row.digest)
            else:
                gone.append(row.digest)
        own = left[new.token]
        while len(own) > MAX_OWN_SESSIONS:
            gone.append(own.pop(0))
        while sum(map(len, left.values())) > MAX_SESSIONS:
            gone.append(max(left.values(), key=len).pop(0))
        return gone


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()


def _is_of(row: SessionRow, entry: Entry | None) -> bool:
    """Whether a session is of this token: another may have come under its id, though hardly by chance."""
    return entry is not None and compare_digest(row.proof, _proof(entry))


def _proof(entry: Entry) -> bytes:
    """A digest of what is kept of a token: another one as soon as the token is another."""
    return hashlib.sha256(b"session" + entry.verifier.stored_key).digest()
