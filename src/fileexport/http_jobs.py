"""The door's jobs: compress on the server, wait, watch, cancel, be called back.

The routes stand in `http_resource`'s table, behind the checks that every request passes. A job is there for
whoever asked for it and for an admin; for everybody else it does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from fileexport.callback_targets import Asker, Target
from fileexport.callbacks import Outbox
from fileexport.compression import ArchiveForm
from fileexport.disk.schema import Callback, JobRow
from fileexport.errors import BadRequestError, ConflictError, OverloadedError, PeerGone
from fileexport.exports import Exports
from fileexport.http_bodies import Bodies
from fileexport.http_events import CONTENT_TYPE, EventStream, event
from fileexport.http_queries import TAR_FORMATS, directory_of, number, one_of, required
from fileexport.job_views import job_of, listing, seen_by, shown, shown_callback
from fileexport.jobs import Event, Jobs
from fileexport.paths import RelPath
from fileexport.pools import Worker
from fileexport.tokens import Principal, Right
from fileexport.web.access import Doorkeeper
from fileexport.web.failures import HttpError
from fileexport.web.request import Header, Request
from fileexport.web.routes import OWN_NAMES, Answer, Route, acting, reading

#: Bytes of the JSON that asks for a job.
MAX_BODY = 64 << 10
#: Seconds that one request may wait for the end of a job; streams of events at once.
MAX_WAIT = 60
MAX_EVENT_STREAMS = 256
#: Of these, streams of one owner.
MAX_OWN_STREAMS = 128
#: Jobs in one listing, at most and where nothing is said.
MAX_JOBS, SOME_JOBS = 1000, 100
#: Seconds in which most jobs that are cancelled have ended.
CANCEL_WAIT = 1

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"
#: What a job says is true for a moment.
_FRESH: tuple[Header, ...] = ((b"Cache-Control", b"no-store"),)
#: nginx would gather events until they fill its buffer.
_LIVE: tuple[Header, ...] = (*_FRESH, (b"X-Accel-Buffering", b"no"))


class NewJob(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON that asks for a job: what to compress, how, and whom to tell."""

    path: str
    format: str = ArchiveForm.TAR_GZ.value
    sums: bool = False
    callback: str | None = None


class _Wish(NamedTuple):
    """What a client asks for, read."""

    source: RelPath
    form: str
    sums: bool = False
    callback: Target | None = None

    @property
    def text(self) -> str:
        """The same for equal wishes: what an Idempotency-Key stands for."""
        url = self.callback and self.callback.url
        return json.dumps((str(self.source), self.form, self.sums, url))


