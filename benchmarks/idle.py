"""Connections that ask once and stay: what they cost a server, and how many it keeps."""

from __future__ import annotations

import resource
import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from benchmarks import Missing
from benchmarks.processes import Server

#: Connections from one address: ours takes no more than 1024 from each.
_FROM_ONE = 1000
#: Connections before the first look at the memory: what a server needs once is not counted.
_WARM = 50
#: Seconds for one answer, seconds that the connections are left alone, and for the process to settle.
_ANSWER_TIME = 10.0
_REST = 3.0
_SETTLE = 0.5


def hold(server: Server, port: int, path: str, count: int) -> Sequence[float]:
    """Open `count` connections and leave them alone: kB of the server for each, and how many it keeps.

    Raises `Missing` where it takes less than half of them.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode("ascii")
    with ExitStack() as warm:
        _open(warm, port, request, _WARM)
    time.sleep(_SETTLE)
    before = server.memory()
    with ExitStack() as stack:
        sockets = _open(stack, port, request, count)
        time.sleep(_SETTLE)
        grown = server.memory() - before
        time.sleep(_REST)
        kept = len(sockets) - _ended(sockets)
    if kept < count / 2:
        raise Missing(f"it kept {kept} of {count} connections")
    return grown / 1000 / len(sockets), kept


def _open(stack: ExitStack, port: int, request: bytes, count: int) -> list[socket.socket]:
    """Connections that had their answer; fewer where the server takes no more."""
    made: list[socket.socket] = []
    with suppress(OSError):
        for number in range(count):
            client = stack.enter_context(socket.socket())
            client.settimeout(_ANSWER_TIME)
            client.bind((f"127.0.0.{2 + number // _FROM_ONE}", 0))
            client.connect(("127.0.0.1", port))
            client.sendall(request)
            _read_answer(client)
            made.append(client)
    return made


def _read_answer(client: socket.socket) -> None:
    """Read one answer with a Content-Length. Raises `ConnectionError` where it ends before."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _receive(client)
    fields = dict(line.lower().split(b":", 1) for line in data[:end].split(b"\r\n")[1:])
    missing = end + 4 + int(fields[b"content-length"]) - len(data)
    while missing > 0:
        missing -= len(_receive(client))


def _receive(client: socket.socket) -> bytes:
    data = client.recv(65536)
    if not data:
        raise ConnectionError
    return data


def _ended(sockets: list[socket.socket]) -> int:
    """How many the server has closed: nothing else can be read from them."""
    poll = select.poll()
    for client in sockets:
        poll.register(client, select.POLLIN)
    return len(poll.poll(0))


def allow_descriptors(count: int) -> None:
    """Raise the soft limit of open files, for us and the servers that we start, as far as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
