"""Uploads that take content from files that are there: what comes out, whose turn it is, what waits."""

from __future__ import annotations

import os
from typing import Any

from blake3 import blake3

from fileexport import transfer_uploads
from fileexport.disk.sender import STALL
from fileexport.errors import BadRequestError, BusyError, ChangedWhileRead, ConflictError
from fileexport.lanes import ALWAYS, BUDGET, MOST
from fileexport.transfer_desk import Limits
from fileexport.transfer_output import LEAST
from fileexport.uploads import Upload
from fileexport.wire import messages as m
from fileexport.wire.frames import HEADER_SIZE, Frame, FrameType
from tests.test_transfer_bounds import BoundsCase, kept
from tests.test_transfer_operations import FIELDS, MIB, digest
from tests.transfer_peer import Peer, expect, path

MTIME = 123_456_789


class CopyCase(BoundsCase):
    """Has a file to copy from."""

    limits = Limits(min_chunk=512)

    def setUp(self) -> None:
        super().setUp()
        self.base = os.urandom(4 * MIB)
        (self.root / "base").write_bytes(self.base)
        self.copied: list[int] = []
        copy = Upload.copy

        def seen(upload: Upload, base: int, offset: int, size: int, *check: Any) -> None:
            copy(upload, base, offset, size, *check)
            self.copied.append(size)

        self.patch(Upload, "copy", seen)

    def begin(self, peer: Peer, size: int, name: str = "new", **more: Any) -> int:
        """Begin a file that may take content from the base."""
        return peer.begin(
            m.Write(path(name), size, MTIME, replace=True, bases=[m.Base(path("base"))], **more)
        )

    def copy(self, peer: Peer, stream: int, *ranges: tuple[int, int]) -> None:
        """Ask for these parts of the base."""
        peer.session.send(m.Copy([m.CopyRange(0, *one) for one in ranges]), stream)
        peer.turn()

    def end(self, peer: Peer, stream: int, content: bytes) -> None:
        """Say that this is the whole content."""
        peer.end(stream, len(content), blake3(content).digest())


