"""Where the embedded server listens, what it says where it cannot, and what a run keeps."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest

import fileexport
from fileexport import generate_keys, generate_token
from fileexport.config import Anonymous, Mount, Settings
from fileexport.paths import RelPath
from fileexport.wire.frames import PREFACE
from tests.server_case import KEY, PIN, TOKEN, ServerCase, environment


class ListeningTests(ServerCase):
    """Where it listens, and what it says where it cannot."""

    def test_addresses(self) -> None:
        """Without a key only this machine reaches it; with one every interface does, unless one is named."""
        for private_key, address, host in (
            (None, None, "127.0.0.1"),
            (None, "127.0.0.1", "127.0.0.1"),
            (KEY, None, "0.0.0.0"),
            (KEY, "", "0.0.0.0"),
            (KEY, "127.0.0.1", "127.0.0.1"),
        ):
            for with_http in (False, True):
                server = self.server(private_key, http=with_http)
                with server.running(0, address):
                    self.assertEqual(server.addresses[0], (host, server.port))
                    self.assertEqual({port for _, port in server.addresses}, {server.port})

    def test_name(self) -> None:
        """A name of this machine is an address."""
        server = self.server()
        with server.running(0, "localhost"):
            self.assertIn(server.addresses[0][0], ("127.0.0.1", "::1"))

    def test_exposed(self) -> None:
        """Without a key no other machine is listened to, unless the settings want it so."""
        for address in ("0.0.0.0", ""):
            for with_http in (False, True):
                sentence = self.refused(self.server(http=with_http).start, 0, address)
                self.assertIn("private_key", sentence)
                server = self.server(http=with_http, settings=Settings(insecure_plaintext=True))
                with server.running(0, address):
                    self.assertEqual(server.addresses[0][0], "0.0.0.0")

    def test_cannot_listen(self) -> None:
        """Where it cannot listen it says why in one sentence, leaves nothing, and can be tried again."""
        taken = self.bound().getsockname()[1]
        server = self.server()
        self.unchanged(lambda: self.refused(server.run, taken))
        self.assertIn(str(taken), self.refused(server.run, taken))
        self.assertIn("in use", self.refused(server.run, taken, "127.0.0.1"))
        self.assertIn("no such address", self.refused(server.run, 0, "no.such.name.invalid"))
        self.assertEqual(os.listdir(self.temporary), [])
        with server.running(0):
            self.assertIn("hello.txt", self.client(server).list_files("/"))

    def test_port(self) -> None:
        """A number that is no port is a ValueError; the server can be run afterwards."""
        server = self.server()
        for port in (-1, 65536, 1.5):
            self.assertRaises(ValueError, server.start, port)
        with server.running(0):
            pass

    def test_root(self) -> None:
        """A root that is not there, or no directory, is named when it is run."""
        server = self.server()
        for root in (self.base / "none", self.root / "hello.txt"):
            server.root_directory = root
            sentence = self.refused(server.run, 0)
            self.assertIn("root_directory", sentence)
            self.assertIn(str(root), sentence)

    def test_odd_root(self) -> None:
        """A path is repeated as it is, whatever it looks like."""
        server = self.server()
        server.root_directory = root = self.base / "my--dir (a --root b); give --state DIR" / "none"
        self.assertEqual(
            str(self.assertRaises(RuntimeError, server.run, 0)),
            f"root_directory: {root}: No such file or directory",
        )

    def test_sentences(self) -> None:
        """Where the daemon's line names options, the sentence names parameters and settings."""
        state = self.root / "state"
        state.mkdir()
        mounts = (Mount("/app", "no_such_module", "f"),)
        for given, sentence in (
            (
                {"state_directory": state},
                f"state_directory: {state} lies in what is exported: move it, or choose with settings.dirs",
            ),
            (
                {"settings": Settings(handlers=mounts)},
                "settings.handlers: needs the HTTP side, and http leaves that out",
            ),
            (
                {"http": True, "settings": Settings(handlers=mounts)},
                "settings.handlers /app=no_such_module:f: ModuleNotFoundError: No module named",
            ),
            (
                {"settings": Settings(token_file=str(self.root / "hello.txt"))},
                "settings.token_file: ",
            ),
        ):
            found = self.refused(self.server(**given).run, 0)
            self.assertTrue(found.startswith(sentence), found)
        self.assertEqual(
            self.refused(self.server().run, 1, "0.0.0.0"),
            "0.0.0.0:1 is open to other machines without TLS: give private_key, or"
            " settings.insecure_plaintext to have it so",
        )
        taken = self.bound().getsockname()[1]
        for address in (None, "127.0.0.1"):
            self.assertEqual(
                self.refused(self.server().run, taken, address),
                f"cannot listen on 127.0.0.1:{taken}: the address is in use",
            )

    def test_tls(self) -> None:
        """With a key it speaks TLS, as which its pin is known; another pin is not connected to."""
        server = self.server(KEY)
        with server.running(0):
            self.assertIn("hello.txt", self.client(server, pin=PIN).list_files("/"))
            stranger = self.client(server, pin=generate_keys()[0])
            self.assertRaises(fileexport.AuthenticationError, stranger.list_files, "/")

    def test_token_needed(self) -> None:
        """Who has another token is refused."""
        server = self.server()
        with server.running(0):
            stranger = self.client(server, token=generate_token())
            self.assertRaises(fileexport.AuthenticationError, stranger.list_files, "/")

    def test_http(self) -> None:
        """With HTTP both protocols are answered on the one port, under the daemon's other options."""
        settings = Settings(anonymous=Anonymous.NONE, dirs=(RelPath.parse("open"),))
        (self.root / "open").mkdir()
        server = self.server(http=True, settings=settings)
        with server.running(0):
            self.assertEqual(self.get(server, "/-/files/hello.txt")[0], 404)
            self.assertEqual(self.get(server, "/-/files/open/", token=None)[0], 401)
            self.assertEqual(list(self.client(server).list_files("/")), ["open"])

    def test_socket(self) -> None:
        """A listening socket of the application's own is listened on, and stays open and its own."""
        for with_http in (False, True):
            given = self.bound()
            server = self.server(http=with_http)
            for _ in range(2):
                with server.running(socket=given):
                    self.assertEqual(server.port, given.getsockname()[1])
                    self.assertIn("hello.txt", self.client(server).list_files("/"))
            with socket.create_connection(given.getsockname()):
                given.setblocking(True)
                given.accept()[0].close()

    def test_unix_socket(self) -> None:
        """A UNIX socket may be given, which has no port; its name stays."""
        given = self.bound(socket.AF_UNIX)
        server = self.server(KEY)
        with server.running(socket=given):
            self.assertEqual(server.addresses, ())
            with socket.socket(socket.AF_UNIX) as connected:
                connected.connect(given.getsockname())
                self.assertEqual(connected.recv(len(PREFACE), socket.MSG_WAITALL), PREFACE)
        self.assertTrue(Path(given.getsockname()).exists())

    def test_socket_alone(self) -> None:
        """A socket stands in the place of port and address, and must listen."""
        given = self.bound()
        server = self.server()
        self.assertRaises(ValueError, server.start, 0, socket=given)
        self.assertRaises(ValueError, server.run, None, "127.0.0.1", socket=given)
        deaf = self.bound(listens=False)
        self.unchanged(lambda: self.refused(server.run, socket=deaf))
        with server.running(socket=given):
            pass


