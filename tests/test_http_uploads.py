"""PUT and DELETE of a file: what is stored, what is answered, what is refused before a byte is read."""

from __future__ import annotations

import errno
import hashlib
import os
from base64 import b64encode
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any

from fileexport.disk.calls import Calls
from tests.http_client import NOW, Connection, Response, encode
from tests.http_uploads_case import TOKENS, UploadsCase, bearer, chunked
from tests.watched import Later, WatchedCalls

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BIG = bytes(range(256)) * 2048


class PutTests(UploadsCase):
    """What is stored, and what is answered."""

    def test_new(self) -> None:
        """A new file is 201, with its address and the entity tag that readers get."""
        answer = self.put("/d/a%20b")
        self.assertEqual((answer.status, answer.body), (201, b""))
        self.assertEqual(answer.field("Location"), "/d/a%20b")
        self.assertEqual(answer.field("ETag"), self.etag("/d/a%20b"))
        self.assertEqual((self.root / "d/a b").read_bytes(), b"new")
        self.assertEqual(answer.fields("Repr-Digest"), [])

    def test_replaced(self) -> None:
        """A file that was there is 204, in one step, and keeps its mode."""
        self.file.chmod(0o640)
        before = self.etag()
        answer = self.put("/d/old")
        self.assertEqual((answer.status, answer.fields("Location")), (204, []))
        self.assertEqual(answer.field("ETag"), self.etag())
        self.assertNotEqual(answer.field("ETag"), before)
        self.assertEqual(self.file.read_bytes(), b"new")
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o640)

    def test_any_size(self) -> None:
        """Nothing at all, by its length or without one; a large one, in chunks, too."""
        self.assertEqual(self.put("/none", b"").status, 201)
        self.assertEqual(self.put("/nought", b"", {"Content-Length": "0"}).status, 201)
        self.assertEqual(((self.root / "none").read_bytes(), (self.root / "nought").read_bytes()), (b"", b""))
        self.assertEqual(self.put("/big", BIG).status, 201)
        self.assertEqual((self.root / "big").read_bytes(), BIG)
        connection = self.web.connect()
        connection.send(chunked("/chunks", *[BIG] * 5) + b"0\r\n\r\n" + encode("GET", "/d/old", {}, b""))
        self.assertEqual(connection.receive().status, 201)
        self.assertEqual((self.root / "chunks").read_bytes(), BIG * 5)
        self.assertEqual(connection.receive().text, "old version")

    def test_names(self) -> None:
        """Names of our own paths go through /-/files/, and every address leads back to its file."""
        web = self.harness(prefix="/files")
        for target, location in (
            ("/-/files/list", "/files/-/files/list"),
            ("/-/files/d/list", "/files/d/list"),
            ("/d/%C3%A4", "/files/d/%C3%A4"),
        ):
            answer = self.put(target, target.encode(), web=web)
            self.assertEqual((answer.status, answer.field("Location")), (201, location))
            found = web.get(location.removeprefix("/files"))
            self.assertEqual(found.body, target.encode())
        self.assertEqual(self.put("/list").status, 405)

    def test_parents(self) -> None:
        """Directories that are missing are made when that is asked for, and only then."""
        answer = self.put("/x/y/z")
        self.assertEqual(answer.status, 409)
        self.assertIn("?parents", answer.text)
        self.assertUntouched()
        self.assertEqual(self.put("/x/y/z?parents").status, 201)
        self.assertEqual(self.put("/x/y/z?parents", b"again").status, 204)
        self.assertEqual((self.root / "x/y/z").read_bytes(), b"again")
        for target in ("/d/old/below", "/d/old/below/it"):
            for query in ("", "?parents"):
                answer = self.put(target + query)
                sentence = "ERROR - a part of the path before the name is a file"
                self.assertEqual((answer.status, answer.text), (409, sentence), target + query)

    def test_parents_flag(self) -> None:
        """That directories are to be made is said as every flag is."""
        for value, status in (("0", 409), ("no", 409), ("2", 400), ("1", 201), ("", 204), ("yes", 204)):
            self.assertEqual(self.put(f"/x/y?parents={value}").status, status, value)

    def test_continue(self) -> None:
        """A client that waits for 100 gets it when all else is clear."""
        connection = self.web.connect()
        connection.send(encode("PUT", "/new", {"Expect": "100-continue", "Content-Length": "3"}, b""))
        self.assertEqual(connection.settle(), CONTINUE)
        connection.send(b"abc")
        self.assertEqual(connection.receive().status, 201)

    def test_link_is_replaced(self) -> None:
        """A link gives its name to the file; what it led to is not written."""
        (self.root / "link").symlink_to("d/old")
        self.assertEqual(self.put("/link").status, 204)
        self.assertFalse((self.root / "link").is_symlink())
        self.assertEqual(self.file.read_bytes(), b"old version")
        (self.root / "lost").symlink_to("nowhere")
        self.assertEqual(self.put("/lost", headers={"If-None-Match": "*"}).status, 412)
        self.assertEqual(self.put("/lost").status, 204)

    def test_only_write(self) -> None:
        """Who may only write needs no more, conditions included."""
        web = self.harness(tokens=TOKENS)
        conditional = {"If-None-Match": "*", **bearer("writer")}
        answers = [self.put("/n", headers=conditional, web=web) for _ in range(2)]
        self.assertEqual([answer.status for answer in answers], [201, 412])
        self.assertEqual(self.put("/n", headers={"If-Match": "*", **bearer("writer")}, web=web).status, 204)

    def test_under(self) -> None:
        """Who sees a part of the root writes there only."""
        web = self.harness(tokens=TOKENS)
        self.assertEqual(self.put("/d/n", headers=bearer("inner"), web=web).status, 201)
        self.assertEqual(self.put("/n", headers=bearer("inner"), web=web).status, 409)
        self.assertEqual(self.put("/n?parents", headers=bearer("inner"), web=web).status, 409)
        self.assertFalse((self.root / "n").exists())

    def test_busy(self) -> None:
        """While one writes a name nobody else does, and is told who."""
        first = self.web.connect()
        first.send(encode("PUT", "/d/old", {"Content-Length": "9"}, b"half"))
        answer = self.put("/d/old")
        self.assertEqual(answer.status, 409)
        first.send(b" more")
        self.assertEqual(first.receive().status, 204)
        self.assertEqual(self.file.read_bytes(), b"half more")


