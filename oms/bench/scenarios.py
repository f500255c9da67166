"""What a load does on each of its connections until the time is over, and the tally of it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from oms.bench.connection import Connection, get, post
from oms.bench.plans import LANES, PLAN
from oms.bench.throttle import Throttle

OUTPUT = {"passport_no": "987654321", "score": 0.98}
BATCH = 100
BULK = 1_000
OK = 200
COUNTS = ("requests", "activities", "jobs", "empty", "bad")

PULLS = [get(f"/pull?lane={lane}") for lane in LANES]
BATCH_PULLS = [get(f"/pull?lane={lane}&max={BATCH}") for lane in LANES]


@dataclass
class Tally:
    """What a load process saw.

    Attributes:
        throttle: paces the turns of the scenarios that start jobs: a turn is a job.
        counting: the warm-up is over.
        over: the time is; the scenarios end after what they are at.
        last_at: when the last answer came, on the clock of `time.perf_counter`.
        totals: of all that was done: requests, activities (tasks completed), jobs (started), empty (pulls), bad
            (answers other than 200).
        counts: the same, only while counting.
        latencies_ms: by kind of request, while counting.
        first_bad: the first answer other than 200, in words.
    """

    throttle: Throttle = field(default_factory=lambda: Throttle(None))
    counting: bool = False
    over: bool = False
    last_at: float = field(default_factory=time.perf_counter)
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)
    first_bad: str | None = None

    def add(self, name: str, by: int = 1) -> None:
        """Count."""
        self.totals[name] += by
        if self.counting:
            self.counts[name] += by

    def add_bad(self, why: str) -> None:
        """Count what went wrong, and keep the first of it."""
        self.add("bad")
        self.first_bad = self.first_bad or why

    async def timed(self, connection: Connection, kind: str, message: bytes) -> bytes:
        """Send, count and time a request; return its body (empty for a bad answer)."""
        began = time.perf_counter()
        status, body = await connection.send(message)
        self.last_at = time.perf_counter()
        if self.counting:
            self.latencies_ms.setdefault(kind, []).append((self.last_at - began) * 1000)
        self.add("requests")
        if status != OK:
            self.add_bad(f"{kind}: {status} {body[:200].decode('utf-8', 'replace')}")
            return b""
        return body


Scenario = Callable[[Tally, Connection, str], Awaitable[None]]


async def noop(tally: Tally, connection: Connection, _name: str) -> None:
    """Ask the bare framework for nothing."""
    message = get("/noop")
    while not tally.over:
        await tally.timed(connection, "noop", message)


async def starts(tally: Tally, connection: Connection, name: str) -> None:
    """Start jobs, one at a time."""
    number = 0
    while not tally.over:
        number += 1
        if await tally.timed(connection, "start", post("/start", start_of(f"{name}-{number}"))):
            tally.add("jobs")


async def mixed(tally: Tally, connection: Connection, name: str) -> None:
    """Start a job, then pull and complete one task of each of its three lanes, one request at a time."""
    number = 0
    while not tally.over:
        await tally.throttle.turn()
        number += 1
        if await tally.timed(connection, "start", post("/start", start_of(f"{name}-{number}"))):
            tally.add("jobs")
        for message in PULLS:
            body = b"null"
            while body in (b"null", b"") and not tally.over:
                body = await tally.timed(connection, "pull", message)
                if body == b"null":
                    tally.add("empty")
            if body in (b"null", b""):
                return
            if await tally.timed(connection, "complete", post("/complete", completion_of(from_json(body)))):
                tally.add("activities")


async def batches(tally: Tally, connection: Connection, name: str) -> None:
    """Start jobs in lists, and pull and complete tasks of the three lanes in lists of a hundred."""
    number = 0
    while not tally.over:
        number += 1
        await start_list(tally, connection, f"{name}-{number}", BATCH)
        for message in BATCH_PULLS:
            tasks = from_json(await tally.timed(connection, "pull", message) or b"[]")
            if not tasks:
                tally.add("empty")
                continue
            completions = b"[" + b",".join(completion_of(task) for task in tasks) + b"]"
            answers = from_json(await tally.timed(connection, "complete", post("/complete", completions)) or b"[]")
            tally.add("activities", _accepted(tally, answers))


async def bulk_start(tally: Tally, connection: Connection, name: str) -> None:
    """Start jobs in lists of a thousand."""
    number = 0
    while not tally.over:
        number += 1
        await start_list(tally, connection, f"{name}-{number}", BULK)


SCENARIOS: dict[str, Scenario] = {
    "noop": noop,
    "starts": starts,
    "mixed": mixed,
    "batches": batches,
    "bulk_start": bulk_start,
}


async def start_list(tally: Tally, connection: Connection, name: str, count: int) -> None:
    """Start so many jobs in one list."""
    items = b"[" + b",".join(start_of(f"{name}-{item}") for item in range(count)) + b"]"
    answers = from_json(await tally.timed(connection, "start", post("/start", items)) or b"[]")
    tally.add("jobs", _accepted(tally, answers))


def _accepted(tally: Tally, answers: list[dict[str, Any]]) -> int:
    """Return how many items of a list were accepted; count the others as bad."""
    accepted = 0
    for answer in answers:
        if "error" in answer:
            tally.add_bad(f"an item: {answer['error']}")
        else:
            accepted += 1
    return accepted


def start_of(reference: str, plan: str = PLAN) -> bytes:
    """Return the body of a start."""
    return b'{"plan":"%b","reference":"%b"}' % (plan.encode(), reference.encode())


def completion_of(task: dict[str, Any]) -> bytes:
    """Return the body of a complete."""
    return to_json({"task_id": task["task_id"], "token": task["token"], "output": OUTPUT})
