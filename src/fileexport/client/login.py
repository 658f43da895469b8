"""The way in: dial, TLS, HELLO, and the proof of the token by both sides."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fileexport.client.answers import error_of
from fileexport.client.connection import Connection, Traffic, Wait, dial
from fileexport.client.names import plain_text
from fileexport.client.operation import Replied
from fileexport.client.security import Security, is_loopback
from fileexport.errors import AuthenticationError, CorruptedResponse, PeerGone
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import DEFAULT_OFFER, Event, Session
from fileexport.wire.streams import Role

if TYPE_CHECKING:
    from fileexport.proofs import ClientProof

_NONCE = 32


@dataclass(frozen=True)
class Server:
    """Where the server is, how it is known, and the token that is proved to it."""

    hostname: str
    port: int
    token: str | None = field(repr=False)
    security: Security
    #: Whether DATA may be compressed; None: where the server is not this machine.
    compression: bool | None = None

    @classmethod
    def of(
        cls, hostname: str, port: int, token: str | None, security: Security, compression: bool | None
    ) -> Server:
        """Raises ValueError for a port and a token that cannot be one."""
        if not 1 <= port <= 65535:
            raise ValueError(f"a port is a number from 1 to 65535, not {port}")
        if token is not None:
            from fileexport.tokens import check_token

            check_token(token)
        return cls(hostname, port, token, security, compression)

    def proof(self) -> ClientProof:
        """What proves the token. Raises `AuthenticationError` where there is none."""
        from fileexport.proofs import ClientProof

        if self.token is None:
            raise AuthenticationError("a token is needed, and none was given")
        return ClientProof(self.token)

    def features(self, near: bool) -> tuple[str, ...]:
        """The features to name on a connection to this machine, or to another."""
        return ("zstd",) if self.compression or (self.compression is None and not near) else ()

    def enter(self, wait: Wait, traffic: Traffic | None = None) -> Connection:
        """Connect, and prove the token. Nothing is said of the token before the server is known by TLS.

        `traffic` counts what is said. Raises `AuthenticationError` where either side does not know the token,
        or the server is another; ValueError for plain TCP to another machine that nobody allowed; else as
        `Connection`. Nothing is open then.
        """
        proof = self.proof()
        self.security.prepare()
        plain = dial(self.hostname, self.port, self.check_address, wait)
        near = is_loopback(plain.getpeername()[0])
        secured = self.security.secure(plain, self.hostname)
        session = Session(Role.CLIENT, DEFAULT_OFFER, self.features(near))
        encrypted = self.security.is_encrypted
        connection = Connection(secured.socket, session, encrypted=encrypted, traffic=traffic)
        try:
            prove(connection, proof, secured.binding, wait)
        except BaseException:
            connection.forget()
            raise
        return connection

    def check_address(self, address: str) -> None:
        """Refuse to speak to this address without TLS, where that is not wise; raises ValueError."""
        self.security.check_address(address)
        if not self.security.is_encrypted and not is_loopback(address):
            self.check_token()

    def check_token(self) -> None:
        """Refuse to prove a weak token to another machine without TLS; raises ValueError."""
        from fileexport.tokens import is_weak

        if is_weak(self.token or ""):
            raise ValueError("a token of less than 128 bits is only proved over TLS, or on this machine")


def prove(connection: Connection, proof: ClientProof, binding: bytes, wait: Wait) -> None:
    """Say HELLO and prove the token, both ways. Raises `AuthenticationError`, else as `Connection.event`."""
    steps = proving(connection.session, proof, binding)
    next(steps)
    with suppress(StopIteration):
        while True:
            connection.flush(wait)
            steps.send(connection.event(wait))


def proving(session: Session, proof: ClientProof, binding: bytes) -> Generator[None, Event, None]:
    """The same without a socket: at each step, say what the session has to say, and send the next event."""
    from fileexport.proofs import auth_message

    yield from _heard(m.Hello)
    nonce = os.urandom(_NONCE)
    session.send(m.Auth(proof.id, nonce, "tls-server-end-point" if binding else "none"))
    challenge = yield from _heard(m.Challenge)
    message = auth_message(session.transcript, proof.id, nonce, challenge.nonce, binding)
    session.send(m.Proof(proof.proof(message)))
    welcome = yield from _heard(m.Welcome)
    if not proof.is_answered_by(welcome.proof, message):
        raise AuthenticationError("the server does not know the token itself: it is another server")


def _heard(kind: type[Replied]) -> Generator[None, Event, Replied]:
    """The next message of the server, which must be of `kind`."""
    while True:
        found = yield
        if isinstance(found, Data):
            raise CorruptedResponse("content before the proof")
        match found.message:
            case m.Pong():
                continue
            case m.Refused(message=words):
                raise AuthenticationError(plain_text(words))
            case m.GoAway(code=0):
                raise PeerGone("the server is stopping")
            case m.GoAway(code=code, message=words):
                raise error_of(code, words)
            case message if isinstance(message, kind):
                return message
        raise CorruptedResponse("the server's messages are in no order")
