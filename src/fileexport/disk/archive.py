"""Compressed forms of one file, as a stream from its descriptor.

Memory is constant: a block of what was read, what the compressor holds, and one piece for the caller.
"""

from __future__ import annotations

import enum
import os
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence

from fileexport.disk.deflate import blocks, deflate, gz, joined, joined_checksum
from fileexport.disk.notes import Notes
from fileexport.disk.zips import DEFLATED, Head, Zip
from fileexport.errors import ChangedWhileRead
from fileexport.paths import printable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Bytes up to which a caller may join the stream, so that its length is known before the first byte leaves.
SMALL = 1 << 20

#: Bytes asked of the disk at a time: enough to keep the compressors busy, little enough for many streams.
_READ = 256 << 10
#: Bytes in a piece, the last one excepted: what compresses well would come out in crumbs otherwise. The
#: largest piece is this much, one read and one block of the compressor: under 1 MiB.
_PIECE = 32 << 10

#: zstd's own default: smaller than gzip -6 on text and several times as fast.
_ZST_LEVEL = 3
#: Of a member whose file's own mode is not for its receiver.
_MODE = 0o644


class Form(enum.Enum):
    """A compressed form; its value is what `compress=` takes."""

    ZIP = "zip"
    GZ = "gz"
    ZST = "zst"

    @property
    def suffix(self) -> str:
        """What is appended to the file's name, with its dot."""
        return f".{self.value}"

    @property
    def content_type(self) -> str:
        """The media type (RFC 6713 and RFC 8878 for gzip and zstd)."""
        return _CONTENT_TYPES[self]


_CONTENT_TYPES = {
    Form.ZIP: "application/zip",
    Form.GZ: "application/gzip",
    Form.ZST: "application/zstd",
}


def compressed(
    descriptor: int, *, name: str, size: int, mtime: float, form: Form
) -> Generator[bytes, None, None]:
    """Compress the first `size` bytes of a regular file; pieces of 32 KiB to 1 MiB, the last may be shorter.

    `name` is the file's own, as in `RelPath.name`; inside the archive it is made harmless. `mtime` is in
    seconds since the epoch; what a form cannot hold is moved to the nearest time that it can. The descriptor
    is neither moved nor closed, and must stay open until the generator has ended or is closed.

    A file that grows is cut at `size`. Raises `ChangedWhileRead` when it ends before, and `OSError` as
    reading does; what was yielded until then is no complete archive, and its receiver must learn that.
    """
    pieces = read(descriptor, size)
    name = inner_name(name)
    if form is Form.ZIP:
        chunks = _zip(pieces, name, size, mtime)
    elif form is Form.GZ:
        chunks = gz(pieces, name, mtime)
    else:
        chunks = zst(pieces, size)
    return regrouped(chunks)


def read(descriptor: int, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file in pieces. Raises `ChangedWhileRead` when it ends before."""
    offset = 0
    while offset < size:
        piece = os.pread(descriptor, min(_READ, size - offset), offset)
        if not piece:
            raise ChangedWhileRead(f"the file ended after {offset} of {size} bytes")
        offset += len(piece)
        yield piece


def regrouped(chunks: Iterable[bytes]) -> Generator[bytes, None, None]:
    """The same bytes in pieces that are worth a write."""
    return joined(chunks, _PIECE)


def inner_name(name: str) -> str:
    """One name that no archiver takes for a path, here or on Windows, and that drives no terminal."""
    last = harmless(printable(name).rpartition("/")[2])
    if last.startswith(".."):
        last = "__" + last[2:]
    return last or "file"


def harmless(name: str) -> str:
    """A name or path without the characters that are none on other systems: backslashes, controls."""
    return "".join("_" if c == "\\" or c < " " or "\x7f" <= c <= "\x9f" else c for c in name)


def distinct(names: Sequence[str]) -> list[str]:
    """The names of one directory as text that is `harmless`, and still different from each other.

    A name that needs no change keeps its own; of others that would become the same, each later one is
    numbered: ``a_b (2).txt``.
    """
    made = [harmless(printable(name)) for name in names]
    taken = {name for name, own in zip(made, names, strict=True) if name == own}
    if len(taken) == len(made):
        return made
    last: Counter[str] = Counter()
    for place, own in enumerate(names):
        if (name := made[place]) != own:
            made[place] = _free(name, taken, last)
            taken.add(made[place])
    return made


def _free(name: str, taken: set[str], last: Counter[str]) -> str:
    """The name, or what it becomes with the next number that is free; `last` has the numbers given so far."""
    stem, dot, suffix = name.rpartition(".")
    if not stem:
        stem, dot, suffix = name, "", ""
    free = name
    while free in taken:
        # From the last one on: many that become the same would take the square of their number else.
        last[name] = max(last[name], 1) + 1
        free = f"{stem} ({last[name]}){dot}{suffix}"
    return free


def zst(pieces: Iterable[bytes], size: int | None = None, threads: int = 0) -> Iterator[bytes]:
    """One zstd frame with a checksum, and the content's size where it is known (RFC 8878).

    With threads of its own it takes some 10 MiB of memory for each; however many they are, the frame is the
    same, but not the same as with none.
    """
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: _ZST_LEVEL,
        zstd.CompressionParameter.checksum_flag: 1,
        zstd.CompressionParameter.nb_workers: threads,
    }
    compressor = zstd.ZstdCompressor(options=options)
    if size is not None:
        compressor.set_pledged_input_size(size)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def _zip(pieces: Iterable[bytes], name: str, size: int, mtime: float) -> Iterator[bytes]:
    """A zip archive of one member."""
    head = Head(name, size, mtime, _MODE, DEFLATED)
    records = Zip(Notes())
    yield records.begin(head)
    checksum = packed = 0
    for block in map(deflate, blocks(pieces)):
        checksum = joined_checksum(checksum, block.checksum, block.size)
        packed += len(block.data)
        yield block.data
    yield records.finish(head, checksum, packed)
    yield from records.end()
