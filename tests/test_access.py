"""Who is asking: tokens, local processes, and everybody else."""

from __future__ import annotations

from base64 import b64encode
from functools import partial
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from fileexport.config import Anonymous
from fileexport.errors import AuthenticationError
from fileexport.http_sessions import WRONG_TOKEN_DELAY, WRONG_TOKENS
from fileexport.paths import RelPath
from fileexport.token_file import parse_token_file
from fileexport.tokens import Principal, Right, TokenTable
from fileexport.web.access import (
    FORWARDING,
    Act,
    Caller,
    Credentials,
    Doorkeeper,
    Policy,
    Source,
    parse_credentials,
)
from tests.http_client import NOW, OTHER_UID, OWN_UID, Connection, HttpCase, encode

TOKEN, READER, PAST = "fits-every-lock", "reads-everything", "was-right-once"
TOKENS = f"{TOKEN} name=root\n{READER} name=reader may=read\n{PAST} name=past until=2026-12-31\n"
WRONG = {"Authorization": "Bearer not-the-token"}


def basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


class CredentialsTests(SynchronousTestCase):
    """The Authorization header."""

    def test_understood(self) -> None:
        """Bearer and the password of Basic are tokens, in any case and with any white space about them."""
        table = {
            b"Bearer abc": ("abc", Source.BEARER),
            b"bearer   abc ": ("abc", Source.BEARER),
            b"  BEARER abc": ("abc", Source.BEARER),
            b"Bearer a b": ("a b", Source.BEARER),
            b"Bearer ": ("", Source.BEARER),
            b"Bearer": ("", Source.BEARER),
            b"Basic " + b64encode(b"user:abc"): ("abc", Source.BASIC),
            b"basic  " + b64encode(b":abc"): ("abc", Source.BASIC),
            b"Basic " + b64encode(b"user:a:b:c"): ("a:b:c", Source.BASIC),
            b"Basic " + b64encode(b"nobody"): ("", Source.BASIC),
            b"Basic " + b64encode(b"\xff:abc"): ("abc", Source.BASIC),
            b"Basic": ("", Source.BASIC),
        }
        self.assertEqual(
            {field: parse_credentials([field]) for field in table},
            {field: Credentials(*credentials) for field, credentials in table.items()},
        )

    def test_absent(self) -> None:
        """Without the header there are no credentials, which is not the same as wrong ones."""
        self.assertIsNone(parse_credentials([]))

    def test_not_understood(self) -> None:
        """Anything else fails as a wrong token does, and the error does not repeat it."""
        for fields in (
            [b""],
            [b"Digest username=x"],
            [b"abc-secret"],
            [b"Token abc-secret"],
            [b"Bearer abc-secret\xc3\xa9"],
            [b"Basic abc-secret!"],
            [b"Basic YQ"],
            [b"Basic " + b64encode(b"user:abc-secret\xff")],
            [b"Bearer abc-secret", b"Bearer abc-secret"],
        ):
            error = self.assertRaises(AuthenticationError, parse_credentials, fields)
            self.assertNotIn("abc-secret", str(error))


#: Who may be at the other end: whether the listener is loopback, whether somebody forwarded the request, and
#: the user of the peer's socket.
CALLERS = {
    "own user": (True, False, OWN_UID),
    "other user": (True, False, OTHER_UID),
    "root": (True, False, 0),
    "unknown user": (True, False, None),
    "own user's proxy": (True, True, OWN_UID),
    "other user's proxy": (True, True, OTHER_UID),
    "elsewhere": (False, False, None),
    "own user, public listener": (False, False, OWN_UID),
    "proxy, public listener": (False, True, OWN_UID),
}
NOTHING = Right(0)


