"""A transfer of many files between two sides in memory: what is tried again, what ends it, what is silent."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from twisted.trial.unittest import SynchronousTestCase

from fileexport.client import moving
from fileexport.client.moving import Planned, Transfer, Wanted, Watcher, Wishes
from fileexport.client.names import Kind
from fileexport.client.selection import Conflict
from fileexport.client.sides import Enter, Item, Unreadable
from fileexport.errors import BusyError, FileNameError

Trouble = dict[str, list[Exception]]


class From:
    """A source: paths with their sizes; None is a directory."""

    def __init__(self, entries: dict[str, int | None]) -> None:
        self._entries = entries
        #: What the listing of a directory ends with, instead of a place in it.
        self.trouble: dict[str, Exception] = {}

    def find(self, place: str) -> Item:
        return self._item("", place)

    def below(self, top: Item, enter: Enter, unreadable: Unreadable) -> Iterator[Item]:
        for place in self._entries:
            if place.startswith(f"{top.place}/"):
                if place in self.trouble:
                    raise self.trouble[place]
                yield self._item(place[len(top.place) + 1 :], place)

    def _item(self, path: str, place: str) -> Item:
        size = self._entries[place]
        return Item(path, place, "directory" if size is None else "file", size or 0, 0)


class To:
    """A destination and the way there. `trouble`: what goes wrong with a path, one after the other."""

    def __init__(self, trouble: Trouble, entries: dict[str, Kind] | None = None) -> None:
        self.entries: dict[str, Kind] = entries or {}
        self._trouble = trouble
        #: Small files that are never spoken of.
        self.silent: set[str] = set()
        self.calls: list[tuple[str, int]] = []

    def place(self, path: str) -> str:
        return f"/{path}"

    def check(self) -> None:
        pass

    def kind(self, path: str) -> Kind | None:
        self.calls.append(("kind", 1))
        return self.entries.get(path)

    def kinds(self, directory: str, recursive: bool) -> dict[str, Kind]:
        self.calls.append(("kinds", 1))
        prefix = f"{directory}/" if directory else ""
        return {path[len(prefix) :]: kind for path, kind in self.entries.items() if path.startswith(prefix)}

    def make_directories(self, paths: Sequence[str]) -> list[Exception | None]:
        self.calls.append(("directories", len(paths)))
        return [self._put(path, "directory") for path in paths]

    def small(self, files: Iterable[Planned]) -> Iterator[tuple[str, int, Exception | None]]:
        files = list(files)
        self.calls.append(("small", len(files)))
        for file in files:
            if file.target in self.silent:
                continue
            yield file.target, file.item.size, self._put(file.target, "file")

    def one(self, file: Planned, moved: Callable[[int], object]) -> bool:
        self.calls.append(("one", 1))
        error = self._put(file.target, "file")
        if error is not None:
            raise error
        moved(file.item.size)
        return True

    def _put(self, path: str, kind: Kind) -> Exception | None:
        if self._trouble.get(path):
            return self._trouble[path].pop(0)
        self.entries[path] = kind
        return None


class Told(Watcher):
    """Writes down what went wrong, and goes on."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self.out: list[str] = []
        self.arrived: list[tuple[str, int]] = []

    def done(self, path: str, size: int) -> None:
        self.arrived.append((path, size))

    def left_out(self, path: str, why: str) -> None:
        self.out.append(path)

    def failed(self, path: str, error: Exception) -> None:
        self.failures[path] = type(error).__name__


