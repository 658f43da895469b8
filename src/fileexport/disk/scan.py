"""A directory and all below it as a manifest: kinds, sizes, times, modes, the texts of links."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, Protocol

from fileexport.disk.staging import Identity, identity
from fileexport.disk.views import Opened, View, is_near_limit, kind_of
from fileexport.disk.walks import Kept, Names
from fileexport.errors import FileNameError
from fileexport.paths import RelPath
from fileexport.sync.manifest import Entry, Manifest, omission
from fileexport.wire.bounds import clamped

#: Entries of one part at most: so many are kept for one who takes nothing.
MAX_ENTRIES = 1024
#: Names that are read, or looked at, between two calls of `check`.
_STEP = 1024

_ROOT = RelPath()
#: One number for each mode, not one for each file.
_MODES = tuple(range(0o1000))


class Source(Protocol):
    """Where the directories are: the calls of a jail."""

    def open(self, view: View, path: RelPath) -> Opened: ...
    def names(self, view: View, opened: Opened) -> Iterator[str]: ...
    def look(self, opened: Opened, name: str) -> tuple[os.stat_result, str] | None: ...


class Part(NamedTuple):
    """What is in one directory, or in the next part of a large one: `entries` by name, sorted.

    `path` is from the top on. `error` says why the directory, or the rest of it, could not be listed;
    `omitted` counts the entries that no path can name. `own` is the top's own entry, in the first part.
    """

    path: RelPath
    entries: list[tuple[str, Entry]]
    error: OSError | None = None
    omitted: int = 0
    own: Entry | None = None


def entry_of(status: os.stat_result, target: str = "") -> Entry:
    """What a manifest says of what lstat(2) says; `target` is the text of a link."""
    kind = kind_of(status.st_mode)
    size = status.st_size if kind == "file" else 0
    mode = 0 if kind == "link" else _MODES[status.st_mode & 0o777]
    return Entry(kind, size, clamped(status.st_mtime_ns), mode, target)


def scan(
    tree: Source,
    view: View,
    top: RelPath,
    check: Callable[[], object] = lambda: None,
    names: Names | None = None,
) -> Generator[Part, None, None]:
    """What is in the directory `top` and all below it: at least a part for each, parents before children.

    No link is followed below `top`, also none that takes a directory's place meanwhile. An entry that goes
    away meanwhile is left out. `check` is called now and then, and may raise. Raises `OSError` where `top`
    cannot be opened or is no directory; `BadRequestError` and `OverloadedError` as `walk`.
    """
    kept = Kept(names or Names())
    todo: list[tuple[RelPath, Identity | None]] = [(_ROOT, None)]
    try:
        while todo:
            path, expected = todo.pop()
            if path:
                kept.give_back()
            try:
                opened = _enter(tree, view, top + path, expected)
            except (OSError, FileNameError) as error:
                if not path:
                    raise
                yield Part(path, [], _as_disk_error(error))
                continue
            with opened:
                below: list[tuple[RelPath, Identity | None]] = []
                yield from _Folder(tree, view, top, path, opened, below, kept, check).parts()
            todo += reversed(below)
    finally:
        kept.close()


def _enter(tree: Source, view: View, path: RelPath, expected: Identity | None) -> Opened:
    """Open a directory, which has to be the one that was seen in the one above."""
    opened = tree.open(view, path)
    try:
        if not opened.is_directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if expected is not None and identity(opened.stat) != expected:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except BaseException:
        opened.close()
        raise
    return opened


def _as_disk_error(error: Exception) -> OSError:
    return error if isinstance(error, OSError) else OSError(errno.ENAMETOOLONG, str(error))


class _Folder:
    """One directory that is read; the directories in it are added to `below`."""

    def __init__(
        self,
        tree: Source,
        view: View,
        top: RelPath,
        path: RelPath,
        opened: Opened,
        below: list[tuple[RelPath, Identity | None]],
        kept: Kept,
        check: Callable[[], object],
    ) -> None:
        self._tree = tree
        self._path = path
        self._opened = opened
        self._below = below
        self._kept = kept
        self._check = check
        self._view = view
        self._here = view.base + top + path
        self._is_near_limit = is_near_limit(self._here)
        self._omitted = 0

    def parts(self) -> Iterator[Part]:
        """Read it; a part at least."""
        own = None if self._path else entry_of(self._opened.stat)
        names, error = self._names()
        for start in range(0, len(names) or 1, MAX_ENTRIES):
            entries: list[tuple[str, Entry]] = []
            end = min(start + MAX_ENTRIES, len(names))
            for at in range(start, end, _STEP):
                self._check()
                failed = self._look(names[at : min(at + _STEP, end)], entries)
                if failed is not None:
                    error, end = failed, len(names)
                    break
            is_last = end == len(names)
            omitted = self._omitted if is_last else 0
            yield Part(self._path, entries, error if is_last else None, omitted, own)
            if is_last:
                break
            own = None
        # A directory that waits for its turn is one name that is kept.
        self._kept.give_back(len(names) - len(self._below))

    def _names(self) -> tuple[list[str], OSError | None]:
        """All names, sorted; those before an error."""
        found = self._tree.names(self._view, self._opened)
        names: list[str] = []
        error = None
        is_end = False
        while not is_end:
            # What it raises is no error of the disk.
            self._check()
            some: list[str] = []
            try:
                some.extend(islice(found, _STEP))
            except OSError as failed:
                error = failed
            is_end = len(some) < _STEP
            if self._is_near_limit:
                some = [name for name in some if self._has_path(name)]
            self._kept.take(len(some))
            names += some
        names.sort()
        return names, error

    def _has_path(self, name: str) -> bool:
        with suppress(FileNameError):
            self._here / name
            return True
        self._omitted += 1
        return False

    def _look(self, names: list[str], entries: list[tuple[str, Entry]]) -> OSError | None:
        """Add the entries of these names; the error that ended it."""
        look, opened = self._tree.look, self._opened
        for name in names:
            try:
                found = look(opened, name)
            except OSError as error:
                return error
            if found is None:
                continue
            status, target = found
            mode = status.st_mode
            if stat.S_ISREG(mode):
                # What most are: no more calls than must be.
                entries.append(
                    (name, Entry("file", status.st_size, clamped(status.st_mtime_ns), _MODES[mode & 0o777]))
                )
                continue
            entries.append((name, entry_of(status, target)))
            if stat.S_ISDIR(mode):
                self._below.append((self._path / name, identity(status)))
        return None


def manifest_of(parts: Iterable[Part]) -> Manifest:
    """All parts of a scan as one manifest."""
    manifest = Manifest()
    for part in parts:
        if part.own is not None:
            manifest.top = part.own
        path = "/".join(part.path)
        if part.error is not None:
            manifest.unreadable[path] = part.error.strerror or str(part.error)
        elif part.omitted:
            manifest.unreadable[path] = omission(part.omitted)
        if part.entries or part.error is None:
            manifest.folders.setdefault(path, {}).update(part.entries)
    return manifest
