"""What killed writers leave, and what a recovery makes of it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from fileexport.disk.jail import Jail, View
from fileexport.disk.staging import PREFIX
from fileexport.errors import ConflictError
from fileexport.paths import RESERVED, RelPath
from tests.watched import WatchedCalls, in_child, open_descriptors, unprivileged

ALL = View()

_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000

P = RelPath.parse
ROOT = RelPath()


class RecoveryCase(SynchronousTestCase):
    """Has a root with an old version of `d/file`, and a jail; no descriptor may stay open."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()) / "root"
        (self.root / "d").mkdir(parents=True)
        self.file = self.root / "d/file"
        self.file.write_text("old")
        self.staging = self.root / RESERVED
        before = open_descriptors()
        self.addCleanup(lambda: self.assertEqual(open_descriptors() - before, set()))
        self.jail = Jail(str(self.root))
        self.addCleanup(self.jail.close)

    def upload(self, path: str = "d/file", jail: Jail | None = None) -> None:
        """Replace a file with a new version."""
        with (jail or self.jail).stage(ALL, P(path)) as staged:
            staged.write(b"new")
            staged.commit(mode=0o644, mtime_ns=1)

    def die_writing(self, path: str = "d/file", view: View = ALL, exported: RelPath = ROOT) -> None:
        """Begin a file in a process that ends as if killed."""

        def write() -> None:
            staged = self.jail.stage(view, P(path), exported=exported)
            staged.write(b"half")

        self.assertEqual(in_child(write), 0)


class RecoverTests(RecoveryCase):
    """`Jail.recover`."""

    def test_nothing(self) -> None:
        """Where no writer was ever killed there is nothing to do, and nothing is made."""
        self.assertEqual(self.jail.recover([P(""), P("d"), P("missing"), P("d/file")]), 0)
        self.assertEqual(os.listdir(self.root), ["d"])

    def test_killed(self) -> None:
        """What a killed writer left is removed and counted, our directory too; the old version stays."""
        self.die_writing()
        self.die_writing("d/other")
        self.assertEqual(len(os.listdir(self.staging)), 2)
        self.assertEqual(self.jail.recover([P("")]), 2)
        self.assertEqual((os.listdir(self.root), self.file.read_text()), (["d"], "old"))

    def test_living(self) -> None:
        """What a living writer holds stays, beside a killed one's, and can be committed afterwards."""
        with self.jail.stage(ALL, P("d/file")) as staged:
            self.die_writing()
            staged.write(b"new")
            self.assertEqual(self.jail.recover([P("")]), 1)
            self.assertEqual(len(os.listdir(self.staging)), 1)
            staged.commit()
        self.assertEqual(self.file.read_text(), "new")

    def test_living_in_another_process(self) -> None:
        """So does what a writer in another process holds."""
        with self.jail.stage(ALL, P("d/file")) as staged:
            self.assertEqual(in_child(lambda: self.assertEqual(self.jail.recover([P("")]), 0)), 0)
            staged.write(b"new")
            staged.commit()
        self.assertEqual(self.file.read_text(), "new")

    def test_directories(self) -> None:
        """Only the directories that are named are looked at, each of them once."""
        self.die_writing("file", View(P("d")), P("d"))
        self.assertEqual(self.jail.recover([P("")]), 0)
        self.assertEqual(self.jail.recover([P("d"), P("d"), P("")]), 1)

    def test_foreign(self) -> None:
        """What is not a writer's stays where it is, and so does our directory then."""
        self.staging.mkdir()
        (self.staging / "note").write_text("mine")
        (self.staging / "directory").mkdir()
        self.assertEqual(self.jail.recover([P("")]), 0)
        self.assertEqual(set(os.listdir(self.staging)), {"note", "directory"})

    def test_special(self) -> None:
        """A FIFO is not waited for, and a link among the staged files leads to nothing."""
        self.staging.mkdir()
        os.mkfifo(self.staging / f"{PREFIX}fifo")
        (self.staging / f"{PREFIX}link").symlink_to("../d/file")
        self.jail.recover([P("")])
        self.assertEqual(self.file.read_text(), "old")

    def test_link_in_its_place(self) -> None:
        """A link with our directory's name is not followed, and stays."""
        (self.root / "other").mkdir()
        (self.root / f"other/{PREFIX}x").write_text("mine")
        self.staging.symlink_to("other")
        self.assertEqual(self.jail.recover([P("")]), 0)
        self.assertEqual((self.root / f"other/{PREFIX}x").read_text(), "mine")

    def test_read_only(self) -> None:
        """What cannot be removed is passed over."""
        self.die_writing()
        self.staging.chmod(0o500)
        with unprivileged():
            removed = self.jail.recover([P("")])
        self.staging.chmod(0o700)
        self.assertEqual(removed, 0)
        self.assertEqual(self.jail.recover([P("")]), 1)


