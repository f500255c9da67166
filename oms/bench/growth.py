"""What it costs that the ledger is large: a job's timeline, beside a ledger that is small."""

from __future__ import annotations

from typing import Any

from oms.bench.backlog import compare_pages
from oms.bench.context import Bench
from oms.bench.driver import FILL_LIMIT_SEC

TIMELINE = "/stream?job=JOB-{n}"


def measure_ledger(bench: Bench) -> dict[str, Any]:
    """Fill two ledgers of their own, and read the timelines of their jobs in turns."""
    least, most = bench.size.ledgers
    with bench.open_ledger("small") as small, bench.open_ledger("large") as large:
        bench.progress.at(f"writing {most:,} events")
        few = bench.load("write_ledger", small.url, count=least, limit_sec=FILL_LIMIT_SEC)
        many = bench.load("write_ledger", large.url, count=most, limit_sec=FILL_LIMIT_SEC)
        bench.progress.at("timelines")
        return {
            "events_least": few["events"],
            "events": many["events"],
            "append_per_sec": many["events"] / many["seconds"],
            "timeline": compare_pages(bench, small.url, large.url, TIMELINE, among=(few["jobs"], many["jobs"])),
            "with_most": large.usage(bench.size.idle_sec),
        }
