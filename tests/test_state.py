"""What survives a kill: jobs, messages, attempts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk import state as limits
from fileexport.disk.schema import (
    AttemptRow,
    Callback,
    JobRow,
    JobState,
    MessageRow,
    MessageState,
    new_job_id,
)
from fileexport.disk.state import State
from fileexport.errors import BusyError, ConflictError, QueueFull

DAY = 24 * 3600.0
PING = Callback("get", "http://192.0.2.7:9010/ping?id=A1", "192.0.2.7", False)
HOOK = Callback("webhook", "https://192.0.2.7/hook", "192.0.2.7", True, "whsec_c2VjcmV0")


def order(target: str, *, owner: str = "ann", text: str = "") -> JobRow:
    """A new job."""
    text = text or f'{{"target":"{target}"}}'
    return JobRow(new_job_id(), owner, JobState.QUEUED, text, target, 1000.0)


class StateCase(SynchronousTestCase):
    """Has an empty state, at the time 2000, that takes three queued jobs."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.time = 2000.0
        self.state = self.open()
        self.addCleanup(lambda: self.state.close())

    def open(self) -> State:
        """The state, opened."""
        return State(self.directory, lambda: self.time)

    def reopen(self) -> None:
        """Close the state and open it again."""
        self.state.close()
        self.state = self.open()

    def add(
        self, row: JobRow, callback: Callback | None = None, *, key: str | None = None, request: str = "r"
    ) -> JobRow:
        """Queue a job."""
        return self.state.add_job(row, callback, key=key, request=request, limit=3)

    def found(self, job: str) -> JobRow:
        """The job, which must be there."""
        row = self.state.job(job)
        assert row is not None
        return row

    def run_next(self) -> JobRow:
        """Let the oldest queued job run."""
        row = self.state.next_job()
        assert row is not None
        return row

    def message(self, job: str) -> MessageRow:
        """The one message of a job."""
        [message] = self.state.messages(job)
        return message

    def ended(self, target: str = "/a", callback: Callback | None = PING) -> JobRow:
        """A job that is done."""
        self.add(order(target), callback)
        row = self.state.end_job(self.run_next().id, JobState.DONE, "{}")
        assert row is not None
        return row


