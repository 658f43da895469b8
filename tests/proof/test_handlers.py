"""Handlers of an application's own: the programs of the manual as they are, and one mounted in the daemon."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

from tests.proof.asking import Answer, Incomplete, ask, curl, everything, parse, request
from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import CHECKOUT, PATIENCE, Daemon
from tests.proof.process import line_of, resting
from tests.raw_bodies import TABLE
from tests.raw_requests import Then

EXAMPLES = CHECKOUT / "docs" / "examples"
#: Requests at a time, and rounds of them.
AT_ONCE, ROUNDS = (1000, 10) if SOAK else (200, 1)
#: Kills of a program that is changing its file.
KILLS = 30 if SOAK else 3
#: The seconds that a stop leaves to a handler that never returns: its own take too long for a proof.
GRACE = None if SOAK else 0.5

TALLY = Tally("requests to handlers")

#: What no example should do.
WRONG = f"""
import sys, threading
from contextlib import suppress
from fileexport import embed

embed.GRACE = {GRACE} or embed.GRACE

def answer(request, response):
    response.data = "fine"
    match request.path:
        case ["raise"]:
            raise RuntimeError("a secret of the program's")
        case ["exit"]:
            sys.exit("a secret of the program's")
        case ["never"]:
            threading.Event().wait()

with suppress(KeyboardInterrupt), embed.HttpServer(0, answer, block=False) as server:
    print(server.url, flush=True)
    server.join()
print("ended")
"""

#: A server that blocks the main thread, and what Ctrl-C comes to.
BLOCKED = """
import threading, time
from fileexport.embed import HttpServer

def answer(request, response):
    response.data = "fine"

def tell():
    while not (server.is_running and server.port):
        time.sleep(0.01)
    print(server.url, flush=True)

server = HttpServer(0, answer, start=False)
threading.Thread(target=tell).start()
try:
    server.start()
except KeyboardInterrupt:
    print("interrupted", server.is_running, threading.active_count())
"""

#: Servers that come and go, in a thread beside a host or in the host's own.
BESIDE = f"""
import asyncio, os, ssl, sys, threading, urllib.request
from fileexport.embed import HttpServer
from fileexport.keys import generate_keys

key, context = generate_keys()[1], ssl._create_unverified_context()

def answer(request, response):
    response.data = "fine"

def once(private_key):
    with HttpServer(0, answer, block=False, private_key=private_key) as server:
        with urllib.request.urlopen(server.url, context=private_key and context) as reply:
            assert reply.read() == b"fine"

def counts():
    return threading.active_count(), sorted(map(link, os.listdir("/proc/self/fd")))

def link(number):
    try:
        return os.readlink(f"/proc/self/fd/{{number}}").partition(":")[0]
    except OSError:  # that of listing the directory itself
        return ""

def run(rounds={100 if SOAK else 10}):
    once(None), once(key)
    before = counts()
    for _ in range(rounds):
        once(None), once(key)
    assert counts() == before, (counts(), before)
    return "fine"

def alone():
    return run()

async def in_asyncio():
    return run() and await asyncio.to_thread(run)

def in_reactor():
    from twisted.internet import defer, reactor, threads
    said = []
    def begin():
        said.append(run())
        threads.deferToThread(run).addBoth(said.append).addBoth(lambda _: reactor.stop())
    reactor.callWhenRunning(begin)
    reactor.run()
    return said[1] if said[0] == "fine" else said[0]

host = sys.argv[1]
print(asyncio.run(in_asyncio()) if host == "asyncio" else {{"alone": alone, "reactor": in_reactor}}[host]())
"""


class Program:
    """A program that prints the URL where it listens; killed at the end where it still runs."""

    def __init__(self, here: Path, *command: str | Path, descriptors: int = 0) -> None:
        """`descriptors`: its soft limit of open ones, where that is not ours."""

        def prepare() -> None:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))

        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=here,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            preexec_fn=prepare if descriptors else None,
        )
        self.url = line_of(self.process).strip()
        self.port = urlsplit(self.url).port or 0

    def kill(self) -> None:
        """End it without warning."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def interrupt(self) -> tuple[int, str, str]:
        """Press Ctrl-C: its exit status, and what it said."""
        self.process.send_signal(signal.SIGINT)
        said, wrong = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said, wrong


