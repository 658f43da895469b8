"""Partials under a name that their key gives: whoever comes with the same key goes on, or is told how far.

One owner has no more than some in a staging; the oldest gives way.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress

from blake3 import blake3

from fileexport.disk.calls import Calls
from fileexport.disk.journals import Journal
from fileexport.disk.partials import JOURNAL, KEPT, Partial
from fileexport.disk.staging import (
    TRIES,
    Place,
    Staged,
    has_name,
    identity_of,
    remove_orphan,
    stage,
    staging_kept,
    staging_of,
)
from fileexport.errors import BusyError

#: Partials of one owner in one staging; the oldest goes when there is another one.
MAX_KEPT = 64
#: Characters of a name that say whose it is, the hyphen behind them included.
_OWNER = 17
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def begin(
    calls: Calls,
    place: Place,
    size: int,
    *,
    key: bytes | None,
    owner: bytes,
    durable: bool,
    check: Callable[[], object],
) -> Partial:
    """Begin a file of `size` bytes, or go on with what `owner` left of it under the same key.

    `place.target` is closed when the file has ended, or when this raises: `BusyError` where another process
    writes the same, `OSError`, ENOSPC where there is no room for it, and what `check` raises while the kept
    part is read. Nothing new is left then.
    """
    try:
        if key is None:
            partial = Partial(calls, stage(calls, place, durable=durable), None, size, durable)
        else:
            rest = _spelled(calls, place, size, key, owner)
            partial = _kept(lambda: _try(calls, place, size, rest, durable, check))
    except BaseException:
        calls.close(place.target)
        raise
    try:
        partial.require_room()
    except BaseException:
        partial.suspend()
        raise
    return partial


def _spelled(calls: Calls, place: Place, size: int, key: bytes, owner: bytes) -> str:
    """The part of a partial's name behind `KEPT`: whose it is, and of what, for where."""
    of = blake3(repr((*identity_of(calls, place.target), size, os.fsencode(place.name), key)).encode("utf-8"))
    return f"{blake3(owner).hexdigest(8)}-{of.hexdigest(16)}"


def _kept(attempt: Callable[[], Partial | None]) -> Partial:
    for _ in range(TRIES):
        # A recovery may find the staging empty and remove it under our hands.
        with suppress(FileNotFoundError):
            if (partial := attempt()) is not None:
                return partial
    raise BusyError


def _try(
    calls: Calls, place: Place, size: int, rest: str, durable: bool, check: Callable[[], object]
) -> Partial | None:
    """Take it up, or make it; None where it was of no use, or somebody's, and is gone now."""
    name, beside = KEPT + rest, JOURNAL + rest
    with ExitStack() as held, ExitStack() as undo:
        staging = staging_of(calls, place.base, place.target)
        held.callback(calls.close, staging)
        descriptor, is_new = _open(calls, staging, name)
        held.callback(calls.close, descriptor)
        if is_new:
            undo.callback(_drop, calls, staging, name, beside)
        if not _claim(calls, staging, name, descriptor):
            undo.pop_all()
            return None
        if is_new:
            _make_way(calls, staging, name)
        journal = Journal.open(calls, staging, beside)
        held.callback(journal.close)
        staged = Staged(calls, staging, name, descriptor, place, durable, beside)
        partial = Partial(calls, staged, journal, size, durable)
        if not is_new and not partial.go_on(check):
            # After a loss of power less may be there than was written.
            if not journal.forget():
                calls.unlink(name, dir_fd=staging)
            return None
        undo.pop_all()
        held.pop_all()
        return partial


def _open(calls: Calls, staging: int, name: str) -> tuple[int, bool]:
    """Open the partial of this name, or make it; whether it is new."""
    with suppress(FileNotFoundError):
        return _open_kept(calls, staging, name), False
    with suppress(FileExistsError):
        return calls.open(name, _OPEN | os.O_CREAT | os.O_EXCL, dir_fd=staging), True
    return _open_kept(calls, staging, name), False


def _open_kept(calls: Calls, staging: int, name: str) -> int:
    with suppress(PermissionError):
        return calls.open(name, _OPEN, dir_fd=staging)
    # Killed in its commit, it has the mode that it was to have. A living writer's keeps it.
    descriptor = calls.open(name, _OPEN & ~os.O_RDWR, dir_fd=staging)
    try:
        if _claim(calls, staging, name, descriptor):
            calls.fchmod(descriptor, 0o600)
        return calls.open(name, _OPEN, dir_fd=staging)
    finally:
        calls.close(descriptor)


def _claim(calls: Calls, staging: int, name: str, descriptor: int) -> bool:
    """Lock it, or raise `BusyError`; False where somebody had it: it may be a committed file by now."""
    try:
        calls.lock(descriptor)
    except BlockingIOError:
        raise BusyError from None
    return has_name(calls, staging, name, descriptor)


def _drop(calls: Calls, staging: int, *names: str) -> None:
    for name in names:
        with suppress(OSError):
            calls.unlink(name, dir_fd=staging)


def _make_way(calls: Calls, staging: int, name: str) -> None:
    """Where the owner has too many partials, remove the oldest that nobody writes to."""
    owner = name[: len(KEPT) + _OWNER]
    names = [found.name for found in calls.scan(staging) if found.name.startswith(owner)]
    if len(names) <= MAX_KEPT:
        return
    aged = []
    # A commit sets the time of a file's content to whatever its owner wants.
    for found in names:
        with suppress(FileNotFoundError):
            aged.append((calls.lstat(found, dir_fd=staging).st_ctime_ns, found))
    for _, found in sorted(aged):
        if found != name and remove_orphan(calls, staging, found, lambda status: True):
            _drop(calls, staging, JOURNAL + found.removeprefix(KEPT))
            return


def kept(calls: Calls, place: Place, size: int, *, key: bytes, owner: bytes) -> int:
    """From where `begin` would go on, as the journal says; the content is not read. 0 where nothing is kept.

    For who does not write it now. Raises `OSError`; `place` stays the caller's.
    """
    rest = _spelled(calls, place, size, key, owner)
    with ExitStack() as held:
        try:
            staging = staging_kept(calls, place.base, place.target)
            held.callback(calls.close, staging)
            there = calls.lstat(KEPT + rest, dir_fd=staging).st_size
            journal = Journal.open_kept(calls, staging, JOURNAL + rest)
        except FileNotFoundError:
            return 0
        held.callback(journal.close)
        return journal.offset(min(size, there))


def forget(calls: Calls, place: Place, size: int, *, key: bytes, owner: bytes) -> bool:
    """Remove what is kept under a key; whether there was something.

    Raises `BusyError` where somebody writes it, `OSError`; `place` stays the caller's.
    """
    rest = _spelled(calls, place, size, key, owner)
    with ExitStack() as held:
        try:
            staging = staging_kept(calls, place.base, place.target)
            held.callback(calls.close, staging)
            descriptor = _open_kept(calls, staging, KEPT + rest)
        except FileNotFoundError:
            return False
        held.callback(calls.close, descriptor)
        if not _claim(calls, staging, KEPT + rest, descriptor):
            return False
        calls.unlink(KEPT + rest, dir_fd=staging)
        _drop(calls, staging, JOURNAL + rest)
        return True
