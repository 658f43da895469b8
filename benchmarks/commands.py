"""Commands of users that are measured: their time, what both sides compute, what they leave."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from benchmarks import Missing
from benchmarks.processes import Server
from benchmarks.transfer_servers import LIMIT, Words

#: Seconds between two looks at a daemon's processor time: a hundredth of them is what looking takes.
_LOOK = 0.1


class Cost(NamedTuple):
    """What one command took: seconds, and seconds of processor time of both sides."""

    seconds: float
    server: float
    client: float


def timed(words: Words, server: Server) -> Cost:
    """Run a client's command to its end. Raises `Missing` where it fails."""
    command, environ = words
    # What earlier rounds left to be written shall not slow this one down.
    os.sync()
    used = _processor()
    with _Watch(server) as watch:
        begun = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LIMIT,
                env={**os.environ, **environ},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Missing(f"{Path(command[0]).name} took longer than {LIMIT} s") from None
        seconds = time.perf_counter() - begun
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().split("\n")
        raise Missing(f"{Path(command[0]).name}: {said[-1] or f'status {done.returncode}'}")
    return Cost(seconds, watch.spent, _processor() - used)


class _Watch:
    """Processor time of a daemon during a `with` block, and after it until the daemon rests.

    It is looked at all the time: vsftpd leaves children that nobody waits for, and whose time is nobody's.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.spent = 0.0

    def __enter__(self) -> _Watch:
        self._before = self._server.cpu()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        while self._see():
            time.sleep(_LOOK)

    def _look(self) -> None:
        while not self._over.wait(_LOOK):
            self._see()

    def _see(self) -> bool:
        spent = self._server.cpu() - self._before
        is_more = spent > self.spent
        self.spent = max(spent, self.spent)
        return is_more


def _processor() -> float:
    """Seconds of processor time of all children that have ended: the daemons have not."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def clean(directory: Path) -> None:
    """Remove what was moved there."""
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def digest(path: Path) -> bytes:
    return blake3(max_threads=blake3.AUTO).update_mmap(path).digest()


def file_system(directory: Path) -> str:
    """The kind of file system that the directory lies on."""
    found = ("", "")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        mount = fields.split()[4]
        if directory.is_relative_to(mount) and len(mount) >= len(found[0]):
            found = mount, rest.split()[0]
    return found[1]
