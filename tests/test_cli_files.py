"""`list`, `cat`, `file`, `directory`, `remove`, `move`, `verify`, `jobs`, `compress` against a daemon."""

from __future__ import annotations

import base64
import os

from fileexport.client.blocking import Client
from fileexport.client.names import RemoteJob
from fileexport.paths import quote_name
from tests.cli_case import READER, CliCase, fill, tree

#: A name that no terminal and no UTF-8 reader should meet, as Python and as the disk spell it.
ODD = "n\x1b[31m\udcff"
AT = 1_795_273_794


class ListTests(CliCase):
    """`list`."""

    def setUp(self) -> None:
        super().setUp()
        fill(self.there, {"b.txt": "four", "a/c/deep": "1", "a-b": ""})
        for path in (self.there, *self.there.rglob("*")):
            os.utime(path, (AT, AT))
        self.environment["TZ"] = None

    def test_names(self) -> None:
        """Names alone, in order."""
        self.assertEqual(self.done("list", self.remote).stdout, "a\na-b\nb.txt\n")

    def test_root(self) -> None:
        """Without a directory it is the root."""
        self.assertIn(self.there.name, self.done("list").stdout.split())

    def test_recursive(self) -> None:
        """With -r paths below the directory, each directory before what lies in it."""
        self.assertEqual(self.done("list", self.remote, "-r").stdout, "a\na/c\na/c/deep\na-b\nb.txt\n")

    def test_details(self) -> None:
        """-a, -l and --all add kind, size and time in columns."""
        (self.there / "link").symlink_to("b.txt")
        first = self.done("list", self.remote, "-a").stdout
        for flag in ("-l", "--all"):
            self.assertEqual(self.done("list", self.remote, flag).stdout, first)
        when = r"20\d\d-\d\d-\d\d \d\d:\d\d"
        lines = first.splitlines()
        for line, form in zip(
            lines,
            (rf"\[D\] - {when} a", rf"\[F\] 0 {when} a-b", rf"\[F\] 4 {when} b.txt", r"\[L\] 5 .* link"),
            strict=True,
        ):
            self.assertRegex(line, f"^{form}$")
        (self.there / "big").write_bytes(bytes(1000))
        self.assertIn("[F]    4 ", self.done("list", self.remote, "-a").stdout)

    def test_programs(self) -> None:
        """--json gives whole paths, kinds, sizes and times, and the totals last."""
        *entries, summary = self.events("list", self.remote, "-r")
        self.assertEqual(
            [
                (entry["event"], entry["path"], entry["type"], entry["size"], entry["mtime"])
                for entry in entries
            ],
            [
                ("entry", f"{self.remote}/a", "directory", 0, AT),
                ("entry", f"{self.remote}/a/c", "directory", 0, AT),
                ("entry", f"{self.remote}/a/c/deep", "file", 1, AT),
                ("entry", f"{self.remote}/a-b", "file", 0, AT),
                ("entry", f"{self.remote}/b.txt", "file", 4, AT),
            ],
        )
        totals = {"files": 3, "directories": 2, "bytes": 5, "errors": 0, "left_out": 0, "exit": 0}
        self.assertEqual(summary, {"event": "summary", **totals})

    def test_odd_name(self) -> None:
        """A pipe gets a name's bytes, a program its percent-encoded path."""
        (self.there / ODD).touch()
        self.assertIn(os.fsencode(ODD), self.done("list", self.remote).stdout_bytes.split(b"\n"))
        [entry] = [entry for entry in self.events("list", self.remote) if "url" in entry]
        self.assertEqual(entry["url"], f"{self.remote}/{quote_name(ODD)}")
        self.assertEqual(entry["path"], f"{self.remote}/n\x1b[31m\ufffd")

    def test_mistakes(self) -> None:
        """A relative path is 2, a missing directory 3, a file 3."""
        see = "(see fileexport list --help)"
        self.refused(2, f"remote paths are absolute: give /a with its slash {see}", "list", "a")
        self.refused(2, f"/a/../b: '..' is not a name {see}", "list", "/a/../b")
        missing = f"{self.remote}/none"
        self.refused(3, f"{missing}: there is no such file or directory: check its path", "list", missing)
        file = f"{self.remote}/b.txt"
        self.refused(3, f"{file}: it is not a directory: name a directory", "list", file)


