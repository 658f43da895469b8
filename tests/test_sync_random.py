"""Any two trees under any rules: a tree in memory takes the actions of the plan."""

from __future__ import annotations

from copy import deepcopy

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import DeletionRefused
from fileexport.sync.plan import Hashes, Plan, plan, questions
from fileexport.sync.rules import Limit, Patterns, Rules
from tests.sync_model import Destination, Nodes, manifest_of, pairs, planned

RULES = st.builds(
    Rules,
    delete=st.sampled_from([True, True, False]),
    max_delete=st.sampled_from([Limit(percent=100), Limit(percent=100), Limit(percent=50), Limit(count=2)]),
    checksum=st.booleans(),
    patterns=st.sampled_from([(), (), (), ("*.o",), ("b/", "!a"), ("/a",), ("*.o", "!c.o", "a/b")]).map(
        Patterns
    ),
    ignores=st.sampled_from([{}, {}, {"b": Patterns(["a", "!c.o"])}]),
)
many = settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
some = settings(many, max_examples=100)


def left_out(nodes: Nodes, rules: Rules) -> set[str]:
    """The paths that the rules leave out, with all below."""
    found: set[str] = set()
    for path in sorted(nodes, key=lambda path: path.split("/")):
        if path and (path.rpartition("/")[0] in found or rules.leaves_out(path, nodes[path].is_directory)):
            found.add(path)
    return found


def is_below(path: str, tops: set[str]) -> bool:
    """Whether a path is one of those, or lies below one."""
    names = path.split("/")
    return any("/".join(names[:depth]) in tops for depth in range(1, len(names) + 1))


class RandomTests(SynchronousTestCase):
    """Any two trees under any rules."""

    def applied(self, source: Nodes, destination: Nodes, rules: Rules) -> tuple[Plan, Destination]:
        """The plan and what it makes of the destination."""
        made = planned(source, destination, rules)
        after = Destination(dict(destination), source, rules)
        for action in made.actions:
            after.carry_out(action)
        return made, after

    @many
    @given(pairs(), RULES)
    def test_equal(self, trees: tuple[Nodes, Nodes], rules: Rules) -> None:
        """Every action can be done at its turn, and in the end the destination is as the source."""
        source, before = trees
        try:
            made, after = self.applied(source, before, rules)
        except DeletionRefused:
            event("refused")
            return
        out = left_out(source, rules) | {problem.path for problem in made.problems}
        for path, node in source.items():
            if is_below(path, out) or is_below(path, left_out(before, rules)):
                continue
            there = after.nodes[path]
            if node.entry.kind == "link":
                self.assertEqual(there.entry.target, node.entry.target, path)
            else:
                self.assertEqual(there.entry, node.entry, path)
            if rules.checksum or before.get(path) is None or before[path].entry[:3] != node.entry[:3]:
                self.assertEqual(there.content, node.content, path)
        self.check_rest(source, before, after, out, rules)

    def check_rest(
        self, source: Nodes, before: Nodes, after: Destination, out: set[str], rules: Rules
    ) -> None:
        """What is only at the destination is gone, or it must stay; what is excluded is untouched."""
        protected = left_out(before, rules)
        kept = {path for path in before if path in protected or is_below(path, out)}
        for path in kept:
            if not before[path].is_directory or path in protected:
                self.assertEqual(after.nodes[path], before[path], path)
        for path in after.nodes.keys() - source.keys():
            if rules.delete:
                self.assertTrue(any(f"{other}/".startswith(f"{path}/") for other in kept), path)
            else:
                self.assertIn(path, before)
        if not rules.delete:
            self.assertFalse(
                {path for path in before.keys() - source.keys() if path not in after.nodes}, "nothing may go"
            )

    @some
    @given(pairs(), RULES)
    def test_again(self, trees: tuple[Nodes, Nodes], rules: Rules) -> None:
        """A second plan has nothing to do, and is not refused."""
        source, before = trees
        try:
            made, after = self.applied(source, before, rules)
        except DeletionRefused:
            return
        again = planned(source, after.nodes, rules)
        self.assertEqual(again.actions, [])
        blocked = {problem for problem in again.problems}
        self.assertLessEqual(blocked, set(made.problems))

    @some
    @given(pairs(), RULES)
    def test_limit(self, trees: tuple[Nodes, Nodes], rules: Rules) -> None:
        """No more is lost than the limit allows; with less it is refused, and told what would be."""
        source, before = trees
        rules = Rules(True, Limit(percent=100), rules.checksum, rules.patterns, rules.ignores)
        try:
            made, after = self.applied(source, before, rules)
        except DeletionRefused as error:
            self.assertIn("an empty source", str(error))
            self.assertLessEqual(source.keys() - {""} - left_out(source, rules), self.unfit(source))
            return
        files = [
            path
            for path in after.lost
            if path not in source and not before[path].is_directory and not is_below(path, set(source) - {""})
        ]
        for count in range(len(files)):
            limited = Rules(True, Limit(count=count), rules.checksum, rules.patterns, rules.ignores)
            with self.assertRaises(DeletionRefused) as caught:
                planned(source, before, limited)
            most = int(str(caught.exception).rpartition(" ")[2])
            allowed = Rules(True, Limit(count=most), rules.checksum, rules.patterns, rules.ignores)
            self.assertEqual(planned(source, before, allowed), made)
            self.assertLessEqual(len(files), most)

    @staticmethod
    def unfit(source: Nodes) -> set[str]:
        """Everything that cannot be synchronised."""
        return {path for path, node in source.items() if node.entry.kind in ("link", "other")}

    @some
    @given(pairs(), RULES)
    def test_pure(self, trees: tuple[Nodes, Nodes], rules: Rules) -> None:
        """Planning changes nothing, and says the same each time."""
        source, destination = map(manifest_of, trees)
        kept = deepcopy((source.folders, destination.folders))
        hashes = Hashes(
            {path: node.digest for path, node in trees[0].items()},
            {path: node.digest for path, node in trees[1].items()},
        )
        answers: list[object] = []
        for _ in range(2):
            try:
                answers.append(
                    (questions(source, destination, rules), plan(source, destination, rules, hashes))
                )
            except DeletionRefused as error:
                answers.append(str(error))
        self.assertEqual(answers[0], answers[1])
        self.assertEqual((source.folders, destination.folders), kept)

    @some
    @given(pairs(), RULES)
    def test_totals(self, trees: tuple[Nodes, Nodes], rules: Rules) -> None:
        """The totals are those of the actions, and every entry that takes part is counted once."""
        source, before = trees
        try:
            made = planned(source, before, rules)
        except DeletionRefused:
            return
        by_kind: dict[str, int] = {}
        for action in made.actions:
            by_kind[action.kind] = by_kind.get(action.kind, 0) + 1
        totals = made.totals
        self.assertEqual(totals.moved, by_kind.get("move", 0))
        self.assertEqual(totals.copied, by_kind.get("copy", 0))
        gone = [action for action in made.actions if action.kind == "remove" and not action.sources]
        self.assertEqual(totals.removed, len(gone))
        self.assertEqual(totals.set, by_kind.get("set", 0))
        self.assertEqual(totals.bytes, sum(a.size for a in made.actions if a.kind in ("send", "update")))
        self.assertLessEqual(totals.files + totals.links + totals.unchanged, totals.entries)
        self.assertLessEqual(totals.entries, len(source) - 1)
