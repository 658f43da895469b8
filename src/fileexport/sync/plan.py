"""What a synchronisation does, decided before it begins: the questions, then the actions in order. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Literal, NamedTuple, get_args

from fileexport.sync.chunks import LEAST
from fileexport.sync.manifest import Entry, Manifest
from fileexport.sync.rules import Rules
from fileexport.sync.survey import NOT_TAKEN, Both, Problem, Survey, parent_of

__all__ = [
    "Action",
    "ActionKind",
    "Hashes",
    "Plan",
    "Problem",
    "Questions",
    "Totals",
    "plan",
    "questions",
]

#: Files up to this size are sent first: they travel many in one frame.
SMALL = 64 << 10
#: How many files that are about to go are searched for the chunks of one that comes.
MOST_BASES = 3
#: What the owner of a directory needs, to change what it holds.
_OPEN = 0o700

ActionKind = Literal["aside", "make_directory", "move", "copy", "send", "update", "link", "remove", "set"]


class Action(NamedTuple):
    """One step at the destination.

    `entry` is what shall be at `path` afterwards, None for aside and remove. `size` is the content in bytes
    of send, update, copy and move, else 0. `sources` are paths at the destination: the one that is moved,
    copied or put aside, or those whose chunks an update may use, the old version first; of a remove by which
    nothing is lost the one where this stood, as something else took its place, or all that it held was moved
    away: it is not counted as removed. `old` is what a file is that is moved, or whose time or mode is set:
    any other is left alone.
    """

    kind: ActionKind
    path: str
    size: int = 0
    entry: Entry | None = None
    sources: tuple[str, ...] = ()
    old: Entry | None = None


class Totals(NamedTuple):
    """What a plan will do, in numbers.

    `files` counts send, update, copy and move, `bytes` the content of send and update; `entries` those of the
    source, and `unchanged` those of them that are at the destination as they shall be. `removed` leaves out
    what something else replaces, unless that is a directory that holds something, and directories of which
    all was moved away; it is what `Rules.max_delete` limits.
    """

    files: int = 0
    bytes: int = 0
    directories: int = 0
    links: int = 0
    moved: int = 0
    copied: int = 0
    removed: int = 0
    set: int = 0
    entries: int = 0
    unchanged: int = 0


class Plan(NamedTuple):
    """The actions in the order in which they are carried out, what is left out, and the totals.

    With a `refusal` none of them is: that says why more would be removed than may be.
    """

    actions: list[Action]
    problems: list[Problem]
    totals: Totals
    refusal: str | None = None


class Questions(NamedTuple):
    """The files of both sides whose BLAKE3 `plan` wants to know."""

    source: list[str]
    destination: list[str]


class Hashes(NamedTuple):
    """BLAKE3 of files, by path. What is missing counts as different."""

    source: Mapping[str, bytes]
    destination: Mapping[str, bytes]


_NO_HASHES = Hashes({}, {})


#: By what a file may be found again under another name: its size, and its time where it is small.
_Look = tuple[int, int]


def _look(entry: Entry) -> _Look:
    return entry.size, entry.mtime_ns if entry.size < LEAST else 0


def questions(source: Manifest, destination: Manifest, rules: Rules) -> Questions:
    """Say which files' hashes decide: those that only seem to differ, and those that may have moved."""
    if not any(destination.folders.values()):
        return Questions([], [])
    survey = Survey(source, destination, rules)
    mine = {both.path for both in survey.unsure}
    theirs = set(mine)
    wanted: dict[_Look, list[str]] = defaultdict(list)
    for both in chain(survey.sent, survey.unsure):
        if both.entry.size:
            wanted[_look(both.entry)].append(both.path)
    if wanted:
        found = set()
        for path, entry in chain(survey.going.items(), _staying(survey, destination, rules)):
            look = _look(entry)
            if look in wanted:
                theirs.add(path)
                found.add(look)
        for look in found:
            mine.update(wanted[look])
    return Questions(sorted(mine), sorted(theirs))