class CatTests(CliCase):
    """`cat`."""

    def test_content(self) -> None:
        """The bytes of the file and nothing else."""
        content = bytes(range(256)) * 5000
        fill(self.there, {"f": content, "empty": b""})
        self.assertEqual(self.done("cat", f"{self.remote}/f").stdout_bytes, content)
        self.assertEqual(self.done("cat", f"{self.remote}/empty").stdout_bytes, b"")

    def test_programs(self) -> None:
        """With --json the content comes in events."""
        fill(self.there, {"f": b"\xff\n"})
        event, summary = self.events("cat", f"{self.remote}/f")
        self.assertEqual((event["event"], base64.b64decode(event["data"])), ("content", b"\xff\n"))
        self.assertEqual((summary["bytes"], summary["exit"]), (2, 0))

    def test_mistakes(self) -> None:
        """A missing file is 4, a directory 6."""
        fill(self.there, {"d": None})
        path = f"{self.remote}/none"
        self.refused(4, f"{path}: there is no such file or directory: check its path", "cat", path)
        path = f"{self.remote}/d"
        self.refused(6, f"{path}: it is a directory: name a file", "cat", path)


class CreateTests(CliCase):
    """`file`, `directory`, `folder`."""

    def test_new(self) -> None:
        """Each makes what it is called, and says nothing."""
        for command, name in (("file", "f"), ("directory", "d"), ("folder", "e")):
            self.assertEqual(self.done(command, name, self.remote).stdout, "")
        self.assertEqual(tree(self.there), {"f": "", "d": None, "e": None})

    def test_existing(self) -> None:
        """An existing name is 6, unless -u accepts it; then it stays as it is."""
        fill(self.there, {"f": "content", "d/inner": "1"})
        for command, name in (("file", "f"), ("directory", "d"), ("folder", "d")):
            path = f"{self.remote}/{name}"
            self.refused(
                6,
                f"{path}: it exists already: -u accepts it, or choose another name",
                command,
                name,
                self.remote,
            )
            self.done(command, name, self.remote, "-u")
        self.assertEqual(tree(self.there), {"f": "content", "d": None, "d/inner": "1"})

    def test_other_kind(self) -> None:
        """-u does not take a file for a directory, nor the other way round."""
        fill(self.there, {"f": "content", "d": None})
        for command, name in (("file", "d"), ("directory", "f")):
            result = self.run_command(command, name, self.remote, "-u")
            self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (6, 1), result.stderr)

    def test_mistakes(self) -> None:
        """A missing directory is 3, a name that cannot be 2, and so is a path as a name."""
        for command in ("file", "directory"):
            result = self.run_command(command, "x", f"{self.remote}/none")
            self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (3, 1), result.stderr)
            self.assertIn("there is no such destination directory: create it first", result.stderr)
            self.refused(
                2,
                f"{self.remote}/a:b: the name is not valid: choose another name",
                command,
                "a:b",
                self.remote,
            )
            for name in ("..", "", "a/b", "/a"):
                result = self.run_command(command, name, self.remote)
                self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (2, 1), result.stderr)

    def test_no_right(self) -> None:
        """A token without the right is 6."""
        result = self.run_command("file", "x", self.remote, FILEEXPORT_TOKEN=READER)
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (6, 1), result.stderr)
        self.assertIn("token", result.stderr)