class RefusalTests(UploadsCase):
    """What is refused before the first byte."""

    def test_directories(self) -> None:
        """No file takes a directory's place."""
        for target in ("/d", "/d/", "/", "/new/", "/-/files", "/-/files/", "/d?parents"):
            self.assertRefused(409, target, {})
        web = self.harness(dirs=("d",))
        self.assertRefused(409, "/d", {}, web)
        self.assertRefused(409, "/elsewhere", {}, web)

    def test_parts_and_codings(self) -> None:
        """Neither a part of a file nor content in a coding is taken."""
        self.assertRefused(400, "/n", {"Content-Range": "bytes 0-2/5"})
        self.assertRefused(415, "/n", {"Content-Encoding": "gzip"})

    def test_size(self) -> None:
        """A file beyond the limit is 413, announced or not; one of exactly that size is taken."""
        web = self.harness(max_file=10)
        self.assertRefused(413, "/n", {"Content-Length": "11"}, web)
        connection = web.connect()
        connection.send(chunked("/n", b"123456", b"78901"))
        self.assertEqual(connection.receive().status, 413)
        connection.lose()
        self.assertUntouched()
        self.assertEqual(self.put("/n", b"x" * 10, web=web).status, 201)

    def test_room(self) -> None:
        """A file that has no room is 507."""

        class Full(Calls):
            def fstatvfs(self, descriptor: int) -> os.statvfs_result:
                found = list(super().fstatvfs(descriptor))
                found[3] = found[4] = found[2] // 100 + (1 << 20) // found[1]
                return os.statvfs_result(found)

        web = self.harness(calls=Full())
        self.assertRefused(507, "/n", {"Content-Length": str(1 << 40)}, web)

    def test_names(self) -> None:
        """A name that may not be created is refused, and so is what is ours or hidden."""
        self.assertRefused(400, "/d/a%3Ab", {})
        self.assertRefused(400, "/d/%2e%2e/n", {})
        self.assertRefused(403, "/.fileexport/n", {})
        self.assertRefused(403, "/.hidden", {})
        self.assertRefused(400, "/d/" + "x" * 256, {})

    def test_rights(self) -> None:
        """Without the right to write: 401 for who has no token, 403 for who has one."""
        web = self.harness(tokens=TOKENS, local=False)
        self.assertRefused(401, "/n", {}, web)
        for name in ("reader", "deleter"):
            self.assertRefused(403, "/n", bearer(name), web)

    def test_other_sites(self) -> None:
        """No other site's page puts a file here."""
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            self.assertRefused(403, "/n", headers)
            answer = self.web.request("DELETE", "/d/old", headers)
            self.assertEqual(answer.status, 403)
        self.assertUntouched()


