"""The daemon as a part of an application: a service that leaves process, signals, limits and log alone."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TextIO, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from fileexport.addresses import Address
from fileexport.assembly import ExportService
from fileexport.errors import StateError
from fileexport.logs import LogSink
from fileexport.startup import Prepared


class EmbeddedService(Service):
    """Exports one directory under an application's own parent.

    It may be started again when its `stopService` has fired, and not before. Starting raises `ListenError`,
    `ConfigurationError` or `StateError`; nothing listens then. Where it runs already it raises RuntimeError,
    and nothing changes. A client that may end the daemon, and the last permitted connection, stop this
    service and not the reactor.

    Everything is logged by `twisted.logger`, the banner and a line for each request (``fileexport.access``)
    too. Its methods belong to the reactor's thread.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        prepared: Prepared,
        *,
        sockets: Sequence[socket.socket] = (),
        interface: str | None = None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """`sockets` and `interface` are `ExportService`'s; `ended`: it stops because a client said so."""
        self._reactor = reactor
        self._ended = ended
        self._make = partial(
            _Daemon,
            reactor,
            prepared,
            application_log(),
            stop=self._stop_soon,
            say=self._say,
            sockets=sockets,
            interface=interface,
        )
        self._daemon: _Daemon | None = None
        self._stopping: list[_Daemon] = []
        self._waiting: list[Deferred[None]] = []

    @property
    def tcp_addresses(self) -> tuple[tuple[Address, int], ...]:
        """Where it can be reached by TCP: ``0.0.0.0`` and ``::`` as they are; empty when it does not run."""
        return self._daemon.tcp_addresses if self._daemon else ()

    @property
    def places(self) -> tuple[str, ...]:
        """Where it can be reached, in words: ``transfer on tcp 127.0.0.1:6768``; empty as `tcp_addresses`."""
        return self._daemon.places if self._daemon else ()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return self._daemon.connections if self._daemon else 0

    def privilegedStartService(self) -> None:
        """Open the listeners."""
        self._check_idle(self._daemon is None)
        if self._stopping:
            raise StateError(
                "the service is stopping: start it when the Deferred of its stopService has fired"
            )
        super().privilegedStartService()
        self._daemon = daemon = self._make()
        try:
            daemon.privilegedStartService()
        except BaseException:
            self.stopService()
            raise

    def startService(self) -> None:
        """Begin to serve."""
        self._check_idle(not self.running)
        if self._daemon is None:
            # A parent that runs already starts a service in two steps, `twist` in one.
            self.privilegedStartService()
        assert self._daemon is not None
        try:
            self._daemon.startService()
        except BaseException:
            self.stopService()
            raise
        super().startService()

    def reload(self) -> None:
        """Read token file and private key again, where it runs. What cannot be read stays as it was."""
        if self._daemon is not None:
            self._daemon.reload()

    def stopService(self) -> Deferred[None]:
        """Accept nothing more; fires when what was in flight has left, after ten seconds at most.

        Where it has stopped already, or is stopping, it fires when that is over.
        """
        super().stopService()
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            self._stopping.append(daemon)
            stopped = daemon.stopService()
            stopped.addErrback(lambda failure: self._log.failure("the stop failed", failure))
            stopped.addCallback(lambda _: self._has_stopped(daemon))
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        self._tell()
        return done

    def interrupt(self) -> Deferred[None]:
        """Stop as `stopService` does, without the time for what is in flight."""
        done = self.stopService()
        for daemon in tuple(self._stopping):
            daemon.interrupt()
        return done

    def _check_idle(self, is_idle: bool) -> None:
        if not is_idle:
            raise RuntimeError("the service is running")

    def _say(self, line: str) -> None:
        self._log.info("{line}", line=line)

    def _has_stopped(self, daemon: _Daemon) -> None:
        self._stopping.remove(daemon)
        self._tell()

    def _tell(self) -> None:
        """Say so to those who wait, when nothing is stopping."""
        if not self._stopping:
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done.callback(None)

    def _stop_soon(self) -> None:
        # Not now: the answer that says so is still to be sent.
        self._reactor.callLater(0, self._stop_itself)

    def _stop_itself(self) -> None:
        if self._daemon is not None:
            self.stopService().addCallback(lambda _: self._ended())


class _Daemon(ExportService):
    def interrupt(self) -> None:
        """Break what a stop waits for."""
        self._doors.break_all()


def application_log() -> LogSink:
    """Lines that become events of Twisted's log."""
    return LogSink.to_stream(cast("TextIO", _TwistedLog()))


class _TwistedLog(io.TextIOBase):
    """A stream that hands lines on to Twisted's log."""

    def __init__(self) -> None:
        super().__init__()
        # Of the instance: one of the class would take its namespace from the class.
        self._log = Logger(namespace="fileexport.access")

    def write(self, text: str) -> int:
        self._log.info("{line}", line=text.rstrip("\n"))
        return len(text)
