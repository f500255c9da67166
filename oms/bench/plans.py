"""The plans that the benchmark runs: three steps in three lanes, as a passport renewal has.

They have names of their own, and lanes of their own, so that they meet nobody else's work; and long leases, so that
nothing that a load leaves behind comes back into a later measurement.
"""

from __future__ import annotations

from pydantic_core import to_json

PLAN = "oms_bench"
LANES = ("oms_bench_extract", "oms_bench_verify", "oms_bench_print")
HANDOFF_PLAN = "oms_bench_handoff"
HANDOFF_LANES = ("oms_bench_handoff_extract", "oms_bench_handoff_verify", "oms_bench_handoff_print")
_LEASE_SEC = 86_400


def plan_files() -> list[bytes]:
    """Return the plans as ``POST /plans`` takes them."""
    return [
        to_json(
            {
                "id": plan,
                "lanes": [{"id": lane, "lease_sec": _LEASE_SEC} for lane in lanes],
                "sequence": list(lanes),
                "retry_policy": {"attempts": 3, "backoff_sec": 30},
            }
        )
        for plan, lanes in ((PLAN, LANES), (HANDOFF_PLAN, HANDOFF_LANES))
    ]
