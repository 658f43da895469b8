"""`synchronize_upload` and `synchronize_download`: a directory made equal to one of the other side.

Both sides are looked at, `sync.plan` decides, a carrier does it. Actions are announced in the plan's order,
whatever the order in which they end: a dry run announces the same.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import TYPE_CHECKING, NamedTuple

from fileexport.client.answers import not_found
from fileexport.client.carrying import Carried, Carrier, Down, Up
from fileexport.client.chunks import CallerRaised
from fileexport.client.ends import LocalTree, RemoteTree, Tree, hash_both, look
from fileexport.client.moving import BATCH, TROUBLE, callers_own, is_fatal
from fileexport.errors import BusyError, ChangedWhileRead, FileNameError, SourceNotFound, UnexpectedError
from fileexport.paths import is_file_name_valid
from fileexport.sync.manifest import Manifest
from fileexport.sync.plan import Action, ActionKind, Hashes, Plan, Problem, Totals, plan, questions
from fileexport.sync.rules import Limit, Patterns, Rules, ignore_files
from fileexport.wire.messages import MAX_INLINE

if TYPE_CHECKING:
    from fileexport.client.blocking import Client

Name = str | os.PathLike[str]
#: Seconds to wait for what somebody else is writing: a command that was broken off may still hold it.
_PAUSES = (0.25, 0.5, 1.0)
#: What went wrong with one entry only, and is no reason to keep what shall go.
_ONE_ENTRY = (FileNameError, ChangedWhileRead, SourceNotFound)
_FILES = ("send", "update", "copy", "move")
#: Of those, the ones whose content is counted.
_CONTENT = ("send", "update")
_NOT_ALL = "nothing was removed, because not everything else could be done"


class SyncProgress(NamedTuple):
    """How far a synchronisation is: of `totals`, files and bytes of content; and the action just ended."""

    totals: Totals
    files_done: int
    bytes_done: int
    action: Action | None


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What a synchronisation was.

    `plan` is what was to be done, `done` how many actions of each kind were, `bytes_sent` the content that
    travelled, `bytes_saved` that which did not need to, because it was at the destination already.
    `problems` are entries that were left out or failed, each with its reason. A dry run has done nothing.
    """

    plan: Plan
    done: Counter[ActionKind]
    bytes_sent: int
    bytes_saved: int
    seconds: float
    problems: list[Problem]
    dry_run: bool


class Listener:
    """Told how a synchronisation goes; paths are below the tops. This one stays silent."""

    def planned(self, plan: Plan) -> None:
        """This will be done."""

    def moved(self, action: Action, count: int) -> None:
        """So many more bytes of a large file are there."""

    def done(self, action: Action) -> None:
        """An action is done; in a dry run: would be."""

    def left_out(self, path: str, why: str) -> None:
        """An entry cannot be made equal; with a directory, all that lies in it."""

    def failed(self, path: str, error: Exception) -> None:
        """An entry failed; others go on."""


def synchronize_upload(
    client: Client,
    source: Name,
    destination: Name,
    *,
    delete: bool = False,
    max_delete: str | int = "50%",
    exclude: Iterable[str] = (),
    include: Iterable[str] = (),
    gitignore: bool = False,
    checksum: bool = False,
    dry_run: bool = False,
    progress: Callable[[SyncProgress], object] | None = None,
    timeout: int | None = None,
) -> SyncResult:
    """Make the remote directory `destination` equal to the local directory `source`.

    Content, modes (their last nine bits) and modification times, of directories too, become the same; links
    whose target stays inside are links again. What has the same size, time and mode is not read, unless
    `checksum`; large files travel as what changed in them, moved ones not at all. The destination is made
    where its parent is there.

    With `delete`, what the source does not have goes, in the end: never when the source is empty or anything
    failed before, and not more than `max_delete` entries, a number or a part of the destination's
    (``"10%"``), otherwise `DeletionRefused`. `exclude` and `include` are gitignore patterns, seen from the
    source, and so are with `gitignore` the ``.gitignore`` files in it: what they match is neither sent nor
    removed. `dry_run` changes nothing.

    `progress` is called after each action, and now and then within a large file. `timeout` is in
    milliseconds per answer. An entry that fails is a problem of the result, and the others go on. Raises
    what `Client` raises where nothing more can succeed; ValueError for a pattern or limit that cannot be
    read; `SourceNotFound`, `DestinationNotFound`, `NotADirectoryError`. Called again, it goes on.
    """
    sync = Sync(
        client,
        LocalTree(os.fspath(source)),
        RemoteTree(client, os.fspath(destination), timeout),
        rules_of(delete, max_delete, exclude, include, checksum),
        is_upload=True,
        gitignore=gitignore,
        timeout=timeout,
    )
    return sync.run(_Reporter(progress) if progress is not None else Listener(), dry_run=dry_run)


