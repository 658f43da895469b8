"""What a synchronisation leaves out, and how much it may remove."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from fileexport.sync.manifest import Entry, Manifest
from fileexport.sync.rules import Limit, Patterns, Rules, ignore_files

FILE = Entry("file", 1, 2, 0o644)
DIRECTORY = Entry("directory", 0, 3, 0o755)


class PatternTests(SynchronousTestCase):
    """`Patterns`: as in a .gitignore file."""

    def test_patterns(self) -> None:
        """A name, a directory, an anchor, an exception."""
        patterns = Patterns(["*.o", "build/", "/top", "!keep.o"])
        for path in ("a.o", "x/a.o", "top", "a\udcff.o", "a\n.o", "x\ny/a.o", "top/below"):
            self.assertTrue(patterns.match(path), path)
        for path in ("keep.o", "x/keep.o", "build", "x/top", "a.c", "a.o\n"):
            self.assertFalse(patterns.match(path), path)
        self.assertTrue(patterns.match("x/build", is_directory=True))
        self.assertTrue(patterns.match("x/build/a"))

    def test_parents(self) -> None:
        """What lies in a directory that is left out cannot be taken in again."""
        patterns = Patterns(["build/", "!build/a"])
        self.assertTrue(patterns.match("build/a"))
        self.assertIs(patterns.decide("build/a"), False)

    def test_decide(self) -> None:
        """A path of which no pattern says anything is undecided, whatever is said of its directory."""
        patterns = Patterns(["*.o", "!keep.o", "x/"])
        self.assertIs(patterns.decide("a.o"), True)
        self.assertIs(patterns.decide("keep.o"), False)
        self.assertIsNone(patterns.decide("a.c"))
        self.assertIsNone(patterns.decide("x/a"))
        self.assertIsNone(patterns.decide("x"))
        self.assertIs(patterns.decide("x", is_directory=True), True)

    def test_none(self) -> None:
        """Without patterns nothing is left out, nor is the top ever."""
        self.assertFalse(Patterns())
        self.assertFalse(Patterns().match("a"))
        self.assertFalse(Patterns(["*"]).match("", is_directory=True))

    def test_one(self) -> None:
        """A text alone is one pattern."""
        self.assertTrue(Patterns("ab").match("ab"))
        self.assertFalse(Patterns("ab").match("a"))

    def test_comment(self) -> None:
        """Comments and empty lines say nothing."""
        patterns = Patterns(["# a", "", "  ", "/"])
        self.assertFalse(patterns)
        self.assertFalse(patterns.match("# a"))

    def test_wrong(self) -> None:
        """What cannot be read is a ValueError."""
        for pattern in ("!", "[z-a]"):
            self.assertRaises(ValueError, Patterns, [pattern])
        self.assertRaises(ValueError, Patterns, [None])

    def test_time(self) -> None:
        """However many stars a pattern has, a long path is judged at once."""
        deep = "/".join(["a"] * 60)
        for pattern, path in (
            ("*a" * 40 + "*b", "a" * 250),
            ("a*" * 40 + "b/c", "a" * 250 + "/c"),
            ("**/a/" * 20 + "b", deep),
            ("a/" + "**/*a*/" * 20 + "b", deep),
            ("*a" * 20 + "/**/" + "*a" * 20 + "/**/b", f"{'a' * 60}/" * 30 + "a"),
            ("**a" * 40 + "/b", "a" * 250),
        ):
            self.assertFalse(Patterns([pattern]).match(path), pattern)

    def test_quiet(self) -> None:
        """Brackets in brackets, and what else Python may read otherwise some day, print nothing."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            patterns = Patterns(["[[a]", "[+--]", "[a||b]", "[&&~~]"])
        self.assertTrue(patterns.match("["))

    def test_no_slash(self) -> None:
        """A set never stands for a slash."""
        for pattern in ("a[!b]c", "a[+-0]c"):
            self.assertFalse(Patterns([pattern]).match("a/c"))

    def test_file(self) -> None:
        """A file of patterns may have any bytes, a mark in front and ends of lines as elsewhere."""
        patterns = Patterns.of_file(b"\xef\xbb\xbfa\r\n!\n[z-a]\nb\xff\nc")
        for path in ("a", "b\udcff", "c"):
            self.assertTrue(patterns.match(path), path)
        self.assertFalse(patterns.match("b"))
        self.assertFalse(Patterns.of_file(b""))


class LimitTests(SynchronousTestCase):
    """`Limit`."""

    def test_count(self) -> None:
        """A number is one of entries."""
        limit = Limit.parse("100")
        self.assertTrue(limit.allows(100, 100))
        self.assertFalse(limit.allows(101, 10**6))
        self.assertEqual(str(limit), "100")

    def test_percent(self) -> None:
        """A percentage is of what the destination has, to the entry."""
        limit = Limit.parse("10%")
        self.assertTrue(limit.allows(1, 10))
        self.assertTrue(limit.allows(2, 29))
        self.assertFalse(limit.allows(3, 29))
        self.assertTrue(limit.allows(0, 0))
        self.assertEqual(str(limit), "10%")

    def test_nothing(self) -> None:
        """Nothing, if that is the limit."""
        for text in ("0", "0%"):
            self.assertFalse(Limit.parse(text).allows(1, 100))
            self.assertTrue(Limit.parse(text).allows(0, 100))

    def test_wrong(self) -> None:
        """Other texts are refused."""
        for text in ("", "%", "-1", "1.5", "1.5%", "101%", "many", "1 %", "1%%", "٣", "9" * 30):
            self.assertRaises(ValueError, Limit.parse, text)


class RuleTests(SynchronousTestCase):
    """`Rules`."""

    def test_default(self) -> None:
        """Nothing is left out, nothing is deleted, and half of it at most if it is asked for."""
        rules = Rules()
        self.assertFalse(rules.is_selective)
        self.assertFalse(rules.leaves_out("a", False))
        self.assertEqual((rules.delete, rules.checksum, str(rules.max_delete)), (False, False, "50%"))

    def test_include(self) -> None:
        """What is included behind the excludes is taken, also against a .gitignore file."""
        rules = Rules(patterns=Patterns(["*.o", "!keep.o"]), ignores={"": Patterns(["keep.o", "*.log"])})
        self.assertTrue(rules.is_selective)
        self.assertTrue(rules.leaves_out("x/a.o", False))
        self.assertFalse(rules.leaves_out("x/keep.o", False))
        self.assertTrue(rules.leaves_out("x/a.log", False))

    def test_deepest(self) -> None:
        """The deepest .gitignore file that names a path decides, from where it lies."""
        rules = Rules(ignores={"": Patterns(["*.o", "!a.c"]), "x/y": Patterns(["!b.o", "/a.c"])})
        self.assertTrue(rules.leaves_out("b.o", False))
        self.assertFalse(rules.leaves_out("x/y/b.o", False))
        self.assertTrue(rules.leaves_out("x/y/c.o", False))
        self.assertTrue(rules.leaves_out("x/y/a.c", False))
        self.assertFalse(rules.leaves_out("x/y/z/a.c", False))

    def test_ignore_files(self) -> None:
        """What has that name is named, whatever it is."""
        link = Entry("link", 0, 0, 0, "x")
        manifest = Manifest(
            DIRECTORY,
            {
                "": {".gitignore": FILE, "a": DIRECTORY},
                "a": {".gitignore": link, "b": DIRECTORY},
                "a/b": {".gitignore": FILE, "c": DIRECTORY},
                "a/b/c": {".gitignore": DIRECTORY},
            },
        )
        names = [".gitignore", "a/.gitignore", "a/b/.gitignore", "a/b/c/.gitignore"]
        self.assertEqual(ignore_files(manifest), names)


SEGMENTS = ["a", "b", "c.o", "*", "**", "*.o", "?", "[ab]", "[!a]", "a*", "\\a", "b**", ".*", "c.?"]
SEGMENTS += ["*a*", "a*b*", "*a*b", "*?*", "**a*b**", "a[!b]b", "[+-0]", "[[a]", "a*a"]
LINES = st.tuples(
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=5).map("/".join),
    st.sampled_from(["", "", "/"]),
).map("".join)
PATHS = st.lists(st.sampled_from(["a", "b", "c.o", ".x", "ab", "aab", "aabab"]), min_size=1, max_size=4).map(
    "/".join
)


