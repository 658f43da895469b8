"""The blocking client fetches one file: chunks, cuts, lies, and what is left on the disk."""

from __future__ import annotations

import errno
import os
import threading

from blake3 import blake3

from fileexport.client import chunks
from fileexport.disk.partials import Partial
from fileexport.errors import ChangedWhileRead, CorruptedResponse, DestinationNotFound, SourceNotFound
from fileexport.wire import messages as m
from fileexport.wire.frames import COMPRESSED, FrameType, header
from tests.client_server import RAISED, Peer, Script, ServerCase, raising

MIB = 1 << 20
SMALL = bytes(range(256)) * 4 + b"and 28 bytes more than that."
LARGE = blake3(b"seed").digest(length=3 * MIB + 5)


def cut_after(content: bytes, sent: int) -> Script:
    """Send the beginning of a file, then break the connection."""

    def script(peer: Peer) -> None:
        stream, _ = peer.hear(m.Read)
        peer.say(m.Content(len(content), 7, b"v1"), stream)
        for start in range(0, sent, 64 << 10):
            peer.data(stream, content[start : min(start + (64 << 10), sent)])
        raise ConnectionError

    return script


def honest(content: bytes) -> Script:
    """Answer each `read` as it is asked, until the client goes."""

    def script(peer: Peer) -> None:
        while True:
            stream, asked = peer.hear(m.Read)
            offset = asked.offset if asked.version == b"v1" else 0
            if asked.length == 0:
                peer.say(m.Content(len(content), 7, b"v1"), stream)
                peer.say(m.End(len(content)), stream)
            else:
                peer.answer_read(stream, content, offset=offset)

    return script


class DownloadCase(ServerCase):
    """A directory here."""

    def names(self) -> list[str]:
        """What is in the directory."""
        return sorted(os.listdir(self.here))


class ChunkTests(DownloadCase):
    """`process_chunk`, to the letter."""

    def test_chunks(self) -> None:
        """1,052 bytes with chunks of 512 are three calls, whose remaining bytes include the chunk in hand."""
        calls: list[tuple[bytes, int, int, str]] = []

        def process(*call: *tuple[bytes, int, int, str]) -> bool:
            calls.append(call)
            return True

        with self.server(honest(SMALL)).client() as client:
            self.assertTrue(client.download_file("/d/a.bin", self.here, "b.bin", 512, process))
        self.assertEqual(
            calls,
            [
                (SMALL[:512], 1052, 1052, "b.bin"),
                (SMALL[512:1024], 540, 1052, "b.bin"),
                (SMALL[1024:], 28, 1052, "b.bin"),
            ],
        )
        self.assertEqual((self.here / "b.bin").read_bytes(), SMALL)

    def test_empty(self) -> None:
        """An empty file has no chunk, and arrives."""
        with self.server(honest(b"")).client() as client:
            self.assertTrue(client.download_file("/a", self.here, process_chunk=lambda *_: self.fail()))
        self.assertEqual((self.here / "a").read_bytes(), b"")

    def test_cancel(self) -> None:
        """False cancels: nothing is left, not even a partial, and the client goes on."""
        with self.server(honest(LARGE)).client() as client:
            done = client.download_file("/a", self.here, process_chunk=lambda data, left, *_: left > 2 * MIB)
            self.assertFalse(done)
            self.assertEqual(self.names(), [])
            self.assertTrue(client.download_file("/a", self.here))
        self.assertEqual((self.here / "a").read_bytes(), LARGE)

    def test_exceptions(self) -> None:
        """What the callback raises comes out, nothing is left, and the client goes on."""
        for kind in RAISED:
            with self.server(honest(LARGE)).client() as client:
                self.assertRaises(kind, client.download_file, "/a", self.here, process_chunk=raising(kind))
                self.assertEqual(self.names(), [])
                self.assertTrue(client.download_file("/a", self.here))
            os.unlink(self.here / "a")

    def test_exception_behind_a_cut(self) -> None:
        """What the callback raises comes out also where the connection has gone; nothing is left."""
        is_called, is_cut = threading.Event(), threading.Event()

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(len(LARGE), 7, b"v1"), stream)
            peer.data(stream, LARGE[: 64 << 10])
            is_called.wait()
            peer.break_off()
            is_cut.set()

        def process(*_: object) -> None:
            is_called.set()
            is_cut.wait()
            raise ZeroDivisionError

        server = self.server(script)
        with server.client() as client:
            self.assertRaises(ZeroDivisionError, client.download_file, "/a", self.here, process_chunk=process)
        self.assertEqual((server.connections, self.names()), (1, []))

    def test_full_disk(self) -> None:
        """A full disk here is said of the file that was to come, and nothing of it is left."""

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(Partial, "write", full)
        with self.server(honest(SMALL)).client() as client:
            error = self.assertRaises(OSError, client.download_file, "/a", self.here)
        self.assertEqual((error.errno, error.filename), (errno.ENOSPC, str(self.here / "a")))
        self.assertEqual(self.names(), [])

    def test_chunk_sizes(self) -> None:
        """A chunk size outside 512 bytes to 1 MiB is refused before anything is asked."""
        server = self.server(honest(SMALL))
        with server.client() as client:
            for size in (0, 511, MIB + 1):
                self.assertRaises(ValueError, client.download_file, "/a", self.here, None, size)
        self.assertEqual(server.connections, 0)

    def test_callback_may_call(self) -> None:
        """A callback may use the client."""
        with self.server(honest(LARGE), honest(SMALL)).client() as client:
            found: list[bool] = []

            def process(data: bytes, left: int, size: int, name: str) -> bool:
                if left == size:
                    found.append(client.download_file("/b", self.here))
                return True

            self.assertTrue(client.download_file("/a", self.here, process_chunk=process))
        self.assertEqual(found, [True])
        self.assertEqual(self.names(), ["a", "b"])


