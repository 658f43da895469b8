"""Files that appear complete or not at all: stage, commit, recover.

A file is written under a random name in `.fileexport/`, in the topmost exported directory of the
destination's own mount (a rename cannot leave a mount), then flushed and renamed over its destination, whose
directory is flushed too. The writer holds flock(2) on the staged file: what can be locked by a recovery has
no living writer, so a `kill -9` leaves nothing that stays.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import NamedTuple

from fileexport.disk.calls import Calls
from fileexport.errors import ConflictError
from fileexport.paths import MAX_DEPTH, RESERVED

#: Staged names begin so; the rest is random.
PREFIX = "new-"
#: Names inside are protected by the directory's mode, so a file can take its final mode from the umask.
DIRECTORY_MODE = 0o700
#: O_EXCL and a lock that recovery may win: more failures than this are no accident.
TRIES = 8

#: Of a file system this share, or so many bytes where that is less, is left to those who must go on.
_RESERVED_SHARE, _RESERVED_MAX = 100, 256 << 20

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
#: Needs no permission to list the directories on the way up; macOS has none.
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW


def room(calls: Calls, descriptor: int) -> int:
    """Bytes that may still be written to a descriptor's file system; 0 where only the reserve is left.

    Raises `OSError` (EROFS) where nothing may be written at all.
    """
    status = calls.fstatvfs(descriptor)
    if status.f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    if not status.f_blocks:
        # It does not count: then only a write can tell.
        return sys.maxsize
    reserve = min(status.f_blocks // _RESERVED_SHARE * status.f_frsize, _RESERVED_MAX)
    return max(status.f_bavail * status.f_frsize - reserve, 0)


Identity = tuple[int, int]


class Place(NamedTuple):
    """Where a file goes: `name` in the directory `target`, which lies in or beneath `base`.

    `find` says which directory has the path now that led to `target`; it raises `OSError`.
    """

    base: int
    target: int
    name: str
    find: Callable[[], Identity]


class Staged:
    """A file being written, invisible until `commit`. Leaving a `with` block without commit discards it.

    Not thread-safe; one writer. `beside` is another name in staging that goes with it, if it is there.
    """

    def __init__(
        self,
        calls: Calls,
        staging: int,
        name: str,
        descriptor: int,
        place: Place,
        durable: bool,
        beside: str = "",
    ) -> None:
        self._calls = calls
        self._staging = staging
        self._name = name
        self.descriptor = descriptor
        self._target = place.target
        self._final = place.name
        self._find = place.find
        self._durable = durable
        self._beside = beside
        self._open = True

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`; short writes are continued. Raises `OSError`; discard it then."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._calls.write(self.descriptor, rest) :]

    def room(self) -> int:
        """Bytes that may still be written, to this file and all others of its file system together."""
        return room(self._calls, self.descriptor)

    def inherited_mode(self) -> int | None:
        """The mode of the file that would be replaced now, as `inherited` narrows it; None for no file."""
        try:
            old = self._calls.lstat(self._final, dir_fd=self._target)
        except FileNotFoundError:
            return None
        return inherited(old, self._calls.fstat(self.descriptor))

    def commit(
        self,
        *,
        mode: int | None = None,
        mtime_ns: int | None = None,
        replace: bool = True,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        """Give the file its name: flush it, rename it in one step, flush the directory.

        When this returns, content and name are on stable storage (unless the jail is not durable). Raises
        `FileExistsError` where `replace` is false and the name is taken, `ConflictError` where the directory
        is not at its path any more, else `OSError`; the old version stays then and the staged file is gone.
        Only the flush of the directory can fail after the rename: the name then holds the new version, but
        nothing was acknowledged.

        `mode` is taken `& 0o777`; without it the umask decides. `mtime_ns` is set when given. `check` is
        called when nothing is left but the rename, and may raise: the staged file is gone then, too.
        """
        try:
            if mode is not None:
                self._calls.fchmod(self.descriptor, mode & 0o777)
            if mtime_ns is not None:
                self._calls.utime(self.descriptor, mtime_ns)
            if self._durable:
                self._calls.fsync(self.descriptor)
            check()
            self.require_place()
            move = self._calls.rename if replace else self._calls.rename_new
            move(self._name, self._final, dir_fd=self._staging, new_dir_fd=self._target)
        except BaseException:
            self.discard()
            raise
        try:
            if self._durable:
                self._calls.fsync(self._target)
        finally:
            self._end()

    def require_place(self) -> None:
        """Raise `ConflictError` where its directory is not at its path any more.

        Nobody would find the file in a directory that was moved, and it may lie outside of the jail.
        """
        try:
            found = self._find()
        except (FileNotFoundError, NotADirectoryError):
            found = None
        if found != identity_of(self._calls, self._target):
            raise ConflictError("its directory was moved or removed meanwhile")

    def divert(self, name: str) -> None:
        """Have it get another name in its directory: for the `check` of `commit`."""
        self._final = name

    def discard(self) -> None:
        """Remove the staged file; the destination stays as it was. A second time does nothing."""
        if not self._open:
            return
        try:
            self._calls.unlink(self._name, dir_fd=self._staging)
        except FileNotFoundError:
            pass
        finally:
            self._end()

    def keep(self) -> None:
        """Let go of the staged file, which stays where it is. A second time does nothing."""
        if self._open:
            self._close()

    def _end(self) -> None:
        """The name in staging is gone: what goes with it goes now, as the file means nothing without it."""
        try:
            if self._beside:
                # What stays is recovery's business.
                with suppress(OSError):
                    self._calls.unlink(self._beside, dir_fd=self._staging)
        finally:
            self._close()

    def _close(self) -> None:
        self._open = False
        held = (self.descriptor, self._staging, self._target)
        # The numbers are given to others now: what is called from here on must not reach them.
        self.descriptor = self._staging = self._target = -1
        with ExitStack() as closing:
            for descriptor in held:
                closing.callback(self._calls.close, descriptor)

    def __enter__(self) -> Staged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def inherited(old: os.stat_result, new: os.stat_result) -> int | None:
    """The mode of a file that replaces `old`: the same bits below 0o1000; None where `old` is no file.

    What a group may counts only for the same group; where the new file has another one, both it and all
    others may what both could.
    """
    if not stat.S_ISREG(old.st_mode):
        return None
    mode = old.st_mode & 0o777
    if old.st_gid != new.st_gid:
        both = mode >> 3 & mode & 0o007
        mode = mode & 0o700 | both << 3 | both
    return mode


def stage(calls: Calls, place: Place, *, durable: bool) -> Staged:
    """Begin a file that appears at its place when it is committed.

    `place.target` belongs to the result from then on; when this raises, it stays the caller's.
    """
    for _ in range(TRIES - 1):
        # A recovery may find the staging empty and remove it under our hands.
        with suppress(FileNotFoundError):
            return _begin(calls, place, durable)
    return _begin(calls, place, durable)


def _begin(calls: Calls, place: Place, durable: bool) -> Staged:
    staging = staging_of(calls, place.base, place.target)
    try:
        name, descriptor = _create(calls, staging)
    except BaseException:
        calls.close(staging)
        raise
    return Staged(calls, staging, name, descriptor, place, durable)


def _create(calls: Calls, staging: int) -> tuple[str, int]:
    for _ in range(TRIES):
        name = PREFIX + secrets.token_hex(12)
        try:
            descriptor = calls.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, dir_fd=staging)
        except FileExistsError:
            continue
        if _claim(calls, staging, name, descriptor):
            return name, descriptor
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), RESERVED)


def _claim(calls: Calls, staging: int, name: str, descriptor: int) -> bool:
    """Lock a file just made, unless a recovery took it for an orphan before; it is closed then."""
    try:
        calls.lock(descriptor)
        if calls.fstat(descriptor).st_nlink:
            return True
    except BlockingIOError:
        pass
    except BaseException:
        with suppress(OSError):
            calls.unlink(name, dir_fd=staging)
        calls.close(descriptor)
        raise
    calls.close(descriptor)
    return False


def staging_of(calls: Calls, base: int, target: int) -> int:
    """Open, or make, the staging directory that serves `target`."""
    top = _topmost(calls, base, target)
    try:
        with suppress(FileExistsError):
            calls.mkdir(RESERVED, DIRECTORY_MODE, dir_fd=top)
        return calls.open(RESERVED, _DIRECTORY, dir_fd=top)
    finally:
        calls.close(top)


def staging_kept(calls: Calls, base: int, target: int) -> int:
    """Open the staging directory that serves `target`. Raises `FileNotFoundError` where there is none."""
    top = _topmost(calls, base, target)
    try:
        return calls.open(RESERVED, _DIRECTORY, dir_fd=top)
    finally:
        calls.close(top)


def _topmost(calls: Calls, base: int, target: int) -> int:
    """Open the highest directory from `target` up to `base` that is on `target`'s mount.

    Walks up by `..` until it meets `base` itself: a directory that was moved out of the jail meanwhile
    never meets it, and nothing is staged outside.
    """
    mount, goal = calls.mount_of(target), identity_of(calls, base)
    top = -1
    here = calls.open(".", _PASS, dir_fd=target)
    try:
        top = calls.open(".", _PASS, dir_fd=target)
        for _ in range(MAX_DEPTH + 1):
            if identity_of(calls, here) == goal:
                return top
            above = calls.open("..", _PASS, dir_fd=here)
            calls.close(here)
            here = above
            if calls.mount_of(here) == mount:
                higher = calls.open(".", _PASS, dir_fd=here)
                calls.close(top)
                top = higher
        raise PermissionError(errno.EACCES, "the directory is not in the jail any more")
    except BaseException:
        if top >= 0:
            calls.close(top)
        raise
    finally:
        calls.close(here)


def identity(status: os.stat_result) -> Identity:
    """What no other file or directory has at the same time."""
    return status.st_dev, status.st_ino


def identity_of(calls: Calls, descriptor: int) -> Identity:
    """The identity of what is open."""
    return identity(calls.fstat(descriptor))


def has_name(calls: Calls, directory: int, name: str, descriptor: int) -> bool:
    """Whether what is open still has this name, itself and not by a link. Raises `OSError`."""
    try:
        return identity(calls.lstat(name, dir_fd=directory)) == identity_of(calls, descriptor)
    except FileNotFoundError:
        return False


def remove_orphan(calls: Calls, staging: int, name: str, is_orphan: Callable[[os.stat_result], bool]) -> bool:
    """Remove a file of a staging, or a batch of them, if no living writer holds it; whether it is gone."""
    try:
        descriptor = calls.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=staging)
    except OSError:
        return False
    removed = False
    # A living writer holds it, or another recovery was quicker.
    with suppress(OSError):
        try:
            calls.lock(descriptor)
            status = calls.fstat(descriptor)
            # What was committed meanwhile has another name, and this one may be somebody else's.
            if has_name(calls, staging, name, descriptor) and is_orphan(status):
                _remove(calls, staging, name, descriptor, status)
                removed = True
        finally:
            calls.close(descriptor)
    return removed


def _remove(calls: Calls, staging: int, name: str, descriptor: int, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode):
        calls.unlink(name, dir_fd=staging)
        return
    for entry in list(calls.scan(descriptor)):
        calls.unlink(entry.name, dir_fd=descriptor)
    calls.rmdir(name, dir_fd=staging)
