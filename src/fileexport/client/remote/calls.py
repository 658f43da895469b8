"""What `RemotePath` asks of a server beyond the verbs of `Client`: where a link leads, one small write."""

from __future__ import annotations

import time
from collections.abc import Callable

from blake3 import blake3

from fileexport.client.answers import Stalled, error_of
from fileexport.client.chunks import Retries
from fileexport.client.connection import Wait
from fileexport.client.names import RemoteEntry
from fileexport.client.operation import Operation
from fileexport.client.pool import Pool
from fileexport.errors import BusyError, CorruptedResponse
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.bounds import clamped

#: What a file costs in a frame beside its path and content, at most.
_OVERHEAD = 96

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
