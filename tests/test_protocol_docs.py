"""docs/protocol.md says what the code of `wire` does: its tables are made from the code."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect
from pyfastcdc.py.constants import MASKS
from twisted.trial.unittest import SynchronousTestCase

from fileexport import paths, proofs
from fileexport.disk.sender import STALL
from fileexport.errors import ERRORS, FULL_DISK
from fileexport.sync import chunks
from fileexport.sync.gaps import MAX_RANGED
from fileexport.transfer_access import ACCESS_TIME, TRIES, WRONG_TIME
from fileexport.transfer_connection import PING_TIME, SILENCE
from fileexport.transfer_desk import READS
from fileexport.transfer_output import LEAST
from fileexport.transfer_uploads import COMMIT_BYTES, COMMIT_FILES, COMMIT_SECONDS
from fileexport.wire import frames, messages, zstd
from fileexport.wire.frames import BEFORE_AUTHENTICATION, LARGEST, RULES, FrameType
from fileexport.wire.session import CONNECTION, DEFAULT_OFFER, MAX_CANCELLED, MAX_PONGS, State
from fileexport.wire.streams import MANY, SHAPES, STREAM, Role, StreamState
from tests.test_docs import page, table

PAGE = "docs/protocol.md"
#: What stands in rows of their own below the messages.
PARTS: tuple[type[msgspec.Struct], ...] = (
    *(messages.Offer, messages.SmallFile, messages.Entry, messages.FileHash),
    *(messages.Range, messages.Failure, messages.JobRow),
    *(messages.Base, messages.Span, messages.CopyRange, messages.ChunkRow),
    *(messages.Top, messages.Folder),
    *messages.STEPS,
)


def number(value: int | None) -> str:
    """A bound as the page writes it."""
    assert value is not None
    size = abs(value) + 1
    if value > 2**16 and not size & (size - 1):
        return f"2^{size.bit_length() - 1}-1"
    return f"-({number(-value)})" if value < 0 else str(value)


def span(least: int | None, most: int | None) -> str:
    """The lengths or numbers that are allowed."""
    return number(most) if least == most else f"{number(least or 0)} to {number(most)}"


def spelled(kind: inspect.Type) -> str:
    """The type of a field as the page writes it."""
    match kind:
        case inspect.IntType(ge=least, le=most):
            return f"int {number(least)} to {number(most)}"
        case inspect.BytesType(min_length=least, max_length=most):
            return f"bin {span(least, most)}"
        case inspect.StrType(min_length=least, max_length=most):
            return f"str {span(least, most)}"
        case inspect.ListType(item_type=item, min_length=least, max_length=most):
            one = f"({spelled(item)})" if isinstance(item, inspect.UnionType) else spelled(item)
            return f"array of {span(least, most)} × {one}"
        case inspect.UnionType(types=types):
            return " or ".join(sorted(map(spelled, types), key="nil".__eq__))
        case inspect.StructType(cls=cls):
            return cls.__name__
        case inspect.LiteralType(values=words):
            return "one of " + ", ".join(f'"{word}"' for word in words)
        case inspect.BoolType():
            return "bool"
        case inspect.NoneType():
            return "nil"
        case inspect.CustomType(cls=paths.RelPath):
            return "path"
    raise AssertionError(kind)


def default(field: inspect.Field) -> str:
    """What a field is when it is left out, if it may be."""
    if field.required:
        return ""
    if field.default is msgspec.NODEFAULT or field.default in ("", b""):
        return " = empty"
    return " = nil" if field.default is None else f" = {field.default}".lower()


def fields(kind: type[msgspec.Struct]) -> str:
    """The fields of a struct, in their order."""
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    words = [f"`{field.encode_name}` {spelled(field.type)}{default(field)}" for field in found.fields]
    config = kind.__struct_config__
    if config.array_like and config.tag is not None:
        words.insert(0, f'`{config.tag_field}` one of "{config.tag}"')
    return "; ".join(words)


def says(kind: type[msgspec.Struct]) -> str:
    """The sentence of a struct."""
    return re.sub(r"\s+", " ", kind.__doc__ or "").strip()


def tag(kind: type[msgspec.Struct]) -> str:
    """What tells the messages of one type of frame apart."""
    return f"`{kind.__struct_config__.tag}`"


def steps(row: Mapping[tuple[Role, FrameType], enum.Enum], state: enum.Enum, sender: Role) -> str:
    """What one side may say in a state, and what the state is then."""
    words = [
        kind.name if following is state else f"{kind.name} → {following.name}"
        for (role, kind), following in row.items()
        if role is sender
    ]
    return ", ".join(words) or "nothing"


def turns(rows: Mapping[Any, Mapping[tuple[Role, FrameType], enum.Enum]]) -> list[list[str]]:
    """A table of states as the page writes it."""
    return [
        [state.name, state.value, steps(row, state, Role.CLIENT), steps(row, state, Role.SERVER)]
        for state, row in rows.items()
    ]


def shapes() -> list[list[str]]:
    """The conversations of the operations as the page writes them."""
    found = []
    for operation in messages.OPERATIONS:
        shape = SHAPES[operation]
        many = f"{shape.least} or more" if shape.most == MANY else str(shape.least)
        counts = many if shape.least == shape.most or shape.most == MANY else f"{shape.least} or {shape.most}"
        reply = tag(shape.reply) if shape.reply else "none"
        content = ", ".join(kind.name for kind in shape.content) or "none"
        found.append([tag(operation), content, reply, counts, shape.answer.name if shape.answer else "none"])
    return found


class FrameTests(SynchronousTestCase):
    """Numbers of the framing."""

    def test_types(self) -> None:
        """The table of frame types is the code's."""
        rows = table(page(PAGE), "| type | name | stands on | flags |")
        self.assertEqual(
            rows,
            [
                [f"`{kind:#04x}`", kind.name, RULES[kind].place.value, f"`{RULES[kind].flags:#04x}`"]
                for kind in FrameType
            ],
        )

    def test_limits(self) -> None:
        """The table of limits is the code's."""
        self.assertEqual(
            table(page(PAGE), "| limit | bytes |"),
            [
                ["any frame before WELCOME", f"{BEFORE_AUTHENTICATION.control}"],
                ["DATA before WELCOME", "none is allowed"],
                ["DATA", f"{LARGEST.data}"],
                ["any other frame, also one that is skipped", f"{LARGEST.control}"],
                ["content of a file within FILES", f"{messages.MAX_INLINE}"],
                ["a path", f"{paths.MAX_PATH}, in at most {paths.MAX_DEPTH} names of {paths.MAX_NAME}"],
            ],
        )
        self.assertEqual(BEFORE_AUTHENTICATION.data, 0)

    def test_chunks(self) -> None:
        """The masks of the page are those by which files are cut, and so are its averages."""
        rows = table(page(PAGE), "| average | narrow | wide |")
        self.assertEqual(
            rows,
            [
                [str(average), *(f"`{MASKS[average.bit_length() - 1 + step]:#018x}`" for step in (1, -1))]
                for average in (chunks.FINE, *chunks.AVERAGES)
            ],
        )
        text = re.sub(r"\s+", " ", page(PAGE))
        self.assertIn(f"below {chunks.LEAST} bytes travel whole", text)
        self.assertIn(f"{chunks.FINE} is for `ranges`, and they for it", text)
        self.assertIn(f"more than {MAX_RANGED} bytes of them together", text)
        for size, average in ((64 << 20, 65536), (1 << 30, 262144)):
            found = (chunks.average_for(size - 1), chunks.average_for(size))
            self.assertEqual(found, (chunks.AVERAGES[chunks.AVERAGES.index(average) - 1], average))

    def test_constants(self) -> None:
        """Preface, ALPN, flags and the first optional type are named as they are."""
        text = page(PAGE)
        constants = (frames.PREFACE.hex(" "), f"`{frames.ALPN.decode()}`", f"`{frames.COMPRESSED:#04x}`")
        for constant in (*constants, f"`{frames.FIRST_OPTIONAL:#04x}`", f"version is {messages.VERSION}"):
            self.assertIn(constant, text)


