"""For tests of what runs in threads of its own: nothing may be left of it, and waiting can be interrupted."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from twisted.trial.unittest import SynchronousTestCase

from tests.watched import open_descriptors

#: How often a run is repeated where nothing may be left of it.
RUNS = 10


class Interrupted(BaseException):
    """What a signal's handler raises, as Ctrl-C raises KeyboardInterrupt."""


class ThreadsCase(SynchronousTestCase):
    """Looks at the threads and descriptors of this process, and interrupts its main thread."""

    def unchanged(self, run: Callable[[], object], times: int = RUNS) -> None:
        """Check that what `run` does again and again leaves no thread and no descriptor behind."""
        run()  # what a process has once, it may have
        gc.collect()  # what earlier tests left must not go between the two looks
        threads, descriptors = threading.active_count(), len(open_descriptors())
        for _ in range(times):
            run()
        self.assertEqual(threading.active_count(), threads)
        self.assertEqual(len(open_descriptors()), descriptors)

    @contextmanager
    def interrupting(self, kind: type[BaseException] = Interrupted) -> Iterator[Callable[[], None]]:
        """What interrupts this thread, as Ctrl-C would; it is expected to end the block."""
        me = threading.get_ident()

        def take(number: int, frame: FrameType | None) -> None:
            raise kind

        before = signal.signal(signal.SIGUSR1, take)
        try:
            with self.assertRaises(kind):
                yield lambda: signal.pthread_kill(me, signal.SIGUSR1)
        finally:
            signal.signal(signal.SIGUSR1, before)
