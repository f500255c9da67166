"""What the processes cost when they do nothing, and whether their memory stays flat under a long load."""

from __future__ import annotations

import time
from typing import Any

from oms.bench.context import Bench
from oms.bench.figures import median_of

CONNECTIONS = 32
SAMPLES = 30
FLAT_RATIO = 1.1
"""Memory is flat where the last third of the samples is at most this much of the middle one."""
_STUCK_SEC = 60.0


def measure_idle(bench: Bench) -> dict[str, Any]:
    """Watch the services before anything was asked of them."""
    return bench.main.usage(bench.size.idle_sec)


def measure_soak(bench: Bench) -> dict[str, Any]:
    """Load for minutes, and look at the memory again and again."""
    seconds = bench.size.soak_sec
    samples: list[dict[str, Any]] = []
    with bench.driver.start("mixed", bench.main.oms_url, connections=CONNECTIONS, seconds=seconds) as load:
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            samples.append(bench.main.usage(seconds / SAMPLES)["rss_mib"])
            bench.progress.at(f"{len(samples)} of {SAMPLES}")
        run = load.result(_STUCK_SEC)
    return {
        "seconds": seconds,
        "requests_per_sec": run["requests"] / run["seconds"],
        "rss_mib": {name: [sample[name] for sample in samples] for name in bench.main.services},
        "growth": {name: growth([sample[name] for sample in samples]) for name in bench.main.services},
        "bad": run["bad"],
    }


def growth(samples: list[float | None]) -> float | None:
    """Return the memory of the last third of the samples as a multiple of that of the middle third."""
    third = len(samples) // 3
    middle, last = median_of(samples[third : 2 * third]), median_of(samples[2 * third :])
    return last / middle if middle and last is not None else None
