"""What remote paths and fsspec ask of a server beyond the verbs of `Client`.

Where a link leads, one small write; what removes one kind only, and the directories above a path.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from blake3 import blake3

from fileexport.client.answers import Stalled, error_of
from fileexport.client.chunks import Retries
from fileexport.client.connection import Wait
from fileexport.client.names import RemoteEntry, remote_path
from fileexport.client.operation import Operation
from fileexport.client.pool import Pool
from fileexport.errors import BusyError, ConflictError, CorruptedResponse
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.bounds import clamped

if TYPE_CHECKING:
    from fileexport.client.blocking import Client

#: What a file costs in a frame beside its path and content, at most.
_OVERHEAD = 96
#: How often a file that is removed is looked at: each time it may be written to before it goes.
_TRIES = 4

Waits = Callable[[], Wait]


def behind(pool: Pool, path: RelPath, waits: Waits) -> RemoteEntry:
    """What a link leads to: a file or a directory, as if it stood there itself. Raises as reading does.

    A file is opened and not read; of a directory the beginning of its manifest is, which has its time.
    """
    asked = m.Read(path, length=0)
    try:
        with pool.operation(asked, waits(), path=str(path), again=True) as operation:
            file = operation.reply(m.Content)
            operation.end()
        return RemoteEntry(str(path), "file", file.size, file.mtime)
    except IsADirectoryError:
        with pool.operation(m.Manifest(path), waits(), path=str(path), again=True) as operation:
            top = operation.reply(m.ManifestPart).top
    if top is None:
        raise CorruptedResponse("a manifest without its top")
    return RemoteEntry(str(path), "directory", 0, top.mtime)


def write_small(pool: Pool, path: RelPath, content: bytes | memoryview, waits: Waits) -> bool:
    """Put a file with this content under a name, in place of one that is there, committed when it returns.

    Cut connections are survived. False, and nothing was done, for content that is too long to travel so.
    Raises as `Client.upload_file`.
    """
    if len(content) > m.MAX_INLINE or not path:
        return False
    digest = blake3(content).digest()
    file = m.SmallFile(RelPath((path.name,)), clamped(time.time_ns()), digest, bytes(content))
    retries, was_cut = Retries(), False
    while True:
        try:
            asked = m.WriteFiles(path.parent, replace=True)
            with pool.operation(asked, waits(), path=str(path), answered=False) as operation:
                retries.begun_at(0)
                return _write(operation, path, file)
        except (ConnectionError, Stalled) as error:
            retries.after(error)
            was_cut = True
        except BusyError as error:
            # What a cut connection held is not free at once.
            if not was_cut:
                raise
            retries.after(error)


def _write(operation: Operation, path: RelPath, file: m.SmallFile) -> bool:
    size = len(file.content) + 4 * len(path.name) + _OVERHEAD
    peer = operation.session.peer
    assert peer is not None
    offer = peer.limits
    # Credit comes back by half a window: more might never be there.
    if size > min(offer.control, offer.stream_credit // 2, offer.connection_credit // 2):
        return False
    if operation.room(size):
        operation.say(m.Files([file]))
        operation.say(m.End())
    found = operation.reply(m.Outcome)
    operation.end()
    if len(found.committed) + len(found.failed) != 1:
        raise CorruptedResponse("one file was sent")
    for failure in found.failed:
        raise error_of(failure.code, failure.message, str(path))
    return True


def change(client: Client, step: m.AnyStep) -> None:
    """Make one change; cut connections are survived."""
    for error in client.change([step]):
        if error is not None:
            raise error


def make_parents(client: Client, path: str) -> None:
    """Make all directories above a path: one question. Raises as `Client.make_directories` says.

    A name above it that is taken may be a link to a directory: what is done below says if it is none.
    """
    names = remote_path(path).parts
    above = ["/" + "/".join(names[:depth]) for depth in range(1, len(names))]
    for error in client.make_directories(above) if above else ():
        if error is not None and not isinstance(error, FileExistsError):
            raise error


def remove_file(client: Client, path: str) -> None:
    """Remove a file, or a link itself; no directory that has taken its place.

    Raises `IsADirectoryError`, `FileNotFoundError`, and `OSError`, EBUSY, where it was another one each time
    that it was to go: somebody writes to it.
    """
    asked = remote_path(path)
    for _ in range(_TRIES):
        found = client.stat(path)
        if found.type == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        # No directory has an expected time.
        with suppress(ConflictError):
            return change(client, m.RemoveStep(asked, mtime=found.mtime_ns))
    raise OSError(errno.EBUSY, "somebody writes to it all the time: try again", path)


def remove_directory(client: Client, path: str) -> None:
    """Remove an empty directory; no file with content that has taken its place.

    Raises `NotADirectoryError`, `FileNotFoundError`, and `OSError`, ENOTEMPTY.
    """
    try:
        if client.stat(path).type == "directory":
            return change(client, m.RemoveStep(remote_path(path), size=0))
    except IsADirectoryError:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path) from None
    except ConflictError:
        pass  # It has a size now.
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
