"""Shares: what opens one, for how long, who may make one, see it and take it back."""

from __future__ import annotations

import errno
import sqlite3
from base64 import urlsafe_b64decode
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fileexport import shares as limits
from fileexport.disk.access_store import ShareRow
from fileexport.disk.database import DATABASE
from fileexport.disk.state import State
from fileexport.errors import BadRequestError, ConflictError
from fileexport.paths import RelPath
from fileexport.shares import ID_LENGTH, MAX_TIME, MIN_TIME, Shared, Shares
from fileexport.token_file import parse_token_file
from fileexport.tokens import Principal, Right
from tests.helpers import Refusing

NOW = 1_800_000_000.0
TOKENS = """
token-of-root-1 name=root
token-of-ann-1 name=ann may=read,write
token-of-bob-1 name=bob may=read,write under=/d until=2027-01-31
token-of-eve-1 name=eve may=read
token-of-drop-1 name=drop may=write,delete
token-of-admin-1 name=admin may=admin
token-of-warden-1 name=warden may=read,admin under=/d
"""
#: Characters of a key.
KEY_LENGTH = 38
T = TypeVar("T")


class SharesCase(SynchronousTestCase):
    """The shares of a state that is opened anew where a test says so."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.tokens = parse_token_file(TOKENS, "tokens")
        self.anonymous: list[Principal] = []
        self.open()
        self.addCleanup(lambda: self.state.close())

    def open(self) -> None:
        """Open the state."""
        self.state = State(self.directory)
        self.disk = Refusing()
        self.shares = Shares(self.state.access, self.disk)

    def restart(self) -> None:
        """What a kill and a start make of it."""
        self.state.close()
        self.open()

    def tamper(self, statement: str, *values: object) -> None:
        """Change the database behind the daemon's back, while it is down."""
        self.state.close()
        connection = sqlite3.connect(self.directory / DATABASE)
        with connection:
            connection.execute(statement, values)
        connection.close()
        self.open()

    def who(self, name: str) -> Principal:
        """Who has the token of a name."""
        found = self.tokens.find(f"token-of-{name}-1", NOW)
        if found is None:
            raise AssertionError(name)
        return found

    def holders(self, owner: str, now: float) -> list[Principal]:
        """Who may act as an owner."""
        return self.anonymous if owner == "anonymous" else self.tokens.holders(owner, now)

    def outcome(self, call: Coroutine[Any, Any, T]) -> T:
        """What a call comes to; its exception is raised."""
        outcome: list[T | Failure] = []
        Deferred.fromCoroutine(call).addBoth(outcome.append)
        [result] = outcome
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def share(
        self,
        path: str = "/d",
        who: str | Principal = "ann",
        *,
        is_directory: bool = True,
        seconds: int = 3600,
        now: float = NOW,
    ) -> ShareRow:
        """A new share."""
        owner = self.who(who) if isinstance(who, str) else who
        return self.outcome(
            self.shares.add(owner, RelPath.parse(path), is_directory=is_directory, seconds=seconds, now=now)
        )

    def find(self, key: str, now: float = NOW) -> Shared | None:
        """What a key opens."""
        return self.shares.find(key, self.holders, now)


