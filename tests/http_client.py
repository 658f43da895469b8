"""HTTP in memory: bytes into the real site, door and jail, and the answers read strictly.

Nothing here waits. `Connection.turn` lets the peer take what was written and the reactor turn once; a test
that wants time to pass advances `HttpHarness.clock`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fileexport.config import Anonymous
from fileexport.disk.calls import Calls
from fileexport.disk.jail import Jail
from fileexport.exports import Exports
from fileexport.http_bodies import Bodies
from fileexport.http_resource import Mounted, Surroundings
from fileexport.http_rooms import HttpRooms
from fileexport.http_sessions import WRONG_TOKEN_DELAY
from fileexport.paths import RelPath
from fileexport.pools import Worker
from fileexport.token_file import parse_token_file
from fileexport.web.access import Doorkeeper, Policy
from fileexport.web.origin import Names, allowed_names
from fileexport.web.request import Request
from fileexport.web.site import Site
from tests.helpers import Immediate, SlowTransport
from tests.rooms import Rooms

#: The time when every test begins, in seconds since 1970: 15 January 2027.
NOW = 1_800_000_000.0
#: The daemon's own user, and somebody else.
OWN_UID, OTHER_UID = 1000, 1001
#: Turns without a new byte after which an answer counts as stuck.
_PATIENCE = 20


@dataclass(frozen=True)
class Response:
    """One answer. `framing` says how its body was delimited: length, chunked, close or none."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    framing: str

    def fields(self, name: str) -> list[str]:
        """All values of a header field, in order."""
        return [value for field, value in self.headers if field.lower() == name.lower()]

    def field(self, name: str) -> str:
        """The value of a field that must be there exactly once."""
        values = self.fields(name)
        if len(values) != 1:
            raise AssertionError(f"{name} stands {len(values)} times in {self.headers}")
        return values[0]

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode("utf-8")

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Wire(SlowTransport):
    """The server's end of a connection, with the habits of a real transport that StringTransport lacks."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.reading = True
        self.protocol: Any = None
        self.aborted = False

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 54321)

    def write(self, data: bytes) -> None:
        if self.connected:
            super().write(data)

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def abortConnection(self) -> None:
        self.aborted = True
        self._clock.callLater(0, self.end, ConnectionAborted())

    def end(self, reason: Exception) -> None:
        """Tell the server that the connection is gone; what it held back never leaves."""
        if not self.connected:
            return
        self.connected = False
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))


class Connection:
    """The client's end of one connection."""

    def __init__(self, site: Site, clock: Clock) -> None:
        self._clock = clock
        self.wire = Wire(clock)
        self.wire.protocol = self.channel = site.buildProtocol(self.wire.getPeer())
        self._unsent: list[bytes] = []
        self._unread = b""
        self.channel.makeConnection(self.wire)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return not self.wire.connected

    @property
    def aborted(self) -> bool:
        """Whether the server broke the connection instead of closing it."""
        return self.wire.aborted

    def send(self, *pieces: bytes) -> None:
        """Send pieces, each in a segment of its own, as far as the server reads."""
        self._unsent += pieces
        self._deliver()

    def turn(self) -> None:
        """Take what the server wrote, let its reactor turn once, end the connection where it is to end."""
        self.wire.drain()
        self._deliver()
        self._clock.advance(0)
        if self.wire.disconnecting and not self.wire.pending:
            self.wire.end(ConnectionDone())

    def settle(self) -> bytes:
        """Turn until nothing moves any more; everything that came, as it came."""
        idle = 0
        while idle < _PATIENCE and not self.closed:
            idle = 0 if self._read() else idle + 1
            self.turn()
        self._read()
        taken, self._unread = self._unread, b""
        return taken

    def receive(self, *, head: bool = False) -> Response:
        """The next answer, to a HEAD request with `head`. Fails the test where none comes."""
        idle = 0
        while True:
            idle = 0 if self._read() else idle + 1
            found = _parse(self._unread, head=head, closed=self.closed)
            if found is not None:
                response, self._unread = found
                return response
            if self.closed or idle > _PATIENCE:
                raise AssertionError(f"no complete answer, but {self._unread[:300]!r}")
            self.turn()

    def lose(self) -> None:
        """Break the connection from the client's side."""
        self.wire.end(ConnectionLost())

    def _deliver(self) -> None:
        while self._unsent and self.wire.reading and not self.closed:
            self.channel.dataReceived(self._unsent.pop(0))

    def _read(self) -> bool:
        """Take over what was written; whether that was anything."""
        written = self.wire.value()
        self.wire.clear()
        self._unread += written
        return bool(written)


