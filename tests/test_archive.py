"""Compressed forms of one file."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import stat
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Iterable
from typing import IO

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.archive import SMALL, Form, compressed, distinct
from fileexport.errors import ChangedWhileRead

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MTIME = 1_700_000_000.0
READ = 256 << 10
KIB = 1 << 10


def text(size: int) -> bytes:
    """Lines that compress as a dump does."""
    lines = b"".join(b"INSERT INTO t VALUES (%d, 'name %d');\n" % (i, i * i) for i in range(size // 24 + 1))
    return lines[:size]


def noise(size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(7).randbytes(size)


def expanded(form: Form, data: bytes) -> bytes:
    """What Python's own modules read out of `data`."""
    if form is Form.GZ:
        return gzip.decompress(data)
    if form is Form.ZST:
        return zstd.decompress(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (member,) = archive.infolist()
        return archive.read(member)


def member_of(data: bytes) -> zipfile.ZipInfo:
    """The one member of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (member,) = archive.infolist()
        return member


def gz_name(data: bytes) -> bytes | None:
    """The name in a gzip header, or None where it has none."""
    return data[10 : data.index(b"\0", 10)] if data[3] & 8 else None


class ArchiveCase(SynchronousTestCase):
    """Has files to compress."""

    def file(self, content: bytes) -> IO[bytes]:
        """An open file with `content`, closed after the test."""
        path = self.mktemp()
        with open(path, "wb") as out:
            out.write(content)
        opened = open(path, "r+b", buffering=0)  # noqa: SIM115  # closed by the clean-up below
        self.addCleanup(opened.close)
        return opened

    def pieces(
        self, content: bytes, form: Form, *, name: str = "dump.sql", mtime: float = MTIME
    ) -> Iterable[bytes]:
        """The stream of a file with `content`."""
        descriptor = self.file(content).fileno()
        return compressed(descriptor, name=name, size=len(content), mtime=mtime, form=form)

    def compress(self, content: bytes, form: Form, *, name: str = "dump.sql", mtime: float = MTIME) -> bytes:
        """The whole archive of a file with `content`."""
        return b"".join(self.pieces(content, form, name=name, mtime=mtime))


class RoundTripTests(ArchiveCase):
    """What comes out is what went in."""

    def test_every_size(self) -> None:
        """Files of every size around a read come back byte for byte in every form."""
        sizes = (0, 1, 2, READ - 1, READ, READ + 1, 3 * READ, SMALL, SMALL + 1)
        for form in Form:
            for make in (text, noise, bytes):
                for size in sizes:
                    content = make(size)
                    self.assertEqual(
                        expanded(form, self.compress(content, form)), content, (form, make, size)
                    )

    def test_real_programs(self) -> None:
        """gzip, unzip and zstd, where they are installed, find nothing wrong."""
        commands = {Form.GZ: ["gzip", "-t"], Form.ZIP: ["unzip", "-tq"], Form.ZST: ["zstd", "-tq"]}
        for form, command in commands.items():
            if shutil.which(command[0]) is None:
                continue
            for content in (b"", b"x", text(3 * READ + 5), noise(READ)):
                path = self.mktemp() + form.suffix
                with open(path, "wb") as out:
                    out.write(self.compress(content, form, name="Größe 世界.sql"))
                done = subprocess.run([*command, path], capture_output=True, check=False)
                self.assertEqual(done.returncode, 0, (command, done.stdout, done.stderr))

    def test_same_bytes_again(self) -> None:
        """The same file gives the same archive."""
        content = text(READ)
        for form in Form:
            self.assertEqual(self.compress(content, form), self.compress(content, form))

    def test_text_becomes_small(self) -> None:
        """Each form of a dump is at most 10 % larger than level 6 of zlib makes it."""
        content = text(2 * SMALL)
        largest = len(gzip.compress(content, 6)) * 1.1
        for form in Form:
            self.assertLess(len(self.compress(content, form)), largest, form)

    def test_suffix_and_type(self) -> None:
        """Each form has a suffix and a registered media type."""
        self.assertEqual(
            [(form.suffix, form.content_type) for form in Form],
            [(".zip", "application/zip"), (".gz", "application/gzip"), (".zst", "application/zstd")],
        )
        self.assertIs(Form("gz"), Form.GZ)


class StreamTests(ArchiveCase):
    """Pieces, descriptor, memory."""

    def test_piece_sizes(self) -> None:
        """Every piece but the last has 32 KiB to 1 MiB, whatever the content."""
        for form in Form:
            for content in (text(8 * SMALL), noise(4 * SMALL), bytes(4 * SMALL)):
                *lengths, last = map(len, self.pieces(content, form))
                self.assertTrue(all(32 * KIB <= length <= SMALL for length in lengths), (form, lengths))
                self.assertTrue(0 < last <= SMALL)

    def test_descriptor_is_left_alone(self) -> None:
        """The descriptor is still open, and where it was."""
        for form in Form:
            opened = self.file(text(READ))
            opened.seek(17)
            size = os.fstat(opened.fileno()).st_size
            b"".join(compressed(opened.fileno(), name="a", size=size, mtime=MTIME, form=form))
            self.assertEqual(opened.tell(), 17)

    def test_constant_memory(self) -> None:
        """A sparse file of 64 MiB takes no more memory than a few pieces."""
        for form in Form:
            opened = self.file(b"")
            size = 64 * SMALL
            opened.truncate(size)
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            for _ in compressed(opened.fileno(), name="a", size=size, mtime=MTIME, form=form):
                pass
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.assertLess(peak, 4 * SMALL, form)

    def test_close_early(self) -> None:
        """A stream that is closed in the middle ends."""
        for form in Form:
            opened = self.file(noise(4 * READ))
            stream = compressed(opened.fileno(), name="a", size=4 * READ, mtime=MTIME, form=form)
            next(stream)
            stream.close()
            self.assertEqual(list(stream), [])


class ChangeTests(ArchiveCase):
    """The file does not keep still."""

    def test_shrunk_before(self) -> None:
        """A file that is shorter than said raises, and the pieces before are no whole archive."""
        for form in Form:
            for length in (0, 1, READ, 3 * READ - 1):
                opened = self.file(noise(length))
                stream = compressed(opened.fileno(), name="a", size=3 * READ, mtime=MTIME, form=form)
                self.assertRaises(ChangedWhileRead, list, stream)

    def test_shrinks_while_read(self) -> None:
        """A file that is cut between two pieces raises."""
        for form in Form:
            opened = self.file(noise(8 * READ))
            stream = compressed(opened.fileno(), name="a", size=8 * READ, mtime=MTIME, form=form)
            next(stream)
            opened.truncate(4 * READ)
            self.assertRaises(ChangedWhileRead, list, stream)

    def test_grows(self) -> None:
        """A file that grows is cut at the size that was said."""
        content = noise(2 * READ)
        for form in Form:
            opened = self.file(content + b"more")
            stream = compressed(opened.fileno(), name="a", size=len(content), mtime=MTIME, form=form)
            self.assertEqual(expanded(form, b"".join(stream)), content)

    def test_read_error(self) -> None:
        """An error of the disk reaches the caller as it is."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        for form in Form:
            stream = compressed(reader, name="a", size=1, mtime=MTIME, form=form)
            self.assertRaises(OSError, list, stream)


class HeaderTests(ArchiveCase):
    """Names, times, modes."""

    def test_ordinary_names(self) -> None:
        """An ordinary name stands unchanged in zip and gzip."""
        for name in ("dump.sql", ".env", "a b'\"#?%.txt", "-rf", "x" * 255, "12:30.log"):
            self.assertEqual(member_of(self.compress(b"x", Form.ZIP, name=name)).filename, name)
            self.assertEqual(gz_name(self.compress(b"x", Form.GZ, name=name)), name.encode())

    def test_unicode_names(self) -> None:
        """zip marks UTF-8 names as such; gzip writes Latin-1 and leaves out what that cannot spell."""
        for name, stored in (("Größe", b"Gr\xf6\xdfe"), ("世界", None), ("a\u3000b", None)):
            member = member_of(self.compress(b"x", Form.ZIP, name=name))
            self.assertEqual((member.filename, member.flag_bits & 0x800), (name, 0x800))
            self.assertEqual(gz_name(self.compress(b"x", Form.GZ, name=name)), stored)

    def test_hostile_names(self) -> None:
        """No name in an archive is a path, climbs, or holds a control character."""
        names = ("..", "../x", "/etc/passwd", "a/../../b", "..\\..\\x", "\\\\host\\share", "C:\\x", "a\nb")
        more = ("\x1b[2J", "a\0b", "\x7f", "\x9b31m", "", "/", "...", "caf\udce9", "\udcff\udcfe")
        for name in names + more:
            member = member_of(self.compress(b"x", Form.ZIP, name=name))
            stored = gz_name(self.compress(b"x", Form.GZ, name=name)) or b"-"
            for inner in (member.filename, stored.decode("latin-1")):
                self.assertNotEqual(inner, "")
                self.assertFalse(set("/\\") & set(inner), name)
                self.assertFalse(inner.startswith(".."), name)
                self.assertFalse(any(c < " " or "\x7f" <= c <= "\x9f" for c in inner), name)

    def test_names_that_are_no_utf8(self) -> None:
        """What is not UTF-8 becomes U+FFFD in zip, and gzip has no name then."""
        name = "caf\udce9.sql"
        self.assertEqual(member_of(self.compress(b"x", Form.ZIP, name=name)).filename, "caf\ufffd.sql")
        self.assertIsNone(gz_name(self.compress(b"x", Form.GZ, name=name)))

    def test_zip_member(self) -> None:
        """A zip member has the file's time, size, and the mode of an ordinary file."""
        member = member_of(self.compress(b"x" * 999, Form.ZIP))
        year, month, day, hour, minute, second = time.localtime(MTIME)[:6]
        self.assertEqual(member.date_time, (year, month, day, hour, minute, second // 2 * 2))
        self.assertEqual(member.file_size, 999)
        self.assertEqual(member.external_attr >> 16, stat.S_IFREG | 0o644)

    def test_zip_local_header(self) -> None:
        """The header before the data has the same time as the one at the end."""
        data = self.compress(b"x", Form.ZIP)
        central = data.index(b"PK\x01\x02")
        self.assertEqual(data[10:14], data[central + 12 : central + 16])

    def test_times_out_of_range(self) -> None:
        """Times that a form cannot hold are moved to the nearest that it can."""
        for mtime in (-1e12, -1.0, 0.0, 1.0):
            member = member_of(self.compress(b"x", Form.ZIP, mtime=mtime))
            self.assertEqual(member.date_time, (1980, 1, 1, 0, 0, 0))
        for mtime in (2.0**32, 1e15):
            self.assertGreater(member_of(self.compress(b"x", Form.ZIP, mtime=mtime)).date_time[0], 2105)
            self.assertEqual(self.compress(b"x", Form.GZ, mtime=mtime)[4:8], b"\xff\xff\xff\xff")
        self.assertEqual(self.compress(b"x", Form.GZ, mtime=-1.0)[4:8], bytes(4))

    def test_gzip_time(self) -> None:
        """A gzip header has the file's time in whole seconds."""
        data = self.compress(b"x", Form.GZ, mtime=MTIME + 0.75)
        self.assertEqual(int.from_bytes(data[4:8], "little"), int(MTIME))

    def test_zstd_frame(self) -> None:
        """A zstd frame says how much it holds, and a flipped bit in its checksum is found."""
        for size in (0, 1, 3 * READ):
            data = self.compress(text(size), Form.ZST)
            self.assertEqual(zstd.get_frame_info(data).decompressed_size, size)
            broken = data[:-1] + bytes([data[-1] ^ 1])
            self.assertRaises(zstd.ZstdError, zstd.decompress, broken)


class NameTests(SynchronousTestCase):
    """Names of one directory for archives that cannot hold every byte."""

    def test_different(self) -> None:
        """No two become the same, also where a number is taken; what needs no change has none."""
        names = ["a\\b.x", "a_b (2).x", "a_b (3).x", "a_b.x", "a\tb.x", ".\t", ".\n", "_.", "\t."]
        expected = [
            "a_b (4).x",
            "a_b (2).x",
            "a_b (3).x",
            "a_b.x",
            "a_b (5).x",
            "._",
            "._ (2)",
            "_.",
            "_ (2).",
        ]
        self.assertEqual(distinct(names), expected)
        self.assertEqual(distinct(["plain", "also plain"]), ["plain", "also plain"])
        self.assertEqual(distinct([]), [])

    def test_many(self) -> None:
        """A great many names that become the same take no longer than as many others."""
        names = [
            os.fsdecode(bytes((a, b, c)))
            for a in range(128, 192)
            for b in range(128, 192)
            for c in range(128, 140)
        ]
        self.assertEqual(len(set(distinct(names))), len(names))
