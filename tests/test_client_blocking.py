"""The verbs of the blocking client, and that it is usable after whatever happened."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Generator

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from fileexport.client import listings
from fileexport.client.blocking import Client
from fileexport.client.names import RemoteEntry, RemoteHash, RemoteJob
from fileexport.errors import (
    BusyError,
    ChangedWhileRead,
    CorruptedResponse,
    DestinationNotFound,
    FileNameError,
    UnexpectedError,
)
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.frames import FrameType, header
from tests.client_server import Peer, ServerCase, answering

ENTRIES = [
    m.Entry(RelPath(("a",)), "file", 5, 1_999_999_999),
    m.Entry(RelPath(("d",)), "directory", 0, -1),
    m.Entry(RelPath(("\udcff",)), "link", 3, 0),
]
JOB = m.JobRow(
    id="j", state="running", path=RelPath(("a",)), target=RelPath(("a.tgz",)), created=9, error="x\n"
)


class LookingTests(ServerCase):
    """What the server has."""

    def test_list_files(self) -> None:
        """A listing is name → (is a directory, bytes, whole seconds), in as many batches as it takes."""
        asked = [m.Entries(ENTRIES[:2]), m.Entries(ENTRIES[2:]), m.End()]
        with self.server(answering(*asked)).client() as client:
            found = client.list_files("/")
        self.assertEqual(found, {"a": (False, 5, 1), "d": (True, 0, -1), "\udcff": (False, 3, 0)})

    def test_entries(self) -> None:
        """Entries come one by one, recursive ones with their paths."""
        deep = m.Entry(RelPath(("d", "e")), "file", 1, 2)
        with self.server(answering(m.Entries([ENTRIES[1], deep]), m.End())).client() as client:
            found = list(client.entries("/", recursive=True))
            self.assertEqual(found[1], RemoteEntry("d/e", "file", 1, 2))
            self.assertRaises(CorruptedResponse, list, client.entries("/"))

    def test_while_iterating(self) -> None:
        """While a listing is read, and after it was given up, other calls are carried out."""
        with self.server(answering(m.Entries(ENTRIES), m.End())).client() as client:
            entries = client.entries("/")
            self.assertEqual(next(entries).path, "a")
            self.assertEqual(len(client.list_files("/")), 3)
            self.assertEqual(next(entries).path, "d")
            assert isinstance(entries, Generator)
            entries.close()
            self.assertEqual(len(client.list_files("/")), 3)

    def test_stat(self) -> None:
        """`stat` gives one entry under the path that was asked for."""
        one = m.Entry(RelPath(), "file", 5, 6)
        with self.server(answering(m.Entries([one]), m.End())).client() as client:
            self.assertEqual(client.stat("/d//a"), RemoteEntry("/d/a", "file", 5, 6))

    def test_read(self) -> None:
        """`read` gives the content, and raises at the end where the hash says otherwise."""
        content = bytes(200_000)

        def script(peer: Peer) -> None:
            peer.send_file(content)
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(3, 0, b""), stream)
            peer.data(stream, b"abc")
            peer.say(m.End(3, blake3(b"abd").digest()), stream)
            peer.next()

        with self.server(script).client() as client:
            self.assertEqual(b"".join(client.read("/a")), content)
            pieces = client.read("/a")
            self.assertEqual(next(pieces), b"abc")
            self.assertRaises(ChangedWhileRead, next, pieces)

    def test_hashes(self) -> None:
        """Hashes come with their paths and sizes."""
        rows = [m.FileHash(RelPath(), 3, bytes(32)), m.FileHash(RelPath(("a", "b")), 4, bytes(32))]
        with self.server(answering(m.Hashes(rows), m.End())).client() as client:
            found = list(client.hashes("/x"))
        self.assertEqual(found, [RemoteHash("", 3, bytes(32)), RemoteHash("a/b", 4, bytes(32))])

    def test_jobs(self) -> None:
        """Jobs come as rows with absolute paths and plain text."""
        with self.server(answering(m.Jobs([JOB]), m.End())).client() as client:
            job = RemoteJob("j", "running", "/a", "/a.tgz", 9, 0, None, "x?")
            self.assertEqual([client.compress("/a"), client.job("j"), client.cancel("j")], [job] * 3)
            self.assertEqual(client.jobs(), [job])
            self.assertRaises(ValueError, client.jobs, 0)
            self.assertRaises(ValueError, client.job, "j", 61)


class ChangingTests(ServerCase):
    """What the client asks for."""

    def test_operations(self) -> None:
        """Each verb is the operation of its name, with absolute paths as names."""
        asked: list[m.Message] = []

        def script(peer: Peer) -> None:
            while True:
                stream, operation = peer.hear(m.Open)
                asked.append(operation)
                if isinstance(operation, m.Remove):
                    peer.say(m.Removed(3), stream)
                peer.say(m.End(), stream)

        with self.server(script).client() as client:
            client.create_file("n", "/d")
            client.make_directory("n", "/d", exist_ok=True)
            client.rename("/a", "/b")
            client.move("/a", "/b", replace=True)
            client.delete_file("n", "/d")
            self.assertEqual(client.remove("/d/n"), 3)
        path = RelPath(("d", "n"))
        a, b = RelPath(("a",)), RelPath(("b",))
        self.assertEqual(
            asked,
            [
                m.MakeFile(path),
                m.MakeDirectory(path, True),
                m.Rename(a, b),
                m.Rename(a, b, True),
                m.Remove(path, True),
                m.Remove(path),
            ],
        )

    def test_make_directories(self) -> None:
        """Many directories are made with one connection, a child after its parent; each has its outcome."""
        begun: list[str] = []

        def script(peer: Peer) -> None:
            while True:
                stream, operation = peer.hear(m.MakeDirectory)
                begun.append(str(operation.path))
                peer.say(m.Reset(1) if operation.path.name == "no" else m.End(), stream)

        server = self.server(script)
        with server.client() as client:
            found = client.make_directories(["/a", "/a/b", "/no", "/no/c"] + [f"/{i}" for i in range(100)])
        self.assertEqual(
            [type(one) for one in found[:4]], [type(None), type(None), DestinationNotFound, type(None)]
        )
        self.assertEqual(found[4:], [None] * 100)
        self.assertEqual((server.connections, len(begun)), (1, 104))

    def test_wrong_arguments(self) -> None:
        """Relative paths, and names and time-outs that are none, are refused without a connection."""
        server = self.server(answering(m.End()))
        with server.client() as client:
            self.assertRaises(ValueError, client.list_files, "d")
            self.assertRaises(ValueError, client.list_files, "")
            self.assertRaises(ValueError, client.list_files, b"/d")
            self.assertRaises(FileNameError, client.list_files, "/d/../e")
            self.assertRaises(FileNameError, client.create_file, "..", "/")
            self.assertRaises(FileNameError, client.create_file, "a/b", "/")
            for timeout in (0, -1, float("nan"), float("inf"), 2**31):
                self.assertRaises(ValueError, client.list_files, "/", timeout)
        self.assertEqual(server.connections, 0)
        for port in (0, -1, 65536):
            self.assertRaises(ValueError, Client, "127.0.0.1", port)

    def test_move_errors(self) -> None:
        """What is in the way of a move is named: the directory that is missing, or the name that is taken."""
        for code, kind, named in (
            (1, FileNotFoundError, "/a"),
            (3, DestinationNotFound, "/d"),
            (4, FileExistsError, "/d/b"),
        ):
            with self.server(answering(m.Reset(code))).client() as client:
                error = self.assertRaises(kind, client.rename, "/a", "/d/b")
            self.assertEqual(getattr(error, "filename", None), named)

    def test_make_directories_while_stopping(self) -> None:
        """What a stopping server does not begin is asked of another connection."""
        made: list[str] = []

        def stopping(peer: Peer) -> None:
            stream, asked = peer.hear(m.MakeDirectory)
            made.append(str(asked.path))
            peer.session.leave()
            peer.say(m.End(), stream)
            peer.next()

        def going_on(peer: Peer) -> None:
            while True:
                stream, asked = peer.hear(m.MakeDirectory)
                made.append(str(asked.path))
                peer.say(m.End(), stream)

        with self.server(stopping, going_on).client() as client:
            self.assertEqual(client.make_directories(["/a", "/a/b"]), [None, None])
        self.assertEqual(made, ["/a", "/a/b"])


class AfterwardsTests(ServerCase):
    """After each error the same client carries out the next call."""

    def test_refusals(self) -> None:
        """What the server refuses is an exception of the table; the connection stays."""
        resets = [(1, FileNotFoundError), (5, NotADirectoryError), (7, PermissionError), (11, BusyError)]
        resets += [(14, TimeoutError), (16, ValueError), (17, UnexpectedError), (999, UnexpectedError)]

        def script(peer: Peer) -> None:
            for code, _ in resets:
                stream, _ = peer.hear(m.List)
                peer.say(m.Reset(code, "why\x07"), stream)
            answering(m.End())(peer)

        server = self.server(script)
        with server.client() as client:
            for _, kind in resets:
                error = self.assertRaises(kind, client.list_files, "/d")
                self.assertIn("why?", str(error))
            self.assertEqual(client.list_files("/"), {})
        self.assertEqual(server.connections, 1)

    def test_broken_protocol(self) -> None:
        """A server that breaks the protocol is left; the next call has a new connection."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.List)
            peer.say(m.Entries([]), stream)
            peer.next()

        def raw(peer: Peer) -> None:
            peer.hear(m.List)
            peer.raw(b"\x00" * 12)
            peer.next()

        server = self.server(script, raw, answering(m.End()))
        with server.client() as client:
            self.assertRaises(CorruptedResponse, client.list_files, "/")
            self.assertRaises(CorruptedResponse, client.list_files, "/")
            self.assertEqual(client.list_files("/"), {})

    def test_no_answer(self) -> None:
        """No answer in time is a `TimeoutError` that names the path, pings or not; the next call is made."""

        def silent(peer: Peer) -> None:
            peer.hear(m.List)
            while True:
                peer.raw(header(FrameType.PING, 0, 1) + b"\x80")
                peer.session.take()

        server = self.server(silent, answering(m.End()))
        with server.client() as client:
            error = self.assertRaises(TimeoutError, client.list_files, "/d", 50)
            self.assertEqual(str(error), f"[Errno {errno.ETIMEDOUT}] no answer within 0.05 s: '/d'")
            self.assertEqual(client.list_files("/"), {})

    def test_endless_listing(self) -> None:
        """A listing that never ends is cut off."""
        self.patch(listings, "MAX_ENTRIES", 100)

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.List)
            while True:
                peer.say(m.Entries(ENTRIES), stream)

        with self.server(script).client() as client:
            self.assertRaises(CorruptedResponse, client.list_files, "/")

    def test_large_listing(self) -> None:
        """Of a listing that is kept, the names are bounded; not of one that is read as it comes."""
        self.patch(listings, "MAX_KEPT", 2)
        with self.server(answering(m.Entries(ENTRIES), m.End())).client() as client:
            self.assertRaises(CorruptedResponse, client.list_files, "/")
            self.assertEqual(len(list(client.entries("/"))), 3)

    def test_wrong_number_of_answers(self) -> None:
        """Where one entry or one job is asked for, none or two break the protocol."""
        with self.server(answering(m.Entries(ENTRIES), m.End())).client() as client:
            self.assertRaises(CorruptedResponse, client.stat, "/")
        with self.server(answering(m.Jobs([]), m.End())).client() as client:
            self.assertRaises(CorruptedResponse, client.job, "j")
        with self.server(answering(m.Jobs([JOB, JOB]), m.End())).client() as client:
            self.assertRaises(CorruptedResponse, client.jobs, 1)


