"""Programs that people have: rclone lists and copies, curl resumes and sends forms, wget takes a tree."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tests.proof.asking import curl
from tests.proof.browser_files import ODD_NAMES
from tests.proof.commands import DaemonCase, run
from tests.proof.daemon import Daemon
from tests.proof.page import tree
from tests.proof.process import MIB

#: What rclone passes over: decoded, it is no link to a file; and the second of two that look alike.
_LEFT_OUT = (b"http:", "cafe\u0301".encode())


class RcloneTests(DaemonCase):
    """rclone's http remote."""

    if shutil.which("rclone") is None:
        skip = "rclone is not installed (Debian's package of that name)"

    def rclone(self, *words: str) -> bytes:
        """What rclone prints, with no configuration of anybody's."""
        done = run("rclone", "--config", os.devnull, "--http-url", self.daemon.url, *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_copy(self) -> None:
        """A tree with odd names is listed and copied; the copies are equal, and have the times."""
        names = [name for name in ODD_NAMES if name not in _LEFT_OUT]
        for name in names:
            self.write(f"root/{os.fsdecode(name)}.txt", name)
            self.write(f"root/two words/{os.fsdecode(name)}.txt", name * 2)
        (self.root / "large.bin").write_bytes(os.urandom(3 * MIB))
        # Whole seconds are all that HTTP's dates have.
        for path in self.root.rglob("*"):
            os.utime(path, (1_700_000_000, 1_700_000_000))
        self.daemon = self.enterContext(Daemon(self.root, "--hidden"))
        listed = json.loads(self.rclone("lsjson", "-R", "--files-only", ":http:"))
        # JSON holds no name that is not UTF-8.
        files = (os.fsencode(name) for name, held in tree(self.root).items() if held is not None)
        wanted = {name.decode("utf-8", "replace") for name in files}
        self.assertEqual({entry["Path"] for entry in listed}, wanted)
        self.rclone("copy", ":http:", str(self.base / "copy"))
        self.assertEqual(tree(self.base / "copy"), tree(self.root))
        self.assertEqual((self.base / "copy/large.bin").stat().st_mtime, 1_700_000_000)


class CurlTests(DaemonCase):
    """curl, beside what is put with it."""

    def setUp(self) -> None:
        super().setUp()
        self.daemon = self.enterContext(Daemon(self.root))

    def test_resume(self) -> None:
        """`curl -C -` goes on with what a download left, and only asks for the rest."""
        content = os.urandom(3 * MIB)
        self.write("root/large.bin", content)
        part = self.write("here/large.bin", content[: MIB + 7])
        done = curl(
            "-C", "-", "-o", part, "-w", "%{http_code} %{size_download}", f"{self.daemon.url}large.bin"
        )
        self.assertEqual(done.stdout.decode(), f"206 {2 * MIB - 7}")
        self.assertEqual(part.read_bytes(), content)

    def test_forms(self) -> None:
        """`curl -F` sends files of any number and name: stored under their own, or under another's."""
        (self.root / "d").mkdir()
        files = [self.write(f"here/{number} of & them.txt", b"%d" % number) for number in range(5)]
        words = [word for file in files for word in ("-F", f"file=@{file}")]
        url = f"{self.daemon.url}d/"
        self.assertEqual(curl(*words, url).stdout.decode().splitlines()[0], "stored 5 files")
        self.assertEqual(tree(self.root / "d"), tree(self.base / "here"))
        again = curl("-w", " %{http_code}", *words[:2], url)
        self.assertTrue(again.stdout.endswith(b" 409"), again.stdout)
        curl(
            "-F",
            "conflict=rename",
            "-F",
            f"file=@{files[0]}",
            "-F",
            f"file=@{files[1]};filename=new/n.txt",
            url,
        )
        found = tree(self.root / "d")
        self.assertEqual((found["0 of & them (1).txt"], found["new/n.txt"]), (b"0", b"1"))
        curl("-F", "entry=new/", "-F", "confirm=1", f"{self.daemon.url}-/remove/d")
        self.assertFalse((self.root / "d" / "new").exists())

    def test_put(self) -> None:
        """`curl -T` of many files at once, and of a directory's path, where it adds the name."""
        files = [self.write(f"here/{number}.txt", b"%d" % number) for number in range(20)]
        here = ",".join(map(str, files))
        self.assertEqual(curl("-f", "-T", f"{{{here}}}", self.daemon.url).returncode, 0)
        self.assertEqual(tree(self.root), tree(self.base / "here"))


class WgetTests(DaemonCase):
    """wget, of a whole tree."""

    def test_tree(self) -> None:
        """`wget -r` takes every file once, and asks for no page in another order."""
        for name in ("a.txt", "two words/b & c.txt", "two words/d/e.txt"):
            self.write(f"root/{name}", name.encode())
        with Daemon(self.root) as daemon:
            to: Path = self.base / "mirror"
            words = (
                "-r",
                "-np",
                "-nH",
                "-q",
                "--no-config",
                "--no-proxy",
                "-R",
                "index.html*",
                "-P",
                str(to),
            )
            self.assertEqual(run("wget", *words, daemon.url).returncode, 0)
            self.assertNotIn("sort=", daemon.output)
        found = {
            name: held for name, held in tree(to).items() if not name.startswith("-") and held is not None
        }
        self.assertEqual(found, {name: held for name, held in tree(self.root).items() if held is not None})
