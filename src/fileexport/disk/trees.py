"""A directory as one stream: tar, tar.gz, tar.zst, zip.

The tree is walked while it is sent, so memory does not grow with the size of its files. It is walked once
before, which also gives the length where that can be promised (tar, and zip, which only stores then). What no
longer fits that first walk raises: an archive that lacks something never ends like a complete one.

Members are in the order of their names, directories before what is in them, and the same tree gives the same
bytes. Links that lead to a regular file of the view are stored as that file, as a download of them would give
it; other links, sockets, devices and the like have no content and are left out.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import NamedTuple, Protocol

from isal import isal_zlib

from fileexport.disk import tars
from fileexport.disk.archive import distinct, harmless, read, regrouped, zst
from fileexport.disk.deflate import NO_THREADS, Threads, gz
from fileexport.disk.jail import Entry, Opened, View
from fileexport.disk.notes import Notes
from fileexport.disk.zips import STORED, Head, Zip
from fileexport.errors import ChangedWhileRead, FileExportError, FileNameError
from fileexport.paths import RelPath, printable

#: Told of an entry that is left out, by its name in the archive, and why.
LeftOut = Callable[[str, str], object]

#: What the disk says where there is nothing, or a link to nothing, in a circle, or to where nobody may go.
NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM)
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
    def lstat(self, view: View, path: RelPath) -> os.stat_result: ...
    def entries(self, view: View, path: RelPath) -> Iterator[Entry]: ...


class Member(NamedTuple):
    """A file or directory of the tree, by its path from the top. `size` is 0 for a directory.

    `name` is its own in the archive: relative, with slashes only, and no other member has it.
    """

    path: RelPath
    name: str
    is_directory: bool
    size: int
    mtime_ns: int
    mode: int


class Tally:
    """Sums up a walk: `digest` is the same where names, modes and sizes are."""

    def __init__(self) -> None:
        self._digest = sha256()

    def of(self, members: Iterable[Member]) -> Iterator[Member]:
        """The same members; each is added when it comes by."""
        for member in members:
            self._digest.update(os.fsencode(f"{member.mode:o} {member.size} {member.path}\0"))
            yield member

    @property
    def digest(self) -> bytes:
        """Of what came by until now."""
        return self._digest.digest()


def changed(name: str) -> ChangedWhileRead:
    """The error for what has this name in its archive, and did not hold still."""
    return ChangedWhileRead(f"{harmless(printable(name))} changed while it was read: try again")


def _always() -> None:
    """Never in the way."""


def _nobody(name: str, why: str) -> None:
    """Left out without a word."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory of a source, as `name` in its archive.

    `check` is called for every entry that is found and again for every one that is walked over, and may
    raise. `only_text` is for archives whose names cannot hold every byte: see `distinct`. `known` is the
    digest of a `Tally` of it: a walk that does not end with the same one raises. With `chosen` only the
    entries of these names, and what is below them, belong to it.
    """

    source: Source
    view: View
    top: RelPath
    name: str
    check: Callable[[], object] = _always
    only_text: bool = False
    known: bytes | None = None
    chosen: frozenset[str] | None = None

    def members(self, left_out: LeftOut = _nobody) -> Iterator[Member]:
        """Everything below the top, each directory before what is in it.

        Raises `OSError`, `FileNotFoundError` where one that is chosen is not there; `Unreadable` for a
        directory that may not be listed, `ChangedWhileRead` for one that went away and, at the end, for a
        tree that is not the one that is `known`; `FileNameError` for what lies deeper than a path can name.
        """
        tally = Tally()
        yield from tally.of(self._found(left_out))
        if self.known is not None and tally.digest != self.known:
            raise changed(self.name)

    def open(self, member: Member) -> Opened:
        """Open a member. Raises as `members` does."""
        try:
            return self.source.open(self.view, self.top + member.path)
        except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
            raise _refusal(member.name, error) from error

    def _found(self, left_out: LeftOut) -> Iterator[Member]:
        return self._below(RelPath(), self._names([self.name])[0], left_out)

    def _names(self, names: list[str]) -> list[str]:
        return distinct(names) if self.only_text else names

    def _below(self, path: RelPath, name: str, left_out: LeftOut) -> Iterator[Member]:
        try:
            entries = sorted(self._entries(path))
        except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
            if not path:
                raise
            raise _refusal(name, error) from error
        for entry, own in zip(entries, self._names([entry.name for entry in entries]), strict=True):
            self.check()
            member = self._member(path / entry.name, f"{name}/{own}", entry, left_out)
            if member is None:
                continue
            yield member
            if member.is_directory:
                yield from self._below(member.path, member.name, left_out)

    def _entries(self, path: RelPath) -> Iterator[Entry]:
        if self.chosen is not None and not path:
            for name in self.chosen:
                self.check()
                yield Entry.of(name, self.source.lstat(self.view, self.top / name))
            return
        # In no variable: the traceback of what `check` raises would keep the directory open.
        for entry in self.source.entries(self.view, self.top + path):
            self.check()
            yield entry

    def _member(self, path: RelPath, name: str, entry: Entry, left_out: LeftOut) -> Member | None:
        if entry.kind in ("file", "directory"):
            return Member(path, name, entry.kind == "directory", entry.size, entry.mtime_ns, entry.mode)
        if entry.kind == "link":
            try:
                status = self.source.stat(self.view, self.top + path)
            except (OSError, FileNameError) as error:
                # An error of the disk says nothing of the link: a file must not be missing for it.
                if isinstance(error, OSError) and error.errno not in NOWHERE:
                    raise
                left_out(name, "a link that leads to nothing here")
                return None
            if stat.S_ISREG(status.st_mode):
                return Member(path, name, False, status.st_size, status.st_mtime_ns, status.st_mode)
            entry = entry._replace(mode=status.st_mode)
        left_out(name, _KINDS.get(stat.S_IFMT(entry.mode), "neither file nor directory"))
        return None


def _refusal(name: str, error: OSError) -> FileExportError:
    shown = harmless(printable(name))
    if isinstance(error, PermissionError):
        return Unreadable(f"{shown} cannot be read")
    return ChangedWhileRead(f"{shown} went away while the archive was made")


class OneFile(Tree):
    """A single file, which is the only member of its archive."""

    __slots__ = ()

    def _found(self, left_out: LeftOut) -> Iterator[Member]:
        # The file itself; also a directory in its place is an `OSError`.
        self.check()
        status = self.source.stat(self.view, self.top)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError
        [name] = self._names([self.name])
        yield Member(RelPath(), name, False, status.st_size, status.st_mtime_ns, status.st_mode)


class Supply(Protocol):
    """What an archive is made of: members, each followed by its content.

    `name` is the archive's own, without a suffix. `content` is asked for once for each member that is no
    directory, before the next member.
    """

    name: str

    def members(self) -> Iterator[Member]: ...
    def content(self, member: Member) -> Iterable[bytes]: ...


class _Whole:
    """A tree as it is; a file that grows is cut."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.name = tree.name

    def members(self) -> Iterator[Member]:
        return self._tree.members()

    def content(self, member: Member) -> Iterator[bytes]:
        with self._tree.open(member) as opened:
            if opened.is_directory or opened.stat.st_size != member.size:
                raise changed(member.name)
            yield from read(opened.descriptor, member.size)


