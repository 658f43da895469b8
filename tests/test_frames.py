"""Frames: any fragmentation, any truncation, anything that a stranger may send."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterable
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import CorruptedResponse
from fileexport.wire.frames import (
    BEFORE_AUTHENTICATION,
    COMPRESSED,
    HEADER_SIZE,
    LARGEST,
    MAX_SKIPPED,
    MAX_STREAM,
    PREFACE,
    RULES,
    Data,
    Frame,
    FrameReader,
    FrameType,
    Limits,
    Place,
    frame,
    header,
)
from tests.vectors import compare

quick = settings(max_examples=300, deadline=None, database=None)


class Seen(NamedTuple):
    """A frame as it was read, DATA put together again."""

    type: str
    stream: int
    payload: bytes
    compressed: bool = False


def raw(size: int, kind: int, flags: int = 0, zero: int = 0, stream: int = 0) -> bytes:
    """A header of any numbers."""
    return struct.pack(">IBBHI", size, kind, flags, zero, stream)


def seen(reader: FrameReader, chunks: Iterable[bytes]) -> list[Seen]:
    """What the reader makes of the chunks."""
    found: list[Seen] = []
    content = b""
    for chunk in chunks:
        reader.feed(chunk)
        while (event := reader.next_event()) is not None:
            if isinstance(event, Frame):
                found.append(Seen(event.type.name, event.stream, bytes(event.payload)))
                continue
            assert event.piece and event.first == (not content)
            content += event.piece
            if not event.left:
                assert len(content) == event.size
                found.append(Seen("DATA", event.stream, content, event.compressed))
                content = b""
    return found


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The bytes in parts, cut at these places."""
    edges = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]


@st.composite
def some_frames(draw: st.DrawFn) -> Seen:
    """A frame that may be sent."""
    kind = draw(st.sampled_from(FrameType))
    place = RULES[kind].place
    least = 1 if place is Place.STREAM else 0
    stream = draw(st.integers(least, 0 if place is Place.CONNECTION else MAX_STREAM))
    payload = draw(st.binary(min_size=kind is FrameType.DATA, max_size=40))
    return Seen(kind.name, stream, payload, kind is FrameType.DATA and draw(st.booleans()))


def sent(one: Seen) -> bytes:
    """The frame as bytes."""
    flags = COMPRESSED if one.compressed else 0
    return frame(FrameType[one.type], one.stream, one.payload, flags=flags)


class FragmentTests(SynchronousTestCase):
    """The same frames, however they arrive."""

    def test_skipped_without_end(self) -> None:
        """Frames that nobody knows are skipped, but not without end."""
        unknown = raw(0, 0x80)
        reader = FrameReader(LARGEST)
        reader.feed(PREFACE + (unknown * MAX_SKIPPED + raw(0, FrameType.PING)) * 3)
        for _ in range(3):
            self.assertIsInstance(reader.next_event(), Frame)
        self.assertIsNone(reader.next_event())
        reader.feed(unknown * (MAX_SKIPPED + 1))
        self.assertRaisesRegex(CorruptedResponse, "in a row", reader.next_event)

    @quick
    @given(st.lists(some_frames(), max_size=6), st.lists(st.integers(0, 400)), st.binary(max_size=20))
    def test_any_fragmentation(self, frames: list[Seen], places: list[int], skipped: bytes) -> None:
        """Any fragmentation gives the same frames, and optional frames between them leave no trace."""
        optional = raw(len(skipped), 0x80, 0xFF, 0, 7) + skipped
        whole = PREFACE + b"".join(sent(one) + optional for one in frames)
        reader = FrameReader(LARGEST)
        self.assertEqual(seen(reader, cut(whole, places)), frames)

    @quick
    @given(st.lists(some_frames(), max_size=4))
    def test_byte_by_byte(self, frames: list[Seen]) -> None:
        """One byte at a time gives the same frames."""
        whole = PREFACE + b"".join(map(sent, frames))
        self.assertEqual(seen(FrameReader(LARGEST), cut(whole, range(len(whole)))), frames)

    @quick
    @given(st.lists(some_frames(), min_size=1, max_size=4), st.data())
    def test_any_truncation(self, frames: list[Seen], data: st.DataObject) -> None:
        """A cut anywhere gives exactly the frames that end before it."""
        ends = [len(PREFACE)]
        for one in frames:
            ends.append(ends[-1] + len(sent(one)))
        place = data.draw(st.integers(0, ends[-1]))
        reader = FrameReader(LARGEST)
        whole = PREFACE + b"".join(map(sent, frames))
        complete = sum(end <= place for end in ends[1:])
        self.assertEqual(seen(reader, [whole[:place]]), frames[:complete])

    def test_views(self) -> None:
        """DATA and payloads that arrive in one part are views of it, not copies."""
        whole = PREFACE + frame(FrameType.DATA, 1, b"abc") + frame(FrameType.PING, 0, b"de")
        reader = FrameReader(LARGEST)
        reader.feed(whole)
        data, ping = reader.next_event(), reader.next_event()
        assert isinstance(data, Data) and isinstance(ping, Frame)
        self.assertEqual((data.piece, ping.payload), (b"abc", b"de"))
        self.assertIs(data.piece.obj, whole)
        self.assertIs(ping.payload.obj, whole)

    def test_fed_while_events_wait(self) -> None:
        """What is fed before all events were taken is read after them."""
        reader = FrameReader(LARGEST)
        for one in (PREFACE, frame(FrameType.PING, 0, b"a"), frame(FrameType.PING, 0, b"b")):
            reader.feed(one)
        self.assertEqual([one.payload for one in seen(reader, [b""])], [b"a", b"b"])


