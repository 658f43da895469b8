"""What `fileexport.logs` promises: whole lines, bounded files, nothing forged, nothing bulky."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import threading
from collections.abc import Callable
from errno import ENOSPC
from unicodedata import category

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel, globalLogPublisher
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fileexport.logs import MAX_HEADER, MAX_TARGET, Access, AccessLog, Form, LogSink, observer

#: 2026-11-21T14:22:02.125Z
NOON = 1795270922.125
#: What a client's bytes look like in a line.
ESCAPES: tuple[tuple[bytes, str], ...] = (
    (b"/list?dir=a", "/list?dir=a"),
    (b'a"b', r"a\x22b"),
    (b"a\\b", r"a\x5cb"),
    (b"a\r\nb", r"a\x0d\x0ab"),
    (b"\0\t\x7f", r"\x00\x09\x7f"),
    (b"\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
    (b"\xff\xfe", r"\xff\xfe"),
    (b"caf\xc3\xa9", "café"),
    (b"caf\xc3", r"caf\xc3"),
    ("\x9b31m".encode(), r"\xc2\x9b31m"),
    ("\u2028\u2029\x85".encode(), r"\xe2\x80\xa8\xe2\x80\xa9\xc2\x85"),
    ("\u202egnp.exe".encode(), r"\xe2\x80\xaegnp.exe"),
    (b"\xed\xb3\xbf", r"\xed\xb3\xbf"),
    ("日本 😀".encode(), "日本 😀"),
)
TOKEN = b"fex1_" + b"Ab-_3" * 10


def access(
    target: bytes = b"/list?dir=a",
    *,
    peer: str = "127.0.0.1",
    who: str = "who",
    method: bytes = b"GET",
    referrer: bytes | None = None,
    agent: bytes | None = b"Wget/1.21",
) -> Access:
    return Access(peer, who, method, target, b"HTTP/1.1", 200, 512, 0.0031, referrer, agent)


def recorded(entry: Access, form: Form = "text") -> str:
    """The line of one request, without its newline."""
    out = io.StringIO()
    AccessLog(LogSink.to_stream(out), form, now=lambda: NOON).record(entry)
    text = out.getvalue()
    if not text.endswith("\n"):
        raise AssertionError("the line does not end")
    return text[:-1]


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def unescaped(text: str) -> bytes:
    """The bytes that an escaped field stands for."""
    return re.sub(
        rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), text.encode("utf-8", "strict")
    )


class AccessTextTests(SynchronousTestCase):
    def test_combined_format(self) -> None:
        """A request is a line of the combined format with the seconds at its end."""
        self.assertEqual(
            recorded(access()),
            "127.0.0.1 - who [21/Nov/2026:14:22:02 +0000] "
            '"GET /list?dir=a HTTP/1.1" 200 512 "-" "Wget/1.21" 0.003',
        )

    def test_nothing_known(self) -> None:
        """What a broken request did not bring is a dash."""
        entry = Access("unix", "", b"", b"", b"", 400, 0, 0.0, None, None)
        self.assertEqual(recorded(entry), 'unix - - [21/Nov/2026:14:22:02 +0000] "- - -" 400 0 "-" "-" 0.000')

    def test_each_second(self) -> None:
        """Each line has the time of its own moment."""
        out = io.StringIO()
        times = iter([NOON, NOON + 0.9, NOON - 1])
        log = AccessLog(LogSink.to_stream(out), "text", now=lambda: next(times))
        for _ in range(3):
            log.record(access())
        self.assertEqual(re.findall(r":(\d\d) \+0000]", out.getvalue()), ["02", "03", "01"])

    def test_escapes(self) -> None:
        """In every field that a client sends, what is not plain text stands as bytes in hexadecimal."""
        for raw, expected in ESCAPES:
            line = recorded(access(b"/" + raw, referrer=raw, agent=raw, method=raw))
            self.assertIn(f'"{expected} /{expected} HTTP/1.1" 200 512 "{expected}" "{expected}" 0', line)

    def test_words(self) -> None:
        """The address and the name stay one word each, whatever they hold."""
        line = recorded(access(peer="fe80::1%eth 0", who='a "b\n'))
        self.assertTrue(line.startswith(r"fe80::1%eth\x200 - a\x20\x22b\x0a ["), line)

    def test_bounds(self) -> None:
        """Long fields are cut, and show it."""
        line = recorded(access(b"/" * 100_000, referrer=b"r" * 600, agent=b"a" * MAX_HEADER))
        self.assertIn(" " + "/" * MAX_TARGET + "... HTTP", line)
        self.assertIn('"' + "r" * MAX_HEADER + '..."', line)
        self.assertIn('"' + "a" * MAX_HEADER + '"', line)
        hostile = recorded(
            Access(
                "p" * 9999, "w" * 9999, b"\xff" * 9999, b"\xff" * 99_999, b"\xff" * 99, 0, 0, 0.0, None, None
            )
        )
        self.assertLess(len(hostile), 5 * MAX_TARGET)

    def test_tokens(self) -> None:
        """No token gets into a line, neither by its look nor by its parameter's name."""
        line = recorded(
            access(b"/a?token=s3cret&b=1&access_token=other", referrer=b"/x/" + TOKEN + b"?y", agent=TOKEN)
        )
        self.assertIn(
            ' /a?token=***&b=1&access_token=*** HTTP/1.1" 200 512 "/x/fex1_***?y" "fex1_***" ', line
        )
        at_the_cut = recorded(access(b"/" + b"a" * (MAX_TARGET - 20) + TOKEN))
        self.assertIn("fex1_***", at_the_cut)
        self.assertNotIn("Ab-_3", at_the_cut)

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=40))
    def test_any_bytes(self, target: bytes, agent: bytes) -> None:
        """Any bytes make one printable line of six quotes, and can be read back from it."""
        line = recorded(access(target, agent=agent))
        self.assertTrue(line.isprintable())
        self.assertEqual(line.count('"'), 6)
        request, _, _, _, agent_text, _ = line.split('"')[1:]
        if b"token=" not in target + agent and b"fex1_" not in target + agent:
            self.assertEqual(unescaped(request), b"GET " + target + b" HTTP/1.1")
            self.assertEqual(unescaped(agent_text), agent)


