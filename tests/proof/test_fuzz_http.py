"""Random and half-valid bytes for everything that reads HTTP: typed errors only, answers that can be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.config import Anonymous
from fileexport.web.body import Chunked
from fileexport.web.head import MalformedRequest, check_beginning, parse_head
from fileexport.web.origin import Names, cross_site, host_is_allowed, host_name
from fileexport.web.ranges import FileState, Span, decide
from tests.http_client import NOW, HttpCase
from tests.raw_bodies import TABLE
from tests.raw_requests import GET

EXAMPLES = 20_000 if os.environ.get("FILEEXPORT_SOAK") else 2_000
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)

#: Short rows of the table, to be broken; and what breaks them.
RAW = [data for _, data, *_ in TABLE if len(data) < 400]
MEANINGFUL = st.sampled_from(
    b'\r\n|\r|\n| |\t|:|,|;|=|"|\\|\0|\xff|0|5|\r\n\r\n|0\r\n\r\n|HTTP/1.1|Host: localhost\r\n|chunked|close'
    b"|Content-Length: |Transfer-Encoding: |Expect: |Connection: |http://|https://|@|[::1]|HEAD|GET /f".split(
        b"|"
    )
)
BROKEN = st.builds(
    lambda data, at, length, more: data[:at] + more + data[at + length :],
    st.sampled_from(RAW),
    st.integers(0, 120),
    st.integers(0, 12),
    st.one_of(MEANINGFUL, st.binary(max_size=4)),
)
#: Fields of conditional requests and what is between them.
VALUES = st.one_of(
    st.lists(
        st.one_of(
            st.sampled_from(
                b'bytes=|bytes|=|-|0|1|9|99999999999999999999|,| ,|\t|W/|"|"x"|"e"|*|none=0-1|\xb2'
                b"|Fri, 15 Jan 2027 08:00:00 GMT|Friday, 15-Jan-27 08:00:00 GMT|Fri Jan 15 08:00:00 2027"
                b"|00|24:00:00|31|Feb".split(b"|")
            ),
            st.binary(max_size=3),
        ),
        max_size=8,
    ).map(b"".join),
    st.binary(max_size=40),
)
CONDITIONS = st.dictionaries(
    st.sampled_from(
        [b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"]
    ),
    st.lists(VALUES, min_size=1, max_size=2),
)
HOSTS = st.one_of(
    st.binary(max_size=30),
    st.lists(
        st.one_of(
            st.sampled_from(
                b"localhost|127.0.0.1|[|]|::1|:|80|65536|.|..|0x7f.1|%25|@|/|-|_|\xb2|1.2.3.4|ffff:|::".split(
                    b"|"
                )
            ),
            st.binary(max_size=2),
        ),
        max_size=6,
    ).map(b"".join),
)


def looked_up(fields: dict[bytes, list[bytes]]) -> Callable[[bytes], Sequence[bytes]]:
    """The fields as a request gives them: by name in any case."""
    return lambda name: fields.get(name.lower(), [])


class PureTests(SynchronousTestCase):
    """What reads bytes and does nothing else."""

    @fuzz
    @given(st.one_of(BROKEN, st.binary(max_size=300)), st.booleans())
    @example(b"GET http://[/ HTTP/1.1\r\nHost: [", False)
    def test_head(self, data: bytes, secure: bool) -> None:
        """A head, its beginning and its end are read or refused with a status, nothing else."""
        for read in (check_beginning, lambda block: parse_head(block, secure=secure)):
            for block in (data, data.partition(b"\r\n\r\n")[0]):
                try:
                    read(block)
                except MalformedRequest as error:
                    self.assertIn(error.status, (400, 414, 417, 421, 431, 501, 505))

    @fuzz
    @given(
        st.lists(
            st.one_of(MEANINGFUL, BROKEN.map(lambda data: data[-40:]), st.binary(max_size=3)), max_size=20
        ).map(b"".join),
        st.integers(1, 40),
    )
    def test_chunked(self, data: bytes, step: int) -> None:
        """A chunked body is read or refused, gives no more than came, and nothing beside what is kept."""
        body, content = Chunked(), 0
        try:
            for at in range(0, len(data), step):
                if body.done:
                    break
                content += len(body.feed(data[at : at + step]))
        except MalformedRequest as error:
            self.assertEqual(error.status, 400)
        self.assertLessEqual(content + len(body.rest), len(data))

    @fuzz
    @given(
        st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS"]),
        CONDITIONS,
        st.sampled_from([0, 1, 10, 10**12]),
        st.one_of(st.just(int(NOW) * 10**9), st.integers(-(2**63), 2**63 - 1)),
    )
    def test_ranges(self, method: bytes, fields: dict[bytes, list[bytes]], size: int, mtime_ns: int) -> None:
        """Conditions and ranges in any bytes are a plan, whose parts lie in the file and add up."""
        state = FileState(size, mtime_ns, b'"e"')
        plan = decide(method, looked_up(fields), state, content_type=b"text/plain", now=NOW, boundary=b"b")
        self.assertIn(plan.status, (200, 206, 304, 412, 416))
        for part in plan.parts:
            if isinstance(part, Span):
                self.assertTrue(0 <= part.start < part.stop <= size, part)
        lengths = [part.stop - part.start if isinstance(part, Span) else len(part) for part in plan.parts]
        if method == b"GET":
            self.assertEqual(sum(lengths), plan.length)
        for name, value in plan.headers:
            self.assertNotRegex(name + value, b"[\r\n\0]")

    @fuzz
    @given(HOSTS, st.lists(HOSTS.map(lambda host: b"http://" + host), max_size=2), st.booleans())
    @example(b"[::%eth0]", [], False)
    @example(b"localhost:" + b"9" * 5000, [b"http://localhost:" + b"9" * 5000], False)
    def test_host_and_origin(self, host: bytes, origins: list[bytes], secure: bool) -> None:
        """A Host is a name in lower case or nothing, and only one that is ours or an address may reach us."""
        names = Names(frozenset({"localhost"}))
        name = host_name(host)
        if name is None:
            self.assertFalse(host_is_allowed(host, names))
        else:
            self.assertEqual(name, name.lower())
            self.assertRegex(name, r"\A[0-9a-z_.:-]+\Z")
        reason = cross_site(
            b"POST", looked_up({b"host": [host], b"origin": origins}), secure=secure, names=names
        )
        if origins and reason is None:
            # Scheme and authority are those of this very connection.
            self.assertEqual((len(origins), secure), (1, False))
            same = host.lower().removesuffix(b":80")
            self.assertEqual(origins[0].lower().removesuffix(b":80"), b"http://" + same)


class SiteTests(HttpCase):
    """The whole HTTP side, in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.write("f", b"a small file")
        self.web = self.harness(anonymous=Anonymous.READ)

    @fuzz
    @given(BROKEN, st.integers(1, 200))
    def test_connection(self, data: bytes, cut: int) -> None:
        """Broken requests, in two pieces, are answered by as many whole answers as are recorded."""
        connection = self.web.connect()
        connection.send(data[:cut], data[cut:])
        recorded, self.web.recorded = self.web.recorded, []
        for number, (method, _, status) in enumerate(recorded):
            answer = connection.receive(head=method == "HEAD")
            self.assertEqual(answer.status, status)
            self.assertNotEqual(answer.status, 500)
            closes = answer.fields("Connection") == ["close"]
            self.assertEqual(closes, number == len(recorded) - 1 and connection.wire.disconnecting)
        self.assertEqual(connection.wire.value(), b"")
        self.assertEqual((self.root / "f").read_bytes(), b"a small file")
        connection.lose()

    def test_still_there(self) -> None:
        """And a good request is answered as ever."""
        self.assertEqual(self.web.raw(GET)[:15], b"HTTP/1.1 200 OK")
