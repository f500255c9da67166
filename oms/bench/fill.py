"""Fill a service with as much as a measurement needs: jobs into OMS, events into ACT."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from act.contract import Entity, encode_event
from oms.bench.connection import AnswerError, Connection, post
from oms.bench.plans import LANES, PLAN
from oms.bench.scenarios import BULK, OK, Tally, start_list

JOBS_PER_POST = 45
EVENTS_PER_JOB = 11
"""What a job of three activities leaves in the ledger; 45 of them are just below ACT's 500 events a post."""
_CONNECTIONS = 2
_HMAC = "8f0e7ab1" * 8


async def queue_jobs(url: str, *, count: int, prefix: str) -> dict[str, Any]:
    """Start so many jobs of which nothing is pulled."""
    tally = Tally()
    lists = iter(range(-(-count // BULK)))

    async def work(connection: Connection) -> None:
        for number in lists:
            await start_list(tally, connection, f"{prefix}-{number}", min(BULK, count - number * BULK))

    return {"seconds": await _fill(url, work), **tally.totals, "first_bad": tally.first_bad}


async def write_ledger(url: str, *, count: int) -> dict[str, Any]:
    """Post so many events, or a few more, as finished jobs JOB-1 and up; return how many jobs they are."""
    jobs = -(-count // EVENTS_PER_JOB)
    firsts = iter(range(1, jobs + 1, JOBS_PER_POST))

    async def work(connection: Connection) -> None:
        for first in firsts:
            numbers = range(first, min(first + JOBS_PER_POST, jobs + 1))
            events = [event for number in numbers for event in job_events(number, time.time_ns() // 1_000_000)]
            status, body = await connection.send(post("/events", b"[" + b",".join(events) + b"]"))
            if status != OK:
                raise AnswerError(f"ACT answered {status}: {body[:200]!r}")

    return {"seconds": await _fill(url, work), "jobs": jobs, "events": jobs * EVENTS_PER_JOB}


async def _fill(url: str, work: Any) -> float:  # noqa: ANN401 - a coroutine function of one connection
    began = time.perf_counter()
    opened = [await Connection.open(url) for _ in range(_CONNECTIONS)]
    await asyncio.gather(*(work(connection) for connection in opened))
    for connection in opened:
        connection.close()
    return time.perf_counter() - began


def job_events(number: int, time_ms: int) -> list[bytes]:
    """Return the events of a job of three activities that went well."""
    job = f"JOB-{number}"
    return [
        encode_event(
            stream=job,
            seq=seq,
            entity=entity,
            subject=task or job,
            time_ms=time_ms,
            data={
                "job_id": job,
                "plan": PLAN,
                "plan_version": 1,
                "reference": f"reference-{number}",
                "task_id": task,
                "activity": lane,
                "lane": lane,
                "status": status,
                "attempt": attempt,
                "worker": None,
                "actor": None,
                "detail": detail,
            },
        )
        for seq, (entity, status, task, lane, attempt, detail) in enumerate(_story(number), 1)
    ]


def _story(number: int) -> Iterator[tuple[Entity, str, str | None, str | None, int | None, dict[str, Any]]]:
    yield "job", "queued", None, None, None, {}
    for place, lane in enumerate(LANES):
        task = f"TASK-{number * len(LANES) + place}"
        yield "task", "queued", task, lane, 0, {}
        yield "task", "started", task, lane, 1, {"lease_expires_at": "2026-11-24T06:54:52.772Z"}
        yield "task", "done", task, lane, 1, {"output_hmac": _HMAC}
    yield "job", "done", None, None, None, {}
