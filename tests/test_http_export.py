"""The export API's reading half: /list and /get."""

from __future__ import annotations

import gzip
import io
import os
import re
import sys
import zipfile

from fileexport.disk.archive import SMALL
from fileexport.http_bodies import MAX_STREAMS
from tests.http_client import NOW, HttpCase, Response, encode

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Larger than any buffer on the way, and no two of its slices alike.
LARGE = b"".join(b"%07d\n" % number for number in range(400_000))


class ListTests(HttpCase):
    """GET /list."""

    def setUp(self) -> None:
        super().setUp()
        self.write("d/b.sql", b"12345", NOW - 300)
        self.write("d/a.sql", b"1", NOW - 100)
        self.write("d/a.txt", b"123", NOW - 200)
        self.write("d/sub/a.deep", b"12", NOW - 50)
        self.write("top.txt", b"top")
        self.web = self.harness()

    def names(self, query: str) -> list[str]:
        """The names that /list gives for these parameters."""
        answer = self.web.get("/list?" + query)
        self.assertEqual(answer.status, 200, answer.text)
        return [entry["name"] for entry in answer.json()]

    def refusal(self, target: str) -> tuple[int, str]:
        """Status and text of an error, which is the reason phrase as well."""
        answer = self.web.get(target)
        self.assertEqual(answer.field("Content-Type"), "text/plain; charset=utf-8")
        self.assertEqual(answer.reason, answer.text)
        return answer.status, answer.text

    def test_files_by_name(self) -> None:
        """The regular files of the directory, name and size, by name; no directories."""
        answer = self.web.get("/list?dir=d")
        expected = [{"name": "a.sql", "size": 1}, {"name": "a.txt", "size": 3}, {"name": "b.sql", "size": 5}]
        self.assertEqual(answer.json(), expected)
        self.assertEqual(answer.field("Content-Type"), "application/json")
        self.assertEqual(answer.framing, "length")

    def test_spellings_of_the_directory(self) -> None:
        """The root is `/`, `.` or empty; a directory may have slashes around it."""
        for spelling in ("/", ".", "", "//", "%2F"):
            self.assertEqual(self.names(f"dir={spelling}"), ["top.txt"], spelling)
        for spelling in ("d/sub", "/d/sub", "d/sub/", "d//sub", "%2fd%2Fsub", "d%2fsub"):
            self.assertEqual(self.names(f"dir={spelling}"), ["a.deep"], spelling)

    def test_prefix_and_suffix(self) -> None:
        """Prefix and suffix choose by the beginning and the end of a name, both together by both."""
        self.assertEqual(self.names("dir=d&prefix=a"), ["a.sql", "a.txt"])
        self.assertEqual(self.names("dir=d&suffix=.sql"), ["a.sql", "b.sql"])
        self.assertEqual(self.names("dir=d&prefix=a&suffix=.sql"), ["a.sql"])
        self.assertEqual(self.names("dir=d&prefix=&suffix="), ["a.sql", "a.txt", "b.sql"])
        self.assertEqual(self.names("dir=d&prefix=a.sql&suffix=a.sql"), ["a.sql"])
        self.assertEqual(self.names("dir=d&prefix=A"), [])
        self.assertEqual(self.names("dir=d&prefix=a."), ["a.sql", "a.txt"])

    def test_sort_and_order(self) -> None:
        """The files come by name, size or time, upwards or downwards."""
        table = {
            "sort=name": "a.sql a.txt b.sql",
            "order=desc": "b.sql a.txt a.sql",
            "sort=size": "a.sql a.txt b.sql",
            "sort=size&order=desc": "b.sql a.txt a.sql",
            "sort=mtime": "b.sql a.txt a.sql",
            "sort=mtime&order=desc": "a.sql a.txt b.sql",
        }
        self.assertEqual({query: " ".join(self.names("dir=d&" + query)) for query in table}, table)

    def test_details(self) -> None:
        """With details each file has its time, its type and a link that leads to it."""
        found = self.web.get("/list?dir=d&prefix=b&details=1").json()
        expected = {"name": "b.sql", "size": 5, "mtime": NOW - 300, "type": "file", "url": "/d/b.sql"}
        self.assertEqual(found, [expected])
        self.assertEqual(self.web.get(found[0]["url"]).body, b"12345")

    def test_details_behind_a_proxy(self) -> None:
        """Links begin with the prefix that a reverse proxy puts before our paths."""
        web = self.harness(prefix="/files")
        self.assertEqual(web.get("/list?dir=/&details=1").json()[0]["url"], "/files/top.txt")

    def test_recursive(self) -> None:
        """Recursively the names are paths below the directory, chosen by their last part."""
        self.assertEqual(self.names("dir=/&recursive=1&prefix=a"), ["d/a.sql", "d/a.txt", "d/sub/a.deep"])
        self.assertEqual(self.names("dir=d&recursive=1&suffix=deep"), ["sub/a.deep"])
        found = self.web.get("/list?dir=d&recursive=1&suffix=deep&details=1").json()
        self.assertEqual(self.web.get(found[0]["url"]).body, b"12")

    def test_flags(self) -> None:
        """A flag is on as 1, true, yes or by its name alone, off as 0, false, no; else it is refused."""
        for value, deep in (("=1", True), ("=true", True), ("", True), ("=0", False), ("=No", False)):
            self.assertEqual("sub/a.deep" in self.names(f"dir=d&recursive{value}"), deep, value)
        self.assertEqual(self.refusal("/list?dir=d&recursive=2"), (400, "ERROR - recursive is 1 or 0"))

    def test_names_that_are_not_utf8(self) -> None:
        """Such a name has U+FFFD for its bytes, and a link by which it is reached, with details or not."""
        self.write(b"odd/caf\xe9", b"coffee")
        for query in ("dir=odd", "dir=odd&details=1", "dir=/&recursive=1&prefix=caf"):
            entry = self.web.get("/list?" + query).json()[0]
            self.assertTrue(entry["name"].endswith("caf\ufffd"))
            self.assertEqual(entry["url"], "/odd/caf%E9")
            self.assertEqual(self.web.get(entry["url"]).body, b"coffee")
        self.assertEqual(self.web.get("/list?dir=odd&prefix=caf%e9").json()[0]["size"], 6)

    def test_odd_names(self) -> None:
        """Every name comes back as it is, and its link leads to it, whatever it holds."""
        names = ["a b", "a+b", "a%20b", "a#b?c&d=e", "q\"u'o<t>e", "new\nline", "\u00e9\u0301\U0001f600", "*"]
        for name in names:
            self.write("odd/" + name, name.encode())
        found = self.web.get("/list?dir=odd&details=1").json()
        self.assertEqual([entry["name"] for entry in found], sorted(names))
        for entry in found:
            self.assertEqual(self.web.get(entry["url"]).text, entry["name"])

    def test_links(self) -> None:
        """A link to a file is listed with the file's size; others, and what is no file, are not."""
        (self.root / "d/link").symlink_to("sub/a.deep")
        (self.root / "d/linkdir").symlink_to("sub")
        (self.root / "d/dangling").symlink_to("nowhere")
        (self.root / "d/outside").symlink_to("/etc/hostname")
        os.mkfifo(self.root / "d/pipe")
        found = {entry["name"]: entry["size"] for entry in self.web.get("/list?dir=d").json()}
        self.assertEqual(found, {"a.sql": 1, "a.txt": 3, "b.sql": 5, "link": 2})

    def test_hidden(self) -> None:
        """What a caller may not see is not listed, and our own directory never is."""
        self.write("d/.env", b"secret")
        self.write("d/.fileexport/new", b"secret")
        self.assertEqual(self.names("dir=d"), ["a.sql", "a.txt", "b.sql"])
        self.assertNotIn(".env", self.names("dir=/&recursive=1&prefix=.e"))
        hidden = self.harness(hidden=True).get("/list?dir=/&recursive=1&prefix=.").json()
        self.assertEqual(hidden, [{"name": "d/.env", "size": 6}])

    def test_refusals(self) -> None:
        """No directory is 400, an unknown one 404, and so is a file in its place; each says why."""
        gone = "ERROR - there is no such file or directory"
        table = {
            "/list": (400, "ERROR - the parameter dir is missing"),
            "/list?prefix=a": (400, "ERROR - the parameter dir is missing"),
            "/list?dir=nope": (404, gone),
            "/list?dir=d/nope": (404, gone),
            "/list?dir=D": (404, gone),
            "/list?dir=.fileexport": (404, gone),
            "/list?dir=d/a.sql": (404, "ERROR - it is not a directory"),
            "/list?dir=top.txt/x": (404, "ERROR - it is not a directory"),
            "/list?dir=..": (400, "ERROR - '..' is not a name"),
            "/list?dir=d/../d": (400, "ERROR - '..' is not a name"),
            "/list?dir=a%00b": (400, "ERROR - a name holds no slash and no NUL"),
            "/list?dir=" + "n" * 256: (400, "ERROR - a name is longer than 255 bytes"),
            "/list?dir=d&sort=date": (400, "ERROR - sort is one of name, size, mtime"),
            "/list?dir=d&order=up": (400, "ERROR - order is asc or desc"),
            "/list?dir=d&dir=e": (400, "ERROR - a parameter is given twice"),
        }
        self.assertEqual({target: self.refusal(target) for target in table}, table)

    def test_exported_directories(self) -> None:
        """With --dir only these directories can be listed."""
        web = self.harness(dirs=["d/sub"])
        self.assertEqual(web.get("/list?dir=d/sub").json(), [{"name": "a.deep", "size": 2}])
        self.assertEqual([web.get(f"/list?dir={name}").json() for name in ("d", "/")], [[], []])
        self.assertEqual(web.get("/list?dir=e").status, 404)

    def test_head(self) -> None:
        """HEAD says how long the listing is, and sends none of it."""
        answer = self.web.request("HEAD", "/list?dir=d")
        length = str(len(self.web.get("/list?dir=d").body))
        self.assertEqual((answer.status, answer.field("Content-Length"), answer.body), (200, length, b""))


