"""Many small files that come in together: each is whole or not there, all are flushed in one go.

Blocking, called in pool threads, one thread at a time for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from blake3 import blake3

from fileexport.disk.batches import Batch
from fileexport.disk.jail import View
from fileexport.disk.views import is_near_limit
from fileexport.errors import (
    ChangedWhileRead,
    DestinationNotFound,
    FileExportError,
    FileNameError,
    OutOfRange,
)
from fileexport.leases import Lease, Leases, Place
from fileexport.paths import RelPath
from fileexport.uploads import Files, Target
from fileexport.wire.messages import SmallFile


class Committed(NamedTuple):
    """What became of small files: ranges of numbers (first, count), and the errors by number."""

    ranges: list[tuple[int, int]]
    failures: list[tuple[int, Exception]]


class _Group(NamedTuple):
    """The files of one view: the numbers of those that wait for their commit, the lease of their names."""

    batch: Batch
    pending: list[int]
    lease: Lease


class _Directory(NamedTuple):
    """A directory that files go to, as it was when the first of them came after a commit."""

    group: _Group
    path: RelPath
    device: int
    inode: int
    #: Its path, where it is so long or deep that not every name fits behind it.
    whole: RelPath | None


class SmallFiles:
    """Many small files below one directory. It ends by `discard`, and must, also after the last `commit`."""

    def __init__(
        self,
        files: Files,
        find: Callable[[RelPath], Target],
        leases: Leases,
        *,
        replace: bool,
        holder: str,
        max_size: int | None,
    ) -> None:
        """`find` says where a directory below the directory is, and raises `OSError` where it may not be."""
        self._files = files
        self._find = find
        self._leases = leases
        self._replace = replace
        self._holder = holder
        self._max_size = max_size
        self._groups: dict[tuple[View, RelPath], _Group] = {}
        self._directories: dict[tuple[str, ...], _Directory] = {}
        self._failures: list[tuple[int, Exception]] = []

    def add(self, first_index: int, files: Sequence[SmallFile]) -> None:
        """Stage these files, the first of them number `first_index`; what fails is told by `commit`."""
        now = time.time_ns()
        for index, file in enumerate(files, first_index):
            try:
                self._add(index, file, now)
            except FileNotFoundError:
                self._failures.append((index, DestinationNotFound()))
            except (OSError, FileExportError) as error:
                self._failures.append((index, error))

    def _add(self, index: int, file: SmallFile, now: int) -> None:
        if self._max_size is not None and len(file.content) > self._max_size:
            raise OutOfRange(f"the file has {len(file.content)} bytes: the limit is {self._max_size}")
        if blake3(file.content).digest() != file.digest:
            raise ChangedWhileRead
        if not file.path:
            raise FileNameError
        above, name = file.path.parts[:-1], file.path.parts[-1]
        group, path, device, inode, whole = self._directories.get(above) or self._directory(above, now)
        if whole is not None:
            # Even here a file must have a path.
            whole / name
        place = Place(device, inode, name)
        group.lease.add(place, now)
        try:
            group.batch.add_to(path, name, file.content, file.mtime, file.mode)
        except BaseException:
            group.lease.drop(place)
            raise
        group.pending.append(index)

    def _directory(self, names: tuple[str, ...], now: int) -> _Directory:
        view, path, exported = self._find(RelPath(names))
        group = self._groups.get((view, exported))
        if group is None:
            batch = self._files.batch(view, replace=self._replace, exported=exported)
            group = self._groups[view, exported] = _Group(batch, [], self._leases.many(self._holder, now))
        whole = view.base + path
        status = self._files.stat(view, path)
        found = _Directory(group, path, status.st_dev, status.st_ino, whole if is_near_limit(whole) else None)
        self._directories[names] = found
        return found

    def commit(self) -> Committed:
        """Give the files that were added since the last commit their names, durably; say what became of all.

        When this returns, what is in `ranges` is on stable storage.
        """
        done: list[int] = []
        failures, self._failures = self._failures, []
        for group in self._groups.values():
            added = group.pending.copy()
            group.pending.clear()
            try:
                errors = group.batch.commit()
            finally:
                group.lease.release()
            for number, error in zip(added, errors, strict=True):
                if error is None:
                    done.append(number)
                else:
                    failures.append((number, error))
        self._directories.clear()
        return Committed(_ranges(sorted(done)), sorted(failures, key=lambda failure: failure[0]))

    def discard(self) -> None:
        """Forget what was not committed. A second time does nothing."""
        groups, self._groups = self._groups, {}
        self._directories.clear()
        with ExitStack() as closing:
            for group in groups.values():
                closing.callback(group.lease.release)
                closing.callback(group.batch.discard)


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Rising numbers as ranges: the first, and how many."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and sum(found[-1]) == number:
            found[-1] = found[-1][0], found[-1][1] + 1
        else:
            found.append((number, 1))
    return found
