"""Heads of requests: what is read from them, what is refused and how, and their limits."""

from __future__ import annotations

from http import HTTPStatus

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.web.head import (
    MAX_FIELDS,
    MAX_FIELDS_SIZE,
    MAX_HEAD,
    MAX_LINE,
    Head,
    MalformedRequest,
    check_beginning,
    parse_head,
)

HOST = b"\r\nHost: h"
GET = b"GET / HTTP/1.1" + HOST

#: Pieces that mean something to a parser of heads: chance alone would seldom put two of them together.
PIECES = st.sampled_from(
    b"GET|HEAD|OPTIONS|CONNECT| |  |\t|/|*|/f|?q|#|http://h|https://h|http://|@|:| HTTP/1.1| HTTP/1.0"
    b"|HTTP/2.0|\r\n|\r|\n|Host: h|Host:|Host: [::1]:80|Content-Length: 5|Content-Length: |5|\0|\xff|X: y"
    b"|Transfer-Encoding: chunked|Transfer-Encoding: gzip, chunked|chunked|,|Expect: 100-continue|Expect: x"
    b"|Connection: close|\r\nHost: h\r\n".split(b"|")
)
BLOCKS = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(PIECES, st.binary(max_size=2)), max_size=20).map(b"".join),
    st.lists(st.one_of(PIECES, st.binary(max_size=2)), max_size=6).map(lambda more: GET + b"".join(more)),
)


def refused(block: bytes, *, secure: bool = False) -> int | None:
    """The status that refuses this head; None where it is read."""
    try:
        parse_head(block, secure=secure)
    except MalformedRequest as error:
        return int(error.status)
    return None


def written(head: Head) -> bytes:
    """The head as bytes, in origin-form."""
    fields = b"".join(b"\r\n%s: %s" % field for field in head.fields)
    return b"%s %s HTTP/1.%d" % (head.method, head.target, head.minor) + fields


