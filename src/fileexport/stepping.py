"""Many small changes that come in together: each is found, held against other writers, and carried out.

Blocking, called in pool threads, one thread at a time for each.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import singledispatchmethod

from fileexport.disk.staging import Identity, identity
from fileexport.disk.steps import Steps
from fileexport.disk.views import View
from fileexport.errors import ConflictError, DestinationNotFound, FileExportError
from fileexport.leases import Leases, Place
from fileexport.paths import RelPath
from fileexport.uploads import Files, Target
from fileexport.wire import messages as m


class Stepping:
    """Carries out steps one after the other. `find` says where a path is, and raises `DestinationNotFound`.

    `holder` is what others are told who want the same name meanwhile.
    """

    def __init__(
        self, files: Files, find: Callable[[RelPath], Target], leases: Leases, *, holder: str
    ) -> None:
        self._files = files
        self._find = find
        self._leases = leases
        self._holder = holder
        self._groups: dict[tuple[View, RelPath], Steps] = {}

    def run(self, steps: Iterable[m.Step], check: Callable[[m.Step], object]) -> list[Exception | None]:
        """What became of each: an error, or None for what is on stable storage now.

        `check` may refuse a step, by an exception. One that fails does not keep the next from being tried.
        """
        results: list[Exception | None] = []
        with ExitStack() as ending:
            ending.callback(self._close)
            for step in steps:
                try:
                    check(step)
                    self._take(step)
                except (OSError, FileExportError) as error:
                    results.append(error)
                else:
                    results.append(None)
            unflushed = self._finish()
        return [error or unflushed for error in results]

    def _finish(self) -> OSError | None:
        """Flush all. After an error nobody knows which of them are on the disk."""
        failed = None
        for steps in self._groups.values():
            try:
                steps.finish()
            except OSError as error:
                failed = error
        return failed

    def _close(self) -> None:
        with ExitStack() as closing:
            for steps in self._groups.values():
                closing.callback(steps.close)

    # -- each kind

    @singledispatchmethod
    def _take(self, step: m.Step) -> None:
        raise NotImplementedError(type(step).__name__)

    @_take.register
    def _make(self, step: m.MakeStep) -> None:
        target = self._find(step.path)
        self._steps(target).make(target.path)

    @_take.register
    def _link(self, step: m.LinkStep) -> None:
        target = self._find(step.path)
        self._steps(target).link(target.path, os.fsdecode(step.target), step.replace)

    @_take.register
    def _move(self, step: m.MoveStep) -> None:
        old, new = self._find_old(step.path), self._find(step.target)
        if (old.view, old.exported) == (new.view, new.exported):
            self._steps(old).move(old.path, new.path, step.replace)
        else:
            self._move_far(old, new, replace=step.replace)

    @_take.register
    def _remove(self, step: m.RemoveStep) -> None:
        target = self._find_old(step.path)
        self._steps(target).remove(target.path)

    @_take.register
    def _set(self, step: m.SetStep) -> None:
        target = self._find_old(step.path)
        self._steps(target).set(target.path, step.mtime, step.mode)

    def _move_far(self, old: Target, new: Target, *, replace: bool) -> None:
        """From one exported directory to another: a file only, links are bound to their own."""
        if not stat.S_ISREG(self._files.lstat(old.view, old.path).st_mode):
            raise ConflictError("only a file can be moved from one exported directory to another")
        try:
            parent = self._files.stat(new.view, new.path.parent)
        except FileNotFoundError:
            raise DestinationNotFound from None
        above = self._files.stat(old.view, old.path.parent)
        with self._hold(identity(parent), new.path.name), self._hold(identity(above), old.path.name):
            self._files.rename(old.view, old.path, new.view, new.path, replace=replace)

    # -- where it is

    def _find_old(self, path: RelPath) -> Target:
        try:
            return self._find(path)
        except DestinationNotFound:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def _steps(self, target: Target) -> Steps:
        place = (target.view, target.exported)
        steps = self._groups.get(place)
        if steps is None:
            steps = self._files.steps(target.view, exported=target.exported, hold=self._hold)
            self._groups[place] = steps
        return steps

    @contextmanager
    def _hold(self, directory: Identity, name: str) -> Iterator[None]:
        lease = self._leases.take(Place(*directory, name), self._holder, time.time_ns())
        try:
            yield
        finally:
            lease.release()
