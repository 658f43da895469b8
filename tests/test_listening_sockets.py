"""Listeners on real sockets: TCP, UNIX, and those that systemd hands over."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor, tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    clientFromString,
    connectProtocol,
    quoteStringArgument,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.plugins.twisted_core import systemdEndpointParser
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import SkipTest, TestCase

from fileexport.endpoints import TlsContext
from fileexport.errors import ConfigurationError, ListenError
from fileexport.gate import Gate
from fileexport.listening import (
    IN_USE,
    Listener,
    adopted_listener,
    default_listener,
    open_listeners,
    parse_listener,
)
from fileexport.peers import owner_of
from tests.test_endpoints import pem_for
from tests.test_listening import Echoes, Receiver, gate

#: A daemon that listens on its argument until it is killed.
DAEMON = """
import sys
from twisted.internet.defer import Deferred, succeed
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory
from fileexport.gate import Gate
from fileexport.listening import parse_listener
reactor = EPollReactor()
listener = parse_listener(reactor, "unix:" + sys.argv[1])
Deferred.fromCoroutine(listener.listen(Factory(), Gate(on_exhausted=reactor.stop)))
print("listening", flush=True)
reactor.callLater(60, reactor.stop)
reactor.run()
"""


def descriptors_of(opened: socket.socket) -> int:
    """How many descriptors of this process are of the same socket."""
    directory = Path("/proc/self/fd")
    wanted, found = os.readlink(directory / str(opened.fileno())), 0
    for number in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found += os.readlink(directory / number) == wanted
    return found


class SocketTests(TestCase):
    """Listeners on real sockets."""

    timeout = 60

    def setUp(self) -> None:
        self.factory = Echoes()
        self.addCleanup(self.all_gone)

    async def listening(
        self, listener: Listener, through: Gate | None = None, insecure_plaintext: bool = False
    ) -> Listener:
        """Open it until the test is over."""
        doors = [(listener, self.factory)]
        await open_listeners(doors, through or gate(), insecure_plaintext=insecure_plaintext)
        self.addCleanup(lambda: Deferred.fromCoroutine(listener.stop()))
        return listener

    async def talk(self, description: str, tls: bool = False) -> Receiver:
        """A client that got its answer; it is cut off when the test is over."""
        endpoint = clientFromString(reactor, description)
        if tls:
            endpoint = wrapClientTLS(CertificateOptions(), endpoint)
        client: Receiver = await connectProtocol(endpoint, Receiver(b"hello"))
        assert client.transport is not None
        self.addCleanup(client.transport.loseConnection)
        self.assertEqual(await client.answer, b"hello")
        return client

    def all_gone(self) -> Deferred[None]:
        """Wait until every connection is lost on the server's side."""
        if len(self.factory.lost) == len(self.factory.made):
            return succeed(None)
        return deferLater(reactor, 0).addCallback(lambda _: self.all_gone())

    def target(self, listener: Listener, which: int = 0) -> str:
        """The endpoint string of a client for one of the listener's addresses."""
        host = listener.ports[which].getHost()
        if isinstance(host, UNIXAddress):
            assert host.name is not None
            return f"unix:{os.fsdecode(host.name)}"
        assert isinstance(host, IPv4Address | IPv6Address)
        return f"tcp:{quoteStringArgument(host.host)}:{host.port}"

    async def refused(self, listener: Listener) -> str:
        """Why the listener cannot be opened."""
        try:
            await self.listening(listener)
        except (ListenError, ConfigurationError) as error:
            return str(error)
        raise AssertionError("it listens")

    async def test_default(self) -> None:
        """The default listener answers on both addresses, shows their URLs, and is closed when stopped."""
        listener = await self.listening(default_listener(reactor, 0))
        for which in range(len(listener.ports)):
            await self.talk(self.target(listener, which))
        port = int(listener.addresses[0].rpartition(":")[2])
        urls = (f"http://127.0.0.1:{port}/", f"http://[::1]:{port}/")
        self.assertEqual(listener.urls, urls[: len(listener.ports)])
        target = self.target(listener)
        await listener.stop()
        await listener.stop()
        self.assertEqual(listener.urls, ())
        with self.assertRaises(ConnectionRefusedError):
            await clientFromString(reactor, target).connect(Factory.forProtocol(Protocol))

    async def test_transports(self) -> None:
        """The door sees the real transport, and who owns its other end, with TLS and without."""
        for key in (None, TlsContext(pem_for())):
            listener = await self.listening(default_listener(reactor, 0, private_key_context=key))
            await self.talk(self.target(listener), tls=key is not None)
            transport = self.factory.made[-1].transport
            self.assertEqual(isinstance(transport, tcp.Server), key is None)
            self.assertEqual(owner_of(transport), os.geteuid())
            self.assertEqual(listener.urls[0].partition(":")[0], "https" if key else "http")
            kind = "tls" if key else "tcp"
            self.assertEqual(listener.places, tuple(f"{kind} {place}" for place in listener.addresses))

    async def test_total(self) -> None:
        """When the last connection has come in, listening can end while that one goes on to its end."""
        events: list[str] = []
        through = gate(
            max_total=1,
            on_full=lambda: events.append("full"),
            on_exhausted=lambda: events.append("exhausted"),
        )
        listener = await self.listening(default_listener(reactor, 0), through)
        client = await self.talk(self.target(listener))
        self.assertEqual(events, ["full"])
        await listener.stop()
        assert client.transport is not None
        client.transport.loseConnection()
        await self.all_gone()
        self.assertEqual(events, ["full", "exhausted"])

    async def test_busy(self) -> None:
        """A port that is taken is told so, and the listeners before it are closed again."""
        await deferLater(reactor, 0)  # only a reactor that runs can close them
        with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
            busy_port, free_port = taken.getsockname()[1], free.getsockname()[1]
            free.close()
            descriptions = [f"tcp:{port}:interface=127.0.0.1" for port in (free_port, busy_port)]
            doors = [(parse_listener(reactor, text), self.factory) for text in descriptions]
            with self.assertRaises(ListenError) as caught:
                await open_listeners(doors, gate())
        self.assertEqual(str(caught.exception), f"cannot listen on {descriptions[1]}: {IN_USE}")
        socket.create_server(("127.0.0.1", free_port)).close()

    async def test_default_busy(self) -> None:
        """When the port is taken on ::1 alone, 127.0.0.1 is given back."""
        await deferLater(reactor, 0)  # as above
        try:
            taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
        except OSError as error:
            raise SkipTest("this machine has no ::1") from error
        with taken:
            port = taken.getsockname()[1]
            reason = await self.refused(default_listener(reactor, port))
        self.assertIn(f"cannot listen on [::1]:{port}: the address is in use", reason)
        socket.create_server(("127.0.0.1", port)).close()

    async def test_bound_address(self) -> None:
        """Where the string does not tell who can connect, the bound socket does, before anybody has."""
        local = await self.listening(parse_listener(reactor, "tcp:0:interface=localhost"))
        self.assertTrue(local.is_loopback)
        exposed = parse_listener(reactor, "haproxy:tcp:0:interface=0.0.0.0")
        self.assertIsNone(exposed.is_loopback)
        self.assertIn("without TLS", await self.refused(exposed))
        self.assertEqual((exposed.is_loopback, exposed.ports), (False, ()))

    def inherited(self, made: socket.socket) -> None:
        """Let it be the socket that systemd hands to this process."""
        self.addCleanup(made.close)
        self.patch(systemdEndpointParser, "_sddaemon", ListenFDs([os.dup(made.fileno())], ("web",)))

    async def test_systemd(self) -> None:
        """A socket of systemd's is judged by its address, and goes on listening for systemd afterwards."""
        made = socket.create_server(("127.0.0.1", 0))
        self.inherited(made)
        listener = await self.listening(parse_listener(reactor, "systemd:domain=INET:index=0"))
        self.assertTrue(listener.is_loopback)
        await self.talk(self.target(listener))
        await listener.stop()
        socket.create_connection(made.getsockname()).close()

    async def test_systemd_family(self) -> None:
        """A family that does not exist is refused with one that does."""
        self.inherited(socket.create_server(("127.0.0.1", 0)))
        problem = self.assertRaises(ListenError, parse_listener, reactor, "systemd:domain=TCP:index=0")
        self.assertIn("write systemd:domain=INET:index=0", str(problem))

    async def test_systemd_exposed(self) -> None:
        """A socket of systemd's that others can reach is refused without TLS, and taken with it."""
        self.inherited(socket.create_server(("0.0.0.0", 0)))
        self.assertIn("without TLS", await self.refused(parse_listener(reactor, "systemd:INET:name=web")))
        self.inherited(socket.create_server(("0.0.0.0", 0)))
        key = TlsContext(pem_for())
        description = "systemd:INET:name=web"
        listener = await self.listening(parse_listener(reactor, description, private_key_context=key))
        self.assertEqual((listener.is_tls, listener.is_loopback), (True, False))

    async def test_systemd_unix(self) -> None:
        """The file of a UNIX socket that systemd made keeps its mode, and stays with its socket."""
        path = self.mktemp()
        made = socket.socket(socket.AF_UNIX)
        made.bind(path)
        os.chmod(path, 0o600)
        made.listen()
        self.inherited(made)
        listener = await self.listening(parse_listener(reactor, "systemd:domain=UNIX:index=0"))
        self.assertEqual((listener.is_loopback, listener.addresses), (True, (f"unix:{path}",)))
        await self.talk(self.target(listener))
        self.assertEqual(owner_of(self.factory.made[-1].transport), os.geteuid())
        await listener.stop()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    def given(self, family: socket.AddressFamily, address: str | tuple[str, int]) -> socket.socket:
        """A listening socket of the application's own."""
        try:
            made = socket.socket(family)
            self.addCleanup(made.close)
            made.bind(address)
        except OSError as error:
            raise SkipTest("this machine has no IPv6") from error
        made.listen()
        return made

    async def test_adopted(self) -> None:
        """A socket of the application's own is listened on, and is still its own and open afterwards."""
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            made = self.given(family, (host, 0))
            for key in (None, TlsContext(pem_for())):
                wanted = adopted_listener(reactor, made, private_key_context=key)
                self.assertTrue(wanted.is_loopback)
                listener = await self.listening(wanted)
                await self.talk(self.target(listener), tls=key is not None)
                self.assertEqual(listener.tcp_addresses[0][1], made.getsockname()[1])
                await listener.stop()
                self.assertEqual(descriptors_of(made), 1)
            socket.create_connection(made.getsockname()[:2]).close()
            self.assertFalse(os.get_inheritable(made.fileno()))

    async def test_adopted_unix(self) -> None:
        """A UNIX socket of the application's own keeps its file, and speaks no TLS."""
        path = self.mktemp()
        made = self.given(socket.AF_UNIX, path)
        os.chmod(path, 0o600)
        wanted = adopted_listener(reactor, made, private_key_context=TlsContext(pem_for()))
        listener = await self.listening(wanted)
        self.assertEqual((listener.is_tls, listener.is_loopback), (False, True))
        self.assertEqual(listener.addresses, (f"unix:{path}",))
        await self.talk(self.target(listener))
        await listener.stop()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    async def test_adopted_exposed(self) -> None:
        """A socket that others can reach is refused without TLS, before anybody could connect by us."""
        made = self.given(socket.AF_INET, ("0.0.0.0", 0))
        self.assertIn("without TLS", await self.refused(adopted_listener(reactor, made)))

    def test_adopted_problems(self) -> None:
        """What is no plain listening socket is refused with a reason."""
        closed = socket.socket()
        closed.close()
        connecting, packets = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        encrypted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_socket(
            self.given(socket.AF_INET, ("127.0.0.1", 0)), server_side=True
        )
        for made, reason in (
            (closed, "Bad file descriptor"),
            (connecting, "it is not a listening socket for TCP or UNIX connections"),
            (packets, "it is not a listening socket for TCP or UNIX connections"),
            (encrypted, "it speaks TLS already; give the socket beneath, and a private key"),
        ):
            self.addCleanup(made.close)
            problem = self.assertRaises(ListenError, adopted_listener, reactor, made)
            self.assertEqual(str(problem), f"cannot listen on the given socket: {reason}")

    async def test_everywhere(self) -> None:
        """Every interface means both families at one port, each with addresses of its own kind."""
        key = TlsContext(pem_for())
        listener = await self.listening(
            default_listener(reactor, 0, everywhere=True, private_key_context=key)
        )
        self.assertFalse(listener.is_loopback)
        hosts = ["0.0.0.0", "::"][: len(listener.ports)]
        self.assertEqual([str(host) for host, _ in listener.tcp_addresses], hosts)
        port = listener.tcp_addresses[0][1]
        self.assertEqual({found for _, found in listener.tcp_addresses}, {port})
        for host in ["127.0.0.1", "::1"][: len(hosts)]:
            await self.talk(f"tcp:{quoteStringArgument(host)}:{port}", tls=True)
            transport: Any = self.factory.made[-1].transport
            self.assertEqual(transport.getPeer().host, host)

    async def test_everywhere_exposed(self) -> None:
        """Every interface needs TLS, and that is known before anything listens."""
        listener = default_listener(reactor, 0, everywhere=True)
        self.assertTrue(listener.is_exposed)
        self.assertIn("without TLS", await self.refused(listener))

    async def test_everywhere_busy(self) -> None:
        """When IPv6 has the port taken, the other one is given back; a port on loopback takes it too."""
        await deferLater(reactor, 0)  # as above
        taken = self.given(socket.AF_INET6, ("::1", 0))
        port = taken.getsockname()[1]
        key = TlsContext(pem_for())
        listener = default_listener(reactor, port, everywhere=True, private_key_context=key)
        self.assertIn(f"cannot listen on [::]:{port}: ", await self.refused(listener))
        socket.create_server(("127.0.0.1", port)).close()

    async def test_unix(self) -> None:
        """A UNIX socket answers, knows its peer, and leaves no file behind."""
        path = self.mktemp()
        listener = await self.listening(parse_listener(reactor, f"unix:{path}:mode=600"))
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        await self.talk(self.target(listener))
        self.assertEqual(owner_of(self.factory.made[-1].transport), os.geteuid())
        self.assertEqual(listener.urls, (f"unix:{path}",))
        await listener.stop()
        self.assertEqual([name for name in os.listdir() if name.startswith(path)], [])

    async def test_unix_in_use(self) -> None:
        """The socket of a daemon that lives is not taken from it, nor is a file that is no socket."""
        path = self.mktemp()
        for lock in ("", ":lockfile=0"):
            listener = await self.listening(parse_listener(reactor, f"unix:{path}{lock}"))
            reason = await self.refused(parse_listener(reactor, f"unix:{path}{lock}"))
            self.assertIn("the address is in use", reason)
            await self.talk(self.target(listener))
            await listener.stop()
        Path(path).write_text("precious")
        self.assertIn("the address is in use", await self.refused(parse_listener(reactor, f"unix:{path}")))
        self.assertEqual(Path(path).read_text(), "precious")

    async def test_unix_stale(self) -> None:
        """A socket that a killed daemon left is replaced, even if a living process has its number by now."""
        for number in (os.getpid(), os.getppid(), None):
            path = self.mktemp()
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(path)
            if number is not None:
                os.symlink(str(number), path + ".lock")
            lock = "" if number else ":lockfile=0"
            listener = await self.listening(parse_listener(reactor, f"unix:{path}{lock}"))
            await self.talk(self.target(listener))

    async def test_unix_killed(self) -> None:
        """After kill -9 the next daemon listens on the same path."""
        path = self.mktemp()
        with subprocess.Popen(
            [sys.executable, "-c", DAEMON, path],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": ":".join(sys.path)},
        ) as daemon:
            assert daemon.stdout is not None
            try:
                self.assertEqual(daemon.stdout.readline(), b"listening\n")
            finally:
                daemon.kill()
        self.assertTrue(os.path.islink(path + ".lock"))
        listener = await self.listening(parse_listener(reactor, f"unix:{path}"))
        await self.talk(self.target(listener))

    async def test_unix_problems(self) -> None:
        """A path that cannot be a socket is told in one line, and leaves nothing behind."""
        for path in (self.mktemp() + "/none/s", self.mktemp() + "s" * 200):
            reason = await self.refused(parse_listener(reactor, f"unix:{path}"))
            self.assertTrue(reason.startswith(f"cannot listen on unix:{path}: "), reason)
            self.assertEqual(len(reason.splitlines()), 1)
            self.assertFalse(os.path.lexists(path + ".lock"))
