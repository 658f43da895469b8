"""Manifests on the wire: what is in a directory and below it, folder by folder, in few bytes.

A folder keeps its entries by column, which is short and read in no time: 20,000 entries in milliseconds.
`folder_of` and `folder_rows` go from rows to columns and back, `parts_of` makes messages of a whole listing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, NamedTuple, TypeAlias

from msgspec import Meta

from fileexport.errors import CorruptedResponse
from fileexport.paths import MAX_NAME, RelPath
from fileexport.wire.bounds import (
    MAX_BATCH,
    Code,
    Count,
    Mode,
    OnePath,
    Reply,
    Row,
    Target,
    Text,
    Time,
)

#: file, directory, link, other
KINDS = "fdlo"
_NOT_NAMES = frozenset(("", ".", ".."))

#: name, letter of the kind, size (0 but for files), mtime in ns, mode, text of a link (else empty)
Line: TypeAlias = tuple[str, str, int, int, int, str]


class Folder(Row, frozen=True):
    """What is in one directory: a column for each property, names with NUL between two."""

    path: RelPath
    names: Annotated[bytes, Meta(max_length=MAX_BATCH * (MAX_NAME + 1))] = b""
    kinds: Annotated[bytes, Meta(max_length=MAX_BATCH)] = b""
    sizes: Annotated[list[Count], Meta(max_length=MAX_BATCH)] = []
    mtimes: Annotated[list[Time], Meta(max_length=MAX_BATCH)] = []
    modes: Annotated[list[Mode], Meta(max_length=MAX_BATCH)] = []
    targets: Annotated[list[Target], Meta(max_length=MAX_BATCH)] = []
    code: Code = 0
    message: Text = ""
    omitted: Count = 0


class Top(Row, frozen=True):
    """The directory itself that a manifest was asked for; with `portable`, it takes no other new names."""

    mtime: Time
    mode: Mode
    portable: bool = False


class Manifest(OnePath, frozen=True, tag="manifest"):
    """What is in a directory and all below it, with times and permissions."""


class ManifestPart(Reply, frozen=True, tag="manifest"):
    """The next folders, a directory before those in it; the first part says what the top itself is."""

    folders: Annotated[list[Folder], Meta(min_length=1, max_length=MAX_BATCH)]
    top: Top | None = None


class Listed(NamedTuple):
    """What a scan found in one directory, or in the next part of one; `code` says why that is not all."""

    path: RelPath
    lines: Sequence[Line]
    code: int = 0
    message: str = ""
    omitted: int = 0


def folder_of(
    path: RelPath, lines: Iterable[Line], *, code: int = 0, message: str = "", omitted: int = 0
) -> Folder:
    """The folder that says these lines, of which there are at most `MAX_BATCH`."""
    columns = list(zip(*lines, strict=True)) or [()] * 6
    names, kinds, sizes, mtimes, modes, targets = columns
    return Folder(
        path,
        os.fsencode("\0".join(names)),
        "".join(kinds).encode("ascii"),
        list(sizes),
        list(mtimes),
        list(modes),
        [os.fsencode(target) for kind, target in zip(kinds, targets, strict=True) if kind == "l"],
        code,
        message,
        omitted,
    )


def folder_rows(folder: Folder) -> list[Line]:
    """The lines of a folder. Raises `CorruptedResponse` where they are none."""
    names, kinds = _names(folder), folder.kinds.decode("latin-1")
    columns = (folder.sizes, folder.mtimes, folder.modes)
    if any(len(column) != len(names) for column in (kinds, *columns)):
        raise CorruptedResponse("a folder's columns have different lengths")
    if len(folder.targets) != kinds.count("l") or set(kinds) - set(KINDS):
        raise CorruptedResponse("a folder's kinds are no kinds, or not those of its links")
    targets = [""] * len(names)
    if folder.targets:
        links = (place for place, kind in enumerate(kinds) if kind == "l")
        for place, target in zip(links, folder.targets, strict=True):
            if b"\0" in target:
                raise CorruptedResponse("the text of a link holds NUL")
            targets[place] = os.fsdecode(target)
    if kinds.count("f") < len(kinds) and any(
        size for size, kind in zip(folder.sizes, kinds, strict=True) if kind != "f"
    ):
        raise CorruptedResponse("a size of what is no file")
    return list(zip(names, kinds, *columns, targets, strict=True))


def _names(folder: Folder) -> list[str]:
    """The names of a folder, each a valid one, none twice."""
    if not folder.names and not folder.kinds:
        return []
    names = os.fsdecode(folder.names).split("\0")
    if b"/" in folder.names or not _NOT_NAMES.isdisjoint(names):
        raise CorruptedResponse("a folder holds what is no name")
    if len(folder.names) > MAX_NAME and max(map(len, folder.names.split(b"\0"))) > MAX_NAME:
        raise CorruptedResponse(f"a folder holds a name of more than {MAX_NAME} bytes")
    if len(set(names)) < len(names):
        raise CorruptedResponse("a folder holds a name twice")
    return names


def parts_of(listed: Iterable[Listed | None], top: Top, most: int) -> Iterator[ManifestPart | None]:
    """Messages of at most `MAX_BATCH` entries and about `most` bytes that say what was listed.

    `None` is handed on: others may have their turn. An empty directory is a folder without names.
    """
    batch: list[Folder] = []
    entries = size = 0
    first: Top | None = top
    for found in listed:
        if found is None:
            yield None
            continue
        for folder in _folders(found, most):
            cost, count = _cost(folder), len(folder.kinds)
            if batch and (size + cost > most or entries + count > MAX_BATCH or len(batch) == MAX_BATCH):
                yield ManifestPart(batch, first)
                batch, entries, size, first = [], 0, 0, None
            batch.append(folder)
            entries += count
            size += cost
    if batch:
        yield ManifestPart(batch, first)


def _folders(found: Listed, most: int) -> Iterator[Folder]:
    """Folders of at most `MAX_BATCH` entries and about `most` bytes; the last one says what went wrong."""
    path, lines, code, message, omitted = found
    start, count = 0, MAX_BATCH
    while True:
        is_last = start + count >= len(lines)
        folder = folder_of(
            path,
            lines[start : start + count],
            code=code if is_last else 0,
            message=message if is_last else "",
            omitted=omitted if is_last else 0,
        )
        if count > 1 and _cost(folder) > most:
            count = count // 2
            continue
        yield folder
        if is_last:
            return
        start += count


def _cost(folder: Folder) -> int:
    """No fewer bytes than the folder takes in its message."""
    path = sum(map(len, folder.path.parts)) * 4 + 64
    targets = sum(map(len, folder.targets)) + 3 * len(folder.targets)
    # Of each entry two integers of 9 bytes, one of 3, and the letter of its kind.
    return path + len(folder.names) + 22 * len(folder.kinds) + targets + 4 * len(folder.message) + 40
