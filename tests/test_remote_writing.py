"""Remote files that are written: nothing is seen before they are closed, and what was discarded never is."""

from __future__ import annotations

import contextlib
import copy
import errno
import gc
import io
import os
import pickle
import resource
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from fileexport.client.blocking import Client
from fileexport.client.remote.files import writer
from fileexport.client.remote.writing import BufferedRemoteWriter, RemoteWriter, TextRemoteWriter
from fileexport.errors import BusyError, DestinationNotFound, OverloadedError
from fileexport.server import Server
from fileexport.testing import serving
from fileexport.wire import messages as m
from tests.client_server import Peer, ServerCase

MIB = 1 << 20
TOKEN, WRITER = "fex1_writing-" + "x1Y2z3W4" * 5, "fex1_onlywrites-" + "x1Y2z3W4" * 5
OLD = b"old content"
#: The same file with no buffer, with one, and as text.
KINDS: dict[str, tuple[str, int]] = {"raw": ("wb", 0), "buffer": ("wb", -1), "text": ("w", -1)}


def temporary_files() -> list[str]:
    """Files without a name that this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [path for path in found if path.startswith(tempfile.gettempdir()) and path.endswith(" (deleted)")]


class WritingCase(SynchronousTestCase):
    """A real server with an old file, and a client."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        self.old = self.root / "a"
        self.old.write_bytes(OLD)
        server = self.enterContext(serving(self.root, tokens=f"{WRITER} may=write\n"))
        self.port = server.port
        self.client = self.enterContext(server.client())

    def files(self) -> Iterator[tuple[IO[Any], Callable[[str], Any]]]:
        """The old file open to be written, in each way, and what makes content for it of text."""
        for kind, (mode, buffering) in KINDS.items():
            self.assertEqual(self.old.read_bytes(), OLD, kind)
            yield self.client.open("/a", mode, buffering=buffering), str if kind == "text" else str.encode

    def nothing_new(self) -> None:
        """The server has what it had."""
        self.assertEqual(self.old.read_bytes(), OLD)
        self.assertEqual([path.name for path in self.root.iterdir() if path.name != ".fileexport"], ["a"])


class CommitTests(WritingCase):
    """`close` commits."""

    def test_close(self) -> None:
        """Until it is closed the old file stays, whatever was flushed; then the new one is there, whole."""
        for file, content in self.files():
            file.write(content("new "))
            file.flush()
            file.write(content("content"))
            self.assertEqual(self.old.read_bytes(), OLD)
            file.close()
            self.assertEqual(self.old.read_bytes(), b"new content")
            file.close()
            self.assertRaises(ValueError, file.write, content("x"))
            self.old.write_bytes(OLD)

    def test_block(self) -> None:
        """The end of a `with` block closes, and a new file is made."""
        with self.client.open("/new", "xb") as file:
            self.assertEqual((file.name, file.mode), ("/new", "xb"))
        self.assertEqual((self.root / "new").read_bytes(), b"")

    def test_large(self) -> None:
        """Large files too, with the time of when they were written."""
        content = blake3(b"writing").digest(length=5 * MIB + 3)
        with self.client.open("/a", "wb") as file:
            for at in range(0, len(content), 100_000):
                file.write(content[at : at + 100_000])
        self.assertEqual(self.old.read_bytes(), content)
        self.assertLess(abs(time.time() - self.old.stat().st_mtime), 100)

    def test_mode(self) -> None:
        """What is replaced keeps its permissions; those of the file here are nobody's business."""
        self.old.chmod(0o604)
        self.client.open("/a", "w").close()
        self.assertEqual(self.old.stat().st_mode & 0o777, 0o604)
        self.client.open("/new", "w").close()
        (self.root / "local").touch()
        self.assertEqual((self.root / "new").stat().st_mode, (self.root / "local").stat().st_mode)

    def test_position(self) -> None:
        """The position moves as in any file that is written."""
        with self.client.open("/a", "wb") as file:
            file.write(b"0123456789")
            self.assertEqual((file.seek(2), file.write(b"ab"), file.tell()), (2, 2, 4))
            self.assertEqual((file.truncate(8), file.seek(2, os.SEEK_END)), (8, 10))
            file.write(b"z")
            self.assertTrue(file.seekable() and file.writable() and not file.readable())
            self.assertRaises(io.UnsupportedOperation, file.read)
            self.assertRaises(io.UnsupportedOperation, file.fileno)
        self.assertEqual(self.old.read_bytes(), b"01ab4567\0\0z")

    def test_raw(self) -> None:
        """One without a buffer has nothing to be read, and its descriptor is its own."""
        file = self.client.open("/a", "wb", buffering=0)
        self.assertIsInstance(file, RemoteWriter)
        self.assertRaises(io.UnsupportedOperation, file.read, 1)
        self.assertRaises(io.UnsupportedOperation, file.fileno)
        file.close()

    def test_later(self) -> None:
        """One that does not commit when it is closed waits for `commit` or `discard`, which count once."""
        for commits in (False, True):
            file = writer(self.client, "/a", commits=False)
            file.write(b"new")
            file.close()
            self.nothing_new()
            if commits:
                file.commit()
                self.assertEqual(self.old.read_bytes(), b"new")
                self.old.write_bytes(OLD)
            file.discard()
            file.commit()
            self.nothing_new()