def _staying(survey: Survey, destination: Manifest, rules: Rules) -> Iterator[tuple[str, Entry]]:
    """Files of at least `LEAST` bytes that may be copied at the destination, as they stay as they are."""
    for both in chain(survey.same, survey.unsure):
        if both.entry.size >= LEAST:
            yield both.path, both.entry
    waiting = list(survey.extras)
    while waiting:
        path, entry = waiting.pop()
        if survey.is_selective and rules.leaves_out(path, entry.kind == "directory"):
            continue
        if entry.kind == "file" and entry.size >= LEAST:
            yield path, entry
        elif entry.kind == "directory":
            folder = destination.folders.get(path, {})
            waiting += [(f"{path}/{name}", inner) for name, inner in folder.items()]


def plan(
    source: Manifest,
    destination: Manifest,
    rules: Rules,
    hashes: Hashes = _NO_HASHES,
    *,
    may_be_named: Callable[[str], bool] | None = None,
    beneath: str = "",
) -> Plan:
    """Decide what makes the destination equal to the source, in the order in which it is done.

    `may_be_named` says which new names the destination takes (default: any). `beneath` is the path of the
    destination's top below its root, which the limits of a path's depth and length are about. It has a
    `refusal` where more would be removed than `rules.max_delete` allows, or anything by an empty source.
    """
    survey = Survey(source, destination, rules, may_be_named, beneath)
    work = _Work(survey, destination, hashes)
    work.compare()
    work.find_again(_staying(survey, destination, rules))
    work.send()
    work.remove()
    decided = work.finish()
    return decided._replace(refusal=_refusal(survey, decided.totals.removed, destination, rules))


#: `_Look` and the hash: two files with the same key have the same content.
_Key = tuple[int, int, bytes]