class StateTests(ServerCase):
    """What a run keeps, and what it says."""

    def test_temporary(self) -> None:
        """Without a state directory there is a temporary one, as long as the run and outside of the root."""
        server = self.server()
        with server.running(0):
            self.assertEqual(len(os.listdir(self.temporary)), 1)
        self.assertEqual(os.listdir(self.temporary), [])
        server.root_directory = self.base
        with server.running(0):
            self.assertEqual(os.listdir(self.temporary), [])

    def test_kept(self) -> None:
        """A state directory is used, and kept; only one server at a time has it."""
        state = self.base / "state"
        first, second = self.server(state_directory=state), self.server(state_directory=state)
        with first.running(0):
            self.assertEqual(os.listdir(self.temporary), [])
            self.assertIn("state_directory", self.refused(second.start, 0))
            self.assertIn("hello.txt", self.client(first).list_files("/"))
        with second.running(0):
            self.assertTrue(os.listdir(state))

    def test_state_in_root(self) -> None:
        """A state directory in what is exported is refused."""
        self.assertIn("state_directory", self.refused(self.server(state_directory=self.root / "s").start, 0))

    def test_log(self) -> None:
        """Where it listens, and each request, goes to Twisted's log, and nothing to the standard streams."""
        server = self.server(http=True)
        with server.running(0):
            self.get(server, "/-/files/hello.txt")
            port = server.port
        self.assertIn(f"exporting {self.root}", self.lines)
        self.assertTrue(any(f"127.0.0.1:{port}" in line for line in self.lines))
        self.assertTrue(any("GET /-/files/hello.txt" in line for line in self.lines))
        self.assertFalse(any(TOKEN in line for line in self.lines))

    def test_process(self) -> None:
        """A whole run with TLS makes no global reactor, prints nothing, and does not keep the process."""
        script = f"""
import sys
from fileexport import Client, Server
server = Server({str(self.root)!r}, {TOKEN!r}, {KEY!r}, http=True)
for _ in range(2):
    server.start(0)
    with Client("127.0.0.1", server.port, {TOKEN!r}, public_key={PIN!r}) as client:
        client.list_files("/")
    server.terminate()
    server.join()
server.start(0)
assert "twisted.internet.reactor" not in sys.modules
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment())
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))


class SystemTests(ServerCase):
    """What depends on the machine."""

    def test_ipv6(self) -> None:
        """Where the machine has IPv6 its loopback is listened on as well, at the same port."""
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            raise SkipTest("this machine has no IPv6") from None
        server = self.server()
        with server.running(0):
            self.assertEqual([host for host, _ in server.addresses], ["127.0.0.1", "::1"])
        with server.running(0, "::1"):
            self.assertEqual(server.addresses, (("::1", server.port),))