class DiscardTests(WritingCase):
    """What is not committed."""

    def test_exception(self) -> None:
        """A `with` block that is left by an exception leaves the old content, and nothing else."""
        for error in (ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit):
            for file, content in self.files():
                with contextlib.suppress(error), file:
                    file.write(content("x" * 300_000))
                    raise error
                self.assertTrue(file.closed)
                self.nothing_new()

    def test_discard(self) -> None:
        """So does `discard`; a second time it does nothing, nor after a commit."""
        for file, content in self.files():
            assert isinstance(file, RemoteWriter | BufferedRemoteWriter | TextRemoteWriter)
            file.write(content("x" * 300_000))
            file.discard()
            file.discard()
            file.close()
            self.assertRaises(ValueError, file.write, content("x"))
            self.nothing_new()
        with self.client.open("/a", "w") as file:
            file.write("new")
        assert isinstance(file, TextRemoteWriter)
        file.discard()
        self.assertEqual(self.old.read_bytes(), b"new")

    def test_forgotten(self) -> None:
        """So does who forgets to close; there is a warning, and nothing is left here either."""
        for in_a_cycle in (False, True):
            for file, content in self.files():
                file.write(content("x" * 300_000))
                kept: list[Any] = [file]
                if in_a_cycle:
                    kept.append(kept)
                with warnings.catch_warnings(record=True) as found:
                    warnings.simplefilter("always")
                    del file, kept
                    gc.collect()
                self.assertEqual([one.category for one in found], [ResourceWarning])
                self.assertIn("/a was not closed", str(found[0].message))
                self.nothing_new()
        writer(self.client, "/a", commits=False).close()
        gc.collect()
        self.assertEqual(temporary_files(), [])

    def test_forgotten_with_errors(self) -> None:
        """Nothing is left here where warnings are exceptions, and whoever is called then is called."""
        self.patch(sys, "unraisablehook", lambda _: None)
        left: list[int] = []
        for kind in (lambda raw: raw, BufferedRemoteWriter):
            file = kind(writer(self.client, "/a", leave=lambda: left.append(1)))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                del file
                gc.collect()
        self.assertEqual((left, temporary_files()), ([1, 1], []))
        self.nothing_new()

    def test_sealed(self) -> None:
        """What is small and waits for its commit takes no descriptor; of both sizes all is committed."""
        for size in (0, 1, 64 << 10, (64 << 10) + 1):
            file = writer(self.client, "/a", commits=False)
            content = os.urandom(size)
            while content[file.tell() :]:
                file.write(content[file.tell() :])
            file.close()
            self.assertEqual(len(temporary_files()), size > 64 << 10)
            self.assertRaises(ValueError, file.write, b"x")
            file.commit()
            self.assertEqual((self.old.read_bytes(), temporary_files()), (content, []))
            file.commit()
        for end in ("discard", "close"):
            file = writer(self.client, "/a", commits=False)
            file.close()
            getattr(file, end)()
        del file
        self.assertEqual(self.old.read_bytes(), content)

    def test_detached(self) -> None:
        """What a buffer was taken from is no longer its owner: the file is committed by who has it."""
        for mode in ("w", "wb"):
            file = self.client.open("/a", mode)
            file.write("x" if mode == "w" else b"x")
            inner = file.detach()  # type: ignore[attr-defined]  # what a mode in a variable opens is not known
            del file
            gc.collect()
            inner.close()
            self.assertEqual(self.old.read_bytes(), b"x")
            self.old.write_bytes(OLD)

    def test_encoding(self) -> None:
        """What cannot be encoded is an exception like any other."""
        with contextlib.suppress(UnicodeEncodeError), self.client.open("/a", "w", encoding="ascii") as file:
            file.write("abc")
            file.write("ä")
        self.nothing_new()

    def test_no_room(self) -> None:
        """After a write that failed here nothing is committed, also where its error was not heeded."""
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limit)
        for file, content in self.files():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
            error = self.assertRaises(OSError, self.fill, file, content)
            self.assertEqual((error.errno, error.filename), (errno.EFBIG, tempfile.gettempdir()))
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            error = self.assertRaises(OSError, file.close)
            self.assertEqual((error.errno, error.filename), (errno.EIO, "/a"))
            self.assertTrue(file.closed)
            self.nothing_new()

    def fill(self, file: IO[Any], content: Callable[[str], Any]) -> None:
        """More than there is room for."""
        for _ in range(9):
            file.write(content("x" * 70_000))
        file.flush()

    def test_no_bytes(self) -> None:
        """What cannot be written at all is refused, and the rest is committed."""
        for file, content in self.files():
            file.write(content("new"))
            self.assertRaises(TypeError, file.write, 5)
            self.assertRaises(TypeError, file.write, b"x" if content is str else "x")
            file.close()
            self.assertEqual(self.old.read_bytes(), b"new")
            self.old.write_bytes(OLD)
        file = self.client.open("/a", "wb", buffering=0)
        self.assertRaises((TypeError, BufferError), file.write, memoryview(b"123456")[::2])
        file.close()
        self.assertEqual(self.old.read_bytes(), b"")

    def test_copies(self) -> None:
        """There is one of each: a copy would have the same descriptor."""
        for file, content in self.files():
            for copied in (copy.copy, copy.deepcopy, pickle.dumps):
                self.assertRaises(TypeError, copied, file)
            file.write(content("x"))
            file.discard()  # type: ignore[attr-defined]  # as of `detach` above
            self.nothing_new()


