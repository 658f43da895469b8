"""The rooms of jobs put together: the state, the queue, what compresses, what calls back.

As `assembly` does for the whole daemon: hands each room what it needs, keeps the order of starting and
stopping, decides nothing.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from fileexport.addresses import Address
from fileexport.callback_calls import Caller, is_local
from fileexport.callback_targets import HostPort, Targets
from fileexport.callbacks import Outbox
from fileexport.compression import Compression
from fileexport.disk.jail import Jail
from fileexport.disk.state import State
from fileexport.errors import FileExportError
from fileexport.job_views import shown
from fileexport.jobs import Jobs
from fileexport.pools import Pool

#: Calls of the database that may wait for its thread.
STATE_WAITING = 1024


class JobRooms:
    """The queue and the outbox of one daemon, which are there from `open` on."""

    jobs: Jobs
    outbox: Outbox
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        jail: Jail,
        open_state: Callable[[], State],
        *,
        own: Callable[[], Iterable[tuple[Address, int]]],
        allow: Iterable[HostPort],
    ) -> None:
        """`own` gives address and port of all listeners of ours: nobody is called back there."""
        self._reactor = reactor
        self._jail = jail
        self._open_state = open_state
        self._calls = Caller(reactor, Targets(own, tuple(allow), is_local))
        self._cores = os.cpu_count() or 1
        self._ledger = Pool(reactor, "state", 1, STATE_WAITING)
        self._workers = Pool(reactor, "jobs", self._cores, 0)
        self._starting: Deferred[None] | None = None

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state; may be called in any thread."""
        return {str(state): count for state, count in self._state.counts().items()}

    def open(self) -> None:
        """Open the state, when the process has detached. Raises `StateError`; nothing is open then."""
        self._state = self._open_state()
        self.outbox = Outbox(
            self._reactor,
            self._state,
            self._ledger,
            self._calls,
            lambda job: shown(job, None),
            now=time.time,
            random=random.SystemRandom(),
        )
        self.jobs = Jobs(
            self._reactor,
            self._state,
            Compression(self._jail, self._cores),
            pool=self._workers,
            disk=self._ledger,
            now=time.time,
            cores=self._cores,
            ended=self.outbox.wake,
        )

    def start(self) -> Deferred[None]:
        """Go on with what was left; fires when it is in the queue again, or cannot be, which is logged."""
        self._ledger.start()
        self._workers.start()
        self.outbox.start()
        self._starting = Deferred.fromCoroutine(self._begin())
        return self._starting

    async def _begin(self) -> None:
        try:
            await self.jobs.start()
        except (OSError, FileExportError):
            self._log.failure("the jobs do not run")

    async def stop(self) -> None:
        """Interrupt what runs and put it back in the queue; end the threads, close the state.

        Nothing happens where nothing was started.
        """
        if self._starting is None:
            return
        # A queue that is about to begin cannot be ended.
        await self._starting
        await gatherResults([self.jobs.stop(), self.outbox.stop()])
        await gatherResults([self._workers.stop(), self._ledger.stop()])
        self._state.close()
