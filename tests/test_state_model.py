"""The queue against a model of it: a random walk that both must take alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.schema import AttemptRow, Callback, JobRow, JobState, MessageState, new_job_id
from fileexport.disk.state import KEPT_TIME, OWN_PART, UNDELIVERED_TIME, State
from fileexport.errors import BusyError, ConflictError, FileExportError, QueueFull

#: Few of each, so that they meet.
OWNERS, TARGETS, TEXTS = ("ann", "bob"), ("/a", "/b", "/c", "/d", "/e", "/f"), ("{}", "[]")
KEYS = st.none() | st.sampled_from(("k", "l"))
URLS = st.none() | st.sampled_from(("http://192.0.2.1/", "http://192.0.2.2/"))
ENDS = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
LIMIT = 4


@dataclass
class Job:
    """What the model knows of a job. `undelivered` and `delivered` count messages."""

    id: str
    owner: str
    target: str
    text: str
    state: str = "queued"
    cancelling: bool = False
    ended: float = 0.0
    undelivered: int = 0
    delivered: int = 0

    @property
    def active(self) -> bool:
        """Whether it is queued or runs."""
        return self.state in ("queued", "running")


def asked(job: Job, url: str | None) -> str:
    """The text of a request."""
    return f"{job.target} {job.text} {url}"


class Walk(RuleBasedStateMachine):
    """Everything that may happen to the queue, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 1000.0
        self.directory = tempfile.TemporaryDirectory()
        self.state = self.open()
        self.jobs: list[Job] = []
        self.keys: dict[tuple[str, str], tuple[Job, str]] = {}

    def open(self) -> State:
        """The state, opened."""
        return State(Path(self.directory.name), lambda: self.time)

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.state.close()
        self.directory.cleanup()

    # -- the model

    def expected(
        self, new: Job, key: str | None, url: str | None
    ) -> tuple[Job | None, type[FileExportError] | None]:
        """The job that a request gets, or the error."""
        if key is not None and (known := self.keys.get((new.owner, key))):
            job, request = known
            return (job, None) if request == asked(new, url) else (None, ConflictError)
        for job in self.jobs:
            if job.active and job.target == new.target:
                shared = (job.owner, job.text) == (new.owner, new.text) and not job.cancelling
                return (job, None) if shared else (None, BusyError)
        queued = [job.owner for job in self.jobs if job.state == "queued"]
        own = queued.count(new.owner)
        if len(queued) >= LIMIT or own != len(queued) and own >= LIMIT * OWN_PART:
            return None, QueueFull
        self.jobs.append(new)
        return new, None

    def finish(self, job: Job, state: str) -> None:
        """A job ends."""
        job.state, job.ended, job.cancelling = state, self.time, False

    def some(self, number: int, wanted: Callable[[Job], bool] = lambda job: True) -> Job | None:
        """One of the jobs, if there is any that is wanted."""
        jobs = [job for job in self.jobs if wanted(job)]
        return jobs[number % len(jobs)] if jobs else None

    # -- what happens

    @rule(
        owner=st.sampled_from(OWNERS),
        path=st.sampled_from(TARGETS),
        text=st.sampled_from(TEXTS),
        key=KEYS,
        url=URLS,
    )
    def submit(self, owner: str, path: str, text: str, key: str | None, url: str | None) -> None:
        """Somebody asks for something."""
        row = JobRow(new_job_id(), owner, JobState.QUEUED, text, path, self.time)
        repeated = (owner, key) in self.keys
        new = Job(row.id, owner, path, text)
        job, error = self.expected(new, key, url)
        callback = url and Callback("get", url, "192.0.2.9", False) or None
        try:
            request = asked(new, url)
            found = self.state.add_job(row, callback, key=key, request=request, limit=LIMIT)
        except FileExportError as raised:
            assert type(raised) is error, (raised, error)
            return
        assert job is not None and found.id == job.id, (found, job, error)
        if not repeated:
            job.undelivered += url is not None
            if key is not None:
                self.keys[owner, key] = job, request

    @rule()
    def next_job(self) -> None:
        """There is a place for another job."""
        job = self.some(0, lambda job: job.state == "queued")
        found = self.state.next_job()
        assert (found and found.id) == (job and job.id)
        if job:
            job.state = "running"

    @rule(number=st.integers(0, 9), state=st.sampled_from(ENDS))
    def end(self, number: int, state: JobState) -> None:
        """The work of a job ends, if it runs."""
        if job := self.some(number):
            found = self.state.end_job(job.id, state)
            assert (found is not None) == (job.state == "running")
            if found:
                self.finish(job, state.value)

    @rule(number=st.integers(0, 9))
    def cancel(self, number: int) -> None:
        """Somebody cancels a job."""
        if job := self.some(number):
            assert (self.state.cancel_job(job.id) is not None) == job.active
            if job.state == "queued":
                self.finish(job, "cancelled")
            job.cancelling = job.state == "running"

    @rule(delivered=st.booleans())
    def deliver(self, delivered: bool) -> None:
        """The message that is due first is tried."""
        for message in self.state.due_messages(self.time, 1):
            [job] = [job for job in self.jobs if job.id == message.job]
            attempt = AttemptRow(message.id, self.time, 204 if delivered else None, None, "")
            state = MessageState.DELIVERED if delivered else MessageState.DUE
            assert self.state.attempted(message, attempt, state, None if delivered else self.time)
            job.undelivered -= delivered
            job.delivered += delivered

    @rule(number=st.integers(0, 9))
    def redeliver(self, number: int) -> None:
        """Somebody wants the messages of a job again."""
        if job := self.some(number):
            count = 0 if job.state != "done" else job.undelivered + job.delivered
            assert self.state.redeliver(job.id) == count
            if count:
                job.undelivered, job.delivered = count, 0

    @rule()
    def restart(self) -> None:
        """The daemon starts again."""
        self.state.close()
        self.state = self.open()
        self.state.requeue_running()
        for job in self.jobs:
            if job.state == "running" and job.cancelling:
                self.finish(job, "cancelled")
            elif job.state == "running":
                job.state = "queued"

    @precondition(lambda self: self.jobs)
    @rule(seconds=st.sampled_from((KEPT_TIME / 2, KEPT_TIME + 1, UNDELIVERED_TIME)))
    def prune(self, seconds: float) -> None:
        """Time goes by, and old jobs are forgotten."""
        self.time += seconds

        def stays(job: Job) -> bool:
            age = self.time - job.ended
            return job.active or age <= (UNDELIVERED_TIME if job.undelivered else KEPT_TIME)

        gone = [job for job in self.jobs if not stays(job)]
        assert self.state.prune(self.time) == len(gone)
        self.jobs = [job for job in self.jobs if stays(job)]
        self.keys = {key: known for key, known in self.keys.items() if known[0] not in gone}

    @invariant()
    def alike(self) -> None:
        """The jobs, their states and their messages are the model's."""
        rows = self.state.jobs()[::-1]
        assert [(row.id, row.state, row.cancelling) for row in rows] == [
            (job.id, job.state, job.cancelling) for job in self.jobs
        ]
        for job in self.jobs:
            states = [message.state for message in self.state.messages(job.id)]
            waiting = MessageState.WAITING if job.active else MessageState.DUE
            assert states.count(waiting) == job.undelivered
            assert states.count(MessageState.DELIVERED) == job.delivered
            assert len(states) == job.undelivered + job.delivered


class ModelTests(SynchronousTestCase):
    """The walk."""

    def test_walk(self) -> None:
        """Whatever happens in whatever order, the state is where a simple model of it is."""
        case = Walk.TestCase
        case.settings = settings(max_examples=40, stateful_step_count=30, deadline=None, database=None)
        case().runTest()
