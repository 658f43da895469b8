"""The work of a compression job: what its archive is called, what it holds, and what is said of it."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import stat
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from twisted.trial.unittest import SynchronousTestCase

from fileexport.compression import ArchiveForm, Compression, Order, narrowed, target_of
from fileexport.disk.jail import Jail
from fileexport.errors import (
    BadRequestError,
    ConflictError,
    FileNameError,
    sentence_for,
)
from fileexport.exports import Exports
from fileexport.meter import Meter
from fileexport.paths import RelPath
from fileexport.tokens import Principal, Right
from tests.compression_case import ALL, OLD, SQL, CompressionCase, P


class NameTests(SynchronousTestCase):
    """Where an archive goes."""

    def test_files(self) -> None:
        """The last suffix of a file is replaced; a name that is all suffix keeps it."""
        for name, expected in (
            ("db-dump.sql", "db-dump.tgz"),
            ("a.b.c", "a.b.tgz"),
            ("plain", "plain.tgz"),
            (".env", ".env.tgz"),
            ("..x", "..x.tgz"),
            ("dot.", "dot.tgz"),
        ):
            found = target_of(P(f"d/{name}"), ArchiveForm.TAR_GZ, is_directory=False)
            self.assertEqual(found, P(f"d/{expected}"))

    def test_forms(self) -> None:
        """Each form has its suffix; a directory's name stays whole, as a file's does without a container."""
        for form, of_file, of_directory in (
            (ArchiveForm.TAR_GZ, "v1.tgz", "v1.2.tgz"),
            (ArchiveForm.TAR_ZST, "v1.tar.zst", "v1.2.tar.zst"),
            (ArchiveForm.ZIP, "v1.zip", "v1.2.zip"),
            (ArchiveForm.GZ, "v1.2.gz", None),
            (ArchiveForm.ZST, "v1.2.zst", None),
        ):
            self.assertEqual(target_of(P("v1.2"), form, is_directory=False), P(of_file))
            if of_directory is not None:
                self.assertEqual(target_of(P("v1.2"), form, is_directory=True), P(of_directory))

    def test_orders_are_json(self) -> None:
        """An order comes back as it was from JSON, names that are no text too."""
        odd = P(os.fsdecode(b'd/bad\xff \\"\n.sql'))
        order = Order(
            odd, odd.parent / "x.tgz", ArchiveForm.TAR_GZ, True, P("d"), RelPath(), False, "1:2/x.tgz"
        )
        self.assertEqual(Order.of_json(json.loads(json.dumps(order.as_json()))), order)


class OrderTests(CompressionCase):
    """What the door asks before a job is there."""

    def test_rights(self) -> None:
        """Writing is needed, and nothing else."""
        for rights in (Right.READ, Right.ALL & ~Right.WRITE):
            who = Principal("someone", rights, RelPath())
            self.assertRaises(PermissionError, self.order, "d/dump.sql", "tar.gz", who)
        self.order("d/dump.sql", "tar.gz", Principal("someone", Right.WRITE, RelPath()))

    def test_what_cannot_be(self) -> None:
        """What is unknown, what the format cannot hold, the source itself, a directory in the way."""
        (self.root / "d" / "x.tgz").write_bytes(b"")
        (self.root / "d" / "dump.zip").mkdir()
        (self.root / "d" / "SHA256SUMS").touch()
        (self.root / "d" / "a:b.sql").touch()
        for source, form, sums, kind in (
            ("d/nothing", "zip", False, FileNotFoundError),
            ("d/dump.sql", "rar", False, BadRequestError),
            ("d/sub", "gz", False, BadRequestError),
            ("d/dump.sql", "gz", True, BadRequestError),
            ("d/SHA256SUMS", "zip", True, BadRequestError),
            ("", "zip", False, BadRequestError),
            ("d/x.tgz", "tar.gz", False, ConflictError),
            ("d/dump.sql", "zip", False, IsADirectoryError),
            ("d/a:b.sql", "zip", False, FileNameError),
        ):
            with self.assertRaises(kind):
                self.order(source, form, sums=sums)

    def test_room(self) -> None:
        """No order is taken where there is no room for a tenth of the file, or nothing may be written."""
        self.disk.free = 10_000 + len(SQL) // 10 - 1
        error = self.assertRaises(OSError, self.order, "d/dump.sql")
        self.assertEqual((error.errno, sentence_for(error)), (errno.ENOSPC, "the disk is full"))
        self.disk.free += 1
        self.order("d/dump.sql")
        self.disk.free = 10_000
        self.assertRaises(OSError, self.order, "d/sub")
        self.disk.free += 1
        self.order("d/sub")
        self.disk.flags = os.ST_RDONLY
        self.assertEqual(self.assertRaises(OSError, self.order, "d/sub").errno, errno.EROFS)

    def test_the_same_file(self) -> None:
        """What leads to the file that has the archive's name already is refused: it would become its own."""
        old = self.root / "d" / "dump.tgz"
        old.write_bytes(OLD)
        (self.root / "d" / "x.tgz").write_bytes(b"")
        order = self.order("d/dump.sql")
        for make in (old.hardlink_to, old.symlink_to):
            old.unlink()
            make(self.root / "d" / "dump.sql" if make == old.hardlink_to else Path("dump.sql"))
            self.assertRaises(ConflictError, self.order, "d/dump.sql")
            self.assertRaises(ConflictError, self.work, order, Meter(lambda: 0.0))
        (self.root / "d" / "x.sql").symlink_to("x.tgz")
        self.assertRaises(ConflictError, self.order, "d/x.sql")

    def test_place(self) -> None:
        """The same directory by a link is the same place; another name or directory is another one."""
        (self.root / "l").symlink_to("d")
        places = [self.order(source)["place"] for source in ("d/dump.sql", "l/dump.sql", "d/sub", "d/sub/a")]
        status = (self.root / "d").stat()
        self.assertEqual(places[:2], [f"{status.st_dev}:{status.st_ino}/dump.tgz"] * 2)
        self.assertEqual(len(set(places)), 3)

    def test_the_part_that_is_seen(self) -> None:
        """An order keeps what its principal saw; what they do not see is not there, nor a place above it."""
        order = self.order("d/sub/a", "tar.gz", Principal("s", Right.ALL, P("d/sub"), False), "d")
        self.assertEqual((order["base"], order["exported"], order["hidden"]), ("/d/sub", "/d", False))
        who = Principal("s", Right.ALL, P("d/sub"), False)
        for path in ("d/dump.sql", "d/sub/.hidden"):
            self.assertRaises(FileNotFoundError, self.order, path, "tar.gz", who)
        self.assertRaises(BadRequestError, self.order, "d/sub", "tar.gz", who)
        self.assertRaises(BadRequestError, self.order, "d", "tar.gz", ALL, "d")


