"""The exported tree by its own paths: files, directories as pages, as JSON, as archives.

Whatever changes something at such a path (PUT, POST, DELETE) is answered by others, who are handed in.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from fileexport.disk.jail import Opened
from fileexport.disk.trees import TreeForm
from fileexport.exports import Exports
from fileexport.http_bodies import Bodies
from fileexport.http_listings import directory_json, directory_page
from fileexport.http_queries import TREE_FORMATS, one_of
from fileexport.paths import RelPath
from fileexport.tokens import Principal, Right
from fileexport.web import pages
from fileexport.web.request import Request
from fileexport.web.routes import Answer, Open, Route, reading

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"
_HTML = b"text/html; charset=utf-8"
#: What is exported changes; a client asks again whether its copy still holds.
_FRESH = ((b"Cache-Control", b"no-cache"),)

#: What each method needs that changes something.
CHANGES: Mapping[bytes, Right] = MappingProxyType(
    {b"PUT": Right.WRITE, b"POST": Right.WRITE, b"DELETE": Right.DELETE}
)


class BrowseDoor:
    """Answers the paths of the exported tree."""

    def __init__(
        self,
        exports: Exports,
        bodies: Bodies,
        prefix: str,
        names: frozenset[str],
        changes: Mapping[bytes, Answer] = MappingProxyType({}),
    ) -> None:
        """`changes` answers methods of `CHANGES`; those that are missing are not allowed.

        `prefix` and `names` are those of `pages.url_of`.
        """
        self._exports = exports
        self._bodies = bodies
        self._prefix = prefix
        self._names = names
        self._changes = changes

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
        path = RelPath.from_url(below)
        query = request.parameters()
        opened = self._exports.open(who, path)
        if opened is not None:
            with opened:
                if not opened.is_directory:
                    return await self._file(request, opened, path, below)
        if not below.endswith(b"/") and path:
            return self._redirect(request, path)
        if "archive" in query:
            return await self._archive(request, who, path, query["archive"])
        make, kind = (directory_json, _JSON) if "json" in query else (directory_page, _HTML)
        headers = _FRESH if "json" in query else (*_FRESH, *pages.PAGE_POLICY)
        await self._bodies.made(
            request, kind, headers, make, self._exports, who, path, self._prefix, self._names
        )

    async def _archive(self, request: Request, who: Principal, path: RelPath, form: str) -> None:
        kind = TreeForm(one_of("archive", form, TREE_FORMATS))
        await self._bodies.archive(request, kind.content_type, self._exports.archive, who, path, kind)

    async def _file(self, request: Request, opened: Opened, path: RelPath, below: bytes) -> None:
        if below.endswith(b"/"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        await self._bodies.inline(request, opened, path.name)

    def _redirect(self, request: Request, path: RelPath) -> None:
        # From the parsed path: a request for `//host/x` must not become a link to another host.
        prefix = self._prefix
        if request.path.startswith(b"/-/files/"):
            url = prefix + pages.FILES_ROUTE + path.url()
        else:
            url = pages.url_of(path, prefix, self._names)
        query = request.head.target.partition(b"?")[1:]
        location = f"{url}/".encode("ascii") + b"".join(query)
        request.answer(HTTPStatus.MOVED_PERMANENTLY, b"", _TEXT, ((b"Location", location), *_FRESH))
