"""Names that are made, moved and removed, all by the descriptors of their directories.

Nothing here follows a link: what is changed is the entry of an open directory. A tree is removed from within,
each directory opened by `O_NOFOLLOW` in the one above, so that whatever is exchanged meanwhile by others,
nothing outside is touched. Few directories are held open, however deep the tree is.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress

from fileexport.disk.calls import Calls
from fileexport.disk.recovery import recover
from fileexport.disk.staging import identity, identity_of
from fileexport.errors import BusyError, ConflictError
from fileexport.paths import RESERVED

#: Directories that a removal holds open at most; those above are found again by `..`.
MAX_HELD = 32

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def make_directory(calls: Calls, parent: int, name: str, *, exist_ok: bool) -> None:
    """Make a directory. Raises `FileExistsError`; with `exist_ok` only where it is no directory itself."""
    try:
        calls.mkdir(name, 0o777, dir_fd=parent)
    except FileExistsError:
        if not exist_ok or not stat.S_ISDIR(calls.lstat(name, dir_fd=parent).st_mode):
            raise


def rename(
    calls: Calls,
    parent: int,
    name: str,
    new_parent: int,
    new_name: str,
    *,
    replace: bool,
    status: os.stat_result | None = None,
) -> None:
    """Give an entry another name, in one step. `status` is what lstat(2) says of it, where that is known.

    A directory never replaces anything, and is never replaced. Raises `FileExistsError` where the name is
    taken without `replace`, `IsADirectoryError`, `ConflictError` for what cannot be moved there at all, else
    `OSError`.
    """
    status = status or calls.lstat(name, dir_fd=parent)
    try:
        old = calls.lstat(new_name, dir_fd=new_parent)
    except FileNotFoundError:
        pass
    else:
        _check_replaced(status, old, replace)
    try:
        move = calls.rename if replace and not stat.S_ISDIR(status.st_mode) else calls.rename_new
        move(name, new_name, dir_fd=parent, new_dir_fd=new_parent)
    except OSError as error:
        if error.errno in _WHY:
            raise ConflictError(_WHY[error.errno]) from None
        raise


_WHY = {
    errno.EXDEV: "the new name lies on another file system: copy it instead",
    errno.EINVAL: "a directory cannot be moved into itself",
    errno.EBUSY: "a file system is mounted there",
}


def _check_replaced(status: os.stat_result, old: os.stat_result, replace: bool) -> None:
    if not replace:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    if identity(status) == identity(old):
        raise ConflictError("both names are the same file")
    if stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


class Removal:
    """One entry of a directory goes, with all that is in it where it is a directory.

    `admits` says which names may go; what may not stays, and so do the directories that hold it. `check` is
    called before each entry and may raise. `durable`: what went is flushed, also when it ends by an error.
    """

    def __init__(
        self, calls: Calls, admits: Callable[[str], bool], check: Callable[[], object], *, durable: bool
    ) -> None:
        self._calls = calls
        self._admits = admits
        self._check = check
        self._durable = durable
        self._removed = 0

    def run(self, parent: int, name: str, *, recursive: bool) -> int:
        """Remove it; how many files and directories went.

        Raises `IsADirectoryError` for a directory that is not empty, in the end too: somebody may have filled
        it meanwhile. Raises `ConflictError` for where a file system is mounted, `BusyError` where somebody
        writes beneath, else `OSError`.
        """
        try:
            if not stat.S_ISDIR(self._calls.lstat(name, dir_fd=parent).st_mode):
                self._calls.unlink(name, dir_fd=parent)
                self._removed += 1
            elif recursive:
                self._remove_all(parent, name)
            else:
                self._rmdir(parent, name)
        finally:
            if self._removed and self._durable:
                self._calls.fsync(parent)
        return self._removed

    def _rmdir(self, parent: int, name: str) -> None:
        try:
            self._calls.rmdir(name, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise IsADirectoryError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY)) from None
            if error.errno == errno.EBUSY:
                raise ConflictError(_WHY[errno.EBUSY]) from None
            raise
        self._removed += 1

    def _remove_all(self, parent: int, name: str) -> None:
        """Remove a directory: down to the first in it, up again when a directory is empty."""
        levels = [self._enter(parent, name, self._calls.mount_of(parent))]
        try:
            while levels:
                here = levels[-1]
                if here.todo:
                    self._take(levels, here.todo.pop())
                else:
                    self._leave(levels, parent)
        finally:
            # The error that ended it counts, whatever comes now.
            for level in levels:
                with suppress(OSError):
                    self._let_go(level)

    def _take(self, levels: list[_Level], name: str) -> None:
        """Remove one entry, or go into it."""
        self._check()
        here = levels[-1]
        with suppress(FileNotFoundError):
            if name == RESERVED:
                here.needs_flush = True
                self._clear(here.descriptor)
            elif not self._admits(name):
                pass
            elif stat.S_ISDIR(self._calls.lstat(name, dir_fd=here.descriptor).st_mode):
                levels.append(self._enter(here.descriptor, name, here.mount))
                if len(levels) > MAX_HELD:
                    self._let_go(levels[-1 - MAX_HELD])
            else:
                self._calls.unlink(name, dir_fd=here.descriptor)
                self._removed += 1
                here.needs_flush = True

    def _enter(self, parent: int, name: str, mount: int) -> _Level:
        descriptor = self._calls.open(name, _DIRECTORY, dir_fd=parent)
        try:
            # Looked at before anything of it goes: a bind mount shows what lies elsewhere, too.
            if self._calls.mount_of(descriptor) != mount:
                raise ConflictError(_WHY[errno.EBUSY])
            names = [entry.name for entry in self._calls.scan(descriptor)]
            return _Level(self._calls, descriptor, name, mount, names)
        except BaseException:
            self._calls.close(descriptor)
            raise

    def _leave(self, levels: list[_Level], parent: int) -> None:
        """Up from an empty directory, which goes."""
        child = levels[-1]
        if len(levels) == 1:
            self._rmdir(parent, child.name)
            child.needs_flush = False
        else:
            above = levels[-2]
            self._hold(above, child)
            with suppress(FileNotFoundError):
                self._rmdir(above.descriptor, child.name)
                child.needs_flush, above.needs_flush = False, True
        self._let_go(levels.pop())

    def _hold(self, level: _Level, child: _Level) -> None:
        if level.descriptor < 0:
            level.descriptor = self._calls.open("..", _DIRECTORY, dir_fd=child.descriptor)
            if identity_of(self._calls, level.descriptor) != level.identity:
                raise ConflictError("the directory was moved while it was removed")

    def _clear(self, directory: int) -> None:
        """A staging of ours, which serves only what is removed here: it goes unless somebody writes there."""
        # A day from now everything is old.
        recover(self._calls, directory, sys.maxsize)
        with suppress(FileNotFoundError):
            self._calls.lstat(RESERVED, dir_fd=directory)
            raise BusyError("someone else is writing below this directory: try again later")

    def _let_go(self, level: _Level) -> None:
        """Close a directory; what went from it is flushed, unless it went itself."""
        try:
            if level.needs_flush and self._durable:
                level.needs_flush = False
                self._calls.fsync(level.descriptor)
        finally:
            level.close()


class _Level:
    """A directory that is being emptied; its descriptor is -1 while it is not held."""

    def __init__(self, calls: Calls, descriptor: int, name: str, mount: int, todo: list[str]) -> None:
        self._calls = calls
        self.descriptor = descriptor
        self.name = name
        self.identity = identity_of(calls, descriptor)
        self.mount = mount
        self.todo = todo
        self.needs_flush = False

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            self._calls.close(descriptor)
