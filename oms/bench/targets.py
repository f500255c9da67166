"""The product's own targets, and whether a run met them. Information: a run never fails over it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

NO_SLOWER = 1.2
"""Answers are "no slower" up to this factor: two medians of the same thing differ by as much from run to run."""
IDLE_MIB, MOST_MIB = 150.0, 300.0
START_UP_SEC = 1.5
SERVICES = ("oms", "act")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target.

    Attributes:
        what: is measured.
        target: in words.
        measured: the figure; None: not measured in this run.
        met: whether it is met; None: not measured.
        unit: of the figure.
    """

    what: str
    target: str
    measured: float | None
    met: bool | None
    unit: str = ""


def verdicts(results: dict[str, Any]) -> list[Verdict]:
    """Return every target, met or not, or not measured."""
    return [
        *_throughput(results.get("throughput", {})),
        *_backlog(results.get("backlog", {})),
        *_ledger(results.get("ledger", {})),
        *_waiting(results.get("handoff", {}), results.get("parked", {})),
        *_delivery(results),
        *_processes(results),
    ]


def _throughput(throughput: dict[str, Any]) -> Iterator[Verdict]:
    rows = (
        ("mixed_32", "mixed load, 32 connections: requests/s to the no-op's", 1.0, ", aiming at 1.5"),
        ("batches", "batches of 100, 4 connections: activities/s to the no-op's requests/s", 0.8, ", aiming at 1.5"),
        ("bulk_start", "bulk start in lists of 1,000: jobs/s to the no-op's requests/s", 0.8, ""),
    )
    for name, what, least, aim in rows:
        figures = throughput.get(name)
        measured = figures["ratio_caught_up"]["median"] if figures else None
        yield _at_least(f"{what}, ledger caught up", f"{least} or better{aim}", measured, least)
    pull = throughput.get("mixed_32", {}).get("latency_ms", {}).get("pull", {})
    yield _at_most("pull p99 under the mixed load, 32 connections", pull.get("p99"), 15, " ms")


def _backlog(backlog: dict[str, Any]) -> Iterator[Verdict]:
    most, least = backlog.get("most", 1_000_000), backlog.get("least", 1_000)
    level = backlog.get("levels", {}).get(str(most), {})
    among = f"with {most:,} queued to that with {least:,}"
    yield _at_most(f"pull + complete {among}: time", _median(level.get("cost")), 1.15)
    for name in ("lanes", "tasks", "jobs"):
        page = level.get("pages", {}).get(name, {})
        yield _at_most(f"/{name} page {among}: time", _median(page.get("cost")), 1.15)


def _ledger(ledger: dict[str, Any]) -> Iterator[Verdict]:
    most, least = ledger.get("events", 3_000_000), ledger.get("events_least", 10_000)
    cost = ledger.get("timeline", {}).get("cost")
    yield _at_most(f"/stream?job= with {most:,} events to that with {least:,}: time", _median(cost), 1.2)


def _waiting(handoff: dict[str, Any], parked: dict[str, Any]) -> Iterator[Verdict]:
    for name, what in (("start_to_pull_ms", "the start"), ("complete_to_next_ms", "the complete before it")):
        for share, most in (("p50", 3.0), ("p99", 8.0)):
            measured = handoff.get(name, {}).get(share)
            yield _at_most(f"a parked pull's answer after {what}, little load: {share}", measured, most, " ms")
    count = parked.get("parked", 1_000)
    yield _at_most(f"{count:,} parked pulls: OMS's share of a core", parked.get("quiet_oms_cores"), 0.05)
    few, many = (figures.get("start_to_pull_ms", {}).get("p50") for figures in (handoff, parked))
    slower = many / few if few and many is not None else None
    yield _at_most(f"{count:,} parked pulls: median answer to that with 3", slower, NO_SLOWER)


def _delivery(results: dict[str, Any]) -> Iterator[Verdict]:
    relay = _median(results.get("relay", {}).get("ratio"))
    yield _at_least("mixed load with relay and ACT to that without", "0.9 or better", relay, 0.9)
    lag = results.get("lag", {}).get("lag_ms", {}).get("p99")
    yield _at_most("ledger lag p99 at half of the most", lag, 250, " ms")
    catch_up = results.get("catch_up", {})
    minutes = catch_up.get("hour_of_outage_minutes")
    what = "an hour's outage at 500 events/s, caught up beside normal load"
    if minutes is None and catch_up.get("events_per_sec") is not None:
        yield Verdict(what, "4 min or less", None, met=False)
    else:
        yield _at_most(what, minutes, 4, " min")


def _processes(results: dict[str, Any]) -> Iterator[Verdict]:
    backlog = results.get("backlog", {})
    most = backlog.get("most", 1_000_000)
    for name in SERVICES:
        idle = results.get("idle", {}).get("rss_mib", {}).get(name)
        full = backlog.get("with_most", {}).get("rss_mib", {}).get(name)
        start_up = results.get("start_up", {}).get(name)
        growth = results.get("soak", {}).get("growth", {}).get(name)
        title = name.upper()
        yield _at_most(f"{title}: memory idle", idle, IDLE_MIB, " MiB")
        yield _at_most(f"{title}: memory with {most:,} queued", full, MOST_MIB, " MiB")
        yield _at_most(f"{title}: memory at the end of a long load to its middle", growth, 1.1)
        yield _at_most(f"{title}: start-up to ready", start_up, START_UP_SEC, " s")


def _at_least(what: str, target: str, measured: float | None, least: float) -> Verdict:
    return Verdict(what, target, measured, None if measured is None else measured >= least)


def _at_most(what: str, measured: float | None, most: float, unit: str = "") -> Verdict:
    return Verdict(what, f"{most:g}{unit} or less", measured, None if measured is None else measured <= most, unit)


def _median(ratio: dict[str, Any] | None) -> float | None:
    return None if ratio is None else ratio["median"]
