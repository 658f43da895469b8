"""Both doors put together: who may come in, the threads for their work, what the access log has of each.

As `assembly` does for the whole daemon: hands each room what it needs, and decides nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from fileexport.access_rows import of_operation, of_request
from fileexport.addresses import read_address
from fileexport.config import Settings
from fileexport.disk.contents import Contents
from fileexport.disk.jail import Jail
from fileexport.endpoints import Reactor
from fileexport.exports import Exports
from fileexport.gate import Gate
from fileexport.handling import Handler, Handling, Memory
from fileexport.http_bodies import Bodies
from fileexport.http_resource import Surroundings
from fileexport.http_rooms import HttpRooms
from fileexport.job_rooms import JobRooms, cores
from fileexport.logs import AccessLog
from fileexport.metrics import Metrics
from fileexport.peers import owner_of
from fileexport.pools import Pool
from fileexport.shared import SharedFactory
from fileexport.startup import is_public
from fileexport.tokens import TokenTable
from fileexport.transfer_desk import Limits
from fileexport.transfer_protocol import TransferFactory
from fileexport.web.access import Doorkeeper, Policy
from fileexport.web.origin import Names, allowed_names
from fileexport.web.request import Request
from fileexport.web.site import Site

#: Threads for disk work, as SECURITY's limits say, and calls that may wait for one.
DISK_THREADS = 16
DISK_WAITING = 1024
#: Steps of compression that may wait for a core: one for each stream is all there can be.
CPU_WAITING = 64
#: Listings that may wait for a core. They run in a pool of their own: a large one takes seconds and tens of
#: megabytes, and must hold up neither a small change nor the memory of the machine.
MAKERS_WAITING = 64
#: An application's own handlers at work, and requests that wait for one: one that is stuck holds up nothing
#: of ours.
HANDLERS = 64
HANDLERS_WAITING = 1024
#: Seconds that open uploads have at a stop to be flushed.
PUT_AWAY_TIME = 5.0


class Doors:
    """The doors of one daemon: one site for each HTTP listener, one factory for all of the other protocol."""

    def __init__(
        self,
        reactor: Reactor,
        settings: Settings,
        tokens: TokenTable,
        jail: Jail,
        gate: Gate,
        rooms: JobRooms,
        metrics: Metrics,
        access: AccessLog,
        stop: Callable[[], None],
        handlers: Mapping[str, Handler],
    ) -> None:
        """`stop` is called when a client ends the daemon; `handlers` by the path where each is mounted."""
        self._reactor = reactor
        self._metrics, self._access = metrics, access
        self.disk = Pool(reactor, "disk", DISK_THREADS, DISK_WAITING)
        cpu = Pool(reactor, "cpu", cores(), CPU_WAITING)
        makers = Pool(reactor, "makers", cores(), MAKERS_WAITING)
        # Of their own: who hashes for hours keeps waiting neither the other door nor changes by this one.
        lanes, reads = (Pool(reactor, name, DISK_THREADS, DISK_WAITING) for name in ("lanes", "reads"))
        self.pools = (self.disk, cpu, makers, lanes, reads)
        #: The application's own threads, which know nothing of the root.
        self.handlers = handling = Pool(reactor, "handlers", HANDLERS, HANDLERS_WAITING)
        self._keeper = keeper = Doorkeeper(tokens, _policy(settings, jail), lambda: rooms.sessions)
        #: What is known of files; its cache is set when there is one.
        self.contents = Contents()
        exports, bodies = Exports(jail, settings.dirs, self.contents), Bodies(reactor, cpu, makers)
        around = _surroundings(settings, gate, stop, metrics.render)
        memory = Memory()
        mounts = {
            path: Handling(reactor, handler, (), handling, bodies, memory=memory, mounted=True).serve
            for path, handler in handlers.items()
        }
        self._http = HttpRooms(reactor, exports, keeper, self.disk, bodies, rooms, around, mounts)
        self.sites: list[Site] = []
        self._fronts: list[SharedFactory] = []
        self.transfers = TransferFactory(
            reactor,
            exports,
            lambda: keeper.tokens,
            lanes,
            reads,
            rooms,
            now=time.time,
            record=lambda done: access.record(of_operation(done)),
            limits=Limits(settings.file_size_limit, settings.min_chunk_size),
            max_chunk=settings.max_chunk_size,
        )

    def site(self) -> Site:
        """The HTTP side of one more listener."""
        http = self._http.door
        site = Site(self._reactor, http.serve, record=self._record, now=time.time, reads=http.reads)
        self.sites.append(site)
        return site

    def shared(self, site: Site) -> SharedFactory:
        """Both protocols for the listener of this site."""
        front = SharedFactory(self._reactor, site, self.transfers)
        self._fronts.append(front)
        return front

    @property
    def connections(self) -> int:
        """How many there are now, on all listeners together."""
        return sum(door.open for door in self._all)

    def renew(self, tokens: TokenTable) -> Deferred[Any]:
        """These tokens count from now on; fires when what hangs on others is forgotten, or could not be."""
        self._keeper.tokens = tokens
        self._http.jobs.renew()
        self.transfers.renew()
        return self._http.forget()

    def recover(self) -> Deferred[Any]:
        """Look what became of uploads when the daemon ended, and forget those that nobody goes on with.

        So, too, with sessions and share links of tokens that are gone.
        """
        return gatherResults([self._http.resumable.recover(), self._http.forget()], consumeErrors=True)

    def drain(self) -> Deferred[None]:
        """Begin nothing more; fires when what was in flight has left, and uploads can be resumed later."""
        self._http.jobs.stop()
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        await gatherResults([door.drain() for door in self._all])
        # A disk that hangs holds up no stop.
        putting_away = Deferred.fromCoroutine(self._http.resumable.stop())
        await putting_away.addTimeout(PUT_AWAY_TIME, self._reactor, lambda outcome, seconds: None)

    def break_all(self) -> None:
        """Break what is in flight; `drain` fires then."""
        for door in self._all:
            door.break_all()

    @property
    def _all(self) -> list[Site | TransferFactory | SharedFactory]:
        # First those who do not know yet to which of the others they go.
        return [*self._fronts, *self.sites, self.transfers]

    # -- the access log

    def _record(self, request: Request) -> None:
        seconds = self._reactor.seconds() - request.started
        self._metrics.request(request.method, request.status, request.sent, seconds)
        self._access.record(of_request(request, seconds))


def _policy(settings: Settings, jail: Jail) -> Policy:
    reachable = is_public(settings.root)

    def root_is_public() -> bool:
        # The root's own mode is asked each time: whoever closes it means at once.
        return reachable and jail.root_stat.st_mode & 0o005 == 0o005

    # Asked when it matters: twistd may have changed its user since.
    return Policy(settings.anonymous, os.geteuid, root_is_public, settings.hidden)


def _surroundings(
    settings: Settings,
    gate: Gate,
    stop: Callable[[], None],
    metrics: Callable[[], tuple[bytes, bytes]],
) -> Surroundings:
    public = settings.public_url

    def enter(client: str) -> Callable[[], None] | None:
        slot = gate.enter(read_address(client))
        return slot.release if slot else None

    return Surroundings(
        owner=owner_of,
        is_proxy=lambda host: bool(settings.trusted_proxy) and gate.is_trusted(read_address(host)),
        enter=enter,
        stop=stop,
        metrics=metrics,
        names=Names(
            allowed_names(socket.gethostname(), settings.allow_host, public.host if public else None),
            public.origin if public else None,
        ),
        prefix=public.prefix if public else "",
        max_file=settings.file_size_limit,
    )
