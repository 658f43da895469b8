"""Forms as they are sent: multipart in any pieces, urlencoded, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from urllib.parse import quote_from_bytes

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import BadRequestError, FileExportError
from fileexport.web import forms
from fileexport.web.failures import HttpError
from fileexport.web.forms import (
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    Event,
    Field,
    FileBegins,
    FileEnds,
    Form,
    Multipart,
    boundary_of,
    form_of,
    is_form,
)

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
URLENCODED = (b"application/x-www-form-urlencoded",)
MULTIPART = (b"multipart/form-data; boundary=" + BOUNDARY.encode(),)


def part(disposition: bytes, content: bytes = b"", *more: bytes) -> bytes:
    """One part, its delimiter before it."""
    lines = (
        b"--" + BOUNDARY.encode(),
        b"Content-Disposition: form-data; " + disposition,
        *more,
        b"",
        content,
    )
    return b"\r\n".join(lines) + b"\r\n"


def whole(*parts: bytes) -> bytes:
    """A form of these parts."""
    return b"".join(parts) + b"--" + BOUNDARY.encode() + b"--\r\n"


def read(pieces: Iterable[bytes]) -> list[Event]:
    """The events of a form, pieces of content that follow each other as one."""
    parser = Multipart(BOUNDARY)
    found: list[Event] = []
    for piece in pieces:
        for event in parser.feed(piece):
            if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
                found[-1] += event
            else:
                found.append(event)
    parser.close()
    return found


#: What browsers and curl send: fields, files with any content, an input where no file was chosen.
CONTENT = b"\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n--\r\n\r\r\n" + bytes(range(256))
BODY = whole(
    part(b'name="conflict"', b"rename"),
    part(b'name="file"; filename="a b.txt"', b"hello", b"Content-Type: text/plain"),
    part(b'name="file"; filename=""', b"", b"Content-Type: application/octet-stream"),
    part(b'name="file"; filename="d/\xc3\xa9\xff%22%0D.bin"', CONTENT),
    part(b'name="file"; filename="empty"'),
)
EVENTS: list[Event] = [
    Field("conflict", "rename"),
    FileBegins("file", "a b.txt"),
    b"hello",
    FileEnds(),
    FileBegins("file", 'd/é\udcff"\r.bin'),
    CONTENT,
    FileEnds(),
    FileBegins("file", "empty"),
    FileEnds(),
]


class MultipartTests(SynchronousTestCase):
    """Forms with files."""

    def test_in_any_pieces(self) -> None:
        """A form is the same whole, byte by byte, and in pieces of any size."""
        self.assertEqual(read([BODY]), EVENTS)
        self.assertEqual(read(BODY[at : at + 1] for at in range(len(BODY))), EVENTS)
        for seed in range(50):
            chance, pieces, at = random.Random(seed), [], 0
            while at < len(BODY):
                size = chance.randint(1, 100)
                pieces.append(BODY[at : at + size])
                at += size
            self.assertEqual(read(pieces), EVENTS, seed)

    def test_content_is_passed_on(self) -> None:
        """Content leaves as it comes: nothing more than a delimiter is held back."""
        parser = Multipart(BOUNDARY)
        list(parser.feed(part(b'name="f"; filename="n"')[:-2]))
        for _ in range(100):
            passed = sum(len(event) for event in parser.feed(bytes(1 << 16)) if isinstance(event, bytes))
            self.assertEqual(passed, 1 << 16)

    def test_truncated(self) -> None:
        """A form that ends anywhere before its end is refused, and its last file never ends."""
        for length in range(len(BODY) - 4):
            parser = Multipart(BOUNDARY)
            events = list(parser.feed(BODY[:length]))
            begun = sum(isinstance(event, FileBegins) for event in events)
            ended = sum(isinstance(event, FileEnds) for event in events)
            self.assertIn(begun - ended, (0, 1))
            with self.assertRaises(BadRequestError):
                parser.close()

    def test_names_of_other_programs(self) -> None:
        """Names in quotes with backslashes, without quotes, and by RFC 8187 are read."""
        for disposition, name in (
            (b'name="f"; filename="a\\"b"', 'a"b'),
            (b"name=f; filename=plain.txt", "plain.txt"),
            (b"name=\"f\"; filename*=UTF-8''%C3%A9%20x", "é x"),
            (b'name="f"; filename="e"; filename*=utf-8\'en\'%C3%A9', "e"),
            (b'name="f"; filename="C:\\dir\\a.txt"', "a.txt"),
        ):
            self.assertEqual(read([whole(part(disposition, b"x"))])[0], FileBegins("f", name), disposition)

    def test_nothing_sent(self) -> None:
        """A form without parts is one without events, and a body of nothing is none."""
        self.assertEqual(read([whole()]), [])
        with self.assertRaises(BadRequestError):
            read([])

    def test_malformed(self) -> None:
        """What is no form is refused."""
        end = whole()
        for body in (
            b"hello",
            b"x" + BODY,
            b"--" + BOUNDARY.encode() + b"\n\n" + end,
            b"--" + BOUNDARY.encode() + b"\r\nContent-Type: text/plain\r\n\r\nx\r\n" + end,
            b"--" + BOUNDARY.encode() + b"\r\nContent-Disposition: attachment; name=x\r\n\r\nx\r\n" + end,
            b"--" + BOUNDARY.encode() + b"\r\nno colon\r\n\r\nx\r\n" + end,
            whole(part(b'name="a"; filename=""', b"content")),
            whole(part(b'name="a"\nX: y', b"content")),
            whole(part(b'name="a"', b"content", b"X: \ry")),
            whole(part(b'name="a"; filename="b"', b"12345", b"Content-Length: 4")),
        ):
            with self.assertRaises(BadRequestError, msg=body):
                read([body])

    def test_feeding_after_an_error(self) -> None:
        """After an error nothing more is read."""
        parser = Multipart(BOUNDARY)
        with self.assertRaises(BadRequestError):
            list(parser.feed(b"x" + BODY))
        with self.assertRaises(BadRequestError):
            list(parser.feed(BODY))

    @given(
        st.lists(st.binary(max_size=80) | st.sampled_from([BODY, BODY[:70], b"\r\n--" + BOUNDARY.encode()]))
    )
    @settings(max_examples=300, deadline=None)
    def test_anything(self, pieces: list[bytes]) -> None:
        """Whatever comes is events or an error of ours, and files end in their order."""
        parser = Multipart(BOUNDARY)
        is_open = False
        try:
            for piece in pieces:
                for event in parser.feed(piece):
                    if isinstance(event, FileBegins | FileEnds):
                        self.assertIs(is_open, isinstance(event, FileEnds))
                        is_open = not is_open
                    elif isinstance(event, bytes):
                        self.assertTrue(is_open and event)
        except FileExportError:
            pass


class BoundsTests(SynchronousTestCase):
    """What a form may hold."""

    def assertTooLarge(self, body: bytes) -> None:
        """The form is refused by 413, whole and in pieces."""
        for size in (len(body), 1000):
            with self.assertRaises(HttpError) as caught:
                read(body[at : at + size] for at in range(0, len(body), size))
            self.assertEqual(caught.exception.status, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def test_fields(self) -> None:
        """Fields are few, and short all together."""
        field = part(b'name="a"', b"b")
        self.assertEqual(len(read([whole(*[field] * MAX_FIELDS)])), MAX_FIELDS)
        self.assertTooLarge(whole(*[field] * (MAX_FIELDS + 1)))
        self.assertEqual(len(read([whole(part(b'name="a"', bytes(MAX_FIELD_BYTES - 1)))])), 1)
        self.assertTooLarge(whole(part(b'name="a"', bytes(MAX_FIELD_BYTES))))

    def test_files(self) -> None:
        """There is a number of files that is enough, and one of bytes of their names."""
        self.patch(forms, "MAX_FILES", 3)
        file = part(b'name="a"; filename="b"')
        self.assertEqual(len(read([whole(*[file] * 3)])), 6)
        self.assertTooLarge(whole(*[file] * 4))
        self.patch(forms, "MAX_NAMES", 2)
        self.assertTooLarge(whole(*[file] * 3))

    def test_headers(self) -> None:
        """A header is a line of a path's length, and a part has few of them."""
        name = b"d/" * 2047
        self.assertEqual(len(read([whole(part(b'name="a"; filename="%s"' % name))])), 2)
        self.assertTooLarge(whole(part(b'name="a"; filename="%s"' % (b"x" * forms.MAX_LINE))))
        self.assertTooLarge(whole(part(b'name="a"', b"", *[b"X-More: 1"] * 20)))

    def test_around_the_form(self) -> None:
        """Nothing stands before the form but an empty line; what comes behind it means nothing."""
        more = b"\r\nepilogue" + part(b'name="f"; filename="late"')
        for body in (b"\r\n" + BODY + more, BODY + b"\r\n"):
            for size in (1, 50, len(body)):
                self.assertEqual(read(body[at : at + size] for at in range(0, len(body), size)), EVENTS)
        for body in (b"preamble\r\n" + BODY, b"\n" + BODY, b"\r\n\r\n" + BODY, b"\r" + BODY):
            for size in (1, 50, len(body)):
                with self.assertRaises(BadRequestError):
                    read(body[at : at + size] for at in range(0, len(body), size))


