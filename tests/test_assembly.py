"""The daemon as one service: on sockets in memory where that can be, started, reloaded, stopped."""

from __future__ import annotations

import contextlib
import io
import os
import socket
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import LogLevel
from twisted.trial.unittest import TestCase

from fileexport.assembly import GRACE, ExportService
from fileexport.errors import ConfigurationError, ListenError
from fileexport.logs import LogSink
from fileexport.startup import is_public, prepare
from fileexport.tokens import generate_token
from tests.http_client import Connection, encode
from tests.machine import TOKEN, Machine, ServiceCase, let_threads_go
from tests.test_endpoints import carry, certificates_in, client_context, pem_for, served

#: More than a transport takes before it asks to wait.
BIG = 1 << 20


class BannerTests(ServiceCase):
    """What the start says."""

    def test_default(self) -> None:
        """The banner tells the directory, where both sides listen, and who may do what."""
        self.started()
        readers = "every local process may read"
        if not is_public(str(self.root)):
            readers = "only this user's processes may read"
        (token,) = self.base.glob("*/.local/state/fileexport/root-*/token")
        self.assertEqual(
            self.said,
            [
                f"exporting {self.root}",
                "HTTP on http://127.0.0.1:9006/",
                "HTTP on http://[::1]:9006/",
                "transfer on tcp 127.0.0.1:6768",
                "transfer on tcp [::1]:6768",
                f"without a token: {readers}; this user's may change",
                f"with a token: see {token}",
            ],
        )
        self.assertNotIn(token.read_text().split()[0], "\n".join(self.said + self.logged()))

    def test_listeners(self) -> None:
        """Every listener is named by its URL, those of `--http` first, then that of `--port`."""
        (self.root / "a" / "b").mkdir(parents=True)
        path = str(self.base / "socket")
        self.started(http=["tcp:8001:interface=127.0.0.1", f"unix:{path}"], port=["8002"], dir=["a/b", "a"])
        self.assertEqual(
            self.said[:5],
            [
                f"exporting {self.root} a/b a",
                "HTTP on http://127.0.0.1:8001/",
                f"HTTP on unix:{path}",
                "HTTP on http://127.0.0.1:8002/",
                "HTTP on http://[::1]:8002/",
            ],
        )

    def test_without_a_token(self) -> None:
        """What is open to everybody is said, and that nothing is where no listener is local."""
        exposed: dict[str, Any] = {"http": ["tcp:8001"], "insecure_plaintext": True}
        for given, words in (
            ({"anonymous": ["none"]}, "nothing"),
            ({"anonymous": ["read"]}, "everybody may read"),
            ({"anonymous": ["all"]}, "EVERYBODY MAY CHANGE EVERYTHING"),
            (exposed, "nothing"),
        ):
            self.started(**given)
            self.assertEqual(self.said[-2], f"without a token: {words}")

    def test_weak_token(self) -> None:
        """A token that can be guessed is warned of, and not shown."""
        tokens = self.tokens("hunter2hunter2\n")
        self.started(token_file=tokens)
        self.assertTrue(self.said[-1].startswith(f"warning: {tokens[0]}:1: "))
        self.assertNotIn("hunter2", "\n".join(self.said))


