"""An `AsyncClient` in memory: an endpoint, and the server's side of each connection, for a test to speak."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from fileexport.client.deferred.client import AsyncClient
from fileexport.proofs import ServerProof, auth_message
from fileexport.token_file import parse_token_file
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import DEFAULT_OFFER, Received, Session, State
from fileexport.wire.streams import Role
from tests.transfer_peer import Core, Wire

TOKEN = "fex1_in-memory-" + "x1Y2z3W4" * 5
HERE = IPv4Address("TCP", "127.0.0.1", 6768)
Told = TypeVar("Told", bound=m.Message)


class Far:
    """The server's side of one connection: lets the client in by itself, and notes what it hears then."""

    def __init__(self, link: Any, clock: Core, peer: IAddress, streams: int) -> None:
        self.link = link
        self.clock = clock
        self.transport = Wire(peerAddress=peer)
        self.session = Session(Role.SERVER, msgspec.structs.replace(DEFAULT_OFFER, streams=streams))
        self.heard: list[Received | Data] = []
        self.is_lost = False
        #: Whether the client is answered at all.
        self.answers = True
        self._auth = m.Auth(bytes(8), bytes(32))
        self.link.makeConnection(self.transport)

    def turn(self) -> None:
        """Carry bytes both ways until nobody has anything to say."""
        while self.answers and not self.is_lost:
            self.clock.advance(0)
            said = self.transport.value()
            self.transport.clear()
            self.session.receive(said)
            while self.session.state is not State.BROKEN and (event := self.session.next_event()) is not None:
                self._take(event)
            answer = b"" if self.transport.producerState == "paused" else self.session.take()
            if answer:
                self.link.dataReceived(answer)
            if self.transport.disconnecting:
                self.lose()
            if not said and not answer:
                break
        self.clock.advance(0)

    def _take(self, event: Received | Data) -> None:
        message = None if isinstance(event, Data) else event.message
        if isinstance(message, m.Auth):
            self._auth = message
            self.session.send(m.Challenge(bytes(32)))
        elif isinstance(message, m.Proof):
            proof = ServerProof.begin(parse_token_file(TOKEN, "test"), self._auth.id, 0.0, bytes(32))
            said = auth_message(self.session.transcript, self._auth.id, self._auth.nonce, bytes(32), b"")
            assert proof.check(message.proof, said) is not None
            self.session.send(m.Welcome(proof.answer(said), ["read"]))
        elif not isinstance(message, m.Hello | m.MoreCredit):
            self.heard.append(event)

    def opened(self) -> list[int]:
        """The streams that were begun, in their order."""
        return [
            one.stream for one in self.heard if isinstance(one, Received) and isinstance(one.message, m.Open)
        ]

    def messages(self, kind: type[Told]) -> list[Told]:
        """What was said of this kind."""
        return [message for _, message in self.said() if isinstance(message, kind)]

    def said(self) -> list[tuple[int, m.Message]]:
        """Stream and message of all that was said."""
        return [(one.stream, one.message) for one in self.heard if isinstance(one, Received)]

    def say(self, message: m.Message, stream: int = 0) -> None:
        """Say something."""
        if isinstance(message, m.Reset):
            self.session.reset(stream, message)
        else:
            self.session.send(message, stream)
        self.turn()

    def content(self, stream: int, data: bytes) -> None:
        """Say one DATA frame."""
        self.session.data_header(stream, len(data))
        self.link.dataReceived(self.session.take() + data)
        self.turn()

    def lose(self) -> None:
        """The connection is lost."""
        if not self.is_lost:
            self.is_lost = True
            self.link.connectionLost(Failure(ConnectionDone()))


@implementer(IStreamClientEndpoint)
class Memory:
    """Connects in memory. `fars` are the connections so far."""

    def __init__(self, clock: Core) -> None:
        self.clock = clock
        self.fars: list[Far] = []
        self.peer: IAddress = HERE
        self.streams = 64
        self.error: Exception | None = None
        self.is_slow = False
        self.cancelled = 0

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Connect, at once or never."""
        if self.error is not None:
            return fail(self.error)
        if self.is_slow:
            return Deferred(lambda _: self._cancel())
        link: Any = factory.buildProtocol(HERE)
        self.fars.append(Far(link, self.clock, self.peer, self.streams))
        return succeed(link)

    def _cancel(self) -> None:
        self.cancelled += 1


class LinkCase(SynchronousTestCase):
    """Has a clock, an endpoint and a client of it."""

    def setUp(self) -> None:
        self.clock = Core()
        self.endpoint = Memory(self.clock)
        self.client = self.make()
        self.addCleanup(self.lose)

    def make(self, token: str | None = TOKEN, **more: Any) -> AsyncClient:
        """A client."""
        return AsyncClient("localhost", 6768, token, endpoint=self.endpoint, reactor=self.clock, **more)

    def lose(self) -> None:
        """Lose all connections."""
        for far in self.endpoint.fars:
            far.lose()

    def waits(self, *asked: Deferred[Any]) -> None:
        """These have no result yet, and none that matters."""
        for one in asked:
            self.assertNoResult(one)
            self.addCleanup(one.addErrback, lambda failure: None)

    @property
    def far(self) -> Far:
        """The last connection."""
        return self.endpoint.fars[-1]

    def turn(self) -> None:
        """Carry all bytes."""
        for far in self.endpoint.fars:
            far.turn()
