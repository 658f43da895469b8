"""The package as its users get it: built, installed in a new environment, started by twistd and twist."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from twisted.trial.unittest import SynchronousTestCase

CHECKOUT = Path(__file__).resolve().parents[2]
HTTP = ("--http", "tcp:0:interface=127.0.0.1", "--transfer", "none")
BANNER = re.compile(r"HTTP on (http://127\.0\.0\.1:\d+/)")
#: Seconds after which a daemon that says nothing, or does not end, has failed; no time is asserted.
PATIENCE = 60.0


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of an installed environment to its end, knowing nothing of this checkout."""
    return subprocess.run(
        command, cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def must(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command that has to succeed; return what it prints."""
    done = run(*command, cwd=cwd)
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def environment() -> dict[str, str]:
    """This process's environment, less what would lead back to the checkout or to another configuration."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FILEEXPORT_"))}
    kept.pop("STATE_DIRECTORY", None)
    return kept | {"XDG_STATE_HOME": str(scratch() / "state"), "PYTHONUNBUFFERED": "1"}


@cache
def scratch() -> Path:
    """One directory for this run, inside trial's own."""
    return Path(mkdtemp(prefix="packaging-", dir=".")).resolve()


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """What `make` makes of the path that it is given: once in this run, in whichever process comes first."""
    here = Path.cwd()
    # Where trial runs several processes, each of them has a directory of its own in one of trial's.
    shared = here.parent if (here.parent / "_trial_marker").exists() else here
    target = (shared / f"packaging-{name}").resolve()
    with open(f"{target}.lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if lock.tell() == 0:
            make(target)
            lock.write("made\n")
    return target


@cache
def wheel() -> Path:
    """The wheel, built once."""
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    (built,) = made_once("wheel", lambda to: must(*pip, "-w", to, CHECKOUT)).glob("fileexport-*.whl")
    return built


@cache
def installed(editable: bool = False) -> Path:
    """The `bin` of a new environment that holds the wheel, or the checkout as an editable install."""
    what = ("-e", CHECKOUT) if editable else (wheel(),)

    def make(home: Path) -> None:
        venv.create(home)
        pip = (
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--python",
            home / "bin" / "python",
        )
        must(*pip, "install", "--quiet", "--no-compile", *what, cwd=scratch())

    return made_once("editable" if editable else "plain", make) / "bin"


def a_root() -> Path:
    """A new directory with one file in it."""
    root = Path(mkdtemp(prefix="root-", dir=scratch()))
    (root / "hello.txt").write_text("hello\n")
    return root


class Daemon:
    """A started daemon: `url` from its banner; after `terminate()`, `status` and all of its `output`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.output = ""
        self.url = self._find_url()

    def _find_url(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output += line
            if found := BANNER.search(line):
                return found[1]
        raise AssertionError(f"ended with {self._process.wait()} before its banner:\n{self.output}")

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return bytes(answer.read())

    def terminate(self) -> int:
        """Send SIGTERM, wait for the end; return the exit status."""
        self._process.send_signal(signal.SIGTERM)
        self.output += self._process.communicate()[0]
        return self._process.returncode


@contextmanager
def started(*command: str | Path, cwd: Path) -> Iterator[Daemon]:
    """Start a daemon and wait for its banner; it never outlives the block or `PATIENCE`."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        with process:
            try:
                yield Daemon(process)
            finally:
                process.kill()
    finally:
        watchdog.cancel()


class WheelTests(SynchronousTestCase):
    """What the wheel carries."""

    def test_everything_is_in_it(self) -> None:
        """The wheel holds the package, templates, static files, the type marker, plugin and licence."""
        with zipfile.ZipFile(wheel()) as archive:
            names = archive.namelist()
        for needed in (
            r"fileexport/errors\.py",
            r"fileexport/service\.py",
            r"fileexport/py\.typed",
            r"fileexport/web/templates/.+\.html",
            r"fileexport/web/static/.+",
            r"twisted/plugins/fileexport_plugin\.py",
            r"fileexport-.+\.dist-info/entry_points\.txt",
            r"fileexport-.+\.dist-info/licenses/LICENSE",
        ):
            self.assertTrue([name for name in names if re.fullmatch(needed, name)], needed)

    def test_nothing_else_is_in_it(self) -> None:
        """Outside our package the wheel holds the plugin alone: above all no `__init__.py` beside it."""
        with zipfile.ZipFile(wheel()) as archive:
            others = [n for n in archive.namelist() if not re.match(r"fileexport(-[^/]+\.dist-info)?/", n)]
        self.assertEqual(others, ["twisted/plugins/fileexport_plugin.py"])


class PluginTests(SynchronousTestCase):
    """twistd and twist find the service."""

    def assert_found(self, bin_directory: Path) -> None:
        elsewhere = a_root()
        for tool in ("twistd", "twist"):
            listing = must(bin_directory / tool, "--help", cwd=elsewhere)
            self.assertEqual(len(re.findall(r"^\s+fileexport\s", listing, re.MULTILINE)), 1, listing)

    def test_from_the_wheel(self) -> None:
        """Installed from the wheel, the plugin is shown once, in another directory."""
        self.assert_found(installed())

    def test_from_the_editable_install(self) -> None:
        """Installed as editable, the plugin is shown once, in another directory."""
        self.assert_found(installed(editable=True))


class DaemonTests(SynchronousTestCase):
    """The installed daemon starts, answers and stops, and twistd's three traps are closed."""

    def assert_serves(self, *command: str | Path, cwd: Path) -> None:
        with started(*command, cwd=cwd) as daemon:
            self.assertEqual(daemon.get("-/health").strip(), b"ok")
            self.assertEqual(daemon.get("hello.txt"), b"hello\n")
            self.assertEqual(daemon.terminate(), 0, daemon.output)

    def test_twistd(self) -> None:
        """`twistd -n fileexport` serves a root elsewhere, and SIGTERM ends it with status 0."""
        elsewhere = Path(mkdtemp(dir=scratch()))
        self.assert_serves(
            installed() / "twistd", "-n", "fileexport", "--root", a_root(), *HTTP, cwd=elsewhere
        )

    def test_twist(self) -> None:
        """`twist fileexport` serves a root elsewhere, and SIGTERM ends it with status 0."""
        elsewhere = Path(mkdtemp(dir=scratch()))
        self.assert_serves(installed() / "twist", "fileexport", "--root", a_root(), *HTTP, cwd=elsewhere)

    def test_the_root_stays_clean(self) -> None:
        """Started inside its root, the daemon puts nothing there: no pid file, no staging."""
        root = a_root()
        with started(installed() / "twistd", "-n", "fileexport", "--root", ".", *HTTP, cwd=root) as daemon:
            self.assertEqual(daemon.get("hello.txt"), b"hello\n")
            self.assertEqual(os.listdir(root), ["hello.txt"])
            daemon.terminate()
        self.assertEqual(os.listdir(root), ["hello.txt"])

    def assert_busy_is_fatal(self, *command: str | Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = run(
                *command,
                "--root",
                a_root(),
                "--transfer",
                "none",
                "--http",
                f"tcp:{port}:interface=127.0.0.1",
                cwd=scratch(),
            )
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn(str(port), done.stderr)

    def test_twistd_on_a_busy_port(self) -> None:
        """Under twistd a busy port ends the start with status 1 and one line on stderr that names it."""
        self.assert_busy_is_fatal(installed() / "twistd", "-n", "fileexport")

    def test_twist_on_a_busy_port(self) -> None:
        """Under twist a busy port ends the start with status 1 and one line on stderr that names it."""
        self.assert_busy_is_fatal(installed() / "twist", "fileexport")
