"""A directory as one stream: tar, tar.gz, tar.zst, zip.

The tree is walked while it is sent, so memory does not grow with the size of its files; zip keeps about a
hundred bytes a member, because its directory comes last. Where the length is promised first (tar, and zip,
which only stores), the tree is walked twice, and what no longer fits the promise raises: an archive that
lacks something never ends like a complete one.

Members are in the order of their names, directories before what is in them. Links that lead to a regular
file of the view are stored as that file, as a download of them would give it; other links, sockets, devices
and the like have no content and are left out.
"""

from __future__ import annotations

import enum
import os
import stat
import struct
import tarfile
from collections.abc import Generator, Iterator
from typing import NamedTuple, Protocol

from isal import isal_zlib

from fileexport.disk.archive import dos_time, gz, harmless, read, regrouped, zst
from fileexport.disk.jail import Entry, Opened, View
from fileexport.errors import ChangedWhileRead, FileNameError
from fileexport.paths import RelPath, printable

#: Blocks of a tar archive, and the two empty ones at its end (POSIX pax).
_BLOCK = 512
_UINT16, _UINT32 = 0xFFFF, 0xFFFFFFFF
#: Bit 3: sizes and CRC follow the data; bit 11: names are UTF-8 (APPNOTE 4.4.4).
_LATER, _UTF8 = 0x0008, 0x0800


class TreeForm(enum.Enum):
    """A form of a whole directory; its value is what `archive=` takes, and its suffix."""

    TAR = "tar"
    TAR_GZ = "tar.gz"
    TAR_ZST = "tar.zst"
    ZIP = "zip"

    @property
    def content_type(self) -> str:
        """The media type."""
        return _CONTENT_TYPES[self]


_CONTENT_TYPES = {
    TreeForm.TAR: "application/x-tar",
    TreeForm.TAR_GZ: "application/gzip",
    TreeForm.TAR_ZST: "application/zstd",
    TreeForm.ZIP: "application/zip",
}


class Source(Protocol):
    """Where the members come from: the calls of a jail."""

    def open(self, view: View, path: RelPath) -> Opened: ...
    def stat(self, view: View, path: RelPath) -> os.stat_result: ...
    def entries(self, view: View, path: RelPath) -> Iterator[Entry]: ...


class Member(NamedTuple):
    """A file or directory of the tree, by its path from the top. `size` is 0 for a directory."""

    path: RelPath
    is_directory: bool
    size: int
    mtime_ns: int
    mode: int