class BoundaryTests(SynchronousTestCase):
    """The Content-Type of a form."""

    def test_boundaries(self) -> None:
        """A boundary may be quoted, and its type in any case."""
        self.assertEqual(boundary_of(MULTIPART), BOUNDARY)
        self.assertEqual(boundary_of((b'Multipart/Form-Data; charset=utf-8; boundary="a b"',)), "a b")

    def test_no_form(self) -> None:
        """Every other type is 415, and so is none, or two."""
        types: tuple[Sequence[bytes], ...] = ((), (b"text/plain",), URLENCODED, (*MULTIPART, *MULTIPART))
        for lines in types:
            with self.assertRaises(HttpError) as caught:
                boundary_of(lines)
            self.assertEqual(caught.exception.status, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)

    def test_no_boundary(self) -> None:
        """A form without a boundary, or with one that cannot be, is refused."""
        for value in (
            b"",
            b"; boundary=",
            b'; boundary=""',
            b"; boundary=" + b"x" * 71,
            b'; boundary="a\xe9"',
        ):
            with self.assertRaises(BadRequestError, msg=value):
                boundary_of((b"multipart/form-data" + value,))


class WholeFormTests(SynchronousTestCase):
    """Forms without files."""

    def test_urlencoded(self) -> None:
        """Names and values are decoded once, repeated names stay, and every byte passes."""
        every = quote_from_bytes(bytes(range(256))).encode()
        form = form_of(URLENCODED, b"entry=a%2520b&entry=c+d&&name=&alone&x=" + every + b"\r\n")
        self.assertEqual(form.all("entry"), ["a%20b", "c d"])
        self.assertEqual(form.all("x"), [bytes(range(256)).decode("utf-8", "surrogateescape")])
        self.assertEqual([form.one(name) for name in ("name", "alone", "missing")], [None] * 3)

    def test_multipart(self) -> None:
        """The same fields may come as multipart."""
        form = form_of(MULTIPART, whole(part(b'name="entry"', b"a"), part(b'name="entry"', b"\xff")))
        self.assertEqual(form.all("entry"), ["a", "\udcff"])

    def test_files_are_refused(self) -> None:
        """A form that takes no file refuses one."""
        with self.assertRaises(BadRequestError):
            form_of(MULTIPART, BODY)

    def test_one(self) -> None:
        """A field that is meant once is refused twice; an empty one counts as none."""
        form = Form([("a", "1"), ("a", ""), ("b", "1"), ("b", "2")])
        self.assertEqual(form.one("a"), "1")
        with self.assertRaises(BadRequestError):
            form.one("b")

    def test_many(self) -> None:
        """Ten thousand entries fit, more than that do not."""
        self.assertEqual(len(form_of(URLENCODED, b"&".join([b"entry=a"] * 10_000)).all("entry")), 10_000)
        self.assertEqual(
            len(form_of(MULTIPART, whole(*[part(b'name="entry"', b"a")] * 10_000)).all("entry")), 10_000
        )
        for lines, body in (
            (URLENCODED, b"&".join([b"entry=a"] * 11_000)),
            (MULTIPART, whole(*[part(b'name="entry"', b"a")] * 11_000)),
        ):
            with self.assertRaises(HttpError) as caught:
                form_of(lines, body)
            self.assertEqual(caught.exception.status, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def test_other_types(self) -> None:
        """JSON is no form."""
        self.assertTrue(is_form(URLENCODED) and is_form(MULTIPART))
        self.assertFalse(is_form((b"application/json",)))
        with self.assertRaises(HttpError):
            form_of((b"application/json",), b"{}")
