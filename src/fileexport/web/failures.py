"""What a client reads when something fails: one line of text, a page, or problem+json (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

import msgspec

from fileexport.errors import FileExportError, OverloadedError, QueueFull, row_for, sentence_for
from fileexport.web import pages
from fileexport.web.head import MalformedRequest
from fileexport.web.origin import from_browser
from fileexport.web.request import METHODS, Header, Request
from fileexport.web.sign_in import from_elsewhere, sign_in_page, way_back

#: Characters of a reason phrase: the rest of the sentence is in the body.
_MAX_REASON = 512


#: Too much to do passes: the errors after which a client may come again, and the seconds until then.
_PASSING = (OverloadedError, QueueFull)
_RETRY_AFTER: Header = (b"Retry-After", b"10")


class HttpError(FileExportError):
    """An answer that only HTTP knows: a status, a sentence, and header fields."""

    def __init__(self, status: HTTPStatus, sentence: str, headers: Iterable[Header] = ()) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = tuple(headers)


@contextmanager
def through_directories() -> Iterator[None]:
    """Raise 409 where a part of a path before its name is no directory."""
    try:
        yield
    except NotADirectoryError:
        sentence = "a part of the path before the name is a file"
        raise HttpError(HTTPStatus.CONFLICT, sentence) from None


def no_method(method: bytes, allow: Iterable[bytes]) -> HttpError:
    """What a method is answered that a path does not have (RFC 9110, section 9.1)."""
    headers = ((b"Allow", b", ".join(allow)),)
    if method in METHODS:
        return HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "this path does not have that method", headers)
    return HttpError(HTTPStatus.NOT_IMPLEMENTED, "that method is not known here", headers)


def fail(
    request: Request,
    error: BaseException,
    *,
    plain: bool,
    prefix: str,
    always: tuple[Header, ...] = (),
) -> None:
    """Answer with an error. `plain` routes speak text to whoever names no other type.

    `always` are the fields of all answers of this route.
    """
    headers: tuple[Header, ...] = ()
    if isinstance(error, HttpError):
        status, sentence, headers = error.status, str(error), error.headers
    elif isinstance(error, MalformedRequest):
        status, sentence = error.status, str(error)
    else:
        row = row_for(error)
        status, sentence = row.http, sentence_for(error)
        headers = (_RETRY_AFTER,) if row.kind in _PASSING else ()
    if status is HTTPStatus.UNAUTHORIZED and from_browser(request.fields):
        # To another challenge than Bearer a browser opens a window of its own, over the page and for good.
        headers = tuple(field for field in headers if field[0] != b"WWW-Authenticate" or b" " not in field[1])
    headers = ((b"Cache-Control", b"no-store"), (b"Vary", b"Accept"), *always, *headers)
    if request.accepts(b"json"):
        problem = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": sentence}
        request.answer(status, msgspec.json.encode(problem), b"application/problem+json", headers)
    elif (request.accepts(b"text/html") or not plain) and (page := _page(request, status, sentence, prefix)):
        request.answer(status, page, b"text/html; charset=utf-8", (*pages.PAGE_POLICY, *headers))
    else:
        line = f"ERROR - {sentence}".replace("\r", " ").replace("\n", " ")
        text = line.encode("utf-8", "replace")
        request.answer(status, text, b"text/plain; charset=utf-8", headers, reason=_reason(line))


def _page(request: Request, status: HTTPStatus, sentence: str, prefix: str) -> bytes | None:
    """The error as a page; None where its template cannot be read, for want of a descriptor say.

    A browser that may not see what it asked for gets the sign-in.
    """
    try:
        if status is HTTPStatus.UNAUTHORIZED and from_browser(request.fields):
            goal, elsewhere = way_back(request, prefix), from_elsewhere(request)
            return sign_in_page(
                prefix=prefix, goal=goal, status=status, sentence=sentence, elsewhere=elsewhere
            )
        return pages.error_page(status, sentence, prefix=prefix)
    except OSError:
        return None


def _reason(line: str) -> bytes | None:
    """The line as a reason phrase, where it is printable ASCII (RFC 9112, section 4)."""
    return line[:_MAX_REASON].encode("ascii") if line.isascii() and line.isprintable() else None
