"""What a browser gets: directories, files shown in place, and the way to every name."""

from __future__ import annotations

import os
import re
from html import unescape
from urllib.parse import quote

from fileexport.web.routes import OWN_NAMES
from tests.http_client import NOW, HttpCase, Response

ODD = (
    "a b",
    "a%20b",
    "a#b",
    "a?b=c&d",
    "a;b",
    'q"u',
    "q'u",
    "<b>x",
    "\u00fc\U0001f600",
    "back\\slash",
    "+",
    "x..",
)


def links(page: Response) -> list[str]:
    """The addresses that a page links to, in order."""
    return [unescape(href) for href in re.findall(r'<a [^>]*href="([^"]*)"', page.text)]


class BrowseCase(HttpCase):
    """Has a small tree and its daemon."""

    def setUp(self) -> None:
        super().setUp()
        self.write("notes.txt", b"notes", NOW - 60)
        self.write("photos/2026/cat.jpg", b"jpeg")
        self.write("photos/index.html", b"<script>alert(1)</script>")
        self.web = self.harness()


class DirectoryTests(BrowseCase):
    """GET of a directory."""

    def test_page(self) -> None:
        """A directory is an HTML page whose entries are links, directories first."""
        page = self.web.get("/")
        self.assertEqual((page.status, page.field("Content-Type")), (200, "text/html; charset=utf-8"))
        self.assertEqual(links(page), ["/", "/photos/", "/notes.txt"])
        self.assertTrue(page.field("Content-Security-Policy").startswith("default-src 'none'"))
        self.assertEqual(page.field("Referrer-Policy"), "same-origin")

    def test_buttons(self) -> None:
        """Below the root the page has buttons to the root and one level up."""
        page = self.web.get("/photos/2026/")
        self.assertEqual(links(page), ["/", "/photos/", "/photos/", "/photos/2026/cat.jpg"])
        self.assertIn(">/</a>", page.text)
        self.assertIn(">..</a>", page.text)

    def test_json(self) -> None:
        """With ?json a directory is JSON: name, type, size and time of each entry."""
        (self.root / "link").symlink_to("notes.txt")
        os.mkfifo(self.root / "pipe")
        answer = self.web.get("/?json")
        self.assertEqual(answer.field("Content-Type"), "application/json")
        found = {entry.pop("name"): entry for entry in answer.json()}
        self.assertEqual(found["notes.txt"], {"type": "file", "size": 5, "mtime": NOW - 60})
        kinds = {name: entry["type"] for name, entry in found.items()}
        expected = {"photos": "directory", "notes.txt": "file", "link": "link", "pipe": "other"}
        self.assertEqual(kinds, expected)
        self.assertEqual((list(found)[0], found["photos"]["size"]), ("photos", 0))

    def test_redirect(self) -> None:
        """A directory without its slash redirects there, with its query and its encoding."""
        self.write("a b/\u00fc/x")
        for target, location in {
            "/photos": "/photos/",
            "/photos/2026": "/photos/2026/",
            "/photos?json": "/photos/?json",
            "/photos?a=b&c=%20d": "/photos/?a=b&c=%20d",
            "/photos?": "/photos/?",
            "/a%20b/%c3%bc?json": "/a%20b/%C3%BC/?json",
            "/%70hotos": "/photos/",
            "/-/files/photos": "/-/files/photos/",
        }.items():
            answer = self.web.get(target)
            self.assertEqual((answer.status, answer.field("Location")), (301, location), target)
            self.assertEqual(self.web.get(answer.field("Location")).status, 200)

    def test_redirect_stays_here(self) -> None:
        """No spelling of a directory makes the redirect lead to another host."""
        for name in ("evil.example", "evil.example:80", "\\evil.example", "%2Fevil.example", "http:"):
            (self.root / name / "x").mkdir(parents=True)
        for target in (
            "//evil.example",
            "///evil.example",
            "//evil.example:80/x",
            "//evil.example/x?json",
            "/%5Cevil.example",
            "//%5Cevil.example",
            "/%252Fevil.example",
            "/http:/x",
            "//http:/x",
            "/-/files//evil.example",
            "/-/files///evil.example/x",
        ):
            answer = self.web.get(target)
            self.assertEqual(answer.status, 301, target)
            location = answer.field("Location")
            self.assertRegex(location, r"^/(-/files/)?(evil|%5Cevil|%252Fevil|http%3A)", target)
            self.assertEqual(self.web.get(location).status, 200, target)

    def test_behind_a_proxy(self) -> None:
        """Redirects and links begin with the prefix of a reverse proxy."""
        web = self.harness(prefix="/files")
        self.assertEqual(web.get("/photos").field("Location"), "/files/photos/")
        self.assertEqual(links(web.get("/")), ["/files/", "/files/photos/", "/files/notes.txt"])

    def test_exported_directories(self) -> None:
        """With --dir the root page lists just these, and what lies above them leads to them."""
        self.write("videos/a/x")
        web = self.harness(dirs=["photos/2026", "videos"])
        names = [entry["name"] for entry in web.get("/?json").json()]
        self.assertEqual(names, ["photos/2026", "videos"])
        self.assertEqual(links(web.get("/")), ["/", "/photos/2026/", "/videos/"])
        self.assertEqual(web.get("/photos?json").field("Location"), "/photos/?json")
        self.assertEqual([entry["name"] for entry in web.get("/photos/?json").json()], ["2026"])
        self.assertEqual(links(web.get("/photos/2026/"))[-1], "/photos/2026/cat.jpg")
        for target in ("/notes.txt", "/photos/index.html", "/nope/"):
            self.assertEqual(web.get(target).status, 404, target)

    def test_part_of_a_token(self) -> None:
        """A token sees its part and the way to it, and nothing beside it."""
        web = self.harness(local=False, tokens="token-of-2026 under=/photos/2026\n")
        token = {"Authorization": "Bearer token-of-2026"}
        self.assertEqual(links(web.get("/", token)), ["/", "/photos/2026/"])
        self.assertEqual(web.get("/photos/2026/cat.jpg", token).body, b"jpeg")
        for target in ("/notes.txt", "/photos/index.html"):
            self.assertEqual(web.get(target, token).status, 404, target)

    def test_head(self) -> None:
        """HEAD of a page, and of its JSON, tells what GET would."""
        for target in ("/", "/?json", "/photos", "/photos/"):
            head, get = self.web.request("HEAD", target), self.web.get(target)
            self.assertEqual((head.status, head.headers, head.body), (get.status, get.headers, b""))

    def test_fresh(self) -> None:
        """A page is asked for again, not kept: what is exported changes."""
        for target in ("/", "/?json", "/photos", "/notes.txt", "/list?dir=/"):
            self.assertEqual(self.web.get(target).field("Cache-Control"), "no-cache", target)