class JobTests(StateCase):
    """From the queue to the end."""

    def test_life(self) -> None:
        """A job is queued, runs and ends; each call gives it as it is then, and so does `job`, also later."""
        row = self.add(order("/a"), key="key-1")
        self.assertEqual((len(row.id), self.found(row.id)), (22, row))
        running = self.run_next()
        self.assertEqual(running, replace(row, state=JobState.RUNNING, started=2000.0))
        self.assertEqual(self.found(row.id), running)
        self.time = 2010.0
        done = self.state.end_job(row.id, JobState.DONE, '{"size":5}')
        self.assertEqual(done, replace(running, state=JobState.DONE, ended=2010.0, result='{"size":5}'))
        self.reopen()
        self.assertEqual(self.found(row.id), done)

    def test_failed(self) -> None:
        """A failed job has the sentence that says why."""
        row = self.add(order("/a"))
        self.run_next()
        self.state.end_job(row.id, JobState.FAILED, error="the disk is full")
        self.assertEqual((self.found(row.id).state, self.found(row.id).error), ("failed", "the disk is full"))

    def test_order(self) -> None:
        """The oldest queued job runs first; when none is queued there is no next one."""
        rows = [self.add(order(target)) for target in ("/c", "/a", "/b")]
        self.assertEqual([self.run_next().id for _ in rows], [row.id for row in rows])
        self.assertIsNone(self.state.next_job())

    def test_one_end(self) -> None:
        """A job ends once: what comes second changes nothing, and neither does the end of what never ran."""
        row = self.add(order("/a"))
        self.assertIsNone(self.state.end_job(row.id, JobState.DONE, "{}"))
        self.assertEqual(self.found(row.id), row)
        self.run_next()
        done = self.state.end_job(row.id, JobState.DONE, "{}")
        self.assertIsNone(self.state.end_job(row.id, JobState.FAILED, error="no"))
        self.assertIsNone(self.state.cancel_job(row.id))
        self.assertEqual(self.found(row.id), done)
        for call in (self.state.job, self.state.cancel_job):
            self.assertIsNone(call("missing"))
        self.assertIsNone(self.state.end_job("missing", JobState.DONE))
        self.assertRaises(ValueError, self.state.end_job, row.id, JobState.QUEUED)

    def test_cancel(self) -> None:
        """A queued job is cancelled at once; a running one is marked, and ends as its work says."""
        queued, runs = order("/b"), order("/a")
        self.add(runs)
        self.run_next()
        self.add(queued)
        cancelled = self.state.cancel_job(queued.id)
        self.assertEqual(cancelled, replace(queued, state=JobState.CANCELLED, ended=2000.0))
        for _ in range(2):
            marked = self.state.cancel_job(runs.id)
            assert marked is not None
            self.assertEqual((marked.state, marked.cancelling), (JobState.RUNNING, True))
        done = self.state.end_job(runs.id, JobState.DONE, "{}")
        assert done is not None
        self.assertEqual((done.state, done.cancelling), (JobState.DONE, False))

    def test_requeue(self) -> None:
        """What ran goes back to its place in the queue; what was marked as cancelling is cancelled."""
        first, second, third = [self.add(order(target), PING) for target in ("/a", "/b", "/c")]
        self.run_next(), self.run_next()
        self.state.cancel_job(first.id)
        self.reopen()
        self.assertEqual(self.state.requeue_running(), 1)
        self.assertEqual(self.found(first.id).state, JobState.CANCELLED)
        self.assertEqual(self.message(first.id).state, MessageState.DUE)
        self.assertEqual(self.found(second.id), second)
        self.assertEqual([self.run_next().id for _ in range(2)], [second.id, third.id])
        self.assertEqual(self.state.requeue_running(), 2)

    def test_names(self) -> None:
        """A target is any name that a file system can hold, and texts are any text."""
        row = self.add(order("/d\udcff/ä☃'\"", text='{"ä":"\\udcff"}', owner="jö"))
        self.reopen()
        self.assertEqual(self.found(row.id), row)
        self.assertRaises(BusyError, self.add, order(row.target))

    def test_listing(self) -> None:
        """The newest come first, of one owner or of all, and so many of them."""
        names = []
        for number in range(6):
            row = self.add(order(f"/{number}", owner=("ann", "bob")[number % 2]))
            names.append(row.id)
            self.state.cancel_job(row.id)
        listed = self.state.jobs
        self.assertEqual([row.id for row in listed()], names[::-1])
        self.assertEqual([row.id for row in listed("bob")], names[::-2])
        self.assertEqual([row.id for row in listed(limit=2)], [names[5], names[4]])
        self.assertEqual([row.id for row in listed("ann", limit=1)], [names[4]])
        self.assertEqual([listed("eve"), listed(limit=-1)], [[], []])

    def test_counts(self) -> None:
        """Every state has its number of jobs."""
        self.ended()
        self.add(order("/b"))
        self.assertEqual(
            self.state.counts(), {"queued": 1, "running": 0, "done": 1, "failed": 0, "cancelled": 0}
        )

    def test_too_long(self) -> None:
        """Orders and results have a bound; nothing is added or changed beyond it."""
        self.assertRaises(ValueError, self.add, order("/a", text="x" * (limits.MAX_ORDER + 1)))
        self.assertEqual(self.state.jobs(), [])
        row = self.add(order("/a"))
        running = self.run_next()
        self.assertRaises(
            ValueError, self.state.end_job, row.id, JobState.DONE, "x" * (limits.MAX_RESULT + 1)
        )
        self.assertEqual(self.found(row.id), running)


