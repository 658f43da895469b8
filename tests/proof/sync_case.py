"""What the proofs of synchronisation share: two trees, how they are compared, what a command says it did."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.proof.counts import SOAK
from tests.proof.cut_proxy import CutProxy
from tests.proof.proxy import Way
from tests.proof.transfer_case import TransferCase, content, digest

#: Seconds for one command.
PATIENCE = 600.0
#: Actions that announce content.
CONTENT = frozenset(("send", "update"))
_LIBRARY = Path(sysconfig.get_path("stdlib"))
#: Left out of the small tree: what is compiled or installed, and the library's own tests.
_LEFT_OUT = ("site-packages", "dist-packages", "config-*", *(() if SOAK else ("__pycache__", "test")))


class Said(NamedTuple):
    """What a command said with ``--json``: its status and its events by their kind, stderr beside them."""

    status: int
    actions: list[tuple[str, str, int]]
    errors: list[dict[str, Any]]
    summary: dict[str, Any]
    stderr: str

    @property
    def content(self) -> int:
        """Bytes of files that it says it sent."""
        return sum(size for kind, _, size in self.actions if kind in CONTENT)

    def named(self, kind: str) -> set[str]:
        """The paths of actions of that kind."""
        return {path for action, path, _ in self.actions if action == kind}


def heard(status: int, stdout: str, stderr: str = "") -> Said:
    """Read what a command said. Its last line may be cut, where it was killed."""
    said = Said(status, [], [], {}, stderr)
    for line in stdout.splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        event = json.loads(line)
        if event["event"] == "action":
            said.actions.append((event["action"], event["path"], event["bytes"]))
        elif event["event"] == "error":
            said.errors.append(event)
        elif event["event"] == "summary":
            said.summary.update(event)
    return said


def facts(directory: Path) -> dict[str, tuple[object, ...]]:
    """All that a synchronisation makes equal: of each entry its kind, mode, size, time, and content."""
    found: dict[str, tuple[object, ...]] = {".": _facts(directory)}
    for top, directories, files in os.walk(directory):
        if Path(top) == directory and ".fileexport" in directories:
            directories.remove(".fileexport")
        for name in (*directories, *files):
            path = Path(top, name)
            found[str(path.relative_to(directory))] = _facts(path)
    return found


def _facts(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return ("link", os.readlink(path))
    if stat.S_ISDIR(status.st_mode):
        return ("directory", mode, status.st_mtime_ns)
    if not stat.S_ISREG(status.st_mode):
        return ("other",)
    return ("file", mode, status.st_mtime_ns, status.st_size, digest(path) if status.st_size else b"")


def library(target: Path) -> Path:
    """Copy the standard library: a tree as people have them, with times and modes; in a soak all of it."""
    ignored = shutil.ignore_patterns(*_LEFT_OUT)
    shutil.copytree(_LIBRARY, target, symlinks=True, ignore=ignored)
    for path in target.rglob("*"):
        # Links of a distribution may lead to what is not copied.
        if path.is_symlink():
            path.unlink()
    return target


def two_versions(old: Path, new: Path, small: int, large: int) -> None:
    """Two trees between which everything happens: `small` files of some kB, some files of `large` bytes.

    New ones, changed ones, gone ones, ones of another name, and one that has something put in front.
    """
    for tree in (old, new):
        for number in range(small // 4):
            put(tree / "same" / f"{number}", f"same-{number}", 2000 + number)
        put(tree / "same" / "large", "same", large)
    for number in range(small // 2):
        put(new / "new" / f"{number % 10}" / f"{number}", f"new-{number}", 4000 + number)
    for number in range(small // 8):
        put(old / "changed" / f"{number}", f"old-{number}", 5000)
        put(new / "changed" / f"{number}", f"changed-{number}", 5001)
        put(old / "gone" / f"{number}", f"gone-{number}", 3000)
        put(old / "before" / f"{number}", f"moved-{number}", 6000 + number)
        put(new / "after" / f"{number}", f"moved-{number}", 6000 + number)
    put(old / "before" / "large", "moved", large)
    put(new / "after" / "large", "moved", large)
    put(new / "new" / "large", "new", large)
    put(old / "longer", "longer", large)
    longer = put(new / "longer", "longer", large)
    longer.write_bytes(b"in front" + longer.read_bytes() + content("behind", large // 4))
    for path in (*new.rglob("*"), *(old / "same").rglob("*"), *(old / "before").rglob("*")):
        os.utime(path, (1, 1))


def put(path: Path, name: str, size: int) -> Path:
    """A file with the content that this name decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(name, size))
    return path


def renew(source: Path, target: Path) -> None:
    """Make `target` a copy of `source` with all its times, whatever was there."""
    if target.exists():
        shutil.rmtree(target)
    subprocess.run(("cp", "-a", "--", str(source), str(target)), check=True)


class SyncCase(TransferCase):
    """Has a daemon, a tree `here`, and the place `there` in its root."""

    options: Sequence[str] = ()
    durability = "fast"

    def setUp(self) -> None:
        super().setUp()
        self.here = self.base / "here"
        self.there = self.root / "there"
        self.server = self.daemon(*self.options, durability=self.durability)
        self.port = self.server.transfer_port

    def words(self, way: Way, *options: str) -> tuple[str, ...]:
        """`sync local here there`, or the other way, without the program's name."""
        ends = ("local", str(self.here), "/there") if way is Way.UP else ("remote", "/there", str(self.here))
        return ("sync", *ends, *options, "--json")

    def sync(
        self, way: Way, *options: str, port: int = 0, status: int | None = 0, environ: Mapping[str, str] = {}
    ) -> Said:
        """Run it to its end, with this status unless that is None; what it said."""
        environ = {**self.environ(port or self.port), **environ}
        done = self.command(environ, *self.words(way, *options), patience=PATIENCE)
        if status is not None:
            self.assertEqual(done.returncode, status, done.stderr[-2000:] + done.stdout[-1000:])
        return heard(done.returncode, done.stdout, done.stderr)

    def counted(self, way: Way, *options: str) -> tuple[Said, int]:
        """The same through a proxy: also how many bytes passed, both ways together."""
        with CutProxy(self.port) as proxy:
            said = self.sync(way, *options, port=proxy.port)
            return said, sum(proxy.passed(one) for one in Way)

    def verify(self, status: int = 0) -> str:
        """`verify` ends so; what it said."""
        done = self.command(self.environ(self.port), "verify", self.here, "/there", patience=PATIENCE)
        self.assertEqual(done.returncode, status, done.stderr[-2000:] + done.stdout[-2000:])
        return done.stdout + done.stderr

    def assert_equal_trees(self) -> None:
        """Both trees are the same, with times and modes, and `verify` says so."""
        self.assert_same(facts(self.here), facts(self.there))
        self.verify()

    def assert_same(self, ours: dict[str, tuple[object, ...]], theirs: dict[str, tuple[object, ...]]) -> None:
        """Two descriptions of trees are the same; the message names what differs, and not all the rest."""
        names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        shown = [f"{name}: {ours.get(name)} and {theirs.get(name)}" for name in names[:5]]
        self.assertEqual(len(names), 0, "\n".join(shown))
