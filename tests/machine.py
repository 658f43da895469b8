"""The daemon as one service on a machine in memory: sockets, clock and turns belong to the test."""

from __future__ import annotations

import errno
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import IListeningPort, IProtocol, IProtocolFactory
from twisted.internet.task import deferLater
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock, StringTransport
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from fileexport.assembly import GRACE, ExportService
from fileexport.logs import LogSink
from fileexport.startup import prepare
from fileexport.tokens import generate_token
from tests.http_client import Connection, Response, encode
from tests.test_endpoints import shake_hands
from tests.test_pools import Turns

#: The token of `ServiceCase.tokens`, which `ServiceCase.get` sends.
TOKEN = generate_token()


@implementer(IListeningPort)
class Bound:
    """A listening socket in memory; it is closed when the reactor turns, as a real one is."""

    def __init__(self, host: IPv4Address | IPv6Address, machine: Machine) -> None:
        self._host = host
        self._machine = machine
        machine.listening.add(self)

    def getHost(self) -> IPv4Address | IPv6Address:
        return self._host

    def startListening(self) -> None:
        """It listens already."""

    def stopListening(self) -> Deferred[None]:
        return deferLater(self._machine, 0, self._machine.listening.remove, self)


class Machine(Turns, MemoryReactorClock):
    """Sockets and a clock in memory; `turn` carries out what a thread hands over."""

    def __init__(self, *busy: int) -> None:
        Turns.__init__(self)
        MemoryReactorClock.__init__(self)
        self._busy = busy
        #: The TCP sockets that listen now.
        self.listening: set[Bound] = set()

    def begin(self) -> None:
        """Run: what waits for that is called."""
        self.running = True
        hooks, self.whenRunningHooks = self.whenRunningHooks, []
        for function, args, keywords in hooks:
            function(*args, **keywords)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        if port in self._busy:
            raise CannotListenError(interface, port, OSError(errno.EADDRINUSE, "in use"))
        self.tcpServers.append((port, factory, backlog, interface))
        kind = IPv6Address if ":" in interface else IPv4Address
        return Bound(kind("TCP", interface or "0.0.0.0", port), self)


class Socket(StringTransport):
    """A transport that claims to be TCP, for TLS above it."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It never waits."""


def let_threads_go(case: SynchronousTestCase) -> None:
    """Keep a test that fails before its pools have stopped from keeping the process."""
    case.patch(ThreadPool, "threadFactory", partial(Thread, daemon=True))


class ServiceCase(SynchronousTestCase):
    """Has a root with a file, and makes services over it."""

    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()
        self.root = self.base / "root"
        self.root.mkdir(parents=True)
        (self.root / "hello.txt").write_text("hello\n")
        self.machine = Machine()
        let_threads_go(self)
        self.said: list[str] = []
        self.stops = 0
        self.homes = 0
        self.written = io.StringIO()
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)

    def service(self, *, sink: LogSink | None = None, **given: Sequence[str] | bool) -> ExportService:
        """A service of the root with these options."""
        flags = {name.replace("_", "-"): value for name, value in given.items()}
        # A home for each: two daemons do not share a state.
        self.homes += 1
        prepared = prepare({"root": [str(self.root)], **flags}, {"HOME": str(self.base / f"{self.homes}")})
        sink = sink or LogSink.to_stream(self.written)
        return ExportService(self.machine, prepared, sink, stop=self.stop, say=self.said.append)

    def stop(self) -> None:
        self.stops += 1

    def started(self, **given: Any) -> ExportService:
        """A service that serves until the test is over."""
        service = self.service(**given)
        service.privilegedStartService()
        service.startService()
        self.machine.begin()
        self.machine.finish(service.begun)
        self.addCleanup(self.end, service, self.machine)
        return service

    def end(self, service: ExportService, machine: Machine) -> None:
        if service.running:
            done = service.stopService()
            # Time passes for those who do not leave by themselves, and not for threads.
            machine.advance(0)
            if service.connections:
                machine.advance(GRACE)
                machine.advance(0)
            machine.finish(done)
            self.successResultOf(done)

    def factory(self, which: int = 0) -> IProtocolFactory:
        """What accepts the connections of a listening socket."""
        found: IProtocolFactory = self.machine.tcpServers[which][1]
        return found

    def connect(self, which: int = 0) -> Connection:
        """A connection to one of the listening sockets."""
        door: Any = self.factory(which)
        return Connection(door, self.machine)

    def refused(self, host: str = "127.0.0.1") -> bool:
        """Whether a connection from there is closed at once."""
        return self.factory().buildProtocol(IPv4Address("TCP", host, 40_000)) is None

    def connect_tls(self, context: SSL.Context) -> tuple[SSL.Connection, IProtocol, Socket]:
        """A connection to the first socket on which TLS is agreed; it is lost when the test is over."""
        server, transport = self.factory().buildProtocol(IPv4Address("TCP", "127.0.0.1", 40_000)), Socket()
        assert server is not None
        self.addCleanup(server.connectionLost, Failure(ConnectionDone()))
        return shake_hands(server, context, transport), server, transport

    def get(
        self, target: str, which: int = 0, token: str | None = TOKEN, more: Mapping[str, str] | None = None
    ) -> Response:
        """What one of the listening sockets answers."""
        headers = dict(more or {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        connection = self.connect(which)
        connection.send(encode("GET", target, headers, b""))
        self.machine.advance(1)  # a wrong token is answered so late
        response = connection.receive()
        connection.lose()
        return response

    def tokens(self, text: str = TOKEN) -> list[str]:
        """Write the token file; the value of its option."""
        path = self.base / "tokens"
        path.touch(0o600)
        path.write_text(text)
        return [str(path)]

    def logged(self, level: LogLevel | None = None) -> list[str]:
        """The sentences of the log, of one level where it is given."""
        return [formatEvent(event) for event in self.events if level in (None, event.get("log_level"))]
