"""For tests of the embedded server: a root, servers of it, and what reaches them."""

from __future__ import annotations

import http.client
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from fileexport import Client, Server, generate_keys, generate_token
from tests.threads_case import ThreadsCase

TOKEN = generate_token()
PIN, KEY = generate_keys()
#: Milliseconds after which a client gives up; no time is asserted.
PATIENCE = 30_000


def environment() -> dict[str, str]:
    """This process's, in which the package is found from every directory."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@implementer(ILogObserver)
class Watcher:
    """Watches the log."""

    def __init__(self, act: Callable[[LogEvent], object]) -> None:
        self._act = act

    def __call__(self, event: LogEvent) -> None:
        self._act(event)


class ServerCase(ThreadsCase):
    """Has a root with a file, and a place of its own for temporary files."""

    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()
        self.root = self.base / "root"
        self.root.mkdir(parents=True)
        (self.root / "hello.txt").write_text("hello\n")
        self.temporary = self.base / "temporary"
        self.temporary.mkdir()
        self.patch(tempfile, "tempdir", str(self.temporary))
        self.lines: list[str] = []
        self.watch(lambda event: self.lines.append(formatEvent(event)))

    def watch(self, act: Callable[[LogEvent], object]) -> None:
        """Call this with each event of the log, in the thread that logs it."""
        observer = Watcher(act)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def server(self, private_key: str | None = None, **given: Any) -> Server:
        """A server of the root, which is stopped when the test is over."""
        server = Server(self.root, TOKEN, private_key, **given)
        self.addCleanup(self.end, server)
        return server

    def end(self, server: Server) -> None:
        if server.is_running:
            server.terminate()
        server.join()

    def client(self, server: Server, *, pin: str | None = None, token: str = TOKEN) -> Client:
        client = Client("127.0.0.1", server.port, token, public_key=pin, timeout=PATIENCE)
        self.addCleanup(client.close)
        return client

    def get(self, server: Server, target: str, token: str | None = TOKEN) -> tuple[int, bytes]:
        """Status and body that the HTTP side answers, in plain text."""
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        try:
            connection.request("GET", target, headers={"Authorization": f"Bearer {token}"} if token else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def refused(self, function: Callable[..., object], *args: object, **given: Any) -> str:
        """The one sentence of the RuntimeError that it raises."""
        sentence = str(self.assertRaises(RuntimeError, function, *args, **given))
        self.assertEqual(len(sentence.splitlines()), 1, sentence)
        self.assertNotIn("--", sentence)
        return sentence

    def wait_for(self, condition: Callable[[], object], runner: threading.Thread) -> None:
        """Wait until the condition holds, which `runner` sees to."""
        while not condition():
            self.assertTrue(runner.is_alive())
            runner.join(0.001)

    def bound(self, family: int = socket.AF_INET, *, listens: bool = True) -> socket.socket:
        """A socket of the application's own."""
        made = socket.socket(family)
        self.addCleanup(made.close)
        # A UNIX socket's name may have 107 bytes, and the test's own directory may lie deep.
        made.bind(("127.0.0.1", 0) if family == socket.AF_INET else os.path.relpath(self.base / "socket"))
        if listens:
            made.listen()
        return made
