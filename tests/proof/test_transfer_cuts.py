"""Transfers whose connection is cut: what had arrived is not sent again, and the content is right."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator

from fileexport.client import uploading
from fileexport.client.names import LocalFile, Outcome
from tests.proof.commands import eventually
from tests.proof.counts import SOAK, Tally
from tests.proof.cut_proxy import Cut, CutProxy, How
from tests.proof.process import KIB, MIB, say
from tests.proof.proxy import Way
from tests.proof.transfer_case import TransferCase, content

#: Bytes of each file, places at which each direction is cut, and programs that are killed each way.
SIZE = (200 if SOAK else 20) * MIB
CUTS = 50 if SOAK else 6
KILLED = 5 if SOAK else 1
#: Small files of one operation, and their bytes.
SMALL, SMALL_SIZE = (10_000, 2 * KIB) if SOAK else (2_000, 2 * KIB)
#: What may be sent beside what was missing.
SLACK = 1_000_000
_cuts = Tally("transfers cut")


def _how(number: int) -> How:
    return How.RST if number % 2 else How.FIN


class CutCase(TransferCase):
    """Has a daemon."""

    def setUp(self) -> None:
        super().setUp()
        self.port = self.daemon().transfer_port
        self.chance = random.Random(5)

    def cuts(self, way: Way) -> Iterator[Cut]:
        """By RST and by FIN in turn, near the ends and by chance; behind the client's way in."""
        places = [2000, SIZE - 100, *(self.chance.randrange(2000, SIZE) for _ in range(CUTS - 2))]
        for number, at in enumerate(places):
            yield Cut(way, at, _how(number))

    def assert_little(self, proxy: CutProxy, way: Way) -> int:
        """What passed behind the first connection is less than what was missing and 1 MB; how much more."""
        first = proxy.connections[0]
        missing = SIZE - first.passed[way]
        again = proxy.passed(way, 1)
        self.assertLess(again, missing + SLACK, f"{first.passed[way]} bytes had passed")
        return again - missing


