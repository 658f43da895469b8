"""Tokens, what each of them may do (`Principal`), and the token file.

A token is 8 to 256 printable ASCII characters without a space. What we keep of it is its *stored form*,
``fex1:<id>:<StoredKey>:<ServerKey>``, three values in base64url without padding:

- ``id`` is the first 8 bytes of HMAC-SHA256(token, ``id``); it finds the entry and gives nothing away.
- ``StoredKey`` is SHA-256(ClientKey), where ClientKey is HMAC-SHA256(token, ``Client Key``).
- ``ServerKey`` is HMAC-SHA256(token, ``Server Key``).

That is the shape of SCRAM (RFC 5802, RFC 7677) with the token in the place of the salted password. There is
no stretching: a generated token has 256 random bits, which nobody guesses. A weak token can be guessed from
its stored form, and from its ``id``: hence the warnings. Who reads the stored form cannot log in with it.

Pure: no files and no clock. The caller passes the text and the time.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import enum
import hashlib
import hmac
import math
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple, TypeVar
from urllib.parse import unquote

from fileexport.errors import ConfigurationError, FileNameError
from fileexport.paths import RelPath

_T = TypeVar("_T")

#: Characters in a token.
MIN_TOKEN = 8
MAX_TOKEN = 256
#: Characters in the name of a principal: it stands on every line of the access log.
MAX_NAME = 64
#: Bits below which a token is weak: who overhears a proof, or reads its stored form, can guess it.
STRONG_BITS = 128
#: Bounds of a token file (characters, lines, characters in a line): far above real ones, so that a wrong file
#: named by mistake costs no more than one sentence.
MAX_FILE = 2**20
MAX_LINES = 10_000
MAX_LINE = 4096
#: The name of whoever came without a token; no token may have it.
ANONYMOUS_NAME = "anonymous"

_PREFIX = "fex1_"
_STORED_PREFIX = "fex1:"
_KEYS = ("name", "may", "under", "until", "secret")
_SECRET_PREFIX = "whsec_"
#: Bytes of a webhook secret, as the Standard Webhooks specification has them.
_SECRET_BYTES = range(24, 65)
_DAY = 86_400
_ROOT = RelPath()


class Right(enum.Flag):
    """What a principal may do; none of them contains another."""

    READ = enum.auto()
    WRITE = enum.auto()
    DELETE = enum.auto()
    ADMIN = enum.auto()
    ALL = READ | WRITE | DELETE | ADMIN

    @classmethod
    def parse(cls, text: str) -> Right:
        """Read ``read,write``; raises ValueError where a word is not a right."""
        rights = cls(0)
        for word in text.split(","):
            if word not in _RIGHTS:
                raise ValueError(f"takes {', '.join(_RIGHTS)}, with a comma between two")
            rights |= _RIGHTS[word]
        return rights


_RIGHTS = {"read": Right.READ, "write": Right.WRITE, "delete": Right.DELETE, "admin": Right.ADMIN}


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who asks for something: what they are called in the log, and what they may do.

    `under` is the part of the root that they see, `sees_hidden` whether names that begin with a dot belong
    to it. `secret` (``whsec_…``) signs their webhooks; it is never part of the repr.
    """

    name: str
    rights: Right
    under: RelPath
    sees_hidden: bool = True
    secret: str | None = field(default=None, repr=False)

    @classmethod
    def anonymous(cls, rights: Right, under: RelPath = _ROOT, sees_hidden: bool = False) -> Principal:
        """Whoever comes without a token."""
        return cls(ANONYMOUS_NAME, rights, under, sees_hidden)

    @property
    def is_anonymous(self) -> bool:
        """Whether they came without a token."""
        return self.name == ANONYMOUS_NAME

    def may(self, right: Right) -> bool:
        """Whether they hold `right`; of several joined by ``|``, all of them."""
        return right in self.rights


def generate_token() -> str:
    """Make a token of 256 random bits: ``fex1_``, 43 characters of base64url, 6 of checksum.

    The checksum is the beginning of the base64url of SHA-256 of all that stands before it.
    """
    body = _PREFIX + secrets.token_urlsafe(32)
    return body + _checksum(body)


def _checksum(body: str) -> str:
    return _encode(hashlib.sha256(body.encode("ascii", "replace")).digest())[:6]


def _is_generated(token: str) -> bool:
    return token.startswith(_PREFIX) and len(token) == 54 and token[48:] == _checksum(token[:48])


def _is_well_formed(token: str) -> bool:
    sized = MIN_TOKEN <= len(token) <= MAX_TOKEN
    return sized and token.isascii() and token.isprintable() and " " not in token


def check_token(token: str) -> None:
    """Raise ValueError, which never shows the token, where `token` cannot be one."""
    if not _is_well_formed(token):
        raise ValueError(f"a token is {MIN_TOKEN} to {MAX_TOKEN} printable ASCII characters without spaces")


def hash_token(token: str) -> str:
    """Return the stored form of a token; raises ValueError as `check_token` does."""
    check_token(token)
    return _Verifier.of(token).text()


#: A word: four letters or more of one case, or with a capital first.
_WORD = re.compile(r"[A-Za-z][a-z]{3,}|[A-Z]{4,}")
_HEX_LETTERS = frozenset("abcdefABCDEF")


