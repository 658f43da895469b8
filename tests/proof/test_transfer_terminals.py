"""Two terminals: the daemon in one, a person in the other; every command as it is typed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from fileexport.tokens import generate_token
from tests.proof.commands import FILEEXPORT, Command
from tests.proof.process import MIB
from tests.proof.transfer_case import TransferCase, content

SIZE = 16 * MIB


class TerminalCase(TransferCase):
    """`fileexport run` in one terminal; the variables of the other one name it."""

    def setUp(self) -> None:
        super().setUp()
        self.first = self.terminal_daemon()
        self.first.__enter__()
        self.addCleanup(self.first.kill)
        self.terminal = self.environ(self.first.transfer_port)
        self.work = self.base / "work"
        self.work.mkdir()

    def type(self, *words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Type a command in the second terminal."""
        return self.command(self.terminal | more, *words)

    def does(self, *words: str | Path) -> str:
        """A command that works; what it says on standard output. It says nothing on standard error."""
        done = self.type(*words)
        self.assertEqual((done.returncode, done.stderr), (0, ""), words)
        return done.stdout

    def fails(self, code: int, *words: str | Path, **more: str) -> str:
        """A mistake: this exit code, one line on standard error and no other; and the next command works."""
        done = self.type(*words, **more)
        self.assertEqual(done.returncode, code, (words, done.stderr))
        self.assertEqual(done.stdout, "", words)
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 1, (words, done.stderr))
        self.assertNotIn("Traceback", done.stderr)
        self.assertEqual(self.type("list").returncode, 0)
        return lines[0]


class WorkTests(TerminalCase):
    """What goes well."""

    def test_day(self) -> None:
        """A large file goes there and back, is listed and removed; files and directories are made."""
        big = self.source("big.iso", SIZE)
        os.utime(big, ns=(10**18 + 123456789, 10**18 + 123456789))
        done = self.type("upload", "--progress", big, "/")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_content(self.root / "big.iso", "big.iso", SIZE)
        self.assertEqual((self.root / "big.iso").stat().st_mtime_ns, 10**18 + 123456789)
        self.does("directory", "documents")
        self.does("directory", "letters", "/documents")
        self.does("file", "empty.txt", "/documents")
        self.assertEqual((self.root / "documents" / "empty.txt").read_bytes(), b"")
        self.assertEqual(self.does("list").split(), ["big.iso", "documents"])
        self.assertEqual(self.does("list", "/documents").split(), ["empty.txt", "letters"])
        lines = self.does("list", "/", "-l").splitlines()
        self.assertRegex(lines[0], rf"\[F\]\s+{SIZE}\b.*\bbig\.iso$")
        self.assertRegex(lines[1], r"\[D\].*\bdocuments$")
        everything = self.does("list", "/", "-r").split()
        self.assertEqual(everything, ["big.iso", "documents", "documents/empty.txt", "documents/letters"])
        self.does("download", "/big.iso", self.work)
        self.assert_content(self.work / "big.iso", "big.iso", SIZE)
        self.assertEqual((self.work / "big.iso").stat().st_mtime_ns, 10**18 + 123456789)
        self.does("verify", self.work / "big.iso", "/big.iso")
        self.does("remove", "/big.iso")
        self.does("remove", "empty.txt", "/documents")
        self.does("remove", "-r", "/documents")
        self.assertEqual(self.does("list"), "")
        self.assertEqual([path.name for path in self.root.iterdir() if path.name != ".fileexport"], [])
        self.assertEqual(self.first.stop(), 0)

    def test_tree(self) -> None:
        """A directory goes there and back with all that is in it."""
        for number in range(300):
            self.source(f"tree/{number % 7}/file-{number}", number * 11)
        self.source("tree/large", 3 * MIB)
        self.does("upload", "-r", self.base / "sources" / "tree", "/")
        self.does("download", "-r", "/tree", self.work)
        self.does("verify", self.work / "tree", "/tree")
        for number in range(300):
            name = f"tree/{number % 7}/file-{number}"
            self.assertEqual((self.work / name).read_bytes(), content(name, number * 11))
        self.does("move", "/tree", "/moved")
        self.does("download", "/moved/?/file-1*", self.work)
        self.assertTrue((self.work / "file-1").exists())

    def test_relative_source(self) -> None:
        """`download` takes a relative source from the root; the destination is the current directory."""
        (self.root / "d").mkdir()
        (self.root / "d" / "f").write_bytes(b"content")
        self.does("download", "d/f")
        self.assertEqual((self.base / "f").read_bytes(), b"content")
        self.assertEqual(self.does("cat", "/d/f"), "content")

    def test_again(self) -> None:
        """`-u` takes what is there already, as it is."""
        self.does("directory", "d")
        self.does("directory", "d", "-u")
        (self.root / "f").write_bytes(b"content")
        self.does("file", "f", "/", "-u")
        self.assertEqual((self.root / "f").read_bytes(), b"content")

    def test_json(self) -> None:
        """--json: an object a line on standard output, the last one with the totals; progress among them."""
        source = self.source("big", SIZE)
        done = self.type("upload", "--progress", "--json", source, "/")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(events[-1]["event"], "summary")
        self.assertIn("action", {event["event"] for event in events})
        done = self.type("list", "--json")
        entries = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(
            entries[0] | {"mtime": 0},
            {"event": "entry", "path": "/big", "type": "file", "size": SIZE, "mtime": 0},
        )
        done = self.type("cat", "/none", "--json")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertIn("error", {event["event"] for event in events})


