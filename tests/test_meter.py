"""How far a piece of work is."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import JobCancelled
from fileexport.meter import Meter, Progress


class MeterTests(SynchronousTestCase):
    """`Meter`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.meter = Meter(self.clock.seconds)

    def go(self, seconds: int, nbytes: int) -> None:
        """Read so many bytes in each of so many seconds, in ten steps."""
        for _ in range(seconds * 10):
            self.clock.advance(0.1)
            self.meter.advance(nbytes // 10)

    def test_beginning(self) -> None:
        """At first nothing is done, nothing is known, and no time has passed to divide by."""
        self.assertEqual(self.meter.read(), Progress(0, None, 0, None, 0.0, None))

    def test_totals(self) -> None:
        """What has been done is summed up; the rest of the time is known once the total is."""
        self.clock.advance(2)
        self.meter.advance(100, files=1)
        self.meter.advance(files=2)
        self.assertEqual(self.meter.read(), Progress(100, None, 3, None, 50.0, None))
        self.meter.bytes_total, self.meter.files_total = 600, 5
        self.assertEqual(self.meter.read(), Progress(100, 600, 3, 5, 50.0, 10.0))

    def test_rate(self) -> None:
        """The rate is that of the last five seconds or little more, whatever was before."""
        self.go(60, 1000)
        self.assertAlmostEqual(self.meter.read().rate, 1000, delta=1)
        self.go(6, 10)
        self.assertAlmostEqual(self.meter.read().rate, 10, delta=1)

    def test_standstill(self) -> None:
        """Work that stands still has a rate of nothing soon, and no end in sight."""
        self.meter.bytes_total = 100_000
        self.go(20, 1000)
        self.clock.advance(5)
        self.assertLess(self.meter.read().rate, 100)
        self.clock.advance(600)
        self.assertLess(self.meter.read().rate, 1)
        self.clock.advance(1)
        self.meter.advance(80_000)
        self.assertEqual(self.meter.read().eta, 0)

    def test_more_than_expected(self) -> None:
        """A source that grows while it is read does not end in the past."""
        self.meter.bytes_total = 10
        self.go(1, 20)
        self.assertEqual(self.meter.read().eta, 0)

    def test_check(self) -> None:
        """`check` raises from the interruption on, and not before."""
        self.meter.check()
        self.meter.interrupt()
        self.assertRaises(JobCancelled, self.meter.check)
        self.assertRaises(JobCancelled, self.meter.check)
