"""Who is asking: from a connection and its credentials to a `Principal`.

The rules are those of SECURITY's "who may do what": a token anywhere; without one, on a loopback listener,
reading for local processes and changes only for processes of the daemon's own user. Addresses and headers
cannot tell a local user from a reverse proxy that forwards the whole internet; the socket's owner can.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Protocol

from fileexport.config import Anonymous
from fileexport.errors import AuthenticationError
from fileexport.tokens import ANONYMOUS_NAME, Principal, Right, TokenTable
from fileexport.web.cookies import cookie_value

Fields = Callable[[bytes], Sequence[bytes]]

#: Any of these says that somebody else sent the request first.
FORWARDING = (
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-real-ip",
    b"via",
)


class Source(Enum):
    """How credentials were sent."""

    BEARER = auto()
    BASIC = auto()
    COOKIE = auto()


class Act(Enum):
    """What a request does, and what shows that its sender means it."""

    READ = auto()
    #: It changes something, by a GET that any page could make a browser send.
    GET = auto()
    #: It changes something; no browser says which page it came from.
    CHANGE = auto()
    #: It changes something, and a browser says that it came from a page of our own.
    OWN_PAGE = auto()


#: What each kind of credentials grants anything for: those that a browser sends by itself prove no intention.
_GRANTS = {
    Source.BEARER: frozenset(Act),
    Source.BASIC: frozenset((Act.READ, Act.CHANGE, Act.OWN_PAGE)),
    Source.COOKIE: frozenset((Act.READ, Act.OWN_PAGE)),
}


class Credentials(NamedTuple):
    """A token as it was sent, or the value of a session's cookie."""

    token: str
    source: Source


class Sessions(Protocol):
    """Who is signed in: see `fileexport.sessions`."""

    cookie: str

    def find(self, value: str, tokens: TokenTable, now: float) -> Principal | None: ...


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
            return Credentials(value.strip().decode("ascii"), Source.BEARER)
        if scheme.lower() == b"basic":
            password = b64decode(value.strip(), validate=True).partition(b":")[2]
            return Credentials(password.decode("ascii"), Source.BASIC)
    except (UnicodeDecodeError, binascii.Error):
        pass
    raise AuthenticationError("the Authorization header is neither Bearer nor Basic")


class Doorkeeper:
    """Says who a request comes from. `tokens` may be replaced while it runs."""

    def __init__(
        self, tokens: TokenTable, policy: Policy, sessions: Callable[[], Sessions | None] = lambda: None
    ) -> None:
        """`sessions` gives those that count, once there are any: nobody is signed in without them."""
        self.tokens = tokens
        self._policy = policy
        self._sessions = sessions
        self._anonymous = {
            rights: Principal.anonymous(rights, sees_hidden=policy.hidden)
            for rights in (Right(0), Right.READ, Right.ALL)
        }

    def credentials(self, fields: Fields) -> Credentials | None:
        """What a request brings to say who sends it: Authorization, else our cookie; None without either.

        Raises `AuthenticationError` as `parse_credentials`. A cookie that is not known counts later.
        """
        if (found := parse_credentials(fields(b"authorization"))) is not None:
            return found
        lines = fields(b"cookie")
        if not lines or (sessions := self._sessions()) is None:
            return None
        value = cookie_value(lines, sessions.cookie)
        return None if value is None else Credentials(value, Source.COOKIE)

    def identify(
        self, credentials: Credentials | None, caller: Caller, *, right: Right, act: Act, now: float
    ) -> Principal:
        """Find the principal; `right` is what the request needs.

        Raises `AuthenticationError` for a wrong token. A session that is over counts as no credentials. Those
        that a browser sends on its own grant nothing for what it may have been tricked into: see `Act`.
        """
        if credentials is not None and (who := self.holder(credentials, now)) is not None:
            return who if act in _GRANTS[credentials.source] else self._anonymous[Right(0)]
        return self._anonymous[self._rights(caller, right)]

    def visitor(self, credentials: Credentials | None, caller: Caller, now: float) -> Principal:
        """The most that the sender of a request may do, by whatever other requests: for a page's forms.

        Raises as `identify`.
        """
        if credentials is not None and (who := self.holder(credentials, now)) is not None:
            return who
        return self._anonymous[self._rights(caller, Right.WRITE)]

    def holder(self, credentials: Credentials, now: float) -> Principal | None:
        """Whose credentials these are; None for a session that is over.

        Raises `AuthenticationError` for a wrong token.
        """
        if credentials.source is Source.COOKIE:
            sessions = self._sessions()
            return None if sessions is None else sessions.find(credentials.token, self.tokens, now)
        principal = self.tokens.find(credentials.token, now)
        if principal is None:
            raise AuthenticationError
        return principal

    def holders(self, owner: str, now: float) -> Iterable[Principal]:
        """All who may act now as this `Principal.owner`, each with what they may do.

        Whoever changes something without a token is one of the daemon's own user, or anybody: it depends on
        the policy whether there can be such a one.
        """
        if owner != ANONYMOUS_NAME:
            return self.tokens.holders(owner, now)
        changes = self._policy.anonymous in (Anonymous.AUTO, Anonymous.ALL)
        return (self._anonymous[Right.ALL],) if changes else ()

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
