"""What is done with the entries of a directory: making, moving, removing, packing."""

from __future__ import annotations

import io
import os
import zipfile
from urllib.parse import quote

from fileexport import http_entries
from fileexport.web import forms
from tests.http_client import HttpCase, HttpHarness, Response, encode

TOKENS = "\n".join(
    (
        "token-reader-1 may=read",
        "token-writer-1 may=write",
        "token-delete-1 may=delete",
        "token-inner-12 under=/d",
    )
)
TYPE = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Accept": "application/json"}
PAGE = {"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Site": "same-origin"}
ODD = os.fsdecode(b"\xff & <b>\n%41")


class EntriesCase(HttpCase):
    """Has some files, and a daemon over them."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("d/a", "d/b", "d/sub/c", "other/b"):
            self.write(name, name.encode())
        self.web = self.harness()

    def post(
        self,
        target: str,
        *fields: tuple[str, str],
        headers: dict[str, str] | None = None,
        web: HttpHarness | None = None,
    ) -> Response:
        """The answer to an urlencoded form."""
        body = "&".join(f"{name}={quote(os.fsencode(value), safe='')}" for name, value in fields)
        return (web or self.web).request("POST", target, TYPE | (headers or {}), body.encode())

    def names(self) -> set[str]:
        """Everything that is there; directories with a slash."""
        found = (path for path in self.root.rglob("*") if ".fileexport" not in path.parts)
        return {str(path.relative_to(self.root)) + "/" * path.is_dir() for path in found}


def entries(*names: str) -> list[tuple[str, str]]:
    """Fields that select these names."""
    return [("entry", quote(os.fsencode(name), safe="")) for name in names]


class NewTests(EntriesCase):
    """`/-/new/`."""

    def test_answers(self) -> None:
        """A directory is made, and told by its address; a browser goes back to where it was."""
        answer = self.post("/-/new/d/", ("name", "n 1"), headers=JSON)
        self.assertEqual((answer.status, answer.json()), (201, {"path": "/d/n 1", "url": "/d/n%201/"}))
        self.assertEqual(answer.field("Location"), "/d/n%201/")
        answer = self.post("/-/new/", ("name", "n"), headers=PAGE)
        self.assertEqual((answer.status, answer.field("Location")), (303, "/"))
        answer = self.post("/-/new/d/", ("name", "100%41"))
        self.assertEqual((answer.status, answer.text), (201, "made /d/100%41"))
        self.assertEqual({"d/n 1/", "n/", "d/100%41/"} - self.names(), set())

    def test_path(self) -> None:
        """With a path all that is missing is made; one that is there is an error unless that is fine."""
        self.assertEqual(self.post("/-/new/d/", ("name", "x/y/z")).status, 201)
        self.assertTrue((self.root / "d/x/y/z").is_dir())
        self.assertEqual(self.post("/-/new/d/", ("name", "x/y")).status, 409)
        self.assertEqual(self.post("/-/new/d/", ("name", "x/y"), ("exist", "ok")).status, 200)
        self.assertEqual(self.post("/-/new/d/", ("name", "a"), ("exist", "ok")).status, 409)
        for name, sentence in (
            ("a", "it exists already"),
            ("a/x", "a part of the path before the name is a file"),
            ("a/x/y", "a part of the path before the name is a file"),
        ):
            answer = self.post("/-/new/d/", ("name", name))
            self.assertEqual((answer.status, answer.text), (409, f"ERROR - {sentence}"))

    def test_refused(self) -> None:
        """No name, or one that is none, makes nothing."""
        before = self.names()
        for name in ("", ".", "..", "../x", "/x", "x//y", "x/../y", "a:b", "x" * 256, ".fileexport"):
            answer = self.post("/-/new/d/", ("name", name))
            self.assertIn(answer.status, (400, 403), name)
        self.assertEqual(self.post("/-/new/d/").status, 400)
        self.assertEqual(self.names(), before)


class MoveTests(EntriesCase):
    """`/-/move/`."""

    def test_to_a_directory(self) -> None:
        """Entries go to a directory that is named from the root, or from where they are."""
        (self.root / "d/x y").mkdir()
        for to, place in (
            ("/other", "other"),
            ("../other/", "other"),
            ("x%20y", "d/x y"),
            ("/", "."),
            ("..", "."),
        ):
            answer = self.post("/-/move/d/", *entries("a", "sub"), ("to", to), headers=JSON)
            self.assertEqual((answer.status, answer.json()), (200, {"moved": 2, "failed": []}), to)
            for name in ("a", "sub"):
                (self.root / place / name).rename(self.root / "d" / name)

    def test_name(self) -> None:
        """One entry gets another name, which is text; several do not."""
        answer = self.post("/-/move/d/", *entries("a"), ("name", "50%25 é"), ("to", ""), headers=PAGE)
        self.assertEqual((answer.status, answer.field("Location")), (303, "/d/"))
        self.assertIn("d/50%25 é", self.names())
        self.assertEqual(self.post("/-/move/d/", *entries("b", "sub"), ("name", "x")).status, 400)

    def test_every_name(self) -> None:
        """A name that is no UTF-8, or would mean something in a page or an address, is moved as it is."""
        self.write("d/" + ODD)
        answer = self.post("/-/move/d/", *entries(ODD), ("to", "/other"))
        self.assertEqual(
            (answer.status, answer.text),
            (400, f"moved 0 entries\nERROR - {'�'} & <b>␊%41: the name is not valid"),
        )
        answer = self.post("/-/move/d/", *entries(ODD), ("name", "plain"))
        self.assertEqual((answer.status, answer.text), (200, "moved 1 entry"))

    def test_some_fail(self) -> None:
        """One that fails does not keep the others; each failure is told by its name."""
        answer = self.post("/-/move/d/", *entries("a", "b", "none", "x/y"), ("to", "/other"), headers=JSON)
        self.assertEqual((answer.status, answer.json()["moved"]), (409, 1))
        failed = {one["entry"]: one["status"] for one in answer.json()["failed"]}
        self.assertEqual(failed, {"b": 409, "none": 404, "x%2Fy": 400})
        self.assertEqual((self.root / "other/b").read_bytes(), b"other/b")
        answer = self.post("/-/move/d/", *entries("b"), ("to", "/other"), ("replace", "1"), headers=JSON)
        self.assertEqual((self.root / "other/b").read_bytes(), b"d/b")

    def test_all_fail(self) -> None:
        """Where nothing was done the answer's status is the first failure's."""
        answer = self.post("/-/move/d/", *entries("none", "b"), ("to", "/other"), headers=JSON)
        self.assertEqual((answer.status, answer.json()["moved"]), (404, 0))
        self.assertEqual(answer.json()["detail"], "there is no such file or directory")
        answer = self.post("/-/move/d/", *entries("none"), ("to", "/other"), headers=PAGE)
        self.assertEqual((answer.status, 'href="/d/"' in answer.text), (404, True))
        answer = self.post("/-/move/d/", *entries("a"), ("to", "/nowhere"))
        self.assertEqual((answer.status, answer.reason), (404, "Not Found"))

    def test_refused(self) -> None:
        """What cannot be meant moves nothing."""
        before = self.names()
        for fields in (
            entries("a"),
            [*entries("a"), ("to", "/other"), ("name", "x")],
            [("to", "/other")],
            [*entries("a"), ("to", "../..")],
            [*entries("a"), ("to", "%2E%2E/%2e%2e/etc")],
            [*entries("a"), ("to", "x%2Fy")],
            [*entries("a"), ("to", "/other"), ("replace", "yes")],
            [*entries("a"), ("name", "x/y")],
            [*entries("a"), ("name", "..")],
            [*entries("sub"), ("to", "sub")],
            [*entries("..", ".", ""), ("to", "/other")],
        ):
            answer = self.post("/-/move/d/", *fields)
            self.assertGreaterEqual(answer.status, 400, fields)
        self.assertEqual(self.names(), before)


class RemoveTests(EntriesCase):
    """`/-/remove/`."""

    def test_asks_first(self) -> None:
        """A browser reads what would go, and can keep it; a program has to say that it means it."""
        self.write("d/" + ODD)
        os.symlink("a", self.root / "d/link")
        before = self.names()
        answer = self.post("/-/remove/d/", *entries("sub", "link", ODD, "none"), headers=PAGE)
        self.assertEqual(answer.status, 200)
        for text in (
            "Delete 4 entries?",
            "<bdi>sub</bdi> (with everything in it)",
            "<bdi>link</bdi> (the link, not what it leads to)",
            "� &amp; &lt;b&gt;␊%41</bdi></li>",
            "<bdi>none</bdi> (is not there any more)",
            'action="/-/remove/d/"',
            'name="entry" value="sub/"',
            'name="entry" value="link"',
            'value="%FF%20%26%20%3Cb%3E%0A%2541"',
            'href="/d/"',
        ):
            self.assertIn(text, answer.text)
        answer = self.post("/-/remove/d/", *entries("a"))
        self.assertEqual((answer.status, "confirm=1" in answer.text), (400, True))
        self.assertEqual(self.post("/-/remove/d/", *entries("a"), headers=PAGE | JSON).status, 400)
        self.assertEqual(self.names(), before)

    def test_removes(self) -> None:
        """Files, directories with all below them, links themselves, and every name."""
        self.write("d/" + ODD)
        os.symlink("../other", self.root / "d/link")
        (self.root / "d/empty").mkdir()
        chosen = [*entries("a", "link", ODD, "empty"), ("entry", "sub/")]
        answer = self.post("/-/remove/d/", *chosen, ("confirm", "1"), headers=JSON)
        self.assertEqual((answer.status, answer.json()), (200, {"removed": 5, "failed": []}))
        self.assertEqual(self.names(), {"d/", "d/b", "other/", "other/b"})
        answer = self.post("/-/remove/d/", *entries("b"), ("confirm", "1"), headers=PAGE)
        self.assertEqual((answer.status, answer.field("Location")), (303, "/d/"))

    def test_not_meant(self) -> None:
        """What is below a directory stays where it was not named as one: it may have been a file before."""
        before = self.names()
        answer = self.post("/-/remove/d/", *entries("sub"), ("confirm", "1"))
        self.assertEqual((answer.status, "a slash behind its name" in answer.text), (409, True))
        self.assertEqual(self.names(), before)

    def test_some_fail(self) -> None:
        """What is not there, or is exported itself, is told; the rest goes."""
        web = self.harness(dirs=("d/sub",))
        answer = self.post("/-/remove/d/", ("entry", "sub/"), ("confirm", "1"), web=web)
        self.assertEqual(
            (answer.status, answer.text), (403, "removed 0 entries\nERROR - sub: permission denied")
        )
        answer = self.post("/-/remove/d/", *entries("a", "none"), ("confirm", "1"))
        expected = "removed 1 entry\nERROR - none: there is no such file or directory"
        self.assertEqual((answer.status, answer.text), (404, expected))

    def test_long_lists(self) -> None:
        """The page that asks names some, and says how many more there are."""
        self.patch(http_entries, "MAX_NAMED", 2)
        answer = self.post("/-/remove/d/", *entries("a", "b", "sub"), headers=PAGE)
        self.assertIn("and 1 more", answer.text)
        self.assertEqual(answer.text.count('name="entry"'), 3)


class PackTests(EntriesCase):
    """`/-/pack/`."""

    def test_zip(self) -> None:
        """The selected entries, with all below them, come as an archive that is named after the directory."""
        answer = self.post("/-/pack/d/", *entries("a", "sub"))
        self.assertEqual(answer.field("Content-Disposition"), 'attachment; filename="d.zip"')
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            found = {name for name in archive.namelist() if not name.endswith("/")}
        self.assertEqual(found, {"d/a", "d/sub/c"})

    def test_forms(self) -> None:
        """The form is chosen; the root's archive has a name, too."""
        answer = self.post("/-/pack/", *entries("d"), ("format", "tar.gz"))
        self.assertEqual(answer.field("Content-Disposition"), 'attachment; filename="files.tar.gz"')
        self.assertEqual(self.post("/-/pack/d/", *entries("a"), ("format", "rar")).status, 400)

    def test_refused(self) -> None:
        """Names that are not there or none are told before anything is sent."""
        for fields, status in ((entries("a", "none"), 404), (entries("../x"), 400), ([], 400)):
            self.assertEqual(self.post("/-/pack/d/", *fields).status, status)


