"""The command line against a real daemon: one for all tests of a process; each has its own directory."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from fileexport.cli import main
from fileexport.client.blocking import Client
from fileexport.errors import SourceNotFound, sentence_of
from fileexport.tokens import generate_token
from tests.proof.daemon import Daemon

TOKEN = generate_token()
READER = generate_token()
NO_SOURCE = sentence_of(SourceNotFound)


class _Shared:
    """The daemon, once it is needed."""

    daemon: Daemon | None = None
    base: Path

    @classmethod
    def port(cls) -> int:
        """Where it listens."""
        if cls.daemon is None:
            cls.base = Path(tempfile.mkdtemp(prefix="fileexport-cli-"))
            atexit.register(shutil.rmtree, cls.base, ignore_errors=True)
            root, tokens = cls.base / "root", cls.base / "tokens"
            root.mkdir()
            tokens.touch(0o600)
            tokens.write_text(f"{TOKEN} name=all\n{READER} name=reader may=read\n")
            listener = ("--transfer", "tcp:0:interface=127.0.0.1")
            daemon = Daemon(root, *listener, "--token-file", str(tokens), "--durability", "fast")
            daemon.__enter__()
            atexit.register(daemon.kill)
            cls.daemon = daemon
        return cls.daemon.transfer_port


class CliCase(SynchronousTestCase):
    """Has a remote directory `remote`, which is `there` on the disk, and a local one, `here`."""

    def setUp(self) -> None:
        self.port = _Shared.port()
        self.here = Path(self.mktemp()).absolute()
        self.here.mkdir(parents=True)
        self.there = Path(tempfile.mkdtemp(prefix="t", dir=_Shared.base / "root"))
        self.there.chmod(0o755)
        self.remote = f"/{self.there.name}"
        self.environment: dict[str, str | None] = {
            **{name: None for name in os.environ if name.startswith("FILEEXPORT_")},
            "FILEEXPORT_HOSTNAME": "127.0.0.1",
            "FILEEXPORT_PORT": str(self.port),
            "FILEEXPORT_TOKEN": TOKEN,
        }

    def client(self) -> Client:
        """A client of the library, until the test is over."""
        client = Client("127.0.0.1", self.port, TOKEN)
        self.addCleanup(client.close)
        return client

    def run_command(self, *words: str, **changes: str | None) -> Result:
        """What `fileexport` with these words does, in the local directory; `changes` of the environment."""
        before = os.getcwd()
        os.chdir(self.here)
        try:
            runner = CliRunner(env={**self.environment, **changes})
            result = runner.invoke(main, words, prog_name="fileexport")
        finally:
            os.chdir(before)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        for stream in (result.stdout_bytes, result.stderr_bytes):
            self.assertNotIn(TOKEN.encode("ascii"), stream)
        return result

    def done(self, *words: str, **changes: str | None) -> Result:
        """As `run_command`; it succeeds and complains of nothing."""
        result = self.run_command(*words, **changes)
        self.assertEqual((result.exit_code, result.stderr), (0, ""), words)
        return result

    def refused(self, status: int, line: str, *words: str, **changes: str | None) -> None:
        """The command ends with that status, nothing on stdout, and one line on stderr, which is given."""
        result = self.run_command(*words, **changes)
        self.assertEqual(
            (result.exit_code, result.stderr, result.stdout), (status, f"Error: {line}\n", ""), words
        )

    def events(self, *words: str, status: int = 0) -> list[dict[str, Any]]:
        """The objects that a command with --json prints."""
        result = self.run_command(*words, "--json")
        self.assertEqual(result.exit_code, status, result.output)
        return [json.loads(line) for line in result.stdout.splitlines()]


def fill(directory: Path, files: Mapping[str, bytes | str | None]) -> None:
    """Make files and, for None, directories below a directory."""
    for name, content in files.items():
        path = directory / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else os.fsencode(content))


def tree(directory: Path) -> dict[str, str | None]:
    """All below a directory but our own staging: content of files, targets of links, None for the rest."""
    found: dict[str, str | None] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if name.split("/")[0] == ".fileexport":
            continue
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = os.fsdecode(path.read_bytes()) if path.is_file() else None
    return found
