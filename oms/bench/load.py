"""A load process: ``python -m oms.bench.load SCENARIO HOST PORT CONNECTIONS SECONDS PREFIX``; prints one JSON line.

Each scenario runs on every connection until the time is over; what happened in the first part, while caches and
connections warm up, is not counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from oms.bench.connection import AnswerError, Connection, get, post

LANES = ("ai_extract", "human_verify", "external_print")
OUTPUT = {"passport_no": "987654321", "score": 0.98}
BATCH = 100
BULK = 1_000
WARM_UP_SHARE = 0.2
OK = 200

PULLS = [get(f"/pull?lane={lane}") for lane in LANES]
BATCH_PULLS = [get(f"/pull?lane={lane}&max={BATCH}") for lane in LANES]


@dataclass
class Tally:
    """What a load process saw.

    Attributes:
        counts: requests, activities (tasks completed), jobs (started), empty (pulls), bad (answers other than 200).
        latencies_ms: by kind of request.
    """

    counting: bool = False
    over: bool = False
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("requests", "activities", "jobs", "empty", "bad"), 0)
    )
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, by: int = 1) -> None:
        """Count."""
        if self.counting:
            self.counts[name] += by

    async def timed(self, connection: Connection, kind: str, message: bytes) -> bytes:
        """Send, count and time a request; return its body (empty for a bad answer)."""
        began = time.perf_counter()
        status, body = await connection.request(message)
        if self.counting:
            self.latencies_ms.setdefault(kind, []).append((time.perf_counter() - began) * 1000)
            self.counts["requests"] += 1
        if status != OK:
            self.add("bad")
            return b""
        return body


Scenario = Callable[[Tally, Connection, str], Awaitable[None]]


async def noop(tally: Tally, connection: Connection, _name: str) -> None:
    """Ask the bare framework for nothing."""
    message = get("/noop")
    while not tally.over:
        await tally.timed(connection, "noop", message)


async def mixed(tally: Tally, connection: Connection, name: str) -> None:
    """Start a job, then pull and complete one task of each of its three lanes, one request at a time."""
    number = 0
    while not tally.over:
        number += 1
        await tally.timed(connection, "start", post("/start", _start(f"{name}-{number}")))
        tally.add("jobs")
        for message in PULLS:
            body = b"null"
            while body in (b"null", b"") and not tally.over:
                body = await tally.timed(connection, "pull", message)
                if body == b"null":
                    tally.add("empty")
            if tally.over:
                return
            if await tally.timed(connection, "complete", post("/complete", _completion(from_json(body)))):
                tally.add("activities")


async def batches(tally: Tally, connection: Connection, name: str) -> None:
    """Start jobs in lists, and pull and complete tasks of the three lanes in lists of a hundred."""
    number = 0
    while not tally.over:
        number += 1
        starts = b"[" + b",".join(_start(f"{name}-{number}-{item}") for item in range(BATCH)) + b"]"
        await tally.timed(connection, "start", post("/start", starts))
        tally.add("jobs", BATCH)
        for message in BATCH_PULLS:
            tasks = from_json(await tally.timed(connection, "pull", message) or b"[]")
            if not tasks:
                tally.add("empty")
                continue
            completions = b"[" + b",".join(_completion(task) for task in tasks) + b"]"
            if await tally.timed(connection, "complete", post("/complete", completions)):
                tally.add("activities", len(tasks))


async def bulk_start(tally: Tally, connection: Connection, name: str) -> None:
    """Start jobs in lists of a thousand."""
    number = 0
    while not tally.over:
        number += 1
        starts = b"[" + b",".join(_start(f"{name}-{number}-{item}") for item in range(BULK)) + b"]"
        await tally.timed(connection, "start", post("/start", starts))
        tally.add("jobs", BULK)


async def cycle(tally: Tally, connection: Connection, _name: str) -> None:
    """Pull and complete tasks of the first lane, out of whatever waits there."""
    while not tally.over:
        body = await tally.timed(connection, "pull", PULLS[0])
        if body in (b"null", b""):
            tally.add("empty")
            continue
        if await tally.timed(connection, "complete", post("/complete", _completion(from_json(body)))):
            tally.add("activities")


SCENARIOS: dict[str, Scenario] = {
    "noop": noop,
    "mixed": mixed,
    "batches": batches,
    "bulk_start": bulk_start,
    "cycle": cycle,
}


def _start(reference: str) -> bytes:
    return b'{"plan":"passport_renewal","reference":"%b"}' % reference.encode()


def _completion(task: dict[str, Any]) -> bytes:
    return to_json({"task_id": task["task_id"], "token": task["token"], "output": OUTPUT})


def quantile(values: list[float], share: float) -> float | None:
    """Return the value below which ``share`` of ``values`` lie; None without values."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else None


async def run(scenario: str, host: str, port: int, connections: int, seconds: float, prefix: str) -> dict[str, Any]:
    """Run a scenario; return counts and latencies of its counted part."""
    tally = Tally()
    opened = [await Connection.open(host, port) for _ in range(connections)]
    running = [
        asyncio.create_task(_until_over(SCENARIOS[scenario], tally, connection, f"{prefix}-{place}"))
        for place, connection in enumerate(opened)
    ]
    await asyncio.sleep(seconds * WARM_UP_SHARE)
    tally.counting = True
    began = time.perf_counter()
    cpu_began = time.process_time()
    await asyncio.sleep(seconds * (1 - WARM_UP_SHARE))
    tally.counting = False
    took = time.perf_counter() - began
    cpu = time.process_time() - cpu_began
    tally.over = True
    await asyncio.wait(running, timeout=5)
    for connection in opened:
        connection.close()
    return {
        "seconds": took,
        "client_cpu_share": cpu / took,
        **tally.counts,
        "latency_ms": {
            kind: {f"p{round(share * 100)}": quantile(values, share) for share in (0.5, 0.95, 0.99)}
            for kind, values in tally.latencies_ms.items()
        },
    }


async def _until_over(scenario: Scenario, tally: Tally, connection: Connection, name: str) -> None:
    try:
        await scenario(tally, connection, name)
    except (AnswerError, OSError):
        tally.add("bad")


def main() -> None:
    """Run as a process."""
    scenario, host, port, connections, seconds, prefix = sys.argv[1:]
    runner = asyncio.run(run(scenario, host, int(port), int(connections), float(seconds), prefix))
    sys.stdout.write(json.dumps(runner) + "\n")


if __name__ == "__main__":
    main()
