"""Every verb, and who may: both doors call only this.

Plain functions that may block: a door calls the short ones where it stands and hands the rest to a pool.
Each takes the `Principal` that asks and raises `PermissionError` before it touches the disk where the right
is missing. What a caller may not see does not exist for it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from fileexport.compression import Order, check_order, least_room, place_of, read_form, replaced, target_of
from fileexport.disk.jail import Entry
from fileexport.errors import BadRequestError, DestinationNotFound
from fileexport.exports_reading import ANY, MAX_LISTED, Pattern, file_version
from fileexport.exports_uploads import Uploading
from fileexport.leases import Place
from fileexport.paths import RelPath
from fileexport.stepping import Stepping
from fileexport.tokens import Principal, Right
from fileexport.wire import messages as m

__all__ = ("ANY", "MAX_LISTED", "Exports", "Pattern", "file_version")


class Exports(Uploading):
    """The exported directories of one tree: all of it, or just `directories`."""

    def remove_file(self, who: Principal, path: RelPath) -> None:
        """Remove one file, or a link itself. Raises `FileNotFoundError`, `IsADirectoryError`."""
        self._require(who, Right.DELETE)
        view, rest = self._place(who, path)
        if not rest:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not self._tree.remove(view, rest.parent, [rest.name]):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def remove_held(self, who: Principal, path: RelPath, check: Callable[[], object], *, holder: str) -> None:
        """As `remove_file`, behind a `check` that may raise: nobody of ours writes the file between the two.

        `holder` is what others are told who want to write it meanwhile. Raises `BusyError` where somebody
        writes it now.
        """
        self._require(who, Right.DELETE)
        view, rest = self._place(who, path)
        parent = self._tree.stat(view, rest.parent)
        place = Place(parent.st_dev, parent.st_ino, rest.name)
        with self._leases.take(place, holder, time.time_ns()):
            check()
            self.remove_file(who, path)

    def remove_matching(self, who: Principal, path: RelPath, pattern: Pattern) -> int:
        """Remove the files of one directory that match; count what is gone.

        What counts as a file is what `files` lists. Never a directory, never below it.
        """
        self._require(who, Right.DELETE)
        view, rest = self._place(who, path)

        def choose(entry: Entry) -> bool:
            return pattern.matches(entry.name) and self._as_file(view, rest, entry) is not None

        return self._tree.remove_chosen(view, rest, choose)

    def remove_path(
        self,
        who: Principal,
        path: RelPath,
        *,
        recursive: bool = False,
        check: Callable[[], object] = lambda: None,
    ) -> int:
        """Remove a file, a link itself, an empty directory, or with `recursive` any; how many entries went.

        Durable when it returns. `check` may raise between two entries; after any error some may be gone.
        Raises `IsADirectoryError` for a directory that is not empty, `PermissionError` for one that is
        exported or holds such a one, `BusyError` where somebody writes into it, `ConflictError`, `OSError`.
        """
        self._require(who, Right.DELETE)
        self._refuse_exported(who, path)
        view, rest = self._place(who, path)
        return self._tree.remove_tree(view, rest, recursive=recursive, check=check)

    def rename(
        self, who: Principal, path: RelPath, target: RelPath, *, replace: bool = False, holder: str
    ) -> None:
        """Give a file, a link itself or a directory another name, in one step and durably.

        It is the step of that name of `carry_out`, and raises what became of it.
        """
        [error] = self.carry_out(who, [m.MoveStep(path, target, replace)], holder=holder)
        if error is not None:
            raise error

    def make_directory(self, who: Principal, path: RelPath, *, exist_ok: bool = False) -> None:
        """Make a directory, durably. Raises `FileExistsError`; with `exist_ok` only for what is none.

        Raises `DestinationNotFound` where the directory above is not there, `FileNameError`, `OSError`.
        """
        self._require(who, Right.WRITE)
        if self._is_there(who, path):
            if not exist_ok:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            return
        target = self._target(who, path)
        self._parent(target)
        self._tree.make_directory(target.view, target.path, exist_ok=exist_ok)

    def make_directories(self, who: Principal, path: RelPath) -> int:
        """Make a directory and all that are missing above it, durably; how many were made.

        Raises `FileExistsError` where it is something else, `NotADirectoryError` where one above it is,
        `DestinationNotFound` outside of what `who` may see, `FileNameError` before anything is made,
        `OSError`.
        """
        self._require(who, Right.WRITE)
        if self._is_there(who, path):
            return 0
        target = self._target(who, path)
        try:
            return self._tree.make_directories(target.view, target.path)
        except FileNotFoundError:
            # An exported directory is gone, or one on the way, this very moment.
            raise DestinationNotFound from None

    def make_parents(self, who: Principal, path: RelPath) -> None:
        """Make the directories above a path that are missing, durably.

        Raises as `make_directories`, but `NotADirectoryError` wherever something else is in the way.
        """
        try:
            self.make_directories(who, path.parent)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None

    def carry_out(self, who: Principal, steps: Iterable[m.AnyStep], *, holder: str) -> list[Exception | None]:
        """Make many small changes, in their order: what became of each, None for what is durable now.

        A step that fails does not keep the next from being tried. `holder` is what others are told who want
        to write the same name meanwhile. The errors are those of `Steps`, `NotGranted` for a step that `who`
        may not do, `PermissionError` for an exported directory, and `BusyError` where somebody writes.
        """

        def check(step: m.AnyStep) -> None:
            self._require(who, Right.DELETE if isinstance(step, m.RemoveStep) else Right.WRITE)
            if isinstance(step, m.MakeStep):
                if self._is_there(who, step.path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            elif not isinstance(step, m.SetStep):
                self._refuse_exported(who, step.path)
            if isinstance(step, m.MoveStep):
                self._refuse_exported(who, step.target)

        stepping = Stepping(self._tree, self._targets(who), self._leases, holder=holder)
        return stepping.run(steps, check)

    def make_file(self, who: Principal, path: RelPath, *, exist_ok: bool = False) -> None:
        """Make an empty file, durably; one that is there with `exist_ok` stays as it is.

        Raises `FileExistsError`, with `exist_ok` only for what is no file; else as `make_directory`.
        """
        self._require(who, Right.WRITE)
        target = self._target(who, path)
        self._parent(target)
        self._tree.make_file(target.view, target.path, exist_ok=exist_ok, exported=target.exported)

    def compress_order(
        self, who: Principal, source: RelPath, format: str, *, sums: bool = False
    ) -> dict[str, Any]:
        """What `fileexport.compression` shall do: make an archive of a file or a directory, beside it.

        `format` is the value of an `ArchiveForm`. The order is what JSON can hold; `target` in it is the
        archive's path, and `place` is the same whatever links led there. Raises as the work would, so far as
        it can be seen now: `FileNotFoundError`, `ConflictError` where it would become its own archive,
        `IsADirectoryError` where a directory has the archive's name, `FileNameError`, `OSError` (EROFS, and
        ENOSPC where there is no room for a tenth of a file, or where only the reserve is left: how much a
        directory holds the work counts), and `BadRequestError` for what the format cannot hold, for one that
        does not exist, and for an exported directory itself.
        """
        self._require(who, Right.WRITE)
        form = read_form(format)
        view, rest = self._place(who, source)
        if not rest:
            raise BadRequestError("there is no place beside an exported directory: name what is in it")
        with self._tree.open(view, rest) as opened:
            is_directory, found = opened.is_directory, opened.stat
        target = target_of(source, form, is_directory=is_directory)
        check_order(source, target, form, is_directory=is_directory, sums=sums)
        archive = rest.parent / target.name
        self._tree.check_new(view, archive)
        replaced(self._tree, view, archive, found)
        if self._tree.room(view, rest.parent) < least_room(0 if is_directory else found.st_size):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        exported = next(one for one in self._directories if view.base.beneath(one) is not None)
        place = place_of(self._tree, view, archive)
        return Order(source, target, form, sums, view.base, exported, view.hidden, place).as_json()
