"""Many at once: the daemon's memory and descriptors stay what they are, and others are served meanwhile."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from threading import Event
from urllib.parse import urlsplit

from twisted.trial.unittest import SkipTest

from fileexport.keys import generate_keys
from tests.proof.asking import Kept, any_certificate, ask, curl, everything, parse, request
from tests.proof.commands import DaemonCase
from tests.proof.counts import SOAK
from tests.proof.daemon import PATIENCE, Daemon
from tests.proof.process import MIB, forget_peak, peak, resident, resting, say
from tests.raw_bodies import TABLE
from tests.raw_requests import Then

#: Bytes of a body that nobody wants, and by how much it may raise the daemon's memory.
BODY, BODY_MEMORY = 300 * MIB, 32 * MIB
#: Connections that do nothing, and how many of them one address may have.
IDLE, PER_ADDRESS = (10_000 if SOAK else 2000), 1000
#: Requests that cannot be read, in rounds of so many.
BAD, BAD_ROUNDS = 1000, (10 if SOAK else 1)
#: Downloads at a time whose readers are slow, and what the daemon may take with them.
SLOW, SLOW_MEMORY = (256 if SOAK else 64), 150 * MIB
#: Requests and connections before and while memory is compared; and by what factor it may grow.
REQUESTS, CONNECTIONS, GROWTH = (100_000, 10_000, 1.05) if SOAK else (1200, 300, 1.05)


class LoadCase(DaemonCase):
    """Has a daemon, as users have it, that speaks plain HTTP on `port` and TLS on `tls_port`."""

    def setUp(self) -> None:
        super().setUp()
        (self.root / "small").write_bytes(b"a small file\n")
        (self.root / "large").write_bytes(os.urandom(16 * MIB))
        (self.root / "d").mkdir()
        for number in range(50):
            (self.root / "d" / f"{number}.txt").write_bytes(b"%d\n" % number * 2000)
        pem = self.write("server.pem", generate_keys()[1].encode(), 0o600)
        tls = ("--http", f"ssl:0:privateKey={pem}:interface=127.0.0.1")
        # Room for a few more connections than those that do nothing.
        self.daemon = Daemon(self.root, *tls, "--hidden", "--max-concurrent", str(IDLE + 1000))
        self.daemon.__enter__()
        self.addCleanup(self.daemon.kill)
        self.pid = self.daemon.pid
        self.port = urlsplit(self.daemon.url).port or 0
        self.tls_port = int(self.daemon.expect(r"HTTP on https://127\.0\.0\.1:(\d+)/")[1])
        self.tls = any_certificate()
        self.warm_up()
        self.opened = resting(self.pid)

    def warm_up(self) -> None:
        """Ask for everything once, so that what is loaded late is loaded."""
        for target in MIXTURE:
            ask(self.port, target)
        ask(self.tls_port, "/small", tls=self.tls)

    def connect(self, *, tls: bool, buffer: int | None = None) -> socket.socket:
        """A connection, where it matters with a small buffer."""
        plain = socket.socket()
        plain.settimeout(PATIENCE)
        if buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        plain.connect(("127.0.0.1", self.tls_port if tls else self.port))
        return self.tls.wrap_socket(plain) if tls else plain

    def assert_served(self) -> None:
        """A new client gets a large file whole."""
        wanted = hashlib.sha256((self.root / "large").read_bytes()).digest()
        self.assertEqual(hashlib.sha256(ask(self.port, "/large").body).digest(), wanted)

    def assert_quiet(self) -> None:
        """It ends properly, and its log tells of no mistake of ours."""
        self.assertEqual(self.daemon.stop(), 0)
        for word in ("Traceback", "Unhandled", "an answer failed"):
            self.assertNotIn(word, self.daemon.output)


#: What real clients ask for, one after the other.
MIXTURE = (
    "/small",
    "/",
    "/?json",
    "/list?dir=d&details=1",
    "/get?dir=d&name=1.txt",
    "/get?dir=d&name=2.txt&compress=gz",
    "/d/3.txt",
    "/none",
    "/get?dir=d",
    "/d/?archive=tar",
    "/d/?archive=zip",
    "/d/?archive=tar.zst",
    "/-/health",
)


class BodyTests(LoadCase):
    """Bodies that no route takes."""

    def setUp(self) -> None:
        super().setUp()
        self.body = self.base / "body"
        self.body.touch()
        os.truncate(self.body, BODY)

    def test_curl(self) -> None:
        """A POST of 300 MiB by curl, sized, chunked or as a form, is refused and costs no memory."""
        before = self.begin()
        for words in (
            ("-T", str(self.body)),
            ("-T", str(self.body), "-H", "Transfer-Encoding: chunked"),
            ("-F", f"file=@{self.body}"),
        ):
            for target, status in (("delete?dir=d&name=none", b"413"), ("-/health", b"405")):
                self.post(target, status, *words)
        self.finish(before, "six POSTs of 300 MiB by curl, each refused")

    def post(self, target: str, status: bytes, *words: str) -> None:
        shown = ("-o", "/dev/null", "-w", "%{http_code}")
        done = curl("-X", "POST", "-H", "Expect:", *shown, *words, self.daemon.url + target)
        self.assertEqual(done.stdout, status, (words, done.stderr))

    def test_rude(self) -> None:
        """A client that does not look at the answer and sends on costs no memory either, nor beneath TLS."""
        for name, fields, piece in (
            ("sized", {"Content-Length": str(BODY)}, bytes(MIB)),
            ("chunked", {"Transfer-Encoding": "chunked"}, b"100000\r\n" + bytes(MIB) + b"\r\n"),
        ):
            head = request("/delete?dir=d&name=none", "POST", fields)
            for beneath in ("TCP", "TLS"):
                before = self.begin()
                taken = self.push(head, piece, tls=beneath == "TLS")
                self.finish(before, f"a {name} body over {beneath} of which {taken} MiB were taken")

    def begin(self) -> int:
        forget_peak(self.pid)
        return resident(self.pid)

    def finish(self, before: int, what: str) -> None:
        grown = peak(self.pid) - before
        say(f"load: {what}: memory rose by {grown / MIB:.1f} MiB")
        self.assertLess(grown, BODY_MEMORY)
        self.assert_served()

    def push(self, head: bytes, piece: bytes, *, tls: bool) -> int:
        """Send pieces until all have left, or the daemon closes; how many were taken."""
        taken = 0
        with self.connect(tls=tls) as end:
            try:
                end.sendall(head)
                for _ in range(BODY // MIB):
                    end.sendall(piece)
                    taken += 1
            except OSError:
                pass
        return taken


class IdleTests(LoadCase):
    """Connections that do nothing."""

    def setUp(self) -> None:
        super().setUp()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < IDLE + 200:
            raise SkipTest(f"only {hard} descriptors may be open here, {IDLE} connections cannot be")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE + 200), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        self.ends: list[socket.socket] = []
        self.addCleanup(self.close)

    def test_hold(self) -> None:
        """They hold, each of them answers again, and a client is served meanwhile."""
        before = resident(self.pid)
        begun = time.monotonic()
        for number in range(IDLE):
            end = socket.socket()
            self.ends.append(end)
            end.settimeout(PATIENCE)
            end.bind((f"127.0.0.{number // PER_ADDRESS + 2}", 0))
            end.connect(("127.0.0.1", self.port))
            self.answered(end)
        took = time.monotonic() - begun
        with Kept(self.port) as client:
            for target in islice(cycle(MIXTURE), 200):
                client.ask(target)
        self.assert_served()
        each = (resident(self.pid) - before) / IDLE
        self.assertEqual(resting(self.pid) - self.opened, IDLE)
        for end in self.ends:
            self.answered(end)
        say(f"load: {IDLE} idle connections ({took:.1f} s to open) take {each / 1024:.1f} KiB each")
        self.close()
        self.assertLessEqual(resting(self.pid), self.opened)
        self.assert_quiet()

    def close(self) -> None:
        for end in self.ends:
            end.close()

    def answered(self, end: socket.socket) -> None:
        """Ask on a connection that stays open."""
        end.sendall(request("/-/health"))
        self.assertTrue(end.recv(1000).endswith(b"ok"))


class BadRequestTests(LoadCase):
    """Requests that cannot be read."""

    def test_flood(self) -> None:
        """While they come as fast as they can, a client gets all that it asks for, whole."""
        bad = [row[1] for row in TABLE if row[3] is Then.CLOSED and row[2] in (400, 413, 414, 417, 431, 505)]
        self.assertGreater(len(bad), 100)
        over = Event()
        with ThreadPoolExecutor(5) as pool:
            real = pool.submit(self.serve, over)
            begun = time.monotonic()
            for _ in range(BAD_ROUNDS):
                self.assertEqual(set(pool.map(self.refused, islice(cycle(bad), BAD))), {True})
            took = time.monotonic() - begun
            over.set()
            answers, worst = real.result(PATIENCE)
        count = BAD * BAD_ROUNDS
        say(
            f"load: {count} bad requests, {count / took:.0f} a second; meanwhile a client had {answers} "
            f"answers, the slowest after {worst * 1000:.0f} ms"
        )
        self.assertGreater(answers, 10)
        self.assertLessEqual(resting(self.pid), self.opened)
        self.assert_quiet()

    def refused(self, data: bytes) -> bool:
        """Whether a request is answered with an error, and its connection closed."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as end:
            end.sendall(data)
            return everything(end)[9:10] in (b"4", b"5")

    def serve(self, over: Event) -> tuple[int, float]:
        """Be a real client until it is over; how many answers there were, and seconds for the slowest."""
        wanted = {target: ask(self.port, target).status for target in MIXTURE}
        worst, count = 0.0, 0
        with Kept(self.port) as client:
            for target in cycle(MIXTURE):
                begun = time.monotonic()
                self.assertEqual(client.ask(target).status, wanted[target])
                worst = max(worst, time.monotonic() - begun)
                count += 1
                if over.is_set() and count >= len(MIXTURE):
                    return count, worst
        raise AssertionError("unreachable")


