"""The sign-in page: where it leads, and what it says."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from fileexport.web.head import parse_head
from fileexport.web.request import Request
from fileexport.web.sign_in import MAX_GOAL, from_elsewhere, own_path, sign_in_page, way_back


class _NoWire:
    """A connection that is only asked where it comes from."""

    peer = IPv4Address("TCP", "127.0.0.1", 1)


def request(line: str, **fields: str) -> Request:
    """A request with these fields; underscores stand for dashes."""
    headers = {"Host": "box:9006"} | {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [f"{line} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    head = parse_head("\r\n".join(lines).encode("latin-1"))
    wire: Any = _NoWire()
    return Request(wire, head, started=0.0, now=0.0)


class OwnPathTests(SynchronousTestCase):
    """Only our own paths are led to."""

    def test_own(self) -> None:
        """A path of ours stays as it is, with its query."""
        for path in (
            "/",
            "/a/b/",
            "/a%20b?sort=size&page=2",
            "/-/shares",
            "/%5C%5Cx",
            "/a//b",
            "/-/share/K",
            "/.hidden",
            "/a/.hidden/x",
            "/a/%2ehidden/..x/x../...",
            "/a?back=/../b",
            "/-/sign-in-and-out.txt",
            "/" + (MAX_GOAL - 1) * "a",
        ):
            self.assertEqual(own_path(path, ""), path)

    def test_not_own(self) -> None:
        """Whatever a browser could take for another host, a header for its end, or us for a loop."""
        for path in (
            None,
            "",
            "a",
            "//evil.example/",
            "/\\evil.example/",
            "\\/evil.example/",
            "https://evil.example/",
            "javascript:alert(1)",
            "/a\r\nSet-Cookie: x=y",
            "/a b",
            "/ä",
            "/\udcff",
            "/a\\..\\b",
            "/./\\evil.example",
            "/.//evil.example",
            "/a/..//evil.example",
            " /a",
            "/a\t",
            "/-/sign-in",
            "/-/sign-in?next=/a",
            "/-/sign-in#token",
            "/-/sign-out",
            "/-/sign%2dout",
            "/" + MAX_GOAL * "a",
            "/%2d/sign-in",
            "/-/sign%2Din?next=/a",
            "/%2e%2e/a",
            "/a/.%2E/b",
            "/a/%2e",
            "/..?a",
            "/..#a",
            "/a/..%2fb",
            "/a%2F%2e%2e",
        ):
            self.assertEqual(own_path(path, ""), "/", path)

    def test_prefix(self) -> None:
        """Behind a reverse proxy only what lies below its prefix is ours."""
        self.assertEqual(own_path("/files/a/", "/files"), "/files/a/")
        for path in ("/a", "/", "/filesystem/", "//files/", "/files//evil.example", "/files/-/sign-in", None):
            expected = path if path == "/files//evil.example" else "/files/"
            self.assertEqual(own_path(path, "/files"), expected)
        for path in ("/files/%2e%2e/other", "/files/..", "/files/%2E./x", "/files/%2d/sign-in?next=/files/a"):
            self.assertEqual(own_path(path, "/files"), "/files/", path)
        self.assertEqual(own_path("/files/a/.hidden/x", "/files"), "/files/a/.hidden/x")


class WayBackTests(SynchronousTestCase):
    """Where whoever has to sign in goes on."""

    def test_what_was_asked_for(self) -> None:
        """A page that was asked for is where they go, however it was spelled."""
        for target, goal in (("/a/?page=2", "/a/?page=2"), ("/a%20b", "/a%20b"), ("//evil/", "/")):
            self.assertEqual(way_back(request(f"GET {target}"), ""), goal)
        self.assertEqual(way_back(request("GET /a\xe4/"), ""), "/a%E4/")
        self.assertEqual(way_back(request("GET /a/"), "/files"), "/files/a/")

    def test_where_a_form_was(self) -> None:
        """A form that was sent without a session leads back to its page, where that is ours."""
        for referrer, goal in (
            ("http://box:9006/a/?page=2", "/a/?page=2"),
            ("https://BOX:9006/a/", "/a/"),
            ("http://evil.example/a/", "/"),
            ("http://box:9006//evil.example/", "/"),
            ("http://[::1/", "/"),
            ("http://box:9006\xe4/", "/"),
            ("nothing", "/"),
        ):
            self.assertEqual(way_back(request("POST /-/remove/a/", Referer=referrer), ""), goal, referrer)
        self.assertEqual(way_back(request("POST /-/remove/a/"), ""), "/")

    def test_from_elsewhere(self) -> None:
        """A link on another site is followed without our cookie; one of ours, or a typed address, with it."""
        for site, elsewhere in (
            ("cross-site", True),
            ("same-site", True),
            ("same-origin", False),
            ("none", False),
        ):
            self.assertEqual(from_elsewhere(request("GET /a", Sec_Fetch_Site=site)), elsewhere)
        self.assertFalse(from_elsewhere(request("GET /a")))


class PageTests(SynchronousTestCase):
    """The page itself."""

    def test_form(self) -> None:
        """It posts the token and where to go on, below the prefix, and shows nothing as it came."""
        page = sign_in_page(prefix="/files", goal="/files/a?b=1&c=%22", sentence='<b> is "wrong"').decode()
        self.assertIn('<form class="card" method="post" action="/files/-/sign-in">', page)
        self.assertIn('name="next" value="/files/a?b=1&amp;c=%22"', page)
        self.assertIn("&lt;b&gt; is &#34;wrong&#34;", page)
        self.assertRegex(page, r'<label for="token">.*</label>\s*<input type="password" id="token"')

    def test_session(self) -> None:
        """Whoever is signed in is told as whom, and whoever may be is offered to go on."""
        page = sign_in_page(prefix="", goal="/a", who="ann\u202e").decode()
        self.assertIn("signed in as <bdi>ann\ufffd</bdi>", page)
        self.assertNotIn("Another site", page)
        page = sign_in_page(prefix="", goal="/a", status=HTTPStatus.UNAUTHORIZED, elsewhere=True).decode()
        self.assertIn("Another site led you here", page)
        self.assertIn('<a href="/a">go on</a>', page)
