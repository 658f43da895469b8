"""The files of an application's own, by the jail's rules."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

from fileexport.static_files import static_resource, staticResource
from fileexport.web.handlers import HttpRequest, HttpResponse
from tests.handling_case import HandlingCase, Web
from tests.http_client import NOW

LARGE = bytes(range(256)) * (1 << 13)


class StaticCase(HandlingCase):
    """A directory of a few files, and the handler called directly."""

    def setUp(self) -> None:
        super().setUp()
        self.base = self.root / "base"
        for name, data in (
            ("index.html", b"<title>root</title>"),
            ("page.html", b"page"),
            ("sub/index.html", b"sub"),
            ("sub/deep/file.txt", b"deep"),
            (".secret", b"hidden"),
            (".git/config", b"hidden"),
            ("large.bin", LARGE),
        ):
            self.write(self.base / name, data)
        self.write(self.root / "outside.txt", b"outside")

    def write(self, path: Path, data: bytes) -> None:
        """Make a file, and the directories above it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (NOW - 1000, NOW - 1000))

    def get(self, *path: str, method: str = "GET", **options: str) -> HttpResponse:
        """What the handler says of a path, without a server."""
        response = HttpResponse()
        static_resource(HttpRequest(method=method, path=list(path)), response, self.base, **options)
        return response

    def found(self, *path: str) -> bytes | None:
        """The content of what the handler finds; None where it says that there is nothing."""
        response = self.get(*path)
        if response.status == 404:
            self.assertEqual(response.data, "there is no such file or directory")
            return None
        self.assertEqual(response.status, 200)
        self.assertIsInstance(response.data, bytes)
        return bytes(response.data) if isinstance(response.data, bytes) else b""


class FindingTests(StaticCase):
    """Which file a path names."""

    def test_two_names(self) -> None:
        """It is known by two names."""
        self.assertIs(staticResource, static_resource)

    def test_files(self) -> None:
        """A path names a file below the base; a directory stands for its index."""
        for path, content in (
            ([""], b"<title>root</title>"),
            (["page.html"], b"page"),
            (["sub", ""], b"sub"),
            (["sub", "deep", "file.txt"], b"deep"),
            (["large.bin"], LARGE),
        ):
            self.assertEqual(self.found(*path), content, path)

    def test_nothing(self) -> None:
        """What is not there is not found: a file with a slash behind it, a directory without an index too."""
        for path in (["nope"], ["nope", ""], ["page.html", ""], ["page.html", "x"], ["sub", "deep", ""]):
            self.assertIsNone(self.found(*path), path)

    def test_what_is_no_name(self) -> None:
        """Segments that are no names lead nowhere: dots, slashes, NUL, empty ones, endless ones."""
        for segment in (".", "..", "sub/index.html", "/etc/passwd", "page.html\0", "x" * 300, "\ud800"):
            self.assertIsNone(self.found(segment), segment)
            self.assertIsNone(self.found("sub", segment), segment)
            self.assertIsNone(self.found("sub", segment, ""), segment)
        for path in (["", "page.html"], ["sub", "", "index.html"], ["", ""], ["sub", "..", "page.html"]):
            self.assertIsNone(self.found(*path), path)
        self.assertIsNone(self.found(*["x"] * 5000))

    def test_hidden(self) -> None:
        """Names with a leading dot are not found, at any depth, and not as an index either."""
        for path in ([".secret"], [".git", "config"], [".git", ""], [".git"]):
            self.assertIsNone(self.found(*path), path)
        self.assertEqual(self.get("", defaultResource=".secret").status, 404)

    def test_links(self) -> None:
        """A relative link that stays below the base is followed; any other leads nowhere."""
        os.symlink("page.html", self.base / "inside")
        os.symlink("../outside.txt", self.base / "above")
        os.symlink(os.path.abspath(self.root / "outside.txt"), self.base / "absolute")
        os.symlink("..", self.base / "up")
        os.symlink(".secret", self.base / "to-hidden")
        os.symlink("loop", self.base / "loop")
        self.assertEqual(self.found("inside"), b"page")
        for path in (["above"], ["absolute"], ["up", "outside.txt"], ["to-hidden"], ["loop"]):
            self.assertIsNone(self.found(*path), path)

    def test_no_file(self) -> None:
        """What is neither a file nor a directory is refused without waiting for anything."""
        os.mkfifo(self.base / "fifo")
        self.assertEqual(self.get("fifo").status, 403)

    def test_odd_names(self) -> None:
        """Names of any bytes are found by their surrogate escapes."""
        name = os.fsdecode(b"\xff\xfe")
        self.write(self.base / name, b"odd")
        self.assertEqual(self.found(name), b"odd")

    def test_other_index(self) -> None:
        """A directory's file may have another name, stand deeper, or be none at all."""
        self.assertEqual(self.get("", defaultResource="page.html").data, b"page")
        self.assertEqual(self.get("", defaultResource="sub/deep/file.txt").data, b"deep")
        for name in ("sub", "nope", "", "../outside.txt"):
            self.assertEqual(self.get("", defaultResource=name).status, 404, name)

    def test_current_directory(self) -> None:
        """Without a base it is the current directory at the time of the call."""
        self.addCleanup(os.chdir, os.getcwd())
        base = self.base.absolute()
        for directory, content in ((base / "sub", b"sub"), (base, b"<title>root</title>")):
            os.chdir(directory)
            response = HttpResponse()
            static_resource(HttpRequest(), response)
            self.assertEqual(response.data, content)

    def test_base_that_changes(self) -> None:
        """A base that is exchanged for another directory is the other one from then on."""
        self.assertEqual(self.found("page.html"), b"page")
        self.base.rename(self.root / "old")
        self.write(self.base / "page.html", b"new")
        self.assertEqual(self.found("page.html"), b"new")

    def test_base_that_is_missing(self) -> None:
        """A base that is no directory is the application's mistake, and raised."""
        for base in ("missing", "outside.txt"):
            request, response = HttpRequest(), HttpResponse()
            self.assertRaises(OSError, static_resource, request, response, self.root / base)


