"""Tests of `fileexport.web.ranges`: the table of `tests.ranges_table`, and what holds for every request."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.web.ranges import MAX_RANGES, FileState, Headers, Plan, Span, decide, strong_etag
from tests.ranges_table import CASES, DATED, EMPTY, FILE, LAST_MODIFIED, NOW, Case

TYPE = b"text/plain"
BOUNDARY = b"frontier"


def fields_of(lines: Iterable[tuple[bytes, bytes]]) -> Headers:
    """A lookup over field lines, whose names have no case."""
    kept = [(name.lower(), value) for name, value in lines]
    return lambda name: [value for known, value in kept if known == name.lower()]


def answer(
    *lines: tuple[bytes, bytes], file: FileState = FILE, method: bytes = b"GET", now: float = NOW
) -> Plan:
    return decide(method, fields_of(lines), file, content_type=TYPE, now=now, boundary=BOUNDARY)


def split(line: str) -> tuple[bytes, bytes]:
    name, _, value = line.encode("latin-1").partition(b": ")
    return name, value


def plan_of(case: Case) -> Plan:
    lines = map(split, case.lines)
    return answer(*lines, file=case.file, method=case.method.encode(), now=case.now)


def render(plan: Plan, content: bytes) -> bytes:
    """The body as a client receives it."""
    return b"".join(
        content[part.start : part.stop] if isinstance(part, Span) else part for part in plan.parts
    )


def spans_of(plan: Plan) -> list[Span]:
    return [part for part in plan.parts if isinstance(part, Span)]


def size_of(plan: Plan) -> int:
    return sum(part.stop - part.start if isinstance(part, Span) else len(part) for part in plan.parts)


def expected_spans(case: Case) -> list[Span]:
    """The inclusive ranges of a row's answer as spans."""
    pairs = [pair.split("-") for pair in case.answer.split()[1:]]
    return [Span(int(first), int(last) + 1) for first, last in pairs]


def expected_parts(case: Case) -> list[bytes | Span]:
    """The body that a row promises, framed by hand."""
    spans = expected_spans(case)
    if case.answer == "200":
        return [Span(0, case.file.size)] if case.file.size else []
    if len(spans) < 2:
        return list(spans)
    parts: list[bytes | Span] = []
    for first, stop in spans:
        where = f"bytes {first}-{stop - 1}/{case.file.size}"
        parts.append(f"\r\n--frontier\r\nContent-Type: text/plain\r\nContent-Range: {where}\r\n\r\n".encode())
        parts.append(Span(first, stop))
    return [*parts, b"\r\n--frontier--\r\n"]


def expected_headers(case: Case) -> dict[bytes, bytes]:
    """All fields that a row promises, by its status."""
    status, spans, size = case.answer[:3], expected_spans(case), case.file.size
    etag = {b"ETag": case.file.etag}
    dated = {**etag, b"Last-Modified": LAST_MODIFIED.get(case.file, DATED).encode()}
    ranges = {b"Accept-Ranges": b"bytes"}
    if status in ("304", "412"):
        return dated if status == "304" else etag
    if status == "416":
        return {**ranges, **etag, b"Content-Range": f"bytes */{size}".encode()}
    parts = expected_parts(case)
    length = sum(len(part) if isinstance(part, bytes) else part.stop - part.start for part in parts)
    described = {b"Content-Type": TYPE, b"Content-Length": str(length).encode()}
    if len(spans) == 1:
        described[b"Content-Range"] = f"bytes {spans[0].start}-{spans[0].stop - 1}/{size}".encode()
    if len(spans) > 1:
        described[b"Content-Type"] = b"multipart/byteranges; boundary=frontier"
    return {**ranges, **dated, **described}


class RangesTableTests(SynchronousTestCase):
    """One test for each row of the table."""

    def check(self, case: Case) -> None:
        plan = plan_of(case)
        self.assertEqual(int(plan.status), int(case.answer[:3]))
        if plan.status == 200 and case.method not in ("GET", "HEAD"):
            self.assertEqual((plan.headers, plan.parts, plan.length), ((), (), 0))
            return
        headers = expected_headers(case)
        self.assertEqual(dict(plan.headers), headers)
        self.assertEqual(len(plan.headers), len(headers))
        self.assertEqual(plan.length, int(headers.get(b"Content-Length", b"0")))
        sent = plan.status in (200, 206) and case.method == "GET"
        self.assertEqual(list(plan.parts), expected_parts(case) if sent else [])

    def test_is_complete(self) -> None:
        """The table has at least 170 rows, and no name stands twice."""
        self.assertGreaterEqual(len(CASES), 170)
        self.assertEqual(len({case.name for case in CASES}), len(CASES))
        rows = {(case.lines, case.file, case.method, case.now) for case in CASES}
        self.assertEqual(len(rows), len(CASES))


