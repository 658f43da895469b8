"""The outbox: messages of jobs' ends, each sent until it was delivered, not wanted, or tried often enough.

What is to be sent, and when, is in the state only: a kill loses nothing, and a message whose fate could not
be noted any more is sent again, with the same id.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from fileexport.callback_calls import Answer, CallFailed
from fileexport.callback_targets import Asker, Target
from fileexport.disk.schema import AttemptRow, JobRow, JobState, MessageRow, MessageState
from fileexport.errors import FileExportError
from fileexport.pools import Worker

#: Calls at a time, and those of them to one host and port: a slow receiver must leave room for others.
AT_ONCE = 4
AT_ONE_PLACE = 2
#: Seconds before each attempt, counted from the end of the job or of the attempt before it: the schedule of
#: the Standard Webhooks specification. Each gets some jitter, so that those that failed together part.
DELAYS = (0, 5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
JITTER = (0.8, 1.2)
#: Seconds between two attempts at most, whatever jitter and the receiver want.
MAX_DELAY = 24 * 3600.0
#: Due messages that are read at a time: more than may be on their way, so that each reading finds some.
ROWS = AT_ONCE * 8
#: Seconds until the outbox asks again where the state could not be read or written.
TROUBLE = 30.0

_SECONDS = re.compile(r"[0-9]{1,10}")
_log = Logger()


def sign(secret: str, message: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature`` (Standard Webhooks 1.0) for a message's id, time and body.

    `secret` is ``whsec_`` and standard base64, as the token file has it.
    """
    # Imported late: most daemons send no webhook.
    from standardwebhooks import Webhook

    return Webhook(secret).sign(message, datetime.fromtimestamp(timestamp, UTC), body.decode("utf-8"))


def event_of(job: JobRow, shown: Mapping[str, object]) -> bytes:
    """The JSON of a webhook: this job has ended; `shown` is the job as its owner sees it."""
    ended = datetime.fromtimestamp(job.ended or 0, UTC).isoformat(timespec="milliseconds")
    event = {"type": f"job.{job.state}", "timestamp": ended.replace("+00:00", "Z"), "data": shown}
    return msgspec.json.encode(event)


class Random(Protocol):
    """What is needed of `random.Random`."""

    def uniform(self, a: float, b: float, /) -> float: ...


def delay_after(attempts: int, retry_after: str, now: float, random: Random) -> float | None:
    """Seconds to wait after the attempt that makes `attempts` of them; None: that was the last.

    At least as long as the receiver asks for by Retry-After (RFC 9110, 10.2.3), at most `MAX_DELAY`.
    """
    if attempts >= len(DELAYS):
        return None
    delay = DELAYS[attempts] * random.uniform(*JITTER)
    return min(max(delay, _seconds_in(retry_after, now)), MAX_DELAY)


def _seconds_in(retry_after: str, now: float) -> float:
    """The seconds that a Retry-After field asks for; 0 for one that is empty or cannot be read."""
    if _SECONDS.fullmatch(retry_after):
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
        # HTTP's dates are in UTC also where they do not say so.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0


class Mailbox(Protocol):
    """What the outbox needs of `fileexport.disk.state.State`."""

    def due_messages(self, now: float, limit: int, without: Collection[str] = ()) -> Sequence[MessageRow]: ...
    def next_due(self, after: float) -> float | None: ...
    def attempted(
        self, sent: MessageRow, attempt: AttemptRow, state: MessageState, due: float | None = None
    ) -> bool: ...
    def job(self, job: str) -> JobRow | None: ...
    def redeliver(self, job: str) -> int: ...
    def messages(self, job: str) -> Sequence[MessageRow]: ...
    def attempts(self, job: str) -> Sequence[AttemptRow]: ...


class Calls(Protocol):
    """What the outbox needs of `fileexport.callback_calls.Caller`."""

    async def check(self, target: Target, asker: Asker) -> None: ...
    async def call(
        self, target: Target, asker: Asker, fields: Mapping[str, str], body: bytes | None = None
    ) -> Answer: ...


class _Outcome(NamedTuple):
    """What came of an attempt: an answer, or the `error` that stands for it; `final` ends the message."""

    answer: Answer | None = None
    error: str | None = None
    final: MessageState | None = None


class _Sending:
    """A message that is being sent. `step` may be cancelled at a stop; None: what it does now may not."""

    __slots__ = ("place", "step")

    def __init__(self, place: str) -> None:
        self.place = place
        self.step: Deferred[Any] | None = None


