"""fsspec's transactions on our file system: what was closed within is committed together, or not at all."""

from __future__ import annotations

import gzip
import os
import warnings

from tests.filesystem_case import FileSystemCase


class TransactionTests(FileSystemCase):
    """Several files that appear together, or not at all."""

    def test_commit(self) -> None:
        """What is written in a transaction is there at its end, not before."""
        self.put("a", content=b"old")
        with self.fs.transaction:
            with self.fs.open("/a", "wb") as file:
                file.write(b"new")
            with self.fs.open("/b", "wt") as file:
                file.write("new")
            self.fs.pipe_file("/c", b"new")
            left = self.fs.open("/d.gz", "wb", compression="gzip")
            left.write(b"new")
            left.close()
            self.assertEqual((self.below(), self.held("a")), (["a"], b"old"))
        self.assertEqual([self.held(name) for name in "abc"], [b"new"] * 3)
        self.assertEqual(gzip.decompress(self.held("d.gz")), b"new")
        self.fs.pipe_file("/e", b"at once")
        self.assertEqual(self.held("e"), b"at once")

    def test_discard(self) -> None:
        """An exception in a transaction leaves everything as it was."""
        self.put("a", content=b"old")
        with self.assertRaises(ZeroDivisionError), self.fs.transaction:
            self.fs.pipe_file("/a", b"new")
            self.fs.pipe_file("/b", b"new")
            raise ZeroDivisionError
        self.assertEqual((self.below(), self.held("a")), (["a"], b"old"))

    def test_one_of_several(self) -> None:
        """A file that was given up within a transaction is not committed, the others are."""
        with self.fs.transaction:
            try:
                with self.fs.open("/a", "wb") as file:
                    file.write(b"half")
                    raise ZeroDivisionError
            except ZeroDivisionError:
                self.fs.pipe_file("/b", b"whole")
        self.assertEqual(self.below(), ["b"])

    def test_open_at_the_end(self) -> None:
        """What was not closed is discarded, with a warning, whatever holds its content; the others come."""
        for mode, content in (("w", "new" * 100_000), ("wb", b"new"), ("w", "x")):
            self.put("a", content=b"old")
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                with self.fs.transaction:
                    file = self.fs.open("/a", mode)
                    file.write(content)
                    self.fs.pipe_file("/b", b"whole")
            self.assertEqual([(one.category, one.filename) for one in found], [(ResourceWarning, __file__)])
            self.assertIn("/a was not closed", str(found[0].message))
            self.assertTrue(file.closed)
            file.close()
            self.assertEqual((self.held("a"), self.held("b")), (b"old", b"whole"))
            (self.root / "b").unlink()

    def test_nested(self) -> None:
        """There is one at a time: a second one is refused, and the first is what it was."""
        with self.fs.transaction:
            self.fs.pipe_file("/a", b"new")
            with self.assertRaises(RuntimeError), self.fs.transaction:
                pass
            self.assertRaises(RuntimeError, self.fs.start_transaction)
        self.assertEqual(self.held("a"), b"new")
        for _ in range(2):
            self.fs.start_transaction()
            self.fs.pipe_file("/a", b"newer")
            self.fs.end_transaction()
        with self.fs.start_transaction():
            self.fs.pipe_file("/b", b"new")
        self.assertEqual((self.held("a"), self.held("b")), (b"newer", b"new"))

    def test_many(self) -> None:
        """Small files of a transaction take no descriptors, however many there are."""
        before = len(os.listdir("/proc/self/fd"))
        with self.fs.transaction:
            for number in range(40):
                self.fs.pipe_file(f"/{number:02}", b"%d" % number)
            self.assertLess(len(os.listdir("/proc/self/fd")), before + 20)
        self.assertEqual(
            [self.held(f"{number:02}") for number in range(40)], [b"%d" % one for one in range(40)]
        )

    def test_failing(self) -> None:
        """Where one cannot be committed, those after it are not, and the next write is at once again."""
        with self.assertRaises(FileExistsError), self.fs.transaction:
            for name in ("/a", "/b", "/c"):
                with self.fs.open(name, "xb") as file:
                    file.write(b"new")
            self.put("b", content=b"old")
        self.assertEqual((self.below(), self.held("b")), (["a", "b"], b"old"))
        self.fs.pipe_file("/d", b"at once")
        self.assertEqual(self.held("d"), b"at once")
