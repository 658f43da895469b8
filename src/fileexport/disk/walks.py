"""What lies below a directory: its names, and the hashes of its files.

Neither holds anything open between two results, nor the names of more than the directories on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from blake3 import blake3

from fileexport.disk.jail import Entry, Opened, View
from fileexport.disk.views import is_near_limit
from fileexport.errors import BadRequestError, FileNameError
from fileexport.paths import RelPath

#: Names that one walk keeps in memory.
MAX_KNOWN = 1_000_000

_ROOT = RelPath()


class Source(Protocol):
    """Where the files are: the calls of a jail."""

    def open(self, view: View, path: RelPath) -> Opened: ...
    def entries(self, view: View, path: RelPath) -> Iterator[Entry]: ...
    def read_pieces(self, opened: Opened) -> Iterator[memoryview]: ...


def walk(source: Source, view: View, top: RelPath, *, recursive: bool) -> Iterator[tuple[RelPath, Entry]]:
    """All entries below `top`, by their paths from there: sorted by name, each before what is in it.

    Links are not entered. What goes away meanwhile is left out, so is what no path can name, and the inside
    of a directory below `top` that may not be listed. Raises `OSError` for `top` itself; `BadRequestError`
    for a tree with too many names.
    """
    known = 0
    levels = [_names(source, view, top, _ROOT)]
    known += len(levels[0])
    while levels:
        if not levels[-1]:
            levels.pop()
            continue
        path, entry = levels[-1].pop()
        known -= 1
        yield path, entry
        if recursive and entry.kind == "directory":
            levels.append(_names(source, view, top, path))
            known += len(levels[-1])
            if known > MAX_KNOWN:
                raise BadRequestError(f"more than {MAX_KNOWN} entries: list a smaller directory")


def _names(source: Source, view: View, top: RelPath, below: RelPath) -> list[tuple[RelPath, Entry]]:
    """The entries of one directory, the last name first."""
    found = []
    try:
        here = view.base + top + below
        is_near = is_near_limit(here)
        for entry in source.entries(view, top + below):
            if is_near and not _has_path(here, entry.name):
                continue
            found.append((below / entry.name, entry))
            if len(found) > MAX_KNOWN:
                raise BadRequestError(f"more than {MAX_KNOWN} entries: list a smaller directory")
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
    source: Source, view: View, top: RelPath, check: Callable[[], object]
) -> Iterator[tuple[RelPath, int, bytes]]:
    """Path, size and BLAKE3 of `top`, if it is a file, or else of every regular file below it.

    The path is from `top` on, so that of a file is empty. Links below it are not followed. `check` is called
    between pieces and files, and may raise. A file that goes away meanwhile is left out. Raises `OSError`.
    """
    check()
    with source.open(view, top) as opened:
        if not opened.is_directory:
            yield (_ROOT, *_hashed(source, opened, check))
            return
    for path, entry in walk(source, view, top, recursive=True):
        check()
        if entry.kind != "file":
            continue
        try:
            with source.open(view, top + path) as opened:
                if opened.is_directory:
                    continue
                size, digest = _hashed(source, opened, check)
        except (FileNotFoundError, NotADirectoryError, FileNameError):
            continue
        yield path, size, digest


def _hashed(source: Source, opened: Opened, check: Callable[[], object]) -> tuple[int, bytes]:
    hasher, size = blake3(), 0
    for piece in source.read_pieces(opened):
        check()
        hasher.update(piece)
        size += len(piece)
    return size, hasher.digest()
