"""The operations of the transfer protocol: one function each, from OPEN to the END of the answer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial, singledispatch
from typing import TypeVar

from blake3 import blake3
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from fileexport.disk.jail import Opened
from fileexport.disk.schema import JobRow
from fileexport.errors import (
    BadRequestError,
    ChangedWhileRead,
    ConflictError,
    FileExportError,
    NotGranted,
    OutOfRange,
    OverloadedError,
    PeerGone,
    row_for,
    sentence_for,
)
from fileexport.exports import Exports, file_version
from fileexport.job_views import job_of, seen_by
from fileexport.lanes import Lane
from fileexport.paths import RelPath, printable
from fileexport.small_files import Committed
from fileexport.tokens import Principal, Right
from fileexport.transfer_desk import Answers, Desk
from fileexport.transfer_downloads import Download, changed
from fileexport.transfer_streams import FIELDS, Cancelled, Stream
from fileexport.transfer_uploads import Feeder, Incoming, IncomingFiles
from fileexport.uploads import Upload
from fileexport.wire import messages as m
from fileexport.wire.bounds import clamped

Row = TypeVar("Row")

#: Bytes of one answer of many: a frame holds more, but others wait behind it.
BATCH = 200 << 10
#: Bytes of files that are hashed between two answers, so that the client hears of us, and others have a turn.
HASHED = 64 << 20
#: Seconds in which most jobs that are cancelled have ended.
CANCEL_WAIT = 1


@singledispatch
async def carry_out(operation: m.Open, stream: Stream, desk: Desk) -> None:
    """Carry out an operation and answer it, up to END. What it raises is the code of RESET."""
    raise BadRequestError(f"there is no operation {type(operation).__name__}")


# -- looking


@carry_out.register(m.Stat)
async def _stat(operation: m.Stat, stream: Stream, desk: Desk) -> None:
    found = await desk.read(stream, desk.exports.stat, desk.who, operation.path)
    stream.say(m.Entries([m.Entry(RelPath(), found.kind, found.size, found.mtime_ns)]))
    stream.say(m.End())


@carry_out.register(m.List)
async def _list(operation: m.List, stream: Stream, desk: Desk) -> None:
    def rows() -> Iterator[tuple[m.Entry, int]]:
        for path, found in desk.exports.walk(desk.who, operation.path, recursive=operation.recursive):
            stream.check()
            yield m.Entry(path, found.kind, found.size, found.mtime_ns), length_of(path)

    found = batches(rows(), stream.most(BATCH))
    await desk.answer(stream, ((m.Entries(batch), 0) for batch in found), desk.reads)


@carry_out.register(m.Hash)
async def _hash(operation: m.Hash, stream: Stream, desk: Desk) -> None:
    rows = desk.exports.hashes(desk.who, operation.path, check=stream.check)
    found = hash_rows(rows, stream.most(BATCH))
    await desk.answer(stream, ((m.Hashes(batch), 0) if batch else () for batch in found), desk.heavy)


def hash_rows(rows: Iterable[tuple[RelPath, int, bytes] | None], most: int) -> Iterator[list[m.FileHash]]:
    """Paths with sizes and hashes in batches of at most `most` bytes; None makes an empty one."""
    # A large file fills a batch as many names do.
    return batches(
        (row and (m.FileHash(*row), length_of(row[0]) + row[1] * most // HASHED) for row in rows), most
    )


# -- reading


@carry_out.register(m.Read)
async def _read(operation: m.Read, stream: Stream, desk: Desk) -> None:
    with await desk.read(stream, _open, desk.exports, desk.who, operation.path) as opened:
        size, version = opened.stat.st_size, file_version(opened)
        parts = _parts(operation, size, version)
        mode = opened.stat.st_mode & 0o777
        stream.say(m.Content(size, clamped(opened.stat.st_mtime_ns), version, parts[0][0], mode))
        whole = operation.length is None and not operation.ranges
        download = Download(stream, desk.heavy, desk.packs, opened.descriptor, size, with_digest=whole)
        try:
            for start, stop in parts:
                await download.send(start, stop)
            digest = await download.digest()
        finally:
            await download.close()
        if changed(opened):
            raise ChangedWhileRead
        stream.say(m.End(size, digest))


def _parts(operation: m.Read, size: int, version: bytes) -> list[tuple[int, int]]:
    """What is asked for of a file, each part by its first byte and the one behind its last."""
    known = operation.version in (None, version)
    if not operation.ranges:
        offset = operation.offset if known and operation.offset <= size else 0
        return [(offset, size if operation.length is None else min(size, offset + operation.length))]
    if operation.offset or operation.length is not None:
        raise BadRequestError("ranges beside an offset or a length")
    if not known:
        raise ConflictError("the file is another one now")
    parts = [(one.offset, one.offset + one.size) for one in operation.ranges]
    if any(stop > size for _, stop in parts):
        raise OutOfRange(f"a range ends behind the end of the file, which has {size} bytes")
    return parts


@carry_out.register(m.ReadFiles)
async def _read_files(operation: m.ReadFiles, stream: Stream, desk: Desk) -> None:
    await desk.answer(stream, _small_files(operation.paths, stream, desk), desk.reads)


def _small_files(paths: list[RelPath], stream: Stream, desk: Desk) -> Answers:
    """Files as they fit into frames, then what became of the others."""
    failed: list[m.Failure] = []
    most = stream.most(BATCH)

    def rows() -> Iterator[tuple[m.SmallFile, int]]:
        for index, path in enumerate(paths):
            stream.check()
            try:
                file = _small_file(desk, path)
                cost = _cost_of_file(file)
                if cost + FIELDS > most:
                    raise OutOfRange("the file is too long for the frames that you take")
                yield file, cost
            except (OSError, FileExportError) as error:
                failed.append(_failure(index, error))

    for files in batches(rows(), most - FIELDS):
        yield m.Files(files), sum(_cost_of_file(file) for file in files) + FIELDS
    for found in batches(((one, _cost_of(one)) for one in failed), most):
        yield m.Outcome(failed=found), 0


def _cost_of_file(file: m.SmallFile) -> int:
    return length_of(file.path) + len(file.content)


def _small_file(desk: Desk, path: RelPath) -> m.SmallFile:
    with _open(desk.exports, desk.who, path) as opened:
        if opened.stat.st_size > m.MAX_INLINE:
            raise OutOfRange(f"the file has more than {m.MAX_INLINE} bytes: read it alone")
        content = os.pread(opened.descriptor, m.MAX_INLINE, 0)
        if changed(opened) or len(content) != opened.stat.st_size:
            raise ChangedWhileRead
        digest, status = blake3(content).digest(), opened.stat
        return m.SmallFile(path, clamped(status.st_mtime_ns), digest, content, status.st_mode & 0o777)


def _open(exports: Exports, who: Principal, path: RelPath) -> Opened:
    """Open a regular file. Raises `IsADirectoryError`."""
    opened = exports.open(who, path)
    if opened is None:
        raise IsADirectoryError
    if opened.is_directory:
        opened.close()
        raise IsADirectoryError
    return opened


# -- writing


@carry_out.register(m.Write)
async def _write(operation: m.Write, stream: Stream, desk: Desk) -> None:
    if operation.size > desk.limits.file_size:
        raise OutOfRange(f"the file has {operation.size} bytes: the limit is {desk.limits.file_size}")

    begin = _beginning(operation, stream, desk)
    is_kept, has_bases = operation.source is not None, bool(operation.bases)
    incoming = Incoming(stream, begin, desk.limits.min_chunk, is_kept=is_kept, has_bases=has_bases)
    feeder = Feeder(stream, desk.lane, desk.copies, incoming)

    def leave(error: BaseException) -> Deferred[None]:
        # Only these two say that what came is of no use.
        is_useless = isinstance(error, Cancelled | ChangedWhileRead)
        return _leave(desk.lane, incoming.discard if is_useless else incoming.suspend)

    stream.on_gone(leave)
    begun = stream.working(desk.lane.put(incoming.begin))
    stream.receive(feeder.take)
    try:
        offset = await begun
        if is_kept:
            stream.say(m.Ready(offset))
        end = await stream.ended()
        await feeder.settled()
        await desk.lane.put(partial(incoming.finish, end))
        stream.say(m.End(end.size, end.digest))
    except BaseException as error:
        await leave(error)
        raise


def _beginning(operation: m.Write, stream: Stream, desk: Desk) -> Callable[[], Upload]:
    def revoked() -> None:
        desk.reactor.callFromThread(stream.give_up, PeerGone("it goes on over another connection"))

    return partial(
        desk.exports.begin_upload,
        *(desk.who, operation.path),
        size=operation.size,
        mtime_ns=operation.mtime,
        replace=operation.replace,
        source=operation.source,
        holder=desk.holder,
        check=stream.check,
        revoked=revoked,
        mode=operation.mode,
        bases=[(base.path, base.version) for base in operation.bases],
    )


@carry_out.register(m.WriteFiles)
async def _write_files(operation: m.WriteFiles, stream: Stream, desk: Desk) -> None:
    begin = partial(
        desk.exports.begin_small_files,
        *(desk.who, operation.path),
        replace=operation.replace,
        holder=desk.holder,
        max_size=desk.limits.file_size,
    )
    incoming = IncomingFiles(stream, begin, desk.reactor.seconds)

    def leave(error: Exception) -> None:
        # Where its sender was lost, what is staged need not come again.
        desk.lane.put(incoming.commit).addErrback(lambda failure: failure.trap(OSError, FileExportError))
        _leave(desk.lane, incoming.discard)

    stream.on_gone(leave)
    begun = stream.working(desk.lane.put(incoming.begin))

    def take(came: list[m.Files], kept: int) -> Deferred[None]:
        return desk.lane.put(partial(incoming.take, came), kept).addCallback(tell)

    def tell(committed: Committed | None) -> None:
        if committed is not None:
            for outcome in outcomes(committed, stream.most(BATCH)):
                stream.say(outcome)

    stream.receive(take)
    try:
        await begun
        await stream.ended()
        tell(await desk.lane.put(incoming.commit))
        stream.say(m.End())
    finally:
        await _leave(desk.lane, incoming.discard)


def _leave(lane: Lane, function: Callable[[], None]) -> Deferred[None]:
    """Clean up behind all that is queued; here, where there is no thread any more."""

    def leave() -> None:
        with suppress(OSError):
            function()

    def leave_here(failure: Failure) -> None:
        failure.trap(OverloadedError)
        leave()

    return lane.put(leave).addErrback(leave_here)


def outcomes(committed: Committed, most: int) -> Iterator[m.Outcome]:
    """What became of small files, or of steps, in messages that a frame holds."""
    ranges = ((m.Range(*one), FIELDS) for one in committed.ranges)
    for done in batches(ranges, most):
        yield m.Outcome(committed=done)
    failures = (_failure(index, error) for index, error in committed.failures)
    for failed in batches(((one, _cost_of(one)) for one in failures), most):
        yield m.Outcome(failed=failed)


# -- changing


@carry_out.register(m.MakeFile)
async def _make_file(operation: m.MakeFile, stream: Stream, desk: Desk) -> None:
    await desk.change(stream, desk.exports.make_file, desk.who, operation.path, exist_ok=operation.exist_ok)
    stream.say(m.End())


@carry_out.register(m.MakeDirectory)
async def _make_directory(operation: m.MakeDirectory, stream: Stream, desk: Desk) -> None:
    make = desk.exports.make_directory
    await desk.change(stream, make, desk.who, operation.path, exist_ok=operation.exist_ok)
    stream.say(m.End())


@carry_out.register(m.Remove)
async def _remove(operation: m.Remove, stream: Stream, desk: Desk) -> None:
    remove = desk.exports.remove_path
    count = await desk.change(
        stream, remove, desk.who, operation.path, recursive=operation.recursive, check=stream.check
    )
    stream.say(m.Removed(count))
    stream.say(m.End())


@carry_out.register(m.Rename)
async def _rename(operation: m.Rename, stream: Stream, desk: Desk) -> None:
    rename, paths = desk.exports.rename, (operation.path, operation.target)
    await desk.change(stream, rename, desk.who, *paths, replace=operation.replace, holder=desk.holder)
    stream.say(m.End())


# -- jobs


@carry_out.register(m.Compress)
async def _compress(operation: m.Compress, stream: Stream, desk: Desk) -> None:
    order = await desk.change(stream, desk.exports.compress_order, desk.who, operation.path, operation.format)
    job = await desk.rooms.jobs.submit(order, owner=desk.who.owner, target=order["place"])
    _say_job(stream, desk, job)


@carry_out.register(m.ListJobs)
async def _list_jobs(operation: m.ListJobs, stream: Stream, desk: Desk) -> None:
    _require_jobs(desk)
    rows = await desk.rooms.jobs.list(seen_by(desk.who), limit=operation.limit)
    jobs = [_job_row(desk, row) for row in rows]
    costs = (
        (job, length_of(job.path) + length_of(job.target) + 4 * len(job.error or "") + 256) for job in jobs
    )
    for batch in batches(costs, stream.most(BATCH)):
        await stream.say_when_free(m.Jobs(batch))
    stream.say(m.End())


@carry_out.register(m.GetJob)
async def _get_job(operation: m.GetJob, stream: Stream, desk: Desk) -> None:
    _require_jobs(desk)
    job = await job_of(desk.rooms.jobs, desk.who, operation.id)
    if operation.wait:
        job = await _waited(stream, desk, job, operation.wait)
    _say_job(stream, desk, job)


@carry_out.register(m.CancelJob)
async def _cancel_job(operation: m.CancelJob, stream: Stream, desk: Desk) -> None:
    _require_jobs(desk)
    job = await job_of(desk.rooms.jobs, desk.who, operation.id)
    await desk.rooms.jobs.cancel(job.id)
    # What runs ends when its work next looks.
    _say_job(stream, desk, await _waited(stream, desk, job, CANCEL_WAIT))


async def _waited(stream: Stream, desk: Desk, job: JobRow, seconds: float) -> JobRow:
    """The job when it has ended, or as it is when the time is over, or we stop."""
    wait: Deferred[JobRow | None] = Deferred.fromCoroutine(desk.rooms.jobs.wait(job.id, seconds))
    try:
        return await stream.wait(wait) or job
    except CancelledError:
        stream.check()
        return await desk.rooms.jobs.get(job.id) or job


def _require_jobs(desk: Desk) -> None:
    """Raise `PermissionError` for whom the other door shows no jobs either."""
    if not desk.who.may(Right.WRITE):
        raise NotGranted


def _say_job(stream: Stream, desk: Desk, job: JobRow) -> None:
    stream.say(m.Jobs([_job_row(desk, job)]))
    stream.say(m.End())


def _job_row(desk: Desk, job: JobRow) -> m.JobRow:
    order, progress = json.loads(job.order), desk.rooms.jobs.progress(job.id)
    return m.JobRow(
        id=job.id,
        state=job.state.value,
        path=RelPath.parse(order["source"]),
        target=RelPath.parse(order["target"]),
        created=round(job.created * 1e9),
        bytes_done=progress.bytes_done if progress else 0,
        bytes_total=progress.bytes_total if progress else None,
        error=None if job.error is None else printable(job.error)[: m.MAX_TEXT],
    )


# -- batches


def batches(rows: Iterable[tuple[Row, int] | None], most: int) -> Iterator[list[Row]]:
    """Rows, each with its bytes, in batches that a message holds; one that is too long stands alone.

    None is no row: an empty batch comes for it at once.
    """
    batch: list[Row] = []
    size = 0
    for found in rows:
        if found is None:
            yield []
            continue
        row, cost = found
        if batch and (size + cost > most or len(batch) >= m.MAX_BATCH):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += cost
        if size >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def length_of(path: RelPath) -> int:
    """No less than the bytes that a row with this path has beside its content."""
    return len(os.fsencode("/".join(path.parts))) + FIELDS


def words_for(error: Exception) -> str:
    """What the client is told of an error: UTF-8, and no longer than a text may be."""
    return printable(sentence_for(error))[: m.MAX_TEXT]


def _failure(index: int, error: Exception) -> m.Failure:
    return m.Failure(index, row_for(error).wire, words_for(error))


def _cost_of(failure: m.Failure) -> int:
    return 4 * len(failure.message) + FIELDS
