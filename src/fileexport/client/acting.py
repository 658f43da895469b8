"""The actions of a plan on their way: carried out in stages, told in their turn, and what becomes of each.

What makes way is put aside first, and goes only in the end: whatever fails, its content is somewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby, islice

from fileexport.client import chunks
from fileexport.client.carrying import Carried, Carrier
from fileexport.client.chunks import CallerRaised
from fileexport.client.moving import BATCH, PAUSES, TROUBLE, callers_own, is_fatal
from fileexport.errors import (
    FULL_DISK,
    BusyError,
    ChangedWhileRead,
    ConflictError,
    FileNameError,
    OverloadedError,
    SourceNotFound,
    UnexpectedError,
    row_for,
)
from fileexport.sync.plan import Action, ActionKind, Plan, Problem
from fileexport.sync.survey import parent_of
from fileexport.wire.messages import MAX_INLINE

#: What passes: somebody else is writing there, perhaps a command that was broken off; too much at once.
_PASSING = (BusyError, OverloadedError)
#: What went wrong with one entry only, and is no reason to keep what shall go.
_ONE_ENTRY = (FileNameError, ChangedWhileRead, SourceNotFound)
FILES = ("send", "update", "copy", "move")
#: Of those, the ones whose content is counted.
CONTENT = ("send", "update")
_NOT_ALL = "nothing was removed, because not everything else could be done"
#: What may take the place of an entry that was put aside.
_PLACED = ("make_directory", "link", *FILES)


class Listener:
    """Told how a synchronisation goes; paths are below the tops. This one stays silent."""

    def planned(self, plan: Plan) -> None:
        """This will be done."""

    def moved(self, action: Action, count: int) -> None:
        """So many more bytes of a large file are there."""

    def done(self, action: Action) -> None:
        """An action is done; in a dry run: would be."""

    def left_out(self, problem: Problem) -> None:
        """An entry cannot be made equal; with a directory, all that lies in it."""

    def failed(self, path: str, error: Exception) -> None:
        """An entry failed; others go on."""


def _stage(action: Action) -> str:
    """What is carried out together; no path is in a stage twice."""
    if action.kind in ("make_directory", "move"):
        return "make"
    if action.kind == "send" and action.size <= MAX_INLINE:
        return "small"
    return "one" if action.kind in FILES else action.kind


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
        self.removed = 0
        self._has_failed = False
        #: Paths that are not what they shall be: nothing more is done to them, nor in them.
        self._lost: set[str] = set()
        #: What was put aside and is there still, and the path where it stood.
        self._aside: dict[str, str] = {}
        #: Of those paths, the ones where something else stands now.
        self._placed: set[str] = set()

    def run(self, actions: Iterable[Action]) -> None:
        """Carry all of them out, stage by stage. Raises what ends everything."""
        try:
            for stage, some in groupby(actions, _stage):
                if stage == "remove":
                    self._put_back()
                    if self._has_failed:
                        self._name_aside()
                        self._leave_out("", _NOT_ALL)
                        continue
                while batch := list(islice(some, BATCH)):
                    if self._lost:
                        batch = [action for action in batch if not self._is_lost(action)]
                    self._carry(stage, batch)
        except BaseException as error:
            if isinstance(error, CallerRaised) or row_for(error) is FULL_DISK:
                with suppress(*TROUBLE):
                    self._put_back()
            self._name_aside()
            raise
        finally:
            self._carrier.close()

    def _is_lost(self, action: Action) -> bool:
        path = action.path
        while path and path not in self._lost:
            path = parent_of(path)
        return path in self._lost

    # -- what made way

    def _put_back(self) -> None:
        """Give what was put aside its name again where nothing has taken that."""
        backs = [
            Action("aside", path, sources=(aside,))
            for aside, path in self._aside.items()
            if path not in self._placed
        ]
        for action, _, error in self._carrier.steps(backs) if backs else ():
            (aside,) = action.sources
            self._lost.add(aside)
            if error is None:
                del self._aside[aside]

    def _name_aside(self) -> None:
        """Tell of what is not removed, and has another name now."""
        for aside, path in self._aside.items():
            self._leave_out(aside, f"this is what stood at {path}, which was to be replaced", there=True)

    # -- one batch

    def _carry(self, stage: str, actions: Sequence[Action]) -> None:
        """Carry out a batch, and announce each in its turn."""
        turn = iter(actions)
        head = next(turn, None)
        ended: dict[str, Carried] = {}
        for carried in self._outcomes(stage, actions):
            ended[carried.action.path] = carried
            while head is not None and (its_end := ended.pop(head.path, None)) is not None:
                self._ended(*its_end)
                head = next(turn, None)
        while head is not None:
            unsaid = Carried(head, 0, UnexpectedError("nothing was said of what became of it"))
            self._ended(*ended.pop(head.path, unsaid))
            head = next(turn, None)

    def _outcomes(self, stage: str, actions: Sequence[Action]) -> Iterator[Carried]:
        """What becomes of the actions, in any order; busy ones are tried again."""
        if stage == "one":
            yield from map(self._one, actions)
            return
        attempt = self._carrier.small if stage == "small" else self._carrier.steps
        alone = []
        for pause in (*PAUSES, None):
            unsaid = {action.path: action for action in actions}
            busy = []
            try:
                for carried in attempt(actions):
                    del unsaid[carried.action.path]
                    if pause is not None and isinstance(carried.error, _PASSING):
                        busy.append(carried.action)
                    elif carried.error is not None and _goes_alone(carried):
                        alone.append(carried.action)
                    else:
                        yield carried
            except OverloadedError:
                if pause is None:
                    raise
                busy += unsaid.values()
            if not busy or pause is None:
                break
            actions = busy
            chunks.pause(pause)
        yield from map(self._one, alone)

    def _one(self, action: Action) -> Carried:
        """A file that travels alone, if it has to."""
        for pause in (*PAUSES, None):
            try:
                return Carried(action, self._send(action), None)
            except _PASSING as error:
                if pause is None:
                    return Carried(action, 0, error)
                chunks.pause(pause)
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
            for gone, _, failure in self._carrier.steps([Action("remove", action.sources[0])]):
                if failure is not None and not isinstance(failure, FileNotFoundError):
                    self._went_wrong(gone, failure)
        return travelled

    # -- what became of it

    def _ended(self, action: Action, travelled: int, error: Exception | None) -> None:
        kind = action.kind
        if error is None or (kind in ("aside", "remove") and isinstance(error, FileNotFoundError)):
            self.done[kind] += 1
            self._note(action)
            self.sent += travelled
            if kind in ("update", "copy", "move"):
                self.saved += max(action.size - travelled, 0)
            self._listener.done(action)
        elif not self._is_lost(action):
            self._went_wrong(action, error)

    def _note(self, action: Action) -> None:
        """Keep account of what was put aside, what took its place, and what is gone."""
        if action.kind == "aside":
            self._aside[action.path] = action.sources[0]
        elif action.kind == "remove":
            self.removed += not action.sources
            self._aside.pop(action.path, None)
        elif self._aside and action.kind in _PLACED:
            self._placed.add(action.path)

    def _went_wrong(self, action: Action, error: Exception) -> None:
        if is_fatal(error) or (action.kind == "make_directory" and not action.path):
            raise error
        if action.kind != "set":
            # What could not make way is not replaced either.
            self._lost.add(action.sources[0] if action.kind == "aside" else action.path)
        if action.kind == "set" and isinstance(error, ConflictError):
            self._leave_out(action.path, "it changed meanwhile", there=True)
        elif action.kind != "aside" and isinstance(error, _ONE_ENTRY):
            self._leave_out(action.path, _words(error))
        elif action.kind == "remove" and isinstance(error, IsADirectoryError):
            self._leave_out(action.path, "something new is in it", there=True)
        else:
            self._has_failed = True
            path = action.sources[0] if action.kind == "aside" else action.path
            # What has content may have failed here or there.
            self.problems.append(Problem(path, _words(error), action.kind not in FILES))
            self._listener.failed(path, error)

    def _leave_out(self, path: str, why: str, there: bool = False) -> None:
        problem = Problem(path, why, there)
        self.problems.append(problem)
        self._listener.left_out(problem)


def _goes_alone(carried: Carried) -> bool:
    """Whether a file that failed may arrive by itself: it grew, it did not hold still, it cannot be moved."""
    action, _, error = carried
    if action.kind == "send":
        return isinstance(error, ValueError | ChangedWhileRead)
    return action.kind == "move" and not isinstance(error, FileNameError | BusyError | OverloadedError)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
