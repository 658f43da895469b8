"""The daemon inside an application: sockets that it brings, ports of every interface, what it is told."""

from __future__ import annotations

import io
import socket
from collections.abc import Sequence
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from fileexport.assembly import ExportService
from fileexport.errors import ConfigurationError, ListenError
from fileexport.logs import LogSink
from fileexport.startup import prepare
from fileexport.wire.frames import PREFACE
from tests.http_client import encode
from tests.machine import let_threads_go

HEALTH = encode("GET", "/-/health", {"Connection": "close"}, b"")
OK = b"HTTP/1.1 200 "


class Asker(Protocol):
    """Sends `said`, and fires `answer` with what comes first: eight bytes, or fewer at the end."""

    def __init__(self, said: bytes) -> None:
        self._said = said
        self._heard = b""
        self.answer: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._said)

    def dataReceived(self, data: bytes) -> None:
        self._heard += data
        if len(self._heard) >= len(PREFACE):
            self._settle()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._settle()

    def _settle(self) -> None:
        if not self.answer.called:
            self.answer.callback(self._heard)


class SocketTests(TestCase):
    """Services on real sockets."""

    timeout = 60

    def setUp(self) -> None:
        let_threads_go(self)
        self.root = Path(self.mktemp())
        self.root.mkdir()
        self.said: list[str] = []

    def service(
        self,
        sockets: Sequence[socket.socket] = (),
        interface: str | None = None,
        **given: Sequence[str] | bool,
    ) -> ExportService:
        """A service of the root with these options."""
        flags = {name.replace("_", "-"): value for name, value in given.items()}
        return ExportService(
            reactor,
            prepare({"root": [str(self.root)], "state": [f"{self.root}.state"], **flags}, {}),
            LogSink.to_stream(io.StringIO()),
            stop=lambda: None,
            say=self.said.append,
            sockets=sockets,
            interface=interface,
        )

    async def started(self, service: ExportService) -> ExportService:
        """It serves until the test is over."""
        await deferLater(reactor, 0)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def listening(self) -> socket.socket:
        """A socket of the application's own."""
        made = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(made.close)
        return made

    async def ask(self, made: socket.socket, said: bytes) -> bytes:
        """The beginning of what is answered there."""
        endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{made.getsockname()[1]}")
        asker = await connectProtocol(endpoint, Asker(said))
        answer: bytes = await asker.answer
        assert asker.transport is not None
        asker.transport.loseConnection()
        return answer

    async def test_http(self) -> None:
        """Without the transfer protocol sockets speak HTTP, each of them; ports count no more."""
        made = [self.listening(), self.listening()]
        service = await self.started(self.service(made, transfer=["none"], port=["1"]))
        for each in made:
            self.assertTrue((await self.ask(each, HEALTH)).startswith(OK))
        ports = [each.getsockname()[1] for each in made]
        self.assertEqual([port for _, port in service.tcp_addresses], ports)
        self.assertEqual(service.places, tuple(f"HTTP on http://127.0.0.1:{port}/" for port in ports))

    async def test_transfer(self) -> None:
        """Without HTTP they speak the transfer protocol, at once."""
        made = self.listening()
        await self.started(self.service([made], http=["none"]))
        self.assertEqual((await self.ask(made, b""))[: len(PREFACE)], PREFACE)

    async def test_shared(self) -> None:
        """Where both doors share their listeners they speak both; the banner says so."""
        made = self.listening()
        service = await self.started(self.service([made], transfer=["shared"]))
        self.assertTrue((await self.ask(made, HEALTH)).startswith(OK))
        self.assertEqual((await self.ask(made, PREFACE))[: len(PREFACE)], PREFACE)
        port = made.getsockname()[1]
        places = (f"HTTP on http://127.0.0.1:{port}/", f"transfer on tcp 127.0.0.1:{port}")
        self.assertEqual(service.places, places)
        self.assertEqual(tuple(self.said[1:3]), places)
        self.assertEqual(len(service.tcp_addresses), 1)

    async def test_again(self) -> None:
        """A socket serves one daemon after another, and is the application's own in between."""
        made = self.listening()
        for _ in range(2):
            service = self.service([made], transfer=["none"])
            await deferLater(reactor, 0)
            service.startService()
            self.assertTrue((await self.ask(made, HEALTH)).startswith(OK))
            await service.stopService()
            self.assertEqual(service.tcp_addresses, ())
            socket.create_connection(made.getsockname()).close()
            made.accept()[0].close()

    def test_unclear(self) -> None:
        """Settings that do not say what a socket speaks are a mistake of the programmer's."""
        for given in ({}, {"transfer": ["tcp:1"]}, {"transfer": ["shared", "tcp:1"]}):
            self.assertRaises(ValueError, self.service, [self.listening()], **given)

    def test_bad_socket(self) -> None:
        """A socket that does not listen is an error of the start, and nothing listens then."""
        good, bad = self.listening(), socket.socket()
        self.addCleanup(bad.close)
        service = self.service([good, bad], transfer=["none"])
        problem = self.assertRaises(ListenError, service.privilegedStartService)
        self.assertIn("it is not a listening socket", str(problem))
        self.assertEqual(service.tcp_addresses, ())

    async def test_everywhere(self) -> None:
        """Ports are those of every interface where that is wanted, and TLS too then."""
        unsafe = self.service(interface="", http=["none"], transfer_port=["0"])
        problem = self.assertRaises(ConfigurationError, unsafe.privilegedStartService)
        self.assertIn("without TLS", str(problem))
        service = await self.started(
            self.service(interface="", transfer=["shared"], port=["0"], insecure_plaintext=True)
        )
        hosts = [str(host) for host, _ in service.tcp_addresses]
        self.assertEqual(hosts, ["0.0.0.0", "::"][: len(hosts)])
        self.assertEqual(len({port for _, port in service.tcp_addresses}), 1)
