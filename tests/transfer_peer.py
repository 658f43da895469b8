"""A client of the transfer protocol for tests of the server: our own session on a transport in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from blake3 import blake3
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.jail import Jail
from fileexport.errors import ERRORS
from fileexport.exports import Exports
from fileexport.paths import RelPath
from fileexport.pools import Worker
from fileexport.proofs import ClientProof, auth_message
from fileexport.tokens import Principal, Right, TokenTable, generate_token
from fileexport.transfer_connection import Finished
from fileexport.transfer_desk import Limits
from fileexport.transfer_protocol import TransferFactory
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import DEFAULT_OFFER, Event, Session, State
from fileexport.wire.streams import Role
from tests.helpers import Immediate
from tests.rooms import Rooms

Found = TypeVar("Found", bound=m.Message | bytes)
TOKEN = generate_token()
NONCE = bytes(range(32))


def path(text: str) -> RelPath:
    """A path as a test writes it."""
    return RelPath.parse(text)


def code(kind: type[BaseException]) -> int:
    """The code of an exception on the wire."""
    return next(row.wire for row in ERRORS if row.kind is kind)


def expect(kind: type[Found], what: object) -> Found:
    """What a server said, which must be of this kind."""
    assert isinstance(what, kind), f"{what} instead of {kind.__name__}"
    return what


class Core(MemoryReactorClock):
    """A reactor in memory; what a thread hands over is called at its next turn."""

    def callFromThread(self, callable: Callable[..., object], *args: object, **kwargs: object) -> None:
        self.callLater(0, callable, *args, **kwargs)


class Wire(StringTransport):
    """A transport that tells its reader's state; `aborted` when the connection was broken."""

    aborted = False
    bufferSize = 64 << 10

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True


class Peer:
    """A client on one connection. `got` is what the server said, in order and without credit."""

    def __init__(
        self,
        factory: Any,
        clock: MemoryReactorClock,
        *,
        host: str = "127.0.0.1",
        offer: m.Offer = DEFAULT_OFFER,
        features: Iterable[str] = (),
    ) -> None:
        self._clock = clock
        self.session = Session(Role.CLIENT, offer, tuple(features))
        self.transport = Wire(peerAddress=IPv4Address("TCP", host, 40_000))
        self.server: Any = factory.buildProtocol(None)
        self.got: list[tuple[int, m.Message | bytes]] = []
        self.lost = False
        self._partial = b""
        #: Whether what the server writes is read, and content is given back.
        self.reads = True
        self.server.makeConnection(self.transport)
        self.turn()

    # -- bytes

    def turn(self) -> None:
        """Carry bytes both ways until nobody has anything to say."""
        while True:
            self._clock.advance(0)
            said = self.session.take()
            if said and not self.lost:
                self.server.dataReceived(said)
            answered = self.transport.value() if self.reads else b""
            if not (said or answered):
                return
            self.transport.clear()
            self.session.receive(answered)
            while self.session.state is not State.BROKEN and (event := self.session.next_event()) is not None:
                self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, Data):
            self._partial += event.piece
            self.session.consumed(event.stream, len(event.piece))
            if not event.left:
                self.got.append((event.stream, self._partial))
                self._partial = b""
        elif not isinstance(event.message, m.MoreCredit):
            self.got.append((event.stream, event.message))
            if event.size:
                self.session.consumed(event.stream, event.size)

    def lose(self) -> None:
        """Lose the connection."""
        if not self.lost:
            self.lost = True
            self.server.connectionLost(Failure(ConnectionDone()))
            self._clock.advance(0)

    @property
    def is_closed(self) -> bool:
        """Whether the server has closed."""
        return self.transport.disconnecting

    # -- conversations

    def login(self, token: str = TOKEN) -> None:
        """Prove a token; the answer is the last of `got`."""
        proof = ClientProof(token)
        self.session.send(m.Auth(proof.id, NONCE))
        self.turn()
        challenge = expect(m.Challenge, self.got[-1][1])
        message = auth_message(self.session.transcript, proof.id, NONCE, challenge.nonce, b"")
        self.session.send(m.Proof(proof.proof(message)))
        self.turn()
        welcome = self.got[-1][1]
        if isinstance(welcome, m.Welcome):
            assert proof.is_answered_by(welcome.proof, message)

    def ask(self, operation: m.Open) -> list[m.Message | bytes]:
        """What the server says to one operation until its end."""
        return self.said(self.begin(operation))

    def begin(self, operation: m.Open) -> int:
        """Begin an operation; returns its stream."""
        stream = self.session.open(operation)
        self.turn()
        return stream

    def said(self, stream: int) -> list[m.Message | bytes]:
        """What the server has said on a stream."""
        return [what for number, what in self.got if number == stream]

    def data(self, stream: int, content: bytes, *, compressed: bool = False) -> None:
        """Send one frame of content."""
        self.session.data_header(stream, len(content), compressed=compressed)
        self.raw(self.session.take() + content)

    def raw(self, data: bytes) -> None:
        """Send these bytes."""
        self.server.dataReceived(data)
        self.turn()

    def end(self, stream: int, size: int | None = None, digest: bytes | None = None) -> None:
        """Say that all was sent."""
        self.session.send(m.End(size, digest), stream)
        self.turn()

    def write(self, where: str, content: bytes, **more: Any) -> list[m.Message | bytes]:
        """Write a file; what the server says."""
        stream = self.begin(m.Write(path(where), len(content), 10**18, **more))
        if content and self.session.is_open(stream):
            self.data(stream, content)
        if self.session.is_open(stream):
            self.end(stream, len(content), blake3(content).digest())
        return self.said(stream)


class TransferCase(SynchronousTestCase):
    """Has a root, and a server of it whose threads run at once."""

    limits = Limits()

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir(parents=True)
        self.clock = Core()
        self.clock.advance(1_800_000_000)
        self.jail = Jail(str(self.root))
        self.addCleanup(self.jail.close)
        self.exports = Exports(self.jail)
        self.tokens = TokenTable.of(TOKEN, "alice", "here")
        self.done: list[Finished] = []
        self.rooms = Rooms(self.clock, self.jail, Immediate())
        self.addCleanup(self.rooms.close)
        self.worker: Worker = Immediate()
        self.factory = self.make()

    def make(self, worker: Worker | None = None, reads: Worker | None = None, **more: Any) -> TransferFactory:
        """A server, whose reads are done by the same worker as its changes unless there is another."""
        return TransferFactory(
            self.clock,
            self.exports,
            lambda: self.tokens,
            worker or self.worker,
            reads or worker or self.worker,
            self.rooms,
            now=self.clock.seconds,
            record=self.done.append,
            limits=self.limits,
            **more,
        )

    def connect(self, **more: Any) -> Peer:
        """A client that has said hello; lost when the test is over."""
        peer = Peer(self.factory, self.clock, **more)
        self.addCleanup(peer.lose)
        return peer

    def client(self, **more: Any) -> Peer:
        """A client that was let in."""
        peer = self.connect(**more)
        peer.login()
        return peer

    def let(self, rights: Right, under: str = "/") -> None:
        """Change what the token may do, for those who come from now on."""
        entry = self.tokens.entry(ClientProof(TOKEN).id)
        assert entry is not None
        who = Principal("alice", rights, path(under))
        self.tokens = TokenTable({ClientProof(TOKEN).id: entry._replace(principal=who)})

    def assertReset(self, said: list[Any], kind: type[BaseException]) -> m.Reset:
        """The last word on a stream was RESET with the code of this exception."""
        last = expect(m.Reset, said[-1] if said else None)
        self.assertEqual(last.code, code(kind), last.message)
        return last
