"""A tree of very many files: what both sides need for it, and that no message holds all of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.proof.commands import FILEEXPORT
from tests.proof.counts import SOAK
from tests.proof.cut_proxy import CutProxy
from tests.proof.process import MIB, peak, say
from tests.proof.proxy import Way
from tests.proof.sync_case import SyncCase

#: Files, and how many of them lie in one directory.
FILES, IN_ONE = 200_000 if SOAK else 20_000, 500
#: Runs a script and writes down how much memory the process had at most: what wait4(2) says of that counts
#: also what the parent had before the exec.
PROGRAM = """
import atexit, runpy, sys
report = sys.argv.pop(1)
def tell():
    with open("/proc/self/status") as status, open(report, "w") as file:
        file.write(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
atexit.register(tell)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
#: Promised, of each side.
MEMORY = 300_000_000
#: The longest frame of control that there may be, with its header.
FRAME = (256 << 10) + 12


class MemoryTests(SyncCase):
    """Many files, none of which is large."""

    def test_memory(self) -> None:
        """Both sides stay below the promise: first, with nothing to do, with little to do, the other way."""
        for number in range(FILES):
            if number % IN_ONE == 0:
                directory = self.here / f"{number // IN_ONE:04}"
                directory.mkdir(parents=True)
            (directory / f"a name as people have them {number:06}.txt").write_bytes(b"%d" % number)
        self.measured("first", Way.UP)
        self.measured("nothing to do", Way.UP)
        (self.here / "0000").rename(self.here / "moved")
        self.measured("a directory moved", Way.UP, "--delete")
        self.here = self.base / "back"
        self.measured("the other way", Way.DOWN)
        arrived = sum(len(files) for _, _, files in os.walk(self.here))
        self.assertEqual(arrived, FILES)

    def measured(self, what: str, way: Way, *options: str) -> None:
        """Run it to its end; neither side took more than is promised."""
        with CutProxy(self.port, record=what == "nothing to do") as proxy:
            begun = time.monotonic()
            report = self.base / "peak"
            status = subprocess.call(
                (sys.executable, "-c", PROGRAM, str(report), FILEEXPORT, *self.words(way, *options)),
                env=self.environ(proxy.port),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            seconds = time.monotonic() - begun
            self.assertEqual(status, 0, what)
            passed = sum(proxy.passed(one) for one in Way)
            if what == "nothing to do":
                self.assert_frames(proxy.connections[0].recorded[Way.DOWN])
        client, server = int(report.read_text()) * 1024, peak(self.server.pid)
        say(
            f"{FILES} files, {what}: client {client / MIB:.0f} MiB, server {server / MIB:.0f} MiB at most, "
            f"{passed / MIB:.1f} MiB on the wire, {seconds:.1f} s"
        )
        self.assertLess(client, MEMORY, what)
        self.assertLess(server, MEMORY, what)

    def assert_frames(self, said: bytearray) -> None:
        """The listing came in frames of bounded length."""
        # Behind the preface each frame begins with its length.
        at, longest = 8, 0
        while at < len(said):
            size = int.from_bytes(said[at : at + 4], "big") + 12
            at, longest = at + size, max(longest, size)
        self.assertEqual(at, len(said), "frames do not follow each other")
        self.assertLessEqual(longest, FRAME)