class ListenTests(ServiceCase):
    """Which listeners there are, and who gets in."""

    def test_once(self) -> None:
        """twistd starts a service in two steps and twist in one: it listens once in either case."""
        self.started()
        self.assertEqual([server[0] for server in self.machine.tcpServers], [9006, 9006, 6768, 6768])
        self.machine = Machine()
        alone = self.service()
        alone.startService()
        self.machine.finish(alone.begun)
        self.assertEqual(len(self.machine.tcpServers), 4)
        self.end(alone, self.machine)

    def test_local(self) -> None:
        """Each listener knows by its own address whether it is local."""
        self.started(
            http=["tcp:1:interface=127.0.0.1", "tcp:2"], insecure_plaintext=True, token_file=self.tokens()
        )
        self.assertEqual(self.get("/stop", 1).status, 403)
        self.assertEqual(self.stops, 0)
        self.assertEqual(self.get("/stop", 0).body, b"stopping")
        self.assertEqual(self.stops, 1)

    def test_trusted_proxy(self) -> None:
        """A trusted proxy is never taken for local."""
        self.started(token_file=self.tokens(), trusted_proxy=["127.0.0.0/8"])
        self.assertEqual(self.get("/stop").status, 403)

    def test_busy(self) -> None:
        """One address in use is an error that names it; nothing is said, and nothing stays open."""
        self.machine = Machine(2)
        service = self.service(http=["tcp:1:interface=127.0.0.1", "tcp:2:interface=127.0.0.1"])
        problem = str(self.assertRaises(ListenError, service.privilegedStartService))
        self.assertTrue(problem.startswith("cannot listen on tcp:2:interface=127.0.0.1: the address"))
        self.assertEqual(len(self.machine.tcpServers), 1)
        self.machine.advance(0)
        self.assertEqual((self.machine.listening, self.said), (set(), []))

    def test_exposed(self) -> None:
        """A listener that others can reach without TLS is refused before anything listens."""
        service = self.service(http=["tcp:1:interface=127.0.0.1", "tcp:2"])
        problem = self.assertRaises(ConfigurationError, service.privilegedStartService)
        self.assertEqual([line.split()[0] for line in problem.problems], ["tcp:2"])
        self.assertEqual(self.machine.tcpServers, [])

    def test_bad_endpoint(self) -> None:
        """An endpoint that cannot be read is an error before anything listens."""
        service = self.service(http=["tcp:1:interface=127.0.0.1", "nothing:1"])
        self.assertRaises(ListenError, service.privilegedStartService)
        self.assertEqual(self.machine.tcpServers, [])

    def test_address_filter(self) -> None:
        """Connections from other addresses are closed at once."""
        self.started(address_filter=["10.0.0.0/8", "127.0.0.1"])
        hosts = ("127.0.0.1", "10.1.2.3", "127.0.0.2", "192.0.2.1")
        self.assertEqual([self.refused(host) for host in hosts], [False, False, True, True])

    def test_max_connections(self) -> None:
        """After so many connections no more come in, and when the last is gone the daemon is stopped."""
        self.started(max_connections=["2"], address_filter=["127.0.0.1"], anonymous=["read"])
        self.assertTrue(self.refused("192.0.2.1"))
        first, second = self.connect(), self.connect()
        self.machine.advance(0)
        self.assertEqual(self.machine.listening, set())
        self.assertTrue(self.refused())
        second.lose()
        self.assertEqual(self.stops, 0)
        first.send(encode("GET", "/hello.txt", {}, b""))
        self.assertEqual(first.receive().body, b"hello\n")
        first.lose()
        self.assertEqual(self.stops, 1)

    def test_max_concurrent(self) -> None:
        """All listeners together hold so many connections."""
        self.started(max_concurrent=["1"])
        held = self.connect(1)
        self.assertTrue(self.refused())
        held.lose()
        self.assertFalse(self.refused())


class ServeTests(ServiceCase):
    """What the options make of the answers."""

    def test_prefix(self) -> None:
        """Links begin with the path of the public address, whose host is accepted."""
        (self.root / "sub").mkdir()
        self.started(public_url=["https://files.example/export/"], anonymous=["read"])
        response = self.get("/sub", token=None, more={"Host": "files.example"})
        self.assertEqual((response.status, response.field("Location")), (301, "/export/sub/"))
        self.assertEqual(self.get("/sub", token=None, more={"Host": "other.example"}).status, 403)

    def test_hosts(self) -> None:
        """Names that were allowed are accepted, and so is the machine's own."""
        self.started(allow_host=["nas.example"], anonymous=["read"])
        for name in ("nas.example", socket.gethostname(), "localhost:9006", "[::1]:9006"):
            response = self.get("/hello.txt", token=None, more={"Host": name})
            self.assertEqual(response.status, 200, name)

    def test_dirs(self) -> None:
        """Only the directories that were named are exported."""
        for name in ("a", "b"):
            (self.root / name).mkdir()
            (self.root / name / "f").write_text(name)
        self.started(dir=["a"], token_file=self.tokens())
        targets = ("/a/f", "/b/f", "/hello.txt")
        self.assertEqual([self.get(target).status for target in targets], [200, 404, 404])

    def test_hidden(self) -> None:
        """Names with a leading dot are for tokens, unless the option opens them."""
        (self.root / ".env").write_text("secret")
        for hidden, status in ((False, 404), (True, 200)):
            self.machine = Machine()
            self.started(anonymous=["read"], token_file=self.tokens(), hidden=hidden)
            self.assertEqual(self.get("/.env", token=None).status, status)
            self.assertEqual(self.get("/.env").status, 200)

    def test_access_log(self) -> None:
        """Every request has its line in the log, with the name of who asked and without their token."""
        self.started(token_file=self.tokens(f"{TOKEN} name=backup"))
        self.get("/hello.txt", more={"Referer": "http://localhost/", "User-Agent": "test/1"})
        (line,) = self.written.getvalue().splitlines()
        self.assertTrue(line.startswith("127.0.0.1 - backup ["), line)
        self.assertIn('"GET /hello.txt HTTP/1.1" 200 6 "http://localhost/" "test/1" ', line)

    def test_tls(self) -> None:
        """With a private key every listener but a UNIX socket speaks TLS, also one open to other machines."""
        key = self.base / "key.pem"
        key.write_text(pem := pem_for())
        path = str(self.base / "socket")
        self.started(http=["tcp:1", f"unix:{path}"], private_key=[str(key)], token_file=self.tokens())
        self.assertEqual(self.said[1:3], ["HTTP on https://0.0.0.0:1/", f"HTTP on unix:{path}"])
        client, answer = self.speak_tls(
            encode("GET", "/hello.txt", {"Authorization": f"Bearer {TOKEN}"}, b"")
        )
        self.assertEqual(served(client), certificates_in(pem))
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nhello\n"))
        plain = Connection(self.machine.unixServers[0][1], self.machine)
        plain.send(encode("GET", "/-/health", {}, b""))
        self.assertEqual(plain.receive().body, b"ok")

    def test_http_version(self) -> None:
        """A client that offers HTTP/2 as well gets HTTP/1.1 by ALPN, whatever is installed."""
        key = self.base / "key.pem"
        key.write_text(pem_for())
        self.started(private_key=[str(key)])
        client = self.connect_tls(client_context(b"h2", b"http/1.1"))[0]
        self.assertEqual(client.get_alpn_proto_negotiated(), b"http/1.1")

    def speak_tls(self, request: bytes) -> tuple[SSL.Connection, bytes]:
        """Send a request through TLS; the client and all that it got."""
        client, server, transport = self.connect_tls(client_context())
        client.send(request)
        received = b""
        for _ in range(10):
            carry(client, server, transport)
            self.machine.advance(0)
            with contextlib.suppress(SSL.WantReadError):
                received += client.recv(1 << 16)
        return client, received


