"""Every verb, and who may: both doors call only this.

Plain functions that may block: a door calls the short ones where it stands and hands the rest to a pool.
Each takes the `Principal` that asks and raises `PermissionError` before it touches the disk where the right
is missing. What a caller may not see does not exist for it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

from blake3 import blake3

from fileexport.compression import Order, check_order, least_room, place_of, read_form, replaced, target_of
from fileexport.disk.jail import Entry, Opened, View
from fileexport.disk.trees import Tree, TreeForm, archived
from fileexport.disk.walks import Names, hashes, walk
from fileexport.errors import BadRequestError, DestinationNotFound, FileNameError, NotGranted
from fileexport.leases import Leases, Place
from fileexport.paths import RelPath
from fileexport.tokens import Principal, Right
from fileexport.uploads import Files, SmallFiles, Target, Upload, begin

#: Entries of one listing, over all its directories: bounds the memory that one request can take.
MAX_LISTED = 1_000_000
_TOO_MANY = f"more than {MAX_LISTED} entries: list a smaller directory"


class Pattern(NamedTuple):
    """Which files of a directory are meant: those whose names have both ends."""

    prefix: str = ""
    suffix: str = ""

    def matches(self, name: str) -> bool:
        """Whether a name has both ends; they may overlap."""
        return name.startswith(self.prefix) and name.endswith(self.suffix)


ANY = Pattern()


def file_version(opened: Opened) -> bytes:
    """16 bytes that are others when the file is another, or was changed since, as far as the disk tells."""
    status = opened.stat
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return blake3(repr(numbers).encode("ascii")).digest(length=16)


class Exports:
    """The exported directories of one tree: all of it, or just `directories`."""

    def __init__(self, tree: Files, directories: tuple[RelPath, ...] = ()) -> None:
        self._tree = tree
        self._directories = tuple(dict.fromkeys(directories)) or (RelPath(),)
        self._leases = Leases()
        self._names = Names()

    def bases(self, who: Principal) -> tuple[RelPath, ...]:
        """The highest directories that `who` may see: the exported ones, cut to the token's own part."""
        if not who.under:
            return self._directories
        found = []
        for directory in self._directories:
            if directory.beneath(who.under) is not None:
                found.append(directory)
            elif who.under.beneath(directory) is not None:
                found.append(who.under)
        return tuple(dict.fromkeys(found))

    # -- reading

    def open(self, who: Principal, path: RelPath) -> Opened | None:
        """Open a file or a directory; None for a directory above the exported ones.

        Raises `PermissionError`, or `OSError` as the disk says.
        """
        self._require(who, Right.READ)
        place = self._find(who, path)
        if place is None and self._is_virtual(who, path):
            return None
        view, rest = place or self._place(who, path)
        return self._tree.open(view, rest)

    def browse(self, who: Principal, path: RelPath) -> list[Entry]:
        """All entries of a directory: directories first, then by name.

        Above the exported directories these are the entries, each named by its path from there.
        """
        self._require(who, Right.READ)
        if self._is_virtual(who, path):
            return [self._base_entry(who, base, rest) for base, rest in self._bases_below(who, path)]
        view, rest = self._place(who, path)
        found = list(islice(self._tree.entries(view, rest), MAX_LISTED + 1))
        if len(found) > MAX_LISTED:
            raise BadRequestError(_TOO_MANY)
        # Names are different from each other, so that tuples are compared by them alone.
        found.sort()
        directories = [entry for entry in found if entry.kind == "directory"]
        return directories + [entry for entry in found if entry.kind != "directory"]

    def stat(self, who: Principal, path: RelPath) -> Entry:
        """What a listing shows of one path: a link is a link. Raises `OSError`."""
        self._require(who, Right.READ)
        if self._is_virtual(who, path):
            return Entry(path.name, "directory", 0, 0, stat.S_IFDIR)
        view, rest = self._place(who, path)
        return Entry.of(path.name, self._tree.lstat(view, rest))

    def walk(
        self, who: Principal, path: RelPath, *, recursive: bool = False
    ) -> Iterator[tuple[RelPath, Entry]]:
        """All entries of a directory by their paths from there, sorted by name; links are not entered.

        With `recursive` each directory is followed by what is in it. Above the exported directories these
        are the entries. Raises `OSError`, and for too many names at once `BadRequestError`, or
        `OverloadedError` where others keep them.
        """
        self._require(who, Right.READ)
        if not self._is_virtual(who, path):
            view, rest = self._place(who, path)
            return walk(self._tree, view, rest, recursive=recursive, names=self._names)
        return self._walk_bases(who, path, recursive)

    def _walk_bases(self, who: Principal, path: RelPath, recursive: bool) -> Iterator[tuple[RelPath, Entry]]:
        for base, rest in self._bases_below(who, path):
            yield rest, self._base_entry(who, base, rest)
            if recursive:
                view = View(base, hidden=who.sees_hidden)
                for below, entry in walk(self._tree, view, RelPath(), recursive=True, names=self._names):
                    with suppress(FileNameError):
                        yield rest + below, entry

    def hashes(
        self, who: Principal, path: RelPath, *, check: Callable[[], object] = lambda: None
    ) -> Iterator[tuple[RelPath, int, bytes] | None]:
        """Path from here, size and BLAKE3 of a file, or of every regular file below a directory.

        Links below it are not followed. `check` may raise to end it. None comes now and then within a large
        file, so that no result takes long. Raises as `walk`.
        """
        self._require(who, Right.READ)
        if not self._is_virtual(who, path):
            view, rest = self._place(who, path)
            return hashes(self._tree, view, rest, check, self._names)
        return self._hash_bases(who, path, check)

    def _hash_bases(
        self, who: Principal, path: RelPath, check: Callable[[], object]
    ) -> Iterator[tuple[RelPath, int, bytes] | None]:
        for base, rest in self._bases_below(who, path):
            view = View(base, hidden=who.sees_hidden)
            for row in hashes(self._tree, view, RelPath(), check, self._names):
                with suppress(FileNameError):
                    yield row and (rest + row[0], row[1], row[2])

    def files(
        self, who: Principal, path: RelPath, pattern: Pattern = ANY, *, recursive: bool = False
    ) -> list[Entry]:
        """The regular files of a directory that match, by name.

        Links that lead to a file count, with its size and time. With `recursive` also those of the
        directories below, named by their path; links to directories are not entered, nor are directories
        so deep that no path can name what lies in them.
        """
        self._require(who, Right.READ)
        if self._is_virtual(who, path):
            return []
        view, rest = self._place(who, path)
        found: list[Entry] = []
        todo = [RelPath()]
        while todo:
            below = todo.pop()
            directory, prefix = rest + below, "".join(f"{name}/" for name in below)
            for entry in self._entries_below(view, rest, below):
                if recursive and entry.kind == "directory":
                    with suppress(FileNameError):
                        RelPath((*path, *below, entry.name, "n"))
                        todo.append(below / entry.name)
                elif (
                    pattern.matches(entry.name)
                    and (file := self._as_file(view, directory, entry)) is not None
                ):
                    found.append(file._replace(name=prefix + entry.name) if prefix else file)
                if len(found) + len(todo) > MAX_LISTED:
                    raise BadRequestError(_TOO_MANY)
        found.sort()
        return found

    def _entries_below(self, view: View, top: RelPath, below: RelPath) -> Iterator[Entry]:
        """The entries of a directory at `below` from `top`, which itself must be there and may be listed.

        One below it may have gone meanwhile, or belong to somebody else: that costs only its own part.
        """
        try:
            yield from self._tree.entries(view, top + below)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            if not below:
                raise

    def archive(
        self, who: Principal, path: RelPath, form: TreeForm
    ) -> tuple[str, int | None, Generator[bytes, None, None]]:
        """A whole directory as one stream: the archive's file name, its length where known, its pieces.

        Walks the directory's tree first. Raises `OSError`, also while the
        pieces are read: what came until then is no complete archive. The root is called ``files`` in it.
        """
        self._require(who, Right.READ)
        view, rest = self._place(who, path)
        with self._tree.open(view, rest) as opened:
            if not opened.is_directory:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        name = path.name or "files"
        length, pieces = archived(Tree(self._tree, view, rest, name), form)
        return f"{name}.{form.value}", length, pieces

    def _as_file(self, view: View, directory: RelPath, entry: Entry) -> Entry | None:
        if entry.kind == "file":
            return entry
        if entry.kind != "link":
            return None
        try:
            status = self._tree.stat(view, directory / entry.name)
        except (OSError, FileNameError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return entry._replace(size=status.st_size, mtime_ns=status.st_mtime_ns)

    # -- changing

    def remove_file(self, who: Principal, path: RelPath) -> None:
        """Remove one file, or a link itself. Raises `FileNotFoundError`, `IsADirectoryError`."""
        self._require(who, Right.DELETE)
        view, rest = self._place(who, path)
        if not rest:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not self._tree.remove(view, rest.parent, [rest.name]):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def remove_matching(self, who: Principal, path: RelPath, pattern: Pattern) -> int:
        """Remove the files of one directory that match; count what is gone.

        What counts as a file is what `files` lists. Never a directory, never below it.
        """
        self._require(who, Right.DELETE)
        view, rest = self._place(who, path)

        def choose(entry: Entry) -> bool:
            return pattern.matches(entry.name) and self._as_file(view, rest, entry) is not None

        return self._tree.remove_chosen(view, rest, choose)

    def remove_path(
        self,
        who: Principal,
        path: RelPath,
        *,
        recursive: bool = False,
        check: Callable[[], object] = lambda: None,
    ) -> int:
        """Remove a file, a link itself, an empty directory, or with `recursive` any; how many entries went.

        Durable when it returns. `check` may raise between two entries; after any error some may be gone.
        Raises `IsADirectoryError` for a directory that is not empty, `PermissionError` for one that is
        exported or holds such a one, `BusyError` where somebody writes into it, `ConflictError`, `OSError`.
        """
        self._require(who, Right.DELETE)
        self._refuse_exported(who, path)
        view, rest = self._place(who, path)
        return self._tree.remove_tree(view, rest, recursive=recursive, check=check)

    def rename(self, who: Principal, path: RelPath, target: RelPath, *, replace: bool = False) -> None:
        """Give a file, a link itself or a directory another name, in one step and durably.

        Raises what `Jail.rename` does; `DestinationNotFound` where the target's directory is not there, and
        `PermissionError` for an exported directory.
        """
        self._require(who, Right.WRITE)
        for one in (path, target):
            self._refuse_exported(who, one)
        view, rest = self._place(who, path)
        self._tree.lstat(view, rest)
        found = self._target(who, target)
        self._parent(found)
        self._tree.rename(view, rest, found.view, found.path, replace=replace)

    def make_directory(self, who: Principal, path: RelPath, *, exist_ok: bool = False) -> None:
        """Make a directory, durably. Raises `FileExistsError`; with `exist_ok` only for what is none.

        Raises `DestinationNotFound` where the directory above is not there, `FileNameError`, `OSError`.
        """
        self._require(who, Right.WRITE)
        if self._is_there(who, path):
            if not exist_ok:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            return
        target = self._target(who, path)
        self._parent(target)
        self._tree.make_directory(target.view, target.path, exist_ok=exist_ok)

    def make_file(self, who: Principal, path: RelPath, *, exist_ok: bool = False) -> None:
        """Make an empty file, durably; one that is there with `exist_ok` stays as it is.

        Raises `FileExistsError`, with `exist_ok` only for what is no file; else as `make_directory`.
        """
        self._require(who, Right.WRITE)
        target = self._target(who, path)
        self._parent(target)
        self._tree.make_file(target.view, target.path, exist_ok=exist_ok, exported=target.exported)

    def begin_upload(
        self,
        who: Principal,
        path: RelPath,
        *,
        size: int,
        mtime_ns: int | None,
        replace: bool,
        source: bytes | None,
        holder: str,
        check: Callable[[], object] = lambda: None,
        revoked: Callable[[], object] = lambda: None,
    ) -> Upload:
        """Begin a file of `size` bytes, or go on with what `who` left of the same `source`: see `offset`.

        `holder` is what others are told who come meanwhile. `check` may raise while what is there is read
        again. `revoked` is called, in another thread, when the same client comes again for the same and this
        upload is quiet: its connection was lost, and it has to be suspended; see `Upload`.

        Raises `BusyError` where somebody writes it now, `FileExistsError` where it is there without
        `replace`, `IsADirectoryError`, `DestinationNotFound` where its directory is not there,
        `FileNameError`, `OSError`: ENOSPC where it has no room.
        """
        self._require(who, Right.WRITE)
        if self._is_there(who, path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        target = self._target(who, path)
        parent = self._parent(target)
        place = Place(parent.st_dev, parent.st_ino, target.path.name)
        heir = None if source is None else (who.owner, size, source)
        lease = self._leases.take(place, holder, time.time_ns(), heir=heir, revoked=revoked)
        return begin(
            self._tree,
            lease,
            target,
            size=size,
            mtime_ns=mtime_ns,
            replace=replace,
            source=source,
            owner=who.owner,
            check=check,
        )

    def begin_small_files(
        self, who: Principal, directory: RelPath, *, replace: bool, holder: str, max_size: int | None = None
    ) -> SmallFiles:
        """Begin many small files below a directory. Raises `DestinationNotFound` where it is not there.

        One of more than `max_size` bytes fails, by `OutOfRange`.
        """
        self._require(who, Right.WRITE)
        if not self._is_virtual(who, directory):
            self._parent(self._target(who, directory / "n"))
        return SmallFiles(
            self._tree,
            lambda path: self._target(who, directory + path),
            self._leases,
            replace=replace,
            holder=holder,
            max_size=max_size,
        )

    def compress_order(
        self, who: Principal, source: RelPath, format: str, *, sums: bool = False
    ) -> dict[str, Any]:
        """What `fileexport.compression` shall do: make an archive of a file or a directory, beside it.

        `format` is the value of an `ArchiveForm`. The order is what JSON can hold; `target` in it is the
        archive's path, and `place` is the same whatever links led there. Raises as the work would, so far as
        it can be seen now: `FileNotFoundError`, `ConflictError` where it would become its own archive,
        `IsADirectoryError` where a directory has the archive's name, `FileNameError`, `OSError` (EROFS, and
        ENOSPC where there is no room for a tenth of a file, or where only the reserve is left: how much a
        directory holds the work counts), and `BadRequestError` for what the format cannot hold, for one that
        does not exist, and for an exported directory itself.
        """
        self._require(who, Right.WRITE)
        form = read_form(format)
        view, rest = self._place(who, source)
        if not rest:
            raise BadRequestError("there is no place beside an exported directory: name what is in it")
        with self._tree.open(view, rest) as opened:
            is_directory, found = opened.is_directory, opened.stat
        target = target_of(source, form, is_directory=is_directory)
        check_order(source, target, form, is_directory=is_directory, sums=sums)
        archive = rest.parent / target.name
        self._tree.check_new(view, archive)
        replaced(self._tree, view, archive, found)
        if self._tree.room(view, rest.parent) < least_room(0 if is_directory else found.st_size):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        exported = next(one for one in self._directories if view.base.beneath(one) is not None)
        place = place_of(self._tree, view, archive)
        return Order(source, target, form, sums, view.base, exported, view.hidden, place).as_json()

    # -- where it goes

    def _target(self, who: Principal, path: RelPath) -> Target:
        """Where a new name goes. Raises `DestinationNotFound` outside of what `who` may see."""
        place = self._find(who, path)
        if place is None:
            raise DestinationNotFound
        view, rest = place
        return Target(
            view, rest, next(one for one in self._directories if view.base.beneath(one) is not None)
        )

    def _parent(self, target: Target) -> os.stat_result:
        """The directory that a new name goes to; a name that cannot be new is refused before."""
        self._tree.check_new(target.view, target.path)
        try:
            parent = self._tree.stat(target.view, target.path.parent)
        except FileNotFoundError:
            raise DestinationNotFound from None
        if not stat.S_ISDIR(parent.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return parent

    def _is_there(self, who: Principal, path: RelPath) -> bool:
        """Whether it is a directory whatever is on the disk: an exported one, or one above."""
        return self._is_virtual(who, path) or path in self.bases(who)

    def _refuse_exported(self, who: Principal, path: RelPath) -> None:
        # Of others nobody learns that they are exported.
        if any(base.beneath(path) is not None for base in self.bases(who)) or self._is_virtual(who, path):
            raise PermissionError(errno.EACCES, "it is exported, or holds what is")

    # -- who sees what

    @staticmethod
    def _require(who: Principal, right: Right) -> None:
        if not who.may(right):
            raise NotGranted

    def _bases_below(self, who: Principal, path: RelPath) -> list[tuple[RelPath, RelPath]]:
        """The bases strictly below `path`, each with its path from there."""
        found = ((base, base.beneath(path)) for base in self.bases(who))
        return [(base, rest) for base, rest in found if rest]

    def _is_virtual(self, who: Principal, path: RelPath) -> bool:
        if any(path.beneath(base) is not None for base in self.bases(who)):
            return False
        return not path or bool(self._bases_below(who, path))

    def _place(self, who: Principal, path: RelPath) -> tuple[View, RelPath]:
        """The view that holds `path`, and the path as seen from its base."""
        if (place := self._find(who, path)) is not None:
            return place
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _find(self, who: Principal, path: RelPath) -> tuple[View, RelPath] | None:
        for base in self.bases(who):
            if (rest := path.beneath(base)) is not None:
                return View(base, hidden=who.sees_hidden), rest
        return None

    def _base_entry(self, who: Principal, base: RelPath, rest: RelPath) -> Entry:
        name = "/".join(rest)
        try:
            status = self._tree.stat(View(base, hidden=who.sees_hidden), RelPath())
        except OSError:
            return Entry(name, "other", 0, 0, 0)
        return Entry.of(name, status)
