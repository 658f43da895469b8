"""Who may do what on the page: signing in and out, behind a proxy with TLS too, and links that are shared."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from playwright.sync_api import Page

from fileexport.keys import generate_keys
from tests.proof.browser import SHOP
from tests.proof.commands import Command
from tests.proof.nginx import Nginx, program
from tests.proof.page import Directory, PageCase, tree

TOKEN = "a-token-that-may-do-everything-9"
#: A daemon whose clock is fast by so many seconds.
_FAST = (
    "import sys, time; real = time.time; time.time = lambda: real() + {seconds}; sys.argv[0] = 'twistd'; "
    "from twisted.scripts.twistd import run; run()"
)


class AccessCase(PageCase):
    """A daemon that lets nobody in without a token."""

    # A page that needs a token is answered with 401, and Chromium notes that.
    failures = True

    def setUp(self) -> None:
        super().setUp()
        self.tokens = self.base / "tokens"
        self.tokens.touch(0o600)
        self.tokens.write_text(f"{TOKEN} name=ann\n")
        self.closed = ("--token-file", str(self.tokens), "--anonymous", "none")
        self.write("d/a.txt")
        self.write("d/e/deep.txt")
        self.write("secret.txt")

    def sign_in(self, token: str = TOKEN) -> None:
        """Fill in the form of the page that asks for a token."""
        self.page.locator("input[name=token]").fill(token)
        with self.page.expect_navigation():
            self.page.locator("main form button").first.click()

    @contextmanager
    def stranger(self) -> Iterator[Page]:
        """A tab of somebody who has not signed in."""
        assert self.context.browser is not None
        with self.context.browser.new_context(**self.context_options) as context:
            yield context.new_page()


class SignInTests(AccessCase):
    """A token, once; then a cookie."""

    def test_in_and_out(self) -> None:
        """Asked for at the door; a wrong one is refused, a right one opens; then it is shut again."""
        self.start(*self.closed)
        self.page.goto(f"{self.url}d/")
        self.assertEqual(self.page.locator("#listing").count(), 0)
        self.sign_in("a-token-that-is-quite-wrong-0")
        self.assertEqual(self.page.locator("#listing").count(), 0)
        self.sign_in()
        self.assertEqual(self.page.url, f"{self.url}d/")
        directory = Directory(self.page)
        directory.ready()
        directory.expect(["e", "a.txt"])
        self.assertIn("ann", self.page.locator("#sign-out").inner_text())
        directory.select("a.txt")
        self.page.locator("#delete").click()
        directory.answer("delete")
        directory.expect(["e"])
        [cookie] = self.context.cookies()
        self.assertEqual((cookie["httpOnly"], cookie["sameSite"], cookie["secure"]), (True, "Strict", False))
        self.assertNotIn(TOKEN, str(cookie))
        with self.page.expect_navigation():
            self.page.locator("#sign-out button").click()
        self.assertEqual(self.context.cookies(), [])
        # What was on the page does not open any more with what the browser had kept.
        self.context.add_cookies([{"name": cookie["name"], "value": cookie["value"], "url": self.url}])
        self.page.goto(f"{self.url}d/")
        self.assertEqual(self.page.locator("#listing").count(), 0)

    def test_over(self) -> None:
        """A session that ends in the middle: the page says so; after signing in elsewhere it goes on."""
        self.start(*self.closed)
        self.page.goto(self.url)
        self.sign_in()
        directory = Directory(self.page)
        directory.ready()
        directory.select("secret.txt")
        kept = self.context.cookies()
        self.context.clear_cookies()
        self.page.locator("#delete").click()
        directory.answer("delete")
        self.page.locator("#session-over").wait_for()
        self.assertIn("secret.txt", tree(self.root))
        self.context.add_cookies([{"name": kept[0]["name"], "value": kept[0]["value"], "url": self.url}])
        # What was selected still is.
        self.page.locator("#delete").click()
        directory.answer("delete")
        directory.expect(["d"])


class ProxyTests(AccessCase):
    """Behind somebody's site: TLS, another name, and a path before ours."""

    context_options: ClassVar[dict[str, Any]] = {"ignore_https_errors": True}

    def test_proxy(self) -> None:
        """Signing in, looking, uploading, deleting, sharing and signing out work below the site's path."""
        program()
        certificate = self.base / "site.pem"
        certificate.write_text(generate_keys()[1])
        (self.base / "nginx").mkdir()
        site = f"""
        ssl_certificate {certificate}; ssl_certificate_key {certificate}; client_max_body_size 0;
        location /export/ {{
          proxy_pass http://daemon/; proxy_http_version 1.1; proxy_request_buffering off;
          proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
        """
        nginx = Nginx(self.base / "nginx", "", [site])
        public = f"https://{SHOP}:{nginx.ports[0]}/export"
        daemon = self.start(*self.closed, "--public-url", public, "--trusted-proxy", "127.0.0.1")
        nginx.daemon = urlsplit(daemon.url).netloc
        self.enterContext(nginx)
        self.url = f"{public}/"
        self.page.goto(f"{public}/d/")
        self.sign_in()
        self.assertEqual(self.page.url, f"{public}/d/")
        [cookie] = self.context.cookies()
        self.assertEqual((cookie["secure"], cookie["path"]), (True, "/export/"))
        directory = Directory(self.page)
        directory.ready()
        directory.expect(["e", "a.txt"])
        file = self.base / "sent.bin"
        file.write_bytes(b"sent" * 1_000_000)
        directory.choose(file)
        directory.expect(["e", "a.txt", "sent.bin"])
        self.assertEqual((self.root / "d/sent.bin").read_bytes(), file.read_bytes())
        directory.select("sent.bin")
        self.page.locator("#share").click()
        directory.answer("share")
        link = directory.dialog.locator("#share-link").input_value()
        self.assertTrue(link.startswith(f"{public}/-/share/"), link)
        with self.stranger() as page:
            with page.expect_download() as started:
                page.evaluate("url => { location = url }", f"{link}?download")
            self.assertEqual(Path(started.value.path()).read_bytes(), file.read_bytes())
        self.page.keyboard.press("Escape")
        self.page.locator("#delete").click()
        directory.answer("delete")
        directory.expect(["e", "a.txt"])
        with self.page.expect_navigation():
            self.page.locator("#sign-out button").click()
        self.assertEqual(self.context.cookies(), [])


