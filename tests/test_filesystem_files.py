"""The files that fsspec's file system opens."""

from __future__ import annotations

import gc
import gzip
import io
import pickle

from fsspec.implementations.cached import CachingFileSystem, SimpleCacheFileSystem

from fileexport.client.remote.filesystem_files import PackedFile
from fileexport.errors import BusyError, ChangedWhileRead
from tests.filesystem_case import MTIME, FileSystemCase

CONTENT = bytes(range(256)) * 1024


class Failing:
    """A packer that cannot end."""

    def write(self, data: bytes) -> int:
        """Take it."""
        return len(data)

    def close(self) -> None:
        """Raise."""
        raise ZeroDivisionError


class ReadTests(FileSystemCase):
    """Files that are read."""

    def setUp(self) -> None:
        super().setUp()
        self.put("a b", content=CONTENT)

    def test_file(self) -> None:
        """It knows its size, path and URL, and reads any part, whatever its buffer."""
        for block_size in (None, 8, 1 << 20):
            with self.fs.open("/a b", "rb", block_size=block_size) as file:
                self.assertEqual((file.size, file.path, file.mode), (len(CONTENT), "/a b", "rb"))
                self.assertEqual(file.full_name, self.url("/a%20b"))
                self.assertEqual(file.info(), self.fs.info("/a b"))
                self.assertEqual(file.details["mtime_ns"], MTIME)
                self.assertEqual((file.seek(-6, io.SEEK_END), file.read()), (len(CONTENT) - 6, CONTENT[-6:]))
                file.seek(5)
                buffer = bytearray(7)
                self.assertEqual((file.readinto(buffer), bytes(buffer)), (7, CONTENT[5:12]))
                self.assertEqual(file.read(), CONTENT[12:])

    def test_pickle(self) -> None:
        """Pickled, it is opened again, and goes on where it was."""
        with self.fs.open("/a b") as file:
            file.seek(300)
            with pickle.loads(pickle.dumps(file)) as again:
                self.assertEqual((again.fs, again.tell(), again.read()), (self.fs, 300, CONTENT[300:]))
        fs = pickle.loads(pickle.dumps(self.fs))
        self.assertEqual((fs, fs.cat_file("/a b", 0, 3)), (self.fs, CONTENT[:3]))

    def test_caches(self) -> None:
        """Read through each of fsspec's caches it is the same."""
        for cache in ("none", "readahead", "bytes", "all", "mmap"):
            with self.fs.open("/a b", cache_type=cache, block_size=1000) as file:
                self.assertEqual((file.seek(999), file.read(1002)), (999, CONTENT[999:2001]), cache)
        for kind in (SimpleCacheFileSystem, CachingFileSystem):
            fs = kind(fs=self.fs, cache_storage=str(self.here / kind.__name__))
            with fs.open("/a b", "rb") as file:
                self.assertEqual(file.read(), CONTENT, kind)

    def test_cached_version(self) -> None:
        """Through a cache it is one version, too, and so is its size; another one is an error."""
        for cache in ("none", "readahead", "bytes", "blockcache", "first"):
            self.put("v", content=CONTENT)
            with self.fs.open("/v", cache_type=cache, block_size=1000) as file:
                self.assertEqual((file.size, file.read(10)), (len(CONTENT), CONTENT[:10]))
                (self.root / "new").write_bytes(b"B" * 2 * len(CONTENT))
                (self.root / "new").replace(self.root / "v")
                file.seek(200_000)
                self.assertRaises(ChangedWhileRead, file.read, 10)
            with pickle.loads(pickle.dumps(self.fs.open("/v", cache_type=cache))) as file:
                self.assertEqual((file.size, file.read(3)), (2 * len(CONTENT), b"BBB"))
        file = self.fs.open("/v", cache_type="none")
        file.close()
        self.assertTrue(file.closed)
        self.assertRaises(ValueError, file.read, 1)
        self.assertRaises(KeyError, self.fs.open, "/v", cache_type="no such")

    def test_missing(self) -> None:
        """What is not there, and what is a directory, raises when it is opened."""
        self.assertRaises(FileNotFoundError, self.fs.open, "/x")
        self.assertRaises(IsADirectoryError, self.fs.open, "/")


class WriteTests(FileSystemCase):
    """Files that are written."""

    def test_file(self) -> None:
        """It is committed when it is closed, not when it is flushed."""
        self.put("f", content=b"old")
        file = self.fs.open("/f", "wb")
        self.assertEqual((file.path, file.full_name, file.writable()), ("/f", self.url("/f"), True))
        file.write(b"new")
        file.flush()
        self.assertEqual(self.held("f"), b"old")
        file.close()
        self.assertEqual(self.held("f"), b"new")
        file.commit()
        file.discard()
        self.assertEqual(self.held("f"), b"new")

    def test_deferred(self) -> None:
        """Without `autocommit` it waits for `commit`, or is thrown away."""
        for name in ("a", "b", "c"):
            file = self.fs.open(f"/{name}", "wb", autocommit=False)
            self.fs.transaction.files.clear()
            file.write(b"new")
            if name != "c":
                file.close()
            self.assertEqual(self.below(), ["a"] * (name != "a"))
            (file.discard if name == "b" else file.commit)()
            self.assertTrue(file.closed)
        self.assertEqual(self.below(), ["a", "c"])

    def test_forgotten(self) -> None:
        """Whoever forgets to close has written nothing."""
        self.put("f", content=b"old")
        for compression in (None, "gzip"):
            file = self.fs.open("/f", "wb", compression=compression)
            file.write(b"new")
            del file
            gc.collect()
        self.assertEqual(self.held("f"), b"old")

    def test_packed(self) -> None:
        """What packs is a file that is written: it has the name, and takes any bytes."""
        file = self.fs.open("/f.gz", "wb", compression="gzip")
        self.assertEqual((file.name, file.writable(), file.readable()), ("/f.gz", True, False))
        self.assertEqual(file.write(memoryview(b"12")), 2)
        file.flush()
        file.close()
        file.close()
        self.assertRaises(ValueError, file.write, b"more")
        with self.fs.open("/f.gz", compression="gzip") as back:
            self.assertEqual(back.read(), b"12")

    def test_packed_again(self) -> None:
        """Where it cannot be sent now, it stays open, and can be closed later."""
        source = self.here / "source"
        # So large that the server answers before it gets content.
        source.write_bytes(bytes(1 << 20))
        file = self.fs.open("/f.gz", "wb", compression="gzip")
        file.write(b"12")

        def meanwhile(*_: object) -> None:
            self.assertRaises(BusyError, file.close)
            self.assertFalse(file.closed)

        self.fs.client.upload_file(source, "/", "f.gz", 1 << 20, meanwhile)
        file.close()
        self.assertEqual((file.closed, gzip.decompress(self.held("f.gz"))), (True, b"12"))

    def test_packing_fails(self) -> None:
        """Where the packer fails at the end, what was there stays."""
        self.put("f", content=b"old")
        file = PackedFile(Failing(), self.fs.open("/f", "wb"))
        file.write(b"new")
        self.assertRaises(ZeroDivisionError, file.close)
        self.assertTrue(file.closed)
        self.assertEqual(self.held("f"), b"old")