class CopyTests(CopyCase):
    """write with bases: what comes out."""

    def test_in_order(self) -> None:
        """What is copied and what is sent stand behind each other as they came."""
        peer = self.client()
        base, edge = self.base, b"edge" * 500
        content = base[MIB:] + edge + base[:10] + b"tail"
        stream = self.begin(peer, len(content))
        self.copy(peer, stream, (MIB, MIB), (2 * MIB, 2 * MIB))
        peer.data(stream, edge)
        self.copy(peer, stream, (0, 10))
        peer.data(stream, b"tail")
        self.end(peer, stream, content)
        self.assertEqual(peer.said(stream), [m.End(len(content), digest(content))])
        self.assertEqual((self.root / "new").read_bytes(), content)
        self.assertLess(self.done[-1].length, 3000)

    def test_together(self) -> None:
        """The same where all of it comes at once, before the file has begun, and in steps."""
        self.patch(transfer_uploads, "STEP", 100_000)
        peer = self.slow()
        content = self.base[:MIB] + b"x" * 600 + self.base[MIB : 3 * MIB] + b"y" * 600
        stream = self.begin(peer, len(content))
        self.copy(peer, stream, (0, MIB))
        peer.data(stream, b"x" * 600)
        self.copy(peer, stream, (MIB, MIB), (2 * MIB, MIB))
        peer.data(stream, b"y" * 600)
        self.end(peer, stream, content)
        self.go_on(peer)
        self.assertEqual(peer.said(stream), [m.End(len(content), digest(content))])
        self.assertEqual((self.root / "new").read_bytes(), content)

    def test_over_itself(self) -> None:
        """The file that is replaced may be what is copied from."""
        peer = self.client()
        content = b"z" * 600 + self.base
        stream = self.begin(peer, len(content), "base")
        peer.data(stream, b"z" * 600)
        self.copy(peer, stream, (0, len(self.base)))
        self.end(peer, stream, content)
        self.assertEqual((self.root / "base").read_bytes(), content)

    def test_continued(self) -> None:
        """What was copied need not be copied again after a cut."""
        peer = self.client()
        content = self.base + b"tail" * 1000
        stream = self.begin(peer, len(content), source=b"key")
        self.copy(peer, stream, (0, 3 * MIB))
        peer.lose()
        peer = self.client()
        stream = self.begin(peer, len(content), source=b"key")
        self.assertEqual(peer.said(stream), [m.Ready(3 * MIB)])
        self.copy(peer, stream, (3 * MIB, MIB))
        peer.data(stream, content[4 * MIB :])
        self.end(peer, stream, content)
        self.assertEqual((self.root / "new").read_bytes(), content)

    def test_wrong_hash(self) -> None:
        """What was put together has to have the hash that its sender says."""
        peer = self.client()
        stream = self.begin(peer, MIB)
        self.copy(peer, stream, (0, MIB))
        self.end(peer, stream, self.base[1 : MIB + 1])
        self.assertReset(peer.said(stream), ChangedWhileRead)
        self.assertFalse((self.root / "new").exists())

    def test_bases(self) -> None:
        """A base is a file that is there, in the version that is meant, and that its user may see."""
        peer = self.client()
        version = expect(m.Content, peer.ask(m.Read(path("base"), length=0))[0]).version
        for base in (m.Base(path("base"), b"another"), m.Base(path("missing")), m.Base(path(""))):
            stream = peer.begin(m.Write(path("new"), MIB, 0, bases=[base]))
            self.assertReset(peer.said(stream), ConflictError)
        stream = peer.begin(m.Write(path("new"), 5, 0, bases=[m.Base(path("base"), version)]))
        self.copy(peer, stream, (0, 5))
        self.end(peer, stream, self.base[:5])
        self.assertIsInstance(peer.said(stream)[-1], m.End)

    def test_busy(self) -> None:
        """What somebody else writes cannot be written; to copy from it takes the version that is there."""
        first, second = self.client(), self.client()
        held = self.begin(first, MIB)
        self.assertReset(second.said(self.begin(second, MIB)), BusyError)
        first.session.reset(held)
        first.turn()
        first.begin(m.Write(path("base"), MIB, 0, replace=True))
        stream = self.begin(second, 7)
        self.copy(second, stream, (1, 7))
        self.end(second, stream, self.base[1:8])
        self.assertEqual((self.root / "new").read_bytes(), self.base[1:8])

    def test_wrong_ranges(self) -> None:
        """A base that was not named, what it does not hold, and more than was announced end the stream."""
        peer = self.client()
        for number, offset, size, error in (
            (1, 0, 1, BadRequestError),
            (15, 0, 1, BadRequestError),
            (0, 4 * MIB, 1, ChangedWhileRead),
            (0, 2**63 - 1, 1, ChangedWhileRead),
            (0, 4 * MIB - 1, 2, ChangedWhileRead),
            (0, 0, 2 * MIB, ChangedWhileRead),
            (0, 0, 2**63 - 1, ChangedWhileRead),
        ):
            stream = self.begin(peer, MIB)
            peer.session.send(m.Copy([m.CopyRange(number, offset, size)]), stream)
            peer.turn()
            self.assertReset(peer.said(stream), error)
        self.assertEqual(self.copied, [])
        self.assertFalse((self.root / "new").exists())

    def test_short_pieces(self) -> None:
        """A short piece may stand before a copy and at the end, and not before another piece."""
        peer = self.client()
        content = b"a" + self.base[:5] + b"b" + self.base[:5] + b"c"
        stream = self.begin(peer, len(content))
        for _ in range(2):
            peer.data(stream, content[:1] if _ == 0 else b"b")
            self.copy(peer, stream, (0, 5))
        peer.data(stream, b"c")
        self.end(peer, stream, content)
        self.assertIsInstance(peer.said(stream)[-1], m.End)
        stream = self.begin(peer, MIB)
        peer.data(stream, b"a")
        peer.data(stream, b"b" * 1000)
        self.assertReset(peer.said(stream), ValueError)


