"""What is known of a path to who may change it."""

from __future__ import annotations

import os
from pathlib import Path

from fileexport.disk.jail import Jail
from fileexport.errors import FileNameError, NotGranted
from fileexport.exports import Exports
from fileexport.paths import RelPath
from fileexport.tokens import Principal, Right
from tests.hostile import NEIGHBOUR, SECRET, UNDER, VECTORS, build
from tests.test_exports import ALL, ExportsCase, P, principal


class KnownTests(ExportsCase):
    """`known`: by what a conditional change is decided."""

    def test_right(self) -> None:
        """Who may write or delete need not read; who only reads has nothing to change."""
        self.write("a")
        for right in (Right.WRITE, Right.DELETE):
            found = self.exports.known(principal(rights=right), P("a"))
            self.assertEqual(found and found.st_size, 1)
        for right in (Right.READ, Right.ADMIN):
            with self.assertRaises(NotGranted):
                self.exports.known(principal(rights=right), P("a"))

    def test_kinds(self) -> None:
        """A file, a directory, what a link leads to, a link that leads nowhere or outside, nothing."""
        self.write("d/long-name")
        for name, target in (("link", "d/long-name"), ("lost", "no"), ("out", "/etc/passwd"), ("up", "../x")):
            (self.root / name).symlink_to(target)
        known = {
            name: self.exports.known(ALL, P(name))
            for name in ("d/long-name", "d", "link", "lost", "out", "up", "none", "no/thing", "d/long-name/x")
        }
        inodes = {name: found and found.st_ino for name, found in known.items()}
        file, directory = (self.root / "d/long-name").stat().st_ino, (self.root / "d").stat().st_ino
        links = {name: (self.root / name).lstat().st_ino for name in ("lost", "out", "up")}
        nothing = dict.fromkeys(("none", "no/thing", "d/long-name/x"))
        self.assertEqual(inodes, {"d/long-name": file, "link": file, "d": directory, **links, **nothing})

    def test_exported_directories(self) -> None:
        """An exported directory and what is above it are directories, whatever is on the disk."""
        self.write("a/b/c", "x")
        exports = self.exporting("a/b")
        for path in ("/", "a", "a/b"):
            with self.assertRaises(IsADirectoryError):
                exports.known(ALL, P(path))
        self.assertIsNotNone(exports.known(ALL, P("a/b/c")))
        self.assertIsNone(exports.known(ALL, P("x")))
        self.assertIsNone(self.exports.known(principal("a"), P("x")))

    def test_hidden(self) -> None:
        """What a caller does not see is not known."""
        self.write(".env")
        self.assertIsNone(self.exports.known(Principal.anonymous(Right.ALL), P(".env")))
        self.assertIsNotNone(self.exports.known(ALL, P(".env")))

    def test_hostile(self) -> None:
        """No path makes anything known that lies outside, or in another's part."""
        work = Path(self.mktemp())
        build(work / "root", work / "outside")
        jail = Jail(str(work / "root"))
        self.addCleanup(jail.close)
        exports = Exports(jail)
        for who, markers in ((ALL, (SECRET,)), (principal(UNDER), (SECRET, NEIGHBOUR))):
            forbidden = inodes(work, markers)
            self.assertGreaterEqual(len(forbidden), 3)
            count = 0
            for vector in VECTORS:
                try:
                    found = exports.known(who, RelPath.parse(vector.path))
                except (OSError, FileNameError):
                    continue
                self.assertNotIn(found and (found.st_dev, found.st_ino), forbidden, vector.label)
                count += found is not None
            self.assertGreaterEqual(count, 3)


def inodes(directory: Path, markers: tuple[str, ...]) -> set[tuple[int, int]]:
    """The files below a directory that hold one of these."""
    found = set()
    for above, _, names in os.walk(directory):
        for path in (Path(above, name) for name in names):
            if path.is_file() and not path.is_symlink() and path.read_text("latin-1") in markers:
                found.add((path.stat().st_dev, path.stat().st_ino))
    return found
