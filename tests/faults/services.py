"""The services as processes, which can be killed, stopped and started again on the same databases and ports."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx

from tests.spawner import Spawned, spawn

START_LIMIT_SEC = 60.0
STOP_LIMIT_SEC = 10.0
"""The contract's: a stop takes no longer."""


PORTS = range(15_000, 32_000)
"""Below those that the system gives to outgoing connections: none of these takes a port while its service is down."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def wait_until(condition: Callable[[], object], *, what: str, limit_sec: float = START_LIMIT_SEC) -> None:
    """Wait until ``condition`` holds, or fail saying what did not come."""
    ends = time.monotonic() + limit_sec
    while not condition():
        assert time.monotonic() < ends, f"did not come within {limit_sec} s: {what}"
        time.sleep(0.01)


async def until(condition: Callable[[], Awaitable[object]], *, what: str, limit_sec: float = START_LIMIT_SEC) -> None:
    """Wait until ``condition`` holds, which has to be asked for, or fail saying what did not come."""
    try:
        async with asyncio.timeout(limit_sec):
            while not await condition():  # noqa: ASYNC110 - it is in another process
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"did not come within {limit_sec} s: {what}") from None


class Served:
    """A service as a process.

    Attributes:
        name: which service it is.
        label: what tells it from others of that name.
        url: where it is.
        log: its standard output and error, of all its runs.
    """

    def __init__(self, name: Literal["oms", "act"], folder: Path, *, label: str | None = None, **settings: Any) -> None:
        self.name = name
        self.label = label or name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{self.label}.log"
        self._folder = folder
        prefix = f"{name.upper()}_"
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMS_", "ACT_"))}
        self._environment |= {prefix + key.upper(): str(value) for key, value in settings.items()}
        self._process: Spawned | None = None

    def begin(self, *, is_ready: bool = True) -> None:
        """Start it; return when it is ready, or at once."""
        with self.log.open("ab") as log:
            self._process = spawn(
                self.name,
                "serve",
                "--port",
                str(self.port),
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        if is_ready:
            wait_until(self._answers, what=f"{self.label} is ready")

    def last_words(self) -> str:
        """Return the end of its log."""
        return self.log.read_text()[-2000:]

    def _answers(self) -> bool:
        assert self.is_running, f"{self.label} has ended: {self.last_words()}"
        return self._is_ready()

    def _is_ready(self) -> bool:
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
    def is_running(self) -> bool:
        """Whether the process lives; it does, too, while it is stopped with SIGSTOP."""
        return self._process is not None and self._process.poll() is None

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
        if self.is_running:
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
