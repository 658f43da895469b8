"""An outbox on a real state, in memory otherwise: the clock and the receivers are the test's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from fileexport.callback_calls import Answer
from fileexport.callback_targets import Asker, Target
from fileexport.callbacks import Outbox
from fileexport.disk.schema import Callback, JobRow, JobState, MessageState, new_job_id
from fileexport.disk.state import State
from tests.helpers import Immediate

P = ParamSpec("P")
T = TypeVar("T")

#: 2026-11-21, 22:13:20 UTC.
NOW = 1_795_299_200.0
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
URL = "http://127.0.0.1:9010/ping?id=A1B2C3"
FIN = Answer(200, "OK", "fin")
BUSY = Answer(503, "Service Unavailable", "busy")


class Steady:
    """A random number generator whose every number is the middle."""

    def uniform(self, a: float, b: float, /) -> float:
        return (a + b) / 2


class Call:
    """One call that was made."""

    def __init__(self, target: Target, asker: Asker, fields: Mapping[str, str], body: bytes | None) -> None:
        self.target = target
        self.asker = asker
        self.fields = fields
        self.body = body
        self.answer: Deferred[Answer] = Deferred()


class Receivers:
    """Everybody who may be called: keeps the calls, and answers them when the test does, or by `script`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.script: list[Answer | Exception] = []
        self.checked: list[Target] = []

    async def check(self, target: Target, asker: Asker) -> None:
        self.checked.append(target)

    async def call(
        self, target: Target, asker: Asker, fields: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        call = Call(target, asker, fields, body)
        self.calls.append(call)
        if self.script:
            scripted = self.script.pop(0)
            if isinstance(scripted, Exception):
                raise scripted
            return scripted
        return await call.answer


class Trouble(Immediate):
    """A worker that can refuse its work."""

    error: Exception | None = None
    refused = 0

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        if self.error is not None:
            self.refused += 1
            return fail(self.error)
        return execute(function, *args, **kwargs)


def shown(job: JobRow) -> dict[str, object]:
    """A job as its owner sees it."""
    return {"id": job.id, "state": job.state, "target": job.target}


class OutboxCase(SynchronousTestCase):
    """An outbox on a real state, with a clock and receivers of the test's own."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.directory = Path(self.mktemp())
        self.directory.mkdir(mode=0o700)
        self.state = State(self.directory, self.clock.seconds)
        self.addCleanup(self.close)
        self.disk = Trouble()
        self.receivers = Receivers()
        self.outbox = self.new_outbox()
        self.outbox.start()
        self.lines: list[tuple[LogLevel, str]] = []
        observer = cast(ILogObserver, self.observe)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def close(self) -> None:
        """Stop, with nothing left behind."""
        self.successResultOf(self.outbox.stop())
        self.state.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def observe(self, event: dict[str, Any]) -> None:
        """Keep a line of the log."""
        if str(event.get("log_namespace")).startswith("fileexport"):
            self.lines.append((event["log_level"], formatEvent(event)))

    def new_outbox(self) -> Outbox:
        """An outbox that was not started."""
        return Outbox(
            self.clock,
            self.state,
            self.disk,
            self.receivers,
            shown,
            now=self.clock.seconds,
            random=Steady(),
        )

    def restart(self) -> None:
        """Stop and begin again from what is on the disk."""
        self.successResultOf(self.outbox.stop())
        self.state.close()
        self.state = State(self.directory, self.clock.seconds)
        self.outbox = self.new_outbox()
        self.outbox.start()

    def end_job(
        self, *urls: str, kind: str = "get", state: JobState = JobState.DONE, wake: bool = True
    ) -> str:
        """Have a job that has ended and calls back, by one URL or several; its id."""
        target = f"/{self.state.counts()}.tgz"
        row = JobRow(new_job_id(), "ada", JobState.QUEUED, "{}", target, self.clock.seconds())
        secret = SECRET if kind == "webhook" else None
        for url in urls or (URL,):
            self.state.add_job(row, Callback(kind, url, "127.0.0.1", True, secret), limit=64)
        self.state.next_job()
        self.state.end_job(row.id, state)
        if wake:
            self.outbox.wake()
        return row.id

    def fate(self, job: str) -> MessageState:
        """What became of a job's message."""
        [message] = self.state.messages(job)
        return message.state

    def places(self) -> list[str]:
        """Where the calls went, in order."""
        return [call.target.place for call in self.receivers.calls]
