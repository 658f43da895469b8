"""Links that show one file or directory, read-only and for a time, to whoever has them.

The key in a link is the base64url of 28 bytes: the share's id (12), and the beginning (16) of HMAC-SHA256 of
id, path and expiry under a secret of this state. So a copy of the table of shares makes no links, and the id
alone, which logs show, opens nothing.

A share is its owner's doing: it counts for as long as they could read what it shows, and make it again.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fileexport.disk.access_store import AccessStore, ShareRow
from fileexport.errors import BadRequestError
from fileexport.paths import RelPath
from fileexport.pools import Worker
from fileexport.tokens import Principal, Right

#: Seconds that a share may last, at least, at most, and where nothing is said.
MIN_TIME, MAX_TIME, DEFAULT_TIME = 60, 365 * 86_400, 7 * 86_400
#: Shares of one owner, and of all.
MAX_OWN_SHARES, MAX_SHARES = 1_000, 10_000
#: Characters of a key, and those of them that are the id.
KEY_LENGTH, ID_LENGTH = 38, 16

_ID_BYTES, _MAC_BYTES = 12, 16
#: What an owner must hold for a share of theirs to count.
_LENDING = Right.READ | Right.WRITE

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
        await self._disk.run(self._store.remove_share, share.id)
        self._rows.pop(share.id, None)


def visitor_of(share: ShareRow) -> Principal:
    """As whom somebody comes who follows a link: a reader of the directory, or of that of the file."""
    under = share.path if share.is_directory else share.path.parent
    # Whoever shares a hidden file has named it; what is hidden in a directory they have not.
    sees_hidden = not share.is_directory and share.path.name.startswith(".")
    return Principal(f"share:{share.id}", Right.READ, under, sees_hidden)


def _may_lend(owner: Principal, path: RelPath) -> bool:
    return owner.may(_LENDING) and _may_see(owner, path)


def _is_seen(share: ShareRow, who: Principal) -> bool:
    if share.owner == who.owner:
        return True
    return who.may(Right.ADMIN | Right.READ) and _may_see(who, share.path)


def _may_see(who: Principal, path: RelPath) -> bool:
    below = path.beneath(who.under)
    return below is not None and (who.sees_hidden or not any(name.startswith(".") for name in below))


#: What a key without a share is compared with.
_NONE = ShareRow("A" * ID_LENGTH, "", RelPath(), False, 0.0, 0.0)
