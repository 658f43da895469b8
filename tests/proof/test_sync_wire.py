"""What passes on the wire when little has changed: counted by a proxy, both ways together."""

from __future__ import annotations

from pathlib import Path

from tests.proof.counts import SOAK
from tests.proof.process import KIB, MIB, say
from tests.proof.proxy import Way
from tests.proof.sync_case import SyncCase, facts
from tests.proof.transfer_case import content

#: Bytes of the large file, and files of the tree.
SIZE = 500_000_000 if SOAK else 20_000_000
FILES, FILE_SIZE = (3_000, 20 * KIB) if SOAK else (300, 20 * KIB)
#: Promised.
MOVED, INSERTED = 1_000_000, 2_000_000


class WireTests(SyncCase):
    """Each case both ways: the destination has the old tree, the source the new one."""

    def ends(self, way: Way) -> tuple[Path, Path]:
        """The source and the destination, both there."""
        ends = (self.here, self.there) if way is Way.UP else (self.there, self.here)
        for end in ends:
            end.mkdir()
        return ends

    def passes(self, what: str, way: Way, most: int) -> None:
        """So little passes, and the trees are equal then; afterwards there is nothing to do."""
        said, passed = self.counted(way, "--delete")
        self.assertLess(passed, most, f"{what}: {said.summary}")
        self.assert_same(facts(self.here), facts(self.there))
        again, idle = self.counted(way, "--delete")
        self.assertEqual(again.actions, [])
        say(f"{what}, {way.value}: {passed} bytes on the wire, {idle} when nothing has changed")

    def renamed_file(self, way: Way) -> None:
        source, _ = self.ends(way)
        (source / "old").write_bytes(content("large", SIZE))
        self.sync(way)
        (source / "old").rename(source / "new")
        self.passes(f"a file of {SIZE} bytes renamed", way, MOVED)

    def moved_tree(self, way: Way) -> None:
        source, _ = self.ends(way)
        for number in range(FILES):
            path = source / "before" / f"{number % 20}" / f"file-{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(path.name, FILE_SIZE + number))
        (source / "before" / "large").write_bytes(content("large", 10 * MIB))
        self.sync(way)
        (source / "after").mkdir()
        (source / "before").rename(source / "after" / "deeper")
        self.passes(f"a tree of {FILES} files moved", way, MOVED)

    def insertion(self, way: Way) -> None:
        source, destination = self.ends(way)
        old = content("large", SIZE)
        (destination / "file").write_bytes(old)
        (source / "file").write_bytes(b"in front" + old)
        self.passes(f"a file of {SIZE} bytes, 8 put in front", way, INSERTED)

    def test_renamed_file_up(self) -> None:
        """A large file that is renamed is not sent."""
        self.renamed_file(Way.UP)

    def test_renamed_file_down(self) -> None:
        """Nor does it come."""
        self.renamed_file(Way.DOWN)

    def test_moved_tree_up(self) -> None:
        """No file of a tree that is moved is sent."""
        self.moved_tree(Way.UP)

    def test_moved_tree_down(self) -> None:
        """Nor does one come."""
        self.moved_tree(Way.DOWN)

    def test_insertion_up(self) -> None:
        """What was put in front is sent, and little else."""
        self.insertion(Way.UP)

    def test_insertion_down(self) -> None:
        """So it is the other way."""
        self.insertion(Way.DOWN)

    def test_control(self) -> None:
        """The proxy counts: content that is new is sent."""
        self.here.mkdir()
        (self.here / "file").write_bytes(content("new", MIB))
        _, passed = self.counted(Way.UP)
        self.assertGreater(passed, MIB)
