"""One HTTP/1.1 connection: whose turn it is, and until when.

Our own and not `twisted.web`'s channel: that one takes what two parsers read differently (several Hosts,
folded lines, Transfer-Encoding on HTTP/1.0), restarts its time-out with every byte, keeps whole bodies
before anything decides about them, and spends most of a small answer's time in its header objects. Heads and
bodies are read by `web.head` and `web.body`; here is whose turn it is, and until when.

One request at a time: the next is read when the answer has been handed to the transport and the transport
takes more, so a client that never reads makes us keep one answer at most.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IAddress,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fileexport.errors import ChangedWhileRead, PeerGone
from fileexport.web.answering import run
from fileexport.web.body import body_of
from fileexport.web.head import MAX_HEAD, Head, MalformedRequest, check_beginning, parse_head
from fileexport.web.intake import MAX_IGNORED_BODY, Ignored, Intake
from fileexport.web.request import Request

if TYPE_CHECKING:
    from fileexport.web.site import Site

#: Seconds for a whole head, from the connection or the head's first byte; TLS handshakes count into it.
HEAD_TIME = 10.0
#: Seconds that an idle connection is kept, for a body (see `Intake`), and that a peer may take nothing.
IDLE_TIME = 60.0
BODY_TIME = 60.0
STALL_TIME = 60.0
#: Seconds that a peer may go on sending after we closed our side: closing at once would destroy the answer.
LINGER_TIME = 5.0
#: Bytes after which it has that time again, as a browser has to send all of a body before it reads; and how
#: often at most.
LINGER_STEP = 1024 * 1024
LINGER_MOST = 6
#: Bytes that are read ahead of an answer.
MAX_AHEAD = 64 * 1024
#: Empty lines before a request line that are passed over (RFC 9112, section 2.2).
MAX_EMPTY_LINES = 4


@implementer(IPushProducer)
class Connection(Protocol):
    """One connection. What is read and who has the turn: head → (body) → answer → head …

    - `deadline`: when the present step must be done, in the reactor's seconds; None: never.
    - `peer`, `secure`: the address of the other end, and whether the connection is encrypted.
    - `since`: when the connection began, where it was not ours from the beginning; set before it is.
    """

    factory: Site
    peer: IAddress
    secure: bool

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self.failures = 0
        self.since: float | None = None
        self.deadline: float | None = None
        self._buffer = b""
        self._request: Request | None = None
        self._awaited: Ignored | None = None
        self._intake: Intake | None = None
        self._empty = 0
        self._stopped_reading = False
        self._paused = False
        self._producer: IPushProducer | None = None
        self._closing = False
        self._linger_until = 0.0
        self._dropped = 0
        self._last = False
        self._unread = False
        self._asks_head = False
        self._idle = False
        self._advancing = False

    # -- what the transport calls

    def connectionMade(self) -> None:
        """The connection stands; the first head has its time."""
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self.peer = transport.getPeer()
        self.secure = ISSLTransport.providedBy(transport)
        self.deadline = HEAD_TIME + (self._reactor.seconds() if self.since is None else self.since)
        self.factory.joined(self)

    def dataReceived(self, data: bytes) -> None:
        """Bytes arrived."""
        if self._closing:
            return self._drop(len(data))
        if self._idle:
            self._idle = False
            self._set_deadline(HEAD_TIME)
        self._buffer += data
        self._advance()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self._closing = True
        request, self._request = self._request, None
        if request is not None:
            request.lose()
            self._end_intake(PeerGone())
            self.factory.record(request)
        self.factory.left(self)

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._paused = True
        if self._producer is not None:
            self._producer.pauseProducing()
        elif self._request is None and not self._closing:
            self._rest()

    def resumeProducing(self) -> None:
        """The transport's buffer is empty again."""
        self._paused = False
        if self._producer is not None:
            self._producer.resumeProducing()
        elif self._request is None and not self._closing:
            self._rest()
            self._advance()

    def stopProducing(self) -> None:
        """The transport is about to lose the connection; `connectionLost` follows."""

    # -- reading

    def _advance(self) -> None:
        """Do all that can be done with what has arrived."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._step():
                pass
        except MalformedRequest as error:
            self._refuse(error)
        finally:
            self._advancing = False
        self._regulate()

    def _step(self) -> bool:
        """Do one thing; False where nothing can be done yet."""
        if self._closing:
            return False
        if self._request is not None:
            return self._pass_on()
        if self._paused:
            return False
        if self._awaited is not None:
            return self._read_body(self._awaited)
        return self._read_head()

    def _read_head(self) -> bool:
        if not self._buffer:
            return False
        end = self._find_end()
        self._asks_head = self._buffer.startswith(b"HEAD ")
        if end < 0:
            check_beginning(self._buffer)
            return False
        block, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        self._empty = 0
        self._begin(parse_head(block, secure=self.secure))
        return True

    def _find_end(self) -> int:
        """Where the head ends that the buffer begins with, once empty lines are gone; -1: it is not whole."""
        while self._buffer.startswith(b"\r\n") and self._empty < MAX_EMPTY_LINES:
            self._buffer = self._buffer[2:]
            self._empty += 1
        return self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD)

    def _begin(self, head: Head) -> None:
        """A head is complete: answer it now, or when its body, if nobody reads it, has passed."""
        if head.length != 0 and self.factory.reads(head):
            # A client that has begun its body waits for nothing.
            waits = head.expects_continue and not self._buffer
            now = self._reactor.seconds()
            self._intake = Intake(body_of(head.length), now, seconds=BODY_TIME, waits=waits)
            self._serve(head, unread=False, oversized=False)
            return
        too_long = head.length is not None and head.length > MAX_IGNORED_BODY
        if head.length == 0 or head.expects_continue or too_long:
            # A client that waits for 100 gets its answer instead: this route reads no body.
            self._serve(head, unread=head.length != 0, oversized=too_long)
            return
        self._awaited = Ignored(head)
        self._set_deadline(BODY_TIME)

    def _read_body(self, ignored: Ignored) -> bool:
        data, self._buffer = self._buffer, b""
        if not ignored.feed(data):
            return False
        self._awaited = None
        self._buffer = ignored.rest
        self._serve(ignored.head, unread=ignored.is_oversized, oversized=ignored.is_oversized)
        return True

    def _pass_on(self) -> bool:
        """Give what has arrived of the body to the answer that reads it."""
        intake = self._intake
        if intake is None or not intake.is_wanted or not self._buffer:
            return False
        data, self._buffer = self._buffer, b""
        try:
            piece = intake.feed(data, self._reactor.seconds())
        except MalformedRequest as error:
            self._end_intake(error)
            return False
        self._buffer = intake.rest
        self.deadline = intake.deadline
        if piece or intake.is_done:
            self.deadline = None
            intake.give(piece)
        return True

    def _end_intake(self, error: Exception) -> None:
        self.deadline = None
        if self._intake is not None:
            self._intake.fail(error)

    def _regulate(self) -> None:
        """Read on while there is room for what arrives."""
        full = not self._closing and (len(self._buffer) > MAX_AHEAD or self._is_held)
        if full != self._stopped_reading:
            self._stopped_reading = full
            transport: Any = self.transport
            (transport.pauseProducing if full else transport.resumeProducing)()

    @property
    def _is_held(self) -> bool:
        """Whether a body is streamed, and nobody asks for more of it now."""
        intake = self._intake
        return intake is not None and intake.is_streamed and not (intake.is_wanted or intake.is_done)

    # -- answering

    def _serve(self, head: Head, *, unread: bool, oversized: bool) -> None:
        self.deadline = None
        self._unread = unread
        close = unread or self._last or self.factory.stopping
        now = self._reactor.seconds()
        request = Request(self, head, started=now, now=self.factory.now(), close=close)
        request.oversized = oversized
        self._request = request
        run(self.factory.serve(request), partial(self._failed, request))

    def _failed(self, request: Request, failure: Failure) -> None:
        if failure.check(PeerGone):
            return
        # Everyday events: no traceback that strangers could fill the log with.
        if failure.check(TimeoutError):
            self.factory.log.info("{peer} took nothing for too long", peer=self.peer)
        elif failure.check(ChangedWhileRead):
            why = failure.getErrorMessage()
            self.factory.log.info("an answer to {peer} was broken off: {why}", peer=self.peer, why=why)
        else:
            self.factory.log.failure("an answer failed", failure)
        request.abort()

    def _refuse(self, error: MalformedRequest) -> None:
        """Answer what cannot be read, and close: where the next request begins is not known."""
        text = str(error).encode("ascii", "replace")
        # An answer to HEAD has no body, whatever else is wrong (RFC 9110, section 9.3.2).
        head = Head(b"HEAD" if self._asks_head else b"-", b"-", 1)
        now = self._reactor.seconds()
        request = Request(self, head, started=now, now=self.factory.now(), close=True)
        self._request = request
        self._unread = True
        request.answer(error.status, text, b"text/plain; charset=utf-8")

    # -- what a request calls (`web.request.Wire`)

    @property
    def local(self) -> bool:
        """Whether its listener is loopback."""
        return self.factory.local

    @property
    def unread(self) -> bool:
        """Whether more of the request may come: no other can follow then."""
        return self._unread or (self._intake is not None and not self._intake.is_done)

    def receive(self) -> Deferred[bytes]:
        """The next piece of the request's body; empty at its end, and where the route reads none.

        A client that waits for 100 gets it now. Fails with `MalformedRequest`, also when what is asked for
        has not come in time, and with `PeerGone`; the body cannot be read any further then.
        """
        intake = self._intake
        if intake is None or intake.is_done:
            return succeed(b"")
        if self._closing:
            return fail(PeerGone())
        if intake.waits:
            intake.waits = False
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        receiver = intake.want(self._reactor.seconds())
        self.deadline = intake.deadline
        self._advance()
        return receiver

    def stream(self) -> None:
        """Let the body be as long as it likes: it is read as it is asked for, in large pieces."""
        if self._intake is not None:
            self._intake.stream(self.transport)

    def send(self, data: bytes) -> None:
        """Write."""
        transport: Any = self.transport
        transport.write(data)

    def attach(self, producer: IPushProducer) -> None:
        """Tell a push producer from now on when the transport is full and when it is empty."""
        self._producer = producer
        if self._paused:
            producer.pauseProducing()

    def detach(self) -> None:
        """Tell it no more."""
        self._producer = None

    def lend(self) -> object:
        """Give the transport away until `reclaim`: nobody is its producer."""
        transport: Any = self.transport
        transport.unregisterProducer()
        return transport

    def reclaim(self) -> None:
        """Be the transport's producer again."""
        transport: Any = self.transport
        self._paused = False
        if transport.connected:
            transport.registerProducer(self, True)

    def finished(self) -> None:
        """The answer was handed over: the next request, or the end."""
        request, self._request = self._request, None
        if request is None:
            return
        self.factory.record(request)
        if self._intake is not None:
            self._intake.end()
        if request.closes:
            self._close(linger=self.unread or bool(self._buffer))
            return
        self._intake = None
        self._rest()
        self._advance()

    def _rest(self) -> None:
        """No answer is under way: the peer has to take what was sent, or to send the next request."""
        self._idle = not self._paused and not self._buffer
        self._set_deadline(STALL_TIME if self._paused else IDLE_TIME if self._idle else HEAD_TIME)

    def abort(self) -> None:
        """Break the connection: the peer sees a reset, never a clean end."""
        transport: Any = self.transport
        self._closing = True
        transport.abortConnection()

    # -- ending

    def retire(self) -> None:
        """Close when the request whose head has come is answered; at once when there is none.

        A part of a head is no request: nothing was done about it, and its rest may never come. For its client
        it is as if an idle connection had ended just then: it may send the request again (RFC 9112, section
        9.3.1).
        """
        self._last = True
        if self._request is not None:
            self._request.last()
        elif not self._closing and self._awaited is None and self._find_end() < 0:
            self._close(linger=False)

    def look(self, now: float) -> None:
        """End what is past its deadline."""
        if self.deadline is not None and self.deadline <= now:
            self.expire()

    def expire(self) -> None:
        """The present step took too long."""
        if self._intake is not None and self._intake.is_wanted:
            self._end_intake(_too_slow())
        elif self._closing or self._paused:
            self.abort()
        elif self._buffer or self._awaited is not None:
            self._awaited = None
            self._refuse(_too_slow())
        else:
            self._close(linger=False)
            self._set_deadline(LINGER_TIME)

    def _close(self, *, linger: bool) -> None:
        """Close when all that was written has left, for which the peer has its time.

        With `linger` only our side is closed, and what the peer still sends is dropped for a while.
        """
        transport: Any = self.transport
        self._closing = True
        self._buffer = b""
        lingering = linger and not self._paused
        self._linger_until = self._reactor.seconds() + LINGER_MOST * LINGER_TIME if lingering else 0.0
        self._set_deadline(LINGER_TIME if lingering else STALL_TIME)
        if self._stopped_reading:
            self._stopped_reading = False
            transport.resumeProducing()
        transport.unregisterProducer()
        if linger and hasattr(transport, "loseWriteConnection") and not self.secure:
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def _drop(self, size: int) -> None:
        """Something came behind the end. Who sends much is about to be done with it, or to be cut off."""
        self._dropped += size
        if self._dropped >= LINGER_STEP and self._linger_until:
            self._dropped = 0
            self.deadline = min(self._reactor.seconds() + LINGER_TIME, self._linger_until)

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self._reactor.seconds() + seconds


def _too_slow() -> MalformedRequest:
    return MalformedRequest("the request took too long", HTTPStatus.REQUEST_TIMEOUT)
