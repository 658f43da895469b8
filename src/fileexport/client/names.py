"""What the client's verbs take and give: remote paths, entries, local files, outcomes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple

from fileexport.paths import RelPath
from fileexport.wire import messages as m

if TYPE_CHECKING:
    from fileexport.client.sources import SourceTree

#: How a local file is opened to be sent: a FIFO does not make us wait, a terminal does not become ours.
SOURCE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Kind = Literal["file", "directory", "link", "other"]


class RemoteEntry(NamedTuple):
    """One entry of the server. `size` is in bytes, 0 for a directory; `mtime_ns` since 1970, UTC.

    `path` is seen from the directory that was listed (``a/b``); after `stat` it is the absolute path.
    """

    path: str
    type: Kind
    size: int
    mtime_ns: int


class RemoteHash(NamedTuple):
    """Size and BLAKE3 of one file; `path` is seen from the path asked for, empty for that itself."""

    path: str
    size: int
    digest: bytes


class RemoteJob(NamedTuple):
    """A job of the server. Paths are absolute, `created` is in nanoseconds since 1970, UTC."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    path: str
    target: str
    created: int
    bytes_done: int
    bytes_total: int | None
    error: str | None

    @classmethod
    def of(cls, row: m.JobRow) -> RemoteJob:
        """Read a row of the wire."""
        paths = str(row.path), str(row.target)
        error = None if row.error is None else plain_text(row.error)
        return cls(row.id, row.state, *paths, row.created, row.bytes_done, row.bytes_total, error)


class LocalFile(NamedTuple):
    """A file here and there: `path` below the remote directory (``a/b``), `local` as it is spelled here.

    One to be sent may lie in a `tree`: then no link below the top of that is followed to it.
    """

    path: str
    local: str
    size: int
    mtime_ns: int
    tree: SourceTree | None = None


class Outcome(NamedTuple):
    """What became of one small file: `error` is None where it has arrived."""

    file: LocalFile
    error: Exception | None


def remote_path(text: str | os.PathLike[str]) -> RelPath:
    """Read an absolute remote path.

    Raises ValueError where it is relative, and `FileNameError` where a name in it cannot be one.
    """
    spelled = os.fspath(text)
    if not isinstance(spelled, str) or not spelled.startswith("/"):
        # A URL may hold a token, which no error repeats.
        shown = "this one" if ":" in str(spelled) else repr(spelled)
        raise ValueError(f"a remote path is absolute: {shown} does not begin with a slash")
    return RelPath.parse(spelled)


def below(text: str) -> RelPath:
    """Read a path below a directory (``a/b``); raises `FileNameError` for any other spelling."""
    return RelPath(text.split("/"))


def plain_text(words: str) -> str:
    """What came from the server as one line that a terminal may show."""
    return words if words.isprintable() else "".join(char if char.isprintable() else "?" for char in words)