def synchronize_download(
    client: Client,
    source: Name,
    destination: Name,
    *,
    delete: bool = False,
    max_delete: str | int = "50%",
    exclude: Iterable[str] = (),
    include: Iterable[str] = (),
    gitignore: bool = False,
    checksum: bool = False,
    dry_run: bool = False,
    progress: Callable[[SyncProgress], object] | None = None,
    timeout: int | None = None,
) -> SyncResult:
    """Make the local directory `destination` equal to the remote directory `source`.

    As `synchronize_upload`, with the sides exchanged. Nothing outside `destination` is touched, whatever the
    server says.
    """
    sync = Sync(
        client,
        LocalTree(os.fspath(destination)),
        RemoteTree(client, os.fspath(source), timeout),
        rules_of(delete, max_delete, exclude, include, checksum),
        is_upload=False,
        gitignore=gitignore,
        timeout=timeout,
    )
    return sync.run(_Reporter(progress) if progress is not None else Listener(), dry_run=dry_run)


def rules_of(
    delete: bool, max_delete: str | int, exclude: Iterable[str], include: Iterable[str], checksum: bool
) -> Rules:
    """The rules as they were given. Raises ValueError for what cannot be read."""
    lines = [*_lines(exclude), *(f"!{pattern}" for pattern in _lines(include))]
    return Rules(delete, Limit.parse(str(max_delete)), checksum, Patterns(lines))


def _lines(patterns: Iterable[str]) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)


class _Reporter(Listener):
    """Calls the function of a caller of the library."""

    def __init__(self, progress: Callable[[SyncProgress], object]) -> None:
        self._progress = progress
        self._files = self._bytes = self._within = 0

    def planned(self, plan: Plan) -> None:
        self._totals = plan.totals

    def moved(self, action: Action, count: int) -> None:
        self._within += count if action.kind in _CONTENT else 0
        self._progress(SyncProgress(self._totals, self._files, self._bytes + self._within, None))

    def done(self, action: Action) -> None:
        self._within = 0
        self._files += action.kind in _FILES
        self._bytes += action.size if action.kind in _CONTENT else 0
        self._progress(SyncProgress(self._totals, self._files, self._bytes, action))


