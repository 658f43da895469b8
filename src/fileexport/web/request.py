"""One HTTP request and the answer to it.

A `Request` knows its head and its query, remembers who asked, and writes one answer: status and fields leave
together with the first bytes of the body, in one write.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, IPushProducer

from fileexport.errors import BadRequestError, PeerGone
from fileexport.web.head import Head, MalformedRequest

if TYPE_CHECKING:
    from fileexport.tokens import Principal
    from fileexport.web.access import Caller

#: The methods that have a meaning here or elsewhere: RFC 9110, section 9.3, RFC 5789, and QUERY.
METHODS = frozenset(b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH QUERY".split())

#: Parameters in a query; no route has a dozen.
MAX_PARAMETERS = 64

Header = tuple[bytes, bytes]

#: On every answer: what is served here belongs to this origin, and its type is what we say.
_ALWAYS = (
    b"Server: fileexport\r\nX-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n"
)
_STATUS_LINES: dict[int, bytes] = {
    status: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode("ascii")) for status in HTTPStatus
}
#: Statuses whose answers have no body, whatever their fields say (RFC 9110, section 6.4.1).
WITHOUT_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class Wire(Protocol):
    """What an answer needs of its connection."""

    failures: int

    @property
    def peer(self) -> IAddress: ...
    @property
    def transport(self) -> object: ...
    @property
    def secure(self) -> bool: ...
    @property
    def local(self) -> bool: ...
    @property
    def unread(self) -> bool: ...
    def receive(self) -> Deferred[bytes]: ...
    def stream(self) -> None: ...
    def send(self, data: bytes) -> None: ...
    def attach(self, producer: IPushProducer) -> None: ...
    def detach(self) -> None: ...
    def lend(self) -> object: ...
    def reclaim(self) -> None: ...
    def finished(self) -> None: ...
    def abort(self) -> None: ...


class Request:
    """A request that is to be answered.

    - `who`: who asked, once that is known; the access log names them.
    - `caller`: what is known of the process behind the connection, once that was asked.
    - `client`: the address that it came from; behind a trusted proxy the one that the proxy names. None on
      a UNIX socket.
    - `started`: when its head was complete, in the reactor's seconds.
    - `gone`: whether the peer is gone; nothing may be written then.
    - `began`, `status`, `sent`: what of the answer has left so far: whether any, its status, bytes of body.
    - `oversized`: whether its body is longer than anything that a route reads.
    """

    __slots__ = (
        "_chunked",
        "caller",
        "client",
        "_close",
        "_fields",
        "_lost",
        "_now",
        "began",
        "gone",
        "head",
        "method",
        "oversized",
        "path",
        "query",
        "sent",
        "started",
        "status",
        "who",
        "wire",
    )

    def __init__(self, wire: Wire, head: Head, *, started: float, now: float, close: bool = False) -> None:
        """`now` is the time of the Date field; `close` says that no other answer follows."""
        self.wire = wire
        self.head = head
        self.method = head.method
        self.path, _, self.query = head.target.partition(b"?")
        self.started = started
        self.who: Principal | None = None
        self.caller: Caller | None = None
        self.client: str | None = getattr(wire.peer, "host", None)
        self.gone = False
        self.began = False
        self.status: int = HTTPStatus.OK
        self.sent = 0
        self.oversized = False
        self._now = now
        self._close = close or not head.keeps_alive
        self._chunked = False
        self._fields = b""
        self._lost: list[Deferred[None]] = []

    # -- the request

    @property
    def now(self) -> float:
        """The time of the answer's Date field, in seconds since the epoch."""
        return self._now

    def fields(self, name: bytes) -> Sequence[bytes]:
        """All field lines of a name, in order; empty where there is none."""
        return self.head.all(name.lower())

    def has_any(self, names: Iterable[bytes]) -> bool:
        """Whether any of these fields, named in lower case, is there."""
        return not self.head.by_name.keys().isdisjoint(names)

    def accepts(self, kind: bytes) -> bool:
        """Whether the Accept header names this media type."""
        return any(kind in value.lower() for value in self.fields(b"accept"))

    @property
    def is_safe(self) -> bool:
        """Whether the method is GET or HEAD."""
        return self.method in (b"GET", b"HEAD")

    def parameters(self) -> dict[str, str]:
        """The query as text with surrogate escapes; a name alone has an empty value.

        Raises `BadRequestError` for a name that stands twice, and for more than `MAX_PARAMETERS`.
        """
        found: dict[str, str] = {}
        pairs = [pair for pair in self.query.split(b"&") if pair]
        if len(pairs) > MAX_PARAMETERS:
            raise BadRequestError(f"more than {MAX_PARAMETERS} parameters")
        for pair in pairs:
            name, value = (_decode(part) for part in pair.partition(b"=")[::2])
            if name in found:
                raise BadRequestError("a parameter is given twice")
            found[name] = value
        return found

    async def read_body(self, limit: int, take: Callable[[int], object] = lambda size: None) -> bytes:
        """All of the body, which is `limit` bytes at most; only for a route that declares it reads one.

        `take` is told the size of each piece before it is kept, and may raise. Raises `MalformedRequest` (413
        for a longer one, 408, 400) and `PeerGone`; the connection ends with the answer then.
        """
        too_large = MalformedRequest(
            f"the body is longer than {limit} bytes", HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        )
        if (self.head.length or 0) > limit:
            raise too_large
        # Not a list of pieces: a body that comes byte by byte would take fifty times its size.
        body = bytearray()
        while piece := await self.wire.receive():
            if len(body) + len(piece) > limit:
                raise too_large
            take(len(piece))
            body += piece
        return bytes(body)

    # -- the answer

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this answer."""
        return self._close

    def last(self) -> None:
        """Close the connection when this answer has left."""
        self._close = True

    def begin(self, status: int, headers: Iterable[Header], *, reason: bytes | None = None) -> None:
        """Set status and fields of the answer; they leave with its first byte, or at its end.

        Without a Content-Length the body is chunked, or ends with the connection (HTTP/1.0). A status that
        `HTTPStatus` does not know needs a `reason`.
        """
        self.status = status
        self._chunked = False
        self._close = self._close or self.wire.unread
        lines = [
            _STATUS_LINES[status] if reason is None else b"HTTP/1.1 %d %s\r\n" % (status, reason),
            _date(int(self._now)),
            _ALWAYS,
        ]
        sized = status in WITHOUT_BODY or self.method == b"HEAD"
        for name, value in headers:
            sized = sized or name == b"Content-Length"
            lines.append(b"%s: %s\r\n" % (name, value))
        if not sized:
            self._chunked = self.head.minor >= 1
            self._close = self._close or not self._chunked
            if self._chunked:
                lines.append(b"Transfer-Encoding: chunked\r\n")
        if self._close:
            lines.append(b"Connection: close\r\n")
        self._fields = b"".join(lines) + b"\r\n"

    def begin_with(self, status: HTTPStatus, block: bytes) -> None:
        """The same as `begin` with fields that `header_block` made, a Content-Length among them."""
        self.status = status
        self._chunked = False
        end = b"Connection: close\r\n\r\n" if self._close else b"\r\n"
        self._fields = b"".join((_STATUS_LINES[status], _date(int(self._now)), _ALWAYS, block, end))

    def answer(
        self,
        status: HTTPStatus,
        body: bytes,
        content_type: bytes,
        headers: Iterable[Header] = (),
        *,
        reason: bytes | None = None,
    ) -> None:
        """Send a whole answer; a HEAD request gets the same without its body."""
        length = b"%d" % len(body)
        self.begin(
            status,
            ((b"Content-Type", content_type), (b"Content-Length", length), *headers),
            reason=reason,
        )
        self.write(body)
        self.end()

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if self.gone:
            return
        if self.method == b"HEAD" or self.status in WITHOUT_BODY:
            data = b""
        self.sent += len(data)
        if self._chunked and data:
            data = b"%x\r\n%s\r\n" % (len(data), data)
        self._send(data)

    def end(self) -> None:
        """Finish the answer; nothing happens where the peer is gone."""
        if self.gone:
            return
        self._send(b"0\r\n\r\n" if self._chunked and self.method != b"HEAD" else b"")
        self._settle()
        self.wire.finished()

    def abort(self) -> None:
        """Break the connection: what was promised cannot be sent, and must not look complete."""
        if not self.gone:
            self.wire.abort()

    def _send(self, data: bytes) -> None:
        if not self.began:
            self.began = True
            data = self._fields + data
        if data:
            self.wire.send(data)

    # -- the connection

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Tell `producer` when to pause and to go on; it is a push producer."""
        self.wire.attach(producer)

    def unregisterProducer(self) -> None:
        """Tell it no more."""
        self.wire.detach()

    def lend(self) -> object | None:
        """The transport itself, for bytes that go past us; None where they must not (HEAD, chunks)."""
        if self.gone or self._chunked or self.method == b"HEAD":
            return None
        self._send(b"")
        return self.wire.lend()

    def reclaim(self, sent: int) -> None:
        """The transport is ours again; `sent` bytes of the body have gone past us."""
        self.sent += sent
        self.wire.reclaim()

    def notifyFinish(self) -> Deferred[None]:
        """Fires when the answer has ended; fails with `PeerGone` when the connection did before."""
        if self.gone:
            return fail(PeerGone())
        finished: Deferred[None] = Deferred()
        self._lost.append(finished)
        return finished

    def lose(self) -> None:
        """The connection is gone."""
        self.gone = True
        lost, self._lost = self._lost, []
        for finished in lost:
            finished.errback(PeerGone())

    def _settle(self) -> None:
        lost, self._lost = self._lost, []
        for finished in lost:
            finished.callback(None)


def header_block(headers: Iterable[Header]) -> bytes:
    """Fields as they leave."""
    return b"".join(b"%s: %s\r\n" % field for field in headers)


def _decode(part: bytes) -> str:
    return os.fsdecode(unquote_to_bytes(part.replace(b"+", b" ")))


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return b"Date: %s\r\n" % formatdate(second, usegmt=True).encode("ascii")