class WalkTests(BrowseCase):
    """Following links alone, every name is reached."""

    def walk(self, start: str) -> dict[str, bytes]:
        """All files that can be reached by following links downwards, by address."""
        found: dict[str, bytes] = {}
        todo, seen = [start], {start}
        while todo:
            address = todo.pop()
            answer = self.web.get(address)
            self.assertEqual(answer.status, 200, address)
            if not address.endswith("/"):
                found[address] = answer.body
                continue
            for link in links(answer):
                if link not in seen:
                    seen.add(link)
                    todo.append(link)
        return found

    def test_odd_names(self) -> None:
        """Files and directories of every name are reached, and lead to what they hold."""
        names = [name.encode() for name in ODD] + [
            b"new\nline",
            b"\xff\xfe",
            b"tab\t",
            b"%",
            b"~",
            b"\xe2\x80\xaex",
        ]
        for name in names:
            self.write(b"odd/" + name + b"/" + name, name)
        found = self.walk("/odd/")
        for name in names:
            self.assertEqual(found.get(f"/odd/{quote(name, safe='')}/{quote(name, safe='')}"), name)

    def test_names_of_our_own_paths(self) -> None:
        """A file or directory in the root that is called like a path of ours is reached all the same."""
        for name in OWN_NAMES - {"-", "tar", "stop"}:
            self.write(name, b"file " + name.encode())
        for path in ("-/files/list", "-/health", "-/x", "tar/get", "stop/-/y"):
            self.write(path, b"file " + path.encode())
        bodies = set(self.walk("/").values())
        expected = {name.encode() for name in ("list", "get", "delete", "favicon.ico")}
        expected |= {b"-/files/list", b"-/health", b"-/x", b"tar/get", b"stop/-/y"}
        self.assertEqual({b"file " + name for name in expected} - bodies, set())

    def test_files_route(self) -> None:
        """Under /-/files/ every path is an exported entry, and a directory redirects within it."""
        self.write("list", b"a file called list")
        self.write("-/files/-/files/x", b"deep")
        self.assertEqual(self.web.get("/-/files/list").body, b"a file called list")
        self.assertEqual(self.web.get("/-/files/-/files/-/files/x").body, b"deep")
        self.assertEqual(self.web.get("/-/files/notes.txt").body, b"notes")
        self.assertEqual(self.web.get("/-/files/-").field("Location"), "/-/files/-/")
        self.assertEqual(links(self.web.get("/-/files/")), links(self.web.get("/")))
        self.assertEqual(self.web.get("/-/files/nope").status, 404)

    def test_own_names_in_disguise(self) -> None:
        """A directory called like a path of ours, spelled otherwise, redirects to where it can be seen."""
        self.write("-/sub/x")
        self.write("list/sub/x")
        for target in ("/-", "/%2D", "//-", "//%2d/sub", "//%6cist", "//list/sub", "/%2d/files/-"):
            answer = self.web.get(target)
            self.assertEqual(answer.status, 301, target)
            self.assertEqual(self.web.get(answer.field("Location")).status, 200, target)

    def test_details_link_to_own_names(self) -> None:
        """/list links around our own paths as well."""
        self.write("get", b"a file called get")
        entry = self.web.get("/list?dir=/&prefix=get&details=1").json()[0]
        self.assertEqual(entry["url"], "/-/files/get")
        self.assertEqual(self.web.get(entry["url"]).body, b"a file called get")


