"""Run ``act serve`` as a process of its own, as users do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.spawner import Spawned, run, spawn

ROOT = Path(__file__).parents[2]
LIMIT_SEC = 20.0


class Served:
    """A running ``act serve`` on a free port. Leaving the block kills it if it still runs.

    Attributes:
        url: where it listens.
        line: what it printed when it was ready.
    """

    def __init__(
        self, folder: Path, *flags: str, env: Mapping[str, str] | None = None, before: Callable[[], None] | None = None
    ) -> None:
        self.errors = folder / "stderr.txt"
        reads, writes = os.pipe()
        self.stdout = os.fdopen(reads)
        arguments = ("serve", "--port", "0", *flags)
        self.process: Spawned | subprocess.Popen[bytes]
        with self.errors.open("ab") as errors, os.fdopen(writes, "wb") as out:
            if before is None:
                self.process = spawn("act", *arguments, cwd=folder, env=environment(env), stdout=out, stderr=errors)
            else:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "act", *arguments],
                    cwd=folder,
                    env=environment(env),
                    stdout=out,
                    stderr=errors,
                    preexec_fn=before,  # noqa: PLW1509 - it only sets a limit, which no lock can hold up
                )
        self.line = self.stdout.readline().strip()
        found = re.search(r"http://[^,]+", self.line)
        assert found, self.errors.read_text()
        self.url = found[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.stdout.close()

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit code and how many seconds it took."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(LIMIT_SEC)
        return code, time.monotonic() - begin

    def kill(self) -> None:
        """End it as a power cut would, as far as the process is concerned."""
        self.process.kill()
        self.process.wait()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without settings of ours, plus ``extra``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ACT_", "OMS_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **(extra or {})}


def act(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run an ``act`` command that ends by itself."""
    ended = run("act", *arguments, cwd=folder, env=environment(env), limit_sec=LIMIT_SEC)
    return subprocess.CompletedProcess(ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode())
