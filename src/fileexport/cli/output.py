"""What a command says: text for people, one JSON object a line for programs, and the exit code.

Names are whatever a file system holds. On a terminal they are shown without what a terminal would obey; a
pipe gets their bytes; JSON is ASCII, and gives a name that is not UTF-8 with U+FFFD, and percent-encoded as
`url`.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from typing import IO, Any

from fileexport.errors import (
    AuthenticationError,
    BusyError,
    ChangedWhileRead,
    CorruptedResponse,
    DestinationNotFound,
    FileExportError,
    FileNameError,
    OverloadedError,
    SourceNotFound,
    row_for,
)
from fileexport.paths import RESERVED

#: Exit codes that are not an error's own (`errors.ERRORS` has those).
USAGE, NO_DIRECTORY, REFUSED, DIFFERENT, LEFT_OUT = 2, 3, 6, 8, 9
#: What to do about an error whose own sentence does not say it.
HINTS: Mapping[type[BaseException], str] = {
    AuthenticationError: "check FILEEXPORT_TOKEN, or the file that FILEEXPORT_TOKEN_FILE names",
    ConnectionRefusedError: "start the daemon there, or check FILEEXPORT_HOSTNAME and FILEEXPORT_PORT",
    TimeoutError: "try again, or give more time with -t MS",
    FileNameError: "choose another name",
    CorruptedResponse: "check that FILEEXPORT_PORT is the port of the transfer protocol",
    ConnectionError: "check FILEEXPORT_HOSTNAME and FILEEXPORT_PORT, whether TLS is wanted, and the network",
    FileNotFoundError: "check its path",
    FileExistsError: "choose another name",
    NotADirectoryError: "name a directory",
    IsADirectoryError: "name a file",
    PermissionError: "use a token that may do this",
}
#: Their own sentences say what to do.
_EXPLAINED = (SourceNotFound, DestinationNotFound, BusyError, OverloadedError, ChangedWhileRead)


#: These are about no path.
_OF_THE_CONNECTION = (ConnectionError, TimeoutError, AuthenticationError, CorruptedResponse)


class Closed(Exception):
    """Standard output takes no more: nobody reads it, or, with an `error`, it cannot be written."""

    def __init__(self, error: OSError | None = None) -> None:
        super().__init__()
        self.error = error


def shown(name: str) -> str:
    """A name for a terminal or a log: whatever is not printable is escaped, and so is the backslash then."""
    if name.isprintable():
        return name
    return "".join(char if char.isprintable() and char != "\\" else _escaped(char) for char in name)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def spelled(path: str) -> dict[str, str]:
    """The fields `path` and, where it is not UTF-8, `url` of an event."""
    if path.isascii():
        return {"path": path}
    encoded = os.fsencode(path)
    text = encoded.decode("utf-8", "replace")
    if text == path:
        return {"path": path}
    from urllib.parse import quote_from_bytes

    return {"path": text, "url": quote_from_bytes(encoded)}


class Output:
    """The two streams of a command, its totals, and the status that it will end with."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.totals: Counter[str] = Counter()
        self.status = 0
        #: What the summary says beside the totals.
        self.summary: dict[str, Any] = {}
        #: None where there is none: the shell's `>&-`.
        self._stdout: IO[bytes] | None = sys.stdout.buffer if sys.stdout is not None else None
        self._escapes = sys.stdout is not None and sys.stdout.isatty()
        self._begun = False
        #: Called before a line of text, so that a progress display makes room.
        self.above: Any = None
        #: What the command is about, for errors that do not know, and what to do about some of them.
        self.subject: str | None = None
        self.hints: Mapping[type[BaseException], str] = {}
        #: What Ctrl-C is answered with, behind "Interrupted".
        self.resume = ""

    # -- standard output

    def write(self, content: bytes) -> None:
        """Bytes to standard output. Raises `Closed`."""
        if self._stdout is None:
            if content:
                raise Closed(OSError(errno.EBADF, os.strerror(errno.EBADF)))
            return
        try:
            self._stdout.write(content)
            if not content or not self._begun:
                # The first ones at once: somebody waits.
                self._begun = True
                self._stdout.flush()
        except BrokenPipeError:
            raise Closed from None
        except OSError as error:
            raise Closed(error) from None

    def flush(self) -> None:
        """Whatever was written has left. Raises `Closed`."""
        self.write(b"")

    def line(self, text: str) -> None:
        """A line for people; nothing beside JSON."""
        if not self.as_json:
            text = shown(text) if self._escapes else text
            self.write(text.encode("utf-8", "surrogateescape") + b"\n")

    def event(self, event: str, path: str | None = None, /, **fields: Any) -> None:
        """An object for programs; nothing beside text."""
        if self.as_json:
            place = {} if path is None else spelled(path)
            self.write(json.dumps({"event": event, **place, **fields}).encode("ascii") + b"\n")

    def error_event(self, name: str, message: str, path: str | None = None) -> None:
        """What went wrong, for programs; the path is null where it is about none."""
        place = {"path": None} if path is None else spelled(path)
        self.event("error", **place, name=name, message=message)

    def entry(self, path: str, kind: str, size: int, mtime_ns: int) -> None:
        """An entry of a listing, for programs."""
        self.event("entry", path, type=kind, size=size, mtime=mtime_ns / 1e9)

    def action(self, action: str, path: str, size: int = 0, **fields: Any) -> None:
        """Something that was done, for programs."""
        self.event("action", path, action=action, bytes=size, **fields)

    def say(self, text: str) -> None:
        """What people may want to know, unless they said --quiet."""
        if not self.quiet:
            self.line(text)

    # -- standard error

    def warn(self, text: str) -> None:
        """A line on standard error; it is shown with --quiet too."""
        if self.above is not None:
            self.above(text)
        elif sys.stderr is not None:
            if not self.as_json:
                self.flush()
            sys.stderr.write(shown(text) + "\n")
            sys.stderr.flush()

    def left_out(self, path: str, why: str) -> None:
        """An entry that was left out: named, and exit 9 where nothing worse happens."""
        self.totals["left_out"] += 1
        self.action("left_out", path, message=why)
        self.warn(f"Left out: {path}: {why}")

    def fail(self, error: BaseException, path: str | None = None, *, status: int | None = None) -> None:
        """One line about an error; the first one decides the exit code."""
        message = message_of(error, self.hints)
        own = _place_of(error)
        # What the system says of a local file, and sentences that begin with their path, know better; where
        # our own staging cannot be used, it is about what should come to lie there.
        precise = own and (
            message.startswith(f"{own}: ")
            or (isinstance(error, OSError) and is_local(error) and RESERVED not in own.split("/"))
        )
        if precise and path is not None and path.endswith(f"/{own}"):
            # The system speaks of a name in a directory that was open.
            precise = False
        place = own if precise else path or own
        if place is None and not isinstance(error, _OF_THE_CONNECTION):
            place = self.subject
        self.problem(row_for(error).name, status or row_for(error).exit, message, place)

    def problem(self, name: str, status: int, message: str, place: str | None = None) -> None:
        """One line about what went wrong, with a status of its own."""
        self.totals["errors"] += 1
        self.status = self.status or status
        self.error_event(name, message, place)
        prefix = f"{place}: " if place and not message.startswith(f"{place}: ") else ""
        self.warn(f"Error: {prefix}{message}")

    def interrupted(self) -> None:
        """Ctrl-C: one line; `resume` is what its command says of what it leaves behind."""
        self.status = 130
        self.error_event("KeyboardInterrupt", "interrupted")
        self.warn(f"Interrupted{self.resume}")

    def finish(self) -> int:
        """The summary, and the status."""
        if not self.status and self.totals["left_out"]:
            self.status = LEFT_OUT
        totals = {"errors": 0, "left_out": 0, **self.totals, **self.summary}
        self.event("summary", **totals, exit=self.status)
        self.flush()
        return self.status


