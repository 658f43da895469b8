"""Signing in and out through the whole door, and what a session may do."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from fileexport.config import Anonymous
from fileexport.http_sessions import MAX_FORM, WRONG_TOKEN_DELAY, WRONG_TOKENS
from fileexport.sessions import SESSION_TIME
from fileexport.token_file import parse_token_file
from tests.http_client import OTHER_UID, Connection, HttpCase, HttpHarness, Response, encode

TOKENS = """
token-of-root-1 name=root
token-of-ann-1 name=ann may=read,write,delete
token-of-eve-1 name=eve may=read
"""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
HTML = {"Accept": "text/html,application/xhtml+xml"}
#: What a browser sends with a form of our own page.
PAGE = {**HTML, "Origin": "http://localhost", "User-Agent": "Mozilla/5.0"}
BEARER = {"Authorization": "Bearer token-of-eve-1"}


class SessionsCase(HttpCase):
    """Has a file, and a door that shows nothing without a token."""

    def setUp(self) -> None:
        super().setUp()
        self.victim = self.write("d/f.txt", b"text")
        self.web = self.harness(tokens=TOKENS, anonymous=Anonymous.NONE)

    def sign_in(
        self, token: str = "token-of-ann-1", web: HttpHarness | None = None, **fields: str
    ) -> Response:
        """What the sign-in form is answered."""
        return self.post("/-/sign-in", {"token": token, **fields}, web=web)

    def post(
        self,
        target: str,
        form: dict[str, str],
        headers: dict[str, str] = PAGE,
        web: HttpHarness | None = None,
    ) -> Response:
        """Send a form, and wait as long as a wrong token takes."""
        web = web or self.web
        connection = web.connect()
        connection.send(encode("POST", target, {**FORM, **headers}, urlencode(form).encode()))
        connection.turn()
        web.clock.advance(WRONG_TOKEN_DELAY)
        return connection.receive()

    def cookie(self, answer: Response) -> dict[str, str]:
        """What a browser sends after an answer that set our cookie."""
        return {"Cookie": answer.field("Set-Cookie").partition(";")[0]}

    def session(self, token: str = "token-of-ann-1", web: HttpHarness | None = None) -> dict[str, str]:
        """The cookie of a new session."""
        return self.cookie(self.sign_in(token, web))


class SignInTests(SessionsCase):
    """The form, and what it is answered."""

    def test_page(self) -> None:
        """Whoever asks for the page gets the form, which loads nothing from elsewhere and is not kept."""
        answer = self.web.get("/-/sign-in?next=/d/", HTML)
        self.assertEqual(answer.status, 200)
        self.assertIn('name="next" value="/d/"', answer.text)
        self.assertIn("default-src 'none'", answer.field("Content-Security-Policy"))
        self.assertEqual(answer.field("Cache-Control"), "no-store")
        self.assertEqual(self.web.request("HEAD", "/-/sign-in").status, 200)

    def test_signed_in(self) -> None:
        """The right token gives a cookie that no script reads, and leads to where one wanted to go."""
        answer = self.sign_in(next="/d/?page=2")
        self.assertEqual((answer.status, answer.field("Location")), (303, "/d/?page=2"))
        self.assertRegex(
            answer.field("Set-Cookie"),
            r"\Afileexport-[0-9a-f]{8}=[A-Za-z0-9_-]{43}; "
            r"Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict\Z",
        )
        self.assertEqual(answer.field("Cache-Control"), "no-store")
        self.assertEqual(self.web.get("/d/f.txt", self.cookie(answer)).body, b"text")
        self.assertEqual(self.sign_in(" token-of-ann-1\r\n").status, 303)

    def test_nowhere_else(self) -> None:
        """It leads to no other host."""
        for goal in ("//evil.example/", "https://evil.example/", "/\\evil.example", "/\r\nX: y", ""):
            answer = self.sign_in(next=goal)
            self.assertEqual(answer.field("Location"), "/", goal)
            self.assertEqual(answer.fields("X"), [])

    def test_wrong_token(self) -> None:
        """A wrong token is answered after a second, with the form again, and sets no cookie."""
        connection = self.web.connect()
        body = urlencode({"token": "not-the-token", "next": "/d/"}).encode()
        connection.send(encode("POST", "/-/sign-in", {**FORM, **PAGE}, body))
        self.assertEqual(connection.settle(), b"")
        self.web.clock.advance(WRONG_TOKEN_DELAY)
        answer = connection.receive()
        self.assertEqual((answer.status, answer.fields("Set-Cookie")), (403, []))
        self.assertIn('name="next" value="/d/"', answer.text)
        self.assertIn('role="alert"', answer.text)
        self.assertNotIn("not-the-token", answer.text)

    def test_programs(self) -> None:
        """Who is no browser gets the same cookie, and for a wrong token one line, or a problem."""
        answer = self.post("/-/sign-in", {"token": "token-of-ann-1"}, {})
        self.assertEqual(answer.status, 303)
        answer = self.post("/-/sign-in", {"token": "x"}, {"Accept": "application/json"})
        self.assertEqual((answer.status, answer.json()["status"]), (403, 403))
        self.assertEqual(self.post("/-/sign-in", {"token": "x"}, {"Accept": "text/plain"}).status, 403)

    def test_three_tries(self) -> None:
        """After three wrong tokens the connection ends."""
        connection = self.web.connect()
        for last in range(1, WRONG_TOKENS + 1):
            self.assertFalse(connection.closed)
            connection.send(encode("POST", "/-/sign-in", {**FORM, **PAGE}, b"token=x"))
            connection.turn()
            self.web.clock.advance(WRONG_TOKEN_DELAY)
            answer = connection.receive()
            self.assertEqual("close" in answer.fields("Connection"), last == WRONG_TOKENS)
        connection.settle()
        self.assertTrue(connection.closed)

    def test_mistakes(self) -> None:
        """A body that is no form, or too long, or no token at all signs nobody in."""
        for headers, body, status in (
            ({**PAGE, "Content-Type": "application/json"}, b'{"token":"token-of-ann-1"}', 415),
            ({**PAGE, **FORM}, b"token=" + b"x" * MAX_FORM, 413),
            ({**PAGE, **FORM}, b"token=a&token=b", 400),
        ):
            answer = self.web.request("POST", "/-/sign-in", headers, body)
            self.assertEqual((answer.status, answer.fields("Set-Cookie")), (status, []))
        self.assertEqual(self.post("/-/sign-in", {}).status, 403)
        self.assertEqual(self.post("/-/sign-in?token=token-of-ann-1", {}).status, 403)
        self.assertEqual(self.web.get("/-/sign-in?token=token-of-ann-1", HTML).fields("Set-Cookie"), [])

    def test_another_site(self) -> None:
        """A page of another site signs nobody in or out: it could make its visitor act as somebody else."""
        cookie = self.session()
        for headers in (
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"User-Agent": "Mozilla/5.0"},
        ):
            for target in ("/-/sign-in", "/-/sign-out"):
                form = {"token": "token-of-eve-1"}
                answer = self.post(target, form, {**headers, **cookie})
                self.assertEqual((answer.status, answer.fields("Set-Cookie")), (403, []), (target, headers))
        self.assertEqual(self.web.get("/d/f.txt", cookie).status, 200)

    def test_again(self) -> None:
        """Whoever signs in again, as themselves or another, leaves no session behind."""
        before = self.session()
        answer = self.post("/-/sign-in", {"token": "token-of-eve-1"}, {**PAGE, **before})
        self.assertEqual(self.web.get("/d/f.txt", before).status, 401)
        self.assertEqual(self.web.get("/d/f.txt", self.cookie(answer)).status, 200)

    def test_who_is_signed_in(self) -> None:
        """The page says so to whoever is signed in already."""
        page = self.web.get("/-/sign-in?next=/d/", {**HTML, **self.session()}).text
        self.assertIn("signed in as <bdi>ann</bdi>", page)

    def test_secure(self) -> None:
        """Behind a reverse proxy that speaks TLS the cookie never goes in clear, nor above the prefix."""
        web = self.harness(
            tokens=TOKENS,
            anonymous=Anonymous.NONE,
            hosts=["files.example"],
            public_origin="https://files.example",
            prefix="/files",
        )
        headers = {**HTML, "Host": "files.example", "Origin": "https://files.example"}
        form = {"token": "token-of-ann-1", "next": "/files/d/"}
        answer = self.post("/-/sign-in", form, headers, web)
        self.assertEqual((answer.status, answer.field("Location")), (303, "/files/d/"))
        cookie = answer.field("Set-Cookie")
        self.assertIn("; Path=/files/; ", cookie)
        self.assertTrue(cookie.endswith("; SameSite=Strict; Secure"))
        page = web.get("/d/", {**HTML, "Host": "files.example"}).text
        self.assertIn('action="/files/-/sign-in"', page)
        self.assertIn('name="next" value="/files/d/"', page)
        self.assertEqual(web.get("/d/f.txt", self.cookie(answer)).status, 200)


class SignOutTests(SessionsCase):
    """The other way."""

    def test_signed_out(self) -> None:
        """The session is over, for whoever copied its cookie as well; the browser forgets it."""
        cookie, other = self.session(), self.session()
        answer = self.post("/-/sign-out", {"next": "/d/"}, {**PAGE, **cookie})
        self.assertEqual((answer.status, answer.field("Location")), (303, "/d/"))
        self.assertRegex(answer.field("Set-Cookie"), r"=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict\Z")
        self.assertEqual(self.web.get("/d/f.txt", cookie).status, 401)
        self.assertEqual(self.web.get("/d/f.txt", other).status, 200)

    def test_nobody(self) -> None:
        """Whoever is not signed in is out already; a form is not needed."""
        answer = self.web.request("POST", "/-/sign-out", PAGE)
        self.assertEqual((answer.status, answer.field("Location")), (303, "/"))
        self.assertEqual(self.post("/-/sign-out", {}, {**PAGE, "Cookie": "fileexport-x=y"}).status, 303)

    def test_never_by_get(self) -> None:
        """No link and no image signs anybody out."""
        cookie = self.session()
        answer = self.web.get("/-/sign-out", {**HTML, **cookie})
        self.assertEqual((answer.status, answer.field("Allow")), (405, "POST"))
        self.assertEqual(self.web.get("/d/f.txt", cookie).status, 200)


class SessionTests(SessionsCase):
    """What a session may do."""

    def test_reads(self) -> None:
        """A session reads what its token reads."""
        for target in ("/d/f.txt", "/d/", "/d/?json", "/list?dir=d", "/get?dir=d&name=f.txt"):
            self.assertEqual(self.web.get(target, self.session()).status, 200)
            self.assertEqual(self.web.get(target).status, 401)

    def test_changes_from_our_own_page_only(self) -> None:
        """A change needs a browser's word that our own page asked for it; the cookie alone is not enough."""
        cookie = self.session()
        for headers, status in (
            ({}, 401),
            ({"Referer": "http://localhost/d/"}, 401),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "none"}, 403),
            ({"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"}, 403),
            ({"User-Agent": "Mozilla/5.0"}, 403),
        ):
            for method, target in (("DELETE", "/d/f.txt"), ("POST", "/delete?dir=d&name=f.txt")):
                answer = self.web.request(method, target, {**cookie, **headers})
                self.assertEqual(answer.status, status, (method, headers))
        for number, headers in enumerate(({"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"})):
            self.write(f"d/{number}")
            answer = self.web.request("DELETE", f"/d/{number}", {**cookie, **headers})
            self.assertEqual((answer.status, (self.root / f"d/{number}").exists()), (204, False))
        self.assertTrue(self.victim.exists())

    def test_never_changes_by_get(self) -> None:
        """A GET that changes something is never authorised by a cookie, whatever comes with it."""
        cookie = self.session("token-of-root-1")
        for more in ({}, {"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}):
            for target in ("/delete?dir=d&name=f.txt", "/stop", "/tar?dir=d&name=f.txt"):
                answer = self.web.get(target, {**cookie, **more})
                self.assertEqual(answer.status, 401, (target, more))
        self.assertEqual((self.web.stops, self.victim.exists()), (0, True))

    def test_rights(self) -> None:
        """A session has its token's rights and no others."""
        headers = {**self.session("token-of-eve-1"), "Origin": "http://localhost"}
        self.assertEqual(self.web.request("DELETE", "/d/f.txt", headers).status, 403)

    def test_authorization_wins(self) -> None:
        """Whoever sends a token means it: the cookie beside it is not looked at."""
        cookie = self.session()
        for token, status in (("token-of-eve-1", 200), ("not-the-token", 401)):
            connection = self.web.connect()
            headers = {**cookie, "Authorization": f"Bearer {token}"}
            connection.send(encode("GET", "/d/f.txt", headers, b""))
            connection.turn()
            self.web.clock.advance(WRONG_TOKEN_DELAY)
            self.assertEqual(connection.receive().status, status)
        headers = {**cookie, "Origin": "http://localhost", **BEARER}
        self.assertEqual(self.web.request("DELETE", "/d/f.txt", headers).status, 403)

    def test_over(self) -> None:
        """A session that is over counts as none, at once: the sign-in is shown, or what is open to all."""
        cookie = self.session()
        self.web.clock.advance(SESSION_TIME)
        for value in (cookie, {"Cookie": "fileexport-00000000=x"}, {"Cookie": "nonsense"}):
            answer = self.web.get("/d/", {**HTML, **value})
            self.assertEqual(answer.status, 401)
            self.assertIn('action="/-/sign-in"', answer.text)
        web = self.harness(tokens=TOKENS, owner=OTHER_UID)
        self.assertEqual(web.get("/d/f.txt", cookie).status, 200)

    def test_token_is_gone(self) -> None:
        """With its token a session ends, when the tokens are read again."""
        cookie = self.session()
        keeper = self.web.door._keeper
        keeper.tokens = parse_token_file("token-of-eve-1 name=eve", "tokens")
        self.assertEqual(self.web.get("/d/f.txt", cookie).status, 401)

    def test_token_comes_back(self) -> None:
        """Neither a session nor a link comes back with a token that was taken away."""
        cookie = self.session()
        form = {**FORM, "Authorization": "Bearer token-of-ann-1"}
        link = self.web.request("POST", "/-/shares", form, b"path=%2Fd").text
        self.assertEqual(self.web.get(link).status, 200)
        keeper = self.web.door._keeper
        before = keeper.tokens
        for tokens in (parse_token_file("token-of-eve-1 name=eve", "tokens"), before):
            keeper.tokens = tokens
            self.successResultOf(self.web.forget())
        self.assertEqual((self.web.get("/d/f.txt", cookie).status, self.web.get(link).status), (401, 404))

    def test_not_remembered_with_the_head(self) -> None:
        """Two heads that differ in the cookie's value alone are two askers."""
        cookie = self.session()
        self.assertEqual(self.web.get("/d/f.txt", cookie).status, 200)
        other = {"Cookie": cookie["Cookie"].swapcase().replace("FILEEXPORT", "fileexport")}
        self.assertEqual(self.web.get("/d/f.txt", other).status, 401)

    def test_page(self) -> None:
        """The page shows who is signed in with a way out, and the forms of what they may do."""
        page = self.web.get("/d/", {**HTML, **self.session()}).text
        self.assertIn('id="sign-out"', page)
        self.assertIn("<bdi>ann</bdi>", page)
        self.assertIn('data-may="read write delete"', page)
        page = self.web.get("/d/", {**HTML, **self.session("token-of-eve-1")}).text
        self.assertIn('data-may="read"', page)
        page = self.web.get("/d/", {**HTML, **BEARER}).text
        self.assertNotIn('id="sign-out"', page)

    def test_page_without_a_session(self) -> None:
        """Without a token the page has the forms of what such a one may do, and the sign-in beside less."""
        page = self.harness(owner=OTHER_UID).get("/d/", HTML).text
        self.assertIn('data-may="read"', page)
        self.assertIn('id="sign-in"', page)
        page = self.harness().get("/d/", HTML).text
        self.assertIn('data-may="read write delete"', page)


class UnauthorizedTests(SessionsCase):
    """What whoever is not signed in is answered."""

    def test_browsers(self) -> None:
        """A browser gets the sign-in in place of the page, which leads back, and no window of its own."""
        for headers in (HTML, {**HTML, "User-Agent": "Mozilla/5.0"}):
            answer = self.web.get("/d/?page=2", headers)
            self.assertEqual(answer.status, 401)
            self.assertEqual(answer.fields("WWW-Authenticate"), ["Bearer"])
            self.assertIn('action="/-/sign-in"', answer.text)
            self.assertIn('name="next" value="/d/?page=2"', answer.text)

    def test_scripts_of_a_page(self) -> None:
        """A script gets what it can read, and no window of the browser's opens over its page."""
        answer = self.web.get("/d/?json", {"Accept": "application/json", "User-Agent": "Mozilla/5.0"})
        self.assertEqual((answer.status, answer.json()["status"]), (401, 401))
        self.assertEqual(answer.fields("WWW-Authenticate"), ["Bearer"])

    def test_programs(self) -> None:
        """Everybody else is told of both ways to bring a token."""
        answer = self.web.get("/d/f.txt", {"User-Agent": "curl/8"})
        self.assertEqual(answer.status, 401)
        self.assertEqual(
            answer.fields("WWW-Authenticate"), ["Bearer", 'Basic realm="fileexport", charset="UTF-8"']
        )

    def test_link_from_another_site(self) -> None:
        """Whoever follows a link from elsewhere comes without the cookie, and is offered to go on with it."""
        answer = self.web.get("/d/", {**HTML, "Sec-Fetch-Site": "cross-site"})
        self.assertIn('<a href="/d/">go on</a>', answer.text)
        self.assertNotIn("go on", self.web.get("/d/", {**HTML, "Sec-Fetch-Site": "none"}).text)

    def test_form_without_a_session(self) -> None:
        """A form that comes too late leads back to its page."""
        headers = {**PAGE, "Referer": "http://localhost/d/?page=2"}
        answer = self.web.request("DELETE", "/d/f.txt", headers)
        self.assertEqual(answer.status, 401)
        self.assertEqual(re.findall(r'name="next" value="([^"]*)"', answer.text), ["/d/?page=2"])


class PeerTests(SessionsCase):
    """Who leaves while a wrong token is being thought about."""

    def test_left(self) -> None:
        """Nothing is sent to whoever is gone, and nothing is left behind."""
        connection: Connection = self.web.connect()
        connection.send(encode("POST", "/-/sign-in", {**FORM, **PAGE}, b"token=x"))
        connection.turn()
        connection.lose()
        self.web.clock.advance(WRONG_TOKEN_DELAY)
        self.assertEqual(self.web.clock.getDelayedCalls(), [])
