"""A TCP proxy that cuts connections at chosen bytes and counts what passes on each of them.

Unlike `bad_proxy` it cuts some connections and lets later ones pass, so that a client can come again; and
what had passed before a cut has reached the other side: what is sent again is then the sender's fault.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.proof.bad_proxy import Way
from tests.proof.daemon import PATIENCE

_PIECE = 256 << 10
#: SO_LINGER with no time: closing sends RST.
_NO_LINGER = struct.pack("ii", 1, 0)


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


class _Broken(Exception):
    """The connection is to be broken by RST."""


class CutProxy:
    """Passes TCP connections on to `port` of 127.0.0.1; each of `cuts` hits one connection, in their order.

    `with` starts it, on a `port` of its own; on leaving the block all its connections are broken.
    """

    def __init__(self, port: int, cuts: Iterable[Cut] = (), *, record: bool = False) -> None:
        self._target = port
        self._cuts = list(cuts)
        self._record = record
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        #: All connections there were, the first one first.
        self.connections: list[Connection] = []

    def __enter__(self) -> CutProxy:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listening.setblocking(False)
        self.port = int(self._listening.getsockname()[1])
        self._thread.start()
        self._loop.call_soon_threadsafe(self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
        self._listening.close()

    def passed(self, way: Way, first: int = 0) -> int:
        """Bytes that passed this way, of all connections from number `first` on."""
        return sum(one.passed[way] for one in self.connections[first:])

    def recorded(self, way: Way | None = None) -> bytes:
        """What passed this way, or both ways, of one connection after the other."""
        ways = Way if way is None else (way,)
        return b"".join(bytes(one.recorded[one_way]) for one in self.connections for one_way in ways)

    def _begin(self) -> None:
        self._add(self._loop.create_task(self._accept()))

    def _add(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self) -> None:
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listening)
            client.setblocking(False)
            one = Connection()
            self.connections.append(one)
            cut = self._cuts.pop(0) if self._cuts else None
            self._add(self._loop.create_task(self._serve(client, one, cut)))

    async def _serve(self, client: socket.socket, one: Connection, cut: Cut | None) -> None:
        server = socket.socket()
        server.setblocking(False)
        try:
            await self._loop.sock_connect(server, ("127.0.0.1", self._target))
            tasks = [
                self._loop.create_task(self._pass(Way.UP, client, server, one, cut)),
                self._loop.create_task(self._pass(Way.DOWN, server, client, one, cut)),
            ]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        except (_Broken, OSError, asyncio.CancelledError):
            for end in (client, server):
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        finally:
            client.close()
            server.close()
            one.has_ended = True

    async def _pass(
        self, way: Way, source: socket.socket, target: socket.socket, one: Connection, cut: Cut | None
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
                raise _Broken
            if not piece:
                break
            # After a cut what still comes is dropped: were it left unread, RST would overtake a FIN.
            if one.was_cut:
                continue
            await self._loop.sock_sendall(target, piece)
            one.passed[way] += len(piece)
            if self._record:
                one.recorded[way] += piece
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


async def _reset(source: socket.socket, target: socket.socket) -> None:
    # RST throws away what was not sent yet.
    while _unsent(target):
        await asyncio.sleep(0.001)
    raise _Broken


async def _finish(source: socket.socket, target: socket.socket) -> None:
    for end in (target, source):
        with suppress(OSError):
            end.shutdown(socket.SHUT_WR)


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
