"""A directory as one stream: tar, tar.gz, tar.zst, zip.

The tree is walked while it is sent, so memory does not grow with the size of its files. Where the length is
promised first (tar, and zip, which only stores then), the tree is walked twice, and what no longer fits the
promise raises: an archive that lacks something never ends like a complete one.

Members are in the order of their names, directories before what is in them, and the same tree gives the same
bytes. Links that lead to a regular file of the view are stored as that file, as a download of them would give
it; other links, sockets, devices and the like have no content and are left out.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from isal import isal_zlib

from fileexport.disk import tars
from fileexport.disk.archive import harmless, read, regrouped, zst
from fileexport.disk.deflate import gz
from fileexport.disk.jail import Entry, Opened, View
from fileexport.disk.notes import Notes
from fileexport.disk.zips import STORED, Head, Zip
from fileexport.errors import ChangedWhileRead, FileExportError, FileNameError
from fileexport.paths import RelPath, printable

#: Told of an entry that is left out, by its name in the archive, and why.
LeftOut = Callable[[str, str], object]

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a link to a directory",
}


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


class Unreadable(FileExportError, PermissionError):
    """A file or directory of the tree may not be read."""


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


def _always() -> None:
    """Never in the way."""


def _nobody(name: str, why: str) -> None:
    """Left out without a word."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory of a source, as `name` in its archive, but for the entry `without` of its view.

    `check` is called for every entry that is walked over, and may raise.
    """

    source: Source
    view: View
    top: RelPath
    name: str
    without: RelPath | None = None
    check: Callable[[], object] = _always

    def members(self, left_out: LeftOut = _nobody) -> Iterator[Member]:
        """Everything below the top, each directory before what is in it.

        Raises `OSError`; `Unreadable` for a directory that may not be listed, `ChangedWhileRead` for one
        that went away, and `FileNameError` for what lies deeper than a path can name.
        """
        return self._below(RelPath(), left_out)

    def name_of(self, path: RelPath) -> str:
        """What lies at `path` from the top, in the archive: relative, with slashes only."""
        return "/".join((self.name, *path))

    def open(self, path: RelPath) -> Opened:
        """Open what lies at `path` from the top. Raises as `members` does."""
        try:
            return self.source.open(self.view, self.top + path)
        except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
            raise self._refusal(path, error) from error

    def _below(self, path: RelPath, left_out: LeftOut) -> Iterator[Member]:
        here = self.top + path
        hole = self.without.name if self.without is not None and self.without.parent == here else None
        try:
            entries = sorted(self._entries(here))
        except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
            if not path:
                raise
            raise self._refusal(path, error) from error
        for entry in entries:
            if entry.name == hole:
                continue
            member = self._member(path / entry.name, entry, left_out)
            if member is None:
                continue
            yield member
            if member.is_directory:
                yield from self._below(member.path, left_out)

    def _entries(self, path: RelPath) -> Iterator[Entry]:
        # In no variable: the traceback of what `check` raises would keep the directory open.
        for entry in self.source.entries(self.view, path):
            self.check()
            yield entry

    def _member(self, path: RelPath, entry: Entry, left_out: LeftOut) -> Member | None:
        if entry.kind in ("file", "directory"):
            return Member(path, entry.kind == "directory", entry.size, entry.mtime_ns, entry.mode)
        if entry.kind == "link":
            try:
                status = self.source.stat(self.view, self.top + path)
            except (OSError, FileNameError):
                left_out(self.name_of(path), "a link that leads to nothing here")
                return None
            if stat.S_ISREG(status.st_mode):
                return Member(path, False, status.st_size, status.st_mtime_ns, status.st_mode)
            entry = entry._replace(mode=status.st_mode)
        left_out(self.name_of(path), _KINDS.get(stat.S_IFMT(entry.mode), "neither file nor directory"))
        return None

    def _refusal(self, path: RelPath, error: OSError) -> FileExportError:
        name = harmless(printable(self.name_of(path)))
        if isinstance(error, PermissionError):
            return Unreadable(f"{name} cannot be read")
        return ChangedWhileRead(f"{name} went away while the archive was made")


class OneFile(Tree):
    """A single file, which is the only member of its archive."""

    __slots__ = ()

    def members(self, left_out: LeftOut = _nobody) -> Iterator[Member]:
        """The file itself. Raises `OSError`, also where it is a directory."""
        status = self.source.stat(self.view, self.top)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError
        yield Member(RelPath(), False, status.st_size, status.st_mtime_ns, status.st_mode)


class Supply(Protocol):
    """What an archive is made of: members with their names in it, each followed by its content.

    `name` is the archive's own, without a suffix. `content` is asked for once for each member that is no
    directory, before the next member.
    """

    name: str

    def members(self) -> Iterator[tuple[Member, str]]: ...
    def content(self, member: Member, name: str) -> Iterable[bytes]: ...


class _Whole:
    """A tree as it is; a file that grows is cut."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.name = tree.name

    def members(self) -> Iterator[tuple[Member, str]]:
        return ((member, self._tree.name_of(member.path)) for member in self._tree.members())

    def content(self, member: Member, name: str) -> Iterator[bytes]:
        with self._tree.open(member.path) as opened:
            if opened.is_directory or opened.stat.st_size != member.size:
                raise ChangedWhileRead(f"{harmless(printable(name))} changed while the archive was made")
            yield from read(opened.descriptor, member.size)


