"""What the transfer protocol does to a jail: uploads in parts, batches, whole directories."""

from __future__ import annotations

import os
import stat
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

from fileexport.disk import batches, flushing, partials
from fileexport.disk.jail import Jail, View
from fileexport.disk.partials import KEPT, UNKNOWN_SIZE, Partial
from fileexport.disk.recovery import PATIENCE
from fileexport.disk.steps import Steps
from fileexport.paths import RelPath
from tests.proof.disk_scenarios import P, Scenario, Setting, Tree, left


class NewVersion(Scenario):
    """A file that was there gets a new version."""

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        real = setting.place.real
        self.before[real] = setting.old
        self.after = {**self.before, real: b"".join(setting.pieces)}

    def told(self) -> str:
        return "committed"


class Resume(NewVersion):
    """It comes in two parts: suspended after the first, then gone on with.

    A recovery at once takes nothing of it, whatever time it has. Whatever was kept is looked at, and a day
    passes before another one.
    """

    def begin(self, jail: Jail) -> Partial:
        size = sum(map(len, self.setting.pieces))
        return jail.partial(self.view, self.path, size=size, key=b"source", owner=b"owner")

    def run(self, jail: Jail) -> str:
        content = b"".join(self.setting.pieces)
        few = len(content) // 8 + 1
        with patch.object(partials, "_NOTE_EVERY", few), patch.object(partials, "_FLUSH_EVERY", 2 * few):
            partial = self.begin(jail)
            try:
                for piece in self.setting.pieces:
                    partial.write(piece)
                    partial.suspend()
                    partial = self.begin(jail)
                    assert content.startswith(read(partial)), "what was kept is not the beginning"
                    partial.write(content[partial.offset :][: len(piece)])
                partial.write(content[partial.offset :])
                partial.commit(mtime_ns=self.setting.mtime_ns)
            finally:
                partial.suspend()
        return "committed"

    def recover(self) -> int:
        with closing(Jail(str(self.root), durable=False)) as jail:
            before = len(left(self.root))
            there = kept_in(self.root)
            jail.recover([P(""), self.view.base])
            assert kept_in(self.root) == there, "what can be continued is gone"
            if left(self.root):
                partial = self.begin(jail)
                kept = read(partial)
                partial.suspend()
                assert b"".join(self.setting.pieces).startswith(kept), "what was kept is not the beginning"
            gone = before - len(left(self.root))
            later = time.time_ns() + 2 * PATIENCE
            return gone + jail.recover([P(""), self.view.base], now=later)


def kept_in(root: Path) -> list[Path]:
    """What can be continued."""
    return [path for path in left(root) if path.name.startswith(KEPT)]


class Rewind(Resume):
    """The same, while each piece comes wrong at first and is cut off again: nothing of that is ever kept.

    The last of the wrong ones is left behind its mark, as by who is gone; then it comes right.
    """

    def run(self, jail: Jail) -> str:
        content = b"".join(self.setting.pieces)
        few = len(content) // 8 + 1
        with patch.object(partials, "_NOTE_EVERY", few), patch.object(partials, "_FLUSH_EVERY", 2 * few):
            partial = self.begin(jail)
            try:
                while partial.offset < len(content):
                    piece = content[partial.offset :][: 5 * few]
                    mark = partial.mark()
                    partial.write(wrong(piece))
                    partial.rewind(mark)
                    partial.mark()
                    partial.write(piece)
                    partial.accept()
                    if partial.offset < len(content):
                        partial.mark()
                        partial.write(wrong(content[partial.offset :][:few]))
                        partial.suspend()
                        partial = self.begin(jail)
                        assert content.startswith(read(partial)), "what was kept is not the beginning"
                partial.commit(mtime_ns=self.setting.mtime_ns)
            finally:
                partial.suspend()
        return "committed"


def wrong(content: bytes) -> bytes:
    """As long, and not the same."""
    return bytes(byte ^ 0x55 for byte in content)


class UnknownSize(NewVersion):
    """A file of which nobody said how long it will be."""

    def run(self, jail: Jail) -> str:
        partial = jail.partial(self.view, self.path, size=UNKNOWN_SIZE)
        try:
            for piece in self.setting.pieces:
                partial.write(piece)
            mark = partial.mark()
            partial.write(b"too much")
            partial.rewind(mark)
            partial.commit(mtime_ns=self.setting.mtime_ns)
        finally:
            partial.suspend()
        return "committed"