class ConnectionTests(ServerCase):
    """Connections that go, and when something is asked again."""

    def test_idle_connection_died(self) -> None:
        """An idle connection that was closed is replaced, also before a change."""
        gone = threading.Event()

        def once(peer: Peer) -> None:
            stream, _ = peer.hear(m.List)
            peer.say(m.End(), stream)
            peer.socket.close()
            gone.set()

        server = self.server(once, answering(m.End()))
        with server.client() as client:
            client.list_files("/")
            gone.wait()
            client.create_file("a", "/")
        self.assertEqual(server.connections, 2)

    def test_not_begun(self) -> None:
        """What a stopping server did not begin is asked of another connection, changes too."""

        def stopping(peer: Peer) -> None:
            stream, _ = peer.hear(m.MakeFile)
            peer.flush()
            peer.raw(m.encode(m.GoAway(stream - 1)))
            peer.next()

        server = self.server(stopping, answering(m.End()))
        with server.client() as client:
            client.create_file("a", "/")
        self.assertEqual(server.connections, 2)

    def test_maybe_carried_out(self) -> None:
        """A change whose answer was lost is a `ConnectionError`, and not asked again."""

        def lost(peer: Peer) -> None:
            peer.hear(m.Open)

        server = self.server(lost)
        with server.client() as client:
            self.assertRaises(ConnectionError, client.create_file, "a", "/")
        self.assertEqual(server.connections, 1)

    def test_reading_is_asked_again(self) -> None:
        """Where a connection that had been idle breaks, what changes nothing is asked again."""

        def second_lost(peer: Peer) -> None:
            stream, _ = peer.hear(m.List)
            peer.say(m.End(), stream)
            peer.hear(m.List)

        server = self.server(second_lost, answering(m.End()))
        with server.client() as client:
            client.list_files("/")
            self.assertEqual(client.list_files("/"), {})
        self.assertEqual(server.connections, 2)

    def test_refused_connection(self) -> None:
        """Where nobody listens it is `ConnectionRefusedError`."""
        server = self.server(answering(m.End()))
        server.close()
        with server.client() as client:
            self.assertRaises(ConnectionRefusedError, client.list_files, "/")

    def test_close(self) -> None:
        """After `close` a call connects again."""
        server = self.server(answering(m.End()))
        client = server.client()
        client.list_files("/")
        client.close()
        self.assertEqual(client.list_files("/"), {})
        client.close()
        self.assertEqual(server.connections, 2)

    def test_threads(self) -> None:
        """Several threads may use a client."""
        found: list[int] = []
        with self.server(answering(m.Entries(ENTRIES), m.End())).client() as client:

            def work() -> None:
                for _ in range(20):
                    found.append(len(client.list_files("/")))

            threads = [threading.Thread(target=work) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(found, [3] * 120)

    def test_fork(self) -> None:
        """A child process has connections of its own; those of the parent go on."""
        server = self.server(answering(m.Entries(ENTRIES), m.End()))
        with server.client() as client:
            client.list_files("/")
            child = os.fork()
            if not child:
                try:
                    os._exit(0 if len(client.list_files("/")) == 3 else 1)
                finally:
                    os._exit(2)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            self.assertEqual(len(client.list_files("/")), 3)
        self.assertEqual(server.connections, 2)


class ImportTests(SynchronousTestCase):
    """What a program pays."""

    def test_lazy(self) -> None:
        """`Client` brings neither Twisted nor TLS, hashes, compression or cryptography with it."""
        code = "import sys, fileexport; fileexport.Client('localhost'); print(*sys.modules)"
        output = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
        names = {name.partition(".")[0] for name in output.split()}
        self.assertIn("fileexport", names)
        self.assertEqual(
            names & {"twisted", "ssl", "_ssl", "blake3", "backports", "cryptography", "asyncio"}, set()
        )

    def test_names(self) -> None:
        """Everything in `__all__` is there, and nothing else is made up."""
        import fileexport

        for name in fileexport.__all__:
            self.assertTrue(getattr(fileexport, name))
            self.assertIn(name, dir(fileexport))
        self.assertRaises(AttributeError, getattr, fileexport, "nonsense")
