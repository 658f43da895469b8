"""What `fileexport.proofs` promises."""

from __future__ import annotations

import base64
import calendar
import hashlib
import hmac

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.proofs import PROOF_SIZE, ClientProof, ServerProof, auth_message, end_point_binding
from fileexport.token_file import parse_token_file
from fileexport.tokens import TokenTable, Verifier, generate_token
from tests.test_tokens import GOOD_TOKENS, NOW, STORED, TOKEN

DECOY = bytes(range(32))
#: All that follows was computed with OpenSSL's command line, for `TOKEN` and `MESSAGE`.
MESSAGE = (
    b"fileexport/1 authentication"
    + (b"\0\0\0\x20" + b"\x11" * 32)
    + (b"\0\0\0\x08" + bytes.fromhex("9fed439922f4b386"))
    + (b"\0\0\0\x20" + b"\x22" * 32)
    + (b"\0\0\0\x20" + b"\x33" * 32)
    + b"\0\0\0\0"
)
PROOF = bytes.fromhex("6b3d3c202a2c7028ad8ae31923f1b5f51ccd91d006db808dccae850a8160d2d7")
ANSWER = bytes.fromhex("0ee713aaf422fdf245b78959ce8410cfa18c143175e6be3fb5dd63afc83104b3")
#: Certificates, and their hashes as RFC 5929 wants them.
SIGNED_WITH_SHA1 = base64.b64decode(
    "MIIBdTCCARygAwIBAgIUDl5Pt6mBTVpXlkeszxkTWa2f18QwCQYHKoZIzj0EATARMQ8wDQYDVQQDDAZ2ZWN0b3IwHhcNMjYx"
    "MTIxMjA1MDU2WhcNMzYxMTE4MjA1MDU2WjARMQ8wDQYDVQQDDAZ2ZWN0b3IwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASf"
    "Y/bLM8yJpqQpt3ReJZ8GMvHb2RlVMSDC8pHwq6VKKXhDoRqfFiEJ4E2Qj5Rcs6p2CcLTqfG4L3QYAW+9+NHvo1MwUTAdBgNV"
    "HQ4EFgQUTvOrhv77pZBQhsatpZbVPdMw2XEwHwYDVR0jBBgwFoAUTvOrhv77pZBQhsatpZbVPdMw2XEwDwYDVR0TAQH/BAUw"
    "AwEB/zAJBgcqhkjOPQQBA0gAMEUCICRyZJhcCvcfHGBaLRE0Xq5fsjIDI6IG+P/nh/iAghcEAiEAqdIgX1PqndFuFABhegqn"
    "W7uaA4MA5SxdUSir12RiHqA="
)
SIGNED_WITH_SHA384 = base64.b64decode(
    "MIIBeDCCAR2gAwIBAgIUezZJbaILs0a2DWKx4n1DXr7iZ3gwCgYIKoZIzj0EAwMwETEPMA0GA1UEAwwGdmVjdG9yMB4XDTI2"
    "MTEyMTIwNTA1NloXDTM2MTExODIwNTA1NlowETEPMA0GA1UEAwwGdmVjdG9yMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE"
    "fQS6Zq2b/++HhoU/x1fja7ZtCiurH7GjBIreFEjKNxwdTwevwOtD1vA+MM/1rDS1FNc8aOESUBwLTfD6VZyz36NTMFEwHQYD"
    "VR0OBBYEFGZ1CtzdxnNU24xK4TyzGugwJRpHMB8GA1UdIwQYMBaAFGZ1CtzdxnNU24xK4TyzGugwJRpHMA8GA1UdEwEB/wQF"
    "MAMBAf8wCgYIKoZIzj0EAwMDSQAwRgIhAN6wXOxWNX1BC+pZnX56tvnMt7yz/tbv2xZhHaPf9kyoAiEAztcnEM1sCJlTOsGg"
    "LCZUKQdPW2qrRWGwLiwGOtwmVRY="
)
SIGNED_WITH_ED25519 = base64.b64decode(
    "MIIBNjCB6aADAgECAhRqmZDVfzxcxh9h6Q1YbeI0HS/aLzAFBgMrZXAwETEPMA0GA1UEAwwGdmVjdG9yMB4XDTI2MTEyMTIw"
    "NTA1NloXDTM2MTExODIwNTA1NlowETEPMA0GA1UEAwwGdmVjdG9yMCowBQYDK2VwAyEAM3J7vdlb6bNt/C/6V3Zm+OYyPAWC"
    "ah0E6RW5oauSmPujUzBRMB0GA1UdDgQWBBQn+ao1/yVYz8D7pCyXkBPXGBUUozAfBgNVHSMEGDAWgBQn+ao1/yVYz8D7pCyX"
    "kBPXGBUUozAPBgNVHRMBAf8EBTADAQH/MAUGAytlcANBAKTUe6hebK0Ixws1UZ7QVDsP1XPoPX7Hz1zks5AKsnNkyNr9sXri"
    "/8HqVmfmwjVBEkQvCI74V+PL3nK6BbxX5Ac="
)
SHA256_OF_SHA1 = "bbbe656368a55cf3e54ac9433b52c3c01afa12a40877a786b2093cd313b7ce98"
SHA384_OF_SHA384 = (
    "257323d5a92f06042128e7e658a82b335ee5dbcd4377aeb8be64fc149ffe8921dd040f441334bb25b3f64c6e2983ed34"
)
SHA256_OF_ED25519 = "bb1c5a42131b69de4cdf51fc4592fd2e3c8ee9b5253e61a142ee70972cc97464"

