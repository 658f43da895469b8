"""The daemon put together: jail, pools, exports, doors, listeners; started, reloaded, stopped as one service.

Decides nothing about business: it hands each room what it needs and keeps the order of starting and stopping.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from fileexport import __version__
from fileexport.addresses import Address, read_address
from fileexport.config import Anonymous, Durability, NameRule, Settings
from fileexport.disk.jail import Jail
from fileexport.disk.state import State
from fileexport.endpoints import Reactor
from fileexport.errors import ConfigurationError, PeerGone, row_for
from fileexport.exports import Exports
from fileexport.gate import Gate
from fileexport.http_bodies import Bodies
from fileexport.http_jobs import JobsDoor
from fileexport.http_resource import HttpDoor, Surroundings
from fileexport.job_rooms import JobRooms, cores
from fileexport.listening import (
    Listener,
    check_tokens,
    default_listener,
    open_listeners,
    parse_listener,
)
from fileexport.logs import Access, AccessLog, LogSink
from fileexport.metrics import Metrics
from fileexport.paths import RelPath
from fileexport.peers import owner_of
from fileexport.pools import Pool
from fileexport.startup import Prepared, is_public, reload_key
from fileexport.transfer_connection import Finished
from fileexport.transfer_operations import Limits
from fileexport.transfer_protocol import TransferFactory
from fileexport.transfer_streams import Cancelled
from fileexport.web.access import Doorkeeper, Policy
from fileexport.web.origin import Names, allowed_names
from fileexport.web.request import Request
from fileexport.web.site import Site

#: Where the two sides listen when nothing else is said.
DEFAULT_PORT = 9006
DEFAULT_TRANSFER_PORT = 6768
#: Seconds that answers in flight have after a stop was asked for.
GRACE = 10.0
#: Threads for disk work, as SECURITY's limits say, and calls that may wait for one.
DISK_THREADS = 16
DISK_WAITING = 1024
#: Steps of compression that may wait for a core: one for each stream is all there can be.
CPU_WAITING = 64
#: Listings that may wait for a core. They run in a pool of their own: a large one takes seconds and tens of
#: megabytes, and must hold up neither a small change nor the memory of the machine.
MAKERS_WAITING = 64
#: Seconds between two looks for what broken uploads have left.
RECOVERY_TIME = 3600.0
#: What the access log has for an operation that its client cancelled or left, as nginx has it.
_CLIENT_LEFT = 499
#: Seconds that threads have to end after the last answer; what still runs then is left behind.
THREADS_GRACE = 5.0


class ExportService(Service):
    """Exports one directory: listens when it starts, finishes what is in flight when it stops.

    `stop` is called when a client or the last permitted connection ends the daemon; `say` gets the lines of
    the start banner. Starting raises `ListenError` or `ConfigurationError`; nothing listens then.
    """

    name = "fileexport"
    _log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        prepared: Prepared,
        sink: LogSink,
        *,
        stop: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._ask_to_stop = stop
        self._prepared = prepared
        self._settings = settings = prepared.settings
        self._sink = sink
        self._say = say
        self._jail = _jail(settings)
        self._disk = Pool(reactor, "disk", DISK_THREADS, DISK_WAITING)
        self._cpu = Pool(reactor, "cpu", cores(), CPU_WAITING)
        self._makers = Pool(reactor, "makers", cores(), MAKERS_WAITING)
        # Of its own: a client that hashes for hours shall not keep the other door's small changes waiting.
        self._lanes = Pool(reactor, "lanes", DISK_THREADS, DISK_WAITING)
        self._gate = Gate(
            filters=settings.address_filter,
            trusted=settings.trusted_proxy,
            max_concurrent=settings.max_concurrent,
            max_total=settings.max_connections,
            on_full=self._stop_listening,
            on_exhausted=stop,
        )
        self._keeper = Doorkeeper(prepared.tokens, _policy(settings, self._jail))
        self._metrics = Metrics(
            reactor,
            connections=lambda: self.connections,
            accepted=lambda: self._gate.accepted,
            jobs=lambda: self._rooms.counts(),
            version=__version__,
        )
        around = _surroundings(settings, self._gate, stop, self._metrics.render)
        self._rooms = JobRooms(
            reactor,
            self._jail,
            partial(State, prepared.state),
            own=self._own_addresses,
            allow=settings.callback_allow,
            metrics=self._metrics,
            prefix=around.prefix,
        )
        exports, bodies = Exports(self._jail, settings.dirs), Bodies(reactor, self._cpu, self._makers)
        self._jobs_door = JobsDoor(
            reactor,
            exports,
            self._rooms,
            self._keeper,
            self._disk,
            bodies,
            around.prefix,
        )
        self._door = HttpDoor(reactor, exports, self._keeper, self._disk, bodies, self._jobs_door, around)
        self._transfers = self._transfer_factory(exports)
        self._tls = prepared.tls
        self._access = AccessLog(sink, settings.log_format.value, now=time.time)
        self._pools = (self._disk, self._cpu, self._makers, self._lanes)
        #: Whether a stop had to leave a thread behind, which keeps the process from ending by itself.
        self.abandoned = False
        #: Fires when what an earlier daemon left has been taken up.
        self.begun: Deferred[Any] = succeed(None)
        self._listening: Deferred[None] | None = None
        self._listeners: list[Listener] = []
        self._transfer_listeners: list[Listener] = []
        self._recovery: IDelayedCall | None = None
        self._closing: list[Deferred[None]] = []
        self._sites: list[Site] = []

    def _transfer_factory(self, exports: Exports) -> TransferFactory:
        settings = self._settings
        return TransferFactory(
            self._reactor,
            exports,
            lambda: self._keeper.tokens,
            self._lanes,
            self._rooms,
            now=time.time,
            record=self._record_operation,
            limits=Limits(settings.file_size_limit, settings.min_chunk_size),
            max_chunk=settings.max_chunk_size,
        )

    @property
    def _doors(self) -> list[Site | TransferFactory]:
        return [*self._sites, self._transfers]

    @property
    def connections(self) -> int:
        """How many there are now, on all listeners together."""
        return sum(door.open for door in self._doors)

    # -- starting

    def privilegedStartService(self) -> None:
        """Open the listeners: under twistd this comes before it gives its privileges up."""
        super().privilegedStartService()
        self._listening = Deferred.fromCoroutine(self._listen())
        outcome = self._listening.result if self._listening.called else None
        if isinstance(outcome, Failure):
            self._listening.addErrback(lambda _: None)
            outcome.raiseException()

    def startService(self) -> None:
        """Begin to serve."""
        if self._listening is None:
            # `twist` starts a service in one step.
            self.privilegedStartService()
        self._rooms.open()
        super().startService()
        for pool in self._pools:
            pool.start()
        self._metrics.start()
        self.begun = gatherResults([self._rooms.start(), self._recover()])
        # All of Twisted's own endpoints have opened by now; a plugin's may take its time.
        listening = self._listening or succeed(None)
        listening.addCallbacks(lambda _: self._reactor.callWhenRunning(self._announce), self.listening_failed)

    def listening_failed(self, failure: Failure) -> None:
        """A listener could not be opened, and it took a while to learn that."""
        self._log.failure("a listener failed", failure)
        self._ask_to_stop()

    async def _listen(self) -> None:
        settings = self._settings
        doors: list[tuple[Listener, IProtocolFactory]] = []
        if not settings.http_off:
            self._listeners = self._wanted(settings.http, settings.port, DEFAULT_PORT)
        if not settings.transfer_off:
            wanted = self._wanted(settings.transfer, settings.transfer_port, DEFAULT_TRANSFER_PORT)
            self._transfer_listeners = wanted
        self._sites = [self._site() for _ in self._listeners]
        doors += zip(self._listeners, self._sites, strict=True)
        doors += ((listener, self._transfers) for listener in self._transfer_listeners)
        try:
            await open_listeners(doors, self._gate, insecure_plaintext=settings.insecure_plaintext)
            check_tokens([listener for listener, _ in doors], self._prepared.tokens.warnings)
        except BaseException:
            self._stop_listening()
            raise
        for listener, site in zip(self._listeners, self._sites, strict=True):
            site.local = bool(listener.is_loopback)

    def _wanted(self, described: Sequence[str], port: int | None, default: int) -> list[Listener]:
        """The listeners of one door: those described, that of its port, or that of its default port."""
        reactor, tls = self._reactor, self._tls
        wanted = [parse_listener(reactor, text, private_key_context=tls) for text in described]
        if port is not None or not wanted:
            port = default if port is None else port
            wanted.append(default_listener(reactor, port, private_key_context=tls))
        return wanted

    def _site(self) -> Site:
        door = self._door
        return Site(self._reactor, door.serve, record=self._record, now=time.time, reads=door.reads)

    def _recover(self) -> Deferred[None]:
        """Remove what killed writers left, and what broken uploads left too long ago; again and again."""
        self._recovery = self._reactor.callLater(RECOVERY_TIME, self._recover)
        recovering = self._disk.run(self._jail.recover, self._settings.dirs or (RelPath(),))
        return recovering.addCallbacks(self._recovered, lambda f: self._log.failure("recovery failed", f))

    def _recovered(self, removed: int) -> None:
        if removed:
            self._log.info("removed {removed} files that a killed writer had left", removed=removed)

    # -- reloading

    def reload(self) -> None:
        """Read tokens, key and log file again (SIGHUP). What cannot be read stays as it was."""
        try:
            self._sink.reopen()
        except OSError as error:
            self._log.error("the log file stays open: {why}", why=error.strerror)
        for read in (self._reload_tokens, self._reload_key):
            try:
                read()
            except ConfigurationError as error:
                for problem in error.problems:
                    self._log.error("not reloaded: {problem}", problem=problem)

    def _reload_tokens(self) -> None:
        self._keeper.tokens = self._prepared.read_tokens()
        self._jobs_door.renew()
        self._log.info("the tokens were read again")

    def _reload_key(self) -> None:
        if self._tls is not None and self._settings.private_key is not None:
            reload_key(self._tls, self._settings.private_key)
            self._log.info("the private key was read again")

    # -- stopping

    def stopService(self) -> Deferred[None]:
        """Accept nothing more; fires when what was in flight has left, after `GRACE` seconds at most."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._log.info("stopping")
        self._metrics.stop()
        if self._recovery is not None:
            self._recovery.cancel()
        self._stop_listening()
        self._jobs_door.stop()
        late = self._reactor.callLater(GRACE, self._break_all)
        await gatherResults([door.drain() for door in self._doors])
        if late.active():
            late.cancel()
        # The jobs first: to them an interrupted jail would look like a failure.
        jobs = Deferred.fromCoroutine(self._rooms.stop())
        self._jail.interrupt()
        stops = [*self._closing, jobs, *(pool.stop() for pool in self._pools)]
        try:
            await gatherResults(stops, consumeErrors=True).addTimeout(THREADS_GRACE, self._reactor, _late)
        except TimeoutError:
            # The root stays open: a thread may be about to use its descriptor.
            self.abandoned = True
            self._log.warn("stopped while a thread was still at work")
        else:
            self._jail.close()
            self._log.info("stopped")

    def _own_addresses(self) -> Iterator[tuple[Address, int]]:
        """Where our listeners can be reached by TCP."""
        for listener in (*self._listeners, *self._transfer_listeners):
            yield from listener.tcp_addresses

    def _break_all(self) -> None:
        for door in self._doors:
            door.break_all()

    def _stop_listening(self) -> None:
        listeners = [*self._listeners, *self._transfer_listeners]
        self._listeners, self._transfer_listeners = [], []
        self._closing += [Deferred.fromCoroutine(listener.stop()) for listener in listeners]

    # -- words

    def _announce(self) -> None:
        settings = self._settings
        self._say(f"exporting {settings.root}" + "".join(f" {str(name)[1:]}" for name in settings.dirs))
        for listener in self._listeners:
            for url in listener.urls:
                self._say(f"HTTP on {url}")
        for listener in self._transfer_listeners:
            for place in listener.places:
                self._say(f"transfer on {place}")
        for line in _who_may_what(self._prepared, any(site.local for site in self._sites)):
            self._say(line)
        for warning in self._prepared.tokens.warnings:
            self._say(f"warning: {warning}")

    def _record(self, request: Request) -> None:
        seconds = self._reactor.seconds() - request.started
        self._metrics.request(request.method, request.status, request.sent, seconds)
        self._access.record(
            Access(
                peer=request.client or "unix",
                who=request.who.name if request.who else "-",
                method=request.method,
                target=request.head.target,
                version=b"HTTP/1.%d" % request.head.minor,
                status=request.status,
                length=request.sent,
                seconds=seconds,
                referrer=_first(request.fields(b"referer")),
                agent=_first(request.fields(b"user-agent")),
            )
        )

    def _record_operation(self, done: Finished) -> None:
        """One operation of the transfer protocol; a status is that of the same error over HTTP."""
        status = 200 if done.error is None else int(row_for(done.error).http)
        if isinstance(done.error, Cancelled | PeerGone):
            status = _CLIENT_LEFT
        self._access.record(
            Access(
                peer=done.peer,
                who=done.who,
                method=done.name.encode("ascii"),
                target=done.target,
                version=b"transfer/1",
                status=status,
                length=done.length,
                seconds=done.seconds,
                referrer=None,
                agent=None,
            )
        )


def _late(outcome: object, seconds: float) -> NoReturn:
    """Whatever came of those that were cancelled when the time was over."""
    raise TimeoutError


def _first(fields: Sequence[bytes]) -> bytes | None:
    return fields[0] if fields else None


def _jail(settings: Settings) -> Jail:
    durable = settings.durability is Durability.SAFE
    if settings.names is NameRule.POSIX:
        return Jail(settings.root, durable=durable, may_be_new=lambda name: True)
    return Jail(settings.root, durable=durable)


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
    )


def _who_may_what(prepared: Prepared, local: bool) -> list[str]:
    """The banner's sentences on who may do what."""
    settings = prepared.settings
    public = is_public(settings.root)
    readers = "every local process may read" if public else "only this user's processes may read"
    without = {
        Anonymous.AUTO: f"{readers}; this user's may change" if local else "nothing",
        Anonymous.NONE: "nothing",
        Anonymous.READ: "everybody may read",
        Anonymous.ALL: "EVERYBODY MAY CHANGE EVERYTHING",
    }[settings.anonymous]
    return [f"without a token: {without}", f"with a token: {prepared.where_tokens_are}"]
