"""What one client can make the server of the transfer protocol keep, hold up or do without end."""

from __future__ import annotations

import errno
import gc
import os
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from blake3 import blake3
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from fileexport import leases, transfer_connection
from fileexport.disk.sender import STALL
from fileexport.errors import BusyError, OverloadedError
from fileexport.lanes import MOST
from fileexport.tokens import TokenTable
from fileexport.transfer_desk import PACKED, READS, Limits
from fileexport.transfer_output import LEAST, Pace
from fileexport.uploads import Upload
from fileexport.wire import messages as m
from fileexport.wire.frames import FrameType, header
from fileexport.wire.zstd import Shrinker
from tests.helpers import Immediate
from tests.test_lanes import Later
from tests.transfer_peer import TOKEN, Peer, TransferCase, expect, path

P = ParamSpec("P")
T = TypeVar("T")

MIB = 1 << 20
#: A frame to be skipped, as long as one may be.
SKIPPED = (256 << 10).to_bytes(4, "big") + b"\x80" + bytes(7) + bytes(256 << 10)


def kept(*things: object) -> int:
    """Bytes of all that hangs on these objects and was made for them, each counted once."""
    seen: set[int] = set()
    todo, found = list(things), 0
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, type | types.ModuleType | types.FunctionType):
            continue
        seen.add(id(one))
        found += one.__sizeof__()
        todo += gc.get_referents(one)
        if isinstance(one, memoryview):
            todo.append(one.obj)
    return found


def content_of(lane: Any) -> list[object]:
    """What the work that waits in a lane is about."""
    return [task.function.args for task in lane._queue if getattr(task.function, "args", None)]


class Refusing(Immediate):
    """A worker that takes no work while it is `full`."""

    full = False

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return fail(OverloadedError()) if self.full else super().run(function, *args, **kwargs)


class BoundsCase(TransferCase):
    """Has a server whose changes wait until the test lets them go on."""

    limits = Limits(min_chunk=1)

    def setUp(self) -> None:
        super().setUp()
        self.later = Later()

    def slow(self, **more: Any) -> Peer:
        """A client whose changes wait."""
        self.factory = self.make(self.later, Immediate())
        return self.client(**more)

    def go_on(self, *peers: Peer) -> None:
        """Carry out all that waits."""
        while self.later.waiting:
            self.later.go_on()
            self.clock.advance(0)
            for peer in peers:
                peer.turn()