MESSAGES = st.binary(max_size=300)


def begun(table: TokenTable, token_id: bytes, now: float = NOW) -> ServerProof:
    """An attempt with that id."""
    return ServerProof.begin(table, token_id, now, DECOY)


def table_of(token: str) -> TokenTable:
    """A table that holds the stored form of one token."""
    return parse_token_file(Verifier.of(token).text() + " name=ada", "tokens")


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with one bit, counted from the front, turned over."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class MessageTests(SynchronousTestCase):
    """What the proofs are about."""

    def test_vector(self) -> None:
        """The message is the label, then each part behind its length."""
        parts = (b"\x11" * 32, Verifier.of(TOKEN).id, b"\x22" * 32, b"\x33" * 32, b"")
        self.assertEqual(auth_message(*parts), MESSAGE)

    @given(*[st.tuples(*[st.binary(max_size=9)] * 5)] * 2)
    def test_no_two_alike(self, one: tuple[bytes, ...], other: tuple[bytes, ...]) -> None:
        """Other parts make another message, also where they are the same bytes cut elsewhere."""
        self.assertEqual(auth_message(*one) == auth_message(*other), one == other)
        joined = (b"".join(one), b"", b"", b"", b"")
        self.assertEqual(auth_message(*one) == auth_message(*joined), one == joined)


class ProofTests(SynchronousTestCase):
    """Client and server."""

    def test_vector(self) -> None:
        """Proof and answer are what another implementation computes."""
        client = ClientProof(TOKEN)
        self.assertEqual(client.id, Verifier.parse(STORED).id)
        self.assertEqual(client.proof(MESSAGE), PROOF)
        server = begun(parse_token_file(STORED, "tokens"), client.id)
        self.assertIsNotNone(server.check(PROOF, MESSAGE))
        self.assertEqual(server.answer(MESSAGE), ANSWER)

    @given(GOOD_TOKENS, MESSAGES)
    def test_both_are_convinced(self, token: str, message: bytes) -> None:
        """Who knows the token is let in as its principal, and recognises who keeps its stored form."""
        client, table = ClientProof(token), table_of(token)
        server = begun(table, client.id)
        self.assertEqual(server.check(client.proof(message), message), table.find(token, NOW))
        self.assertTrue(client.is_answered_by(server.answer(message), message))

    @given(MESSAGES, st.integers(0, 8 * PROOF_SIZE - 1))
    def test_one_bit(self, message: bytes, bit: int) -> None:
        """A proof or an answer with one wrong bit convinces nobody."""
        client = ClientProof(TOKEN)
        server = begun(table_of(TOKEN), client.id)
        self.assertIsNone(server.check(flipped(client.proof(message), bit), message))
        self.assertFalse(client.is_answered_by(flipped(server.answer(message), bit), message))

    @given(MESSAGES, MESSAGES)
    def test_another_message(self, message: bytes, other: bytes) -> None:
        """What was overheard on one connection is good for no other."""
        assume(message != other)
        client = ClientProof(TOKEN)
        server = begun(table_of(TOKEN), client.id)
        self.assertIsNone(server.check(client.proof(message), other))
        self.assertFalse(client.is_answered_by(server.answer(message), other))

    @given(GOOD_TOKENS, GOOD_TOKENS, MESSAGES)
    def test_another_token(self, token: str, other: str, message: bytes) -> None:
        """Another token under this one's id is not let in, and does not recognise the server."""
        assume(token != other)
        thief = ClientProof(other)
        server = begun(table_of(token), ClientProof(token).id)
        self.assertIsNone(server.check(thief.proof(message), message))
        self.assertFalse(thief.is_answered_by(server.answer(message), message))

    @given(MESSAGES, st.binary(max_size=80))
    def test_any_bytes(self, message: bytes, guess: bytes) -> None:
        """Bytes of any length are refused, and raise nothing."""
        client = ClientProof(TOKEN)
        assume(guess != client.proof(message))
        self.assertIsNone(begun(table_of(TOKEN), client.id).check(guess, message))
        self.assertFalse(client.is_answered_by(guess, message))

    @given(GOOD_TOKENS, MESSAGES)
    def test_reader_of_the_token_file(self, token: str, message: bytes) -> None:
        """Nothing that can be made of StoredKey and ServerKey alone is a proof."""
        _, stored_key, server_key = Verifier.parse(Verifier.of(token).text())
        server = begun(table_of(token), ClientProof(token).id)
        keys = (stored_key, server_key, hashlib.sha256(stored_key).digest(), bytes(32))
        macs = [hmac.digest(key, message, "sha256") for key in keys]
        for key in (*keys, *macs):
            for mac in (*macs, bytes(32)):
                guess = bytes(a ^ b for a, b in zip(key, mac, strict=True))
                self.assertIsNone(server.check(guess, message))

    def test_bad_token(self) -> None:
        """What cannot be a token is a ValueError that does not show it."""
        for token in ("hunter2", "hunter2 hunter2", "hunter2hunter2\n"):
            error = self.assertRaises(ValueError, ClientProof, token)
            self.assertNotIn("hunter2", str(error))

    def test_nothing_is_shown(self) -> None:
        """The repr of neither side shows a token or a key."""
        client = ClientProof(TOKEN)
        server = begun(table_of(TOKEN), client.id)
        for text in (repr(client), repr(server)):
            self.assertNotIn("fex1", text)
            self.assertNotIn("key", text.lower())


