"""The verbs for files that come in: begun, looked after, continued, forgotten; a free name for one."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from fileexport.disk.jail import Opened
from fileexport.errors import BusyError, ConflictError, DestinationNotFound
from fileexport.exports_reading import Reading, file_version
from fileexport.leases import Place
from fileexport.paths import MAX_NAME, RelPath
from fileexport.small_files import SmallFiles
from fileexport.tokens import Principal, Right
from fileexport.uploads import Target, Upload, begin, check_replaced, check_room

#: Names that are tried for one that is free; and how often, where others take what was free.
MAX_TRIES, MAX_RACES = 1000, 8

T = TypeVar("T")

_OTHER_BASE = "a file that was to be copied from is gone or another one: send the whole file"
#: A name's suffixes: the last one, and ``.tar`` in front of it. A dot at the beginning is none.
_SUFFIX = re.compile(r"(?<=.)(?:\.tar)?\.[^.\s]{1,16}$", re.DOTALL)


def numbered(name: str, number: int) -> str:
    """`name` with a number in front of its suffix; a name that is too long then loses characters there."""
    found = _SUFFIX.search(name)
    suffix = found[0] if found else ""
    stem, end = name.removesuffix(suffix), f" ({number}){suffix}"
    while len(os.fsencode(stem + end)) > MAX_NAME:
        stem = stem[:-1]
    return stem + end


class Uploading(Reading):
    """What comes into the exported directories."""

    def begin_upload(
        self,
        who: Principal,
        path: RelPath,
        *,
        size: int | None = None,
        mtime_ns: int | None = None,
        replace: bool,
        source: bytes | None = None,
        holder: str,
        mode: int | None = None,
        bases: Sequence[tuple[RelPath, bytes | None]] = (),
        check: Callable[[], object] = lambda: None,
        revoked: Callable[[], object] = lambda: None,
        diverts: bool = False,
    ) -> Upload:
        """Begin a file of `size` bytes, or go on with what `who` left of the same `source`: see `offset`.

        Without a `size` nobody knows yet; such a file has no `source`, and is never continued.

        `holder` is what others are told who come meanwhile. `check` may raise while what is there is read
        again. With `diverts` it is of no matter now whether the name is taken: the end is to look for one,
        see `divert`. Of `mode`, `bases` and `revoked` see `Upload`; `ConflictError` is raised where a base is
        not there, or not the version that is meant.

        Raises `BusyError` where somebody writes it now, `FileExistsError` where it is there without
        `replace`, `IsADirectoryError`, `DestinationNotFound` where its directory is not there,
        `FileNameError`, `OSError`: ENOSPC where it has no room.
        """
        if source is not None and size is None:
            raise ValueError("what is continued has a size")
        if bases:
            self._require(who, Right.READ)
        target, place = self._new_place(who, path)
        heir = None if source is None else (who.owner, size, source)
        found = [self._known_base(who, *base) for base in bases]
        lease = self._leases.take(place, holder, time.time_ns(), heir=heir, revoked=revoked)
        return begin(
            self._tree,
            lease,
            target,
            size=size,
            mtime_ns=mtime_ns,
            mode=mode,
            replace=replace,
            diverts=diverts,
            source=source,
            owner=who.owner,
            check=check,
            bases=found,
        )

    def _new_place(self, who: Principal, path: RelPath) -> tuple[Target, Place]:
        """Where a new version of a file goes, on the disk and among the leases."""
        self._require(who, Right.WRITE)
        if self._is_there(who, path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        target = self._target(who, path)
        parent = self._parent(target)
        return target, Place(parent.st_dev, parent.st_ino, target.path.name)

    def check_upload(self, who: Principal, path: RelPath, *, size: int | None, replace: bool) -> None:
        """Raise what `begin_upload` would raise now, but `BusyError`. Nothing is made, nothing is held."""
        target, _ = self._new_place(who, path)
        check_replaced(self._tree, target, replace)
        check_room(self._tree, target.view, target.path.parent, size)

    def check_directory(self, who: Principal, path: RelPath, *, size: int | None) -> None:
        """Raise what keeps new files of `size` bytes together out of a directory now, whatever their names.

        Raises `DestinationNotFound`, `NotADirectoryError`, `OSError`: ENOSPC, EROFS. Above the exported
        directories, where there is nothing but these, only the right is asked for.
        """
        self._require(who, Right.WRITE)
        if self._is_virtual(who, path):
            return
        view, rest, _ = self._target(who, path)
        try:
            status = self._tree.stat(view, rest)
        except FileNotFoundError:
            raise DestinationNotFound from None
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        check_room(self._tree, view, rest, size)

    def kept_upload(self, who: Principal, path: RelPath, *, size: int, source: bytes) -> int:
        """From where `begin_upload` would go on, so far as can be said without reading what is there.

        0 where nothing is kept, also where the directory is gone. For who does not write it now. Raises
        `NotGranted`, `FileNameError`, `OSError`.
        """
        return self._left(self._tree.kept, who, path, size, source) or 0

    def forget_upload(self, who: Principal, path: RelPath, *, size: int, source: bytes) -> bool:
        """Remove what `begin_upload` would go on with; whether there was something.

        Raises `BusyError` where somebody writes it, else as `kept_upload`.
        """
        return self._left(self._tree.forget, who, path, size, source) or False

    def _left(
        self, ask: Callable[..., T], who: Principal, path: RelPath, size: int, source: bytes
    ) -> T | None:
        """Ask the disk about what `begin_upload` would go on with; None where the directory is gone."""
        owner = os.fsencode(who.owner)
        try:
            (view, rest, exported), _ = self._new_place(who, path)
            return ask(view, rest, size=size, key=source, owner=owner, exported=exported)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_committed(self, who: Principal, path: RelPath, identity: tuple[int, int]) -> bool:
        """Whether a path leads to the very file that an `Upload` with this `identity` was; durably then.

        False where it does not any more, or nothing is there. Raises `NotGranted`, `OSError`.
        """
        self._require(who, Right.WRITE)
        try:
            view, rest = self._place(who, path)
            return self._tree.is_committed(view, rest, identity)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def free_name(self, who: Principal, path: RelPath, *, taken: Container[RelPath] = ()) -> RelPath:
        """A path that a new file can have: this one, or with the first number that is free, ``a (1).txt``.

        Not free is what is there, what somebody writes now, and what is `taken`. Raises `FileExistsError`
        after `MAX_TRIES`, and as `begin_upload` for the directory and the name.
        """
        self._require(who, Right.WRITE)
        if not path:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        for number in range(MAX_TRIES):
            candidate = path.parent / numbered(path.name, number) if number else path
            if candidate in taken or self._is_there(who, candidate):
                continue
            target, place = self._new_place(who, candidate)
            if not self._leases.holds(place) and self._is_missing(target):
                return candidate
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def _is_missing(self, target: Target) -> bool:
        try:
            self._tree.lstat(target.view, target.path)
        except FileNotFoundError:
            return True
        return False

    def divert(self, who: Principal, path: RelPath, upload: Upload) -> RelPath:
        """Have an upload to `path` end beside what is there by now: it has the path that is returned then.

        For the `check` of `Upload.finish`. That path is the one it had, or one with a number; see
        `free_name`, whose errors it raises, and `BusyError` where others are quicker all the time.
        """
        if self._is_missing(self._target(who, path)):
            return path
        for _ in range(MAX_RACES):
            found = self.free_name(who, path)
            with suppress(BusyError):
                upload.divert(found.name)
                return found
        raise BusyError

    def check_writer(self, who: Principal, path: RelPath) -> None:
        """Raise `BusyError` where somebody writes this path now; else as `begin_upload` for the path."""
        _, place = self._new_place(who, path)
        self._leases.check(place)

    def _known_base(self, who: Principal, path: RelPath, version: bytes | None) -> Callable[[], Opened]:
        """What opens a base again, as long as it is the one that it is now. Raises as `_base`."""
        with self._base(who, path, version) as opened:
            return partial(self._base, who, path, file_version(opened))

    def _base(self, who: Principal, path: RelPath, version: bytes | None) -> Opened:
        """Open a file that content is copied from. Raises `ConflictError` where it is not what is meant."""
        try:
            opened = self.open(who, path)
        except (FileNotFoundError, NotADirectoryError):
            opened = None
        if opened is not None:
            if not opened.is_directory and version in (None, file_version(opened)):
                return opened
            opened.close()
        raise ConflictError(_OTHER_BASE)

    def begin_small_files(
        self, who: Principal, directory: RelPath, *, replace: bool, holder: str, max_size: int | None = None
    ) -> SmallFiles:
        """Begin many small files below a directory. Raises `DestinationNotFound` where it is not there.

        One of more than `max_size` bytes fails, by `OutOfRange`.
        """
        self._require(who, Right.WRITE)
        if not self._is_virtual(who, directory):
            self._parent(self._target(who, directory / "n"))
        find = self._targets(who)
        return SmallFiles(
            self._tree,
            lambda path: find(directory + path),
            self._leases,
            replace=replace,
            holder=holder,
            max_size=max_size,
        )
