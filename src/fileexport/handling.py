"""An application's own request handler: run in a thread for each request, and its answer sent."""

from __future__ import annotations

import sys
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
    decoded,
    discard_file,
    request_of,
    take_file,
    widest,
)
from fileexport.web.head import MalformedRequest
from fileexport.web.media import policy_of
from fileexport.web.request import Header, Request

#: `handler(request, response, *args)`; what it returns means nothing.
Handler = Callable[..., object]

#: Bytes of one request's body, and what the bodies of all requests may take together.
MAX_BODY = 16 << 20
MAX_BODIES = 256 << 20
#: Seconds that a request waits for a thread.
WAIT = 60.0

_TEXT = b"text/plain; charset=utf-8"
_RETRY_AFTER: Header = (b"Retry-After", b"10")
#: What a file's answer says of itself; a handler cannot know it.
_OF_FILES = frozenset((b"accept-ranges", b"content-range", b"content-type", b"etag", b"last-modified"))
_FRESH: Header = (b"Cache-Control", b"no-cache")


class Memory:
    """What the bodies of requests take, of every `Handling` that has this one. Thread-safe."""

    def __init__(self, size: int = MAX_BODIES) -> None:
        """`size`: bytes of all of them together."""
        self._free = size
        self._lock = threading.Lock()
        #: Held while a body is decoded: for a moment there are both forms of it.
        self.decoding = threading.Lock()

    def take(self, size: int) -> None:
        """Count bytes. Raises `OverloadedError` where there are not so many left."""
        with self._lock:
            if size > self._free:
                raise OverloadedError
            self._free -= size

    def give(self, size: int) -> None:
        """Count them no more."""
        with self._lock:
            self._free += size


class Handling:
    """Runs one handler for requests, in the threads of `worker`; `files` sends what it answers.

    A request that finds no thread within `WAIT` seconds gets 503, and its handler never runs for it. A
    handler that never returns keeps its thread, and the body that it was given.

    A `mounted` handler shares its origin and its callers with the daemon: it does not learn their tokens, and
    a file that it answers with cannot script that origin, unless the handler says so by a policy of its own.
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
        memory: Memory | None = None,
        mounted: bool = False,
    ) -> None:
        """`max_body` bounds one request's body, in bytes: a longer one gets 413. `memory` may be shared."""
        self._reactor: Any = reactor
        self._handler = handler
        self._args = tuple(args)
        self._worker = worker
        self._files = files
        self._max_body = max_body
        self._memory = memory or Memory()
        self._mounted = mounted

    async def serve(self, request: Request, below: bytes | None = None) -> None:
        """Answer one request; `below` is its path without a mount's prefix.

        Every error is answered here, as plain text. Raises `PeerGone`, and whatever happens once the answer
        has begun: the connection must be broken then.
        """
        try:
            call = _Call(self._handler, self._args, request, await self._receive(request))
            call.below, call.mounted = below, self._mounted
            try:
                await self._run(request, call)
                await self._send(request, call)
            finally:
                call.abandon()
        except PeerGone:
            raise
        except Exception as error:
            if request.began:
                raise
            self._refuse(request, error)

    async def _receive(self, request: Request) -> _Body:
        body = _Body(self._memory)
        try:
            body.content = await request.read_body(self._max_body, body.take)
        except BaseException:
            body.free()
            raise
        return body

    def _run(self, request: Request, call: _Call) -> Deferred[None]:
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
            call.body.free()
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
        if call.refusal is not None:
            raise call.refusal
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
        names = {name.lower() for name, _ in own}
        if b"cache-control" not in names:
            own = (_FRESH, *own)
        if self._mounted and b"content-security-policy" not in names:
            own = (*own, *policy_of(content_type.decode("latin-1")))
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


class _Body:
    """A request's body, and what it takes of the memory until it is freed."""

    def __init__(self, memory: Memory) -> None:
        self.content = b""
        self._memory = memory
        self._taken = 0

    def take(self, size: int) -> None:
        """Count bytes for it. Raises `OverloadedError`."""
        self._memory.take(size)
        self._taken += size

    def decoded(self) -> str | bytes:
        """What a handler is given; the bytes themselves are let go. Raises `OverloadedError`."""
        with self._memory.decoding:
            self.take(max(widest(self.content) - self._taken, 0))
            data, self.content = decoded(self.content), b""
        self._give(max(self._taken - sys.getsizeof(data), 0))
        return data

    def free(self) -> None:
        """It is held no more."""
        self.content = b""
        self._give(self._taken)

    def _give(self, size: int) -> None:
        self._memory.give(size)
        self._taken -= size


class _Call:
    """One call of a handler, in a thread.

    `answer` is what it came to, `failure` why it came to nothing, `refusal` why it was not called. A file in
    `response` that nobody sends is closed, whoever is last: the handler, or who waited for it.
    """

    def __init__(self, handler: Handler, args: tuple[object, ...], request: Request, body: _Body) -> None:
        self._handler = handler
        self._args = args
        self._request = request
        self.body = body
        self.below: bytes | None = None
        self.mounted = False
        self.response = HttpResponse()
        self.answer: Answer | None = None
        self.failure: Failure | None = None
        self.refusal: OverloadedError | None = None
        self._lock = threading.Lock()
        self._begun = self._ended = self._withdrawn = self._abandoned = False

    def run(self) -> None:
        """Call the handler. Never raises: not even what would end a program."""
        with self._lock:
            if self._withdrawn:
                return
            self._begun = True
        try:
            self._call()
        except BaseException:
            self.failure = Failure()
        with self._lock:
            self._ended = True
            if self._abandoned or self.answer is None:
                discard_file(self.response)

    def _call(self) -> None:
        try:
            data = self.body.decoded()
        except OverloadedError as error:
            self.refusal = error
            return
        found = request_of(self._request, data, self.below, mounted=self.mounted)
        # The handler may let go of it before it returns.
        del data
        self._handler(found, self.response, *self._args)
        self.answer = answer_of(self.response)

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