class _Work:
    """The actions of one plan while they are being found."""

    def __init__(self, survey: Survey, destination: Manifest, hashes: Hashes) -> None:
        self._survey = survey
        self._destination = destination
        self._hashes = hashes
        self._actions: dict[ActionKind, list[Action]] = {kind: [] for kind in get_args(ActionKind)}
        self._sent = survey.sent
        #: What gets its time and mode, and what it was, if it has to be that still.
        self._set = {both.path: (both.entry, both.old) for both in survey.changed}
        self._unchanged = survey.unchanged
        #: What `delete` removes and nothing moved away.
        self.going = dict(survey.going)

    def _add(
        self, kind: ActionKind, path: str, size: int = 0, entry: Entry | None = None, *sources: str
    ) -> None:
        self._actions[kind].append(Action(kind, path, size, entry, sources))

    def compare(self) -> None:
        """Judge by their hashes the files that may have changed; those that did not may be copied."""
        unsure, self._survey.unsure = self._survey.unsure, []
        for both in unsure:
            path, entry, old = both
            mine = self._hashes.source.get(path)
            if mine is None or mine != self._hashes.destination.get(path):
                if self._survey.refuses(path):
                    self._survey.problems.append(Problem(path, NOT_TAKEN))
                    self._survey.entries -= 1
                else:
                    self._sent.append(both)
                continue
            if entry.size >= LEAST:
                self._survey.same.append(both)
            if entry == old:
                self._unchanged += 1
            else:
                self._set[path] = entry, old

    # -- content that is there already

    def find_again(self, staying: Iterable[tuple[str, Entry]]) -> None:
        """Move and copy what the destination has under another name. Each file that goes moves once."""
        if not self._hashes.source:
            return
        wanted = []
        self._sent.sort(key=itemgetter(0))
        for both in self._sent:
            digest = self._hashes.source.get(both.path)
            if digest is not None and both.entry.size:
                wanted.append((both, (*_look(both.entry), digest)))
        if not wanted:
            return
        keys = {key for _, key in wanted}
        there = self._move(wanted, keys)
        for path, entry in staying:
            key = self._key_there(path, entry)
            if key in keys and key not in there:
                there[key] = path
        done = {action.path for action in self._actions["move"]}
        for both, key in wanted:
            if both.path not in done and key in there:
                self._add("copy", both.path, both.entry.size, both.entry, there[key])
                done.add(both.path)
        self._sent = [both for both in self._sent if both.path not in done]

    def _key_there(self, path: str, entry: Entry) -> _Key | None:
        digest = self._hashes.destination.get(path)
        return None if digest is None or entry.kind != "file" else (*_look(entry), digest)

    def _move(self, wanted: Sequence[tuple[Both, _Key]], keys: set[_Key]) -> dict[_Key, str]:
        """Move files that would go, to their own name before others; where each content is then."""
        named: dict[tuple[_Key, str], list[str]] = defaultdict(list)
        for path in sorted(self.going, reverse=True):
            key = self._key_there(path, self.going[path])
            if key is not None and key in keys:
                named[key, _name_of(path)].append(path)
        there: dict[_Key, str] = {}
        others = []
        for both, key in wanted:
            if candidates := named.get((key, _name_of(both.path))):
                self._move_one(candidates.pop(), both)
                there.setdefault(key, both.path)
            else:
                others.append((both, key))
        left: dict[_Key, list[str]] = defaultdict(list)
        for (key, _), paths in named.items():
            left[key] += paths
        for both, key in others:
            if candidates := left.get(key):
                self._move_one(candidates.pop(), both)
                there.setdefault(key, both.path)
        return there

    def _move_one(self, origin: str, both: Both) -> None:
        moved = self.going.pop(origin)
        self._actions["move"].append(Action("move", both.path, both.entry.size, both.entry, (origin,), moved))
        if moved != both.entry:
            self._set[both.path] = both.entry, moved

    # -- content that travels

    def send(self) -> None:
        """Send what is not there: whole, or where it is large by the chunks that its likes lack."""
        leaving = _Leaving(self.going)
        whole = self._actions["send"]
        for path, entry, old in self._sent:
            if entry.size < LEAST:
                whole.append(Action("send", path, entry.size, entry))
            else:
                bases: list[str] = []
                if old is not None and old.size >= LEAST:
                    bases = [path]
                bases += leaving.likes(path, entry.size, only_namesakes=bool(bases))
                self._add("update" if bases else "send", path, entry.size, entry, *bases)

    # -- what goes

    def remove(self) -> None:
        """Remove what `delete` takes and nothing moved away."""
        for path in self.going:
            self._add("remove", path)
        lost = self._lost_directories()
        for path in self._survey.going_directories:
            self._add("remove", path, 0, None, *(() if path in lost else (path,)))

    def _lost_directories(self) -> set[str]:
        """The directories with which something goes that did not move, themselves where they were empty."""
        empty = {path for path in self._survey.going_directories if not self._destination.folders[path]}
        lost = set(empty)
        for path in chain(self.going, empty):
            directory = parent_of(path)
            while directory and directory not in lost:
                lost.add(directory)
                directory = parent_of(directory)
        return lost

    # -- the whole

    def finish(self) -> Plan:
        """Put all in order and count it."""
        survey, actions = self._survey, self._actions
        self._make_way()
        for path, entry, _ in survey.made:
            self._add("make_directory", path, 0, entry)
        for path, entry, _ in survey.links:
            self._add("link", path, 0, entry)
        opened = self._set_directories()
        for path, (entry, before) in self._set.items():
            actions["set"].append(Action("set", path, 0, entry, (), before))
        for kind, some in actions.items():
            some.sort(key=itemgetter(1), reverse=kind == "remove")
        actions["send"].sort(key=lambda action: action.size > SMALL)
        actions["set"].sort(key=lambda action: -_depth_of(action.path))
        opened.sort(key=itemgetter(1))
        return Plan(
            opened + list(chain.from_iterable(actions.values())), survey.problems, self._totals(opened)
        )

    def _make_way(self) -> None:
        """Put aside what is in the way; in the end it is removed."""
        for obstacle in self._survey.obstacles:
            path, aside, below = obstacle
            self._add("aside", aside, 0, None, path)
            self._add("remove", aside, 0, None, *(() if below else (path,)))
            for inner in below:
                self._add("remove", obstacle.moved(inner))

    def _set_directories(self) -> list[Action]:
        """Find the directories whose times and modes are set at the end, and those to be opened first."""
        touched = {
            parent_of(action.path) for action in chain.from_iterable(self._actions.values()) if action.path
        }
        touched.update(parent_of(action.sources[0]) for action in self._actions["move"])
        content = [inner for obstacle in self._survey.obstacles for inner in obstacle.below]
        touched.update(map(parent_of, content))
        if touched:
            # Staging may come and go in the top.
            touched.add("")
        self._set.update((path, (entry, None)) for path, entry, _ in self._survey.made)
        for path, entry, old in self._survey.standing:
            if path in touched or old is None or (entry.mtime_ns, entry.mode) != (old.mtime_ns, old.mode):
                self._set[path] = entry, None if path in touched else old
        opened = []
        gone = {*self._survey.going_directories, *content}
        gone.update(obstacle.path for obstacle in self._survey.obstacles)
        for path in touched:
            old = self._destination.get(path)
            if old is not None and old.kind == "directory" and old.mode & _OPEN != _OPEN:
                opened.append(Action("set", path, 0, old._replace(mode=old.mode | _OPEN), (), old))
                if path not in gone:
                    self._set.setdefault(path, (old, None))
        return opened

    def _totals(self, opened: Sequence[Action]) -> Totals:
        count = {kind: len(some) for kind, some in self._actions.items()}
        sent = chain(self._actions["send"], self._actions["update"])
        same = sum(path not in self._set for path, _, _ in self._survey.standing if path)
        return Totals(
            files=count["send"] + count["update"] + count["copy"] + count["move"],
            bytes=sum(action.size for action in sent),
            directories=count["make_directory"],
            links=count["link"],
            moved=count["move"],
            copied=count["copy"],
            removed=sum(not action.sources for action in self._actions["remove"]),
            set=count["set"] + len(opened),
            entries=self._survey.entries,
            unchanged=self._unchanged + same,
        )


