"""What the tests of fsspec's file system share: a server on loopback, its root, a file system of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
from twisted.trial.unittest import SynchronousTestCase

from fileexport.client import chunks
from fileexport.client.remote.filesystem import FileExportFileSystem
from fileexport.paths import RESERVED
from fileexport.testing import serving

TOKEN = "fex1_filesystem-" + "A1b2C3d4" * 5
READER = "fex1_filereader-" + "A1b2C3d4" * 5
MTIME = 1_700_000_000_123_456_789


class FileSystemCase(SynchronousTestCase):
    """`root` is what the server exports, `here` a directory of this machine, `fs` the file system."""

    def setUp(self) -> None:
        self.patch(chunks, "BACKOFF", (0.0,) * len(chunks.BACKOFF))
        # As the installed package's entry point does.
        fsspec.register_implementation("fileexport", FileExportFileSystem, clobber=True)
        base = Path(self.mktemp()).absolute()
        self.root, self.here = base / "root", base / "here"
        self.root.mkdir(parents=True)
        self.here.mkdir()
        self.server = self.enterContext(serving(self.root, token=TOKEN, tokens=f"{READER} may=read\n"))
        self.addCleanup(FileExportFileSystem.clear_instance_cache)
        self.options: dict[str, Any] = {"token": TOKEN}
        self.fs = self.made()

    def made(self, **options: Any) -> Any:
        """A file system with these options beside the usual ones."""
        fs = FileExportFileSystem("127.0.0.1", self.server.port, **{**self.options, **options})
        self.addCleanup(fs.client.close)
        return fs

    def url(self, path: str) -> str:
        """The URL of a path that is spelled as one."""
        return f"fileexport://127.0.0.1:{self.server.port}{path}"

    def put(self, *names: str, content: bytes | None = None) -> None:
        """Files of the root, with this content or their own names, and all of one age."""
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.fsencode(name) if content is None else content)
            os.utime(path, ns=(MTIME, MTIME))

    def held(self, name: str) -> bytes:
        """The content of a file of the root."""
        return (self.root / name).read_bytes()

    def below(self, top: Path | None = None) -> list[str]:
        """What lies below the root, or another directory, in order; without where uploads wait."""
        start = self.root if top is None else top
        found = sorted(str(path.relative_to(start)) for path in start.rglob("*"))
        return [path for path in found if RESERVED not in path]
