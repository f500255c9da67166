"""The command ``oms``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

import oms
from hmskit.copying import CannotCopyError, is_unfinished
from hmskit.database import CannotOpenError
from hmskit.logs import configure_logs
from hmskit.server import CannotListenError, bind, serve
from hmskit.settings import SettingsError, print_settings, read_settings, takes_settings
from oms.config import Settings
from oms.domain.errors import UnavailableError
from oms.plan_cli import plan_cli
from oms.storage.store import Store, open_store

cli = typer.Typer(
    name="oms",
    help="OMS, the tower: hands the tasks of plans to those who do them, and loses none.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(plan_cli, name="plan")


@cli.callback(invoke_without_command=True)
def _root(*, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"oms {oms.__version__}")
        raise typer.Exit


@cli.command("serve")
@takes_settings(Settings)
def serve_command(settings: Settings) -> None:
    """Run OMS until SIGTERM or Ctrl-C. SIGHUP reads the plan folder again."""
    from oms.api.front import front  # noqa: PLC0415
    from oms.app import create_app, end_waits, reload_soon  # noqa: PLC0415 - the other commands start without it

    configure_logs(level=settings.log_level)
    if not settings.plans.is_dir():
        _stop(f"the plan folder {settings.plans} does not exist: create it, or name another with OMS_PLANS or --plans")
    store = _open(settings, may_migrate=settings.migrate)
    try:
        listener = bind(settings.host, settings.port)
    except CannotListenError as error:
        store.close()
        _stop(str(error))
    if store.warning is not None:
        typer.echo(f"oms: warning: {store.warning}", err=True)
    app = create_app(settings, store)
    host, port = listener.getsockname()[:2]

    def say_ready() -> None:
        typer.echo(
            f"oms: listening on http://{host}:{port}, plans {settings.plans}, "
            f"database {store.name}, ledger {settings.act_url}"
        )
        sys.stdout.flush()

    serve(
        app,
        listener,
        protocol=front(app),
        on_ready=say_ready,
        on_stop=lambda: end_waits(app),
        on_hangup=lambda: reload_soon(app),
    )


@cli.command("settings")
def settings_command() -> None:
    """Show each setting: its variable, its value now, its default, and what it is."""
    print_settings(Settings)


@cli.command("migrate")
def migrate_command(
    database_url: Annotated[str | None, typer.Option(help="The database; default: OMS_DATABASE_URL.")] = None,
) -> None:
    """Bring the database's schema up to date. ``oms serve`` does it by itself unless OMS_MIGRATE=0."""
    try:
        settings = read_settings(Settings, database_url=database_url)
    except SettingsError as error:
        _stop(str(error), code=2)
    store = _open(settings, may_migrate=True)
    store.close()
    typer.echo(f"oms: {store.name} is up to date")


@cli.command("copy")
def copy_command(
    source: Annotated[str, typer.Option("--from", help="The database to copy, as OMS_DATABASE_URL names it.")],
    target: Annotated[str, typer.Option("--to", help="An empty database, or a copy that was not finished.")],
) -> None:
    """Copy all of OMS to another database, SQLite or PostgreSQL, and check the copy. Stop both services before."""
    from oms.copy import run_copy  # noqa: PLC0415 - the other commands start without it

    try:
        run_copy(source, target, Console(stderr=True))
    except (CannotCopyError, CannotOpenError) as error:
        _stop(str(error))
    except UnavailableError as error:
        _stop(f"{error.detail} The copy goes on where it was when the same command is run again.")
    typer.echo("oms: the copy is complete and checked; name it in OMS_DATABASE_URL")


@cli.command("demo")
def demo_command(
    jobs: Annotated[int, typer.Option(min=1, max=10_000, help="How many passport renewals.")] = 12,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the services up and print their addresses.")] = False,
    log: Annotated[
        Path | None, typer.Option(help="Replay this event log (CSV with XES columns) instead of passport renewals.")
    ] = None,
) -> None:
    """Start both services in a temporary folder, run passport renewals through them, and check the ledger."""
    from oms.demo import run_demo  # noqa: PLC0415 - the other commands start without it

    raise typer.Exit(run_demo(jobs=jobs, keep=keep, log=log))


@cli.command("bench")
def bench_command(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A reduced run, within a minute.")] = False,
    oms_url: Annotated[
        str | None,
        typer.Option("--oms", help="Measure the OMS at this address, from outside; plans and jobs are left in it."),
    ] = None,
    act_url: Annotated[str | None, typer.Option("--act", help="The ACT of --oms.")] = None,
    oms_server: Annotated[
        str | None,
        typer.Option("--oms-database-url", help="A PostgreSQL server: databases for OMS are made there, and dropped."),
    ] = None,
    act_server: Annotated[str | None, typer.Option("--act-database-url", help="The same for ACT.")] = None,
    towers: Annotated[int, typer.Option(min=1, max=32, help="How many OMS share the throughput's load.")] = 1,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, max=600, help="Of each throughput measurement; default 4, quick 0.5.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file too.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Measure only this, such as throughput or backlog; repeatable.")
    ] = None,
) -> None:
    """Measure the pair, each throughput beside a bare FastAPI no-op's. The full run takes about 25 minutes."""
    from oms.bench.run import run_bench  # noqa: PLC0415 - the other commands start without it

    raise typer.Exit(
        run_bench(
            quick=quick,
            oms_url=oms_url,
            act_url=act_url,
            seconds=seconds,
            json_file=json_file,
            only=only or (),
            servers=(oms_server, act_server),
            towers=towers,
        )
    )


def _open(settings: Settings, *, may_migrate: bool) -> Store:
    try:
        store = open_store(settings.database_url, may_migrate=may_migrate, writers=settings.writers)
        with store.reading() as connection:
            is_usable = not is_unfinished(connection)
    except (CannotOpenError, UnavailableError) as error:
        _stop(str(error))
    if not is_usable:
        store.close()
        _stop(f"{store.name} is a copy that was not finished: run the same 'oms copy' again")
    return store


def _stop(message: str, *, code: int = 1) -> NoReturn:
    typer.echo(f"oms: {message}", err=True)
    raise typer.Exit(code)


def main() -> None:
    """Run the command line."""
    cli()
