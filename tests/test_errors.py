"""The table of errors, and which row an exception finds."""

from __future__ import annotations

import errno
import json
import os
from http import HTTPStatus

from twisted.trial.unittest import SynchronousTestCase

from fileexport import errors
from fileexport.errors import (
    ERRORS,
    FULL_DISK,
    AuthenticationError,
    BadRequestError,
    BusyError,
    ConfigurationError,
    FileExportError,
    FileNameError,
    ListenError,
    NotGranted,
    OutOfRange,
    OverloadedError,
    PeerGone,
    SourceNotFound,
    StateError,
    UnexpectedError,
    row_for,
    sentence_for,
)

ROWS = (*ERRORS, FULL_DISK)


class TableTests(SynchronousTestCase):
    """What each row promises."""

    def test_wire_codes(self) -> None:
        """The wire codes are promises: these numbers mean these errors for ever."""
        codes = {
            **{1: "FileNotFoundError", 2: "SourceNotFound", 3: "DestinationNotFound", 4: "FileExistsError"},
            **{5: "NotADirectoryError", 6: "IsADirectoryError", 7: "PermissionError", 8: "FileNameError"},
            **{9: "BadRequestError", 10: "AuthenticationError", 11: "BusyError", 12: "OverloadedError"},
            **{13: "CorruptedResponse", 14: "TimeoutError", 15: "ConnectionError", 16: "ValueError"},
            **{17: "UnexpectedError", 18: "ConfigurationError", 19: "ListenError", 20: "OSError"},
            **{21: "ChangedWhileRead", 22: "ConflictError", 23: "StateError", 24: "JobCancelled"},
            **{25: "QueueFull", 26: "CallbackRefusedError", 27: "DeletionRefused"},
        }
        self.assertEqual({row.wire: row.name for row in ROWS}, codes)
        self.assertEqual(len(ROWS), len(codes))

    def test_statuses(self) -> None:
        """Every HTTP status is an error's, and every exit code is one of the documented ones."""
        for row in ROWS:
            self.assertGreaterEqual(row.http, HTTPStatus.BAD_REQUEST, row.name)
            self.assertIn(row.exit, range(1, 8), row.name)

    def test_sentences(self) -> None:
        """Every row has a sentence of one line for people, which can stand behind a colon."""
        for row in ROWS:
            self.assertRegex(row.sentence, r"\A[a-z][ -~]+[^.]\Z", row.name)

    def test_every_exception_has_a_row(self) -> None:
        """Each of our exceptions finds a row: its own, or that of the built-in one that it is."""
        ours = [kind for kind in vars(errors).values() if isinstance(kind, type)]
        kinds = [kind for kind in ours if issubclass(kind, Exception) and kind is not FileExportError]
        self.assertTrue(kinds)
        for kind in kinds:
            self.assertTrue(issubclass(kind, row_for(kind()).kind), kind)
            built_in = kind in (NotGranted, OutOfRange, PeerGone)
            self.assertEqual(row_for(kind()).kind is kind, not built_in, kind)


class RowTests(SynchronousTestCase):
    """`row_for` and `sentence_for`."""

    def test_by_errno(self) -> None:
        """What the disk says finds its row by errno, whatever class Python gave it."""
        for names, kind in (
            (("ENOENT", "ELOOP", "ENAMETOOLONG", "EXDEV", "ENXIO"), FileNotFoundError),
            (("EACCES", "EPERM", "EROFS"), PermissionError),
            (("EMFILE", "ENFILE", "EAGAIN"), OverloadedError),
            (("ENOSPC", "EDQUOT"), OSError),
            (("EIO", "EINVAL", "EBADF", "ESTALE", "EINTR"), UnexpectedError),
            *(
                (("ENOTDIR",), NotADirectoryError),
                (("EEXIST",), FileExistsError),
                (("EISDIR",), IsADirectoryError),
                (("ECONNRESET", "EPIPE"), ConnectionError),
                (("ETIMEDOUT",), TimeoutError),
            ),
        ):
            for name in names:
                number = getattr(errno, name)
                self.assertIs(row_for(OSError(number, os.strerror(number))).kind, kind, name)
        self.assertEqual(row_for(OSError(errno.ENOSPC, "")).http, HTTPStatus.INSUFFICIENT_STORAGE)

    def test_by_class(self) -> None:
        """A subclass finds the nearest row above it, and what nobody foresaw is unexpected."""
        for error, kind in (
            (json.JSONDecodeError("", "", 0), ValueError),
            (UnicodeDecodeError("utf-8", b"", 0, 1, ""), ValueError),
            (PeerGone(), ConnectionError),
            (ConnectionRefusedError(), ConnectionError),
            (FileExistsError(), FileExistsError),
            (FileExportError(), UnexpectedError),
            (KeyError(), UnexpectedError),
            (RecursionError(), UnexpectedError),
            (MemoryError(), UnexpectedError),
            (OSError(), UnexpectedError),
        ):
            self.assertIs(row_for(error).kind, kind, repr(error))

    def test_own_words(self) -> None:
        """Our exceptions speak for themselves, and by their docstring where they were given no words."""
        self.assertEqual(sentence_for(BadRequestError("the dir is missing")), "the dir is missing")
        self.assertEqual(sentence_for(BusyError()), "someone else is writing this path: try again later")
        self.assertEqual(str(FileNameError()), "the name is not valid")
        self.assertEqual(str(SourceNotFound("no x")), "no x")

    def test_silent(self) -> None:
        """An error of the system or of our own making never shows its words, which may hold a path."""
        secret = "/srv/private"
        for error in (
            FileNotFoundError(errno.ENOENT, "x", secret),
            OSError(errno.EIO, secret),
            PermissionError(errno.EACCES, secret),
            UnexpectedError(secret),
            StateError(secret),
            ValueError(secret),
            KeyError(secret),
            ConnectionError(secret),
            OSError(errno.ENOSPC, "x", secret),
        ):
            self.assertNotIn(secret, sentence_for(error), repr(error))
            self.assertTrue(sentence_for(error))

    def test_configuration(self) -> None:
        """Every mistake of a configuration is a line of its own."""
        error = ConfigurationError("port: not a number", "root: missing")
        self.assertEqual(error.problems, ("port: not a number", "root: missing"))
        self.assertEqual(str(error).splitlines(), list(error.problems))

    def test_statuses_of_doors(self) -> None:
        """Who is not known, may not, or comes when all is busy is told so by HTTP."""
        for error, status in (
            (AuthenticationError(), 401),
            (PermissionError(), 403),
            (FileNotFoundError(), 404),
            (OverloadedError(), 503),
            (ListenError(), 500),
        ):
            self.assertEqual(row_for(error).http, status)
