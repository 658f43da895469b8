"""A scripted server of chunks and parts of files, for tests of files that go over by their differences."""

from __future__ import annotations

import io
import os

from blake3 import blake3

from fileexport.client.downloading import Destination
from fileexport.sync.chunks import Chunk, cut
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import Received
from tests.client_server import Peer, ServerCase

MIB = 1 << 20
OLD = blake3(b"seed").digest(length=3 * MIB + 5)
NEW = b"in front" + OLD[:MIB] + b"in the midst" + OLD[MIB : 2 * MIB] + blake3(b"rest").digest(length=MIB)
#: Bytes of a piece that is not short.
LEAST_PIECE = 512
#: What is new in it, and what the cutting costs beside that.
MISSING = MIB + 3 * (128 << 10)
MTIME = 1_700_000_000_123_456_789


def chunks_of(content: bytes, average: int) -> list[Chunk]:
    """The chunks of a file."""
    return list(cut(io.BytesIO(content).readinto, average))


class Holder:
    """An honest server of some files, which takes others and remembers what came of them."""

    def __init__(self, **files: bytes) -> None:
        self.files = {f"/{name}": content for name, content in files.items()}
        self.asked: list[m.Open] = []
        #: Content that came as DATA, and ranges that came as COPY, of each upload.
        self.came: list[bytes] = []
        self.ranges: list[m.CopyRange] = []
        #: What is there of an upload that broke off.
        self.kept = b""

    def __call__(self, peer: Peer) -> None:
        while True:
            self.one(peer)

    def one(self, peer: Peer) -> None:
        """Carry out one operation."""
        stream, asked = peer.hear(m.Open)
        if isinstance(asked, m.Stat):
            # Asked after a cut only, for the time of what was sent: that is not there.
            peer.say(m.Reset(1), stream)
            return
        self.asked.append(asked)
        if isinstance(asked, m.Write):
            self.take(peer, stream, asked)
            return
        assert isinstance(asked, m.OnePath)
        content = self.files.get(str(asked.path))
        if content is None:
            peer.say(m.Reset(1), stream)
        elif isinstance(asked, m.GetChunks):
            self.tell(peer, stream, content, asked)
        else:
            assert isinstance(asked, m.Read)
            self.give(peer, stream, content, asked)

    def copied(self, ranges: list[m.CopyRange]) -> None:
        """One COPY came."""

    def tell(self, peer: Peer, stream: int, content: bytes, asked: m.GetChunks) -> None:
        """The chunks of a file, or of parts of it."""
        parts = [content[one.offset : one.offset + one.size] for one in asked.ranges] or [content]
        rows = [m.ChunkRow(*chunk) for part in parts for chunk in chunks_of(part, asked.average)]
        for start in range(0, len(rows) or 1, 20):
            peer.say(m.Chunks(self.version(content), rows[start : start + 20]), stream)
        peer.say(m.End(sum(map(len, parts))), stream)

    def version(self, content: bytes) -> bytes:
        """What a content is called."""
        return blake3(content).digest(length=8)

    def give(self, peer: Peer, stream: int, content: bytes, asked: m.Read) -> None:
        """What was asked for of a file."""
        version = self.version(content)
        peer.say(m.Content(len(content), MTIME, version, asked.offset, 0o640), stream)
        if asked.ranges:
            assert asked.version == version
            for span in asked.ranges:
                for start in range(span.offset, span.offset + span.size, 50_000):
                    peer.data(stream, content[start : min(start + 50_000, span.offset + span.size)])
            peer.say(m.End(len(content)), stream)
        elif asked.length == 0:
            peer.say(m.End(len(content)), stream)
        else:
            for start in range(asked.offset, len(content), 50_000):
                peer.data(stream, content[start : start + 50_000])
            peer.say(m.End(len(content), blake3(content).digest()), stream)

    def take(self, peer: Peer, stream: int, asked: m.Write, most: int = 1 << 60) -> None:
        """An upload; it breaks off where more than `most` bytes are there."""
        bases = [self.files[str(base.path)] for base in asked.bases]
        for base, content in zip(asked.bases, bases, strict=True):
            assert base.version in (None, self.version(content))
        if asked.source is not None:
            peer.say(m.Ready(len(self.kept)), stream)
        whole, came = bytearray(self.kept), bytearray()
        is_short = False
        while True:
            found = peer.next()
            if isinstance(found, Data):
                if found.first and not found.compressed:
                    # As our server has it: such a piece may only stand before a copy, or at the end.
                    assert not is_short, "a piece that is too short, and more behind it"
                    is_short = found.size < min(LEAST_PIECE, asked.size - len(whole))
                whole += found.piece
                came += found.piece
                peer.session.consumed(stream, len(found.piece))
            elif isinstance(found, Received) and isinstance(found.message, m.Copy):
                is_short = False
                self.ranges += found.message.ranges
                self.copied(found.message.ranges)
                for base_number, offset, size in map(_row, found.message.ranges):
                    whole += bases[base_number][offset : offset + size]
                peer.session.consumed(stream, found.size)
            elif isinstance(found, Received) and isinstance(found.message, m.End):
                break
            elif isinstance(found, Received) and isinstance(found.message, m.Reset):
                return
            if len(whole) > most:
                self.kept = bytes(whole[:most])
                self.came.append(bytes(came))
                raise ConnectionError
        self.came.append(bytes(came))
        if found.message != m.End(len(whole), blake3(whole).digest()):
            peer.say(m.Reset(21), stream)
            return
        self.files[str(asked.path)] = bytes(whole)
        peer.say(found.message, stream)


def _row(found: m.CopyRange) -> tuple[int, int, int]:
    return found.base, found.offset, found.size


class DeltaCase(ServerCase):
    """A file here, a directory of others."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.here / "new"
        self.file.write_bytes(NEW)
        os.chmod(self.file, 0o640)
        os.utime(self.file, ns=(0, MTIME))

    def place(self) -> Destination:
        """The directory here."""
        place = Destination(str(self.here))
        self.addCleanup(place.close)
        return place
