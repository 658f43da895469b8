"""What a lying server says: the tables of lies for each operation of a client."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from blake3 import blake3

from fileexport.wire import messages as m
from fileexport.wire.frames import COMPRESSED, PREFACE, FrameType, frame
from fileexport.wire.zstd import Shrinker
from tests.proof.lying_server import Answer, Liar, Script

#: The content that would be right.
CONTENT = bytes(range(256)) * 5000
SIZE = len(CONTENT)
HALF = CONTENT[: SIZE // 2]
#: A hash that belongs to nothing.
WRONG = bytes(32)
FOREVER = itertools.repeat(None)
#: Seconds between two bytes of one who trickles.
PAUSE = 0.1


def _raw(size: int, kind: int, flags: int = 0, zero: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">IBBHI", size, kind, flags, zero, stream)


def nothing(liar: Liar, stream: int, asked: m.Open) -> None:
    """Never answer."""
    liar.until_gone()


def _raws(*pieces: bytes) -> Answer:
    """Say these bytes, then nothing more."""

    def answer(liar: Liar, stream: int, asked: m.Open) -> None:
        for piece in pieces:
            liar.raw(piece)
        liar.until_gone()

    return answer


def _says(*messages: m.Message) -> Answer:
    """Say these messages on the stream, then nothing more."""

    def answer(liar: Liar, stream: int, asked: m.Open) -> None:
        for message in messages:
            liar.say(message, stream)

    return answer


def _replies(**fields: Any) -> Answer:
    return lambda liar, stream, asked: liar.reply(stream, **fields)


def _without_end(make: Callable[[Liar, int], object]) -> Answer:
    def answer(liar: Liar, stream: int, asked: m.Open) -> None:
        for _ in FOREVER:
            make(liar, stream)

    return answer


def _trickle(liar: Liar, stream: int, asked: m.Open) -> None:
    for byte in frame(FrameType.END, stream, msgspec.msgpack.encode({"later": "x" * 500})):
        liar.raw(bytes([byte]))
        # The lie itself: less than a time-out allows between two bytes, and never a whole frame.
        time.sleep(PAUSE)


#: Lies for any operation: none of them is an answer.
ANY: dict[str, Answer] = {
    "silence": nothing,
    "a byte now and then": _trickle,
    "PING without end": _without_end(lambda liar, stream: liar.say(m.Ping(b"x"))),
    "credit without end": _without_end(lambda liar, stream: liar.say(m.MoreCredit(1), stream)),
    "too much credit": _without_end(lambda liar, stream: liar.say(m.MoreCredit(2**31 - 1))),
    "frames to be skipped without end": _without_end(lambda liar, stream: liar.raw(_raw(9, 0x80) + bytes(9))),
    "a frame of 4 GiB": _raws(_raw(2**32 - 1, FrameType.REPLY, stream=1)),
    "a control frame of 1 MiB": _raws(_raw(1 << 20, FrameType.REPLY, stream=1)),
    "a frame of no known type": _raws(_raw(0, 0x7F)),
    "reserved bytes": _raws(_raw(0, FrameType.PING, zero=1)),
    "the preface again": _raws(PREFACE),
    "HTTP": _raws(b"HTTP/1.1 200 OK\r\n\r\n"),
    "no MessagePack": lambda liar, stream, asked: liar.raw(frame(FrameType.REPLY, stream, b"\xc1")),
    "deep MessagePack": lambda liar, stream, asked: liar.raw(frame(FrameType.REPLY, stream, b"\x91" * 9000)),
    "a REPLY of no known kind": _replies(reply="nonsense"),
    "a REPLY without a kind": _replies(entries=[]),
    "a REPLY of another kind": _says(m.Removed(1), m.Ready(0)),
    "DATA at once": lambda liar, stream, asked: liar.data(stream, CONTENT),
    "a stream that nobody opened": lambda liar, stream, asked: liar.say(m.End(), stream + 1),
    "OPEN": lambda liar, stream, asked: liar.say(asked, stream + 1),
    "WELCOME again": lambda liar, stream, asked: liar.say(m.Welcome(WRONG, [])),
    "AUTH": lambda liar, stream, asked: liar.say(m.Auth(bytes(8), WRONG)),
    "GOAWAY with an error": lambda liar, stream, asked: liar.say(m.GoAway(stream, 17, "\x1b[2Jboo\r\n")),
    "RESET without an error": _says(m.Reset()),
    "RESET of no known code": _says(m.Reset(60000, "\x1b[2J\r\nboo\x07")),
    "RESET with the code of success of another kind": _says(m.Reset(18, "x")),
}


def _list(*rows: Sequence[Any]) -> Answer:
    def answer(liar: Liar, stream: int, asked: m.Open) -> None:
        liar.entries(stream, *rows)
        liar.say(m.End(), stream)

    return answer


def _endless_list(liar: Liar, stream: int, asked: m.Open) -> None:
    for first in itertools.count(0, 1000):
        liar.entries(stream, *((b"%d" % number, "file", 1, 0) for number in range(first, first + 1000)))


def _file(name: Any, kind: Any = "file", size: Any = 1, mtime: Any = 0) -> tuple[Any, ...]:
    return name, kind, size, mtime


LISTS: dict[str, Answer] = {
    **{
        f"the name {name!r}": _list(_file(name))
        for name in (
            *(b"..", b".", b"", b"/", b"/etc/passwd", b"../x", b"a/../../x", b"a//b", b"a/", b"a\0b"),
            *(b"n" * 256, b"d/" * 64 + b"x", (b"d" * 200 + b"/") * 21 + b"x", "text", None, 1, [b"a"]),
        )
    },
    "a path in a flat list": _list(_file(b"a/b")),
    "no known type": _list(_file(b"a", "socket")),
    "a negative size": _list(_file(b"a", size=-1)),
    "a size above all": _list(_file(b"a", size=2**63)),
    "a time above all": _list(_file(b"a", mtime=2**63)),
    "a size that is none": _list(_file(b"a", size=1.0)),
    "a row cut short": _list((b"a", "file")),
    "too many rows": _list(*(_file(b"%d" % number) for number in range(1025))),
    "no list": _replies(reply="entries", entries=None),
    "names without end": _endless_list,
    "no END": lambda liar, stream, asked: liar.entries(stream, _file(b"a")),
}


def _sends(
    *pieces: bytes,
    size: int = SIZE,
    offset: int = 0,
    end: m.End | None = None,
    flags: int = 0,
) -> Answer:
    """Announce `size` bytes from `offset` on, send these, and END for the right content or another one."""

    def answer(liar: Liar, stream: int, asked: m.Open) -> None:
        liar.content(stream, size, offset)
        for piece in pieces:
            liar.data(stream, piece, flags)
        liar.say(end or m.End(SIZE, blake3(CONTENT).digest()), stream)

    return answer


def _endless_content(liar: Liar, stream: int, asked: m.Open) -> None:
    liar.content(stream, SIZE)
    for _ in FOREVER:
        liar.data(stream, CONTENT)


def _half(liar: Liar, stream: int, asked: m.Open) -> None:
    liar.content(stream, SIZE)
    liar.data(stream, HALF)


def _bomb() -> bytes:
    packed = Shrinker().pack(bytes(1 << 20))
    assert packed is not None
    return packed


_RIGHT = m.End(SIZE, blake3(CONTENT).digest())
DOWNLOADS: dict[str, Answer] = {
    "half of it": _sends(HALF),
    "half of it, and half is announced": _sends(HALF, size=len(HALF)),
    "half of it, END for the half": _sends(HALF, end=m.End(len(HALF), blake3(HALF).digest())),
    "more than announced": _sends(CONTENT, size=len(HALF)),
    "more than announced, without end": _endless_content,
    "another content": _sends(CONTENT[::-1]),
    "one byte else": _sends(CONTENT[:-1], b"x"),
    "no hash": _sends(CONTENT, end=m.End(SIZE)),
    "no size": _sends(CONTENT, end=m.End(None, blake3(CONTENT).digest())),
    "nothing in END": _sends(CONTENT, end=m.End()),
    "another hash": _sends(CONTENT, end=m.End(SIZE, WRONG)),
    "another size in END": _sends(CONTENT, end=m.End(SIZE + 1, blake3(CONTENT).digest())),
    "from an offset that nobody named": _sends(CONTENT[-10:], offset=SIZE - 10),
    "from an offset behind the end": _sends(CONTENT, offset=SIZE + 1),
    "more than any disk has": _sends(CONTENT, size=2**63 - 1),
    "a negative size": _replies(reply="content", size=-1, mtime=0, version=b""),
    "a size that is text": _replies(reply="content", size="1", mtime=0, version=b""),
    "END at once": _says(_RIGHT),
    "content announced twice": _says(m.Content(SIZE, 0, b""), m.Content(SIZE, 0, b"")),
    "silence in the middle": _half,
    "compressed, where nobody agreed on it": _sends(_bomb(), size=1 << 20, flags=COMPRESSED),
    "compressed nonsense": _sends(b"nonsense", flags=COMPRESSED),
    "FILES instead": lambda liar, stream, asked: liar.raw(
        frame(FrameType.FILES, stream, msgspec.msgpack.encode({"files": [[b"..", 0, WRONG, b"x"]]}))
    ),
}


def _ready(*offsets: int, end: m.End | None = None) -> Answer:
    """Say that the content is taken from these offsets on, take what comes, and END."""

    def answer(liar: Liar, stream: int, asked: m.Open) -> None:
        for offset in offsets:
            liar.reply(stream, reply="ready", offset=offset)
        liar.until_end(stream)
        liar.say(end or _RIGHT, stream)

    return answer


UPLOADS: dict[str, Answer] = {
    "from an offset behind the end": _ready(SIZE + 1),
    "from a negative offset": _ready(-1),
    "ready twice": _ready(0, 0),
    "from the greatest offset": _ready(2**63 - 1),
    "another hash": _ready(0, end=m.End(SIZE, WRONG)),
    "no hash": _ready(0, end=m.End(SIZE)),
    "nothing in END": _ready(0, end=m.End()),
    "another size": _ready(0, end=m.End(SIZE - 1, blake3(CONTENT).digest())),
    "END at once": _says(_RIGHT),
}


def _outcome(*committed: tuple[int, int], failed: Sequence[tuple[int, int, str]] = ()) -> Answer:
    def answer(liar: Liar, stream: int, asked: m.Open) -> None:
        liar.until_end(stream)
        liar.reply(stream, reply="outcome", committed=list(committed), failed=list(failed))
        liar.say(m.End(), stream)

    return answer


#: For three small files that are sent.
SMALL_UPLOADS: dict[str, Answer] = {
    "nothing is acknowledged": _outcome(),
    "one is missing": _outcome((0, 2)),
    "more than was sent": _outcome((0, 4)),
    "far more than was sent": _outcome((0, 2**32 - 1)),
    "files that nobody sent": _outcome((100, 1)),
    "done twice": _outcome((0, 3), (0, 3)),
    "done and failed": _outcome((0, 3), failed=[(1, 7, "no")]),
    "an error for a file that nobody sent": _outcome((0, 3), failed=[(7, 7, "no")]),
    "an error that is none": _outcome((0, 2), failed=[(2, 0, "")]),
}


def _login(*messages: m.Message) -> Script:
    """Greet, and say these as soon as AUTH has come, whatever the client said."""

    def script(liar: Liar) -> None:
        liar.raw(PREFACE + m.encode(m.Hello(m.VERSION, _OFFER, [])))
        liar.hear()
        liar.hear()
        for message in messages:
            liar.say(message)
        liar.until_gone()

    return script


_OFFER = m.Offer(control=1 << 18, data=1 << 20, streams=64, stream_credit=1 << 20, connection_credit=1 << 20)


def _greets(**fields: Any) -> Script:
    """A HELLO with other fields than a good one's."""

    def script(liar: Liar) -> None:
        hello = {"version": 1, "limits": msgspec.to_builtins(_OFFER), **fields}
        liar.raw(PREFACE + frame(FrameType.HELLO, 0, msgspec.msgpack.encode(hello)))
        liar.until_gone()

    return script


