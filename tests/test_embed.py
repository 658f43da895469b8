"""`HttpServer`: an application's own handler behind a server of its own, on loopback sockets."""

from __future__ import annotations

import contextlib
import http.client
import inspect
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface import implementer

from fileexport import embed
from fileexport.embed import HttpRequest, HttpResponse, HttpServer, static_resource, staticResource
from fileexport.keys import generate_keys
from fileexport.reactor_thread import ReactorThread
from tests.test_docs import page, table

#: Seconds after which something that should have happened has not; no time is asserted.
PATIENCE = 20.0
#: How often a run is repeated where nothing may be left of it.
RUNS = 10


class Answer(NamedTuple):
    """What a client got."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")


def ask(
    server: HttpServer,
    path: str = "/",
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send one request on a connection of its own."""
    made = (
        http.client.HTTPConnection(host, server.port, timeout=PATIENCE)
        if tls is None
        else http.client.HTTPSConnection(host, server.port, timeout=PATIENCE, context=tls)
    )
    try:
        made.request(method, path, body, headers or {})
        answer = made.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        made.close()


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


class Held:
    """A handler that waits until it is let go, and says how many were in it at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._free = False
        self.inside = self.most = 0

    def __call__(self, request: HttpRequest, response: HttpResponse) -> None:
        if request.path == ["free"]:
            return
        with self._changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._free)
            self.inside -= 1
            self._changed.notify_all()
        response.data = "let go"

    def wait_for(self, inside: int) -> None:
        """Wait until so many are in it."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.inside == inside, PATIENCE):
                raise AssertionError(f"{self.inside} are in the handler, not {inside}")

    def let_go(self) -> None:
        """Let all return, those to come too."""
        with self._changed:
            self._free = True
            self._changed.notify_all()


class Case(SynchronousTestCase):
    """Starts servers that are stopped after the test."""

    def serve(self, handler: Callable[..., object], *args: object, **given: Any) -> HttpServer:
        """A server on a free port that answers by this handler."""
        server = HttpServer(0, handler, args, block=False, **given)
        self.addCleanup(server.__exit__, None, None, None)
        return server

    def held(self) -> Held:
        """A handler that waits, until the end of the test at most."""
        held = Held()
        self.addCleanup(held.let_go)
        return held

    def begin(self, function: Callable[..., object], *args: Any, **named: Any) -> threading.Thread:
        """Call the function in a thread; what it raises is the thread's own."""
        thread = threading.Thread(target=function, args=args, kwargs=named, daemon=True)
        thread.start()
        return thread

    def ended(self, thread: threading.Thread) -> None:
        """Wait for the thread's end."""
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())


def echo(request: HttpRequest, response: HttpResponse, *args: object) -> None:
    """Answer with all of the request."""
    kind = type(request.data).__name__
    response.data = json.dumps(
        [
            request.method,
            request.path,
            request.query,
            request.headers.get("X-Own"),
            kind,
            len(request.data),
            args,
        ]
    )


