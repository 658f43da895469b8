"""How a daemon starts: in the background and by its pid file; on every kind of listener."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from fileexport.keys import generate_keys
from tests.proof import daemon as proof_daemon
from tests.proof.commands import FILEEXPORT, TWISTD, Command, DaemonCase, eventually, is_alive, run
from tests.proof.daemon import PATIENCE, Daemon


class ListenerCase(DaemonCase):
    """Has a root with one file, and asks for it by curl."""

    def setUp(self) -> None:
        super().setUp()
        self.write("root/hello.txt", b"hello\n")

    def assert_serves(self, *words: str) -> None:
        """curl gets the file, with these words."""
        done = run("curl", "--disable", "--noproxy", "*", "-sS", "--max-time", str(PATIENCE), *words)
        self.assertEqual((done.returncode, done.stdout), (0, b"hello\n"), done.stderr)


class BackgroundTests(ListenerCase):
    """`fileexport start` and `fileexport stop`."""

    def setUp(self) -> None:
        super().setUp()
        self.home, self.elsewhere = self.base / "home", self.base / "elsewhere"
        for directory in (self.home, self.elsewhere):
            directory.mkdir()
        self.pidfile = self.home / "daemon.pid"
        self.pids: set[int] = set()
        self.addCleanup(self.kill_all)

    def kill_all(self) -> None:
        """End what a failed test has left; only processes that it has started."""
        for pid in filter(is_alive, self.pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        """`fileexport start` in the home directory, or elsewhere."""
        state = ("--state", str(self.base / "state"))
        return run(
            FILEEXPORT,
            "start",
            str(self.root),
            "-p",
            "0",
            "--transfer",
            "none",
            *state,
            *words,
            cwd=cwd or self.home,
        )

    def started(self, *words: str) -> int:
        """Start a daemon, which must work; its process."""
        done = self.start(*words)
        self.assertEqual(done.returncode, 0, done.stderr)
        pid = int(self.pidfile.read_text())
        self.pids.add(pid)
        self.assertEqual(done.stdout.decode().split(";")[0], f"fileexport runs as process {pid}")
        url = re.search(rb"HTTP on (http://127\S+)", done.stderr)
        assert url is not None, done.stderr
        self.assert_serves(url[1].decode() + "hello.txt")
        return pid

    def stop(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        """`fileexport stop` elsewhere."""
        return run(FILEEXPORT, "stop", *words, cwd=cwd or self.elsewhere)

    def test_from_elsewhere(self) -> None:
        """Started in one directory it is stopped from another; then it is gone, and so is its pid file."""
        pid = self.started()
        done = self.stop("--pidfile", str(self.pidfile))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        self.assertFalse(is_alive(pid))
        self.assertFalse(self.pidfile.exists())
        again = self.stop("--pidfile", str(self.pidfile))
        self.assert_one_line(again, f"there is no pid file {self.pidfile}")

    def test_log(self) -> None:
        """Its log lies in the state directory, ends properly, and holds no token."""
        self.started()
        self.assertEqual(self.stop(cwd=self.home).returncode, 0)
        log = (self.base / "state" / "daemon.log").read_text()
        self.assertIn("GET /hello.txt", log)
        self.assertIn("[info] stopped\n", log)
        self.assertNotIn("Traceback", log)
        self.assertNotIn((self.base / "state" / "token").read_text().split()[0], log)

    def test_twice(self) -> None:
        """A second one with the same pid file does not start, and the first one runs on."""
        pid = self.started()
        self.assert_one_line(self.start(), f"it runs already, as process {pid} ({self.pidfile})")
        self.assertTrue(is_alive(pid))
        self.assertEqual(self.stop(cwd=self.home).returncode, 0)

    def test_killed(self) -> None:
        """The pid file of a killed daemon is stale: `stop` says so, and `start` takes it over."""
        first = self.started()
        os.kill(first, signal.SIGKILL)
        eventually("the killed daemon is gone", lambda: not is_alive(first))
        second = self.started()
        os.kill(second, signal.SIGKILL)
        eventually("the killed daemon is gone", lambda: not is_alive(second))
        self.assert_one_line(self.stop(cwd=self.home), "the pid file", "was stale and is removed")
        self.assert_one_line(self.stop(cwd=self.home), "there is no pid file")

    def test_stale(self) -> None:
        """A stale pid file with the number of a process that lives is taken over; that process lives on."""
        self.pidfile.write_text(f"{os.getpid()}\n")
        pid = self.started()
        self.assertNotEqual(pid, os.getpid())
        self.assertEqual(self.stop(cwd=self.home).returncode, 0)

    def test_cannot_start(self) -> None:
        """What cannot start says why in one line, with its status, and leaves no pid file."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            self.assert_one_line(self.start("-p", port), "fileexport: cannot listen on", port)
        done = self.start("--http", "tcp:0")
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (2, 1), done.stderr)
        self.assertFalse(self.pidfile.exists())

    def test_relative_paths(self) -> None:
        """Paths in its options are relative to where it was started, and stay so."""
        with tempfile.TemporaryDirectory() as short:
            words = ("--http", "unix:socket", "--pidfile", "pid", "--log-file", "log")
            done = self.start(*words, cwd=Path(short))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.pids.add(int(Path(short, "pid").read_text()))
            self.assert_serves("--unix-socket", f"{short}/socket", "http://localhost/hello.txt")
            self.assertEqual(self.stop("--pidfile", f"{short}/pid").returncode, 0)
            self.assertEqual(os.listdir(short), ["log"])


