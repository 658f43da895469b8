"""A proxy between a command and its daemon that counts what they say to each other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE = 1 << 20


class Counter:
    """Bytes that passed so far, both ways, of all connections."""

    def __init__(self) -> None:
        self.port = 0
        self.passed = 0
        self._lock = threading.Lock()

    def pump(self, source: socket.socket, target: socket.socket) -> None:
        """Pass one direction on until its end."""
        buffer = memoryview(bytearray(_PIECE))
        with suppress(OSError):
            while got := source.recv_into(buffer):
                target.sendall(buffer[:got])
                with self._lock:
                    self.passed += got
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def counted(port: int) -> Iterator[Counter]:
    """Pass connections to the counter's port on to `port` of 127.0.0.1 for the `with` block."""
    counter = Counter()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        counter.port = int(listening.getsockname()[1])
        ends: list[socket.socket] = []
        threading.Thread(target=_accept, args=(listening, port, counter, ends), daemon=True).start()
        try:
            yield counter
        finally:
            # Closing alone would not wake who waits in `accept`.
            listening.shutdown(socket.SHUT_RDWR)
            for end in ends:
                end.close()


def _accept(listening: socket.socket, port: int, counter: Counter, ends: list[socket.socket]) -> None:
    with suppress(OSError):
        while True:
            client, _ = listening.accept()
            server = socket.create_connection(("127.0.0.1", port))
            ends += client, server
            for pair in ((client, server), (server, client)):
                threading.Thread(target=counter.pump, args=pair, daemon=True).start()
