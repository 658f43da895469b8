"""A directory with its structure, each way, and many directories at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence

from fileexport.client.answers import error_of_reset, name_file, no_directory, not_found
from fileexport.client.chunks import Manner
from fileexport.client.connection import Wait
from fileexport.client.conversations import entries
from fileexport.client.downloading import Destination, download
from fileexport.client.listings import Kept
from fileexport.client.names import LocalFile, Outcome, RemoteEntry, below
from fileexport.client.operation import Line
from fileexport.client.pool import Pool
from fileexport.client.selection import joined
from fileexport.client.small_files import download_small, upload_small
from fileexport.client.sources import SourceTree
from fileexport.client.uploading import upload
from fileexport.errors import ChangedWhileRead, CorruptedResponse, PeerGone, SourceNotFound
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import State

#: Directories that are asked for before the first answer.
_AT_ONCE = 32

Waits = Callable[[], Wait]


def make_directories(pool: Pool, paths: Sequence[RelPath], wait: Waits) -> list[Exception | None]:
    """Make directories, parents first; one that is there stays. For each: None, or what went wrong."""
    outcomes: dict[int, Exception | None] = {}
    for is_last_try in (False, True):
        try:
            with pool.connection(patience := wait()) as connection:
                _make_all(connection, paths, outcomes, patience)
            break
        except ConnectionError:
            # What is there already does no harm.
            if is_last_try:
                raise
    return [outcomes[index] for index in range(len(paths))]


def _make_all(
    connection: Line, paths: Sequence[RelPath], outcomes: dict[int, Exception | None], wait: Wait
) -> None:
    session = connection.session
    assert session.peer is not None
    most = min(_AT_ONCE, session.peer.limits.streams)
    begun: dict[int, int] = {}
    for index, path in enumerate(paths):
        if index in outcomes:
            continue
        # The server may carry out several at once: a child waits for its parent.
        while len(begun) >= most or any(paths[other] == path.parent for other in begun.values()):
            _settle_one(connection, paths, begun, outcomes, wait)
        if session.state is not State.OPEN:
            raise PeerGone("the server is stopping")
        begun[session.open(m.MakeDirectory(path, exist_ok=True))] = index
        connection.flush(wait)
    while begun:
        _settle_one(connection, paths, begun, outcomes, wait)


def _settle_one(
    connection: Line,
    paths: Sequence[RelPath],
    begun: dict[int, int],
    outcomes: dict[int, Exception | None],
    wait: Wait,
) -> None:
    """Wait for the end of any of the operations that were begun."""
    while True:
        found = connection.event(wait)
        if isinstance(found, Data):
            raise CorruptedResponse("content that nobody asked for")
        if isinstance(found.message, m.GoAway):
            connection.is_leaving = True
            if found.message.last_stream < max(begun):
                raise PeerGone("the server is stopping")
        if found.stream not in begun or not isinstance(found.message, m.End | m.Reset):
            continue
        wait.begin()
        index = begun.pop(found.stream)
        outcomes[index] = None
        if isinstance(found.message, m.Reset):
            error = error_of_reset(found.message, str(paths[index]))
            if isinstance(error, FileNotFoundError):
                error = no_directory(error, str(paths[index].parent))
            outcomes[index] = error
        return


def upload_directory(pool: Pool, source: str, target: RelPath, manner: Manner) -> bool:
    """Send the directory `source` so that it is `target`; False where `process_chunk` cancelled it."""
    wait = manner.wait
    tree, directories, files = _scan(source)
    try:
        with pool.operation(m.MakeDirectory(target), wait(), path=str(target)) as operation:
            operation.end()
    except FileNotFoundError as error:
        raise no_directory(error, str(target.parent)) from None
    _raise_first(make_directories(pool, [target + below(path) for path in directories], wait))
    large = files
    if manner.process_chunk is None:
        large = [file for file in files if file.size > m.MAX_INLINE]
        small = (file for file in files if file.size <= m.MAX_INLINE)
        for file in _not_small(upload_small(pool, small, target, False, wait)):
            large.append(file)
    for file in large:
        named = manner._replace(file_name=file.path, tree=tree)
        try:
            if not upload(pool, file.local, target + below(file.path), named):
                return False
        except ChangedWhileRead as error:
            raise _named(error, file.local) from None
    return True


def _scan(source: str) -> tuple[SourceTree, list[str], list[LocalFile]]:
    """Directories, parents first, and regular files below `source`. Links are left out."""
    tree, prefix = SourceTree.of(source), os.path.join(source, "")
    directories: list[str] = []
    files: list[LocalFile] = []
    todo = [""]
    while todo:
        above = todo.pop()
        below_here: list[str] = []
        try:
            for name, about in tree.entries(above):
                if isinstance(about, OSError):
                    raise about
                path = joined(above, name)
                if stat.S_ISDIR(about.st_mode):
                    below_here.append(path)
                elif stat.S_ISREG(about.st_mode):
                    files.append(LocalFile(path, prefix + path, about.st_size, about.st_mtime_ns, tree))
        except FileNotFoundError:
            raise not_found(SourceNotFound, prefix + above) from None
        except OSError as error:
            error.filename = prefix + above
            raise
        directories += below_here
        todo += reversed(below_here)
    return tree, directories, files


def _not_small(outcomes: Iterator[Outcome]) -> Iterator[LocalFile]:
    """Those that turned out to be too large for a batch; anything else that went wrong is raised."""
    for outcome in outcomes:
        if isinstance(outcome.error, ValueError):
            yield outcome.file
        elif outcome.error is not None:
            if isinstance(outcome.error, OSError):
                name_file(outcome.error, outcome.file.local)
            elif isinstance(outcome.error, ChangedWhileRead):
                raise _named(outcome.error, outcome.file.local)
            raise outcome.error


def _named(error: ChangedWhileRead, place: str) -> ChangedWhileRead:
    """The same, which says of which file."""
    return ChangedWhileRead(f"{place}: {error}")


def _raise_first(errors: Sequence[Exception | None]) -> None:
    for error in errors:
        if error is not None:
            raise error


def download_directory(
    pool: Pool,
    source: RelPath,
    destination: Destination,
    path: RelPath,
    manner: Manner,
) -> bool:
    """Fetch the directory `source` so that it is `path` in `destination`; False as from `upload_directory`.

    One directory after the other: no listing is longer than its directory.
    """
    destination.check_new(path)
    todo, kept = [RelPath()], Kept()
    while todo:
        here = todo.pop()
        found = _listed(pool, source + here, manner.wait, kept)
        destination.make_directory(path + here)
        todo += reversed([here / entry.path for entry in found if entry.type == "directory"])
        files = [entry for entry in found if entry.type == "file"]
        if not _download_all(pool, source, destination, path, here, files, manner):
            return False
    return True


def _listed(pool: Pool, path: RelPath, wait: Waits, kept: Kept) -> list[RemoteEntry]:
    try:
        return list(kept.all(pool.iterate(entries(path), wait())))
    except FileNotFoundError:
        raise not_found(SourceNotFound, str(path)) from None


def _download_all(
    pool: Pool,
    source: RelPath,
    destination: Destination,
    path: RelPath,
    here: RelPath,
    files: Sequence[RemoteEntry],
    manner: Manner,
) -> bool:
    """The files of one directory."""
    large = list(files)
    if manner.process_chunk is None:
        where = destination.spelled(path + here)
        small = [
            LocalFile(one.path, os.path.join(where, one.path), one.size, one.mtime_ns)
            for one in files
            if one.size <= m.MAX_INLINE
        ]
        outcomes = download_small(pool, small, source + here, False, manner.wait)
        late = {file.path for file in _not_small(outcomes)}
        large = [one for one in files if one.size > m.MAX_INLINE or one.path in late]
    for one in large:
        inside = here / one.path
        named = manner._replace(file_name="/".join(inside.parts))
        if not download(pool, source + inside, destination, path + inside, named):
            return False
    return True
