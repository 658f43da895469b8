"""The token: not on the wire, not in a log, not in the process list; and its file lets nobody in."""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from fileexport.errors import AuthenticationError
from fileexport.proofs import ClientProof, auth_message
from fileexport.tokens import MIN_TOKEN, generate_token, hash_token
from fileexport.wire import messages as m
from fileexport.wire.session import Received, Session
from fileexport.wire.streams import Role
from tests.proof.commands import eventually
from tests.proof.cut_proxy import Cut, CutProxy, How
from tests.proof.daemon import PATIENCE
from tests.proof.process import KIB, MIB
from tests.proof.proxy import Way
from tests.proof.transfer_case import TransferCase

#: Makes a proof of the message.
Proof = Callable[[bytes], bytes]
#: So many characters of a token that are in a row somewhere are no chance.
PART = 12


def spellings(secret: bytes) -> Iterator[bytes]:
    """The secret as it might stand on a wire: as it is, turned round, in hex, base64 and UTF-16."""
    yield from (secret, secret[::-1], secret.hex().encode(), secret.hex().upper().encode())
    yield secret.decode("latin-1").encode("utf-16-le")
    for shift in range(3):
        # What stands before decides how it looks in base64, and the ends depend on their neighbours.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(shift) + secret).rstrip(b"=")[4:-4]


