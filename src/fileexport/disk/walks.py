"""What lies below a directory: its names, and the hashes of its files.

Neither holds anything open between two results, nor the names of more than the directories on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from threading import Lock
from typing import Protocol

from blake3 import blake3

from fileexport.disk.jail import Entry, Opened, View
from fileexport.disk.views import is_near_limit
from fileexport.errors import BadRequestError, FileNameError, OverloadedError
from fileexport.paths import RelPath

#: Names that one walk keeps in memory.
MAX_KNOWN = 1_000_000
#: Bytes of one file that are hashed before others have their turn.
STEP = 64 << 20

_ROOT = RelPath()


class Source(Protocol):
    """Where the files are: the calls of a jail."""

    def open(self, view: View, path: RelPath) -> Opened: ...
    def entries(self, view: View, path: RelPath) -> Iterator[Entry]: ...
    def read_pieces(self, opened: Opened) -> Iterator[memoryview]: ...


class Names:
    """How many names several walks keep in memory together: no more than one of them may. Thread-safe."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = MAX_KNOWN if limit is None else limit
        self._lock = Lock()
        self.kept = 0

    def take(self, count: int = 1) -> None:
        """So many more are kept. Raises `OverloadedError`."""
        with self._lock:
            if self.kept + count > self._limit:
                raise OverloadedError
            self.kept += count

    def give_back(self, count: int) -> None:
        """So many are kept no longer."""
        with self._lock:
            self.kept -= count


class Kept:
    """The names that one walk keeps."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._count = 0

    def take(self, count: int = 1) -> None:
        """So many more. Raises `BadRequestError`, `OverloadedError`."""
        if self._count + count > MAX_KNOWN:
            raise BadRequestError(f"more than {MAX_KNOWN} entries: list a smaller directory")
        self._names.take(count)
        self._count += count

    def give_back(self, count: int = 1) -> None:
        """So many are kept no longer."""
        self._names.give_back(count)
        self._count -= count

    def close(self) -> None:
        """None is kept any more."""
        self.give_back(self._count)


def walk(
    source: Source, view: View, top: RelPath, *, recursive: bool, names: Names | None = None
) -> Generator[tuple[RelPath, Entry], None, None]:
    """All entries below `top`, by their paths from there: sorted by name, each before what is in it.

    Links are not entered. What goes away meanwhile is left out, so is what no path can name, and the inside
    of a directory below `top` that may not be listed. Raises `OSError` for `top` itself; `BadRequestError`
    for a tree with too many names, `OverloadedError` where all walks of `names` together have too many.
    """
    kept = Kept(names or Names())
    try:
        levels = [_names(source, view, top, _ROOT, kept)]
        while levels:
            if not levels[-1]:
                levels.pop()
                continue
            path, entry = levels[-1].pop()
            kept.give_back()
            yield path, entry
            if recursive and entry.kind == "directory":
                levels.append(_names(source, view, top, path, kept))
    finally:
        kept.close()


def _names(
    source: Source, view: View, top: RelPath, below: RelPath, kept: Kept
) -> list[tuple[RelPath, Entry]]:
    """The entries of one directory, the last name first."""
    found = []
    try:
        here = view.base + top + below
        is_near = is_near_limit(here)
        for entry in source.entries(view, top + below):
            if is_near and not _has_path(here, entry.name):
                continue
            kept.take()
            found.append((below / entry.name, entry))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        if not below:
            raise
    except FileNameError:
        # So deep below the jail's root that no path leads there.
        pass
    found.sort(key=lambda one: one[1].name, reverse=True)
    return found


def _has_path(directory: RelPath, name: str) -> bool:
    try:
        directory / name
    except FileNameError:
        return False
    return True


def hashes(
    source: Source, view: View, top: RelPath, check: Callable[[], object], names: Names | None = None
) -> Iterator[tuple[RelPath, int, bytes] | None]:
    """Path, size and BLAKE3 of `top`, if it is a file, or else of every regular file below it.

    The path is from `top` on, so that of a file is empty. Links below it are not followed. `check` is called
    between pieces and files, and may raise. A file that goes away meanwhile is left out. Raises as `walk`.
    None is no file: within a large one it comes every `STEP` bytes, so that no result takes long.
    """
    check()
    with source.open(view, top) as opened:
        if not opened.is_directory:
            size, digest = yield from _hashed(source, opened, check)
            yield _ROOT, size, digest
            return
    for path, entry in walk(source, view, top, recursive=True, names=names):
        check()
        if entry.kind != "file":
            continue
        try:
            with source.open(view, top + path) as opened:
                if opened.is_directory:
                    continue
                size, digest = yield from _hashed(source, opened, check)
        except (FileNotFoundError, NotADirectoryError, FileNameError):
            continue
        yield path, size, digest


def _hashed(
    source: Source, opened: Opened, check: Callable[[], object]
) -> Generator[None, None, tuple[int, bytes]]:
    hasher, size, paused = blake3(), 0, 0
    for piece in source.read_pieces(opened):
        check()
        hasher.update(piece)
        size += len(piece)
        if size - paused >= STEP:
            paused = size
            yield None
    return size, hasher.digest()
