"""What can be read of a jail: the root that it holds open, and how a name beneath it becomes a descriptor."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fileexport.disk.calls import Calls
from fileexport.disk.resolve import Openat2, Resolver, Walk
from fileexport.disk.views import Entry, Opened, View, kind_of
from fileexport.errors import OverloadedError
from fileexport.paths import RelPath, is_file_name_valid

#: Without waiting for a FIFO's writer, without becoming a terminal's owner.
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY

#: Bytes that are read at once.
_PIECE = 1 << 20

#: Looks at a name that is exchanged again and again.
_TRIES = 16


class Reading:
    """A root that is held open, and the verbs that read beneath it; see `Jail`."""

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
        self._root = self._calls.open(root, DIRECTORY, dir_fd=None)
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
        descriptor = self._open(view, path, READ)
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
        descriptor = self._open(view, path, getattr(os, "O_PATH", READ))
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
        with self._directory(view, path, DIRECTORY) as descriptor:
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

    # -- descriptors

    @contextmanager
    def _entry(self, view: View, path: RelPath, flags: int = DIRECTORY) -> Iterator[tuple[int, str]]:
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
        descriptor = self._open_base(view, _PASS)
        try:
            yield descriptor
        finally:
            self._calls.close(descriptor)

    def _open_base(self, view: View, flags: int) -> int:
        # Whoever named it saw what is hidden in it: only our own directory is refused.
        return self._resolver.open(self._root, view.base.parts, flags, View().admits, plain=bool(view.bound))

    def _open(self, view: View, path: RelPath, flags: int) -> int:
        if not view.base:
            return self._resolver.open(self._root, path.parts, flags, view.admits)
        if view.bound == "file" and not path:
            return self._open_base(view, flags)
        with self._base(view) as base:
            return self._resolver.open(base, path.parts, flags, view.admits)

    @contextmanager
    def _directory(self, view: View, path: RelPath, flags: int) -> Iterator[int]:
        descriptor = self._open(view, path, flags)
        try:
            yield descriptor
        finally:
            self._calls.close(descriptor)
