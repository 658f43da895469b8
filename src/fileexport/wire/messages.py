"""The vocabulary of the transfer protocol: what stands in the payload of each frame but DATA.

Every message is a MessagePack map (rows that come in large numbers are arrays), typed, and bounded in each
length and count. Unknown keys and elements at an array's end are ignored. See docs/protocol.md.
"""

from __future__ import annotations

import functools
import operator
import os
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from fileexport.errors import BadRequestError, CorruptedResponse, FileNameError
from fileexport.paths import MAX_PATH, MAX_TARGET, RelPath
from fileexport.wire.bounds import (
    DIGEST_SIZE,
    MAX_BATCH,
    MAX_INLINE,
    MAX_TEXT,
    Code,
    Count,
    Credit,
    Digest,
    Message,
    Mode,
    OnePath,
    Opaque,
    Open,
    Reply,
    Row,
    Text,
    Time,
)
from fileexport.wire.frames import LARGEST, Frame, FrameType, Limits, frame
from fileexport.wire.greeting import (
    FEATURES,
    KEY_ID_SIZE,
    MAX_FEATURE,
    MAX_FEATURES,
    VERSION,
    Auth,
    Challenge,
    Hello,
    Offer,
    Proof,
    Refused,
    Welcome,
)
from fileexport.wire.manifests import (
    Folder,
    Line,
    Listed,
    Manifest,
    ManifestPart,
    Top,
    folder_of,
    folder_rows,
    parts_of,
)
from fileexport.wire.steps import (
    MAX_BASES,
    STEPS,
    AnyStep,
    Base,
    Change,
    ChunkRow,
    Chunks,
    Copy,
    CopyRange,
    GetChunks,
    HashFiles,
    LinkStep,
    MakeStep,
    MoveStep,
    Paths,
    RemoveStep,
    SetStep,
    Span,
    Step,
)

#: What is defined in the rooms below and belongs to the vocabulary: this module names all of it.
__all__ = ["DIGEST_SIZE", "MAX_BASES", "MAX_BATCH", "MAX_INLINE", "MAX_TARGET", "MAX_TEXT", "STEPS"]
__all__ += ["FEATURES", "KEY_ID_SIZE", "MAX_FEATURE", "MAX_FEATURES", "VERSION"]
__all__ += ["Auth", "Challenge", "Hello", "Offer", "Proof", "Refused", "Welcome"]
__all__ += ["Message", "OnePath", "Open", "Reply", "Row", "Mode", "Text"]
__all__ += ["Folder", "Line", "Listed", "Manifest", "ManifestPart", "Top"]
__all__ += ["folder_of", "folder_rows", "parts_of"]
__all__ += ["AnyStep", "Change", "LinkStep", "MakeStep", "MoveStep", "RemoveStep", "SetStep", "Step"]
__all__ += ["Base", "ChunkRow", "Chunks", "Copy", "CopyRange", "GetChunks", "HashFiles", "Span"]

#: Seconds that a request may wait for a job, as over HTTP.
MAX_WAIT = 60

Stream = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Index = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class Ping(Message, frozen=True):
    """Is the other side there? It answers with the same bytes."""

    frame = FrameType.PING
    data: Opaque = b""


class Pong(Message, frozen=True):
    """The answer to PING."""

    frame = FrameType.PONG
    data: Opaque = b""


class GoAway(Message, frozen=True):
    """The sender ends the connection: streams above `last_stream` were not and will not be begun."""

    frame = FrameType.GOAWAY
    last_stream: Stream
    code: Code = 0
    message: Text = ""


class MoreCredit(Message, frozen=True):
    """So many more bytes may be sent on this stream, or on the whole connection (stream 0)."""

    frame = FrameType.CREDIT
    bytes: Credit


class End(Message, frozen=True):
    """The sender says nothing more on this stream; of content, how much it was and its hash."""

    frame = FrameType.END
    size: Count | None = None
    digest: Digest | None = None


class Reset(Message, frozen=True):
    """The stream ends here for both sides: cancelled (0), or an error; if busy, by whom and since when."""

    frame = FrameType.RESET
    code: Code = 0
    message: Text = ""
    holder: Text | None = None
    since: Time | None = None


