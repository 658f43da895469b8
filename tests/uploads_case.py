"""What tests of files that come in through the verbs share: a root, and a look at what is left of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.jail import Jail
from fileexport.exports import Exports
from fileexport.paths import RESERVED, RelPath
from fileexport.tokens import Principal, Right
from tests.watched import open_descriptors

P = RelPath.parse
ALL = Principal("alice", Right.ALL, RelPath())
BOB = Principal("bob", Right.ALL, RelPath())
CONTENT = b"0123456789"


def digest(content: bytes) -> bytes:
    return blake3(content).digest()


class UploadsCase(SynchronousTestCase):
    """Has a root with an old version of `d/file`; no descriptor may stay."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()) / "root"
        (self.root / "d").mkdir(parents=True)
        self.file = self.root / "d/file"
        self.file.write_text("old")
        before = open_descriptors()
        self.addCleanup(lambda: self.assertEqual(open_descriptors() - before, set()))
        self.exports = self.exporting()

    def exporting(self, *directories: str, **how: Any) -> Exports:
        """The verbs, over a jail of their own."""
        jail = Jail(str(self.root), **how)
        self.addCleanup(jail.close)
        return Exports(jail, tuple(map(P, directories)))

    def left(self) -> list[str]:
        """What lies in staging."""
        staging = self.root / RESERVED
        return os.listdir(staging) if staging.exists() else []
