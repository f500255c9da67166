"""What every measurement works with: the services, the loads, the results so far."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oms.bench.databases import Databases
from oms.bench.driver import LIMIT_SEC, Driver, LoadError
from oms.bench.progress import Progress
from oms.bench.sizes import Size
from oms.bench.target import OwnLedger, OwnTarget, Processes, Target
from oms.demo.pair import ServiceProcess

KEPT_UP_SEC = 0.2
KEPT_UP_SHARE = 0.05
"""ACT kept up with a load where it had everything so soon after its end, in seconds or as a share of its time."""


class Bench:
    """A run of the benchmark.

    Args:
        size: how much is measured.
        folder: for data and logs.
        noop: the bare framework, up.
        main: the services under measurement.
        progress: where it says what it does.
        databases: where further services keep their data.
    """

    def __init__(
        self,
        size: Size,
        folder: Path,
        noop: ServiceProcess,
        main: Target,
        progress: Progress,
        *,
        databases: Databases,
    ) -> None:
        self._databases = databases
        self.size = size
        self.folder = folder
        self.main = main
        self.progress = progress
        self.noop_url = noop.url
        self.results: dict[str, Any] = {}
        self.sections_sec: dict[str, float] = {}
        self.notes: list[str] = []
        self.start_ups: list[dict[str, float]] = []
        self._processes: dict[str, ServiceProcess] = {"noop": noop}
        self._watch(main, "")
        self.driver = Driver(self._pids)

    @property
    def owns_services(self) -> bool:
        """Whether the services are ours, so that they can be stopped and their cost is known."""
        return bool(self.main.services)

    def note(self, text: str) -> None:
        """Keep a remark for the report, once."""
        if text not in self.notes:
            self.notes.append(text)

    @contextmanager
    def open_target(self, name: str, *, act_url: str | None = None) -> Generator[OwnTarget]:
        """Start another pair, whose processes count as ours while it is open."""
        made = OwnTarget(self.folder / name, self._databases, act_url=act_url)
        with made as target, self._watching(target, f"{name}."):
            self.start_ups.append(target.start_up_sec)
            yield target

    @contextmanager
    def open_ledger(self, name: str) -> Generator[OwnLedger]:
        """Start an ACT alone, whose process counts as ours while it is open."""
        with OwnLedger(self.folder / name, self._databases) as ledger, self._watching(ledger, f"{name}."):
            self.start_ups.append(ledger.start_up_sec)
            yield ledger

    def load(self, scenario: str, url: str, *, limit_sec: float = LIMIT_SEC, **options: object) -> dict[str, Any]:
        """Run a load; remember what went wrong in it.

        Raises:
            LoadError: all of it did.
        """
        run = self.driver.load(scenario, url, limit_sec=limit_sec, **options)
        if run.get("requests") == run.get("bad", 0) and run.get("first_bad"):
            raise LoadError(f"the load {scenario!r} got no good answer. The first: {run['first_bad']}")
        if run.get("first_bad"):
            self.note(f"{scenario}: {run.get('bad', 0)} bad answers; the first: {run['first_bad']}")
        if not self.owns_services and "other_cores" in run:
            run["other_cores"] = None  # theirs would count as other processes' use
        return run

    def run_noop(self, connections: int) -> dict[str, Any]:
        """Measure the bare framework, with nothing else to do: ACT gets what it still lacks before."""
        self.settle(self.main)
        return with_rates(self.load("noop", self.noop_url, connections=connections, seconds=self.size.seconds))

    def run(self, target: Target, scenario: str, *, connections: int, seconds: float) -> dict[str, Any]:
        """Measure a throughput of a target; also how far the ledger fell behind, and the CPU time per activity.

        The CPU time is counted until ACT has everything: the work that a load makes is part of its cost, also where
        it comes later.
        """
        self.settle(target)
        before = target.cpu_sec()
        run = self.load(scenario, target.load_url, connections=connections, seconds=seconds)
        run["settle_sec"] = self.settle(target)
        run["caught_up_share"] = caught_up_share(run["ran_sec"], run["settle_sec"])
        done = run["totals"]["activities"]
        after = target.cpu_sec()
        run["cpu_us_per_activity"] = {
            name: (now - was) / done * 1e6
            if done and now is not None and (was := before.get(name)) is not None
            else None
            for name, now in after.items()
        }
        return with_rates(run)

    def settle(self, target: Target, *, limit_sec: float | None = None) -> float:
        """Wait until ACT has everything; return how long that took, seconds."""
        limit = limit_sec or self.size.settle_limit_sec
        took = target.settle(limit)
        if took >= limit:
            self.note(f"ACT did not have everything {limit:.0f} s after a load; what was measured next shared its time")
        return took

    @contextmanager
    def _watching(self, processes: Processes, prefix: str) -> Generator[None]:
        self._watch(processes, prefix)
        try:
            yield
        finally:
            for name in processes.services:
                del self._processes[prefix + name]

    def _watch(self, processes: Processes, prefix: str) -> None:
        self._processes.update({prefix + name: service for name, service in processes.services.items()})

    def _pids(self) -> dict[str, int]:
        pids = {name: service.pid for name, service in self._processes.items()}
        return {name: pid for name, pid in pids.items() if pid is not None} | {"bench": os.getpid()}


def with_rates(run: dict[str, Any]) -> dict[str, Any]:
    """Add ``per_sec``: what was counted, per second."""
    seconds = run["seconds"]
    run["per_sec"] = {name: run[name] / seconds if seconds > 0 else None for name in ("requests", "activities", "jobs")}
    return run


def caught_up_share(ran_sec: float, settle_sec: float) -> float:
    """Return by what a rate shrinks if the time counts until ACT has everything; 1 where it kept up.

    Args:
        ran_sec: how long the load ran.
        settle_sec: how long ACT took after that.
    """
    if settle_sec <= max(KEPT_UP_SEC, ran_sec * KEPT_UP_SHARE):
        return 1.0
    return ran_sec / (ran_sec + settle_sec)
