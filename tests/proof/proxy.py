"""What the TCP proxies of the proofs share: how they start, take connections, break and end them."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import suppress
from enum import Enum
from typing import Any, Self

from tests.proof.daemon import PATIENCE

#: SO_LINGER with no time: closing sends RST.
_NO_LINGER = struct.pack("ii", 1, 0)


class Way(Enum):
    """A direction of the bytes."""

    UP = "to the server"
    DOWN = "to the client"


class Broken(Exception):
    """The connection is to be broken: both ends get RST."""


Pass = Callable[[Way, socket.socket, socket.socket], Coroutine[Any, Any, None]]


class Proxy(ABC):
    """Passes TCP connections on to `port` of 127.0.0.1.

    `with` starts it, on a `port` of its own; on leaving the block all its connections are broken.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
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
            self._begin(self._serve(client))

    @abstractmethod
    async def _serve(self, client: socket.socket) -> None:
        """Carry one connection to its end, by `_join`; they begin in the order in which they came."""

    async def _join(self, client: socket.socket, passing: Pass) -> None:
        """Connect to the server, and carry both ways by `passing` until both have ended."""
        server = socket.socket()
        server.setblocking(False)
        try:
            await self._loop.sock_connect(server, ("127.0.0.1", self._target))
            up = self._loop.create_task(passing(Way.UP, client, server))
            down = self._loop.create_task(passing(Way.DOWN, server, client))
            try:
                await asyncio.gather(up, down)
            finally:
                for task in (up, down):
                    task.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        except (Broken, OSError, asyncio.CancelledError):
            for end in (client, server):
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        finally:
            client.close()
            server.close()


def finish(target: socket.socket) -> None:
    """Tell one end that nothing more comes."""
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
