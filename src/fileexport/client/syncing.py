"""`synchronize_upload` and `synchronize_download`: a directory made equal to one of the other side.

Both sides are looked at, `sync.plan` decides, a carrier does it. Actions are announced in the plan's order,
whatever the order in which they end: a dry run announces the same.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from fileexport.client.acting import CONTENT, FILES, Listener, Work
from fileexport.client.answers import not_found
from fileexport.client.carrying import Carrier, Down, Up
from fileexport.client.chunks import CallerRaised
from fileexport.client.ends import LocalTree, RemoteTree, Tree, hash_both, look
from fileexport.errors import DeletionRefused, SourceNotFound
from fileexport.paths import is_file_name_valid
from fileexport.sync.manifest import Manifest
from fileexport.sync.plan import Action, ActionKind, Hashes, Plan, Problem, Totals, plan, questions
from fileexport.sync.rules import IGNORE_FILE, Limit, Patterns, Rules, ignore_files

if TYPE_CHECKING:
    from fileexport.client.blocking import Client

Name = str | os.PathLike[str]


class SyncProgress(NamedTuple):
    """How far a synchronisation is: of `totals`, files and bytes of content; and the action just ended."""

    totals: Totals
    files_done: int
    bytes_done: int
    action: Action | None


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What a synchronisation was.

    `plan` is what was to be done, `done` how many actions of each kind were, `removed` how many entries are
    gone for good (in `done` are also those that something else replaced, and directories of which all was
    moved away), `bytes_sent` the content of files
    that arrived, as far as it travelled, `bytes_saved` that which did not need to, because it was at the
    destination already. `problems` are entries that were left out or failed, each with its reason. A dry
    run has done nothing.
    """

    plan: Plan
    done: Counter[ActionKind]
    removed: int
    bytes_sent: int
    bytes_saved: int
    seconds: float
    problems: list[Problem]
    dry_run: bool


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
        self._within += count if action.kind in CONTENT else 0
        self._progress(SyncProgress(self._totals, self._files, self._bytes + self._within, None))

    def left_out(self, problem: Problem) -> None:
        self._within = 0

    def failed(self, path: str, error: Exception) -> None:
        self._within = 0

    def done(self, action: Action) -> None:
        self._within = 0
        self._files += action.kind in FILES
        self._bytes += action.size if action.kind in CONTENT else 0
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
        self._begun = time.monotonic()
        self._dry_run = False
        self._decided = Plan([], [], Totals())
        self._work: Work | None = None
        ends: tuple[Tree, Tree] = (here, there) if is_upload else (there, here)
        self.source, self.destination = ends

    def run(self, listener: Listener, *, dry_run: bool = False) -> SyncResult:
        """Carry it out, or only say what would be done. Raises what ends everything."""
        self._begun, self._dry_run = time.monotonic(), dry_run
        decided, hashes = self._decide()
        self._decided = decided
        if decided.refusal is not None and not dry_run:
            raise DeletionRefused(decided.refusal)
        listener.planned(decided)
        for problem in decided.problems:
            listener.left_out(problem)
        if dry_run:
            for action in decided.actions:
                listener.done(action)
            if decided.refusal is not None:
                raise DeletionRefused(decided.refusal)
            return self.result()
        self._work = work = Work(self._carrier(), listener, hashes)
        try:
            work.run(decided.actions)
        except CallerRaised as raised:
            error = raised.error
        else:
            return self.result()
        # Out here, so that it is what it was: with its own cause and context.
        raise error

    def result(self) -> SyncResult:
        """What it was so far, whatever ended it."""
        decided, work = self._decided, self._work
        spent = time.monotonic() - self._begun
        if work is None:
            return SyncResult(decided, Counter(), 0, 0, 0, spent, decided.problems, self._dry_run)
        counts = work.done, work.removed, work.sent, work.saved
        return SyncResult(decided, *counts, spent, decided.problems + work.problems, False)

    def _decide(self) -> tuple[Plan, Mapping[str, bytes]]:
        """The plan, and the hashes of the source that are known."""
        ours, theirs = look(self._here, self._there)
        source, destination = (ours, theirs) if self._is_upload else (theirs, ours)
        if source.top is None:
            raise not_found(SourceNotFound, self.source.place(""))
        if destination.top is None:
            self.destination.check(is_there=False)
        with suppress(FileNotFoundError):
            # A link that leads outside, or nowhere, is there as well.
            self.destination.check(is_there=True)
        rules = self._rules
        if self._gitignore:
            rules = replace(rules, ignores=ignores(self.source, source, rules))
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


def ignores(source: Tree, manifest: Manifest, rules: Rules) -> dict[str, Patterns]:
    """The patterns of the `.gitignore` files of a tree, by directory; of none in what is left out.

    Where one cannot be had, nobody knows what its directory leaves out: that counts as not wholly known.
    """
    found: dict[str, Patterns] = {}
    known = replace(rules, ignores=found)
    for _, level in groupby(sorted(ignore_files(manifest), key=_depth), _depth):
        asked = {}
        for path in level:
            directory = path.rpartition("/")[0]
            if not any(known.leaves_out(above, True) for above in _upwards(directory)):
                asked[path] = directory
        files = {path: entry for path in asked if (entry := manifest.get(path)) is not None}
        texts = dict(source.texts(files))
        for path, directory in asked.items():
            text = texts.get(path, "nothing was said of it")
            if isinstance(text, bytes):
                found[directory] = Patterns.of_file(text)
            else:
                manifest.unreadable.setdefault(directory, f"its {IGNORE_FILE} cannot be used: {text}")
    return found


def _depth(path: str) -> int:
    return path.count("/")


def _upwards(path: str) -> Iterator[str]:
    """A directory and those that it lies in, without the top."""
    while path:
        yield path
        path = path.rpartition("/")[0]
