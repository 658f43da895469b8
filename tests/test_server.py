"""The embedded server as a program sees it: its parameters, its runs, and how they end."""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Callable
from pathlib import Path

from twisted.logger import LogEvent, formatEvent

import fileexport
from fileexport import Client, Server, generate_keys
from fileexport.client import chunks
from fileexport.config import Settings
from tests.server_case import KEY, PIN, TOKEN, ServerCase


class ParameterTests(ServerCase):
    """What a server is made of."""

    def test_names(self) -> None:
        """It is one of the package's names."""
        self.assertIn("Server", fileexport.__all__)

    def test_token(self) -> None:
        """A token that cannot be one is a ValueError, which does not show it."""
        for token in ("", "short", "with a space in it", "x" * 257, "tökentöken"):
            error = self.assertRaises(ValueError, Server, self.root, token)
            if token:
                self.assertNotIn(token, str(error))

    def test_private_key(self) -> None:
        """A private key is PEM text of a key and its certificate, and a ValueError otherwise."""
        key = KEY.partition("-----BEGIN CERTIFICATE")[0]
        for text in ("", "nonsense", key, PIN, generate_keys()[1].replace(key, "")[:400]):
            error = self.assertRaises(ValueError, Server, self.root, TOKEN, text)
            self.assertNotIn("MI", str(error))

    def test_limits(self) -> None:
        """Sizes that cannot be are ValueErrors, in the constructor and when they are set."""
        server = self.server()
        for limit in (0, -1, 1 << 63, 1.5, None):
            self.assertRaises(ValueError, self.server, file_size_limit=limit)
            self.assertRaises(ValueError, setattr, server, "file_size_limit", limit)
        for sizes in ((511, 1024), (512, (1 << 20) + 1), (2048, 1024), (0, 0), (512,)):
            self.assertRaises(ValueError, self.server, chunk_size_range=sizes)
            self.assertRaises(ValueError, setattr, server, "chunk_size_range", sizes)
        self.assertEqual((server.file_size_limit, server.chunk_size_range), (1 << 40, (512, 1 << 20)))

    def test_settings(self) -> None:
        """Options that have a parameter, or are the application's business, are not taken from settings."""
        for given in ({"root": "/"}, {"port": 1}, {"log_file": "x"}, {"private_key": "x"}, {"state": "x"}):
            error = self.assertRaises(ValueError, self.server, settings=Settings(**given))
            self.assertIn(next(iter(given)), str(error))

    def test_properties(self) -> None:
        """Properties say what was given, and can be set while the server does not run, and only then."""
        server = self.server(file_size_limit=5, chunk_size_range=(600, 700))
        other = self.base / "other"
        other.mkdir()
        self.assertEqual(server.root_directory, str(self.root))
        self.assertEqual((server.file_size_limit, server.chunk_size_range), (5, (600, 700)))
        for when in (self.set_all, self.cannot_set, self.set_all):
            if when == self.cannot_set:
                server.start(0)
            when(server, other)
            self.end(server)
        self.assertEqual(server.root_directory, str(other))
        self.assertEqual((server.file_size_limit, server.chunk_size_range), (9, (800, 900)))

    def set_all(self, server: Server, root: Path) -> None:
        server.root_directory = root
        server.file_size_limit = 9
        server.chunk_size_range = (800, 900)

    def cannot_set(self, server: Server, root: Path) -> None:
        for name, value in (
            ("root_directory", root),
            ("file_size_limit", 1),
            ("chunk_size_range", (512, 512)),
        ):
            self.refused(setattr, server, name, value)

    def test_properties_count(self) -> None:
        """What was set counts for the next run."""
        server = self.server()
        source = self.base / "source"
        source.write_bytes(b"x" * 100)
        with server.running(0):
            self.client(server).upload_file(source, "/", "first")
        server.file_size_limit = 99
        with server.running(0):
            self.assertRaises(ValueError, self.client(server).upload_file, source, "/", "second")
        server.root_directory = self.base
        with server.running(0):
            self.assertIn("root", self.client(server).list_files("/"))
        self.assertEqual(sorted(os.listdir(self.root)), ["first", "hello.txt"])


