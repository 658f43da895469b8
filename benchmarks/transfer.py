"""The cases `transfer.…`: one large file to the daemon and back, plain and by TLS; a tree of small files.

Whole commands are timed. The place must be as empty for each of them, and what arrives is compared.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import Case, Contender, Measure, Metric, Missing
from benchmarks.commands import Cost, clean, digest, file_system, timed
from benchmarks.http_servers import make_key
from benchmarks.processes import Server
from benchmarks.transfer_servers import PULLERS, PUSHERS, RSYNC, VSFTPD, Mover, Place, Words

#: Bytes of the large file, where memory and disk have room for it, and at least.
BULK = 2_000_000_000
BULK_LEAST = 64 << 20
#: Small files, their bytes, and the directories that they lie in.
FILES, FILE_SIZE, DIRECTORIES = 10_000, 2 << 10, 20
#: Rounds in a short and in a full run.
ROUNDS, ROUNDS_FULL = 3, 5

_PIECE = 1 << 20
KEY, SOURCE, LARGE = "key.pem", "source", "bulk.bin"
_TREE, _INCOMING = "tree", "incoming"

_SPEED = Metric("speed", "GB/s", "higher")
_SERVER_GB = Metric("server", "CPU s/GB", "lower")
_CLIENT_GB = Metric("client", "CPU s/GB", "lower")
_TIME = Metric("time", "s", "lower")
_SERVER = Metric("server", "CPU s", "lower")
_CLIENT = Metric("client", "CPU s", "lower")


#: Moves once: gets the daemon, its place and the case's directory; leaves nothing behind.
Move = Callable[[Mover, Server, Place, Path], Cost]


# -- what is measured


def _check(source: Path, arrived: Path) -> None:
    """Raises `Missing` where what arrived is not the source."""
    if not arrived.exists():
        raise Missing(f"{arrived.name} did not arrive")
    if source.is_file():
        if digest(source) != digest(arrived):
            raise Missing(f"{arrived.name} arrived with another content")
        return
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    there = sorted(path.relative_to(arrived) for path in arrived.rglob("*") if path.is_file())
    if files != there:
        raise Missing(f"{len(there)} files arrived of {len(files)}")
    for path in files:
        if not filecmp.cmp(source / path, arrived / path, shallow=False):
            raise Missing(f"{path} arrived with another content")


def _push(mover: Mover, server: Server, place: Place, directory: Path) -> Cost:
    source = directory / SOURCE / LARGE
    return _moved(mover.push(place, source, Path(_INCOMING)), server, source, place.export / _INCOMING)


def _push_tree(mover: Mover, server: Server, place: Place, directory: Path) -> Cost:
    source = directory / SOURCE / _TREE
    return _moved(mover.push_tree(place, source, Path(_INCOMING)), server, source, place.export / _INCOMING)


def _pull(mover: Mover, server: Server, place: Place, directory: Path) -> Cost:
    target = place.home / "target"
    target.mkdir(exist_ok=True)
    return _moved(mover.pull(place, Path(LARGE), target), server, directory / SOURCE / LARGE, target)


def _moved(words: Words, server: Server, source: Path, target: Path) -> Cost:
    try:
        cost = timed(words, server)
        _check(source, target / source.name)
        return cost
    finally:
        clean(target)


# -- what is moved


def prepare_bulk(directory: Path, most: int = BULK) -> int:
    """Write the large file `SOURCE`/`LARGE` below a directory; how many bytes it has."""
    (directory / SOURCE).mkdir()
    facts = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
    cache, disk = int(facts["MemAvailable:"]) * 1024, shutil.disk_usage(directory).free
    size = max(BULK_LEAST, min(most, cache // 4, disk // 4)) // _PIECE * _PIECE
    with (directory / SOURCE / LARGE).open("wb") as file:
        for _ in range(size // _PIECE):
            # Nothing in it is twice: whoever compresses gains nothing.
            file.write(os.urandom(_PIECE))
    return size


def _prepare_tree(directory: Path) -> None:
    for number in range(FILES):
        parent = directory / SOURCE / _TREE / f"{number % DIRECTORIES:02}"
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"part-{number:05}.bin").write_bytes(os.urandom(FILE_SIZE))


# -- the cases


def _contender(mover: Mover, move: Move) -> Contender:
    @contextmanager
    def enter(directory: Path) -> Iterator[Measure]:
        export = directory / SOURCE
        if move is not _pull:
            export = directory / f"export-{mover.peer or 'ours'}"
            (export / _INCOMING).mkdir(parents=True)
            # vsftpd becomes another user, and takes no root that others may write to.
            (export / _INCOMING).chmod(0o777)
        key = directory / KEY
        with mover.running(export, key if key.exists() else None) as (server, place):

            def measure() -> Sequence[float]:
                cost = move(mover, server, place, directory)
                if move is _push_tree:
                    return cost
                size = (directory / SOURCE / LARGE).stat().st_size / 1e9
                return size / cost.seconds, cost.server / size, cost.client / size

            yield measure

    return Contender(mover.name, mover.peer, enter)


def _bulk(move: Move, movers: Sequence[Mover], what: str, rounds: int, *, tls: bool = False) -> Case:
    def prepare(directory: Path) -> str:
        if tls:
            make_key(directory / KEY)
        size = prepare_bulk(directory)
        way = "TLS" if tls else "plain"
        return f"a file of {size / 1e9:.2f} GB {what}, {way}, on {file_system(directory)}, the whole command"

    return Case(
        (_SPEED, _SERVER_GB, _CLIENT_GB), tuple(_contender(mover, move) for mover in movers), prepare, rounds
    )


def _tree(movers: Sequence[Mover], rounds: int) -> Case:
    def prepare(directory: Path) -> str:
        (directory / SOURCE).mkdir()
        _prepare_tree(directory)
        where = file_system(directory)
        return f"{FILES:,} files of {FILE_SIZE} bytes to the daemon, on {where}, the whole command"

    return Case(
        (_TIME, _SERVER, _CLIENT), tuple(_contender(mover, _push_tree) for mover in movers), prepare, rounds
    )


def _with_tls(movers: Sequence[Mover]) -> Sequence[Mover]:
    """Those that can speak it: rsync's daemon cannot."""
    return [mover for mover in movers if mover is not RSYNC]


def transfer_cases(*, full: bool) -> dict[str, Case]:
    """The cases by their names; `full` takes more rounds, and vsftpd for small files (26 s a round)."""
    rounds = ROUNDS_FULL if full else ROUNDS
    small = PUSHERS if full else [mover for mover in PUSHERS if mover is not VSFTPD]
    return {
        "transfer.push": _bulk(_push, PUSHERS, "to the daemon", rounds),
        "transfer.pull": _bulk(_pull, PULLERS, "from the daemon", rounds),
        "transfer.push.tls": _bulk(_push, _with_tls(PUSHERS), "to the daemon", rounds, tls=True),
        "transfer.pull.tls": _bulk(_pull, _with_tls(PULLERS), "from the daemon", rounds, tls=True),
        "transfer.small": _tree(small, rounds),
    }
