"""A server or a client that lies when trees are synchronised: nothing outside changes, nothing more goes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

from blake3 import blake3

from fileexport import Client, DeletionRefused, SyncResult, synchronize_download, synchronize_upload
from fileexport.client import trees
from fileexport.client.connection import Wait
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from tests.proof import lies
from tests.proof.counts import SOAK, Tally
from tests.proof.lying_server import Answer, Liar
from tests.proof.process import KIB
from tests.proof.sync_case import facts
from tests.proof.sync_lies import (
    MANIFESTS,
    Source,
    chunk_lies,
    directory,
    file,
    folder,
    link,
    read_lies,
)
from tests.proof.test_transfer_lies import LiesCase
from tests.proof.transfer_case import TransferCase, content, whole_tree

_refused = Tally("steps of a hostile client")
#: Lies for any operation take a time-out each: some of them, and in a soak all.
_SOME = 1 if SOAK else 13
#: Bytes that a range of COPY takes at most, with its share of the frame.
_COPY = 60


class ServerCase(LiesCase):
    """A destination with files that a lie would like to remove or to replace."""

    def setUp(self) -> None:
        super().setUp()
        self.refill()

    def refill(self) -> None:
        """What lies there before each lie."""
        for number in range(10):
            (self.destination / f"file-{number}").write_bytes(b"mine")
        (self.destination / "d").mkdir(exist_ok=True)
        (self.destination / "d" / "below").write_bytes(b"mine")

    def fetch(self, what: str, source: Source, **options: Any) -> tuple[SyncResult | None, Exception | None]:
        """Make the destination equal to a tree that lies; what came of it."""
        came: list[SyncResult] = []

        def act(client: Client) -> None:
            options_ = {"delete": True, **options}
            came.append(synchronize_download(client, "/tree", str(self.destination), **options_))

        raised = self.lie(what, source.script(), act)
        return (came[0] if came else None), raised

    def kept(self, what: str) -> None:
        """Everything that was there is there, and nothing else."""
        found = {
            name: one for name, one in whole_tree(self.destination).items() if not name.startswith(".file")
        }
        wanted = {f"file-{number}": b"mine" for number in range(10)} | {"d": None, "d/below": b"mine"}
        self.assertEqual(found, wanted, what)


class ManifestTests(ServerCase):
    """What a server says that it has."""

    def test_control(self) -> None:
        """An honest tree arrives, and what it does not have goes: otherwise the rest would show nothing."""
        source = Source(
            [folder(b"", file(b"a"), directory(b"d"), link(b"l", b"a")), folder(b"d", file(b"b"))]
        )
        result, raised = self.fetch("honest", source, max_delete="100%")
        self.assertIsNone(raised)
        assert result is not None
        self.assertEqual(result.problems, [])
        found = {name for name in whole_tree(self.destination) if not name.startswith(".file")}
        self.assertEqual(found, {"a", "d", "d/b", "l"})

    def test_manifests(self) -> None:
        """What is no manifest is an error, and changes nothing."""
        # As many as no tree has; with its own number the proof would take minutes.
        self.patch(trees, "MAX_ENTRIES", 20_000)
        for what, lie in list(MANIFESTS.items())[:: 1 if SOAK else 3]:
            _, raised = self.fetch(what, Source([], lies={m.Manifest: lie}), max_delete="100%")
            self.assertIsNotNone(raised, f"believed: {what}")
            self.kept(what)

    def test_any(self) -> None:
        """What is an answer to nothing, for each operation: nothing that was there is lost."""
        old, new = content("old", 200 * KIB), content("new", 20 * KIB) + content("old", 200 * KIB)
        rows = folder(b"", *(file(b"file-%d" % number) for number in range(10)), file(b"large", len(new)))
        kinds: tuple[type[m.Open], ...] = (m.Manifest, m.HashFiles, m.GetChunks, m.Read, m.ReadFiles)
        for kind in kinds:
            for what, lie in list(lies.ANY.items())[::_SOME]:
                (self.destination / "large").write_bytes(old)
                source = Source([rows], {b"large": new}, {kind: lie})
                self.fetch(f"{kind.__name__}: {what}", source, max_delete="0")
                found = whole_tree(self.destination)
                self.assertIn(found["large"], (old, new), what)
                for number in range(10):
                    self.assertIn(found[f"file-{number}"], (b"mine", b"evil"), what)
                self.refill()

    def test_links(self) -> None:
        """Links that lead out are not made; nothing is put below a link, neither old nor new."""
        for target in (b"/etc/passwd", b"..", b"../outside", b"a/../../outside", b"./../outside", b"d/.."):
            deeper = target if target.startswith(b"/") else b"../" + target
            rows = folder(b"", link(b"l", target), directory(b"d")), folder(b"d", link(b"m", deeper))
            result, raised = self.fetch(f"a link to {target!r}", Source(rows), max_delete="100%")
            self.assertIsNone(raised, target)
            assert result is not None
            self.assertIn("l", {problem.path for problem in result.problems}, target)
            for name in ("l", "d/m"):
                self.assertFalse((self.destination / name).is_symlink(), target)
            self.refill()

    def test_old_links(self) -> None:
        """Links that are there already lead no file, and no removal, out."""
        outside = self.here / "outside"
        for kind in ("file", "directory", "link"):
            for name, target in (("out", outside), ("far", outside / "precious"), ("new", outside / "new")):
                path = self.destination / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                path.unlink(missing_ok=True)
                path.symlink_to(target)
            make = {"file": file, "directory": directory, "link": lambda name: link(name, b"file-1")}[kind]
            rows = [folder(b"", *(make(name) for name in (b"out", b"far", b"new")))]
            if kind == "directory":
                rows += [folder(name, file(b"precious"), file(b"x")) for name in (b"out", b"far", b"new")]
            self.fetch(f"a link there, as {kind}", Source(rows), max_delete="100%")
            self.refill()
        self.assertEqual((outside / "precious").read_bytes(), b"precious")

    def test_linked_directories(self) -> None:
        """A directory that is a link to one outside is replaced, or stays: what it leads to keeps all."""
        (self.destination / "out").symlink_to(self.here / "outside")
        self.fetch("nothing but a file", Source([folder(b"", file(b"a"))]), max_delete="100%")
        self.assertFalse(os.path.lexists(self.destination / "out"))

    def test_hashes(self) -> None:
        """Hashes that were not asked for, or say what is not so, lead to no file of a wrong content."""
        mine = blake3(b"mine").digest()

        def hashing(*rows: tuple[bytes, int, bytes]) -> Answer:
            def answer(liar: Liar, stream: int, asked: m.Open) -> None:
                liar.reply(stream, reply="hashes", hashes=[list(row) for row in rows])
                liar.say(m.End(), stream)

            return answer

        for what, lie in {
            "the same for a new name": hashing((b"tree/moved", 4, mine)),
            "of another file": hashing((b"tree/other", 4, mine)),
            "of a file outside": hashing((b"../outside/precious", 8, mine)),
            "of another size": hashing((b"tree/moved", 5, mine)),
            "twice": hashing((b"tree/moved", 4, mine), (b"tree/moved", 4, bytes(32))),
            "cut short": hashing((b"tree/moved", 4, bytes(3))),
            "none": hashing(),
        }.items():
            source = Source([folder(b"", file(b"moved"), directory(b"d"))], lies={m.HashFiles: lie})
            self.fetch(f"hashes: {what}", source, max_delete="100%")
            moved = self.destination / "moved"
            if moved.exists():
                self.assertIn(moved.read_bytes(), (b"mine", b"evil"), what)
                moved.unlink()
            self.refill()


class DeletionTests(ServerCase):
    """A server that would like more to be removed than is gone."""

    def test_empty(self) -> None:
        """A source that turns empty removes nothing, whatever is allowed."""
        result, raised = self.fetch("empty", Source([folder(b"")]), max_delete="100%")
        self.assertIsInstance(raised, DeletionRefused)
        self.assertIsNone(result)
        self.kept("empty")

    def test_most(self) -> None:
        """One that has lost more than half of it is refused before anything is done."""
        rows = folder(b"", file(b"file-0"), file(b"another", 5))
        _, raised = self.fetch("most of it gone", Source([rows]))
        self.assertIsInstance(raised, DeletionRefused)
        self.kept("most of it gone")

    def test_unreadable(self) -> None:
        """Below what it says it cannot read nothing is removed, at whatever depth."""
        everything = [file(b"file-%d" % number) for number in range(10)]
        for what, rows in {
            "a directory": (folder(b"", directory(b"d"), *everything), folder(b"d", code=7, message="no")),
            "a directory without its folder": (folder(b"", directory(b"d"), *everything),),
            "the top": (folder(b"", code=7, message="no"),),
            "the rest of the top": (folder(b"", file(b"file-0"), code=7, message="no"),),
            "names that are left out": (folder(b"", directory(b"d"), *everything), folder(b"d", omitted=1)),
        }.items():
            self.fetch(f"unreadable: {what}", Source(rows), max_delete="100%")
            for name in ("d/below", "file-9"):
                self.assertTrue((self.destination / name).exists(), f"{what}: {name}")
            self.refill()

    def test_excluded(self) -> None:
        """What is excluded stays, whatever stands in its place there."""
        for what, row in {
            "a file": file(b"d"),
            "a link": link(b"d", b"file-1"),
            "nothing": file(b"x"),
        }.items():
            rows = folder(b"", row, *(file(b"file-%d" % number) for number in range(10)))
            self.fetch(f"excluded: {what}", Source([rows]), max_delete="100%", exclude=["below"])
            self.assertEqual((self.destination / "d" / "below").read_bytes(), b"mine", what)

    def test_failed_content(self) -> None:
        """Where a file that it named does not come, nothing is removed."""

        def refuse(liar: Liar, stream: int, asked: m.Open) -> None:
            liar.say(m.Reset(7, "no"), stream)

        refusing: dict[type[m.Open], Answer] = {m.Read: refuse, m.ReadFiles: refuse}
        for size in (4, 100_000):
            rows = folder(b"", file(b"new", size))
            self.fetch("content that does not come", Source([rows], lies=refusing), max_delete="100%")
            self.kept("content that does not come")


class ContentTests(ServerCase):
    """Parts of files that do not match."""

    def setUp(self) -> None:
        super().setUp()
        self.old = content("old", 400 * KIB)
        self.new = (
            content("old", 200 * KIB) + content("new", 40 * KIB) + content("old", 400 * KIB)[200 * KIB :]
        )

    def large(self, what: str, kind: type[m.Open], lie: Answer | None) -> None:
        """Fetch a large file by its parts; it is the old one or the new one then, nothing between."""
        path = self.destination / "large"
        path.write_bytes(self.old)
        lines = [file(b"file-%d" % number) for number in range(10)]
        rows = [folder(b"", *lines, directory(b"d"), file(b"large", len(self.new)))]
        told = {} if lie is None else {kind: lie}
        result, raised = self.fetch(what, Source(rows, {b"large": self.new}, told))
        found = path.read_bytes()
        self.assertIn(found, (self.old, self.new), what)
        if lie is None:
            self.assertIsNone(raised)
            self.assertEqual(found, self.new)
        elif found == self.old:
            self.assertTrue(raised is not None or (result is not None and result.problems), what)
        self.refill()

    def test_control(self) -> None:
        """By honest parts the new one arrives."""
        self.large("honest", m.Read, None)

    def test_chunks(self) -> None:
        """Lists of chunks that are not those of the file."""
        for what, lie in chunk_lies(self.old, self.new).items():
            self.large(f"chunks: {what}", m.GetChunks, lie)

    def test_ranges(self) -> None:
        """Content that is not that of the ranges."""
        for what, lie in read_lies(self.new).items():
            self.large(f"ranges: {what}", m.Read, lie)


class UploadTests(ServerCase):
    """A destination that lies: what is here does not change, whatever it says."""

    def send(self, what: str, source: Source) -> None:
        before = facts(self.destination)

        def act(client: Client) -> None:
            synchronize_upload(client, str(self.destination), "/tree", delete=True, max_delete="100%")

        self.lie(what, source.script(), act)
        self.assertEqual(facts(self.destination), before, what)

    def test_manifests(self) -> None:
        """Whatever it says is there, the source is not touched."""
        self.patch(trees, "MAX_ENTRIES", 20_000)
        for what, lie in list(MANIFESTS.items())[::_SOME]:
            self.send(what, Source([], lies={m.Manifest: lie}))

    def test_steps(self) -> None:
        """Steps that it says are done, and more of them, or none."""

        def outcome(*committed: tuple[int, int], failed: Sequence[tuple[int, int, str]] = ()) -> Answer:
            def answer(liar: Liar, stream: int, asked: m.Open) -> None:
                liar.reply(stream, reply="outcome", committed=list(committed), failed=list(failed))
                liar.say(m.End(), stream)

            return answer

        for what, lie in {
            "nothing": outcome(),
            "more than there are": outcome((0, 100_000)),
            "of others": outcome((5000, 1)),
            "done twice": outcome((0, 1), (0, 1)),
            "done and failed": outcome((0, 12), failed=[(0, 7, "no")]),
            "an error that is none": outcome(failed=[(0, 0, "")]),
            "out of memory": outcome((0, 2**32 - 1)),
        }.items():
            self.send(f"steps: {what}", Source([folder(b"")], lies={m.Change: lie}))


def _path(*parts: str) -> RelPath:
    """A path that no honest client makes: its names are not looked at."""
    return RelPath._part_of(parts)


class ClientTests(TransferCase):
    """A client that wants out, against the real daemon."""

    def setUp(self) -> None:
        super().setUp()
        self.there = self.root / "there"
        (self.there / "d").mkdir(parents=True)
        (self.there / "file").write_bytes(b"file" * 50_000)
        (self.there / "d" / "file").write_bytes(b"below")
        self.outside = self.base / "outside"
        self.outside.mkdir()
        (self.outside / "precious").write_bytes(b"precious" * 50_000)
        (self.there / "out").symlink_to(self.outside)
        (self.there / "far").symlink_to(self.outside / "precious")
        (self.there / "d" / "up").symlink_to("../file")
        self.before = facts(self.outside)
        self.server = self.daemon("--dir", "there")
        self.one = self.client(self.server.transfer_port)

    def steps(self, *steps: m.AnyStep) -> list[Exception | None]:
        """What becomes of each of these steps, one request for each; the outside stays as it is."""
        became: list[Exception | None] = []
        for step in steps:
            try:
                became += self.one.change([step])
            except Exception as error:
                became.append(error)
            self.assertEqual(facts(self.outside), self.before, step)
            self.assertEqual(
                sorted(path.name for path in self.root.iterdir() if path.name[0] != "."), ["there"]
            )
            _refused.add(1)
        return became

    def refused(self, *steps: m.AnyStep) -> None:
        for step, error in zip(steps, self.steps(*steps), strict=True):
            self.assertIsNotNone(error, f"done: {step}")

    def test_control(self) -> None:
        """Honest steps are done."""
        there = RelPath(("there",))
        steps = (
            m.MakeStep(there / "new"),
            m.LinkStep(there / "link", b"d/file"),
            m.MoveStep(there / "file", there / "new" / "file"),
            m.SetStep(there / "new" / "file", 1, 0o600),
            m.RemoveStep(there / "new" / "file"),
        )
        self.assertEqual(self.steps(*steps), [None] * len(steps))

    def test_paths(self) -> None:
        """Paths that lead out, that are none, or that are the daemon's own."""
        for parts in (
            *((), ("..",), ("there", ".."), ("there", "..", ".."), ("there", "."), ("there", "")),
            *(("there", "..", "..", "outside", "precious"), ("", "etc", "passwd"), ("there", "a/b")),
            *(("there", ".fileexport"), (".fileexport",), ("there", ".fileexport", "x"), ("there", "a\0b")),
            *(("outside",), ("there", "n" * 256), ("there", *["d"] * 64)),
        ):
            path, good = _path(*parts), _path("there", "d", "file")
            self.refused(
                m.RemoveStep(path),
                m.MakeStep(path),
                m.LinkStep(path, b"d", True),
                m.MoveStep(path, _path("there", "stolen"), True),
                m.MoveStep(good, path, True),
            )
        self.assertEqual((self.there / "d" / "file").read_bytes(), b"below")
        self.assertTrue(self.there.is_dir())

    def test_links_out(self) -> None:
        """No step goes through a link that leads out."""
        there = _path("there")
        for name in ("out", "far"):
            below = there / name / "precious"
            self.refused(
                m.RemoveStep(below),
                m.SetStep(below, 1, 0o777),
                m.MoveStep(below, there / "stolen", True),
                m.MoveStep(there / "file", below, True),
                m.MoveStep(there / "file", there / name / "new", True),
                m.MakeStep(there / name / "made"),
                m.LinkStep(there / name / "link", b"precious", True),
                m.SetStep(there / name, 1, 0o777),
            )
        # The links themselves may go.
        self.assertEqual(self.steps(m.RemoveStep(there / "out"), m.RemoveStep(there / "far")), [None, None])

    def test_new_links(self) -> None:
        """No step makes a link that leads out, nor moves one to where it does."""
        there = _path("there")
        for target in (b"/etc/passwd", b"..", b"../..", b"../outside", b"a/../../..", b"x\0y", b"./..", b"/"):
            for replace in (False, True):
                self.refused(m.LinkStep(there / "l", target, replace))
                if not target.startswith(b"/"):
                    self.refused(m.LinkStep(there / "d" / "l", b"../" + target, replace))
        self.assertFalse(os.path.lexists(self.there / "l"))
        self.refused(m.MoveStep(there / "d" / "up", there / "up", True))
        self.assertFalse(os.path.lexists(self.there / "up"))

    def test_what_is_exported(self) -> None:
        """The exported directory itself is neither removed nor moved nor replaced."""
        there = _path("there")
        self.refused(
            m.RemoveStep(there),
            m.MoveStep(there, _path("elsewhere"), True),
            m.MoveStep(there, there / "d" / "there", True),
            m.MoveStep(there / "d", there, True),
            m.LinkStep(there, b"there/d", True),
            m.MoveStep(there / "d", there / "d" / "below"),
            m.RemoveStep(there / "d"),
        )
        self.assertEqual((self.there / "d" / "file").read_bytes(), b"below")

    def test_modes(self) -> None:
        """No mode has more bits than permissions."""
        for mode in (0o4755, 0o2755, 0o1777, -1, 2**40):
            self.refused(m.SetStep(_path("there", "file"), None, mode))

    def test_rights(self) -> None:
        """A token that may not, or not there, does not."""
        tokens = {"read": "may=read", "write": "may=write", "delete": "may=delete", "under": "under=/there/d"}
        written = "".join(f"{name}-{self.token} name={name} {what}\n" for name, what in tokens.items())
        self.tokens.write_text(written)
        self.server.kill()
        port = self.daemon("--dir", "there").transfer_port
        there = _path("there")
        change = (m.MakeStep(there / "x"), m.LinkStep(there / "x", b"d"), m.SetStep(there / "file", 1, 0o777))
        move = m.MoveStep(there / "file", there / "x", True)
        for name, steps in {
            "read": (*change, move, m.RemoveStep(there / "file")),
            "delete": (*change, move),
            "write": (m.RemoveStep(there / "file"),),
            "under": (*change, move, m.RemoveStep(there / "file")),
        }.items():
            self.one = self.client(port, token=f"{name}-{self.token}")
            self.refused(*steps)
        self.assertEqual((self.there / "file").read_bytes(), b"file" * 50_000)

    def upload(
        self, bases: Sequence[RelPath], ranges: Sequence[tuple[int, int, int]], size: int
    ) -> Exception | None:
        """Write a file out of parts of others; what came of it. Nothing of it stands under its name."""
        wanted = [m.Base(path) for path in bases]
        asked = m.Write(_path("there", "new"), size, 1, True, None, 0o644, wanted)
        raised: Exception | None = None
        try:
            with self.one._pool.operation(asked, Wait(5000), answered=False) as operation:
                if not operation.room(_COPY * len(ranges)):
                    operation.end()
                operation.say(m.Copy([m.CopyRange(*one) for one in ranges]))
                operation.say(m.End(size, bytes(32)))
                operation.end()
        except Exception as error:
            raised = error
        self.assertFalse(os.path.lexists(self.there / "new"), (bases, ranges))
        _refused.add(1)
        return raised

    def test_copies(self) -> None:
        """COPY takes nothing from outside, nothing behind an end, and never more than was announced."""
        good, size = _path("there", "file"), 200_000
        for base in (
            *(_path("there", "out", "precious"), _path("there", "far"), _path("there", "d")),
            *(_path("..", "outside", "precious"), _path("there", ".fileexport", "x"), _path("there", "no")),
        ):
            self.assertIsNotNone(self.upload([base], [(0, 0, 100)], 100), base)
        for ranges, total in (
            (((0, size - 10, 20),), 20),
            (((0, size, 1),), 1),
            (((0, 2**62, 1),), 1),
            (((0, 0, 2**62),), 2**62),
            (((0, 0, 2**62), (0, 0, 2**62)), 100),
            (((0, 0, 101),), 100),
            (((1, 0, 100),), 100),
            (((15, 0, 100),), 100),
            (((16, 0, 100),), 100),
            (((-1, 0, 100),), 100),
            (((0, -1, 100),), 100),
            (((0, 0, 0),), 0),
            (((0, 0, size),) * 1024, 1),
        ):
            self.assertIsNotNone(self.upload([good], ranges, total), ranges)
        self.assertIsNotNone(self.upload([], [(0, 0, 100)], 100), "no bases")
        # The client, and the daemon, work on.
        self.assertIn("file", self.one.list_files("/there"))
