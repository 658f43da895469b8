"""What every request passes at the door, and how it answers what fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import Deferred

from fileexport.config import Anonymous
from fileexport.disk.jail import Entry, Jail, Opened, View
from fileexport.errors import OverloadedError
from fileexport.http_resource import Mounted
from fileexport.paths import RelPath
from fileexport.tokens import generate_token
from fileexport.web.request import Request
from tests.http_client import HttpCase, HttpHarness, Response

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JSON = {"Accept": "application/json"}
JSON_BODY = {"Content-Type": "application/json"}


class ErrorTests(HttpCase):
    """Errors, in the language of whoever reads them."""

    def setUp(self) -> None:
        super().setUp()
        self.web = self.harness()

    def test_export_api(self) -> None:
        """The export API says one line of text, and the same in the reason phrase."""
        sentence = "ERROR - there is no such file or directory"
        for headers in ({}, {"Accept": "*/*"}, {"Accept": "text/plain"}):
            answer = self.web.get("/list?dir=nope", headers)
            self.assertEqual((answer.status, answer.text, answer.reason), (404, sentence, sentence))
            self.assertEqual(answer.field("Content-Type"), "text/plain; charset=utf-8")

    def test_browser(self) -> None:
        """A browser gets a page with a link to the root, from the export API as well."""
        for target in ("/nope", "/nope/", "/-/nope", "/-/", "/list?dir=nope", "/get?dir=/&name=x", "/delete"):
            page = self.web.get(target, BROWSER)
            self.assertEqual(page.field("Content-Type"), "text/html; charset=utf-8", target)
            self.assertIn('<a href="/">Go to the root</a>', page.text)
            self.assertIn("default-src 'none'", page.field("Content-Security-Policy"))

    def test_page_for_whoever_names_nothing(self) -> None:
        """Outside the export API a client that names no type gets the page, with a plain reason phrase."""
        answer = self.web.get("/nope")
        self.assertEqual((answer.status, answer.reason), (404, "Not Found"))
        self.assertEqual(answer.field("Content-Type"), "text/html; charset=utf-8")

    def test_problem(self) -> None:
        """A program that accepts JSON gets a problem document, from every path."""
        for accept in ("application/json", "application/problem+json", "text/html, APPLICATION/JSON"):
            for target in ("/nope", "/list?dir=nope"):
                answer = self.web.get(target, {"Accept": accept})
                self.assertEqual(answer.field("Content-Type"), "application/problem+json")
                expected = {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "there is no such file or directory",
                }
                self.assertEqual(answer.json(), expected)

    def test_root_link_behind_a_proxy(self) -> None:
        """The page's link to the root has the prefix of the reverse proxy."""
        self.assertIn('href="/files/"', self.harness(prefix="/files").get("/nope").text)

    def test_not_kept(self) -> None:
        """No cache keeps an error, or takes one language of it for another."""
        for headers in ({}, BROWSER, JSON):
            answer = self.web.get("/list?dir=nope", headers)
            self.assertEqual(answer.field("Cache-Control"), "no-store")
            self.assertEqual(answer.field("Vary"), "Accept")

    def test_methods(self) -> None:
        """A method that a path does not have is 405 with those that it has, in the path's own language."""
        for target, allow, kind in (
            ("/", "GET, HEAD, PUT, POST, DELETE", "text/plain"),
            ("/any/path", "GET, HEAD, PUT, POST, DELETE", "text/plain"),
            ("/-/files/x", "GET, HEAD, PUT, POST, DELETE", "text/plain"),
            ("/list", "GET, HEAD", "text/plain"),
            ("/get", "GET, HEAD", "text/plain"),
            ("/-/health", "GET, HEAD", "text/plain"),
            ("/tar", "GET", "text/plain"),
            ("/stop", "GET, POST", "text/plain"),
            ("/delete", "GET, POST, DELETE", "text/plain"),
        ):
            answer = self.web.request("PATCH", target)
            self.assertEqual((answer.status, answer.field("Allow")), (405, allow), target)
            self.assertTrue(answer.field("Content-Type").startswith(kind), target)
            self.assertEqual(self.web.request("PATCH", target, JSON).json()["status"], 405)

    def test_unknown_methods(self) -> None:
        """A method that nobody knows is 501, and OPTIONS of the whole server 405, with what its root has."""
        answer = self.web.request("BREW", "/list")
        self.assertEqual((answer.status, answer.field("Allow")), (501, "GET, HEAD"))
        answer = self.web.request("OPTIONS", "*")
        self.assertEqual((answer.status, answer.field("Allow")), (405, "GET, HEAD, PUT, POST, DELETE"))

    def test_spellings(self) -> None:
        """A path that is percent-encoded without need has the rights and the answer of the plain one."""
        token = generate_token()
        for local, may in ((True, ""), (False, ""), (True, "read"), (True, "admin"), (False, "admin")):
            web = self.harness(local=local, anonymous=Anonymous.NONE, tokens=may and f"{token} may={may}\n")
            headers = {"Authorization": f"Bearer {token}"} if may else {}
            for target in ("/list", "/get", "/tar", "/delete", "/stop", "/-/metrics", "/-/health", "/-/jobs"):
                spelled = target.replace("/", "/%", 1).replace("%" + target[1], f"%{ord(target[1]):02x}")
                spelled = spelled[:-1] + f"%{ord(spelled[-1]):02X}"
                plain, other = web.get(target, headers), web.get(spelled, headers)
                self.assertEqual((other.status, other.text), (plain.status, plain.text), spelled)
            self.assertEqual(web.stops, 2 * (local and may == "admin"))

    def test_head_of_an_error(self) -> None:
        """An error to HEAD has no body and the length of the one that GET would get."""
        for target in ("/nope", "/list?dir=nope"):
            head, get = self.web.request("HEAD", target), self.web.get(target)
            self.assertEqual((head.status, head.headers, head.body), (404, get.headers, b""))

    def test_no_path(self) -> None:
        """A request target that is no path is a bad request."""
        for target in (b"http://", b"ftp://localhost/", b"localhost:80", b"?dir=/", b"list?dir=/"):
            answer = self.web.raw(b"OPTIONS %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
            self.assertEqual(answer[:12], b"HTTP/1.1 400", target)

    def test_path_that_is_none(self) -> None:
        """A path with what cannot be a name is refused before the disk is asked."""
        for target in ("/..", "/a/../b", "/.", "/%2e%2e/x", "/a%2Fb", "/a%00b", "/" + "n" * 256, "/x" * 65):
            self.assertEqual(self.web.get(target).status, 400, target)


class DiskErrorTests(HttpCase):
    """What the disk says, as HTTP says it."""

    def fail_with(self, error: Exception) -> HttpHarness:
        """A daemon whose every directory and file fails to open."""

        def fail(jail: Jail, view: View, path: RelPath) -> Opened:
            raise error

        def fail_to_list(jail: Jail, view: View, path: RelPath) -> list[Entry]:
            raise error

        def fail_to_choose(jail: Jail, view: View, path: RelPath, choose: Callable[[Entry], bool]) -> int:
            raise error

        self.patch(Jail, "open", fail)
        self.patch(Jail, "entries", fail_to_list)
        self.patch(Jail, "remove_chosen", fail_to_choose)
        return self.harness()

    def answers(self, error: Exception) -> list[Response]:
        """What reading a file, listing and deleting answer when the disk fails."""
        web = self.fail_with(error)
        targets = ("/x", "/get?dir=/&name=x", "/list?dir=/", "/delete?dir=/&prefix=x")
        return [web.get(target) for target in targets]

    def test_statuses(self) -> None:
        """Each error of the disk has its status, and no answer says what the disk called it."""
        for number, status in (
            (errno.EACCES, 403),
            (errno.ELOOP, 404),
            (errno.ENAMETOOLONG, 404),
            (errno.ENOTDIR, 404),
            (errno.EMFILE, 503),
            (errno.ENOSPC, 507),
        ):
            for answer in self.answers(OSError(number, os.strerror(number), "/machine/secret")):
                self.assertEqual(answer.status, status, errno.errorcode[number])
                self.assertNotIn("secret", answer.text + answer.reason)

    def test_unexpected(self) -> None:
        """What nobody thought of is 500 and leaks nothing; the log has it."""
        for error in (
            OSError(errno.EIO, "bad", "/machine/secret"),
            RuntimeError("secret"),
            KeyError("secret"),
        ):
            answers = self.answers(error)
            self.assertEqual([answer.status for answer in answers], [500] * 4)
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 4)
            for answer in answers:
                self.assertNotIn("secret", answer.text + answer.reason)

    def test_expected_errors_are_not_logged(self) -> None:
        """Being overloaded or asked for nonsense is no failure of ours: the log of errors stays empty."""
        for answer in self.answers(OverloadedError()):
            self.assertEqual(answer.status, 503)
        self.harness().request("PATCH", "/list")
        self.assertEqual(self.flushLoggedErrors(), [])


