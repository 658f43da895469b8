"""Whole trees of the blocking client: manifests, hashes of many files, many changes, cuts and lies."""

from __future__ import annotations

import os
from collections.abc import Sequence

from blake3 import blake3

from fileexport.client import trees
from fileexport.client.names import RemoteHash
from fileexport.client.trees import local_manifest
from fileexport.errors import ConflictError, CorruptedResponse, DestinationNotFound, row_for
from fileexport.paths import RelPath
from fileexport.sync.manifest import Entry, Manifest, omission
from fileexport.testing import serving
from fileexport.wire import messages as m
from tests.client_server import Peer, Script, ServerCase, answering

TOP = m.Top(5, 0o755)
LINES: list[m.Line] = [
    ("a", "f", 7, 1, 0o644, ""),
    ("d", "d", 0, -2, 0o700, ""),
    ("l", "l", 0, 3, 0, "d/\udcff"),
    ("o", "o", 0, 4, 0o600, ""),
]
ROOT = m.folder_of(RelPath(), LINES)
BELOW = m.folder_of(RelPath(("d",)), [("x", "f", 0, 0, 0o777, "")])


def path(text: str) -> RelPath:
    """A path of the server."""
    return RelPath.parse(text)


def cut(*answers: m.Message) -> Script:
    """Answer one operation with these messages, and break the connection."""

    def script(peer: Peer) -> None:
        stream, _ = peer.hear(m.Open)
        for answer in answers:
            peer.say(answer, stream)
        raise ConnectionError

    return script


class ManifestTests(ServerCase):
    """What lies in a tree of the server."""

    def manifest(self, *folders: m.Folder) -> Manifest:
        """What the client makes of an answer of these folders."""
        with self.server(answering(m.ManifestPart(list(folders), TOP), m.End())).client() as client:
            return client.manifest("/")

    def test_entries(self) -> None:
        """Kinds, sizes, times, modes and link targets come, in as many parts as it takes."""
        parts = [m.ManifestPart([ROOT], TOP), m.ManifestPart([BELOW])]
        with self.server(answering(*parts, m.End())).client() as client:
            found = client.manifest("/")
        self.assertEqual(found.top, Entry("directory", 0, 5, 0o755))
        self.assertEqual(
            dict(found.entries()),
            {
                "a": Entry("file", 7, 1, 0o644),
                "d": Entry("directory", 0, -2, 0o700),
                "l": Entry("link", 0, 3, 0, "d/\udcff"),
                "o": Entry("other", 0, 4, 0o600),
                "d/x": Entry("file", 0, 0, 0o777),
            },
        )

    def test_missing(self) -> None:
        """A directory that is not there has no top; a file is no directory."""
        with self.server(answering(m.Reset(1, "none"))).client() as client:
            self.assertIsNone(client.manifest("/none").top)
        with self.server(answering(m.Reset(5))).client() as client:
            self.assertRaises(NotADirectoryError, client.manifest, "/file")

    def test_unreadable(self) -> None:
        """A directory that could not be listed says why, and what no path can name is told of."""
        refused = m.folder_of(RelPath(("d",)), [], code=7, message="no\x1b")
        half = m.folder_of(RelPath(), LINES, omitted=3)
        found = self.manifest(half, refused)
        self.assertEqual(found.unreadable, {"d": "no?", "": omission(3)})
        self.assertNotIn("d", found.folders)

    def test_parts_of_one_folder(self) -> None:
        """A large directory may come in several folders; a name that comes twice is a lie."""
        more = m.folder_of(RelPath(), [("z", "f", 1, 1, 0, "")])
        self.assertEqual(self.manifest(ROOT, more).count(), 5)
        self.assertRaises(CorruptedResponse, self.manifest, ROOT, ROOT)

    def test_lies(self) -> None:
        """Folders that nobody announced, below files, before their parents, or of ours break the protocol."""
        for lie in (
            [BELOW],
            [ROOT, m.folder_of(RelPath(("a",)), [])],
            [ROOT, m.folder_of(RelPath(("e",)), [])],
            [ROOT, m.folder_of(RelPath(("d", "x")), []), BELOW],
            [m.folder_of(RelPath(), [(".fileexport", "d", 0, 0, 0, "")])],
            [m.folder_of(RelPath(), [], code=7), ROOT],
        ):
            self.assertRaises(CorruptedResponse, self.manifest, *lie)
        for answers in (
            [m.ManifestPart([ROOT]), m.End()],
            [m.ManifestPart([ROOT], TOP), m.ManifestPart([BELOW], TOP), m.End()],
        ):
            with self.server(answering(*answers)).client() as client:
                self.assertRaises(CorruptedResponse, client.manifest, "/")

    def test_without_end(self) -> None:
        """A server that never ends is left, whatever it fills its folders with; and so is a large tree.

        What it is told is what to do about it. A directory counts once, whatever it holds.
        """
        self.patch(trees, "MAX_ENTRIES", 5)
        empty = m.folder_of(RelPath(), [])
        self.assertEqual(self.manifest(ROOT, m.folder_of(RelPath(("d",)), []), empty).count(), 4)
        error = self.assertRaises(trees.TooManyEntries, self.manifest, ROOT, empty, empty)
        self.assertEqual(str(error), "more than 5 entries: synchronise its directories one by one")
        self.assertEqual(row_for(error).exit, 6)
        self.patch(trees, "MAX_KEPT", 5)
        self.assertRaises(trees.TooManyEntries, self.manifest, ROOT)

    def test_cut(self) -> None:
        """A manifest that breaks off is asked for once more; another break is the end."""
        whole = answering(m.ManifestPart([ROOT], TOP), m.End())
        part = cut(m.ManifestPart([ROOT], TOP))
        with self.server(part, whole).client() as client:
            self.assertEqual(client.begin_manifest("/")().count(), 4)
        with self.server(part, part).client() as client:
            self.assertRaises(ConnectionError, client.manifest, "/")

    def test_other_calls_meanwhile(self) -> None:
        """Between the two steps of a manifest other calls are carried out."""
        server = self.server(answering(m.ManifestPart([ROOT], TOP), m.End()))
        with server.client() as client:
            first, second = client.begin_manifest("/"), client.begin_manifest("/")
            self.assertEqual((second().count(), first().count(), server.connections), (4, 4, 2))


