"""The session with a peer that goes on without end, sends too much, or anything at all."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import CorruptedResponse
from fileexport.wire import messages as m
from fileexport.wire.frames import RULES, FrameType, frame
from fileexport.wire.session import (
    DEFAULT_OFFER,
    MAX_CANCELLED,
    MAX_PONGS,
    MAX_QUIET,
    MAX_REFUSALS,
    PAUSE,
    Event,
    LocalProtocolError,
    Received,
    Session,
    State,
)
from fileexport.wire.streams import MAX_CREDIT, Role
from tests.session_pair import (
    DIGEST,
    FILE,
    ID,
    PATH,
    SMALL,
    Pair,
    believe,
    breaks,
    events,
    joined,
    opened,
    raw,
    send_data,
)

quick = settings(max_examples=150, deadline=None, database=None)


class BoundTests(SynchronousTestCase):
    """What goes on without end is bounded."""

    def test_pings(self) -> None:
        """PINGs are answered with their bytes; while nobody takes the answers, only a handful."""
        pair = opened()
        pair.client.send(m.Ping(b"here?"))
        self.assertEqual(pair.run(), ([Received(0, m.Pong(b"here?"))], []))
        pair.server.receive(raw(FrameType.PING) * 5000)
        self.assertEqual(events(pair.server), [PAUSE] * (5000 // MAX_QUIET))
        self.assertEqual(pair.server.take(), raw(FrameType.PONG) * MAX_PONGS)
        pair.server.receive(raw(FrameType.PING))
        self.assertEqual((events(pair.server), pair.server.take()), ([], raw(FrameType.PONG)))

    def test_refusals(self) -> None:
        """Refusals that nobody takes do not pile up for ever: it is fatal."""
        pair = opened()
        bad = msgspec.msgpack.encode({})
        data = b"".join(frame(FrameType.OPEN, number, bad) for number in range(1, MAX_REFUSALS + 2))
        pair.server.receive(data[: -12 - len(bad)])
        self.assertEqual(events(pair.server), [PAUSE] * (MAX_REFUSALS // MAX_QUIET))
        self.assertIn("without reading", breaks(self, opened().server, data))

    def test_cancelled(self) -> None:
        """Operations that are begun and cancelled without end are fatal; those that end make up for some."""
        pair = opened()
        data = b"".join(raw(FrameType.OPEN, n) + raw(FrameType.RESET, n) for n in range(1, MAX_CANCELLED + 1))
        pair.server.receive(data)
        self.assertEqual(len(events(pair.server)), 2 * MAX_CANCELLED)
        self.assertEqual(MAX_CANCELLED, 1024)
        last = MAX_CANCELLED + 1
        pair.server.receive(raw(FrameType.OPEN, last))
        events(pair.server)
        pair.server.send(m.Entries([]), last)
        pair.server.send(m.End(), last)
        pair.server.receive(raw(FrameType.OPEN, last + 1) + raw(FrameType.RESET, last + 1))
        self.assertEqual(len(events(pair.server)), 2)
        breaks(self, pair.server, raw(FrameType.OPEN, last + 2) + raw(FrameType.RESET, last + 2))

    def test_refused_and_cancelled(self) -> None:
        """A refusal of the server's own makes up for nothing that was cancelled."""
        pair = opened()
        for number in range(1, MAX_CANCELLED + 1):
            pair.server.receive(raw(FrameType.OPEN, 2 * number - 1) + raw(FrameType.RESET, 2 * number - 1))
            pair.server.receive(raw(FrameType.OPEN, 2 * number))
            events(pair.server)
            pair.server.reset(2 * number, m.Reset(12))
            pair.server.take()
        last = 2 * MAX_CANCELLED + 1
        breaks(self, pair.server, raw(FrameType.OPEN, last) + raw(FrameType.RESET, last))

    def test_cancelled_after_an_answer(self) -> None:
        """Who cancels what was answered in part, a long listing for instance, may do so without end."""
        pair = opened()
        for _ in range(MAX_CANCELLED + 2):
            stream = pair.client.open(m.List(PATH))
            pair.run()
            pair.server.send(m.Entries([]), stream)
            pair.client.reset(stream)
            pair.run()
        self.assertEqual((pair.server.state, pair.server.streams), (State.OPEN, 0))


