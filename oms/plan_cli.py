"""The commands ``oms plan ...``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic_core import to_json
from rich.console import Console

from oms.domain.plan import Plan
from oms.plan_tools.drawing.mermaid import draw_mermaid
from oms.plan_tools.drawing.svg import draw_svg
from oms.plan_tools.drawing.text import draw_text
from oms.plan_tools.trial.clock import Clock
from oms.plan_tools.trial.given import read_failures, read_object, read_outputs, read_signals
from oms.plan_tools.trial.wanted import REFERENCE, Trial, TrialError
from oms.storage.plan_check import check_files
from oms.storage.plan_files import PlanFileError, plan_file_schema, read_plan

plan_cli = typer.Typer(help="Work with plan files.", no_args_is_help=True)


@plan_cli.command("check")
def plan_check(
    files: Annotated[list[Path], typer.Argument(help="Plan files.", metavar="FILE...")],
) -> None:
    """Validate plan files: each fault with file, line, column and what was expected. Exit 1 on any.

    What is allowed and will hurt is a warning, which leaves the exit code alone.
    """
    checked = check_files(files)
    for outcome in checked:
        for fault in outcome.faults:
            typer.echo(str(fault))
        for warning in outcome.warnings:
            typer.echo(f"{warning.file}:{warning.line}:{warning.column}: warning: {warning.detail}")
        plan = outcome.plan
        if plan is not None:
            typer.echo(f"{outcome.file}: ok: plan {plan.id}, {len(plan.steps)} steps, {len(plan.lanes)} lanes")
    if any(outcome.faults for outcome in checked):
        raise typer.Exit(1)


@plan_cli.command("schema")
def plan_schema() -> None:
    """Print the JSON Schema of plan files, for editors."""
    typer.echo(to_json(plan_file_schema(), indent=2).decode())


@plan_cli.command("show")
def plan_show(
    file: Annotated[Path, typer.Argument(help="A plan file.", metavar="FILE")],
    *,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Draw it as a Mermaid flowchart.")] = False,
    svg: Annotated[bool, typer.Option("--svg", help="Draw it as SVG.")] = False,
) -> None:
    """Draw a plan: as text that reads in 80 columns, as a Mermaid flowchart, or as SVG."""
    if mermaid and svg:
        raise typer.BadParameter("one drawing at a time: --mermaid or --svg")
    plan = _read(file)
    if svg:
        drawn = draw_svg(plan)
    elif mermaid:
        drawn = draw_mermaid(plan)
    else:
        drawn = draw_text(plan)
    typer.echo(drawn, nl=False)


@plan_cli.command("try")
def plan_try(
    files: Annotated[list[Path], typer.Argument(help="The plan, then the plans that it calls.", metavar="FILE...")],
    *,
    input_file: Annotated[
        Path | None, typer.Option("--input", help="The job's input, a JSON file. Default: {}.")
    ] = None,
    outputs: Annotated[
        Path | None,
        typer.Option(help="JSON: by activity what its workers give; a list: one for each round or item. Default: {}."),
    ] = None,
    fail: Annotated[
        list[str] | None, typer.Option(help="activity:n: its first n attempts fail; repeatable.", metavar="ACTIVITY:N")
    ] = None,
    signal: Annotated[
        list[str] | None,
        typer.Option(help="An event that comes when a job waits for it; repeatable.", metavar="NAME[=DATA.json]"),
    ] = None,
    absent: Annotated[
        list[str] | None, typer.Option(help="Nobody works in this lane; repeatable.", metavar="LANE")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(help="When the job starts, on the plan's clock. Default: now.", metavar="2026-03-02T09:00"),
    ] = None,
    reference: Annotated[str, typer.Option(help="The job's reference.")] = REFERENCE,
) -> None:
    """Walk a job through a plan without a server, and print its path, its tasks and the clock.

    The real engine runs, on a temporary database, with a clock that jumps to the next thing that is due. Work takes no
    time. Exit 1 when the job does not end done.
    """
    from oms.plan_tools.trial.report import print_walk  # noqa: PLC0415
    from oms.plan_tools.trial.walk import walk  # noqa: PLC0415 - the other commands start without it

    plans = [_read(file) for file in files]
    try:
        trial = Trial(
            plan=plans[0],
            start_ms=time.time_ns() // 1_000_000 if at is None else Clock(plans[0].timezone).read(at),
            others=plans[1:],
            input={} if input_file is None else read_object(input_file),
            reference=reference,
            outputs={} if outputs is None else read_outputs(outputs),
            failures=read_failures(fail or ()),
            signals=read_signals(signal or ()),
            absent=frozenset(absent or ()),
        )
        walked = walk(trial)
    except TrialError as error:
        typer.echo(f"oms: {error}", err=True)
        raise typer.Exit(1) from None
    print_walk(Console(highlight=False), plans[0], walked)
    raise typer.Exit(0 if walked.why is None else 1)


def _read(file: Path) -> Plan:
    """Return the plan of a file, or end with exit code 1 and its faults."""
    try:
        return read_plan(file.read_bytes(), file=str(file))
    except PlanFileError as error:
        typer.echo(str(error), err=True)
    except OSError as error:
        typer.echo(f"{file}: cannot be read: {error.strerror}", err=True)
    raise typer.Exit(1)
