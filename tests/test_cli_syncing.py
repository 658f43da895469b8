"""`sync` and `verify` of trees, against a daemon: what they say, do, and end with."""

from __future__ import annotations

import os
from typing import Any

from fileexport.cli.output import Output
from fileexport.paths import MAX_DEPTH
from tests.cli_case import NO_SOURCE, READER, CliCase
from tests.sync_case import MTIME, Link, Made, fill, snapshot

BIG = os.urandom(300_000)
TREE: Made = {"a": b"1", "d/b": b"22", "d/big": BIG, "d/l": Link("b"), "empty": None}


class SyncTests(CliCase):
    """`sync`."""

    def setUp(self) -> None:
        super().setUp()
        self.tree = self.here / "tree"
        self.tree.mkdir()
        fill(self.tree, TREE)

    def up(self, *words: str) -> list[dict[str, Any]]:
        """The events of a synchronisation to the server."""
        return self.events("sync", "local", "tree", self.remote, *words)

    def test_both_ways(self) -> None:
        """local makes the remote directory equal, remote the local one; `verify` agrees."""
        result = self.done("sync", "local", "tree", self.remote)
        self.assertRegex(
            result.stdout,
            r"^sent 3 files, 300 KB, made 2 directories, linked 1, set 3, 0 unchanged in [0-9.]+ s\n$",
        )
        self.assertEqual(snapshot(self.there), snapshot(self.tree))
        result = self.done("sync", "remote", self.remote, "copy")
        words = r"^fetched 3 files, 300 KB, made 3 directories, linked 1, set 3, 0 unchanged in [0-9.]+ s\n$"
        self.assertRegex(result.stdout, words)
        self.assertEqual(snapshot(self.here / "copy"), snapshot(self.tree))
        for local in ("tree", "copy"):
            self.assertEqual(self.done("verify", local, self.remote).stdout, "3 files compared: equal\n")

    def test_again(self) -> None:
        """The second time nothing is sent; with --quiet nothing is said."""
        self.done("sync", "local", "tree", self.remote)
        for words in (("local", "tree", self.remote), ("remote", self.remote, "tree")):
            result = self.done("sync", *words)
            self.assertEqual(result.stdout, "nothing to do, 6 unchanged\n")
            self.assertEqual(self.done("sync", *words, "-n").stdout, "nothing to do, 6 unchanged\n")
            self.assertEqual(self.done("sync", *words, "--quiet").stdout, "")

    def test_saved(self) -> None:
        """What need not travel is said: what was moved, and most of a large file that changed."""
        self.done("sync", "local", "tree", self.remote)
        (self.tree / "d/big").rename(self.tree / "moved")
        fill(self.tree, {})
        result = self.done("sync", "local", "tree", self.remote, "--delete")
        words = r"^sent 0 files, 0 B \(saved 300 KB\), moved 1, set 2, 4 unchanged in [0-9.]+ s\n$"
        self.assertRegex(result.stdout, words)
        self.assertEqual(snapshot(self.there), snapshot(self.tree))

    def test_dry_run(self) -> None:
        """-n names each action and ends with what it would do; nothing is done."""
        fill(self.there, {"old": b"1234", "d": b"file"})
        before = snapshot(self.there)
        result = self.done("sync", "local", "tree", self.remote, "--delete", "--max-delete", "9", "-n")
        self.assertEqual(
            result.stdout.splitlines(),
            [
                f"put aside {self.remote}/d as {self.remote}/d.fileexport-old",
                f"make directory {self.remote}/d",
                f"make directory {self.remote}/empty",
                f"send {self.remote}/a (1 B)",
                f"send {self.remote}/d/b (2 B)",
                f"send {self.remote}/d/big (300 KB)",
                f"link {self.remote}/d/l",
                f"remove {self.remote}/old",
                f"remove {self.remote}/d.fileexport-old",
                *(f"set {self.remote}{path}" for path in ("/d", "/empty", "")),
                "would send 3 files, 300 KB, make 2 directories, link 1, remove 1, set 3, 0 unchanged",
            ],
        )
        self.assertEqual(snapshot(self.there), before)

    def test_verbose(self) -> None:
        """-v names each action that is done with the lines of a dry run; programs see no difference."""
        fill(self.there, {"old": b"1234", "d": b"file"})
        words = ("sync", "local", "tree", self.remote, "--delete", "--max-delete", "9")
        *said, would = self.done(*words, "-n").stdout.splitlines()
        *done, did = self.done(*words, "-v").stdout.splitlines()
        self.assertEqual(done, said)
        self.assertEqual(did.split(" in ")[0], would.replace("would send", "sent").replace(
            "make", "made").replace("link", "linked").replace("remove", "removed"))  # fmt: skip
        self.assertEqual([event["event"] for event in self.up("-v")], ["summary"])

    def test_down(self) -> None:
        """What comes from the server is fetched, not sent; of what only changed nobody knows how much."""
        fill(self.there, {"a": b"1", "big": BIG})
        lines = self.done("sync", "remote", self.remote, "copy", "-n").stdout.splitlines()
        self.assertEqual(lines[1:3], ["fetch copy/a (1 B)", "fetch copy/big (300 KB)"])
        self.assertRegex(lines[-1], "^would fetch 2 files, 300 KB, ")
        self.done("sync", "remote", self.remote, "copy")
        fill(self.there, {"big": BIG + b"1"}, MTIME + 1)
        lines = self.done("sync", "remote", self.remote, "copy", "-n").stdout.splitlines()
        self.assertEqual(lines[0], "update copy/big (300 KB)")
        self.assertRegex(lines[-1], "^would fetch at most 1 file, 300 KB, ")
        event, *_ = self.events("sync", "remote", self.remote, "new", "-n")[1:]
        self.assertEqual((event["action"], event["path"]), ("send", "new/a"))

    def test_empty_paths(self) -> None:
        """A path that is empty, as that of a variable that is not set, is said to be."""
        for side, words in (
            ("remote", ("sync", "local", "tree", "")),
            ("local", ("sync", "local", "", self.remote)),
            ("remote", ("sync", "remote", "", "tree")),
            ("local", ("sync", "remote", self.remote, "")),
            ("local", ("verify", "", self.remote)),
            ("remote", ("verify", "tree", "")),
            ("remote", ("list", "")),
        ):
            result = self.run_command(*words)
            line = f"Error: the {side} path is empty (see fileexport {words[0]} --help)\n"
            self.assertEqual((result.exit_code, result.stdout, result.stderr), (2, "", line), words)

    def test_programs(self) -> None:
        """A dry run's actions are those that are done then; the summaries agree."""
        fill(self.there, {"old": b"1234", "copy of big": BIG, "d": b"file"})
        rules = ("--delete", "--max-delete", "100%")
        *said, summary = self.up(*rules, "--dry-run")
        *done, after = self.up(*rules)
        self.assertEqual(done, said)
        self.assertEqual({event["event"] for event in done}, {"action"})
        self.assertEqual([event["source"] for event in done if event["action"] in ("move", "copy")], [
            f"{self.remote}/copy of big"
        ])  # fmt: skip
        counted = ("files", "bytes", "directories", "links", "moved", "copied", "removed", "set", "unchanged")
        self.assertEqual([after[name] for name in counted], [summary[name] for name in counted])
        self.assertEqual((summary["dry_run"], after["dry_run"], after["exit"]), (True, False, 0))
        self.assertEqual((after["files"], after["bytes"], after["saved"]), (3, 3, len(BIG)))

    def test_refused(self) -> None:
        """Past --max-delete, or from an empty source, nothing is done, and one line says why: status 6.

        A dry run shows first what it would be.
        """
        fill(self.there, {f"old{number}": b"1" for number in range(8)})
        before = snapshot(self.there)
        for source in ("tree", "nothing"):
            (self.here / "nothing").mkdir(exist_ok=True)
            for extra in ((), ("-n",)):
                words = ("sync", "local", source, self.remote, "--delete", *extra)
                result = self.run_command(*words)
                self.assertEqual(result.exit_code, 6, result.stderr)
                self.assertEqual(f"remove {self.remote}/old7\n" in result.stdout, bool(extra))
                self.assertRegex(result.stderr, f"^Error: {self.remote}: .*removed.*\n$")
                *_, summary = self.events(*words, status=6)
                self.assertEqual((summary["errors"], summary["exit"]), (1, 6))
                self.assertEqual((summary["dry_run"], summary["removed"] > 0), (bool(extra), bool(extra)))
                self.assertEqual(summary["files"] > 0, bool(extra) and source == "tree")
        self.assertEqual(snapshot(self.there), before)
        self.done("sync", "local", "tree", self.remote, "--delete", "--max-delete", "8")

    def test_left_out(self) -> None:
        """What cannot be there is named, and the status is 9: links that lead outside, sockets, names."""
        (self.tree / "out").symlink_to("/etc/passwd")
        os.mkfifo(self.tree / "fifo")
        fill(self.tree, {"no:name": b"1"})
        result = self.run_command("sync", "local", "tree", self.remote)
        self.assertEqual(result.exit_code, 9)
        self.assertEqual(
            sorted(result.stderr.splitlines()),
            [
                "Left out: tree/fifo: it is neither a file nor a directory nor a link",
                "Left out: tree/no:name: the destination does not take this name",
                "Left out: tree/out: the link leads outside, or has .. behind a name",
            ],
        )
        self.assertRegex(result.stdout, "^sent 3 files, ")
        *_, summary = self.events("sync", "local", "tree", self.remote, status=9)
        self.assertEqual((summary["left_out"], summary["errors"]), (3, 0))

    def test_whose(self) -> None:
        """What is wrong at the destination is named by its place there, the destination's own name too."""
        fill(self.there, {"a": b"1"})
        deep = "/".join(["d"] * MAX_DEPTH)
        fill(self.here / "copy", {f"{deep}/x": b"1"})
        result = self.run_command("sync", "remote", self.remote, "copy", "--delete", "--max-delete=100%")
        self.assertEqual(result.exit_code, 9)
        self.assertRegex(result.stderr, f"^Left out: copy/{deep}: at the destination: .*\\n$")

    def test_bad_name(self) -> None:
        """A destination whose name the server does not create is named, not the source."""
        path = f"{self.remote}/a:b"
        result = self.run_command("sync", "local", "tree", path)
        self.assertEqual(result.exit_code, 2)
        self.assertRegex(result.stderr, f"^Error: {path}: .*\n$")

    def test_link(self) -> None:
        """A remote destination that is a link is refused before anything is sent, wherever it leads."""
        why = "it is a link: name a directory, as the one that it leads to"
        for name, target in (("inside", "."), ("outside", "/etc"), ("nowhere", "none")):
            (self.there / name).symlink_to(target)
            path = f"{self.remote}/{name}"
            for words in ((), ("-n",)):
                self.refused(3, f"{path}: {why}", "sync", "local", "tree", path, *words)

    def test_file(self) -> None:
        """A destination that is a file is no directory, here as there."""
        fill(self.there, {"f": b"1"})
        why = "it is not a directory: name a directory"
        self.refused(3, f"{self.remote}/f: {why}", "sync", "local", "tree", f"{self.remote}/f")
        self.refused(3, f"tree/a: {why}", "sync", "remote", self.remote, "tree/a")

    def test_rules(self) -> None:
        """--exclude, --include and --gitignore leave out and protect; --checksum looks into equal files."""
        fill(self.tree, {".gitignore": b"*.o\n", "x.o": b"1", "y.o": b"2", "z.log": b"3"})
        fill(self.there, {"mine.log": b"4"})
        words = ("--delete", "--gitignore", "--exclude", "*.log", "--include", "y.o", "--max-delete=100%")
        self.done("sync", "local", "tree", self.remote, *words)
        names = {path.name for path in self.there.iterdir()}
        self.assertEqual(names, {"a", "d", "empty", ".gitignore", "y.o", "mine.log"})
        fill(self.there, {"a": b"X"})
        self.done("sync", "local", "tree", self.remote, *words)
        self.assertEqual((self.there / "a").read_bytes(), b"X")
        self.done("sync", "local", "tree", self.remote, *words, "--checksum")
        self.assertEqual((self.there / "a").read_bytes(), b"1")

    def test_mistakes(self) -> None:
        """What is missing is 3, wrong usage 2, a token that may not write 6; each is one line."""
        self.refused(3, f"none: {NO_SOURCE}", "sync", "local", "none", self.remote)
        path = f"{self.remote}/none"
        self.refused(3, f"{path}: {NO_SOURCE}", "sync", "remote", path, "tree")
        fill(self.there, {"f": b"1"})
        for status, words in (
            (3, ("local", "tree", f"{path}/none")),
            (3, ("remote", self.remote, "none/none")),
            (3, ("local", "tree", f"{self.remote}/f")),
            (3, ("remote", f"{self.remote}/f", "tree")),
            (2, ("local", "tree/a", self.remote)),
            (2, ("local", "tree", "relative")),
            (2, ("both", "tree", self.remote)),
            (2, ("local", "tree", self.remote, "--max-delete", "many")),
            (2, ("local", "tree", self.remote, "--exclude", "!")),
        ):
            result = self.run_command("sync", *words)
            self.assertEqual((result.exit_code, result.stdout), (status, ""), words)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertIn("upload takes files", self.run_command("sync", "local", "tree/a", self.remote).stderr)
        result = self.run_command("sync", "local", "tree", self.remote, FILEEXPORT_TOKEN=READER)
        self.assertEqual(result.exit_code, 6)
        self.assertEqual({path.name for path in self.there.iterdir()}, {"f"})

    def test_progress(self) -> None:
        """--progress says nothing where nobody looks, and adds nothing to what is done."""
        self.done("sync", "local", "tree", self.remote, "--progress")
        self.assertEqual(snapshot(self.there), snapshot(self.tree))