def _row_test(case: Case) -> Callable[[RangesTableTests], None]:
    def test(self: RangesTableTests) -> None:
        self.check(case)

    test.__doc__ = f"{case.name}: {case.method} {' | '.join(case.lines)[:80]!r} is {case.answer[:40]}."
    return test


for _number, _case in enumerate(CASES):
    _slug = re.sub(r"\W+", "_", _case.name)
    setattr(RangesTableTests, f"test_{_number:03d}_{_slug}", _row_test(_case))


class MultipartTests(SynchronousTestCase):
    """The body of several ranges, byte by byte."""

    def test_body(self) -> None:
        """A client gets exactly this body for two ranges of a file of ten bytes."""
        plan = answer((b"Range", b"bytes=7-,0-1"), file=FileState(10, 0, b'"t"'))
        body = (
            b"\r\n--frontier\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-9/10\r\n\r\n789"
            b"\r\n--frontier\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01"
            b"\r\n--frontier--\r\n"
        )
        self.assertEqual(render(plan, b"0123456789"), body)
        self.assertEqual(plan.length, len(body))

    def test_huge_length(self) -> None:
        """Content-Length of several ranges is exact beyond 2**63."""
        file = FileState(2**70, 0, b'"t"')
        plan = answer((b"Range", b"bytes=0-0,2-"), file=file)
        self.assertEqual(plan.length, size_of(plan))
        self.assertGreater(plan.length, 2**69)


class Stat(NamedTuple):
    st_dev: int = 1
    st_ino: int = 2
    st_size: int = 3
    st_mtime_ns: int = 4
    st_ctime_ns: int = 5


class StrongEtagTests(SynchronousTestCase):
    """The entity tag of a file's stat."""

    def test_form(self) -> None:
        """A tag is strong, quoted, short, and of characters that need no thought."""
        for stat in (Stat(), Stat(st_size=2**70, st_mtime_ns=-1)):
            self.assertTrue(re.fullmatch(rb'"[A-Za-z0-9_-]{20}"', strong_etag(stat)))

    def test_same(self) -> None:
        """The same stat has the same tag."""
        self.assertEqual(strong_etag(Stat()), strong_etag(Stat()))

    def test_changes(self) -> None:
        """The tag changes with each fact, and facts that only look alike when joined differ too."""
        stats = [Stat(), Stat(12, 3), Stat(1, 23), *(Stat()._replace(**{name: 9}) for name in Stat._fields)]
        self.assertEqual(len({strong_etag(stat) for stat in stats}), len(stats))


