"""Synchronisations whose connection is cut: they converge, and little is sent twice."""

from __future__ import annotations

import random
from pathlib import Path

from tests.proof.counts import SOAK, Tally
from tests.proof.cut_proxy import Cut, CutProxy, How
from tests.proof.process import MIB, say
from tests.proof.proxy import Way
from tests.proof.sync_case import SyncCase, facts, renew, two_versions

#: Connections that are cut, small files of the tree, and bytes of its large ones.
CUTS = 50 if SOAK else 4
SMALL, LARGE = (4_000, 24 * MIB) if SOAK else (300, 4 * MIB)
#: Promised: what passes in all is at most what passes without a cut, and so much.
SLACK = 5_000_000
#: Behind every end of a connection.
NEVER = 1 << 60
#: Commands until one has come to its end.
TRIES = 4
_cuts = Tally("synchronisations cut")


class CutTests(SyncCase):
    """Both ways, cut in both directions."""

    def setUp(self) -> None:
        super().setUp()
        self.old, self.new = self.base / "old", self.base / "new"
        two_versions(self.old, self.new, SMALL, LARGE)

    def begin(self, way: Way) -> Path:
        """The new version at the source, the old one at the destination, which is returned."""
        source, destination = (self.here, self.there) if way is Way.UP else (self.there, self.here)
        renew(self.new, source)
        renew(self.old, destination)
        return destination

    def cut_often(self, way: Way, cuts: int) -> None:
        chance = random.Random(11)
        self.begin(way)
        with CutProxy(self.port) as whole:
            self.sync(way, "--delete", port=whole.port)
        wanted = facts(self.new)
        worst, commands = -NEVER, 0
        for number in range(cuts):
            destination = self.begin(way)
            # Most of the cuts in the direction in which the content goes, some in the other one.
            cut_way = way if number % 3 else next(one for one in Way if one is not way)
            with CutProxy(self.port, self.places(whole, cut_way, chance)) as proxy:
                tries = self.until_done(way, proxy)
                surplus = {one: proxy.passed(one) - whole.passed(one) for one in Way}
            self.assert_same(wanted, facts(destination))
            for one, more in surplus.items():
                self.assertLess(more, SLACK, f"{one.value}, cut {number} in {tries} commands")
            worst, commands = max(worst, *surplus.values()), commands + tries
            _cuts.add(1, way.value)
        self.verify()
        say(f"{cuts} synchronisations cut, {way.value}: {commands} commands, at most {worst} bytes more")

    def places(self, whole: CutProxy, way: Way, chance: random.Random) -> list[Cut]:
        """One cut, anywhere in what passed this way without one."""
        at = chance.randrange(whole.passed(way))
        how = chance.choice((How.RST, How.FIN))
        cuts: list[Cut] = []
        for one in whole.connections:
            passed = one.passed[way]
            if at < passed:
                return [*cuts, Cut(way, at, how)]
            cuts.append(Cut(way, NEVER))
            at -= passed
        raise AssertionError("there were fewer bytes")

    def until_done(self, way: Way, proxy: CutProxy) -> int:
        """Run the command until it comes to its end; how often it was run. It may say 5: try again."""
        for tries in range(1, TRIES + 1):
            said = self.sync(way, "--delete", port=proxy.port, status=None)
            if said.status == 0:
                return tries
            self.assertEqual(said.status, 5, said.stderr[-2000:])
        raise AssertionError(f"not done in {TRIES} commands: {said.stderr[-2000:]}")

    def test_up(self) -> None:
        """To the server: whatever is cut, the next command at the latest comes to the end."""
        self.cut_often(Way.UP, CUTS // 2)

    def test_down(self) -> None:
        """From the server."""
        self.cut_often(Way.DOWN, CUTS // 2)
