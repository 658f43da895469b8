"""A server of the transfer protocol on loopback, on a reactor and in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock

from fileexport.disk.jail import Jail
from fileexport.exports import Exports
from fileexport.pools import Pool
from fileexport.token_file import parse_token_file
from fileexport.transfer_desk import Limits
from fileexport.transfer_protocol import TransferFactory
from tests.helpers import Immediate
from tests.rooms import Rooms

T = TypeVar("T")
#: Seconds that anything here may take.
PATIENCE = 30.0


class Loopback:
    """A context manager. `tokens` is the text of a token file."""

    port: int

    def __init__(self, root: Path, tokens: str) -> None:
        self._jail = Jail(str(root))
        self._tokens = parse_token_file(tokens, "tokens")
        self._rooms = Rooms(Clock(), self._jail, Immediate())
        self._reactor = SelectReactor()
        self._pool = Pool(self._reactor, "disk", 4, 64)
        self._thread = threading.Thread(target=self._reactor.run, args=(False,), daemon=True)

    def __enter__(self) -> Loopback:
        self._thread.start()
        self._do(self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = threading.Event()
        self._do(lambda: Deferred.fromCoroutine(self._end()).addBoth(lambda _: stopped.set()))
        if not stopped.wait(PATIENCE):
            raise AssertionError("the server does not stop")
        self._do(self._reactor.stop, waits=False)
        self._thread.join(PATIENCE)
        self._rooms.close()
        self._jail.close()

    def _begin(self) -> None:
        self._pool.start()
        self._factory = TransferFactory(
            self._reactor,
            Exports(self._jail),
            lambda: self._tokens,
            self._pool,
            self._pool,
            self._rooms,
            now=time.time,
            record=lambda finished: None,
            limits=Limits(),
        )
        self._listening = self._reactor.listenTCP(0, self._factory, interface="127.0.0.1")
        self.port = self._listening.getHost().port

    async def _end(self) -> None:
        await self._listening.stopListening()
        drained = self._factory.drain()
        self._factory.break_all()
        await drained
        await self._pool.stop()

    def _do(self, function: Callable[[], T], *, waits: bool = True) -> None:
        """Call a function in the reactor's thread."""
        done = threading.Event()
        failed: list[BaseException] = []

        def call() -> None:
            try:
                function()
            except BaseException as error:
                failed.append(error)
            done.set()

        self._reactor.callFromThread(call)
        if waits and not done.wait(PATIENCE):
            raise AssertionError("the reactor does not turn")
        for error in failed:
            raise error
