"""Two directories, one of them a server's on loopback; what is in a tree to the last bit and nanosecond."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from fileexport.client.syncing import SyncResult, synchronize_download, synchronize_upload
from fileexport.paths import RESERVED
from fileexport.testing import serving

#: When all that these tests make was last changed.
MTIME = 1_700_000_000_123_456_789


class Found(NamedTuple):
    """An entry: a file's content, a link's target, None for a directory."""

    what: bytes | str | None
    mode: int
    mtime_ns: int


class Link(NamedTuple):
    """A link to be made."""

    target: str


#: What is to be made: content of a file, a link, or None for a directory.
Made = Mapping[str, bytes | Link | None]


def fill(top: Path, entries: Made, mtime_ns: int = MTIME) -> None:
    """Make entries below a directory, and the directories that they are in; all get this time."""
    for name, what in entries.items():
        path = top / name
        if what is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, Link):
            path.symlink_to(what.target)
        else:
            path.write_bytes(what)
            os.utime(path, ns=(mtime_ns, mtime_ns))
    for directory in sorted([top, *(one for one in top.rglob("*") if one.is_dir() and not one.is_symlink())]):
        os.utime(directory, ns=(mtime_ns, mtime_ns))


def snapshot(top: Path) -> dict[str, Found]:
    """All of a tree but our own staging, the top too; the times of links are nobody's business."""
    found = {}
    for path in [top, *sorted(top.rglob("*"))]:
        if RESERVED in path.parts:
            continue
        status = path.lstat()
        name = str(path.relative_to(top))
        mode = stat.S_IMODE(status.st_mode)
        if path.is_symlink():
            found[name] = Found(os.readlink(path), 0, 0)
        elif path.is_dir():
            found[name] = Found(None, mode, status.st_mtime_ns)
        else:
            found[name] = Found(path.read_bytes(), mode, status.st_mtime_ns)
    return found


class SyncCase(SynchronousTestCase):
    """Has a local directory `here`, a remote one `remote`, which is `there` on the disk, and a client."""

    def setUp(self) -> None:
        base = Path(self.mktemp()).absolute()
        self.here, self.there = base / "here", base / "root" / "there"
        self.here.mkdir(parents=True)
        self.there.mkdir(parents=True)
        self.remote = "/there"
        self.server = self.enterContext(serving(base / "root"))
        self.client = self.enterContext(self.server.client())


class BothWays(SyncCase, ABC):
    """A subclass says which is the `source` and which the `target`."""

    source: Path
    target: Path

    @abstractmethod
    def sync(self, **how: Any) -> SyncResult:
        """Make the target equal to the source."""

    def equal(self, **how: Any) -> SyncResult:
        """After a synchronisation with these rules both are equal, and nothing was left out."""
        result = self.sync(**how)
        self.assertEqual(result.problems, [])
        self.assertEqual(snapshot(self.target), snapshot(self.source))
        return result


class Upwards(BothWays):
    """From here to the server."""

    def setUp(self) -> None:
        super().setUp()
        self.source, self.target = self.here, self.there

    def sync(self, **how: Any) -> SyncResult:
        return synchronize_upload(self.client, self.here, self.remote, **how)


class Downwards(BothWays):
    """From the server to here."""

    def setUp(self) -> None:
        super().setUp()
        self.source, self.target = self.there, self.here

    def sync(self, **how: Any) -> SyncResult:
        return synchronize_download(self.client, self.remote, self.here, **how)
