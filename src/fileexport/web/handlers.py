"""What an application's own request handler takes and gives, and what HTTP makes of it.

Values only: `request_of` turns a request with its body into an `HttpRequest`, `answer_of` an `HttpResponse`
into status, fields and body. `fileexport.handling` runs the handler between the two.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from fileexport.web.cookies import without_ours
from fileexport.web.head import TOKEN
from fileexport.web.request import WITHOUT_BODY, Header, Request

#: Set by the server on every answer, or true of one connection only (RFC 9110, section 7.6.1): what a handler
#: says of them is dropped.
_OURS = frozenset(
    """
    connection content-length cross-origin-resource-policy date keep-alive proxy-connection server te trailer
    transfer-encoding upgrade x-content-type-options
    """.split()
)
_NAME = re.compile(TOKEN)
#: A tab is the only control character in a value (RFC 9110, section 5.5).
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
#: Statuses whose answer has no content at all (RFC 9110, section 15.3.6 for 205).
_EMPTY = frozenset((*WITHOUT_BODY, HTTPStatus.RESET_CONTENT))
_CLASSES = {2: b"Success", 3: b"Redirection", 4: b"Client Error", 5: b"Server Error"}
#: What only promises to run when it is called; nobody is there to await or to iterate it.
_LATER = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)


def check_handler(handler: object) -> None:
    """Raise ValueError for what is no handler: what cannot be called, or would not run by that."""
    inner = handler
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not callable(inner):
        raise ValueError(f"a handler is a function, and {type(inner).__name__} cannot be called")
    if any(is_later(called) for is_later in _LATER for called in (inner, type(inner).__call__)):
        raise ValueError("a handler is a plain function: this one is async, or yields")


class Headers(dict[str, Any]):
    """A dict whose keys ignore case; a key keeps the spelling that it was first set with."""

    # A dict's own methods do not call each other: each that takes or makes a key is written anew.

    def __init__(self, fields: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__()
        self._spelled: dict[str, str] = {}
        self.update(fields)

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(self._key(name))

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(self._spelled.setdefault(name.lower(), name), value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(self._key(name))
        del self._spelled[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._spelled

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a name, or `default`."""
        return super().get(self._key(name), default)

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Mapping):
            return NotImplemented
        found = self.copy()
        found.update(other)
        return found

    def __ror__(self, other: Any) -> Any:
        return Headers(other) | self if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def __reduce__(self) -> Any:
        return type(self), (dict(self),)

    def setdefault(self, name: str, default: Any = "") -> Any:
        """The value of a name, which becomes `default` where it has none."""
        if name not in self:
            self[name] = default
        return self[name]

    def update(self, fields: Any = (), /, **named: Any) -> None:
        """Set every field of a mapping, or of pairs."""
        for name, value in dict(fields, **named).items():
            self[name] = value

    def pop(self, name: str, *default: Any) -> Any:
        """Remove a name and return its value; `default` where there is none, else KeyError."""
        if default and name not in self:
            return default[0]
        value = self[name]
        del self[name]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove the field that was set last and return it."""
        name, value = super().popitem()
        del self._spelled[name.lower()]
        return name, value

    def clear(self) -> None:
        """Remove all."""
        super().clear()
        self._spelled.clear()

    def copy(self) -> Headers:
        """The same fields in another object."""
        return Headers(self)

    def _key(self, name: str) -> str:
        return self._spelled.get(name.lower(), name)


@dataclass
class HttpRequest:
    """A request for a handler.

    - `path`: its decoded segments; `[""]` for `/`, a closing slash makes a last empty one. Below a mounted
      handler's own path.
    - `query`: decoded; the last one of a name counts.
    - `headers`: ignores case; repeated fields are joined by a comma.
    - `data`: the body: str when it is UTF-8, else bytes; empty without one.

    In `path` and `query` bytes that are no UTF-8 are surrogate escapes, as in `os.fsdecode`.
    """

    method: str = "GET"
    path: list[str] = field(default_factory=lambda: [""])
    query: dict[str, str] = field(default_factory=dict)
    protocol: str = "HTTP/1.1"
    headers: dict[str, str] = field(default_factory=Headers)
    data: str | bytes = ""
    #: The last name of the whole URL, empty where a slash follows it; whether the URL is a mount's own,
    #: without a slash.
    _last: str = field(default="", init=False, repr=False, compare=False)
    _bare: bool = field(default=False, init=False, repr=False, compare=False)


class OpenFile(Protocol):
    """An open file: `fileexport.disk`'s `Opened`."""

    descriptor: int
    stat: os.stat_result

    def read_at(self, buffer: memoryview, offset: int, /) -> int: ...
    def close(self) -> None: ...


class HttpResponse:
    """What a handler answers: it sets `status`, `headers` and `data` (str leaves as UTF-8).

    A header's value is a str, or a list of them for a field that stands several times, as Set-Cookie may.
    Content-Length is added, and a Content-Type where there is none: text for str, else octets. `protocol`
    says what it will be; setting it changes nothing.
    """

    def __init__(self) -> None:
        self.protocol = "HTTP/1.1"
        self.status = 200
        self.headers: dict[str, Any] = Headers()
        self._data: str | bytes = ""
        self._file: OpenFile | None = None

    @property
    def data(self) -> str | bytes:
        """The body; of a file that `static_resource` put here the content, read when it is asked for."""
        return self._data if self._file is None else _content(self._file)

    @data.setter
    def data(self, data: str | bytes) -> None:
        discard_file(self)
        self._data = data

    def __del__(self) -> None:
        # For who calls `static_resource` without a server: here, nobody else closes the file.
        discard_file(self)


