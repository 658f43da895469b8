"""A path becomes a descriptor: one table of expectations for both strategies."""

from __future__ import annotations

import errno
import operator
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from itertools import count, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.calls import Calls
from fileexport.disk.resolve import MAX_HELD, MAX_LINKS, Openat2, Resolver, Walk
from fileexport.paths import RESERVED, RelPath
from tests.watched import FailAt, WatchedCalls, open_descriptors

if TYPE_CHECKING:
    Case = SynchronousTestCase
else:
    # No test case by itself: trial would run it without a strategy.
    Case = object

READ = os.O_RDONLY | os.O_NONBLOCK
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY

Identity = tuple[int, int]

#: What lies in the base; a target with an arrow is a link.
TREE = """
    file  dir/file  dir/sub/file  dir/sub/deep/file  .hidden/file  .fileexport/file  dir/.hidden
    ../outside/file  to-file->file  to-dir->dir  to-base->.  dir/to-base->..  dir/up-file->../file
    dir/sub/up-2->../../dir/file
    dotted->./dir//sub/./file  slash->dir/  down-up->dir/../file  dir/sub/round->../../dir/sub/../file
    two->to-dir/up-file  dir/two->to-base/to-dir/sub  odd\x1blink->file  %2e%2e->file  ...->dir
    above->..  dir/above->../..  out->../outside  out-file->../outside/file  out-in->../base/file
    out-in-dir->../base  dir/out->../../outside/file  down-out->dir/../../outside/file  twice-out->out/file
    through-out->dir/above/base/file  far->../../../../../../../../../../../../../../../../../../proc/version
    absolute->/  absolute-in->{base}/file  absolute-out->{base}/../outside/file  proc->/proc/self/cwd
    to-absolute->absolute-in  loop->loop  loop-a->loop-b  loop-b->loop-a  loop-dir->dir/../loop-dir/x
    dangling->missing  dangling-deep->dir/missing/file  through-file->file/../dir  through-missing->no/../file
    under-file->file/x  long->{long}
    to-hidden->.hidden/file  to-hidden-dir->.hidden  by-hidden->.hidden/../file  .link->file  to-link->.link
    to-ours->.fileexport/file  to-ours-dir->.fileexport  by-ours->.fileexport/../file  dir/by-ours->../by-ours
"""