class MessageTests(SynchronousTestCase):
    """The vocabulary."""

    def test_plain(self) -> None:
        """The table of messages that have a frame type of their own is the code's."""
        self.assertEqual(
            table(page(PAGE), "| frame | says | fields |"),
            [[kind.frame.name, says(kind), fields(kind)] for kind in messages.PLAIN],
        )

    def test_operations(self) -> None:
        """The table of operations is the code's."""
        self.assertEqual(
            table(page(PAGE), "| `op` | asks for | fields |"),
            [[tag(kind), says(kind), fields(kind)] for kind in messages.OPERATIONS],
        )

    def test_replies(self) -> None:
        """The table of replies is the code's."""
        self.assertEqual(
            table(page(PAGE), "| `reply` | says | fields |"),
            [[tag(kind), says(kind), fields(kind)] for kind in messages.REPLIES],
        )

    def test_parts(self) -> None:
        """The table of what stands within messages is the code's: its form, its fields in order."""
        self.assertEqual(
            table(page(PAGE), "| part | form | is | fields |"),
            [
                [
                    kind.__name__,
                    "array" if kind.__struct_config__.array_like else "map",
                    says(kind),
                    fields(kind),
                ]
                for kind in PARTS
            ],
        )

    def test_features(self) -> None:
        """The table of features is the code's."""
        rows = table(page(PAGE), "| feature | meaning |")
        self.assertEqual(rows, [[f"`{name}`", meaning] for name, meaning in messages.FEATURES.items()])


