"""The simple verbs as conversations, without a socket: what is asked, what has to follow, what it means.

A conversation is a generator. It yields its `Ask` first, and is sent the features of the connection once the
first answer is there; then `NEXT` for each answer. Errors, also those of beginning, are thrown into it. One
that tells of many things (a `Tale`) yields them as `Found` on its way; any other one returns its result.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Generic, Literal, NamedTuple, TypeVar

from fileexport.client.answers import no_directory, not_found, of_kind
from fileexport.client.listings import Kept, counted, grower
from fileexport.client.names import RemoteEntry, RemoteHash, RemoteJob, remote_path
from fileexport.errors import ChangedWhileRead, CorruptedResponse, DestinationNotFound
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.frames import Data

T = TypeVar("T")
Replied = TypeVar("Replied", bound=m.Message)
PathText = str | PathLike[str]
Format = Literal["tar.gz", "tar.zst", "zip", "gz", "zst"]


class Ask(NamedTuple):
    """Begin this operation. `path` is what exceptions name; `again`: asking twice does no harm.

    Each answer may take `extra` seconds longer than others.
    """

    asked: m.Open
    path: str | None = None
    again: bool = False
    extra: float = 0


class Next(NamedTuple):
    """The next answer, please; `took` bytes of content were dealt with before."""

    took: int = 0


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """Something for the caller."""

    items: Sequence[T]


NEXT = Next()
#: What a conversation is sent.
Heard = Data | m.Message | frozenset[str] | None
Talk = Generator[Ask | Next, Heard, T]
Tale = Generator[Ask | Next | Found[T], Heard, None]


def _reply(kind: type[Replied]) -> Generator[Next, Heard, Replied]:
    return of_kind((yield NEXT), kind)


def _batch(kind: type[Replied]) -> Generator[Next, Heard, Replied | None]:
    """The next answer, or None at END."""
    found = yield NEXT
    return None if isinstance(found, m.End) else of_kind(found, kind)


# Looking.


def entries(path: RelPath, recursive: bool = False) -> Tale[RemoteEntry]:
    """The entries of a directory as they come; `CorruptedResponse` for a lie."""
    count = 0
    yield Ask(m.List(path, recursive), str(path), again=True)
    while (found := (yield from _batch(m.Entries))) is not None:
        count = counted(count, len(found.entries))
        yield Found([_entry(one, recursive) for one in found.entries])


def _entry(entry: m.Entry, recursive: bool) -> RemoteEntry:
    if not entry.path or (len(entry.path.parts) > 1 and not recursive):
        raise CorruptedResponse("an entry of a listing that is none of its names")
    return RemoteEntry("/".join(entry.path.parts), entry.type, entry.size, entry.mtime)


def list_files(directory: PathText) -> Talk[dict[str, tuple[bool, int, int]]]:
    """Name → (is a directory, size in bytes, whole seconds of its mtime)."""
    path, kept, count = remote_path(directory), Kept(), 0
    listed: dict[str, tuple[bool, int, int]] = {}
    yield Ask(m.List(path), str(path), again=True)
    while (found := (yield from _batch(m.Entries))) is not None:
        count = counted(count, len(found.entries))
        for one in kept.all(_entry(entry, False) for entry in found.entries):
            listed[one.path] = (one.type == "directory", one.size, one.mtime_ns // 10**9)
    return listed


def stat(path: PathText) -> Talk[RemoteEntry]:
    """What a path is."""
    asked = remote_path(path)
    yield Ask(m.Stat(asked), str(asked), again=True)
    found = (yield from _reply(m.Entries)).entries
    yield from _reply(m.End)
    if len(found) != 1:
        raise CorruptedResponse("one entry was asked for")
    return RemoteEntry(str(asked), found[0].type, found[0].size, found[0].mtime)


def hashes(path: RelPath) -> Tale[RemoteHash]:
    """The hash of a file, or of each file below a directory, as they come."""
    count = 0
    yield Ask(m.Hash(path), str(path), again=True)
    while (found := (yield from _batch(m.Hashes))) is not None:
        count = counted(count, len(found.hashes))
        yield Found([RemoteHash("/".join(one.path.parts), one.size, one.digest) for one in found.hashes])


def content(path: RelPath) -> Tale[bytes]:
    """The content of a file as it comes; at its end `ChangedWhileRead` where it was not all of one file."""
    from blake3 import blake3

    hasher, size = blake3(), 0
    features = yield Ask(m.Read(path), str(path), again=True)
    announced = yield from _reply(m.Content)
    if announced.offset:
        raise CorruptedResponse("a file that does not begin at its beginning")
    grow = grower(features if isinstance(features, frozenset) else frozenset())
    found = yield NEXT
    while not isinstance(found, m.End):
        data = of_kind(found, Data)
        piece = grow(data)
        if piece is not None:
            size += len(piece)
            if size > announced.size:
                raise CorruptedResponse("a file that is longer than was said")
            hasher.update(piece)
            yield Found([bytes(piece)])
        found = yield Next(took=len(data.piece))
    if found.size != size or announced.size != size or found.digest != hasher.digest():
        raise ChangedWhileRead


# Changing.


def create_file(name: str, directory: PathText, exist_ok: bool) -> Talk[None]:
    """An empty file is made."""
    path = remote_path(directory) / name
    yield from _made(m.MakeFile(path, exist_ok), path, exist_ok)


def make_directory(name: str, directory: PathText, exist_ok: bool) -> Talk[None]:
    """A directory is made."""
    path = remote_path(directory) / name
    yield from _made(m.MakeDirectory(path, exist_ok), path, exist_ok)


def _made(asked: m.Open, path: RelPath, again: bool) -> Talk[None]:
    """An operation that makes `path`, and has no answer but its end."""
    try:
        yield Ask(asked, str(path), again)
        yield from _reply(m.End)
    except FileNotFoundError as error:
        # Where something new is to be, what is missing is its directory.
        raise no_directory(error, str(path.parent)) from None


def move(path: PathText, new_path: PathText, replace: bool) -> Talk[None]:
    """A path becomes another one."""
    asked, target = remote_path(path), remote_path(new_path)
    try:
        yield Ask(m.Rename(asked, target, replace), str(asked))
        yield from _reply(m.End)
    except DestinationNotFound:
        raise not_found(DestinationNotFound, str(target.parent)) from None
    except FileExistsError as error:
        raise FileExistsError(error.errno, error.strerror, str(target)) from None


def delete_file(name: str, directory: PathText) -> Talk[None]:
    """A file goes, or a directory with its contents."""
    yield from _remove(remote_path(directory) / name, True)


def remove(path: PathText, recursive: bool) -> Talk[int]:
    """How many files and directories are gone."""
    return (yield from _remove(remote_path(path), recursive))


def _remove(path: RelPath, recursive: bool) -> Talk[int]:
    yield Ask(m.Remove(path, recursive), str(path))
    removed = (yield from _reply(m.Removed)).count
    yield from _reply(m.End)
    return removed


# Jobs.


def compress(path: PathText, format: Format) -> Talk[RemoteJob]:
    """The job that makes an archive."""
    asked = remote_path(path)
    return (yield from _one_job(Ask(m.Compress(asked, format), str(asked))))


def jobs(limit: int) -> Talk[list[RemoteJob]]:
    """The newest jobs. Raises ValueError for a limit that is none."""
    if not 1 <= limit <= 1000:
        raise ValueError("a limit is a number from 1 to 1000")
    found: list[RemoteJob] = []
    yield Ask(m.ListJobs(limit), again=True)
    while (batch := (yield from _batch(m.Jobs))) is not None:
        if not batch.jobs or len(found) + len(batch.jobs) > limit:
            raise CorruptedResponse("other jobs than were asked for")
        found += map(RemoteJob.of, batch.jobs)
    return found


def job(id: str, wait: int) -> Talk[RemoteJob]:
    """One job, perhaps when it has ended. Raises ValueError for a time that is none."""
    if not 0 <= wait <= m.MAX_WAIT:
        raise ValueError(f"a job is waited for between 0 and {m.MAX_WAIT} seconds")
    return (yield from _one_job(Ask(m.GetJob(id, wait), id, again=True, extra=wait)))


def cancel(id: str) -> Talk[RemoteJob]:
    """A job that shall end, as it is then."""
    return (yield from _one_job(Ask(m.CancelJob(id), id)))


def _one_job(asked: Ask) -> Talk[RemoteJob]:
    yield asked
    found = (yield from _reply(m.Jobs)).jobs
    yield from _reply(m.End)
    if len(found) != 1:
        raise CorruptedResponse("one job was asked for")
    return RemoteJob.of(found[0])
