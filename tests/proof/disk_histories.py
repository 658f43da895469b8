"""What happens to a small tree: uploads, removals, recoveries, by plan or by chance; with a log of it all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from unittest.mock import patch

from fileexport.disk import batches, flushing, partials
from fileexport.disk.batches import Batch
from fileexport.disk.jail import Jail, View
from fileexport.disk.partials import UNKNOWN_SIZE
from fileexport.disk.staging import Staged, identity_of
from fileexport.disk.steps import Steps
from fileexport.paths import RelPath
from tests.proof.disk_model import Recording, Version
from tests.proof.lossy_disk import Crashed, File

P = RelPath.parse

DIRECTORIES = ("", "d", "e")
#: Which names there are, and which of them at the start.
NAMES = ("a", "b", "c", "n")
START = ("a", "d/a", "d/b", "d/c", "e/a")
#: No file is born with these, whatever the umask.
_MODES = (0o700, 0o755)


class Killed(BaseException):
    """Stands for the end of a process."""


class History:
    """A jail on a tree of its own, whose `calls` keep the log; `close` it."""

    def __init__(
        self, root: Path, seed: int, kind: type[Recording] = Recording, *, durable: bool = True
    ) -> None:
        self.root = root
        self.random = Random(seed)
        for directory in DIRECTORIES:
            (root / directory).mkdir(parents=True, exist_ok=True)
        for path in START:
            (root / path).write_bytes(self.random.randbytes(40))
            (root / path).chmod(0o644)
        self.calls = kind(root)
        self._jail = Jail(str(root), calls=self.calls, durable=durable)
        self.calls.armed = True
        #: What somebody is at now: nobody else may change it.
        self._busy: set[str] = set()

    def close(self) -> None:
        """Close the jail."""
        self.calls.armed = False
        self._jail.close()

    # -- single operations

    def stage(self, path: str) -> tuple[Staged, File]:
        """Stage a new version, in its directory's own staging or in the root's."""
        directory, _, name = path.rpartition("/")
        view, beneath = self.random.choice(((View(), path), (View(P(directory)), name)))
        staged = self._jail.stage(view, P(beneath))
        pieces = [self.random.randbytes(self.random.randint(1, 30)) for _ in range(self.random.randint(1, 3))]
        for piece in pieces:
            staged.write(piece)
        return staged, (b"".join(pieces), self.random.choice(_MODES))

    def commit(self, path: str, staged: Staged, version: File, *, replace: bool = True) -> None:
        """Give a staged version its name."""
        refused = not replace and (self.root / path).exists()
        self._promise(
            {} if refused else {path: version}, lambda: self._commit(staged, version, replace, refused)
        )

    def _commit(self, staged: Staged, version: File, replace: bool, refused: bool) -> None:
        try:
            staged.commit(mode=version[1], replace=replace)
        except FileExistsError:
            assert refused
        else:
            assert not refused

    def _promise(self, changes: dict[str, Version], function: Callable[[], object]) -> None:
        self._busy |= changes.keys()
        self.calls.begin(changes)
        function()
        self.calls.acknowledge()
        self._busy -= changes.keys()

    def upload(self, path: str, *, replace: bool = True) -> None:
        """A new version of a file."""
        self.commit(path, *self.stage(path), replace=replace)

    def remove(self, directory: str, names: list[str], *, chosen: bool = False) -> None:
        """Remove those of these files that are there."""
        prefix = f"{directory}/" if directory else ""
        there = [f"{prefix}{name}" for name in names if (self.root / prefix / name).exists()]

        def remove() -> None:
            if chosen:
                count = self._jail.remove_chosen(View(), P(directory), lambda entry: entry.name in names)
            else:
                count = self._jail.remove(View(), P(directory), names)
            assert count == len(there)

        self._promise(dict.fromkeys(there), remove)

    def resumed(self, path: str) -> None:
        """A new version in three parts: suspended twice, then committed."""
        # The last bytes are in no journal: only the commit flushes them.
        content, at = self.random.randbytes(52), 0
        with patch.object(partials, "_NOTE_EVERY", 8), patch.object(partials, "_FLUSH_EVERY", 16):
            for end in (20, 40, 52):
                partial = self._jail.partial(View(), P(path), size=52, key=b"source", owner=b"owner")
                assert partial.offset == at
                for start in range(at, end, 10):
                    partial.write(content[start : start + 10])
                if end < 52:
                    partial.suspend()
                    at = end
        version = (content, self._mode_of(path))
        self._promise({path: version}, partial.commit)

    def rewound(self, path: str) -> None:
        """A new version of a size that nobody said: what came in between is cut off again."""
        partial = self._jail.partial(View(), P(path), size=UNKNOWN_SIZE)
        pieces = [self.random.randbytes(self.random.randint(1, 20)) for _ in range(3)]
        partial.write(pieces[0])
        mark = partial.mark()
        partial.write(self.random.randbytes(25))
        partial.rewind(mark)
        for piece in pieces[1:]:
            partial.write(piece)
        version = (b"".join(pieces), self._mode_of(path))
        self._promise({path: version}, partial.commit)

    def decided(self, path: str) -> None:
        """A new version whose writer dies before the directory is flushed; then it is said to be done."""
        staged, version = self.stage(path)
        identity = identity_of(self.calls, staged.descriptor)

        def die() -> None:
            raise Killed

        def decide() -> None:
            self.calls.meanwhile = [die]
            with suppress(Killed):
                staged.commit(mode=version[1])
            assert self._jail.is_committed(View(), P(path), identity)

        self._promise({path: version}, decide)

    def batch(self, paths: list[str], *, together: bool = False) -> None:
        """New versions of several small files in one go."""
        batch = self._jail.batch(View(), replace=True)
        files = {path: (self.random.randbytes(20), self._mode_of(path)) for path in paths}
        changes: dict[str, Version] = {**files}
        with patch.object(batches, "MAX_FLUSHED", 0 if together else 64):
            for path, (content, _) in files.items():
                batch.add(P(path), content)
            self._promise(changes, lambda: self._commit_all(batch, len(paths)))
        batch.discard()

    @staticmethod
    def _commit_all(batch: Batch, count: int) -> None:
        assert batch.commit() == [None] * count

    def _mode_of(self, path: str) -> int:
        """What a new version inherits, or the umask gives."""
        old = self.root / path
        if old.exists():
            return stat.S_IMODE(old.stat().st_mode)
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask

    def make_directory(self, path: str) -> None:
        """A new directory; what is put into it later shows whether it was flushed."""
        self._jail.make_directory(View(), P(path))

    def make_directories(self, path: str) -> None:
        """The same, with all above it."""
        self._jail.make_directories(View(), P(path))

    def rename(self, path: str, name: str) -> None:
        """A file gets another name in its directory.

        A disk that ties no two directories together would lose a file that moves from one to the other, and
        nothing but a second name could help; those that keep a journal do tie them.
        """
        directory = P(path).parent
        old = self.root / path
        version = (old.read_bytes(), stat.S_IMODE(old.stat().st_mode))
        changes: dict[str, Version] = {path: None, str(directory / name).lstrip("/"): version}
        self._promise(
            changes,
            lambda: self._jail.rename(View(), P(path), View(), directory / name, replace=True),
        )

    def remove_tree(self, directory: str) -> None:
        """A directory goes with all that is in it."""
        files = [str(path.relative_to(self.root)) for path in (self.root / directory).rglob("*")]

        def remove() -> None:
            assert self._jail.remove_tree(View(), P(directory), recursive=True) == len(files) + 1

        self._promise(dict.fromkeys(files), remove)

    def steps(
        self, changes: dict[str, Version], *todo: Callable[[Steps], object], together: bool = False
    ) -> None:
        """Several small changes in one go."""

        def carry_out() -> None:
            with (
                patch.object(flushing, "MAX_FLUSHED", 0 if together else 64),
                self._jail.steps(View()) as all_steps,
            ):
                for step in todo:
                    step(all_steps)
                all_steps.finish()

        self._promise(changes, carry_out)

    def link(self, path: str, *, together: bool = False) -> None:
        """A link, in place of what is there; nothing has the name that it leads to."""
        link: Version = (b"nothing", 0o777)
        self.steps({path: link}, lambda steps: steps.link(P(path), "nothing", True), together=together)

    def change(self, directory: str, *, together: bool = False) -> None:
        """In one directory a file goes, and another takes the place of a third."""
        gone, moved, target = (f"{directory}/{name}" for name in "abc")
        changes: dict[str, Version] = {gone: None, moved: None, target: on_disk(self.root).files[moved]}
        self.steps(
            changes,
            lambda steps: steps.remove(P(gone)),
            lambda steps: steps.move(P(moved), P(target), True),
            together=together,
        )

    def move(self, path: str, target: str, *, together: bool = False) -> None:
        """A file goes to another directory."""
        changes: dict[str, Version] = {path: None, target: on_disk(self.root).files[path]}
        self.steps(changes, lambda steps: steps.move(P(path), P(target), True), together=together)

    def set_mode(self, path: str, *, together: bool = False) -> None:
        """Other permissions for a file."""
        changes: dict[str, Version] = {path: ((self.root / path).read_bytes(), 0o700)}
        self.steps(changes, lambda steps: steps.set(P(path), None, 0o700), together=together)

    def discard(self, path: str) -> None:
        """Throw a new version away."""
        self.stage(path)[0].discard()

    def abandon(self, path: str) -> None:
        """Leave a new version in staging, as who is killed does."""
        self.calls.leaving = True
        self.discard(path)
        self.calls.leaving = False

    def recover(self) -> None:
        """Clean up, as at a start."""
        self._jail.recover(P(directory) for directory in DIRECTORIES)

    # -- several at once

    def crossed(self, paths: list[str]) -> None:
        """Stage several files at once, and commit them in the other order."""
        staged = [(path, *self.stage(path)) for path in paths]
        for path, file, version in reversed(staged):
            self.commit(path, file, version)

    def crowd(self, paths: list[str]) -> None:
        """Commit several files so that all are renamed before the first directory is flushed."""
        first, *others = paths
        self.calls.meanwhile = [partial(self.upload, path) for path in others]
        self.upload(first)

    def by_chance(self, operations: int) -> None:
        """So many operations, one after the other or one amid another."""
        for _ in range(operations):
            self.calls.meanwhile = [self._any_one] * self.random.choice((0, 0, 1, 2, 3))
            self._any_one()

    def _any_one(self) -> None:
        paths = [path for path in self._all_paths() if path not in self._busy]
        some = self.random.sample(paths, self.random.randint(2, 4))
        directory = self.random.choice(DIRECTORIES)
        prefix = f"{directory}/" if directory else ""
        names = [name for name in NAMES if f"{prefix}{name}" in paths and self.random.random() < 0.6]
        self.random.choices(
            (
                lambda: self.upload(some[0], replace=self.random.random() < 0.7),
                lambda: self.remove(directory, names, chosen=self.random.random() < 0.5),
                lambda: self.crossed(some),
                lambda: self.batch(some, together=self.random.random() < 0.5),
                lambda: self.resumed(some[0]),
                lambda: self.rewound(some[0]),
                lambda: self.discard(some[0]),
                lambda: self.abandon(some[0]),
                self.recover,
            ),
            (6, 4, 2, 2, 2, 1, 1, 1, 1),
        )[0]()

    def _all_paths(self) -> list[str]:
        return [f"{directory}/{name}" if directory else name for directory in DIRECTORIES for name in NAMES]

    def on_disk(self) -> Crashed:
        """What is there now."""
        return on_disk(self.root)


def on_disk(root: Path) -> Crashed:
    """What is there, in the model's words."""
    paths = {str(path.relative_to(root)): path for path in root.rglob("*")}
    return Crashed(
        frozenset(name for name, path in paths.items() if path.is_dir()),
        {
            name: (_content(path), stat.S_IMODE(path.lstat().st_mode))
            for name, path in paths.items()
            if not path.is_dir()
        },
    )


