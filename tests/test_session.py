"""The session: whose turn it is, credit, and everything that a peer may do wrong."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from hypothesis import settings
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import OverloadedError
from fileexport.wire import messages as m
from fileexport.wire.frames import COMPRESSED, PREFACE, RULES, FrameType, Place, frame
from fileexport.wire.session import (
    CONNECTION,
    Event,
    LocalProtocolError,
    Received,
    Session,
    State,
)
from fileexport.wire.streams import CONTENT, SHAPES, STREAM, Role, StreamState
from tests.session_pair import (
    DIGEST,
    FILE,
    PATH,
    SAMPLES,
    SMALL,
    STEPS,
    Pair,
    breaks,
    events,
    joined,
    messages,
    opened,
    raw,
    reached,
    send_data,
)

quick = settings(max_examples=150, deadline=None, database=None)
OPERATIONS: dict[type[m.Message], m.Open] = {
    type(one): one
    for one in (
        *(m.List(PATH), m.Stat(PATH), m.MakeFile(PATH), m.MakeDirectory(PATH), m.Read(PATH)),
        *(m.ReadFiles([PATH]), m.Write(PATH, 9, 0), m.WriteFiles(PATH), m.Remove(PATH), m.Rename(PATH, PATH)),
        *(m.Hash(PATH), m.Compress(PATH), m.ListJobs(), m.GetJob("j"), m.CancelJob("j")),
        *(m.Manifest(PATH), m.GetChunks(PATH, 512), m.HashFiles([PATH]), m.Change([m.MakeStep(PATH)])),
    )
}
BASES = [m.Base(PATH)]
JOB = m.JobRow(id="j", state="done", path=PATH, target=PATH, created=0)
REPLIES: dict[type[m.Reply], m.Reply] = {
    type(one): one
    for one in (
        *(m.Entries([]), m.Content(9, 0, b"v"), m.Ready(), m.Outcome(), m.Hashes([]), m.Removed(1)),
        *(m.Jobs([JOB]), m.ManifestPart([m.Folder(PATH)]), m.Chunks(b"v", [])),
    )
}


#: What the server may say first where the client has no content.
ANSWERS: dict[type[m.Message], set[str]] = {
    **{m.List: {"Entries", "END"}, m.Hash: {"Hashes", "END"}, m.ListJobs: {"Jobs", "END"}},
    **{m.MakeFile: {"END"}, m.MakeDirectory: {"END"}, m.Rename: {"END"}},
    **{m.Stat: {"Entries"}, m.Remove: {"Removed"}, m.Read: {"Content"}},
    **{m.Compress: {"Jobs"}, m.GetJob: {"Jobs"}, m.CancelJob: {"Jobs"}},
    **{m.ReadFiles: {"Outcome", "FILES", "END"}, m.HashFiles: {"Hashes", "END"}},
    **{m.Manifest: {"ManifestPart"}, m.GetChunks: {"Chunks"}, m.Change: {"Outcome", "END"}},
}


def other(role: Role) -> Role:
    """The other side."""
    return Role.SERVER if role is Role.CLIENT else Role.CLIENT


class TableTests(SynchronousTestCase):
    """Each cell of the two tables."""

    def test_connection(self) -> None:
        """In each state each frame of either side is taken where the table has it, else it is fatal."""
        for state, row in CONNECTION.items():
            for sender in Role:
                for kind in FrameType:
                    receiver = self.receiver(state, sender)
                    if receiver is None:
                        continue
                    stream = (
                        0 if RULES[kind].place is not Place.STREAM else 2 if kind is FrameType.OPEN else 1
                    )
                    data = raw(kind, stream)
                    legal = (sender, kind) in row
                    with self.subTest(state=state, sender=sender, kind=kind):
                        if not legal:
                            breaks(self, receiver, data)
                            continue
                        receiver.receive(data)
                        events(receiver)
                        self.assertEqual(receiver.state, row[sender, kind])

    def receiver(self, state: State, sender: Role) -> Session | None:
        """The side that hears `sender`, in this state; a stream 1 was there. None where it cannot be so."""
        role = other(sender)
        if state in STEPS and state is not State.CLOSED:
            pair = reached(state)
            if state is State.OPEN:
                pair.client.reset(pair.client.open(m.Stat(PATH)))
                pair.run()
            elif state is State.LEAVING:
                pair = opened()
                pair.client.reset(pair.client.open(m.Stat(PATH)))
                pair.run()
                pair.server.leave()
                pair.run()
            return pair.side(role)
        alone = {State.CLIENT_GREETED: Role.CLIENT, State.SERVER_GREETED: Role.SERVER}.get(state)
        if alone is not role:
            return None
        session = Session(role)
        session.receive(PREFACE)
        return session

    def test_own_turn(self) -> None:
        """What the table does not allow cannot be sent, and what was refused leaves no trace."""
        for state, row in CONNECTION.items():
            if state not in STEPS:
                continue
            for role in Role:
                for kind in set(FrameType) - {FrameType.DATA, FrameType.OPEN, FrameType.GOAWAY}:
                    if RULES[kind].place is not Place.CONNECTION or (role, kind) in row:
                        continue
                    side = reached(state).side(role)
                    self.assertRaises(LocalProtocolError, side.send, SAMPLES[kind])
                    self.assertEqual((side.take(), side.state), (b"", state))

    def test_closed(self) -> None:
        """After GOAWAY before WELCOME nothing is read and nothing can be said."""
        for state in (State.GREETED, State.ASKED, State.CHALLENGED, State.PROVED):
            for role in Role:
                pair = reached(state)
                pair.side(role).leave(10, "go away")
                pair.run()
                for session in (pair.client, pair.server):
                    self.assertEqual(session.state, State.CLOSED)
                    session.receive(b"anything")
                    self.assertIsNone(session.next_event())
                    self.assertRaises(LocalProtocolError, session.send, m.Ping())
                    session.leave()
                    self.assertEqual(session.take(), b"")

    def test_tables_are_complete(self) -> None:
        """Each operation has a shape, each state a row, and each type of frame stands in some row."""
        self.assertEqual(set(SHAPES), set(m.OPERATIONS))
        self.assertEqual((set(CONNECTION), set(STREAM)), (set(State), set(StreamState)))
        self.assertEqual({kind for row in CONNECTION.values() for _, kind in row}, set(FrameType))
        self.assertEqual({shape.reply for shape in SHAPES.values()} - {None}, set(m.REPLIES))

    def test_streams(self) -> None:
        """In each state of each operation, each frame of either side is taken or fatal as the shape says."""
        for operation, then, allowed in self.situations():
            for sender in Role:
                for word, data in self.everything():
                    receiver = self.begun(operation, then).side(other(sender))
                    with self.subTest(operation=operation, sender=sender, word=word):
                        if (sender, word) in allowed:
                            receiver.receive(data)
                            self.assertEqual(len(events(receiver)), 1)
                        else:
                            breaks(self, receiver, data)

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """Each frame that may stand on stream 1, but OPEN."""
        for reply in REPLIES.values():
            yield type(reply).__name__, m.encode(reply, 1)
        for kind in (*CONTENT, FrameType.END, FrameType.RESET, FrameType.CREDIT):
            yield kind.name, raw(kind, 1)

    def situations(self) -> Iterator[tuple[m.Open, m.Message | None, set[tuple[Role, str]]]]:
        """An operation, what was said on its stream, and what may be said next by whom."""
        client, server = Role.CLIENT, Role.SERVER
        always = {(role, word) for role in Role for word in ("RESET", "CREDIT")}
        for kind, words in ANSWERS.items():
            yield OPERATIONS[kind], None, always | {(server, word) for word in words}
            if "END" not in words:
                ending = {"END", "DATA"} if kind is m.Read else {"END"}
                ending |= words if SHAPES[type(OPERATIONS[kind])].most > 1 else set()
                (said,) = (reply for reply in REPLIES.values() if type(reply).__name__ in words)
                yield OPERATIONS[kind], said, always | {(server, word) for word in ending}
        write = always | {(client, "DATA"), (client, "END")}
        yield m.Write(PATH, 9, 0), None, write | {(server, "Ready")}
        yield m.Write(PATH, 9, 0, source=b"s"), None, always | {(server, "Ready")}
        yield m.Write(PATH, 9, 0, source=b"s"), m.Ready(), write
        yield m.Write(PATH, 9, 0), m.End(), always | {(server, "Ready"), (server, "END")}
        copying = write | {(client, "COPY")}
        yield m.Write(PATH, 9, 0, bases=BASES), None, copying | {(server, "Ready")}
        yield m.Write(PATH, 9, 0, source=b"s", bases=BASES), None, always | {(server, "Ready")}
        yield m.Write(PATH, 9, 0, source=b"s", bases=BASES), m.Ready(), copying
        yield m.Write(PATH, 9, 0, bases=BASES), m.End(), always | {(server, "Ready"), (server, "END")}
        answer = always | {(server, "Outcome")}
        yield m.WriteFiles(PATH), None, answer | {(client, "FILES"), (client, "END")}
        yield m.WriteFiles(PATH), m.End(), answer | {(server, "END")}

    def begun(self, operation: m.Open, then: m.Message | None) -> Pair:
        """A pair in which the operation has begun, and `then` was said."""
        pair = opened()
        stream = pair.client.open(operation)
        pair.run()
        if then is not None:
            pair.side(Role.CLIENT if isinstance(then, m.End) else Role.SERVER).send(then, stream)
            pair.run()
        return pair


class GreetingTests(SynchronousTestCase):
    """Before the first stream."""

    def test_transcript(self) -> None:
        """Both sides have the same transcript, the client's HELLO first, and another one for other HELLOs."""
        pair, other = reached(State.GREETED), reached(State.GREETED, SMALL)
        self.assertEqual(pair.client.transcript, pair.server.transcript)
        self.assertNotEqual(pair.client.transcript, other.client.transcript)
        self.assertEqual(len(pair.client.transcript), 32)
        with self.assertRaises(LocalProtocolError):
            _ = Session(Role.CLIENT).transcript
        with self.assertRaises(LocalProtocolError):
            pair.client.open(m.Stat(PATH))

    def test_features(self) -> None:
        """A feature counts when both sides named it."""
        client, server = (
            Session(Role.CLIENT, features=["zstd", "x"]),
            Session(Role.SERVER, features=["zstd", "y"]),
        )
        client.receive(server.take())
        server.receive(client.take())
        events(client), events(server)
        self.assertEqual((client.features, server.features), (frozenset({"zstd"}),) * 2)

    def test_compression(self) -> None:
        """Compressed DATA goes where both named zstd; else it cannot be sent, and to send it is fatal."""
        for named in (["zstd"], []):
            pair = Pair()
            pair.client = Session(Role.CLIENT, features=named)
            pair.advance(STEPS[State.OPEN])
            stream = pair.client.open(m.Write(PATH, 9, 0))
            pair.run()
            if named:
                pair.server.receive(send_data(pair.client, stream, b"x", compressed=True))
                self.assertEqual(joined(events(pair.server)), [(stream, b"x")])
                continue
            with self.assertRaises(LocalProtocolError):
                pair.client.data_header(stream, 1, compressed=True)
            breaks(self, pair.server, frame(FrameType.DATA, stream, b"x", flags=COMPRESSED))

    def test_limits(self) -> None:
        """What may be sent is short before WELCOME, and then what the other side announced."""
        pair = Pair(SMALL)
        self.assertEqual(pair.client.limits, (1024, 0))
        pair.advance(STEPS[State.PROVED])
        self.assertEqual(pair.client.limits, (1024, 0))
        pair.advance(STEPS[State.OPEN][3:])
        self.assertEqual((pair.client.limits, pair.server.limits), ((1024, 512),) * 2)
        stream = pair.client.open(m.Write(PATH, 9, 0))
        self.assertRaises(ValueError, pair.client.data_header, stream, 513)
        self.assertRaises(ValueError, pair.client.open, m.ReadFiles([PATH] * 1024))
        self.assertEqual(pair.client.streams, 1)

    def test_stranger_is_kept_short(self) -> None:
        """Before WELCOME a frame of more than 1 KiB is fatal, and so is DATA."""
        for state in (State.GREETED, State.ASKED, State.CHALLENGED, State.PROVED):
            for data in (frame(FrameType.AUTH, 0, bytes(1025)), raw(FrameType.DATA, 1)):
                self.assertIn("bytes, over", breaks(self, reached(state).server, data))

    def test_wrong_token(self) -> None:
        """After REFUSED, whether of AUTH or of PROOF, the client may begin to prove another token."""
        for tries in (1, 3):
            pair = reached(State.GREETED)
            pair.advance([*STEPS[State.ASKED], (Role.SERVER, m.Refused(2))])
            for _ in range(tries):
                pair.advance([*STEPS[State.PROVED], (Role.SERVER, m.Refused(1))])
            pair.advance(STEPS[State.OPEN])
            self.assertEqual((pair.client.state, pair.server.state), (State.OPEN,) * 2)


