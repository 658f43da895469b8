"""Files that are put by curl: whole, in chunks, over TLS, in little memory, and cut in every way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from fileexport.keys import generate_keys
from tests.proof import daemon as proof_daemon
from tests.proof.asking import curl
from tests.proof.commands import DaemonCase, eventually
from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import PATIENCE, Daemon
from tests.proof.process import MIB, forget_peak, peak, resident, say

#: Bytes of a large file, and how many are put at once.
LARGE = (1024 if SOAK else 24) * MIB
AT_ONCE = 4
#: MiB that the daemon may need beyond what it had, however large the files are.
MEMORY = 48.0
CUTS = 200 if SOAK else 6

cuts = Tally("uploads by PUT that were cut")


class PutCase(DaemonCase):
    """Has a large file beside the root, and a daemon."""

    def setUp(self) -> None:
        super().setUp()
        block = Random(8).randbytes(MIB)
        self.large = self.base / "large"
        with self.large.open("wb") as file:
            for number in range(LARGE // MIB):
                file.write(number.to_bytes(8, "big") + block[8:])

    def start(self, *options: str) -> Daemon:
        """A daemon that is killed after the test."""
        daemon = Daemon(self.root, *options)
        daemon.__enter__()
        self.addCleanup(daemon.kill)
        return daemon

    def assertSame(self, name: str) -> None:
        """The file of the root is the large one."""
        done = subprocess.run(["cmp", self.root / name, self.large], capture_output=True, timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stdout), (0, b""))

    def assertClean(self, *names: str) -> None:
        """The root has these entries, and its staging is empty."""
        staging = self.root / ".fileexport"
        eventually("the staging is empty", lambda: not (staging.exists() and list(staging.iterdir())))
        self.assertEqual({path.name for path in self.root.iterdir()} - {".fileexport"}, set(names))


class CurlTests(PutCase):
    """curl, as people type it."""

    def put(self, *words: str | Path, stdin: Path | None = None) -> tuple[str, str]:
        """The status that curl says, and the bytes that it sent."""
        with (stdin or Path(os.devnull)).open("rb") as file:
            words = ("--disable", "--noproxy", "*", "-sS", "-o", os.devnull, *words)
            shown = ("-w", "%{http_code} %{size_upload}")
            done = subprocess.run(
                ["curl", *words, *shown], stdin=file, capture_output=True, timeout=PATIENCE * 4
            )
        self.assertEqual(done.stderr, b"")
        status, _, size = done.stdout.decode().partition(" ")
        return status, size

    def test_curl(self) -> None:
        """By name and from a pipe; refused ones before they are sent."""
        daemon = self.start()
        url = daemon.url
        size = str(LARGE)
        self.assertEqual(self.put("-T", self.large, f"{url}by%20name"), ("201", size))
        self.assertSame("by name")
        self.assertEqual(self.put("-T", self.large, url), ("201", size))
        self.assertSame("large")
        self.assertEqual(self.put("-T", "-", f"{url}piped", stdin=self.large)[0], "201")
        self.assertSame("piped")
        self.assertEqual(self.put("-T", self.large, f"{url}piped"), ("204", size))
        for refused, status in (
            (("-H", "If-None-Match: *", "-T", self.large, f"{url}piped"), "412"),
            (("-T", self.large, f"{url}no/such/directory"), "409"),
            (("-C", "5", "-T", self.large, f"{url}piped"), "400"),
        ):
            self.assertEqual(self.put(*refused), (status, "0"))
        self.assertEqual(self.put("-T", self.large, f"{url}no/such/directory?parents"), ("201", size))
        self.assertEqual(curl("-f", "-X", "DELETE", f"{url}piped").returncode, 0)
        self.assertClean("by name", "large", "no")

    def test_memory(self) -> None:
        """Several large files at once, in the clear and over TLS, take little memory."""
        self.measure("in the clear", self.start())
        key = self.write("server.pem", generate_keys()[1].encode(), 0o600)
        self.patch(proof_daemon, "_BANNER", r"HTTP on (https://127\.0\.0\.1:\d+/)")
        self.measure("over TLS", self.start("--private-key", str(key), "--state", str(self.base / "state")))

    def measure(self, how: str, daemon: Daemon) -> None:
        """Put large files at once, and look at the daemon's memory."""
        command = ["curl", "--disable", "--noproxy", "*", "-sS", "-k", "-T"]
        self.put("-k", "-T", self.write("small", b"x"), f"{daemon.url}warm")
        before = resident(daemon.pid)
        forget_peak(daemon.pid)
        started = time.monotonic()
        running = [
            subprocess.Popen([*command, self.large, f"{daemon.url}{number}"]) for number in range(AT_ONCE)
        ]
        self.assertEqual([one.wait(PATIENCE * 8) for one in running], [0] * AT_ONCE)
        rate = AT_ONCE * LARGE / (time.monotonic() - started) / 1e6
        more = (peak(daemon.pid) - before) / MIB
        say(f"put {how}: {AT_ONCE} files at once, {rate:.0f} MB/s together, {more:.1f} MiB more memory")
        self.assertLess(more, MEMORY)
        for number in range(AT_ONCE):
            self.assertSame(str(number))


