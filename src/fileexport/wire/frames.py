"""Frames: bytes in, frames and pieces of DATA out; and the way back.

A connection is the preface and then frames: a header of 12 bytes and a payload (docs/protocol.md). Nothing
here waits, reads or writes: `FrameReader` is fed what arrived, in any fragmentation.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from typing import NamedTuple

from fileexport.errors import CorruptedResponse

#: Sent first by both sides. The first byte is no text, and the line ends show a path that changes them.
PREFACE = b"\x89FX1\r\n\x1a\n"
#: The name in TLS's negotiation of protocols (RFC 7301).
ALPN = b"fileexport/1"

#: length, type, flags, zero, stream
_HEADER = struct.Struct(">IBBHI")
HEADER_SIZE = _HEADER.size
MAX_STREAM = 2**32 - 1
#: Frame types from here on may be skipped by those who do not know them.
FIRST_OPTIONAL = 0x80
#: Frames that are skipped, in a row: nobody sends more of what the other side does not know.
MAX_SKIPPED = 16
#: The flag of DATA: the content of this frame is a zstd frame of its own (RFC 8878).
COMPRESSED = 0x01


class FrameType(enum.IntEnum):
    """The types of frames. Their numbers are promises: never reuse one."""

    HELLO = 0x01
    AUTH = 0x02
    CHALLENGE = 0x03
    PROOF = 0x04
    WELCOME = 0x05
    REFUSED = 0x06
    PING = 0x08
    PONG = 0x09
    GOAWAY = 0x0A
    CREDIT = 0x0B
    OPEN = 0x10
    REPLY = 0x11
    DATA = 0x12
    FILES = 0x13
    END = 0x14
    RESET = 0x15
    COPY = 0x16


class Place(enum.Enum):
    """The streams on which a type of frame may stand."""

    CONNECTION = "stream 0"
    STREAM = "a stream other than 0"
    EITHER = "any stream"

    def admits(self, stream: int) -> bool:
        """Whether a frame of this place may carry the number `stream`."""
        return self is Place.EITHER or (stream == 0) == (self is Place.CONNECTION)


class Rule(NamedTuple):
    """What holds for one type of frame."""

    place: Place
    flags: int = 0


RULES: dict[FrameType, Rule] = {
    **{kind: Rule(Place.CONNECTION) for kind in FrameType if kind < FrameType.CREDIT},
    FrameType.CREDIT: Rule(Place.EITHER),
    **{kind: Rule(Place.STREAM) for kind in FrameType if kind >= FrameType.OPEN},
    FrameType.DATA: Rule(Place.STREAM, COMPRESSED),
}


class Limits(NamedTuple):
    """The longest payload, in bytes: of DATA, and of any other frame."""

    control: int
    data: int

    def of(self, kind: int) -> int:
        """The longest payload of a frame of this type."""
        return self.data if kind == FrameType.DATA else self.control


#: What a stranger may make us keep. There is no DATA before authentication.
BEFORE_AUTHENTICATION = Limits(control=1 << 10, data=0)
#: The most that anybody may ever announce: a batch of 1,024 entries; sixteen TLS writes of 64 KiB.
LARGEST = Limits(control=256 << 10, data=1 << 20)


class Frame(NamedTuple):
    """A whole frame of any type but DATA. The payload may be a view of what was fed."""

    type: FrameType
    stream: int
    payload: memoryview


class Data(NamedTuple):
    """A part of a DATA frame of `size` bytes, of which `left` are still to come. `piece` is never empty."""

    stream: int
    size: int
    left: int
    compressed: bool
    piece: memoryview

    @property
    def first(self) -> bool:
        """Whether the frame begins with this piece."""
        return len(self.piece) + self.left == self.size


class _Head(NamedTuple):
    size: int
    #: None where the type is unknown and the frame is to be skipped.
    type: FrameType | None
    flags: int
    stream: int


def header(kind: FrameType, stream: int, size: int, *, flags: int = 0, limits: Limits = LARGEST) -> bytes:
    """The header of a frame whose payload of `size` bytes is sent after it.

    `limits` are those that the receiver announced. Raises `ValueError` where a receiver would refuse it.
    """
    rule = RULES[kind]
    if flags & ~rule.flags:
        raise ValueError(f"{kind.name} has no flags {flags:#04x}")
    if not (0 <= stream <= MAX_STREAM and rule.place.admits(stream)):
        raise ValueError(f"{kind.name} stands on {rule.place.value}, not on {stream}")
    if size > limits.of(kind) or (kind is FrameType.DATA and not size):
        raise ValueError(f"{kind.name} with {size} bytes: the limit is {limits.of(kind)}")
    return _HEADER.pack(size, kind, flags, 0, stream)


def frame(
    kind: FrameType,
    stream: int,
    payload: bytes | memoryview,
    *,
    flags: int = 0,
    limits: Limits = LARGEST,
) -> bytes:
    """A whole frame as bytes. Raises `ValueError` as `header` does."""
    return b"".join((header(kind, stream, len(payload), flags=flags, limits=limits), payload))


class FrameReader:
    """Reads the preface and then frames from bytes in any fragmentation.

    `feed` it what arrived, then call `next_event` until that is None. Buffers that were fed must not change
    until then; views in events are of these buffers. It keeps at most one frame that is not DATA, as far as
    it has arrived; DATA and frames to be skipped pass through.

    `limits` may be set between two events: the next header is judged by them.

    After `CorruptedResponse` the reader stays in that error: each further call raises it again.
    """

    def __init__(self, limits: Limits = BEFORE_AUTHENTICATION) -> None:
        self.limits = limits
        self._fed: deque[memoryview] = deque()
        self._kept = bytearray()
        self._preface_left = PREFACE
        self._head: _Head | None = None
        self._left = 0
        self._skipped = 0
        self._error: str | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes that arrived; copies nothing. Raises `CorruptedResponse` after an earlier one."""
        self._check_usable()
        if len(data):
            self._fed.append(memoryview(data).cast("B"))

    def next_event(self) -> Frame | Data | None:
        """The next frame or piece of DATA, or None until more was fed.

        Raises `CorruptedResponse` where the other side broke the framing: the connection cannot go on.
        """
        self._check_usable()
        try:
            return self._next()
        except CorruptedResponse as error:
            self._error = str(error)
            self._fed.clear()
            self._kept = bytearray()
            raise

    def _check_usable(self) -> None:
        if self._error is not None:
            raise CorruptedResponse(self._error)

    def _next(self) -> Frame | Data | None:
        if not self._read_preface():
            return None
        while (head := self._head or self._read_header()) is not None:
            if head.type is not None:
                self._skipped = 0
            if head.type is FrameType.DATA:
                return self._read_piece(head)
            if head.type is not None:
                return self._read_frame(head.type, head.stream)
            if not self._skip():
                break
        return None

    def _read_preface(self) -> bool:
        while self._preface_left and self._fed:
            got = self._take(len(self._preface_left))
            if got != self._preface_left[: len(got)]:
                raise CorruptedResponse("the other side does not speak the transfer protocol")
            self._preface_left = self._preface_left[len(got) :]
        return not self._preface_left

    def _read_header(self) -> _Head | None:
        found = self._whole(HEADER_SIZE)
        if found is None:
            return None
        self._head = head = _checked(found, self.limits)
        self._left = head.size
        return head

    def _read_frame(self, kind: FrameType, stream: int) -> Frame | None:
        payload = self._whole(self._left)
        if payload is None:
            return None
        self._head = None
        return Frame(kind, stream, payload)

    def _read_piece(self, head: _Head) -> Data | None:
        if not self._fed:
            return None
        piece = self._take(self._left)
        self._left -= len(piece)
        if not self._left:
            self._head = None
        return Data(head.stream, head.size, self._left, bool(head.flags & COMPRESSED), piece)

    def _skip(self) -> bool:
        while self._left and self._fed:
            self._left -= len(self._take(self._left))
        if self._left:
            return False
        self._head = None
        self._skipped += 1
        if self._skipped > MAX_SKIPPED:
            raise CorruptedResponse(f"more than {MAX_SKIPPED} frames in a row that nobody knows")
        return True

    def _take(self, most: int) -> memoryview:
        """Between 1 and `most` bytes, without a copy; something must have been fed."""
        chunk = self._fed.popleft()
        if len(chunk) > most:
            self._fed.appendleft(chunk[most:])
        return chunk[:most]

    def _whole(self, size: int) -> memoryview | None:
        """Exactly `size` bytes, or None until they are there. What came in parts is kept as it comes."""
        if not self._kept and self._fed and len(self._fed[0]) >= size > 0:
            return self._take(size)
        while self._fed and len(self._kept) < size:
            self._kept += self._take(size - len(self._kept))
        if len(self._kept) < size:
            return None
        whole, self._kept = self._kept, bytearray()
        return memoryview(whole)


def _checked(found: memoryview, limits: Limits) -> _Head:
    """Judge a header before anything of its payload is kept."""
    size, number, flags, zero, stream = _HEADER.unpack(found)
    if zero:
        raise CorruptedResponse("a frame's reserved bytes are not zero")
    if size > limits.of(number):
        raise CorruptedResponse(f"a frame of type {number:#04x} has {size} bytes, over {limits.of(number)}")
    if number >= FIRST_OPTIONAL:
        return _Head(size, None, flags, stream)
    try:
        kind = FrameType(number)
    except ValueError:
        raise CorruptedResponse(f"there is no frame of type {number:#04x}") from None
    rule = RULES[kind]
    if flags & ~rule.flags:
        raise CorruptedResponse(f"{kind.name} has no flags {flags:#04x}")
    if not rule.place.admits(stream):
        raise CorruptedResponse(f"{kind.name} stands on {rule.place.value}, not on {stream}")
    if kind is FrameType.DATA and not size:
        raise CorruptedResponse("DATA without content")
    return _Head(size, kind, flags, stream)