def _parse(data: bytes, *, head: bool, closed: bool) -> tuple[Response, bytes] | None:
    """The first answer in `data` and what follows it; None where it is not complete."""
    top, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return None
    first, *lines = top.decode("latin-1").split("\r\n")
    version, status, reason = first.split(" ", 2)
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise AssertionError(f"this is no status line: {first!r}")
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    framed = _framed(dict((name.lower(), value) for name, value in headers), int(status), head=head)
    body = _body(rest, framed, closed=closed)
    if body is None:
        return None
    kind = "length" if framed.isdigit() else framed
    return Response(int(status), reason, headers, body[0], kind), body[1]


def _framed(headers: Mapping[str, str], status: int, *, head: bool) -> str:
    """How the body is delimited: none, chunked, close, or a number of bytes."""
    if "transfer-encoding" in headers and "content-length" in headers:
        raise AssertionError("both Transfer-Encoding and Content-Length")
    if head or status < 200 or status in (204, 304):
        return "none"
    if "transfer-encoding" in headers:
        return headers["transfer-encoding"]
    return headers.get("content-length", "close")


def _body(rest: bytes, framed: str, *, closed: bool) -> tuple[bytes, bytes] | None:
    if framed == "none":
        return b"", rest
    if framed == "chunked":
        return _chunks(rest)
    if framed == "close":
        return (rest, b"") if closed else None
    length = int(framed)
    return (rest[:length], rest[length:]) if len(rest) >= length else None


def _chunks(rest: bytes) -> tuple[bytes, bytes] | None:
    body = []
    while True:
        line, found, rest = rest.partition(b"\r\n")
        if not found:
            return None
        size = int(line, 16)
        if len(rest) < size + 2:
            return None
        if rest[size : size + 2] != b"\r\n":
            raise AssertionError("a chunk is longer than it says")
        body.append(rest[:size])
        rest = rest[size + 2 :]
        if size == 0:
            return b"".join(body), rest


def encode(method: str, target: str | bytes, headers: Mapping[str, str], body: bytes) -> bytes:
    """A request as bytes; Host and Content-Length are added where they are missing."""
    path = target.encode("ascii") if isinstance(target, str) else target
    fields = {"Host": "localhost"} | ({"Content-Length": str(len(body))} if body else {}) | dict(headers)
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return method.encode() + b" " + path + b" HTTP/1.1\r\n" + lines.encode("latin-1") + b"\r\n" + body


