"""`synchronize_upload` and `synchronize_download` against a server; the order and the failures of actions."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.client.acting import Listener, Work
from fileexport.client.carrying import Carried, Down, Moved
from fileexport.client.ends import LocalTree, RemoteTree
from fileexport.client.syncing import Sync, rules_of
from fileexport.errors import (
    BusyError,
    ChangedWhileRead,
    ConflictError,
    DeletionRefused,
    FileNameError,
    OverloadedError,
    SourceNotFound,
)
from fileexport.paths import RESERVED
from fileexport.sync.manifest import Entry
from fileexport.sync.plan import SMALL, Action, Problem
from fileexport.wire.messages import MAX_INLINE
from tests import sync_case, sync_promises
from tests.sync_case import MTIME, Link, fill, snapshot

#: How many pairs of random trees are compared, each way; the promise is kept for 500.
PAIRS = int(os.environ.get("FILEEXPORT_TREE_PAIRS", "8"))


class UploadTests(sync_promises.Promises, sync_case.Upwards):
    """From here to the server."""

    def test_relative(self) -> None:
        """A relative remote path is a ValueError."""
        self.remote = "there"
        self.assertRaises(ValueError, self.sync)

    def test_names(self) -> None:
        """A name that the server does not create is left out with what lies in it, as a dry run says too."""
        fill(self.here, {"a:b/c": b"1", "d?": b"2", "e": b"3"})
        for name in ("there", "new"):
            self.remote = f"/{name}"
            dry = self.sync(delete=True, dry_run=True)
            result = self.sync(delete=True)
            self.assertEqual([problem.path for problem in result.problems], ["a:b", "d?"])
            self.assertEqual((dry.plan, dry.problems), (result.plan, result.problems))
            self.assertEqual({path.name for path in (self.there.parent / name).iterdir()}, {"e"})

    def test_old_names(self) -> None:
        """What has such a name at the server stays as it is, unless only its time or mode must change."""
        fill(self.there, {"a:b": b"1", "c:d": b"22", "e:f/g": b"3", "h:i": Link("x"), "j:k": None})
        fill(self.here, {"a:b": b"2", "c:d": b"22", "e:f": b"4", "h:i": b"5", "j:k/l": b"6"}, MTIME + 1)
        before = snapshot(self.there)
        dry = self.sync(delete=True, max_delete="100%", dry_run=True)
        result = self.sync(delete=True, max_delete="100%")
        self.assertEqual({problem.path for problem in result.problems}, {"a:b", "e:f", "h:i"})
        self.assertEqual((dry.plan, dry.problems), (result.plan, result.problems))
        after = snapshot(self.there)
        for name in ("a:b", "e:f", "e:f/g", "h:i"):
            self.assertEqual(after[name], before[name])
        self.assertEqual((after["c:d"].mtime_ns, after["j:k/l"].what), (MTIME + 1, b"6"))

    def test_root(self) -> None:
        """The root itself can be the destination, its time too."""
        self.remote, self.there = "/", self.there.parent
        self.target = self.there
        fill(self.here, {"a": b"1", "d/b": b"2"})
        self.equal(delete=True, max_delete="100%")

    def test_link(self) -> None:
        """A destination that is a link is refused at the beginning: its time could not be set."""
        fill(self.here, {"a": b"1"})
        (self.there.parent / "link").symlink_to("there")
        self.remote = "/link"
        error = self.assertRaises(NotADirectoryError, self.sync)
        self.assertEqual(error.filename, "/link")
        self.assertEqual(list(self.there.iterdir()), [])

    def test_vanished(self) -> None:
        """A file that goes before it is sent is left out and named; the rest goes."""
        fill(self.here, {"a": b"1", "b": b"2" * 100_000, "c": b"3"})
        fill(self.there, {"old": b"1"})

        def progress(now: object) -> None:
            (self.here / "b").unlink(missing_ok=True)

        result = self.sync(delete=True, progress=progress)
        self.assertEqual([problem.path for problem in result.problems], ["b"])
        self.assertEqual({path.name for path in self.there.iterdir()}, {"a", "c"})

    def test_changing(self) -> None:
        """A file that changes whenever it is read is left out and named; the rest goes."""
        fill(self.here, {"a": b"1", "z": os.urandom(3 << 20), "zz": b"2" * 100_000})
        seen: list[int] = []
        changing = self.here / "z"

        def progress(now: Any) -> None:
            seen.append(now.bytes_done)
            if now.action is None and not (self.there / "zz").exists():
                with changing.open("r+b") as file:
                    file.write(os.urandom(1 << 20))

        result = self.sync(progress=progress)
        self.assertEqual([problem.path for problem in result.problems], ["z"])
        self.assertEqual({path.name for path in self.there.iterdir()}, {"a", "zz"})
        self.assertEqual((seen[-1], result.bytes_sent), (100_001, 100_001))
        self.assertEqual(self.equal().done["send"], 1)


class DownloadTests(sync_promises.Promises, sync_case.Downwards):
    """From the server to here."""

    def test_relative(self) -> None:
        """A relative remote path is a ValueError."""
        self.remote = "there"
        self.assertRaises(ValueError, self.sync)

    def test_posix_names(self) -> None:
        """Here every name may be created."""
        fill(self.there, {"a:b/c": b"1", "d?": b"2"})
        self.equal()

    def test_root(self) -> None:
        """The root itself can be the source."""
        fill(self.there, {"a": b"1", "d/b": b"2"})
        self.remote, self.source = "/", self.there.parent
        self.equal()

    def test_link(self) -> None:
        """A destination that is a link is gone through, its time too."""
        fill(self.there, {"a": b"1"})
        (link := self.here.parent / "link").symlink_to("here")
        self.target, self.here = self.here, link
        self.equal()

    def test_reserved(self) -> None:
        """Nothing is put into directories of our own."""
        fill(self.there, {"a": b"1"})
        self.here = self.here / RESERVED
        self.assertRaises(FileNameError, self.sync)
        self.here.mkdir()
        self.assertRaises(FileNameError, self.sync)
        self.assertEqual(list(self.here.iterdir()), [])

    def test_whole_path(self) -> None:
        """What the system says of an entry here names its whole path."""
        (self.here / "d").mkdir()
        carrier = Down(self.client, LocalTree(str(self.here)), RemoteTree(self.client, "/there"), None)
        self.addCleanup(carrier.close)
        missing = Action("move", "d/b", 1, Entry("file", 1, 1, 0o644), ("d/none",))
        (carried,) = carrier.steps([missing])
        self.assertEqual(getattr(carried.error, "filename", None), str(self.here / "d/b"))

    def test_way_out(self) -> None:
        """A link here that leads out of the destination is never gone through."""
        outside = Path(self.mktemp()).absolute()
        fill(outside, {"x": b"mine"})
        before = snapshot(outside)
        fill(self.there, {"d/x": b"1", "e/y": b"2" * 200_000})
        for name in ("d", "e"):
            (self.here / name).symlink_to(outside)
        self.equal(delete=True, max_delete="100%")
        self.assertEqual(snapshot(outside), before)


NAMES = st.sampled_from(["a", "b", "c.txt", "é", "a:b", "caf\udce9"])
#: Contents by names that are short enough to be read where a test fails.
CONTENTS = {
    **{"nothing": b"", "1": b"1", "2": b"2"},
    **{"large": b"1" * 70_000, "chunks": b"12" * 70_000, "other chunks": b"21" * 70_000},
}
LINKS = st.sampled_from(["a", "../b", "c.txt", "/etc", "../../.."]).map(Link)
#: A tree as nested dictionaries; a leaf has its time.
TREES: st.SearchStrategy[Any] = st.recursive(
    st.tuples(st.one_of(st.sampled_from(sorted(CONTENTS)), LINKS), st.sampled_from([MTIME, MTIME + 1])),
    lambda children: st.dictionaries(NAMES, children, max_size=4),
    max_leaves=10,
).filter(lambda tree: isinstance(tree, dict))


def plant(top: Path, tree: dict[str, Any]) -> None:
    """Make a random tree."""
    top.mkdir(exist_ok=True)
    for name, below in tree.items():
        if isinstance(below, dict):
            plant(top / name, below)
        elif isinstance(below[0], Link):
            (top / name).symlink_to(below[0].target)
        else:
            (top / name).write_bytes(CONTENTS[below[0]])
            os.utime(top / name, ns=(below[1], below[1]))


class Told(Listener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.actions: list[Action] = []

    def done(self, action: Action) -> None:
        self.actions.append(action)
        self.heard.append((action.kind, action.path))

    def left_out(self, problem: Problem) -> None:
        self.heard.append(("left_out", problem.path))

    def failed(self, path: str, error: Exception) -> None:
        self.heard.append(("failed", path))


class RandomTreeTests(sync_case.SyncCase):
    """Any tree becomes any other."""

    def setUp(self) -> None:
        super().setUp()
        self.count = 0

    @settings(
        max_examples=PAIRS, deadline=None, report_multiple_bugs=False, suppress_health_check=list(HealthCheck)
    )
    @given(one=TREES, other=TREES, delete=st.booleans(), checksum=st.booleans(), is_up=st.booleans())
    def test_pairs(self, one: Any, other: Any, delete: bool, checksum: bool, is_up: bool) -> None:
        """What a dry run says is what is done then, action by action; then nothing is left to do."""
        self.count += 1
        here, there = self.here / str(self.count), self.there / str(self.count)
        plant(here if is_up else there, one)
        plant(there if is_up else here, other)
        sync = Sync(
            self.client,
            LocalTree(str(here)),
            RemoteTree(self.client, f"/there/{self.count}"),
            rules_of(delete and bool(one), "100%", (), (), checksum),
            is_upload=is_up,
        )
        said, done, left = Told(), Told(), Told()
        try:
            sync.run(said, dry_run=True)
        except DeletionRefused:
            # All that the source has is left out.
            self.assertRaises(DeletionRefused, sync.run, done)
            return
        sync.run(done)
        self.assertEqual(done.heard, said.heard)
        self.assertEqual(done.actions, said.actions)
        sync.run(left)
        self.assertEqual(left.actions, [])
        if checksum and delete and one and not any(kind == "left_out" for kind, _ in said.heard):
            self.assertEqual(snapshot(there), snapshot(here))


def file(path: str, size: int = 1) -> Action:
    """A file to be sent."""
    return Action("send", path, size, Entry("file", size, 0, 0o644))


Heard = list[tuple[str, str]]
Trouble = dict[tuple[str, str], list[Exception]]


class Way:
    """A carrier that carries nothing. `trouble`: what goes wrong with an action, one after the other."""

    def __init__(self, trouble: Trouble | None = None) -> None:
        self._trouble = trouble or {}
        self.tried: list[str] = []
        self.closed = 0

    def _carried(self, action: Action) -> Carried:
        self.tried.append(f"{action.kind} {action.path}")
        waiting = self._trouble.get((action.kind, action.path))
        return Carried(action, 0, waiting.pop(0) if waiting else None)

    def steps(self, actions: Sequence[Action]) -> Iterator[Carried]:
        return map(self._carried, actions)

    def small(self, actions: Iterable[Action]) -> Iterator[Carried]:
        return iter([self._carried(action) for action in reversed(list(actions))])

    def one(self, action: Action, moved: Moved) -> int:
        self.tried.append(f"one {action.path}")
        waiting = self._trouble.get(("one", action.path))
        if waiting:
            raise waiting.pop(0)
        return action.size

    def copy(self, action: Action, digest: bytes) -> None:
        error = self._carried(action).error
        if error is not None:
            raise error

    def close(self) -> None:
        self.closed += 1


class ConstantTests(SynchronousTestCase):
    """What pure modules say of others."""

    def test_small(self) -> None:
        """The files that are sent first are those of which many travel in one frame."""
        self.assertEqual(SMALL, MAX_INLINE)


class WorkTests(SynchronousTestCase):
    """Stages, turns and failures."""

    def setUp(self) -> None:
        self.slept: list[float] = []
        self.patch(time, "sleep", self.slept.append)

    def work(self, way: Way, *actions: Action, hashes: dict[str, bytes] | None = None) -> Heard:
        """What is heard of these actions."""
        told = Told()
        self.result = Work(way, told, hashes or {})
        try:
            self.result.run(actions)
        finally:
            self.assertEqual(way.closed, 1)
        return told.heard

    def test_turns(self) -> None:
        """Actions are announced in the plan's order, in whatever order they end."""
        actions = [file("a"), file("b"), file("c"), file("z", 100_000)]
        heard = self.work(way := Way(), *actions)
        self.assertEqual(way.tried, ["send c", "send b", "send a", "one z"])
        self.assertEqual(heard, [("send", name) for name in "abcz"])

    def test_failed(self) -> None:
        """An entry that fails is told of, others go on; then nothing is removed, and that is said."""
        way = Way({("send", "b"): [PermissionError(13, "no")]})
        heard = self.work(way, file("a"), file("b"), file("c"), Action("remove", "old"), Action("set", "d"))
        expected = [("send", "a"), ("failed", "b"), ("send", "c"), ("left_out", ""), ("set", "d")]
        self.assertEqual(heard, expected)
        self.assertNotIn("remove old", way.tried)
        self.assertEqual([problem.path for problem in self.result.problems], ["b", ""])

    def test_one_entry(self) -> None:
        """What vanished, never holds still, or has no valid name there, is left out, and the rest goes."""
        for error in (SourceNotFound(), ChangedWhileRead(), FileNameError()):
            way = Way({("send", "b"): [error], ("one", "b"): [error]})
            heard = self.work(way, file("a"), file("b"), Action("remove", "old"))
            self.assertEqual(heard, [("send", "a"), ("left_out", "b"), ("remove", "old")])

    def test_fatal(self) -> None:
        """After what nothing can follow, nothing is tried any more."""
        way = Way({("send", "b"): [ConnectionError("gone")]})
        self.assertRaises(ConnectionError, self.work, way, file("a"), file("b"), file("z", 100_000))
        self.assertNotIn("one z", way.tried)

    def test_busy(self) -> None:
        """What somebody else is writing is tried again for a while, and announced in its turn."""
        way = Way({("send", "a"): [BusyError()] * 2, ("one", "z"): [BusyError()] * 9})
        heard = self.work(way, file("a"), file("b"), file("z", 100_000))
        self.assertEqual(heard, [("send", "a"), ("send", "b"), ("failed", "z")])
        self.assertEqual(self.slept, [0.25, 0.5, 0.25, 0.5, 1.0])

    def test_grown(self) -> None:
        """A small file that has grown, or did not hold still, travels alone."""
        way = Way({("send", "a"): [ValueError("too large")], ("send", "b"): [ChangedWhileRead()]})
        heard = self.work(way, file("a"), file("b"), file("c"))
        self.assertEqual(heard, [("send", "a"), ("send", "b"), ("send", "c")])
        self.assertEqual(set(way.tried[-2:]), {"one a", "one b"})

    def test_lost(self) -> None:
        """Of a directory that cannot be made, what lies in it is not tried, and not spoken of."""
        make = [Action("make_directory", path) for path in ("d", "d/e", "f")]
        trouble: Trouble = {
            ("make_directory", "d"): [FileNameError()],
            ("make_directory", "d/e"): [FileNotFoundError()],
        }
        way = Way(trouble)
        last = [file("d/a"), file("d/e/b"), file("f/c"), Action("set", "d/e"), Action("set", "d")]
        heard = self.work(way, *make, *last)
        self.assertEqual(heard, [("left_out", "d"), ("make_directory", "f"), ("send", "f/c")])
        self.assertEqual(way.tried[3:], ["send f/c"])

    def test_no_top(self) -> None:
        """Where the top cannot be made nothing else is tried."""
        way = Way({("make_directory", ""): [PermissionError(13, "no")]})
        actions = [Action("make_directory", ""), file("a")]
        self.assertRaises(PermissionError, self.work, way, *actions)

    def test_failed_file_keeps_its_time(self) -> None:
        """A file that could not be replaced does not get the time of the new one."""
        way = Way({("send", "a"): [PermissionError(13, "no")]})
        self.work(way, file("a"), Action("set", "a"))
        self.assertEqual(way.tried, ["send a"])

    def test_not_moved(self) -> None:
        """What cannot be moved or copied is sent; the old name of the former goes."""
        entry = Entry("file", 5, 0, 0o644)
        move = Action("move", "new", 5, entry, ("old",))
        copy = Action("copy", "twin", 5, entry, ("base",))
        way = Way({("move", "new"): [ConflictError()], ("copy", "twin"): [ChangedWhileRead()]})
        heard = self.work(way, move, copy, hashes={"twin": b"hash"})
        self.assertEqual(heard, [("move", "new"), ("copy", "twin")])
        self.assertEqual(way.tried, ["move new", "one new", "remove old", "copy twin", "one twin"])
        self.assertEqual((self.result.sent, self.result.saved), (10, 0))

    def test_overloaded(self) -> None:
        """A server with too much to do is given time, as one where somebody else writes."""
        trouble: Trouble = {("send", "a"): [OverloadedError()], ("one", "y"): [OverloadedError()] * 9}
        heard = self.work(Way(trouble), file("a"), file("y", 100_000), file("z", 100_000))
        self.assertEqual(heard, [("send", "a"), ("failed", "y"), ("send", "z")])

    def test_refused_as_a_whole(self) -> None:
        """Where so many are too much for the server at all, those without an outcome are asked for again."""
        way = Way()
        answers: list[Exception] = [OverloadedError()] * 2

        def steps(actions: Sequence[Action]) -> Iterator[Carried]:
            yield way._carried(actions[0])
            if answers:
                raise answers.pop()
            yield from map(way._carried, actions[1:])

        self.patch(way, "steps", steps)
        heard = self.work(way, *(Action("link", path) for path in "abcd"))
        self.assertEqual(heard, [("link", path) for path in "abcd"])
        self.assertEqual(len(way.tried), 4)

    def test_full(self) -> None:
        """On a full disk what made way gets its name back before all ends; what was replaced is told."""
        way = Way({("one", "y"): [OSError(errno.ENOSPC, "full")]})
        asides = [Action("aside", f"{path}-old", sources=(path,)) for path in "xy"]
        told = Told()
        removes = [Action("remove", f"{path}-old", sources=(path,)) for path in "xy"]
        actions = [*asides, file("x"), file("y", 100_000), *removes]
        self.assertRaises(OSError, Work(way, told, {}).run, actions)
        self.assertEqual(way.tried[-1], "aside y")
        self.assertEqual(told.heard[-1], ("left_out", "x-old"))

    def test_not_aside(self) -> None:
        """What cannot make way stays, and nothing takes its place."""
        way = Way({("aside", "x-old"): [PermissionError(13, "no")]})
        actions = [Action("aside", "x-old", sources=("x",)), file("x"), Action("remove", "x-old")]
        self.assertEqual(self.work(way, *actions), [("failed", "x"), ("left_out", "")])
        self.assertEqual(way.tried, ["aside x-old"])

    def test_old_name(self) -> None:
        """Where the old name of what was sent instead of moved cannot go, it is told."""
        move = Action("move", "new", 5, Entry("file", 5, 0, 0o644), ("old",))
        trouble: Trouble = {
            ("move", "new"): [ConflictError()],
            ("remove", "old"): [PermissionError(13, "no")],
        }
        heard = self.work(Way(trouble), move, Action("remove", "x"))
        self.assertEqual(heard, [("failed", "old"), ("move", "new"), ("left_out", "")])

    def test_unsaid(self) -> None:
        """Of every action something is said, also where nothing was said of what became of it."""
        way = Way()
        self.patch(way, "steps", lambda actions: map(way._carried, actions[1:2]))
        heard = self.work(way, *(Action("link", path) for path in "abc"))
        self.assertEqual(heard, [("failed", "a"), ("link", "b"), ("failed", "c")])

    def test_gone(self) -> None:
        """What shall go and has gone is as good; a directory that somebody filled stays, and is named."""
        trouble: Trouble = {("remove", "a"): [FileNotFoundError()], ("remove", "d"): [IsADirectoryError()]}
        heard = self.work(Way(trouble), Action("remove", "a"), Action("remove", "d"))
        self.assertEqual(heard, [("remove", "a"), ("left_out", "d")])
