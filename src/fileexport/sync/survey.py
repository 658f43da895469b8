"""Two trees seen together: what is missing, what differs, what is in the way, what may go. Pure.

It decides all that needs no hash; `fileexport.sync.plan` makes actions of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import count
from typing import NamedTuple

from fileexport.paths import MAX_DEPTH, MAX_NAME, MAX_PATH
from fileexport.sync.chunks import LEAST
from fileexport.sync.manifest import Entry, Manifest, leads_inside
from fileexport.sync.rules import Rules

#: Why nothing is known of a directory that comes without its entries.
NOT_LISTED = "it was not listed"
#: Why a name that stands at the source cannot be made.
NOT_TAKEN = "the destination does not take this name"
NOT_INSIDE = "the link leads outside, or has .. behind a name"
_TOO_LONG = f"the path is longer than {MAX_PATH} bytes"
#: What is added to the name of an entry that makes way.
_ASIDE = ".fileexport-old"


class Problem(NamedTuple):
    """What is left out of the synchronisation, and why; with `at_destination` it is an entry there."""

    path: str
    why: str
    at_destination: bool = False


class Both(NamedTuple):
    """A path with what the source has there, and the destination where that is of the same kind."""

    path: str
    entry: Entry
    old: Entry | None


class Obstacle(NamedTuple):
    """What stands in the way at `path`: the name that it gets, and the paths below it."""

    path: str
    aside: str
    below: list[str]

    def moved(self, path: str) -> str:
        """Where a path below it is, once it is aside."""
        return self.aside + path[len(self.path) :]


class _Step(NamedTuple):
    """A directory of the source that is to be looked into."""

    path: str
    stands: bool  # The destination has it too.
    keeps: bool  # Nothing below it may be removed.


def _may_stay(entry: Entry, old: Entry) -> bool:
    """Whether nothing need be written to make them equal; of files the hashes may say otherwise."""
    return (entry.kind, entry.size, entry.target) == (old.kind, old.size, old.target)


def parent_of(path: str) -> str:
    """The directory that a path lies in."""
    return path.rpartition("/")[0]


def _cut(name: str, most: int) -> str:
    """As much of a name as so many bytes hold, in whole characters."""
    while len(os.fsencode(name)) > most:
        name = name[:-1]
    return name


class Survey:
    """What the two sides say of each other; all paths relative to both tops.

    - `made`, `standing`: directories to be made, and those on both sides.
    - `sent`: files that differ for certain, with their old version. `unsure`: files whose hashes decide.
    - `changed`: files that differ in nothing but mode. `links`: links to be made or replaced.
    - `same`: files of at least `LEAST` bytes that are equal. `unchanged`: how many entries are.
    - `obstacles`: what stands in the way.
    - `going`, `going_directories`: what `delete` removes. `extras`: what stays without being in the source.
    - `entries`: how many entries of the source take part.
    """

    def __init__(
        self,
        source: Manifest,
        destination: Manifest,
        rules: Rules,
        may_be_named: Callable[[str], bool] | None = None,
        beneath: str = "",
    ) -> None:
        self._source = source
        self._destination = destination
        self._rules = rules
        self._may_be_named = may_be_named
        self._depth = beneath.strip("/").count("/") + 1 if beneath.strip("/") else 0
        self._room = MAX_PATH - len(os.fsencode(beneath)) - 1
        self.is_selective = rules.is_selective
        self._waiting: list[_Step] = []
        #: Names that obstacles get, by directory.
        self._taken: dict[str, set[str]] = {}
        self.problems: list[Problem] = []
        self.made: list[Both] = []
        self.standing: list[Both] = []
        self.sent: list[Both] = []
        self.unsure: list[Both] = []
        self.changed: list[Both] = []
        self.links: list[Both] = []
        self.same: list[Both] = []
        self.obstacles: list[Obstacle] = []
        self.going: dict[str, Entry] = {}
        self.going_directories: list[str] = []
        self.extras: list[tuple[str, Entry]] = []
        self.entries = 0
        self.unchanged = 0
        self._look()

    def _look(self) -> None:
        if self._source.top is not None:
            if self._destination.top is None:
                self.made.append(Both("", self._source.top, None))
            else:
                self.standing.append(Both("", self._source.top, self._destination.top))
        self._waiting.append(_Step("", self._destination.top is not None, False))
        while self._waiting:
            self._meet(self._waiting.pop())
        self.problems.sort()

    def _left_out(self, path: str, why: str, at_destination: bool = False) -> None:
        self.problems.append(Problem(path, why, at_destination))

    # -- what the source has

    def _meet(self, step: _Step) -> None:
        directory, stands, keeps = step
        mine = self._source.folders.get(directory)
        if mine is None or directory in self._source.unreadable:
            keeps = True
            self._left_out(directory, self._source.unreadable.get(directory, NOT_LISTED))
            mine = mine or {}
        theirs: dict[str, Entry] = {}
        if stands:
            theirs = self._destination.folders.get(directory, theirs)
            self._report_unlisted(directory)
        prefix = f"{directory}/" if directory else ""
        self._see(prefix, mine, theirs, keeps)
        for name in theirs.keys() - mine.keys():
            if self._rules.delete and not keeps:
                self._let_go(prefix + name, theirs[name])
            else:
                self.extras.append((prefix + name, theirs[name]))

    def _see(self, prefix: str, mine: dict[str, Entry], theirs: dict[str, Entry], keeps: bool) -> None:
        """Compare the entries of a directory. Most are equal files or new ones: those take the short ways."""
        leaves_out = self._rules.leaves_out if self.is_selective else None
        is_trusted = not self._rules.checksum
        is_plain = leaves_out is None and self._has_room_for_any(prefix)
        may_be_named = self._may_be_named
        equal = 0
        for name, entry in mine.items():
            old = theirs.get(name)
            if old == entry and is_trusted and entry[0] == "file":
                if leaves_out is None or not leaves_out(prefix + name, False):
                    equal += 1
                    if entry[1] >= LEAST:
                        self.same.append(Both(prefix + name, entry, old))
            elif (old is None and is_plain and entry[0] == "file") and (
                may_be_named is None or may_be_named(name)
            ):
                self.sent.append(Both(prefix + name, entry, None))
                self.entries += 1
            else:
                self._compare(prefix + name, entry, old, keeps)
        self.entries += equal
        self.unchanged += equal

    def _has_room_for_any(self, prefix: str) -> bool:
        """Whether a name of any length fits into a directory of the destination."""
        is_deep = prefix.count("/") + 1 + self._depth > MAX_DEPTH
        return not is_deep and len(prefix) * 4 + MAX_NAME <= self._room

    def _compare(self, path: str, entry: Entry, old: Entry | None, keeps: bool) -> None:
        if self.is_selective:
            if self._rules.leaves_out(path, entry.kind == "directory"):
                return
            if old is not None and self._rules.leaves_out(path, old.kind == "directory"):
                self._left_out(path, "what stands there is excluded")
                return
        if (why := self._unfit(path, entry, old)) is not None:
            self._left_out(path, why)
            return
        self.entries += 1
        if old is not None and old.kind != entry.kind:
            if not self._clear(path, old, keeps):
                return
            old = None
        both = Both(path, entry, old)
        if entry.kind == "directory":
            (self.made if old is None else self.standing).append(both)
            self._waiting.append(_Step(path, old is not None, keeps))
        elif entry.kind == "file":
            self._compare_file(both)
        elif old is None or old.target != entry.target:
            self.links.append(both)
        else:
            self.unchanged += 1

    def _compare_file(self, both: Both) -> None:
        entry, old = both.entry, both.old
        if old is None or entry.size != old.size:
            self.sent.append(both)
        elif self._rules.checksum or entry.mtime_ns != old.mtime_ns:
            self.unsure.append(both)
        else:
            if entry.size >= LEAST:
                self.same.append(both)
            if entry.mode == old.mode:
                self.unchanged += 1
            else:
                self.changed.append(both)

    def refuses(self, path: str) -> bool:
        """Whether the destination writes nothing under this name, in place of what has it neither."""
        return self._may_be_named is not None and not self._may_be_named(path[path.rfind("/") + 1 :])

    def _unfit(self, path: str, entry: Entry, old: Entry | None) -> str | None:
        """Why an entry of the source cannot be at the destination, or None."""
        if entry.kind == "other":
            return "it is neither a file nor a directory nor a link"
        if entry.kind == "link" and not leads_inside(path, entry.target):
            return NOT_INSIDE
        if self.refuses(path) and not (old is not None and _may_stay(entry, old)):
            return NOT_TAKEN
        if old is not None:
            return None
        if path.count("/") + 1 + self._depth > MAX_DEPTH:
            return f"the path is deeper than {MAX_DEPTH} names"
        if len(path) > self._room // 4 and len(os.fsencode(path)) > self._room:
            return _TOO_LONG
        return None

    # -- what stands in the way

    def _clear(self, path: str, old: Entry, keeps: bool) -> bool:
        """Note what makes way before something of another kind can be at `path`; False where it must stay."""
        below: list[str] = []
        if old.kind == "directory":
            why = self._obstacle(path, below)
            if why is None and below and keeps:
                why = "not all that the source has is known"
            if why is None and below and not self._rules.delete:
                why = "--delete removes it"
            if why is not None:
                self._left_out(path, f"a directory stands there: {why}")
                return False
        aside = self._aside(path, below)
        if aside is None:
            self._left_out(path, _TOO_LONG)
            return False
        self.obstacles.append(Obstacle(path, aside, below))
        return True

    def _aside(self, path: str, below: Iterable[str]) -> str | None:
        """The path that an entry in the way gets; None where its own or one below it would be too long."""
        directory = parent_of(path)
        prefix = path[: len(directory) + 1] if directory else ""
        taken = self._taken.setdefault(directory, set())
        names = (self._source.folders.get(directory, {}), self._destination.folders.get(directory, {}), taken)
        room = self._room - len(os.fsencode(prefix))
        longest = max((len(os.fsencode(inner)) for inner in below), default=0) - len(os.fsencode(path))
        for number in count(1):
            suffix = _ASIDE + (f"{number}" if number > 1 else "")
            most = min(MAX_NAME, room - max(longest, 0)) - len(suffix)
            if most < 1:
                return None
            name = _cut(path[len(prefix) :], most) + suffix
            if not any(name in some for some in names):
                taken.add(name)
                return prefix + name
        raise AssertionError

    def _obstacle(self, path: str, below: list[str]) -> str | None:
        """Why a directory of the destination cannot be emptied, or None; `below` gets what it holds."""
        waiting = [path]
        while waiting:
            directory = waiting.pop()
            if not self._is_known_there(directory):
                return "not all that it holds is known"
            for name, entry in self._destination.folders[directory].items():
                inner = f"{directory}/{name}"
                if self.is_selective and self._rules.leaves_out(inner, entry.kind == "directory"):
                    return "it holds what is excluded"
                below.append(inner)
                if entry.kind == "directory":
                    waiting.append(inner)
        return None

    def _is_known_there(self, directory: str) -> bool:
        """Whether all is known of what a directory of the destination holds."""
        return directory in self._destination.folders and directory not in self._destination.unreadable

    def _report_unlisted(self, directory: str) -> None:
        """Tell it where a directory of the destination could not be listed to its end."""
        if not self._is_known_there(directory):
            why = self._destination.unreadable.get(directory, NOT_LISTED)
            self._left_out(directory, f"at the destination: {why}", at_destination=True)

    # -- what the source does not have

    def _let_go(self, path: str, old: Entry) -> bool:
        """Note what of an entry is to be removed; whether that is all of it."""
        if self.is_selective and self._rules.leaves_out(path, old.kind == "directory"):
            return False
        if old.kind != "directory":
            self.going[path] = old
            return True
        self._report_unlisted(path)
        goes = self._is_known_there(path)
        for name, entry in self._destination.folders.get(path, {}).items():
            goes = self._let_go(f"{path}/{name}", entry) and goes
        if goes:
            self.going_directories.append(path)
        return goes