class StrangerTests(SynchronousTestCase):
    """Ids that are unknown or expired."""

    @given(GOOD_TOKENS, MESSAGES)
    def test_unknown(self, token: str, message: bytes) -> None:
        """A token that is not in the table is not let in, and the server cannot answer for it."""
        client = ClientProof(token)
        for table in (TokenTable(), table_of(generate_token())):
            server = begun(table, client.id)
            self.assertIsNone(server.check(client.proof(message), message))
            self.assertFalse(client.is_answered_by(server.answer(message), message))

    @given(st.binary(min_size=8, max_size=8), MESSAGES)
    def test_decoy_lets_nobody_in(self, token_id: bytes, message: bytes) -> None:
        """Not even who knows what an unknown id is compared with is let in."""
        server = begun(TokenTable(), token_id)
        # Any proof leads to some key; with this token in the table it would be the right one.
        token = generate_token()
        entry = table_of(token).entry(Verifier.of(token).id)
        assert entry is not None
        nobody = ServerProof(entry.verifier.stored_key, entry.verifier.server_key, None)
        proof = ClientProof(token).proof(message)
        self.assertIsNone(nobody.check(proof, message))
        self.assertIsNone(server.check(proof, message))

    def test_decoy(self) -> None:
        """An unknown id has the same keys each time, and others than every other id and server has."""
        ids, decoys = (bytes(8), b"\1" * 8), (DECOY, bytes(32))
        answers = [
            ServerProof.begin(TokenTable(), token_id, NOW, decoy).answer(MESSAGE)
            for _ in range(2)
            for token_id in ids
            for decoy in decoys
        ]
        self.assertEqual(answers[:4], answers[4:])
        self.assertEqual(len(set(answers)), 4)
        self.assertEqual({len(answer) for answer in answers}, {PROOF_SIZE})

    def test_expired(self) -> None:
        """A token is let in through the end of its last day, and not a moment longer."""
        client = ClientProof(TOKEN)
        table = parse_token_file(f"{STORED} until=2027-01-31", "tokens")
        midnight = calendar.timegm((2027, 2, 1, 0, 0, 0))
        for now, welcome in ((midnight - 0.001, True), (midnight, False), (midnight + 1e9, False)):
            server = begun(table, client.id, now)
            self.assertEqual(server.check(PROOF, MESSAGE) is not None, welcome)


class BindingTests(SynchronousTestCase):
    """The hash of the server's certificate."""

    def test_vectors(self) -> None:
        """The signature's hash function counts; SHA-256 stands for SHA-1 and where there is none."""
        self.assertEqual(end_point_binding(SIGNED_WITH_SHA1).hex(), SHA256_OF_SHA1)
        self.assertEqual(end_point_binding(SIGNED_WITH_SHA384).hex(), SHA384_OF_SHA384)
        self.assertEqual(end_point_binding(SIGNED_WITH_ED25519).hex(), SHA256_OF_ED25519)

    @given(st.binary(max_size=100), st.integers(0, len(SIGNED_WITH_SHA384) - 1))
    def test_no_certificate(self, noise: bytes, cut: int) -> None:
        """Bytes that are no certificate are a ValueError of one line."""
        for data in (noise, SIGNED_WITH_SHA384[:cut]):
            error = self.assertRaises(ValueError, end_point_binding, data)
            self.assertEqual(str(error), "the certificate cannot be read")
