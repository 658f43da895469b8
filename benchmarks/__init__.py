"""What is measured: each case is our command and its peers, run alternately by `python -m benchmarks`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Seconds after which a start has failed.
START_LIMIT = 30.0


class Missing(Exception):
    """A contender cannot run here; the text says why."""


@dataclass(frozen=True)
class Contender:
    """One side of a comparison: `measure` runs once in an empty directory; the case says its unit."""

    name: str
    measure: Callable[[Path], float]


@dataclass(frozen=True)
class Case:
    """A comparison: the first contender is ours, and every ratio is ours divided by the other's."""

    about: str
    unit: str
    contenders: tuple[Contender, ...]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _answers(port: int) -> bool:
    """Whether an HTTP server answers on the port; False while nothing listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=START_LIMIT) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return client.recv(5) == b"HTTP/"
    except ConnectionError:
        return False


def _start(*service: str) -> Callable[[Path], float]:
    """Measure milliseconds from the start of twistd to its first answer; `PORT` and `ROOT` are filled in."""

    def measure(root: Path) -> float:
        port = _free_port()
        words = [word.replace("PORT", str(port)).replace("ROOT", str(root)) for word in service]
        command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", *words]
        with tempfile.TemporaryFile() as output, tempfile.TemporaryDirectory() as state:
            begun = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=root, stdout=output, stderr=output, env={**os.environ, "XDG_STATE_HOME": state}
            )
            try:
                while not _answers(port):
                    if process.poll() is not None or time.perf_counter() - begun > START_LIMIT:
                        output.seek(0)
                        raise Missing(
                            (output.read().decode(errors="replace").splitlines() or ["no answer"])[-1]
                        )
                    time.sleep(0.001)
                return (time.perf_counter() - begun) * 1000
            finally:
                process.terminate()
                process.wait()

    return measure


CASES: dict[str, Case] = {
    "start": Case(
        "from the start of the process to an answered HTTP request",
        "ms",
        (
            Contender(
                "twistd fileexport",
                _start("fileexport", "--root", "ROOT", "--http", "tcp:PORT:interface=127.0.0.1"),
            ),
            Contender(
                "twistd web", _start("web", "--path", "ROOT", "--listen", "tcp:PORT:interface=127.0.0.1")
            ),
        ),
    ),
}
