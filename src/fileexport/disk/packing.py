"""A file or a directory as an archive of its own, made in the background.

What `disk.trees` sends while it reads, and more: watched all the time, with checksums for `sha256sum -c`,
compressed by some threads, in memory that grows neither with sizes nor with the number of members. (The names
of one directory are in memory while it is walked, because they are sorted.)
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import NamedTuple, Protocol

from fileexport.disk.archive import Form, inner_name, read, regrouped, zst
from fileexport.disk.deflate import (
    BLOCK,
    Block,
    Deflated,
    Threads,
    blocks,
    deflate,
    gz,
    joined_checksum,
    ordered,
)
from fileexport.disk.notes import Notes
from fileexport.disk.staging import Staged
from fileexport.disk.trees import Member, Supply, Tally, Tree, TreeForm, changed, tar, tar_gz, zip_head
from fileexport.disk.zips import DEFLATED, STORED, Head, Zip
from fileexport.errors import ChangedWhileRead
from fileexport.paths import RelPath

#: The member that holds the checksums of all others, by their names in the archive.
SUMS = "SHA256SUMS"
_SUMS_MODE = 0o644
#: Members that are compressed in one go: a task of their own each would cost more than the work.
_BATCH = 256
_ESCAPED = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


class Watcher(Protocol):
    """Who follows an archive that is being made. What it raises ends the making."""

    def check(self) -> None:
        """Called for every 256 KiB that were read. (For members there is `Tree.check`.)"""

    def advance(self, nbytes: int = 0, files: int = 0) -> None:
        """So much more was read."""

    def left_out(self, name: str, why: str) -> None:
        """An entry is not in the archive."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How an archive is made. `spill` begins a staged file for what memory should not hold.

    All archives of one time share `threads`: within `Threads.used`.
    """

    form: TreeForm | Form
    threads: Threads
    sums: bool
    spill: Callable[[], Staged]


class Total(NamedTuple):
    """What a tree holds: bytes, files, and the bits to read and write that all its members agree on.

    A directory has those to read for whom may also search it. `digest` is for `Tree.known`.
    """

    nbytes: int
    files: int
    mode: int
    digest: bytes


def total(tree: Tree) -> Total:
    """What a tree holds now. Raises as walking it does."""
    nbytes = files = 0
    mode = 0o666
    tally = Tally()
    for member in tally.of(tree.members()):
        nbytes += member.size
        files += not member.is_directory
        mode &= readable(member.mode)
    return Total(nbytes, files, mode, tally.digest)


def readable(mode: int) -> int:
    """The bits of a mode that say who may read and write; in a directory only who may search it reads."""
    if stat.S_ISDIR(mode):
        for who in (0o070, 0o007):
            if mode & who & 0o555 != who & 0o555:
                mode &= ~who
    return mode & 0o666


def packed(tree: Tree, packing: Packing, watcher: Watcher) -> Generator[bytes, None, None]:
    """The archive in pieces.

    Raises `OSError` and `FileNameError` as reading the tree does, and `ChangedWhileRead` where a file is
    not the same from when it was found until it was read, or the tree
    is not the one that is `known`. Nothing stays behind when the generator is closed.
    """
    with ExitStack() as closing:
        notes = partial(_notes, closing, packing)
        named = replace(tree, only_text=packing.form is TreeForm.ZIP)
        supply = _Watched(named, watcher, notes() if packing.sums else None)
        yield from regrouped(_formed(supply, packing, notes))


def _notes(closing: ExitStack, packing: Packing) -> Notes:
    made = Notes(packing.spill)
    closing.callback(made.close)
    return made


def _formed(supply: _Watched, packing: Packing, notes: Callable[[], Notes]) -> Iterable[bytes]:
    threads = packing.threads
    if packing.form in (Form.GZ, Form.ZST):
        return _bare(supply, packing.form is Form.GZ, threads)
    if packing.form is TreeForm.TAR_GZ:
        return tar_gz(supply, threads)
    if packing.form is TreeForm.TAR_ZST:
        return zst(tar(supply), threads=threads.share)
    if packing.form is TreeForm.TAR:
        return tar(supply)
    return _zipped(supply, threads, notes())


def _bare(supply: _Watched, is_gz: bool, threads: Threads) -> Iterator[bytes]:
    """The one file compressed, without anything around it."""
    for member in supply.members():
        pieces = supply.content(member)
        if is_gz:
            yield from gz(pieces, inner_name(member.name), member.mtime_ns / 1e9, threads)
        else:
            yield from zst(pieces, member.size, threads.share)


class _Watched:
    """A tree that is read for a watcher, and must hold still; with sums, they are its last member."""

    def __init__(self, tree: Tree, watcher: Watcher, sums: Notes | None) -> None:
        self._tree = tree
        self._watcher = watcher
        self._sums = sums
        self._newest = 0
        self._ended = False
        self.name = tree.name

    def members(self) -> Iterator[Member]:
        for member in self._tree.members(self._watcher.left_out):
            self._newest = max(self._newest, member.mtime_ns)
            yield member
        self._ended = True
        if self._sums is not None:
            # Dated by what it speaks of: the same tree gives the same archive.
            yield Member(RelPath((SUMS,)), SUMS, False, self._sums.size, self._newest, _SUMS_MODE)

    def content(self, member: Member) -> Iterator[bytes]:
        if self._sums is not None and self._ended:
            yield from self._sums.pieces()
            return
        digest = sha256()
        for piece in self._pieces(member):
            if self._sums is not None:
                digest.update(piece)
            self._watcher.advance(len(piece))
            self._watcher.check()
            yield piece
        self._watcher.advance(files=1)
        if self._sums is not None:
            self._sums.write(sums_line(digest.hexdigest(), member.name))

    def _pieces(self, member: Member) -> Iterator[bytes]:
        with self._tree.open(member) as opened:
            found = opened.stat.st_size, opened.stat.st_mtime_ns
            if opened.is_directory or found != (member.size, member.mtime_ns):
                raise changed(member.name)
            try:
                yield from read(opened.descriptor, member.size)
            except ChangedWhileRead:
                raise changed(member.name) from None
            if _version(os.fstat(opened.descriptor)) != _version(opened.stat):
                raise changed(member.name)


def _version(status: os.stat_result) -> tuple[int, ...]:
    # Anybody who may write can put size and mtime back; ctime nobody can.
    return status.st_ino, status.st_ctime_ns, status.st_size, status.st_mtime_ns


def sums_line(digest: str, name: str) -> bytes:
    """A line as `sha256sum` writes and reads it; a name that would break it is escaped as it does."""
    escaped = re.sub(r"[\\\n\r]", lambda found: _ESCAPED[found[0]], name)
    mark = "\\" if escaped != name else ""
    return os.fsencode(f"{mark}{digest}  {escaped}\n")


class _Part(NamedTuple):
    """A block of a member's content, in the order of the archive."""

    head: Head
    is_first: bool
    block: Block


