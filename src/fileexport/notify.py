"""What the service manager is told of us: sd_notify(3), without its library.

Where nobody listens (no $NOTIFY_SOCKET) nothing is sent. Nothing here raises, and nothing waits longer than
`PATIENCE`: a service manager that is busy or gone must not take the files down with it.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import MutableMapping
from contextlib import suppress

from twisted.internet.interfaces import IReactorTime

#: Microseconds that a message waits for room in the manager's queue; then it is dropped.
PATIENCE = 500_000
# struct timeval, as SO_SNDTIMEO wants it: seconds, microseconds
_TIMEVAL = struct.Struct("@ll")
_MICROSECONDS = re.compile("[0-9]{1,18}", re.ASCII)


class Notifier:
    """Tells the service manager how we are.

    Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID out of `environ`, so that no child speaks for us.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._address = _address(environ.pop("NOTIFY_SOCKET", ""))
        self._socket = _open() if self._address else None
        self._interval = _interval(environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", ""))

    def ready(self, status: str = "") -> None:
        """We serve: after the start, and again after a reload. `status` is for people; empty: as it was."""
        self._send("READY=1", *([f"STATUS={' '.join(status.splitlines())}"] if status else []))

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. The time tells the manager which of its signals this answers."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """A stop begins."""
        self._send("STOPPING=1", "STATUS=stopping")

    def watch(self, reactor: IReactorTime) -> None:
        """Give a sign of life now and in half of each time that the watchdog allows, if there is one.

        The reactor itself calls for each, so one that hangs gives none, and the manager starts us anew.
        """
        if self._interval is not None:
            self._send("WATCHDOG=1")
            reactor.callLater(self._interval, self.watch, reactor)

    def _send(self, *assignments: str) -> None:
        if self._socket is not None:
            # Not connected: a manager that was started anew has another socket under the same name.
            with suppress(OSError):
                self._socket.sendto("\n".join(assignments).encode("utf-8", "replace"), self._address)


def _address(text: str) -> bytes:
    """The address of a UNIX socket: a path, or an abstract name behind an @; of other kinds, nothing."""
    if text.startswith("@"):
        return b"\0" + os.fsencode(text[1:])
    return os.fsencode(text) if text.startswith("/") else b""


def _open() -> socket.socket | None:
    """The socket that all messages leave by. Opened once: who has no descriptor left is not yet dead."""
    with suppress(OSError):
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(0, PATIENCE))
        return found
    return None


def _interval(microseconds: str, pid: str) -> float | None:
    """Seconds between signs of life; None where none are awaited of us (sd_watchdog_enabled(3))."""
    if pid not in ("", str(os.getpid())) or not _MICROSECONDS.fullmatch(microseconds):
        return None
    return int(microseconds) / 2e6 or None
