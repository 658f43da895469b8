"""The blocking client sends a file by its differences, and has files copied: what travels, cuts, lies."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import msgspec
from blake3 import blake3

from fileexport.client import delta
from fileexport.client.cutting import most_chunks
from fileexport.client.delta import copy_here
from fileexport.client.uploading import Source
from fileexport.disk.jail import Jail
from fileexport.errors import (
    BusyError,
    ChangedWhileRead,
    ConflictError,
    CorruptedResponse,
    DestinationNotFound,
    SourceNotFound,
)
from fileexport.exports import Exports
from fileexport.paths import RelPath
from fileexport.sync.chunks import AVERAGES
from fileexport.sync.manifest import Entry
from fileexport.testing import serving
from fileexport.tokens import Principal, Right
from fileexport.wire import messages as m
from fileexport.wire.session import DEFAULT_OFFER
from tests.client_server import Peer, raising
from tests.delta_server import MIB, MISSING, MTIME, NEW, OLD, DeltaCase, Holder, chunks_of


def compared(holder: Holder, peer: Peer) -> None:
    """Say the chunks of a base, and the finer ones of its gaps."""
    holder.one(peer)
    holder.one(peer)


class UploadTests(DeltaCase):
    """`upload_changes`."""

    def test_differences(self) -> None:
        """What the bases have does not travel; content, time and permissions arrive, replacing the old."""
        holder = Holder(a=OLD, b=b"")
        seen: list[tuple[int, int]] = []
        with self.server(holder).client() as client:
            count = client.upload_changes(
                self.file, "/a", ["/a", "/b", "/none"], progress=lambda *at: seen.append(at)
            )
        self.assertEqual(holder.files["/a"], NEW)
        self.assertEqual((len(holder.came[0]), count < MISSING), (count, True))
        asked = holder.asked[-1]
        assert isinstance(asked, m.Write)
        self.assertEqual((asked.mtime, asked.mode, asked.replace), (MTIME, 0o640, True))
        self.assertEqual([str(base.path) for base in asked.bases], ["/a"])
        self.assertEqual(seen[-1], (len(NEW), len(NEW)))

    def test_several_bases(self) -> None:
        """Parts come out of all bases that have any; of a file that is there whole nothing travels."""
        holder = Holder(a=NEW[: 2 * MIB], b=NEW[2 * MIB - 300_000 :])
        with self.server(holder).client() as client:
            self.assertTrue(client.upload_changes(self.file, "/c", ["/a", "/b"]) < 300_000)
            self.assertEqual(client.upload_changes(self.file, "/d", ["/c"]), 0)
        self.assertEqual((holder.files["/c"], holder.files["/d"]), (NEW, NEW))
        self.assertEqual({one.base for one in holder.ranges}, {0, 1})

    def test_without_bases(self) -> None:
        """Without a base that is there the whole file travels, its permissions too."""
        for bases in ([], ["/none"], ["/empty"]):
            holder = Holder(empty=b"")
            with self.server(holder).client() as client:
                self.assertEqual(client.upload_changes(self.file, "/a", bases), len(NEW))
            asked = holder.asked[-1]
            assert isinstance(asked, m.Write)
            self.assertEqual((holder.files["/a"], asked.mode, asked.bases), (NEW, 0o640, []))

    def test_cut(self) -> None:
        """After a cut it goes on where the server is, and what had travelled does not travel again."""
        for most in (1, 700_001, len(NEW) - 1):
            holder = Holder(a=OLD)

            def script(peer: Peer, holder: Holder = holder, most: int = most) -> None:
                compared(holder, peer)
                stream, asked = peer.hear(m.Write)
                holder.take(peer, stream, asked, most)

            with self.server(script, holder).client() as client:
                count = client.upload_changes(self.file, "/a", ["/a"])
            self.assertEqual(holder.files["/a"], NEW)
            came = sum(map(len, holder.came))
            self.assertTrue(came < MISSING + (64 << 10), came)
            # What had left and did not arrive counts too.
            self.assertTrue(came <= count <= 2 * MISSING, count)

    def test_in_steps(self) -> None:
        """The server is told of what it has in more than one message, so that it begins at once."""
        self.patch(delta, "_TELL_EVERY", 200_000)
        edits = (100_000, 1_300_000, 2_500_000)
        content = bytearray(OLD)
        for at in edits:
            content[at] ^= 1
        self.file.write_bytes(content)
        told: list[int] = []

        class Watching(Holder):
            def copied(self, ranges: list[m.CopyRange]) -> None:
                told.append(sum(one.size for one in ranges))

        holder = Watching(a=OLD)
        with self.server(holder).client() as client:
            client.upload_changes(self.file, "/a", ["/a"])
        self.assertEqual(holder.files["/a"], bytes(content))
        self.assertTrue(len(told) > len(edits), told)

    def test_pieces(self) -> None:
        """Whatever is new, a short piece stands only before a copy or at the end, for any window."""
        dice = random.Random(5)
        for credit in (8 << 20, (256 << 10) - 100, 99_999):
            # What is compressed, or would be, passes through Python; other content does not.
            for compression in (False, True):
                content = bytearray(OLD)
                for _ in range(8):
                    at = dice.randrange(len(content))
                    content[at : at + dice.choice((0, 1, 5000))] = dice.randbytes(
                        dice.choice((1, 300, 500_000))
                    )
                # More than one frame, which is cut by the window and does not shrink.
                content[1_000_000:1_000_000] = dice.randbytes(1_500_000)
                self.file.write_bytes(content)
                holder = Holder(a=OLD)
                offer = msgspec.structs.replace(DEFAULT_OFFER, stream_credit=credit)
                server = self.server(holder, offer=offer, features=("zstd",))
                with server.client(compression=compression) as client:
                    client.upload_changes(self.file, "/a", ["/a"])
                self.assertEqual(holder.files["/a"], bytes(content))
                self.assertTrue(holder.ranges)

    def test_small_edits(self) -> None:
        """A change of few bytes costs few of the smallest chunks: in front, in the midst, at the end."""
        for at in (0, 1_500_000, len(OLD) - 1):
            for new in (OLD[:at] + OLD[at + 1 :], OLD[:at] + b"new" + OLD[at:]):
                self.file.write_bytes(new)
                holder = Holder(a=OLD)
                with self.server(holder).client() as client:
                    count = client.upload_changes(self.file, "/a", ["/a"])
                self.assertEqual(holder.files["/a"], new)
                self.assertTrue(count < 3 * (16 << 10), (at, count))

    def test_changed_between(self) -> None:
        """Where the base is another one when its gaps are looked at, the whole file travels."""
        holder = Holder(a=OLD)

        def script(peer: Peer) -> None:
            holder.one(peer)
            holder.files["/a"] = OLD[::-1]
            holder(peer)

        with self.server(script).client() as client:
            self.assertEqual(client.upload_changes(self.file, "/a", ["/a"]), len(NEW))
        self.assertEqual(holder.files["/a"], NEW)

    def test_cut_list(self) -> None:
        """A list of chunks that breaks off is asked for again."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.GetChunks)
            peer.say(m.Chunks(b"v", [m.ChunkRow(9, bytes(32))]), stream)
            raise ConnectionError

        holder = Holder(a=OLD)
        with self.server(script, holder).client() as client:
            self.assertTrue(client.upload_changes(self.file, "/a", ["/a"]) < MISSING)
        self.assertEqual(holder.files["/a"], NEW)

    def test_base_changed(self) -> None:
        """Where a base is another one by then, or is not what its chunks said, the whole file travels."""

        def refuse(peer: Peer, stream: int) -> None:
            peer.say(m.Reset(22), stream)

        def differ(peer: Peer, stream: int) -> None:
            peer.say(m.Ready(0), stream)
            peer.say(m.Reset(21), stream)

        for end in (refuse, differ):
            holder = Holder(a=OLD)

            def script(peer: Peer, holder: Holder = holder, end: Callable[[Peer, int], None] = end) -> None:
                compared(holder, peer)
                stream, _ = peer.hear(m.Write)
                end(peer, stream)
                holder(peer)

            with self.server(script).client() as client:
                self.assertTrue(client.upload_changes(self.file, "/a", ["/a"]) >= len(NEW))
            self.assertEqual(holder.files["/a"], NEW)

    def test_refused(self) -> None:
        """What the server says of the target comes out, and what `progress` raises; the client goes on."""
        holder = Holder(a=OLD)

        def script(peer: Peer) -> None:
            compared(holder, peer)
            stream, _ = peer.hear(m.Write)
            peer.say(m.Reset(11), stream)
            holder(peer)

        with self.server(script, holder).client() as client:
            self.assertRaises(BusyError, client.upload_changes, self.file, "/a", ["/a"])
            self.assertRaises(SourceNotFound, client.upload_changes, self.here / "none", "/a", ["/a"])
            self.assertRaises(
                ZeroDivisionError,
                client.upload_changes,
                self.file,
                "/a",
                ["/a"],
                progress=raising(ZeroDivisionError),
            )
            self.assertTrue(client.upload_changes(self.file, "/a", ["/a"]) < MISSING)

    def test_lies(self) -> None:
        """Chunks that are none, or not the whole of a file, break the protocol."""
        row = m.ChunkRow(100, bytes(32))
        for lie in (
            [m.Chunks(b"v", [m.ChunkRow(1 << 20, bytes(32))]), m.End(1 << 20)],
            [m.Chunks(b"v", [row]), m.End(99)],
            [m.Chunks(b"v", [row]), m.Chunks(b"v", []), m.End(100)],
            [m.Chunks(b"v", [row, row]), m.End(200)],
        ):

            def script(peer: Peer, lie: list[m.Message] = lie) -> None:
                stream, _ = peer.hear(m.GetChunks)
                for message in lie:
                    peer.say(message, stream)
                peer.next()

            with self.server(script).client() as client:
                self.assertRaises(CorruptedResponse, client.upload_changes, self.file, "/a", ["/a"])

    def test_too_many_chunks(self) -> None:
        """Bases with more chunks than such a file and all its bases have are none: nobody holds them."""
        self.patch(delta, "_SPARE", 100)
        told = 0

        def script(peer: Peer) -> None:
            nonlocal told
            stream, _ = peer.hear(m.GetChunks)
            while told < 10_000:
                peer.say(m.Chunks(b"v", [m.ChunkRow(8 << 10, bytes(32))] * 100), stream)
                told += 100
            peer.hear(m.Reset)
            holder(peer)

        holder = Holder(a=OLD)
        with self.server(script).client() as client:
            self.assertEqual(client.upload_changes(self.file, "/a", ["/b"]), len(NEW))
        self.assertEqual(holder.files["/a"], NEW)
        chunks = sum(len(chunks_of(content, AVERAGES[0])) for content in (OLD, NEW))
        self.patch(delta, "_SPARE", 0)
        self.assertTrue(most_chunks(len(NEW), AVERAGES[0]) > chunks)
        holder = Holder(a=OLD, b=NEW)
        with self.server(holder).client() as client:
            self.assertEqual(client.upload_changes(self.file, "/c", ["/a", "/b"]), 0)

    def test_lies_of_ranges(self) -> None:
        """So do chunks that are not those of the ranges: fewer, more, or across their ends."""
        row = m.ChunkRow(1000, bytes(32))
        for count in (0, 1, 10_000):
            holder = Holder(a=OLD)

            def script(peer: Peer, holder: Holder = holder, count: int = count) -> None:
                holder.one(peer)
                stream, _ = peer.hear(m.GetChunks)
                for start in range(0, count or 1, m.MAX_BATCH):
                    rows = [row] * min(m.MAX_BATCH, count - start)
                    peer.say(m.Chunks(holder.version(OLD), rows), stream)
                peer.say(m.End(count * 1000), stream)

            with self.server(script).client() as client:
                self.assertRaises(CorruptedResponse, client.upload_changes, self.file, "/a", ["/a"])


