"""Uploads as tus begins them, at the HTTP door."""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from urllib.parse import quote

from fileexport.disk.uploads_store import KEPT_TIME
from tests.http_client import encode
from tests.tus_case import CONTENT, PART, UPLOADS, TusCase, metadata


class CreationTests(TusCase):
    """What is asked for, and what is refused before the first byte."""

    def setUp(self) -> None:
        super().setUp()
        self.serve()
        (self.root / "d").mkdir()

    def refused(self, headers: dict[str, str], query: str = "", body: bytes = b"") -> int:
        """The status of an upload that is not begun; nothing is left of it."""
        response = self.ask("POST", UPLOADS + query, headers, body)
        self.assertEqual(response.fields("Location"), [])
        self.assertEqual(self.ask("GET", UPLOADS).json(), [])
        return response.status

    def test_length(self) -> None:
        """The size is needed; putting it off, and parts of a file, are not spoken."""
        for fields, status in (
            ({}, 400),
            ({"Upload-Defer-Length": "1"}, 400),
            ({"Upload-Length": "-1"}, 400),
            ({"Upload-Length": "1e3"}, 400),
            ({"Upload-Length": "10", "Upload-Concat": "partial"}, 400),
            ({"Upload-Concat": "final;/-/uploads/a /-/uploads/b"}, 400),
            ({"Upload-Length": "9" * 40}, 413),
            ({"Upload-Length": str((1 << 40) + 1)}, 413),
            ({"Upload-Length": str(1 << 40)}, 507),
            ({"Upload-Length": "10", "Upload-Metadata": "filename"}, 201),
        ):
            with self.subTest(fields):
                if status == 201:
                    self.assertEqual(self.ask("POST", UPLOADS, fields).status, 201)
                else:
                    self.assertEqual(self.refused(fields), status)

    def test_names(self) -> None:
        """The name comes from the metadata, else it is the upload's id; each lands in the directory."""
        for values, path in (
            ({"filename": "a b.txt"}, "d/a b.txt"),
            ({"name": "ä"}, "d/ä"),
            ({"filename": "f", "name": "n"}, "d/f"),
            ({"filename": "f2", "relativePath": "null"}, "d/f2"),
            ({"filename": "f3", "relativePath": "x/y/z"}, "d/x/y/z"),
            ({"filename": "f4", "relativePath": "/x/w"}, "d/x/w"),
        ):
            with self.subTest(values):
                url = self.create(0, metadata(**values), "?dir=/d")
                self.assertTrue((self.root / path).exists())
                self.assertEqual(self.offset(url), 0)
        url = self.ask("POST", UPLOADS, {"Upload-Length": "0"}).field("Location")
        self.assertTrue((self.root / url.rpartition("/")[2]).exists())

    def test_file_on_the_way(self) -> None:
        """Below a file nothing is begun, wherever that is said."""
        self.write("d/file", b"")
        for query, path in (("?dir=/d", "file/x"), ("?dir=/d", "file/x/y"), ("?dir=/d/file", "x")):
            fields = {"Upload-Length": "1", **metadata(relativePath=path)}
            self.assertEqual(self.refused(fields, query), 409)

    def test_bad_names(self) -> None:
        """A name leads nowhere else, and is one that may be made."""
        for values in (
            {"filename": "../up"},
            {"filename": "a/b"},
            {"filename": ".."},
            {"relativePath": "../../etc/passwd"},
            {"relativePath": "x/./y"},
            {"relativePath": "/"},
            {"filename": "a\nb"},
            {"filename": "x" * 256},
            {"filename": b"\xff"},
            {"filename": b"a\0b"},
        ):
            with self.subTest(values):
                self.assertEqual(self.refused({"Upload-Length": "0"} | metadata(**values)), 400)
        fields = {"Upload-Length": "0"} | metadata(filename="x")
        self.assertEqual(self.refused(fields, "?dir=/d/../.."), 400)
        self.assertEqual(self.refused({"Upload-Length": "0"} | metadata(relativePath=".fileexport/x")), 403)

    def test_directory(self) -> None:
        """A directory that is missing is not found; its name may be any bytes."""
        fields = {"Upload-Length": "0"} | metadata(filename="x")
        self.assertEqual(self.refused(fields, "?dir=/none"), 404)
        os.mkdir(os.fsencode(self.root) + b"/\xff %")
        self.create(0, query="?dir=" + quote(b"/\xff %"))
        self.assertTrue(os.path.exists(os.fsencode(self.root) + b"/\xff %/new"))

    def test_conflicts(self) -> None:
        """What is there stays, is replaced, or has the other beside it, as the client wants it."""
        self.write("d/a.txt", b"old")
        fields = metadata(filename="a.txt")
        for query in ("?dir=d", "?dir=d&conflict=abort"):
            self.assertEqual(self.refused({"Upload-Length": "10"} | fields, query), 409)
        self.assertEqual(self.refused({"Upload-Length": "10"} | fields, "?conflict=maybe"), 400)
        renamed = [self.create(10, fields, "?dir=d&conflict=rename") for _ in range(2)]
        replacing = self.create(10, fields, "?dir=d&conflict=replace")
        for number, url in enumerate((*renamed, replacing)):
            self.assertEqual(self.patch(url, 0, b"%d" % number * 10).status, 204)
        found = {name: self.content(f"d/{name}") for name in os.listdir(self.root / "d")}
        self.assertEqual(found, {"a.txt": b"2" * 10, "a (1).txt": b"0" * 10, "a (2).txt": b"1" * 10})

    def test_conflict_at_the_end(self) -> None:
        """A file that somebody else made meanwhile stays: a conflict without an offset."""
        url = self.create()
        self.patch(url, 0, CONTENT[:4])
        self.write("new", b"theirs")
        response = self.patch(url, 4, CONTENT[4:])
        self.assertEqual((response.status, response.fields("Upload-Offset")), (409, []))
        self.assertEqual((self.content(), self.head(url).status), (b"theirs", 409))
        (self.root / "new").unlink()
        self.assertEqual((self.offset(url), self.content()), (10, CONTENT))

    def test_other_name_at_the_end(self) -> None:
        """Who wants another name then has it also where the name is taken only meanwhile."""
        url = self.create(query="?conflict=rename")
        self.patch(url, 0, CONTENT[:4])
        self.write("new", b"theirs")
        self.assertEqual(self.patch(url, 4, CONTENT[4:]).status, 204)
        self.assertEqual((self.content(), self.content("new (1)")), (b"theirs", CONTENT))

    def test_times(self) -> None:
        """The file has the time that its client says."""
        for number, key in enumerate(("mtime", "lastModified")):
            self.create(0, metadata(filename=str(number), **{key: "1795273794769"}))
            self.assertEqual(os.stat(self.root / str(number)).st_mtime_ns, 1795273794769 * 10**6)

    def test_listing(self) -> None:
        """What is unfinished below a directory, and how far it is; what is done is not there."""
        url = self.create(10, metadata(relativePath="x/ä.txt", mtime="1795273794769"), "?dir=d")
        self.patch(url, 0, CONTENT[:4])
        self.create(0, name="done")
        other = self.create(name="other")
        found = {
            "id": url.rpartition("/")[2],
            "url": url,
            "path": "/d/x/ä.txt",
            "size": 10,
            "offset": 4,
            "expires": KEPT_TIME,
            "mtime": 1795273794769,
        }
        for query in ("?dir=/d", "?dir=d/x"):
            response = self.ask("GET", UPLOADS + query)
            self.assertEqual(response.json(), [found])
            self.assertEqual(response.field("Cache-Control"), "no-store")
        listed = self.ask("GET", UPLOADS).json()
        self.assertEqual([one["url"] for one in listed], [url, other])
        self.assertEqual(self.ask("GET", f"{UPLOADS}?dir=/d/y").json(), [])
        self.assertEqual(self.server.request("HEAD", UPLOADS).status, 200)

    def test_with_upload(self) -> None:
        """The first part, or all of it, may come with the request; its offset is said."""
        for size in (4, 10):
            fields = {"Upload-Length": "10"} | metadata(filename=str(size)) | PART
            response = self.ask("POST", UPLOADS, fields, CONTENT[:size])
            self.assertEqual((response.status, response.field("Upload-Offset")), (201, str(size)))
            url = response.field("Location")
            self.assertEqual(self.offset(url), size)
        self.assertEqual(self.content("10"), CONTENT)
        self.assertEqual(self.refused_part({"Upload-Length": "3"}, CONTENT), 413)

    def refused_part(self, fields: dict[str, str], body: bytes) -> int:
        before = self.ask("GET", UPLOADS).json()
        response = self.ask("POST", UPLOADS, metadata(filename="refused") | PART | fields, body)
        self.assertEqual(response.fields("Location"), [])
        self.assertEqual(self.ask("GET", UPLOADS).json(), before)
        return response.status

    def test_with_upload_and_checksum(self) -> None:
        """Where its first part is not what it should be, the upload is not begun."""
        wrong = {"Upload-Checksum": "sha1 AAAA"}
        response = self.ask("POST", UPLOADS, {"Upload-Length": "10"} | PART | wrong, CONTENT)
        self.assertEqual((response.status, response.fields("Location")), (460, []))
        self.assertEqual(self.ask("GET", UPLOADS).json(), [])
        right = {"Upload-Checksum": f"md5 {b64encode(hashlib.md5(CONTENT).digest()).decode()}"}
        fields = {"Upload-Length": "10"} | metadata(filename="new") | PART | right
        self.assertEqual(self.ask("POST", UPLOADS, fields, CONTENT).status, 201)
        self.assertEqual(self.content(), CONTENT)

    def test_expecting(self) -> None:
        """Who waits for it is told to send only when all is well."""
        fields = {"Tus-Resumable": "1.0.0", "Expect": "100-continue", "Content-Length": "10"} | PART
        asked = fields | {"Upload-Length": "10"} | metadata(filename="new")
        connection = self.server.connect()
        connection.send(encode("POST", UPLOADS, asked, b""))
        self.assertEqual(connection.receive().status, 100)
        connection.send(CONTENT)
        self.assertEqual(connection.receive().status, 201)
        connection = self.server.connect()
        connection.send(encode("POST", UPLOADS, asked, b""))
        self.assertEqual(connection.receive().status, 409)
