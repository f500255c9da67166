"""What it costs that much is waiting: pull and complete, and the managers' pages, beside a pair with little."""

from __future__ import annotations

from typing import Any

from oms.bench.context import Bench
from oms.bench.driver import FILL_LIMIT_SEC
from oms.bench.figures import in_turns, median_of, noise_of, ratio_of
from oms.bench.plans import LANES
from oms.bench.target import OwnTarget, started

CONNECTIONS = 8
PAGES = {
    "lanes": "/lanes",
    "tasks": f"/tasks?lane={LANES[0]}&status=queued",
    "jobs": "/jobs?state=queued",
}


def measure_backlog(bench: Bench) -> dict[str, Any]:
    """Measure two pairs in turns: one with the least backlog, one that is filled further and further."""
    least, *levels = bench.size.backlogs
    with bench.open_target("few") as few, bench.open_target("many") as many:
        _fill(bench, few, least)
        by_level: dict[str, Any] = {}
        queued = 0
        for level in levels:
            bench.progress.at(f"queueing {level:,} jobs")
            filled = _fill(bench, many, level - queued)
            queued = level
            bench.progress.at(f"{level:,} queued")
            by_level[str(level)] = filled | _compare(bench, few, many)
        return {
            "least": least,
            "connections": CONNECTIONS,
            "levels": by_level,
            "most": queued,
            "with_most": many.usage(bench.size.idle_sec),
            "start_up_sec_with_most": _restart(many) if bench.size.has_restart else None,
        }


def _fill(bench: Bench, target: OwnTarget, count: int) -> dict[str, Any]:
    run = bench.load("queue_jobs", target.oms_url, count=count, limit_sec=FILL_LIMIT_SEC)
    return {
        "fill_jobs_per_sec": run["jobs"] / run["seconds"],
        "fill_settle_sec": bench.settle(target, limit_sec=bench.size.fill_limit_sec),
    }


def _compare(bench: Bench, few: OwnTarget, many: OwnTarget) -> dict[str, Any]:
    base, runs = in_turns(bench.size.rounds, lambda: _cycles(bench, few), lambda: _cycles(bench, many))
    base_rates, rates = [run["cycles_per_sec"] for run in base], [run["cycles_per_sec"] for run in runs]
    return {
        "cycles_per_sec": median_of(rates),
        "cycles_per_sec_least": median_of(base_rates),
        "cost": ratio_of(base_rates, rates),
        **noise_of(runs, base),
        "pages": {name: _page(bench, few, many, path) for name, path in PAGES.items()},
    }


def _cycles(bench: Bench, target: OwnTarget) -> dict[str, Any]:
    bench.settle(target)
    run = bench.load("cycle", target.oms_url, connections=CONNECTIONS, seconds=bench.size.seconds)
    run["cycles_per_sec"] = run["activities"] / run["seconds"]
    return run


def _page(bench: Bench, few: OwnTarget, many: OwnTarget, path: str) -> dict[str, Any]:
    bench.settle(few)
    bench.settle(many)
    return compare_pages(bench, f"{few.oms_url}", f"{many.oms_url}", path)


def compare_pages(
    bench: Bench, least_url: str, most_url: str, path: str, *, among: tuple[int, int] = (1, 1)
) -> dict[str, Any]:
    """Read a page of two services in turns; return the medians of the rounds' p50, and the rounds' ratio.

    Args:
        bench: the run.
        least_url: the service that holds little.
        most_url: the one that holds much.
        path: of the page; ``{n}`` in it is a number from 1 to ``among`` of the service.
        among: of either.
    """
    run = bench.load(
        "pages",
        least_url,
        other_url=most_url,
        path=path,
        among=among[0],
        other_among=among[1],
        seconds=bench.size.page_sec,
        rounds=bench.size.rounds,
    )
    least_ms, most_ms = run["p50_ms"]
    return {
        "p50_ms_least": median_of(least_ms),
        "p50_ms": median_of(most_ms),
        "cost": ratio_of(most_ms, least_ms),
        **noise_of([{"other_cores": cores} for cores in run["other_cores_rounds"]]),
    }


def _restart(target: OwnTarget) -> dict[str, float]:
    """Stop both and start them again on what they hold; return how long each took to be ready, seconds."""
    oms, act = target.services["oms"], target.services["act"]
    oms.stop()
    act.stop()
    return {"act": started(act), "oms": started(oms)}
