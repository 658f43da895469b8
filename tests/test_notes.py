"""Notes for the end of an archive."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.jail import Jail, View
from fileexport.disk.notes import Notes
from fileexport.disk.staging import Staged
from fileexport.paths import RESERVED, RelPath

LINE = b"0123456789abcdef" * 4096


class NotesTests(SynchronousTestCase):
    """In memory, and in a file."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()
        self.jail = Jail(str(self.root))
        self.addCleanup(self.jail.close)
        self.begun = 0

    def spill(self) -> Staged:
        """Begin a file for what is too much."""
        self.begun += 1
        return self.jail.stage(View(), RelPath.parse("x"))

    def staged(self) -> list[str]:
        """What lies in staging."""
        staging = self.root / RESERVED
        return os.listdir(staging) if staging.exists() else []

    def test_little(self) -> None:
        """A little stays in memory; no file is begun."""
        notes = Notes(self.spill)
        notes.write(b"a")
        notes.write(b"bc")
        self.assertEqual((b"".join(notes.pieces()), notes.size, self.begun), (b"abc", 3, 0))
        notes.close()

    def test_much(self) -> None:
        """Much goes to one file, comes back in order, and the file is gone after a close."""
        for count in (16, 17, 100):
            self.begun = 0
            notes = Notes(self.spill)
            for number in range(count):
                notes.write(b"%d" % number + LINE)
            whole = b"".join(b"%d" % number + LINE for number in range(count))
            self.assertEqual(notes.size, len(whole))
            self.assertEqual(b"".join(notes.pieces()), whole)
            self.assertEqual((self.begun, len(self.staged())), (1, 1))
            notes.close()
            notes.close()
            self.assertEqual(self.staged(), [])

    def test_without_a_file(self) -> None:
        """Where no file may be begun, all stays in memory."""
        notes = Notes()
        for _ in range(40):
            notes.write(LINE)
        self.assertEqual(b"".join(notes.pieces()), LINE * 40)
        notes.close()