class KeyTests(SharesCase):
    """What opens a share, and what does not."""

    def test_key(self) -> None:
        """A key is the id and 16 bytes more, in base64url; it opens its own share, also after a restart."""
        first, second = self.share(), self.share("/e")
        for _ in range(2):
            for row in (first, second):
                key = self.shares.key(row)
                self.assertEqual((len(key), key[:ID_LENGTH]), (KEY_LENGTH, row.id))
                self.assertEqual(len(urlsafe_b64decode(key + "==")), 28)
                found = self.find(key)
                self.assertEqual(found and found.share, row)
            self.restart()

    def test_wrong_keys(self) -> None:
        """No other spelling, no changed character, no id alone, and no key of another share opens one."""
        row, other = self.share(), self.share("/e")
        key = self.shares.key(row)
        wrong = ["", row.id, key[:-1], key + "A", key + "=", "\udcff" * KEY_LENGTH, key.swapcase()]
        wrong += [row.id + self.shares.key(other)[ID_LENGTH:], other.id + key[ID_LENGTH:]]
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        for at in range(KEY_LENGTH):
            # The last character has bits that mean nothing: there is one spelling all the same.
            wrong += [key[:at] + letter + key[at + 1 :] for letter in letters if letter != key[at]]
        for one in wrong:
            self.assertIsNone(self.find(one), one)

    def test_signed(self) -> None:
        """Who writes into the table opens nothing more: path, kind and expiry are signed."""
        row = self.share("/d/f.txt", is_directory=False, seconds=60)
        key = self.shares.key(row)
        place, expires = row.place, row.expires
        for column, value in (
            ("path", b"/d"),
            ("path", b"/d/f.txt/"),
            ("path", b"/d/f.txt|1"),
            ("expires", expires + 1000),
            ("id", "A" * ID_LENGTH),
        ):
            self.tamper(f"UPDATE shares SET {column} = ?", value)
            self.assertIsNone(self.find(key), column)
            self.tamper("UPDATE shares SET id = ?, path = ?, expires = ?", row.id, place, expires)
        self.assertIsNotNone(self.find(key))

    def test_copy_of_the_table(self) -> None:
        """Another daemon that has the rows has not the keys."""
        row = self.share()
        key = self.shares.key(row)
        self.tamper("DELETE FROM secrets")
        self.assertEqual(self.state.access.shares(), [row])
        self.assertIsNone(self.find(key))

    def test_visitor(self) -> None:
        """Whoever follows a link reads the directory, or just the file, and nothing hidden below it."""
        for path, is_directory in (("/d", True), ("/d/f.txt", False), ("/.d", True), ("/d/.f", False)):
            row = self.share(path, is_directory=is_directory)
            found = self.find(self.shares.key(row))
            place = RelPath.parse(path)
            bound: Literal["file", "directory"] = "directory" if is_directory else "file"
            expected = Principal(f"share:{row.id}", Right.READ, place, sees_hidden=False, bound=bound)
            self.assertEqual(found and found.visitor, expected)


class LifeTests(SharesCase):
    """How long a share lives."""

    def test_expiry(self) -> None:
        """It ends at the second that was asked for, and does not come back."""
        key = self.shares.key(self.share(seconds=MIN_TIME, now=NOW + 0.7))
        self.assertIsNotNone(self.find(key, NOW + MIN_TIME - 0.1))
        self.assertIsNone(self.find(key, NOW + MIN_TIME))
        self.restart()
        self.assertIsNone(self.find(key, NOW + MIN_TIME))

    def test_times(self) -> None:
        """A minute to a year may be asked for."""
        for seconds in (MIN_TIME, MAX_TIME):
            self.assertEqual(self.share(seconds=seconds).expires, NOW + seconds)
        for seconds in (0, -1, MIN_TIME - 1, MAX_TIME + 1, 10**30):
            self.assertRaises(BadRequestError, self.share, seconds=seconds)
        self.assertEqual(len(self.state.access.shares()), 2)

    def test_revoked(self) -> None:
        """One that is taken back is gone at once and for good; others stay."""
        row, other = self.share(), self.share()
        self.outcome(self.shares.revoke(row))
        for _ in range(2):
            self.assertIsNone(self.find(self.shares.key(row)))
            self.assertIsNotNone(self.find(self.shares.key(other)))
            self.restart()

    def test_owner_is_gone(self) -> None:
        """It ends with its owner's token, and follows its rights and its part."""
        key = self.shares.key(self.share("/d/e", "bob"))
        for line, lives in (
            ("token-of-bob-1 name=bob may=read,write under=/d", True),
            # The owner is the name and the part of the root: a new token may take over.
            ("another-token-1 name=bob under=/d", True),
            ("", False),
            ("token-of-bob-1 name=bob may=read under=/d", False),
            ("token-of-bob-1 name=bob may=write under=/d", False),
            ("token-of-bob-1 name=bob may=read,write under=/d/e", False),
            ("token-of-bob-1 name=bob may=read,write", False),
            ("token-of-bob-1 name=robert may=read,write under=/d", False),
        ):
            self.tokens = parse_token_file(line, "tokens")
            self.assertEqual(self.find(key) is not None, lives, line)

    def test_renewed(self) -> None:
        """A share is gone for good when no token has its owner's name and part any more."""
        bobs, anns = self.share("/d/e", "bob"), self.share("/d", "ann")
        nobodys = self.share("/d", Principal.anonymous(Right.ALL))
        self.anonymous = [Principal.anonymous(Right.ALL)]
        # An expired token, or one that may less, keeps what comes back with it.
        for line, rows in (
            ("token-of-bob-2 name=bob under=/d may=read until=2026-01-31", [bobs, nobodys]),
            ("token-of-bob-2 name=bob", [nobodys]),
        ):
            self.tokens = parse_token_file(line, "tokens")
            self.outcome(self.shares.renew(self.holders))
            for _ in range(2):
                self.tokens = parse_token_file(TOKENS, "tokens")
                found = [row for row in (bobs, anns, nobodys) if self.find(self.shares.key(row))]
                self.assertEqual(found, rows)
                # Made at one time, they stand in the order of their random ids.
                self.assertCountEqual(self.state.access.shares(), rows)
                self.restart()

    def test_owners_token_expires(self) -> None:
        """A link does not outlive the token that made it: Bob's is good until the end of January."""
        key = self.shares.key(self.share("/d", "bob", seconds=MAX_TIME))
        self.assertIsNotNone(self.find(key, 1_801_439_999.0))
        self.assertIsNone(self.find(key, 1_801_440_000.0))

    def test_owner_without_a_token(self) -> None:
        """What somebody without a token shared lives while such ones may change anything."""
        nobody = Principal.anonymous(Right.ALL, sees_hidden=True)
        key = self.shares.key(self.share("/.d", nobody))
        for rights, sees_hidden, lives in (
            (Right.ALL, True, True),
            (Right.ALL, False, False),
            (Right.READ, True, False),
        ):
            self.anonymous = [Principal.anonymous(rights, sees_hidden=sees_hidden)]
            self.assertEqual(self.find(key) is not None, lives)
        self.anonymous = []
        self.assertIsNone(self.find(key))


