"""The records of a zip archive; numbers that no test disk has are only announced."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.notes import Notes
from fileexport.disk.zips import DEFLATED, STORED, Head, Zip

MTIME = 1_700_000_000.0
GIB = 1 << 30
CONTENT = b"hello, hello, hello\n"


def raw(content: bytes) -> bytes:
    """A DEFLATE stream."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


def head(name: str, size: int = len(CONTENT), method: int = STORED, mode: int = 0o100640) -> Head:
    return Head(name, size, MTIME, mode, method)


class ZipTests(SynchronousTestCase):
    """Records around members."""

    def setUp(self) -> None:
        self.zip = Zip(Notes())

    def test_both_ways(self) -> None:
        """Members known before and members not known stand in one archive, stored and deflated."""
        checksum, packed = zlib.crc32(CONTENT), raw(CONTENT)
        data = self.zip.whole(head("d/", 0, mode=0o40750), 0, 0)
        data += self.zip.whole(head("d/stored"), checksum, len(CONTENT)) + CONTENT
        data += self.zip.whole(head("d/deflated", method=DEFLATED), checksum, len(packed)) + packed
        for name, method, content in (("später", STORED, CONTENT), ("later", DEFLATED, packed)):
            member = head(name, method=method)
            data += self.zip.begin(member) + content + self.zip.finish(member, checksum, len(content))
        data += b"".join(self.zip.end())
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            self.assertIsNone(archive.testzip())
            members = {info.filename: info for info in archive.infolist()}
            self.assertEqual(list(members), ["d/", "d/stored", "d/deflated", "später", "later"])
            for name, info in members.items():
                self.assertEqual(archive.read(info), b"" if info.is_dir() else CONTENT, name)
        self.assertEqual(members["d/"].external_attr, 0o40750 << 16 | 0x10)
        self.assertEqual(members["later"].external_attr, 0o100640 << 16)

    def test_large(self) -> None:
        """From a little below 4 GiB on, sizes stand in ZIP64 fields everywhere: deflating may add to them."""
        for size in (4 * GIB - 1000, 5 * GIB):
            records, member = Zip(Notes()), head("large", size, DEFLATED)
            before = records.begin(member)
            self.assertEqual(struct.unpack("<LL", before[18:26]), (0xFFFFFFFF, 0xFFFFFFFF))
            behind = records.finish(member, 7, size + 99)
            self.assertEqual(struct.unpack("<4sLQQ", behind), (b"PK\x07\x08", 7, size + 99, size))
            end = b"".join(records.end())
            extra = end[46 + len("large") :]
            self.assertEqual(struct.unpack("<HHQQ", extra[:20]), (1, 16, size, size + 99))

    def test_far(self) -> None:
        """A small member behind 4 GiB has its place in a ZIP64 field, and the end has its ZIP64 record."""
        large, small = head("a", 5 * GIB), head("b")
        before = self.zip.begin(large)
        behind = self.zip.finish(large, 0, 5 * GIB)
        self.zip.whole(small, 0, len(CONTENT))
        end = b"".join(self.zip.end())
        at = end.index(b"PK\x01\x02", 4)
        place = len(before) + 5 * GIB + len(behind)
        self.assertEqual(end[at + 47 : at + 59], struct.pack("<HHQ", 1, 8, place))
        self.assertIn(b"PK\x06\x06", end)

    def test_many(self) -> None:
        """70,000 members: the end counts them by ZIP64."""
        data = bytearray()
        for number in range(70_000):
            data += self.zip.whole(head(f"{number}", 0), 0, 0)
        data += b"".join(self.zip.end())
        with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
            self.assertEqual(len(archive.namelist()), 70_000)
            self.assertEqual(archive.read("69999"), b"")