class AccessJsonTests(SynchronousTestCase):
    def test_fields(self) -> None:
        """A request is one object with the promised fields, in order."""
        expected = {
            "time": "2026-11-21T14:22:02.125Z",
            "event": "access",
            "peer": "127.0.0.1",
            "who": "who",
            "method": "GET",
            "target": "/list?dir=a",
            "status": 200,
            "bytes": 512,
            "seconds": 0.0031,
            "referrer": None,
            "agent": "Wget/1.21",
        }
        found = json.loads(recorded(access(), "json"))
        self.assertEqual(found, expected)
        self.assertEqual(list(found), list(expected))

    def test_escapes(self) -> None:
        """A reader of the JSON gets the same escapes, and no control character even after decoding."""
        for raw, expected in ESCAPES:
            found = json.loads(recorded(access(raw, referrer=raw, agent=raw), "json"))
            self.assertEqual((found["target"], found["referrer"], found["agent"]), (expected,) * 3)

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.binary(max_size=40), st.text(max_size=20), st.binary(max_size=40))
    def test_any_bytes(self, target: bytes, who: str, agent: bytes) -> None:
        """Any bytes make one line of printable JSON."""
        line = recorded(access(target, who=who, agent=agent), "json")
        self.assertTrue(line.isprintable())
        found = json.loads(line)
        self.assertEqual(len(found), 11)
        self.assertTrue(all(text.isprintable() for text in found.values() if isinstance(text, str)))


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def failure_of(error: Exception) -> Failure:
    try:
        raise error
    except Exception:
        return Failure()


class ObserverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.out = io.StringIO()

    def lines(self, form: Form, emit: Callable[[Logger], object]) -> list[str]:
        """What `emit` writes through a logger."""
        emit(Logger("the.room", observer=observer(LogSink.to_stream(self.out), form)))
        return self.out.getvalue().split("\n")[:-1]

    def test_text(self) -> None:
        """An event is its time in UTC with milliseconds, its level and its message."""
        watch = observer(LogSink.to_stream(self.out), "text")
        watch({"log_time": NOON, "log_level": LogLevel.info, "log_format": "{n} files", "n": 3})
        self.assertEqual(self.out.getvalue(), "2026-11-21T14:22:02.125+0000 [info] 3 files\n")

    def test_json(self) -> None:
        """In JSON it has its five fields at most, whatever else the event carries."""
        watch = observer(LogSink.to_stream(self.out), "json")
        watch(
            {
                "log_time": NOON,
                "log_level": LogLevel.warn,
                "log_namespace": "the.room",
                "log_source": self,
                "log_logger": Logger(),
                "log_format": 'it "is" {what}',
                "what": "\x1b[1m\nhere",
            }
        )
        self.assertEqual(
            self.out.getvalue(),
            '{"time":"2026-11-21T14:22:02.125Z","level":"warn","system":"the.room",'
            '"message":"it \\"is\\" \\\\x1b[1m\\\\x0ahere"}\n',
        )

    def test_system(self) -> None:
        """An event's own system comes before its logger's namespace."""
        (line,) = self.lines("json", lambda log: log.info("x", log_system="HTTP\n,1"))
        self.assertEqual(json.loads(line)["system"], r"HTTP\x0a,1")

    def test_message_escapes(self) -> None:
        """A message is one line without control characters."""
        (line,) = self.lines("text", lambda log: log.info("{x}", x="a\r\nb\x1b[2J\u2028\x9b\udcff é"))
        self.assertTrue(line.endswith(r" [info] a\x0d\x0ab\x1b[2J\xe2\x80\xa8\xc2\x9b\xff é"), line)

    def test_message_token(self) -> None:
        """A token that got into a message is masked."""
        (line,) = self.lines("text", lambda log: log.info("bad: {x}", x=TOKEN.decode()))
        self.assertTrue(line.endswith("bad: fex1_***"), line)

    def test_message_bound(self) -> None:
        """A huge message loses its middle."""
        (line,) = self.lines("text", lambda log: log.info("{x}", x="a" * 1_000_000 + "end"))
        self.assertLess(len(line), 20_000)
        self.assertTrue(line.endswith(r"a\x0a...\x0a" + "a" * 8189 + "end"))

    def test_failure_text(self) -> None:
        """A failure's traceback follows its message in indented lines, which nobody can forge."""
        forged = failure_of(ValueError("x\n2026-11-21T14:22:02.125+0000 [info] forged\x1b[0m"))
        first, *others = self.lines("text", lambda log: log.failure("it broke", forged))
        self.assertTrue(first.endswith(" [critical] it broke"), first)
        self.assertTrue(all(re.match("    [^\x00-\x1f]*$", line) for line in others), others)
        self.assertIn("    2026-11-21T14:22:02.125+0000 [info] forged\\x1b[0m", others)
        self.assertTrue(any("failure_of" in line for line in others))

    def test_failure_json(self) -> None:
        """In JSON the traceback is one field, and the object one line."""
        (line,) = self.lines("json", lambda log: log.failure("it broke", failure_of(ValueError("bo\x1bom"))))
        found = json.loads(line)
        self.assertEqual(list(found), ["time", "level", "system", "message", "failure"])
        self.assertEqual((found["level"], found["message"]), ("critical", "it broke"))
        self.assertTrue(found["failure"].endswith("builtins.ValueError: bo\\x1bom"), found)
        self.assertGreater(found["failure"].count("\n"), 2)

    def test_failure_bound(self) -> None:
        """A huge traceback keeps its end."""
        big = failure_of(ValueError("x" * 1_000_000 + "end"))
        (line,) = self.lines("json", lambda log: log.failure("", big))
        self.assertLess(len(line), 80_000)
        self.assertEqual(json.loads(line)["failure"][-4:], "xend")

    def test_failure_unprintable(self) -> None:
        """An exception that cannot be printed is logged all the same."""
        lines = self.lines("text", lambda log: log.failure("it broke", failure_of(Unprintable())))
        self.assertTrue(any("Unprintable" in line for line in lines), lines)

    def test_legacy_failure(self) -> None:
        """The old log.err brings its traceback once, as a traceback."""
        watch = observer(LogSink.to_stream(self.out), "json")
        globalLogPublisher.addObserver(watch)
        self.addCleanup(globalLogPublisher.removeObserver, watch)
        legacy.err(failure_of(ValueError("boom")), "it broke")
        self.flushLoggedErrors(ValueError)
        found = json.loads(self.out.getvalue())
        self.assertEqual(found["message"], "it broke")
        self.assertEqual(found["failure"].count("boom"), 1)

    def test_silent(self) -> None:
        """An event without a message writes no line."""
        observer(LogSink.to_stream(self.out), "text")({"log_time": NOON, "log_level": LogLevel.info})
        self.assertEqual(self.out.getvalue(), "")

    def test_unformattable(self) -> None:
        """A message that cannot be formatted is one line that says so."""
        lines = self.lines("text", lambda log: log.info("{absent}"))
        self.assertEqual(len(lines), 1)
        self.assertIn("absent", lines[0])

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.text(st.characters(), max_size=40))
    def test_any_text(self, text: str) -> None:
        """Any message makes one line of valid UTF-8 and JSON without a character of control."""
        out = io.BytesIO()
        Logger("n", observer=observer(LogSink.to_stream(out), "json")).info("x{text}", text=text)
        line = out.getvalue().decode("utf-8")
        self.assertTrue(line[:-1].isprintable())
        self.assertFalse([c for c in json.loads(line)["message"] if category(c) in ("Cc", "Cf", "Cs", "Zl")])


