"""Each operation of the transfer protocol: what it answers, what it refuses, and to whom."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

from fileexport.errors import (
    BadRequestError,
    BusyError,
    ChangedWhileRead,
    CorruptedResponse,
    DestinationNotFound,
    FileNameError,
)
from fileexport.tokens import Right
from fileexport.transfer_desk import Limits
from fileexport.transfer_operations import batches
from fileexport.wire import messages as m
from fileexport.wire.session import DEFAULT_OFFER
from fileexport.wire.zstd import Shrinker
from tests.transfer_peer import Peer, TransferCase, code, expect, path

MIB = 1 << 20


def digest(content: bytes) -> bytes:
    """The hash that the protocol names."""
    return blake3(content).digest()


class OperationCase(TransferCase):
    """Has a client that was let in."""

    def setUp(self) -> None:
        super().setUp()
        self.peer = self.client()

    def file(self, name: str, content: bytes = b"hello") -> bytes:
        """Make a file."""
        found = self.root / name
        found.parent.mkdir(parents=True, exist_ok=True)
        found.write_bytes(content)
        found.chmod(0o640)
        os.utime(found, ns=(0, 123_456_789))
        return content


class LookTests(OperationCase):
    """list, stat, hash."""

    def test_stat(self) -> None:
        """A path is shown with type, size and time; its own name is known to whoever asked."""
        self.file("a/b")
        self.assertEqual(
            self.peer.ask(m.Stat(path("a/b"))),
            [m.Entries([m.Entry(path(""), "file", 5, 123_456_789)]), m.End()],
        )
        self.assertReset(self.peer.ask(m.Stat(path("a/c"))), FileNotFoundError)

    def test_list(self) -> None:
        """A directory's entries come by name, with `recursive` those below too."""
        self.file("a/b")
        self.file("c")
        flat, deep = (self.names(m.List(path(""), recursive)) for recursive in (False, True))
        self.assertEqual(flat, ["/a", "/c"])
        self.assertEqual(deep, ["/a", "/a/b", "/c"])
        self.assertReset(self.peer.ask(m.List(path("c"))), NotADirectoryError)
        self.assertReset(self.peer.ask(m.List(path("d"))), FileNotFoundError)

    def names(self, operation: m.List) -> list[str]:
        """The paths of a listing."""
        *batches, end = self.peer.ask(operation)
        self.assertEqual(end, m.End())
        return [str(entry.path) for batch in batches for entry in expect(m.Entries, batch).entries]

    def test_many(self) -> None:
        """A long listing comes in batches that a frame holds."""
        for number in range(m.MAX_BATCH + 1):
            (self.root / f"{number:04}").touch()
        *found, end = self.peer.ask(m.List(path("")))
        self.assertEqual([len(expect(m.Entries, batch).entries) for batch in found], [m.MAX_BATCH, 1])

    def test_small_frames(self) -> None:
        """A client that takes only small frames gets small batches."""
        for number in range(50):
            (self.root / f"{number:04}").touch()
        small = self.client(offer=m.Offer(**{**FIELDS, "control": 1024}))
        *found, end = small.ask(m.List(path("")))
        self.assertEqual(end, m.End())
        self.assertGreater(len(found), 3)

    def test_hash(self) -> None:
        """The hash of one file, or of every file below a directory."""
        content = self.file("a/b")
        one = m.FileHash(path(""), 5, digest(content))
        self.assertEqual(self.peer.ask(m.Hash(path("a/b"))), [m.Hashes([one]), m.End()])
        below = m.FileHash(path("a/b"), 5, digest(content))
        self.assertEqual(self.peer.ask(m.Hash(path(""))), [m.Hashes([below]), m.End()])


FIELDS: dict[str, Any] = {
    name: getattr(DEFAULT_OFFER, name)
    for name in ("control", "data", "streams", "stream_credit", "connection_credit")
}


