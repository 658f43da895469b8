"""One connection to a server: a socket, a `Session`, and the waiting between them.

The socket never blocks; whatever takes time waits in `poll` until its `Wait` runs out. While something is
written, what arrives is read too, so that two sides with full buffers do not wait for each other.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from fileexport.client.answers import error_of, error_of_reset
from fileexport.errors import CorruptedResponse, PeerGone
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import PAUSE, Event, Received, Session, State

if TYPE_CHECKING:
    from collections.abc import Callable

#: Milliseconds that an answer may take where nobody says otherwise.
DEFAULT_TIMEOUT = 60_000
#: More is no time-out, but a mistake: 23 days. `poll` takes little more.
MAX_TIMEOUT = 2_000_000_000
#: What is read at once, at most: a whole DATA frame.
_BUFFER = 1 << 20
#: TLS hands out records of 16 KiB; so much is collected before it is looked at.
_TLS_READ = 256 << 10
#: A write of TLS is encrypted whole before any of it is sent. Measured from 16 KiB to 1 MiB: all cost the
#: same time of the processor; from here on fewer turns are lost between two busy sides.
_TLS_WRITE = 256 << 10
#: Events kept while something is written; then nothing more is read until they were taken.
_MAX_KEPT = 1024
#: Linux: more follows at once, so that a header does not leave in a packet of its own.
_MORE = getattr(socket, "MSG_MORE", 0)
#: Padding for a frame whose file became shorter under way.
_ZEROS = bytes(64 << 10)
#: Bytes that an idle server may have said; one that says more is left.
_IDLE_READS = 8
_IN, _OUT = select.POLLIN, select.POLLOUT
#: Hang-ups and errors are told by the next read.
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


class Wait:
    """How long an answer may take. It begins when the answer is asked for, and again with each progress.

    `path` is what its `TimeoutError` names. Raises ValueError for milliseconds that are none, or more than
    `MAX_TIMEOUT`.
    """

    def __init__(self, milliseconds: float | None = None, extra: float = 0) -> None:
        chosen = DEFAULT_TIMEOUT if milliseconds is None else milliseconds
        if not 0 < chosen <= MAX_TIMEOUT:
            raise ValueError(f"a time-out is a number of milliseconds, above 0 and up to {MAX_TIMEOUT}")
        self._seconds = chosen / 1000 + extra
        self.path: str | None = None
        self.begin()

    def allow(self, seconds: float) -> None:
        """Each answer may take so much longer from now on."""
        self._seconds += seconds

    def begin(self) -> None:
        """Something is asked for, or progress was made: the whole time again."""
        self._end = time.monotonic() + self._seconds

    def left(self) -> float:
        """Seconds that are left; raises `TimeoutError` where none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise no_answer(self._seconds, self.path)
        return left

    @property
    def seconds(self) -> float:
        """The whole time of one answer."""
        return self._seconds


def no_answer(seconds: float, path: str | None = None) -> TimeoutError:
    """Nothing was said in time; `path` is what it names."""
    words = f"no answer within {seconds:g} s"
    return TimeoutError(errno.ETIMEDOUT, words, *(() if path is None else (path,)))


