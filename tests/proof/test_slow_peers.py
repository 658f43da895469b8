"""Peers that are slow or silent, some of them through a proxy that misbehaves on purpose.

Their places are free again in time, and others are served meanwhile.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event

from tests.proof.asking import ask, request
from tests.proof.bad_proxy import BadProxy, Fault, Kind
from tests.proof.broken_peers import PeerCase
from tests.proof.counts import SOAK
from tests.proof.daemon import PATIENCE
from tests.proof.hasty import LONGEST
from tests.proof.process import descriptors, say
from tests.proof.proxy import Way

#: Slow peers of each kind.
EACH = 60 if SOAK else 6
#: Seconds within which a place must be free again after its deadline.
MARGIN = 15.0


class SlowTests(PeerCase):
    """All kinds of slow peers at once, and a client among them."""

    def setUp(self) -> None:
        #: What makes one peer of each kind, and keeps it open.
        self.kinds: tuple[Callable[[], object], ...] = (
            self.silent,
            self.silent_tls,
            self.silent_after_tls,
            self.slow_head,
            self.slow_body,
            self.slow_chunks,
            self.half_a_body,
            self.idle,
            self.idle_after_refusal,
            lambda: self.no_reader("/large"),
            lambda: self.no_reader("/many/"),
            lambda: self.no_reader("/large", tls=True),
            self.pipeline_without_reader,
            self.black_hole,
        )
        # Two places more than all of them take: one for the client, one for an archive's reader.
        self.options = ("--max-concurrent", str(len(self.kinds) * EACH + 2))
        super().setUp()
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.trickle = self.stack.enter_context(
            BadProxy(self.port, Fault(Kind.TRICKLE, Way.UP, at=30, seconds=0.2))
        )
        self.swallowing = self.stack.enter_context(BadProxy(self.port, Fault(Kind.BLACK_HOLE, at=100_000)))

    def connect(self, port: int) -> socket.socket:
        """A connection that stays open until the test is over, with a small buffer."""
        end = socket.socket()
        self.stack.callback(end.close)
        end.settimeout(PATIENCE)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
        end.connect(("127.0.0.1", port))
        return end

    def silent(self) -> None:
        self.connect(self.port)

    def silent_tls(self) -> None:
        self.connect(self.tls_port)

    def silent_after_tls(self) -> None:
        self.handshake()

    def handshake(self) -> ssl.SSLSocket:
        end = self.tls.wrap_socket(self.connect(self.tls_port))
        self.stack.callback(end.close)
        return end

    def slow_head(self) -> None:
        self.connect(self.trickle.port).sendall(request("/file", fields={"X": "x" * 500}))

    def slow_body(self) -> None:
        body = request("/delete?dir=d&name=none", "POST", {"Content-Length": "60000"}) + bytes(1000)
        self.connect(self.trickle.port).sendall(body)

    def slow_chunks(self) -> None:
        head = request("/delete?dir=d&name=none", "POST", {"Transfer-Encoding": "chunked"})
        self.connect(self.trickle.port).sendall(head + b"1\r\nx\r\n" * 1000)

    def half_a_body(self) -> None:
        self.connect(self.port).sendall(request("/list?dir=d", "POST", {"Content-Length": "10"}) + b"half ")

    def idle(self) -> None:
        end = self.connect(self.port)
        end.sendall(request("/-/health"))
        end.recv(1000)

    def idle_after_refusal(self) -> None:
        self.connect(self.port).sendall(b"this is not HTTP\r\n\r\n")

    def no_reader(self, target: str, *, tls: bool = False) -> None:
        end = self.handshake() if tls else self.connect(self.port)
        end.sendall(request(target))

    def pipeline_without_reader(self) -> None:
        self.connect(self.port).sendall(request("/file") * 50)

    def black_hole(self) -> None:
        self.connect(self.swallowing.port).sendall(request("/large"))

    def test_all(self) -> None:
        """They are gone 15 s after their deadlines; a client and an archive's reader notice nothing."""
        over = Event()
        with ThreadPoolExecutor(2) as pool:
            client = pool.submit(self.ask_until, over, "/file")
            reader = pool.submit(self.ask_until, over, "/d/?archive=tar")
            try:
                for make in self.kinds * EACH:
                    make()
                held = descriptors(self.daemon.pid) - self.before
                took = self.assert_gone()
            finally:
                over.set()
            answers, archives = client.result(PATIENCE), reader.result(PATIENCE)
        say(
            f"slow peers: {len(self.kinds) * EACH} of {len(self.kinds)} kinds ({held} descriptors) gone "
            f"{took:.1f} s after the last came (longest deadline {LONGEST:g} s); meanwhile {answers} files "
            f"and {archives} archives were served"
        )
        self.assertGreater(min(answers, archives), 0)
        self.assert_all_places()
        self.assert_healthy()

    def assert_gone(self) -> float:
        """All but the two that are served go in time; how long that took."""
        self.before += 2 * 2  # theirs, and what they read
        try:
            return self.assert_free(LONGEST + MARGIN)
        finally:
            self.before -= 2 * 2

    def ask_until(self, over: Event, target: str) -> int:
        """Ask for the same again and again; each answer must be whole. How many there were."""
        wanted = ask(self.port, target).body
        count = 0
        while not over.is_set():
            answer = ask(self.port, target)
            self.assertEqual((answer.status, answer.body), (200, wanted))
            count += 1
        return count

    def assert_all_places(self) -> None:
        """Every place at the gate is free: so many connections get an answer at the same time."""
        self.assert_free(MARGIN)
        places = int(self.options[1])
        ends = [self.connect(self.port) for _ in range(places)]
        for end in ends:
            end.sendall(request("/-/health"))
        for end in ends:
            self.assertIn(b" 200 OK", end.recv(1000))
        with self.connect(self.port) as surplus, contextlib.suppress(ConnectionError):
            self.assertEqual(surplus.recv(1), b"", "there was a place too many")
        for end in ends:
            end.close()
        self.assert_free(MARGIN)


class ArchiveTests(PeerCase):
    """The few places for archives."""

    def test_readers(self) -> None:
        """Readers of archives that stop reading hold all their places, and give them back in time."""
        with ExitStack() as stack:
            forms = ("tar", "tar.gz", "tar.zst", "zip") * 2
            for form in forms:
                end = stack.enter_context(socket.socket())
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
                end.connect(("127.0.0.1", self.port))
                end.sendall(request(f"/?archive={form}"))
                self.assertTrue(end.recv(100))
            refused = ask(self.port, "/d/?archive=tar")
            self.assertEqual((refused.status, refused.fields["Retry-After"]), (503, "10"))
            self.assertEqual(ask(self.port, "/file").status, 200)
            self.assert_free(LONGEST + MARGIN)
            self.assertEqual(ask(self.port, "/d/?archive=tar").status, 200)
        self.assert_healthy()
