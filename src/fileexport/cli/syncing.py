"""`sync`: one directory made equal to another, from here to a server or from there."""

from __future__ import annotations

import errno
import gc
import os
from typing import TYPE_CHECKING, Any

import click

from fileexport.cli.connecting import Session, absolute, client_command, named, selecting
from fileexport.cli.output import NO_DIRECTORY, REFUSED, Output, amount, count
from fileexport.cli.progress import Progress, progress_for
from fileexport.client.acting import Listener
from fileexport.client.syncing import Sync, SyncResult, rules_of
from fileexport.errors import DeletionRefused, FileNameError, SourceNotFound
from fileexport.sync.plan import Action, Plan, Problem, Totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fileexport.client.ends import Tree

#: Objects that are made between two searches for cycles.
_ALLOCATIONS = 100_000
#: What is said of an action, where it is not its own name: up and down.
_VERBS = {"aside": "put aside", "make_directory": "make directory"}
_VERBS_DOWN = {**_VERBS, "send": "fetch"}
#: Those that take what has another name at the destination.
_FROM = ("aside", "move", "copy")
#: What a summary counts, and how it says so.
_COUNTED = ("files", "bytes", "directories", "links", "moved", "copied", "removed", "set")
_ALSO = ("directories", "moved", "copied", "links", "removed", "set")
_DID = {"moved": "moved", "copied": "copied", "links": "linked", "removed": "removed", "set": "set"}
_WOULD = {"moved": "move", "copied": "copy", "links": "link", "removed": "remove", "set": "set"}
_OPTIONS = (
    click.option("--delete", is_flag=True, help="Remove what SOURCE does not have, in the end."),
    click.option(
        "--max-delete",
        default="50%",
        metavar="N",
        help="Remove nothing where that were more than N entries, or N% of them [50%].",
    ),
    click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    click.option("-v", "--verbose", is_flag=True, help="Say what is done, as --dry-run does."),
    selecting("Leave alone what .gitignore files in SOURCE match."),
    click.option("--checksum", is_flag=True, help="Compare contents also where size and time are equal."),
    click.option("-p", "--progress", is_flag=True, help="Show bytes, rate and time that is left."),
)


def _syncing(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("side", type=click.Choice(("local", "remote")), metavar="local|remote")
@click.argument("source", type=click.Path())
@click.argument("destination", type=click.Path())
@_syncing
@client_command
def sync(session: Session, side: str, source: str, destination: str, **how: Any) -> None:
    """Make a directory equal to another.

    The named side is the source: "sync local DIR REMOTE" makes the remote directory equal to the local one,
    "sync remote REMOTE DIR" the local one equal to the remote.

    Only what differs travels; what has the same size and time is taken for equal. Modes, times and links are
    kept; a link that leads out of SOURCE is left out and named, which is exit code 9. Without --delete
    nothing is removed.
    """
    is_upload = side == "local"
    local, remote = (source, destination) if is_upload else (destination, source)
    work = _sync_of(session, _directory(local, is_upload), absolute(remote), is_upload, how)
    # A tree in memory is hundreds of thousands of small tuples, and all are kept: looking through them for
    # cycles, again and again, finds none. What was imported need not be looked at either, at the end too.
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS)
    output = session.output
    output.subject = work.source.place("")
    output.resume = ": the same command goes on where this one stopped"
    dry_run = how["dry_run"]
    says_all = (dry_run or how["verbose"]) and not output.as_json
    try:
        # Bars and lines do not go together.
        with progress_for(output, how["progress"] and not dry_run and not says_all) as progress:
            verbs = (_VERBS if is_upload else _VERBS_DOWN) if says_all else None
            result = work.run(_Teller(output, progress, work, verbs), dry_run=dry_run)
    except SourceNotFound as error:
        output.fail(error, status=NO_DIRECTORY)
    except (DeletionRefused, FileNameError) as error:
        output.fail(error, work.destination.place(""))
    else:
        output.say(_sentence(result, is_upload))
    finally:
        output.summary = _summary(work.result())


def _directory(local: str, is_source: bool) -> str:
    """A local directory, or where nothing is. Raises `click.UsageError`, `NotADirectoryError`."""
    if os.path.lexists(named(local)) and not os.path.isdir(local):
        if is_source:
            raise click.UsageError(f"{local} is no directory: upload takes files")
        raise NotADirectoryError(errno.ENOTDIR, "it is not a directory", local)
    return local


def _sync_of(session: Session, local: str, remote: str, is_upload: bool, how: dict[str, Any]) -> Sync:
    from fileexport.client.ends import LocalTree, RemoteTree

    try:
        rules = rules_of(how["delete"], how["max_delete"], how["exclude"], how["include"], how["checksum"])
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return Sync(
        session.client,
        LocalTree(local),
        RemoteTree(session.client, remote, session.timeout),
        rules,
        is_upload=is_upload,
        gitignore=how["gitignore"],
        timeout=session.timeout,
    )


