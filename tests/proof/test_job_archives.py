"""Archives of jobs that other programs open, of sizes and numbers that no unit test has."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fileexport.compression import Compression
from fileexport.disk.jail import Jail
from fileexport.exports import Exports
from fileexport.meter import Meter
from fileexport.paths import RESERVED, RelPath
from fileexport.tokens import Principal, Right
from tests.proof.commands import run
from tests.proof.counts import SOAK, Tally
from tests.proof.process import say

MIB = 1 << 20
#: Bytes of the sparse file; members of one directory, and directories.
SPARSE = (5 << 30) + 1 if SOAK else 64 * MIB + 1
NAMES, DIRECTORIES = 1_000, 200 if SOAK else 8
#: What memory may grow by, whatever is packed: blocks of all threads, notes, one directory's names.
GROWTH = 64 * MIB
#: Seconds that another program may take.
PATIENCE = 600.0

FORMATS = ("tar.gz", "tar.zst", "zip")
#: What reads each format to its end and complains, by the suffix of the archive.
READERS = {
    ".tgz": (("gzip", "-t"), ("tar", "-tzf"), ("bsdtar", "-tf"), ("7z", "t")),
    ".tar.zst": (("zstd", "-tq"), ("bsdtar", "-tf")),
    ".zip": (("unzip", "-tq"), ("bsdtar", "-tf"), ("7z", "t")),
}
#: What unpacks it into the current directory.
UNPACKERS = {
    ".tgz": (("tar", "-xzf"), ("bsdtar", "-xf")),
    ".tar.zst": (("bsdtar", "-xf"),),
    ".zip": (("unzip", "-qo"), ("bsdtar", "-xf"), ("7z", "x", "-y")),
}
_TALLY = Tally("archives read by other programs")


class ArchiveCase(SynchronousTestCase):
    """Has a root for which a hole in a file costs no memory, and somebody who may do everything there."""

    def setUp(self) -> None:
        # In memory where that is possible: on a disk the page cache would fill with zeros.
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.root = Path(tempfile.mkdtemp(dir=place)).resolve()
        self.addCleanup(shutil.rmtree, self.root)
        self.jail = Jail(str(self.root))
        self.addCleanup(self.jail.close)

    def make(self, name: str, form: str, *, sums: bool = False) -> Path:
        """The archive of what lies in the root."""
        who = Principal("proof", Right.ALL, RelPath())
        order = Exports(self.jail).compress_order(who, RelPath((name,)), form, sums=sums)
        work = Compression(self.jail, len(os.sched_getaffinity(0)))
        with closing(work), self.constant(f"{form} of {name}"):
            made = work(order, Meter(lambda: 0.0))
        self.assertEqual(os.listdir(self.root / RESERVED), [])
        path = self.root / str(made["path"]).lstrip("/")
        self.assertEqual(path.stat().st_size, made["size"])
        return path

    @contextmanager
    def constant(self, what: str) -> Iterator[None]:
        """Memory must not grow by much."""
        _peak()
        before = _peak()
        yield
        growth = _peak() - before
        say(f"{what}: memory grew by {growth / MIB:.1f} MiB")
        self.assertLess(growth, GROWTH)

    def read_by_all(self, path: Path) -> None:
        """Every program that is there reads the archive and finds nothing wrong."""
        for command in READERS[_suffix(path)]:
            if shutil.which(command[0]) is None:
                say(f"not installed: {command[0]}")
                continue
            done = run(*command, path, patience=PATIENCE)
            self.assertEqual(done.returncode, 0, (command, done.stdout[-300:], done.stderr[-300:]))
            _TALLY.add(1, command[0])


def _suffix(path: Path) -> str:
    return next(suffix for suffix in READERS if path.name.endswith(suffix))


def _peak() -> int:
    """The most memory that this process had since the last call."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Path("/proc/self/clear_refs").write_text("5")
    return highest << 10


class OddTests(ArchiveCase):
    """A tree with odd names and sizes, unpacked by everybody."""

    def setUp(self) -> None:
        super().setUp()
        self.files = {
            "empty": b"",
            "block": b"b" * 512,
            "with blank": b"1",
            "Größe 世界": b"2",
            "-rf": b"3",
            "d/" + "n" * 120 + "/" + "m" * 120: b"long",
            "d/noise": os.urandom(3 * MIB),
            "d/zeros": bytes(3 * MIB),
        }
        for name, content in self.files.items():
            path = self.root / "odd tree" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (self.root / "odd tree" / "hollow").mkdir()

    def test_all(self) -> None:
        """Each program that opens a format gets every byte back, and `sha256sum -c` agrees."""
        for form in FORMATS:
            path = self.make("odd tree", form, sums=True)
            self.read_by_all(path)
            for command in UNPACKERS[_suffix(path)]:
                if shutil.which(command[0]) is not None:
                    self.unpack(command, path)
                    _TALLY.add(1, command[0])

    def unpack(self, command: tuple[str, ...], path: Path) -> None:
        """Unpack it elsewhere and compare."""
        place = Path(tempfile.mkdtemp(dir=self.root))
        done = run(*command, path, cwd=place, patience=PATIENCE)
        self.assertEqual(done.returncode, 0, (command, done.stderr[-300:]))
        for name, content in self.files.items():
            self.assertEqual((place / "odd tree" / name).read_bytes(), content, (command, name))
        self.assertTrue((place / "odd tree" / "hollow").is_dir(), command)
        checked = run("sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS", cwd=place)
        self.assertEqual((checked.returncode, checked.stdout), (0, b""), command)
        shutil.rmtree(place)


class BigTests(ArchiveCase):
    """Sizes and numbers."""

    def test_sparse(self) -> None:
        """A large sparse file is one member that comes back whole."""
        with open(self.root / "sparse.bin", "wb") as out:
            out.truncate(SPARSE)
            out.seek(SPARSE - 3)
            out.write(b"end")
        for form in FORMATS:
            path = self.make("sparse.bin", form, sums=True)
            self.read_by_all(path)
            self.check_sums(path)

    def check_sums(self, path: Path) -> None:
        """The member and its checksum, as Python reads them."""
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open("sparse.bin") as member:
                self.assertEqual(archive.getinfo("sparse.bin").file_size, SPARSE)
                digest = hashlib.sha256()
                for piece in iter(partial(member.read, MIB), b""):
                    digest.update(piece)
                self.assertEqual(archive.read("SHA256SUMS"), f"{digest.hexdigest()}  sparse.bin\n".encode())
        elif path.suffix == ".tgz":
            with tarfile.open(path) as tar:
                self.assertEqual([(one.name, one.size) for one in tar][0], ("sparse.bin", SPARSE))

    def test_names(self) -> None:
        """A tree of many names is packed in the same memory, and every name is there."""
        for directory in range(DIRECTORIES):
            top = self.root / "many" / f"{directory:03}"
            top.mkdir(parents=True)
            for number in range(NAMES):
                (top / f"name-{number:06}").write_bytes(b"%d" % number)
        count = DIRECTORIES * (NAMES + 1)
        for form in FORMATS:
            path = self.make("many", form, sums=True)
            self.read_by_all(path)
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    self.assertEqual(len(archive.namelist()), count + 1)
                    self.assertEqual(archive.read(f"many/{DIRECTORIES - 1:03}/name-000999"), b"999")
            elif path.suffix == ".tgz":
                listed = run("tar", "-tzf", path, patience=PATIENCE).stdout
                self.assertEqual(listed.count(b"\n"), count + 1)
        say(f"names in one archive: {count}")
