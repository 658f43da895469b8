"""Directories of many files as archives, read by the programs that people have."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.proof.asking import ask, curl
from tests.proof.commands import Command, DaemonCase, run
from tests.proof.counts import SOAK
from tests.proof.daemon import Daemon
from tests.proof.process import MIB, forget_peak, peak, resident, say
from tests.proof.users import bound_by_modes

#: Files of the directory; in a soak more than 16 bits count, where a zip archive needs its larger records.
FILES = 66_000 if SOAK else 5000
IN_ONE = 1000
#: By how much an archive may raise the daemon's memory: its pieces, and the directory at a zip's end.
MEMORY = 64 * MIB
#: Seconds for a program that reads an archive.
PATIENCE = 600.0
FORMS = ("tar", "tar.gz", "tar.zst", "zip")
#: Programs that judge an archive without unpacking it; the file's name follows.
JUDGES = {
    "tar": (("tar", "-tf"), ("bsdtar", "-tf"), ("7z", "t", "-bso0")),
    "zip": (("unzip", "-tqq"), ("bsdtar", "-tf"), ("7z", "t", "-bso0")),
}


class BigTests(DaemonCase):
    """A directory of more files than anybody wants in one."""

    def setUp(self) -> None:
        super().setUp()
        self.names = [f"d/{number // IN_ONE:02}/file {number:05} é.txt" for number in range(FILES)]
        for number in range(0, FILES, IN_ONE):
            (self.root / self.names[number]).parent.mkdir(parents=True)
        for number, name in enumerate(self.names):
            (self.root / name).write_bytes(self.content(number))
        self.daemon = Daemon(self.root)
        self.daemon.__enter__()
        self.addCleanup(self.daemon.kill)
        self.port = urlsplit(self.daemon.url).port or 0

    @staticmethod
    def content(number: int) -> bytes:
        """Of the file of that number; none of them is like another, and some are empty."""
        return b"%d\n" % number * (number % 300)

    def download(self, form: str) -> Path:
        """The archive by curl, whose length is what the head of the answer promises."""
        target = f"d/?archive={form}"
        promised = ask(self.port, f"/{target}", "HEAD").fields["Content-Length"]
        path = self.base / f"d.{form}"
        before = resident(self.daemon.pid)
        forget_peak(self.daemon.pid)
        shown = "%{http_code} %header{content-length} %{time_total}"
        done = curl("-o", path, "-w", shown, self.daemon.url + target, patience=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        status, length, seconds = done.stdout.decode().split()
        self.assertEqual((status, int(length)), ("200", path.stat().st_size))
        self.assertEqual(length, promised)
        grown = peak(self.daemon.pid) - before
        say(
            f"big directory: {FILES} files as {form}: {path.stat().st_size / MIB:.1f} MiB in {seconds} s, "
            f"memory rose by {grown / MIB:.1f} MiB"
        )
        self.assertLess(grown, MEMORY)
        return path

    def judged(self, path: Path, form: str) -> None:
        """Every judge that is installed accepts it; the missing ones are told."""
        for program, *words in JUDGES[form]:
            if shutil.which(program) is None:
                say(f"big directory: {program} is not installed: it has not judged {form}")
                continue
            done = run(program, *words, path, patience=PATIENCE)
            self.assertEqual(done.returncode, 0, (program, done.stdout[-500:], done.stderr[-500:]))
            self.assertEqual(done.stderr, b"", program)

    def assert_same(self, unpacked: Path) -> None:
        """What came out of an archive is what is exported, neither less nor more."""
        found = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
        self.assertEqual(found, set(self.names))
        for number, name in enumerate(self.names):
            if (unpacked / name).read_bytes() != self.content(number):
                raise AssertionError(name)

    def test_tar(self) -> None:
        """As tar it has exactly the length that was promised, and GNU tar unpacks all of it."""
        path = self.download("tar")
        self.judged(path, "tar")
        unpacked = self.base / "unpacked"
        unpacked.mkdir()
        done = run("tar", "-xf", path, "-C", unpacked, patience=PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assert_same(unpacked)
        self.assertEqual(self.daemon.stop(), 0)

    def test_zip(self) -> None:
        """As zip it has exactly the length that was promised, and every program that is here accepts it."""
        path = self.download("zip")
        self.judged(path, "zip")
        if shutil.which("unzip") is not None:
            unpacked = self.base / "unpacked"
            done = run("unzip", "-q", path, "-d", unpacked, patience=PATIENCE)
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            self.assert_same(unpacked)
        self.assertEqual(self.daemon.stop(), 0)


class UnreadableTests(DaemonCase):
    """A directory with a file in its middle that the daemon may not read."""

    def setUp(self) -> None:
        super().setUp()
        before = bound_by_modes()
        (self.root / "d").mkdir()
        for number in range(40):
            (self.root / "d" / f"{number:02}").write_bytes(os.urandom(MIB // 2))
        self.closed = self.root / "d" / "20"
        self.closed.chmod(0)
        words = (str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "fileexport")
        options = (
            "--root",
            str(self.root),
            "-p",
            "0",
            "--transfer",
            "none",
            "--state",
            str(self.base / "state"),
        )
        self.daemon = Command(self.root, *before, *words, *options)
        self.daemon.__enter__()
        self.addCleanup(self.daemon.kill)

    def fetch(self, form: str) -> int:
        """curl's exit status."""
        url = f"{self.daemon.url}d/?archive={form}"
        return curl("-o", self.base / "archive", "-w", "%{http_code}", url).returncode

    def test_middle(self) -> None:
        """The download of an archive fails, in every form, when a file in its middle cannot be read."""
        statuses = {form: self.fetch(form) for form in FORMS}
        say(f"big directory: an unreadable file in the middle: curl's status is {statuses}")
        self.assertNotIn(0, statuses.values())
        self.assertLess((self.base / "archive").stat().st_size, 20 * MIB)
        self.closed.chmod(0o644)
        self.assertEqual({form: self.fetch(form) for form in FORMS}, dict.fromkeys(FORMS, 0))
        self.assertEqual(self.daemon.stop(), 0)

    def test_first(self) -> None:
        """Where it is the first file, the answer is an error, or breaks off: never an archive that opens."""
        (self.root / "d" / "00").chmod(0)
        for form in FORMS:
            url = f"{self.daemon.url}d/?archive={form}"
            done = curl("--fail", "-o", self.base / "archive", url)
            self.assertNotEqual(done.returncode, 0, form)