class TransferTests(SynchronousTestCase):
    """`Transfer`."""

    def setUp(self) -> None:
        self.pauses: list[float] = []
        self.patch(time, "sleep", self.pauses.append)
        self.told = Told()

    def run_transfer(
        self, entries: dict[str, int | None], to: To, *names: str, conflict: Conflict = "abort"
    ) -> None:
        """Move what is named, in order."""
        wishes = Wishes(recursive=True, conflict=conflict)
        wanted = [Wanted(name, name, name, "") for name in names]
        self.assertTrue(Transfer(From(entries), to, to, wishes, self.told).run(wanted))

    def test_batches(self) -> None:
        """Small files travel together, large ones alone, a batch at a time; one listing asks for all."""
        self.patch(moving, "BATCH", 10)
        entries: dict[str, int | None] = {"d": None, **{f"d/{n}": 1 for n in range(25)}, "d/big": 1 << 20}
        to = To({})
        self.run_transfer(entries, to, "d")
        self.assertEqual(set(to.entries), set(entries))
        self.assertEqual(
            [call for call in to.calls if call[0] != "kind"],
            [("kinds", 1), ("directories", 1), ("small", 9), ("small", 10), ("small", 6), ("one", 1)],
        )
        self.assertEqual(to.calls.count(("kind", 1)), 1)

    def test_asked_once(self) -> None:
        """Of many single files the directory is listed instead."""
        entries: dict[str, int | None] = {str(n): 1 for n in range(50)}
        to = To({}, {"7": "file"})
        self.run_transfer(entries, to, *entries, conflict="skip")
        self.assertEqual(to.calls, [("kind", 1)] * 4 + [("kinds", 1), ("small", 49)])

    def test_busy(self) -> None:
        """What somebody writes is tried again for a moment, and fails then."""
        entries: dict[str, int | None] = {"d": None, "d/a": 1, "d/b": 1, "d/c": 1}
        to = To({"d/a": [BusyError()], "d/b": [BusyError() for _ in range(9)]})
        self.run_transfer(entries, to, "d")
        self.assertEqual(self.told.failures, {"/d/b": "BusyError"})
        self.assertEqual(set(to.entries), {"d", "d/a", "d/c"})
        self.assertEqual(self.pauses, [0.25, 0.5, 1.0])

    def test_no_outcome(self) -> None:
        """A file that nobody says anything of has failed; the others have not."""
        to = To({})
        to.silent.add("d/b")
        self.run_transfer({"d": None, "d/a": 1, "d/b": 1, "d/c": 1}, to, "d")
        self.assertEqual(self.told.failures, {"/d/b": "UnexpectedError"})

    def test_same_name(self) -> None:
        """Of two files that replace the same one, both are sent, the later one later."""
        entries: dict[str, int | None] = {"x": 1, "y": 2, "z": 3}
        to = To({})
        wanted = [Wanted(place, target, place, "") for place, target in (("x", "n"), ("y", "n"), ("z", "z"))]
        Transfer(From(entries), to, to, Wishes(conflict="replace"), self.told).run(wanted)
        self.assertEqual(self.told.arrived, [("/n", 1), ("/z", 3), ("/n", 2)])

    def test_unreadable_source(self) -> None:
        """A source that cannot be listed to its end is told; what was found of it goes, and so do others."""
        entries: dict[str, int | None] = {"d": None, "d/a": 1, "d/b": 1, "e": None, "e/f": 1}
        for error in (PermissionError(errno.EACCES, "no"), FileNotFoundError(), BusyError()):
            self.told, source, to = Told(), From(entries), To({})
            source.trouble["d/b"] = error
            wanted = [Wanted(name, name, name, "") for name in ("d", "e")]
            self.assertTrue(Transfer(source, to, to, Wishes(recursive=True), self.told).run(wanted))
            self.assertEqual(self.told.failures, {"d": type(error).__name__})
            self.assertEqual(set(to.entries), {"d", "d/a", "e", "e/f"})

    def test_look_alike(self) -> None:
        """What is known of a directory says nothing of one whose name begins as its own."""
        entries: dict[str, int | None] = {"d": None, "d/a": 1, "d2": 1}
        to = To({}, {"d2": "file"})
        self.run_transfer(entries, to, "d", "d2", conflict="skip")
        self.assertEqual(self.told.arrived, [("/d/a", 1)])

    def test_grown(self) -> None:
        """A small file that is large by now travels alone."""
        to = To({"d/a": [ValueError("too large")]})
        self.run_transfer({"d": None, "d/a": 1, "d/b": 1}, to, "d")
        self.assertEqual((self.told.failures, set(to.entries)), ({}, {"d", "d/a", "d/b"}))

    def test_lost_directory(self) -> None:
        """What lies in a directory that cannot be made is not tried, nor told."""
        entries: dict[str, int | None] = {
            "d": None,
            "d/x": None,
            "d/x/y": None,
            "d/x/y/f": 1,
            "d/x/g": 1,
            "d/h": 1,
        }
        for error, failures, out in (
            (PermissionError(errno.EACCES, "no"), {"/d/x": "PermissionError"}, []),
            (FileNameError("no"), {}, ["/d/x"]),
        ):
            self.told = Told()
            to = To({"d/x": [error], "d/x/y": [FileNotFoundError()]})
            self.run_transfer(entries, to, "d")
            self.assertEqual((self.told.failures, self.told.out), (failures, out))
            self.assertEqual(set(to.entries), {"d", "d/h"})

    def test_hopeless(self) -> None:
        """After a time-out, a broken connection or a full disk nothing more is tried."""
        entries: dict[str, int | None] = {"d": None, **{f"d/{n}": 1 << 20 for n in range(5)}}
        for error in (TimeoutError(), ConnectionError(), OSError(errno.ENOSPC, "full")):
            to = To({"d/1": [error]})
            transfer = Transfer(From(entries), to, to, Wishes(recursive=True), self.told)
            raised = self.assertRaises(type(error), transfer.run, [Wanted("d", "d", "d", "")])
            self.assertIs(raised, error)
            self.assertEqual(to.calls.count(("one", 1)), 2)

    def test_kind_differs(self) -> None:
        """A directory in the place of a file is a conflict too: skipped whole, or given another name."""
        entries: dict[str, int | None] = {"d": None, "d/a": 1}
        to = To({}, {"d": "file"})
        self.run_transfer(entries, to, "d", conflict="skip")
        self.assertEqual(to.entries, {"d": "file"})
        self.run_transfer(entries, to, "d", conflict="rename")
        self.assertEqual(to.entries, {"d": "file", "d (1)": "directory", "d (1)/a": "file"})
