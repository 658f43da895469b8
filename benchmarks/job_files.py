"""What the cases `jobs.…` compress: SQL text and small files, from a seed and so the same in every run."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import accumulate, count
from pathlib import Path

#: Bytes of SQL text, and of the part of it that is made: it is repeated. No compressor that takes part looks
#: so far back (gzip 32 KiB, zstd at its level 2 MiB).
SQL_SIZE = 1_000_000_000
_MADE = 64 << 20
#: Small files, their least and greatest size, and how they are spread.
FILES = 20_000
_SIZES = (1_000, 8_000)
_OUTER, _INNER = 20, 10

_FIRST = "Anna Ben Carla David Elif Farid Grace Hugo Ines Jonas Katja Liam Maria Noah Olga Paul Rosa".split()
_LAST = "Abel Brandt Costa Evans Fischer Garcia Ivanov Jensen Keller Lopez Meyer Nowak Olsen Weber".split()
_STATES = ("new", "paid", "sent", "returned")
_LETTERS = "etaoinshrdlucmfwypvbgk"
_WORDS = 3_000
_BEGUN = 1_600_000_000


def sql_text(size: int, seed: int = 4) -> bytes:
    """About so many bytes of a dump of orders, a row a line: numbers, times, names, an id, some free text."""
    lines: list[str] = []
    length = 0
    rows = _rows(random.Random(seed))
    while length < size:
        lines.append(next(rows))
        length += len(lines[-1])
    return "".join(lines).encode("ascii")


def _rows(chance: random.Random) -> Iterator[str]:
    words = ["".join(chance.choices(_LETTERS, k=chance.randint(2, 11))) for _ in range(_WORDS)]
    # As in a language: few words make most of a text.
    weights = list(accumulate(1 / (rank + 3) for rank in range(_WORDS)))
    moment = _BEGUN
    for number in count(1):
        moment += chance.randrange(400)
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))
        first, last = chance.choice(_FIRST), chance.choice(_LAST)
        said = " ".join(chance.choices(words, cum_weights=weights, k=chance.randint(3, 24)))
        yield (
            f"INSERT INTO `orders` VALUES ({number},'{at}','{first} {last}',"
            f"'{first.lower()}.{last.lower()}{chance.randrange(1000)}@example.com',{chance.randint(1, 5000)},"
            f"{chance.randrange(100_000) / 100:.2f},'{chance.choice(_STATES)}',"
            f"'{chance.getrandbits(64):016x}','{said}');\n"
        )


def write_sql(path: Path) -> None:
    """Write `SQL_SIZE` bytes of SQL text."""
    text = sql_text(_MADE)
    with path.open("wb") as out:
        for start in range(0, SQL_SIZE, len(text)):
            out.write(text[: SQL_SIZE - start])


def write_tree(top: Path) -> int:
    """Write `FILES` small files of SQL text; how many bytes they have together."""
    chance = random.Random(5)
    text = sql_text(_MADE)
    total = 0
    for number in range(FILES):
        directory = top / f"{number % _OUTER:02}" / str(number // _OUTER % _INNER)
        directory.mkdir(parents=True, exist_ok=True)
        start, size = chance.randrange(len(text) - _SIZES[1]), chance.randint(*_SIZES)
        (directory / f"part-{number:05}.sql").write_bytes(text[start : start + size])
        total += size
    return total
