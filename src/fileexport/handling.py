"""An application's own request handler: run in a thread for each request, and its answer sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from fileexport.errors import OverloadedError, PeerGone, UnexpectedError, row_for, sentence_for
from fileexport.http_bodies import Bodies
from fileexport.pools import Worker
from fileexport.web.failures import HttpError
from fileexport.web.handlers import (
    Answer,
    HttpResponse,
    OpenFile,
    answer_of,
    discard_file,
    request_of,
    take_file,
)
from fileexport.web.head import MalformedRequest
from fileexport.web.request import Header, Request

#: `handler(request, response, *args)`; what it returns means nothing.
Handler = Callable[..., object]

#: Bytes of one request's body, and of all bodies that handlers of one `Handling` hold.
MAX_BODY = 16 << 20
MAX_BODIES = 256 << 20
#: Seconds that a request waits for a thread.
WAIT = 60.0

_TEXT = b"text/plain; charset=utf-8"
_RETRY_AFTER: Header = (b"Retry-After", b"10")
#: What a file's answer says of itself; a handler cannot know it.
_OF_FILES = frozenset((b"accept-ranges", b"content-range", b"content-type", b"etag", b"last-modified"))
_FRESH: Header = (b"Cache-Control", b"no-cache")


class Handling:
    """Runs one handler for requests, in the threads of `worker`; `files` sends what it answers.

    A request that finds no thread within `WAIT` seconds gets 503, and its handler never runs for it. A
    handler that never returns keeps its thread, and the body that it was given.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        handler: Handler,
        args: Sequence[object],
        worker: Worker,
        files: Bodies,
        *,
        max_body: int = MAX_BODY,
    ) -> None:
        """`max_body` bounds one request's body, in bytes: a longer one gets 413."""
        self._reactor: Any = reactor
        self._handler = handler
        self._args = tuple(args)
        self._worker = worker
        self._files = files
        self._max_body = max_body
        self._held = 0

    async def serve(self, request: Request, below: bytes | None = None) -> None:
        """Answer one request; `below` is its path without a mount's prefix.

        Every error is answered here, as plain text. Raises `PeerGone`, and whatever happens once the answer
        has begun: the connection must be broken then.
        """
        try:
            body = await self._receive(request)
            call = _Call(self._handler, self._args, request, body, below)
            try:
                await self._run(request, call, len(body))
                await self._send(request, call)
            finally:
                call.abandon()
        except PeerGone:
            raise
        except Exception as error:
            if request.began:
                raise
            self._refuse(request, error)

    async def _receive(self, request: Request) -> bytes:
        """The body; its bytes count as held until the handler has returned."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self._held + size > MAX_BODIES:
                raise OverloadedError
            self._held += size
            taken += size

        try:
            return await request.read_body(self._max_body, take)
        except BaseException:
            self._held -= taken
            raise

    def _run(self, request: Request, call: _Call, size: int) -> Deferred[None]:
        """Fires when the call has ended; fails when it never begins, and when nobody waits for it."""
        ended: Deferred[None] = Deferred()
        work = self._worker.run(call.run)

        def give_up(error: Exception) -> None:
            # Work that runs goes on: its body is held until it ends.
            if call.withdraw():
                work.cancel()
            elif request.gone:
                call.abandon()
            else:
                return
            if not ended.called:
                ended.errback(error)

        def settle(outcome: Any) -> None:
            self._held -= size
            if late.active():
                late.cancel()
            # Taken away: its traceback holds the handler's variables, the body among them.
            failure, call.failure = call.failure, None
            if failure is not None:
                self._log.failure("the handler of {asked} failed", failure, asked=_asked(request))
            if isinstance(outcome, Failure) and outcome.check(CancelledError):
                # `give_up` says why.
                return
            if not ended.called:
                ended.callback(outcome)

        late = self._reactor.callLater(WAIT, give_up, OverloadedError("no thread became free in time"))
        request.notifyFinish().addErrback(lambda _: give_up(PeerGone()))
        work.addBoth(settle)
        return ended

    async def _send(self, request: Request, call: _Call) -> None:
        if call.answer is None:
            raise HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.INTERNAL_SERVER_ERROR.phrase)
        file = take_file(call.response)
        if file is None:
            status, reason, headers, body = call.answer
            return await self._files.whole(request, body, headers, status=status, reason=reason)
        try:
            await self._send_file(request, call.answer, file)
        finally:
            file.close()

    async def _send_file(self, request: Request, answer: Answer, file: OpenFile) -> None:
        status, reason, headers, _ = answer
        content_type = next(value for name, value in headers if name.lower() == b"content-type")
        own = tuple(field for field in headers if field[0].lower() not in _OF_FILES)
        if not any(name.lower() == b"cache-control" for name, _ in own):
            own = (_FRESH, *own)
        if status == HTTPStatus.OK:
            return await self._files.file(request, file, content_type, own)
        await self._files.file_as(request, file, ((b"Content-Type", content_type), *own), status, reason)

    def _refuse(self, request: Request, error: Exception) -> None:
        """Answer an error with a line of text."""
        headers: tuple[Header, ...] = ()
        if isinstance(error, HttpError | MalformedRequest):
            status, text = error.status, str(error)
            headers = getattr(error, "headers", ())
        else:
            row = row_for(error)
            status, text = row.http, sentence_for(error)
            if row.kind is OverloadedError:
                headers = (_RETRY_AFTER,)
            elif row.kind is UnexpectedError:
                self._log.failure("the answer to {asked} failed", asked=_asked(request))
        headers = ((b"Cache-Control", b"no-store"), *headers)
        request.answer(status, text.encode("utf-8", "replace"), _TEXT, headers)


def _asked(request: Request) -> str:
    return (b"%s %s" % (request.method, request.path)).decode("latin-1")


class _Call:
    """One call of a handler, in a thread.

    `answer` is what it came to, `failure` why it came to nothing. A file in `response` that nobody sends is
    closed, whoever is last: the handler, or who waited for it.
    """

    def __init__(
        self, handler: Handler, args: tuple[object, ...], request: Request, body: bytes, below: bytes | None
    ) -> None:
        self._handler = handler
        self._args = args
        self._request = request
        self._body = body
        self._below = below
        self.response = HttpResponse()
        self.answer: Answer | None = None
        self.failure: Failure | None = None
        self._lock = threading.Lock()
        self._begun = self._ended = self._withdrawn = self._abandoned = False

    def run(self) -> None:
        """Call the handler. Never raises: not even what would end a program."""
        with self._lock:
            if self._withdrawn:
                return
            self._begun = True
        try:
            found = request_of(self._request, self._body, self._below)
            self._body = b""
            self._handler(found, self.response, *self._args)
            self.answer = answer_of(self.response)
        except BaseException:
            self.failure = Failure()
        with self._lock:
            self._ended = True
            if self._abandoned or self.answer is None:
                discard_file(self.response)

    def withdraw(self) -> bool:
        """Never begin; False where that has happened."""
        with self._lock:
            self._withdrawn = not self._begun
            return self._withdrawn

    def abandon(self) -> None:
        """Nobody sends the answer any more."""
        with self._lock:
            self._abandoned = True
            if self._ended:
                discard_file(self.response)