class HeadTests(SynchronousTestCase):
    """What is read."""

    def test_parts(self) -> None:
        """Method and target are as they came, names of fields in lower case, values without space around."""
        head = parse_head(b"pAtCh /a%20b?c=D HTTP/1.1\r\nHOST:\t h:80 \r\nX-Y: a \t b\r\nx-y:\r\nZ: \xff")
        self.assertEqual((head.method, head.target, head.minor), (b"pAtCh", b"/a%20b?c=D", 1))
        self.assertEqual((head.host, head.length), (b"h:80", 0))
        fields = [(b"host", b"h:80"), (b"x-y", b"a \t b"), (b"x-y", b""), (b"z", b"\xff")]
        self.assertEqual(list(head.fields), fields)
        self.assertEqual((list(head.all(b"x-y")), list(head.all(b"q"))), ([b"a \t b", b""], []))

    def test_what_is_remembered(self) -> None:
        """A short head is read once; one that is long, or holds a token, leaves nothing behind."""
        again = GET + b"\r\nX: again"
        self.assertIs(parse_head(again), parse_head(again))
        for more in (b"Authorization: Bearer t", b"aUTHORIZATION: Bearer t", b"X: " + b"x" * 1024):
            block = GET + b"\r\n" + more
            self.assertIsNot(parse_head(block), parse_head(block), more)
            self.assertEqual(parse_head(block), parse_head(block), more)

    def test_what_is_remembered_of_https(self) -> None:
        """What was read over TLS is not taken for what comes without."""
        block = b"GET https://h/ HTTP/1.1" + HOST
        parse_head(block, secure=True)
        self.assertEqual(refused(block), 421)

    def test_targets(self) -> None:
        """An absolute target becomes path and query, and names the host."""
        for target, path, host in (
            (b"/a?b", b"/a?b", b"h"),
            (b"//x/a", b"//x/a", b"h"),
            (b"http://H/a?b", b"/a?b", b"H"),
            (b"HTTP://h", b"/", b"h"),
            (b"http://h?b", b"/?b", b"h"),
            (b"http://h/http://x/", b"/http://x/", b"h"),
        ):
            head = parse_head(b"GET %s HTTP/1.1" % target + HOST)
            self.assertEqual((head.target, head.host), (path, host), target)
        self.assertEqual(parse_head(b"OPTIONS * HTTP/1.1" + HOST).target, b"*")
        self.assertIsNone(parse_head(b"GET / HTTP/1.0").host)
        self.assertEqual(parse_head(b"GET http://x/ HTTP/1.0").host, b"x")

    def test_https(self) -> None:
        """A target of https is read where the connection is encrypted, and one of http there as well."""
        for target in (b"https://h/a", b"HTTPS://h/a", b"http://h/a"):
            head = parse_head(b"GET %s HTTP/1.1" % target + HOST, secure=True)
            self.assertEqual((head.target, head.host), (b"/a", b"h"))
        self.assertEqual(refused(b"GET https://h/ HTTP/1.1" + HOST), HTTPStatus.MISDIRECTED_REQUEST)
        self.assertEqual(refused(b"GET https://x/ HTTP/1.1" + HOST, secure=True), 400)

    def test_minor_version(self) -> None:
        """Every HTTP/1 from 1.1 on is taken as 1.1."""
        for version, minor in ((b"1.0", 0), (b"1.1", 1), (b"1.2", 1), (b"1.9", 1)):
            self.assertEqual(parse_head(b"GET / HTTP/%s" % version + HOST).minor, minor)

    def test_length(self) -> None:
        """The body's length is that of Content-Length, none without one, unknown where it is chunked."""
        for field, length in (
            (b"X: 5", 0),
            (b"Content-Length: 0", 0),
            (b"Content-Length: 0012", 12),
            (b"Content-Length: " + b"9" * 18, 10**18 - 1),
            (b"Transfer-Encoding: Chunked", None),
        ):
            self.assertEqual(parse_head(GET + b"\r\n" + field).length, length, field)
        for digits in (19, 5000, 16000):
            huge = parse_head(GET + b"\r\nContent-Length: " + b"9" * digits).length
            self.assertGreaterEqual(huge or 0, 10**18, digits)

    def test_keeps_alive(self) -> None:
        """Only HTTP/1.1 keeps a connection, unless the client wants it closed."""
        for version, connection, kept in (
            (1, b"", True),
            (1, b"keep-alive", True),
            (1, b"closed", True),
            (1, b"close", False),
            (1, b" ,Keep-Alive , CLOSE,", False),
            (0, b"", False),
            (0, b"keep-alive", False),
        ):
            head = parse_head(b"GET / HTTP/1.%d" % version + HOST + b"\r\nConnection: " + connection)
            self.assertIs(head.keeps_alive, kept, connection)

    def test_expects_continue(self) -> None:
        """A client waits for 100 where it speaks HTTP/1.1, says so, and has a body."""
        for version, more, waits in (
            (1, b"Content-Length: 1\r\nExpect: 100-Continue", True),
            (1, b"Transfer-Encoding: chunked\r\nExpect: 100-continue", True),
            (1, b"Content-Length: 1", False),
            (1, b"Content-Length: 0\r\nExpect: 100-continue", False),
            (1, b"Expect: 100-continue", False),
            (0, b"Content-Length: 1\r\nExpect: 100-continue", False),
        ):
            head = parse_head(b"GET / HTTP/1.%d" % version + HOST + b"\r\n" + more)
            self.assertIs(head.expects_continue, waits, more)


