"""The command line: secrets, mistakes, the daemon's pid file, and what a start imports."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from fileexport.cli import COMMANDS, background, main
from fileexport.endpoints import TlsContext
from fileexport.keys import pin_of
from fileexport.token_file import parse_token_file
from fileexport.tokens import check_token, generate_token, hash_token, is_weak

#: Seconds after which a child that does not end has failed.
PATIENCE = 60


class Case(SynchronousTestCase):
    """Runs commands in this process, in an environment without us."""

    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()
        self.base.mkdir(parents=True)
        self.addCleanup(os.umask, os.umask(0o022))

    def run_command(self, *words: str, stdin: str | bytes = "") -> Result:
        """What `fileexport` with these words does."""
        unset = {name: None for name in os.environ if name.startswith("FILEEXPORT_")}
        environment = {**unset, "STATE_DIRECTORY": None, "XDG_STATE_HOME": str(self.base / "state")}
        return CliRunner(env=environment).invoke(main, words, input=stdin, prog_name="fileexport")

    def assert_refused(self, result: Result, status: int, *beginnings: str) -> None:
        """It ended with that status and one line for each beginning on stderr, nothing on stdout."""
        lines = result.stderr.splitlines()
        self.assertEqual((result.exit_code, result.stdout), (status, ""), result.output)
        self.assertEqual(len(lines), len(beginnings), lines)
        for line, beginning in zip(lines, beginnings, strict=True):
            self.assertTrue(line.startswith(f"Error: {beginning}"), line)


class MistakeTests(Case):
    """What cannot be understood."""

    def test_unknown_command(self) -> None:
        """An unknown command is one line, and status 2."""
        self.assert_refused(self.run_command("export"), 2, "No such command 'export'")

    def test_unknown_option(self) -> None:
        """An unknown option is one line, and status 2, whatever the command."""
        for words in (["--colour"], *([command, "--colour"] for command in COMMANDS)):
            self.assert_refused(self.run_command(*words), 2, "No such option")

    def test_missing_argument(self) -> None:
        """A missing directory is one line, and status 2."""
        for command in ("run", "start"):
            self.assert_refused(self.run_command(command), 2, "Missing argument 'DIR'")

    def test_nothing(self) -> None:
        """Without a command the help is shown, and status is 2."""
        result = self.run_command()
        self.assertEqual(result.exit_code, 2)
        for command in COMMANDS:
            self.assertIn(command, result.output)

    def test_help(self) -> None:
        """Every command has its help, also by -h, with status 0."""
        for words in ([], *([command] for command in COMMANDS)):
            for flag in ("--help", "-h"):
                result = self.run_command(*words, flag)
                self.assertEqual((result.exit_code, result.stderr), (0, ""), words)
                self.assertTrue(result.stdout.startswith("Usage: fileexport "))

    def test_version(self) -> None:
        """The version is the package's."""
        result = self.run_command("--version")
        self.assertEqual(result.exit_code, 0)
        self.assertRegex(result.stdout, r"^fileexport \d+\.\d+")

    def test_daemon(self) -> None:
        """`run` and `start` name all mistakes of a daemon at once, one line each, with status 2."""
        root = str(self.base / "none")
        for command in ("run", "start"):
            result = self.run_command(
                command, root, "-p", "http", "--anonymous", "some", "--max_connections", "0"
            )
            self.assert_refused(
                result, 2, "--port: ", "--anonymous: ", "--max-connections: ", f"--root: {root}: "
            )

    def test_words(self) -> None:
        """A PORT or a TOKEN that is none is one line that does not repeat it, and status 2."""
        for command in ("run", "start"):
            for port in ("http", "-0", "65536", "", "hunter2hunter2"):
                result = self.run_command(command, "--", str(self.base), port)
                self.assert_refused(result, 2, "PORT is a number from 0 to 65535")
                self.assertNotIn("hunter2", result.output)
            for token in ("hunter2", "hunter2 hunter2", ""):
                result = self.run_command(command, str(self.base), "6768", token)
                self.assert_refused(result, 2, "TOKEN: a token is 8 to 256 printable ASCII characters")
                self.assertNotIn("hunter2", result.output)

    def test_token_in_the_process_list(self) -> None:
        """A TOKEN on the command line works, with one line of warning that does not repeat it."""
        root = str(self.base / "none")
        result = self.run_command("run", root, "0", "hunter2hunter2")
        warning, mistake = result.stderr.splitlines()
        self.assertEqual(warning, "warning: the process list shows TOKEN to everybody here; use --token-file")
        self.assertTrue(mistake.startswith(f"Error: --root: {root}: "), mistake)

    def test_pid_file_in_the_root(self) -> None:
        """`start` does not put its pid file into what it exports."""
        inside = str(self.base / "daemon.pid")
        result = self.run_command("start", str(self.base), "--pidfile", inside)
        self.assert_refused(result, 2, f"the pid file {inside} would lie in the exported directory")
        self.assertFalse(Path(inside).exists())


