"""Many files from one side to the other: what is sent, in which order, and what becomes of each.

Directories are made in pipelined batches, then all small files of a batch travel together, then the large
ones one after the other at full speed. What exists at the destination is asked for once a tree, not once a
file.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

from fileexport.client import chunks
from fileexport.client.chunks import CallerRaised, ProcessChunk
from fileexport.client.names import Kind
from fileexport.client.selection import Conflict, joined, numbered
from fileexport.client.sides import Destination, Item, Source, check_depth
from fileexport.errors import (
    FULL_DISK,
    AuthenticationError,
    BusyError,
    CorruptedResponse,
    FileExportError,
    FileNameError,
    UnexpectedError,
    row_for,
)
from fileexport.sync.rules import Patterns
from fileexport.wire.messages import MAX_INLINE

#: Entries that are looked at before they are sent: bounds memory, whatever the size of the tree.
BATCH = 16384
#: Single names that are asked for before their whole directory is.
_ASKED = 4
#: Seconds to wait for files that somebody else is writing.
PAUSES = (0.25, 0.5, 1.0)
#: After these nothing more can succeed.
_FATAL = (ConnectionError, TimeoutError, AuthenticationError, CorruptedResponse)
#: What a side may raise about one place; unless it `is_fatal`, others are still tried.
TROUBLE = (OSError, FileExportError)

ProcessFile = Callable[[str, int], bool]
Given = ParamSpec("Given")
Said = TypeVar("Said")


class Watcher:
    """Told how a transfer goes. This one stays silent, and raises the first failure.

    What is sent is named by its place at the destination, what is not by that at its source.
    """

    def found(self, size: int) -> None:
        """One more file will be sent."""

    def moved(self, path: str, size: int, count: int) -> None:
        """So many more bytes of a large file have left."""

    def directory(self, path: str) -> None:
        """A directory is there now."""

    def done(self, path: str, size: int) -> None:
        """A file has arrived, and is what was sent."""

    def skipped(self, path: str, size: int) -> None:
        """A file was not sent, as was wished."""

    def left_out(self, path: str, why: str) -> None:
        """An entry cannot be sent as what it is; with a directory, all that lies in it."""

    def failed(self, path: str, error: Exception) -> None:
        """An entry failed; the transfer goes on when this returns."""
        raise error


class Wanted(NamedTuple):
    """A source: where it is, its path at the destination, and how the excludes see it and what is below it.

    An empty `target` puts the contents of a directory into the destination itself.
    """

    place: str
    target: str
    name: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to go about it."""

    recursive: bool = False
    excludes: Patterns = field(default_factory=Patterns)
    conflict: Conflict = "abort"
    process_file: ProcessFile | None = None
    chunk_size: int | None = None
    process_chunk: ProcessChunk | None = None
    timeout: int | None = None

    @property
    def replace(self) -> bool:
        """Whether an existing file is replaced."""
        return self.conflict == "replace"


def is_fatal(error: Exception) -> bool:
    """Whether nothing more can succeed after this."""
    return isinstance(error, _FATAL) or row_for(error) is FULL_DISK


def callers_own(function: Callable[Given, Said]) -> Callable[Given, Said]:
    """A function of the caller's: what it raises is `CallerRaised`, which is none of our own errors.

    Not so Ctrl-C, which nothing here judges anyway.
    """

    def guarded(*given: Given.args, **named: Given.kwargs) -> Said:
        try:
            return function(*given, **named)
        except Exception as error:
            raise CallerRaised(error) from None

    return guarded


class Mover(Protocol):
    """Carries files over. Targets are paths below the destination."""

    def small(self, files: Iterable[Planned]) -> Iterator[tuple[str, int, Exception | None]]:
        """Files of at most `MAX_INLINE` bytes, pipelined: target, size and outcome, in any order."""

    def one(self, file: Planned, moved: Callable[[int], object]) -> bool:
        """One file; False when the caller's `process_chunk` said so. Raises what went wrong."""


