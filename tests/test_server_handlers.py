"""An application's own handlers in the embedded server: one that never returns, and what a stop leaves."""

from __future__ import annotations

import http.client
import threading

from fileexport import Server, assembly
from fileexport.config import Mount, Settings
from fileexport.embed import HttpRequest, HttpResponse
from tests.server_case import TOKEN, ServerCase
from tests.watched import open_descriptors

#: Seconds after which something that should have happened has not; no time is asserted.
PATIENCE = 20.0
#: Requests that are answered at once, so that there are so many threads.
QUICK = 20

#: The threads in `stuck`, which end when they may.
_inside: list[threading.Thread] = []
_is_inside = threading.Semaphore(0)
_may_end = threading.Event()
_all_there = threading.Barrier(QUICK)


def quick(request: HttpRequest, response: HttpResponse) -> None:
    """Return when as many threads are here at once."""
    _all_there.wait(PATIENCE)


def stuck(request: HttpRequest, response: HttpResponse) -> None:
    """Return when the test says so."""
    _inside.append(threading.current_thread())
    _is_inside.release()
    _may_end.wait()


class StuckTests(ServerCase):
    """Handlers that do not return."""

    def setUp(self) -> None:
        super().setUp()
        # Nothing here ends in time: whatever time there is only makes the test longer.
        self.patch(assembly, "THREADS_GRACE", 0.05)
        _inside.clear()
        _may_end.clear()
        self.addCleanup(_may_end.set)
        mounts = tuple(Mount(f"/{name}", __name__, name) for name in ("quick", "stuck"))
        self.handling = self.server(http=True, settings=Settings(handlers=mounts))

    def ask(self, server: Server, path: str) -> http.client.HTTPConnection:
        """A connection on which this was asked for."""
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        return connection

    def one_run(self) -> None:
        """Many requests that are answered, one that is not, and a stop."""
        with self.handling.running(0):
            asked = [self.ask(self.handling, "/quick") for _ in range(QUICK)]
            for connection in asked:
                self.assertEqual(connection.getresponse().status, 200)
                connection.close()
            held = self.ask(self.handling, "/stuck")
            self.assertTrue(_is_inside.acquire(timeout=PATIENCE))
        held.close()

    def ended(self, threads: set[threading.Thread]) -> None:
        """Wait for their ends."""
        for thread in threads:
            thread.join(PATIENCE)
            self.assertFalse(thread.is_alive(), thread)

    def test_left_behind(self) -> None:
        """A stop leaves the stuck thread behind, until it returns, and neither others nor descriptors."""
        with self.handling.running(0):
            pass
        threads, descriptors = set(threading.enumerate()), len(open_descriptors())
        for runs in (1, 2):
            self.one_run()
            self.assertEqual(len(_inside), runs)
            self.ended(set(threading.enumerate()) - threads - set(_inside))
            self.assertEqual(len(open_descriptors()), descriptors)
        _may_end.set()
        self.ended(set(_inside))
        self.assertEqual(set(threading.enumerate()), threads)