class SharingTests(StateCase):
    """One job for equal requests, one writer for a target, one job for a key."""

    def test_shared(self) -> None:
        """An equal order of the same owner gets the job that is queued or runs, and brings its message."""
        row = self.add(order("/a"), PING)
        self.assertEqual(self.add(order("/a"), PING), row)
        running = self.run_next()
        self.assertEqual(self.add(order("/a"), HOOK), running)
        self.assertEqual([m.url for m in self.state.messages(row.id)], [PING.url, PING.url, HOOK.url])
        self.state.end_job(row.id, JobState.DONE, "{}")
        self.assertNotEqual(self.add(order("/a")).id, row.id)

    def test_busy(self) -> None:
        """A target has one writer: another order, another owner, a sharer of a cancelled job must wait."""
        row = self.add(order("/a"))
        for other in (order("/a", text='{"other":1}'), order("/a", owner="bob")):
            self.assertRaises(BusyError, self.add, other)
        self.run_next()
        self.state.cancel_job(row.id)
        self.assertRaises(BusyError, self.add, order("/a"), PING)
        self.assertEqual((len(self.state.jobs()), self.state.messages(row.id)), (1, []))

    def test_limit(self) -> None:
        """So many jobs may be queued, those that run not counted; a shared one needs no place."""
        for target in ("/a", "/b", "/c"):
            self.add(order(target))
        self.assertRaises(QueueFull, self.add, order("/d"), PING)
        self.add(order("/c"), PING)
        self.run_next()
        self.add(order("/d"))

    def test_own_part(self) -> None:
        """While others have something queued, an owner finds the last quarter of the queue full."""

        def add(number: int, owner: str) -> JobRow:
            return self.state.add_job(order(f"/{owner}{number}", owner=owner), limit=8)

        for number in range(5):
            add(number, "ann")
        add(0, "bob")
        add(5, "ann")
        self.assertRaises(QueueFull, add, 6, "ann")
        add(1, "bob")
        self.assertRaises(QueueFull, add, 2, "bob")

    def test_key(self) -> None:
        """A key stands for its job, ended or not, and the repeated request adds nothing."""
        self.assertIsNone(self.state.job_by_key("ann", "k", "r"))
        row = self.add(order("/a"), PING, key="k")
        self.assertEqual(self.add(order("/a"), PING, key="k"), row)
        self.run_next()
        done = self.state.end_job(row.id, JobState.DONE, "{}")
        self.reopen()
        self.assertEqual(self.add(order("/a"), PING, key="k"), done)
        self.assertEqual(self.state.job_by_key("ann", "k", "r"), done)
        self.assertEqual(len(self.state.messages(row.id)), 1)
        self.assertIsNone(self.state.job_by_key("bob", "k", "r"))
        other = self.add(order("/a", owner="bob"), key="k")
        self.assertNotEqual(other.id, row.id)

    def test_key_of_another_request(self) -> None:
        """A key that stands for another request is a conflict, also when the target is busy."""
        self.add(order("/a"), key="k")
        self.add(order("/b"))
        for target in ("/a", "/b", "/c"):
            self.assertRaises(ConflictError, self.add, order(target), key="k", request="other")
        for other in ("", "other", "r\udcff" * 100_000):
            self.assertRaises(ConflictError, self.state.job_by_key, "ann", "k", other)

    def test_key_of_the_same_request(self) -> None:
        """A key is asked for what the client said, not for what that has become since."""
        row = self.add(order("/a"), key="k")
        self.assertEqual(self.add(order("/a", text='{"other":1}'), HOOK, key="k"), row)
        self.assertEqual(self.state.messages(row.id), [])

    def test_key_of_a_shared_job(self) -> None:
        """A request that shares a job has its own key for it."""
        row = self.add(order("/a"), key="first")
        self.add(order("/a"), PING, key="second", request="other")
        self.run_next()
        self.state.end_job(row.id, JobState.DONE, "{}")
        self.assertEqual(self.add(order("/a"), PING, key="second", request="other").id, row.id)
        self.assertEqual(self.add(order("/a"), key="first").id, row.id)

    def test_shared_limit(self) -> None:
        """One job takes so many messages and keys; beyond, only what adds none shares it."""
        row = self.add(order("/a"), PING)
        self.add(order("/b"), key="0")
        for number in range(1, limits.MAX_SHARED):
            self.add(order("/a"), PING)
            self.add(order("/b"), key=str(number))
        self.assertRaises(QueueFull, self.add, order("/a"), PING)
        self.assertRaises(QueueFull, self.add, order("/b"), key="more")
        self.assertRaises(QueueFull, self.add, order("/a"), PING, key="neither")
        self.assertIsNone(self.state.job_by_key("ann", "neither", "r"))
        self.assertEqual(len(self.state.messages(row.id)), limits.MAX_SHARED)
        self.assertEqual(self.add(order("/a"), key="k").id, row.id)
        self.add(order("/a"))
        self.add(order("/b"), PING)

    def test_message_limit(self) -> None:
        """So many messages are kept for delivery; beyond, the job that brings one is not taken."""
        self.patch(limits, "MAX_MESSAGES", 2)
        row = self.ended()
        self.add(order("/b", owner="bob"), PING)
        self.assertRaises(QueueFull, self.add, order("/c"), PING)
        self.add(order("/c"))
        self.deliver(row)
        self.add(order("/d"), PING)

    def test_own_message_limit(self) -> None:
        """An owner whose messages nobody takes is refused, and nobody else is."""
        self.patch(limits, "MAX_OWN_MESSAGES", 2)
        row = self.ended()
        self.add(order("/b"), PING)
        self.assertRaises(QueueFull, self.add, order("/c"), PING)
        self.add(order("/c", owner="bob"), PING)
        self.deliver(row)
        self.add(order("/d"), PING)

    def deliver(self, row: JobRow) -> None:
        """Have the message of a job delivered."""
        message = self.message(row.id)
        self.state.attempted(message, AttemptRow(message.id, 1.0, 200, None, ""), MessageState.DELIVERED)