class CutTests(DownloadCase):
    """Connections that break."""

    def test_goes_on(self) -> None:
        """A download that is cut goes on from what it has, on a new connection."""
        offsets: list[int] = []

        def rest(peer: Peer) -> None:
            stream, asked = peer.hear(m.Read)
            offsets.append(asked.offset)
            self.assertEqual(asked.version, b"v1")
            peer.answer_read(stream, LARGE, offset=asked.offset)

        with self.server(cut_after(LARGE, 2 * MIB), rest).client() as client:
            self.assertTrue(client.download_file("/a", self.here))
        self.assertEqual(offsets, [2 * MIB])
        self.assertEqual((self.here / "a").read_bytes(), LARGE)
        self.assertEqual(os.stat(self.here / "a").st_mtime_ns, 7)
        self.assertEqual(self.names(), ["a"])

    def test_next_call_goes_on(self) -> None:
        """What came before a call failed for good is the beginning for the next one, its chunks too."""
        offsets: list[int] = []

        def rest(peer: Peer) -> None:
            stream, asked = peer.hear(m.Read)
            self.assertEqual(asked.length, 0)
            peer.say(m.Content(len(LARGE), 7, b"v1"), stream)
            peer.say(m.End(len(LARGE)), stream)
            stream, asked = peer.hear(m.Read)
            offsets.append(asked.offset)
            peer.answer_read(stream, LARGE, offset=asked.offset)

        def gone(peer: Peer) -> None:
            """Close."""

        seen = bytearray()

        def process(data: bytes, *_: object) -> bool:
            seen.extend(data)
            return True

        with self.server(cut_after(LARGE, 2 * MIB), *[gone] * len(chunks.BACKOFF), rest).client() as client:
            self.assertRaises(ConnectionError, client.download_file, "/a", self.here)
            self.assertEqual(self.names(), [".fileexport"])
            self.assertTrue(client.download_file("/a", self.here, process_chunk=process))
        self.assertEqual(offsets, [2 * MIB])
        self.assertEqual(bytes(seen), LARGE)
        self.assertEqual((self.here / "a").read_bytes(), LARGE)
        self.assertEqual(self.names(), ["a"])

    def test_changed_at_server(self) -> None:
        """A file that became another while the connection was cut is fetched from its beginning."""
        other = blake3(b"other").digest(length=2 * MIB)

        def new(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.answer_read(stream, other, version=b"v2")

        with self.server(cut_after(LARGE, 2 * MIB), new).client() as client:
            self.assertTrue(client.download_file("/a", self.here))
        self.assertEqual((self.here / "a").read_bytes(), other)

    def test_gives_up(self) -> None:
        """Cut after cut without progress is a `ConnectionError`, and nothing appears."""
        server = self.server(cut_after(SMALL, 0))
        with server.client() as client:
            self.assertRaises(ConnectionError, client.download_file, "/a", self.here)
        self.assertEqual(server.connections, 1 + len(chunks.BACKOFF))
        self.assertEqual(self.names(), [])


class LieTests(DownloadCase):
    """Servers that lie."""

    def lie(self, script: Script, error: type[Exception]) -> None:
        """The script makes a download raise `error`, and nothing is left."""
        with self.server(script).client() as client:
            self.assertRaises(error, client.download_file, "/a", self.here)
        self.assertEqual(self.names(), [])

    def test_wrong_hash(self) -> None:
        """A wrong hash is tried once more from the beginning; then it is `ChangedWhileRead`."""
        asked: list[int] = []

        def script(peer: Peer) -> None:
            while True:
                stream, read = peer.hear(m.Read)
                asked.append(read.offset)
                peer.say(m.Content(len(SMALL), 7, b"v1"), stream)
                peer.data(stream, SMALL)
                peer.say(m.End(len(SMALL), bytes(32)), stream)

        self.lie(script, ChangedWhileRead)
        self.assertEqual(asked, [0, 0])

    def test_too_much(self) -> None:
        """More content than was announced is refused."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(10, 7, b"v1"), stream)
            peer.data(stream, SMALL)

        self.lie(script, CorruptedResponse)

    def test_other_offset(self) -> None:
        """Content from an offset that nobody asked for is refused."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(len(SMALL), 7, b"v1", 5), stream)

        self.lie(script, CorruptedResponse)

    def test_huge(self) -> None:
        """A file larger than the disk is refused before it is written."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(2**62, 7, b"v1"), stream)
            peer.hear(m.Reset)

        self.lie(script, OSError)

    def test_compressed(self) -> None:
        """Compressed content that was not agreed upon is refused."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(10, 7, b"v1"), stream)
            peer.raw(header(FrameType.DATA, stream, 5, flags=COMPRESSED) + b"12345")

        self.lie(script, CorruptedResponse)


class PlaceTests(DownloadCase):
    """Sources and destinations that are not there, or taken."""

    def test_permissions(self) -> None:
        """Permissions are kept where that is wished; otherwise a file that is replaced leaves its own."""

        def script(peer: Peer) -> None:
            while True:
                stream, _ = peer.hear(m.Read)
                peer.say(m.Content(1, 7, b"v1", mode=0o751), stream)
                peer.data(stream, b"x")
                peer.say(m.End(1, blake3(b"x").digest()), stream)

        (self.here / "a").touch()
        os.chmod(self.here / "a", 0o640)
        with self.server(script).client() as client:
            for keep, wanted in ((False, 0o640), (True, 0o751)):
                self.assertTrue(client.download_file("/a", self.here, replace=True, keep_mode=keep))
                self.assertEqual(os.stat(self.here / "a").st_mode & 0o777, wanted)

    def test_no_source(self) -> None:
        """A source that is not there is `SourceNotFound` with its path."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Read)
            peer.say(m.Reset(1, "gone"), stream)

        with self.server(script).client() as client:
            error = self.assertRaises(SourceNotFound, client.download_file, "/d/a", self.here)
        self.assertEqual(error.filename, "/d/a")

    def test_no_destination(self) -> None:
        """A missing destination is `DestinationNotFound`, one that is a file `NotADirectoryError`."""
        with self.server(honest(SMALL)).client() as client:
            self.assertRaises(DestinationNotFound, client.download_file, "/a", self.here / "none")
            (self.here / "file").touch()
            self.assertRaises(NotADirectoryError, client.download_file, "/a", self.here / "file")

    def test_taken(self) -> None:
        """A name that is taken is `FileExistsError` and keeps what it has, without `replace`."""
        (self.here / "a").write_bytes(b"old")
        with self.server(honest(SMALL)).client() as client:
            self.assertRaises(FileExistsError, client.download_file, "/a", self.here)
            self.assertEqual((self.here / "a").read_bytes(), b"old")
            self.assertTrue(client.download_file("/a", self.here, replace=True))
        self.assertEqual((self.here / "a").read_bytes(), SMALL)

    def test_names(self) -> None:
        """A name that would lead elsewhere is refused, and so is our own directory."""
        from fileexport.errors import FileNameError

        with self.server(honest(SMALL)).client() as client:
            for name in ("../a", "..", "", "a/b", "/etc/passwd"):
                self.assertRaises(FileNameError, client.download_file, "/a", self.here, name)
            self.assertRaises(PermissionError, client.download_file, "/a", self.here, ".fileexport")

    def test_interrupted(self) -> None:
        """Ctrl-C while the progress is shown leaves what came for the next call."""

        def progress(done: int, size: int) -> None:
            raise KeyboardInterrupt

        with self.server(honest(LARGE)).client() as client:
            self.assertRaises(KeyboardInterrupt, client.download_file, "/a", self.here, progress=progress)
        self.assertEqual(self.names(), [".fileexport"])

    def test_progress(self) -> None:
        """`progress` is told the bytes done about once a MiB, and the end."""
        told: list[tuple[int, int]] = []
        with self.server(honest(LARGE)).client() as client:
            client.download_file("/a", self.here, progress=lambda done, size: told.append((done, size)))
        self.assertEqual(told[-1], (len(LARGE), len(LARGE)))
        self.assertTrue(3 <= len(told) <= 5)
