"""The HTTP door: its routes, and one short method for each.

`HttpDoor.serve` is what every request passes: route, method, Host, caller, origin, right; then the route's
own method answers. Verbs are `exports`'; what HTTP says of files is `web.ranges`'; bodies are
`http_bodies`'.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fileexport import __version__
from fileexport.errors import (
    AuthenticationError,
    BadRequestError,
    NotGranted,
    PeerGone,
    UnexpectedError,
    row_for,
    sentence_of,
)
from fileexport.exports import Exports, Pattern
from fileexport.http_bodies import Bodies
from fileexport.http_listings import files_json
from fileexport.http_queries import (
    CONFLICTS,
    FILE_FORMATS,
    JOB_FORMATS,
    TAR_FORMATS,
    TREE_FORMATS,
    directory_of,
    form_of,
    required,
    selection_of,
)
from fileexport.http_sessions import wrong_token
from fileexport.paths import RelPath
from fileexport.pools import Worker
from fileexport.tokens import Principal, Right
from fileexport.web import pages
from fileexport.web.access import FORWARDING, Act, Caller, Doorkeeper
from fileexport.web.failures import HttpError, fail, no_method
from fileexport.web.forwarded import client_of
from fileexport.web.head import Head, MalformedRequest
from fileexport.web.origin import FROM_PAGE, Names, cross_site, host_is_allowed, host_name
from fileexport.web.request import Header, Request
from fileexport.web.routes import Answer, Open, Route, Routes, acting, own_names, reading
from fileexport.web.share_links import without_key

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"
_HTML = b"text/html; charset=utf-8"
#: What a mounted handler's methods need: it is taken at its word that reading ones only read.
_MOUNTED: dict[bytes, Right | Open] = {
    **dict.fromkeys((b"GET", b"HEAD", b"OPTIONS"), Right.READ),
    **dict.fromkeys((b"POST", b"PUT", b"DELETE", b"PATCH"), Right.WRITE),
}
#: What is exported changes; a client asks again whether its copy still holds.
_FRESH = ((b"Cache-Control", b"no-cache"),)
#: Answers a request for an application's own handler; of the path it is given what lies below the mount.
Mounted = Callable[[Request, bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the door needs of the daemon around it.

    `owner` tells the uid behind a connection, `is_proxy` whether an address is a trusted proxy's. `enter`
    lets one request of an address behind it in (what it returns lets it out again) or says None. `stop`
    begins the daemon's graceful stop. `metrics` makes their page in a thread: its content type, its text.
    `prefix` stands before our paths where a reverse proxy puts one. `max_file`: bytes of a file that comes
    in.
    """

    owner: Callable[[object], int | None]
    is_proxy: Callable[[str], bool]
    enter: Callable[[str], Callable[[], None] | None]
    stop: Callable[[], None]
    metrics: Callable[[], tuple[bytes, bytes]]
    names: Names
    prefix: str = ""
    max_file: int = 1 << 40


class Room(Protocol):
    """A part of the door with routes of its own."""

    def routes(self) -> tuple[Route[Answer], ...]: ...