class RemoveTests(CliCase):
    """`remove`."""

    def test_both_spellings(self) -> None:
        """By a path, and by a name with its directory."""
        fill(self.there, {"a": "1", "b": "1"})
        self.done("remove", f"{self.remote}/a")
        self.done("remove", "b", self.remote)
        self.assertEqual(tree(self.there), {})

    def test_directory(self) -> None:
        """One that is not empty needs -r."""
        fill(self.there, {"d/e/f": "1", "empty": None})
        self.done("remove", f"{self.remote}/empty")
        path = f"{self.remote}/d"
        result = self.run_command("remove", path)
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (6, 1))
        self.assertIn("-r removes it with its contents", result.stderr)
        self.assertEqual(self.done("remove", "-r", path).stdout, "removed 3 entries\n")
        self.assertEqual(tree(self.there), {})

    def test_programs(self) -> None:
        """The event says how many went."""
        fill(self.there, {"d/e/f": "1"})
        action, summary = self.events("remove", "-r", f"{self.remote}/d")
        self.assertEqual(
            (action["action"], action["path"], action["count"]), ("remove", f"{self.remote}/d", 3)
        )
        self.assertEqual(summary["removed"], 3)

    def test_link(self) -> None:
        """A link goes; what it leads to stays."""
        fill(self.there, {"d/f": "1"})
        (self.there / "l").symlink_to("d")
        self.done("remove", "-r", f"{self.remote}/l")
        self.assertEqual(tree(self.there), {"d": None, "d/f": "1"})

    def test_mistakes(self) -> None:
        """A missing name is 4; a relative path 2, and so are the root and a path as a name."""
        path = f"{self.remote}/none"
        self.refused(4, f"{path}: there is no such file or directory: check its path", "remove", path)
        self.refused(
            2, "the root itself cannot be removed (see fileexport remove --help)", "remove", "-r", "/"
        )
        for words in (("none",), ("a/b", self.remote), ("a", "b"), ("..", self.remote)):
            result = self.run_command("remove", *words)
            self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (2, 1), result.stderr)


class MoveTests(CliCase):
    """`move`."""

    def test_moved(self) -> None:
        """A file and a directory get other paths."""
        fill(self.there, {"a": "1", "d/f": "2", "e": None})
        self.done("move", f"{self.remote}/a", f"{self.remote}/e/b")
        self.done("move", f"{self.remote}/d", f"{self.remote}/d2")
        self.assertEqual(tree(self.there), {"d2": None, "d2/f": "2", "e": None, "e/b": "1"})

    def test_existing(self) -> None:
        """What has the new name already is named, and stays."""
        fill(self.there, {"a": "1", "b": "2"})
        target = f"{self.remote}/b"
        self.refused(
            6, f"{target}: it exists already: choose another name", "move", f"{self.remote}/a", target
        )
        self.assertEqual(tree(self.there), {"a": "1", "b": "2"})

    def test_mistakes(self) -> None:
        """A missing source is 4, a missing directory 3, a relative path 2."""
        fill(self.there, {"a": "1"})
        a, none = f"{self.remote}/a", f"{self.remote}/none"
        self.refused(4, f"{none}: there is no such file or directory: check its path", "move", none, a + "2")
        missing = "there is no such destination directory: create it first"
        self.refused(3, f"{none}: {missing}", "move", a, f"{none}/b")
        for words in (("a", a), (a, "b")):
            result = self.run_command("move", *words)
            self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (2, 1), result.stderr)


