"""Who writes which name now: one upload has one writer.

Kept in memory, by place: a directory's identity and a name in it, so that whatever links lead there, it is
the same. Time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    """The right to write one place, or some, until `release`; leaving a `with` block releases it too.

    It is revoked where its heir wants the place and nothing was written for `QUIET`: `check` raises then. It
    is held all the same until it is released.
    """

    __slots__ = ("_heir", "_is_revoked", "_leases", "_places", "_quiet_since", "_revoked", "holder", "since")

    def __init__(
        self,
        leases: Leases,
        holder: str,
        since: int,
        heir: object = None,
        revoked: Callable[[], object] = _nothing,
    ) -> None:
        self._leases = leases
        self._places: set[Place] = set()
        self._heir = heir
        self._revoked = revoked
        self._is_revoked = False
        self._quiet_since: int | None = since
        self.holder = holder
        self.since = since

    def add(self, place: Place, now: int) -> None:
        """Take a place with it; `now` as for `Leases.take`. Raises `BusyError`, also where it has it already.

        `since` is when it took the first of those that it has.
        """
        self._leases._add(place, self, now)
        if not self._places:
            self.since = now
        self._places.add(place)

    def add_beside(self, name: str, now: int) -> None:
        """`add` another name in the directory of the place that it has."""
        [place] = self._places
        self.add(place._replace(name=name), now)

    def drop(self, place: Place) -> None:
        """Give back this one of its places."""
        self._places.remove(place)
        self._leases._release((place,))

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
        """Give back all that it has; a second time does nothing."""
        places, self._places = self._places, set()
        self._leases._release(places)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


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
        lease = Lease(self, holder, now, heir, revoked)
        lease.add(place, now)
        return lease

    def holds(self, place: Place) -> bool:
        """Whether somebody has a place now."""
        return place in self._held

    def check(self, place: Place) -> None:
        """Raise `BusyError` where somebody has a place now, as `take` does."""
        if (held := self._held.get(place)) is not None:
            raise BusyError(holder=held.holder, since=held.since)

    def many(self, holder: str, now: int) -> Lease:
        """A lease of no place yet, for who will `add` many: it costs less than one for each."""
        return Lease(self, holder, now)

    def _add(self, place: Place, lease: Lease, now: int) -> None:
        with self._lock:
            held = self._held.setdefault(place, lease)
            if held is lease and place not in lease._places:
                return
            makes_way = held._makes_way(lease._heir, now)
            held._is_revoked |= makes_way
        if makes_way:
            held._revoked()
        raise BusyError(holder=held.holder, since=held.since)

    def _release(self, places: Iterable[Place]) -> None:
        with self._lock:
            for place in places:
                del self._held[place]

    def __len__(self) -> int:
        return len(self._held)
