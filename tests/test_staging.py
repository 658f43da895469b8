"""Files that appear complete or not at all: stage, commit, discard."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk import calls as calls_module
from fileexport.disk.calls import Calls
from fileexport.disk.jail import Jail, View
from fileexport.disk.staging import Place, Staged, stage
from fileexport.errors import ConflictError, FileNameError
from fileexport.paths import RESERVED, RelPath
from tests.watched import NAMES, FailAt, Later, Watch, WatchedCalls, forbid, open_descriptors, unprivileged

ALL = View()
ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.EROFS, errno.EINTR, errno.EACCES)

P = RelPath.parse


class StagingCase(SynchronousTestCase):
    """Has a root with an old version of `d/file`, and a jail; no descriptor may stay open."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()) / "root"
        (self.root / "d").mkdir(parents=True)
        self.file = self.root / "d/file"
        self.file.write_text("old")
        self.staging = self.root / RESERVED
        self.before = open_descriptors()
        self.addCleanup(self.nothing_stays_open)
        self.jail = self.watched(lambda *_: None)

    def nothing_stays_open(self) -> None:
        self.assertEqual(open_descriptors() - self.before, set())

    def jail_with(self, watch: Watch, *, durable: bool = True) -> Jail:
        """A jail with somebody in front of each of its calls."""
        return Jail(str(self.root), calls=WatchedCalls(watch), durable=durable)

    def watched(self, watch: Watch, *, durable: bool = True) -> Jail:
        """The same, closed after the test."""
        jail = self.jail_with(watch, durable=durable)
        self.addCleanup(jail.close)
        return jail

    def staged(self, path: str = "d/file", content: bytes = b"new", jail: Jail | None = None) -> Staged:
        """Begin a file and write its content."""
        staged = (jail or self.jail).stage(ALL, P(path))
        staged.write(content)
        return staged

    def left(self) -> list[str]:
        """What is in the staging of the root."""
        return os.listdir(self.staging) if self.staging.exists() else []

    def fails(self, number: int, function: Callable[..., object], *arguments: Any, **keywords: Any) -> None:
        """The call must fail with this errno."""
        with self.assertRaises(OSError) as caught:
            function(*arguments, **keywords)
        self.assertEqual(caught.exception.errno, number)


