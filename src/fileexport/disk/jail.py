"""The only place where a name becomes a descriptor: open, stat, list, remove, stage.

A `Jail` holds the root open. Each verb takes a `View` (what this caller may see of it) and a `RelPath`
beneath the view's base; what comes back is a descriptor with its stat, never a path.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NamedTuple

from fileexport.disk.calls import Calls
from fileexport.disk.resolve import Openat2, Resolver, Walk
from fileexport.disk.staging import Staged, recover, room, stage
from fileexport.errors import FileNameError, OverloadedError
from fileexport.paths import RESERVED, RelPath, is_file_name_valid

Kind = Literal["file", "directory", "link", "other"]

#: Without waiting for a FIFO's writer, without becoming a terminal's owner.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY


_ROOT = RelPath()


@dataclass(frozen=True, slots=True)
class View:
    """What a caller may see: everything beneath `base`; names with a leading dot only when `hidden`."""

    base: RelPath = RelPath()
    hidden: bool = True

    def admits(self, name: str) -> bool:
        """Whether a name may be seen at all."""
        return name != RESERVED and (self.hidden or not name.startswith("."))


_KINDS: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


class Entry(NamedTuple):
    """One entry of a directory. `size` in bytes (0 for a directory), `mtime_ns` since the epoch.

    A link has its own mtime; `size` is its own as well. `mode` is the whole st_mode.
    """

    name: str
    kind: Kind
    size: int
    mtime_ns: int
    mode: int

    @classmethod
    def of(cls, name: str, status: os.stat_result) -> Entry:
        """Describe `name` by what lstat(2) says of it."""
        kind = kind_of(status.st_mode)
        size = 0 if kind == "directory" else status.st_size
        return cls(name, kind, size, status.st_mtime_ns, status.st_mode)


def kind_of(mode: int) -> Kind:
    """The kind of an st_mode."""
    return _KINDS.get(stat.S_IFMT(mode), "other")


class Opened:
    """An open file or directory and its stat. Close it, or use it in a `with` block."""

    __slots__ = ("_close", "descriptor", "stat")

    def __init__(self, descriptor: int, status: os.stat_result, close: Callable[[int], None]) -> None:
        self.descriptor = descriptor
        self.stat = status
        self._close = close

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory; otherwise it is a regular file."""
        return stat.S_ISDIR(self.stat.st_mode)

    def close(self) -> None:
        """Close the descriptor; a second time does nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            self._close(descriptor)

    def __enter__(self) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Jail:
    """One directory and all beneath it; nothing else can be reached through it.

    `may_be_new` says which names may be created (the portable rule, unless the caller has another). Raises
    `OSError` where the root cannot be opened as a directory. Thread-safe: it holds nothing but the root's
    descriptor.
    """

    def __init__(
        self,
        root: str,
        *,
        calls: Calls | None = None,
        resolver: Callable[[Calls], Resolver] | None = None,
        durable: bool = True,
        may_be_new: Callable[[str], bool] = is_file_name_valid,
    ) -> None:
        self._calls = calls or Calls()
        self._durable = durable
        self._may_be_new = may_be_new
        self._interrupted = False
        self._root = self._calls.open(root, _DIRECTORY, dir_fd=None)
        try:
            if resolver is None:
                resolver = Openat2 if Openat2.is_available(self._calls, self._root) else Walk
            self._resolver = resolver(self._calls)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the root; every verb fails from then on. A second time does nothing.

        Not while a verb runs: the number of its descriptor may be given to something else.
        """
        root, self._root = self._root, -1
        if root >= 0:
            self._calls.close(root)

    def interrupt(self) -> None:
        """Make every verb that walks fail at its next entry, so that `close` need not wait for long."""
        self._interrupted = True

    @property
    def root_stat(self) -> os.stat_result:
        """The root's own stat."""
        return self._calls.fstat(self._root)

    # -- reading

    def open(self, view: View, path: RelPath) -> Opened:
        """Open a regular file or a directory for reading.

        Raises `OSError`: ENOENT for what is not there or may not be seen, EACCES also for what is neither
        a file nor a directory.
        """
        descriptor = self._open(view, path, _READ)
        try:
            status = self._calls.fstat(descriptor)
            if kind_of(status.st_mode) not in ("file", "directory"):
                raise PermissionError(errno.EACCES, "not a regular file")
        except BaseException:
            self._calls.close(descriptor)
            raise
        return Opened(descriptor, status, self._calls.close)

    def stat(self, view: View, path: RelPath) -> os.stat_result:
        """What stat(2) says of the path, relative links followed; needs no right to read the file."""
        descriptor = self._open(view, path, getattr(os, "O_PATH", _READ))
        try:
            return self._calls.fstat(descriptor)
        finally:
            self._calls.close(descriptor)

    def entries(self, view: View, path: RelPath) -> Iterator[Entry]:
        """The entries of a directory in the disk's order; ENOTDIR where the path is none.

        An entry that goes away meanwhile is left out.
        """
        with self._directory(view, path, _DIRECTORY) as descriptor:
            yield from self._scan(view, descriptor)

    def _scan(self, view: View, descriptor: int) -> Iterator[Entry]:
        for found in self._calls.scan(descriptor):
            if self._interrupted:
                raise OverloadedError("the server is stopping")
            if not view.admits(found.name):
                continue
            try:
                status = self._calls.lstat(found.name, dir_fd=descriptor)
            except FileNotFoundError:
                continue
            yield Entry.of(found.name, status)

    # -- changing

    def remove(self, view: View, directory: RelPath, names: Iterable[str]) -> int:
        """Unlink files (or links, never what they lead to) of one directory and flush it.

        Returns how many were there and are gone. A directory is refused (`IsADirectoryError`), and so is what
        is no name (`FileNameError`). When an error is raised, those before the failing one are gone and
        flushed.
        """
        with self._directory(view, directory, _DIRECTORY) as descriptor:
            return self._unlink_all(view, names, descriptor)

    def remove_chosen(self, view: View, directory: RelPath, choose: Callable[[Entry], bool]) -> int:
        """Unlink the entries of one directory that `choose` takes; otherwise as `remove`.

        Listed and removed through one descriptor: a directory that is exchanged meanwhile loses nothing.
        """
        with self._directory(view, directory, _DIRECTORY) as descriptor:
            names = [entry.name for entry in self._scan(view, descriptor) if choose(entry)]
            return self._unlink_all(view, names, descriptor)

    def _unlink_all(self, view: View, names: Iterable[str], descriptor: int) -> int:
        removed = 0
        try:
            for name in names:
                RelPath((name,))
                removed += self._unlink(view, name, descriptor)
        finally:
            if removed and self._durable:
                self._calls.fsync(descriptor)
        return removed

    def _unlink(self, view: View, name: str, descriptor: int) -> bool:
        if not view.admits(name):
            return False
        try:
            mode = self._calls.lstat(name, dir_fd=descriptor).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
            self._calls.unlink(name, dir_fd=descriptor)
        except FileNotFoundError:
            return False
        return True

    def stage(self, view: View, path: RelPath, *, exported: RelPath = _ROOT) -> Staged:
        """Begin a file that appears at `path` only when it is committed.

        It is written in the staging of `exported`, the exported directory that holds the view's base. The
        directory must exist; the last name is never followed. Raises `FileNameError` for a name that may
        not be created, else `OSError`; nothing is left then.
        """
        self.check_new(view, path)
        target = self._open(view, path.parent, _DIRECTORY)
        try:
            with self._base(View(exported)) as base:
                return stage(self._calls, base, target, path.name, durable=self._durable)
        except BaseException:
            self._calls.close(target)
            raise

    def check_new(self, view: View, path: RelPath) -> None:
        """Refuse a name that `stage` would refuse, whatever is on the disk; raises as it does."""
        if path and not self._may_be_new(path.name):
            raise FileNameError
        if not path or not all(view.admits(name) for name in path):
            raise PermissionError(errno.EACCES, "this name cannot be written")

    def room(self, view: View, directory: RelPath) -> int:
        """Bytes that may still be written to the directory's file system; 0 where only its reserve is left.

        Raises `OSError` (EROFS) where nothing may be written at all.
        """
        with self._directory(view, directory, _DIRECTORY) as descriptor:
            return room(self._calls, descriptor)

    def recover(self, directories: Iterable[RelPath]) -> int:
        """Remove what killed writers left in the staging of these directories and of the mounts beneath.

        Returns how many files. What a living writer still holds stays; what cannot be opened is passed over.
        """
        removed = 0
        for path in {*directories, *self._mounts()}:
            try:
                with self._directory(View(), path, _DIRECTORY) as descriptor:
                    removed += recover(self._calls, descriptor)
            except OSError:
                continue
        return removed

    def _mounts(self) -> Iterator[RelPath]:
        try:
            root, points = self._calls.path_of(self._root), self._calls.mount_points()
        except OSError:
            return
        for point in points:
            if point.startswith(root.rstrip("/") + "/"):
                with suppress(FileNameError):
                    yield RelPath.parse(point[len(root) :])

    # -- descriptors

    @contextmanager
    def _base(self, view: View) -> Iterator[int]:
        if not view.base:
            yield self._root
            return
        # The base was named by whoever runs the daemon: only our own directory is refused in it.
        descriptor = self._resolver.open(self._root, view.base.parts, _PASS, View().admits)
        try:
            yield descriptor
        finally:
            self._calls.close(descriptor)

    def _open(self, view: View, path: RelPath, flags: int) -> int:
        if not view.base:
            return self._resolver.open(self._root, path.parts, flags, view.admits)
        with self._base(view) as base:
            return self._resolver.open(base, path.parts, flags, view.admits)

    @contextmanager
    def _directory(self, view: View, path: RelPath, flags: int) -> Iterator[int]:
        descriptor = self._open(view, path, flags)
        try:
            yield descriptor
        finally:
            self._calls.close(descriptor)
