"""One connection of the transfer protocol: events of the session become operations, and answers leave.

Parses nothing (`fileexport.wire`), and decides nothing about files (`transfer_operations`): here is who may
speak, until when, and what becomes of operations when a connection ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any, NamedTuple, Protocol

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, ISSLTransport, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from fileexport.disk.sender import Stalled
from fileexport.errors import (
    AuthenticationError,
    BusyError,
    CorruptedResponse,
    OverloadedError,
    PeerGone,
    UnexpectedError,
    row_for,
)
from fileexport.tokens import Principal, TokenTable
from fileexport.transfer_access import ACCESS_TIME, WRONG_TIME, Authentication, Lobby, Shares, binding_of
from fileexport.transfer_desk import Desk
from fileexport.transfer_operations import words_for
from fileexport.transfer_output import Output, hung_up
from fileexport.transfer_streams import Cancelled, Stream
from fileexport.transfer_sync import carry_out
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import PAUSE, Received, Session, State
from fileexport.wire.streams import Role

#: Seconds without a word from the client after which it is asked whether it is there, and given up.
PING_TIME = 60.0
SILENCE = 120.0
#: Seconds that a peer has to take our last words.
LINGER_TIME = 5.0
#: Bytes of one read from the socket when the client has been let in, and messages that are dealt with until
#: others have their turn.
READ_SIZE = 1 << 20
TURN = 256
#: Bytes of one write: a whole frame of small files, of which Twisted's own limit makes two turns.
SEND_SIZE = 512 << 10


class Finished(NamedTuple):
    """One operation that has ended, for the access log. `error` is None where it went well.

    `length`: payload bytes of its content, whichever way they went.
    """

    peer: str
    who: str
    operation: m.Open
    error: BaseException | None
    length: int
    seconds: float


class House(Protocol):
    """What a connection asks of its factory."""

    reactor: Any
    tokens: Callable[[], TokenTable]
    now: Callable[[], float]
    #: Called once for each operation, when it has ended.
    finished: Callable[[Finished], object]
    offer: m.Offer
    #: Random bytes of the daemon's, for ids of tokens that there are not.
    decoy: bytes
    lobby: Lobby
    shares: Shares

    def desk(self, who: Principal, peer: str, on_full: Callable[[bool], object]) -> Desk:
        """What the operations of a connection need that was let in."""

    def joined(self, connection: TransferConnection) -> None:
        """A connection stands."""

    def left(self, connection: TransferConnection) -> None:
        """A connection is gone, or its last work is done."""


class TransferConnection(protocol.Protocol):
    """One connection, which the functions of `take` tell what came.

    - `peer`: the other end's address.
    - `since`: when the connection began, where it was not ours from the beginning; set before it is.
    """

    peer: str
    since: float | None = None
    _log = Logger()

    def __init__(self, house: House) -> None:
        self._house = house
        self._clock = house.reactor
        self._session = Session(Role.SERVER, house.offer)
        self._access = Authentication(house.tokens, house.decoy, house.now)
        self._desk: Desk | None = None
        #: When the present step must be done; None: it may last.
        self._deadline: float | None = None
        #: When the client last said something, and whether it was asked since then.
        self._heard = 0.0
        self._asked = False
        #: Why nothing is read now, also of what has come; and whether the transport knows.
        self._held: set[str] = set()
        self._is_paused = False
        #: TLS brings its records of 16 KiB one by one: those of one turn are taken together.
        self._gathers = False
        self._gathered: list[bytes] = []
        self._refusal: IDelayedCall | None = None
        self._closing = self._lost = False
        #: Streams for which content came in this turn.
        self._fed: set[Stream] = set()
        self.working: dict[int, Stream] = {}

    # -- what the transport calls

    def connectionMade(self) -> None:
        """The connection stands, before any handshake: the client has its time to be let in."""
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        self._gathers = ISSLTransport.providedBy(transport)
        self.peer = _host_of(transport.getPeer())
        self._heard = self._clock.seconds()
        self._deadline = ACCESS_TIME + (self._heard if self.since is None else self.since)
        self._output = Output(
            self._session, transport, self._clock, lambda choked: self._hold("output", choked)
        )
        self._house.joined(self)
        self._house.lobby.enter(self.peer, self)
        self._output.flush()

    def dataReceived(self, data: bytes) -> None:
        """Bytes arrived."""
        if not self._gathers:
            self._feed(data)
            return
        self._gathered.append(data)
        if len(self._gathered) == 1:
            self._clock.callLater(0, self._feed_gathered)

    def _feed_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._feed(b"".join(gathered))

    def _feed(self, data: bytes) -> None:
        if not self._closing:
            self._heard, self._asked = self._clock.seconds(), False
            self._session.receive(data)
            self._go_on()

    def _go_on(self, *, is_last: bool = False) -> None:
        """Do what the client has said: all of it where nothing more will come, else until we are held."""
        self._held.discard("turn")
        try:
            told = 0
            while not self._closing and (is_last or not self._held):
                event = self._session.next_event()
                if event is None:
                    break
                if isinstance(event, Data):
                    self.content(event.stream, event, len(event.piece))
                    continue
                take(event.message, self, event)
                told = TURN if event is PAUSE else told + 1
                if told == TURN and not is_last:
                    self._hold("turn", True)
                    self._clock.callLater(0, self._go_on)
            self._hand_over()
            self._output.flush()
        except CorruptedResponse as error:
            self._log.info("{peer} broke the protocol: {why}", peer=self.peer, why=error)
            self.close()
        except Exception:
            self._fail(Failure())
        if self._is_paused and not (self._held or self._closing or self._lost):
            self._is_paused = False
            transport: Any = self.transport
            transport.resumeProducing()

    def _fail(self, failure: Failure) -> None:
        """Something that nobody expected: what this connection knows is not to be relied on any more."""
        self._log.failure("a connection failed", failure)
        self.abort()

    def _hand_over(self) -> None:
        """Give what came in this turn to the operations."""
        fed, self._fed = self._fed, set()
        for stream in fed:
            stream.hand_over()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone: what can be continued is kept, everything else is thrown away."""
        self._lost = True
        self._house.lobby.leave(self.peer, self)
        try:
            for stream in [stream for stream in self.working.values() if not stream.outlives]:
                stream.give_up(PeerGone())
            # What has come of an upload need not come again.
            self._feed_gathered()
            self._go_on(is_last=True)
            self._closing = True
            if self._refusal is not None and self._refusal.active():
                self._refusal.cancel()
            self._output.stopProducing()
            self._give_all_up()
        finally:
            self._closing = True
            self._house.left(self)

    # -- authentication

    def challenge(self, auth: m.Auth) -> None:
        """The client has begun to prove a token."""
        challenge = self._access.begin(auth, self._session.transcript, binding_of(self.transport))
        if challenge is None:
            self._refuse_later("the proof is not bound to this server's certificate")
        else:
            self._session.send(challenge)

    def check(self, proof: m.Proof) -> None:
        """The client has given its proof."""
        who = self._access.check(proof)
        if who is None:
            self._refuse_later("the token is wrong")
            return
        self._session.send(self._access.welcome(who))
        self._deadline = None
        self._house.lobby.leave(self.peer, self)
        self._desk = self._house.desk(who, self.peer, lambda full: self._hold("lane", full))
        # The socket's own transport reads; that of TLS stands on it.
        reader: Any = getattr(self.transport, "transport", self.transport)
        reader.bufferSize = READ_SIZE
        reader.SEND_LIMIT = SEND_SIZE

    def _refuse_later(self, words: str) -> None:
        self._log.info("{peer} was not let in: {words}", peer=self.peer, words=words)
        self._refusal = self._clock.callLater(WRONG_TIME, self._refuse, words)

    def _refuse(self, words: str) -> None:
        if self._closing:
            return
        tries = self._access.tries_left
        self._session.send(m.Refused(tries, words))
        if not tries:
            self._session.leave(row_for(AuthenticationError()).wire, words)
            self.close()
        self._output.flush()

    def check_token(self) -> None:
        """Begin nothing more where the token counts no longer; what was begun goes on."""
        if self._session.state is State.OPEN and not self._access.is_good:
            self._log.info("{peer}: its token counts no longer", peer=self.peer)
            self.retire("the token does not count any more")

    # -- operations

    def open(self, number: int, operation: m.Open) -> None:
        """An operation begins."""
        assert self._desk is not None
        if len(self.working) >= self._house.offer.streams:
            # Those that were cancelled count until their work has ended.
            self._reset(number, OverloadedError("too many operations at once on this connection"))
            return
        if not self._house.shares.take(self._desk.who.owner):
            self._reset(number, OverloadedError("too many operations at once by this token"))
            return
        now = self._clock.seconds()
        stream = Stream(number, operation, self._session, self._output, now)
        self.working[number] = stream
        Deferred.fromCoroutine(self._carry_out(stream)).addErrback(self._fail)

    async def _carry_out(self, stream: Stream) -> None:
        error: Exception | None = None
        try:
            assert self._desk is not None
            await carry_out(stream.operation, stream, self._desk)
        except Exception as raised:
            error = raised if stream.gone is None else stream.gone
            if not (isinstance(error, Cancelled) or self._closing):
                self._reset(stream.number, error)
        finally:
            self._over(stream, error)

    def _over(self, stream: Stream, error: Exception | None) -> None:
        del self.working[stream.number]
        assert self._desk is not None
        self._house.shares.give_back(self._desk.who.owner)
        try:
            self._house.finished(self._finished(stream, error))
        finally:
            if self._lost:
                self._house.left(self)
            elif self._session.state is State.LEAVING and not self.working:
                self.close()

    def _reset(self, number: int, error: Exception) -> None:
        row, holder, since = row_for(error), None, None
        if row.kind is UnexpectedError:
            self._log.failure("an operation failed", Failure(error))
        if isinstance(error, BusyError):
            holder, since = error.holder, error.since
        try:
            self._session.reset(number, m.Reset(row.wire, words_for(error), holder, since))
        except ValueError:
            # So long a message the client does not take.
            self._session.reset(number, m.Reset(row.wire))
        self._output.flush_soon()

    def _finished(self, stream: Stream, error: Exception | None) -> Finished:
        seconds = self._clock.seconds() - stream.begun
        who = self._desk.who.name if self._desk else "-"
        return Finished(self.peer, who, stream.operation, error, stream.moved, seconds)

    def content(self, number: int, found: Data | Received, size: int) -> None:
        """Content of a stream came, which takes `size` bytes of credit."""
        stream = self.working.get(number)
        if stream is not None:
            stream.content(found, size, self._heard)
            self._fed.add(stream)

    def give_up(self, number: int) -> None:
        """The client has cancelled an operation."""
        stream = self.working.get(number)
        if stream is not None:
            stream.give_up(Cancelled())

    def ended(self, number: int, end: m.End) -> None:
        """The client has sent all of a stream's content."""
        stream = self.working.get(number)
        if stream is not None:
            stream.end(end)

    # -- ending

    def said_goodbye(self) -> None:
        """The client begins nothing more."""
        if not self.working:
            self.close()

    def retire(self, why: str = "the server is stopping") -> None:
        """Begin nothing more, and close when what was begun is done. Nobody waits for a job any more."""
        self._session.leave(message=why)
        self._output.flush()
        for stream in tuple(self.working.values()):
            stream.hurry()
        if not (self.working or self._closing):
            self.close()

    def close(self) -> None:
        """Say what there is to say, and close; for taking it the peer has its time.

        What still goes on is given up as if the connection were lost.
        """
        if self._closing:
            return
        self._closing = True
        self._deadline = self._clock.seconds() + LINGER_TIME
        transport: Any = self.transport
        self._output.end()
        self._give_all_up()
        transport.loseConnection()

    @property
    def _outlives(self) -> bool:
        return any(stream.outlives for stream in self.working.values())

    def _give_all_up(self) -> None:
        # What has just come counts too.
        self._hand_over()
        for stream in tuple(self.working.values()):
            stream.give_up(PeerGone())

    def abort(self) -> None:
        """Break the connection."""
        self._closing = True
        transport: Any = self.transport
        if not self._lost:
            transport.abortConnection()

    def look(self, now: float) -> None:
        """End what takes too long; called every `SWEEP` seconds."""
        if self._deadline is not None:
            if now >= self._deadline:
                self.abort()
            return
        self.check_token()
        if self._held and not self._outlives and hung_up(self.transport):
            # Who is not read from is not heard to leave.
            self.abort()
            return
        if self._output.expire(now):
            self._log.info("{peer} took next to nothing for too long", peer=self.peer)
            self.abort()
            return
        if self._held:
            # It is we who do not listen.
            self._heard = now
        for stream in tuple(self.working.values()):
            if self._held:
                stream.pace.begin(now)
            elif stream.is_late(now):
                stream.give_up(Stalled())
        self._ask(now)

    def _ask(self, now: float) -> None:
        """Close where the client is silent, also when it was asked."""
        silent = now - self._heard
        if silent >= SILENCE:
            self.abort()
        elif silent >= PING_TIME and not self._asked:
            self._asked = True
            self._session.send(m.Ping())
            self._output.flush()

    def _hold(self, reason: str, hold: bool) -> None:
        """Do not read for this reason, or read on unless there is another."""
        (self._held.add if hold else self._held.discard)(reason)
        if self._closing or self._lost:
            return
        if self._held and not self._is_paused:
            self._is_paused = True
            transport: Any = self.transport
            transport.pauseProducing()
        elif self._is_paused and not self._held:
            # Later: this may be in the midst of a message. What has come is dealt with before more is read.
            self._clock.callLater(0, self._go_on)


@singledispatch
def take(message: m.Message, connection: TransferConnection, event: Received) -> None:
    """A message came; those that the session has dealt with need nothing more."""


@take.register
def _(message: m.Auth, connection: TransferConnection, event: Received) -> None:
    connection.challenge(message)


@take.register
def _(message: m.Proof, connection: TransferConnection, event: Received) -> None:
    connection.check(message)


@take.register
def _(message: m.Open, connection: TransferConnection, event: Received) -> None:
    connection.open(event.stream, message)


@take.register
def _(message: m.Files | m.Copy, connection: TransferConnection, event: Received) -> None:
    connection.content(event.stream, event, event.size)


@take.register
def _(message: m.End, connection: TransferConnection, event: Received) -> None:
    connection.ended(event.stream, message)


@take.register
def _(message: m.Reset, connection: TransferConnection, event: Received) -> None:
    connection.give_up(event.stream)


@take.register
def _(message: m.GoAway, connection: TransferConnection, event: Received) -> None:
    connection.said_goodbye()


def _host_of(address: IAddress) -> str:
    """The address for limits and logs; those of UNIX sockets have none."""
    return str(getattr(address, "host", "unix"))
