"""Log lines: where they go, and what an event or a request looks like in one.

Whatever a client sent reaches a line only as printable characters: everything else, quotes and backslashes
stand there as their UTF-8 bytes in the form ``\\xNN``. So nobody forges a line or a terminal's sequence,
and the bytes can be read back.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from io import BufferedIOBase, RawIOBase
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, TextIO, cast

import msgspec
from twisted.logger import ILogObserver, LogEvent, formatEvent
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str
from zope.interface import implementer

Form = Literal["text", "json"]
#: Seconds since 1970.
Clock = Callable[[], float]

#: Bytes of each field that a client sends: a line stays short whatever the limits of the HTTP side are.
MAX_TARGET = 8192
MAX_HEADER = 512
MAX_METHOD = 64
MAX_VERSION = 16
#: Characters of a message and of a traceback: an exception's text can be as large as what it speaks of.
MAX_MESSAGE = 16_384
MAX_TRACEBACK = 65_536

#: The group may read (log shippers), others may not.
_FILE_MODE = 0o640
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SECRETS = re.compile(r"([?&;](?:access_)?token=)[^&;#\s]*|fex1_[A-Za-z0-9_-]+")


# Text that is safe in a line


def _hex(char: str) -> str:
    """One character as the bytes that it stands for; a surrogate escape (PEP 383) is one byte."""
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))


#: For `str.translate`: what hostile bytes turn into most, so that a line full of them costs little.
_CONTROLS = {code: _hex(chr(code)) for code in (*range(32), *range(127, 160), *range(0xDC80, 0xDD00))}
_QUOTED = _CONTROLS | {ord(char): _hex(char) for char in '"\\'}
_UNBROKEN = _QUOTED | {ord(" "): _hex(" ")}


def _printable(text: str, table: dict[int, str]) -> str:
    """`text` with the characters of `table` and everything that is not printable as ``\\xNN``.

    Not printable are controls, line separators, directions and other formats, and surrogates.
    """
    text = text.translate(table)
    return text if text.isprintable() else "".join(c if c.isprintable() else _hex(c) for c in text)


def _masked(text: str) -> str:
    """`text` without tokens that are known by their look or their parameter's name."""
    if "token=" in text or "fex1_" in text:
        return _SECRETS.sub(lambda found: (found[1] or "fex1_") + "***", text)
    return text


def _sent(raw: bytes | None, limit: int) -> str:
    """A client's bytes as text for a quoted field; ``...`` ends what is longer than `limit` bytes."""
    if not raw:
        return ""
    text = raw[:limit].decode("utf-8", "surrogateescape")
    if len(raw) > limit:
        text += "..."
    text = _masked(text)
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return _printable(text, _QUOTED)


#: The same for what comes again and again: methods, versions, agents.
_sent_again = lru_cache(maxsize=256)(_sent)


@lru_cache(maxsize=256)
def _word(text: str) -> str:
    """A name or an address as one word; ``-`` where there is none. Few are seen, and they come again."""
    return _printable(text[:MAX_HEADER], _UNBROKEN) or "-"


def _one_line(text: str) -> str:
    """A message of our own or a library's: quotes stay, a newline does not."""
    text = _masked(text)
    return text if text.isprintable() else _printable(text, _CONTROLS)


def _clipped(text: str, limit: int) -> str:
    """`text` without its middle where it is longer than `limit`: a traceback's end says what happened."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n...\n{text[-limit // 2 :]}"


# Times: a second is formatted once, however many lines it has


@lru_cache(maxsize=4)
def _iso_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@lru_cache(maxsize=4)
def _common_second(second: int) -> str:
    """The common log format's time; its months are English in every locale."""
    at = time.gmtime(second)
    return f"{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year:04}:{time.strftime('%H:%M:%S', at)} +0000"


def _iso(when: float) -> str:
    """`when` (seconds since 1970) in ISO 8601, UTC, with milliseconds."""
    second, millisecond = divmod(int(when * 1000), 1000)
    return f"{_iso_second(second)}.{millisecond:03}Z"


