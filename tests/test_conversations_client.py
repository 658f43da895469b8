"""The simple verbs without a socket: what each asks, what it makes of the answers, and of lies."""

from __future__ import annotations

import errno
from collections.abc import Generator, Sequence
from typing import Any

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from fileexport.client import conversations as talks
from fileexport.client import listings
from fileexport.client.conversations import Ask, Found, Next
from fileexport.client.names import RemoteEntry, RemoteHash
from fileexport.errors import ChangedWhileRead, CorruptedResponse, DestinationNotFound, FileNameError
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.frames import Data

END = m.End()
A, DIR = RelPath(("a",)), RelPath(("d",))
FILE = m.Entry(A, "file", 5, 9)
JOB = m.JobRow(id="j", state="done", path=A, target=DIR, created=7)


class Said:
    """What a conversation asked, found and returned."""

    def __init__(self, talk: Generator[Any, Any, Any], answers: Sequence[Any], features: Any = ()) -> None:
        self.asked = next(talk)
        assert isinstance(self.asked, Ask)
        self.found: list[Any] = []
        self.took: list[int] = []
        self.result: Any = None
        waiting = iter(answers)
        heard: Any = frozenset(features)
        try:
            while True:
                step = talk.send(heard)
                heard = None
                if isinstance(step, Found):
                    self.found += step.items
                else:
                    assert isinstance(step, Next)
                    self.took.append(step.took)
                    heard = next(waiting)
        except StopIteration as stop:
            self.result = stop.value
        assert next(waiting, None) is None, "not all answers were heard"


def data(content: bytes, left: int = 0) -> Data:
    """A piece of DATA."""
    return Data(1, len(content) + left, left, False, memoryview(content))


class ConversationTests(SynchronousTestCase):
    """Honest servers."""

    def test_what_is_asked(self) -> None:
        """Each verb asks one operation; `again` is what changes nothing; `path` is what errors name."""
        table: list[tuple[Generator[Any, Any, Any], Ask]] = [
            (talks.list_files("/d"), Ask(m.List(DIR), "/d", True)),
            (talks.entries(DIR, True), Ask(m.List(DIR, True), "/d", True)),
            (talks.stat("/a"), Ask(m.Stat(A), "/a", True)),
            (talks.hashes(A), Ask(m.Hash(A), "/a", True)),
            (talks.content(A), Ask(m.Read(A), "/a", True)),
            (talks.create_file("a", "/", False), Ask(m.MakeFile(A), "/a")),
            (talks.create_file("a", "/", True), Ask(m.MakeFile(A, True), "/a", True)),
            (talks.make_directory("d", "/", False), Ask(m.MakeDirectory(DIR), "/d")),
            (talks.make_directory("d", "/", True), Ask(m.MakeDirectory(DIR, True), "/d", True)),
            (talks.move("/a", "/d", True), Ask(m.Rename(A, DIR, True), "/a")),
            (talks.delete_file("a", "/"), Ask(m.Remove(A, True), "/a")),
            (talks.remove("/a", False), Ask(m.Remove(A), "/a")),
            (talks.compress("/a", "zip"), Ask(m.Compress(A, "zip"), "/a")),
            (talks.jobs(5), Ask(m.ListJobs(5), None, True)),
            (talks.job("j", 30), Ask(m.GetJob("j", 30), "j", True, 30)),
            (talks.cancel("j"), Ask(m.CancelJob("j"), "j")),
        ]
        for talk, asked in table:
            self.assertEqual(next(talk), asked)
            talk.close()

    def test_results(self) -> None:
        """The result of each is made of its answers."""
        removed, rows = m.Removed(3), m.Jobs([JOB])
        self.assertEqual(
            Said(talks.stat("/a"), [m.Entries([FILE]), END]).result, RemoteEntry("/a", "file", 5, 9)
        )
        listed = [m.Entries([FILE]), m.Entries([m.Entry(DIR, "directory", 0, 2 * 10**9)]), END]
        self.assertEqual(Said(talks.list_files("/"), listed).result, {"a": (False, 5, 0), "d": (True, 0, 2)})
        self.assertEqual(Said(talks.remove("/a", True), [removed, END]).result, 3)
        for talk in (talks.move("/a", "/b", False), talks.create_file("a", "/", False)):
            self.assertIsNone(Said(talk, [END]).result)
        self.assertIsNone(Said(talks.delete_file("a", "/"), [removed, END]).result)
        for one in (talks.compress("/a", "gz"), talks.job("j", 0), talks.cancel("j")):
            self.assertEqual(Said(one, [rows, END]).result.id, "j")
        self.assertEqual([one.id for one in Said(talks.jobs(2), [rows, rows, END]).result], ["j", "j"])

    def test_tales(self) -> None:
        """What there is much of is told as it comes."""
        below = m.Entry(RelPath(("d", "a")), "file", 1, 1)
        found = Said(talks.entries(RelPath(), True), [m.Entries([FILE, below]), m.Entries([FILE]), END]).found
        self.assertEqual([one.path for one in found], ["a", "d/a", "a"])
        digest = bytes(32)
        found = Said(talks.hashes(DIR), [m.Hashes([m.FileHash(A, 5, digest)]), END]).found
        self.assertEqual(found, [RemoteHash("a", 5, digest)])

    def test_content(self) -> None:
        """Content comes piece by piece, each dealt with before the next; its end is checked."""
        whole = b"content"
        end = m.End(7, blake3(whole).digest())
        said = Said(talks.content(A), [m.Content(7, 1, b"v"), data(b"cont", 3), data(b"ent"), end])
        self.assertEqual((said.found, said.took), ([b"cont", b"ent"], [0, 0, 4, 3]))
        self.assertEqual(
            Said(talks.content(A), [m.Content(0, 1, b"v"), m.End(0, blake3().digest())]).found, []
        )

    def test_errors(self) -> None:
        """An error names what is to blame: the directory for what is new, the new path that is taken."""
        missing = FileNotFoundError(errno.ENOENT, "words", "/none/a")
        no_target = DestinationNotFound(errno.ENOENT, "words", "/a")
        taken = FileExistsError(errno.EEXIST, "words", "/a")
        for talk, heard, kind, path in (
            (talks.create_file("a", "/none", False), missing, DestinationNotFound, "/none"),
            (talks.make_directory("a", "/none", False), missing, DestinationNotFound, "/none"),
            (talks.move("/a", "/none/b", False), no_target, DestinationNotFound, "/none"),
            (talks.move("/a", "/b", False), taken, FileExistsError, "/b"),
            (talks.move("/none/a", "/b", False), missing, FileNotFoundError, "/none/a"),
            (talks.stat("/none/a"), missing, FileNotFoundError, "/none/a"),
        ):
            next(talk)
            error = self.assertRaises(kind, talk.throw, heard)
            self.assertEqual((type(error), error.filename), (kind, path))

    def test_wrong_parameters(self) -> None:
        """What cannot be asked is refused before anything is."""
        for talk, kind in (
            (talks.stat("a"), ValueError),
            (talks.list_files("d"), ValueError),
            (talks.create_file("..", "/", False), FileNameError),
            (talks.move("/a", "b", False), ValueError),
            (talks.jobs(0), ValueError),
            (talks.jobs(1001), ValueError),
            (talks.job("j", -1), ValueError),
            (talks.job("j", m.MAX_WAIT + 1), ValueError),
        ):
            self.assertRaises(kind, next, talk)