class TurnTests(CopyCase):
    """A few bytes can ask for much work: nobody else waits for all of it."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(transfer_uploads, "STEP", MIB // 4)

    def steps(self, *peers: Peer, count: int = 1) -> None:
        """Carry out what waits, so many times."""
        for _ in range(count):
            self.later.go_on()
            for peer in peers:
                peer.turn()

    def test_others_of_the_connection(self) -> None:
        """Another operation of the same connection is done before a copy is, and so is one that reads."""
        peer = self.slow()
        stream = self.begin(peer, 4 * MIB)
        self.copy(peer, stream, (0, 4 * MIB))
        self.end(peer, stream, self.base)
        self.steps(peer, count=2)
        made, looked = peer.begin(m.MakeDirectory(path("d"))), peer.begin(m.Stat(path("base")))
        self.steps(peer, count=3)
        self.assertEqual([type(peer.said(one)[-1]) for one in (made, looked)], [m.End] * 2)
        self.assertLess(sum(self.copied), 2 * MIB)
        self.assertLessEqual(max(self.copied), MIB // 4)
        self.go_on(peer)
        self.assertIsInstance(peer.said(stream)[-1], m.End)

    def test_others_that_copy(self) -> None:
        """Several copies of a connection go on in turn, one step at a time in its lane."""
        peer = self.slow()
        streams = [self.begin(peer, 4 * MIB, name) for name in "abc"]
        for stream in streams:
            self.copy(peer, stream, (0, 4 * MIB))
            self.end(peer, stream, self.base)
        self.steps(peer, count=2)
        for _ in range(6):
            self.assertLessEqual(len(peer.server._desk.lane._queue), 1)
            self.steps(peer)
        offsets = [sum(self.copied[first::3]) for first in range(3)]
        self.assertLessEqual(max(offsets) - min(offsets), MIB // 4)
        self.go_on(peer)
        self.assertEqual([type(peer.said(one)[-1]) for one in streams], [m.End] * 3)

    def test_another_connection(self) -> None:
        """The thread is given back after each step: who waits for one gets it."""
        first = self.slow()
        stream = self.begin(first, 4 * MIB)
        self.copy(first, stream, (0, 4 * MIB))
        self.steps(first)
        for _ in range(4):
            before = len(self.copied)
            self.steps(first)
            self.assertLessEqual(len(self.copied) - before, 1)

    def test_too_much(self) -> None:
        """A copy of more than was announced is refused before its first step."""
        peer = self.slow()
        stream = self.begin(peer, MIB)
        self.copy(peer, stream, (0, MIB + 1))
        self.go_on(peer)
        self.assertReset(peer.said(stream), ChangedWhileRead)
        self.assertEqual(self.copied, [])

    def test_small_ranges(self) -> None:
        """Of very small ranges a step does a limited number too."""
        peer = self.slow()
        self.patch(transfer_uploads, "LEAST_STEP", MIB // 4 // 100)
        stream = self.begin(peer, 4 * MIB)
        self.copy(peer, stream, *((number, 1) for number in range(1000)))
        for _ in range(5):
            before = len(self.copied)
            self.steps(peer)
            self.assertLessEqual(len(self.copied) - before, 101)
        self.go_on(peer)
        self.assertEqual(len(self.copied), 1000)

    def test_cancelled(self) -> None:
        """A copy that is cancelled ends with its step, and nothing is left of it."""
        peer = self.slow()
        stream = self.begin(peer, 4 * MIB, source=b"key")
        self.go_on(peer)
        self.copy(peer, stream, (0, 4 * MIB))
        self.steps(peer)
        peer.session.reset(stream)
        peer.turn()
        count = len(self.copied)
        self.go_on(peer)
        self.assertLessEqual(len(self.copied), count + 1)
        self.assertEqual(peer.server.working, {})
        self.assertEqual(list((self.root / ".fileexport").glob("part-*")), [])

    def test_lost(self) -> None:
        """So does one whose client is gone; what was written and copied until then is kept for it."""
        peer = self.slow()
        stream = self.begin(peer, 5 * MIB, source=b"key")
        self.go_on(peer)
        peer.data(stream, b"x" * MIB)
        self.copy(peer, stream, (0, 4 * MIB))
        peer.data(stream, b"y" * 600)
        self.steps(peer, count=3)
        peer.lose()
        count = len(self.copied)
        self.go_on()
        self.assertLessEqual(len(self.copied), count + 1)
        self.assertLess(sum(self.copied), 2 * MIB)
        self.assertEqual(self.factory._behind, set())
        peer = self.slow()
        stream = self.begin(peer, 5 * MIB, source=b"key")
        self.go_on(peer)
        self.assertEqual(peer.said(stream), [m.Ready(MIB + sum(self.copied))])

    def test_within_a_step(self) -> None:
        """Also in the midst of a step nobody works on for one that is gone."""
        self.patch(transfer_uploads, "STEP", 64 * MIB)
        peer = self.slow()
        stream = self.begin(peer, 4 * MIB, source=b"key")
        self.go_on(peer)
        self.copy(peer, stream, (0, 4 * MIB))
        open_stream = peer.server.working[stream]
        check, checks = open_stream.check, iter(range(10**6))

        def leaving() -> None:
            if next(checks) == 3:
                peer.lose()
            check()

        self.patch(open_stream, "check", leaving)
        self.go_on()
        self.assertEqual(self.copied, [])
        kept_parts = list((self.root / ".fileexport").glob("part-*"))
        self.assertEqual(len(kept_parts), 1)
        self.assertLess(kept_parts[0].stat().st_size, 4 * MIB)

    def test_kept_at_a_failure(self) -> None:
        """What came before a copy that cannot be is kept, also where the end was said already."""
        peer = self.slow()
        stream = self.begin(peer, 3 * MIB, source=b"key")
        self.go_on(peer)
        self.copy(peer, stream, (0, MIB))
        peer.session.send(m.Copy([m.CopyRange(1, 0, 1)]), stream)
        peer.data(stream, b"x" * MIB)
        self.end(peer, stream, self.base)
        self.go_on(peer)
        self.assertReset(peer.said(stream), BadRequestError)
        stream = self.begin(peer, 3 * MIB, source=b"key")
        self.go_on(peer)
        self.assertEqual(peer.said(stream), [m.Ready(MIB)])

    def test_no_longer_of_use(self) -> None:
        """Once it copies, an upload does not keep a connection whose client has hung up."""
        peer = self.slow()
        stream = self.begin(peer, 5 * MIB, source=b"key")
        self.go_on(peer)
        peer.data(stream, b"x" * MIB)
        self.assertTrue(peer.server.working[stream].outlives)
        self.copy(peer, stream, (0, 4 * MIB))
        self.assertFalse(peer.server.working[stream].outlives)

    def test_nothing_behind_a_failure(self) -> None:
        """What waits behind a copy that fails is not written, and the stream says why."""
        peer = self.slow()
        stream = self.begin(peer, 4 * MIB, source=b"key")
        self.go_on(peer)
        self.copy(peer, stream, (0, MIB), (4 * MIB, 1))
        peer.data(stream, b"x" * MIB)
        self.copy(peer, stream, (0, 1))
        self.end(peer, stream, self.base)
        self.go_on(peer)
        self.assertReset(peer.said(stream), ChangedWhileRead)
        self.assertEqual(sum(self.copied), MIB)
        self.assertEqual(peer.server._desk.lane.queued_bytes, 0)


class BudgetTests(CopyCase):
    """What waits behind a copy is counted, and does not come without end."""

    def message(self, count: int) -> m.Copy:
        """The smallest COPY with so many ranges."""
        return m.Copy([m.CopyRange(0, 0, 1)] * count)

    def test_counted(self) -> None:
        """A range counts no less than it keeps, wherever it waits."""
        message = m.Copy([m.CopyRange(0, number, 10**6) for number in range(10**6, 10**6 + m.MAX_BATCH)])
        payload = memoryview(m.encode(message, 1))[HEADER_SIZE:]
        real = kept(m.decode(Frame(FrameType.COPY, 1, payload)))
        peer = self.slow()
        stream = self.begin(peer, 4 * MIB)
        for _ in range(10):
            peer.session.send(message, stream)
        peer.turn()
        counted = peer.server._desk.lane.queued_bytes
        self.assertGreater(counted, 10 * real)
        self.assertLess(counted, 20 * real)
        peer.lose()
        self.go_on()
        self.assertEqual((peer.server._desk.lane.queued_bytes, self.factory._budget.taken), (0, 0))

    def test_flood(self) -> None:
        """Of very many copies no more are taken up than a lane holds; all are carried out in the end."""
        peer = self.slow()
        stream = self.begin(peer, 4 * MIB)
        for _ in range(300):
            peer.session.send(self.message(100), stream)
        peer.server.dataReceived(peer.session.take())
        self.assertEqual(peer.transport.producerState, "paused")
        self.assertLess(peer.server._desk.lane.queued_bytes, MOST + 3 * MIB)
        self.go_on(peer)
        self.assertEqual(peer.transport.producerState, "producing")
        self.assertEqual(len(self.copied), 30_000)

    def test_content_behind(self) -> None:
        """Content that waits behind a copy is counted, but its client is heard: it may ask, or cancel."""
        peer = self.slow()
        stream = self.begin(peer, (1000 * 4 + 6) * MIB)
        self.go_on(peer)
        self.copy(peer, stream, *[(0, 4 * MIB)] * 1000)
        for _ in range(6):
            peer.data(stream, b"x" * MIB)
        self.assertEqual(peer.transport.producerState, "producing")
        self.assertGreater(self.factory._budget.taken, MOST - ALWAYS)
        stat = peer.begin(m.Stat(path("base")))
        peer.session.send(m.Ping(b"there?"))
        for _ in range(3):
            self.later.go_on()
            peer.turn()
        self.assertIsInstance(peer.said(stat)[-1], m.End)
        self.assertIn(m.Pong(b"there?"), peer.said(0))
        peer.session.reset(stream)
        peer.turn()
        self.go_on(peer)
        self.assertLess(len(self.copied), 20)
        self.assertEqual((peer.server.working, self.factory._budget.taken), ({}, 0))

    def test_content_of_many(self) -> None:
        """Where others have all that may be kept, such content counts as any."""
        peer = self.slow()
        stream = self.begin(peer, (4 + 3) * MIB)
        self.go_on(peer)
        self.factory._budget.taken += BUDGET
        self.copy(peer, stream, (0, 4 * MIB))
        for _ in range(3):
            peer.data(stream, b"x" * MIB)
        self.assertEqual(peer.transport.producerState, "paused")
        self.go_on(peer)
        self.assertEqual(peer.transport.producerState, "producing")
        self.factory._budget.taken -= BUDGET
        self.end(peer, stream, self.base + b"x" * 3 * MIB)
        self.go_on(peer)
        self.assertIsInstance(peer.said(stream)[-1], m.End)

    def test_credit(self) -> None:
        """The credit of copies comes back when they are done."""
        self.factory.offer = m.Offer(**{**FIELDS, "stream_credit": 20_000, "connection_credit": 30_000})
        peer = self.client()
        stream = self.begin(peer, 4 * MIB)
        for _ in range(20):
            peer.session.send(self.message(1000), stream)
            peer.turn()
        self.assertGreater(peer.session.credit(stream), 5_000)
        self.assertEqual(len(self.copied), 20_000)

    def test_steady(self) -> None:
        """Who names a little more than the least in time is waited for, as who sends it."""
        peer = self.client()
        stream = self.begin(peer, 4 * MIB)
        for number in range(5):
            self.copy(peer, stream, (number, LEAST))
            self.wait(peer, STALL - 1)
        self.assertTrue(peer.session.is_open(stream))
        self.wait(peer, STALL + 2)
        self.assertReset(peer.said(stream), TimeoutError)

    def wait(self, peer: Peer, seconds: float) -> None:
        """Let the time pass."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            peer.turn()

    def test_not_late(self) -> None:
        """Who has asked for much is not late while it is copied, nor when it goes on in time."""
        peer = self.slow()
        stream = self.begin(peer, 8 * MIB)
        self.go_on(peer)
        self.copy(peer, stream, (0, 4 * MIB))
        self.wait(peer, 200)
        self.go_on(peer)
        self.assertTrue(peer.session.is_open(stream))
