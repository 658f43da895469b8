"""A handler behind the real site, in memory: its requests, its threads, its errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.jail import Jail, Opened, View
from fileexport.handling import Handler, Handling
from fileexport.http_bodies import Bodies
from fileexport.paths import RelPath
from fileexport.pools import Worker
from fileexport.web.handlers import HttpRequest, HttpResponse
from fileexport.web.request import Request
from fileexport.web.site import Site
from tests.helpers import Immediate
from tests.http_client import NOW, Connection, Response, encode

P = ParamSpec("P")
T = TypeVar("T")
#: Seconds after which a test that waits for a thread has failed.
PATIENCE = 20
#: More than a transport takes at once.
LARGE = b"0123456789abcdef" * (1 << 18)


class Waiting:
    """A `fileexport.pools.Worker` without a thread: work waits until a test lets it run.

    Cancelled work is forgotten, unless it stands for such that a thread has taken already (`taken`).
    """

    def __init__(self, *, taken: bool = False) -> None:
        self._taken = taken
        self._work: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        result: Deferred[T] = Deferred(lambda _: self._forget(result))
        self._work.append((lambda: function(*args, **kwargs), result))
        return result

    @property
    def count(self) -> int:
        """How much work waits."""
        return len(self._work)

    def work(self) -> None:
        """Do what has waited longest."""
        function, result = self._work.pop(0)
        outcome = function()
        if not result.called:
            result.callback(outcome)

    def _forget(self, gone: Deferred[Any]) -> None:
        if self._taken:
            return
        self._work = [(function, result) for function, result in self._work if result is not gone]


class Threads:
    """A `fileexport.pools.Worker` with a thread for each piece of work; the test takes the results."""

    def __init__(self) -> None:
        self._running: list[tuple[threading.Thread, list[Any], Deferred[Any]]] = []

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        results: list[T] = []
        thread = threading.Thread(target=lambda: results.append(function(*args, **kwargs)))
        deferred: Deferred[T] = Deferred()
        self._running.append((thread, results, deferred))
        thread.start()
        return deferred

    def join(self) -> None:
        """Wait until all that runs has ended, and hand its results over."""
        running, self._running = self._running, []
        for thread, results, deferred in running:
            thread.join(PATIENCE)
            if thread.is_alive():
                raise AssertionError("the work does not end")
            deferred.callback(results[0])


class Web:
    """One handler behind a site, and what happened to its requests."""

    def __init__(
        self, handler: Handler, args: tuple[object, ...], worker: Worker | None, **settings: Any
    ) -> None:
        self.clock = Clock()
        worker = worker or Immediate()
        self.bodies = Bodies(self.clock, worker, worker)
        self.handling = Handling(self.clock, handler, args, worker, self.bodies, **settings)
        self.statuses: list[int] = []
        self.below: bytes | None = None
        self.site = Site(
            self.clock,
            self._serve,
            record=self._record,
            now=lambda: NOW + self.clock.seconds(),
            reads=lambda head: True,
        )

    def connect(self) -> Connection:
        """Open a connection."""
        return Connection(self.site, self.clock)

    def begin(
        self,
        method: str = "GET",
        target: str | bytes = "/",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Connection:
        """Send a request on a connection of its own."""
        connection = self.connect()
        connection.send(encode(method, target, headers or {}, body))
        return connection

    def request(self, method: str = "GET", target: str | bytes = "/", **others: Any) -> Response:
        """The answer to a request on a connection of its own."""
        connection = self.begin(method, target, **others)
        response = connection.receive(head=method == "HEAD")
        connection.lose()
        return response

    def close(self) -> None:
        """Break all connections. No timer may be left then."""
        self.site.break_all()
        self.clock.advance(0)
        if left := self.clock.getDelayedCalls():
            raise AssertionError(f"timers are left: {left}")

    async def _serve(self, request: Request) -> None:
        await self.handling.serve(request, self.below)

    def _record(self, request: Request) -> None:
        self.statuses.append(int(request.status))


class HandlingCase(SynchronousTestCase):
    """Makes webs that are closed after the test, and has an empty directory."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir(parents=True)

    def web(self, handler: Handler, *args: object, worker: Worker | None = None, **settings: Any) -> Web:
        """A handler behind a site."""
        web = Web(handler, args, worker, **settings)
        self.addCleanup(web.close)
        return web

    def saying(self, **values: Any) -> Web:
        """A web whose handler sets these attributes of its response."""

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            for name, value in values.items():
                setattr(response, name, value)

        return self.web(handler)

    def open(self, name: str = "file", data: bytes = b"content") -> Opened:
        """A new file, open as the jail opens it."""
        (self.root / name).write_bytes(data)
        os.utime(self.root / name, (NOW - 1000, NOW - 1000))
        jail = Jail(os.fspath(self.root), durable=False)
        try:
            return jail.open(View(), RelPath((name,)))
        finally:
            jail.close()
