"""docs/library.md: its tables are what the code has, its examples do what they say, on a loopback server."""

from __future__ import annotations

import builtins
import contextlib
import inspect
import io
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import fileexport
from fileexport import (
    BusyError,
    Client,
    FileExportError,
    download_files,
    synchronize_download,
    synchronize_upload,
    upload_files,
)
from fileexport.client.matching import Matching
from fileexport.testing import serving
from tests.test_docs import CHECKOUT, page, table

PAGE = "docs/library.md"
EXAMPLES = CHECKOUT / "docs" / "examples"
HEADS = ("looking", "changing", "transfers", "jobs, and the end")
#: Parameters that only our own rooms can give: what they take is not offered.
INNER = ("tree", "place")
MTIME = 1_700_000_000


def example(name: str, function: str) -> Callable[..., Any]:
    """A function of an example, as a reader would import it."""
    found: Callable[..., Any] = runpy.run_path(str(EXAMPLES / name))[function]
    return found


def spelled(function: Callable[..., object]) -> str:
    """Name and parameters as the tables spell them: without `self`, `timeout` and annotations."""
    found = inspect.signature(function)
    kept = [
        one.replace(annotation=inspect.Parameter.empty)
        for one in found.parameters.values()
        if one.name not in ("self", "timeout", *INNER)
    ]
    bare = found.replace(parameters=kept, return_annotation=inspect.Signature.empty)
    return f"`{function.__name__}{bare}`"


class PageTests(SynchronousTestCase):
    """What the page says is what the code is."""

    def test_methods(self) -> None:
        """The tables name every method of a client with its parameters and defaults, and no other.

        Those of `Matching` are what a synchronisation is made of.
        """
        public = {
            spelled(method)
            for name, method in inspect.getmembers(Client, inspect.isfunction)
            if not name.startswith("_") and not hasattr(Matching, name)
        }
        rows = [row[0] for head in HEADS for row in table(page(PAGE), f"| {head} | |")]
        self.assertEqual(len(rows), len(set(rows)))
        self.assertEqual(set(rows), public)

    def test_timeouts(self) -> None:
        """Every method takes a time-out, but for those that ask nothing."""
        for name, method in inspect.getmembers(Client, inspect.isfunction):
            if not name.startswith("_") and name not in ("close", "path"):
                self.assertIn("timeout", inspect.signature(method).parameters, name)

    def test_signatures(self) -> None:
        """The parameters of `Client` and of the functions for many files are those that the page gives."""
        text = " ".join(page(PAGE).split())
        for function in (Client, fileexport.open, upload_files, synchronize_upload):
            parameters = [
                one.replace(annotation=inspect.Parameter.empty)
                for one in inspect.signature(function).parameters.values()
            ]
            whole = f"{function.__name__}{inspect.Signature(parameters)}".replace("'", '"')
            self.assertIn(f"`{whole}`", text)
        for pair in ((upload_files, download_files), (synchronize_upload, synchronize_download)):
            one, other = ([*inspect.signature(function).parameters.values()] for function in pair)
            self.assertEqual(one, other)

    def test_exceptions(self) -> None:
        """The table has every exception of the library, and otherwise only built-in ones."""
        rows = table(page(PAGE), "| exception | means | what holds then |")
        named = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
        ours = {
            name
            for name in fileexport.__all__
            if isinstance(one := getattr(fileexport, name), type) and issubclass(one, Exception)
        }
        self.assertEqual(ours - named, {FileExportError.__name__})
        self.assertEqual({name for name in named - ours if not hasattr(builtins, name)}, set())

    def test_public_names(self) -> None:
        """The page names everything that the package offers."""
        text = page(PAGE)
        for name in fileexport.__all__:
            self.assertRegex(text, rf"`{name}\b", name)


