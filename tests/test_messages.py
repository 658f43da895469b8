"""Messages: each round trip, each bound, and whatever else a stranger may put into a payload."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import BadRequestError, CorruptedResponse
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.frames import LARGEST, PREFACE, RULES, Frame, FrameReader, FrameType, Limits, Place
from tests.vectors import compare, plain

quick = settings(max_examples=300, deadline=None, database=None)
ALL: tuple[type[m.Message], ...] = (*m.PLAIN, *m.OPERATIONS, *m.REPLIES)
A, B = RelPath(["a"]), RelPath(["dir", "\udcff b"])
DIGEST, ID, WHEN = bytes(range(32)), bytes(range(8)), 1_795_000_000_123_456_789
OFFER = m.Offer(control=1 << 18, data=1 << 20, streams=256, stream_credit=1 << 20, connection_credit=1 << 24)
FOLDER = m.folder_of(
    B, [("a", "f", 5, WHEN, 0o644, ""), ("l", "l", 0, -1, 0, "../a"), ("\udcff", "d", 0, 0, 0o755, "")]
)
JOB = m.JobRow(id="j1", state="running", path=A, target=RelPath(["a.tgz"]), created=WHEN, bytes_done=5)
STEPS: list[m.AnyStep] = [
    *(m.MakeStep(A), m.LinkStep(A, b"../b"), m.LinkStep(B, b"\xff", replace=True)),
    *(m.MoveStep(A, B), m.MoveStep(A, B, replace=True), m.RemoveStep(A)),
    *(m.SetStep(A, WHEN, 0o755), m.SetStep(A, mode=0), m.SetStep(B, mtime=-1)),
    *(m.MakeStep(A, 0o700), m.MoveStep(A, B, size=5, mtime=WHEN), m.RemoveStep(A, size=0, mtime=-1)),
    m.SetStep(A, WHEN, old_size=5, old_mtime=1),
]
#: One message of each kind at least.
SAMPLES: dict[str, m.Message] = {
    "hello": m.Hello(version=m.VERSION, limits=OFFER, features=["zstd", "unknown"]),
    "auth": m.Auth(id=ID, nonce=DIGEST, binding="tls-server-end-point"),
    "challenge": m.Challenge(nonce=DIGEST),
    "proof": m.Proof(proof=DIGEST),
    "welcome": m.Welcome(proof=DIGEST, rights=["read", "write"]),
    "refused": m.Refused(tries_left=2, message="the token is missing or wrong"),
    "ping": m.Ping(data=b"\x01"),
    "pong": m.Pong(),
    "goaway, graceful": m.GoAway(last_stream=7),
    "goaway, an error": m.GoAway(last_stream=0, code=13, message="a frame's reserved bytes are not zero"),
    "credit": m.MoreCredit(bytes=65536),
    "files": m.Files(files=[m.SmallFile(B, -1, DIGEST, b"hello"), m.SmallFile(A, WHEN, DIGEST, b"", 0o755)]),
    "copy": m.Copy(ranges=[m.CopyRange(0, 2**32, 2**20), m.CopyRange(15, 0, 1)]),
    "end": m.End(),
    "end of content": m.End(size=5, digest=DIGEST),
    "reset, cancelled": m.Reset(),
    "reset, busy": m.Reset(code=11, message="someone writes it", holder="ada", since=WHEN),
    "list": m.List(RelPath(), recursive=True),
    "stat": m.Stat(B),
    "make_file": m.MakeFile(A, exist_ok=True),
    "make_directory": m.MakeDirectory(A),
    "read": m.Read(A),
    "read, a part": m.Read(A, offset=2**40, length=10, version=b"v1"),
    "read, some parts": m.Read(A, version=b"v1", ranges=[m.Span(2**40, 10), m.Span(0, 1)]),
    "read_files": m.ReadFiles(paths=[A, B]),
    "write": m.Write(A, size=5, mtime=WHEN, replace=True, source=b"s1"),
    "write, with bases": m.Write(A, 5, WHEN, mode=0o644, bases=[m.Base(A, b"v1"), m.Base(B)]),
    "write_files": m.WriteFiles(RelPath(), replace=True),
    "remove": m.Remove(A, recursive=True),
    "rename": m.Rename(A, target=B),
    "hash": m.Hash(A),
    "compress": m.Compress(A, format="zip"),
    "jobs": m.ListJobs(limit=10),
    "job": m.GetJob(id="j1", wait=60),
    "cancel": m.CancelJob(id="j1"),
    "manifest": m.Manifest(B),
    "chunks": m.GetChunks(A, average=32768, fresh=True),
    "finer chunks of parts": m.GetChunks(A, average=4096, ranges=[m.Span(2**40, 70_000), m.Span(0, 1)]),
    "hash_files": m.HashFiles(paths=[A, B], fresh=True),
    "change": m.Change(steps=STEPS),
    "entries": m.Entries(entries=[m.Entry(B, "file", 2**60, WHEN), m.Entry(A, "directory", 0, 0)]),
    "content": m.Content(size=5, mtime=WHEN, version=b"v1", offset=2, mode=0o600),
    "ready": m.Ready(offset=4096),
    "outcome": m.Outcome(committed=[m.Range(0, 3), m.Range(4, 1)], failed=[m.Failure(3, 7, "denied")]),
    "hashes": m.Hashes(hashes=[m.FileHash(A, 5, DIGEST)]),
    "removed": m.Removed(count=3),
    "a batch of jobs": m.Jobs(jobs=[JOB]),
    "a manifest": m.ManifestPart(
        [FOLDER, m.Folder(A, code=7, message="denied", omitted=2)], m.Top(WHEN, 0o755)
    ),
    "a batch of chunks": m.Chunks(version=b"v1", chunks=[m.ChunkRow(2**17, DIGEST), m.ChunkRow(1, DIGEST)]),
}


def stream_of(message: m.Message) -> int:
    """A stream on which the message may stand."""
    return int(RULES[message.frame].place is Place.STREAM)


def frame_of(data: bytes) -> Frame:
    """The one frame in the bytes."""
    reader = FrameReader(LARGEST)
    reader.feed(PREFACE + data)
    found = reader.next_event()
    assert isinstance(found, Frame)
    return found


def decode(kind: FrameType, payload: bytes) -> m.Message:
    """What the payload says in a frame of this type."""
    return m.decode(Frame(kind, 0, memoryview(payload)))


def payload_of(message: m.Message) -> bytes:
    """The payload that says the message."""
    return bytes(frame_of(m.encode(message, stream_of(message))).payload)


def fields_of(kind: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    """The fields of a struct with their types."""
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    return found.fields


NAMES = st.binary(min_size=1, max_size=9).filter(lambda name: not set(name) & {0, 47} and name.strip(b"."))
PATHS = st.lists(NAMES, max_size=3).map(
    lambda names: RelPath(name.decode("utf-8", "surrogateescape") for name in names)
)


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a field."""
    match kind:
        case inspect.IntType(ge=least, le=most):
            return st.integers(least, most)
        case inspect.BytesType(min_length=least, max_length=most):
            return st.binary(min_size=least or 0, max_size=min(most or 0, 99))
        case inspect.StrType(min_length=least, max_length=most):
            return st.text(st.characters(codec="utf-8"), min_size=least or 0, max_size=min(most or 0, 9))
        case inspect.ListType(item_type=item, min_length=least):
            return st.lists(values(item), min_size=least or 0, max_size=2)
        case inspect.UnionType(types=types):
            return st.one_of(*map(values, types))
        case inspect.StructType(cls=cls):
            return structs(cls)
        case inspect.LiteralType(values=words):
            return st.sampled_from(words)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.CustomType(cls=cls) if cls is RelPath:
            return PATHS
    raise AssertionError(f"a field without a bound or of a new type: {kind}")


def structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Messages of this kind, and their parts."""
    return st.builds(kind, **{field.name: values(field.type) for field in fields_of(kind)})


def too_much(kind: inspect.Type) -> Iterator[Any]:
    """Values just past each bound of a field."""
    match kind:
        case inspect.IntType(ge=int(least), le=int(most)):
            yield from (least - 1, most + 1)
        case inspect.BytesType(min_length=least, max_length=int(most)):
            yield from (b"x" * (most + 1), *([b"x" * (least - 1)] if least else []))
        case inspect.StrType(min_length=least, max_length=int(most)):
            yield from ("x" * (most + 1), *([""] if least else []))
        case inspect.ListType(min_length=least, max_length=int(most)):
            yield from ([None] * (most + 1), *([[]] if least else []))
        case inspect.UnionType(types=types):
            for one in types:
                yield from too_much(one)
        case inspect.LiteralType():
            yield "something else"
        case inspect.CustomType():
            yield from (b"a/" * 2048 + b"a", b"a/" * 64 + b"a", b"a" * 256)
        case inspect.StructType() | inspect.BoolType() | inspect.NoneType():
            pass
        case _:
            raise AssertionError(f"a field without a bound: {kind}")


def past_bounds(kind: inspect.Type, whole: Any) -> Iterator[Any]:
    """A part of a message, with one of its own fields just past a bound."""
    if isinstance(kind, inspect.ListType):
        kind = kind.item_type
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    for struct in kinds:
        if not isinstance(struct, inspect.StructType) or whole is None:
            continue
        tag = struct.cls.__struct_config__.tag
        if tag is not None and whole[0] != tag:
            continue
        for index, field in enumerate(fields_of(struct.cls), start=int(tag is not None)):
            for value in too_much(field.type):
                changed = whole.copy()
                changed[index if isinstance(whole, list) else field.name] = value
                yield changed


class RoundTripTests(SynchronousTestCase):
    """What is encoded comes back."""

    @quick
    @given(st.one_of(*map(structs, ALL)))
    def test_every_message(self, message: m.Message) -> None:
        """Every message of every kind comes back as it was."""
        self.assertEqual(m.decode(frame_of(m.encode(message, stream_of(message)))), message)

    def test_every_kind_has_a_sample(self) -> None:
        """No kind of message lacks a vector, and each type of frame but DATA has a message."""
        self.assertEqual({type(message) for message in SAMPLES.values()}, set(ALL))
        self.assertEqual({kind.frame for kind in ALL}, set(FrameType) - {FrameType.DATA})

    def test_vectors(self) -> None:
        """tests/vectors/messages.json: each message as a frame, and its payload as JSON."""
        rows = []
        for name, message in SAMPLES.items():
            data = m.encode(message, stream_of(message))
            value = plain(msgspec.msgpack.decode(frame_of(data).payload))
            rows.append({"name": name, "type": message.frame.name, "value": value, "hex": data.hex()})
            self.assertEqual(m.decode(frame_of(data)), message)
        compare(self, "messages.json", rows)


class BoundTests(SynchronousTestCase):
    """Lengths and counts."""

    def test_every_bound(self) -> None:
        """Each field of each message has bounds, and a value just past one is refused."""
        for message in SAMPLES.values():
            good = msgspec.msgpack.decode(payload_of(message))
            for field in fields_of(type(message)):
                for value in too_much(field.type):
                    bad = msgspec.msgpack.encode({**good, field.encode_name: value})
                    with self.assertRaises(
                        (BadRequestError, CorruptedResponse), msg=f"{message} {field.name}"
                    ):
                        decode(message.frame, bad)

    def test_every_bound_of_rows(self) -> None:
        """The same for the rows of a batch, for steps and for the limits in HELLO."""
        for message in SAMPLES.values():
            good = msgspec.msgpack.decode(payload_of(message))
            for field in fields_of(type(message)):
                many = isinstance(field.type, inspect.ListType)
                for whole in good.get(field.name, ()) if many else [good.get(field.name)]:
                    for changed in past_bounds(field.type, whole):
                        bad = {**good, field.name: [changed] if many else changed}
                        with self.assertRaises(
                            (BadRequestError, CorruptedResponse), msg=f"{message} {changed}"
                        ):
                            decode(message.frame, msgspec.msgpack.encode(bad))

    def test_no_memory_for_claims(self) -> None:
        """A length or count that a payload only claims takes no memory."""
        heads = [bytes([head]) + b"\x7f\xff\xff\xff" for head in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)]
        for message in SAMPLES.values():
            names = [*(field.encode_name for field in fields_of(type(message))), "unknown"]
            tag = type(message).__struct_config__
            start = msgspec.msgpack.encode({tag.tag_field: tag.tag})[1:] if tag.tag_field else b""
            for name in names:
                for head in heads:
                    payload = bytes([0x81 + bool(start)]) + start + msgspec.msgpack.encode(name) + head
                    tracemalloc.start()
                    try:
                        with self.assertRaises((BadRequestError, CorruptedResponse)):
                            decode(message.frame, payload)
                        self.assertLess(tracemalloc.get_traced_memory()[1], 32 << 10)
                    finally:
                        tracemalloc.stop()

    def test_errors_keep_nothing(self) -> None:
        """What was read of a payload of the wrong shape is gone when its error is raised."""
        payload = msgspec.msgpack.encode({"op": "stat", "path": [[]] * 200_000})
        tracemalloc.start()
        try:
            error = self.assertRaises(BadRequestError, decode, FrameType.OPEN, payload)
            self.assertLess(tracemalloc.get_traced_memory()[0], 32 << 10, error)
        finally:
            tracemalloc.stop()

    def test_encoding_too_much(self) -> None:
        """A message that its receiver would not take, or on a wrong stream, cannot be encoded."""
        files = m.Files(files=[m.SmallFile(A, 0, DIGEST, bytes(m.MAX_INLINE))] * 4)
        self.assertRaises(ValueError, m.encode, files, 1)
        self.assertRaises(ValueError, m.encode, SAMPLES["hello"], 0, Limits(16, 0))
        self.assertRaises(ValueError, m.encode, SAMPLES["hello"], 1)
        self.assertRaises(ValueError, m.encode, SAMPLES["list"], 0)

    def test_greeting_is_short(self) -> None:
        """What is sent before authentication fits into what a stranger may send, all features named."""
        features = ["f" * m.MAX_FEATURE] * m.MAX_FEATURES
        longest: list[m.Message] = [SAMPLES["auth"], SAMPLES["proof"]]
        longest.append(m.Hello(version=65535, limits=OFFER, features=features))
        for message in longest:
            self.assertLess(len(payload_of(message)), 1 << 10)


class TolerantTests(SynchronousTestCase):
    """What later versions may add."""

    def test_unknown_keys(self) -> None:
        """Unknown keys of any value are ignored."""
        for message in SAMPLES.values():
            value = {"x-new": [1, {"deep": b"x"}], **msgspec.msgpack.decode(payload_of(message))}
            self.assertEqual(decode(message.frame, msgspec.msgpack.encode(value)), message)

    def test_longer_rows(self) -> None:
        """Unknown elements at the end of a row are ignored; those left out have their defaults."""
        message = SAMPLES["entries"]
        value = msgspec.msgpack.decode(payload_of(message))
        for row in value["entries"]:
            row.append({"new": 1})
        self.assertEqual(decode(FrameType.REPLY, msgspec.msgpack.encode(value)), message)
        steps = [["make", b"a", None, {"new": 1}], ["set", b"a"]]
        change = msgspec.msgpack.encode({"op": "change", "steps": steps})
        self.assertEqual(decode(FrameType.OPEN, change), m.Change([m.MakeStep(A), m.SetStep(A)]))
        files = msgspec.msgpack.encode({"files": [[b"a", 0, DIGEST, b""]]})
        self.assertEqual(decode(FrameType.FILES, files), m.Files([m.SmallFile(A, 0, DIGEST, b"")]))


class HostileTests(SynchronousTestCase):
    """Only typed errors."""

    @quick
    @given(st.sampled_from(sorted(SAMPLES)), st.data())
    def test_truncated(self, name: str, data: st.DataObject) -> None:
        """A payload that is cut anywhere, or goes on after its end, breaks the connection."""
        message = SAMPLES[name]
        payload = payload_of(message)
        place = data.draw(st.integers(0, len(payload) - 1))
        for bad in (payload[:place], payload + b"\xc0"):
            self.assertRaises(CorruptedResponse, decode, message.frame, bad)

    @quick
    @given(st.sampled_from(sorted(set(FrameType) - {FrameType.DATA})), st.binary(max_size=60))
    def test_random_bytes(self, kind: FrameType, noise: bytes) -> None:
        """Random bytes give a message or a typed error."""
        self.check(kind, noise)

    @quick
    @given(st.sampled_from(sorted(SAMPLES)), st.data())
    def test_changed_bytes(self, name: str, data: st.DataObject) -> None:
        """A payload with some bytes changed gives a message or a typed error."""
        payload = bytearray(payload_of(SAMPLES[name]))
        for _ in range(data.draw(st.integers(1, 4))):
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
        self.check(SAMPLES[name].frame, bytes(payload))

    def check(self, kind: FrameType, payload: bytes) -> None:
        """A message that can be sent again, or a typed error; `BadRequestError` only for OPEN."""
        try:
            message = decode(kind, payload)
        except CorruptedResponse:
            return
        except BadRequestError:
            self.assertEqual(kind, FrameType.OPEN)
            return
        self.assertEqual(m.decode(frame_of(m.encode(message, stream_of(message)))), message)

    def test_deep(self) -> None:
        """Nesting without end is a typed error, wherever it stands."""
        for start in (b"", b"\x81\xa1x", b"\x82\xa2op\xa4stat\xa4path", b"\x82\xa2op\xa4stat\xa1x"):
            for opening in (b"\x91", b"\x81\xc0", b"\x81\xa0"):
                payload = start + opening * 100_000
                with self.assertRaises((CorruptedResponse, BadRequestError)):
                    decode(FrameType.OPEN, payload)

    def test_whose_fault(self) -> None:
        """An OPEN with wrong arguments is a bad request; what is no MessagePack breaks the connection."""
        wrong: tuple[Any, ...] = ({}, [], {"op": "explode"}, {"op": "stat"}, {"op": "stat", "path": "text"})
        for value in wrong:
            self.assertRaises(BadRequestError, decode, FrameType.OPEN, msgspec.msgpack.encode(value))
            self.assertRaises(CorruptedResponse, decode, FrameType.REPLY, msgspec.msgpack.encode(value))
        self.assertRaises(CorruptedResponse, decode, FrameType.OPEN, b"\xc1")

    def test_no_conversion(self) -> None:
        """No type stands for a similar one: float or text for an int, text for bytes, an int for a key."""
        end: tuple[Any, ...] = (
            {"size": 5.0},
            {"size": True},
            {"size": "5"},
            {"digest": "x" * 32},
            {1: 2},
            [],
        )
        for value in end:
            self.assertRaises(CorruptedResponse, decode, FrameType.END, msgspec.msgpack.encode(value))

    def test_vectors(self) -> None:
        """tests/vectors/bad-messages.json: payloads that are refused, and how."""
        stat = {"op": "stat", "path": b"a"}
        cases: dict[str, tuple[FrameType, bytes]] = {
            "no MessagePack": (FrameType.OPEN, b"\xc1"),
            "nothing": (FrameType.OPEN, b""),
            "cut": (FrameType.OPEN, msgspec.msgpack.encode(stat)[:-1]),
            "more after the end": (FrameType.PING, b"\x80\xc0"),
            "an array claims 2^32-1 elements": (FrameType.FILES, b"\x81\xa5files\xdd\xff\xff\xff\xff"),
            "an unknown operation": (FrameType.OPEN, msgspec.msgpack.encode({"op": "explode"})),
            "a missing field": (FrameType.OPEN, msgspec.msgpack.encode({"op": "stat"})),
            "an absolute path": (FrameType.OPEN, msgspec.msgpack.encode({**stat, "path": b"/a"})),
            "a path upwards": (FrameType.OPEN, msgspec.msgpack.encode({**stat, "path": b"a/../b"})),
            "a path as text": (FrameType.OPEN, msgspec.msgpack.encode({**stat, "path": "a"})),
            "an answer with a path upwards": (
                FrameType.REPLY,
                msgspec.msgpack.encode({"reply": "entries", "entries": [[b"..", "file", 0, 0]]}),
            ),
            "a short hash": (FrameType.END, msgspec.msgpack.encode({"digest": b"x" * 31})),
            "a step that nobody knows": (
                FrameType.OPEN,
                msgspec.msgpack.encode({"op": "change", "steps": [["dance", b"a"]]}),
            ),
            "no steps": (FrameType.OPEN, msgspec.msgpack.encode({"op": "change", "steps": []})),
            "a link without a text": (
                FrameType.OPEN,
                msgspec.msgpack.encode({"op": "change", "steps": [["link", b"a", b""]]}),
            ),
            "a mode with more than permissions": (
                FrameType.FILES,
                msgspec.msgpack.encode({"files": [[b"a", 0, DIGEST, b"", 0o4755]]}),
            ),
            "a range of nothing": (FrameType.COPY, msgspec.msgpack.encode({"ranges": [[0, 0, 0]]})),
            "a base that cannot be": (FrameType.COPY, msgspec.msgpack.encode({"ranges": [[16, 0, 1]]})),
            "a negative size": (FrameType.END, msgspec.msgpack.encode({"size": -1})),
        }
        rows = []
        for name, (kind, payload) in cases.items():
            error = self.assertRaises((BadRequestError, CorruptedResponse), decode, kind, payload)
            rows.append(
                {"name": name, "type": kind.name, "payload": payload.hex(), "error": type(error).__name__}
            )
        compare(self, "bad-messages.json", rows)

    def test_quotes_are_harmless(self) -> None:
        """An error that quotes the other side is one short line without control characters."""
        payload = msgspec.msgpack.encode({"op": "\x1b[2J\r\n" * 9999})
        error = self.assertRaises(BadRequestError, decode, FrameType.OPEN, payload)
        self.assertTrue(str(error).isprintable())
        self.assertLess(len(str(error)), 300)


class PathTests(SynchronousTestCase):
    """Paths on the wire."""

    def test_one_spelling(self) -> None:
        """A path has one spelling: no slash at an end, none doubled, no dots, no NUL; never text."""
        for bad in (b"/", b"/a", b"a/", b"a//b", b".", b"a/../b", b"..", b"a\0", "a", 1, None, [b"a"]):
            payload = msgspec.msgpack.encode({"op": "stat", "path": bad})
            self.assertRaises(BadRequestError, decode, FrameType.OPEN, payload)
        for path in (RelPath(), A, B):
            self.assertEqual(decode(FrameType.OPEN, payload_of(m.Stat(path))), m.Stat(path))
