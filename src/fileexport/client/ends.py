"""The two ends of a synchronisation, alike: what lies in a local or a remote tree, and its files' hashes.

Paths are below the top of a tree, ``a/b``, the empty one for the top itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from fileexport.client.answers import not_found
from fileexport.client.names import below, remote_path
from fileexport.client.trees import local_manifest
from fileexport.disk.jail import Jail, View
from fileexport.errors import DestinationNotFound, FileNameError
from fileexport.sync.manifest import Manifest

if TYPE_CHECKING:
    from fileexport.client.blocking import Client
    from fileexport.disk.views import Opened

#: Bytes of a file of patterns that are read, and bytes that are read at once.
_MAX_TEXT = 1 << 20
_PIECE = 1 << 20
_VIEW = View()


class Tree(Protocol):
    """One end."""

    def place(self, path: str) -> str:
        """Where a path is, as its user knows it."""

    def begin(self) -> Callable[[], Manifest]:
        """Begin to look what is there; what is returned waits for it. Raises `NotADirectoryError`."""

    def text(self, path: str) -> bytes:
        """The content of a small file, of a large one its beginning. Raises `OSError`, `FileExportError`."""

    def check_parent(self) -> None:
        """Raise `DestinationNotFound` unless the directory that the top lies in is there."""


class LocalTree:
    """A directory here."""

    def __init__(self, top: str) -> None:
        self.top = top

    def place(self, path: str) -> str:
        """The path as this system spells it."""
        return os.path.join(self.top, path) if path else self.top

    def begin(self) -> Callable[[], Manifest]:
        """All of it is done while the caller waits."""
        return lambda: local_manifest(self.top)

    def text(self, path: str) -> bytes:
        """The content of a small file."""
        with closing(Jail(self.top, durable=False)) as jail, jail.open(_VIEW, below(path)) as opened:
            return os.read(opened.descriptor, _MAX_TEXT)

    def check_parent(self) -> None:
        """Raise `DestinationNotFound` unless the directory that the top lies in is there."""
        parent = os.path.dirname(os.path.abspath(self.top))
        if not os.path.isdir(parent):
            raise not_found(DestinationNotFound, parent)

    def hashes(self, paths: Sequence[str], is_stopped: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        """BLAKE3 of files. One that cannot be read, or changes meanwhile, is left out."""
        buffer = memoryview(bytearray(_PIECE))
        with closing(Jail(self.top, durable=False)) as jail:
            for path in paths:
                if is_stopped():
                    return
                try:
                    with jail.open(_VIEW, below(path)) as opened:
                        digest = _hash(opened, buffer, is_stopped)
                except (OSError, FileNameError):
                    continue
                if digest is not None:
                    yield path, digest


def _hash(opened: Opened, buffer: memoryview, is_stopped: Callable[[], bool]) -> bytes | None:
    hasher = blake3()
    while got := os.readv(opened.descriptor, [buffer]):
        hasher.update(buffer[:got])
        if is_stopped():
            return None
    before, after = opened.stat, os.fstat(opened.descriptor)
    same = (before.st_size, before.st_mtime_ns, before.st_ctime_ns)
    return hasher.digest() if same == (after.st_size, after.st_mtime_ns, after.st_ctime_ns) else None


class RemoteTree:
    """A directory of the server."""

    def __init__(self, client: Client, top: str, timeout: float | None = None) -> None:
        self._client = client
        self.base = remote_path(top)
        self.top = str(self.base)
        self._prefix = self.top.rstrip("/")
        self._timeout = timeout

    def place(self, path: str) -> str:
        """The absolute remote path."""
        return f"{self._prefix}/{path}" if path else self.top

    def begin(self) -> Callable[[], Manifest]:
        """The server looks while the caller does something else."""
        return self._client.begin_manifest(self.top, timeout=self._timeout)

    def text(self, path: str) -> bytes:
        """The content of a small file."""
        content = b""
        for piece in self._client.read(self.place(path), timeout=self._timeout):
            content += piece
            if len(content) >= _MAX_TEXT:
                break
        return content

    def check_parent(self) -> None:
        """Raise `DestinationNotFound` unless the directory that the top lies in is there."""
        parent = str(self.base.parent)
        try:
            self._client.stat(parent, timeout=self._timeout)
        except (FileNotFoundError, NotADirectoryError):
            raise not_found(DestinationNotFound, parent) from None

    def hashes(self, paths: Sequence[str], fresh: bool) -> Iterator[tuple[str, bytes]]:
        """BLAKE3 of files, with `fresh` read again now. One that cannot be read is left out."""
        asked = [self.place(path) for path in paths]
        start = len(self._prefix) + 1
        for found in self._client.hash_files(asked, fresh=fresh, timeout=self._timeout):
            yield found.path[start:], found.digest


def look(here: LocalTree, there: RemoteTree) -> tuple[Manifest, Manifest]:
    """What lies in both, looked at at the same time."""
    theirs = there.begin()
    return here.begin()(), theirs()


class _Beside:
    """Hashes files here in a thread, while the server hashes its own."""

    def __init__(self, here: LocalTree, paths: Sequence[str]) -> None:
        self._here = here
        self._paths = paths
        self._found: dict[str, bytes] = {}
        self._error: Exception | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fileexport-hashes", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found.update(self._here.hashes(self._paths, self._stopped.is_set))
        except Exception as error:
            self._error = error

    def stop(self) -> None:
        """Nobody waits for it any more."""
        self._stopped.set()

    def result(self) -> dict[str, bytes]:
        """All of them. Raises what went wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found


def hash_both(
    here: LocalTree, there: RemoteTree, ours: Sequence[str], theirs: Sequence[str], *, fresh: bool = False
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """BLAKE3 of files of both sides, worked out at the same time; `fresh`: the server reads its own again."""
    if not ours:
        return {}, dict(there.hashes(theirs, fresh)) if theirs else {}
    beside = _Beside(here, ours)
    try:
        found = dict(there.hashes(theirs, fresh)) if theirs else {}
        return beside.result(), found
    finally:
        beside.stop()
