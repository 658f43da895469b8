"""Coverage-guided fuzzing of everything that reads the wire: only typed errors come out."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import CHECKOUT

#: Inputs of each target. The sessions have most to remember, and so most to get wrong.
INPUTS = {"frames": 150, "messages": 200, "folders": 100, "paths": 100, "grower": 50}
INPUTS |= {"server": 250, "client": 250}
SCALE = 1000 if SOAK else 20
#: Seconds that one target may take: for a fuzzer that hangs, no time is asserted.
LIMIT = 1800
_inputs = Tally("inputs of the wire, by coverage")


class FuzzTests(SynchronousTestCase):
    """Each target in a process of its own: the fuzzer ends it."""

    def test_targets(self) -> None:
        """Frames, messages, folders, paths, compressed content and both sessions meet inputs of all kinds."""
        if find_spec("atheris") is None:
            raise SkipTest("atheris is not installed (it is for Linux only): nothing was fuzzed by coverage")
        path = os.pathsep.join(str(CHECKOUT / part) for part in ("src", "."))
        for target, count in INPUTS.items():
            corpus = Path(self.mktemp())
            corpus.mkdir(parents=True)
            command = (
                sys.executable,
                "-m",
                "tests.proof.fuzz_wire",
                target,
                str(count * SCALE),
                corpus.absolute(),
            )
            done = subprocess.run(
                command,
                cwd=CHECKOUT,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LIMIT,
                check=False,
            )
            said = (done.stdout + done.stderr).decode(errors="replace")
            self.assertEqual(done.returncode, 0, f"{target}:\n{said[-4000:]}")
            self.assertIn(f"Done {count * SCALE} runs", said, target)
            _inputs.add(count * SCALE, target)
