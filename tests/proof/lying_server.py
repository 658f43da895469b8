"""A server that lets the client in, knows its token, and then says what a script wants: anything at all.

It stands on the frames and messages of the project, not on its session, which would refuse to lie.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from blake3 import blake3

from fileexport.errors import BadRequestError, CorruptedResponse
from fileexport.paths import RelPath
from fileexport.proofs import ServerProof, auth_message
from fileexport.token_file import parse_token_file
from fileexport.wire import messages as m
from fileexport.wire.frames import (
    HEADER_SIZE,
    LARGEST,
    PREFACE,
    Data,
    Frame,
    FrameReader,
    FrameType,
    header,
)
from fileexport.wire.session import DEFAULT_OFFER
from tests.proof.daemon import PATIENCE

#: What the client says after it was let in, and the stream of it.
Heard = tuple[int, m.Message | Data]


class ClientGone(Exception):
    """The client has closed, or broken, the connection."""


class Liar:
    """One connection: what a script may hear and say on it. Each call may raise `ClientGone`."""

    def __init__(self, end: socket.socket, token: str) -> None:
        self.end = end
        self._token = token
        self._reader = FrameReader(LARGEST)
        self._waiting: list[Heard] = []
        self._client_hello = b""

    def login(self, welcome: bytes | None = None) -> None:
        """Let the client in, as an honest server does; or with another proof in WELCOME."""
        said = m.encode(m.Hello(m.VERSION, DEFAULT_OFFER, []))
        self.raw(PREFACE + said)
        hello = self._frame()
        self._client_hello = bytes(hello.payload)
        auth = m.decode(self._frame())
        assert isinstance(auth, m.Auth)
        nonce = secrets.token_bytes(m.DIGEST_SIZE)
        self.say(m.Challenge(nonce))
        hellos = (self._client_hello, said[HEADER_SIZE:])
        transcript = hashlib.sha256(b"".join(struct.pack(">I", len(one)) + one for one in hellos)).digest()
        message = auth_message(transcript, auth.id, auth.nonce, nonce, b"")
        proof = ServerProof.begin(parse_token_file(self._token, "tokens"), auth.id, 0.0, bytes(32))
        shown = m.decode(self._frame())
        assert isinstance(shown, m.Proof) and proof.check(shown.proof, message)
        self.say(
            m.Welcome(proof.answer(message) if welcome is None else welcome, ["read", "write", "delete"])
        )

    def hear(self) -> Heard:
        """The next message of the client, or piece of its content; credit and the like are passed over."""
        while True:
            found = self._event()
            if isinstance(found, Data):
                return found.stream, found
            with suppress(BadRequestError):
                message = m.decode(found)
                if not isinstance(message, m.MoreCredit | m.Ping | m.Pong | m.GoAway):
                    return found.stream, message

    def until_end(self, stream: int) -> bytes:
        """Take the client's content up to its END, with credit for all of it."""
        content = b""
        while True:
            number, found = self.hear()
            if isinstance(found, Data):
                content += found.piece
                for credited in (0, number):
                    self.say(m.MoreCredit(len(found.piece)), credited)
            elif number == stream and isinstance(found, m.End | m.Reset):
                return content

    def until_gone(self) -> None:
        """Wait until the client closes the connection; read all that it says."""
        with suppress(ClientGone):
            while True:
                self._event()

    def say(self, message: m.Message, stream: int = 0) -> None:
        """Say a message, whose turn it ever is."""
        self.raw(m.encode(message, stream))

    def reply(self, stream: int, **fields: Any) -> None:
        """A REPLY of any fields, also such as no message of the project has."""
        self.raw(_any_frame(FrameType.REPLY, stream, msgspec.msgpack.encode(fields)))

    def entries(self, stream: int, *rows: Sequence[Any]) -> None:
        """A batch of a listing from rows (path, type, size, mtime) of any kind."""
        self.reply(stream, reply="entries", entries=[list(row) for row in rows])

    def files(self, stream: int, rows: Sequence[Any]) -> None:
        """Small files from rows (path, mtime, digest, content) of any kind."""
        self.raw(_any_frame(FrameType.FILES, stream, msgspec.msgpack.encode({"files": rows})))

    def content(self, stream: int, size: int, offset: int = 0) -> None:
        """Say that so much content comes."""
        self.say(m.Content(size, 1_700_000_000_000_000_000, b"version", offset), stream)

    def data(self, stream: int, content: bytes, flags: int = 0) -> None:
        """Content, in as many frames as it takes."""
        for at in range(0, len(content), LARGEST.data):
            piece = content[at : at + LARGEST.data]
            self.raw(header(FrameType.DATA, stream, len(piece), flags=flags) + piece)

    def finish(self, stream: int, content: bytes, size: int | None = None) -> None:
        """END with the hash of this content."""
        self.say(m.End(len(content) if size is None else size, blake3(content).digest()), stream)

    def raw(self, data: bytes) -> None:
        """Any bytes."""
        try:
            self.end.sendall(data)
        except OSError:
            raise ClientGone from None

    def _frame(self) -> Frame:
        found = self._event()
        assert isinstance(found, Frame)
        return found

    def _event(self) -> Frame | Data:
        try:
            while (found := self._reader.next_event()) is None:
                data = self.end.recv(1 << 20)
                if not data:
                    raise ClientGone
                self._reader.feed(data)
        except (OSError, CorruptedResponse):
            raise ClientGone from None
        return found