class ReadTests(OperationCase):
    """read, read_files."""

    def read(self, peer: Peer | None = None, **more: Any) -> tuple[m.Content, bytes, m.End]:
        """What reading the file `a` gives."""
        first, *pieces, end = (peer or self.peer).ask(m.Read(path("a"), **more))
        content = b"".join(expect(bytes, piece) for piece in pieces)
        return expect(m.Content, first), content, expect(m.End, end)

    def test_whole(self) -> None:
        """A file comes with its size and time first, and its hash at the end."""
        for content in (b"", b"hello", os.urandom(3 * MIB + 5)):
            self.file("a", content)
            head, got, end = self.read()
            self.assertEqual((head.size, head.mtime, head.offset), (len(content), 123_456_789, 0))
            self.assertEqual(got, content)
            self.assertEqual(end, m.End(len(content), digest(content)))

    def test_continued(self) -> None:
        """Whoever has a part of this version gets the rest, and the hash of the whole file."""
        content = self.file("a", os.urandom(2 * MIB))
        version = self.read()[0].version
        head, got, end = self.read(offset=MIB, version=version)
        self.assertEqual((head.offset, got, end.digest), (MIB, content[MIB:], digest(content)))
        head, got, end = self.read(offset=MIB, version=b"another")
        self.assertEqual((head.offset, got), (0, content))

    def test_part(self) -> None:
        """A part of a file comes without a hash; one that begins behind the end begins at 0."""
        self.file("a", b"0123456789")
        for more, offset, expected in (
            ({"offset": 2, "length": 3}, 2, b"234"),
            ({"offset": 8, "length": 100}, 8, b"89"),
            ({"offset": 10, "length": 1}, 10, b""),
            ({"length": 0}, 0, b""),
        ):
            head, got, end = self.read(self.peer, **more)
            self.assertEqual((head.offset, got, end.digest), (offset, expected, None))

    def test_not_files(self) -> None:
        """What is no file cannot be read."""
        (self.root / "d").mkdir()
        self.assertReset(self.peer.ask(m.Read(path("d"))), IsADirectoryError)
        self.assertReset(self.peer.ask(m.Read(path("missing"))), FileNotFoundError)

    def test_compressed(self) -> None:
        """Where both sides can, content that shrinks is sent compressed, other content as it is."""
        peer = self.client(features=("zstd",))
        random = os.urandom(MIB + 1)
        for content in (b"hello " * MIB, random, b"x" * (2 * MIB) + random, b"small"):
            self.file("a", content)
            first, *frames, end = peer.ask(m.Read(path("a")))
            self.assertEqual(end, m.End(len(content), digest(content)))
        self.assertEqual(frames, [b"small"])
        self.file("a", b"hello " * MIB)
        self.assertLess(sum(map(len, self.read(peer)[1:2])), MIB)

    def during(self, change: Callable[[Path], object], **more: Any) -> tuple[Peer, list[Any]]:
        """What is said where a file of 3000 bytes is changed when the first of them were sent."""
        self.file("a", b"x" * 3000)
        peer = self.client(offer=m.Offer(**{**FIELDS, "stream_credit": 1000}))
        held: list[Any] = []
        consumed = peer.session.consumed
        self.patch(peer.session, "consumed", lambda *args: held.append(args))
        stream = peer.begin(m.Read(path("a"), **more))
        change(self.root / "a")
        while held:
            consumed(*held.pop())
            peer.turn()
        return peer, peer.said(stream)

    def test_changed(self) -> None:
        """A file that changes while it is sent ends with an error, and the connection goes on."""

        def put_back(file: Path) -> None:
            file.write_bytes(b"y" * 3000)
            os.utime(file, ns=(0, 123_456_789))

        for change in (lambda file: os.truncate(file, 1000), put_back):
            for more in ({}, {"offset": 100}, {"length": 2900}):
                peer, said = self.during(change, **more)
                self.assertReset(said, ChangedWhileRead)
                self.assertIsInstance(peer.ask(m.Stat(path("a")))[-1], m.End)

    def test_replaced(self) -> None:
        """One whose name goes to another file, or away, comes whole: it is the same as before."""

        def replace(file: Path) -> None:
            file.with_name("b").write_bytes(b"new")
            file.with_name("b").rename(file)

        for change in (replace, os.unlink):
            _, said = self.during(change)
            self.assertEqual(said[-1], m.End(3000, digest(b"x" * 3000)))

    def test_small(self) -> None:
        """Many small files come together, and what failed behind them, by its number."""
        hello, empty = self.file("d/a"), self.file("b", b"")
        self.file("large", bytes(m.MAX_INLINE + 1))
        names = [path(name) for name in ("d/a", "missing", "b", "d", "large")]
        files, outcome, end = self.peer.ask(m.ReadFiles(names))
        self.assertEqual(
            files,
            m.Files(
                [
                    m.SmallFile(path("d/a"), 123_456_789, digest(hello), hello, 0o640),
                    m.SmallFile(path("b"), 123_456_789, digest(empty), empty, 0o640),
                ]
            ),
        )
        self.assertEqual(
            [(failure.index, failure.code) for failure in expect(m.Outcome, outcome).failed],
            [(1, code(FileNotFoundError)), (3, code(IsADirectoryError)), (4, code(ValueError))],
        )
        self.assertEqual(end, m.End())

    def test_many_small(self) -> None:
        """Small files that do not fit into one frame come in several, as there is credit."""
        names = [f"{number}" for number in range(8)]
        for name in names:
            self.file(name, os.urandom(m.MAX_INLINE))
        peer = self.client(offer=m.Offer(**{**FIELDS, "stream_credit": 100_000}))
        *frames, end = peer.ask(m.ReadFiles([path(name) for name in names]))
        self.assertEqual(end, m.End())
        self.assertEqual(
            [str(file.path)[1:] for frame in frames for file in expect(m.Files, frame).files],
            names,
        )