class ConditionTests(UploadsCase):
    """If-Match, If-None-Match, If-Unmodified-Since."""

    def test_table(self) -> None:
        """Each condition, for a file that is there and for one that is not."""
        etag = self.etag()
        before, at, after = (formatdate(NOW - 1000 + shift, usegmt=True) for shift in (-1, 0, 1))
        table = [
            ("If-None-Match", "*", 412, 201),
            ("If-None-Match", etag, 412, 201),
            ("If-None-Match", '"other"', 204, 201),
            ("If-None-Match", "junk", 412, 412),
            ("If-Match", "*", 204, 412),
            ("If-Match", f'"other", {etag}', 204, 412),
            ("If-Match", '"other"', 412, 412),
            ("If-Match", f"W/{etag}", 412, 412),
            ("If-Unmodified-Since", before, 412, 201),
            ("If-Unmodified-Since", at, 204, 201),
            ("If-Unmodified-Since", after, 204, 201),
            ("If-Unmodified-Since", "junk", 204, 201),
        ]
        for name, value, there, missing in table:
            if there == 412:
                self.assertRefused(412, "/d/old", {name: value})
            if missing == 412:
                self.assertRefused(412, "/d/new", {name: value})
        for number, (name, value, there, missing) in enumerate(table):
            status = self.file.stat()
            answer = self.put(f"/d/new{number}", headers={name: value})
            self.assertEqual(answer.status, missing, (name, value))
            if there == 204:
                current = {name: value.replace(etag, self.etag())}
                self.assertEqual(self.put("/d/old", headers=current).status, 204, current)
                os.utime(self.file, ns=(status.st_mtime_ns, status.st_mtime_ns))

    def test_changed_meanwhile(self) -> None:
        """Who changed the file while the new one came keeps his version."""
        self.write("d/dated", b"old version")
        cases: list[tuple[str, dict[str, str]]] = [
            ("/d/old", {"If-Match": self.etag()}),
            ("/d/dated", {"If-Unmodified-Since": formatdate(NOW - 1000, usegmt=True)}),
            ("/d/new", {"If-None-Match": "*"}),
            ("/d/newer", {"If-None-Match": '"a", "b"'}),
        ]
        for target, headers in cases:
            with self.subTest(target, headers=headers):
                connection = self.web.connect()
                connection.send(encode("PUT", target, {"Content-Length": "6", **headers}, b"mine"))
                connection.settle()
                self.write(target[1:], b"theirs", mtime=NOW - 10)
                connection.send(b"!!")
                answer = connection.receive()
                # A file that has none of the tags may be replaced.
                expected = (204, b"mine!!") if target == "/d/newer" else (412, b"theirs")
                self.assertEqual((answer.status, (self.root / target[1:]).read_bytes()), expected)

    def test_gone_meanwhile(self) -> None:
        """A file that was to be replaced and is gone is not made anew."""
        connection = self.web.connect()
        connection.send(encode("PUT", "/d/old", {"Content-Length": "2", "If-Match": "*"}, b"m"))
        connection.settle()
        self.file.unlink()
        connection.send(b"!")
        self.assertEqual(connection.receive().status, 412)
        self.assertEqual(self.left(), ["d"])

    def test_nothing_is_made_before(self) -> None:
        """Where the condition does not hold, no directory is made on the way."""
        self.assertRefused(412, "/x/y?parents", {"If-Match": "*"})