class Forget(Resume):
    """What was kept of a new version goes; the old one stays."""

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        self.after = self.before

    def run(self, jail: Jail) -> str:
        partial = self.begin(jail)
        try:
            partial.write(b"".join(self.setting.pieces)[partial.offset :])
        finally:
            partial.suspend()
        size = partial.size
        kept = jail.kept(self.view, self.path, size=size, key=b"source", owner=b"owner")
        assert kept == size, "what was suspended is not kept"
        gone = jail.forget(self.view, self.path, size=size, key=b"source", owner=b"owner")
        assert gone == bool(size), "what was kept is not gone"
        return "forgotten"

    def told(self) -> str:
        return "forgotten"


def read(partial: Partial) -> bytes:
    """What a partial holds up to its offset."""
    return os.pread(partial.descriptor, partial.offset, 0)


class Batched(Scenario):
    """Small files that were there or not get new versions together; each is flushed."""

    names = ("file", "new", "other-new")
    flushed = flushing.MAX_FLUSHED

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        place = os.path.dirname(setting.place.real)
        self.before[setting.place.real] = setting.old
        new = {os.path.join(place, name): b"".join(setting.pieces) + name.encode() for name in self.names}
        trees = [dict(self.before)]
        for path, content in new.items():
            trees += [{**tree, path: content} for tree in trees]
        *self.between, self.after = trees[1:]

    def run(self, jail: Jail) -> str:
        content = b"".join(self.setting.pieces)
        batch = jail.batch(self.view, replace=True)
        try:
            with patch.object(batches, "MAX_FLUSHED", self.flushed):
                for name in self.names:
                    path = self.path.parent / name
                    batch.add(path, content + name.encode(), self.setting.mtime_ns)
                for error in batch.commit():
                    if error is not None:
                        raise error
        finally:
            batch.discard()
        return "committed"

    def told(self) -> str:
        return "committed"


class BatchedTogether(Batched):
    """The same, flushed together."""

    flushed = 0


class MakeDirectory(Scenario):
    """A directory that was not there."""

    flushes = True

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        place = os.path.join(os.path.dirname(setting.place.real), "made/")
        self.after = {**self.before, place: b""}

    def run(self, jail: Jail) -> str:
        jail.make_directory(self.view, self.path.parent / "made", exist_ok=True)
        return "made"

    def told(self) -> str:
        return "made"


class MakeDirectories(Scenario):
    """A directory that was not there, and one in it, and one in that."""

    flushes = True

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        above = os.path.join(os.path.dirname(setting.place.real), "made/")
        *self.between, self.after = ({**self.before, f"{above}{rest}": b""} for rest in ("", "x/", "x/y/"))

    def run(self, jail: Jail) -> str:
        jail.make_directories(self.view, self.path.parent / "made" / "x" / "y")
        return "made"

    def told(self) -> str:
        return "made"


class Rename(Scenario):
    """A file gets another name in another directory, in place of a file there."""

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        real = setting.place.real
        self.before |= {real: setting.old, "f/renamed": b"replaced"}
        self.after = {path: content for path, content in self.before.items() if path != real}
        self.after["f/renamed"] = setting.old

    def run(self, jail: Jail) -> str:
        try:
            jail.rename(self.view, self.path, View(), P("f/renamed"), replace=True)
        except FileNotFoundError:
            return "gone"
        return "renamed"

    def told(self) -> str:
        return "renamed" if (self.root / self.setting.place.real).exists() else "gone"


class RenameTree(Rename):
    """A directory gets a name that nobody has."""

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        base = f"{setting.place.base}/".lstrip("/")
        self.before |= {f"{base}tree/a": b"1", f"{base}tree/sub/b": b"2"}
        self.after = {path.replace(f"{base}tree/", "f/moved/"): self.before[path] for path in self.before}
        self._tree = root / base / "tree"

    def run(self, jail: Jail) -> str:
        try:
            jail.rename(self.view, P("tree"), View(), P("f/moved"))
        except FileNotFoundError:
            return "gone"
        return "renamed"

    def told(self) -> str:
        return "renamed" if self._tree.exists() else "gone"


class RemoveTree(Scenario):
    """A directory goes with all that is in it."""

    flushes = True

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        base = f"{setting.place.base}/".lstrip("/")
        self._tree = root / base / "tree"
        self.after = dict(self.before)
        files: tuple[Tree, ...] = ({f"{base}tree/a": b"1"}, {})
        below: tuple[Tree, ...] = ({f"{base}tree/sub/b": setting.old}, {f"{base}tree/sub/": b""}, {})
        trees = [{**self.after, **one, **two} for one in files for two in below]
        self.before, *self.between = trees
        self.between[-1][f"{base}tree/"] = b""

    def run(self, jail: Jail) -> str:
        try:
            return str(jail.remove_tree(self.view, P("tree"), recursive=True))
        except FileNotFoundError:
            return "0"

    def told(self) -> str:
        return str(len([*self._tree.rglob("*")]) + self._tree.exists())


