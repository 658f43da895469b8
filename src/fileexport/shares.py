"""Links that show one file or directory, read-only and for a time, to whoever has them.

The key in a link is the base64url of 28 bytes: the share's id (12), and the beginning (16) of HMAC-SHA256 of
id, path and expiry under a secret of this state. So a copy of the table of shares makes no links, and the id
alone, which logs show, opens nothing.

A share is its owner's doing: it counts for as long as they could read what it shows, and make it again.
"""

from __future__ import annotations

import base64
import hmac
import math
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from fileexport.disk.access_store import AccessStore, ShareRow
from fileexport.errors import BadRequestError
from fileexport.paths import RelPath
from fileexport.pools import Worker
from fileexport.tokens import Principal, Right

#: Seconds that a share may last, at least, at most, and where nothing is said.
MIN_TIME, MAX_TIME, DEFAULT_TIME = 60, 365 * 86_400, 7 * 86_400
#: Shares of one owner, and of all.
MAX_OWN_SHARES, MAX_SHARES = 1_000, 10_000
#: Characters of a key that are the id.
ID_LENGTH = 16
#: What an owner must hold for a share of theirs to count, and whoever is shown a link: it reads.
LENDING = Right.READ | Right.WRITE

_ID_BYTES, _MAC_BYTES = 12, 16

#: Whoever may act under this name (`Principal.owner`) now, in seconds since 1970.
Holders = Callable[[str, float], Iterable[Principal]]


@dataclass(frozen=True, slots=True)
class Shared:
    """A share that counts, and as whom its visitors come."""

    share: ShareRow
    visitor: Principal


class Shares:
    """The shares of one state. Its methods belong to the reactor's thread; `disk` runs the store's."""

    def __init__(self, store: AccessStore, disk: Worker) -> None:
        """Reads what the store has. Raises as it does."""
        self._store = store
        self._disk = disk
        self._rows = {row.id: row for row in store.shares()}
        self._secret = store.secret("shares")

    def find(self, key: str, holders: Holders, now: float) -> Shared | None:
        """The share that a key opens; None for a wrong one, and for one that is over, revoked or orphaned."""
        row = self._rows.get(key[:ID_LENGTH])
        # Whether there is such a share takes no other time than whether the key is right.
        right = hmac.compare_digest(self.key(row or _NONE).encode("ascii"), key.encode("utf-8", "replace"))
        if row is None or not right or now >= row.expires:
            return None
        if not any(_may_lend(holder, row.path) for holder in holders(row.owner, now)):
            return None
        return Shared(row, visitor_of(row))

    def key(self, share: ShareRow) -> str:
        """What opens a share; it is part of its link."""
        signed = b"|".join((share.id.encode("ascii"), share.place, b"%d" % share.expires))
        mac = hmac.digest(self._secret, signed, "sha256")[:_MAC_BYTES]
        return share.id + base64.urlsafe_b64encode(mac).rstrip(b"=").decode("ascii")

    def seen_by(self, who: Principal, now: float) -> list[ShareRow]:
        """The shares that somebody may know and revoke, the newest first: their own; an admin's, all.

        Of the others' only those of what they may read: a link that they see is a link that they can follow.
        """
        rows = [row for row in reversed(self._rows.values()) if now < row.expires]
        return [row for row in rows if _is_seen(row, who)]

    def get(self, share: str, who: Principal, now: float) -> ShareRow | None:
        """The share with this id, where `who` sees it."""
        row = self._rows.get(share)
        return row if row is not None and now < row.expires and _is_seen(row, who) else None

    async def add(
        self, who: Principal, path: RelPath, *, is_directory: bool, seconds: int, now: float
    ) -> ShareRow:
        """Share what `who` has found to be there, for so long.

        Raises `BadRequestError` for another time than `MIN_TIME` to `MAX_TIME` and where `who` may not lend
        the path, `ConflictError` where there are as many shares as may be, and as the store.
        """
        if not MIN_TIME <= seconds <= MAX_TIME:
            raise BadRequestError(f"a link lasts {MIN_TIME} to {MAX_TIME} seconds")
        if not _may_lend(who, path):
            raise BadRequestError("this cannot be shared: name what is in it")
        made = base64.urlsafe_b64encode(secrets.token_bytes(_ID_BYTES)).decode("ascii")
        row = ShareRow(made, who.owner, path, is_directory, now, float(int(now) + seconds))
        await self._disk.run(self._store.add_share, row, own_limit=MAX_OWN_SHARES, limit=MAX_SHARES)
        for old in [old.id for old in self._rows.values() if now >= old.expires]:
            del self._rows[old]
        self._rows[row.id] = row
        return row

    async def revoke(self, share: ShareRow) -> None:
        """Take a share back. Raises as the store; it stays then."""
        await self._disk.run(self._store.remove_shares, [share.id])
        self._rows.pop(share.id, None)

    async def renew(self, holders: Holders) -> None:
        """The tokens are others now: shares whose owner no token is, expired or not, are gone for good.

        Raises as the store; they stay until the next time then, though they do not count.
        """
        gone = [row.id for row in self._rows.values() if not any(True for _ in holders(row.owner, -math.inf))]
        if gone:
            await self._disk.run(self._store.remove_shares, gone)
        for share in gone:
            self._rows.pop(share, None)


def visitor_of(share: ShareRow) -> Principal:
    """As whom somebody comes who follows a link: a reader of what lies at the path itself, and below it.

    Whoever shared it named what is hidden on the way to it, and not what is hidden in it.
    """
    kind: Literal["file", "directory"] = "directory" if share.is_directory else "file"
    return Principal(f"share:{share.id}", Right.READ, share.path, sees_hidden=False, bound=kind)


def _may_lend(owner: Principal, path: RelPath) -> bool:
    return owner.may(LENDING) and _may_see(owner, path)


def _is_seen(share: ShareRow, who: Principal) -> bool:
    if share.owner == who.owner:
        return True
    return who.may(Right.ADMIN | Right.READ) and _may_see(who, share.path)


def _may_see(who: Principal, path: RelPath) -> bool:
    below = path.beneath(who.under)
    return below is not None and (who.sees_hidden or not any(name.startswith(".") for name in below))


#: What a key without a share is compared with.
_NONE = ShareRow("A" * ID_LENGTH, "", RelPath(), False, 0.0, 0.0)