class ThreadTests(WritingCase):
    """Threads that write while another one ends it."""

    def test_foreign_descriptor(self) -> None:
        """Nothing of what they write reaches a file that was opened since, and they get a ValueError."""
        found: list[type[BaseException]] = []
        switch = sys.getswitchinterval()
        self.addCleanup(sys.setswitchinterval, switch)
        sys.setswitchinterval(1e-5)

        def write(file: IO[bytes], has_begun: threading.Event) -> None:
            try:
                while True:
                    file.write(b"y" * 100)
                    has_begun.set()
            except BaseException as error:
                found.append(type(error))

        for attempt in range(40):
            file = self.client.open("/a", "wb", buffering=0)
            assert isinstance(file, RemoteWriter)
            events = [threading.Event() for _ in range(3)]
            threads = [threading.Thread(target=write, args=(file, event)) for event in events]
            for thread in threads:
                thread.start()
            for event in events:
                event.wait()
            (file.close if attempt % 4 else file.discard)()
            with contextlib.ExitStack() as exits:
                others = [exits.enter_context(tempfile.TemporaryFile(buffering=0)) for _ in range(3)]
                for thread in threads:
                    thread.join()
                self.assertEqual([os.fstat(other.fileno()).st_size for other in others], [0] * 3)
        self.assertEqual(set(found), {ValueError})