class HostileTests(SynchronousTestCase):
    """What strangers send."""

    @quick
    @given(st.binary(max_size=200), st.booleans(), st.lists(st.integers(0, 200), max_size=5))
    def test_random_bytes(self, noise: bytes, polite: bool, places: list[int]) -> None:
        """Random bytes give frames or `CorruptedResponse`, the same one however they arrive."""
        ends = []
        for chunks in ([PREFACE * polite + noise], cut(PREFACE * polite + noise, places)):
            try:
                ends.append(str(seen(FrameReader(LARGEST), chunks)))
            except CorruptedResponse as error:
                ends.append(str(error))
        self.assertEqual(ends[0], ends[1])

    @quick
    @given(
        st.integers(0, 2**21),
        st.one_of(st.sampled_from(FrameType), st.integers(0, 255)),
        st.sampled_from((0, 1, 2, 255)),
        st.sampled_from((0, 0, 0, 1)),
        st.sampled_from((0, 1, MAX_STREAM)),
        st.sampled_from((BEFORE_AUTHENTICATION, LARGEST, Limits(4096, 512))),
    )
    def test_headers(self, size: int, kind: int, flags: int, zero: int, stream: int, limits: Limits) -> None:
        """A header is refused exactly where no sender of ours could have made it."""
        reader = FrameReader(limits)
        try:
            reader.feed(PREFACE + raw(size, kind, flags, zero, stream))
            reader.next_event()
        except CorruptedResponse:
            taken = False
        else:
            taken = True
        try:
            if kind < 0x80:
                header(FrameType(kind), stream, size, flags=flags, limits=limits)
            makeable = not zero and (kind < 0x80 or size <= limits.control)
        except ValueError:
            makeable = False
        self.assertEqual(taken, makeable)

    def test_length_is_checked_first(self) -> None:
        """A length is refused with the header that announces it, and no memory is taken for it."""
        for kind in (*FrameType, 0x80, 0xFF):
            for limits in (BEFORE_AUTHENTICATION, LARGEST):
                for size in (limits.of(kind) + 1, 2**32 - 1):
                    reader = FrameReader(limits)
                    tracemalloc.start()
                    try:
                        reader.feed(PREFACE + raw(size, kind, stream=int(kind >= 0x0B)))
                        self.assertRaisesRegex(CorruptedResponse, f"has {size} bytes", reader.next_event)
                        self.assertLess(tracemalloc.get_traced_memory()[1], 16 << 10)
                    finally:
                        tracemalloc.stop()

    def test_kept_as_it_comes(self) -> None:
        """A promised payload takes memory only as far as it has arrived."""
        reader = FrameReader(LARGEST)
        tracemalloc.start()
        try:
            reader.feed(PREFACE + raw(LARGEST.control, FrameType.OPEN, stream=1) + b"x")
            self.assertIsNone(reader.next_event())
            self.assertLess(tracemalloc.get_traced_memory()[1], 16 << 10)
        finally:
            tracemalloc.stop()

    def test_no_data_before_authentication(self) -> None:
        """A stranger cannot send DATA at all."""
        reader = FrameReader()
        reader.feed(PREFACE + frame(FrameType.DATA, 1, b"x"))
        self.assertRaises(CorruptedResponse, reader.next_event)

    def test_other_protocols(self) -> None:
        """HTTP, TLS, text and a preface whose line ends were changed fail at the first wrong byte."""
        for other in (b"G", b"\x16", b"SSH-2.0", PREFACE[:4] + b"\n", b"\x89PNG\r\n\x1a\n"):
            reader = FrameReader()
            reader.feed(other)
            self.assertRaisesRegex(CorruptedResponse, "does not speak", reader.next_event)

    def test_error_is_final(self) -> None:
        """After an error each further call raises the same one, and no byte is read."""
        reader = FrameReader()
        reader.feed(b"GET / HTTP/1.1\r\n")
        errors = [self.assertRaises(CorruptedResponse, reader.next_event) for _ in range(2)]
        errors.append(self.assertRaises(CorruptedResponse, reader.feed, PREFACE))
        self.assertEqual(len({str(error) for error in errors}), 1)


