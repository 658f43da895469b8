"""How a command finds its server and its token, what it says when it cannot, and what it imports."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from fileexport.cli import connecting
from fileexport.cli.connecting import absolute, settings_of, single_name
from fileexport.client import connection
from fileexport.tokens import generate_token
from tests.cli_case import TOKEN, CliCase, fill

PATIENCE = 60
NONE = dict.fromkeys(("hostname", "port", "public_key", "ca_file", "tls", "timeout"))


class SettingsTests(SynchronousTestCase):
    """Options and environment."""

    def settings(self, **environ: str) -> dict[str, object]:
        """What an environment alone gives."""
        complete = {"FILEEXPORT_HOSTNAME": "h", "FILEEXPORT_TOKEN": "t" * 8, **environ}
        return settings_of(NONE, complete)

    def wrong(self, message: str, **environ: str) -> None:
        """The environment is refused with a sentence that begins so."""
        error = self.assertRaises(click.UsageError, self.settings, **environ)
        self.assertTrue(error.message.startswith(message), error.message)

    def test_defaults(self) -> None:
        """A host and a token are enough."""
        expected = {**NONE, "hostname": "h", "port": 6768, "token": "tttttttt"}
        self.assertEqual(self.settings(), expected)

    def test_environment(self) -> None:
        """Each variable is read."""
        found = self.settings(
            FILEEXPORT_PORT="70",
            FILEEXPORT_PUBLIC_KEY="sha256/x",
            FILEEXPORT_CA_FILE="/ca",
            FILEEXPORT_TLS="1",
        )
        self.assertEqual((found["port"], found["public_key"], found["ca_file"]), (70, "sha256/x", "/ca"))
        self.assertIs(found["tls"], True)

    def test_options(self) -> None:
        """Options come before the environment."""
        given = {**NONE, "hostname": "o", "port": "71", "tls": False, "timeout": 5}
        environ = {"FILEEXPORT_HOSTNAME": "h", "FILEEXPORT_PORT": "70", "FILEEXPORT_TLS": "1"}
        found = settings_of(given, {**environ, "FILEEXPORT_TOKEN": "t" * 8})
        self.assertEqual(
            (found["hostname"], found["port"], found["tls"], found["timeout"]), ("o", 71, False, 5)
        )

    def test_switch(self) -> None:
        """FILEEXPORT_TLS is a yes or a no; empty is as if it were not there."""
        found = [self.settings(FILEEXPORT_TLS=value)["tls"] for value in ("1", "yes", "0", "off", "")]
        self.assertEqual(found, [True, True, False, False, None])
        self.wrong("FILEEXPORT_TLS is 1 or 0", FILEEXPORT_TLS="maybe")

    def test_wrong(self) -> None:
        """What is missing, or is no port, is said."""
        self.wrong("no server is named: set FILEEXPORT_HOSTNAME or give --hostname", FILEEXPORT_HOSTNAME="")
        self.wrong("there is no token: set FILEEXPORT_TOKEN", FILEEXPORT_TOKEN="")
        for port in ("0", "65536", "http", "-1", "1 2", "９"):
            self.wrong(
                "the port is a number from 1 to 65535 (--port or FILEEXPORT_PORT)", FILEEXPORT_PORT=port
            )


class PathTests(SynchronousTestCase):
    """Remote paths and names as arguments."""

    def test_absolute(self) -> None:
        """A path is absolute and has one spelling."""
        self.assertEqual([absolute(path) for path in ("/", "//a//b/", "/ä")], ["/", "/a/b", "/ä"])
        for path in ("", "a", "./a", "..", "/a/../b", "/a/./b", "/" + "n" * 256):
            self.assertRaises(click.UsageError, absolute, path)

    def test_name(self) -> None:
        """A name is one."""
        self.assertEqual(single_name("a b", "usage"), "a b")
        for name in ("", ".", "..", "a/b", "/a", "n" * 256):
            self.assertRaises(click.UsageError, single_name, name, "usage")


class ServerTests(CliCase):
    """What is said where the server does not answer, or not as it should."""

    def test_wrong_token(self) -> None:
        """A wrong token is 6, one that is none 2; neither is shown."""
        hint = "check FILEEXPORT_TOKEN, or the file that FILEEXPORT_TOKEN_FILE names"
        self.refused(6, f"the token is wrong: {hint}", "list", FILEEXPORT_TOKEN=generate_token())
        result = self.run_command("list", FILEEXPORT_TOKEN="short")
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (2, 1))
        self.assertNotIn("short", result.stderr)

    def test_token_file(self) -> None:
        """The token may come from a file."""
        path = self.here / "token"
        path.touch(0o600)
        path.write_text(f"{TOKEN}\n")
        self.done("list", FILEEXPORT_TOKEN=None, FILEEXPORT_TOKEN_FILE=str(path))

    def test_nobody(self) -> None:
        """Where nobody listens it is 5, and it is said what to check."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        result = self.run_command("list", "--port", str(port))
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (5, 1), result.stderr)
        self.assertIn(f"127.0.0.1 port {port}: ", result.stderr)
        self.assertIn("FILEEXPORT_PORT", result.stderr)

    def test_silence(self) -> None:
        """A server that says nothing is 5, after the time that was given."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            result = self.run_command("list", "-t", "50", "--port", str(silent.getsockname()[1]))
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (5, 1), result.stderr)
        self.assertIn("give more time with -t MS", result.stderr)

    def test_other_protocol(self) -> None:
        """A port that speaks something else is 7."""
        with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
            result = self.run_command("list", "--port", str(port))
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (7, 1), result.stderr)
        self.assertIn("FILEEXPORT_PORT", result.stderr)

    def test_plain_elsewhere(self) -> None:
        """Another machine is not spoken to without TLS; the options are named."""
        result = self.run_command("list", "--hostname", "192.0.2.7", "-t", "100")
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (2, 1), result.stderr)
        self.assertIn("give --public-key or --ca-file", result.stderr)

    def test_programs(self) -> None:
        """A usage that is wrong is an event too."""
        error, summary = self.events("list", "relative", status=2)
        self.assertEqual((error["event"], error["name"], summary["exit"]), ("error", "UsageError", 2))
        self.assertIsNone(error["path"])

    def test_timeout(self) -> None:
        """A time-out is a number of milliseconds that a clock can wait."""
        self.assertEqual(connecting.MAX_TIMEOUT, connection.MAX_TIMEOUT)
        self.done("list", "-t", str(connection.MAX_TIMEOUT))
        for wrong in ("0", "-1", "1.5", str(connection.MAX_TIMEOUT + 1), "9" * 400, "x"):
            result = self.run_command("list", "-t", wrong)
            self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (2, 1), result.stderr)


class ProcessTests(CliCase):
    """Commands as processes of their own."""

    def begin(
        self,
        *words: str,
        stdout: int = subprocess.PIPE,
        closed: str = "",
        program: str = "from fileexport.cli import main; main(prog_name='fileexport')",
    ) -> subprocess.Popen[bytes]:
        """Start `fileexport WORDS` in the local directory; `closed` are streams that the shell closes."""
        search = [str(Path(entry).absolute()) for entry in sys.path if entry]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("FILEEXPORT_")
        }
        environment |= {name: value for name, value in self.environment.items() if value is not None}
        environment["PYTHONPATH"] = os.pathsep.join(search)
        # It would hide what is not flushed.
        environment.pop("PYTHONUNBUFFERED", None)
        return subprocess.Popen(
            ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", program, *words],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=self.here,
            env=environment,
        )

    def test_broken_pipe(self) -> None:
        """Who stops reading is not complained about."""
        fill(self.there, {"big": bytes(5_000_000)})
        fill(self.there, {f"d/{'long' * 20}{n}": "" for n in range(3000)})
        for words in (
            ("cat", f"{self.remote}/big"),
            ("list", f"{self.remote}/d"),
            ("list", "--json", f"{self.remote}/d"),
        ):
            with self.begin(*words) as process:
                assert process.stdout is not None and process.stderr is not None
                self.assertTrue(process.stdout.read(10))
                process.stdout.close()
                self.assertEqual(process.stderr.read(), b"", words)
                self.assertEqual(process.wait(PATIENCE), 0, words)

    def test_full_disk(self) -> None:
        """Where the output cannot be written, one line says so."""
        if not os.path.exists("/dev/full"):
            raise SkipTest("no /dev/full")
        fill(self.there, {"f": "1"})
        full = os.open("/dev/full", os.O_WRONLY)
        self.addCleanup(os.close, full)
        for words in (("cat", f"{self.remote}/f"), ("list",), ("list", "--json")):
            with self.begin(*words, stdout=full) as process:
                _, stderr = process.communicate(timeout=PATIENCE)
            self.assertEqual((process.returncode, stderr.count(b"\n")), (6, 1), stderr)
            self.assertIn(b"no space left", stderr)

    def test_interrupt(self) -> None:
        """Ctrl-C is 130 and one line, which says how to go on."""
        fill(self.here, {"x": "1", "d/x": "1"})
        silent = socket.create_server(("127.0.0.1", 0))
        silent.settimeout(PATIENCE)
        with silent:
            for words, hint in (
                (("x",), "the same command goes on where this one stopped"),
                (("-r", "d"), "the same command with --conflict skip goes on where this one stopped"),
                (("-r", "d", "--conflict", "skip"), "the same command goes on where this one stopped"),
                (("x", "d", "/", "--conflict", "rename"), "what has arrived stays"),
            ):
                with self.begin("upload", *words, "--port", str(silent.getsockname()[1])) as process:
                    connected, _ = silent.accept()
                    with connected:
                        connected.recv(1)
                        wait_until_asleep(process.pid)
                        process.send_signal(signal.SIGINT)
                        _, stderr = process.communicate(timeout=PATIENCE)
                line = f"Interrupted: {hint}\n".encode()
                self.assertEqual((process.returncode, stderr), (130, line))

    def test_no_streams(self) -> None:
        """A stream that the shell closed is no traceback: results that cannot be written are an error."""
        fill(self.there, {"f": "1"})
        fill(self.here, {"x": "1"})
        line = b"Error: standard output: bad file descriptor\n"
        file = f"{self.remote}/f"
        for closed, words, status, stderr in (
            (">&-", ("list", self.remote), 1, line),
            (">&-", ("list", "--json", self.remote), 1, line),
            (">&-", ("cat", file), 1, line),
            (">&-", ("upload", "-p", "x", self.remote, "--quiet"), 0, b""),
            (">&-", ("remove", file), 0, b""),
            ("2>&-", ("cat", file), 4, b""),
            ("2>&-", ("upload", "-p", "x", self.remote, "--conflict", "skip"), 0, b""),
            (">&- 2>&-", ("list", self.remote), 1, b""),
        ):
            with self.begin(*words, closed=closed) as process:
                _, told = process.communicate(timeout=PATIENCE)
            self.assertEqual((process.returncode, told), (status, stderr), (closed, words))

    def test_progress_in_a_pipe(self) -> None:
        """A program that reads from a pipe sees each event of progress when it happens."""
        program = (
            "import sys\n"
            "from fileexport.cli import progress\n"
            "from fileexport.cli.output import Output\n"
            "progress.EVENT_TIME = 0\n"
            "events = progress.Events(Output(as_json=True))\n"
            "for _ in range(3):\n"
            "    events.done('/a', 1, 0)\n"
            "    sys.stdin.readline()\n"
        )
        with self.begin(program=program) as process:
            assert process.stdin is not None and process.stdout is not None
            for number in (1, 2, 3):
                self.assertTrue(select.select([process.stdout], [], [], PATIENCE)[0], number)
                self.assertEqual(json.loads(process.stdout.readline())["files"], number)
                process.stdin.write(b"\n")
                process.stdin.flush()

    def test_imports(self) -> None:
        """A command loads neither Twisted nor what only others need."""
        program = (
            "import sys\n"
            "from fileexport.cli import main\n"
            "try: main(sys.argv[1:])\n"
            "except SystemExit as end: status = end.code\n"
            "names = 'twisted jinja2 rich pathspec ssl cryptography asyncio OpenSSL'.split()\n"
            "print(status, *sorted(set(sys.modules) & set(names)), file=sys.stderr)\n"
        )
        fill(self.here, {"a": "1"})
        search = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)
        environment = {name: value for name, value in self.environment.items() if value is not None}
        for words in (
            ("list",),
            ("upload", "a", self.remote),
            ("download", f"{self.remote}/a", "/tmp/none/x"),
        ):
            done = subprocess.run(
                [sys.executable, "-c", program, *words],
                env={**os.environ, **environment, "PYTHONPATH": search},
                cwd=self.here,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=True,
            )
            self.assertEqual(done.stderr.splitlines()[-1], "3" if words[0] == "download" else "0", words)


class CompletionTests(CliCase):
    """`completion`."""

    def test_scripts(self) -> None:
        """Each shell has its script."""
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("_FILEEXPORT_COMPLETE", self.done("completion", shell).stdout)
        self.assertEqual(self.run_command("completion", "csh").exit_code, 2)

    def test_local_names(self) -> None:
        """Where a local path goes, the shell is told to complete names of files."""
        for typed in ("upload hu", "download a hu", "verify hu", "list --ca-file hu", "run hu"):
            words = {"COMP_WORDS": f"fileexport {typed}", "COMP_CWORD": str(len(typed.split()))}
            done = self.run_command(_FILEEXPORT_COMPLETE="bash_complete", **words)
            self.assertEqual(done.stdout, "file,hu\n", typed)

    def test_bash(self) -> None:
        """bash reads its script, and completes commands and options with it."""
        bash = shutil.which("bash")
        if bash is None:
            raise SkipTest("no bash")
        script = self.done("completion", "bash").stdout
        folder = self.here / "bin"
        folder.mkdir()
        program = folder / "fileexport"
        program.write_text(
            f"#!{sys.executable}\nfrom fileexport.cli import main\nmain(prog_name='fileexport')\n"
        )
        program.chmod(0o755)
        search = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)
        for typed, found in (
            ("do", ["download"]),
            ("upload --confl", ["--conflict"]),
            ("jobs --js", ["--json"]),
        ):
            words = ["fileexport", *typed.split()]
            ask = (
                f"{script}\nCOMP_WORDS=({' '.join(words)})\nCOMP_CWORD={len(words) - 1}\n"
                f'_fileexport_completion "fileexport"\nprintf "%s\\n" "${{COMPREPLY[@]}}"\n'
            )
            done = subprocess.run(
                [bash, "--norc", "-c", ask],
                env={"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": search},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=True,
            )
            self.assertEqual(done.stdout.split(), found, done.stderr)


def wait_until_asleep(pid: int) -> None:
    """Until a process waits for its server: Python hears of a signal just before `poll` only after it."""
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        os.sched_yield()


@contextmanager
def answering(data: bytes) -> Iterator[int]:
    """The port of a server that says one thing to one client, and hangs up."""
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connected, _ = listener.accept()
            with connected:
                connected.sendall(data)
                while connected.recv(1 << 16):
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(PATIENCE)
