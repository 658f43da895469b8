"""The verbs that read, for a `Principal`: open, list, walk, hash, pack."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from blake3 import blake3

from fileexport.disk.contents import Contents
from fileexport.disk.jail import Entry, Opened, View
from fileexport.disk.scan import Part, entry_of, scan
from fileexport.disk.trees import Tree, TreeForm, archived
from fileexport.disk.walks import Names, hashes, walk
from fileexport.errors import BadRequestError, FileNameError, OutOfRange
from fileexport.exports_places import Places, view_of
from fileexport.paths import RelPath
from fileexport.sync.chunks import AVERAGES, FINE, Chunk
from fileexport.sync.gaps import MAX_RANGED, Range
from fileexport.sync.manifest import Entry as OwnEntry
from fileexport.tokens import Principal, Right
from fileexport.uploads import Files
from fileexport.wire.bounds import clamped

#: Entries of one listing, over all its directories: bounds the memory that one request can take.
MAX_LISTED = 1_000_000
#: A directory above the exported ones: it is not on the disk.
_ABOVE = OwnEntry("directory", 0, 0, 0o755)
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


class Reading(Places):
    """What can be read of the exported directories."""

    def __init__(
        self, tree: Files, directories: tuple[RelPath, ...] = (), contents: Contents | None = None
    ) -> None:
        super().__init__(tree, directories)
        self._contents = contents or Contents()
        self._names = Names()

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
                view = view_of(who, base)
                for below, entry in walk(self._tree, view, RelPath(), recursive=True, names=self._names):
                    with suppress(FileNameError):
                        yield rest + below, entry

    def manifest(
        self, who: Principal, path: RelPath, *, check: Callable[[], object] = lambda: None
    ) -> Generator[Part, None, None]:
        """What is in a directory and all below it, as `scan` gives it; the first part has its own entry.

        Above the exported directories these are in it, and the directories on the way to them. `check` may
        raise to end it. Raises as `walk`, `NotADirectoryError` for what is none.
        """
        self._require(who, Right.READ)
        if not self._is_virtual(who, path):
            view, rest = self._place(who, path)
            return scan(self._tree, view, rest, check, self._names)
        return self._scan_above(who, path, RelPath(), check)

    def _scan_above(
        self, who: Principal, path: RelPath, below: RelPath, check: Callable[[], object]
    ) -> Generator[Part, None, None]:
        """What is in a directory above the exported ones, which is no more than the way to them."""
        places = {rest.parts[0]: path / rest.parts[0] for _, rest in self._bases_below(who, path)}
        names = sorted(places)
        entries = [(name, self._own_entry(who, places[name])) for name in names]
        yield Part(below, entries, own=None if below else _ABOVE)
        for name, entry in entries:
            if self._is_virtual(who, places[name]):
                yield from self._scan_above(who, places[name], below / name, check)
            elif entry.kind == "directory":
                yield from self._scan_base(who, places[name], below / name, check)

    def _scan_base(
        self, who: Principal, base: RelPath, below: RelPath, check: Callable[[], object]
    ) -> Generator[Part, None, None]:
        view = view_of(who, base)
        is_first = True
        try:
            for part in scan(self._tree, view, RelPath(), check, self._names):
                is_first = False
                yield part._replace(path=below + part.path, own=None)
        except OSError as error:
            # It may have been the check: that ends all.
            check()
            if not is_first:
                raise
            yield Part(below, [], error)

    def _own_entry(self, who: Principal, path: RelPath) -> OwnEntry:
        if self._is_virtual(who, path):
            return _ABOVE
        try:
            return entry_of(self._tree.stat(view_of(who, path), RelPath()))
        except OSError:
            return OwnEntry("other", 0, 0, 0)

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
            view = view_of(who, base)
            for row in hashes(self._tree, view, RelPath(), check, self._names):
                with suppress(FileNameError):
                    yield row and (rest + row[0], row[1], row[2])

    def hash_files(
        self,
        who: Principal,
        paths: Iterable[RelPath],
        *,
        check: Callable[[], object] = lambda: None,
        fresh: bool = False,
    ) -> Iterator[tuple[RelPath, int, bytes] | None]:
        """Path, size and BLAKE3 of each of these files; one that cannot be read is left out.

        What is remembered of a file that did not change counts, unless it shall be `fresh`. `check` and None
        are as those of `hashes`.
        """
        self._require(who, Right.READ)
        return self._hash_each(who, paths, check, fresh)

    def _hash_each(
        self, who: Principal, paths: Iterable[RelPath], check: Callable[[], object], fresh: bool
    ) -> Iterator[tuple[RelPath, int, bytes] | None]:
        try:
            for path in paths:
                check()
                try:
                    with self._open_file(who, path) as opened:
                        size, digest = yield from self._contents.hashing(opened, check, fresh=fresh)
                except (OSError, FileNameError):
                    # It may have been the check: that ends all.
                    check()
                    continue
                yield path, size, digest
        finally:
            self._contents.flush()

    def chunks(
        self,
        who: Principal,
        path: RelPath,
        average: int,
        ranges: Sequence[Range] = (),
        *,
        check: Callable[[], object] = lambda: None,
        fresh: bool = False,
    ) -> tuple[bytes, Generator[list[Chunk], None, None]]:
        """The version of a file, and the chunks of this `average` size that it is cut into.

        With `ranges`, the chunks of these parts alone, each cut by itself; their `average` is `FINE`. At most
        1,024 in each list; now and then one is empty, so that none takes long. `fresh` is as that of
        `hash_files`. The generator holds the file open: close it, or read it to its end. Raises
        `BadRequestError` for another average than those of `sync.chunks` and for ranges of more than
        `MAX_RANGED` bytes, `OutOfRange` for one behind the end, `IsADirectoryError`, `OSError`; the generator
        raises `OSError`, `ChangedWhileRead` where a range became shorter, and what `check` raises between two
        pieces.
        """
        self._require(who, Right.READ)
        averages = (FINE,) if ranges else AVERAGES
        if average not in averages:
            raise BadRequestError(f"chunks of {average} bytes: they have {', '.join(map(str, averages))}")
        if sum(size for _, size in ranges) > MAX_RANGED:
            raise BadRequestError(f"ranges of more than {MAX_RANGED} bytes together")
        opened = self._open_file(who, path)
        if any(offset + size > opened.stat.st_size for offset, size in ranges):
            opened.close()
            raise OutOfRange("a range behind the end of the file")
        found = self._chunks(opened, average, ranges, check, fresh)
        # So that closing it closes the file, whatever becomes of it.
        next(found)
        return file_version(opened), found

    def _chunks(
        self,
        opened: Opened,
        average: int,
        ranges: Sequence[Range],
        check: Callable[[], object],
        fresh: bool,
    ) -> Generator[list[Chunk], None, None]:
        with opened:
            yield []
            if ranges:
                yield from self._contents.parts(opened, ranges, check)
            else:
                yield from self._contents.chunks(opened, average, check, fresh=fresh)

    def _open_file(self, who: Principal, path: RelPath) -> Opened:
        opened = self.open(who, path)
        if opened is None or opened.is_directory:
            if opened is not None:
                opened.close()
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return opened

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
        self, who: Principal, path: RelPath, form: TreeForm, names: Iterable[str] | None = None
    ) -> tuple[str, int | None, Generator[bytes, None, None]]:
        """A directory as one stream: the archive's file name, its length where known, its pieces.

        With `names` only these of its entries, and all below them. Walks the tree first. Raises `OSError`,
        `FileNotFoundError` also for a name that is not there, `FileNameError`; while the pieces are read,
        too: what came until then is no complete archive. The root is called ``files`` in it.
        """
        self._require(who, Right.READ)
        view, rest = self._place(who, path)
        with self._tree.open(view, rest) as opened:
            if not opened.is_directory:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        name = path.name or "files"
        chosen = None if names is None else frozenset(names)
        length, pieces = archived(Tree(self._tree, view, rest, name, chosen=chosen), form)
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
        return entry._replace(size=status.st_size, mtime_ns=clamped(status.st_mtime_ns))
