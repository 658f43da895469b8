"""The connections of one client: one for each operation in progress, and the idle ones for the next."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from fileexport.client.answers import NotBegun
from fileexport.client.connection import Traffic, Wait
from fileexport.client.conversations import Ask, Found, Heard, Next, Tale, Talk
from fileexport.client.login import Server
from fileexport.client.operation import Line, Operation
from fileexport.errors import CorruptedResponse
from fileexport.wire import messages as m

#: Idle connections that are kept.
_MAX_IDLE = 4
#: Servers that go away before they begin what was asked, one after the other: more are no accident.
_TRIES = 3
#: Milliseconds that the cancelling of an operation may take; otherwise its connection is dropped.
_CANCEL = 1000


T = TypeVar("T")
R = TypeVar("R")


class Tries:
    """How often an operation is begun; `again`: it changes nothing."""

    def __init__(self, again: bool) -> None:
        self._again = again
        self._lost = 0

    def has_another(self, error: BaseException, was_idle: bool) -> bool:
        """Whether it may be begun once more, after this on a connection that had been idle, or not."""
        if isinstance(error, NotBegun):
            self._lost += 1
            if self._lost < _TRIES:
                return True
        return self._again and was_idle and isinstance(error, ConnectionError)


class Pool:
    """Lends connections to operations. Threads may share it; after a fork, the child begins with none."""

    def __init__(self, server: Server) -> None:
        self.server = server
        #: What all its connections sent and received.
        self.traffic = Traffic()
        #: Who is collected as garbage may give its connection back in the midst of this.
        self._lock = threading.RLock()
        self._idle: list[Line] = []
        #: How often it was closed: what was lent before is not kept.
        self._generation = 0

    @contextmanager
    def operation(
        self,
        asked: m.Open,
        wait: Wait,
        *,
        path: str | None = None,
        again: bool = False,
        answered: bool = True,
    ) -> Iterator[Operation]:
        """Begin `asked`, on a connection that is there or a new one; with `answered`, wait for an answer.

        An operation that the server did not begin is begun again elsewhere; with `again`, because it
        changes nothing, also one whose connection had been idle and broke before the first answer. Left by
        an exception, the operation is cancelled, and the pool is ready for the next one. `path` is what
        exceptions name.
        """
        operation = self._begin(asked, wait, path, again, answered)
        try:
            yield operation
        except BaseException as error:
            self._end(operation, error)
            raise
        self._end(operation, None)

    def converse(self, talk: Talk[T], wait: Wait) -> T:
        """Carry a conversation on to its result."""
        steps: Generator[Found[object], None, T] = self._carry_on(talk, wait)
        try:
            while True:
                next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def iterate(self, tale: Tale[T], wait: Wait) -> Iterator[T]:
        """What a conversation tells of, one after the other."""
        for found in self._carry_on(tale, wait):
            yield from found.items

    def _carry_on(
        self, talk: Generator[Ask | Next | Found[T], Heard, R], wait: Wait
    ) -> Generator[Found[T], None, R]:
        asked = next(talk)
        assert isinstance(asked, Ask)
        wait.allow(asked.extra)
        try:
            with self.operation(asked.asked, wait, path=asked.path, again=asked.again) as operation:
                heard: Heard = operation.session.features
                while True:
                    try:
                        step = talk.send(heard)
                    except StopIteration as stop:
                        result: R = stop.value
                        return result
                    if isinstance(step, Found):
                        yield step
                        heard = None
                    elif isinstance(step, Next):
                        if step.took:
                            operation.consumed(step.took)
                        heard = operation.answer()
        except Exception as error:
            # It may know better what that means. What it raised itself, it only raises again.
            talk.throw(error)
            raise

    def largest_data(self, wait: Wait) -> int:
        """The longest DATA that the server takes, in bytes."""
        connection, _ = self._take(wait)
        peer = connection.session.peer
        if not self._keep(connection):
            connection.close()
        return peer.limits.data if peer is not None else 0

    @contextmanager
    def connection(self, wait: Wait) -> Iterator[Line]:
        """Lend a connection for several operations at once; it goes on only where all of them have ended."""
        connection, _ = self._take(wait)
        is_done = False
        try:
            yield connection
            is_done = connection.is_sound and not connection.session.streams
        finally:
            if not (is_done and not connection.is_leaving and self._keep(connection)):
                connection.forget()

    def close(self) -> None:
        """Close the idle connections; those in use close when they are done."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._generation += 1
        for connection in idle:
            connection.close()

    def _begin(self, asked: m.Open, wait: Wait, path: str | None, again: bool, answered: bool) -> Operation:
        tries = Tries(again)
        while True:
            connection, was_idle = self._take(wait)
            operation = None
            try:
                operation = Operation(connection, asked, wait, path)
                if answered:
                    operation.peek()
                return operation
            except BaseException as error:
                self._drop(connection, operation, error)
                if not tries.has_another(error, was_idle):
                    raise

    def _take(self, wait: Wait) -> tuple[Line, bool]:
        wait.begin()
        generation = self._generation
        while (connection := self._pop()) is not None:
            # After a fork the child finds those of its parent: for it, they have died.
            if not connection.has_died():
                connection.generation = generation
                return connection, True
            connection.forget()
        made = self.server.enter(wait, self.traffic)
        made.generation = generation
        return made, False

    def _pop(self) -> Line | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _drop(self, connection: Line, operation: Operation | None, error: BaseException) -> None:
        if operation is None:
            connection.forget()
        else:
            self._end(operation, error)

    def _end(self, operation: Operation, error: BaseException | None) -> None:
        """Take a connection back, or close it where it is not known how far both sides are."""
        connection = operation.connection
        # A signal may come between any two steps of ours, also inside the session.
        is_known = error is None or isinstance(error, Exception | GeneratorExit) or operation.is_over
        if (
            not connection.is_sound
            or not connection.is_ours
            or not is_known
            or isinstance(error, CorruptedResponse)
        ):
            connection.forget()
            return
        with suppress(Exception):
            if not operation.is_over:
                operation.wait = Wait(_CANCEL)
                operation.cancel()
        if connection.is_sound and operation.is_over and not connection.is_leaving and self._keep(connection):
            return
        connection.close()

    def _keep(self, connection: Line) -> bool:
        with self._lock:
            is_wanted = connection.is_ours and connection.generation == self._generation
            if not is_wanted or len(self._idle) >= _MAX_IDLE:
                return False
            self._idle.append(connection)
            return True
