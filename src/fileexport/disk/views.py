"""What a caller may see of a jail, and what it gets: entries, open files."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NamedTuple

from fileexport.disk.calls import Calls
from fileexport.paths import MAX_DEPTH, MAX_NAME, MAX_PATH, RESERVED, RelPath
from fileexport.wire.bounds import clamped

Kind = Literal["file", "directory", "link", "other"]


@dataclass(frozen=True, slots=True)
class View:
    """What a caller may see: everything beneath `base`; names with a leading dot only when `hidden`.

    With `bound` the base is such a thing itself: no link leads there.
    """

    base: RelPath = RelPath()
    hidden: bool = True
    bound: Literal["file", "directory"] | None = None

    def admits(self, name: str) -> bool:
        """Whether a name may be seen at all."""
        return name != RESERVED and (self.hidden or not name.startswith("."))


def is_near_limit(directory: RelPath) -> bool:
    """Whether there are names that make no path behind this one: it would be too long, or too deep."""
    return len(directory.parts) >= MAX_DEPTH or len(os.fsencode(str(directory))) > MAX_PATH - MAX_NAME - 1


_KINDS: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


class Entry(NamedTuple):
    """One entry of a directory. `size` in bytes (0 for a directory), `mtime_ns` since the epoch.

    A link has its own mtime; `size` is its own as well. `mode` is the whole st_mode.
    """

    name: str
    kind: Kind
    size: int
    mtime_ns: int
    mode: int

    @classmethod
    def of(cls, name: str, status: os.stat_result) -> Entry:
        """Describe `name` by what lstat(2) says of it."""
        kind = kind_of(status.st_mode)
        size = 0 if kind == "directory" else status.st_size
        return cls(name, kind, size, clamped(status.st_mtime_ns), status.st_mode)


def kind_of(mode: int) -> Kind:
    """The kind of an st_mode."""
    return _KINDS.get(stat.S_IFMT(mode), "other")


class Opened:
    """An open file or directory and its stat. Close it, or use it in a `with` block."""

    __slots__ = ("_calls", "descriptor", "stat")

    def __init__(self, descriptor: int, status: os.stat_result, calls: Calls) -> None:
        self.descriptor = descriptor
        self.stat = status
        self._calls = calls

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory; otherwise it is a regular file."""
        return stat.S_ISDIR(self.stat.st_mode)

    def read_at(self, buffer: memoryview, offset: int) -> int:
        """Read into a buffer from an offset; the bytes read, 0 at the end. Raises `OSError`."""
        return self._calls.pread(self.descriptor, buffer, offset)

    def stat_now(self) -> os.stat_result:
        """What fstat(2) says of it now; `stat` is as it was opened. Raises `OSError`."""
        return self._calls.fstat(self.descriptor)

    def close(self) -> None:
        """Close the descriptor; a second time does nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            self._calls.close(descriptor)

    def __enter__(self) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