class CutTests(CutCase):
    """The client goes on by itself."""

    def test_uploads(self) -> None:
        """An upload goes on where it was cut, and is whole."""
        source = self.source("source", SIZE)
        surplus = []
        for number, cut in enumerate(self.cuts(Way.UP)):
            name = f"upload-{number}"
            with CutProxy(self.port, [cut]) as proxy:
                with self.client(proxy.port) as client:
                    self.assertTrue(client.upload_file(str(source), "/", name))
                self.assertTrue(proxy.connections[0].was_cut)
                surplus.append(self.assert_little(proxy, Way.UP))
            self.assert_content(self.root / name, "source", SIZE)
            (self.root / name).unlink()
            _cuts.add(1, "uploads")
        say(f"uploads that were cut: at most {max(surplus)} bytes more than were missing")

    def test_downloads(self) -> None:
        """So does a download."""
        (self.root / "source").write_bytes(content("source", SIZE))
        surplus = []
        for number, cut in enumerate(self.cuts(Way.DOWN)):
            name = f"download-{number}"
            with CutProxy(self.port, [cut]) as proxy:
                with self.client(proxy.port) as client:
                    self.assertTrue(client.download_file("/source", str(self.base), name))
                self.assertTrue(proxy.connections[0].was_cut)
                surplus.append(self.assert_little(proxy, Way.DOWN))
            self.assert_content(self.base / name, "source", SIZE)
            (self.base / name).unlink()
            _cuts.add(1, "downloads")
        say(f"downloads that were cut: at most {max(surplus)} bytes more than were missing")

    def test_control(self) -> None:
        """A client that begins again at the beginning is found out: otherwise the rest would show nothing."""
        self.patch(uploading, "_LARGE", SIZE + 1)
        source = self.source("source", SIZE)
        with CutProxy(self.port, [Cut(Way.UP, SIZE // 2)]) as proxy, self.client(proxy.port) as client:
            self.assertTrue(client.upload_file(str(source), "/", "control"))
            with self.assertRaises(self.failureException):
                self.assert_little(proxy, Way.UP)

    def test_many_cuts(self) -> None:
        """One transfer that is cut again and again comes to its end as long as it comes nearer."""
        source = self.source("source", SIZE)
        cuts = [Cut(Way.UP, SIZE // 12, _how(number)) for number in range(8)]
        with CutProxy(self.port, cuts) as proxy, self.client(proxy.port) as client:
            self.assertTrue(client.upload_file(str(source), "/", "often"))
            self.assertLess(proxy.passed(Way.UP), SIZE + SLACK)
        self.assert_content(self.root / "often", "source", SIZE)
        cuts = [Cut(Way.DOWN, SIZE // 12, _how(number)) for number in range(8)]
        with CutProxy(self.port, cuts) as proxy, self.client(proxy.port) as client:
            self.assertTrue(client.download_file("/often", str(self.base)))
            self.assertLess(proxy.passed(Way.DOWN), SIZE + SLACK)
        self.assert_content(self.base / "often", "source", SIZE)

    def test_changed_source(self) -> None:
        """A source that has another content by the time of the repeat is never mixed with the old one."""
        path = self.root / "changing"
        for number in range(KILLED + 1):
            path.write_bytes(content("old", SIZE))
            with CutProxy(self.port, [Cut(Way.DOWN, SIZE // 2)]) as proxy, self.client(proxy.port) as client:

                def change(_: int, __: int, proxy: CutProxy = proxy) -> None:
                    if proxy.connections[0].was_cut and path.stat().st_size == SIZE:
                        path.write_bytes(content("new", SIZE - 1))

                client.download_file("/changing", str(self.base), f"changed-{number}", progress=change)
            self.assert_content(self.base / f"changed-{number}", "new", SIZE - 1)


class SmallCutTests(CutCase):
    """Many small files, cut again and again, also before anything is said."""

    def cut_often(self, way: Way) -> list[Cut]:
        """Early and late, several in a row."""
        # As many in a row as a transfer survives that comes no further.
        places = [SMALL_SIZE * SMALL // 5, 0, 300, 2000, SMALL_SIZE * SMALL // 3]
        return [Cut(way, at, _how(number)) for number, at in enumerate(places)]

    def test_uploads(self) -> None:
        """Each file has one outcome and is there, whole; none is forgotten."""
        files = []
        for number in range(SMALL):
            path = self.source(f"small-{number}", SMALL_SIZE)
            files.append(LocalFile(path.name, str(path), SMALL_SIZE, path.stat().st_mtime_ns))
        with CutProxy(self.port, self.cut_often(Way.UP)) as proxy, self.client(proxy.port) as client:
            self.check(files, list(client.upload_small(files, "/")))
        for file in files:
            self.assertEqual((self.root / file.path).read_bytes(), content(file.path, SMALL_SIZE))

    def test_downloads(self) -> None:
        """So it is the other way."""
        files = []
        for number in range(SMALL):
            name = f"small-{number}"
            (self.root / name).write_bytes(content(name, SMALL_SIZE))
            files.append(LocalFile(name, str(self.base / name), SMALL_SIZE, 0))
        with CutProxy(self.port, self.cut_often(Way.DOWN)) as proxy, self.client(proxy.port) as client:
            self.check(files, list(client.download_small(files, "/")))
        for file in files:
            self.assertEqual((self.base / file.path).read_bytes(), content(file.path, SMALL_SIZE))

    def check(self, files: list[LocalFile], outcomes: list[Outcome]) -> None:
        """Every file went well, once."""
        self.assertEqual([one.error for one in outcomes if one.error is not None], [])
        self.assertEqual(sorted(one.file.path for one in outcomes), sorted(file.path for file in files))
        _cuts.add(5, "of many small files")


class KilledClientTests(CutCase):
    """Programs that end in the middle, and are started again."""

    def test_uploads(self) -> None:
        """An upload whose program was killed goes on with the next program."""
        source = self.source("source", SIZE)
        for _ in range(KILLED):
            self.interrupted(Way.UP, signal.SIGKILL, "upload", source, "/")
            self.assert_content(self.root / "source", "source", SIZE)
            (self.root / "source").unlink()
            _cuts.add(1, "killed programs")

    def test_downloads(self) -> None:
        """A download that was left by Ctrl-C goes on with the next program."""
        (self.root / "source").write_bytes(content("source", SIZE))
        for _ in range(KILLED):
            self.interrupted(Way.DOWN, signal.SIGINT, "download", "/source", self.base)
            self.assert_content(self.base / "source", "source", SIZE)
            (self.base / "source").unlink()
            _cuts.add(1, "programs left by Ctrl-C")

    def written(self) -> int:
        """Bytes of the file on its way, here or there."""
        parts = (*self.root.glob(".fileexport/part-*"), *self.base.glob(".fileexport/part-*"))
        return max((part.stat().st_size for part in parts), default=0)

    def interrupted(self, way: Way, kind: signal.Signals, *words: object) -> None:
        """Run a command, interrupt it in the middle, run it again to its end."""
        at = self.chance.randrange(SIZE // 4, SIZE * 3 // 4)
        # Nothing passes behind it, so that the program cannot be too fast.
        with CutProxy(self.port, [Cut(way, at, How.STALL)]) as proxy:
            with self.running(self.environ(proxy.port), *map(str, words)) as process:
                # Ctrl-C in the midst of a write would cost what came since the last note of it.
                eventually("what has passed is written", lambda: self.written() >= at - 4 * KIB)
                process.send_signal(kind)
                process.wait()
            eventually("the end of the connection", lambda: proxy.connections[0].has_ended)
            first = len(proxy.connections)
            passed = proxy.passed(way)
            environ = self.environ(proxy.port)
            eventually("the second try", lambda: self.command(environ, *map(str, words)).returncode == 0)
            self.assertLess(proxy.passed(way, first), SIZE - passed + SLACK)