class InterruptedTests(CliCase):
    """Ctrl-C."""

    def test_summary(self) -> None:
        """The summary is the last line then too, with what was done so far."""
        fill(self.here, {f"tree/{number}": b"1" for number in range(3)})
        lines = []

        def interrupt(*_: object) -> None:
            lines.append(1)
            raise KeyboardInterrupt

        self.patch(Output, "action", interrupt)
        *_, error, summary = self.events("sync", "local", "tree", self.remote, status=130)
        self.assertEqual((error["event"], error["name"]), ("error", "KeyboardInterrupt"))
        self.assertEqual((summary["event"], summary["exit"]), ("summary", 130))
        self.assertEqual((summary["directories"], summary["files"], summary["dry_run"]), (0, 1, False))
        self.assertEqual(len(lines), 1)


class VerifyTests(CliCase):
    """`verify` of trees with links."""

    def setUp(self) -> None:
        super().setUp()
        fill(self.here, TREE)
        fill(self.there, TREE, MTIME + 1)

    def test_links(self) -> None:
        """Links are compared by what they lead to; those that lead outside cannot be, which is status 9."""
        self.assertEqual(self.done("verify", ".", self.remote).stdout, "3 files compared: equal\n")
        for base in (self.here, self.there):
            (base / "out").symlink_to("../x")
        result = self.run_command("verify", ".", self.remote)
        why = "the link leads outside, or has .. behind a name"
        self.assertEqual((result.exit_code, result.stderr), (9, f"Left out: ./out: {why}\n"))
        (self.there / "d/l").unlink()
        fill(self.there, {"d/l": Link("big"), "new": Link("a")})
        result = self.run_command("verify", ".", self.remote)
        self.assertEqual((result.exit_code, result.stdout), (8, "differs: d/l\nonly there: new\n"))

    def test_sides(self) -> None:
        """What cannot be compared is named by its side, and kinds by words that there are."""
        (self.there / "out").symlink_to("/x")
        os.mkfifo(self.there / "a2")
        fill(self.here, {"a2": b"1"})
        result = self.run_command("verify", ".", self.remote)
        self.assertEqual((result.exit_code, result.stdout), (8, "a file here, something else there: a2\n"))
        self.assertRegex(result.stderr, f"^Left out: {self.remote}/out: the link leads outside.*\n$")

    def test_selected(self) -> None:
        """What a synchronisation with the same patterns leaves alone is not compared."""
        fill(self.here, {".gitignore": b"*.o\n", "x.o": b"1", "d/y.o": b"2", "z.log": b"3", "build/f": b"1"})
        fill(self.there, {"mine.log": b"4", "z.log": b"33", "d/w.o": b"5"})
        words = ("--gitignore", "--exclude", "*.log", "--exclude", "build/", "--include", "y.o")
        self.run_command("sync", "local", ".", self.remote, *words)
        result = self.done("verify", ".", self.remote, *words)
        self.assertEqual(result.stdout, "5 files compared: equal\n")
        fill(self.there, {"d/y.o": b"X"})
        result = self.run_command("verify", ".", self.remote, *words)
        self.assertEqual((result.exit_code, result.stdout), (8, "differs: d/y.o\n"))
        result = self.run_command("verify", ".", self.remote, "--exclude", "!")
        self.assertEqual((result.exit_code, result.stdout), (2, ""))
        self.assertEqual(self.run_command("verify", ".", self.remote).exit_code, 8)

    def test_same_size_and_time(self) -> None:
        """Contents are read on both sides, whatever sizes and times say and the server remembers."""
        self.done("verify", ".", self.remote)
        other = BIG[::-1]
        fill(self.there, {"d/big": other}, MTIME + 1)
        self.assertEqual(self.run_command("verify", ".", self.remote).stdout, "differs: d/big\n")
