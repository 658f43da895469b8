"""Cookies: the one of ours in what a client sent, and the field that sets or clears it (RFC 6265).

Pure. What is in a cookie is for `fileexport.sessions` to know.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

#: What we ever put into a cookie: characters of base64url. Another value was not ours.
_VALUE = re.compile(rb"[A-Za-z0-9_-]{1,128}")
#: The names of cookies of ours: see `fileexport.sessions`.
_OURS = re.compile(rb"fileexport-[0-9a-f]{8}=")


def cookie_value(lines: Sequence[bytes], name: str) -> str | None:
    """The value of the cookie `name` in the lines of a Cookie field; None where it cannot be one of ours.

    The first of a name counts: a client puts first what was set for the longest path.
    """
    wanted = name.encode("ascii")
    for line in lines:
        for pair in line.split(b";"):
            found, _, value = pair.strip(b" \t").partition(b"=")
            if found == wanted:
                return value.decode("ascii") if _VALUE.fullmatch(value) else None
    return None


def without_ours(line: bytes) -> bytes:
    """A line of a Cookie field without those that only the daemon reads; it may be empty then."""
    pairs = (pair.strip(b" \t") for pair in line.split(b";"))
    return b"; ".join(pair for pair in pairs if not _OURS.match(pair))


class Cookie(NamedTuple):
    """A cookie that only we read, and only requests of our own pages carry.

    `path` is where it counts, `secure` whether it goes over TLS only.
    """

    name: str
    path: str
    secure: bool

    def set(self, value: str, seconds: int) -> bytes:
        """The value of the Set-Cookie field that gives it a value for so long."""
        field = f"{self.name}={value}; Path={self.path}; Max-Age={seconds}; HttpOnly; SameSite=Strict"
        return (field + "; Secure" if self.secure else field).encode("ascii")

    def clear(self) -> bytes:
        """The value of the Set-Cookie field after which it is gone."""
        return self.set("", 0)