class Case(SynchronousTestCase):
    """Has a directory where programs run."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="fileexport-handlers-")
        self.addCleanup(directory.cleanup)
        self.here = Path(directory.name)

    def start(self, *command: str | Path, descriptors: int = 0) -> Program:
        """Start a program."""
        program = Program(self.here, *command, descriptors=descriptors)
        self.addCleanup(program.kill)
        self.assertTrue(program.url, "it does not listen")
        return program

    def all_at_once(self, port: int, sent: Sequence[bytes]) -> list[Answer]:
        """Send each on a connection of its own; all are open, and have sent, before the first is read."""
        ends = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in sent]
        try:
            for end, data in zip(ends, sent, strict=True):
                end.sendall(data)
            answers = [parse(everything(end), head=False) for end in ends]
        finally:
            for end in ends:
                end.close()
        TALLY.add(len(sent), "at once")
        return answers


def narrow(port: int) -> socket.socket:
    """A connection that takes little at a time."""
    end = socket.socket()
    end.settimeout(PATIENCE)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    end.connect(("127.0.0.1", port))
    return end


def exchanged(port: int, data: bytes) -> Answer:
    """What is answered to these bytes, after which the server closes."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as end:
        end.sendall(data)
        return parse(everything(end), head=data.startswith(b"HEAD "))


