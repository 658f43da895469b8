"""Many small changes beneath one directory: each in one step, and all of them flushed together at the end.

Nothing here follows a link in the last name of a path. A link that is made, or moved, leads to the base or
below: what counts is how deep its directory really lies, whatever links led there.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from itertools import islice
from typing import NamedTuple

from fileexport.disk.batches import Home
from fileexport.disk.calls import Calls
from fileexport.disk.changes import Removal, make_directory, rename
from fileexport.disk.recovery import recover
from fileexport.disk.staging import Identity, identity, identity_of
from fileexport.errors import ConflictError, DestinationNotFound
from fileexport.paths import MAX_DEPTH, RESERVED, RelPath
from fileexport.sync.manifest import leads_inside

#: Directories that are held open for the next step in them.
MAX_PARENTS = 64
#: Up to so many files and directories are flushed one by one, more by a flush of their whole file system.
MAX_FLUSHED = 64

_O_PATH = getattr(os, "O_PATH", 0)
_PASS = (_O_PATH or os.O_RDONLY) | os.O_DIRECTORY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY

#: Holds a name of a directory while it is changed; may raise, where somebody else writes it.
Hold = Callable[[Identity, str], AbstractContextManager[object]]


def unheld(directory: Identity, name: str) -> AbstractContextManager[object]:
    """Nobody else writes."""
    return nullcontext()


class Ground(NamedTuple):
    """What the steps stand on: the calls, and what a jail knows of its view.

    `open` opens a directory by its path, for reading; `check_new` refuses a name that may not be created,
    `admits` one that may not be seen. `base` holds the view's own directory open, `exported` the one whose
    staging is used.
    """

    calls: Calls
    open: Callable[[RelPath], int]
    check_new: Callable[[RelPath], None]
    admits: Callable[[str], bool]
    base: Callable[[], AbstractContextManager[int]]
    exported: Callable[[], AbstractContextManager[int]]


class _Parent:
    """A directory that steps are done in."""

    __slots__ = ("descriptor", "identity", "is_touched")

    def __init__(self, descriptor: int, identity: Identity) -> None:
        self.descriptor = descriptor
        self.identity = identity
        self.is_touched = False


class Steps:
    """Changes one after the other, durable after `finish`. Not thread-safe. It ends by `close`, and must.

    A step that raises has changed nothing, and the next one can be tried. All raise `OSError`,
    `FileNameError`, `ConflictError`, and what `hold` raises.
    """

    def __init__(self, ground: Ground, *, hold: Hold = unheld, durable: bool = True) -> None:
        self._ground = ground
        self._calls = ground.calls
        self._hold = hold
        self._touched = _Touched(ground.calls, durable=durable)
        self._parents: dict[RelPath, _Parent] = {}
        self._homes: dict[int, Home] = {}
        self._staged = 0

    def make(self, path: RelPath) -> None:
        """Make a directory, its mode from the umask. Raises `FileExistsError` where the name is taken.

        Raises `DestinationNotFound` where the directory above is not there.
        """
        self._make_room()
        with self._changing(self._new_parent(path), path.name) as parent:
            make_directory(self._calls, parent, path.name, exist_ok=False)

    def link(self, path: RelPath, target: str, replace: bool = False) -> None:
        """Make a link with this text, in place of a file or a link with `replace`.

        Raises `FileExistsError`, `IsADirectoryError`, `ConflictError` where it would lead outside, and
        `DestinationNotFound`.
        """
        self._make_room()
        above = self._new_parent(path)
        self._require_inside(above, path.name, target)
        with self._changing(above, path.name) as parent:
            try:
                self._calls.symlink(target, path.name, dir_fd=parent)
            except FileExistsError:
                if not replace:
                    raise
                self._replace(parent, path.name, target)
        self._forget_below(path)

    def move(self, path: RelPath, target: RelPath, replace: bool = False) -> None:
        """Give an entry another name, in place of a file or a link with `replace`.

        Raises as `Jail.rename`, and `ConflictError` for a link that would lead outside from there, or for a
        directory that would be nearer to the base: links in it could.
        """
        self._make_room()
        new = self._new_parent(target)
        old = self._old_parent(path)
        status = self._calls.lstat(path.name, dir_fd=old.descriptor)
        if stat.S_ISLNK(status.st_mode):
            text = self._calls.readlink(path.name, dir_fd=old.descriptor)
            self._require_inside(new, target.name, text)
        elif stat.S_ISDIR(status.st_mode) and self._depth(new) < self._depth(old):
            raise ConflictError("links in the directory could lead outside from there")
        with (
            self._changing(new, target.name) as new_parent,
            self._changing(old, path.name) if path != target else nullcontext(old.descriptor) as parent,
        ):
            rename(self._calls, parent, path.name, new_parent, target.name, replace=replace)
        if not stat.S_ISREG(status.st_mode):
            self._forget_below(path)
        self._forget_below(target)

    def remove(self, path: RelPath) -> None:
        """Remove a file, a link itself or an empty directory; `IsADirectoryError` for one that is not."""
        self._make_room()
        above = self._old_parent(path)
        is_file = stat.S_ISREG(self._calls.lstat(path.name, dir_fd=above.descriptor).st_mode)
        with self._changing(above, path.name) as parent:
            removal = Removal(self._calls, self._ground.admits, lambda: None, durable=False)
            try:
                removal.run(parent, path.name, recursive=False)
            except IsADirectoryError:
                if not self._clear(parent, path.name):
                    raise
                removal.run(parent, path.name, recursive=False)
        if not is_file:
            self._forget_below(path)

    def set(self, path: RelPath, mtime_ns: int | None, mode: int | None) -> None:
        """Give a file or a directory a time, and a mode `& 0o777`; None leaves what is there.

        A directory keeps its other bits (setgid, sticky), a file loses them with a mode. Raises
        `ConflictError` for a link, `PermissionError` for what is neither.
        """
        self._make_room()
        if not path:
            self._set(self._ground.open(path), mtime_ns, mode)
            return
        above = self._old_parent(path)
        require_settable(self._calls.lstat(path.name, dir_fd=above.descriptor))
        with self._hold(above.identity, path.name):
            try:
                descriptor = self._calls.open(path.name, _READ, dir_fd=above.descriptor)
            except PermissionError:
                # Its owner may change what it may not read.
                self._set_unread(above, path.name, mtime_ns, mode)
            else:
                self._set(descriptor, mtime_ns, mode)

    def finish(self) -> None:
        """Flush what was changed: when this returns, all steps that raised nothing are on stable storage.

        More steps may follow. Raises `OSError`: then none of them is for certain.
        """
        with ExitStack() as ending:
            ending.callback(self._touched.flush)
            ending.callback(self._forget_all)
            homes, self._homes = self._homes, {}
            for home in homes.values():
                ending.callback(home.close)

    def close(self) -> None:
        """End it; what was changed and not flushed is flushed, if it can be. A second time does nothing."""
        with suppress(OSError):
            self.finish()

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- links

    def _require_inside(self, parent: _Parent, name: str, target: str) -> None:
        if not leads_inside("d/" * self._depth(parent) + name, target):
            raise ConflictError("the link would lead outside")

    def _depth(self, parent: _Parent) -> int:
        """How deep a directory really lies below the base, whatever links led to it."""
        with self._ground.base() as base:
            return depth_below(self._calls, base, parent.descriptor)

    def _replace(self, parent: int, name: str, target: str) -> None:
        """A link takes a name in one step: it is made in staging."""
        if stat.S_ISDIR(self._calls.lstat(name, dir_fd=parent).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        home = self._home(parent)
        self._staged += 1
        staged = str(self._staged)
        self._calls.symlink(target, staged, dir_fd=home.descriptor)
        try:
            self._calls.rename(staged, name, dir_fd=home.descriptor, new_dir_fd=parent)
        except BaseException:
            with suppress(OSError):
                self._calls.unlink(staged, dir_fd=home.descriptor)
            raise

    def _home(self, target: int) -> Home:
        mount = self._calls.mount_of(target)
        home = self._homes.get(mount)
        if home is None:
            with self._ground.exported() as base:
                home = self._homes[mount] = Home(self._calls, base, target)
        return home

    # -- directories that only we keep

    def _clear(self, parent: int, name: str) -> bool:
        """Whether nothing but a staging of ours was in a directory: it goes, unless somebody writes there."""
        descriptor = self._calls.open(name, _DIRECTORY, dir_fd=parent)
        try:
            if [entry.name for entry in islice(self._calls.scan(descriptor), 2)] != [RESERVED]:
                return False
            # A day from now everything is old.
            recover(self._calls, descriptor, sys.maxsize)
            return True
        finally:
            self._calls.close(descriptor)

    # -- times and modes

    def _set(self, descriptor: int, mtime_ns: int | None, mode: int | None) -> None:
        """Set them by an open descriptor, which is ours from now on."""
        try:
            status = self._calls.fstat(descriptor)
            require_settable(status)
            if mode is not None:
                self._calls.fchmod(descriptor, mode_for(status, mode))
            if mtime_ns is not None:
                self._calls.utime(descriptor, mtime_ns)
        except BaseException:
            self._calls.close(descriptor)
            raise
        self._touched.keep(descriptor, identity(status))

    def _set_unread(self, parent: _Parent, name: str, mtime_ns: int | None, mode: int | None) -> None:
        if not _O_PATH:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        descriptor = self._calls.open(name, _O_PATH | os.O_NOFOLLOW, dir_fd=parent.descriptor)
        try:
            status = self._calls.fstat(descriptor)
            require_settable(status)
            # It cannot be flushed for itself.
            parent.is_touched = True
            self._touched.flush_together()
            if mode is not None:
                self._calls.chmod_held(descriptor, mode_for(status, mode))
            if mtime_ns is not None:
                self._calls.utime_held(descriptor, mtime_ns)
        finally:
            self._calls.close(descriptor)

    # -- directories

    @contextmanager
    def _changing(self, parent: _Parent, name: str) -> Iterator[int]:
        with self._hold(parent.identity, name):
            yield parent.descriptor
            parent.is_touched = True

    def _new_parent(self, path: RelPath) -> _Parent:
        self._ground.check_new(path)
        try:
            return self._parent(path.parent)
        except FileNotFoundError:
            raise DestinationNotFound from None

    def _old_parent(self, path: RelPath) -> _Parent:
        if not path:
            raise PermissionError(errno.EACCES, "the base itself stays where it is")
        if not self._ground.admits(path.name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._parent(path.parent)

    def _parent(self, directory: RelPath) -> _Parent:
        parent = self._parents.get(directory)
        if parent is None:
            descriptor = self._ground.open(directory)
            try:
                parent = _Parent(descriptor, identity_of(self._calls, descriptor))
            except BaseException:
                self._calls.close(descriptor)
                raise
            self._parents[directory] = parent
        return parent

    def _make_room(self) -> None:
        # A move has two.
        if len(self._parents) > MAX_PARENTS - 2:
            self._forget_all()

    def _forget_all(self) -> None:
        with ExitStack() as forgetting:
            for directory in list(self._parents):
                forgetting.callback(self._forget, directory)

    def _forget_below(self, path: RelPath) -> None:
        """What was at this path is not, any more: those held beneath it may be others now."""
        for directory in [one for one in self._parents if one.beneath(path) is not None]:
            self._forget(directory)

    def _forget(self, directory: RelPath) -> None:
        parent = self._parents.pop(directory)
        if parent.is_touched:
            self._touched.keep(parent.descriptor, parent.identity)
        else:
            self._calls.close(parent.descriptor)


def require_settable(status: os.stat_result) -> None:
    """Refuse what is neither a file nor a directory."""
    if stat.S_ISLNK(status.st_mode):
        raise ConflictError("it is a link, which has no time and no mode to be set")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise PermissionError(errno.EACCES, "neither a file nor a directory")


def mode_for(status: os.stat_result, mode: int) -> int:
    """The bits to be set: a directory keeps its own above 0o777, a file gets none."""
    kept = status.st_mode & 0o7000 if stat.S_ISDIR(status.st_mode) else 0
    return mode & 0o777 | kept


def depth_below(calls: Calls, base: int, directory: int) -> int:
    """How many names lie between two open directories, by `..` from the lower one up.

    Raises `PermissionError` where that does not meet the base: it was moved out of it.
    """
    goal = identity_of(calls, base)
    here = calls.open(".", _PASS, dir_fd=directory)
    try:
        for depth in range(MAX_DEPTH + 1):
            if identity_of(calls, here) == goal:
                return depth
            above = calls.open("..", _PASS, dir_fd=here)
            calls.close(here)
            here = above
        raise PermissionError(errno.EACCES, "the directory is not in the jail any more")
    finally:
        calls.close(here)


class _Touched:
    """What waits for its flush: few are held open; of many, one for each file system."""

    def __init__(self, calls: Calls, *, durable: bool) -> None:
        self._calls = calls
        self._durable = durable
        self._held: dict[Identity, int] = {}
        self._is_together = False
        self._failed: OSError | None = None

    def keep(self, descriptor: int, identity: Identity) -> None:
        """Flush this later; the descriptor is ours from now on."""
        key = (identity[0], 0) if self._is_together else identity
        if not self._durable or key in self._held:
            self._calls.close(descriptor)
            return
        self._held[key] = descriptor
        if len(self._held) > MAX_FLUSHED and not self._is_together:
            self.flush_together()

    def flush_together(self) -> None:
        """From now on one of each file system stands for all: the first, which was open before the others.

        It tells of errors since it was opened. Where there is no such call, they are flushed now.
        """
        if self._is_together or not self._durable:
            return
        if sys.platform != "linux":
            try:
                self.flush()
            except OSError as error:
                # It is no step that failed.
                self._failed = error
            return
        held = self._held
        self._held, self._is_together = {}, True
        for identity_, descriptor in held.items():
            self.keep(descriptor, identity_)

    def flush(self) -> None:
        """Flush all, and hold none any more. Raises `OSError` where one failed; all were tried then."""
        held, self._held = self._held, {}
        flush = self._calls.syncfs if self._is_together else self._calls.fsync
        self._is_together = False
        with ExitStack() as ending:
            for descriptor in held.values():
                ending.callback(self._calls.close, descriptor)
                ending.callback(flush, descriptor)
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
