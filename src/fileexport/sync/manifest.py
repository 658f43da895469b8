"""What lies in a tree: each entry's kind, size, time, mode and link target, directory by directory. Pure.

Paths are `str` with slashes, relative to the top of the tree, the empty one for the top itself; names are
spelled as in `fileexport.paths`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal, NamedTuple

from fileexport.paths import MAX_TARGET

#: "other" is what cannot be synchronised: devices, sockets, pipes.
Kind = Literal["file", "directory", "link", "other"]


class Entry(NamedTuple):
    """One entry of a directory. Two that are equal as tuples need no more than a look at their hashes.

    `size` is 0 for all but files, `mode` has the bits 0o777 and is 0 for links, `target` is a link's text.
    """

    kind: Kind
    size: int
    mtime_ns: int
    mode: int
    target: str = ""


class Manifest:
    """A whole tree.

    `folders` has a directory's entries by name; a directory without its folder was not entered or could not
    be read. `unreadable` says of a directory why it, or the rest of it, could not be listed: nothing more is
    known of what it holds, as where it has names that no path can hold (see `omission`). `top` is the
    top directory itself, None where it does not exist. With `is_portable`, only portable names may be new in
    the tree.
    """

    __slots__ = ("folders", "is_portable", "top", "unreadable")

    def __init__(
        self,
        top: Entry | None = None,
        folders: dict[str, dict[str, Entry]] | None = None,
        unreadable: dict[str, str] | None = None,
    ) -> None:
        self.top = top
        self.folders: dict[str, dict[str, Entry]] = {} if folders is None else folders
        self.unreadable: dict[str, str] = {} if unreadable is None else unreadable
        self.is_portable = False

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Every path with its entry: parents before children, the names of a directory sorted."""
        waiting = [""]
        while waiting:
            directory = waiting.pop()
            folder = self.folders.get(directory, {})
            prefix = f"{directory}/" if directory else ""
            below = []
            for name in sorted(folder):
                entry = folder[name]
                yield prefix + name, entry
                if entry.kind == "directory":
                    below.append(prefix + name)
            waiting += reversed(below)

    def get(self, path: str) -> Entry | None:
        """The entry at a path, or None."""
        if not path:
            return self.top
        directory, _, name = path.rpartition("/")
        return self.folders.get(directory, {}).get(name)

    def count(self) -> int:
        """How many entries there are, the top not counted."""
        return sum(map(len, self.folders.values()))


def omission(count: int) -> str:
    """Why a directory is not wholly known that has `count` names which no path can hold."""
    return f"no path can hold {count} of its names: they lie too deep, or their paths are too long"


def leads_inside(path: str, target: str) -> bool:
    """Whether a link at `path` with the text `target` leads to the top of its tree or below, as it is read.

    Such a text is relative, has ``..`` only in front, and not more of them than directories lie between the
    link and the top; it holds no NUL and at most `MAX_TARGET` bytes. Further links on its way are not seen.
    """
    if not target or target.startswith("/") or "\0" in target or len(os.fsencode(target)) > MAX_TARGET:
        return False
    names = [name for name in target.split("/") if name not in ("", ".")]
    upward = next((at for at, name in enumerate(names) if name != ".."), len(names))
    return ".." not in names[upward:] and upward <= path.count("/")
