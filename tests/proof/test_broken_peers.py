"""Connections that break in the middle, by a proxy that misbehaves on purpose, or by the daemon's own doing.

What was opened for them is closed again, nothing that was cut looks complete, half a request does nothing.
"""

from __future__ import annotations

import os
import random
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

from tests.proof.asking import Answer, Incomplete, ask, everything, parse, request
from tests.proof.bad_proxy import BadProxy, Fault, Kind
from tests.proof.broken_peers import DOWNLOADS, LARGE, PeerCase
from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import PATIENCE
from tests.proof.hasty import LONGEST
from tests.proof.proxy import Way

#: Places at which each download is cut, for each way of cutting it.
CUTS = 60 if SOAK else 5
_cuts = Tally("connections broken")

#: What a test meets where a connection broke.
BROKEN = (Incomplete, OSError, ssl.SSLError)


class ProxyTests(PeerCase):
    """The proxy itself does what its faults say; it would prove nothing otherwise."""

    def through(self, *faults: Fault, record: bool = False) -> tuple[bytes, bytes]:
        """What comes back through the proxy, up to its end, and what it has passed on to the daemon."""
        with (
            BadProxy(self.port, *faults, record=record) as proxy,
            socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as end,
        ):
            end.sendall(request("/file", fields={"Connection": "close"}))
            return everything(end), proxy.passed(Way.UP)

    def test_nothing(self) -> None:
        """Without a fault, and with slow ones, everything passes."""
        wanted = (self.root / "file").read_bytes()
        slow = Fault(Kind.DELAY, seconds=0.01), Fault(Kind.TRICKLE, Way.UP, seconds=0.001)
        for faults in ((), slow):
            back, sent = self.through(*faults, record=True)
            self.assertEqual(parse(back).body, wanted)
            self.assertEqual(sent, request("/file", fields={"Connection": "close"}))

    def test_cuts(self) -> None:
        """Cuts let exactly so many bytes through, RST is told as an error, and repeated bytes stand twice."""
        for kind in (Kind.FIN, Kind.HALF_CLOSE):
            self.assertEqual(len(self.through(Fault(kind, at=100_000))[0]), 100_000)
        with self.assertRaises(ConnectionResetError):
            self.through(Fault(Kind.RESET, at=100_000))
        whole, twice = (self.through(*faults)[0] for faults in ((), (Fault(Kind.DUPLICATE, at=5000),)))
        body, repeated = whole[-(1 << 20) :], twice[-(1 << 20) :]
        self.assertEqual(len(twice), len(whole) + 64)
        self.assertEqual(body[10_000:], repeated[10_000:])