class StreamTests(SynchronousTestCase):
    def test_kinds(self) -> None:
        """A text stream and a byte stream get the same lines."""
        text, binary = io.StringIO(), io.BytesIO()
        LogSink.to_stream(text).write("é")
        LogSink.to_stream(binary).write("é")
        self.assertEqual((text.getvalue(), binary.getvalue()), ("é\n", "é\n".encode()))

    def test_surrogates(self) -> None:
        """What has no UTF-8 is written in hexadecimal."""
        out = io.BytesIO()
        LogSink.to_stream(out).write("é\udcff\ud800")
        self.assertEqual(out.getvalue(), "é".encode() + rb"\xff\xed\xa0\x80" + b"\n")

    def test_descriptor(self) -> None:
        """A stream with a descriptor gets a line at once, past its buffer."""
        readable, writable = os.pipe()
        with open(readable, "rb") as reader, open(writable, "w", encoding="ascii") as writer:
            LogSink.to_stream(writer).write("é")
            self.assertEqual(os.read(reader.fileno(), 100), "é\n".encode())

    def test_broken_pipe(self) -> None:
        """A reader that went away is no error for the writer."""
        readable, writable = os.pipe()
        os.close(readable)
        with open(writable, "wb") as writer:
            LogSink.to_stream(writer).write("x")

    def test_lost(self) -> None:
        """Lines that a stream refused are counted in the first line that it takes again."""
        text = "2026-11-21T14:22:02.125+0000 [warn] 2 log lines were lost: No space left on device"
        json_text = (
            '{"time":"2026-11-21T14:22:02.125Z","level":"warn","system":"fileexport.logs",'
            '"message":"2 log lines were lost: No space left on device"}'
        )
        forms: tuple[tuple[Form, str], ...] = (("text", text), ("json", json_text))
        for form, note in forms:
            out = Refusing()
            sink = LogSink.to_stream(out, form=form, now=lambda: NOON)
            sink.write("a")
            sink.write("b")
            out.refuses = False
            sink.write("c")
            sink.write("d")
            self.assertEqual(out.getvalue().split("\n"), [note, "c", "d", ""])

    def test_within_a_write(self) -> None:
        """A line that is logged in the middle of another's write (by a finalizer) does not block."""

        class Logging(io.StringIO):
            def write(self, text: str, /) -> int:
                if text == "a\n":
                    sink.write("b")
                return super().write(text)

        out = Logging()
        sink = LogSink.to_stream(out)
        sink.write("a")
        self.assertEqual(out.getvalue(), "b\na\n")

    def test_close(self) -> None:
        """Closing leaves the stream open, and later lines nowhere."""
        out = io.StringIO()
        sink = LogSink.to_stream(out)
        sink.write("a")
        sink.reopen()
        sink.close()
        sink.write("b")
        self.assertEqual(out.getvalue(), "a\n")


