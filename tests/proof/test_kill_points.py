"""A process is killed before, after, and in the middle of each call that its operation makes of the disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fileexport.disk import calls as calls_module
from fileexport.disk.calls import Calls
from fileexport.paths import RelPath
from tests.proof import scenario_case
from tests.proof.counts import SOAK, Tally
from tests.proof.disk_model import KILLED, WRITES, Dying, Noting, When
from tests.proof.disk_scenarios import (
    SCENARIOS,
    Create,
    CreateOnly,
    CreateRefused,
    Overwrite,
    Remove,
    Scenario,
    Setting,
    left,
    settings,
    snapshot,
)
from tests.proof.transfer_scenarios import TRANSFER_SCENARIOS
from tests.watched import in_child

#: Points of each scenario, in as many settings as that takes.
POINTS = 10_000 // len((*SCENARIOS, *TRANSFER_SCENARIOS)) + 1 if SOAK else 0
#: Settings in any case: both ways to resolve a name.
SETTINGS = 2
#: Where a scenario has more points than this, each setting has its share of them, unless all are asked for.
MANY = 100
#: Seconds after which a child that hangs ends itself.
PATIENCE = 60

P = RelPath.parse
Point = tuple[int, When]

_TALLY = Tally("kill points")


class KillPointTests(scenario_case.ScenarioCase):
    """Whenever a writer dies: whole versions, the new one once that was said, and nothing left for long."""

    def check(
        self, kind: type[Scenario], *, durable: bool = True, points: int = POINTS, rounds: int = SETTINGS
    ) -> None:
        """Die at every point of a scenario, in one setting after the other until there were enough."""
        done = 0
        for number, setting in enumerate(settings(seed=len(kind.__name__)), 1):
            scenario = kind(self.root, replace(setting, durable=durable))
            done += self.check_setting(scenario, *((0, 1) if SOAK else (number - 1, rounds)))
            if number >= rounds and done >= points:
                return

    def check_setting(self, scenario: Scenario, first: int, step: int) -> int:
        """Die at every point of a scenario, or at the first and every `step` of many; how many there were."""
        names, spoken = self.rehearse(scenario)
        points: list[Point] = []
        for number, name in enumerate(names, 1):
            points += [(number, "before"), (number, "after")]
            points += [(number, "half")] if name in WRITES else []
        if len(points) > MANY:
            points = points[first::step]
        for point in points:
            self.check_point(scenario, point, acknowledged=point[0] > spoken)
        _TALLY.add(len(points), type(scenario).__name__)
        return len(points)

    def rehearse(self, scenario: Scenario) -> tuple[list[str], int]:
        """Let it run to its end, which must be as promised; all its calls, and how many before it spoke."""
        noting, spoken = Noting(), 0

        def say(what: str) -> None:
            nonlocal spoken
            spoken = len(noting.names)
            self.assertEqual(what, told)

        scenario.prepare()
        told = scenario.told()
        live(scenario, noting, say)
        self.check_tree(scenario, "nowhere", told)
        scenario.finish()
        return noting.names, spoken

    def check_point(self, scenario: Scenario, point: Point, *, acknowledged: bool) -> None:
        """Die at one point, and look; then start anew: recover, look again, and do it again."""
        where = f"{type(scenario).__name__}, {point[1]} call {point[0]}, {scenario.setting.place}"
        scenario.prepare()
        told = scenario.told() if acknowledged else ""
        self.assertEqual(self.die(scenario, point), told, where)
        self.check_tree(scenario, where, told)
        orphans = len(left(self.root)) - scenario.held
        self.assertEqual(scenario.recover(), orphans, where)
        self.assertEqual(len(left(self.root)), scenario.held, where)
        self.check_tree(scenario, where, told)
        told = scenario.told()
        live(scenario, Calls(), lambda what: self.assertEqual(what, told, where))
        self.check_tree(scenario, where, told)
        scenario.finish()

    def check_tree(self, scenario: Scenario, where: str, told: str) -> None:
        """The disk holds what it may."""
        tree = snapshot(self.root)
        if told:
            self.assertEqual(tree, scenario.after, where)
        else:
            self.assertIn(tree, (scenario.before, *scenario.between, scenario.after), where)

    def die(self, scenario: Scenario, point: Point) -> str:
        """Live in a process that dies at this point; what that process said before."""
        reading, writing = os.pipe()

        def run() -> None:
            signal.alarm(PATIENCE)
            live(scenario, Dying(*point), lambda what: os.write(writing, what.encode()))

        try:
            self.assertEqual(in_child(run), KILLED, f"{type(scenario).__name__}: it was not killed {point}")
        finally:
            os.close(writing)
            with open(reading, encoding="ascii") as pipe:
                said = pipe.read()
        return said

    def test_without_flushes(self) -> None:
        """Being killed is no loss of power: all this holds without a flush, too."""
        for kind in (Create, Overwrite, CreateOnly, Remove):
            self.check(kind, durable=False, points=POINTS // 4, rounds=1)

    def test_without_the_flag(self) -> None:
        """And where a rename cannot refuse and a hard link must, also dead between link and unlink."""
        # What renameat2 answers there, without such a file system: the same call with a flag that is none.
        self.patch(calls_module, "_RENAME_NOREPLACE", 1 << 30)
        self.check(CreateOnly, points=0, rounds=1)
        self.check(CreateRefused, points=0, rounds=1)
        link = os.link

        def link_and_die(*arguments: Any, **keywords: Any) -> None:
            link(*arguments, **keywords)
            os._exit(KILLED)

        self.patch(os, "link", link_and_die)
        scenario = CreateOnly(self.root, Setting())
        scenario.prepare()
        self.assertEqual(self.die(scenario, (0, "before")), "")
        self.assertEqual(snapshot(self.root), scenario.after)
        self.assertEqual((scenario.recover(), left(self.root)), (1, []))
        self.assertEqual(snapshot(self.root), scenario.after)


def live(scenario: Scenario, calls: Calls, say: Callable[[str], object]) -> None:
    """Do it, say so, and go on: what was said must outlast whatever comes later."""
    jail = scenario.jail(calls)
    say(scenario.run(jail))
    jail.recover([P(""), scenario.view.base])
    jail.close()