def _content(path: Path) -> bytes:
    return os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()


Plan = tuple[Callable[[History], object], ...]

#: Histories by plan, short enough for every state of each to be looked at.
PLANS: dict[str, Plan] = {
    "create": (lambda history: history.upload("d/n"),),
    "create in the root": (lambda history: history.upload("n"),),
    "overwrite": (lambda history: history.upload("d/a"),),
    "twice": (lambda history: history.upload("d/n"),) * 2,
    "create only": (lambda history: history.upload("d/n", replace=False),),
    "refused": (lambda history: history.upload("d/a", replace=False),),
    "discard": (lambda history: history.discard("d/a"),),
    "crossed": (lambda history: history.crossed(["d/a", "d/n", "e/a"]),),
    "crowd": (lambda history: history.crowd(["d/a", "d/b", "d/n", "e/a"]),),
    "remove": (lambda history: history.remove("d", ["missing", "a", "b", "c"]),),
    "remove chosen": (lambda history: history.remove("d", ["a", "b", "c"], chosen=True),),
    "remove and create": (
        lambda history: history.remove("d", ["a"]),
        lambda history: history.upload("d/a"),
    ),
    "create and remove": (
        lambda history: history.upload("d/n"),
        lambda history: history.remove("d", ["n"]),
    ),
    "resume": (lambda history: history.resumed("d/a"),),
    "resume and create": (lambda history: history.resumed("d/n"),),
    "decided": (lambda history: history.decided("d/a"), lambda history: history.decided("d/n")),
    "batch": (lambda history: history.batch(["d/a", "d/n", "e/a"]),),
    "batch together": (lambda history: history.batch(["d/a", "d/n"], together=True),),
    "directory": (
        lambda history: history.make_directory("d/s"),
        lambda history: history.upload("d/s/n"),
    ),
    "rewind": (lambda history: history.rewound("d/a"),),
    "rewind and create": (lambda history: history.rewound("d/n"),),
    "directories": (
        lambda history: history.make_directories("d/s/t"),
        lambda history: history.upload("d/s/t/n"),
    ),
    "rename": (lambda history: history.rename("d/a", "b"), lambda history: history.rename("d/c", "n")),
    "remove tree": (lambda history: history.remove_tree("e"),),
    "link": (lambda history: history.link("d/n"), lambda history: history.link("d/a")),
    "link together": (lambda history: history.link("d/a", together=True),),
    "steps": (lambda history: history.change("d"),),
    "steps together": (lambda history: history.change("d", together=True),),
    "move": (lambda history: history.move("d/a", "e/moved"), lambda history: history.move("e/moved", "d/b")),
    "move together": (lambda history: history.move("d/a", "e/moved", together=True),),
    "set": (lambda history: history.set_mode("d/a"),),
    "set together": (lambda history: history.set_mode("d/a", together=True),),
    "recover": (
        lambda history: history.abandon("d/a"),
        lambda history: history.recover(),
        lambda history: history.upload("d/a"),
    ),
}


def by_chance(operations: int) -> Plan:
    """So many operations, one after the other or one amid another."""
    return (lambda history: history.by_chance(operations),)
