"""What a thread of the bridge takes for a connection of its own: a few streams of a link that all share.

`BridgePool` lends channels to the code of the blocking client, which runs as a `Job`: whatever it waits for,
it can be told that nobody wants its result any more.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from fileexport.client.answers import NotBegun
from fileexport.client.chunks import pause
from fileexport.client.connection import Traffic, Wait
from fileexport.client.deferred.holding import Inbox
from fileexport.client.login import Server
from fileexport.client.operation import Line, Operation
from fileexport.client.pool import Pool
from fileexport.errors import OverloadedError
from fileexport.wire import messages as m
from fileexport.wire.session import Event, LocalProtocolError, Received, State
from fileexport.wire.streams import CONTENT

if TYPE_CHECKING:
    from fileexport.client.deferred.link import Link

#: Bytes of all threads that wait to leave; who has more to say waits for room.
MAX_UNSENT = 1 << 20
#: Streams of one channel that is lent for several operations.
_WIDE = 16
#: Seconds before the next try of what the server refused because it is still at work for what was dropped.
REFUSED = (0.1, 0.2, 0.5, 1.0, 2.0)
_CREDIT = Received(0, m.MoreCredit(1))
_threads = threading.local()


class Abandoned(BaseException):
    """Nobody waits for this any more."""


class Job:
    """A call of the blocking client in a thread. Its `bell` has the lock that all of its client share."""

    def __init__(self, lock: threading.RLock) -> None:
        self.bell = threading.Condition(lock)
        self.is_cancelled = False
        self.channels: set[Channel] = set()

    @staticmethod
    def current() -> Job:
        """The one of this thread."""
        job: Job = _threads.job
        return job

    def begin(self) -> None:
        """It is this thread's from now on."""
        _threads.job = self

    def cancel(self) -> None:
        """Its streams end now; the thread is told at its next wait."""
        with self.bell:
            self.is_cancelled = True
            self.bell.notify_all()
            for channel in tuple(self.channels):
                channel.forget()

    def wait(self, seconds: float | None = None) -> None:
        """Until the bell rings, or the time is over; the lock is held. Raises `Abandoned`."""
        self.check()
        self.bell.wait(seconds)
        self.check()

    def check(self) -> None:
        """Raises `Abandoned` where nobody wants it any more."""
        if self.is_cancelled:
            raise Abandoned

    def pause(self, seconds: float) -> None:
        """Sleep. Raises `Abandoned`."""
        end = time.monotonic() + seconds
        with self.bell:
            while (left := end - time.monotonic()) > 0:
                self.wait(left)


