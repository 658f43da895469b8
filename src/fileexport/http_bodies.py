"""Files and compressed streams as HTTP answers.

What RFC 9110 says of a file is decided by `web.ranges`; here its plan goes onto the request through
`disk.sender`. A body that cannot be finished breaks its connection: an answer never ends cleanly with bytes
missing.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from fileexport.digests import FileDigests
from fileexport.disk.archive import SMALL, Form, compressed
from fileexport.disk.jail import Opened
from fileexport.disk.sender import SLICE, Pieces, Valve, pump, send_span
from fileexport.errors import ChangedWhileRead, OverloadedError, PeerGone
from fileexport.pools import Steps, Worker
from fileexport.web import pages
from fileexport.web.digests import ALGORITHMS, WANTED, field_of, wanted
from fileexport.web.failures import HttpError
from fileexport.web.handlers import OpenFile
from fileexport.web.media import inline_headers
from fileexport.web.names import attachment
from fileexport.web.ranges import DECISIVE, FileState, Plan, Span, decide, strong_etag
from fileexport.web.request import WITHOUT_BODY, Header, Request, header_block

P = ParamSpec("P")
T = TypeVar("T")
#: A file name, a length where it is known, the bytes.
Archive = tuple[str, int | None, Generator[bytes, None, None]]

#: Streams compressed at once; one more is asked to come back.
MAX_STREAMS = 8
#: Bytes of large bodies in memory that slow readers have not taken yet: one more is asked to come back.
MAX_HELD = 256 << 20

#: A request with none of these fields is answered with the whole file and what is always said of it.
_DECISIVE = DECISIVE | WANTED
_FRESH: tuple[Header, ...] = ((b"Cache-Control", b"no-cache"),)
#: A stream has no offsets that another request could ask for.
_UNRANGED: tuple[Header, ...] = ((b"Accept-Ranges", b"none"), *_FRESH)


class Bodies:
    """Sends bodies. Compression runs in `cpu`, and what makes whole bodies in `makers`."""

    def __init__(self, reactor: IReactorTime, cpu: Worker, makers: Worker) -> None:
        self._reactor = reactor
        self._cpu = cpu
        self._makers = makers
        self._digests = FileDigests(cpu)
        self._streams = 0
        self._held = 0

    async def inline(self, request: Request, opened: Opened, name: str) -> None:
        """Send a file for looking at, by its type, so that it cannot script this origin."""
        content_type, disposition, policy = inline_headers(name)
        shown = (b"Content-Disposition", disposition)
        await self.file(request, opened, content_type, (*_FRESH, shown, *policy))

    async def attachment(self, request: Request, opened: Opened, name: str) -> None:
        """Send a file for keeping."""
        content_type, _, policy = inline_headers(name)
        await self.file(request, opened, content_type, (*_FRESH, _disposition(name), *policy))

    async def file(
        self, request: Request, opened: OpenFile, content_type: bytes, headers: tuple[Header, ...]
    ) -> None:
        """Send a file, or what the request's ranges and conditions make of it, with these further fields.

        Where the request wants digests (RFC 9530), the file is hashed before its answer begins. Raises
        `HttpError` for 412 and 416, else as `send_span` does; the file stays open.
        """
        status = opened.stat
        simple = request.is_safe and not request.has_any(_DECISIVE) and status.st_mtime <= request.now
        if simple and status.st_size <= SLICE:
            request.begin_with(HTTPStatus.OK, _whole_block(_facts(status), content_type, headers))
            request.write(_read(opened.descriptor, Span(0, status.st_size)))
            return request.end()
        if simple:
            plan = _whole(_facts(status), request.method, content_type)
        else:
            plan = decide(
                request.method,
                request.fields,
                FileState(status.st_size, status.st_mtime_ns, strong_etag(status)),
                content_type=content_type,
                now=request.now,
                boundary=_boundary(),
            )
        _refuse(plan)
        if request.has_any(WANTED):
            headers = (*headers, *await self._digest_fields(request, opened, plan))
        request.begin(plan.status, (*plan.headers, *headers))
        if plan.length <= SLICE:
            # One read and one write, together with the header: nothing to wait for in between.
            request.write(b"".join(_read(opened.descriptor, part) for part in plan.parts))
            return request.end()
        await self._parts(request, opened, plan.parts)

    async def _digest_fields(self, request: Request, opened: OpenFile, plan: Plan) -> list[Header]:
        """The digest fields that a request wants of an answer with content.

        That of the content is left out where the content is not one piece of the file. For HEAD it is that
        of nothing: its answer has no content (RFC 9530, appendix B.2).
        """
        if plan.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return []
        found = []
        if (name := wanted(request.fields(b"want-repr-digest"))) is not None:
            digest = await self._digest(request, opened, name, Span(0, opened.stat.st_size))
            found.append((b"Repr-Digest", field_of({name: digest})))
        if (name := wanted(request.fields(b"want-content-digest"))) is not None:
            parts = [part for part in plan.parts if part]
            if not parts:
                found.append((b"Content-Digest", field_of({name: ALGORITHMS[name]().digest()})))
            elif len(parts) == 1 and isinstance(parts[0], Span):
                digest = await self._digest(request, opened, name, parts[0])
                found.append((b"Content-Digest", field_of({name: digest})))
        return found

    async def _digest(self, request: Request, opened: OpenFile, name: str, span: Span) -> bytes:
        """The digest of a part of a file. Raises `OverloadedError` when `MAX_STREAMS` others run."""
        is_whole = span == (0, opened.stat.st_size)
        if is_whole and (known := self._digests.known(opened, name)) is not None:
            return known
        with self._place():
            if is_whole:
                return await self._digests.whole(opened, name, lambda: request.gone)
            return await self._digests.part(opened, name, *span, lambda: request.gone)

    async def file_as(
        self, request: Request, opened: OpenFile, headers: Iterable[Header], status: int, reason: bytes
    ) -> None:
        """Send the whole of a file with a status that is not 200, such as the page of a 404."""
        size = opened.stat.st_size
        request.begin(status, (*headers, (b"Content-Length", b"%d" % size)), reason=reason)
        whole = () if request.method == b"HEAD" else (Span(0, size),)
        await self._parts(request, opened, whole)

    async def _parts(self, request: Request, opened: OpenFile, parts: Iterable[bytes | Span]) -> None:
        with self._valve(request) as valve:
            for part in parts:
                if isinstance(part, Span):
                    await send_span(valve, opened.descriptor, part.start, part.stop)
                else:
                    await valve.write(part)
        request.end()

    async def made(
        self,
        request: Request,
        content_type: bytes,
        headers: Iterable[Header],
        make: Callable[P, bytes],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Make a body in a thread and send it. What nobody waits for any more is not begun.

        Raises what `make` does, and `OverloadedError`.
        """
        body = await self.away(request, make, *args, **kwargs)
        await self.whole(request, body, ((b"Content-Type", content_type), *headers))

    async def away(
        self, request: Request, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a function in a thread for one request. Raises `PeerGone` when its peer leaves meanwhile."""
        work = self._makers.run(function, *args, **kwargs)
        request.notifyFinish().addErrback(lambda failure: work.cancel())
        try:
            return await work
        except CancelledError:
            raise PeerGone from None

    async def whole(
        self,
        request: Request,
        body: bytes,
        headers: Iterable[Header],
        *,
        status: int = HTTPStatus.OK,
        reason: bytes | None = None,
    ) -> None:
        """Send a body that is in memory: a large one as its reader takes it, and not too many at once.

        Content-Length is added, except where the status allows none. Raises `OverloadedError`.
        """
        sized = () if status in WITHOUT_BODY else ((b"Content-Length", b"%d" % len(body)),)
        headers = (*headers, *sized)
        if len(body) <= SLICE or request.method == b"HEAD" or status in WITHOUT_BODY:
            request.begin(status, headers, reason=reason)
            request.write(body)
            return request.end()
        if self._held and self._held + len(body) > MAX_HELD:
            raise OverloadedError
        self._held += len(body)
        try:
            request.begin(status, headers, reason=reason)
            with self._valve(request) as valve:
                await valve.write(body)
            request.end()
        finally:
            self._held -= len(body)

    async def compressed(self, request: Request, opened: Opened, name: str, form: Form) -> None:
        """Send a file compressed while it is read, as `name` with the form's suffix.

        Raises `OverloadedError` when `MAX_STREAMS` others run.
        """
        status = opened.stat
        pieces = compressed(
            opened.descriptor, name=name, size=status.st_size, mtime=status.st_mtime, form=form
        )
        name += form.suffix
        with self._place():
            if status.st_size > SMALL or request.method == b"HEAD":
                return await self._stream(request, name, form.content_type, None, pieces)
            whole = await self._cpu.run(b"".join, pieces)
        kind = (b"Content-Type", form.content_type.encode("ascii"))
        await self.whole(request, whole, (kind, _disposition(name), *_UNRANGED))

    async def archive(
        self,
        request: Request,
        content_type: str,
        make: Callable[P, Archive],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Send an archive while it is made; finding out its length, where that is promised, counts as well.

        Raises `OverloadedError` when `MAX_STREAMS` others run, and what `make` does.
        """
        with self._place():
            name, length, pieces = await self.away(request, make, *args, **kwargs)
            await self._stream(request, name, content_type, length, pieces)

    async def live(
        self, request: Request, content_type: bytes, headers: Iterable[Header], pieces: Pieces
    ) -> None:
        """Send pieces as they come, until they end or their reader leaves; they are closed then."""
        request.begin(HTTPStatus.OK, ((b"Content-Type", content_type), *headers))
        if request.method == b"HEAD":
            await pieces.close()
            return request.end()
        # A reader who leaves while nothing comes ends it as well.
        request.notifyFinish().addErrback(lambda _: pieces.close())
        with self._valve(request) as valve:
            await pump(valve, pieces)
        request.end()

    def static(self, request: Request, file: pages.StaticFile, headers: Iterable[Header]) -> None:
        """Send a file of our own pages, on the conditions of the request."""
        plan = decide(
            request.method,
            request.fields,
            FileState(len(file.data), 0, file.etag),
            content_type=file.content_type,
            now=request.now,
            boundary=_boundary(),
        )
        _refuse(plan)
        request.begin(plan.status, (*plan.headers, *headers))
        parts = (file.data[part.start : part.stop] if isinstance(part, Span) else part for part in plan.parts)
        request.write(b"".join(parts))
        request.end()

    async def _stream(
        self,
        request: Request,
        name: str,
        content_type: str,
        length: int | None,
        pieces: Generator[bytes, None, None],
    ) -> None:
        sized = () if length is None else ((b"Content-Length", b"%d" % length),)
        kind = (b"Content-Type", content_type.encode("ascii"))
        request.begin(HTTPStatus.OK, (kind, *sized, _disposition(name), *_UNRANGED))
        if request.method != b"HEAD":
            with self._valve(request) as valve:
                await pump(valve, Steps(self._cpu, pieces))
        request.end()

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places for streams. Raises `OverloadedError` when all are taken."""
        if self._streams >= MAX_STREAMS:
            raise OverloadedError
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def _valve(self, request: Request) -> Valve:
        return Valve(request, self._reactor, request.notifyFinish(), lender=request)


class _Facts(NamedTuple):
    """What an entity tag is made of."""

    st_dev: int
    st_ino: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int


def _facts(status: os.stat_result) -> _Facts:
    return _Facts(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=4096)
def _whole(facts: _Facts, method: bytes, content_type: bytes) -> Plan:
    """The plan of a request without conditions and ranges: the same until the file changes.

    Not for a file that is dated in the future: its Last-Modified is the answer's Date, and moves with it.
    """
    return decide(
        method,
        lambda name: (),
        FileState(facts.st_size, facts.st_mtime_ns, strong_etag(facts)),
        content_type=content_type,
        now=facts.st_mtime_ns / 1e9 + 1,
        boundary=b"",
    )


@lru_cache(maxsize=1024)
def _whole_block(facts: _Facts, content_type: bytes, headers: tuple[Header, ...]) -> bytes:
    """The fields of the whole file, as they leave."""
    return header_block((*_whole(facts, b"GET", content_type).headers, *headers))


def _read(descriptor: int, part: bytes | Span) -> bytes:
    if not isinstance(part, Span):
        return part
    data = os.pread(descriptor, part.stop - part.start, part.start)
    if len(data) < part.stop - part.start:
        raise ChangedWhileRead(f"the file ended before {part.stop}")
    return data


def _boundary() -> bytes:
    return secrets.token_hex(16).encode("ascii")


def _disposition(name: str) -> Header:
    return b"Content-Disposition", attachment(name)


def _refuse(plan: Plan) -> None:
    """Raise a plan that is an error, so that it is answered as all errors are."""
    if plan.status is HTTPStatus.PRECONDITION_FAILED:
        raise HttpError(plan.status, "the file is not in the state that was asked for", plan.headers)
    if plan.status is HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise HttpError(plan.status, "the file has no such range", plan.headers)
