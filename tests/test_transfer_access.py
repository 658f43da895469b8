"""Who is let in by the transfer protocol, and how long it may take."""

from __future__ import annotations

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import AuthenticationError, CorruptedResponse
from fileexport.proofs import ClientProof, auth_message
from fileexport.tokens import Right, TokenTable, generate_token
from fileexport.transfer_access import (
    ACCESS_TIME,
    MAX_STRANGERS,
    STRANGERS_PER_ADDRESS,
    TRIES,
    WRONG_TIME,
    Authentication,
    Lobby,
    Shares,
    binding_of,
)
from fileexport.wire import messages as m
from tests.transfer_peer import NONCE, TOKEN, Peer, TransferCase, code, expect, path

TRANSCRIPT = bytes(32)


class AuthenticationTests(SynchronousTestCase):
    """The server's side of a proof."""

    def setUp(self) -> None:
        self.tokens = TokenTable.of(TOKEN, "alice", "here")
        self.now = 0.0
        self.access = Authentication(lambda: self.tokens, bytes(32), lambda: self.now, nonce=bytes)

    def proof_of(self, token: str, binding: bytes | None = None) -> m.Proof:
        """The proof of a client that has just been challenged."""
        client = ClientProof(token)
        auth = m.Auth(client.id, NONCE, "none" if binding is None else "tls-server-end-point")
        challenge = self.access.begin(auth, TRANSCRIPT, binding)
        assert challenge is not None
        message = auth_message(TRANSCRIPT, client.id, NONCE, challenge.nonce, binding or b"")
        return m.Proof(client.proof(message))

    def test_right(self) -> None:
        """A right proof says who it is, and is answered with the rights and a proof of our own."""
        who = self.access.check(self.proof_of(TOKEN))
        assert who is not None
        self.assertEqual(who.name, "alice")
        welcome = self.access.welcome(who)
        self.assertEqual(welcome.rights, ["read", "write", "delete", "admin"])
        client = ClientProof(TOKEN)
        message = auth_message(TRANSCRIPT, client.id, NONCE, bytes(32), b"")
        self.assertTrue(client.is_answered_by(welcome.proof, message))

    def test_unknown(self) -> None:
        """A token that there is not is challenged like any other, and its proof is wrong."""
        self.assertIsNone(self.access.check(self.proof_of(generate_token())))

    def test_replayed(self) -> None:
        """A proof is good for its own challenge only."""
        self.access = Authentication(lambda: self.tokens, bytes(32), lambda: self.now)
        old = self.proof_of(TOKEN)
        self.proof_of(TOKEN)
        self.assertIsNone(self.access.check(old))

    def test_without_challenge(self) -> None:
        """Before a challenge no proof is right."""
        self.assertIsNone(self.access.check(m.Proof(bytes(32))))

    def test_expired(self) -> None:
        """A token counts until its last moment."""
        entry = self.tokens.entry(ClientProof(TOKEN).id)
        assert entry is not None
        self.tokens = TokenTable({ClientProof(TOKEN).id: entry._replace(expires=10.0)})
        self.assertIsNotNone(self.access.check(self.proof_of(TOKEN)))
        self.now = 10.0
        self.assertIsNone(self.access.check(self.proof_of(TOKEN)))

    def test_binding(self) -> None:
        """Under TLS a proof is bound to the certificate, to none without it: else no challenge comes."""
        self.assertIsNotNone(self.access.check(self.proof_of(TOKEN, b"certificate")))
        bound = m.Auth(bytes(8), NONCE, "tls-server-end-point")
        self.assertIsNone(self.access.begin(m.Auth(bytes(8), NONCE), TRANSCRIPT, b"certificate"))
        self.assertIsNone(self.access.begin(bound, TRANSCRIPT, None))
        self.assertEqual(self.access.tries_left, TRIES - 3)

    def test_no_tls(self) -> None:
        """A transport without TLS has nothing to be bound to."""
        self.assertIsNone(binding_of(StringTransport()))


class _Stranger:
    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class LobbyTests(SynchronousTestCase):
    """Places of those who have not given a proof."""

    def test_one_address(self) -> None:
        """When one address has as many places as it may have, its oldest gives way to its next."""
        lobby, other = Lobby(), _Stranger()
        lobby.enter("b", other)
        many = [_Stranger() for _ in range(STRANGERS_PER_ADDRESS + 2)]
        for one in many:
            lobby.enter("a", one)
        self.assertEqual([one.aborted for one in (other, *many[:4])], [False, True, True, False, False])
        self.assertEqual(lobby.taken, STRANGERS_PER_ADDRESS + 1)

    def test_left(self) -> None:
        """Whoever has left, or was never there, takes no place."""
        lobby, one = Lobby(), _Stranger()
        lobby.enter("a", one)
        for _ in range(2):
            lobby.leave("a", one)
        lobby.leave("b", one)
        self.assertEqual(lobby.taken, 0)

    def test_gives_way(self) -> None:
        """When all places are taken, the oldest of the address with most gives way."""
        lobby = Lobby(places=4, per_address=3)
        alone, many = _Stranger(), [_Stranger() for _ in range(3)]
        lobby.enter("b", alone)
        for one in many:
            lobby.enter("a", one)
        lobby.enter("c", _Stranger())
        self.assertEqual([one.aborted for one in (alone, *many)], [False, True, False, False])
        self.assertEqual(lobby.taken, 4)


