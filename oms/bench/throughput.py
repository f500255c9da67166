"""How much OMS takes: the mixed load, single starts, batches and bulk starts, each in turns with the no-op."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from oms.bench.context import Bench
from oms.bench.figures import SHARES, in_turns, median_of, noise_of, ratio_of

NOOP_CONNECTIONS = 32
BATCH_CONNECTIONS = 4
BULK_CONNECTIONS = 2


@dataclass(frozen=True, slots=True)
class Contestant:
    """One load.

    Attributes:
        name: in the results.
        scenario: of `oms.bench.load`.
        connections: how many work at once.
        counted: what is set against the no-op's requests: requests, activities or jobs.
        base: the no-op's connections.
    """

    name: str
    scenario: str
    connections: int
    counted: str
    base: int = NOOP_CONNECTIONS


LISTS = (
    Contestant("batches", "batches", BATCH_CONNECTIONS, "activities"),
    Contestant("bulk_start", "bulk_start", BULK_CONNECTIONS, "jobs"),
)
STARTS = Contestant("starts", "starts", 32, "jobs")


def mixed_at(connections: int) -> Contestant:
    """Return the mixed load at so many connections, against the no-op at as many."""
    return Contestant(f"mixed_{connections}", "mixed", connections, "requests", connections)


def measure_throughput(bench: Bench) -> dict[str, Any]:
    """Measure all of them; return the figures by name."""
    size = bench.size
    mixed = [mixed_at(connections) for connections in size.mixed_connections]
    if size.has_turns_of_its_own:
        groups: list[Sequence[Contestant]] = [[one] for one in (*mixed, STARTS, *LISTS)]
    else:
        groups = [[*mixed, STARTS, *LISTS]]
    return {name: figures for group in groups for name, figures in compare(bench, group).items()}


def measure_mixed(bench: Bench, connections: int) -> dict[str, Any]:
    """Measure the mixed load alone, in turns with the no-op."""
    (figures,) = compare(bench, [mixed_at(connections)]).values()
    return figures


def compare(bench: Bench, contestants: Sequence[Contestant]) -> dict[str, dict[str, Any]]:
    """Measure contestants of the same base in turns: the no-op, each of them, the no-op, and so on."""
    base = contestants[0].base
    names = ", ".join(f"{one.scenario} at {one.connections}" for one in contestants)

    def run_noop() -> dict[str, Any]:
        bench.progress.at(names)
        return bench.run_noop(base)

    def run_one(one: Contestant) -> dict[str, Any]:
        seconds = bench.size.bulk_sec if one.scenario == "bulk_start" else bench.size.seconds
        return bench.run(bench.main, one.scenario, connections=one.connections, seconds=seconds)

    noops, *runs = in_turns(bench.size.rounds, run_noop, *(partial(run_one, one) for one in contestants))
    return {one.name: figures_of(one, its, noops) for one, its in zip(contestants, runs, strict=True)}


def figures_of(one: Contestant, runs: Sequence[dict[str, Any]], noops: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a contestant's figures over all rounds.

    ``ratio`` is of what was answered in the measured time; ``ratio_caught_up`` is what is left of it where the time
    counts until ACT has everything.
    """
    rates = [run["per_sec"][one.counted] for run in runs]
    shares = [run["caught_up_share"] for run in runs]
    base = [run["per_sec"]["requests"] for run in noops]
    caught_up = [None if rate is None else rate * share for rate, share in zip(rates, shares, strict=True)]
    return {
        "connections": one.connections,
        "counted": one.counted,
        "per_sec": median_of(rates),
        "per_sec_rounds": rates,
        "requests_per_sec": median_of([run["per_sec"]["requests"] for run in runs]),
        "activities_per_sec": median_of([run["per_sec"]["activities"] for run in runs]),
        "jobs_per_sec": median_of([run["per_sec"]["jobs"] for run in runs]),
        "noop_connections": one.base,
        "noop_per_sec": median_of(base),
        "noop_per_sec_rounds": base,
        "ratio": ratio_of(rates, base),
        "ratio_caught_up": ratio_of(caught_up, base),
        "settle_sec_rounds": [run["settle_sec"] for run in runs],
        "kept_up": all(share == 1.0 for share in shares),
        "latency_ms": latencies(runs),
        "cpu_us_per_activity": _median_by_name(runs, "cpu_us_per_activity"),
        "cores": _median_by_name(runs, "cores"),
        "rss_mib": _median_by_name(runs, "rss_mib"),
        "rss_mib_last": runs[-1]["rss_mib"],
        "client_cores": median_of([run["client_cores"] for run in runs]),
        "noop_client_cores": median_of([run["client_cores"] for run in noops]),
        "bad": sum(run["bad"] for run in runs),
        "empty": sum(run["empty"] for run in runs),
        **noise_of(runs, noops),
    }


def latencies(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return p50, p95 and p99 by kind of request: the median of the rounds' quantiles."""
    kinds = dict.fromkeys(kind for run in runs for kind in run["latency_ms"])
    return {
        kind: {
            name: median_of([run["latency_ms"][kind][name] for run in runs if kind in run["latency_ms"]])
            for name in SHARES
        }
        for kind in kinds
    }


def _median_by_name(runs: Sequence[dict[str, Any]], key: str) -> dict[str, float | None]:
    return {name: median_of([run[key].get(name) for run in runs]) for name in ("oms", "act")}