class _Container(Protocol):
    """How members stand in an archive. What each method returns has the same length whatever `checksum`.

    That is the CRC-32 of the content where the container `has_checksums`, else 0.
    """

    has_checksums: bool

    def before(self, member: Member, name: str) -> bytes: ...
    def after(self, member: Member, checksum: int) -> bytes: ...
    def end(self) -> bytes: ...


def archived(tree: Tree, form: TreeForm) -> tuple[int | None, Generator[bytes, None, None]]:
    """The archive's length, where it can be promised, and its bytes in pieces.

    Raises `OSError` and `FileNameError` as reading the tree does. The generator raises them too, and
    `ChangedWhileRead` where the tree is not what it was when the length was promised; what it yielded until
    then is no complete archive, and its receiver must learn that.
    """
    supply = _Whole(tree)
    if form is TreeForm.TAR_GZ:
        return None, regrouped(tar_gz(supply))
    if form is TreeForm.TAR_ZST:
        return None, regrouped(zst(tar(supply)))
    kind = _Tar if form is TreeForm.TAR else _Stored
    length = _length(supply, kind())
    return length, regrouped(_exactly(length, _stream(supply, kind())))


def tar(supply: Supply) -> Iterator[bytes]:
    """A tar archive, in pieces of any size."""
    return _stream(supply, _Tar())


def tar_gz(supply: Supply, threads: int = 0) -> Generator[bytes, None, None]:
    """The same, compressed by some threads of its own."""
    return gz(tar(supply), harmless(printable(supply.name)) + ".tar", 0, threads)


def _stream(supply: Supply, container: _Container) -> Iterator[bytes]:
    for member, name in supply.members():
        yield container.before(member, name)
        checksum = 0
        if not member.is_directory:
            for piece in supply.content(member, name):
                if container.has_checksums:
                    checksum = isal_zlib.crc32(piece, checksum)
                yield piece
        yield container.after(member, checksum)
    yield container.end()


def _length(supply: Supply, container: _Container) -> int:
    length = 0
    for member, name in supply.members():
        length += len(container.before(member, name)) + member.size
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


class _Tar:
    """POSIX pax."""

    has_checksums = False

    def before(self, member: Member, name: str) -> bytes:
        return tars.header(
            name,
            is_directory=member.is_directory,
            size=member.size,
            mtime=member.mtime_ns // 1_000_000_000,
            mode=member.mode,
        )

    def after(self, member: Member, checksum: int) -> bytes:
        return tars.padding(member.size)

    def end(self) -> bytes:
        return tars.END


class _Stored:
    """A zip archive whose members are stored as they are."""

    has_checksums = True

    def __init__(self) -> None:
        self._directory = Notes()
        self._zip = Zip(self._directory)
        self._head = Head("", 0, 0, 0, STORED)

    def before(self, member: Member, name: str) -> bytes:
        self._head = zip_head(member, name, STORED)
        if member.is_directory:
            return self._zip.whole(self._head, 0, 0)
        return self._zip.begin(self._head)

    def after(self, member: Member, checksum: int) -> bytes:
        return b"" if member.is_directory else self._zip.finish(self._head, checksum, member.size)

    def end(self) -> bytes:
        return b"".join(self._zip.end())


def zip_head(member: Member, name: str, method: int) -> Head:
    """A member as a zip archive describes it."""
    name = harmless(printable(name)) + "/" * member.is_directory
    return Head(name, member.size, member.mtime_ns / 1e9, member.mode, method)
