"""Who is asking: from a connection and its credentials to a `Principal`.

The rules are those of SECURITY's "who may do what": a token anywhere; without one, on a loopback listener,
reading for local processes and changes only for processes of the daemon's own user. Addresses and headers
cannot tell a local user from a reverse proxy that forwards the whole internet; the socket's owner can.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fileexport.config import Anonymous
from fileexport.errors import AuthenticationError
from fileexport.tokens import Principal, Right, TokenTable

#: Any of these says that somebody else sent the request first.
FORWARDING = (
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-real-ip",
    b"via",
)


class Credentials(NamedTuple):
    """A token as it was sent. Basic is what a browser repeats by itself, so it proves no intention."""

    token: str
    basic: bool


class Caller(NamedTuple):
    """What is known of a connection: whether its listener is loopback, and who owns the other end.

    `forwarded` is true where a forwarding header is present or the peer is a trusted proxy. `owner` asks
    the kernel for the uid of the peer's socket, None where it cannot say.
    """

    local: bool
    forwarded: bool
    owner: Callable[[], int | None]

    @property
    def is_local(self) -> bool:
        """Whether this may be a process of this machine that speaks for itself."""
        return self.local and not self.forwarded


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for callers without a token.

    `uid` is the daemon's own user; `root_is_public` says whether every local user can read the root now.
    """

    anonymous: Anonymous
    uid: Callable[[], int]
    root_is_public: Callable[[], bool]
    hidden: bool = False


def parse_credentials(fields: Sequence[bytes]) -> Credentials | None:
    """Read the Authorization header (RFC 6750, RFC 7617); None without one.

    Raises `AuthenticationError` for anything that cannot be read, and for more than one.
    """
    if not fields:
        return None
    if len(fields) > 1:
        raise AuthenticationError("more than one Authorization header")
    scheme, _, value = fields[0].strip().partition(b" ")
    try:
        if scheme.lower() == b"bearer":
            return Credentials(value.strip().decode("ascii"), basic=False)
        if scheme.lower() == b"basic":
            password = b64decode(value.strip(), validate=True).partition(b":")[2]
            return Credentials(password.decode("ascii"), basic=True)
    except (UnicodeDecodeError, binascii.Error):
        pass
    raise AuthenticationError("the Authorization header is neither Bearer nor Basic")


class Doorkeeper:
    """Says who a request comes from. `tokens` may be replaced while it runs."""

    def __init__(self, tokens: TokenTable, policy: Policy) -> None:
        self.tokens = tokens
        self._policy = policy
        self._anonymous = {
            rights: Principal.anonymous(rights, sees_hidden=policy.hidden)
            for rights in (Right(0), Right.READ, Right.ALL)
        }

    def identify(
        self, credentials: Credentials | None, caller: Caller, *, right: Right, acting_get: bool, now: float
    ) -> Principal:
        """Find the principal; `right` is what the request needs, `acting_get` whether it changes by GET.

        Raises `AuthenticationError` for a wrong token. A Basic token on a GET that changes something grants
        nothing: a browser sends it on its own.
        """
        if credentials is not None:
            principal = self.tokens.find(credentials.token, now)
            if principal is None:
                raise AuthenticationError
            return self._anonymous[Right(0)] if credentials.basic and acting_get else principal
        return self._anonymous[self._rights(caller, right)]

    def is_own(self, caller: Caller) -> bool:
        """Whether a process of this machine speaks for itself and belongs to the daemon's own user."""
        return caller.is_local and caller.owner() == self._policy.uid()

    def _rights(self, caller: Caller, right: Right) -> Right:
        policy = self._policy
        if policy.anonymous is Anonymous.ALL:
            return Right.ALL
        if policy.anonymous is Anonymous.READ:
            return Right.READ
        if policy.anonymous is Anonymous.NONE or not caller.is_local:
            return Right(0)
        if right is Right.READ and policy.root_is_public():
            return Right.READ
        # The question costs a system call: it is put only where the answer matters.
        if caller.owner() == policy.uid():
            return Right.ALL
        return Right.READ if policy.root_is_public() else Right(0)
