"""What the state keeps: for how long, and through a kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from sqlite3 import connect

from fileexport.disk import state as limits
from fileexport.disk.database import DATABASE, Database
from fileexport.disk.schema import MIGRATIONS, AttemptRow, JobRow, JobState, MessageState
from tests.test_state import DAY, HOOK, PING, StateCase, order
from tests.watched import in_child


class TablesTests(StateCase):
    """The tables as they came to be."""

    def test_older(self) -> None:
        """A state of the first version keeps its jobs and gets what was added since."""
        self.state.close()
        for path in self.directory.iterdir():
            path.unlink()
        Database(self.directory, MIGRATIONS[:1]).close()
        connection = connect(self.directory / DATABASE)
        connection.execute(
            "INSERT INTO jobs (id, owner, state, task, target, created) VALUES (?, ?, ?, ?, ?, ?)",
            ("id", "ann", "queued", "{}", b"/a", 1.0),
        )
        connection.commit()
        connection.close()
        self.reopen()
        self.assertEqual(self.found("id"), JobRow("id", "ann", JobState.QUEUED, "{}", "/a", 1.0))
        self.state.contents.add(b"place", b"version", b"data")
        self.state.contents.flush()
        self.reopen()
        self.assertEqual(self.state.contents.get(b"place", b"version"), b"data")


class PruneTests(StateCase):
    """What is forgotten, and what never is."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(limits, "KEPT_JOBS", 3)

    def kept(self) -> list[str]:
        """The targets of all jobs, oldest first."""
        return [row.target for row in self.state.jobs()][::-1]

    def test_old(self) -> None:
        """A job goes a day after its end, with its messages, attempts and keys."""
        row = self.add(order("/a"), PING, key="k")
        self.run_next()
        self.state.end_job(row.id, JobState.DONE, "{}")
        message = self.message(row.id)
        self.state.attempted(message, AttemptRow(message.id, 1.0, 200, None, ""), MessageState.DELIVERED)
        self.assertEqual(self.state.prune(self.time + DAY), 0)
        self.assertEqual(self.state.prune(self.time + DAY + 1), 1)
        self.assertEqual((self.kept(), self.state.messages(row.id)), ([], []))
        self.assertEqual(self.state.attempts(row.id), [])
        self.assertNotEqual(self.add(order("/other"), key="k", request="other").id, row.id)

    def test_many(self) -> None:
        """Of many that ended, also in one moment, the last ones stay, and that without being asked."""
        for target in "abcde":
            self.ended(target, None)
        self.assertEqual(self.kept(), ["c", "d", "e"])
        self.assertEqual(self.state.prune(self.time), 0)

    def test_many_cancelled(self) -> None:
        """Neither do those pile up that are queued and cancelled, again and again; others stay queued."""
        self.add(order("queued"))
        for number in range(9):
            row = self.add(order(f"{number}"))
            cancelled = self.state.cancel_job(row.id)
            assert cancelled is not None
            self.assertEqual(cancelled.state, JobState.CANCELLED)
        self.assertEqual(self.kept(), ["queued", "6", "7", "8"])

    def test_end_is_told(self) -> None:
        """A job that is old when it ends, as the clock was put back, is told of, and forgotten."""
        for target in "abc":
            self.ended(target, None)
        self.time -= 10
        self.assertEqual(self.ended("early", None).state, JobState.DONE)
        self.assertEqual(self.kept(), ["a", "b", "c"])

    def test_unfinished(self) -> None:
        """What is queued or runs is never forgotten, however old or many."""
        for target in "abc":
            self.add(order(target))
        self.run_next()
        self.assertEqual(self.state.prune(self.time + 1000 * DAY), 0)

    def test_undelivered(self) -> None:
        """A job with a message still to be delivered stays, for as long as it may be tried."""
        for target in "abcde":
            self.ended(target, PING if target < "c" else None)
        self.assertEqual(self.kept(), ["a", "b", "c", "d", "e"])
        self.assertEqual(self.state.prune(self.time + 2 * DAY), 3)
        self.assertEqual(self.kept(), ["a", "b"])
        self.assertEqual(self.state.prune(self.time + limits.UNDELIVERED_TIME + 1), 2)


class KillTests(StateCase):
    """A process that is killed while it uses the state."""

    def setUp(self) -> None:
        super().setUp()
        self.state.close()

    def work(self, say: int) -> None:
        """Queue and end jobs, with a line of acknowledgement after each call."""
        self.state = self.open()

        def done(row: JobRow | None) -> None:
            assert row is not None
            os.write(say, f"{row.state.value} {row.id}\n".encode())

        for number in range(10_000):
            row = self.add(order(f"/{number}"), HOOK)
            done(row)
            done(self.state.next_job())
            done(self.state.end_job(row.id, JobState.DONE, "{}"))

    def kill(self, lines: int) -> list[str]:
        """Let a process work until it has acknowledged so much, and kill it; all its lines."""
        hear, say = os.pipe()
        child = os.fork()
        if not child:
            try:
                self.work(say)
            finally:
                os._exit(1)
        os.close(say)
        with open(hear, encoding="ascii") as heard:
            try:
                said = [heard.readline() for _ in range(lines)]
            finally:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            return said + heard.readlines()

    def test_killed(self) -> None:
        """Killed from outside at any moment: what was acknowledged is there, a job and its message as one."""
        order_of_states = [JobState.QUEUED, JobState.RUNNING, JobState.DONE]
        for lines in (1, 2, 3, 10, 30):
            said = self.kill(lines)
            self.state = self.open()
            for state, job in map(str.split, said):
                found = order_of_states.index(self.found(job).state)
                self.assertGreaterEqual(found, order_of_states.index(JobState(state)))
            for row in self.state.jobs():
                waits = self.message(row.id).state is MessageState.WAITING
                self.assertEqual(waits, not row.state.ended, row)
            # The next one meets the targets of this one again.
            self.state.requeue_running()
            for row in self.state.jobs():
                self.state.cancel_job(row.id)
            self.state.close()

    def test_ended_without_warning(self) -> None:
        """A process that ends after a call, without closing anything, loses nothing of it."""
        calls: dict[str, Callable[[], object]] = {
            "add": lambda: self.add(order("/a"), PING),
            "run": lambda: self.state.next_job(),
            "back": lambda: self.state.requeue_running(),
            "again": lambda: self.state.next_job(),
            "end": lambda: self.state.end_job(self.state.jobs()[0].id, JobState.DONE, "{}"),
        }
        for name, expected in zip(calls, ("queued", "running", "queued", "running", "done"), strict=True):

            def run(name: str = name) -> None:
                self.state = self.open()
                calls[name]()

            self.assertEqual(in_child(run), 0)
            self.state = self.open()
            self.assertEqual([row.state.value for row in self.state.jobs()], [expected], name)
            self.state.close()
