"""Directory downloads over HTTP."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile

from fileexport.http_bodies import MAX_STREAMS
from tests.http_client import HttpCase, encode


class ArchiveTests(HttpCase):
    """`?archive=` on a directory."""

    def setUp(self) -> None:
        super().setUp()
        (self.root / "d" / "sub").mkdir(parents=True)
        (self.root / "d" / "a").write_bytes(b"first")
        (self.root / "d" / "sub" / "b").write_bytes(os.urandom(2_000_000))
        (self.root / "d" / ".env").write_bytes(b"SECRET")
        self.web = self.harness()

    def test_tar(self) -> None:
        """A directory is a tar with its length, named after it, without what the caller may not see."""
        answer = self.web.get("/d/?archive=tar")
        self.assertEqual((answer.status, answer.framing), (200, "length"))
        self.assertEqual(answer.field("Content-Type"), "application/x-tar")
        self.assertEqual(answer.field("Content-Disposition"), 'attachment; filename="d.tar"')
        with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
            self.assertEqual(archive.getnames(), ["d/a", "d/sub", "d/sub/b"])

    def test_zip(self) -> None:
        """So is a zip."""
        answer = self.web.get("/d/?archive=zip")
        self.assertEqual((answer.framing, answer.field("Content-Type")), ("length", "application/zip"))
        self.assertIsNone(zipfile.ZipFile(io.BytesIO(answer.body)).testzip())

    def test_compressed(self) -> None:
        """The compressed tars are streams without a length."""
        for form, kind in (("tar.gz", "application/gzip"), ("tar.zst", "application/zstd")):
            answer = self.web.get(f"/-/files/d/?archive={form}")
            self.assertEqual((answer.framing, answer.field("Content-Type")), ("chunked", kind))
            self.assertIn(f'filename="d.{form}"', answer.field("Content-Disposition"))

    def test_the_root(self) -> None:
        """The root is called files."""
        answer = self.web.get("/?archive=tar")
        self.assertIn('filename="files.tar"', answer.field("Content-Disposition"))

    def test_head(self) -> None:
        """HEAD says how long a tar would be, and reads no file."""
        answer = self.web.request("HEAD", "/d/?archive=tar")
        length = len(self.web.get("/d/?archive=tar").body)
        self.assertEqual((answer.field("Content-Length"), answer.body), (str(length), b""))

    def test_refusals(self) -> None:
        """An unknown form is 400, what is not there 404, and a file has no archive: it is sent as it is."""
        self.assertEqual(self.web.get("/d/?archive=rar").status, 400)
        self.assertEqual(self.web.get("/nope/?archive=tar").status, 404)
        self.assertEqual(self.web.get("/d/a?archive=tar").body, b"first")

    def test_a_directory_without_its_slash(self) -> None:
        """The redirect keeps the query."""
        self.assertEqual(self.web.get("/d?archive=tar").field("Location"), "/d/?archive=tar")

    def test_what_cannot_be_read_breaks_the_connection(self) -> None:
        """A file that changes between promise and sending never ends in a clean answer."""
        connection = self.web.connect()
        for form in ("tar", "zip", "tar.gz", "tar.zst"):
            (self.root / "d" / "sub" / "b").write_bytes(os.urandom(2_000_000))
            connection = self.web.connect()
            connection.send(encode("GET", f"/d/?archive={form}", {}, b""))
            os.truncate(self.root / "d" / "sub" / "b", 1_500_000)
            answer = connection.settle()
            self.assertFalse(answer.endswith(b"0\r\n\r\n"), form)
            self.assertTrue(connection.aborted, form)
            self.assertEqual(self.flushLoggedErrors(), [], form)

    def test_what_vanished_breaks_the_connection(self) -> None:
        """An archive that lacks what was there when the answer began never ends cleanly."""
        (self.root / "d" / "z").mkdir()
        for form in ("tar", "zip", "tar.gz", "tar.zst"):
            (self.root / "d" / "z" / "f").write_bytes(b"last")
            connection = self.web.connect()
            connection.send(encode("GET", f"/d/?archive={form}", {}, b""))
            (self.root / "d" / "z" / "f").unlink()
            answer = connection.settle()
            self.assertFalse(answer.endswith(b"0\r\n\r\n"), form)
            self.assertTrue(connection.aborted, form)
            self.assertEqual(self.flushLoggedErrors(), [], form)

    def test_too_many_at_once(self) -> None:
        """One stream more than there are places is 503, and a place is free again when its peer leaves."""
        busy = [self.web.connect() for _ in range(MAX_STREAMS)]
        for connection in busy:
            connection.send(encode("GET", "/d/?archive=tar", {}, b""))
        answer = self.web.get("/d/?archive=tar")
        self.assertEqual((answer.status, answer.field("Retry-After")), (503, "10"))
        busy[0].lose()
        self.web.clock.advance(0)
        self.assertEqual(self.web.get("/d/?archive=tar").status, 200)
