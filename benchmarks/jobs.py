"""The cases `jobs.…`: a compression job against gzip, pigz, and tar into pigz, each a command of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import Case, Contender, Measure, Metric, Missing
from benchmarks.job_files import FILES, SQL_SIZE, write_sql, write_tree
from benchmarks.processes import program

_SQL, _TREE = "dump.sql", "tree"
#: Seconds that one command may take.
_LIMIT = 600

_SPEED = Metric("speed", "MB/s", "higher")
_TIME = Metric("time", "s", "lower")
_CPU = Metric("processor", "CPU s", "lower")
_SIZE = Metric("archive", "MB", "lower")


#: Figures of the case from the seconds, the seconds of processor time, and the bytes of the archive.
Figures = Callable[[float, float, int], Sequence[float]]


@dataclass(frozen=True)
class _Program:
    """A program that takes part: its name in the table and on the command line, its packages, its command.

    `command` is for a shell, with `SOURCE` and `ARCHIVE` in it.
    """

    name: str
    packages: dict[str, str]
    command: str


def _job(form: str, durability: str) -> _Program:
    words = f"-m benchmarks.job . SOURCE {form} {durability}"
    return _Program(f"fileexport, {form}, {durability}", {}, f"{sys.executable} {words}")


_FAST, _SAFE, _ZST = _job("tar.gz", "fast"), _job("tar.gz", "safe"), _job("tar.zst", "fast")
_GZIP = _Program("gzip -6", {"gzip": "gzip"}, "gzip -6 -c SOURCE > ARCHIVE")
_PIGZ = _Program("pigz -6", {"pigz": "pigz"}, "pigz -6 -c SOURCE > ARCHIVE")
_TAR_PIGZ = _Program(
    "tar | pigz -6", {"tar": "tar", "pigz": "pigz"}, "set -o pipefail; tar -cf - SOURCE | pigz -6 > ARCHIVE"
)


def _contender(one: _Program, source: str, figures: Figures) -> Contender:
    @contextmanager
    def enter(directory: Path) -> Iterator[Measure]:
        for name, package in one.packages.items():
            program(name, package)
        command = one.command.replace("SOURCE", source).replace("ARCHIVE", "peer.archive")

        def measure() -> Sequence[float]:
            _clean(directory)
            before, begun = _processor(), time.perf_counter()
            _run(one.name, command, directory)
            seconds, used = time.perf_counter() - begun, _processor() - before
            return figures(seconds, used, _clean(directory))

        yield measure

    return Contender(one.name, "-".join(one.packages), enter)


def _processor() -> float:
    """Seconds of processor time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _clean(directory: Path) -> int:
    """Remove the archives, so that each is written anew; how many bytes they had."""
    total = 0
    for entry in os.scandir(directory):
        if entry.name != _SQL and entry.is_file():
            total += entry.stat().st_size
            os.unlink(entry)
    return total


def _run(name: str, command: str, directory: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))}
    try:
        done = subprocess.run(
            ("bash", "-c", command),
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{name} took longer than {_LIMIT} s") from None
    if done.returncode:
        raise Missing(f"{name}: {done.stderr.decode(errors='replace').strip()[-200:]}")


def _prepare_sql(directory: Path) -> str:
    write_sql(directory / _SQL)
    return f"{SQL_SIZE / 1e6:,.0f} MB of SQL text, the whole command"


def _prepare_tree(directory: Path) -> str:
    total = write_tree(directory / _TREE)
    return f"{FILES:,} files of 1 to 8 kB, {total / 1e6:.0f} MB together, the whole command"


def _of_sql(seconds: float, used: float, size: int) -> Sequence[float]:
    return SQL_SIZE / 1e6 / seconds, used, size / 1e6


def _of_tree(seconds: float, used: float, size: int) -> Sequence[float]:
    return seconds, used, size / 1e6


def job_cases() -> dict[str, Case]:
    """The cases by their names."""
    return {
        "jobs.sql": Case(
            (_SPEED, _CPU, _SIZE),
            tuple(_contender(one, _SQL, _of_sql) for one in (_FAST, _SAFE, _ZST, _GZIP, _PIGZ)),
            _prepare_sql,
        ),
        "jobs.tree": Case(
            (_TIME, _CPU, _SIZE),
            tuple(_contender(one, _TREE, _of_tree) for one in (_FAST, _SAFE, _ZST, _TAR_PIGZ)),
            _prepare_tree,
        ),
    }
