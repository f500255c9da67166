"""What the commands have in common: how they end, and how they show that they are at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from rich.progress import TaskID

Progress = Callable[[str, int, int | None], None]
"""Told what is done now, how much of it is done, and of how much; None where nobody knows."""


def give_up(why: Exception | str, *, code: int = 1) -> NoReturn:
    """Say why on standard error, and end with the exit code."""
    typer.echo(f"error: {why}", err=True)
    raise typer.Exit(code) from None


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show a bar on standard error; give what moves it."""
    from rich.console import Console  # noqa: PLC0415 - `act --help` answers at once
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars: dict[str, TaskID] = {}

        def move(what: str, done: int, of: int | None) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=None)
            progress.update(bars[what], completed=done, total=of)

        yield move
