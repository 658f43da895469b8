"""tus 1.0 at the HTTP door."""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from email.utils import parsedate_to_datetime
from typing import Any

from fileexport.disk.uploads_store import KEPT_TIME
from fileexport.resumable import IDLE_TIME
from fileexport.web import tus
from tests.http_client import OTHER_UID, encode
from tests.tus_case import CONTENT, PART, UPLOADS, TusCase, metadata

TOKENS = """
the-token-of-alice-1 name=alice
the-token-of-bobby-1 name=bob
the-token-of-rea-der name=reader may=read
"""


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


ALICE = bearer("the-token-of-alice-1")
BOB = bearer("the-token-of-bobby-1")
READER = bearer("the-token-of-rea-der")


class ProtocolTests(TusCase):
    """What the protocol's text promises."""

    def setUp(self) -> None:
        super().setUp()
        self.serve()

    def test_options(self) -> None:
        """OPTIONS says what is spoken, to everybody and about every URL, whatever version it names."""
        for target in (UPLOADS, f"{UPLOADS}/any"):
            for version in ({}, {"Tus-Resumable": "0.2.2"}):
                response = self.server.request("OPTIONS", target, version)
                self.assertEqual(response.status, 204)
                self.assertEqual(response.field("Tus-Version"), "1.0.0")
                self.assertEqual(
                    response.field("Tus-Extension"),
                    "creation,creation-with-upload,checksum,expiration,termination",
                )
                self.assertEqual(response.field("Tus-Checksum-Algorithm"), "sha1,sha256,sha512,md5")
                self.assertEqual(response.field("Tus-Max-Size"), str(1 << 40))

    def test_course(self) -> None:
        """Begun, asked, sent in parts, done."""
        url = self.create()
        head = self.head(url)
        self.assertEqual((head.field("Upload-Offset"), head.field("Upload-Length")), ("0", "10"))
        self.assertEqual(head.field("Cache-Control"), "no-store")
        self.assertEqual(head.field("Upload-Metadata"), metadata(filename="new")["Upload-Metadata"])
        for start in range(0, 10, 4):
            response = self.patch(url, start, CONTENT[start : start + 4])
            self.assertEqual((response.status, response.body), (204, b""))
            self.assertEqual(response.field("Upload-Offset"), str(min(10, start + 4)))
            self.assertEqual(self.offset(url), min(10, start + 4))
        self.assertEqual(self.content(), CONTENT)
        self.assertEqual(os.listdir(self.root / ".fileexport"), [])

    def test_version(self) -> None:
        """Another version, and none, is refused with ours, and nothing is done."""
        url = self.create()
        for version in ("0.2.2", "1.0.1", "", "1.0.0, 1.0.0"):
            for method, target in (("POST", UPLOADS), ("HEAD", url), ("PATCH", url), ("DELETE", url)):
                with self.subTest((version, method)):
                    fields = {"Tus-Resumable": version, "Upload-Length": "3", "Upload-Offset": "0"} | PART
                    response = self.ask(method, target, fields)
                    self.assertEqual(response.status, 412)
                    self.assertEqual(response.field("Tus-Version"), "1.0.0")
        self.assertEqual(self.server.request("DELETE", url).status, 412)
        self.assertEqual(self.offset(url), 0)

    def test_method_override(self) -> None:
        """Who cannot send PATCH or DELETE says so in a field; a GET never becomes anything else."""
        url = self.create()
        fields = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0"} | PART
        self.assertEqual(self.ask("POST", url, fields, CONTENT[:4]).status, 204)
        head = self.ask("POST", url, {"X-HTTP-Method-Override": "head"})
        self.assertEqual((head.status, head.field("Upload-Offset")), (200, "4"))
        self.assertEqual(self.ask("POST", url, {"X-HTTP-Method-Override": "DELETE"}).status, 204)
        self.assertEqual(self.head(url).status, 404)
        fields = {"X-HTTP-Method-Override": "POST", "Upload-Length": "1"}
        self.assertEqual(self.ask("GET", UPLOADS, fields).json(), [])
        self.assertEqual(self.ask("GET", UPLOADS).json(), [])

    def test_methods(self) -> None:
        """What these URLs cannot is 405 with what they can, also where a field asks for it."""
        url = self.create()
        for method, target in (("GET", url), ("PUT", url), ("PATCH", UPLOADS), ("DELETE", UPLOADS)):
            with self.subTest((method, target)):
                response = self.ask(method, target)
                self.assertEqual(response.status, 405)
                self.assertNotIn(method, response.field("Allow").split(", "))
        for meant in ("POST", "GET", "BREW"):
            response = self.ask("POST", url, {"X-HTTP-Method-Override": meant})
            self.assertEqual(
                (response.status, response.field("Allow")), (405, "OPTIONS, HEAD, PATCH, DELETE")
            )
        self.assertEqual(self.ask("POST", UPLOADS, {"X-HTTP-Method-Override": "PATCH"}).status, 405)

    def test_wrong_offset(self) -> None:
        """Another offset is a conflict, and says where it goes on."""
        url = self.create()
        self.patch(url, 0, CONTENT[:4])
        for offset in (0, 3, 5, 10, 10**30):
            response = self.patch(url, offset, b"x")
            self.assertEqual((response.status, response.field("Upload-Offset")), (409, "4"))
        for value in ("", "-1", "four", "4.0"):
            self.assertEqual(self.ask("PATCH", url, {"Upload-Offset": value} | PART, b"x").status, 400)
        self.assertEqual(self.ask("PATCH", url, PART, b"x").status, 400)
        self.assertEqual(self.offset(url), 4)

    def test_content_type(self) -> None:
        """A part has the protocol's type and no coding."""
        url = self.create()
        for kind in ({}, {"Content-Type": "application/octet-stream"}, PART | {"Content-Encoding": "gzip"}):
            fields = {"Upload-Offset": "0"} | kind
            self.assertEqual(self.ask("PATCH", url, fields, CONTENT).status, 415)
            self.assertEqual(self.ask("POST", UPLOADS, {"Upload-Length": "10"} | kind, CONTENT).status, 415)
        self.assertEqual(self.offset(url), 0)

    def test_too_much(self) -> None:
        """More than was announced is refused: at the head where that says so, else when it comes."""
        url = self.create()
        self.assertEqual(self.patch(url, 0, CONTENT + b"x").status, 413)
        self.assertEqual(self.offset(url), 0)
        fields = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Transfer-Encoding": "chunked"} | PART
        head = encode("PATCH", url, fields, b"")
        connection = self.server.connect()
        connection.send(head, b"4\r\n0123\r\n", b"7\r\n456789x\r\n", b"0\r\n\r\n")
        self.assertEqual(connection.receive().status, 413)
        self.assertEqual(self.offset(url), 4)
        self.assertEqual(self.patch(url, 4, CONTENT[4:]).status, 204)
        self.assertEqual(self.content(), CONTENT)

    def test_chunked(self) -> None:
        """A part may come without its length."""
        url = self.create()
        fields = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Transfer-Encoding": "chunked"} | PART
        connection = self.server.connect()
        connection.send(encode("PATCH", url, fields, b""), b"4\r\n0123\r\n", b"6\r\n456789\r\n0\r\n\r\n")
        self.assertEqual(connection.receive().status, 204)
        self.assertEqual(self.content(), CONTENT)

    def test_unknown(self) -> None:
        """What does not exist is not found, and has no offset."""
        for method in ("HEAD", "PATCH", "DELETE"):
            response = self.ask(method, f"{UPLOADS}/nothing", {"Upload-Offset": "0"} | PART)
            self.assertEqual((response.status, response.fields("Upload-Offset")), (404, []))

    def test_expiration(self) -> None:
        """Until when it is kept is said while it is not done, and true."""
        url = self.create()
        for response in (self.head(url), self.patch(url, 0, b"0")):
            until = parsedate_to_datetime(response.field("Upload-Expires")).timestamp()
            self.assertEqual(until, KEPT_TIME)
        self.server.clock.advance(IDLE_TIME)
        self.server.clock.advance(KEPT_TIME - IDLE_TIME)
        for method in ("HEAD", "PATCH", "DELETE"):
            response = self.ask(method, url, {"Upload-Offset": "1"} | PART)
            self.assertEqual((response.status, response.fields("Upload-Offset")), (410, []))
        self.assertEqual(self.ask("GET", UPLOADS).json(), [])
        url = self.create(name="other")
        done = self.patch(url, 0, CONTENT)
        self.assertEqual([done.fields("Upload-Expires"), self.head(url).fields("Upload-Expires")], [[], []])

    def test_termination(self) -> None:
        """What is deleted is gone, with what came of it; a file that is there stays."""
        url = self.create()
        self.patch(url, 0, CONTENT[:4])
        self.assertEqual(self.ask("DELETE", url).status, 204)
        self.assertEqual([self.head(url).status, self.ask("DELETE", url).status], [404, 404])
        self.assertEqual(os.listdir(self.root / ".fileexport"), [])
        url = self.create()
        self.patch(url, 0, CONTENT)
        self.assertEqual([self.ask("DELETE", url).status, self.head(url).status], [204, 404])
        self.assertEqual(self.content(), CONTENT)

    def test_checksum(self) -> None:
        """A part that is not what its checksum says does not count; of an unknown one nothing is read."""
        url = self.create()
        for name in tus.ALGORITHMS:
            algorithm = name.decode()
            wrong = f"{algorithm} {b64encode(hashlib.new(algorithm, b'other').digest()).decode()}"
            response = self.patch(url, 0, CONTENT[:4], {"Upload-Checksum": wrong})
            self.assertEqual((response.status, response.reason), (460, "Checksum Mismatch"))
            self.assertEqual(self.offset(url), 0)
        for wrong in ("crc32 AAAA", "SHA1 AAAA", "sha1 ?"):
            self.assertEqual(self.patch(url, 0, CONTENT[:4], {"Upload-Checksum": wrong}).status, 400)
        self.assertEqual(self.offset(url), 0)
        for start in (0, 5):
            part = CONTENT[start : start + 5]
            right = f"sha1 {b64encode(hashlib.sha1(part).digest()).decode()}"
            self.assertEqual(self.patch(url, start, part, {"Upload-Checksum": right}).status, 204)
        self.assertEqual(self.content(), CONTENT)

    def test_errors(self) -> None:
        """They are a line of text, or what the client accepts."""
        response = self.ask("HEAD", f"{UPLOADS}/nothing")
        self.assertEqual(response.status, 404)
        response = self.ask("DELETE", f"{UPLOADS}/nothing")
        self.assertEqual(response.text, "ERROR - there is no such file or directory")
        response = self.ask("DELETE", f"{UPLOADS}/nothing", {"Accept": "application/json"})
        self.assertEqual(response.json()["status"], 404)


