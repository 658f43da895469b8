"""Shares through the whole door: made, listed, followed, revoked."""

from __future__ import annotations

import io
import json
import re
import zipfile
from typing import Any
from urllib.parse import urlencode

from fileexport.config import Anonymous
from fileexport.http_shares import MAX_BODY
from fileexport.token_file import parse_token_file
from tests.http_client import NOW, HttpCase, Response

TOKENS = """
token-of-root-1 name=root
token-of-ann-1 name=ann may=read,write
token-of-bob-1 name=bob may=read,write under=/d
token-of-eve-1 name=eve may=read
token-of-drop-1 name=drop may=write
token-of-ann-2 name=ann may=write
"""
ROOT, ANN, BOB, EVE, DROP = (
    {"Authorization": f"Bearer token-of-{name}-1"} for name in ("root", "ann", "bob", "eve", "drop")
)
JSON = {"Content-Type": "application/json", "Accept": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
HTML = {"Accept": "text/html"}
WEEK = 7 * 86_400


class SharesCase(HttpCase):
    """Has some files, and a door that shows nothing without a token."""

    def setUp(self) -> None:
        super().setUp()
        for path in ("top.txt", "d/a b.txt", "d/page.html", "d/sub/x.txt", "d/.hidden", "d/sub/.git/config"):
            self.write(path, path.encode())
        self.write(b"d/\xff.txt", b"bytes")
        self.web = self.harness(tokens=TOKENS, anonymous=Anonymous.NONE)

    def ask(self, body: object, who: dict[str, str] = ANN, **headers: str) -> Response:
        """POST a wish in JSON, or any text that is none."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.web.request("POST", "/-/shares", {**JSON, **who, **headers}, text)

    def share(self, path: str, who: dict[str, str] = ANN, **more: Any) -> dict[str, Any]:
        """A share that was made."""
        answer = self.ask({"path": path, **more}, who)
        self.assertEqual(answer.status, 201, answer.text)
        value: dict[str, Any] = answer.json()
        return value

    def url(self, path: str, who: dict[str, str] = ANN, **more: Any) -> str:
        """The link to a share that was made."""
        return str(self.share(path, who, **more)["url"])

    def status(self, target: str, headers: dict[str, str] | None = None) -> int:
        """The status of what GET answers."""
        return self.web.get(target, headers).status


class MakingTests(SharesCase):
    """Asking for a link."""

    def test_answer(self) -> None:
        """The answer says all of the share, with the link; a week is what it lasts unasked."""
        link = self.share("/d/a%20b.txt", BOB)
        key = link["url"].removeprefix("/-/share/")
        self.assertEqual(
            link,
            {
                "id": key[:16],
                "path": "/d/a%20b.txt",
                "type": "file",
                "url": f"/-/share/{key}",
                "created": NOW,
                "expires": NOW + WEEK,
                "owner": "bob@/d",
            },
        )
        self.assertRegex(key, r"\A[A-Za-z0-9_-]{38}\Z")
        link = self.share("/d/", seconds=60)
        self.assertEqual((link["path"], link["type"], link["expires"]), ("/d", "directory", NOW + 60))
        self.assertTrue(link["url"].endswith("/"))

    def test_form(self) -> None:
        """A form does the same: a page leads to the list, a program gets the link alone."""
        body = urlencode({"path": "/d/a%20b.txt", "seconds": "60"}).encode()
        answer = self.web.request("POST", "/-/shares", {**ANN, **FORM, **HTML}, body)
        [link] = self.web.get("/-/shares", ANN).json()
        self.assertEqual((answer.status, answer.field("Location")), (303, f"/-/shares#share-{link['id']}"))
        self.assertEqual((link["path"], link["expires"]), ("/d/a%20b.txt", NOW + 60))
        answer = self.web.request("POST", "/-/shares", {**ANN, **FORM}, b"path=%2Fd")
        self.assertEqual(answer.status, 201)
        self.assertEqual(self.status(answer.text), 200)

    def test_any_name(self) -> None:
        """A path is what a URL has, so that each name can be shared, whatever its bytes."""
        for path in ("/d/%FF.txt", "/d/a b.txt", "/d/a%20b.txt", "d/sub/x.txt"):
            self.assertEqual(self.status(self.url(path)), 200, path)

    def test_mistakes(self) -> None:
        """Each mistake has its status and a sentence, and shares nothing."""
        for body, status in (
            (b"{", 400),
            (b"[" * 50_000, 400),
            (b'{"path": "/\xff"}', 400),
            ({}, 400),
            ({"path": 1}, 400),
            ({"path": "/d", "seconds": "60"}, 400),
            ({"path": "/d", "seconds": 59}, 400),
            ({"path": "/d", "seconds": 31_536_001}, 400),
            ({"path": "/d", "seconds": 10**30}, 400),
            ({"path": "/d", "secnds": 60}, 400),
            ({"path": "/../d"}, 400),
            ({"path": "/d/\ud800"}, 400),
            ({"path": "/none"}, 404),
            ({"path": "/top.txt/x"}, 404),
            (b'{"path": "/' + b"x" * MAX_BODY + b'"}', 413),
        ):
            answer = self.ask(body)
            self.assertEqual(answer.status, status, body)
        for form, status in ((b"", 400), (b"path=", 400), (b"path=%2Fd&seconds=x", 400)):
            self.assertEqual(
                self.web.request("POST", "/-/shares", {**ANN, **FORM}, form).status, status, form
            )
        kind = {"Content-Type": "text/plain"}
        self.assertEqual(self.web.request("POST", "/-/shares", {**ANN, **kind}, b"path=/d").status, 415)
        self.assertEqual(self.web.get("/-/shares", ROOT).json(), [])

    def test_rights(self) -> None:
        """Only who may read and write shares, and only what they may see."""
        for who, path, status in (
            ({}, "/d", 401),
            (EVE, "/d", 403),
            (DROP, "/d", 403),
            (BOB, "/top.txt", 404),
            (BOB, "/", 400),
        ):
            self.assertEqual(self.ask({"path": path}, who).status, status, (who, path))
        for method, target in (
            ("GET", "/-/shares"),
            ("DELETE", "/-/shares/x"),
            ("POST", "/-/shares/x/revoke"),
        ):
            self.assertEqual(self.web.request(method, target, EVE).status, 403)

    def test_another_site(self) -> None:
        """A page of another site shares nothing and revokes nothing."""
        link = self.share("/d")
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            self.assertEqual(self.ask({"path": "/d"}, ANN, **headers).status, 403)
            for method, target in (("DELETE", ""), ("POST", "/revoke")):
                answer = self.web.request(method, f"/-/shares/{link['id']}{target}", {**ANN, **headers})
                self.assertEqual(answer.status, 403)
        self.assertEqual(len(self.web.get("/-/shares", ANN).json()), 1)

    def test_above_the_exported_directories(self) -> None:
        """What lies above the exported directories can be shared by who sees it: they are all that shows."""
        self.web = self.harness(tokens=TOKENS, anonymous=Anonymous.NONE, dirs=["d/sub"])
        url = self.url("/d")
        self.assertEqual([entry["name"] for entry in self.web.get(url + "?json").json()], ["sub"])
        self.assertEqual(self.web.get(url + "sub/x.txt").body, b"d/sub/x.txt")
        self.assertEqual(self.status(url + "a%20b.txt"), 404)


class ListTests(SharesCase):
    """Looking at one's links, and taking them back."""

    def test_list(self) -> None:
        """Everybody sees their own, the newest first; an admin sees all."""
        first, second, third = self.share("/d"), self.share("/top.txt"), self.share("/d/sub", BOB)
        for who, links in ((ANN, [second, first]), (BOB, [third]), (ROOT, [third, second, first])):
            self.assertEqual(self.web.get("/-/shares", who).json(), links)
        self.assertEqual(self.web.get("/-/shares", ANN).field("Cache-Control"), "no-store")

    def test_who_may_not_read(self) -> None:
        """A link reads: it is shown to nobody who may not, though they have its owner's name."""
        link = self.share("/d")
        namesake = {"Authorization": "Bearer token-of-ann-2"}
        for more in ({}, HTML):
            answer = self.web.get("/-/shares", {**namesake, **more})
            self.assertEqual(answer.status, 403)
            self.assertNotIn(link["url"], answer.text)
        self.assertEqual(self.ask({"path": "/d"}, namesake).status, 403)
        # What it began it may end.
        self.assertEqual(self.web.request("DELETE", f"/-/shares/{link['id']}", namesake).status, 204)

    def test_page(self) -> None:
        """A browser gets a page with the links and a button for each."""
        link = self.share("/d/a%20b.txt")
        page = self.web.get("/-/shares", {**ANN, **HTML})
        self.assertIn(f'<a href="{link["url"]}">', page.text)
        self.assertIn(f'action="/-/shares/{link["id"]}/revoke"', page.text)
        self.assertIn("<bdi>/d/a b.txt</bdi>", page.text)
        self.assertIn("default-src 'none'", page.field("Content-Security-Policy"))
        self.assertIn("<bdi>ann</bdi>", self.web.get("/-/shares", {**ROOT, **HTML}).text)

    def test_revoked(self) -> None:
        """A link that was taken back opens nothing, at once."""
        for method, target, headers, status in (
            ("DELETE", "", {}, 204),
            ("POST", "/revoke", HTML, 303),
            ("POST", "/revoke", {}, 204),
        ):
            link = self.share("/d")
            self.assertEqual(self.status(link["url"]), 200)
            answer = self.web.request(method, f"/-/shares/{link['id']}{target}", {**ANN, **headers})
            self.assertEqual(answer.status, status)
            self.assertEqual(answer.fields("Location"), ["/-/shares"] if status == 303 else [])
            self.assertEqual(self.status(link["url"]), 404)
            self.assertEqual(self.web.request(method, f"/-/shares/{link['id']}{target}", ANN).status, 404)

    def test_others(self) -> None:
        """Nobody but an admin takes back what another shared, or learns that it is there."""
        link = self.share("/d")
        for target in (f"/-/shares/{link['id']}", "/-/shares/none"):
            self.assertEqual(self.web.request("DELETE", target, BOB).status, 404)
        self.assertEqual(self.status(link["url"]), 200)
        self.assertEqual(self.web.request("DELETE", f"/-/shares/{link['id']}", ROOT).status, 204)


class FollowingTests(SharesCase):
    """What whoever has a link gets."""

    def test_file(self) -> None:
        """The file, shown or kept, with ranges and conditions, and no token at all."""
        url = self.url("/d/a%20b.txt")
        answer = self.web.get(url)
        self.assertEqual((answer.status, answer.body), (200, b"d/a b.txt"))
        self.assertIn("inline", answer.field("Content-Disposition"))
        kept = self.web.get(url + "?download")
        self.assertEqual(kept.field("Content-Disposition"), 'attachment; filename="a b.txt"')
        self.assertEqual(self.web.get(url, {"Range": "bytes=2-2"}).body, b"a")
        self.assertEqual(self.status(url, {"If-None-Match": answer.field("ETag")}), 304)
        self.assertEqual(self.web.request("HEAD", url).field("Content-Length"), "9")
        with_token = self.web.get(url, {"Authorization": "Bearer not-the-token"})
        self.assertEqual(with_token.status, 200)

    def test_file_alone(self) -> None:
        """Of a shared file's directory nothing else is there."""
        url = self.url("/d/a%20b.txt")
        for below in (
            "/",
            "/page.html",
            "/sub/x.txt",
            "/?json",
            "/?archive=zip",
            "/../page.html",
            "%2Fpage.html",
        ):
            self.assertIn(self.status(url + below), (400, 404), below)

    def test_directory(self) -> None:
        """A page, JSON and archives of it, and all that lies below."""
        url = self.url("/d")
        self.assertEqual(self.web.get(url.rstrip("/")).field("Location"), url)
        page = self.web.get(url, HTML)
        self.assertEqual(page.status, 200)
        for name in ("a%20b.txt", "sub/"):
            self.assertIn(f'href="{url}{name}"', page.text)
        names = [entry["name"] for entry in self.web.get(url + "?json").json()]
        self.assertEqual(names, ["sub", "a b.txt", "page.html", "\ufffd.txt"])
        self.assertEqual(self.web.get(url + "sub/x.txt").body, b"d/sub/x.txt")
        self.assertEqual(self.web.get(url + "%FF.txt").body, b"bytes")
        self.assertEqual(self.web.get(url + "sub").field("Location"), url + "sub/")
        kept = self.web.get(url + "a%20b.txt?download")
        self.assertIn("attachment", kept.field("Content-Disposition"))
        archive = self.web.get(url + "?archive=zip")
        with zipfile.ZipFile(io.BytesIO(archive.body)) as packed:
            found = {name for name in packed.namelist() if not name.endswith("/")}
        self.assertIn("d/sub/x.txt", found)
        self.assertFalse([name for name in found if ".hidden" in name or ".git" in name])

    def test_nothing_above(self) -> None:
        """No path and no link of the page leads out of the shared directory."""
        url = self.url("/d/sub")
        for below in (
            "../top.txt",
            "..",
            "%2e%2e/a%20b.txt",
            "x.txt/../../a%20b.txt",
            "..%2fa%20b.txt",
            ".git/config",
        ):
            self.assertIn(self.status(url + below), (400, 404), below)
        page = self.web.get(url, HTML).text
        self.assertNotIn("/d/", page)
        self.assertEqual(set(re.findall(r'action="([^"]*)"', page)), {url})
        self.assertIn('data-may="read"', page)

    def test_links_do_not_lead_out(self) -> None:
        """A symbolic link that leaves the shared directory leads nowhere, though it stays in the root."""
        (self.root / "d/sub/out").symlink_to("../a b.txt")
        (self.root / "d/sub/in").symlink_to("x.txt")
        url = self.url("/d/sub")
        self.assertEqual((self.status(url + "out"), self.status(url + "in")), (404, 200))

    def test_a_link_in_its_place(self) -> None:
        """A link that took the place of what is shared, or of a directory above, shows nothing."""
        self.write("d/deep/sub/x.txt", b"other")
        links = [self.url(path) for path in ("/d/sub", "/d/sub/x.txt", "/d/a%20b.txt", "/d/deep/sub")]
        (self.root / "d/sub").rename(self.root / "d/gone")
        (self.root / "d/a b.txt").unlink()
        (self.root / "d/a b.txt").symlink_to("page.html")
        (self.root / "d/deep").rename(self.root / "other")
        (self.root / "d/deep").symlink_to("../other")
        for target in ("gone", "../d/gone", ".hidden", "deep/sub", "..", "."):
            (self.root / "d/sub").symlink_to(target)
            for link in links:
                for below in ("", "x.txt", "?json", "?archive=tar", "?download", "top.txt"):
                    self.assertEqual(self.status(link + below), 404, (target, link, below))
            (self.root / "d/sub").unlink()
        (self.root / "d/gone").rename(self.root / "d/sub")
        self.assertEqual([self.status(link) for link in links], [200, 200, 404, 404])

    def test_no_link_to_what_a_link_leads_to(self) -> None:
        """What is reached by a symbolic link only is not shared."""
        (self.root / "d/file").symlink_to("a b.txt")
        (self.root / "d/way").symlink_to("sub")
        for path in ("/d/file", "/d/way", "/d/way/x.txt"):
            self.assertEqual(self.ask({"path": path}).status, 404, path)
            self.assertEqual(self.status(path, ANN), 301 if path == "/d/way" else 200)

    def test_hidden(self) -> None:
        """Whoever shares a hidden file means it; in a directory what is hidden stays so."""
        self.assertEqual(self.web.get(self.url("/d/.hidden")).body, b"d/.hidden")
        self.assertEqual(self.status(self.url("/d") + ".hidden"), 404)

    def test_read_only(self) -> None:
        """A link changes nothing, whatever the method and whoever else is signed in."""
        url = self.url("/d")
        for method in ("PUT", "POST", "DELETE", "PATCH"):
            answer = self.web.request(method, url + "a%20b.txt", {**ROOT, "Origin": "http://localhost"})
            self.assertEqual((answer.status, answer.field("Allow")), (405, "GET, HEAD"))
        self.assertTrue((self.root / "d/a b.txt").exists())

    def test_no_script(self) -> None:
        """What is shared runs nothing on this origin, where somebody may be signed in."""
        policy = self.web.get(self.url("/d") + "page.html").field("Content-Security-Policy")
        self.assertTrue(policy.startswith("sandbox;"), policy)

    def test_wrong_links(self) -> None:
        """What opens nothing is not there, at once, for a browser as for everybody."""
        url = self.url("/d/a%20b.txt")
        for wrong in (url[:-1], url + "A", url[:-22], url[:-1] + "_", "/-/share/", "/-/share", "/-/share//d"):
            self.assertEqual(self.status(wrong), 404, wrong)
            self.assertEqual(self.web.get(wrong, HTML).status, 404, wrong)

    def test_expired(self) -> None:
        """When its time is over a link opens nothing more."""
        url = self.url("/d", seconds=60)
        self.web.clock.advance(59)
        self.assertEqual(self.status(url), 200)
        self.web.clock.advance(1)
        self.assertEqual(self.status(url), 404)
        self.assertEqual(self.web.get("/-/shares", ANN).json(), [])

    def test_owner_is_gone(self) -> None:
        """With its owner's token a link ends."""
        url = self.url("/d")
        self.web.door._keeper.tokens = parse_token_file("token-of-root-1 name=root", "tokens")
        self.assertEqual(self.status(url), 404)

    def test_owner_without_a_token(self) -> None:
        """One of the daemon's own user shares without a token, where such ones may change things."""
        self.web = self.harness(tokens=TOKENS)
        link = self.share("/d", {})
        self.assertEqual(link["owner"], "anonymous")
        self.assertEqual(self.status(link["url"]), 200)

    def test_replaced(self) -> None:
        """A directory in the place of a shared file is not shared, nor a file in that of a directory."""
        file, directory = self.url("/d/sub/x.txt"), self.url("/d/sub")
        (self.root / "d/sub/x.txt").unlink()
        self.assertEqual(self.status(file), 404)
        self.write("d/sub/x.txt/inside.txt", b"x")
        for below in ("", "/", "/inside.txt", "?json"):
            self.assertEqual(self.status(file + below), 404, below)
        (self.root / "d/sub").rename(self.root / "d/elsewhere")
        self.write("d/sub", b"a file")
        for below in ("", "x.txt", "?json", "?download"):
            self.assertEqual(self.status(directory + below), 404, below)
            self.assertEqual(self.status(directory.rstrip("/")), 404)

    def test_prefix(self) -> None:
        """Behind a reverse proxy's prefix the links carry it."""
        self.web = self.harness(tokens=TOKENS, anonymous=Anonymous.NONE, prefix="/files")
        url = self.url("/d")
        self.assertTrue(url.startswith("/files/-/share/"))
        below = url.removeprefix("/files")
        self.assertIn(f'href="{url}sub/"', self.web.get(below, HTML).text)
        self.assertEqual(self.web.get(below + "sub").field("Location"), url + "sub/")
        self.assertEqual(self.web.get("/-/shares", {**ANN, **HTML}).text.count(f'href="{url}"'), 1)
