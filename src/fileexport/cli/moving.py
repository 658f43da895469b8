"""`upload`, `download`: files and directories from one side to the other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from fileexport.cli.connecting import Session, absolute, client_command
from fileexport.cli.output import REFUSED, Output, amount, count
from fileexport.cli.progress import Progress, progress_for
from fileexport.client.moving import TROUBLE, Wanted, Watcher, Wishes, is_fatal
from fileexport.client.selection import CONFLICTS, is_glob
from fileexport.client.sides import There
from fileexport.client.transfers import chosen, exists
from fileexport.client.transfers import download as move_here
from fileexport.client.transfers import upload as move_there
from fileexport.sync.rules import Patterns

_HINTS: dict[type[BaseException], str] = {
    FileExistsError: "choose --conflict skip, replace or rename",
    IsADirectoryError: "a directory is never replaced by a file",
}


def _moving(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that both commands have."""
    for option in (
        click.option(
            "--conflict",
            type=click.Choice(CONFLICTS),
            default="abort",
            help="What to do about an existing file [abort: this source ends].",
        ),
        click.option(
            "--exclude",
            multiple=True,
            metavar="PATTERN",
            help="Leave out what this gitignore "
            "pattern matches, seen from each directory that is named (repeatable).",
        ),
        click.option("-p", "--progress", is_flag=True, help="Show bytes, rate and time that is left."),
        click.option("-r", "--recursive", is_flag=True, help="Directories with all that lies in them."),
        click.argument(
            "paths", type=click.Path(), nargs=-1, required=True, metavar="SOURCE... [DESTINATION]"
        ),
    ):
        command = option(command)
    return command


@click.command()
@_moving
@client_command
def upload(session: Session, paths: tuple[str, ...], **how: Any) -> None:
    """Upload local files and directories.

    DESTINATION is an existing remote directory; with one SOURCE it is /.

    A directory needs -r, and goes with its name; "." is its contents. Links in a directory are left out, and
    so are names that the server does not take: each is named, and the exit code is 9.
    """
    sources, destination = (paths, "/") if len(paths) == 1 else (paths[:-1], paths[-1])
    destination = absolute(destination)
    wanted = [Wanted(source, name, name, "") for source in sources for name in [_name_of(source)]]
    _move(session, move_there, wanted, destination, how)


@click.command()
@_moving
@client_command
def download(session: Session, paths: tuple[str, ...], **how: Any) -> None:
    """Download remote files and directories.

    DESTINATION is an existing local directory; with one SOURCE it is the current one.

    A SOURCE may hold * ? [...], and with -r ** for any directories: quote it, so that your shell leaves it to
    the server's names. A directory needs -r, and goes with its name. Links in a directory are left out: each
    is named, and the exit code is 9.
    """
    sources, destination = (paths, ".") if len(paths) == 1 else (paths[:-1], paths[-1])
    sources = tuple(absolute(path if path.startswith("/") else f"/{path}") for path in sources)
    wanted = list(_found(session, sources, how["recursive"]))
    _move(session, move_here, wanted, destination, how)


def _name_of(source: str) -> str:
    """What a local source is called at the destination; empty for `.`, which is its contents."""
    name = os.path.basename(source.rstrip("/"))
    return "" if name in ("", ".", "..") else name


def _found(session: Session, sources: Sequence[str], recursive: bool) -> Iterator[Wanted]:
    """The remote sources, globs expanded; one that is not there is an error of its own."""
    there = There(session.client, "/", session.timeout)
    for source in sources:
        places = [source]
        try:
            if is_glob(source) and not exists(there, source):
                found = chosen(there, source[1:], recursive, literal=False)
                places = [there.place(path) for path, _ in found]
        except TROUBLE as error:
            if is_fatal(error):
                raise
            session.output.fail(error, source)
            continue
        for place in places:
            name = place.rpartition("/")[2]
            yield Wanted(place, name, name, "")


def _move(
    session: Session,
    move: Callable[..., bool],
    wanted: Sequence[Wanted],
    destination: str,
    how: dict[str, Any],
) -> None:
    """Carry out a transfer, and say in the end what it was."""
    output = session.output
    output.hints = _HINTS
    output.resume = _resume(how["conflict"], is_one_file=len(wanted) == 1 and not how["recursive"])
    wishes = _wishes(session, how)
    begun = time.monotonic()
    if not wanted:
        return
    with progress_for(output, how["progress"]) as progress:
        move(session.client, wanted, destination, wishes, _Teller(output, progress, move.__name__))
    _summarize(output, move.__name__, time.monotonic() - begun)


def _resume(conflict: str, *, is_one_file: bool) -> str:
    """What to do after Ctrl-C: of several files some are there by now, and have the names that they want."""
    if is_one_file or conflict == "skip":
        return ": the same command goes on where this one stopped"
    if conflict == "abort":
        return ": the same command with --conflict skip goes on where this one stopped"
    return ": what has arrived stays"


def _wishes(session: Session, how: dict[str, Any]) -> Wishes:
    try:
        excludes = Patterns(how["exclude"])
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return Wishes(how["recursive"], excludes, how["conflict"], timeout=session.timeout)


class _Teller(Watcher):
    """Says what happens, and goes on after failures."""

    def __init__(self, output: Output, progress: Progress, action: str) -> None:
        self._output = output
        self._progress = progress
        self._action = action
        #: Bytes of large files that were told.
        self._told: dict[str, int] = {}

    def found(self, size: int) -> None:
        self._progress.expect(size)

    def moved(self, path: str, size: int, count: int) -> None:
        self._told[path] = self._told.get(path, 0) + count
        self._progress.moved(path, size, count)

    def directory(self, path: str) -> None:
        self._output.totals["directories"] += 1
        self._output.action("make_directory", path)

    def done(self, path: str, size: int) -> None:
        output = self._output
        output.totals["files"] += 1
        output.totals["bytes"] += size
        output.action(self._action, path, size)
        self._progress.done(path, size, self._told.pop(path, 0))

    def skipped(self, path: str, size: int) -> None:
        self._output.totals["skipped"] += 1
        self._output.action("skip", path, size)

    def left_out(self, path: str, why: str) -> None:
        self._output.left_out(path, why)

    def failed(self, path: str, error: Exception) -> None:
        # A value that the server does not take is a file over its limit: it refuses, the usage was right.
        refused = isinstance(error, ValueError)
        self._output.fail(error, path, status=REFUSED if refused else None)


def _summarize(output: Output, verb: str, seconds: float) -> None:
    totals = output.totals
    output.summary = {"files": totals["files"], "bytes": totals["bytes"], "seconds": round(seconds, 3)}
    parts = [f"{verb}ed {count(totals['files'], 'file')}, {amount(totals['bytes'])} in {seconds:.1f} s"]
    if totals["skipped"]:
        parts.append(f"{totals['skipped']:,} skipped")
    if totals["files"] or totals["skipped"] or not (totals["errors"] or totals["left_out"]):
        output.say(", ".join(parts))
