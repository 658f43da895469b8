"""The daemon inside programs: beside their reactors and loops, again and again, and nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial

from fileexport import Client, Server
from fileexport.wire.frames import PREFACE
from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import PATIENCE
from tests.proof.process import end, line_of
from tests.server_case import KEY, PIN, TOKEN, ServerCase, environment

#: Servers that run at the same time, and clients of each.
SERVERS, CLIENTS = 4, 4
#: Rounds of a program's own.
ROUNDS = 100 if SOAK else 10

#: What a client does with its connection.
Ask = Callable[[socket.socket], None]

_runs = Tally("runs of an embedded server")

#: Of every program: how it looks at itself, and one whole run of work by a server.
COMMON = f"""
import os, socket, sys, threading
from fileexport import Client, Server
ROOT, SOURCE = sys.argv[1:]
threads = threading.active_count
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
    return threads(), len(found), sum(link.startswith("socket:") for link in found)

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

def threads():
    # The server's are daemonic; those of this reactor's pool are not, and come and go as it likes.
    return sum(thread.daemon for thread in threading.enumerate())

async def main():
    for server in servers:
        await deferToThread(one_run, server)
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
    loop.slow_callback_duration = 60  # a busy machine is no mistake
    loop.set_default_executor(ThreadPoolExecutor(8))
    # Once alone: what Twisted has once in a process, two reactors that begin at once may make twice.
    await loop.run_in_executor(None, one_run, servers[0])
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
loop.slow_callback_duration = 60  # a busy machine is no mistake
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
import faulthandler, random, signal

# Where it hangs, it says where.
faulthandler.dump_traceback_later(120, exit=True)

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


def begun(case: ServerCase, command: list[str]) -> subprocess.Popen[str]:
    """A program, which ends with the test at the latest."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=environment()
    )
    case.addCleanup(end, process)
    return process


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
        process = begun(self, program)
        self.assertEqual(line_of(process), "run\n")
        process.send_signal(signal.SIGINT)
        self.assertEqual(line_of(process), "interrupted\n")
        self.assertEqual(line_of(process), "run\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(line_of(process), "terminated\n")
        self.assertEqual(process.wait(PATIENCE), 0)


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
        for key in (None, KEY):
            for with_http in (False, True):
                given = self.bound()
                server = self.server(key, http=with_http)
                ask = self.health if with_http else self.preface
                self.unchanged(partial(self.served, given, server, ask, is_tls=key is not None), ROUNDS)
                _runs.add(ROUNDS)

    def served(self, given: socket.socket, server: Server, ask: Ask, *, is_tls: bool) -> None:
        """A run that serves a connection which was there before."""
        waiting = socket.create_connection(given.getsockname(), PATIENCE)
        with waiting, server.running(socket=given):
            ask(self.secured(waiting) if is_tls else waiting)

    def secured(self, connection: socket.socket) -> socket.socket:
        """TLS on it; whose certificate it is nobody asks."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(connection)

    def health(self, connection: socket.socket) -> None:
        """HTTP is answered."""
        connection.sendall(b"GET /-/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        self.assertTrue(answer.startswith(b"HTTP/1.1 "), answer)
        connection.close()

    def preface(self, connection: socket.socket) -> None:
        """The transfer protocol is spoken."""
        answer = b""
        while len(answer) < len(PREFACE) and (more := connection.recv(len(PREFACE) - len(answer))):
            answer += more
        self.assertEqual(answer, PREFACE)
        connection.close()

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
            process = begun(self, [sys.executable, "-c", text])
            self.assertEqual(line_of(process), "listens\n")
            end(process)
        server = self.server(state_directory=state)
        with server.running(0):
            self.assertIn("hello.txt", self.client(server).list_files("/"))
