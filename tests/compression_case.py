"""A root with sources, and the work of compression over it; disks and meters that do as a test wants."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fileexport.compression import Compression
from fileexport.disk.calls import Calls
from fileexport.disk.jail import Jail
from fileexport.exports import Exports
from fileexport.meter import Meter
from fileexport.paths import RESERVED, RelPath
from fileexport.tokens import Principal, Right
from tests.watched import open_descriptors

P = RelPath.parse
ALL = Principal("someone", Right.ALL, RelPath())
SQL = b"INSERT INTO t VALUES (1, 'x');\n" * 40_000
OLD = b"what was there before"


class Disk(Calls):
    """The plain calls, with a free space of one's own."""

    def __init__(self) -> None:
        self.free: int | None = None
        self.flags = 0

    def fstatvfs(self, descriptor: int) -> os.statvfs_result:
        found = super().fstatvfs(descriptor)
        if self.free is None:
            return found
        # Block size 1: of a million blocks, 10,000 are the reserve.
        return os.statvfs_result((1, 1, 1_000_000, self.free, self.free, 9, 9, 9, self.flags, 255))


class Stopping(Meter):
    """Does something at the N-th check; is interrupted by default."""

    def __init__(self, number: int, then: Callable[[], object] | None = None) -> None:
        super().__init__(lambda: 0.0)
        self._left = number
        self._then = then or self.interrupt

    def check(self) -> None:
        self._left -= 1
        if not self._left:
            self._then()
        super().check()


class Counted(Meter):
    """Does something when the tree has been counted, before it is packed."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__(lambda: 0.0)
        self._then = then

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "files_total" and value is not None:
            self._then()


class CompressionCase(SynchronousTestCase):
    """Has a root with a dump and a directory; nothing may stay open or in staging."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        (self.root / "d" / "sub").mkdir(parents=True)
        (self.root / "d" / "dump.sql").write_bytes(SQL)
        (self.root / "d" / "sub" / "a").write_bytes(b"hello")
        (self.root / "d" / "sub" / ".hidden").write_bytes(b"dot")
        self.before = open_descriptors()
        self.addCleanup(self.nothing_stays)
        self.disk = Disk()
        self.jail = Jail(str(self.root), calls=self.disk)
        self.addCleanup(self.jail.close)
        self.work = Compression(self.jail, 2)
        self.addCleanup(self.work.close)

    def nothing_stays(self) -> None:
        self.assertEqual(open_descriptors() - self.before, set())
        for staging in self.root.rglob(RESERVED):
            self.assertEqual(os.listdir(staging), [])

    def order(
        self, source: str, form: str = "tar.gz", who: Principal = ALL, *directories: str, sums: bool = False
    ) -> dict[str, Any]:
        """An order as it comes back from where it was kept."""
        exports = Exports(self.jail, tuple(map(P, directories)))
        kept: dict[str, Any] = json.loads(json.dumps(exports.compress_order(who, P(source), form, sums=sums)))
        return kept

    def made(self, source: str, form: str = "tar.gz", **how: Any) -> dict[str, Any]:
        """What the work says of an archive that it made."""
        return self.work(self.order(source, form, **how), Meter(lambda: 0.0))

    def fails(self, kind: type[Exception], order: dict[str, Any], meter: Meter | None = None) -> Exception:
        """The work fails so, and what had the archive's name before is untouched."""
        target = self.root / order["target"].lstrip("/")
        target.write_bytes(OLD)
        error: Exception = self.assertRaises(kind, self.work, order, meter or Meter(lambda: 0.0))
        self.assertEqual(target.read_bytes(), OLD)
        return error
