"""A daemon with short deadlines, for tests whose peers are slow or break off."""

from __future__ import annotations

import os
import time
from urllib.parse import urlsplit

from fileexport.keys import generate_keys
from tests.proof.asking import any_certificate, ask
from tests.proof.commands import Command, DaemonCase
from tests.proof.hasty import COMMAND
from tests.proof.process import descriptors, resting

#: Bytes of a file that outlasts every buffer between the daemon and a reader; it cannot be compressed.
LARGE = 16 << 20
#: What is downloaded: a file, it compressed, archives in every form, a listing that is large.
DOWNLOADS = (
    "/file",
    "/get?dir=d&name=0&compress=gz",
    "/d/?archive=tar",
    "/d/?archive=tar.gz",
    "/d/?archive=tar.zst",
    "/d/?archive=zip",
    "/many/?json",
)


class PeerCase(DaemonCase):
    """Has a daemon that speaks plain HTTP on `port` and TLS on `tls_port`, with the deadlines of `hasty`."""

    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        super().setUp()
        (self.root / "large").write_bytes(os.urandom(LARGE))
        (self.root / "file").write_bytes(os.urandom(1 << 20))
        (self.root / "d").mkdir()
        for number in range(12):
            (self.root / "d" / str(number)).write_bytes(os.urandom(100_000))
        (self.root / "many").mkdir()
        for number in range(3000):
            (self.root / "many" / f"a file with a long name, number {number}").touch()
        pem = self.write("server.pem", generate_keys()[1].encode(), 0o600)
        words = (*COMMAND, "run", str(self.root), "-p", "0", "--transfer", "none")
        tls = ("--http", f"ssl:0:privateKey={pem}:interface=127.0.0.1")
        self.daemon = Command(
            self.root, *words, *tls, "--state", str(self.base / "state"), "--hidden", *self.options
        )
        self.daemon.__enter__()
        self.addCleanup(self.daemon.kill)
        self.port = urlsplit(self.daemon.url).port or 0
        found = self.daemon.expect(r"HTTP on https://127\.0\.0\.1:(\d+)/")
        self.tls_port = int(found[1])
        self.tls = any_certificate()
        for target in DOWNLOADS:  # what is loaded late is loaded now
            self.assertEqual(ask(self.port, target).status, 200)
        self.assertEqual(ask(self.tls_port, "/file", tls=self.tls).status, 200)
        self.before = resting(self.daemon.pid)

    def assert_free(self, seconds: float) -> float:
        """All descriptors come back within these seconds; how long it took."""
        begun = time.monotonic()
        while (left := descriptors(self.daemon.pid) - self.before) > 0:
            if time.monotonic() - begun > seconds:
                raise AssertionError(f"{left} descriptors are still open after {seconds} s")
            time.sleep(0.05)
        return time.monotonic() - begun

    def assert_healthy(self) -> None:
        """It still serves everything, and its log tells of no mistake of ours."""
        for target in DOWNLOADS:
            self.assertEqual(ask(self.port, target).status, 200)
        self.assertEqual(self.daemon.stop(), 0)
        for word in ("Traceback", "Unhandled", "an answer failed"):
            self.assertNotIn(word, self.daemon.output)
