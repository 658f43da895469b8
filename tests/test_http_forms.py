"""Files that a form sends: stored one by one, whatever becomes of the others."""

from __future__ import annotations

import errno

from fileexport.http_forms import MAX_ENDS
from fileexport.paths import printable
from fileexport.web import forms
from tests.helpers import Held
from tests.http_client import Connection, HttpCase, HttpHarness, Response, encode
from tests.watched import FailAt, Later, WatchedCalls

TOKENS = "token-reader-1 may=read\ntoken-writer-1 name=w may=write\ntoken-inner-12 may=read,write under=/d\n"
TYPE = {"Content-Type": "multipart/form-data; boundary=b0undary"}
JSON = {"Accept": "application/json"}
PAGE = {"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Site": "same-origin"}


def file(name: str, content: bytes = b"content", field: str = "file") -> bytes:
    """One file of a form."""
    head = f'--b0undary\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode("utf-8", "surrogateescape") + content + b"\r\n"


def field(name: str, value: str) -> bytes:
    """One field of a form."""
    return f'--b0undary\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


END = b"--b0undary--\r\n"


class FormsCase(HttpCase):
    """Has a directory with a file, and a daemon over it."""

    def setUp(self) -> None:
        super().setUp()
        self.write("d/old", b"old version")
        self.web = self.harness()

    def post(
        self,
        *parts: bytes,
        target: str = "/d/",
        headers: dict[str, str] | None = None,
        web: HttpHarness | None = None,
    ) -> Response:
        """The answer to a form of these parts."""
        web = web or self.web
        return web.request("POST", target, TYPE | (headers or {}), b"".join(parts) + END)

    def begun(self, *pieces: bytes, web: HttpHarness | None = None, **fields: str) -> Connection:
        """A connection on which a form of a megabyte has begun."""
        connection = (web or self.web).connect()
        head = encode("POST", "/d/", TYPE | {"Content-Length": str(1 << 20)} | fields, b"")
        connection.send(head, *pieces)
        return connection

    def files(self) -> dict[str, bytes]:
        """Every file that is there, of staging too, by its path."""
        found = (path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}


class StoringTests(FormsCase):
    """What is stored."""

    def test_several_files(self) -> None:
        """Each file has its name and its content, and is told with its address."""
        answer = self.post(file("a b", b"1"), file("é", b""), file("c", bytes(300_000)), headers=JSON)
        self.assertEqual(answer.status, 201)
        found = [
            {"path": "/d/a b", "url": "/d/a%20b", "size": 1},
            {"path": "/d/é", "url": "/d/%C3%A9", "size": 0},
            {"path": "/d/c", "url": "/d/c", "size": 300_000},
        ]
        self.assertEqual(answer.json(), {"files": found, "failed": []})
        stored = {"d/old": b"old version", "d/a b": b"1", "d/é": b"", "d/c": bytes(300_000)}
        self.assertEqual(self.files(), stored)

    def test_answers(self) -> None:
        """A program reads a line, a browser goes back to the directory."""
        answer = self.post(file("a"))
        self.assertEqual((answer.status, answer.text), (201, "stored 1 file"))
        answer = self.post(file("b"), file("c"))
        self.assertEqual((answer.status, answer.text), (201, "stored 2 files"))
        answer = self.post(file("d"), headers=PAGE)
        self.assertEqual((answer.status, answer.field("Location"), answer.body), (303, "/d/", b""))

    def test_other_places(self) -> None:
        """The root, a directory by its other address, one without its slash, and a prefix."""
        self.assertEqual(self.post(file("a"), target="/").status, 201)
        self.assertEqual(self.post(file("b"), target="/-/files/d/").status, 201)
        self.assertEqual(self.post(file("c"), target="/d").status, 201)
        answer = self.post(file("e"), web=self.harness(prefix="/p"), headers=PAGE)
        self.assertEqual(answer.field("Location"), "/p/d/")
        self.assertEqual(set(self.files()), {"a", "d/b", "d/c", "d/e", "d/old"})

    def test_directories_in_names(self) -> None:
        """A name may be a path below the directory: what is missing of it is made."""
        answer = self.post(file("x/y/1"), file("x/y/2"), file("x/3"), headers=JSON)
        self.assertEqual([one["path"] for one in answer.json()["files"]], ["/d/x/y/1", "/d/x/y/2", "/d/x/3"])
        self.assertEqual(set(self.files()), {"d/x/y/1", "d/x/y/2", "d/x/3", "d/old"})

    def test_file_on_the_way(self) -> None:
        """Below a file nothing can be made: that is what is said of it."""
        for name in ("old/x", "old/x/y"):
            [failed] = self.post(file(name), headers=JSON).json()["failed"]
            sentence = "a part of the path before the name is a file"
            self.assertEqual((failed["status"], failed["error"]), (409, sentence))
        self.assertEqual(set(self.files()), {"d/old"})

    def test_names_that_are_none(self) -> None:
        """A name that leads elsewhere, or may not be, is refused; the other files are stored."""
        bad = (
            "../up",
            "\udcff",
            "/etc/passwd",
            "x/../../up",
            "a//b",
            ".",
            "..",
            "a:b",
            ".fileexport/x",
            "x" * 256,
        )
        answer = self.post(file("first"), *map(file, bad), file("last"), headers=JSON)
        self.assertEqual(answer.status, 400)
        self.assertEqual([one["name"] for one in answer.json()["failed"]], [*map(printable, bad)])
        self.assertEqual({one["status"] for one in answer.json()["failed"]} - {400, 403}, set())
        self.assertEqual(set(self.files()), {"d/first", "d/last", "d/old"})

    def test_no_file(self) -> None:
        """A form where no file was chosen is told so."""
        for parts in ((), (field("conflict", "replace"),), (file("", b""),)):
            answer = self.post(*parts)
            self.assertEqual((answer.status, "choose one" in answer.text), (400, True))

    def test_chunked(self) -> None:
        """A form may come in chunks, byte by byte."""
        body = file("a", b"content") + END
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        connection = self.web.connect()
        connection.send(encode("POST", "/d/", TYPE | {"Transfer-Encoding": "chunked"}, b""))
        connection.send(*(chunks[at : at + 1] for at in range(len(chunks))))
        self.assertEqual(connection.receive().status, 201)
        self.assertEqual(self.files()["d/a"], b"content")


