"""The body of an HTTP/1 request, found in what arrives: by its length, or chunked (RFC 9112, section 7).

Pure. A decoder takes what arrived and gives back the content in it; what lies behind the body's end is kept
in `rest`. Sizes are bounded before anything is kept, and a line that two parsers may read differently is
refused.
"""

from __future__ import annotations

import re
from typing import Protocol

from fileexport.web.head import TOKEN, MalformedRequest

#: Bytes of a chunk's size line with its extensions, and of all trailer fields.
MAX_CHUNK_LINE = 256
MAX_TRAILER = 4096

_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb"[ \t]*;[ \t]*%s(?:[ \t]*=[ \t]*(?:%s|%s))?" % (TOKEN, TOKEN, _QUOTED)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:%s)*" % _EXTENSION)
_TRAILER = re.compile(rb"%s:[\t -~\x80-\xff]*" % TOKEN)


class Body(Protocol):
    """A body that is being received."""

    done: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; return the content in it. Raises `MalformedRequest`."""


def body_of(length: int | None) -> Body:
    """The body of this length; a chunked one for None."""
    return Chunked() if length is None else Sized(length)


class Sized:
    """A body of a known length."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; return the content in it."""
        content = data[: self._left]
        self._left -= len(content)
        if not self._left:
            self.done = True
            self.rest = data[len(content) :]
        return content


class Chunked:
    """A chunked body; extensions and trailers are checked and dropped."""

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self._buffer = b""
        self._at = 0
        self._left = 0
        self._trailer = 0
        self._take = self._size

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; return the content in it. Raises `MalformedRequest`."""
        self._buffer, self._at = self._buffer[self._at :] + data, 0
        content = []
        while not self.done:
            piece = self._take()
            if piece is None:
                break
            content.append(piece)
        if self.done:
            self.rest, self._buffer = self._buffer[self._at :], b""
        return b"".join(content)

    # Each step consumes something and returns the content in it, or None where it needs more.

    def _line(self, limit: int) -> bytes | None:
        end = self._buffer.find(b"\n", self._at, self._at + limit)
        if end < 0:
            if len(self._buffer) - self._at >= limit:
                raise MalformedRequest("a line in the chunked body is too long")
            return None
        line, self._at = self._buffer[self._at : end + 1], end + 1
        if not line.endswith(b"\r\n"):
            raise MalformedRequest("a line in the chunked body ends without CRLF")
        return line[:-2]

    def _size(self) -> bytes | None:
        line = self._line(MAX_CHUNK_LINE)
        if line is None:
            return None
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise MalformedRequest("the size of a chunk cannot be read")
        self._left = int(match[1], 16)
        self._take = self._data if self._left else self._fields
        return b""

    def _data(self) -> bytes | None:
        content = self._buffer[self._at : self._at + self._left]
        if not content:
            return None
        self._at += len(content)
        self._left -= len(content)
        if not self._left:
            self._take = self._end
        return content

    def _end(self) -> bytes | None:
        ending = self._buffer[self._at : self._at + 2]
        if not b"\r\n".startswith(ending):
            raise MalformedRequest("a chunk is longer than its size")
        if len(ending) < 2:
            return None
        self._at += 2
        self._take = self._size
        return b""

    def _fields(self) -> bytes | None:
        line = self._line(MAX_TRAILER - self._trailer)
        if line is None:
            return None
        if not line:
            self.done = True
            return b""
        self._trailer += len(line) + 2
        if not _TRAILER.fullmatch(line):
            raise MalformedRequest("a trailer field cannot be read")
        return b""
