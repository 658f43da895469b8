"""How far a piece of work is: told by the thread that does it, read by others, without locks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fileexport.errors import JobCancelled

#: Seconds that a rate looks back, and between the samples that it looks at.
RATE_TIME, _SAMPLE_TIME = 5.0, 0.5
_SAMPLES = int(RATE_TIME / _SAMPLE_TIME)


class Progress(NamedTuple):
    """How far a job is. Totals are None until they are known; `rate` is bytes a second, `eta` seconds."""

    bytes_done: int
    bytes_total: int | None
    files_done: int
    files_total: int | None
    rate: float
    eta: float | None


class _Sample(NamedTuple):
    at: float
    bytes_done: int


class Meter:
    """What a job's work tells of its progress, and how it hears that it shall end.

    One thread writes, the thread of the work; others read at any time. Neither waits for the other. The work
    sets the totals when it knows them.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds in any thread, and never goes back."""
        self.bytes_done = 0
        self.bytes_total: int | None = None
        self.files_done = 0
        self.files_total: int | None = None
        self._clock = clock
        self._interrupted = False
        # Replaced, never changed: a reader may be in it.
        self._samples: tuple[_Sample, ...] = (_Sample(clock(), 0),)

    def advance(self, nbytes: int = 0, files: int = 0) -> None:
        """So many bytes of the source have been read, and so many files are finished, since the last call."""
        self.bytes_done += nbytes
        self.files_done += files
        now = self._clock()
        if now - self._samples[-1].at >= _SAMPLE_TIME:
            self._samples = (*self._samples[-_SAMPLES:], _Sample(now, self.bytes_done))

    def check(self) -> None:
        """Raises `JobCancelled` when the work shall end. To be called at least once for each MiB."""
        if self._interrupted:
            raise JobCancelled

    def interrupt(self) -> None:
        """Let `check` raise from now on."""
        self._interrupted = True

    def read(self) -> Progress:
        """The progress now."""
        done, total, now = self.bytes_done, self.bytes_total, self._clock()
        base, *later = self._samples
        for sample in later:
            if sample.at <= now - RATE_TIME:
                base = sample
        elapsed = now - base.at
        rate = (done - base.bytes_done) / elapsed if elapsed > 0 else 0.0
        eta = max(0.0, (total - done) / rate) if total is not None and rate > 0 else None
        return Progress(done, total, self.files_done, self.files_total, rate, eta)