class TurnTests(SynchronousTestCase):
    """Whose turn it is."""

    def test_connection(self) -> None:
        """The table of a connection's states is the code's, and so are the names in the drawing."""
        rows = table(page(PAGE), "| state | means | the client may say | the server may say |")
        self.assertEqual(rows, turns(CONNECTION))
        drawing = page(PAGE).split("## A connection")[1].split("```")[1]
        named = set(re.findall(r"[A-Z]{4,}", drawing)) & {state.name for state in State}
        self.assertEqual(named, {state.name for state in State} - {"CLIENT_GREETED", "SERVER_GREETED"})

    def test_streams(self) -> None:
        """The table of a stream's states is the code's, and so are the names in the drawing."""
        rows = table(page(PAGE), "| stream | means | the client may say | the server may say |")
        self.assertEqual(rows, turns(STREAM))
        drawing = page(PAGE).split("## Streams")[1].split("```")[1]
        self.assertLessEqual({state.name for state in StreamState}, set(re.findall(r"[A-Z]{4,}", drawing)))

    def test_shapes(self) -> None:
        """The table of conversations is the code's."""
        head = "| operation | client's content | REPLY | how many | server's content |"
        self.assertEqual(table(page(PAGE), head), shapes())

    def test_numbers(self) -> None:
        """What the page says of limits and windows in words is what the code does."""
        text = re.sub(r"\s+", " ", page(PAGE))
        offer = DEFAULT_OFFER
        for sentence in (
            f"announces {offer.stream_credit >> 20} MiB for a stream, "
            f"{offer.connection_credit >> 20} MiB for the connection, and {offer.streams} streams",
            f"cancels {MAX_CANCELLED:,} unanswered streams",
            f"gets {MAX_PONGS} at most",
            f"of 1 to {zstd.MAX_CONTENT} bytes of content",
            f"WELCOME {ACCESS_TIME:.0f} seconds after it began",
            f"REFUSED after {WRONG_TIME:.0f} second.",
            f"{('one', 'two', 'three')[TRIES - 1]} tries in all",
            f"PING after {PING_TIME:.0f} seconds of silence, and closes after {SILENCE:.0f}",
            f"of what it sends less than {LEAST} bytes were taken in {STALL:.0f} seconds",
            f"{READS} of a connection at a time",
            f"{COMMIT_FILES:,} files, {COMMIT_BYTES >> 20} MiB or {COMMIT_SECONDS:.0f} second",
            f'"{proofs.auth_message(b"", b"", b"", b"", b"")[:-20].decode()}"',
        ):
            self.assertIn(sentence, text)


class ErrorTests(SynchronousTestCase):
    """Wire codes."""

    def test_codes(self) -> None:
        """The table of error codes is that of `errors`, by number."""
        rows = sorted((*ERRORS, FULL_DISK), key=lambda row: row.wire)
        self.assertEqual(
            table(page(PAGE), "| code | name | sentence |"),
            [[str(row.wire), f"`{row.name}`", row.sentence] for row in rows],
        )


class VectorTests(SynchronousTestCase):
    """The files with vectors."""

    def test_named(self) -> None:
        """The page names each file of vectors."""
        folder = Path(__file__).resolve().parent / "vectors"
        named = set(re.findall(r"`tests/vectors/([a-z-]+\.json)`", page(PAGE)))
        self.assertEqual(named, {path.name for path in folder.glob("*.json")})
