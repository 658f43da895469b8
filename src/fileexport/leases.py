"""Who writes which name now: one upload has one writer.

Kept in memory, by place: a directory's identity and a name in it, so that whatever links lead there, it is
the same. Time is an argument.
"""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

from fileexport.errors import BusyError


class Place(NamedTuple):
    """A name in a directory: the device and inode of the directory, and the name."""

    device: int
    inode: int
    name: str


class Lease:
    """The right to write one place until `release`."""

    __slots__ = ("_leases", "_place", "holder", "since")

    def __init__(self, leases: Leases, place: Place, holder: str, since: int) -> None:
        self._leases = leases
        self._place = place
        self.holder = holder
        self.since = since

    def release(self) -> None:
        """Give it back; a second time does nothing."""
        self._leases._release(self._place, self)


class Leases:
    """All leases of a daemon. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: dict[Place, Lease] = {}

    def take(self, place: Place, holder: str, now: int) -> Lease:
        """Take a place; `now` is the time in nanoseconds since 1970.

        Raises `BusyError`, which says who holds it and since when.
        """
        lease = Lease(self, place, holder, now)
        with self._lock:
            held = self._held.setdefault(place, lease)
        if held is not lease:
            raise BusyError(holder=held.holder, since=held.since)
        return lease

    def _release(self, place: Place, lease: Lease) -> None:
        with self._lock:
            if self._held.get(place) is lease:
                del self._held[place]

    def __len__(self) -> int:
        return len(self._held)
