"""The outbox: every message arrives at least once, on its schedule, and nobody holds the others up."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from fileexport.callback_calls import Answer, Caller, CallFailed
from fileexport.callback_targets import Asker, Target, Targets
from fileexport.callbacks import (
    AT_ONCE,
    AT_ONE_PLACE,
    DELAYS,
    JITTER,
    MAX_DELAY,
    ROWS,
    Outbox,
    delay_after,
    event_of,
    sign,
)
from fileexport.disk import state as limits
from fileexport.disk.schema import Callback, JobRow, JobState, MessageRow, MessageState, new_job_id
from fileexport.disk.state import State
from fileexport.errors import CallbackRefusedError
from fileexport.pools import Pool
from tests.outbox_case import BUSY, FIN, NOW, SECRET, URL, OutboxCase, Steady, shown

# Twisted does not declare that its module is a reactor of every kind.
reactor: Any = global_reactor


class PureTests(SynchronousTestCase):
    """Signature, event and schedule."""

    def test_signature(self) -> None:
        """The published library accepts what we sign, and nothing that was changed."""
        body = b'{"type":"job.done"}'
        now = int(datetime.now(UTC).timestamp())
        fields = {"webhook-id": "msg_1", "webhook-timestamp": str(now)}
        fields["webhook-signature"] = sign(SECRET, "msg_1", now, body)
        self.assertEqual(Webhook(SECRET).verify(body, fields), {"type": "job.done"})
        for changed in ({"webhook-id": "msg_2"}, {"webhook-timestamp": str(now - 1)}):
            with self.assertRaises(WebhookVerificationError):
                Webhook(SECRET).verify(body, fields | changed)
        with self.assertRaises(WebhookVerificationError):
            Webhook(SECRET).verify(body.replace(b"done", b"gone"), fields)

    def test_event(self) -> None:
        """An event says what happened, when, and shows the job."""
        job = JobRow("j1", "ada", JobState.FAILED, "{}", "/é.tgz", NOW, NOW, NOW + 0.25, error="no")
        event = json.loads(event_of(job, shown(job)))
        self.assertEqual(event.pop("data"), {"id": "j1", "state": "failed", "target": "/é.tgz"})
        self.assertEqual(event, {"type": "job.failed", "timestamp": "2026-11-21T22:13:20.250Z"})

    def test_schedule(self) -> None:
        """Ten attempts, with the delays of the Standard Webhooks specification between them."""
        delays = [delay_after(done, "", NOW, Steady()) for done in range(1, 11)]
        hours = [0.5, 2, 5, 10, 14, 20, 24]
        self.assertEqual(delays, [5, 300, *(hour * 3600 for hour in hours), None])

    def test_jitter(self) -> None:
        """Delays are stretched or shortened a little, and never beyond a day."""
        source = random.Random(1)
        found = [delay_after(done, "", NOW, source) for done in range(1, len(DELAYS)) for _ in range(50)]
        for done, delay in zip([d for d in range(1, len(DELAYS)) for _ in range(50)], found, strict=True):
            assert delay is not None
            self.assertGreaterEqual(delay, DELAYS[done] * JITTER[0])
            self.assertLessEqual(delay, min(DELAYS[done] * JITTER[1], MAX_DELAY))
        self.assertGreater(len(set(found)), 300)

    def test_retry_after(self) -> None:
        """Retry-After makes a delay longer, in seconds or as any of HTTP's dates, up to a day."""
        for text, delay in (
            ("120", 120),
            ("0", 5),
            ("2", 5),
            ("999999999", MAX_DELAY),
            ("Sat, 21 Nov 2026 22:15:20 GMT", 120),
            ("Saturday, 21-Nov-26 22:15:20 GMT", 120),
            ("Sat Nov 21 22:15:20 2026", 120),
            ("Sat, 21 Nov 2020 22:15:20 GMT", 5),
            ("Sat, 21 Nov 2099 22:15:20 GMT", MAX_DELAY),
            ("-5", 5),
            ("1e9", 5),
            ("\u0661\u0662\u0660", 5),
            ("9" * 64, 5),
            ("soon", 5),
        ):
            self.assertEqual(delay_after(1, text, NOW, Steady()), delay, text)
        self.assertIsNone(delay_after(len(DELAYS), "120", NOW, Steady()))

    @given(st.text(max_size=64), st.integers(1, 9))
    def test_any_retry_after(self, text: str, attempts: int) -> None:
        """Whatever Retry-After holds, the next attempt comes neither early nor after more than a day."""
        delay = delay_after(attempts, text, NOW, Steady())
        assert delay is not None
        self.assertLessEqual(DELAYS[attempts], delay)
        self.assertLessEqual(delay, MAX_DELAY)


