"""A disk that keeps only what was flushed, and of the rest whatever it likes.

What lasts, as POSIX has it: after fsync(2) of a file its data, size and mode; after fsync(2) of a directory
its names. Nothing else comes in any order. So at a loss of power each directory has taken any of the steps
that wait in it for a flush, and each write that waits is lost, whole, cut short, or zeros. (An order could
only change which of two steps on one name came last, and leaving steps out changes just that.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from random import Random

from fileexport.paths import RESERVED
from tests.proof.disk_model import Born, Cut, Data, Flush, Mode, Names, Promise, Snapshot, Step, Version

#: What becomes of a write; of a mode and of a cut only the first two.
LOST, WHOLE, SHORT, ZEROS = range(4)
#: Outcomes tried of one file that has not been flushed: where there is one, few are enough.
_OUTCOMES = 12

File = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Crashed:
    """What the disk holds when the power is back: directories and files by path.

    Paths with one number in `nodes` are names of one file.
    """

    directories: frozenset[str]
    files: dict[str, File]
    nodes: dict[str, int] = field(default_factory=dict, compare=False)

    @property
    def orphans(self) -> frozenset[str]:
        """What is left in staging."""
        return frozenset(path for path in self.files if in_staging(path))

    @property
    def staged(self) -> frozenset[str]:
        """The names in staging: files, and batches of them."""
        paths = (path.partition(f"{RESERVED}/") for path in (*self.files, *self.directories))
        return frozenset(above + below.split("/")[0] for above, _, below in paths if below)

    def key(self) -> tuple[object, ...]:
        """Tells states apart: what names hold, and which are in staging; not what is in those."""
        seen = {path: file for path, file in self.files.items() if not in_staging(path)}
        return (self.directories, self.orphans, tuple(sorted(seen.items())))

    def build(self, root: Path) -> None:
        """Make it real."""
        for path in sorted(self.directories):
            (root / path).mkdir()
        made: dict[int, Path] = {}
        for path, (content, mode) in self.files.items():
            first = made.setdefault(self.nodes[path], root / path)
            if first != root / path:
                (root / path).hardlink_to(first)
                continue
            first.write_bytes(content)
            first.chmod(mode)


def in_staging(path: str) -> bool:
    """Whether a path lies in a directory of ours."""
    return RESERVED in path.split("/")[:-1]


class LossyDisk:
    """Takes the log step by step. `promised` says of each path what it may hold after a loss now."""

    def __init__(self, start: Snapshot) -> None:
        self._names = {node: dict(names) for node, names in start.names.items()}
        self._files = dict(start.files)
        #: Steps by the directory or file that they wait in for a flush.
        self._unflushed: dict[int, list[Names | Data | Cut | Mode]] = {}
        files = self.everything().files
        self.promised: dict[str, list[Version]] = {path: [version] for path, version in files.items()}

    def take(self, step: Step) -> None:
        """The next step of the log."""
        match step:
            case Born():
                if step.is_directory:
                    self._names[step.node] = {}
                else:
                    self._files[step.node] = (step.content, step.mode)
            case Names():
                self._unflushed.setdefault(step.directory, []).append(step)
            case Data() | Cut() | Mode():
                self._unflushed.setdefault(step.node, []).append(step)
            case Flush():
                self._settle(step.node)
            case Promise():
                known = [] if step.acknowledged else self.promised.get(step.path, [None])
                self.promised[step.path] = [*known, step.version]

    def _settle(self, node: int) -> None:
        steps = self._unflushed.pop(node, [])
        if node in self._files:
            self._files[node] = _written(self._files[node], steps, [WHOLE] * len(steps))
        for step in steps:
            if isinstance(step, Names):
                _change(self._names, step)

    def everything(self) -> Crashed:
        """What is on the disk while the power is on: all steps, in their order."""
        tree = self._tree([1] * len(self._waiting()))
        torn = self._torn(tree.values())
        return self._state(tree, torn, [WHOLE] * len(torn))

    def losses(self, random: Random, limit: int) -> Iterator[Crashed]:
        """States after a loss of power now: all that differ, or about `limit`, the extremes among them."""
        seen = set()
        for kept in choices(random, [2] * len(self._waiting()), limit):
            tree = self._tree(kept)
            torn = self._torn(node for path, node in tree.items() if not in_staging(path))
            fates = [4 if isinstance(step, Data) else 2 for _, step in torn]
            for fate in choices(random, fates, _OUTCOMES):
                state = self._state(tree, torn, fate)
                if state.key() not in seen:
                    seen.add(state.key())
                    yield state

    def _waiting(self) -> list[Names]:
        return [step for steps in self._unflushed.values() for step in steps if isinstance(step, Names)]

    def _torn(self, nodes: Iterable[int]) -> list[tuple[int, Names | Data | Cut | Mode]]:
        found = {node for node in nodes if node in self._files}
        return [(node, step) for node in sorted(found) for step in self._unflushed.get(node, [])]

    def _tree(self, kept: Sequence[int]) -> dict[str, int]:
        """What each path leads to when only these of the waiting steps have reached the disk."""
        names = {node: dict(entries) for node, entries in self._names.items()}
        for step, is_kept in zip(self._waiting(), kept, strict=True):
            if is_kept:
                _change(names, step)
        tree: dict[str, int] = {}
        todo = [("", 0)]
        while todo:
            above, directory = todo.pop()
            for name, node in names[directory].items():
                tree[above + name] = node
                if node in names:
                    todo.append((f"{above}{name}/", node))
        return tree

    def _state(
        self, tree: dict[str, int], torn: list[tuple[int, Names | Data | Cut | Mode]], fates: Sequence[int]
    ) -> Crashed:
        files = dict(self._files)
        for (node, step), fate in zip(torn, fates, strict=True):
            files[node] = _written(files[node], [step], [fate])
        return Crashed(
            frozenset(path for path, node in tree.items() if node in self._names),
            {path: files[node] for path, node in tree.items() if node in files},
            tree,
        )

    def broken(self, state: Crashed) -> str:
        """Which promise the state breaks, or nothing."""
        for path, versions in self.promised.items():
            if not in_staging(path) and state.files.get(path) not in versions:
                return f"{path} holds {state.files.get(path)}, not one of {versions}"
        strangers = [path for path in state.files if path not in self.promised and not in_staging(path)]
        return f"nobody made {strangers}" if strangers else ""


def _change(names: dict[int, dict[str, int]], step: Names) -> None:
    for name, node in step.changes:
        if node is None:
            names[step.directory].pop(name, None)
        else:
            names[step.directory][name] = node


def _written(file: File, steps: Sequence[Names | Data | Cut | Mode], fates: Sequence[int]) -> File:
    content, mode = file
    for step, fate in zip(steps, fates, strict=True):
        if isinstance(step, Mode) and fate == WHOLE:
            mode = step.mode
        elif isinstance(step, Cut) and fate == WHOLE:
            content = content[: step.size]
        elif isinstance(step, Data) and fate != LOST:
            data = step.data[: len(step.data) // 2] if fate == SHORT else step.data
            data = bytes(len(data)) if fate == ZEROS else data
            end = step.offset + len(data)
            content = content[: step.offset].ljust(step.offset, b"\0") + data + content[end:]
    return content, mode


def choices(random: Random, sizes: Sequence[int], limit: int) -> Iterator[tuple[int, ...]]:
    """One of `size` for each of `sizes`: all combinations, or `limit` of them.

    Then the first are: all lost, all kept, and each alone lost or kept.
    """
    if prod(sizes) <= limit:
        yield from product(*map(range, sizes))
        return
    firsts = [(fate,) * len(sizes) for fate in (LOST, WHOLE)]
    for at in range(len(sizes)):
        firsts += [(*few[:at], 1 - few[at], *few[at + 1 :]) for few in firsts[:2]]
    yield from firsts[:limit]
    for _ in range(limit - len(firsts)):
        yield tuple(random.randrange(size) for size in sizes)