class MessageTests(StateCase):
    """Messages and the attempts to deliver them."""

    def attempt(self, message: MessageRow, status: int | None = None, at: float = 2001.0) -> AttemptRow:
        """An attempt, failed unless there is a status."""
        return AttemptRow(message.id, at, status, None if status else "connection refused", "pong")

    def test_due_at_the_end(self) -> None:
        """A message waits for the end of its job, and is due at that moment, whatever the end."""
        for number, end in enumerate((JobState.DONE, JobState.FAILED, JobState.CANCELLED)):
            row = self.add(order(f"/{number}"), HOOK)
            message = self.message(row.id)
            self.assertEqual((message.state, message.due), (MessageState.WAITING, None))
            self.assertRegex(message.id, r"\Amsg_[\w-]{22}\Z")
            self.run_next()
            self.time += 10
            self.state.end_job(row.id, end)
            due = replace(message, state=MessageState.DUE, due=self.time)
            self.assertEqual(self.message(row.id), due)
            self.assertIn(due, self.state.due_messages(self.time, 10))
        row = self.add(order("/queued"), PING)
        self.state.cancel_job(row.id)
        self.assertEqual(self.message(row.id).state, MessageState.DUE)

    def test_content(self) -> None:
        """A message has all of its callback; the secret is in no text of it."""
        row = self.add(order("/a"), HOOK)
        message = self.message(row.id)
        self.assertEqual(
            HOOK,
            Callback(
                message.kind,
                message.url,
                message.address_of_requester,
                message.loopback_allowed,
                message.secret,
            ),
        )
        self.assertIs(message.loopback_allowed, True)
        for text in (repr(HOOK), repr(message), str(message)):
            self.assertNotIn("whsec", text)

    def test_due(self) -> None:
        """Those longest due come first, so many of them, and none before its time; the next time is known."""
        self.assertIsNone(self.state.next_due())
        rows = []
        for target in ("/a", "/b", "/c"):
            rows.append(self.ended(target).id)
            self.time += 100
        due = self.state.due_messages
        self.assertEqual(self.state.next_due(), 2000.0)
        self.assertEqual([m.job for m in due(2100.0, 10)], rows[:2])
        self.assertEqual([m.job for m in due(9999.0, 1)], rows[:1])
        self.assertEqual(due(1999.0, 10), [])
        self.assertEqual([self.state.next_due(after) for after in (2000.0, 2200.0)], [2100.0, None])

    def test_due_elsewhere(self) -> None:
        """Places that are full are left out, whatever is due there."""
        for number, callback in enumerate((PING, PING, HOOK, PING)):
            self.ended(f"/{number}", callback)
        places = [PING.place, HOOK.place]
        self.assertEqual(places, ["http://192.0.2.7:9010", "https://192.0.2.7"])
        for without, urls in (
            ([], [PING.url, PING.url]),
            ([PING.place], [HOOK.url]),
            (["http://192.0.2.7"], [PING.url, PING.url]),
            (places, []),
        ):
            self.assertEqual([m.url for m in self.state.due_messages(2000.0, 2, without)], urls)

    def test_attempts(self) -> None:
        """An attempt is noted with what becomes of the message: later, or never again."""
        row = self.ended()
        message = self.message(row.id)
        failed, delivered = self.attempt(message), self.attempt(message, 200, 2007.0)
        self.assertTrue(self.state.attempted(message, failed, MessageState.DUE, 2006.0))
        self.assertEqual(self.message(row.id), replace(message, attempts=1, due=2006.0))
        self.assertEqual((self.state.next_due(), self.state.due_messages(2005.0, 9)), (2006.0, []))
        retried = self.message(row.id)
        self.assertTrue(self.state.attempted(retried, delivered, MessageState.DELIVERED))
        self.assertEqual(
            self.message(row.id), replace(message, state=MessageState.DELIVERED, attempts=2, due=None)
        )
        self.assertEqual(self.state.attempts(row.id), [failed, delivered])
        self.assertIsNone(self.state.next_due())
        missing = replace(message, id="msg_x")
        for sent in (retried, self.message(row.id), missing):
            self.assertFalse(self.state.attempted(sent, self.attempt(sent), MessageState.DELIVERED))
        self.assertEqual(len(self.state.attempts(row.id)), 2)
        for wrong in ((MessageState.DUE, None), (MessageState.GONE, 1.0)):
            self.assertRaises(ValueError, self.state.attempted, message, failed, *wrong)

    def test_redeliver(self) -> None:
        """All messages of an ended job can be sent anew, now and with all attempts, under their old ids."""
        row = self.ended()
        message = self.message(row.id)
        for end in (MessageState.DELIVERED, MessageState.GONE, MessageState.GIVEN_UP):
            self.state.attempted(self.message(row.id), self.attempt(message), end)
            self.time += 50
            self.assertEqual(self.state.redeliver(row.id), 1)
            self.assertEqual(self.message(row.id), replace(message, due=self.time))
        waiting = self.add(order("/b"), PING)
        self.assertEqual([self.state.redeliver(waiting.id), self.state.redeliver("missing")], [0, 0])
        self.assertEqual(self.message(waiting.id).state, MessageState.WAITING)

    def test_nothing_to_redeliver(self) -> None:
        """A plain GET is sent after a success only: after another end there is none to be sent again."""
        for number, end in enumerate((JobState.FAILED, JobState.CANCELLED)):
            row = self.add(order(f"/{number}"), PING)
            self.run_next()
            self.state.end_job(row.id, end)
            message = self.message(row.id)
            self.state.attempted(message, self.attempt(message), MessageState.GIVEN_UP)
            self.assertEqual(self.state.redeliver(row.id), 0)
            self.assertEqual(self.message(row.id).state, MessageState.GIVEN_UP)
        row = self.add(order("/both"), PING)
        self.add(order("/both"), HOOK)
        self.run_next()
        self.state.end_job(row.id, JobState.FAILED)
        self.assertEqual(self.state.redeliver(row.id), 1)

    def test_redeliver_wins(self) -> None:
        """A redelivery during an attempt is not undone by it: neither the news nor the attempts are lost."""
        row = self.ended()
        for end, due in ((MessageState.DUE, 9000.0), (MessageState.DELIVERED, None)):
            sent = self.message(row.id)
            self.time += 10
            self.state.redeliver(row.id)
            again = self.message(row.id)
            self.assertFalse(self.state.attempted(sent, self.attempt(sent), end, due))
            self.assertEqual(self.message(row.id), again)
            self.assertEqual((again.state, again.attempts, again.due), (MessageState.DUE, 0, self.time))

    def test_attempts_limit(self) -> None:
        """Of a message that is delivered again and again, the last attempts are remembered."""
        row, other = self.ended(), self.ended("/b")
        message = self.message(other.id)
        self.state.attempted(message, self.attempt(message), MessageState.GONE)
        for number in range(limits.MAX_ATTEMPTS + 5):
            message = self.message(row.id)
            self.state.attempted(message, self.attempt(message, at=float(number)), MessageState.DUE, 3000.0)
        times = [attempt.at for attempt in self.state.attempts(row.id)]
        self.assertEqual(times, [float(number) for number in range(5, limits.MAX_ATTEMPTS + 5)])
        self.assertEqual(len(self.state.attempts(other.id)), 1)
