"""The head of an HTTP/1 request, read strictly: RFC 9112 and the parts of RFC 9110 that it stands on.

Pure: bytes in, a `Head` or a `MalformedRequest` out. Where the RFCs let a server choose between guessing and
refusing, it refuses: what two parsers may read differently is how requests are smuggled. One thing is
accepted that the grammar does not have: bytes above 0x7F, and such as ``|``, in the target, which curl sends
as they are typed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus

from fileexport.errors import FileExportError

#: Bytes of the request line (414), of the fields together (431), and fields (431).
MAX_LINE = 8 * 1024
MAX_FIELDS_SIZE = 16 * 1024
MAX_FIELDS = 100
#: The longest head that can be read at all, its line ends counted: a connection stops collecting here.
MAX_HEAD = MAX_LINE + 2 + MAX_FIELDS_SIZE + 4

#: RFC 9110, section 5.6.2.
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%s) ([!\"$-~\x80-\xff]+) HTTP/([0-9])\.([0-9])" % TOKEN)
_FIELD = re.compile(rb"(%s):([^\x00-\x08\x0a-\x1f\x7f]*)" % TOKEN)
#: Without the user information that RFC 9110 wants refused (section 4.2.4).
_ABSOLUTE = re.compile(rb"(https?)://([^/?@]+)((?:[/?].*)?)", re.IGNORECASE)
_DIGITS = re.compile(rb"[0-9]+")
#: What a head says that holds a secret, as a field or in its target.
_SECRET = (b"authorization", b"cookie", b"/share/")
#: Bytes of a head that is remembered as it was read.
_REMEMBERED = 1024
#: What a longer number counts as: more than any disk holds.
_HUGE = 10**18


class MalformedRequest(FileExportError):
    """The request cannot be read: the connection is closed after the answer."""

    def __init__(self, sentence: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head. `host` is the authority that the request is for.

    `fields` are all lines as they came, names in lower case, and `by_name` the same by name. `length` is the
    announced body's in bytes, None for a chunked one. `minor` is the version's: HTTP/1.x.
    """

    method: bytes
    target: bytes
    minor: int
    fields: Sequence[tuple[bytes, bytes]] = ()
    by_name: Mapping[bytes, Sequence[bytes]] = field(default_factory=dict, repr=False)
    host: bytes | None = None
    length: int | None = 0

    def all(self, name: bytes) -> Sequence[bytes]:
        """Every line of a field (its name in lower case), in order."""
        return self.by_name.get(name, ())

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection may carry another request (RFC 9112, section 9.3)."""
        lines = self.all(b"connection")
        if not lines:
            return self.minor >= 1
        options = b",".join(lines).lower().split(b",")
        return self.minor >= 1 and b"close" not in [option.strip() for option in options]

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for 100 before it sends its body (RFC 9110, section 10.1.1)."""
        return self.minor >= 1 and self.length != 0 and bool(self.all(b"expect"))


def parse_head(block: bytes, *, secure: bool = False) -> Head:
    """Read a head: everything before the empty line, without the CRLF that ends the last field.

    `secure` says whether it came over TLS. Raises `MalformedRequest` with the status that says what is wrong.
    """
    # Clients repeat themselves: a short head is read once, unless it holds a secret.
    if len(block) > _REMEMBERED or _has_secret(block.lower()):
        return _parse(block, secure)
    return _parse_once(block, secure)


def _has_secret(block: bytes) -> bool:
    return any(word in block for word in _SECRET)


