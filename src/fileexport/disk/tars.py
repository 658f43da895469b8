"""The records of a tar archive (POSIX pax): names and sizes of any length; nobody's user and group."""

from __future__ import annotations

import tarfile

_BLOCK = 512
#: Two empty blocks.
END = bytes(2 * _BLOCK)
#: What fits into the fields of a plain header: bytes of a name, and eleven octal digits.
_MAX_NAME, _MAX_NUMBER = 100, 8**11

# A plain header but for name, mode, size, time and checksum, in whose place spaces are counted.
_NOBODY = b"0000000\0" * 2
_KINDS = {False: b"0", True: b"5"}
_TAIL = bytes(100) + b"ustar\x0000" + bytes(247)
_FIXED = sum(_NOBODY) + 8 * ord(" ") + sum(_TAIL)


def header(name: str, *, is_directory: bool, size: int, mtime: int, mode: int) -> bytes:
    """What stands before a member's content. `mtime` in seconds, `mode` taken `& 0o777`."""
    mtime = max(mtime, 0)
    name += "/" * is_directory
    if name.isascii() and len(name) <= _MAX_NAME and size < _MAX_NUMBER and mtime < _MAX_NUMBER:
        return _plain(name.encode("ascii"), is_directory, size, mtime, mode & 0o777)
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if is_directory else tarfile.REGTYPE
    info.size, info.mtime, info.mode = size, mtime, mode & 0o777
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _plain(name: bytes, is_directory: bool, size: int, mtime: int, mode: int) -> bytes:
    """The header in one block: `TarInfo.tobuf` writes the same, in many times the time."""
    kind = _KINDS[is_directory]
    first, times = b"%07o\0" % mode, b"%011o\0%011o\0" % (size, mtime)
    checksum = sum(name) + sum(first) + sum(times) + kind[0] + _FIXED
    return b"%b%b%b%b%06o\0 %b%b" % (name.ljust(100, b"\0"), first, _NOBODY, times, checksum, kind, _TAIL)


def padding(size: int) -> bytes:
    """What stands behind `size` bytes of content."""
    return bytes(-size % _BLOCK)