class DeliveryTests(OutboxCase):
    """What is sent, and when again."""

    def test_get(self) -> None:
        """A job that is done is told by a GET of its URL, and the log says so in the forerunner's words."""
        self.receivers.script = [FIN]
        job = self.end_job()
        [call] = self.receivers.calls
        self.assertEqual((call.target.url, call.fields, call.body), (URL, {}, None))
        self.assertEqual(call.asker, Asker(ip_address("127.0.0.1"), True))
        self.assertEqual(self.fate(job), MessageState.DELIVERED)
        self.assertEqual(self.lines, [(LogLevel.info, "CALLBACK: 200 - OK: fin")])
        [attempt] = self.state.attempts(job)
        self.assertEqual((attempt.status, attempt.error, attempt.first_line), (200, None, "fin"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_webhook(self) -> None:
        """The end of a job, whatever it is, is POSTed as a signed event."""
        for state in (JobState.DONE, JobState.FAILED, JobState.CANCELLED):
            self.receivers.script = [Answer(204, "No Content", "")]
            job = self.end_job("https://127.0.0.1/hook", kind="webhook", state=state)
            call = self.receivers.calls[-1]
            assert call.body is not None
            [message] = self.state.messages(job)
            timestamp = int(self.clock.seconds())
            self.assertEqual(
                call.fields,
                {
                    "Content-Type": "application/json",
                    "webhook-id": message.id,
                    "webhook-timestamp": str(timestamp),
                    "webhook-signature": sign(SECRET, message.id, timestamp, call.body),
                },
            )
            event = json.loads(call.body)
            self.assertEqual((event["type"], event["data"]["id"]), (f"job.{state}", job))
            self.assertEqual(self.fate(job), MessageState.DELIVERED)

    def test_get_without_archive(self) -> None:
        """A plain GET says that the archive is complete: a job that failed sends none."""
        job = self.end_job(state=JobState.FAILED)
        self.assertEqual(self.receivers.calls, [])
        self.assertEqual(self.fate(job), MessageState.GIVEN_UP)
        line = f"CALLBACK: failed for job {job}: the job made no archive, given up"
        self.assertEqual(self.lines, [(LogLevel.warn, line)])

    def test_retries(self) -> None:
        """A message is sent on its schedule, with one id and one event, and given up after ten attempts."""
        job = self.end_job("http://127.0.0.1/hook", kind="webhook")
        for number, delay in enumerate((*DELAYS[1:], None), 1):
            self.assertEqual(len(self.receivers.calls), number)
            self.receivers.calls[-1].answer.callback(BUSY)
            if delay is not None:
                self.assertEqual(self.fate(job), MessageState.DUE)
                self.clock.advance(delay - 1)
                self.assertEqual(len(self.receivers.calls), number)
                self.clock.advance(1)
        self.assertEqual(self.fate(job), MessageState.GIVEN_UP)
        self.assertEqual(len({call.fields["webhook-id"] for call in self.receivers.calls}), 1)
        self.assertEqual(len({call.body for call in self.receivers.calls}), 1)
        self.assertEqual(len({call.fields["webhook-timestamp"] for call in self.receivers.calls}), 10)
        line = "CALLBACK: 503 - Service Unavailable: busy"
        self.assertEqual(self.lines[0], (LogLevel.warn, f"{line} (job {job}, tried again in 5 s)"))
        self.assertEqual(self.lines[-1], (LogLevel.warn, f"{line} (job {job}, given up)"))
        self.clock.advance(1e6)
        self.assertEqual(len(self.receivers.calls), 10)

    def test_failures(self) -> None:
        """No answer, a redirect and a refusal are failures that are tried again; the log says why."""
        self.receivers.script = [
            CallFailed("connection refused"),
            Answer(302, "Found", ""),
            CallbackRefusedError(),
            FIN,
        ]
        job = self.end_job()
        self.clock.pump([5, 300, 1800])
        self.assertEqual(self.fate(job), MessageState.DELIVERED)
        self.assertEqual(
            [line for _, line in self.lines],
            [
                f"CALLBACK: failed for job {job}: connection refused, tried again in 5 s",
                f"CALLBACK: 302 - Found:  (job {job}, tried again in 300 s)",
                f"CALLBACK: failed for job {job}: this callback target is not allowed, tried again in 1800 s",
                "CALLBACK: 200 - OK: fin",
            ],
        )
        self.assertEqual([a.status for a in self.state.attempts(job)], [None, 302, None, 200])

    def test_gone(self) -> None:
        """A receiver that says 410 is not called again."""
        self.receivers.script = [Answer(410, "Gone", "enough")]
        job = self.end_job()
        self.assertEqual(self.fate(job), MessageState.GONE)
        self.assertEqual(self.lines[0][1], f"CALLBACK: 410 - Gone: enough (job {job}, not wanted any more)")

    def test_retry_after(self) -> None:
        """A receiver that asks for time gets it."""
        self.receivers.script = [BUSY._replace(retry_after="60"), FIN]
        self.end_job()
        self.clock.advance(59)
        self.assertEqual(len(self.receivers.calls), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.receivers.calls), 2)

    def test_redeliver(self) -> None:
        """What was delivered can be sent again, with its id; the log of deliveries has both attempts."""
        self.receivers.script = [FIN, FIN]
        job = self.end_job()
        self.assertEqual(self.redeliver(job), 1)
        self.assertEqual(len(self.receivers.calls), 2)
        messages, attempts = self.successResultOf(Deferred.fromCoroutine(self.outbox.deliveries(job)))
        self.assertEqual(([m.state for m in messages], len(attempts)), ([MessageState.DELIVERED], 2))

    def test_redeliver_in_flight(self) -> None:
        """What is to be sent again while it is being sent is sent again, with all its attempts before it."""
        for answer in (BUSY, FIN):
            job = self.end_job(f"http://127.0.0.1:1/{answer.status}")
            self.clock.advance(1)
            self.assertEqual(self.redeliver(job), 1)
            first = len(self.receivers.calls)
            self.receivers.calls[-1].answer.callback(answer)
            self.assertEqual(len(self.receivers.calls), first + 1)
            [message] = self.state.messages(job)
            self.assertEqual((message.state, message.attempts), (MessageState.DUE, 0))
            self.receivers.calls[-1].answer.callback(FIN)
            self.assertEqual(self.fate(job), MessageState.DELIVERED)

    def test_nothing_to_redeliver(self) -> None:
        """A plain GET is not sent for a job that failed, not even when somebody wants it again."""
        job = self.end_job(state=JobState.FAILED)
        self.assertEqual(self.redeliver(job), 0)
        self.assertEqual((self.fate(job), self.receivers.calls), (MessageState.GIVEN_UP, []))

    def redeliver(self, job: str) -> int:
        """Have a job's messages sent again."""
        return self.successResultOf(Deferred.fromCoroutine(self.outbox.redeliver(job)))

    def test_nothing_to_do(self) -> None:
        """Without messages the outbox sleeps, and no timer runs."""
        self.outbox.wake()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_check(self) -> None:
        """Whom a job may call is asked of those who would call."""
        target = Target.from_url(URL)
        self.successResultOf(Deferred.fromCoroutine(self.outbox.check(target, Asker())))
        self.assertEqual(self.receivers.checked, [target])


class CrowdTests(OutboxCase):
    """Several messages at a time."""

    def test_bounds(self) -> None:
        """At most so many calls at a time, and so many of them to one place; each end lets another begin."""
        jobs = [self.end_job(f"http://127.0.0.1:{port}/{n}") for port in (1, 2, 3) for n in range(3)]
        self.assertEqual(self.places(), ["127.0.0.1:1"] * AT_ONE_PLACE + ["127.0.0.1:2"] * AT_ONE_PLACE)
        for number in range(len(jobs)):
            self.assertLessEqual(len(self.receivers.calls) - number, AT_ONCE)
            self.receivers.calls[number].answer.callback(FIN)
        self.assertEqual({self.fate(job) for job in jobs}, {MessageState.DELIVERED})
        self.assertEqual(len(self.receivers.calls), len(jobs))

    def test_slow_place(self) -> None:
        """A place that never answers holds up nobody else's messages, nor those that are due later."""
        for n in range(5):
            self.end_job(f"http://127.0.0.1:1/{n}")
        self.receivers.script = [BUSY, FIN, FIN]
        job = self.end_job("http://127.0.0.1:2/")
        self.end_job("http://127.0.0.1:3/")
        self.assertEqual(self.places(), ["127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"])
        self.clock.advance(5)
        self.assertEqual(self.fate(job), MessageState.DELIVERED)

    def test_far_messages(self) -> None:
        """Messages that are due much later are not forgotten for those that are on their way."""
        self.receivers.script = [BUSY]
        self.end_job()
        self.clock.advance(5)
        self.receivers.calls[1].answer.callback(BUSY)
        self.end_job("http://127.0.0.1:2/")
        self.clock.advance(DELAYS[2])
        self.assertEqual(self.places(), ["127.0.0.1:9010"] * 2 + ["127.0.0.1:2", "127.0.0.1:9010"])

    def test_many(self) -> None:
        """However much is due, each look reads a little, and none is made while nothing more may be sent."""
        self.patch(limits, "MAX_SHARED", 400)
        read: list[int] = []
        due_messages = self.state.due_messages

        def counted(now: float, limit: int, without: Collection[str] = ()) -> Sequence[MessageRow]:
            rows = due_messages(now, limit, without)
            read.append(len(rows))
            return rows

        self.patch(self.state, "due_messages", counted)
        self.end_job(*(f"http://127.0.0.1:{1 + n % 50}/{n}" for n in range(400)))
        self.assertEqual((len(self.receivers.calls), read), (AT_ONCE, [ROWS]))
        self.outbox.wake()
        self.assertEqual(read, [ROWS])
        for call in self.receivers.calls[:3]:
            call.answer.callback(BUSY)
        self.assertEqual((len(self.receivers.calls), read), (AT_ONCE + 3, [ROWS] * 4))

    def test_crowded_place(self) -> None:
        """What a place that is full has still to get, however much, hides nobody else's message."""
        for n in range(ROWS + 5):
            self.end_job(f"http://127.0.0.1:1/{n}", wake=False)
        self.end_job("http://127.0.0.1:2/")
        self.assertEqual(self.places(), ["127.0.0.1:1"] * AT_ONE_PLACE + ["127.0.0.1:2"])

    def test_unreadable(self) -> None:
        """A message whose URL cannot be read is a failed attempt, not the end of the outbox."""
        job = self.end_job("nonsense")
        self.assertEqual(self.fate(job), MessageState.DUE)
        self.receivers.script = [FIN]
        self.assertEqual(self.fate(self.end_job()), MessageState.DELIVERED)


class Hook(Protocol):
    """A receiver of webhooks: verifies each with the published library, and keeps the event."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen
        self.request = b""

    def dataReceived(self, data: bytes) -> None:
        self.request += data
        head, end, body = self.request.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode("ascii").splitlines()[1:]]
        fields = {name.lower(): value for name, value in lines}
        if end and len(body) == int(fields["content-length"]):
            self.seen.append(Webhook(SECRET).verify(body, fields))
            assert self.transport is not None
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")


@implementer(ILogObserver)
class Said:
    """Fires when a delivery is logged."""

    def __init__(self) -> None:
        self.fired: Deferred[None] = Deferred()

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "fileexport.callbacks" and not self.fired.called:
            self.fired.callback(None)


class WholeTests(TestCase):
    """State, threads, outbox, caller and a receiver on a real socket."""

    async def test_whole(self) -> None:
        """A webhook arrives, and the published library verifies it."""
        seen: list[Any] = []
        port = reactor.listenTCP(0, Factory.forProtocol(lambda: Hook(seen)), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        directory = Path(self.mktemp())
        directory.mkdir(mode=0o700)
        now = reactor.seconds
        state, disk = State(directory, now), Pool(reactor, "state", 1, 16)
        self.addCleanup(state.close)
        disk.start()
        self.addCleanup(disk.stop)
        caller = Caller(reactor, Targets(lambda: (), (), lambda _: True), disk)
        outbox = Outbox(reactor, state, disk, caller, shown, now=now, random=random.Random(1))
        row = JobRow(new_job_id(), "ada", JobState.QUEUED, "{}", "/a.tgz", now())
        url = f"http://127.0.0.1:{port.getHost().port}/hook"
        state.add_job(row, Callback("webhook", url, "127.0.0.1", True, SECRET), limit=1)
        state.next_job()
        state.end_job(row.id, JobState.DONE)
        said = Said()
        globalLogPublisher.addObserver(said)
        self.addCleanup(globalLogPublisher.removeObserver, said)
        outbox.start()
        await said.fired.addTimeout(10, reactor)
        await outbox.stop()  # not before the delivery is noted
        [attempt] = state.attempts(row.id)
        self.assertEqual((attempt.status, attempt.first_line), (200, "fine"))
        self.assertEqual([(event["type"], event["data"]["id"]) for event in seen], [("job.done", row.id)])
