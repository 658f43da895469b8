"""What every door promises, once: a test case takes a mixin and says how its door is opened.

The same behaviours run over HTTP and the transfer protocol in memory, and over the blocking client on
loopback (`tests.test_contract`). What goes wrong is compared by its sentence: those of `fileexport.errors`
reach a caller through each door.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tests.odd_names import ODD_NAMES

MISSING = "there is no such file or directory"
NO_DIRECTORY = "it is not a directory"
DIRECTORY = "it is a directory"
EXISTS = "it exists already"
DENIED = "the token does not grant this"
NO_FOLDER = "there is no such destination directory: create it first"
MTIME = 1_790_000_000_123_456_789


class Refused(Exception):
    """What a door answered instead: one sentence."""


class Door(Protocol):
    """One way in, for somebody with a token. Paths begin with a slash. Raises `Refused`."""

    def entries(self, directory: str) -> dict[str, tuple[str, int]]:
        """Type and size of each name."""

    def read(self, path: str) -> bytes: ...

    def remove(self, path: str) -> None:
        """Remove one file."""


class WritingDoor(Door, Protocol):
    """A door by which files come in, too."""

    def write(self, path: str, content: bytes, *, mtime_ns: int = MTIME, replace: bool = False) -> None: ...

    def make_directory(self, path: str) -> None: ...

    def rename(self, path: str, target: str) -> None: ...

    def hashes(self, path: str) -> dict[str, tuple[int, bytes]]:
        """Size and BLAKE3 of the file, or of each file below."""


class ReadingContract(ABC):
    """Listing, reading and deleting. `root` is the exported directory, `door` opens a way into it."""

    root: Path
    assertEqual: Callable[..., Any]
    assertNotIn: Callable[..., Any]
    fail: Callable[..., Any]

    @abstractmethod
    def door(self, options: str = "") -> Any:
        """A door for a token with these options of the token file."""

    def refusal(self, action: Callable[[], object]) -> str:
        """The sentence with which `action` is refused."""
        try:
            result = action()
        except Refused as refused:
            return str(refused)
        self.fail(f"nothing was refused, but there came {result!r}")
        return ""

    def put(self, path: str, content: bytes = b"") -> Path:
        """Make a file below the root, and the directories above it."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def test_entries(self) -> None:
        """A directory is listed with the type and size of each entry."""
        self.put("d/a", b"123")
        self.put("d/sub/below")
        (self.root / "d/link").symlink_to("a")
        found = self.door().entries("/d")
        self.assertEqual((found["a"], found["sub"][0], found["link"][0]), (("file", 3), "directory", "link"))
        self.assertEqual(sorted(found), ["a", "link", "sub"])

    def test_entries_of_what_is_none(self) -> None:
        """A directory that is not there, and a file, cannot be listed."""
        self.put("d/a")
        door = self.door()
        self.assertEqual(self.refusal(lambda: door.entries("/none")), MISSING)
        self.assertEqual(self.refusal(lambda: door.entries("/d/a")) in (MISSING, NO_DIRECTORY), True)

    def test_content(self) -> None:
        """What is read is what is there, whatever its length."""
        door = self.door()
        for size in (0, 1, 511, 65_536, 65_537, 2_500_000):
            content = bytes(number % 251 for number in range(997)) * (size // 997 + 1)
            self.put("d/file", content[:size])
            self.assertEqual(door.read("/d/file") == content[:size], True, size)

    def test_reading_what_is_none(self) -> None:
        """What is not there cannot be read; a FIFO is not waited for."""
        self.put("d/a")
        os.mkfifo(self.root / "d/fifo")
        door = self.door()
        self.assertEqual(self.refusal(lambda: door.read("/d/none")), MISSING)
        self.assertEqual(self.refusal(lambda: door.read("/none/a")), MISSING)
        self.assertEqual(self.refusal(lambda: door.read("/d/fifo")), "permission denied")

    def test_odd_names(self) -> None:
        """Names that break programs are listed and read as they are."""
        names = [name for name in ODD_NAMES if "/" not in name and name.isprintable()]
        for number, name in enumerate(names):
            self.put(os.path.join("odd", name), str(number).encode())
        door = self.door()
        self.assertEqual(sorted(door.entries("/odd")), sorted(names))
        for number, name in enumerate(names):
            self.assertEqual(door.read(f"/odd/{name}"), str(number).encode(), name)

    def test_links(self) -> None:
        """A relative link is followed as long as it stays inside; any other leads nowhere."""
        self.put("d/a", b"content")
        outside = self.root.parent / f"{self.root.name}-outside"
        outside.write_bytes(b"secret")
        links = {"inside": "a", "up": f"../../{outside.name}", "absolute": str(outside.absolute())}
        for name, target in links.items():
            (self.root / "d" / name).symlink_to(target)
        door = self.door()
        self.assertEqual(door.read("/d/inside"), b"content")
        self.assertEqual(self.refusal(lambda: door.read("/d/up")), MISSING)
        self.assertEqual(self.refusal(lambda: door.read("/d/absolute")), MISSING)

    def test_reserved_name(self) -> None:
        """The daemon's own directory does not exist for anybody."""
        self.put("d/.fileexport/new-1", b"half")
        door = self.door()
        self.assertEqual(door.entries("/d"), {})
        self.assertEqual(self.refusal(lambda: door.read("/d/.fileexport/new-1")), MISSING)
        self.assertEqual(self.refusal(lambda: door.remove("/d/.fileexport/new-1")), MISSING)

    def test_removing(self) -> None:
        """A removed file is gone, once; a link goes itself, never what it leads to."""
        kept = self.put("d/a", b"kept")
        (self.root / "d/link").symlink_to("a")
        self.put("d/b")
        door = self.door()
        door.remove("/d/b")
        door.remove("/d/link")
        self.assertEqual(sorted(path.name for path in kept.parent.iterdir()), ["a"])
        self.assertEqual(kept.read_bytes(), b"kept")
        self.assertEqual(self.refusal(lambda: door.remove("/d/b")), MISSING)

    def test_rights(self) -> None:
        """Who may only read removes nothing, and who may only delete reads nothing."""
        file = self.put("d/a", b"1")
        self.assertEqual(self.refusal(lambda: self.door("may=read").remove("/d/a")), DENIED)
        self.assertEqual(self.refusal(lambda: self.door("may=delete").read("/d/a")), DENIED)
        self.assertEqual(file.read_bytes(), b"1")

    def test_a_part_of_the_root(self) -> None:
        """A token for a part of the root sees nothing else of it, links included."""
        self.put("mine/a", b"1")
        self.put("theirs/b", b"2")
        (self.root / "mine/link").symlink_to("../theirs/b")
        door = self.door("under=/mine")
        self.assertEqual(list(door.entries("/")), ["mine"])
        self.assertEqual(door.read("/mine/a"), b"1")
        for path in ("/theirs/b", "/mine/link"):
            self.assertEqual(self.refusal(partial(door.read, path)), MISSING)


class WritingContract(ReadingContract):
    """Files that come in, directories, names that change."""

    def test_writing(self) -> None:
        """A file that was written is there with its content and its time."""
        (self.root / "d").mkdir()
        door = self.door()
        for size in (0, 1, 65_536, 65_537, 2_500_000):
            content = os.urandom(size)
            door.write(f"/d/{size}", content)
            written = self.root / "d" / str(size)
            self.assertEqual(written.read_bytes() == content, True, size)
            self.assertEqual(written.stat().st_mtime_ns, MTIME)
        self.assertEqual(sorted(door.entries("/d")), sorted(map(str, (0, 1, 65_536, 65_537, 2_500_000))))

    def test_existing_name(self) -> None:
        """A name that is taken is refused and keeps its content, unless it is to be replaced."""
        old = self.put("d/a", b"old")
        door = self.door()
        self.assertEqual(self.refusal(lambda: door.write("/d/a", b"new")), EXISTS)
        self.assertEqual(old.read_bytes(), b"old")
        door.write("/d/a", b"new", replace=True)
        self.assertEqual(old.read_bytes(), b"new")

    def test_names_that_cannot_be_written(self) -> None:
        """A name that is not portable is refused, and so are a missing directory and the daemon's own."""
        (self.root / "d").mkdir()
        door = self.door()
        self.assertEqual(self.refusal(lambda: door.write("/d/a:b", b"1")), "the name is not valid")
        self.assertEqual(self.refusal(lambda: door.write("/none/a", b"1")), NO_FOLDER)
        self.assertEqual(
            self.refusal(lambda: door.write("/d/.fileexport/a", b"1"))
            in (MISSING, NO_FOLDER, "permission denied"),
            True,
        )
        self.assertEqual(self.refusal(lambda: door.make_directory("/d/.fileexport")), "permission denied")
        self.assertEqual(list((self.root / "d").iterdir()), [])

    def test_writing_never_leads_outside(self) -> None:
        """A link is replaced, never written through; one among the directories leads nowhere."""
        outside = self.root.parent / f"{self.root.name}-elsewhere"
        outside.mkdir()
        (outside / "file").write_bytes(b"theirs")
        (self.root / "link").symlink_to(f"../{outside.name}/file")
        (self.root / "directory").symlink_to(f"../{outside.name}")
        door = self.door()
        door.write("/link", b"ours", replace=True)
        self.assertEqual(self.refusal(lambda: door.write("/directory/new", b"ours")), NO_FOLDER)
        self.assertEqual((outside / "file").read_bytes(), b"theirs")
        self.assertEqual([path.name for path in outside.iterdir()], ["file"])
        self.assertEqual((self.root / "link").read_bytes(), b"ours")

    def test_directories(self) -> None:
        """A directory is made once, in one that is there."""
        door = self.door()
        door.make_directory("/d")
        door.make_directory("/d/e")
        self.assertEqual((self.root / "d/e").is_dir(), True)
        self.assertEqual(self.refusal(lambda: door.make_directory("/d")), EXISTS)
        self.assertEqual(self.refusal(lambda: door.make_directory("/none/e")), NO_FOLDER)

    def test_renaming(self) -> None:
        """A file takes another name, also in another directory; one that is taken is refused."""
        self.put("d/a", b"1")
        self.put("e/b", b"2")
        door = self.door()
        self.assertEqual(self.refusal(lambda: door.rename("/d/a", "/e/b")), EXISTS)
        door.rename("/d/a", "/e/c")
        self.assertEqual((self.root / "e/c").read_bytes(), b"1")
        self.assertEqual((self.root / "d/a").exists(), False)
        self.assertEqual(self.refusal(lambda: door.rename("/d/a", "/e/d")), MISSING)

    def test_rights_to_write(self) -> None:
        """Who may only read changes nothing."""
        self.put("d/a", b"1")
        door = self.door("may=read")
        for action in (
            lambda: door.write("/d/new", b"1"),
            lambda: door.make_directory("/e"),
            lambda: door.rename("/d/a", "/d/b"),
        ):
            self.assertEqual(self.refusal(action), DENIED)
        self.assertEqual([path.name for path in (self.root / "d").iterdir()], ["a"])

    def test_hashes(self) -> None:
        """The hash of a file, and of each file below a directory."""
        from blake3 import blake3

        self.put("d/a", b"1")
        self.put("d/e/b", b"22")
        expected = {"a": (1, blake3(b"1").digest()), "e/b": (2, blake3(b"22").digest())}
        door = self.door()
        self.assertEqual(door.hashes("/d"), expected)
        self.assertEqual(list(door.hashes("/d/a").values()), [expected["a"]])
