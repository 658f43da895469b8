"""Who writes which name now."""

from __future__ import annotations

import contextlib
from threading import Barrier, Thread

from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import BusyError, PeerGone
from fileexport.leases import QUIET, Lease, Leases, Place

PLACE = Place(1, 2, "name")


class LeasesTests(SynchronousTestCase):
    """One place, one writer."""

    def test_taken(self) -> None:
        """Who comes second is told who was first, and since when."""
        leases = Leases()
        leases.take(PLACE, "alice from here", 17)
        error = self.assertRaises(BusyError, leases.take, PLACE, "bob", 18)
        self.assertEqual((error.holder, error.since), ("alice from here", 17))

    def test_same_holder(self) -> None:
        """The same holder is no exception: an upload has one writer."""
        leases = Leases()
        leases.take(PLACE, "alice", 1)
        self.assertRaises(BusyError, leases.take, PLACE, "alice", 2)

    def test_others(self) -> None:
        """Another name, directory or device is another place."""
        leases = Leases()
        for place in (PLACE, Place(1, 2, "other"), Place(1, 3, "name"), Place(2, 2, "name")):
            leases.take(place, "alice", 1)
        self.assertEqual(len(leases), 4)

    def test_released(self) -> None:
        """What was given back can be taken; giving it back again takes nothing from the next one."""
        leases = Leases()
        first = leases.take(PLACE, "alice", 1)
        self.assertTrue(leases.holds(PLACE))
        first.release()
        self.assertFalse(leases.holds(PLACE))
        second = leases.take(PLACE, "bob", 2)
        first.release()
        self.assertEqual(self.assertRaises(BusyError, leases.take, PLACE, "eve", 3).holder, "bob")
        second.release()
        self.assertEqual(len(leases), 0)

    def test_many(self) -> None:
        """One lease of many places: each is taken once, one can go before the others, all go together."""
        leases = Leases()
        lease = leases.many("alice", 1)
        places = [PLACE._replace(name=name) for name in "abc"]
        for now, place in enumerate(places, 5):
            lease.add(place, now)
        for taker in (lambda: lease.add(places[1], 9), lambda: leases.take(places[1], "bob", 9, heir=b"b")):
            error = self.assertRaises(BusyError, taker)
            self.assertEqual((error.holder, error.since), ("alice", 5))
        lease.drop(places[0])
        leases.take(places[0], "bob", 10).release()
        self.assertEqual(len(leases), 2)
        lease.release()
        self.assertEqual(len(leases), 0)
        leases.take(places[1], "bob", 11)
        self.assertEqual(self.assertRaises(BusyError, lease.add, places[1], 12).holder, "bob")
        lease.add(places[0], 13)
        self.assertEqual((lease.since, len(leases)), (13, 2))

    def test_looked_at(self) -> None:
        """Who only looks is told the same, and takes nothing."""
        leases = Leases()
        leases.check(PLACE)
        with leases.take(PLACE, "alice", 17):
            error = self.assertRaises(BusyError, leases.check, PLACE)
            self.assertEqual((error.holder, error.since), ("alice", 17))
        self.assertEqual(len(leases), 0)

    def test_beside(self) -> None:
        """Another name in the same directory is held with the first, unless somebody has it."""
        leases = Leases()
        lease = leases.take(PLACE, "alice", 1)
        beside = leases.take(PLACE._replace(name="a"), "bob", 2)
        self.assertRaises(BusyError, lease.add_beside, "a", 3)
        lease.add_beside("b", 4)
        self.assertRaises(BusyError, leases.take, PLACE._replace(name="b"), "bob", 5)
        lease.release()
        beside.release()
        self.assertEqual(len(leases), 0)

    def test_with(self) -> None:
        """Who leaves a `with` block has given it back, also by an error."""
        leases = Leases()
        with self.assertRaises(KeyError), leases.take(PLACE, "alice", 1):
            self.assertEqual(len(leases), 1)
            raise KeyError
        self.assertEqual(len(leases), 0)

    def test_comes_again(self) -> None:
        """Who comes again takes the place of what it has left behind: that is told, and given back soon."""
        leases = Leases()
        told: list[str] = []
        first = leases.take(PLACE, "alice", 1, heir=b"a", revoked=lambda: told.append("gone"))
        for heir in (b"b", None):
            self.assertRaises(BusyError, leases.take, PLACE, "eve", 1 + QUIET, heir=heir)
        first.check()
        for _ in range(2):
            error = self.assertRaises(BusyError, leases.take, PLACE, "alice again", 1 + QUIET, heir=b"a")
            self.assertEqual(error.holder, "alice")
            self.assertRaises(PeerGone, first.check)
        self.assertEqual(told, ["gone"])
        first.release()
        leases.take(PLACE, "alice again", 2 + QUIET, heir=b"a").check()

    def test_at_work(self) -> None:
        """Whoever is at work, or was just now, is left in peace; so is who named no heir."""
        leases = Leases()
        nobody = leases.take(PLACE._replace(name="other"), "alice", 1)
        self.assertRaises(BusyError, leases.take, PLACE._replace(name="other"), "alice", 1 + QUIET, heir=None)
        nobody.check()
        lease = leases.take(PLACE, "alice", 1, heir=b"a")
        self.assertRaises(BusyError, leases.take, PLACE, "alice", QUIET, heir=b"a")
        lease.work()
        self.assertRaises(BusyError, leases.take, PLACE, "alice", 9 * QUIET, heir=b"a")
        lease.rest(9 * QUIET)
        self.assertRaises(BusyError, leases.take, PLACE, "alice", 10 * QUIET - 1, heir=b"a")
        lease.check()
        self.assertRaises(BusyError, leases.take, PLACE, "alice", 10 * QUIET, heir=b"a")
        self.assertRaises(PeerGone, lease.check)

    def test_threads(self) -> None:
        """Of many threads that try at once, one gets it."""
        leases, barrier = Leases(), Barrier(8)
        got: list[Lease] = []

        def take() -> None:
            barrier.wait()
            with contextlib.suppress(BusyError):
                got.append(leases.take(PLACE, "x", 1))

        threads = [Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(got), 1)
