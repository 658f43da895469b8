"""The two ends of a transfer of many files, alike: what lies where, and what is put there.

`Here` is a local directory tree, `There` a server's. Each can be the source or the destination. Paths below a
base are `str` with slashes; places are what the side itself opens: a local path, or an absolute remote one.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fileexport.client.answers import not_found
from fileexport.client.names import Kind, RemoteEntry
from fileexport.client.selection import Child, joined
from fileexport.client.sources import SourceTree
from fileexport.errors import DestinationNotFound, FileNameError, SourceNotFound, row_for
from fileexport.paths import MAX_DEPTH, RESERVED, RelPath

if TYPE_CHECKING:
    from fileexport.client.blocking import Client

#: Entries of a server's tree that are listed at once: so many are held in memory, or those of one directory.
LISTED = 200_000
#: Whether a directory, by its path below the base, is to be looked into.
Enter = Callable[[str], bool]
#: Told of a directory that cannot be read.
Unreadable = Callable[[str, OSError], None]


class Item(NamedTuple):
    """Something that a source holds: its path below what was named, and where it is.

    `tree` is what was named, for what lies below that here.
    """

    path: str
    place: str
    kind: Kind
    size: int
    mtime_ns: int
    tree: SourceTree | None = None


class Source(Protocol):
    """What a transfer asks of the side it reads from."""

    def find(self, place: str) -> Item:
        """What was named, with an empty path; a link is followed. Raises `SourceNotFound`."""

    def below(self, top: Item, enter: Enter, unreadable: Unreadable) -> Iterator[Item]:
        """All that lies below a directory, parents before children; links are not followed."""


class Destination(Protocol):
    """What a transfer asks of the side it writes to. Paths are below the destination directory."""

    def place(self, path: str) -> str:
        """Where a path is."""

    def check(self) -> None:
        """Raise `DestinationNotFound` or `NotADirectoryError` unless the directory is there."""

    def kind(self, path: str) -> Kind | None:
        """What is there, or None; also where it may not be known."""

    def kinds(self, directory: str, recursive: bool) -> dict[str, Kind]:
        """What lies in a directory; raises `FileNotFoundError`, `NotADirectoryError`."""

    def make_directories(self, paths: Sequence[str]) -> list[Exception | None]:
        """Make directories, parents first; those that are there already are as good. One outcome each."""


def kind_of(mode: int) -> Kind:
    """The kind of an entry, by its `st_mode`."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"


def _no_directory(place: str) -> NotADirectoryError:
    return NotADirectoryError(errno.ENOTDIR, row_for(NotADirectoryError()).sentence, place)


