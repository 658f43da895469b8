"""`generate-token`, `hash-token`, `generate-keys`: secrets made and stored."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from fileexport.keys import generate_keys as make_keys
from fileexport.tokens import MAX_TOKEN, check_token, is_weak
from fileexport.tokens import generate_token as make_token
from fileexport.tokens import hash_token as stored_form


@click.command()
def generate_token() -> None:
    """Print a new token of 256 random bits, alone on its line."""
    click.echo(make_token())


@click.command()
def hash_token() -> None:
    """Read a token from standard input, print the form that a token file may hold instead."""
    # There is none behind the shell's `<&-`.
    line = sys.stdin.buffer.readline(MAX_TOKEN + 2) if sys.stdin is not None else b""
    token = line.decode("ascii", "replace").strip()
    try:
        check_token(token)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if is_weak(token):
        click.echo(
            "warning: this token is easy to guess; fileexport generate-token makes a better one", err=True
        )
    click.echo(stored_form(token))


@click.command()
@click.option(
    "--out",
    type=click.Path(),
    default="fileexport.pem",
    metavar="FILE",
    help="The file, never an existing one.",
)
def generate_keys(out: str) -> None:
    """Write a private key with its certificate to a new file of mode 0600; print the key's pin."""
    public_key, private_key = make_keys()
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        why = (
            "it exists already; name another with --out"
            if isinstance(error, FileExistsError)
            else error.strerror
        )
        click.echo(f"Error: {out}: {why}", err=True)
        raise SystemExit(6 if isinstance(error, FileExistsError | PermissionError) else 1) from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(private_key)
        file.flush()
        os.fsync(file.fileno())
    click.echo(f"public key: {public_key}")
    click.echo(f"private key: {Path(out)}")