class WriteTests(OperationCase):
    """write, write_files."""

    limits = Limits(file_size=8 * MIB)

    def test_whole(self) -> None:
        """A file is there when its hash is right, with its time, and the answer says what was written."""
        for name, content in (("a", b""), ("b", b"hello"), ("c", os.urandom(MIB))):
            self.assertEqual(self.peer.write(name, content)[-1], m.End(len(content), digest(content)))
            self.assertEqual((self.root / name).read_bytes(), content)
            self.assertEqual((self.root / name).stat().st_mtime_ns, 10**18)

    def test_wrong_hash(self) -> None:
        """Content with another hash or size is never there."""
        for size, proof in ((1000, bytes(32)), (999, digest(b"x" * 1000))):
            stream = self.peer.begin(m.Write(path("a"), 1000, 0))
            self.peer.data(stream, b"x" * 1000)
            self.peer.end(stream, size, proof)
            self.assertReset(self.peer.said(stream), ChangedWhileRead)
        stream = self.peer.begin(m.Write(path("a"), 0, 0))
        self.peer.end(stream)
        self.assertReset(self.peer.said(stream), BadRequestError)
        self.assertFalse((self.root / "a").exists())

    def test_exists(self) -> None:
        """A name that is taken is refused at once, unless it shall be replaced."""
        self.file("a")
        self.assertReset(self.peer.said(self.peer.begin(m.Write(path("a"), 9, 0))), FileExistsError)
        self.assertIsInstance(self.peer.write("a", b"new", replace=True)[-1], m.End)
        self.assertEqual((self.root / "a").read_bytes(), b"new")

    def test_refused(self) -> None:
        """What cannot be written is refused with its reason."""
        self.file("d/a")
        for operation, kind in (
            (m.Write(path("no/a"), 1, 0), DestinationNotFound),
            (m.Write(path("d"), 1, 0, replace=True), IsADirectoryError),
            (m.Write(path("a:b"), 1, 0), FileNameError),
            (m.Write(path("big"), 8 * MIB + 1, 0), ValueError),
        ):
            self.assertReset(self.peer.ask(operation), kind)

    def test_busy(self) -> None:
        """A path that somebody writes is busy: the second learns who that is, and since when."""
        self.peer.begin(m.Write(path("a"), 1000, 0))
        last = self.assertReset(self.client().ask(m.Write(path("a"), 1000, 0)), BusyError)
        self.assertEqual(last.holder, "alice from 127.0.0.1")
        self.assertIsNotNone(last.since)

    def test_small_pieces(self) -> None:
        """Pieces under the smallest chunk are refused, the last one of a file excepted."""
        stream = self.peer.begin(m.Write(path("a"), 1052, 0))
        for size in (512, 512, 28):
            self.peer.data(stream, b"x" * size)
        self.peer.end(stream, 1052, digest(b"x" * 1052))
        self.assertIsInstance(self.peer.said(stream)[-1], m.End)
        stream = self.peer.begin(m.Write(path("b"), 1052, 0))
        self.peer.data(stream, b"x" * 28)
        self.assertReset(self.peer.said(stream), ValueError)

    def test_large_pieces(self) -> None:
        """The largest chunk is announced; a larger one breaks the protocol."""
        self.factory = self.make(max_chunk=1024)
        peer = self.client()
        assert peer.session.peer is not None
        self.assertEqual(peer.session.peer.limits.data, 1024)

    def test_too_much(self) -> None:
        """More content than was announced is refused."""
        stream = self.peer.begin(m.Write(path("a"), 1000, 0))
        self.peer.data(stream, b"x" * 1001)
        self.assertReset(self.peer.said(stream), ChangedWhileRead)

    def test_compressed(self) -> None:
        """Compressed content is written unpacked; what cannot be unpacked ends its stream."""
        peer, content = self.client(features=("zstd",)), b"hello " * 100_000
        packed = Shrinker().pack(content)
        assert packed is not None
        stream = peer.begin(m.Write(path("a"), len(content), 0))
        peer.data(stream, packed, compressed=True)
        peer.end(stream, len(content), digest(content))
        self.assertEqual((self.root / "a").read_bytes(), content)
        stream = peer.begin(m.Write(path("b"), 1000, 0))
        peer.data(stream, b"no zstd", compressed=True)
        self.assertReset(peer.said(stream), CorruptedResponse)

    def test_small_files(self) -> None:
        """Many small files are committed together; each that fails does so alone, by its number."""
        self.file("d/old")
        stream = self.peer.begin(m.WriteFiles(path("d")))
        files = [
            m.SmallFile(path(name), 5, digest(content), content)
            for name, content in (("a", b"a"), ("old", b"new"), ("b", b"b"), ("no/c", b"c"))
        ]
        self.peer.session.send(m.Files(files[:2]), stream)
        self.peer.session.send(m.Files([*files[2:], m.SmallFile(path("e"), 5, bytes(32), b"e")]), stream)
        self.peer.end(stream)
        done, failed, end = self.peer.said(stream)
        self.assertEqual(done, m.Outcome(committed=[m.Range(0, 1), m.Range(2, 1)]))
        self.assertEqual(
            [(failure.index, failure.code) for failure in expect(m.Outcome, failed).failed],
            [(1, code(FileExistsError)), (3, code(DestinationNotFound)), (4, code(ChangedWhileRead))],
        )
        self.assertEqual(end, m.End())
        self.assertEqual(sorted(os.listdir(self.root / "d")), ["a", "b", "old"])

    def test_small_files_nowhere(self) -> None:
        """Small files for a directory that is not there are refused as a whole."""
        self.assertReset(self.peer.ask(m.WriteFiles(path("no"))), DestinationNotFound)