class SecretTests(Case):
    """`generate-token`, `hash-token`, `generate-keys`."""

    def test_generate_token(self) -> None:
        """It prints a strong token alone on its line, another one each time."""
        first, second = self.run_command("generate-token"), self.run_command("generate-token")
        for result in (first, second):
            self.assertEqual((result.exit_code, result.stderr), (0, ""))
            token = result.stdout.removesuffix("\n")
            check_token(token)
            self.assertFalse(is_weak(token))
        self.assertNotEqual(first.stdout, second.stdout)

    def test_hash_token(self) -> None:
        """It reads a token and prints the form that a token file may hold instead."""
        token = generate_token()
        for stdin in (token, token + "\n", f"  {token}\r\nmore\n"):
            result = self.run_command("hash-token", stdin=stdin)
            self.assertEqual((result.exit_code, result.stderr), (0, ""))
            self.assertEqual(result.stdout, hash_token(token) + "\n")
        self.assertIsNotNone(parse_token_file(result.stdout, "x").find(token, 0.0))

    def test_hash_weak_token(self) -> None:
        """A weak token is warned of beside the answer, and not shown."""
        result = self.run_command("hash-token", stdin="hunter2hunter2\n")
        self.assertEqual((result.exit_code, result.stdout), (0, hash_token("hunter2hunter2") + "\n"))
        self.assertTrue(result.stderr.startswith("warning: this token is easy to guess"))
        self.assertEqual(len(result.stderr.splitlines()), 1)
        self.assertNotIn("hunter2", result.stderr)

    def test_hash_bad_token(self) -> None:
        """What is no token is refused with status 2, and not shown."""
        for stdin in ("", "\n", "short", "with two words", "naïve-token", "x" * 257, b"\xff\xfe" * 8):
            result = self.run_command("hash-token", stdin=stdin)
            self.assert_refused(result, 2, "a token is 8 to 256 printable ASCII characters without spaces")
            for shown in ("short", "words", "xxx", "na"):
                self.assertNotIn(shown + " ", result.stderr.replace("characters ", ""))

    def test_generate_keys(self) -> None:
        """It writes key and certificate to a file of mode 0600 whatever the umask, and prints the pin."""
        os.umask(0)
        path = self.base / "server.pem"
        result = self.run_command("generate-keys", "--out", str(path))
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        text = path.read_text("ascii")
        self.assertEqual(result.stdout, f"public key: {pin_of(text)}\nprivate key: {path}\n")
        self.assertRegex(result.stdout, r"^public key: sha256/[A-Za-z0-9+/]{43}=\n")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        TlsContext(text)

    def test_keys_that_exist(self) -> None:
        """An existing file, or a link, is never written over, and status is 6."""
        path, link = self.base / "server.pem", self.base / "link"
        path.write_text("mine")
        link.symlink_to(self.base / "none")
        for taken in (path, link):
            result = self.run_command("generate-keys", "--out", str(taken))
            self.assert_refused(result, 6, f"{taken}: it exists already")
        self.assertEqual(path.read_text(), "mine")
        self.assertFalse((self.base / "none").exists())

    def test_keys_nowhere(self) -> None:
        """Where the file cannot be made, one line says why."""
        path = f"{self.base}/none/server.pem"
        self.assert_refused(self.run_command("generate-keys", "--out", path), 1, f"{path}: No such file")


