"""An `AsyncClient` on a reactor of its own, and a server on loopback, for tests that wait for both."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fileexport.client import chunks
from fileexport.client.deferred.client import AsyncClient
from fileexport.reactor_thread import ReactorThread
from fileexport.testing import serving
from tests import client_server
from tests.client_server import Script, ScriptedServer, ServerOptions

T = TypeVar("T")
#: The token of servers that carry out scripts.
SCRIPTED = client_server.TOKEN
TOKEN = "fex1_asynchronous-" + "x1Y2z3W4" * 5


def threads() -> int:
    """How many threads of a bridge there are."""
    return sum(one.name == "fileexport-bridge" for one in threading.enumerate())


class AsyncCase(SynchronousTestCase):
    """Has a root, a directory here, and a reactor in a thread, where `run` carries coroutines out."""

    def setUp(self) -> None:
        self.patch(chunks, "BACKOFF", (0.0,) * len(chunks.BACKOFF))
        self.root = self.directory("root")
        self.here = self.directory("here")
        self.thread = ReactorThread("test")
        self.thread.start()
        self.addCleanup(self.thread.stop)

    def directory(self, name: str) -> Path:
        """A new directory."""
        made = Path(self.mktemp()).absolute() / name
        made.mkdir(parents=True)
        return made

    def run_(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of a coroutine."""
        result: T = self.thread.call(lambda: Deferred.fromCoroutine(function()))
        return result

    def client(self, options: str = "", **more: Any) -> AsyncClient:
        """A client of a server of the root, whose token has these options."""
        server = self.enterContext(serving(self.root, tokens=f"{TOKEN} {options}\n"))
        return self.connected(server.port, TOKEN, **more)

    def scripted(self, *scripts: Script, options: ServerOptions | None = None, **more: Any) -> AsyncClient:
        """A client of a server that carries out these scripts."""
        self.server = ScriptedServer(*scripts, **(options or {}))
        self.addCleanup(self.server.close)
        return self.connected(self.server.port, SCRIPTED, **{"timeout": 20_000, **more})

    def connected(self, port: int, token: str, **more: Any) -> AsyncClient:
        """A client that is closed at the end."""
        client = AsyncClient("127.0.0.1", port, token, reactor=self.thread.reactor, **more)
        self.addCleanup(lambda: self.thread.call(client.close))
        return client


class BridgeCase(AsyncCase):
    """Has files to send."""

    def write(self, name: str, size: int) -> bytes:
        """A file here; its content."""
        content = os.urandom(size)
        (self.here / name).write_bytes(content)
        return content

    @property
    def there(self) -> set[str]:
        """What the server has."""
        return set(os.listdir(self.root)) - {".fileexport"}

    async def fails(self, call: Awaitable[object]) -> BaseException:
        """What it raises."""
        try:
            await call
        except BaseException as error:
            return error
        raise AssertionError("no error")
