"""Measure: `python -m benchmarks [case…] [--peers a,b] [--rounds N] [--full] [--dir D] [--json]`.

Ours and the peers run alternately in one go, because only ratios from one run can be compared. A peer that is
missing is named in the table. A case is chosen by its name or a part of it: `http.bulk`, `http`, `small`.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from benchmarks import Case, Contender, Measure, Missing
from benchmarks.http_cases import http_cases
from benchmarks.jobs import job_cases
from benchmarks.remote import remote_cases
from benchmarks.start import START
from benchmarks.sync import sync_cases
from benchmarks.transfer import transfer_cases


@dataclass(frozen=True)
class Row:
    """One contender's figures of one metric in `unit`; `ratio` is our median divided by its own.

    `missing` says why there are none.
    """

    case: str
    contender: str
    metric: str
    unit: str
    better: str
    rounds: int
    median: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    missing: str | None = None


@dataclass
class Result:
    """What one contender showed: the figures of each round, or why there are none."""

    rounds: list[Sequence[float]] = field(default_factory=list)
    missing: str | None = None


def measure(case: Case, directory: Path, rounds: int) -> list[Result]:
    """Run the contenders in turn; a result for each.

    One more round comes first and does not count: it fills caches.
    """
    results = [Result() for _ in case.contenders]
    with ExitStack() as stack:
        measures: list[Measure | None] = [
            _entered(stack, contender, directory, result)
            for contender, result in zip(case.contenders, results, strict=True)
        ]
        for number in range(rounds + 1):
            for once, result in zip(measures, results, strict=True):
                if once is None or result.missing is not None:
                    continue
                try:
                    figures = once()
                except Missing as reason:
                    result.missing = str(reason)
                    continue
                if number:
                    result.rounds.append(figures)
    return results


def _entered(stack: ExitStack, contender: Contender, directory: Path, result: Result) -> Measure | None:
    try:
        return stack.enter_context(contender.enter(directory))
    except Missing as reason:
        result.missing = str(reason)
        return None


def rows(name: str, case: Case, rounds: int, parent: Path | None) -> tuple[str, list[Row]]:
    """Measure one case: what it is about, and a row for each contender and metric, ours first."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=parent) as temporary:
        directory = Path(temporary).resolve()
        # As exported directories are: every local user may read them.
        directory.chmod(0o755)
        about = case.prepare(directory)
        results = measure(case, directory, rounds)
    made = []
    for number, metric in enumerate(case.metrics):
        ours = None
        for contender, result in zip(case.contenders, results, strict=True):
            row = Row(name, contender.name, metric.name, metric.unit, metric.better, rounds)
            if result.missing is not None:
                made.append(replace(row, missing=result.missing))
                continue
            values = [figures[number] for figures in result.rounds]
            median = statistics.median(values)
            ours = median if contender is case.contenders[0] else ours
            ratio = ours / median if ours is not None and median else None
            made.append(replace(row, median=median, low=min(values), high=max(values), ratio=ratio))
    return about, made


def show(about: str, table: list[Row]) -> None:
    """Print one case for people."""
    print(f"{table[0].case}: {about} ({table[0].rounds} rounds; ratio = ours / theirs)")
    metric = ""
    for row in table:
        if row.metric != metric:
            metric = row.metric
            title = f"{metric}, {row.unit}, {row.better} is better"
            print(f"  {title:<44}{'median':>10}{'min':>10}{'max':>10}{'ratio':>8}")
        if row.median is None or row.low is None or row.high is None:
            print(f"    {row.contender:<42}missing: {row.missing}")
            continue
        figures = "".join(f"{_rounded(value):>10}" for value in (row.median, row.low, row.high))
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        print(f"    {row.contender:<42}{figures}{ratio:>8}")


def _rounded(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _chosen(words: Sequence[str], cases: Sequence[str]) -> list[str]:
    """The cases that a word names, wholly or by some of its parts: `http`, `small`, `http.small.1k`."""
    return [name for name in cases if not words or any(f".{word}." in f".{name}." for word in words)]


def _among(case: Case, peers: Sequence[str] | None) -> Case:
    """The case with ours and these peers alone."""
    if peers is None:
        return case
    kept = tuple(one for one in case.contenders if not one.peer or one.peer in peers)
    return replace(case, contenders=kept)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number of at least 1 is needed")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("case", nargs="*", help="all by default, else names or parts of names")
    parser.add_argument("--peers", type=lambda text: text.split(","), metavar="A,B", help="all by default")
    parser.add_argument(
        "--rounds", type=_at_least_one, metavar="N", help="5 by default, 3 for transfer and sync"
    )
    parser.add_argument(
        "--full", action="store_true", help="10,000 idle connections; 5 rounds of transfer and sync"
    )
    parser.add_argument("--dir", type=Path, metavar="D", help="where the files lie; /tmp by default")
    parser.add_argument("--json", action="store_true", help="one JSON object a line for each figure")
    return parser


def main() -> int:
    """Measure the cases that the command line names; 1 where a contender was missing."""
    parser = _parser()
    options = parser.parse_args()
    cases = {**http_cases(full=options.full), "http.start": START, **job_cases()}
    cases |= transfer_cases(full=options.full) | remote_cases(full=options.full)
    cases |= sync_cases(full=options.full)
    if unknown := [word for word in options.case if not _chosen([word], list(cases))]:
        parser.error(f"no such case: {', '.join(unknown)}; there are: {', '.join(cases)}")
    known = {one.peer for case in cases.values() for one in case.contenders if one.peer}
    if options.peers and (strange := sorted(set(options.peers) - known)):
        parser.error(f"no such peer: {', '.join(strange)}; there are: {', '.join(sorted(known))}")
    # A plain SIGTERM would leave servers and files behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    incomplete = False
    for name in _chosen(options.case, list(cases)):
        case = _among(cases[name], options.peers)
        about, table = rows(name, case, options.rounds or case.rounds, options.dir)
        incomplete |= any(row.missing is not None for row in table)
        if options.json:
            print(*(json.dumps(asdict(row)) for row in table), sep="\n", flush=True)
        else:
            show(about, table)
            sys.stdout.flush()
    return 1 if incomplete else 0


if __name__ == "__main__":
    sys.exit(main())
