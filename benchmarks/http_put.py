"""The case `http.put`: one large file by `curl -T`, against nginx's dav module.

nginx answers when the file has its name; we answer when it is also on stable storage, and with
`--durability fast` as nginx does.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import Case, Contender, Measure, Metric, Missing
from benchmarks.http_servers import OURS, PUT_PEERS, Kind, Place
from benchmarks.processes import Server, program, run

#: Bytes of the file, and seconds that curl may take for it.
SIZE = 1 << 30
LIMIT = 240
_FILES, _SOURCE = "files", "source.bin"


def _fast(place: Place) -> list[str]:
    return [*OURS.command(place), "--durability", "fast"]


#: They change files only for the user who runs them, without a token.
KINDS = (OURS, Kind("fileexport, fast", "fast", _fast), *PUT_PEERS)


def _prepare(directory: Path) -> str:
    block = os.urandom(1 << 20)
    with (directory / _SOURCE).open("wb") as file:
        for _ in range(SIZE >> 20):
            file.write(block)
    return f"a file of {SIZE / 1e9:.2f} GB by curl -T, plain, over the one of the round before"


def _put(server: Server, port: int, directory: Path) -> Sequence[float]:
    """GB/s, and processor seconds for a GB."""
    source = directory / _SOURCE
    options = ["-sS", "-m", str(LIMIT), "-o", "/dev/null", "-w", "%{http_code} %{size_upload} %{time_total}"]
    words = [program("curl", "curl"), *options, "-T", str(source), f"http://127.0.0.1:{port}/put.bin"]
    before = server.cpu()
    said = run(words, LIMIT)
    spent = server.cpu() - before
    status, size, seconds = said.split()
    if status not in ("201", "204") or int(size) != SIZE:
        raise Missing(f"status {status} with {size} bytes of {SIZE}")
    stored = directory / _FILES / "put.bin"
    if subprocess.run(["cmp", str(source), str(stored)], capture_output=True, timeout=LIMIT).returncode:
        raise Missing("what is stored is not what was sent")
    # The next one shall not pay for what this one left behind.
    os.sync()
    return SIZE / 1e9 / float(seconds), spent / (SIZE / 1e9)


def _contender(kind: Kind) -> Contender:
    @contextmanager
    def enter(directory: Path) -> Iterator[Measure]:
        with kind.running(directory / _FILES) as (server, port):
            yield lambda: _put(server, port, directory)

    return Contender(kind.name, kind.peer, enter)


PUT = Case(
    (Metric("speed", "GB/s", "higher"), Metric("processor", "CPU s/GB", "lower")),
    tuple(map(_contender, KINDS)),
    _prepare,
)