class Sync:
    """One synchronisation between a local and a remote directory."""

    def __init__(
        self,
        client: Client,
        here: LocalTree,
        there: RemoteTree,
        rules: Rules,
        *,
        is_upload: bool,
        gitignore: bool = False,
        timeout: int | None = None,
    ) -> None:
        self._client = client
        self._here = here
        self._there = there
        self._rules = rules
        self._is_upload = is_upload
        self._gitignore = gitignore
        self._timeout = timeout
        ends: tuple[Tree, Tree] = (here, there) if is_upload else (there, here)
        self.source, self.destination = ends

    def run(self, listener: Listener, *, dry_run: bool = False) -> SyncResult:
        """Carry it out, or only say what would be done. Raises what ends everything."""
        begun = time.monotonic()
        decided, hashes = self._decide()
        listener.planned(decided)
        for problem in decided.problems:
            listener.left_out(*problem)
        if dry_run:
            for action in decided.actions:
                listener.done(action)
            return SyncResult(decided, Counter(), 0, 0, time.monotonic() - begun, decided.problems, True)
        work = Work(self._carrier(), listener, hashes)
        try:
            work.run(decided.actions)
        except CallerRaised as raised:
            error = raised.error
        else:
            problems = decided.problems + work.problems
            spent = time.monotonic() - begun
            return SyncResult(decided, work.done, work.sent, work.saved, spent, problems, False)
        # Out here, so that it is what it was: with its own cause and context.
        raise error

    def _decide(self) -> tuple[Plan, Mapping[str, bytes]]:
        """The plan, and the hashes of the source that are known."""
        ours, theirs = look(self._here, self._there)
        source, destination = (ours, theirs) if self._is_upload else (theirs, ours)
        if source.top is None:
            raise not_found(SourceNotFound, self.source.place(""))
        if destination.top is None:
            self.destination.check_parent()
        rules = self._rules
        if self._gitignore:
            rules = replace(rules, ignores=_ignores(self.source, source))
        asked = questions(source, destination, rules)
        hashes = self._hashes(*asked, fresh=rules.checksum)
        beneath = self._there.top.lstrip("/") if self._is_upload else ""
        named = is_file_name_valid if destination.is_portable else None
        decided = plan(source, destination, rules, hashes, may_be_named=named, beneath=beneath)
        return decided, hashes.source

    def _hashes(self, source: Sequence[str], destination: Sequence[str], *, fresh: bool) -> Hashes:
        if self._is_upload:
            return Hashes(*hash_both(self._here, self._there, source, destination, fresh=fresh))
        ours, theirs = hash_both(self._here, self._there, destination, source, fresh=fresh)
        return Hashes(theirs, ours)

    def _carrier(self) -> Carrier:
        way = Up if self._is_upload else Down
        return way(self._client, self._here, self._there, self._timeout)


def _ignores(source: Tree, manifest: Manifest) -> dict[str, Patterns]:
    """The patterns of the `.gitignore` files of a tree, by directory."""
    found = {}
    for path in ignore_files(manifest):
        try:
            text = source.text(path)
        except FileNotFoundError:
            continue
        found[path.rpartition("/")[0]] = Patterns.of_file(text)
    return found


def _stage(action: Action) -> str:
    """What is carried out together; no path is in a stage twice."""
    if action.kind in ("make_directory", "move"):
        return "make"
    if action.kind == "send" and action.size <= MAX_INLINE:
        return "small"
    return "one" if action.kind in _FILES else action.kind


