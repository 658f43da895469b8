"""Who writes which name now: one upload has one writer.

Kept in memory, by place: a directory's identity and a name in it, so that whatever links lead there, it is
the same. Time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from fileexport.errors import BusyError, PeerGone

#: Nanoseconds without work after which a writer makes way for its own client, if that comes again.
QUIET = 500_000_000


def _nothing() -> None:
    """Nobody wants to know."""


class Place(NamedTuple):
    """A name in a directory: the device and inode of the directory, and the name."""

    device: int
    inode: int
    name: str


class Lease:
    """The right to write one place until `release`.

    It is revoked where its heir wants the place and nothing was written for `QUIET`: `check` raises then. It
    is held all the same until it is released.
    """

    __slots__ = ("_heir", "_is_revoked", "_leases", "_place", "_quiet_since", "_revoked", "holder", "since")

    def __init__(
        self,
        leases: Leases,
        place: Place,
        holder: str,
        since: int,
        heir: object = None,
        revoked: Callable[[], object] = _nothing,
    ) -> None:
        self._leases = leases
        self._place = place
        self._heir = heir
        self._revoked = revoked
        self._is_revoked = False
        self._quiet_since: int | None = since
        self.holder = holder
        self.since = since

    def check(self) -> None:
        """Raise `PeerGone` where it was revoked: the client goes on in another way."""
        if self._is_revoked:
            raise PeerGone("it goes on over another connection")

    def work(self) -> None:
        """It is not revoked until `rest`."""
        self._quiet_since = None

    def rest(self, now: int) -> None:
        """The work is done; `now` as for `Leases.take`."""
        self._quiet_since = now

    def _makes_way(self, heir: object, now: int) -> bool:
        quiet = self._quiet_since
        wanted = heir is not None and heir == self._heir
        return wanted and not self._is_revoked and quiet is not None and now - quiet >= QUIET

    def release(self) -> None:
        """Give it back; a second time does nothing."""
        self._leases._release(self._place, self)


class Leases:
    """All leases of a daemon. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: dict[Place, Lease] = {}

    def take(
        self,
        place: Place,
        holder: str,
        now: int,
        *,
        heir: object = None,
        revoked: Callable[[], object] = _nothing,
    ) -> Lease:
        """Take a place; `now` is the time in nanoseconds since 1970.

        Raises `BusyError`, which says who holds it and since when. Who has the same `heir`, unless that is
        None, has it revoked: its holder's `revoked` is called, once and in this thread.
        """
        lease = Lease(self, place, holder, now, heir, revoked)
        with self._lock:
            held = self._held.setdefault(place, lease)
            makes_way = held is not lease and held._makes_way(heir, now)
            held._is_revoked |= makes_way
        if makes_way:
            held._revoked()
        if held is not lease:
            raise BusyError(holder=held.holder, since=held.since)
        return lease

    def _release(self, place: Place, lease: Lease) -> None:
        with self._lock:
            if self._held.get(place) is lease:
                del self._held[place]

    def __len__(self) -> int:
        return len(self._held)
