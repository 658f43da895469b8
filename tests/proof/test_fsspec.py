"""fsspec, pandas and universal-pathlib with a real daemon, found by the entry points of the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import fsspec
import pandas
from upath import UPath

from tests.proof.counts import Tally
from tests.proof.daemon import CHECKOUT, PATIENCE
from tests.proof.transfer_case import TransferCase, content

#: Seconds for fsspec's whole suite; no time is asserted.
LONG = 4 * PATIENCE
GIB = 1 << 30
TALLY = Tally("tests of fsspec's suite")


class FsspecCase(TransferCase):
    """Has a daemon, and the options of its file system."""

    def setUp(self) -> None:
        super().setUp()
        self.port = self.daemon().transfer_port
        self.options = {"token": self.token}
        self.addCleanup(fsspec.get_filesystem_class("fileexport").clear_instance_cache)

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"fileexport://127.0.0.1:{self.port}{path}"

    def python(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run Python in the checkout with the daemon in its environment."""
        environ = {**self.environ(self.port), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            (sys.executable, *words),
            cwd=CHECKOUT,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )


class SuiteTests(FsspecCase):
    """The suite that fsspec publishes."""

    def test_suite(self) -> None:
        """Every test of it passes; none is left out."""
        report = self.base / "report.xml"
        options = (
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={self.base / 'pytest'}",
            f"--junit-xml={report}",
        )
        done = self.python("-m", "pytest", *options, "tests/proof/fsspec_suite.py")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        [suite] = ElementTree.parse(report).getroot()
        counts = {name: int(suite.attrib[name]) for name in ("tests", "errors", "failures", "skipped")}
        self.assertGreater(counts.pop("tests"), 100)
        self.assertEqual(set(counts.values()), {0}, counts)
        TALLY.add(int(suite.attrib["tests"]))


class UserTests(FsspecCase):
    """What users do."""

    def test_pandas(self) -> None:
        """The example reads a table by its URL and writes another; options may stand in the call instead."""
        (self.root / "sales.csv").write_text("product,amount\nnut,1\nbolt,2\nnut,3\n")
        done = self.python("docs/examples/table.py", self.url("/sales.csv"))
        self.assertEqual((done.returncode, done.stdout), (0, self.url("/sales-totals.csv\n")), done.stderr)
        self.assertEqual((self.root / "sales-totals.csv").read_text(), "product,amount\nbolt,2\nnut,4\n")
        totals = pandas.read_csv(self.url("/sales-totals.csv"), storage_options=self.options)
        self.assertEqual(totals["amount"].sum(), 6)
        totals.to_csv(self.url("/packed.csv.gz"), index=False, storage_options=self.options)
        again = pandas.read_csv(self.url("/packed.csv.gz"), storage_options=self.options)
        self.assertTrue(again.equals(totals))
        totals.to_json(self.url("/new.json"), storage_options=self.options)
        self.assertTrue(pandas.read_json(self.url("/new.json"), storage_options=self.options).equals(totals))

    def test_open(self) -> None:
        """`fsspec.open` and `open_files` write and read, globs and parts of a huge sparse file too."""
        for number, file in enumerate(
            fsspec.open_files(self.url("/parts/*.txt"), "w", num=3, **self.options)
        ):
            with file as opened:
                opened.write(str(number))
        found = []
        for file in fsspec.open_files(self.url("/parts/*.txt"), "r", **self.options):
            with file as opened:
                found.append(opened.read())
        self.assertEqual(found, ["0", "1", "2"])
        with open(self.root / "huge", "wb") as sparse:
            sparse.truncate(10 * GIB)
            os.pwrite(sparse.fileno(), b"here", 7 * GIB)
        with fsspec.open(self.url("/huge"), **self.options) as huge:
            huge.seek(7 * GIB)
            self.assertEqual(huge.read(5), b"here\0")
        fs = fsspec.filesystem("fileexport", hostname="127.0.0.1", port=self.port, **self.options)
        self.assertEqual(fs.cat_file("/huge", 7 * GIB, 7 * GIB + 4), b"here")
        self.assertEqual(fs.size("/huge"), 10 * GIB)

    def test_upath(self) -> None:
        """`UPath` of a URL is ours, and moves a file each way."""
        source = self.source("x", 1_000_000)
        path = UPath(self.url("/a/b"), **self.options)
        self.assertEqual(type(path).__name__, "FileExportPath")
        path.parent.mkdir()
        path.write_bytes(source.read_bytes())
        self.assert_content(self.root / "a" / "b", "x", 1_000_000)
        self.assertEqual(path.read_bytes(), content("x", 1_000_000))
        self.assertEqual([str(one) for one in path.parent.iterdir()], [self.url("/a/b")])

    def test_transaction(self) -> None:
        """A transaction that does not end leaves nothing, though its process is killed in the middle."""
        (self.root / "a").write_bytes(b"old")
        code = (
            "import fsspec, os\n"
            "fs = fsspec.filesystem('fileexport')\n"
            "with fs.transaction:\n"
            "    fs.pipe_file('/a', b'new')\n"
            "    fs.pipe_file('/b', b'new')\n"
            "    os.kill(os.getpid(), 9)\n"
        )
        self.assertEqual(self.python("-c", code).returncode, -9)
        self.assertEqual({one.name: one.read_bytes() for one in self.root.iterdir()}, {"a": b"old"})

    def test_without_twisted(self) -> None:
        """A file is read by its URL, and no Twisted is loaded."""
        (self.root / "a").write_bytes(b"some")
        code = (
            "import fsspec, sys\n"
            "with fsspec.open(sys.argv[1], 'r') as file: print(file.read())\n"
            "sys.exit('twisted' in sys.modules)\n"
        )
        done = self.python("-c", code, self.url("/a"))
        self.assertEqual((done.returncode, done.stdout), (0, "some\n"), done.stderr)
