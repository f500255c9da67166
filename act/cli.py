"""The command ``act``."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from typing import Annotated

import typer

import act
from act.commands import keys as key_commands
from act.commands import proofs as proof_commands
from act.commands.export import export_ledger
from act.commands.reconcile import reconcile_services
from act.config import Settings
from act.console import give_up, progress_bar
from hmskit.database import CannotOpenError
from hmskit.logs import configure_logs
from hmskit.server import CannotListenError, bind, serve
from hmskit.settings import SettingsError, print_settings, read_settings, takes_settings

main = typer.Typer(
    name="act",
    help="ACT, the flight log: an append-only ledger of every state change.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"act {act.__version__}")
        raise typer.Exit


@main.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """ACT, the flight log: an append-only ledger of every state change."""


@main.command("serve")
@takes_settings(Settings)
def run_service(settings: Settings) -> None:
    """Run the service until SIGTERM or Ctrl-C."""
    # Imported here, so that `act --help` answers at once.
    from act.app import create_app, end_streams  # noqa: PLC0415
    from act.domain.errors import UnavailableError  # noqa: PLC0415
    from act.keys import KeyFileError, open_keys  # noqa: PLC0415
    from act.storage.store import open_store  # noqa: PLC0415

    configure_logs(level=settings.log_level)
    try:
        listener = bind(settings.host, settings.port)
        store = open_store(settings.database_url, migrate=settings.migrate)
    except (CannotListenError, CannotOpenError) as error:
        give_up(error)
    try:
        keys = open_keys(
            settings.database_url, named=settings.signing_key, name=settings.log_name, on_made=key_commands.say_made
        )
        app = create_app(settings, store, keys=keys)
    except (KeyFileError, UnavailableError) as error:
        give_up(error)
    for warning in (store.warning, keys and keys.warning):
        if warning is not None:
            typer.echo(f"warning: {warning}", err=True)

    def say_ready() -> None:
        host, port = listener.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        typer.echo(f"act: listening on {address}, ledger {store.name}, {app.state.ledger.size} events")
        sys.stdout.flush()

    serve(app, listener, on_ready=say_ready, on_stop=lambda: end_streams(app))


@main.command("settings")
def show_settings() -> None:
    """Show every setting: its variable, its value now, its default and what it is."""
    print_settings(Settings)


@main.command("migrate")
def migrate(
    *,
    database_url: Annotated[
        str | None,
        typer.Option("--database-url", help="Where the ledger is kept [ACT_DATABASE_URL].", show_default=False),
    ] = None,
) -> None:
    """Bring the database's schema up to date, with the service stopped."""
    from act.storage.store import open_store  # noqa: PLC0415
    from act.storage.tables import SCHEMA_REVISION  # noqa: PLC0415

    try:
        store = open_store(read_settings(Settings, database_url=database_url).database_url, migrate=True)
    except SettingsError as error:
        give_up(error, code=2)
    except CannotOpenError as error:
        give_up(error)
    typer.echo(f"act: {store.name} is at {SCHEMA_REVISION}")
    store.close()


@main.command("copy")
def copy_ledger(
    *,
    source: Annotated[str, typer.Option("--from", help="The database URL of the ledger.")],
    target: Annotated[str, typer.Option("--to", help="The database URL of the copy: an empty database.")],
    anew: Annotated[
        bool, typer.Option("--rebuild", help="Make all but the entries anew from their bytes: see docs/incident.md.")
    ] = False,
) -> None:
    """Copy the ledger into another database, and compare the two: SQLite to PostgreSQL, or back.

    Stop ACT on both first. It may be stopped, and goes on when it is run again.
    """
    from act.copy import CopyError, copy, rebuild  # noqa: PLC0415
    from act.domain.errors import UnavailableError  # noqa: PLC0415
    from act.storage.store import open_store  # noqa: PLC0415

    if source == target:
        give_up(CopyError("--from and --to name the same database"), code=2)
    with ExitStack() as opened:
        try:
            one = opened.enter_context(closing(open_store(source, migrate=False)))
            other = opened.enter_context(closing(open_store(target, migrate=True)))
            with progress_bar() as on_progress:
                size = (rebuild if anew else copy)(one, other, on_progress=on_progress)
        except (CannotOpenError, CopyError) as error:
            give_up(error)
        except UnavailableError as error:
            give_up(CopyError(f"{error.detail}; run it again, and it goes on where it stopped"))
        what = "made anew from its bytes; now run `act verify`" if anew else "and each is the same"
        typer.echo(f"act: {other.name} has all {size} events of {one.name}, {what}")


main.command("export")(export_ledger)
main.command("reconcile")(reconcile_services)
proof_commands.add_to(main)
main.add_typer(key_commands.keys)


if __name__ == "__main__":
    main()