# Where lines go


class _Descriptor:
    """Bytes to a file descriptor that somebody else opened; `owner` is kept, so that it stays open."""

    def __init__(self, number: int, owner: object = None) -> None:
        self._number = number
        self._owner = owner
        self._size = 0
        self._torn = False

    def write(self, data: bytes) -> None:
        """Write all of `data`, as a rule at once. After an `OSError`, the next write begins a line."""
        if self._torn:
            data = b"\n" + data
        while data:
            written = os.write(self._number, data)
            self._size += written
            data = data[written:]
            self._torn = bool(data)


class _LogFile(_Descriptor):
    """A file of our own that moves to FILE.1 before it passes its size; FILE.1 is the newest."""

    def __init__(self, path: str, max_bytes: int, keep: int) -> None:
        super().__init__(-1)
        # A daemon changes its directory later.
        self._path = Path(path).absolute()
        self._max_bytes = max_bytes
        self._keep = keep
        self._limit = 0
        self.open()

    def open(self) -> None:
        """Open FILE, anew where it is open; after an `OSError` the file at hand stays in use."""
        # A pipe that nobody reads is an error at once (ENXIO), and does not hold up the daemon.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        number = os.open(self._path, flags, _FILE_MODE)
        os.set_blocking(number, True)
        self.close()
        found = os.fstat(number)
        self._number = number
        self._size = found.st_size
        self._torn = False
        # /dev/null and pipes are never renamed.
        self._limit = self._max_bytes if stat.S_ISREG(found.st_mode) else 0

    def close(self) -> None:
        if self._number >= 0:
            number, self._number = self._number, -1
            os.close(number)

    def is_due(self, length: int) -> bool:
        """Whether `length` more bytes pass the size; a line longer than that gets a file for itself."""
        return 0 < self._limit < self._size + length and self._size > 0

    def rotate(self) -> None:
        """Begin FILE anew. After an `OSError` lines go on where they went, for `max_bytes` more."""
        self._limit = self._size + self._max_bytes
        if self._was_moved():
            self.open()
        elif self._keep == 0:
            os.ftruncate(self._number, 0)
            self._size, self._limit = 0, self._max_bytes
        else:
            self._shift()
            self.open()

    def _was_moved(self) -> bool:
        """Whether FILE is no longer the file at hand, because another program rotated it."""
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return True
        here = os.fstat(self._number)
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _shift(self) -> None:
        """Move FILE to FILE.1, and those before it up to the first free number, or over FILE.keep.

        A link stays where it is: the file that it leads to is moved, beside itself.
        """
        real = self._path.resolve()
        names = [str(real)]
        while len(names) <= self._keep and os.access(names[-1], os.F_OK):
            names.append(f"{real}.{len(names)}")
        for old, new in reversed(list(zip(names, names[1:], strict=False))):
            os.replace(old, new)


def _stream_writer(stream: TextIO | BinaryIO) -> Callable[[bytes], None]:
    """How bytes get onto `stream`: past its buffer where it has a descriptor."""
    try:
        return _Descriptor(stream.fileno(), stream).write
    except (OSError, AttributeError):
        pass
    binary = isinstance(stream, (RawIOBase, BufferedIOBase))

    def put(data: bytes) -> None:
        if binary:
            cast(BinaryIO, stream).write(data)
        else:
            cast(TextIO, stream).write(data.decode("utf-8"))
        stream.flush()

    return put


def _closed(data: bytes) -> None:
    raise ValueError("the log is closed")


def _encoded(line: str) -> bytes:
    """A line in UTF-8; what has no UTF-8 (surrogates) as ``\\xNN``."""
    try:
        return f"{line}\n".encode()
    except UnicodeEncodeError:
        return "".join(_hex(c) if "\ud800" <= c <= "\udfff" else c for c in f"{line}\n").encode()