class AnonymousTests(SynchronousTestCase):
    """What a caller without a token may do."""

    def granted(self, mode: Anonymous, kind: str, *, public: bool) -> Right:
        """All rights that the keeper grants, each asked for by itself."""
        keeper = Doorkeeper(parse_token_file(TOKENS, "tokens"), Policy(mode, lambda: OWN_UID, lambda: public))
        local, forwarded, uid = CALLERS[kind]
        caller = Caller(local, forwarded, lambda: uid)
        rights = NOTHING
        for right, act in product(Right.ALL, Act):
            who = keeper.identify(None, caller, right=right, act=act, now=NOW)
            self.assertTrue(who.is_anonymous)
            if who.may(right):
                rights |= right
        return rights

    def test_auto_with_a_public_root(self) -> None:
        """Every local process reads and the daemon's own user changes; whoever may be forwarded is nobody."""
        local = dict.fromkeys(("other user", "root", "unknown user"), Right.READ)
        expected = dict.fromkeys(CALLERS, NOTHING) | local | {"own user": Right.ALL}
        found = {kind: self.granted(Anonymous.AUTO, kind, public=True) for kind in CALLERS}
        self.assertEqual(found, expected)

    def test_auto_with_a_private_root(self) -> None:
        """Where the root is not for everybody, only the daemon's own user reads."""
        found = {kind: self.granted(Anonymous.AUTO, kind, public=False) for kind in CALLERS}
        self.assertEqual(found, dict.fromkeys(CALLERS, NOTHING) | {"own user": Right.ALL})

    def test_other_modes(self) -> None:
        """The other modes hold for every caller alike."""
        modes = {Anonymous.NONE: NOTHING, Anonymous.READ: Right.READ, Anonymous.ALL: Right.ALL}
        for (mode, rights), kind, public in product(modes.items(), CALLERS, (True, False)):
            self.assertEqual(self.granted(mode, kind, public=public), rights, (mode, kind))

    def test_kernel_is_asked_only_where_it_matters(self) -> None:
        """Who owns the socket is asked for a change, or a private root, by a local caller: never else."""
        asked: list[str] = []

        def ask(kind: str, mode: Anonymous, right: Right, *, public: bool = True) -> None:
            def owner() -> int | None:
                asked.append(kind)
                return uid

            local, forwarded, uid = CALLERS[kind]
            caller = Caller(local, forwarded, owner)
            policy = Policy(mode, lambda: OWN_UID, partial(bool, public))
            keeper = Doorkeeper(parse_token_file("", "tokens"), policy)
            keeper.identify(None, caller, right=right, act=Act.READ, now=NOW)

        ask("own user", Anonymous.AUTO, Right.READ)
        for kind, right in product(("elsewhere", "own user's proxy"), Right.ALL):
            ask(kind, Anonymous.AUTO, right, public=False)
        for mode, right in product((Anonymous.NONE, Anonymous.READ, Anonymous.ALL), Right.ALL):
            ask("own user", mode, right, public=False)
        self.assertEqual(asked, [])
        ask("own user", Anonymous.AUTO, Right.DELETE)
        ask("other user", Anonymous.AUTO, Right.READ, public=False)
        self.assertEqual(asked, ["own user", "other user"])

    def test_hidden_names(self) -> None:
        """Names with a leading dot are seen with a token, and without one where the daemon says so."""
        caller = Caller(True, False, lambda: OWN_UID)
        for hidden in (True, False):
            policy = Policy(Anonymous.AUTO, lambda: OWN_UID, root_is_public=lambda: True, hidden=hidden)
            keeper = Doorkeeper(parse_token_file(TOKENS, "tokens"), policy)
            who = keeper.identify(None, caller, right=Right.DELETE, act=Act.GET, now=NOW)
            self.assertEqual(who.sees_hidden, hidden)
            sent = Credentials(READER, Source.BEARER)
            token = keeper.identify(sent, caller, right=Right.READ, act=Act.READ, now=NOW)
            self.assertTrue(token.sees_hidden)


def lines(fields: dict[bytes, list[bytes]], name: bytes) -> list[bytes]:
    """All lines of a field."""
    return fields.get(name, [])


class OneSession:
    """Somebody is signed in."""

    cookie = "fileexport-1"

    def __init__(self, value: str, who: Principal) -> None:
        self._value, self._who = value, who

    def find(self, value: str, tokens: TokenTable, now: float) -> Principal | None:
        return self._who if value == self._value else None