class RunTests(ServerCase):
    """Runs: their beginning and their end."""

    def test_run(self) -> None:
        """A run blocks its thread until it is terminated, from another one; then there may be the next."""
        server = self.server()
        for _ in range(3):
            runner = threading.Thread(target=server.run, args=(0,))
            runner.start()
            self.wait_for(lambda: server.addresses, runner)
            self.assertIn("hello.txt", self.client(server).list_files("/"))
            self.assertTrue(server.is_running and runner.is_alive())
            server.terminate()
            runner.join()
            self.assertFalse(server.is_running)

    def test_not_running(self) -> None:
        """What does not run cannot be terminated, has no address, and nobody waits for it."""
        server = self.server()
        for _ in range(2):
            self.assertFalse(server.is_running)
            self.refused(server.terminate)
            self.assertEqual(server.addresses, ())
            self.refused(getattr, server, "port")
            server.join()
            with server.running(0):
                self.assertTrue(server.is_running)

    def test_running_already(self) -> None:
        """A server that runs cannot be run again; its run goes on."""
        server = self.server()
        server.start(0)
        self.refused(server.run, 0)
        self.refused(server.start, 0)
        self.assertRaises(ValueError, server.run, 65536)
        self.assertIn("hello.txt", self.client(server).list_files("/"))

    def test_nothing_left(self) -> None:
        """Of ten runs with work in them no thread, no descriptor and no temporary file is left."""
        for private_key, pin in ((None, None), (KEY, PIN)):
            for with_http in (False, True):
                server = self.server(private_key, http=with_http)

                def run(server: Server = server, pin: str | None = pin) -> None:
                    with server.running(0), Client("127.0.0.1", server.port, TOKEN, public_key=pin) as client:
                        self.assertIn("hello.txt", client.list_files("/"))

                self.unchanged(run)
        self.assertEqual(os.listdir(self.temporary), [])

    def test_terminated_early(self) -> None:
        """Who terminates a run that has only just begun ends it, whether it listened or not."""
        server = self.server()

        def run() -> None:
            runner = threading.Thread(target=server.run, args=(0,))
            runner.start()
            self.wait_for(lambda: server.is_running, runner)
            server.terminate()
            runner.join()
            self.assertFalse(server.is_running)

        self.unchanged(run)

    def test_terminated_in_its_thread(self) -> None:
        """A callback of its own may terminate it: what the log is told is told in its thread."""
        server = self.server()

        def end(event: LogEvent) -> None:
            if "exporting" in formatEvent(event):
                server.terminate()
                self.refused_to_wait = isinstance(self.assertRaises(RuntimeError, server.join), RuntimeError)

        self.watch(end)
        server.run(0)
        self.assertTrue(self.refused_to_wait)

    def test_terminated_twice(self) -> None:
        """Until it has ended, a run may be terminated again."""
        server = self.server()
        server.start(0)
        held, enough = threading.Event(), threading.Event()

        def hold(event: LogEvent) -> None:
            if formatEvent(event) == "stopping":
                held.set()
                enough.wait()

        self.watch(hold)
        server.terminate()
        held.wait()
        server.terminate()
        self.assertTrue(server.is_running)
        self.refused(server.start, 0)
        enough.set()
        server.join()
        self.refused(server.terminate)

    def test_interrupts(self) -> None:
        """A run that is terminated breaks off what is in flight, and does not wait for it."""
        with (self.root / "large").open("wb") as file:
            file.truncate(1 << 40)
        server = self.server(http=True)
        server.start(0)
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        self.addCleanup(connection.close)
        connection.request("GET", "/-/files/large", headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        self.assertEqual(answer.read(10), bytes(10))
        server.terminate()
        server.join()
        self.assertRaises((OSError, http.client.IncompleteRead), self.read_all, answer)

    def read_all(self, answer: http.client.HTTPResponse) -> None:
        while answer.readinto(bytearray(1 << 20)):
            pass
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)

    def test_upload_interrupted(self) -> None:
        """A file that was being uploaded is not there afterwards."""
        source = self.base / "source"
        source.write_bytes(b"x" * (4 << 20))
        server = self.server()
        server.start(0)

        def process(data: bytes, remaining: int, size: int, name: str) -> bool:
            if server.is_running:  # it is called again by each attempt
                server.terminate()
                server.join()
            return True

        self.patch(chunks, "BACKOFF", ())  # a client goes on trying for half a minute
        upload = self.client(server).upload_file
        self.assertRaises(ConnectionError, upload, source, "/", "new", 1 << 16, process)
        self.assertNotIn("new", os.listdir(self.root))

    def test_interrupted(self) -> None:
        """An exception in the thread that runs it, as by Ctrl-C, stops it and propagates."""
        server = self.server()
        with self.interrupting() as interrupt:
            interrupter = threading.Thread(target=self.when_it_listens, args=(server, interrupt))
            interrupter.start()
            server.run(0)
        interrupter.join()
        self.assertFalse(server.is_running)

    def test_raising_handler(self) -> None:
        """So does what a signal's handler raises, whatever it is, though a start raises such errors too."""
        for kind in (ValueError, RuntimeError):
            server = self.server()
            with self.interrupting(kind) as interrupt:
                interrupter = threading.Thread(target=self.when_it_listens, args=(server, interrupt))
                interrupter.start()
                server.run(0)
            interrupter.join()
            self.assertFalse(server.is_running)

    def when_it_listens(self, server: Server, act: Callable[[], None]) -> None:
        self.wait_for(lambda: server.addresses, threading.main_thread())
        act()

    def test_block(self) -> None:
        """A block's server ends with the block, by an exception too."""
        server = self.server()
        for error in (None, ZeroDivisionError):
            try:
                with server.running(0) as same:
                    self.assertIs(same, server)
                    self.assertTrue(server.is_running)
                    if error:
                        raise error
            except ZeroDivisionError:
                self.assertIs(error, ZeroDivisionError)
            self.assertFalse(server.is_running)
        with server.running(0):
            server.terminate()

    def test_client_stops_it(self) -> None:
        """A client that may end the daemon ends the run, and has its answer."""
        server = self.server(http=True)
        server.start(0)
        self.assertEqual(self.get(server, "/stop"), (200, b"stopping"))
        server.join()
        self.assertFalse(server.is_running)

    def test_last_connection(self) -> None:
        """The last connection that is permitted ends the run when it is gone."""
        server = self.server(settings=Settings(max_connections=1))
        server.start(0)
        client = self.client(server)
        client.list_files("/")
        client.close()
        server.join()

    def test_several(self) -> None:
        """Several servers run at once, and none hears of the others' ends."""
        servers = [self.server(), self.server(KEY), self.server(http=True)]
        for server in servers:
            server.start(0)
        self.assertEqual(len({server.port for server in servers}), 3)
        for server, pin in zip(servers, (None, PIN, None), strict=True):
            self.assertIn("hello.txt", self.client(server, pin=pin).list_files("/"))
            self.end(server)