class CopyTests(DeltaCase):
    """Copies of one side."""

    entry = Entry("file", len(OLD), MTIME, 0o600)
    digest = blake3(OLD).digest()

    def test_there(self) -> None:
        """The server copies by itself; an empty file too."""
        holder = Holder(a=OLD, empty=b"")
        with self.server(holder).client() as client:
            client.copy("/a", "/b", self.entry, self.digest)
            client.copy("/empty", "/c", self.entry._replace(size=0), blake3().digest())
            self.assertRaises(ChangedWhileRead, client.copy, "/a", "/b", self.entry, bytes(32))
        self.assertEqual((holder.files["/b"], holder.files["/c"]), (OLD, b""))
        asked = holder.asked[0]
        assert isinstance(asked, m.Write)
        self.assertEqual((asked.mtime, asked.mode, asked.replace), (MTIME, 0o600, True))
        self.assertEqual(b"".join(holder.came), b"")

    def test_cut(self) -> None:
        """After a cut it is asked for again; a directory that is missing is named."""
        holder = Holder(a=OLD)

        def script(peer: Peer) -> None:
            peer.hear(m.Write)
            raise ConnectionError

        def missing(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            peer.say(m.Reset(1), stream)

        with self.server(script, holder).client() as client:
            client.copy("/a", "/b", self.entry, self.digest)
        self.assertEqual(holder.files["/b"], OLD)
        with self.server(missing).client() as client:
            error = self.assertRaises(DestinationNotFound, client.copy, "/a", "/d/b", self.entry, self.digest)
        self.assertEqual(error.filename, "/d")

    def test_here(self) -> None:
        """A copy here has content, time and permissions; a file that is another one is refused."""
        place = self.place()
        (self.here / "old").write_bytes(OLD)
        copy_here(place, "old", "copy", self.entry, self.digest)
        status = os.stat(self.here / "copy")
        self.assertEqual((self.here / "copy").read_bytes(), OLD)
        self.assertEqual((status.st_mtime_ns, status.st_mode & 0o777), (MTIME, 0o600))
        for entry, digest in (
            (self.entry, bytes(32)),
            (self.entry._replace(size=5), blake3(OLD[:5]).digest()),
        ):
            self.assertRaises(ChangedWhileRead, copy_here, place, "old", "new", entry, digest)
        self.assertEqual(self.file.read_bytes(), NEW)


class RealTests(DeltaCase):
    """With a server of our own."""

    def setUp(self) -> None:
        super().setUp()
        self.root = self.here / "root"
        self.root.mkdir()
        (self.root / "old").write_bytes(OLD)
        (self.here / "old").write_bytes(OLD)
        server = self.enterContext(serving(self.root))
        self.client = self.enterContext(server.client())

    def test_both_ways(self) -> None:
        """A file goes there and comes back by its differences alone."""
        for _ in range(2):
            before = self.client.traffic
            count = self.client.upload_changes(self.file, "/new", ["/old", "/new"])
            after = self.client.traffic
            self.assertTrue(count <= after[0] - before[0] < count + 10_000)
        self.assertEqual(count, 0)
        self.assertEqual((self.root / "new").read_bytes(), NEW)
        self.file.unlink()
        self.assertTrue(self.client.download_changes("/new", self.place(), "new", ["old"]) < MISSING)
        status = os.stat(self.file)
        self.assertEqual(self.file.read_bytes(), NEW)
        self.assertEqual((status.st_mtime_ns, status.st_mode & 0o777), (MTIME, 0o640))

    def test_go_on_with_another(self) -> None:
        """What the server kept of an upload and is not the file's is thrown away: the file arrives whole."""
        who = Principal("test", Right.ALL, RelPath())
        jail = Jail(str(self.root))
        self.addCleanup(jail.close)
        with Source(str(self.file)) as source:
            for at in (0, 2 * MIB - 1):
                kept = bytearray(NEW[: 2 * MIB])
                kept[at] ^= 1
                upload = Exports(jail).begin_upload(
                    who,
                    RelPath(("new",)),
                    size=len(NEW),
                    mtime_ns=None,
                    replace=True,
                    source=source.identity,
                    holder="test",
                )
                upload.write(bytes(kept))
                upload.suspend()
                # What follows what was kept, and then all.
                self.assertTrue(self.client.upload_changes(self.file, "/new", ["/old"]) > len(NEW))
                self.assertEqual((self.root / "new").read_bytes(), NEW)
                self.assertEqual(os.listdir(self.root / ".fileexport"), [])

    def test_copy(self) -> None:
        """The server copies what is there, and nothing else."""
        entry = Entry("file", len(OLD), MTIME, 0o600)
        self.client.copy("/old", "/copy", entry, blake3(OLD).digest())
        self.assertEqual((self.root / "copy").read_bytes(), OLD)
        self.assertEqual(os.stat(self.root / "copy").st_mode & 0o777, 0o600)
        self.assertRaises(ConflictError, self.client.copy, "/none", "/b", entry, blake3(OLD).digest())
        self.assertRaises(ChangedWhileRead, self.client.copy, "/old", "/b", entry, bytes(32))
        self.assertNotIn("b", os.listdir(self.root))
