"""Digest fields (RFC 9530): what a client says of its content, what it wants to know of ours.

Pure. The fields are dictionaries of structured fields (RFC 8941); algorithms that we do not know are passed
over, as the RFC asks.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from hmac import compare_digest
from types import MappingProxyType
from typing import Protocol

from fileexport.errors import BadRequestError

#: The fields by which a client asks for digests, in lower case.
WANTED = frozenset((b"want-repr-digest", b"want-content-digest"))

_KEY = rb"[a-z*][a-z0-9_.*-]*"
_TOKEN = rb"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*"
_STRING = rb'"(?:[ !#-\[\]-~]|\\["\\])*"'
_BARE = rb"(?:-?[0-9]{1,15}(?:\.[0-9]{1,3})?|%s|:[A-Za-z0-9+/=]*:|\?[01]|%s)" % (_STRING, _TOKEN)
_PARAMETERS = rb"(?:; *%s(?:=%s)?)*" % (_KEY, _BARE)
_LIST = rb"\( *(?:%s%s(?: +|(?=\))))*\)" % (_BARE, _PARAMETERS)
_MEMBER = re.compile(rb"(%s)(?:=(%s|%s))?%s" % (_KEY, _LIST, _BARE, _PARAMETERS))
_COMMA = re.compile(rb"[ \t]*,[ \t]*")
_WEIGHT = re.compile(rb"[0-9]|10")


class Hash(Protocol):
    """What computes a digest."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


#: The algorithms that we know; of those that a client likes as well as each other, the first.
ALGORITHMS: Mapping[str, Callable[[], Hash]] = MappingProxyType(
    {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
)
_SIZES = {name: len(make().digest()) for name, make in ALGORITHMS.items()}


def digests_of(lines: Sequence[bytes]) -> dict[str, bytes]:
    """The digests that a field gives, by algorithm. Raises `BadRequestError` where it cannot be read."""
    found = {}
    for name, value in _dictionary(lines).items():
        if (size := _SIZES.get(name)) is None:
            continue
        digest = _bytes(value)
        if len(digest) != size:
            raise BadRequestError(f"a {name} digest has {size} bytes")
        found[name] = digest
    return found


def wanted(lines: Sequence[bytes]) -> str | None:
    """The algorithm that a client likes best; None where it wants none that we know.

    A wish that cannot be read is none (RFC 8941, section 4.2): it changes nothing in what is answered else.
    """
    try:
        wishes = _dictionary(lines)
    except BadRequestError:
        return None
    weights = {name: _weight(wishes[name]) for name in ALGORITHMS if name in wishes}
    best = max(weights, key=weights.__getitem__, default=None)
    return best if best is not None and weights[best] else None


def field_of(digests: Mapping[str, bytes]) -> bytes:
    """The value of a digest field."""
    return b", ".join(b"%s=:%s:" % (name.encode("ascii"), b64encode(d)) for name, d in digests.items())


class Sums:
    """Hashes content while it comes: what was announced of it, and what is wanted."""

    def __init__(self, announced: Mapping[str, bytes], others: Iterable[str] = ()) -> None:
        """`others` are algorithms that are computed as well."""
        self._announced = dict(announced)
        self._hashes = {name: ALGORITHMS[name]() for name in dict.fromkeys((*announced, *others))}

    @classmethod
    def asked(cls, fields: Callable[[bytes], Sequence[bytes]]) -> Sums | None:
        """What the fields of a request that stores its body ask for; None where that is nothing.

        The stored file is the body, so that all of its digests are of the same bytes. Raises
        `BadRequestError` for fields that cannot be read or contradict each other.
        """
        announced = digests_of(fields(b"content-digest"))
        for name, digest in digests_of(fields(b"repr-digest")).items():
            if announced.setdefault(name, digest) != digest:
                raise BadRequestError("Content-Digest and Repr-Digest contradict each other")
        wish = wanted(fields(b"want-repr-digest"))
        if not announced and wish is None:
            return None
        return cls(announced, () if wish is None else (wish,))

    def update(self, data: bytes | memoryview) -> None:
        """Take more of the content."""
        for hasher in self._hashes.values():
            hasher.update(data)

    def check(self) -> None:
        """Raise `BadRequestError` where the content is another one than was announced."""
        for name, digest in self._announced.items():
            if not compare_digest(self._hashes[name].digest(), digest):
                raise BadRequestError(f"the content is not what its {name} digest says: send it again")

    @property
    def field(self) -> bytes:
        """The value of the Repr-Digest that answers."""
        return field_of({name: hasher.digest() for name, hasher in self._hashes.items()})


def _dictionary(lines: Sequence[bytes]) -> dict[str, bytes]:
    """The members of a dictionary by key, each as it stands, without its parameters; the last of a key."""
    text = b",".join(lines).strip(b" ")
    found: dict[str, bytes] = {}
    at = 0
    while at < len(text):
        member = _MEMBER.match(text, at)
        if member is None:
            raise _unreadable()
        found[member[1].decode("ascii")] = member[2] or b"?1"
        at = member.end()
        if at == len(text):
            break
        comma = _COMMA.match(text, at)
        if comma is None or comma.end() == len(text):
            raise _unreadable()
        at = comma.end()
    return found


def _bytes(value: bytes) -> bytes:
    """A byte sequence; padding may be missing (RFC 8941, section 4.2.7)."""
    if not value.startswith(b":"):
        raise _unreadable()
    text = value[1:-1].rstrip(b"=")
    try:
        return b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise _unreadable() from None


def _weight(value: bytes) -> int:
    """A preference from 0, not at all, to 10; what is none counts as 0."""
    return int(value) if _WEIGHT.fullmatch(value) else 0


def _unreadable() -> BadRequestError:
    return BadRequestError("a digest field cannot be read: it is written as in sha-256=:<base64>:")
