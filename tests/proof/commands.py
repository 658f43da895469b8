"""What the daemon's users type: the programs, run to their end, and daemons that other lines start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.proof.daemon import CHECKOUT, PATIENCE, Daemon

_BIN = Path(sys.executable).parent
TWISTD, TWIST, FILEEXPORT = (str(_BIN / name) for name in ("twistd", "twist", "fileexport"))


def run(
    *command: str | Path, cwd: Path | None = None, patience: float = PATIENCE
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, which must come in time; its output may be any bytes."""
    return subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience)


def eventually(what: str, condition: Callable[[], object]) -> None:
    """Wait until the condition holds; for what another process does and does not tell."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in time: {what}")
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Command(Daemon):
    """A daemon that another command line starts; it must print the banner of an HTTP listener."""

    def __init__(self, root: Path, *command: str) -> None:
        super().__init__(root)
        self._command = command


class DaemonCase(SynchronousTestCase):
    """Has a root beside which tests may write; children find the checkout from every directory."""

    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()
        self.root = self.base / "root"
        self.root.mkdir(parents=True)
        path = os.environ.get("PYTHONPATH")
        if path is not None:
            self.addCleanup(os.environ.__setitem__, "PYTHONPATH", path)
            absolute = [str(CHECKOUT / part) for part in path.split(os.pathsep) if part]
            os.environ["PYTHONPATH"] = os.pathsep.join(absolute)

    def write(self, name: str, content: bytes, mode: int = 0o644) -> Path:
        """A file below the base directory."""
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def assert_one_line(self, done: subprocess.CompletedProcess[bytes], *words: str) -> None:
        """It ended with status 1 and one line on stderr that has all these words."""
        self.assertEqual((done.returncode, done.stdout), (1, b""), done.stderr)
        (line,) = done.stderr.decode().splitlines()
        for word in words:
            self.assertIn(word, line)
