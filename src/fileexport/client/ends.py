"""The two ends of a synchronisation, alike: what lies in a local or a remote tree, and its files' hashes.

Paths are below the top of a tree, ``a/b``, the empty one for the top itself.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from fileexport.client.answers import not_found
from fileexport.client.moving import TROUBLE, is_fatal
from fileexport.client.names import below, remote_path
from fileexport.client.sources import SourceTree
from fileexport.client.trees import local_manifest
from fileexport.disk.jail import Jail, View
from fileexport.errors import DestinationNotFound, FileNameError
from fileexport.paths import RESERVED
from fileexport.sync.manifest import Entry, Manifest
from fileexport.wire.messages import MAX_INLINE

if TYPE_CHECKING:
    from fileexport.client.blocking import Client
    from fileexport.disk.views import Opened

#: Bytes of a file of patterns, and bytes that are read at once.
MAX_TEXT = 1 << 20
_PIECE = 1 << 20
_TOO_LARGE = "it is larger than 1 MiB"
_LINK = "it is a link: name a directory, as the one that it leads to"
_VIEW = View()


class Tree(Protocol):
    """One end."""

    def place(self, path: str) -> str:
        """Where a path is, as its user knows it."""

    def begin(self) -> Callable[[], Manifest]:
        """Begin to look what is there; what is returned waits for it. Raises `NotADirectoryError`."""

    def texts(self, files: Mapping[str, Entry]) -> Iterator[tuple[str, bytes | str]]:
        """The contents of files of at most `MAX_TEXT` bytes; of any other entry why it has none."""

    def check(self, is_there: bool) -> None:
        """Raise unless the top, which is there or not, can be a destination.

        `DestinationNotFound` where the directory is missing that it lies in, `NotADirectoryError` for a link
        whose times cannot be set, `FileNameError` for our own directory.
        """


class LocalTree:
    """A directory here."""

    def __init__(self, top: str) -> None:
        self.top = top
        self._prefix = os.path.join(top, "")
        self._tree: SourceTree | None = None

    @property
    def tree(self) -> SourceTree:
        """The directory whose files are sent: the one that was looked at. Raises `SourceNotFound`."""
        if self._tree is None:
            self._tree = SourceTree.of(self.top)
        return self._tree

    def place(self, path: str) -> str:
        """The path as this system spells it."""
        return self._prefix + path if path else self.top

    def begin(self) -> Callable[[], Manifest]:
        """All of it is done while the caller waits."""
        return self._look

    def _look(self) -> Manifest:
        self._tree = None
        with suppress(OSError):
            # Before it is listed: what takes its place later is another one.
            self._tree = SourceTree.of(self.top)
        return local_manifest(self.top)

    def texts(self, files: Mapping[str, Entry]) -> Iterator[tuple[str, bytes | str]]:
        """The contents of files of at most `MAX_TEXT` bytes; of any other entry why it has none."""
        with closing(Jail(self.top, durable=False)) as jail:
            for path, entry in files.items():
                why = _no_text(entry)
                if why is not None:
                    yield path, why
                    continue
                try:
                    with jail.open(_VIEW, below(path)) as opened:
                        yield path, os.read(opened.descriptor, MAX_TEXT)
                except OSError as error:
                    yield path, error.strerror or str(error)

    def check(self, is_there: bool) -> None:
        """A link is gone through."""
        path = os.path.abspath(self.top)
        if RESERVED in path.split("/"):
            raise FileNameError(f"{RESERVED} is a name of our own")
        parent = os.path.dirname(path)
        if not is_there and not os.path.isdir(parent):
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


def _no_text(entry: Entry) -> str | None:
    """Why an entry has no content that can be read at once, as far as can be seen."""
    if entry.kind != "file":
        return "it is no file"
    return _TOO_LARGE if entry.size > MAX_TEXT else None


def _words(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


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

    def texts(self, files: Mapping[str, Entry]) -> Iterator[tuple[str, bytes | str]]:
        """The contents of files of at most `MAX_TEXT` bytes; of any other entry why it has none."""
        small, start = [], len(self._prefix) + 1
        for path, entry in files.items():
            why = _no_text(entry)
            if why is not None:
                yield path, why
            elif entry.size <= MAX_INLINE:
                small.append(self.place(path))
            else:
                yield path, self._text(path)
        for place, content in self._client.read_files(small, timeout=self._timeout):
            yield place[start:], content if isinstance(content, bytes) else _words(content)

    def _text(self, path: str) -> bytes | str:
        content = b""
        try:
            for piece in self._client.read(self.place(path), timeout=self._timeout):
                content += piece
                if len(content) > MAX_TEXT:
                    return _TOO_LARGE
        except TROUBLE as error:
            if is_fatal(error):
                raise
            return _words(error)
        return content

    def check(self, is_there: bool) -> None:
        """A link is refused here: the server sets no time through one."""
        if is_there:
            if self.base and self._client.stat(self.top, timeout=self._timeout).type == "link":
                raise NotADirectoryError(errno.ENOTDIR, _LINK, self.top)
            return
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