class TokenTests(SynchronousTestCase):
    """What a caller with a token may do."""

    def setUp(self) -> None:
        self.keeper = Doorkeeper(
            parse_token_file(TOKENS, "tokens"), Policy(Anonymous.ALL, lambda: OWN_UID, lambda: True)
        )

    def who(
        self, token: str, source: Source = Source.BEARER, *, right: Right = Right.READ, act: Act = Act.READ
    ) -> Principal:
        """Who the keeper takes a token's bearer for; the caller is somewhere else."""
        caller = Caller(False, True, lambda: None)
        sent = Credentials(token, source)
        return self.keeper.identify(sent, caller, right=right, act=act, now=NOW)

    def test_right_token(self) -> None:
        """A token is known wherever it comes from, and has its own rights, not the anonymous ones."""
        self.assertEqual(self.who(TOKEN).name, "root")
        self.assertEqual(self.who(READER).rights, Right.READ)

    def test_wrong_token(self) -> None:
        """A wrong, empty or expired token is refused, also where nobody needs one."""
        for token in ("not-the-token", "", TOKEN[:-1], TOKEN + "x", PAST):
            self.assertRaises(AuthenticationError, self.who, token)

    def test_basic_never_authorises_a_changing_get(self) -> None:
        """Basic, which a browser repeats by itself, grants nothing where GET changes something."""
        for right, act in product(Right.ALL, Act):
            who = self.who(TOKEN, Source.BASIC, right=right, act=act)
            self.assertEqual(who.may(right), act is not Act.GET, (right, act))
            self.assertTrue(self.who(TOKEN, right=right, act=act).may(right))

    def test_cookie(self) -> None:
        """A session reads, and changes what a page of our own asked for; one that is over counts as none."""
        reader = Principal("ann", Right.ALL, RelPath())
        sessions = OneSession("right", reader)
        policy = Policy(Anonymous.READ, lambda: OWN_UID, lambda: True)
        keeper = Doorkeeper(parse_token_file(TOKENS, "tokens"), policy, lambda: sessions)
        caller = Caller(False, True, lambda: None)
        for right, act in product(Right.ALL, Act):
            identify = partial(keeper.identify, caller=caller, right=right, act=act, now=NOW)
            who = identify(Credentials("right", Source.COOKIE))
            self.assertEqual(who.may(right), act in (Act.READ, Act.OWN_PAGE), (right, act))
            who = identify(Credentials("wrong", Source.COOKIE))
            self.assertEqual((who.is_anonymous, who.rights), (True, Right.READ))
        # Where nobody can be signed in, a cookie says nothing.
        self.assertTrue(self.who("right", Source.COOKIE).is_anonymous)

    def test_authorization_wins(self) -> None:
        """What stands in Authorization counts, right or wrong; a cookie only where there is none."""
        sessions = OneSession("right", Principal("ann", Right.ALL, RelPath()))
        policy = Policy(Anonymous.NONE, lambda: OWN_UID, lambda: True)
        keeper = Doorkeeper(parse_token_file(TOKENS, "tokens"), policy, lambda: sessions)
        cookie, bearer = [b"fileexport-1=right"], [b"Bearer x"]
        for fields, found in (
            ({b"cookie": cookie}, Credentials("right", Source.COOKIE)),
            ({b"cookie": cookie, b"authorization": bearer}, Credentials("x", Source.BEARER)),
            ({b"cookie": [b"fileexport-2=right"]}, None),
            ({}, None),
        ):
            self.assertEqual(keeper.credentials(partial(lines, fields)), found)
        broken = {b"cookie": cookie, b"authorization": [b"x"]}
        self.assertRaises(AuthenticationError, keeper.credentials, partial(lines, broken))

    def test_visitor(self) -> None:
        """The most that somebody may do, whatever they ask for now: a page has the forms for it."""
        local, elsewhere = Caller(True, False, lambda: OWN_UID), Caller(False, True, lambda: None)
        other = Caller(True, False, lambda: OTHER_UID)
        policy = Policy(Anonymous.AUTO, lambda: OWN_UID, lambda: True)
        keeper = Doorkeeper(parse_token_file(TOKENS, "tokens"), policy)
        for caller, rights in ((local, Right.ALL), (other, Right.READ), (elsewhere, NOTHING)):
            self.assertEqual(keeper.visitor(None, caller, NOW).rights, rights)
            reader = keeper.visitor(Credentials(READER, Source.BASIC), caller, NOW)
            self.assertEqual((reader.name, reader.rights), ("reader", Right.READ))
        self.assertRaises(AuthenticationError, keeper.visitor, Credentials("x", Source.BASIC), local, NOW)

    def test_holders(self) -> None:
        """Who may act under a name: its tokens; under no name whoever may change things without one."""
        for mode, rights in (
            (Anonymous.AUTO, [Right.ALL]),
            (Anonymous.ALL, [Right.ALL]),
            (Anonymous.READ, []),
            (Anonymous.NONE, []),
        ):
            keeper = Doorkeeper(
                parse_token_file(TOKENS, "tokens"), Policy(mode, lambda: OWN_UID, lambda: True)
            )
            self.assertEqual([who.rights for who in keeper.holders("anonymous", NOW)], rights)
            self.assertEqual([who.name for who in keeper.holders("reader", NOW)], ["reader"])
            self.assertEqual(list(keeper.holders("past", NOW)), [])

    def test_tokens_are_replaced_while_it_runs(self) -> None:
        """After a reload only the new tokens count."""
        self.keeper.tokens = parse_token_file("another-token name=new\n", "tokens")
        self.assertRaises(AuthenticationError, self.who, TOKEN)
        self.assertEqual(self.who("another-token").name, "new")