class SlowReaderTests(LoadCase):
    """Downloads whose readers are slow."""

    def test_memory(self) -> None:
        """Many at a time, half of them beneath TLS, take little memory, and each gets what it asked for."""
        wanted = (self.root / "large").read_bytes()
        before = resident(self.pid)
        forget_peak(self.pid)
        ends = [self.begin(beneath_tls=number % 2 == 1) for number in range(SLOW)]
        got = [b""] * SLOW
        for _ in range(20):
            for number, end in enumerate(ends):
                got[number] += end.recv(4096)
        highest = peak(self.pid)
        for number in (0, 1, SLOW // 2, SLOW - 1):
            answer = parse(got[number] + everything(ends[number]))
            self.assertEqual(answer.body, wanted)
        say(
            f"load: {SLOW} slow downloads, half beneath TLS: {highest / MIB:.0f} MiB in all, "
            f"{before / MIB:.0f} before"
        )
        self.assertLess(max(highest, peak(self.pid)), SLOW_MEMORY)
        for end in ends:
            end.close()
        self.assert_quiet()

    def begin(self, *, beneath_tls: bool) -> socket.socket:
        """A download of the large file of which nothing has been read yet."""
        end = self.connect(tls=beneath_tls, buffer=16 << 10)
        self.addCleanup(end.close)
        end.sendall(request("/large", fields={"Connection": "close"}))
        return end


class SoakTests(LoadCase):
    """Work for long."""

    def test_soak(self) -> None:
        """After many requests and connections memory and descriptors are what they were."""
        self.work(REQUESTS // 4, CONNECTIONS // 4)
        before = resident(self.pid)
        begun = time.monotonic()
        self.work(REQUESTS, CONNECTIONS)
        took = time.monotonic() - begun
        after, left = resident(self.pid), resting(self.pid)
        say(
            f"load: {REQUESTS} requests and {CONNECTIONS} connections in {took:.0f} s: memory "
            f"{before / MIB:.1f} → {after / MIB:.1f} MiB ({(after / before - 1) * 100:+.1f} %), descriptors "
            f"{self.opened} → {left}"
        )
        self.assertLessEqual(resting(self.pid), self.opened)
        self.assertLess(after, before * GROWTH)
        self.assert_quiet()

    def work(self, requests: int, connections: int) -> None:
        """Send so many requests on four connections, and so many on connections of their own."""
        with ThreadPoolExecutor(4) as pool:
            for done in pool.map(self.keep_asking, [requests // 4] * 4):
                self.assertTrue(done)
            for broken in pool.map(self.churn, range(connections)):
                self.assertTrue(broken)

    def keep_asking(self, count: int) -> bool:
        with Kept(self.port) as client:
            for target in islice(cycle(MIXTURE), count):
                answer = client.ask(target)
                if answer.status not in (200, 400, 404, 503):
                    raise AssertionError(f"{target}: {answer.status}")
        return True

    def churn(self, number: int) -> bool:
        """A connection that is made and ended, in one of the ways that there are."""
        with self.connect(tls=number % 8 == 7) as end:
            if number % 4:
                end.sendall(request(MIXTURE[number % len(MIXTURE)]))
            if number % 4 > 1:
                end.recv(100)
        return True