class _Teller(Listener):
    """Says what happens; with `verbs`, those of the kinds that have one, each action too."""

    def __init__(
        self, output: Output, progress: Progress, sync: Sync, verbs: Mapping[str, str] | None
    ) -> None:
        self._output = output
        self._progress = progress
        self._source: Tree = sync.source
        self._destination: Tree = sync.destination
        self._verbs = verbs
        #: Whether anybody hears of each action: for nobody, thousands a second need no words.
        self._is_heard = output.as_json or verbs is not None or progress.is_shown
        #: Bytes that were told of the file that is on its way.
        self._told = 0

    def planned(self, plan: Plan) -> None:
        self._progress.total_files = plan.totals.files
        self._progress.total_bytes = plan.totals.bytes

    def moved(self, action: Action, count: int) -> None:
        if action.kind in ("send", "update"):
            self._told += count
            self._progress.moved(self._destination.place(action.path), action.size, count)

    def done(self, action: Action) -> None:
        if not self._is_heard:
            return
        path = self._destination.place(action.path)
        fields = {"source": self._destination.place(action.sources[0])} if action.kind in _FROM else {}
        self._output.action(action.kind, path, action.size, **fields)
        if self._verbs is not None:
            verb = self._verbs.get(action.kind, action.kind)
            self._output.line(_line_of(verb, action, path, fields.get("source")))
            self._output.flush()
        if action.kind in ("send", "update"):
            self._progress.done(path, action.size, self._told)
            self._told = 0
        elif action.kind in ("move", "copy"):
            self._progress.done(path, 0, 0)

    def left_out(self, problem: Problem) -> None:
        tree = self._destination if problem.at_destination else self._source
        self._output.left_out(tree.place(problem.path), problem.why)

    def failed(self, path: str, error: Exception) -> None:
        # A value that the server does not take is a file over its limit: it refuses, the usage was right.
        refused = isinstance(error, ValueError)
        self._output.fail(error, self._destination.place(path), status=REFUSED if refused else None)


def _line_of(verb: str, action: Action, path: str, source: str | None) -> str:
    """An action for people."""
    if action.kind == "aside":
        return f"{verb} {source} as {path}"
    size = f" ({amount(action.size)})" if action.kind in ("send", "update") else ""
    return f"{verb} {path}" + (f" from {source}" if source else "") + size


def _summary(result: SyncResult) -> dict[str, Any]:
    """The totals for programs: what was done, or in a dry run what would be."""
    counts = _counts(result)
    return {
        **{name: getattr(counts, name) for name in _COUNTED},
        "saved": result.bytes_saved,
        "unchanged": result.plan.totals.unchanged,
        "seconds": round(result.seconds, 3),
        "dry_run": result.dry_run,
    }


def _sentence(result: SyncResult, is_upload: bool) -> str:
    """The totals for people."""
    counts, actions = _counts(result), result.plan.actions
    unchanged = f"{result.plan.totals.unchanged:,} unchanged"
    if not actions:
        return f"nothing to do, {unchanged}"
    verbs = _WOULD if result.dry_run else _DID
    if result.dry_run:
        first = f"would {'send' if is_upload else 'fetch'}"
        if any(action.kind == "update" for action in actions):
            # Nobody has looked yet what of them is there.
            first += " at most"
    else:
        first = "sent" if is_upload else "fetched"
    sent = count(counts.files - counts.moved - counts.copied, "file")
    saved = f" (saved {amount(result.bytes_saved)})" if result.bytes_saved else ""
    parts = [f"{first} {sent}, {amount(counts.bytes)}{saved}"]
    for name in _ALSO:
        if number := getattr(counts, name):
            made = f"{'make' if result.dry_run else 'made'} {count(number, 'directory')}"
            parts.append(made if name == "directories" else f"{verbs[name]} {number:,}")
    took = "" if result.dry_run else f" in {result.seconds:.1f} s"
    return f"{', '.join([*parts, unchanged])}{took}"


def _counts(result: SyncResult) -> Totals:
    """What was done, or in a dry run would be, in the numbers of a plan."""
    if result.dry_run:
        return result.plan.totals
    done = result.done
    return Totals(
        files=sum(done[kind] for kind in ("send", "update", "copy", "move")),
        bytes=result.bytes_sent,
        directories=done["make_directory"],
        links=done["link"],
        moved=done["move"],
        copied=done["copy"],
        removed=result.removed,
        set=done["set"],
    )
