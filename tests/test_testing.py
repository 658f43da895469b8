"""`fileexport.testing` as other people's tests use it: servers on loopback, and in memory."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as NotAccepted
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fileexport import AuthenticationError, Client, generate_token
from fileexport import open as open_remote
from fileexport.config import Settings
from fileexport.testing import MemoryServer, serving, token
from fileexport.tokens import check_token
from tests.threads_case import ThreadsCase


class TokenTests(SynchronousTestCase):
    """Tokens of tests."""

    def test_fresh(self) -> None:
        """Each is valid, and another one."""
        first, second = token(), token()
        check_token(first)
        self.assertNotEqual(first, second)


class ServingCase(ThreadsCase):
    """Has a place of its own for temporary files."""

    def setUp(self) -> None:
        self.temporary = Path(self.mktemp()).absolute()
        self.temporary.mkdir()
        self.patch(tempfile, "tempdir", str(self.temporary))


class ServingTests(ServingCase):
    """A server for a `with` block."""

    def test_whole(self) -> None:
        """A client finds the root, with and without TLS; nothing is left behind the block."""
        for tls in (False, True):
            with serving(tls=tls) as server, server.client() as client:
                client.create_file("a", "/")
                self.assertTrue((server.root / "a").exists())
                self.assertEqual((server.hostname, server.public_key is None), ("127.0.0.1", not tls))
            self.assertEqual(list(self.temporary.iterdir()), [])

    def test_given_root(self) -> None:
        """A directory of the test's own stays, with what was put there."""
        root = self.temporary / "mine"
        root.mkdir()
        with serving(root) as server, server.client() as client:
            client.create_file("a", "/")
            self.assertEqual(server.root, root)
        self.assertTrue((root / "a").exists())

    def test_rights(self) -> None:
        """A token may do what it was given, further tokens what their lines say."""
        other = token()
        with serving(may="read", tokens=f"{other} may=write,delete\n") as server:
            with server.client() as client:
                self.assertEqual(client.list_files("/"), {})
                self.assertRaises(PermissionError, client.create_file, "a", "/")
            with server.client(token=other) as client:
                client.create_file("a", "/")
                self.assertRaises(PermissionError, client.list_files, "/")

    def test_strangers(self) -> None:
        """Any other token is refused."""
        with serving() as server, server.client(token=token()) as client:
            self.assertRaises(AuthenticationError, client.list_files, "/")

    def test_given_token(self) -> None:
        """The token is the one that was given, a bad one is said at once."""
        mine = generate_token()
        with serving(token=mine) as server, Client(server.hostname, server.port, mine) as client:
            self.assertEqual((server.token, client.list_files("/")), (mine, {}))
        self.assertRaises(ValueError, serving(token="bad").__enter__)
        self.assertEqual(list(self.temporary.iterdir()), [])

    def test_options(self) -> None:
        """The server's own parameters, and the daemon's settings, are handed on."""
        (self.temporary / "state").mkdir()
        state, settings = self.temporary / "state", Settings(hidden=True)
        with serving(file_size_limit=3, state_directory=state, settings=settings) as server:
            (server.root / ".hidden").touch()
            four = server.directory / "four"
            four.write_bytes(b"four")
            with server.client() as client:
                self.assertRaises(ValueError, client.upload_file, four, "/")
                self.assertEqual(list(client.list_files("/")), [".hidden"])
            self.assertNotEqual(list(state.iterdir()), [])

    def test_token_file(self) -> None:
        """Settings that name a token file are refused: the tokens are given as text."""
        settings = Settings(token_file=str(self.temporary / "tokens"))
        error = self.assertRaises(ValueError, serving(settings=settings).__enter__)
        self.assertIn("tokens=", str(error))

    def test_http(self) -> None:
        """The HTTP side answers below `url`, with TLS by the certificate; unasked there is none."""
        for tls in (False, True):
            with serving(tls=tls, http=True) as server, server.client() as client:
                (server.root / "a").write_text("hello")
                asked = urllib.request.Request(server.url + "a")
                asked.add_header("Authorization", f"Bearer {server.token}")
                known = ssl.create_default_context(cafile=server.certificate) if tls else None
                with urllib.request.urlopen(asked, context=known) as answer:
                    self.assertEqual(answer.read(), b"hello")
                self.assertEqual(list(client.list_files("/")), ["a"])
        with serving() as server:
            self.assertRaises(ValueError, getattr, server, "url")

    def test_environment(self) -> None:
        """The variables name the server to the command, and to `open`; nobody else may read the token."""
        for tls in (False, True):
            with serving(tls=tls) as server:
                (server.root / "a").write_text("hello")
                done = subprocess.run(
                    [sys.executable, "-c", "from fileexport.cli import main; main()", "list", "/"],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **server.environment},
                    capture_output=True,
                    text=True,
                )
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertIn("a", done.stdout)
                self.patch(os, "environ", {**os.environ, **server.environment})
                with open_remote("/a") as file:
                    self.assertEqual(file.read(), "hello")
                mode = Path(server.environment["FILEEXPORT_TOKEN_FILE"]).stat().st_mode
                self.assertEqual(mode & 0o777, 0o600)

    def test_failing_block(self) -> None:
        """What the block raises comes through, and nothing is left."""

        def fail() -> None:
            with serving():
                raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, fail)
        self.assertEqual(list(self.temporary.iterdir()), [])


