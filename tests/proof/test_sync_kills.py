"""Synchronisations whose client or server is killed: they converge, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from fileexport import SyncProgress, synchronize_upload
from tests.proof.commands import eventually
from tests.proof.counts import SOAK, Tally
from tests.proof.cut_proxy import CutProxy
from tests.proof.daemon import CHECKOUT
from tests.proof.process import MIB, say
from tests.proof.proxy import Way
from tests.proof.sync_case import SyncCase, facts, renew, two_versions
from tests.proof.sync_told import CONTENT, command

#: Programs and daemons that are killed, small files of the tree, and bytes of its large ones.
KILLS = 50 if SOAK else 4
SMALL, LARGE = (4_000, 24 * MIB) if SOAK else (400, 4 * MIB)
#: Promised: the repeat passes at most what is missing, and so much.
SLACK = 5_000_000
#: Runs until one has come to its end.
TRIES = 4
_kills = Tally("killed during synchronisations")


class KillCase(SyncCase):
    """Has two versions of a tree, and knows what passes without a kill, and in which time."""

    def setUp(self) -> None:
        super().setUp()
        self.chance = random.Random(13)
        self.old, self.new = self.base / "old", self.base / "new"
        two_versions(self.old, self.new, SMALL, LARGE)
        self.wanted = facts(self.new)
        self.surplus: list[int] = []

    def begin(self, way: Way) -> Path:
        """The new version at the source, the old one at the destination, which is returned."""
        source, destination = (self.here, self.there) if way is Way.UP else (self.there, self.here)
        renew(self.new, source)
        renew(self.old, destination)
        return destination

    def measure(self, way: Way) -> None:
        """One that nobody disturbs."""
        self.begin(way)
        with CutProxy(self.port) as proxy:
            begun = time.monotonic()
            said = self.sync(way, "--delete", port=proxy.port)
            top = "/there/" if way is Way.UP else f"{self.here}/"
            sent = [one for one in said.actions if one[0] in ("send", "update")]
            self.sent = {path.removeprefix(top): size for _, path, size in sent}
            self.seconds = time.monotonic() - begun
            self.whole = {one: proxy.passed(one) for one in Way}

    def assert_acknowledged(self, destination: Path, done: Sequence[str]) -> None:
        """Every file that was said to be sent is there, whole."""
        there = facts(destination)
        for path in done:
            # Its time and mode may still be set: they are told by an action of their own.
            self.assertEqual((self.wanted[path][0], self.wanted[path][3:]), (there[path][0], there[path][3:]))

    def arrived(self, destination: Path) -> int:
        """Bytes of content that have come: of files that are whole, and of the one that waits in staging."""
        there = facts(destination)
        sizes = {path: self.travels(path, size) for path, size in self.sent.items()}
        whole = {path for path in sizes if self.wanted[path][3:] == there.get(path, ())[3:]}
        # New files come before changed ones: that is whose part it is.
        missing = "new/large" if "new/large" not in whole else "longer"
        staging = (self.root if destination == self.there else destination) / ".fileexport"
        parts = sum(self.travels(missing, part.stat().st_size) for part in staging.glob("part-*"))
        return sum(sizes[path] for path in whole) + parts

    def travels(self, path: str, size: int) -> int:
        """How much of the first bytes of a file must travel: of one only what is behind its old version."""
        return max(size - LARGE, 0) if path == "longer" else size

    def assert_done(self, destination: Path, repeat: dict[Way, int], way: Way, arrived: int) -> None:
        """The trees are equal, and the repeat passed little beside what was missing."""
        self.assert_same(self.wanted, facts(destination))
        for one in Way:
            more = repeat[one] - self.whole[one] + (arrived if one is way else 0)
            self.assertLess(more, SLACK, f"{one.value}: {arrived} bytes had arrived")
            self.surplus.append(more)


class ClientTests(KillCase):
    """The client's program is killed, or left by Ctrl-C; `fileexport sync` goes on."""

    def kill_often(self, way: Way, kills: int) -> None:
        self.measure(way)
        acknowledged = 0
        for number in range(kills):
            destination = self.begin(way)
            with CutProxy(self.port) as proxy:
                done = self.interrupted(way, proxy, signal.SIGINT if number % 5 == 4 else signal.SIGKILL)
                self.assert_acknowledged(destination, done)
                acknowledged += len(done)
                arrived, first = self.arrived(destination), len(proxy.connections)
                self.until_done(way, proxy)
                self.assert_done(destination, {one: proxy.passed(one, first) for one in Way}, way, arrived)
            _kills.add(1, f"programs, {way.value}")
        self.verify()
        say(
            f"{kills} programs killed, {way.value}: {acknowledged} files were acknowledged before, "
            f"at most {max(self.surplus)} bytes more passed"
        )

    def interrupted(self, way: Way, proxy: CutProxy, kind: signal.Signals) -> list[str]:
        """Run it, and end it at a moment by chance; the files that it had acknowledged."""
        process = subprocess.Popen(
            ("env", "--default-signal=INT", *command(way.name.lower(), str(self.here), "/there")),
            cwd=CHECKOUT,
            env=self.environ(proxy.port),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        # A moment by chance, nothing that could be waited for.
        killing = threading.Timer(self.chance.random() * self.seconds, process.send_signal, (kind,))
        killing.start()
        said, _ = process.communicate()
        killing.cancel()
        eventually("the end of all connections", lambda: all(one.has_ended for one in proxy.connections))
        return [os.fsdecode(path) for path in said.split(b"\n")[:-1]]

    def until_done(self, way: Way, proxy: CutProxy) -> None:
        """The place may be taken by the dead one for a moment: 5 is "try again"."""
        for _ in range(TRIES):
            said = self.sync(way, "--delete", port=proxy.port, status=None)
            if said.status == 0:
                return
            self.assertEqual(said.status, 5, said.stderr[-2000:])
        raise AssertionError(f"not done in {TRIES} commands: {said.stderr[-2000:]}")

    def test_up(self) -> None:
        """One that sends: the next one goes on."""
        self.kill_often(Way.UP, KILLS // 4)

    def test_down(self) -> None:
        """One that receives."""
        self.kill_often(Way.DOWN, KILLS // 4)


class ServerTests(KillCase):
    """The daemon is killed, and started again on the same port."""

    durability = "safe"

    def test_kills(self) -> None:
        """What the library's callback was told is there; the next run goes on, or the same one did."""
        self.measure(Way.UP)
        acknowledged = 0
        for _ in range(KILLS // 2):
            destination = self.begin(Way.UP)
            with CutProxy(self.port) as proxy:
                done, first, arrived = self.interrupted(proxy)
                acknowledged += len(done)
                repeat = {one: proxy.passed(one, first) for one in Way}
                self.assert_done(destination, repeat, Way.UP, arrived)
            _kills.add(1, "daemons")
        self.verify()
        say(
            f"{KILLS // 2} daemons killed: {acknowledged} files were acknowledged before, "
            f"at most {max(self.surplus)} bytes more passed"
        )

    def interrupted(self, proxy: CutProxy) -> tuple[list[str], int, int]:
        """Synchronise, and kill the daemon meanwhile.

        Returns the files acknowledged before that, the number of the first connection afterwards, and how
        many bytes had arrived.
        """
        done: list[str] = []
        seconds = self.chance.random() * self.seconds
        with self.client(proxy.port) as client:

            def told(progress: SyncProgress) -> None:
                if progress.action is not None and progress.action.kind in CONTENT:
                    done.append(progress.action.path)

            def run() -> None:
                for _ in range(TRIES):
                    try:
                        result = synchronize_upload(
                            client, str(self.here), "/there", delete=True, progress=told
                        )
                    except OSError:
                        # The daemon is away; it comes again.
                        back.wait()
                        continue
                    if not result.problems:
                        finished.set()
                        return

            back, finished = threading.Event(), threading.Event()
            thread = threading.Thread(target=run)
            thread.start()
            try:
                # A moment by chance, nothing that could be waited for.
                time.sleep(seconds)
                self.server.kill()
                before = list(done)
                self.assert_acknowledged(self.there, before)
                # Nobody writes any more. A client that is done keeps its idle connection: none is waited for.
                arrived, first = self.arrived(self.there), len(proxy.connections)
                self.server = self.daemon(port=self.port, durability=self.durability)
            finally:
                back.set()
                thread.join()
            self.assertTrue(finished.is_set(), f"not done in {TRIES} runs")
        return before, first, arrived
