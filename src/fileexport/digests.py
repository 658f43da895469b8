"""Digests of files for those who ask: computed in threads, remembered while a file stays as it is.

Like `disk.contents`, but by the algorithms of RFC 9530, and in memory only: they are asked for seldom.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Generator

from fileexport.errors import ChangedWhileRead, PeerGone
from fileexport.pools import Steps, Worker
from fileexport.web.digests import ALGORITHMS
from fileexport.web.handlers import OpenFile

#: Files whose digests are remembered; that of the one that was not asked for longest goes.
MAX_REMEMBERED = 4096
#: Nanoseconds that a file has to be left alone before it is read, to be remembered: the coarsest clock of a
#: file system (FAT) ticks every two seconds.
SETTLED = 2 * 10**9
#: Bytes of a file that are hashed before others have their turn.
STEP = 64 << 20
_PIECE = 1 << 20

_Version = tuple[int, int, int, int, int]


class FileDigests:
    """Digests of open files, of all of their bytes or of some. Its methods belong to the reactor's thread."""

    def __init__(self, worker: Worker, now: Callable[[], int] = time.time_ns) -> None:
        """Files are read in `worker`; `now` is in nanoseconds since 1970."""
        self._worker = worker
        self._now = now
        self._known: OrderedDict[tuple[_Version, str], bytes] = OrderedDict()

    def known(self, opened: OpenFile, algorithm: str) -> bytes | None:
        """The digest of a whole file, where it is remembered."""
        key = _version(opened.stat), algorithm
        digest = self._known.get(key)
        if digest is not None:
            self._known.move_to_end(key)
        return digest

    async def whole(self, opened: OpenFile, algorithm: str, is_gone: Callable[[], bool]) -> bytes:
        """The digest of a whole file, read where it is not remembered; as `part` else."""
        digest = self.known(opened, algorithm)
        if digest is not None:
            return digest
        version, began = _version(opened.stat), self._now()
        digest = await self.part(opened, algorithm, 0, opened.stat.st_size, is_gone)
        if max(opened.stat.st_mtime_ns, opened.stat.st_ctime_ns) < began - SETTLED:
            self._known[version, algorithm] = digest
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return digest

    async def part(
        self, opened: OpenFile, algorithm: str, start: int, stop: int, is_gone: Callable[[], bool]
    ) -> bytes:
        """The digest of the bytes from `start` up to `stop`.

        Raises `PeerGone` soon after `is_gone` says so, `ChangedWhileRead` where the file is another one than
        when it was opened, `OverloadedError`, `OSError`. The file must stay open until this has ended.
        """
        steps = Steps(self._worker, _hashing(opened, algorithm, start, stop))
        digest = b""
        try:
            while (piece := await steps.next()) is not None:
                if is_gone():
                    raise PeerGone
                digest = piece
        finally:
            await steps.close()
        return digest


def _hashing(opened: OpenFile, algorithm: str, start: int, stop: int) -> Generator[bytes, None, None]:
    """Read and hash; the digest comes last, and something empty after each `STEP`."""
    hasher = ALGORITHMS[algorithm]()
    paused = start
    buffer = memoryview(bytearray(min(_PIECE, stop - start)))
    while start < stop and (count := opened.read_at(buffer[: stop - start], start)):
        hasher.update(buffer[:count])
        start += count
        if start - paused >= STEP:
            paused = start
            yield b""
    if start < stop or _version(os.fstat(opened.descriptor)) != _version(opened.stat):
        raise ChangedWhileRead
    yield hasher.digest()


def _version(status: os.stat_result) -> _Version:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