class Work:
    """The actions of one plan on their way."""

    def __init__(self, carrier: Carrier, listener: Listener, hashes: Mapping[str, bytes]) -> None:
        self._carrier = carrier
        self._listener = listener
        self._hashes = hashes
        self._moved = callers_own(listener.moved)
        self.done: Counter[ActionKind] = Counter()
        self.sent = self.saved = 0
        self.problems: list[Problem] = []
        self._has_failed = False
        #: Paths that are not what they shall be: nothing more is done to them, nor in them.
        self._lost: set[str] = set()

    def run(self, actions: Iterable[Action]) -> None:
        """Carry all of them out, stage by stage. Raises what ends everything."""
        try:
            for stage, some in groupby(actions, _stage):
                if stage == "remove" and self._has_failed:
                    self._leave_out("", _NOT_ALL)
                    continue
                while batch := list(islice(some, BATCH)):
                    self._carry(stage, [action for action in batch if not self._is_lost(action)])
        finally:
            self._carrier.close()

    def _is_lost(self, action: Action) -> bool:
        path = action.path
        if not self._lost or not (path in self._lost or path.rpartition("/")[0] in self._lost):
            return False
        self._lost.add(path)
        return True

    # -- one batch

    def _carry(self, stage: str, actions: Sequence[Action]) -> None:
        """Carry out a batch, and announce each in its turn."""
        turn = iter(actions)
        head = next(turn, None)
        ended: dict[str, Carried] = {}
        for carried in self._outcomes(stage, actions):
            ended[carried.action.path] = carried
            while head is not None and head.path in ended:
                self._ended(*ended.pop(head.path))
                head = next(turn, None)
        if head is not None:
            self._ended(head, 0, UnexpectedError("nothing was said of what became of it"))

    def _outcomes(self, stage: str, actions: Sequence[Action]) -> Iterator[Carried]:
        """What becomes of the actions, in any order; busy ones are tried again."""
        if stage == "one":
            yield from map(self._one, actions)
            return
        attempt = self._carrier.small if stage == "small" else self._carrier.steps
        alone = []
        for pause in (*_PAUSES, None):
            busy = []
            for carried in attempt(actions):
                if isinstance(carried.error, BusyError) and pause is not None:
                    busy.append(carried.action)
                elif _goes_alone(carried):
                    alone.append(carried.action)
                else:
                    yield carried
            if not busy or pause is None:
                break
            actions = busy
            time.sleep(pause)
        yield from map(self._one, alone)

    def _one(self, action: Action) -> Carried:
        """A file that travels alone, if it has to."""
        for pause in (*_PAUSES, None):
            try:
                return Carried(action, self._send(action), None)
            except BusyError as error:
                if pause is None:
                    return Carried(action, 0, error)
                time.sleep(pause)
            except TROUBLE as error:
                if is_fatal(error):
                    raise
                return Carried(action, 0, error)
            except ValueError as error:
                return Carried(action, 0, error)
        raise AssertionError

    def _send(self, action: Action) -> int:
        digest = self._hashes.get(action.path) if action.kind == "copy" else None
        if digest is not None:
            try:
                self._carrier.copy(action, digest)
                return 0
            except TROUBLE as error:
                if is_fatal(error) or isinstance(error, FileNameError):
                    raise
        before = 0

        def moved(done: int, size: int) -> None:
            nonlocal before
            self._moved(action, done - before)
            before = done

        travelled = self._carrier.one(action, moved)
        if action.kind == "move":
            # It was not taken from there after all: another file system, perhaps.
            for _ in self._carrier.steps([Action("remove", action.sources[0])]):
                pass
        return travelled

    # -- what became of it

    def _ended(self, action: Action, travelled: int, error: Exception | None) -> None:
        kind = action.kind
        if error is None or (kind in ("clear", "remove") and isinstance(error, FileNotFoundError)):
            self.done[kind] += 1
            self.sent += travelled
            if kind in ("update", "copy", "move"):
                self.saved += max(action.size - travelled, 0)
            self._listener.done(action)
        elif not self._is_lost(action):
            self._went_wrong(action, error)

    def _went_wrong(self, action: Action, error: Exception) -> None:
        if is_fatal(error) or (action.kind == "make_directory" and not action.path):
            raise error
        if action.kind != "set":
            self._lost.add(action.path)
        if isinstance(error, _ONE_ENTRY):
            self._leave_out(action.path, _words(error))
        elif action.kind == "remove" and isinstance(error, IsADirectoryError):
            self._leave_out(action.path, "something new is in it")
        else:
            self._has_failed = True
            self.problems.append(Problem(action.path, _words(error)))
            self._listener.failed(action.path, error)

    def _leave_out(self, path: str, why: str) -> None:
        self.problems.append(Problem(path, why))
        self._listener.left_out(path, why)


def _goes_alone(carried: Carried) -> bool:
    """Whether a file may arrive by itself after all: it grew, it did not hold still, it cannot be moved."""
    action, _, error = carried
    if action.kind == "send":
        return isinstance(error, ValueError | ChangedWhileRead)
    return action.kind == "move" and error is not None and not isinstance(error, FileNameError | BusyError)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
