"""Links that show a part of the root, read-only and for a time: made, taken back, followed.

Whoever follows one comes as the share's own visitor, through the same jail and by the same answers as
everybody else, and sees the directory that is shared as the root.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from http import HTTPStatus
from typing import Protocol

import msgspec

from fileexport.disk.access_store import ShareRow
from fileexport.errors import BadRequestError
from fileexport.exports import Exports
from fileexport.http_bodies import Bodies
from fileexport.http_browse import BrowseDoor
from fileexport.paths import RelPath
from fileexport.shares import DEFAULT_TIME, LENDING, Shares
from fileexport.tokens import Principal, Right
from fileexport.web.access import Doorkeeper
from fileexport.web.forms import form_of
from fileexport.web.pages import PAGE_POLICY, Addresses
from fileexport.web.request import Header, Request
from fileexport.web.routes import Answer, Open, Route, reading
from fileexport.web.share_links import SHARE_ROUTE, SHARES_ROUTE, SharedLink, shares_page

#: Bytes of a body that asks for a share: a path of 4 KiB, percent-encoded twice.
MAX_BODY = 64 << 10

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"
_HTML = b"text/html; charset=utf-8"
_SECRET: tuple[Header, ...] = ((b"Cache-Control", b"no-store"),)


class NewShare(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON that asks for a share: a path as a URL has it, and how long the link lasts."""

    path: str
    seconds: int = DEFAULT_TIME


class ShareRooms(Protocol):
    """Where the shares are, from the first request on."""

    @property
    def shares(self) -> Shares: ...


