"""The rooms of jobs: how many jobs and threads there are."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from fileexport.job_rooms import cores


class CoreTests(SynchronousTestCase):
    """What the number of jobs depends on."""

    def test_affinity(self) -> None:
        """Only the cores that this process may use count."""
        allowed = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, allowed)
        self.assertEqual(cores(), len(allowed))
        os.sched_setaffinity(0, {min(allowed)})
        self.assertEqual(cores(), 1)
