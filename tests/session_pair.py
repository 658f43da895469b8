"""Two sessions joined in memory, and the answers of a server that believes everybody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import CorruptedResponse
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.frames import LARGEST, PREFACE, Data, Frame, FrameReader, FrameType, frame
from fileexport.wire.session import DEFAULT_OFFER, Event, Received, Session, State
from fileexport.wire.streams import Role

DIGEST, ID = bytes(range(32)), bytes(range(8))
PATH = RelPath(["a"])
#: Small enough that a test can use them up.
SMALL = m.Offer(control=1024, data=512, streams=2, stream_credit=1000, connection_credit=1500)


def events(session: Session) -> list[Event]:
    """All that the session has to tell now."""
    found = []
    while (event := session.next_event()) is not None:
        found.append(event)
    return found


def joined(found: Iterable[Event]) -> list[tuple[int, m.Message | bytes]]:
    """The events, with the pieces of each DATA frame put together."""
    whole: list[tuple[int, m.Message | bytes]] = []
    content = b""
    for event in found:
        if isinstance(event, Received):
            whole.append((event.stream, event.message))
            continue
        content += event.piece
        if not event.left:
            whole.append((event.stream, content))
            content = b""
    return whole


FILE = m.SmallFile(PATH, 0, DIGEST, b"hello")
#: A message for each type of frame but DATA.
SAMPLES: dict[FrameType, m.Message] = {
    message.frame: message
    for message in (
        m.Hello(version=1, limits=DEFAULT_OFFER),
        *(m.Auth(ID, DIGEST), m.Challenge(DIGEST), m.Proof(DIGEST), m.Welcome(DIGEST, []), m.Refused(1)),
        *(m.Ping(b"1"), m.Pong(b"1"), m.GoAway(9), m.MoreCredit(1)),
        *(m.Stat(PATH), m.Removed(1), m.Files([FILE]), m.End(), m.Reset()),
        m.Copy([m.CopyRange(0, 0, 9)]),
    )
}


def raw(kind: FrameType, stream: int = 0, content: bytes = b"x") -> bytes:
    """A frame of this type, whether it may be sent or not."""
    if kind is FrameType.DATA:
        return frame(kind, stream, content)
    return m.encode(SAMPLES[kind], stream)


def breaks(case: SynchronousTestCase, session: Session, data: bytes) -> str:
    """Check that the bytes are fatal, once and for ever. Returns the sentence that the other side gets."""
    session.take()
    session.receive(data)
    error = case.assertRaises(CorruptedResponse, events, session)
    case.assertEqual(session.state, State.BROKEN)
    reader = FrameReader(LARGEST)
    reader.feed(PREFACE + session.take())
    found: list[m.Message] = []
    while (one := reader.next_event()) is not None:
        assert isinstance(one, Frame)
        found.append(m.decode(one))
    (goaway,) = (said for said in found if isinstance(said, m.GoAway))
    case.assertEqual(goaway.code, 13)
    case.assertTrue(goaway.message.isprintable() and str(error).startswith(goaway.message))
    session.receive(raw(FrameType.PING))
    case.assertRaises(CorruptedResponse, session.next_event)
    case.assertEqual((session.take(), session.streams), (b"", 0))
    return goaway.message


def messages(found: Iterable[Event]) -> list[m.Message]:
    """What was said, without the streams and without content."""
    return [event.message for event in found if isinstance(event, Received)]


class Pair:
    """A client and a server, and what each has read."""

    def __init__(self, offer: m.Offer = DEFAULT_OFFER) -> None:
        self.client = Session(Role.CLIENT, offer)
        self.server = Session(Role.SERVER, offer)

    def run(self) -> tuple[list[Event], list[Event]]:
        """Carry everything over, until both are quiet. Returns what the client and the server were told."""
        told: tuple[list[Event], list[Event]] = ([], [])
        while True:
            sent, answered = self.client.take(), self.server.take()
            if not sent and not answered:
                return told
            self.client.receive(answered)
            self.server.receive(sent)
            told[0].extend(events(self.client))
            told[1].extend(events(self.server))

    def side(self, role: Role) -> Session:
        """The session of this role."""
        return self.client if role is Role.CLIENT else self.server

    def advance(self, steps: Sequence[tuple[Role, m.Message]]) -> None:
        """Say these messages, each carried over before the next."""
        self.run()
        for role, message in steps:
            if isinstance(message, m.GoAway):
                self.side(role).leave()
            else:
                self.side(role).send(message)
            self.run()


#: How to come from both HELLOs to the streams.
GREETING: tuple[tuple[Role, m.Message], ...] = (
    (Role.CLIENT, m.Auth(id=ID, nonce=DIGEST)),
    (Role.SERVER, m.Challenge(nonce=DIGEST)),
    (Role.CLIENT, m.Proof(proof=DIGEST)),
    (Role.SERVER, m.Welcome(proof=DIGEST, rights=["read"])),
)
#: How to come to a state that both sides reach, from both HELLOs on.
STEPS: dict[State, tuple[tuple[Role, m.Message], ...]] = {
    State.GREETED: (),
    State.ASKED: GREETING[:1],
    State.CHALLENGED: GREETING[:2],
    State.PROVED: GREETING[:3],
    State.OPEN: GREETING,
    State.LEAVING: (*GREETING, (Role.SERVER, m.GoAway(0))),
    State.CLOSED: ((Role.SERVER, m.GoAway(0)),),
}


def reached(state: State, offer: m.Offer = DEFAULT_OFFER) -> Pair:
    """A pair in which both sides are in `state`."""
    pair = Pair(offer)
    pair.advance(STEPS[state])
    return pair


def opened(offer: m.Offer = DEFAULT_OFFER) -> Pair:
    """A pair that may open streams."""
    return reached(State.OPEN, offer)


def send_data(session: Session, stream: int, content: bytes, *, compressed: bool = False) -> bytes:
    """The bytes of a DATA frame, with what waited before it."""
    session.data_header(stream, len(content), compressed=compressed)
    return session.take() + content


def believe(server: Session, event: Event) -> None:
    """Answer as a server would that knows every token and stores nothing."""
    if isinstance(event, Data):
        server.consumed(event.stream, len(event.piece))
        return
    stream, message = event.stream, event.message
    match message:
        case m.Auth():
            server.send(m.Challenge(nonce=DIGEST))
        case m.Proof():
            server.send(m.Welcome(proof=DIGEST, rights=["read", "write"]))
        case m.Write(source=bytes()):
            server.send(m.Ready(), stream)
        case m.Stat():
            server.send(m.Entries([m.Entry(message.path, "file", 1, 1)]), stream)
            server.send(m.End(), stream)
        case m.End():
            server.send(message, stream)
