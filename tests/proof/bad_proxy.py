"""A TCP proxy that misbehaves on purpose: it delays, trickles, repeats, swallows and cuts what passes.

Each of its faults is one of the network's, at a byte that the test names, so that it is found again.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tests.proof.proxy import Broken, Proxy, Way, finish

#: Bytes read at a time, and bytes that are passed twice.
_PIECE = 64 << 10
_TWICE = 64


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


class BadProxy(Proxy):
    """Passes TCP connections on to `port` of 127.0.0.1, with these faults, one for a way at most.

    `with` starts it, on a `port` of its own; on leaving the block all its connections are broken. What has
    passed is kept where `record` says so: `passed`.
    """

    def __init__(self, port: int, *faults: Fault, record: bool = False) -> None:
        super().__init__(port)
        self._faults = {fault.way: fault for fault in faults}
        self._record = record
        self._passed: dict[Way, list[bytes]] = {way: [] for way in Way}

    def passed(self, way: Way) -> bytes:
        """Every byte that was passed on so far, of all connections together."""
        return b"".join(self._passed[way])

    async def _serve(self, client: socket.socket) -> None:
        await self._join(client, self._pass)

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
        finish(target)

    async def _send(self, way: Way, target: socket.socket, piece: bytes) -> None:
        if self._record:
            self._passed[way].append(piece)
        await self._loop.sock_sendall(target, piece)


async def _reset(source: socket.socket, target: socket.socket) -> None:
    raise Broken


async def _fin(source: socket.socket, target: socket.socket) -> None:
    finish(source)
    await _half_close(source, target)


async def _half_close(source: socket.socket, target: socket.socket) -> None:
    finish(target)
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
