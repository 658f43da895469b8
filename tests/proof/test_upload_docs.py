"""docs/uploads.md: what it says to type is typed, at a daemon, and must answer what stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from tests.proof import node
from tests.proof.commands import DaemonCase
from tests.proof.daemon import CHECKOUT, PATIENCE, Daemon

TOKEN = "the-token-of-this-page-and-no-other"
#: Where the page says that the daemon listens, and what stands for any text in what it shows.
_ADDRESS, _ANYTHING = "http://127.0.0.1:9006", "…"
_MISSING = [program for program in ("curl", "rclone", "cmp") if shutil.which(program) is None]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Typed(NamedTuple):
    """A line of a shell, and what it prints."""

    line: str
    shown: str


def blocks(kind: str) -> list[str]:
    """The page's examples of one language, in order."""
    text = (CHECKOUT / "docs/uploads.md").read_text(encoding="utf-8")
    return [body for found, body in _BLOCK.findall(text) if found == kind]


def typed() -> Iterator[Typed]:
    """Each line that the page says to type."""
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, shown = part.partition("\n")
            yield Typed(line, shown)


class PageCase(DaemonCase):
    """Has what the page supposes."""

    def setUp(self) -> None:
        super().setUp()
        self.here = self.base / "here"
        self.here.mkdir()
        (self.root / "dumps").mkdir()
        (self.root / "dumps" / "notes.txt").write_text("a first note\n")
        (self.here / "numbers.txt").write_text("".join(f"{number}\n" for number in range(1, 100_001)))
        self.tokens = self.base / "tokens"
        self.tokens.write_text(f"{TOKEN}\n")
        self.tokens.chmod(0o600)

    def daemon(self) -> Daemon:
        """A daemon of the root; its token is `TOKEN`."""
        return Daemon(self.root, "--token-file", str(self.tokens))

    def run_here(self, *command: str) -> str:
        """What a command prints, which must succeed."""
        found = subprocess.run(
            command,
            cwd=self.here,
            env={**os.environ, "token": TOKEN},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=PATIENCE,
        )
        self.assertEqual(found.returncode, 0, found.stdout)
        return found.stdout

    def assert_uploaded(self) -> None:
        """The file has come, whole."""
        found = (self.root / "dumps" / "numbers.txt").read_bytes()
        self.assertEqual(found, (self.here / "numbers.txt").read_bytes())


class LineTests(PageCase):
    """What is typed in a shell."""

    skip = f"not here: {', '.join(_MISSING)}" if _MISSING else None

    def test_lines(self) -> None:
        """Every line that is typed in a shell prints what the page shows; … stands for anything."""
        with self.daemon() as daemon:
            for line, shown in typed():
                command = line.replace(f"{_ADDRESS}/", daemon.url)
                found = self.run_here("bash", "-c", f"{command}\nexit 0")
                pattern = re.escape(shown.strip()).replace(_ANYTHING, ".+")
                self.assertRegex(found.strip().replace("\r", ""), rf"\A{pattern}\Z", line)


class PythonTests(PageCase):
    """tuspy, as it is published."""

    def test_tuspy(self) -> None:
        """The example for tuspy uploads its file."""
        [example] = (found for found in blocks("python") if "tusclient" in found)
        with self.daemon() as daemon:
            example = example.replace(f"{_ADDRESS}/", daemon.url)
            self.run_here(sys.executable, "-c", f"import os\ntoken = os.environ['token']\n{example}")
        self.assert_uploaded()


class ScriptTests(PageCase):
    """tus-js-client, as it is published."""

    skip = node.MISSING

    def test_tus_js_client(self) -> None:
        """The example for tus-js-client uploads its file."""
        [example] = blocks("js")
        with self.daemon() as daemon:
            example = example.replace(f"{_ADDRESS}/", daemon.url)
            example = example.replace("'numbers.txt')", "process.argv[1])")
            before = "const fs = require('fs'), tus = require('tus-js-client'), token = process.argv[2]\n"
            done = node.run_script(before + example, str(self.here / "numbers.txt"), TOKEN)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assert_uploaded()
