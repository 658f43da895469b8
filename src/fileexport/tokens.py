"""Tokens: what one is, what is kept of it, and what its holder may do (`Principal`).

A token is 8 to 256 printable ASCII characters without a space. What we keep of it is its *stored form*,
``fex1:<id>:<StoredKey>:<ServerKey>``, three values in base64url without padding:

- ``id`` is the first 8 bytes of HMAC-SHA256(token, ``id``); it finds the entry and gives nothing away.
- ``StoredKey`` is SHA-256(ClientKey), where ClientKey is HMAC-SHA256(token, ``Client Key``).
- ``ServerKey`` is HMAC-SHA256(token, ``Server Key``).

That is the shape of SCRAM (RFC 5802, RFC 7677) with the token in the place of the salted password. There is
no stretching: a generated token has 256 random bits, which nobody guesses. A weak token can be guessed from
its stored form, and from its ``id``: hence the warnings. Who reads the stored form cannot log in with it.

Pure: no files and no clock. The caller passes the time.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from fileexport.paths import RelPath

#: Characters in a token.
MIN_TOKEN = 8
MAX_TOKEN = 256
#: Bits below which a token is weak: who overhears a proof, or reads its stored form, can guess it.
STRONG_BITS = 128
#: The name of whoever came without a token; no token may have it.
ANONYMOUS_NAME = "anonymous"

#: What the stored form of every token begins with.
STORED_PREFIX = "fex1:"

_PREFIX = "fex1_"
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
    to it. `secret` (``whsec_…``) signs their webhooks; it is never part of the repr. With
    `bound`, `under` is such a thing itself: no link leads there.
    """

    name: str
    rights: Right
    under: RelPath
    sees_hidden: bool = True
    secret: str | None = field(default=None, repr=False)
    bound: Literal["file", "directory"] | None = None

    @classmethod
    def anonymous(cls, rights: Right, under: RelPath = _ROOT, sees_hidden: bool = False) -> Principal:
        """Whoever comes without a token."""
        return cls(ANONYMOUS_NAME, rights, under, sees_hidden)

    @property
    def is_anonymous(self) -> bool:
        """Whether they came without a token."""
        return self.name == ANONYMOUS_NAME

    @property
    def owner(self) -> str:
        """Whose it is what they begin: tokens of one name that see another part of the root are others."""
        return f"{self.name}@{self.under.url()}" if self.under else self.name

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
    return Verifier.of(token).text()


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


def weakness(*, named: bool) -> str:
    """The warning about a token that `is_weak`; `named`: its holder has a name of its own."""
    advice = "" if named else ", or at least give it a name= (its default name helps to guess it)"
    return (
        f"the token seems to have under {STRONG_BITS} bits: take one of `fileexport generate-token`" + advice
    )


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


def client_key(token: str) -> bytes:
    """What whoever has the token can make of it, and nobody out of its stored form."""
    return hmac.digest(token.encode("ascii"), b"Client Key", "sha256")


class Verifier(NamedTuple):
    """The stored form, decoded: `stored_key` checks a client, `server_key` answers it."""

    id: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def of(cls, token: str) -> Verifier:
        """Make the stored form of a token that `check_token` lets pass."""
        key = token.encode("ascii")
        stored_key = hashlib.sha256(client_key(token)).digest()
        return cls(_id_of(key), stored_key, hmac.digest(key, b"Server Key", "sha256"))

    @classmethod
    def parse(cls, text: str) -> Verifier:
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
        """The stored form as a token file has it."""
        return STORED_PREFIX + ":".join(map(_encode, self))


class Entry(NamedTuple):
    """One token of a table. `expires` is in seconds since 1970, the first moment that is too late."""

    verifier: Verifier
    principal: Principal
    expires: float


#: What a token that is not in the table is compared with, so that a miss takes as long as a hit.
_NOBODY = Entry(Verifier(bytes(8), bytes(32), bytes(32)), Principal.anonymous(Right(0)), -math.inf)


class TokenTable:
    """The tokens that are accepted; `token_file.parse_token_file` makes one, ``TokenTable()`` is empty.

    It holds stored forms, never a token.
    """

    __slots__ = ("_entries", "_owners", "warnings")

    #: One line for each token that was given in clear and `is_weak`, and for nothing else.
    warnings: tuple[str, ...]

    def __init__(self, entries: Mapping[bytes, Entry] | None = None, warnings: tuple[str, ...] = ()) -> None:
        self._entries = dict(entries or {})
        self._owners: dict[str, list[Entry]] | None = None
        self.warnings = warnings

    @classmethod
    def of(cls, token: str, name: str, source: str) -> TokenTable:
        """The table of one token that may do everything; `source` is what a warning calls it.

        Raises ValueError as `check_token` does.
        """
        check_token(token)
        verifier = Verifier.of(token)
        warnings = (f"{source}: {weakness(named=True)}",) if is_weak(token) else ()
        return cls({verifier.id: Entry(verifier, Principal(name, Right.ALL, _ROOT), math.inf)}, warnings)

    def joined(self, other: TokenTable) -> TokenTable:
        """The tokens of both tables; what this one says of a token counts."""
        return TokenTable({**other._entries, **self._entries}, self.warnings + other.warnings)

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, token_id: bytes) -> Entry | None:
        """What the table has under an id, expired or not. An id proves nothing."""
        return self._entries.get(token_id)

    def holders(self, owner: str, now: float) -> list[Principal]:
        """All who may act now as this `Principal.owner`: several tokens may have one name."""
        if self._owners is None:
            self._owners = {}
            for entry in self._entries.values():
                self._owners.setdefault(entry.principal.owner, []).append(entry)
        return [entry.principal for entry in self._owners.get(owner, ()) if now < entry.expires]

    def find(self, token: str, now: float) -> Principal | None:
        """Return whose token this is, or None; as `find_entry`."""
        entry = self.find_entry(token, now)
        return None if entry is None else entry.principal

    def find_entry(self, token: str, now: float) -> Entry | None:
        """Return what the table has of a token, or None where it is unknown or expired.

        `now` is in seconds since 1970. The time that it takes says nothing about the tokens in the table.
        """
        # HMAC pads its key with NUL: without this, a token and a NUL behind it would be the same.
        if not _is_well_formed(token):
            return None
        entry = self._entries.get(_id_of(token.encode("ascii")), _NOBODY)
        stored_key = hashlib.sha256(client_key(token)).digest()
        same = hmac.compare_digest(stored_key, entry.verifier.stored_key)
        return entry if same and now < entry.expires else None
