"""`completion`: what a shell has to read so that Tab completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

#: Where each shell looks for it.
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a SHELL.

    bash: add  eval "$(fileexport completion bash)"  to ~/.bashrc. zsh: the same with zsh in ~/.zshrc. fish:
    fileexport completion fish > ~/.config/fish/completions/fileexport.fish
    """
    from fileexport.cli import main

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(found(main, {}, "fileexport", "_FILEEXPORT_COMPLETE").source())
