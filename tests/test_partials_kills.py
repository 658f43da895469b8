"""Partials whose writer dies at their end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from fileexport.disk.partials import JOURNAL, KEPT, Partial
from tests.test_partials import PartialsCase
from tests.test_staging import P
from tests.watched import in_child


class KilledTests(PartialsCase):
    """A writer dies in its commit, or while it throws away what it has."""

    def die(self, end: Callable[[Partial], object], call: str, number: int = 1) -> None:
        """Write it all in a process that dies in front of the N-th such call of its end."""

        def write() -> None:
            left = sys.maxsize

            def kill(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
                nonlocal left
                left -= name == call
                if not left:
                    os._exit(9)

            partial = self.begin(jail=self.watched(kill))
            partial.write(b"0123456789")
            partial.accept()
            left = number
            end(partial)

        self.assertEqual(in_child(write), 9)

    def test_before_the_rename(self) -> None:
        """Up to the rename all of it is kept, whatever time it was given and whoever cleans up."""
        for call in ("fsync", "rename"):
            self.die(lambda partial: partial.commit(mtime_ns=1), call)
            self.assertEqual(self.jail.recover([P("")]), 0)
            partial = self.begin()
            self.assertEqual(partial.offset, 10)
            partial.commit()
            self.assertEqual((self.file.read_bytes(), self.left()), (b"0123456789", []))

    def test_behind_it(self) -> None:
        """Behind it there is nothing but a journal, which goes at once; so when it is thrown away."""
        for end, number in ((Partial.commit, 1), (Partial.discard, 2)):
            self.die(end, "unlink", number)
            self.assertEqual((self.names(KEPT), len(self.names(JOURNAL))), ([], 1))
            self.assertEqual((self.jail.recover([P("")]), self.staging.exists()), (1, False))

    def test_two_names(self) -> None:
        """Where a hard link gave the name, what is left is the committed file: nobody goes on with that."""
        self.die(Partial.commit, "rename")
        [name] = self.names(KEPT)
        self.file.unlink()
        os.link(self.staging / name, self.file)
        self.assertEqual(self.taken_up(), 0)
        self.assertEqual((self.file.read_bytes(), self.left()), (b"0123456789", []))
