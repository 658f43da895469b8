"""HTTP for an application of its own: `HttpServer` answers every request with a plain function.

The function gets a request and a response, in a thread; the connections are those of the daemon, with its
limits and deadlines, on a private reactor in a thread of its own.
"""

from __future__ import annotations

import socket as sockets
import threading
import time
from collections.abc import Collection, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred

from fileexport.access_rows import of_request
from fileexport.embedded import application_log
from fileexport.endpoints import tls_context
from fileexport.errors import ListenError
from fileexport.gate import Gate
from fileexport.handling import MAX_BODY, Handler, Handling
from fileexport.http_bodies import Bodies
from fileexport.listening import Listener, adopted_listener, interface_listener
from fileexport.logs import AccessLog
from fileexport.option_values import parse_host, parse_port
from fileexport.pools import Pool
from fileexport.reactor_thread import ReactorEnded, ReactorThread
from fileexport.static_files import static_resource, staticResource
from fileexport.web.handlers import HttpRequest, HttpResponse, check_handler
from fileexport.web.origin import Names, allowed_names, host_is_allowed, host_name
from fileexport.web.request import Request
from fileexport.web.site import Site

__all__ = ["HttpRequest", "HttpResponse", "HttpServer", "staticResource", "static_resource"]

#: Handlers at work at a time, and requests that may wait for one: as many as there may be connections.
THREADS = 128
WAITING = 10_000
#: Seconds that requests in flight have after a stop was asked for.
GRACE = 10.0

_TEXT = b"text/plain; charset=utf-8"
#: How this machine reaches a server that listens on all of its addresses.
_NEAR = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


class HttpServer:
    """Answers HTTP requests with `handler(request, response, *args)`, an `HttpRequest` and an `HttpResponse`.

    - `port`: 0 for one that is free. `address`: of one interface, or a name of this machine; ``""``: every
      interface, IPv4 and IPv6.
    - `handler`: by default it serves the files below the current directory; `args` are its further arguments.
    - `threads`: a thread for each request, 128 at a time, the others wait; False: one request at a time.
    - `start`: begin at once, as `start` does. `block`: `start` returns only when the server has stopped.
    - `private_key`: PEM text of key and certificate, as the second of `generate_keys()`: HTTPS.
    - `allow_host`: host names that requests may carry on a loopback address, beside addresses, localhost and
      this machine's name: a page of another site cannot reach it through a name of its own. Elsewhere every
      name is good.
    - `max_body`: bytes of a request's body; a longer one is answered by 413.
    - `socket`: a listening socket of the application's own (TCP or UNIX), which stays open; ValueError with
      port or address beside it. It becomes non-blocking.

    There may be 10,000 connections at a time, and 1,024 from one address: further ones are closed at once.
    A handler that raises is logged whole, by `twisted.logger`, and answered by a plain 500. One that never
    returns keeps its thread: other requests are answered while there are threads, and it holds up neither
    `stop`, beyond its ten seconds, nor the end of the program. Raises ValueError for a key, a port or a name
    that is none, and for a handler that cannot be called, is async or yields.

    All methods may be called in any thread. Any number of servers may run at a time, beside any reactor or
    event loop; no signal is taken, no limit of the process changed: for thousands of connections, raise
    RLIMIT_NOFILE.
    """

    def __init__(
        self,
        port: int = 80,
        handler: Handler = staticResource,
        args: Sequence[object] = (),
        threads: bool = True,
        start: bool = True,
        block: bool = True,
        *,
        address: str = "127.0.0.1",
        private_key: str | None = None,
        allow_host: Collection[str] = (),
        max_body: int = MAX_BODY,
        socket: sockets.socket | None = None,
    ) -> None:
        self._socket = socket
        if socket is not None:
            if (port, address) != (80, "127.0.0.1"):
                raise ValueError("a socket stands in the place of port and address")
            if socket.family != sockets.AF_UNIX:
                address, port = socket.getsockname()[:2]
        self._port = parse_port(str(port))
        self._address = address
        check_handler(handler)
        self._handler = handler
        self._args = tuple(args)
        self._threads = THREADS if threads else 1
        self._block = block
        self._tls = None if private_key is None else tls_context(private_key)
        self._hosts = [parse_host(name) for name in allow_host]
        self._max_body = max_body
        # Reentrant, for signal handlers that run while their own thread is in here.
        self._lock = threading.RLock()
        self._thread: ReactorThread | None = None
        self._bound = 0
        #: The threads that are in the handler now.
        self._inside: set[int] = set()
        if start:
            self.start()

    # -- runs

    def start(self) -> None:
        """Listen and answer; returns when the server has stopped, or without `block` when it listens.

        A stop that comes before it listens ends it, too.

        Raises RuntimeError, one sentence, when it runs already or cannot listen; nothing is left then. An
        exception in a blocked thread, as by Ctrl-C, stops the server and propagates.
        """
        with self._lock:
            if self.is_running:
                raise RuntimeError("the server is running")
            thread = self._thread = ReactorThread("fileexport-http")
            try:
                thread.start()
                self._bound = thread.call(lambda: Deferred.fromCoroutine(self._begin(thread.reactor)))
            except ReactorEnded:
                thread.join()  # stopped before it listened
            except BaseException as error:
                thread.stop()
                if isinstance(error, ListenError | OSError):
                    raise RuntimeError(str(error)) from error
                raise
        if self._block:
            try:
                thread.join()
            except BaseException:
                thread.stop()
                raise

    def stop(self) -> None:
        """Accept nothing more and finish what is in flight, for ten seconds at most; then nothing is left.

        In a handler of the server's own it does not wait: that one is in flight as well, and `join` tells the
        end. Raises RuntimeError when the server does not run.
        """
        thread = self._thread
        if thread is None or not thread.is_running:
            raise RuntimeError("the server is not running")
        thread.leave()
        if threading.get_ident() not in self._inside:
            thread.join()

    def join(self) -> None:
        """Wait until the server has stopped; one that does not run has.

        Raises RuntimeError in a handler of the server's own, for which it would wait.
        """
        if self._thread is None:
            return
        if self.is_running and threading.get_ident() in self._inside:
            raise RuntimeError("a handler cannot wait for its own server")
        self._thread.join()

    def __enter__(self) -> HttpServer:
        """For `with`: a server that runs, and that is stopped at the end unless it was before."""
        if not self.is_running:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.stop()

    # -- what is known of it

    @property
    def is_running(self) -> bool:
        """Whether it runs: from `start` on until a stop is over."""
        return self._thread is not None and self._thread.is_running

    @property
    def port(self) -> int:
        """The port that it listens on; when it does not run, that which was asked for.

        Raises RuntimeError for a UNIX socket, as `url` does.
        """
        if self._socket is not None and self._socket.family == sockets.AF_UNIX:
            raise RuntimeError("a UNIX socket has no port")
        return self._bound if self.is_running else self._port

    @property
    def url(self) -> str:
        """Where this machine reaches it while it runs: ``http://127.0.0.1:8000/``."""
        host = _NEAR.get(self._address, self._address)
        shown = f"[{host}]" if ":" in host else host
        return f"{'http' if self._tls is None else 'https'}://{shown}:{self.port}/"

    # -- in the reactor's thread

    async def _begin(self, reactor: Any) -> int:
        """Begin a run; the port that it has, or 0. Its end is one of the reactor's shutdown triggers."""
        run = _Run(reactor, self._call, self._args, self._threads, self._max_body)
        reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(run.stop()))
        listener = self._listener(reactor)
        await run.listen(listener, self._hosts)
        return next((port for _, port in listener.tcp_addresses), 0)

    def _listener(self, reactor: Any) -> Listener:
        if self._socket is not None:
            return adopted_listener(reactor, self._socket, private_key_context=self._tls)
        return interface_listener(reactor, self._port, self._address, private_key_context=self._tls)

    # -- in the threads of handlers

    def _call(self, request: HttpRequest, response: HttpResponse, *args: object) -> None:
        """The handler, known to be called: `stop` must not wait for its own caller."""
        thread = threading.get_ident()
        self._inside.add(thread)
        try:
            self._handler(request, response, *args)
        finally:
            self._inside.discard(thread)


