"""What a transfer takes: globs, and names that exist already. Pure.

Paths are `str` with slashes, relative, the empty one for the top; the same code serves both sides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import translate
from typing import Literal, get_args

#: What is done about a file whose name exists at the destination.
Conflict = Literal["abort", "skip", "replace", "rename"]
CONFLICTS: tuple[Conflict, ...] = get_args(Conflict)
#: A path below a directory, and whether it is a directory itself.
Child = tuple[str, bool]
#: The children of a directory; with True also theirs, and so on.
Children = Callable[[str, bool], Iterable[Child]]

_MAGIC = re.compile(r"[*?\[]")
_DEEP = "**"


def is_glob(text: str) -> bool:
    """Whether the text holds a character that globs give a meaning: ``*``, ``?`` or ``[``."""
    return _MAGIC.search(text) is not None


def joined(directory: str, name: str) -> str:
    """The path of `name` in `directory`; either may be empty."""
    return f"{directory}/{name}" if directory and name else directory or name


class _Segment:
    """One name of a glob. As in a shell, a wildcard in front does not stand for a dot."""

    def __init__(self, text: str) -> None:
        self.deep = text == _DEEP
        self._hidden = text.startswith(".")
        self._match = re.compile(translate("*" if self.deep else text)).match

    def matches(self, name: str) -> bool:
        return self._match(name) is not None and (self._hidden or not name.startswith("."))


def expand(pattern: str, children: Children, *, recursive: bool = False) -> Iterator[Child]:
    """Yield what a glob names, in the order of the listings, and whether each is a directory.

    ``**`` stands for any number of directories where `recursive` is set, else it is as ``*``. Nothing is
    yielded twice. A directory that is named before the first wildcard may be missing: then there is nothing.
    Raises what `children` raises beyond `FileNotFoundError` and `NotADirectoryError`.
    """
    names = [name for name in pattern.split("/") if name not in ("", ".")]
    magic = next((at for at, name in enumerate(names) if is_glob(name)), len(names))
    rest = names[magic:]
    if not recursive:
        rest = ["*" if name == _DEEP else name for name in rest]
    elif rest and rest[-1] == _DEEP:
        rest.append("*")  # "a/**" is what lies below a, not a itself
    return _expand("/".join(names[:magic]), [_Segment(name) for name in rest], children)


def _expand(base: str, rest: Sequence[_Segment], children: Children) -> Iterator[Child]:
    deep = rest[0].deep
    try:
        found = list(children(base, deep))
    except (FileNotFoundError, NotADirectoryError):
        return
    for path, is_directory in found:
        if deep:
            if _reaches(rest, path.split("/")):
                yield joined(base, path), is_directory
        elif rest[0].matches(path):
            below = joined(base, path)
            if len(rest) == 1:
                yield below, is_directory
            elif is_directory:
                yield from _expand(below, rest[1:], children)


def _reaches(rest: Sequence[_Segment], names: Sequence[str]) -> bool:
    """Whether the whole path matches: all places in the pattern are followed at once, so time is linear."""
    places = _further(rest, {0})
    for name in names:
        after = set()
        for place in places:
            if place < len(rest) and rest[place].matches(name):
                after.add(place if rest[place].deep else place + 1)
        places = _further(rest, after)
        if not places:
            return False
    return len(rest) in places


def _further(rest: Sequence[_Segment], places: set[int]) -> set[int]:
    """Those places, and those that are reached by letting ``**`` stand for nothing."""
    for place in sorted(places):
        while place < len(rest) and rest[place].deep:
            place += 1
            places.add(place)
    return places


def numbered(name: str, is_taken: Callable[[str], bool]) -> str:
    """The first free one of ``name (1).ext``, ``name (2).ext`` and so on."""
    dot = name.rfind(".")
    stem, suffix = (name[:dot], name[dot:]) if dot > 0 else (name, "")
    number = 1
    while is_taken(other := f"{stem} ({number}){suffix}"):
        number += 1
    return other