class _Container(Protocol):
    """How members stand in an archive. What each method returns has the same length whatever `checksum`.

    That is the CRC-32 of the content where the container `has_checksums`, else 0.
    """

    has_checksums: bool

    def before(self, member: Member) -> bytes: ...
    def after(self, member: Member, checksum: int) -> bytes: ...
    def end(self) -> bytes: ...


def archived(tree: Tree, form: TreeForm) -> tuple[int | None, Generator[bytes, None, None]]:
    """The archive's length, where it can be promised, and its bytes in pieces.

    Walks the tree. Raises `OSError` and `FileNameError` as reading it does. The generator raises them too,
    and `ChangedWhileRead` where the tree is not what it was then; what it yielded before is no complete
    archive, and its receiver must learn that.
    """
    tree = replace(tree, only_text=form is TreeForm.ZIP)
    kind = _Stored if form is TreeForm.ZIP else _Tar
    tally = Tally()
    length = _length(tally.of(tree.members()), kind())
    pieces = _exactly(length, _stream(_Whole(replace(tree, known=tally.digest)), kind()), tree.name)
    if form is TreeForm.TAR_GZ:
        return None, regrouped(_tar_gz(pieces, tree.name, NO_THREADS))
    if form is TreeForm.TAR_ZST:
        return None, regrouped(zst(pieces))
    return length, regrouped(pieces)


def tar(supply: Supply) -> Iterator[bytes]:
    """A tar archive, in pieces of any size."""
    return _stream(supply, _Tar())


def tar_gz(supply: Supply, threads: Threads) -> Generator[bytes, None, None]:
    """The same, compressed by some threads."""
    return _tar_gz(tar(supply), supply.name, threads)


def _tar_gz(pieces: Iterable[bytes], name: str, threads: Threads) -> Generator[bytes, None, None]:
    return gz(pieces, harmless(printable(name)) + ".tar", 0, threads)


def _stream(supply: Supply, container: _Container) -> Iterator[bytes]:
    for member in supply.members():
        yield container.before(member)
        checksum = 0
        if not member.is_directory:
            for piece in supply.content(member):
                if container.has_checksums:
                    checksum = isal_zlib.crc32(piece, checksum)
                yield piece
        yield container.after(member, checksum)
    yield container.end()


def _length(members: Iterable[Member], container: _Container) -> int:
    length = 0
    for member in members:
        length += len(container.before(member)) + member.size
        length += len(container.after(member, 0))
    return length + len(container.end())


def _exactly(length: int, pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    left = length
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            break
        yield piece
    if left:
        raise changed(name)


class _Tar:
    """POSIX pax."""

    has_checksums = False

    def before(self, member: Member) -> bytes:
        return tars.header(
            member.name,
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

    def before(self, member: Member) -> bytes:
        self._head = zip_head(member, STORED)
        if member.is_directory:
            return self._zip.whole(self._head, 0, 0)
        return self._zip.begin(self._head)

    def after(self, member: Member, checksum: int) -> bytes:
        return b"" if member.is_directory else self._zip.finish(self._head, checksum, member.size)

    def end(self) -> bytes:
        return b"".join(self._zip.end())


def zip_head(member: Member, method: int) -> Head:
    """A member as a zip archive describes it; its name is text."""
    return Head(
        member.name + "/" * member.is_directory, member.size, member.mtime_ns / 1e9, member.mode, method
    )
