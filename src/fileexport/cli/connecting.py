"""From options and environment to a `Client`, and the frame around every command that uses one."""

from __future__ import annotations

import functools
import os
import stat
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from fileexport.cli import INTERRUPTED
from fileexport.cli.output import USAGE, Closed, Output
from fileexport.errors import FileExportError, FileNameError
from fileexport.paths import RelPath

if TYPE_CHECKING:
    from fileexport.client.blocking import Client

PORT = 6768
#: Bytes of a token file that are read.
_MAX_TOKEN_FILE = 64 << 10
#: Milliseconds that a client can wait for an answer: `client.connection.MAX_TIMEOUT`, without its imports.
MAX_TIMEOUT = 2_000_000_000
_YES, _NO = frozenset(("1", "true", "yes", "on")), frozenset(("0", "false", "no", "off", ""))


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
    click.option("--port", metavar="PORT", help=f"Its port [FILEEXPORT_PORT; {PORT}]."),
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
    text = str(error)
    if "is another machine" in text:
        machine = text.partition(":")[0]
        return f"{machine}: give --public-key or --ca-file, or --tls, or --no-tls where no stranger listens"
    return text


# -- what the environment says


def settings_of(server: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of `Client`: options first, then environment. Raises `click.UsageError`."""
    hostname = server["hostname"] or environ.get("FILEEXPORT_HOSTNAME")
    if not hostname:
        raise click.UsageError("no server is named: set FILEEXPORT_HOSTNAME or give --hostname")
    tls = server["tls"] if server["tls"] is not None else _switch(environ, "FILEEXPORT_TLS")
    return {
        "hostname": hostname,
        "port": _port(server["port"] or environ.get("FILEEXPORT_PORT") or str(PORT)),
        "token": read_token(environ),
        "public_key": server["public_key"] or environ.get("FILEEXPORT_PUBLIC_KEY") or None,
        "ca_file": server["ca_file"] or environ.get("FILEEXPORT_CA_FILE") or None,
        "tls": tls,
        "timeout": server["timeout"],
    }


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        raise click.UsageError("the port is a number from 1 to 65535 (--port or FILEEXPORT_PORT)")
    return int(text)


def _switch(environ: Mapping[str, str], name: str) -> bool | None:
    if name not in environ:
        return None
    value = environ[name].strip().lower()
    if value not in _YES | _NO:
        raise click.UsageError(f"{name} is 1 or 0")
    return value in _YES if value else None


def read_token(environ: Mapping[str, str]) -> str:
    """The token, from FILEEXPORT_TOKEN or else the file that FILEEXPORT_TOKEN_FILE names.

    Never from the command line, which every process sees. Raises `click.UsageError`.
    """
    if token := environ.get("FILEEXPORT_TOKEN"):
        return token
    name = environ.get("FILEEXPORT_TOKEN_FILE")
    if not name:
        raise click.UsageError(
            "there is no token: set FILEEXPORT_TOKEN, or FILEEXPORT_TOKEN_FILE to its file"
        )
    try:
        text = _read_secret(name)
    except OSError as error:
        raise click.UsageError(f"FILEEXPORT_TOKEN_FILE: the file cannot be read: {error.strerror}") from None
    for line in text.splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            if words[0].startswith("fex1:"):
                raise click.UsageError("FILEEXPORT_TOKEN_FILE: the file holds a token's stored form only")
            return words[0]
    raise click.UsageError("FILEEXPORT_TOKEN_FILE: the file holds no token")


def _read_secret(name: str) -> str:
    """A file that nobody else may read; a pipe will do."""
    with open(name, "rb") as file:
        about = os.fstat(file.fileno())
        if stat.S_ISREG(about.st_mode) and about.st_mode & 0o077:
            raise click.UsageError("FILEEXPORT_TOKEN_FILE: others may read or write the file: chmod 600 it")
        return file.read(_MAX_TOKEN_FILE).decode("ascii", "replace")


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
