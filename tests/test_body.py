"""Bodies of requests: found in whatever pieces they come, refused where two parsers may disagree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.web.body import MAX_CHUNK_LINE, MAX_TRAILER, Body, Chunked, Sized
from fileexport.web.head import MalformedRequest

quick = settings(max_examples=300, deadline=None, database=None)

#: What can stand in a chunked body, good and bad: chance alone would seldom find it.
PIECES = st.sampled_from(
    b'0|1|5|a|F|00|ffffffffffffffff|0x5|+1|;|;a|=|b|"|\\|"q"| |\t|\r\n|\r|\n|hello|x|0\r\n|\r\n\r\n|0\r\n\r\n'
    b"|5\r\nhello\r\n|1\r\nx\r\n|X: y\r\n|X:|:|\0|\xff|GET / HTTP/1.1\r\n".split(b"|")
)
BODIES = st.one_of(
    st.binary(max_size=60), st.lists(st.one_of(PIECES, st.binary(max_size=2)), max_size=25).map(b"".join)
)


def outcome(body: Body, pieces: Iterable[bytes]) -> tuple[bytes, bytes, bool, str]:
    """Content, rest, whether the body ended, and the error; all that is fed after the end is rest."""
    content, rest, error = [], b"", ""
    for piece in pieces:
        if body.done or error:
            rest += piece
            continue
        try:
            content.append(body.feed(piece))
        except MalformedRequest as problem:
            error = str(problem)
    # What lies behind an error belongs to nobody.
    return b"".join(content), b"" if error else body.rest + rest, body.done, error


def byte_by_byte(data: bytes) -> Sequence[bytes]:
    """Pieces of one byte."""
    return [data[at : at + 1] for at in range(len(data))]


def encoded(chunks: Sequence[bytes], extension: bytes, trailer: bytes) -> bytes:
    """A chunked body; empty chunks are left out, since one would end it."""
    lines = [b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks if chunk]
    return b"".join(lines) + b"0" + extension + b"\r\n" + trailer + b"\r\n"


class SizedTests(SynchronousTestCase):
    """Bodies of a known length."""

    def test_empty(self) -> None:
        """A body without bytes has ended before anything comes."""
        body = Sized(0)
        self.assertEqual((body.done, body.rest), (True, b""))

    @quick
    @given(st.binary(max_size=50), st.integers(1, 50), st.lists(st.integers(0, 50), max_size=5))
    def test_pieces(self, data: bytes, length: int, cuts: list[int]) -> None:
        """However it comes, the content is the first bytes, and the others are the rest."""
        content, rest, done, error = outcome(Sized(length), pieces_of(data, cuts))
        self.assertEqual((content, rest, done), (data[:length], data[length:], len(data) >= length))
        self.assertEqual(error, "")


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in zip(places, places[1:], strict=False)]


class ChunkedTests(SynchronousTestCase):
    """Chunked bodies; the table of raw requests has every rule of their grammar."""

    @quick
    @given(
        st.lists(st.binary(max_size=40), max_size=6),
        st.sampled_from([b"", b";a", b' ; a = "b;\\"" ;c=d']),
        st.sampled_from([b"", b"X: y\r\n", b"X:\r\nContent-Length: 9\r\n"]),
        st.binary(max_size=20),
        st.lists(st.integers(0, 300), max_size=8),
    )
    def test_content(
        self, chunks: list[bytes], extension: bytes, trailer: bytes, rest: bytes, cuts: list[int]
    ) -> None:
        """However it is cut, the content is that of the chunks, and what stands behind it is the rest."""
        data = encoded(chunks, extension, trailer) + rest
        for pieces in ([data], byte_by_byte(data), pieces_of(data, cuts)):
            self.assertEqual(outcome(Chunked(), pieces), (b"".join(chunks), rest, True, ""))

    @quick
    @given(BODIES, st.lists(st.integers(0, 300), max_size=8))
    def test_any_bytes(self, data: bytes, cuts: list[int]) -> None:
        """Any bytes are content or a `MalformedRequest`, and how they are cut makes no difference."""
        whole = outcome(Chunked(), [data])
        self.assertEqual(outcome(Chunked(), byte_by_byte(data))[1:], whole[1:])
        self.assertEqual(outcome(Chunked(), pieces_of(data, cuts))[1:], whole[1:])
        if not whole[3]:
            # Before an error, the content that came earlier has been given away already.
            self.assertEqual(outcome(Chunked(), byte_by_byte(data))[0], whole[0])

    def test_content_before_its_chunk_ends(self) -> None:
        """Content is given as it comes, so that nothing of it is kept."""
        body = Chunked()
        self.assertEqual(body.feed(b"ffffffffffff\r\n"), b"")
        for _ in range(100):
            self.assertEqual(body.feed(b"x" * 1000), b"x" * 1000)
        self.assertFalse(body.done)

    def test_limits(self) -> None:
        """A size line and trailers may be as long as is said, and not a byte longer."""
        for over in (0, 1):
            line = b"1;".ljust(MAX_CHUNK_LINE - 2 + over, b"x") + b"\r\n"
            trailer = b"X:".ljust(1000, b"x") + b"\r\n"
            last = b"X:".ljust(MAX_TRAILER - 4 * 1002 - 4 + over, b"x") + b"\r\n"
            for data in (line + b"x\r\n0\r\n\r\n", b"0\r\n" + trailer * 4 + last + b"\r\n"):
                for pieces in ([data], byte_by_byte(data)):
                    _, _, done, error = outcome(Chunked(), pieces)
                    self.assertEqual((done, "too long" in error), (not over, bool(over)))

    def test_lines_without_end(self) -> None:
        """A line that does not end is refused when it is too long, without waiting for its end."""
        for data, limit in (
            (b"1;" + b"x" * 9999, MAX_CHUNK_LINE),
            (b"0\r\nX:" + b"x" * 9999, MAX_TRAILER + 3),
        ):
            body = Chunked()
            body.feed(data[: limit - 1])
            with self.assertRaises(MalformedRequest):
                body.feed(data[limit - 1 : limit])

    def test_work(self) -> None:
        """No byte is handled again and again: beside what comes, only a line that is not complete is kept."""
        data = encoded([b"x"] * 400, b";" + b"e" * 200, b"X: y\r\n" * 600)
        body = Chunked()
        _Byte.joined = 0
        for at in range(len(data)):
            body.feed(_Byte(data[at : at + 1]))
        self.assertTrue(body.done)
        self.assertLess(_Byte.joined, len(data) * MAX_CHUNK_LINE)
        self.assertGreater(_Byte.joined, len(data), "nothing was counted")


class _Byte(bytes):
    """One byte; all of them count to how many bytes they were appended."""

    joined = 0

    def __radd__(self, kept: bytes) -> bytes:
        _Byte.joined += len(kept)
        return bytes.__add__(kept, self)
