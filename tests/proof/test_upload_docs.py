"""docs/uploads.md: what it says to type is typed, at a daemon, and must answer what stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import SkipTest

from tests.proof import node
from tests.proof.commands import DaemonCase
from tests.proof.daemon import CHECKOUT, PATIENCE, Daemon

TOKEN = "the-token-of-this-page-and-no-other"
#: Where the page says that the daemon listens, and what stands for any text in what it shows.
_ADDRESS, _ANYTHING = "http://127.0.0.1:9006", "…"
_MISSING = [program for program in ("curl", "rclone", "cmp") if shutil.which(program) is None]
_EXAMPLES = CHECKOUT / "docs/examples"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Typed(NamedTuple):
    """A line of a shell, and what it prints."""

    line: str
    shown: str


def typed() -> Iterator[Typed]:
    """Each line that the page says to type."""
    text = (CHECKOUT / "docs/uploads.md").read_text(encoding="utf-8")
    for block in _BLOCK.findall(text):
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

    def run_here(self, *command: str, **variables: str) -> str:
        """What a command prints, which must succeed."""
        found = subprocess.run(
            command,
            cwd=self.here,
            env=os.environ | {"FILEEXPORT_TOKEN": TOKEN, "NODE_PATH": str(node.PACKAGES)} | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=PATIENCE,
        )
        self.assertEqual(found.returncode, 0, found.stdout)
        return found.stdout


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


class ClientTests(PageCase):
    """The examples for clients of tus, as these are published."""

    def upload(self, *command: str | Path) -> None:
        """Run one with a file, which must come."""
        with self.daemon() as daemon:
            self.run_here(*map(str, command), "numbers.txt", FILEEXPORT_URL=daemon.url)
        found = (self.root / "dumps" / "numbers.txt").read_bytes()
        self.assertEqual(found, (self.here / "numbers.txt").read_bytes())

    def test_tuspy(self) -> None:
        """The example for tuspy uploads its file."""
        self.upload(sys.executable, _EXAMPLES / "tus_upload.py")

    def test_tus_js_client(self) -> None:
        """The example for tus-js-client uploads its file."""
        if node.MISSING:
            raise SkipTest(node.MISSING)
        self.upload("node", _EXAMPLES / "tus_upload.js")