class KillTests(RecoveryCase):
    """A writer is killed, at each call in turn."""

    def kill_at(self, number: int, upload: Callable[[Jail], object]) -> int:
        """Run an upload in a process that ends just before its N-th call; 9 when it was killed."""
        calls = count(1)

        def kill(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if next(calls) == number:
                os._exit(9)

        return in_child(lambda: upload(Jail(str(self.root), calls=WatchedCalls(kill))))

    def test_upload(self) -> None:
        """The name holds a whole version, the new one once it was acknowledged; recovery leaves no trace."""
        for number in count(1):
            self.file.write_text("old")
            code = self.kill_at(number, lambda jail: self.upload(jail=jail))
            self.assertIn(self.file.read_text(), ("new",) if code == 0 else ("old", "new"))
            self.jail.recover([P("")])
            self.assertEqual(os.listdir(self.root), ["d"])
            self.upload("d/file")
            self.assertEqual((self.file.read_text(), os.listdir(self.root / "d")), ("new", ["file"]))
            self.jail.recover([P("")])
            if code == 0:
                self.assertGreater(number, 20)
                break

    def test_remove(self) -> None:
        """A removal that was killed has removed nothing else, and can be done again."""
        for number in count(1):
            self.file.write_text("old")
            (self.root / "d/other").write_text("other")
            code = self.kill_at(number, lambda jail: jail.remove(ALL, P("d"), ["file"]))
            self.assertEqual((self.root / "d/other").read_text(), "other")
            self.jail.remove(ALL, P("d"), ["file"])
            self.assertEqual(os.listdir(self.root / "d"), ["other"])
            if code == 0:
                break


class MountTests(RecoveryCase):
    """Other mounts beneath the root, in a child with mounts of its own; only root can make them."""

    def mounted(self, function: Callable[[], object]) -> None:
        """Run a function where a tmpfs is mounted on `m/tmpfs`, and `d` on `m/bind`."""
        if os.geteuid() != 0:
            raise SkipTest("only root mounts")
        for name in ("tmpfs", "bind"):
            (self.root / "m" / name).mkdir(parents=True)

        def run() -> None:
            self.mount()
            # The descriptor of the old one sees the old mounts.
            self.jail = Jail(str(self.root))
            function()

        code = in_child(run)
        if code == os.EX_NOPERM:
            raise SkipTest("mounting is forbidden here")
        self.assertEqual(code, 0)

    def mount(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        root = os.fsencode(self.root.absolute())
        for function, arguments in (
            (libc.unshare, (_CLONE_NEWNS,)),
            (libc.mount, (b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)),
            (libc.mount, (b"none", root + b"/m/tmpfs", b"tmpfs", 0, None)),
            (libc.mount, (root + b"/d", root + b"/m/bind", None, _MS_BIND, None)),
        ):
            if function(*arguments) != 0:
                os._exit(os.EX_NOPERM)

    def test_staged_on_the_same_mount(self) -> None:
        """A file is staged on its destination's own mount, whence it can be renamed: a bind mount's too."""

        def check() -> None:
            for mount in ("m/tmpfs", "m/bind"):
                (self.root / mount / "deep").mkdir()
                with self.jail.stage(ALL, P(f"{mount}/deep/file")) as staged:
                    assert (self.root / mount / RESERVED).exists()
                    assert not self.staging.exists()
                    staged.write(b"new")
                    staged.commit()
                assert (self.root / mount / "deep/file").read_text() == "new"
            self.upload("m/file")
            assert (self.root / "m/file").read_text() == "new"

        self.mounted(check)

    def test_batch(self) -> None:
        """Files of one batch that go to several mounts are staged on each."""

        def check() -> None:
            batch = self.jail.batch(ALL, replace=True)
            paths = ["m/tmpfs/x", "m/bind/x", "x", "m/bind/y"]
            for path in paths:
                batch.add(P(path), path.encode())
            assert batch.commit() == [None] * 4
            batch.discard()
            for path in paths:
                assert (self.root / path).read_text() == path
            for directory in ("", "m/tmpfs", "m/bind"):
                assert os.listdir(self.root / directory / RESERVED) == []

        self.mounted(check)

    def test_changed(self) -> None:
        """Nothing moves from one mount to another, and what is mounted is not removed with a tree."""

        def check() -> None:
            (self.root / "m/tmpfs/x").write_text("x")
            for target in ("m/bind/x", "x"):
                self.refused(partial(self.jail.rename, ALL, P("m/tmpfs/x"), ALL, P(target)))
                self.refused(partial(self.jail.rename, ALL, P("m/tmpfs/x"), ALL, P(target), replace=True))
            self.refused(lambda: self.jail.rename(ALL, P("m/tmpfs"), ALL, P("m/other")))
            self.refused(lambda: self.jail.remove_tree(ALL, P("m/tmpfs")))
            self.refused(lambda: self.jail.remove_tree(ALL, P("m"), recursive=True))
            assert (self.root / "m/tmpfs/x").read_text() == "x"
            assert (self.root / "m/bind/file").exists()

        self.mounted(check)

    @staticmethod
    def refused(function: Callable[[], object]) -> None:
        """It must say that a file system is in the way, or that there is something in there."""
        try:
            function()
        except (ConflictError, IsADirectoryError):
            return
        raise AssertionError("it was not refused")

    def test_recovered(self) -> None:
        """What a killed writer left on a mount beneath the root is found without being named."""

        def check() -> None:
            self.die_writing("m/tmpfs/file")
            self.die_writing("m/bind/file")
            assert (self.root / "d" / RESERVED).exists()
            assert self.jail.recover([P("")]) == 2
            assert not (self.root / "m/tmpfs" / RESERVED).exists()

        self.mounted(check)
