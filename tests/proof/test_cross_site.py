"""Pages of other sites change nothing: every endpoint that changes something, by every way that they have."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.proof.browser import MISSING, STRANGER, Document, OtherOrigin, chromium
from tests.proof.commands import DaemonCase
from tests.proof.counts import Tally
from tests.proof.daemon import PATIENCE, Daemon
from tests.proof.page import tree

TOKEN = "a-token-that-may-do-everything-8"
FORM = "application/x-www-form-urlencoded"
_BOUNDARY = "limit"
#: A form with one file in it, as a browser sends it.
_FILE = (
    f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="posted.txt"\r\n'
    f"Content-Type: text/plain\r\n\r\nposted\r\n--{_BOUNDARY}--\r\n"
).encode()
_TUS = {"Tus-Resumable": "1.0.0"}
_NAME = base64.b64encode(b"resumed.txt").decode()
_REQUESTS = Tally("requests from other sites")


class Change(NamedTuple):
    """A request that changes something; `{upload}` and `{share}` in its path are those that are there."""

    method: str
    path: str
    body: bytes = b""
    fields: Mapping[str, str] = {}

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def _form(path: str, body: str) -> Change:
    return Change("POST", path, body.encode(), {"Content-Type": FORM})


#: Each works by itself, and leaves the others something to do.
CHANGES = (
    Change("PUT", "/d/put.txt", b"put"),
    Change("PUT", "/-/files/d/put2.txt", b"put"),
    Change("PUT", "/d/replaced.txt", b"put"),
    Change("DELETE", "/d/deleted.txt"),
    Change("DELETE", "/-/files/d/deleted2.txt"),
    Change("POST", "/d/", _FILE, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}),
    Change("POST", "/-/files/e/", _FILE, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}),
    _form("/-/new/d/", "name=made"),
    _form("/-/move/d/", "entry=moved.txt&to=/e"),
    _form("/-/move/d/", "entry=renamed.txt&name=other.txt"),
    _form("/-/remove/d/", "entry=removed.txt&confirm=1"),
    Change(
        "POST",
        "/-/uploads?dir=/d",
        b"",
        {**_TUS, "Upload-Length": "3", "Upload-Metadata": f"filename {_NAME}"},
    ),
    Change(
        "PATCH",
        "/-/uploads/{upload}",
        b"ab",
        {**_TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"},
    ),
    Change(
        "POST",
        "/-/uploads/{upload}",
        b"cd",
        {
            **_TUS,
            "Upload-Offset": "2",
            "Content-Type": "application/offset+octet-stream",
            "X-HTTP-Method-Override": "PATCH",
        },
    ),
    Change("DELETE", "/-/uploads/{upload}", b"", _TUS),
    _form("/-/shares", "path=/d&seconds=3600"),
    _form("/-/shares/{share}/revoke", ""),
    Change("DELETE", "/-/shares/{second}"),
    Change("POST", "/-/jobs", b'{"path": "/d/f.txt"}', {"Content-Type": "application/json"}),
    Change("GET", "/delete?dir=d&name=gone.txt"),
    Change("POST", "/delete?dir=d&name=gone2.txt"),
)
FILES = "f replaced deleted deleted2 moved renamed removed gone gone2".split()

_MOZILLA = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36"}
#: What a browser adds to a request that another site's page makes; `{ours}` is our own origin.
PROFILES: tuple[Mapping[str, str], ...] = (
    {"Origin": "https://other.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    {"Origin": "https://other.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Origin": "https://other.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    {"Origin": "null", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
    {"Origin": "{ours}", "Sec-Fetch-Site": "same-site"},
    {"Origin": "https://other.example", "Sec-Fetch-Site": "same-origin"},
    # Without the fields, as to a plain-HTTP origin.
    {"Origin": "http://other.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:9"},
    {"Origin": "{https}"},
    {"Origin": "{ours}.other.example"},
    {"Origin": ""},
)


class SiteCase(DaemonCase):
    """A daemon of this user's with something to change, an upload and two shares; they change nothing."""

    def setUp(self) -> None:
        super().setUp()
        for name in FILES:
            self.write(f"root/d/{name}.txt", name.encode())
        (self.root / "e").mkdir()
        tokens = self.write("tokens", f"{TOKEN} name=ann\n".encode(), 0o600)
        self.daemon = self.enterContext(Daemon(self.root, "--token-file", str(tokens)))
        self.ours = self.daemon.url.rstrip("/")
        self.port = urlsplit(self.ours).port
        self.bearer = {"Authorization": f"Bearer {TOKEN}"}
        fields = {**_TUS, "Upload-Length": "6", "Upload-Metadata": f"filename {_NAME}", **self.bearer}
        location = self.ask(Change("POST", "/-/uploads?dir=/e", b"", fields))[1]["Location"]
        self.places = {"upload": location.rpartition("/")[2]}
        for name in ("share", "second"):
            made = self.ask(_form("/-/shares", "path=/d&seconds=3600"), self.bearer)[2]
            self.places[name] = json.loads(made)["id"]

    def ask(
        self, change: Change, fields: Mapping[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, header and body of the answer, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            path = change.path.format(**self.places) if "{" in change.path else change.path
            sent = {"Accept": "application/json", **change.fields, **(fields or {})}
            connection.request(change.method, path, change.body, sent)
            answer = connection.getresponse()
            return answer.status, answer.msg, answer.read()
        finally:
            connection.close()

    def state(self) -> tuple[object, ...]:
        """All that a change can change."""
        looks = (
            self.ask(Change("GET", path), {**self.bearer, **_TUS})
            for path in ("/-/uploads", "/-/shares", "/-/jobs")
        )
        return tree(self.root), *(json.loads(body) for _, _, body in looks)

    def profiles(self) -> Iterator[dict[str, str]]:
        """The profiles, of this daemon."""
        https = self.ours.replace("http:", "https:")
        for profile in PROFILES:
            yield {
                name: value.replace("{ours}", self.ours).replace("{https}", https)
                for name, value in profile.items()
            }

    def cookie(self) -> dict[str, str]:
        """What a browser that has signed in sends."""
        signed = self.ask(_form("/-/sign-in", f"token={TOKEN}"), {"Origin": self.ours, "Accept": "text/html"})
        self.assertEqual(signed[0], 303)
        return {"Cookie": signed[1]["Set-Cookie"].partition(";")[0]}


class TableTests(SiteCase):
    """Every change with every profile, and every way to say who asks that a browser repeats by itself."""

    def test_refused(self) -> None:
        """All are refused, whoever asks; nothing has changed."""
        before = self.state()
        basic = base64.b64encode(f"ann:{TOKEN}".encode()).decode()
        for who in ({}, {"Authorization": f"Basic {basic}"}, self.cookie()):
            for profile in self.profiles():
                for change in CHANGES:
                    status, _, body = self.ask(change, {**_MOZILLA, **who, **profile})
                    self.assertEqual(status, 403, (str(change), profile, who, body))
                    _REQUESTS.add(1)
                # Whoever signs another in, or out, has changed something as well.
                for path in ("/-/sign-in", "/-/sign-out"):
                    status, fields, _ = self.ask(
                        _form(path, f"token={TOKEN}"), {**_MOZILLA, **who, **profile}
                    )
                    self.assertEqual((status, fields["Set-Cookie"]), (403, None), (path, profile, who))
        self.assertEqual(self.state(), before)

    def test_cookie_alone(self) -> None:
        """A cookie changes nothing where the browser does not say where the request comes from."""
        before = self.state()
        for change in CHANGES:
            cookie = self.cookie() | {"X-Forwarded-For": "192.0.2.1"}
            self.assertIn(self.ask(change, cookie)[0], (401, 403), str(change))
        self.assertEqual(self.state(), before)

    def test_no_cors(self) -> None:
        """No answer tells a browser that another site may read it, or send what needs to be allowed."""
        preflight = {
            "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "tus-resumable",
        }
        for change in (*CHANGES, Change("GET", "/"), Change("OPTIONS", "/-/uploads")):
            for method in (change.method, "OPTIONS"):
                fields = {"Origin": "https://other.example", **preflight}
                answer = self.ask(change._replace(method=method), fields)[1]
                found = [name for name in answer if name.lower().startswith("access-control-")]
                self.assertEqual(found, [], (method, str(change)))
                self.assertEqual(answer["Cross-Origin-Resource-Policy"], "same-origin", (method, str(change)))

    def test_control(self) -> None:
        """Our own page's requests are carried out, each of them: so there was something to refuse."""
        ours = {**_MOZILLA, "Origin": self.ours, "Sec-Fetch-Site": "same-origin", **self.cookie()}
        for change in CHANGES:
            before = self.state()
            status, _, body = self.ask(change, self.bearer if change.method == "GET" else ours)
            self.assertLess(status, 400, (str(change), body))
            self.assertNotEqual(self.state(), before, str(change))


#: What a page of another site tries with a method, a URL and a body.
WAYS = {
    "fetch": "([m, u, b]) => fetch(u, {method: m, body: b, credentials: 'include'}).then(() => 0, () => 0)",
    "no-cors": "([m, u, b]) => fetch(u, {method: 'POST', mode: 'no-cors', body: b, credentials: 'include',"
    " headers: {'Content-Type': 'application/x-www-form-urlencoded'}}).then(() => 0, () => 0)",
    "beacon": "([m, u, b]) => navigator.sendBeacon(u, b)",
    "image": "([m, u, b]) => { new Image().src = u }",
    "form": """([m, u, b]) => {
        const form = document.createElement('form'), frame = document.createElement('iframe');
        frame.name = 'hidden';
        Object.assign(form, {action: u, method: 'post', target: 'hidden'});
        for (const [name, value] of new URLSearchParams(b))
            form.append(Object.assign(document.createElement('input'), {name, value}));
        document.body.append(frame, form);
        form.submit();
    }""",
    "file": """([m, u, b]) => {
        const form = new FormData();
        form.append('file', new File(['posted'], 'posted.txt'));
        return fetch(u, {method: 'POST', mode: 'no-cors', body: form}).then(() => 0, () => 0);
    }""",
}


class BrowserTests(SiteCase):
    """Chromium itself, at a page of another site, with a reader who has signed in."""

    if MISSING is not None:
        skip = MISSING

    def test_browser(self) -> None:
        """Whatever such a page does, with scripts or by forms, nothing changes."""
        other = self.enterContext(OtherOrigin({"/": Document("text/html", b"<!DOCTYPE html><p>Hello.")}))
        context = self.enterContext(chromium())
        page = context.new_page()
        page.goto(f"{self.ours}/-/sign-in")
        page.locator("input[name=token]").fill(TOKEN)
        page.locator("main form button").click()
        page.wait_for_url(f"{self.ours}/")
        before = self.state()
        for name in ("127.0.0.1", STRANGER):
            page.goto(f"http://{name}:{other.port}/")
            for change in CHANGES:
                url = self.ours + change.path.format(**self.places)
                for way in WAYS.values():
                    page.evaluate(way, [change.method, url, change.body.decode()])
                    _REQUESTS.add(1, "of a browser")
        page.goto(f"{self.ours}/-/health?the-last-one")
        self.daemon.expect(r"GET /-/health\?the-last-one")
        self.assertEqual(self.state(), before)
