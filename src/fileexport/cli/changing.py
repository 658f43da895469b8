"""`file`, `directory`, `remove`, `move`: one change on a server."""

from __future__ import annotations

import click

from fileexport.cli.connecting import Session, absolute, client_command, in_directory, single_name
from fileexport.cli.output import count
from fileexport.errors import DestinationNotFound

_EXIST_OK = click.option(
    "-u", "--exist-ok", is_flag=True, help="An existing one is as good, and stays as it is."
)


@click.command()
@click.argument("name")
@click.argument("directory", default="/")
@_EXIST_OK
@client_command
def file(session: Session, name: str, directory: str, exist_ok: bool) -> None:
    """Create an empty remote file.

    It is called NAME, in a remote DIRECTORY (default: /).
    """
    directory, name = absolute(directory), single_name(name, "fileexport file NAME DIRECTORY")
    path = _new(session, directory, name, exist_ok)
    session.client.create_file(name, directory, timeout=session.timeout, exist_ok=exist_ok)
    session.output.action("create", path)


def _make_directory(session: Session, name: str, directory: str, exist_ok: bool) -> None:
    """Create a remote directory.

    It is called NAME, in a remote DIRECTORY (default: /).
    """
    directory, name = absolute(directory), single_name(name, "fileexport directory NAME DIRECTORY")
    path = _new(session, directory, name, exist_ok)
    session.client.make_directory(name, directory, timeout=session.timeout, exist_ok=exist_ok)
    session.output.action("make_directory", path)


def _command(name: str) -> click.Command:
    function = client_command(_make_directory)
    for decorator in (_EXIST_OK, click.argument("directory", default="/"), click.argument("name")):
        function = decorator(function)
    return click.command(name)(function)


directory = _command("directory")
folder = _command("folder")


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
    try:
        session.client.move(source, target, timeout=session.timeout)
    except (FileExistsError, DestinationNotFound) as error:
        output.fail(error, target)
    else:
        output.action("move", source, target=target)


def _new(session: Session, directory: str, name: str, exist_ok: bool) -> str:
    """The path of what will be created; errors are about it."""
    path = in_directory(directory, name)
    session.output.subject = path
    if not exist_ok:
        session.output.hints = {FileExistsError: "-u accepts it, or choose another name"}
    return path
