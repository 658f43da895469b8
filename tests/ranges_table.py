"""The table that `tests.test_ranges` walks: a request's fields, the file, and the answer that is right.

Written by hand from RFC 9110; nothing here was computed by the code under test. An answer is the status and,
for 206, the inclusive ranges that are sent. The section that decides stands at each group.
"""

from __future__ import annotations

from fileexport.web.ranges import FileState

#: Thu, 01 Jan 2026 00:00:00 GMT
NOW = 1_767_225_600.0
TODAY = "Thu, 01 Jan 2026 00:00:00 GMT"
EARLIER = "Wed, 31 Dec 2025 23:59:59 GMT"
OLD = "Wed, 31 Dec 1969 23:59:59 GMT"
DATED = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"
#: Changed in the middle of the second that `DATED` names.
FILE = FileState(10_000, 784_111_777_500_000_000, b'"v1"')
EMPTY = FileState(0, FILE.mtime_ns, b'"v1"')
ONE_BYTE = FileState(1, FILE.mtime_ns, b'"v1"')
FIVE_GIB = FileState(5_368_709_120, FILE.mtime_ns, b'"v1"')
VAST = FileState(2**64, FILE.mtime_ns, b'"v1"')
WITH_COMMA = FileState(10_000, FILE.mtime_ns, b'"a,b"')
OBS_TEXT = FileState(10_000, FILE.mtime_ns, b'"caf\xe9"')
FUTURE = FileState(10_000, int(NOW + 3600) * 10**9, b'"v1"')
THIS_SECOND = FileState(10_000, int(NOW) * 10**9, b'"v1"')
LAST_SECOND = FileState(10_000, int(NOW - 1) * 10**9 + 999_999_999, b'"v1"')
BEFORE_1970 = FileState(10_000, -1, b'"v1"')
ANCIENT = FileState(10_000, -(10**30), b'"v1"')
FAR = FileState(10_000, 10**30, b'"v1"')
#: Tue, 15 Jan 2126 00:00:00 GMT
IN_2126 = FileState(10_000, 4_924_108_800 * 10**9, b'"v1"')
#: The Last-Modified that each shows, where it is not `DATED`.
LAST_MODIFIED = {
    FUTURE: TODAY,
    FAR: TODAY,
    THIS_SECOND: TODAY,
    LAST_SECOND: EARLIER,
    BEFORE_1970: OLD,
    ANCIENT: "Mon, 01 Jan 0001 00:00:00 GMT",
    IN_2126: "Tue, 15 Jan 2126 00:00:00 GMT",
}


class Case:
    """One row: ``answer`` is like ``"206 0-4 9-9"``."""

    def __init__(
        self,
        name: str,
        answer: str,
        *lines: str,
        file: FileState = FILE,
        method: str = "GET",
        now: float = NOW,
    ) -> None:
        self.name = name
        self.answer = answer
        self.lines = lines
        self.file = file
        self.method = method
        self.now = now


def _ranges(*specs: str) -> str:
    return "Range: bytes=" + ",".join(specs)


