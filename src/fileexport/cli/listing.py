"""`list`, `cat`: what a server has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from fileexport.cli.connecting import Session, absolute, client_command
from fileexport.cli.output import NO_DIRECTORY, Output, minutes

if TYPE_CHECKING:
    from fileexport.client.names import RemoteEntry

#: How a kind of entry is marked.
_MARKS = {"file": "[F]", "directory": "[D]", "link": "[L]", "other": "[O]"}


@click.command("list")
@click.argument("directory", default="/")
@click.option("-a", "-l", "--all", "details", is_flag=True, help="Kind, size in bytes and time of each.")
@click.option("-r", "--recursive", is_flag=True, help="Also what lies in the directories below.")
@client_command
def list_(session: Session, directory: str, details: bool, recursive: bool) -> None:
    """List the names in a remote DIRECTORY (default: /).

    With -a each has a line of columns: [F] for a file, [D] a directory, [L] a link, [O] anything else; its
    size in bytes; its time, where this machine is.
    """
    directory = absolute(directory)
    output = session.output
    output.subject = directory
    found = session.client.entries(directory, recursive=recursive, timeout=session.timeout)
    try:
        _show(output, directory, found, details)
    except FileNotFoundError as error:
        output.fail(error, directory, status=NO_DIRECTORY)


def _show(output: Output, directory: str, found: Iterable[RemoteEntry], details: bool) -> None:
    if output.as_json:
        # One by one: a tree may hold more than memory does.
        base = directory.rstrip("/")
        for entry in found:
            output.totals[f"{entry.type}s" if entry.type != "directory" else "directories"] += 1
            output.totals["bytes"] += entry.size
            output.entry(f"{base}/{entry.path}", entry.type, entry.size, entry.mtime_ns)
        return
    entries = sorted(found, key=lambda entry: entry.path.split("/"))
    if not details:
        for entry in entries:
            output.line(entry.path)
        return
    width = max((len(str(entry.size)) for entry in entries), default=0)
    for entry in entries:
        size = "-" if entry.type == "directory" else str(entry.size)
        output.line(f"{_MARKS[entry.type]} {size:>{width}} {minutes(entry.mtime_ns):>16} {entry.path}")


@click.command()
@click.argument("path")
@client_command
def cat(session: Session, path: str) -> None:
    """Write a remote file to standard output.

    Its hash is checked at the end: where it is not right, the exit code is not 0.
    """
    path = absolute(path)
    output = session.output
    for piece in session.client.read(path, timeout=session.timeout):
        output.totals["bytes"] += len(piece)
        if output.as_json:
            from base64 import b64encode

            output.event("content", path, data=b64encode(piece).decode("ascii"))
        else:
            output.write(piece)
