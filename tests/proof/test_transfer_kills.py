"""The daemon killed in the middle of uploads: what was acknowledged is whole, the rest whole or absent."""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import count, cycle, islice
from pathlib import Path

from fileexport import Client
from fileexport.client.names import LocalFile
from tests.proof.commands import eventually
from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import PATIENCE, Daemon
from tests.proof.process import KIB, MIB, say
from tests.proof.transfer_case import TransferCase, content

#: Daemons that are killed, and the bytes of big and small files.
KILLS = 50 if SOAK else 6
BIG, SMALL = (24 if SOAK else 12) * MIB, 3 * KIB
#: Small files of one operation: up to 64 are flushed one by one, more all at once.
BATCHES = (1, 20, 64, 65, 300)
#: Seconds after a daemon's first acknowledgement within which it is killed.
WITHIN = 0.5
_tally = Tally("daemons killed during uploads")


class Uploader(ABC):
    """Uploads files of new names until `over`, whatever happens; remembers what was acknowledged."""

    def __init__(self, case: TransferCase, port: int, over: threading.Event) -> None:
        self._case = case
        self._port = port
        self._over = over
        self.acknowledged: set[str] = set()
        self.failures = 0
        #: What should not have come.
        self.died: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with Client("127.0.0.1", self._port, self._case.token, timeout=PATIENCE * 1000) as client:
                    self.upload(client)
            except OSError:
                # The daemon is away. It comes again.
                self.failures += 1
                self._over.wait(0.02)
            except BaseException as error:
                self.died = error
                return

    @abstractmethod
    def upload(self, client: Client) -> None:
        """Upload until something fails, or it is over."""


class BigUploader(Uploader):
    """One large file after the other."""

    numbers = count()

    def upload(self, client: Client) -> None:
        while not self._over.is_set():
            name = f"big-{next(self.numbers)}"
            source = self._case.source(name, BIG)
            try:
                if client.upload_file(str(source), "/"):
                    self.acknowledged.add(name)
            finally:
                source.unlink()


class SmallUploader(Uploader):
    """Many small files at once."""

    numbers = count()

    def upload(self, client: Client) -> None:
        for size in cycle(BATCHES):
            settled = 0
            for outcome in client.upload_small(self._files(size), "/"):
                settled += 1
                if outcome.error is None:
                    self.acknowledged.add(outcome.file.path)
                else:
                    self.failures += 1
            assert settled == size, f"{size} files were given, and {settled} have an outcome"
            if self._over.is_set():
                return

    def _files(self, size: int) -> Iterator[LocalFile]:
        for number in islice(self.numbers, size):
            name = f"small-{number}"
            yield LocalFile(name, str(self._case.source(f"small/{name}", SMALL, name)), SMALL, number)


class KillTests(TransferCase):
    """Both kinds of uploads at once."""

    def test_kills(self) -> None:
        """kill -9 at any moment: each acknowledged file is there and whole, and no other is half there."""
        for durability, kills in (("fast", KILLS - KILLS // 3), ("safe", KILLS // 3)):
            self.kill_often(durability, kills)

    def kill_often(self, durability: str, kills: int) -> None:
        daemon = self.daemon(durability=durability)
        port = daemon.transfer_port
        over = threading.Event()
        uploaders = (BigUploader(self, port, over), SmallUploader(self, port, over))
        for uploader in uploaders:
            uploader.thread.start()
        seen: set[str] = set()
        chance = random.Random(7)
        try:
            for _ in range(kills):
                self.kill(daemon, uploaders, chance.random() * WITHIN)
                seen |= self.look()
                daemon = self.daemon(port=port, durability=durability)
                _tally.add(1, durability)
        finally:
            over.set()
            for uploader in uploaders:
                uploader.thread.join(PATIENCE)
        self.assertFalse(any(uploader.thread.is_alive() for uploader in uploaders))
        seen |= self.look()
        for uploader in uploaders:
            self.assertIsNone(uploader.died)
            self.assertEqual(uploader.acknowledged - seen, set(), "acknowledged, and not there")
        self.assertEqual(daemon.stop(), 0)
        say(
            f"{kills} daemons ({durability}) killed: {len(uploaders[0].acknowledged)} large and "
            f"{len(uploaders[1].acknowledged)} small files were acknowledged, of {len(seen)} that were whole"
        )

    def kill(self, daemon: Daemon, uploaders: tuple[Uploader, ...], seconds: float) -> None:
        """Kill it so long after it has acknowledged something."""
        before = [len(uploader.acknowledged) for uploader in uploaders]
        eventually(
            "an acknowledgement",
            lambda: [len(uploader.acknowledged) for uploader in uploaders] != before,
        )
        # A moment by chance, nothing that could be waited for.
        time.sleep(seconds)
        daemon.kill()

    def look(self) -> set[str]:
        """Every file that can be seen is whole; their names. They are removed, so that no look is long."""
        seen = set()
        for path in self.root.iterdir():
            if path.name == ".fileexport":
                self.assert_staging(path)
                continue
            size = BIG if path.name.startswith("big-") else SMALL
            self.assertEqual(path.stat().st_size, size, path.name)
            self.assertEqual(path.read_bytes(), content(path.name, size), path.name)
            seen.add(path.name)
            path.unlink()
        return seen

    def assert_staging(self, staging: Path) -> None:
        """What waits there is bounded: one upload of each kind, and what earlier deaths left."""
        self.assertLess(len(list(staging.iterdir())), 3 * KILLS + 10)