class SmallFile(Row, frozen=True):
    """A whole file of at most 64 KiB."""

    path: RelPath
    mtime: Time
    digest: Digest
    content: Annotated[bytes, Meta(max_length=MAX_INLINE)]
    mode: Mode | None = None


class Files(Message, frozen=True):
    """Small files with their content."""

    frame = FrameType.FILES
    files: Annotated[list[SmallFile], Meta(min_length=1, max_length=MAX_BATCH)]


class List(OnePath, frozen=True, tag="list"):
    """The entries of a directory, or of all directories below it too."""

    recursive: bool = False


class Stat(OnePath, frozen=True, tag="stat"):
    """What one path is."""


class MakeFile(OnePath, frozen=True, tag="make_file"):
    """A new empty file."""

    exist_ok: bool = False


class MakeDirectory(OnePath, frozen=True, tag="make_directory"):
    """A new directory."""

    exist_ok: bool = False


class Read(OnePath, frozen=True, tag="read"):
    """The content of a file from `offset` on, if it is still the `version` that the caller has a part of.

    With `ranges`, these parts of that version alone, one behind the other.
    """

    offset: Count = 0
    length: Count | None = None
    version: Opaque | None = None
    ranges: Annotated[list[Span], Meta(max_length=MAX_BATCH)] = []


class ReadFiles(Open, frozen=True, tag="read_files"):
    """Small files, many at once."""

    paths: Paths


class Write(OnePath, frozen=True, tag="write"):
    """A file's content follows. `source` names what is sent: a partial of the same is continued.

    Parts of it may be named by COPY instead of sent, where the `bases` hold them.
    """

    size: Count
    mtime: Time
    replace: bool = False
    source: Opaque | None = None
    mode: Mode | None = None
    bases: Annotated[list[Base], Meta(max_length=MAX_BASES)] = []


class WriteFiles(OnePath, frozen=True, tag="write_files"):
    """Small files follow, their paths below this directory."""

    replace: bool = False


class Remove(OnePath, frozen=True, tag="remove"):
    """A file goes, or an empty directory; with `recursive`, a directory with its contents."""

    recursive: bool = False


class Rename(OnePath, frozen=True, tag="rename"):
    """A path gets another name."""

    target: RelPath
    replace: bool = False


class Hash(OnePath, frozen=True, tag="hash"):
    """The hash of a file, or of every file below a directory."""


class Compress(OnePath, frozen=True, tag="compress"):
    """A job that makes an archive beside the path."""

    format: Literal["tar.gz", "tar.zst", "zip", "gz", "zst"] = "tar.gz"


class ListJobs(Open, frozen=True, tag="jobs"):
    """The caller's jobs, the newest first."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class GetJob(Open, frozen=True, tag="job"):
    """One job; when it has ended, or after `wait` seconds."""

    id: Text
    wait: Annotated[int, Meta(ge=0, le=MAX_WAIT)] = 0


class CancelJob(Open, frozen=True, tag="cancel"):
    """A job shall end."""

    id: Text


class Entry(Row, frozen=True):
    """One name of a listing, its path below the directory that was listed."""

    path: RelPath
    type: Literal["file", "directory", "link", "other"]
    size: Count
    mtime: Time


class FileHash(Row, frozen=True):
    """The size and hash of one file."""

    path: RelPath
    size: Count
    digest: Digest


class Range(Row, frozen=True):
    """`count` files or steps of this stream, from number `first` on."""

    first: Index
    count: Annotated[int, Meta(ge=1, le=2**32 - 1)]


class Failure(Row, frozen=True):
    """File or step number `index` of this stream failed."""

    index: Index
    code: Code
    message: Text


class JobRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job as its owner sees it."""

    id: Text
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    path: RelPath
    target: RelPath
    created: Time
    bytes_done: Count = 0
    bytes_total: Count | None = None
    error: Text | None = None


class Entries(Reply, frozen=True, tag="entries"):
    """A batch of a listing, or what `stat` found."""

    entries: Annotated[list[Entry], Meta(max_length=MAX_BATCH)]


class Content(Reply, frozen=True, tag="content"):
    """DATA follows: of a file of `size` bytes, from `offset` on (0 where the caller's part is of no use)."""

    size: Count
    mtime: Time
    version: Opaque
    offset: Count = 0
    mode: Mode | None = None