class LieTests(SynchronousTestCase):
    """Servers that lie."""

    def test_lies(self) -> None:
        """Answers that no honest server gives are CorruptedResponse."""
        digest = blake3(b"abc").digest()
        inner, top = m.Entry(RelPath(("d", "a")), "file", 1, 1), m.Entry(RelPath(), "directory", 0, 1)
        three = m.Content(3, 1, b"v")
        table: list[tuple[Generator[Any, Any, Any], list[object]]] = [
            (talks.stat("/a"), [m.Entries([]), END]),
            (talks.stat("/a"), [m.Entries([FILE, FILE]), END]),
            (talks.stat("/a"), [m.Removed(1)]),
            (talks.stat("/a"), [m.Entries([FILE]), m.Entries([FILE])]),
            (talks.stat("/a"), [END]),
            (talks.list_files("/"), [m.Entries([inner])]),
            (talks.list_files("/"), [m.Entries([])]),
            (talks.entries(RelPath(), True), [m.Entries([top])]),
            (talks.hashes(A), [m.Hashes([])]),
            (talks.content(A), [m.Content(3, 1, b"v", 2)]),
            (talks.content(A), [three, data(b"abcd")]),
            (talks.content(A), [three, m.Removed(1)]),
            (talks.jobs(1), [m.Jobs([JOB, JOB])]),
            (talks.jobs(1), [m.Jobs([])]),
            (talks.job("j", 0), [m.Jobs([JOB, JOB]), END]),
            (talks.create_file("a", "/", False), [m.Removed(1)]),
        ]
        for talk, answers in table:
            self.assertRaises(CorruptedResponse, Said, talk, answers)
        for end in (m.End(3, bytes(32)), m.End(2, digest), m.End()):
            self.assertRaises(ChangedWhileRead, Said, talks.content(A), [three, data(b"abc"), end])
        short = [m.Content(4, 1, b"v"), data(b"abc"), m.End(3, digest)]
        self.assertRaises(ChangedWhileRead, Said, talks.content(A), short)

    def test_endless(self) -> None:
        """A listing that does not end is left, also one whose names alone fill the memory."""
        self.patch(listings, "MAX_ENTRIES", 3)
        many = [m.Entries([FILE] * 2)] * 2
        for talk in (talks.entries(RelPath()), talks.list_files("/")):
            self.assertRaises(CorruptedResponse, Said, talk, many)
        self.assertRaises(
            CorruptedResponse, Said, talks.hashes(A), [m.Hashes([m.FileHash(A, 1, bytes(32))] * 4)]
        )
        self.patch(listings, "MAX_KEPT", 1)
        self.assertRaises(CorruptedResponse, Said, talks.list_files("/"), [m.Entries([FILE] * 2)])
