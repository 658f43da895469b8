"""What leaves a connection of the transfer protocol, over a real socket: sendfile between frames."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from blake3 import blake3
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from fileexport.disk.jail import Jail
from fileexport.errors import ChangedWhileRead
from fileexport.exports import Exports
from fileexport.pools import Pool
from fileexport.proofs import ClientProof, auth_message
from fileexport.tokens import TokenTable
from fileexport.transfer_operations import Limits
from fileexport.transfer_protocol import TransferFactory
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import DEFAULT_OFFER, Session
from fileexport.wire.streams import Role
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
        self.pool = Pool(core, "test", 4, 100)
        self.pool.start()
        self.factory = TransferFactory(
            core,
            Exports(self.jail),
            lambda: TokenTable.of(TOKEN, "alice", "here"),
            self.pool,
            None,  # type: ignore[arg-type]
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
