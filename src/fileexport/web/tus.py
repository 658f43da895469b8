"""The fields of tus 1.0 (https://tus.io/protocols/resumable-upload): read, checked, written.

Pure. Everything that cannot be read raises `BadRequestError`.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from typing import Any, NamedTuple

from fileexport.errors import BadRequestError, FileExportError
from fileexport.web.request import Header

VERSION = b"1.0.0"
EXTENSIONS = b"creation,creation-with-upload,checksum,expiration,termination"
#: The type of a body that is a part of an upload.
CONTENT_TYPE = b"application/offset+octet-stream"
#: "Checksum Mismatch": a status of tus alone.
MISMATCH, MISMATCH_REASON = 460, b"Checksum Mismatch"
#: On every answer.
RESUMABLE: Header = (b"Tus-Resumable", VERSION)
#: What an answer says that refuses another version.
VERSIONS: Header = (b"Tus-Version", VERSION)

#: What a checksum may be of; the protocol wants sha1. None of them is trusted to keep a secret here.
ALGORITHMS: Mapping[bytes, Callable[[], Any]] = {
    b"sha1": lambda: hashlib.sha1(usedforsecurity=False),
    b"sha256": hashlib.sha256,
    b"sha512": hashlib.sha512,
    b"md5": lambda: hashlib.md5(usedforsecurity=False),
}

#: Bytes of metadata, which every answer to HEAD repeats; keys in it.
MAX_METADATA, MAX_KEYS = 8 << 10, 32
_KEY = re.compile(rb"[!-+\--~]+")
_DIGITS = re.compile(rb"[0-9]+")
#: What a longer number counts as: more than any disk holds.
_HUGE = 10**18
#: Milliseconds since 1970, with or without a fraction, as JavaScript writes them.
_MILLISECONDS = re.compile(rb"(-?[0-9]{1,13})(?:\.[0-9]*)?")
#: The times that 64 bits of nanoseconds hold, in milliseconds.
_LATEST = (2**63 - 1) // 10**6


class UnknownAlgorithm(BadRequestError):
    """The checksum is of an unknown algorithm: use sha1, sha256, sha512 or md5."""


class ChecksumMismatch(FileExportError):
    """The content is not what its checksum says: send it again."""


class Metadata(NamedTuple):
    """What a client says of its file: as it was sent, and by key."""

    text: str
    values: Mapping[str, bytes]

    @property
    def mtime_ns(self) -> int | None:
        """When the file was changed, in nanoseconds since 1970; None where nothing sensible is said."""
        for key in ("mtime", "lastModified"):
            match = _MILLISECONDS.fullmatch(self.values.get(key, b""))
            if match is not None and abs(int(match[1])) < _LATEST:
                return int(match[1]) * 10**6
        return None


class Checksum:
    """What a body must come to: fed with its pieces, and checked at its end."""

    def __init__(self, algorithm: bytes, digest: bytes) -> None:
        """Raises `UnknownAlgorithm`."""
        if algorithm not in ALGORITHMS:
            raise UnknownAlgorithm
        self._hash = ALGORITHMS[algorithm]()
        self._wanted = digest

    def update(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._hash.update(piece)

    def check(self) -> None:
        """Raise `ChecksumMismatch` where the pieces are not what was promised."""
        if self._hash.digest() != self._wanted:
            raise ChecksumMismatch


def read_checksum(lines: Sequence[bytes]) -> Checksum | None:
    """Read Upload-Checksum; None where there is none."""
    line = one_of(lines, "Upload-Checksum")
    if line is None:
        return None
    algorithm, _, text = line.partition(b" ")
    if not (digest := _base64(text.strip(b" "))):
        raise BadRequestError("Upload-Checksum is an algorithm and a value in base64")
    return Checksum(algorithm, digest)


def read_number(lines: Sequence[bytes], name: str) -> int | None:
    """Read a field that is a number of bytes; None where there is none."""
    line = one_of(lines, name)
    if line is None:
        return None
    if not _DIGITS.fullmatch(line):
        raise BadRequestError(f"{name} is no number of bytes")
    digits = line.lstrip(b"0")
    return int(digits or b"0") if len(digits) <= 18 else _HUGE


def read_metadata(lines: Sequence[bytes]) -> Metadata:
    """Read Upload-Metadata: pairs of a key and a value in base64, which may be missing."""
    line = b",".join(lines)
    if len(line) > MAX_METADATA:
        raise BadRequestError(f"Upload-Metadata is longer than {MAX_METADATA} bytes")
    found: dict[str, bytes] = {}
    for pair in line.split(b",") if line else ():
        key, _, value = pair.strip(b" ").partition(b" ")
        if not _KEY.fullmatch(key):
            raise BadRequestError("a key in Upload-Metadata is not printable ASCII without a comma")
        name = key.decode("ascii")
        if name in found or len(found) >= MAX_KEYS:
            raise BadRequestError(f"Upload-Metadata has a key twice, or more than {MAX_KEYS} keys")
        found[name] = _base64(value.strip(b" "))
    return Metadata(line.decode("ascii"), found)


def one_of(lines: Sequence[bytes], name: str) -> bytes | None:
    """The value of a field that stands once at most; None where it is missing."""
    if len(lines) > 1:
        raise BadRequestError(f"more than one {name}")
    return lines[0] if lines else None


def is_part(lines: Sequence[bytes]) -> bool:
    """Whether a body with these Content-Type fields is a part of an upload."""
    return len(lines) == 1 and lines[0].partition(b";")[0].strip().lower() == CONTENT_TYPE


def expires(when: float) -> Header:
    """The field that says until when an upload is kept, in seconds since 1970."""
    return b"Upload-Expires", formatdate(int(when), usegmt=True).encode("ascii")


def number(name: bytes, value: int) -> Header:
    """A field that is a number of bytes."""
    return name, b"%d" % value


def _base64(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except binascii.Error:
        raise BadRequestError("a value is not base64") from None
