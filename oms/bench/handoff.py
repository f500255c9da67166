"""How long a parked pull's answer takes, from the start or the complete that made its task ready.

One process holds both ends, so that one clock measures: it parks pulls in three lanes, starts jobs at a low rate,
and completes each task that arrives.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from pydantic_core import from_json

from oms.bench.connection import AnswerError, Connection, get, post
from oms.bench.figures import quantiles
from oms.bench.plans import HANDOFF_LANES, HANDOFF_PLAN
from oms.bench.processes import Meter
from oms.bench.scenarios import BULK, OK, completion_of, start_of
from oms.bench.throttle import Throttle

JOBS_PER_SEC = 20.0
WAIT_SEC = 60
ARRIVAL_LIMIT_SEC = 15.0
PARKING_LIMIT_SEC = 60.0
PARKING_POLL_SEC = 0.05
WARM_UP_JOBS = 5
PARKED = "parked"
"""The line that is printed once all pulls are parked: from then on, for the quiet time, nothing happens."""

Arrival = tuple[dict[str, Any], float]
"""The task, and when it came on the clock of `time.perf_counter`."""


class Handoffs:
    """Parks pulls, and hands jobs from lane to lane."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._expected: dict[tuple[str, str], asyncio.Future[Arrival]] = {}
        self._opened: list[Connection] = []
        self._parked: list[asyncio.Task[None]] = []
        self.start_ms: list[float] = []
        self.complete_ms: list[float] = []

    async def park(self, count: int) -> None:
        """Park so many pulls, spread over the lanes; where the lanes hold tasks of an earlier run, end those first."""
        connection = await self.connect()
        for lane in HANDOFF_LANES:
            while tasks := from_json(await _ask(connection, get(f"/pull?lane={lane}&max={BULK}"))):
                await _ask(connection, post("/complete", b"[" + b",".join(map(completion_of, tasks)) + b"]"))
        for number in range(count):
            lane = HANDOFF_LANES[number % len(HANDOFF_LANES)]
            self._parked.append(asyncio.create_task(self._keep_parked(await self.connect(), lane)))
        async with asyncio.timeout(PARKING_LIMIT_SEC):
            while await self._waiting_pulls(connection) < count:  # noqa: ASYNC110 - it is OMS that is waited for
                await asyncio.sleep(PARKING_POLL_SEC)

    async def run_job(self, connection: Connection, reference: str) -> None:
        """Start a job, and complete each of its tasks when it arrives; note how long each took to arrive."""
        message = post("/start", start_of(reference, HANDOFF_PLAN))
        for place, lane in enumerate(HANDOFF_LANES):
            arrival = self._expect(reference, lane)
            sent_at = time.perf_counter()
            answering = connection.send(message)
            async with asyncio.timeout(ARRIVAL_LIMIT_SEC):
                task, came_at = await arrival
                _checked(await answering)
            (self.complete_ms if place else self.start_ms).append((came_at - sent_at) * 1000)
            message = post("/complete", completion_of(task))
        await _ask(connection, message)

    async def connect(self) -> Connection:
        """Open a connection that `close` closes."""
        connection = await Connection.open(self._url)
        self._opened.append(connection)
        return connection

    async def close(self) -> None:
        """Leave."""
        for parked in self._parked:
            parked.cancel()
        await asyncio.gather(*self._parked, return_exceptions=True)
        for connection in self._opened:
            connection.close()

    def check(self) -> None:
        """Return while all pulls are parked.

        Raises:
            AnswerError: one has ended.
        """
        for parked in self._parked:
            if parked.done():
                raise AnswerError(f"a parked pull has ended: {parked.exception()}")

    async def _waiting_pulls(self, connection: Connection) -> int:
        waiting: int = from_json(await _ask(connection, get("/readyz")))["waiting_pulls"]
        return waiting

    def _expect(self, reference: str, lane: str) -> asyncio.Future[Arrival]:
        future: asyncio.Future[Arrival] = asyncio.get_running_loop().create_future()
        self._expected[reference, lane] = future
        return future

    async def _keep_parked(self, connection: Connection, lane: str) -> None:
        message = get(f"/pull?lane={lane}&wait={WAIT_SEC}")
        while True:
            body = await _ask(connection, message)
            came_at = time.perf_counter()
            if body != b"null":
                task = from_json(body)
                expected = self._expected.pop((task["reference"], lane), None)
                if expected is not None and not expected.done():
                    expected.set_result((task, came_at))


async def run_handoffs(
    url: str, *, parked: int, quiet_sec: float, seconds: float, prefix: str, watch: dict[str, int]
) -> dict[str, Any]:
    """Park pulls, stay quiet, then hand jobs over; return the latencies.

    Args:
        url: of OMS.
        parked: how many pulls, at least one per lane.
        quiet_sec: how long nothing is done once they are parked.
        seconds: how long jobs are handed over after that.
        prefix: for the jobs' references.
        watch: the processes to be measured, by name.
    """
    handoffs = Handoffs(url)
    await handoffs.park(parked)
    sys.stdout.write(f"{PARKED}\n")
    sys.stdout.flush()
    await asyncio.sleep(quiet_sec)
    connection = await handoffs.connect()
    for number in range(WARM_UP_JOBS):
        await handoffs.run_job(connection, f"{prefix}-warm-{number}")
    handoffs.start_ms.clear()
    handoffs.complete_ms.clear()
    throttle, meter = Throttle(JOBS_PER_SEC), Meter(watch)
    began = time.perf_counter()
    number = 0
    while time.perf_counter() - began < seconds:
        await throttle.turn()
        number += 1
        await handoffs.run_job(connection, f"{prefix}-{number}")
        handoffs.check()
    took = time.perf_counter() - began
    usage = meter.read()
    await handoffs.close()
    return {
        "parked": parked,
        "jobs_per_sec": number / took,
        "start_to_pull_ms": quantiles(handoffs.start_ms),
        "complete_to_next_ms": quantiles(handoffs.complete_ms),
        "other_cores": usage.other_cores,
        "cores": usage.cores,
    }


async def _ask(connection: Connection, message: bytes) -> bytes:
    return _checked(await connection.send(message))


def _checked(answer: tuple[int, bytes]) -> bytes:
    status, body = answer
    if status != OK:
        raise AnswerError(f"OMS answered {status}: {body[:200]!r}")
    return body