class HttpDoor:
    """Answers every HTTP request of the daemon."""

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        exports: Exports,
        keeper: Doorkeeper,
        disk: Worker,
        bodies: Bodies,
        rooms: Iterable[Room],
        around: Surroundings,
        mounts: Mapping[str, Mounted] = MappingProxyType({}),
    ) -> None:
        """`rooms` answer further routes.

        `mounts`: an application's own handlers, by the path that each has with all that lies below.
        """
        self._reactor = reactor
        self._exports = exports
        self._keeper = keeper
        self._disk = disk
        self._bodies = bodies
        self._around = around
        # Clients repeat themselves: a name is judged once.
        self._is_our_host = lru_cache(maxsize=256)(lambda host: host_is_allowed(host, around.names))
        self._names = own_names(mounts)
        others = (route for room in rooms for route in room.routes())
        self.routes: Routes[Answer] = Routes((*self._table(), *others, *_mounted(mounts)))

    def _table(self) -> tuple[Route[Answer], ...]:
        """Every route of our own, with the right that each of its methods needs."""
        delete, admin = Right.DELETE, Right.ADMIN
        return (
            Route("/list", self._list, reading(), plain=True),
            Route("/get", self._get, reading(), plain=True),
            Route("/delete", self._delete, acting(delete, b"POST", b"DELETE"), plain=True),
            Route("/stop", self._stop, acting(admin, b"POST"), plain=True, local_only=True),
            Route("/favicon.ico", self._favicon, reading(Open.TO_ALL)),
            Route("/-/static/*", self._static, reading(Open.TO_ALL)),
            Route("/-/health", self._health, reading(Open.TO_ALL), plain=True),
            Route("/-/openapi.json", self._describe, reading(Open.TO_ALL), plain=True),
            Route("/-/metrics", self._measure, reading(admin), plain=True),
            Route("/-/*", self._nothing, reading(Open.TO_ALL)),
        )

    # -- what every request passes

    async def serve(self, request: Request) -> None:
        """Answer one request. Raises only when the answer had begun: the connection must be broken then."""
        plain, always = False, tuple[Header, ...]()
        try:
            route, below = self._route(request)
            # Who changes something is a program, unless it asks for a page.
            plain, always = route.plain or not request.is_safe, route.headers
            self._let_in(request)
            request.who = await self._admit(request, route)
            await route.answer(request, request.who, below)
        except PeerGone:
            raise
        except Exception as error:
            if request.began:
                raise
            expected = isinstance(error, HttpError | MalformedRequest)
            if not expected and row_for(error).kind is UnexpectedError:
                path = without_key(request.path)
                self._log.failure("{method} {path} failed", method=request.method, path=path)
            fail(request, error, plain=plain, prefix=self._around.prefix, always=always)

    def reads(self, head: Head) -> bool:
        """Whether the body that a head announces will be read, if its sender may have it read."""
        path = head.target.partition(b"?")[0]
        if not path.startswith(b"/"):
            return False
        route, _ = self.routes.find(path)
        return head.method in route.body and head.method in route.rights

    def _route(self, request: Request) -> tuple[Route[Answer], bytes]:
        if request.path == b"*":
            # OPTIONS for the server itself (RFC 9110, section 9.3.7): answered as for its root.
            return self.routes.find(b"/")
        if not request.path.startswith(b"/"):
            raise BadRequestError("the request has no path")
        return self.routes.find(request.path)

    async def _admit(self, request: Request, route: Route[Answer]) -> Principal:
        """Say who asks. Raises where the request must not be answered."""
        self._check_host(request)
        right = route.rights.get(request.method)
        if right is None:
            raise no_method(request.method, route.rights)
        request.caller = caller = self._caller(request)
        if route.local_only and not caller.is_local:
            raise HttpError(HTTPStatus.FORBIDDEN, "only a process of this machine may ask for this")
        act = self._check_act(request, route)
        if isinstance(right, Open):
            who = Principal.anonymous(Right(0))
        else:
            who = await self._identify(request, caller, right, act)
            if not who.may(right):
                raise self._refusal(who)
        if request.oversized:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "this path takes no body of that size")
        return who

    def _check_act(self, request: Request, route: Route[Answer]) -> Act:
        """What the request does, and who says so. Raises where a page of another site may have sent it."""
        if request.is_safe and not route.acts:
            return Act.READ
        self._check_origin(request)
        if request.is_safe:
            return Act.GET
        return Act.OWN_PAGE if request.has_any(FROM_PAGE) else Act.CHANGE

    async def _identify(self, request: Request, caller: Caller, right: Right, act: Act) -> Principal:
        """The principal behind a request. Raises `HttpError` for a wrong token, and takes its time."""
        try:
            credentials = self._keeper.credentials(request.fields)
            return self._keeper.identify(credentials, caller, right=right, act=act, now=request.now)
        except AuthenticationError as error:
            await wrong_token(self._reactor, request)
            raise _unauthorized(str(error)) from None

    def _let_in(self, request: Request) -> None:
        """Behind a trusted proxy the client's own address decides, as at the gate."""
        peer = request.client
        request.client = client_of(peer, request.fields, self._around.is_proxy)
        if request.client is None or request.client == peer:
            return
        leave = self._around.enter(request.client)
        if leave is None:
            request.last()
            raise HttpError(HTTPStatus.FORBIDDEN, "this address is not let in")
        request.notifyFinish().addBoth(lambda _: leave())

    def _check_host(self, request: Request) -> None:
        host = request.head.host
        if host is None or self._is_our_host(host):
            return
        if host_name(host) is None:
            raise BadRequestError("the Host is malformed")
        raise HttpError(
            HTTPStatus.FORBIDDEN, "this Host name is not ours: the daemon's --allow-host adds names"
        )

    def _check_origin(self, request: Request) -> None:
        reason = cross_site(
            request.method, request.fields, secure=request.wire.secure, names=self._around.names
        )
        if reason is not None:
            raise HttpError(HTTPStatus.FORBIDDEN, reason)

    def _caller(self, request: Request) -> Caller:
        forwarded = request.has_any(FORWARDING)
        peer = getattr(request.wire.peer, "host", None)
        transport = request.wire.transport
        return Caller(
            local=request.wire.local,
            forwarded=forwarded or (peer is not None and self._around.is_proxy(peer)),
            owner=partial(self._around.owner, transport),
        )

    @staticmethod
    def _refusal(who: Principal) -> HttpError:
        if who.is_anonymous:
            return _unauthorized("a token that grants this is needed")
        return HttpError(HTTPStatus.FORBIDDEN, sentence_of(NotGranted))

    # -- the export API

    async def _list(self, request: Request, who: Principal, below: bytes) -> None:
        query = request.parameters()
        directory = directory_of(query)
        prefix = self._around.prefix
        await self._bodies.made(
            request, _JSON, _FRESH, files_json, self._exports, who, directory, query, prefix, self._names
        )

    async def _get(self, request: Request, who: Principal, below: bytes) -> None:
        query = request.parameters()
        path = directory_of(query) / required(query, "name")
        form = form_of(query)
        opened = self._exports.open(who, path)
        if opened is None or opened.is_directory:
            if opened is not None:
                opened.close()
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with opened:
            if form is None:
                await self._bodies.attachment(request, opened, path.name)
            else:
                await self._bodies.compressed(request, opened, path.name, form)

    async def _delete(self, request: Request, who: Principal, below: bytes) -> None:
        query = request.parameters()
        directory, chosen = directory_of(query), selection_of(query)
        if isinstance(chosen, Pattern):
            count = await self._disk.run(self._exports.remove_matching, who, directory, chosen)
        else:
            await self._disk.run(self._exports.remove_file, who, directory / chosen)
            count = 1
        text = f"deleted {count} file" + ("" if count == 1 else "s")
        request.answer(HTTPStatus.OK, text.encode("ascii"), _TEXT, _FRESH)

    async def _stop(self, request: Request, who: Principal, below: bytes) -> None:
        request.last()
        request.answer(HTTPStatus.OK, b"stopping", _TEXT, _FRESH)
        self._around.stop()

    # -- our own

    async def _nothing(self, request: Request, who: Principal, below: bytes) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    async def _health(self, request: Request, who: Principal, below: bytes) -> None:
        request.answer(HTTPStatus.OK, b"ok", _TEXT, ((b"Cache-Control", b"no-store"),))

    async def _describe(self, request: Request, who: Principal, below: bytes) -> None:
        # Imported late: most daemons are never asked.
        from fileexport.web import openapi

        formats = openapi.Formats(JOB_FORMATS, TAR_FORMATS, FILE_FORMATS, TREE_FORMATS, CONFLICTS)
        description = openapi.encoded(__version__, self._around.prefix, formats)
        request.answer(HTTPStatus.OK, description, _JSON, _FRESH)

    async def _measure(self, request: Request, who: Principal, below: bytes) -> None:
        content_type, page = await self._bodies.away(request, self._around.metrics)
        request.answer(HTTPStatus.OK, page, content_type, ((b"Cache-Control", b"no-store"),))

    async def _favicon(self, request: Request, who: Principal, below: bytes) -> None:
        await self._static(request, who, b"/favicon.ico")

    async def _static(self, request: Request, who: Principal, below: bytes) -> None:
        found = pages.static_file(below[1:].decode("latin-1"))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._bodies.static(request, *found)


def _mounted(mounts: Mapping[str, Mounted]) -> Iterator[Route[Answer]]:
    """The routes of an application's own handlers."""
    for prefix, serve in mounts.items():
        answer = partial(_answer_mounted, RelPath.parse(prefix), serve)
        for path in (prefix, f"{prefix}/*"):
            yield Route(path, answer, _MOUNTED, plain=True, body=tuple(_MOUNTED))


async def _answer_mounted(
    place: RelPath, serve: Mounted, request: Request, who: Principal, below: bytes
) -> None:
    # As for what is exported: outside of the part of the root that a caller sees there is nothing.
    if not who.under.holds(place):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    await serve(request, below)


def _unauthorized(sentence: str) -> HttpError:
    challenge = b'Basic realm="fileexport", charset="UTF-8"'
    headers = ((b"WWW-Authenticate", b"Bearer"), (b"WWW-Authenticate", challenge))
    return HttpError(HTTPStatus.UNAUTHORIZED, sentence, headers)