class Refusing(io.StringIO):
    """A stream on a full disk."""

    refuses = True

    def write(self, text: str, /) -> int:
        if self.refuses:
            raise OSError(ENOSPC, "No space left on device", "/secret/path")
        return super().write(text)


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        self.path = os.path.join(self.directory, "log")

    def sink(self, max_bytes: int = 0, keep: int = 0) -> LogSink:
        sink = LogSink.to_file(self.path, max_bytes, keep, now=lambda: NOON)
        self.addCleanup(sink.close)
        return sink

    def contents(self) -> dict[str, bytes]:
        """Every file beside the log, by name."""
        return {name: read(os.path.join(self.directory, name)) for name in sorted(os.listdir(self.directory))}

    def write(self, sink: LogSink, lines: str) -> None:
        """Four bytes for each character of `lines`."""
        for line in lines:
            sink.write(line * 3)

    def test_mode(self) -> None:
        """Others may not read a new log."""
        self.addCleanup(os.umask, os.umask(0o022))
        self.sink()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_not_opened(self) -> None:
        """A log that cannot be opened is an error at once."""
        os.mkdir(self.path)
        self.assertRaises(IsADirectoryError, self.sink)
        pipe = self.path + "-pipe"
        os.mkfifo(pipe)
        self.assertRaises(OSError, LogSink.to_file, pipe, 10, 1)

    def test_keep(self) -> None:
        """The newest old file is FILE.1; past the last number the oldest lines go."""
        three = {"log": b"eee\n", "log.1": b"ddd\n", "log.2": b"ccc\n", "log.3": b"bbb\n"}
        for max_bytes, keep, expected in (
            (8, 0, {"log": b"eee\n"}),
            (8, 1, {"log": b"eee\n", "log.1": b"ccc\nddd\n"}),
            (8, 3, {"log": b"eee\n", "log.1": b"ccc\nddd\n", "log.2": b"aaa\nbbb\n"}),
            (4, 3, three),
            (0, 3, {"log": b"aaa\nbbb\nccc\nddd\neee\n"}),
        ):
            self.setUp()
            self.write(self.sink(max_bytes, keep), "abcde")
            self.assertEqual(self.contents(), expected)

    def test_bound(self) -> None:
        """No file passes the size by a byte, and one that reaches it exactly is not cut short."""
        sink = self.sink(100, 1000)
        for length in range(100):
            sink.write("x" * length)
        sizes = [len(content) for content in self.contents().values()]
        self.assertLessEqual(max(sizes), 100)
        self.assertEqual(sum(sizes), sum(range(101)))

    def test_long_line(self) -> None:
        """A line longer than the size gets a file for itself, whole."""
        sink = self.sink(5, 5)
        for line in ("a", "long line", "b"):
            sink.write(line)
        self.assertEqual(self.contents(), {"log": b"b\n", "log.1": b"long line\n", "log.2": b"a\n"})

    def test_found_full(self) -> None:
        """A log goes on where an earlier run ended, and what that run left counts."""
        for line in "abc":
            self.write(self.sink(8, 1), line)
        self.assertEqual(self.contents(), {"log": b"ccc\n", "log.1": b"aaa\nbbb\n"})

    def test_gap(self) -> None:
        """Where a number is free, older files stay where they are."""
        for number in (1, 3):
            with open(f"{self.path}.{number}", "w", encoding="ascii") as file:
                file.write(str(number))
        self.write(self.sink(4, 3), "ab")
        self.assertEqual(self.contents(), {"log": b"bbb\n", "log.1": b"aaa\n", "log.2": b"1", "log.3": b"3"})

    def test_link(self) -> None:
        """A link to a log stays a link; the file behind it is rotated in its own place."""
        link = self.mktemp()
        os.symlink(os.path.abspath(self.path), link)
        sink = LogSink.to_file(link, 4, 1)
        self.addCleanup(sink.close)
        self.write(sink, "ab")
        self.assertTrue(os.path.islink(link))
        self.assertEqual(self.contents(), {"log": b"bbb\n", "log.1": b"aaa\n"})

    def test_another_directory(self) -> None:
        """A relative name means the directory at the start, also after the daemon has left it."""
        sink = self.sink(4, 1)
        self.addCleanup(os.chdir, os.getcwd())
        directory = os.path.abspath(self.directory)
        os.chdir("/")
        self.write(sink, "ab")
        sink.reopen()
        self.assertEqual(sorted(os.listdir(directory)), ["log", "log.1"])

    def test_cannot_rotate(self) -> None:
        """Where FILE.1 cannot be replaced, no line is lost, and the log says why now and then."""
        os.mkdir(self.path + ".1")
        sink = self.sink(400, 1)
        for _ in range(20):
            sink.write("x" * 99)
        lines = read(self.path).decode().split("\n")[:-1]
        notes = [line for line in lines if not line.startswith("xxx")]
        self.assertEqual(len(lines) - len(notes), 20)
        self.assertTrue(1 <= len(notes) <= 6, notes)
        for note in notes:
            self.assertRegex(note, r"^2026-\S+ \[warn] the log file could not be rotated: [A-Z][a-z ]+$")

    def test_reopen(self) -> None:
        """After another program moved the file, lines go there until the log is opened anew."""
        sink = self.sink()
        sink.write("a")
        os.rename(self.path, self.path + "-old")
        sink.write("b")
        sink.reopen()
        sink.write("c")
        self.assertEqual(self.contents(), {"log": b"c\n", "log-old": b"a\nb\n"})

    def test_moved_and_full(self) -> None:
        """A file that another program moved is opened anew when it is full, and nothing else is moved."""
        sink = self.sink(4, 2)
        self.write(sink, "a")
        os.rename(self.path, self.path + "-old")
        self.write(sink, "b")
        self.assertEqual(self.contents(), {"log": b"bbb\n", "log-old": b"aaa\n"})

    def test_reopen_fails(self) -> None:
        """Where the file cannot be opened anew, the caller hears it and the old one stays in use."""
        sink = self.sink()
        os.rename(self.path, self.path + "-old")
        os.mkdir(self.path)
        self.assertRaises(OSError, sink.reopen)
        sink.write("a")
        self.assertEqual(read(self.path + "-old"), b"a\n")

    def test_close(self) -> None:
        """After the end a line goes nowhere, and nothing is opened again."""
        sink = self.sink()
        sink.close()
        sink.write("a")
        sink.reopen()
        sink.write("b")
        self.assertEqual(self.contents(), {"log": b""})

    def test_full_disk(self) -> None:
        """On a full disk a line is dropped without a word to the caller, and a device is never renamed."""
        sink = LogSink.to_file("/dev/full", 4, 1)
        self.addCleanup(sink.close)
        self.write(sink, "abc")
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/full").st_mode))

    def test_disk_works_again(self) -> None:
        """Once there is room again, the log says how much is missing."""
        os.symlink("/dev/full", self.path)
        sink = self.sink(1000, 1)
        self.write(sink, "abc")
        os.unlink(self.path)
        sink.reopen()
        self.write(sink, "d")
        note = b"2026-11-21T14:22:02.125+0000 [warn] 3 log lines were lost: No space left on device\n"
        self.assertEqual(self.contents(), {"log": note + b"ddd\n"})

    def test_half_line(self) -> None:
        """A line that was cut off by a full pipe does not swallow the next one."""
        readable, writable = os.pipe()
        os.set_blocking(writable, False)
        with open(readable, "rb") as reader, open(writable, "wb") as writer:
            sink = LogSink.to_stream(writer, now=lambda: NOON)
            sink.write("x" * 1_000_000)
            got = os.read(reader.fileno(), 1_000_000)
            self.assertNotIn(b"\n", got)
            sink.write("y")
            got = os.read(reader.fileno(), 1_000_000)
            self.assertRegex(got, rb"^\n2026-\S+ \[warn] 1 log line was lost: [^\n]+\ny\n$")

    def test_threads(self) -> None:
        """Lines of several threads stay whole and all arrive, across rotations."""
        sink = self.sink(2000, 1000)

        def work(letter: str) -> None:
            for _ in range(200):
                sink.write(letter * 30)

        threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        contents = self.contents().values()
        self.assertLessEqual(max(map(len, contents)), 2000)
        lines = b"".join(contents).split(b"\n")[:-1]
        self.assertEqual(sorted(lines), sorted([c * 30 for c in (b"a", b"b", b"c", b"d")] * 200))
