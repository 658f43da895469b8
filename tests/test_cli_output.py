"""What commands say: names on a terminal and in JSON, sentences about errors, numbers, progress."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import pty
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

from twisted.trial.unittest import SynchronousTestCase

from fileexport.cli.output import Closed, Output, amount, count, message_of, minutes, shown, spelled
from fileexport.cli.progress import Display, Events, Progress, progress_for
from fileexport.errors import (
    AuthenticationError,
    BusyError,
    CorruptedResponse,
    DestinationNotFound,
    FileNameError,
    OverloadedError,
)


class NameTests(SynchronousTestCase):
    """Names that are more than letters."""

    def test_shown(self) -> None:
        """Nothing that a terminal would obey is left, and two names never look alike."""
        for name, text in (
            ("plain näme", "plain näme"),
            ("a\\b", "a\\b"),
            ("\x1b[31m", "\\x1b[31m"),
            ("a\nb\r\t\x7f", "a\\nb\\r\\t\\x7f"),
            ("\x9b31m", "\\x9b31m"),
            ("\udcff", "\\xff"),
            ("\u202egpj", "\\u202egpj"),
            ("\\n\n", "\\\\n\\n"),
        ):
            self.assertEqual(shown(name), text)

    def test_spelled(self) -> None:
        """JSON has the path; where it is not UTF-8, it has replacements there and the bytes as `url`."""
        self.assertEqual(spelled("/a\n"), {"path": "/a\n"})
        self.assertEqual(spelled("/ä"), {"path": "/ä"})
        self.assertEqual(spelled("/a\udcff b"), {"path": "/a\ufffd b", "url": "/a%FF%20b"})


class SentenceTests(SynchronousTestCase):
    """`message_of`: what happened, and what to do."""

    def test_sentences(self) -> None:
        """One line each, with advice where the sentence has none."""
        gone = DestinationNotFound("/x: there is no such destination directory: create it first")
        for error, message in (
            (
                FileExistsError(errno.EEXIST, "it exists already", "/a"),
                "it exists already: choose another name",
            ),
            (gone, "/x: there is no such destination directory: create it first"),
            (
                TimeoutError("no answer within 2 s"),
                "no answer within 2 s: try again, or give more time with -t MS",
            ),
            (FileNameError("the name is not valid"), "the name is not valid: choose another name"),
            (OverloadedError(), "the server has too much to do: try again later"),
            (BusyError(), "someone else is writing this path: try again later"),
            (
                CorruptedResponse("bad"),
                "bad: check that FILEEXPORT_PORT is the port of the transfer protocol",
            ),
            (ValueError("two\nlines"), "two lines"),
        ):
            self.assertEqual(message_of(error, {}), message)

    def test_token(self) -> None:
        """A refused token, and a refused certificate, are about different variables."""
        self.assertIn(
            "FILEEXPORT_TOKEN", message_of(AuthenticationError("the token is missing or wrong"), {})
        )
        self.assertIn(
            "FILEEXPORT_CA_FILE", message_of(AuthenticationError("the server's certificate: x"), {})
        )

    def test_busy(self) -> None:
        """It is said who writes, and since when."""
        error = BusyError(holder="backup", since=1_795_273_794 * 10**9)
        self.assertRegex(
            message_of(error, {}), r"^backup is writing this path since 2026-11-2\d \d\d:\d\d: try"
        )

    def test_local(self) -> None:
        """What the system says of a local file is no matter of tokens."""
        error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/etc/shadow")
        self.assertNotIn("token", message_of(error, {}))
        self.assertIn("token", message_of(PermissionError(errno.EACCES, "permission denied", "/a"), {}))

    def test_hints(self) -> None:
        """A command's own advice comes first."""
        error = FileExistsError(errno.EEXIST, "it exists already", "/a")
        self.assertEqual(message_of(error, {FileExistsError: "use -u"}), "it exists already: use -u")


