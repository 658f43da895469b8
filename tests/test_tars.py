"""The records of a tar archive."""

from __future__ import annotations

import io
import tarfile

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.tars import END, header, padding

NAMES = (
    "a",
    "top/sub/file.txt",
    "n" * 99,
    "n" * 100,
    "n" * 101,
    "d/" * 80 + "f",
    "été",
    "bad\udcff",
    "世" * 90,
)
NUMBERS = (0, 1, 511, 512, 8**11 - 1, 8**11, 1 << 40)


class HeaderTests(SynchronousTestCase):
    """What stands before a member."""

    def test_as_the_library_writes_it(self) -> None:
        """Every header is what Python's own module writes for nobody's file, short or long."""
        for name in NAMES:
            for is_directory in (False, True):
                for number in NUMBERS:
                    info = tarfile.TarInfo(name)
                    info.type = tarfile.DIRTYPE if is_directory else tarfile.REGTYPE
                    info.size, info.mtime, info.mode = number, number, 0o751
                    expected = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
                    found = header(name, is_directory=is_directory, size=number, mtime=number, mode=0o100751)
                    self.assertEqual(found, expected, (name, is_directory, number))

    def test_modes_and_times(self) -> None:
        """Only permissions are kept of a mode, and nothing is older than 1970."""
        data = header("a", is_directory=False, size=0, mtime=-5, mode=0o107777)
        info = tarfile.TarInfo.frombuf(data, "utf-8", "strict")
        self.assertEqual((info.mode, info.mtime), (0o777, 0))

    def test_an_archive(self) -> None:
        """Headers, contents and paddings in a row, with the end behind them, are an archive."""
        data = b""
        for size in (0, 1, 511, 512, 513):
            data += header(f"f{size}", is_directory=False, size=size, mtime=7, mode=0o644)
            data += bytes(size) + padding(size)
        with tarfile.open(fileobj=io.BytesIO(data + END)) as archive:
            self.assertEqual(
                {member.name: member.size for member in archive},
                {f"f{size}": size for size in (0, 1, 511, 512, 513)},
            )
