"""The only spelling of a path inside the root, and what a valid file name is.

Nothing that a peer sends is a path until it is a `RelPath`: a tuple of names, never joined with anything
but a descriptor (see `fileexport.disk`). Names are `str` with surrogate escapes (PEP 383), so that every
name that a file system can hold has exactly one spelling here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote_from_bytes, unquote_to_bytes

from fileexport.errors import FileNameError

#: Bytes in one name: the limit of every common file system (NAME_MAX).
MAX_NAME = 255
#: Bytes in a whole path, as PATH_MAX: bounds what a request can make us walk.
MAX_PATH = 4096
#: Bytes of a link's text, as PATH_MAX.
MAX_TARGET = 4096
#: Names in a path: bounds the descriptors that one resolution can hold.
MAX_DEPTH = 64
#: Our own directory, at every depth: staging lives there, and nothing in it is ever listed or served.
RESERVED = ".fileexport"

_NOT_PORTABLE = re.compile(r"[<>:/\\|?*\x00-\x1f\x7f-\x9f]")
_TOO_LONG = f"a name is longer than {MAX_NAME} bytes"
#: What stands in a listing or between two slashes, and is no name.
_NO_NAMES = frozenset(("", ".", ".."))


def is_file_name_valid(name: str) -> bool:
    """Say whether `name` may be created on every system that takes part (the portable rule).

    It is 1 to 255 bytes of UTF-8, is not ``.`` or ``..``, and holds none of ``< > : / \\ | ? *``, NUL or
    control characters.
    """
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    if not 1 <= len(encoded) <= MAX_NAME or name in (".", ".."):
        return False
    return _NOT_PORTABLE.search(name) is None


def _problem(name: str) -> str | None:
    """What keeps `name` from being one name on a POSIX file system, or None."""
    if name in _NO_NAMES:
        return f"'{name}' is not a name"
    if "/" in name or "\0" in name:
        return "a name holds no slash and no NUL"
    if len(name) > MAX_NAME:
        return _TOO_LONG
    if name.isascii():
        return None
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        return "a name holds a surrogate that stands for no byte"
    if os.fsdecode(encoded) != name:
        return "a name spells UTF-8 by surrogates"
    return _TOO_LONG if len(encoded) > MAX_NAME else None


def _is_plain(names: tuple[str, ...]) -> bool:
    """Whether all of these are names of a path, as can be seen at once: they are few, short and ASCII.

    Most paths are so, and each costs a fraction of a look at every name.
    """
    text = "/".join(names)
    return (
        len(text) <= MAX_NAME
        and len(names) <= MAX_DEPTH
        and text.isascii()
        and "\0" not in text
        and text.count("/") < len(names)
        and _NO_NAMES.isdisjoint(names)
    )


class RelPath:
    """A path below the root: a tuple of names, none of them ``.``, ``..``, empty or with a slash.

    The root itself is ``RelPath()``. Immutable, hashable, ordered by names.

    Raises `FileNameError` where a name cannot be one, or a length passes `MAX_NAME`, `MAX_PATH`, `MAX_DEPTH`.
    """

    __slots__ = ("parts",)

    parts: tuple[str, ...]

    def __init__(self, parts: Iterable[str] = ()) -> None:
        names = tuple(parts)
        if not _is_plain(names):
            self._check(names)
        object.__setattr__(self, "parts", names)

    @staticmethod
    def _check(names: tuple[str, ...]) -> None:
        if len(names) > MAX_DEPTH:
            raise FileNameError(f"the path is deeper than {MAX_DEPTH} names")
        for name in names:
            if (problem := _problem(name)) is not None:
                raise FileNameError(problem)
        if sum(map(len, names)) + len(names) > MAX_PATH // 4 and len(os.fsencode("/".join(names))) > MAX_PATH:
            raise FileNameError(f"the path is longer than {MAX_PATH} bytes")

    @classmethod
    def _part_of(cls, names: tuple[str, ...]) -> RelPath:
        """A path of names that were in a path before: nothing is left to be checked."""
        path = cls.__new__(cls)
        object.__setattr__(path, "parts", names)
        return path

    @classmethod
    def parse(cls, text: str) -> RelPath:
        """Read ``a/b``, ``/a/b`` or ``a/b/``; the root is ``/``, ``.`` or empty."""
        if text in ("", ".", "/"):
            return cls()
        return cls(part for part in text.split("/") if part)

    @classmethod
    def from_url(cls, path: bytes) -> RelPath:
        """Read the path of a URL, percent-encoded and without its query; empty segments are merged.

        Split first and decoded after, so that ``%2F`` never makes a separator.
        """
        if b"%" not in path:
            return cls([part for part in os.fsdecode(path).split("/") if part])
        return cls(os.fsdecode(unquote_to_bytes(part)) for part in path.split(b"/") if part)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a RelPath does not change")

    def __truediv__(self, name: str) -> RelPath:
        return RelPath((*self.parts, name))

    def __add__(self, other: RelPath) -> RelPath:
        return RelPath(self.parts + other.parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RelPath) and self.parts == other.parts

    def __lt__(self, other: RelPath) -> bool:
        return self.parts < other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __str__(self) -> str:
        return "/" + "/".join(self.parts)

    def __repr__(self) -> str:
        return f"RelPath({str(self)!r})"

    @property
    def name(self) -> str:
        """The last name; empty for the root."""
        return self.parts[-1] if self.parts else ""

    @property
    def parent(self) -> RelPath:
        """The path without its last name; the root's parent is the root."""
        return self._part_of(self.parts[:-1])

    def beneath(self, base: RelPath) -> RelPath | None:
        """This path as seen from `base`, or None where it is not `base` or below it."""
        if not base.parts:
            return self
        if self.parts[: len(base.parts)] != base.parts:
            return None
        return self._part_of(self.parts[len(base.parts) :])

    def holds(self, path: RelPath) -> bool:
        """Whether a path is this one or below it."""
        return path.parts[: len(self.parts)] == self.parts

    @property
    def is_reserved(self) -> bool:
        """Whether any name in it is `RESERVED`."""
        return RESERVED in self.parts

    def url(self) -> str:
        """The path percent-encoded with a leading slash; what `from_url` reads back."""
        return "/" + "/".join(quote_name(name) for name in self.parts)


def quote_name(name: str) -> str:
    """One name as a segment of a URL: everything but unreserved characters percent-encoded."""
    return quote_from_bytes(os.fsencode(name), safe="")


def printable(name: str) -> str:
    """`name` for a person or for JSON: what is not UTF-8 becomes U+FFFD."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "replace")
