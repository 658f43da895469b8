"""What is sent is what was found below its directory, whoever puts links in the way; and its time."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from fileexport.client.sides import Here, Item
from fileexport.client.sources import Opener, SourceTree
from fileexport.client.syncing import SyncProgress
from fileexport.client.transfers import upload_files
from fileexport.client.uploading import Source
from fileexport.errors import SourceNotFound
from tests.sync_case import Downwards, SyncCase, Upwards, fill

SECRET, LARGE = b"secret", bytes(200_000)


class TreeTests(SynchronousTestCase):
    """Files that are opened beneath a directory."""

    def setUp(self) -> None:
        self.top = Path(self.mktemp()).absolute() / "top"
        fill(self.top, {"a": b"a", "d/b": b"b", "d/e/c": b"c", ".fileexport/x": b"x"})
        self.outside = self.top.parent / "outside"
        fill(self.outside, {"b": SECRET, "e/c": SECRET})

    def read(self, opener: Opener, path: str, tree: SourceTree | None) -> bytes:
        """The content of a file."""
        descriptor = opener.open(f"{self.top}/{path}", tree)
        try:
            return os.read(descriptor, 100)
        finally:
            os.close(descriptor)

    def test_opened(self) -> None:
        """Files of several directories are opened in any order; what is missing is named as a whole."""
        tree = SourceTree.of(str(self.top))
        before = len(os.listdir("/proc/self/fd"))
        with Opener() as opener:
            for path in ("a", "d/b", "d/e/c", "d/b", "d/b", "a"):
                self.assertEqual(self.read(opener, path, tree), path[-1:].encode())
            for path in ("none", "none/a", "a/b"):
                error = self.assertRaises(SourceNotFound, self.read, opener, path, tree)
                self.assertEqual(error.filename, f"{self.top}/{path}")
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_links(self) -> None:
        """No link is followed below the top, wherever it leads; the top itself may be named by one."""
        named = self.top.parent / "named"
        named.symlink_to("top")
        (self.top / "inner").symlink_to("d")
        (self.top / "file").symlink_to("a")
        (self.top / "out").symlink_to(self.outside)
        (self.top / "d" / "e" / "up").symlink_to("../../a")
        tree = SourceTree.of(str(named))
        with Opener() as opener:
            descriptor = opener.open(f"{named}/d/b", tree)
            self.assertEqual(os.read(descriptor, 9), b"b")
            os.close(descriptor)
            for path in ("inner/b", "file", "out/b", "out/e/c", "d/e/up"):
                self.assertRaises(SourceNotFound, opener.open, f"{named}/{path}", tree)
        self.assertEqual(self.read(opener, "out/b", None), SECRET)

    def test_another_top(self) -> None:
        """A directory that takes the place of the top is another one."""
        tree = SourceTree.of(str(self.top))
        self.top.rename(self.top.parent / "moved")
        self.top.symlink_to(self.outside)
        self.assertRaises(SourceNotFound, Source, f"{self.top}/b", tree)
        with Source(f"{self.top}/b") as source:
            self.assertEqual(os.read(source.descriptor, 9), SECRET)

    def test_listed(self) -> None:
        """A directory that becomes a link while its tree is listed is said to be unreadable."""
        found, unreadable = [], []
        top = Item("", str(self.top), "directory", 0, 0)

        def enter(path: str) -> bool:
            if path == "d":
                (self.top / "d").rename(self.top / "was")
                (self.top / "d").symlink_to(self.outside)
            return True

        for item in Here().below(top, enter, lambda path, error: unreadable.append(path)):
            found.append(item.path)
        self.assertEqual((found, unreadable), (["a", "d"], ["d"]))


class RaceTests(SyncCase):
    """A directory becomes a link while what is in it is on its way."""

    def setUp(self) -> None:
        super().setUp()
        self.outside = self.here.parent / "outside"
        fill(self.outside, {"b": SECRET, "large": SECRET + LARGE})
        fill(self.here, {"a": b"1", "d/b": b"2", "d/large": LARGE})

    def swap(self) -> None:
        """Once."""
        if not (self.here / "d").is_symlink():
            (self.here / "d").rename(self.here / "was")
            (self.here / "d").symlink_to(self.outside)

    def assert_secret(self) -> None:
        """Nothing of what lies outside has arrived."""
        for path in self.there.rglob("*"):
            self.assertFalse(path.is_file() and SECRET in path.read_bytes(), path)

    def test_synchronized(self) -> None:
        """By a synchronisation."""
        from fileexport import synchronize_upload

        def told(progress: SyncProgress) -> None:
            self.swap()

        result = synchronize_upload(self.client, self.here, self.remote, progress=told)
        self.assertEqual([problem.path for problem in result.problems], ["d/b", "d/large"])
        self.assertEqual((self.there / "a").read_bytes(), b"1")
        self.assert_secret()

    def test_uploaded(self) -> None:
        """By an upload of several files."""

        def process_file(path: str, size: int) -> bool:
            if path.endswith("large"):
                self.swap()
            return True

        self.assertRaises(
            SourceNotFound,
            upload_files,
            self.client,
            str(self.here),
            self.remote,
            recursive=True,
            process_file=process_file,
        )
        self.assert_secret()

    def test_directory(self) -> None:
        """By the upload of one directory."""

        def process_chunk(data: bytes, remaining: int, size: int, name: str) -> bool:
            self.swap()
            return True

        with self.assertRaises(SourceNotFound) as raised:
            self.client.upload_directory(self.here, self.remote, process_chunk=process_chunk)
        self.assertEqual(raised.exception.filename, f"{self.here}/d/b")
        self.assert_secret()


class TimeCase(SyncCase):
    """Files that were changed longer ago, or later, than can be said."""

    source: Path
    target: Path

    def distant(self) -> None:
        """Make some."""
        fill(self.source, {"late": b"1", "large": LARGE, "early": b"2", "d/x": b"3"})
        for name, seconds in (("late", 10**10), ("large", 10**10), ("early", -(10**10)), ("d", 10**10)):
            os.utime(self.source / name, (seconds, seconds))
        if os.stat(self.source / "late").st_mtime_ns < 2**63:
            raise SkipTest("this file system has no such time")


class UpTests(Upwards, TimeCase):
    """From here to the server."""

    def test_distant_times(self) -> None:
        """They arrive, with the nearest time there is; the next synchronisation finds nothing to do."""
        self.distant()
        self.assertEqual(self.sync().problems, [])
        self.assertEqual(os.stat(self.there / "late").st_mtime_ns, 2**63 - 1)
        self.assertEqual(self.sync().plan.actions, [])


class DownTests(Downwards, TimeCase):
    """From the server."""

    def test_distant_times(self) -> None:
        """They arrive, with the nearest time there is; the next synchronisation finds nothing to do."""
        self.distant()
        self.assertEqual(self.sync().problems, [])
        self.assertEqual(self.sync().plan.actions, [])
