"""The plan of a synchronisation, decision by decision."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import DeletionRefused
from fileexport.paths import MAX_DEPTH, MAX_NAME, MAX_PATH
from fileexport.sync.chunks import LEAST
from fileexport.sync.manifest import Entry, Manifest, omission
from fileexport.sync.plan import SMALL, Problem, Questions, Totals, plan, questions
from fileexport.sync.rules import Limit, Patterns, Rules
from tests.sync_model import Node, Nodes, manifest_of, planned


def file(size: int = 5, mtime: int = 1, mode: int = 0o644, content: int = 0) -> Node:
    return Node(Entry("file", size, mtime, mode), content)


def link(target: str) -> Node:
    return Node(Entry("link", 0, 1, 0, target))


PIPE = Node(Entry("other", 0, 1, 0o600))
DIRECTORY = Node(Entry("directory", 0, 1, 0o755))
DELETE = Rules(delete=True, max_delete=Limit(percent=100))
BIG = 4 * LEAST


def replaced(*actions: tuple[str, ...]) -> list[tuple[str, ...]]:
    """These actions where something else than a directory with content stood at "a"."""
    aside = "a.fileexport-old"
    return [("aside", aside, "a"), *actions, ("remove", aside, "a")]


def tree(**nodes: Node) -> Nodes:
    """A tree with the directories that its paths need; "__" stands for a slash, a last "_" for a suffix."""
    made = {"": DIRECTORY}
    for key, node in nodes.items():
        path = key.replace("__", "/")
        names = path.split("/")
        for depth in range(1, len(names)):
            made.setdefault("/".join(names[:depth]), DIRECTORY)
        made[path] = node
    return made


class DecisionTests(SynchronousTestCase):
    """What becomes of which difference."""

    def actions(self, source: Nodes, destination: Nodes, rules: Rules = DELETE) -> list[tuple[str, ...]]:
        """The actions as kind, path and sources, without those that set times."""
        made = planned(source, destination, rules)
        return [(a.kind, a.path, *a.sources) for a in made.actions if a.kind != "set"]

    def sets(self, source: Nodes, destination: Nodes, rules: Rules = DELETE) -> list[str]:
        """The paths whose times or modes are set."""
        return [a.path for a in planned(source, destination, rules).actions if a.kind == "set"]

    def problems(self, source: Nodes, destination: Nodes, rules: Rules = DELETE) -> dict[str, str]:
        """What is left out."""
        return {problem.path: problem.why for problem in planned(source, destination, rules).problems}

    def test_equal(self) -> None:
        """Nothing is done between equal trees, and nothing asked."""
        some = tree(a__b=file(), c=link("a"), d__e=DIRECTORY)
        asked = questions(manifest_of(some), manifest_of(some), DELETE)
        self.assertEqual(asked, Questions([], []))
        made = planned(some, dict(some), DELETE)
        self.assertEqual((made.actions, made.problems), ([], []))
        self.assertEqual(made.totals, Totals(entries=5, unchanged=5))

    def test_new(self) -> None:
        """Where nothing is, the top is made first, small files go before large ones, the top is set last."""
        source = tree(b=file(SMALL + 1), c=file(SMALL), a__l=link("../b"), d=file())
        made = planned(source, {}, Rules())
        self.assertEqual(
            [(a.kind, a.path) for a in made.actions],
            [
                ("make_directory", ""),
                ("make_directory", "a"),
                ("send", "c"),
                ("send", "d"),
                ("send", "b"),
                ("link", "a/l"),
                ("set", "a"),
                ("set", ""),
            ],
        )
        self.assertEqual(
            made.totals,
            Totals(files=3, bytes=2 * SMALL + 6, directories=2, links=1, set=2, entries=5, unchanged=0),
        )

    def test_order(self) -> None:
        """What is in the way goes first, what is only there last, children before parents."""
        source = tree(a__b=file(), c=file(6))
        before = tree(a=file(7), c__d__e=file(8), x__y__z=file(9))
        self.assertEqual(
            self.actions(source, before),
            [
                ("aside", "a.fileexport-old", "a"),
                ("aside", "c.fileexport-old", "c"),
                ("make_directory", "a"),
                ("send", "a/b"),
                ("send", "c"),
                ("remove", "x/y/z"),
                ("remove", "x/y"),
                ("remove", "x"),
                ("remove", "c.fileexport-old/d/e"),
                ("remove", "c.fileexport-old/d"),
                ("remove", "c.fileexport-old"),
                ("remove", "a.fileexport-old", "a"),
            ],
        )

    def test_hashes(self) -> None:
        """A file of the same size and another time is asked for: if it is equal, only its time is set."""
        for content, actions in ((0, []), (1, [("send", "a")])):
            source, before = tree(a=file(mtime=2)), tree(a=file(content=content))
            asked = questions(manifest_of(source), manifest_of(before), Rules())
            self.assertEqual(asked, Questions(["a"], ["a"]))
            self.assertEqual(self.actions(source, before), actions)
        self.assertEqual(self.sets(tree(a=file(mtime=2)), tree(a=file())), ["a"])

    def test_unanswered(self) -> None:
        """A file whose hash nobody could tell counts as different."""
        source, before = manifest_of(tree(a=file(mtime=2))), manifest_of(tree(a=file()))
        self.assertEqual(plan(source, before, Rules()).actions[0][:2], ("send", "a"))

    def test_checksum(self) -> None:
        """With `checksum` no time is believed."""
        source, before = tree(a=file(content=1)), tree(a=file())
        self.assertEqual(self.actions(source, before, Rules()), [])
        self.assertEqual(self.actions(source, before, Rules(checksum=True)), [("send", "a")])
        self.assertEqual(planned(source, dict(source), Rules(checksum=True)).totals.unchanged, 1)

    def test_mode(self) -> None:
        """A mode alone is set, of files and directories."""
        source = tree(a__b=file(mode=0o600))
        self.assertEqual(self.sets(source, tree(a__b=file())), ["a/b"])
        source["a"] = Node(DIRECTORY.entry._replace(mode=0o700))
        self.assertEqual(self.sets(source, tree(a__b=file(mode=0o600))), ["a"])

    def test_directory_times(self) -> None:
        """A directory in which something changes gets its time back, also where something only goes."""
        source = tree(a=DIRECTORY, b__c=file())
        self.assertEqual(self.sets(source, tree(a__x=file(), b__c=file())), ["a", ""])
        self.assertEqual(self.sets(source, tree(a=DIRECTORY, b__c=file(), x=file())), [""])
        self.assertEqual(self.sets(source, tree(a=DIRECTORY, b__c=file(6))), ["b", ""])

    def test_links(self) -> None:
        """A link with another text is made anew; its time is of no interest."""
        source = tree(a=link("b"))
        self.assertEqual(self.actions(source, tree(a=link("c"))), [("link", "a")])
        self.assertEqual(self.actions(source, tree(a=Node(Entry("link", 0, 99, 0, "b")))), [])
        for new, old, kind in ((source, tree(a=file()), "link"), (tree(a=file()), source, "send")):
            self.assertEqual(self.actions(new, old), replaced((kind, "a")))

    def test_opened(self) -> None:
        """A directory that its owner may not change is opened first, and closed when all is done."""
        closed = Node(DIRECTORY.entry._replace(mode=0o555))
        source = tree(a=closed, b=file()) | {"a/c": file(6)}
        before = tree(a=closed, b=file()) | {"a/c": file()}
        made = planned(source, before, Rules())
        self.assertEqual(
            [(a.kind, a.path, a.entry and a.entry.mode) for a in made.actions],
            [("set", "a", 0o755), ("send", "a/c", 0o644), ("set", "a", 0o555), ("set", "", 0o755)],
        )

    def test_unfit(self) -> None:
        """What cannot be at the destination is told, and what stands there instead stays."""
        source = tree(a=PIPE, b=link("/etc"), c=link("../x"), d=file())
        before = tree(a__x=file(), b=file(), d=file())
        self.assertEqual(self.actions(source, before), [])
        self.assertEqual(list(self.problems(source, before)), ["a", "b", "c"])

    def test_names(self) -> None:
        """A name that is refused is not written, also where it is there already; it may get another mode."""
        source = manifest_of(tree(a=file(6), b__c=file(), d=link("a"), e=file(mode=0o600)))
        before = manifest_of(tree(a=file(), e=file()))
        made = plan(source, before, Rules(), may_be_named=lambda name: name == "b")
        actions = {(action.kind, action.path) for action in made.actions if action.path}
        self.assertEqual(actions, {("make_directory", "b"), ("set", "b"), ("set", "e")})
        self.assertEqual([problem.path for problem in made.problems], ["a", "b/c", "d"])

    def test_too_deep(self) -> None:
        """A path that the destination cannot hold is told, by where the destination lies."""
        source = manifest_of(tree(a__b__c=file()))
        for depth, problems in ((MAX_DEPTH - 3, []), (MAX_DEPTH - 2, ["a/b/c"]), (MAX_DEPTH, ["a"])):
            made = plan(source, Manifest(), Rules(), beneath="/".join(["x"] * depth))
            self.assertEqual([problem.path for problem in made.problems], problems)
        source = manifest_of({"": DIRECTORY, "é" * 100: file(), "a": file()})
        for length, problems in ((MAX_PATH - 201, []), (MAX_PATH - 200, ["é" * 100])):
            made = plan(source, Manifest(), Rules(), beneath="x" * length)
            self.assertEqual([problem.path for problem in made.problems], problems)

    def test_standing_directory(self) -> None:
        """A directory with content in a file's place goes by `delete` alone, an empty one always."""
        source = tree(a=file(), b=file())
        before = tree(a__x=file(6), b=file())
        self.assertEqual(self.actions(source, before, Rules()), [])
        self.assertIn("--delete", self.problems(source, before, Rules())["a"])
        rules = Rules(delete=True, max_delete=Limit(count=1))
        self.assertRaises(DeletionRefused, planned, source, before, rules)
        first, *_, last = replaced()
        gone = [("remove", f"{last[1]}/x"), ("remove", last[1])]
        self.assertEqual(self.actions(source, before), [first, ("send", "a"), *gone])
        self.assertEqual(planned(source, before, DELETE).totals.removed, 2)
        made = self.actions(source, tree(a=DIRECTORY, b=file()), Rules())
        self.assertEqual(made, replaced(("send", "a")))

    def test_aside_names(self) -> None:
        """What makes way gets a name that neither side has, and that there may be; it counts as nothing."""
        taken = {"a.fileexport-old": file(), "a": file()}
        made = planned({"": DIRECTORY, **taken}, tree(a=link("b")) | {"a.fileexport-old2": file()}, Rules())
        self.assertEqual(made.actions[0][:2], ("aside", "a.fileexport-old3"))
        self.assertEqual((made.totals.removed, made.totals.links), (0, 0))
        for name in ("n" * MAX_NAME, "é" * (MAX_NAME // 2)):
            made = planned(tree(**{name: file()}), tree(**{name: link("a")}), Rules())
            self.assertIn(len(os.fsencode(made.actions[0].path)), (MAX_NAME, MAX_NAME - 1))
        source, before = manifest_of(tree(a=file())), manifest_of(tree(a=link("b")))
        for length, problems in ((MAX_PATH - 17, []), (MAX_PATH - 16, ["a"])):
            made = plan(source, before, Rules(), beneath="x" * length)
            self.assertEqual([problem.path for problem in made.problems], problems)
        before = manifest_of({"": DIRECTORY, "a": DIRECTORY, f"a/{'x' * 100}": file()})
        for length, problems in ((MAX_PATH - 118, []), (MAX_PATH - 117, ["a"])):
            made = plan(source, before, DELETE, beneath="x" * length)
            self.assertEqual([problem.path for problem in made.problems], problems)

    def test_expected(self) -> None:
        """What is moved, or set, has to be the file that was seen; of a directory nothing is expected."""
        before = tree(a=file(), b__c=file(6))
        made = planned(tree(a=file(mode=0o600), d=file(6)), before, DELETE)
        seen = {(action.kind, action.path): action.old for action in made.actions if action.old}
        self.assertEqual(seen, {("move", "d"): before["b/c"].entry, ("set", "a"): before["a"].entry})

    def test_top(self) -> None:
        """The top is set whenever anything is done below it: staging comes and goes there."""
        made = self.sets(tree(a__b__c=file(6)), tree(a__b__c=file()), Rules())
        self.assertEqual(made, ["a/b", ""])

    def test_unknown_source(self) -> None:
        """Where the source is not wholly known, no directory makes way with what it holds."""
        mine, theirs = manifest_of(tree(a__b=file())), manifest_of(tree(a__b__c=file(), a__d=DIRECTORY))
        mine.unreadable["a"] = "permission denied"
        made = plan(mine, theirs, DELETE)
        self.assertEqual(made.actions, [])
        self.assertEqual({problem.path for problem in made.problems}, {"a", "a/b"})

    def test_excluded(self) -> None:
        """What is excluded is neither sent nor removed, nor is what holds it."""
        rules = Rules(True, Limit(percent=100), patterns=Patterns(["*.o", "keep/"]))
        source = {"": DIRECTORY, "a.o": file(), "b": file(), "d": file()}
        before = {"": DIRECTORY, "c.o": file(), "b": file(), "d": DIRECTORY, "d/x.o": file(), "e": DIRECTORY}
        before |= {"e/keep": DIRECTORY, "e/keep/f": file(), "e/g": file()}
        self.assertEqual(self.actions(source, before, rules), [("remove", "e/g")])
        self.assertEqual(list(self.problems(source, before, rules)), ["d"])

    def test_unreadable_source(self) -> None:
        """Nothing is removed where the source could not be read, in the directory and below."""
        source, before = tree(a__b__c=file(), d=file()), tree(a__b__x=file(6), a__y=file(7), d=file())
        for folders in (["a"], []):
            mine = manifest_of(source)
            for folder in folders:
                del mine.folders[folder]
            mine.unreadable["a"] = "permission denied"
            made = plan(mine, manifest_of(before), DELETE)
            self.assertNotIn("remove", [action.kind for action in made.actions])
            self.assertEqual(made.problems, [Problem("a", "permission denied")])

    def test_unreadable_destination(self) -> None:
        """A directory that could not be listed to its end stays, and is told."""
        theirs = manifest_of(tree(a__b=file(), d=file()))
        theirs.unreadable["a"] = "permission denied"
        made = plan(manifest_of(tree(d=file())), theirs, DELETE)
        self.assertEqual([(a.kind, a.path) for a in made.actions], [("remove", "a/b"), ("set", "")])
        self.assertEqual(
            made.problems, [Problem("a", "at the destination: permission denied", at_destination=True)]
        )
        made = plan(manifest_of(tree(a=file(), d=file())), theirs, DELETE)
        self.assertEqual([problem.path for problem in made.problems], ["a"])

    def test_unnamed(self) -> None:
        """Where the source has names that no path can hold, the others are sent and nothing is removed."""
        mine, theirs = manifest_of(tree(d__x=file(), e=file())), manifest_of(tree(d__y=file(), f=file()))
        mine.unreadable["d"] = omission(2)
        made = plan(mine, theirs, Rules(True, Limit(percent=100)))
        actions = [(a.kind, a.path) for a in made.actions if a.kind != "set"]
        self.assertEqual(actions, [("send", "d/x"), ("send", "e"), ("remove", "f")])
        self.assertEqual(made.problems, [Problem("d", omission(2))])


class AgainTests(SynchronousTestCase):
    """Content that is at the destination already."""

    def actions(self, source: Nodes, destination: Nodes, rules: Rules = DELETE) -> list[tuple[str, ...]]:
        made = planned(source, destination, rules)
        return [(a.kind, a.path, *a.sources) for a in made.actions if a.kind != "set"]

    def test_moved(self) -> None:
        """A file of another name is moved; without `delete` a large one is copied and a small one sent."""
        for size, kept in ((5, ("send", "b")), (BIG, ("copy", "b", "a"))):
            source, before = tree(b=file(size)), tree(a=file(size))
            self.assertEqual(self.actions(source, before), [("move", "b", "a")])
            self.assertEqual(self.actions(source, before, Rules()), [kept])

    def test_small(self) -> None:
        """A small file has moved only if its time is the same too, a large one also if it differs."""
        self.assertEqual(
            self.actions(tree(b=file(mtime=2)), tree(a=file())), [("send", "b"), ("remove", "a")]
        )
        source, before = tree(b=file(BIG, mtime=2)), tree(a=file(BIG))
        self.assertEqual(self.actions(source, before), [("move", "b", "a")])
        self.assertIn("b", [a.path for a in planned(source, before, DELETE).actions if a.kind == "set"])

    def test_namesakes(self) -> None:
        """Of equal files each goes to its own name, wherever that is, and every one moves once."""
        source = tree(n__a=file(), n__b=file(), n__c=file(), n__d=file())
        before = tree(o__c=file(), o__a=file(), o__x=file())
        self.assertEqual(
            self.actions(source, before),
            [
                ("make_directory", "n"),
                ("move", "n/a", "o/a"),
                ("move", "n/b", "o/x"),
                ("move", "n/c", "o/c"),
                ("copy", "n/d", "n/a"),
                ("remove", "o", "o"),
            ],
        )

    def test_tree(self) -> None:
        """A tree that moved sends nothing, and loses nothing that would count."""
        source = tree(new__a__b=file(), new__c=file(6))
        before = tree(old__a__b=file(), old__c=file(6))
        made = planned(source, before, Rules(delete=True, max_delete=Limit(count=0)))
        self.assertEqual((made.totals.bytes, made.totals.moved, made.totals.removed), (0, 2, 0))

    def test_emptied(self) -> None:
        """A directory counts as removed where it held more than what moved, or was empty before."""
        source = tree(new__a=file(6), new__b=file(7))
        before = tree(old__a=file(6), old__c=DIRECTORY, gone__x=file(8), gone__y__b=file(7))
        made = planned(source, before, DELETE)
        lost = [action.path for action in made.actions if action.kind == "remove" and not action.sources]
        self.assertEqual(lost, ["old/c", "old", "gone/x", "gone"])
        self.assertEqual((made.totals.removed, made.totals.moved), (4, 2))
        rules = Rules(delete=True, max_delete=Limit(count=3))
        refusal = self.assertRaises(DeletionRefused, planned, source, before, rules)
        self.assertIn("4 of 7 entries", str(refusal))

    def test_replacing(self) -> None:
        """A file may be moved over one that changed."""
        self.assertEqual(self.actions(tree(a=file(6)), tree(a=file(), b=file(6))), [("move", "a", "b")])

    def test_in_the_way(self) -> None:
        """What stands in the way is not moved."""
        self.assertEqual(
            self.actions(tree(a__b=file()), tree(a=file())),
            replaced(("make_directory", "a"), ("send", "a/b")),
        )

    def test_copied(self) -> None:
        """A large file that is there and stays is copied."""
        source = tree(a=file(BIG), b=file(BIG))
        self.assertEqual(self.actions(source, tree(a=file(BIG))), [("copy", "b", "a")])
        self.assertEqual(self.actions(source, tree(a=file(BIG, mtime=2))), [("copy", "b", "a")])

    def test_empty_files(self) -> None:
        """Empty files are sent."""
        self.assertEqual(self.actions(tree(b=file(0)), tree(a=file(0))), [("send", "b"), ("remove", "a")])

    def test_updated(self) -> None:
        """A large file that changed is updated from its old version, a small one is sent whole."""
        self.assertEqual(self.actions(tree(a=file(BIG)), tree(a=file(BIG + 1))), [("update", "a", "a")])
        self.assertEqual(self.actions(tree(a=file(LEAST - 1)), tree(a=file(BIG))), [("send", "a")])
        self.assertEqual(self.actions(tree(a=file(BIG)), tree(a=file(LEAST - 1))), [("send", "a")])

    def test_bases(self) -> None:
        """Other bases are files that go: of the same name, of the same suffix, of nearly the same size."""
        nodes = {
            "o/x.iso": file(BIG + 90),
            "far.iso": file(9 * BIG),
            "near.img": file(BIG + 1),
            "b.iso": file(BIG + 50),
        }
        before = {"": DIRECTORY, "o": DIRECTORY, "other.img": file(BIG - 3), "small.iso": file(6), **nodes}
        self.assertEqual(
            self.actions({"": DIRECTORY, "x.iso": file(BIG)}, before)[0],
            ("update", "x.iso", "o/x.iso", "b.iso", "far.iso"),
        )
        self.assertEqual(
            self.actions({"": DIRECTORY, "x.img": file(BIG)}, before)[0],
            ("update", "x.img", "near.img", "other.img", "b.iso"),
        )
        before["x.iso"] = file(BIG + 7)
        self.assertEqual(
            self.actions({"": DIRECTORY, "x.iso": file(BIG)}, before)[0],
            ("update", "x.iso", "x.iso", "o/x.iso"),
        )


class RefusalTests(SynchronousTestCase):
    """`DeletionRefused`."""

    def refusal(self, source: Nodes, destination: Nodes, rules: Rules) -> str:
        """What is said."""
        return str(self.assertRaises(DeletionRefused, planned, source, destination, rules))

    def test_limit(self) -> None:
        """It says how many of how many, the limit, and what allows it."""
        before = tree(a=file(), b__c=file(), b__d=file(), e=file())
        said = self.refusal(tree(a=file()), before, Rules(delete=True))
        self.assertEqual(
            said, "4 of 5 entries would be removed, and the limit is 50%: allow it with --max-delete 4"
        )
        said = self.refusal(tree(a=file()), before, Rules(delete=True, max_delete=Limit(count=3)))
        self.assertIn("the limit is 3", said)
        planned(tree(a=file()), before, Rules(delete=True, max_delete=Limit(count=4)))

    def test_excluded_do_not_count(self) -> None:
        """What is excluded is no part of the whole."""
        before = tree(a=file(), b=file(), c=file(), x__y=file(), x__z=file())
        rules = Rules(delete=True, patterns=Patterns(["x"]))
        self.assertIn("2 of 3", self.refusal(tree(a=file()), before, rules))

    def test_empty_source(self) -> None:
        """An empty source removes nothing, whatever is allowed; nor does one of which all is left out."""
        before = tree(a=file())
        self.assertIn("empty source", self.refusal(tree(), before, DELETE))
        rules = Rules(True, Limit(percent=100), patterns=Patterns(["b"]))
        self.assertIn("empty source", self.refusal(tree(b=file()), before, rules))
        self.assertIn("empty source", self.refusal(tree(b=PIPE), before, DELETE))

    def test_nothing_to_remove(self) -> None:
        """An empty source and an empty destination are equal, and without `delete` nothing is refused."""
        self.assertEqual(planned(tree(), tree(), DELETE).actions, [])
        self.assertEqual(planned(tree(), tree(a=file()), Rules()).actions, [])
        self.assertEqual([a.kind for a in planned(tree(), {}, DELETE).actions], ["make_directory", "set"])
