"""Compressed forms of a file that passes 4 GiB."""

from __future__ import annotations

import os
import resource
import struct
import zipfile
from collections.abc import Iterator

from isal.isal_zlib import crc32
from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.archive import Form, compressed

#: More than 32 bits can count, and not a multiple of anything.
SIZE = (4 << 30) + (100 << 20) + 1
MIB = 1 << 20
KIB = 1 << 10


def peak() -> int:
    """The most memory, in KiB, that this process had since the last call."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")
    return highest


class BigTests(SynchronousTestCase):
    """Sizes that 32 bits cannot hold, in constant memory; reading it all back would take minutes."""

    def setUp(self) -> None:
        # In memory, where a hole costs nothing to read: on a disk the page cache would fill with zeros.
        self.source = os.memfd_create("big")
        self.addCleanup(os.close, self.source)
        os.truncate(self.source, SIZE)
        os.pwrite(self.source, b"end", SIZE - 3)

    def pieces(self, form: Form) -> Iterator[bytes]:
        """The stream of the sparse file, and a look at the memory that it took."""
        peak()
        before = peak()
        yield from compressed(self.source, name="big", size=SIZE, mtime=1e9, form=form)
        self.assertLess(peak() - before, 16 * MIB // KIB)

    def checksum(self) -> int:
        """CRC-32 of the sparse file."""
        checksum, zeros = 0, bytes(MIB)
        for _ in range((SIZE - 3) // MIB):
            checksum = crc32(zeros, checksum)
        return crc32(bytes((SIZE - 3) % MIB) + b"end", checksum)

    def test_zip64(self) -> None:
        """A zip archive counts past 4 GiB by ZIP64, after the data and in the directory at its end."""
        path = self.mktemp()
        with open(path, "wb") as out:
            out.writelines(self.pieces(Form.ZIP))
        with zipfile.ZipFile(path) as archive:
            (member,) = archive.infolist()
            data_end = archive.start_dir
        checksum = self.checksum()
        self.assertEqual((member.file_size, member.CRC), (SIZE, checksum))
        self.assertGreaterEqual(member.extract_version, 45)
        with open(path, "rb") as written:
            written.seek(data_end - 24)
            descriptor = struct.unpack("<4sLQQ", written.read(24))
        self.assertEqual(descriptor, (b"PK\x07\x08", checksum, member.compress_size, SIZE))

    def test_gzip(self) -> None:
        """A gzip member ends with the right checksum and with the length as its 32 bits hold it."""
        tail = b""
        for piece in self.pieces(Form.GZ):
            tail = (tail + piece)[-8:]
        self.assertEqual(struct.unpack("<LL", tail), (self.checksum(), SIZE % (1 << 32)))

    def test_zstd(self) -> None:
        """A zstd frame says its whole length."""
        pieces = list(self.pieces(Form.ZST))
        # RFC 8878, 3.1.1.1: the descriptor's two top bits are 3 where the length takes eight bytes.
        self.assertEqual(pieces[0][4] >> 6, 3)
        self.assertIn(SIZE.to_bytes(8, "little"), pieces[0][5:15])