class HttpHarness:
    """A daemon's whole HTTP side over a directory, without a socket and without a thread.

    `local` says whether its listener is loopback, `owner` the user of every peer's socket, `tokens` the text
    of a token file, `public` whether every user may read the root. `worker` stands for all pools; without
    one the work is done at once. `job_worker` carries out jobs and `makers` makes bodies, where those are
    others. `calls` stands between the jail and the disk.
    """

    def __init__(
        self,
        root: Path,
        *,
        dirs: Sequence[str] = (),
        tokens: str = "",
        anonymous: Anonymous = Anonymous.AUTO,
        hidden: bool = False,
        public: bool = True,
        local: bool = True,
        owner: int | None = OWN_UID,
        proxies: Sequence[str] = (),
        banned: Sequence[str] = (),
        hosts: Sequence[str] = (),
        public_origin: str | None = None,
        prefix: str = "",
        max_file: int = 1 << 40,
        worker: Worker | None = None,
        job_worker: Worker | None = None,
        makers: Worker | None = None,
        calls: Calls | None = None,
        mounts: Mapping[str, Mounted] | None = None,
    ) -> None:
        self.clock = Clock()
        self.stops = 0
        #: Method, target and status of every request that the access log would hold.
        self.recorded: list[tuple[str, str, int]] = []
        #: How often the owner of a peer's socket was asked for.
        self.asked = 0
        self._owner = owner
        self._banned = banned
        #: Requests of clients behind a proxy that are under way, by address.
        self.inside: Counter[str] = Counter()
        self._jail = Jail(os.fspath(root), calls=calls, durable=False)
        keeper = Doorkeeper(
            parse_token_file(tokens, "tokens"),
            Policy(anonymous, lambda: OWN_UID, root_is_public=lambda: public, hidden=hidden),
            lambda: self.rooms.sessions,
        )
        around = Surroundings(
            owner=self._owner_of,
            is_proxy=lambda host: host in proxies,
            enter=self._enter,
            stop=self._stop,
            metrics=lambda: (b"text/plain; version=0.0.4", b"metrics"),
            names=Names(allowed_names("box", hosts, None), public_origin),
            prefix=prefix,
            max_file=max_file,
        )
        exports = Exports(self._jail, tuple(map(RelPath.parse, dirs)))
        worker = worker or Immediate()
        bodies = Bodies(self.clock, worker, makers or worker)
        self.rooms = Rooms(self.clock, self._jail, job_worker or worker, prefix)
        http = HttpRooms(self.clock, exports, keeper, worker, bodies, self.rooms, around, mounts or {})
        self.jobs_door, self.door, self.resumable = http.jobs, http.door, http.resumable
        self.forget = http.forget
        self.site = Site(
            self.clock, self.door.serve, record=self._record, now=self._now, reads=self.door.reads
        )
        self.site.local = local

    def get(self, target: str | bytes, headers: Mapping[str, str] | None = None) -> Response:
        """What GET answers."""
        return self.request("GET", target, headers)

    def request(
        self,
        method: str,
        target: str | bytes,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Response:
        """Send one request on a connection of its own and return its answer."""
        connection = self.connect()
        connection.send(encode(method, target, headers or {}, body))
        response = connection.receive(head=method == "HEAD")
        connection.lose()
        return response

    def raw(self, data: bytes) -> bytes:
        """Send these bytes on a connection of their own; all that comes back."""
        connection = self.connect()
        connection.send(data)
        answer = connection.settle()
        connection.lose()
        return answer

    def connect(self) -> Connection:
        """Open a connection."""
        return Connection(self.site, self.clock)

    def close(self) -> None:
        """Break all connections and close the root. No timer may be left then."""
        self.jobs_door.stop()
        self.site.break_all()
        Deferred.fromCoroutine(self.resumable.stop())
        # The answer to a wrong token may still be due.
        self.clock.advance(WRONG_TOKEN_DELAY)
        self.rooms.close()
        self._jail.close()
        if left := self.clock.getDelayedCalls():
            raise AssertionError(f"timers are left: {left}")

    def _now(self) -> float:
        return NOW + self.clock.seconds()

    def _owner_of(self, transport: object) -> int | None:
        self.asked += 1
        return self._owner

    def _enter(self, client: str) -> Callable[[], None] | None:
        if client in self._banned:
            return None
        self.inside[client] += 1
        return lambda: self.inside.subtract([client])

    def _stop(self) -> None:
        self.stops += 1

    def _record(self, request: Request) -> None:
        self.recorded.append(
            (request.method.decode(), request.head.target.decode("latin-1"), int(request.status))
        )


class HttpCase(SynchronousTestCase):
    """Has an empty root, and makes harnesses over it that are closed after the test."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir(parents=True)

    def harness(self, **settings: Any) -> HttpHarness:
        """A daemon's HTTP side over `root`."""
        harness = HttpHarness(self.root, **settings)
        self.addCleanup(harness.close)
        return harness

    def write(self, path: str | bytes, data: bytes = b"", mtime: float = NOW - 1000) -> Path:
        """Make a file below the root, and the directories above it."""
        file = self.root / os.fsdecode(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        os.utime(file, (mtime, mtime))
        return file