class ConnectionTests(TusCase):
    """Connections that break, hang, and come again."""

    def setUp(self) -> None:
        super().setUp()
        self.serve()

    def sending(self, url: str, offset: int, content: bytes, headers: dict[str, str] | None = None) -> Any:
        """A connection on which all that is missing is announced, and this much of it sent."""
        announced = {"Content-Length": str(10 - offset), "Upload-Offset": str(offset)}
        fields = {"Tus-Resumable": "1.0.0"} | announced | PART | (headers or {})
        connection = self.server.connect()
        connection.send(encode("PATCH", url, fields, b"") + content)
        connection.turn()
        return connection

    def test_broken(self) -> None:
        """What came before the break counts."""
        url = self.create()
        self.sending(url, 0, CONTENT[:4]).lose()
        self.assertEqual(self.offset(url), 4)
        self.sending(url, 4, CONTENT[4:7]).lose()
        self.assertEqual(self.patch(url, 7, CONTENT[7:]).status, 204)
        self.assertEqual(self.content(), CONTENT)

    def test_broken_creation(self) -> None:
        """Of a request that began the upload nobody has the address: nothing is left, its name is free."""
        asked = {"Upload-Length": "10"} | metadata(filename="new") | PART
        fields = {"Tus-Resumable": "1.0.0", "Content-Length": "10"} | asked
        connection = self.server.connect()
        connection.send(encode("POST", UPLOADS, fields, b"") + b"012")
        connection.lose()
        self.assertEqual(self.ask("GET", UPLOADS).json(), [])
        self.assertEqual(self.ask("POST", UPLOADS, asked, CONTENT).status, 201)
        self.assertEqual(self.content(), CONTENT)

    def test_path_that_is_written(self) -> None:
        """Who would have to wait learns it where it asks, before it sends its content."""
        first, second = self.create(), self.create()
        writing = self.sending(first, 0, CONTENT[:4])
        self.assertEqual([self.offset(first), self.head(second).status], [4, 423])
        fields = {"Upload-Length": "10"} | metadata(filename="new")
        self.assertEqual(self.ask("POST", UPLOADS, fields).status, 423)
        writing.lose()

    def test_broken_with_checksum(self) -> None:
        """What could not be checked does not count."""
        url = self.create()
        self.sending(url, 0, CONTENT[:4], {"Upload-Checksum": "sha1 AAAA"}).lose()
        self.assertEqual(self.offset(url), 0)

    def test_coming_again(self) -> None:
        """Who comes again breaks the connection that hangs, and goes on behind its last byte."""
        url = self.create()
        hanging = self.sending(url, 0, CONTENT[:4])
        self.assertEqual(self.offset(url), 4)
        again = self.sending(url, 4, b"")
        for _ in range(3):
            hanging.turn()
            again.turn()
        self.assertTrue(hanging.aborted)
        again.send(CONTENT[4:])
        self.assertEqual(again.receive().status, 204)
        self.assertEqual(self.content(), CONTENT)

    def test_two_of_one_name(self) -> None:
        """Two uploads to one path: the second has to wait, and finds a file there then."""
        first, second = self.create(), self.create()
        self.patch(first, 0, CONTENT[:4])
        locked = self.patch(second, 0, b"x" * 10)
        self.assertEqual(locked.status, 423)
        self.assertIn("writing this path", locked.text)
        self.assertEqual(locked.field("Retry-After"), "2")
        self.patch(first, 4, CONTENT[4:])
        self.assertEqual(self.patch(second, 0, b"x" * 10).status, 409)
        self.assertEqual(self.content(), CONTENT)

    def test_malformed_body(self) -> None:
        """A body that cannot be read counts as far as it came."""
        url = self.create()
        fields = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Transfer-Encoding": "chunked"} | PART
        connection = self.server.connect()
        connection.send(encode("PATCH", url, fields, b""), b"4\r\n0123\r\n", b"zz\r\n")
        self.assertEqual(connection.receive().status, 400)
        self.assertEqual(self.offset(url), 4)