class GetTests(HttpCase):
    """GET /get of a file as it is."""

    def setUp(self) -> None:
        super().setUp()
        self.write("d/ten", b"0123456789")
        self.write("d/empty")
        self.web = self.harness()

    def get(self, target: str = "/get?dir=d&name=ten", **headers: str) -> Response:
        """Get the file of ten bytes; `if_match` stands for If-Match."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.web.get(target, fields)

    def test_attachment(self) -> None:
        """The file comes whole, to be kept under its name, with all that a later condition needs."""
        answer = self.get()
        self.assertEqual((answer.status, answer.body), (200, b"0123456789"))
        self.assertEqual(answer.field("Content-Disposition"), 'attachment; filename="ten"')
        self.assertEqual(answer.field("Content-Length"), "10")
        self.assertEqual(answer.field("Accept-Ranges"), "bytes")
        self.assertEqual(answer.field("Last-Modified"), "Fri, 15 Jan 2027 07:43:20 GMT")
        self.assertEqual(answer.field("Date"), "Fri, 15 Jan 2027 08:00:00 GMT")
        self.assertRegex(answer.field("ETag"), r'^"[^"]+"$')

    def test_large(self) -> None:
        """A file larger than every buffer comes whole."""
        self.write("large", LARGE)
        self.assertEqual(self.get("/get?dir=/&name=large").body, LARGE)

    def test_empty(self) -> None:
        """An empty file is an answer of no bytes."""
        answer = self.get("/get?dir=d&name=empty")
        self.assertEqual((answer.status, answer.field("Content-Length"), answer.body), (200, "0", b""))

    def test_one_range(self) -> None:
        """One range is 206 with exactly those bytes, for each way to spell it."""
        table = {
            "bytes=0-3": (b"0123", "bytes 0-3/10"),
            "bytes=4-": (b"456789", "bytes 4-9/10"),
            "bytes=-3": (b"789", "bytes 7-9/10"),
            "bytes=-999": (b"0123456789", "bytes 0-9/10"),
            "bytes=9-99": (b"9", "bytes 9-9/10"),
            "bytes=2-3,4-5": (b"2345", "bytes 2-5/10"),
        }
        for asked, (body, where) in table.items():
            answer = self.get(range=asked)
            self.assertEqual((answer.status, answer.body), (206, body), asked)
            self.assertEqual(answer.field("Content-Range"), where)
            self.assertEqual(answer.field("Content-Length"), str(len(body)))

    def test_several_ranges(self) -> None:
        """Several ranges are multipart/byteranges, each part with its own place in the file."""
        answer = self.get(range="bytes=0-1,5-5,-2")
        kind, _, boundary = answer.field("Content-Type").partition("; boundary=")
        self.assertEqual((answer.status, kind), (206, "multipart/byteranges"))
        self.assertEqual(answer.fields("Content-Range"), [])
        self.assertEqual(answer.field("Content-Length"), str(len(answer.body)))
        first, *parts, last = answer.body.split(b"\r\n--" + boundary.encode())
        self.assertEqual((first, last), (b"", b"--\r\n"))
        found = [re.fullmatch(rb"\r\n.*Content-Range: (.+?)\r\n\r\n(.*)", part, re.DOTALL) for part in parts]
        self.assertEqual(
            [match.groups() for match in found if match],
            [(b"bytes 0-1/10", b"01"), (b"bytes 5-5/10", b"5"), (b"bytes 8-9/10", b"89")],
        )

    def test_unsatisfiable_range(self) -> None:
        """A range behind the end is 416 and says how long the file is, in text."""
        answer = self.get(range="bytes=10-")
        self.assertEqual((answer.status, answer.field("Content-Range")), (416, "bytes */10"))
        self.assertEqual(answer.text, "ERROR - the file has no such range")
        self.assertEqual(answer.fields("Content-Disposition"), [])

    def test_conditions(self) -> None:
        """Conditions are checked against the file as it is now."""
        etag = self.get().field("ETag")
        before, now = "Fri, 15 Jan 2027 07:00:00 GMT", "Fri, 15 Jan 2027 08:00:00 GMT"
        for status, headers in (
            (304, {"if_none_match": etag}),
            (304, {"if_none_match": "*"}),
            (200, {"if_none_match": '"other"'}),
            (304, {"if_modified_since": now}),
            (200, {"if_modified_since": before}),
            (200, {"if_match": etag}),
            (412, {"if_match": '"other"'}),
            (412, {"if_unmodified_since": before}),
            (206, {"range": "bytes=0-0", "if_range": etag}),
            (200, {"range": "bytes=0-0", "if_range": '"other"'}),
        ):
            self.assertEqual(self.get(**headers).status, status, headers)

    def test_not_modified_has_no_body(self) -> None:
        """304 carries the tag and no body, and the connection goes on."""
        connection = self.web.connect()
        etag = self.get().field("ETag")
        connection.send(encode("GET", "/get?dir=d&name=ten", {"If-None-Match": etag}, b""))
        answer = connection.receive()
        self.assertEqual((answer.status, answer.field("ETag"), answer.framing), (304, etag, "none"))
        connection.send(encode("GET", "/get?dir=d&name=ten", {}, b""))
        self.assertEqual(connection.receive().body, b"0123456789")

    def test_changed_file_has_another_tag(self) -> None:
        """A file that was written again is not taken for the old one, even with the same size and time."""
        etag = self.get().field("ETag")
        self.write("d/ten", b"9876543210")
        self.assertEqual(self.get(if_none_match=etag).body, b"9876543210")

    def test_head(self) -> None:
        """HEAD tells what GET would, without a byte of the file."""
        head, get = self.web.request("HEAD", "/get?dir=d&name=ten"), self.get()
        self.assertEqual((head.status, head.headers, head.body), (200, get.headers, b""))

    def test_unknown(self) -> None:
        """What is not there is 404, and so are a directory and whatever is no file; the text says no more."""
        os.mkfifo(self.root / "pipe")
        (self.root / "outside").symlink_to("/etc/hostname")
        expected = (404, "ERROR - there is no such file or directory")
        for target in ("dir=d&name=nope", "dir=nope&name=ten", "dir=/&name=d", "dir=/&name=outside"):
            answer = self.get("/get?" + target)
            self.assertEqual((answer.status, answer.text), expected)
        self.assertEqual(self.get("/get?dir=/&name=pipe").status, 403)

    def test_refusals(self) -> None:
        """A parameter that is missing or no name is 400."""
        table = {
            "/get?dir=d": "the parameter name is missing",
            "/get?name=ten": "the parameter dir is missing",
            "/get?dir=d&name=": "'' is not a name",
            "/get?dir=d&name=..": "'..' is not a name",
            "/get?dir=/&name=d/ten": "a name holds no slash and no NUL",
            "/get?dir=/&name=d%2Ften": "a name holds no slash and no NUL",
        }
        for target, sentence in table.items():
            answer = self.get(target)
            self.assertEqual((answer.status, answer.text), (400, "ERROR - " + sentence), target)

    def test_odd_names(self) -> None:
        """A name of any bytes is asked for percent-encoded, and offered for keeping as one safe line."""
        self.write(b'caf\xc3\xa9 "x"\xff', b"odd")
        answer = self.get("/get?dir=/&name=caf%C3%A9+%22x%22%FF")
        self.assertEqual(answer.body, b"odd")
        self.assertTrue(answer.field("Content-Disposition").startswith('attachment; filename="'))

    def test_without_the_right_to_read(self) -> None:
        """A token that may only delete reads nothing."""
        web = self.harness(tokens="only-deletes-12 may=delete\n", local=False)
        answer = web.get("/get?dir=d&name=ten", {"Authorization": "Bearer only-deletes-12"})
        self.assertEqual(answer.status, 403)


def unpack(form: str, data: bytes) -> bytes:
    """What a compressed form holds."""
    if form == "gz":
        return gzip.decompress(data)
    if form == "zst":
        return zstd.decompress(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = archive.namelist()[0]
        if (archive.testzip(), len(archive.namelist()), name) != (None, 1, "dump.sql"):
            raise AssertionError(f"the archive is broken: {archive.namelist()}")
        return archive.read(name)


class CompressTests(HttpCase):
    """GET /get with compress."""

    KINDS = {"zip": "application/zip", "gz": "application/gzip", "zst": "application/zstd"}

    def setUp(self) -> None:
        super().setUp()
        self.web = self.harness()

    def test_small(self) -> None:
        """A small file is compressed first, so that its length is known; its name gets the suffix."""
        for size in (0, 1, SMALL):
            self.write("dump.sql", LARGE[:size])
            for form, kind in self.KINDS.items():
                answer = self.web.get(f"/get?dir=/&name=dump.sql&compress={form}")
                self.assertEqual((answer.status, answer.framing), (200, "length"), form)
                self.assertEqual(answer.field("Content-Type"), kind)
                self.assertEqual(
                    answer.field("Content-Disposition"), f'attachment; filename="dump.sql.{form}"'
                )
                self.assertEqual(unpack(form, answer.body), LARGE[:size])

    def test_large(self) -> None:
        """A large file is compressed while it is sent, and says so by its framing."""
        self.write("dump.sql", LARGE)
        for form in self.KINDS:
            answer = self.web.get(f"/get?dir=/&name=dump.sql&compress={form}")
            self.assertEqual((answer.status, answer.framing), (200, "chunked"), form)
            self.assertEqual(unpack(form, answer.body), LARGE)

    def test_large_to_an_old_client(self) -> None:
        """An HTTP/1.0 client gets the same until the connection closes."""
        self.write("dump.sql", LARGE)
        answer = self.web.raw(b"GET /get?dir=/&name=dump.sql&compress=gz HTTP/1.0\r\n\r\n")
        self.assertEqual(unpack("gz", answer.partition(b"\r\n\r\n")[2]), LARGE)

    def test_ranges_mean_nothing(self) -> None:
        """A compressed form has no ranges and no tag: the next one may differ."""
        self.write("dump.sql", LARGE[:1000])
        answer = self.web.get("/get?dir=/&name=dump.sql&compress=gz", {"Range": "bytes=0-1"})
        self.assertEqual((answer.status, answer.field("Accept-Ranges")), (200, "none"))
        self.assertEqual((answer.fields("ETag"), answer.fields("Content-Range")), ([], []))

    def test_head(self) -> None:
        """HEAD compresses nothing and tells the type and the name."""
        self.write("dump.sql", LARGE)
        answer = self.web.request("HEAD", "/get?dir=/&name=dump.sql&compress=zst")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.field("Content-Type"), "application/zstd")
        self.assertEqual(answer.fields("Transfer-Encoding"), [])

    def test_unknown_form(self) -> None:
        """Another form is 400, also an empty one and one in capitals."""
        self.write("dump.sql", b"x")
        for form in ("rar", "", "GZ", "tar.gz"):
            answer = self.web.get(f"/get?dir=/&name=dump.sql&compress={form}")
            self.assertEqual((answer.status, answer.text), (400, "ERROR - compress is one of zip, gz, zst"))

    def test_too_many_streams(self) -> None:
        """One stream more than may run is asked to come back; when one has ended, it may."""
        self.write("dump.sql", LARGE)
        request = encode("GET", "/get?dir=/&name=dump.sql&compress=gz", {}, b"")
        running = [self.web.connect() for _ in range(MAX_STREAMS)]
        for connection in running:
            connection.send(request)
        answer = self.web.get("/get?dir=/&name=dump.sql&compress=gz")
        self.assertEqual((answer.status, answer.field("Retry-After")), (503, "10"))
        self.assertEqual(self.web.get("/get?dir=/&name=dump.sql").status, 200)
        running[0].lose()
        self.assertEqual(self.web.get("/get?dir=/&name=dump.sql&compress=gz").status, 200)
        for connection in running[1:]:
            self.assertEqual(unpack("gz", connection.receive().body), LARGE)