class ListenerTests(ListenerCase):
    """Every kind of listener that is promised."""

    def test_unix(self) -> None:
        """A UNIX socket serves; killed, the daemon takes the path again; stopped, it removes it."""
        with tempfile.TemporaryDirectory() as short:
            path = f"{short}/socket"
            for end in ("kill", "stop"):
                with Daemon(self.root, "--http", f"unix:{path}") as daemon:
                    daemon.expect(f"HTTP on unix:{path}")
                    self.assert_serves("--unix-socket", path, "http://localhost/hello.txt")
                    if end == "kill":
                        daemon.kill()
                        self.assertIn("socket", os.listdir(short))
                    else:
                        self.assertEqual(daemon.stop(), 0)
                        self.assertEqual(os.listdir(short), [])

    def test_tls_endpoints(self) -> None:
        """`ssl:` and `tls:` speak TLS with the files that they name, beside a plain listener."""
        pem = generate_keys()[1].encode()
        single, named = self.write("server.pem", pem), self.write("certificates/localhost.pem", pem)
        for text in (f"ssl:0:privateKey={single}", f"tls:{named.parent}:0"):
            with Daemon(self.root, "--http", f"{text}:interface=127.0.0.1") as daemon:
                url = urlsplit(daemon.expect(r"HTTP on (https://127\.0\.0\.1:\d+/)")[1])
                self.assert_serves("-k", f"https://localhost:{url.port}/hello.txt")
                self.assert_serves(f"{daemon.url}hello.txt")
                self.assertEqual(daemon.stop(), 0)
                self.assertNotIn("Traceback", daemon.output)

    def test_private_key(self) -> None:
        """With a private key the listeners speak TLS, and its pin is the one that was printed."""
        self.patch(proof_daemon, "_BANNER", r"HTTP on (https://127\.0\.0\.1:\d+/)")
        key = self.base / "server.pem"
        printed = run(FILEEXPORT, "generate-keys", "--out", key).stdout.decode()
        pin = printed.splitlines()[0].removeprefix("public key: sha256/")
        with Daemon(self.root, "--private-key", str(key)) as daemon:
            self.assert_serves("-k", "--pinnedpubkey", f"sha256//{pin}", f"{daemon.url}hello.txt")
            self.assert_serves("--cacert", str(key), f"{daemon.url}hello.txt")
            self.assertEqual(daemon.stop(), 0)

    def test_systemd(self) -> None:
        """A socket that systemd hands over serves, TCP or UNIX, and stays when the daemon has gone."""
        with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as local:
            local.bind(f"{short}/socket")
            local.listen()
            with socket.create_server(("127.0.0.1", 0)) as tcp:
                url = f"http://127.0.0.1:{tcp.getsockname()[1]}/hello.txt"
                self.serve_by(tcp, "INET", url)
                self.serve_by(tcp, "INET", url)
            self.serve_by(local, "UNIX", "--unix-socket", f"{short}/socket", "http://localhost/hello.txt")
            self.assertTrue(Path(short, "socket").exists())

    def serve_by(self, listening: socket.socket, domain: str, *words: str) -> None:
        """Hand the socket to a daemon as systemd does, and ask for the file; it ends with status 0."""
        # Connections wait in the socket until the daemon takes them: nobody has to wait for its banner.
        number = listening.fileno()
        script = f'exec 3<&{number}; export LISTEN_FDS=1 LISTEN_FDNAMES=http LISTEN_PID=$$; exec "$@"'
        options = ("--http", f"systemd:domain={domain}:name=http", "--state", str(self.base / "state"))
        command = (TWISTD, "-n", "--pidfile=", "fileexport", "--root", str(self.root), *options)
        with (
            (self.base / "output").open("wb") as output,
            subprocess.Popen(
                ["sh", "-c", script, "sh", *command],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            ) as process,
        ):
            try:
                self.assert_serves(*words)
                process.terminate()
                self.assertEqual(process.wait(PATIENCE), 0)
            finally:
                process.kill()
        self.assertNotIn("Traceback", (self.base / "output").read_text())

    def test_many_connections(self) -> None:
        """It takes more connections than the soft limit of descriptors that it was started with."""
        words = (
            TWISTD,
            "-n",
            "--pidfile=",
            "fileexport",
            "--root",
            str(self.root),
            "-p",
            "0",
            "--transfer",
            "none",
        )
        script = 'ulimit -Sn 64 && exec "$@"'
        state = ("--state", str(self.base / "state"))
        with (
            Command(self.root, "sh", "-c", script, "sh", *words, *state) as daemon,
            contextlib.ExitStack() as connections,
        ):
            address = ("127.0.0.1", urlsplit(daemon.url).port)
            for _ in range(200):
                connections.enter_context(socket.create_connection(address, PATIENCE))
            self.assert_serves(f"{daemon.url}hello.txt")
            self.assertEqual(daemon.stop(), 0)