def put(port: int, path: str, text: str) -> int:
    """Send JSON, with curl; the status of the answer."""
    url = f"http://127.0.0.1:{port}/{path}"
    done = curl("-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "PUT", "-d", text, url)
    return int(done.stdout)


def closing(target: str, method: str = "GET", body: bytes = b"") -> bytes:
    """A request whose answer ends its connection."""
    head = request(target, method, {"Connection": "close", "Content-Length": str(len(body))})
    return head + body


class TutorialTests(Case):
    """The three programs of the manual's tutorial, run as they are written."""

    def test_serve(self) -> None:
        """Files are served, to many at once, and nothing above or hidden."""
        (self.here / "index.html").write_text("<p>the page", encoding="ascii")
        (self.here / "large").write_bytes(os.urandom(1 << 20))
        (self.here / ".env").write_text("secret", encoding="ascii")
        (self.here / "d").mkdir()
        program = self.start(EXAMPLES / "serve.py", "0")
        page = ask(program.port, "/")
        self.assertEqual((page.status, page.body), (200, b"<p>the page"))
        self.assertEqual(page.fields["Content-Type"], "text/html; charset=utf-8")
        for target in ("/../x", "/%2e%2e/x", "/.env", "/none", "/d/", "/index.html/"):
            self.assertEqual(ask(program.port, target).status, 404, target)
        self.assertEqual(ask(program.port, "/d").fields["Location"], "d/")
        before = resting(program.process.pid)
        for _ in range(ROUNDS):
            answers = self.all_at_once(program.port, [closing("/"), closing("/large")] * (AT_ONCE // 2))
            large = (self.here / "large").read_bytes()
            self.assertEqual({answer.status for answer in answers}, {200})
            self.assertTrue(all(answer.body in (b"<p>the page", large) for answer in answers))
        self.assertEqual(resting(program.process.pid), before)
        self.assertEqual(program.interrupt(), (0, "", ""))

    def test_serve_slowly(self) -> None:
        """A large file goes whole to as many at once, all in the middle of it, at the usual limits."""
        large = os.urandom(1 << 20) * 8
        (self.here / "large").write_bytes(large)
        # As 1,024 for a thousand: enough for the connections, and not for as many files.
        program = self.start(EXAMPLES / "serve.py", "0", descriptors=AT_ONCE + 24)
        before = resting(program.process.pid)
        ends = [narrow(program.port) for _ in range(AT_ONCE)]
        for end in ends:
            self.addCleanup(end.close)
            end.sendall(closing("/large"))
        for end in ends:
            # Once a head has come its file is open, and far too large for what waits in the sockets.
            self.assertTrue(end.recv(1, socket.MSG_PEEK))
        for end in ends:
            answer = parse(everything(end))
            self.assertEqual(answer.status, 200)
            self.assertTrue(answer.body == large)
            end.close()
        TALLY.add(AT_ONCE, "slow")
        self.assertEqual(resting(program.process.pid), before)
        self.assertEqual(program.interrupt(), (0, "", ""))

    def test_words(self) -> None:
        """Two words are answered and nothing else, also after all that is no request."""
        program = self.start(EXAMPLES / "words.py", "0")
        for _ in range(ROUNDS):
            targets = ["/hello", "/ping", "/none", "/hello/"]
            answers = self.all_at_once(program.port, [closing(target) for target in targets * (AT_ONCE // 4)])
            found = [(answer.status, answer.body) for answer in answers]
            none = (404, b"there is no such word")
            self.assertEqual(found, [(200, b"world"), (200, b"pong"), none, none] * (AT_ONCE // 4))
        for label, data, status, then in TABLE:
            # A part of a file is what the exported tree refuses, not the protocol.
            if status == 400 and then is Then.CLOSED and b"Content-Range" not in data:
                self.assertEqual(exchanged(program.port, data).status, 400, label)
                TALLY.add(1, "bad")
        self.assertEqual(ask(program.port, "/hello").body, b"world")
        self.assertEqual(program.interrupt(), (0, "", ""))

    def test_store(self) -> None:
        """What was put is there at the next start, all of what came at once; what was deleted is not."""
        program = self.start(EXAMPLES / "store.py", "0")
        self.assertEqual(ask(program.port, "/").body, b"{}")
        many = [closing(f"/n{n}", "PUT", b'{"n": %d}' % n) for n in range(AT_ONCE)]
        self.assertEqual({answer.status for answer in self.all_at_once(program.port, many)}, {201})
        self.assertEqual((put(program.port, "ü", "[1]"), put(program.port, "ü", "2")), (201, 200))
        self.assertEqual(ask(program.port, "/%C3%BC").body, b"2")
        for wrong in (b"", b"{", b"NaN", b"[" * 100_000, b'"\xff"'):
            answer = exchanged(program.port, closing("/wrong", "PUT", wrong))
            self.assertEqual(answer.status, 400, wrong[:10])
        self.assertEqual(ask(program.port, "/wrong").status, 404)
        self.assertEqual([ask(program.port, "/n1", "DELETE").status for _ in range(2)], [204, 404])
        post = ask(program.port, "/n2", "POST")
        self.assertEqual((post.status, post.fields["Allow"]), (405, "GET, HEAD, PUT, DELETE"))
        self.assertEqual(program.interrupt(), (0, "", ""))
        again = self.start(EXAMPLES / "store.py", "0")
        wanted = {f"n{n}": {"n": n} for n in range(AT_ONCE) if n != 1} | {"ü": 2}
        self.assertEqual(json.loads(ask(again.port, "/").body), wanted)

    def test_store_killed(self) -> None:
        """Whenever it is killed, all that it said it keeps is there at the next start."""
        said: dict[str, int] = {}
        kept = 0
        for kill in range(KILLS):
            program = self.start(EXAMPLES / "store.py", "0")
            self.assertLessEqual(said.items(), json.loads(ask(program.port, "/").body).items())
            timer = threading.Timer(0.1 + 0.05 * (kill % 5), program.process.kill)
            timer.start()
            for number in count():
                name = f"{number % 7}"
                # Until it is answered nobody knows what is kept under this name.
                said.pop(name, None)
                try:
                    answer = exchanged(program.port, closing(f"/{name}", "PUT", b"%d" % number))
                except (Incomplete, OSError):
                    break
                self.assertIn(answer.status, (200, 201))
                said[name] = number
                kept += 1
            timer.join()
            program.process.communicate()
            TALLY.add(1, "kills")
        self.assertGreater(kept, KILLS)


class WrongTests(Case):
    """Handlers as they should not be."""

    def test_wrong(self) -> None:
        """One that raises is a plain 500 and logged; one that never returns holds up nobody, nor the end."""
        program = self.start("-c", WRONG)
        for target in ("/raise", "/exit"):
            answer = ask(program.port, target)
            self.assertEqual((answer.status, answer.body), (500, b"Internal Server Error"))
        stuck = [socket.create_connection(("127.0.0.1", program.port), PATIENCE) for _ in range(50)]
        for end in stuck:
            self.addCleanup(end.close)
            end.sendall(request("/never"))
        answers = self.all_at_once(program.port, [closing("/fine")] * AT_ONCE)
        self.assertEqual({(answer.status, answer.body) for answer in answers}, {(200, b"fine")})
        status, said, wrong = program.interrupt()
        self.assertEqual((status, said), (0, "ended\n"))
        self.assertEqual(wrong.count("a secret of the program's"), 2)
        self.assertIn("Traceback", wrong)


class HostTests(Case):
    """Servers in programs that have something else to do."""

    def test_beside(self) -> None:
        """Ten starts and stops, plain and with TLS, leave nothing behind, whatever else the program runs."""
        for host in ("alone", "asyncio", "reactor"):
            program = Program(self.here, "-c", BESIDE, host)
            self.addCleanup(program.kill)
            # It listens nowhere for us: its first line is its last.
            _, wrong = program.process.communicate(timeout=PATIENCE)
            self.assertEqual((program.url, wrong), ("fine", ""), host)

    def test_interrupted(self) -> None:
        """Ctrl-C in a start that blocks stops the server, and reaches the program."""
        program = self.start("-c", BLOCKED)
        self.assertEqual(ask(program.port, "/").body, b"fine")
        self.assertEqual(program.interrupt(), (0, "interrupted False 1\n", ""))


class MountTests(Case):
    """`--handler` of a real daemon."""

    def setUp(self) -> None:
        super().setUp()
        self.root = self.here / "root"
        self.root.mkdir()
        (self.root / "words").mkdir()
        (self.root / "words" / "f").write_text("exported", encoding="ascii")

    def test_words(self) -> None:
        """An example of the manual is mounted, under the daemon's checks, beside what is exported."""
        with Daemon(self.root, "--handler", "/words=docs.examples.words:answer") as daemon:
            port = urlsplit(daemon.url).port or 0
            answers = self.all_at_once(port, [closing("/words/hello"), closing("/words/x")] * (AT_ONCE // 2))
            found = [(answer.status, answer.body) for answer in answers]
            self.assertEqual(found, [(200, b"world"), (404, b"there is no such word")] * (AT_ONCE // 2))
            self.assertEqual(ask(port, "/-/files/words/f").body, b"exported")
            self.assertIn(b'href="/-/files/words/"', ask(port, "/").body)
            self.assertEqual(ask(port, "/words/hello", fields={"Host": "evil.example"}).status, 403)
            self.assertEqual(ask(port, "/words/hello", "POST", {"Origin": "http://evil.example"}).status, 403)
            self.assertEqual(daemon.stop(), 0)
            self.assertIn('"GET /words/hello HTTP/1.1" 200', daemon.output)

    def test_rights(self) -> None:
        """Without the right to read nobody hears from a handler."""
        with Daemon(
            self.root, "--handler", "/words=docs.examples.words:answer", "--anonymous", "none"
        ) as daemon:
            token = Path(f"{self.root}.state", "token").read_text(encoding="ascii").split()[0]
            port = urlsplit(daemon.url).port or 0
            self.assertEqual(ask(port, "/words/hello").status, 401)
            answer = ask(port, "/words/hello", fields={"Authorization": f"Bearer {token}"})
            self.assertEqual((answer.status, answer.body), (200, b"world"))

    def test_current_directory(self) -> None:
        """`fileexport run` imports a module of the current directory, and names all that is wrong at once."""
        (self.here / "own.py").write_text(
            "import time\n"
            "def fail(request, response):\n"
            "    raise RuntimeError('a secret of the program')\n"
            "def never(request, response):\n"
            "    time.sleep(1000)\n"
            "def told(request, response):\n"
            "    response.data = request.headers.get('authorization', 'nothing')\n"
            "async def late(request, response):\n"
            "    pass\n",
            encoding="ascii",
        )
        (self.here / "page.html").write_text("<script>", encoding="ascii")
        fileexport = Path(sys.executable).parent / "fileexport"
        command = (fileexport, "run", "root", "0", "-p", "0", "--state", "state")
        wrong = ("/a=own:none", "/list=own:fail", "/b=no_such:f", "/c=own:late")
        done = subprocess.run(
            [*command, *(word for mount in wrong for word in ("--handler", mount))],
            cwd=self.here,
            capture_output=True,
            encoding="utf-8",
        )
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(
            done.stderr.splitlines(),
            [
                "Error: --handler /a=own:none: AttributeError: module 'own' has no attribute 'none'",
                "Error: --handler /list=own:fail: the daemon has that path itself; choose another",
                "Error: --handler /b=no_such:f: ModuleNotFoundError: No module named 'no_such'",
                "Error: --handler /c=own:late: ValueError: a handler is a plain function: this one is async, "
                "or yields",
            ],
        )
        good = "/fail=own:fail", "/never=own:never", "/told=own:told", "/p=fileexport.embed:static_resource"
        process = subprocess.Popen(
            [*command, *(word for mount in good for word in ("--handler", mount))],
            cwd=self.here,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stderr is not None
        self.addCleanup(process.stderr.close)
        url = next(filter(None, (re.search(r"HTTP on (http://127\S+)", line) for line in process.stderr)))[1]
        port = urlsplit(url).port or 0
        answer = ask(port, "/fail")
        self.assertEqual((answer.status, answer.body), (500, b"Internal Server Error"))
        token = (self.here / "state" / "token").read_text(encoding="ascii").split()[0]
        self.assertEqual(ask(port, "/told", fields={"Authorization": f"Bearer {token}"}).body, b"nothing")
        page = ask(port, "/p/page.html")
        self.assertEqual((page.status, page.body), (200, b"<script>"))
        self.assertIn("sandbox", page.fields["Content-Security-Policy"])
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as stuck:
            stuck.sendall(request("/never"))
            self.assertEqual(ask(port, "/list?dir=/").status, 200)
        if SOAK:
            # It takes the whole grace of a stop.
            process.terminate()
            self.assertEqual(process.wait(PATIENCE), 0)