class DigestTests(UploadsCase):
    """Content-Digest and Repr-Digest (RFC 9530)."""

    def digest(self, name: str, body: bytes) -> str:
        """The value of a digest field."""
        value = b64encode(hashlib.new(name.replace("-", ""), body).digest()).decode()
        return f"{name}=:{value}:"

    def test_right(self) -> None:
        """A digest that was sent and one that is wanted stand in the answer, for new and replaced files."""
        for name in ("sha-256", "sha-512"):
            for field in ("Content-Digest", "Repr-Digest"):
                for status in (201, 204):
                    target = f"/{name}{field}"
                    answer = self.put(target, BIG, {field: self.digest(name, BIG)})
                    self.assertEqual(answer.status, status)
                    self.assertEqual(answer.field("Repr-Digest"), self.digest(name, BIG))
        answer = self.put("/wanted", BIG, {"Want-Repr-Digest": "sha-256=1"})
        self.assertEqual(answer.field("Repr-Digest"), self.digest("sha-256", BIG))

    def test_wrong(self) -> None:
        """Content that is not what its digest says is 400, and nothing is stored."""
        for field in ("Content-Digest", "Repr-Digest"):
            for target in ("/d/old", "/new"):
                answer = self.put(target, b"new", {field: self.digest("sha-256", b"other")})
                self.assertEqual(answer.status, 400)
                self.assertUntouched()

    def test_unreadable(self) -> None:
        """A digest that cannot be read is 400 before the body; one that nobody knows is passed over."""
        self.assertRefused(400, "/new", {"Content-Digest": "sha-256=abc"})
        self.assertEqual(self.put("/new", headers={"Repr-Digest": "md5=:AAAA:"}).status, 201)


class BrokenTests(UploadsCase):
    """A body that does not come to its end leaves nothing."""

    def begin(self, length: int = 100) -> Connection:
        """An upload of which half is there."""
        connection = self.web.connect()
        connection.send(encode("PUT", "/d/old", {"Content-Length": str(length)}, b"half of it"))
        connection.settle()
        return connection

    def test_peer_leaves(self) -> None:
        """Who leaves in the middle leaves nothing, and the name is free at once."""
        self.begin().lose()
        self.assertUntouched()
        self.assertEqual(self.put("/d/old").status, 204)

    def test_silent(self) -> None:
        """Nor does who stops sending."""
        connection = self.begin()
        for _ in range(70):
            self.web.clock.advance(1)
        self.assertEqual(connection.receive().status, 408)
        self.assertUntouched()

    def test_malformed(self) -> None:
        """Nor does a body that cannot be read."""
        connection = self.web.connect()
        connection.send(chunked("/d/old", b"half") + b"zz\r\n")
        self.assertEqual(connection.receive().status, 400)
        self.assertUntouched()

    def test_stop(self) -> None:
        """Nor does a daemon that stops before it is there."""
        self.begin()
        self.web.site.break_all()
        self.web.clock.advance(0)
        self.assertUntouched()

    def test_disk(self) -> None:
        """Whatever the disk says, at whatever call, the old version stays, and nothing is left."""
        for call in ("write", "rename", "fstatvfs"):
            for number, status in ((errno.ENOSPC, 507), (errno.EIO, 500), (errno.EDQUOT, 507)):
                watch = Later()
                web = self.harness(calls=WatchedCalls(watch))
                watch.then = _fail_at(call, number)
                self.assertEqual(self.put("/d/old", BIG, web=web).status, status, call)
                self.assertUntouched()
        self.flushLoggedErrors(OSError)


