"""What is flushed at the end of many changes: few files one by one, many by a flush of their file system."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from functools import cache

from fileexport.disk.calls import Calls
from fileexport.disk.staging import Identity

#: Up to so many files and directories are flushed one by one, more by a flush of their whole file system.
MAX_FLUSHED = 64
#: Directories that are held open for what comes next in them.
MAX_PARENTS = 64


@cache
def has_syncfs() -> bool:
    """Whether a file system can be flushed as a whole: a kernel may lack the call that its library has."""
    try:
        Calls().syncfs(-1)
    except OSError as error:
        return error.errno == errno.EBADF
    return True


def let_go(calls: Calls, descriptor: int) -> None:
    """Close one of more than `MAX_FLUSHED` files; it is flushed now where nothing flushes all at once."""
    try:
        if not has_syncfs():
            calls.fsync(descriptor)
    finally:
        calls.close(descriptor)


def flush_all(calls: Calls, directory: int) -> None:
    """Flush what was let go on the file system of this directory, which was open before the first of it."""
    if has_syncfs():
        calls.syncfs(directory)


class Touched:
    """What waits for its flush: few are held open; of many, one for each file system."""

    def __init__(self, calls: Calls, *, durable: bool) -> None:
        self._calls = calls
        self._durable = durable
        self._held: dict[Identity, int] = {}
        #: Directories that a name went from, and those that it went to.
        self._left: set[Identity] = set()
        self._entered: set[Identity] = set()
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

    def drop(self, identity: Identity) -> None:
        """It is gone, and need not be flushed."""
        descriptor = self._held.pop(identity, None)
        if descriptor is not None:
            self._calls.close(descriptor)

    def moved(self, old: Identity, new: Identity) -> None:
        """A name went from one directory to another, which is flushed first: one of them has it, whatever
        happens in between. Where there is no such order they are flushed at once.
        """
        if old == new:
            return
        self._left.add(old)
        self._entered.add(new)
        if old in self._entered or new in self._left:
            self.flush_together()

    def flush_together(self) -> None:
        """From now on one of each file system stands for all: the first, which was open before the others.

        It tells of errors since it was opened. Where there is no such call, they are flushed now.
        """
        if self._is_together or not self._durable:
            return
        if not has_syncfs():
            try:
                self.flush()
            except OSError as error:
                # It is no step that failed.
                self._failed = error
            return
        held = self._held
        self._held, self._is_together = {}, True
        for identity, descriptor in held.items():
            self.keep(descriptor, identity)

    def flush(self) -> None:
        """Flush all, and hold none any more. Raises `OSError` where one failed; all were tried then."""
        held, self._held = self._held, {}
        left, self._left, self._entered = self._left, set(), set()
        flush = self._calls.syncfs if self._is_together else self._calls.fsync
        self._is_together = False
        with ExitStack() as ending:
            # The last of them is the first to be flushed.
            for _, descriptor in sorted(held.items(), key=lambda one: one[0] not in left):
                ending.callback(self._calls.close, descriptor)
                ending.callback(flush, descriptor)
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