class StreamTests(SynchronousTestCase):
    """Streams begin, end and are refused."""

    def test_interleaved(self) -> None:
        """Several operations go on at once, each ends by itself."""
        pair = opened()
        write, read = pair.client.open(m.Write(PATH, 5, 0)), pair.client.open(m.Read(PATH))
        pair.run()
        pair.server.send(m.Content(3, 0, b"v"), read)
        pair.client.receive(send_data(pair.server, read, b"abc"))
        pair.server.receive(send_data(pair.client, write, b"hello"))
        self.assertEqual(joined(events(pair.client))[-1], (read, b"abc"))
        self.assertEqual(joined(events(pair.server)), [(write, b"hello")])
        pair.server.send(m.End(3, DIGEST), read)
        pair.client.send(m.End(5, DIGEST), write)
        pair.run()
        self.assertEqual((pair.client.streams, pair.server.streams, pair.client.is_open(read)), (1, 1, False))
        pair.server.send(m.End(5, DIGEST), write)
        self.assertEqual(pair.run()[0], [Received(write, m.End(5, DIGEST))])
        self.assertEqual((pair.client.streams, pair.server.streams), (0, 0))

    def test_numbers(self) -> None:
        """Numbers rise: a stream that was never opened is fatal, and so is one that is opened twice."""
        for data in (raw(FrameType.END, 2), raw(FrameType.DATA, 2), raw(FrameType.OPEN, 1)):
            pair = opened()
            pair.client.open(m.Stat(PATH))
            pair.run()
            breaks(self, pair.server, data)
        pair = opened()
        pair.server.receive(raw(FrameType.OPEN, 7))
        self.assertEqual([event.stream for event in events(pair.server)], [7])

    def test_late_frames(self) -> None:
        """What was on its way to a stream that is reset leaves no trace, and its credit comes back."""
        pair = opened(SMALL)
        for _ in range(20):
            files = pair.client.open(m.WriteFiles(PATH))
            write = pair.client.open(m.Write(PATH, 9, 0, bases=BASES))
            pair.run()
            for stream in (files, write):
                pair.server.reset(stream, m.Reset(code=4))
                pair.server.reset(stream)
            pair.client.send(m.Files([FILE]), files)
            pair.client.send(m.End(), files)
            pair.client.send(m.Copy([m.CopyRange(0, 0, 9)]), write)
            pair.server.receive(send_data(pair.client, write, bytes(100)))
            self.assertEqual((events(pair.server), pair.run()[1]), ([], []))
            self.assertRaises(LocalProtocolError, pair.client.send, m.End(), files)
        self.assertGreaterEqual(pair.client._credit.sendable, SMALL.connection_credit // 2)

    def test_copied(self) -> None:
        """COPY and DATA of one write come in the order in which they were sent, and both give credit back."""
        pair = opened(SMALL)
        stream = pair.client.open(m.Write(PATH, 19, 0, bases=BASES))
        pair.run()
        copy = m.Copy([m.CopyRange(0, 5, 9), m.CopyRange(0, 0, 5)])
        for _ in range(200):
            pair.client.send(copy, stream)
            pair.server.receive(send_data(pair.client, stream, b"hello"))
            size = len(m.encode(copy, stream)) - 12
            found = events(pair.server)
            self.assertEqual(joined(found), [(stream, copy), (stream, b"hello")])
            (copied, _) = found
            assert isinstance(copied, Received)
            self.assertEqual(copied.size, size)
            pair.server.consumed(stream, size + 5)
            pair.run()
        self.assertRaises(LocalProtocolError, pair.server.consumed, stream, 1)

    def test_reset_within_data(self) -> None:
        """A stream that is reset while a frame arrives hears no more; its credit comes back."""
        pair = opened(SMALL)
        for _ in range(20):
            stream = pair.client.open(m.Write(PATH, 500, 0))
            pair.run()
            data = send_data(pair.client, stream, bytes(400))
            pair.server.receive(data[:100])
            self.assertEqual(len(events(pair.server)), 1)
            pair.server.reset(stream)
            pair.server.receive(data[100:])
            self.assertEqual(events(pair.server), [])
            pair.server.consumed(stream, 88)
            pair.run()
        self.assertGreaterEqual(pair.client._credit.sendable, SMALL.connection_credit // 2)

    def test_too_many(self) -> None:
        """The client opens no more than the server takes; one more is refused on its stream alone."""
        pair = opened(SMALL)
        for _ in range(SMALL.streams):
            pair.client.open(m.Stat(PATH))
        self.assertRaises(OverloadedError, pair.client.open, m.Stat(PATH))
        pair.run()
        pair.server.receive(raw(FrameType.OPEN, 3) + raw(FrameType.RESET, 3))
        self.assertEqual((events(pair.server), pair.server.streams), ([], 2))
        self.assertEqual(
            pair.server.take(), m.encode(m.Reset(12, "too many operations at once on this connection"), 3)
        )

    def test_unreadable_operation(self) -> None:
        """An OPEN that is no operation ends its stream with code 9 and a sentence; the next one works."""
        pair = opened()
        payload = msgspec.msgpack.encode({"op": "dance"})
        pair.server.receive(frame(FrameType.OPEN, 1, payload) + raw(FrameType.OPEN, 2))
        self.assertEqual([event.stream for event in events(pair.server)], [2])
        pair.client.open(m.Stat(PATH))
        (event,) = (event for event in self.told(pair) if isinstance(event, Received))
        assert isinstance(event.message, m.Reset)
        self.assertEqual((event.stream, event.message.code), (1, 9))
        self.assertIn("dance", event.message.message)

    def told(self, pair: Pair) -> list[Event]:
        """What the client is told; what it has to say itself is thrown away."""
        pair.client.take()
        return pair.run()[0]

    def test_leaving(self) -> None:
        """After GOAWAY what was begun goes on; OPENs on their way are not begun, and no new ones made."""
        pair = opened()
        first = pair.client.open(m.Stat(PATH))
        pair.run()
        second = pair.client.open(m.Stat(PATH))
        pair.server.leave()
        told, heard = pair.run()
        self.assertEqual((messages(told), heard), ([m.GoAway(first)], []))
        self.assertEqual((pair.client.is_open(first), pair.client.is_open(second)), (True, False))
        self.assertRaises(OverloadedError, pair.client.open, m.Stat(PATH))
        pair.server.send(m.Entries([]), first)
        pair.server.send(m.End(), first)
        self.assertEqual(len(pair.run()[0]), 2)
        pair.server.receive(raw(FrameType.DATA, second))
        self.assertEqual(events(pair.server), [])
        breaks(self, pair.server, raw(FrameType.OPEN, second))

    def test_by_hand(self) -> None:
        """What the session says by itself, or by a method of its own, is not sent by hand."""
        pair = opened()
        for message in (m.Stat(PATH), m.GoAway(0), m.MoreCredit(1)):
            self.assertRaises(LocalProtocolError, pair.client.send, message)
        self.assertRaises(LocalProtocolError, pair.server.open, m.Stat(PATH))
        self.assertRaises(LocalProtocolError, Session(Role.CLIENT).open, m.Stat(PATH))
