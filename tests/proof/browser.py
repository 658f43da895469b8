"""A real browser for tests, and a second web server, of whoever wishes the daemon ill."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from playwright.sync_api import BrowserContext, sync_playwright

CHROMIUM = shutil.which("chromium")
#: For trial's `skip`: why the browser's tests cannot run here, or None.
MISSING = None if CHROMIUM else "there is no chromium here (Debian's package of that name)"

#: Seconds for each thing that the browser or the other server is waited for; no time is asserted.
PATIENCE = 20.0
#: Names that only the browser knows. To them it sends no Sec-Fetch fields, other than to 127.0.0.1: plain
#: HTTP to a name is no secure context.
SHOP, STRANGER, REBOUND = "shop.test", "stranger.test", "rebound.test"
_ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-features=HttpsUpgrades"
).split()


@contextmanager
def chromium(**options: Any) -> Iterator[BrowserContext]:
    """Start Chromium; yield a context as a new user has it: no cookies, no storage, no cache.

    `options` are those of Playwright's `new_context`.
    """
    rules = ",".join(f"MAP {name} 127.0.0.1" for name in (SHOP, STRANGER, REBOUND))
    arguments = [*_ARGUMENTS, f"--host-resolver-rules={rules}"]
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=arguments) as browser,
        browser.new_context(**options) as context,
    ):
        context.set_default_timeout(PATIENCE * 1000)
        yield context


class Document(NamedTuple):
    """What `OtherOrigin` answers: a media type with its parameters, and a body."""

    content_type: str
    body: bytes


class OtherOrigin:
    """A web server of another origin, as careless as can be: it serves `documents` by their decoded path.

    `/away?TARGET` redirects to TARGET. Whatever else is asked for is 204, so that a page stays where it is.
    All requests are remembered.
    """

    def __init__(self, documents: Mapping[str, Document]) -> None:
        self._documents = documents
        self._asked: set[str] = set()
        self._changed = threading.Condition()

    def __enter__(self) -> OtherOrigin:
        origin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                origin._answer(self)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing on standard error."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server.server_close()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return int(self._server.server_address[1])

    def expect(self, path: str) -> None:
        """Wait until the decoded `path` was asked for. Raises `AssertionError` past `PATIENCE`."""
        with self._changed:
            if not self._changed.wait_for(lambda: path in self._asked, PATIENCE):
                raise AssertionError(f"nobody asked for {path}, but for {sorted(self._asked)}")

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        path = unquote(address.path)
        document = self._documents.get(path)
        with self._changed:
            self._asked.add(path)
            self._changed.notify_all()
        if path == "/away":
            handler.send_response(302)
            handler.send_header("Location", unquote(address.query))
        elif document is None:
            handler.send_response(204)
        else:
            handler.send_response(200)
            handler.send_header("Content-Type", document.content_type)
        # HTTP/1.0: the connection's end ends the body. A browser that goes on may not wait for it.
        with suppress(ConnectionError):
            handler.end_headers()
            handler.wfile.write(document.body if document else b"")