def attach_file(response: HttpResponse, file: OpenFile) -> None:
    """Make an open file the body; the response closes it, unless it is taken."""
    response.data = ""
    response._file = file


def take_file(response: HttpResponse) -> OpenFile | None:
    """The file that is the body, from now on the caller's to close; None where the body is `data`."""
    file, response._file = response._file, None
    return file


def discard_file(response: HttpResponse) -> None:
    """Close the file that is the body, if one is."""
    file = take_file(response)
    if file is not None:
        file.close()


def name_without_slash(request: HttpRequest) -> str:
    """The last name of the request's URL where no slash follows it, else empty.

    A directory of that name redirects to it with a slash, relatively: which names a mount or the handler has
    taken off in front does not matter.
    """
    if not request.path or (request._bare and request.path == [""]):
        return request._last
    left = request.path[-1]
    return left and (request._last or left)


def request_of(
    request: Request, data: str | bytes, below: bytes | None = None, *, mounted: bool = False
) -> HttpRequest:
    """The request as its handler sees it; one that is `mounted` in a daemon without what is the daemon's.

    That is the token and who is signed in. `data` is what `decoded` makes of its body, `below` its path
    without a mount's prefix, percent-encoded.
    """
    path = request.path if below is None else below
    found = HttpRequest(
        method=request.method.decode("ascii"),
        path=[_text(segment) for segment in path.removeprefix(b"/").split(b"/")],
        query=_query(request.query),
        protocol=f"HTTP/1.{request.head.minor}",
        headers=_headers(request.head.fields, mounted),
        data=data,
    )
    found._last = _text(request.path.rpartition(b"/")[2])
    found._bare = not path
    return found


def decoded(body: bytes) -> str | bytes:
    """A body as its handler sees it."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body


def widest(body: bytes) -> int:
    """Bytes that a body takes once it is decoded, at most: Python keeps 1, 2 or 4 for each character."""
    if body.isascii():
        return len(body)
    return len(body) * (4 if any(first in body for first in range(0xF0, 0xF5)) else 2)


class Answer(NamedTuple):
    """A response as HTTP sends it: Content-Length is still to be added."""

    status: int
    reason: bytes
    headers: tuple[Header, ...]
    body: bytes


def answer_of(response: HttpResponse) -> Answer:
    """What a response says. Raises `ValueError` for what HTTP cannot send.

    Where its body is a file, `body` is empty; a status that allows no body closes the file.
    """
    status = _status(response.status)
    fields = _fields(response.headers)
    if status in _EMPTY:
        discard_file(response)
        return Answer(status, _reason(status), _lines(fields), b"")
    is_text = isinstance(response._data, str)
    kind = b"text/plain; charset=utf-8" if is_text else b"application/octet-stream"
    fields.setdefault("content-type", [(b"Content-Type", kind)])
    return Answer(status, _reason(status), _lines(fields), _octets(response._data))


def _content(file: OpenFile) -> bytes:
    content = bytearray(file.stat.st_size)
    read = 0
    while read < len(content):
        count = file.read_at(memoryview(content)[read:], read)
        if not count:
            break
        read += count
    return bytes(content[:read])


def _text(part: bytes) -> str:
    return unquote_to_bytes(part).decode("utf-8", "surrogateescape")


def _query(query: bytes) -> dict[str, str]:
    pairs = (pair.partition(b"=") for pair in query.replace(b"+", b" ").split(b"&") if pair)
    return {_text(name): _text(value) for name, _, value in pairs}


def _headers(fields: Iterable[tuple[bytes, bytes]], mounted: bool) -> Headers:
    found = Headers()
    for name, value in fields:
        if mounted and name == b"cookie":
            value = without_ours(value)
        if mounted and (name == b"authorization" or not value):
            continue
        key, text = name.decode("ascii"), value.decode("latin-1")
        # RFC 9110, section 5.3; a Cookie has a list of its own kind (RFC 6265, section 4.2.1).
        between = "; " if key == "cookie" else ", "
        found[key] = f"{found[key]}{between}{text}" if key in found else text
    return found


def _status(status: object) -> int:
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"a status is a whole number from 200 to 599, not {status!r}")
    return int(status)


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return _CLASSES[status // 100]


def _fields(headers: Mapping[str, Any]) -> dict[str, list[Header]]:
    """The lines of the fields that the handler may set, by their names in lower case."""
    found: dict[str, list[Header]] = {}
    for name, values in headers.items():
        lines = [_line(name, value) for value in (values if isinstance(values, list) else [values])]
        if len(lines) > 1 and name.lower() == "content-type":
            raise ValueError("an answer has one Content-Type")
        if lines and name.lower() not in _OURS:
            found[name.lower()] = lines
    return found


def _line(name: object, value: object) -> Header:
    if not isinstance(name, str) or not isinstance(value, str):
        raise ValueError(f"the header {name!r} or its value is no str")
    # Latin-1: what HTTP once was, and what a request's values are decoded with.
    line = name.encode("latin-1"), value.encode("latin-1").strip(b" \t")
    if not _NAME.fullmatch(line[0]):
        raise ValueError(f"{name!r} is no name of a header")
    if _CONTROL.search(line[1]):
        raise ValueError(f"the header {name!r} holds a control character")
    return line


def _lines(fields: Mapping[str, list[Header]]) -> tuple[Header, ...]:
    return tuple(line for lines in fields.values() for line in lines)


def _octets(data: object) -> bytes:
    if isinstance(data, str):
        return data.encode("utf-8", "surrogateescape")
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise ValueError(f"data is neither str nor bytes, but {type(data).__name__}")