class LocalTests(ServerCase):
    """What lies in a tree here."""

    def test_missing(self) -> None:
        """A directory that is not there has no top; a file is no directory."""
        self.assertIsNone(local_manifest(str(self.here / "none")).top)
        (self.here / "file").touch()
        self.assertRaises(NotADirectoryError, local_manifest, str(self.here / "file"))


def digests(*names: str) -> m.Hashes:
    """A batch of hashes of files."""
    return m.Hashes([m.FileHash(path(name), len(name), blake3(name.encode()).digest()) for name in names])


class HashTests(ServerCase):
    """Hashes of many files."""

    def test_requests(self) -> None:
        """As many requests are made as it takes, by number or by length, and what is not said is left out."""
        asked: list[int] = []

        def script(peer: Peer) -> None:
            while True:
                stream, found = peer.hear(m.HashFiles)
                asked.append(len(found.paths))
                said = [m.FileHash(one, 1, bytes(32)) for one in found.paths if one.name != "gone"]
                peer.say(m.Hashes(said), stream)
                peer.say(m.End(), stream)

        names = [f"/{number}" for number in range(1500)] + ["/gone"]
        with self.server(script).client() as client:
            found = list(client.hash_files(names))
            self.assertEqual(sorted(one.path for one in found), sorted(names[:-1]))
            self.assertEqual(asked, [1024, 477])
            asked.clear()
            list(client.hash_files([f"/{number:0200}/{'x' * 200}" for number in range(1000)]))
            self.assertTrue(len(asked) > 5)

    def test_fresh(self) -> None:
        """`fresh` is said, and absolute paths come back."""
        asked: list[bool] = []

        def script(peer: Peer) -> None:
            while True:
                stream, found = peer.hear(m.HashFiles)
                asked.append(found.fresh)
                peer.say(digests("/d/a"), stream)
                peer.say(m.End(), stream)

        with self.server(script).client() as client:
            wanted = [RemoteHash("/d/a", 4, blake3(b"/d/a").digest())]
            self.assertEqual(list(client.hash_files(["/d/a"], fresh=True)), wanted)
            self.assertEqual(list(client.hash_files(["/d/a"])), wanted)
        self.assertEqual(asked, [True, False])

    def test_cut(self) -> None:
        """After a cut those that are missing are asked for again, and no others."""
        asked: list[list[RelPath]] = []

        def rest(peer: Peer) -> None:
            stream, found = peer.hear(m.HashFiles)
            asked.append(found.paths)
            peer.say(digests("/b"), stream)
            peer.say(m.End(), stream)

        with self.server(cut(digests("/a", "/c")), rest).client() as client:
            found = [one.path for one in client.hash_files(["/a", "/b", "/c"])]
        self.assertEqual((found, asked), (["/a", "/c", "/b"], [[path("b")]]))

    def test_lies(self) -> None:
        """A hash of a file that nobody asked for, or two of one, break the protocol."""
        for lie in (digests("/b"), digests("/a", "/a"), m.Hashes([])):
            with self.server(answering(lie, m.End())).client() as client:
                self.assertRaises(CorruptedResponse, list, client.hash_files(["/a"]))


