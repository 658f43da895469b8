"""Files of extreme sizes over HTTP: 5 GiB and nothing."""

from __future__ import annotations

import os

from tests.http_client import HttpCase

SIZE = 5 << 30


class SparseTests(HttpCase):
    """A file of 5 GiB, of which the disk holds almost nothing."""

    def setUp(self) -> None:
        super().setUp()
        with (self.root / "sparse").open("wb") as file:
            file.truncate(SIZE)
            os.pwrite(file.fileno(), b"here", 4 << 30)
            os.pwrite(file.fileno(), b"end", SIZE - 3)
        self.web = self.harness()

    def test_head(self) -> None:
        """HEAD tells its length."""
        self.assertEqual(self.web.request("HEAD", "/sparse").field("Content-Length"), str(SIZE))

    def test_ranges_beyond_four_gib(self) -> None:
        """Ranges, open ranges and suffixes far behind 4 GiB are the bytes that are there."""
        middle = 4 << 30
        for field, first, body in (
            (f"bytes={middle}-{middle + 3}", middle, b"here"),
            (f"bytes={SIZE - 3}-", SIZE - 3, b"end"),
            ("bytes=-3", SIZE - 3, b"end"),
        ):
            answer = self.web.get("/sparse", {"Range": field})
            self.assertEqual((answer.status, answer.body), (206, body), field)
            expected = f"bytes {first}-{first + len(body) - 1}/{SIZE}"
            self.assertEqual(answer.field("Content-Range"), expected)

    def test_two_ranges(self) -> None:
        """Two ranges that lie gigabytes apart come in one answer."""
        answer = self.web.get("/sparse", {"Range": f"bytes={4 << 30}-{(4 << 30) + 3},-3"})
        self.assertEqual(answer.status, 206)
        self.assertTrue(b"\r\n\r\nhere\r\n" in answer.body and b"\r\n\r\nend\r\n" in answer.body)

    def test_behind_its_end(self) -> None:
        """Nothing lies behind it."""
        answer = self.web.get("/sparse", {"Range": f"bytes={SIZE}-"})
        self.assertEqual((answer.status, answer.field("Content-Range")), (416, f"bytes */{SIZE}"))


class EmptyTests(HttpCase):
    """A file without a byte."""

    def setUp(self) -> None:
        super().setUp()
        self.write("empty", b"")
        self.web = self.harness()

    def test_get_and_head(self) -> None:
        """It is whole with a length of 0."""
        for method in ("GET", "HEAD"):
            answer = self.web.request(method, "/empty")
            self.assertEqual((answer.status, answer.field("Content-Length"), answer.body), (200, "0", b""))

    def test_ranges(self) -> None:
        """It has no range to give; a suffix of it is all of it."""
        for field, status in (("bytes=0-", 416), ("bytes=0-0", 416), ("bytes=-5", 200)):
            self.assertEqual(self.web.get("/empty", {"Range": field}).status, status, field)

    def test_conditions(self) -> None:
        """Its conditions are those of any file."""
        tag = self.web.get("/empty").field("ETag")
        self.assertEqual(self.web.get("/empty", {"If-None-Match": tag}).status, 304)
        self.assertEqual(self.web.get("/empty", {"If-Match": '"other"'}).status, 412)

    def test_compressed(self) -> None:
        """Every compressed form of it is valid, and so is every archive that holds it."""
        for target in ("/get?dir=/&name=empty&compress=gz", "/?archive=tar", "/?archive=zip"):
            self.assertEqual(self.web.get(target).status, 200, target)