class NumberTests(SynchronousTestCase):
    """Numbers for people."""

    def test_amount(self) -> None:
        """Three digits and a unit."""
        for size, text in (
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1 KB"),
            (1234, "1.23 KB"),
            (99_960, "100 KB"),
            (2_000_000_000, "2 GB"),
            (5 * 10**15, "5000 TB"),
        ):
            self.assertEqual(amount(size), text)

    def test_count(self) -> None:
        """One is no plural."""
        self.assertEqual([count(1, "file"), count(2000, "file")], ["1 file", "2,000 files"])
        self.assertEqual([count(1, "entry"), count(2, "entry")], ["1 entry", "2 entries"])

    def test_minutes(self) -> None:
        """A time to the minute; one that no calendar has is a dash."""
        self.assertRegex(minutes(0), r"^19(69|70)-\d\d-\d\d \d\d:\d\d$")
        self.assertEqual(minutes(2**100), "-")


class Case(SynchronousTestCase):
    """Has what is written to standard output and to standard error."""

    def setUp(self) -> None:
        self.stdout, self.stderr = io.BytesIO(), io.StringIO()
        self.patch(sys, "stdout", io.TextIOWrapper(self.stdout, "utf-8", write_through=True))
        self.patch(sys, "stderr", self.stderr)

    def objects(self) -> list[dict[str, Any]]:
        """The JSON that was written."""
        return [json.loads(line) for line in self.stdout.getvalue().splitlines()]


class OutputTests(Case):
    """`Output`."""

    def test_people(self) -> None:
        """Text goes out, events do not; the bytes of a name are kept for a pipe."""
        output = Output()
        output.event("entry", "/a")
        output.line("a\udcff\n")
        output.say("done")
        self.assertEqual(output.finish(), 0)
        self.assertEqual(self.stdout.getvalue(), b"a\xff\n\ndone\n")

    def test_quiet(self) -> None:
        """Quiet leaves results and errors."""
        output = Output(quiet=True)
        output.line("a")
        output.say("done")
        output.left_out("l", "it is a link")
        self.assertEqual(output.finish(), 9)
        self.assertEqual(
            (self.stdout.getvalue(), self.stderr.getvalue()), (b"a\n", "Left out: l: it is a link\n")
        )

    def test_programs(self) -> None:
        """Events go out as ASCII, the summary last; errors are told on both streams."""
        output = Output(as_json=True)
        output.line("a")
        output.entry("/ä", "file", 3, 1_500_000_000)
        output.totals["files"] += 1
        output.fail(FileNotFoundError(errno.ENOENT, "there is none", "/b"))
        self.assertEqual(output.finish(), 4)
        self.assertTrue(self.stdout.getvalue().isascii())
        message = "there is none: check its path"
        self.assertEqual(
            self.objects(),
            [
                {"event": "entry", "path": "/ä", "type": "file", "size": 3, "mtime": 1.5},
                {"event": "error", "path": "/b", "name": "FileNotFoundError", "message": message},
                {"event": "summary", "errors": 1, "left_out": 0, "files": 1, "exit": 4},
            ],
        )
        self.assertEqual(self.stderr.getvalue(), f"Error: /b: {message}\n")

    def test_no_path(self) -> None:
        """An error that is about no path says so."""
        output = Output(as_json=True)
        output.fail(TimeoutError("late"))
        output.interrupted()
        self.assertEqual(output.finish(), 130)
        paths = [event["path"] for event in self.objects() if event["event"] == "error"]
        self.assertEqual(paths, [None, None])

    def test_first_failure(self) -> None:
        """The first failure decides the status, whatever is left out or comes later."""
        output = Output()
        output.left_out("l", "it is a link")
        output.fail(TimeoutError("late"))
        output.fail(FileNotFoundError(errno.ENOENT, "there is none", "/b"))
        self.assertEqual(output.finish(), 5)

    def test_place(self) -> None:
        """A local file is named as the system does, what lies in our staging by where it should go."""
        denied = os.strerror(errno.EACCES)
        for own, place in (("d/b", "d/b"), (".fileexport", "/x/b"), (".fileexport/part-1", "/x/b")):
            Output().fail(PermissionError(errno.EACCES, denied, own), "/x/b")
            self.assertEqual(self.stderr.getvalue().splitlines()[-1].split(": ")[1], place)

    def test_closed(self) -> None:
        """Where nobody reads, a write says so."""
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as stdout:
            self.patch(sys, "stdout", stdout)
            self.assertRaises(Closed, Output().line, "a")
            # What could not be written is forgotten, or the file's end would try once more.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, writer)
            os.close(null)

    def test_terminal(self) -> None:
        """On a terminal a name cannot do anything."""
        with terminal() as (stream, _):
            self.patch(sys, "stdout", stream)
            output = Output()
            self.patch(output, "_stdout", self.stdout)
            output.line("\x1b[2J\udcff")
        self.assertEqual(self.stdout.getvalue(), b"\\x1b[2J\\xff\n")