class CutTests(PutCase):
    """An upload that is cut, however, leaves the old version and nothing else."""

    def setUp(self) -> None:
        super().setUp()
        self.content = self.large.read_bytes()[: 16 * MIB]
        self.old = self.root / "file"
        self.old.write_bytes(b"the old version")

    def begin(self, daemon: Daemon, sent: int, *, chunked: bool) -> socket.socket:
        """A connection on which so many bytes of the file were put."""
        place = urlsplit(daemon.url)
        connection = socket.create_connection((place.hostname, place.port), PATIENCE)
        self.addCleanup(connection.close)
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(self.content)}"
        connection.sendall(f"PUT /file HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode())
        size = b"%x\r\n" % len(self.content) if chunked else b""
        connection.sendall(size + self.content[:sent])
        return connection

    def assertOld(self) -> None:
        """The old version is there, and nothing else."""
        self.assertClean("file")
        self.assertEqual(self.old.read_bytes(), b"the old version")

    def test_peer(self) -> None:
        """By its sender, with a clean end or without one, at any byte."""
        daemon, random = self.start(), Random(1)
        for number in range(CUTS):
            sent = random.choice((0, 1, random.randrange(len(self.content)), len(self.content) - 1))
            connection = self.begin(daemon, sent, chunked=bool(number % 2))
            if number % 3:
                linger = (1).to_bytes(4, sys.byteorder) + bytes(4)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()
            self.assertOld()
        cuts.add(CUTS, "by their sender")

    def test_killed(self) -> None:
        """By the death of the daemon, of which the next one cleans up."""
        random = Random(2)
        count = CUTS // 3
        for _ in range(count):
            with Daemon(self.root) as daemon:
                self.begin(daemon, random.randrange(len(self.content)), chunked=False)
                daemon.kill()
            self.assertEqual(self.old.read_bytes(), b"the old version")
            with Daemon(self.root):
                self.assertOld()
        cuts.add(count, "by a kill")

    def test_stopped(self) -> None:
        """A stop waits for what comes to its end in time."""
        with Daemon(self.root) as daemon:
            connection = self.begin(daemon, 5 * MIB, chunked=False)
            eventually("the upload has begun", lambda: list((self.root / ".fileexport").iterdir()))
            daemon.terminate()
            daemon.expect("SIGTERM|stopping|ending|stop")
            connection.sendall(self.content[5 * MIB :])
            answer = connection.recv(4096)
            self.assertEqual(answer[:12], b"HTTP/1.1 204")
            self.assertEqual(daemon.wait(), 0)
        self.assertEqual(self.old.read_bytes(), self.content)