class MistakeTests(TerminalCase):
    """What people do wrong: one clear line, the table's exit code, and the next command works."""

    def test_paths(self) -> None:
        """Relative paths and no names are usage; what is missing is 3 or 4; what is there, 6."""
        source = self.source("file", 10)
        self.does("upload", source, "/")
        for words in (("list", "relative"), ("upload", source, "relative"), ("remove", "relative/x")):
            self.fails(2, *words)
        for name in ("a:b", "a*b", "..", ".", "x" * 256):
            self.fails(2, "directory", name)
            self.fails(2, "file", name)
        self.assertIn("file", self.fails(6, "upload", source, "/"))
        self.fails(6, "directory", "file")
        self.fails(6, "file", "file")
        self.assertIn("missing", self.fails(3, "list", "/missing"))
        self.fails(3, "upload", source, "/missing")
        self.fails(3, "file", "new", "/missing")
        self.fails(3, "directory", "new", "/missing/missing")
        self.assertIn("missing", self.fails(4, "download", "/missing", self.work))
        self.fails(4, "remove", "/missing")
        self.fails(4, "upload", self.base / "missing", "/")
        self.fails(4, "cat", "/missing")
        self.fails(3, "download", "/file", self.base / "missing")
        self.does("directory", "full")
        self.does("file", "one", "/full")
        self.fails(6, "remove", "/full")

    def test_server(self) -> None:
        """A wrong token is refused, and nobody who listens is for a later time."""
        wrong = generate_token()
        line = self.fails(6, "list", FILEEXPORT_TOKEN=wrong)
        self.assertNotIn(wrong, line)
        line = self.fails(5, "list", FILEEXPORT_PORT="1")
        self.assertTrue(re.search(r"refused|connect", line, re.IGNORECASE), line)
        self.fails(2, "list", FILEEXPORT_TOKEN="short")
        self.fails(2, "list", FILEEXPORT_PORT="none")

    def test_no_server(self) -> None:
        """Without the variables it is usage."""
        environ = {name: value for name, value in self.terminal.items() if not name.startswith("FILEEXPORT_")}
        for kept in ({}, {"FILEEXPORT_HOSTNAME": "127.0.0.1"}, {"FILEEXPORT_TOKEN": self.token}):
            done = self.command(environ | kept, "list")
            self.assertEqual(
                (done.returncode, done.stdout, len(done.stderr.splitlines())), (2, "", 1), done.stderr
            )

    def test_stopped(self) -> None:
        """A daemon that has stopped is nobody who listens; one that starts again is found."""
        port = self.first.transfer_port
        self.does("directory", "before")
        self.assertEqual(self.first.stop(), 0)
        done = self.type("list")
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (5, 1), done.stderr)
        words = (FILEEXPORT, "run", str(self.root), str(port), self.token, "-p", "0")
        with Command(self.root, *words, "--state", str(self.base / "state")) as second:
            self.assertEqual(second.transfer_port, port)
            self.assertEqual(self.does("list").split(), ["before"])
            self.assertEqual(second.stop(), 0)
