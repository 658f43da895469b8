"""Measure: `python -m benchmarks [case…] [--json] [--rounds N]`.

Ours and the peers run alternately in one go, because only ratios from one run can be compared. A peer that is
missing is named in the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import CASES, Case, Missing


@dataclass(frozen=True)
class Row:
    """One contender's figures in `unit`; `ratio` is our median divided by its own.

    `missing` says why there are none.
    """

    case: str
    contender: str
    unit: str
    rounds: int
    median: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    missing: str | None = None


def measure(case: Case, rounds: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Run the contenders in turn; return each one's figures, and why those that cannot run do not.

    One more round comes first and does not count: it fills caches.
    """
    figures: dict[str, list[float]] = {contender.name: [] for contender in case.contenders}
    missing: dict[str, str] = {}
    for number in range(rounds + 1):
        for contender in case.contenders:
            if contender.name in missing:
                continue
            with tempfile.TemporaryDirectory() as directory:
                try:
                    figure = contender.measure(Path(directory))
                except Missing as reason:
                    missing[contender.name] = str(reason)
                    continue
            if number:
                figures[contender.name].append(figure)
    return figures, missing


def rows(name: str, case: Case, rounds: int) -> list[Row]:
    """Measure one case: one row for each contender, ours first."""
    figures, missing = measure(case, rounds)
    made = []
    ours = figures[case.contenders[0].name]
    for contender, values in figures.items():
        if contender in missing:
            made.append(Row(name, contender, case.unit, rounds, missing=missing[contender]))
            continue
        median = statistics.median(values)
        ratio = statistics.median(ours) / median if len(ours) == rounds else None
        made.append(Row(name, contender, case.unit, rounds, median, min(values), max(values), ratio))
    return made


def show(case: Case, table: list[Row]) -> None:
    """Print one case for people."""
    print(f"{table[0].case}: {case.about} ({table[0].rounds} rounds, {case.unit}; ratio = ours / theirs)")
    print(f"  {'':<24}{'median':>10}{'min':>10}{'max':>10}{'ratio':>8}")
    for row in table:
        if row.missing is not None:
            print(f"  {row.contender:<24}missing: {row.missing}")
            continue
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        print(f"  {row.contender:<24}{row.median:>10.1f}{row.low:>10.1f}{row.high:>10.1f}{ratio:>8}")


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number of at least 1 is needed")
    return int(text)


def main() -> int:
    """Measure the cases that the command line names; 1 where a contender was missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("case", nargs="*", help=f"all by default: {', '.join(CASES)}")
    parser.add_argument("--json", action="store_true", help="one JSON object a line for each contender")
    parser.add_argument("--rounds", type=_at_least_one, default=5, metavar="N", help="5 by default")
    options = parser.parse_args()
    if unknown := [name for name in options.case if name not in CASES]:
        parser.error(f"no such case: {', '.join(unknown)}; there are: {', '.join(CASES)}")
    incomplete = False
    for name in options.case or CASES:
        table = rows(name, CASES[name], options.rounds)
        incomplete |= any(row.missing is not None for row in table)
        if options.json:
            print(*(json.dumps(asdict(row)) for row in table), sep="\n", flush=True)
        else:
            show(CASES[name], table)
    return 1 if incomplete else 0


if __name__ == "__main__":
    sys.exit(main())
