"""The jail's file-system calls with somebody in front of each: who notes, fails or kills at any of them."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.calls import Calls

#: Called before each call with its name and its arguments; what it raises, the call raises.
Watch = Callable[[str, tuple[Any, ...], dict[str, Any]], object]

NAMES = frozenset(name for name in vars(Calls) if not name.startswith("_"))


class WatchedCalls(Calls):
    """The plain calls, each announced to `watch`."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in NAMES:
            return found

        def call(*arguments: Any, **keywords: Any) -> Any:
            if name != "close":
                self._watch(name, arguments, keywords)
                return found(*arguments, **keywords)
            # As Linux does it: the descriptor is gone, whatever close(2) says.
            found(*arguments, **keywords)
            return self._watch(name, arguments, keywords)

        return call


class FailAt:
    """Fails the N-th call, those of `spared` not counted, with an errno; `reached` is the name of that call.

    Closing a directory is spared as a rule: it has nothing to write that could fail.
    """

    def __init__(self, number: int, error: int, spared: tuple[str, ...] = ("close",)) -> None:
        self._left = number
        self._error = error
        self._spared = spared
        self.reached = ""

    def __call__(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self._left -= name not in self._spared
        if self._left == 0 and not self.reached:
            self.reached = name
            raise OSError(self._error, os.strerror(self._error))


class Later:
    """Watches for nothing until it is told for what."""

    then: Watch | None = None

    def __call__(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if self.then is not None:
            self.then(name, arguments, keywords)


def open_descriptors() -> set[str]:
    """What this process holds open; the descriptor that looks is not counted."""
    names = os.listdir("/proc/self/fd")
    return {name for name in names if os.path.lexists(f"/proc/self/fd/{name}")}


def in_child(function: Callable[[], object]) -> int:
    """Run a function in a forked child, which then ends as if killed; its exit code, 1 after an exception."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        function()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def forbid(test: SynchronousTestCase, directory: Path, mode: int) -> None:
    """Give a directory a mode for the length of a test: afterwards it can be removed again."""
    directory.chmod(mode)
    test.addCleanup(directory.chmod, 0o755)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Go without root's rights, which would make every mode meaningless.

    Whoever is not root stays the owner: a mode that is to be in the way must be in the owner's, too.
    """
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
