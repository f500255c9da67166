"""``act key``: make, renew and show the log's keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act.config import Settings
from act.console import give_up
from hmskit.settings import SettingsError, read_settings

if TYPE_CHECKING:
    from act.keys import Keys

keys = typer.Typer(name="key", help="The key that signs checkpoints.", no_args_is_help=True)

FILE = typer.Option("--file", help="The key file; without it, the one that `act serve` takes.", show_default=False)


def say_made(made: Keys) -> None:
    """Say that there is a new signing key, where, and how others check what it signs."""
    typer.echo(
        f"act: made the signing key {made.path} of the log {made.origin}. Keep it, apart from the database's backup. "
        f"Its verifier key, for everybody: {made.signing.verifier}",
        err=True,
    )


@keys.command("new")
def new_key(
    *,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="The log's name, such as act.example.gov; no other log may have it.", show_default=False
        ),
    ] = None,
    file: Annotated[Path | None, FILE] = None,
) -> None:
    """Make the signing key; or put a new one in its place, and keep the verifier key of the old one.

    Checkpoints that the old key signed still verify. Restart ACT to sign with the new one. With another --name the
    file's key begins another log.
    """
    from act.keys import KeyFileError, default_name, make_keys, renew_keys  # noqa: PLC0415

    path = _path(file)
    try:
        made = renew_keys(path, name=name) if path.exists() else make_keys(path, name=name or default_name())
    except KeyFileError as error:
        give_up(error)
    typer.echo(f"act: {path} signs for the log {made.origin}")
    typer.echo(str(made.signing.verifier))


@keys.command("show")
def show_keys(*, file: Annotated[Path | None, FILE] = None) -> None:
    """Show the verifier keys, one a line: the one that signs now, then those before it. They are public."""
    from act.keys import KeyFileError, read_keys  # noqa: PLC0415

    try:
        found = read_keys(_path(file))
    except KeyFileError as error:
        give_up(error)
    for verifier in found.verifiers:
        typer.echo(str(verifier))


def _path(file: Path | None) -> Path:
    from act.keys import NO_KEY, key_path  # noqa: PLC0415

    if file is not None:
        return file
    try:
        settings = read_settings(Settings)
    except SettingsError as error:
        give_up(error, code=2)
    if settings.signing_key == NO_KEY:
        give_up("ACT_SIGNING_KEY is none: name the file with --file", code=2)
    return key_path(settings.database_url, settings.signing_key)
