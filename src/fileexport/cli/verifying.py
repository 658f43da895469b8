"""`verify`: whether what is here is what is there, by contents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fileexport.cli.connecting import Session, absolute, client_command
from fileexport.cli.output import DIFFERENT, Output, count

if TYPE_CHECKING:
    from fileexport.client.sides import Item

#: Bytes that are read at once.
_PIECE = 1 << 20


@click.command()
@click.argument("local", type=click.Path())
@click.argument("remote")
@client_command
def verify(session: Session, local: str, remote: str) -> None:
    """Compare local files with remote ones.

    LOCAL and REMOTE, two files or two directories, are compared by the hashes of their contents. Nothing is
    changed. Each difference is named. The exit code is 0 only where all is equal, 8 where something differs,
    9 where nothing differs but there are links or the like, whose contents are not compared.
    """
    remote = absolute(remote)
    output = session.output
    output.subject = remote
    from fileexport.client.sides import Here, There

    here, there = Here(), There(session.client, "/", session.timeout)
    ours, theirs = here.find(local), there.find(remote)
    comparison = _Comparison(output)
    if ours.kind == "directory" and theirs.kind == "directory":
        local_items = {item.path: item for item in here.below(ours, _everywhere, comparison.unreadable)}
        for item in there.below(theirs, _everywhere, comparison.unreadable):
            comparison.pair(local_items.pop(item.path, None), item)
        for item in local_items.values():
            comparison.alone("only here", item)
    else:
        comparison.pair(ours, theirs)
    for found in session.client.hashes(remote, timeout=session.timeout):
        comparison.contents(found.path, found.size, found.digest)
    comparison.finish()


def _everywhere(path: str) -> bool:
    return True


class _Comparison:
    """What differs so far."""

    def __init__(self, output: Output) -> None:
        self._output = output
        #: Files that are on both sides and whose hash has not come yet: where they are here.
        self._expected: dict[str, str] = {}

    def pair(self, ours: Item | None, theirs: Item) -> None:
        """An entry of the server, and what is here under its path."""
        if ours is None:
            self.alone("only there", theirs)
        elif ours.kind != theirs.kind:
            self.differs(f"a {ours.kind} here, a {theirs.kind} there", theirs.path)
        elif ours.kind == "file":
            self._expected[theirs.path] = ours.place
        elif ours.kind != "directory":
            self._left_out(ours)

    def alone(self, where: str, item: Item) -> None:
        """An entry of one side only. A transfer leaves links out: one of those is no difference."""
        if item.kind in ("file", "directory"):
            self.differs(where, item.path)
        else:
            self._left_out(item)

    def _left_out(self, item: Item) -> None:
        self._output.left_out(item.place, f"it is {'a link' if item.kind == 'link' else 'no file'}")

    def contents(self, path: str, size: int, digest: bytes) -> None:
        """The server's hash of a file."""
        place = self._expected.pop(path, None)
        if place is None:
            return
        try:
            same = _hash(place) == (size, digest)
        except OSError as error:
            self._output.fail(error, place)
            return
        self._output.totals["files"] += 1
        self._output.totals["bytes"] += size
        if not same:
            self.differs("differs", path)

    def differs(self, how: str, path: str) -> None:
        """Name a difference."""
        self._output.totals["different"] += 1
        self._output.action("differ", path, message=how)
        self._output.line(f"{how}: {path or self._output.subject}")

    def unreadable(self, path: str, error: OSError) -> None:
        """A directory here cannot be read."""
        self._output.fail(error, path)

    def finish(self) -> None:
        """What the server did not hash differs: it has gone, or cannot be read there."""
        for path in self._expected:
            self.differs("not readable there", path)
        output = self._output
        different = output.totals["different"]
        if different:
            output.status = output.status or DIFFERENT
        elif not output.status:
            output.say(f"{count(output.totals['files'], 'file')} compared: equal")


def _hash(place: str) -> tuple[int, bytes]:
    """Size and BLAKE3 of a local file."""
    from blake3 import blake3

    hasher, size = blake3(), 0
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    with open(place, "rb", buffering=0) as file:
        while got := file.readinto(buffer):
            hasher.update(view[:got])
            size += got
    return size, hasher.digest()