class FixedPathTests(HttpCase):
    """The paths that are ours alone."""

    def setUp(self) -> None:
        super().setUp()
        self.web = self.harness()

    def test_health(self) -> None:
        """The health says `ok` to everybody, to GET and HEAD, and is kept by no cache."""
        answer = self.web.get("/-/health")
        self.assertEqual((answer.status, answer.text), (200, "ok"))
        self.assertEqual(answer.field("Content-Type"), "text/plain; charset=utf-8")
        self.assertEqual(answer.field("Cache-Control"), "no-store")
        self.assertEqual(self.web.request("HEAD", "/-/health").field("Content-Length"), "2")

    def test_favicon(self) -> None:
        """The icon is ours, also where the root has a file of that name."""
        self.write("favicon.ico", b"theirs")
        answer = self.web.get("/favicon.ico")
        self.assertEqual((answer.status, answer.body[:4]), (200, b"\x00\x00\x01\x00"))
        self.assertTrue(answer.field("Content-Type").startswith("image/"))
        self.assertEqual(self.web.get("/-/files/favicon.ico").body, b"theirs")

    def test_static(self) -> None:
        """Our own files have their type, and are not sent twice."""
        for name, kind in {"style.css": "text/css", "icon.svg": "image/svg+xml"}.items():
            answer = self.web.get("/-/static/" + name)
            self.assertEqual(answer.status, 200)
            self.assertTrue(answer.field("Content-Type").startswith(kind))
            self.assertEqual(answer.field("Cache-Control"), "no-cache")
            again = self.web.get("/-/static/" + name, {"If-None-Match": answer.field("ETag")})
            self.assertEqual((again.status, again.body), (304, b""))

    def test_no_other_static_file(self) -> None:
        """Nothing but these files is there, and the directory is no page."""
        self.write("style.css", b"theirs")
        for name in (
            "",
            "nope.css",
            "style.css/",
            "../style.css",
            "%2e%2e/pages.py",
            "STYLE.CSS",
            "/style.css",
        ):
            self.assertEqual(self.web.get("/-/static/" + name).status, 404, name)

    def test_nothing_else_of_our_own(self) -> None:
        """Below /-/ there is nothing but what the table names, whatever the root holds."""
        self.write("-/x", b"theirs")
        for target in ("/-/x", "/-/", "/-/health/", "/-/healthy", "/-/FILES/notes"):
            self.assertEqual(self.web.get(target).status, 404, target)