class ChangeTests(OperationCase):
    """make_file, make_directory, remove, rename."""

    def test_make(self) -> None:
        """New files and directories; what is there already only where that is wanted."""
        for make in (m.MakeFile, m.MakeDirectory):
            name = make.__name__
            self.assertEqual(self.peer.ask(make(path(name))), [m.End()])
            self.assertReset(self.peer.ask(make(path(name))), FileExistsError)
            self.assertEqual(self.peer.ask(make(path(name), exist_ok=True)), [m.End()])
            self.assertReset(self.peer.ask(make(path("no/x"))), DestinationNotFound)

    def test_remove(self) -> None:
        """What goes is counted exactly; a directory with contents only goes where that is wanted."""
        self.file("d/a")
        self.file("d/b")
        self.assertReset(self.peer.ask(m.Remove(path("d"))), IsADirectoryError)
        self.assertEqual(self.peer.ask(m.Remove(path("d"), recursive=True)), [m.Removed(3), m.End()])
        self.assertReset(self.peer.ask(m.Remove(path("d"))), FileNotFoundError)

    def test_rename(self) -> None:
        """A path gets another name, over another file only where that is wanted."""
        self.file("a", b"a")
        self.file("b", b"b")
        self.assertReset(self.peer.ask(m.Rename(path("a"), path("b"))), FileExistsError)
        self.assertEqual(self.peer.ask(m.Rename(path("a"), path("b"), replace=True)), [m.End()])
        self.assertEqual((self.root / "b").read_bytes(), b"a")


