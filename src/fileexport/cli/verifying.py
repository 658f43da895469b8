"""`verify`: whether what is here is what is there, by contents."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import click

from fileexport.cli.connecting import Session, absolute, client_command, named, selecting
from fileexport.cli.output import DIFFERENT, NO_DIRECTORY, Output, count
from fileexport.errors import SourceNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fileexport.client.sides import Item, Source
    from fileexport.sync.manifest import Entry, Manifest
    from fileexport.sync.rules import Rules

_NOTHING = "there is no such file or directory"
_OTHER = "it is neither a file nor a directory nor a link"
#: Kinds in words.
_A = {"file": "a file", "directory": "a directory", "link": "a link", "other": "something else"}


@click.command()
@click.argument("local", type=click.Path())
@click.argument("remote")
@selecting("Leave alone what .gitignore files in LOCAL match.")
@client_command
def verify(session: Session, local: str, remote: str, **how: Any) -> None:
    """Compare local files with remote ones.

    LOCAL and REMOTE, two files or two directories, are compared by the hashes of their contents, and links by
    what they lead to. Nothing is changed. Each difference is named. The exit code is 0 only where all is
    equal, 8 where something differs, 9 where nothing differs but some entries cannot be compared. Of two
    directories, what the patterns leave alone is not compared, as "sync" does not send it.
    """
    local, remote = named(local), absolute(remote)
    session.output.subject = remote
    from fileexport.client.sides import Here, There

    ours = _find(Here(), local)
    theirs = _find(There(session.client, "/", session.timeout), remote)
    if ours is None or theirs is None:
        for found, other, place in ((ours, theirs, local), (theirs, ours, remote)):
            if found is None:
                is_directory = other is not None and other.kind == "directory"
                missing = FileNotFoundError(errno.ENOENT, _NOTHING, place)
                session.output.fail(missing, status=NO_DIRECTORY if is_directory else None)
        return
    if ours.kind != theirs.kind:
        comparison = _Comparison(session.output, local, remote)
        comparison.differs(f"{_A[ours.kind]} here, {_A[theirs.kind]} there", "")
        comparison.finish()
    elif ours.kind == "directory":
        _trees(session, local, remote, how)
    else:
        _files(session, local, remote)


def _find(side: Source, place: str) -> Item | None:
    try:
        return side.find(place)
    except SourceNotFound:
        # Neither side is the source here.
        return None


def _trees(session: Session, local: str, remote: str, how: dict[str, Any]) -> None:
    from dataclasses import replace

    from fileexport.client.ends import LocalTree, RemoteTree, hash_both, look
    from fileexport.client.syncing import ignores, rules_of

    try:
        rules = rules_of(False, "0", how["exclude"], how["include"], checksum=True)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    here, there = LocalTree(local), RemoteTree(session.client, remote, session.timeout)
    comparison = _Comparison(session.output, local, remote)
    ours, theirs = look(here, there)
    if how["gitignore"]:
        rules = replace(rules, ignores=ignores(here, ours, rules))
    comparison.trees(_selected(ours, rules), _selected(theirs, rules))
    paths = list(comparison.expected)
    comparison.contents(*hash_both(here, there, paths, paths, fresh=True))
    comparison.finish()


def _files(session: Session, local: str, remote: str) -> None:
    from fileexport.client.ends import LocalTree, RemoteTree, hash_both

    directory, name = os.path.split(os.path.realpath(local))
    above, _, name_there = remote.rpartition("/")
    here, there = LocalTree(directory), RemoteTree(session.client, above or "/", session.timeout)
    ours, theirs = hash_both(here, there, [name], [name_there], fresh=True)
    comparison = _Comparison(session.output, local, remote)
    comparison.expected[""] = os.stat(local).st_size
    comparison.contents({"": ours[name]} if ours else {}, {"": theirs[name_there]} if theirs else {})
    comparison.finish()


def _selected(manifest: Manifest, rules: Rules) -> Manifest:
    """A tree without what the rules leave out."""
    from fileexport.sync.manifest import Manifest

    if not rules.is_selective:
        return manifest
    kept: dict[str, dict[str, Entry]] = {}
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        prefix = f"{directory}/" if directory else ""
        folder = manifest.folders.get(directory, {})
        kept[directory] = {
            name: entry
            for name, entry in folder.items()
            if not rules.leaves_out(prefix + name, entry.kind == "directory")
        }
        waiting += [prefix + name for name, entry in kept[directory].items() if entry.kind == "directory"]
    unreadable = {path: why for path, why in manifest.unreadable.items() if path in kept}
    return Manifest(manifest.top, kept, unreadable)


class _Comparison:
    """What differs so far. Paths are below both tops."""

    def __init__(self, output: Output, local: str, remote: str) -> None:
        self._output = output
        self._local = local
        self._remote = remote
        #: Files that are on both sides with the same size, which it is: their hashes decide.
        self.expected: dict[str, int] = {}

    def trees(self, ours: Manifest, theirs: Manifest) -> None:
        """All that can be said without hashes."""
        for manifest, top in ((ours, self._local), (theirs, self._remote)):
            for path, why in manifest.unreadable.items():
                self._left_out(path, why, top)
        for path, entry in ours.entries():
            other = theirs.get(path)
            if other is not None:
                self._pair(path, entry, other)
            elif not _is_unknown(path, theirs):
                self._alone("only here", path, entry, self._local)
        for path, entry in theirs.entries():
            if ours.get(path) is None and not _is_unknown(path, ours):
                self._alone("only there", path, entry, self._remote)

    def _pair(self, path: str, ours: Entry, theirs: Entry) -> None:
        if ours.kind != theirs.kind:
            self.differs(f"{_A[ours.kind]} here, {_A[theirs.kind]} there", path)
        elif ours.kind == "other":
            self._left_out(path, _OTHER, self._local)
        elif ours.kind == "link":
            if not _is_inside(path, ours):
                self._left_out(path, _outside(), self._local)
            elif not _is_inside(path, theirs):
                self._left_out(path, _outside(), self._remote)
            elif ours.target != theirs.target:
                self.differs("differs", path)
        elif ours.size != theirs.size:
            self._output.totals["files"] += 1
            self.differs("differs", path)
        elif ours.kind == "file":
            self.expected[path] = ours.size

    def _alone(self, where: str, path: str, entry: Entry, top: str) -> None:
        """An entry of one side only. What a synchronisation leaves out is no difference."""
        if entry.kind == "other":
            self._left_out(path, _OTHER, top)
        elif entry.kind == "link" and not _is_inside(path, entry):
            self._left_out(path, _outside(), top)
        else:
            self.differs(where, path)

    def _left_out(self, path: str, why: str, top: str) -> None:
        self._output.left_out(os.path.join(top, path) if path else top, why)

    def contents(self, ours: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> None:
        """The hashes of the files that are expected."""
        for path, size in self.expected.items():
            mine, other = ours.get(path), theirs.get(path)
            if mine is None or other is None:
                self.differs("not readable here" if mine is None else "not readable there", path)
                continue
            self._output.totals["files"] += 1
            self._output.totals["bytes"] += size
            if mine != other:
                self.differs("differs", path)

    def differs(self, how: str, path: str) -> None:
        """Name a difference."""
        self._output.totals["different"] += 1
        self._output.action("differ", path, message=how)
        self._output.line(f"{how}: {path or self._output.subject}")

    def finish(self) -> None:
        """What was found, as a status."""
        output = self._output
        if output.totals["different"]:
            output.status = output.status or DIFFERENT
        elif not output.status:
            output.say(f"{count(output.totals['files'], 'file')} compared: equal")


def _outside() -> str:
    from fileexport.sync.survey import NOT_INSIDE

    return NOT_INSIDE


def _is_inside(path: str, entry: Entry) -> bool:
    from fileexport.sync.manifest import leads_inside

    return leads_inside(path, entry.target)


def _is_unknown(path: str, manifest: Manifest) -> bool:
    """Whether it lies in a directory that could not be read: nobody knows whether it is there."""
    while path and manifest.unreadable:
        path = path.rpartition("/")[0]
        if path in manifest.unreadable:
            return True
    return False