class RecoveryTests(ServiceCase):
    """What a killed daemon left."""

    def test_orphans(self) -> None:
        """What nobody writes any more is removed at the start, and that is logged."""
        staging = self.root / ".fileexport"
        staging.mkdir()
        (staging / "new-0123").write_text("half a file")
        self.started()
        self.assertFalse(staging.exists())
        self.assertIn("removed 1 files that a killed writer had left", self.logged())


class ReloadTests(ServiceCase):
    """SIGHUP."""

    def statuses(self, *tokens: str) -> list[int]:
        """What a request with each of the tokens gets."""
        return [self.get("/hello.txt", token=token).status for token in tokens]

    def test_tokens(self) -> None:
        """New tokens count at once, and old ones no more."""
        other = generate_token()
        service = self.started(token_file=self.tokens())
        self.assertEqual(self.statuses(TOKEN, other), [200, 401])
        self.tokens(other)
        service.reload()
        self.assertEqual(self.statuses(TOKEN, other), [401, 200])

    def test_bad_tokens(self) -> None:
        """A token file with mistakes changes nothing; each mistake is logged, and no token."""
        service = self.started(token_file=self.tokens())
        (path,) = self.tokens(f"short\n{TOKEN} may=fly\n")
        service.reload()
        self.assertEqual(self.statuses(TOKEN), [200])
        for line in (1, 2):
            self.assertTrue(any(t.startswith(f"not reloaded: {path}:{line}: ") for t in self.logged()))
        os.unlink(path)
        service.reload()
        self.assertEqual(self.statuses(TOKEN), [200])
        self.assertIn(f"not reloaded: the token file: {path}: No such file or directory", self.logged())
        self.assertNotIn(TOKEN, "\n".join(self.logged()))

    def test_key(self) -> None:
        """A new key serves the next connection, whatever the token file holds; a bad one changes nothing."""
        key = self.base / "key.pem"
        key.write_text(pem_for())
        service = self.started(private_key=[str(key)], token_file=self.tokens())
        self.tokens("x")
        key.write_text(second := pem_for())
        service.reload()
        self.assertEqual(self.shown(), certificates_in(second))
        key.write_text("no key")
        service.reload()
        self.assertEqual(self.shown(), certificates_in(second))
        self.assertTrue(any(text.startswith("not reloaded: private key: ") for text in self.logged()))

    def shown(self) -> list[str]:
        """The certificates that a new connection gets."""
        return served(self.connect_tls(client_context())[0])

    def test_log(self) -> None:
        """The log file is opened anew; where it cannot be, the old one stays and that is logged."""
        directory = self.base / "log"
        directory.mkdir()
        sink = LogSink.to_file(str(directory / "log"), 0, 0)
        self.addCleanup(sink.close)
        service = self.started(sink=sink, anonymous=["read"])
        (directory / "log").rename(self.base / "old")
        service.reload()
        self.get("/hello.txt", token=None)
        self.assertEqual((self.base / "old").read_text(), "")
        (directory / "log").rename(self.base / "new")
        directory.rmdir()
        service.reload()
        self.get("/hello.txt", token=None)
        self.assertEqual(len((self.base / "new").read_text().splitlines()), 2)
        self.assertIn("the log file stays open: No such file or directory", self.logged(LogLevel.error))


