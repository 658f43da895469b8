"""The command line: `fileexport COMMAND …`. Each command's module is imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

#: Command → its module in this package. Start-up time is the reason: most commands need few imports.
COMMANDS = {
    "run": "daemon",
    "start": "daemon",
    "stop": "daemon",
    "generate-token": "secret",
    "hash-token": "secret",
    "generate-keys": "secret",
}


class _Lazy(click.Group):
    """A group whose commands live in modules that are imported when they are asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f"fileexport.cli.{COMMANDS[name]}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command line. A mistake in it is one line, and status 2."""
        try:
            return super().main(*args, **{**extra, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "fileexport"
            click.echo(f"Error: {error.format_message()} (see {where} --help)", err=True)
            sys.exit(error.exit_code)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(1)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fileexport", message="%(prog)s %(version)s")
def main() -> None:
    """Export one directory of files over HTTP."""
