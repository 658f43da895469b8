"""A TCP proxy that misbehaves on purpose: it delays, trickles, repeats, swallows and cuts what passes.

Each of its faults is one of the network's, at a byte that the test names, so that it is found again.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tests.proof.daemon import PATIENCE

#: Bytes read at a time, and bytes that are passed twice.
_PIECE = 64 << 10
_TWICE = 64
#: SO_LINGER with no time: closing sends RST.
_NO_LINGER = struct.pack("ii", 1, 0)


class Way(Enum):
    """A direction of the bytes."""

    UP = "to the server"
    DOWN = "to the client"


class Kind(Enum):
    """What goes wrong."""

    RESET = "both ends get RST"
    FIN = "both ends get FIN, as from a proxy that was stopped"
    HALF_CLOSE = "only the receiver gets FIN, and the other way goes on"
    BLACK_HOLE = "nothing is passed any more, and no end is told"
    DUPLICATE = "some bytes are passed twice"
    DELAY = "each further piece waits"
    TRICKLE = "each further byte comes alone, and waits"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, in which direction, when exactly `at` bytes have passed in it; and seconds to wait."""

    kind: Kind
    way: Way = Way.DOWN
    at: int = 0
    seconds: float = 0.0


class _Reset(Exception):
    """The connection is to be broken."""


class BadProxy:
    """Passes TCP connections on to `port` of 127.0.0.1, with these faults, one for a way at most.

    `with` starts it, on a `port` of its own; on leaving the block all its connections are broken. What has
    passed is kept where `record` says so: `passed`.
    """

    def __init__(self, port: int, *faults: Fault, record: bool = False) -> None:
        self._target = port
        self._faults = {fault.way: fault for fault in faults}
        self._record = record
        self._passed: dict[Way, list[bytes]] = {way: [] for way in Way}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> BadProxy:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listening.setblocking(False)
        self.port = int(self._listening.getsockname()[1])
        self._thread.start()
        self._loop.call_soon_threadsafe(self._begin, self._accept())
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
        self._listening.close()

    def passed(self, way: Way) -> bytes:
        """Every byte that was passed on so far, of all connections together."""
        return b"".join(self._passed[way])

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
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
            self._begin(self._connect(client))

    async def _connect(self, client: socket.socket) -> None:
        server = socket.socket()
        server.setblocking(False)
        try:
            await self._loop.sock_connect(server, ("127.0.0.1", self._target))
            up = self._loop.create_task(self._pass(Way.UP, client, server))
            down = self._loop.create_task(self._pass(Way.DOWN, server, client))
            try:
                await asyncio.gather(up, down)
            finally:
                for task in (up, down):
                    task.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        except (_Reset, OSError, asyncio.CancelledError):
            for end in (client, server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        finally:
            client.close()
            server.close()

    async def _pass(self, way: Way, source: socket.socket, target: socket.socket) -> None:
        """Pass the bytes of one direction until its end, which is passed too."""
        fault = self._faults.get(way)
        count = 0
        while True:
            left = _PIECE
            if fault is not None and count < fault.at:
                left = min(left, fault.at - count)
            elif fault is not None:
                if count == fault.at and fault.kind in _CUTS:
                    return await _CUTS[fault.kind](source, target)
                left = 1 if fault.kind is Kind.TRICKLE else left
                await asyncio.sleep(fault.seconds)
            piece = await self._loop.sock_recv(source, left)
            if not piece:
                break
            if fault is not None and fault.kind is Kind.DUPLICATE and count == fault.at:
                piece = piece[:_TWICE] + piece
            await self._send(way, target, piece)
            count += len(piece)
        _finish(target)

    async def _send(self, way: Way, target: socket.socket, piece: bytes) -> None:
        if self._record:
            self._passed[way].append(piece)
        await self._loop.sock_sendall(target, piece)


async def _reset(source: socket.socket, target: socket.socket) -> None:
    raise _Reset


async def _fin(source: socket.socket, target: socket.socket) -> None:
    _finish(source)
    await _half_close(source, target)


async def _half_close(source: socket.socket, target: socket.socket) -> None:
    _finish(target)
    # Closing with bytes unread would send RST.
    while await asyncio.get_running_loop().sock_recv(source, _PIECE):
        pass


async def _black_hole(source: socket.socket, target: socket.socket) -> None:
    await asyncio.Event().wait()


_CUTS: dict[Kind, Callable[[socket.socket, socket.socket], Coroutine[Any, Any, None]]] = {
    Kind.RESET: _reset,
    Kind.FIN: _fin,
    Kind.HALF_CLOSE: _half_close,
    Kind.BLACK_HOLE: _black_hole,
}


def _finish(target: socket.socket) -> None:
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
