"""One operation on a connection: what is said on its stream, and how it ends."""

from __future__ import annotations

from typing import TypeVar

from fileexport.client.answers import NotBegun, error_of, error_of_reset
from fileexport.client.connection import Connection, Wait
from fileexport.errors import CorruptedResponse
from fileexport.wire import messages as m
from fileexport.wire.frames import Data

Replied = TypeVar("Replied", bound=m.Message)


class Operation:
    """One stream on a connection: what is said on it, and how it ends.

    `path` is what exceptions name. `is_over` once the server has ended the stream.
    """

    def __init__(self, connection: Connection, asked: m.Open, wait: Wait, path: str | None = None) -> None:
        self.connection = connection
        self.session = connection.session
        self.wait = wait
        self.is_over = False
        self._path = connection.path = path
        self._first: Data | m.Message | None = None
        #: Bytes of FILES that the caller has in hand.
        self._owed = 0
        self.stream = self.session.open(asked)
        connection.flush(wait)

    def peek(self) -> None:
        """Wait for the first answer, which `next` gives then. Raises as `next` does."""
        self._first = self.next()

    def next(self) -> Data | m.Message:
        """The next piece of content, reply or END; MoreCredit too, where it is for this stream or for all.

        Raises what the server ended the stream with; `NotBegun` where it went away before.
        """
        if self._first is not None:
            first, self._first = self._first, None
            return first
        self.session.consumed(self.stream, self._owed)
        self._owed = 0
        while True:
            found = self.connection.event(self.wait)
            if isinstance(found, Data):
                if found.stream == self.stream:
                    self.wait.begin()
                    return found
            elif isinstance(found.message, m.MoreCredit):
                return found.message
            elif isinstance(found.message, m.GoAway):
                self._leaving(found.message)
            elif found.stream == self.stream:
                self._owed = found.size
                return self._heard(found.message)

    def answer(self) -> Data | m.Message:
        """As `next`, without MoreCredit."""
        while isinstance(found := self.next(), m.MoreCredit):
            pass
        return found

    def reply(self, kind: type[Replied]) -> Replied:
        """The next answer, which must be of `kind`."""
        found = self.answer()
        if not isinstance(found, kind):
            raise CorruptedResponse(f"an answer of another kind: {type(found).__name__}")
        return found

    def content(self) -> Data | m.End:
        """The next piece of content, or END."""
        found = self.answer()
        if not isinstance(found, Data | m.End):
            raise CorruptedResponse(f"an answer of another kind: {type(found).__name__}")
        return found

    def batch(self, kind: type[Replied]) -> Replied | None:
        """The next answer, which must be of `kind`; None at END."""
        found = self.answer()
        if isinstance(found, m.End):
            return None
        if not isinstance(found, kind):
            raise CorruptedResponse(f"an answer of another kind: {type(found).__name__}")
        return found

    def end(self) -> m.End:
        """The server's END, with nothing before it."""
        return self.reply(m.End)

    def _heard(self, message: m.Message) -> m.Message:
        if isinstance(message, m.Reset):
            self.is_over = True
            raise error_of_reset(message, self._path)
        self.is_over = isinstance(message, m.End)
        self.wait.begin()
        return message

    def _leaving(self, goodbye: m.GoAway) -> None:
        self.connection.is_leaving = True
        if goodbye.last_stream < self.stream:
            raise NotBegun("the server is stopping")
        if goodbye.code:
            raise error_of(goodbye.code, goodbye.message, self._path)

    def say(self, message: m.Message) -> None:
        """Send a message on this stream. Raises as `Session.send` does, and as writing."""
        self.session.send(message, self.stream)
        self.wait.begin()
        self.connection.flush(self.wait)

    def consumed(self, count: int) -> None:
        """Content was dealt with: more may come for it."""
        self.session.consumed(self.stream, count)

    def room(self, least: int = 1) -> int:
        """Wait until `least` bytes of content may be sent; returns how many may. Raises as `next` does.

        0 where an answer has come that is no credit: it is the next that `next` gives.
        """
        self.connection.absorb()
        while (credit := self.session.credit(self.stream)) < least:
            found = self.next()
            if not isinstance(found, m.MoreCredit):
                self._first = found
                return 0
        return credit

    def has_news(self) -> bool:
        """Whether an answer is there already."""
        self.connection.absorb()
        return self._first is not None or self.connection.has_events

    def cancel(self) -> None:
        """End the stream by ourselves: the server throws away what it has of it."""
        self.session.reset(self.stream)
        self.connection.flush(self.wait)
        self.is_over = True
