"""Messages of synchronisation that change something, or say what need not travel.

Chunk lists and hashes of files, content that the receiver has already, and steps: many small changes at once.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fileexport.paths import RelPath
from fileexport.wire.bounds import (
    MAX_BATCH,
    Count,
    Digest,
    Message,
    Mode,
    OnePath,
    Opaque,
    Open,
    Reply,
    Row,
    Some,
    Target,
    Time,
)
from fileexport.wire.frames import FrameType

#: Files that one upload may take content from.
MAX_BASES = 16
#: Bytes of one chunk, and the averages that may be asked for.
MAX_CHUNK = 16 << 20
MIN_AVERAGE, MAX_AVERAGE = 512, 4 << 20

Paths = Annotated[list[RelPath], Meta(min_length=1, max_length=MAX_BATCH)]


class Base(Row, frozen=True):
    """A file that COPY may name by its number; with a `version`, only while it is that one."""

    path: RelPath
    version: Opaque | None = None


class Span(Row, frozen=True):
    """A part of a file."""

    offset: Count
    size: Some


class CopyRange(Row, frozen=True):
    """`size` bytes of base number `base`, from `offset` on."""

    base: Annotated[int, Meta(ge=0, le=MAX_BASES - 1)]
    offset: Count
    size: Some


class Copy(Message, frozen=True):
    """The content goes on with these parts of the bases, one behind the other."""

    frame = FrameType.COPY
    ranges: Annotated[list[CopyRange], Meta(min_length=1, max_length=MAX_BATCH)]


class GetChunks(OnePath, frozen=True, tag="chunks"):
    """The chunks of a file; `fresh` reads it even where they are known.

    With `ranges`, those of these parts of it, each cut by itself.
    """

    average: Annotated[int, Meta(ge=MIN_AVERAGE, le=MAX_AVERAGE)]
    fresh: bool = False
    ranges: Annotated[list[Span], Meta(max_length=MAX_BATCH)] = []


class HashFiles(Open, frozen=True, tag="hash_files"):
    """The hashes of these files; `fresh` reads them even where they are known."""

    paths: Paths
    fresh: bool = False


class ChunkRow(Row, frozen=True):
    """The size and hash of one chunk."""

    size: Annotated[int, Meta(ge=1, le=MAX_CHUNK)]
    digest: Digest


class Chunks(Reply, frozen=True, tag="chunks"):
    """The next chunks of the file, which is this `version`."""

    version: Opaque
    chunks: Annotated[list[ChunkRow], Meta(max_length=MAX_BATCH)]


class Step(msgspec.Struct, frozen=True, array_like=True, tag_field="step"):
    """One change to one path; an array that begins with the name of the step."""

    path: RelPath


class MakeStep(Step, frozen=True, tag="make"):
    """A new directory; without `mode` its permissions are left to the umask."""

    mode: Mode | None = None


class LinkStep(Step, frozen=True, tag="link"):
    """A new symbolic link with this text, which has to lead inside."""

    target: Target
    replace: bool = False


class MoveStep(Step, frozen=True, tag="move"):
    """A file or directory gets another name; with `size` or `mtime` only one that is so."""

    target: RelPath
    replace: bool = False
    size: Count | None = None
    mtime: Time | None = None


class RemoveStep(Step, frozen=True, tag="remove"):
    """A file, a link or an empty directory goes; with `size` or `mtime` only one that is so."""

    size: Count | None = None
    mtime: Time | None = None


class SetStep(Step, frozen=True, tag="set"):
    """A file or directory, never what a link leads to, gets time and mode; with old ones one that is so."""

    mtime: Time | None = None
    mode: Mode | None = None
    old_size: Count | None = None
    old_mtime: Time | None = None


STEPS: tuple[type[Step], ...] = (MakeStep, LinkStep, MoveStep, RemoveStep, SetStep)
AnyStep = MakeStep | LinkStep | MoveStep | RemoveStep | SetStep


class Change(Open, frozen=True, tag="change"):
    """Many small changes, in this order; one that fails does not keep the next from being made."""

    steps: Annotated[list[AnyStep], Meta(min_length=1, max_length=MAX_BATCH)]