class SharesDoor:
    """Answers for shares, and whoever follows one."""

    def __init__(
        self,
        exports: Exports,
        keeper: Doorkeeper,
        rooms: ShareRooms,
        bodies: Bodies,
        browse: BrowseDoor,
        prefix: str,
    ) -> None:
        """`browse` shows directories; `prefix` is that of `Addresses`."""
        self._exports = exports
        self._keeper = keeper
        self._rooms = rooms
        self._bodies = bodies
        self._browse = browse
        self._prefix = prefix

    def routes(self) -> tuple[Route[Answer], ...]:
        """The routes of this room, with their rights. To follow a link its key is all that is needed."""
        write = Right.WRITE
        # Both show links.
        many = {**reading(LENDING), b"POST": LENDING}
        return (
            Route(SHARES_ROUTE, self._many, many, plain=True, body=(b"POST",)),
            Route(f"{SHARES_ROUTE}/{{id}}", self._revoke, {b"DELETE": write}, plain=True),
            Route(f"{SHARES_ROUTE}/{{id}}/revoke", self._revoke, {b"POST": write}, plain=True),
            Route(f"{SHARE_ROUTE}/*", self._follow, reading(Open.TO_ALL)),
        )

    # -- those who share

    async def _many(self, request: Request, who: Principal, below: bytes) -> None:
        if request.method == b"POST":
            return await self._make(request, who)
        rows = self._rooms.shares.seen_by(who, request.now)
        links = [self._link(row) for row in rows]
        if request.accepts(b"json") or not request.accepts(b"text/html"):
            await self._bodies.whole(
                request, msgspec.json.encode(links), ((b"Content-Type", _JSON), *_SECRET)
            )
            return
        labelled = [(link, _label(row)) for link, row in zip(links, rows, strict=True)]
        owners = any(row.owner != who.owner for row in rows)
        headers = (*PAGE_POLICY, *_SECRET)
        await self._bodies.made(
            request, _HTML, headers, shares_page, labelled, prefix=self._prefix, owners=owners
        )

    async def _make(self, request: Request, who: Principal) -> None:
        wish = await _read_wish(request)
        path = RelPath.from_url(wish.path.encode("utf-8", "surrogateescape"))
        is_directory = self._is_directory(who, path)
        row = await self._rooms.shares.add(
            who, path, is_directory=is_directory, seconds=wish.seconds, now=request.now
        )
        link = self._link(row)
        if request.accepts(b"json"):
            request.answer(HTTPStatus.CREATED, msgspec.json.encode(link), _JSON, _SECRET)
        elif request.accepts(b"text/html"):
            self._back(request, f"#share-{row.id}")
        else:
            request.answer(HTTPStatus.CREATED, link.url.encode("ascii"), _TEXT, _SECRET)

    def _is_directory(self, who: Principal, path: RelPath) -> bool:
        """Whether what is to be shared is a directory. Raises `OSError` where `who` does not see it.

        Also where a link stands on the way: what it leads to tomorrow nobody has shared.
        """
        # There is no file above the exported directories.
        is_directory = True
        for one in (who, replace(who, under=path, bound="file")):
            if (opened := self._exports.open(one, path)) is not None:
                is_directory = opened.is_directory
                opened.close()
        return is_directory

    async def _revoke(self, request: Request, who: Principal, below: bytes) -> None:
        row = self._rooms.shares.get(below.decode("latin-1"), who, request.now)
        if row is None:
            raise _not_found()
        await self._rooms.shares.revoke(row)
        if request.method == b"POST" and request.accepts(b"text/html"):
            return self._back(request)
        request.begin(HTTPStatus.NO_CONTENT, _SECRET)
        request.end()

    def _back(self, request: Request, anchor: str = "") -> None:
        location = f"{self._prefix}{SHARES_ROUTE}{anchor}".encode("ascii")
        request.answer(HTTPStatus.SEE_OTHER, b"", _TEXT, ((b"Location", location), *_SECRET))

    def _link(self, row: ShareRow) -> SharedLink:
        slash = "/" if row.is_directory else ""
        return SharedLink(
            id=row.id,
            path=row.path.url(),
            type="directory" if row.is_directory else "file",
            url=f"{self._prefix}{SHARE_ROUTE}/{self._rooms.shares.key(row)}{slash}",
            created=row.created,
            expires=row.expires,
            owner=row.owner,
        )

    # -- those who follow a link

    async def _follow(self, request: Request, who: Principal, below: bytes) -> None:
        key, slash, rest = below[1:].partition(b"/")
        shared = self._rooms.shares.find(key.decode("latin-1"), self._keeper.holders, request.now)
        if shared is None:
            raise _not_found()
        request.who = visitor = shared.visitor
        top = shared.share.path
        if not shared.share.is_directory:
            if slash or not await self._send(request, visitor, top):
                raise _not_found()
            return
        path = top + RelPath.from_url(rest)
        if "download" in request.parameters() and await self._send(request, visitor, path):
            return
        place = Addresses(self._prefix, base=f"{SHARE_ROUTE}/{key.decode('ascii')}", top=top)
        await self._browse.show(request, visitor, path, place)

    async def _send(self, request: Request, visitor: Principal, path: RelPath) -> bool:
        """Send what is there, if it is a file; False where it is none, and nothing was sent."""
        opened = self._exports.open(visitor, path)
        if opened is None:
            return False
        with opened:
            if opened.is_directory or request.path.endswith(b"/"):
                return False
            keep = "download" in request.parameters()
            send = self._bodies.attachment if keep else self._bodies.inline
            await send(request, opened, path.name)
        return True


async def _read_wish(request: Request) -> NewShare:
    kinds, body = request.fields(b"content-type"), await request.read_body(MAX_BODY)
    if [kind.partition(b";")[0].strip().lower() for kind in kinds] == [_JSON]:
        try:
            return msgspec.json.decode(body, type=NewShare)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise BadRequestError(f"this JSON asks for no link: {error}") from None
    form = form_of(kinds, body)
    path, seconds = form.one("path"), form.one("seconds") or str(DEFAULT_TIME)
    if path is None:
        raise BadRequestError("the field path is missing: say what is to be shared")
    if not (seconds.isascii() and seconds.isdecimal() and len(seconds) <= 10):
        raise BadRequestError("the field seconds is no number")
    return NewShare(path, int(seconds))


def _label(row: ShareRow) -> str:
    """The path for people."""
    return str(row.path) + ("/" if row.is_directory and row.path else "")


def _not_found() -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
