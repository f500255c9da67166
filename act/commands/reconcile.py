"""``act reconcile``: whether OMS and the ledger say the same."""

from __future__ import annotations

from typing import Annotated

import typer

from act.console import give_up, progress_bar

SHOWN = 20
"""How many differences are named; all are counted."""


def reconcile_services(
    oms_url: Annotated[str, typer.Argument(metavar="OMS", help="The address of a running OMS: http://...")],
    act_url: Annotated[str, typer.Argument(metavar="ACT", help="The address of a running ACT: http://...")],
    *,
    wait_sec: Annotated[
        float, typer.Option("--wait-sec", min=0, help="For how long events that are under way are waited for.")
    ] = 30.0,
) -> None:
    """Compare every job that OMS keeps with the ledger: its events add up to OMS's tables, and every receipt holds.

    So does every lane that was ever paused.

    Both may be at work meanwhile. Exit 1 on any difference, and where a job could not be compared.
    """
    import asyncio  # noqa: PLC0415 - `act --help` answers at once

    from act.reconcile import ReconcileError, reconcile  # noqa: PLC0415

    for url in (oms_url, act_url):
        if not url.startswith(("http://", "https://")):
            give_up(ReconcileError(f"{url}: name a running service, such as http://127.0.0.1:8001"), code=2)
    shown: list[str] = []

    def note(difference: str) -> None:
        if len(shown) < SHOWN:
            shown.append(difference)

    try:
        with progress_bar() as move:
            outcome = asyncio.run(
                reconcile(
                    oms_url,
                    act_url,
                    wait_sec=wait_sec,
                    on_difference=note,
                    on_progress=lambda done, of: move("jobs", done, of),
                )
            )
    except ReconcileError as error:
        give_up(error)
    for difference in shown:
        typer.echo(f"difference: {difference}")
    if outcome.differences > len(shown):
        typer.echo(f"... and {outcome.differences - len(shown):,} more")
    for job_id in outcome.waiting[:SHOWN]:
        typer.echo(f"not compared: {job_id} has events that ACT does not show after {wait_sec:g} s")
    if outcome.differences or outcome.waiting:
        typer.echo(
            f"act: of {outcome.jobs:,} jobs, {outcome.differences:,} differences, "
            f"{len(outcome.waiting):,} not compared: /readyz of both says whether events wait or signing has stopped",
        )
        raise typer.Exit(1)
    lanes = f" and {outcome.lanes:,} lanes" if outcome.lanes else ""
    typer.echo(
        f"act: {outcome.jobs:,} jobs{lanes} with {outcome.events:,} events: OMS and the ledger say the same, "
        "and every receipt holds"
    )