class GitTests(SynchronousTestCase):
    """Against git itself."""

    def setUp(self) -> None:
        if shutil.which("git") is None:
            raise SkipTest("git is not installed")
        self.directory = Path(self.enterContext(TemporaryDirectory()))
        self.tree = self.directory / "tree"
        self.environment = {
            **os.environ,
            "HOME": str(self.directory),
            "XDG_CONFIG_HOME": str(self.directory),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_DIR": str(self.directory / "git"),
            "GIT_WORK_TREE": str(self.tree),
        }
        self.tree.mkdir()
        self.git("init", "-q")

    def git(self, *arguments: str, text: str = "") -> str:
        """What git says; 1 means that nothing is ignored."""
        done = subprocess.run(
            ["git", *arguments],
            input=text,
            capture_output=True,
            text=True,
            cwd=self.tree,
            env=self.environment,
        )
        self.assertIn(done.returncode, (0, 1), done.stderr)
        return done.stdout

    def make(self, paths: list[str], ignores: dict[str, list[str]]) -> list[str]:
        """Make files at those paths where nothing is in the way; all the paths that exist then."""
        shutil.rmtree(self.tree)
        self.tree.mkdir()
        for path in paths:
            place = self.tree / path
            if not place.exists() and all(above.is_dir() or not above.exists() for above in place.parents):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
        for directory, lines in ignores.items():
            if (self.tree / directory).is_dir():
                (self.tree / directory / ".gitignore").write_text("\n".join(lines))
        return sorted(str(place.relative_to(self.tree)) for place in self.tree.rglob("*"))

    @settings(max_examples=80, deadline=None)
    @given(
        st.lists(PATHS, min_size=1, max_size=12),
        st.dictionaries(st.sampled_from(["", "a", "a/b", "b"]), st.lists(LINES, max_size=4), max_size=3),
    )
    def test_git(self, paths: list[str], ignores: dict[str, list[str]]) -> None:
        """What is left out is what git ignores."""
        known = self.make(paths, ignores)
        theirs = set(
            self.git("check-ignore", "--no-index", "-z", "--stdin", text="\0".join(known)).split("\0")
        )
        read = {
            directory: Patterns.of_file((self.tree / directory / ".gitignore").read_bytes())
            for directory in ignores
            if (self.tree / directory).is_dir()
        }
        rules = Rules(ignores=read)
        mine: set[str] = set()
        for path in known:
            if path.rpartition("/")[0] in mine or rules.leaves_out(path, (self.tree / path).is_dir()):
                mine.add(path)
        self.assertEqual(mine, theirs - {""})
