"""A daemon in a process of its own, started the way a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

CHECKOUT = Path(__file__).resolve().parents[2]
#: Seconds after which a daemon that says nothing, or does not end, has failed; no time is asserted.
PATIENCE = 30.0
_BANNER = r"HTTP on (http://127\.0\.0\.1:\d+/)"
_TRANSFER = r"transfer on \S+ 127\.0\.0\.1:(\d+)"


class Daemon:
    """`twistd -n fileexport --root ROOT` on a free port of 127.0.0.1; `args` are further options.

    `with` starts it and waits for its banner. On leaving the block it is killed where it still runs. Its
    state lies beside the root unless `args` say otherwise, so that a second daemon for the root finds it. The
    transfer protocol is left out unless `args` have it: its port would be the same for every daemon.
    """

    def __init__(self, root: str | Path, *args: str) -> None:
        self.root = Path(root).absolute()
        state = () if "--state" in args else ("--state", f"{self.root}.state")
        twistd = Path(sys.executable).parent / "twistd"
        transfer = () if "--transfer" in args else ("--transfer", "none")
        options = ("--root", str(self.root), "-p", "0", *transfer, *state, *args)
        self._command = (str(twistd), "-n", "--pidfile=", "fileexport", *options)
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        #: Of the HTTP side, with a slash at its end.
        self.url = ""

    def __enter__(self) -> Daemon:
        # From the checkout, so that a relative PYTHONPATH leads there from trial's directory as well.
        self._process = subprocess.Popen(
            self._command,
            cwd=CHECKOUT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="backslashreplace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.url = self.expect(_BANNER)[1]
        except AssertionError:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Of the daemon's process."""
        return self._process.pid

    @property
    def transfer_port(self) -> int:
        """Where the transfer protocol is spoken; waits until the daemon says so."""
        return int(self.expect(_TRANSFER)[1])

    @property
    def output(self) -> str:
        """What it has printed so far, its log and access log among it; after its end, all of it."""
        with self._changed:
            return "".join(self._lines)

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until a line that was printed matches `pattern`.

        Raises `AssertionError` where the daemon ends first, or `PATIENCE` does.
        """
        seen = 0
        found: re.Match[str] | None = None

        def matched() -> bool:
            nonlocal seen, found
            while found is None and seen < len(self._lines):
                found = re.search(pattern, self._lines[seen])
                seen += 1
            return found is not None or self._ended

        with self._changed:
            self._changed.wait_for(matched, PATIENCE)
        if found is None:
            raise AssertionError(f"the daemon did not print {pattern!r}:\n{self.output}")
        return found

    def terminate(self) -> None:
        """Ask it to end, and do not wait."""
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Ask it to end and wait; return its exit status. Raises `TimeoutExpired` past `PATIENCE`."""
        self.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; return its exit status. Raises `TimeoutExpired` past `PATIENCE`."""
        status = self._process.wait(PATIENCE)
        self._finish()
        return status

    def kill(self) -> None:
        """Kill it without warning (SIGKILL), where it still runs, and wait for its end."""
        self._process.kill()
        self._process.wait()
        self._finish()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _finish(self) -> None:
        self._reader.join(PATIENCE)
        if not self._reader.is_alive() and self._process.stdout is not None:
            self._process.stdout.close()


def _environment() -> dict[str, str]:
    """This process's environment without what would configure the daemon."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FILEEXPORT_")}
    kept.pop("STATE_DIRECTORY", None)
    return kept | {"PYTHONUNBUFFERED": "1"}
