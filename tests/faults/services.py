"""The two services as processes, which can be killed and started again on the same files and ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx

ROOT = Path(__file__).parents[2]
START_LIMIT_SEC = 30.0
STOP_LIMIT_SEC = 10.0
"""The contract's: a stop takes no longer."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until(condition: Callable[[], object], *, what: str, limit_sec: float = START_LIMIT_SEC) -> None:
    """Wait until ``condition`` holds, or fail saying what did not come."""
    ends = time.monotonic() + limit_sec
    while not condition():
        assert time.monotonic() < ends, f"did not come within {limit_sec} s: {what}"
        time.sleep(0.01)


class Served:
    """A service as a process.

    Attributes:
        url: where it is.
        log: its standard output and error, of all its runs.
    """

    def __init__(self, name: Literal["oms", "act"], folder: Path, **settings: Any) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{name}.log"
        self._folder = folder
        prefix = f"{name.upper()}_"
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMS_", "ACT_"))}
        self._environment |= {prefix + key.upper(): str(value) for key, value in settings.items()}
        self._environment["PYTHONPATH"] = str(ROOT)
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, *, is_ready: bool = True) -> None:
        """Start it; return when it is ready, or at once."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.name, "serve", "--port", str(self.port)],
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if is_ready:
            wait_until(self._answers, what=f"{self.name} is ready: {self.log.read_text()[-2000:]}")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} has ended: {self.log.read_text()[-2000:]}"
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, *, limit_sec: float = STOP_LIMIT_SEC) -> int:
        """Wait for its end; return its exit code."""
        assert self._process is not None
        return self._process.wait(limit_sec)

    def stop(self) -> int:
        """Stop it with SIGTERM; return its exit code."""
        self.signal(signal.SIGTERM)
        return self.end()

    def leave(self) -> None:
        """Kill it where it still runs."""
        if self._process is not None and self._process.poll() is None:
            self.kill()


@contextmanager
def serving(name: Literal["oms", "act"], folder: Path, **settings: Any) -> Iterator[Served]:
    """Run a service until the end of the block."""
    served = Served(name, folder, **settings)
    try:
        served.begin()
        yield served
    finally:
        served.leave()