def _fail_at(call: str, number: int) -> Callable[..., None]:
    def fail(name: str, *args: object) -> None:
        if name == call:
            raise OSError(number, os.strerror(number))

    return fail


class DeleteTests(UploadsCase):
    """DELETE of a file by its own path."""

    def delete(self, target: str, headers: Mapping[str, str] | None = None) -> Response:
        """What DELETE answers."""
        return self.web.request("DELETE", target, headers)

    def test_file(self) -> None:
        """A file is gone, by both of its paths; a second time it is not there."""
        self.write("list", b"x")
        for target in ("/d/old", "/-/files/list"):
            answer = self.delete(target)
            self.assertEqual((answer.status, answer.body), (204, b""))
            self.assertEqual(self.delete(target).status, 404)
        self.assertEqual(self.left(), ["d"])

    def test_link(self) -> None:
        """A link goes, not what it leads to."""
        (self.root / "link").symlink_to("d/old")
        self.assertEqual(self.delete("/link").status, 204)
        self.assertUntouched()

    def test_directory(self) -> None:
        """A directory is refused, however it is spelled."""
        for target in ("/d", "/d/", "/", "/-/files/d"):
            self.assertEqual(self.delete(target).status, 409, target)
        self.assertUntouched()

    def test_conditions(self) -> None:
        """A file in another state stays; one that is not there matches nothing."""
        for headers in (
            {"If-Match": '"other"'},
            {"If-None-Match": "*"},
            {"If-Unmodified-Since": formatdate(NOW - 2000, usegmt=True)},
        ):
            self.assertEqual(self.delete("/d/old", headers).status, 412)
            self.assertUntouched()
        self.assertEqual(self.delete("/d/none", {"If-Match": "*"}).status, 412)
        self.assertEqual(self.delete("/d", {"If-Match": "*"}).status, 409)
        self.assertEqual(self.delete("/d/old", {"If-Match": self.etag()}).status, 204)

    def test_conditions_at_the_end(self) -> None:
        """Between the look at its state and its end nobody writes a file that goes under a condition."""
        watch = Later()
        web = self.harness(calls=WatchedCalls(watch))
        met: list[int] = []

        def write(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if name == "unlink":
                watch.then = None
                met.append(self.put("/d/old", b"precious", web=web).status)

        headers = {"If-Match": self.etag()}
        watch.then = write
        self.assertEqual(web.request("DELETE", "/d/old", headers).status, 204)
        self.assertEqual((met, self.left()), ([409], ["d"]))

    def test_conditions_while_it_is_written(self) -> None:
        """Where somebody writes it now a conditional removal has to wait; another one has not."""
        tag = {"If-Match": self.etag()}
        writing = self.web.connect()
        writing.send(encode("PUT", "/d/old", {"Content-Length": "5"}, b"new"))
        self.assertEqual([self.delete("/d/old", tag).status, self.delete("/d/old").status], [409, 204])
        writing.lose()
        self.assertEqual(self.left(), ["d"])

    def test_rights(self) -> None:
        """It needs the right to delete, and no other, also where it has conditions."""
        web = self.harness(tokens=TOKENS, local=False)
        statuses = [
            web.request("DELETE", "/d/old", headers).status
            for headers in ({}, bearer("reader"), bearer("writer"), {"If-Match": "*", **bearer("deleter")})
        ]
        self.assertEqual(statuses, [401, 403, 403, 204])

    def test_hidden(self) -> None:
        """What a caller does not see does not exist."""
        self.write(".secret", b"x")
        self.assertIn(self.delete("/.secret").status, (403, 404))
        self.assertTrue((self.root / ".secret").exists())