class ExampleTests(SynchronousTestCase):
    """The examples run."""

    def setUp(self) -> None:
        self.root = self.directory("root")
        self.here = self.directory("here")
        self.server = self.enterContext(serving(self.root))
        self.client = self.enterContext(self.server.client())

    def directory(self, name: str) -> Path:
        """A new directory."""
        made = Path(self.mktemp()).absolute() / name
        made.mkdir(parents=True)
        return made

    def write(self, top: Path, *paths: str) -> None:
        """Files below `top` that hold their own names."""
        for path in paths:
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text(path, encoding="utf-8")
            os.utime(top / path, (MTIME, MTIME))

    def below(self, top: Path) -> list[str]:
        """The files below `top`."""
        return sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())

    def test_first(self) -> None:
        """The first example sends, lists and fetches a file, and imports no Twisted."""
        self.write(self.here, "a.txt")
        code = "import runpy, sys; runpy.run_path(sys.argv.pop(1)); sys.exit('twisted' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code, EXAMPLES / "first.py", "a.txt", "copy.txt"],
            cwd=self.here,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src"), **self.server.environment},
            capture_output=True,
            text=True,
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"a.txt 5 {MTIME}\n", ""))
        copy = self.here / "copy.txt"
        self.assertEqual((copy.read_text(), copy.stat().st_mtime), ("a.txt", MTIME))

    def test_watched(self) -> None:
        """An upload within its time is there; one that takes too long is cancelled and leaves nothing."""
        upload_within = example("watched.py", "upload_within")
        self.write(self.here, "in-time", "late")
        self.patch(sys, "stderr", shown := io.StringIO())
        self.assertTrue(upload_within(self.client, 60, str(self.here / "in-time"), "/"))
        self.assertFalse(upload_within(self.client, -1, str(self.here / "late"), "/"))
        self.assertTrue((self.root / "in-time").exists())
        self.assertFalse((self.root / "late").exists())
        self.assertEqual(shown.getvalue(), "\rin-time: 7 of 7 bytes\rlate: 4 of 4 bytes")

    def test_async_sending(self) -> None:
        """All files of a directory are sent at once, and listed; those in its directories are not."""
        self.write(self.here, "files/a.txt", "files/b.txt", "files/in/c.txt")
        done = subprocess.run(
            [sys.executable, EXAMPLES / "async_sending.py", "files"],
            cwd=self.here,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src"), **self.server.environment},
            capture_output=True,
            text=True,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(sorted(done.stdout.splitlines()), ["a.txt 11", "b.txt 11"])

    def test_remote_file(self) -> None:
        """Lines are counted, the number is kept beside them, the end is shown; no Twisted is needed."""
        (self.root / "log").write_text("good\nbad ä\n" * 1000 + "bad end\n", encoding="utf-8")
        code = "import runpy, sys; runpy.run_path(sys.argv[0])"
        code = f"import sys; del sys.argv[0]; {code}; sys.exit('twisted' in sys.modules)"
        url = f"fileexport://127.0.0.1:{self.server.port}/log"
        done = subprocess.run(
            [sys.executable, "-c", code, EXAMPLES / "remote_file.py", url, "bad"],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src"), "FILEEXPORT_TOKEN": self.server.token},
            capture_output=True,
            encoding="utf-8",
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout.encode()[-900:], (self.root / "log").read_bytes()[-900:])
        self.assertLessEqual(len(done.stdout.encode()), 1002)
        self.assertEqual((self.root / "log.count").read_text(encoding="ascii"), "1001\n")

    def test_remote_path(self) -> None:
        """The index has each first line, empty files are put aside, and no Twisted is imported."""
        self.write(self.root, "reports/a.csv", "reports/b/c.csv", "reports/b/d.txt")
        (self.root / "reports" / "b" / "e.csv").touch()
        code = "import runpy, sys; runpy.run_path(sys.argv[0], run_name='__main__')"
        code = f"import sys; del sys.argv[0]; {code}; sys.exit('twisted' in sys.modules)"
        for count in (1, 2):
            done = subprocess.run(
                [
                    *(sys.executable, "-c", code, EXAMPLES / "remote_path.py"),
                    f"fileexport://127.0.0.1:{self.server.port}/reports",
                ],
                env={
                    **os.environ,
                    "PYTHONPATH": str(CHECKOUT / "src"),
                    "FILEEXPORT_TOKEN": self.server.token,
                },
                capture_output=True,
                text=True,
            )
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "2 files\n", ""), count)
        written = (self.root / "reports" / "index.txt").read_text(encoding="utf-8")
        self.assertEqual(written, "a.csv: reports/a.csv\nb/c.csv: reports/b/c.csv\n")
        self.assertTrue((self.root / "reports" / "empty" / "e.csv").exists())

    def test_remote_path_taken(self) -> None:
        """An empty file whose name is taken aside stays, and so does the other one."""
        self.write(self.root, "reports/empty/e.csv")
        (self.root / "reports" / "e.csv").touch()
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self.assertEqual(example("remote_path.py", "index")(self.client.path("/reports")), 0)
        self.assertEqual(said.getvalue(), "/reports/e.csv stays: there is one of its name aside\n")
        self.assertTrue((self.root / "reports" / "empty" / "e.csv").read_bytes())

    def test_publish(self) -> None:
        """Files go to their places below the directory, without what is excluded, in place of older ones."""
        self.write(
            self.here, "index.html", "draft.html", "notes.txt", "img/a/b.png", "img/c.png", "img/d.gif"
        )
        self.write(self.root, "www/index.html")
        (self.here / "index.html").write_text("new", encoding="utf-8")
        example("trees.py", "publish")(self.client, str(self.here))
        self.assertEqual(self.below(self.root), ["www/img/a/b.png", "www/img/c.png", "www/index.html"])
        self.assertEqual((self.root / "www" / "index.html").read_text(encoding="utf-8"), "new")

    def test_collect(self) -> None:
        """Files come to their places, without those that are there or are too large."""
        self.write(self.root, "logs/web/monday.log", "logs/web/large-file.log", "logs/web/x", "logs/y.log")
        self.write(self.root, "logs/db/monday.log")
        (self.here / "db").mkdir()
        (self.here / "db" / "monday.log").write_text("older", encoding="utf-8")
        example("trees.py", "collect")(self.client, str(self.here), len("logs/web/monday.log"))
        self.assertEqual(self.below(self.here), ["db/monday.log", "web/monday.log"])
        self.assertEqual((self.here / "db" / "monday.log").read_text(encoding="utf-8"), "older")

    def test_places(self) -> None:
        """As the page says of `relative_directory`: the path below it is kept, which is the current one."""
        self.write(self.here, "a/b.txt")
        (self.root / "d").mkdir()
        upload_files(self.client, "a/b.txt", "/d", self.here)
        upload_files(self.client, self.here / "a" / "b.txt", "/", self.directory("elsewhere"))
        self.assertEqual(self.below(self.root), ["b.txt", "d/a/b.txt"])

    def test_mirror(self) -> None:
        """A mirror becomes equal, what it may not remove stays, and what is left out is named."""
        mirror = example("equal.py", "mirror")
        self.write(self.here, "a", "d/b")
        self.write(self.root, "m/old", "m/a")
        self.patch(sys, "stderr", wrong := io.StringIO())
        self.patch(sys, "stdout", shown := io.StringIO())
        self.assertFalse(mirror(self.client, str(self.here), "/m", 0))
        self.assertEqual(self.below(self.root), ["m/a", "m/old"])
        self.assertTrue(mirror(self.client, str(self.here), "/m", 1))
        self.assertEqual(self.below(self.root), ["m/a", "m/d/b"])
        lines = ["2 files, 4 bytes at most, 1 to be removed", "removed old", "sent 4 bytes, saved 0"]
        self.assertEqual(shown.getvalue().splitlines(), lines)
        (self.here / "out").symlink_to("/etc")
        self.assertFalse(mirror(self.client, str(self.here), "/m", 1))
        [left_out] = wrong.getvalue().splitlines()[1:]
        self.assertTrue(left_out.startswith("left out: out: the link leads outside"), left_out)

    def test_patient(self) -> None:
        """While somebody else writes a path the last try says so; once they are done, it succeeds."""
        patiently = example("patient.py", "patiently")
        self.write(self.here, "a.txt", "b.txt")
        tries: list[int] = []
        holders: list[str | None] = []

        def second() -> bool:
            tries.append(1)
            return self.client.upload_file(self.here / "b.txt", "/", "x", replace=True)

        def meanwhile(*_: object) -> bool:
            holders.append(self.assertRaises(BusyError, patiently, second, (0, 0)).holder)
            return True

        self.client.upload_file(self.here / "a.txt", "/", "x", process_chunk=meanwhile)
        self.assertEqual(len(tries), 3)
        self.assertTrue(holders[0])
        self.assertTrue(patiently(second))
        self.assertEqual((self.root / "x").read_text(encoding="utf-8"), "b.txt")