class FileTests(BrowseCase):
    """GET of a file by its path."""

    def test_inline(self) -> None:
        """A file is shown in place by the type that its name says."""
        for name, kind in {
            "a.txt": "text/plain; charset=utf-8",
            "README": "text/plain; charset=utf-8",
            "a.py": "text/plain; charset=utf-8",
            "a.png": "image/png",
            "a.mp4": "video/mp4",
            "a.pdf": "application/pdf",
            "a.unknown": "application/octet-stream",
        }.items():
            self.write(name, b"content")
            answer = self.web.get("/" + name)
            self.assertEqual((answer.status, answer.body), (200, b"content"))
            self.assertEqual(answer.field("Content-Type"), kind)
            self.assertEqual(answer.field("Content-Disposition"), f'inline; filename="{name}"')

    def test_nothing_scripts_this_origin(self) -> None:
        """What a browser might run is sandboxed, by every way to the file; media and text are not."""
        active = ("x.html", "x.HTM", "x.svg", "x.xhtml", "x.xml", "x.mhtml", "x.unknown", "x.svg.", "x")
        passive = ("x.txt", "x.js", "x.css", "x.png", "x.mp4", "x.pdf", "x.json")
        for name in (*active, *passive):
            self.write(name, b"<svg onload='alert(1)'>")
            for target in (f"/{name}", f"/-/files/{name}", f"/get?dir=/&name={name}"):
                policies = self.web.get(target).fields("Content-Security-Policy")
                expected = 1 if name in active else 0
                self.assertEqual(len(policies), expected, target)
                for policy in policies:
                    self.assertTrue(policy.startswith("sandbox; default-src 'none'"), target)
                    self.assertNotIn("allow", policy)

    def test_sandbox_survives_ranges_and_conditions(self) -> None:
        """A part of a page, and the news that it has not changed, are as harmless as the whole."""
        etag = self.web.get("/photos/index.html").field("ETag")
        for headers, status in (
            ({"Range": "bytes=0-7"}, 206),
            ({"Range": "bytes=0-1,4-5"}, 206),
            ({"If-None-Match": etag}, 304),
        ):
            answer = self.web.get("/photos/index.html", headers)
            self.assertEqual(answer.status, status)
            self.assertIn("sandbox", answer.field("Content-Security-Policy"))

    def test_ranges(self) -> None:
        """A player gets the part that it asks for."""
        answer = self.web.get("/notes.txt", {"Range": "bytes=1-3"})
        self.assertEqual((answer.status, answer.body), (206, b"ote"))

    def test_slash_behind_a_file(self) -> None:
        """A file is no directory: with a slash behind it there is nothing."""
        for target in ("/notes.txt/", "/notes.txt/x", "/-/files/notes.txt/", "/notes.txt//"):
            self.assertEqual(self.web.get(target).status, 404, target)

    def test_links(self) -> None:
        """A relative link inside the tree is followed; one that leads out leads nowhere."""
        (self.root / "in").symlink_to("photos/2026/cat.jpg")
        (self.root / "out").symlink_to("/etc/hostname")
        (self.root / "up").symlink_to("../")
        self.assertEqual(self.web.get("/in").body, b"jpeg")
        for target in ("/out", "/up", "/up/"):
            self.assertEqual(self.web.get(target).status, 404, target)

    def test_hidden(self) -> None:
        """Hidden names are nowhere: not in a page, not in JSON, not by their path."""
        self.write(".git/config", b"secret")
        self.write(".env", b"secret")
        for target in ("/.env", "/.git/", "/.git/config", "/-/files/.env"):
            self.assertEqual(self.web.get(target).status, 404, target)
        for target in ("/", "/?json"):
            self.assertNotIn(".env", self.web.get(target).text)
        self.assertEqual(self.harness(hidden=True).get("/.git/config").body, b"secret")
