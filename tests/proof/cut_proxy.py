"""A TCP proxy that cuts connections at chosen bytes and counts what passes on each of them.

Unlike `bad_proxy` it cuts some connections and lets later ones pass, so that a client can come again; and
what had passed before a cut has reached the other side: what is sent again is then the sender's fault.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

from tests.proof.proxy import Broken, Proxy, Way, finish

_PIECE = 256 << 10


class How(Enum):
    """How a connection is cut."""

    RST = "both ends get RST"
    FIN = "both ends get FIN"
    STALL = "nothing is passed any more; when one end closes, the other gets RST"


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut a connection when exactly `at` bytes have passed this way."""

    way: Way
    at: int
    how: How = How.FIN


@dataclass(slots=True)
class Connection:
    """What passed on one connection: bytes each way, and the bytes themselves where they are recorded."""

    passed: dict[Way, int] = field(default_factory=lambda: dict.fromkeys(Way, 0))
    recorded: dict[Way, bytearray] = field(default_factory=lambda: {way: bytearray() for way in Way})
    was_cut: bool = False
    has_ended: bool = False


class CutProxy(Proxy):
    """Passes TCP connections on to `port` of 127.0.0.1; each of `cuts` hits one connection, in their order.

    `with` starts it, on a `port` of its own; on leaving the block all its connections are broken.
    """

    def __init__(self, port: int, cuts: Iterable[Cut] = (), *, record: bool = False) -> None:
        super().__init__(port)
        self._cuts = list(cuts)
        self._record = record
        #: All connections there were, the first one first.
        self.connections: list[Connection] = []

    def passed(self, way: Way, first: int = 0) -> int:
        """Bytes that passed this way, of all connections from number `first` on."""
        return sum(one.passed[way] for one in self.connections[first:])

    def recorded(self, way: Way | None = None) -> bytes:
        """What passed this way, or both ways, of one connection after the other."""
        ways = Way if way is None else (way,)
        return b"".join(bytes(one.recorded[one_way]) for one in self.connections for one_way in ways)

    async def _serve(self, client: socket.socket) -> None:
        one = Connection()
        self.connections.append(one)
        cut = self._cuts.pop(0) if self._cuts else None
        try:
            await self._join(client, partial(self._pass, one, cut))
        finally:
            one.has_ended = True

    async def _pass(
        self, one: Connection, cut: Cut | None, way: Way, source: socket.socket, target: socket.socket
    ) -> None:
        """Pass the bytes of one direction until its end, which is passed too, or until the cut."""
        at = cut.at if cut is not None and cut.way is way else None
        while True:
            left = _PIECE if at is None or one.was_cut else min(_PIECE, at - one.passed[way])
            if not left:
                one.was_cut = True
                assert cut is not None
                await _CUTS[cut.how](source, target)
                continue
            piece = await self._loop.sock_recv(source, left)
            if not piece and one.was_cut:
                assert cut is not None
                if cut.how is How.FIN and cut.way is way:
                    # The sender has left. The receiver may still read what had passed: no RST before it goes.
                    return
                raise Broken
            if not piece:
                break
            # After a cut what still comes is dropped: were it left unread, RST would overtake a FIN.
            if one.was_cut:
                continue
            await self._loop.sock_sendall(target, piece)
            one.passed[way] += len(piece)
            if self._record:
                one.recorded[way] += piece
        finish(target)


async def _reset(source: socket.socket, target: socket.socket) -> None:
    # RST throws away what was not sent yet.
    while _unsent(target):
        await asyncio.sleep(0.001)
    raise Broken


async def _finish(source: socket.socket, target: socket.socket) -> None:
    for end in (target, source):
        finish(end)


async def _stall(source: socket.socket, target: socket.socket) -> None:
    """The rest is dropped, as after every cut."""


_CUTS: dict[How, Callable[[socket.socket, socket.socket], Coroutine[Any, Any, None]]] = {
    How.RST: _reset,
    How.FIN: _finish,
    How.STALL: _stall,
}


def _unsent(end: socket.socket) -> int:
    """Bytes that were written and that the other side's kernel does not have yet."""
    found = bytearray(4)
    fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, found)
    return int.from_bytes(found, sys.byteorder)