class LimitTests(SynchronousTestCase):
    """Limits that change."""

    def test_between_two_frames(self) -> None:
        """New limits hold for the next frame, also where it was fed with the one before."""
        reader = FrameReader()
        reader.feed(PREFACE + frame(FrameType.PROOF, 0, b"") + frame(FrameType.DATA, 1, b"x" * 2000))
        self.assertIsInstance(reader.next_event(), Frame)
        reader.limits = LARGEST
        self.assertIsInstance(reader.next_event(), Data)

    def test_receiver_decides(self) -> None:
        """What the receiver does not take cannot be made."""
        self.assertEqual(len(header(FrameType.DATA, 1, 512, limits=Limits(1024, 512))), HEADER_SIZE)
        with self.assertRaises(ValueError):
            header(FrameType.DATA, 1, 513, limits=Limits(1024, 512))


class VectorTests(SynchronousTestCase):
    """tests/vectors/frames.json."""

    def test_frames(self) -> None:
        """The committed vectors are what the code reads, under the limits after authentication."""
        whole = frame(FrameType.PING, 0, b"\x80")
        cases = {
            "the preface alone": PREFACE,
            "PING with an empty map": PREFACE + whole,
            "DATA": PREFACE + frame(FrameType.DATA, 1, b"hello"),
            "DATA, compressed": PREFACE + frame(FrameType.DATA, MAX_STREAM, b"\x28\xb5", flags=COMPRESSED),
            "an optional frame is skipped": PREFACE + raw(3, 0x80, 0xFF, 0, 9) + b"abc" + whole,
            "every type": PREFACE
            + b"".join(frame(kind, RULES[kind].place is Place.STREAM, b"x") for kind in FrameType),
            "HTTP": b"GET / HTTP/1.1\r\n",
            "changed line ends": b"\x89FX1\n\x1a\n",
            "reserved bytes": PREFACE + raw(1, FrameType.PING, zero=1) + b"x",
            "type 0": PREFACE + raw(0, 0),
            "an unknown critical type": PREFACE + raw(0, 0x7F, stream=1),
            "an unknown flag": PREFACE + raw(1, FrameType.PING, flags=1) + b"x",
            "PING on a stream": PREFACE + raw(1, FrameType.PING, stream=1) + b"x",
            "OPEN on stream 0": PREFACE + raw(1, FrameType.OPEN) + b"x",
            "DATA without content": PREFACE + raw(0, FrameType.DATA, stream=1),
            "a control frame too long": PREFACE + raw(LARGEST.control + 1, FrameType.OPEN, stream=1),
            "DATA too long": PREFACE + raw(LARGEST.data + 1, FrameType.DATA, stream=1),
            "an optional frame too long": PREFACE + raw(LARGEST.control + 1, 0x80),
        }
        compare(self, "frames.json", [self.row(name, data) for name, data in cases.items()])

    def row(self, name: str, data: bytes) -> dict[str, Any]:
        """One vector."""
        try:
            frames = [
                {**one._asdict(), "payload": one.payload.hex()} for one in seen(FrameReader(LARGEST), [data])
            ]
        except CorruptedResponse:
            return {"name": name, "hex": data.hex(), "error": "CorruptedResponse"}
        return {"name": name, "hex": data.hex(), "frames": frames}
