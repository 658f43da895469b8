"""The door's jobs: compress on the server, wait, watch, cancel, be called back.

The routes stand in `http_resource`'s table, behind the checks that every request passes. A job is there for
whoever asked for it and for an admin; for everybody else it does not exist.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from fileexport.callback_targets import Asker, Target
from fileexport.callbacks import Outbox
from fileexport.disk.schema import Callback, JobRow
from fileexport.errors import BadRequestError, ConflictError, OverloadedError, QueueFull
from fileexport.exports import Exports
from fileexport.http_bodies import Bodies
from fileexport.http_events import CONTENT_TYPE, EventStream, event
from fileexport.http_queries import directory_of, required
from fileexport.job_views import shown, shown_callback
from fileexport.jobs import Event, Jobs
from fileexport.paths import RelPath
from fileexport.pools import Worker
from fileexport.tokens import Principal, Right
from fileexport.web.access import Doorkeeper
from fileexport.web.failures import HttpError
from fileexport.web.request import Header, Request
from fileexport.web.routes import Answer, Route, acting, reading

#: Bytes of the JSON that asks for a job.
MAX_BODY = 64 << 10
#: Seconds that one request may wait for the end of a job; streams of events at once.
MAX_WAIT = 60.0
MAX_EVENT_STREAMS = 256
#: Jobs in one listing.
MAX_JOBS = 1000
#: Seconds after which a client that found the queue full may come again.
RETRY_AFTER = b"10"

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"
#: What a job says is true for a moment.
_FRESH: tuple[Header, ...] = ((b"Cache-Control", b"no-store"),)

Format = Literal["tar.gz", "tar.zst", "zip", "gz", "zst"]
#: Those that `/tar` makes.
_TAR_FORMATS = ("tar.gz", "tar.zst", "zip")


class NewJob(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON that asks for a job: what to compress, how, and whom to tell."""

    path: str
    format: Format = "tar.gz"
    sums: bool = False
    callback: str | None = None


