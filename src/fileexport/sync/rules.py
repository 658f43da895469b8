"""What a synchronisation leaves out, and how much it may remove. Pure."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fileexport.sync.manifest import Manifest

#: The file whose lines say what git leaves out, in its directory and below.
IGNORE_FILE = ".gitignore"


class _Line(NamedTuple):
    """One pattern: what it says (leave out or not), whether of directories only, and what it matches."""

    leaves_out: bool
    is_for_directories: bool
    is_open: bool  # A match of the path's beginning suffices.
    match: Callable[[str], re.Match[str] | None]


def _read(line: str) -> _Line | None:
    """Read one line; None where it says nothing. Raises `ValueError`, `TypeError` or `re.error`."""
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    if not line.endswith("\\ "):
        line = line.rstrip()
    # What is for directories only is asked for here: their kind is known, and need not stand in the path.
    body = line.removesuffix("/")
    if body in ("", "!", "!/") and line != "!":
        return None
    raw, leaves_out = GitIgnoreSpecPattern.pattern_to_regex(body)
    if leaves_out is None or raw is None:
        return None
    is_open = raw in (".", "/") or body.endswith("/**")
    return _Line(leaves_out, body != line, is_open, _compile(_bounded(raw)))


def _compile(expression: str) -> Callable[[str], re.Match[str] | None]:
    if "[[" not in expression and "--" not in expression and not _DOUBLED.search(expression):
        return re.compile(expression, re.DOTALL).match
    with warnings.catch_warnings():
        # What may mean something else in brackets some day is none of the user's business.
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(expression, re.DOTALL).match


_DOUBLED = re.compile(r"&&|~~|\|\|")
#: What an expression has between the texts of a pattern, which have no slash.
_FRONT, _BETWEEN, _STAR = "^(?:.+/)?", "(?:/.+)?/", "[^/]*"
_ENDS = ("(?:(?P<ps_d>/)|$)", "(?P<ps_d>/)")
_PARTS = re.compile(f"({'|'.join(map(re.escape, (_FRONT, _BETWEEN, _STAR, '[^/]+', '[^/]', *_ENDS, '/')))})")
#: A character that is escaped, or a set; that never stands for a slash.
_SET = re.compile(r"\\.|(\[\^?\]?[^\]]*\])", re.DOTALL)


def _bounded(raw: str) -> str:
    """The same expression, without the choices that make its time grow with powers of a path's length.

    Where a ``*`` is followed by another in the same name, the first place for what is between them is as
    good as any; so it is with ``**`` and the names between two of them. Only the last of each has a choice.
    """
    if not raw.startswith("^"):
        return raw
    found = _PARTS.split(raw)
    end = ""
    # Groups between `**`, of names, of texts between `*`.
    groups = [[[""]]]
    for text, part in zip(found[::2], [*found[1::2], ""], strict=True):
        groups[-1][-1][-1] += _SET.sub(lambda one: f"(?!/){one[1]}" if one[1] else one[0], text)
        if part == _BETWEEN:
            groups.append([[""]])
        elif part == "/":
            groups[-1].append([""])
        elif part == _STAR:
            groups[-1][-1].append("")
        elif part in _ENDS:
            end = part
        elif part != _FRONT:
            groups[-1][-1][-1] += part
    *some, last = ("/".join(map(_name, group)) for group in groups)
    leads = ["^(?:[^/]+/)*" if found[1:2] == [_FRONT] else "", *["/(?:[^/]+/)*"] * len(some)]
    parts = [f"(?>{lead}{'?' if lead else ''}{text}(?=/))" for lead, text in zip(leads, some, strict=False)]
    return "".join(parts) + leads[-1] + last + end


def _name(texts: Sequence[str]) -> str:
    """One name of an expression, by the texts between its stars."""
    first, *others = texts
    if not others:
        return first
    return first + "".join(f"(?>[^/]*?{text})" for text in others[:-1]) + f"[^/]*{others[-1]}"


class Patterns:
    """Patterns as in a ``.gitignore`` file: what they match is left out, and so is all that lies below it.

    The last one that names a path decides. Raises `ValueError` for a pattern that cannot be read.
    """

    __slots__ = ("_lines",)

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        lines = [patterns] if isinstance(patterns, str) else list(patterns)
        try:
            read = [_read(line) for line in lines]
        except (ValueError, TypeError, AttributeError, re.error) as error:
            raise ValueError(f"an exclude pattern cannot be read: {error}") from None
        self._lines = tuple(line for line in reversed(read) if line is not None)

    @classmethod
    def of_file(cls, content: bytes) -> Patterns:
        """Read a ``.gitignore`` file as git does: lines that cannot be read say nothing."""
        text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        patterns = cls()
        read = []
        for line in text.split("\n"):
            try:
                read.append(_read(line.removesuffix("\r")))
            except (ValueError, re.error):
                continue
        patterns._lines = tuple(line for line in reversed(read) if line is not None)
        return patterns

    def __bool__(self) -> bool:
        return bool(self._lines)

    def decide(self, path: str, is_directory: bool = False) -> bool | None:
        """Whether a path is left out (True) or expressly not (False), its parents not asked; None: unsaid."""
        for leaves_out, is_for_directories, is_open, match in self._lines:
            if is_directory or not is_for_directories:
                found = match(path)
                # A match of less than the path names a directory that the path lies in.
                if found is not None and (is_open or found.end() == len(path)):
                    return leaves_out
        return None

    def match(self, path: str, is_directory: bool = False) -> bool:
        """Whether a path, or a directory that it lies in, is left out."""
        if not self._lines or not path:
            return False
        return any(self.decide(above, True) for above in _above(path)) or bool(
            self.decide(path, is_directory)
        )


def _above(path: str) -> Iterator[str]:
    """The directories that a path lies in, the topmost first, without the top."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


