"""The daemon's page as a person uses it: what there is to see, and what can be done to it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, Request
from twisted.trial.unittest import SynchronousTestCase

from tests.proof.browser import MISSING, chromium
from tests.proof.daemon import Daemon

#: What Chromium says by itself of an answer that is an error, or of none: no script of ours did.
FAILED = "Failed to load resource:"


class PageCase(SynchronousTestCase):
    """Gives each test a new `root`, and a browser; the daemon starts when the root is filled.

    A test fails where the page says anything on the console, or asks another host for anything. Where a test
    has requests fail on purpose, it says so by `failures`.
    """

    if MISSING is not None:
        skip = MISSING

    #: Options of the browser's context.
    context_options: ClassVar[dict[str, Any]] = {}
    #: Whether requests are to fail: Chromium notes that on the console.
    failures = False

    #: Of the daemon, with a slash at its end.
    url = ""

    def setUp(self) -> None:
        self.base = Path(mkdtemp(prefix="page-", dir=".")).absolute()
        self.root = self.base / "root"
        self.root.mkdir()
        self.said: list[str] = []
        self.asked: set[str] = set()
        self.context: BrowserContext = self.enterContext(chromium(**self.context_options))
        self.page = self.new_page()

    def new_page(self) -> Page:
        """One more tab, watched like the first."""
        page = self.context.new_page()
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.said.append(f"uncaught: {error}"))
        page.on("request", self._request)
        return page

    def start(self, *args: str) -> Daemon:
        """Start the daemon for `root`; the test fails where it does not end well."""
        daemon = self.enterContext(Daemon(self.root, *args))
        self.addCleanup(self._stop, daemon)
        self.url = daemon.url
        return daemon

    def open(self, path: str = "", page: Page | None = None) -> Directory:
        """The page of a directory (below `url`, a slash at its end), as soon as it is all there."""
        directory = Directory(page or self.page)
        directory.page.goto(self.url + path, wait_until="load")
        if self.context_options.get("java_script_enabled", True):
            directory.ready()
        return directory

    def write(self, name: str, content: bytes | None = None) -> Path:
        """A file below the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"content of {name}\n".encode() if content is None else content)
        return path

    def _note(self, message: ConsoleMessage) -> None:
        if not (self.failures and message.text.startswith(FAILED)):
            self.said.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        address = urlsplit(request.url)
        # Chromium shows a PDF with an extension of its own, which loads parts of the browser.
        if address.scheme not in ("data", "blob", "about", "chrome", "chrome-extension"):
            self.asked.add(address.netloc)

    def _check_quiet(self) -> None:
        for page in self.context.pages:
            if not page.is_closed():
                page.evaluate("0")
        self.assertEqual(self.said, [], "the page said something on the console")
        self.assertLessEqual(self.asked, self.hosts(), "the page asked another host")

    def hosts(self) -> set[str]:
        """Where requests may go."""
        return {urlsplit(self.url).netloc}

    def _stop(self, daemon: Daemon) -> None:
        # First of all that is cleaned up: what is open in the browser must not keep the daemon.
        self._check_quiet()
        self.assertEqual(daemon.stop(), 0, daemon.output)
        self.assertNotIn("Traceback", daemon.output)


class Directory:
    """The page of a directory, in a tab."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.rows = page.locator("#listing tbody tr[data-name]")
        self.dialog = page.locator("#dialog")
        self.transfers = page.locator("#transfers li[data-state]")

    def ready(self) -> None:
        """Wait until the page's scripts have taken over."""
        self.page.locator("html[data-scripted]").wait_for()

    def names(self) -> list[str]:
        """The entries as they stand there, in their order; what is not UTF-8 with surrogate escapes."""
        raw: list[str] = self.rows.evaluate_all("rows => rows.map(row => row.dataset.name)")
        return [os.fsdecode(unquote_to_bytes(name)) for name in raw]

    def expect(self, names: Iterable[str]) -> None:
        """Wait until the entries are these, in this order. Raises `AssertionError` past the patience."""
        self.page.wait_for_function(
            """wanted => {
                const rows = document.querySelectorAll('#listing tbody tr[data-name]');
                return Array.from(rows, row => row.dataset.name).join() === wanted;
            }""",
            arg=",".join(map(_raw, names)),
        )

    def row(self, name: str) -> Locator:
        """The row of an entry."""
        return self.page.locator(f'#listing tbody tr[data-name="{_raw(name)}"]')

    def link(self, name: str) -> Locator:
        """What an entry is opened by."""
        return self.row(name).locator("a").first

    def select(self, *names: str) -> None:
        """Tick these entries."""
        for name in names:
            self.row(name).locator("input[name=entry]").check()

    def answer(self, value: str) -> None:
        """Press a button of the question that is open."""
        self.dialog.locator(f'button[value="{value}"]').click()

    def choose(self, *files: Path) -> None:
        """Choose files for the upload."""
        self.page.locator("#upload input[type=file]").first.set_input_files(list(files))

    def drop(self, *paths: Path) -> None:
        """Drag files and directories of this machine over the page, and drop them."""
        session = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path.absolute()) for path in paths], "dragOperationsMask": 1}
        for step in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": step, "x": 200, "y": 200, "data": data})
        session.detach()

    def expect_done(self) -> None:
        """Wait until there are uploads, and all of them are done."""
        self.page.wait_for_function(
            """() => {
                const found = document.querySelectorAll('#transfers li[data-state]');
                return found.length > 0 && Array.from(found).every(li => li.dataset.state === 'done');
            }"""
        )


def tree(top: Path) -> dict[str, bytes | None]:
    """Every file below with its content, and every directory; what goes meanwhile may be missing."""
    found: dict[str, bytes | None] = {}
    for path in sorted(top.rglob("*")):
        if ".fileexport" not in path.parts:
            with suppress(FileNotFoundError):
                found[str(path.relative_to(top))] = None if path.is_dir() else path.read_bytes()
    return found


def _raw(name: str) -> str:
    return quote_from_bytes(os.fsencode(name), safe="")