class RefusalTests(SynchronousTestCase):
    """What is not read; the table of raw requests has many more."""

    def test_statuses(self) -> None:
        """Each kind of mistake has its status."""
        for block, status in (
            (b"", 400),
            (b"GET", 400),
            (b"GET / HTTP/1.1", 400),
            (b"GET * HTTP/1.1" + HOST, 400),
            (GET + HOST, 400),
            (GET + b"\r\n", 400),
            (GET + b"\r\n X: y", 400),
            (GET + b"\r\nX: y\r", 400),
            (GET + b"\r\nContent-Length: -1", 400),
            (GET + b"\r\nTransfer-Encoding: gzip", 400),
            (GET + b"\r\nTransfer-Encoding: gzip, chunked", 501),
            (b"CONNECT h:80 HTTP/1.1" + HOST, 501),
            (b"CONNECT / HTTP/1.1" + HOST, 501),
            (GET + b"\r\nExpect: x", 417),
            (b"GET / HTTP/2.0" + HOST, 505),
        ):
            self.assertEqual(refused(block), status, block)

    def test_limits(self) -> None:
        """As much as is allowed is read, one more of anything is not."""
        for size, status in ((MAX_LINE, None), (MAX_LINE + 1, 414)):
            line = b"GET /".ljust(size - 9, b"x") + b" HTTP/1.1"
            self.assertEqual((len(line), refused(line + HOST)), (size, status))
        for size, status in ((MAX_FIELDS_SIZE, None), (MAX_FIELDS_SIZE + 1, 431)):
            self.assertEqual(refused(b"GET / HTTP/1.1\r\n" + b"Host: h\r\nX: ".ljust(size, b"x")), status)
        for count, status in ((MAX_FIELDS, None), (MAX_FIELDS + 1, 431)):
            self.assertEqual(refused(GET + b"\r\nX: y" * (count - 1)), status)

    @settings(max_examples=500, deadline=None, database=None)
    @given(BLOCKS)
    @example(GET + b"\r\nContent-Length: \xb2")
    def test_any_bytes(self, block: bytes) -> None:
        """Any bytes are a head or a `MalformedRequest`; a head that is written again is read the same."""
        try:
            head = parse_head(block)
        except MalformedRequest as error:
            self.assertIn(error.status, (400, 414, 417, 421, 431, 501, 505))
            self.assertTrue(str(error).isascii())
            return
        again = parse_head(written(head))
        self.assertEqual((again.method, again.target, again.minor), (head.method, head.target, head.minor))
        self.assertEqual((again.fields, again.length), (head.fields, head.length))
        self.assertEqual((again.host or b"").lower(), (again.host and head.host or b"").lower())
        self.assertEqual(again.keeps_alive, head.keeps_alive)


class BeginningTests(SynchronousTestCase):
    """The beginning of a head, of which more is to come."""

    def refused(self, buffer: bytes) -> int | None:
        """The status that refuses it."""
        try:
            check_beginning(buffer)
        except MalformedRequest as error:
            return int(error.status)
        return None

    def test_can_become_a_head(self) -> None:
        """What can still become a head is waited for."""
        for buffer in (
            b"",
            b"\r",
            b"G",
            b"GET / HTTP/1.1\r",
            GET,
            GET + b"\r",
            GET + b"\r\n",
            GET + b"\r\n\r",
        ):
            self.assertIsNone(self.refused(buffer), buffer)
        self.assertIsNone(self.refused(b"x" * MAX_LINE + b"\r"))
        self.assertIsNone(self.refused(GET.ljust(MAX_HEAD - 1, b"x")))

    def test_cannot(self) -> None:
        """What cannot is refused at once: a lone CR or LF, a line or a head that is too long."""
        for buffer in (b"\n", b"G\n", b"\rG", GET + b"\nX", GET + b"\n\n", GET + b"\rX", GET + b"\r\r"):
            self.assertEqual(self.refused(buffer), 400, buffer)
        self.assertEqual(self.refused(b"x" * (MAX_LINE + 2)), 414)
        self.assertEqual(self.refused(GET.ljust(MAX_HEAD, b"x")), 431)

    def test_no_head_is_refused_early(self) -> None:
        """No beginning of the longest head that can be read is refused."""
        line = b"GET /".ljust(MAX_LINE - 9, b"x") + b" HTTP/1.1"
        head = line + b"\r\n" + b"Host: h\r\nX: ".ljust(MAX_FIELDS_SIZE, b"x") + b"\r\n\r\n"
        self.assertEqual(len(head), MAX_HEAD)
        self.assertIsNone(refused(head[:-4]))
        for end in (
            *range(0, MAX_HEAD, 97),
            *range(MAX_LINE - 3, MAX_LINE + 5),
            *range(MAX_HEAD - 6, MAX_HEAD),
        ):
            self.assertIsNone(self.refused(head[:end]), end)