class DoorTests(HttpCase):
    """The same rules through the whole door."""

    def setUp(self) -> None:
        super().setUp()
        self.victim = self.write("victim", b"text")
        self.write(".env", b"hidden")

    def test_local_callers(self) -> None:
        """A process of another user reads and changes nothing; one of the daemon's own user does both."""
        other = self.harness(owner=OTHER_UID)
        self.assertEqual(other.get("/victim").status, 200)
        for target in ("/delete?dir=/&name=victim", "/stop", "/tar?dir=/&name=victim"):
            self.assertEqual(other.get(target).status, 401, target)
        self.assertEqual((self.victim.exists(), other.stops), (True, 0))
        own = self.harness()
        self.assertEqual(own.get("/delete?dir=/&name=victim").status, 200)
        self.assertEqual(own.get("/.env").status, 404)

    def test_forwarding_headers(self) -> None:
        """Any sign that somebody else sent it first makes the caller nobody; a token still counts."""
        harness = self.harness(tokens=TOKENS)
        names = "Forwarded X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Real-IP Via".split()
        self.assertEqual({name.lower().encode() for name in names}, set(FORWARDING))
        for name in names:
            headers = {name: "127.0.0.1"}
            self.assertEqual(harness.get("/victim", headers).status, 401, name)
            self.assertEqual(harness.get("/delete?dir=/&name=victim", headers).status, 401, name)
            self.assertEqual(harness.get("/stop", headers).status, 403, name)
            headers["Authorization"] = f"Bearer {TOKEN}"
            self.assertEqual(harness.get("/victim", headers).status, 200, name)
            self.assertEqual(harness.get("/stop", headers).status, 403, name)
        self.assertEqual((harness.asked, harness.stops, self.victim.exists()), (0, 0, True))

    def test_trusted_proxy(self) -> None:
        """A trusted proxy is never taken for a local caller, with or without a header."""
        harness = self.harness(proxies=["127.0.0.1"])
        self.assertEqual(harness.get("/victim").status, 401)
        self.assertEqual(harness.get("/stop").status, 403)

    def test_stop_is_local(self) -> None:
        """On another listener nobody stops the daemon, whatever their token grants."""
        harness = self.harness(local=False, tokens=TOKENS)
        for method in ("GET", "POST"):
            self.assertEqual(harness.request(method, "/stop").status, 403)
            answer = harness.request(method, "/stop", {"Authorization": f"Bearer {TOKEN}"})
            self.assertEqual(answer.status, 403)
        self.assertEqual(harness.stops, 0)

    def test_token_without_the_right(self) -> None:
        """A token that does not grant what is asked is 403, not 401: another try will not help."""
        harness = self.harness(local=False, tokens=TOKENS)
        headers = {"Authorization": f"Bearer {READER}"}
        self.assertEqual(harness.get("/victim", headers).status, 200)
        answer = harness.get("/delete?dir=/&name=victim", headers)
        self.assertEqual((answer.status, answer.text), (403, "ERROR - the token does not grant this"))
        self.assertEqual(answer.fields("WWW-Authenticate"), [])
        self.assertTrue(self.victim.exists())

    def test_challenge(self) -> None:
        """Without credentials the answer names both ways to send a token, at once."""
        harness = self.harness(local=False, tokens=TOKENS)
        connection = harness.connect()
        connection.send(encode("GET", "/victim", {}, b""))
        answer = connection.receive()
        self.assertEqual(answer.status, 401)
        schemes = [value.partition(" ")[0] for value in answer.fields("WWW-Authenticate")]
        self.assertEqual(schemes, ["Bearer", "Basic"])
        self.assertFalse(connection.closed)
        connection.send(encode("GET", "/victim", {"Authorization": basic("me", TOKEN)}, b""))
        self.assertEqual(connection.receive().body, b"text")

    def test_basic_on_changing_requests(self) -> None:
        """Basic deletes by POST and by DELETE, and never by GET."""
        harness = self.harness(tokens=TOKENS)
        headers = {"Authorization": basic("me", TOKEN)}
        self.assertEqual(harness.get("/delete?dir=/&name=victim", headers).status, 401)
        self.assertTrue(self.victim.exists())
        for method in ("POST", "DELETE"):
            self.write("victim")
            self.assertEqual(harness.request(method, "/delete?dir=/&name=victim", headers).status, 200)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        self.write("victim")
        self.assertEqual(harness.get("/delete?dir=/&name=victim", bearer).status, 200)

    def test_a_token_sees_hidden_names(self) -> None:
        """Names with a leading dot belong to the holders of a token, unless the daemon shows them to all."""
        bearer = {"Authorization": f"Bearer {READER}"}
        harness = self.harness(tokens=TOKENS)
        self.assertEqual(harness.get("/.env", bearer).body, b"hidden")
        self.assertIn(".env", harness.get("/?json", bearer).text)
        self.assertNotIn(".env", harness.get("/?json").text)
        self.assertEqual(self.harness(hidden=True).get("/.env").body, b"hidden")

    def test_open_to_all(self) -> None:
        """The health, the icon and our static files need nothing."""
        harness = self.harness(anonymous=Anonymous.NONE)
        for target in ("/-/health", "/favicon.ico", "/-/static/style.css"):
            self.assertEqual(harness.get(target).status, 200, target)
        self.assertEqual(harness.get("/").status, 401)