#: A path and what it leads to: an object of the tree, or an error.
CASES: tuple[tuple[str, str | int], ...] = (
    *(("", "."), ("file", "file"), ("dir", "dir"), ("dir/sub/deep/file", "dir/sub/deep/file")),
    *(("to-file", "file"), ("to-dir", "dir"), ("to-dir/sub/file", "dir/sub/file"), ("to-base", ".")),
    *(
        ("to-base/to-base/to-base/file", "file"),
        ("dir/to-base", "."),
        ("dir/to-base/dir/to-base/file", "file"),
    ),
    *(("dir/up-file", "file"), ("dir/sub/up-2", "dir/file"), ("dotted", "dir/sub/file"), ("slash", "dir")),
    *(("slash/file", "dir/file"), ("down-up", "file"), ("dir/sub/round", "dir/file"), ("two", "file")),
    *(("dir/two", "dir/sub"), ("dir/two/deep/file", "dir/sub/deep/file"), ("odd\x1blink", "file")),
    *(("%2e%2e", "file"), (".../file", "dir/file"), ("fifo", "fifo"), ("dir/sub", "dir/sub")),
    *((f"chain-{MAX_LINKS}", "file"), (f"chain-{MAX_LINKS + 1}", errno.ELOOP)),
    *((f"dir-chain-{MAX_LINKS}/file", "dir/file"), (f"dir-chain-{MAX_LINKS + 1}/file", errno.ELOOP)),
    *((f"to-dir/to-base/chain-{MAX_LINKS - 1}", errno.ELOOP), (f"to-base/chain-{MAX_LINKS - 1}", "file")),
    *(("missing", errno.ENOENT), ("missing/x", errno.ENOENT), ("dir/missing", errno.ENOENT)),
    *(("file/x", errno.ENOTDIR), ("to-file/x", errno.ENOTDIR), ("dir/file/x/y", errno.ENOTDIR)),
    *(("n" * 255, errno.ENOENT), ("long", errno.ENAMETOOLONG)),
    *(("above", errno.ENOENT), ("above/base/file", errno.ENOENT), ("dir/above", errno.ENOENT)),
    *(("dir/to-base/above", errno.ENOENT), ("to-dir/above/base", errno.ENOENT), ("out", errno.ENOENT)),
    *(
        ("out/file", errno.ENOENT),
        ("out-file", errno.ENOENT),
        ("dir/out", errno.ENOENT),
        ("far", errno.ENOENT),
    ),
    *(("down-out", errno.ENOENT), ("twice-out", errno.ENOENT), ("through-out", errno.ENOENT)),
    *(("out-in", errno.ENOENT), ("out-in-dir", errno.ENOENT), ("out-in-dir/file", errno.ENOENT)),
    *(("absolute", errno.ENOENT), ("absolute/proc/version", errno.ENOENT), ("absolute-in", errno.ENOENT)),
    *(("absolute-out", errno.ENOENT), ("to-absolute", errno.ENOENT), ("proc", errno.ENOENT)),
    *(("loop", errno.ELOOP), ("loop/x", errno.ELOOP), ("loop-a", errno.ELOOP), ("loop-dir", errno.ELOOP)),
    *(("dangling", errno.ENOENT), ("dangling/x", errno.ENOENT), ("dangling-deep", errno.ENOENT)),
    *(("through-file", errno.ENOTDIR), ("through-missing", errno.ENOENT), ("under-file", errno.ENOTDIR)),
    *((".hidden/file", ".hidden/file"), ("to-hidden", ".hidden/file"), ("by-hidden", "file")),
    *((".fileexport", errno.ENOENT), (".fileexport/file", errno.ENOENT), ("file/.fileexport", errno.ENOENT)),
    *(("dir/.fileexport", errno.ENOENT), ("to-ours", errno.ENOENT), ("to-ours-dir", errno.ENOENT)),
    *(("to-ours-dir/file", errno.ENOENT), ("by-ours", errno.ENOENT), ("dir/by-ours", errno.ENOENT)),
)

#: The same for a caller who may not see names with a leading dot.
HIDDEN_CASES: tuple[tuple[str, str | int], ...] = (
    *(("file", "file"), ("to-dir/up-file", "file"), ("dir/sub/up-2", "dir/file"), ("dir/to-base", ".")),
    *((".hidden", errno.ENOENT), (".hidden/file", errno.ENOENT), (".hidden/missing", errno.ENOENT)),
    *((".missing", errno.ENOENT), ("dir/.hidden", errno.ENOENT), ("to-dir/.hidden", errno.ENOENT)),
    *(("to-hidden", errno.ENOENT), ("to-hidden-dir", errno.ENOENT), ("to-hidden-dir/file", errno.ENOENT)),
    *(("by-hidden", errno.ENOENT), (".link", errno.ENOENT), ("to-link", errno.ENOENT), ("...", errno.ENOENT)),
    *(("file/.hidden", errno.ENOENT), ("loop/.hidden", errno.ENOENT), ("to-ours", errno.ENOENT)),
)


def admits_all(name: str) -> bool:
    return name != RESERVED


def admits_plain(name: str) -> bool:
    return not name.startswith(".")


def make(base: Path) -> None:
    """Make the tree of the table."""
    base.mkdir()
    for entry in TREE.format(base=base.absolute(), long="n" * 256).split():
        name, arrow, target = entry.partition("->")
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            path.symlink_to(target)
        else:
            path.write_text(name)
    os.mkfifo(base / "fifo")
    for start, prefix in (("file", "chain"), ("dir", "dir-chain")):
        for number in range(1, MAX_LINKS + 2):
            (base / f"{prefix}-{number}").symlink_to(f"{prefix}-{number - 1}" if number > 1 else start)