class AnswerTests(StaticCase):
    """What is said of a file."""

    def test_types(self) -> None:
        """The type comes from the name; a page's parts are what a browser runs, and text is UTF-8."""
        for name, kind in (
            ("a.html", "text/html; charset=utf-8"),
            ("a.CSS", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.svg", "image/svg+xml"),
            ("a.json", "application/json"),
            ("a.png", "image/png"),
            ("a.wasm", "application/wasm"),
            ("a.tar.gz", "application/gzip"),
            ("README", "text/plain; charset=utf-8"),
            ("a.exe", "application/octet-stream"),
            ("js", "text/plain; charset=utf-8"),
            ("exe", "text/plain; charset=utf-8"),
            ("a.unknown", "text/plain; charset=utf-8"),
        ):
            self.write(self.base / name, b"x")
            self.assertEqual(self.get(name).headers["content-type"], kind, name)

    def test_default_type(self) -> None:
        """A name that says nothing has the type that was asked for."""
        self.write(self.base / "thing", b"x")
        for given, kind in (
            ("application/octet-stream", "application/octet-stream"),
            ("text/html", "text/html; charset=utf-8"),
            ("text/html; charset=latin-1", "text/html; charset=latin-1"),
        ):
            self.assertEqual(self.get("thing", defaultMime=given).headers["Content-Type"], kind)
            known = self.get("large.bin", defaultMime=given).headers["Content-Type"]
            self.assertEqual(known, "application/octet-stream")

    def test_other_methods(self) -> None:
        """Only GET and HEAD are answered; the others are told so."""
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get"):
            response = self.get("page.html", method=method)
            self.assertEqual((response.status, response.headers["Allow"]), (405, "GET, HEAD"))
        self.assertEqual(self.get("page.html", method="HEAD").status, 200)

    def test_after_another_answer(self) -> None:
        """What a handler has set before does not stay: neither a status nor a body."""
        response = HttpResponse()
        response.status, response.data = 500, "before"
        static_resource(HttpRequest(path=["page.html"]), response, self.base)
        self.assertEqual((response.status, response.data), (200, b"page"))
        static_resource(HttpRequest(path=["nope"]), response, self.base)
        self.assertEqual((response.status, response.data), (404, "there is no such file or directory"))

    def test_nothing_stays_open(self) -> None:
        """Whatever is asked for, no descriptor is left when the response is gone."""
        before = sorted(os.listdir("/dev/fd"))
        paths = "page.html", "", "sub", "sub/", "nope", "page.html/", "..", "sub/deep/", "sub/deep/file.txt"
        for path in (text.split("/") for text in paths):
            for method in ("GET", "POST"):
                self.get(*path, method=method)
        self.assertEqual(sorted(os.listdir("/dev/fd")), before)

    def test_no_descriptors(self) -> None:
        """Where descriptors have run out the client is asked to come back, at whichever file that happens."""
        self.get("page.html")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        held = [os.dup(0) for _ in range(3)]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, limits[1]))
            held += self.all_descriptors()
            for free, status in ((0, 503), (1, 503), (2, 200)):
                response = HttpResponse()
                for _ in range(free and 1):
                    os.close(held.pop())
                static_resource(HttpRequest(path=["page.html"]), response, self.base)
                self.assertEqual(response.status, status, free)
                if status == 503:
                    self.assertEqual(response.headers["Retry-After"], "10")
                    self.assertIsInstance(response.data, str)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for descriptor in held:
                os.close(descriptor)

    def all_descriptors(self) -> list[int]:
        """All that may still be opened."""
        found: list[int] = []
        try:
            while True:
                found.append(os.dup(0))
        except OSError:
            return found

    def test_threads(self) -> None:
        """Many threads ask at once, and each gets what it asked for."""
        wrong: list[object] = []

        def ask(name: str, content: bytes) -> None:
            for _ in range(50):
                if (data := self.get(name).data) != content:
                    wrong.append(data)

        threads = [
            threading.Thread(target=ask, args=asked)
            for asked in (("page.html", b"page"), ("large.bin", LARGE)) * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])


