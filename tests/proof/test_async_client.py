"""`AsyncClient` against real daemons: a thousand operations, TLS, other reactors, the end of its program."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from fileexport.client.deferred.client import AsyncClient
from fileexport.keys import pin_of
from fileexport.reactor_thread import ReactorThread
from fileexport.wire.frames import ALPN
from tests.proof import test_transfer_tls as tls
from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import CHECKOUT, PATIENCE
from tests.proof.process import MIB, descriptors
from tests.proof.transfer_case import TransferCase, content

T = TypeVar("T")
OPERATIONS = Tally("operations of a Twisted client")
#: One after the other gets its thousand.
ROUNDS = 20 if SOAK else 1


@implementer(IStreamClientEndpoint)
class TlsEndpoint:
    """TLS as an application of its own may have it, on a reactor that is not the global one."""

    def __init__(self, reactor: Any, port: int, options: Any) -> None:
        self._reactor = reactor
        self._options = options
        self._plain = TCP4ClientEndpoint(reactor, "127.0.0.1", port)

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Connect."""
        outer = TLSMemoryBIOFactory(self._options, True, factory, clock=self._reactor)
        return self._plain.connect(outer)


class Waiting:
    """An `AsyncClient` as if it were a `Client`: every call waits for the reactor's thread."""

    def __init__(self, thread: ReactorThread, client: AsyncClient) -> None:
        self._thread = thread
        self._client = client

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            return self._thread.call(lambda: Deferred.fromCoroutine(self._wait(name, args, named)))

        return call

    async def _wait(self, name: str, args: Any, named: Any) -> Any:
        found = getattr(self._client, name)(*args, **named)
        return await found if isinstance(found, Deferred) else [one async for one in found]


class AsyncCase(TransferCase):
    """Its clients are Twisted's."""

    def setUp(self) -> None:
        super().setUp()
        self.thread = ReactorThread("test")
        self.thread.start()
        self.addCleanup(self.thread.stop)

    def client(self, port: int, **options: Any) -> Any:
        """A client with the token until the test is over."""
        hostname, token = options.pop("hostname", "127.0.0.1"), options.pop("token", self.token)
        client = AsyncClient(hostname, port, token, reactor=self.thread.reactor, **options)
        waiting = Waiting(self.thread, client)
        self.addCleanup(waiting.close)
        return waiting

    def carry_out(self, function: Callable[[], Awaitable[T]]) -> T:
        """The result of a coroutine function in the reactor's thread."""

        async def wait() -> T:
            return await function()

        return self.thread.call(lambda: Deferred.fromCoroutine(wait()))


class RightTlsTests(AsyncCase, tls.TlsCase):
    """The right servers, as for `Client`."""

    def test_right(self) -> None:
        """A certificate of an authority, for a name and for an address; and the pin of a key."""
        port = self.ssl(self.localhost)
        self.works(port, hostname="localhost", ca_file=str(self.ca_file))
        self.works(port, ca_file=str(self.ca_file))
        self.works(port, public_key=pin_of(self.localhost.read_text()))

    def test_endpoint_with_tls(self) -> None:
        """An endpoint that brings TLS has judged the server; the proof is bound to its certificate."""
        port = self.ssl(self.localhost)
        authority = Certificate.loadPEM(self.authority.cert_pem.bytes())
        options = optionsForClientTLS("localhost", authority, acceptableProtocols=[ALPN])
        self.works(1, endpoint=TlsEndpoint(self.thread.reactor, port, options))

    def test_unix_socket(self) -> None:
        """A socket of this machine needs no TLS."""
        # Its name may have 107 bytes, and the test's own directory may lie deep.
        short = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, short)
        path = Path(short) / "socket"
        self.daemon(listener=f"unix:{path}").expect("transfer on unix")
        self.works(1, endpoint=UNIXClientEndpoint(self.thread.reactor, str(path)))


class WrongTlsTests(AsyncCase, tls.WrongTests):
    """The wrong servers, as for `Client`."""


