"""The cases `remote.…`: a large remote file read like a local one, beside the download of the same file.

Whole programs are timed. The download writes what comes to a file, the reader lets go of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import Case, Contender, Measure, Metric
from benchmarks.commands import clean, file_system, timed
from benchmarks.http_servers import make_key
from benchmarks.transfer import KEY, LARGE, SOURCE, prepare_bulk
from benchmarks.transfer_servers import PUSHERS, Words, fileexport

#: Bytes of the file, where there is room for it.
SIZE = 1_000_000_000
ROUNDS, ROUNDS_FULL = 5, 9
_DAEMON = PUSHERS[0]

_METRICS = (
    Metric("speed", "GB/s", "higher"),
    Metric("server", "CPU s/GB", "lower"),
    Metric("client", "CPU s/GB", "lower"),
)
_READ = f"""
import fileexport
with fileexport.open("/{LARGE}", "rb") as file:
    while file.read(1 << 20):
        pass
"""
_READ_ALL = f"""
import fileexport
with fileexport.open("/{LARGE}", "rb") as file:
    file.read()
"""
_DOWNLOAD = f"""
import sys
from fileexport.client.environment import client_of_environment
with client_of_environment() as client:
    client.download_file("/{LARGE}", sys.argv[1])
"""


def _contender(name: str, peer: str, program: str) -> Contender:
    @contextmanager
    def enter(directory: Path) -> Iterator[Measure]:
        # Each has a daemon of its own, whose home lies beside what it exports.
        export = directory / f"export-{peer or 'ours'}" / SOURCE
        target = directory / f"target-{peer or 'ours'}"
        for made in (export, target):
            made.mkdir(parents=True)
        (export / LARGE).hardlink_to(directory / SOURCE / LARGE)
        key = directory / KEY
        with _DAEMON.running(export, key if key.exists() else None) as (server, place):

            def measure() -> Sequence[float]:
                words: Words = [sys.executable, "-c", program, str(target)], fileexport(place)[1]
                try:
                    cost = timed(words, server)
                finally:
                    clean(target)
                size = (export / LARGE).stat().st_size / 1e9
                return size / cost.seconds, cost.server / size, cost.client / size

            yield measure

    return Contender(name, peer, enter)


def _case(rounds: int, *, tls: bool) -> Case:
    def prepare(directory: Path) -> str:
        if tls:
            make_key(directory / KEY)
        size = prepare_bulk(directory, SIZE)
        way = "TLS" if tls else "plain"
        return f"a file of {size / 1e9:.2f} GB, {way}, on {file_system(directory)}, the whole program"

    contenders = (
        _contender("open().read, 1 MiB at once", "", _READ),
        _contender("open().read(), all at once", "all", _READ_ALL),
        _contender("download_file", "download", _DOWNLOAD),
    )
    return Case(_METRICS, contenders, prepare, rounds)


def remote_cases(*, full: bool) -> dict[str, Case]:
    """The cases by their names; `full` takes more rounds."""
    rounds = ROUNDS_FULL if full else ROUNDS
    return {"remote.read": _case(rounds, tls=False), "remote.read.tls": _case(rounds, tls=True)}
