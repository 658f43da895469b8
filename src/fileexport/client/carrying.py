"""Carries the actions of a plan out: `Up` at the server, with content from here, `Down` here.

Paths are below the tops of both trees. What is done here goes through the jail of the destination: whatever
the server says, nothing outside it is touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fileexport.client.downloading import Destination
from fileexport.client.ends import LocalTree, RemoteTree
from fileexport.client.names import LocalFile, Outcome, below
from fileexport.client.sources import SourceTree
from fileexport.disk.jail import View
from fileexport.errors import FileExportError, FileNameError
from fileexport.paths import RelPath
from fileexport.sync.manifest import Entry
from fileexport.sync.plan import Action
from fileexport.wire import messages as m

if TYPE_CHECKING:
    from fileexport.client.blocking import Client
    from fileexport.disk.steps import Steps

#: Steps that are made ready at once.
_STEPS = 16384
#: What a new directory may at first: only its owner fills it. It gets its own mode in the end.
_OWNERS = 0o700
_VIEW = View()

#: Told how much of a file is there: bytes done, and its size.
Moved = Callable[[int, int], object]


class Carried(NamedTuple):
    """What became of an action: bytes of content that travelled for it; `error` None where it is done."""

    action: Action
    travelled: int
    error: Exception | None


class Carrier(Protocol):
    """What a synchronisation asks of the way between its ends."""

    def steps(self, actions: Sequence[Action]) -> Iterator[Carried]:
        """Actions without content (all but send, update, copy), in their order."""

    def small(self, actions: Iterable[Action]) -> Iterator[Carried]:
        """Files of at most `MAX_INLINE` bytes, pipelined, in any order."""

    def one(self, action: Action, moved: Moved) -> int:
        """A file, by what is there of it in the action's sources; returns the bytes that travelled."""

    def copy(self, action: Action, digest: bytes) -> None:
        """A file whose content with this BLAKE3 is at the destination already. Raises where it is not."""

    def close(self) -> None:
        """Clean up."""


class Up:
    """From here to the server."""

    def __init__(self, client: Client, here: LocalTree, there: RemoteTree, timeout: float | None) -> None:
        self._client = client
        self._here = here
        self._there = there
        self._timeout = timeout

    def steps(self, actions: Sequence[Action]) -> Iterator[Carried]:
        """Thousands in one request."""
        waiting = iter(actions)
        while some := list(islice(waiting, _STEPS)):
            steps: list[m.AnyStep | FileNameError] = []
            for action in some:
                try:
                    steps.append(self._step(action))
                except FileNameError as error:
                    steps.append(error)
            asked = [step for step in steps if not isinstance(step, FileNameError)]
            outcomes = iter(self._client.change(asked, timeout=self._timeout))
            for action, step in zip(some, steps, strict=True):
                yield Carried(action, 0, step if isinstance(step, FileNameError) else next(outcomes))

    def _step(self, action: Action) -> m.AnyStep:
        path = self._path(action.path)
        entry = action.entry
        if action.kind == "make_directory":
            return m.MakeStep(path, _OWNERS)
        if action.kind in ("move", "aside"):
            expected = _expected(action) or (None, None)
            return m.MoveStep(self._path(action.sources[0]), path, action.kind == "move", *expected)
        if entry is None:
            return m.RemoveStep(path)
        if action.kind == "link":
            return m.LinkStep(path, os.fsencode(entry.target), True)
        return m.SetStep(path, _time(action, entry), entry.mode, *(_expected(action) or (None, None)))

    def _path(self, path: str) -> RelPath:
        base = self._there.base
        # As `base + below(path)`, checked once.
        return RelPath((*base.parts, *path.split("/"))) if path else base

    def small(self, actions: Iterable[Action]) -> Iterator[Carried]:
        """As many in a frame as it takes."""
        files = {action.path: action for action in actions}
        outcomes = self._client.upload_small(
            _files(files.values(), self._here.place, self._here.tree),
            self._there.top,
            replace=True,
            timeout=self._timeout,
            modes=True,
        )
        return _carried(files, outcomes)

    def one(self, action: Action, moved: Moved) -> int:
        """Only what the server cannot take from its own files."""
        return self._client.upload_changes(
            self._here.place(action.path),
            self._there.place(action.path),
            [self._there.place(path) for path in action.sources],
            progress=moved,
            timeout=self._timeout,
            tree=self._here.tree,
        )

    def copy(self, action: Action, digest: bytes) -> None:
        """The server copies it."""
        assert action.entry is not None
        source, target = self._there.place(action.sources[0]), self._there.place(action.path)
        self._client.copy(source, target, action.entry, digest, timeout=self._timeout)

    def close(self) -> None:
        """Nothing is left."""


