"""The operations of synchronisation: manifests, chunks and hashes of files, and many changes in one go.

They are registered with `carry_out`, which the connection takes from here, so that it has all there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import chain, groupby

from fileexport.disk.scan import Part
from fileexport.errors import row_for
from fileexport.small_files import Committed
from fileexport.sync.gaps import Range
from fileexport.transfer_desk import Answers, Desk
from fileexport.transfer_operations import BATCH, batches, carry_out, hash_rows, outcomes, words_for
from fileexport.transfer_streams import Stream
from fileexport.wire import messages as m

__all__ = ("carry_out",)

#: Bytes of a chunk in a message.
_CHUNK = 48
_LETTERS = {"file": "f", "directory": "d", "link": "l", "other": "o"}


@carry_out.register(m.Manifest)
async def _manifest(operation: m.Manifest, stream: Stream, desk: Desk) -> None:
    await desk.answer(stream, _folders(operation, stream, desk), desk.reads)


def _folders(operation: m.Manifest, stream: Stream, desk: Desk) -> Answers:
    with closing(desk.exports.manifest(desk.who, operation.path, check=stream.check)) as parts:
        first = next(parts)
        assert first.own is not None
        top = m.Top(first.own.mtime_ns, first.own.mode, desk.exports.is_portable)
        for part in m.parts_of(map(_listed, chain((first,), parts)), top, stream.most(BATCH)):
            yield (part, 0) if part else ()


def _listed(part: Part) -> m.Listed:
    lines = [
        (name, _LETTERS[kind], size, mtime, mode, target)
        for name, (kind, size, mtime, mode, target) in part.entries
    ]
    if part.error is None:
        return m.Listed(part.path, lines, omitted=part.omitted)
    return m.Listed(part.path, lines, row_for(part.error).wire, words_for(part.error), part.omitted)


@carry_out.register(m.GetChunks)
async def _get_chunks(operation: m.GetChunks, stream: Stream, desk: Desk) -> None:
    size, most = 0, stream.most(BATCH)

    def answers() -> Answers:
        nonlocal size
        ranges = [Range(one.offset, one.size) for one in operation.ranges]
        version, found = desk.exports.chunks(
            desk.who, operation.path, operation.average, ranges, check=stream.check, fresh=operation.fresh
        )
        with closing(found):
            for chunks in found:
                size += sum(chunk.size for chunk in chunks)
                for rows in batches(((m.ChunkRow(*chunk), _CHUNK) for chunk in chunks), most):
                    yield m.Chunks(version, rows), 0
                if not chunks:
                    yield ()
            if not size:
                yield m.Chunks(version, []), 0

    await desk.answer(stream, answers(), desk.heavy, lambda: m.End(size))


@carry_out.register(m.HashFiles)
async def _hash_files(operation: m.HashFiles, stream: Stream, desk: Desk) -> None:
    def answers() -> Answers:
        found = desk.exports.hash_files(desk.who, operation.paths, check=stream.check, fresh=operation.fresh)
        for batch in hash_rows(found, stream.most(BATCH)):
            yield (m.Hashes(batch), 0) if batch else ()

    await desk.answer(stream, answers(), desk.heavy)


@carry_out.register(m.Change)
async def _change(operation: m.Change, stream: Stream, desk: Desk) -> None:
    def steps() -> Iterator[m.AnyStep]:
        for step in operation.steps:
            if stream.gone is not None:
                # Ended, not broken off: what was done before is flushed.
                return
            yield step

    carry = desk.exports.carry_out
    became = await desk.change(stream, carry, desk.who, steps(), holder=desk.holder)
    for outcome in outcomes(_committed(became), stream.most(BATCH)):
        stream.say(outcome)
    stream.say(m.End())


def _committed(became: list[Exception | None]) -> Committed:
    """What became of steps, as it is told of small files."""
    ranges = []
    for is_done, group in groupby(range(len(became)), lambda index: became[index] is None):
        if is_done:
            first, *others = group
            ranges.append((first, len(others) + 1))
    return Committed(ranges, [(index, error) for index, error in enumerate(became) if error is not None])