class WrongTokenTests(HttpCase):
    """A wrong token costs its sender a second, and after three the connection."""

    def setUp(self) -> None:
        super().setUp()
        self.web = self.harness(tokens=TOKENS)

    def ask(self, connection: Connection) -> bytes:
        """Ask with a wrong token, and wait."""
        connection.send(encode("GET", "/", WRONG, b""))
        early = connection.settle()
        self.web.clock.advance(WRONG_TOKEN_DELAY / 2)
        self.assertEqual(early + connection.settle(), b"")
        self.web.clock.advance(WRONG_TOKEN_DELAY / 2)
        return connection.settle()

    def test_answered_late_and_closed_at_last(self) -> None:
        """Each of three tries is answered after a second; the third closes the connection and says so."""
        connection = self.web.connect()
        answers = [self.ask(connection) for _ in range(WRONG_TOKENS)]
        self.assertEqual([answer[:12] for answer in answers], [b"HTTP/1.1 401"] * WRONG_TOKENS)
        self.assertEqual([b"Connection: close" in answer for answer in answers], [False, False, True])
        self.assertTrue(connection.closed)
        self.assertFalse(connection.aborted)

    def test_a_right_token_is_never_delayed(self) -> None:
        """After a wrong one, a right token is answered at once on the same connection."""
        connection = self.web.connect()
        self.ask(connection)
        connection.send(encode("GET", "/", {"Authorization": f"Bearer {TOKEN}"}, b""))
        self.assertEqual(connection.receive().status, 200)

    def test_others_are_served_meanwhile(self) -> None:
        """While one waits for its answer, other connections are answered."""
        connection = self.web.connect()
        connection.send(encode("GET", "/", WRONG, b""))
        self.assertEqual(self.web.get("/").status, 200)
        self.assertEqual(connection.settle(), b"")

    def test_gone_before_the_answer(self) -> None:
        """Who leaves before the answer leaves nothing behind."""
        connection = self.web.connect()
        connection.send(encode("GET", "/", WRONG, b""))
        connection.lose()
        self.web.clock.advance(WRONG_TOKEN_DELAY)
        self.assertEqual(len(self.web.recorded), 1)

    def test_unreadable_header(self) -> None:
        """A header that is no Bearer and no Basic is treated as a wrong token."""
        connection = self.web.connect()
        connection.send(encode("GET", "/", {"Authorization": "Digest x"}, b""))
        self.assertEqual(connection.settle(), b"")
        self.web.clock.advance(WRONG_TOKEN_DELAY)
        self.assertEqual(connection.receive().status, 401)

    def test_the_token_is_in_no_answer(self) -> None:
        """What was sent as a token is not repeated."""
        self.assertNotIn(b"not-the-token", self.ask(self.web.connect()))
