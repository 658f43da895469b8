"""A file that comes in, with its size and hash announced or not.

Blocking, called in pool threads, one thread at a time for each upload.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hmac import compare_digest
from typing import NamedTuple, Protocol

from fileexport.disk.batches import Batch
from fileexport.disk.jail import Entry, Opened, View
from fileexport.disk.partials import UNKNOWN_SIZE, Mark, Partial, least_room
from fileexport.disk.staging import Identity
from fileexport.disk.steps import Hold, Steps
from fileexport.disk.trees import Source
from fileexport.errors import BadRequestError, ChangedWhileRead
from fileexport.leases import Lease
from fileexport.paths import RelPath


class Upload:
    """One file on its way. It ends by `finish`, `suspend` or `discard`, and must: each gives the lease back.

    After an error in `write` nothing is committed any more.

    - `mode` is taken `& 0o777`; without it a file that is replaced leaves its own.
    - `bases` are files that content can be copied from, each with the version that is meant, if one is.
    - `revoked` is called, in another thread, when the same client comes again for the same and this upload is
      quiet: its connection was lost. `write`, `copy` and `finish` raise `PeerGone` then and do nothing: it
      has to be suspended.
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
        """Bytes that were announced; `sys.maxsize` where nobody said."""
        return self._partial.size

    @property
    def identity(self) -> Identity:
        """Device and inode of what is written; the committed file has the same. Not after the end."""
        return self._partial.identity

    def write(self, data: bytes | memoryview) -> None:
        """Append content and hash it. Raises `ChangedWhileRead` for more than was announced, `OSError`."""
        self._check_room(len(data))
        with self._working():
            self._partial.write(data)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Nobody takes it over meanwhile. Raises `PeerGone` where somebody did."""
        self._lease.check()
        self._lease.work()
        try:
            yield
        finally:
            self._lease.rest(time.time_ns())

    def mark(self) -> Mark:
        """From here on nothing is kept at a break until `accept`; `rewind` cuts it off.

        Raises `ValueError` where another mark is open.
        """
        return self._partial.mark()

    def rewind(self, mark: Mark) -> None:
        """What came since the mark, which is the open one, is gone; the next content comes there.

        Raises `OSError`, also after a write that the disk failed; `ValueError` for another mark.
        """
        with self._working():
            self._partial.rewind(mark)

    def accept(self) -> None:
        """What came until now is meant, and kept at a break, also when the process is killed.

        What is not whole then is flushed, too, unless nothing is new: it is kept when the power fails. So it
        ends a mark. Raises `OSError`.
        """
        with self._working():
            self._partial.accept()

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
        with self._working():
            self._partial.copy_from(opened.descriptor, offset, size, check)

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

    def require_place(self) -> None:
        """Raise `ConflictError` where its directory was moved or removed meanwhile: all is kept so far."""
        self._partial.require_place()

    def divert(self, name: str) -> None:
        """Have it get another name in its directory: for the `check` of `finish`.

        Raises `BusyError` where somebody writes that one.
        """
        self._lease.add_beside(name, time.time_ns())
        self._partial.divert(name)

    def finish(
        self,
        size: int | None = None,
        digest: bytes | None = None,
        *,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        """Commit what was written: when this returns, content and name are on stable storage.

        Without `size` or `digest` (BLAKE3) it is not compared with what came; what was announced counts
        always. `check` is called when all is flushed and nothing is left but the rename, and may raise.
        Raises `ChangedWhileRead` where size or hash are not those of the content or of the announcement,
        `FileExistsError`, `IsADirectoryError`, `ConflictError` where its directory was moved meanwhile,
        `OSError`, `RuntimeError` behind a mark; the old version stays then and the content is gone.
        """
        self._lease.check()
        self._lease.work()
        try:
            partial = self._partial
            # One that is broken says so itself.
            if not partial.is_broken and not self._is_whole(size, digest):
                partial.discard()
                raise ChangedWhileRead
            partial.commit(self._mtime_ns, self._replace, self._mode, check)
        finally:
            self._release()

    def _is_whole(self, size: int | None, digest: bytes | None) -> bool:
        partial = self._partial
        if partial.size not in (UNKNOWN_SIZE, partial.offset) or size not in (None, partial.offset):
            return False
        return digest is None or compare_digest(partial.hasher.digest(), digest)

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
    def make_directories(self, view: View, path: RelPath) -> int: ...
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

    def kept(
        self, view: View, path: RelPath, *, size: int, key: bytes, owner: bytes, exported: RelPath = ...
    ) -> int: ...

    def forget(
        self, view: View, path: RelPath, *, size: int, key: bytes, owner: bytes, exported: RelPath = ...
    ) -> bool: ...

    def is_committed(self, view: View, path: RelPath, committed: Identity) -> bool: ...


def begin(
    files: Files,
    lease: Lease,
    target: Target,
    *,
    size: int | None,
    mtime_ns: int | None,
    mode: int | None,
    replace: bool,
    diverts: bool,
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
        if not diverts:
            check_replaced(files, target, replace)
        partial = files.partial(
            view,
            path,
            size=_known(size),
            key=source,
            owner=os.fsencode(owner),
            exported=exported,
            check=check_both,
        )
    except BaseException:
        lease.release()
        raise
    return Upload(partial, lease, mtime_ns=mtime_ns, mode=mode, replace=replace, bases=bases)


def _known(size: int | None) -> int:
    return UNKNOWN_SIZE if size is None else size


def check_room(files: Files, view: View, directory: RelPath, size: int | None) -> None:
    """Raise `OSError` (ENOSPC) where `size` more bytes have no room; EROFS where nothing may be written."""
    if files.room(view, directory) < least_room(_known(size)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def check_replaced(files: Files, target: Target, replace: bool) -> None:
    """Raise `IsADirectoryError` where a directory has the name, `FileExistsError` where anything has it."""
    try:
        old = files.lstat(target.view, target.path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not replace:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
