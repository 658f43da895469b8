"""From options and environment to a `Client`, and the frame around every command that uses one."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from fileexport.cli import INTERRUPTED
from fileexport.cli.output import USAGE, Closed, Output
from fileexport.client import environment
from fileexport.errors import FileExportError, FileNameError
from fileexport.paths import RelPath

if TYPE_CHECKING:
    from fileexport.client.blocking import Client

#: Milliseconds that a client can wait for an answer: `client.connection.MAX_TIMEOUT`, without its imports.
MAX_TIMEOUT = 2_000_000_000


class Session:
    """What a command works with: the client, what it says, and its time-out."""

    def __init__(self, output: Output, server: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self.output = output
        self.timeout: int | None = server["timeout"]
        self._server = server
        self._environ = environ

    @functools.cached_property
    def client(self) -> Client:
        """The client; it connects when it is first used. Raises `click.UsageError`."""
        settings = settings_of(self._server, self._environ)
        from fileexport.client.blocking import Client

        try:
            return Client(**settings)
        except ValueError as error:
            raise click.UsageError(_in_our_words(error)) from None

    def close(self) -> None:
        """Leave the server."""
        if "client" in self.__dict__:
            self.client.close()


def client_command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of all client commands; it is called with a `Session` and its own."""

    @functools.wraps(function)
    def command(**given: Any) -> None:
        server = {name: given.pop(name) for name in _SERVER}
        output = Output(as_json=given.pop("as_json"), quiet=given.pop("quiet"))
        session = Session(output, server, os.environ)
        raise SystemExit(_carry_out(session, lambda: function(session, **given)))

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_SERVER = ("hostname", "port", "public_key", "ca_file", "tls", "timeout")
_OPTIONS = (
    click.option("--hostname", metavar="HOST", help="The server [FILEEXPORT_HOSTNAME]."),
    click.option("--port", metavar="PORT", help=f"Its port [FILEEXPORT_PORT; {environment.PORT}]."),
    click.option("--public-key", metavar="PIN", help="Its key's sha256/…; TLS [FILEEXPORT_PUBLIC_KEY]."),
    click.option(
        "--ca-file",
        type=click.Path(),
        metavar="FILE",
        help="Its authority's certificate; TLS [FILEEXPORT_CA_FILE].",
    ),
    click.option("--tls/--no-tls", default=None, help="With TLS, or surely without [FILEEXPORT_TLS]."),
    click.option(
        *("-t", "--timeout"),
        type=click.IntRange(1, MAX_TIMEOUT),
        metavar="MS",
        help="Milliseconds to wait for each answer [60000].",
    ),
    click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs."),
    click.option("--quiet", is_flag=True, help="Say nothing but results and errors."),
)


_SELECTING = (
    click.option(
        *("--exclude", "exclude"),
        multiple=True,
        metavar="PATTERN",
        help="Leave alone what this gitignore pattern matches (repeatable).",
    ),
    click.option(
        *("--include", "include"),
        multiple=True,
        metavar="PATTERN",
        help="But not what this one matches, in spite of --exclude (repeatable).",
    ),
)


def selecting(ignores: str) -> Callable[[Any], Any]:
    """Give a command the options that say what it leaves alone; `ignores` is the help of --gitignore."""

    def decorate(command: Any) -> Any:
        for option in (click.option("--gitignore", is_flag=True, help=ignores), *reversed(_SELECTING)):
            command = option(command)
        return command

    return decorate


def _carry_out(session: Session, work: Callable[[], None]) -> int:
    """Run a command's work; whatever happens is one line and a status."""
    output = session.output
    try:
        try:
            work()
        except click.UsageError as error:
            # The line itself is written further up, as that of any wrong usage.
            output.error_event("UsageError", error.format_message())
            output.event("summary", errors=1, left_out=0, exit=error.exit_code)
            output.flush()
            raise
        except ValueError as error:
            output.problem("ValueError", USAGE, _in_our_words(error), output.subject)
        except (OSError, FileExportError) as error:
            output.fail(error)
        except KeyboardInterrupt:
            output.interrupted()
        return output.finish()
    except KeyboardInterrupt:
        output.interrupted()
        return INTERRUPTED
    except Closed as closed:
        _forget_output()
        if closed.error is not None:
            output.as_json = False
            output.fail(closed.error, "standard output")
        return output.status
    finally:
        session.close()


def _forget_output() -> None:
    """Nobody reads: the interpreter must not complain about it when it flushes at its end."""
    if sys.stdout is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _in_our_words(error: ValueError) -> str:
    """What the library says of its parameters, in terms of the command line's."""
    machine, is_far, _ = str(error).partition(" is another machine")
    if is_far:
        return f"{machine}: give --public-key or --ca-file, or --tls, or --no-tls where no stranger listens"
    return str(error)


# -- what the environment says


def settings_of(server: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of `Client`: options first, then environment. Raises `click.UsageError`."""
    try:
        return environment.settings_of_environment(environ, **server)
    except ValueError as error:
        raise click.UsageError(_with_options(str(error))) from None


def _with_options(sentence: str) -> str:
    """What is said of variables, with the options that do the same."""
    sentence = sentence.replace("set FILEEXPORT_HOSTNAME", "set FILEEXPORT_HOSTNAME or give --hostname")
    return sentence.replace("(FILEEXPORT_PORT)", "(--port or FILEEXPORT_PORT)")


# -- arguments


def absolute(text: str) -> str:
    """A remote path. Raises `click.UsageError` for a relative one, or with names that cannot be."""
    if not text:
        raise click.UsageError("the remote path is empty")
    if not text.startswith("/"):
        raise click.UsageError(f"remote paths are absolute: give /{text.removeprefix('./')} with its slash")
    try:
        return str(RelPath.parse(text))
    except FileNameError as error:
        raise click.UsageError(f"{text}: {error}") from None


def named(text: str) -> str:
    """A local path. Raises `click.UsageError` for an empty one."""
    if not text:
        raise click.UsageError("the local path is empty")
    return text


def single_name(text: str, usage: str) -> str:
    """One name of a remote directory. Raises `click.UsageError`."""
    if "/" in text:
        raise click.UsageError(f"{text} is no name but a path: {usage}")
    try:
        return RelPath([text]).name
    except FileNameError as error:
        raise click.UsageError(str(error)) from None


def in_directory(directory: str, name: str) -> str:
    """The path of a name in a remote directory."""
    return f"{directory.rstrip('/')}/{name}"