class AsyncTests(TestCase):
    """The Twisted client of a server on loopback."""

    async def test_async_client(self) -> None:
        """It carries files, for the reactor that runs the test."""
        server = self.enterContext(serving(tls=True))
        here = server.directory / "b"
        here.write_text("hello")
        async with server.async_client() as client:
            self.assertTrue(await client.upload_file(here, "/"))
            self.assertEqual(list(await client.list_files("/")), ["b"])
        self.assertEqual((server.root / "b").read_text(), "hello")


class MemoryTests(ServingCase):
    """A server without sockets and threads."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.enterContext(MemoryServer())
        self.client = self.server.client()

    def test_nothing_by_itself(self) -> None:
        """An answer comes by `flush`, and one `flush` is enough for all that follows from it."""
        (self.server.root / "a").write_text("hello")

        async def both() -> list[object]:
            content = b"".join([piece async for piece in self.client.read("/a")])
            await self.client.rename("/a", "/b")
            return [content, *await self.client.list_files("/")]

        threads = threading.active_count()
        found = Deferred.fromCoroutine(both())
        self.assertNoResult(found)
        self.server.flush()
        self.assertEqual(self.successResultOf(found), [b"hello", "b"])
        self.assertEqual(threading.active_count(), threads)

    def test_errors(self) -> None:
        """Errors are those of a client."""
        missing = self.client.stat("/none")
        self.server.flush()
        self.failureResultOf(missing, FileNotFoundError)
        stranger = self.server.client(token=token()).list_files("/")
        self.server.advance(5)
        self.failureResultOf(stranger, AuthenticationError)

    def test_rights(self) -> None:
        """Tokens, and the largest file, are what was said."""
        mine, other = token(), token()
        with MemoryServer(self.server.root, token=mine, may="read", tokens=f"{other}\n") as server:
            refused = server.client().create_file("a", "/")
            made = server.client(token=other).create_file("a", "/")
            server.flush()
            self.failureResultOf(refused, PermissionError)
            self.successResultOf(made)
        self.assertTrue((self.server.root / "a").exists())

    def test_time(self) -> None:
        """Time is the test's: while nothing is carried over, it passes for who waits."""
        waiting = self.server.client(timeout=5000).list_files("/")
        self.server.reactor.advance(4)
        self.assertNoResult(waiting)
        self.server.reactor.advance(2)
        self.failureResultOf(waiting, TimeoutError)

        self.assertRaises(ValueError, self.server.advance, -1)

    def test_threads(self) -> None:
        """What needs threads says so at once."""
        for ask in (
            lambda: self.client.upload_file("/etc/hostname", "/"),
            lambda: self.client.upload_files([], "/"),
            lambda: self.client.hash_files([]),
            lambda: self.client.begin_manifest("/"),
        ):
            error = self.assertRaises(RuntimeError, ask)
            self.assertIn("serving()", str(error))
        ready = self.client.list_files("/")
        self.server.flush()
        self.successResultOf(ready)

    def test_jobs(self) -> None:
        """A job is carried out, and known by the time of the test."""
        (self.server.root / "a").write_text("hello")
        asked = self.client.compress("/a")
        self.server.flush()
        job = self.successResultOf(asked)
        self.server.advance(10)
        found = self.client.job(job.id)
        self.server.flush()
        self.assertEqual(self.successResultOf(found).state, "done")
        self.assertTrue((self.server.root / "a.tgz").exists())

    def test_cut(self) -> None:
        """Who waits when the connection is cut learns it; the same client comes again."""
        ready = self.client.list_files("/")
        self.server.flush()
        self.successResultOf(ready)
        made = self.client.create_file("a", "/")
        self.server.cut()
        self.server.advance(60)
        self.failureResultOf(made, ConnectionError)
        again = self.client.list_files("/")
        self.server.flush()
        self.successResultOf(again)

    def test_close(self) -> None:
        """After `close` nobody is let in, the directory is gone, and nothing is due; twice is harmless."""
        ready = self.client.list_files("/")
        self.server.flush()
        self.successResultOf(ready)
        for _ in range(2):
            self.server.close()
        later = self.client.list_files("/")
        self.server.flush()
        self.failureResultOf(later, ConnectionError)
        closed = self.client.close()
        self.server.flush()
        self.successResultOf(closed)
        self.assertEqual(self.server.reactor.getDelayedCalls(), [])
        self.assertEqual(list(self.temporary.iterdir()), [])

    def test_endpoint(self) -> None:
        """A program that makes its connection itself gets one; a server that has ended refuses."""
        connected = self.server.endpoint.connect(Factory.forProtocol(Protocol))
        protocol: Any = self.successResultOf(connected)
        protocol.transport.loseConnection()
        self.server.close()
        refused = self.server.endpoint.connect(Factory.forProtocol(Protocol))
        self.failureResultOf(refused, NotAccepted)


class ImportTests(SynchronousTestCase):
    """What importing costs."""

    def test_no_reactor(self) -> None:
        """Importing the helpers installs no reactor: a program chooses its own."""
        code = "import fileexport.testing, sys; sys.exit('twisted.internet.reactor' in sys.modules)"
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
        )