def _name_of(path: str) -> str:
    return path[path.rfind("/") + 1 :]


def _depth_of(path: str) -> int:
    """How deep a path lies; the top least."""
    return path.count("/") + 1 if path else 0


class _Leaving:
    """Files that are about to go: what of them may hold chunks of one that comes."""

    def __init__(self, going: Mapping[str, Entry]) -> None:
        self._likes: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
        for path, entry in going.items():
            if entry.size >= LEAST:
                for like in self._kinds(path):
                    self._likes[like].append((entry.size, path))
        for some in self._likes.values():
            some.sort()

    @staticmethod
    def _kinds(path: str) -> list[tuple[str, str]]:
        """What makes one file like another, the strongest reason first."""
        name = _name_of(path)
        dot = name.rfind(".")
        suffix = [("suffix", name[dot:])] if dot > 0 else []
        return [("name", name), *suffix, ("size", "")]

    def likes(self, path: str, size: int, only_namesakes: bool) -> list[str]:
        """At most `MOST_BASES`: of the same name, then of the same suffix, then of nearly the same size."""
        found: list[str] = []
        for like in self._kinds(path)[: 1 if only_namesakes else None]:
            some = self._likes.get(like, ())
            at = bisect_left(some, (size, ""))
            near = sorted(
                some[max(0, at - MOST_BASES) : at + MOST_BASES],
                key=lambda known: (abs(known[0] - size), known[1]),
            )
            found += [known for _, known in near if known not in found]
        return found[:MOST_BASES]


def _refusal(survey: Survey, count: int, destination: Manifest, rules: Rules) -> str | None:
    """Why it must not be carried out, where more would be lost than the rules allow."""
    if not count:
        return None
    of = _extent(destination, rules)
    what = f"{count} of {of} entries would be removed"
    if not survey.entries:
        return f"there is nothing in the source, and {what}: an empty source removes nothing"
    if not rules.max_delete.allows(count, of):
        return f"{what}, and the limit is {rules.max_delete}: allow it with --max-delete {count}"
    return None


def _extent(destination: Manifest, rules: Rules) -> int:
    """How many entries the destination has, without those that are excluded."""
    if not rules.is_selective:
        return destination.count()
    count = 0
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        for name, entry in destination.folders.get(directory, {}).items():
            path = f"{directory}/{name}" if directory else name
            is_directory = entry.kind == "directory"
            if not rules.leaves_out(path, is_directory):
                count += 1
                if is_directory:
                    waiting.append(path)
    return count
