"""One operation on a connection: what is said on its stream, and how it ends."""

from __future__ import annotations

from typing import Protocol, TypeVar

from fileexport.client.answers import judged, of_kind
from fileexport.client.connection import Wait
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import Event, Received, State

Replied = TypeVar("Replied", bound=m.Message)


class Streams(Protocol):
    """What an operation asks of a session."""

    @property
    def peer(self) -> m.Hello | None: ...
    @property
    def features(self) -> frozenset[str]: ...
    @property
    def state(self) -> State: ...
    @property
    def streams(self) -> int: ...
    def open(self, operation: m.Open) -> int: ...
    def send(self, message: m.Message, stream: int = 0) -> None: ...
    def credit(self, stream: int) -> int: ...
    def consumed(self, stream: int, count: int) -> None: ...
    def reset(self, stream: int) -> None: ...
    def is_open(self, stream: int) -> bool: ...


class Line(Protocol):
    """What carries an operation: a connection, or a part of one that others use too."""

    is_sound: bool
    is_leaving: bool
    generation: int
    path: str | None

    @property
    def session(self) -> Streams: ...
    @property
    def can_send_file(self) -> bool: ...
    @property
    def is_ours(self) -> bool: ...
    @property
    def has_events(self) -> bool: ...
    def event(self, wait: Wait) -> Event: ...
    def absorb(self) -> None: ...
    def flush(self, wait: Wait) -> None: ...
    def send_content(
        self, stream: int, content: bytes | memoryview, wait: Wait, compressed: bool = False
    ) -> None: ...
    def send_file(self, stream: int, descriptor: int, offset: int, size: int, wait: Wait) -> bool: ...
    def has_died(self) -> bool: ...
    def close(self) -> None: ...
    def forget(self) -> None: ...


class Operation:
    """One stream on a connection: what is said on it, and how it ends.

    Its time-out runs from when an answer is asked for: what the caller does between two of them takes none.
    `path` is what exceptions name. `is_over` once the server has ended the stream.
    """

    def __init__(self, connection: Line, asked: m.Open, wait: Wait, path: str | None = None) -> None:
        self.connection = connection
        self.session = connection.session
        self.wait = wait
        self.is_over = False
        self._path = connection.path = wait.path = path
        self._first: Data | m.Message | None = None
        #: Bytes of FILES that the caller has in hand.
        self._owed = 0
        self.stream = self.session.open(asked)
        connection.flush(wait)

    def peek(self) -> None:
        """Wait for the first answer, which `answer` gives then. Raises as `answer` does."""
        self._first = self.answer()

    def answer(self) -> Data | m.Message:
        """The next piece of content, reply or END.

        Raises what the server ended the stream with; `NotBegun` where it went away before.
        """
        self.wait.begin()
        while isinstance(found := self._next(), m.MoreCredit):
            pass
        return found

    def _next(self) -> Data | m.Message:
        """As `answer`, MoreCredit too. It does not begin the wait: credit without end is no answer."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        self.session.consumed(self.stream, self._owed)
        self._owed = 0
        while (found := self._heard(self.connection.event(self.wait))) is None:
            pass
        return found

    def reply(self, kind: type[Replied]) -> Replied:
        """The next answer, which must be of `kind`."""
        return of_kind(self.answer(), kind)

    def content(self) -> Data | m.End:
        """The next piece of content, or END."""
        found = self.answer()
        return found if isinstance(found, m.End) else of_kind(found, Data)

    def batch(self, kind: type[Replied]) -> Replied | None:
        """The next answer, which must be of `kind`; None at END."""
        found = self.answer()
        return None if isinstance(found, m.End) else of_kind(found, kind)

    def end(self) -> m.End:
        """The server's END, with nothing before it."""
        return self.reply(m.End)

    def _heard(self, event: Event) -> Data | m.Message | None:
        """What an event says to this operation; None where that is nothing."""
        if isinstance(event, Received):
            self.connection.is_leaving |= isinstance(event.message, m.GoAway)
            if event.stream == self.stream:
                self.is_over |= isinstance(event.message, m.Reset | m.End)
                self._owed += event.size
        return judged(event, self.stream, self._path)

    def say(self, message: m.Message) -> None:
        """Send a message on this stream. Raises as writing does, and why the server has ended the stream."""
        self.wait.begin()
        while not self.session.is_open(self.stream):
            # That it has was read while something was written, and is to be heard yet.
            self._next()
        self.session.send(message, self.stream)
        self.connection.flush(self.wait)

    def consumed(self, count: int) -> None:
        """Content was dealt with: more may come for it."""
        self.session.consumed(self.stream, count)

    def room(self, least: int = 1) -> int:
        """Wait until `least` bytes of content may be sent; returns how many may. Raises as `answer` does.

        0 where an answer has come: it is the next that `answer` gives.
        """
        self.connection.absorb()
        self.wait.begin()
        while (credit := self.session.credit(self.stream)) < least:
            found = self._next()
            if not isinstance(found, m.MoreCredit):
                self._first = found
                return 0
        return credit

    def has_news(self) -> bool:
        """Whether an answer is there already. Raises as `answer` does."""
        self.connection.absorb()
        while self._first is None and self.connection.has_events:
            self._first = self._heard(self.connection.event(self.wait))
        return self._first is not None

    def cancel(self) -> None:
        """End the stream by ourselves: the server throws away what it has of it."""
        self.session.reset(self.stream)
        self.wait.begin()
        self.connection.flush(self.wait)
        self.is_over = True
