"""Show how far a copy has come: a bar on a terminal, a line for each table elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class CopyMeter:
    """A context; what it is told within its block, it shows.

    Args:
        console: of standard error.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rows"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, what: str, *, total: int, done: int = 0) -> None:
        """Begin a part of so many rows, of which some may be done already."""
        self._task = self._bar.add_task(what, total=total, completed=done)
        if done:
            self.say(f"goes on after {done:,} rows that were copied before")

    def advance(self, rows: int) -> None:
        """Show that so many rows more are done."""
        assert self._task is not None
        self._bar.advance(self._task, rows)

    def say(self, line: str) -> None:
        """Print a line, above the bar."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