def message_of(error: BaseException, hints: Mapping[type[BaseException], str]) -> str:
    """What happened and what to do next, in one line without the path."""
    sentence = " ".join(_sentence(error).split()).rstrip(".")
    hint = _hint(error, hints)
    if not hint or hint in sentence:
        return sentence
    # One with a colon has explained itself already.
    return f"{sentence}; {hint}" if ": " in sentence else f"{sentence}: {hint}"


def _hint(error: BaseException, hints: Mapping[type[BaseException], str]) -> str:
    if isinstance(error, PermissionError) and is_local(error):
        return "check the permissions of what is on this machine"
    if isinstance(error, AuthenticationError) and "token" not in str(error):
        return "check FILEEXPORT_PUBLIC_KEY, or the authority that FILEEXPORT_CA_FILE names"
    for kind in type(error).__mro__:
        for table in (hints, HINTS):
            if kind in table:
                return table[kind]
        if kind in _EXPLAINED:
            break
    return ""


def is_local(error: OSError) -> bool:
    """Whether the system itself says so, and not the server: that has words of its own."""
    return error.errno is not None and error.strerror == os.strerror(error.errno)


def _sentence(error: BaseException) -> str:
    if isinstance(error, BusyError) and error.holder is not None:
        since = "" if error.since is None else f" since {minutes(error.since)}"
        return f"{error.holder} is writing this path{since}: try again later"
    if isinstance(error, OSError):
        return _lower(error.strerror) if error.strerror else _first(error) or row_for(error).sentence
    if isinstance(error, FileExportError | ValueError):
        return str(error)
    return row_for(error).sentence


def _first(error: OSError) -> str:
    return error.args[0] if error.args and isinstance(error.args[0], str) else ""


def _lower(text: str) -> str:
    """The system's own sentences begin in capitals."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _place_of(error: BaseException) -> str | None:
    place = getattr(error, "filename", None)
    return os.fsdecode(place) if isinstance(place, str | bytes) else None


def minutes(time_ns: int) -> str:
    """A time for people: ISO 8601 to the minute, where this machine is; a dash where the years end."""
    import time

    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_ns // 10**9))
    except (OverflowError, ValueError, OSError):
        return "-"


def amount(size: float) -> str:
    """A number of bytes for people: three digits and a unit."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.3g} {unit}"


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return (
        f"{number:,} {noun}"
        if number == 1
        else f"{number:,} {noun[:-1] + 'ies' if noun[-1] == 'y' else noun + 's'}"
    )
