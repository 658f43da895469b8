"""The blocking client fetches a file by its differences: what travels, cuts, changes and lies."""

from __future__ import annotations

import os
from collections.abc import Callable

from fileexport.client import chunks, feeding
from fileexport.client.downloading import Destination
from fileexport.errors import CorruptedResponse, SourceNotFound
from fileexport.sync.chunks import AVERAGES
from fileexport.wire import messages as m
from tests.client_server import Peer, Script
from tests.delta_server import MIB, MISSING, MTIME, NEW, OLD, DeltaCase, Holder, chunks_of


def compared(holder: Holder, peer: Peer) -> None:
    """Say what the file is, its chunks, and the finer ones of its gaps."""
    for _ in range(3):
        holder.one(peer)


class DownloadTests(DeltaCase):
    """`download_changes`."""

    def setUp(self) -> None:
        super().setUp()
        os.rename(self.file, self.here / "unused")
        (self.here / "old").write_bytes(OLD)

    def check(self) -> None:
        """The file is there, as the server has it, and nothing else of it."""
        self.assertEqual(self.file.read_bytes(), NEW)
        status = os.stat(self.file)
        self.assertEqual((status.st_mtime_ns, status.st_mode & 0o777), (MTIME, 0o640))
        self.file.unlink()

    def fetch(self, *scripts: Script, bases: list[str] | None = None) -> int:
        """How many bytes it takes to fetch the file from a server with these scripts."""
        wanted = ["old"] if bases is None else bases
        with self.server(*scripts).client() as client, Destination(str(self.here)) as place:
            count = client.download_changes("/a", place, "new", wanted)
        self.assertNotIn(".fileexport", os.listdir(self.here))
        return count

    def test_differences(self) -> None:
        """What the bases have does not travel; content, time and permissions arrive, replacing the old."""
        (self.here / "empty").touch()
        (self.here / "d").mkdir()
        self.assertTrue(0 < self.fetch(Holder(a=NEW), bases=["old", "empty", "none", "d"]) < MISSING)
        self.check()
        self.file.write_bytes(OLD)
        self.assertTrue(0 < self.fetch(Holder(a=NEW), bases=["new"]) < MISSING)
        self.check()

    def test_equal(self) -> None:
        """Of a file that is here whole nothing travels."""
        (self.here / "old").write_bytes(NEW)
        self.assertEqual(self.fetch(Holder(a=NEW)), 0)
        self.check()

    def test_without_bases(self) -> None:
        """Without a base that is there the whole file travels, its permissions too."""
        for bases in ([], ["none"]):
            self.assertEqual(self.fetch(Holder(a=NEW), bases=bases), len(NEW))
            self.check()

    def test_many_requests(self) -> None:
        """Parts are asked for in as many requests as it takes, none for what is here."""
        self.patch(feeding, "_REACH", 400_000)
        holder = Holder(a=NEW)
        self.assertTrue(self.fetch(holder) < MISSING)
        self.check()
        asked = [one for one in holder.asked if isinstance(one, m.Read) and one.ranges]
        self.assertTrue(1 < len(asked) < 8, asked)

    def test_cut(self) -> None:
        """After a cut it goes on with what is missing; so does a further call after an error."""
        holder = Holder(a=NEW)
        cuts = 0

        def script(peer: Peer) -> None:
            nonlocal cuts
            while True:
                stream, asked = peer.hear(m.OnePath)
                content = holder.files["/a"]
                if isinstance(asked, m.GetChunks):
                    holder.tell(peer, stream, content, asked)
                elif isinstance(asked, m.Read) and not asked.ranges:
                    holder.give(peer, stream, content, asked)
                elif isinstance(asked, m.Read):
                    cuts += 1
                    peer.say(m.Content(len(content), MTIME, holder.version(content), mode=0o640), stream)
                    for span in asked.ranges:
                        peer.data(stream, content[span.offset : span.offset + min(span.size, 300_000)])
                        if span.size > 300_000:
                            raise ConnectionError
                    peer.say(m.End(len(content)), stream)

        count = self.fetch(script)
        self.check()
        self.assertTrue(cuts > 2)
        self.assertTrue(count < MISSING + cuts * (128 << 10), count)

    def go_on(self, content: bytes) -> tuple[int, list[m.Open]]:
        """Fetch the file where a download broke off behind this; bytes that travel, and what is asked for."""
        holder = Holder(a=NEW)

        def broken(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(len(NEW), MTIME, holder.version(NEW), mode=0o640), stream)
            for start in range(0, len(content), 50_000):
                peer.data(stream, content[start : start + 50_000])
            raise ConnectionError

        def gone(peer: Peer) -> None:
            raise ConnectionError

        server = self.server(broken, *[gone] * len(chunks.BACKOFF), holder)
        with server.client() as client, Destination(str(self.here)) as place:
            self.assertRaises(ConnectionError, client.download_file, "/a", self.here, name="new")
            self.assertIn(".fileexport", os.listdir(self.here))
            count = client.download_changes("/a", place, "new", ["old"])
        self.assertNotIn(".fileexport", os.listdir(self.here))
        return count, holder.asked

    def test_go_on(self) -> None:
        """It goes on with what is here of the file, if that is the file's: no byte of it comes again."""
        count, asked = self.go_on(NEW[: len(NEW) - MIB])
        self.check()
        self.assertTrue(MIB // 2 < count < MIB + (256 << 10), count)
        self.assertEqual(len([one for one in asked if isinstance(one, m.Read) and not one.ranges]), 1)

    def test_go_on_with_another(self) -> None:
        """What is here and is not the file's is thrown away, whatever was noted of it: it is begun anew."""
        for at in (0, 500_000, 2 * MIB - 1, 2 * MIB + 77_000):
            kept = bytearray(NEW[: 2 * MIB + 77_001])
            kept[at] ^= 1
            count, asked = self.go_on(bytes(kept))
            self.check()
            whole = [one for one in asked if isinstance(one, m.Read) and not one.ranges and one.length != 0]
            if at < 2 * MIB:
                # By its differences, as if nothing had been here.
                self.assertEqual((whole, MIB // 2 < count < MISSING), ([], True))
            else:
                # In a chunk that is not here whole: that cannot be told from a base that changed.
                self.assertEqual([one.offset for one in whole], [0])

    def test_source_changed(self) -> None:
        """A file that changes between its chunks and its content is fetched as a whole, as it is then."""
        holder = Holder(a=OLD[:MIB] + bytes(2 * MIB))

        def script(peer: Peer) -> None:
            compared(holder, peer)
            stream, _ = peer.hear(m.Read)
            peer.say(m.Reset(22), stream)
            holder.files["/a"] = NEW
            holder(peer)

        self.assertEqual(self.fetch(script), len(NEW))
        self.check()

    def test_base_changed(self) -> None:
        """A base that changes meanwhile spoils nothing: what was checked stays, the rest is fetched."""
        holder = Holder(a=NEW)

        def script(peer: Peer) -> None:
            compared(holder, peer)
            (self.here / "old").write_bytes(bytes(len(OLD)))
            holder(peer)

        self.assertTrue(MIB < self.fetch(script) <= len(NEW) + MISSING)
        self.check()

    def test_wrong_content(self) -> None:
        """Content that is not what its chunk says is not written: the whole file is fetched, and checked."""
        holder = Holder(a=NEW)

        def script(peer: Peer) -> None:
            compared(holder, peer)
            stream, asked = peer.hear(m.Read)
            content = bytes(len(NEW))
            peer.say(m.Content(len(NEW), MTIME, holder.version(NEW), mode=0o640), stream)
            for span in asked.ranges:
                for start in range(0, span.size, 50_000):
                    peer.data(stream, content[: min(50_000, span.size - start)])
            peer.say(m.End(len(NEW)), stream)
            holder(peer)

        self.assertTrue(self.fetch(script) >= len(NEW))
        self.check()

    def test_wrong_gaps(self) -> None:
        """Finer chunks that are not those of the file spoil nothing: what they tell is checked as all is."""

        class Lying(Holder):
            def tell(self, peer: Peer, stream: int, content: bytes, asked: m.GetChunks) -> None:
                told = OLD if asked.ranges else content
                parts = [told[one.offset : one.offset + one.size] for one in asked.ranges] or [told]
                rows = [m.ChunkRow(*chunk) for part in parts for chunk in chunks_of(part, asked.average)]
                for start in range(0, len(rows), 100):
                    peer.say(m.Chunks(self.version(content), rows[start : start + 100]), stream)
                peer.say(m.End(sum(map(len, parts))), stream)

        new = OLD[:MIB] + b"in the midst" + OLD[MIB + 12 :]
        (self.here / "old").write_bytes(OLD)
        self.assertTrue(self.fetch(Lying(a=new)) > 0)
        self.assertEqual(self.file.read_bytes(), new)

    def test_lies(self) -> None:
        """Less than was asked for, or more, or chunks of another file break the protocol; nothing is left."""

        def less(peer: Peer, stream: int, asked: m.Read) -> None:
            peer.data(stream, NEW[:8])
            peer.say(m.End(len(NEW)), stream)

        def more(peer: Peer, stream: int, asked: m.Read) -> None:
            for span in asked.ranges:
                for start in range(0, span.size, 50_000):
                    peer.data(stream, NEW[span.offset + start :][: min(50_000, span.size - start)])
            peer.data(stream, b"more")
            peer.say(m.End(len(NEW)), stream)

        for lie in (less, more):
            holder = Holder(a=NEW)

            def script(
                peer: Peer, holder: Holder = holder, lie: Callable[[Peer, int, m.Read], None] = lie
            ) -> None:
                compared(holder, peer)
                stream, asked = peer.hear(m.Read)
                peer.say(m.Content(len(NEW), MTIME, holder.version(NEW), mode=0o640), stream)
                lie(peer, stream, asked)
                peer.next()

            with self.server(script).client() as client, Destination(str(self.here)) as place:
                self.assertRaises(CorruptedResponse, client.download_changes, "/a", place, "new", ["old"])
            self.assertEqual(sorted(os.listdir(self.here)), ["old", "unused"])

    def test_lies_of_chunks(self) -> None:
        """Chunks that a file of this size cannot have break the protocol; no more of them are taken."""
        least = AVERAGES[0] // 4
        for size, count in ((1, 50_000), (least, len(NEW) // least), (5 * AVERAGES[0], 100)):
            holder = Holder(a=NEW)
            rows = [m.ChunkRow(size, bytes(32))] * 100

            def script(
                peer: Peer, holder: Holder = holder, rows: list[m.ChunkRow] = rows, count: int = count
            ) -> None:
                holder.one(peer)
                stream, _ = peer.hear(m.GetChunks)
                for _ in range(0, count, len(rows)):
                    peer.say(m.Chunks(holder.version(NEW), rows), stream)
                peer.say(m.End(len(NEW)), stream)
                peer.next()

            with self.server(script).client() as client, Destination(str(self.here)) as place:
                self.assertRaises(CorruptedResponse, client.download_changes, "/a", place, "new", ["old"])

    def test_outside(self) -> None:
        """A base is looked for in the destination alone, whatever links lie there."""
        outside = self.here / "outside"
        place = self.here / "place"
        outside.mkdir()
        place.mkdir()
        (outside / "old").write_bytes(NEW)
        (place / "link").symlink_to("../outside")
        with self.server(Holder(a=NEW)).client() as client, Destination(str(place)) as opened:
            self.assertEqual(client.download_changes("/a", opened, "new", ["link/old"]), len(NEW))
            self.assertRaises(OSError, client.download_changes, "/a", opened, "link/new", [])
        self.assertEqual(os.listdir(outside), ["old"])

    def test_missing(self) -> None:
        """A file that the server does not have is `SourceNotFound`, and nothing is left."""
        with self.server(Holder()).client() as client, Destination(str(self.here)) as place:
            self.assertRaises(SourceNotFound, client.download_changes, "/a", place, "new", ["old"])
        self.assertEqual(sorted(os.listdir(self.here)), ["old", "unused"])
