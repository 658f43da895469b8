"""What HTTP answers about a file: conditions, ranges and validators, as RFC 9110 says.

Pure: no files, no sockets, no clock. `decide` takes what the request asks and what the file is now, and
gives a `Plan`: the status, the header fields, and which bytes to send in which order. Read it from the
bottom: `decide`, then `_refusal` (section 13.2.2 step by step), `_wanted` (section 14), then the parsers.

Where the RFC leaves a choice, we take the one that does no harm, and say so beside the code.
"""

from __future__ import annotations

import math
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import blake2b
from http import HTTPStatus
from typing import NamedTuple, Protocol

#: Ranges in one request. With more, the whole Range field is ignored: the answer is the file, once.
MAX_RANGES = 16
#: Bytes of a Range field that we are ready to read: room for `MAX_RANGES` of any size that occurs.
MAX_RANGE_FIELD = 4096

_OWS = b" \t"
_READING = frozenset({b"GET", b"HEAD"})
#: Methods that select no file, for which conditions mean nothing (section 13.2.1).
_WITHOUT_CONDITIONS = frozenset({b"CONNECT", b"OPTIONS", b"TRACE"})
#: The first second that an HTTP date can name, in seconds from 1970: a time before it becomes this one.
_FIRST_SECOND = -62_135_596_800
_ACCEPT_RANGES = (b"Accept-Ranges", b"bytes")


