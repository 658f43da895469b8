"""Chromium looks at a running daemon: it reaches every name, shows files, and nothing makes it do harm."""

from __future__ import annotations

import os
import re
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import quote, unquote_to_bytes, urlsplit
from urllib.request import urlopen

from playwright.sync_api import BrowserContext, Locator, Page, Response
from twisted.trial.unittest import SynchronousTestCase

from tests.proof.browser import MISSING, REBOUND, SHOP, STRANGER, Document, OtherOrigin, chromium
from tests.proof.browser_files import (
    ACTIVE,
    ATTACKS,
    CLICKED,
    DEPARTURES,
    DISGUISED,
    GREETING,
    LOADED,
    READABLE,
    READS,
    WEBM,
    beacon,
    label,
    odd_tree,
    png,
)
from tests.proof.daemon import Daemon


class BrowserTestCase(SynchronousTestCase):
    """Gives each test a new `root`, and a browser; the daemon starts when the root is filled."""

    if MISSING is not None:
        skip = MISSING

    #: Whether the browser runs scripts.
    scripts = True

    def setUp(self) -> None:
        self.root = Path(mkdtemp(prefix="browser-", dir=".")).absolute() / "root"
        self.root.mkdir()
        self.context: BrowserContext = self.enterContext(chromium(java_script_enabled=self.scripts))
        self.page: Page = self.context.new_page()

    def start(self, *args: str) -> Daemon:
        """Start the daemon for `root`; the test fails where it does not end well."""
        daemon = self.enterContext(Daemon(self.root, *args))
        self.addCleanup(self._stop, daemon)
        return daemon

    def _stop(self, daemon: Daemon) -> None:
        # First of all that is cleaned up: what is open in the browser must not keep the daemon.
        self.assertEqual(daemon.stop(), 0, daemon.output)
        self.assertNotIn("Traceback", daemon.output)


class WalkTests(BrowserTestCase):
    """A reader gets everywhere by clicking, whatever the names are, and without scripts."""

    scripts = False

    def setUp(self) -> None:
        super().setUp()
        odd_tree(self.root)

    def test_down_and_up(self) -> None:
        """Every link of every page leads to its own file or directory, and `..` leads back up."""
        daemon = self.start("--hidden")
        self.page.goto(daemon.url)
        clicks = self.walk(self.root)
        self.assertEqual(self.page.url, daemon.url)
        self.assertEqual(clicks, sum(1 for _ in self.root.rglob("*")))

    def test_to_the_root(self) -> None:
        """From the deepest directory, also of one that only `/-/files` reaches, `/` leads to the root."""
        daemon = self.start()
        for top, depth in (("-", 3), ("two words", 4)):
            self.page.goto(daemon.url)
            self.follow(self.page.get_by_role("link", name=top, exact=True))
            for _ in range(depth - 1):
                self.follow(self.page.locator("#listing tbody a").first)
            self.assertEqual(self.page.locator("#listing tbody a[href$='/']").count(), 0, self.page.url)
            self.follow(self.button("/"))
            self.assertEqual(self.page.url, daemon.url)

    def walk(self, directory: Path) -> int:
        """Click every entry below `directory`, whose page is open, and is again afterwards; count them."""
        entries = sorted(directory.iterdir())
        shown = self.page.locator("#listing tbody a").all_text_contents()
        self.assertEqual(sorted(shown), sorted(label(entry.name) for entry in entries))
        clicks = len(entries)
        for entry in entries:
            link = self.page.locator(f'#listing tr[data-name="{quote(os.fsencode(entry.name), safe="")}"] a')
            if entry.is_dir():
                self.follow(link)
                self.assert_at(entry)
                clicks += self.walk(entry)
                self.follow(self.button(".."))
            elif entry.suffix:
                self.assertEqual(self.follow(link).body(), entry.read_bytes())
                self.page.go_back(wait_until="domcontentloaded")
            else:
                self.assert_downloads(link, entry)
        self.assert_at(directory)
        return clicks

    def assert_at(self, directory: Path) -> None:
        """The address bar holds the path of `directory`, and nothing behind it."""
        address = urlsplit(self.page.url)
        path = unquote_to_bytes(address.path).removeprefix(b"/-/files")
        names = directory.relative_to(self.root).parts
        self.assertEqual(path, os.fsencode("/" + "".join(f"{name}/" for name in names)))
        self.assertEqual((address.query, address.fragment), ("", ""))

    def assert_downloads(self, link: Locator, entry: Path) -> None:
        """What no suffix makes known is kept, not shown."""
        with self.page.expect_download() as started:
            link.click()
        self.assertEqual(Path(started.value.path()).read_bytes(), entry.read_bytes())

    def follow(self, link: Locator) -> Response:
        """Click a link; return the answer whose page is shown then."""
        with self.page.expect_navigation(wait_until="domcontentloaded") as navigation:
            link.click()
        self.assertEqual(navigation.value.status, 200, self.page.url)
        return navigation.value

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("navigation").get_by_role("link", name=name, exact=True)


