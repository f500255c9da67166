"""The arithmetic: quantiles, and ratios of what was measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")

NOISY_CORES = 0.15
"""A round in which other processes used more than this of a core is marked: its figure may be theirs."""
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which ``share`` of ``values`` lie; None without values."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else None


def quantiles(values: Sequence[float]) -> dict[str, float | int | None]:
    """Return p50, p95 and p99, and how many values there were."""
    ordered = sorted(values)
    return {name: quantile(ordered, share) for name, share in SHARES.items()} | {"count": len(ordered)}


def median_of(values: Sequence[float | None]) -> float | None:
    """Return the median of the values that there are; None without any."""
    there = [value for value in values if value is not None]
    return median(there) if there else None


def in_turns(rounds: int, *runners: Callable[[], T]) -> list[list[T]]:
    """Call each runner once per round, one after the other; return each runner's results.

    What the machine does meanwhile hits all of them alike, so that their ratio within a round is worth more than
    either figure.
    """
    results: list[list[T]] = [[] for _ in runners]
    for _ in range(rounds):
        for place, runner in enumerate(runners):
            results[place].append(runner())
    return results


def ratio_of(ours: Sequence[float | None], base: Sequence[float | None]) -> dict[str, Any]:
    """Return the rounds' ratios with their median, least and greatest.

    Args:
        ours: one figure per round.
        base: the figure of the same round that it is set against.
    """
    ratios = [mine / its if mine is not None and its else None for mine, its in zip(ours, base, strict=True)]
    there = [ratio for ratio in ratios if ratio is not None]
    return {
        "median": median(there) if there else None,
        "min": min(there, default=None),
        "max": max(there, default=None),
        "rounds": ratios,
    }


def noise_of(*runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how much of a core other processes used in each round, the worst of its runs, and how many were noisy."""
    rounds = [
        max((cores for run in one if (cores := run.get("other_cores")) is not None), default=None)
        for one in zip(*runs, strict=True)
    ]
    noisy = [cores is not None and cores > NOISY_CORES for cores in rounds]
    return {"other_cores": rounds, "noisy": noisy, "noisy_rounds": sum(noisy)}
