"""Proofs: each side of a connection shows the other that it knows a token, and never says it.

The shape is SCRAM's (RFC 5802, section 3) with SHA-256 and with what `fileexport.tokens` keeps of a token:

- ClientProof = ClientKey XOR HMAC(StoredKey, message). The server takes the XOR off again and compares
  SHA-256 of what is left with StoredKey.
- The server's answer is HMAC(ServerKey, message).

`auth_message` makes the message of all that was said before, of a nonce of each side, and of the server's
certificate: a proof is good for one connection, and for the server at its end. Who has read StoredKey and
ServerKey can play the server, and cannot log in unless they also overhear a proof.

Pure, and the same for both sides. cryptography is imported where it is used: most commands do without it.
"""

from __future__ import annotations

import hashlib
import hmac

from fileexport.tokens import Principal, TokenTable, Verifier, check_token, client_key

#: Bytes of a proof and of the answer to it: what SHA-256 makes.
PROOF_SIZE = 32

_LABEL = b"fileexport/1 authentication"
#: Hash functions that RFC 5929 does not want in a binding, whatever signed the certificate.
_BROKEN = frozenset(("md5", "sha1"))


def auth_message(
    transcript: bytes, client_id: bytes, client_nonce: bytes, server_nonce: bytes, binding: bytes
) -> bytes:
    """What both proofs are about: a label, then each part behind its length in four bytes, big-endian.

    `binding` is `end_point_binding` of the server's certificate, and empty without TLS.
    """
    parts = (transcript, client_id, client_nonce, server_nonce, binding)
    return _LABEL + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class ClientProof:
    """The client's side. It holds keys made of the token; its repr shows nothing."""

    __slots__ = ("_client_key", "_verifier")

    def __init__(self, token: str) -> None:
        """Raises ValueError, which never shows the token, where `token` cannot be one."""
        check_token(token)
        self._client_key = client_key(token)
        self._verifier = Verifier.of(token)

    @property
    def id(self) -> bytes:
        """Which token it is, in 8 bytes: what the client says first."""
        return self._verifier.id

    def proof(self, message: bytes) -> bytes:
        """The proof for the server, 32 bytes."""
        return _xor(self._client_key, _signature(self._verifier.stored_key, message))

    def is_answered_by(self, server_proof: bytes, message: bytes) -> bool:
        """Whether the server knows the token too. If it does not, nothing it says may be believed."""
        return hmac.compare_digest(server_proof, _signature(self._verifier.server_key, message))


class ServerProof:
    """The server's side of one attempt."""

    __slots__ = ("_principal", "_server_key", "_stored_key")

    def __init__(self, stored_key: bytes, server_key: bytes, principal: Principal | None) -> None:
        """`principal` is who comes in with the right proof; None: nobody, whatever the proof."""
        self._stored_key = stored_key
        self._server_key = server_key
        self._principal = principal

    @classmethod
    def begin(cls, table: TokenTable, token_id: bytes, now: float, decoy: bytes) -> ServerProof:
        """Begin with the id that a client named; `now` is in seconds since 1970.

        An id that is unknown gets keys made of it and `decoy`, 32 random bytes that the caller keeps for
        itself. So all that follows is the same work, and no answer tells whether there is such a token. What
        is expired is not accepted either.
        """
        stored_key = _signature(decoy, b"Stored Key" + token_id)
        server_key = _signature(decoy, b"Server Key" + token_id)
        entry = table.entry(token_id)
        if entry is None:
            return cls(stored_key, server_key, None)
        principal = entry.principal if now < entry.expires else None
        return cls(entry.verifier.stored_key, entry.verifier.server_key, principal)

    def check(self, proof: bytes, message: bytes) -> Principal | None:
        """Return whose proof this is, or None where it is wrong; takes the same time for every 32 bytes."""
        if len(proof) != PROOF_SIZE:
            return None
        key = _xor(proof, _signature(self._stored_key, message))
        same = hmac.compare_digest(hashlib.sha256(key).digest(), self._stored_key)
        return self._principal if same else None

    def answer(self, message: bytes) -> bytes:
        """The server's own proof, 32 bytes; only for whom `check` has let in."""
        return _signature(self._server_key, message)


def end_point_binding(certificate_der: bytes) -> bytes:
    """The hash of the server's certificate, ``tls-server-end-point`` of RFC 5929, section 4.1.

    The hash function is that of the certificate's signature, and SHA-256 for MD5 and SHA-1. The RFC leaves
    open what holds for a signature that names no single one, such as Ed25519: SHA-256 here. Raises ValueError
    where the bytes are no certificate.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes

    try:
        signed_with = x509.load_der_x509_certificate(certificate_der).signature_hash_algorithm
    except UnsupportedAlgorithm:
        signed_with = None
    except ValueError:
        raise ValueError("the certificate cannot be read") from None
    if signed_with is None or signed_with.name in _BROKEN:
        return hashlib.sha256(certificate_der).digest()
    digest = hashes.Hash(signed_with)
    digest.update(certificate_der)
    return digest.finalize()


def _signature(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
