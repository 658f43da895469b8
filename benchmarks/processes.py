"""Server processes that are measured: started, watched through /proc, ended. Linux only."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks import Missing

#: Seconds after which a start has failed, and after which a process that should end is killed.
START_LIMIT = 30.0
END_LIMIT = 10.0

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/PID/stat after the name in parentheses, counted from 0: the parent, and four times.
_PARENT = 1
_TIMES = slice(11, 15)


def program(name: str, package: str) -> str:
    """The path of a program. Raises `Missing` with the Debian package that has it."""
    # Servers are often outside a user's PATH.
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
    if found is None:
        raise Missing(f"{name} is not installed (Debian: {package})")
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listens(port: int) -> bool:
    """Whether the port accepts connections."""
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=START_LIMIT):
        return True
    return False


class Server:
    """A running server: its first process, and all that came from it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._first = process.pid

    def cpu(self) -> float:
        """Seconds of processor time, user and system, of all its processes, ended ones too."""
        return sum(sum(map(int, fields[_TIMES])) for fields in self._family().values()) / _TICKS

    def memory(self) -> int:
        """Bytes of all its processes that are in memory; shared pages count in each."""
        total = 0
        for pid in self._family():
            with suppress(FileNotFoundError, ProcessLookupError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return total * _PAGE

    def _family(self) -> dict[int, list[str]]:
        """The fields of /proc/PID/stat of each process of ours."""
        every = dict(_stat_of_all())
        ours = {self._first}
        # A child may have a smaller number than its parent: go on until no more are found.
        while found := {pid for pid, fields in every.items() if int(fields[_PARENT]) in ours} - ours:
            ours |= found
        return {pid: every[pid] for pid in ours if pid in every}


def _stat_of_all() -> Iterator[tuple[int, list[str]]]:
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(FileNotFoundError, ProcessLookupError):
                text = Path(f"/proc/{name}/stat").read_text(errors="replace")
                yield int(name), text.rpartition(")")[2].split()


@contextmanager
def serving(
    command: Sequence[str],
    home: Path,
    port: int,
    *,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run a server in the directory `home` for the `with` block, from when it listens on its port.

    Raises `Missing` with its last words where it does not come up. What it started is ended with it.
    """
    with (home / "output").open("w+b") as output:
        process = subprocess.Popen(
            command,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
        try:
            begun = time.monotonic()
            while not listens(port):
                if process.poll() is not None or time.monotonic() - begun > START_LIMIT:
                    output.seek(0)
                    words = output.read().decode(errors="replace").split("\n")
                    raise Missing(next((line for line in reversed(words) if line.strip()), "no answer"))
                time.sleep(0.001)
            yield Server(process)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # Its session is its own, so the group holds nothing that we did not start.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run(command: Sequence[str], limit: float) -> str:
    """Run a client to its end and return what it says. Raises `Missing` where it fails or takes too long."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{Path(command[0]).name} took longer than {limit:.0f} s") from None
    if done.returncode:
        words = (done.stderr or done.stdout).decode(errors="replace").strip().split("\n")
        raise Missing(f"{Path(command[0]).name}: {words[-1] or f'status {done.returncode}'}")
    return done.stdout.decode(errors="replace")