class LetInTests(TransferCase):
    """The same on a connection."""

    def test_right(self) -> None:
        """A right token is let in at once, and its place among strangers is free."""
        peer = self.client()
        self.assertIsInstance(peer.got[-1][1], m.Welcome)
        self.assertEqual(self.factory.lobby.taken, 0)
        self.clock.advance(ACCESS_TIME)
        self.assertFalse(peer.is_closed)

    def test_rights(self) -> None:
        """The client is told what its token may do."""
        self.let(Right.READ)
        self.assertEqual(expect(m.Welcome, self.client().got[-1][1]).rights, ["read"])

    def test_wrong(self) -> None:
        """A wrong token is answered after a while; after three tries the connection ends."""
        peer = self.connect()
        for left in (2, 1, 0):
            peer.login(generate_token())
            self.assertIsInstance(peer.got[-1][1], m.Challenge)
            self.clock.advance(WRONG_TIME)
            peer.turn()
            self.assertIn((0, m.Refused(left, "the token is wrong")), peer.got[-2:])
            self.assertEqual(peer.is_closed, left == 0)
        self.assertEqual(peer.got[-1][1], m.GoAway(0, code(AuthenticationError), "the token is wrong"))

    def test_second_try(self) -> None:
        """After a wrong token the right one is let in."""
        peer = self.connect()
        peer.login(generate_token())
        self.clock.advance(WRONG_TIME)
        peer.turn()
        peer.login()
        self.assertIsInstance(peer.got[-1][1], m.Welcome)

    def test_impatient(self) -> None:
        """Whoever tries again before the answer breaks the protocol."""
        peer = self.connect()
        peer.login(generate_token())
        again = m.encode(m.Auth(bytes(8), NONCE))
        peer.raw(again)
        self.assertTrue(peer.is_closed)
        peer.lose()
        self.clock.advance(WRONG_TIME)

    def test_leaves(self) -> None:
        """Whoever says goodbye before the answer to a wrong token gets none."""
        peer = self.connect()
        peer.login(generate_token())
        peer.session.leave()
        peer.turn()
        self.assertTrue(peer.is_closed)
        self.clock.advance(WRONG_TIME)
        self.assertEqual(peer.transport.value(), b"")

    def test_bound_without_tls(self) -> None:
        """A proof that is bound to a certificate where we show none is refused: somebody is in between."""
        peer = self.connect()
        peer.session.send(m.Auth(bytes(8), NONCE, "tls-server-end-point"))
        peer.turn()
        self.clock.advance(WRONG_TIME)
        peer.turn()
        self.assertIsInstance(peer.got[-1][1], m.Refused)

    def test_reread(self) -> None:
        """Tokens that were read again hold for those who come from then on."""
        peer = self.client()
        self.tokens = TokenTable()
        self.assertIsInstance(peer.ask(m.Stat(path("")))[-1], m.End)
        late = self.connect()
        late.login()
        self.assertIsInstance(late.got[-1][1], m.Challenge)

    def test_nothing_before(self) -> None:
        """Before a token is proved there is no operation."""
        peer = self.connect()
        peer.raw(m.encode(m.Stat(path("")), 1))
        goodbye = expect(m.GoAway, peer.got[-1][1])
        self.assertEqual(goodbye.code, code(CorruptedResponse))
        self.assertTrue(peer.is_closed)
        self.assertEqual(self.done, [])

    def test_deadline(self) -> None:
        """Whoever has not been let in after so many seconds is out, whatever was said meanwhile."""
        peer = self.connect()
        self.clock.pump([1.0] * (int(ACCESS_TIME) - 1))
        peer.session.send(m.Auth(bytes(8), NONCE))
        peer.turn()
        self.assertFalse(peer.is_closed)
        self.clock.pump([1.0, 1.0])
        self.assertTrue(peer.transport.aborted)

    def test_too_many(self) -> None:
        """Silent strangers do not keep others of their address out, and those who are let in do not count."""
        first = self.client()
        peers = [self.connect() for _ in range(STRANGERS_PER_ADDRESS)]
        self.assertIsInstance(self.client().got[-1][1], m.Welcome)
        aborted = [peer.transport.aborted for peer in (first, *peers)]
        self.assertEqual(aborted, [False, True] + [False] * (STRANGERS_PER_ADDRESS - 1))

    def test_full(self) -> None:
        """When all strangers' places are taken, one of the address with most gives way to a new one."""
        hosts = MAX_STRANGERS // STRANGERS_PER_ADDRESS
        peers = [
            Peer(self.factory, self.clock, host=f"10.0.0.{number % hosts}") for number in range(MAX_STRANGERS)
        ]
        late = self.connect(host="10.0.1.1")
        late.login()
        self.assertIsInstance(late.got[-1][1], m.Welcome)
        self.assertEqual(sum(peer.transport.aborted for peer in peers), 1)
        for peer in peers:
            peer.lose()
        self.assertEqual(self.factory.lobby.taken, 0)


class ShareTests(SynchronousTestCase):
    """Operations of one token that are under way."""

    def test_share(self) -> None:
        """A token has so many and no more; what ends gives its place back, and others are not concerned."""
        shares = Shares(2)
        self.assertEqual([shares.take("a") for _ in range(3)], [True, True, False])
        self.assertTrue(shares.take("b"))
        shares.give_back("a")
        self.assertEqual([shares.take("a"), shares.take("a")], [True, False])