class _Run:
    """One run of a server, in its reactor's thread: from listening to the end of the last request."""

    def __init__(
        self, reactor: Any, handler: Handler, args: Sequence[object], threads: int, max_body: int
    ) -> None:
        self._reactor = reactor
        self._pool = Pool(reactor, "handlers", threads, WAITING)
        bodies = Bodies(reactor, self._pool, self._pool)
        self._handling = Handling(reactor, handler, args, self._pool, bodies, max_body=max_body)
        self._log = AccessLog(application_log(), "text", now=time.time)
        self._site = Site(reactor, self._serve, record=self._record, now=time.time, reads=lambda head: True)
        self._gate = Gate(on_exhausted=lambda: None)
        self._names: Names | None = None
        self._listener: Listener | None = None

    async def listen(self, listener: Listener, hosts: Collection[str]) -> None:
        """Accept connections; on loopback for these names only. Raises `ListenError`."""
        self._pool.start()
        await listener.listen(self._site, self._gate)
        self._listener = listener
        self._site.local = bool(listener.is_loopback)
        if self._site.local:
            self._names = Names(allowed_names(sockets.gethostname(), hosts, None))

    async def stop(self) -> None:
        """Accept nothing more; returns when nothing is at work, or was left behind after `GRACE` seconds."""
        late = self._reactor.callLater(GRACE, self._give_up)
        if self._listener is not None:
            await self._listener.stop()
        await self._site.drain()
        await self._pool.stop()
        if late.active():
            late.cancel()

    def _give_up(self) -> None:
        self._site.break_all()
        self._pool.abandon()

    async def _serve(self, request: Request) -> None:
        if (refusal := self._refusal(request)) is not None:
            status, sentence = refusal
            return request.answer(status, sentence, _TEXT, ((b"Cache-Control", b"no-store"),))
        # OPTIONS for the server itself (RFC 9110, section 9.3.7): answered as for its root.
        await self._handling.serve(request, b"/" if request.path == b"*" else None)

    def _refusal(self, request: Request) -> tuple[HTTPStatus, bytes] | None:
        """Why no handler hears of a request."""
        host = request.head.host
        if not request.path.startswith(b"/") and request.path != b"*":
            return HTTPStatus.BAD_REQUEST, b"the request has no path"
        if host is not None and host_name(host) is None:
            return HTTPStatus.BAD_REQUEST, b"the Host is malformed"
        if host is not None and self._names is not None and not host_is_allowed(host, self._names):
            return HTTPStatus.FORBIDDEN, b"this Host name is not ours: HttpServer's allow_host adds names"
        return None

    def _record(self, request: Request) -> None:
        self._log.record(of_request(request, self._reactor.seconds() - request.started))