class Here:
    """A local directory tree; as a destination it lies below `base`."""

    def __init__(self, base: str = "") -> None:
        self._base = base

    def place(self, path: str) -> str:
        """Where a path below the base is."""
        return os.path.join(self._base, path) if path else self._base

    # -- source

    def find(self, place: str) -> Item:
        """What was named, links followed. Raises `SourceNotFound`, `OSError`."""
        try:
            found = os.stat(place)
        except (FileNotFoundError, NotADirectoryError):
            raise not_found(SourceNotFound, place) from None
        return Item("", place, kind_of(found.st_mode), found.st_size, found.st_mtime_ns)

    def below(self, top: Item, enter: Enter, unreadable: Unreadable) -> Iterator[Item]:
        """All that lies below a directory, by name; what goes meanwhile is not there."""
        todo, tree, prefix = [""], None, os.path.join(top.place, "")
        while todo:
            directory = todo.pop()
            try:
                tree = tree or SourceTree.of(top.place)
                entries = list(tree.entries(directory))
            except OSError as error:
                unreadable(directory, error)
                continue
            inner = []
            for name, about in entries:
                path = joined(directory, name)
                if isinstance(about, OSError):
                    unreadable(path, about)
                    continue
                kind = kind_of(about.st_mode)
                yield Item(path, prefix + path, kind, about.st_size, about.st_mtime_ns, tree)
                if kind == "directory" and enter(path):
                    inner.append(path)
            todo.extend(reversed(inner))

    # -- destination

    def check(self) -> None:
        """Raise unless the base is a directory."""
        try:
            found = os.stat(self._base)
        except FileNotFoundError:
            raise not_found(DestinationNotFound, self._base) from None
        if not stat.S_ISDIR(found.st_mode):
            raise _no_directory(self._base)

    def kind(self, path: str) -> Kind | None:
        """What is there, links not followed, or None."""
        try:
            return kind_of(os.lstat(self.place(path)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def kinds(self, directory: str, recursive: bool) -> dict[str, Kind]:
        """What lies in a directory, or also below it."""
        place = self.place(directory)
        if not recursive:
            with os.scandir(place) as found:
                return {entry.name: kind_of(entry.stat(follow_symlinks=False).st_mode) for entry in found}
        if not stat.S_ISDIR(os.lstat(place).st_mode):
            raise _no_directory(place)

        def enter(path: str) -> bool:
            return True

        def unreadable(path: str, error: OSError) -> None:
            raise error

        top = Item("", place, "directory", 0, 0)
        return {item.path: item.kind for item in self.below(top, enter, unreadable)}

    def make_directories(self, paths: Sequence[str]) -> list[Exception | None]:
        """Make directories; a link is none, because what is written must stay below the base."""
        return [self._make_directory(path) for path in paths]

    def _make_directory(self, path: str) -> Exception | None:
        try:
            os.mkdir(self.place(path))
        except FileExistsError:
            if self.kind(path) != "directory":
                return _no_directory(self.place(path))
        except OSError as error:
            return error
        return None

    def children(self, directory: str, deep: bool) -> Iterator[Child]:
        """For globs: what lies in a directory below the base; a link counts as what it leads to."""
        if deep:
            top = self.find(self.place(directory))
            for item in self.below(top, lambda path: True, lambda path, error: None):
                yield item.path, item.kind == "directory"
        else:
            with os.scandir(self.place(directory)) as found:
                names = sorted((entry.name, entry.is_dir()) for entry in found if entry.name != RESERVED)
            yield from names


class There:
    """A server's tree; as a destination it lies below the remote directory `base`."""

    def __init__(self, client: Client, base: str = "/", timeout: int | None = None) -> None:
        self.client = client
        self._base = str(RelPath.parse(base))
        self._prefix = self._base.rstrip("/")
        self.timeout = timeout

    def place(self, path: str) -> str:
        """The absolute remote path of a path below the base."""
        return f"{self._prefix}/{path}" if path else self._base

    # -- source

    def find(self, place: str) -> Item:
        """What was named. Raises `SourceNotFound`. Of a link to a file the size is not known: -1."""
        try:
            found = self.client.stat(place, timeout=self.timeout)
            kind, size = found.type, found.size
            if kind == "link":
                kind, size = self._behind(place)
        except (FileNotFoundError, NotADirectoryError):
            raise not_found(SourceNotFound, place) from None
        return Item("", place, kind, size, found.mtime_ns)

    def _behind(self, place: str) -> tuple[Kind, int]:
        """What a link leads to: only a directory can be listed."""
        try:
            for _ in self.client.entries(place, timeout=self.timeout):
                break
        except NotADirectoryError:
            return "file", -1
        return "directory", 0

    def below(self, top: Item, enter: Enter, unreadable: Unreadable) -> Iterator[Item]:
        """All that lies below a directory, as the server lists it: one request, unless that is very much.

        Each listing has ended before anything of it is yielded: what is done meanwhile may take its time.
        """
        base = top.place.rstrip("/")
        todo = [""]
        while todo:
            directory = todo.pop()
            try:
                found, is_deep = self._listing(f"{base}/{directory}")
            except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
                unreadable(directory, error)
                continue
            inner: list[str] = []
            closed: set[str] = set()
            for entry in found:
                path = joined(directory, entry.path)
                if closed and path.rpartition("/")[0] in closed:
                    if entry.type == "directory":
                        closed.add(path)
                    continue
                yield Item(path, f"{base}/{path}", entry.type, entry.size, entry.mtime_ns)
                if entry.type == "directory":
                    if not enter(path):
                        closed.add(path)
                    elif not is_deep:
                        inner.append(path)
            todo.extend(reversed(inner))

    def _listing(self, place: str) -> tuple[list[RemoteEntry], bool]:
        """What lies below a directory; or only in it, where the former is more than `LISTED`; and which."""
        found = list(islice(self.client.entries(place, recursive=True, timeout=self.timeout), LISTED + 1))
        if len(found) <= LISTED:
            return found, True
        return list(self._kept(place, recursive=False)), False

    # -- destination

    def check(self) -> None:
        """Raise unless the base is a directory; a token that may not read does not know."""
        try:
            found = self.client.stat(self.place(""), timeout=self.timeout)
        except PermissionError:
            return
        except FileNotFoundError:
            raise not_found(DestinationNotFound, self.place("")) from None
        if found.type not in ("directory", "link"):
            raise _no_directory(self.place(""))

    def kind(self, path: str) -> Kind | None:
        """What is there, or None; also for a token that may not read."""
        try:
            return self.client.stat(self.place(path), timeout=self.timeout).type
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None

    def kinds(self, directory: str, recursive: bool) -> dict[str, Kind]:
        """What lies in a directory, or also below it: one request."""
        try:
            found = self._kept(self.place(directory), recursive=recursive)
            return {entry.path: entry.type for entry in found}
        except PermissionError:
            return {}

    def _kept(self, place: str, *, recursive: bool) -> Iterator[RemoteEntry]:
        """A listing that is kept whole; raises `CorruptedResponse` where no directory holds so much."""
        from fileexport.client.listings import Kept

        return Kept().all(self.client.entries(place, recursive=recursive, timeout=self.timeout))

    def make_directories(self, paths: Sequence[str]) -> list[Exception | None]:
        """Make directories, all at once on the wire."""
        places = [self.place(path) for path in paths]
        return self.client.make_directories(places, timeout=self.timeout)

    def children(self, directory: str, deep: bool) -> Iterator[Child]:
        """For globs: what lies in a directory below the base."""
        for entry in self.client.entries(self.place(directory), recursive=deep, timeout=self.timeout):
            yield entry.path, entry.type == "directory"


def check_depth(path: str) -> FileNameError | None:
    """What keeps a path from being sent at all, or None: the names in it are for the server to judge."""
    if path.count("/") < MAX_DEPTH and len(path) < 1000:
        return None
    try:
        RelPath(path.split("/"))
    except FileNameError as error:
        return error
    return None