class Planned(NamedTuple):
    """An entry, its final path at the destination, and the number of its source."""

    item: Item
    target: str
    number: int


class _Refused(Exception):
    """This source ends here."""


class Transfer:
    """One transfer from a side to the other."""

    def __init__(
        self, source: Source, destination: Destination, mover: Mover, wishes: Wishes, watcher: Watcher
    ) -> None:
        self._source = source
        self._destination = destination
        self._mover = mover
        self._wishes = wishes
        self._watcher = watcher
        self._process_file = None if wishes.process_file is None else callers_own(wishes.process_file)
        self._known = _Known(destination)
        self._batch: list[Planned] = []
        #: Directories that could not be made: what lies in them is left out without a word more.
        self._lost: set[str] = set()
        #: Directories above a single file that were planned.
        self._parents: set[str] = set()
        self._several = False

    def run(self, sources: Sequence[Wanted]) -> bool:
        """Send all sources; False when `process_chunk` cancelled. Raises what ends everything."""
        try:
            return self._run(sources)
        except CallerRaised as raised:
            error = raised.error
        # Out here, so that it is what it was: with its own cause and context.
        raise error

    def _run(self, sources: Sequence[Wanted]) -> bool:
        self._several = len(sources) > 1
        found = []
        for number, wanted in enumerate(sources):
            try:
                found.append((number, wanted, self._source.find(wanted.place)))
            except TROUBLE as error:
                self._fail(wanted.place, error)
        if len(found) > 1 or any(item.kind == "directory" for _, _, item in found):
            self._destination.check()
        return all(self._take(*one) for one in found) and self._flush()

    def _take(self, number: int, wanted: Wanted, item: Item) -> bool:
        """Plan one source, and send full batches."""
        plan = self._plan(number, wanted, item)
        while True:
            try:
                planned = next(plan, None)
            except _Refused:
                while self._batch and self._batch[-1].number == number:
                    self._batch.pop()
                return True
            except TROUBLE as error:
                self._fail(wanted.place, error)
                return True
            if planned is None:
                return True
            self._batch.append(planned)
            if len(self._batch) >= BATCH and not self._flush():
                return False

    # -- what is sent

    def _plan(self, number: int, wanted: Wanted, top: Item) -> Iterator[Planned]:
        if self._wishes.excludes.match(wanted.name, top.kind == "directory"):
            return
        if top.kind == "file":
            yield from self._above(number, wanted.target)
            if (planned := self._plan_file(top, number, wanted.target, wanted.name)) is not None:
                yield planned
        elif top.kind != "directory":
            self._watcher.left_out(wanted.place, "it is neither a file nor a directory")
        elif not self._wishes.recursive:
            self._watcher.left_out(wanted.place, "a directory needs -r")
        else:
            yield from self._above(number, wanted.target)
            yield from self._plan_tree(number, wanted, top)

    def _above(self, number: int, target: str) -> Iterator[Planned]:
        """The directories that a target lies in, below the destination."""
        names = target.split("/")[:-1]
        for depth in range(1, len(names) + 1):
            path = "/".join(names[:depth])
            if path not in self._parents:
                self._parents.add(path)
                yield Planned(Item("", "", "directory", 0, 0), path, number)

    def _plan_tree(self, number: int, wanted: Wanted, top: Item) -> Iterator[Planned]:
        #: Where each directory that is entered goes; others have no place, nor has what lies in them.
        places = {"": wanted.target}
        if wanted.target:
            planned = self._plan_directory(top, number, wanted.target)
            if planned is None:
                return
            places[""] = planned.target
            yield planned
        if not self._wishes.replace:
            self._known.load(places[""])

        def unreadable(path: str, error: OSError) -> None:
            self._fail(joined(top.place, path), error)

        excludes = self._wishes.excludes
        for item in self._source.below(top, places.__contains__, unreadable):
            parent, _, name = item.path.rpartition("/")
            place = places.get(parent)
            if place is None:
                continue
            seen = joined(wanted.anchor, item.path)
            if excludes.decide(seen, item.kind == "directory"):
                continue
            planned = self._plan_entry(item, number, joined(place, name), seen)
            if planned is not None:
                if item.kind == "directory":
                    places[item.path] = planned.target
                yield planned

    def _plan_entry(self, item: Item, number: int, target: str, seen: str) -> Planned | None:
        if (error := check_depth(target)) is not None:
            self._watcher.left_out(item.place, str(error))
        elif item.kind == "file":
            return self._plan_file(item, number, target, seen)
        elif item.kind == "directory":
            return self._plan_directory(item, number, target)
        else:
            what = "a link" if item.kind == "link" else "neither a file nor a directory"
            self._watcher.left_out(item.place, f"it is {what}")
        return None

    def _plan_file(self, item: Item, number: int, target: str, seen: str) -> Planned | None:
        wishes = self._wishes
        size = max(item.size, 0)
        if self._process_file is not None and not self._process_file(seen, size):
            self._watcher.skipped(self._place(target), size)
            return None
        # Of a single file that must not exist the other side says so by itself.
        asks = not wishes.replace and (wishes.conflict != "abort" or self._several or bool(item.path))
        if asks and (there := self._known.kind(target)) is not None:
            renamed = self._resolve(item, target, there)
            if renamed is None:
                return None
            target = renamed
        if self._several or wishes.conflict == "rename":
            self._known.add(target, "file")
        self._watcher.found(size)
        return Planned(item, target, number)

    def _plan_directory(self, item: Item, number: int, target: str) -> Planned | None:
        if not self._wishes.replace:
            there = self._known.kind(target)
            if there not in (None, "directory"):
                renamed = self._resolve(item, target, there)
                if renamed is None:
                    return None
                target = renamed
        self._known.add(target, "directory")
        return Planned(item, target, number)

    def _resolve(self, item: Item, target: str, there: Kind | None) -> str | None:
        """The name to take instead of one that exists, or None to leave the entry out."""
        if self._wishes.conflict == "skip":
            self._watcher.skipped(self._place(target), max(item.size, 0))
            return None
        if self._wishes.conflict == "rename":
            parent, _, name = target.rpartition("/")
            return joined(parent, numbered(name, lambda other: self._is_taken(joined(parent, other))))
        what = "it exists already" if there == "file" else f"a {there} of this name exists already"
        place = self._place(target)
        self._watcher.failed(place, FileExistsError(errno.EEXIST, what, place))
        raise _Refused

    def _is_taken(self, target: str) -> bool:
        return self._known.kind(target) is not None

    # -- sending

    def _flush(self) -> bool:
        """Send what was planned."""
        batch, self._batch = self._batch, []
        self._make([planned for planned in batch if planned.item.kind == "directory"])
        files = [planned for planned in batch if planned.item.kind == "file" and not self._is_lost(planned)]
        if self._wishes.process_chunk is None and len(files) > 1:
            small = [planned for planned in files if 0 <= planned.item.size <= MAX_INLINE]
            files = [planned for planned in files if not 0 <= planned.item.size <= MAX_INLINE]
            files += self._send_small(small)
        return all(self._send(planned) for planned in files)

    def _send_small(self, files: Iterable[Planned]) -> list[Planned]:
        """Send small files together; returns those that must travel alone.

        They have become large, or are not the first of their name. A command that was broken off just now may
        still hold some for a moment: those are tried again. One that nobody says anything of has failed.
        """
        alone = []
        waiting: dict[str, Planned] = {}
        for planned in files:
            if waiting.setdefault(planned.target, planned) is not planned:
                alone.append(planned)
        for pause in (*PAUSES, None):
            busy = {}
            for target, size, error in self._mover.small(list(waiting.values())) if waiting else ():
                planned = waiting.pop(target)
                if isinstance(error, ValueError):
                    alone.append(planned)
                elif isinstance(error, BusyError) and pause is not None:
                    busy[target] = planned
                else:
                    self._ended(target, size, error, inside=bool(planned.item.path))
            for planned in waiting.values():
                error = UnexpectedError("nothing was said of what became of it")
                self._ended(planned.target, planned.item.size, error, inside=False)
            if not busy or pause is None:
                break
            waiting = busy
            chunks.pause(pause)
        return alone

    def _is_lost(self, planned: Planned) -> bool:
        return bool(self._lost) and planned.target.rpartition("/")[0] in self._lost

    def _make(self, directories: Sequence[Planned]) -> None:
        targets = list(dict.fromkeys(planned.target for planned in directories))
        if not targets:
            return
        for target, error in zip(targets, self._destination.make_directories(targets), strict=True):
            if target.rpartition("/")[0] in self._lost:
                self._lost.add(target)
            elif error is None:
                self._watcher.directory(self._place(target))
            else:
                self._lost.add(target)
                self._ended(target, 0, error, inside="/" in target)

    def _send(self, planned: Planned) -> bool:
        item, target, place = planned.item, planned.target, self._place(planned.target)
        size, moved = max(item.size, 0), callers_own(self._watcher.moved)
        try:
            if not self._mover.one(planned, lambda count: moved(place, size, count)):
                return False
        except CallerRaised:
            raise
        except Exception as error:
            self._ended(target, item.size, error, inside=bool(item.path))
        else:
            self._ended(target, item.size, None, inside=True)
        return True

    def _ended(self, target: str, size: int, error: Exception | None, *, inside: bool) -> None:
        """What became of an entry; `inside` a tree, a name that cannot be made is left out."""
        place = self._place(target)
        if error is None:
            self._watcher.done(place, max(size, 0))
        elif isinstance(error, FileExistsError) and self._wishes.conflict == "skip":
            self._watcher.skipped(place, max(size, 0))
        elif isinstance(error, FileNameError) and inside:
            self._watcher.left_out(place, str(error))
        else:
            self._fail(place, error)

    def _place(self, target: str) -> str:
        return self._destination.place(target)

    def _fail(self, path: str, error: Exception) -> None:
        if is_fatal(error):
            raise error
        self._watcher.failed(path, error)


