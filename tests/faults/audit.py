"""What came of it all: what the clients were promised, against what both databases hold and what the services say."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx

from tests.database import Database
from tests.faults.clients import Promises
from tests.oms.fold import check_agrees, check_attempts, check_places, fold

SAMPLE = 50
"""Of so many jobs, what the services say over HTTP is compared with their databases."""
BLOCK_EVENTS = 1024


@dataclass(frozen=True, slots=True)
class Sent:
    """An event, as the outbox has it."""

    id: int
    stream: str
    seq: int
    body: bytes
    delivered: bool
    ledger_index: int | None
    leaf_hash: bytes | None


@dataclass(frozen=True, slots=True)
class Kept:
    """An event, as the ledger has it."""

    index: int
    stream: str
    seq: int
    leaf_hash: bytes
    entry: bytes

    @property
    def body(self) -> bytes:
        """The event's bytes, as they were posted."""
        return self.entry.split(b"\n", 2)[2]


@dataclass(frozen=True)
class Found:
    """What both databases hold.

    Attributes:
        jobs: by name, in the shape of ``GET /jobs/{job_id}``.
        sent: the outbox.
        kept: the ledger.
    """

    jobs: dict[str, dict[str, Any]]
    sent: list[Sent]
    kept: list[Kept]


def read(oms: Database, act: Database) -> Found:
    """Read both databases, in which nothing happens any more."""
    jobs: dict[str, dict[str, Any]] = {}
    for number, reference, state in oms.rows("SELECT job_id, reference, state FROM jobs ORDER BY job_id"):
        name = f"JOB-{number}"
        jobs[name] = {"job_id": name, "reference": reference, "state": state, "tasks": [], "outputs": {}}
    for number, job, activity, lane, status, attempt, output in oms.rows(
        "SELECT task_id, job_id, activity, lane, status, attempt, output FROM tasks ORDER BY task_id"
    ):
        view = jobs[f"JOB-{job}"]
        task = {"task_id": f"TASK-{number}", "activity": activity, "lane": lane, "status": status, "attempt": attempt}
        view["tasks"].append(task)
        if output is not None:
            view["outputs"][activity] = json.loads(output)
    sent = oms.rows("SELECT id, stream, seq, body, delivered, ledger_index, leaf_hash FROM outbox ORDER BY id")
    kept = act.rows("SELECT idx, stream, seq, leaf_hash, entry FROM events ORDER BY idx")
    return Found(jobs, [Sent(*row) for row in sent], [Kept(*row) for row in kept])


def check_promises(found: Found, promises: Promises) -> None:
    """Check that everything that was acknowledged is there, once.

    Raises:
        AssertionError: it is not.
    """
    by_reference = {job["reference"]: job for job in found.jobs.values()}
    assert len(by_reference) == len(found.jobs), "a reference has two jobs"
    for reference, job_id in promises.jobs.items():
        assert reference in by_reference, f"{reference} was started as {job_id} and is not there"
        assert by_reference[reference]["job_id"] == job_id, f"{reference} was started as {job_id} and is another job"
    tasks = {task["task_id"]: (job, task) for job in found.jobs.values() for task in job["tasks"]}
    for task_id, (attempt, output) in promises.done.items():
        job, task = tasks[task_id]
        assert (task["status"], task["attempt"]) == ("done", attempt), f"{task_id} was completed and is {task}"
        assert job["outputs"][task["activity"]] == output, f"{task_id} has another output"
    for name, job in found.jobs.items():
        assert job["state"] == "done", f"{name} is {job['state']}"
        activities = [task["activity"] for task in job["tasks"]]
        assert len(activities) == len(set(activities)), f"{name} has a task twice: {activities}"


def check_order(found: Found) -> None:
    """Check each event's place: in the outbox, in the ledger, and that both have the same, and nothing else.

    Raises:
        AssertionError: an event is lost, doubled, changed, or out of its order.
    """
    check_places(found.sent)
    folded = fold(event.body for event in found.sent)
    check_attempts(folded)
    check_agrees(folded, found.jobs)
    assert [event.index for event in found.kept] == list(range(len(found.kept))), "the ledger's index has a hole"
    counted: Counter[str] = Counter()
    for kept in found.kept:
        counted[kept.stream] += 1
        assert kept.seq == counted[kept.stream], f"{kept.stream}: {kept.seq} comes as number {counted[kept.stream]}"
    assert counted == Counter(event.stream for event in found.sent), "ledger and outbox have different events"
    by_place = {(kept.stream, kept.seq): kept for kept in found.kept}
    for sent in found.sent:
        place = f"{sent.stream}.{sent.seq}"
        known = by_place[sent.stream, sent.seq]
        assert known.body == sent.body, f"{place}: the ledger has other bytes"
        assert sent.delivered, f"{place} is in the ledger, and not marked"
        assert (sent.ledger_index, sent.leaf_hash) == (known.index, known.leaf_hash), f"{place} has another receipt"


def check_kept_sums(oms: Database, act: Database, found: Found) -> None:
    """Check what is kept beside the rows so that it need not be counted.

    Raises:
        AssertionError: it is not what the rows add up to.
    """
    ((queued, running),) = oms.rows("SELECT coalesce(sum(queued), 0), coalesce(sum(running), 0) FROM lane_counts")
    assert (queued, running) == (0, 0), f"the lanes count {queued} queued and {running} running tasks, and all are done"
    heads = dict(act.rows("SELECT stream, seq FROM heads"))
    assert heads == Counter(kept.stream for kept in found.kept), "a stream's head is not its last event"
    blocks = [block for (block,) in act.rows("SELECT block FROM blocks ORDER BY block")]
    assert blocks == list(range(len(found.kept) // BLOCK_EVENTS)), "the ledger's blocks are not those of its events"
    assert oms.count("stopped_streams") == 0, "a stream was stopped: the ledger refused something"


def check_rows(found: Found, rows: list[dict[str, Any]]) -> None:
    """Check that who followed the ledger live has seen each event once, in its place.

    Raises:
        AssertionError: it has not.
    """
    seen = [(row["id"], row["event_id"]) for row in rows]
    assert seen == [(kept.index, f"{kept.stream}.{kept.seq}") for kept in found.kept[: len(seen)]]


async def check_answers(
    http: httpx.AsyncClient, towers: Iterable[str], ledgers: Iterable[str], found: Found, chance: random.Random
) -> None:
    """Check that every service says of some jobs what the databases hold.

    Raises:
        AssertionError: one says something else.
    """
    names = chance.sample(sorted(found.jobs), min(SAMPLE, len(found.jobs)))
    for url in towers:
        for name in names:
            told = (await http.get(f"{url}/jobs/{name}")).json()
            job = found.jobs[name]
            assert (told["state"], told["outputs"]) == (job["state"], job["outputs"])
            assert [task["task_id"] for task in told["tasks"]] == [task["task_id"] for task in job["tasks"]]
    by_stream: dict[str, list[Kept]] = {}
    for kept in found.kept:
        by_stream.setdefault(kept.stream, []).append(kept)
    for url in ledgers:
        for name in names:
            rows = (await http.get(f"{url}/stream", params={"job": name})).json()
            assert [(row["id"], row["seq"]) for row in rows] == [(kept.index, kept.seq) for kept in by_stream[name]]
            for row, kept in zip(rows, by_stream[name], strict=True):
                data = json.loads(kept.body)["data"]
                assert all(row[key] == data[key] for key in ("status", "lane", "task_id", "attempt", "detail"))
            folded = (await http.get(f"{url}/jobs/{name}")).json()
            assert folded["state"] == found.jobs[name]["state"]
