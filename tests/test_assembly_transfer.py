"""The daemon's transfer side: its listeners beside those of HTTP, TLS, stop, log."""

from __future__ import annotations

import contextlib
from typing import Any

from blake3 import blake3
from OpenSSL import SSL, crypto
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from fileexport.assembly import RECOVERY_TIME
from fileexport.disk import contents
from fileexport.disk.views import Opened
from fileexport.errors import ConfigurationError, ListenError
from fileexport.proofs import ClientProof, auth_message, end_point_binding
from fileexport.tokens import generate_token
from fileexport.wire import messages as m
from fileexport.wire.frames import ALPN
from fileexport.wire.session import Received, Session
from fileexport.wire.streams import Role
from tests.machine import TOKEN, Machine, ServiceCase
from tests.test_endpoints import carry, client_context, pem_for, shake_hands
from tests.transfer_peer import NONCE, Peer, Wire, path


class _Socket(Wire):
    def setTcpNoDelay(self, enabled: bool) -> None:
        """It never waits."""


class Agent(Peer):
    """A client of a daemon whose work is done in threads."""

    def __init__(self, case: ServiceCase, which: int = 0) -> None:
        self.machine = case.machine
        super().__init__(case.factory(which), case.machine)

    def wait(self, stream: int) -> list[Any]:
        """What is said on a stream until its end."""
        while self.session.is_open(stream):
            self.machine.turn()
            self.turn()
        return self.said(stream)


