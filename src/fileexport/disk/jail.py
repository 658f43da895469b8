"""The only place where a name becomes a descriptor: open, stat, list, remove, stage.

A `Jail` holds the root open. Each verb takes a `View` (what this caller may see of it) and a `RelPath`
beneath the view's base; what comes back is a descriptor with its stat, never a path.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from fileexport.disk.batches import Batch
from fileexport.disk.calls import Calls
from fileexport.disk.changes import Removal, make_directory, rename
from fileexport.disk.partials import Partial, Place, begin
from fileexport.disk.recovery import recover
from fileexport.disk.resolve import Openat2, Resolver, Walk
from fileexport.disk.staging import Staged, room, stage
from fileexport.disk.steps import Ground, Hold, Steps, unheld
from fileexport.disk.views import Entry, Kind, Opened, View, kind_of
from fileexport.errors import FileNameError, OverloadedError
from fileexport.paths import RelPath, is_file_name_valid

__all__ = ("Entry", "Jail", "Kind", "Opened", "View", "kind_of")

#: Without waiting for a FIFO's writer, without becoming a terminal's owner.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY

#: Bytes that are read at once.
_PIECE = 1 << 20

#: Looks at a name that is exchanged again and again.
_TRIES = 16

_ROOT = RelPath()


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

    def _check_stopping(self) -> None:
        if self._interrupted:
            raise OverloadedError("the server is stopping")

    @property
    def is_portable(self) -> bool:
        """Whether only portable names may be created."""
        return self._may_be_new is is_file_name_valid

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
        return Opened(descriptor, status, self._calls)

    def stat(self, view: View, path: RelPath) -> os.stat_result:
        """What stat(2) says of the path, relative links followed; needs no right to read the file."""
        descriptor = self._open(view, path, getattr(os, "O_PATH", _READ))
        try:
            return self._calls.fstat(descriptor)
        finally:
            self._calls.close(descriptor)

    def lstat(self, view: View, path: RelPath) -> os.stat_result:
        """What lstat(2) says of the path: its last name is not followed, the way there as in `open`."""
        # Passing is enough to stat.
        with self._entry(view, path, _PASS) as (parent, name):
            if not name:
                return self._calls.fstat(parent)
            return self._calls.lstat(name, dir_fd=parent)

    def read_pieces(self, opened: Opened) -> Iterator[memoryview]:
        """The content of an open file from where it is read next, each piece good until the next one."""
        buffer = memoryview(bytearray(min(_PIECE, max(opened.stat.st_size, 1))))
        while count := self._calls.read(opened.descriptor, buffer):
            self._check_stopping()
            yield buffer[:count]

    def entries(self, view: View, path: RelPath) -> Iterator[Entry]:
        """The entries of a directory in the disk's order; ENOTDIR where the path is none.

        An entry that goes away meanwhile is left out.
        """
        with self._directory(view, path, _DIRECTORY) as descriptor:
            yield from self._scan(view, descriptor)

    def _scan(self, view: View, descriptor: int) -> Iterator[Entry]:
        for found in self._calls.scan(descriptor):
            self._check_stopping()
            if not view.admits(found.name):
                continue
            try:
                status = self._calls.lstat(found.name, dir_fd=descriptor)
            except FileNotFoundError:
                continue
            yield Entry.of(found.name, status)

    def names(self, view: View, opened: Opened) -> Iterator[str]:
        """The names in an open directory that may be seen, in the disk's order. Raises `OSError`."""
        for found in self._calls.scan(opened.descriptor):
            self._check_stopping()
            if view.admits(found.name):
                yield found.name

    def look(self, opened: Opened, name: str) -> tuple[os.stat_result, str] | None:
        """What lstat(2) says of a name in an open directory, and the text of a link; None if it is gone."""
        self._check_stopping()
        for _ in range(_TRIES):
            try:
                status = self._calls.lstat(name, dir_fd=opened.descriptor)
                if not stat.S_ISLNK(status.st_mode):
                    return status, ""
                return status, self._calls.readlink(name, dir_fd=opened.descriptor)
            except FileNotFoundError:
                return None
            except OSError as error:
                # A link that was one a moment ago.
                if error.errno != errno.EINVAL:
                    raise
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

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

    def make_directory(self, view: View, path: RelPath, *, exist_ok: bool = False) -> None:
        """Make a directory, its mode from the umask, and flush the one that it is in.

        Raises as `stage` does, and `FileExistsError`; with `exist_ok` only where something else than a
        directory has the name, a link to one too.
        """
        self.check_new(view, path)
        with self._directory(view, path.parent, _DIRECTORY) as parent:
            make_directory(self._calls, parent, path.name, exist_ok=exist_ok)
            self._flush(parent)

    def make_file(
        self, view: View, path: RelPath, *, exist_ok: bool = False, exported: RelPath = _ROOT
    ) -> None:
        """Make an empty file, by `stage` and durably. One that is there stays as it is.

        Raises as `stage` does, and `FileExistsError`; with `exist_ok` only where the name is not a file's
        own.
        """
        with self.stage(view, path, exported=exported) as staged:
            try:
                staged.commit(replace=False)
            except FileExistsError:
                if not exist_ok or not stat.S_ISREG(self.lstat(view, path).st_mode):
                    raise
                with self._directory(view, path.parent, _DIRECTORY) as parent:
                    self._flush(parent)

    def rename(
        self, view: View, path: RelPath, target_view: View, target: RelPath, *, replace: bool = False
    ) -> None:
        """Give a file, a link itself, or a directory another name in one step; flush both directories.

        Raises `FileExistsError` where the name is taken without `replace`; `IsADirectoryError` where it is a
        directory, and `NotADirectoryError` for a directory that would replace something; `ConflictError` for
        another file system, a directory into itself, two names of one file; `FileNameError`; `OSError`.
        Only the flush of a directory can fail after the rename.
        """
        self.check_new(target_view, target)
        with self._entry(view, path) as (parent, name), ExitStack() as held:
            new_parent = held.enter_context(self._directory(target_view, target.parent, _DIRECTORY))
            rename(self._calls, parent, name, new_parent, target.name, replace=replace)
            self._flush(new_parent)
            self._flush(parent)

    def remove_tree(
        self,
        view: View,
        path: RelPath,
        *,
        recursive: bool = False,
        check: Callable[[], object] = lambda: None,
    ) -> int:
        """Remove a file, a link itself, an empty directory, or with `recursive` any directory; see `Removal`.

        Returns how many files and directories that were. `check` may raise between two entries. Raises
        `FileNotFoundError` where it is not there. Names that the view does not admit stay, and what holds
        them: `IsADirectoryError`. After an error some may be gone.
        """
        with self._entry(view, path) as (parent, name):
            removal = Removal(self._calls, view.admits, check, durable=self._durable)
            return removal.run(parent, name, recursive=recursive)

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

    def partial(
        self,
        view: View,
        path: RelPath,
        *,
        size: int,
        key: bytes | None = None,
        owner: bytes = b"",
        exported: RelPath = _ROOT,
        check: Callable[[], object] = lambda: None,
    ) -> Partial:
        """Begin a file of `size` bytes, as `stage` does, or go on with what is there of it, from `offset`.

        It is kept at a break only with a `key`, which says what is written; it is continued with the same
        one, for the same `owner`, size, directory and name. What is there is read again: `check` is called
        between its pieces and may raise. Raises as `stage` does, `BusyError` where another process writes the
        same, and ENOSPC where there is no room for it.
        """

        def check_both() -> None:
            self._check_stopping()
            check()

        self.check_new(view, path)
        with self._base(View(exported)) as base:
            place = Place(base, self._open(view, path.parent, _DIRECTORY), path.name)
            return begin(
                self._calls, place, size, key=key, owner=owner, durable=self._durable, check=check_both
            )

    def batch(self, view: View, *, replace: bool = False, exported: RelPath = _ROOT) -> Batch:
        """Begin many small files beneath a view; see `Batch`. Nothing is made before the first is added."""
        return Batch(
            self._calls,
            lambda path: self._open(view, path, _DIRECTORY),
            lambda name: self._check_name(view, name),
            lambda: self._base(View(exported)),
            replace=replace,
            durable=self._durable,
        )

    def steps(self, view: View, *, exported: RelPath = _ROOT, hold: Hold = unheld) -> Steps:
        """Begin many small changes beneath a view; see `Steps`. `exported` as for `stage`."""
        ground = Ground(
            self._calls,
            lambda path: self._open(view, path, _DIRECTORY),
            lambda path: self.check_new(view, path),
            view.admits,
            lambda: self._base(view),
            lambda: self._base(View(exported)),
        )
        return Steps(ground, hold=hold, durable=self._durable)

    def check_new(self, view: View, path: RelPath) -> None:
        """Refuse a name that `stage` would refuse, whatever is on the disk; raises as it does."""
        *above, last = path.parts or ("",)
        if not last or not all(map(view.admits, above)):
            raise PermissionError(errno.EACCES, "this name cannot be written")
        self._check_name(view, last)

    def _check_name(self, view: View, name: str) -> None:
        if not self._may_be_new(name):
            raise FileNameError
        if not view.admits(name):
            raise PermissionError(errno.EACCES, "this name cannot be written")

    def room(self, view: View, directory: RelPath) -> int:
        """Bytes that may still be written to the directory's file system; 0 where only its reserve is left.

        Raises `OSError` (EROFS) where nothing may be written at all.
        """
        with self._directory(view, directory, _DIRECTORY) as descriptor:
            return room(self._calls, descriptor)

    def recover(self, directories: Iterable[RelPath], *, now: int | None = None) -> int:
        """Remove what killed writers left in the staging of these directories and of the mounts beneath.

        Returns how many files; a batch of them counts once. What a living writer still holds stays, and what
        can be continued for a day, until `now` in nanoseconds; what cannot be opened is passed over.
        """
        now = time.time_ns() if now is None else now
        removed = 0
        for path in {*directories, *self._mounts()}:
            try:
                with self._directory(View(), path, _DIRECTORY) as descriptor:
                    removed += recover(self._calls, descriptor, now)
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

    def _flush(self, directory: int) -> None:
        if self._durable:
            self._calls.fsync(directory)

    @contextmanager
    def _entry(self, view: View, path: RelPath, flags: int = _DIRECTORY) -> Iterator[tuple[int, str]]:
        """The open directory that an entry is in, and its name, which may be seen; empty for the base."""
        if path and not view.admits(path.name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with self._directory(view, path.parent, flags) as parent:
            yield parent, path.name

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
