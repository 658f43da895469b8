"""The daemon inside programs: beside their reactors and loops, again and again, and nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

from fileexport import Client, Server
from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import PATIENCE
from tests.server_case import KEY, PIN, TOKEN, ServerCase, environment

#: Servers that run at the same time, and clients of each.
SERVERS, CLIENTS = 4, 4
#: Rounds of a program's own.
ROUNDS = 100 if SOAK else 10

_runs = Tally("runs of an embedded server")

#: Of every program: how it looks at itself, and one whole run of work by a server.
COMMON = f"""
import os, socket, sys, threading
from fileexport import Client, Server
ROOT, SOURCE = sys.argv[1:]
servers = [
    Server(ROOT, {TOKEN!r}, key, http=with_http) for key in (None, {KEY!r}) for with_http in (False, True)
]

def links():
    for name in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink("/proc/self/fd/" + name)
        except FileNotFoundError:
            pass  # the one that looks

def counts():
    found = list(links())
    return threading.active_count(), len(found), sum(link.startswith("socket:") for link in found)

def work(server):
    pin = {PIN!r} if server is servers[2] or server is servers[3] else None
    with Client("127.0.0.1", server.port, {TOKEN!r}, public_key=pin, timeout=30_000) as client:
        name = "file-%d" % server.port
        assert client.upload_file(SOURCE, "/", name)
        assert client.list_files("/")[name][1] == os.path.getsize(SOURCE)
        client.delete_file(name, "/")

def one_run(server):
    server.start(0)
    work(server)
    server.terminate()
    server.join()

def check(before):
    assert counts() == before, (counts(), before, list(links()), threading.enumerate())
"""

PLAIN = """
for server in servers:
    one_run(server)
before = counts()
for _ in range(ROUNDS):
    for server in servers:
        one_run(server)
check(before)
assert "twisted.internet.reactor" not in sys.modules
"""

#: A Twisted application whose own reactor turns in the main thread all the while.
TWISTED = """
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread

ticks, result = [], []

async def main():
    for server in servers:
        await deferToThread(one_run, server)
    reactor.suggestThreadPoolSize(1)
    before = counts()
    for _ in range(ROUNDS):
        for server in servers:
            await deferToThread(one_run, server)
    check(before)
    # Started and stopped in the reactor's own thread as well.
    for server in servers:
        server.start(0)
        await deferToThread(work, server)
        server.terminate()
        server.join()
    check(before)

beat = LoopingCall(ticks.append, 1)
beat.start(0.001)
done = Deferred.fromCoroutine(main())
done.addBoth(result.append)
done.addBoth(lambda _: reactor.callLater(0, reactor.stop))
reactor.run()
assert result == [None], result
assert len(ticks) > ROUNDS
"""

ASYNCIO = """
import asyncio
from concurrent.futures import ThreadPoolExecutor

async def serve(server):
    loop = asyncio.get_running_loop()
    running = loop.run_in_executor(None, server.run, 0)
    while not server.addresses:
        await asyncio.sleep(0.001)
    await loop.run_in_executor(None, work, server)
    server.terminate()
    await running

async def main():
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(8))
    for _ in range(3):
        await asyncio.gather(*map(serve, servers))
    before = counts()
    for _ in range(ROUNDS):
        await asyncio.gather(*map(serve, servers))
    assert counts()[1:] == before[1:], (counts(), before)
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("fileexport", "PoolThread"))]

asyncio.run(main())
assert "twisted.internet.reactor" not in sys.modules
"""

#: The daemon as a service in an application on asyncio's loop, beside a server with a reactor of its own.
SERVICE = """
import asyncio
from twisted.internet import asyncioreactor
loop = asyncio.new_event_loop()
asyncioreactor.install(loop)
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from fileexport.config import Settings
from fileexport.service import make_service

parent = MultiService()
os.environ["HOME"] = os.path.dirname(ROOT)
settings = Settings(root=ROOT, http=("none",), transfer_port=0)
service = make_service(settings, token="a-token-of-the-service")
service.setServiceParent(parent)
result = []

def ask():
    (address, port), *_ = service.tcp_addresses
    with Client(str(address), port, "a-token-of-the-service", timeout=30_000) as client:
        client.list_files("/")

async def main():
    for _ in range(ROUNDS):
        parent.startService()
        servers[3].start(0)
        await deferToThread(ask)
        await deferToThread(work, servers[3])
        servers[3].terminate()
        await parent.stopService()
        await deferToThread(servers[3].join)
        assert service.tcp_addresses == ()

def end(outcome):
    result.append(outcome)
    reactor.stop()

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()).addBoth(end))
reactor.run()
assert result == [None], result
"""

#: Ends by Ctrl-C in the first round, and by SIGTERM, which it takes itself, in the second.
SIGNALS = """
import signal
server = servers[0]
try:
    print("run", flush=True)
    server.run(0)
except KeyboardInterrupt:
    print("interrupted", flush=True)
assert not server.is_running
signal.signal(signal.SIGTERM, lambda number, frame: server.terminate())
server.start(0)
print("run", flush=True)
server.join()
assert not server.is_running
print("terminated", flush=True)
"""

#: Interrupted somewhere in its beginning, or just after it, many times.
INTERRUPTED = """
import random, signal

