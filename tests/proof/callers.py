"""A receiver of callbacks that remembers all it got, and a client that asks for jobs."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.proof.daemon import PATIENCE


class Call(NamedTuple):
    """A callback that came in; the names of its fields are in lower case."""

    method: str
    target: str
    fields: Mapping[str, str]
    body: bytes


class Receiver:
    """Listens on an address of this machine for as long as its `with` block lasts."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.calls: list[Call] = []
        #: Connections that came in, whatever they said.
        self.connections = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                fields = {name.lower(): value for name, value in self.headers.items()}
                call = Call(self.command, self.path, fields, self.rfile.read(length))
                receiver.calls.append(call)
                self.send_response(200)
                self.send_header("Content-Length", "10")
                self.end_headers()
                self.wfile.write(b"thank you\n")

            do_POST = do_GET

            def setup(self) -> None:
                receiver.connections += 1
                super().setup()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Receiver:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


class Reply(NamedTuple):
    """A status and what its JSON says."""

    status: int
    value: Any


def say(
    url: str,
    method: str,
    target: str,
    order: object = None,
    fields: Mapping[str, str] | None = None,
    *,
    source: str = "127.0.0.1",
) -> Reply:
    """One request, with an order as JSON. Raises `OSError` and `http.client.HTTPException`."""
    connection = HTTPConnection("127.0.0.1", urlsplit(url).port, PATIENCE + 60, (source, 0))
    try:
        body = None if order is None else json.dumps(order)
        kind = {} if order is None else {"Content-Type": "application/json"}
        connection.request(method, target, body, {"Accept": "application/json", **kind, **(fields or {})})
        response = connection.getresponse()
        text = response.read()
        return Reply(response.status, json.loads(text) if b"json" in _kind(response) else text.decode())
    finally:
        connection.close()


def _kind(response: Any) -> bytes:
    return str(response.headers.get("Content-Type")).encode()


def own_address() -> str | None:
    """An address of this machine that is not loopback; None where there is none. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        host = str(probe.getsockname()[0])
    return None if host.startswith("127.") or host == "0.0.0.0" else host
