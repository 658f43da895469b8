"""The blocking client sends a file by its differences, and has files copied: what travels, cuts, lies."""

from __future__ import annotations

import os
from collections.abc import Callable

from blake3 import blake3

from fileexport.client import delta
from fileexport.client.blocking import Client
from fileexport.client.delta import copy_here
from fileexport.errors import (
    BusyError,
    ChangedWhileRead,
    ConflictError,
    CorruptedResponse,
    DestinationNotFound,
    SourceNotFound,
)
from fileexport.sync import chunks
from fileexport.sync.manifest import Entry
from fileexport.wire import messages as m
from tests.client_server import TOKEN, Peer, raising
from tests.delta_server import MIB, MISSING, MTIME, NEW, OLD, DeltaCase, Holder
from tests.loopback import Loopback


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
                holder.one(peer)
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
        """The server is told of what it has while the rest is still being cut."""
        self.patch(chunks, "MAX_PIECE", 100_000)
        self.patch(delta, "_TELL_EVERY", 200_000)
        told: list[int] = []

        class Watching(Holder):
            def copied(self, ranges: list[m.CopyRange]) -> None:
                told.append(sum(one.size for one in ranges))

        holder = Watching(a=OLD)
        with self.server(holder).client() as client:
            client.upload_changes(self.file, "/a", ["/a"])
        self.assertEqual(holder.files["/a"], NEW)
        self.assertTrue(len(told) > 5 and max(told) < 600_000, told)

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
                holder.one(peer)
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
            holder.one(peer)
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
        ):

            def script(peer: Peer, lie: list[m.Message] = lie) -> None:
                stream, _ = peer.hear(m.GetChunks)
                for message in lie:
                    peer.say(message, stream)
                peer.next()

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
        server = Loopback(self.root, f"{TOKEN} name=test\n")
        server.__enter__()
        self.addCleanup(server.__exit__, None, None, None)
        self.client = Client("127.0.0.1", server.port, TOKEN)
        self.addCleanup(self.client.close)

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

    def test_copy(self) -> None:
        """The server copies what is there, and nothing else."""
        entry = Entry("file", len(OLD), MTIME, 0o600)
        self.client.copy("/old", "/copy", entry, blake3(OLD).digest())
        self.assertEqual((self.root / "copy").read_bytes(), OLD)
        self.assertEqual(os.stat(self.root / "copy").st_mode & 0o777, 0o600)
        self.assertRaises(ConflictError, self.client.copy, "/none", "/b", entry, blake3(OLD).digest())
        self.assertRaises(ChangedWhileRead, self.client.copy, "/old", "/b", entry, bytes(32))
        self.assertNotIn("b", os.listdir(self.root))
