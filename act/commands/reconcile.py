"""``act reconcile``: whether OMS and the ledger say the same. Its exit codes are those of the auditor's commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from act.commands.proofs import NOT_CHECKED, Keys, read_keys
from act.console import give_up, progress_bar

if TYPE_CHECKING:
    from act.reconcile import Outcome

SHOWN = 20
"""How many differences are named; all are counted."""


def reconcile_services(
    oms_url: Annotated[str, typer.Argument(metavar="OMS", help="The address of a running OMS: http://...")],
    act_url: Annotated[str, typer.Argument(metavar="ACT", help="The address of a running ACT: http://...")],
    *,
    wait_sec: Annotated[
        float, typer.Option("--wait-sec", min=0, help="For how long events that are under way are waited for.")
    ] = 30.0,
    key: Keys = None,
) -> None:
    """Compare every job that OMS keeps with the ledger: its events add up to OMS's tables, and are in the signed tree.

    So is every lane that was ever paused. Both may be at work meanwhile. Exit code 1 on any difference; 2: not
    everything could be compared.
    """
    import asyncio  # noqa: PLC0415 - `act --help` answers at once

    from act.reconcile import ReconcileError, reconcile  # noqa: PLC0415

    for url in (oms_url, act_url):
        if not url.startswith(("http://", "https://")):
            give_up(ReconcileError(f"{url}: name a running service, such as http://127.0.0.1:8001"), code=NOT_CHECKED)
    keys = read_keys(key)
    if not keys:
        typer.echo("warning: no --key: who signed the ledger's checkpoint is not checked", err=True)
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
                    keys=keys,
                    wait_sec=wait_sec,
                    on_difference=note,
                    on_progress=lambda done, of: move("jobs", done, of),
                )
            )
    except ReconcileError as error:
        give_up(error, code=NOT_CHECKED)
    if outcome.differences or outcome.waiting:
        _say_differences(outcome, shown, wait_sec)
        raise typer.Exit(1 if outcome.differences else NOT_CHECKED)
    _say_same(outcome)


def _say_differences(outcome: Outcome, shown: list[str], wait_sec: float) -> None:
    for difference in shown:
        typer.echo(f"difference: {difference}")
    if outcome.differences > len(shown):
        typer.echo(f"... and {outcome.differences - len(shown):,} more")
    for job_id in outcome.waiting[:SHOWN]:
        typer.echo(f"not compared: {job_id} has events that ACT does not show after {wait_sec:g} s")
    typer.echo(
        f"act: of {outcome.jobs:,} jobs, {outcome.differences:,} differences, "
        f"{len(outcome.waiting):,} not compared: /readyz of both says whether events wait or signing has stopped",
    )


def _say_same(outcome: Outcome) -> None:
    lanes = f" and {outcome.lanes:,} lane{'s' if outcome.lanes > 1 else ''}" if outcome.lanes else ""
    same = f"act: {outcome.jobs:,} jobs{lanes} with {outcome.events:,} events: OMS and the ledger say the same"
    if outcome.tree_size is not None:
        typer.echo(f"{same}, and every receipt is in the signed tree of {outcome.tree_size:,} entries")
        return
    typer.echo(f"{same}, and every receipt holds")
    if outcome.events:
        typer.echo("warning: ACT has signed nothing: that the events are in its tree could not be checked", err=True)