MAKE, LINK = m.MakeStep(path("a")), m.LinkStep(path("l"), b"a")
MOVE, REMOVE = m.MoveStep(path("b"), path("d/c")), m.RemoveStep(path("r"))
SET = m.SetStep(path("s"), 5, 0o700)
DONE = m.Outcome([m.Range(0, 1)])


class ChangeTests(ServerCase):
    """Many small changes."""

    def outcomes(self, steps: Sequence[m.AnyStep], *answers: m.Message) -> list[Exception | None]:
        """What the client makes of these answers."""
        with self.server(answering(*answers)).client() as client:
            return list(client.change(steps))

    def test_order(self) -> None:
        """Each step has its outcome, in the order of the steps, in whatever order the server says them."""
        failed = m.Outcome([], [m.Failure(1, 7, "no")])
        found = self.outcomes([MAKE, LINK, MOVE], failed, m.Outcome([m.Range(2, 1)]), DONE, m.End())
        self.assertEqual([type(one) for one in found], [type(None), PermissionError, type(None)])
        self.assertEqual(str(getattr(found[1], "filename", None)), "/l")

    def test_many(self) -> None:
        """Steps go over in requests of at most 1,024, one behind the other."""
        asked: list[list[m.AnyStep]] = []

        def script(peer: Peer) -> None:
            while True:
                stream, found = peer.hear(m.Change)
                asked.append(found.steps)
                peer.say(m.Outcome([m.Range(0, len(found.steps))]), stream)
                peer.say(m.End(), stream)

        steps: list[m.AnyStep] = [m.RemoveStep(path(str(number))) for number in range(1500)]
        with self.server(script).client() as client:
            self.assertEqual(list(client.change(steps)), [None] * 1500)
            self.assertEqual(asked, [steps[:1024], steps[1024:]])
            asked.clear()
            links: list[m.AnyStep] = [m.LinkStep(path(str(number)), b"x" * 4096) for number in range(100)]
            self.assertEqual(list(client.change(links)), [None] * 100)
            self.assertTrue(len(asked) > 2)
            self.assertEqual(list(client.change([])), [])

    def test_what_is_missing(self) -> None:
        """The paths of exceptions are those that are missing, or taken."""
        missing = m.Outcome([], [m.Failure(number, 1, "") for number in range(5)])
        found = self.outcomes([MAKE, LINK, MOVE, REMOVE, SET], missing, m.End())
        kinds = [type(one) for one in found]
        self.assertEqual(kinds[:2], [DestinationNotFound] * 2)
        self.assertTrue(all(issubclass(kind, FileNotFoundError) for kind in kinds))
        self.assertEqual([getattr(one, "filename", None) for one in found], ["/", "/", "/b", "/r", "/s"])
        taken = self.outcomes([MOVE], m.Outcome([], [m.Failure(0, 4, "")]), m.End())
        self.assertEqual([getattr(one, "filename", None) for one in taken], ["/d/c"])

    def test_cut(self) -> None:
        """After a cut what has no outcome is asked for again, and what had been done by then is done."""
        asked: list[list[m.AnyStep]] = []

        def rest(peer: Peer) -> None:
            stream, found = peer.hear(m.Change)
            asked.append(found.steps)
            codes = [4, 1, 1, 7]
            peer.say(m.Outcome([], [m.Failure(at, code, "") for at, code in enumerate(codes)]), stream)
            peer.say(m.End(), stream)

        steps: list[m.AnyStep] = [MAKE, LINK, MOVE, REMOVE, SET]
        with self.server(cut(DONE), rest).client() as client:
            found = list(client.change(steps))
        self.assertEqual(asked, [steps[1:]])
        self.assertEqual(found[:4], [None] * 4)
        self.assertIsInstance(found[4], PermissionError)

    def test_not_cut(self) -> None:
        """Without a cut what is there already, or gone, is an error."""
        failed = [m.Failure(0, 4, ""), m.Failure(1, 1, "")]
        found = self.outcomes([MAKE, REMOVE], m.Outcome([], failed), m.End())
        self.assertIsInstance(found[0], FileExistsError)
        self.assertIsInstance(found[1], FileNotFoundError)

    def test_never(self) -> None:
        """A server that is always cut is given up."""
        with self.server(cut()).client() as client:
            self.assertRaises(ConnectionError, list, client.change([MAKE]))

    def test_lies(self) -> None:
        """Outcomes of other steps, two of one, none of one, or none at all break the protocol."""
        for lie in (
            [m.Outcome([m.Range(0, 3)])],
            [m.Outcome([], [m.Failure(2, 7, "")])],
            [DONE, DONE],
            [DONE],
            [m.Outcome()],
        ):
            self.assertRaises(CorruptedResponse, self.outcomes, [MAKE, SET], *lie, m.End())


