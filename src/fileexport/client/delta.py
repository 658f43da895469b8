"""One file by its differences, each way: what files of the other side hold already does not travel.

Files are cut into chunks on both sides (`fileexport.sync.chunks`), and what no chunk has is cut once more,
finer (`fileexport.sync.gaps`). Up, the server copies from its own files what they have, and is sent the
rest. Down, chunks come out of files here, or are asked for; each is checked
by its hash before it is written. Where a file changes meanwhile, the whole of it goes over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import accumulate

import msgspec
from blake3 import blake3

from fileexport.client.answers import Stalled, no_directory
from fileexport.client.chunks import CallerRaised, Manner, Retries
from fileexport.client.connection import Wait
from fileexport.client.cutting import (
    MAX_CHUNKS,
    Cutting,
    Known,
    Listed,
    ask_chunks,
    ask_ranges,
    cut_ranges,
    most_chunks,
)
from fileexport.client.downloading import Destination, Download, fetch
from fileexport.client.feeding import Feed
from fileexport.client.names import below
from fileexport.client.operation import Operation
from fileexport.client.pool import Pool
from fileexport.client.uploading import Sending, Source, Upload, send
from fileexport.disk.jail import Opened
from fileexport.disk.partials import Partial
from fileexport.errors import ChangedWhileRead, ConflictError, CorruptedResponse
from fileexport.paths import RelPath
from fileexport.sync.chunks import LITERAL, Chunk, Piece, average_for, pieces_from, recipe
from fileexport.sync.gaps import refined
from fileexport.sync.manifest import Entry
from fileexport.wire import messages as m

#: What one range of COPY takes in its frame, and what the frame takes beside them, in bytes at most.
_RANGE, _FRAME = 24, 32
#: Bytes that are copied before the server is told of it: it begins while we still say the rest.
_TELL_EVERY = 32 << 20
#: Bytes that a server copies in a second, at least: so much longer its next answer may take.
_COPIES = 20 << 20
#: Bytes of chunks that are checked and written together; a cut loses no more.
_GROUP = 256 << 10
#: Chunks that the bases of an upload may have together, beside as many as the file itself can have.
_SPARE = 64 << 10
#: What a base may do to us: then there is none.
_NO_BASE = (FileNotFoundError, IsADirectoryError, PermissionError, ConflictError, ChangedWhileRead)

Waits = Callable[[], Wait]


def upload_changes(pool: Pool, source: str, target: RelPath, bases: Sequence[RelPath], manner: Manner) -> int:
    """Send the file `source` so that it is `target`, without what the remote `bases` hold of it.

    Returns how many bytes of content travelled. Where a base changes, or the source, the whole file is sent;
    otherwise as `upload`.
    """
    travelled = 0
    if bases:
        with Source(source, manner.tree) as opened:
            one = _Upload(pool, opened, target, manner, bases)
            if _is_enough(one):
                return one.travelled
            travelled = one.travelled
    return travelled + send(pool, source, target, manner)[1]


def _is_enough(one: _Upload | _Download) -> bool:
    """Carry out a transfer by pieces; False where the whole file has to travel. Raises what callbacks do."""
    try:
        one.run()
        return True
    except _NO_BASE:
        return False
    except CallerRaised as raised:
        error = raised.error
    # Out here, so that it is what it was: with its own cause and context.
    raise error


class _Upload(Upload):
    """A file on its way, of which the server has parts. Raises `ConflictError` where it has none."""

    def __init__(
        self, pool: Pool, source: Source, target: RelPath, manner: Manner, bases: Sequence[RelPath]
    ) -> None:
        self._average = average_for(source.size)
        # What is cut is read to its end anyway: so the hash of the whole costs no second reading.
        self._cutting = Cutting(source.descriptor, source.size, self._average, is_hashed=True)
        super().__init__(pool, source, target, manner, self._cutting)
        self._paths = bases[: m.MAX_BASES]
        self._pieces: list[Piece] = []

    def run(self) -> bool:
        """Send what is missing there. Raises as `Upload.run`."""
        try:
            self._compare(self._ask())
            return super().run()
        finally:
            self._cutting.stop()

    def _ask(self) -> list[Listed]:
        found: list[Listed] = []
        room = min(most_chunks(self._source.size, self._average) + _SPARE, MAX_CHUNKS)
        for path in self._paths:
            with suppress(*_NO_BASE):
                listed = ask_chunks(self._pool, path, self._average, self._wait, self._begun, room=room)
                if listed is not None and listed.chunks:
                    found.append(listed)
                    room -= len(listed.chunks)
        if not found:
            raise ConflictError("no base")
        bases = [m.Base(one.path, one.version) for one in found]
        self._asked = msgspec.structs.replace(self._asked, bases=bases)
        return found

    def _begun(self) -> list[Cutting]:
        self._cutting.begin()
        return [self._cutting]

    def _compare(self, bases: list[Listed]) -> None:
        """Find out in pieces what is there and what is to be sent."""
        lists = [one.chunks for one in bases]
        sizes = [sum(chunk.size for chunk in chunks) for chunks in lists]
        ask = [partial(ask_ranges, self._pool, one.path, one.version, self._wait) for one in bases]
        pieces = list(recipe(self._cutting.chunks(), lists))
        self._pieces = refined(pieces, sizes, partial(cut_ranges, self._source.descriptor), ask)

    def _send(self, operation: Operation, sending: Sending, offset: int) -> None:
        # What waits behind a copy is lost with the connection.
        sending.spare_half()
        copies = _Copies(operation)
        for piece in pieces_from(self._pieces, offset):
            offset += piece.size
            if piece.base == LITERAL:
                copies.flush()
                sending.send_span(piece.offset, offset)
            else:
                copies.add(piece)
                sending.at(offset)
        copies.flush()


class _Copies:
    """Ranges of bases that the server is told to copy, many to a frame."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        peer = operation.session.peer
        assert peer is not None
        offer = peer.limits
        most = min(offer.control, offer.stream_credit // 2, offer.connection_credit // 2)
        self._most = max(min((most - _FRAME) // _RANGE, m.MAX_BATCH), 1)
        self._ranges: list[m.CopyRange] = []
        self._size = 0

    def add(self, piece: Piece) -> None:
        """The file goes on with this."""
        self._ranges.append(m.CopyRange(*piece))
        self._size += piece.size
        if len(self._ranges) >= self._most or self._size >= _TELL_EVERY:
            self.flush()

    def flush(self) -> None:
        """Tell the server what was added, and give it the time."""
        if not self._ranges:
            return
        operation = self._operation
        operation.wait.allow(self._size / _COPIES)
        while not operation.room(_FRAME + _RANGE * len(self._ranges)):
            operation.reply(m.Ready)
        operation.say(m.Copy(self._ranges))
        self._ranges, self._size = [], 0


def copy(pool: Pool, path: RelPath, target: RelPath, entry: Entry, digest: bytes, wait: Waits) -> None:
    """Have the server copy `path` to `target`, with the time and permissions of `entry`.

    What has the name is replaced. Raises `ChangedWhileRead` where the content is not that of `entry` and
    `digest`, `ConflictError` where there is no such file, and what else the server says.
    """
    asked = m.Write(target, entry.size, entry.mtime_ns, True, None, entry.mode, [m.Base(path)])
    retries = Retries()
    while True:
        try:
            with pool.operation(asked, wait(), path=str(target), answered=False) as operation:
                retries.begun_at(0)
                if entry.size:
                    copies = _Copies(operation)
                    copies.add(Piece(0, 0, entry.size))
                    copies.flush()
                operation.say(m.End(entry.size, digest))
                if operation.end() != m.End(entry.size, digest):
                    raise CorruptedResponse("the server committed something else")
            return
        except (ConnectionError, Stalled) as error:
            retries.after(error)
        except FileNotFoundError as error:
            raise no_directory(error, str(target.parent)) from None


def copy_here(place: Destination, path: str, target: str, entry: Entry, digest: bytes) -> None:
    """The same of a file in `place`, which is open here. Raises `ChangedWhileRead`, `OSError`."""
    with place.open(below(path)) as opened:
        partial = place.partial(below(target), entry.size, None, b"")
        try:
            partial.copy_from(opened.descriptor, 0, entry.size)
            if opened.stat_now().st_size != entry.size or partial.hasher.digest() != digest:
                raise ChangedWhileRead
            partial.commit(mtime_ns=entry.mtime_ns, replace=True, mode=entry.mode)
        finally:
            partial.discard()


def download_changes(
    pool: Pool,
    source: RelPath,
    place: Destination,
    path: RelPath,
    bases: Sequence[RelPath],
    manner: Manner,
) -> int:
    """Fetch `source` so that it is `path` in `place`, without what the `bases` in it hold of it.

    Returns how many bytes of content travelled. Where a base changes, or the source, the whole file is
    fetched; otherwise as `download`.
    """
    travelled = 0
    with ExitStack() as held:
        opened: list[Opened] = []
        for base in bases:
            with suppress(OSError):
                opened.append(held.enter_context(place.open(base)))
        if opened:
            one = _Download(pool, source, place, path, manner, opened)
            if _is_enough(one):
                return one.travelled
            travelled = one.travelled
    return travelled + fetch(pool, source, place, path, manner)[1]


class _Download(Download):
    """A file on its way, of which there are parts here."""

    def __init__(
        self,
        pool: Pool,
        source: RelPath,
        destination: Destination,
        path: RelPath,
        manner: Manner,
        bases: Sequence[Opened],
    ) -> None:
        super().__init__(pool, source, destination, path, manner)
        self._bases = bases
        self._list: list[Chunk] | None = None
        self._pieces: list[Piece] = []

    def _attempt(self, retries: Retries) -> bool:
        if self._partial is None:
            self._look()
        partial = self._partial
        assert partial is not None
        retries.begun_at(partial.offset)
        if self._list is None:
            self._list = self._compare(partial.size)
            partial = self._checked(partial, self._list)
        pieces = pieces_from(self._pieces, partial.offset)
        with Feed(self._pool, self._source, self._version, partial.size, self._wait) as feed:
            feed.begin(self._bases, pieces)
            try:
                self._fill(partial, self._list, feed)
            finally:
                self.travelled += feed.travelled
        partial.commit(mtime_ns=self._mtime, replace=self._manner.replace, mode=self._mode)
        return True

    def _compare(self, size: int) -> list[Chunk]:
        """The chunks of the file; and in pieces, where each part of it comes from."""
        average = average_for(size)
        sizes = [base.stat.st_size for base in self._bases]
        with ExitStack() as held:
            cuttings = [
                Cutting(base.descriptor, size, average) for base, size in zip(self._bases, sizes, strict=True)
            ]
            for cutting in cuttings:
                held.callback(cutting.stop)

            def begun() -> list[Cutting]:
                for cutting in cuttings:
                    cutting.begin()
                return cuttings

            known = Known(self._version, [size])
            listed = ask_chunks(self._pool, self._source, average, self._wait, begun, known=known)
            if listed is None:
                raise ChangedWhileRead
            pieces = list(recipe(listed.chunks, [cutting.chunks() for cutting in cuttings]))
        ask = partial(ask_ranges, self._pool, self._source, self._version, self._wait)
        cut_bases = [partial(cut_ranges, base.descriptor) for base in self._bases]
        self._pieces = refined(pieces, sizes, ask, cut_bases)
        return listed.chunks

    def _checked(self, partial: Partial, chunks: list[Chunk]) -> Partial:
        """The partial, if what was kept of it is what its chunks say; otherwise a new one.

        No hash of the whole decides at the end: whatever was noted of it, it counts as what comes does.
        """
        while not _is_right(partial, chunks):
            partial.discard()
            partial = self._destination.partial(self._path, partial.size, self._version, self._owner)
            self._partial = partial
        return partial

    def _fill(self, partial: Partial, chunks: list[Chunk], feed: Feed) -> None:
        """Write all that is missing, each chunk once it is known to be the right one."""
        buffer = memoryview(bytearray(max(_GROUP, max((chunk.size for chunk in chunks), default=0))))
        for start, group in _groups(chunks, partial.offset):
            content = buffer[: sum(chunk.size for chunk in group)]
            there = partial.offset - start
            if there and os.preadv(partial.descriptor, [content[:there]], start) != there:
                raise ChangedWhileRead
            feed.read_into(content[there:])
            ends = accumulate(chunk.size for chunk in group)
            for chunk, end in zip(group, ends, strict=True):
                if blake3(content[end - chunk.size : end]).digest() != chunk.digest:
                    if not there:
                        # What was checked stays, for the whole file that is fetched now.
                        partial.suspend()
                    raise ChangedWhileRead
            partial.write(content[there:])
            self._reports.at(partial.offset)


def _is_right(partial: Partial, chunks: list[Chunk]) -> bool:
    """Whether the chunks that are there whole are these."""
    buffer = memoryview(bytearray(max((chunk.size for chunk in chunks), default=0)))
    at = 0
    for size, digest in chunks:
        if at + size > partial.offset:
            break
        content = buffer[:size]
        if os.preadv(partial.descriptor, [content], at) != size or blake3(content).digest() != digest:
            return False
        at += size
    return True


def _groups(chunks: list[Chunk], offset: int) -> Iterator[tuple[int, list[Chunk]]]:
    """Chunks behind `offset`, as many together as make a good write, and where they begin."""
    at = start = size = 0
    group: list[Chunk] = []
    for chunk in chunks:
        at += chunk.size
        if at <= offset:
            start = at
            continue
        if group and size + chunk.size > _GROUP:
            yield start, group
            start, size, group = start + size, 0, []
        group.append(chunk)
        size += chunk.size
    if group:
        yield start, group