class ServedTests(StaticCase):
    """The same behind a site."""

    def setUp(self) -> None:
        super().setUp()
        self.site: Web = self.web(static_resource, self.base)

    def test_file(self) -> None:
        """A file has its type, its length, a tag and a date, and is run by nobody's guess."""
        answer = self.site.request(target="/page.html")
        self.assertEqual((answer.status, answer.body), (200, b"page"))
        self.assertEqual(answer.field("Content-Type"), "text/html; charset=utf-8")
        self.assertEqual(answer.field("X-Content-Type-Options"), "nosniff")
        self.assertEqual(answer.fields("Content-Security-Policy"), [])
        self.assertTrue(answer.field("ETag") and answer.field("Last-Modified"))

    def test_head(self) -> None:
        """HEAD tells the same without the body."""
        answer = self.site.request("HEAD", "/large.bin")
        self.assertEqual((answer.field("Content-Length"), answer.body), (str(len(LARGE)), b""))

    def test_ranges(self) -> None:
        """A range of a large file is its bytes."""
        answer = self.site.request(target="/large.bin", headers={"Range": "bytes=1000-1003"})
        self.assertEqual((answer.status, answer.body), (206, LARGE[1000:1004]))

    def test_not_modified(self) -> None:
        """A client that has the file already is told so, until it changes."""
        tag = self.site.request(target="/page.html").field("ETag")
        asked = {"If-None-Match": tag}
        self.assertEqual(self.site.request(target="/page.html", headers=asked).status, 304)
        self.write(self.base / "page.html", b"other")
        self.assertEqual(self.site.request(target="/page.html", headers=asked).body, b"other")

    def test_targets(self) -> None:
        """Nothing outside of the base is found, however the path is spelled."""
        for target in (
            "/../outside.txt",
            "/sub/../../outside.txt",
            "/%2e%2e/outside.txt",
            "/..%2foutside.txt",
            "/%2e%2e%2foutside.txt",
            "/sub/..%5c..%5coutside.txt",
            "//outside.txt",
            "/sub//../outside.txt",
            "/%00",
            "/page.html%00.txt",
            "/.git/config",
            "/%2egit/config",
            "*",
        ):
            method = "OPTIONS" if target == "*" else "GET"
            answer = self.site.request(method, target)
            self.assertEqual(answer.status, 405 if target == "*" else 404, target)
            self.assertNotIn(b"outside", answer.body)

    def test_redirect(self) -> None:
        """A directory without its slash redirects to it, relatively and with the query."""
        for target, location in (
            ("/sub", "sub/"),
            ("/sub/deep", "deep/"),
            ("/sub?a=1&b=%C3%A9+x", "sub/?a=1&b=%C3%A9+x"),
            ("/sub?%FF", "sub/?%FF="),
        ):
            answer = self.site.request(target=target)
            self.assertEqual((answer.status, answer.field("Location")), (301, location))

    def test_redirect_to_nowhere_else(self) -> None:
        """A redirect cannot lead to another host: names are encoded, and empty segments are not found."""
        for name in ("a:b", "javascript:x", "@host", "a b", "é", "a?b", "a#b", "back\\slash"):
            (self.base / name).mkdir()
            encoded = "".join(f"%{byte:02X}" for byte in name.encode())
            location = self.site.request(target="/" + encoded).field("Location")
            self.assertRegex(location, r"\A[A-Za-z0-9._~%-]+/\Z")
        for target in ("//sub", "///sub", "//host/sub", "/%2Fsub"):
            answer = self.site.request(target=target)
            self.assertEqual((answer.status, answer.fields("Location")), (404, []))

    def test_names_taken_off(self) -> None:
        """A handler that takes names off in front serves a base below them, with redirects that are right."""

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            if request.path.pop(0) == "static":
                static_resource(request, response, self.base)

        site = self.web(handler)
        for target, location in (
            ("/static", "static/"),
            ("/static?a=1", "static/?a=1"),
            ("/static/sub", "sub/"),
        ):
            answer = site.request(target=target)
            self.assertEqual((answer.status, answer.field("Location")), (301, location))
        for target, body in (("/static/", b"<title>root</title>"), ("/static/sub/", b"sub")):
            answer = site.request(target=target)
            self.assertEqual((answer.status, answer.body), (200, body))
        self.assertEqual(self.get().data, b"<title>root</title>")

    def test_mounted(self) -> None:
        """Below a mount's path a directory redirects as well, the mount itself too."""
        for below, target, location in ((b"", "/app/v1", "v1/"), (b"/sub", "/app/v1/sub", "sub/")):
            self.site.below = below
            answer = self.site.request(target=target)
            self.assertEqual((answer.status, answer.field("Location")), (301, location))
        self.site.below = b"/"
        self.assertEqual(self.site.request(target="/app/v1/").body, b"<title>root</title>")

    def test_no_index_with_status(self) -> None:
        """A page of the application's own for what is not found: the file with the status that it sets."""

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            static_resource(request, response, self.base)
            if response.status == 404:
                static_resource(HttpRequest(path=["page.html"]), response, self.base)
                response.status = 404

        answer = self.web(handler).request(target="/nope")
        self.assertEqual((answer.status, answer.body), (404, b"page"))
        self.assertEqual(answer.field("Content-Type"), "text/html; charset=utf-8")

    def test_missing_base(self) -> None:
        """A base that is missing is logged, and its path leaks to nobody."""
        answer = self.web(static_resource, self.root / "missing").request()
        self.assertEqual((answer.status, answer.body), (500, b"Internal Server Error"))
        self.assertEqual(len(self.flushLoggedErrors(FileNotFoundError)), 1)