class TransferTests(ServiceCase):
    """A daemon with both sides, or one."""

    def agent(self, which: int = 0) -> Agent:
        """A client, lost when the test is over."""
        agent = Agent(self, which)
        self.addCleanup(agent.lose)
        agent.login(TOKEN)
        return agent

    def test_alone(self) -> None:
        """Without the HTTP side the daemon speaks the transfer protocol alone, and the other way round."""
        self.started(http=["none"])
        self.assertEqual([server[0] for server in self.machine.tcpServers], [6768, 6768])
        self.assertFalse(any("HTTP on" in line for line in self.said))
        self.machine = Machine()
        self.started(transfer=["none"])
        self.assertEqual([server[0] for server in self.machine.tcpServers], [9006, 9006])

    def test_remembers(self) -> None:
        """What a large file holds is remembered in the state, and not read again."""
        (self.root / "a").write_bytes(bytes(1 << 20))
        self.patch(contents, "SETTLED", 0)
        asked = m.HashFiles([path("/a")])
        self.started(http=["none"], token_file=self.tokens())
        agent = self.agent()
        asked = m.HashFiles([path("a")])
        first = agent.wait(agent.begin(asked))
        self.patch(Opened, "read_at", lambda *args: self.fail("it was read again"))
        self.assertEqual(agent.wait(agent.begin(asked)), first)
        self.assertIsInstance(first[0], m.Hashes)

    def test_listeners(self) -> None:
        """Every listener is named, those of `--transfer` first, then that of its port."""
        socket = str(self.base / "socket")
        self.started(
            http=["none"], transfer=["tcp:1:interface=127.0.0.1", f"unix:{socket}"], transfer_port=["2"]
        )
        self.assertEqual(
            self.said[1:5],
            [
                "transfer on tcp 127.0.0.1:1",
                f"transfer on unix:{socket}",
                "transfer on tcp 127.0.0.1:2",
                "transfer on tcp [::1]:2",
            ],
        )

    def test_all_or_none(self) -> None:
        """When one listener of either side cannot be opened, none stays open."""
        self.machine = Machine(6768)
        service = self.service()
        self.assertRaises(ListenError, service.privilegedStartService)
        self.machine.advance(0)
        self.assertEqual(self.machine.listening, set())

    def test_exposed(self) -> None:
        """A listener that others can reach needs TLS, and so do weak tokens."""
        service = self.service(transfer=["tcp:1"])
        self.assertRaises(ConfigurationError, service.privilegedStartService)
        tokens = self.tokens("hunter2hunter2\n")
        service = self.service(transfer=["tcp:1"], insecure_plaintext=True, token_file=tokens)
        self.assertRaises(ConfigurationError, service.privilegedStartService)
        self.machine.advance(0)
        self.assertEqual(self.machine.listening, set())

    def test_exposed_later(self) -> None:
        """A weak token is not taken over by a reload either, where others could overhear it."""
        service = self.started(
            http=["none"], transfer=["tcp:1"], insecure_plaintext=True, token_file=self.tokens()
        )
        self.tokens("hunter2hunter2\n")
        service.reload()
        self.assertTrue(any("a weak token needs TLS" in line for line in self.logged()))
        self.assertIsInstance(self.agent().got[-1][1], m.Welcome)

    def test_operation(self) -> None:
        """An operation is carried out, and stands in the access log with the token's name."""
        self.started(http=["none"], token_file=self.tokens(f"{TOKEN} name=alice\n"))
        agent = self.agent()
        said = agent.wait(agent.begin(m.Read(path("hello.txt"))))
        self.assertEqual(said[1], b"hello\n")
        agent.wait(agent.begin(m.Stat(path("no"))))
        done, failed = self.written.getvalue().splitlines()
        self.assertIn(" - alice [", done)
        self.assertIn('"read /hello.txt transfer/1" 200 6 ', done)
        self.assertIn('"stat /no transfer/1" 404 0 ', failed)

    def test_max_connections(self) -> None:
        """Connections of both sides count together."""
        self.started(max_connections=["2"], token_file=self.tokens())
        held, other = self.connect(0), self.agent(2)
        self.machine.advance(0)
        self.assertEqual(self.machine.listening, set())
        held.lose()
        other.lose()
        self.assertEqual(self.stops, 1)

    def test_reload(self) -> None:
        """Tokens that are read again hold at once: who came by another one begins nothing more."""
        service = self.started(http=["none"], token_file=self.tokens())
        agent = self.agent()
        service.reload()
        stream = agent.begin(m.Write(path("a"), 1000, 0))
        self.tokens(generate_token())
        service.reload()
        agent.turn()
        self.assertEqual(agent.got[-1][1], m.GoAway(stream, 0, "the token does not count any more"))
        agent.data(stream, b"x" * 1000)
        agent.end(stream, 1000, blake3(b"x" * 1000).digest())
        self.assertIsInstance(agent.wait(stream)[-1], m.End)
        self.assertTrue(agent.is_closed)
        self.assertIsInstance(self.agent().got[-1][1], m.Challenge)

    def test_stop(self) -> None:
        """A stop lets what was begun end, and cuts what takes too long."""
        service = self.started(http=["none"], token_file=self.tokens())
        agent = self.agent()
        stream = agent.begin(m.Write(path("a"), 1000, 0))
        self.machine.turn()
        done = service.stopService()
        agent.turn()
        self.assertIsInstance(agent.got[-1][1], m.GoAway)
        self.assertNoResult(done)
        self.machine.advance(10)
        self.assertTrue(agent.transport.aborted)
        self.assertTrue(agent.session.is_open(stream))
        agent.lose()
        self.machine.finish(done)
        self.successResultOf(done)
        self.assertEqual(self.machine.getDelayedCalls(), [])
        self.assertFalse((self.root / "a").exists())

    def test_own_addresses(self) -> None:
        """Nobody is called back at a listener of either side."""
        service = self.started(transfer=["tcp:1:interface=127.0.0.1"], http=["tcp:2:interface=127.0.0.1"])
        self.assertEqual(sorted(port for _, port in service._own_addresses()), [1, 2])

    def test_recovery(self) -> None:
        """What a writer has left that is gone since the start is removed within the hour."""
        self.started()
        staging = self.root / ".fileexport"
        staging.mkdir()
        (staging / "new-0123").write_text("half a file")
        self.machine.advance(RECOVERY_TIME)
        while "removed 1 files that a killed writer had left" not in self.logged():
            self.machine.turn()
        self.assertEqual(list(staging.glob("new-*")), [])

    def test_tls(self) -> None:
        """Under TLS the proof is bound to the certificate that the client saw; ALPN names the protocol."""
        key = self.base / "key.pem"
        key.write_text(pem_for())
        self.started(http=["none"], private_key=[str(key)], token_file=self.tokens())
        self.assertIn("transfer on tls 127.0.0.1:6768", self.said)
        self.assertIsInstance(self.login_by_tls(end_point_binding), m.Welcome)
        self.assertIsInstance(self.login_by_tls(lambda certificate: bytes(32)), m.Refused)

    def login_by_tls(self, binding_of: Any) -> m.Message:
        """What answers a proof that is bound to what `binding_of` makes of the certificate."""
        server: Any = self.factory().buildProtocol(IPv4Address("TCP", "127.0.0.1", 40_000))
        transport = _Socket()
        self.addCleanup(server.connectionLost, Failure(ConnectionDone()))
        client = shake_hands(server, client_context(ALPN), transport)
        self.assertEqual(client.get_alpn_proto_negotiated(), ALPN)
        certificate = client.get_peer_certificate()
        assert certificate is not None
        binding = binding_of(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))
        session, proof = Session(Role.CLIENT), ClientProof(TOKEN)
        self.exchange(session, client, server, transport)
        session.send(m.Auth(proof.id, NONCE, "tls-server-end-point"))
        challenge = self.exchange(session, client, server, transport)
        assert isinstance(challenge, m.Challenge), challenge
        said = auth_message(session.transcript, proof.id, NONCE, challenge.nonce, binding)
        session.send(m.Proof(proof.proof(said)))
        return self.exchange(session, client, server, transport)

    def exchange(self, session: Session, client: SSL.Connection, server: Any, transport: Wire) -> m.Message:
        """Say what there is to say; the last that is answered."""
        last: m.Message = m.Ping()
        for _ in range(6):
            if said := session.take():
                client.send(said)
            carry(client, server, transport)
            self.machine.advance(0.4)
            with contextlib.suppress(SSL.WantReadError):
                session.receive(client.recv(1 << 16))
            while (event := session.next_event()) is not None:
                assert isinstance(event, Received)
                last = event.message
        return last
