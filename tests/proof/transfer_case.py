"""What the proofs of the transfer protocol share: daemons with a token, clients, content made of its name."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blake3 import blake3

from fileexport import Client
from fileexport.tokens import generate_token
from tests.proof import daemon as proof_daemon
from tests.proof.commands import FILEEXPORT, Command, DaemonCase
from tests.proof.daemon import PATIENCE, Daemon
from tests.proof.process import MIB

_PIECE = 4 * MIB


def content(name: str, size: int) -> bytes:
    """So many bytes that look like chance, and are the same for the same name."""
    return blake3(os.fsencode(name)).digest(length=size)


def digest(path: Path) -> bytes:
    """The BLAKE3 of a file."""
    return blake3().update_mmap(path).digest()


def whole_tree(directory: Path) -> dict[str, bytes | None]:
    """Everything below a directory, staging too: content of files, targets of links, None otherwise."""
    found: dict[str, bytes | None] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = os.fsencode(os.readlink(path))
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


class TransferCase(DaemonCase):
    """Has a root, a token and its file; starts daemons that speak the transfer protocol."""

    def setUp(self) -> None:
        super().setUp()
        self.token = generate_token()
        self.tokens = self.write("tokens", f"{self.token}\n".encode(), 0o600)

    def daemon(self, *options: str, port: int = 0, listener: str = "", durability: str = "fast") -> Daemon:
        """A daemon until the test is over."""
        if "--private-key" in options:
            self.patch(proof_daemon, "_BANNER", r"HTTP on (https://127\.0\.0\.1:\d+/)")
        listener = listener or f"tcp:{port}:interface=127.0.0.1"
        daemon = Daemon(
            self.root,
            "--transfer",
            listener,
            "--token-file",
            str(self.tokens),
            "--durability",
            durability,
            *options,
        )
        daemon.__enter__()
        self.addCleanup(daemon.kill)
        return daemon

    def terminal_daemon(self) -> Command:
        """`fileexport run` with the token on its command line, not started yet."""
        state = f"{self.root}.state"
        words = (FILEEXPORT, "run", str(self.root), "0", self.token, "--state", state, "-p", "0")
        return Command(self.root, *words)

    def client(self, port: int, **options: Any) -> Client:
        """A client with the token until the test is over."""
        client = Client(
            options.pop("hostname", "127.0.0.1"), port, options.pop("token", self.token), **options
        )
        self.addCleanup(client.close)
        return client

    def source(self, name: str, size: int, content_name: str | None = None) -> Path:
        """A file to be uploaded, beside the root, with the content that its name decides."""
        path = self.base / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(content_name or name, size))
        return path

    def environ(self, port: int, **more: str) -> dict[str, str]:
        """The variables of a command that speaks to a daemon of ours."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FILEEXPORT_")}
        names = {
            "FILEEXPORT_HOSTNAME": "127.0.0.1",
            "FILEEXPORT_PORT": str(port),
            "FILEEXPORT_TOKEN": self.token,
        }
        return {**kept, **names, **more}

    def command(
        self, environ: Mapping[str, str], *words: str | Path, patience: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run `fileexport` in the base directory to its end."""
        return subprocess.run(
            (FILEEXPORT, *map(str, words)),
            cwd=self.base,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=patience,
            check=False,
        )

    @contextmanager
    def running(self, environ: Mapping[str, str], *words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """`fileexport` for the `with` block; killed where it still runs at its end."""
        process = subprocess.Popen(
            # Whoever runs the proofs in the background has Ctrl-C ignored, and so would this.
            ("env", "--default-signal=INT", FILEEXPORT, *map(str, words)),
            cwd=self.base,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def assert_content(self, path: Path, name: str, size: int) -> None:
        """The file is whole: it has the content that this name decides."""
        self.assertEqual(path.stat().st_size, size, path)
        self.assertEqual(digest(path), blake3(content(name, size)).digest(), path)
