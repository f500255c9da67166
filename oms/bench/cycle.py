"""Pull and complete at a backlog of a given size.

Pulling shrinks the backlog that the figure is about. So the load works in slices: it takes a few hundred tasks, stops
its clock, starts as many jobs again in one list, and goes on.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pydantic_core import from_json

from oms.bench.connection import AnswerError, Connection, post
from oms.bench.processes import Meter
from oms.bench.scenarios import PULLS, Tally, completion_of, start_list

SLICE = 500
WARM_UP = 100


async def run_cycles(
    url: str, *, connections: int, seconds: float, prefix: str, watch: dict[str, int]
) -> dict[str, Any]:
    """Pull and complete tasks of the first lane; return how many a second, of the time without the refills.

    Args:
        url: of OMS.
        connections: how many work at once.
        seconds: how long, refills and all.
        prefix: for the references of the refills.
        watch: the processes to be measured, by name.
    """
    opened = [await Connection.open(url) for _ in range(connections)]
    tally = Tally()
    await _slice(tally, opened, WARM_UP, ends_at=float("inf"))
    if not tally.totals["activities"]:
        raise AnswerError("nothing waits in the lane")
    await start_list(tally, opened[0], f"{prefix}-0", tally.totals["activities"])
    tally.counting = True
    meter = Meter(watch)
    ends_at = time.perf_counter() + seconds
    active_sec, slices = 0.0, 0
    while slices == 0 or time.perf_counter() < ends_at:
        slices += 1
        done_before = tally.totals["activities"]
        began = time.perf_counter()
        await _slice(tally, opened, SLICE, ends_at=ends_at)
        active_sec += time.perf_counter() - began
        await start_list(tally, opened[0], f"{prefix}-{slices}", tally.totals["activities"] - done_before)
    usage = meter.read()
    for connection in opened:
        connection.close()
    return {
        "seconds": active_sec,
        **tally.counts,
        "first_bad": tally.first_bad,
        "other_cores": usage.other_cores,
        "cores": usage.cores,
        "rss_mib": usage.rss_mib,
    }


async def _slice(tally: Tally, connections: list[Connection], count: int, *, ends_at: float) -> None:
    """Take so many tasks, fewer where the time is over, and complete them."""
    left = [count]

    async def work(connection: Connection) -> None:
        while left[0] > 0 and time.perf_counter() < ends_at:
            left[0] -= 1
            body = await tally.timed(connection, "pull", PULLS[0])
            if body in (b"null", b""):
                tally.add("empty")
                return
            if await tally.timed(connection, "complete", post("/complete", completion_of(from_json(body)))):
                tally.add("activities")

    await asyncio.gather(*(work(connection) for connection in connections))