class PidFileTests(Case):
    """`stop` and the pid file; that of a daemon that lives is in `tests.proof.test_daemon`."""

    def setUp(self) -> None:
        super().setUp()
        self.pidfile = self.base / "daemon.pid"

    def stop(self, beginning: str) -> None:
        """No daemon runs: that is status 1, with one line."""
        self.assert_refused(self.run_command("stop", "--pidfile", str(self.pidfile)), 1, beginning)

    def test_missing(self) -> None:
        """Without a pid file no daemon runs."""
        self.stop(f"no daemon runs: there is no pid file {self.pidfile}")
        self.assertRaises(background.NotRunning, background.pid_of, self.pidfile)

    def test_stale(self) -> None:
        """A pid file that nobody holds is removed; the process that has its number by now is left alone."""
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
            self.pidfile.write_text(f"{bystander.pid}\n")
            self.assertEqual(background.pid_of(self.pidfile), bystander.pid)
            self.stop(f"no daemon runs: the pid file {self.pidfile} was stale and is removed")
            self.assertFalse(self.pidfile.exists())
            self.assertIsNone(bystander.poll())
            bystander.communicate(b"\n", PATIENCE)
        self.assertEqual(bystander.returncode, 0)

    def test_foreign(self) -> None:
        """A file that is no pid file is left as it is."""
        for content in ("", "notes of mine\n", "12 13\n", "９\n", "9" * 5000):
            self.pidfile.write_text(content)
            refusal = f"{self.pidfile} is no pid file; name another with --pidfile"
            self.stop(refusal if content else f"the pid file {self.pidfile} names no process")
            self.assertEqual(self.pidfile.read_text(), content)

    def test_precious(self) -> None:
        """A start neither overwrites a file that is no pid file, nor follows a link."""
        self.pidfile.write_text("precious\n")
        link = self.pidfile.with_name("link.pid")
        link.symlink_to(self.pidfile)
        root = str(self.directory("root"))
        for path in (self.pidfile, link):
            result = self.run_command("start", root, "--pidfile", str(path))
            self.assertEqual(result.exit_code, 1, result.output)
        self.assertEqual(self.pidfile.read_text(), "precious\n")

    def test_starting(self) -> None:
        """A daemon that starts holds the pid file before it has written its number: nobody is ended then."""
        self.pidfile.touch()
        with self.pidfile.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            self.stop(f"the pid file {self.pidfile} names no process")
            result = self.run_command("start", str(self.directory("root")), "--pidfile", str(self.pidfile))
            self.assert_refused(result, 1, f"the pid file {self.pidfile} names no process")
        self.assertTrue(self.pidfile.exists())

    def test_running(self) -> None:
        """A daemon that runs with the pid file keeps another one from starting with it."""
        self.pidfile.write_text("4711\n")
        with self.pidfile.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            result = self.run_command("start", str(self.directory("root")), "--pidfile", str(self.pidfile))
        self.assert_refused(result, 1, f"it runs already, as process 4711 ({self.pidfile})")
        self.assertEqual(self.pidfile.read_text(), "4711\n")

    def test_unwritable(self) -> None:
        """A pid file that cannot be made is one line, and status 1."""
        self.pidfile = self.base / "none" / "daemon.pid"
        result = self.run_command("start", str(self.directory("root")), "--pidfile", str(self.pidfile))
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (1, 1))
        self.assertIn("No such file or directory", result.stderr)

    def directory(self, name: str) -> Path:
        """A directory beside the pid file."""
        path = self.base / name
        path.mkdir()
        return path


class ImportTests(SynchronousTestCase):
    """Most commands are short: they do not load what only the daemon needs."""

    def loaded(self, words: Sequence[str], *names: str) -> list[str]:
        """Which of these packages a command has loaded when it ends."""
        program = (
            "import sys\n"
            "from fileexport.cli import main\n"
            f"try: main({list(words)!r})\n"
            "except SystemExit: pass\n"
            f"print(*sorted(set(sys.modules) & {set(names)!r}), file=sys.stderr)\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            input="hunter2hunter2",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        return done.stderr.splitlines()[-1].split()

    def test_secrets(self) -> None:
        """The commands for secrets, and help, load neither Twisted nor the pages."""
        for words in (["generate-token"], ["hash-token"], ["generate-keys", "--out", "/"], ["--help"]):
            self.assertEqual(self.loaded(words, "twisted", "jinja2"), [], words)
        self.assertEqual(self.loaded(["generate-token"], "cryptography", "OpenSSL"), [])

    def test_stop(self) -> None:
        """`stop` needs nothing of the daemon."""
        self.assertEqual(self.loaded(["stop", "--pidfile", "/"], "twisted", "jinja2"), [])

    def test_before_the_fork(self) -> None:
        """`start` loads no reactor before it has forked: two processes would share it."""
        self.assertEqual(self.loaded(["start", "/", "--pidfile", "/x/y"], "twisted.internet.reactor"), [])