def _any_frame(kind: FrameType, stream: int, payload: bytes) -> bytes:
    """A frame of any length: it may be longer than any receiver takes."""
    return struct.pack(">IBBHI", len(payload), kind, 0, 0, stream) + payload


#: What is done on a connection from its first byte.
Script = Callable[[Liar], None]
#: What is done on the stream of an operation.
Answer = Callable[[Liar, int, m.Open], None]


def answering(answer: Answer) -> Script:
    """Let the client in, and answer each of its operations so."""

    def script(liar: Liar) -> None:
        liar.login()
        while True:
            stream, asked = liar.hear()
            if isinstance(asked, m.Open):
                answer(liar, stream, asked)

    return script


def honest(liar: Liar, stream: int, asked: m.Open) -> None:
    """One file called `honest` in the root, and nothing else."""
    match asked:
        case m.List():
            liar.say(m.Entries([m.Entry(RelPath(("honest",)), "file", 6, 0)]), stream)
            liar.say(m.End(), stream)
        case m.Read(offset=0):
            liar.content(stream, 6)
            liar.data(stream, b"honest")
            liar.finish(stream, b"honest")
        case _:
            liar.say(m.Reset(9, "this server knows only list and read"), stream)


class LyingServer:
    """Serves `script` on a port of 127.0.0.1 for the `with` block."""

    def __init__(self, token: str, script: Script) -> None:
        self._script = script
        self._token = token
        self._ends: set[socket.socket] = set()
        #: What went wrong in a script itself.
        self.failed: list[BaseException] = []
        #: Connections that came.
        self.connections = 0

    def __enter__(self) -> LyingServer:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone would not wake who waits in `accept`.
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._hang_up()

    def become(self, script: Script) -> None:
        """Serve this from now on; connections that stand are closed."""
        self._script = script
        self._hang_up()

    def _hang_up(self) -> None:
        for end in list(self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                end, _ = self._listening.accept()
                self.connections += 1
                self._ends.add(end)
                threading.Thread(target=self._serve, args=(end, self._script), daemon=True).start()

    def _serve(self, end: socket.socket, script: Script) -> None:
        end.settimeout(PATIENCE)
        try:
            script(Liar(end, self._token))
        except (ClientGone, OSError):
            pass
        except BaseException as error:
            self.failed.append(error)
        finally:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            self._ends.discard(end)
            end.close()
