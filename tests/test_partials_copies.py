"""Files that are written from what other files hold."""

from __future__ import annotations

import errno
import os

from blake3 import blake3

from fileexport.disk import partials
from fileexport.errors import ChangedWhileRead
from tests.test_partials import PartialsCase
from tests.watched import NAMES, FailAt, Later


class CopyTests(PartialsCase):
    """Content that is in another file already."""

    def setUp(self) -> None:
        super().setUp()
        base = self.root / "base"
        base.write_bytes(b"abcdefghij")
        self.base = os.open(base, os.O_RDONLY)
        self.addCleanup(os.close, self.base)

    def test_copied(self) -> None:
        """Ranges of another file, in any order and between what is written, are there and hashed."""
        self.patch(partials, "_COPIED", 2)
        partial = self.begin()
        partial.copy_from(self.base, 7, 3)
        partial.write(b"-")
        partial.copy_from(self.base, 0, 5)
        partial.copy_from(self.base, 1, 1)
        self.assertEqual((partial.offset, partial.hasher.digest()), (10, blake3(b"hij-abcdeb").digest()))
        partial.commit()
        self.assertEqual(self.file.read_bytes(), b"hij-abcdeb")

    def test_too_short(self) -> None:
        """Where the other file ends too early, what it had is there, and it can be gone on."""
        partial = self.begin()
        self.assertRaises(ChangedWhileRead, partial.copy_from, self.base, 6, 5)
        self.assertRaises(ChangedWhileRead, partial.copy_from, self.base, 10**15, 1)
        self.assertEqual(partial.offset, 4)
        partial.suspend()
        partial = self.begin()
        self.assertEqual(partial.offset, 4)
        partial.write(b"012345")
        partial.commit()
        self.assertEqual(self.file.read_bytes(), b"ghij012345")

    def test_check(self) -> None:
        """The check may end it between two pieces; what came until then is there."""
        self.patch(partials, "_COPIED", 2)
        left = 3

        def check() -> None:
            nonlocal left
            left -= 1
            if not left:
                raise KeyError

        partial = self.begin()
        self.assertRaises(KeyError, partial.copy_from, self.base, 0, 10, check)
        self.assertEqual(partial.offset, 4)
        partial.suspend()
        self.assertEqual(self.taken_up(), 4)

    def test_failed(self) -> None:
        """Where the other file cannot be read nothing is lost; where the disk fails to write, it is over."""
        for name, ends in (("pread", False), ("write", True)):
            watch = Later()
            jail = self.watched(watch)
            partial = self.begin(jail=jail)
            partial.write(b"01")
            watch.then = FailAt(1, errno.EIO, tuple(NAMES - {name}))
            self.fails(errno.EIO, partial.copy_from, self.base, 0, 8)
            watch.then = None
            self.assertIs(partial.is_broken, ends)
            partial.discard()
