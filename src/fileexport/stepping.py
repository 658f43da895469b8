"""Many small changes that come in together: each is found, held against other writers, and carried out.

Blocking, called in pool threads, one thread at a time for each.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable
from typing import assert_never

from fileexport.disk.staging import Identity, identity
from fileexport.disk.steps import Steps, require_expected
from fileexport.disk.views import View
from fileexport.errors import ConflictError, DestinationNotFound, FileExportError
from fileexport.leases import Lease, Leases, Place
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
        #: Where the last step was, and what is not flushed there: one group at a time holds directories open.
        self._place: tuple[View, RelPath] | None = None
        self._steps: Steps | None = None
        self._unflushed: OSError | None = None

    def run(self, steps: Iterable[m.AnyStep], check: Callable[[m.AnyStep], object]) -> list[Exception | None]:
        """What became of each: an error, or None for what is on stable storage now.

        `check` may refuse a step, by an exception. One that fails does not keep the next from being tried.
        """
        results: list[Exception | None] = []
        try:
            for step in steps:
                try:
                    check(step)
                    self._take(step)
                except (OSError, FileExportError) as error:
                    results.append(error)
                else:
                    results.append(None)
        finally:
            self._finish()
        return [error or self._unflushed for error in results]

    def _finish(self) -> None:
        """Flush all. After an error nobody knows which of them are on the disk."""
        steps, self._steps = self._steps, None
        if steps is not None:
            try:
                steps.finish()
            except OSError as error:
                self._unflushed = error

    # -- each kind

    def _take(self, step: m.AnyStep) -> None:
        match step:
            case m.MakeStep():
                target = self._find(step.path)
                self._at(target).make(target.path, step.mode)
            case m.LinkStep():
                target = self._find(step.path)
                self._at(target).link(target.path, os.fsdecode(step.target), step.replace)
            case m.MoveStep():
                self._move(step)
            case m.RemoveStep():
                target = self._find_old(step.path)
                self._at(target).remove(target.path, (step.size, step.mtime))
            case m.SetStep():
                target = self._find_old(step.path)
                expected = step.old_size, step.old_mtime
                self._at(target).set(target.path, step.mtime, step.mode, expected)
            case _:
                assert_never(step)

    def _move(self, step: m.MoveStep) -> None:
        old, new = self._find_old(step.path), self._find(step.target)
        if (old.view, old.exported) == (new.view, new.exported):
            self._at(old).move(old.path, new.path, step.replace, (step.size, step.mtime))
        else:
            self._move_far(old, new, step)

    def _move_far(self, old: Target, new: Target, step: m.MoveStep) -> None:
        """From one exported directory to another: a file only, links are bound to their own."""
        try:
            parent = self._files.stat(new.view, new.path.parent)
        except FileNotFoundError:
            raise DestinationNotFound from None
        above = self._files.stat(old.view, old.path.parent)
        with self._hold(identity(parent), new.path.name), self._hold(identity(above), old.path.name):
            status = self._files.lstat(old.view, old.path)
            require_expected(status, (step.size, step.mtime))
            if not stat.S_ISREG(status.st_mode):
                raise ConflictError("only a file can be moved from one exported directory to another")
            self._files.rename(old.view, old.path, new.view, new.path, replace=step.replace)

    # -- where it is

    def _find_old(self, path: RelPath) -> Target:
        try:
            return self._find(path)
        except DestinationNotFound:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def _at(self, target: Target) -> Steps:
        place = (target.view, target.exported)
        if self._steps is None or place != self._place:
            self._finish()
            self._place = place
            self._steps = self._files.steps(target.view, exported=target.exported, hold=self._hold)
        return self._steps

    def _hold(self, directory: Identity, name: str) -> Lease:
        return self._leases.take(Place(*directory, name), self._holder, time.time_ns())
