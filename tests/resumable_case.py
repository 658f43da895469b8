"""For tests of resumable uploads: a root, a state, and what is asked of both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.calls import Calls
from fileexport.disk.database import Database
from fileexport.disk.jail import Jail
from fileexport.disk.schema import MIGRATIONS
from fileexport.disk.uploads_store import UploadsStore
from fileexport.exports import Exports
from fileexport.paths import RESERVED, RelPath
from fileexport.resumable_files import Wish
from fileexport.tokens import Principal, Right
from tests.watched import open_descriptors

P = RelPath.parse
ALL = Principal("alice", Right.ALL, RelPath())
BOB = Principal("bob", Right.ALL, RelPath())
CONTENT = b"0123456789"


class ResumableCase(SynchronousTestCase):
    """Has a root with an old version of `d/file`, and an empty state; no descriptor may stay."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()) / "root"
        (self.root / "d").mkdir(parents=True)
        self.file = self.root / "d/file"
        self.file.write_text("old")
        before = open_descriptors()
        self.addCleanup(lambda: self.assertEqual(open_descriptors() - before, set()))
        self.time = 1000.0
        database = Database(self.root.parent, MIGRATIONS)
        self.addCleanup(database.close)
        self.store = UploadsStore(database, lambda: self.time)
        self.exports = self.exporting()

    def exporting(self, calls: Calls | None = None) -> Exports:
        """The verbs, over a jail of their own."""
        jail = Jail(str(self.root), calls=calls)
        self.addCleanup(jail.close)
        return Exports(jail)

    def wish(self, name: str | None = "new", size: int = 10, **more: Any) -> Wish:
        """An upload to `d`."""
        return Wish(P("d"), None if name is None else P(name), size)._replace(**more)

    def left(self) -> list[str]:
        """What lies in staging."""
        staging = self.root / RESERVED
        return os.listdir(staging) if staging.exists() else []
