"""What tests of PUT and DELETE share: a root with one file, and a look at all that is left of it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.http_client import HttpCase, HttpHarness, Response, encode

TOKENS = """
reader-token may=read name=reader
writer-token may=write name=writer
deleter-token may=delete name=deleter
inner-token under=/d name=inner
"""


def chunked(target: str, *chunks: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A PUT whose body comes in these chunks; its last one is not there."""
    head = encode("PUT", target, {"Transfer-Encoding": "chunked", **(headers or {})}, b"")
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def bearer(name: str) -> dict[str, str]:
    """The header of a token of `TOKENS`."""
    return {"Authorization": f"Bearer {name}-token"}


class UploadsCase(HttpCase):
    """Has a root with a file and a directory."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.write("d/old", b"old version")
        self.web = self.harness()

    def put(
        self,
        target: str,
        body: bytes = b"new",
        headers: Mapping[str, str] | None = None,
        web: HttpHarness | None = None,
    ) -> Response:
        """What PUT answers."""
        return (web or self.web).request("PUT", target, headers, body)

    def etag(self, target: str = "/d/old") -> str:
        """The entity tag that a reader is told."""
        return self.web.request("HEAD", target).field("ETag")

    def left(self) -> list[str]:
        """All that is below the root, staging included, but for its empty directory."""
        found = (path for path in self.root.rglob("*") if path.name != ".fileexport")
        return sorted(str(path.relative_to(self.root)) for path in found)

    def assertUntouched(self) -> None:
        """The root is as it was at the beginning."""
        self.assertEqual(self.left(), ["d", "d/old"])
        self.assertEqual(self.file.read_bytes(), b"old version")

    def assertRefused(
        self, status: int, target: str, headers: Mapping[str, str], web: HttpHarness | None = None
    ) -> Response:
        """PUT is refused before its body is read, with its client waiting for 100; nothing changed."""
        connection = (web or self.web).connect()
        fields = {"Expect": "100-continue", "Content-Length": "3", **headers}
        connection.send(encode("PUT", target, fields, b""))
        answer = connection.receive()
        self.assertEqual((answer.status, answer.field("Connection")), (status, "close"), target)
        connection.lose()
        self.assertUntouched()
        return answer
