"""Whether links still lead inside where they are moved to: how deep a directory lies, what links it holds."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import closing

from fileexport.disk.calls import Calls
from fileexport.disk.staging import identity_of
from fileexport.errors import ConflictError
from fileexport.paths import MAX_DEPTH
from fileexport.sync.manifest import leads_inside

_Links = Generator[tuple[int, str], None, None]

_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


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


def is_inside_at(depth: int, target: str) -> bool:
    """Whether a link with this text leads inside from a directory so deep below the base."""
    return leads_inside("d/" * depth + "l", target)


def require_inward(
    calls: Calls, directory: int, name: str, status: os.stat_result, old: int, new: int
) -> None:
    """Raise `ConflictError` where a link would lead outside that leads inside now.

    The entry `name` of an open directory, which lies `old` names below the base, is to be moved into one that
    is `new` names below it. Of a directory that comes nearer to the base all links are read, which costs as
    much as a listing.
    """
    if new >= old:
        return
    with closing(_links_of(calls, directory, name, status)) as links:
        for below, target in links:
            if is_inside_at(old + below, target) and not is_inside_at(new + below, target):
                raise ConflictError("a link would lead outside from there")


def _links_of(calls: Calls, directory: int, name: str, status: os.stat_result) -> _Links:
    """The link that an entry is, or those in it: how much deeper than the entry each lies, and its text."""
    if stat.S_ISLNK(status.st_mode):
        yield 0, calls.readlink(name, dir_fd=directory)
    elif stat.S_ISDIR(status.st_mode):
        yield from _links(calls, directory, name, 1)


def _links(calls: Calls, directory: int, name: str, depth: int) -> _Links:
    if depth > MAX_DEPTH:
        raise ConflictError("what lies so deep cannot be looked through for links")
    here = calls.open(name, _DIRECTORY, dir_fd=directory)
    try:
        for found in calls.scan(here):
            if found.is_symlink():
                yield depth, calls.readlink(found.name, dir_fd=here)
            elif found.is_dir(follow_symlinks=False):
                yield from _links(calls, here, found.name, depth + 1)
    finally:
        calls.close(here)