class ConflictTests(FormsCase):
    """A name that is taken."""

    def test_abort(self) -> None:
        """As a rule what is there stays; the other files are stored."""
        for parts in ((), (field("conflict", "abort"),)):
            answer = self.post(*parts, file("old"), file("new"), headers=JSON)
            self.assertEqual(answer.status, 409)
            [failed] = answer.json()["failed"]
            self.assertEqual((failed["name"], failed["status"]), ("old", 409))
            self.assertEqual(self.files(), {"d/old": b"old version", "d/new": b"content"})
            (self.root / "d/new").unlink()

    def test_replace(self) -> None:
        """The new version replaces the old one where that is asked for, never a directory."""
        (self.root / "d/dir").mkdir()
        answer = self.post(field("conflict", "replace"), file("old"), file("dir"), headers=JSON)
        self.assertEqual((answer.status, answer.json()["failed"][0]["name"]), (409, "dir"))
        self.assertEqual(self.files(), {"d/old": b"content"})

    def test_rename(self) -> None:
        """The new file has another name where that is asked for, and is told by it."""
        answer = self.post(field("conflict", "rename"), file("old"), file("old"), file("new"), headers=JSON)
        self.assertEqual(answer.status, 201)
        paths = [one["path"] for one in answer.json()["files"]]
        self.assertEqual(paths, ["/d/old (1)", "/d/old (2)", "/d/new"])
        self.assertEqual(self.files()["d/old"], b"old version")

    def test_rename_at_the_end(self) -> None:
        """A name that is taken while the file comes is passed over, too."""
        body = field("conflict", "rename") + file("old")
        connection = self.web.connect()
        head = encode("POST", "/d/", TYPE | JSON | {"Content-Length": str(len(body + END))}, b"")
        connection.send(head, body[:-4])
        self.write("d/old (1)", b"theirs")
        connection.send(body[-4:] + END)
        [found] = connection.receive().json()["files"]
        self.assertEqual(found["path"], "/d/old (1) (1)")
        self.assertEqual(self.files()["d/old (1)"], b"theirs")
        self.assertEqual(self.files()["d/old (1) (1)"], b"content")

    def test_counts_for_what_is_behind(self) -> None:
        """The choice counts for the files behind it, until another one comes."""
        parts = (
            file("old"),
            field("conflict", "replace"),
            file("old"),
            field("conflict", "abort"),
            file("old"),
        )
        answer = self.post(*parts, headers=JSON)
        self.assertEqual((len(answer.json()["files"]), len(answer.json()["failed"])), (1, 2))

    def test_unknown(self) -> None:
        """A choice that is none is refused; other fields mean nothing."""
        answer = self.post(field("conflict", "ask"), file("new"))
        self.assertEqual((answer.status, "abort, replace, rename" in answer.text), (400, True))
        self.assertEqual(self.post(field("comment", "x"), file("new")).status, 201)


