"""Many small files, each way: whole batches of them in one frame, answered as ranges, pipelined."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import ExitStack, suppress
from itertools import chain, islice

from blake3 import blake3

from fileexport.client import chunks
from fileexport.client.answers import Stalled, error_of, no_directory, not_found
from fileexport.client.chunks import Retries
from fileexport.client.connection import Wait
from fileexport.client.conversations import hashes
from fileexport.client.downloading import Destination
from fileexport.client.names import LocalFile, Outcome, below
from fileexport.client.operation import Operation
from fileexport.client.pool import Pool
from fileexport.client.sources import Opener
from fileexport.client.trees import change, hash_files
from fileexport.disk.batches import Batch
from fileexport.errors import (
    BusyError,
    ChangedWhileRead,
    CorruptedResponse,
    FileNameError,
    SourceNotFound,
)
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.bounds import clamped

#: A frame of files is begun anew from here on: the window holds dozens of them.
_FRAME = 256 << 10
#: What a file costs in FILES beside its path and content, at most: lengths, time, hash.
_OVERHEAD = 64
#: What FILES costs beside its files.
_FRAME_OVERHEAD = 32
#: Bytes of paths that one request of files names.
_PATHS = 128 << 10
#: Directories here that are open at once: each takes half a dozen descriptors.
_PLACES = 32
#: Bytes that came which are committed together: what ends us takes no more with it.
_COMMITTED = 4 << 20
#: Seconds to wait for what a connection held that was cut.
_PAUSES = (0.1, 0.25, 0.5, 1.0)
_TOO_LARGE = "the file is too large to travel among small ones"


def upload_small(
    pool: Pool,
    files: Iterable[LocalFile],
    directory: RelPath,
    replace: bool,
    wait: Callable[[], Wait],
    *,
    modes: bool = False,
) -> Iterator[Outcome]:
    """Send files of at most 64 KiB below `directory`; yields what became of each, in any order."""
    source = iter(files)
    # What was taken from `files` and has no outcome: it must outlive every attempt.
    again: deque[LocalFile] = deque()
    doubtful: set[str] = set()
    retries = Retries()
    settled = 0
    with Opener() as opener:
        while True:
            one = _Upload(pool, directory, replace, wait, doubtful, modes, opener)
            try:
                for outcome in chain(one.arrived(again), one.run(chain(_popped(again), source))):
                    settled += 1
                    yield outcome
                return
            except (ConnectionError, Stalled) as error:
                again.extendleft(reversed(one.unsettled))
                doubtful.update(file.path for file in one.unsettled)
                if one.has_begun:
                    retries.begun_at(settled)
                retries.after(error)


def _popped(files: deque[LocalFile]) -> Iterator[LocalFile]:
    while files:
        yield files.popleft()


class _Upload:
    """Small files over one connection. `doubtful`: paths that may be committed already."""

    def __init__(
        self,
        pool: Pool,
        directory: RelPath,
        replace: bool,
        wait: Callable[[], Wait],
        doubtful: Set[str],
        modes: bool,
        opener: Opener,
    ) -> None:
        self._pool = pool
        self._directory = directory
        self._replace = replace
        self._wait = wait
        self._doubtful = doubtful
        self._modes = modes
        self._opener = opener
        self._batch: list[m.SmallFile] = []
        self._size = _FRAME_OVERHEAD
        self._reserve = 0
        self._count = 0
        self._sent: dict[int, LocalFile] = {}
        self.has_begun = False

    @property
    def unsettled(self) -> list[LocalFile]:
        """What was taken from the caller and has no outcome."""
        return list(self._sent.values())

    def arrived(self, files: deque[LocalFile]) -> Iterator[Outcome]:
        """Take those out of `files` that are there: they were committed before a cut, and nobody heard of it.

        A token that may not read does not know: then all of them stay.
        """
        sent: dict[RelPath, tuple[LocalFile, int, bytes]] = {}
        asked: list[m.SetStep] = []
        for file in files:
            with suppress(OSError, ValueError, FileNameError, ChangedWhileRead):
                found, _ = _read(self._opener, file, self._modes)
                path, size = self._directory + found.path, len(found.content)
                sent[path] = file, size, found.digest
                asked.append(m.SetStep(path, None, found.mode, size, found.mtime))
        settled: set[LocalFile] = set()
        with suppress(PermissionError):
            for one in hash_files(self._pool, self._candidates(asked), False, self._wait):
                file, *said = sent[RelPath.parse(one.path)]
                if said == [one.size, one.digest]:
                    settled.add(file)
        for _ in range(len(files)):
            file = files.popleft()
            if file in settled:
                yield Outcome(file, None)
            else:
                files.append(file)

    def _candidates(self, asked: list[m.SetStep]) -> list[RelPath]:
        """The paths at which there is a file of this size and time.

        What a connection held that is cut is committed in a moment: until then it is held.
        """
        found: list[RelPath] = []
        for pause in (*_PAUSES, 0.0):
            outcomes = list(zip(asked, change(self._pool, asked, self._wait), strict=True))
            found += [step.path for step, error in outcomes if error is None]
            asked = [step for step, error in outcomes if isinstance(error, BusyError)]
            if not asked:
                break
            chunks.pause(pause)
        return found

    def run(self, files: Iterable[LocalFile]) -> Iterator[Outcome]:
        """Send all; the files are taken as they are sent."""
        asked = m.WriteFiles(self._directory, self._replace)
        path = str(self._directory)
        with self._pool.operation(asked, self._wait(), path=path, answered=False) as operation:
            self.has_begun = True
            largest, self._reserve = _sizes(operation)
            for file in files:
                try:
                    found, size = _read(self._opener, file, self._modes)
                    if size + _FRAME_OVERHEAD > largest:
                        raise ValueError(_TOO_LARGE)
                except (OSError, ValueError, FileNameError, ChangedWhileRead) as error:
                    yield Outcome(file, error)
                    continue
                if self._size + size > largest or len(self._batch) == m.MAX_BATCH:
                    # In hand, and in none of the lists, while others get their outcome.
                    self._sent[-1] = file
                    yield from self._send(operation)
                    del self._sent[-1]
                self._sent[self._count] = file
                self._count += 1
                self._batch.append(found)
                self._size += size
            yield from self._finish(operation)

    def _send(self, operation: Operation) -> Iterator[Outcome]:
        while not operation.room(self._size + self._reserve):
            yield from self._settle(operation.reply(m.Outcome))
        operation.say(m.Files(self._batch))
        self._batch, self._size = [], _FRAME_OVERHEAD
        while operation.has_news():
            yield from self._settle(operation.reply(m.Outcome))

    def _finish(self, operation: Operation) -> Iterator[Outcome]:
        if self._batch:
            yield from self._send(operation)
        operation.say(m.End())
        while (found := operation.batch(m.Outcome)) is not None:
            yield from self._settle(found)
        if self._sent:
            raise CorruptedResponse("the server says nothing of some files")

    def _settle(self, found: m.Outcome) -> Iterator[Outcome]:
        if not found.committed and not found.failed:
            raise CorruptedResponse("a batch with nothing in it")
        for first, count in ((one.first, one.count) for one in found.committed):
            if first + count > self._count:
                raise CorruptedResponse("files were committed that nobody sent")
            for number in range(first, first + count):
                yield Outcome(self._take(number), None)
        for failure in found.failed:
            file = self._take(failure.index)
            yield Outcome(file, self._judge(file, failure))

    def _take(self, number: int) -> LocalFile:
        file = self._sent.pop(number, None)
        if file is None:
            raise CorruptedResponse("two answers for one file")
        return file

    def _judge(self, file: LocalFile, failure: m.Failure) -> Exception | None:
        """What went wrong with a file; None where it is committed: an answer that was lost had said so."""
        path = self._directory + below(file.path)
        error = error_of(failure.code, failure.message, str(path))
        if isinstance(error, FileExistsError) and file.path in self._doubtful and not self._replace:
            with open(file.local, "rb") as ours:
                content = ours.read(m.MAX_INLINE + 1)
            there = [(one.size, one.digest) for one in self._pool.iterate(hashes(path), self._wait())]
            if there == [(len(content), blake3(content).digest())]:
                return None
        return no_directory(error, str(path.parent)) if isinstance(error, FileNotFoundError) else error


def _sizes(operation: Operation) -> tuple[int, int]:
    """Bytes that one FILES may have, and credit that is not used: what is on its way when a connection is cut
    is lost, and half a window keeps the server busy.

    Credit comes back by half a window: more than that, both together, might never be there.
    """
    peer = operation.session.peer
    assert peer is not None
    offer = peer.limits
    half = min(offer.stream_credit, offer.connection_credit) // 2
    largest = min(_FRAME, offer.control, half)
    return largest, half - largest


def _read(opener: Opener, file: LocalFile, modes: bool) -> tuple[m.SmallFile, int]:
    """A file for FILES, and what it takes there. Raises `OSError`, ValueError, `ChangedWhileRead`."""
    path = below(file.path)
    descriptor = opener.open(file.local, file.tree)
    try:
        # What it should have, and a byte: a buffer for the largest, for each, costs as much as opening it.
        content = os.read(descriptor, min(file.size, m.MAX_INLINE) + 1)
        status = os.fstat(descriptor)
        if len(content) > m.MAX_INLINE:
            raise ValueError(_TOO_LARGE)
        if status.st_size != len(content) or status.st_mtime_ns != file.mtime_ns:
            content, status = _read_again(descriptor)
    finally:
        os.close(descriptor)
    digest = blake3(content).digest()
    spelled = len(file.path) if file.path.isascii() else len(os.fsencode(file.path))
    size = len(content) + spelled + _OVERHEAD
    mode = status.st_mode & 0o777 if modes else None
    return m.SmallFile(path, clamped(status.st_mtime_ns), digest, content, mode), size


def _read_again(descriptor: int) -> tuple[bytes, os.stat_result]:
    """A file that is not what it was when it was listed: as it is now, if it holds still."""
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise PermissionError(errno.EACCES, "not a regular file")
    if before.st_size > m.MAX_INLINE:
        raise ValueError(_TOO_LARGE)
    content = os.pread(descriptor, m.MAX_INLINE + 1, 0)
    after = os.fstat(descriptor)
    if len(content) != after.st_size or _times(before) != _times(after):
        raise ChangedWhileRead
    return content, after


def _times(status: os.stat_result) -> tuple[int, int]:
    return status.st_mtime_ns, status.st_ctime_ns


def download_small(
    pool: Pool,
    files: Iterable[LocalFile],
    directory: RelPath,
    replace: bool,
    wait: Callable[[], Wait],
    *,
    modes: bool = False,
    place: Destination | None = None,
) -> Iterator[Outcome]:
    """Fetch files of at most 64 KiB from below `directory`; yields what became of each, in any order.

    With a `place` what is `local` in each file is its path in that.
    """
    source = iter(files)
    retries = Retries()
    settled = 0
    while some := list(_some(source)):
        wanted: dict[RelPath, LocalFile] = {}
        for file in some:
            try:
                # As `directory + below(path)`, checked once.
                wanted[RelPath((*directory.parts, *file.path.split("/")))] = file
            except FileNameError as error:
                yield Outcome(file, error)
        while wanted:
            one = _Download(pool, wanted, replace, wait, modes, place)
            for outcome in one.run():
                settled += 1
                yield outcome
            if one.has_begun:
                retries.begun_at(settled)
            if one.cut is not None:
                retries.after(one.cut)


def _some(files: Iterator[LocalFile]) -> Iterator[LocalFile]:
    """As many as one request names."""
    size = 0
    for file in islice(files, m.MAX_BATCH):
        yield file
        size += 4 * len(file.path)
        if size > _PATHS:
            return


class _Download:
    """Small files of one request. What has an outcome is taken out of `wanted`.

    `cut`: what broke the connection before all of them had one.
    """

    def __init__(
        self,
        pool: Pool,
        wanted: dict[RelPath, LocalFile],
        replace: bool,
        wait: Callable[[], Wait],
        modes: bool,
        place: Destination | None,
    ) -> None:
        self._pool = pool
        self._modes = modes
        self._whole = place
        self._wanted = wanted
        self._asked = list(wanted)
        self._replace = replace
        self._wait = wait
        self.has_begun = False
        self.cut: ConnectionError | None = None
        self._places: dict[str, tuple[Batch, list[LocalFile]]] = {}
        self._held = 0

    def run(self) -> Iterator[Outcome]:
        """Fetch them; what came is committed, and has its outcome, also where the connection breaks."""
        with ExitStack() as held:
            try:
                yield from self._fetch(held)
            except ConnectionError as error:
                self.cut = error
            finally:
                arrived = self._commit(held)
            yield from arrived

    def _fetch(self, held: ExitStack) -> Iterator[Outcome]:
        with self._pool.operation(m.ReadFiles(self._asked), self._wait(), again=True) as operation:
            while not isinstance(found := operation.answer(), m.End):
                self.has_begun = True
                if isinstance(found, m.Files):
                    yield from self._keep(held, found)
                elif isinstance(found, m.Outcome):
                    yield from self._failed(found)
                else:
                    raise CorruptedResponse("an answer of another kind")
        if self._wanted:
            raise CorruptedResponse("the server says nothing of some files")

    def _keep(self, held: ExitStack, found: m.Files) -> Iterator[Outcome]:
        for one in found.files:
            file = self._wanted.pop(one.path, None)
            if file is None:
                raise CorruptedResponse("a file that nobody asked for")
            try:
                if blake3(one.content).digest() != one.digest:
                    raise ChangedWhileRead
                where, path = self._split(file)
                if where not in self._places and len(self._places) >= _PLACES:
                    yield from self._commit(held)
                batch, added = self._place(held, where)
                batch.add(path, one.content, one.mtime, one.mode if self._modes else None)
                added.append(file)
                self._held += len(one.content)
            except (OSError, FileNameError, ChangedWhileRead) as error:
                yield Outcome(file, error)
        if self._held >= _COMMITTED:
            yield from self._commit(held)

    def _split(self, file: LocalFile) -> tuple[str, RelPath]:
        """The directory here whose jail a file goes through, and its path in that."""
        if self._whole is not None:
            return "", below(file.local)
        where, name = os.path.split(file.local)
        return where, RelPath((name,))

    def _place(self, held: ExitStack, directory: str) -> tuple[Batch, list[LocalFile]]:
        if directory not in self._places:
            place = self._whole or held.enter_context(Destination(directory or "."))
            batch = place.batch(replace=self._replace)
            held.callback(batch.discard)
            self._places[directory] = batch, []
        return self._places[directory]

    def _failed(self, found: m.Outcome) -> Iterator[Outcome]:
        if found.committed or not found.failed:
            raise CorruptedResponse("an outcome of nothing that was asked for")
        for failure in found.failed:
            path = self._asked[failure.index] if failure.index < len(self._asked) else None
            file = self._wanted.pop(path, None) if path is not None else None
            if file is None:
                raise CorruptedResponse("an outcome of a file that nobody asked for")
            error = error_of(failure.code, failure.message, str(path))
            yield Outcome(
                file, not_found(SourceNotFound, str(path)) if isinstance(error, FileNotFoundError) else error
            )

    def _commit(self, held: ExitStack) -> list[Outcome]:
        """Give what came its names, and leave its directories."""
        places, self._places, self._held = self._places, {}, 0
        with held.pop_all():
            return [
                Outcome(file, error)
                for batch, added in places.values()
                for file, error in zip(added, batch.commit(), strict=True)
            ]