class RealTests(ServerCase):
    """With a server of our own."""

    def setUp(self) -> None:
        super().setUp()
        self.root = self.here / "root"
        (self.root / "d" / "e").mkdir(parents=True)
        (self.root / "d" / "x").write_bytes(b"x")
        (self.root / "l").symlink_to("d/x")
        os.mkfifo(self.root / "fifo")
        (self.root / os.fsdecode(b"\xff\n")).touch()
        server = self.enterContext(serving(self.root))
        self.client = self.enterContext(server.client())

    def test_same_manifest(self) -> None:
        """What a tree is here and what the server says of it are equal."""
        here, there = local_manifest(str(self.root)), self.client.manifest("/")
        self.assertEqual((here.folders, here.top), (there.folders, there.top))
        self.assertEqual(there.count(), 6)

    def test_hashes(self) -> None:
        """Files have the hashes of their content; what is missing or no file is left out."""
        found = list(self.client.hash_files(["/d/x", "/none", "/d"]))
        self.assertEqual(found, [RemoteHash("/d/x", 1, blake3(b"x").digest())])

    def test_changes(self) -> None:
        """Steps are made, one after the other; one that fails does not keep the next."""
        steps: list[m.AnyStep] = [
            m.MakeStep(path("new")),
            m.MakeStep(path("new")),
            m.MoveStep(path("d/x"), path("new/y")),
            m.LinkStep(path("l"), b"new/y", True),
            m.LinkStep(path("out"), b"../x"),
            m.RemoveStep(path("d/e")),
            m.RemoveStep(path("d/e")),
            m.SetStep(path("new"), 5_000_000_001, 0o700),
        ]
        found = [type(one) for one in self.client.change(steps)]
        self.assertEqual(found[:4], [type(None), FileExistsError, type(None), type(None)])
        self.assertEqual(found[4:], [ConflictError, type(None), FileNotFoundError, type(None)])
        status = os.stat(self.root / "new")
        self.assertEqual((status.st_mtime_ns, status.st_mode & 0o777), (5_000_000_001, 0o700))
        self.assertEqual(os.readlink(self.root / "l"), "new/y")

    def test_traffic(self) -> None:
        """What is said is counted, both ways."""
        sent, received = self.client.traffic
        self.client.manifest("/")
        self.assertEqual((sent, received), (0, 0))
        after = self.client.traffic
        self.assertTrue(100 < after[0] < 10_000 and 100 < after[1] < 10_000, after)
