"""The exported tree by its own paths: files, directories as pages, as JSON, as archives.

Whatever changes something at such a path (PUT, POST, DELETE) is answered by others, who are handed in.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from http import HTTPStatus
from types import MappingProxyType

from fileexport.disk.jail import Opened
from fileexport.disk.trees import TreeForm
from fileexport.exports import Exports
from fileexport.http_bodies import Bodies
from fileexport.http_listings import directory_json, full_page, page_json, plain_page
from fileexport.http_queries import TREE_FORMATS, one_of, view_of
from fileexport.paths import RelPath
from fileexport.tokens import Principal, Right
from fileexport.web.directory import Visitor, directory_page
from fileexport.web.pages import FILES_ROUTE, PAGE_POLICY, Addresses, scripted_policy
from fileexport.web.request import Request
from fileexport.web.routes import Answer, Open, Route, reading

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"
_HTML = b"text/html; charset=utf-8"
#: What is exported changes; a client asks again whether its copy still holds.
_FRESH = ((b"Cache-Control", b"no-cache"),)
#: A page is another one for other eyes.
_PAGE = (*_FRESH, (b"Vary", b"Accept, Authorization, Cookie"))

#: What each method needs that changes something.
CHANGES: Mapping[bytes, Right] = MappingProxyType(
    {b"PUT": Right.WRITE, b"POST": Right.WRITE, b"DELETE": Right.DELETE}
)


def as_asked(request: Request, who: Principal) -> Visitor:
    """A visitor who may do what the request itself was granted."""
    return Visitor(who.rights, "" if who.is_anonymous else who.name)


class BrowseDoor:
    """Answers the paths of the exported tree."""

    def __init__(
        self,
        exports: Exports,
        bodies: Bodies,
        prefix: str,
        names: frozenset[str],
        changes: Mapping[bytes, Answer] = MappingProxyType({}),
        visitor: Callable[[Request, Principal], Visitor] = as_asked,
    ) -> None:
        """`changes` answers methods of `CHANGES`; those that are missing are not allowed.

        `prefix` and `names` are those of `Addresses`. `visitor` says the most that the one who asks for a
        page may do there.
        """
        self._exports = exports
        self._bodies = bodies
        self._addresses = Addresses(prefix, names)
        self._changes = changes
        self._visitor = visitor

    def routes(self) -> tuple[Route[Answer], ...]:
        """The routes of the exported tree, with their rights."""
        rights: dict[bytes, Right | Open] = reading()
        rights |= {method: right for method, right in CHANGES.items() if method in self._changes}
        bodies = tuple(method for method in (b"PUT", b"POST") if method in self._changes)
        return tuple(
            Route(path, self._answer, rights, body=bodies) for path in ("/-/files", "/-/files/*", "/*")
        )

    async def _answer(self, request: Request, who: Principal, below: bytes) -> None:
        await self._changes.get(request.method, self._browse)(request, who, below)

    async def _browse(self, request: Request, who: Principal, below: bytes) -> None:
        await self.show(request, who, RelPath.from_url(below), self._addresses, self._visitor)

    async def show(
        self,
        request: Request,
        who: Principal,
        path: RelPath,
        addresses: Addresses,
        visitor: Callable[[Request, Principal], Visitor] | None = None,
    ) -> None:
        """Answer with a file, or with a directory in the form that is asked for.

        Links are those of `addresses`. Without a `visitor`, as for a share, a directory has no forms; it is
        asked for a page only, since the kernel may have to say whose process asks.
        """
        query = request.parameters()
        opened = self._exports.open(who, path)
        with opened or nullcontext():
            if opened is not None and not opened.is_directory:
                return await self._file(request, opened, path)
        if path and not request.path.endswith(b"/"):
            return self._redirect(request, path, addresses)
        if "archive" in query:
            return await self._archive(request, who, path, query["archive"])
        made, all_of_it = self._bodies.made, (self._exports, who, path)
        if query.get("json") == "page":
            await made(request, _JSON, _FRESH, page_json, *all_of_it, addresses)
        elif "json" in query:
            await made(request, _JSON, _FRESH, directory_json, *all_of_it)
        elif request.accepts(b"text/html"):
            nonce = secrets.token_urlsafe(16)
            look = partial(
                directory_page,
                view=view_of(query),
                visitor=visitor and visitor(request, who),
                nonce=nonce,
                changeable=opened is not None,
            )
            headers = (*_PAGE, *scripted_policy(nonce))
            await made(request, _HTML, headers, full_page, *all_of_it, addresses, look)
        else:
            await made(request, _HTML, (*_PAGE, *PAGE_POLICY), plain_page, *all_of_it, addresses)

    async def _archive(self, request: Request, who: Principal, path: RelPath, form: str) -> None:
        kind = TreeForm(one_of("archive", form, TREE_FORMATS))
        await self._bodies.archive(request, kind.content_type, self._exports.archive, who, path, kind)

    async def _file(self, request: Request, opened: Opened, path: RelPath) -> None:
        if request.path.endswith(b"/"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        await self._bodies.inline(request, opened, path.name)

    def _redirect(self, request: Request, path: RelPath, addresses: Addresses) -> None:
        if request.path.startswith(b"/-/files/"):
            addresses = Addresses(addresses.prefix, base=FILES_ROUTE)
        # From the parsed path: a request for `//host/x` must not become a link to another host.
        url = addresses.directory(path)
        query = request.head.target.partition(b"?")[1:]
        location = url.encode("ascii") + b"".join(query)
        request.answer(HTTPStatus.MOVED_PERMANENTLY, b"", _TEXT, ((b"Location", location), *_FRESH))