class EveryAnswerTests(HttpCase):
    """What holds for each answer, whatever was asked."""

    def test_headers_that_every_answer_has_once(self) -> None:
        """Every answer says whose it is and that its type is meant, exactly once, and when it was made."""
        self.write("a.html", b"page")
        self.write("d/b.txt", b"text")
        web = self.harness(tokens="token-reader-1 may=read\n")
        token = {"Authorization": "Bearer token-reader-1"}
        answers = [web.get(target) for target in ("/", "/?json", "/d", "/a.html", "/d/b.txt", "/nope", "/-/")]
        answers += [
            web.get(target) for target in ("/list?dir=d", "/list", "/tar", "/-/health", "/favicon.ico")
        ]
        answers += [web.get("/get?dir=/&name=a.html&compress=" + form) for form in ("zip", "gz", "zst", "x")]
        answers += [
            web.get("/a.html", {"Range": value}) for value in ("bytes=0-1", "bytes=0-0,2-2", "bytes=9-")
        ]
        answers += [web.get("/a.html", {"If-None-Match": "*"}), web.get("/a.html", {"If-Match": '"x"'})]
        answers += [web.get("/-/static/style.css"), web.get("/", {"Host": "evil.example"})]
        answers += [web.get("/delete?dir=d&name=b.txt", token), web.get("/delete?dir=d&name=b.txt")]
        answers += [web.request(method, "/") for method in ("HEAD", "PUT", "DELETE", "OPTIONS")]
        answers += [web.get("/", JSON), web.get("/nope", JSON), web.get("/stop")]
        statuses = {answer.status for answer in answers}
        self.assertEqual(statuses, {200, 206, 301, 304, 400, 403, 404, 405, 409, 412, 416})
        for answer in answers:
            self.assertEqual(answer.field("X-Content-Type-Options"), "nosniff")
            self.assertEqual(answer.field("Cross-Origin-Resource-Policy"), "same-origin")
            self.assertEqual(answer.field("Server"), "fileexport")
            self.assertEqual(answer.field("Date"), "Fri, 15 Jan 2027 08:00:00 GMT")
            names = [name.lower() for name, _ in answer.headers]
            self.assertEqual(len(names), len(set(names)), answer.headers)
            self.assertNotIn("access-control-allow-origin", names)

    def test_each_request_is_recorded_once(self) -> None:
        """The access log hears of each request once, with the status that its client got."""
        self.write("a.txt", b"text")
        web = self.harness()
        web.get("/a.txt?x=1")
        web.get("/nope")
        web.request("HEAD", "/")
        web.request("PUT", "/a.txt")
        expected = [
            ("GET", "/a.txt?x=1", 200),
            ("GET", "/nope", 404),
            ("HEAD", "/", 200),
            ("PUT", "/a.txt", 204),
        ]
        self.assertEqual(web.recorded, expected)