class AnswerTests(Case):
    """What a request comes to."""

    def test_request(self) -> None:
        """The handler is given the request, and the further arguments."""
        server = self.serve(echo, "further", 2)
        answer = ask(server, "/a%20b/c/?x=1&x=2&y", "PUT", "ü".encode(), {"x-own": "yes"})
        found = ["PUT", ["a b", "c", ""], {"x": "2", "y": ""}, "yes", "str", 1, ["further", 2]]
        self.assertEqual((answer.status, json.loads(answer.body)), (200, found))
        self.assertEqual(answer.headers["Content-Type"], "text/plain; charset=utf-8")
        self.assertEqual(json.loads(ask(server, method="POST", body=b"\xff").body)[4:6], ["bytes", 1])
        self.assertEqual(json.loads(ask(server).body)[1], [""])

    def test_response(self) -> None:
        """Status, headers and data are what the handler sets; the length is added."""

        def teapot(request: HttpRequest, response: HttpResponse) -> None:
            response.status = 418
            response.headers["X-Own"] = "yes"
            response.data = b"\x00\xff"

        answer = ask(self.serve(teapot))
        self.assertEqual((answer.status, answer.body), (418, b"\x00\xff"))
        self.assertEqual((answer.headers["X-Own"], answer.headers["Content-Length"]), ("yes", "2"))

    def test_head(self) -> None:
        """HEAD calls the handler, and its answer has no body."""
        answer = ask(self.serve(echo), method="HEAD")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertGreater(int(answer.headers["Content-Length"]), 10)

    def test_options_of_the_server(self) -> None:
        """OPTIONS * is asked of the handler as for the root."""
        self.assertEqual(json.loads(ask(self.serve(echo), "*", "OPTIONS").body)[:2], ["OPTIONS", [""]])

    def test_files(self) -> None:
        """Without a handler the files below the current directory are served; both names are one function."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        (directory / "index.html").write_text("the page", encoding="ascii")
        (directory / ".env").write_text("secret", encoding="ascii")
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(directory)
        with HttpServer(0, block=False) as server:
            answer = ask(server)
            self.assertEqual((answer.status, answer.text), (200, "the page"))
            self.assertEqual(answer.headers["Content-Type"], "text/html; charset=utf-8")
            self.assertEqual(ask(server, headers={"Range": "bytes=4-"}).text, "page")
            self.assertEqual(ask(server, "/.env").status, 404)
        self.assertIs(static_resource, staticResource)

    def test_raising(self) -> None:
        """A handler that raises, whatever it is, is a plain 500, whole in the log, and the server goes on."""

        def fail(request: HttpRequest, response: HttpResponse) -> None:
            response.data = "secret"
            raise {"key": KeyError, "exit": SystemExit, "stop": KeyboardInterrupt}[request.path[0]]("secret")

        server = self.serve(fail)
        for path, error in (("/key", KeyError), ("/exit", SystemExit), ("/stop", KeyboardInterrupt)):
            answer = ask(server, path)
            self.assertEqual((answer.status, answer.text), (500, "Internal Server Error"))
            [logged] = self.flushLoggedErrors(error)
            self.assertIn("in fail", logged.getTraceback())

    def test_long_body(self) -> None:
        """A body longer than `max_body` is 413, and the handler does not hear of it."""
        server = self.serve(echo, max_body=10)
        self.assertEqual(ask(server, method="POST", body=b"0123456789").status, 200)
        self.assertEqual(ask(server, method="POST", body=b"0123456789a").status, 413)

    def test_access_log(self) -> None:
        """Each request is a line of Twisted's log."""
        lines: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event["log_namespace"] == "fileexport.access":
                lines.append(event["line"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        with self.serve(echo) as server:
            ask(server, "/some?thing")
        self.assertEqual(len(lines), 1)
        self.assertIn('"GET /some?thing HTTP/1.1" 200', lines[0])


class ThreadTests(Case):
    """How many handlers run at a time, and what one that stays holds up."""

    def test_threads(self) -> None:
        """Each request has a thread of its own."""
        held = self.held()
        server = self.serve(held)
        clients = [self.begin(ask, server) for _ in range(20)]
        held.wait_for(20)
        self.assertEqual(ask(server, "/free").status, 200)
        held.let_go()
        for client in clients:
            self.ended(client)

    def test_one_at_a_time(self) -> None:
        """With `threads=False` the handler is never called while it runs."""
        held = self.held()
        server = self.serve(held, threads=False)
        clients = [self.begin(ask, server) for _ in range(5)]
        held.wait_for(1)
        held.let_go()
        for client in clients:
            self.ended(client)
        self.assertEqual(held.most, 1)

    def test_never_returns(self) -> None:
        """A handler that never returns leaves others served, and a stop leaves it behind."""
        self.patch(embed, "GRACE", 0.05)
        held = self.held()
        server = self.serve(held)
        before = descriptors()
        stuck = self.begin(self.failing, server)
        held.wait_for(1)
        self.assertEqual(ask(server, "/free").status, 200)
        server.stop()
        self.ended(stuck)
        self.assertFalse(server.is_running)
        self.assertLess(descriptors(), before)
        [left] = [thread for thread in threading.enumerate() if "handlers" in thread.name]
        self.assertTrue(left.daemon)
        held.let_go()
        self.ended(left)

    def failing(self, server: HttpServer) -> None:
        """Ask, and be cut off."""
        self.assertRaises((ConnectionError, http.client.BadStatusLine), ask, server)


class RunTests(Case):
    """Starting and stopping."""

    def test_again(self) -> None:
        """It starts and stops ten times, and leaves neither a thread nor a descriptor."""
        server = HttpServer(0, echo, start=False, block=False)
        for _ in range(2):
            before = threading.active_count(), descriptors()
            for _ in range(5):
                server.start()
                self.assertEqual(ask(server).status, 200)
                server.stop()
                self.assertFalse(server.is_running)
        self.assertEqual((threading.active_count(), descriptors()), before)

    def test_block(self) -> None:
        """With `block` the constructor returns when somebody has stopped the server, as from a handler."""

        def stop(request: HttpRequest, response: HttpResponse) -> None:
            server.stop()
            response.data = "stopping"

        server = HttpServer(0, stop, start=False)
        thread = self.begin(server.start)
        self.until_running(server)
        answer = ask(server)
        self.assertEqual((answer.status, answer.text), (200, "stopping"))
        self.ended(thread)
        self.assertFalse(server.is_running)

    def until_running(self, server: HttpServer) -> None:
        """Wait until it listens."""
        for _ in range(10_000):
            if server.is_running and server.port:
                return
            threading.Event().wait(0.001)
        self.fail("it does not run")

    def test_in_flight(self) -> None:
        """A stop waits for the answer that is under way; new connections are refused meanwhile."""
        held = self.held()
        server = self.serve(held)
        answers: list[Answer] = []
        client = self.begin(lambda: answers.append(ask(server)))
        held.wait_for(1)
        port = server.port
        stopping = self.begin(server.stop)
        self.until_refused(port)
        held.let_go()
        self.ended(stopping)
        self.ended(client)
        self.assertEqual((answers[0].text, answers[0].headers["Connection"]), ("let go", "close"))

    def until_refused(self, port: int) -> None:
        """Wait until nobody listens there."""
        for _ in range(10_000):
            try:
                socket.create_connection(("127.0.0.1", port), PATIENCE).close()
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                pass  # it was waiting to be let in
        self.fail("it listens still")

    def test_join_in_a_handler(self) -> None:
        """A handler cannot wait for the end that waits for it."""

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            try:
                server.join()
            except RuntimeError as error:
                response.data = str(error)

        server = self.serve(handler)
        self.assertIn("cannot wait", ask(server).text)

    def test_wrong_order(self) -> None:
        """Starting what runs and stopping what does not are errors; waiting for it is none."""
        server = self.serve(echo)
        self.assertRaises(RuntimeError, server.start)
        self.assertEqual(ask(server).status, 200)
        server.stop()
        self.assertRaises(RuntimeError, server.stop)
        server.join()

    def test_cannot_listen(self) -> None:
        """A port that is taken, or an address that is none, is one sentence, and nothing is left."""
        taken = self.serve(echo).port
        before = threading.active_count(), descriptors()
        for port, address in ((taken, "127.0.0.1"), (0, "203.0.113.1"), (0, "no:such")):
            error = self.assertRaises(RuntimeError, HttpServer, port, echo, address=address)
            self.assertRegex(str(error), r"\Acannot listen on [^\n]+\Z")
            self.assertNotIn("--", str(error))
        self.assertEqual((threading.active_count(), descriptors()), before)

    def test_sentence(self) -> None:
        """It names the address as people write it."""
        taken = self.serve(echo).port
        for port, address, sentence in (
            (taken, "127.0.0.1", f"cannot listen on 127.0.0.1:{taken}: the address is in use"),
            (taken, "", f"cannot listen on 0.0.0.0:{taken}: the address is in use"),
            (0, "203.0.113.1", "cannot listen on 203.0.113.1:0: this machine has no such address"),
            (0, "no:such", "cannot listen on 'no:such': there is no such address"),
        ):
            error = self.assertRaises(RuntimeError, HttpServer, port, echo, address=address)
            self.assertEqual(str(error), sentence)

    def test_stopped_early(self) -> None:
        """Who stops a server that has only just begun ends its run, whether it listened or not."""
        server = HttpServer(0, echo, start=False, block=False)
        ended = []

        def run() -> None:
            server.start()
            ended.append(True)

        for _ in range(RUNS):
            runner = self.begin(run)
            while not server.is_running:
                self.assertTrue(runner.is_alive())
            with contextlib.suppress(RuntimeError):
                server.stop()
            self.ended(runner)
            self.assertFalse(server.is_running)
        self.assertEqual(len(ended), RUNS)

    def test_stopped_before_it_listens(self) -> None:
        """A stop that comes before all else of a run ends it without an error."""
        server = HttpServer(0, echo, start=False, block=False)
        start = ReactorThread.start

        def started(thread: ReactorThread) -> None:
            start(thread)
            server.stop()

        patch = self.patch(ReactorThread, "start", started)
        server.start()
        patch.restore()
        self.assertFalse(server.is_running)
        with server:
            self.assertEqual(ask(server).status, 200)

    def test_several(self) -> None:
        """Several run at a time, each with a handler of its own."""
        servers = [self.serve(echo, number) for number in range(3)]
        self.assertEqual(len({server.port for server in servers}), 3)
        for number, server in enumerate(servers):
            self.assertEqual(json.loads(ask(server).body)[-1], [number])

    def test_port(self) -> None:
        """The port is the real one while it runs, and before and after what was asked for."""
        server = HttpServer(0, echo, start=False, block=False)
        self.assertEqual(server.port, 0)
        with server:
            self.assertGreater(server.port, 0)
            self.assertEqual(server.url, f"http://127.0.0.1:{server.port}/")
        self.assertEqual(server.port, 0)

    def test_values(self) -> None:
        """What can never do is refused before anything starts, and a key is not shown."""

        async def late(request: HttpRequest, response: HttpResponse) -> None:
            """Never awaited."""

        for given in (
            {"port": 65536},
            {"port": -1},
            {"private_key": "PRIVATE"},
            {"allow_host": ["a b"]},
            {"handler": None},
            {"handler": late},
        ):
            error = self.assertRaises(ValueError, HttpServer, **{"port": 0, "start": False, **given})
            self.assertNotIn("PRIVATE", str(error))

    def test_no_global_reactor(self) -> None:
        """A whole run with TLS neither uses nor makes the application's reactor."""
        code = (
            "import sys; from fileexport.embed import HttpServer; from fileexport.keys import generate_keys\n"
            "with HttpServer(0, block=False, private_key=generate_keys()[1]): pass\n"
            "sys.exit('twisted.internet.reactor' in sys.modules)"
        )
        paths = os.pathsep.join(filter(None, sys.path))
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": paths})


class PageTests(SynchronousTestCase):
    """docs/handlers.md says what the code is."""

    def test_signatures(self) -> None:
        """The parameters and defaults of the server and of static files are the page's."""
        text = " ".join(page("docs/handlers.md").split())
        for function in (HttpServer, static_resource):
            found = inspect.signature(function).parameters.values()
            bare = [one.replace(annotation=inspect.Parameter.empty) for one in found]
            shown = re.sub("<function (\\w+) at 0x[0-9a-f]+>", "\\1", str(inspect.Signature(bare)))
            self.assertIn(f"`{function.__name__}{shown}`", text)
        rows = table(page("docs/handlers.md"), "| parameter of a server | |")
        named = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
        self.assertEqual(named, set(inspect.signature(HttpServer).parameters))

    def test_members(self) -> None:
        """The tables name every public member of the server, the request and the response."""
        text = page("docs/handlers.md")
        for head, kind in (
            ("| member | |", HttpServer),
            ("| `HttpRequest` | |", HttpRequest()),
            ("| `HttpResponse` | |", HttpResponse()),
        ):
            named = {name for row in table(text, head) for name in re.findall(r"`(\w+)(?:\(\))?`", row[0])}
            self.assertEqual(named, {name for name in dir(kind) if not name.startswith("_")}, head)


class PlaceTests(Case):
    """Where it can be reached, and by which names."""

    def test_hosts(self) -> None:
        """On loopback it answers to addresses, localhost and the names that were given, and no other."""
        server = self.serve(echo, allow_host=["files.example"])
        for host, status in (
            ("127.0.0.1", 200),
            ("localhost:80", 200),
            ("[::1]", 200),
            ("files.example:8000", 200),
            ("evil.example", 403),
            ("a/b", 400),
        ):
            self.assertEqual(ask(server, headers={"Host": host}).status, status, host)

    def test_everywhere(self) -> None:
        """With an empty address it listens on every interface, to every name."""
        server = self.serve(echo, address="")
        self.assertEqual(ask(server, headers={"Host": "any.example"}).status, 200)
        self.assertEqual(server.url, f"http://127.0.0.1:{server.port}/")

    def test_ipv6(self) -> None:
        """An IPv6 address is one like another."""
        try:
            server = self.serve(echo, address="::1")
        except RuntimeError:
            raise SkipTest("this machine has no IPv6") from None
        self.assertEqual(ask(server, host="::1").status, 200)
        self.assertEqual(server.url, f"http://[::1]:{server.port}/")

    def test_socket(self) -> None:
        """A listening socket of the application's own is listened on, ten times, and stays its own."""
        certificate = generate_keys()[1]
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for key, scheme, tls in ((None, "http", None), (certificate, "https", context)):
            given = self.bound()
            port = given.getsockname()[1]
            server = HttpServer(handler=echo, start=False, block=False, private_key=key, socket=given)
            for run in range(RUNS):
                with server:
                    self.assertEqual(server.port, port)
                    self.assertEqual(server.url, f"{scheme}://127.0.0.1:{port}/")
                    self.assertEqual(ask(server, tls=tls).status, 200)
                    self.assertEqual(ask(server, headers={"Host": "evil.example"}, tls=tls).status, 403)
                if run == 0:
                    before = threading.active_count(), descriptors()
            self.assertEqual((threading.active_count(), descriptors()), before)
            with socket.create_connection(given.getsockname()):
                given.setblocking(True)
                given.accept()[0].close()

    def test_unix_socket(self) -> None:
        """A UNIX socket may be given, which has no port, and whose name stays."""
        path = Path(self.mktemp())
        given = self.bound(socket.AF_UNIX, str(path))
        with HttpServer(handler=echo, block=False, socket=given) as server:
            for name in ("port", "url"):
                self.assertRaises(RuntimeError, getattr, server, name)
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE)
                client.connect(str(path))
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                self.assertTrue(client.recv(1 << 16).startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertTrue(path.exists())

    def test_socket_alone(self) -> None:
        """A socket stands in the place of port and address, and must listen."""
        given = self.bound()
        self.assertRaises(ValueError, HttpServer, 0, echo, socket=given, start=False)
        self.assertRaises(ValueError, HttpServer, handler=echo, address="", socket=given, start=False)
        deaf = socket.socket()
        self.addCleanup(deaf.close)
        error = self.assertRaises(RuntimeError, HttpServer, handler=echo, socket=deaf)
        self.assertIn("cannot listen on the given socket", str(error))

    def bound(self, family: int = socket.AF_INET, place: Any = ("127.0.0.1", 0)) -> socket.socket:
        """A listening socket of the application's own."""
        made = socket.socket(family)
        self.addCleanup(made.close)
        made.bind(place)
        made.listen()
        return made

    def test_tls(self) -> None:
        """With a private key it speaks HTTPS, and nothing else."""
        certificate = generate_keys()[1]
        server = self.serve(echo, private_key=certificate)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.assertEqual(ask(server, tls=context).status, 200)
        self.assertEqual(server.url, f"https://127.0.0.1:{server.port}/")
        self.assertRaises((ConnectionError, http.client.HTTPException), ask, server)