# 14.1.2 and 14.2
RANGES = (
    Case("no range", "200"),
    Case("the first bytes", "206 0-499", "Range: bytes=0-499"),
    Case("bytes in the middle", "206 500-999", "Range: bytes=500-999"),
    Case("one byte", "206 0-0", "Range: bytes=0-0"),
    Case("the last byte by number", "206 9999-9999", "Range: bytes=9999-9999"),
    Case("open from the start is 206", "206 0-9999", "Range: bytes=0-"),
    Case("open from the middle", "206 9500-9999", "Range: bytes=9500-"),
    Case("open at the last byte", "206 9999-9999", "Range: bytes=9999-"),
    Case("the whole file by numbers is 206", "206 0-9999", "Range: bytes=0-9999"),
    Case("the end is cut at the file's end", "206 9000-9999", "Range: bytes=9000-20000"),
    Case("the end is cut by one", "206 0-9999", "Range: bytes=0-10000"),
    Case("a suffix", "206 9500-9999", "Range: bytes=-500"),
    Case("a suffix of one byte", "206 9999-9999", "Range: bytes=-1"),
    Case("a suffix as long as the file", "206 0-9999", "Range: bytes=-10000"),
    Case("a suffix longer than the file", "206 0-9999", "Range: bytes=-10001"),
    Case("a suffix of no bytes", "416", "Range: bytes=-0"),
    Case("a suffix of no bytes, many zeros", "416", "Range: bytes=-000"),
    Case("the first byte at the end", "416", "Range: bytes=10000-"),
    Case("the first byte behind the end", "416", "Range: bytes=10001-10005"),
    Case("the byte at the end", "416", "Range: bytes=10000-10000"),
    Case("leading zeros", "206 1-2", "Range: bytes=0001-0002"),
    Case("five hundred leading zeros", "206 1-2", "Range: bytes=" + "0" * 500 + "1-2"),
    Case("a last byte of 300 digits", "206 5-9999", "Range: bytes=5-" + "9" * 300),
    Case("a suffix of 300 digits", "206 0-9999", "Range: bytes=-" + "9" * 300),
    Case("a first byte of 300 digits", "416", "Range: bytes=" + "9" * 300 + "-"),
    Case("both of 300 digits, reversed by one", "200", "Range: bytes=" + "9" * 300 + "-" + "9" * 299 + "8"),
    Case("a number of 700 digits is no range", "200", "Range: bytes=0-" + "9" * 700),
    Case("a field that is longer than any sense", "200", "Range: bytes=0-1" + "," * 5000),
    Case("above 2**31", f"206 {2**31}-{2**31}", f"Range: bytes={2**31}-{2**31}", file=FIVE_GIB),
    Case("the last byte of 5 GiB", "206 5368709119-5368709119", "Range: bytes=5368709119-", file=FIVE_GIB),
    Case("a suffix of 5 GiB", "206 5368709118-5368709119", "Range: bytes=-2", file=FIVE_GIB),
    Case("more than 4 GiB at once", "206 1-5368709119", "Range: bytes=1-", file=FIVE_GIB),
    Case("behind 5 GiB", "416", "Range: bytes=5368709120-", file=FIVE_GIB),
    Case("all of 5 GiB", "200", file=FIVE_GIB),
    Case("above 2**63", f"206 {2**63}-{2**63 + 1}", f"Range: bytes={2**63}-{2**63 + 1}", file=VAST),
    Case("the last byte below 2**64", f"206 {2**64 - 1}-{2**64 - 1}", "Range: bytes=-1", file=VAST),
    Case("2**64 itself", "416", "Range: bytes=18446744073709551616-", file=VAST),
    Case("an empty file", "200", file=EMPTY),
    Case("open on an empty file", "416", "Range: bytes=0-", file=EMPTY),
    Case("the first byte of an empty file", "416", "Range: bytes=0-0", file=EMPTY),
    Case("the end of an empty file can be had but not described", "200", "Range: bytes=-5", file=EMPTY),
    Case("the end of an empty file beside an impossible range", "200", "Range: bytes=0-,-5", file=EMPTY),
    Case("no bytes of an empty file", "416", "Range: bytes=-0", file=EMPTY),
    Case("only impossible ranges of an empty file", "416", "Range: bytes=0-0,5-,-0", file=EMPTY),
    Case("all of a file of one byte", "206 0-0", "Range: bytes=0-", file=ONE_BYTE),
    Case("a suffix of a file of one byte", "206 0-0", "Range: bytes=-100", file=ONE_BYTE),
    Case("the second of one byte", "416", "Range: bytes=1-1", file=ONE_BYTE),
)

