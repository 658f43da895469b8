"""`upload` and `download` against a daemon: what goes where, conflicts, excludes, what is left out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SkipTest

from fileexport.client.blocking import Client
from fileexport.client.names import RemoteEntry
from tests.cli_case import NO_SOURCE, READER, CliCase, fill, tree

BIG = os.urandom(300_000)
TREE: dict[str, bytes | str | None] = {"d/a": "1", "d/e/big": BIG, "d/e/b": "2", "d/empty": None}


class UploadTests(CliCase):
    """`upload`."""

    def test_file(self) -> None:
        """A file of any size arrives under its name, with its time."""
        fill(self.here, {"small": "1", "empty": "", "big": BIG})
        os.utime(self.here / "big", ns=(1, 1_500_000_000_123_456_789))
        for name in ("small", "empty", "big"):
            result = self.done("upload", name, self.remote)
            self.assertRegex(result.stdout, r"^uploaded 1 file, [0-9.]+ K?B in [0-9.]+ s\n$")
        self.assertEqual(tree(self.there), tree(self.here))
        self.assertEqual((self.there / "big").stat().st_mtime_ns, 1_500_000_000_123_456_789)

    def test_root(self) -> None:
        """With one argument the destination is the root."""
        name = f"{self.there.name}.root"
        fill(self.here, {name: "1"})
        self.done("upload", name)
        path = self.there.parent / name
        self.assertEqual(path.read_text(), "1")
        path.unlink()

    def test_several(self) -> None:
        """Each source is tried; the first failure decides the status."""
        fill(self.here, {"a": "1", "b": "2", "big": BIG})
        result = self.run_command("upload", "a", "none", "b", "big", self.remote)
        self.assertEqual((result.exit_code, result.stderr), (4, f"Error: none: {NO_SOURCE}\n"))
        self.assertEqual(tree(self.there), tree(self.here))

    def test_tree(self) -> None:
        """-r takes a directory with its name and all that lies in it."""
        fill(self.here, TREE)
        result = self.done("upload", "-r", "d", self.remote)
        self.assertTrue(result.stdout.startswith("uploaded 3 files, 300 KB in "))
        self.assertEqual(tree(self.there), tree(self.here))

    def test_contents(self) -> None:
        """A dot is the contents of the directory; a slash at the end of a name changes nothing."""
        fill(self.here, TREE)
        self.done("upload", "-r", ".", self.remote)
        self.assertEqual(tree(self.there), tree(self.here))
        self.done("remove", "-r", f"{self.remote}/d")
        self.done("upload", "-r", "d/", self.remote)
        self.assertEqual(tree(self.there), tree(self.here))

    def test_no_recursion(self) -> None:
        """A directory without -r is left out and named; the rest goes, and the status is 9."""
        fill(self.here, {**TREE, "f": "1"})
        result = self.run_command("upload", "d", "f", self.remote)
        self.assertEqual((result.exit_code, result.stderr), (9, "Left out: d: a directory needs -r\n"))
        self.assertEqual(tree(self.there), {"f": "1"})

    def test_left_out(self) -> None:
        """Links, FIFOs and names that may not be created are left out of a directory, each named."""
        fill(self.here, {"d/a": "1", "d/no:name": "2", "d/no?dir/x": "3"})
        (self.here / "d/link").symlink_to("a")
        os.mkfifo(self.here / "d/fifo")
        result = self.run_command("upload", "-r", "d", self.remote)
        self.assertEqual(result.exit_code, 9)
        self.assertEqual(
            sorted(result.stderr.splitlines()),
            [
                f"Left out: {self.remote}/d/no:name: the name is not valid",
                f"Left out: {self.remote}/d/no?dir: the name is not valid",
                "Left out: d/fifo: it is neither a file nor a directory",
                "Left out: d/link: it is a link",
            ],
        )
        self.assertEqual(tree(self.there), {"d": None, "d/a": "1"})

    def test_named_link(self) -> None:
        """A link that is named itself is followed."""
        fill(self.here, TREE)
        (self.here / "l").symlink_to("d/a")
        (self.here / "m").symlink_to("d")
        self.done("upload", "-r", "l", "m", self.remote)
        found = tree(self.there)
        self.assertEqual((found["l"], found["m/a"]), ("1", "1"))

    def test_name(self) -> None:
        """A single file whose name may not be created is a wrong usage."""
        fill(self.here, {"no:name": "1"})
        line = f"{self.remote}/no:name: the name is not valid: choose another name"
        self.refused(2, line, "upload", "no:name", self.remote)
        fill(self.here, {"a": "2", "b": "3"})
        result = self.run_command("upload", "a", "no:name", "b", self.remote)
        self.assertEqual((result.exit_code, result.stderr), (2, f"Error: {line}\n"))
        self.assertEqual(tree(self.there), {"a": "2", "b": "3"})

    def test_unreadable(self) -> None:
        """What cannot be read is an error that names the local file; the rest goes."""
        fill(self.here, {"d/a": "1", "d/b": "2"})
        (self.here / "d/b").chmod(0)
        if os.access(self.here / "d/b", os.R_OK):
            raise SkipTest("whoever runs this test can read every file")
        result = self.run_command("upload", "-r", "d", self.remote)
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (6, 1), result.stderr)
        self.assertEqual(tree(self.there), {"d": None, "d/a": "1"})

    def test_exclude(self) -> None:
        """gitignore patterns, seen from the directory that is named."""
        fill(
            self.here,
            {"d/a.o": "", "d/b.c": "", "d/build/x": "", "d/e/build/x": "", "d/e/keep.o": "", "f.o": ""},
        )
        patterns = ("*.o", "/build/", "!keep.o")
        words = [word for pattern in patterns for word in ("--exclude", pattern)]
        self.done("upload", "-r", *words, "d", "f.o", self.remote)
        self.assertEqual(
            [name for name, content in tree(self.there).items() if content is not None],
            ["d/b.c", "d/e/build/x", "d/e/keep.o"],
        )

    def test_mistakes(self) -> None:
        """A missing destination is 3, a file as one 3, a relative one 2; a token that may not write 6."""
        fill(self.here, {"a": "1", "b": "2"})
        fill(self.there, {"f": "1"})
        none = f"{self.remote}/none"
        result = self.run_command("upload", "a", none)
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (3, 1), result.stderr)
        line = f"{none}: there is no such destination directory: create it first"
        self.refused(3, line, "upload", "a", "b", none)
        for status, destination in ((3, f"{self.remote}/f"), (2, "relative")):
            for sources in (("a",), ("a", "b")):
                result = self.run_command("upload", *sources, destination)
                self.assertEqual(
                    (result.exit_code, len(result.stderr.splitlines())), (status, 1), result.stderr
                )
        result = self.run_command("upload", "a", self.remote, FILEEXPORT_TOKEN=READER)
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (6, 1), result.stderr)
        self.assertEqual(tree(self.there), {"f": "1"})

    def test_programs(self) -> None:
        """Each entry is an event, and the summary has the totals."""
        fill(self.here, TREE)
        (self.here / "d/link").symlink_to("a")
        *actions, summary = self.events("upload", "-r", "d", self.remote, status=9)
        found = {(event["action"], event["path"], event["bytes"]) for event in actions}
        self.assertEqual(
            found,
            {
                ("left_out", "d/link", 0),
                ("make_directory", f"{self.remote}/d", 0),
                ("make_directory", f"{self.remote}/d/e", 0),
                ("make_directory", f"{self.remote}/d/empty", 0),
                ("upload", f"{self.remote}/d/a", 1),
                ("upload", f"{self.remote}/d/e/b", 1),
                ("upload", f"{self.remote}/d/e/big", len(BIG)),
            },
        )
        self.assertGreaterEqual(summary.pop("seconds"), 0)
        totals = {"files": 3, "directories": 3, "bytes": len(BIG) + 2, "left_out": 1, "errors": 0, "exit": 9}
        self.assertEqual(summary, {"event": "summary", **totals})

    def test_quiet(self) -> None:
        """--quiet says nothing of success."""
        fill(self.here, {"a": "1"})
        self.assertEqual(self.done("upload", "--quiet", "a", self.remote).stdout, "")

    def test_many(self) -> None:
        """Thousands of small files arrive, each as it is."""
        files: dict[str, bytes | str | None] = {f"d/{n % 50}/{n}": str(n) * (n % 7) for n in range(3000)}
        fill(self.here, files)
        self.done("upload", "-r", "d", self.remote)
        self.assertEqual(tree(self.there), tree(self.here))


class ConflictTests(CliCase):
    """`--conflict`, both ways."""

    def setUp(self) -> None:
        super().setUp()
        fill(self.here, {"d/a.txt": "new", "d/b": "new", "d/big": BIG})
        fill(self.there, {"d/a.txt": "old", "d/other": "old", "d/big": "old"})

    def test_abort(self) -> None:
        """By default the first existing name ends its source before anything of it was sent; others go."""
        fill(self.here, {"f": "1"})
        before = tree(self.there)
        line = f"{self.remote}/d/a.txt: it exists already: choose --conflict skip, replace or rename"
        self.refused(6, line, "upload", "-r", "d", self.remote)
        self.assertEqual(tree(self.there), before)
        result = self.run_command("upload", "-r", "d", "f", self.remote)
        self.assertEqual((result.exit_code, result.stderr), (6, f"Error: {line}\n"))
        self.assertEqual(tree(self.there), {**before, "f": "1"})

    def test_skip(self) -> None:
        """skip sends the others."""
        result = self.done("upload", "-r", "--conflict", "skip", "d", self.remote)
        self.assertTrue(result.stdout.endswith(", 2 skipped\n"), result.stdout)
        names = {"d": None, "d/a.txt": "old", "d/b": "new", "d/big": "old", "d/other": "old"}
        self.assertEqual(tree(self.there), names)

    def test_replace(self) -> None:
        """replace sends all, and leaves what it does not have."""
        self.done("upload", "-r", "--conflict", "replace", "d", self.remote)
        self.assertEqual(tree(self.there), {**tree(self.here), "d/other": "old"})

    def test_rename(self) -> None:
        """rename takes the first free number, before the suffix; each time another."""
        for number in (1, 2):
            self.done("upload", "-r", "--conflict", "rename", "d", self.remote)
            self.assertEqual((self.there / f"d/a ({number}).txt").read_text(), "new")
            self.assertEqual((self.there / f"d/big ({number})").read_bytes(), BIG)
        self.assertEqual((self.there / "d/a.txt").read_text(), "old")

    def test_single(self) -> None:
        """A single file follows the same rules."""
        fill(self.there, {"b": "old"})
        line = f"{self.remote}/b: it exists already: choose --conflict skip, replace or rename"
        self.refused(6, line, "upload", "d/b", self.remote)
        self.done("upload", "d/b", self.remote, "--conflict", "skip")
        self.assertEqual((self.there / "b").read_text(), "old")
        self.done("upload", "d/b", self.remote, "--conflict", "rename")
        self.assertEqual((self.there / "b (1)").read_text(), "new")
        self.done("upload", "d/b", self.remote, "--conflict", "replace")
        self.assertEqual((self.there / "b").read_text(), "new")

    def test_same_content(self) -> None:
        """An existing name is a conflict whatever it holds."""
        fill(self.there, {"b": "new"})
        line = f"{self.remote}/b: it exists already: choose --conflict skip, replace or rename"
        self.refused(6, line, "upload", "d/b", self.remote)

    def test_same_target(self) -> None:
        """Two sources of one name are a conflict of their own."""
        fill(self.here, {"x/n": "1", "y/n": "2"})
        line = f"{self.remote}/n: it exists already: choose --conflict skip, replace or rename"
        result = self.run_command("upload", "x/n", "y/n", self.remote)
        self.assertEqual((result.exit_code, result.stderr), (6, f"Error: {line}\n"))
        self.done("upload", "x/n", "y/n", self.remote, "--conflict", "rename")
        self.assertEqual((self.there / "n").read_text(), "1")
        self.assertEqual({(self.there / f"n ({n})").read_text() for n in (1, 2)}, {"1", "2"})

    def test_kinds(self) -> None:
        """A directory is never replaced by a file, nor a file by a directory."""
        fill(self.here, {"x/d": "1", "f/inner": "1"})
        fill(self.there, {"f": "old"})
        for policy in ("abort", "replace"):
            for source in ("x/d", "f"):
                result = self.run_command("upload", "-r", "--conflict", policy, source, self.remote)
                self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (6, 1), result.stderr)
        self.assertEqual((self.there / "d/a.txt").read_text(), "old")
        self.assertEqual((self.there / "f").read_text(), "old")

    def test_download(self) -> None:
        """The local side has the same rules."""
        fill(self.there, {"d/n": "there"})
        source = f"{self.remote}/d"
        line = f"{self.here}/d/a.txt: it exists already: choose --conflict skip, replace or rename"
        self.refused(6, line, "download", "-r", source, str(self.here))
        self.assertFalse((self.here / "d/n").exists())
        self.done("download", "-r", source, "--conflict", "skip")
        self.done("download", "-r", source, "--conflict", "rename")
        self.done("download", "-r", source, "--conflict", "replace")
        self.assertEqual(
            tree(self.here),
            {
                **{"d": None, "d/a.txt": "old", "d/a (1).txt": "old", "d/b": "new", "d/big": "old"},
                **{"d/big (1)": "old", "d/n": "there", "d/n (1)": "there"},
                **{"d/other": "old", "d/other (1)": "old"},
            },
        )


class DownloadTests(CliCase):
    """`download`."""

    def test_file(self) -> None:
        """A file of any size arrives under its name, with its time; a relative source is from the root."""
        fill(self.there, {"small": "1", "empty": "", "big": BIG})
        os.utime(self.there / "small", ns=(1, 1_500_000_000_123_456_789))
        for name in ("small", "empty", "big"):
            self.done("download", f"{self.there.name}/{name}")
        self.assertEqual(tree(self.here), tree(self.there))
        self.assertEqual((self.here / "small").stat().st_mtime_ns, 1_500_000_000_123_456_789)

    def test_tree(self) -> None:
        """-r takes a directory with its name and all that lies in it; without, it is left out."""
        fill(self.there, TREE)
        result = self.run_command("download", f"{self.remote}/d")
        self.assertEqual(
            (result.exit_code, result.stderr), (9, f"Left out: {self.remote}/d: a directory needs -r\n")
        )
        self.done("download", "-r", f"{self.remote}/d", ".")
        self.assertEqual(tree(self.here), tree(self.there))

    def test_globs(self) -> None:
        """Globs are the server's names; with -r two stars go down."""
        fill(self.there, {"a.txt": "1", "b.txt": "2", ".c.txt": "3", "d/e/f.txt": "4", "d/g.csv": "5"})
        self.done("download", f"{self.remote}/*.txt")
        self.assertEqual(sorted(tree(self.here)), ["a.txt", "b.txt"])
        self.done("download", "-r", f"{self.remote}/**/f.*", f"{self.remote}/d/[g].csv", ".")
        self.assertEqual(sorted(tree(self.here)), ["a.txt", "b.txt", "f.txt", "g.csv"])

    def test_glob_directories(self) -> None:
        """A directory that matches comes whole, and once."""
        fill(self.there, TREE)
        self.done("download", "-r", f"{self.remote}/**", ".")
        self.assertEqual(tree(self.here), tree(self.there))

    def test_literal(self) -> None:
        """A name with a bracket that is there is no glob."""
        fill(self.there, {"a[1].txt": "1", "a1.txt": "2"})
        self.done("download", f"{self.remote}/a[1].txt")
        self.assertEqual(tree(self.here), {"a[1].txt": "1"})

    def test_odd_names(self) -> None:
        """Whatever the server's disk holds can be fetched."""
        fill(self.there, {"d/n\x1b\udcff:?": "1", "d/ä\n": "2"})
        self.done("download", "-r", f"{self.remote}/d")
        self.assertEqual(tree(self.here), tree(self.there))

    def test_links(self) -> None:
        """Links in a directory are left out and named; one that is named itself is followed."""
        fill(self.there, {"d/a": "1"})
        (self.there / "d/l").symlink_to("a")
        (self.there / "m").symlink_to("d")
        result = self.run_command("download", "-r", f"{self.remote}/d")
        self.assertEqual(
            (result.exit_code, result.stderr), (9, f"Left out: {self.remote}/d/l: it is a link\n")
        )
        self.done("download", f"{self.remote}/d/l")
        self.run_command("download", "-r", f"{self.remote}/m")
        self.assertEqual(tree(self.here), {"d": None, "d/a": "1", "l": "1", "m": None, "m/a": "1"})

    def test_local_link(self) -> None:
        """What is fetched stays below the destination, also where a local link leads out of it."""
        fill(self.there, {"d/a": "1"})
        fill(self.here, {"out": None, "in": None})
        (self.here / "in/d").symlink_to("../out")
        for policy in ("abort", "replace", "skip"):
            self.run_command("download", "-r", "--conflict", policy, f"{self.remote}/d", "in")
        self.assertEqual(list((self.here / "out").iterdir()), [])

    def test_exclude(self) -> None:
        """Excluded directories are not fetched, nor what lies in them."""
        fill(self.there, {"d/a.o": "", "d/b": "", "d/build/x/y": "", "d/e/c": ""})
        self.done("download", "-r", "--exclude", "*.o", "--exclude", "build/", f"{self.remote}/d")
        self.assertEqual(sorted(tree(self.here)), ["d", "d/b", "d/e", "d/e/c"])

    def test_mistakes(self) -> None:
        """A missing source is 4, so is a glob that finds nothing; a missing directory here is 3."""
        fill(self.there, {"a": "1"})
        none = f"{self.remote}/none"
        self.refused(4, f"{none}: {NO_SOURCE}", "download", none)
        self.refused(4, f"{none}*: nothing matches", "download", f"{none}*")
        line = "none: there is no such destination directory: create it first"
        self.refused(3, line, "download", f"{self.remote}/a", "none")
        result = self.run_command("download", "../a")
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (2, 1))

    def test_several(self) -> None:
        """Each source is tried; the first failure decides the status."""
        fill(self.there, {"a": "1", "b": "2"})
        none = f"{self.remote}/none"
        result = self.run_command("download", f"{self.remote}/a", none, f"{self.remote}/b", ".")
        self.assertEqual((result.exit_code, result.stderr), (4, f"Error: {none}: {NO_SOURCE}\n"))
        self.assertEqual(tree(self.here), tree(self.there))

    def test_globs_each(self) -> None:
        """A glob in a directory that may not be listed is an error of its own; other sources go."""
        fill(self.there, {"a": "1", "closed/f": "2"})
        ask = Client.entries

        def entries(client: Client, directory: str, *words: Any, **how: Any) -> Iterator[RemoteEntry]:
            if directory == f"{self.remote}/closed":
                raise PermissionError(errno.EACCES, "permission denied", directory)
            return ask(client, directory, *words, **how)

        self.patch(Client, "entries", entries)
        glob = f"{self.remote}/closed/*"
        result = self.run_command("download", glob, f"{self.remote}/a", ".")
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (6, 1), result.stderr)
        self.assertTrue(result.stderr.startswith(f"Error: {glob}: permission denied: "), result.stderr)
        self.assertEqual(tree(self.here), {"a": "1"})

    def test_programs(self) -> None:
        """With --progress there are events of it too, never more than a few; the summary is last."""
        fill(self.there, TREE)
        events = self.events("download", "-r", "-p", f"{self.remote}/d")
        self.assertEqual(events[-1]["event"], "summary")
        self.assertEqual((events[-1]["files"], events[-1]["bytes"]), (3, len(BIG) + 2))
        actions = {event["path"] for event in events if event["event"] == "action"}
        self.assertEqual(actions, {f"./{name}" for name in tree(self.there)})
