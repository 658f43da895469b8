"""What leaves a connection of the transfer protocol, over a real socket: sendfile between frames."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import Any

from blake3 import blake3
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.tcp import Server
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fileexport import transfer_output
from fileexport.disk.jail import Jail
from fileexport.disk.sender import STALL
from fileexport.errors import ChangedWhileRead
from fileexport.exports import Exports
from fileexport.pools import Pool
from fileexport.proofs import ClientProof, auth_message
from fileexport.tokens import TokenTable
from fileexport.transfer_desk import Limits
from fileexport.transfer_output import Output, hung_up
from fileexport.transfer_protocol import TransferFactory
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import DEFAULT_OFFER, Session
from fileexport.wire.streams import Role
from tests.rooms import Rooms
from tests.session_pair import GREETING, Pair
from tests.test_transfer_protocol import DEFAULT_OFFER_FIELDS
from tests.transfer_peer import NONCE, TOKEN, code, path

MIB = 1 << 20


class Asker(Protocol):
    """A client that asks when it was let in; `ended` fires when each of its streams has ended."""

    def __init__(self, *operations: m.Open, offer: m.Offer = DEFAULT_OFFER, gives: bool = True) -> None:
        self.session = Session(Role.CLIENT, offer, ())
        self.operations = operations
        self.gives = gives
        self.held: list[tuple[int, int]] = []
        self.content: dict[int, bytearray] = {}
        self.last: dict[int, m.Message] = {}
        self.pongs = 0
        self.ended: Deferred[None] = Deferred()
        #: Fires when content comes.
        self.began: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.say()

    def say(self) -> None:
        """Send what there is."""
        transport: Any = self.transport
        transport.write(self.session.take())

    def dataReceived(self, data: bytes) -> None:
        self.session.receive(data)
        while (event := self.session.next_event()) is not None:
            if isinstance(event, Data):
                self.content.setdefault(event.stream, bytearray()).extend(event.piece)
                self.held.append((event.stream, len(event.piece)))
            else:
                self.heard(event.stream, event.message)
        if self.gives:
            self.give()
        self.say()
        if self.content and not self.began.called:
            self.began.callback(None)

    def give(self) -> None:
        """Give credit for what has come."""
        held, self.held = self.held, []
        for stream, size in held:
            self.session.consumed(stream, size)

    def heard(self, stream: int, message: m.Message) -> None:
        """Answer."""
        proof = ClientProof(TOKEN)
        if isinstance(message, m.Hello):
            self.session.send(m.Auth(proof.id, NONCE))
        elif isinstance(message, m.Challenge):
            said = auth_message(self.session.transcript, proof.id, NONCE, message.nonce, b"")
            self.session.send(m.Proof(proof.proof(said)))
        elif isinstance(message, m.Welcome):
            for operation in self.operations:
                self.session.open(operation)
        elif isinstance(message, m.End | m.Reset):
            self.last[stream] = message
            if len(self.last) == len(self.operations):
                self.ended.callback(None)
        self.pongs += isinstance(message, m.Pong)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class SendfileTests(TestCase):
    """Downloads over plain TCP."""

    timeout = 30

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir(parents=True)
        self.jail = Jail(str(self.root))
        self.addCleanup(self.jail.close)
        core: Any = reactor
        self.pool = Pool(core, "test", 16, 1024)
        self.pool.start()
        rooms = Rooms(Clock(), self.jail, self.pool)
        self.addCleanup(rooms.close)
        self.factory = TransferFactory(
            core,
            Exports(self.jail),
            lambda: TokenTable.of(TOKEN, "alice", "here"),
            self.pool,
            self.pool,
            rooms,
            now=core.seconds,
            record=lambda done: None,
            limits=Limits(),
        )

    async def serve(self) -> int:
        """Listen until the test is over; the port's number."""
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.factory)

        async def end() -> None:
            await port.stopListening()
            self.factory.break_all()
            await self.factory.drain()
            await self.pool.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(end()))
        number: int = port.getHost().port
        return number

    async def ask(self, port: int, asker: Asker) -> Asker:
        """Connect a client, which is lost when the test is over."""
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), asker)

        def end() -> Deferred[None]:
            transport: Any = asker.transport
            transport.abortConnection()
            return asker.lost

        self.addCleanup(end)
        return asker

    def open_files(self) -> int:
        """How many descriptors of exported files are open."""
        names = []
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                names.append(os.readlink(f"/proc/self/fd/{number}"))
        return sum(name.startswith(f"{self.root}/") for name in names)

    async def test_content(self) -> None:
        """Two files at once and a listing between them arrive as they are, and a ping is answered."""
        files = {name: os.urandom(5 * MIB + 3) for name in ("a", "b")}
        for name, content in files.items():
            (self.root / name).write_bytes(content)
        operations = m.Read(path("a")), m.Read(path("b")), m.List(path(""))
        asker = await self.ask(await self.serve(), Asker(*operations))
        await asker.began
        asker.session.send(m.Ping(b"1"))
        asker.say()
        await asker.ended
        for stream, content in enumerate(files.values(), 1):
            self.assertEqual(asker.content[stream], content)
            self.assertEqual(asker.last[stream], m.End(len(content), blake3(content).digest()))
        self.assertEqual(asker.pongs, 1)

    async def test_shorter(self) -> None:
        """A file that becomes shorter ends with an error, and the connection can be used on."""
        (self.root / "a").write_bytes(bytes(8 * MIB))
        offer = m.Offer(**{**DEFAULT_OFFER_FIELDS, "stream_credit": 2 * MIB})
        asker = await self.ask(await self.serve(), Asker(m.Read(path("a")), offer=offer, gives=False))
        await asker.began
        os.truncate(self.root / "a", 100)
        asker.gives = True
        asker.give()
        asker.say()
        await asker.ended
        last = asker.last[1]
        assert isinstance(last, m.Reset)
        self.assertEqual(last.code, code(ChangedWhileRead))
        self.assertEqual(self.open_files(), 0)

    async def test_others_hash(self) -> None:
        """While others have as much hashed as they can, a listing and a look are answered."""
        for number in range(16):
            with (self.root / f"{number}").open("wb") as file:
                file.truncate(6 << 30)
        port = await self.serve()
        busy = [
            await self.ask(port, Asker(*(m.Hash(path(f"{four + number}")) for number in range(4))))
            for four in range(0, 16, 4)
        ]
        while sum(len(one.working) for one in self.factory._connections) < 16:
            await deferLater(reactor, 0.01)
        quick = await self.ask(port, Asker(m.List(path("")), m.Stat(path("0"))))
        await quick.ended
        self.assertEqual([type(last) for last in quick.last.values()], [m.End, m.End])
        self.assertEqual([one.last for one in busy], [{}, {}, {}, {}])

    async def test_lost(self) -> None:
        """A connection that breaks in the midst of a frame leaves no file open."""
        (self.root / "a").write_bytes(bytes(64 * MIB))
        port = await self.serve()
        asker = await self.ask(port, Asker(m.Read(path("a"))))
        await asker.began
        transport: Any = asker.transport
        transport.abortConnection()
        await asker.lost
        await self.factory.drain()
        self.assertEqual(self.open_files(), 0)
        self.assertEqual(self.factory.open, 0)