# 14.1, 14.1.1, 14.2, 5.6.1: what is no valid Range is as if it were not there
SYNTAX = (
    Case("the unit in capitals", "206 0-1", "Range: BYTES=0-1"),
    Case("the unit in mixed case", "206 0-1", "Range: ByTeS=0-1"),
    Case("another unit", "200", "Range: lines=0-1"),
    Case("a unit that begins with bytes", "200", "Range: bytesx=0-1"),
    Case("no unit", "200", "Range: =0-1"),
    Case("no equals sign", "200", "Range: bytes 0-1"),
    Case("a colon for the equals sign", "200", "Range: bytes:0-1"),
    Case("two equals signs", "200", "Range: bytes==0-1"),
    Case("space before the equals sign", "200", "Range: bytes =0-1"),
    Case("only a unit", "200", "Range: bytes"),
    Case("no ranges", "200", "Range: bytes="),
    Case("only empty elements", "200", "Range: bytes=, ,,"),
    Case("an empty field", "200", "Range: "),
    Case("only a dash", "200", "Range: bytes=-"),
    Case("only a number", "200", "Range: bytes=5"),
    Case("reversed", "200", "Range: bytes=5-4"),
    Case("reversed behind the end", "200", "Range: bytes=20000-19999"),
    Case("one of two is reversed", "200", "Range: bytes=0-1,5-4"),
    Case("one of two is malformed", "200", "Range: bytes=0-1,x"),
    Case("a malformed one beside an impossible one", "200", "Range: bytes=10000-,x"),
    Case("letters", "200", "Range: bytes=a-b"),
    Case("hexadecimal", "200", "Range: bytes=0x0-0x5"),
    Case("an underscore in a number", "200", "Range: bytes=1_0-2_0"),
    Case("a plus sign", "200", "Range: bytes=+1-2"),
    Case("a negative first byte", "200", "Range: bytes=-1-2"),
    Case("two dashes", "200", "Range: bytes=1--2"),
    Case("three numbers", "200", "Range: bytes=1-2-3"),
    Case("a fraction", "200", "Range: bytes=0.5-2"),
    Case("space before the dash", "200", "Range: bytes=0 -1"),
    Case("space behind the dash", "200", "Range: bytes=0- 1"),
    Case("ranges parted by a semicolon", "200", "Range: bytes=0-1;5-6"),
    Case("ranges parted by a space", "200", "Range: bytes=0-1 5-6"),
    Case("digits that are not ASCII", "200", "Range: bytes=\xb2-\xb3"),
    Case("a zero byte", "200", "Range: bytes=0-\x001"),
    Case("a form feed is no white space", "200", "Range: bytes=0-1,\x0c5-6"),
    Case("white space around the field", "206 0-1", "Range: \t bytes=0-1 \t"),
    Case("white space behind the equals sign", "206 0-1", "Range: bytes= 0-1"),
    Case("white space around commas", "206 0-1 5-6", "Range: bytes=0-1 \t,\t 5-6"),
    Case("empty elements", "206 0-1 5-6", "Range: bytes=,0-1,, ,5-6,"),
    Case("two lines of one range", "200", "Range: bytes=0-1", "Range: bytes=5-6"),
    Case("the same line twice", "200", "Range: bytes=0-1", "Range: bytes=0-1"),
    Case("the name of the field in small letters", "206 0-1", "range: bytes=0-1"),
)

SIXTEEN = tuple(f"{n}-{n}" for n in range(0, 32, 2))