def identity(descriptor: int) -> Identity:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


class Base:
    """An open directory and a resolver over it."""

    def __init__(self, path: Path, resolver: Callable[[Calls], Resolver]) -> None:
        self.path = path
        self.resolver = resolver
        self.descriptor = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self.descriptor)

    def truth(self, name: str) -> Identity:
        status = os.lstat(self.path / name)
        return status.st_dev, status.st_ino

    def open(
        self,
        path: str,
        flags: int = READ,
        admits: Callable[[str], bool] = admits_all,
        calls: Calls | None = None,
    ) -> int:
        resolver = self.resolver(calls or Calls())
        return resolver.open(self.descriptor, RelPath.parse(path).parts, flags, admits)

    def lead(
        self, path: str, flags: int = READ, admits: Callable[[str], bool] = admits_all
    ) -> Identity | int:
        """What a path leads to, or the errno."""
        try:
            descriptor = self.open(path, flags, admits)
        except OSError as error:
            return error.errno or 0
        try:
            return identity(descriptor)
        finally:
            os.close(descriptor)


class Contract(Case):
    """What every strategy promises; the test cases below say which one."""

    resolver: Callable[[Calls], Resolver]

    def setUp(self) -> None:
        work = Path(self.mktemp())
        work.mkdir()
        # Some of it is deeper than trial can remove.
        self.addCleanup(shutil.rmtree, work)
        make(work / "base")
        self.base = Base(work / "base", type(self).resolver)
        self.addCleanup(self.base.close)
        self.before = open_descriptors()
        self.addCleanup(self.nothing_stays_open)

    def nothing_stays_open(self) -> None:
        self.assertEqual(open_descriptors() - self.before, set(), "no descriptor stays open")

    def check(
        self, cases: tuple[tuple[str, str | int], ...], flags: int, admits: Callable[[str], bool]
    ) -> None:
        for path, expected in cases:
            wanted = self.base.truth(expected) if isinstance(expected, str) else expected
            self.assertEqual(self.base.lead(path, flags, admits), wanted, f"{path} must lead to {expected}")

    def test_table(self) -> None:
        """Every path of the table leads where it says, opened for reading."""
        self.check(CASES, READ, admits_all)

    def test_plain(self) -> None:
        """Where links lead nowhere, all that is reached without one leads where it did."""
        resolver = type(self).resolver(Calls())
        for flags in (READ, os.O_PATH, os.O_PATH | os.O_DIRECTORY):
            for path, leads in (
                *(("dir", "dir"), ("dir/sub", "dir/sub"), ("", "."), (".hidden", ".hidden")),
                *(("to-dir", None), ("to-dir/sub", None), ("slash", None), ("dir/to-base/dir", None)),
                *(("to-file", None), ("loop", None), ("out", None), ("absolute", None), ("dangling", None)),
            ):
                parts = RelPath.parse(path).parts
                if leads is None:
                    self.assertRaises(
                        FileNotFoundError,
                        *(resolver.open, self.base.descriptor, parts, flags, admits_all),
                        plain=True,
                    )
                    continue
                descriptor = resolver.open(self.base.descriptor, parts, flags, admits_all, plain=True)
                try:
                    self.assertEqual(identity(descriptor), self.base.truth(leads), path)
                finally:
                    os.close(descriptor)

    def test_table_of_paths(self) -> None:
        """The same where only the place is asked for, without the right to read."""
        self.check(CASES, os.O_PATH, admits_all)

    def test_table_of_directories(self) -> None:
        """Asked for a directory, what leads to a file is none, and the rest stays as it was."""
        cases = tuple(
            (
                path,
                errno.ENOTDIR if isinstance(leads, str) and not (self.base.path / leads).is_dir() else leads,
            )
            for path, leads in CASES
        )
        for flags in (DIRECTORY, os.O_PATH | os.O_DIRECTORY):
            self.check(cases, flags, admits_all)

    def test_hidden(self) -> None:
        """What a caller may not see does not exist, nor does a link that passes it."""
        for flags in (READ, os.O_PATH):
            self.check(HIDDEN_CASES, flags, admits_plain)

    def test_deepest(self) -> None:
        """A path of the most names and bytes is resolved, with a link at its end too."""
        name = "n" * 63
        here = os.open(self.base.path, os.O_RDONLY)
        for part in [name] * 63:
            os.mkdir(part, dir_fd=here)
            below = os.open(part, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.symlink("target", "n" * 64, dir_fd=here)
        os.close(os.open("target", os.O_CREAT, dir_fd=here))
        wanted = os.stat("target", dir_fd=here)
        os.close(here)
        path = "/".join([*[name] * 63, "n" * 64])
        self.assertEqual(len(path), 4096)
        self.assertEqual(self.base.lead(path), (wanted.st_dev, wanted.st_ino))

    def test_links_into_the_deep(self) -> None:
        """Links that lead deeper than descriptors may be held are refused, and all are closed again."""
        here = os.open(self.base.path, os.O_RDONLY)
        for depth in range(MAX_HELD + 40):
            if depth % 60 == 0:
                os.symlink("d/" * 60, "jump", dir_fd=here)
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        self.assertEqual(self.base.lead("jump/jump/jump/jump/jump"), errno.ELOOP)
        self.assertEqual(type(self.base.lead("jump/jump/jump/jump")), tuple)

    def test_nothing_stays_open(self) -> None:
        """Whichever call fails on the way, its error comes out and no descriptor stays open."""
        for path, flags in (("dir/two/deep/file", READ), ("dir/two/deep/file", os.O_PATH), ("to-base", READ)):
            for number in count(1):
                fail = FailAt(number, errno.EMFILE)
                try:
                    os.close(self.base.open(path, flags, calls=WatchedCalls(fail)))
                except OSError as error:
                    self.assertEqual(error.errno, errno.EMFILE, fail.reached)
                    self.assertEqual(
                        open_descriptors() - self.before, set(), f"call {number}: {fail.reached}"
                    )
                if not fail.reached:
                    break

    def test_base_stays_open(self) -> None:
        """The base is the caller's: it is open after a success and after a failure."""
        for path in ("dir", "", "dir/to-base", "missing", "above", "dir/above"):
            self.base.lead(path)
            os.fstat(self.base.descriptor)

    def test_moved_base(self) -> None:
        """A base that is moved is still the base: nothing of its new surroundings can be reached."""
        (self.base.path.parent / "outside/inner").mkdir()
        moved = self.base.path.rename(self.base.path.parent / "outside/inner/base")
        self.base.path = moved
        self.check(
            (("to-dir/up-file", "file"), ("above", errno.ENOENT), ("out", errno.ENOENT)), READ, admits_all
        )

    def test_close_on_exec(self) -> None:
        """What is opened is not inherited by another program."""
        for path in ("dir/file", "to-dir", "to-base"):
            descriptor = self.base.open(path)
            self.assertEqual(os.get_inheritable(descriptor), False)
            os.close(descriptor)


class WalkTests(Contract, SynchronousTestCase):
    """One name at a time."""

    resolver = Walk

    def test_takes_no_shortcut(self) -> None:
        """The walk never asks the system for more than one name, so that no link is followed unseen."""
        names: list[str] = []

        def note(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if name in ("open", "readlink"):
                names.append(arguments[0])

        os.close(self.base.open("dir/two/deep/file", calls=WatchedCalls(note)))
        self.assertIn("deep", names)
        self.assertEqual([name for name in names if "/" in name or name == ".."], [])


def is_available() -> bool:
    here = os.open(".", os.O_RDONLY)
    try:
        return Openat2.is_available(Calls(), here)
    finally:
        os.close(here)


class Openat2Tests(Contract, SynchronousTestCase):
    """By openat2(2)."""

    resolver = Openat2
    if not is_available():
        skip = "the kernel has no openat2"

    def test_one_call(self) -> None:
        """A path without links takes one call."""
        calls: list[str] = []
        watched = WatchedCalls(lambda name, arguments, keywords: calls.append(name))
        os.close(self.base.open("dir/sub/deep/file", calls=watched))
        self.assertEqual(calls, ["openat2"])

    def test_is_available(self) -> None:
        """A kernel without the call, or a filter that refuses it, is no error; another failure is."""
        for number, answer in ((errno.ENOSYS, False), (errno.EPERM, False), (0, True)):
            calls = WatchedCalls(FailAt(1 if number else 0, number))
            self.assertEqual(Openat2.is_available(calls, self.base.descriptor), answer)
        calls = WatchedCalls(FailAt(1, errno.EMFILE))
        self.assertRaises(OSError, Openat2.is_available, calls, self.base.descriptor)

    def test_tried_again(self) -> None:
        """A kernel that was disturbed by a rename, or by a signal, is asked again, but not for ever."""
        for number in (errno.EAGAIN, errno.EINTR):
            os.close(self.base.open("dir/file", calls=WatchedCalls(FailAt(1, number))))

        def disturb(*_: object) -> None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        with self.assertRaises(BlockingIOError):
            self.base.open("dir/file", calls=WatchedCalls(disturb))


#: Directories and files that are always there; links are put among them at random.
TRUNK = ("a/b/a/file", "a/b/.d/file", "b/a/file", "file")
PLACES = st.sampled_from(("", "a/", "a/b/", "a/b/a/", "a/b/.d/", "b/", "b/a/"))
LEAVES = st.sampled_from(("x", "y", "z", ".l"))
STEPS = st.sampled_from(("a", "b", "file", "x", "y", "z", ".d", ".l", "..", "..", ".."))
#: Targets of links by the links' paths.
LINKS = st.dictionaries(
    st.builds(operator.add, PLACES, LEAVES),
    st.builds(
        operator.add, st.sampled_from(("", "../")), st.lists(STEPS, min_size=1, max_size=5).map("/".join)
    ),
    min_size=3,
    max_size=14,
)
PATHS = st.lists(
    st.builds("/".join, st.lists(STEPS.filter(lambda step: step != ".."), min_size=1, max_size=4)),
    min_size=2,
    max_size=8,
)


class RandomTreeTests(SynchronousTestCase):
    """Random directories and links; nothing moves."""

    if not is_available():
        skip = "the kernel has no openat2"

    def grow(self, links: dict[str, str]) -> Path:
        # Its name stands in no link, so what leaves it can never come back.
        root = Path(self.mktemp()).absolute() / "tree"
        for name in TRUNK:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        for name, target in links.items():
            (root / name).symlink_to(target)
        return root

    @staticmethod
    def truth(root: Path, path: str) -> Identity | None:
        """What the system finds at the path, if that is in the tree."""
        try:
            status = os.stat(root / path)
        except OSError:
            return None
        real = os.path.realpath(root / path)
        inside = real == str(root) or real.startswith(f"{root}/")
        return (status.st_dev, status.st_ino) if inside else None

    @settings(max_examples=150, deadline=None)
    @given(LINKS, PATHS)
    def test_truth(self, links: dict[str, str], paths: list[str]) -> None:
        """Both strategies find what the system finds beneath the base, and nothing else."""
        root = self.grow(links)
        for base in (Base(root, Walk), Base(root, Openat2)):
            with closing(base):
                for path in (*links, *paths):
                    found = base.lead(path)
                    place = found if isinstance(found, tuple) else None
                    self.assertEqual(place, self.truth(root, path), (path, found))

    @settings(max_examples=150, deadline=None)
    @given(LINKS, PATHS)
    def test_same(self, links: dict[str, str], paths: list[str]) -> None:
        """Both strategies give the same answer, the error included, to callers who see all and who do not."""
        root = self.grow(links)
        questions = list(product((*links, *paths), (READ, os.O_PATH, DIRECTORY), (admits_all, admits_plain)))
        answers = []
        for base in (Base(root, Walk), Base(root, Openat2)):
            with closing(base):
                answers.append([base.lead(*question) for question in questions])
        self.assertEqual(*answers)