class Outbox:
    """Sends what is due. Its methods belong to the reactor's thread.

    - `disk` carries out the mailbox's methods, one after the other.
    - `shown` gives a job as ``GET /-/jobs/<id>`` shows it to its owner.
    - `now` is in seconds since 1970, as the mailbox has it.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        mailbox: Mailbox,
        disk: Worker,
        calls: Calls,
        shown: Callable[[JobRow], Mapping[str, object]],
        *,
        now: Callable[[], float],
        random: Random,
    ) -> None:
        self._reactor = reactor
        self._mailbox = mailbox
        self._disk = disk
        self._calls = calls
        self._shown = shown
        self._now = now
        self._random = random
        self._running = False
        self._wanted = False
        self._looking = False
        self._timer: IDelayedCall | None = None
        self._sending: dict[str, _Sending] = {}
        self._busy = 0
        self._stopping: list[Deferred[None]] = []

    def start(self) -> None:
        """Begin to send what is due, also what was due before a restart."""
        self._running = True
        self.wake()

    def wake(self) -> None:
        """Look for due messages now: a job has ended, or its messages are to be sent again."""
        self._wanted = True
        if self._running and not self._looking:
            self._looking = True
            self._follow(self._look())

    def stop(self) -> Deferred[None]:
        """Begin no more; fires when all that runs has ended. Calls are cut off; their messages stay due."""
        self._running = False
        self._rest(None)
        for sending in list(self._sending.values()):
            if sending.step is not None:
                sending.step.cancel()
        stopped: Deferred[None] = Deferred()
        self._stopping.append(stopped)
        self._end_if_idle()
        return stopped

    async def check(self, target: Target, asker: Asker) -> None:
        """Raise `CallbackRefusedError` unless the target may be called; see `Caller.check`."""
        await self._calls.check(target, asker)

    async def redeliver(self, job: str) -> int:
        """Send the messages of an ended job again, now; how many of them there are to be sent."""
        count = await self._disk.run(self._mailbox.redeliver, job)
        self.wake()
        return count

    async def deliveries(self, job: str) -> tuple[Sequence[MessageRow], Sequence[AttemptRow]]:
        """The messages of a job and the attempts to deliver them, oldest first."""
        messages = await self._disk.run(self._mailbox.messages, job)
        return messages, await self._disk.run(self._mailbox.attempts, job)

    # -- when

    async def _look(self) -> None:
        """Begin what may be sent, and set the timer for what may be sent later."""
        try:
            while self._wanted and self._running:
                self._wanted = False
                later = await self._begin_due()
                if self._running:
                    self._rest(later)
        except Exception:
            if self._running:
                _log.failure("the callbacks cannot be read; tried again in {delay:.0f} s", delay=TROUBLE)
                self._rest(TROUBLE)
        finally:
            self._looking = False

    async def _begin_due(self) -> float | None:
        """Begin what is due while there is room; the seconds until more will be due, if the time matters.

        What must wait for room is begun by the look that follows the end of another.
        """
        while self._running and len(self._sending) < AT_ONCE:
            now = self._now()
            rows = await self._disk.run(self._mailbox.due_messages, now, ROWS, self._full_places())
            for row in rows:
                self._begin(row)
            if len(rows) < ROWS:
                later = await self._disk.run(self._mailbox.next_due, now)
                return None if later is None else max(0.0, later - self._now())
        return None

    def _full_places(self) -> list[str]:
        """The places to which no more may be sent now."""
        there = Counter(sending.place for sending in self._sending.values())
        return [place for place, count in there.items() if count >= AT_ONE_PLACE]

    def _begin(self, row: MessageRow) -> None:
        """Begin to send a message that is due, unless that is done already or there is no room."""
        if not self._running or len(self._sending) >= AT_ONCE:
            return
        if row.id not in self._sending and row.place not in self._full_places():
            sending = self._sending[row.id] = _Sending(row.place)
            self._follow(self._send(row, sending))

    def _rest(self, seconds: float | None) -> None:
        """Look again after so many seconds; None: not by itself."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None if seconds is None else self._reactor.callLater(seconds, self.wake)

    def _follow(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        self._busy += 1
        running = Deferred.fromCoroutine(work)
        running.addErrback(lambda failure: _log.failure("the outbox failed", failure))
        running.addBoth(self._ended)

    def _ended(self, _: object) -> None:
        self._busy -= 1
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._busy:
            return
        stopping, self._stopping = self._stopping, []
        for stopped in stopping:
            stopped.callback(None)

    # -- what

    async def _send(self, row: MessageRow, sending: _Sending) -> None:
        try:
            sending.step = Deferred.fromCoroutine(self._attempt(row))
            try:
                outcome = await sending.step
            except CancelledError:
                return
            except Exception:
                _log.failure("a callback failed")
                outcome = _Outcome(error="it failed here; the log says why")
            sending.step = None
            await self._note(row, outcome, sending)
        finally:
            del self._sending[row.id]
            self.wake()

    async def _attempt(self, row: MessageRow) -> _Outcome:
        job = await self._disk.run(self._mailbox.job, row.job)
        if job is None or (row.kind == "get" and job.state is not JobState.DONE):
            # The receiver of a plain GET takes it for the news that the archive is complete.
            return _Outcome(error="the job made no archive", final=MessageState.GIVEN_UP)
        try:
            target = Target.from_url(row.url)
            asker = Asker.at(row.address_of_requester, row.loopback_allowed)
            return _Outcome(await self._calls.call(target, asker, *self._content(row, job)))
        except (FileExportError, CallFailed) as error:
            return _Outcome(error=str(error))

    def _content(self, row: MessageRow, job: JobRow) -> tuple[Mapping[str, str], bytes | None]:
        """The fields and the body of the request."""
        if row.kind == "get":
            return {}, None
        body = event_of(job, self._shown(job))
        timestamp = int(self._now())
        fields = {
            "Content-Type": "application/json",
            "webhook-id": row.id,
            "webhook-timestamp": str(timestamp),
        }
        if row.secret is not None:
            fields["webhook-signature"] = sign(row.secret, row.id, timestamp, body)
        return fields, body

    async def _note(self, row: MessageRow, outcome: _Outcome, sending: _Sending) -> None:
        """Log an attempt, and note it in the state, however long that takes: else it would be made again."""
        now = self._now()
        state, delay = self._fate(row, outcome, now)
        _say(row.job, outcome, state, delay)
        status, first_line = (
            (outcome.answer.status, outcome.answer.first_line) if outcome.answer else (None, "")
        )
        attempt = AttemptRow(row.id, now, status, outcome.error, first_line)
        due = None if delay is None else now + delay
        while True:
            try:
                await self._disk.run(self._mailbox.attempted, row, attempt, state, due)
                return
            except Exception:
                if not self._running:
                    return
                _log.failure("a callback cannot be noted; tried again in {delay:.0f} s", delay=TROUBLE)
            sending.step = deferLater(self._reactor, TROUBLE)
            try:
                await sending.step
            except CancelledError:
                return

    def _fate(self, row: MessageRow, outcome: _Outcome, now: float) -> tuple[MessageState, float | None]:
        """What becomes of a message, and the seconds until its next attempt."""
        if outcome.final is not None:
            return outcome.final, None
        answer = outcome.answer
        if answer is not None and 200 <= answer.status < 300:
            return MessageState.DELIVERED, None
        if answer is not None and answer.status == HTTPStatus.GONE:
            return MessageState.GONE, None
        retry_after = answer.retry_after if answer is not None else ""
        delay = delay_after(row.attempts + 1, retry_after, now, self._random)
        return (MessageState.GIVEN_UP if delay is None else MessageState.DUE), delay


def _say(job: str, outcome: _Outcome, state: MessageState, delay: float | None) -> None:
    """Log an attempt; the line of a delivery is what scripts of the forerunner's users look for."""
    answer = outcome.answer
    if answer is not None and state is MessageState.DELIVERED:
        _log.info("CALLBACK: {answer.status} - {answer.reason}: {answer.first_line}", answer=answer)
        return
    then = "given up" if delay is None else f"tried again in {delay:.0f} s"
    if answer is None:
        _log.warn(
            "CALLBACK: failed for job {job}: {reason}, {then}", job=job, reason=outcome.error, then=then
        )
        return
    if state is MessageState.GONE:
        then = "not wanted any more"
    _log.warn(
        "CALLBACK: {answer.status} - {answer.reason}: {answer.first_line} (job {job}, {then})",
        answer=answer,
        job=job,
        then=then,
    )