# 14.2, 15.3.7.2, 17.15
SEVERAL = (
    Case("two ranges", "206 0-0 9999-9999", "Range: bytes=0-0,-1"),
    Case("the order of the request is kept", "206 500-599 0-99", "Range: bytes=500-599,0-99"),
    Case("a suffix first", "206 9990-9999 0-9", "Range: bytes=-10,0-9"),
    Case("three ranges out of order", "206 40-49 0-9 20-29", "Range: bytes=40-49,0-9,20-29"),
    Case("a gap of one byte is kept", "206 0-4 6-9", "Range: bytes=0-4,6-9"),
    Case("touching ranges become one", "206 0-9", "Range: bytes=0-4,5-9"),
    Case("touching ranges, the later first", "206 0-9", "Range: bytes=5-9,0-4"),
    Case("overlapping ranges become one", "206 500-999", "Range: bytes=500-700,601-999"),
    Case("a range within another", "206 0-99", "Range: bytes=0-99,10-20"),
    Case("a range around another", "206 0-99", "Range: bytes=10-20,0-99"),
    Case("the same range twice", "206 3-7", "Range: bytes=3-7,3-7"),
    Case("the same start, two ends", "206 3-9", "Range: bytes=3-7,3-9"),
    Case("a chain becomes one", "206 0-8", "Range: bytes=0-2,6-8,2-6"),
    Case("a suffix that overlaps", "206 9000-9999", "Range: bytes=9000-9600,-500"),
    Case("an open range takes in what follows", "206 100-9999", "Range: bytes=100-,200-300,-5"),
    Case("joined at the first place", "206 0-9 50-59", "Range: bytes=5-9,50-59,0-4"),
    Case("joined at the first place, last in the file", "206 50-69 0-9", "Range: bytes=60-69,0-9,50-59"),
    Case("two pairs are joined", "206 0-9 50-59", "Range: bytes=0-4,50-54,5-9,55-59"),
    Case("the impossible one is left out", "206 0-4", "Range: bytes=0-4,10000-"),
    Case("the impossible ones are left out", "206 0-4 8-9", "Range: bytes=0-4,10000-,8-9,-0"),
    Case("the impossible one is first", "206 0-4", "Range: bytes=20000-20001,0-4"),
    Case("all are impossible", "416", "Range: bytes=10000-,20000-20001,-0"),
    Case("sixteen ranges", "206 " + " ".join(SIXTEEN), _ranges(*SIXTEEN)),
    Case("seventeen ranges are ignored", "200", _ranges(*SIXTEEN, "40-40")),
    Case("seventeen equal ranges are ignored", "200", _ranges(*["0-0"] * 17)),
    Case("sixteen equal ranges are one", "206 0-0", _ranges(*["0-0"] * 16)),
    Case("seventeen impossible ranges are ignored", "200", _ranges(*["10000-"] * 17)),
    Case("a thousand open ranges are ignored", "200", _ranges(*["0-"] * 1000)),
    Case("empty elements do not count", "206 0-0", _ranges("0-0", *[""] * 100)),
    Case(
        "two ranges of 5 GiB",
        "206 4999999999-4999999999 0-1",
        "Range: bytes=4999999999-4999999999,0-1",
        file=FIVE_GIB,
    ),
)

# 9.3.2, 13.2.1, 14.2
METHODS = (
    Case("HEAD", "200", method="HEAD"),
    Case("HEAD knows no ranges", "200", "Range: bytes=0-1", method="HEAD"),
    Case("HEAD knows no impossible ranges", "200", "Range: bytes=10000-", method="HEAD"),
    Case("HEAD of an empty file", "200", file=EMPTY, method="HEAD"),
    Case("HEAD of what the client has", "304", 'If-None-Match: "v1"', method="HEAD"),
    Case("HEAD of what has not changed", "304", f"If-Modified-Since: {DATED}", method="HEAD"),
    Case("HEAD of another file", "412", 'If-Match: "v2"', method="HEAD"),
    Case("HEAD does not look at If-Range", "200", 'If-Range: "v1"', "Range: bytes=0-1", method="HEAD"),
    Case("PUT without conditions", "200", method="PUT"),
    Case("PUT knows no ranges", "200", "Range: bytes=10000-", method="PUT"),
    Case("PUT onto the file that is meant", "200", 'If-Match: "v1"', method="PUT"),
    Case("PUT onto another file", "412", 'If-Match: "v2"', method="PUT"),
    Case("PUT onto any file", "200", "If-Match: *", method="PUT"),
    Case("PUT only where there is none", "412", "If-None-Match: *", method="PUT"),
    Case("PUT unless it is this", "412", 'If-None-Match: "v1"', method="PUT"),
    Case("PUT unless it is weakly this", "412", 'If-None-Match: W/"v1"', method="PUT"),
    Case("PUT unless it is another", "200", 'If-None-Match: "v2"', method="PUT"),
    Case("PUT with a malformed list does nothing", "412", "If-None-Match: v1", method="PUT"),
    Case("DELETE with a malformed list does nothing", "412", 'If-Match: "v1', method="DELETE"),
    Case("DELETE of what changed since", "412", f"If-Unmodified-Since: {BEFORE}", method="DELETE"),
    Case("DELETE of what did not change", "200", f"If-Unmodified-Since: {DATED}", method="DELETE"),
    Case("DELETE does not know If-Modified-Since", "200", f"If-Modified-Since: {DATED}", method="DELETE"),
    Case("a method has its case", "200", f"If-Modified-Since: {DATED}", method="get"),
    Case("OPTIONS has no conditions", "200", 'If-Match: "v2"', method="OPTIONS"),
    Case("TRACE has no conditions", "200", "If-None-Match: *", method="TRACE"),
)

