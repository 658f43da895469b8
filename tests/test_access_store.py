"""Sessions, shares and secrets as they survive a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.access_store import AccessStore, SessionRow, ShareRow
from fileexport.disk.state import State
from fileexport.errors import ConflictError
from fileexport.paths import RelPath


def session(number: int, created: float = 1000.0) -> SessionRow:
    """A session with a digest of its own."""
    return SessionRow(b"digest-%d" % number, b"token", b"proof", created, created + 10)


def share(number: int, path: str = "/d", *, owner: str = "ann", is_directory: bool = True) -> ShareRow:
    """A share that lasts from 1000 to 2000."""
    return ShareRow(f"id-{number}", owner, RelPath.parse(path), is_directory, 1000.0 + number, 2000.0)


class AccessStoreTests(SynchronousTestCase):
    """A store in an empty state, which is opened anew between writing and looking."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.state = State(self.directory)
        self.addCleanup(lambda: self.state.close())

    def reopened(self) -> AccessStore:
        """The store as the next daemon finds it."""
        self.state.close()
        self.state = State(self.directory)
        return self.state.access

    def add(self, row: ShareRow, *, own_limit: int = 10, limit: int = 10) -> None:
        """Add a share."""
        self.state.access.add_share(row, own_limit=own_limit, limit=limit)

    def test_secrets(self) -> None:
        """A secret is made once and stays; each name has its own, and so has each state."""
        one, other = self.state.access.secret("one"), self.state.access.secret("other")
        self.assertEqual((len(one), len(other)), (32, 32))
        self.assertNotEqual(one, other)
        store = self.reopened()
        self.assertEqual((store.secret("one"), store.secret("other")), (one, other))
        elsewhere = self.directory / "elsewhere"
        elsewhere.mkdir()
        state = State(elsewhere)
        self.addCleanup(state.close)
        self.assertNotEqual(state.access.secret("one"), one)

    def test_sessions(self) -> None:
        """Sessions come back as they were, the oldest first; what was removed does not."""
        store = self.state.access
        for number, created in ((1, 1002.0), (2, 1001.0), (3, 1003.0)):
            store.add_session(session(number, created))
        store.remove_sessions([b"digest-3", b"nobody's"])
        self.assertEqual(self.reopened().sessions(), [session(2, 1001.0), session(1, 1002.0)])

    def test_sessions_that_make_room(self) -> None:
        """A new session and the end of those that go for it are one step."""
        store = self.state.access
        store.add_session(session(1))
        store.add_session(session(2), gone=[b"digest-1", b"nobody's"])
        self.assertEqual(self.reopened().sessions(), [session(2)])

    def test_shares(self) -> None:
        """Shares come back as they were, whatever bytes their paths are made of."""
        rows = [
            share(1, "/"),
            share(2, "/a b/c"),
            share(3, "/a/f.txt", is_directory=False),
            share(4, "/\udcff\udcfe", is_directory=False),
            share(5, "/ä\n"),
        ]
        for row in rows:
            self.add(row)
        self.assertEqual(self.reopened().shares(), rows)
        self.state.access.remove_shares(["id-2", "nobody's"])
        self.assertEqual(self.reopened().shares(), [rows[0], *rows[2:]])

    def test_limits(self) -> None:
        """Too many shares of one owner, or of all, are refused and change nothing."""
        self.add(share(1))
        self.add(share(2))
        error = self.assertRaises(ConflictError, self.add, share(3), own_limit=2)
        self.assertIn("revoke", str(error))
        self.add(share(3, owner="bob"), own_limit=2)
        self.assertRaises(ConflictError, self.add, share(4, owner="eve"), limit=3)
        self.assertEqual(len(self.reopened().shares()), 3)

    def test_expired_shares_make_room(self) -> None:
        """A share that has expired is forgotten when another one is made, and counts no more."""
        self.add(share(1))
        late = replace(share(2), created=2000.0, expires=3000.0)
        self.add(late, own_limit=1)
        self.assertEqual(self.reopened().shares(), [late])
