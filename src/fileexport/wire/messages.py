"""The vocabulary of the transfer protocol: what stands in the payload of each frame but DATA.

Every message is a MessagePack map (rows that come in large numbers are arrays), typed, and bounded in each
length and count. Unknown keys and elements at an array's end are ignored. See docs/protocol.md.
"""

from __future__ import annotations

import functools
import operator
import os
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from fileexport.errors import BadRequestError, CorruptedResponse, FileNameError
from fileexport.paths import MAX_PATH, RelPath
from fileexport.wire.frames import LARGEST, Frame, FrameType, Limits, frame

VERSION = 1
#: Items of one message: entries, files, hashes, paths. More go into the next message.
MAX_BATCH = 1024
#: Content that travels inside FILES, in bytes; larger files have a stream of their own.
MAX_INLINE = 64 << 10
MAX_FEATURES = 16
#: Characters of a feature's name, and of a sentence.
MAX_FEATURE, MAX_TEXT = 32, 1024
#: Bytes that mean something to their sender only.
MAX_OPAQUE = 64
#: Seconds that a request may wait for a job, as over HTTP.
MAX_WAIT = 60
#: Bytes of a BLAKE3 hash, a SHA-256 proof and a nonce.
DIGEST_SIZE = 32
KEY_ID_SIZE = 8
MAX_INTEGER = 2**63 - 1
#: Features that have a name. Others may be announced, and are ignored.
FEATURES: dict[str, str] = {"zstd": "DATA frames may be compressed"}

Count = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Time = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Stream = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Credit = Annotated[int, Meta(ge=1, le=2**31 - 1)]
#: A wire code of `errors.ERRORS`; 0 is no error. Unknown codes are read as `UnexpectedError`.
Code = Annotated[int, Meta(ge=0, le=65535)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Opaque = Annotated[bytes, Meta(max_length=MAX_OPAQUE)]
Digest = Annotated[bytes, Meta(min_length=DIGEST_SIZE, max_length=DIGEST_SIZE)]
KeyId = Annotated[bytes, Meta(min_length=KEY_ID_SIZE, max_length=KEY_ID_SIZE)]
Feature = Annotated[str, Meta(min_length=1, max_length=MAX_FEATURE)]
Index = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a frame says. Subclasses name the type of frame that carries them."""

    frame: ClassVar[FrameType]


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A part of a message that comes in large numbers: an array, to which elements may be added."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What the sender of HELLO is ready to take."""

    control: Annotated[int, Meta(ge=1 << 10, le=LARGEST.control)]
    data: Annotated[int, Meta(ge=512, le=LARGEST.data)]
    streams: Annotated[int, Meta(ge=1, le=65535)]
    stream_credit: Credit
    connection_credit: Credit


class Hello(Message, frozen=True):
    """The first message of both sides: version, named features, limits."""

    frame = FrameType.HELLO
    version: Annotated[int, Meta(ge=1, le=65535)]
    limits: Offer
    features: Annotated[list[Feature], Meta(max_length=MAX_FEATURES)] = []


class Auth(Message, frozen=True):
    """The client begins to prove a token: which one, its nonce, what the proof is bound to."""

    frame = FrameType.AUTH
    id: KeyId
    nonce: Digest
    binding: Literal["none", "tls-server-end-point"] = "none"


class Challenge(Message, frozen=True):
    """The server's nonce."""

    frame = FrameType.CHALLENGE
    nonce: Digest


class Proof(Message, frozen=True):
    """The client's proof that it has the token."""

    frame = FrameType.PROOF
    proof: Digest


class Welcome(Message, frozen=True):
    """The client is let in; the server's proof that it knew the token."""

    frame = FrameType.WELCOME
    proof: Digest
    rights: Annotated[list[Feature], Meta(max_length=MAX_FEATURES)]


class Refused(Message, frozen=True):
    """The proof was wrong; so many tries are left on this connection."""

    frame = FrameType.REFUSED
    tries_left: Annotated[int, Meta(ge=0, le=255)]
    message: Text = ""


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


class Files(Message, frozen=True):
    """Small files with their content."""

    frame = FrameType.FILES
    files: Annotated[list[SmallFile], Meta(min_length=1, max_length=MAX_BATCH)]


class Open(Message, frozen=True, tag_field="op"):
    """An operation: the first message of a stream."""

    frame = FrameType.OPEN


class OnePath(Open, frozen=True):
    """An operation on one path."""

    path: RelPath


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
    """The content of a file from `offset` on, if it is still the `version` that the caller has a part of."""

    offset: Count = 0
    length: Count | None = None
    version: Opaque | None = None


class ReadFiles(Open, frozen=True, tag="read_files"):
    """Small files, many at once."""

    paths: Annotated[list[RelPath], Meta(min_length=1, max_length=MAX_BATCH)]


class Write(OnePath, frozen=True, tag="write"):
    """A file's content follows. `source` names what is sent: a partial of the same is continued."""

    size: Count
    mtime: Time
    replace: bool = False
    source: Opaque | None = None


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
    """`count` files of this stream, from number `first` on."""

    first: Index
    count: Annotated[int, Meta(ge=1, le=2**32 - 1)]


class Failure(Row, frozen=True):
    """File number `index` of this stream failed."""

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


class Reply(Message, frozen=True, tag_field="reply"):
    """A part of the answer to OPEN."""

    frame = FrameType.REPLY


class Entries(Reply, frozen=True, tag="entries"):
    """A batch of a listing, or what `stat` found."""

    entries: Annotated[list[Entry], Meta(max_length=MAX_BATCH)]


class Content(Reply, frozen=True, tag="content"):
    """DATA follows: of a file of `size` bytes, from `offset` on (0 where the caller's part is of no use)."""

    size: Count
    mtime: Time
    version: Opaque
    offset: Count = 0


class Ready(Reply, frozen=True, tag="ready"):
    """The server takes the content from `offset` on: so much it has and has verified."""

    offset: Count = 0


class Outcome(Reply, frozen=True, tag="outcome"):
    """What became of small files: those committed, and those that failed."""

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
)
REPLIES: tuple[type[Reply], ...] = (Entries, Content, Ready, Outcome, Hashes, Removed, Jobs)
#: Messages that the type of their frame tells apart.
PLAIN: tuple[type[Message], ...] = (
    *(Hello, Auth, Challenge, Proof, Welcome, Refused, Ping, Pong, GoAway, MoreCredit),
    *(Files, End, Reset),
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