class Down:
    """From the server to here."""

    def __init__(self, client: Client, here: LocalTree, there: RemoteTree, timeout: float | None) -> None:
        self._client = client
        self._here = here
        self._there = there
        self._timeout = timeout
        #: Open from the first action on: that may be to make it.
        self._opened: Destination | None = None

    @property
    def _place(self) -> Destination:
        if self._opened is None:
            self._opened = Destination(self._here.top)
        return self._opened

    def steps(self, actions: Sequence[Action]) -> Iterator[Carried]:
        """One after the other."""
        if actions and actions[0].kind == "make_directory" and not actions[0].path:
            yield Carried(actions[0], 0, self._make_top())
            actions = actions[1:]
        if any(action.kind == "set" and not action.path for action in actions):
            # Its staging would change the time of the top when it goes.
            self.close()
        with self._place.jail.steps(_VIEW) as steps:
            for action in actions:
                yield Carried(action, 0, self._try(steps, action))

    def _make_top(self) -> Exception | None:
        try:
            os.mkdir(self._here.top, _OWNERS)
        except OSError as error:
            return error
        return None

    def _try(self, steps: Steps, action: Action) -> Exception | None:
        try:
            self._take(steps, action)
        except (OSError, FileExportError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                # The system knows it by its last name only.
                error.filename, error.filename2 = self._here.place(action.path), None
            return error
        return None

    def _take(self, steps: Steps, action: Action) -> None:
        path = below(action.path) if action.path else RelPath()
        entry = action.entry
        if action.kind == "make_directory":
            steps.make(path, mode=_OWNERS)
        elif action.kind in ("move", "aside"):
            origin = below(action.sources[0])
            steps.move(origin, path, action.kind == "move", expected=_expected(action))
        elif entry is None:
            steps.remove(path)
        elif action.kind == "link":
            steps.link(path, entry.target, True)
        else:
            steps.set(path, _time(action, entry), entry.mode, expected=_expected(action))

    def small(self, actions: Iterable[Action]) -> Iterator[Carried]:
        """As many in a frame as it takes."""
        files = {action.path: action for action in actions}
        outcomes = self._client.download_small(
            # Their paths there and here are the same.
            _files(files.values(), str),
            self._there.top,
            replace=True,
            timeout=self._timeout,
            modes=True,
            place=self._place,
        )
        return _carried(files, outcomes)

    def one(self, action: Action, moved: Moved) -> int:
        """Only what cannot be taken from files here."""
        return self._client.download_changes(
            self._there.place(action.path),
            self._place,
            action.path,
            action.sources,
            progress=moved,
            timeout=self._timeout,
        )

    def copy(self, action: Action, digest: bytes) -> None:
        """From a file here."""
        from fileexport.client.delta import copy_here

        assert action.entry is not None
        copy_here(self._place, action.sources[0], action.path, action.entry, digest)

    def close(self) -> None:
        """Leave the destination; its staging goes. What follows enters it again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()


def _expected(action: Action) -> tuple[int, int] | None:
    """Size and time of the file that is moved or set, if it has to be as it was seen."""
    old = action.old
    return (old.size, old.mtime_ns) if old is not None and old.kind == "file" else None


def _time(action: Action, entry: Entry) -> int | None:
    """The time to be set; None where it is right already, and a new one would hide a change."""
    return None if action.old is not None and action.old.mtime_ns == entry.mtime_ns else entry.mtime_ns


def _files(
    actions: Iterable[Action], place: Callable[[str], str], tree: SourceTree | None = None
) -> Iterator[LocalFile]:
    """The files of actions; `place` says where each is here, `tree` in what they are looked for."""
    for action in actions:
        path, entry = action.path, action.entry
        assert entry is not None
        yield LocalFile(path, place(path), entry.size, entry.mtime_ns, tree)


def _carried(files: dict[str, Action], outcomes: Iterable[Outcome]) -> Iterator[Carried]:
    for file, error in outcomes:
        action = files[file.path]
        yield Carried(action, 0 if error is not None else action.size, error)