# 13.1.1, 8.8.3.2
IF_MATCH = (
    Case("the same tag", "200", 'If-Match: "v1"'),
    Case("another tag", "412", 'If-Match: "v2"'),
    Case("any file", "200", "If-Match: *"),
    Case("any file, with white space", "200", "If-Match:  *\t"),
    Case("the weak tag never matches", "412", 'If-Match: W/"v1"'),
    Case("one of a list", "200", 'If-Match: "v0", "v1", "v2"'),
    Case("none of a list", "412", 'If-Match: "v0", "v2"'),
    Case("the strong tag behind its weak one", "200", 'If-Match: W/"v1", "v1"'),
    Case("on the second line", "200", 'If-Match: "v0"', 'If-Match: "v1"'),
    Case("on none of two lines", "412", 'If-Match: "v0"', 'If-Match: "v2"'),
    Case("an empty If-Match", "412", "If-Match: "),
    Case("empty elements in If-Match", "200", 'If-Match: ,, "v1" ,'),
    Case("no white space in the list", "200", 'If-Match: "v0","v1"'),
    Case("a tag without quotes", "412", "If-Match: v1"),
    Case("an open quote", "412", 'If-Match: "v1'),
    Case("a malformed list with the right tag in it", "412", 'If-Match: "v1", v2'),
    Case("tags without a comma", "412", 'If-Match: "v1" "v2"'),
    Case("a star in a list", "412", 'If-Match: *, "v1"'),
    Case("a star on two lines", "412", "If-Match: *", "If-Match: *"),
    Case("a star in quotes is a tag", "412", 'If-Match: "*"'),
    Case("a tag has its case", "412", 'If-Match: "V1"'),
    Case("white space within the quotes", "412", 'If-Match: "v1 "'),
    Case("the weakness sign has its case", "412", 'If-Match: w/"v1"'),
    Case("a comma within a tag", "200", 'If-Match: "x", "a,b"', file=WITH_COMMA),
    Case("the halves of a tag with a comma", "412", 'If-Match: "a", "b"', file=WITH_COMMA),
    Case("bytes above ASCII in a tag", "200", 'If-Match: "caf\xe9"', file=OBS_TEXT),
    Case("a condition that holds lets ranges through", "206 0-1", 'If-Match: "v1"', "Range: bytes=0-1"),
    Case("a condition that fails comes before ranges", "412", 'If-Match: "v2"', "Range: bytes=0-1"),
    Case("a condition that fails comes before 416", "412", 'If-Match: "v2"', "Range: bytes=10000-"),
)

# 13.1.2, 8.8.3.2
IF_NONE_MATCH = (
    Case("the client has it", "304", 'If-None-Match: "v1"'),
    Case("the client has another", "200", 'If-None-Match: "v2"'),
    Case("the client has anything", "304", "If-None-Match: *"),
    Case("the weak tag matches", "304", 'If-None-Match: W/"v1"'),
    Case("one of the client's", "304", 'If-None-Match: "v0", W/"v1"'),
    Case("none of the client's", "200", 'If-None-Match: "v0", W/"v2"'),
    Case("the client's on two lines", "304", 'If-None-Match: "v0"', 'If-None-Match: "v1"'),
    Case("an empty If-None-Match", "200", "If-None-Match: "),
    Case("empty elements in If-None-Match", "304", 'If-None-Match: , ,"v1",'),
    Case("a malformed tag sends the file", "200", "If-None-Match: v1"),
    Case("a malformed list sends the file", "200", 'If-None-Match: "v1", v2'),
    Case("a star in the client's list sends the file", "200", 'If-None-Match: "v1", *'),
    Case("a comma within the client's tag", "304", 'If-None-Match: W/"a,b"', file=WITH_COMMA),
    Case("half of a tag with a comma", "200", 'If-None-Match: "a"', file=WITH_COMMA),
    Case("bytes above ASCII in the client's tag", "304", 'If-None-Match: "caf\xe9"', file=OBS_TEXT),
    Case("304 comes before 206", "304", 'If-None-Match: "v1"', "Range: bytes=0-1"),
    Case("304 comes before 416", "304", 'If-None-Match: "v1"', "Range: bytes=10000-"),
    Case("another tag lets ranges through", "206 0-1", 'If-None-Match: "v2"', "Range: bytes=0-1"),
    Case("304 for an empty file", "304", 'If-None-Match: "v1"', file=EMPTY),
)

