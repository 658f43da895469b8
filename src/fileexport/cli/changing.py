"""`file`, `directory`, `remove`, `move`: one change on a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from fileexport.cli.connecting import Session, absolute, client_command, in_directory, single_name
from fileexport.cli.output import count


def _naming(command: Callable[..., Any]) -> Callable[..., Any]:
    """The parameters of what makes something new."""
    exist_ok = click.option(
        "-u", "--exist-ok", is_flag=True, help="An existing one is as good, and stays as it is."
    )
    for parameter in (exist_ok, click.argument("directory", default="/"), click.argument("name")):
        command = parameter(command)
    return command


@click.command()
@_naming
@client_command
def file(session: Session, **given: Any) -> None:
    """Create an empty remote file.

    It is called NAME, in a remote DIRECTORY (default: /).
    """
    _create(session, session.client.create_file, "create", **given)


def _make_directory(session: Session, **given: Any) -> None:
    """Create a remote directory.

    It is called NAME, in a remote DIRECTORY (default: /).
    """
    _create(session, session.client.make_directory, "make_directory", **given)


directory, folder = (
    click.command(name)(_naming(client_command(_make_directory))) for name in ("directory", "folder")
)


def _create(
    session: Session, create: Callable[..., None], action: str, *, name: str, directory: str, exist_ok: bool
) -> None:
    directory, name = absolute(directory), single_name(name, "fileexport COMMAND NAME DIRECTORY")
    output = session.output
    output.subject = path = in_directory(directory, name)
    if not exist_ok:
        output.hints = {FileExistsError: "-u accepts it, or choose another name"}
    create(name, directory, timeout=session.timeout, exist_ok=exist_ok)
    output.action(action, path)


@click.command()
@click.argument("path_or_name", metavar="PATH | NAME DIRECTORY")
@click.argument("directory", required=False, metavar="")
@click.option("-r", "--recursive", is_flag=True, help="A directory with all its contents.")
@client_command
def remove(session: Session, path_or_name: str, directory: str | None, recursive: bool) -> None:
    """Remove a remote file or directory.

    It is named by its PATH, or by its NAME in a DIRECTORY. A directory that is not empty needs -r. Links are
    removed, never followed.
    """
    if directory is None:
        path = absolute(path_or_name)
    else:
        name = single_name(path_or_name, "fileexport remove PATH, or NAME DIRECTORY")
        path = in_directory(absolute(directory), name)
    if path == "/":
        raise click.UsageError("the root itself cannot be removed")
    output = session.output
    output.subject = path
    output.hints = {IsADirectoryError: "-r removes it with its contents"}
    removed = session.client.remove(path, recursive=recursive, timeout=session.timeout)
    output.totals["removed"] += removed
    output.action("remove", path, count=removed)
    if recursive:
        output.say(f"removed {count(removed, 'entry')}")


@click.command()
@click.argument("source")
@click.argument("target")
@client_command
def move(session: Session, source: str, target: str) -> None:
    """Rename a remote file or directory.

    SOURCE and TARGET are whole paths. An existing TARGET is never replaced.
    """
    source, target = absolute(source), absolute(target)
    output = session.output
    output.subject = source
    session.client.move(source, target, timeout=session.timeout)
    output.action("move", source, target=target)
