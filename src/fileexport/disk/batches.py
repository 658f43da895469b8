"""Many small files at once: each appears complete or not at all, and costs little more than its own calls.

The files of a batch are staged in one directory of ours, `.fileexport/new-…/`, which is locked as a whole.
They are flushed together, then each gets its name, then the directories are flushed. The directories that
they go to are opened once between two commits.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress

from fileexport.disk.calls import Calls
from fileexport.disk.flushing import MAX_FLUSHED, MAX_PARENTS, flush_all, let_go
from fileexport.disk.staging import (
    DIRECTORY_MODE,
    PREFIX,
    TRIES,
    has_name,
    inherited,
    room,
    staging_of,
)
from fileexport.paths import RelPath

#: Bytes between two looks at the free space.
_LOOK_EVERY = 64 << 20

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Home:
    """The directory of a batch, in the staging of one mount. Opened before the first write: see `syncfs`."""

    __slots__ = ("descriptor", "written", "_calls", "_modes", "_name", "_staging")

    def __init__(self, calls: Calls, base: int, target: int) -> None:
        self._calls = calls
        #: Whether a file that is made in here with a mode has it then.
        self._modes: dict[int, bool] = {}
        self.written = _LOOK_EVERY
        for _ in range(TRIES):
            # A recovery may find the staging empty and remove it under our hands.
            with suppress(FileNotFoundError, FileExistsError, BlockingIOError):
                self._open(base, target)
                return
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def _open(self, base: int, target: int) -> None:
        calls, name = self._calls, PREFIX + secrets.token_hex(12)
        with ExitStack() as held, ExitStack() as undo:
            staging = staging_of(calls, base, target)
            held.callback(calls.close, staging)
            calls.mkdir(name, DIRECTORY_MODE, dir_fd=staging)
            undo.callback(_quietly, calls.rmdir, name, staging)
            descriptor = calls.open(name, _DIRECTORY, dir_fd=staging)
            held.callback(calls.close, descriptor)
            calls.lock(descriptor)
            # A recovery may have taken it for an orphan before.
            if not has_name(calls, staging, name, descriptor):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            undo.pop_all()
            held.pop_all()
        self._name, self._staging, self.descriptor = name, staging, descriptor

    def close(self) -> None:
        """Remove it; what is still in it stays for a recovery."""
        with ExitStack() as closing:
            closing.callback(self._calls.close, self._staging)
            closing.callback(self._calls.close, self.descriptor)
            _quietly(self._calls.rmdir, self._name, self._staging)

    def give_mode(self, descriptor: int, mode: int) -> None:
        """Give a mode to a file that was just made in here with it, as far as that left something to do.

        What it lacks then, umask and ACLs have taken; they do not change for us, so one look at each mode is
        enough. Were the umask narrowed meanwhile, a file would have less than its mode, never more.
        """
        is_given = self._modes.get(mode)
        if is_given is None:
            is_given = self._calls.fstat(descriptor).st_mode & 0o777 == mode
            self._modes[mode] = is_given
        if not is_given:
            self._calls.fchmod(descriptor, mode)

    def require_room(self, size: int) -> None:
        """Look now and then; raise `OSError` (ENOSPC) where only the reserve is left."""
        self.written += size
        if self.written >= _LOOK_EVERY:
            if room(self._calls, self.descriptor) < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.written = 0


def _quietly(remove: Callable[..., None], name: str, directory: int) -> None:
    with suppress(OSError):
        remove(name, dir_fd=directory)


class _Parent:
    """A directory that files go to."""

    __slots__ = ("descriptor", "home", "needs_flush")

    def __init__(self, descriptor: int, home: Home) -> None:
        self.descriptor = descriptor
        self.home = home
        self.needs_flush = False


class _File:
    """A file that was added: staged as `name`; its descriptor is -1 once it is closed."""

    __slots__ = ("descriptor", "error", "final", "name", "parent")

    def __init__(self, name: str, final: str, parent: _Parent, descriptor: int) -> None:
        self.name = name
        self.final = final
        self.parent = parent
        self.descriptor = descriptor
        self.error: Exception | None = None


class Batch:
    """Small files beneath one directory. Not thread-safe; one writer. It ends by `discard`, and must.

    `open_parent` opens a directory by its path; `check` refuses a name that may not be created; `base` holds
    the exported directory open whose staging is used.
    """

    def __init__(
        self,
        calls: Calls,
        open_parent: Callable[[RelPath], int],
        check: Callable[[str], None],
        base: Callable[[], AbstractContextManager[int]],
        *,
        replace: bool,
        durable: bool,
    ) -> None:
        self._calls = calls
        self._open_parent = open_parent
        self._check = check
        self._base = base
        self._replace = replace
        self._durable = durable
        self._count = 0
        self._homes: dict[int, Home] = {}
        self._parents: dict[RelPath, _Parent] = {}
        self._files: list[_File] = []
        self._results: list[Exception | None] = []

    def add(
        self,
        path: RelPath,
        content: bytes | memoryview,
        mtime_ns: int | None = None,
        mode: int | None = None,
    ) -> None:
        """Stage a file; it appears at the next `commit`. Raises `OSError` or `FileNameError`: only this one
        failed then, and `commit` says nothing of it.

        `mode` is taken `& 0o777`; without it a file that is replaced leaves its own, else the umask decides.
        """
        self.add_to(path.parent, path.name, content, mtime_ns, mode)

    def add_to(
        self,
        directory: RelPath,
        final: str,
        content: bytes | memoryview,
        mtime_ns: int | None = None,
        mode: int | None = None,
    ) -> None:
        """The same, for a file of this name in a directory: cheaper where that is the same for many."""
        self._check(final)
        parent = self._parents.get(directory) or self._new_parent(directory)
        parent.home.require_room(len(content))
        name = str(self._count)
        self._count += 1
        if mode is not None:
            mode &= 0o777
        wanted = 0o666 if mode is None else mode
        descriptor = self._calls.open(name, _NEW, dir_fd=parent.home.descriptor, mode=wanted)
        file = _File(name, final, parent, descriptor)
        try:
            self._fill(file, content, mtime_ns, mode)
            if not self._durable:
                self._close_file(file)
            elif len(self._files) >= MAX_FLUSHED:
                self._let_go(file)
        except BaseException:
            self._drop(file)
            raise
        self._files.append(file)
        if len(self._files) == MAX_FLUSHED + 1:
            self._let_go_all()

    def _fill(self, file: _File, content: bytes | memoryview, mtime_ns: int | None, mode: int | None) -> None:
        calls, descriptor = self._calls, file.descriptor
        rest: bytes | memoryview = content
        while rest:
            count = calls.write(descriptor, rest)
            if count == len(rest):
                break
            rest = memoryview(rest)[count:]
        if mode is not None:
            file.parent.home.give_mode(descriptor, mode)
        elif self._replace:
            self._inherit(file)
        if mtime_ns is not None:
            calls.utime(descriptor, mtime_ns)

    def _inherit(self, file: _File) -> None:
        """Give it the mode of the file that it replaces, if there is one."""
        calls = self._calls
        with suppress(FileNotFoundError):
            old = calls.lstat(file.final, dir_fd=file.parent.descriptor)
            new = calls.fstat(file.descriptor)
            mode = inherited(old, new)
            if mode is not None and mode != new.st_mode & 0o777:
                calls.fchmod(file.descriptor, mode)

    def commit(self) -> list[Exception | None]:
        """Give the files their names, durably: what became of each that was added since the last commit.

        In the order in which they were added; None for what is there. A file that failed is gone, and what
        had its name stays; only where the flush of its directory failed it is there all the same.
        """
        try:
            self._settle()
        finally:
            self._close_parents()
        results, self._results = self._results, []
        return results

    def discard(self) -> None:
        """End it: what was not committed is gone. A second time does nothing."""
        files, self._files = self._files, []
        homes, self._homes = self._homes, {}
        with ExitStack() as closing:
            for home in homes.values():
                closing.callback(home.close)
            closing.callback(self._close_parents)
            for file in files:
                self._drop(file)

    # -- the parts of a commit

    def _settle(self) -> None:
        files, self._files = self._files, []
        try:
            if self._durable:
                self._flush(files)
            for file in files:
                self._move(file)
            if self._durable:
                self._flush_parents(files)
        finally:
            for file in files:
                if file.descriptor >= 0:
                    self._close_quietly(file)
        self._results += [file.error for file in files]

    def _flush(self, files: Sequence[_File]) -> None:
        if len(files) <= MAX_FLUSHED:
            for file in files:
                try:
                    self._calls.fsync(file.descriptor)
                    self._close_file(file)
                except OSError as error:
                    file.error = error
            return
        for home in self._homes.values():
            at_home = [file for file in files if file.parent.home is home]
            try:
                if at_home:
                    flush_all(self._calls, home.descriptor)
            except OSError as error:
                for file in at_home:
                    file.error = error

    def _move(self, file: _File) -> None:
        if file.error is None:
            try:
                if file.descriptor >= 0:
                    self._close_file(file)
                parent = file.parent
                move = self._calls.rename if self._replace else self._calls.rename_new
                move(file.name, file.final, dir_fd=parent.home.descriptor, new_dir_fd=parent.descriptor)
                parent.needs_flush = True
                return
            except OSError as error:
                file.error = error
        self._drop(file)

    def _flush_parents(self, files: Sequence[_File]) -> None:
        for parent in self._parents.values():
            if not parent.needs_flush:
                continue
            parent.needs_flush = False
            try:
                self._calls.fsync(parent.descriptor)
            except OSError as error:
                for file in files:
                    if file.parent is parent and file.error is None:
                        file.error = error

    # -- what is held

    def _new_parent(self, directory: RelPath) -> _Parent:
        if len(self._parents) >= MAX_PARENTS:
            self._settle()
            self._close_parents()
        descriptor = self._open_parent(directory)
        try:
            parent = _Parent(descriptor, self._home(descriptor))
        except BaseException:
            self._calls.close(descriptor)
            raise
        self._parents[directory] = parent
        return parent

    def _home(self, target: int) -> Home:
        mount = self._calls.mount_of(target)
        home = self._homes.get(mount)
        if home is None:
            with self._base() as base:
                home = self._homes[mount] = Home(self._calls, base, target)
        return home

    def _close_parents(self) -> None:
        parents, self._parents = self._parents, {}
        with ExitStack() as closing:
            for parent in parents.values():
                closing.callback(self._calls.close, parent.descriptor)

    def _let_go_all(self) -> None:
        for file in self._files:
            try:
                self._let_go(file)
            except OSError as error:
                file.error = error

    def _let_go(self, file: _File) -> None:
        descriptor, file.descriptor = file.descriptor, -1
        if descriptor >= 0:
            let_go(self._calls, descriptor)

    def _close_file(self, file: _File) -> None:
        descriptor, file.descriptor = file.descriptor, -1
        if descriptor >= 0:
            self._calls.close(descriptor)

    def _close_quietly(self, file: _File) -> None:
        with suppress(OSError):
            self._close_file(file)

    def _drop(self, file: _File) -> None:
        self._close_quietly(file)
        _quietly(self._calls.unlink, file.name, file.parent.home.descriptor)
