"""Whole trees: what lies in one, here or there, the hashes of many files, and many small changes at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TypeVar

from blake3 import blake3

from fileexport.client.answers import Stalled, error_of, no_directory, not_found
from fileexport.client.chunks import Retries
from fileexport.client.connection import Wait
from fileexport.client.names import Kind, RemoteHash, plain_text
from fileexport.client.operation import Operation
from fileexport.client.pool import Pool
from fileexport.disk.jail import Jail, View
from fileexport.disk.scan import manifest_of, scan
from fileexport.errors import (
    ChangedWhileRead,
    ConflictError,
    CorruptedResponse,
    DestinationNotFound,
    SourceNotFound,
)
from fileexport.paths import RESERVED, RelPath
from fileexport.sync.manifest import Entry, Manifest, omission
from fileexport.wire import messages as m

#: Entries of one manifest, and characters of their names and links: more are not kept in memory.
MAX_ENTRIES = 1_000_000
MAX_KEPT = 256 << 20
#: Bytes of paths that one request names.
_PATHS = 128 << 10
_KINDS: dict[str, Kind] = {"f": "file", "d": "directory", "l": "link", "o": "other"}

_ONE_BY_ONE = "synchronise its directories one by one"


class TooManyEntries(ConflictError):
    """The tree is too large to be looked at as a whole: synchronise its directories one by one."""


Waits = Callable[[], Wait]
Asked = TypeVar("Asked")


def local_manifest(path: str) -> Manifest:
    """What lies in a directory here; links are not followed. Its `top` is None where it does not exist.

    Raises `NotADirectoryError`, else `OSError` where it cannot be opened. What cannot be read below it is
    `unreadable`.
    """
    try:
        jail = Jail(path, durable=False, may_be_new=lambda name: True)
    except FileNotFoundError:
        return Manifest()
    with closing(jail):
        return manifest_of(scan(jail, View(), RelPath()))


def begin_manifest(pool: Pool, path: RelPath, wait: Waits) -> Callable[[], Manifest]:
    """Ask what lies in a directory of the server. What is returned reads the answer, and is called once.

    Between the two the server is at work, and so may be the caller. `top` is None where there is no such
    directory. Raises `NotADirectoryError` and what else the server says, `CorruptedResponse` for a lie.
    """
    held = ExitStack()
    asked = m.Manifest(path)
    operation = held.enter_context(pool.operation(asked, wait(), path=str(path), answered=False))

    def finish() -> Manifest:
        try:
            try:
                with held:
                    return _read(operation)
            except (ConnectionError, Stalled):
                # Asking changes nothing; and the caller may have let the server wait for too long.
                with pool.operation(asked, wait(), path=str(path), again=True) as anew:
                    return _read(anew)
        except FileNotFoundError:
            missing = Manifest()
            missing.is_portable = _is_portable(pool, path.parent, wait)
            return missing

    return finish


def _is_portable(pool: Pool, path: RelPath, wait: Waits) -> bool:
    """Whether a directory takes only portable names: the beginning of its manifest says so."""
    try:
        with pool.operation(m.Manifest(path), wait(), path=str(path), again=True) as operation:
            top = operation.reply(m.ManifestPart).top
    except (FileNotFoundError, NotADirectoryError):
        return False
    return top is not None and top.portable


def _read(operation: Operation) -> Manifest:
    reader = _Reader()
    while (part := operation.batch(m.ManifestPart)) is not None:
        reader.add(part)
    if reader.manifest.top is None:
        raise CorruptedResponse("a manifest without its top")
    return reader.manifest


class _Reader:
    """Makes a manifest of its parts, and believes no part that does not follow from those before."""

    def __init__(self) -> None:
        self.manifest = Manifest()
        self._count = self._size = 0

    def add(self, part: m.ManifestPart) -> None:
        """The next part."""
        manifest = self.manifest
        if (part.top is None) is (manifest.top is None):
            raise CorruptedResponse("the top of a manifest belongs into its first part, and there alone")
        if part.top is not None:
            manifest.top = Entry("directory", 0, part.top.mtime, part.top.mode)
            manifest.is_portable = part.top.portable
        for folder in part.folders:
            self._add(folder)

    def _add(self, folder: m.Folder) -> None:
        path = "/".join(folder.path.parts)
        goes_on = path in self.manifest.folders
        entries = self._entries(folder.path, path)
        rows = m.folder_rows(folder)
        before = len(entries)
        for name, letter, size, mtime, mode, target in rows:
            entries[name] = Entry(_KINDS[letter], size, mtime, mode, target)
        if len(entries) < before + len(rows) or RESERVED in entries:
            raise CorruptedResponse("a folder holds a name twice, or one that is nobody's")
        # A directory was counted where it was named; parts of one that hold nothing have to end too.
        self._count += len(rows) or goes_on
        self._size += len(folder.names) + len(path) + sum(map(len, folder.targets))
        if self._count > MAX_ENTRIES:
            raise TooManyEntries(f"more than {MAX_ENTRIES:,} entries: {_ONE_BY_ONE}")
        if self._size > MAX_KEPT:
            raise TooManyEntries(f"names of more than {MAX_KEPT >> 20} MiB: {_ONE_BY_ONE}")
        if folder.code:
            self.manifest.unreadable[path] = plain_text(folder.message) or str(error_of(folder.code, ""))
            if not entries:
                del self.manifest.folders[path]
        elif folder.omitted:
            self.manifest.unreadable[path] = omission(folder.omitted)

    def _entries(self, directory: RelPath, path: str) -> dict[str, Entry]:
        """The entries of a folder so far. It was announced by the one that it lies in."""
        folders = self.manifest.folders
        if path in self.manifest.unreadable:
            raise CorruptedResponse("a folder goes on that had ended")
        known = folders.get(path)
        if known is not None:
            return known
        if directory:
            above = folders.get("/".join(directory.parent.parts), {}).get(directory.name)
            if above is None or above.kind != "directory":
                raise CorruptedResponse("a folder that is none of the directories before it")
        elif folders:
            raise CorruptedResponse("a folder that comes before what it lies in")
        return folders.setdefault(path, {})


def hash_files(pool: Pool, paths: Iterable[RelPath], fresh: bool, wait: Waits) -> Iterator[RemoteHash]:
    """Size and BLAKE3 of files of the server, in its order; what it cannot read is left out.

    `fresh` has it read them, whatever it remembers. Asked for in requests of 1,024 at most; after a cut those
    that are missing are asked for again.
    """
    retries = Retries()
    settled = 0
    for some in _requests(paths, _room_of):
        waiting = {path: str(path) for path in some}
        while waiting:
            try:
                for batch in _hashes(pool, list(waiting), fresh, wait):
                    retries.begun_at(settled)
                    settled += len(batch)
                    for one in batch:
                        path = waiting.pop(one.path, None)
                        if path is None:
                            raise CorruptedResponse("the hash of a file that nobody asked for")
                        yield RemoteHash(path, one.size, one.digest)
                break
            except (ConnectionError, Stalled) as error:
                retries.after(error)


def _hashes(pool: Pool, paths: list[RelPath], fresh: bool, wait: Waits) -> Iterator[list[m.FileHash]]:
    with pool.operation(m.HashFiles(paths, fresh), wait(), again=True) as operation:
        while (found := operation.batch(m.Hashes)) is not None:
            if not found.hashes:
                raise CorruptedResponse("a batch with nothing in it")
            yield found.hashes


def read_files(pool: Pool, paths: Iterable[RelPath], wait: Waits) -> Iterator[tuple[str, bytes | Exception]]:
    """Content of small files of the server, or why there is none, in any order. After a cut it goes on."""
    retries = Retries()
    settled = 0
    for some in _requests(paths, _room_of):
        waiting = set(some)
        while waiting:
            try:
                for path, found in _contents(pool, [path for path in some if path in waiting], wait):
                    retries.begun_at(settled)
                    settled += 1
                    if path not in waiting:
                        raise CorruptedResponse("a file that nobody asked for")
                    waiting.remove(path)
                    yield str(path), found
                break
            except (ConnectionError, Stalled) as error:
                retries.after(error)


def _contents(pool: Pool, asked: list[RelPath], wait: Waits) -> Iterator[tuple[RelPath, bytes | Exception]]:
    with pool.operation(m.ReadFiles(asked), wait(), again=True) as operation:
        while not isinstance(found := operation.answer(), m.End):
            if isinstance(found, m.Files):
                for one in found.files:
                    is_whole = blake3(one.content).digest() == one.digest
                    yield one.path, one.content if is_whole else ChangedWhileRead()
            elif isinstance(found, m.Outcome) and not found.committed:
                for failure in found.failed:
                    if failure.index >= len(asked):
                        raise CorruptedResponse("an outcome of a file that nobody asked for")
                    yield asked[failure.index], error_of(failure.code, failure.message)
            else:
                raise CorruptedResponse("an answer of another kind")


def _room_of(path: RelPath) -> int:
    """Bytes that a path takes in a request, at most."""
    return len(path.parts) + 4 * sum(map(len, path.parts))


def _requests(items: Iterable[Asked], size_of: Callable[[Asked], int]) -> Iterator[list[Asked]]:
    """As many as one request names, each."""
    some: list[Asked] = []
    size = 0
    for item in items:
        some.append(item)
        size += size_of(item)
        if len(some) == m.MAX_BATCH or size > _PATHS:
            yield some
            some, size = [], 0
    if some:
        yield some


def change(pool: Pool, steps: Sequence[m.AnyStep], wait: Waits) -> Iterator[Exception | None]:
    """Make many small changes, in their order; yields what became of each, in that order too.

    They are asked for in requests of 1,024 at most, and are durable when their outcome is there. After a cut
    those without an outcome are asked for again: that one of them had been made before is no error then.
    """
    retries = Retries()
    settled = 0
    for some in _requests(steps, _size_of):
        one = _Changes(some)
        while one.is_missing:
            try:
                one.ask(pool, wait, retries, settled)
            except (ConnectionError, Stalled) as error:
                retries.after(error)
        settled += len(some)
        yield from one.outcomes


def _size_of(step: m.AnyStep) -> int:
    size = 16 + _room_of(step.path)
    if isinstance(step, m.MoveStep):
        size += _room_of(step.target)
    elif isinstance(step, m.LinkStep):
        size += len(step.target)
    return size


class _Changes:
    """The steps of one request, over as many connections as it takes."""

    def __init__(self, steps: list[m.AnyStep]) -> None:
        self._steps = steps
        self._found: dict[int, Exception | None] = {}
        self._is_doubtful = False

    @property
    def is_missing(self) -> bool:
        """Whether any step has no outcome."""
        return len(self._found) < len(self._steps)

    @property
    def outcomes(self) -> list[Exception | None]:
        """What became of each."""
        return [self._found[index] for index in range(len(self._steps))]

    def ask(self, pool: Pool, wait: Waits, retries: Retries, settled: int) -> None:
        """Have the server make those that have no outcome; `settled` had one before these."""
        indexes = [index for index in range(len(self._steps)) if index not in self._found]
        asked = m.Change([self._steps[index] for index in indexes])
        try:
            with pool.operation(asked, wait(), answered=False) as operation:
                retries.begun_at(settled + len(self._found))
                while (found := operation.batch(m.Outcome)) is not None:
                    self._settle(found, indexes)
        except (ConnectionError, Stalled):
            self._is_doubtful = True
            raise
        if self.is_missing:
            raise CorruptedResponse("the server says nothing of some changes")

    def _settle(self, found: m.Outcome, indexes: list[int]) -> None:
        if not found.committed and not found.failed:
            raise CorruptedResponse("a batch with nothing in it")
        for one in found.committed:
            if one.first + one.count > len(indexes):
                raise CorruptedResponse("changes were made that nobody asked for")
            for number in range(one.first, one.first + one.count):
                self._note(indexes[number], None)
        for failure in found.failed:
            if failure.index >= len(indexes):
                raise CorruptedResponse("an outcome of a change that nobody asked for")
            step = self._steps[indexes[failure.index]]
            error = error_of(failure.code, failure.message, str(step.path))
            self._note(indexes[failure.index], self._judge(step, error))

    def _note(self, index: int, error: Exception | None) -> None:
        if index in self._found:
            raise CorruptedResponse("two answers for one change")
        self._found[index] = error

    def _judge(self, step: m.AnyStep, error: Exception) -> Exception | None:
        """What went wrong; None where an answer that was lost had said that it was done."""
        is_gone = type(error) in (FileNotFoundError, SourceNotFound)
        if self._is_doubtful:
            if isinstance(step, m.MakeStep | m.LinkStep) and isinstance(error, FileExistsError):
                return None
            if isinstance(step, m.MoveStep | m.RemoveStep) and is_gone:
                return None
        if isinstance(step, m.MoveStep):
            if isinstance(error, DestinationNotFound):
                return not_found(DestinationNotFound, str(step.target.parent))
            if isinstance(error, FileExistsError):
                return FileExistsError(error.errno, os.strerror(error.errno or 0), str(step.target))
        elif isinstance(step, m.MakeStep | m.LinkStep) and isinstance(error, FileNotFoundError):
            return no_directory(error, str(step.path.parent))
        return error
