"""The HTTP door put together from its rooms.

As `door_rooms` does for both doors: hands each room what it needs, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from twisted.internet.interfaces import IReactorTime

from fileexport.exports import Exports
from fileexport.http_bodies import Bodies
from fileexport.http_browse import BrowseDoor
from fileexport.http_jobs import JobsDoor, Rooms
from fileexport.http_resource import HttpDoor, Mounted, Surroundings
from fileexport.pools import Worker
from fileexport.web.access import Doorkeeper
from fileexport.web.routes import own_names


class HttpRooms:
    """The door, and those of its rooms that have something to do at a stop or at new tokens."""

    def __init__(
        self,
        reactor: IReactorTime,
        exports: Exports,
        keeper: Doorkeeper,
        disk: Worker,
        bodies: Bodies,
        jobs: Rooms,
        around: Surroundings,
        mounts: Mapping[str, Mounted] = MappingProxyType({}),
    ) -> None:
        """`mounts` as for `HttpDoor`."""
        names, prefix = own_names(mounts), around.prefix
        self.jobs = JobsDoor(reactor, exports, jobs, keeper, disk, bodies, prefix, names)
        browse = BrowseDoor(exports, bodies, prefix, names)
        self.door = HttpDoor(reactor, exports, keeper, disk, bodies, (self.jobs, browse), around, mounts)
