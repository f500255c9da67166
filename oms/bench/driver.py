"""Start load processes and read what they say."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import count
from types import TracebackType
from typing import Any, Self

LIMIT_SEC = 900.0
"""When a load counts as stuck; no measurement lasts so long."""
FILL_LIMIT_SEC = 3_600.0


class LoadError(Exception):
    """A load process failed; the message ends with what it said."""


class Driver:
    """Runs loads, each in a process of its own, so that no load shares a core with the parent's work.

    Args:
        watched: gives the processes whose use the loads note, by name, as they are now.
    """

    def __init__(self, watched: Callable[[], Mapping[str, int]]) -> None:
        self._watched = watched
        self._run_id = secrets.token_hex(4)
        self._numbers = count(1)

    def load(self, scenario: str, url: str, *, limit_sec: float = LIMIT_SEC, **options: object) -> dict[str, Any]:
        """Run a load to its end; return its figures.

        Args:
            scenario: see `oms.bench.load`.
            url: what it drives.
            limit_sec: when it counts as stuck.
            **options: its further options, ``_`` for ``-``; None leaves one out.

        Raises:
            LoadError: it failed, or is stuck.
        """
        with self.start(scenario, url, **options) as load:
            return load.result(limit_sec)

    def start(self, scenario: str, url: str, **options: object) -> Load:
        """Start a load that runs meanwhile."""
        command = [sys.executable, "-m", "oms.bench.load", scenario, url]
        command += ["--prefix", f"{self._run_id}-{next(self._numbers)}"]
        for name, value in options.items():
            if value is not None:
                command += [f"--{name.replace('_', '-')}", str(value)]
        for name, pid in self._watched().items():
            command += ["--watch", f"{name}={pid}"]
        return Load(scenario, command)


class Load:
    """A running load process; a context that leaves none behind."""

    def __init__(self, scenario: str, command: list[str]) -> None:
        self._scenario = scenario
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def wait_for_line(self, line: str) -> None:
        """Return once it has printed the line.

        Raises:
            LoadError: it ended, or printed something else.
        """
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if said.rstrip("\n") != line:
            self._process.kill()
            raise self._error("failed. ", said + self._process.communicate()[1])

    def end(self) -> None:
        """Ask it to end early; `result` then gives what it has."""
        self._process.terminate()

    def result(self, limit_sec: float) -> dict[str, Any]:
        """Wait for its end; return its figures.

        Raises:
            LoadError: it failed, or did not end within ``limit_sec``.
        """
        try:
            said, complaint = self._process.communicate(timeout=limit_sec)
        except subprocess.TimeoutExpired:
            self._process.kill()
            said, complaint = self._process.communicate()
            raise self._error(f"did not end within {limit_sec:.0f} s. ", said + complaint) from None
        if self._process.returncode != 0:
            raise self._error("failed. ", complaint or said)
        try:
            figures: dict[str, Any] = json.loads(said.splitlines()[-1])
        except (ValueError, IndexError):
            raise self._error("printed no figures. ", said) from None
        return figures

    def _error(self, what: str, said: str) -> LoadError:
        return LoadError(f"the load {self._scenario!r} {what}It said: {said.strip()[-2_000:] or 'nothing'}")
