"""Links that small changes make, move or meet: none leads outside, and none is followed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from fileexport.disk.jail import View
from fileexport.disk.resolve import Walk
from fileexport.errors import ConflictError, FileExportError
from fileexport.paths import MAX_DEPTH
from tests.hostile import SECRET, build
from tests.test_jail import P
from tests.test_steps import TIME, StepsCase


class LinkTests(StepsCase):
    """Links never lead outside, and nothing is changed through one."""

    def leads_out(self, function: Callable[..., object], *arguments: Any) -> None:
        error = self.assertRaises(ConflictError, function, *arguments)
        self.assertIn("outside", str(error))

    def test_texts(self) -> None:
        """Absolute ones, ones with too many `..`, and with `..` behind a name, are refused."""
        self.write("a/b/file")
        steps = self.steps()
        bad = ("", "/", "/etc", "..", "../x", "a/..", "a/../x", "./..", ".//../x", "x\0", "n/" * 2049)
        for text in bad:
            self.leads_out(steps.link, P("l"), text)
            self.leads_out(steps.link, P("l"), text, True)
        for text in ("../../..", "../../../x", "../a/../x", "../../x/../.."):
            self.leads_out(steps.link, P("a/b/l"), text)
        for number, text in enumerate(("../..", "../../x", "./.././../x//y", "x", ".", "...", "..x")):
            steps.link(P(f"a/b/{number}"), text)
        self.assertEqual(len(self.tree()), 3 + 7)

    def test_real_depth(self) -> None:
        """What counts is where a link really lies, not the path by which somebody came there."""
        self.write("d/e/f/file")
        (self.root / "d/e/f/top").symlink_to("../../../d")
        steps = self.steps()
        # Five names long, and one directory deep.
        self.leads_out(steps.link, P("d/e/f/top/l"), "../../x")
        steps.link(P("d/e/f/top/l"), "../x")
        self.assertEqual(os.readlink(self.root / "d/l"), "../x")
        (self.root / "near").symlink_to("d/e/f")
        steps.link(P("near/l"), "../../../x")
        self.assertEqual(os.readlink(self.root / "d/e/f/l"), "../../../x")

    def test_base(self) -> None:
        """The base of the view is the border, not that of the jail."""
        self.write("d/e/file")
        steps = self.steps(View(P("d")))
        self.leads_out(steps.link, P("e/l"), "../../x")
        self.leads_out(steps.link, P("l"), "../x")
        steps.link(P("e/l"), "../x")
        self.assertEqual(os.readlink(self.root / "d/e/l"), "../x")

    def test_moved(self) -> None:
        """What a move would turn outward stays, also in a directory; what it would not is moved."""
        self.write("a/b/c/file")
        (self.root / "a/b/l").symlink_to("../../x")
        (self.root / "a/out").symlink_to("/etc")
        steps = self.steps()
        self.leads_out(steps.move, P("a/b/l"), P("a/l"))
        self.leads_out(steps.move, P("a/b/l"), P("l"))
        self.leads_out(steps.move, P("a/b"), P("b"))
        steps.move(P("a/b/l"), P("a/b/c/l"))
        self.leads_out(steps.move, P("a/b/c"), P("c"))
        # It led outside before, and does not by this.
        steps.move(P("a/out"), P("out"))
        steps.move(P("a/b"), P("b"))
        steps.move(P("b/c/file"), P("file"))
        self.assertEqual(self.tree(), ["a", "b", "b/c", "b/c/l -> ../../x", "file", "out -> /etc"])

    def test_moved_deep(self) -> None:
        """A directory that is too deep to be looked through for links does not come nearer to the base."""
        here = os.open(self.root, os.O_RDONLY)
        for name in ("a", *["d"] * (MAX_DEPTH + 1)):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        self.assertRaises(ConflictError, self.steps().move, P("a/d"), P("d"))

    def test_moved_out(self) -> None:
        """In a directory that somebody moved out of the base no link is made."""
        (self.root / "d").mkdir()
        steps = self.steps()
        steps.make(P("d/x"))
        (self.root / "d").rename(self.root.parent / "away")
        self.refuses(errno.EACCES, steps.link, P("d/l"), "x")

    def test_not_followed(self) -> None:
        """A link as the last name is never followed, whatever it leads to."""
        outside = self.root.parent / "outside-file"
        outside.write_text(SECRET)
        before = outside.stat()
        (self.root / "out").symlink_to("../outside-file")
        file = self.write("file")
        (self.root / "in").symlink_to("file")
        steps = self.steps()
        for name in ("out", "in"):
            self.assertRaises(ConflictError, steps.set, P(name), TIME, 0o700)
        os.mkfifo(self.root / "fifo")
        self.refuses(errno.EACCES, steps.set, P("fifo"), TIME, 0o700)
        steps.remove(P("out"))
        steps.remove(P("in"))
        after = outside.stat()
        self.assertEqual((after.st_mtime_ns, after.st_mode), (before.st_mtime_ns, before.st_mode))
        self.assertNotEqual(file.stat().st_mtime_ns, TIME)

    def test_set_exchanged(self) -> None:
        """Nor one that takes a file's place between two looks."""
        outside = self.root.parent / "outside-file"
        outside.write_text(SECRET)
        outside.chmod(0o600)
        for is_readable in (True, False):
            self.write("file")

            jail = self.jailed(partial(self.exchange, is_readable))
            with self.assertRaises((OSError, ConflictError)):
                self.steps(jail=jail).set(P("file"), TIME, 0o777)
            (self.root / "file").unlink()
            self.assertEqual(outside.stat().st_mode & 0o777, 0o600)

    def exchange(self, is_readable: bool, name: str, arguments: tuple[Any, ...], keywords: object) -> None:
        """When the file is opened it is a link."""
        file = self.root / "file"
        if name == "open" and arguments[0] == "file" and not file.is_symlink():
            file.unlink()
            file.symlink_to("../outside-file")
            if not is_readable:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def test_hostile(self) -> None:
        """Whatever links are in a tree, no step through them or to them changes anything outside."""
        work = self.root.parent / "hostile"
        build(work / "root", work / "outside")
        jail = self.jailed(lambda *_: None, root=work / "root")
        links = [
            f"{base}/{name}" for base in ("links", "a/links") for name in os.listdir(work / "root" / base)
        ]

        def seen() -> dict[str, tuple[int, int, int]]:
            paths = [work / "outside", *(work / "outside").rglob("*")]
            stats = {str(path): path.lstat() for path in paths}
            return {path: (one.st_mtime_ns, one.st_mode, one.st_ino) for path, one in stats.items()}

        before, steps = seen(), self.steps(jail=jail)
        tries: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        for link in links:
            for path in (link, f"{link}/secret.txt", f"{link}/dir", f"{link}/new"):
                tries += [
                    (steps.make, (path,)),
                    (steps.link, (path, "x", False)),
                    (steps.set, (path, TIME, 0o777)),
                    (steps.move, ("file.txt", P(path), True)),
                    (steps.remove, (path,)),
                ]
        for step, (path, *rest) in tries:
            try:
                step(P(path), *rest)
            except (OSError, FileExportError):
                continue
        steps.finish()
        self.assertEqual(seen(), before)


class WalkLinkTests(LinkTests):
    """The same, one name at a time."""

    strategy = Walk
