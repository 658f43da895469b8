"""One connection to a server for many operations at once, in a reactor; threads may take part.

The session is behind a lock, which all connections of a client share. What comes is handed to the receiver of
its stream; what is to be said leaves in the reactor's thread, whoever said it.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from OpenSSL import SSL
from twisted.internet import protocol, tcp
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fileexport.client.answers import Stalled
from fileexport.client.connection import Traffic
from fileexport.client.deferred.holding import Holding, Receiver
from fileexport.client.login import proving
from fileexport.errors import AuthenticationError, CorruptedResponse, PeerGone
from fileexport.proofs import ClientProof
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import DEFAULT_OFFER, PAUSE, Event, Session
from fileexport.wire.streams import Role

#: Content may come for all streams at once, whoever does not take his: no reader keeps another waiting.
OFFER = msgspec.structs.replace(DEFAULT_OFFER, stream_credit=2 << 20, connection_credit=128 << 20)
#: Bytes that wait to leave; threads that have more to say wait for room.
MAX_UNSENT = 1 << 20
#: Bytes of one read, each of which wakes the thread that waits for it; and what the transport keeps to write.
_BUFFER = 1 << 20
#: Bytes of one write.
_WRITE = 256 << 10
#: A piece of content that is a smaller part of what was read with it is copied, so as not to keep all that.
_PART = 4
#: Seconds that a server has to say anything at all, when it was asked; and to close.
_SIGN_OF_LIFE = 10.0
_LINGER = 2.0
#: Seconds until the place of a dropped stream is used again: until its thread has come to its next step, the
#: server counts it.
_COOLING = 0.5


class Met(NamedTuple):
    """Who is at the other end: what we can prove to them, what that is bound to, and what we name."""

    proof: ClientProof
    binding: bytes
    features: tuple[str, ...]


@implementer(IHandshakeListener, IPushProducer)
class Link(protocol.Protocol):
    """One connection. `ready` fires once the server has let us in, or says why not.

    `meet` gets the transport when it stands, after the handshake where it is TLS; it raises where nothing
    shall be said to who is there. `on_change` is told when places became free, or it takes no more. To be
    called in the reactor's thread, where nothing else is said.
    """

    def __init__(
        self,
        reactor: Any,
        lock: threading.RLock,
        traffic: Traffic,
        meet: Callable[[Any], Met],
        on_change: Callable[[], object],
    ) -> None:
        self.reactor = reactor
        self.lock = lock
        #: The transport stands; we were let in; it is over.
        self.made: Deferred[None] = Deferred()
        self.ready: Deferred[None] = Deferred(lambda _: self.abort())
        self.gone: Deferred[None] = Deferred()
        #: Whether the server takes no further operations; and since when nothing can be said at all.
        self.is_leaving = False
        self.error: Exception | None = None
        #: Operations that may be begun beside those under way.
        self.places = 0
        #: When something was begun, or came for an operation.
        self.moved_at = 0.0
        self.holding = Holding(reactor, lock, self._give_up)
        self.session = Session(Role.CLIENT, OFFER, ())
        #: Bytes that wait to leave.
        self.unsent = 0
        self._traffic = traffic
        self._meet = meet
        self._on_change = on_change
        self._receivers: dict[int, Receiver] = {}
        self._login: Any = None
        self._is_in = self._is_full = self._is_scheduled = False
        self._outgoing: deque[bytes | memoryview] = deque()
        #: What came until `hear` is called, where it is not heard at once.
        self._collected: list[bytes] | None = None
        self._heard_at = 0.0
        self._timers: dict[str, IDelayedCall] = {}
        self._numbers = itertools.count()
        #: When a stream was dropped the last time: the server may refuse others for a while.
        self.dropped_at: float | None = None

    # The transport's side.

    def connectionMade(self) -> None:
        """Look who it is; with TLS, that waits for the end of its handshake."""
        transport: Any = self.transport
        self._thread = threading.get_ident()
        self.made.callback(None)
        self.holding.begin(transport)
        transport.registerProducer(self, True)
        if ITCPTransport.providedBy(transport):
            with suppress(Exception):
                transport.setTcpNoDelay(True)
                transport.setTcpKeepAlive(True)
        if isinstance(transport, tcp.Connection):
            transport.bufferSize = transport.SEND_LIMIT = _BUFFER
        if not ISSLTransport.providedBy(transport):
            self._begin()

    def handshakeCompleted(self) -> None:
        """TLS stands."""
        self._begin()

    def _begin(self) -> None:
        """Whom it is with decides whether anything is said."""
        if self.error is not None or self._login is not None:
            return
        try:
            met = self._meet(self.transport)
        except Exception as error:
            self.abort(error)
            return
        self.session = Session(Role.CLIENT, OFFER, met.features)
        self._login = proving(self.session, met.proof, met.binding)
        next(self._login)
        self._say()

    def dataReceived(self, data: bytes) -> None:
        """Bytes came."""
        if self._collected is None:
            self._hear(data)
        else:
            self._collected.append(data)

    def collect(self) -> None:
        """Keep what comes from now on until `hear`: a little and a little more would wake a thread each."""
        self._collected = []

    def hear(self) -> None:
        """Take what was collected."""
        collected, self._collected = self._collected, None
        if collected:
            self._hear(b"".join(collected))

    def _hear(self, data: bytes) -> None:
        # Whoever stands between us and the transport may not have told that TLS stands.
        self._begin()
        self._heard_at = self.reactor.seconds()
        self._traffic.add(0, len(data))
        touched: dict[Receiver, None] = {}
        try:
            with self.lock:
                if self.error is not None:
                    return
                self.session.receive(data)
                while (event := self.session.next_event()) is not None:
                    if isinstance(event, Data) and len(event.piece) * _PART < len(data):
                        event = event._replace(piece=memoryview(bytes(event.piece)))
                    if event is not PAUSE:
                        self._take(event, touched)
                self.holding.look()
        except StopIteration:
            self._let_in()
            self._hear(b"")
        except CorruptedResponse as error:
            self._end(error, says_why=True)
        except Exception as error:
            self._end(error)
        self._say()
        for receiver in touched:
            receiver.turn()
        self._settle()

    def _take(self, event: Event, touched: dict[Receiver, None]) -> None:
        """Hand an event to whom it is for. The lock is held."""
        if not self._is_in:
            self._login.send(event)
            return
        self.moved_at = self._heard_at
        message = None if isinstance(event, Data) else event.message
        if isinstance(message, m.MoreCredit):
            for one in [self._receivers.get(event.stream)] if event.stream else self._receivers.values():
                if one is not None:
                    one.credited()
        elif isinstance(message, m.GoAway):
            self.is_leaving = True
            for number, receiver in tuple(self._receivers.items()):
                self._hand(number, receiver, event, touched)
        elif (found := self._receivers.get(event.stream)) is not None:
            self._hand(event.stream, found, event, touched)

    def _hand(self, number: int, receiver: Receiver, event: Event, touched: dict[Receiver, None]) -> None:
        receiver.events.put(event, self.session.size, receiver)
        receiver.heard()
        touched[receiver] = None
        if not self.session.is_open(number):
            del self._receivers[number]

    def _let_in(self) -> None:
        peer = self.session.peer
        assert peer is not None
        self._is_in = True
        self.places = peer.limits.streams
        self.ready.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over: who waits for an answer is told, behind what had come."""
        self.hear()
        self._end(_why(reason))
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self.gone.callback(None)

    def _end(self, error: Exception, says_why: bool = False) -> None:
        """Nothing more is heard or begun."""
        with self.lock:
            if self.error is not None:
                return
            self.error = error
            self.is_leaving = True
            self.holding.end()
            receivers, self._receivers = self._receivers, {}
            for receiver in receivers.values():
                receiver.lost(copy.copy(error))
            self._outgoing.clear()
            self.unsent = 0
            if says_why:
                self._queue(self.session.take())
        self._flush()
        if not self.ready.called:
            self.ready.errback(error)
        for receiver in receivers.values():
            receiver.turn()
        self._close()
        self._on_change()

    # Said in the reactor's thread.

    def leave(self, error: Exception) -> None:
        """End it: what is under way ends with `error`, the server is told."""
        with self.lock:
            if self._is_in:
                self.session.leave()
        self._end(error, says_why=True)

    def abort(self, error: Exception | None = None) -> None:
        """End it at once."""
        self._end(error or PeerGone("the connection was given up"))
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def suspect(self) -> None:
        """The server left an operation without an answer in time: is it there at all?"""
        with self.lock:
            if self.error is not None or self._has_timer("life"):
                return
            self.session.send(m.Ping())
        asked = self.reactor.seconds()
        self._timers["life"] = self.reactor.callLater(_SIGN_OF_LIFE, self._judge_life, asked)
        self._say()

    def _judge_life(self, asked: float) -> None:
        if self._heard_at < asked:
            self.abort(PeerGone("the server says nothing any more"))

    def _close(self) -> None:
        """Say what is left to be said, and go."""
        transport: Any = self.transport
        if transport is not None and not self._has_timer("linger") and not self.gone.called:
            transport.unregisterProducer()
            self._timers["linger"] = self.reactor.callLater(_LINGER, transport.abortConnection)
            transport.loseConnection()

    def _settle(self) -> None:
        """What follows from streams that have ended."""
        if self.is_leaving and self.error is None and not self.session.streams:
            self._end(PeerGone("the server is stopping"))
        self._on_change()

    def _has_timer(self, name: str) -> bool:
        timer = self._timers.get(name)
        return timer is not None and timer.active()

    # Writing: the transport says when it is full.

    def pauseProducing(self) -> None:
        """The transport has enough to write."""
        self._is_full = True

    def resumeProducing(self) -> None:
        """The transport wants more."""
        self._is_full = False
        self._say()

    def stopProducing(self) -> None:
        """The transport takes nothing more."""

    def _flush(self) -> None:
        """Write what waits, as far as the transport takes it."""
        transport: Any = self.transport
        while True:
            with self.lock:
                self._is_scheduled = False
                some: list[bytes | memoryview] = []
                size = 0
                while self._outgoing and size < _WRITE and not self._is_full:
                    some.append(self._outgoing.popleft())
                    size += len(some[-1])
                self.unsent -= size
                if not some or transport is None:
                    return
                # Not at each piece that leaves: threads that wait have more to say then, in one go.
                if self.unsent <= MAX_UNSENT // 2 < self.unsent + size:
                    for receiver in self._receivers.values():
                        receiver.credited()
            self._traffic.add(size)
            transport.writeSequence(some)

    # Reading: who takes nothing must not fill the memory.

    def _give_up(self, receiver: Receiver) -> None:
        """Somebody takes nothing: what waits for them is dropped, so that the others go on."""
        with self.lock:
            for number in [number for number, one in self._receivers.items() if one is receiver]:
                del self._receivers[number]
                self.session.reset(number)
            receiver.events.clear()
            receiver.lost(Stalled("the answers were taken too slowly"))
        receiver.turn()
        self._say()

    # Said in any thread.

    def open(self, asked: m.Open, receiver: Receiver) -> int:
        """Begin an operation, whose answers are for `receiver`; returns the number of its stream."""
        with self.lock:
            self._check()
            number = self.session.open(asked)
            self.moved_at = self.reactor.seconds()
            self._receivers[number] = receiver
        self._say()
        return number

    def say(self, message: m.Message, stream: int) -> None:
        """Say a message; what cannot be said any more is dropped: why, the stream has heard."""
        with self.lock:
            if self.error is None and self.session.is_open(stream):
                self.session.send(message, stream)
        self._say()

    def say_content(self, stream: int, content: bytes, compressed: bool) -> None:
        """Say one DATA frame. As `say`."""
        with self.lock:
            if self.error is None and self.session.is_open(stream):
                self.session.data_header(stream, len(content), compressed=compressed)
                self._queue(self.session.take())
                self._queue(content)
        self._say()

    def consumed(self, stream: int, count: int) -> None:
        """Content was dealt with."""
        with self.lock:
            self.session.consumed(stream, count)
        self._say()

    def drop(self, stream: int) -> bool:
        """End a stream; whether it had not ended."""
        with self.lock:
            was_open = self._receivers.pop(stream, None) is not None
            if was_open and self.error is None:
                self.session.reset(stream)
        self._say()
        return was_open

    def give_back(self, places: int, dropped: int = 0) -> None:
        """Operations are over, so many of them by `drop`, which the server may still be at work for."""
        with self.lock:
            self.places += places - dropped
        self.reactor.callFromThread(self._settle)
        if dropped:
            self.reactor.callFromThread(self._cool, dropped)

    def _cool(self, places: int) -> None:
        if not self.gone.called:
            self.dropped_at = self.reactor.seconds()
            key = f"cooling {next(self._numbers)}"
            self._timers[key] = self.reactor.callLater(_COOLING, self._cooled, key, places)

    def _cooled(self, key: str, places: int) -> None:
        del self._timers[key]
        self.give_back(places)

    def _check(self) -> None:
        if self.error is not None:
            raise copy.copy(self.error)

    def _queue(self, data: bytes) -> None:
        if data:
            self._outgoing.append(data)
            self.unsent += len(data)

    def _say(self) -> None:
        """Have what is to be said leave."""
        with self.lock:
            # What the session says by itself has bounds only as long as it is not taken.
            if self.error is None and not self._is_full:
                self._queue(self.session.take())
            if not self._outgoing or self._is_full or self._is_scheduled:
                return
            is_here = threading.get_ident() == self._thread
            self._is_scheduled = not is_here
        if is_here:
            self._flush()
        else:
            self.reactor.callFromThread(self._flush)


def _why(reason: Failure) -> Exception:
    """What the end of a connection means to who used it."""
    error = reason.value
    if isinstance(error, SSL.Error):
        words = "; ".join(str(one[-1]) for one in error.args[0]) if error.args else ""
        if "certificate verify failed" in words:
            return AuthenticationError(f"the server's certificate: {words}")
        return ConnectionError(f"no TLS with this server: {words or 'it was broken off'}")
    if reason.check(protocol.connectionDone.type):
        return PeerGone("the server closed the connection")
    return PeerGone(f"the connection broke: {error}")