@dataclass(frozen=True)
class Limit:
    """How many entries may be removed: a number of them, or percent of all that the destination has."""

    count: int | None = None
    percent: int | None = None

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read ``100`` or ``10%``. Raises `ValueError`."""
        digits = text.removesuffix("%")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            raise ValueError(f"'{text}' is neither a number of entries nor a percentage such as 10%")
        if digits == text:
            return cls(count=int(digits))
        if int(digits) > 100:
            raise ValueError(f"{text} is more than everything: 100% is the most")
        return cls(percent=int(digits))

    def allows(self, count: int, of: int) -> bool:
        """Whether `count` of `of` entries may be removed."""
        if self.count is not None and count > self.count:
            return False
        return self.percent is None or count * 100 <= self.percent * of

    def __str__(self) -> str:
        return f"{self.percent}%" if self.percent is not None else f"{self.count}"


@dataclass(frozen=True)
class Rules:
    """What the user asked for.

    `patterns` are those of the command; where they say nothing, the ``.gitignore`` files of the source do:
    `ignores` has them by directory, and the deepest one that names a path decides.
    """

    delete: bool = False
    max_delete: Limit = Limit(percent=50)
    checksum: bool = False
    patterns: Patterns = field(default_factory=Patterns)
    ignores: Mapping[str, Patterns] = field(default_factory=dict)

    @property
    def is_selective(self) -> bool:
        """Whether anything can be left out at all."""
        return bool(self.patterns) or any(self.ignores.values())

    def leaves_out(self, path: str, is_directory: bool) -> bool:
        """Whether a path is left out. Of what lies in a directory that is left out nobody asks."""
        said = self.patterns.decide(path, is_directory)
        if said is None and self.ignores:
            said = self._ignored(path, is_directory)
        return bool(said)

    def _ignored(self, path: str, is_directory: bool) -> bool | None:
        at = path.rfind("/")
        while True:
            patterns = self.ignores.get(path[:at] if at > 0 else "")
            if patterns is not None:
                said = patterns.decide(path[at + 1 :], is_directory)
                if said is not None:
                    return said
            if at < 0:
                return None
            at = path.rfind("/", 0, at)


def ignore_files(manifest: Manifest) -> list[str]:
    """The paths of the ``.gitignore`` files whose contents `Rules.ignores` needs, whatever they are."""
    return [
        f"{directory}/{IGNORE_FILE}" if directory else IGNORE_FILE
        for directory, folder in manifest.folders.items()
        if IGNORE_FILE in folder
    ]
