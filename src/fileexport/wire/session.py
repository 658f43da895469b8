"""A whole connection without sockets: whose turn it is, authentication's order, streams, credit.

Both sides use it. `receive` what arrived, call `next_event` until that is None, then write what `take` gives.
It knows no clock, no files and no tokens; what is wrong with a proof, or too slow, its user says.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

from fileexport.errors import BadRequestError, CorruptedResponse, OverloadedError, row_for, sentence_of
from fileexport.wire import messages as m
from fileexport.wire.frames import (
    BEFORE_AUTHENTICATION,
    COMPRESSED,
    HEADER_SIZE,
    LARGEST,
    MAX_STREAM,
    PREFACE,
    Data,
    Frame,
    FrameReader,
    FrameType,
    Limits,
    header,
)
from fileexport.wire.streams import CONTENT, Account, Role, Stream, StreamState

#: What both sides of this project take.
DEFAULT_OFFER = m.Offer(
    control=LARGEST.control,
    data=LARGEST.data,
    streams=64,
    stream_credit=8 << 20,
    connection_credit=16 << 20,
)
#: PINGs that are answered while nobody takes the answers; further ones get none.
MAX_PONGS = 8
#: OPENs that are refused by themselves while nobody takes the refusals; one more is fatal.
MAX_REFUSALS = 1024
#: Operations that a client cancels unanswered beyond those that it lets end; one more is fatal.
MAX_CANCELLED = 1024
#: Frames in a row that concern nobody, until others may have their turn.
MAX_QUIET = 256
#: Characters of the sentence in GOAWAY: they fit into what is taken before authentication.
_MAX_SENTENCE = 200
_CANCELLED = m.Reset()
_NOT_NEGOTIATED = "compressed DATA, which was not agreed upon"


class State(enum.Enum):
    """How far a connection has come."""

    START = "nothing was said"
    CLIENT_GREETED = "the client's HELLO was said"
    SERVER_GREETED = "the server's HELLO was said"
    GREETED = "both HELLOs were said"
    ASKED = "the client named its token"
    CHALLENGED = "the server sent its nonce"
    PROVED = "the client sent its proof"
    OPEN = "the client is let in: streams"
    LEAVING = "one side said GOAWAY: streams that were begun go on, no new ones"
    CLOSED = "one side said GOAWAY before WELCOME: nothing is read or said any more"
    BROKEN = "the other side broke the protocol: nothing is read any more"


_C, _S, _T = Role.CLIENT, Role.SERVER, FrameType
_STREAMS = (
    *((_C, kind) for kind in (_T.OPEN, _T.DATA, _T.FILES, _T.COPY)),
    *((_C, kind) for kind in (_T.END, _T.RESET, _T.CREDIT, _T.PING, _T.PONG)),
    *((_S, kind) for kind in (_T.REPLY, _T.DATA, _T.FILES, _T.END, _T.RESET, _T.CREDIT, _T.PING, _T.PONG)),
)
_GOODBYE = {(_C, _T.GOAWAY): State.CLOSED, (_S, _T.GOAWAY): State.CLOSED}
_LEAVE = {(_C, _T.GOAWAY): State.LEAVING, (_S, _T.GOAWAY): State.LEAVING}
#: Whose turn it is: what is not here breaks the protocol.
CONNECTION: dict[State, dict[tuple[Role, FrameType], State]] = {
    State.START: {(_C, _T.HELLO): State.CLIENT_GREETED, (_S, _T.HELLO): State.SERVER_GREETED},
    State.CLIENT_GREETED: {(_S, _T.HELLO): State.GREETED, **_GOODBYE},
    State.SERVER_GREETED: {(_C, _T.HELLO): State.GREETED, **_GOODBYE},
    State.GREETED: {(_C, _T.AUTH): State.ASKED, **_GOODBYE},
    State.ASKED: {
        (_S, _T.CHALLENGE): State.CHALLENGED,
        (_S, _T.REFUSED): State.GREETED,
        **_GOODBYE,
    },
    State.CHALLENGED: {(_C, _T.PROOF): State.PROVED, **_GOODBYE},
    State.PROVED: {(_S, _T.WELCOME): State.OPEN, (_S, _T.REFUSED): State.GREETED, **_GOODBYE},
    State.OPEN: {**dict.fromkeys(_STREAMS, State.OPEN), **_LEAVE},
    State.LEAVING: {**dict.fromkeys(_STREAMS, State.LEAVING), **_LEAVE},
    State.CLOSED: {},
    State.BROKEN: {},
}


class LocalProtocolError(RuntimeError):
    """This side would break the protocol: a mistake of ours. Nothing was sent, the session goes on."""


class Received(NamedTuple):
    """A message of the other side. On stream 0 it concerns the connection.

    `size`: payload bytes that took credit, which FILES and COPY do; they are what `consumed` gives back.
    """

    stream: int
    message: m.Message
    size: int = 0


class Quiet(m.Message, frozen=True):
    """Many frames came that concern nobody: others may have their turn before the next event is asked for."""


#: The one event without a frame of its own.
PAUSE = Received(0, Quiet())
Event = Received | Data


class Session:
    """One side of a connection.

    PREFACE and HELLO wait in the outbox at once. Everything that is to be sent waits there for `take`. PING
    is answered by itself, and so is an OPEN that cannot be read or is one too many.

    `peer` is the other side's HELLO, `features` what both named, `limits` what the other side takes now.
    """

    def __init__(
        self, role: Role, offer: m.Offer = DEFAULT_OFFER, features: Sequence[str] = tuple(m.FEATURES)
    ) -> None:
        self.role = role
        self.offer = offer
        self.state = State.START
        self.peer: m.Hello | None = None
        self.features: frozenset[str] = frozenset()
        self.limits = BEFORE_AUTHENTICATION
        #: The highest number of a stream that was begun, or refused; GOAWAY names it.
        self.last_stream = 0
        #: The highest number of all: behind GOAWAY there may come some that are never begun.
        self._highest = 0
        self._other = Role.SERVER if role is Role.CLIENT else Role.CLIENT
        self._reader = FrameReader()
        self._error: str | None = None
        self._streams: dict[int, Stream] = {}
        self._credit = Account(offer.connection_credit, 0)
        self._named = frozenset(features)
        self._may_compress = False
        self._pongs = self._refusals = self._cancelled = 0
        self._hellos: dict[Role, bytes] = {}
        self._outbox: list[bytes] = []
        #: Bytes that wait for `take`; and payload bytes of the message that came last.
        self.unsent = self.size = 0
        hello = m.encode(m.Hello(m.VERSION, offer, list(features)), limits=BEFORE_AUTHENTICATION)
        self._hellos[role] = hello[HEADER_SIZE:]
        self._queue(PREFACE + hello)
        self._go(role, FrameType.HELLO)

    # What came in.

    def receive(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes that arrived; copies nothing: the buffer must not change until `next_event` is None."""
        if self.state not in (State.CLOSED, State.BROKEN):
            self._reader.feed(data)

    def next_event(self) -> Event | None:
        """The next thing that concerns the user, or None until more was received.

        Raises `CorruptedResponse`, and nothing else, where the other side broke the protocol: then `take`
        has the GOAWAY to send, the state is BROKEN, and each further call raises it again.
        """
        if self._error is not None:
            raise CorruptedResponse(self._error)
        try:
            for _ in range(MAX_QUIET):
                if self.state is State.CLOSED or (found := self._reader.next_event()) is None:
                    return None
                event = self._piece(found) if isinstance(found, Data) else self._message(found)
                if event is not None:
                    return event
        except CorruptedResponse as error:
            self._break(str(error))
            raise
        return PAUSE

    def consumed(self, stream: int, count: int) -> None:
        """`count` payload bytes that came on `stream` were dealt with: others may come for them.

        What a stream still holds when it closes goes back by itself; on a closed stream this does nothing.
        """
        known = self._streams.get(stream)
        if known is None:
            return
        if not 0 <= count <= known.held:
            raise LocalProtocolError(f"{count} bytes were not received on stream {stream}")
        known.held -= count
        self._refund(count)
        given = known.give_back(count)
        if given and (self.role is Role.CLIENT or known.state is StreamState.SENDING):
            self._put(m.MoreCredit(given), stream)

    # What goes out.

    def take(self) -> bytes:
        """All that is to be sent now; it is the caller's to send."""
        self._pongs = self._refusals = 0
        if not self._outbox:
            return b""
        whole = b"".join(self._outbox)
        self._outbox.clear()
        self.unsent = 0
        return whole

    def send(self, message: m.Message, stream: int = 0) -> None:
        """Say `message`. For OPEN there is `open`, for DATA `data_header`, for GOAWAY `leave`.

        Raises `LocalProtocolError` where it is not our turn or the credit is not there, and `ValueError`
        where the other side does not take so long a message. After either, nothing was said.
        """
        kind = message.frame
        if kind in (FrameType.OPEN, FrameType.GOAWAY, FrameType.CREDIT):
            raise LocalProtocolError(f"{kind.name} is not sent by hand")
        encoded = m.encode(message, stream, self.limits)
        self._check_turn(kind)
        if stream:
            known = self._known(stream)
            size = len(encoded) - HEADER_SIZE if kind in CONTENT else 0
            self._speak(known, kind, stream, size, type(message))
        self._queue(encoded)
        self._go(self.role, kind)

    def open(self, operation: m.Open) -> int:
        """Begin an operation (client). Returns the number of its stream.

        Raises `OverloadedError` when the other side has as many open streams as it takes, or one of both is
        leaving; `LocalProtocolError` before WELCOME; `ValueError` where the operation is too long.
        """
        if self.state is State.LEAVING or len(self._streams) >= self._offered().streams:
            raise OverloadedError("no further operation can begin on this connection now")
        self._check_turn(FrameType.OPEN)
        number = self._highest + 1
        if number > MAX_STREAM:
            raise OverloadedError("this connection has no further streams")
        self._put(operation, number)
        self._begin(number, operation)
        return number

    def data_header(self, stream: int, size: int, *, compressed: bool = False) -> None:
        """Put the header of a DATA frame into the outbox, and charge its credit.

        The caller writes what `take` gives, and directly behind it exactly `size` bytes of content. Raises
        as `send` does.
        """
        if compressed and not self._may_compress:
            raise LocalProtocolError(_NOT_NEGOTIATED)
        flags = COMPRESSED if compressed else 0
        head = header(FrameType.DATA, stream, size, flags=flags, limits=self.limits)
        self._speak(self._known(stream), FrameType.DATA, stream, size)
        self._queue(head)

    def credit(self, stream: int) -> int:
        """Payload bytes of DATA, FILES and COPY that may be sent on `stream` now; 0 where it is closed."""
        known = self._streams.get(stream)
        return min(known.sendable, self._credit.sendable) if known is not None else 0

    def receivable(self, stream: int) -> int:
        """The same for what the other side may send."""
        known = self._streams.get(stream)
        return min(known.receivable, self._credit.receivable) if known is not None else 0

    def reset(self, stream: int, message: m.Reset = _CANCELLED) -> None:
        """End `stream` for both sides; does nothing where it is closed."""
        if stream in self._streams and self.state in (State.OPEN, State.LEAVING):
            self._put(message, stream)
            self._close(stream)

    def leave(self, code: int = 0, message: str = "") -> None:
        """Say GOAWAY: streams that were begun go on, no new ones. Before WELCOME, nothing goes on."""
        following = CONNECTION[self.state].get((self.role, FrameType.GOAWAY))
        if following is not None:
            self._put(m.GoAway(self.last_stream, code, message[:_MAX_SENTENCE]))
            self.state = following

    # What is known.

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def is_open(self, stream: int) -> bool:
        """Whether something may still be said on `stream`."""
        return stream in self._streams

    @property
    def transcript(self) -> bytes:
        """SHA-256 of both HELLOs as they were said, the client's first: a part of each proof."""
        if len(self._hellos) < 2:
            raise LocalProtocolError("there is no transcript before both sides have said HELLO")
        said = (self._hellos[Role.CLIENT], self._hellos[Role.SERVER])
        return hashlib.sha256(b"".join(struct.pack(">I", len(one)) + one for one in said)).digest()

    # Inside.

    def _offered(self) -> m.Offer:
        if self.peer is None:
            raise LocalProtocolError("the other side has not said HELLO")
        return self.peer.limits

    def _queue(self, data: bytes) -> None:
        self._outbox.append(data)
        self.unsent += len(data)

    def _put(self, message: m.Message, stream: int = 0) -> None:
        self._queue(m.encode(message, stream, self.limits))

    def _check_turn(self, kind: FrameType) -> None:
        if (self.role, kind) not in CONNECTION[self.state]:
            raise LocalProtocolError(f"{kind.name} of the {self.role.value}: not in state {self.state.name}")

    def _go(self, sender: Role, kind: FrameType) -> None:
        """Go on by a frame that was checked, with what a new state means."""
        following = CONNECTION[self.state][sender, kind]
        if kind is FrameType.WELCOME:
            offer = self._offered()
            self.limits = Limits(offer.control, offer.data)
            self._reader.limits = Limits(self.offer.control, self.offer.data)
            self._credit.sendable = offer.connection_credit
        self.state = following

    def _known(self, stream: int) -> Stream:
        known = self._streams.get(stream)
        if known is None or self.state not in (State.OPEN, State.LEAVING):
            raise LocalProtocolError(f"stream {stream} is not open")
        return known

    def _speak(
        self, known: Stream, kind: FrameType, stream: int, size: int, reply: type[m.Message] | None = None
    ) -> None:
        """Our frame with `size` bytes of content on an open stream."""
        if size > known.sendable or size > self._credit.sendable:
            raise LocalProtocolError(f"{size} bytes of content, where {self.credit(stream)} are allowed")
        wrong = known.step(self.role, kind, reply)
        if wrong is not None:
            raise LocalProtocolError(wrong)
        known.sendable -= size
        self._credit.sendable -= size
        if known.state is StreamState.CLOSED:
            self._close(stream)
            # Only an answer makes up for what was cancelled: a refusal of ours costs the client nothing.
            self._cancelled = max(self._cancelled - 1, 0)

    def _begin(self, number: int, operation: m.Open) -> None:
        self.last_stream = self._highest = number
        self._streams[number] = Stream(operation, self.offer.stream_credit, self._offered().stream_credit)

    def _close(self, stream: int) -> None:
        known = self._streams.pop(stream)
        self._refund(known.held)

    def _refund(self, count: int) -> None:
        """Content has left the connection."""
        given = self._credit.give_back(count)
        if given and self.state in (State.OPEN, State.LEAVING):
            self._put(m.MoreCredit(given))

    def _break(self, sentence: str) -> None:
        if (self.role, FrameType.GOAWAY) in CONNECTION[self.state]:
            code = row_for(CorruptedResponse()).wire
            self._put(m.GoAway(self.last_stream, code, sentence[:_MAX_SENTENCE]))
        self._error = sentence or sentence_of(CorruptedResponse)
        self.state = State.BROKEN
        self._streams.clear()

    def _piece(self, data: Data) -> Data | None:
        stream, size, left, compressed, piece = data
        known = self._streams.get(stream)
        if len(piece) + left == size:
            self._credit.charge(size)
            if known is None:
                self._check_was_open(stream, FrameType.DATA)
                self._refund(size)
                return None
            known.charge(size)
            known.held += size
            wrong = known.step(self._other, FrameType.DATA)
            if wrong is not None or (compressed and not self._may_compress):
                raise CorruptedResponse(wrong or _NOT_NEGOTIATED)
        return data if known is not None else None

    def _message(self, found: Frame) -> Received | None:
        kind, stream, _ = found
        self.size = len(found.payload)
        if (self._other, kind) not in CONNECTION[self.state]:
            raise CorruptedResponse(f"{kind.name} of the {self._other.value}: it is not its turn")
        if kind is FrameType.OPEN:
            return self._opened(found)
        if stream:
            return self._on_stream(found)
        message = m.decode(found)
        self._go(self._other, kind)
        match message:
            case m.Hello():
                self._greeted(message, bytes(found.payload))
            case m.Ping():
                self._answer(message)
                return None
            case m.MoreCredit():
                self._credit.add(message.bytes)
            case m.GoAway() if self.role is Role.CLIENT:
                for number in [number for number in self._streams if number > message.last_stream]:
                    self._close(number)
        return Received(0, message)

    def _greeted(self, hello: m.Hello, payload: bytes) -> None:
        self.peer = hello
        self.features = self._named & frozenset(hello.features)
        self._may_compress = "zstd" in self.features
        self._hellos[self._other] = payload

    def _answer(self, ping: m.Ping) -> None:
        if self._pongs < MAX_PONGS:
            self._pongs += 1
            self._put(m.Pong(ping.data))

    def _opened(self, found: Frame) -> Received | None:
        number = found.stream
        if number <= self._highest:
            raise CorruptedResponse(f"OPEN on stream {number}: it was opened before")
        if self.state is State.LEAVING:
            self._highest = number
            return None
        try:
            operation = m.decode(found)
        except BadRequestError as error:
            self._refuse(number, error)
            return None
        assert isinstance(operation, m.Open)
        if len(self._streams) >= self.offer.streams:
            self._refuse(number, OverloadedError("too many operations at once on this connection"))
            return None
        self._begin(number, operation)
        return Received(number, operation)

    def _refuse(self, number: int, error: Exception) -> None:
        self.last_stream = self._highest = number
        self._refusals += 1
        if self._refusals > MAX_REFUSALS:
            raise CorruptedResponse("it asks on and on without reading the answers")
        self._put(m.Reset(row_for(error).wire, str(error)), number)

    def _on_stream(self, found: Frame) -> Received | None:
        kind, stream, payload = found
        size = len(payload) if kind in CONTENT else 0
        self._credit.charge(size)
        known = self._streams.get(stream)
        if known is None:
            self._check_was_open(stream, kind)
            self._refund(size)
            return None
        message = m.decode(found)
        if isinstance(message, m.MoreCredit):
            known.add(message.bytes)
            return Received(stream, message)
        known.charge(size)
        known.held += size
        wrong = known.step(self._other, kind, type(message))
        if wrong is not None:
            raise CorruptedResponse(wrong)
        if known.state is StreamState.CLOSED:
            self._closed_by_peer(stream, known, kind)
        return Received(stream, message, size)

    def _closed_by_peer(self, stream: int, known: Stream, kind: FrameType) -> None:
        self._close(stream)
        if kind is FrameType.RESET and self.role is Role.SERVER and not known.replies:
            self._cancelled += 1
            if self._cancelled > MAX_CANCELLED:
                raise CorruptedResponse("it begins and cancels operations without end")

    def _check_was_open(self, stream: int, kind: FrameType) -> None:
        if stream > self._highest:
            raise CorruptedResponse(f"{kind.name} on stream {stream}: it was never opened")