class ShareTests(AccessCase):
    """A link for others."""

    def share(self, directory: Directory, name: str, seconds: str = "3600") -> str:
        """Make a link to an entry by the page's dialog."""
        directory.select(name)
        self.page.locator("#share").click()
        directory.dialog.locator("select[name=seconds]").select_option(seconds)
        directory.answer("share")
        link = directory.dialog.locator("#share-link").input_value()
        self.page.keyboard.press("Escape")
        directory.dialog.wait_for(state="hidden")
        directory.row(name).locator("input[name=entry]").uncheck()
        return link

    def test_share(self) -> None:
        """A directory's link shows all below it, read only, and nothing above; it ends when it is revoked."""
        daemon = self.start(*self.closed)
        self.page.goto(self.url)
        self.sign_in()
        directory = Directory(self.page)
        directory.ready()
        link = self.share(directory, "d")
        with self.stranger() as page:
            page.goto(link)
            shared = Directory(page)
            shared.ready()
            shared.expect(["e", "a.txt"])
            for gone in ("#upload", "#new-directory", "#delete", "#move", "#share-directory", "#sign-out"):
                self.assertEqual(page.locator(gone).count(), 0, gone)
            shared.link("e").click()
            shared.expect(["deep.txt"])
            self.assertTrue(page.url.startswith(link), page.url)
            self.assertEqual(page.request.get(f"{link}a.txt").text(), "content of d/a.txt\n")
            for path in ("../secret.txt", "%2e%2e/secret.txt", "/secret.txt", "e/../../secret.txt"):
                self.assertNotIn("secret", page.request.get(link + path).text().replace("secret.txt", ""))
            answer = page.goto(self.url)
            self.assertEqual(answer and answer.status, 401)
            self.page.goto(f"{self.url}-/shares")
            with self.page.expect_navigation():
                self.page.get_by_role("button", name="Revoke").click()
            answer = page.goto(link)
            self.assertEqual(answer and answer.status, 404)
        self.assertNotIn(link.rstrip("/").rpartition("/")[2], daemon.output)

    def test_expires(self) -> None:
        """After its hour a link leads nowhere, and the daemon was restarted in between."""
        daemon = self.start(*self.closed)
        self.page.goto(self.url)
        self.sign_in()
        directory = Directory(self.page)
        directory.ready()
        path = urlsplit(self.share(directory, "secret.txt")).path.lstrip("/")
        with self.stranger() as page:
            self.assertEqual(page.request.get(self.url + path).text(), "content of secret.txt\n")
            for seconds, status in ((3_000, 200), (3_700, 404)):
                daemon.stop()
                options = (
                    "--root",
                    str(self.root),
                    "-p",
                    "0",
                    "--transfer",
                    "none",
                    "--state",
                    f"{self.root}.state",
                )
                code = _FAST.format(seconds=seconds)
                words = (sys.executable, "-c", code, "-n", "--pidfile=", "fileexport", *options, *self.closed)
                with Command(self.root, *words) as daemon:
                    self.assertEqual(page.request.get(daemon.url + path).status, status, seconds)
                    daemon.stop()