class RefusalTests(WritingCase):
    """What cannot be written."""

    def test_open(self) -> None:
        """What is known when it is opened is said then, with the path."""
        (self.root / "d").mkdir()
        (self.root / "link").symlink_to("nowhere")
        for path, mode, kind in (
            ("/a", "x", FileExistsError),
            ("/d", "x", FileExistsError),
            ("/link", "x", FileExistsError),
            ("/d", "w", IsADirectoryError),
            ("/", "w", IsADirectoryError),
            ("/none/x", "w", FileNotFoundError),
            ("/none/x", "x", FileNotFoundError),
            ("/a/x", "w", NotADirectoryError),
        ):
            error = self.assertRaises(kind, self.client.open, path, mode)
            self.assertEqual((type(error), error.filename), (kind, path), (path, mode))

    def test_close(self) -> None:
        """What comes to be known later is said by `close`; it is closed then, and the client goes on."""
        file = self.client.open("/new", "x")
        (self.root / "new").write_bytes(OLD)
        error = self.assertRaises(FileExistsError, file.close)
        self.assertEqual((error.filename, file.closed), ("/new", True))
        self.assertEqual((self.root / "new").read_bytes(), OLD)
        file.close()

        (self.root / "d").mkdir()
        file = self.client.open("/d/x", "w")
        (self.root / "d").rmdir()
        self.assertRaises(DestinationNotFound, file.close)
        self.assertTrue(self.client.stat("/new"))

    def test_busy(self) -> None:
        """Where somebody else writes the file, that is said, and theirs comes; ours may be closed again."""
        source = Path(self.mktemp()).absolute()
        # So large that the server answers before it gets content.
        source.write_bytes(bytes(MIB))
        for file, content in self.files():
            file.write(content("ours"))

            def meanwhile(*_: object, file: IO[Any] = file) -> None:
                self.assertRaises(BusyError, file.close)
                self.assertFalse(file.closed)

            self.client.upload_file(source, "/", "a", MIB, meanwhile, replace=True)
            self.assertEqual(self.old.read_bytes(), bytes(MIB))
            file.write(content(" too"))
            file.close()
            self.assertEqual((file.closed, self.old.read_bytes()), (True, b"ours too"))
            self.old.write_bytes(OLD)

    def test_only_write(self) -> None:
        """Who may write and not look is told in the end."""
        with Client("127.0.0.1", self.port, WRITER) as client:
            with client.open("/a", "w") as file:
                file.write("new")
            self.assertEqual(self.old.read_bytes(), b"new")
            self.assertRaises(FileExistsError, client.open("/a", "x").close)


class CutTests(ServerCase):
    """Connections that break while it is committed."""

    def test_again(self) -> None:
        """Where the server cannot take it now, the file stays open, and can be closed later."""
        for kind, (mode, buffering) in KINDS.items():
            kept = bytearray()
            late = [True]

            def script(peer: Peer, kept: bytearray = kept, late: list[bool] = late) -> None:
                while True:
                    stream, asked = peer.hear(m.Open)
                    if isinstance(asked, m.Stat):
                        peer.say(m.Reset(7), stream)
                        continue
                    content, end = peer.content(stream)
                    if late:
                        peer.say(m.Reset(12), stream)
                        continue
                    kept += content
                    peer.say(end, stream)

            with self.server(script).client() as client:
                file = client.open("/a", mode, buffering=buffering)
                file.write("new" if kind == "text" else b"new")
                for _ in range(2):
                    with self.assertRaises(OverloadedError), file:
                        pass
                    self.assertFalse(file.closed)
                late.clear()
                file.write("er" if kind == "text" else b"er")
                file.close()
                self.assertEqual((bytes(kept), file.closed), (b"newer", True), kind)

    def test_gone(self) -> None:
        """So where it cannot be reached, and at once; its content is there when it is back."""
        root = Path(self.mktemp()).absolute()
        root.mkdir()
        with serving(root, token=TOKEN) as server:
            port, client = server.port, self.enterContext(server.client())
            file = client.open("/a", "w")
            file.write("new")
        for _ in range(2):
            self.assertRaises(ConnectionRefusedError, file.close)
            self.assertFalse(file.closed)
        again = Server(root, TOKEN)
        with again.running(port, "127.0.0.1"):
            file.close()
        self.assertEqual((root / "a").read_text(), "new")

    def test_cut(self) -> None:
        """It is sent again, and goes on where the server is."""
        content = blake3(b"cut").digest(length=3 * MIB)
        kept = bytearray()
        offsets: list[int] = []

        def script(peer: Peer) -> None:
            while True:
                stream, asked = peer.hear(m.Open)
                if isinstance(asked, m.Stat):
                    peer.say(m.Reset(7), stream)
                    continue
                assert isinstance(asked, m.Write) and asked.size == len(content) and asked.replace
                offsets.append(len(kept))
                peer.say(m.Ready(len(kept)), stream)
                if not kept:
                    while len(kept) < MIB:
                        kept.extend(getattr(peer.next(), "piece", b""))
                    return
                rest, end = peer.content(stream)
                kept.extend(rest)
                peer.say(end, stream)
                peer.next()

        with self.server(script).client() as client:
            file = writer(client, "/a")
            file.write(content)
            file.close()
        self.assertEqual((bytes(kept), len(offsets)), (content, 2))
