"""Start load processes and read what they say."""

from __future__ import annotations

import json
import secrets
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import count
from types import TracebackType
from typing import Any, Self

from oms.bench.load import SERVE

LIMIT_SEC = 900.0
"""When a load counts as stuck; no measurement lasts so long."""
FILL_LIMIT_SEC = 3_600.0


class LoadError(Exception):
    """A load failed; the message ends with what it said."""


class Driver:
    """Runs loads in a process of their own, apart from the services and from this one; a context.

    Loads that run one after the other share a process, which saves its start; one that runs beside other work has
    its own.

    Args:
        watched: gives the processes whose use the loads note, by name, as they are now.
    """

    def __init__(self, watched: Callable[[], Mapping[str, int]]) -> None:
        self._watched = watched
        self._run_id = secrets.token_hex(4)
        self._numbers = count(1)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def load(self, scenario: str, url: str, *, limit_sec: float = LIMIT_SEC, **options: object) -> dict[str, Any]:
        """Run a load to its end; return its figures. Not `handoff`, which says more than its figures: `start` it.

        Args:
            scenario: see `oms.bench.load`.
            url: what it drives.
            limit_sec: when it counts as stuck.
            **options: its further options, ``_`` for ``-``; None leaves one out.

        Raises:
            LoadError: it failed, or is stuck.
        """
        if self._process is None:
            self._process = _process([SERVE])
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(self._arguments(scenario, url, options)) + "\n")
            process.stdin.flush()
        except OSError:
            raise LoadError(f"the load process ended before the load {scenario!r}") from None
        if not select.select([process.stdout], [], [], limit_sec)[0]:
            raise LoadError(f"the load {scenario!r} did not end within {limit_sec:.0f} s")
        return _figures(scenario, process.stdout.readline())

    def start(self, scenario: str, url: str, **options: object) -> Load:
        """Start a load that runs meanwhile."""
        return Load(scenario, self._arguments(scenario, url, options))

    def _arguments(self, scenario: str, url: str, options: Mapping[str, object]) -> list[str]:
        arguments = [scenario, url, "--prefix", f"{self._run_id}-{next(self._numbers)}"]
        for name, value in options.items():
            if value is not None:
                arguments += [f"--{name.replace('_', '-')}", str(value)]
        for name, pid in self._watched().items():
            arguments += ["--watch", f"{name}={pid}"]
        return arguments


class Load:
    """A running load; a context that leaves no process behind."""

    def __init__(self, scenario: str, arguments: list[str]) -> None:
        self._scenario = scenario
        self._process = _process(arguments)

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
            LoadError: it printed something else.
        """
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if said.rstrip("\n") != line:
            _figures(self._scenario, said)
            raise LoadError(f"the load {self._scenario!r} said {said!r}, not {line!r}")

    def end(self) -> None:
        """Ask it to end early; `result` then gives what it has."""
        self._process.terminate()

    def result(self, limit_sec: float) -> dict[str, Any]:
        """Wait for its end; return its figures.

        Raises:
            LoadError: it failed, or did not end within ``limit_sec``.
        """
        try:
            said, _ = self._process.communicate(timeout=limit_sec)
        except subprocess.TimeoutExpired:
            raise LoadError(f"the load {self._scenario!r} did not end within {limit_sec:.0f} s") from None
        return _figures(self._scenario, said.rstrip("\n").rpartition("\n")[2])


def _process(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "oms.bench.load", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        # Ctrl-C is for this process, which ends them.
        start_new_session=True,
    )


def _figures(scenario: str, line: str) -> dict[str, Any]:
    """Return what a load's last line says.

    Raises:
        LoadError: that it failed, or nothing.
    """
    try:
        figures: dict[str, Any] = json.loads(line)
    except ValueError:
        raise LoadError(f"the load {scenario!r} ended without figures: {line.strip() or 'it said nothing'}") from None
    if "error" in figures:
        raise LoadError(f"the load {scenario!r} failed: {figures['error']}")
    return figures