class CreditTests(SynchronousTestCase):
    """More than was allowed."""

    def test_exceeded(self) -> None:
        """Content over the credit of its stream or of the connection is fatal with its header."""
        for sizes in ((400, 400, 201), (400, 400, 200, 1)):
            pair = opened(SMALL)
            pair.client.open(m.Write(PATH, 5000, 0))
            pair.run()
            for size in sizes[:-1]:
                pair.server.receive(frame(FrameType.DATA, 1, bytes(size)))
                events(pair.server)
            breaks(self, pair.server, frame(FrameType.DATA, 1, bytes(sizes[-1]))[:12] + b"x")
        pair = opened(SMALL)
        pair.client.open(m.Write(PATH, 5000, 0)), pair.client.open(m.WriteFiles(PATH))
        pair.run()
        pair.server.receive(frame(FrameType.DATA, 1, bytes(500)) * 2)
        events(pair.server)
        files = m.Files([m.SmallFile(PATH, 0, DIGEST, bytes(400))])
        breaks(self, pair.server, m.encode(files, 2) * 2)

    def test_files_exceeded(self) -> None:
        """FILES over the credit of its stream alone is fatal too."""
        pair = opened(msgspec.structs.replace(SMALL, connection_credit=5000))
        pair.client.open(m.WriteFiles(PATH))
        pair.run()
        files = m.encode(m.Files([m.SmallFile(PATH, 0, DIGEST, bytes(400))]), 1)
        pair.server.receive(files * 2)
        (first, second) = events(pair.server)
        assert isinstance(first, Received) and isinstance(second, Received)
        self.assertEqual((first.size, second.size), (len(files) - 12,) * 2)
        breaks(self, pair.server, files)

    def test_copy_exceeded(self) -> None:
        """COPY over the credit of its stream or of the connection is fatal, and cannot be sent."""
        copy = m.Copy([m.CopyRange(0, 2**40, 2**40)] * 20)
        data = m.encode(copy, 1)
        for offer in (SMALL, msgspec.structs.replace(SMALL, connection_credit=5000)):
            pair = opened(offer)
            stream = pair.client.open(m.Write(PATH, 2**50, 0, bases=[m.Base(PATH)]))
            pair.run()
            most = min(offer.stream_credit, offer.connection_credit) // (len(data) - 12)
            for _ in range(most):
                pair.client.send(copy, stream)
                pair.run()
            self.assertRaises(LocalProtocolError, pair.client.send, copy, stream)
            self.assertEqual(pair.client.take(), b"")
            breaks(self, pair.server, data)

    def test_own_credit(self) -> None:
        """Nobody sends over the credit that there is."""
        pair = opened(SMALL)
        stream = pair.client.open(m.Write(PATH, 5000, 0))
        pair.run()
        self.assertEqual(pair.client.credit(stream), 1000)
        pair.client.data_header(stream, 512)
        self.assertEqual(pair.client.credit(stream), 488)
        self.assertRaises(LocalProtocolError, pair.client.data_header, stream, 489)
        self.assertEqual((pair.client.credit(stream), pair.client.credit(9)), (488, 0))
        self.assertRaises(LocalProtocolError, pair.client.consumed, stream, 1)

    def test_overflow(self) -> None:
        """Credit of more than 2^31-1 bytes is fatal, on a stream and on the connection."""
        for stream in (0, 1):
            pair = opened()
            pair.client.open(m.Write(PATH, 5, 0))
            pair.run()
            window = DEFAULT_OFFER.stream_credit if stream else DEFAULT_OFFER.connection_credit
            pair.client.receive(m.encode(m.MoreCredit(MAX_CREDIT - window), stream))
            self.assertEqual(len(events(pair.client)), 1)
            breaks(self, pair.client, m.encode(m.MoreCredit(1), stream))


