"""Files that come in: one with announced size and hash, or many small ones.

Blocking, called in pool threads, one thread at a time for each upload.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from hmac import compare_digest
from typing import NamedTuple, Protocol

from blake3 import blake3

from fileexport.disk.batches import Batch
from fileexport.disk.jail import Entry, Opened, View
from fileexport.disk.partials import Partial
from fileexport.disk.steps import Hold, Steps
from fileexport.disk.trees import Source
from fileexport.disk.views import is_near_limit
from fileexport.errors import (
    BadRequestError,
    ChangedWhileRead,
    DestinationNotFound,
    FileExportError,
    FileNameError,
    OutOfRange,
)
from fileexport.leases import Lease, Leases, Place
from fileexport.paths import RelPath
from fileexport.wire.messages import SmallFile


class Upload:
    """One file on its way. It ends by `finish`, `suspend` or `discard`, and must: each gives the lease back.

    After an error in `write` nothing is committed any more. Where the same client came again meanwhile,
    `write`, `copy` and `finish` raise `PeerGone` and do nothing: then it has to be suspended.
    """

    def __init__(
        self,
        partial: Partial,
        lease: Lease,
        *,
        mtime_ns: int | None,
        mode: int | None,
        replace: bool,
        bases: Sequence[Callable[[], Opened]] = (),
    ) -> None:
        """`bases` open files that content can be copied from; one is held at a time, and none at its end."""
        self._partial = partial
        self._lease = lease
        self._mtime_ns = mtime_ns
        self._mode = mode
        self._replace = replace
        self._bases = bases
        #: The base that is open, and its number.
        self._opened: tuple[int, Opened] | None = None

    @property
    def offset(self) -> int:
        """Bytes that are there: the next ones come behind them."""
        return self._partial.offset

    @property
    def size(self) -> int:
        """Bytes that were announced."""
        return self._partial.size

    def write(self, data: bytes | memoryview) -> None:
        """Append content and hash it. Raises `ChangedWhileRead` for more than was announced, `OSError`."""
        self._check_room(len(data))
        self._lease.check()
        self._lease.work()
        try:
            self._partial.write(data)
        finally:
            self._lease.rest(time.time_ns())

    def copy(self, base: int, offset: int, size: int, check: Callable[[], object] = lambda: None) -> None:
        """Append `size` bytes of a base, from an offset in it, and hash them.

        `check` is called before each piece and may raise; what came until then is there. Raises
        `BadRequestError` where there is no such base, `ConflictError` where it is another one than at the
        beginning, `ChangedWhileRead` where it ends before, and as `write`.
        """
        self._lease.check()
        opened = self._base(base)
        if offset + size > opened.stat.st_size:
            raise ChangedWhileRead
        self._check_room(size)
        self._lease.work()
        try:
            self._partial.copy_from(opened.descriptor, offset, size, check)
        finally:
            self._lease.rest(time.time_ns())

    def _base(self, number: int) -> Opened:
        """One base: descriptors are few, and content comes in long pieces of one of them."""
        if not 0 <= number < len(self._bases):
            raise BadRequestError("a copy from a file that was not named")
        if self._opened is None or self._opened[0] != number:
            self._close_base()
            self._opened = number, self._bases[number]()
        return self._opened[1]

    def _close_base(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened[1].close()

    def _check_room(self, size: int) -> None:
        if self._partial.offset + size > self._partial.size:
            raise ChangedWhileRead

    def finish(self, size: int, digest: bytes) -> None:
        """Commit what was written: when this returns, content and name are on stable storage.

        Raises `ChangedWhileRead` where size or BLAKE3 are not those of the content or of the announcement,
        `FileExistsError`, `IsADirectoryError`, `OSError`; the old version stays then and the content is gone.
        """
        self._lease.check()
        self._lease.work()
        try:
            partial = self._partial
            whole = size == partial.size == partial.offset
            # One that is broken says so itself.
            if not partial.is_broken and not (whole and compare_digest(partial.hasher.digest(), digest)):
                partial.discard()
                raise ChangedWhileRead
            partial.commit(self._mtime_ns, self._replace, self._mode)
        finally:
            self._release()

    def suspend(self) -> None:
        """Keep what is there for who comes with the same source, or discard it where none was named.

        Raises `OSError` where less is kept than was written. After the end this does nothing.
        """
        try:
            self._partial.suspend()
        finally:
            self._release()

    def discard(self) -> None:
        """Forget it; the old version stays. After the end this does nothing."""
        try:
            self._partial.discard()
        finally:
            self._release()

    def _release(self) -> None:
        with ExitStack() as closing:
            closing.callback(self._lease.release)
            closing.callback(self._close_base)


class Target(NamedTuple):
    """A path as the disk knows it: beneath a view, in the staging of an exported directory."""

    view: View
    path: RelPath
    exported: RelPath


class Files(Source, Protocol):
    """Where the exported bytes live: what the verbs ask of the disk, a jail as a rule."""

    @property
    def is_portable(self) -> bool: ...
    def remove(self, view: View, directory: RelPath, names: Iterable[str]) -> int: ...
    def remove_chosen(self, view: View, directory: RelPath, choose: Callable[[Entry], bool]) -> int: ...
    def check_new(self, view: View, path: RelPath) -> None: ...
    def room(self, view: View, directory: RelPath) -> int: ...
    def lstat(self, view: View, path: RelPath) -> os.stat_result: ...
    def read_pieces(self, opened: Opened) -> Iterator[memoryview]: ...
    def make_directory(self, view: View, path: RelPath, *, exist_ok: bool = ...) -> None: ...
    def make_file(self, view: View, path: RelPath, *, exist_ok: bool, exported: RelPath) -> None: ...
    def batch(self, view: View, *, replace: bool = ..., exported: RelPath = ...) -> Batch: ...
    def steps(self, view: View, *, exported: RelPath = ..., hold: Hold = ...) -> Steps: ...
    def names(self, view: View, opened: Opened) -> Iterator[str]: ...
    def look(self, opened: Opened, name: str) -> tuple[os.stat_result, str] | None: ...

    def rename(
        self, view: View, path: RelPath, target_view: View, target: RelPath, *, replace: bool = ...
    ) -> None: ...

    def remove_tree(
        self, view: View, path: RelPath, *, recursive: bool = ..., check: Callable[[], object] = ...
    ) -> int: ...

    def partial(
        self,
        view: View,
        path: RelPath,
        *,
        size: int,
        key: bytes | None = ...,
        owner: bytes = ...,
        exported: RelPath = ...,
        check: Callable[[], object] = ...,
    ) -> Partial: ...


def begin(
    files: Files,
    lease: Lease,
    target: Target,
    *,
    size: int,
    mtime_ns: int | None,
    mode: int | None,
    replace: bool,
    source: bytes | None,
    owner: str,
    check: Callable[[], object],
    bases: Sequence[Callable[[], Opened]],
) -> Upload:
    """Begin a file, or go on with it: see `Exports.begin_upload`. The lease is given back when it raises."""

    def check_both() -> None:
        lease.check()
        check()

    view, path, exported = target
    try:
        _check_replaced(files, target, replace)
        partial = files.partial(
            view, path, size=size, key=source, owner=os.fsencode(owner), exported=exported, check=check_both
        )
    except BaseException:
        lease.release()
        raise
    return Upload(partial, lease, mtime_ns=mtime_ns, mode=mode, replace=replace, bases=bases)


def _check_replaced(files: Files, target: Target, replace: bool) -> None:
    try:
        old = files.lstat(target.view, target.path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not replace:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


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
