"""The page of a directory over HTTP: who gets which, its policy, its query, and what its script asks for."""

from __future__ import annotations

import os
import re

from tests.http_client import NOW, HttpCase, Response
from tests.page_reader import Page

#: What a browser sends for a page.
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class PageCase(HttpCase):
    """Has a small tree and its daemon."""

    def setUp(self) -> None:
        super().setUp()
        for name, content in (
            ("file10.txt", b"ten"),
            ("file2.txt", b"two and more"),
            ("photos/cat.jpg", b"jpeg"),
        ):
            self.write(name, content, NOW - 60)
        self.web = self.harness()

    def page(self, target: str, status: int = 200) -> Page:
        """What a browser gets."""
        answer = self.web.get(target, BROWSER)
        self.assertEqual(answer.status, status, target)
        return Page(answer.body)

    def names(self, target: str) -> list[str]:
        """The entries of a page, in order."""
        return [entry["data-name"] for entry in self.page(target).entries()]


class PeopleTests(PageCase):
    """A browser's page and a program's."""

    def test_people_and_programs(self) -> None:
        """Who takes HTML gets the page with forms; who names nothing, one of links only."""
        self.assertIn("upload", self.page("/").ids())
        for headers in ({}, {"Accept": "*/*"}):
            answer = self.web.get("/", headers)
            self.assertEqual(answer.field("Content-Type"), "text/html; charset=utf-8")
            page = Page(answer.body)
            self.assertFalse({"form", "script", "input", "button"} & set(page.tags))
            self.assertEqual([href for href, _ in page.links], ["/", "/photos/", "/file2.txt", "/file10.txt"])
            self.assertIn("Accept", answer.field("Vary"))

    def test_policy(self) -> None:
        """The page's script runs by a nonce that is another one each time, and by nothing else."""
        nonces = set()
        for _ in range(2):
            answer = self.web.get("/", BROWSER)
            (nonce,) = re.findall(r"script-src 'nonce-([\w-]{22})';", answer.field("Content-Security-Policy"))
            self.assertEqual(re.findall(r' nonce="([^"]*)"', answer.text), [nonce])
            nonces.add(nonce)
        self.assertEqual(len(nonces), 2)
        self.assertNotIn("script-src", self.web.get("/").field("Content-Security-Policy"))

    def test_another_for_other_eyes(self) -> None:
        """A page is not kept, and a cache knows what it depends on."""
        answer = self.web.get("/", BROWSER)
        self.assertEqual(answer.field("Cache-Control"), "no-cache")
        self.assertEqual(answer.field("Vary"), "Accept, Authorization, Cookie")

    def test_everything_that_it_loads_is_there(self) -> None:
        """Style sheets, script and icon of the page are there, of their types, and kept for good."""
        page = self.page("/photos/")
        loaded = [v for n, v in page.attributes if n in ("href", "src") and v.startswith("/-/static/")]
        self.assertEqual(len(loaded), 5)
        for address in loaded:
            answer = self.web.get(address)
            self.assertEqual(answer.status, 200, address)
            self.assertIn("immutable", answer.field("Cache-Control"))


class RightsTests(PageCase):
    """The forms of a page are those that its visitor may use."""

    def may(self, answer: Response) -> str:
        """What a page says that its visitor may do."""
        self.assertEqual(answer.status, 200)
        return Page(answer.body).by_id("page")["data-may"]

    def test_local_process(self) -> None:
        """A process of the daemon's own user may do everything, without a token."""
        self.assertEqual(self.may(self.web.get("/", BROWSER)), "read write delete")

    def test_tokens(self) -> None:
        """A token's page offers what the token may."""
        web = self.harness(local=False, tokens="token-reads may=read\ntoken-writes may=read,write name=w\n")
        for token, may in (("token-reads", "read"), ("token-writes", "read write")):
            headers = {**BROWSER, "Authorization": f"Bearer {token}"}
            self.assertEqual(self.may(web.get("/", headers)), may)

    def test_above_the_exported_directories(self) -> None:
        """Above the exported directories nothing can be made or removed: there are no forms for it."""
        web = self.harness(dirs=["photos"])
        self.assertEqual(self.may(web.get("/", BROWSER)), "read")
        self.assertEqual(self.may(web.get("/photos/", BROWSER)), "read write delete")


class QueryTests(PageCase):
    """Order, filter and page in the query."""

    def test_orders(self) -> None:
        """Sorted as asked, folders first."""
        for query, names in (
            ("", ["photos", "file2.txt", "file10.txt"]),
            ("?order=desc", ["photos", "file10.txt", "file2.txt"]),
            ("?sort=size&order=desc", ["photos", "file2.txt", "file10.txt"]),
            ("?filter=E1", ["file10.txt"]),
            ("?filter=%C3%A9", []),
            ("?page=99", ["photos", "file2.txt", "file10.txt"]),
        ):
            self.assertEqual(self.names("/" + query), names, query)

    def test_wrong(self) -> None:
        """What cannot be meant is refused with a sentence that says what can."""
        for query, sentence in (
            ("sort=date", "sort is one of name, size, mtime"),
            ("order=up", "order is one of asc, desc"),
            ("page=0", "page is a number from 1 to 999999"),
            ("page=x", "page is a number"),
        ):
            self.assertIn(sentence.lower(), self.page("/?" + query, 400).text.lower(), query)

    def test_programs_get_everything(self) -> None:
        """For programs there is one page, whatever they ask."""
        for query in ("", "?page=7", "?filter=nothing"):
            self.assertEqual(len(Page(self.web.get("/" + query).body).rows), 4, query)


class JsonTests(PageCase):
    """GET of a directory with ?json=page."""

    def test_what_the_page_shows(self) -> None:
        """Names as addresses have them, labels as they are read, links, kinds: in the page's order."""
        self.write(b"odd \xe2\x80\xae\xff.png", b"12")
        os.mkfifo(self.root / "pipe")
        found = self.web.get("/?json=page").json()
        self.assertEqual([one["name"] for one in found], self.names("/"))
        odd = next(one for one in found if one["kind"] == "image")
        expected = {
            "name": "odd%20%E2%80%AE%FF.png",
            "label": "odd \ufffd\ufffd.png",
            "href": "/odd%20%E2%80%AE%FF.png",
            "type": "file",
            "kind": "image",
            "size": 2,
        }
        self.assertEqual({name: odd[name] for name in expected}, expected)
        others = {one["label"]: (one["href"], one["type"], one["kind"]) for one in found}
        self.assertEqual(others["pipe"], ("", "other", "other"))
        self.assertEqual(others["photos"], ("/photos/", "directory", "folder"))

    def test_plain_json_stays(self) -> None:
        """Without a value the JSON is as it was: by name, and no more than name, type, size and time."""
        found = self.web.get("/?json").json()
        self.assertEqual([one["name"] for one in found], ["photos", "file10.txt", "file2.txt"])
        self.assertEqual(set(found[0]), {"name", "type", "size", "mtime"})