class CreditMachine(RuleBasedStateMachine):
    """Two writes at once, with a server that deals with what came whenever it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = opened(SMALL)
        self.streams = [self.pair.client.open(m.Write(PATH, 9, 0)) for _ in range(SMALL.streams)]
        self.pair.run()
        self.held = dict.fromkeys(self.streams, 0)

    @rule(which=st.integers(0, 1), size=st.integers(1, SMALL.data), cut=st.integers(0, 600))
    def send(self, which: int, size: int, cut: int) -> None:
        """Content goes as far as there is credit."""
        stream = self.streams[which]
        size = min(size, self.pair.client.credit(stream))
        if not size:
            return
        data = send_data(self.pair.client, stream, bytes(size))
        for part in (data[:cut], data[cut:]):
            self.pair.server.receive(part)
            for event in events(self.pair.server):
                assert not isinstance(event, Received)
                self.held[event.stream] += len(event.piece)

    @rule(which=st.integers(0, 1), part=st.floats(0, 1))
    def deal(self, which: int, part: float) -> None:
        """Some of what came is dealt with."""
        stream = self.streams[which]
        count = int(self.held[stream] * part)
        self.pair.server.consumed(stream, count)
        self.held[stream] -= count

    @precondition(lambda self: self.pair.client.last_stream < 60)
    @rule(which=st.integers(0, 1), ours=st.booleans())
    def cancel(self, which: int, ours: bool) -> None:
        """One write is cancelled by either side, and another one begins."""
        stream = self.streams[which]
        (self.pair.client if ours else self.pair.server).reset(stream)
        self.pair.run()
        del self.held[stream]
        self.streams[which] = self.pair.client.open(m.Write(PATH, 9, 0))
        self.pair.run()
        self.held[self.streams[which]] = 0

    @invariant()
    def bounded(self) -> None:
        """Never more than a window is on its way or held, and less than half a window is kept back."""
        self.pair.run()
        client = self.pair.client
        for stream, held in self.held.items():
            missing = SMALL.stream_credit - held - client._streams[stream].sendable
            assert 0 <= missing < SMALL.stream_credit / 2 + 1, missing
        missing = SMALL.connection_credit - sum(self.held.values()) - client._credit.sendable
        assert 0 <= missing < SMALL.connection_credit / 2 + 1, missing


class CreditModelTests(SynchronousTestCase):
    """Credit in any order of events."""

    def test_walks(self) -> None:
        """Whatever is sent, dealt with and cancelled, no credit is lost and none is made."""
        case = CreditMachine.TestCase
        case.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, database=None)
        case("runTest").debug()


def recorded() -> bytes:
    """All that a client sends in a conversation with a server that believes it."""
    pair = Pair()
    data = b""

    def carry() -> None:
        nonlocal data
        while sent := pair.client.take():
            data += sent
            pair.server.receive(sent)
            for event in events(pair.server):
                believe(pair.server, event)
            pair.client.receive(pair.server.take())
            events(pair.client)

    carry()
    for message in (m.Auth(ID, DIGEST), m.Proof(DIGEST)):
        pair.client.send(message)
        carry()
    write, stat = pair.client.open(m.Write(PATH, 600, 0, source=b"s")), pair.client.open(m.Stat(PATH))
    carry()
    for part in (b"a" * 500, b"b" * 100):
        data_frame = send_data(pair.client, write, part)
        data += data_frame
        pair.server.receive(data_frame)
        events(pair.server)
    pair.client.send(m.End(600, DIGEST), write)
    pair.client.send(m.Ping(b"?"))
    files = pair.client.open(m.WriteFiles(PATH))
    pair.client.send(m.Files([FILE, FILE]), files)
    pair.client.reset(files)
    copied = pair.client.open(m.Write(PATH, 700, 0, source=b"s", bases=[m.Base(PATH, b"v1")]))
    carry()
    pair.client.send(m.Copy([m.CopyRange(0, 600, 100), m.CopyRange(0, 0, 600)]), copied)
    pair.client.send(m.End(700, DIGEST), copied)
    carry()
    assert not pair.client.is_open(stat)
    pair.client.leave()
    carry()
    return data


RECORDED = recorded()


def heard(chunks: list[bytes]) -> tuple[Session, list[Event], CorruptedResponse | None]:
    """What a believing server is told."""
    server = Session(Role.SERVER)
    found: list[Event] = []
    try:
        for chunk in chunks:
            server.receive(chunk)
            while (event := server.next_event()) is not None:
                found.append(event)
                believe(server, event)
    except CorruptedResponse as error:
        return server, found, error
    return server, found, None


class ArrivalTests(SynchronousTestCase):
    """However it arrives, whatever it is."""

    @quick
    @given(st.lists(st.integers(0, len(RECORDED)), max_size=40))
    def test_any_fragmentation(self, places: list[int]) -> None:
        """Any fragmentation gives the same events."""
        edges = [0, *sorted(places), len(RECORDED)]
        _, whole, wrong = heard([RECORDED])
        _, found, also = heard([RECORDED[a:b] for a, b in zip(edges, edges[1:], strict=False)])
        self.assertEqual((wrong, also), (None, None))
        self.assertEqual(joined(found), joined(whole))
        self.assertEqual(len(joined(whole)), 15)

    def test_any_truncation(self) -> None:
        """A cut anywhere gives the first events only, and is no error of the other side's."""
        _, whole, _ = heard([RECORDED])
        for place in range(len(RECORDED)):
            _, found, error = heard([RECORDED[:place]])
            self.assertIsNone(error)
            told = joined(found)
            self.assertEqual(told, joined(whole)[: len(told)])

    @quick
    @given(st.integers(0, len(RECORDED)), st.binary(max_size=60), st.booleans())
    def test_random_bytes(self, place: int, noise: bytes, over: bool) -> None:
        """Random bytes within a conversation give events or `CorruptedResponse`, and one GOAWAY."""
        rest = RECORDED[place + len(noise) * over :]
        server, _, error = heard([RECORDED[:place] + noise + rest])
        if error is not None:
            self.assertEqual(server.state, State.BROKEN)
            self.assertRaises(CorruptedResponse, server.next_event)
        self.assertLess(len(server.take()), 4096)

    @quick
    @given(
        st.lists(st.tuples(st.sampled_from(FrameType), st.integers(0, 4)), max_size=12), st.binary(max_size=9)
    )
    def test_lying_server(self, frames: list[tuple[FrameType, int]], noise: bytes) -> None:
        """Frames in any order, and noise behind them, give a client events or `CorruptedResponse`."""
        pair = opened(msgspec.structs.replace(SMALL, streams=9))
        for operation in (m.Read(PATH), m.Write(PATH, 9, 0, source=b"s"), m.Manifest(PATH)):
            pair.client.open(operation)
        pair.run()
        data = [raw(kind, stream) for kind, stream in frames if RULES[kind].place.admits(stream)]
        pair.client.receive(b"".join(data) + noise)
        try:
            events(pair.client)
        except CorruptedResponse:
            self.assertEqual((pair.client.state, pair.client.streams), (State.BROKEN, 0))
