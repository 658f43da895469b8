"""The HTTP door put together from its rooms.

As `door_rooms` does for both doors: hands each room what it needs, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from fileexport.disk.uploads_store import UploadsStore
from fileexport.exports import Exports
from fileexport.http_bodies import Bodies
from fileexport.http_browse import BrowseDoor
from fileexport.http_entries import EntriesDoor
from fileexport.http_forms import FormsDoor
from fileexport.http_jobs import JobsDoor
from fileexport.http_jobs import Rooms as JobRooms
from fileexport.http_outcomes import Outcomes
from fileexport.http_receiving import Receiver
from fileexport.http_resource import HttpDoor, Mounted, Surroundings
from fileexport.http_resumable import ResumableDoor
from fileexport.http_sessions import SessionRooms, SessionsDoor
from fileexport.http_shares import ShareRooms, SharesDoor
from fileexport.http_uploads import UploadsDoor
from fileexport.pools import Worker
from fileexport.resumable import Resumable
from fileexport.web.access import Doorkeeper
from fileexport.web.routes import own_names


class Rooms(JobRooms, SessionRooms, ShareRooms, Protocol):
    """The rooms behind the door that have a state; they are there before the first request."""

    @property
    def uploads(self) -> UploadsStore: ...


class HttpRooms:
    """The door, and those of its rooms that have something to do at a stop or at new tokens."""

    def __init__(
        self,
        reactor: IReactorTime,
        exports: Exports,
        keeper: Doorkeeper,
        disk: Worker,
        bodies: Bodies,
        rooms: Rooms,
        around: Surroundings,
        mounts: Mapping[str, Mounted] = MappingProxyType({}),
    ) -> None:
        """`mounts` as for `HttpDoor`."""
        names, prefix = own_names(mounts), around.prefix
        self.jobs = JobsDoor(reactor, exports, rooms, keeper, disk, bodies, prefix, names)
        receiver = Receiver(disk)
        uploads = UploadsDoor(exports, disk, receiver, limit=around.max_file, prefix=prefix, names=names)
        outcomes = Outcomes(bodies, prefix, names)
        forms = FormsDoor(exports, disk, receiver, outcomes, limit=around.max_file)
        entries = EntriesDoor(exports, disk, bodies, outcomes)
        changes = {b"PUT": uploads.put, b"POST": forms.post, b"DELETE": uploads.delete}
        self.resumable = Resumable(reactor, exports, lambda: rooms.uploads, disk)
        resumable = ResumableDoor(self.resumable, receiver, limit=around.max_file, prefix=prefix)
        self._keeper, self._rooms = keeper, rooms
        secure = (around.names.public_origin or "").startswith("https:")
        sessions = SessionsDoor(reactor, keeper, rooms, prefix, secure=secure)
        browse = BrowseDoor(exports, bodies, prefix, names, changes, sessions.visitor)
        shares = SharesDoor(exports, keeper, rooms, bodies, browse, prefix)
        doors = (self.jobs, resumable, sessions, shares, entries, browse)
        self.door = HttpDoor(reactor, exports, keeper, disk, bodies, doors, around, mounts)

    def forget(self) -> Deferred[list[None]]:
        """End the sessions and the share links of tokens that are gone. Fails as the store of either."""
        ending = (
            self._rooms.sessions.renew(self._keeper.tokens),
            self._rooms.shares.renew(self._keeper.holders),
        )
        return gatherResults(map(Deferred.fromCoroutine, ending), consumeErrors=True)
