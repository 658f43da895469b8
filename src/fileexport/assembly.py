"""The daemon put together: jail, pools, exports, doors, listeners; started, reloaded, stopped as one service.

Decides nothing about business: it hands each room what it needs and keeps the order of starting and stopping.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from fileexport import __version__
from fileexport.addresses import Address
from fileexport.config import Anonymous, Durability, NameRule, Settings
from fileexport.disk.jail import Jail
from fileexport.disk.state import State
from fileexport.door_rooms import Doors
from fileexport.endpoints import Reactor
from fileexport.errors import ConfigurationError
from fileexport.gate import Gate
from fileexport.job_rooms import JobRooms
from fileexport.listening import (
    Listener,
    adopted_listener,
    check_tokens,
    interface_listener,
    open_listeners,
    parse_listener,
)
from fileexport.logs import AccessLog, LogSink
from fileexport.metrics import Metrics
from fileexport.paths import RelPath
from fileexport.startup import Prepared, is_public, reload_key
from fileexport.web.routes import own_names

#: Where the two sides listen when nothing else is said.
DEFAULT_PORT = 9006
DEFAULT_TRANSFER_PORT = 6768
#: Seconds that answers in flight have after a stop was asked for.
GRACE = 10.0
#: Seconds between two looks for what broken uploads have left.
RECOVERY_TIME = 3600.0
#: Seconds that threads have to end after the last answer; what still runs then is left behind.
THREADS_GRACE = 5.0
#: What handlers have of it that kept their clients until these were broken off.
LATE_GRACE = 0.5


class ExportService(Service):
    """Exports one directory: listens when it starts, finishes what is in flight when it stops.

    `stop` is called when a client or the last permitted connection ends the daemon; `say` gets the lines of
    the start banner. Starting raises `ListenError` or `ConfigurationError`; nothing listens then.

    - `sockets`: an application's own listening sockets, instead of all endpoints and ports of the settings.
      They speak HTTP where the settings leave the transfer protocol out, that protocol where they leave HTTP
      out, and both where it is ``shared`` alone.
    - `interface`: whose ports they are that the settings name by numbers: an address, or a name of this
      machine; None: loopback, ``""``: every interface.
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
        sockets: Sequence[socket.socket] = (),
        interface: str | None = None,
    ) -> None:
        """Raises ValueError where the settings do not say what `sockets` speak."""
        if sockets and not _is_for_sockets(prepared.settings):
            raise ValueError("sockets need settings with http or transfer left out, or with transfer shared")
        self._sockets = tuple(sockets)
        self._interface = interface
        self._reactor = reactor
        self._ask_to_stop = stop
        self._prepared = prepared
        self._settings = settings = prepared.settings
        self._sink = sink
        self._say = say
        self._jail = _jail(settings)
        self._gate = self._make_gate()
        self._metrics = self._make_metrics()
        self._rooms = self._make_rooms()
        access = AccessLog(sink, settings.log_format.value, now=time.time)
        self._doors = Doors(
            reactor,
            settings,
            prepared.tokens,
            self._jail,
            self._gate,
            self._rooms,
            self._metrics,
            access,
            stop,
            prepared.handlers,
        )
        self._tls = prepared.tls
        #: Whether a stop had to leave a thread behind, which keeps the process from ending by itself.
        self.abandoned = False
        #: Fires when what an earlier daemon left has been taken up.
        self.begun: Deferred[Any] = succeed(None)
        self._listening: Deferred[None] | None = None
        self._listeners: list[Listener] = []
        self._transfer_listeners: list[Listener] = []
        self._recovery: IDelayedCall | None = None
        self._closing: list[Deferred[None]] = []

    def _make_gate(self) -> Gate:
        settings = self._settings
        return Gate(
            filters=settings.address_filter,
            trusted=settings.trusted_proxy,
            max_concurrent=settings.max_concurrent,
            max_total=settings.max_connections,
            on_full=self._stop_listening,
            on_exhausted=self._ask_to_stop,
        )

    def _make_metrics(self) -> Metrics:
        return Metrics(
            self._reactor,
            connections=lambda: self._doors.connections,
            accepted=lambda: self._gate.accepted,
            jobs=lambda: self._rooms.counts(),
            version=__version__,
        )

    def _make_rooms(self) -> JobRooms:
        settings = self._settings
        return JobRooms(
            self._reactor,
            self._jail,
            partial(State, self._prepared.state),
            own=self._own_addresses,
            allow=settings.callback_allow,
            metrics=self._metrics,
            prefix=settings.public_url.prefix if settings.public_url else "",
            names=own_names(self._prepared.handlers),
        )

    @property
    def connections(self) -> int:
        """How many there are now, on all listeners together."""
        return self._doors.connections

    @property
    def tcp_addresses(self) -> tuple[tuple[Address, int], ...]:
        """Where our listeners can be reached by TCP: ``0.0.0.0`` and ``::`` as they are, none twice."""
        return tuple(dict.fromkeys(self._own_addresses()))

    @property
    def places(self) -> tuple[str, ...]:
        """Where both doors can be reached, in the words of the banner: ``transfer on tcp 127.0.0.1:6768``."""
        return tuple(self._places())

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
        self._doors.contents.cache = self._rooms.contents
        super().startService()
        for pool in (*self._doors.pools, self._doors.handlers):
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
        self._make_listeners()
        doors: list[tuple[Listener, IProtocolFactory]] = []
        sites = [self._doors.site() for _ in self._listeners]
        shared = settings.transfer_shared
        fronts = [self._doors.shared(site) for site in sites] if shared else sites
        doors += zip(self._listeners, fronts, strict=True)
        doors += ((listener, self._doors.transfers) for listener in self._transfer_listeners)
        try:
            await open_listeners(doors, self._gate, insecure_plaintext=settings.insecure_plaintext)
            check_tokens([listener for listener, _ in doors], self._prepared.tokens.warnings)
        except BaseException:
            self._stop_listening()
            raise
        for listener, site in zip(self._listeners, sites, strict=True):
            site.local = bool(listener.is_loopback)

    def _make_listeners(self) -> None:
        """The listeners of the settings, or of the sockets; what both doors share counts to the first."""
        settings = self._settings
        if self._sockets:
            adopt = partial(adopted_listener, self._reactor, private_key_context=self._tls)
            adopted = [adopt(given) for given in self._sockets]
            self._listeners, self._transfer_listeners = ([], adopted) if settings.http_off else (adopted, [])
            return
        if not settings.http_off:
            self._listeners = self._wanted(settings.http, settings.port, DEFAULT_PORT)
        if not settings.transfer_off:
            default = None if settings.transfer_shared else DEFAULT_TRANSFER_PORT
            self._transfer_listeners = self._wanted(
                settings.transfer_endpoints, settings.transfer_port, default
            )

    def _wanted(self, described: Sequence[str], port: int | None, default: int | None) -> list[Listener]:
        """The listeners of one door: those described, that of its port, or that of its default port."""
        reactor, tls = self._reactor, self._tls
        wanted = [parse_listener(reactor, text, private_key_context=tls) for text in described]
        if port is None and not wanted:
            port = default
        if port is not None:
            wanted.append(interface_listener(reactor, port, self._interface, private_key_context=tls))
        return wanted

    def _recover(self) -> Deferred[list[None]]:
        """Remove what killed writers left, and what broken uploads left too long ago; again and again."""
        self._recovery = self._reactor.callLater(RECOVERY_TIME, self._recover)
        removing = self._doors.disk.run(self._jail.recover, self._settings.dirs or (RelPath(),))
        recovering = [removing.addCallback(self._recovered), self._doors.recover()]
        return gatherResults([one.addErrback(self._recovery_failed) for one in recovering])

    def _recovery_failed(self, failure: Failure) -> None:
        # At a stop nothing more is begun; the next start does it.
        if self.running:
            self._log.failure("recovery failed", failure)

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
        tokens = self._prepared.read_tokens()
        check_tokens([*self._listeners, *self._transfer_listeners], tokens.warnings)
        self._doors.renew(tokens).addErrback(self._recovery_failed)
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
        late = self._reactor.callLater(GRACE, self._doors.break_all)
        await self._doors.drain()
        is_late = not late.active()
        if not is_late:
            late.cancel()
        # The jobs first: to them an interrupted jail would look like a failure.
        jobs = Deferred.fromCoroutine(self._rooms.stop())
        self._jail.interrupt()
        pools, handlers = self._doors.pools, self._doors.handlers
        stops = [*self._closing, jobs, *(pool.stop() for pool in pools)]
        # Both begin now: the one does not wait for the other.
        ours = self._in_time(gatherResults(stops, consumeErrors=True), THREADS_GRACE)
        others = self._in_time(handlers.stop(), LATE_GRACE if is_late else THREADS_GRACE)
        is_over, is_quiet = await ours, await others
        if is_over:
            # Else it stays open: a thread may be about to use its descriptor.
            self._jail.close()
        if is_over and is_quiet:
            self._log.info("stopped")
            return
        self.abandoned = True
        for pool in (*pools, handlers):
            pool.abandon()
        self._log.warn("stopped while a thread was still at work")

    def _in_time(self, stop: Deferred[Any], seconds: float) -> Deferred[bool]:
        """Whether threads have ended in the time that they have."""
        ended = stop.addCallback(lambda _: True)
        return ended.addTimeout(seconds, self._reactor, lambda outcome, seconds: False)

    def _own_addresses(self) -> Iterator[tuple[Address, int]]:
        """Where our listeners can be reached by TCP."""
        for listener in (*self._listeners, *self._transfer_listeners):
            yield from listener.tcp_addresses

    def _stop_listening(self) -> None:
        listeners = [*self._listeners, *self._transfer_listeners]
        self._listeners, self._transfer_listeners = [], []
        self._closing += [Deferred.fromCoroutine(listener.stop()) for listener in listeners]

    # -- words

    def _places(self) -> Iterator[str]:
        """Where both doors can be reached."""
        for listener in self._listeners:
            yield from (f"HTTP on {url}" for url in listener.urls)
            if self._settings.transfer_shared:
                yield from (f"transfer on {place}" for place in listener.places)
        for listener in self._transfer_listeners:
            yield from (f"transfer on {place}" for place in listener.places)

    def _announce(self) -> None:
        settings = self._settings
        self._say(f"exporting {settings.root}" + "".join(f" {str(name)[1:]}" for name in settings.dirs))
        for place in self._places():
            self._say(place)
        for line in _who_may_what(self._prepared, any(site.local for site in self._doors.sites)):
            self._say(line)
        for warning in self._prepared.tokens.warnings:
            self._say(f"warning: {warning}")


def _is_for_sockets(settings: Settings) -> bool:
    """Whether the settings say what sockets of an application's own speak."""
    if settings.http_off:
        return not settings.transfer_shared
    return settings.transfer_off or (settings.transfer_shared and not settings.transfer_endpoints)


def _jail(settings: Settings) -> Jail:
    durable = settings.durability is Durability.SAFE
    if settings.names is NameRule.POSIX:
        return Jail(settings.root, durable=durable, may_be_new=lambda name: True)
    return Jail(settings.root, durable=durable)


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
