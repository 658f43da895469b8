"""For tests of tus at the HTTP door: what a client of it says."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from tests.http_client import HttpCase, HttpHarness, Response

UPLOADS = "/-/uploads"
CONTENT = b"0123456789"
PART = {"Content-Type": "application/offset+octet-stream"}


def metadata(**values: str | bytes) -> dict[str, str]:
    """The field that says this of a file."""
    pairs = ((key, value.encode() if isinstance(value, str) else value) for key, value in values.items())
    return {"Upload-Metadata": ",".join(f"{key} {b64encode(value).decode()}" for key, value in pairs)}


class TusCase(HttpCase):
    """A daemon's HTTP side, and what a client of tus says to it."""

    def serve(self, **settings: Any) -> HttpHarness:
        self.server = self.harness(**settings)
        return self.server

    def ask(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> Response:
        """Ask as a client of this version does; every answer says which one we speak."""
        fields = {"Tus-Resumable": "1.0.0"} | (headers or {})
        response = self.server.request(method, target, fields, body)
        self.assertEqual(response.field("Tus-Resumable"), "1.0.0")
        return response

    def create(
        self, size: int = 10, headers: dict[str, str] | None = None, query: str = "", name: str = "new"
    ) -> str:
        """Begin an upload; the path of its URL."""
        fields = {"Upload-Length": str(size)} | metadata(filename=name) | (headers or {})
        response = self.ask("POST", UPLOADS + query, fields)
        self.assertEqual(response.status, 201, response.text)
        return response.field("Location")

    def patch(self, url: str, offset: int, content: bytes, headers: dict[str, str] | None = None) -> Response:
        """Send a part."""
        return self.ask("PATCH", url, {"Upload-Offset": str(offset)} | PART | (headers or {}), content)

    def head(self, url: str, headers: dict[str, str] | None = None) -> Response:
        return self.ask("HEAD", url, headers)

    def offset(self, url: str, headers: dict[str, str] | None = None) -> int:
        """How far it has come."""
        response = self.head(url, headers)
        self.assertEqual(response.status, 200)
        return int(response.field("Upload-Offset"))

    def content(self, path: str = "new") -> bytes:
        return (self.root / path).read_bytes()