class ThousandTests(AsyncCase):
    """Many operations on one connection."""

    def test_half_cancelled(self) -> None:
        """Of 1,000 operations at once half are cancelled: the others are right, and one connection did it."""
        daemon = self.daemon()
        for number in range(250):
            (self.root / f"{number}").write_bytes(content(f"{number}", number * 37))
        client = self.client(daemon.transfer_port)._client
        for _ in range(ROUNDS):
            self.carry_out(lambda: self.thousand(client))
        self.assertEqual(self.thread.call(lambda: len(client._board._links)), 1)
        self.assertEqual(self.thread.call(client.close), None)
        self.assertNotIn("fileexport-bridge", {one.name for one in threading.enumerate()})

    async def thousand(self, client: AsyncClient) -> None:
        """Begin and half cancel; in the end the connection is of use."""
        cancelled = [0] * 4
        first = client.stat("/0")
        source = self.source("source", 100_000)
        begun: list[tuple[Deferred[Any], object]] = []
        for number in range(250):
            path, size = f"/{number}", number * 37
            begun.append((client.stat(path).addCallback(lambda one: one.size), size))
            begun.append((Deferred.fromCoroutine(_whole(client, path)), content(str(number), size)))
            begun.append((client.upload_file(source, "/", f"up{number}", replace=True), True))
            begun.append((client.download_file(path, self.base, f"down{number}", replace=True), True))
        # Each of the four kinds is cancelled half the time, some of them under way.
        # Once the first has been answered, others are.
        await first
        links = tuple(client._board._links)
        early = [one for index, (one, _) in enumerate(begun) if index // 4 % 4 == 1 and not one.called]
        for deferred in early:
            deferred.cancel()
        await client.list_files("/")
        late = [one for index, (one, _) in enumerate(begun) if index // 4 % 4 == 3 and not one.called]
        for deferred in late:
            deferred.cancel()
        for index, (deferred, expected) in enumerate(begun):
            try:
                self.assertEqual(await deferred, expected)
                OPERATIONS.add(1, "done")
            except CancelledError:
                self.assertTrue(index // 4 % 2)
                cancelled[index % 4] += 1
                OPERATIONS.add(1, "cancelled")
        self.assertEqual(sum(cancelled), len(early) + len(late))
        self.assertNotIn(0, cancelled)
        self.assertTrue(early)
        self.assertTrue(late)
        # Some were under way: the server was told so, on the one connection that there is.
        self.assertIsNotNone(links[0].dropped_at)
        self.assertEqual(tuple(client._board._links), links)
        self.assertGreaterEqual(len(await client.list_files("/")), 250 + 125)

    def test_nothing_is_left(self) -> None:
        """Connected and closed ten times, with transfers under way, it leaves no descriptor and no thread."""
        port = self.daemon().transfer_port
        source = self.source("source", 4 * MIB)
        counts = []
        for turn in range(10):
            client = self.client(port)._client

            async def use(client: AsyncClient = client, turn: int = turn) -> None:
                # Names of its own: those of the turn before may still be held by what was broken off.
                names = [f"{turn}-{number}" for number in range(20)]
                begun = [client.upload_file(source, "/", name) for name in names]
                await begun[0]
                await client.close()
                for one in begun:
                    one.addErrback(lambda failure: failure.trap(CancelledError))

            self.carry_out(use)
            counts.append((descriptors(os.getpid()), threading.active_count()))
        self.assertEqual(counts[2:], counts[2:3] * 8)


async def _whole(client: AsyncClient, path: str) -> bytes:
    return b"".join([piece async for piece in client.read(path)])


ASYNCIO = """
import asyncio, os, sys
from twisted.internet import asyncioreactor
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
asyncioreactor.install(loop)
from fileexport import AsyncClient

async def main():
    client = AsyncClient("127.0.0.1", int(os.environ["FILEEXPORT_PORT"]), os.environ["FILEEXPORT_TOKEN"])
    await client.upload_file(sys.argv[1], "/", "there").asFuture(loop)
    sizes = await asyncio.gather(*(client.stat("/there").asFuture(loop) for _ in range(100)))
    names = []
    found = client.entries("/")
    try:
        while True:
            names.append((await anext(found).asFuture(loop)).path)
    except StopAsyncIteration:
        pass
    await client.close().asFuture(loop)
    print({one.size for one in sizes}, names)

loop.run_until_complete(main())
"""

SERVICE = """
import os
from twisted.application import service
from twisted.internet import reactor
from fileexport import AsyncClient

client = AsyncClient("127.0.0.1", int(os.environ["FILEEXPORT_PORT"]), os.environ["FILEEXPORT_TOKEN"])

def ended(result, name):
    print("ended", name, type(result.value).__name__, flush=True)

def told(done, size):
    print("sending", flush=True)

def begin():
    for number in range(20):
        upload = client.upload_file(os.environ["SOURCE"], "/", str(number), progress=told)
        upload.addErrback(ended, number)

reactor.callWhenRunning(begin)
application = service.Application("uploads")
"""


class ProgramTests(TransferCase):
    """Programs that use it."""

    def test_asyncio(self) -> None:
        """It works on asyncio's loop, awaited by asyncio's coroutines."""
        port = self.daemon().transfer_port
        source = self.source("source", MIB)
        done = subprocess.run(
            (sys.executable, "-c", ASYNCIO, str(source)),
            env=self.environ(port),
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((done.stdout, done.returncode), (f"{{{MIB}}} ['there']\n", 0), done.stderr)

    def test_twistd_stopped(self) -> None:
        """`twistd` that is stopped in the midst of transfers ends at once; nothing half-sent has a name."""
        port = self.daemon().transfer_port
        source = self.source("source", 64 * MIB)
        program = self.write("uploads.tac", SERVICE.encode())
        twistd = os.path.join(os.path.dirname(sys.executable), "twistd")
        environ = self.environ(port, SOURCE=str(source), PYTHONUNBUFFERED="1")
        path = os.pathsep.join(filter(None, (str(CHECKOUT / "src"), os.environ.get("PYTHONPATH"))))
        with subprocess.Popen(
            (twistd, "-n", "--pidfile=", "-y", str(program)),
            env={**environ, "PYTHONPATH": path},
            cwd=self.base,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if "sending" in line:
                    break
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=PATIENCE)
        self.assertIn("CancelledError", said)
        self.assertNotIn("Unhandled", said)
        for name in os.listdir(self.root):
            if name != ".fileexport":
                self.assert_content(self.root / name, "source", 64 * MIB)