class StopTests(ServiceCase):
    """The graceful stop."""

    def downloading(self) -> tuple[ExportService, Connection]:
        """A service, and a connection on which a large answer has begun."""
        (self.root / "big").write_bytes(bytes(BIG))
        service = self.started(anonymous=["read"])
        connection = self.connect()
        connection.send(encode("GET", "/big", {}, b""))
        return service, connection

    def test_idle(self) -> None:
        """With nothing in flight it ends at once; idle connections are closed, nothing stays open."""
        before = os.listdir("/proc/self/fd")
        service = self.started(anonymous=["read"])
        idle = self.connect()
        idle.send(encode("GET", "/hello.txt", {}, b""))
        idle.receive()
        done = service.stopService()
        idle.turn()
        self.machine.finish(done)
        self.successResultOf(done)
        self.assertTrue(idle.closed)
        self.assertFalse(idle.aborted)
        self.assertEqual(self.machine.getDelayedCalls(), [])
        self.assertEqual(set(os.listdir("/proc/self/fd")) - set(before), set())
        self.assertEqual(self.logged()[-2:], ["stopping", "stopped"])

    def test_closed_first(self) -> None:
        """The stop is not over before the listening sockets are closed."""
        done = self.started().stopService()
        self.assertNoResult(done)
        self.machine.advance(0)
        self.machine.finish(done)
        self.successResultOf(done)
        self.assertEqual(self.machine.listening, set())

    def test_in_flight(self) -> None:
        """An answer in flight is finished, and nobody new comes in meanwhile; then jail and pools close."""
        before = os.listdir("/proc/self/fd")
        service, connection = self.downloading()
        done = service.stopService()
        self.machine.advance(0)
        self.assertNoResult(done)
        self.assertEqual(self.machine.listening, set())
        self.assertTrue(self.refused())
        self.assertEqual(len(connection.receive().body), BIG)
        connection.turn()
        self.machine.finish(done)
        self.successResultOf(done)
        self.assertFalse(connection.aborted)
        self.assertEqual(set(os.listdir("/proc/self/fd")) - set(before), set())

    def test_grace(self) -> None:
        """Who has not taken the answer when the time is over is cut off."""
        service, connection = self.downloading()
        done = service.stopService()
        self.machine.advance(GRACE - 0.5)
        self.assertNoResult(done)
        self.assertFalse(connection.closed)
        self.machine.advance(0.5)
        self.machine.advance(0)
        self.machine.finish(done)
        self.successResultOf(done)
        self.assertTrue(connection.aborted)
        self.assertEqual(self.machine.getDelayedCalls(), [])

    def test_last_answer(self) -> None:
        """An answer that begins after the stop says that it is the last on its connection."""
        service, connection = self.downloading()
        connection.send(encode("GET", "/hello.txt", {}, b""))
        done = service.stopService()
        connection.receive()
        connection.turn()
        self.assertTrue(connection.closed)
        self.machine.finish(done)
        self.successResultOf(done)


class SocketTests(TestCase):
    """The same on real sockets."""

    timeout = 60

    async def test_closed(self) -> None:
        """When the stop is over, nobody listens any more, and a UNIX socket's file is gone."""
        let_threads_go(self)
        root = Path(self.mktemp())
        root.mkdir()
        path = Path("assembly.sock")  # short enough for sun_path wherever the checkout lies
        flags = {
            "root": [str(root)],
            "state": [f"{root}.state"],
            "port": ["0"],
            "transfer": ["none"],
            "http": [f"unix:{path}"],
        }
        await deferLater(reactor, 0)
        said: list[str] = []
        service = ExportService(
            reactor,
            prepare(flags, {}),
            LogSink.to_stream(io.StringIO()),
            stop=lambda: None,
            say=said.append,
        )
        service.startService()
        port = int(said[2].rpartition(":")[2].rstrip("/"))
        socket.create_connection(("127.0.0.1", port)).close()
        self.assertTrue(path.exists())
        await service.stopService()
        self.assertRaises(ConnectionRefusedError, socket.create_connection, ("127.0.0.1", port))
        self.assertFalse(path.exists())