# 13.1.3, 5.6.7
IF_MODIFIED_SINCE = (
    Case("not modified since its own date", "304", f"If-Modified-Since: {DATED}"),
    Case("not modified since a second later", "304", f"If-Modified-Since: {AFTER}"),
    Case("modified since a second before", "200", f"If-Modified-Since: {BEFORE}"),
    Case("a date to come", "304", "If-Modified-Since: Fri, 01 Jan 2027 00:00:00 GMT"),
    Case("RFC 850, the same second", "304", "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT"),
    Case("RFC 850, a second before", "200", "If-Modified-Since: Sunday, 06-Nov-94 08:49:36 GMT"),
    Case("asctime, the same second", "304", "If-Modified-Since: Sun Nov  6 08:49:37 1994"),
    Case("asctime, a second before", "200", "If-Modified-Since: Sun Nov  6 08:49:36 1994"),
    Case("asctime with two digits of the day", "304", "If-Modified-Since: Wed Nov 16 08:49:37 1994"),
    Case("asctime with a zero before the day", "304", "If-Modified-Since: Sun Nov 06 08:49:37 1994"),
    Case("RFC 850, this century", "304", "If-Modified-Since: Thursday, 01-Jan-26 00:00:00 GMT"),
    Case("RFC 850, 50 years ahead is to come", "304", "If-Modified-Since: Wednesday, 01-Jan-76 00:00:00 GMT"),
    Case("RFC 850, a second more is past", "200", "If-Modified-Since: Thursday, 01-Jan-76 00:00:01 GMT"),
    Case("RFC 850, the year 99", "304", "If-Modified-Since: Friday, 31-Dec-99 23:59:59 GMT"),
    Case("RFC 850, the year 77 is past", "200", "If-Modified-Since: Saturday, 01-Jan-77 00:00:00 GMT"),
    Case("the wrong day of the week", "304", "If-Modified-Since: Mon, 06 Nov 1994 08:49:37 GMT"),
    Case("white space around the date", "304", f"If-Modified-Since: \t{DATED} "),
    Case("a leap second", "304", "If-Modified-Since: Sat, 31 Dec 2016 23:59:60 GMT"),
    Case("no date", "200", "If-Modified-Since: yesterday"),
    Case("an empty date", "200", "If-Modified-Since: "),
    Case("seconds since 1970", "200", "If-Modified-Since: 1767225600"),
    Case("the date of ISO 8601", "200", "If-Modified-Since: 2025-01-01T00:00:00Z"),
    Case("a day that is not", "200", "If-Modified-Since: Tue, 30 Feb 2010 00:00:00 GMT"),
    Case("the day zero", "200", "If-Modified-Since: Tue, 00 Jan 2010 00:00:00 GMT"),
    Case("the year zero", "200", "If-Modified-Since: Sat, 01 Jan 0000 00:00:00 GMT"),
    Case("the hour 24", "200", "If-Modified-Since: Tue, 05 Jan 2010 24:00:00 GMT"),
    Case("the minute 60", "200", "If-Modified-Since: Tue, 05 Jan 2010 10:60:00 GMT"),
    Case("the second 61", "200", "If-Modified-Since: Tue, 05 Jan 2010 10:00:61 GMT"),
    Case("another zone", "200", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 CET"),
    Case("a zone in numbers", "200", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 +0000"),
    Case("no zone", "200", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37"),
    Case("a month in small letters", "200", "If-Modified-Since: Sun, 06 nov 1994 08:49:37 GMT"),
    Case("one digit of the day", "200", "If-Modified-Since: Sun, 6 Nov 1994 08:49:37 GMT"),
    Case("two digits of the year", "200", "If-Modified-Since: Sun, 06 Nov 94 08:49:37 GMT"),
    Case("a date and more", "200", f"If-Modified-Since: {DATED}; length=10000"),
    Case("two dates on one line", "200", f"If-Modified-Since: {DATED}, {DATED}"),
    Case("two lines of dates", "200", f"If-Modified-Since: {DATED}", f"If-Modified-Since: {DATED}"),
    Case("304 by date comes before 206", "304", f"If-Modified-Since: {DATED}", "Range: bytes=0-1"),
    Case("modified, so ranges count", "206 0-1", f"If-Modified-Since: {BEFORE}", "Range: bytes=0-1"),
)

# 13.1.4
IF_UNMODIFIED_SINCE = (
    Case("unmodified since its own date", "200", f"If-Unmodified-Since: {DATED}"),
    Case("unmodified since a second later", "200", f"If-Unmodified-Since: {AFTER}"),
    Case("not unmodified since a second before", "412", f"If-Unmodified-Since: {BEFORE}"),
    Case("unmodified by RFC 850", "200", "If-Unmodified-Since: Sunday, 06-Nov-94 08:49:37 GMT"),
    Case("not unmodified by RFC 850", "412", "If-Unmodified-Since: Sunday, 06-Nov-94 08:49:36 GMT"),
    Case("not unmodified by asctime", "412", "If-Unmodified-Since: Sun Nov  6 08:49:36 1994"),
    Case("an invalid date is ignored", "200", "If-Unmodified-Since: 1994"),
    Case("two lines are ignored", "200", f"If-Unmodified-Since: {BEFORE}", f"If-Unmodified-Since: {BEFORE}"),
    Case("unmodified, so ranges count", "206 0-1", f"If-Unmodified-Since: {DATED}", "Range: bytes=0-1"),
    Case("412 by date comes before 206", "412", f"If-Unmodified-Since: {BEFORE}", "Range: bytes=0-1"),
)

# 13.2.2
PRECEDENCE = (
    Case("If-Match that holds hides the date", "200", 'If-Match: "v1"', f"If-Unmodified-Since: {BEFORE}"),
    Case("If-Match that fails hides the date", "412", 'If-Match: "v2"', f"If-Unmodified-Since: {DATED}"),
    Case("a malformed If-Match hides the date", "412", "If-Match: v1", f"If-Unmodified-Since: {DATED}"),
    Case("If-None-Match holds, date hidden", "200", 'If-None-Match: "v2"', f"If-Modified-Since: {DATED}"),
    Case("If-None-Match fails, date hidden", "304", 'If-None-Match: "v1"', f"If-Modified-Since: {BEFORE}"),
    Case("If-None-Match malformed, date hidden", "200", "If-None-Match: v1", f"If-Modified-Since: {DATED}"),
    Case("412 comes before 304", "412", 'If-Match: "v2"', 'If-None-Match: "v1"'),
    Case("304 comes after If-Match", "304", 'If-Match: "v1"', 'If-None-Match: "v1"'),
    Case("412 by date comes before 304", "412", f"If-Unmodified-Since: {BEFORE}", 'If-None-Match: "v1"'),
    Case("304 comes after the first date", "304", f"If-Unmodified-Since: {DATED}", 'If-None-Match: "v1"'),
    Case("304 by date comes after If-Match", "304", 'If-Match: "v1"', f"If-Modified-Since: {DATED}"),
    Case(
        "every condition holds",
        "206 0-1",
        'If-Match: "v1"',
        'If-None-Match: "v2"',
        'If-Range: "v1"',
        "Range: bytes=0-1",
    ),
    Case("304 comes before If-Range", "304", 'If-None-Match: "v1"', 'If-Range: "v1"', "Range: bytes=0-1"),
)

# 13.1.5, 8.8.2.2
IF_RANGE = (
    Case("the same file", "206 0-1", 'If-Range: "v1"', "Range: bytes=0-1"),
    Case("another file", "200", 'If-Range: "v2"', "Range: bytes=0-1"),
    Case("a weak tag never lets ranges through", "200", 'If-Range: W/"v1"', "Range: bytes=0-1"),
    Case("a list is no If-Range", "200", 'If-Range: "v0", "v1"', "Range: bytes=0-1"),
    Case("a star is no If-Range", "200", "If-Range: *", "Range: bytes=0-1"),
    Case("an If-Range without quotes", "200", "If-Range: v1", "Range: bytes=0-1"),
    Case("an empty If-Range", "200", "If-Range: ", "Range: bytes=0-1"),
    Case("two lines of If-Range", "200", 'If-Range: "v1"', 'If-Range: "v1"', "Range: bytes=0-1"),
    Case("white space around If-Range", "206 0-1", 'If-Range: \t"v1" ', "Range: bytes=0-1"),
    Case("the same date", "206 0-1", f"If-Range: {DATED}", "Range: bytes=0-1"),
    Case("the date by RFC 850", "206 0-1", "If-Range: Sunday, 06-Nov-94 08:49:37 GMT", "Range: bytes=0-1"),
    Case("the same date by asctime", "206 0-1", "If-Range: Sun Nov  6 08:49:37 1994", "Range: bytes=0-1"),
    Case("an earlier date", "200", f"If-Range: {BEFORE}", "Range: bytes=0-1"),
    Case("a later date is not exact", "200", f"If-Range: {AFTER}", "Range: bytes=0-1"),
    Case("an invalid date sends the file", "200", "If-Range: Sun, 06 Nov 1994", "Range: bytes=0-1"),
    Case("If-Range without Range", "200", 'If-Range: "v2"'),
    Case("If-Range with a malformed Range", "200", 'If-Range: "v1"', "Range: bytes=5-4"),
    Case("If-Range with another unit", "200", 'If-Range: "v1"', "Range: lines=0-1"),
    Case("the same file and an impossible range", "416", 'If-Range: "v1"', "Range: bytes=10000-"),
    Case("another file and an impossible range", "200", 'If-Range: "v2"', "Range: bytes=10000-"),
    Case("the same file and several ranges", "206 0-1 5-6", 'If-Range: "v1"', "Range: bytes=0-1,5-6"),
    Case("this second is weak", "200", f"If-Range: {TODAY}", "Range: bytes=0-1", file=THIS_SECOND),
    Case(
        "this second is weak to its end",
        "200",
        f"If-Range: {TODAY}",
        "Range: bytes=0-1",
        file=THIS_SECOND,
        now=NOW + 0.999,
    ),
    Case(
        "the last second is strong", "206 0-1", f"If-Range: {EARLIER}", "Range: bytes=0-1", file=LAST_SECOND
    ),
    Case("a tag is strong at once", "206 0-1", 'If-Range: "v1"', "Range: bytes=0-1", file=THIS_SECOND),
    Case("a date of the future is weak", "200", f"If-Range: {TODAY}", "Range: bytes=0-1", file=FUTURE),
)

# 8.8.2.1
TIMES = (
    Case("a file of the future is of now", "200", file=FUTURE),
    Case("now is a whole second", "200", file=FUTURE, now=NOW + 0.9),
    Case("a file of the future is always modified", "200", f"If-Modified-Since: {EARLIER}", file=FUTURE),
    Case("a file of the future is not unmodified", "412", f"If-Unmodified-Since: {EARLIER}", file=FUTURE),
    Case("a nanosecond before 1970", "200", file=BEFORE_1970),
    Case("not modified since before 1970", "304", f"If-Modified-Since: {OLD}", file=BEFORE_1970),
    Case("modified before 1970", "200", "If-Modified-Since: Wed, 31 Dec 1969 23:59:58 GMT", file=BEFORE_1970),
    Case("a time that no date can name is the first", "200", file=ANCIENT),
    Case("a time that no calendar reaches is now", "200", file=FAR),
    Case("the end of a second is not rounded up", "200", file=LAST_SECOND),
    Case(
        "RFC 850 goes by the century of now",
        "304",
        "If-Modified-Since: Friday, 01-Feb-26 00:00:00 GMT",
        file=IN_2126,
        now=4_935_945_600.0,
    ),
)

CASES = (
    *RANGES,
    *SYNTAX,
    *SEVERAL,
    *METHODS,
    *IF_MATCH,
    *IF_NONE_MATCH,
    *IF_MODIFIED_SINCE,
    *IF_UNMODIFIED_SINCE,
    *PRECEDENCE,
    *IF_RANGE,
    *TIMES,
)
