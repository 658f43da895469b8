"""A path becomes a descriptor: two strategies, one table of expectations.

Both resolve beneath an open directory and can lead nowhere else, whatever is renamed meanwhile. A relative
link that stays beneath is followed; an absolute one, one that leads above the directory, and one that
passes a name which the caller may not see lead nowhere (`FileNotFoundError`).

`Openat2` asks the kernel (openat2(2), RESOLVE_BENEATH) and refuses links there; where a link is in the way
both take the same walk, one name at a time on a stack of held descriptors. So the rules for links exist
once, and the names that a link passes are checked too, which the kernel could not do for us.

Not promised: that a path still leads to the descriptor a moment later.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from typing import Protocol

from fileexport.disk.calls import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, Calls

#: Links followed in one resolution, as the kernel's own limit.
MAX_LINKS = 40
#: Descriptors held by one walk: bounds what links to deep paths can make us hold.
MAX_HELD = 256
#: openat2 may answer EAGAIN while something is renamed beside it, and EINTR on a slow file system.
_TRIES = 16

#: O_PATH needs no read permission on the directories passed; macOS has none.
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY
_O_PATH = getattr(os, "O_PATH", 0)

Admits = Callable[[str], bool]


class Resolver(Protocol):
    """One way to turn names beneath an open directory into a descriptor."""

    def open(
        self, base: int, parts: tuple[str, ...], flags: int, admits: Admits, *, plain: bool = False
    ) -> int:
        """Open what `parts` lead to beneath the directory `base`, which stays open.

        `admits` says of each name on the way, those inside links too, whether the caller may see it. With
        `plain` every link leads nowhere.
        Raises `OSError`; nothing stays open then.
        """


class Openat2:
    """openat2(2) with RESOLVE_BENEATH (Linux 5.6): one call a path."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._walk = Walk(calls)

    @classmethod
    def is_available(cls, calls: Calls, base: int) -> bool:
        """Ask once, at start. Later a refusal is an answer, never a reason to try another way.

        A seccomp filter older than the call answers EPERM for it, even for the root itself.
        """
        try:
            calls.close(calls.openat2(base, ".", _PASS, RESOLVE_BENEATH))
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM):
                return False
            raise
        return True

    def open(
        self, base: int, parts: tuple[str, ...], flags: int, admits: Admits, *, plain: bool = False
    ) -> int:
        _admit(parts, admits)
        path = "/".join(parts) or "."
        resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
        for _ in range(_TRIES):
            try:
                return self._calls.openat2(base, path, flags, resolve)
            except OSError as error:
                # A link; or all of MAX_PATH, of which the kernel takes a byte less at once.
                if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                    return self._walk.open(base, parts, flags, admits, plain=plain)
                if error.errno not in (errno.EAGAIN, errno.EINTR):
                    raise
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class Walk:
    """One name at a time with O_NOFOLLOW on held descriptors; any POSIX system."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def open(
        self, base: int, parts: tuple[str, ...], flags: int, admits: Admits, *, plain: bool = False
    ) -> int:
        steps = _Steps(self._calls, base, admits, plain)
        try:
            return steps.run(parts, flags)
        finally:
            steps.close()


class _Steps:
    """One walk: the directories held from the base down, and the names still to go."""

    def __init__(self, calls: Calls, base: int, admits: Admits, plain: bool) -> None:
        self._calls = calls
        self._admits = admits
        self._plain = plain
        self._held = [base]
        self._links = 0
        self._todo: list[str] = []

    def run(self, parts: tuple[str, ...], flags: int) -> int:
        _admit(parts, self._admits)
        self._todo = list(reversed(parts))
        while self._todo:
            name = self._todo.pop()
            if name == "..":
                self._up()
                continue
            descriptor = self._step(name, _PASS if self._todo else flags)
            if descriptor is None:
                continue
            if not self._todo:
                return descriptor
            self._hold(descriptor)
        # The way ended at a directory already held: the base, or one that a link led back to.
        return self._calls.open(".", flags | os.O_NOFOLLOW, dir_fd=self._held[-1])

    def _step(self, name: str, flags: int) -> int | None:
        """Open one name; None where it was a link, whose names are now the next to go."""
        above = self._held[-1]
        try:
            descriptor = self._calls.open(name, flags | os.O_NOFOLLOW, dir_fd=above)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
                raise
            self._follow(name, error)
            return None
        if flags & _O_PATH and not flags & os.O_DIRECTORY and self._is_link(descriptor):
            self._calls.close(descriptor)
            self._follow(name, OSError(errno.ELOOP, os.strerror(errno.ELOOP), name))
            return None
        return descriptor

    def _is_link(self, descriptor: int) -> bool:
        # O_PATH with O_NOFOLLOW opens a link itself instead of refusing it.
        try:
            return stat.S_ISLNK(self._calls.fstat(descriptor).st_mode)
        except BaseException:
            self._calls.close(descriptor)
            raise

    def _follow(self, name: str, refusal: OSError) -> None:
        try:
            target = self._calls.readlink(name, dir_fd=self._held[-1])
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise refusal from None
            raise
        if self._plain:
            raise FileNotFoundError(errno.ENOENT, "no link is followed here", name)
        self._links += 1
        if self._links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        if target.startswith("/"):
            raise FileNotFoundError(errno.ENOENT, "an absolute link is not followed", name)
        names = [part for part in target.split("/") if part not in ("", ".")]
        _admit((part for part in names if part != ".."), self._admits)
        self._todo.extend(reversed(names))

    def _up(self) -> None:
        if len(self._held) == 1:
            raise FileNotFoundError(errno.ENOENT, "a link leads outside")
        self._calls.close(self._held.pop())

    def _hold(self, descriptor: int) -> None:
        self._held.append(descriptor)
        if len(self._held) > MAX_HELD:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def close(self) -> None:
        while len(self._held) > 1:
            self._calls.close(self._held.pop())


def _admit(names: Iterable[str], admits: Admits) -> None:
    # What may not be seen does not exist: the answer must not tell the two apart.
    for name in names:
        if not admits(name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
