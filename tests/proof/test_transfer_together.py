"""Four clients at once: nothing is mixed, and who may not write is told who does."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

from fileexport.errors import BusyError
from tests.proof.commands import eventually
from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import PATIENCE
from tests.proof.process import KIB, MIB
from tests.proof.transfer_case import TransferCase

#: How often four clients begin at the same moment, and the bytes of their files.
ROUNDS = 100 if SOAK else 8
SIZE = 8 * MIB
_tally = Tally("clients at once")


class TogetherTests(TransferCase):
    """One daemon, clients in threads and as programs."""

    def setUp(self) -> None:
        super().setUp()
        self.port = self.daemon().transfer_port

    def test_four(self) -> None:
        """Two write one name, one another name, one reads: of the two at most one is done, all is whole."""
        for number in range(2):
            self.source(f"own-{number}", SIZE)
        self.source("other", SIZE)
        self.source("read", SIZE).replace(self.root / "read")
        done = busy = 0
        for number in range(ROUNDS):
            target = f"target-{number}"
            barrier = Barrier(4)
            with ThreadPoolExecutor(4) as pool:
                writers = [pool.submit(self.write_one, barrier, f"own-{own}", target) for own in range(2)]
                other = pool.submit(self.write_one, barrier, "other", f"other-{number}")
                reader = pool.submit(self.read_one, barrier, f"read-{number}")
                errors = [writer.result(PATIENCE) for writer in writers]
                self.assertIsNone(other.result(PATIENCE))
                reader.result(PATIENCE)
            self.assertIn(None, errors)
            winners = [f"own-{own}" for own, error in enumerate(errors) if error is None]
            self.assertEqual(len(winners), 1, errors)
            self.assert_content(self.root / target, winners[0], SIZE)
            self.assert_content(self.root / f"other-{number}", "other", SIZE)
            self.assert_content(self.base / f"read-{number}", "read", SIZE)
            done += 1
            busy += any(isinstance(error, BusyError) for error in errors)
            for path in (self.root / target, self.root / f"other-{number}", self.base / f"read-{number}"):
                path.unlink()
        _tally.add(done, "rounds of four")
        _tally.add(busy, "of which met a busy name")

    def write_one(self, barrier: Barrier, source: str, target: str) -> Exception | None:
        """Upload, beginning with the others; what came in between."""
        with self.client(self.port) as client:
            client.list_files("/")
            barrier.wait(PATIENCE)
            try:
                client.upload_file(str(self.base / "sources" / source), "/", target)
            except (BusyError, FileExistsError) as error:
                return error
            return None

    def read_one(self, barrier: Barrier, target: str) -> None:
        with self.client(self.port) as client:
            client.list_files("/")
            barrier.wait(PATIENCE)
            client.download_file("/read", str(self.base), target)

    def test_busy(self) -> None:
        """Who comes second is told who writes and since when, and may write when the first is done."""
        begun, go_on = Event(), Event()
        source = self.source("source", MIB)

        def pause(*_: object) -> bool:
            begun.set()
            return go_on.wait(PATIENCE)

        before = time.time_ns()
        with ThreadPoolExecutor(1) as pool, self.client(self.port) as first, self.client(self.port) as second:
            writing = pool.submit(
                first.upload_file, str(source), "/", "name", chunk_size=64 * KIB, process_chunk=pause
            )
            try:
                self.assertTrue(begun.wait(PATIENCE))
                error = self.assertRaises(BusyError, second.upload_file, str(source), "/", "name")
                assert error.holder is not None and error.since is not None
                self.assertIn("127.0.0.1", error.holder)
                self.assertTrue(before <= error.since <= time.time_ns(), error.since)
                self.assertNotIn("name", second.list_files("/"))
                done = self.command(self.environ(self.port), "upload", self.source("name", KIB), "/")
                self.assertEqual((done.returncode, len(done.stderr.splitlines())), (5, 1), done.stderr)
                self.assertIn(error.holder, done.stderr)
            finally:
                go_on.set()
            self.assertTrue(writing.result(PATIENCE))
            self.assert_content(self.root / "name", "source", MIB)
            second.remove("/name")
            self.assertTrue(second.upload_file(str(source), "/", "name"))

    def test_left(self) -> None:
        """A writer who vanishes leaves the name to others at once."""
        source = self.source("source", SIZE)
        environ = self.environ(self.port)
        begun = Event()

        def stop(*_: object) -> bool:
            begun.set()
            raise KeyboardInterrupt

        with self.client(self.port) as client:
            self.assertRaises(KeyboardInterrupt, client.upload_file, str(source), "/", process_chunk=stop)
            self.assertTrue(begun.is_set())
            eventually(
                "the next writer", lambda: self.command(environ, "upload", source, "/").returncode == 0
            )
        self.assert_content(self.root / "source", "source", SIZE)
