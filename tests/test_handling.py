"""A handler's requests and answers, its errors, its threads."""

from __future__ import annotations

import sys
import threading
from typing import Any

from twisted.internet.defer import Deferred, fail

from fileexport.errors import OverloadedError
from fileexport.handling import WAIT, Memory
from fileexport.web.handlers import HttpRequest, HttpResponse, attach_file
from tests.handling_case import LARGE, PATIENCE, HandlingCase, Threads, Waiting, Web
from tests.http_client import Response


class Full:
    """A `fileexport.pools.Worker` that takes no more."""

    def run(self, function: object, /, *args: object, **kwargs: object) -> Deferred[Any]:
        return fail(OverloadedError())


def echo(request: HttpRequest, response: HttpResponse) -> None:
    """Answer with what was sent."""
    response.data = request.data


class AnswerTests(HandlingCase):
    """What a handler says is what its client reads."""

    def test_arguments(self) -> None:
        """A handler is called with the request, a response, and the arguments that were given for it."""
        found: list[object] = []

        def handler(request: HttpRequest, response: HttpResponse, *args: object) -> str:
            found.extend((request.method, request.path, request.query, *args))
            return "means nothing"

        answer = self.web(handler, 1, "two").request("PUT", "/a/b?c=d")
        self.assertEqual(found, ["PUT", ["a", "b"], {"c": "d"}, 1, "two"])
        self.assertEqual((answer.status, answer.body), (200, b""))

    def test_text(self) -> None:
        """Text arrives as UTF-8 with its length."""
        answer = self.saying(status=201, data="é", headers={"X": "y"}).request()
        self.assertEqual((answer.status, answer.reason, answer.text), (201, "Created", "é"))
        self.assertEqual((answer.field("Content-Length"), answer.field("X")), ("2", "y"))
        self.assertEqual(answer.field("Content-Type"), "text/plain; charset=utf-8")
        self.assertEqual(answer.field("X-Content-Type-Options"), "nosniff")

    def test_unknown_status(self) -> None:
        """A status that has no name of its own arrives with that of its class."""
        answer = self.saying(status=299, data="x").request()
        self.assertEqual((answer.status, answer.reason, answer.body), (299, "Success", b"x"))

    def test_no_body(self) -> None:
        """204 and 304 leave without length and body, 205 with the length 0; the connection goes on."""
        for status, length in ((204, []), (304, []), (205, ["0"])):
            web = self.saying(status=status, data="x")
            connection = web.connect()
            for _ in range(2):
                connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = connection.receive()
                self.assertEqual((answer.status, answer.fields("Content-Length")), (status, length))
                self.assertEqual(answer.body, b"")

    def test_head(self) -> None:
        """HEAD calls the handler, which sees the method, and sends no body."""

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            response.data = request.method

        connection = self.web(handler).connect()
        connection.send(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        for _ in range(2):
            answer = connection.receive(head=True)
            self.assertEqual((answer.field("Content-Length"), answer.body), ("4", b""))
        self.assertEqual(connection.settle(), b"")

    def test_large(self) -> None:
        """A large body leaves as its reader takes it: never more than a little waits in the transport."""
        web = self.saying(data=LARGE)
        connection = web.begin()
        self.assertEqual(connection.receive().body, LARGE)
        self.assertLess(connection.wire.highest, 256 << 10)

    def test_reader_that_leaves(self) -> None:
        """A client that leaves in the middle of a large body is an everyday event: nothing is logged."""
        web = self.saying(data=LARGE)
        web.begin().lose()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_http_1_0(self) -> None:
        """A client of HTTP/1.0 gets its answer, and the handler knows the version."""

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            response.data = request.protocol

        connection = self.web(handler).connect()
        connection.send(b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(connection.receive().body, b"HTTP/1.0")

    def test_bad_request(self) -> None:
        """What is no HTTP never reaches the handler."""
        web = self.web(self.fail)
        connection = web.connect()
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        self.assertEqual(connection.receive().status, 400)


class BodyTests(HandlingCase):
    """What a client sends to a handler."""

    def test_echo(self) -> None:
        """A body of any bytes reaches the handler whole, in one piece or byte by byte, or chunked."""
        web = self.web(echo)
        for body in (b"", b"text", b"\xff\0", LARGE):
            self.assertEqual(web.request("POST", body=body).body, body)
        connection = web.connect()
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        for byte in head + b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n":
            connection.send(bytes((byte,)))
        self.assertEqual(connection.receive().body, b"abcd")

    def test_body_of_get(self) -> None:
        """A body is read whatever the method is, so that the next request begins behind it."""
        connection = self.web(echo).connect()
        connection.send(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab" * 2)
        for _ in range(2):
            self.assertEqual(connection.receive().body, b"ab")

    def test_longest(self) -> None:
        """A body of the greatest length is taken; one byte more is 413, announced or not."""
        web = self.web(echo, max_body=10)
        self.assertEqual(web.request("POST", body=b"x" * 10).status, 200)
        self.assertEqual(web.request("POST", body=b"x" * 11).status, 413)
        connection = web.connect()
        connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n" + b"x" * 11)
        answer = connection.receive()
        self.assertEqual((answer.status, answer.field("Connection")), (413, "close"))
        self.assertEqual(answer.field("Content-Type"), "text/plain; charset=utf-8")

    def test_continue(self) -> None:
        """A client that waits for 100 gets it, or its refusal before it has sent anything."""
        web = self.web(echo, max_body=10)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        connection = web.connect()
        connection.send(head % 3)
        self.assertEqual(connection.settle(), b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.send(b"abc")
        self.assertEqual(connection.receive().body, b"abc")
        connection = web.connect()
        connection.send(head % 11)
        self.assertEqual(connection.receive().status, 413)

    def test_slow_body(self) -> None:
        """A body that does not come in time is 408, and the handler is not called."""
        web = self.web(self.fail)
        connection = web.begin("POST", headers={"Content-Length": "3"}, body=b"ab")
        web.clock.pump([1] * 62)
        self.assertEqual(connection.receive().status, 408)

    def test_broken_body(self) -> None:
        """A chunk that cannot be read is 400, and the handler is not called."""
        connection = self.web(self.fail).connect()
        connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        self.assertEqual(connection.receive().status, 400)

    def test_lost_body(self) -> None:
        """A client that leaves before its body has come calls no handler, and its bytes count no more."""
        web = self.web(echo, memory=Memory(10))
        web.begin("POST", headers={"Content-Length": "10"}, body=b"x" * 9).lose()
        self.assertEqual(web.request("POST", body=b"x" * 10).status, 200)

    def test_all_bodies(self) -> None:
        """All bodies together are bounded while their handlers run; one past that is asked to return."""
        worker = Waiting()
        web = self.web(echo, worker=worker, memory=Memory(10))
        first = web.begin("POST", body=b"x" * 8)
        answer = web.request("POST", body=b"x" * 3)
        self.assertEqual((answer.status, answer.field("Retry-After")), (503, "10"))
        second = web.begin("POST", body=b"yy")
        worker.work()
        worker.work()
        self.assertEqual((first.receive().body, second.receive().body), (b"x" * 8, b"yy"))
        third = web.begin("POST", body=b"z" * 10)
        worker.work()
        self.assertEqual(third.receive().status, 200)

    def test_shared_memory(self) -> None:
        """Handlers that share their memory are bounded together."""
        memory, worker = Memory(10), Waiting()
        first = self.web(echo, worker=worker, memory=memory).begin("POST", body=b"x" * 8)
        other = self.web(echo, memory=memory)
        self.assertEqual(other.request("POST", body=b"y" * 3).status, 503)
        worker.work()
        self.assertEqual(first.receive().status, 200)
        self.assertEqual(other.request("POST", body=b"y" * 3).status, 200)

    def test_wide_text(self) -> None:
        """A body counts as what it takes as text: where that is too much, its handler is not called."""
        called: list[str | bytes] = []

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            called.append(request.data)

        text = "x" * 1000 + "\U0001f600"
        web = self.web(handler, memory=Memory(4500))
        self.assertEqual(web.request("POST", body=text.encode()).status, 200)
        self.assertEqual(web.request("POST", body=b"x" * 4500).status, 200)
        answer = web.request("POST", body=text.encode() + b"x" * 500)
        self.assertEqual((answer.status, answer.field("Retry-After")), (503, "10"))
        self.assertEqual(web.request("POST", body=b"x" * 4500).status, 200)
        self.assertEqual(called, [text, "x" * 4500, "x" * 4500])

    def test_wide_text_while_it_is_handled(self) -> None:
        """While a handler has a text, that is what counts, and the bytes that it came in are gone."""
        worker, memory = Threads(), Memory(5000)
        may_end, begun = threading.Event(), threading.Event()

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            begun.set()
            may_end.wait(PATIENCE)

        web = self.web(handler, worker=worker, memory=memory)
        connection = web.begin("POST", body=b"x" * 1000 + "\U0001f600".encode())
        begun.wait(PATIENCE)
        self.assertRaises(OverloadedError, memory.take, 1000)
        memory.take(800)
        may_end.set()
        worker.join()
        self.assertEqual(connection.receive().status, 200)
        memory.take(4200)
        self.assertRaises(OverloadedError, memory.take, 1)


class FailureTests(HandlingCase):
    """A handler that fails."""

    def check(self, web: Web, kind: type[BaseException]) -> Response:
        """A request gets a plain 500, the log the whole error, and the connection goes on."""
        connection = web.connect()
        for _ in range(2):
            connection.send(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n")
            answer = connection.receive()
            self.assertEqual((answer.status, answer.body), (500, b"Internal Server Error"))
            self.assertEqual(answer.field("Content-Type"), "text/plain; charset=utf-8")
        self.assertEqual(len(self.flushLoggedErrors(kind)), 2)
        return answer

    def test_exception(self) -> None:
        """An exception is logged and answered by a 500 that leaks nothing of what was set before it."""

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            response.headers["X-Secret"] = response.data = "secret"
            raise ValueError("secret")

        answer = self.check(self.web(handler), ValueError)
        self.assertNotIn("secret", str(answer))

    def test_errors_that_mean_something_elsewhere(self) -> None:
        """An error that the daemon would answer by another status is a 500 here, and so is a lost peer's."""
        for error in (FileNotFoundError(2, "x"), OverloadedError(), ConnectionError(), TimeoutError()):

            def handler(request: HttpRequest, response: HttpResponse, error: Exception = error) -> None:
                raise error

            self.check(self.web(handler), type(error))

    def test_end_of_a_program(self) -> None:
        """What ends a program ends neither the server nor a thread."""

        def leave(request: HttpRequest, response: HttpResponse) -> None:
            sys.exit("bye")

        def interrupt(request: HttpRequest, response: HttpResponse) -> None:
            raise KeyboardInterrupt

        self.check(self.web(leave), SystemExit)
        self.check(self.web(interrupt), KeyboardInterrupt)

    def test_wrong_signature(self) -> None:
        """A handler that cannot be called with what it is given has failed."""
        self.check(self.web(lambda: None), TypeError)

    def test_answer_that_cannot_be_sent(self) -> None:
        """A response that is no HTTP is the handler's mistake."""
        for values in ({"status": 700}, {"headers": {"X": "a\r\nY: b"}}, {"data": 3}, {"status": 100}):
            self.check(self.saying(**values), ValueError)

    def test_peer_gone(self) -> None:
        """A failure is logged also where its client has left."""
        worker = Threads()
        may_end = threading.Event()

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            may_end.wait(PATIENCE)
            raise ValueError

        self.web(handler, worker=worker).begin().lose()
        may_end.set()
        worker.join()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class ThreadTests(HandlingCase):
    """Requests wait for threads, and handlers in them."""

    def test_no_thread(self) -> None:
        """A request that finds no thread in time gets 503, and its handler never runs."""
        worker = Waiting()
        web = self.web(self.fail, worker=worker)
        connection = web.begin()
        web.clock.advance(WAIT - 1)
        self.assertEqual(worker.count, 1)
        web.clock.advance(1)
        answer = connection.receive()
        self.assertEqual((answer.status, answer.field("Retry-After")), (503, "10"))
        self.assertEqual(worker.count, 0)

    def test_thread_that_comes_late(self) -> None:
        """A thread that was already given the request when that was answered does not call the handler."""
        worker = Waiting(taken=True)
        web = self.web(self.fail, worker=worker)
        connection = web.begin()
        web.clock.advance(WAIT)
        self.assertEqual(connection.receive().status, 503)
        self.assertEqual(worker.count, 1)
        worker.work()

    def test_all_busy(self) -> None:
        """Where no more may even wait, the answer is 503 at once."""
        answer = self.web(self.fail, worker=Full()).request()
        self.assertEqual((answer.status, answer.field("Retry-After")), (503, "10"))

    def test_long_handler(self) -> None:
        """A handler may take as long as it likes once it has begun; others are served meanwhile."""
        worker = Threads()
        may_end, begun = threading.Event(), threading.Event()

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            begun.set()
            may_end.wait(PATIENCE)
            response.data = "late"

        web = self.web(handler, worker=worker)
        connection = web.begin()
        begun.wait(PATIENCE)
        web.clock.pump([1] * (int(WAIT) * 3))
        self.assertEqual(connection.settle(), b"")
        may_end.set()
        worker.join()
        self.assertEqual(connection.receive().body, b"late")

    def test_peer_gone_while_it_waits(self) -> None:
        """A request whose client left before a thread was free is forgotten with its body."""
        worker = Waiting()
        web = self.web(echo, worker=worker, memory=Memory(10))
        web.begin("POST", body=b"x" * 10).lose()
        self.assertEqual(worker.count, 0)
        connection = web.begin("POST", body=b"x" * 10)
        worker.work()
        self.assertEqual(connection.receive().status, 200)

    def test_peer_gone_while_it_runs(self) -> None:
        """A client leaves while its handler runs: the body counts to its end, the result is dropped."""
        worker = Threads()
        may_end, begun = threading.Event(), threading.Event()
        opened = self.open()

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            begun.set()
            may_end.wait(PATIENCE)
            attach_file(response, opened)

        web = self.web(handler, worker=worker, memory=Memory(10))
        connection = web.begin("POST", body=b"x" * 10)
        begun.wait(PATIENCE)
        connection.lose()
        self.assertEqual(web.request("POST", body=b"x").status, 503)
        may_end.set()
        worker.join()
        self.assertEqual(opened.descriptor, -1)
        web.begin("POST", body=b"x" * 10).lose()
        worker.join()


class MountTests(HandlingCase):
    """A handler below a path of the daemon's."""

    def test_path_below(self) -> None:
        """The handler sees the path without the mount's prefix."""

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            response.data = repr(request.path)

        web = self.web(handler)
        for below, text in ((b"", "['']"), (b"/a/b", "['a', 'b']")):
            web.below = below
            self.assertEqual(web.request(target="/app/a/b").text, text)

    def test_secrets(self) -> None:
        """A mounted handler is not given what its callers tell the daemon; one of its own server is."""

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            response.data = "|".join(request.headers.get(name, "-") for name in ("authorization", "cookie"))

        ours = "fileexport-0123abcd=secret"
        for cookie, left in ((f"{ours}; a=1", "a=1"), (f"a=1;{ours} ; b=2", "a=1; b=2"), (ours, "-")):
            fields = {"Authorization": "Bearer secret", "Cookie": cookie}
            for mounted, text in ((True, f"-|{left}"), (False, f"Bearer secret|{cookie}")):
                answer = self.web(handler, mounted=mounted).request(headers=fields)
                self.assertEqual(answer.text, text)
