"""What went wrong, as an exception: the server's code and words, and what becomes of a call after them."""

from __future__ import annotations

import errno
from typing import TypeVar

from fileexport.client.names import plain_text
from fileexport.errors import (
    ERRORS,
    FULL_DISK,
    BusyError,
    CorruptedResponse,
    DestinationNotFound,
    PeerGone,
    SourceNotFound,
    UnexpectedError,
    sentence_of,
)
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import Event

_ROWS = {row.wire: row for row in (*ERRORS, FULL_DISK)}
_NUMBERS: dict[type[BaseException], int] = {
    FileNotFoundError: errno.ENOENT,
    SourceNotFound: errno.ENOENT,
    DestinationNotFound: errno.ENOENT,
    FileExistsError: errno.EEXIST,
    NotADirectoryError: errno.ENOTDIR,
    IsADirectoryError: errno.EISDIR,
    PermissionError: errno.EACCES,
    TimeoutError: errno.ETIMEDOUT,
    OSError: errno.ENOSPC,
}
_NO_DIRECTORY = (FileNotFoundError, DestinationNotFound)
Kind = TypeVar("Kind")


class NotBegun(PeerGone):
    """The server went away before it began this; it can be asked of another connection."""


class Stalled(TimeoutError):
    """The server waited too long for us, who sent or took nothing. What was under way can be continued."""


def error_of(code: int, words: str, path: str | None = None) -> Exception:
    """The exception for a wire code; built-in ones know `path` as their `filename`.

    An unknown code is an `UnexpectedError`. The words are the server's: what is not printable is taken out.
    """
    row = _ROWS.get(code)
    message = plain_text(words) or (row.sentence if row else sentence_of(UnexpectedError))
    if row is None or code == 0:
        return UnexpectedError(message)
    number = _NUMBERS.get(row.kind)
    if number is None:
        return row.kind(message)
    return row.kind(number, message, *((path,) if path is not None else ()))


def error_of_reset(reset: m.Reset, path: str | None = None) -> Exception:
    """The exception for a stream that the server ended."""
    if reset.code == 0:
        return UnexpectedError("the server cancelled the operation")
    error = error_of(reset.code, reset.message, path)
    if isinstance(error, TimeoutError):
        return Stalled(*error.args, *(() if path is None else (path,)))
    if isinstance(error, BusyError):
        error.holder = None if reset.holder is None else plain_text(reset.holder)
        error.since = reset.since
    return error


def of_kind(found: object, kind: type[Kind]) -> Kind:
    """An answer, which must be of `kind`; raises `CorruptedResponse`."""
    if not isinstance(found, kind):
        raise CorruptedResponse(f"an answer of another kind: {type(found).__name__}")
    return found


def judged(event: Event, stream: int, path: str | None = None) -> Data | m.Message | None:
    """What an event says to the operation on `stream`; None where that is nothing.

    Raises what the server ended it with, and `NotBegun` where it went away before. More credit is told
    whomever it is for.
    """
    if isinstance(event, Data):
        return event if event.stream == stream else None
    message = event.message
    if isinstance(message, m.MoreCredit):
        return message
    if isinstance(message, m.GoAway):
        if message.last_stream < stream:
            raise NotBegun("the server is stopping")
        if message.code:
            raise error_of(message.code, message.message, path)
        return None
    if event.stream != stream:
        return None
    if isinstance(message, m.Reset):
        raise error_of_reset(message, path)
    return message


def name_file(error: OSError, path: str) -> None:
    """Have an error name the file `path`: the system names none where it speaks of one that is open."""
    if error.errno is not None and error.filename is None:
        error.filename = path


def not_found(kind: type[FileNotFoundError], path: str) -> FileNotFoundError:
    """A `SourceNotFound` or `DestinationNotFound` that names its path."""
    return kind(errno.ENOENT, sentence_of(kind), path)


def no_directory(error: FileNotFoundError, path: str) -> FileNotFoundError:
    """What the server misses where something new is to be is the directory `path`; or the error itself."""
    return not_found(DestinationNotFound, path) if type(error) in _NO_DIRECTORY else error