class Rooms(Protocol):
    """The rooms behind the door; they are there before the first request."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def outbox(self) -> Outbox: ...


class _Watcher(NamedTuple):
    """A stream of events and what it shows: one job, or all of an owner (None: of everybody)."""

    stream: EventStream
    owner: str | None
    job: str | None


class JobsDoor:
    """Answers the routes of jobs. `stop` ends what waits for news of them."""

    def __init__(
        self,
        reactor: IReactorTime,
        exports: Exports,
        rooms: Rooms,
        keeper: Doorkeeper,
        disk: Worker,
        bodies: Bodies,
        prefix: str,
    ) -> None:
        self._reactor = reactor
        self._exports = exports
        self._rooms = rooms
        self._keeper = keeper
        self._disk = disk
        self._bodies = bodies
        self._prefix = prefix
        self._watchers: set[_Watcher] = set()
        self._waits: set[Deferred[Any]] = set()
        self._silence: Callable[[], None] | None = None

    def routes(self) -> tuple[Route[Answer], ...]:
        """The routes of jobs, with their rights."""
        write = Right.WRITE
        many = {**reading(write), b"POST": write}
        one = {**reading(write), b"DELETE": write}
        return (
            Route("/tar", self._tar, acting(write), plain=True),
            Route("/-/jobs", self._many, many, body=True),
            Route("/-/jobs/{id}", self._one, one),
            Route("/-/jobs/{id}/events", self._watch_one, reading(write)),
            Route("/-/jobs/{id}/redeliver", self._redeliver, {b"POST": write}),
            Route("/-/events", self._watch_all, reading(write)),
        )

    def stop(self) -> None:
        """End all streams of events, and answer all who wait with what is."""
        for watcher in tuple(self._watchers):
            watcher.stream.end()
        for wait in tuple(self._waits):
            wait.cancel()

    # -- asking for a job

    async def _tar(self, request: Request, who: Principal, below: bytes) -> None:
        query = request.parameters()
        if not all(query.get(name) for name in ("host", "port", "path")):
            target = request.head.target.decode("latin-1")
            raise BadRequestError(f"CALLBACK PARAMETERS ARE MISSING: {target}")
        form = query.get("format", "tar.gz")
        if form not in _TAR_FORMATS:
            raise BadRequestError(f"format is one of {', '.join(_TAR_FORMATS)}")
        callback = Target.for_get(query["host"], query["port"], query["path"])
        source = directory_of(query) / required(query, "name")
        job = await self._submit(request, who, source, form, callback=callback, kind="get")
        request.answer(HTTPStatus.OK, b"working ...", _TEXT, (self._location(job), *_FRESH))

    async def _create(self, request: Request, who: Principal) -> None:
        wanted = await _read_order(request)
        callback = None if wanted.callback is None else Target.from_url(wanted.callback)
        if callback is not None and who.secret is None:
            raise BadRequestError("a webhook is signed: give this token a secret= in the token file")
        keys = request.fields(b"idempotency-key")
        if len(keys) > 1:
            raise BadRequestError("more than one Idempotency-Key")
        job = await self._submit(
            request,
            who,
            RelPath.parse(wanted.path),
            wanted.format,
            sums=wanted.sums,
            callback=callback,
            key=keys[0].decode("latin-1") if keys else None,
        )
        await self._tell(request, job, HTTPStatus.ACCEPTED, self._location(job))

    async def _submit(
        self,
        request: Request,
        who: Principal,
        source: RelPath,
        form: str,
        *,
        sums: bool = False,
        callback: Target | None = None,
        kind: str = "webhook",
        key: str | None = None,
    ) -> JobRow:
        """Have a job made, or found: durable when this returns."""
        order = await self._disk.run(self._exports.compress_order, who, source, form, sums=sums)
        message = None
        if callback is not None:
            own = request.caller is not None and self._keeper.is_own(request.caller)
            address = request.client or ""
            await self._rooms.outbox.check(callback, Asker.at(address, own))
            secret = who.secret if kind == "webhook" else None
            message = Callback(kind, callback.url, address, own, secret)
        try:
            return await self._rooms.jobs.submit(
                order, owner=who.name, target=order["target"], key=key, message=message
            )
        except QueueFull as error:
            retry = (b"Retry-After", RETRY_AFTER)
            raise HttpError(HTTPStatus.TOO_MANY_REQUESTS, str(error), (retry,)) from None

    # -- looking at jobs

    async def _many(self, request: Request, who: Principal, below: bytes) -> None:
        if request.method == b"POST":
            return await self._create(request, who)
        limit = _number(request.parameters(), "limit", MAX_JOBS, at_least=1)
        rows = await self._rooms.jobs.list(_owner(who), limit=int(limit))
        found = [shown(row, self._rooms.jobs.progress(row.id)) for row in rows]
        request.answer(HTTPStatus.OK, msgspec.json.encode(found), _JSON, _FRESH)

    async def _one(self, request: Request, who: Principal, below: bytes) -> None:
        job = await self._found(who, below)
        if request.method == b"DELETE":
            await self._rooms.jobs.cancel(job.id)
            job = await self._settled(job)
        elif (seconds := _number(request.parameters(), "wait", MAX_WAIT, default=0)) > 0:
            job = await self._waited(request, job, seconds)
        await self._tell(request, job)

    async def _settled(self, job: JobRow) -> JobRow:
        """A job that was asked to end, when it has."""
        return await self._rooms.jobs.wait(job.id, 1.0) or job

    async def _waited(self, request: Request, job: JobRow, seconds: float) -> JobRow:
        """The job when it has ended, or as it is when the time is over, or we stop."""
        wait = Deferred.fromCoroutine(self._rooms.jobs.wait(job.id, seconds))
        self._waits.add(wait)
        request.notifyFinish().addErrback(lambda _: wait.cancel())
        try:
            return await wait or job
        except CancelledError:
            return job
        finally:
            self._waits.discard(wait)

    async def _redeliver(self, request: Request, who: Principal, below: bytes) -> None:
        job = await self._found(who, below)
        if not await self._rooms.outbox.redeliver(job.id):
            raise ConflictError("this job has no callback that could be sent again")
        await self._tell(request, job, HTTPStatus.ACCEPTED)

    # -- watching

    async def _watch_all(self, request: Request, who: Principal, below: bytes) -> None:
        await self._watch(request, _owner(who), None)

    async def _watch_one(self, request: Request, who: Principal, below: bytes) -> None:
        await self._watch(request, _owner(who), await self._found(who, below))

    async def _watch(self, request: Request, owner: str | None, job: JobRow | None) -> None:
        if len(self._watchers) >= MAX_EVENT_STREAMS:
            raise OverloadedError
        watcher = _Watcher(EventStream(self._reactor), owner, None if job is None else job.id)
        self._watchers.add(watcher)
        if self._silence is None:
            self._silence = self._rooms.jobs.subscribe(self._news)
        try:
            if job is not None and (now := await self._rooms.jobs.get(job.id)) is not None:
                # Read after we listen: what happens in between is told twice rather than never.
                self._news(Event("state", now, self._rooms.jobs.progress(now.id)))
            await self._bodies.live(request, CONTENT_TYPE, _FRESH, watcher.stream)
        finally:
            self._watchers.discard(watcher)
            if not self._watchers and self._silence is not None:
                self._silence()
                self._silence = None

    def _news(self, news: Event) -> None:
        row = news.job
        text = event(news.kind, shown(row, news.progress))
        for watcher in tuple(self._watchers):
            if watcher.owner in (None, row.owner) and watcher.job in (None, row.id):
                watcher.stream.tell(row.id, text)
                if watcher.job is not None and row.state.ended:
                    watcher.stream.end()

    # -- answers

    async def _found(self, who: Principal, below: bytes) -> JobRow:
        row = await self._rooms.jobs.get(below.decode("latin-1"))
        if row is None or _owner(who) not in (None, row.owner):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return row

    async def _tell(
        self, request: Request, job: JobRow, status: HTTPStatus = HTTPStatus.OK, *headers: Header
    ) -> None:
        found = shown(job, self._rooms.jobs.progress(job.id))
        found["callbacks"] = shown_callback(*await self._rooms.outbox.deliveries(job.id))
        request.answer(status, msgspec.json.encode(found), _JSON, (*headers, *_FRESH))

    def _location(self, job: JobRow) -> Header:
        return b"Location", f"{self._prefix}/-/jobs/{job.id}".encode("ascii")


def _owner(who: Principal) -> str | None:
    """Whose jobs somebody sees; None: everybody's."""
    return None if who.may(Right.ADMIN) else who.name


async def _read_order(request: Request) -> NewJob:
    kinds = request.fields(b"content-type")
    if len(kinds) != 1 or kinds[0].partition(b";")[0].strip().lower() != _JSON:
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a job is asked for in application/json")
    try:
        return msgspec.json.decode(await request.read_body(MAX_BODY), type=NewJob)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequestError(f"this JSON asks for no job: {error}") from None


def _number(
    query: dict[str, str], name: str, highest: float, *, at_least: float = 0, default: float | None = None
) -> float:
    """A number in the query, `highest` where nothing is said and there is no default."""
    text = query.get(name)
    if text is None:
        return highest if default is None else default
    if not (text.isascii() and text.isdecimal() and len(text) < 7 and at_least <= int(text) <= highest):
        raise BadRequestError(f"{name} is a number from {at_least:.0f} to {highest:.0f}")
    return int(text)