def is_weak(token: str) -> bool:
    """Say whether `token` has under 128 bits, as far as its looks tell; a generated one never has.

    Length times the alphabet that it seems to be drawn from. A token that consists mostly of words counts 2
    bits a character, a pattern nothing.
    """
    if _is_generated(token):
        return False
    return len(token) * _bits_per_character(token) < STRONG_BITS


def _bits_per_character(token: str) -> float:
    repeats = token in (token + token)[1:-1]
    if repeats or len(set(token)) < 8:
        return 0.0
    letters = {c for c in token if c.isalpha()}
    others = len({c for c in token if not c.isalnum()})
    digits = 10 if any(map(str.isdigit, token)) else 0
    mixed = any(map(str.isupper, letters)) and any(map(str.islower, letters))
    if letters <= _HEX_LETTERS and not mixed:
        return math.log2(digits + others + (6 if letters else 0))
    if 4 * sum(map(len, _WORD.findall(token))) > 3 * len(token):
        return 2.0
    return math.log2(62 + others if mixed else 26 + digits + others)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _id_of(key: bytes) -> bytes:
    return hmac.digest(key, b"id", "sha256")[:8]


def _stored_key_of(key: bytes) -> bytes:
    return hashlib.sha256(hmac.digest(key, b"Client Key", "sha256")).digest()


class _Verifier(NamedTuple):
    """The stored form, decoded."""

    id: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def of(cls, token: str) -> _Verifier:
        key = token.encode("ascii")
        return cls(_id_of(key), _stored_key_of(key), hmac.digest(key, b"Server Key", "sha256"))

    @classmethod
    def parse(cls, text: str) -> _Verifier:
        """Read a stored form, in its one spelling; raises ValueError, which does not show it."""
        try:
            _, token_id, stored_key, server_key = text.split(":")
            verifier = cls(_decode(token_id), _decode(stored_key), _decode(server_key))
        except ValueError:
            verifier = None
        # The decoder skips what is not base64: only the way back proves that there was one spelling.
        if verifier is None or [len(part) for part in verifier] != [8, 32, 32] or verifier.text() != text:
            raise ValueError("the stored form is damaged: print it again with `fileexport hash-token`")
        return verifier

    def text(self) -> str:
        return _STORED_PREFIX + ":".join(map(_encode, self))


class _Entry(NamedTuple):
    """One line of the token file. `expires` is in seconds since 1970, the first moment that is too late."""

    verifier: _Verifier
    principal: Principal
    expires: float


#: What a token that is not in the table is compared with, so that a miss takes as long as a hit.
_NOBODY = _Entry(_Verifier(bytes(8), bytes(32), bytes(32)), Principal.anonymous(Right(0)), -math.inf)


class TokenTable:
    """The tokens that are accepted. Made by `parse_token_file`; ``TokenTable()`` is empty.

    It holds stored forms, never a token.
    """

    __slots__ = ("_entries", "warnings")

    #: One line for each token that was given in clear and `is_weak`, and for nothing else.
    warnings: tuple[str, ...]

    def __init__(self, entries: Mapping[bytes, _Entry] | None = None, warnings: tuple[str, ...] = ()) -> None:
        self._entries = dict(entries or {})
        self.warnings = warnings

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, token: str, now: float) -> Principal | None:
        """Return whose token this is, or None where it is unknown or expired.

        `now` is in seconds since 1970. The time that it takes says nothing about the tokens in the table.
        """
        # HMAC pads its key with NUL: without this, a token and a NUL behind it would be the same.
        if not _is_well_formed(token):
            return None
        key = token.encode("ascii")
        entry = self._entries.get(_id_of(key), _NOBODY)
        same = hmac.compare_digest(_stored_key_of(key), entry.verifier.stored_key)
        return entry.principal if same and now < entry.expires else None


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
    entries: dict[bytes, _Entry] = {}
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
        self.entry: _Entry | None = None
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
        under = self._value(fields, "under", _parse_under, _ROOT)
        expires = self._value(fields, "until", _parse_until, math.inf)
        secret = self._value(fields, "secret", _parse_secret, None)
        name = self._value(fields, "name", _parse_name, None)
        verifier = self._verifier(words[0], name)
        if verifier is not None:
            name = name or f"token-{verifier.id.hex()}"
            self.entry = _Entry(verifier, Principal(name, rights, under, secret=secret), expires)

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

    def _verifier(self, word: str, name: str | None) -> _Verifier | None:
        """Read the token or its stored form."""
        if word.startswith(tuple(f"{key}=" for key in _KEYS)):
            self.problems.append("the token is missing: it comes first")
            return None
        try:
            if word.startswith(_STORED_PREFIX):
                return _Verifier.parse(word)
            check_token(word)
        except ValueError as error:
            self.problems.append(str(error))
            return None
        if is_weak(word):
            warning = (
                f"the token seems to have under {STRONG_BITS} bits: take one of `fileexport generate-token`"
            )
            advice = "" if name else ", or at least give it a name= (its default name helps to guess it)"
            self.warnings.append(warning + advice)
        return _Verifier.of(word)


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
