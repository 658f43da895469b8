"""Every exception, and the one table: name, wire code, HTTP status, exit code, sentence for people.

An exception's docstring is the sentence that its user reads when nothing better is known. Built-in
exceptions are used where they fit; `row_for` finds the row of either kind.
"""

from __future__ import annotations

import errno
from http import HTTPStatus
from typing import NamedTuple


class FileExportError(Exception):
    """The operation failed."""

    def __str__(self) -> str:
        return super().__str__() or sentence_of(type(self))


class SourceNotFound(FileExportError, FileNotFoundError):
    """There is no such source: check its path and try again."""


class DestinationNotFound(FileExportError, FileNotFoundError):
    """There is no such destination directory: create it first."""


class FileNameError(FileExportError):
    """The name is not valid."""


class BadRequestError(FileExportError):
    """The request cannot be understood."""


class CorruptedResponse(FileExportError):
    """The other side broke the protocol; the connection was closed."""


class UnexpectedError(FileExportError):
    """Something failed on the server; its log says what."""


class OutOfRange(FileExportError, ValueError):
    """A value is out of its range."""


class AuthenticationError(FileExportError):
    """The token is missing or wrong."""


class NotGranted(FileExportError, PermissionError):
    """The token does not grant this."""


class BusyError(FileExportError):
    """Someone else is writing this path: try again later.

    `holder` says who, and `since` when that began, in nanoseconds since 1970; None where it is not known.
    """

    def __init__(self, message: str = "", *, holder: str | None = None, since: int | None = None) -> None:
        super().__init__(*([message] if message else []))
        self.holder = holder
        self.since = since


class OverloadedError(FileExportError):
    """The server has too much to do: try again later."""


class QueueFull(OverloadedError):
    """Too many jobs are queued: try again later."""


class ConflictError(FileExportError):
    """Another request was made under this name: choose another name."""


class JobCancelled(FileExportError):
    """The job was cancelled."""


class CallbackRefusedError(FileExportError):
    """This callback target is not allowed."""


class StateError(FileExportError):
    """The state directory cannot be used: the server's log says why."""


class ConfigurationError(FileExportError):
    """The configuration has mistakes; each is named on a line of its own."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class ListenError(FileExportError):
    """A listener could not be opened: is another program using the address?"""


class ChangedWhileRead(FileExportError):
    """The file changed while it was read: try again."""


class DeletionRefused(FileExportError):
    """The synchronisation would remove more than is allowed."""


class PeerGone(ConnectionError):
    """The other side closed the connection."""


def sentence_of(kind: type[BaseException]) -> str:
    """The first line of the exception's docstring, as it stands behind ``ERROR - `` or ``Error: ``."""
    sentence = (kind.__doc__ or kind.__name__).strip().splitlines()[0].removesuffix(".")
    return sentence[0].lower() + sentence[1:]


class ErrorRow(NamedTuple):
    """One kind of error in every language that the project speaks."""

    kind: type[Exception]
    wire: int
    http: HTTPStatus
    exit: int
    sentence: str

    @property
    def name(self) -> str:
        """The exception's name: what `--json` and the wire call it."""
        return self.kind.__name__


def _row(kind: type[Exception], wire: int, http: HTTPStatus, exit_code: int, sentence: str = "") -> ErrorRow:
    return ErrorRow(kind, wire, http, exit_code, sentence or sentence_of(kind))


