"""The services under measurement: a pair of our own, or one that is up already."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from oms.bench.databases import Databases
from oms.bench.plans import plan_files
from oms.bench.processes import Meter, cpu_sec
from oms.demo.pair import ServiceProcess

ANSWER_LIMIT_SEC = 120.0
START_POLL_SEC = 0.01
SETTLE_POLL_SEC = 0.05
SLOWEST_POLL_SEC = 2.0
POLL_SHARE = 0.1
"""Counting a backlog costs OMS something: a settling that takes long is looked at less often."""


class TargetError(Exception):
    """A service did not answer as it should."""


class Processes:
    """Service processes that are ours; a context that ends them.

    Args:
        services: by name, ``oms`` and ``act``.
    """

    def __init__(self, services: Mapping[str, ServiceProcess]) -> None:
        self.services = dict(services)

    def pids(self) -> dict[str, int]:
        """Return the processes' numbers."""
        return {name: service.pid for name, service in self.services.items() if service.pid is not None}

    def cpu_sec(self) -> dict[str, float | None]:
        """Return the CPU time that each has used, seconds."""
        return {name: cpu_sec(pid) for name, pid in self.pids().items()}

    def usage(self, seconds: float) -> dict[str, Any]:
        """Watch them for a while; return their shares of a core, and their memory at the end."""
        meter = Meter(self.pids())
        time.sleep(seconds)
        usage = meter.read()
        return {"cores": usage.cores, "rss_mib": usage.rss_mib, "other_cores": usage.other_cores}

    def close(self) -> None:
        """End them, without ceremony: nobody will read their data again."""
        for service in reversed(self.services.values()):
            service.stop(kill=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Target(Processes):
    """OMS, and ACT where it is known; for measuring from outside. A throughput's load goes to every OMS (``load_url``).

    Args:
        oms_url: OMS's address.
        act_url: ACT's.
        services: the processes that are ours; without them nothing is known of their cost.
    """

    def __init__(self, oms_url: str, act_url: str | None, services: Mapping[str, ServiceProcess] | None = None) -> None:
        super().__init__(services or {})
        self.oms_url = self.load_url = oms_url.rstrip("/")
        self.act_url = None if act_url is None else act_url.rstrip("/")
        self._http = httpx.Client(trust_env=False, timeout=ANSWER_LIMIT_SEC)

    def put_plans(self) -> None:
        """Put the benchmark's plans in force."""
        for plan in plan_files():
            self._read("POST", f"{self.oms_url}/plans", content=plan)

    def pending(self) -> int:
        """Return how many events ACT does not have yet."""
        report = self._read("GET", f"{self.oms_url}/readyz")
        pending: int = report["relay"]["pending"]
        return pending

    def settle(self, limit_sec: float) -> float:
        """Wait until ACT has all events; return how long that took, seconds: `limit_sec` where it was not enough."""
        began = time.perf_counter()
        while self.act_url is not None and self.pending():
            passed_sec = time.perf_counter() - began
            if passed_sec > limit_sec:
                return limit_sec
            time.sleep(max(SETTLE_POLL_SEC, min(SLOWEST_POLL_SEC, passed_sec * POLL_SHARE)))
        return time.perf_counter() - began

    def ledger_size(self) -> int:
        """Return how many events ACT has."""
        size: int = self._read("GET", f"{self.act_url}/readyz")["size"]
        return size

    def rows_after(self, index: int, *, limit: int) -> list[dict[str, Any]]:
        """Return rows of the ledger, those after an index."""
        rows: list[dict[str, Any]] = self._read("GET", f"{self.act_url}/stream?after={index}&limit={limit}")
        return rows

    def close(self) -> None:
        """End what is ours."""
        self._http.close()
        super().close()

    def _read(self, method: str, url: str, *, content: bytes | None = None) -> Any:  # noqa: ANN401 - any JSON
        try:
            answer = self._http.request(method, url, content=content)
        except httpx.HTTPError as error:
            raise TargetError(f"{url} gave no answer: {error or type(error).__name__}") from None
        if not answer.is_success:
            raise TargetError(f"{url} answered {answer.status_code}: {answer.text[:300]}")
        try:
            return answer.json()
        except ValueError:
            raise TargetError(f"{url} answered no JSON: is this the right address?") from None


class OwnTarget(Target):
    """A pair of our own on free ports, or several towers with one ACT.

    Args:
        folder: made, and used for their files and logs.
        databases: gives them their databases.
        towers: how many OMS there are; more than one need a server.
        act_url: an address that takes the place of ACT; there is no ACT then.
    """

    def __init__(self, folder: Path, databases: Databases, *, towers: int = 1, act_url: str | None = None) -> None:
        plans = folder / "plans"
        plans.mkdir(parents=True)
        self.start_up_sec: dict[str, float] = {}
        services: dict[str, ServiceProcess] = {}
        try:
            if act_url is None:
                services["act"] = _act(folder, databases)
                self.start_up_sec["act"] = started(services["act"])
            flags = ["--database-url", databases.url("oms", folder), "--plans", str(plans)]
            flags += ["--act-url", act_url or services["act"].url]
            for name in ["oms", *(f"oms{number}" for number in range(2, towers + 1))]:
                services[name] = ServiceProcess("oms", folder, flags, poll_sec=START_POLL_SEC)
                self.start_up_sec[name] = started(services[name])
            super().__init__(services["oms"].url, services["act"].url if act_url is None else None, services)
            self.load_url = ",".join(service.url for name, service in services.items() if name != "act")
            self.put_plans()
        except BaseException:
            Processes(services).close()
            raise


class OwnLedger(Processes):
    """An ACT of our own without an OMS.

    Args:
        folder: made, and used for its files and log.
        databases: gives it its database.
    """

    def __init__(self, folder: Path, databases: Databases) -> None:
        folder.mkdir(parents=True)
        act = _act(folder, databases)
        super().__init__({"act": act})
        try:
            self.start_up_sec = {"act": started(act)}
        except BaseException:
            self.close()
            raise
        self.url = act.url


def _act(folder: Path, databases: Databases) -> ServiceProcess:
    flags = ["--database-url", databases.url("act", folder), "--signing-key", str(folder / "act.key")]
    return ServiceProcess("act", folder, flags, poll_sec=START_POLL_SEC)


def started(service: ServiceProcess) -> float:
    """Start a service; return after how many seconds it was ready."""
    began = time.perf_counter()
    service.start()
    service.wait_ready()
    return time.perf_counter() - began