class _Known:
    """What is known to exist at the destination, asked for as seldom as can be."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._kinds: dict[str, Kind] = {}
        self._asked: dict[str, int] = {}
        #: Directories whose names are all known; and those of which also all that lies below them is.
        self._listed: set[str] = set()
        self._trees: set[str] = set()

    def add(self, path: str, kind: Kind) -> None:
        """A name that will exist."""
        self._kinds[path] = kind

    def load(self, directory: str) -> None:
        """Ask for all that lies below a directory."""
        self._list(directory, recursive=True)
        self._trees.add(directory)

    def kind(self, path: str) -> Kind | None:
        """What is at a path, or None."""
        if path in self._kinds:
            return self._kinds[path]
        parent = path.rpartition("/")[0]
        if self._is_listed(parent):
            return None
        asked = self._asked[parent] = self._asked.get(parent, 0) + 1
        if asked > _ASKED:
            self._listed.add(parent)
            self._list(parent, recursive=False)
            return self._kinds.get(path)
        kind = self._destination.kind(path)
        if kind is not None:
            self._kinds[path] = kind
        return kind

    def _is_listed(self, directory: str) -> bool:
        if directory in self._listed:
            return True
        above = directory
        while above not in self._trees:
            if not above:
                return False
            above = above.rpartition("/")[0]
        self._listed.add(directory)
        return True

    def _list(self, directory: str, *, recursive: bool) -> None:
        try:
            found = self._destination.kinds(directory, recursive)
        except (FileNotFoundError, NotADirectoryError):
            return  # it will be made, or that it cannot be is said then
        for path, kind in found.items():
            self._kinds.setdefault(joined(directory, path), kind)
