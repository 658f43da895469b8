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

from fileexport.addresses import Address
from fileexport.callback_calls import Caller, is_local
from fileexport.callback_targets import HostPort, Targets
from fileexport.callbacks import Outbox
from fileexport.compression import Compression
from fileexport.disk.contents_cache import ContentsCache
from fileexport.disk.jail import Jail
from fileexport.disk.state import State
from fileexport.disk.uploads_store import UploadsStore
from fileexport.job_views import shown
from fileexport.jobs import Jobs
from fileexport.metrics import CountedCalls, Metrics
from fileexport.pools import Pool
from fileexport.sessions import Sessions
from fileexport.shares import Shares

#: Calls of the database that may wait for its thread.
STATE_WAITING = 1024
#: Names of callbacks' targets that are looked up at a time, and those that may wait for that.
LOOKUPS = 4
LOOKUPS_WAITING = 64


class JobRooms:
    """The queue, the outbox, the sessions and the shares of one daemon, which are there from `open` on."""

    jobs: Jobs
    outbox: Outbox
    sessions: Sessions
    shares: Shares

    def __init__(
        self,
        reactor: Any,
        jail: Jail,
        open_state: Callable[[], State],
        *,
        own: Callable[[], Iterable[tuple[Address, int]]],
        allow: Iterable[HostPort],
        metrics: Metrics,
        prefix: str,
        names: frozenset[str],
    ) -> None:
        """`own` gives address and port of all listeners of ours: nobody is called back there.

        `prefix` stands before our paths where a reverse proxy puts one; `names` are their first ones.
        """
        self._reactor = reactor
        self._jail = jail
        self._open_state = open_state
        self._metrics = metrics
        self._prefix = prefix
        self._own_names = names
        self._names = Pool(reactor, "names", LOOKUPS, LOOKUPS_WAITING)
        self._calls = Caller(reactor, Targets(own, tuple(allow), is_local), self._names)
        self._cores = cores()
        self._ledger = Pool(reactor, "state", 1, STATE_WAITING)
        self._workers = Pool(reactor, "jobs", self._cores, 0)
        self._started = False

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state; may be called in any thread."""
        return {str(state): count for state, count in self._state.counts().items()}

    @property
    def contents(self) -> ContentsCache:
        """What the state remembers of files' contents."""
        return self._state.contents

    @property
    def uploads(self) -> UploadsStore:
        """The uploads that can be resumed."""
        return self._state.uploads

    def open(self) -> None:
        """Open the state, when the process has detached. Raises `StateError`; nothing is open then."""
        self._state = self._open_state()
        self.outbox = Outbox(
            self._reactor,
            self._state,
            self._ledger,
            CountedCalls(self._calls, self._metrics.callback),
            lambda job: shown(job, None, self._prefix, self._own_names),
            now=time.time,
            random=random.SystemRandom(),
        )
        self._compression = Compression(self._jail, self._cores)
        self.jobs = Jobs(
            self._reactor,
            self._state,
            self._compression,
            pool=self._workers,
            disk=self._ledger,
            now=time.time,
            cores=self._cores,
            ended=self.outbox.wake,
        )
        self.jobs.subscribe(self._metrics.job_news)
        self.sessions = Sessions(self._state.access, self._ledger)
        self.shares = Shares(self._state.access, self._ledger)

    def start(self) -> Deferred[None]:
        """Go on with what was left; fires when it is in the queue again, or at a stop."""
        for pool in (self._names, self._ledger, self._workers):
            pool.start()
        self.outbox.start()
        self._started = True
        return self.jobs.start()

    async def stop(self) -> None:
        """Interrupt what runs and put it back in the queue; end the threads, close the state.

        Nobody can interrupt a lookup: it is waited for when all else is closed. Nothing happens where nothing
        was started.
        """
        if not self._started:
            return
        await gatherResults([self.jobs.stop(), self.outbox.stop()])
        await gatherResults([self._workers.stop(), self._ledger.stop()])
        self._compression.close()
        self._state.close()
        await self._names.stop()


def cores() -> int:
    """How many cores this process may use, which can be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
