"""The case `start`: from the start of the process until it listens, and to its first answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import Case, Contender, Measure, Metric, Missing
from benchmarks.http_servers import surroundings, twistd
from benchmarks.processes import START_LIMIT, free_port, serving


def _answers(port: int) -> bool:
    """Whether an HTTP server answers on the port."""
    with socket.create_connection(("127.0.0.1", port), timeout=START_LIMIT) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return client.recv(5) == b"HTTP/"


def _starting(*service: str) -> Callable[[Path], AbstractContextManager[Measure]]:
    """Measure a service of twistd; `PORT` and `ROOT` are filled in."""

    @contextmanager
    def enter(directory: Path) -> Iterator[Measure]:
        def measure() -> Sequence[float]:
            port = free_port()
            words = [word.replace("PORT", str(port)).replace("ROOT", str(directory)) for word in service]
            with TemporaryDirectory() as home:
                begun = time.perf_counter()
                with serving([*twistd(), *words], Path(home), port, environ=surroundings(Path(home))):
                    listening = time.perf_counter()
                    if not _answers(port):
                        raise Missing("no HTTP answer")
                    return [(moment - begun) * 1000 for moment in (listening, time.perf_counter())]

        # What is compiled and cached at the first start stays.
        measure()
        yield measure

    return enter


def _nothing(directory: Path) -> str:
    return "from the start of the process: until it listens, and to an answered HTTP request"


START = Case(
    (Metric("listening", "ms", "lower"), Metric("answered", "ms", "lower")),
    (
        Contender(
            "fileexport",
            "",
            _starting("fileexport", "--root", "ROOT", "--http", "tcp:PORT:interface=127.0.0.1"),
        ),
        Contender(
            "twistd web",
            "twistd-web",
            _starting("web", "--path", "ROOT", "--listen", "tcp:PORT:interface=127.0.0.1"),
        ),
    ),
    _nothing,
)