#: The fields that decide, in lower case: a request with none of them is answered with the whole file.
DECISIVE = frozenset(
    (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range", b"range")
)


class FileStat(Protocol):
    """What we need of `os.stat_result`."""

    @property
    def st_dev(self) -> int: ...
    @property
    def st_ino(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ctime_ns(self) -> int: ...


class Headers(Protocol):
    """Gives all field lines of a name (in any case) as the request orders them; empty where there is none."""

    def __call__(self, name: bytes, /) -> Sequence[bytes]: ...


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as its open descriptor shows it: bytes, nanoseconds since 1970, a quoted strong entity tag."""

    size: int
    mtime_ns: int
    etag: bytes


class Span(NamedTuple):
    """Bytes of the file from `start` up to, not including, `stop`."""

    start: int
    stop: int


_Fields = tuple[tuple[bytes, bytes], ...]
_Parts = tuple[bytes | Span, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer: 200, 206, 304, 412 or 416.

    `headers` are the fields that follow from the file and the conditions; the caller adds its own.
    `parts` is the body in order, literal bytes and spans of the file. `length` is the value of
    Content-Length and the sum of the parts; only for HEAD is it the length that GET would have. 304, 412 and
    416 have no body here and no Content-Length: the caller may send a page that explains an error.
    """

    status: HTTPStatus
    headers: _Fields = ()
    parts: _Parts = ()
    length: int = 0


def strong_etag(stat: FileStat) -> bytes:
    """A quoted, strong entity tag (RFC 9110, 8.8.3) of 20 characters for the state of a file.

    It changes whenever the kernel sees the file change: ctime moves even where a program sets mtime back.
    Hashed, so that it is short and shows nobody an inode number.
    """
    facts = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    digest = blake2b(b"%d.%d.%d.%d.%d" % facts, digest_size=15).digest()
    return b'"' + urlsafe_b64encode(digest) + b'"'


# Dates (RFC 9110, 5.6.7): whole seconds, UTC.

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH = b"(?P<month>" + b"|".join(_MONTHS) + b")"
_TIME = rb"(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d):(?P<second>[0-5]\d|60)"
_DAY_NAME = b"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY_NAME = b"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_DATE_FORMATS = (
    re.compile(_DAY_NAME + rb", (?P<day>\d\d) " + _MONTH + rb" (?P<year>\d{4}) " + _TIME + b" GMT"),
    re.compile(_LONG_DAY_NAME + rb", (?P<day>\d\d)-" + _MONTH + rb"-(?P<year>\d\d) " + _TIME + b" GMT"),
    re.compile(_DAY_NAME + b" " + _MONTH + rb" (?P<day>\d\d| \d) " + _TIME + rb" (?P<year>\d{4})"),
)


def _parse_date(lines: Sequence[bytes], now: datetime) -> datetime | None:
    """Read a field with one date in any of the three formats; None, which means ignored, for anything else.

    The name of the day is not compared with the date: it tells nothing that the date does not. A leap second
    is read as the one before it.
    """
    text = lines[0].strip(_OWS) if len(lines) == 1 else b""
    found = next(filter(None, (pattern.fullmatch(text) for pattern in _DATE_FORMATS)), None)
    if found is None:
        return None
    year, day, hour, minute, second = map(int, found.group("year", "day", "hour", "minute", "second"))
    rest = (_MONTHS.index(found["month"]) + 1, day, hour, minute, min(second, 59))
    if len(found["year"]) == 2:  # RFC 850: a year of this century, or of the last if over 50 years ahead.
        year += now.year - now.year % 100
        year -= 100 if (year - 50, *rest) > now.timetuple()[:6] else 0
    try:
        return datetime(year, *rest, tzinfo=UTC)
    except ValueError:
        return None


# Entity tags (RFC 9110, 8.8.3).

_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*+"')
# The runs are possessive: a hostile field costs time in proportion to its length.
_TAG_LIST = re.compile(rb"[ \t,]*+(?:" + _TAG.pattern + rb"[ \t]*+(?:,[ \t,]*+|\Z))*")
_ANY = [b"*"]


def _parse_tags(lines: Sequence[bytes]) -> list[bytes] | None:
    """All tags of a field's lines, with quotes and `W/`; `_ANY` for a star; None where it is malformed.

    Commas may stand inside a tag, and empty elements of the list mean nothing.
    """
    value = b",".join(lines).strip(_OWS)
    if value == b"*":
        return _ANY
    return _TAG.findall(value) if _TAG_LIST.fullmatch(value) else None


# Conditions (RFC 9110, 13).


def _if_match(lines: Sequence[bytes], etag: bytes) -> bool:
    """Section 13.1.1, strong comparison: neither a weak tag nor a malformed list matches anything."""
    tags = _parse_tags(lines)
    return tags is not None and (tags == _ANY or etag in tags)


def _if_none_match(lines: Sequence[bytes], etag: bytes, *, reading: bool) -> bool:
    """Section 13.1.2, weak comparison. Malformed: a reader gets the file, a writer may not write."""
    tags = _parse_tags(lines)
    if tags is None:
        return reading
    return tags != _ANY and etag not in [tag.removeprefix(b"W/") for tag in tags]


def _if_modified_since(lines: Sequence[bytes], modified: datetime, now: datetime) -> bool:
    """Section 13.1.3; true where the field is to be ignored."""
    date = _parse_date(lines, now)
    return date is None or modified > date


def _if_unmodified_since(lines: Sequence[bytes], modified: datetime, now: datetime) -> bool:
    """Section 13.1.4; true where the field is to be ignored."""
    date = _parse_date(lines, now)
    return date is None or modified <= date


def _if_range(lines: Sequence[bytes], etag: bytes, modified: datetime, now: datetime) -> bool:
    """Section 13.1.5: exactly our tag or our date; true without the field, false where it is malformed.

    A date counts only once its second is over: before that the file can change again within it (8.8.2.2).
    """
    if len(lines) != 1:
        return not lines
    same_date = modified < now and _parse_date(lines, now) == modified
    return same_date or lines[0].strip(_OWS) == etag


def _refusal(
    method: bytes, fields: Headers, etag: bytes, modified: datetime, now: datetime
) -> HTTPStatus | None:
    """Steps 1 to 4 of section 13.2.2: the status that ends the request, or None to go on."""
    if method in _WITHOUT_CONDITIONS:
        return None
    reading = method in _READING

    # Steps 1 and 2: is the file still the one that the client means?
    if lines := fields(b"If-Match"):
        if not _if_match(lines, etag):
            return HTTPStatus.PRECONDITION_FAILED
    elif not _if_unmodified_since(fields(b"If-Unmodified-Since"), modified, now):
        return HTTPStatus.PRECONDITION_FAILED

    # Steps 3 and 4: does the client have it already?
    if lines := fields(b"If-None-Match"):
        if not _if_none_match(lines, etag, reading=reading):
            return HTTPStatus.NOT_MODIFIED if reading else HTTPStatus.PRECONDITION_FAILED
    elif reading and not _if_modified_since(fields(b"If-Modified-Since"), modified, now):
        return HTTPStatus.NOT_MODIFIED
    return None


# Ranges (RFC 9110, 14).

# int() takes 640 digits at any setting of the interpreter, and fast; a longer number is not a range.
_RANGE = re.compile(rb"(\d{0,600})-(\d{0,600})")


class _Range(NamedTuple):
    """A range as it was asked for: ``first-last``, ``first-``, or ``-last`` for a suffix of that length."""

    first: int | None
    last: int | None

    def within(self, size: int) -> Span:
        """The bytes of a file of `size` bytes; an empty or reversed span where there are none."""
        if self.first is None:
            return Span(max(0, size - (self.last or 0)), size)
        return Span(self.first, size if self.last is None else min(self.last + 1, size))


def _parse_range(text: bytes) -> _Range | None:
    """Read one range; None where it is not valid, also where its last byte is before its first."""
    found = _RANGE.fullmatch(text)
    if found is None or text == b"-":
        return None
    first, last = (int(digits) if digits else None for digits in found.groups())
    return None if first is not None and last is not None and last < first else _Range(first, last)


def _parse_ranges(lines: Sequence[bytes]) -> list[_Range] | None:
    """Read a Range field (14.1.1, 14.2); None where there is none or it is to be ignored.

    That is: several lines, another unit than bytes, anything malformed, or more of it than `MAX_RANGES` or
    `MAX_RANGE_FIELD` allow. The RFC lets a server reject these as well; the whole file breaks no client.
    """
    if len(lines) != 1 or len(lines[0]) > MAX_RANGE_FIELD:
        return None
    unit, _, text = lines[0].strip(_OWS).partition(b"=")
    if unit.lower() != b"bytes":
        return None
    texts = [part for part in (part.strip(_OWS) for part in text.split(b",")) if part]
    if not 1 <= len(texts) <= MAX_RANGES:
        return None
    ranges = [found for found in map(_parse_range, texts) if found is not None]
    return ranges if len(ranges) == len(texts) else None


def _coalesce(spans: Iterable[Span]) -> list[Span]:
    """Join spans that overlap or touch (15.3.7.2); each stands where its first piece was asked for."""
    joined: list[tuple[int, Span]] = []
    for order, span in sorted(enumerate(spans), key=lambda item: item[1]):
        if joined and span.start <= joined[-1][1].stop:
            earlier, before = joined[-1]
            joined[-1] = min(earlier, order), Span(before.start, max(before.stop, span.stop))
        else:
            joined.append((order, span))
    return [span for _, span in sorted(joined)]


def _wanted(fields: Headers, state: FileState, modified: datetime, now: datetime) -> list[Span] | None:
    """What Range asks for: spans of the file, none where it cannot be satisfied, None for the whole file.

    Also step 5 of section 13.2.2. Where If-Range holds and no range can be satisfied, step 5 reads as 200
    and section 14.2 as 416; we answer 416, as others do: the client has the file already.
    """
    ranges = _parse_ranges(fields(b"Range"))
    if ranges is None or not _if_range(fields(b"If-Range"), state.etag, modified, now):
        return None
    if state.size == 0 and any(asked.first is None and asked.last for asked in ranges):
        # The end of an empty file can be had (14.1.2), but no Content-Range says so: ignored, as 14.2 allows.
        return None
    spans = (asked.within(state.size) for asked in ranges)
    return _coalesce(span for span in spans if span.start < span.stop)


def _body(spans: list[Span] | None, size: int, kind: bytes, boundary: bytes) -> tuple[_Fields, _Parts]:
    """The whole file, one span of it, or several as multipart/byteranges: the fields and the parts.

    Where there are several, only the parts have a Content-Range (15.3.7.2).
    """
    plain = (b"Content-Type", kind)
    if spans is None:
        return (plain,), (Span(0, size),) if size else ()
    where = [b"bytes %d-%d/%d" % (span.start, span.stop - 1, size) for span in spans]
    if len(spans) == 1:
        return (plain, (b"Content-Range", where[0])), (spans[0],)
    parts: list[bytes | Span] = []
    for span, text in zip(spans, where, strict=True):
        described = b"Content-Type: %s\r\nContent-Range: %s" % (kind, text)
        parts += [b"\r\n--%s\r\n%s\r\n\r\n" % (boundary, described), span]
    multipart = b"multipart/byteranges; boundary=" + boundary
    return ((b"Content-Type", multipart),), (*parts, b"\r\n--%s--\r\n" % boundary)


def _dates(mtime_ns: int, now: float) -> tuple[datetime, datetime]:
    """The date of the answer, and that of the file: never a later one (8.8.2.1), whatever the file says."""
    second = math.floor(now)
    modified = max(_FIRST_SECOND, min(mtime_ns // 10**9, second))
    return datetime.fromtimestamp(second, UTC), datetime.fromtimestamp(modified, UTC)


def may_change(method: bytes, fields: Headers, state: FileState | None, *, now: float) -> bool:
    """Whether a request's conditions let its method change a file; None for one that is not there.

    `now` is that of `decide`. Where there is none, no tag and no star of If-Match matches it (13.1.1), every
    If-None-Match but a malformed one does (13.1.2), and there is no date to compare (13.1.4).
    """
    if state is not None:
        today, modified = _dates(state.mtime_ns, now)
        return _refusal(method, fields, state.etag, modified, today) is None
    return not fields(b"If-Match") and _parse_tags(fields(b"If-None-Match")) is not None


def decide(
    method: bytes, fields: Headers, state: FileState, *, content_type: bytes, now: float, boundary: bytes
) -> Plan:
    """Say how a request for a file is answered (RFC 9110, 13 and 14). No bytes in a field raise an error.

    `now` is the time of the answer's Date, in seconds since 1970. `boundary` separates the parts of a
    multipart answer: random, and valid without quotes. For a method other than GET and HEAD, 200 says only
    that the conditions hold: then the plan is otherwise empty, and the method is the caller's to perform.
    """
    today, modified = _dates(state.mtime_ns, now)
    etag = (b"ETag", state.etag)
    validators = (etag, (b"Last-Modified", format_datetime(modified, usegmt=True).encode()))

    refusal = _refusal(method, fields, state.etag, modified, today)
    if refusal is not None:
        return Plan(refusal, validators if refusal is HTTPStatus.NOT_MODIFIED else (etag,))
    if method not in _READING:
        return Plan(HTTPStatus.OK)

    # Only GET knows ranges (14.2): HEAD tells about the whole file.
    spans = _wanted(fields, state, modified, today) if method == b"GET" else None
    if spans == []:
        unsatisfied = (b"Content-Range", b"bytes */%d" % state.size)
        return Plan(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, (_ACCEPT_RANGES, etag, unsatisfied))
    described, parts = _body(spans, state.size, content_type, boundary)
    length = sum(part.stop - part.start if isinstance(part, Span) else len(part) for part in parts)
    headers = (_ACCEPT_RANGES, *validators, *described, (b"Content-Length", b"%d" % length))
    status = HTTPStatus.OK if spans is None else HTTPStatus.PARTIAL_CONTENT
    return Plan(status, headers, parts if method == b"GET" else (), length)