class StepScenario(Scenario):
    """Small changes in one go; each is flushed."""

    flushed = flushing.MAX_FLUSHED

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        self.place = os.path.dirname(setting.place.real)

    def real(self, name: str) -> str:
        """A path below the root of what lies beside the file of the setting."""
        return os.path.join(self.place, name)

    def here(self, name: str) -> RelPath:
        """The same as the steps name it."""
        return self.path.parent + P(name)

    def run(self, jail: Jail) -> str:
        with patch.object(flushing, "MAX_FLUSHED", self.flushed), jail.steps(self.view) as all_steps:
            done = sum(self.step(one) for one in self.changes(all_steps))
            all_steps.finish()
        return str(done)

    @staticmethod
    def step(change: Callable[[], object]) -> bool:
        """Make one change, unless it is made."""
        try:
            change()
        except (FileNotFoundError, FileExistsError):
            return False
        return True

    @abstractmethod
    def changes(self, all_steps: Steps) -> list[Callable[[], object]]:
        """The steps."""


class MakeSteps(StepScenario):
    """A directory, and a link in it."""

    flushes = True

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        self.between = [{**self.before, self.real("made/"): b""}]
        self.after = {**self.before, self.real("made/to-file"): b"../file"}

    def changes(self, all_steps: Steps) -> list[Callable[[], object]]:
        return [
            lambda: all_steps.make(self.here("made")),
            lambda: all_steps.link(self.here("made/to-file"), "../file"),
        ]

    def told(self) -> str:
        made = self.root / self.real("made")
        return str(2 - made.exists() - (made / "to-file").is_symlink())


class ReplaceLink(StepScenario):
    """A link leads to somewhere else."""

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        self.before[self.real("to-file")] = b"file"
        self.after = {**self.before, self.real("to-file"): b"other"}

    def prepare(self) -> None:
        super().prepare()
        link = self.root / self.real("to-file")
        link.unlink()
        link.symlink_to("file")

    def changes(self, all_steps: Steps) -> list[Callable[[], object]]:
        return [lambda: all_steps.link(self.here("to-file"), "other", True)]

    def told(self) -> str:
        return "1"


class ChangeSteps(StepScenario):
    """A file takes another's place in another directory, its time and mode are set, what is left goes."""

    flushes = True

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        old, new, link, there = map(self.real, ("going/old", "new", "going/link", "going/"))
        rest = dict(self.before)
        self.before |= {old: setting.old, new: b"".join(setting.pieces), link: b"old"}
        self.after = {**rest, new: setting.old}
        self.between = [
            {**rest, new: setting.old, link: b"old"},
            {**rest, new: setting.old, there: b""},
        ]

    def prepare(self) -> None:
        super().prepare()
        link = self.root / self.real("going/link")
        link.unlink()
        link.symlink_to("old")

    def changes(self, all_steps: Steps) -> list[Callable[[], object]]:
        return [
            lambda: all_steps.move(self.here("going/old"), self.here("new"), True),
            lambda: all_steps.set(self.here("new"), self.setting.mtime_ns, self.setting.mode),
            lambda: all_steps.remove(self.here("going/link")),
            lambda: all_steps.remove(self.here("going")),
        ]

    def told(self) -> str:
        going = self.root / self.real("going")
        steps_left = (going / "old").exists(), (going / "link").is_symlink(), going.exists()
        return str(1 + sum(steps_left))

    def finish(self) -> None:
        status = (self.root / self.real("new")).stat()
        mode, mtime_ns = self.setting.mode, self.setting.mtime_ns
        assert mode is None or stat.S_IMODE(status.st_mode) == mode, "the mode was not set"
        assert mtime_ns is None or status.st_mtime_ns == mtime_ns, "the time was not set"


class ChangeTogether(ChangeSteps):
    """The same, flushed together."""

    flushed = 0
    flushes = False


TRANSFER_SCENARIOS = (
    *(Resume, Rewind, UnknownSize, Forget, Batched, BatchedTogether),
    *(MakeDirectory, MakeDirectories, Rename, RenameTree, RemoveTree),
    *(MakeSteps, ReplaceLink, ChangeSteps, ChangeTogether),
)
