"""What the server says and does for a synchronisation: manifests, chunks, hashes, changes, ranges."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred

from fileexport.disk.contents import Contents
from fileexport.disk.contents_cache import ContentsCache
from fileexport.disk.views import Opened
from fileexport.errors import (
    BadRequestError,
    BusyError,
    ConflictError,
)
from fileexport.exports import Exports
from fileexport.sync.chunks import AVERAGES, FINE, cut
from fileexport.sync.gaps import MAX_RANGED
from fileexport.tokens import Right
from fileexport.wire import messages as m
from tests.helpers import Immediate
from tests.test_transfer_operations import FIELDS, MIB, OperationCase, digest
from tests.transfer_peer import Peer, code, expect, path

P = ParamSpec("P")
T = TypeVar("T")

MTIME = 123_456_789


class ManifestTests(OperationCase):
    """manifest."""

    def parts(self, where: str = "", peer: Peer | None = None) -> list[m.ManifestPart]:
        """The parts of a manifest."""
        *parts, end = (peer or self.peer).ask(m.Manifest(path(where)))
        self.assertEqual(end, m.End())
        return [expect(m.ManifestPart, part) for part in parts]

    def rows(self, parts: list[m.ManifestPart]) -> dict[str, list[m.Line]]:
        """What is said to be in each directory."""
        found: dict[str, list[m.Line]] = {}
        for folder in (folder for part in parts for folder in part.folders):
            found.setdefault(str(folder.path), []).extend(m.folder_rows(folder))
        return found

    def test_tree(self) -> None:
        """All that is below a directory: parents first, names sorted, links as links, modes and times."""
        self.file("d/b/c", b"12345")
        (self.root / "d" / "a").symlink_to("b/c")
        os.mkfifo(self.root / "d" / "z", 0o600)
        for name, mode in (("d/b", 0o705), ("d", 0o750)):
            (self.root / name).chmod(mode)
            os.utime(self.root / name, ns=(0, MTIME))
        link, pipe = (os.lstat(self.root / "d" / name).st_mtime_ns for name in "az")
        parts = self.parts("d")
        self.assertEqual(parts[0].top, m.Top(MTIME, 0o750, True))
        self.assertEqual(
            list(self.rows(parts).items()),
            [
                (
                    "/",
                    [
                        ("a", "l", 0, link, 0, "b/c"),
                        ("b", "d", 0, MTIME, 0o705, ""),
                        ("z", "o", 0, pipe, 0o600, ""),
                    ],
                ),
                ("/b", [("c", "f", 5, MTIME, 0o640, "")]),
            ],
        )

    def test_empty(self) -> None:
        """An empty directory is said to be empty; the exported one shows nothing of ours."""
        self.peer.write("a", b"x")
        (self.root / "d").mkdir()
        self.assertEqual(self.rows(self.parts("d")), {"/": []})
        self.assertEqual([row[0] for row in self.rows(self.parts())["/"]], ["a", "d"])

    def test_nothing_there(self) -> None:
        """What is not there, and what is no directory, has no manifest."""
        self.file("a")
        self.assertReset(self.peer.ask(m.Manifest(path("b"))), FileNotFoundError)
        self.assertReset(self.peer.ask(m.Manifest(path("a"))), NotADirectoryError)

    def test_unreadable(self) -> None:
        """A directory that cannot be listed is said to be so, and the others come all the same."""
        self.file("a/b")
        self.file("c/d")
        open_ = self.jail.open

        def refuse(view: Any, where: Any) -> Opened:
            if where == path("a"):
                raise PermissionError(13, "Permission denied")
            return open_(view, where)

        self.patch(self.jail, "open", refuse)
        parts = self.parts()
        self.assertEqual({name for name, rows in self.rows(parts).items() if rows}, {"/", "/c"})
        codes = {str(folder.path): folder.code for part in parts for folder in part.folders}
        self.assertEqual(codes, {"/": 0, "/a": code(PermissionError), "/c": 0})

    def test_many(self) -> None:
        """A large directory comes in parts of at most 1,024 entries, and none is lost."""
        (self.root / "d").mkdir()
        names = [f"{number:05}" for number in range(2 * m.MAX_BATCH + 7)]
        for name in names:
            (self.root / "d" / name).touch()
        parts = self.parts()
        counts = [sum(len(folder.kinds) for folder in part.folders) for part in parts]
        self.assertLessEqual(max(counts), m.MAX_BATCH)
        self.assertEqual([row[0] for row in self.rows(parts)["/d"]], names)
        self.assertEqual([part.top is None for part in parts], [False] + [True] * (len(parts) - 1))

    def test_small_frames(self) -> None:
        """A client that takes only small frames gets small parts."""
        for number in range(200):
            (self.root / f"{number:04}").touch()
        small = self.client(offer=m.Offer(**{**FIELDS, "control": 2048}))
        parts = self.parts(peer=small)
        self.assertGreater(len(parts), 3)
        self.assertEqual(len(self.rows(parts)["/"]), 200)

    def test_far_times(self) -> None:
        """A time that no message can say comes as the nearest that one can."""
        for name, seconds in (("a", 10**10), ("b", -(10**10))):
            self.file(name)
            os.utime(self.root / name, (seconds, seconds))
        times = [2**63 - 1, max((self.root / "b").stat().st_mtime_ns, -(2**63) + 1)]
        self.assertEqual([row[3] for row in self.rows(self.parts())["/"]], times)
        peer = self.client()
        for name, time in zip("ab", times, strict=True):
            entries = expect(m.Entries, peer.ask(m.Stat(path(name)))[0])
            content = expect(m.Content, peer.ask(m.Read(path(name)))[0])
            files = expect(m.Files, peer.ask(m.ReadFiles([path(name)]))[0])
            found = entries.entries[0].mtime, content.mtime, files.files[0].mtime
            self.assertEqual(found, (time,) * 3)
        entries = expect(m.Entries, peer.ask(m.List(path("")))[0])
        self.assertEqual([row.mtime for row in entries.entries], times)

    def test_slow_reader(self) -> None:
        """Nothing is read ahead of a client that takes nothing, and all is let go when it leaves."""
        for number in range(20):
            self.file(f"d{number}/x" + "y" * 200)
        looked: list[object] = []
        names = self.jail.names

        def seen(*args: Any) -> Iterator[str]:
            looked.append(args)
            return names(*args)

        self.patch(self.jail, "names", seen)
        small = self.client(offer=m.Offer(**{**FIELDS, "control": 1024}))
        small.server._output.pauseProducing()
        streams = [small.begin(m.Manifest(path(""))) for _ in range(10)]
        self.assertLess(len(looked), 40)
        before = len(os.listdir("/proc/self/fd"))
        small.session.reset(streams[0])
        small.turn()
        small.lose()
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(self.exports._names.kept, 0)
        self.assertEqual(small.server.working, {})

    def test_rights(self) -> None:
        """Who may not read gets none of manifests, chunks, hashes and ranges."""
        self.file("a")
        self.let(Right.WRITE | Right.DELETE)
        peer = self.client()
        for operation in (
            m.Manifest(path("")),
            m.GetChunks(path("a"), AVERAGES[0]),
            m.HashFiles([path("a")]),
            m.Read(path("a"), ranges=[m.Span(0, 1)]),
            m.Write(path("b"), 5, 0, bases=[m.Base(path("a"))]),
        ):
            self.assertReset(peer.ask(operation), PermissionError)


class ContentCase(OperationCase):
    """Has large files whose contents are remembered, and sees what is read."""

    def setUp(self) -> None:
        super().setUp()
        self.read: list[int] = []
        read_at = Opened.read_at

        def seen(opened: Opened, buffer: memoryview, offset: int) -> int:
            count = read_at(opened, buffer, offset)
            self.read.append(count)
            return count

        self.patch(Opened, "read_at", seen)
        cache = ContentsCache(self.rooms._state._database)
        self.exports = Exports(self.jail, contents=Contents(cache, now=lambda: 2 * 10**18))
        self.factory = self.make()
        self.peer = self.client()

    def taken(self) -> int:
        """Bytes that were read since the last time."""
        count = sum(self.read)
        self.read.clear()
        return count


class ChunkTests(ContentCase):
    """chunks."""

    def chunks(
        self, peer: Peer | None = None, **more: Any
    ) -> tuple[set[bytes], list[tuple[int, bytes]], int]:
        """Versions, chunks and size of the file `a`."""
        *batches, end = (peer or self.peer).ask(m.GetChunks(path("a"), AVERAGES[0], **more))
        found = [expect(m.Chunks, batch) for batch in batches]
        size = expect(m.End, end).size
        assert size is not None
        return {one.version for one in found}, [(c.size, c.digest) for one in found for c in one.chunks], size

    def test_chunks(self) -> None:
        """A file is cut as both sides cut it, and its version is that of reading it."""
        content = self.file("a", os.urandom(3 * MIB))
        versions, chunks, size = self.chunks()
        first = expect(m.Content, self.peer.ask(m.Read(path("a"), length=0))[0])
        self.assertEqual(versions, {first.version})
        self.assertEqual(chunks, list(cut(io.BytesIO(content).readinto, AVERAGES[0])))
        self.assertEqual(size, len(content))

    def test_remembered(self) -> None:
        """A file that did not change is not read again, unless that is asked for."""
        self.file("a", os.urandom(MIB))
        first = self.chunks()
        self.assertEqual(self.taken(), MIB)
        self.assertEqual(self.chunks(), first)
        self.assertEqual(self.taken(), 0)
        self.assertEqual(self.chunks(fresh=True), first)
        self.assertEqual(self.taken(), MIB)

    def test_empty(self) -> None:
        """An empty file has a version and no chunks."""
        self.file("a", b"")
        versions, chunks, size = self.chunks()
        self.assertEqual((len(versions), chunks, size), (1, [], 0))

    def test_small_frames(self) -> None:
        """A client that takes only small frames gets the same chunks in more of them."""
        self.file("a", os.urandom(3 * MIB))
        small = self.client(offer=m.Offer(**{**FIELDS, "control": 1024}))
        self.assertGreater(len(small.ask(m.GetChunks(path("a"), AVERAGES[0]))), 4)
        self.assertEqual(self.chunks(small), self.chunks())

    def test_ranges(self) -> None:
        """Parts of a file are cut finer and each by itself, in any order; nothing else is read for them."""
        content = self.file("a", os.urandom(MIB))
        parts = [(700_000, 300_000), (0, 50_000), (10_000, 1)]
        *batches, end = self.peer.ask(m.GetChunks(path("a"), FINE, ranges=[m.Span(*one) for one in parts]))
        self.assertEqual(self.taken(), 350_001)
        found = [row for batch in batches for row in expect(m.Chunks, batch).chunks]
        expected = [
            m.ChunkRow(*chunk)
            for offset, size in parts
            for chunk in cut(io.BytesIO(content[offset : offset + size]).readinto, FINE)
        ]
        self.assertEqual((found, end), (expected, m.End(350_001)))
        self.assertEqual(self.chunks()[0], {expect(m.Chunks, batches[0]).version})

    def test_refused_ranges(self) -> None:
        """Ranges lie in the file, are not too long together, and are cut by their own average."""
        self.file("a", bytes(100_000))
        for average, ranges, kind in (
            (FINE, [(0, 100_001)], ValueError),
            (FINE, [(0, 1), (100_000, 1)], ValueError),
            (FINE, [(2**63 - 1, 1)], ValueError),
            (FINE, [(0, MAX_RANGED), (0, 1)], BadRequestError),
            (AVERAGES[0], [(0, 1)], BadRequestError),
            (FINE, [], BadRequestError),
        ):
            asked = m.GetChunks(path("a"), average, ranges=[m.Span(*one) for one in ranges])
            self.assertReset(self.peer.ask(asked), kind)

    def test_refused(self) -> None:
        """There are chunks of files only, and of the sizes that both sides know."""
        self.file("d/a")
        self.assertReset(self.peer.ask(m.GetChunks(path("d"), AVERAGES[0])), IsADirectoryError)
        self.assertReset(self.peer.ask(m.GetChunks(path("b"), AVERAGES[0])), FileNotFoundError)
        self.assertReset(self.peer.ask(m.GetChunks(path("d/a"), 1000)), BadRequestError)


class HashFilesTests(ContentCase):
    """hash_files."""

    def hashes(self, *names: str, **more: Any) -> list[m.FileHash]:
        """What is said of these files."""
        *batches, end = self.peer.ask(m.HashFiles([path(name) for name in names], **more))
        self.assertEqual(end, m.End())
        return [row for batch in batches for row in expect(m.Hashes, batch).hashes]

    def test_hashes(self) -> None:
        """Each file has its size and hash, in their order; of what cannot be read there is none."""
        small, large = self.file("d/a"), self.file("b", os.urandom(MIB))
        (self.root / "l").symlink_to("nowhere")
        self.assertEqual(
            self.hashes("d/a", "missing", "d", "l", "b"),
            [m.FileHash(path("d/a"), 5, digest(small)), m.FileHash(path("b"), MIB, digest(large))],
        )

    def test_remembered(self) -> None:
        """A file that did not change is not read again, unless that is asked for."""
        self.file("a", os.urandom(MIB))
        first = self.hashes("a")
        self.assertEqual(self.taken(), MIB)
        self.assertEqual(self.hashes("a"), first)
        self.assertEqual(self.taken(), 0)
        self.assertEqual(self.hashes("a", fresh=True), first)
        self.assertEqual(self.taken(), MIB)
        content = self.file("a", os.urandom(MIB))
        self.assertEqual(self.hashes("a")[0].digest, digest(content))

    def test_many(self) -> None:
        """As many as one request may name come in batches."""
        names = [f"{number:04}" for number in range(m.MAX_BATCH)]
        for name in names:
            self.file(name, name.encode())
        found = self.hashes(*names)
        self.assertEqual(
            [(str(row.path)[1:], row.digest) for row in found], [(n, digest(n.encode())) for n in names]
        )


class ChangeTests(OperationCase):
    """change."""

    def change(
        self, *steps: m.AnyStep, peer: Peer | None = None
    ) -> tuple[list[tuple[int, int]], dict[int, int]]:
        """The ranges that were done, and the codes of the others."""
        *outcomes, end = (peer or self.peer).ask(m.Change(list(steps)))
        self.assertEqual(end, m.End())
        found = [expect(m.Outcome, outcome) for outcome in outcomes]
        done = [(one.first, one.count) for outcome in found for one in outcome.committed]
        return done, {one.index: one.code for outcome in found for one in outcome.failed}

    def test_each(self) -> None:
        """Directories and links are made, entries get other names, times and modes, or go; in that order."""
        self.file("old")
        self.file("gone/x")
        done, failed = self.change(
            m.MakeStep(path("d")),
            m.MoveStep(path("old"), path("d/new")),
            m.LinkStep(path("d/l"), b"new"),
            m.RemoveStep(path("gone/x")),
            m.RemoveStep(path("gone")),
            m.SetStep(path("d/new"), 5 * 10**9, 0o604),
            m.SetStep(path("d"), 7 * 10**9, 0o711),
        )
        self.assertEqual((done, failed), ([(0, 7)], {}))
        self.assertEqual((self.root / "d" / "l").read_bytes(), b"hello")
        for name, seconds, mode in (("d/new", 5, 0o604), ("d", 7, 0o711)):
            status = (self.root / name).stat()
            self.assertEqual((status.st_mtime, stat.S_IMODE(status.st_mode)), (seconds, mode))
        self.assertFalse((self.root / "gone").exists())

    def test_failures(self) -> None:
        """What fails is named by its number and keeps nothing else from being done."""
        self.file("a")
        self.file("full/x")
        done, failed = self.change(
            m.MakeStep(path("b")),
            m.MakeStep(path("a")),
            m.RemoveStep(path("full")),
            m.LinkStep(path("l"), b"../outside"),
            m.MakeStep(path("c")),
            m.MakeStep(path("e")),
            m.RemoveStep(path("nothing")),
        )
        self.assertEqual(done, [(0, 1), (4, 2)])
        self.assertEqual(set(failed), {1, 2, 3, 6})
        self.assertEqual((failed[1], failed[6]), (code(FileExistsError), code(FileNotFoundError)))
        self.assertEqual(
            sorted(one.name for one in self.root.iterdir() if one.is_dir())[-4:], ["b", "c", "e", "full"]
        )
        self.assertFalse((self.root / "l").is_symlink())

    def test_rights(self) -> None:
        """Removing needs the right to delete, and everything else that to write."""
        self.file("a")
        steps = (m.RemoveStep(path("a")), m.MakeStep(path("d")), m.SetStep(path("a"), mode=0o600))
        for rights, refused in (
            (Right.READ, {0, 1, 2}),
            (Right.READ | Right.WRITE, {0}),
            (Right.READ | Right.DELETE, {1, 2}),
        ):
            self.let(rights)
            done, failed = self.change(*steps, peer=self.client())
            self.assertEqual(failed, dict.fromkeys(refused, code(PermissionError)))
            self.file("a")
            if (self.root / "d").exists():
                (self.root / "d").rmdir()

    def test_busy(self) -> None:
        """A name that somebody writes just now is left alone."""
        self.file("a")
        self.peer.begin(m.Write(path("a"), 2000, 0, replace=True))
        busy = code(BusyError)
        for step in (
            m.MoveStep(path("x"), path("a"), replace=True),
            m.LinkStep(path("a"), b"x", replace=True),
            m.RemoveStep(path("a")),
        ):
            self.file("x")
            self.assertEqual(self.change(step), ([], {0: busy}))
        self.assertEqual((self.root / "a").read_bytes(), b"hello")

    def test_given_up(self) -> None:
        """Steps of a client that is gone are not begun any more; what was done is done."""
        carry_out = self.exports.carry_out

        def interrupted(who: Any, steps: Any, **more: Any) -> Any:
            def some() -> Iterator[Any]:
                for step in steps:
                    yield step
                    self.peer.lose()

            return carry_out(who, some(), **more)

        self.patch(self.exports, "carry_out", interrupted)
        self.peer.begin(m.Change([m.MakeStep(path(name)) for name in "abc"]))
        self.assertEqual(sorted(one.name for one in self.root.iterdir() if len(one.name) == 1), ["a"])

    def test_many(self) -> None:
        """As many as one request may hold, all of them failing, are answered also in small frames."""
        small = self.client(offer=m.Offer(**{**FIELDS, "control": 1024}))
        done, failed = self.change(*(m.RemoveStep(path(f"{n}")) for n in range(m.MAX_BATCH)), peer=small)
        self.assertEqual((done, len(failed)), ([], m.MAX_BATCH))


class Counting(Immediate):
    """A worker that counts what it does."""

    count = 0

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        self.count += 1
        return super().run(function, *args, **kwargs)


class RangeTests(OperationCase):
    """read with ranges, and modes."""

    def test_ranges(self) -> None:
        """These parts come one behind the other, in any order, without a hash."""
        content = self.file("a", os.urandom(3 * MIB))
        version = expect(m.Content, self.peer.ask(m.Read(path("a"), length=0))[0]).version
        ranges = [m.Span(2 * MIB, 1000), m.Span(0, MIB + 1), m.Span(3 * MIB - 1, 1), m.Span(0, 3)]
        wanted = b"".join(content[one.offset : one.offset + one.size] for one in ranges)
        for peer in (self.peer, self.client(features=("zstd",))):
            head, *pieces, end = peer.ask(m.Read(path("a"), version=version, ranges=ranges))
            self.assertEqual(expect(m.Content, head).size, len(content))
            self.assertEqual(end, m.End(len(content)))
            if peer is self.peer:
                self.assertEqual(b"".join(expect(bytes, piece) for piece in pieces), wanted)

    def test_many(self) -> None:
        """As many small ones as a request may name come too, also to a client that gives little credit."""
        content = self.file("a", os.urandom(MIB))
        ranges = [m.Span(number * 1000, 10) for number in range(m.MAX_BATCH)]
        slow = self.client(offer=m.Offer(**{**FIELDS, "stream_credit": 100, "connection_credit": 200}))
        _, *pieces, end = slow.ask(m.Read(path("a"), ranges=ranges))
        self.assertEqual(
            b"".join(expect(bytes, piece) for piece in pieces),
            b"".join(content[one.offset : one.offset + 10] for one in ranges),
        )
        self.assertEqual(end, m.End(MIB))

    def test_not_packed(self) -> None:
        """That content does not become smaller is not tried out again for each part of it."""
        self.file("a", os.urandom(MIB))
        reads = Counting()
        self.factory = self.make(Immediate(), reads)
        peer = self.client(features=("zstd",))
        ranges = [m.Span(number * 8192, 8192) for number in range(100)]
        self.assertEqual(peer.ask(m.Read(path("a"), ranges=ranges))[-1], m.End(MIB))
        self.assertLess(reads.count, 10)

    def test_refused(self) -> None:
        """Parts of another version, behind the end, or beside an offset are not sent."""
        self.file("a", b"0123456789")
        for more, error in (
            ({"version": b"another"}, ConflictError),
            ({"ranges": [m.Span(0, 1), m.Span(9, 2)]}, ValueError),
            ({"ranges": [m.Span(2**63 - 1, 2**63 - 1)]}, ValueError),
            ({"offset": 1}, BadRequestError),
            ({"length": 1}, BadRequestError),
        ):
            asked: dict[str, Any] = {"ranges": [m.Span(0, 1)], **more}
            self.assertReset(self.peer.ask(m.Read(path("a"), **asked)), error)

    def test_modes(self) -> None:
        """A file comes with its mode, and goes with the one that is named."""
        self.file("a")
        self.assertEqual(expect(m.Content, self.peer.ask(m.Read(path("a")))[0]).mode, 0o640)
        self.peer.write("b", b"x" * 1000, mode=0o604)
        stream = self.peer.begin(m.WriteFiles(path("")))
        self.peer.session.send(m.Files([m.SmallFile(path("c"), 0, digest(b"c"), b"c", 0o604)]), stream)
        self.peer.end(stream)
        self.assertEqual([stat.S_IMODE((self.root / name).stat().st_mode) for name in "bc"], [0o604] * 2)
