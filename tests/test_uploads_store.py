"""Resumable uploads in the state database."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk import uploads_store as limits
from fileexport.disk.database import Database
from fileexport.disk.schema import MIGRATIONS
from fileexport.disk.uploads_store import KEPT_TIME, Conflict, UploadRow, UploadsStore, new_upload_id


class StoreTests(SynchronousTestCase):
    """Has an empty store, and a clock that stands."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.time = 1000.0
        self.open()
        self.addCleanup(lambda: self.database.close())

    def open(self) -> None:
        """Open it, as after a start."""
        self.database = Database(self.directory, MIGRATIONS)
        self.store = UploadsStore(self.database, lambda: self.time)

    def reopen(self) -> None:
        self.database.close()
        self.open()

    def row(self, path: bytes = b"/a", owner: str = "ann") -> UploadRow:
        """An upload that begins now."""
        return UploadRow(
            new_upload_id(), owner, path, 7, "a YQ==", Conflict.ABORT, None, self.time, self.time
        )

    def add(self, path: bytes = b"/a", owner: str = "ann", limit: int = 10) -> UploadRow:
        row = self.row(path, owner)
        self.assertEqual(self.store.add(row, limit), [])
        return row

    def ids(self, owner: str = "ann") -> list[str]:
        return [row.id for row in self.store.unfinished(owner)]

    def test_kept(self) -> None:
        """All that is known of an upload is there after a start, whatever its path is made of."""
        full = replace(
            self.row(b"/d\xff/\xc3\xa4"),
            size=1 << 50,
            conflict=Conflict.RENAME,
            mtime_ns=-(2**63),
            identity=(2**63, 2**64 - 1),
        )
        plain = self.row()
        for row in (full, plain):
            self.store.add(row, 10)
        self.reopen()
        self.assertEqual(self.store.get(full.id), full)
        self.assertEqual(self.store.get(plain.id), plain)
        self.assertIsNone(self.store.get("unknown"))

    def test_course(self) -> None:
        """What comes, the commit and the end are noted; what is done is no unfinished one."""
        row = self.add()
        self.time += 50
        self.assertEqual(self.store.touch(row.id), self.time)
        self.assertEqual(self.store.get(row.id), replace(row, touched=self.time))
        self.store.committing(row.id, (3, 4))
        [about] = self.store.undecided()
        self.assertEqual(about.identity, (3, 4))
        self.assertEqual(about.expires, self.time + KEPT_TIME)
        self.time += 50
        self.store.finish(row.id)
        self.assertEqual(self.store.get(row.id), replace(about, done=True, metadata="", touched=self.time))
        self.assertEqual([self.ids(), self.store.undecided(), self.store.targets()], [[], [], []])

    def test_commit_that_failed(self) -> None:
        """A commit that was not one is forgotten."""
        row = self.add()
        self.store.committing(row.id, (3, 4))
        self.store.committing(row.id, None)
        self.assertEqual([self.store.get(row.id), self.store.undecided()], [row, []])

    def test_owners(self) -> None:
        """Each owner has a list, oldest first; the paths of all are known."""
        first, second, other = self.add(b"/1"), self.add(b"/2"), self.add(b"/3", "bob")
        self.assertEqual(
            [self.ids(), self.ids("bob"), self.ids("eve")], [[first.id, second.id], [other.id], []]
        )
        self.assertEqual(sorted(self.store.targets()), [b"/1", b"/2", b"/3"])
        self.store.remove(first.id)
        self.assertEqual(self.ids(), [second.id])

    def test_making_way(self) -> None:
        """The one that was touched longest ago makes way, of the same owner, and none that is in use."""
        first, second, third = (self.add() for _ in range(3))
        self.add(owner="bob")
        self.time += 1
        self.store.touch(first.id)
        new = self.row()
        self.assertEqual(self.store.add(new, 3, keep={second.id}), [third])
        self.assertEqual(self.ids(), [first.id, second.id, new.id])
        self.assertIsNone(self.store.add(self.row(), 3, keep=self.ids()))
        self.assertEqual(self.ids(), [first.id, second.id, new.id])

    def test_done_ones_make_no_way(self) -> None:
        """What is done does not count."""
        self.store.finish(self.add(limit=1).id)
        self.add(limit=1)

    def test_expiry(self) -> None:
        """What waits too long is forgotten, done or not, but for what is in use."""
        late, busy, done = self.add(), self.add(), self.add()
        self.store.finish(done.id)
        self.time += KEPT_TIME
        self.store.expire()
        self.assertEqual(self.ids(), [late.id, busy.id])
        fresh = self.add()
        self.time += 1
        self.store.expire(keep={busy.id})
        self.assertEqual(self.ids(), [busy.id, fresh.id])
        self.assertIsNone(self.store.get(done.id))

    def test_many_done(self) -> None:
        """Of those that are done so many are remembered, the newest."""
        self.patch(limits, "KEPT_DONE", 2)
        rows = [self.add() for _ in range(4)]
        for row in rows:
            self.time += 1
            self.store.finish(row.id)
        self.store.expire()
        self.assertEqual([self.store.get(row.id) is not None for row in rows], [False, False, True, True])

    def test_many_done_at_once(self) -> None:
        """Of thousands that are done in a short time no more are remembered, but for some."""
        self.patch(limits, "KEPT_DONE", 4)
        self.patch(limits, "LOOK_EVERY", 2)
        rows = [self.add() for _ in range(10)]
        for number, row in enumerate(rows, 1):
            self.time += 1
            self.store.finish(row.id)
            known = [one.id for one in rows[:number] if self.store.get(one.id)]
            self.assertLess(len(known), 4 + 2)
        self.assertEqual(known, [row.id for row in rows[-4:]])

    def test_diverted(self) -> None:
        """It is known by the name that it gets."""
        row = self.add()
        self.store.divert(row.id, b"/b")
        self.assertEqual(self.store.get(row.id), replace(row, path=b"/b"))

    def test_ids(self) -> None:
        """Ids are random, and fit into a URL and a file's name."""
        ids = {new_upload_id() for _ in range(100)}
        self.assertEqual({len(one) for one in ids}, {22})
        self.assertEqual(len(ids), 100)
        self.assertTrue(all(one.replace("-", "").replace("_", "").isalnum() for one in ids))
