"""Disks that are really full: a tmpfs of 4 MiB in a child with mounts of its own; limits of a process."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.jail import Jail, View
from fileexport.paths import RESERVED, RelPath
from tests.proof.counts import SOAK, Tally
from tests.proof.small_disk import in_child, mount
from tests.watched import open_descriptors

#: Bytes of the disk, of the old version on it, and of the new one, which is longer than what is left.
DISK, OLD, NEW = 4 << 20, 1 << 20, (2 << 20) + 5
#: Bytes of one write.
PIECE = 64 << 10
#: How many levels of fullness are tried.
LEVELS = 400 if SOAK else 40

ALL = View()
P = RelPath.parse

_TALLY = Tally("real errors of the kernel")


class RealCase(SynchronousTestCase):
    """Has a root that a child makes full."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute() / "root"
        self.root.mkdir(parents=True)
        self.old = os.urandom(OLD)
        self.new = os.urandom(NEW)

    def in_child(self, function: Callable[[], int]) -> None:
        """Run it in a child, which may mount and limit what it likes; it returns how many errors it met."""
        met = int(in_child(self, function))
        self.assertGreater(met, 0)
        _TALLY.add(met)

    def prepare(self) -> Jail:
        """The old version, and a jail."""
        (self.root / "d").mkdir()
        (self.root / "d/file").write_bytes(self.old)
        return Jail(str(self.root))

    def upload(self, jail: Jail, content: bytes, path: str = "d/file") -> int:
        """Replace a file; the errno with which that failed, or 0."""
        try:
            with jail.stage(ALL, P(path)) as staged:
                for start in range(0, len(content), PIECE):
                    staged.write(content[start : start + PIECE])
                staged.commit()
        except OSError as error:
            return error.errno or -1
        return 0

    def check_untouched(self) -> None:
        """The old version is there, and nothing in staging."""
        assert (self.root / "d/file").read_bytes() == self.old
        staging = self.root / RESERVED
        assert not staging.exists() or os.listdir(staging) == []


class FullDiskTests(RealCase):
    """A tmpfs that is full, of bytes or of files."""

    def free(self) -> int:
        """Bytes that are left."""
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def fill(self, left: int) -> None:
        """Leave so many bytes."""
        (self.root / "ballast").unlink(missing_ok=True)
        with open(self.root / "ballast", "wb", buffering=0) as ballast:
            ballast.write(bytes(max(0, self.free() - left)))

    def test_bytes(self) -> None:
        """However much of a new version finds room, the old one stays, and the room is given back."""

        def check() -> int:
            mount(self.root, f"size={DISK}")
            jail, met = self.prepare(), 0
            before = open_descriptors()
            for level in range(LEVELS):
                self.fill(level * NEW // LEVELS)
                free = self.free()
                number = self.upload(jail, self.new)
                assert number == errno.ENOSPC, f"{free} bytes free: {number}"
                met += 1
                self.check_untouched()
                assert open_descriptors() == before
                jail.recover([P("")])
                assert self.free() == free, "the room was not given back"
            return met + self.afterwards(jail)

        self.in_child(check)

    def afterwards(self, jail: Jail) -> int:
        """On the full disk, deleting works, and makes the room that a new version needs."""
        self.fill(0)
        assert self.upload(jail, b"x", "d/other") == errno.ENOSPC
        assert jail.remove(ALL, P(""), ["ballast"]) == 1
        assert self.upload(jail, self.new) == 0
        assert (self.root / "d/file").read_bytes() == self.new
        return 1

    def test_staged_before(self) -> None:
        """What was written while there was room is committed on the full disk."""

        def check() -> int:
            mount(self.root, f"size={DISK}")
            jail = self.prepare()
            with jail.stage(ALL, P("d/file")) as staged:
                staged.write(self.new)
                self.fill(0)
                assert self.upload(jail, b"x", "d/other") == errno.ENOSPC
                staged.commit()
            assert (self.root / "d/file").read_bytes() == self.new
            return 1

        self.in_child(check)

    def test_files(self) -> None:
        """Where no more files can be made, beginning fails, with our directory there or not."""

        def check() -> int:
            mount(self.root, f"size={DISK},nr_inodes=9")
            jail, met = self.prepare(), 0
            for number in range(9):
                # The root, `d` and its file are three; our directory and a staged file take two more.
                expected = 0 if number <= 4 else errno.ENOSPC
                assert self.upload(jail, self.old) == expected, f"beside {number} files"
                met += expected != 0
                self.check_untouched()
                jail.recover([P("")])
                if number < 6:
                    (self.root / f"d/{number}").touch()
            assert jail.remove(ALL, P("d"), [str(number) for number in range(6)]) == 6
            assert self.upload(jail, self.new) == 0
            return met

        self.in_child(check)


class LimitTests(RealCase):
    """Limits of the process, which need no rights."""

    def test_size(self) -> None:
        """A file that may not grow further: a short write first, then an error."""

        def check() -> int:
            jail = self.prepare()
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            sizes = range(1, NEW, NEW // LEVELS)
            for size in sizes:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
                assert self.upload(jail, self.new) == errno.EFBIG
                self.check_untouched()
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            assert self.upload(jail, self.new) == 0
            return len(sizes)

        self.in_child(check)

    def test_descriptors(self) -> None:
        """However few descriptors are left, either all is done or nothing."""

        def check() -> int:
            jail = self.prepare()
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            highest = max(int(name) for name in open_descriptors())
            while (taken := os.open(os.devnull, os.O_RDONLY)) <= highest:
                # The numbers between would be given away first.
                continue
            for more in range(99):
                resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 1 + more, hard))
                number = self.upload(jail, self.old)
                resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 99, hard))
                self.check_untouched()
                if number == 0:
                    return more
                assert number == errno.EMFILE, number
            raise AssertionError("it never worked")

        self.in_child(check)
