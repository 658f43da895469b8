"""What messages are made of: their bounds, the types of their fields, and the classes they derive from."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from fileexport.paths import MAX_TARGET, RelPath
from fileexport.wire.frames import FrameType

#: Items of one message: entries, files, hashes, paths. More go into the next message.
MAX_BATCH = 1024
#: Content that travels inside FILES, in bytes; larger files have a stream of their own.
MAX_INLINE = 64 << 10
#: Characters of a sentence.
MAX_TEXT = 1024
#: Bytes that mean something to their sender only.
MAX_OPAQUE = 64
#: Bytes of a BLAKE3 hash, a SHA-256 proof and a nonce.
DIGEST_SIZE = 32
MAX_INTEGER = 2**63 - 1

Count = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Some = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
Time = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Credit = Annotated[int, Meta(ge=1, le=2**31 - 1)]
#: The permissions of owner, group and others: what `chmod` takes, without the bits above.
Mode = Annotated[int, Meta(ge=0, le=0o777)]
#: A wire code of `errors.ERRORS`; 0 is no error. Unknown codes are read as `UnexpectedError`.
Code = Annotated[int, Meta(ge=0, le=65535)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Opaque = Annotated[bytes, Meta(max_length=MAX_OPAQUE)]
Digest = Annotated[bytes, Meta(min_length=DIGEST_SIZE, max_length=DIGEST_SIZE)]
#: The text of a symbolic link, as it stands on the disk.
Target = Annotated[bytes, Meta(min_length=1, max_length=MAX_TARGET)]


def clamped(time_ns: int) -> int:
    """A time of a file as it can be said: what lies before 1677-09-21 or behind 2262-04-11 is the limit."""
    return min(max(time_ns, -MAX_INTEGER), MAX_INTEGER)


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a frame says. Subclasses name the type of frame that carries them."""

    frame: ClassVar[FrameType]


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A part of a message that comes in large numbers: an array, to which elements may be added."""


class Open(Message, frozen=True, tag_field="op"):
    """An operation: the first message of a stream."""

    frame = FrameType.OPEN


class OnePath(Open, frozen=True):
    """An operation on one path."""

    path: RelPath


class Reply(Message, frozen=True, tag_field="reply"):
    """A part of the answer to OPEN."""

    frame = FrameType.REPLY
