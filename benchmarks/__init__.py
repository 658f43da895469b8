"""What `python -m benchmarks` is made of: cases, who contends in them, what is measured of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class Missing(Exception):
    """A contender cannot run here, or did not do its work; the text says why."""


@dataclass(frozen=True)
class Metric:
    """One figure of a measurement: what it tells, its unit, and which way is better."""

    name: str
    unit: str
    better: Literal["higher", "lower"]


#: Measures once: a figure for each metric of the case, in their order. Raises `Missing`.
Measure = Callable[[], Sequence[float]]


@dataclass(frozen=True)
class Contender:
    """One side of a comparison. `enter` gets the case's directory; its `with` block holds what runs.

    `peer` is its name on the command line; empty for ours.
    """

    name: str
    peer: str
    enter: Callable[[Path], AbstractContextManager[Measure]]


@dataclass(frozen=True)
class Case:
    """A comparison: the first contender is ours, and every ratio is ours divided by the other's.

    `prepare` fills an empty directory for all contenders and says in a few words what is measured. So many
    `rounds` count where the command line does not say how many.
    """

    metrics: tuple[Metric, ...]
    contenders: tuple[Contender, ...]
    prepare: Callable[[Path], str]
    rounds: int = 5
