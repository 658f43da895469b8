"""`run`, `start`, `stop`: the daemon for people who do not think in twistd."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from fileexport.cli import background
from fileexport.config import OPTIONS, Option, describe, flag_names
from fileexport.errors import ConfigurationError, row_for
from fileexport.option_values import parse_port
from fileexport.tokens import check_token

#: The exit status for mistakes in options: click's own.
MISTAKE = 2
#: The options of the table that are words of their own here: DIR and PORT.
WORDS = ("root", "transfer-port")


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of the one table, and its words DIR, PORT and TOKEN."""
    for option in reversed(OPTIONS):
        if option.name not in WORDS:
            command = _option(option)(command)
    command = click.argument("token", metavar="[TOKEN]", required=False, callback=_check_token)(command)
    command = click.argument("transfer_port", metavar="[PORT]", required=False, callback=_check_port)(command)
    return click.argument("directory", type=click.Path(), metavar="DIR")(command)


def _check_port(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what is no port. It is not repeated: it may be a token in the wrong place."""
    try:
        if value is not None:
            parse_port(value)
    except ValueError:
        raise click.UsageError("PORT is a number from 0 to 65535; TOKEN comes behind it") from None
    return value


def _check_token(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what cannot be a token, without repeating it."""
    try:
        if value is not None:
            check_token(value)
    except ValueError as error:
        raise click.UsageError(f"TOKEN: {error}") from None
    return value


def _option(option: Option) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    # Values stay text: `fileexport.config` reads them, so that all mistakes are named at once.
    names = (*flag_names(option), option.field)
    if option.flag:
        return click.option(*names, is_flag=True, help=describe(option))
    return click.option(*names, multiple=True, metavar=option.metavar, help=describe(option))


def _prepare(directory: str, token: str | None, given: dict[str, Any]) -> Any:
    from fileexport.startup import prepare

    flags = {option.name: given[option.field] or [] for option in OPTIONS if option.name != "root"}
    if token is not None:
        click.echo("warning: the process list shows TOKEN to everybody here; use --token-file", err=True)
    try:
        return prepare({**flags, "root": [directory]}, os.environ, token)
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(f"Error: {problem}", err=True)
        raise SystemExit(MISTAKE) from None


@click.command()
@_options
def run(directory: str, token: str | None, **given: Any) -> None:
    """Export DIR in the foreground until SIGTERM or Ctrl-C.

    PORT is the transfer protocol's, on loopback; TOKEN may do everything, and the process list shows it.
    """
    prepared = _prepare(directory, token, given)
    from fileexport import service

    service.run(prepared)


@click.command()
@_options
@click.option(
    "--pidfile", default="daemon.pid", metavar="FILE", show_default=True, help="Where its pid goes."
)
def start(directory: str, token: str | None, pidfile: str, **given: Any) -> None:
    """Export DIR in the background; returns when it listens.

    PORT is the transfer protocol's, on loopback; TOKEN may do everything, and the process list shows it.
    """
    prepared = _prepare(directory, token, given)
    path = Path(pidfile).absolute()
    from fileexport.startup import is_inside

    if is_inside(path.parent, prepared.settings.root):
        raise click.UsageError(
            f"the pid file {path} would lie in the exported directory; give --pidfile FILE"
        )
    log = prepared.settings.log_file or str(prepared.state / "daemon.log")
    try:
        background.start(prepared, path, log)
        pid = background.pid_of(path)
    except (background.AlreadyRunning, background.NotRunning, OSError) as error:
        _fail(error, 1)
    click.echo(f"fileexport runs as process {pid}; its log is {log}")


@click.command()
@click.option("--pidfile", default="daemon.pid", metavar="FILE", show_default=True, help="Where its pid is.")
def stop(pidfile: str) -> None:
    """End the daemon of the pid file, and wait until it has ended."""
    try:
        background.stop(Path(pidfile))
    except background.NotRunning as error:
        _fail(error, 1)
    except (background.StillRunning, OSError) as error:
        _fail(error, 5 if isinstance(error, background.StillRunning) else row_for(error).exit)


def _fail(error: Exception, status: int) -> NoReturn:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"Error: {where}{error.strerror}", err=True)
    else:
        click.echo(f"Error: {error}", err=True)
    raise SystemExit(status)