def _bytes(*pieces: bytes) -> Script:
    def script(liar: Liar) -> None:
        for piece in pieces:
            liar.raw(piece)
        liar.until_gone()

    return script


def _echo(liar: Liar) -> None:
    while data := liar.end.recv(1 << 16):
        liar.raw(data)


def _flood(liar: Liar) -> None:
    liar.raw(PREFACE)
    for _ in FOREVER:
        liar.raw(_raw(1000, 0x80) + bytes(1000))


LOGINS: dict[str, Script] = {
    "silence": lambda liar: liar.until_gone(),
    "the end": lambda liar: None,
    "HTTP": _bytes(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
    "SSH": _bytes(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "TLS": _bytes(b"\x15\x03\x01\x00\x02\x02\x46"),
    "what the client says": _echo,
    "skipped frames without end": _flood,
    "HELLO without limits": _greets(limits=None),
    "HELLO of version 0": _greets(version=0),
    "HELLO with limits of nothing": _greets(limits=msgspec.to_builtins(_OFFER) | {"data": 0}),
    "HELLO with limits above all": _greets(limits=msgspec.to_builtins(_OFFER) | {"data": 1 << 30}),
    "HELLO twice": _login(m.Hello(m.VERSION, _OFFER, [])),
    "WELCOME without a question": _login(m.Welcome(WRONG, ["read"])),
    "WELCOME with another proof": _login(m.Challenge(WRONG), m.Welcome(WRONG, ["read"])),
    "a frame over the limit": _bytes(PREFACE + _raw(1025, FrameType.HELLO)),
    "REFUSED again and again": _login(*[m.Refused(200, "\x1b[2Jtry again")] * 50),
    "PING before WELCOME": _login(m.Ping()),
    "GOAWAY before WELCOME": _login(m.GoAway(0, 10, "\x1b[2Jno")),
}
