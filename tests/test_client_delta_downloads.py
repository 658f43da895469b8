"""The blocking client fetches a file by its differences: what travels, cuts, changes and lies."""

from __future__ import annotations

import os
from collections.abc import Callable

from fileexport.client import feeding
from fileexport.client.downloading import Destination
from fileexport.errors import CorruptedResponse, SourceNotFound
from fileexport.wire import messages as m
from tests.client_server import Peer, Script
from tests.delta_server import MIB, MISSING, MTIME, NEW, OLD, DeltaCase, Holder


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
                    holder.tell(peer, stream, content, asked.average)
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

    def test_source_changed(self) -> None:
        """A file that changes between its chunks and its content is fetched as a whole, as it is then."""
        holder = Holder(a=OLD[:MIB] + bytes(2 * MIB))

        def script(peer: Peer) -> None:
            holder.one(peer)
            holder.one(peer)
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
            holder.one(peer)
            holder.one(peer)
            (self.here / "old").write_bytes(bytes(len(OLD)))
            holder(peer)

        self.assertTrue(MIB < self.fetch(script) <= len(NEW) + MISSING)
        self.check()

    def test_wrong_content(self) -> None:
        """Content that is not what its chunk says is not written: the whole file is fetched, and checked."""
        holder = Holder(a=NEW)

        def script(peer: Peer) -> None:
            holder.one(peer)
            holder.one(peer)
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
                holder.one(peer)
                holder.one(peer)
                stream, asked = peer.hear(m.Read)
                peer.say(m.Content(len(NEW), MTIME, holder.version(NEW), mode=0o640), stream)
                lie(peer, stream, asked)
                peer.next()

            with self.server(script).client() as client, Destination(str(self.here)) as place:
                self.assertRaises(CorruptedResponse, client.download_changes, "/a", place, "new", ["old"])
            self.assertEqual(sorted(os.listdir(self.here)), ["old", "unused"])

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
