"""Many small files at once."""

from __future__ import annotations

import errno
import os
import stat
from itertools import count
from typing import Any

from fileexport.disk import batches, flushing
from fileexport.disk.batches import Batch
from fileexport.disk.calls import Calls
from fileexport.disk.jail import Jail, View
from fileexport.errors import FileNameError
from fileexport.paths import RESERVED
from tests.test_staging import ALL, Counted, P, StagingCase
from tests.watched import FailAt, in_child, open_descriptors, unprivileged


class BatchCase(StagingCase):
    """Adds files; ends each batch."""

    def batch(self, *, jail: Jail | None = None, replace: bool = True, view: View = ALL) -> Batch:
        batch = (jail or self.jail).batch(view, replace=replace)
        self.addCleanup(batch.discard)
        return batch

    def add(self, batch: Batch, *paths: str) -> None:
        """Files that hold their own path."""
        for path in paths:
            batch.add(P(path), path.encode())

    def held(self) -> dict[str, str]:
        """All files but those in staging."""
        files = (path for path in self.root.rglob("*") if path.is_file() and RESERVED not in path.parts)
        return {str(path.relative_to(self.root)): path.read_text() for path in files}


class CommitTests(BatchCase):
    """From `add` to `commit`."""

    def test_committed(self) -> None:
        """Files appear at the commit and not before, in all directories; it can go on after that."""
        (self.root / "d/e").mkdir()
        batch = self.batch()
        self.add(batch, "d/file", "d/new", "d/e/new", "top")
        self.assertEqual(self.held(), {"d/file": "old"})
        self.assertEqual(batch.commit(), [None] * 4)
        paths = ["d/file", "d/new", "d/e/new", "top"]
        self.assertEqual(self.held(), {path: path for path in paths})
        self.assertEqual(batch.commit(), [])
        self.add(batch, "d/more")
        self.assertEqual(batch.commit(), [None])
        batch.discard()
        self.assertEqual((self.held(), self.left()), ({path: path for path in (*paths, "d/more")}, []))

    def test_discarded(self) -> None:
        """What was not committed is gone; a second time does nothing."""
        batch = self.batch()
        self.add(batch, "d/file", "d/new")
        batch.discard()
        batch.discard()
        self.assertEqual((self.held(), self.left()), ({"d/file": "old"}, []))

    def test_nothing(self) -> None:
        """Before the first file nothing is made."""
        batch = self.batch()
        self.assertEqual(batch.commit(), [])
        self.assertFalse(self.staging.exists())

    def test_time_and_mode(self) -> None:
        """The time is set to the nanosecond; a file that is replaced leaves its mode."""
        previous = os.umask(0o027)
        self.addCleanup(os.umask, previous)
        self.file.chmod(0o4751)
        batch = self.batch()
        for name, mode in (("file", 0o751), ("new", 0o640)):
            batch.add(P(f"d/{name}"), b"", 1_700_000_000_123_456_789)
            batch.commit()
            status = (self.root / "d" / name).stat()
            self.assertEqual(stat.S_IMODE(status.st_mode), mode)
            self.assertEqual(status.st_mtime_ns, 1_700_000_000_123_456_789)

    def test_given_mode(self) -> None:
        """A mode that is given counts for a new file and a replaced one, whatever the umask; no setuid."""
        previous = os.umask(0o077)
        self.addCleanup(os.umask, previous)
        self.file.chmod(0o600)
        batch = self.batch()
        for name in ("file", "new"):
            batch.add(P(f"d/{name}"), b"", mode=0o4664)
        batch.commit()
        for name in ("file", "new"):
            self.assertEqual(stat.S_IMODE((self.root / "d" / name).stat().st_mode), 0o664)

    def test_modes_of_many(self) -> None:
        """Each of many files has its own mode, one that the umask leaves alone and one that it does not."""
        self.addCleanup(os.umask, os.umask(0o027))
        modes = [0o640, 0o666, 0o400, 0o777, 0o000, 0o750] * 2
        batch = self.batch()
        for number, mode in enumerate(modes):
            batch.add(P(f"d/{number}"), b"some", mode=mode)
        self.assertEqual(batch.commit(), [None] * len(modes))
        found = [stat.S_IMODE((self.root / "d" / str(number)).stat().st_mode) for number in range(len(modes))]
        self.assertEqual(found, modes)

    def test_short_writes(self) -> None:
        """All is written, however little the disk takes at a time."""

        class Reluctant(Calls):
            def write(self, descriptor: int, data: bytes | memoryview) -> int:
                return super().write(descriptor, data[:3])

        jail = Jail(str(self.root), calls=Reluctant())
        self.addCleanup(jail.close)
        batch = self.batch(jail=jail)
        batch.add(P("d/file"), b"0123456789")
        batch.add(P("d/new"), memoryview(b"0123456789"))
        self.assertEqual(batch.commit(), [None, None])
        self.assertEqual(self.held(), dict.fromkeys(("d/file", "d/new"), "0123456789"))

    def test_flushes(self) -> None:
        """Few files are flushed one by one, many together, before they get their names; then directories."""
        for durable, number, order in (
            (True, 2, "fsync-file fsync-file rename rename fsync-directory"),
            (True, 3, "syncfs rename rename rename fsync-directory"),
            (False, 2, "rename rename"),
        ):
            self.patch(batches, "MAX_FLUSHED", 2)
            seen: list[str] = []

            def note(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
                if name == "fsync":
                    name += "-directory" if stat.S_ISDIR(os.fstat(arguments[0]).st_mode) else "-file"
                if name.split("-")[0] in "fsync fdatasync syncfs rename":
                    seen.append(name)  # noqa: B023  # each round has its own jail

            batch = self.batch(jail=self.watched(note, durable=durable))
            self.add(batch, *[f"d/{name}" for name in range(number)])
            batch.commit()
            self.assertEqual(" ".join(seen), order)

    def test_without_syncfs(self) -> None:
        """Where a whole file system cannot be flushed, each file is, whatever its mode; few are open."""
        self.patch(batches, "MAX_FLUSHED", 1)
        self.patch(flushing, "has_syncfs", lambda: False)
        seen: list[str] = []

        def note(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            seen.append(name)

        self.root.chmod(0o777)
        (self.root / "d").chmod(0o777)
        jail = self.watched(note)
        before = open_descriptors()
        with unprivileged():
            batch = self.batch(jail=jail)
            for name in "abcd":
                batch.add(P(f"d/{name}"), b"x", 1, 0o200)
                self.assertLessEqual(len(open_descriptors() - before), 4)
            self.assertEqual(batch.commit(), [None] * 4)
        self.assertEqual((seen.count("fsync"), seen.count("syncfs")), (5, 0))

    def test_many_directories(self) -> None:
        """With more directories than are held open the first are committed meanwhile; the order stays."""
        self.patch(batches, "MAX_PARENTS", 2)
        batch = self.batch(replace=False)
        paths = [f"{number}/x" for number in range(5)]
        for path in paths:
            (self.root / path).parent.mkdir()
            self.add(batch, path)
        (self.root / "4/x").write_text("taken")
        *good, bad = batch.commit()
        self.assertEqual(good, [None] * 4)
        self.assertIsInstance(bad, FileExistsError)
        self.assertEqual({path: self.held()[path] for path in paths[:4]}, {path: path for path in paths[:4]})


class FailureTests(BatchCase):
    """One fails, the others do not."""

    def test_refused(self) -> None:
        """What may not be written is refused when it is added, and is in no result."""
        (self.root / "d/out").symlink_to("../..")
        batch = self.batch(view=View(hidden=False))
        for path, kind in (
            *(("d/a:b", FileNameError), ("", FileNameError), ("missing/x", FileNotFoundError)),
            *(("d/file/x", NotADirectoryError), (f"d/{RESERVED}", PermissionError)),
            *(
                (f"{RESERVED}/x", FileNotFoundError),
                ("d/.x", PermissionError),
                ("d/out/x", FileNotFoundError),
            ),
        ):
            self.assertRaises(kind, batch.add, P(path), b"")
        self.add(batch, "d/new")
        self.assertEqual(batch.commit(), [None])

    def test_one_fails(self) -> None:
        """A taken name, a directory in the way: the others get their names."""
        (self.root / "d/sub").mkdir()
        batch = self.batch(replace=False)
        self.add(batch, "d/a", "d/file", "d/b")
        first, second, third = batch.commit()
        self.assertEqual((first, type(second), third), (None, FileExistsError, None))
        batch = self.batch()
        self.add(batch, "d/sub", "d/c")
        self.assertEqual([type(error) for error in batch.commit()], [IsADirectoryError, type(None)])
        batch.discard()
        self.assertEqual(self.held(), {"d/file": "old", "d/a": "d/a", "d/b": "d/b", "d/c": "d/c"})

    def test_full(self) -> None:
        """Where only the reserve is left nothing is added."""
        jail = Jail(str(self.root), calls=Counted(1 << 20, 0))
        self.addCleanup(jail.close)
        batch = self.batch(jail=jail)
        self.fails(errno.ENOSPC, batch.add, P("d/x"), b"x")
        batch.discard()
        self.assertEqual(self.left(), [])

    def test_each_call(self) -> None:
        """Whatever fails: what is said to be there is, whole, and all others are as they were."""
        for limit in (64, 1):
            self.patch(batches, "MAX_FLUSHED", limit)
            for number in count(1):
                fail = FailAt(number, errno.EIO)
                self.attempt(fail)
                if not fail.reached:
                    break
                self.assertEqual(self.jail.recover([P("")]) <= 1, True)
                self.assertEqual(self.left(), [], fail.reached)

    def attempt(self, fail: FailAt) -> None:
        for name in ("a", "b"):
            (self.root / "d" / name).unlink(missing_ok=True)
        added: list[str] = []
        try:
            jail = self.jail_with(fail)
        except OSError:
            return
        try:
            batch = jail.batch(ALL, replace=True)
            try:
                for path in ("d/a", "d/b"):
                    try:
                        batch.add(P(path), path.encode())
                        added.append(path)
                    except OSError as error:
                        self.assertEqual(error.errno, errno.EIO)
                results = batch.commit()
            finally:
                batch.discard()
        except OSError as error:
            self.assertEqual(error.errno, errno.EIO)
            return
        finally:
            jail.close()
        self.assertEqual(len(results), len(added))
        held = self.held()
        for path, result in zip(added, results, strict=True):
            if result is None:
                self.assertEqual(held[path], path)
            else:
                self.assertIn(held.get(path, path), (path,))


class KilledTests(BatchCase):
    """Left by a writer that died."""

    def test_left(self) -> None:
        """What a killed writer left goes as one; what a living one has stays."""

        def die() -> None:
            self.add(self.jail.batch(ALL), "d/a", "d/b")

        self.assertEqual(in_child(die), 0)
        living = self.batch()
        self.add(living, "d/c")
        self.assertEqual(len(self.left()), 2)
        self.assertEqual(self.jail.recover([P("")]), 1)
        self.assertEqual(living.commit(), [None])
        self.assertEqual(self.held(), {"d/file": "old", "d/c": "d/c"})