class ProgressTests(Case):
    """Who sees how far it is."""

    def test_who(self) -> None:
        """Nobody who did not ask; programs; people at a terminal."""
        self.assertIs(type(progress_for(Output(as_json=True), False)), Progress)
        self.assertIs(type(progress_for(Output(), True)), Progress)
        self.assertIs(type(progress_for(Output(as_json=True), True)), Events)
        with terminal() as (stream, _):
            self.patch(sys, "stderr", stream)
            self.assertIs(type(progress_for(Output(quiet=True), True)), Progress)

    def test_events(self) -> None:
        """A quarter of a second lies between two events, however many files come."""
        output = Output(as_json=True)
        now = 0.0
        self.patch(sys.modules["time"], "monotonic", lambda: now)
        progress = Events(output)
        for _ in range(100):
            progress.expect(10)
        for number in range(100):
            now += 0.01
            progress.done(f"/{number}", 10, 0)
        output.flush()
        events = self.objects()
        self.assertIn(len(events), (3, 4))
        self.assertEqual(
            events[0],
            {
                **{"event": "progress", "path": "/24", "files": 25, "total_files": 100},
                **{"bytes": 250, "total_bytes": 1000, "rate": 1000},
            },
        )

    def test_display(self) -> None:
        """A terminal sees files, bytes and lines of text, and no control character of a name."""
        with terminal() as (stream, screen):
            self.patch(sys, "stderr", stream)
            self.patch(os, "environ", {**os.environ, "TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"})
            output = Output()
            with progress_for(output, True) as progress:
                self.assertIsInstance(progress, Display)
                progress.expect(1000)
                progress.expect(4000)
                progress.done("/a\x1b[2J", 1000, 0)
                progress.moved("/b", 4000, 1000)
                output.warn("Left out: \x1b[5m")
                progress.moved("/b", 4000, 3000)
                progress.done("/b", 4000, 4000)
            self.assertIsNone(output.above)
        text = screen.decode()
        self.assertIn("2 of 2 files", text)
        self.assertIn("Left out: \\x1b[5m", text)
        for control in ("\x1b[5m", "\x1b[2J", "\x1b[31m", "\x1b[32m"):
            self.assertNotIn(control, text)


@contextlib.contextmanager
def terminal() -> Iterator[tuple[TextIO, bytearray]]:
    """A stream that is a terminal, and what it has been shown, complete when the block is left."""
    master, slave = pty.openpty()
    screen = bytearray()

    def watch() -> None:
        # The end of a terminal that nobody holds is an error on Linux.
        with contextlib.suppress(OSError):
            while seen := os.read(master, 1 << 16):
                screen.extend(seen)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with os.fdopen(slave, "w", encoding="utf-8") as stream:
            yield stream, screen
    finally:
        watcher.join()
        os.close(master)
