"""Files as the answers of a handler."""

from __future__ import annotations

from fileexport.web.handlers import HttpRequest, HttpResponse, attach_file
from fileexport.web.media import SANDBOX_POLICY
from tests.handling_case import LARGE, HandlingCase, Web


class FileTests(HandlingCase):
    """A response whose body is an open file."""

    def sending(self, data: bytes = b"content", *, mounted: bool = False, **values: object) -> Web:
        """A web whose handler answers with a new file; `values` are attributes that it sets after that."""

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            self.opened = self.open(data=data)
            attach_file(response, self.opened)
            for name, value in values.items():
                setattr(response, name, value)

        return self.web(handler, mounted=mounted)

    def closed(self) -> bool:
        """Whether the file has been closed."""
        return self.opened.descriptor == -1

    def test_whole(self) -> None:
        """The file is the body, large or small, and it is closed then."""
        for data in (b"", b"content", LARGE):
            web = self.sending(data)
            answer = web.request()
            self.assertEqual((answer.status, answer.body), (200, data))
            self.assertEqual(answer.field("Cache-Control"), "no-cache")
            self.assertTrue(self.closed())
            head = web.request("HEAD")
            self.assertEqual((head.status, head.field("Content-Length")), (200, str(len(data))))
            self.assertTrue(self.closed())

    def test_ranges_and_conditions(self) -> None:
        """Ranges and conditions are answered as for every file; errors are a line of text."""
        web = self.sending()
        answer = web.request(headers={"Range": "bytes=1-3"})
        self.assertEqual((answer.status, answer.body), (206, b"ont"))
        self.assertEqual(answer.field("Content-Range"), "bytes 1-3/7")
        date = answer.field("Last-Modified")
        self.assertEqual(web.request(headers={"If-Modified-Since": date}).status, 304)
        self.assertEqual(web.request(headers={"If-Match": '"x"'}).status, 412)
        answer = web.request(headers={"Range": "bytes=99-"})
        self.assertEqual((answer.status, answer.field("Content-Range")), (416, "bytes */7"))
        self.assertEqual(answer.field("Content-Type"), "text/plain; charset=utf-8")
        self.assertTrue(self.closed())

    def test_headers(self) -> None:
        """A handler's headers are sent with it, but for those that only the file can know."""
        headers = {"content-type": "text/html", "Cache-Control": "max-age=9", "ETag": '"x"', "X": "y"}
        answer = self.sending(headers=headers).request()
        self.assertEqual(answer.field("Content-Type"), "text/html")
        self.assertEqual((answer.field("Cache-Control"), answer.field("X")), ("max-age=9", "y"))
        self.assertNotEqual(answer.field("ETag"), '"x"')

    def test_mounted(self) -> None:
        """Mounted in the daemon, a file cannot script its origin, unless the handler has a policy."""
        own = {"Content-Type": "text/html", "content-security-policy": "default-src 'self'"}
        sandbox = [SANDBOX_POLICY[0][1].decode("ascii")]
        for status in (200, 404):
            for headers, policies in (
                ({"Content-Type": "text/html; charset=utf-8"}, sandbox),
                ({"Content-Type": "Image/SVG+XML"}, sandbox),
                ({"Content-Type": "image/png"}, []),
                ({}, []),
                ({"Content-Type": "application/octet-stream"}, sandbox),
                (own, [own["content-security-policy"]]),
            ):
                answer = self.sending(mounted=True, status=status, headers=headers).request()
                self.assertEqual(answer.fields("Content-Security-Policy"), policies, headers)
        answer = self.sending(headers={"Content-Type": "text/html"}).request()
        self.assertEqual(answer.fields("Content-Security-Policy"), [])

    def test_another_status(self) -> None:
        """With a status that is not 200 the whole file is sent, whatever the request asks for."""
        for data in (b"", b"not here", LARGE):
            web = self.sending(data, status=404)
            answer = web.request(headers={"Range": "bytes=1-3"})
            self.assertEqual((answer.status, answer.reason, answer.body), (404, "Not Found", data))
            self.assertEqual(answer.fields("ETag"), [])
            self.assertTrue(self.closed())
            self.assertEqual(web.request("HEAD").field("Content-Length"), str(len(data)))
        self.assertEqual(self.sending(status=299).request().reason, "Success")

    def test_status_without_body(self) -> None:
        """A status that allows no body closes the file."""
        self.assertEqual(self.sending(status=204).request().body, b"")
        self.assertTrue(self.closed())

    def test_data_wins(self) -> None:
        """Data that is set after the file is the body, and the file is closed."""

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            self.opened = self.open()
            attach_file(response, self.opened)
            response.data = "data"

        self.assertEqual(self.web(handler).request().body, b"data")
        self.assertTrue(self.closed())

    def test_failure(self) -> None:
        """A handler that fails after it put a file there leaves nothing open."""

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            self.opened = self.open()
            attach_file(response, self.opened)
            raise ValueError

        self.assertEqual(self.web(handler).request().status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertTrue(self.closed())

    def test_reader_that_leaves(self) -> None:
        """A client that leaves in the middle of a file: it is closed, and nothing is logged."""
        self.sending(LARGE).begin().lose()
        self.assertTrue(self.closed())

    def test_second_file(self) -> None:
        """Another file takes the first one's place, which is closed."""
        first, second = self.open("a", b"a"), self.open("b", b"b")

        def handler(request: HttpRequest, response: HttpResponse) -> None:
            attach_file(response, first)
            attach_file(response, second)

        self.assertEqual(self.web(handler).request().body, b"b")
        self.assertEqual((first.descriptor, second.descriptor), (-1, -1))

    def test_file_that_shrinks(self) -> None:
        """A file that became shorter before it was sent: an error while that can be said, else a break."""
        for data, status in ((b"content", [503]), (LARGE, [])):

            def handler(request: HttpRequest, response: HttpResponse, data: bytes = data) -> None:
                attach_file(response, self.open(data=data))
                (self.root / "file").write_bytes(b"")

            connection = self.web(handler).begin()
            answer = connection.settle()
            self.assertEqual([int(answer[9:12])] if status else [], status)
            self.assertEqual(connection.aborted, not status)
            self.flushLoggedErrors()

    def test_without_a_server(self) -> None:
        """Who calls a handler directly reads the file's content, and it is closed with the response."""
        response = HttpResponse()
        opened = self.open()
        attach_file(response, opened)
        self.assertEqual((response.data, response.data), (b"content", b"content"))
        del response
        self.assertEqual(opened.descriptor, -1)
