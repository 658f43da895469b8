"""Small files whose connection is cut on their way to the server: little is sent twice, nothing is lost."""

from __future__ import annotations

import os

from blake3 import blake3

from fileexport.paths import RelPath
from fileexport.wire import messages as m
from tests.client_server import Peer
from tests.test_client_small_files import SmallCase, failures


class CutTests(SmallCase):
    """Cuts, and what is asked after them."""

    def cut(self, peer: Peer) -> None:
        """Take all files, and be gone without a word of them."""
        stream, _ = peer.hear(m.WriteFiles)
        self.files(peer, stream)
        self.got.clear()

    def say_arrived(self, peer: Peer, *arrived: str) -> None:
        """Say of files that came before a cut: all have their size and time, these their content too."""
        stream, asked = peer.hear(m.Change)
        for step in asked.steps:
            status = os.stat(self.here / step.path.name)
            expected = m.SetStep(step.path, None, None, status.st_size, status.st_mtime_ns)
            self.assertEqual(step, expected)
        peer.say(m.Outcome([m.Range(0, len(asked.steps))]), stream)
        peer.say(m.End(), stream)
        stream, hashed = peer.hear(m.HashFiles)
        self.assertEqual(hashed.paths, [step.path for step in asked.steps])
        rows = []
        for path in hashed.paths:
            content = (self.here / path.name).read_bytes() if path.name in arrived else b"other"
            rows.append(m.FileHash(path, len(content), blake3(content).digest()))
        peer.say(m.Hashes(rows), stream)
        peer.say(m.End(), stream)

    def test_cut(self) -> None:
        """After a cut, files without an outcome are sent again; what was committed before has arrived."""

        def cut(peer: Peer) -> None:
            stream, _ = peer.hear(m.WriteFiles)
            self.files(peer, stream)
            peer.say(m.Outcome([m.Range(0, 1)]), stream)

        def rest(peer: Peer) -> None:
            self.say_arrived(peer)
            stream, _ = peer.hear(m.WriteFiles)
            self.files(peer, stream)
            peer.say(m.Outcome([m.Range(1, 1)], [m.Failure(0, 4, ""), m.Failure(2, 4, "")]), stream)
            peer.say(m.End(), stream)
            peer.next()

        def hashes(peer: Peer) -> None:
            while True:
                stream, asked = peer.hear(m.Hash)
                content = b"1" if asked.path.name == "1" else b"other"
                peer.say(m.Hashes([m.FileHash(RelPath(), len(content), blake3(content).digest())]), stream)
                peer.say(m.End(), stream)

        files = [self.local(str(i), b"%d" % i) for i in range(4)]
        outcomes = list(self.client(cut, rest, hashes).upload_small(files, "/d"))
        self.assertEqual(sorted(one.file.path for one in outcomes), ["s/0", "s/1", "s/2", "s/3"])
        self.assertEqual(failures(outcomes), {"s/3": FileExistsError})

    def test_arrived(self) -> None:
        """After a cut only those are sent again that are not there as they were sent."""

        def rest(peer: Peer) -> None:
            self.say_arrived(peer, "0", "2")
            self.take_all(peer)

        for replace in (False, True):
            files = [self.local(str(i), b"%d" % i) for i in range(4)]
            outcomes = list(self.client(self.cut, rest).upload_small(files, "/d", replace=replace))
            self.assertEqual(sorted(one.file.path for one in outcomes), ["s/0", "s/1", "s/2", "s/3"])
            self.assertEqual((failures(outcomes), sorted(self.got)), ({}, ["/s/1", "/s/3"]))

    def test_held_after_a_cut(self) -> None:
        """What the connection that was cut still holds is waited for, and not sent again."""

        def rest(peer: Peer) -> None:
            stream, _ = peer.hear(m.Change)
            peer.say(m.Outcome([m.Range(0, 1)], [m.Failure(1, 11, "")]), stream)
            peer.say(m.End(), stream)
            stream, _ = peer.hear(m.Change)
            peer.say(m.Outcome([m.Range(0, 1)]), stream)
            peer.say(m.End(), stream)
            stream, hashed = peer.hear(m.HashFiles)
            peer.say(m.Hashes([m.FileHash(path, 1, blake3(b"x").digest()) for path in hashed.paths]), stream)
            peer.say(m.End(), stream)
            self.take_all(peer)

        files = [self.local(name, b"x") for name in "ab"]
        self.assertEqual(failures(self.client(self.cut, rest).upload_small(files, "/d")), {})
        self.assertEqual(self.got, {})

    def test_may_not_read(self) -> None:
        """Who may not read sends all of them again."""

        def rest(peer: Peer) -> None:
            stream, _ = peer.hear(m.Change)
            peer.say(m.Outcome([m.Range(0, 2)]), stream)
            peer.say(m.End(), stream)
            stream, _ = peer.hear(m.HashFiles)
            peer.say(m.Reset(7), stream)
            self.take_all(peer)

        files = [self.local(name, b"x") for name in "ab"]
        self.assertEqual(failures(self.client(self.cut, rest).upload_small(files, "/d")), {})
        self.assertEqual(sorted(self.got), ["/s/a", "/s/b"])

    def test_slow_source(self) -> None:
        """Files that the server did not wait for are sent again, over the same connection."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.WriteFiles)
            self.files(peer, stream)
            peer.say(m.Outcome([m.Range(0, 1)]), stream)
            peer.say(m.Reset(14), stream)
            self.say_arrived(peer)
            self.take_all(peer)

        files = [self.local(name, b"x") for name in "abc"]
        server = self.server(script)
        outcomes = list(server.client().upload_small(files, "/d"))
        self.assertEqual(sorted(one.file.path for one in outcomes), ["s/a", "s/b", "s/c"])
        self.assertEqual((failures(outcomes), server.connections), ({}, 1))
