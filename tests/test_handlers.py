"""What a handler is given, and what its answer becomes."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fileexport.web.handlers import (
    Answer,
    Headers,
    HttpRequest,
    HttpResponse,
    answer_of,
    check_handler,
    decoded,
    name_without_slash,
    request_of,
    widest,
)
from fileexport.web.request import Request
from fileexport.web.site import Site
from tests.http_client import Connection, encode


def received(
    method: str = "GET",
    target: str | bytes = "/",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    below: bytes | None = None,
) -> HttpRequest:
    """What a handler is given of a request that came over a connection."""
    found: list[HttpRequest] = []

    async def serve(request: Request) -> None:
        content = await request.read_body(1 << 20)
        found.append(request_of(request, decoded(content), below))
        request.answer(HTTPStatus.OK, b"", b"text/plain")

    clock = Clock()
    site = Site(clock, serve, record=lambda request: None, now=lambda: 0.0, reads=lambda head: True)
    connection = Connection(site, clock)
    connection.send(encode(method, target, headers or {}, body))
    connection.receive(head=method == "HEAD")
    connection.lose()
    return found[0]


def answered(
    status: Any = 200, headers: Mapping[Any, Any] | None = None, data: Any = "", **others: str
) -> Answer:
    """What a response with these values is sent as."""
    response = HttpResponse()
    response.status = status
    response.headers.update({**(headers or {}), **others})
    response.data = data
    return answer_of(response)


class HeadersTests(SynchronousTestCase):
    """A dict whose keys ignore case."""

    def test_case_does_not_matter(self) -> None:
        """Every way to reach a value takes any spelling of its name."""
        headers = Headers({"Content-Type": "a", "X": "b"})
        self.assertEqual(headers["content-TYPE"], "a")
        self.assertIn("x", headers)
        self.assertEqual((headers.get("x"), headers.get("y"), headers.get("y", "-")), ("b", None, "-"))
        self.assertEqual(headers.setdefault("CONTENT-type", "c"), "a")
        self.assertEqual(headers.pop("content-type"), "a")
        del headers["x"]
        self.assertEqual(dict(headers), {})

    def test_one_spelling(self) -> None:
        """A name has one value and keeps the spelling that it was first set with."""
        headers = Headers([("Content-Type", "a")])
        headers["content-type"] = "b"
        headers.update({"CONTENT-TYPE": "c"}, Y="d")
        self.assertEqual(list(headers.items()), [("Content-Type", "c"), ("Y", "d")])

    def test_missing(self) -> None:
        """What is not there is a KeyError, or the default that was given."""
        headers = Headers()
        for action in (lambda: headers["x"], lambda: headers.pop("x"), lambda: headers.__delitem__("x")):
            self.assertRaises(KeyError, action)
        self.assertEqual(headers.pop("x", "-"), "-")
        self.assertNotIn(cast(str, 3), headers)

    def test_emptied(self) -> None:
        """After clear and popitem a name may be spelled anew."""
        headers = Headers({"A": "1"})
        self.assertEqual(headers.popitem(), ("A", "1"))
        headers["a"] = "2"
        headers.clear()
        self.assertNotIn("a", headers)
        headers["A"] = "3"
        self.assertEqual(list(headers), ["A"])

    def test_copies(self) -> None:
        """A copy is another object with the same fields."""
        headers = Headers({"A": "1"})
        pickled = pickle.loads(pickle.dumps(headers))
        for other in (headers.copy(), copy.copy(headers), copy.deepcopy(headers), pickled):
            self.assertEqual(other, headers)
            other["B"] = "2"
            self.assertEqual(other["b"], "2")
        self.assertEqual(dict(headers), {"A": "1"})
        self.assertNotIn("b", headers)

    def test_joined(self) -> None:
        """Joined with other fields, from either side or in place, a name still has one value."""
        headers = Headers({"Content-Type": "a"})
        for joined in (
            headers | {"content-type": "b"},
            {"Content-Type": "c"} | Headers({"content-type": "b"}),
        ):
            self.assertEqual(list(joined.items()), [("Content-Type", "b")])
            self.assertEqual(joined["CONTENT-TYPE"], "b")
        self.assertEqual(headers["content-type"], "a")
        same = headers
        headers |= {"content-type": "b", "x": "y"}
        headers |= [("X", "z")]
        self.assertIs(headers, same)
        self.assertEqual(list(headers.items()), [("Content-Type", "b"), ("x", "z")])
        del headers["CONTENT-TYPE"]
        self.assertRaises(TypeError, lambda: headers | 3)
        self.assertRaises(TypeError, lambda: 3 | headers)


class RequestTests(SynchronousTestCase):
    """A request as its handler sees it."""

    def test_path(self) -> None:
        """The path is a list of decoded segments; a closing slash makes an empty one."""
        for target, path in (
            ("/", [""]),
            ("/a", ["a"]),
            ("/a/", ["a", ""]),
            ("/a//b", ["a", "", "b"]),
            ("//a", ["", "a"]),
            ("/a%2Fb/%C3%A9", ["a/b", "é"]),
            ("/%FF%zz+%00", ["\udcff%zz+\0"]),
            ("/../.", ["..", "."]),
            ("/a?b/c", ["a"]),
        ):
            self.assertEqual(received(target=target).path, path, target)

    def test_path_below(self) -> None:
        """What lies below a mount is a path of its own, and the mount itself is its root."""
        for below, path in ((b"", [""]), (b"/", [""]), (b"/a%20b/", ["a b", ""])):
            self.assertEqual(received(target="/app/x", below=below).path, path)

    def test_server_itself(self) -> None:
        """OPTIONS for the server as a whole has a star for its path."""
        self.assertEqual(received("OPTIONS", "*").path, ["*"])

    def test_query(self) -> None:
        """Names and values are decoded, the last of a name counts, a name alone has an empty value."""
        for query, expected in (
            ("", {}),
            ("a=1&b=2", {"a": "1", "b": "2"}),
            ("a=1&a=2", {"a": "2"}),
            ("a&b=&=c", {"a": "", "b": "", "": "c"}),
            ("a+b=c%2Bd%26e", {"a b": "c+d&e"}),
            ("%C3%A9=%FF", {"é": "\udcff"}),
            ("a=b=c&&", {"a": "b=c"}),
        ):
            self.assertEqual(received(target=f"/?{query}").query, expected, query)

    def test_method_and_protocol(self) -> None:
        """The method is as it was sent, whatever it is; the protocol says the version."""
        self.assertEqual(received("BREW").method, "BREW")
        self.assertEqual(received().protocol, "HTTP/1.1")

    def test_headers(self) -> None:
        """Headers are found in any case and decoded as Latin-1."""
        headers = received(headers={"X-Name": "  caf\xe9 "}).headers
        self.assertEqual((headers["X-Name"], headers["x-name"]), ("caf\xe9", "caf\xe9"))
        self.assertEqual(headers.get("host"), "localhost")

    def test_repeated_headers(self) -> None:
        """Repeated fields are one value with commas, cookies one with semicolons."""
        lines = {"X": "a\r\nx: b", "Cookie": "c=1\r\ncookie: d=2"}
        headers = received(headers=lines).headers
        self.assertEqual((headers["x"], headers["cookie"]), ("a, b", "c=1; d=2"))

    def test_data(self) -> None:
        """The body is str where it is UTF-8 and bytes otherwise; without one it is an empty str."""
        for body, data in ((b"", ""), ("é\0".encode(), "é\0"), (b"\xff\0", b"\xff\0")):
            self.assertEqual(received("POST", body=body).data, data)

    def test_widest(self) -> None:
        """What a body takes as text is known before it is decoded."""
        for text, size in (("", 0), ("a" * 8, 8), ("é" * 4, 16), ("€" * 2, 12), ("a" * 4 + "\U0001f600", 32)):
            self.assertEqual(widest(text.encode()), size, text)

    def test_without(self) -> None:
        """Fields that are none of the handler's business are not there."""
        found: list[HttpRequest] = []

        async def serve(request: Request) -> None:
            found.append(request_of(request, "", None, mounted=True))
            request.answer(HTTPStatus.OK, b"", b"text/plain")

        clock = Clock()
        site = Site(clock, serve, record=lambda request: None, now=lambda: 0.0)
        connection = Connection(site, clock)
        connection.send(encode("GET", "/", {"AUTHORIZATION": "Bearer x", "X": "y"}, b""))
        connection.receive()
        connection.lose()
        self.assertNotIn("Authorization", found[0].headers)
        self.assertEqual(found[0].headers["x"], "y")

    def test_name_without_slash(self) -> None:
        """A redirect needs the last name of the URL, also where a mount's prefix was taken off."""
        for target, below, name in (
            ("/", None, ""),
            ("/a/b", None, "b"),
            ("/a/b/", None, ""),
            ("/app%20x", b"", "app x"),
            ("/app/", b"/", ""),
            ("/app/b", b"/b", "b"),
        ):
            found = name_without_slash(received(target=target, below=below))
            self.assertEqual(found, name, (target, below))

    def test_name_of_a_path_that_was_changed(self) -> None:
        """The URL's own name counts, whatever names the handler has taken off or put there instead."""
        for target, below, path, name in (
            ("/static", None, [], "static"),
            ("/static/", None, [""], ""),
            ("/static/", None, [], ""),
            ("/static/sub", None, ["sub"], "sub"),
            ("/", None, [], ""),
            ("/app", b"", [], "app"),
            ("/app/v1", b"/v1", [], "v1"),
            ("/about", None, [""], ""),
            ("/about", None, ["sub"], "about"),
            ("/app", b"", ["sub", ""], ""),
        ):
            request = received(target=target, below=below)
            request.path[:] = path
            self.assertEqual(name_without_slash(request), name, (target, path))
        self.assertEqual(name_without_slash(HttpRequest(path=[])), "")
        self.assertEqual(name_without_slash(HttpRequest(path=["a"])), "a")

    def test_made_by_hand(self) -> None:
        """A test of a handler makes a request from what matters to it."""
        request = HttpRequest(path=["a"], data=b"x")
        self.assertEqual((request.method, request.query, request.headers), ("GET", {}, {}))
        self.assertEqual(HttpRequest().path, [""])