def _parse(block: bytes, secure: bool) -> Head:
    line, _, rest = block.partition(b"\r\n")
    if len(line) > MAX_LINE:
        raise MalformedRequest("the request line is too long", HTTPStatus.REQUEST_URI_TOO_LONG)
    _check_line_ends(block)
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise MalformedRequest("this is no HTTP request")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise MalformedRequest("only HTTP/1.1 is spoken here", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    fields = _fields(rest)
    by_name: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        by_name.setdefault(name, []).append(value)
    version = min(int(minor), 1)
    target, host = _target(method, target, version, by_name.get(b"host", ()), secure=secure)
    _check_expectation(by_name.get(b"expect", ()))
    length = _length(version, by_name.get(b"content-length", ()), by_name.get(b"transfer-encoding", ()))
    return Head(method, target, version, fields, by_name, host, length)


_parse_once = lru_cache(maxsize=512)(_parse)


def _fields(block: bytes) -> list[tuple[bytes, bytes]]:
    if not block:
        return []
    if len(block) > MAX_FIELDS_SIZE:
        raise MalformedRequest("the header is too large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    lines = block.split(b"\r\n")
    if len(lines) > MAX_FIELDS:
        raise MalformedRequest("the header has too many fields", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    found = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise MalformedRequest("a header field cannot be read")
        found.append((match[1].lower(), match[2].strip(b" \t")))
    return found


def _target(
    method: bytes, target: bytes, minor: int, hosts: Sequence[bytes], *, secure: bool
) -> tuple[bytes, bytes | None]:
    """The target as path and query, and whom the request is for (RFC 9112, sections 3.2 and 3.3)."""
    if method == b"CONNECT":
        raise MalformedRequest("this is no proxy", HTTPStatus.NOT_IMPLEMENTED)
    if len(hosts) > 1 or (minor >= 1 and not hosts):
        raise MalformedRequest("a request carries exactly one Host")
    host = hosts[0] if hosts else None
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target, host
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise MalformedRequest("the target of the request cannot be read")
    scheme, authority, path = match.groups()
    if host is not None and host.lower() != authority.lower():
        raise MalformedRequest("the target and Host name different hosts")
    if scheme.lower() == b"https" and not secure:
        # RFC 9110, section 7.4: https is served over TLS only.
        raise MalformedRequest("this connection is not encrypted", HTTPStatus.MISDIRECTED_REQUEST)
    return path if path.startswith(b"/") else b"/" + path, authority


def _length(minor: int, lengths: Sequence[bytes], codings: Sequence[bytes]) -> int | None:
    """How long the body is (RFC 9112, section 6.3); None where it is chunked."""
    if codings:
        if lengths or minor == 0:
            raise MalformedRequest("the length of the body is ambiguous")
        _check_chunked(codings)
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
        raise MalformedRequest("Content-Length is not one number")
    digits = lengths[0].lstrip(b"0")
    return int(digits or b"0") if len(digits) <= 18 else _HUGE


def _check_chunked(codings: Sequence[bytes]) -> None:
    names = [name.strip(b" \t").lower() for name in b",".join(codings).split(b",")]
    if names[-1] != b"chunked" or b"chunked" in names[:-1] or b"" in names:
        raise MalformedRequest("the last transfer coding is not chunked")
    if len(names) > 1:
        raise MalformedRequest("only the chunked transfer coding is known", HTTPStatus.NOT_IMPLEMENTED)


def _check_expectation(expectations: Sequence[bytes]) -> None:
    if any(value.lower() != b"100-continue" for value in expectations):
        raise MalformedRequest("only 100-continue can be expected", HTTPStatus.EXPECTATION_FAILED)


def check_beginning(buffer: bytes) -> None:
    """Refuse the beginning of a head that can never become one. Raises `MalformedRequest`."""
    if len(buffer) > MAX_LINE + 1 and buffer.find(b"\n", 0, MAX_LINE + 2) < 0:
        raise MalformedRequest("the request line is too long", HTTPStatus.REQUEST_URI_TOO_LONG)
    _check_line_ends(buffer)
    if len(buffer) >= MAX_HEAD:
        raise MalformedRequest("the header is too large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)


def _check_line_ends(lines: bytes) -> None:
    """Refuse CR or LF alone, at once: its sender may wait for an answer. The last byte may be a CR."""
    ends = lines.count(b"\r\n")
    if lines.count(b"\n") != ends or lines.count(b"\r") - lines.endswith(b"\r") != ends:
        raise MalformedRequest("a line of the header ends without CRLF")