class DownloadTests(PeerCase):
    """Downloads that break."""

    def test_cut(self) -> None:
        """RST, FIN and half-closing at any byte of any download leave nothing open, and nothing complete."""
        chance = random.Random(1)
        jobs = []
        for target in DOWNLOADS:
            length = len(self.whole(target))
            places = {0, 1, 200, length - 5, length - 1} | {chance.randrange(length) for _ in range(CUTS)}
            jobs += [
                (target, Fault(kind, at=at))
                for kind in (Kind.RESET, Kind.FIN, Kind.HALF_CLOSE)
                for at in sorted(places)
            ]
        with ThreadPoolExecutor(4) as pool:
            for broken in pool.map(lambda job: self.breaks(*job), jobs):
                self.assertTrue(broken)
        self.assert_free(LONGEST)
        self.assert_healthy()

    def whole(self, target: str) -> bytes:
        """All bytes of an answer, on a connection that is closed then."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as end:
            end.sendall(request(target, fields={"Connection": "close"}))
            return everything(end)

    def breaks(self, target: str, fault: Fault) -> bool:
        """Whether a download with this fault is seen to be cut."""
        _cuts.add(1, "downloads")
        with BadProxy(self.port, fault) as proxy:
            try:
                ask(proxy.port, target)
            except BROKEN:
                return True
        return False

    def test_tls(self) -> None:
        """Beneath TLS it is the same: what was cut is told as an error, and closed."""
        length = LARGE // 2
        for kind in (Kind.RESET, Kind.FIN, Kind.HALF_CLOSE):
            for at in (0, 100, 3000, length):
                with BadProxy(self.tls_port, Fault(kind, at=at)) as proxy, self.assertRaises(BROKEN):
                    ask(proxy.port, "/large", tls=self.tls)
                _cuts.add(1, "beneath TLS")
        self.assert_free(LONGEST)
        self.assert_healthy()

    def test_swallowed(self) -> None:
        """Clients that end in all ways while nothing passes any more leave nothing open."""
        with BadProxy(self.port, Fault(Kind.BLACK_HOLE, at=200_000)) as proxy:
            for target in DOWNLOADS + ("/large",):
                with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as end:
                    end.sendall(request(target))
                    end.recv(1000)
        self.assert_free(LONGEST)
        self.assert_healthy()

    def test_shrinking(self) -> None:
        """A file that becomes shorter while it is sent breaks the connection, plain and beneath TLS."""
        for port, tls in ((self.port, None), (self.tls_port, self.tls)):
            path = self.root / "shrinking"
            path.write_bytes(os.urandom(LARGE))
            with socket.socket() as plain:
                plain.settimeout(PATIENCE)
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
                plain.connect(("127.0.0.1", port))
                end = plain if tls is None else tls.wrap_socket(plain)
                end.sendall(request("/shrinking"))
                first = end.recv(1000)
                os.truncate(path, LARGE - 1)
                with end, self.assertRaises(BROKEN):
                    parse(first + everything(end))
        self.assert_free(LONGEST)

    def test_killed(self) -> None:
        """Downloads from a daemon that is killed do not look complete."""
        ends = []
        for target in ("/large", "/?archive=tar", "/?archive=tar.gz", "/?archive=tar.zst", "/?archive=zip"):
            end = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
            self.addCleanup(end.close)
            end.sendall(request(target, fields={"Connection": "close"}))
            ends.append((end, end.recv(1000)))
        self.daemon.kill()
        for end, first in ends:
            with self.assertRaises(BROKEN):
                parse(first + everything(end))


class RequestTests(PeerCase):
    """Requests that break."""

    def test_cut(self) -> None:
        """Half a request does nothing, wherever it ends; not even where its half would be a shorter name."""
        for name in ("v", "victim"):
            (self.root / name).write_bytes(b"")
        whole = request("/delete?dir=/&name=victim", fields={"Connection": "close"})
        for kind in (Kind.RESET, Kind.FIN, Kind.HALF_CLOSE):
            for at in range(0, len(whole), 1 if SOAK else 7):
                with BadProxy(self.port, Fault(kind, Way.UP, at=at)) as proxy:
                    self.assertNotEqual(self.status(proxy, whole), 200)
                _cuts.add(1, "requests")
        self.assertTrue((self.root / "victim").exists() and (self.root / "v").exists())
        self.assertEqual(ask(self.port, "/delete?dir=/&name=victim").body, b"deleted 1 file")
        self.assert_free(LONGEST)
        self.assert_healthy()

    def status(self, proxy: BadProxy, whole: bytes) -> int:
        """The status of an answer, 0 where there is none."""
        try:
            with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as end:
                end.sendall(whole)
                return parse(everything(end)).status
        except BROKEN:
            return 0

    def test_twice(self) -> None:
        """Bytes of a request that arrive twice make it another one, or none: no answer is anybody else's."""
        whole = request("/get?dir=d&name=1", fields={"Connection": "close"})
        for at in range(len(whole)):
            with BadProxy(self.port, Fault(Kind.DUPLICATE, Way.UP, at=at)) as proxy:
                answer = self.answer(proxy, whole)
            if answer is not None and answer.status == 200:
                self.assertEqual(answer.body, (self.root / "d" / "1").read_bytes(), at)
        self.assert_free(LONGEST)
        self.assert_healthy()

    def answer(self, proxy: BadProxy, whole: bytes) -> Answer | None:
        """The answer to a request, None where there is none."""
        try:
            with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as end:
                end.sendall(whole)
                return parse(everything(end))
        except BROKEN:
            return None
