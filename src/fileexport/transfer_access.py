"""Who comes in by the transfer protocol: the proof of a token, and the places of those who have not given it.

Knows neither sockets nor frames: it is asked with what a client said, and says what to answer.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import ISSLTransport

from fileexport.proofs import ServerProof, auth_message, end_point_binding
from fileexport.tokens import Principal, Right, TokenTable
from fileexport.wire.messages import DIGEST_SIZE, Auth, Challenge, Proof, Welcome

#: Seconds from the connection to WELCOME, the TLS handshake included.
ACCESS_TIME = 10.0
#: Proofs that one connection may try, and seconds before a wrong one is answered.
TRIES = 3
WRONG_TIME = 1.0
#: Sessions that have not given a proof: of all, and of one address.
MAX_STRANGERS = 256
STRANGERS_PER_ADDRESS = 32

#: Operations of one token that are under way, on all its connections: each may hold a file open.
MAX_OPERATIONS = 1024

_RIGHTS = (Right.READ, Right.WRITE, Right.DELETE, Right.ADMIN)


class Authentication:
    """One connection's way in. At most one proof is under way at a time; the session's table sees to that.

    `tokens` is asked at each try, so that a file that was read again counts. `decoy` are 32 random bytes of
    the daemon's, `now` is in seconds since 1970. `binding` is the hash of our certificate, None without TLS.
    """

    def __init__(
        self,
        tokens: Callable[[], TokenTable],
        decoy: bytes,
        now: Callable[[], float],
        *,
        nonce: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._tokens = tokens
        self._decoy = decoy
        self._now = now
        self._nonce = nonce
        self._proof = ServerProof(decoy, decoy, None)
        self._message = self._id = b""
        self._who: Principal | None = None
        self.tries_left = TRIES

    def begin(self, auth: Auth, transcript: bytes, binding: bytes | None) -> Challenge | None:
        """What answers AUTH; None where the proof would be bound to another certificate, or to none.

        Under TLS that means somebody in between. It counts as a try.
        """
        self.tries_left -= 1
        if (auth.binding == "none") != (binding is None):
            return None
        nonce = self._nonce(DIGEST_SIZE)
        self._id = auth.id
        self._proof = ServerProof.begin(self._tokens(), auth.id, self._now(), self._decoy)
        self._message = auth_message(transcript, auth.id, auth.nonce, nonce, binding or b"")
        return Challenge(nonce)

    def check(self, proof: Proof) -> Principal | None:
        """Whose proof it is; None where it is wrong, in the same time."""
        self._who = self._proof.check(proof.proof, self._message)
        return self._who

    @property
    def is_good(self) -> bool:
        """Whether the token that was proved still counts, and says the same of who has it."""
        entry = self._tokens().entry(self._id)
        return entry is not None and entry.principal == self._who and self._now() < entry.expires

    def welcome(self, who: Principal) -> Welcome:
        """What answers a right proof: our own, and what `who` may do."""
        rights = [str(right.name).lower() for right in _RIGHTS if who.may(right)]
        return Welcome(self._proof.answer(self._message), rights)


def binding_of(transport: object) -> bytes | None:
    """What a proof on this connection is bound to (RFC 5929); None where it is not encrypted.

    To be asked when the handshake is over: only then it is clear which certificate was shown.
    """
    if not ISSLTransport.providedBy(transport):
        return None
    connection: Any = transport
    handle: SSL.Connection = connection.getHandle()
    certificate = handle.get_certificate()
    if certificate is None:
        raise ValueError("TLS without a certificate of our own")
    return end_point_binding(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))


class Stranger(Protocol):
    """A connection that has not given its proof."""

    def abort(self) -> None:
        """End it at once."""


class Lobby:
    """The places of connections that have not given a proof, of all listeners together.

    When all are taken, the oldest one of the address that holds most gives way to a new one, and when an
    address has as many as it may have, its own oldest: who holds many cannot keep others out.
    """

    def __init__(self, places: int = MAX_STRANGERS, per_address: int = STRANGERS_PER_ADDRESS) -> None:
        self._places = places
        self._per_address = per_address
        #: In the order in which they came.
        self._by_address: dict[str, dict[Stranger, None]] = {}
        self._taken = 0

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return self._taken

    def enter(self, address: str, stranger: Stranger) -> None:
        """Give a connection a place; another one may be aborted for it."""
        if len(self._by_address.get(address, ())) >= self._per_address:
            self._end_oldest(address)
        elif self._taken >= self._places:
            self._end_oldest(max(self._by_address, key=lambda one: len(self._by_address[one])))
        self._by_address.setdefault(address, {})[stranger] = None
        self._taken += 1

    def leave(self, address: str, stranger: Stranger) -> None:
        """Give the place back; nothing happens where there is none."""
        held = self._by_address.get(address, {})
        if stranger in held:
            del held[stranger]
            self._taken -= 1
            if not held:
                del self._by_address[address]

    def _end_oldest(self, address: str) -> None:
        oldest = next(iter(self._by_address[address]))
        self.leave(address, oldest)
        oldest.abort()


class Shares:
    """How many operations of each token are under way."""

    def __init__(self, most: int = MAX_OPERATIONS) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    def take(self, owner: str) -> bool:
        """Count one more; False, and nothing is counted, where its owner has as many as they may have."""
        if self._taken[owner] >= self._most:
            return False
        self._taken[owner] += 1
        return True

    def give_back(self, owner: str) -> None:
        """One has ended."""
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]
