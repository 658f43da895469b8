"""A server that shows a tree for a synchronisation, honestly but for what a script makes of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from fileexport.paths import RelPath
from fileexport.sync.chunks import Chunk, cut
from fileexport.wire import messages as m
from tests.proof.lying_server import Answer, Liar, Script, answering

#: What a folder says of one entry: name, letter of its kind, size, and of a link its text.
Line = tuple[bytes, str, int, bytes]
VERSION = b"version"
MODE, MTIME = 0o644, 1_700_000_000_000_000_000


def file(name: bytes, size: int = 4) -> Line:
    """A file of that size."""
    return name, "f", size, b""


def directory(name: bytes) -> Line:
    """A directory."""
    return name, "d", 0, b""


def link(name: bytes, target: bytes) -> Line:
    """A link with this text."""
    return name, "l", 0, target


def folder(path: Any, *lines: Line, **other: Any) -> list[Any]:
    """A folder as it stands on the wire; `other` replaces columns."""
    row: dict[str, Any] = {
        "path": path,
        "names": b"\0".join(name for name, *_ in lines),
        "kinds": "".join(kind for _, kind, *_ in lines).encode(),
        "sizes": [size for _, _, size, _ in lines],
        "mtimes": [MTIME] * len(lines),
        "modes": [0 if kind == "l" else MODE | 0o100 * (kind == "d") for _, kind, *_ in lines],
        "targets": [target for _, kind, _, target in lines if kind == "l"],
        "code": 0,
        "message": "",
        "omitted": 0,
    }
    return list((row | other).values())


def _below(path: RelPath) -> bytes:
    """A path below the tree, which is called `tree`."""
    return b"/".join(map(os.fsencode, path.parts[1:]))


@dataclass
class Source:
    """A tree of raw folders; a file whose content is not known holds `evil`."""

    folders: Sequence[Any]
    contents: Mapping[bytes, bytes] = field(default_factory=dict)
    lies: Mapping[type[m.Open], Answer] = field(default_factory=dict)
    top: Any = (MTIME, 0o755)

    def script(self) -> Script:
        """Let the client in, and answer it."""
        return answering(self.answer)

    def answer(self, liar: Liar, stream: int, asked: m.Open) -> None:
        """By the lie for this operation, or honestly."""
        lie = self.lies.get(type(asked))
        if lie is not None:
            lie(liar, stream, asked)
            return
        match asked:
            case m.Manifest():
                liar.reply(stream, reply="manifest", folders=list(self.folders), top=self.top)
                liar.say(m.End(), stream)
            case m.HashFiles(paths=paths):
                hashed = [(path, self.content(path)) for path in paths]
                liar.say(
                    m.Hashes([m.FileHash(path, len(one), blake3(one).digest()) for path, one in hashed]),
                    stream,
                )
                liar.say(m.End(), stream)
            case m.GetChunks(path=path, average=average, ranges=ranges):
                content = self.content(path)
                parts = [content[one.offset : one.offset + one.size] for one in ranges] or [content]
                chunks = [m.ChunkRow(*chunk) for part in parts for chunk in chunks_of(part, average)]
                liar.say(m.Chunks(VERSION, chunks), stream)
                liar.say(m.End(sum(map(len, parts))), stream)
            case m.Read(path=path, length=0):
                looked_at(liar, stream, self.content(path))
            case m.Read(path=path, ranges=ranges, offset=offset):
                self.read(liar, stream, self.content(path), ranges, offset)
            case m.ReadFiles(paths=paths):
                found = [(b"/".join(map(os.fsencode, path.parts)), self.content(path)) for path in paths]
                liar.files(stream, [[name, MTIME, blake3(one).digest(), one, MODE] for name, one in found])
                liar.say(m.End(), stream)
            case m.Change(steps=steps):
                liar.say(m.Outcome([m.Range(0, len(steps))]), stream)
                liar.say(m.End(), stream)
            case _:
                liar.say(m.Reset(9, "this server does not know that"), stream)

    def content(self, path: RelPath) -> bytes:
        """Of a file, by its path."""
        return self.contents.get(_below(path), b"evil")

    def read(self, liar: Liar, stream: int, content: bytes, ranges: Sequence[m.Span], offset: int) -> None:
        """The parts that are asked for, or all of it."""
        liar.content(stream, len(content), offset)
        if ranges:
            for offset, size in ((one.offset, one.size) for one in ranges):
                liar.data(stream, content[offset : offset + size])
            liar.say(m.End(len(content)), stream)
        else:
            liar.data(stream, content[offset:])
            liar.finish(stream, content)


def looked_at(liar: Liar, stream: int, content: bytes) -> None:
    """Say what a file is, and none of its content."""
    liar.content(stream, len(content))
    liar.say(m.End(len(content)), stream)


def chunks_of(content: bytes, average: int) -> list[Chunk]:
    """The chunks of this content."""
    left = memoryview(content)

    def read_into(target: memoryview) -> int:
        nonlocal left
        count = min(len(left), len(target))
        target[:count] = left[:count]
        left = left[count:]
        return count

    return list(cut(read_into, average))


def _manifest(*folders: Any, **fields: Any) -> Answer:
    """A manifest of one message, and its end."""

    def answer(liar: Liar, stream: int, asked: m.Open) -> None:
        reply = {"top": (MTIME, 0o755), **fields}
        liar.reply(stream, reply="manifest", folders=list(folders), **reply)
        liar.say(m.End(), stream)

    return answer


def _endless(liar: Liar, stream: int, asked: m.Open) -> None:
    for first in itertools.count(0, 1000):
        lines = [file(b"%d" % number) for number in range(first, first + 1000)]
        liar.reply(stream, reply="manifest", folders=[folder(b"", *lines)], top=(MTIME, 0o755))


def _then(end: Callable[[Liar, int], object]) -> Answer:
    """A part of a manifest, and something else than its end."""

    def answer(liar: Liar, stream: int, asked: m.Open) -> None:
        liar.reply(stream, reply="manifest", folders=[folder(b"", directory(b"d"))], top=(MTIME, 0o755))
        end(liar, stream)

    return answer


_EVIL_NAMES = (b"..", b".", b"a/b", b"/etc/passwd", b"../x", b"a/../../x", b"n" * 256)
_EVIL_PATHS = (
    *(b"..", b"/etc", b"/", b"a/..", b"../outside", b"./a", b"a//b", b"never", b"d/never", b"f", b"l"),
    *(b"d\0", b"d/" * 64 + b"x", None, 1, "d", [b"d"]),
)
_KNOWN = folder(b"", directory(b"d"), file(b"f"), link(b"l", b"d"))

#: Manifests that are none: each must be an error, and change nothing at all.
MANIFESTS: dict[str, Answer] = {
    **{f"the name {name!r}": _manifest(folder(b"", file(name))) for name in _EVIL_NAMES},
    **{f"the directory {name!r}": _manifest(folder(b"", directory(name))) for name in _EVIL_NAMES},
    **{f"the folder {path!r}": _manifest(_KNOWN, folder(path, file(b"x"))) for path in _EVIL_PATHS},
    "a name twice": _manifest(folder(b"", file(b"a"), directory(b"a"))),
    "a name twice, in two parts": _manifest(folder(b"", file(b"a")), folder(b"", directory(b"a"))),
    "an empty name": _manifest(folder(b"", file(b"a"), file(b""))),
    "fewer kinds than names": _manifest(folder(b"", file(b"a"), file(b"b"), kinds=b"f")),
    "fewer sizes than names": _manifest(folder(b"", file(b"a"), file(b"b"), sizes=[1])),
    "more modes than names": _manifest(folder(b"", file(b"a"), modes=[MODE] * 2)),
    "no known kind": _manifest(folder(b"", (b"a", "x", 1, b""))),
    "a negative size": _manifest(folder(b"", file(b"a", -1))),
    "a size above all": _manifest(folder(b"", file(b"a", 2**63))),
    "a directory with a size": _manifest(folder(b"", (b"a", "d", 1, b""))),
    "a time above all": _manifest(folder(b"", file(b"a"), mtimes=[2**63])),
    "a mode with setuid": _manifest(folder(b"", file(b"a"), modes=[0o4755])),
    "a link without a text": _manifest(folder(b"", link(b"a", b"x"), targets=[])),
    "a link with an empty text": _manifest(folder(b"", link(b"a", b""))),
    "a link with NUL": _manifest(folder(b"", link(b"a", b"x\0y"))),
    "a link with too long a text": _manifest(folder(b"", link(b"a", b"x" * 4097))),
    "more entries than a message has": _manifest(folder(b"", *(file(b"%d" % n) for n in range(1025)))),
    "no folders": _manifest(),
    "folders that are none": _manifest(None),
    "a top that is none": _manifest(folder(b""), top=1),
    "the end at once": lambda liar, stream, asked: liar.say(m.End(), stream),
    "entries without end": _endless,
    "a part, and silence": _then(lambda liar, stream: liar.until_gone()),
    "a part, and an error": _then(lambda liar, stream: liar.say(m.Reset(7, "no"), stream)),
    "a part, and a hang-up": _then(lambda liar, stream: liar.end.shutdown(2)),
    "a part, and something else": _then(lambda liar, stream: liar.say(m.Removed(1), stream)),
}


def _chunks(*rows: Sequence[Any], size: int, version: bytes = VERSION) -> Answer:
    def answer(liar: Liar, stream: int, asked: m.Open) -> None:
        liar.reply(stream, reply="chunks", version=version, chunks=[list(row) for row in rows])
        liar.say(m.End(size), stream)

    return answer


def chunk_lies(old: bytes, new: bytes) -> dict[str, Answer]:
    """Lists of chunks for the new content that are not those of it; `old` is what the client has."""
    right = [tuple(chunk) for chunk in chunks_of(new, 32 << 10)]
    theirs = [tuple(chunk) for chunk in chunks_of(old, 32 << 10)]
    wrong = [(size, bytes(32)) for size, _ in right]
    return {
        "of the old content": _chunks(*theirs, size=len(old)),
        "of the old content, with the new size": _chunks(*theirs, size=len(new)),
        "backwards": _chunks(*reversed(right), size=len(new)),
        "of nothing": _chunks(*wrong, size=len(new)),
        "half of them": _chunks(*right[: len(right) // 2], size=len(new)),
        "all of them twice": _chunks(*right, *right, size=len(new)),
        "a chunk of 0 bytes": _chunks((0, bytes(32)), size=len(new)),
        "a chunk of 1 GiB": _chunks((1 << 30, bytes(32)), size=1 << 30),
        "a negative chunk": _chunks((-1, bytes(32)), size=len(new)),
        "a hash cut short": _chunks((len(new), bytes(31)), size=len(new)),
        "none": _chunks(size=0),
        "another size at the end": _chunks(*right, size=len(new) + 1),
        "of another version": _chunks(*right, size=len(new), version=b"another"),
    }


def read_lies(content: bytes) -> dict[str, Answer]:
    """Ranges of a file that are not those that were asked for."""

    def sending(change: Callable[[bytes], bytes], end: m.End | None = None) -> Answer:
        def answer(liar: Liar, stream: int, asked: m.Open) -> None:
            assert isinstance(asked, m.Read)
            if asked.length == 0:
                looked_at(liar, stream, content)
                return
            spans = asked.ranges or [m.Span(0, len(content))]
            liar.content(stream, len(content))
            liar.data(stream, change(b"".join(content[one.offset : one.offset + one.size] for one in spans)))
            liar.say(end or m.End(len(content)), stream)

        return answer

    return {
        "other bytes": sending(lambda data: data[::-1]),
        "one byte else": sending(lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        "too few": sending(lambda data: data[:-1]),
        "too many": sending(lambda data: data + b"x"),
        "nothing": sending(lambda data: b""),
        "all of it": sending(lambda data: content),
        "another size": sending(lambda data: data, m.End(len(content) - 1)),
    }