class MountTests(HttpCase):
    """Handlers of an application's own, mounted at paths of the daemon."""

    def setUp(self) -> None:
        super().setUp()
        #: The name of the handler, the method, and what it was given of the path.
        self.asked: list[tuple[str, str, bytes]] = []

    def mounted(self, **settings: Any) -> HttpHarness:
        """A daemon with handlers at /app, /app/v1 and /deep/er."""
        mounts = {path: self.answering(path) for path in ("/app", "/app/v1", "/deep/er")}
        return self.harness(mounts=mounts, **settings)

    def answering(self, name: str) -> Mounted:
        """A handler that says its name, and what it read."""

        async def serve(request: Request, below: bytes) -> None:
            self.asked.append((name, request.method.decode("ascii"), below))
            body = await request.read_body(1 << 20)
            request.answer(HTTPStatus.OK, name.encode("ascii") + b" " + body, b"text/plain")

        return serve

    def test_paths(self) -> None:
        """A handler has its path and all below, what is nearest counts, and is told what lies below."""
        web = self.mounted()
        for target, name, below in (
            ("/app", "/app", b""),
            ("/app?x=/app/v1", "/app", b""),
            ("/app/", "/app", b"/"),
            ("/app/x/%2e%2e//y", "/app", b"/x/..//y"),
            ("/%61pp/%76%31", "/app/v1", b""),
            ("/app/%2561%2Fx", "/app", b"/%2561%2Fx"),
            ("/app/v1", "/app/v1", b""),
            ("/app/v1/x", "/app/v1", b"/x"),
            ("/app/v12", "/app", b"/v12"),
            ("/deep/er/", "/deep/er", b"/"),
        ):
            self.assertEqual(web.get(target).text, f"{name} ", target)
            self.assertEqual(self.asked.pop(), (name, "GET", below))
        for target in ("/application", "/deep", "/%2561pp", "//app", "/-/app", "/-/files/app"):
            self.assertEqual(web.get(target).status, 404, target)
        self.assertEqual(self.asked, [])

    def test_body(self) -> None:
        """It reads bodies that no other path would take."""
        answer = self.mounted().request("POST", "/app/x", body=b"b" * 500_000)
        self.assertEqual((answer.status, answer.body), (200, b"/app " + b"b" * 500_000))

    def test_rights(self) -> None:
        """What reads needs the right to read, what else there is that to write; other methods are none."""
        tokens = {rights: generate_token() for rights in ("read", "read,write", "write", "delete")}
        lines = "".join(f"{token} may={rights}\n" for rights, token in tokens.items())
        web = self.mounted(tokens=lines, anonymous=Anonymous.NONE)
        for methods, allowed in (
            (("GET", "HEAD", "OPTIONS"), {"read", "read,write"}),
            (("POST", "PUT", "DELETE", "PATCH"), {"write", "read,write"}),
        ):
            for method in methods:
                self.assertEqual(web.request(method, "/app").status, 401)
                for rights, token in tokens.items():
                    status = web.request(method, "/app", {"Authorization": f"Bearer {token}"}).status
                    self.assertEqual(status, 200 if rights in allowed else 403, (method, rights))
        refused = web.request("TRACE", "/app")
        self.assertEqual(refused.status, 405)
        self.assertEqual(refused.field("Allow"), "GET, HEAD, OPTIONS, POST, PUT, DELETE, PATCH")

    def test_part_of_the_root(self) -> None:
        """A token for a part of the root reaches the handlers there, and no others: they are not there."""
        token = generate_token()
        for under, names in (
            ("/", {"/app", "/app/v1", "/deep/er"}),
            ("/app", {"/app", "/app/v1"}),
            ("/app/v1", {"/app/v1"}),
            ("/app/v1/x", set()),
            ("/deep", {"/deep/er"}),
            ("/ap", set()),
        ):
            web = self.mounted(tokens=f"{token} under={under}\n", anonymous=Anonymous.NONE)
            for name in ("/app", "/app/v1", "/deep/er"):
                for method, target in (("GET", name), ("POST", f"{name}/x"), ("GET", f"{name}/x/y")):
                    status = web.request(method, target, {"Authorization": f"Bearer {token}"}).status
                    self.assertEqual(status, 200 if name in names else 404, (under, method, target))

    def test_refused_before_it_is_asked(self) -> None:
        """Another Host, another site's page and a browser's form of nowhere never reach it."""
        web = self.mounted()
        for method, headers in (
            ("GET", {"Host": "evil.example"}),
            ("POST", {"Origin": "http://evil.example"}),
            ("POST", {"Sec-Fetch-Site": "cross-site"}),
            ("OPTIONS", {"Origin": "http://evil.example"}),
            ("DELETE", {"User-Agent": "Mozilla/5.0"}),
        ):
            self.assertEqual(web.request(method, "/app", headers).status, 403, headers)
        self.assertEqual(self.asked, [])

    def test_links(self) -> None:
        """Entries of those names are linked to where they can be reached, on pages, in JSON and redirects."""
        self.write("app/f")
        self.write("deep/x/f")
        self.write("other/f")
        web = self.mounted()
        page = web.get("/").text
        for href in ("/-/files/app/", "/-/files/deep/", "/other/"):
            self.assertIn(f'href="{href}"', page)
        self.assertIn('href="/-/files/app/f"', web.get("/-/files/app/").text)
        listed = web.get("/list?dir=app&details=1").json()
        self.assertEqual(listed[0]["url"], "/-/files/app/f")
        self.assertEqual(web.get("/deep/x").field("Location"), "/-/files/deep/x/")
        self.assertEqual(web.get("/-/files/app/f").status, 200)

    def test_jobs(self) -> None:
        """The address of what a job made leads to the file, not to the handler."""
        self.write("app/f", b"x")
        web = self.mounted()
        made = web.request("POST", "/-/jobs", JSON_BODY, b'{"path": "app/f"}')
        self.assertEqual(made.status, 202, made.text)
        job = web.get(f"{made.field('Location')}?wait=1").json()
        self.assertEqual(job["result"]["url"], "/-/files/app/f.tgz")
        self.assertEqual(web.get(job["result"]["url"]).status, 200)

    def test_failure(self) -> None:
        """A handler that fails is a plain 500 that says nothing, and is in the log."""

        async def fail(request: Request, below: bytes) -> None:
            raise KeyError("secret")

        answer = self.harness(mounts={"/app": fail}).get("/app")
        self.assertEqual(answer.status, 500)
        self.assertNotIn("secret", answer.text + answer.reason)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_stuck(self) -> None:
        """While a handler never returns, everybody else is answered."""
        waiting: Deferred[None] = Deferred()

        async def wait(request: Request, below: bytes) -> None:
            await waiting

        web = self.harness(mounts={"/app": wait})
        stuck = web.connect()
        stuck.send(b"GET /app HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(web.get("/").status, 200)
        stuck.lose()
        waiting.callback(None)
