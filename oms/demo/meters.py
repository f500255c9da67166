"""Progress: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

POLL_SEC = 0.1
PLAIN_EVERY_SEC = 2.0
PLAIN_FACTOR = 1.25


class StalledError(Exception):
    """Nothing moved for too long; the message says how far it came."""


class Meters:
    """Shows how far several counts are on their way to their totals; a context.

    Args:
        console: where to.
        totals: the goal of each count, by its label.
    """

    def __init__(self, console: Console, totals: Mapping[str, int]) -> None:
        self._console = console
        self._totals = dict(totals)
        self._counts = dict.fromkeys(totals, 0)
        self._shown: dict[str, int] = {}
        self._started_at = self._moved_at = time.monotonic()
        self._next_line_at = self._started_at + PLAIN_EVERY_SEC
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("  {task.description}"),
                BarColumn(bar_width=32),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=console,
            )
            self._bars = {label: self._progress.add_task(label, total=total) for label, total in totals.items()}

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        elif self._shown != self._counts:
            self._print_line()

    def show(self, **counts: int) -> None:
        """Show new counts, by label with ``_`` for blanks."""
        for key, count in counts.items():
            label = key.replace("_", " ")
            if count != self._counts[label]:
                self._counts[label] = count
                self._moved_at = time.monotonic()
            if self._progress is not None:
                self._progress.update(self._bars[label], completed=count)
        if self._progress is None and time.monotonic() >= self._next_line_at:
            self._print_line()

    def wait_for(self, is_done: Callable[[], bool], *, stall_sec: float) -> None:
        """Call ``is_done`` (which shows the counts and checks what must hold) until it is true.

        Raises:
            StalledError: no count moved for ``stall_sec``.
        """
        self._moved_at = time.monotonic()
        while not is_done():
            if time.monotonic() - self._moved_at > stall_sec:
                raise StalledError(f"nothing moved for {stall_sec:.0f} s: {self._line()}")
            time.sleep(POLL_SEC)

    def _line(self) -> str:
        return ", ".join(f"{label} {count}/{self._totals[label]}" for label, count in self._counts.items())

    def _print_line(self) -> None:
        passed_sec = time.monotonic() - self._started_at
        self._shown = dict(self._counts)
        # The longer it takes, the rarer the lines: a log is read by people.
        self._next_line_at = self._started_at + max(passed_sec + PLAIN_EVERY_SEC, passed_sec * PLAIN_FACTOR)
        self._console.print(f"  {passed_sec:5.1f} s  {self._line()}", highlight=False)
