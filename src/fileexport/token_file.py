"""The token file: one token a line, with what its holder may do.

Pure: no files and no clock. The caller passes the text.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import math
import os
import re
from collections.abc import Callable
from datetime import date
from typing import TypeVar
from urllib.parse import unquote

from fileexport.errors import ConfigurationError, FileNameError
from fileexport.paths import RelPath
from fileexport.tokens import (
    ANONYMOUS_NAME,
    STORED_PREFIX,
    Entry,
    Principal,
    Right,
    TokenTable,
    Verifier,
    check_token,
    is_weak,
    weakness,
)

_T = TypeVar("_T")

#: Characters in the name of a principal: it stands on every line of the access log.
MAX_NAME = 64
#: Bounds of a token file (characters, lines, characters in a line): far above real ones, so that a wrong file
#: named by mistake costs no more than one sentence.
MAX_FILE = 2**20
MAX_LINES = 10_000
MAX_LINE = 4096

_KEYS = ("name", "may", "under", "until", "secret")
_SECRET_PREFIX = "whsec_"
#: Bytes of a webhook secret, as the Standard Webhooks specification has them.
_SECRET_BYTES = range(24, 65)
_DAY = 86_400


def parse_token_file(text: str, source: str) -> TokenTable:
    """Read a token file; `source` is what the sentences call it.

    A line is a token or its stored form, then, each optional and at most once, in any order::

        name=NAME                        at most 64 printable characters; default: token-, then the id in hex
        may=read,write,delete,admin      default: all
        under=/path                      default: /
        until=2027-01-31                 the last day, in UTC; default: for ever
        secret=whsec_…                   standard base64 of 24 to 64 bytes; signs this token's webhooks

    ``#`` at the beginning of a line or after white space begins a comment; blank lines are skipped. A value
    may be percent-encoded: a space is ``%20``, ``%`` itself ``%25``. Two tokens may share a name, so that one
    can replace the other without a gap. A token that begins with ``#``, with ``fex1:`` or with one of the
    keys above and its ``=`` can be given in its stored form only.

    Raises `ConfigurationError` with a line ``SOURCE:LINE: …`` for every mistake. No sentence repeats anything
    of the file but the keys.
    """
    if len(text) > MAX_FILE:
        raise ConfigurationError(f"{source}: the token file is longer than {MAX_FILE} characters")
    lines = text.removesuffix("\n").split("\n")
    if len(lines) > MAX_LINES:
        raise ConfigurationError(f"{source}: the token file has more than {MAX_LINES} lines")
    problems: list[str] = []
    warnings: list[str] = []
    entries: dict[bytes, Entry] = {}
    first_line: dict[bytes, int] = {}
    for number, content in enumerate(lines, 1):
        line = _Line()
        line.read(content)
        if line.entry is not None:
            first = first_line.setdefault(line.entry.verifier.id, number)
            if first != number:
                line.problems.append(f"the token is the same as on line {first}")
            entries[line.entry.verifier.id] = line.entry
        problems += [f"{source}:{number}: {problem}" for problem in line.problems]
        warnings += [f"{source}:{number}: {warning}" for warning in line.warnings]
    if problems:
        raise ConfigurationError(*problems)
    return TokenTable(entries, tuple(warnings))


_COMMENT = re.compile(r"(?:^|[ \t])#.*", re.DOTALL)
_SPACE = re.compile(r"[ \t]+")


class _Line:
    """One line while it is read. `entry` stays None where there is no token, or none that can be read."""

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def read(self, content: str) -> None:
        if len(content) > MAX_LINE:
            self.problems.append(f"the line is longer than {MAX_LINE} characters")
            return
        words = _SPACE.split(_COMMENT.sub("", content.removesuffix("\r")).strip(" \t"))
        if words == [""]:
            return
        fields = self._fields(words[1:])
        rights = self._value(fields, "may", Right.parse, Right.ALL)
        under = self._value(fields, "under", _parse_under, RelPath())
        expires = self._value(fields, "until", _parse_until, math.inf)
        secret = self._value(fields, "secret", _parse_secret, None)
        name = self._value(fields, "name", _parse_name, None)
        verifier = self._verifier(words[0], name)
        if verifier is not None:
            name = name or f"token-{verifier.id.hex()}"
            self.entry = Entry(verifier, Principal(name, rights, under, secret=secret), expires)

    def _fields(self, words: list[str]) -> dict[str, str]:
        """The values by key, as written."""
        fields: dict[str, str] = {}
        unknown = False
        for word in words:
            key, equals, value = word.partition("=")
            if not equals or key not in _KEYS:
                unknown = True
            elif key in fields:
                self.problems.append(f"{key}= is given twice")
            else:
                fields[key] = value
        if unknown:
            # The word is not repeated: it may be a token that got here by mistake.
            known = ", ".join(f"{key}=" for key in _KEYS)
            self.problems.append(f"after the token comes only {known} (a space in a value is written %20)")
        return fields

    def _value(self, fields: dict[str, str], key: str, parse: Callable[[str], _T], default: _T) -> _T:
        if key not in fields:
            return default
        try:
            if _STRAY_PERCENT.search(fields[key]):
                raise ValueError("has a percent sign that encodes nothing: write %25")
            return parse(fields[key])
        except FileNameError as error:
            self.problems.append(f"{key}= cannot be a path: {error}")
        except ValueError as error:
            self.problems.append(f"{key}= {error}")
        return default

    def _verifier(self, word: str, name: str | None) -> Verifier | None:
        """Read the token or its stored form."""
        if word.startswith(tuple(f"{key}=" for key in _KEYS)):
            self.problems.append("the token is missing: it comes first")
            return None
        try:
            if word.startswith(STORED_PREFIX):
                return Verifier.parse(word)
            check_token(word)
        except ValueError as error:
            self.problems.append(str(error))
            return None
        if is_weak(word):
            self.warnings.append(weakness(named=name is not None))
        return Verifier.of(word)


_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _parse_name(value: str) -> str:
    try:
        name = unquote(value, errors="strict")
    except UnicodeDecodeError:
        name = ""
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError(f"takes 1 to {MAX_NAME} printable characters")
    if name.lower() == ANONYMOUS_NAME:
        raise ValueError("is what clients without a token are called: choose another")
    return name


def _parse_under(value: str) -> RelPath:
    try:
        raw = os.fsencode(value)
    except UnicodeEncodeError:
        raw = b""
    # An empty value must not open the whole root.
    if not raw.startswith(b"/"):
        raise ValueError("takes a path that begins with a slash")
    path = RelPath.from_url(raw)
    if path.is_reserved:
        raise ValueError("is in a directory of the daemon's own")
    return path


def _parse_until(value: str) -> float:
    """The end of that day."""
    text = unquote(value)
    try:
        day = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        raise ValueError("takes a date as 2027-01-31")
    return calendar.timegm(day.timetuple()) + _DAY


def _parse_secret(value: str) -> str:
    text = unquote(value)
    encoded = text.removeprefix(_SECRET_PREFIX)
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    exact = text == _SECRET_PREFIX + base64.b64encode(raw).decode("ascii")
    if len(raw) not in _SECRET_BYTES or not exact:
        raise ValueError(f"takes {_SECRET_PREFIX} and standard base64 of 24 to 64 bytes")
    return text