class Plain(Server):
    """A transport of plain TCP that is its own socket; `written` is what did not go past it."""

    def __init__(self) -> None:
        this: Any = self
        self.socket = this
        self.written = b""
        self.sent = b""
        self.error: OSError | None = None

    def send(self, data: bytes, flags: int) -> int:
        if self.error is not None:
            raise self.error
        self.sent += data
        return len(data)

    def fileno(self) -> int:
        return -1

    def write(self, data: bytes) -> None:
        self.written += data

    def startWriting(self) -> None:
        """The test says when it can be written to."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """It is asked by the test."""


class FrameTests(SynchronousTestCase):
    """Frames onto a socket that does strange things."""

    def setUp(self) -> None:
        self.pair = Pair()
        self.pair.advance(GREETING)
        self.stream = self.pair.client.open(m.Read(path("a")))
        self.pair.run()
        self.pair.server.send(m.Content(MIB, 0, b""), self.stream)
        self.transport, self.clock = Plain(), Clock()
        self.choked: list[bool] = []
        self.output = Output(self.pair.server, self.transport, self.clock, self.choked.append)
        name = self.mktemp()
        Path(name).write_bytes(b"x" * MIB)
        self.descriptor = os.open(name, os.O_RDONLY)
        self.addCleanup(os.close, self.descriptor)
        self.output.flush()
        self.output.resumeProducing()
        self.counted: list[int] = []

    def send(self) -> Deferred[None]:
        """Send the whole file."""
        return self.output.send_span(self.stream, self.descriptor, 0, MIB, self.counted.append)

    def test_no_buffers(self) -> None:
        """Where the system has no memory for a frame's header, the frame is written by hand, all of it."""
        self.transport.error = OSError(errno.ENOBUFS, "no buffers")
        sent = self.send()
        self.transport.error = None
        self.output.resumeProducing()
        self.successResultOf(sent)
        self.pair.client.receive(self.transport.written)
        got = bytearray()
        while (event := self.pair.client.next_event()) is not None:
            if isinstance(event, Data):
                got += event.piece
        self.assertEqual((bytes(got), sum(self.counted)), (b"x" * MIB, MIB))

    def test_answers_behind_a_frame(self) -> None:
        """Answers count while they wait for the end of a frame; when it has gone they go, and all is well."""

        def full(*args: object) -> int:
            raise BlockingIOError

        self.patch(transfer_output, "MAX_UNSENT", 4096)
        self.patch(os, "sendfile", full)
        self.send()
        before = self.transport.written
        for _ in range(1000):
            if self.choked:
                break
            self.pair.server.send(m.Ping(bytes(64)))
            self.output.flush()
        self.assertEqual((self.choked, self.transport.written), ([True], before))
        self.assertLess(self.pair.server.unsent, 5000)
        self.patch(os, "sendfile", lambda *args: args[3])
        for _ in range(4):
            self.output.resumeProducing()
        self.assertGreater(len(self.transport.written), len(before) + 4096)
        self.assertEqual(self.choked, [True, False])

    def test_now_and_then(self) -> None:
        """A client that takes a byte now and then is given up: others wait behind the frame."""
        self.patch(os, "sendfile", lambda *args: 1)
        self.send().addErrback(lambda _: None)
        listing = self.output.room(self.stream)
        for _ in range(10):
            self.clock.advance(STALL / 9)
            self.output.resumeProducing()
        self.assertTrue(self.output.expire(self.clock.seconds()))
        self.assertNoResult(listing)

    def test_idle(self) -> None:
        """A client for which there is nothing is not late."""
        self.clock.advance(10 * STALL)
        self.assertFalse(self.output.expire(self.clock.seconds()))
        self.patch(os, "sendfile", lambda *args: 1)
        self.send()
        self.assertFalse(self.output.expire(self.clock.seconds()))


class HungUpTests(SynchronousTestCase):
    """Whether the other end has closed."""

    def test_unread(self) -> None:
        """It is known while what came before has not been read; what is no socket is never gone."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        theirs.sendall(b"unread")
        self.assertFalse(hung_up(ours))
        theirs.close()
        self.assertTrue(hung_up(ours))
        self.assertFalse(hung_up(object()))
