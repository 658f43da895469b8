"""A server of a few lines on loopback, for tests of the client: it says what a test tells it to, lies too."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypedDict, TypeVar, Unpack

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from fileexport.client import chunks
from fileexport.client.blocking import Client
from fileexport.errors import ChangedWhileRead
from fileexport.proofs import ServerProof, auth_message, end_point_binding
from fileexport.token_file import parse_token_file
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import DEFAULT_OFFER, Received, Session
from fileexport.wire.streams import Role

TOKEN = "fex1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA000000"
Told = TypeVar("Told", bound=m.Message)
#: What a callback raises, kinds that the client raises itself among them.
RAISED = (ZeroDivisionError, KeyboardInterrupt, ConnectionError, FileNotFoundError, ChangedWhileRead)


def raising(kind: type[BaseException]) -> Callable[..., NoReturn]:
    """A callback that raises this."""

    def process(*_: object) -> NoReturn:
        raise kind

    return process


class Peer:
    """The server's side of one connection, as a script sees it."""

    def __init__(self, connected: socket.socket, offer: m.Offer, features: Sequence[str]) -> None:
        self.socket = connected
        self.session = Session(Role.SERVER, offer, features)
        self.binding = b""

    def flush(self) -> None:
        """Send what the session has to say."""
        self.socket.sendall(self.session.take())

    def next(self) -> Received | Data:
        """The next event; raises `ConnectionError` when the client has gone."""
        while (found := self.session.next_event()) is None:
            self.flush()
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the client has gone")
            self.session.receive(data)
        if isinstance(found, Received) and isinstance(found.message, m.GoAway) and not found.message.code:
            raise ConnectionError("the client has said goodbye")
        return found

    def hear(self, kind: type[Told]) -> tuple[int, Told]:
        """Stream and message of the next event, credit left out, which must be of `kind`."""
        while True:
            found = self.next()
            if isinstance(found, Received) and isinstance(found.message, m.MoreCredit):
                continue
            if isinstance(found, Received) and isinstance(found.message, kind):
                return found.stream, found.message
            raise AssertionError(f"{found} instead of {kind.__name__}")

    def say(self, message: m.Message, stream: int = 0) -> None:
        """Send a message."""
        if isinstance(message, m.Reset):
            self.session.reset(stream, message)
        else:
            self.session.send(message, stream)
        self.flush()

    def data(self, stream: int, content: bytes) -> None:
        """Send one DATA frame."""
        self.session.data_header(stream, len(content))
        self.flush()
        self.socket.sendall(content)

    def break_off(self) -> None:
        """End the connection so that the client's next word fails."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def raw(self, data: bytes) -> None:
        """Send bytes past the session."""
        self.flush()
        self.socket.sendall(data)

    def content(self, stream: int) -> tuple[bytes, m.End]:
        """All content that the client sends on a stream, and its END."""
        whole = bytearray()
        while True:
            found = self.next()
            if isinstance(found, Data):
                whole += found.piece
                self.session.consumed(found.stream, len(found.piece))
            elif isinstance(found.message, m.End):
                return bytes(whole), found.message
            elif not isinstance(found.message, m.MoreCredit):
                raise AssertionError(f"{found} instead of content")

    def send_file(self, content: bytes, *, version: bytes = b"v1", offset: int = 0, mtime: int = 7) -> None:
        """Answer one `read` honestly, from `offset` on."""
        stream, _ = self.hear(m.Read)
        self.answer_read(stream, content, version=version, offset=offset, mtime=mtime)

    def answer_read(
        self, stream: int, content: bytes, *, version: bytes = b"v1", offset: int = 0, mtime: int = 7
    ) -> None:
        """Answer a `read` that was heard."""
        self.say(m.Content(len(content), mtime, version, offset), stream)
        for start in range(offset, len(content), 64 << 10):
            self.data(stream, content[start : start + (64 << 10)])
        self.say(m.End(len(content), blake3(content).digest()), stream)

    def let_in(self) -> None:
        """Carry out the server's part of the authentication; a wrong token is refused."""
        self.hear(m.Hello)
        _, auth = self.hear(m.Auth)
        table = parse_token_file(f"{TOKEN} name=test\n", "test")
        proof = ServerProof.begin(table, auth.id, 0.0, bytes(32))
        nonce = bytes(32)
        self.say(m.Challenge(nonce))
        _, found = self.hear(m.Proof)
        message = auth_message(self.session.transcript, auth.id, auth.nonce, nonce, self.binding)
        if proof.check(found.proof, message) is None:
            self.say(m.Refused(2, "the token is missing or wrong"))
            raise ConnectionError("a wrong token")
        self.say(m.Welcome(proof.answer(message), ["read", "write", "delete", "admin"]))


Script = Callable[[Peer], None]


def answering(*answers: m.Message) -> Script:
    """Answer each operation with these messages."""

    def script(peer: Peer) -> None:
        while True:
            stream, _ = peer.hear(m.Open)
            for answer in answers:
                peer.say(answer, stream)

    return script


class ServerOptions(TypedDict, total=False):
    """How a server differs from others."""

    raw: bool
    offer: m.Offer
    features: Sequence[str]
    tls: ssl.SSLContext
    certificate: bytes


class ClientOptions(TypedDict, total=False):
    """How a client differs from others."""

    token: str | None
    timeout: float
    public_key: str
    ca_file: Path
    tls: bool
    compression: bool
    client_certificate: Path


class ScriptedServer:
    """Carries out one script for each connection, the last one for all further ones; in threads of its own.

    Scripts begin after the authentication, unless `raw`. What a script raises is raised by `close`, but for
    `OSError`.
    """

    def __init__(
        self,
        *scripts: Script,
        raw: bool = False,
        offer: m.Offer = DEFAULT_OFFER,
        features: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        certificate: bytes = b"",
    ) -> None:
        self._scripts = scripts
        self._raw = raw
        self._offer = offer
        self._features = features
        self._tls = tls
        self._binding = end_point_binding(certificate) if certificate else b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._errors: list[BaseException] = []
        self.connections = 0
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """A client for it."""
        wanted: ClientOptions = {"token": TOKEN, "timeout": 20_000, **options}
        return Client("127.0.0.1", self.port, **wanted)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connected, _ = self._listener.accept()
                script = self._scripts[min(self.connections, len(self._scripts) - 1)]
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(connected, script), daemon=True)
                self._threads.append(thread)
                self._sockets.append(connected)
                thread.start()

    def _serve(self, connected: socket.socket, script: Script) -> None:
        try:
            with connected:
                if self._tls is not None:
                    connected = self._tls.wrap_socket(connected, server_side=True)
                    self._sockets.append(connected)
                peer = Peer(connected, self._offer, self._features)
                peer.binding = self._binding
                with connected:
                    if not self._raw:
                        peer.let_in()
                    script(peer)
        except OSError:
            pass
        except BaseException as error:
            self._errors.append(error)

    def close(self) -> None:
        """Stop; raises what went wrong in a script."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for connected in self._sockets:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]


class ServerCase(SynchronousTestCase):
    """A directory, and servers that are closed at the end; nobody waits before trying again."""

    def setUp(self) -> None:
        self.patch(chunks, "BACKOFF", (0.0,) * len(chunks.BACKOFF))
        self.here = Path(self.mktemp())
        self.here.mkdir()

    def server(self, *scripts: Script, **options: Unpack[ServerOptions]) -> ScriptedServer:
        """A server with these scripts."""
        server = ScriptedServer(*scripts, **options)
        self.addCleanup(server.close)
        return server
