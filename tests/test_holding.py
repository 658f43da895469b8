"""Whoever does not take what comes."""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure

from fileexport.client.conversations import Ask
from fileexport.client.deferred import holding
from fileexport.client.deferred.calling import Call
from fileexport.client.deferred.link import OFFER
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from tests.link_case import LinkCase
from tests.test_link import ROW

#: Many answers that together are too much.
ROWS = [ROW] * 1024
MAX_HELD = 256 << 10
BATCHES = 1 + MAX_HELD // (len(m.encode(m.Entries(ROWS), 1)) + holding.SMALL - 16)


class TakingTests(LinkCase):
    """Whoever does not take what comes."""

    def setUp(self) -> None:
        self.patch(holding, "MAX_HELD", MAX_HELD)
        super().setUp()

    def test_content(self) -> None:
        """One reader that takes nothing gets no more than a window; others go on."""
        unread = self.client.read("/big")
        first = unread.__anext__()
        self.turn()
        self.far.say(m.Content(64 << 20, 7, b"v"), 1)
        while credit := min(self.far.session.credit(1), 64 << 10):
            self.far.content(1, bytes(credit))
        self.successResultOf(first)
        asked = self.client.stat("/")
        self.turn()
        self.far.say(m.Entries([ROW]), 2)
        self.far.say(m.End(), 2)
        self.successResultOf(asked)
        for _ in range(OFFER.stream_credit // (64 << 10) - 1):
            self.successResultOf(unread.__anext__())
        self.turn()
        self.assertGreater(self.far.session.credit(1), 0)

    def test_many_readers(self) -> None:
        """Readers that take nothing hold up nobody, in however small packets their content comes."""
        self.clock.advance(1)
        unread = [self.client.read(f"/{number}") for number in range(40)]
        first = [one.__anext__() for one in unread]
        self.turn()
        far = self.far
        for stream in far.opened():
            far.say(m.Content(64 << 20, 7, b"v"), stream)
            far.session.data_header(stream, 1 << 20)
            whole = far.session.take() + bytes(1 << 20)
            for position in range(0, len(whole), 1448):
                far.link.dataReceived(whole[position : position + 1448])
        self.assertEqual(far.transport.producerState, "producing")
        self.answer(self.client.stat("/"))
        for one in first:
            self.successResultOf(one)

    def test_small_pieces(self) -> None:
        """Content in very small pieces counts, though: each takes memory of its own."""
        unread = self.client.read("/")
        first = unread.__anext__()
        self.turn()
        self.far.say(m.Content(64 << 20, 7, b"v"), 1)
        for _ in range(MAX_HELD // holding.SMALL + 2):
            self.far.content(1, b"x")
        self.successResultOf(first)
        self.assertEqual(self.far.transport.producerState, "paused")

    def test_copied(self) -> None:
        """A small piece of content does not keep all that was read with it."""
        place = self.client._board.place(5)
        self.turn()
        call = Call(self.successResultOf(place), Ask(m.Read(RelPath(("a",)))))
        self.turn()
        self.far.say(m.Content(64 << 20, 7, b"v"), 1)
        call.events.clear()
        self.far.session.data_header(1, 1000)
        self.far.session.data_header(1, 100_000)
        heads = self.far.session.take()
        half = len(heads) // 2
        self.far.link.dataReceived(heads[:half] + bytes(1000) + heads[half:] + bytes(100_000))
        found = [call.events.popleft() for _ in range(2)]
        sizes = [(len(one.piece), memoryview(one.piece.obj).nbytes) for one in found if isinstance(one, Data)]
        self.assertEqual(sizes[0], (1000, 1000))
        self.assertEqual(sizes[1], (100_000, len(heads) + 101_000))

    def answer(self, asked: Any) -> None:
        """Answer the last operation."""
        self.turn()
        stream = self.far.opened()[-1]
        self.far.say(m.Entries([ROW]), stream)
        self.far.say(m.End(), stream)
        self.successResultOf(asked)

    def test_answers(self) -> None:
        """Answers that nobody takes hold up the connection, until the one who holds most is given up."""
        unread, asked = self.client.entries("/"), self.client.stat("/")
        first = unread.__anext__()
        self.turn()
        (stream,) = [number for number, what in self.far.said() if isinstance(what, m.List)]
        for _ in range(BATCHES + 1):
            self.far.session.send(m.Entries(ROWS), stream)
        self.far.turn()
        self.successResultOf(first)
        self.assertEqual(self.far.transport.producerState, "paused")
        self.clock.advance(holding.PATIENCE)
        self.assertEqual(self.far.transport.producerState, "producing")
        self.turn()
        other = next(number for number in self.far.opened() if number != stream)
        self.far.say(m.Entries([ROW]), other)
        self.far.say(m.End(), other)
        self.successResultOf(asked)
        for _ in range(len(ROWS) - 1):
            self.successResultOf(unread.__anext__())
        self.failureResultOf(unread.__anext__(), TimeoutError)

    def test_ended(self) -> None:
        """Answers of what the server has ended count as well, until they are taken or nobody wants them."""
        unread = [self.client.entries(f"/{number}") for number in range(20)]
        first = [one.__anext__() for one in unread]
        self.turn()
        for stream in self.far.opened():
            for _ in range(BATCHES // 18 + 1):
                self.far.session.send(m.Entries(ROWS), stream)
            self.far.session.send(m.End(), stream)
        self.far.turn()
        self.assertEqual(self.far.transport.producerState, "paused")
        for taken in first:
            self.successResultOf(taken)
        for one in unread:
            one.aclose()
        self.clock.advance(0)
        self.assertEqual(self.far.transport.producerState, "producing")
        self.assertEqual(self.far.link.holding._total, 0)

    def test_several_given_up(self) -> None:
        """As many are given up as it takes to go on, also such as the server has ended."""
        unread = [self.client.entries(f"/{number}") for number in range(4)]
        first = [one.__anext__() for one in unread]
        self.turn()
        for stream in self.far.opened():
            for _ in range(BATCHES // 3 + 1):
                self.far.session.send(m.Entries(ROWS), stream)
            self.far.session.send(m.End(), stream)
        self.far.turn()
        for taken in first:
            self.successResultOf(taken)
        self.clock.advance(holding.PATIENCE)
        self.assertEqual(self.far.transport.producerState, "producing")
        lost = 0
        for one in unread:
            for _ in range(len(ROWS) - 1):
                self.successResultOf(one.__anext__())
            ends: list[object] = []
            one.__anext__().addBoth(ends.append)
            lost += isinstance(ends[0], Failure) and bool(ends[0].check(TimeoutError))
        self.assertEqual(lost, 3)

    def test_taken_in_time(self) -> None:
        """Once enough was taken, it goes on without a word."""
        unread = self.client.entries("/")
        first = unread.__anext__()
        self.turn()
        for _ in range(BATCHES + 1):
            self.far.session.send(m.Entries(ROWS), 1)
        self.far.turn()
        self.successResultOf(first)
        self.assertEqual(self.far.transport.producerState, "paused")
        for _ in range(BATCHES // 2 * len(ROWS) + len(ROWS)):
            self.successResultOf(unread.__anext__())
        self.clock.advance(0)
        self.assertEqual(self.far.transport.producerState, "producing")
        self.clock.advance(holding.PATIENCE * 2)
        self.successResultOf(unread.__anext__())
