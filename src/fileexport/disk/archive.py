"""Compressed forms of one file, as a stream from its descriptor.

Memory is constant: at most one piece that was read, what the compressor holds, and one piece for the caller.
"""

from __future__ import annotations

import enum
import os
import stat
import struct
import sys
import time
from collections.abc import Generator, Iterable, Iterator

import zipstream  # type: ignore[import-untyped]  # the library carries no annotations
from isal import isal_zlib

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

#: isal's fastest level that stays within 5 % of `gzip -6` on SQL text (level 1 is 3 to 10 % larger).
_GZ_LEVEL = 2
#: zlib's fastest level within 6 % of level 6, which takes half as long again.
_ZIP_LEVEL = 4
#: zstd's own default: smaller than gzip -6 on text and several times as fast.
_ZST_LEVEL = 3

_OS_UNIX = 3
_HAS_NAME = 8
_UINT32 = (1 << 32) - 1


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
    name = _inner_name(name)
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
    held: list[bytes] = []
    length = 0
    for chunk in chunks:
        held.append(chunk)
        length += len(chunk)
        if length >= _PIECE:
            yield b"".join(held)
            held.clear()
            length = 0
    if length:
        yield b"".join(held)


def _inner_name(name: str) -> str:
    """One name that no archiver takes for a path, here or on Windows, and that drives no terminal."""
    last = harmless(printable(name).rpartition("/")[2])
    if last.startswith(".."):
        last = "__" + last[2:]
    return last or "file"


def harmless(name: str) -> str:
    """A name or path without the characters that are none on other systems: backslashes, controls."""
    return "".join("_" if c == "\\" or c < " " or "\x7f" <= c <= "\x9f" else c for c in name)


def gz(pieces: Iterable[bytes], name: str, mtime: float) -> Iterator[bytes]:
    """A gzip member with name and time (RFC 1952)."""
    stored_name = _latin_1(name)
    flags = _HAS_NAME if stored_name else 0
    yield struct.pack("<4BL2B", 0x1F, 0x8B, 8, flags, _seconds(mtime), 0, _OS_UNIX) + stored_name
    compressor = isal_zlib.compressobj(_GZ_LEVEL, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
    checksum = size = 0
    for piece in pieces:
        checksum = isal_zlib.crc32(piece, checksum)
        size += len(piece)
        yield compressor.compress(piece)
    yield compressor.flush() + struct.pack("<LL", checksum, size & _UINT32)


def _latin_1(name: str) -> bytes:
    """The name as a gzip header spells it, NUL at its end; empty where the header cannot."""
    try:
        return name.encode("latin-1") + b"\0"
    except UnicodeEncodeError:
        return b""


def zst(pieces: Iterable[bytes], size: int | None = None) -> Iterator[bytes]:
    """One zstd frame with a checksum, and the content's size where it is known (RFC 8878)."""
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: _ZST_LEVEL,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    if size is not None:
        compressor.set_pledged_input_size(size)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def _zip(pieces: Iterable[bytes], name: str, size: int, mtime: float) -> Iterator[bytes]:
    """A zip archive of one member; ZIP64 where the size asks for it.

    zipstream dates what comes from an iterable now and gives it mode 0600 without a file type. Both headers
    begin with fixed fields (APPNOTE 4.3.7, 4.3.12), so we write the true values into those.
    """
    stream = zipstream.ZipStream(compress_type=zipstream.ZIP_DEFLATED, compress_level=_ZIP_LEVEL)
    stream.add(pieces, name, size=size)
    stamp = dos_time(mtime)
    yield from _overwritten(stream.all_files(), {10: stamp})
    mode = struct.pack("<L", (stat.S_IFREG | 0o644) << 16)
    yield from _overwritten(stream.footer(), {12: stamp, 38: mode})


def _overwritten(chunks: Iterator[bytes], fields: dict[int, bytes]) -> Iterator[bytes]:
    """The chunks, with `fields` (offset: bytes) of the first one replaced."""
    head = bytearray(next(chunks))
    for offset, value in fields.items():
        head[offset : offset + len(value)] = value
    yield bytes(head)
    yield from chunks


def _seconds(mtime: float) -> int:
    """`mtime` within the 32 bits that a header has for it."""
    return int(min(max(mtime, 0), _UINT32))


def dos_time(mtime: float) -> bytes:
    """Local time as zip stores it: two seconds' resolution, nothing before 1980."""
    year, month, day, hour, minute, second = time.localtime(_seconds(mtime))[:6]
    if year < 1980:
        year, month, day, hour, minute, second = 1980, 1, 1, 0, 0, 0
    date = (year - 1980) << 9 | month << 5 | day
    # A leap second would be 60, which two-second steps cannot hold.
    clock = hour << 11 | minute << 5 | min(second, 59) // 2
    return struct.pack("<HH", clock, date)
