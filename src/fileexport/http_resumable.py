"""The door's resumable uploads: tus 1.0 at ``/-/uploads``.

What its fields say is read by `web.tus`, what becomes of it is `resumable`'s. An upload is there for its
owner; for everybody else it does not exist.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus

import msgspec

from fileexport.disk.uploads_store import Conflict, UploadRow
from fileexport.errors import BadRequestError, BusyError, FileNameError
from fileexport.http_queries import conflict_of
from fileexport.http_receiving import Place, Receiver, Take, holder_of, refuse_coding, too_large
from fileexport.paths import RelPath, printable
from fileexport.resumable import Client, Resumable, Standing, WrongOffset
from fileexport.resumable_files import Gone, Wish, path_of
from fileexport.tokens import Principal, Right
from fileexport.web import tus
from fileexport.web.failures import HttpError, no_method, through_directories
from fileexport.web.request import Header, Request
from fileexport.web.routes import Answer, Open, Route, reading

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"
_FRESH: tuple[Header, ...] = ((b"Cache-Control", b"no-store"),)
_ALWAYS: tuple[Header, ...] = (tus.RESUMABLE,)
#: Seconds after which a client may come again that found its upload, or the path, in use.
_LOCKED: tuple[Header, ...] = ((b"Retry-After", b"2"),)

_NO_PART = "a part of an upload is sent as application/offset+octet-stream"
_NO_CONCATENATION = "uploads are not put together here: send each file in one upload, without Upload-Concat"
_NO_VERSION = "only tus 1.0.0 is spoken here: send Tus-Resumable: 1.0.0"


_Answer = Callable[[], Awaitable[None]]


class ResumableDoor:
    """Answers the routes of resumable uploads."""

    def __init__(self, uploads: Resumable, receiver: Receiver, *, limit: int, prefix: str) -> None:
        """`limit`: bytes of a file; `prefix` is what a reverse proxy puts before our paths."""
        self._uploads = uploads
        self._receiver = receiver
        self._limit = limit
        self._prefix = prefix

    def routes(self) -> tuple[Route[Answer], ...]:
        """The routes of uploads, with their rights."""
        write = Right.WRITE
        asked: dict[bytes, Right | Open] = {b"OPTIONS": Open.TO_ALL}
        many = {**asked, **reading(write), b"POST": write}
        one = {**asked, **dict.fromkeys((b"HEAD", b"PATCH", b"DELETE", b"POST"), write)}
        bodies = (b"PATCH", b"POST")
        return (
            Route("/-/uploads", self._many, many, plain=True, body=bodies[1:], headers=_ALWAYS),
            Route("/-/uploads/{id}", self._one, one, plain=True, body=bodies, headers=_ALWAYS),
        )

    # -- all uploads

    async def _many(self, request: Request, who: Principal, below: bytes) -> None:
        look = partial(self._list, request, who)
        create = partial(_spoken, request, partial(self._create, request, who))
        tell = partial(self._tell, request)
        await _answer(request, {b"OPTIONS": tell, b"GET": look, b"HEAD": look, b"POST": create})

    async def _tell(self, request: Request) -> None:
        """What this server can do."""
        facts = (
            tus.VERSIONS,
            (b"Tus-Extension", tus.EXTENSIONS),
            tus.number(b"Tus-Max-Size", self._limit),
            (b"Tus-Checksum-Algorithm", b",".join(tus.ALGORITHMS)),
        )
        request.begin(HTTPStatus.NO_CONTENT, (*facts, *_ALWAYS))
        request.end()

    async def _list(self, request: Request, who: Principal) -> None:
        directory = RelPath.parse(request.parameters().get("dir", "/"))
        found = [self._shown(one) for one in await self._uploads.list(who, directory)]
        request.answer(HTTPStatus.OK, msgspec.json.encode(found), _JSON, (*_ALWAYS, *_FRESH))

    def _shown(self, one: Standing) -> dict[str, object]:
        row, mtime = one.row, one.row.mtime_ns
        return {
            "id": row.id,
            "url": self._url(row),
            "path": printable(str(path_of(row))),
            "size": row.size,
            "offset": one.offset,
            "expires": row.expires,
            "mtime": None if mtime is None else mtime // 10**6,
        }

    async def _create(self, request: Request, who: Principal) -> None:
        wish, length = self._wish(request), request.head.length
        client = _client(request, who)
        if length == 0:
            row = await self._uploads.create(client, wish)
            return self._created(request, row, ())
        check = self._check_part(request)
        if (length or 0) > wish.size:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is longer than the upload")
        with self._receiver.place() as place:
            row = await self._uploads.create(client, wish)
            try:
                receive = partial(_receive, place, request)
                standing = await self._uploads.append(client, row.id, 0, check, receive)
            except BaseException:
                # Nobody has learnt its address, and its name is wanted when they come again.
                await self._uploads.drop(client, row)
                raise
        self._created(request, standing.row, (tus.number(b"Upload-Offset", standing.offset),))

    def _created(self, request: Request, row: UploadRow, headers: tuple[Header, ...]) -> None:
        location = (b"Location", self._url(row).encode("ascii"))
        fields = (location, *headers, *_until(row), *_ALWAYS, *_FRESH)
        request.answer(HTTPStatus.CREATED, b"", _TEXT, fields)

    def _wish(self, request: Request) -> Wish:
        """What a client asks for. Raises `BadRequestError`, `FileNameError`, and 413."""
        if request.fields(b"upload-concat"):
            raise BadRequestError(_NO_CONCATENATION)
        size = tus.read_number(request.fields(b"upload-length"), "Upload-Length")
        if size is None:
            raise BadRequestError("Upload-Length is missing: say how long the file is")
        if size > self._limit:
            raise too_large(self._limit)
        metadata = tus.read_metadata(request.fields(b"upload-metadata"))
        query = request.parameters()
        conflict = conflict_of(query.get("conflict", Conflict.ABORT))
        directory = RelPath.parse(query.get("dir", "/"))
        return Wish(directory, _name(metadata), size, conflict, metadata.mtime_ns, metadata.text)

    # -- one upload

    async def _one(self, request: Request, who: Principal, below: bytes) -> None:
        asked = request, _client(request, who), below.decode("latin-1")
        answers: dict[bytes, _Answer] = {b"OPTIONS": partial(self._tell, request)}
        for method, answer in ((b"HEAD", self._head), (b"PATCH", self._patch), (b"DELETE", self._delete)):
            answers[method] = partial(_spoken, request, partial(answer, *asked))
        await _answer(request, answers)

    async def _head(self, request: Request, client: Client, upload: str) -> None:
        row, offset = await self._uploads.standing(client, upload)
        metadata = ((b"Upload-Metadata", row.metadata.encode("ascii")),) if row.metadata else ()
        facts = (tus.number(b"Upload-Offset", offset), tus.number(b"Upload-Length", row.size))
        request.answer(HTTPStatus.OK, b"", _TEXT, (*facts, *metadata, *_until(row), *_ALWAYS, *_FRESH))

    async def _patch(self, request: Request, client: Client, upload: str) -> None:
        check = self._check_part(request)
        offset = tus.read_number(request.fields(b"upload-offset"), "Upload-Offset")
        if offset is None:
            raise BadRequestError("Upload-Offset is missing: say where this part begins")
        with self._receiver.place() as place:
            receive = partial(_receive, place, request)
            row, offset = await self._uploads.append(client, upload, offset, check, receive)
        request.begin(
            HTTPStatus.NO_CONTENT,
            (tus.number(b"Upload-Offset", offset), *_until(row), *_ALWAYS, *_FRESH),
        )
        request.end()

    async def _delete(self, request: Request, client: Client, upload: str) -> None:
        await self._uploads.terminate(client, upload)
        request.begin(HTTPStatus.NO_CONTENT, _ALWAYS)
        request.end()

    # -- parts of answers

    def _check_part(self, request: Request) -> tus.Checksum | None:
        """What the body must come to, if that is said. Raises 415, `BadRequestError`."""
        if not tus.is_part(request.fields(b"content-type")):
            raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, _NO_PART)
        refuse_coding(request)
        return tus.read_checksum(request.fields(b"upload-checksum"))

    def _url(self, row: UploadRow) -> str:
        return f"{self._prefix}/-/uploads/{row.id}"


async def _receive(place: Place, request: Request, take: Take, missing: int) -> None:
    if (request.head.length or 0) > missing:
        sentence = f"the upload lacks {missing} bytes, and the body has more"
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
    await place.receive(request, take, limit=missing)


def _client(request: Request, who: Principal) -> Client:
    return Client(who, holder_of(request, who), request.abort, lambda: request.gone)


def _method(request: Request) -> bytes:
    """The method that is meant: what a client puts into a field that cannot send it otherwise.

    Only where the request itself may change something: a GET that claims to be a POST has passed none of the
    checks that a POST has.
    """
    meant = tus.one_of(request.fields(b"x-http-method-override"), "X-HTTP-Method-Override")
    if meant is None or request.method in (b"GET", b"HEAD", b"OPTIONS"):
        return request.method
    return meant.upper()


def _check_version(request: Request) -> None:
    """Raise 412 for a client of another version."""
    if list(request.fields(b"tus-resumable")) != [tus.VERSION]:
        raise HttpError(HTTPStatus.PRECONDITION_FAILED, _NO_VERSION, (tus.VERSIONS,))


def _name(metadata: tus.Metadata) -> RelPath | None:
    """The path that a file is to have below its directory; None where nothing is said.

    Raises `FileNameError` for what is none.
    """
    values = {key: os.fsdecode(value) for key, value in metadata.values.items()}
    # JavaScript spells what is missing like this.
    if (path := values.get("relativePath", "")) not in ("", "null", "undefined"):
        if not (found := RelPath.parse(path)):
            raise FileNameError
        return found
    name = values.get("filename") or values.get("name")
    return RelPath([name]) if name else None


def _until(row: UploadRow) -> tuple[Header, ...]:
    return () if row.done else (tus.expires(row.expires),)


def _mismatch(request: Request, error: tus.ChecksumMismatch) -> None:
    text = f"ERROR - {error}".encode("ascii")
    fields = ((b"Content-Type", _TEXT), tus.number(b"Content-Length", len(text)), *_ALWAYS, *_FRESH)
    request.begin(tus.MISMATCH, fields, reason=tus.MISMATCH_REASON)
    request.write(text)
    request.end()


async def _answer(request: Request, answers: Mapping[bytes, _Answer]) -> None:
    """Answer by the method that is meant."""
    method = _method(request)
    if method not in answers:
        # Of the request itself: what a field says is no method that nobody knows, but none of these.
        raise no_method(request.method, answers)
    await answers[method]()


async def _spoken(request: Request, answer: _Answer) -> None:
    """Answer who speaks this version, with the errors in tus's words."""
    _check_version(request)
    try:
        with through_directories():
            await answer()
    except tus.ChecksumMismatch as error:
        _mismatch(request, error)
    except WrongOffset as error:
        field = tus.number(b"Upload-Offset", error.offset)
        raise HttpError(HTTPStatus.CONFLICT, str(error), (field,)) from None
    except Gone as error:
        raise HttpError(HTTPStatus.GONE, str(error)) from None
    except BusyError as error:
        raise HttpError(HTTPStatus.LOCKED, str(error), _LOCKED) from None