class Rooms(Protocol):
    """The rooms behind the door; they are there before the first request."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def outbox(self) -> Outbox: ...


class _Watcher(NamedTuple):
    """A stream of events, its reader, and what it shows: one job, or all of an owner (None: everybody's)."""

    stream: EventStream
    reader: str
    owner: str | None
    job: str | None

    def wants(self, row: JobRow) -> bool:
        """Whether news of this job are for this stream."""
        return self.owner in (None, row.owner) and self.job in (None, row.id)

    def tell(self, row: JobRow, text: bytes) -> None:
        """Pass news of a job on; the stream of one job ends with it."""
        self.stream.tell(row.id, text)
        if self.job is not None and row.state.ended:
            self.stream.end()


class JobsDoor:
    """Answers the routes of jobs. After `stop` nobody waits for news of them."""

    def __init__(
        self,
        reactor: IReactorTime,
        exports: Exports,
        rooms: Rooms,
        keeper: Doorkeeper,
        disk: Worker,
        bodies: Bodies,
        prefix: str,
        names: frozenset[str] = OWN_NAMES,
    ) -> None:
        self._reactor = reactor
        self._exports = exports
        self._rooms = rooms
        self._keeper = keeper
        self._disk = disk
        self._bodies = bodies
        self._prefix = prefix
        self._names = names
        self._watchers: set[_Watcher] = set()
        self._waits: set[Deferred[Any]] = set()
        self._silence: Callable[[], None] | None = None
        self._stopping = False

    def routes(self) -> tuple[Route[Answer], ...]:
        """The routes of jobs, with their rights."""
        write = Right.WRITE
        many = {**reading(write), b"POST": write}
        one = {**reading(write), b"DELETE": write}
        return (
            Route("/tar", self._tar, acting(write), plain=True),
            Route("/-/jobs", self._many, many, plain=True, body=(b"POST",)),
            Route("/-/jobs/{id}", self._one, one, plain=True),
            Route("/-/jobs/{id}/events", self._watch_one, reading(write), plain=True),
            Route("/-/jobs/{id}/redeliver", self._redeliver, {b"POST": write}, plain=True),
            Route("/-/events", self._watch_all, reading(write), plain=True),
        )

    def renew(self) -> None:
        """End all streams of events, so that their readers come again: who may read may have changed."""
        for watcher in tuple(self._watchers):
            watcher.stream.end()

    def stop(self) -> None:
        """End all streams of events and answer all who wait with what is; from now on nobody waits."""
        self._stopping = True
        self.renew()
        for wait in tuple(self._waits):
            wait.cancel()

    # -- asking for a job

    async def _tar(self, request: Request, who: Principal, below: bytes) -> None:
        query = request.parameters()
        if not all(query.get(name) for name in ("host", "port", "path")):
            target = request.head.target.decode("utf-8", "replace")
            raise BadRequestError(f"CALLBACK PARAMETERS ARE MISSING: {target}")
        form = one_of("format", query.get("format", ArchiveForm.TAR_GZ.value), TAR_FORMATS)
        callback = Target.for_get(query["host"], query["port"], query["path"])
        wish = _Wish(directory_of(query) / required(query, "name"), form, callback=callback)
        job = await self._submit(request, who, wish, "get")
        request.answer(HTTPStatus.OK, b"working ...", _TEXT, (self._location(job), *_FRESH))

    async def _create(self, request: Request, who: Principal) -> None:
        wish, key = await _read_wish(request), _read_key(request)
        # A request that is repeated finds its job also where it could not be made any more.
        job = None if key is None else await self._rooms.jobs.find(who.owner, key, wish.text)
        if job is None:
            job = await self._submit(request, who, wish, "webhook", key)
        await self._tell(request, job, HTTPStatus.ACCEPTED, self._location(job))

    async def _submit(
        self, request: Request, who: Principal, wish: _Wish, kind: str, key: str | None = None
    ) -> JobRow:
        """Have a job made, or found: durable when this returns. `kind` is that of its callback."""
        order = await self._disk.run(
            self._exports.compress_order, who, wish.source, wish.form, sums=wish.sums
        )
        message = None
        if wish.callback is not None:
            message = await self._message(request, who, kind, wish.callback)
        return await self._rooms.jobs.submit(
            order, owner=who.owner, target=order["place"], key=key, request=wish.text, message=message
        )

    async def _message(self, request: Request, who: Principal, kind: str, target: Target) -> Callback:
        """The callback, if it may go there. Raises `BadRequestError`, `CallbackRefusedError`."""
        secret = who.secret if kind == "webhook" else None
        if kind == "webhook" and secret is None:
            raise BadRequestError("a webhook is signed: give this token a secret= in the token file")
        own = request.caller is not None and self._keeper.is_own(request.caller)
        address = request.client or ""
        await self._rooms.outbox.check(target, Asker.at(address, own))
        return Callback(kind, target.url, address, own, secret)

    # -- looking at jobs

    async def _many(self, request: Request, who: Principal, below: bytes) -> None:
        if request.method == b"POST":
            return await self._create(request, who)
        limit = number(request.parameters(), "limit", 1, MAX_JOBS, SOME_JOBS)
        rows = await self._rooms.jobs.list(seen_by(who), limit=limit)
        jobs = [(row, self._rooms.jobs.progress(row.id)) for row in rows]
        await self._bodies.made(request, _JSON, _FRESH, listing, jobs, self._prefix, self._names)

    async def _one(self, request: Request, who: Principal, below: bytes) -> None:
        job = await self._found(who, below)
        if request.method == b"DELETE":
            await self._rooms.jobs.cancel(job.id)
            job = await self._waited(request, job, CANCEL_WAIT)
            # What runs ends when its work next looks.
            await self._tell(request, job, HTTPStatus.OK if job.state.ended else HTTPStatus.ACCEPTED)
            return
        seconds = number(request.parameters(), "wait", 0, MAX_WAIT, 0)
        await self._tell(request, await self._waited(request, job, seconds) if seconds else job)

    async def _waited(self, request: Request, job: JobRow, seconds: float) -> JobRow:
        """The job when it has ended, or as it is when the time is over, or we stop.

        Raises `PeerGone`: nobody waits any more.
        """
        if not self._stopping:
            wait = Deferred.fromCoroutine(self._rooms.jobs.wait(job.id, seconds))
            self._waits.add(wait)
            request.notifyFinish().addErrback(lambda _: wait.cancel())
            try:
                return await wait or job
            except CancelledError:
                if request.gone:
                    raise PeerGone from None
            finally:
                self._waits.discard(wait)
        return await self._rooms.jobs.get(job.id) or job

    async def _redeliver(self, request: Request, who: Principal, below: bytes) -> None:
        job = await self._found(who, below)
        if not await self._rooms.outbox.redeliver(job.id):
            raise ConflictError("this job has no callback that could be sent again")
        await self._tell(request, job, HTTPStatus.ACCEPTED)

    # -- watching

    async def _watch_all(self, request: Request, who: Principal, below: bytes) -> None:
        with self._watcher(who, None) as watcher:
            await self._bodies.live(request, CONTENT_TYPE, _LIVE, watcher.stream)

    async def _watch_one(self, request: Request, who: Principal, below: bytes) -> None:
        with self._watcher(who, below.decode("latin-1")) as watcher:
            # Read while we listen: what happens in between is told twice rather than never.
            job = await self._found(who, below)
            if job.state.ended:
                # After any other end an EventSource would come again, and for ever.
                request.begin(HTTPStatus.NO_CONTENT, _FRESH)
                return request.end()
            self._pass_on(Event("state", job, self._rooms.jobs.progress(job.id)), (watcher,))
            await self._bodies.live(request, CONTENT_TYPE, _LIVE, watcher.stream)

    @contextmanager
    def _watcher(self, who: Principal, job: str | None) -> Iterator[_Watcher]:
        """A stream that is told the news. Raises `OverloadedError` where there are too many."""
        reader = who.owner
        own = sum(watcher.reader == reader for watcher in self._watchers)
        if len(self._watchers) >= MAX_EVENT_STREAMS or own >= MAX_OWN_STREAMS:
            raise OverloadedError
        watcher = _Watcher(EventStream(self._reactor), reader, seen_by(who), job)
        if self._stopping:
            watcher.stream.end()
        self._watchers.add(watcher)
        if self._silence is None:
            self._silence = self._rooms.jobs.subscribe(self._news)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            if not self._watchers and self._silence is not None:
                self._silence()
                self._silence = None

    def _news(self, news: Event) -> None:
        self._pass_on(news, [watcher for watcher in self._watchers if watcher.wants(news.job)])

    def _pass_on(self, news: Event, watchers: Iterable[_Watcher]) -> None:
        text = event(news.kind, shown(news.job, news.progress, self._prefix, self._names))
        for watcher in watchers:
            watcher.tell(news.job, text)

    # -- answers

    async def _found(self, who: Principal, below: bytes) -> JobRow:
        return await job_of(self._rooms.jobs, who, below.decode("latin-1"))

    async def _tell(
        self, request: Request, job: JobRow, status: HTTPStatus = HTTPStatus.OK, *headers: Header
    ) -> None:
        found = shown(job, self._rooms.jobs.progress(job.id), self._prefix, self._names)
        found["callbacks"] = shown_callback(*await self._rooms.outbox.deliveries(job.id))
        request.answer(status, msgspec.json.encode(found), _JSON, (*headers, *_FRESH))

    def _location(self, job: JobRow) -> Header:
        return b"Location", f"{self._prefix}/-/jobs/{job.id}".encode("ascii")


def _read_key(request: Request) -> str | None:
    """The Idempotency-Key, if there is one. Raises `BadRequestError` for more than one."""
    keys = request.fields(b"idempotency-key")
    if len(keys) > 1:
        raise BadRequestError("more than one Idempotency-Key")
    return keys[0].decode("latin-1") if keys else None


async def _read_wish(request: Request) -> _Wish:
    kinds = request.fields(b"content-type")
    if len(kinds) != 1 or kinds[0].partition(b";")[0].strip().lower() != _JSON:
        raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a job is asked for in application/json")
    try:
        new = msgspec.json.decode(await request.read_body(MAX_BODY), type=NewJob)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequestError(f"this JSON asks for no job: {error}") from None
    callback = None if new.callback is None else Target.from_url(new.callback)
    return _Wish(RelPath.parse(new.path), new.format, new.sums, callback)
