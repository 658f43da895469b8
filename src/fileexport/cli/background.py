"""A daemon in the background, known by its pid file.

The daemon holds flock(2) on the file while it lives: a file that can be locked is stale, whatever process has
its number by now.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import stat
import sys
import traceback
from contextlib import suppress
from dataclasses import replace
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING

from fileexport.errors import FileExportError

if TYPE_CHECKING:
    from fileexport.startup import Prepared

#: Seconds that `stop` waits: longer than the daemon's own grace.
PATIENCE = 30.0
_READY = b"ready"
#: Never through a link, and a FIFO must not hold us up.
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Bytes of a pid file: Linux' largest number has seven digits.
MAX_PIDFILE = 16
_PID = re.compile(rb"(?:[1-9][0-9]{0,6})?\s*")


class NotRunning(FileExportError):
    """No daemon runs with this pid file."""


class AlreadyRunning(FileExportError):
    """A daemon runs with this pid file."""


class StillRunning(FileExportError):
    """The daemon has not ended yet."""


def start(prepared: Prepared, pidfile: Path, log: str) -> None:
    """Run the daemon in a process of its own; returns when it listens.

    Raises `AlreadyRunning`, `OSError` for the pid file, and `SystemExit` with the daemon's status where it
    cannot start; it has said why on standard error then.
    """
    lock = _take(pidfile)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _detach(prepared, pidfile, lock, writer, log)
    os.close(writer)
    os.close(lock)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read(len(_READY))
    if said != _READY:
        raise SystemExit(int(said or b"1"))


def _take(pidfile: Path) -> int:
    """Open, lock and empty the pid file; what is something else stays as it is."""
    while True:
        lock = os.open(pidfile, _OPEN | os.O_CREAT, 0o644)
        try:
            _check(lock, pidfile)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except NotRunning:
            os.close(lock)
            raise
        except BlockingIOError:
            os.close(lock)
            raise AlreadyRunning(f"it runs already, as process {pid_of(pidfile)} ({pidfile})") from None
        if _is_at(lock, pidfile):
            # At once: a `stop` must not take the number of a stale file for ours.
            os.ftruncate(lock, 0)
            return lock
        os.close(lock)  # its daemon has just ended, and taken the name away


def _check(descriptor: int, pidfile: Path) -> None:
    """Raise `NotRunning` where the open file is no pid file: a regular file, empty or with one number."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        content = os.pread(descriptor, MAX_PIDFILE + 1, 0)
        if _PID.fullmatch(content):
            return
    raise NotRunning(f"{pidfile} is no pid file; name another with --pidfile")


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the path still names the open file."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _detach(prepared: Prepared, pidfile: Path, lock: int, writer: int, log: str) -> None:
    """Become the daemon: a session of its own, no terminal to gain. Never returns."""
    os.setsid()
    if os.fork():
        os._exit(0)
    status = 1
    answer = os.fdopen(writer, "wb", buffering=0)
    try:
        os.write(lock, b"%d\n" % os.getpid())
        _redirect(0)
        from fileexport import service

        settings = replace(prepared.settings, log_file=log)
        service.run(replace(prepared, settings=settings), ready=lambda: _ready(answer))
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            if _is_at(lock, pidfile):
                pidfile.unlink()
        with suppress(OSError):
            if not answer.closed:
                answer.write(b"%d" % status)
        sys.stderr.flush()
        os._exit(status)


def _ready(answer: RawIOBase) -> None:
    # The terminal is kept until now, so that a mistake is read by whoever made it.
    _redirect(1)
    _redirect(2)
    answer.write(_READY)
    answer.close()


def _redirect(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)


def stop(pidfile: Path) -> None:
    """End the daemon and wait until it is gone.

    Raises `NotRunning` (a stale pid file is removed), `StillRunning` after `PATIENCE` seconds, and
    `PermissionError` where it is another user's.
    """
    try:
        lock = os.open(pidfile, _OPEN)
    except FileNotFoundError:
        raise NotRunning(f"no daemon runs: there is no pid file {pidfile}") from None
    try:
        _check(lock, pidfile)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _end(pid_of(pidfile), pidfile)
    else:
        pid_of(pidfile)  # what is no pid file is not removed
        pidfile.unlink()
        raise NotRunning(f"no daemon runs: the pid file {pidfile} was stale and is removed")
    finally:
        os.close(lock)


def _end(pid: int, pidfile: Path) -> None:
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        ended, _, _ = select.select([process], [], [], PATIENCE)
    finally:
        os.close(process)
    if not ended:
        raise StillRunning(f"process {pid} has not ended after {PATIENCE:.0f} s; kill -9 {pid} would end it")


def pid_of(pidfile: Path) -> int:
    """The process that the pid file names. Raises `NotRunning` where it names none."""
    try:
        return int(pidfile.read_text("ascii"))
    except (OSError, ValueError):
        raise NotRunning(f"the pid file {pidfile} names no process") from None