class VerifyTests(CliCase):
    """`verify`."""

    FILES = {"a": "1", "d/b": "2" * 100_000, "d/empty": ""}

    def setUp(self) -> None:
        super().setUp()
        fill(self.here / "tree", self.FILES)
        fill(self.there, self.FILES)

    def test_equal(self) -> None:
        """Equal trees, and equal files of different names, are status 0."""
        self.assertEqual(self.done("verify", "tree", self.remote).stdout, "3 files compared: equal\n")
        (self.there / "d/b").rename(self.there / "d/c")
        self.assertEqual(
            self.done("verify", "tree/d/b", f"{self.remote}/d/c").stdout, "1 file compared: equal\n"
        )

    def test_different(self) -> None:
        """Each difference is named, and the status is 8; nothing is changed."""
        fill(self.there, {"a": "2", "new": "", "d/dir": None, "d/empty": "x"})
        fill(self.here / "tree", {"old": "1", "d/dir": ""})
        before = tree(self.here), tree(self.there)
        result = self.run_command("verify", "tree", self.remote)
        self.assertEqual((result.exit_code, result.stderr), (8, ""))
        self.assertEqual(
            sorted(result.stdout.splitlines()),
            [
                "a file here, a directory there: d/dir",
                "differs: a",
                "differs: d/empty",
                "only here: old",
                "only there: new",
            ],
        )
        self.assertEqual((tree(self.here), tree(self.there)), before)

    def test_programs(self) -> None:
        """Differences are events, and the summary counts them."""
        fill(self.there, {"a": "2"})
        action, summary = self.events("verify", "tree", self.remote, status=8)
        self.assertEqual((action["action"], action["path"], action["message"]), ("differ", "a", "differs"))
        self.assertEqual((summary["different"], summary["files"], summary["exit"]), (1, 3, 8))

    def test_unlike(self) -> None:
        """What is no file, directory or link is not compared, and named: the status is 9."""
        for base in (self.here / "tree", self.there):
            os.mkfifo(base / "p")
        line = "Left out: tree/p: it is neither a file nor a directory nor a link\n"
        result = self.run_command("verify", "tree", self.remote)
        self.assertEqual((result.exit_code, result.stderr), (9, line))
        # On one side only, as a transfer leaves them.
        (self.there / "p").unlink()
        again = self.run_command("verify", "tree", self.remote)
        self.assertEqual((again.exit_code, again.stderr), (result.exit_code, result.stderr))

    def test_missing(self) -> None:
        """A directory that is not there is 3, a file 4; neither side is a source."""
        why = "there is no such file or directory: check its path"
        self.refused(3, f"none: {why}", "verify", "none", self.remote)
        path = f"{self.remote}/none"
        self.refused(3, f"{path}: {why}", "verify", "tree", path)
        self.refused(4, f"{path}: {why}", "verify", "tree/a", path)


class JobTests(CliCase):
    """`compress`, `jobs`."""

    def test_wait(self) -> None:
        """--wait ends when the archive is there, and prints its path."""
        fill(self.there, {"dump.sql": "1" * 1000})
        result = self.done("compress", f"{self.remote}/dump.sql", "--wait")
        self.assertEqual(result.stdout, f"{self.remote}/dump.tgz\n")
        self.assertTrue((self.there / "dump.tgz").exists())
        self.assertIn(f"{self.remote}/dump.sql -> {self.remote}/dump.tgz\n", self.done("jobs").stdout)

    def test_patience(self) -> None:
        """--wait asks seldom, however short the time-out for an answer is."""
        waits: list[int] = []
        ask = Client.job

        def job(client: Client, id: str, wait: int = 0, timeout: float | None = None) -> RemoteJob:
            waits.append(wait)
            return ask(client, id, wait, timeout)

        self.patch(Client, "job", job)
        fill(self.there, {"a": "1" * 1000})
        self.done("compress", f"{self.remote}/a", "--wait", "-t", "1500")
        self.assertEqual(set(waits), {20})

    def test_formats(self) -> None:
        """Each format makes the file that it is named after."""
        fill(self.there, {"a": "1" * 1000, "d/f": "2"})
        for name, format, target in (("a", "zst", "a.zst"), ("a", "gz", "a.gz"), ("d", "zip", "d.zip")):
            result = self.done("compress", f"{self.remote}/{name}", "--format", format, "--wait")
            self.assertEqual(result.stdout, f"{self.remote}/{target}\n")

    def test_programs(self) -> None:
        """Jobs are events of their own."""
        fill(self.there, {"a": "1"})
        job, summary = self.events("compress", f"{self.remote}/a", "--wait")
        self.assertEqual((job["event"], job["state"], job["target"]), ("job", "done", f"{self.remote}/a.tgz"))
        found = [event["id"] for event in self.events("jobs")[:-1]]
        self.assertIn(job["id"], found)

    def test_mistakes(self) -> None:
        """A missing source is 4; a format that is none 2."""
        path = f"{self.remote}/none"
        self.refused(4, f"{path}: there is no such file or directory: check its path", "compress", path)
        result = self.run_command("compress", path, "--format", "rar")
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (2, 1))
