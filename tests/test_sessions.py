"""Sessions: whose they are, how they end, what is kept of them."""

from __future__ import annotations

import errno
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fileexport import sessions as limits
from fileexport.disk.state import State
from fileexport.sessions import SESSION_TIME, Sessions
from fileexport.token_file import parse_token_file
from fileexport.tokens import Entry, TokenTable, hash_token
from tests.helpers import Refusing

NOW = 1_800_000_000.0
ANN, BOB = "token-of-ann-1", "token-of-bob-1"
TOKENS = f"{ANN} name=ann may=read under=/d\n{BOB} name=bob until=2027-01-31\n"


def table(text: str = TOKENS) -> TokenTable:
    """The tokens of a file."""
    return parse_token_file(text, "tokens")


def entry(token: str = ANN, tokens: TokenTable | None = None) -> Entry:
    """What a table has of a token."""
    found = (tokens or table()).find_entry(token, NOW)
    if found is None:
        raise AssertionError("the token is not known")
    return found


class SessionsTests(SynchronousTestCase):
    """The sessions of a state that is opened anew where a test says so."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.open()
        self.addCleanup(lambda: self.state.close())

    def open(self) -> None:
        """Open the state."""
        self.state = State(self.directory)
        self.disk = Refusing()
        self.sessions = Sessions(self.state.access, self.disk)

    def restart(self) -> None:
        """What a kill and a start make of it."""
        self.state.close()
        self.open()

    def begin(self, token: str = ANN, now: float = NOW) -> str:
        """The value of a new session."""
        return self.successResultOf(Deferred.fromCoroutine(self.sessions.begin(entry(token), now)))

    def end(self, value: str) -> None:
        """End a session."""
        self.successResultOf(Deferred.fromCoroutine(self.sessions.end(value)))

    def name(self, value: str, tokens: TokenTable | None = None, now: float = NOW) -> str | None:
        """The name of whose session it is."""
        who = self.sessions.find(value, tokens or table(), now)
        return who.name if who else None

    def test_principal(self) -> None:
        """Whoever is signed in is who their token says, with its rights and its part of the root."""
        who = self.sessions.find(self.begin(), table(), NOW)
        self.assertEqual(who, entry().principal)

    def test_values(self) -> None:
        """Each session has a value of 256 random bits; nothing like it is known."""
        first, second = self.begin(), self.begin(BOB)
        self.assertEqual((len(first), len(second)), (43, 43))
        self.assertEqual((self.name(first), self.name(second)), ("ann", "bob"))
        for wrong in ("", first[:-1], first + "A", second[:20] + first[20:], first.swapcase(), "\udcff", ANN):
            self.assertIsNone(self.name(wrong), wrong)

    def test_database_has_no_value(self) -> None:
        """Who reads the database finds nothing that signs anybody in, and nothing of a token."""
        values = [self.begin(), self.begin(BOB)]
        self.state.close()
        stored = b"".join(file.read_bytes() for file in self.directory.iterdir())
        for secret in (*values, ANN, BOB, *hash_token(ANN).split(":")[2:]):
            self.assertNotIn(secret.encode(), stored)
        self.open()

    def test_restart(self) -> None:
        """Sessions and the name of their cookie survive a restart; what has ended stays ended."""
        kept, ended, cookie = self.begin(), self.begin(), self.sessions.cookie
        self.end(ended)
        self.restart()
        self.assertEqual((self.name(kept), self.name(ended)), ("ann", None))
        self.assertEqual(self.sessions.cookie, cookie)
        self.assertRegex(cookie, r"\Afileexport-[0-9a-f]{8}\Z")

    def test_end(self) -> None:
        """A session ends alone, and a second time nothing happens."""
        first, second = self.begin(), self.begin()
        for value in (first, first, "nobody's"):
            self.end(value)
        self.assertEqual((self.name(first), self.name(second)), (None, "ann"))
        self.assertEqual(len(self.state.access.sessions()), 1)

    def test_expiry(self) -> None:
        """A session lasts thirty days from its beginning, however much it is used."""
        value = self.begin()
        self.assertEqual(self.name(value, now=NOW + SESSION_TIME - 1), "ann")
        self.assertIsNone(self.name(value, now=NOW + SESSION_TIME))
        self.restart()
        self.assertIsNone(self.name(value, now=NOW + SESSION_TIME))

    def test_expired_sessions_are_forgotten(self) -> None:
        """When a session begins, those that are over leave memory and database."""
        self.begin()
        self.begin(now=NOW + SESSION_TIME)
        self.assertEqual(len(self.state.access.sessions()), 1)
        self.restart()
        self.assertEqual(len(self.state.access.sessions()), 1)

    def test_token_is_gone(self) -> None:
        """A session is over with its token: removed, expired, or another one under its name."""
        ann, bob = self.begin(), self.begin(BOB)
        without = table(f"{BOB} name=bob")
        self.assertEqual((self.name(ann, without), self.name(bob, without)), (None, "bob"))
        rotated = table("another-of-ann name=ann may=read under=/d")
        self.assertIsNone(self.name(ann, rotated))
        # 31 January 2027 is the last day of Bob's token.
        self.assertEqual(self.name(bob, now=1_801_439_999.0), "bob")
        self.assertIsNone(self.name(bob, now=1_801_440_000.0))

    def test_renewed(self) -> None:
        """Sessions of tokens that are gone, or others, do not come back with them; the rest go on."""
        ann, bob = self.begin(), self.begin(BOB)
        for without in (f"{BOB} name=bob", f"another-of-ann name=ann may=read under=/d\n{BOB} name=bob"):
            self.successResultOf(Deferred.fromCoroutine(self.sessions.renew(table(without))))
            for _ in range(2):
                self.assertEqual((self.name(ann), self.name(bob)), (None, "bob"))
                self.restart()
            ann = self.begin()
        self.successResultOf(Deferred.fromCoroutine(self.sessions.renew(table())))
        self.assertEqual((self.name(ann), self.name(bob)), ("ann", "bob"))

    def test_renewed_though_the_disk_refuses(self) -> None:
        """What the disk does not forget counts for as little, and is forgotten by the next renewal."""
        value = self.begin()
        without = table(f"{BOB} name=bob")
        self.disk.error = OSError(errno.ENOSPC, "full")
        self.failureResultOf(Deferred.fromCoroutine(self.sessions.renew(without)), OSError)
        self.assertIsNone(self.name(value, without))
        self.disk.error = None
        self.successResultOf(Deferred.fromCoroutine(self.sessions.renew(without)))
        self.assertEqual((self.name(value), self.state.access.sessions()), (None, []))

    def test_another_token_under_the_same_id(self) -> None:
        """An id is short: a session does not pass to another token that happens to have it."""
        value, found = self.begin(), entry()
        forged = found._replace(verifier=found.verifier._replace(stored_key=bytes(32)))
        self.assertIsNone(self.name(value, TokenTable({found.verifier.id: forged})))

    def test_rights_are_those_of_now(self) -> None:
        """What a token may do is looked up at each request: a reload counts for sessions, too."""
        value = self.begin()
        wider = table(f"{ANN} name=anna may=read,write")
        who = self.sessions.find(value, wider, NOW)
        self.assertEqual(who, entry(ANN, wider).principal)

    def test_limit(self) -> None:
        """At one more than may be, the session of the same token that began first ends, and nobody else's."""
        self.patch(limits, "MAX_OWN_SESSIONS", 3)
        bob = self.begin(BOB)
        values = [self.begin(now=NOW + number) for number in range(5)]
        found = [self.name(value) for value in values]
        self.assertEqual(found, [None, None, "ann", "ann", "ann"])
        self.assertEqual(self.name(bob), "bob")
        self.restart()
        self.assertEqual([self.name(value) for value in values], found)

    def test_limit_of_all(self) -> None:
        """Where all together have as many as may be, a session of the token that has most ends."""
        self.patch(limits, "MAX_SESSIONS", 4)
        bob = self.begin(BOB)
        ann = [self.begin(now=NOW + number) for number in range(1, 4)]
        late = self.begin(BOB, now=NOW + 4)
        others = (bob, late, *ann)
        self.assertEqual([self.name(value) for value in others], ["bob", "bob", None, "ann", "ann"])
        # Both have two: whoever begins a third pays for it, though the other's are older.
        self.assertIsNotNone(self.begin(now=NOW + 5))
        self.assertEqual([self.name(value) for value in others], ["bob", "bob", None, None, "ann"])
        self.assertEqual(len(self.state.access.sessions()), 4)

    def test_disk_refuses(self) -> None:
        """Where the disk refuses, nobody is signed in who was not, and nobody is out who thought so."""
        value = self.begin()
        self.disk.error = OSError(errno.ENOSPC, "full")
        for change in (self.sessions.begin(entry(), NOW), self.sessions.end(value)):
            self.failureResultOf(Deferred.fromCoroutine(change), OSError)
            self.assertEqual((len(self.state.access.sessions()), self.name(value)), (1, "ann"))