class CommitTests(StagingCase):
    """From `stage` to `commit` or `discard`."""

    def test_invisible(self) -> None:
        """Until it is committed a file is not in any listing, and the old version is read."""
        staged = self.staged()
        self.assertEqual([entry.name for entry in self.jail.entries(ALL, P("d"))], ["file"])
        self.assertEqual([entry.name for entry in self.jail.entries(ALL, P(""))], ["d"])
        self.assertEqual(self.file.read_text(), "old")
        staged.commit()
        self.assertEqual(self.file.read_text(), "new")
        self.assertEqual(self.left(), [])

    def test_whole_versions(self) -> None:
        """Who reads the old version while it is replaced reads it to its end."""
        with self.jail.open(ALL, P("d/file")) as opened:
            self.staged().commit()
            self.assertEqual(os.read(opened.descriptor, 9), b"old")

    def test_discard(self) -> None:
        """A discarded file is gone, the old version stays; a second time does nothing."""
        staged = self.staged()
        staged.discard()
        staged.discard()
        with self.staged():
            pass
        self.assertEqual((self.file.read_text(), self.left()), ("old", []))

    def test_error_in_the_block(self) -> None:
        """An exception in a `with` block discards, and comes out."""
        with self.assertRaises(KeyError), self.staged():
            raise KeyError
        self.assertEqual((self.file.read_text(), self.left()), ("old", []))

    def test_commit_in_the_block(self) -> None:
        """What was committed in a `with` block stays."""
        with self.staged() as staged:
            staged.commit()
        self.assertEqual(self.file.read_text(), "new")

    def test_used_up(self) -> None:
        """After its end nothing works any more, nor touches whoever got its descriptors' numbers."""
        for end in (Staged.commit, Staged.discard):
            staged = self.staged()
            end(staged)
            others = [os.open(self.root, os.O_RDONLY) for _ in range(4)]
            # Some functions of Python's refuse the number itself.
            self.assertRaises((OSError, ValueError), staged.write, b"x")
            self.assertRaises((OSError, ValueError), staged.commit)
            self.assertRaises((OSError, ValueError), staged.commit, mode=0o600)
            for other in others:
                os.close(other)

    def test_new_only(self) -> None:
        """With `replace=False` a taken name stays as it is, also where it is a link that leads nowhere."""
        (self.root / "d/link").symlink_to("missing")
        for name in ("file", "link"):
            self.fails(errno.EEXIST, self.staged(f"d/{name}").commit, replace=False)
        self.assertEqual((self.file.read_text(), self.left()), ("old", []))
        self.staged("d/other").commit(replace=False)
        self.assertEqual((self.root / "d/other").read_text(), "new")

    def test_new_only_without_the_flag(self) -> None:
        """The same on a file system whose rename cannot refuse: a hard link does."""
        calls = Calls()
        here = os.open(self.root / "d", os.O_RDONLY)
        self.addCleanup(os.close, here)
        (self.root / "d/a").write_text("new")
        os.symlink("file", self.root / "d/link")
        # What renameat2 answers there, without such a file system: the same call with a flag that is none.
        self.patch(calls_module, "_RENAME_NOREPLACE", 1 << 30)
        for name in ("file", "link"):
            self.fails(errno.EEXIST, calls.rename_new, "a", name, dir_fd=here, new_dir_fd=here)
        calls.rename_new("a", "b", dir_fd=here, new_dir_fd=here)
        self.assertEqual(set(os.listdir(here)), {"file", "link", "b"})

    def test_link_replaced(self) -> None:
        """A link with the file's name is replaced itself: what it leads to stays."""
        (self.root / "d/link").symlink_to("file")
        self.staged("d/link").commit()
        self.assertEqual((self.file.read_text(), (self.root / "d/link").read_text()), ("old", "new"))
        self.assertFalse((self.root / "d/link").is_symlink())

    def test_directory_in_the_way(self) -> None:
        """A directory is never replaced."""
        (self.root / "d/sub").mkdir()
        self.fails(errno.EISDIR, self.staged("d/sub").commit)
        self.assertEqual(self.left(), [])

    def test_places(self) -> None:
        """There must be a directory, and neither the root nor our own names nor unseen ones are written."""
        (self.root / "out").symlink_to("..")
        for path, number in (
            *(("missing/x", errno.ENOENT), ("d/file/x", errno.ENOTDIR), ("out/x", errno.ENOENT)),
            *(("", errno.EACCES), (RESERVED, errno.EACCES), (f"{RESERVED}/x", errno.EACCES)),
            *((f"d/{RESERVED}", errno.EACCES), (f"d/{RESERVED}/x", errno.EACCES)),
        ):
            self.fails(number, self.jail.stage, ALL, P(path))
        self.fails(errno.EACCES, self.jail.stage, View(hidden=False), P("d/.env"))
        self.assertFalse(self.staging.exists())

    def test_names(self) -> None:
        """Which names may be created is the jail's rule: the portable one, unless another is given."""
        name = os.fsdecode(b"d/latin-\xe9: x")
        self.assertRaises(FileNameError, self.jail.stage, ALL, P(name))
        jail = Jail(str(self.root), may_be_new=lambda name: True)
        self.addCleanup(jail.close)
        self.staged(name, jail=jail).commit()
        self.assertEqual((self.root / name).read_text(), "new")

    def test_mode(self) -> None:
        """A mode is taken without setuid, setgid and sticky; without one the umask decides."""
        previous = os.umask(0o027)
        self.addCleanup(os.umask, previous)
        for given, mode in ((None, 0o640), (0o600, 0o600), (0o7777, 0o777), (0o100_644, 0o644), (0, 0)):
            self.staged("d/m").commit(mode=given)
            self.assertEqual(stat.S_IMODE((self.root / "d/m").stat().st_mode), mode)

    def test_staging_mode(self) -> None:
        """While it is written nobody else can open the file, whatever its mode."""
        with self.staged():
            self.assertEqual(stat.S_IMODE(self.staging.stat().st_mode), 0o700)

    def test_time(self) -> None:
        """The time of modification is set to the nanosecond when it is given."""
        self.staged().commit(mtime_ns=1_700_000_000_123_456_789)
        self.assertEqual(self.file.stat().st_mtime_ns, 1_700_000_000_123_456_789)

    def test_writing(self) -> None:
        """All is written, in order, however little the disk takes at a time."""

        class Reluctant(Calls):
            def write(self, descriptor: int, data: bytes | memoryview) -> int:
                return super().write(descriptor, data[:3])

        jail = Jail(str(self.root), calls=Reluctant())
        self.addCleanup(jail.close)
        staged = jail.stage(ALL, P("d/file"))
        for data in (b"", b"0123456789", memoryview(b"abcdefg"), b"x"):
            staged.write(data)
        staged.commit()
        self.assertEqual(self.file.read_bytes(), b"0123456789abcdefgx")

    def test_flushes(self) -> None:
        """Content, mode and time are flushed before the name changes, and the directory after it."""
        inode = (self.root / "d").stat().st_ino
        for durable, order in (
            (True, "write fchmod utime fsync-file rename fsync-directory"),
            (False, "write fchmod utime rename"),
        ):
            seen: list[str] = []

            def note(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
                if name == "fsync":
                    name += "-directory" if os.fstat(arguments[0]).st_ino == inode else "-file"
                if name.split("-")[0] in "write fchmod utime fsync rename":
                    seen.append(name)  # noqa: B023  # each round has its own jail

            self.staged(jail=self.watched(note, durable=durable)).commit(mode=0o600, mtime_ns=1)
            self.assertEqual(" ".join(seen), order)


class ShortageTests(StagingCase):
    """A process that could import nothing for a while: it had no descriptor left, say."""

    def test_codecs(self) -> None:
        """A codec that was not found once is never found again; staging needs none."""
        script = (
            "import codecs, sys\n"
            "from fileexport.disk.jail import Jail, View\n"
            "from fileexport.paths import RelPath\n"
            "sys.modules['encodings.ascii'] = None\n"
            "try:\n"
            "    codecs.lookup('ascii')\n"
            "except LookupError:\n"
            "    del sys.modules['encodings.ascii']\n"
            "with Jail(sys.argv[1]).stage(View(), RelPath.parse('x')) as staged:\n"
            "    staged.commit()\n"
        )
        paths = {"PYTHONPATH": str(Path(calls_module.__file__).resolve().parents[2])}
        done = subprocess.run(
            (sys.executable, "-c", script, str(self.root)), capture_output=True, text=True, env=paths
        )
        self.assertEqual(done.stderr, "")
        self.assertTrue((self.root / "x").exists())


class PlaceTests(StagingCase):
    """Where a file is staged, and what happens when that moves."""

    def test_topmost(self) -> None:
        """Staging lies in the exported directory, however deep the caller's part is, and nowhere else."""
        (self.root / "d/e/f").mkdir(parents=True)
        with self.staged("d/e/f/x"):
            self.assertEqual(list(self.root.rglob(RESERVED)), [self.staging])
        self.staging.rmdir()
        with self.jail.stage(View(P("d/e/f")), P("x"), exported=P("d/e")) as staged:
            self.assertEqual(list(self.root.rglob(RESERVED)), [self.root / "d/e" / RESERVED])
            staged.commit()
        self.assertTrue((self.root / "d/e/f/x").exists())

    def test_through_links(self) -> None:
        """A directory reached through a link is written where it is."""
        (self.root / "link").symlink_to("d")
        self.staged("link/file").commit()
        self.assertEqual(self.file.read_text(), "new")

    def test_moved_directory(self) -> None:
        """Into a directory that is not at its path any more nothing is committed, wherever it is."""
        for away, instead in (("moved", True), ("moved", False), ("../outside", False)):
            staged = self.staged()
            (self.root / "d").rename(self.root / away)
            if instead:
                (self.root / "d").mkdir()
            self.assertRaises(ConflictError, staged.commit)
            self.assertEqual(((self.root / away / "file").read_text(), self.left()), ("old", []))
            self.assertFalse((self.file).exists())
            if instead:
                (self.root / "d").rmdir()
            (self.root / away).rename(self.root / "d")
        (self.root / "link").symlink_to("d")
        self.staged("link/file").commit()
        self.assertEqual(self.file.read_text(), "new")

    def test_removed_directory(self) -> None:
        """Into a directory that was removed meanwhile nothing is committed, and nothing is left."""
        self.file.unlink()
        staged = self.staged()
        (self.root / "d").rmdir()
        self.assertRaises(ConflictError, staged.commit)
        self.assertEqual(self.left(), [])

    def test_moved_out(self) -> None:
        """For a directory that has left the jail nothing is staged, neither here nor where it went."""
        calls, away = Calls(), self.root.parent / "away"
        base, target = os.open(self.root, os.O_RDONLY), os.open(self.root / "d", os.O_RDONLY)
        (self.root / "d").rename(away)
        place = Place(base, target, "x", lambda: (0, 0))
        self.fails(errno.EACCES, stage, calls, place, durable=False)
        self.assertEqual(list(self.root.parent.rglob(RESERVED)), [])
        self.assertEqual(os.listdir(away), ["file"])
        os.close(base)
        os.close(target)

    def test_not_listable_between(self) -> None:
        """Directories on the way up need no right to be listed."""
        (self.root / "d/e").mkdir()
        (self.root / "d/e").chmod(0o777)
        forbid(self, self.root / "d", 0o311)
        self.root.chmod(0o777)
        with unprivileged():
            self.staged("d/e/x").commit()
        self.assertTrue((self.root / "d/e/x").exists())

    def test_read_only_root(self) -> None:
        """Where the root cannot be written, beginning fails and nothing is made."""
        forbid(self, self.root, 0o555)
        with unprivileged():
            self.fails(errno.EACCES, self.jail.stage, ALL, P("d/x"))
        self.assertFalse(self.staging.exists())

    def test_read_only_directory(self) -> None:
        """Where only the directory cannot be written, the commit fails, and nothing is left."""
        self.root.chmod(0o777)
        forbid(self, self.root / "d", 0o555)
        with unprivileged():
            self.fails(errno.EACCES, self.staged().commit)
            self.fails(errno.EACCES, self.staged("d/x").commit, replace=False)
        self.assertEqual((self.file.read_text(), self.left()), ("old", []))

    def test_staging_is_no_directory(self) -> None:
        """Where something else has our directory's name, nothing is written through it."""
        away = self.root.parent / "away"
        away.mkdir()
        self.staging.symlink_to("../away")
        self.assertRaises(OSError, self.jail.stage, ALL, P("d/x"))
        self.staging.unlink()
        self.staging.write_text("")
        self.fails(errno.ENOTDIR, self.jail.stage, ALL, P("d/x"))
        self.assertEqual(os.listdir(away), [])


class Counted(Calls):
    """The plain calls on a file system whose figures are chosen."""

    def __init__(self, blocks: int, free: int, flags: int = 0) -> None:
        self.figures = os.statvfs_result((4096, 4096, blocks, free + 9, free, 9, 9, 9, flags, 255))

    def fstatvfs(self, descriptor: int) -> os.statvfs_result:
        return self.figures


class RoomTests(StagingCase):
    """Free space, less what is reserved."""

    def room(self, calls: Calls) -> set[int]:
        """What the jail says of a directory, and what a staged file says."""
        with closing(Jail(str(self.root), calls=calls)) as jail, jail.stage(ALL, P("d/x")) as staged:
            return {jail.room(ALL, P("d")), staged.room()}

    def test_reserve(self) -> None:
        """The reserve is 1 % of a small file system and 256 MiB of a large one; never is less than 0 left."""
        gib = 1 << 30
        for size, free, room in (
            (gib, gib // 2, gib // 2 - gib // 4096 // 100 * 4096),
            (100 * gib, 50 * gib, 50 * gib - (256 << 20)),
            (100 * gib, 256 << 20, 0),
            (100 * gib, 0, 0),
        ):
            self.assertEqual(self.room(Counted(size // 4096, free // 4096)), {room})

    def test_who_does_not_count(self) -> None:
        """A file system that says 0 of 0 has room: only a write can tell."""
        self.assertEqual(self.room(Counted(0, 0)), {sys.maxsize})

    def test_read_only(self) -> None:
        """One that may not be written to says so."""
        with closing(Jail(str(self.root), calls=Counted(99, 9, os.ST_RDONLY))) as jail:
            error = self.assertRaises(OSError, jail.room, ALL, P("d"))
            self.assertEqual(error.errno, errno.EROFS)

    def test_names(self) -> None:
        """A name can be checked before anything is begun, with the answer that beginning would give."""
        self.jail.check_new(ALL, P("d/new"))
        for call in (self.jail.check_new, self.jail.stage):
            self.assertRaises(FileNameError, call, ALL, P("d/a:b"))
            for view, path in ((ALL, ""), (ALL, RESERVED + "/x"), (View(hidden=False), "d/.x")):
                self.assertRaises(PermissionError, call, view, P(path))


class ErrorTests(StagingCase):
    """A call fails, each in turn."""

    def attempt(self, fail: FailAt) -> bool:
        """Replace the file; whether an error came out."""
        try:
            with closing(self.jail_with(fail)) as jail, jail.stage(ALL, P("d/file")) as staged:
                staged.write(b"new")
                staged.commit(mode=0o644, mtime_ns=1)
        except OSError:
            return True
        return False

    def test_each_call(self) -> None:
        """The error comes out, the old version stays, and neither a file nor a descriptor is left.

        Only where the last flush fails, that of the directory, is the new version there, not acknowledged.
        """
        before = open_descriptors()
        for error in ERRNOS:
            for number in count(1):
                self.file.write_text("old")
                fail = FailAt(number, error)
                raised = self.attempt(fail)
                where = f"call {number}, {fail.reached}, {errno.errorcode[error]}"
                if not fail.reached:
                    self.assertGreater(number, 15)
                    break
                self.assertEqual(self.left(), [], where)
                self.assertEqual(open_descriptors() - before, set(), where)
                if (fail.reached, error) == ("openat2", errno.EINTR):
                    # Asked again.
                    continue
                self.assertTrue(raised, where)
                self.assertIn(
                    self.file.read_text(), ("old", "new") if fail.reached == "fsync" else ("old",), where
                )

    def test_closing(self) -> None:
        """When closing fails, as on a network file system, the error comes out and the rest is closed."""
        for number in (1, 2, 3):
            staged = self.staged(jail=self.watched(watch := Later()))
            watch.then = FailAt(number, errno.EDQUOT, spared=tuple(NAMES - {"close"}))
            self.fails(errno.EDQUOT, staged.commit)
            self.assertEqual(self.left(), [])

    def test_discard_fails(self) -> None:
        """When the staged file cannot be removed, discarding says so and closes all; recovery removes it."""
        staged = self.staged(jail=self.watched(FailAt(1, errno.EIO, spared=tuple(NAMES - {"unlink"}))))
        self.fails(errno.EIO, staged.discard)
        self.assertEqual(self.jail.recover([P("")]), 1)

    def test_recovery_while_beginning(self) -> None:
        """A recovery that runs between any two calls of a beginning writer does it no harm."""
        for number in count(1):
            fail = FailAt(number, errno.EIO)

            def recover_then(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
                try:
                    fail(name, arguments, keywords)  # noqa: B023  # each round has its own jail
                except OSError:
                    self.jail.recover([P("")])

            with closing(self.jail_with(recover_then)) as jail, self.staged("d/x", jail=jail) as staged:
                staged.commit()
            self.assertEqual((self.root / "d/x").read_text(), "new")
            if not fail.reached:
                break
