"""A daemon's life: a session by wget, its mistakes, its end by signal, and being killed."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from fileexport.assembly import GRACE
from fileexport.tokens import generate_token
from tests.odd_names import ODD_NAMES
from tests.proof.commands import FILEEXPORT, TWIST, TWISTD, Command, DaemonCase, eventually, run
from tests.proof.daemon import PATIENCE, Daemon
from tests.proof.process import line_of

SOAK = bool(os.environ.get("FILEEXPORT_SOAK"))
#: Bytes of one text dump, of which there are five.
DUMP = (80 if SOAK else 1) << 20
#: Bytes of a download that outlasts every buffer between the daemon and a slow reader.
LONG = 30 << 20

#: Stages a file below the root that is its argument, and is killed before it commits.
_KILLED_WRITER = """
import os, signal, sys
from fileexport.disk.jail import Jail, View
from fileexport.paths import RelPath
staged = Jail(sys.argv[1]).stage(View(), RelPath.parse("upload"))
staged.write(b"half a file")
os.kill(os.getpid(), signal.SIGKILL)
"""


def dump(seed: int) -> Iterator[bytes]:
    """The lines of a text dump, in pieces of 64 KiB."""
    for number in range(DUMP >> 16):
        line = b"INSERT INTO t VALUES (%d, %d, '%s');\n"
        text = b"".join(
            line % (number, row, hashlib.md5(b"%d" % row).hexdigest().encode()) for row in range(1000)
        )
        yield (b"-- %d\n" % seed + text)[: 1 << 16]


def digest(path: Path) -> str:
    """The hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class WgetTests(DaemonCase):
    """An export session, line by line as people type it."""

    def setUp(self) -> None:
        super().setUp()
        dumps = self.root / "dumps"
        dumps.mkdir()
        for number, name in enumerate(("db-1.sql", "db-2.sql", "db-3.sql", "db-1.txt", "log-1.sql")):
            with (dumps / name).open("wb") as file:
                file.writelines(dump(number))
        (dumps / "kept").mkdir()
        odd = self.root / "odd names"
        odd.mkdir()
        for name in ODD_NAMES:
            (odd / name).write_bytes(os.fsencode(name))

    def wget(self, *words: str, status: int = 0) -> bytes:
        """What wget gets, with that exit status."""
        options = ("--no-config", "--no-proxy", "--tries=1", "-nv", "--content-on-error", "-O-")
        done = run("wget", *options, *words, cwd=self.base, patience=PATIENCE * 10)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout

    def names(self, url: str) -> list[str]:
        """The names that /list answers."""
        return [entry["name"] for entry in json.loads(self.wget(url))]

    def fetch(self, url: str) -> Path:
        """Download as wget does by itself, under the name that the daemon gives."""
        target = self.base / "fetched"
        target.mkdir(exist_ok=True)
        done = run(
            *("wget", "--no-config", "--no-proxy", "--tries=1", "-q", "--content-disposition", url),
            cwd=target,
            patience=PATIENCE * 10,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        (path,) = target.iterdir()
        return path.rename(self.base / path.name)

    def test_session(self) -> None:
        """List, get in every form, delete by name, by both ends and all, stop: each line works."""
        with Daemon(self.root) as daemon:
            self.listing(f"{daemon.url}list?dir=dumps")
            self.getting(f"{daemon.url}get?dir=dumps&name=db-1.sql")
            self.taring(f"{daemon.url}tar?dir=dumps&name=db-1.sql")
            self.deleting(daemon.url)
            self.assertEqual(self.wget(f"{daemon.url}stop"), b"stopping")
            self.assertEqual(daemon.wait(), 0)
        self.assertNotIn("Traceback", daemon.output)
        self.assertEqual(sorted(os.listdir(self.root)), ["dumps", "odd names"])
        self.assertEqual(os.listdir(self.root / "dumps"), ["kept"])

    def listing(self, url: str) -> None:
        entries = json.loads(self.wget(url))
        self.assertEqual(
            entries[0], {"name": "db-1.sql", "size": (self.root / "dumps/db-1.sql").stat().st_size}
        )
        self.assertEqual(len(entries), 5)
        self.assertEqual(self.names(f"{url}&prefix=db-&suffix=.sql"), ["db-1.sql", "db-2.sql", "db-3.sql"])
        self.assertEqual(self.names(f"{url}&suffix=.txt"), ["db-1.txt"])
        self.assertEqual(self.names(f"{url}&prefix=none"), [])

    def getting(self, url: str) -> None:
        wanted = digest(self.root / "dumps" / "db-1.sql")
        plain = self.fetch(url)
        self.assertEqual((plain.name, digest(plain)), ("db-1.sql", wanted))
        packed = self.fetch(f"{url}&compress=gz")
        self.assertEqual(packed.name, "db-1.sql.gz")
        self.assertLess(packed.stat().st_size, plain.stat().st_size)
        with gzip.open(packed) as stream:
            self.assertEqual(hashlib.file_digest(stream, "sha256").hexdigest(), wanted)
        archive = self.fetch(f"{url}&compress=zip")
        self.assertEqual(archive.name, "db-1.sql.zip")
        with zipfile.ZipFile(archive) as opened:
            self.assertEqual(hashlib.sha256(opened.read("db-1.sql")).hexdigest(), wanted)

    def taring(self, url: str) -> None:
        target = "/tar?dir=dumps&name=db-1.sql"
        error = f"ERROR - CALLBACK PARAMETERS ARE MISSING: {target}"
        self.assertEqual(self.wget(url, status=8).decode().rstrip("\n"), error)
        shown = run(
            "wget", "--no-config", "--no-proxy", "--tries=1", "-S", "-O", "/dev/null", url
        ).stderr.decode()
        self.assertIn(f"HTTP/1.1 400 {error}", shown)

    def deleting(self, url: str) -> None:
        base = f"{url}delete?dir=dumps"
        self.assertEqual(self.wget(f"{base}&name=db-1.txt"), b"deleted 1 file")
        self.wget(f"{base}&name=db-1.txt", status=8)
        self.wget(f"{base}&prefix=*", status=8)
        self.wget(base, status=8)
        self.assertEqual(self.wget(f"{base}&prefix=db-&suffix=.sql"), b"deleted 3 files")
        self.assertEqual(self.wget(f"{base}&prefix=db-"), b"deleted 0 files")
        self.assertEqual(self.names(f"{url}list?dir=dumps"), ["log-1.sql"])
        self.assertEqual(self.wget(f"{base}&prefix=*&suffix=*"), b"deleted 1 file")
        self.assertEqual(self.names(f"{url}list?dir=dumps"), [])

    def test_odd_names(self) -> None:
        """Every file is reached, whatever its name: by its path, by /get, and by the URL that /list tells."""
        with Daemon(self.root, "--hidden") as daemon:
            for name in ODD_NAMES:
                encoded = quote(os.fsencode(name), safe="")
                for target in (f"-/files/odd%20names/{encoded}", f"get?dir=odd+names&name={encoded}"):
                    self.assertEqual(self.get(daemon, f"/{target}"), os.fsencode(name), target)
            told = json.loads(self.get(daemon, "/list?dir=odd%20names&details=1"))
            self.assertEqual(len(told), len(ODD_NAMES))
            content = {self.get(daemon, entry["url"]) for entry in told}
            self.assertEqual(content, {os.fsencode(name) for name in ODD_NAMES})

    def get(self, daemon: Daemon, target: str) -> bytes:
        """The body of an answer with status 200; the target is sent as it stands."""
        with Download(daemon, target) as download:
            head, body = download.rest()
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\n"), (target, head))
        return body


class Download:
    """A connection of its own with small buffers, on which one request was sent and nothing is read yet."""

    def __init__(self, daemon: Daemon, target: str, token: str = "") -> None:
        url = urlsplit(daemon.url)
        self._socket = socket.socket()
        self._socket.settimeout(PATIENCE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
        self._socket.connect((url.hostname, url.port))
        credentials = f"Authorization: Bearer {token}\r\n" if token else ""
        request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{credentials}\r\n"
        self._socket.sendall(request.encode("ascii"))
        self._data = b""

    def read(self, size: int) -> None:
        """Read so many bytes, a few at a time."""
        pieces = []
        while size > 0:
            piece = self._socket.recv(min(16 << 10, size))
            if not piece:
                raise AssertionError("the connection ended early")
            pieces.append(piece)
            size -= len(piece)
        self._data += b"".join(pieces)

    def rest(self) -> tuple[bytes, bytes]:
        """Read on to the end; the head of the answer, and its body."""
        pieces = [self._data]
        while piece := self._socket.recv(16 << 10):
            pieces.append(piece)
        head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
        return head, body

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()


class MistakeTests(DaemonCase):
    """A start that cannot be."""

    def test_options(self) -> None:
        """A missing root, a file for one, a missing --dir: one fatal line on stderr, and status 1."""
        none, file = str(self.base / "none"), str(self.write("file", b""))
        twistd, twist = (TWISTD, "-n", "fileexport"), (TWIST, "fileexport")
        for command, words, told in (
            (twistd, ("--root", none), none),
            (twistd, ("--root", file), file),
            (twistd, ("--root", str(self.root), "--dir", "a/b"), "a/b"),
            (twistd, (), "--root"),
            (twist, ("--root", none), none),
            (twist, ("--root", str(self.root), "--dir", "a/b"), "a/b"),
        ):
            self.assert_one_line(run(*command, *words, cwd=self.base), "fileexport: ", told)

    def test_busy(self) -> None:
        """A port in use: one line that names it, and status 1, under twistd, twist and `fileexport run`."""
        root = str(self.root)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            for command in (
                (TWISTD, "-n", "fileexport", "--root", root),
                (TWIST, "fileexport", "--root", root),
                (FILEEXPORT, "run", root),
            ):
                done = run(*command, "-p", port, "--state", f"{root}.state", cwd=self.base)
                self.assert_one_line(done, "fileexport: ", port)

    def test_statuses(self) -> None:
        """What is status 1 under twistd is status 2 as a mistake under `fileexport run`."""
        done = run(FILEEXPORT, "run", str(self.base / "none"), cwd=self.base)
        self.assertEqual((done.returncode, done.stdout, len(done.stderr.splitlines())), (2, b"", 1))

    def test_clean_root(self) -> None:
        """Started inside its root twistd leaves nothing there, neither while it runs nor afterwards."""
        (self.root / "a").touch()
        script = 'cd "$0" && exec "$@"'
        words = (
            TWISTD,
            "-n",
            "fileexport",
            "--root",
            ".",
            "-p",
            "0",
            "--transfer",
            "none",
            "--state",
            f"{self.root}.state",
        )
        with Command(self.root, "sh", "-c", script, str(self.root), *words) as daemon:
            self.assertEqual(os.listdir(self.root), ["a"])
            self.assertEqual(daemon.stop(), 0)
        self.assertEqual(os.listdir(self.root), ["a"])


class EndTests(DaemonCase):
    """SIGTERM, SIGINT, SIGHUP, SIGKILL."""

    def setUp(self) -> None:
        super().setUp()
        (self.root / "long").write_bytes(bytes(LONG))

    def test_slow_reader(self) -> None:
        """SIGTERM in the middle of a slow download finishes it, and the status is 0."""
        with Daemon(self.root) as daemon, Download(daemon, "/long") as download:
            download.read(1 << 20)
            daemon.terminate()
            daemon.expect("stopping")
            self.assert_complete(daemon, download)

    def test_asked_twice(self) -> None:
        """Asked to end by /stop and then by SIGTERM, it finishes a slow download all the same."""
        with Daemon(self.root) as daemon, Download(daemon, "/long") as download:
            download.read(1 << 20)
            with Download(daemon, "/stop") as request:
                self.assertEqual(request.rest()[1], b"stopping")
            daemon.expect("stopping")
            daemon.terminate()
            self.assert_complete(daemon, download)

    def assert_complete(self, daemon: Daemon, download: Download) -> None:
        """The download ends as it should, and then the daemon with status 0."""
        head, body = download.rest()
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "))
        self.assertEqual(len(body), LONG)
        self.assertEqual(daemon.wait(), 0)
        self.assertNotIn("Traceback", daemon.output)

    def test_reader_that_stands_still(self) -> None:
        """A reader that takes nothing does not keep the daemon past its grace, and the status is 0."""
        self.assertLess(GRACE, PATIENCE)
        with Daemon(self.root) as daemon, Download(daemon, "/long") as download:
            download.read(1)
            self.assertEqual(daemon.stop(), 0)
        self.assertNotIn("Traceback", daemon.output)

    def test_reader_that_leaves(self) -> None:
        """A reader that goes away in the middle is no error, and the daemon serves on."""
        with Daemon(self.root) as daemon:
            with Download(daemon, "/long") as download:
                download.read(1 << 20)
            daemon.expect('"GET /long HTTP/1.1" 200 ')
            self.assertEqual(daemon.stop(), 0)
        self.assertNotIn("Traceback", daemon.output)

    def test_second_signal(self) -> None:
        """A second signal, of either kind, ends it at once with the signal's status."""
        for first, second in (
            (signal.SIGTERM, signal.SIGTERM),
            (signal.SIGINT, signal.SIGTERM),
            (signal.SIGTERM, signal.SIGINT),
        ):
            with Daemon(self.root) as daemon, Download(daemon, "/long") as download:
                download.read(1)
                os.kill(daemon.pid, first)
                daemon.expect("stopping")
                os.kill(daemon.pid, second)
                self.assertEqual(daemon.wait(), 128 + second)

    def test_run(self) -> None:
        """`fileexport run` ends by Ctrl-C as by SIGTERM, with status 0."""
        words = (
            FILEEXPORT,
            "run",
            str(self.root),
            "-p",
            "0",
            "--transfer",
            "none",
            "--state",
            f"{self.root}.state",
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            with Command(self.root, *words) as daemon:
                os.kill(daemon.pid, number)
                self.assertEqual(daemon.wait(), 0)
            self.assertNotIn("Traceback", daemon.output)

    def test_reload_tokens(self) -> None:
        """SIGHUP reads the tokens again, and a download goes on meanwhile."""
        old, new = generate_token(), generate_token()
        tokens = self.write("tokens", old.encode(), 0o600)
        options = ("--token-file", str(tokens), "--anonymous", "none")
        with Daemon(self.root, *options) as daemon, Download(daemon, "/long", old) as download:
            download.read(1)
            tokens.write_text(new)
            os.kill(daemon.pid, signal.SIGHUP)
            daemon.expect("the tokens were read again")
            for token, status in ((new, b"200"), (old, b"401")):
                with Download(daemon, "/?json", token) as request:
                    self.assertEqual(request.rest()[0].split()[1], status)
            self.assertEqual(len(download.rest()[1]), LONG)
            self.assertEqual(daemon.stop(), 0)

    def test_reload_log(self) -> None:
        """SIGHUP opens a log file again that was moved; what was said before stays in the moved one."""
        log = self.base / "log"
        with Daemon(self.root, "--log-file", str(log)) as daemon:
            log.rename(self.base / "moved")
            os.kill(daemon.pid, signal.SIGHUP)
            eventually("a new log file", log.exists)
            with Download(daemon, "/-/health") as request:
                request.rest()
            eventually("a line in the new log file", lambda: "GET /-/health" in log.read_text())
            self.assertEqual(daemon.stop(), 0)
        self.assertIn(f"HTTP on {daemon.url}", (self.base / "moved").read_text())
        self.assertNotIn("HTTP on", log.read_text())

    def test_killed(self) -> None:
        """Killed, it starts again at once on the same port with the same token, and clears up."""
        with Daemon(self.root) as daemon, Download(daemon, "/long") as download:
            download.read(1)
            port = str(urlsplit(daemon.url).port)
            killed = run(sys.executable, "-c", _KILLED_WRITER, self.root)
            self.assertEqual(killed.returncode, -signal.SIGKILL)
            self.assertEqual(len(os.listdir(self.root / ".fileexport")), 1)
            daemon.kill()
            token = Path(f"{self.root}.state", "token").read_text()
            with Daemon(self.root, "-p", port) as again:
                self.assertEqual(again.url, daemon.url)
                again.expect("removed 1 ")
                self.assertFalse((self.root / ".fileexport").exists())
                with Download(again, "/?json", token.split()[0]) as request:
                    self.assertTrue(request.rest()[0].startswith(b"HTTP/1.1 200 "))
                self.assertEqual(again.stop(), 0)
        self.assertEqual(Path(f"{self.root}.state", "token").read_text(), token)

    def test_living_writer(self) -> None:
        """What a living process is writing outlasts the start of a daemon."""
        program = _KILLED_WRITER.replace("os.kill(", "print(flush=True); input() or os.kill(")
        with subprocess.Popen(
            [sys.executable, "-c", program, self.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as writer:
            line_of(writer)
            with Daemon(self.root) as daemon:
                with Download(daemon, "/-/health") as request:
                    request.rest()
                self.assertEqual(daemon.stop(), 0)
            self.assertEqual(len(os.listdir(self.root / ".fileexport")), 1)
            writer.communicate(b"\n", PATIENCE)