class OwnersTests(SharesCase):
    """Who may share, see and revoke."""

    def test_who_may_share_what(self) -> None:
        """Only what one may read, with the right to write, and below one's own part of the root."""
        for name, path in (("eve", "/d"), ("drop", "/d"), ("admin", "/d"), ("bob", "/"), ("bob", "/e")):
            self.assertRaises(BadRequestError, self.share, path, name)
        nobody = Principal.anonymous(Right.ALL)
        self.assertRaises(BadRequestError, self.share, "/d/.git", nobody)
        self.assertEqual(self.state.access.shares(), [])
        for name, path in (("root", "/"), ("ann", "/.d"), ("bob", "/d"), ("bob", "/d/e/f")):
            self.share(path, name)

    def test_who_sees_what(self) -> None:
        """One's own, the newest first; an admin also those of what they may read."""
        made = [
            self.share("/d", "ann").id,
            self.share("/d/e", "bob").id,
            self.share("/.x", "root").id,
            self.share("/e", "ann").id,
        ]
        ann_d, bob_de, root_x, ann_e = made
        open_admin = Principal.anonymous(Right.ALL)
        for who, seen in (
            (self.who("ann"), [ann_e, ann_d]),
            (self.who("bob"), [bob_de]),
            (self.who("root"), [ann_e, root_x, bob_de, ann_d]),
            (self.who("warden"), [bob_de, ann_d]),
            (self.who("admin"), []),
            (self.who("eve"), []),
            (open_admin, [ann_e, bob_de, ann_d]),
        ):
            self.assertEqual([row.id for row in self.shares.seen_by(who, NOW)], seen, who)
            found = [row for row in made if self.shares.get(row, who, NOW)]
            self.assertEqual(sorted(found), sorted(seen), who)

    def test_expired_are_not_seen(self) -> None:
        """What has expired is in no list."""
        row, ann = self.share(seconds=60), self.who("ann")
        self.assertEqual(self.shares.seen_by(ann, NOW + 60), [])
        self.assertIsNone(self.shares.get(row.id, ann, NOW + 60))

    def test_limits(self) -> None:
        """An owner has so many shares, and all have; expired ones do not count."""
        self.patch(limits, "MAX_OWN_SHARES", 2)
        self.patch(limits, "MAX_SHARES", 3)
        self.share(seconds=60)
        self.share()
        self.assertRaises(ConflictError, self.share)
        self.share("/d", "bob")
        self.assertRaises(ConflictError, self.share, "/d", "root")
        self.share(now=NOW + 60)
        self.assertEqual(len(self.shares.seen_by(self.who("root"), NOW + 60)), 3)

    def test_disk_refuses(self) -> None:
        """Where the disk refuses, nothing is shared that was not, and nothing taken back."""
        row = self.share()
        self.disk.error = OSError(errno.ENOSPC, "full")
        add = self.shares.add(self.who("ann"), row.path, is_directory=True, seconds=60, now=NOW)
        for change in (add, self.shares.revoke(row)):
            self.failureResultOf(Deferred.fromCoroutine(change), OSError)
            self.assertEqual(self.shares.seen_by(self.who("root"), NOW), [row])