class LogSink:
    """Where lines go: a stream, or a file that rotates by size. Any thread may write.

    A line that cannot be written (disk full, pipe closed) is dropped and counted; the next one that can be
    is preceded by a line that says how many were lost. That line has the form `form` and the time `now`.
    """

    def __init__(self, put: Callable[[bytes], None], file: _LogFile | None, form: Form, now: Clock) -> None:
        self._put = put
        self._file = file
        self._form = form
        self._now = now
        self._lost = 0
        self._reason = ""
        # Reentrant: a signal's handler or a finalizer (an unhandled Deferred) may log inside a write.
        self._lock = threading.RLock()

    @classmethod
    def to_stream(cls, stream: TextIO | BinaryIO, *, form: Form = "text", now: Clock = time.time) -> LogSink:
        """Write to `stream`, which stays its owner's: `close` leaves it open, `reopen` does nothing."""
        return cls(_stream_writer(stream), None, form, now)

    @classmethod
    def to_file(
        cls, path: str, max_bytes: int, keep: int, *, form: Form = "text", now: Clock = time.time
    ) -> LogSink:
        """Append to the file `path`, which is made (mode 0640) where there is none.

        Before it passes `max_bytes` it becomes FILE.1, FILE.1 becomes FILE.2, up to FILE.`keep`; with `keep`
        0 it is emptied instead. `max_bytes` 0 never rotates, nor does what is no regular file. Where a name
        cannot be moved, the file grows on, says so, and tries again after another `max_bytes`.

        Raises `OSError` when it cannot be opened.
        """
        file = _LogFile(path, max_bytes, keep)
        return cls(file.write, file, form, now)

    def write(self, line: str) -> None:
        """Write `line`, which has no newline at its end (a traceback has some inside). Never raises."""
        data = _encoded(line)
        with self._lock:
            if self._lost:
                lines = "1 log line was" if self._lost == 1 else f"{self._lost} log lines were"
                data = self._own_line(f"{lines} lost: {self._reason}") + data
            if self._file is not None and self._file.is_due(len(data)):
                data = self._rotate(self._file) + data
            try:
                self._put(data)
            except (OSError, ValueError) as error:
                self._lost += 1
                self._reason = _reason(error)
            else:
                self._lost = 0

    def reopen(self) -> None:
        """Open FILE anew, after another program moved it.

        Raises `OSError` when it cannot be opened; lines then go on to the file that was open.
        """
        with self._lock:
            if self._file is not None:
                self._file.open()

    def close(self) -> None:
        """Close FILE; lines written later are dropped."""
        with self._lock:
            self._put = _closed
            if self._file is not None:
                self._file.close()
                self._file = None

    def _rotate(self, file: _LogFile) -> bytes:
        """Rotate; where that fails, the line that says so."""
        try:
            file.rotate()
        except OSError as error:
            return self._own_line(f"the log file could not be rotated: {_reason(error)}")
        return b""

    def _own_line(self, message: str) -> bytes:
        """What the log has to say of itself."""
        event = _Event(_iso(self._now()), "warn", __name__, message)
        return _encoded(_render_event(event, self._form))


def _reason(error: OSError | ValueError) -> str:
    """The system's words alone: an `OSError`'s text names files."""
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


# Events of twisted.logger


class _Event(msgspec.Struct, omit_defaults=True):
    """All that a line tells of an event, and its object in JSON, in this order."""

    time: str
    level: str
    system: str
    message: str
    failure: str | None = None


def _traceback(failure: Failure) -> str:
    """The failure's traceback, each line of it safe; of an exception that cannot be printed, its class."""
    try:
        text = failure.getTraceback()
    except Exception:
        text = f"{safe_str(failure.type)}: no traceback can be had"
    return "\n".join(map(_one_line, _clipped(text, MAX_TRACEBACK).rstrip("\n").split("\n")))


def _event_of(event: LogEvent) -> _Event | None:
    """Pick the few values out of an event; None where it has nothing to say."""
    failure = event.get("log_failure")
    message = formatEvent(event)
    if failure is None and event.get("isError") and isinstance(event.get("failure"), Failure):
        # The legacy log.err: its message would repeat the traceback.
        failure, message = event["failure"], safe_str(event.get("why") or "Unhandled Error")
    if not message and failure is None:
        return None
    return _Event(
        time=_iso(event.get("log_time") or time.time()),
        level=getattr(event.get("log_level"), "name", "info"),
        system=_one_line(safe_str(event.get("log_system") or event.get("log_namespace") or "-")),
        message=_one_line(_clipped(message or "Unhandled Error", MAX_MESSAGE)),
        failure=None if failure is None else _traceback(failure),
    )