class Channel:
    """Some streams of a link, as a `Line` and its own `Streams`.

    The other threads of the link take their turns meanwhile: what was possible when it was looked at may not
    be any more when it is done, and is waited for then.
    """

    can_send_file = False
    is_ours = True

    def __init__(self, link: Link) -> None:
        self.events = Inbox(link.holding)
        self.path: str | None = None
        self.is_sound = True
        self.is_leaving = False
        self.generation = 0
        self._link = link
        self._places = 1
        self._mine: set[int] = set()
        self._error: Exception | None = None
        self._has_credit = False
        self._wait = Wait()
        #: Whose thread waits for something.
        self._waiting: Job | None = None
        #: Who holds it, and ends it when it is cancelled.
        self._job = Job.current()
        self._job.channels.add(self)

    @property
    def session(self) -> Channel:
        """Its own streams."""
        return self

    # What the link says, with the lock held.

    def heard(self) -> None:
        """Something came."""
        self._ring()

    def credited(self) -> None:
        """More may be said."""
        self._has_credit = True
        self._ring()

    def lost(self, error: Exception) -> None:
        """Nothing more comes."""
        self._error = error
        self._ring()

    def turn(self) -> None:
        """Threads were told already."""

    def _ring(self) -> None:
        if self._waiting is not None:
            self._waiting.bell.notify_all()

    # Line.

    @property
    def has_events(self) -> bool:
        """Whether `event` has something without waiting."""
        return bool(self.events)

    def event(self, wait: Wait) -> Event:
        """The next event. Raises `TimeoutError`, and as the link ends."""
        self.is_sound = False
        with self._link.lock:
            while not self.events:
                if self._has_credit:
                    self._has_credit = False
                    self.is_sound = True
                    return _CREDIT
                if self._error is not None:
                    raise copy.copy(self._error)
                self._wait_for(wait)
            found = self.events.popleft()
        self.is_sound = True
        return found

    def _wait_for(self, wait: Wait) -> None:
        """Wait until something may have changed."""
        self._waiting = job = Job.current()
        try:
            job.wait(wait.left())
        except TimeoutError:
            self._link.reactor.callFromThread(self._link.suspect)
            raise
        finally:
            self._waiting = None

    def absorb(self) -> None:
        """What has come is here already."""

    def flush(self, wait: Wait) -> None:
        """What was said leaves by itself."""
        self._wait = wait

    def send_content(
        self, stream: int, content: bytes | memoryview, wait: Wait, compressed: bool = False
    ) -> None:
        """Say one DATA frame, when there is room; it is dropped where the stream has ended."""
        self.is_sound = False
        with self._link.lock:
            self._wait_for_room(stream, wait)
            while self.is_open(stream) and self._link.session.credit(stream) < len(content):
                self._wait_for(wait)
            self._link.say_content(stream, bytes(content), compressed)
        wait.begin()
        self.is_sound = True

    def _wait_for_room(self, stream: int, wait: Wait) -> None:
        """Wait while too much has not left; what does leave is progress."""
        Job.current().check()
        while self.is_open(stream) and (before := self._link.unsent) >= MAX_UNSENT:
            self._wait_for(wait)
            if self._link.unsent < before:
                wait.begin()

    def send_file(self, stream: int, descriptor: int, offset: int, size: int, wait: Wait) -> bool:
        """Never called: `can_send_file` is false."""
        raise LocalProtocolError("a link carries no files")

    def has_died(self) -> bool:
        """Whether nothing can be begun on it."""
        return self._error is not None

    def close(self) -> None:
        """End what is under way on it, and give back its places."""
        self.forget()

    def forget(self) -> None:
        """The same."""
        with self._link.lock:
            mine, self._mine = self._mine, set()
            places, self._places = self._places, 0
            self._job.channels.discard(self)
        dropped = sum([self._link.drop(stream) for stream in mine])
        with self._link.lock:
            self.events.clear()
        if places:
            self._link.give_back(places, min(dropped, places))

    def widen(self) -> None:
        """Take more places, as far as they are free."""
        with self._link.lock:
            more = max(min(self._link.places, _WIDE - 1), 0)
            self._link.places -= more
            self._places += more

    # Streams.

    @property
    def peer(self) -> m.Hello | None:
        """What the server takes; of streams, those that are ours."""
        peer = self._link.session.peer
        if peer is None:
            return None
        limits = msgspec.structs.replace(peer.limits, streams=max(self._places, 1))
        return msgspec.structs.replace(peer, limits=limits)

    @property
    def features(self) -> frozenset[str]:
        """What both sides named."""
        return self._link.session.features

    @property
    def state(self) -> State:
        """Whether something may be begun."""
        return State.LEAVING if self._link.is_leaving else self._link.session.state

    @property
    def streams(self) -> int:
        """How many of ours are open."""
        return sum(map(self.is_open, self._mine))

    def open(self, operation: m.Open) -> int:
        """Begin an operation."""
        with self._link.lock:
            Job.current().check()
            if self._link.is_leaving and self._link.error is None:
                raise NotBegun("the server is stopping")
            number = self._link.open(operation, self)
            self._mine.add(number)
        return number

    def send(self, message: m.Message, stream: int = 0) -> None:
        """Say a message; one with content when there is credit for it. Dropped where the stream has ended."""
        has_content = message.frame in CONTENT
        with self._link.lock:
            if has_content:
                self._wait_for_room(stream, self._wait)
            while True:
                try:
                    self._link.say(message, stream)
                    return
                except LocalProtocolError:
                    if not has_content:
                        raise
                # Others took the credit that was there.
                self._wait_for(self._wait)

    def credit(self, stream: int) -> int:
        """What may be said; nothing where the link has ended."""
        with self._link.lock:
            return self._link.session.credit(stream) if self._error is None else 0

    def consumed(self, stream: int, count: int) -> None:
        """Content was dealt with."""
        self._link.consumed(stream, count)

    def reset(self, stream: int) -> None:
        """End a stream."""
        self._link.drop(stream)

    def is_open(self, stream: int) -> bool:
        """Whether something may still be said on a stream."""
        return self._error is None and self._link.session.is_open(stream)


class BridgePool(Pool):
    """Lends channels of the link. `take` gives it, with a place on it, and whether it had been idle."""

    def __init__(self, server: Server, traffic: Traffic, take: Callable[[float], tuple[Link, bool]]) -> None:
        super().__init__(server)
        self.traffic = traffic
        self._take_place = take

    @contextmanager
    def connection(self, wait: Wait) -> Iterator[Line]:
        """Lend a channel for several operations at once."""
        channel, _ = self._take(wait)
        channel.widen()
        try:
            yield channel
        finally:
            channel.forget()

    def _take(self, wait: Wait) -> tuple[Channel, bool]:
        link, was_idle = self._take_place(wait.seconds)
        wait.begin()
        return Channel(link), was_idle

    def _begin(self, asked: m.Open, wait: Wait, path: str | None, again: bool, answered: bool) -> Operation:
        """As the blocking client; and again where the server is still at work for what was dropped."""
        for seconds in REFUSED:
            try:
                return super()._begin(asked, wait, path, again, answered)
            except OverloadedError as error:
                if type(error) is not OverloadedError:
                    raise
                pause(seconds)
        return super()._begin(asked, wait, path, again, answered)

    def _keep(self, connection: Line) -> bool:
        return False
