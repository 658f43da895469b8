"""Each call that an operation makes of the disk fails in turn, with each error, once or from then on."""

from __future__ import annotations

import errno
from itertools import count

from fileexport.disk.calls import Calls
from tests.proof import scenario_case
from tests.proof.counts import SOAK, Tally
from tests.proof.disk_model import ERRNOS, Failing, Fault
from tests.proof.disk_scenarios import SCENARIOS, Scenario, Tree, Upload, left, settings, snapshot
from tests.proof.transfer_scenarios import TRANSFER_SCENARIOS
from tests.watched import open_descriptors

#: Injections of each scenario, in as many settings as that takes.
INJECTIONS = 12_000 // len((*SCENARIOS, *TRANSFER_SCENARIOS)) + 1 if SOAK else 0

#: Each call gets one in so many of the faults, the next call others.
STEP = 1 if SOAK else 2
FAULTS = tuple(Fault(error, lasting) for lasting in (False, True) for error in (*ERRNOS, None))

#: Where one of these fails, what it should have removed is left to a recovery.
REMOVING = ("unlink", "rmdir")

_TALLY = Tally("injections")


class InjectionTests(scenario_case.ScenarioCase):
    """Whatever fails: a typed error, the old version, no acknowledgement, and nothing left for long."""

    def check(self, kind: type[Scenario]) -> None:
        """Every fault at every call, in one setting after the other until there were enough."""
        done = 0
        for setting in settings(seed=len(kind.__name__)):
            scenario = kind(self.root, setting)
            done += sum(self.check_fault(scenario, fault, place) for place, fault in enumerate(FAULTS))
            if done >= INJECTIONS:
                return

    def check_fault(self, scenario: Scenario, fault: Fault, place: int) -> int:
        """One fault, at every call in turn that it is for; how many calls it reached."""
        reached = 0
        for number in count(1 + place % STEP, STEP):
            failing = Failing(number, fault)
            self.check_injection(scenario, failing, f"{type(scenario).__name__}, call {number}, {fault}")
            reached += bool(failing.reached)
            if failing.spared:
                _TALLY.add(reached, type(scenario).__name__)
                return reached
        raise AssertionError("it never ends")

    def check_injection(self, scenario: Scenario, failing: Failing, where: str) -> None:
        """Do it with one fault, and look; then recover, look again, and do it without."""
        scenario.prepare()
        told, before = scenario.told(), open_descriptors()
        said = self.attempt(scenario, failing, where)
        self.assertEqual(open_descriptors() - before, set(), where)
        tree = snapshot(self.root)
        if said is None:
            self.assertIn(tree, self.allowed(scenario, failing), where)
            self.assertEqual(failing.unflushed * scenario.flushes, 0, where)
        else:
            self.assertEqual((said, tree), (scenario.truth(told), scenario.after), where)
        if isinstance(scenario, Upload) and not failing.lasting and failing.reached not in REMOVING:
            self.assertEqual(len(left(self.root)), scenario.held, where)
        scenario.recover()
        self.assertEqual((len(left(self.root)), snapshot(self.root)), (scenario.held, tree), where)
        told = scenario.told()
        self.assertEqual(self.attempt(scenario, Calls(), where), told, where)
        self.assertEqual(snapshot(self.root), scenario.after, where)
        scenario.finish()

    def attempt(self, scenario: Scenario, calls: Calls, where: str) -> str | None:
        """Do it; what its caller is told, or nothing when a typed error came out: the one that was put in."""
        jail = scenario.jail(calls)
        try:
            return scenario.run(jail)
        except OSError as error:
            assert isinstance(calls, Failing), where
            # A system call that is interrupted again and again is given up.
            given_up = (errno.EAGAIN,) if calls.error == errno.EINTR else ()
            self.assertIn(error.errno, (calls.error, *given_up), where)
            return None
        finally:
            if isinstance(calls, Failing):
                calls.armed = False
            jail.close()

    def allowed(self, scenario: Scenario, failing: Failing) -> tuple[Tree, ...]:
        """What the disk may hold after an error.

        A file that got its name keeps it, whole, though nobody was told: only its directory's flush, or a
        close, can have failed.
        """
        if failing.renamed:
            return (*scenario.between, scenario.after)
        return (scenario.before, *scenario.between, *([scenario.after] if scenario.flushes else []))