def _render_event(event: _Event, form: Form) -> str:
    if form == "json":
        return msgspec.json.encode(event).decode()
    line = f"{event.time[:-1]}+0000 [{event.level}] {event.message}"
    # A traceback is indented, so that no line of it can pass for one of the log's.
    return line if event.failure is None else "\n    ".join([line, *event.failure.split("\n")])


@implementer(ILogObserver)
class _Observer:
    """Writes the events of `twisted.logger` to a sink; any thread may call it."""

    def __init__(self, sink: LogSink, form: Form) -> None:
        self._sink = sink
        self._form = form

    def __call__(self, event: LogEvent) -> None:
        picked = _event_of(event)
        if picked is not None:
            self._sink.write(_render_event(picked, self._form))


def observer(sink: LogSink, form: Form) -> ILogObserver:
    """An observer for `twisted.logger` that writes a line an event to `sink`.

    ``text``: ``2026-11-21T14:22:02.123+0000 [info] message``; a failure's traceback follows in lines that
    begin with four spaces. ``json``: one object with `time` (ISO 8601, UTC), `level`, `system`, `message`
    and, of a failure, `failure` (its traceback). Control characters are escaped, tokens masked.
    """
    return ILogObserver(_Observer(sink, form))


# Requests


class Access(NamedTuple):
    """One request that was answered, as the client sent it and as it ended."""

    peer: str  # the address
    who: str  # the principal's name, or "-"
    method: bytes
    target: bytes
    version: bytes
    status: int
    length: int  # bytes of the body that were sent
    seconds: float  # from the request's first line to the last byte of the answer
    referrer: bytes | None
    agent: bytes | None


def _access_text(entry: Access, when: float) -> str:
    """The combined log format and the seconds that the request took."""
    return (
        f"{_word(entry.peer)} - {_word(entry.who)} [{_common_second(int(when))}] "
        f'"{_sent_again(entry.method, MAX_METHOD) or "-"} {_sent(entry.target, MAX_TARGET) or "-"} '
        f'{_sent_again(entry.version, MAX_VERSION) or "-"}" {entry.status} {entry.length} '
        f'"{_sent(entry.referrer, MAX_HEADER) or "-"}" "{_sent_again(entry.agent, MAX_HEADER) or "-"}" '
        f"{entry.seconds:.3f}"
    )


def _access_json(entry: Access, when: float) -> str:
    fields = {
        "time": _iso(when),
        "event": "access",
        "peer": _word(entry.peer),
        "who": _word(entry.who),
        "method": _sent_again(entry.method, MAX_METHOD),
        "target": _sent(entry.target, MAX_TARGET),
        "status": entry.status,
        "bytes": entry.length,
        "seconds": round(entry.seconds, 6),
        "referrer": _sent(entry.referrer, MAX_HEADER) or None,
        "agent": _sent_again(entry.agent, MAX_HEADER) or None,
    }
    return msgspec.json.encode(fields).decode()


class AccessLog:
    """A line for each request, written as it ends, past `twisted.logger`: it must cost little.

    ``text``: the combined log format with the seconds at its end. ``json``: one object with `time`, `event`
    (``access``), `peer`, `who`, `method`, `target`, `status`, `bytes`, `seconds`, `referrer`, `agent` (the
    last two null where the client sent none).
    """

    def __init__(self, sink: LogSink, form: Form, *, now: Clock) -> None:
        self._sink = sink
        self._render = _access_json if form == "json" else _access_text
        self._now = now

    def record(self, entry: Access) -> None:
        """Write the line of one request. Never raises for what a client sent, nor for a full disk."""
        self._sink.write(self._render(entry, self._now()))
