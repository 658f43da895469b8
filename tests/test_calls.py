"""The calls of the operating system where one of them is missing."""

from __future__ import annotations

import builtins
import errno
import os
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk import calls as calls_module
from fileexport.disk.calls import RESOLVE_BENEATH, Calls
from fileexport.disk.jail import Jail, View
from fileexport.disk.resolve import Openat2
from fileexport.disk.staging import inherited
from fileexport.paths import RelPath

P = RelPath.parse


class ElsewhereTests(SynchronousTestCase):
    """Another system than Linux."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        (self.root / "d").mkdir(parents=True)
        self.calls = Calls()
        self.here = os.open(self.root, os.O_RDONLY)
        self.addCleanup(os.close, self.here)

    def fails(self, number: int, function: Any, *arguments: Any) -> None:
        error = self.assertRaises(OSError, function, *arguments)
        self.assertEqual(error.errno, number)

    def test_functions(self) -> None:
        """What the C library does not have is said not to be there, or done in another way."""
        self.assertIsNone(calls_module._function("no_such_function"))
        self.patch(calls_module, "_function", lambda name: None)
        self.fails(errno.ENOSYS, self.calls.syncfs, self.here)
        for name in ("a", "b"):
            (self.root / name).write_text(name)
        with self.assertRaises(FileExistsError):
            self.calls.rename_new("a", "b", dir_fd=self.here, new_dir_fd=self.here)
        self.calls.rename_new("a", "c", dir_fd=self.here, new_dir_fd=self.here)
        with self.assertRaises(OSError):
            self.calls.rename_new("d", "c", dir_fd=self.here, new_dir_fd=self.here)
        self.calls.rename_new("d", "e", dir_fd=self.here, new_dir_fd=self.here)
        self.assertEqual(set(os.listdir(self.root)), {"b", "c", "e"})

    def test_openat2(self) -> None:
        """The call is not made where its number may be another one's."""
        self.patch(sys, "platform", "darwin")
        self.fails(errno.ENOSYS, self.calls.openat2, self.here, ".", os.O_RDONLY, RESOLVE_BENEATH)
        self.assertFalse(Openat2.is_available(self.calls, self.here))

    def test_mounts(self) -> None:
        """Without /proc the device has to tell mounts apart."""

        def missing(*arguments: Any, **keywords: Any) -> Any:
            raise FileNotFoundError

        self.patch(builtins, "open", missing)
        self.assertEqual(self.calls.mount_of(self.here), os.fstat(self.here).st_dev)

    def test_flushes(self) -> None:
        """Where there is no flush of the content alone, all is flushed."""
        flushed: list[int] = []
        self.patch(os, "fsync", flushed.append)
        self.addCleanup(setattr, os, "fdatasync", os.fdatasync)
        del os.fdatasync
        self.calls.fdatasync(self.here)
        self.assertEqual(flushed, [self.here])

    def test_jail(self) -> None:
        """A jail does all that a client needs of it."""
        self.patch(sys, "platform", "darwin")
        self.patch(calls_module, "_function", lambda name: None)
        jail = Jail(str(self.root), durable=False)
        self.addCleanup(jail.close)
        partial = jail.partial(View(), P("d/a"), size=1, key=b"key")
        partial.write(b"a")
        partial.suspend()
        partial = jail.partial(View(), P("d/a"), size=1, key=b"key")
        self.assertEqual(partial.offset, 1)
        partial.commit(replace=False)
        batch = jail.batch(View(), replace=False)
        batch.add(P("d/b"), b"b")
        self.assertEqual(batch.commit(), [None])
        batch.discard()
        jail.rename(View(), P("d"), View(), P("e"))
        self.assertEqual(jail.remove_tree(View(), P("e"), recursive=True), 3)


class InheritedTests(SynchronousTestCase):
    """The mode of a file that replaces another."""

    def status(self, mode: int, group: int = 1) -> os.stat_result:
        return os.stat_result((mode, 0, 0, 1, 0, group, 0, 0, 0, 0))

    def test_same_group(self) -> None:
        """It is the same, without what sets an identity; what is no file leaves none."""
        new = self.status(0o100644)
        for mode, kept in ((0o104751, 0o751), (0o100600, 0o600), (0o100000, 0)):
            self.assertEqual(inherited(self.status(mode), new), kept)
        for mode in (0o120777, 0o040755):
            self.assertIsNone(inherited(self.status(mode), new))

    def test_other_group(self) -> None:
        """Where the group is another one, it and all others may what both could."""
        new = self.status(0o100644, group=2)
        for mode, kept in ((0o100660, 0o600), (0o100664, 0o644), (0o100604, 0o600), (0o100777, 0o777)):
            self.assertEqual(inherited(self.status(mode), new), kept)
