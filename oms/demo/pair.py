"""Both services as processes of their own, on free ports, with their data in one folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

START_LIMIT_SEC = 60.0
STOP_LIMIT_SEC = 10.0
POLL_SEC = 0.05
TAIL_LINES = 20
_ADDRESS = re.compile(r"listening on (http://[^\s,]+)")
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
_NO_PROXY_FOR = "127.0.0.1,localhost"


class ServiceDiedError(Exception):
    """A service ended, or did not become ready; the message ends with the last lines of its log."""


class ServiceProcess:
    """One service on a free port of this machine, started by `start`; started again, it keeps its port.

    Args:
        name: ``oms`` or ``act``: the module that is run.
        folder: where its log goes, ``<name>.log``.
        flags: of ``serve``, without ``--port``.
        environment: further variables for it; those of the services in this process's own are not passed on.
        poll_sec: how often it is looked at while it starts.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        flags: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        poll_sec: float = POLL_SEC,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._flags = list(flags)
        self._port = "0"
        self._poll_sec = poll_sec
        self._environment = _environment() | dict(environment or {})
        self._spawned: Future[subprocess.Popen[bytes]] | None = None
        self._url: str | None = None

    def start(self) -> None:
        """Start the process; its log goes on where an earlier one ended."""
        self._url = None
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            # In a thread, where no signal handler runs: one that raises between the fork and the note of the child
            # would leave a process behind that nobody knows.
            self._spawned = _SPAWNER.submit(
                subprocess.Popen,
                [sys.executable, "-m", self.name, "serve", *self._flags, "--port", self._port],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                # Ctrl-C is for whoever started it: the services end in order, after the workers.
                start_new_session=True,
            )
            self._spawned.result()

    @property
    def pid(self) -> int | None:
        """The number of its process; None before it was first started."""
        return None if self._spawned is None else self._spawned.result().pid

    @property
    def url(self) -> str:
        """The address that it listens on; waits until it says so.

        Raises:
            ServiceDiedError: it did not.
        """
        give_up_at = time.monotonic() + START_LIMIT_SEC
        while self._url is None:
            found = _ADDRESS.search(self._log_text())
            if found is not None:
                self._url = found[1]
                self._port = self._url.rpartition(":")[2]
            else:
                self.check_alive()
                self._pause(give_up_at, "does not say where it listens")
        return self._url

    def wait_ready(self) -> None:
        """Return once ``/readyz`` answers 200.

        Raises:
            ServiceDiedError: it ended, or the limit is over.
        """
        give_up_at = time.monotonic() + START_LIMIT_SEC
        with httpx.Client(trust_env=False, timeout=5) as http:
            while True:
                try:
                    if http.get(f"{self.url}/readyz").is_success:
                        return
                except httpx.TransportError:
                    pass
                self.check_alive()
                self._pause(give_up_at, "does not become ready")

    def check_alive(self) -> None:
        """Return while it runs.

        Raises:
            ServiceDiedError: it has ended.
        """
        status = None if self._spawned is None else self._spawned.result().poll()
        if status is not None:
            raise ServiceDiedError(f"{self.name} has ended with status {status}. Its log ends:\n{self.tail()}")

    def tail(self) -> str:
        """Return the last lines of its log; a traceback, which a JSON line holds in one text, as lines again."""
        lines = self._log_text().replace("\\n", "\n").splitlines()
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])

    def stop(self, *, kill: bool = False) -> int | None:
        """End it and return its exit status; None where it never started. ``kill``: as a power cut does."""
        if self._spawned is None:
            return None
        process = self._spawned.result()
        if process.poll() is None:
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            return process.wait(STOP_LIMIT_SEC)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _log_text(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_from)
            return log.read().decode("utf-8", "replace")

    def _pause(self, give_up_at: float, fault: str) -> None:
        if time.monotonic() > give_up_at:
            raise ServiceDiedError(f"{self.name} {fault} within {START_LIMIT_SEC:.0f} s. Its log ends:\n{self.tail()}")
        time.sleep(self._poll_sec)


class Pair:
    """OMS and ACT, ready to be used; a context that ends both.

    Args:
        folder: where their databases and logs go.
        plans: the plan folder.
        oms_environment: further variables for OMS.
    """

    def __init__(self, folder: Path, plans: Path, *, oms_environment: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._plans = plans
        self._oms_environment = oms_environment
        self.act = ServiceProcess("act", folder, ["--database-url", f"sqlite:///{folder / 'act.db'}"])
        self.oms: ServiceProcess | None = None

    def __enter__(self) -> Self:
        try:
            self.act.start()
            flags = ["--database-url", f"sqlite:///{self._folder / 'oms.db'}", "--plans", str(self._plans)]
            flags += ["--act-url", self.act.url]
            self.oms = ServiceProcess("oms", self._folder, flags, environment=self._oms_environment)
            self.oms.start()
            self.oms.wait_ready()
            self.act.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def oms_url(self) -> str:
        """OMS's address."""
        assert self.oms is not None
        return self.oms.url

    @property
    def act_url(self) -> str:
        """ACT's address."""
        return self.act.url

    def check_alive(self) -> None:
        """Return while both run.

        Raises:
            ServiceDiedError: one has ended.
        """
        for service in (self.act, self.oms):
            if service is not None:
                service.check_alive()

    def close(self) -> None:
        """End OMS, then ACT: OMS gives what it still has to ACT on its way out."""
        for service in (self.oms, self.act):
            if service is not None:
                service.stop()


def _environment() -> dict[str, str]:
    """Return this process's variables without the services' settings: a demo must not write to anybody's database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMS_", "ACT_"))}
    for name in ("NO_PROXY", "no_proxy"):
        kept[name] = ",".join(filter(None, [_NO_PROXY_FOR, kept.get(name)]))
    return kept
