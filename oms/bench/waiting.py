"""Parked pulls: how soon they are answered, and what a thousand of them cost."""

from __future__ import annotations

import time
from typing import Any

from oms.bench.context import Bench
from oms.bench.handoff import PARKED
from oms.bench.plans import HANDOFF_LANES
from oms.bench.processes import Meter

_EDGE_SEC = 0.1
"""Cut off both ends of the quiet time: what happens just before and after is not part of it."""
_STUCK_SEC = 120.0


def measure_handoff(bench: Bench) -> dict[str, Any]:
    """Measure with one parked pull per lane, little load."""
    return _handoffs(bench, parked=len(HANDOFF_LANES))


def measure_parked(bench: Bench) -> dict[str, Any]:
    """Measure the same, and OMS's CPU time while nothing happens, with many parked pulls."""
    return _handoffs(bench, parked=bench.size.parked, quiet_sec=bench.size.quiet_sec)


def _handoffs(bench: Bench, *, parked: int, quiet_sec: float = 0.0) -> dict[str, Any]:
    bench.settle(bench.main)
    seconds = bench.size.handoff_sec
    quiet_cores: float | None = None
    with bench.driver.start("handoff", bench.main.oms_url, parked=parked, quiet_sec=quiet_sec, seconds=seconds) as load:
        load.wait_for_line(PARKED)
        if quiet_sec > 0:
            time.sleep(_EDGE_SEC)
            meter = Meter(bench.main.pids())
            time.sleep(max(_EDGE_SEC, quiet_sec - 2 * _EDGE_SEC))
            quiet_cores = meter.read().cores.get("oms")
        figures = load.result(seconds + _STUCK_SEC)
    figures["quiet_oms_cores"] = quiet_cores
    return figures
