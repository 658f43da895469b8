"""The rooms of jobs for a test of the HTTP door: a real state and queue, opened when a test first asks."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fileexport.callbacks import Outbox
from fileexport.compression import Compression
from fileexport.disk.jail import Jail
from fileexport.disk.state import State
from fileexport.disk.uploads_store import UploadsStore
from fileexport.job_views import shown
from fileexport.jobs import Jobs
from fileexport.pools import Worker
from fileexport.sessions import Sessions
from fileexport.shares import Shares
from tests.helpers import Immediate
from tests.outbox_case import Receivers, Steady


class Rooms:
    """Jobs run in `worker`, and the state is asked at once. `receivers` are all who may be called back."""

    def __init__(self, clock: Clock, jail: Jail, worker: Worker, prefix: str = "") -> None:
        self._clock = clock
        self._jail = jail
        self._worker = worker
        self._prefix = prefix
        self.receivers = Receivers()

    @cached_property
    def _directory(self) -> TemporaryDirectory[str]:
        return TemporaryDirectory()

    @cached_property
    def _state(self) -> State:
        return State(Path(self._directory.name), self._clock.seconds)

    @cached_property
    def outbox(self) -> Outbox:
        """The outbox, started."""
        outbox = Outbox(
            self._clock,
            self._state,
            Immediate(),
            self.receivers,
            lambda job: shown(job, None, self._prefix),
            now=self._clock.seconds,
            random=Steady(),
        )
        outbox.start()
        return outbox

    @cached_property
    def jobs(self) -> Jobs:
        """The queue, started."""
        jobs = Jobs(
            self._clock,
            self._state,
            Compression(self._jail, 0),
            pool=self._worker,
            disk=Immediate(),
            now=self._clock.seconds,
            cores=2,
            ended=lambda: self.outbox.wake(),
        )
        jobs.start()
        return jobs

    @cached_property
    def sessions(self) -> Sessions:
        """Who is signed in."""
        return Sessions(self._state.access, Immediate())

    @cached_property
    def shares(self) -> Shares:
        """What is shared."""
        return Shares(self._state.access, Immediate())

    @property
    def uploads(self) -> UploadsStore:
        """Uploads that can be resumed."""
        return self._state.uploads

    def close(self) -> None:
        """Stop what was started, and throw the state away."""
        stopped: list[Deferred[Any]] = []
        for name in ("jobs", "outbox"):
            if name in vars(self):
                stopped.append(getattr(self, name).stop())
        if not all(one.called for one in stopped):
            raise AssertionError("a job still runs")
        if "_state" in vars(self):
            self._state.close()
        if "_directory" in vars(self):
            self._directory.cleanup()
