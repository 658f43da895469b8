"""Names and receivers for the tests of callbacks, in memory or on a socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from fileexport.errors import OverloadedError

P = ParamSpec("P")
T = TypeVar("T")


class Names:
    """A worker whose `socket.getaddrinfo` answers from a table.

    A name with no addresses in the table is not known; one that is not in the table is not answered until
    `answer`. `asked` are all that were looked up; while it `refuses`, nothing is.
    """

    def __init__(self, **table: Sequence[str]) -> None:
        self.table = table
        self.asked: list[str] = []
        self.refuses = False
        self._open: list[Deferred[Any]] = []

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        if function is not socket.getaddrinfo or kwargs != {"type": socket.SOCK_STREAM}:
            raise AssertionError(f"{function} was called with {args} and {kwargs}")
        if self.refuses:
            return fail(OverloadedError())
        name = str(args[0])
        self.asked.append(name)
        looking: Deferred[Any] = Deferred()
        self._open.append(looking)
        if name in self.table:
            self.answer(*self.table[name])
        return looking

    def answer(self, *addresses: str) -> None:
        """Answer the oldest open question."""
        looking = self._open.pop(0)
        if not addresses:
            looking.errback(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
            return
        looking.callback([_place(text) for text in addresses])


def _place(text: str) -> tuple[object, ...]:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    place = (text, 0, 0, 0) if family is socket.AF_INET6 else (text, 0)
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place


class Receiver(Protocol):
    """The other side: keeps what it was sent, and answers with the pieces that it was given."""

    def __init__(self, *pieces: bytes, close: bool = False) -> None:
        self.pieces = pieces
        self.close = close
        self.request = b""
        self.lost = 0

    def dataReceived(self, data: bytes) -> None:
        answered = b"\r\n\r\n" in self.request
        self.request += data
        if b"\r\n\r\n" in self.request and not answered:
            for piece in self.pieces:
                self.say(piece)
            if self.close:
                self.hang_up()

    def say(self, data: bytes) -> None:
        """Send something."""
        assert self.transport is not None
        self.transport.write(data)

    def hang_up(self) -> None:
        """Close the connection."""
        assert self.transport is not None
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost += 1
