"""Conversations carried on in a reactor: one operation on a link each, and answers that are awaited."""

from __future__ import annotations

import copy
from collections.abc import Generator
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from fileexport.client.answers import judged
from fileexport.client.connection import Wait, no_answer
from fileexport.client.conversations import Ask, Found, Heard, Next
from fileexport.client.deferred.channel import REFUSED
from fileexport.client.deferred.dialing import Place, Switchboard
from fileexport.client.deferred.holding import Inbox
from fileexport.client.deferred.link import Link
from fileexport.client.pool import Tries
from fileexport.errors import OverloadedError
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import Received

T = TypeVar("T")
R = TypeVar("R")


def is_refused(error: BaseException, link: Link) -> bool:
    """Whether an operation was refused for want of places that were given back too early."""
    if type(error) is not OverloadedError or link.dropped_at is None:
        return False
    return bool(link.reactor.seconds() - link.dropped_at < sum(REFUSED))


class Call:
    """One operation on a link; its place is given back when it ends."""

    def __init__(self, place: Place, asked: Ask) -> None:
        self.link = place.link
        self.events = Inbox(self.link.holding)
        self._path = asked.path
        self._first: Data | m.Message | None = None
        self._error: Exception | None = None
        self._waiting: Deferred[None] | None = None
        self._has_place = True
        try:
            self._stream = self.link.open(asked.asked, self)
        except BaseException:
            place.free()
            raise

    # What the link says.

    def heard(self) -> None:
        """Something came."""

    def credited(self) -> None:
        """More may be said; nothing is."""

    def lost(self, error: Exception) -> None:
        """Nothing more comes."""
        self._error = error

    def turn(self) -> None:
        """Who waits looks again. What the server has ended needs no place."""
        if not self.link.session.is_open(self._stream):
            self._leave()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    # What a conversation asks.

    async def peek(self, seconds: float) -> None:
        """Wait for the first answer, which `answer` gives then."""
        self._first = await self.answer(seconds)

    async def answer(self, seconds: float) -> Data | m.Message:
        """The next answer, within this time. Raises what the server ended it with, and as `Link` ends."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        reactor = self.link.reactor
        end = reactor.seconds() + seconds
        while (found := self._next()) is None:
            if self._error is not None:
                raise copy.copy(self._error)
            waiting: Deferred[None] = Deferred()
            self._waiting = waiting
            timer = reactor.callLater(max(end - reactor.seconds(), 0.0), self._expire, seconds)
            try:
                await waiting
            finally:
                self._waiting = None
                if timer.active():
                    timer.cancel()
        return found

    def _next(self) -> Data | m.Message | None:
        found: Data | m.Message | None = None
        while found is None:
            with self.link.lock:
                if not self.events:
                    break
                event = self.events.popleft()
            found = judged(event, self._stream, self._path)
            if isinstance(event, Received) and event.size:
                self.link.consumed(self._stream, event.size)
        return found

    def _expire(self, seconds: float) -> None:
        self.link.suspect()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(no_answer(seconds, self._path))

    @property
    def features(self) -> frozenset[str]:
        """What both sides of the connection named."""
        return self.link.session.features

    def took(self, count: int) -> None:
        """Content was dealt with."""
        self.link.consumed(self._stream, count)

    def end(self) -> None:
        """It is over: cancelled, where the server has not ended it."""
        self._leave()
        with self.link.lock:
            self.events.clear()

    def _leave(self) -> None:
        if self._has_place:
            self._has_place = False
            self.link.give_back(1, dropped=self.link.drop(self._stream))


class Talker(Generic[T, R]):
    """Carries a conversation on. `result` is what it returned in the end."""

    result: R

    def __init__(
        self, board: Switchboard, talk: Generator[Ask | Next | Found[T], Heard, R], wait: Wait
    ) -> None:
        self._board = board
        self._talk = talk
        self._seconds = wait.seconds
        self._step: Ask | Next | Found[T] | None = None
        self._call: Call | None = None

    async def on(self) -> Found[T] | None:
        """Go on until it has found something; None at its end. Raises what it says."""
        try:
            step = next(self._talk) if self._step is None else self._step
            while True:
                step = self._talk.send(await self._hear(step))
                if isinstance(step, Found):
                    self._step = step
                    return step
        except StopIteration as stop:
            self.result = stop.value
            self.end()
            return None
        except BaseException:
            self.end()
            raise

    async def _hear(self, step: Ask | Next | Found[T]) -> Heard:
        """What a step is answered by; the conversation may know better what an error means."""
        try:
            match step:
                case Ask():
                    self._seconds += step.extra
                    self._call = await self._begin(step)
                    return self._call.features
                case Next() if self._call is not None:
                    if step.took:
                        self._call.took(step.took)
                    return await self._call.answer(self._seconds)
            return None
        except Exception as error:
            self._talk.throw(error)
            raise

    async def _begin(self, asked: Ask) -> Call:
        """Begin the operation, on another connection where this one did not: as `Pool.operation` does."""
        tries, pauses = Tries(asked.again), iter(REFUSED)
        while True:
            place = await self._board.place(self._seconds)
            call: Call | None = None
            try:
                call = Call(place, asked)
                await call.peek(self._seconds)
                return call
            except BaseException as error:
                if call is not None:
                    call.end()
                if not tries.has_another(error, place.was_idle):
                    pause = next(pauses, None)
                    if pause is None or not is_refused(error, place.link):
                        raise
                    await deferLater(self._board.reactor, pause)

    def end(self) -> None:
        """Nobody wants to hear more."""
        self._talk.close()
        if self._call is not None:
            self._call.end()


async def converse(talker: Talker[Any, R]) -> R:
    """The result of a conversation."""
    while await talker.on() is not None:
        pass
    return talker.result