#: Wire codes are promises (docs/protocol.md): never reuse one.
ERRORS: tuple[ErrorRow, ...] = (
    _row(FileNotFoundError, 1, HTTPStatus.NOT_FOUND, 4, "there is no such file or directory"),
    _row(SourceNotFound, 2, HTTPStatus.NOT_FOUND, 4),
    _row(DestinationNotFound, 3, HTTPStatus.NOT_FOUND, 3),
    _row(FileExistsError, 4, HTTPStatus.CONFLICT, 6, "it exists already"),
    _row(NotADirectoryError, 5, HTTPStatus.NOT_FOUND, 3, "it is not a directory"),
    _row(IsADirectoryError, 6, HTTPStatus.CONFLICT, 6, "it is a directory"),
    _row(PermissionError, 7, HTTPStatus.FORBIDDEN, 6, "permission denied"),
    _row(FileNameError, 8, HTTPStatus.BAD_REQUEST, 2),
    _row(BadRequestError, 9, HTTPStatus.BAD_REQUEST, 2),
    _row(AuthenticationError, 10, HTTPStatus.UNAUTHORIZED, 6),
    _row(BusyError, 11, HTTPStatus.CONFLICT, 5),
    _row(OverloadedError, 12, HTTPStatus.SERVICE_UNAVAILABLE, 5),
    _row(CorruptedResponse, 13, HTTPStatus.BAD_GATEWAY, 7),
    _row(TimeoutError, 14, HTTPStatus.GATEWAY_TIMEOUT, 5, "no answer in time"),
    _row(ConnectionError, 15, HTTPStatus.BAD_GATEWAY, 5, "the connection failed"),
    _row(ValueError, 16, HTTPStatus.BAD_REQUEST, 2, "a value is out of its range"),
    _row(UnexpectedError, 17, HTTPStatus.INTERNAL_SERVER_ERROR, 1),
    _row(ConfigurationError, 18, HTTPStatus.INTERNAL_SERVER_ERROR, 2),
    _row(ListenError, 19, HTTPStatus.INTERNAL_SERVER_ERROR, 1),
    # 20 is `FULL_DISK`.
    _row(ChangedWhileRead, 21, HTTPStatus.SERVICE_UNAVAILABLE, 5),
    _row(ConflictError, 22, HTTPStatus.CONFLICT, 6),
    _row(StateError, 23, HTTPStatus.INTERNAL_SERVER_ERROR, 1),
    _row(JobCancelled, 24, HTTPStatus.CONFLICT, 6),
    _row(QueueFull, 25, HTTPStatus.TOO_MANY_REQUESTS, 5),
    _row(CallbackRefusedError, 26, HTTPStatus.FORBIDDEN, 6),
    _row(DeletionRefused, 27, HTTPStatus.CONFLICT, 6),
)

#: No exception of Python's own says "the disk is full": one row answers for ENOSPC and EDQUOT.
FULL_DISK = ErrorRow(OSError, 20, HTTPStatus.INSUFFICIENT_STORAGE, 6, "the disk is full")

_BY_ERRNO: dict[int, ErrorRow] = {}
_BY_TYPE = {row.kind: row for row in ERRORS}
for _numbers, _kind in (
    ((errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV, errno.ENXIO), FileNotFoundError),
    ((errno.ENOTDIR,), NotADirectoryError),
    ((errno.EACCES, errno.EPERM, errno.EROFS), PermissionError),
    ((errno.EMFILE, errno.ENFILE, errno.EAGAIN), OverloadedError),
):
    _BY_ERRNO.update(dict.fromkeys(_numbers, _BY_TYPE[_kind]))
_BY_ERRNO.update({errno.ENOSPC: FULL_DISK, errno.EDQUOT: FULL_DISK})


def row_for(error: BaseException) -> ErrorRow:
    """Find the row of an exception: by its class, else by its errno, else `UnexpectedError`'s."""
    for kind in type(error).__mro__:
        if kind in _BY_TYPE:
            return _BY_TYPE[kind]
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    return _BY_TYPE[UnexpectedError]


def sentence_for(error: BaseException) -> str:
    """What a person may read of `error`: its own words where they are ours, else its row's sentence.

    An `OSError` never speaks for itself, nor a `StateError`: the text may hold a path of the machine.
    """
    row = row_for(error)
    if isinstance(error, FileExportError) and not isinstance(error, UnexpectedError | StateError):
        return str(error)
    return row.sentence