class ShowTests(BrowserTestCase):
    """Files are shown inline."""

    def show(self, name: str, content: bytes) -> Daemon:
        """Open a file by its link in the root's page."""
        (self.root / name).write_bytes(content)
        daemon = self.start()
        self.page.goto(daemon.url)
        self.page.get_by_role("link", name=name).click()
        self.page.locator("#dialog").get_by_role("link", name="Open").click()
        self.page.wait_for_url(daemon.url + name)
        return daemon

    def test_text(self) -> None:
        """A text is shown as it is, in UTF-8, its markup as text."""
        text = '<b>\u00e9\u4e16 \U0001f44d</b> & "all"\nsecond line'
        self.show("notes.md", text.encode())
        self.assertEqual(self.page.locator("pre").text_content(), text)

    def test_image(self) -> None:
        """An image is shown in its own size."""
        self.show("image.png", png(48, 32))
        shown = self.page.locator("img").evaluate("image => [image.naturalWidth, image.naturalHeight]")
        self.assertEqual(shown, [48, 32])

    def test_video(self) -> None:
        """A video plays, and can be moved to another time; the player asks for it by range (206)."""
        # Else the player would only ask whether the copy that the navigation left is fresh.
        session = self.context.new_cdp_session(self.page)
        session.send("Network.enable")
        session.send("Network.setCacheDisabled", {"cacheDisabled": True})
        daemon = self.show("moving.webm", WEBM.read_bytes())
        video = self.page.locator("video")
        shown = video.evaluate(
            """async video => {
                const happened = name => new Promise(resolve => video.addEventListener(name, resolve));
                while (video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) await happened("loadeddata");
                video.muted = true;
                await video.play();
                const sought = happened("seeked");
                video.currentTime = 1;
                await sought;
                return [video.videoWidth, video.videoHeight, video.duration, video.error];
            }"""
        )
        self.assertEqual(shown, [96, 64, 2, None])
        daemon.expect(r'"GET /moving.webm HTTP/1.1" 206 ')


class ScriptTests(BrowserTestCase):
    """No exported file runs a script, or has the browser ask for anything."""

    def setUp(self) -> None:
        super().setUp()
        self.said: list[str] = []
        self.context.on("console", lambda message: self.said.append(message.text))

    def test_careless(self) -> None:
        """Control: served carelessly, each of the files gets its way, so the other tests mean something."""
        documents = {f"/{name}": document for name, document in {**ACTIVE, **LOADED}.items()}
        with OtherOrigin(documents) as origin:
            for name in ACTIVE:
                self.open(f"http://127.0.0.1:{origin.port}/{name}")
                origin.expect(beacon(name))
        self.assertTrue(any(text.startswith("ran ") for text in self.said))

    def test_ours(self) -> None:
        """Served by the daemon, none of them does: no mark in the page, no message, no request."""
        for name, document in {**ACTIVE, **LOADED}.items():
            (self.root / name).write_bytes(document.body)
        daemon = self.start()
        for name in ACTIVE:
            self.open(daemon.url + name)
            self.assert_untouched(name)
        self.page.goto(daemon.url)
        self.assertEqual(self.page.evaluate("localStorage.length"), 0)
        self.page.goto(daemon.url + "-/health?the-last-one")
        daemon.expect(r"GET /-/health\?the-last-one")
        self.assertNotIn("/beacon/", daemon.output)
        self.assertEqual([text for text in self.said if text.startswith("ran ")], [])
        blocked = {text for text in self.said if text.startswith("Blocked script execution in")}
        self.assertGreater(len(blocked), 10)

    def open(self, url: str) -> None:
        """Open a file; click what is there to be clicked."""
        self.page.goto(url)
        if url.rpartition("/")[2] in CLICKED:
            self.page.locator("#click").click()

    def assert_untouched(self, name: str) -> None:
        title, window, text = self.page.evaluate(
            "[document.title, window.name, document.documentElement?.textContent]"
        )
        self.assertNotIn("ran", (title, window), name)
        if name == "styled.xml":
            # It shows what its style sheet makes of it: without that, nothing.
            return
        self.assertIn(GREETING, text, name)
        # What is called a text is one: its markup is there to be read.
        self.assertEqual("<!DOCTYPE html>" in text, name in DISGUISED, name)


