"""The command line: `fileexport COMMAND …`. Each command's module is imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

#: Sections of the help, and in each: command → its module in this package. Start-up time is the reason for
#: the second half: most commands need few imports.
SECTIONS = {
    "Files on a server": {
        "list": "listing",
        "cat": "listing",
        "upload": "moving",
        "download": "moving",
        "sync": "syncing",
        "verify": "verifying",
        "file": "changing",
        "directory": "changing",
        "folder": "changing",
        "move": "changing",
        "remove": "changing",
        "compress": "jobs",
        "jobs": "jobs",
    },
    "The daemon": {
        "run": "daemon",
        "start": "daemon",
        "stop": "daemon",
    },
    "Secrets and the shell": {
        "generate-token": "secret",
        "hash-token": "secret",
        "generate-keys": "secret",
        "completion": "completion",
    },
}
COMMANDS = {name: module for section in SECTIONS.values() for name, module in section.items()}
#: The exit status of what Ctrl-C ended: 128 and the signal's number, as a shell gives it.
INTERRUPTED = 130


class _Lazy(click.Group):
    """A group whose commands live in modules that are imported when they are asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f"fileexport.cli.{COMMANDS[name]}")
        attribute = name.replace("-", "_")
        # `list_`, because `list` is Python's own.
        command: click.Command = getattr(module, attribute, None) or getattr(module, f"{attribute}_")
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands of the help, in sections."""
        width = max(map(len, COMMANDS))
        limit = formatter.width - width - 4
        for section, names in SECTIONS.items():
            with formatter.section(section):
                rows = []
                for name in names:
                    command = self.get_command(context, name)
                    if command is not None:
                        rows.append((name.ljust(width), command.get_short_help_str(limit=limit)))
                formatter.write_dl(rows)

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
            sys.exit(INTERRUPTED)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fileexport", message="%(prog)s %(version)s")
def main() -> None:
    """Export one directory of files, and work with one that another machine exports.

    Commands for files on a server find it by FILEEXPORT_HOSTNAME and FILEEXPORT_TOKEN, or by options.
    """
