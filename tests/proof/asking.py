"""A client that believes nothing: it tells a complete answer from one that was cut, as strictly as can be."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Mapping
from email import message_from_bytes
from email.message import Message
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from socket import create_connection, socket
from typing import NamedTuple

from tests.proof.commands import run
from tests.proof.daemon import PATIENCE

_PIECE = 256 << 10


class Incomplete(Exception):
    """An answer that its own framing shows to be cut."""


class Answer(NamedTuple):
    """A complete answer."""

    status: int
    fields: Message
    body: bytes


def request(target: str, method: str = "GET", fields: Mapping[str, str] | None = None) -> bytes:
    """A request without a body; with a Host, unless `fields` have one."""
    lines = "".join(
        f"{name}: {value}\r\n" for name, value in ({"Host": "localhost"} | dict(fields or {})).items()
    )
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def ask(
    port: int,
    target: str,
    method: str = "GET",
    fields: Mapping[str, str] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """The answer to one request on a connection of its own, read to the connection's end.

    Raises `Incomplete` and `OSError`, also where nothing comes for `PATIENCE` seconds.
    """
    with create_connection(("127.0.0.1", port), PATIENCE) as plain:
        end = plain if tls is None else tls.wrap_socket(plain, server_hostname="localhost")
        with end:
            end.sendall(request(target, method, {"Connection": "close", **(fields or {})}))
            return parse(everything(end), head=method == "HEAD")


def everything(end: socket) -> bytes:
    """All that comes until the other side closes."""
    pieces = []
    while piece := end.recv(_PIECE):
        pieces.append(piece)
    return b"".join(pieces)


def parse(data: bytes, *, head: bool = False) -> Answer:
    """One answer, which must be all of `data`. Raises `Incomplete`."""
    top, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        raise Incomplete("there is no whole head")
    line, _, lines = top.partition(b"\r\n")
    status, fields = int(line.split(b" ")[1]), message_from_bytes(lines + b"\r\n\r\n")
    if head or status in (204, 304):
        body = b""
    elif fields["Transfer-Encoding"] == "chunked":
        body = _chunks(rest)
    else:
        body = rest
        # Without a length an answer would end with its connection: we never send such to HTTP/1.1.
        if len(body) != int(fields["Content-Length"]):
            raise Incomplete(f"{len(body)} bytes of {fields['Content-Length']}")
    return Answer(status, fields, body)


def _chunks(rest: bytes) -> bytes:
    body: list[bytes] = []
    at = 0
    while True:
        line_end = rest.find(b"\r\n", at)
        if line_end < 0:
            raise Incomplete("a chunk's size is cut")
        size = int(rest[at:line_end], 16)
        at = line_end + 2 + size + 2
        if rest[at - 2 : at] != b"\r\n":
            raise Incomplete("a chunk is cut")
        if size == 0:
            return b"".join(body)
        body.append(rest[line_end + 2 : at - 2])


class Kept:
    """A client that keeps its connection, as real ones do; for many requests, one after the other."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> None:
        self._connection = (
            HTTPConnection("127.0.0.1", port, PATIENCE, (source, 0))
            if tls is None
            else HTTPSConnection("localhost", port, timeout=PATIENCE, context=tls)
        )

    def ask(self, target: str, method: str = "GET", fields: Mapping[str, str] | None = None) -> Answer:
        """The answer. Raises `OSError` and `http.client.HTTPException`."""
        response = self.begin(target, method, fields)
        return Answer(response.status, response.msg, response.read())

    def begin(
        self, target: str, method: str = "GET", fields: Mapping[str, str] | None = None
    ) -> HTTPResponse:
        """The answer, with its body still to be read."""
        self._connection.request(method, target, headers=dict(fields or {}))
        return self._connection.getresponse()

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def any_certificate() -> ssl.SSLContext:
    """TLS that trusts everybody, for servers of our own."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def curl(*words: str | Path, patience: float = PATIENCE) -> subprocess.CompletedProcess[bytes]:
    """Run curl to its end; with an exit status beside 0 where the download is not complete."""
    return run("curl", "--disable", "--noproxy", "*", "-sS", *words, patience=patience)
