"""The outbox over stops, restarts, and a state in trouble."""

from __future__ import annotations

from fileexport.callbacks import DELAYS, TROUBLE
from fileexport.disk.schema import MessageState
from tests.outbox_case import BUSY, FIN, OutboxCase


class StopTests(OutboxCase):
    """Stops, restarts and a state in trouble."""

    def test_stop(self) -> None:
        """A stop cuts off what is in flight and begins nothing; a restart sends it with the same id."""
        job = self.end_job("http://127.0.0.1/hook", kind="webhook")
        waiting = self.end_job(wake=False)
        self.successResultOf(self.outbox.stop())
        self.assertEqual((self.fate(job), self.state.attempts(job)), (MessageState.DUE, []))
        self.outbox.wake()
        self.assertEqual(len(self.receivers.calls), 1)
        self.receivers.script = [FIN, FIN]
        self.restart()
        self.assertEqual([self.fate(job), self.fate(waiting)], [MessageState.DELIVERED] * 2)
        first, second, _ = self.receivers.calls
        self.assertEqual(first.fields["webhook-id"], second.fields["webhook-id"])

    def test_restart_keeps_the_schedule(self) -> None:
        """A restart neither hurries a retry nor forgets how many there were."""
        self.receivers.script = [BUSY, BUSY]
        job = self.end_job()
        self.clock.advance(5)
        self.restart()
        self.clock.advance(DELAYS[2] - 1)
        self.assertEqual(len(self.receivers.calls), 2)
        self.clock.advance(1)
        self.assertEqual(len(self.receivers.calls), 3)
        self.receivers.calls[-1].answer.callback(FIN)
        self.assertEqual(self.fate(job), MessageState.DELIVERED)

    def test_down_for_long(self) -> None:
        """What became due while the daemon was down is sent at the start."""
        self.receivers.script = [BUSY, FIN]
        job = self.end_job()
        self.successResultOf(self.outbox.stop())
        self.clock.advance(3600)
        self.outbox.start()
        self.assertEqual(self.fate(job), MessageState.DELIVERED)

    def test_answer_is_noted(self) -> None:
        """An answer that could not be noted at once is noted later, and the call is not made again for it."""
        job = self.end_job()
        self.disk.error = OSError("the disk is full")
        self.receivers.calls[0].answer.callback(FIN)
        self.clock.advance(TROUBLE)
        self.assertEqual(self.fate(job), MessageState.DUE)
        self.disk.error = None
        self.clock.advance(TROUBLE)
        self.assertEqual(self.fate(job), MessageState.DELIVERED)
        self.assertEqual(len(self.receivers.calls), 1)
        self.assertGreaterEqual(len(self.flushLoggedErrors(OSError)), 2)

    def test_stop_in_trouble(self) -> None:
        """A stop does not wait for a state that cannot be written."""
        job = self.end_job()
        self.disk.error = OSError("the disk is full")
        self.receivers.calls[0].answer.callback(FIN)
        self.successResultOf(self.outbox.stop())
        self.assertEqual(self.fate(job), MessageState.DUE)
        self.flushLoggedErrors(OSError)

    def test_unreadable_state(self) -> None:
        """Where the messages cannot be read, the outbox asks again after a while, not all the time."""
        self.disk.error = OSError("broken")
        job = self.end_job()
        self.assertEqual(self.disk.refused, 1)
        self.clock.advance(TROUBLE - 1)
        self.assertEqual(self.disk.refused, 1)
        self.disk.error = None
        self.receivers.script = [FIN]
        self.clock.advance(1)
        self.assertEqual(self.fate(job), MessageState.DELIVERED)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_mistake_of_ours(self) -> None:
        """A mistake in the making of a call is logged, and is one attempt of the ten."""
        self.receivers.script = [ZeroDivisionError(), FIN]
        job = self.end_job()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(5)
        self.assertEqual(self.fate(job), MessageState.DELIVERED)