def _zipped(supply: Supply, threads: Threads, directory: Notes) -> Iterator[bytes]:
    """A zip archive whose members are deflated."""
    records = Zip(directory)
    checksum = length = 0
    for batch in ordered(_deflate_all, _batches(_parts(supply)), threads):
        for part, done in batch:
            if part.is_first and part.block.is_last:
                yield records.whole(part.head, done.checksum, len(done.data)) + done.data
                continue
            if part.is_first:
                yield records.begin(part.head)
                checksum = length = 0
            checksum = joined_checksum(checksum, done.checksum, done.size)
            length += len(done.data)
            yield done.data
            if part.block.is_last:
                yield records.finish(part.head, checksum, length)
    yield from records.end()


def _parts(supply: Supply) -> Iterator[_Part]:
    for member in supply.members():
        head = zip_head(member, DEFLATED if member.size else STORED)
        content = () if member.is_directory else supply.content(member)
        is_first = True
        for block in blocks(content):
            yield _Part(head, is_first, block)
            is_first = False


def _batches(parts: Iterator[_Part]) -> Iterator[list[_Part]]:
    batch: list[_Part] = []
    length = 0
    for part in parts:
        batch.append(part)
        length += len(part.block.data)
        if length >= BLOCK or len(batch) >= _BATCH:
            yield batch
            batch, length = [], 0
    yield batch


def _deflate_all(batch: list[_Part]) -> list[tuple[_Part, Deflated]]:
    nothing = Deflated(b"", 0, 0)
    return [(part, nothing if part.head.method == STORED else deflate(part.block)) for part in batch]