class EveryRouteTests(EntriesCase):
    """What all of them refuse."""

    ROUTES = ("new", "move", "remove", "pack")
    FIELDS = (("name", ""), *entries("a"), ("to", "/other"), ("confirm", "1"))

    def fields(self, route: str) -> list[tuple[str, str]]:
        """A form that the route carries out."""
        return [("name", "new")] if route == "new" else [*entries("a"), ("to", "/other"), ("confirm", "1")]

    def test_rights(self) -> None:
        """Each needs its right and no other."""
        web = self.harness(tokens=TOKENS, local=False)
        needed = {
            "new": "token-writer-1",
            "move": "token-writer-1",
            "remove": "token-delete-1",
            "pack": "token-reader-1",
        }
        for route, right in needed.items():
            self.assertEqual(self.post(f"/-/{route}/d/", *self.fields(route), web=web).status, 401)
            for token in ("token-reader-1", "token-writer-1", "token-delete-1"):
                headers = {"Authorization": f"Bearer {token}"}
                answer = self.post(f"/-/{route}/d/", *self.fields(route), headers=headers, web=web)
                self.assertEqual(answer.status == 403, token != right, (route, token))
                self.write("d/a")

    def test_under(self) -> None:
        """Who sees a part of the root moves nothing out of it, and reaches nothing outside."""
        web = self.harness(tokens=TOKENS)
        before = self.names()
        headers = {"Authorization": "Bearer token-inner-12"}
        for target, fields in (
            ("/-/move/d/", [*entries("a"), ("to", "/other")]),
            ("/-/move/d/", [*entries("a"), ("to", "..")]),
            ("/-/move/other/", [*entries("b"), ("to", "/d/sub")]),
            ("/-/remove/other/", [*entries("b"), ("confirm", "1")]),
            ("/-/remove/", [*entries("d"), ("confirm", "1")]),
            ("/-/pack/other/", entries("b")),
            ("/-/new/other/", [("name", "x")]),
        ):
            self.assertIn(self.post(target, *fields, headers=headers, web=web).status, (403, 404), target)
        self.assertEqual(self.names(), before)

    def test_cross_site(self) -> None:
        """A form of another site does nothing, however it is sent."""
        before = self.names()
        for route in self.ROUTES:
            for headers in (
                {"Origin": "http://evil.example"},
                {"Sec-Fetch-Site": "same-site"},
                {"Origin": "null"},
            ):
                answer = self.post(f"/-/{route}/d/", *self.fields(route), headers=headers)
                self.assertEqual(answer.status, 403)
        self.assertEqual(self.names(), before)

    def test_only_post(self) -> None:
        """No other method does anything: a link can never act."""
        for route in self.ROUTES:
            for method in ("GET", "HEAD", "PUT", "DELETE"):
                answer = self.web.request(method, f"/-/{route}/d/?name=x&confirm=1&entry=a")
                self.assertEqual((answer.status, answer.field("Allow")), (405, "POST"))

    def test_bodies(self) -> None:
        """A body that is no form is refused, and so is one that is longer than any form."""
        for route in self.ROUTES:
            target = f"/-/{route}/d/"
            self.assertEqual(
                self.web.request("POST", target, {"Content-Type": "application/json"}, b"{}").status, 415
            )
            self.assertEqual(self.web.request("POST", target).status, 400)
            connection = self.web.connect()
            connection.send(encode("POST", target, TYPE | {"Content-Length": str(forms.MAX_BODY + 1)}, b""))
            self.assertEqual(connection.receive().status, 413)

    def test_memory(self) -> None:
        """Forms that are being sent share what memory there is for them, and give it back."""
        self.patch(http_entries, "MAX_HELD", 100)
        connection = self.web.connect()
        connection.send(
            encode("POST", "/-/pack/d/", TYPE | {"Content-Length": "90"}, b"") + b"entry=" + b"x" * 60
        )
        self.assertEqual(self.post("/-/pack/d/", *entries("y" * 60)).status, 503)
        connection.lose()
        self.assertEqual(self.post("/-/pack/d/", *entries("y" * 60)).status, 404)

    def test_one_spelling_of_an_entry(self) -> None:
        """An entry that is named twice is done once, and too many are refused."""
        answer = self.post("/-/remove/d/", *entries("a", "a"), ("confirm", "1"))
        self.assertEqual(answer.text, "removed 1 entry")
        self.patch(http_entries, "MAX_SELECTED", 2)
        self.assertEqual(self.post("/-/pack/d/", *entries("a", "b", "sub")).status, 400)