class FailureTests(FormsCase):
    """What is refused, and what is left then."""

    def test_failures_by_type(self) -> None:
        """Both lists are told: as JSON, as a page with a way back, as text."""
        parts = (file("<b>", b""), file("new"), file("old"))
        answer = self.post(*parts, headers=PAGE)
        self.assertEqual(answer.status, 400)
        self.assertIn("&lt;b&gt;", answer.text)
        self.assertIn("Stored 1 file.", answer.text)
        self.assertIn('href="/d/"', answer.text)
        self.assertIn("default-src 'none'", answer.field("Content-Security-Policy"))
        answer = self.post(file("old"), file("more"))
        self.assertEqual(answer.text, "stored 1 file\nERROR - old: it exists already")

    def test_rights(self) -> None:
        """Who may not write stores nothing; who may write needs no other right, and stays in their part."""
        web = self.harness(tokens=TOKENS, local=False)
        for token, target, status in (
            (None, "/d/", 401),
            ("token-reader-1", "/d/", 403),
            ("token-writer-1", "/d/", 201),
            ("token-inner-12", "/d/", 409),
            ("token-inner-12", "/", 404),
        ):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            self.assertEqual(self.post(file("new"), target=target, headers=headers, web=web).status, status)

    def test_cross_site(self) -> None:
        """A form of another site stores nothing."""
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            self.assertEqual(self.post(file("new"), headers=headers).status, 403)
        self.assertEqual(set(self.files()), {"d/old"})

    def test_refused_before_the_body(self) -> None:
        """What can be refused at once is: a client that waits for 100 never gets it."""
        for target, headers, status in (
            ("/none/", TYPE, 404),
            ("/d/old/", TYPE, 404),
            ("/d/", {"Content-Type": "text/plain"}, 415),
            ("/d/", {}, 415),
            ("/d/", {"Content-Type": "multipart/form-data"}, 400),
            ("/d/", TYPE | {"Content-Encoding": "gzip"}, 415),
            ("/d/", TYPE | {"Content-Length": str(1 << 62)}, 507),
        ):
            connection = self.web.connect()
            fields = {"Expect": "100-continue", "Content-Length": "100"} | headers
            connection.send(encode("POST", target, fields, b""))
            self.assertEqual(connection.receive().status, status, target)
        self.assertEqual(set(self.files()), {"d/old"})

    def test_too_large_a_file(self) -> None:
        """A file over the limit fails, and the others are stored."""
        web = self.harness(max_file=10)
        answer = self.post(file("a", bytes(11)), file("b", bytes(10)), headers=JSON, web=web)
        self.assertEqual((answer.status, answer.json()["failed"][0]["status"]), (413, 413))
        self.assertEqual(set(self.files()), {"d/old", "d/b"})

    def test_broken_connection(self) -> None:
        """What was stored stays; the file under way leaves nothing."""
        connection = self.begun(file("whole"), file("part", bytes(100_000)))
        self.assertEqual(set(self.files()) & {"d/whole", "d/part"}, {"d/whole"})
        connection.lose()
        self.assertEqual(set(self.files()), {"d/old", "d/whole"})

    def test_turns(self) -> None:
        """Many files in one piece are stored some at a time, and none for who has left."""
        held = Held()
        connection = self.begun(*[file(str(number)) for number in range(100)], web=self.harness(worker=held))
        counts = []
        for turn in range(6):
            if turn == 3:
                connection.lose()
            held.work()
            counts.append(len(self.files()) - 1)
        self.assertEqual(counts, [0, MAX_ENDS, 2 * MAX_ENDS, *[2 * MAX_ENDS + 1] * 3])

    def test_broken_form(self) -> None:
        """A form that ends before its end, or is none, is refused; what was stored stays."""
        answer = self.web.request("POST", "/d/", TYPE, file("whole") + file("part")[:-4])
        self.assertEqual(answer.status, 400)
        answer = self.web.request("POST", "/d/", TYPE, b"no form")
        self.assertEqual(answer.status, 400)
        answer = self.web.request("POST", "/d/", TYPE, file("more") + b"--b0undary\r\nno header\r\n\r\n")
        self.assertEqual(answer.status, 400)
        self.assertEqual(set(self.files()), {"d/old", "d/whole", "d/more"})

    def test_too_many_files(self) -> None:
        """A form with too many files is broken off by 413."""
        self.patch(forms, "MAX_FILES", 2)
        self.assertEqual(self.post(file("a"), file("b"), file("c")).status, 413)

    def test_busy(self) -> None:
        """A name that somebody writes now is told to be busy; with `rename` it is passed over."""
        other = self.begun(file("new", bytes(10))[:-4])
        answer = self.post(file("new"), headers=JSON)
        self.assertEqual((answer.status, answer.json()["failed"][0]["status"]), (409, 409))
        answer = self.post(field("conflict", "rename"), file("new"), headers=JSON)
        self.assertEqual(answer.json()["files"][0]["path"], "/d/new (1)")
        other.lose()

    def test_full_disk(self) -> None:
        """Wherever the disk is full, the answer says so, and nothing is left but what it names."""
        watch = Later()
        web = self.harness(calls=WatchedCalls(watch))
        for number in range(1, 200):
            watch.then = fail = FailAt(number, errno.ENOSPC)
            answer = self.post(file("a"), file("b"), headers=JSON, web=web)
            watch.then = None
            stored = {one["path"][1:] for one in answer.json().get("files", ())}
            self.assertEqual(set(self.files()), {"d/old", *stored}, fail.reached)
            if not fail.reached:
                break
            self.assertTrue(answer.status == 507 or len(stored) == 2, fail.reached)
            for path in stored:
                (self.root / path).unlink()
        self.assertEqual(answer.status, 201)
        self.assertGreater(number, 10)
