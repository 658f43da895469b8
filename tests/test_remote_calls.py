"""What remote paths ask of a server that breaks off, lies, or changes under their eyes."""

from __future__ import annotations

import errno

import msgspec
from blake3 import blake3

from fileexport.client.connection import Wait
from fileexport.client.remote.calls import write_small
from fileexport.errors import BusyError, ConflictError, CorruptedResponse, DestinationNotFound
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.session import DEFAULT_OFFER
from tests.client_server import Peer, Script, ServerCase
from tests.transfer_peer import code as code_of

FILE = m.Entry(RelPath(), "file", 3, 7)
LINK = m.Entry(RelPath(), "link", 3, 7)
DIRECTORY = m.Entry(RelPath(), "directory", 0, 7)


CONFLICT = code_of(ConflictError)


class CallCase(ServerCase):
    """A server with one script, and a path on it."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[m.Message] = []

    def hear(self, peer: Peer, kind: type[m.Open]) -> int:
        """Hear and note one operation."""
        stream, asked = peer.hear(kind)
        self.asked.append(asked)
        return stream

    def entry(self, peer: Peer, entry: m.Entry) -> None:
        """Answer one `stat`."""
        stream = self.hear(peer, m.Stat)
        peer.say(m.Entries([entry]), stream)
        peer.say(m.End(), stream)

    def steps(self, peer: Peer, code: int = 0) -> list[m.AnyStep]:
        """Answer one request of a change: it was made, or failed with this code."""
        stream, asked = peer.hear(m.Change)
        failed = [m.Failure(0, code, "")] if code else []
        peer.say(m.Outcome([] if code else [m.Range(0, 1)], failed), stream)
        peer.say(m.End(), stream)
        return asked.steps


class WriteTests(CallCase):
    """Small writes."""

    def taken(self, peer: Peer) -> m.SmallFile:
        """Take what one write sends."""
        self.hear(peer, m.WriteFiles)
        _, files = peer.hear(m.Files)
        return files.files[0]

    def write(self, *scripts: Script, content: bytes = b"new", offer: m.Offer = DEFAULT_OFFER) -> int:
        """Write on a server with these scripts."""
        with self.server(*scripts, offer=offer).client() as client:
            return client.path("/d/name").write_bytes(content)

    def committed(self, peer: Peer) -> None:
        """Take one write and commit it."""
        stream, asked = peer.hear(m.WriteFiles)
        self.asked.append(asked)
        _, files = peer.hear(m.Files)
        self.asked.append(files)
        peer.hear(m.End)
        peer.say(m.Outcome([m.Range(0, 1)]), stream)
        peer.say(m.End(), stream)

    def test_one_request(self) -> None:
        """A small write is one request, whose file has its hash."""
        self.assertEqual(self.write(self.committed), 3)
        asked, files = self.asked
        self.assertEqual(asked, m.WriteFiles(RelPath(["d"]), True))
        assert isinstance(files, m.Files)
        [file] = files.files
        self.assertEqual((str(file.path), file.content), ("/name", b"new"))
        self.assertEqual((file.digest, file.mode), (blake3(b"new").digest(), None))

    def test_cut(self) -> None:
        """After a cut it is written again, also where the first attempt still holds the name."""

        def cut(peer: Peer) -> None:
            self.taken(peer)

        def busy(peer: Peer) -> None:
            stream = self.hear(peer, m.WriteFiles)
            peer.hear(m.Files)
            peer.hear(m.End)
            peer.say(m.Outcome(failed=[m.Failure(0, code_of(BusyError), "")]), stream)
            peer.say(m.End(), stream)
            self.committed(peer)

        self.assertEqual(self.write(cut, busy), 3)

    def test_refused(self) -> None:
        """What the server says of the file is raised, with its whole path; somebody else's write at once."""
        for code, kind in ((code_of(PermissionError), PermissionError), (code_of(BusyError), BusyError)):

            def refuse(peer: Peer, code: int = code) -> None:
                stream = self.hear(peer, m.WriteFiles)
                peer.hear(m.Files)
                peer.hear(m.End)
                peer.say(m.Outcome(failed=[m.Failure(0, code, "")]), stream)
                peer.say(m.End(), stream)
                self.assertRaises(ConnectionError, peer.next)

            error = self.assertRaises(kind, self.write, refuse)
            if isinstance(error, OSError):
                self.assertEqual(error.filename, "/d/name")

    def test_no_directory(self) -> None:
        """A directory that is missing ends it before the file is there."""

        def refuse(peer: Peer) -> None:
            stream = self.hear(peer, m.WriteFiles)
            peer.say(m.Reset(code_of(DestinationNotFound)), stream)
            while True:
                peer.next()

        error = self.assertRaises(FileNotFoundError, self.write, refuse)
        self.assertEqual(error.filename, "/d/name")

    def test_lie(self) -> None:
        """An outcome of another number of files is a lie."""

        def lie(peer: Peer) -> None:
            stream = self.hear(peer, m.WriteFiles)
            peer.hear(m.Files)
            peer.hear(m.End)
            peer.say(m.Outcome([m.Range(0, 1), m.Range(1, 1)]), stream)
            peer.say(m.End(), stream)
            self.assertRaises(ConnectionError, peer.next)

        self.assertRaises(CorruptedResponse, self.write, lie)

    def test_too_long(self) -> None:
        """What is too long for a frame of this server's, or for any, is not sent; nor is the top a file."""

        def script(peer: Peer) -> None:
            self.hear(peer, m.WriteFiles)
            peer.hear(m.Reset)
            self.assertRaises(ConnectionError, peer.next)

        offer = msgspec.structs.replace(DEFAULT_OFFER, control=32 << 10)
        with self.server(script, offer=offer).client() as client:
            for path, size in (("/name", 60_000), ("/name", (64 << 10) + 1), ("/", 1)):
                self.assertFalse(write_small(client._pool, RelPath.parse(path), bytes(size), Wait))


