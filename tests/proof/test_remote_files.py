"""Remote files against real daemons: parts of huge ones, cuts, killed programs, what is read ahead."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from fileexport import Client
from fileexport.keys import generate_keys
from tests.proof.commands import eventually
from tests.proof.counts import SOAK, Tally
from tests.proof.cut_proxy import Cut, CutProxy, How
from tests.proof.process import KIB, MIB, line_of, say
from tests.proof.proxy import Way
from tests.proof.transfer_case import TransferCase, content

#: A file of which little is stored; bytes of each part that is read, and seconds that it may take.
HUGE = 10 << 30
PART, SECONDS = MIB, 1.0
#: Bytes of a file that is read through cuts, and how many there are.
SIZE, CUTS = (100 * MIB, 40) if SOAK else (20 * MIB, 6)
#: What a server may send before somebody takes it (`DEFAULT_OFFER.stream_credit`), and buffers on the way.
WINDOW, BUFFERS = 8 * MIB, 14 * MIB
_cuts = Tally("reads cut")

_WRITE = """
import sys, fileexport
file = fileexport.open("/file", "wb")
for _ in range(50):
    file.write(bytes(1 << 20))
file.flush()
print("written", flush=True)
sys.stdin.readline()
file.close()
"""


class RangeTests(TransferCase):
    """Parts of a huge file."""

    def test_huge(self) -> None:
        """Three parts of 10 GiB come within a second each, plain and by TLS, and little else does."""
        places = [0, HUGE // 2 - 5, HUGE - PART]
        with (self.root / "huge").open("wb") as file:
            file.truncate(HUGE)
            for place in places:
                file.seek(place)
                file.write(content(str(place), PART))
        pin, keys = generate_keys()
        key = str(self.write("keys.pem", keys.encode(), 0o600))
        for way, options, security in (
            ("plain", (), {}),
            ("TLS", ("--private-key", key), {"public_key": pin}),
        ):
            daemon = self.daemon(*options)
            client = self.client(daemon.transfer_port, **security)
            client.stat("/huge")
            seconds = [self.part(client, place) for place in places]
            self.assertLess(max(seconds), SECONDS)
            self.assertLess(client.traffic[1], 3 * (PART + 2 * MIB))
            say(f"parts of 1 MiB of a file of 10 GiB, {way}: {max(seconds) * 1000:.0f} ms at most")
            daemon.kill()

    def part(self, client: Client, place: int) -> float:
        """Read one part; seconds that it took."""
        begun = time.perf_counter()
        with client.open("/huge", "rb") as file:
            file.seek(place)
            found = file.read(PART)
        seconds = time.perf_counter() - begun
        self.assertEqual(found, content(str(place), PART))
        return seconds

    def test_ahead(self) -> None:
        """A reader that stops is sent no more than the window of a stream; others are served."""
        (self.root / "huge").touch()
        os.truncate(self.root / "huge", HUGE)
        with (
            CutProxy(self.daemon().transfer_port) as proxy,
            self.client(proxy.port).open("/huge", "rb") as file,
        ):
            for _ in range(30):
                self.assertEqual(len(file.read(MIB)), MIB)
            other = self.client(proxy.port)
            for _ in range(20):
                other.stat("/huge")
            passed = proxy.passed(Way.DOWN)
            self.assertLess(passed, 30 * MIB + WINDOW + BUFFERS)
            say(f"sent ahead of a reader that stopped: {(passed - 30 * MIB) / MIB:.1f} MiB")


class BrokenTests(TransferCase):
    """Connections and programs that end."""

    def test_cuts(self) -> None:
        """A file is read whole and in order however often the connection is cut, and little of it twice."""
        (self.root / "source").write_bytes(content("source", SIZE))
        chance = random.Random(7)
        cuts = [
            Cut(Way.DOWN, chance.randrange(2000, 2 * SIZE // CUTS), How.RST if number % 2 else How.FIN)
            for number in range(CUTS)
        ]
        hashed = hashlib.sha256()
        with CutProxy(self.daemon().transfer_port, cuts) as proxy:
            with self.client(proxy.port).open("/source", "rb") as file:
                while piece := file.read(chance.randrange(1, MIB)):
                    hashed.update(piece)
            done = sum(one.was_cut for one in proxy.connections)
            passed = proxy.passed(Way.DOWN)
        self.assertEqual(hashed.digest(), hashlib.sha256(content("source", SIZE)).digest())
        self.assertGreater(done, 1)
        # What had passed the proxy and not the socket comes again.
        self.assertLess(passed, SIZE + done * BUFFERS)
        _cuts.add(done)

    def test_restart(self) -> None:
        """A daemon that is killed and started again costs a reader time, and no byte."""
        (self.root / "source").write_bytes(content("source", SIZE))
        first = self.daemon()
        with self.client(first.transfer_port).open("/source", "rb") as file:
            found = file.read(SIZE // 2)
            first.kill()
            self.daemon(port=first.transfer_port)
            self.assertEqual(found + file.read(), content("source", SIZE))

    def writing(self, environ: Mapping[str, str]) -> subprocess.Popen[str]:
        """A program that has written to a file, and closes it when it is told to."""
        program = subprocess.Popen(
            ("env", "--default-signal=INT", sys.executable, "-c", _WRITE),
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.end, program)
        self.assertEqual(line_of(program), "written\n")
        return program

    def end(self, program: subprocess.Popen[Any]) -> None:
        """Whatever it does."""
        program.kill()
        program.communicate()

    def test_killed(self) -> None:
        """A program that is killed, or interrupted, before it closed its file leaves the old one."""
        (self.root / "file").write_bytes(b"old")
        environ = self.environ(self.daemon().transfer_port)
        for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
            program = self.writing(environ)
            program.send_signal(number)
            program.communicate()
            self.assertEqual((self.root / "file").read_bytes(), b"old")
        program = self.writing(environ)
        program.communicate("\n")
        self.assertEqual((program.returncode, (self.root / "file").stat().st_size), (0, 50 * MIB))

    def test_killed_while_it_commits(self) -> None:
        """Where it is killed in the midst of closing it, the old file or the new one is there, and whole."""
        (self.root / "file").write_bytes(b"old")
        port = self.daemon().transfer_port
        for at in (100 * KIB, 30 * MIB):
            self.kill_behind(port, at)
            self.assertIn((self.root / "file").stat().st_size, (3, 50 * MIB))
        eventually("the path is free", lambda: self.write_file(port))
        self.assertEqual((self.root / "file").read_bytes(), b"new")

    def kill_behind(self, port: int, at: int) -> None:
        """Kill a program that commits a file, when so many bytes have passed or a little more."""
        with CutProxy(port, [Cut(Way.UP, at, How.STALL)]) as proxy:
            program = self.writing(self.environ(proxy.port))
            assert program.stdin is not None
            program.stdin.write("\n")
            program.stdin.flush()
            eventually("the upload stalls", lambda: proxy.passed(Way.UP) >= 100 * KIB)
            program.kill()
            program.wait()

    def write_file(self, port: int) -> bool:
        """Whether the file could be written now."""
        with self.client(port) as client:
            try:
                with client.open("/file", "w") as file:
                    file.write("new")
            except OSError:
                raise
            except Exception:
                return False
        return True
