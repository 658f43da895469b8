"""The cases `sync.…`: trees that are made equal to others, against rsync's daemon.

Whole commands are timed, and what arrives is compared. What passes on the wire is counted by a proxy, in the
round that is not timed. Rows: 20,000 small files (first, nothing changed, 1 % changed); a large file with
edits and something in front; something in front alone; a tree that is moved; a source tree at two versions.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import Case, Contender, Measure, Metric, Missing
from benchmarks.commands import clean, digest, file_system, timed
from benchmarks.processes import Server
from benchmarks.sync_trees import copied, edited_file, longer_file, moved_tree, small_files, source_tree
from benchmarks.transfer_servers import FAST, RSYNC, SAFE, Client, Mover, Place, fileexport, module, rsync
from benchmarks.wire import counted

#: Rounds in a short and in a full run.
ROUNDS, ROUNDS_FULL = 3, 5

_VERSIONS, _INCOMING = "versions", "incoming"
#: A file of more bytes is compared by its hash, which takes every processor.
_LARGE = 1 << 20


@dataclass(frozen=True)
class Syncer:
    """A daemon, and what its users type to make a tree there, or here, equal to another one."""

    mover: Mover
    push: Client
    pull: Client


def _ours(mover: Mover) -> Syncer:
    return Syncer(
        mover,
        lambda place, source, target: fileexport(
            place, "sync", "local", source, Path("/", target), "--delete", "--quiet"
        ),
        lambda place, source, target: fileexport(
            place, "sync", "remote", Path("/", source), target, "--delete", "--quiet"
        ),
    )


_RSYNC = Syncer(
    RSYNC,
    lambda place, source, target: rsync("-a", "--delete", f"{source}/", f"{module(place, target)}/"),
    lambda place, source, target: rsync("-a", "--delete", f"{module(place, source)}/", f"{target}/"),
)
#: Ours, to which rsync is compared, first. A reading daemon flushes nothing: there is one of ours.
PUSHERS: Sequence[Syncer] = (_ours(FAST), _ours(SAFE), _RSYNC)
PULLERS: Sequence[Syncer] = (_ours(replace(FAST, name="fileexport")), _RSYNC)

#: What is synchronised one after the other: a word for the table, and the version.
Stages = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Work:
    """Stages of one case; `before` is the version that lies at the destination first, empty for none."""

    trees: Callable[[Path], str]
    stages: Stages
    before: str = "0"


_SMALL = Work(small_files, (("first", "0"), ("nothing changed", "0"), ("1 % changed", "1")), before="")
_EDITED = Work(edited_file, (("edited", "1"),))
_LONGER = Work(longer_file, (("longer", "1"),))
_MOVED = Work(moved_tree, (("moved", "1"),))
_SOURCE = Work(source_tree, (("next version", "1"), ("nothing changed", "1")))


class _Round:
    """One contender in one case: its daemon, its destination, and what it said on the wire."""

    def __init__(self, work: Work, syncer: Syncer, server: Server, place: Place, directory: Path) -> None:
        self._work = work
        self._syncer = syncer
        self._server = server
        self._place = place
        self._versions = directory / _VERSIONS
        self._is_push = place.export != self._versions
        self._target = (place.export if self._is_push else place.home) / _INCOMING
        self._wire: list[float] = []

    def __call__(self) -> Sequence[float]:
        """Every stage: its seconds, seconds of processor time of both sides, and MB on the wire."""
        is_counted = not self._wire
        figures: list[float] = []
        try:
            self._begin()
            for number, (_, version) in enumerate(self._work.stages):
                if is_counted:
                    with counted(self._place.port) as counter:
                        taken = self._stage(version, replace(self._place, port=counter.port))
                    self._wire.append(counter.passed / 1e6)
                else:
                    taken = self._stage(version, self._place)
                figures += *taken, self._wire[number]
        finally:
            clean(self._target)
        return figures

    def _begin(self) -> None:
        """Put the old version there: not by the contender, which thus knows nothing of it."""
        self._target.mkdir(exist_ok=True)
        if self._work.before:
            self._target.rmdir()
            copied(self._versions / self._work.before, self._target)

    def _stage(self, version: str, place: Place) -> tuple[float, float]:
        source = self._versions / version
        if self._is_push:
            words = self._syncer.push(place, source, Path(_INCOMING))
        else:
            words = self._syncer.pull(place, Path(version), self._target)
        cost = timed(words, self._server)
        _compare(source, self._target)
        return cost.seconds, cost.server + cost.client


def _compare(source: Path, target: Path) -> None:
    """Raises `Missing` where the two trees are not equal."""
    filecmp.clear_cache()
    ours, theirs = _entries(source), _entries(target)
    if ours.keys() != theirs.keys():
        raise Missing(f"{len(ours.keys() ^ theirs.keys())} entries are on one side only")
    for name, (path, stat) in ours.items():
        other, other_stat = theirs[name]
        if stat != other_stat:
            raise Missing(f"{name} has another kind, size, time or mode")
        if path.is_symlink():
            same = os.readlink(path) == os.readlink(other)
        elif not path.is_file():
            continue
        elif stat[2] > _LARGE:
            same = digest(path) == digest(other)
        else:
            same = filecmp.cmp(path, other, shallow=False)
        if not same:
            raise Missing(f"{name} arrived with another content")


def _entries(directory: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """What a synchronisation makes equal of everything below: kind and mode, time, size."""
    found: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for path in directory.rglob("*"):
        name = path.relative_to(directory)
        if name.parts[0] == ".fileexport":
            continue
        stat = path.lstat()
        # The times of links and of directories are not kept by everybody.
        is_file = path.is_file() and not path.is_symlink()
        found[str(name)] = (
            path,
            (stat.st_mode, stat.st_mtime_ns, stat.st_size) if is_file else (stat.st_mode,),
        )
    return found


# -- the cases


def _contender(work: Work, syncer: Syncer, *, is_push: bool) -> Contender:
    @contextmanager
    def enter(directory: Path) -> Iterator[Measure]:
        export = directory / _VERSIONS
        if is_push:
            export = directory / f"export-{syncer.mover.peer or 'ours'}"
            export.mkdir()
        with syncer.mover.running(export, None) as (server, place):
            yield _Round(work, syncer, server, place, directory)

    return Contender(syncer.mover.name, syncer.mover.peer, enter)


def _metrics(stages: Stages) -> tuple[Metric, ...]:
    names = (("", "s"), (", both sides", "CPU s"), (", wire", "MB"))
    return tuple(Metric(f"{stage}{what}", unit, "lower") for stage, _ in stages for what, unit in names)


def _case(work: Work, rounds: int, *, is_push: bool) -> Case:
    def prepare(directory: Path) -> str:
        versions = directory / _VERSIONS
        versions.mkdir()
        way = "to" if is_push else "from"
        return f"{work.trees(versions)}, {way} the daemon, on {file_system(directory)}, the whole command"

    syncers = PUSHERS if is_push else PULLERS
    contenders = tuple(_contender(work, syncer, is_push=is_push) for syncer in syncers)
    return Case(_metrics(work.stages), contenders, prepare, rounds)


def sync_cases(*, full: bool) -> dict[str, Case]:
    """The cases by their names; `full` takes more rounds."""
    rounds = ROUNDS_FULL if full else ROUNDS
    return {
        "sync.push.small": _case(_SMALL, rounds, is_push=True),
        "sync.pull.small": _case(_SMALL, rounds, is_push=False),
        "sync.push.edits": _case(_EDITED, rounds, is_push=True),
        "sync.pull.edits": _case(_EDITED, rounds, is_push=False),
        "sync.push.insertion": _case(_LONGER, rounds, is_push=True),
        "sync.push.moved": _case(_MOVED, rounds, is_push=True),
        "sync.push.source": _case(_SOURCE, rounds, is_push=True),
        "sync.pull.source": _case(_SOURCE, rounds, is_push=False),
    }
