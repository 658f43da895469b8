"""HTML forms as they are sent: multipart with files, read while it arrives, and urlencoded ones, read whole.

Pure. Names and values are `str` with surrogate escapes, so that every byte that a form can hold passes. All
is bounded before it is kept, but the content of files: that is passed on as it comes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

from fileexport.errors import BadRequestError
from fileexport.web.failures import HttpError

# Imported where it is used: a start does not wait for it, and most daemons never see a form.
if TYPE_CHECKING:
    from multipart import MultipartError, MultipartSegment

#: Files in one form, bytes of all their names, and bytes of one part's header line: a path fits in it.
MAX_FILES = 10_000
MAX_NAMES = 4 << 20
MAX_LINE = 8 << 10
#: Fields of a form with files that are no files, and bytes of all their names and values.
MAX_FIELDS, MAX_FIELD_BYTES = 64, 64 << 10
#: Bytes of a form without files, and its fields: so many entries can be selected.
MAX_BODY = 2 << 20
MAX_SELECTED = 10_000

#: As RFC 2046 has it, section 5.1.1.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
#: A name by RFC 8187, as some programs send it, against RFC 7578.
_EXTENDED_NAME = re.compile(r";\s*filename\*\s*=\s*utf-8'[A-Za-z0-9-]*'([^\s;\"]+)", re.IGNORECASE)
_LINE_END = re.compile(r"[\r\n]")
_URLENCODED = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"


class Field(NamedTuple):
    """A field that is no file."""

    name: str
    value: str


class FileBegins(NamedTuple):
    """A file of the field `name`; its content follows as `bytes`, then `FileEnds`."""

    name: str
    filename: str


class FileEnds(NamedTuple):
    """The file that began last is complete."""


Event = Field | FileBegins | bytes | FileEnds


class Form:
    """The fields of a form without files, in their order; a name may be there several times."""

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        self._fields = fields

    def all(self, name: str) -> list[str]:
        """Every value of a name."""
        return [value for field, value in self._fields if field == name]

    def one(self, name: str) -> str | None:
        """The value of a name; None where it is empty or not there: an input that nobody filled in.

        Raises `BadRequestError` for a name with several.
        """
        values = [value for value in self.all(name) if value]
        if len(values) > 1:
            raise BadRequestError(f"the field {name} is given twice")
        return values[0] if values else None


class Multipart:
    """Reads one multipart/form-data body, as it arrives."""

    def __init__(
        self, boundary: str, *, max_fields: int = MAX_FIELDS, max_field_bytes: int = MAX_FIELD_BYTES
    ) -> None:
        from multipart import PushMultipartParser

        # As bytes that stand for themselves: the names of files need not be UTF-8.
        self._parser = PushMultipartParser(
            boundary.encode("latin-1"),
            max_header_size=MAX_LINE,
            max_segment_count=MAX_FILES + max_fields,
            header_charset="latin-1",
        )
        self._fields_left, self._field_bytes_left = max_fields, max_field_bytes
        self._files_left, self._names_left = MAX_FILES, MAX_NAMES
        #: How a form begins, and what came until it could be compared; None from then on.
        self._opening = b"--" + boundary.encode("latin-1")
        self._beginning: bytes | None = b""
        #: The part that is being read, and of a field what came of its value. Content without a file's name
        #: is only allowed to be empty: so browsers send an input where no file was chosen.
        self._part: Field | FileBegins | None = None
        self._value = bytearray()

    def feed(self, data: bytes) -> Iterator[Event]:
        """What more there is in the form; all of it has to be taken before more is fed.

        Raises `BadRequestError` for what is no such form, `HttpError` (413) for more than a form may hold;
        nothing can be fed then.
        """
        from multipart import MultipartError, MultipartSegment

        if self._parser.closed:
            raise BadRequestError("the form goes on after its error")
        data = self._checked(data)
        try:
            for found in self._parser.parse(data) if data else ():
                if isinstance(found, MultipartSegment):
                    yield from self._begin(found)
                elif found is None:
                    yield from self._end()
                else:
                    yield from self._content(bytes(found))
        except MultipartError as error:
            raise _failure(error) from None

    def close(self) -> None:
        """Say that nothing more comes. Raises `BadRequestError` where the form is not complete."""
        from multipart import MultipartError

        try:
            self._parser.close()
        except MultipartError:
            raise BadRequestError("the form is not complete: send it again") from None

    def _checked(self, data: bytes) -> bytes:
        """What came, once it begins as a form does: what the parser skips there depends on the pieces."""
        if self._beginning is None:
            return data
        self._beginning += data
        begun = self._beginning.removeprefix(b"\r\n")
        if len(begun) < len(self._opening) and (self._opening.startswith(begun) or begun == b"\r"):
            return b""
        self._beginning = None
        if not begun.startswith(self._opening):
            self._parser.close(check_complete=False)
            raise _unreadable()
        return begun

    def _begin(self, segment: MultipartSegment) -> Iterator[Event]:
        name, filename = _text(segment.name or ""), segment.filename
        if any(_LINE_END.search(value) for _, value in segment.headerlist):
            raise _unreadable()
        header = segment.header("Content-Disposition", "")
        if filename is None and (extended := _EXTENDED_NAME.search(header)):
            self._begin_file(name, os.fsdecode(unquote_to_bytes(extended[1])))
        elif filename is None:
            self._begin_field(name)
        else:
            self._begin_file(name, _text(filename))
        if isinstance(self._part, FileBegins) and self._part.filename:
            yield self._part

    def _begin_file(self, name: str, filename: str) -> None:
        self._files_left -= 1
        self._names_left -= len(filename)
        if self._files_left < 0:
            raise _too_large(f"a form has {MAX_FILES} files at most")
        if self._names_left < 0:
            raise _too_large("the names of the form's files are too long all together")
        self._part = FileBegins(name, filename)

    def _begin_field(self, name: str) -> None:
        self._fields_left -= 1
        self._count_field(len(name))
        self._part = Field(name, "")
        self._value.clear()

    def _count_field(self, size: int) -> None:
        self._field_bytes_left -= size
        if self._fields_left < 0 or self._field_bytes_left < 0:
            raise _too_large("the form's fields are too many or too long")

    def _content(self, data: bytes) -> Iterator[Event]:
        if isinstance(self._part, Field):
            self._count_field(len(data))
            self._value += data
        elif self._part is not None and not self._part.filename:
            raise BadRequestError("a file in the form has no name")
        else:
            yield data

    def _end(self) -> Iterator[Event]:
        part, self._part = self._part, None
        if isinstance(part, Field):
            yield part._replace(value=os.fsdecode(bytes(self._value)))
        elif part is not None and part.filename:
            yield FileEnds()


def boundary_of(lines: Sequence[bytes]) -> str:
    """The boundary that a Content-Type gives. Raises `HttpError` (415) where it is no multipart form."""
    kind, options = _content_type(lines)
    if kind != _MULTIPART:
        raise _no_form(_MULTIPART)
    return _boundary(options)


def is_form(lines: Sequence[bytes]) -> bool:
    """Whether a Content-Type is one that `form_of` reads."""
    return _content_type(lines)[0] in (_URLENCODED, _MULTIPART)


def form_of(lines: Sequence[bytes], body: bytes) -> Form:
    """A whole form without files, by its Content-Type.

    Raises `HttpError` for another type (415) and for too many fields (413), `BadRequestError`.
    """
    kind, options = _content_type(lines)
    if kind == _URLENCODED:
        return Form(_urlencoded(body))
    if kind != _MULTIPART:
        raise _no_form(f"{_URLENCODED} or {_MULTIPART}")
    fields = []
    parser = Multipart(_boundary(options), max_fields=MAX_SELECTED + MAX_FIELDS, max_field_bytes=MAX_BODY)
    for event in parser.feed(body):
        if isinstance(event, FileBegins):
            raise BadRequestError("this form takes no file")
        if isinstance(event, Field):
            fields.append((event.name, event.value))
    parser.close()
    return Form(fields)


def _urlencoded(body: bytes) -> list[tuple[str, str]]:
    pairs = [pair.partition(b"=")[::2] for pair in body.strip(b"\r\n").split(b"&") if pair]
    if len(pairs) > MAX_SELECTED + MAX_FIELDS:
        raise _too_large(f"a form has {MAX_SELECTED} entries at most")
    return [(_decoded(name), _decoded(value)) for name, value in pairs]


def _decoded(part: bytes) -> str:
    return os.fsdecode(unquote_to_bytes(part.replace(b"+", b" ")))


def _content_type(lines: Sequence[bytes]) -> tuple[str, dict[str, str]]:
    from multipart import parse_options_header

    if len(lines) != 1:
        return "", {}
    kind, options = parse_options_header(lines[0].decode("latin-1"))
    return kind, options


def _boundary(options: dict[str, str]) -> str:
    boundary = options.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise BadRequestError("the form names no boundary that can be one")
    return boundary


def _text(name: str) -> str:
    """A name of a part's header, which was decoded byte by byte."""
    return os.fsdecode(name.encode("latin-1"))


def _failure(error: MultipartError) -> Exception:
    from multipart import ParserLimitReached

    if isinstance(error, ParserLimitReached):
        return _too_large("the form has too many parts, or a header that is too long")
    return _unreadable()


def _unreadable() -> BadRequestError:
    return BadRequestError("the body is no form that can be read")


def _too_large(sentence: str) -> HttpError:
    return HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)


def _no_form(kinds: str) -> HttpError:
    return HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"this takes a form: {kinds}")
