"""What the kernel tells of a process, and figures that a proof says aloud."""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import AnyStr

from tests.proof.daemon import PATIENCE

KIB, MIB = 1 << 10, 1 << 20


def resident(pid: int) -> int:
    """Bytes of memory that the process has now (VmRSS)."""
    return _memory(pid, "VmRSS")


def peak(pid: int) -> int:
    """The most bytes of memory that it had at a time since `forget_peak`, or since its start (VmHWM)."""
    return _memory(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Let `peak` count from what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def descriptors(pid: int) -> int:
    """How many descriptors it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def resting(pid: int) -> int:
    """How many descriptors it has open when the connections that have ended are closed there too.

    Raises `AssertionError` where the number does not come to rest.
    """
    deadline = time.monotonic() + PATIENCE
    seen = [-1]
    while len(set(seen[-5:])) > 1 or len(seen) < 5:
        if time.monotonic() > deadline:
            raise AssertionError(f"the number of descriptors does not rest: {seen[-5:]}")
        time.sleep(0.05)
        seen.append(descriptors(pid))
    return seen[-1]


def line_of(process: subprocess.Popen[AnyStr]) -> AnyStr:
    """The next line that it prints, empty at its end; a process that takes too long for one is killed."""
    assert process.stdout is not None
    late = threading.Timer(PATIENCE, process.kill)
    late.start()
    try:
        return process.stdout.readline()
    finally:
        late.cancel()


def end(process: subprocess.Popen[AnyStr]) -> None:
    """Kill it where it still runs, and close its pipes."""
    process.kill()
    process.communicate()


def say(line: str) -> None:
    """Print a measured figure when this process ends, behind what the runner of the tests prints."""
    atexit.register(print, line, flush=True)


def _memory(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise AssertionError(f"process {pid} has no {field}")
    return int(found[1]) * 1024
