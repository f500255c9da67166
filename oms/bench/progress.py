"""Say what is being measured: a line that changes on a terminal, a line per measurement elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status


class Progress:
    """Says it on standard error, so that standard output is the report alone; a context.

    Args:
        console: of standard error.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._title = ""
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    @property
    def passed_sec(self) -> float:
        """How long the run has taken."""
        return time.monotonic() - self._began

    def begin(self, title: str) -> None:
        """Begin a measurement."""
        self._title = title
        if self._status is None:
            self._console.print(f"{self.passed_sec:6.1f} s  {title}", highlight=False, markup=False)
        self.at("")

    def at(self, detail: str) -> None:
        """Say where in it the run is; on a terminal only."""
        if self._status is not None:
            self._status.update(f"{self.passed_sec:6.1f} s  {self._title}{': ' if detail else ''}{detail}")