class Tree(NamedTuple):
    """A directory of a source, as `name` in its archive."""

    source: Source
    view: View
    top: RelPath
    name: str

    def members(self) -> Iterator[Member]:
        """Everything below the top, each directory before what is in it. Raises `OSError`.

        Raises `FileNameError` for what lies deeper than a path can name.
        """
        return self._below(RelPath())

    def _below(self, path: RelPath) -> Iterator[Member]:
        entries = sorted(self.source.entries(self.view, self.top + path))
        for entry in entries:
            member = self._member(path / entry.name, entry)
            if member is None:
                continue
            yield member
            if member.is_directory:
                yield from self._below(member.path)

    def _member(self, path: RelPath, entry: Entry) -> Member | None:
        if entry.kind in ("file", "directory"):
            return Member(path, entry.kind == "directory", entry.size, entry.mtime_ns, entry.mode)
        if entry.kind != "link":
            return None
        try:
            status = self.source.stat(self.view, self.top + path)
        except (OSError, FileNameError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return Member(path, False, status.st_size, status.st_mtime_ns, status.st_mode)


class _Container(Protocol):
    """How members stand in an archive. What each method returns has the same length whatever `checksum`."""

    def before(self, member: Member, name: str) -> bytes: ...
    def after(self, member: Member, checksum: int) -> bytes: ...
    def end(self) -> bytes: ...


def archived(tree: Tree, form: TreeForm) -> tuple[int | None, Generator[bytes, None, None]]:
    """The archive's length, where it can be promised, and its bytes in pieces.

    Raises `OSError` and `FileNameError` as reading the tree does. The generator raises them too, and
    `ChangedWhileRead` where the tree is not what it was when the length was promised; what it yielded until
    then is no complete archive, and its receiver must learn that.
    """
    if form is TreeForm.TAR_GZ:
        return None, regrouped(gz(_stream(tree, _Tar()), harmless(printable(tree.name)) + ".tar", 0))
    if form is TreeForm.TAR_ZST:
        return None, regrouped(zst(_stream(tree, _Tar())))
    kind = _Tar if form is TreeForm.TAR else _Zip
    length = _length(tree, kind())
    return length, regrouped(_exactly(length, _stream(tree, kind())))


def _stream(tree: Tree, container: _Container) -> Iterator[bytes]:
    for member in tree.members():
        yield container.before(member, _name(tree, member))
        checksum = 0
        if not member.is_directory:
            for piece in _content(tree, member):
                checksum = isal_zlib.crc32(piece, checksum)
                yield piece
        yield container.after(member, checksum)
    yield container.end()


def _content(tree: Tree, member: Member) -> Iterator[bytes]:
    with tree.source.open(tree.view, tree.top + member.path) as opened:
        if opened.is_directory or opened.stat.st_size != member.size:
            raise ChangedWhileRead(f"{member.path} changed while the archive was made")
        yield from read(opened.descriptor, member.size)


def _length(tree: Tree, container: _Container) -> int:
    length = 0
    for member in tree.members():
        length += len(container.before(member, _name(tree, member))) + member.size
        length += len(container.after(member, 0))
    return length + len(container.end())


def _exactly(length: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    left = length
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            break
        yield piece
    if left:
        raise ChangedWhileRead("the directory changed while the archive was made")


def _name(tree: Tree, member: Member) -> str:
    """The member's path in the archive: relative, below the directory's own name, with slashes only."""
    return "/".join((tree.name, *member.path)) + "/" * member.is_directory


class _Tar:
    """POSIX pax: names and sizes of any length; nobody's user and group."""

    def before(self, member: Member, name: str) -> bytes:
        info = tarfile.TarInfo(name.rstrip("/"))
        info.type = tarfile.DIRTYPE if member.is_directory else tarfile.REGTYPE
        info.size = member.size
        info.mtime = max(member.mtime_ns // 1_000_000_000, 0)
        info.mode = member.mode & 0o777
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")

    def after(self, member: Member, checksum: int) -> bytes:
        return bytes(-member.size % _BLOCK)

    def end(self) -> bytes:
        return bytes(2 * _BLOCK)


class _Zip:
    """Stored members, ZIP64 where a number asks for it (APPNOTE 6.3.10)."""

    def __init__(self) -> None:
        self._offset = 0
        self._at = 0
        self._name = b""
        self._count = 0
        self._directory = bytearray()

    def before(self, member: Member, name: str) -> bytes:
        self._name = harmless(printable(name)).encode("utf-8")
        self._at = self._offset
        large = member.size >= _UINT32
        flags = _UTF8 if member.is_directory else _UTF8 | _LATER
        extra = struct.pack("<HHQQ", 1, 16, 0, 0) if large else b""
        sizes = _UINT32 if large else 0
        head = struct.pack(
            "<4sHHH4sLLLHH",
            b"PK\x03\x04",
            45 if large else 20,
            flags,
            0,
            dos_time(member.mtime_ns / 1e9),
            0,
            sizes,
            sizes,
            len(self._name),
            len(extra),
        )
        return self._count_in(head + self._name + extra, member.size)

    def after(self, member: Member, checksum: int) -> bytes:
        self._enter(member, checksum)
        if member.is_directory:
            return b""
        kind = "<4sLQQ" if member.size >= _UINT32 else "<4sLLL"
        return self._count_in(struct.pack(kind, b"PK\x07\x08", checksum, member.size, member.size))

    def _enter(self, member: Member, checksum: int) -> None:
        """Note the member for the directory at the end."""
        large, far = member.size >= _UINT32, self._at >= _UINT32
        numbers = (member.size, member.size) * large + (self._at,) * far
        extra = struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
        size = _UINT32 if large else member.size
        version = 45 if numbers else 20
        kind = stat.S_IFDIR if member.is_directory else stat.S_IFREG
        self._directory += struct.pack(
            "<4sHHHH4sLLLHHHHHLL",
            b"PK\x01\x02",
            3 << 8 | version,
            version,
            _UTF8 if member.is_directory else _UTF8 | _LATER,
            0,
            dos_time(member.mtime_ns / 1e9),
            checksum,
            size,
            size,
            len(self._name),
            len(extra),
            0,
            0,
            0,
            (kind | member.mode & 0o777) << 16 | (0x10 if member.is_directory else 0),
            _UINT32 if far else self._at,
        )
        self._directory += self._name + extra
        self._count += 1

    def end(self) -> bytes:
        size, offset, count = len(self._directory), self._offset, self._count
        tail = b""
        if count >= _UINT16 or size >= _UINT32 or offset >= _UINT32:
            tail = struct.pack(
                "<4sQHHLLQQQQ", b"PK\x06\x06", 44, 3 << 8 | 45, 45, 0, 0, count, count, size, offset
            )
            tail += struct.pack("<4sLQL", b"PK\x06\x07", 0, offset + size, 1)
        tail += struct.pack(
            "<4sHHHHLLH",
            b"PK\x05\x06",
            0,
            0,
            min(count, _UINT16),
            min(count, _UINT16),
            min(size, _UINT32),
            min(offset, _UINT32),
            0,
        )
        return bytes(self._directory) + tail

    def _count_in(self, head: bytes, content: int = 0) -> bytes:
        self._offset += len(head) + content
        return head