class Callable:
    """A handler that is an object."""

    def __call__(self, request: HttpRequest, response: HttpResponse) -> None:
        """Do nothing."""

    async def late(self, request: HttpRequest, response: HttpResponse) -> None:
        """Do nothing, when somebody awaits it."""


class Late:
    """An object whose call has to be awaited."""

    async def __call__(self, request: HttpRequest, response: HttpResponse) -> None:
        """Do nothing, when somebody awaits it."""


class CheckTests(SynchronousTestCase):
    """What can be a handler."""

    def test_good(self) -> None:
        """All that runs when it is called: functions, methods, objects, classes, also partly applied."""
        one = Callable()
        for handler in (lambda *_: None, one, one.__call__, Callable, Late, functools.partial(one), print):
            check_handler(handler)

    def test_wrong(self) -> None:
        """What cannot be called, or would have to be awaited or iterated, is refused."""

        def parts(request: HttpRequest, response: HttpResponse) -> Any:
            yield

        async def late_parts(request: HttpRequest, response: HttpResponse) -> Any:
            yield

        partly = functools.partial
        late = Callable().late
        for wrong in (None, "answer", 3, late, Callable.late, Late(), partly(late), parts, late_parts):
            self.assertRaises(ValueError, check_handler, wrong)
        for wrong in (partly(partly(Late()), 1), partly(parts)):
            self.assertRaises(ValueError, check_handler, wrong)


