"""What killed writers left in a staging goes.

A writer holds flock(2) on what it stages: what can be locked has no living writer. Files and batches under a
random name go at once; what can be continued stays for a day, and its journal with it.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from fileexport.disk.calls import Calls
from fileexport.disk.partials import JOURNAL, KEPT, partial_of
from fileexport.disk.staging import PREFIX, remove_orphan
from fileexport.paths import RESERVED

#: A partial that nobody wrote to for so long is not waited for any more, in nanoseconds.
PATIENCE = 24 * 3600 * 10**9

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def recover(calls: Calls, directory: int, now: int, patience: int = PATIENCE) -> int:
    """Remove the orphans in `directory`'s staging, and the staging when it is empty; count them.

    `now` is the time in nanoseconds since 1970; a partial that was written to in the last `patience` stays.
    A batch counts as one. What is there, but is no directory of ours, is left alone.
    """
    try:
        staging = calls.open(RESERVED, _DIRECTORY, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return 0
    except OSError as error:
        if error.errno == errno.ELOOP:
            return 0
        raise
    try:
        removed = _clear(calls, staging, now - patience)
    finally:
        calls.close(staging)
    # Whatever keeps it, a living writer's file as a rule: what is gone is counted.
    with suppress(OSError):
        calls.rmdir(RESERVED, dir_fd=directory)
    return removed


def _clear(calls: Calls, staging: int, oldest: int) -> int:
    names = [entry.name for entry in calls.scan(staging)]
    removed = 0
    for name in names:
        if name.startswith(PREFIX):
            removed += remove_orphan(calls, staging, name, lambda status: True)
        elif name.startswith(KEPT):
            # Killed in its commit, it has the other time that its owner wants for it.
            removed += remove_orphan(calls, staging, name, lambda status: status.st_ctime_ns < oldest)
    return removed + sum(_remove_journal(calls, staging, name) for name in names if name.startswith(JOURNAL))


def _remove_journal(calls: Calls, staging: int, name: str) -> bool:
    """Remove a journal without its partial; one that is just being made has its partial already."""
    try:
        calls.lstat(partial_of(name), dir_fd=staging)
    except FileNotFoundError:
        with suppress(OSError):
            calls.unlink(name, dir_fd=staging)
            return True
    except OSError:
        pass
    return False