class ChangeTests(CallCase):
    """Removing what others write to."""

    def test_unlink(self) -> None:
        """A file is removed as the one that was seen; one that is another each time stays."""
        steps: list[m.AnyStep] = []

        def script(peer: Peer) -> None:
            for code in (CONFLICT, 0, *[CONFLICT] * 4):
                self.entry(peer, FILE)
                steps.extend(self.steps(peer, code))
            self.assertRaises(ConnectionError, peer.next)

        with self.server(script).client() as client:
            client.path("/f").unlink()
            error = self.assertRaises(OSError, client.path("/f").unlink)
        self.assertEqual((error.errno, error.filename), (errno.EBUSY, "/f"))
        self.assertEqual(steps, [m.RemoveStep(RelPath(["f"]), mtime=7)] * 6)

    def test_unlink_became_directory(self) -> None:
        """A directory that takes the place of a file meanwhile stays."""

        def script(peer: Peer) -> None:
            self.entry(peer, FILE)
            self.steps(peer, CONFLICT)
            self.entry(peer, DIRECTORY)
            self.assertRaises(ConnectionError, peer.next)

        with self.server(script).client() as client:
            self.assertRaises(IsADirectoryError, client.path("/f").unlink)

    def test_parents(self) -> None:
        """What keeps a directory above from being made is said, unless it is there already."""

        def script(peer: Peer) -> None:
            self.steps(peer, code_of(DestinationNotFound))
            for code in (code_of(FileExistsError), code_of(PermissionError)):
                stream = self.hear(peer, m.MakeDirectory)
                peer.say(m.Reset(code), stream)
            self.assertRaises(ConnectionError, peer.next)

        with self.server(script).client() as client:
            error = self.assertRaises(PermissionError, client.path("/a/b/c").mkdir, parents=True)
        self.assertEqual(error.filename, "/a/b/c")
        made = [asked.path for asked in self.asked if isinstance(asked, m.MakeDirectory)]
        self.assertEqual([str(path) for path in made], ["/a", "/a/b"])

    def test_rmdir(self) -> None:
        """What takes the place of a directory meanwhile, and has content, stays."""
        steps: list[m.AnyStep] = []

        def script(peer: Peer) -> None:
            self.entry(peer, DIRECTORY)
            steps.extend(self.steps(peer, CONFLICT))
            self.assertRaises(ConnectionError, peer.next)

        with self.server(script).client() as client:
            self.assertRaises(NotADirectoryError, client.path("/d").rmdir)
        self.assertEqual(steps, [m.RemoveStep(RelPath(["d"]), size=0)])


class BehindTests(CallCase):
    """Where links lead."""

    def test_directory(self) -> None:
        """Of a directory behind a link only the beginning of its manifest is read."""

        def script(peer: Peer) -> None:
            self.entry(peer, LINK)
            stream = self.hear(peer, m.Read)
            peer.say(m.Reset(code_of(IsADirectoryError)), stream)
            stream = self.hear(peer, m.Manifest)
            peer.say(m.ManifestPart([m.Folder(RelPath())], m.Top(9, 0o755)), stream)
            peer.hear(m.Reset)

        with self.server(script).client() as client:
            self.assertEqual(client.path("/l").stat().st_mtime_ns, 9)

    def test_file(self) -> None:
        """A file behind a link is opened, and nothing of it is read."""

        def script(peer: Peer) -> None:
            self.entry(peer, LINK)
            stream = self.hear(peer, m.Read)
            peer.say(m.Content(5, 9, b"v"), stream)
            peer.say(m.End(5), stream)

        with self.server(script).client() as client:
            self.assertEqual(client.path("/l").stat().st_size, 5)
        self.assertEqual(self.asked[1:], [m.Read(RelPath(["l"]), length=0)])