class Ready(Reply, frozen=True, tag="ready"):
    """The server takes the content from `offset` on: so much it has and has verified."""

    offset: Count = 0


class Outcome(Reply, frozen=True, tag="outcome"):
    """What became of small files, or of steps: those committed, and those that failed."""

    committed: Annotated[list[Range], Meta(max_length=MAX_BATCH)] = []
    failed: Annotated[list[Failure], Meta(max_length=MAX_BATCH)] = []


class Hashes(Reply, frozen=True, tag="hashes"):
    """A batch of hashes."""

    hashes: Annotated[list[FileHash], Meta(max_length=MAX_BATCH)]


class Removed(Reply, frozen=True, tag="removed"):
    """Exactly so many files and directories were removed."""

    count: Count


class Jobs(Reply, frozen=True, tag="jobs"):
    """A batch of jobs."""

    jobs: Annotated[list[JobRow], Meta(max_length=MAX_BATCH)]


OPERATIONS: tuple[type[Open], ...] = (
    *(List, Stat, MakeFile, MakeDirectory, Read, ReadFiles, Write, WriteFiles),
    *(Remove, Rename, Hash, Compress, ListJobs, GetJob, CancelJob),
    *(Manifest, GetChunks, HashFiles, Change),
)
REPLIES: tuple[type[Reply], ...] = (
    *(Entries, Content, Ready, Outcome, Hashes, Removed, Jobs),
    *(ManifestPart, Chunks),
)
#: Messages that the type of their frame tells apart.
PLAIN: tuple[type[Message], ...] = (
    *(Hello, Auth, Challenge, Proof, Welcome, Refused, Ping, Pong, GoAway, MoreCredit),
    *(Files, Copy, End, Reset),
)


def _spell(value: Any) -> bytes:
    """A path for the wire: its names as bytes with slashes between them; the root is empty."""
    if isinstance(value, RelPath):
        return os.fsencode("/".join(value.parts))
    # By which msgspec is told that this is no value of ours either.
    raise NotImplementedError(type(value).__name__)


def _read_path(kind: type, value: Any) -> RelPath:
    """A path from the wire; there is one spelling of each."""
    if not isinstance(value, bytes) or len(value) > MAX_PATH:
        raise ValueError(f"Expected a path of at most {MAX_PATH} bytes")
    try:
        return RelPath(os.fsdecode(value).split("/") if value else ())
    except FileNameError as error:
        raise ValueError(str(error)) from None


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_spell)


def _decoder(*kinds: type[Message]) -> msgspec.msgpack.Decoder[Message]:
    union: Any = functools.reduce(operator.or_, kinds)
    return msgspec.msgpack.Decoder(union, dec_hook=_read_path)


_DECODERS: dict[FrameType, msgspec.msgpack.Decoder[Message]] = {
    **{kind.frame: _decoder(kind) for kind in PLAIN},
    FrameType.OPEN: _decoder(*OPERATIONS),
    FrameType.REPLY: _decoder(*REPLIES),
}


def encode(message: Message, stream: int = 0, limits: Limits = LARGEST) -> bytes:
    """The whole frame that says `message`; `limits` are those that its receiver announced.

    Raises `ValueError` where the frame would be too long, or does not belong on this stream.
    """
    return frame(message.frame, stream, _ENCODER.encode(message), limits=limits)


def decode(found: Frame) -> Message:
    """What a frame says. Nothing is kept that is longer than the bounds of its type.

    Raises `BadRequestError` for an OPEN that is MessagePack but no operation with such arguments: only its
    stream ends. Raises `CorruptedResponse` for anything else: the connection cannot go on.
    """
    try:
        return _DECODERS[found.type].decode(found.payload)
    except (ValueError, RecursionError) as error:
        whole = found.type is FrameType.OPEN and isinstance(error, msgspec.ValidationError)
        words = f"{found.type.name}: {_shown(error)}"
    # Out here, because an error that remembers the first one would keep alive what was read of the payload.
    raise (BadRequestError if whole else CorruptedResponse)(words)


def _shown(error: Exception) -> str:
    """The words of `error` for one line of a log: they may quote what the other side sent."""
    return "".join(char if char.isprintable() else "?" for char in str(error)[:200])
