"""A process is killed at each step of SQLite, and in the middle of its writes, in the life of one job."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.database import DATABASE, Database
from fileexport.disk.schema import AttemptRow, JobState, MessageState
from fileexport.disk.state import State
from tests.proof.counts import SOAK, Tally
from tests.proof.disk_model import KILLED
from tests.test_state import HOOK, order
from tests.watched import in_child

#: Of SQLite's steps, every so many; and bytes between two places of its log: a page has 4096, and a head.
STEPS = 1 if SOAK else 17
BYTES = 97 if SOAK else 1801
JOB = order("/a")
NOW = 2000.0

_TALLY = Tally("kill points of the state")


def life(state: State) -> tuple[Callable[[], object], ...]:
    """What happens to a job: asked for, begun, ended, its message refused and delivered."""

    def attempted(status: int | None, fate: MessageState, due: float | None = None) -> None:
        [message] = state.messages(JOB.id)
        state.attempted(message, AttemptRow(message.id, NOW, status, None, ""), fate, due)

    return (
        lambda: state.add_job(JOB, HOOK, key="k", request="r", limit=3),
        lambda: state.next_job(),
        lambda: state.end_job(JOB.id, JobState.DONE, "{}"),
        lambda: attempted(503, MessageState.DUE, NOW + 5),
        lambda: attempted(200, MessageState.DELIVERED),
    )


def picture(state: State) -> tuple[object, ...]:
    """All that the state holds of the job but the message's id, which is made by chance."""
    messages = [(message.state, message.attempts, message.due) for message in state.messages(JOB.id)]
    attempts = [(attempt.at, attempt.status) for attempt in state.attempts(JOB.id)]
    return state.jobs(), state.job_by_key(JOB.owner, "k", "r"), messages, attempts


class StateKillTests(SynchronousTestCase):
    """Each call is all or nothing: no order without its key and message, no end without its due message."""

    def setUp(self) -> None:
        self.empty = Path(self.mktemp())
        self.empty.mkdir()
        self.open(self.empty).close()
        self.directory = Path(self.mktemp())
        #: What there may be, before the first call and after each.
        self.pictures: list[tuple[object, ...]] = []
        #: SQLite's steps of that life, and the bytes that its log had in the end.
        self.steps = self.bytes = 0
        self.rehearse()

    def open(self, directory: Path) -> State:
        return State(directory, lambda: NOW)

    def renew(self) -> None:
        """Have an empty state in the directory."""
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.copytree(self.empty, self.directory)

    def live(self, say: Callable[[], object], before_step: Callable[[], None]) -> State:
        """Live from an empty state; `before_step` is called before each step of SQLite."""
        connections: list[sqlite3.Connection] = []
        connect = sqlite3.connect

        def connect_and_tell(*arguments: Any, **keywords: Any) -> sqlite3.Connection:
            connections.append(connect(*arguments, **keywords))
            return connections[-1]

        with patch.object(sqlite3, "connect", connect_and_tell):
            state = self.open(self.directory)
        connections[0].set_progress_handler(before_step, 1)
        for call in life(state):
            call()
            say()
        connections[0].set_progress_handler(None, 1)
        return state

    def rehearse(self) -> None:
        """Live without being killed, and keep what there was on the way."""

        def count() -> None:
            self.steps += 1

        self.renew()
        state = self.open(self.directory)
        self.pictures = [picture(state)]
        for call in life(state):
            call()
            self.pictures.append(picture(state))
        state.close()
        self.renew()
        state = self.live(lambda: None, count)
        self.bytes = self.directory.joinpath(f"{DATABASE}-wal").stat().st_size
        state.close()

    def die(self, before: Callable[[], object], before_step: Callable[[], None], status: int) -> int:
        """Live in a process that dies so; how many calls had come back."""
        self.renew()
        reading, writing = os.pipe()

        def run() -> None:
            before()
            self.live(lambda: os.write(writing, b"."), before_step)

        try:
            self.assertEqual(in_child(run), status)
        finally:
            os.close(writing)
            with open(reading, "rb") as pipe:
                said = pipe.read()
        return len(said)

    def check(self, said: int, where: str) -> None:
        """What was said to be done is there, and of the next call all or nothing; it goes on from there."""
        state = self.open(self.directory)
        try:
            found = picture(state)
            self.assertIn(found, self.pictures[said : said + 2], where)
            for call in life(state)[self.pictures.index(found) :]:
                call()
            self.assertEqual(picture(state), self.pictures[-1], where)
        finally:
            state.close()

    def test_pictures(self) -> None:
        """Every call changes something: without that the proof would be void."""
        self.assertEqual(len(set(map(repr, self.pictures))), len(self.pictures))

    def test_steps(self) -> None:
        """Killed before each step of SQLite's machine."""
        _TALLY.add(self.check_steps(), "steps")

    def test_control(self) -> None:
        """A state that keeps each statement by itself is found out: without that the proof would be void."""
        self.patch(Database, "transaction", Database.reading)
        error = self.assertRaises(self.failureException, self.check_steps)
        self.assertRegex(str(error), r"^step \d+$")

    def check_steps(self) -> int:
        """Die before each step, and look; how many there were."""
        numbers = range(1, self.steps + 1, STEPS)
        for number in numbers:
            left = number

            def count_down() -> None:
                nonlocal left
                left -= 1
                if not left:
                    os._exit(KILLED)

            self.check(self.die(lambda: None, count_down, KILLED), f"step {number}")
        return len(numbers)

    def test_writes(self) -> None:
        """Killed by the kernel when the log has so many bytes, most times in the middle of a page."""
        for limit in range(0, self.bytes, BYTES):

            def forbid_more(limit: int = limit) -> None:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)

            self.check(self.die(forbid_more, lambda: None, -signal.SIGXFSZ), f"byte {limit}")
            _TALLY.add(1, "writes")
