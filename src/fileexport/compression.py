"""The work of a job: one file or directory becomes an archive beside it.

An order is what JSON can hold, and says all that the work needs: it may be carried out after a restart, and
for somebody whose token has gone meanwhile. `Exports.compress_order` makes it, and asks for the rights.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from fileexport.disk.archive import Form
from fileexport.disk.deflate import Threads
from fileexport.disk.jail import View
from fileexport.disk.packing import SUMS, Packing, packed, readable, total
from fileexport.disk.staging import Staged
from fileexport.disk.trees import NOWHERE, OneFile, Source, Tree, TreeForm
from fileexport.errors import BadRequestError, ConflictError, OverloadedError
from fileexport.meter import Meter
from fileexport.paths import RelPath, printable

#: Entries that were left out and are named in the result; more are only counted.
MAX_NAMED = 100
#: Bytes of an archive between two looks at the free space.
_LOOK = 16 << 20
#: An archive of unknown size is begun when there is room for this part of its source.
_LEAST_PART = 10


class ArchiveForm(enum.Enum):
    """What a job can make; its value is what `format=` takes."""

    TAR_GZ = "tar.gz"
    TAR_ZST = "tar.zst"
    ZIP = "zip"
    GZ = "gz"
    ZST = "zst"

    @property
    def holds_members(self) -> bool:
        """Whether it is a container: for directories too, and for more than the content."""
        return isinstance(_FORMS[self], TreeForm)


_FORMS: dict[ArchiveForm, TreeForm | Form] = {
    ArchiveForm.TAR_GZ: TreeForm.TAR_GZ,
    ArchiveForm.TAR_ZST: TreeForm.TAR_ZST,
    ArchiveForm.ZIP: TreeForm.ZIP,
    ArchiveForm.GZ: Form.GZ,
    ArchiveForm.ZST: Form.ZST,
}
_SUFFIXES = {ArchiveForm.TAR_GZ: ".tgz"}


def read_form(text: str) -> ArchiveForm:
    """The form of this name. Raises `BadRequestError`."""
    try:
        return ArchiveForm(text)
    except ValueError:
        raise BadRequestError(f"a format is one of {', '.join(form.value for form in ArchiveForm)}") from None


class Files(Source, Protocol):
    """What the work needs of the disk: the calls of a jail."""

    def stage(self, view: View, path: RelPath, *, exported: RelPath = ...) -> Staged: ...


def target_of(source: RelPath, form: ArchiveForm, *, is_directory: bool) -> RelPath:
    """Where the archive of `source` goes: beside it.

    The archive's suffix replaces the last one of a file's name, so that `db-dump.sql` becomes `db-dump.tgz`;
    it is appended to a directory's name, and where the form is only the file's content, smaller.
    """
    stem, dot, _ = source.name.rpartition(".")
    if is_directory or not form.holds_members or not dot or not stem.strip("."):
        stem = source.name
    return source.parent / (stem + _SUFFIXES.get(form, f".{form.value}"))


def check_order(
    source: RelPath, target: RelPath, form: ArchiveForm, *, is_directory: bool, sums: bool
) -> None:
    """Refuse an order that cannot be carried out, whatever is on the disk.

    Raises `BadRequestError`, and `ConflictError` for a file that would become its own archive.
    """
    if is_directory and not form.holds_members:
        raise BadRequestError(f"{form.value} is for a single file")
    if sums and not form.holds_members:
        raise BadRequestError(f"{form.value} has no place for checksums")
    if sums and source.name == SUMS:
        raise BadRequestError(f"in an archive with checksums, {SUMS} is their own name")
    if target == source:
        raise ConflictError("it would become its own archive: choose another format")


class Order(NamedTuple):
    """An order as the work takes it. All paths are those of the exported tree.

    `base` and `hidden` are what its principal could see when it was made; `exported` is the exported
    directory that holds `base`. `place` is what `place_of` said of the target.
    """

    source: RelPath
    target: RelPath
    form: ArchiveForm
    sums: bool
    base: RelPath
    exported: RelPath
    hidden: bool
    place: str

    def as_json(self) -> dict[str, Any]:
        """What JSON can hold; the same for equal orders."""
        return {
            "source": str(self.source),
            "target": str(self.target),
            "format": self.form.value,
            "sums": self.sums,
            "base": str(self.base),
            "exported": str(self.exported),
            "hidden": self.hidden,
            "place": self.place,
        }

    @classmethod
    def of_json(cls, order: Mapping[str, Any]) -> Order:
        """Read what `as_json` made."""
        paths = {key: RelPath.parse(order[key]) for key in ("source", "target", "base", "exported")}
        rest: dict[str, Any] = {key: order[key] for key in ("sums", "hidden", "place")}
        return cls(form=ArchiveForm(order["format"]), **{**rest, **paths})


class Compression:
    """Carries out orders: a `fileexport.jobs.Work`. Thread-safe."""

    def __init__(self, files: Files, threads: int) -> None:
        """`threads` compress for all orders together, as many as there are cores; callers read and write.

        Only zstd has threads of its own: what is an order's share when it begins. So n orders that begin one
        after the other have at most n (1 + ln n) of them, of some 10 MiB each, where there are n cores.
        """
        self._files = files
        self._threads = Threads(threads)

    def __call__(self, order: Mapping[str, Any], meter: Meter) -> dict[str, Any]:
        """Make the archive, and say of it: path, size, sha256, files, and what was skipped.

        It appears under its name when it is complete and on stable storage, in place of what was there, and
        with the mode that `narrowed` gives it. When this raises, what was there is untouched and nothing is
        left. Raises what `meter.check` does; what `replaced` does; `ChangedWhileRead`; `ConflictError` where
        the archive's directory is not the one of its order any more; `OSError` as the disk says, ENOSPC also
        where no more than the reserve would be left. Nobody can know how small the archive will be:
        it is begun when there is room for a tenth of its source, and watched.
        """
        try:
            with self._threads.used():
                return _Making(self._files, Order.of_json(order), meter).made(self._threads)
        except OverloadedError:
            # The jail's, before a stop: the meter's own word counts more.
            meter.check()
            raise

    def close(self) -> None:
        """End the threads; nothing may be carried out any more."""
        self._threads.close()


class _Making:
    """One archive that is being made."""

    def __init__(self, files: Files, order: Order, meter: Meter) -> None:
        self._files = files
        self._order = order
        self._meter = meter
        self._view = View(order.base, order.hidden)
        self._source, self._target = self._seen(order.source), self._seen(order.target)
        self._digest = sha256()
        self._size = 0
        self._packed_files = 0
        self._left_out: list[dict[str, str]] = []
        self._left_out_count = 0

    def _seen(self, path: RelPath) -> RelPath:
        seen = path.beneath(self._order.base)
        if not seen:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return seen

    def made(self, threads: Threads) -> dict[str, Any]:
        with self._files.open(self._view, self._source) as opened:
            source = opened.stat
        replaced(self._files, self._view, self._target, source)
        tree = self._tree(stat.S_ISDIR(source.st_mode))
        stage = partial(self._files.stage, self._view, self._target, exported=self._order.exported)
        place = self._place()
        with stage() as staged:
            held = total(tree)
            self._meter.bytes_total, self._meter.files_total = held.nbytes, held.files
            _require_room(staged, least_room(held.nbytes))
            packing = Packing(_FORMS[self._order.form], threads, self._order.sums, stage)
            with closing(packed(replace(tree, known=held.digest), packing, self)) as pieces:
                for piece in pieces:
                    self._write(staged, piece)
            self._meter.check()
            # The staged file goes to the directory that was opened, wherever that is by now.
            if place is None or self._place() != place:
                raise ConflictError("the directory of the archive was moved: order it again")
            old = replaced(self._files, self._view, self._target, source)
            staged.commit(mode=held.mode & narrowed(os.fstat(staged.descriptor), source, old))
        return self._result()

    def _place(self) -> str | None:
        """Where the target is now; None where its directory is not any more.

        Not the order's: the numbers of a file system may be others after a reboot.
        """
        try:
            return place_of(self._files, self._view, self._target)
        except OSError as error:
            if error.errno not in NOWHERE:
                raise
            return None

    def _tree(self, is_directory: bool) -> Tree:
        order = self._order
        check_order(order.source, order.target, order.form, is_directory=is_directory, sums=order.sums)
        kind = Tree if is_directory else OneFile
        return kind(self._files, self._view, self._source, self._source.name, check=self._meter.check)

    def _write(self, staged: Staged, piece: bytes) -> None:
        staged.write(piece)
        self._digest.update(piece)
        if self._size // _LOOK != (self._size + len(piece)) // _LOOK:
            _require_room(staged, 1)
        self._size += len(piece)

    def _result(self) -> dict[str, Any]:
        return {
            "path": printable(str(self._order.target)),
            "size": self._size,
            "sha256": self._digest.hexdigest(),
            "files": self._packed_files,
            "skipped": {"count": self._left_out_count, "entries": self._left_out},
        }

    # -- the watcher of `disk.packing`

    def check(self) -> None:
        self._meter.check()

    def advance(self, nbytes: int = 0, files: int = 0) -> None:
        self._packed_files += files
        self._meter.advance(nbytes, files)

    def left_out(self, name: str, why: str) -> None:
        self._left_out_count += 1
        if self._left_out_count <= MAX_NAMED:
            self._left_out.append({"name": printable(name), "why": why})


def place_of(files: Source, view: View, target: RelPath) -> str:
    """Where a name is: the same whatever links lead there. Raises `OSError` where its directory is not."""
    parent = files.stat(view, target.parent)
    return f"{parent.st_dev}:{parent.st_ino}/{target.name}"


def replaced(files: Source, view: View, target: RelPath, source: os.stat_result) -> os.stat_result | None:
    """What has the archive's name now, or what a link of that name leads to; None where nothing does.

    Raises `IsADirectoryError` where that is a directory, `ConflictError` where it is the source itself, and
    `OSError` where the disk does not say what it is.
    """
    try:
        old = files.stat(view, target)
    except OSError as error:
        if error.errno not in NOWHERE:
            raise
        return None
    if stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if (old.st_dev, old.st_ino) == (source.st_dev, source.st_ino):
        raise ConflictError("it would become its own archive: its name leads to the same file")
    return old


def narrowed(archive: os.stat_result, source: os.stat_result, old: os.stat_result | None) -> int:
    """The mode of an archive: what the umask gave it, and no more than its source and the old one allow.

    What a group may counts only for the same group; where it is another one, both it and all others may what
    both could.
    """
    mode = stat.S_IMODE(archive.st_mode) & 0o666
    for other in (source, old):
        if other is not None:
            mode &= _allowed(other, archive.st_gid)
    return mode


def _allowed(status: os.stat_result, group: int) -> int:
    mode = readable(status.st_mode)
    if status.st_gid != group:
        both = mode >> 3 & mode & 0o007
        mode = mode & 0o700 | both << 3 | both
    return mode


def least_room(size: int) -> int:
    """Bytes of room without which an archive of so many bytes of content is not begun."""
    return max(size // _LEAST_PART, 1)


def _require_room(staged: Staged, room: int) -> None:
    if staged.room() < room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
