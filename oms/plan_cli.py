"""The commands ``oms plan ...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic_core import to_json

from oms.domain.plan import Plan
from oms.plan_tools.drawing.mermaid import draw_mermaid
from oms.plan_tools.drawing.svg import draw_svg
from oms.plan_tools.drawing.text import draw_text
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


def _read(file: Path) -> Plan:
    """Return the plan of a file, or end with exit code 1 and its faults."""
    try:
        return read_plan(file.read_bytes(), file=str(file))
    except PlanFileError as error:
        typer.echo(str(error), err=True)
    except OSError as error:
        typer.echo(f"{file}: cannot be read: {error.strerror}", err=True)
    raise typer.Exit(1)