_NAMES = st.sampled_from(
    [b"Range", b"If-Range", b"If-Match", b"If-None-Match", b"If-Modified-Since", b"If-Unmodified-Since"]
)
_NUMBER = st.integers(0, 40).map(lambda number: b"%d" % number) | st.just(b"9" * 99)
_SPEC = st.tuples(_NUMBER | st.just(b""), _NUMBER | st.just(b"")).map(b"-".join)
_RANGE = st.lists(_SPEC, max_size=20).map(lambda specs: b"bytes=" + b",".join(specs))
_PIECES = st.lists(
    st.sampled_from(
        [
            b'"v1"',
            b'"',
            b"W/",
            b"*",
            b",",
            b" ",
            b"\t",
            b"bytes=",
            b"-",
            b"0",
            b"9",
            DATED.encode(),
            b"GMT",
            b"\xff",
        ]
    )
).map(b"".join)
_LINES = st.lists(st.tuples(_NAMES, st.binary(max_size=60) | _PIECES | _RANGE), max_size=8)
_FILES = st.builds(
    FileState,
    st.integers(0, 40) | st.integers(0, 2**80),
    st.integers(-(10**12), 10**12).map(lambda seconds: seconds * 10**9 // 7) | st.just(FILE.mtime_ns),
    st.just(b'"v1"'),
)
_METHODS = st.sampled_from([b"GET", b"GET", b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"\xff"])


class PropertyTests(SynchronousTestCase):
    """What holds for every request."""

    @settings(max_examples=1000, deadline=None)
    @given(_METHODS, _LINES, _FILES, st.floats(0, 4e9))
    def test_every_plan(
        self, method: bytes, lines: list[tuple[bytes, bytes]], file: FileState, now: float
    ) -> None:
        """No bytes raise; spans lie in the file and apart; the length is exact; only known statuses come."""
        plan = answer(*lines, file=file, method=method, now=now)
        self.assertIn(plan.status, (200, 206, 304, 412, 416))
        spans = spans_of(plan)
        self.assertLessEqual(len(spans), MAX_RANGES)
        for span in spans:
            self.assertTrue(0 <= span.start < span.stop <= file.size)
        for before, after in zip(sorted(spans), sorted(spans)[1:], strict=False):
            self.assertLess(before.stop, after.start)
        if method == b"GET":
            self.assertEqual(plan.length, size_of(plan))
        else:
            self.assertEqual(plan.parts, ())
            self.assertNotIn(plan.status, (206, 416))
        headers = dict(plan.headers)
        self.assertEqual(headers.get(b"Content-Length", b"0"), b"%d" % plan.length)
        for name, value in plan.headers:
            self.assertNotRegex(name + value, rb"[\r\n\0]")

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=40), st.integers(0, 50), st.none() | st.integers(0, 50))
    def test_slices(self, content: bytes, first: int, last: int | None) -> None:
        """A single range gives what Python's slice gives, or 416 where that is empty."""
        asked = b"bytes=%d-" % first + (b"" if last is None else b"%d" % last)
        plan = answer((b"Range", asked), file=FileState(len(content), 0, b'"t"'))
        if last is not None and last < first:
            self.assertEqual((plan.status, render(plan, content)), (200, content))
            return
        wanted = content[first : None if last is None else last + 1]
        self.assertEqual(plan.status, 206 if wanted else 416)
        self.assertEqual(render(plan, content), wanted)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(min_size=1, max_size=40), st.integers(1, 50))
    def test_suffixes(self, content: bytes, length: int) -> None:
        """A suffix gives what Python's slice from the end gives."""
        plan = answer((b"Range", b"bytes=-%d" % length), file=FileState(len(content), 0, b'"t"'))
        self.assertEqual((plan.status, render(plan, content)), (206, content[-length:]))

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 45), st.integers(0, 9)), min_size=1, max_size=MAX_RANGES))
    def test_coverage(self, asked: list[tuple[int, int]]) -> None:
        """Several ranges send every byte that was asked for once, and no other byte."""
        value = b"bytes=" + b",".join(b"%d-%d" % (first, first + more) for first, more in asked)
        plan = answer((b"Range", value), file=FileState(40, 0, b'"t"'))
        wanted = {n for first, more in asked for n in range(first, first + more + 1) if n < 40}
        sent = [n for span in spans_of(plan) for n in range(*span)]
        self.assertEqual(sorted(sent), sorted(wanted))
        self.assertEqual(int(plan.status), 206 if wanted else 416)

    @settings(max_examples=300, deadline=None)
    @given(st.integers(-62_135_596_800, 4_000_000_000), st.sampled_from([b"GET", b"HEAD"]))
    def test_own_validators(self, mtime: int, method: bytes) -> None:
        """What an answer says about the file always makes the next one 304."""
        file = FileState(10, mtime * 10**9, b'"t"')
        headers = dict(answer(file=file, method=method).headers)
        tagged = answer((b"If-None-Match", headers[b"ETag"]), file=file, method=method)
        dated = answer((b"If-Modified-Since", headers[b"Last-Modified"]), file=file, method=method)
        self.assertEqual((tagged.status, dated.status), (304, 304))

    def test_long_fields(self) -> None:
        """Fields far longer than any server lets through are answered, and raise nothing."""
        for piece in (b'"x",', b'"', b" ", b",", b'W/"v1" ', b"9", b"0-1,", b"W/"):
            for name in (b"Range", b"If-Match", b"If-None-Match", b"If-Range", b"If-Modified-Since"):
                plan = answer((name, piece * 50_000), file=EMPTY)
                self.assertIn(plan.status, (200, 412))
