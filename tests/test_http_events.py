"""Events as a reader gets them: their form, what waits, silence, and the end."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fileexport.http_events import HEARTBEAT, MAX_PENDING, EventStream, event

RETRY = b"retry: 2000\n\n"


class EventTests(SynchronousTestCase):
    """`EventStream` and `event`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.stream = EventStream(self.clock)

    def begun(self) -> EventStream:
        """The stream after its first piece."""
        self.assertEqual(self.successResultOf(self.stream.next()), RETRY)
        return self.stream

    def test_form(self) -> None:
        """An event is one line of JSON, whatever the text holds."""
        self.assertEqual(
            event("job", {"e": "a\nb\u2028"}), 'event: job\ndata: {"e":"a\\nb\u2028"}\n\n'.encode()
        )

    def test_order(self) -> None:
        """What is told while nobody reads waits and comes in order, at once."""
        stream = self.begun()
        stream.tell("a", b"1")
        stream.tell("b", b"2")
        self.assertEqual(self.successResultOf(stream.next()), b"12")
        waiting = stream.next()
        self.assertNoResult(waiting)
        stream.tell("a", b"3")
        self.assertEqual(self.successResultOf(waiting), b"3")

    def test_the_latest_counts(self) -> None:
        """Of one subject only the latest event waits, in the place where it was told."""
        stream = self.begun()
        for subject, text in (("a", b"1"), ("b", b"2"), ("a", b"3")):
            stream.tell(subject, text)
        self.assertEqual(self.successResultOf(stream.next()), b"23")

    def test_bound(self) -> None:
        """A reader that never takes anything costs a bounded number of events."""
        stream = self.begun()
        for number in range(MAX_PENDING + 5):
            stream.tell(number, b"%d," % number)
        taken = self.successResultOf(stream.next())
        self.assertEqual(len((taken or b"").split(b",")) - 1, MAX_PENDING)
        self.assertTrue((taken or b"").startswith(b"5,"))

    def test_silence(self) -> None:
        """In silence a comment comes, again and again, and no timer outlives the reader."""
        stream = self.begun()
        for _ in range(3):
            waiting = stream.next()
            self.clock.advance(HEARTBEAT)
            self.assertEqual(self.successResultOf(waiting), b":\n\n")
        waiting = stream.next()
        self.successResultOf(stream.close())
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_end(self) -> None:
        """The end comes after what waits, and nothing after it."""
        stream = self.begun()
        stream.tell("a", b"1")
        stream.end()
        stream.tell("a", b"2")
        self.assertEqual(self.successResultOf(stream.next()), b"1")
        self.assertIsNone(self.successResultOf(stream.next()))
        self.stream = EventStream(self.clock)
        waiting = self.begun().next()
        self.stream.end()
        self.assertIsNone(self.successResultOf(waiting))