def interrupt(number, frame):
    raise KeyboardInterrupt

server = servers[0]
for early in (server, servers[1]):
    one_run(early)
before = counts()
signal.signal(signal.SIGALRM, interrupt)
for _ in range(10 * ROUNDS):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.015))
        server.run(0)
    except KeyboardInterrupt:
        pass
    server.join()
check(before)
assert not server.is_running
"""


class EmbeddingTests(ServerCase):
    """Programs as users write them, each in a process of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.source = self.base / "source"
        self.source.write_bytes(os.urandom(300_000))

    def program(self, text: str) -> list[str]:
        """The command that runs it."""
        whole = COMMON + f"ROUNDS = {ROUNDS}\n" + text
        return [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", whole]

    def passes(self, text: str, runs: int = 4 * ROUNDS) -> None:
        """Run a program, which must say nothing and end well."""
        done = subprocess.run(
            [*self.program(text), str(self.root), str(self.source)],
            capture_output=True,
            encoding="utf-8",
            timeout=10 * PATIENCE,
            env=environment(),
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        # What is staged lies in a directory of its own, which a start removes where it is empty.
        self.assertEqual({*os.listdir(self.root)} - {".fileexport"}, {"hello.txt"})
        _runs.add(runs)

    def test_alone(self) -> None:
        """Plain and with TLS, one protocol and both: no thread, descriptor or socket is left of any run."""
        self.passes(PLAIN)

    def test_twisted(self) -> None:
        """The same beside a reactor of the application's own in the main thread, which goes on turning."""
        self.passes(TWISTED)

    def test_asyncio(self) -> None:
        """The same under asyncio, four at once in threads of its executor."""
        self.passes(ASYNCIO)

    def test_service(self) -> None:
        """A service under an application's parent on asyncio's reactor, started again and again."""
        self.passes(SERVICE)

    def test_interrupted(self) -> None:
        """A run that is interrupted at any moment has ended when the exception comes through."""
        self.passes(INTERRUPTED, 10 * ROUNDS)

    def test_signals(self) -> None:
        """Ctrl-C interrupts a run in the main thread; a handler of the application's may terminate one."""
        program = [*self.program(SIGNALS), str(self.root), str(self.source)]
        with subprocess.Popen(
            program, stdout=subprocess.PIPE, encoding="utf-8", env=environment()
        ) as process:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            self.assertEqual(next(lines), "run\n")
            process.send_signal(signal.SIGINT)
            self.assertEqual(next(lines), "interrupted\n")
            self.assertEqual(next(lines), "run\n")
            process.send_signal(signal.SIGTERM)
            self.assertEqual(next(lines), "terminated\n")
        self.assertEqual(process.returncode, 0)


class TogetherTests(ServerCase):
    """Several servers in this process, and one socket for many runs."""

    def test_several(self) -> None:
        """Servers that run at once serve their clients, while others of them start and stop."""
        servers = [self.server(*([KEY] if number % 2 else [])) for number in range(SERVERS)]
        failed: list[BaseException] = []

        def use(server: Server, pin: str | None) -> None:
            try:
                for _ in range(3):
                    with server.running(0):
                        clients = [threading.Thread(target=ask, args=(server, pin)) for _ in range(CLIENTS)]
                        for client in clients:
                            client.start()
                        for client in clients:
                            client.join()
            except BaseException as error:
                failed.append(error)

        def ask(server: Server, pin: str | None) -> None:
            try:
                with Client("127.0.0.1", server.port, TOKEN, public_key=pin, timeout=30_000) as client:
                    self.assertIn("hello.txt", client.list_files("/"))
            except BaseException as error:
                failed.append(error)

        def run() -> None:
            users = [
                threading.Thread(target=use, args=(server, PIN if number % 2 else None))
                for number, server in enumerate(servers)
            ]
            for user in users:
                user.start()
            for user in users:
                user.join()

        self.unchanged(run, 2)
        self.assertEqual(failed, [])
        _runs.add(3 * 3 * SERVERS)

    def test_one_socket(self) -> None:
        """Who connects to the application's own socket between two runs is served by the next one."""
        given = self.bound()
        server = self.server(http=True)

        def run() -> None:
            with socket.create_connection(given.getsockname()) as waiting:
                with server.running(socket=given):
                    waiting.sendall(b"GET /-/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    answer = b"".join(iter(lambda: waiting.recv(1 << 16), b""))
                self.assertTrue(answer.startswith(b"HTTP/1.1 "), answer)

        self.unchanged(run, ROUNDS)
        _runs.add(ROUNDS)

    def test_killed(self) -> None:
        """A program that is killed leaves a state directory that the next server takes up."""
        state = self.base / "state"
        text = f"""
from fileexport import Server
Server({str(self.root)!r}, {TOKEN!r}, state_directory={str(state)!r}).start(0)
print("listens", flush=True)
input()
"""
        for _ in range(3):
            with subprocess.Popen(
                [sys.executable, "-c", text],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                env=environment(),
            ) as process:
                assert process.stdout is not None
                self.assertEqual(process.stdout.readline(), "listens\n")
                process.kill()
        server = self.server(state_directory=state)
        with server.running(0):
            self.assertIn("hello.txt", self.client(server).list_files("/"))
