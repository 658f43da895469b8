"""Signing in with a token, and out again: a cookie in place of the token, for browsers.

Behind the checks that every request passes: a page of another site signs nobody in or out.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from fileexport.errors import PeerGone
from fileexport.sessions import SESSION_TIME, Sessions
from fileexport.tokens import Principal
from fileexport.web import pages
from fileexport.web.access import Doorkeeper, Source
from fileexport.web.cookies import Cookie, cookie_value
from fileexport.web.directory import Visitor
from fileexport.web.failures import HttpError
from fileexport.web.forms import form_of, is_form
from fileexport.web.request import Header, Request
from fileexport.web.routes import Answer, Open, Route, reading
from fileexport.web.sign_in import SIGN_IN_ROUTE, SIGN_OUT_ROUTE, from_elsewhere, own_path, sign_in_page

#: Seconds before a wrong token is answered, and wrong tokens before the connection is closed.
WRONG_TOKEN_DELAY = 1.0
WRONG_TOKENS = 3
#: Bytes of the form that signs in: a token, and a path, percent-encoded.
MAX_FORM = 16 << 10

_TEXT = b"text/plain; charset=utf-8"
_HTML = b"text/html; charset=utf-8"
_SECRET: tuple[Header, ...] = ((b"Cache-Control", b"no-store"),)


class SessionRooms(Protocol):
    """Where the sessions are, from the first request on."""

    @property
    def sessions(self) -> Sessions: ...


async def wrong_token(reactor: IReactorTime, request: Request) -> None:
    """Make whoever sent a wrong token wait; after some of them the connection ends with its answer.

    Raises `PeerGone` where nobody waits any more.
    """
    await deferLater(reactor, WRONG_TOKEN_DELAY)
    if request.gone:
        raise PeerGone
    request.wire.failures += 1
    if request.wire.failures >= WRONG_TOKENS:
        request.last()


class SessionsDoor:
    """Answers the sign-in and the sign-out."""

    def __init__(
        self, reactor: IReactorTime, keeper: Doorkeeper, rooms: SessionRooms, prefix: str, *, secure: bool
    ) -> None:
        """`secure`: the world reaches us by https, whatever the connection here is."""
        self._reactor = reactor
        self._keeper = keeper
        self._rooms = rooms
        self._prefix = prefix
        self._secure = secure

    def routes(self) -> tuple[Route[Answer], ...]:
        """The routes of this room: open to all, for nobody has signed in yet."""
        both = {**reading(Open.TO_ALL), b"POST": Open.TO_ALL}
        return (
            Route(SIGN_IN_ROUTE, self._sign_in, both, body=(b"POST",)),
            Route(SIGN_OUT_ROUTE, self._sign_out, {b"POST": Open.TO_ALL}, body=(b"POST",)),
        )

    def visitor(self, request: Request, who: Principal) -> Visitor:
        """The most that whoever asked for a page may do from there; `who` is what they asked as."""
        credentials = self._keeper.credentials(request.fields)
        if request.caller is not None:
            who = self._keeper.visitor(credentials, request.caller, request.now)
        if who.is_anonymous:
            return Visitor(who.rights)
        by_cookie = credentials is not None and credentials.source is Source.COOKIE
        return Visitor(who.rights, who.name, by_cookie)

    async def _sign_in(self, request: Request, who: Principal, below: bytes) -> None:
        if request.method != b"POST":
            goal = own_path(request.parameters().get("next"), self._prefix)
            return self._show(request, HTTPStatus.OK, goal, who=self._signed_in(request))
        form = form_of(request.fields(b"content-type"), await request.read_body(MAX_FORM))
        goal = own_path(form.one("next"), self._prefix)
        # A token that was pasted may have brought the end of its line along.
        entry = self._keeper.tokens.find_entry((form.one("token") or "").strip(), request.now)
        if entry is None:
            await wrong_token(self._reactor, request)
            sentence = "this token is not known here, or it has expired"
            if not request.accepts(b"text/html"):
                raise HttpError(HTTPStatus.FORBIDDEN, sentence)
            return self._show(request, HTTPStatus.FORBIDDEN, goal, sentence=sentence)
        # For the access log.
        request.who = entry.principal
        sessions = self._rooms.sessions
        before = cookie_value(request.fields(b"cookie"), sessions.cookie)
        value = await sessions.begin(entry, request.now)
        if before is not None:
            await sessions.end(before)
        self._go_on(request, goal, self._cookie(request).set(value, SESSION_TIME))

    async def _sign_out(self, request: Request, who: Principal, below: bytes) -> None:
        body, lines = await request.read_body(MAX_FORM), request.fields(b"content-type")
        goal = own_path(form_of(lines, body).one("next") if is_form(lines) else None, self._prefix)
        sessions = self._rooms.sessions
        value = cookie_value(request.fields(b"cookie"), sessions.cookie)
        if value is not None:
            await sessions.end(value)
        self._go_on(request, goal, self._cookie(request).clear())

    def _signed_in(self, request: Request) -> str:
        """The name of whoever has a session; empty for everybody else."""
        value = cookie_value(request.fields(b"cookie"), self._rooms.sessions.cookie)
        who = value and self._rooms.sessions.find(value, self._keeper.tokens, request.now)
        return who.name if who else ""

    def _show(
        self, request: Request, status: HTTPStatus, goal: str, *, sentence: str = "", who: str = ""
    ) -> None:
        page = sign_in_page(
            prefix=self._prefix,
            goal=goal,
            status=status,
            sentence=sentence,
            who=who,
            elsewhere=from_elsewhere(request),
        )
        request.answer(status, page, _HTML, (*pages.PAGE_POLICY, *_SECRET))

    def _go_on(self, request: Request, goal: str, cookie: bytes) -> None:
        headers = ((b"Location", goal.encode("ascii")), (b"Set-Cookie", cookie), *_SECRET)
        request.answer(HTTPStatus.SEE_OTHER, b"", _TEXT, headers)

    def _cookie(self, request: Request) -> Cookie:
        secure = self._secure or request.wire.secure
        return Cookie(self._rooms.sessions.cookie, f"{self._prefix}/", secure)
