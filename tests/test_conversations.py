"""Whole conversations and proofs, as vectors: the committed files are what the code says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import CorruptedResponse
from fileexport.paths import RelPath
from fileexport.proofs import ClientProof, ServerProof, auth_message
from fileexport.tokens import TokenTable, Verifier
from fileexport.wire import messages as m
from fileexport.wire.frames import LARGEST, Data, FrameReader
from fileexport.wire.session import Session, State
from fileexport.wire.streams import Role
from fileexport.wire.zstd import Grower
from tests.session_pair import Pair, events
from tests.test_tokens import NOW, TOKEN
from tests.vectors import compare, plain

CLIENT_NONCE, SERVER_NONCE = b"\x22" * 32, b"\x33" * 32
#: A token of somebody else's.
OTHER = "another-token-with-enough-characters"
WHEN = 1_795_000_000_123_456_789
TEXT = b"The quick brown fox jumps over the lazy dog.\n"
FILE, FOLDER, MISSING = RelPath(["docs", "fox.txt"]), RelPath(["docs"]), RelPath(["missing"])
DECOY = bytes(range(32))


def digest(content: bytes) -> bytes:
    """BLAKE3, as a file ends with."""
    return blake3(content).digest()


def stored(content: bytes) -> bytes:
    """A zstd frame of one raw block: every encoder may write it, so it never changes."""
    size = len(content)
    return b"\x28\xb5\x2f\xfd\x20" + bytes([size]) + (size << 3 | 1).to_bytes(3, "little") + content


class Talk:
    """Two sessions, and each thing that is sent between them."""

    def __init__(self) -> None:
        pair = Pair()
        self.client, self.server = pair.client, pair.server
        self.steps: list[dict[str, Any]] = []
        self._readers = {role: FrameReader(LARGEST) for role in Role}
        self.carry()
        self.carry()

    def carry(self, content: bytes = b"", speaker: Role = Role.CLIENT) -> None:
        """Carry over what both sides have to say, with `content` behind it from `speaker`."""
        for sender, receiver in ((self.client, self.server), (self.server, self.client)):
            data = sender.take() + (content if sender.role is speaker else b"")
            if data:
                self._step(sender.role, data)
                receiver.receive(data)
                with contextlib.suppress(CorruptedResponse):
                    events(receiver)

    def say(self, side: Session, message: m.Message, stream: int = 0) -> None:
        """One side says something; OPEN gets the next number."""
        if isinstance(message, m.Open):
            side.open(message)
        else:
            side.send(message, stream)
        self.carry()

    def data(self, side: Session, stream: int, content: bytes, *, compressed: bool = False) -> None:
        """One side sends DATA, and the other deals with it."""
        side.data_header(stream, len(content), compressed=compressed)
        self.carry(content, side.role)
        other = self.server if side is self.client else self.client
        other.consumed(stream, len(content))

    def _step(self, sender: Role, data: bytes) -> None:
        reader = self._readers[sender]
        reader.feed(data)
        frames: list[dict[str, Any]] = []
        while (found := reader.next_event()) is not None:
            if isinstance(found, Data):
                row = {"stream": found.stream, "compressed": found.compressed, "payload": found.piece.hex()}
                frames.append({"type": "DATA", **row})
            else:
                value = plain(msgspec.msgpack.decode(found.payload))
                frames.append({"type": found.type.name, "stream": found.stream, "value": value})
        self.steps.append({"from": sender.value, "hex": data.hex(), "frames": frames})

    def prove(self, token: str = TOKEN, tries_left: int = 2) -> None:
        """Authentication, at a server that knows `TOKEN`."""
        client = ClientProof(token)
        table = TokenTable.of(TOKEN, "ada", "vectors")
        server = ServerProof.begin(table, client.id, NOW, DECOY)
        self.say(self.client, m.Auth(client.id, CLIENT_NONCE))
        self.say(self.server, m.Challenge(SERVER_NONCE))
        message = auth_message(self.client.transcript, client.id, CLIENT_NONCE, SERVER_NONCE, b"")
        proof = client.proof(message)
        self.say(self.client, m.Proof(proof))
        who = server.check(proof, message)
        if who is None:
            self.say(self.server, m.Refused(tries_left, "the token is missing or wrong"))
            return
        answer = server.answer(message)
        assert client.is_answered_by(answer, message)
        self.say(self.server, m.Welcome(answer, ["read", "write", "delete"]))

    def leave(self) -> None:
        """Both sides say GOAWAY."""
        for side in (self.client, self.server):
            side.leave()
            self.carry()


def listing_and_upload() -> Talk:
    """The first door: a token, what is there, and a new file."""
    talk = Talk()
    talk.prove()
    talk.say(talk.client, m.List(RelPath(), recursive=True))
    entries = [m.Entry(FOLDER, "directory", 4096, WHEN), m.Entry(RelPath(["docs", "\udcff"]), "file", 0, -1)]
    talk.say(talk.server, m.Entries(entries), 1)
    talk.say(talk.server, m.End(), 1)
    talk.say(talk.client, m.Write(FILE, len(TEXT), WHEN))
    talk.data(talk.client, 2, TEXT[:20])
    talk.say(talk.client, m.Ping(b"still there?"))
    talk.data(talk.client, 2, TEXT[20:])
    talk.say(talk.client, m.End(len(TEXT), digest(TEXT)), 2)
    talk.say(talk.server, m.End(len(TEXT), digest(TEXT)), 2)
    talk.leave()
    return talk


def resumed() -> Talk:
    """Transfers that go on where an earlier connection was cut, or begin again; one is compressed."""
    talk = Talk()
    talk.prove()
    talk.say(talk.client, m.Write(FILE, len(TEXT), WHEN, replace=True, source=b"inode 5"))
    talk.say(talk.server, m.Ready(offset=16), 1)
    talk.data(talk.client, 1, stored(TEXT[16:]), compressed=True)
    talk.say(talk.client, m.End(len(TEXT), digest(TEXT)), 1)
    talk.say(talk.server, m.End(len(TEXT), digest(TEXT)), 1)
    talk.say(talk.client, m.Read(FILE, offset=30, version=b"version 1"))
    talk.say(talk.server, m.Content(len(TEXT), WHEN, b"version 1", offset=30), 2)
    talk.data(talk.server, 2, TEXT[30:])
    talk.say(talk.server, m.End(len(TEXT), digest(TEXT)), 2)
    talk.say(talk.client, m.Read(FILE, offset=30, version=b"version 0"))
    talk.say(talk.server, m.Content(len(TEXT), WHEN, b"version 1"), 3)
    talk.data(talk.server, 3, TEXT)
    talk.say(talk.server, m.End(len(TEXT), digest(TEXT)), 3)
    talk.leave()
    return talk


def synchronised() -> Talk:
    """A manifest, chunks, an upload that takes most of its content from an old version, and steps."""
    talk = Talk()
    talk.prove()
    talk.say(talk.client, m.Manifest(FOLDER))
    lines: list[m.Line] = [
        ("fox.txt", "f", len(TEXT), WHEN, 0o644, ""),
        ("old", "l", 0, WHEN, 0o777, "fox.txt"),
    ]
    top = m.Top(WHEN, 0o755, True)
    talk.say(talk.server, m.ManifestPart([m.folder_of(RelPath(), lines)], top), 1)
    talk.say(talk.server, m.End(), 1)
    talk.say(talk.client, m.HashFiles([FILE]))
    talk.say(talk.server, m.Hashes([m.FileHash(FILE, len(TEXT), digest(TEXT))]), 2)
    talk.say(talk.server, m.End(), 2)
    talk.say(talk.client, m.GetChunks(FILE, 512))
    talk.say(talk.server, m.Chunks(b"version 1", [m.ChunkRow(len(TEXT), digest(TEXT))]), 3)
    talk.say(talk.server, m.End(len(TEXT)), 3)
    new = TEXT[:20] + b"cat" + TEXT[19:] + TEXT[:4]
    bases = [m.Base(FILE, b"version 1")]
    talk.say(talk.client, m.Write(FILE, len(new), WHEN + 1, True, b"inode 6", 0o600, bases))
    talk.say(talk.server, m.Ready(offset=10), 4)
    talk.say(talk.client, m.Copy([m.CopyRange(0, 10, 10)]), 4)
    talk.data(talk.client, 4, b"cat")
    talk.say(talk.client, m.Copy([m.CopyRange(0, 19, len(TEXT) - 19), m.CopyRange(0, 0, 4)]), 4)
    talk.say(talk.client, m.End(len(new), digest(new)), 4)
    talk.say(talk.server, m.End(len(new), digest(new)), 4)
    talk.say(talk.client, m.Read(FILE, version=b"version 2", ranges=[m.Span(20, 3), m.Span(0, 4)]))
    talk.say(talk.server, m.Content(len(new), WHEN + 1, b"version 2", mode=0o600), 5)
    talk.data(talk.server, 5, new[20:23] + new[:4])
    talk.say(talk.server, m.End(len(new)), 5)
    link = RelPath(["docs", "old"])
    steps: list[m.AnyStep] = [
        m.LinkStep(link, b"../a", True),
        m.RemoveStep(MISSING),
        m.SetStep(FOLDER, WHEN, 0o755),
    ]
    talk.say(talk.client, m.Change(steps))
    failed = [m.Failure(1, 1, "there is no such file or directory")]
    talk.say(talk.server, m.Outcome([m.Range(0, 1), m.Range(2, 1)], failed), 6)
    talk.say(talk.server, m.End(), 6)
    talk.leave()
    return talk


def copy_without_bases() -> Talk:
    """COPY where no base was named breaks the protocol."""
    talk = Talk()
    talk.prove()
    talk.say(talk.client, m.Write(FILE, len(TEXT), WHEN))
    talk.client._outbox.append(m.encode(m.Copy([m.CopyRange(0, 0, 1)]), 1))
    talk.carry()
    assert talk.server.state is State.BROKEN
    return talk


def errors() -> Talk:
    """Errors end their streams, and the connection goes on."""
    talk = Talk()
    talk.prove()
    talk.say(talk.client, m.Stat(RelPath(["missing"])))
    talk.say(talk.server, m.Reset(1, "there is no such file or directory"), 1)
    talk.say(talk.client, m.Write(FILE, len(TEXT), WHEN))
    talk.data(talk.client, 2, TEXT[:10])
    busy = m.Reset(11, "someone else is writing this path: try again later", holder="bob", since=WHEN)
    talk.say(talk.server, busy, 2)
    talk.say(talk.client, m.Hash(FOLDER))
    talk.client.reset(3)
    talk.carry()
    talk.say(talk.client, m.WriteFiles(FOLDER))
    files = [m.SmallFile(RelPath([name]), WHEN, digest(b"ok"), b"ok") for name in ("one", "two", "three")]
    talk.say(talk.client, m.Files(files), 4)
    talk.say(talk.client, m.End(), 4)
    failed = [m.Failure(1, 4, "it exists already")]
    talk.say(talk.server, m.Outcome([m.Range(0, 1), m.Range(2, 1)], failed), 4)
    talk.say(talk.server, m.End(), 4)
    talk.leave()
    return talk


def wrong_token() -> Talk:
    """A wrong token is refused; the right one is let in on the same connection."""
    talk = Talk()
    talk.prove(OTHER)
    talk.prove()
    talk.leave()
    return talk


def wrong_tokens() -> Talk:
    """After the last wrong token the server says why it ends the connection."""
    talk = Talk()
    for left in (2, 1, 0):
        talk.prove(OTHER, left)
    talk.server.leave(10, "the token is missing or wrong")
    talk.carry()
    return talk


def broken() -> Talk:
    """A client that breaks the protocol is told so, and nothing more is read."""
    talk = Talk()
    talk.prove()
    talk.client._outbox.append(m.encode(m.End(), 9))
    talk.carry()
    assert talk.server.state is State.BROKEN
    return talk


CONVERSATIONS: dict[str, Callable[[], Talk]] = {
    "a listing and an upload": listing_and_upload,
    "a resumed upload and resumed downloads": resumed,
    "errors, and going on": errors,
    "a wrong token, then the right one": wrong_token,
    "a broken protocol": broken,
    "three wrong tokens": wrong_tokens,
    "a synchronisation": synchronised,
    "COPY without bases": copy_without_bases,
}


class ConversationTests(SynchronousTestCase):
    """tests/vectors/conversations.json."""

    def test_vectors(self) -> None:
        """The committed conversations are what two sessions say to each other."""
        rows = []
        for name, make in CONVERSATIONS.items():
            talk = make()
            broken = talk.server.state is State.BROKEN
            head = {"name": name, "token": TOKEN, "binding": "", "broken": broken}
            rows.append({**head, "steps": talk.steps})
        compare(self, "conversations.json", rows)

    def test_compressed(self) -> None:
        """The compressed DATA of the vectors is what it should be."""
        (row,) = (one for step in resumed().steps for one in step["frames"] if one.get("compressed") is True)
        packed = bytes.fromhex(row["payload"])
        self.assertEqual(Grower().feed(Data(1, len(packed), 0, True, memoryview(packed))), TEXT[16:])

    def test_endings(self) -> None:
        """Each conversation ends with a server that would close now."""
        for name, make in CONVERSATIONS.items():
            expected = {
                "a broken protocol": State.BROKEN,
                "COPY without bases": State.BROKEN,
                "three wrong tokens": State.CLOSED,
            }.get(name, State.LEAVING)
            self.assertEqual((make().server.state, make().server.streams), (expected, 0), name)


class ProofTests(SynchronousTestCase):
    """tests/vectors/proofs.json."""

    def test_vectors(self) -> None:
        """The committed proofs are what the code calculates, and both sides believe them."""
        transcript = Pair()
        transcript.run()
        binding = bytes(range(100, 132))
        rows = []
        for token in (TOKEN, OTHER, "!" * 8, "~" * 256):
            for bound in (b"", binding):
                rows.append(self.row(token, transcript.client.transcript, bound))
        rows.append(self.row(TOKEN, b"\x11" * 32, b"\x44" * 48))
        compare(self, "proofs.json", rows)

    def row(self, token: str, transcript: bytes, binding: bytes) -> dict[str, Any]:
        """One vector."""
        client = ClientProof(token)
        verifier = Verifier.of(token)
        message = auth_message(transcript, client.id, CLIENT_NONCE, SERVER_NONCE, binding)
        proof = client.proof(message)
        server = ServerProof.begin(TokenTable.of(token, "ada", "vectors"), client.id, NOW, DECOY)
        self.assertIsNotNone(server.check(proof, message))
        self.assertTrue(client.is_answered_by(server.answer(message), message))
        parts = {
            "transcript": transcript,
            "client_nonce": CLIENT_NONCE,
            "server_nonce": SERVER_NONCE,
            "binding": binding,
            "id": client.id,
            "stored_key": verifier.stored_key,
            "server_key": verifier.server_key,
            "message": message,
            "client_proof": proof,
            "server_proof": server.answer(message),
        }
        return {"token": token, **{name: value.hex() for name, value in parts.items()}}
