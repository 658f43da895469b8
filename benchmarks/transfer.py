"""The cases `transfer.…`: one large file to the daemon and back, plain and by TLS; a tree of small files.

Whole commands are timed. The place must be as empty for each of them, and what arrives is compared.
"""

from __future__ import annotations

import filecmp
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from benchmarks import Case, Contender, Measure, Metric, Missing
from benchmarks.http_servers import make_key
from benchmarks.processes import Server
from benchmarks.transfer_servers import LIMIT, PULLERS, PUSHERS, RSYNC, VSFTPD, Mover, Place, Words

#: Bytes of the large file, where memory and disk have room for it, and at least.
BULK = 2_000_000_000
BULK_LEAST = 64 << 20
#: Small files, their bytes, and the directories that they lie in.
FILES, FILE_SIZE, DIRECTORIES = 10_000, 2 << 10, 20
#: Rounds in a short and in a full run.
ROUNDS, ROUNDS_FULL = 3, 5

_PIECE = 1 << 20
#: Seconds between two looks at a daemon's processor time: a hundredth of them is what looking takes.
_LOOK = 0.1
_KEY, _SOURCE, _BULK, _TREE, _INCOMING = "key.pem", "source", "bulk.bin", "tree", "incoming"

_SPEED = Metric("speed", "GB/s", "higher")
_SERVER_GB = Metric("server", "CPU s/GB", "lower")
_CLIENT_GB = Metric("client", "CPU s/GB", "lower")
_TIME = Metric("time", "s", "lower")
_SERVER = Metric("server", "CPU s", "lower")
_CLIENT = Metric("client", "CPU s", "lower")


class Cost(NamedTuple):
    """What one command took: seconds, and seconds of processor time of both sides."""

    seconds: float
    server: float
    client: float


#: Moves once: gets the daemon, its place and the case's directory; leaves nothing behind.
Move = Callable[[Mover, Server, Place, Path], Cost]


# -- what is measured


def _timed(words: Words, server: Server) -> Cost:
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


def _clean(directory: Path) -> None:
    """Remove what was moved there."""
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _check(source: Path, arrived: Path) -> None:
    """Raises `Missing` where what arrived is not the source."""
    if not arrived.exists():
        raise Missing(f"{arrived.name} did not arrive")
    if source.is_file():
        if _digest(source) != _digest(arrived):
            raise Missing(f"{arrived.name} arrived with another content")
        return
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    there = sorted(path.relative_to(arrived) for path in arrived.rglob("*") if path.is_file())
    if files != there:
        raise Missing(f"{len(there)} files arrived of {len(files)}")
    for path in files:
        if not filecmp.cmp(source / path, arrived / path, shallow=False):
            raise Missing(f"{path} arrived with another content")


def _digest(path: Path) -> bytes:
    return blake3(max_threads=blake3.AUTO).update_mmap(path).digest()


def _push(mover: Mover, server: Server, place: Place, directory: Path) -> Cost:
    source = directory / _SOURCE / _BULK
    return _moved(mover.push(place, source, Path(_INCOMING)), server, source, place.export / _INCOMING)


def _push_tree(mover: Mover, server: Server, place: Place, directory: Path) -> Cost:
    source = directory / _SOURCE / _TREE
    return _moved(mover.push_tree(place, source, Path(_INCOMING)), server, source, place.export / _INCOMING)


def _pull(mover: Mover, server: Server, place: Place, directory: Path) -> Cost:
    target = place.home / "target"
    target.mkdir(exist_ok=True)
    return _moved(mover.pull(place, Path(_BULK), target), server, directory / _SOURCE / _BULK, target)


def _moved(words: Words, server: Server, source: Path, target: Path) -> Cost:
    try:
        cost = _timed(words, server)
        _check(source, target / source.name)
        return cost
    finally:
        _clean(target)


# -- what is moved


def _prepare_bulk(directory: Path) -> int:
    """Write the large file; how many bytes it has."""
    facts = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
    cache, disk = int(facts["MemAvailable:"]) * 1024, shutil.disk_usage(directory).free
    size = max(BULK_LEAST, min(BULK, cache // 4, disk // 4)) // _PIECE * _PIECE
    with (directory / _SOURCE / _BULK).open("wb") as file:
        for _ in range(size // _PIECE):
            # Nothing in it is twice: whoever compresses gains nothing.
            file.write(os.urandom(_PIECE))
    return size


def _prepare_tree(directory: Path) -> None:
    for number in range(FILES):
        parent = directory / _SOURCE / _TREE / f"{number % DIRECTORIES:02}"
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"part-{number:05}.bin").write_bytes(os.urandom(FILE_SIZE))


def _file_system(directory: Path) -> str:
    """The kind of file system that the directory lies on."""
    found = ("", "")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        mount = fields.split()[4]
        if directory.is_relative_to(mount) and len(mount) >= len(found[0]):
            found = mount, rest.split()[0]
    return found[1]


# -- the cases


def _contender(mover: Mover, move: Move) -> Contender:
    @contextmanager
    def enter(directory: Path) -> Iterator[Measure]:
        export = directory / _SOURCE
        if move is not _pull:
            export = directory / f"export-{mover.peer or 'ours'}"
            (export / _INCOMING).mkdir(parents=True)
            # vsftpd becomes another user, and takes no root that others may write to.
            (export / _INCOMING).chmod(0o777)
        key = directory / _KEY
        with mover.running(export, key if key.exists() else None) as (server, place):

            def measure() -> Sequence[float]:
                cost = move(mover, server, place, directory)
                if move is _push_tree:
                    return cost
                size = (directory / _SOURCE / _BULK).stat().st_size / 1e9
                return size / cost.seconds, cost.server / size, cost.client / size

            yield measure

    return Contender(mover.name, mover.peer, enter)


def _bulk(move: Move, movers: Sequence[Mover], what: str, rounds: int, *, tls: bool = False) -> Case:
    def prepare(directory: Path) -> str:
        (directory / _SOURCE).mkdir()
        if tls:
            make_key(directory / _KEY)
        size = _prepare_bulk(directory)
        way = "TLS" if tls else "plain"
        return f"a file of {size / 1e9:.2f} GB {what}, {way}, on {_file_system(directory)}, the whole command"

    return Case(
        (_SPEED, _SERVER_GB, _CLIENT_GB), tuple(_contender(mover, move) for mover in movers), prepare, rounds
    )


def _tree(movers: Sequence[Mover], rounds: int) -> Case:
    def prepare(directory: Path) -> str:
        (directory / _SOURCE).mkdir()
        _prepare_tree(directory)
        where = _file_system(directory)
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
