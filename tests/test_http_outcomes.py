"""What became of many things: told by the type that is asked for, and kept without what made it."""

from __future__ import annotations

import errno
import os
from http import HTTPStatus

from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import BusyError
from fileexport.http_outcomes import Failed, counted
from fileexport.web.failures import HttpError


class FailedTests(SynchronousTestCase):
    """One thing that failed."""

    def test_nothing_else_is_kept(self) -> None:
        """Of an error only what it says stays: its frames would keep the content that was in hand."""
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise BusyError("somebody writes it") from OSError(errno.EBUSY, "x")
        except BusyError as error:
            failed = Failed.of("name", error)
        kept = failed.error
        self.assertEqual([kept.__traceback__, kept.__cause__, kept.__context__], [None] * 3)
        self.assertEqual(failed.as_json(), {"name": "name", "status": 409, "error": "somebody writes it"})

    def test_our_own_faults_are_logged(self) -> None:
        """What no client can help is logged with where it happened, and told without its words."""
        for error in (FileNotFoundError(errno.ENOENT, "secret"), OSError(errno.EIO, "secret")):
            failed = Failed.of("a\udcff", error, "a%FF")
            self.assertNotIn("secret", str(failed.as_json()))
            self.assertEqual((failed.as_json()["name"], failed.as_json()["entry"]), ("a\ufffd", "a%FF"))
        [logged] = self.flushLoggedErrors(OSError)
        self.assertEqual(logged.value.errno, errno.EIO)

    def test_status(self) -> None:
        """The status is the one that the error has alone."""
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.assertEqual(Failed("a", full).status, HTTPStatus.INSUFFICIENT_STORAGE)
        too_large = HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large")
        self.assertEqual(Failed("a", too_large).status, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


class SentenceTests(SynchronousTestCase):
    """Numbers for people."""

    def test_counted(self) -> None:
        """One, none and many are told in words that fit."""
        found = [counted("moved", count, "entry", "entries") for count in (0, 1, 2, 10_000)]
        expected = ["moved 0 entries", "moved 1 entry", "moved 2 entries", "moved 10,000 entries"]
        self.assertEqual(found, expected)
