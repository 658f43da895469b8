"""Many small changes beneath one directory: each in one step, and all of them flushed together at the end.

Nothing here follows a link in the last name of a path. A link that is made, or moved, leads to the base or
below: what counts is how deep its directory really lies, whatever links led there.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from itertools import islice
from typing import NamedTuple

from fileexport.disk.batches import Home
from fileexport.disk.calls import Calls
from fileexport.disk.changes import Removal, rename
from fileexport.disk.flushing import MAX_PARENTS, Touched
from fileexport.disk.links import depth_below, is_inside_at, require_inward
from fileexport.disk.recovery import recover
from fileexport.disk.staging import Identity, identity, identity_of
from fileexport.errors import ConflictError, DestinationNotFound
from fileexport.paths import RESERVED, RelPath
from fileexport.wire.bounds import clamped

_O_PATH = getattr(os, "O_PATH", 0)
_PASS = (_O_PATH or os.O_RDONLY) | os.O_DIRECTORY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY

#: Holds a name of a directory while it is changed; may raise, where somebody else writes it.
Hold = Callable[[Identity, str], AbstractContextManager[object]]
#: The size and the time that something must have, each as a manifest says it, or None for any.
Expected = tuple[int | None, int | None]


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
    `FileNameError`, `ConflictError`, and what `hold` raises; all is judged while the names are held. Where
    something is `expected`, what stands there is that, or `ConflictError` is raised.
    """

    def __init__(self, ground: Ground, *, hold: Hold = unheld, durable: bool = True) -> None:
        self._ground = ground
        self._calls = ground.calls
        self._hold = hold
        self._touched = Touched(ground.calls, durable=durable)
        self._parents: dict[tuple[str, ...], _Parent] = {}
        self._homes: dict[int, Home] = {}
        self._staged = 0

    def make(self, path: RelPath, mode: int | None = None) -> None:
        """Make a directory, with this mode `& 0o777` or as the umask has it.

        Raises `FileExistsError` where the name is taken, and `DestinationNotFound` where the directory above
        is not there.
        """
        self._make_room()
        parent, name = self._new_parent(path), path.name
        with self._hold(parent.identity, name):
            if mode is None:
                self._calls.mkdir(name, 0o777, dir_fd=parent.descriptor)
            else:
                self._make_so(parent, name, mode & 0o777)
            parent.is_touched = True

    def link(self, path: RelPath, target: str, replace: bool = False) -> None:
        """Make a link with this text, in place of a file or a link with `replace`.

        Raises `FileExistsError`, `IsADirectoryError`, `ConflictError` where it would lead outside, and
        `DestinationNotFound`.
        """
        self._make_room()
        parent, name = self._new_parent(path), path.name
        with self._hold(parent.identity, name):
            self._require_inside(parent, target)
            try:
                self._calls.symlink(target, name, dir_fd=parent.descriptor)
            except FileExistsError:
                if not replace:
                    raise
                self._replace(parent.descriptor, name, target)
            parent.is_touched = True
        self._forget_all()

    def move(
        self, path: RelPath, target: RelPath, replace: bool = False, expected: Expected | None = None
    ) -> None:
        """Give an entry another name, in place of a file or a link with `replace`.

        Raises as `Jail.rename`, and `ConflictError` where a link, or one in the directory, leads inside now
        and would lead outside from there.
        """
        self._make_room()
        new, new_name = self._new_parent(target), target.name
        old, name = self._old_parent(path), path.name
        is_one = (old.identity, name) == (new.identity, new_name)
        with (
            self._hold(new.identity, new_name),
            nullcontext() if is_one else self._hold(old.identity, name),
        ):
            status = self._calls.lstat(name, dir_fd=old.descriptor)
            require_expected(status, expected)
            self._require_bound(status, old, name, new)
            is_passed = not stat.S_ISREG(status.st_mode) or (replace and self._leads_on(new, new_name))
            rename(
                *(self._calls, old.descriptor, name, new.descriptor, new_name), replace=replace, status=status
            )
            old.is_touched = new.is_touched = True
            self._touched.moved(old.identity, new.identity)
        if is_passed:
            self._forget_all()

    def remove(self, path: RelPath, expected: Expected | None = None) -> None:
        """Remove a file, a link itself or an empty directory; `IsADirectoryError` for one that is not."""
        self._make_room()
        parent, name = self._old_parent(path), path.name
        with self._hold(parent.identity, name):
            status = self._calls.lstat(name, dir_fd=parent.descriptor)
            require_expected(status, expected)
            if stat.S_ISDIR(status.st_mode):
                self._remove_directory(parent.descriptor, name)
            else:
                self._calls.unlink(name, dir_fd=parent.descriptor)
            parent.is_touched = True
        if stat.S_ISDIR(status.st_mode):
            # Nothing was in it: others that are held are what they were.
            self._forget_removed(identity(status))
        elif stat.S_ISLNK(status.st_mode):
            self._forget_all()

    def set(
        self, path: RelPath, mtime_ns: int | None, mode: int | None, expected: Expected | None = None
    ) -> None:
        """Give a file or a directory a time, and a mode `& 0o777`; None leaves what is there.

        A directory keeps its other bits (setgid, sticky), a file loses them with a mode. Raises
        `ConflictError` for a link, `PermissionError` for what is neither.
        """
        self._make_room()
        if not path:
            self._set(self._ground.open(path), mtime_ns, mode, expected)
            return
        parent, name = self._old_parent(path), path.name
        with self._hold(parent.identity, name):
            require_settable(self._calls.lstat(name, dir_fd=parent.descriptor))
            self._set_name(parent, name, mtime_ns, mode, expected)

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

    def _require_inside(self, parent: _Parent, target: str) -> None:
        if not is_inside_at(self._depth(parent), target):
            raise ConflictError("the link would lead outside")

    def _require_bound(self, status: os.stat_result, old: _Parent, name: str, new: _Parent) -> None:
        """Refuse to move what would make a link lead outside; in its own directory none leads elsewhere."""
        if old.identity != new.identity and not stat.S_ISREG(status.st_mode):
            depths = self._depth(old), self._depth(new)
            require_inward(self._calls, old.descriptor, name, status, *depths)

    def _leads_on(self, parent: _Parent, name: str) -> bool:
        """Whether a path may go through this name."""
        try:
            return not stat.S_ISREG(self._calls.lstat(name, dir_fd=parent.descriptor).st_mode)
        except FileNotFoundError:
            return False

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

    def _remove_directory(self, parent: int, name: str) -> None:
        removal = Removal(self._calls, self._ground.admits, lambda: None, durable=False)
        try:
            removal.run(parent, name, recursive=False)
        except IsADirectoryError:
            if not self._clear(parent, name):
                raise
            removal.run(parent, name, recursive=False)

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

    def _make_so(self, parent: _Parent, name: str, mode: int) -> None:
        self._calls.mkdir(name, mode, dir_fd=parent.descriptor)
        try:
            status = self._calls.lstat(name, dir_fd=parent.descriptor)
            if status.st_mode & 0o777 != mode:
                # What the umask has taken.
                self._set_name(parent, name, None, mode, None)
        except BaseException:
            with suppress(OSError):
                self._calls.rmdir(name, dir_fd=parent.descriptor)
            raise

    def _set_name(
        self, parent: _Parent, name: str, mtime_ns: int | None, mode: int | None, expected: Expected | None
    ) -> None:
        try:
            descriptor = self._calls.open(name, _READ, dir_fd=parent.descriptor)
        except PermissionError:
            # Its owner may change what it may not read.
            self._set_unread(parent, name, mtime_ns, mode, expected)
        else:
            self._set(descriptor, mtime_ns, mode, expected)

    def _set(
        self, descriptor: int, mtime_ns: int | None, mode: int | None, expected: Expected | None
    ) -> None:
        """Set them by an open descriptor, which is ours from now on."""
        calls = self._calls
        try:
            status = calls.fstat(descriptor)
            require_expected(status, expected)
            _give(calls.utime, calls.fchmod, descriptor, status, mtime_ns, mode)
        except BaseException:
            calls.close(descriptor)
            raise
        self._touched.keep(descriptor, identity(status))

    def _set_unread(
        self, parent: _Parent, name: str, mtime_ns: int | None, mode: int | None, expected: Expected | None
    ) -> None:
        if not _O_PATH:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        calls = self._calls
        descriptor = calls.open(name, _O_PATH | os.O_NOFOLLOW, dir_fd=parent.descriptor)
        try:
            status = calls.fstat(descriptor)
            require_expected(status, expected)
            # It cannot be flushed for itself.
            parent.is_touched = True
            self._touched.flush_together()
            _give(calls.utime_held, calls.chmod_held, descriptor, status, mtime_ns, mode)
        finally:
            calls.close(descriptor)

    # -- directories

    def _new_parent(self, path: RelPath) -> _Parent:
        self._ground.check_new(path)
        try:
            return self._parent(path.parts[:-1])
        except FileNotFoundError:
            raise DestinationNotFound from None

    def _old_parent(self, path: RelPath) -> _Parent:
        if not path:
            raise PermissionError(errno.EACCES, "the base itself stays where it is")
        if not self._ground.admits(path.name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._parent(path.parts[:-1])

    def _parent(self, names: tuple[str, ...]) -> _Parent:
        parent = self._parents.get(names)
        if parent is None:
            descriptor = self._ground.open(RelPath(names))
            try:
                parent = _Parent(descriptor, identity_of(self._calls, descriptor))
            except BaseException:
                self._calls.close(descriptor)
                raise
            self._parents[names] = parent
        return parent

    def _make_room(self) -> None:
        # A move has two.
        if len(self._parents) > MAX_PARENTS - 2:
            self._forget_all()

    def _forget_all(self) -> None:
        """Paths may lead elsewhere from now on, whatever links are in them: find the directories again."""
        with ExitStack() as forgetting:
            for names in list(self._parents):
                forgetting.callback(self._forget, names)

    def _forget_removed(self, directory: Identity) -> None:
        """A directory is gone: it need not be flushed, and nothing can be done in it any more."""
        for names in [one for one, parent in self._parents.items() if parent.identity == directory]:
            self._calls.close(self._parents.pop(names).descriptor)
        self._touched.drop(directory)

    def _forget(self, names: tuple[str, ...]) -> None:
        parent = self._parents.pop(names)
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


def require_expected(status: os.stat_result, expected: Expected | None) -> None:
    """Raise `ConflictError` for what is not as expected. A directory never has an expected time."""
    if expected is None:
        return
    size, mtime_ns = expected
    found = status.st_size if stat.S_ISREG(status.st_mode) else 0
    is_directory = stat.S_ISDIR(status.st_mode)
    if size not in (None, found) or (
        mtime_ns is not None and (is_directory or mtime_ns != clamped(status.st_mtime_ns))
    ):
        raise ConflictError("it is another one now")


def _give(
    utime: Callable[[int, int], None],
    chmod: Callable[[int, int], None],
    descriptor: int,
    status: os.stat_result,
    mtime_ns: int | None,
    mode: int | None,
) -> None:
    """Set both or neither, of what `status` says what it was."""
    require_settable(status)
    if mtime_ns is not None:
        utime(descriptor, mtime_ns)
    if mode is None:
        return
    try:
        chmod(descriptor, mode_for(status, mode))
    except BaseException:
        if mtime_ns is not None:
            with suppress(OSError):
                utime(descriptor, status.st_mtime_ns)
        raise


def mode_for(status: os.stat_result, mode: int) -> int:
    """The bits to be set: a directory keeps its own above 0o777, a file gets none."""
    kept = status.st_mode & 0o7000 if stat.S_ISDIR(status.st_mode) else 0
    return mode & 0o777 | kept
