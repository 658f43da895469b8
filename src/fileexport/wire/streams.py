"""One stream of a session: whose turn it is on it, and the credit of both directions.

`SHAPES` says what the conversation of each operation consists of, `STREAM` in which order. Both are literal
tables, from which docs/protocol.md has its own.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from fileexport.errors import CorruptedResponse
from fileexport.wire import messages as m
from fileexport.wire.frames import FrameType

#: No window is ever wider, in bytes.
MAX_CREDIT = 2**31 - 1
MANY = 2**63


class Role(enum.Enum):
    """The two sides of a connection."""

    CLIENT = "client"
    SERVER = "server"


class StreamState(enum.Enum):
    """How far a stream has come."""

    RESUMING = "the client waits for `ready` before it sends content"
    SENDING = "the client sends content, up to its END"
    ANSWERING = "the server answers, up to its END"
    CLOSED = "nothing more is said"


class Shape(NamedTuple):
    """What the conversation of an operation consists of."""

    #: The frames that carry the client's content; where there are none, there is no END of the client either.
    content: tuple[FrameType, ...]
    #: The one type of REPLY, or None; at least and at most so many until the server's END.
    reply: type[m.Reply] | None
    least: int
    most: int
    #: The frames that carry the server's content, or None. DATA never comes before a REPLY.
    answer: FrameType | None


_DATA, _FILES, _COPY = FrameType.DATA, FrameType.FILES, FrameType.COPY
SHAPES: dict[type[m.Open], Shape] = {
    m.List: Shape((), m.Entries, 0, MANY, None),
    m.Stat: Shape((), m.Entries, 1, 1, None),
    m.MakeFile: Shape((), None, 0, 0, None),
    m.MakeDirectory: Shape((), None, 0, 0, None),
    m.Read: Shape((), m.Content, 1, 1, _DATA),
    m.ReadFiles: Shape((), m.Outcome, 0, MANY, _FILES),
    m.Write: Shape((_DATA, _COPY), m.Ready, 0, 1, None),
    m.WriteFiles: Shape((_FILES,), m.Outcome, 0, MANY, None),
    m.Remove: Shape((), m.Removed, 1, 1, None),
    m.Rename: Shape((), None, 0, 0, None),
    m.Hash: Shape((), m.Hashes, 0, MANY, None),
    m.Compress: Shape((), m.Jobs, 1, 1, None),
    m.ListJobs: Shape((), m.Jobs, 0, MANY, None),
    m.GetJob: Shape((), m.Jobs, 1, 1, None),
    m.CancelJob: Shape((), m.Jobs, 1, 1, None),
    m.Manifest: Shape((), m.ManifestPart, 1, MANY, None),
    m.GetChunks: Shape((), m.Chunks, 1, MANY, None),
    m.HashFiles: Shape((), m.Hashes, 0, MANY, None),
    m.Change: Shape((), m.Outcome, 0, MANY, None),
}

#: The frames that carry content: their payload takes credit.
CONTENT = frozenset((_DATA, _FILES, _COPY))
#: What `write` consists of where COPY has nothing to name.
_WITHOUT_BASES = SHAPES[m.Write]._replace(content=(_DATA,))

_C, _S, _T = Role.CLIENT, Role.SERVER, FrameType
#: Whose turn it is: what is not here breaks the protocol. CREDIT is not content and always allowed.
STREAM: dict[StreamState, dict[tuple[Role, FrameType], StreamState]] = {
    StreamState.RESUMING: {
        (_S, _T.REPLY): StreamState.SENDING,
        (_C, _T.RESET): StreamState.CLOSED,
        (_S, _T.RESET): StreamState.CLOSED,
    },
    StreamState.SENDING: {
        (_C, _T.DATA): StreamState.SENDING,
        (_C, _T.FILES): StreamState.SENDING,
        (_C, _T.COPY): StreamState.SENDING,
        (_C, _T.END): StreamState.ANSWERING,
        (_S, _T.REPLY): StreamState.SENDING,
        (_C, _T.RESET): StreamState.CLOSED,
        (_S, _T.RESET): StreamState.CLOSED,
    },
    StreamState.ANSWERING: {
        (_S, _T.REPLY): StreamState.ANSWERING,
        (_S, _T.DATA): StreamState.ANSWERING,
        (_S, _T.FILES): StreamState.ANSWERING,
        (_S, _T.END): StreamState.CLOSED,
        (_C, _T.RESET): StreamState.CLOSED,
        (_S, _T.RESET): StreamState.CLOSED,
    },
    StreamState.CLOSED: {},
}


class Account:
    """Credit of one stream, or of the whole connection: payload bytes of `CONTENT`, both ways."""

    __slots__ = ("_owed", "_window", "receivable", "sendable")

    def __init__(self, window: int, credit: int) -> None:
        self._window = window
        self._owed = 0
        #: What the other side may still send.
        self.receivable = window
        #: What we may still send.
        self.sendable = credit

    def charge(self, size: int) -> None:
        """A frame of `size` bytes comes. Raises `CorruptedResponse` where that is more than was allowed."""
        if size > self.receivable:
            raise CorruptedResponse(f"a frame of {size} bytes, where {self.receivable} were allowed")
        self.receivable -= size

    def add(self, count: int) -> None:
        """CREDIT came. Raises `CorruptedResponse` where it would be more than a window can be."""
        if self.sendable + count > MAX_CREDIT:
            raise CorruptedResponse(f"credit of more than {MAX_CREDIT} bytes")
        self.sendable += count

    def give_back(self, count: int) -> int:
        """So many bytes were dealt with. Returns what is to be said by CREDIT now: 0, or half a window."""
        self._owed += count
        if self._owed * 2 < self._window:
            return 0
        given, self._owed = self._owed, 0
        self.receivable += given
        return given


class Stream(Account):
    """One operation on its way."""

    __slots__ = ("held", "replies", "shape", "state")

    def __init__(self, operation: m.Open, window: int, credit: int) -> None:
        super().__init__(window, credit)
        self.shape = SHAPES[type(operation)]
        self.replies = 0
        #: Payload bytes that came, or will come with the present frame, and were not dealt with.
        self.held = 0
        self.state = StreamState.SENDING if self.shape.content else StreamState.ANSWERING
        if isinstance(operation, m.Write):
            if operation.source is not None:
                self.state = StreamState.RESUMING
            if not operation.bases:
                self.shape = _WITHOUT_BASES

    def step(self, sender: Role, kind: FrameType, reply: type[m.Message] | None = None) -> str | None:
        """Go on by a frame of `sender`; `reply` is the class of a REPLY. Returns what is wrong with it."""
        following = STREAM[self.state].get((sender, kind))
        shape = self.shape
        if following is None:
            return f"{kind.name} of the {sender.value}: it is not its turn"
        if kind is FrameType.REPLY:
            if reply is not shape.reply or self.replies >= shape.most:
                return "a REPLY that does not belong to this operation"
            self.replies += 1
        elif kind in CONTENT:
            if not (kind in shape.content if sender is Role.CLIENT else kind is shape.answer):
                return f"{kind.name} does not belong to this operation"
            if kind is _DATA and self.replies < shape.least:
                return "DATA before its REPLY"
        elif following is StreamState.CLOSED and kind is FrameType.END and self.replies < shape.least:
            return "END without a REPLY"
        self.state = following
        return None