class KeptTests(BoundsCase):
    """What waits in a lane is counted as what it keeps."""

    def queue(self, peer: Peer) -> tuple[int, int]:
        """Bytes that a lane counts, and bytes that it keeps."""
        lane = peer.server._desk.lane
        return lane.queued_bytes, kept(*content_of(lane))

    def test_small_pieces_of_large_reads(self) -> None:
        """A piece keeps its own bytes, and not all that came with it."""
        peer = self.slow()
        stream = peer.begin(m.Write(path("a"), 8 * MIB, 0))
        for _ in range(50):
            peer.raw(header(FrameType.DATA, stream, 512) + b"x" * 512 + SKIPPED)
        counted, found = self.queue(peer)
        self.assertGreater(counted, 50 * 512)
        self.assertLess(found, 3 * counted)

    def test_tiny_pieces(self) -> None:
        """Of very many very small pieces no more are taken up than a lane holds; the rest comes later."""
        peer = self.slow()
        size = 50_000
        stream = peer.begin(m.Write(path("a"), size, 0))
        whole = b"".join(header(FrameType.DATA, stream, 1) + b"x" for _ in range(size))
        peer.session._streams[stream].sendable = 0
        peer.raw(whole)
        counted, found = self.queue(peer)
        self.assertEqual(peer.transport.producerState, "paused")
        self.assertLess(counted, MOST + 3 * MIB)
        self.assertLess(found, 3 * counted)
        self.go_on(peer)
        self.assertEqual(peer.transport.producerState, "producing")
        peer.end(stream, size, blake3(b"x" * size).digest())
        self.go_on(peer)
        self.assertIsInstance(peer.said(stream)[-1], m.End)

    def test_small_files(self) -> None:
        """Empty files are counted too."""
        peer = self.slow()
        stream = peer.begin(m.WriteFiles(path("")))
        for number in range(4):
            files = [m.SmallFile(path(f"{number}-{at}"), 0, bytes(32), b"") for at in range(m.MAX_BATCH)]
            peer.session.send(m.Files(files), stream)
        peer.turn()
        counted, found = self.queue(peer)
        self.assertLess(found, 2 * counted)

    def test_compressed(self) -> None:
        """What becomes much when it is unpacked fills a lane as that does."""
        peer = self.slow(features=("zstd",))
        packed = Shrinker().pack(bytes(MIB))
        assert packed is not None
        stream = peer.begin(m.Write(path("a"), 64 * MIB, 0))
        for _ in range(MOST // MIB):
            self.assertEqual(peer.transport.producerState, "producing")
            peer.data(stream, packed, compressed=True)
        self.assertEqual(peer.transport.producerState, "paused")

    def test_lost(self) -> None:
        """What a lost client had sent is dropped where nobody can go on with it."""
        peer = self.slow()
        written: list[int] = []
        self.patch(Upload, "write", lambda upload, data: written.append(len(data)))
        stream = peer.begin(m.Write(path("a"), MIB, 0))
        self.go_on(peer)
        peer.data(stream, b"x" * 1000)
        peer.lose()
        self.go_on()
        self.assertEqual(written, [])


class TurnTests(BoundsCase):
    """Nobody holds up the others."""

    def test_many_messages(self) -> None:
        """After a number of messages others have their turn, and nothing more is read until all is done."""
        peer = self.client()
        self.patch(transfer_connection, "TURN", 10)
        stream = peer.begin(m.Write(path("a"), 10, 0))
        peer.session.send(m.Ping(b"last"))
        peer.server.dataReceived(m.encode(m.MoreCredit(1), stream) * 25 + peer.session.take())
        self.assertEqual(peer.transport.producerState, "paused")
        self.assertNotIn(b"last", peer.transport.value())
        peer.turn()
        self.assertEqual(peer.got[-1][1], m.Pong(b"last"))
        self.assertEqual(peer.transport.producerState, "producing")

    def test_walks(self) -> None:
        """Of the listings of a connection only some are begun; the others come when those have ended."""
        for name in "ab":
            (self.root / name).touch()
        begun: list[None] = []
        walk = self.exports.walk

        def counted(*args: Any, **more: Any) -> Iterator[Any]:
            begun.append(None)
            yield from walk(*args, **more)

        self.patch(self.exports, "walk", counted)
        peer = self.client()
        peer.server._output.pauseProducing()
        streams = [peer.begin(m.List(path(""))) for _ in range(READS + 3)]
        self.assertEqual(len(begun), READS)
        peer.session.reset(streams[-1])
        peer.turn()
        peer.server._output.resumeProducing()
        peer.turn()
        self.assertEqual([type(peer.said(one)[-1]) for one in streams[:-1]], [m.End] * (READS + 2))
        self.assertEqual(len(begun), READS + 2)

    def test_packed(self) -> None:
        """Compressed pieces are not made for a client that does not take them."""
        for number in range(10):
            (self.root / f"{number}").write_bytes(os.urandom(MIB // 2) + bytes(MIB))
        peer = self.client(features=("zstd",))
        peer.server._output.pauseProducing()
        streams = [peer.begin(m.Read(path(f"{number}"))) for number in range(10)]
        self.assertEqual(len(peer.server._output._contents), PACKED)
        peer.server._output.resumeProducing()
        peer.turn()
        self.assertEqual([type(peer.said(one)[-1]) for one in streams], [m.End] * 10)

    def test_packed_without_credit(self) -> None:
        """A client that gives one stream no credit gets the others all the same."""
        for name in "abc":
            (self.root / name).write_bytes(b"".join(os.urandom(1000) + bytes(1000) for _ in range(1000)))
        limits = {"control": 1 << 18, "data": MIB, "streams": 9, "connection_credit": 1 << 24}
        peer = self.client(features=("zstd",), offer=m.Offer(stream_credit=MIB, **limits))
        consumed = peer.session.consumed
        streams = [peer.session.open(m.Read(path(name))) for name in "abc"]
        self.patch(
            peer.session, "consumed", lambda one, size: None if one in streams[:2] else consumed(one, size)
        )
        peer.turn()
        self.assertEqual([type(peer.said(one)[-1]) is m.End for one in streams], [False, False, True])


class PaceTests(SynchronousTestCase):
    """How long something may take."""

    def test_pace(self) -> None:
        """What gets on by too little in a while is too slow, however often it gets on."""
        pace = Pace(0)
        for second in range(0, int(STALL) + 1, 10):
            self.assertFalse(pace.is_over(second))
            pace.moved(1, second)
        self.assertTrue(pace.is_over(STALL + 1))
        pace.moved(LEAST, STALL + 1)
        self.assertFalse(pace.is_over(2 * STALL))


class SlowTests(BoundsCase):
    """Who sends next to nothing."""

    def wait(self, peer: Peer, seconds: float) -> None:
        """Let the time pass."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            peer.turn()

    def test_now_and_then(self) -> None:
        """A byte now and then does not hold a path for hours; what came is kept for its source."""
        peer = self.client()
        stream = peer.begin(m.Write(path("a"), 2000, 0, source=b"key"))
        for _ in range(3):
            if peer.session.is_open(stream):
                peer.data(stream, b"x")
            self.wait(peer, STALL / 2)
        self.assertReset(peer.said(stream), TimeoutError)
        stream = peer.begin(m.Write(path("a"), 2000, 0, source=b"key"))
        self.assertIsInstance(peer.said(stream)[0], m.Ready)

    def test_steady(self) -> None:
        """Who sends a little more than the least is waited for."""
        peer = self.client()
        stream = peer.begin(m.Write(path("a"), 10 * LEAST, 0))
        for _ in range(9):
            peer.data(stream, b"x" * LEAST)
            self.wait(peer, STALL - 1)
        self.assertTrue(peer.session.is_open(stream))

    def test_others_work(self) -> None:
        """That we are at work for another stream is no reason to wait; that we are for this one is."""
        peer = self.slow()
        idle = peer.begin(m.Write(path("a"), 2000, 0))
        self.go_on(peer)
        begun = peer.begin(m.Write(path("b"), 2000, 0))
        self.wait(peer, STALL + 2)
        self.go_on(peer)
        self.assertReset(peer.said(idle), TimeoutError)
        self.assertTrue(peer.session.is_open(begun))


class KeepsTests(BoundsCase):
    """After which errors an upload can be gone on with."""

    def part(self, peer: Peer, content: bytes) -> int:
        """Begin an upload with a source and send this of it; its stream."""
        stream = peer.begin(m.Write(path("a"), 3 * MIB, 0, source=b"key"))
        peer.data(stream, content)
        return stream

    def test_full_disk(self) -> None:
        """A full disk costs nothing of what came before."""
        peer = self.client()
        stream = self.part(peer, b"x" * MIB)

        def full(*args: object) -> None:
            raise OSError(errno.ENOSPC, "full")

        write = Upload.write
        self.patch(Upload, "write", full)
        peer.data(stream, b"x" * MIB)
        self.patch(Upload, "write", write)
        self.assertEqual(expect(m.Reset, peer.said(stream)[-1]).code, 20)
        stream = peer.begin(m.Write(path("a"), 3 * MIB, 0, source=b"key"))
        self.assertEqual(peer.said(stream), [m.Ready(MIB)])

    def test_no_thread(self) -> None:
        """Nor does a server that has too much to do."""
        worker = Refusing()
        self.factory = self.make(worker)
        peer = self.client()
        stream = self.part(peer, b"x" * MIB)
        worker.full = True
        peer.data(stream, b"x" * MIB)
        self.assertReset(peer.said(stream), OverloadedError)
        worker.full = False
        stream = peer.begin(m.Write(path("a"), 3 * MIB, 0, source=b"key"))
        self.assertEqual(peer.said(stream), [m.Ready(MIB)])

    def test_bad_piece(self) -> None:
        """Nothing is written behind a piece that was refused."""
        self.limits = Limits(min_chunk=512)
        peer = self.slow()
        content = os.urandom(3 * MIB)
        stream = peer.begin(m.Write(path("a"), len(content), 0, source=b"key"))
        self.go_on(peer)
        for begin, end in ((0, MIB), (MIB, MIB + 5), (MIB + 5, 2 * MIB)):
            peer.data(stream, content[begin:end])
        self.go_on(peer)
        self.assertReset(peer.said(stream), ValueError)
        stream = peer.begin(m.Write(path("a"), len(content), 0, source=b"key"))
        self.go_on(peer)
        self.assertEqual(peer.said(stream), [m.Ready(MIB)])
        for begin in (MIB, 2 * MIB):
            peer.data(stream, content[begin : begin + MIB])
        peer.end(stream, len(content), blake3(content).digest())
        self.go_on(peer)
        self.assertIsInstance(peer.said(stream)[-1], m.End)

    def test_again(self) -> None:
        """Who comes again while a lost connection of theirs still stands goes on; the old one is told."""
        peer = self.client()
        old = self.part(peer, b"x" * MIB)
        self.patch(transfer_connection, "SILENCE", 1e9)
        other = self.client()
        self.patch(leases, "QUIET", 0)
        last = self.assertReset(other.ask(m.Write(path("a"), 3 * MIB, 0, source=b"key")), BusyError)
        self.assertIsNotNone(last.since)
        peer.turn()
        self.assertReset(peer.said(old), ConnectionError)
        stream = other.begin(m.Write(path("a"), 3 * MIB, 0, source=b"key"))
        self.assertEqual(other.said(stream), [m.Ready(MIB)])


class SmallFilesTests(BoundsCase):
    """When small files are committed."""

    def test_slow_link(self) -> None:
        """What came a while ago is committed with what comes, so that it outlives the connection."""
        peer = self.client()
        stream = peer.begin(m.WriteFiles(path("")))
        for name in "abc":
            self.clock.advance(0.6)
            self.send(peer, stream, name)
        self.assertEqual(peer.said(stream), [m.Outcome(committed=[m.Range(0, 2)])])
        self.assertEqual(self.names(), ["a", "b"])
        peer.lose()
        self.assertEqual(self.names(), ["a", "b", "c"])

    def test_lost(self) -> None:
        """What was staged when the connection was lost is committed, and nothing that still waited."""
        peer = self.slow()
        stream = peer.begin(m.WriteFiles(path("")))
        self.send(peer, stream, "a")
        self.go_on(peer)
        self.send(peer, stream, "b")
        peer.lose()
        self.assertEqual(self.names(), [])
        self.go_on()
        self.assertEqual(self.names(), ["a"])
        self.assertEqual(self.factory._behind, set())

    def test_lost_before(self) -> None:
        """Nothing of a lost connection undoes what others have written, or removed, since it was lost."""
        for is_begun in (False, True):
            for name in ("written", "removed"):
                (self.root / name).write_bytes(b"old")
            peer = self.slow()
            stream = peer.begin(m.WriteFiles(path(""), replace=True))
            if is_begun:
                self.go_on(peer)
            for name in ("written", "removed"):
                self.send(peer, stream, name)
            peer.lose()
            (self.root / "written").write_bytes(b"new")
            (self.root / "removed").unlink()
            self.go_on()
            self.assertEqual(self.names(), ["written"])
            self.assertEqual((self.root / "written").read_bytes(), b"new")

    def test_cancelled(self) -> None:
        """Who cancels wants none of them that was not committed."""
        peer = self.slow()
        stream = peer.begin(m.WriteFiles(path("")))
        self.send(peer, stream, "a")
        peer.session.reset(stream)
        peer.turn()
        self.go_on(peer)
        self.assertEqual(self.names(), [])

    def test_no_thread(self) -> None:
        """Where there is no thread for a commit any more, nothing is left of them."""
        worker = Refusing()
        self.factory = self.make(worker)
        peer = self.client()
        self.send(peer, peer.begin(m.WriteFiles(path(""))), "a")
        worker.full = True
        peer.lose()
        self.assertEqual([one.name for one in self.root.rglob("*") if one.is_file()], [])

    def send(self, peer: Peer, stream: int, name: str) -> None:
        """Send one small file."""
        peer.session.send(m.Files([m.SmallFile(path(name), 0, blake3(b"x").digest(), b"x")]), stream)
        peer.turn()

    def names(self) -> list[str]:
        """The files that have their names."""
        return sorted(one.name for one in self.root.iterdir() if one.is_file())


class BrokenTests(BoundsCase):
    """What nobody expected."""

    def broken(self, *args: object, **more: object) -> None:
        raise ZeroDivisionError

    def test_feeding(self) -> None:
        """An error of ours while bytes are dealt with ends the connection, also where TLS brings them."""
        for gathers in (False, True):
            peer = self.client()
            peer.server._gathers = gathers
            self.patch(peer.server, "open", self.broken)
            peer.begin(m.Stat(path("")))
            self.assertTrue(peer.transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_losing(self) -> None:
        """Whatever happens when a connection is lost, it is counted no longer."""
        peer = self.connect()
        self.patch(peer.server._output, "stopProducing", self.broken)
        self.assertRaises(ZeroDivisionError, peer.lose)
        self.assertEqual((self.factory.open, self.factory.lobby.taken), (0, 0))

    def test_recording(self) -> None:
        """An operation whose end cannot be recorded is over all the same."""
        self.factory.finished = self.broken
        peer = self.client()
        peer.begin(m.Stat(path("")))
        self.assertEqual(peer.server.working, {})
        self.assertTrue(peer.transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_long_words(self) -> None:
        """A client that does not take so long a message learns the code alone."""

        def busy(*args: object, **more: object) -> None:
            raise BusyError("x" * 1000, holder="y" * 1000)

        self.patch(self.exports, "stat", busy)
        limits = {"data": MIB, "streams": 9, "stream_credit": MIB, "connection_credit": MIB}
        peer = self.client(offer=m.Offer(control=1024, **limits))
        self.assertEqual(self.assertReset(peer.ask(m.Stat(path(""))), BusyError).message, "")


class TokenTests(BoundsCase):
    """A token that counts no longer."""

    def test_expired(self) -> None:
        """When a token expires, its connections begin nothing more, and what was begun ends."""
        ((token_id, entry),) = self.tokens._entries.items()
        self.tokens = TokenTable({token_id: entry._replace(expires=self.clock.seconds() + 10)})
        peer = self.client()
        stream = peer.begin(m.Write(path("a"), 1000, 0))
        self.clock.pump([1.0] * 11)
        peer.turn()
        self.assertEqual(peer.got[-1][1], m.GoAway(stream, 0, "the token does not count any more"))
        peer.data(stream, b"x" * 1000)
        peer.end(stream, 1000, blake3(b"x" * 1000).digest())
        self.assertIsInstance(peer.got[-1][1], m.End)
        self.assertTrue(peer.is_closed)

    def test_renewed(self) -> None:
        """Tokens that were read again and say the same change nothing; others end at once."""
        peer = self.client()
        self.tokens = TokenTable.of(TOKEN, "alice", "again")
        self.factory.renew()
        self.assertIsInstance(peer.ask(m.Stat(path("")))[-1], m.End)
        self.tokens = TokenTable.of(TOKEN, "bob", "again")
        self.factory.renew()
        self.assertTrue(peer.is_closed)


class DescriptorTests(BoundsCase):
    """A file is open as long as a thread reads it."""

    def test_cancelled_while_packing(self) -> None:
        """A download that is cancelled closes its file when the thread that compresses is done with it."""
        (self.root / "a").write_bytes(bytes(4 * MIB))
        self.factory = self.make(Immediate(), self.later)
        peer = self.client(features=("zstd",))
        stream = peer.begin(m.Read(path("a"), length=3 * MIB))
        self.later.go_on()
        peer.turn()
        self.assertEqual((len(self.later.waiting), self.open_files()), (1, 1))
        peer.session.reset(stream)
        peer.turn()
        self.assertEqual(self.open_files(), 1)
        self.go_on(peer)
        self.assertEqual(self.open_files(), 0)

    def open_files(self) -> int:
        """How many descriptors there are of the file."""
        links = [Path(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        return sum(os.path.lexists(link) and os.readlink(link) == str(self.root / "a") for link in links)
