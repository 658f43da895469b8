"""The patterns of `RemotePath.glob`: what they name in a tree that somebody else looks at. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import translate
from typing import Protocol

from fileexport.client.names import Kind, RemoteEntry
from fileexport.client.selection import is_glob, joined

_DEEP = "**"

#: A path below the top of a tree, and what is there.
Found = tuple[str, Kind]


class _Segment:
    """One name of a pattern. As in pathlib, not as in a shell, a wildcard stands for a dot in front too."""

    def __init__(self, text: str, case_sensitive: bool) -> None:
        if _DEEP in text and text != _DEEP:
            raise ValueError(f"a pattern with {text!r}: '**' is a whole name, or none")
        if text == "..":
            raise ValueError("a pattern leads downwards: '..' is none")
        self.text = text
        self.is_deep = text == _DEEP
        #: Whether it names just itself, so that no directory has to be listed.
        self.is_plain = case_sensitive and not is_glob(text)
        self.matches = re.compile(translate(text), 0 if case_sensitive else re.IGNORECASE).match


class Looking(Protocol):
    """How a pattern sees a tree, by paths below its top, which itself is the empty one."""

    def below(self, path: str, deep: bool) -> Iterable[RemoteEntry]:
        """What is in a directory, or with `deep` below it, links not entered; nothing where it is none."""

    def kind(self, path: str) -> Kind | None:
        """What is there, a link being a link; None where nothing is."""

    def is_directory(self, path: str) -> bool:
        """Whether it is a directory, or a link that leads to one."""


class Pattern:
    """A pattern as pathlib has it: ``*``, ``?``, ``[…]`` within a name, ``**`` for any number of directories.

    ``**`` at the end means a directory itself and all below it. With a slash at its end only directories are
    meant. `deep`: as if ``**/`` stood in front; then it may be empty. Raises ValueError for one that is empty
    or leads upwards, NotImplementedError for an absolute one.
    """

    def __init__(self, text: str, *, deep: bool = False, case_sensitive: bool = True) -> None:
        if text.startswith("/"):
            raise NotImplementedError("a pattern is relative")
        names = [_DEEP] * deep + [name for name in text.split("/") if name not in ("", ".")]
        if not names:
            raise ValueError(f"a pattern without a name: {text!r}")
        # Twice ** says no more than once.
        names = [name for at, name in enumerate(names) if name != _DEEP or names[at - 1 : at] != [_DEEP]]
        self._segments = [_Segment(name, case_sensitive) for name in names]
        self._any = _Segment("*", case_sensitive)
        self._wants_directories = text.endswith("/")

    def select(self, tree: Looking) -> Iterator[str]:
        """Yield the paths that match, none twice. ``**`` enters no links; other names lead through them."""
        seen: set[str] = set()
        for path in self._found(tree):
            if path not in seen:
                seen.add(path)
                yield path

    def _found(self, tree: Looking) -> Iterator[str]:
        segments = self._segments
        if segments[-1].is_deep:
            yield from _directories(tree, _find(tree, "", segments[:-1]))
            below = _find(tree, "", [*segments, self._any])
            # What ** does not enter is no directory for it.
            yield from (path for path, kind in below if not self._wants_directories or kind == "directory")
        elif self._wants_directories:
            yield from _directories(tree, _find(tree, "", segments))
        else:
            yield from (path for path, _ in _find(tree, "", segments))


def _directories(tree: Looking, found: Iterator[Found]) -> Iterator[str]:
    return (
        path for path, kind in found if kind == "directory" or (kind == "link" and tree.is_directory(path))
    )


def _find(tree: Looking, base: str, segments: Sequence[_Segment]) -> Iterator[Found]:
    """What a pattern, which does not end with ``**``, names below `base`."""
    while segments and segments[0].is_plain:
        base, segments = joined(base, segments[0].text), segments[1:]
    if not segments:
        kind = tree.kind(base)
        if kind is not None:
            yield base, kind
    elif segments[0].is_deep:
        yield from _find_deep(tree, base, segments)
    else:
        for entry in tree.below(base, False):
            if segments[0].matches(entry.path):
                path = joined(base, entry.path)
                if len(segments) == 1:
                    yield path, entry.type
                elif entry.type in ("directory", "link"):
                    yield from _find(tree, path, segments[1:])


def _find_deep(tree: Looking, base: str, segments: Sequence[_Segment]) -> Iterator[Found]:
    """The same where ``**`` comes first: one listing of all below is enough, but for what links lead to."""
    # All of it before any is given away: the listing must not wait for our caller.
    for entry, places in list(_reached(tree.below(base, True), segments)):
        path = joined(base, entry.path)
        for place in sorted(places, reverse=True):
            if place == len(segments):
                yield path, entry.type
            else:
                yield from _find(tree, path, segments[place:])


def _reached(
    entries: Iterable[RemoteEntry], segments: Sequence[_Segment]
) -> Iterator[tuple[RemoteEntry, set[int]]]:
    """Entries that match as a whole, and links that may lead on; and up to which places of the pattern.

    All places are followed at once, so that a pattern takes no more than linear time.
    """
    for entry in entries:
        places = _further(segments, {0})
        for name in entry.path.split("/"):
            there = [place for place in places if place < len(segments)]
            landed = {at + 1 for at in there if not segments[at].is_deep and segments[at].matches(name)}
            places = _further(segments, landed | {at for at in there if segments[at].is_deep})
        if entry.type != "link":
            landed &= {len(segments)}
        if landed:
            yield entry, landed


def _further(segments: Sequence[_Segment], places: set[int]) -> set[int]:
    """These places, and those behind a ``**`` that stands for nothing."""
    return places | {at + 1 for at in places if at < len(segments) and segments[at].is_deep}
