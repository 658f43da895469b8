"""Real trees, both ways, from the shell and from the library: equal afterwards, and nothing is sent twice."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from fileexport import SyncResult, synchronize_download, synchronize_upload
from tests.odd_names import ODD_NAMES
from tests.proof.commands import FILEEXPORT
from tests.proof.counts import SOAK, Tally
from tests.proof.process import KIB, say
from tests.proof.proxy import Way
from tests.proof.sync_case import PATIENCE, SyncCase, facts, heard, library
from tests.proof.transfer_case import content
from tests.proof.users import bound_by_modes

_synchronised = Tally("trees synchronised")
#: Times that a careless program loses: before 1970, of one nanosecond, far away.
TIMES = (-1, 1, 10**9 + 1, 4_102_444_800_123_456_789)
MODES = (0o400, 0o600, 0o644, 0o664, 0o711, 0o755, 0o777)


def odd_entries(tree: Path) -> None:
    """Names, times, modes, links and directories that a real tree may have."""
    odd = tree / "odd"
    (odd / "names").mkdir(parents=True)
    for number, name in enumerate(ODD_NAMES):
        (odd / "names" / name).write_bytes(content(name, number * 100))
    (odd / "directories").mkdir()
    for name in ODD_NAMES:
        (odd / "directories" / name).mkdir()
    for place, mode in enumerate(MODES):
        path = odd / f"mode-{mode:o}"
        path.write_bytes(content(path.name, place))
        path.chmod(mode)
        directory = odd / f"directory-{mode | 0o700:o}"
        directory.mkdir(exist_ok=True)
        directory.chmod(mode | 0o700)
    (odd / "read-only").mkdir()
    (odd / "read-only" / "file").write_bytes(b"in a directory that nobody may change")
    (odd / "read-only").chmod(0o500)
    links(odd / "links")
    deep = odd.joinpath(*"abcdefghijklmnopqrstuvwxyz")
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"deep")
    for number, nanoseconds in enumerate(TIMES):
        path = odd / f"time-{number}"
        path.write_bytes(b"")
        os.utime(path, ns=(nanoseconds, nanoseconds))
        (odd / f"old-{number}").mkdir()
        os.utime(odd / f"old-{number}", ns=(nanoseconds, nanoseconds))


def links(directory: Path) -> None:
    """Links that stay inside, to files, directories, nothing, and to themselves."""
    (directory / "below").mkdir(parents=True)
    (directory / "target").write_bytes(b"target")
    (directory / "to-file").symlink_to("target")
    (directory / "below" / "up").symlink_to("../target")
    (directory / "below" / "to-directory").symlink_to("..")
    (directory / "to-nothing").symlink_to("not/there")
    (directory / "to-itself").symlink_to("to-itself")
    (directory / "odd").symlink_to("a b\udce9\n")


def change(tree: Path) -> None:
    """Every kind of change that a tree may see."""
    files = sorted(path for path in tree.rglob("*.py") if path.is_file())
    for path in files[::50]:
        path.write_bytes(path.read_bytes() + b"# changed\n")
    for path in files[10::50]:
        path.unlink()
    for path in files[20::50]:
        path.rename(path.with_name(f"moved-{path.name}"))
    for number, path in enumerate(files[30::50]):
        path.with_name(f"new-{path.name}").write_bytes(content(path.name, number * KIB))
    # The same size, and another content or another time alone.
    files[1].write_bytes(files[1].read_bytes()[::-1])
    os.utime(files[2], ns=(1, 1))
    files[3].chmod(0o600)
    (tree / "json").rename(tree / "json-moved")
    replace_kinds(tree)
    odd = tree / "odd"
    shutil.rmtree(odd / "directories")
    shutil.rmtree(odd / "a" / "b")
    (odd / "links" / "to-file").unlink()
    (odd / "links" / "to-file").symlink_to("below")


def replace_kinds(tree: Path) -> None:
    """A file becomes a directory, a directory a file, a link either, and either a link."""
    odd = tree / "odd"
    first, second, third = (tree / name for name in ("abc.py", "bisect.py", "calendar.py"))
    first.unlink()
    (first / "below").mkdir(parents=True)
    (first / "below" / "file").write_bytes(b"in a directory that was a file")
    second.unlink()
    second.symlink_to("cmd.py")
    shutil.rmtree(tree / "collections")
    (tree / "collections").write_bytes(b"a file that was a directory")
    shutil.rmtree(tree / "email")
    (tree / "email").symlink_to("encodings")
    (odd / "links" / "to-nothing").unlink()
    (odd / "links" / "to-nothing").write_bytes(b"a file that was a link")
    (odd / "links" / "odd").unlink()
    (odd / "links" / "odd").mkdir()
    third.write_bytes(third.read_bytes() * 20)


class TreeCase(SyncCase):
    """Has a real tree with odd entries at one side."""

    options = ("--names", "posix")

    def fill(self, tree: Path) -> None:
        library(tree)
        odd_entries(tree)

    def both_ways(self, run: Callable[[Way], int]) -> None:
        """Up, down to another place, and after changes both ways again. `run` tells the bytes it sent."""
        self.fill(self.here)
        entries = len(facts(self.here))
        sent = self.twice(run, Way.UP)
        self.here = self.here.with_name("back")
        self.twice(run, Way.DOWN)
        if not SOAK and isinstance(self, LibraryTests):
            # What the shell does stands for the rest.
            return
        change(self.here)
        again = self.twice(run, Way.UP)
        # A tree that is new here, so that the server's changes come to one that was synchronised.
        shutil.rmtree(self.there / "odd")
        odd_entries(self.there)
        self.twice(run, Way.DOWN)
        say(f"a tree of {entries} entries: {sent} bytes, and {again} after changes")

    def twice(self, run: Callable[[Way], int], way: Way) -> int:
        """Synchronise; the second time there is nothing to do. The bytes that it sent."""
        sent = run(way)
        self.assert_equal_trees()
        self.assertEqual(run(way), 0, "file bytes in the second run")
        _synchronised.add(2)
        return sent


class ShellTests(TreeCase):
    """`fileexport sync`."""

    def test_both_ways(self) -> None:
        """Trees are equal after it, `verify` agrees, and a second run does nothing at all."""
        done: set[Way] = set()

        def run(way: Way) -> int:
            said = self.sync(way, "--delete")
            if way in done:
                self.assertEqual(said.actions, [])
            done.symmetric_difference_update({way})
            return said.content

        self.both_ways(run)

    def test_moved(self) -> None:
        """Of files and trees that have another name, nothing is sent."""
        self.fill(self.here)
        self.sync(Way.UP, "--delete")
        (self.here / "encodings").rename(self.here / "odd" / "encodings-moved")
        (self.here / "argparse.py").rename(self.here / "odd" / "parse.py")
        said = self.sync(Way.UP, "--delete")
        self.assertEqual(said.content, 0, [one for one in said.actions if one[0] in ("send", "update")])
        self.assert_equal_trees()

    def test_dry_run(self) -> None:
        """What `--dry-run` says is what happens then, action by action, and it changes nothing."""
        self.fill(self.here)
        self.sync(Way.UP, "--delete")
        change(self.here)
        before = facts(self.there)
        foretold = self.sync(Way.UP, "--delete", "--dry-run")
        self.assert_same(before, facts(self.there))
        done = self.sync(Way.UP, "--delete")
        self.assertEqual(foretold.actions, done.actions)
        self.assertTrue(done.actions)


class LibraryTests(TreeCase):
    """`synchronize_upload` and `synchronize_download`."""

    def test_both_ways(self) -> None:
        """The same as from the shell."""
        client = self.client(self.port)

        def run(way: Way) -> int:
            done: SyncResult
            if way is Way.UP:
                done = synchronize_upload(client, str(self.here), "/there", delete=True)
            else:
                done = synchronize_download(client, "/there", str(self.here), delete=True)
            self.assertEqual(done.problems, [])
            return done.bytes_sent

        self.both_ways(run)


class LeftOutTests(SyncCase):
    """What cannot be synchronised is named, never skipped in silence; the rest is done."""

    def test_links_and_others(self) -> None:
        """Links that lead out and what is no file are left out, both ways: exit code 9."""
        for way, source in ((Way.UP, self.here), (Way.DOWN, self.there)):
            shutil.rmtree(self.here, ignore_errors=True)
            shutil.rmtree(self.there, ignore_errors=True)
            source.mkdir()
            outside = {
                "absolute": "/etc/passwd",
                "above": "..",
                "far": "../../etc",
                "through": "d/../../../x",
            }
            for name, target in outside.items():
                (source / name).symlink_to(target)
            os.mkfifo(source / "fifo")
            links(source / "links")
            (source / "d").mkdir()
            said = self.sync(way, "--delete", status=9)
            for name in (*outside, "fifo"):
                self.assertIn(name, said.stderr)
                self.assertFalse(os.path.lexists((self.there if way is Way.UP else self.here) / name), name)
            kept = {name: one for name, one in facts(source).items() if name not in (*outside, "fifo")}
            other = facts(self.there if way is Way.UP else self.here)
            self.assert_same(kept, other)
            self.verify(9)
            self.assertEqual(self.sync(way, "--delete", status=9).content, 0)

    def test_names(self) -> None:
        """Names that this server does not create are left out and named: exit code 9."""
        self.here.mkdir()
        (self.here / "plain").write_bytes(b"plain")
        (self.here / "a:b").write_bytes(b"not portable")
        (self.here / "c?").mkdir()
        (self.here / "c?" / "below").write_bytes(b"below")
        said = self.sync(Way.UP, "--delete", status=9)
        for name in ("a:b", "c?"):
            self.assertIn(name, said.stderr)
        self.assertEqual([path.name for path in self.there.iterdir()], ["plain"])

    def test_unreadable(self) -> None:
        """Nothing is removed below a directory that cannot be read, and it is named."""
        for name in ("closed", "open"):
            (self.there / name).mkdir(parents=True)
            (self.there / name / "file").write_bytes(b"there")
            (self.here / name).mkdir(parents=True)
        (self.here / "keep").write_bytes(b"keep")
        (self.here / "closed").chmod(0)
        self.addCleanup((self.here / "closed").chmod, 0o700)
        done = subprocess.run(
            (*bound_by_modes(), FILEEXPORT, *self.words(Way.UP, "--delete", "--max-delete", "100%")),
            env=self.environ(self.port),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        said = heard(done.returncode, done.stdout, done.stderr)
        self.assertNotEqual(said.status, 0)
        self.assertIn("closed", said.stderr)
        self.assertTrue((self.there / "closed" / "file").exists())
        self.assertFalse((self.there / "open" / "file").exists())


class RefusedTests(SyncCase):
    """Deletions that are refused: nothing is removed, and it is said why."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(10):
            path = self.there / f"file-{number}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x")

    def refused(self, *options: str, status: int = 6) -> None:
        before = facts(self.there)
        said = self.sync(Way.UP, "--delete", *options, status=status)
        self.assert_same(before, facts(self.there))
        self.assertTrue(said.errors, said)
        self.assertEqual(said.named("remove") & {"file-1"}, set())

    def test_empty_source(self) -> None:
        """An empty source deletes nothing, whatever is allowed; nor does one that is all excluded."""
        self.here.mkdir()
        self.refused("--max-delete", "100%")
        (self.here / "left.tmp").write_bytes(b"x")
        self.refused("--max-delete", "100%", "--exclude", "*.tmp")

    def test_missing_source(self) -> None:
        """Nor does one that is not there."""
        self.refused("--max-delete", "100%", status=3)

    def test_limits(self) -> None:
        """More than half, unless it is allowed; a number, a percentage."""
        self.here.mkdir()
        for number in range(4):
            shutil.copy2(self.there / f"file-{number}", self.here)
        self.refused()
        for limit in ("5", "59%"):
            self.refused("--max-delete", limit)
        self.sync(Way.UP, "--delete", "--max-delete", "6")
        self.assert_equal_trees()

    def test_excluded(self) -> None:
        """What is excluded is protected, with what holds it."""
        self.here.mkdir()
        (self.here / "new").write_bytes(b"new")
        (self.there / "kept" / "below").mkdir(parents=True)
        (self.there / "kept" / "below" / "precious.bin").write_bytes(b"precious")
        self.sync(Way.UP, "--delete", "--max-delete", "100%", "--exclude", "*.bin")
        found = sorted(str(path.relative_to(self.there)) for path in self.there.rglob("*"))
        self.assertEqual(found, ["kept", "kept/below", "kept/below/precious.bin", "new"])