class RightsTests(TusCase):
    """Who may, and who sees what."""

    def setUp(self) -> None:
        super().setUp()
        self.serve(tokens=TOKENS, owner=OTHER_UID)

    def test_rights(self) -> None:
        """Only who may write begins, sees and changes uploads."""
        for fields, status in (({}, 401), (READER, 403)):
            self.assertEqual(self.ask("POST", UPLOADS, {"Upload-Length": "1"} | fields).status, status)
            for method in ("HEAD", "PATCH", "DELETE"):
                self.assertEqual(self.ask(method, f"{UPLOADS}/x", fields).status, status)
            self.assertEqual(self.ask("GET", UPLOADS, fields).status, status)
        self.assertEqual(self.ask("OPTIONS", UPLOADS).status, 204)

    def test_owners(self) -> None:
        """An upload is its owner's: for everybody else there is none."""
        url = self.create(headers=ALICE)
        self.patch(url, 0, CONTENT[:4], ALICE)
        self.assertEqual(self.head(url, BOB).status, 404)
        self.assertEqual(self.patch(url, 4, CONTENT[4:], BOB).status, 404)
        self.assertEqual(self.ask("DELETE", url, BOB).status, 404)
        self.assertEqual(self.ask("GET", UPLOADS, BOB).json(), [])
        self.assertEqual(self.patch(url, 4, CONTENT[4:], ALICE).status, 204)
        self.assertEqual(self.content(), CONTENT)

    def test_cross_site(self) -> None:
        """A page of another site begins, changes and deletes nothing."""
        url = self.create(headers=ALICE)
        for fields in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            fields |= ALICE
            self.assertEqual(self.ask("POST", UPLOADS, {"Upload-Length": "0"} | fields).status, 403)
            self.assertEqual(self.patch(url, 0, CONTENT, fields).status, 403)
            self.assertEqual(self.ask("DELETE", url, fields).status, 403)
            fields["X-HTTP-Method-Override"] = "DELETE"
            self.assertEqual(self.ask("POST", url, fields).status, 403)
        self.assertEqual(self.offset(url, ALICE), 0)


class PrefixTests(TusCase):
    """Behind a reverse proxy with a path of its own."""

    def test_location(self) -> None:
        """The addresses that are given have the proxy's prefix."""
        self.serve(prefix="/files")
        url = self.create()
        self.assertTrue(url.startswith("/files/-/uploads/"))
        [found] = self.ask("GET", UPLOADS).json()
        self.assertEqual(found["url"], url)
