"""`upload_files` and `download_files`: globs, excludes and conflicts over many files.

The command line uses the same `upload` and `download` with sources of its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fileexport.client.chunks import ProcessChunk
from fileexport.client.moving import Planned, ProcessFile, Transfer, Wanted, Watcher, Wishes, callers_own
from fileexport.client.names import LocalFile, remote_path
from fileexport.client.selection import CONFLICTS, Conflict, expand, is_glob
from fileexport.client.sides import Here, Source, There
from fileexport.errors import SourceNotFound
from fileexport.sync.rules import Patterns

if TYPE_CHECKING:
    from fileexport.client.blocking import Client

Name = str | os.PathLike[str]
_Outcomes = Iterator[tuple[str, int, Exception | None]]


def upload_files(
    client: Client,
    source: Name | Iterable[Name],
    destination: Name,
    relative_directory: Name | None = None,
    *,
    exclude_files: Iterable[str] = (),
    recursive: bool = False,
    process_file: ProcessFile | None = None,
    process_conflict: Conflict = "abort",
    chunk_size: int | None = None,
    process_chunk: ProcessChunk | None = None,
    timeout: int | None = None,
) -> bool:
    """Upload local files, directories or globs into an existing remote directory.

    Sources are seen from `relative_directory` (default: the current one), and what they are below it they are
    below the destination; one that lies elsewhere goes by its name alone. ``**`` and directories need
    `recursive`; links, sockets and the like inside a directory are left out. `exclude_files` are gitignore
    patterns, seen from `relative_directory`. `process_file(path, size)` is asked before each file.

    An existing name: ``abort`` raises `FileExistsError` (of a directory nothing has been sent then, unless it
    has more than 16,384 entries), ``skip`` leaves it, ``replace`` replaces it in one step, ``rename`` takes
    ``name (1).ext``. `timeout` is in milliseconds per answer.

    Returns False where `process_chunk` did. Raises the first failure: `SourceNotFound`, `IsADirectoryError`
    without `recursive`, `DestinationNotFound`, `ValueError` for a file over the server's limit, and what
    `Client.upload_file` raises. Files that were done stay; the client can go on.
    """
    wishes = _wishes(
        exclude_files, recursive, process_file, process_conflict, chunk_size, process_chunk, timeout
    )
    base = os.path.abspath(os.fspath(relative_directory) if relative_directory is not None else ".")
    wanted = list(_chosen_here(_names(source), base, recursive))
    return upload(client, wanted, os.fspath(destination), wishes)


def download_files(
    client: Client,
    source: Name | Iterable[Name],
    destination: Name,
    relative_directory: Name | None = None,
    *,
    exclude_files: Iterable[str] = (),
    recursive: bool = False,
    process_file: ProcessFile | None = None,
    process_conflict: Conflict = "abort",
    chunk_size: int | None = None,
    process_chunk: ProcessChunk | None = None,
    timeout: int | None = None,
) -> bool:
    """Download remote files, directories or globs into an existing local directory.

    As `upload_files`, with the sides exchanged; `relative_directory` is the root where it is not given.
    """
    wishes = _wishes(
        exclude_files, recursive, process_file, process_conflict, chunk_size, process_chunk, timeout
    )
    base = str(remote_path(relative_directory if relative_directory is not None else "/"))
    there = There(client, base, timeout)
    wanted = list(_chosen_there(there, _names(source), base, recursive))
    return download(client, wanted, os.fspath(destination), wishes)


def upload(
    client: Client,
    sources: Sequence[Wanted],
    destination: str,
    wishes: Wishes,
    watcher: Watcher | None = None,
) -> bool:
    """Send local sources to a remote directory; the watcher is told of each entry."""
    remote = str(remote_path(destination))
    side = There(client, remote, wishes.timeout)
    mover = _Up(client, remote, wishes)
    return Transfer(Here(), side, mover, wishes, watcher or Watcher()).run(sources)


def download(
    client: Client,
    sources: Sequence[Wanted],
    destination: str,
    wishes: Wishes,
    watcher: Watcher | None = None,
) -> bool:
    """Fetch remote sources into a local directory; the watcher is told of each entry."""
    side = Here(destination)
    side.check()
    mover = _Down(client, destination, wishes)
    return Transfer(There(client, "/", wishes.timeout), side, mover, wishes, watcher or Watcher()).run(
        sources
    )


class _OneByOne:
    """What both directions share about a file that travels alone."""

    def __init__(self, client: Client, base: str, wishes: Wishes) -> None:
        self._client = client
        self._base = base
        self._wishes = wishes

    def _options(self, target: str, moved: Callable[[int], object]) -> dict[str, Any]:
        wishes = self._wishes
        options: dict[str, Any] = {"replace": wishes.replace, "timeout": wishes.timeout}
        if wishes.chunk_size is not None:
            options["chunk_size"] = wishes.chunk_size
        if wishes.process_chunk is None:
            options["progress"] = _steps(moved)
        else:
            process = callers_own(wishes.process_chunk)

            def named(data: bytes, remaining: int, size: int, name: str) -> object:
                return process(data, remaining, size, target)

            options["process_chunk"] = named
        return options


def _steps(moved: Callable[[int], object]) -> Callable[[int, int], None]:
    """Turns how much there is into how much more there is."""
    before = 0

    def progress(done: int, size: int) -> None:
        nonlocal before
        moved(done - before)
        before = done

    return progress


class _Up(_OneByOne):
    """Local files to the server."""

    def small(self, files: Iterable[Planned]) -> _Outcomes:
        """Pipelined."""
        sent = (
            LocalFile(target, item.place, item.size, item.mtime_ns, item.tree) for item, target, _ in files
        )
        wishes = self._wishes
        for outcome in self._client.upload_small(sent, self._base, wishes.replace, timeout=wishes.timeout):
            yield outcome.file.path, outcome.file.size, outcome.error

    def one(self, file: Planned, moved: Callable[[int], object]) -> bool:
        """One file, resumed by itself."""
        parent, _, name = file.target.rpartition("/")
        directory = f"{self._base.rstrip('/')}/{parent}"
        options = self._options(file.target, moved)
        return self._client.upload_file(file.item.place, directory, name, tree=file.item.tree, **options)


class _Down(_OneByOne):
    """Files of the server to a local directory."""

    def small(self, files: Iterable[Planned]) -> _Outcomes:
        """Pipelined."""
        prefix = os.path.join(self._base, "")
        fetched = (
            LocalFile(item.place[1:], prefix + target, item.size, item.mtime_ns) for item, target, _ in files
        )
        wishes = self._wishes
        for outcome in self._client.download_small(fetched, "/", wishes.replace, timeout=wishes.timeout):
            yield outcome.file.local[len(prefix) :], outcome.file.size, outcome.error

    def one(self, file: Planned, moved: Callable[[int], object]) -> bool:
        """One file, resumed by itself."""
        parent, _, name = file.target.rpartition("/")
        directory = os.path.join(self._base, parent)
        options = self._options(file.target, moved)
        return self._client.download_file(file.item.place, directory, name, **options)


def _wishes(
    exclude: Iterable[str],
    recursive: bool,
    process_file: ProcessFile | None,
    conflict: Conflict,
    chunk_size: int | None,
    process_chunk: ProcessChunk | None,
    timeout: int | None,
) -> Wishes:
    if conflict not in CONFLICTS:
        raise ValueError(f"process_conflict is one of {', '.join(CONFLICTS)}")
    return Wishes(recursive, Patterns(exclude), conflict, process_file, chunk_size, process_chunk, timeout)


def _names(source: Name | Iterable[Name]) -> list[str]:
    if isinstance(source, str | os.PathLike):
        return [os.fspath(source)]
    return [os.fspath(name) for name in source]


def _chosen_here(names: Iterable[str], base: str, recursive: bool) -> Iterator[Wanted]:
    """Local sources: their paths below `base`, their names where they lie elsewhere."""
    for name in names:
        whole = os.path.normpath(os.path.join(base, name))
        below = _below(base, whole)
        top = Here("/" if below is None else base)
        pattern = whole if below is None else below
        for path, is_directory in chosen(top, pattern, recursive, literal=os.path.lexists(whole)):
            _check_kind(path, is_directory, recursive, is_glob=path != pattern)
            target = os.path.basename(path) if below is None else path
            if recursive or not is_directory:
                yield Wanted(top.place(path), target, target, target)


def _chosen_there(there: There, names: Iterable[str], base: str, recursive: bool) -> Iterator[Wanted]:
    """Remote sources: their paths below `base`, their names where they lie elsewhere."""
    root = There(there.client, "/", there.timeout)
    for name in names:
        parts = (part for part in name.split("/") if part != ".")
        whole = str(remote_path("/".join(parts) if name.startswith("/") else "/".join((base, *parts))))
        below = _below(base, whole)
        top = root if below is None else there
        pattern = whole[1:] if below is None else below
        literal = not is_glob(pattern) or exists(root, whole)
        for path, is_directory in chosen(top, pattern, recursive, literal=literal):
            _check_kind(path, is_directory, recursive, is_glob=path != pattern)
            target = path.rpartition("/")[2] if below is None else path
            if recursive or not is_directory:
                yield Wanted(top.place(path), target, target, target)


def _below(base: str, whole: str) -> str | None:
    """The part of `whole` below `base`, empty for itself, or None."""
    if whole == base:
        return ""
    prefix = base if base.endswith("/") else f"{base}/"
    return whole[len(prefix) :] if whole.startswith(prefix) else None


def _check_kind(path: str, is_directory: bool, recursive: bool, *, is_glob: bool) -> None:
    if is_directory and not recursive and not is_glob:
        raise IsADirectoryError(errno.EISDIR, "it is a directory: recursive=True takes it", path)


def exists(side: Source, place: str) -> bool:
    """Whether a source of exactly this name is there, so that it is no glob."""
    try:
        side.find(place)
    except SourceNotFound:
        return False
    return True


def chosen(side: Here | There, pattern: str, recursive: bool, *, literal: bool) -> Iterator[tuple[str, bool]]:
    """What a source below `side` names: itself, or what a glob finds, without what lies in a found directory.

    Raises `SourceNotFound` where that is nothing.
    """
    if literal or not is_glob(pattern):
        yield pattern, side.find(side.place(pattern)).kind == "directory"
        return
    entered: set[str] = set()
    nothing = True
    for path, is_directory in expand(pattern, side.children, recursive=recursive):
        nothing = False
        parents = path.split("/")[:-1]
        if recursive and any("/".join(parents[:depth]) in entered for depth in range(1, len(parents) + 1)):
            continue
        if is_directory:
            entered.add(path)
        yield path, is_directory
    if nothing:
        raise SourceNotFound(errno.ENOENT, "nothing matches", side.place(pattern))