class WorkTests(CompressionCase):
    """What becomes of an order."""

    def test_file(self) -> None:
        """A dump becomes an archive of one member beside it, and the result speaks of that."""
        result = self.made("d/dump.sql")
        archive = self.root / "d" / "dump.tgz"
        data = archive.read_bytes()
        with tarfile.open(archive) as tar:
            [member] = tar.getmembers()
            content = tar.extractfile(member)
            self.assertEqual((member.name, content and content.read()), ("dump.sql", SQL))
        self.assertEqual(
            result,
            {
                "path": "/d/dump.tgz",
                "size": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "files": 1,
                "skipped": {"count": 0, "entries": []},
            },
        )
        self.assertEqual(
            gzip.decompress((self.root / self.made("d/dump.sql", "gz")["path"][1:]).read_bytes()), SQL
        )

    def test_directory(self) -> None:
        """A directory becomes an archive with its own name on top; what it lacks is counted and named."""
        for number in range(120):
            os.mkfifo(self.root / "d" / "sub" / f"fifo-{number:03}")
        result = self.made("d/sub", "zip", sums=True)
        with zipfile.ZipFile(self.root / "d" / "sub.zip") as archive:
            self.assertEqual(archive.namelist(), ["sub/.hidden", "sub/a", "SHA256SUMS"])
        self.assertEqual((result["files"], result["skipped"]["count"]), (2, 120))
        self.assertEqual(len(result["skipped"]["entries"]), 100)
        self.assertEqual(result["skipped"]["entries"][0], {"name": "sub/fifo-000", "why": "a FIFO"})

    def test_the_view_of_its_order(self) -> None:
        """What the principal did not see is not in it."""
        who = Principal("s", Right.ALL, P("d"), sees_hidden=False)
        self.assertEqual(self.made("d/sub", "zip", who=who)["files"], 1)

    def mode_of(self, source: str, mode: int, old: int | None = None) -> int:
        """The mode of an archive whose source has this one, and `old` where its name was taken."""
        archive = self.root / self.order(source)["target"].lstrip("/")
        archive.unlink(missing_ok=True)
        (self.root / source).chmod(mode)
        if old is not None:
            archive.write_bytes(OLD)
            archive.chmod(old)
        self.made(source)
        self.assertNotEqual(archive.read_bytes(), OLD)
        return stat.S_IMODE(archive.stat().st_mode)

    def test_mode(self) -> None:
        """Nobody may read an archive who may not read its source, or might not read the old one."""
        self.addCleanup(os.umask, os.umask(0o027))
        for source, mode, old, expected in (
            ("d/dump.sql", 0o600, None, 0o600),
            ("d/dump.sql", 0o644, None, 0o640),
            ("d/dump.sql", 0o4755, None, 0o640),
            ("d/dump.sql", 0o644, 0o600, 0o600),
            ("d/dump.sql", 0o600, 0o644, 0o600),
            ("d/sub", 0o700, None, 0o600),
            ("d/sub", 0o755, None, 0o640),
            ("d/sub", 0o740, None, 0o600),
            ("d/sub", 0o710, None, 0o600),
            ("d/sub", 0o755, 0o600, 0o600),
        ):
            self.assertEqual(self.mode_of(source, mode, old), expected, (source, oct(mode), old))

    def test_mode_of_a_member(self) -> None:
        """One file in a directory that not everybody may read keeps the whole archive from everybody."""
        self.addCleanup(os.umask, os.umask(0o022))
        self.assertEqual(self.mode_of("d/sub", 0o755, None), 0o644)
        inner = self.root / "d/sub/private"
        inner.mkdir()
        (inner / "f").touch()
        for directory, file, expected in (
            (0o755, 0o640, 0o640),
            (0o755, 0o600, 0o600),
            (0o711, 0o644, 0o600),
        ):
            (inner / "f").chmod(file)
            inner.chmod(directory)
            (self.root / "d/sub.tgz").unlink()
            self.assertEqual(self.mode_of("d/sub", 0o755, None), expected, (oct(directory), oct(file)))

    def test_mode_of_another_group(self) -> None:
        """What the source's group may do, another group may only as everybody may, and the reverse."""

        def status(mode: int, group: int) -> os.stat_result:
            return os.stat_result((mode, 0, 0, 1, 0, group, 0, 0, 0, 0))

        archive = status(stat.S_IFREG | 0o664, 7)
        for mode, group, expected in (
            (stat.S_IFREG | 0o640, 7, 0o640),
            (stat.S_IFREG | 0o640, 8, 0o600),
            (stat.S_IFREG | 0o604, 8, 0o600),
            (stat.S_IFREG | 0o664, 8, 0o644),
            (stat.S_IFDIR | 0o750, 8, 0o600),
            (stat.S_IFDIR | 0o755, 8, 0o644),
        ):
            self.assertEqual(narrowed(archive, status(mode, group), None), expected, (oct(mode), group))
            self.assertEqual(narrowed(archive, archive, status(mode, group)), expected, (oct(mode), group))

    def test_at_the_same_time(self) -> None:
        """Orders that are carried out together share the threads, and make what each makes alone."""
        sources = ("d", "d/dump.sql", "d/sub")
        (self.root / "d" / "dump.sql").write_bytes(SQL * 4)
        orders = [self.order(source, form) for source in sources for form in ("tar.gz", "tar.zst", "zip")]
        alone = [self.work(order, Meter(lambda: 0.0)) for order in orders]
        for order in orders:
            (self.root / order["target"].lstrip("/")).unlink()
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda order: self.work(order, Meter(lambda: 0.0)), orders[3:]))
        self.assertEqual(together, alone[3:])

    def test_progress(self) -> None:
        """The meter knows the totals and arrives at them."""
        meter = Meter(lambda: 0.0)
        self.work(self.order("d"), meter)
        self.assertEqual((meter.bytes_total, meter.files_total), (len(SQL) + 8, 3))
        self.assertEqual((meter.bytes_done, meter.files_done), (len(SQL) + 8, 3))

    def test_again(self) -> None:
        """An order may be carried out twice: the same archive is there."""
        order = self.order("d", "tar.zst")
        self.assertEqual(self.work(order, Meter(lambda: 0.0)), self.work(order, Meter(lambda: 0.0)))

    def test_threads_of_zstd(self) -> None:
        """Orders that begin one after the other have 8, 4, 2 and 2 threads of 8, and not 8 each."""
        work = Compression(self.jail, 8)
        self.addCleanup(work.close)
        together = Barrier(4)
        before, counted = len(os.listdir("/proc/self/task")), list[int]()

        class Meeting(Meter):
            def advance(self, nbytes: int = 0, files: int = 0) -> None:
                if not self.bytes_done:
                    together.wait(60)
                    counted.append(len(os.listdir("/proc/self/task")))
                    together.wait(60)
                super().advance(nbytes, files)

        for number in range(4):
            (self.root / "d" / f"{number}.sql").write_bytes(SQL)
        orders = [self.order(f"d/{number}.sql", "tar.zst") for number in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda order: work(order, Meeting(lambda: 0.0)), orders))
        self.assertLessEqual(max(counted), before + 4 + 16)

    def test_names_that_are_no_text(self) -> None:
        """Such a name is archived, and the result is JSON that any reader takes."""
        jail = Jail(str(self.root), may_be_new=lambda name: True)
        self.addCleanup(jail.close)
        (self.root / os.fsdecode(b"bad\xff.sql")).write_bytes(SQL)
        order = Exports(jail).compress_order(ALL, P(os.fsdecode(b"bad\xff.sql")), "tar.gz")
        result = Compression(jail, 0)(order, Meter(lambda: 0.0))
        self.assertEqual(result["path"], "/bad\ufffd.tgz")
        json.dumps(result, ensure_ascii=False).encode("utf-8")