class Traffic:
    """Bytes that left and came, before what TLS adds; several connections may count with it, and threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent = self._received = 0

    def add(self, sent: int, received: int = 0) -> None:
        """So many more."""
        with self._lock:
            self._sent += sent
            self._received += received

    @property
    def both(self) -> tuple[int, int]:
        """What left, and what came."""
        with self._lock:
            return self._sent, self._received


def dial(host: str, port: int, check: Callable[[str], None], wait: Wait) -> socket.socket:
    """Connect to the first address of a host that answers. `check` is asked about each and may raise.

    Its time-out is what is left of `wait`. Raises `TimeoutError`, `ConnectionError`, and what `check`
    raises. Names are looked up by the system, which has its own time-outs.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectionError(f"{host}: {getattr(error, 'strerror', None) or 'not a host name'}") from None
    for _, _, _, _, address in found:
        check(str(address[0]))
    failed: OSError = ConnectionError(f"{host} has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(found):
        try:
            return _connect(socket.socket(family, kind, protocol), address, wait, len(found) - tried)
        except OSError as error:
            failed = error
    raise not_connected(failed, f"{host} port {port}")


def not_connected(error: OSError, where: str) -> OSError:
    """Why a server cannot be reached: a `TimeoutError` or a `ConnectionError`, with the system's number."""
    if isinstance(error, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, f"{where}: no answer in time")
    kind = type(error) if isinstance(error, ConnectionError) else ConnectionError
    number = () if error.errno is None else (error.errno,)
    return kind(*number, f"{where}: {error.strerror or error}")


def _connect(new: socket.socket, address: tuple[object, ...], wait: Wait, candidates: int) -> socket.socket:
    try:
        new.settimeout(wait.left() / candidates)
        new.connect(address)
        new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        new.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        new.settimeout(wait.left())
    except BaseException:
        new.close()
        raise
    return new


class Connection:
    """A connected socket and its session, for one operation after the other.

    Each method that may wait raises `TimeoutError`, `ConnectionError` and `CorruptedResponse`. After any
    exception out of them, also `KeyboardInterrupt`, `is_sound` is false: close it. It belongs to the process
    that made it: after a fork, nothing is said or read on it by the child.
    """

    def __init__(
        self, connected: socket.socket, session: Session, *, encrypted: bool, traffic: Traffic | None = None
    ) -> None:
        connected.settimeout(0)
        self._socket = connected
        self._poll = select.poll()
        self._poll.register(connected, 0)
        self._encrypted = encrypted
        self._traffic = traffic or Traffic()
        self._process = os.getpid()
        self._buffer = memoryview(bytearray(_BUFFER))
        self._kept: deque[Event] = deque()
        self.session = session
        #: Whether the last thing done on it came to its end.
        self.is_sound = True
        #: Whether the server said that it takes no further operations.
        self.is_leaving = False
        #: For the pool that lends it.
        self.generation = 0
        #: Whether the server takes nothing any more.
        self._is_deaf = False
        #: What exceptions of the present operation name.
        self.path: str | None = None

    @property
    def can_send_file(self) -> bool:
        """Whether bytes may go from a file to the socket inside the kernel."""
        return not self._encrypted

    @property
    def is_ours(self) -> bool:
        """Whether this process made it."""
        return self._process == os.getpid()

    @property
    def has_events(self) -> bool:
        """Whether `event` has something without waiting."""
        return bool(self._kept)

    # Reading.

    def event(self, wait: Wait) -> Event:
        """The next event, pieces of DATA included; a piece is only valid until the next call."""
        self.is_sound = False
        while (found := self._next()) is None or found is PAUSE:
            try:
                self._flush(wait)
            except PeerGone:
                # What the server said before it went may still be read: content that need not come again.
                self.is_leaving = self._is_deaf = True
            # Ends where the time is over, also where the server says without end what concerns nobody.
            wait.left()
            if found is None:
                self._receive(wait)
        self.is_sound = True
        return found

    def has_died(self) -> bool:
        """Whether an idle connection cannot be used any more. Does not wait."""
        try:
            for _ in range(_IDLE_READS):
                # What is left of a cancelled operation comes before what is read now.
                while self._next() is not None:
                    pass
                if not self._read():
                    break
            else:
                return True
            self._flush(Wait(1))
        except Exception:
            return True
        return self.session.state is not State.OPEN

    def _next(self) -> Event | None:
        if self._kept:
            return self._kept.popleft()
        try:
            return self.session.next_event()
        except CorruptedResponse:
            with suppress(Exception):
                self._flush(Wait(1))
            raise

    def _receive(self, wait: Wait) -> None:
        """Wait until something has come."""
        wait.left()
        while not self._read():
            self._poll_for(_IN, wait)

    def _read(self) -> bool:
        """Feed the session what is there; all its events must have been taken. False where nothing is."""
        self._check_ours()
        want = _TLS_READ if self._encrypted else 1
        filled = 0
        try:
            while filled < want:
                count = self._socket.recv_into(self._buffer[filled:])
                if not count:
                    break
                filled += count
        except OSError as error:
            if not _is_waiting(error) and not filled:
                raise _gone(error) from None
            if not filled:
                return False
        if not filled:
            raise PeerGone("the server closed the connection")
        self._traffic.add(0, filled)
        self.session.receive(self._buffer[:filled])
        return True

    # Writing.

    def flush(self, wait: Wait) -> None:
        """Write what the session has to say."""
        self.is_sound = False
        self._flush(wait)
        self.is_sound = True

    def send_content(
        self, stream: int, content: bytes | memoryview, wait: Wait, compressed: bool = False
    ) -> None:
        """Write one DATA frame."""
        self.is_sound = False
        self._begin_data(stream, len(content), wait, compressed)
        self._write(content, wait)
        self.is_sound = True

    def send_file(self, stream: int, descriptor: int, offset: int, size: int, wait: Wait) -> bool:
        """Write one DATA frame of `size` bytes of a file. False: the file is shorter, the rest was zeros."""
        self.is_sound = False
        self._begin_data(stream, size, wait, False)
        end = offset + size
        while offset < end:
            try:
                sent = os.sendfile(self._socket.fileno(), descriptor, offset, end - offset)
            except (BlockingIOError, InterruptedError, ConnectionError) as error:
                self._after(error, wait)
                continue
            except OSError:
                # A file system that cannot do it; what else is wrong is told by reading, or by writing.
                content = os.pread(descriptor, min(end - offset, _TLS_WRITE), offset)
                self._write(content, wait)
                sent = len(content)
            if not sent:
                break
            offset += sent
            self._traffic.add(sent)
            wait.begin()
        whole = offset == end
        while offset < end:
            pad = _ZEROS[: end - offset]
            self._write(pad, wait)
            offset += len(pad)
        self.is_sound = True
        return whole

    def absorb(self) -> None:
        """Read what has come, without waiting, and keep its events."""
        self.is_sound = False
        self._absorb()
        self.is_sound = True

    def _begin_data(self, stream: int, size: int, wait: Wait, compressed: bool) -> None:
        self.session.data_header(stream, size, compressed=compressed)
        self._write(self.session.take(), wait, more=True)

    def _flush(self, wait: Wait) -> None:
        while (waiting := self.session.take()) and not self._is_deaf:
            self._write(waiting, wait, counts=False)

    def _write(self, data: bytes | memoryview, wait: Wait, more: bool = False, counts: bool = True) -> None:
        """Write all of it. It is progress where it `counts`: what the session says by itself never does."""
        self._check_ours()
        rest = memoryview(data)
        while rest:
            try:
                if self._encrypted:
                    sent = self._socket.send(rest[:_TLS_WRITE])
                else:
                    sent = self._socket.send(rest, _MORE if more else 0)
            except OSError as error:
                self._after(error, wait)
                continue
            rest = rest[sent:]
            self._traffic.add(sent)
            if counts:
                wait.begin()

    def _after(self, error: OSError, wait: Wait) -> None:
        """A write could not go on: wait until it can, and read meanwhile; or raise why it never will."""
        if not _is_waiting(error):
            self._say_why()
            raise _gone(error) from None
        full = len(self._kept) >= _MAX_KEPT
        if self._poll_for(_OUT if full else _OUT | _IN, wait) & _READABLE and not full:
            self._absorb()

    def _absorb(self) -> None:
        self._keep()
        if len(self._kept) < _MAX_KEPT and self._read():
            self._keep()

    def _keep(self) -> None:
        while (found := self.session.next_event()) is not None:
            if found is PAUSE:
                continue
            if isinstance(found, Data):
                found = found._replace(piece=memoryview(bytes(found.piece)))
            if not (isinstance(found, Received) and isinstance(found.message, m.MoreCredit | m.Pong)):
                self._kept.append(found)

    def _say_why(self) -> None:
        """The server took nothing more: where it said why before, raise that."""
        with suppress(OSError):
            self._absorb()
        for found in self._kept:
            if isinstance(found, Received) and isinstance(found.message, m.Reset):
                raise error_of_reset(found.message, self.path)
            if isinstance(found, Received) and isinstance(found.message, m.GoAway) and found.message.code:
                raise error_of(found.message.code, found.message.message, self.path)

    # Waiting, and the end.

    def _check_ours(self) -> None:
        if not self.is_ours:
            raise PeerGone("this connection belongs to the process that was forked")

    def _poll_for(self, mask: int, wait: Wait) -> int:
        self._poll.modify(self._socket, mask)
        # Rounded up: a wait of less than a millisecond is none, and would go round and round.
        found = self._poll.poll(int(wait.left() * 1000) + 1)
        return found[0][1] if found else 0

    def close(self) -> None:
        """Close the socket, saying goodbye where nothing has to be waited for."""
        if self.is_sound and self.is_ours:
            self.session.leave()
            with suppress(OSError):
                self._socket.send(self.session.take())
        self._socket.close()

    def forget(self) -> None:
        """Close the descriptor and say nothing."""
        self._socket.close()


def _is_waiting(error: OSError) -> bool:
    if isinstance(error, BlockingIOError | InterruptedError):
        return True
    # SSLWantReadError and SSLWantWriteError, without importing ssl.
    return type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")


def _gone(error: OSError) -> PeerGone:
    return PeerGone(f"the connection broke: {getattr(error, 'reason', None) or error.strerror or error}")
