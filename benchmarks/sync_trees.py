"""What the cases `sync.…` synchronise: each function makes the versions of a tree in an empty directory.

A version is a whole tree of its own, `0`, `1` and so on; what two of them share has the same times in both.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

#: Small files, the directories that they lie in, and the least and greatest size.
FILES, DIRECTORIES, SIZES = 20_000, 200, (1_000, 8_000)
#: Bytes of the large file and of each of the edits in it; both are less where there is no room.
LARGE, LARGE_LEAST, EDITS, EDIT = 1_000_000_000, 64 << 20, 100, 100_000
#: Bytes of the file that something is put in front of, and of that.
MIDDLE, FRONT = 256_000_000, 1_000
#: Files of the tree that is moved, small and large, and bytes of the large ones.
MOVED, MOVED_LARGE, MOVED_SIZE = 1_000, 20, 10_000_000
#: Files of the source tree that are changed, added and removed.
CHANGED, ADDED, REMOVED = 300, 100, 100

_PIECE = 1 << 20
#: Copies of the largest tree that lie there at a time: versions, and what each contender makes.
_COPIES = 6


def small_files(directory: Path) -> str:
    """Many small files; in the second version one in a hundred has another content."""
    chance = random.Random(1)
    first = directory / "0"
    for number in range(FILES):
        path = first / f"{number % DIRECTORIES:03}" / f"part-{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randint(*SIZES)))
    second = copied(first, directory / "1")
    for number, path in enumerate(_files(second)):
        if number % 100 == 0:
            path.write_bytes(chance.randbytes(chance.randint(*SIZES)))
    total = sum(path.stat().st_size for path in _files(first))
    return f"{FILES:,} files of 1 to 8 kB ({total / 1e6:.0f} MB)"


def edited_file(directory: Path) -> str:
    """One large file; in the second version 1 % of it is other, and something stands in front."""
    size = max(LARGE_LEAST, min(LARGE, shutil.disk_usage(directory).free // _COPIES)) // _PIECE * _PIECE
    chance = random.Random(2)
    _large(directory / "0" / "large.bin", size)
    copied(directory / "0", directory / "1")
    edit = size // EDITS // 100 if size < LARGE // 2 else EDIT
    with (directory / "1" / "large.bin").open("r+b") as file:
        for _ in range(EDITS):
            file.seek(chance.randrange(size - edit))
            file.write(os.urandom(edit))
    _insert(directory / "1" / "large.bin")
    return f"a file of {size / 1e9:.2f} GB, {EDITS} edits of {edit:,} bytes and {FRONT:,} put in front"


def longer_file(directory: Path) -> str:
    """One file; in the second version something stands in front."""
    _large(directory / "0" / "large.bin", MIDDLE)
    copied(directory / "0", directory / "1")
    _insert(directory / "1" / "large.bin")
    return f"a file of {MIDDLE / 1e6:.0f} MB, {FRONT:,} bytes put in front"


def moved_tree(directory: Path) -> str:
    """A tree that has another name, and files of another name in it, in the second version."""
    chance = random.Random(3)
    tree = directory / "0" / "before"
    for number in range(MOVED):
        path = tree / f"{number % 20:02}" / f"small-{number:04}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randint(*SIZES)))
    for number in range(MOVED_LARGE):
        _large(tree / "large" / f"large-{number:02}.bin", MOVED_SIZE)
    after = copied(directory / "0", directory / "1") / "after" / "deeper"
    after.parent.mkdir()
    (directory / "1" / "before").rename(after)
    for path in list((after / "large").iterdir()):
        path.rename(path.with_name(f"renamed-{path.name}"))
    total = sum(path.stat().st_size for path in _files(directory / "0"))
    return f"{MOVED:,} small and {MOVED_LARGE} large files ({total / 1e6:.0f} MB) in a tree that is moved"


def source_tree(directory: Path) -> str:
    """The standard library; in the second version some hundred files are changed, new, or gone."""
    library, first, second = Path(sysconfig.get_path("stdlib")), directory / "0", directory / "1"
    ignored = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages")
    shutil.copytree(library, first, symlinks=True, ignore=ignored)
    copied(first, second)
    chance = random.Random(4)
    paths = list(_files(second))
    # Of the same number of files each time, as far as the library is large enough.
    picked = chance.sample(paths, min(CHANGED + REMOVED, len(paths) // 2))
    gone = picked[: len(picked) // 4]
    for path in gone:
        path.unlink()
    for number, path in enumerate(picked[len(gone) :]):
        text = path.read_bytes()
        at = chance.randint(0, len(text))
        path.write_bytes(text[:at] + b"# a line that is new\n" + text[at:])
        if number < ADDED:
            path.with_name(f"new_{path.name}").write_bytes(text[at:] + text[:at])
    counts = f"{len(picked) - len(gone)} changed, {min(ADDED, len(picked))} new, {len(gone)} gone"
    return f"{len(paths):,} files of the standard library, {counts}"


def copied(source: Path, target: Path) -> Path:
    """Copy a tree with its times; the new one."""
    subprocess.run(["cp", "-a", "--", str(source), str(target)], check=True)
    return target


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink())


def _large(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for at in range(0, size, _PIECE):
            # Nothing in it is twice: whoever compresses, or looks for what is there twice, gains nothing.
            file.write(os.urandom(min(_PIECE, size - at)))


def _insert(path: Path) -> None:
    longer = path.with_name("longer")
    with path.open("rb") as old, longer.open("wb") as new:
        new.write(os.urandom(FRONT))
        shutil.copyfileobj(old, new, _PIECE)
    longer.replace(path)
