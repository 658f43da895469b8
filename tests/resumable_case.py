"""For tests of resumable uploads: a root, a state, and what is asked of both."""

from __future__ import annotations

from typing import Any

from fileexport.disk.database import Database
from fileexport.disk.schema import MIGRATIONS
from fileexport.disk.uploads_store import UploadsStore
from fileexport.resumable_files import Wish
from tests.uploads_case import P, UploadsCase


class ResumableCase(UploadsCase):
    """Has an empty state beside that root."""

    def setUp(self) -> None:
        super().setUp()
        self.time = 1000.0
        database = Database(self.root.parent, MIGRATIONS)
        self.addCleanup(database.close)
        self.store = UploadsStore(database, lambda: self.time)

    def wish(self, name: str | None = "new", size: int = 10, **more: Any) -> Wish:
        """An upload to `d`."""
        return Wish(P("d"), None if name is None else P(name), size)._replace(**more)