def parts(token: str) -> list[bytes]:
    """All rows of `PART` characters of the token's random part."""
    text = token.removeprefix("fex1_").encode()
    return [text[at : at + PART] for at in range(0, len(text) - PART, PART // 2)]


class SecretTests(TransferCase):
    """Where the token must not be."""

    def assert_absent(self, data: bytes, where: str) -> None:
        """Neither the token nor a part nor one of its keys stands there in any spelling."""
        keys = [base64.urlsafe_b64decode(key + "==") for key in hash_token(self.token).split(":")[2:]]
        for secret in (self.token.encode(), *parts(self.token), *keys):
            for spelled in spellings(secret):
                self.assertNotIn(spelled, data, where)

    def test_wire(self) -> None:
        """It is in no packet: not where it is right, not where it is wrong, whatever is done."""
        port = self.daemon().transfer_port
        source = self.source("source", 2 * MIB)
        small = self.source("small/one", KIB)
        with CutProxy(port, [Cut(Way.UP, MIB, How.RST)], record=True) as proxy:
            with self.client(proxy.port) as client:
                client.upload_file(str(source), "/")
                client.upload_directory(str(small.parent), "/")
                client.list_files("/")
                client.download_file("/source", str(self.base))
                self.assertRaises(FileNotFoundError, client.stat, "/none")
            # One whose token the daemon does not know says no more of it than one that it knows.
            good, self.token = self.token, generate_token()
            with self.client(proxy.port) as client:
                self.assertRaises(AuthenticationError, client.list_files, "/")
            self.assert_absent(proxy.recorded(), "packets")
            self.token = good
            self.assert_absent(proxy.recorded(), "packets")
            self.assertIn(ClientProof(good).id, proxy.recorded(Way.UP), "nothing was recorded")

    def test_control(self) -> None:
        """One that would send it as it is, or as HTTP's Basic does, is found out."""
        for said in (
            f"x{self.token}x",
            self.token[20:40],
            f"Basic {base64.b64encode(self.token.encode()).decode()}",
        ):
            with self.assertRaises(self.failureException):
                self.assert_absent(said.encode(), "control")

    def test_log(self) -> None:
        """It is in no log, with all that goes wrong, and in no file of the state."""
        daemon = self.daemon("--log-format", "json")
        port = daemon.transfer_port
        with self.client(port) as client:
            client.list_files("/")
            self.assertRaises(FileNotFoundError, client.stat, "/none")
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as end:
            # Sent by mistake, as a text protocol would take it.
            end.sendall(f"AUTH {self.token}\r\n".encode())
            end.recv(1000)
        with self.client(port, token=self.token[:-1]) as client:
            self.assertRaises(AuthenticationError, client.list_files, "/")
        self.assertEqual(daemon.stop(), 0)
        self.assert_absent(daemon.output.encode(), "log")
        for path in Path(f"{self.root}.state").rglob("*"):
            if path.is_file():
                self.assert_absent(path.read_bytes(), str(path))

    def test_process_list(self) -> None:
        """No process shows it: not the daemon, not the programs of its users while they work."""
        daemon = self.daemon()
        source = self.source("source", 4 * MIB)
        stalled = [Cut(Way.UP, MIB, How.STALL)]
        token_file = self.write("client-token", f"{self.token}\n".encode(), 0o600)
        by_file = {"FILEEXPORT_TOKEN": "", "FILEEXPORT_TOKEN_FILE": str(token_file)}
        for more in ({}, by_file):
            with CutProxy(daemon.transfer_port, stalled) as proxy:
                environ = {name: value for name, value in self.environ(proxy.port, **more).items() if value}
                with self.running(environ, "upload", source, "/") as process:
                    shown = self.shown_when_stalled(proxy)
                    self.assertIn(str(process.pid), shown)
                    self.assertIn(str(daemon.pid), shown)
                    for pid, line in shown.items():
                        self.assert_absent(line, pid)

    def shown_when_stalled(self, proxy: CutProxy) -> dict[str, bytes]:
        """The command line of every process, taken while a program waits for the daemon."""
        eventually("it has sent something", lambda: proxy.passed(Way.UP) >= MIB)
        shown = {}
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                shown[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
        return shown


class StolenTests(TransferCase):
    """Somebody who has read the token file of a daemon."""

    def setUp(self) -> None:
        super().setUp()
        self.stored = hash_token(self.token)
        self.tokens.write_text(f"{self.stored} name=somebody\n")
        self.port = self.daemon().transfer_port

    def test_control(self) -> None:
        """The token itself is let in where only its stored form is in the file."""
        with self.client(self.port) as client:
            self.assertEqual(client.list_files("/"), {})

    def test_as_token(self) -> None:
        """The stored form, and each part of it, is no token."""

        def refused(said: str) -> None:
            with self.client(self.port, token=said) as client:
                self.assertRaises(AuthenticationError, client.list_files, "/")

        tried = [said for said in (self.stored, *self.stored.split(":")) if len(said) >= MIN_TOKEN]
        self.assertGreater(len(tried), 2)
        with ThreadPoolExecutor(len(tried)) as pool:
            list(pool.map(refused, tried))

    def test_as_key(self) -> None:
        """No key of the file makes a proof: in the place of the client's key, or as the proof itself."""
        _, _, stored_key, server_key = self.stored.split(":")
        keys = [base64.urlsafe_b64decode(key + "=") for key in (stored_key, server_key)] + [bytes(32)]
        proofs: list[Proof] = [partial(_forged, keys[0], key) for key in keys]
        proofs += [partial(_as_it_is, key) for key in keys]
        with ThreadPoolExecutor(len(proofs)) as pool:
            for answer in pool.map(self.attempt, proofs):
                self.assertIsInstance(answer, m.Refused)
        # The control: the token's own proof, made in the same way, is let in.
        self.assertIsInstance(self.attempt(ClientProof(self.token).proof), m.Welcome)

    def test_replay(self) -> None:
        """A proof that was overheard is good for its own connection only."""
        heard: list[bytes] = []

        def listen(message: bytes) -> bytes:
            heard.append(ClientProof(self.token).proof(message))
            return heard[0]

        self.assertIsInstance(self.attempt(listen), m.Welcome)
        self.assertIsInstance(self.attempt(lambda _: heard[0]), m.Refused)

    def test_another_binding(self) -> None:
        """A proof for a server with a certificate is none for one without."""

        def bound(message: bytes) -> bytes:
            return ClientProof(self.token).proof(message[:-4] + b"\0\0\0\x20" + bytes(32))

        self.assertIsInstance(self.attempt(bound), m.Refused)

    def attempt(self, make: Proof) -> m.Message:
        """What the daemon answers to a proof that `make` makes of the message."""
        session, token_id = Session(Role.CLIENT), ClientProof(self.token).id
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as end:

            def heard() -> m.Message:
                end.sendall(session.take())
                while (event := session.next_event()) is None:
                    data = end.recv(1 << 16)
                    self.assertTrue(data, "the daemon closed the connection")
                    session.receive(data)
                assert isinstance(event, Received)
                return event.message

            self.assertIsInstance(heard(), m.Hello)
            nonce = secrets.token_bytes(32)
            session.send(m.Auth(token_id, nonce))
            challenge = heard()
            assert isinstance(challenge, m.Challenge)
            session.send(
                m.Proof(make(auth_message(session.transcript, token_id, nonce, challenge.nonce, b"")))
            )
            return heard()


def _as_it_is(key: bytes, message: bytes) -> bytes:
    return key


def _forged(stored_key: bytes, key: bytes, message: bytes) -> bytes:
    signature = hmac.digest(stored_key, message, "sha256")
    return bytes(a ^ b for a, b in zip(key, signature, strict=True))


class ArgumentTests(TransferCase):
    """A token on the command line of `run`: it works, and is warned of."""

    def test_warning(self) -> None:
        """The daemon says that the process list shows it, and does not say it itself."""
        with self.terminal_daemon() as daemon:
            with self.client(daemon.transfer_port) as client:
                self.assertEqual(client.list_files("/"), {})
            daemon.expect("process list")
            self.assertNotIn(self.token, daemon.output)