class HarmTests(BrowserTestCase):
    """A page of another origin, or an exported one, neither changes nor reads anything through a reader."""

    def setUp(self) -> None:
        super().setUp()
        documents = {"/": Document("text/html", b"<!DOCTYPE html><p>Hello.")}
        documents |= {f"/{name}": document for name, document in READABLE.items()}
        self.other = self.enterContext(OtherOrigin(documents))

    def test_another_port(self) -> None:
        """Nothing is deleted or stopped by a page of the same host: there are Sec-Fetch fields then."""
        self.assert_harmless(self.start(), "127.0.0.1", "127.0.0.1")

    def test_another_name(self) -> None:
        """Nor by a page of another name on plain HTTP: there are no Sec-Fetch fields, often no Origin."""
        self.assert_harmless(self.start("--allow-host", SHOP), SHOP, STRANGER)

    def assert_harmless(self, daemon: Daemon, ours: str, theirs: str) -> None:
        """Try every attack on the daemon, by its name `ours`, from the other server, by its name `theirs`."""
        other = f"http://{theirs}:{self.other.port}/"
        names = sorted((*ATTACKS, *DEPARTURES, "away", "typed"))
        for name in names:
            (self.root / name).write_bytes(b"")
        for path in ("delete?dir=.&name=", "stop?a=b&c="):
            url = daemon.url.replace("127.0.0.1", ours) + path
            self.page.goto(other)
            for name, script in ATTACKS.items():
                self.page.evaluate(script, url + name)
            for name in ATTACKS:
                # Each reached the daemon: that it did no harm is the daemon's doing.
                status = daemon.expect(rf'"[A-Z]+ /{re.escape(path + name)} HTTP/1\.1" (\d+)')[1]
                self.assertIn(status, ("403", "405"), name)
            self.assert_refusals(url, other)
        self.assert_intact(daemon, names)

    def assert_refusals(self, url: str, other: str) -> None:
        """Whatever brings the reader's own page to an address, it shows a refusal."""
        for name, script in DEPARTURES.items():
            self.page.goto(other)
            with self.page.expect_navigation() as navigation:
                self.page.evaluate(script, url + name)
            self.assertEqual(navigation.value.status, 403, name)
        for address in (f"{other}away?{quote(url + 'away')}", f"{url}typed"):
            answer = self.page.goto(address)
            self.assertEqual(answer and answer.status, 403, address)

    def assert_intact(self, daemon: Daemon, names: list[str]) -> None:
        """Every file is there, and what the pages asked for works for somebody who may: it was a danger."""
        self.assertEqual(sorted(os.listdir(self.root)), names)
        with urlopen(f"{daemon.url}delete?dir=.&name=image") as answer:
            self.assertEqual(answer.read(), b"deleted 1 file")
        self.assertNotIn("image", os.listdir(self.root))

    def test_exported_link(self) -> None:
        """A link in an exported HTML file deletes nothing and stops nothing, though a reader follows it."""
        (self.root / "victim").write_bytes(b"")
        daemon = self.start()
        for path in ("/delete?dir=.&name=victim", "/stop"):
            (self.root / "page.html").write_bytes(f"<a id=click href='{path}'>c</a>".encode())
            self.page.goto(daemon.url + "page.html")
            with self.page.expect_navigation() as navigation:
                self.page.locator("#click").click()
            self.assertEqual((navigation.value.status, navigation.value.url), (403, daemon.url[:-1] + path))
        self.assertIn("victim", os.listdir(self.root))

    def test_reading(self) -> None:
        """A page of another origin gets no file, whatever it loads it as; its own server's it does."""
        for name, document in READABLE.items():
            (self.root / name).write_bytes(document.body)
        daemon = self.start("--allow-host", SHOP)
        for ours, theirs in (("127.0.0.1", "127.0.0.1"), (SHOP, STRANGER)):
            other = f"http://{theirs}:{self.other.port}/"
            self.page.goto(other)
            self.assertNotIn(None, self.read(other).values())
            self.assertEqual(set(self.read(daemon.url.replace("127.0.0.1", ours)).values()), {None})

    def read(self, url: str) -> dict[str, object]:
        """What the page that is open gets of each of the readable files at `url`, by name and by how."""
        return {
            f"{name} by {way}": self.page.evaluate(READS[way], url + name)
            for name, way in (
                ("image.png", "img"),
                ("image.png", "fetch"),
                ("image.png", "no-cors"),
                ("moving.webm", "video"),
                ("plain.css", "link"),
                ("plain.js", "script"),
            )
        }

    def test_rebinding(self) -> None:
        """A name that somebody points at the daemon's address shows nothing of it."""
        (self.root / "secret.txt").write_bytes(b"secret")
        daemon = self.start()
        paths = "secret.txt -/files/secret.txt get?dir=/&name=secret.txt list?dir=/ ?json".split()
        for path in ("", *paths):
            answer = self.page.goto(daemon.url.replace("127.0.0.1", REBOUND) + path)
            self.assertEqual(answer and answer.status, 403, path)
            self.assertNotIn("secret", self.page.locator("body").inner_text())