class JobTests(OperationCase):
    """compress, jobs, job, cancel."""

    def test_compress(self) -> None:
        """A job makes an archive beside the path, and its owner sees how it ends."""
        self.file("d/a")
        made, end = self.peer.ask(m.Compress(path("d"), "zip"))
        (job,) = expect(m.Jobs, made).jobs
        self.assertEqual((job.path, job.target), (path("d"), path("d.zip")))
        for operation in (m.GetJob(job.id, 5), m.ListJobs(), m.CancelJob(job.id)):
            found = expect(m.Jobs, self.peer.ask(operation)[0])
            self.assertEqual([(one.id, one.state) for one in found.jobs], [(job.id, "done")])
        self.assertTrue((self.root / "d.zip").exists())
        self.assertReset(self.peer.ask(m.Compress(path("no"))), FileNotFoundError)

    def test_others(self) -> None:
        """Jobs of others do not exist, but for an admin."""
        self.file("d/a")
        job = expect(m.Jobs, self.peer.ask(m.Compress(path("d")))[0]).jobs[0].id
        self.let(Right.READ | Right.WRITE, "/d")
        other = self.client()
        for operation in (m.GetJob(job), m.CancelJob(job)):
            self.assertReset(other.ask(operation), FileNotFoundError)
        self.assertEqual(other.ask(m.ListJobs()), [m.End()])


class RightTests(OperationCase):
    """Who may do what."""

    def test_rights(self) -> None:
        """Without its right an operation is refused, and nothing has happened."""
        self.file("a")
        changing = (
            *(m.Write(path("b"), 1, 0), m.WriteFiles(path("")), m.MakeFile(path("b"))),
            *(m.MakeDirectory(path("b")), m.Rename(path("a"), path("b")), m.Compress(path("a"))),
            *(m.ListJobs(), m.GetJob("x"), m.CancelJob("x")),
        )
        reading = (m.Read(path("a")), m.List(path("")), m.Stat(path("a")), m.Hash(path("a")))
        for right, refused in (
            (Right.ALL & ~Right.READ, reading),
            (Right.ALL & ~Right.WRITE, changing),
            (Right.ALL & ~Right.DELETE, (m.Remove(path("a")),)),
        ):
            self.let(right)
            peer = self.client()
            for operation in refused:
                self.assertReset(peer.ask(operation), PermissionError)
        self.assertEqual(os.listdir(self.root), ["a"])

    def test_under(self) -> None:
        """What lies outside of a token's part is not there."""
        self.file("d/a")
        self.file("b")
        self.let(Right.ALL, "/d")
        peer = self.client()
        self.assertIsInstance(peer.ask(m.Read(path("d/a")))[-1], m.End)
        self.assertReset(peer.ask(m.Read(path("b"))), FileNotFoundError)
        self.assertReset(peer.ask(m.Write(path("c"), 1, 0)), DestinationNotFound)


class BatchTests(OperationCase):
    """How rows are put together."""

    def test_sizes(self) -> None:
        """A batch ends before it is too long; a row that is too long stands alone."""
        rows = [("a", 4), ("b", 4), ("c", 4), ("d", 30), ("e", 1)]
        self.assertEqual(list(batches(rows, 10)), [["a", "b"], ["c"], ["d"], ["e"]])
        self.assertEqual(list(batches([], 10)), [])
        self.assertEqual(list(batches([("a", 4), None, ("b", 4)], 10)), [[], ["a", "b"]])
