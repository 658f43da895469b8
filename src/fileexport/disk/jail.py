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

from fileexport.disk import keeping
from fileexport.disk.batches import Batch
from fileexport.disk.changes import Removal, make_directory, rename
from fileexport.disk.jail_reading import DIRECTORY, Reading
from fileexport.disk.partials import Partial
from fileexport.disk.recovery import recover
from fileexport.disk.staging import Identity, Place, Staged, identity, room, stage
from fileexport.disk.steps import Ground, Hold, Steps, unheld
from fileexport.disk.views import Entry, Kind, Opened, View, kind_of
from fileexport.errors import FileNameError
from fileexport.paths import RelPath

__all__ = ("Entry", "Jail", "Kind", "Opened", "View", "kind_of")

_ROOT = RelPath()


class Jail(Reading):
    """One directory and all beneath it; nothing else can be reached through it.

    `may_be_new` says which names may be created (the portable rule, unless the caller has another). Raises
    `OSError` where the root cannot be opened as a directory. Thread-safe: it holds nothing but the root's
    descriptor.
    """

    def remove(self, view: View, directory: RelPath, names: Iterable[str]) -> int:
        """Unlink files (or links, never what they lead to) of one directory and flush it.

        Returns how many were there and are gone. A directory is refused (`IsADirectoryError`), and so is what
        is no name (`FileNameError`). When an error is raised, those before the failing one are gone and
        flushed.
        """
        with self._directory(view, directory, DIRECTORY) as descriptor:
            return self._unlink_all(view, names, descriptor)

    def remove_chosen(self, view: View, directory: RelPath, choose: Callable[[Entry], bool]) -> int:
        """Unlink the entries of one directory that `choose` takes; otherwise as `remove`.

        Listed and removed through one descriptor: a directory that is exchanged meanwhile loses nothing.
        """
        with self._directory(view, directory, DIRECTORY) as descriptor:
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
        with self._directory(view, path.parent, DIRECTORY) as parent:
            make_directory(self._calls, parent, path.name, exist_ok=exist_ok)
            self._flush(parent)

    def make_directories(self, view: View, path: RelPath) -> int:
        """Make a directory and all that are missing above it; how many. Durable, also what was there before.

        Raises `FileExistsError` where it is something else, `NotADirectoryError` where one above it is, else
        as `make_directory`; some may be made then, but none where a name may not be created.
        """
        missing = self._missing(view, path)
        for one in missing:
            self.check_new(view, one)
        there = RelPath(path.parts[: len(path.parts) - len(missing)])
        if there:
            # Whoever makes it at this moment may not have flushed it.
            with self._directory(view, there.parent, DIRECTORY) as parent:
                self._flush(parent)
        for one in missing:
            try:
                self.make_directory(view, one, exist_ok=True)
            except FileExistsError:
                if one == path:
                    raise
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        return len(missing)

    def _missing(self, view: View, path: RelPath) -> list[RelPath]:
        """The directories on the way to `path` that are not there, itself included, the highest first."""
        missing: list[RelPath] = []
        while path:
            try:
                if not stat.S_ISDIR(self.stat(view, path).st_mode):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                break
            except FileNotFoundError:
                missing.insert(0, path)
                path = path.parent
        return missing

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
                with self._directory(view, path.parent, DIRECTORY) as parent:
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
            new_parent = held.enter_context(self._directory(target_view, target.parent, DIRECTORY))
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
        target = self._open(view, path.parent, DIRECTORY)
        try:
            with self._base(View(exported)) as base:
                return stage(self._calls, self._goal(view, path, base, target), durable=self._durable)
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

        A file whose size nobody knows has `UNKNOWN_SIZE`, and no key. It is kept at a break only with a
        `key`, which says what is written; it is continued with the same
        one, for the same `owner`, size, directory and name. What is there is read again: `check` is called
        between its pieces and may raise. Raises as `stage` does, `BusyError` where another process writes the
        same, and ENOSPC where there is no room for it.
        """

        def check_both() -> None:
            self._check_stopping()
            check()

        self.check_new(view, path)
        with self._base(View(exported)) as base:
            place = self._goal(view, path, base, self._open(view, path.parent, DIRECTORY))
            return keeping.begin(
                self._calls, place, size, key=key, owner=owner, durable=self._durable, check=check_both
            )

    def kept(
        self, view: View, path: RelPath, *, size: int, key: bytes, owner: bytes, exported: RelPath = _ROOT
    ) -> int:
        """From where `partial` would go on, so far as can be said without reading what is there."""
        with self._place(view, path, exported) as place:
            return keeping.kept(self._calls, place, size, key=key, owner=owner)

    def forget(
        self, view: View, path: RelPath, *, size: int, key: bytes, owner: bytes, exported: RelPath = _ROOT
    ) -> bool:
        """Remove what `partial` would go on with; whether there was something. Raises `BusyError`."""
        with self._place(view, path, exported) as place:
            return keeping.forget(self._calls, place, size, key=key, owner=owner)

    @contextmanager
    def _place(self, view: View, path: RelPath, exported: RelPath) -> Iterator[Place]:
        with self._base(View(exported)) as base, self._directory(view, path.parent, DIRECTORY) as target:
            yield self._goal(view, path, base, target)

    def _goal(self, view: View, path: RelPath, base: int, target: int) -> Place:
        return Place(base, target, path.name, lambda: identity(self.stat(view, path.parent)))

    def is_committed(self, view: View, path: RelPath, committed: Identity) -> bool:
        """Whether a path leads to this very file; then it stays so whatever happens to the power.

        For who looks after a kill: the file was flushed before it got its name, its directory may not be.
        Raises `OSError`.
        """
        with self._entry(view, path) as (parent, name):
            status = self._calls.lstat(name, dir_fd=parent)
            if not stat.S_ISREG(status.st_mode) or identity(status) != committed:
                return False
            self._flush(parent)
            return True

    def batch(self, view: View, *, replace: bool = False, exported: RelPath = _ROOT) -> Batch:
        """Begin many small files beneath a view; see `Batch`. Nothing is made before the first is added."""
        return Batch(
            self._calls,
            lambda path: self._open(view, path, DIRECTORY),
            lambda name: self._check_name(view, name),
            lambda: self._base(View(exported)),
            replace=replace,
            durable=self._durable,
        )

    def steps(self, view: View, *, exported: RelPath = _ROOT, hold: Hold = unheld) -> Steps:
        """Begin many small changes beneath a view; see `Steps`. `exported` as for `stage`."""
        ground = Ground(
            self._calls,
            lambda path: self._open(view, path, DIRECTORY),
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
        with self._directory(view, directory, DIRECTORY) as descriptor:
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
                with self._directory(View(), path, DIRECTORY) as descriptor:
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

    def _flush(self, directory: int) -> None:
        if self._durable:
            self._calls.fsync(directory)