class AnswerTests(SynchronousTestCase):
    """What a response becomes."""

    def test_nothing_set(self) -> None:
        """A handler that sets nothing has answered 200 with an empty text."""
        kind = (b"Content-Type", b"text/plain; charset=utf-8")
        self.assertEqual(answered(), Answer(200, b"OK", (kind,), b""))
        self.assertEqual(HttpResponse().protocol, "HTTP/1.1")

    def test_data(self) -> None:
        """Text leaves as UTF-8 and bytes as they are, each with its type; surrogates leave as they came."""
        for data, kind, body in (
            ("é", b"text/plain; charset=utf-8", "é".encode()),
            ("\udcff", b"text/plain; charset=utf-8", b"\xff"),
            (b"\xff", b"application/octet-stream", b"\xff"),
            (bytearray(b"a"), b"application/octet-stream", b"a"),
            (memoryview(b"abc")[1:], b"application/octet-stream", b"bc"),
        ):
            answer = answered(data=data)
            self.assertEqual((answer.headers, answer.body), (((b"Content-Type", kind),), body))

    def test_own_type(self) -> None:
        """A Content-Type of the handler's own stands, however it spells its name."""
        answer = answered(headers={"content-type": "application/json"}, data="{}")
        self.assertEqual(answer.headers, ((b"content-type", b"application/json"),))

    def test_statuses(self) -> None:
        """Every status from 200 to 599 can be sent, those without a name of their own too."""
        for status in range(200, 600):
            answer = answered(status)
            self.assertEqual(answer.status, status)
            self.assertTrue(answer.reason)
        self.assertEqual(answered(404).reason, b"Not Found")
        self.assertEqual(answered(299).reason, b"Success")
        self.assertEqual(answered(599).reason, b"Server Error")

    def test_wrong_status(self) -> None:
        """Anything else is refused: what begins an answer is never a status of its end."""
        for status in (100, 101, 199, 600, 0, -200, True, "200", 200.0, None):
            self.assertRaises(ValueError, answered, status)

    def test_no_body(self) -> None:
        """204, 205 and 304 have no body, whatever the handler says, and no type that it did not set."""
        for status in (204, 205, 304):
            answer = answered(status, {"X": "y"}, "text")
            self.assertEqual((answer.headers, answer.body), (((b"X", b"y"),), b""))

    def test_servers_own_headers(self) -> None:
        """What the server says itself, and what is of one connection only, is dropped."""
        names = "Content-Length content-length Transfer-Encoding Connection Keep-Alive Upgrade Trailer Date"
        names += " Server TE Proxy-Connection X-Content-Type-Options Cross-Origin-Resource-Policy"
        answer = answered(headers={**dict.fromkeys(names.split(), "x"), "X-Own": "y"})
        self.assertEqual([name for name, _ in answer.headers], [b"X-Own", b"Content-Type"])

    def test_values(self) -> None:
        """A value may hold Latin-1 and tabs; spaces around it are dropped."""
        self.assertIn((b"X", b"caf\xe9\ta"), answered(X=" caf\xe9\ta ").headers)

    def test_repeated_headers(self) -> None:
        """A list is a field for each of its values; an empty one is none."""
        response = HttpResponse()
        response.headers.update({"Set-Cookie": ["a=1", "b=2"], "X": [], "Content-Type": ["a/b"]})
        lines = (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"Content-Type", b"a/b")
        self.assertEqual(answer_of(response).headers, lines)
        self.assertEqual(len(answered(headers={"Content-Type": []}).headers), 1)
        for name, value in (
            ("Content-Type", ["a/b", "c/d"]),
            ("X", ["a", 3]),
            ("X", ["a", "b\r\nc"]),
            ("X", ["a", ["b"]]),
        ):
            self.assertRaises(ValueError, answered, headers={name: value})

    def test_wrong_headers(self) -> None:
        """A header that would end its line, or is no header, is refused."""
        for name, value in (
            ("X", "a\r\nSet-Cookie: b"),
            ("X", "a\nb"),
            ("X", "a\rb"),
            ("X", "a\0b"),
            ("X", "a\x7f"),
            ("X", "\u20ac"),
            ("X\r\nY", "a"),
            ("X Y", "a"),
            ("X:", "a"),
            ("", "a"),
            ("\xe9", "a"),
            ("Connection\n", "a"),
        ):
            self.assertRaises(ValueError, answered, headers={name: value})

    def test_headers_of_another_kind(self) -> None:
        """Names and values are str: a number or bytes is refused."""
        for value in (3, b"x", None):
            response = HttpResponse()
            response.headers["X"] = cast(str, value)
            self.assertRaises(ValueError, answer_of, response)
        response = HttpResponse()
        response.headers = cast(dict[str, str], {3: "x"})
        self.assertRaises(ValueError, answer_of, response)

    def test_plain_dict(self) -> None:
        """Headers may be replaced by any dict; of two spellings of a name the last one counts."""
        response = HttpResponse()
        response.headers = {"X": "a", "x": "b", "Content-Type": "text/html"}
        self.assertEqual(answer_of(response).headers, ((b"x", b"b"), (b"Content-Type", b"text/html")))

    def test_wrong_data(self) -> None:
        """A body that is neither text nor bytes is refused, and text that no encoding has."""
        for data in (None, 3, {"a": 1}, ["a"], "\ud800"):
            self.assertRaises(ValueError, answered, data=data)
