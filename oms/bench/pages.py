"""Read the same page of two services in turns, request by request, so that whatever disturbs one disturbs both."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from oms.bench.connection import AnswerError, Connection, get
from oms.bench.figures import quantile
from oms.bench.processes import Meter

OK = 200
WARM_UP_REQUESTS = 20


async def run_pages(
    urls: tuple[str, str], path: str, *, among: tuple[int, int], seconds: float, rounds: int, watch: dict[str, int]
) -> dict[str, Any]:
    """Read a page on one connection each; return the median time of either service, by round.

    Args:
        urls: of the two services.
        path: of the page; ``{n}`` in it becomes a number from 1 to ``among``, another one each time.
        among: for either service.
        seconds: how long in all.
        rounds: into how many parts that time is cut.
        watch: the processes to be measured, by name.
    """
    connections = [await Connection.open(url) for url in urls]
    # The same numbers in every run.
    choices = [random.Random(place) for place in range(len(urls))]  # noqa: S311

    async def read(place: int) -> float:
        message = get(path.replace("{n}", str(choices[place].randint(1, among[place]))))
        began = time.perf_counter()
        status, body = await connections[place].send(message)
        took_ms = (time.perf_counter() - began) * 1000
        if status != OK:
            raise AnswerError(f"{urls[place]}{path} answered {status}: {body[:200]!r}")
        return took_ms

    for _ in range(WARM_UP_REQUESTS):
        await read(0)
        await read(1)
    p50_ms: list[list[float | None]] = [[], []]
    other_cores: list[float | None] = []
    requests = 0
    for _ in range(rounds):
        took_ms: list[list[float]] = [[], []]
        meter = Meter(watch)
        ends_at = time.perf_counter() + seconds / rounds
        while not took_ms[0] or time.perf_counter() < ends_at:
            for place, times in enumerate(took_ms):
                times.append(await read(place))
        for place, times in enumerate(took_ms):
            p50_ms[place].append(quantile(times, 0.5))
            requests += len(times)
        other_cores.append(meter.read().other_cores)
    for connection in connections:
        connection.close()
    await asyncio.sleep(0)  # the transports close in the loop's next turn
    return {"p50_ms": p50_ms, "requests": requests, "other_cores_rounds": other_cores}
