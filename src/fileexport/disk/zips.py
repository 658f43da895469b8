"""The records of a zip archive, ZIP64 where a number asks for it (APPNOTE 6.3.10)."""

from __future__ import annotations

import stat
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from fileexport.disk.deflate import seconds
from fileexport.disk.notes import Notes

STORED, DEFLATED = 0, 8
_UINT16, _UINT32 = 0xFFFF, 0xFFFFFFFF
#: From this size on a member is counted by ZIP64, since DEFLATE may make it larger than it was.
_LARGE = _UINT32 - (_UINT32 >> 8)
#: Bit 3: sizes and CRC follow the data; bit 11: names are UTF-8 (APPNOTE 4.4.4).
_LATER, _UTF8 = 0x0008, 0x0800
_PLAIN, _ZIP64 = 20, 45
_UNIX = 3 << 8
_DOS_DIRECTORY = 0x10


class Head(NamedTuple):
    """What is known of a member before its content. `name` ends with a slash where it is a directory.

    `size` in bytes, `mtime` in seconds, `mode` taken `& 0o777`; `method` is `STORED` or `DEFLATED`.
    """

    name: str
    size: int
    mtime: float
    mode: int
    method: int

    @property
    def is_directory(self) -> bool:
        """Whether it has no content at all."""
        return self.name.endswith("/")

    @property
    def is_large(self) -> bool:
        """Whether its sizes stand in ZIP64 fields, wherever they stand."""
        return self.size >= _LARGE


class Zip:
    """What stands between the members of one archive and behind them; asked for in that order.

    The caller puts the content between `begin` and `finish`, or behind `whole`. The directory that belongs at
    the end is kept in `directory`: a hundred bytes a member.
    """

    def __init__(self, directory: Notes) -> None:
        self._directory = directory
        self._offset = 0
        self._at = 0
        self._count = 0

    def begin(self, head: Head) -> bytes:
        """What stands before a member whose checksum is not known yet."""
        size = _UINT32 if head.is_large else 0
        return self._local(head, _LATER, 0, size, size, (0, 0))

    def finish(self, head: Head, checksum: int, packed: int) -> bytes:
        """What stands behind that member: `packed` bytes of content it was."""
        kind = "<4sLQQ" if head.is_large else "<4sLLL"
        record = struct.pack(kind, b"PK\x07\x08", checksum, packed, head.size)
        self._offset += packed + len(record)
        self._enter(head, _LATER, checksum, packed)
        return record

    def whole(self, head: Head, checksum: int, packed: int) -> bytes:
        """What stands before a member of which all is known; nothing stands behind it. Not for large ones."""
        record = self._local(head, 0, checksum, packed, head.size)
        self._offset += packed
        self._enter(head, 0, checksum, packed)
        return record

    def _local(
        self, head: Head, flags: int, checksum: int, packed: int, size: int, large: tuple[int, ...] = ()
    ) -> bytes:
        self._at = self._offset
        extra = _zip64(*large) if head.is_large else b""
        name = head.name.encode("utf-8")
        record = struct.pack(
            "<4sHHH4sLLLHH",
            b"PK\x03\x04",
            _ZIP64 if head.is_large else _PLAIN,
            _UTF8 | flags,
            head.method,
            dos_time(head.mtime),
            checksum,
            packed,
            size,
            len(name),
            len(extra),
        )
        self._offset += len(record) + len(name) + len(extra)
        return record + name + extra

    def _enter(self, head: Head, flags: int, checksum: int, packed: int) -> None:
        """Note the member for the directory at the end."""
        far = self._at >= _UINT32
        numbers = (head.size, packed) * head.is_large + (self._at,) * far
        extra = _zip64(*numbers)
        name = head.name.encode("utf-8")
        version = _ZIP64 if numbers else _PLAIN
        kind = stat.S_IFDIR if head.is_directory else stat.S_IFREG
        record = struct.pack(
            "<4sHHHH4sLLLHHHHHLL",
            b"PK\x01\x02",
            _UNIX | version,
            version,
            _UTF8 | flags,
            head.method,
            dos_time(head.mtime),
            checksum,
            _UINT32 if head.is_large else packed,
            _UINT32 if head.is_large else head.size,
            len(name),
            len(extra),
            0,
            0,
            0,
            (kind | head.mode & 0o777) << 16 | _DOS_DIRECTORY * head.is_directory,
            _UINT32 if far else self._at,
        )
        self._directory.write(record + name + extra)
        self._count += 1

    def end(self) -> Iterator[bytes]:
        """The directory and what ends the archive."""
        yield from self._directory.pieces()
        size, offset, count = self._directory.size, self._offset, self._count
        if count >= _UINT16 or size >= _UINT32 or offset >= _UINT32:
            numbers = (_UNIX | _ZIP64, _ZIP64, 0, 0, count, count, size, offset)
            yield struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, *numbers)
            yield struct.pack("<4sLQL", b"PK\x06\x07", 0, offset + size, 1)
        short = min(count, _UINT16)
        end = (0, 0, short, short, min(size, _UINT32), min(offset, _UINT32), 0)
        yield struct.pack("<4sHHHHLLH", b"PK\x05\x06", *end)


def _zip64(*numbers: int) -> bytes:
    """The extra field that holds them, or nothing (APPNOTE 4.5.3)."""
    return struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""


def dos_time(mtime: float) -> bytes:
    """Local time as zip stores it: two seconds' resolution, nothing before 1980."""
    year, month, day, hour, minute, second = time.localtime(seconds(mtime))[:6]
    if year < 1980:
        year, month, day, hour, minute, second = 1980, 1, 1, 0, 0, 0
    date = (year - 1980) << 9 | month << 5 | day
    # A leap second would be 60, which two-second steps cannot hold.
    clock = hour << 11 | minute << 5 | min(second, 59) // 2
    return struct.pack("<HH", clock, date)
