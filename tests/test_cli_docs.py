"""docs/commands.md says what the command line does: commands, options, variables, exit codes, conflicts."""

from __future__ import annotations

import re

import click
from twisted.trial.unittest import SynchronousTestCase

from fileexport.cli import COMMANDS, INTERRUPTED, SECTIONS, main, output
from fileexport.cli.connecting import MAX_TIMEOUT
from fileexport.client.selection import CONFLICTS
from fileexport.client.sides import LISTED
from fileexport.errors import ERRORS
from tests.test_docs import commands, page, table, typed

CLIENT = SECTIONS["Files on a server"]
PAGE = page("docs/commands.md")


class CommandPageTests(SynchronousTestCase):
    """The manual page of the commands."""

    def test_commands(self) -> None:
        """It names every command."""
        for name in COMMANDS:
            self.assertRegex(PAGE, rf"(`|fileexport ){name}\b", name)

    def test_options(self) -> None:
        """It names every option of the client's commands, and no other."""
        known = {"--help", "--out", "--names"}
        for name in CLIENT:
            command = main.get_command(click.Context(main), name)
            assert command is not None
            for parameter in command.params:
                if isinstance(parameter, click.Option):
                    known |= {*parameter.opts, *parameter.secondary_opts}
        known -= {"-h", "--recursive", "--exist-ok"}
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE)) | set(re.findall(r"`(-[a-z])\b", PAGE))
        self.assertEqual(named - {"-h", "--recursive"}, known)

    def test_examples(self) -> None:
        """What is typed in its examples are commands with options that they have."""
        lines = list(typed(PAGE))
        self.assertTrue(lines)
        for line in lines:
            for program, name, *words in commands(line):
                self.assertEqual(program, "fileexport", line)
                command = main.get_command(click.Context(main), name)
                assert command is not None, line
                known = {spelling for parameter in command.params for spelling in parameter.opts}
                self.assertEqual({word for word in words if word.startswith("-")} - known, set(), line)

    def test_timeout(self) -> None:
        """The largest time-out is the client's."""
        self.assertIn(f" {MAX_TIMEOUT:,} at most", PAGE)

    def test_large_tree(self) -> None:
        """So many entries are listed at once."""
        self.assertIn(f" {LISTED:,}\n", PAGE)

    def test_variables(self) -> None:
        """The table of variables is the one of the options that have one."""
        rows = table(PAGE, "| variable | option | |")
        command = main.get_command(click.Context(main), "list")
        assert command is not None
        options = {
            parameter.opts[0]: parameter.help or ""
            for parameter in command.params
            if isinstance(parameter, click.Option)
        }
        for variable, spelled, _ in rows:
            name = spelled.split()[0].strip("`,") if spelled else ""
            if name:
                self.assertIn(variable.strip("`"), options[name])

    def test_exit_codes(self) -> None:
        """Every exit code that a command can end with is there, once, in order."""
        codes = {row.exit for row in ERRORS} | {output.DIFFERENT, output.LEFT_OUT, INTERRUPTED, 0}
        found = [int(code) for code, _ in table(PAGE, "| code | |")]
        self.assertEqual(found, sorted(codes))

    def test_conflicts(self) -> None:
        """Every policy about existing names is explained."""
        self.assertEqual(tuple(re.findall(r"^\| `--conflict (\w+)`", PAGE, re.MULTILINE)), CONFLICTS)
