"""What the outbox's events alone say about each job, and whether they keep the rules that readers rely on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

ENDINGS = ("done", "failed", "expired", "released", "rerouted")


@dataclass
class FoldedTask:
    """A task, as its events tell it."""

    activity: str
    lane: str
    status: str = "queued"
    attempt: int = 0
    holder: bool = False
    endings: dict[int, str] = field(default_factory=dict)


@dataclass
class FoldedJob:
    """A job, as its events tell it."""

    state: str = "queued"
    seq: int = 0
    tasks: dict[str, FoldedTask] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def fold(bodies: Iterable[bytes]) -> dict[str, FoldedJob]:
    """Add events up, in the order in which they were recorded.

    Raises:
        AssertionError: they break a rule: a gap, an attempt that ends twice, a job's event before its task's.
    """
    jobs: dict[str, FoldedJob] = {}
    for body in bodies:
        event = json.loads(body)
        data = event["data"]
        job = jobs.setdefault(data["job_id"], FoldedJob())
        job.seq += 1
        assert event["id"] == f"{data['job_id']}.{job.seq}", f"{event['id']} follows number {job.seq - 1}"
        assert event["sequence"] == f"{job.seq:020}"
        entity = event["type"].split(".")[1]
        assert event["type"] == f"hms.{entity}.{data['status']}.v1"
        if entity == "step":
            job.skipped.append(data["activity"])
        elif entity == "task":
            assert job.state not in ("done", "cancelled"), f"{event['id']} tells of a task of a job that is over"
            _fold_task(job, event["id"], data)
        else:
            _fold_job(job, event["id"], data["status"])
    return jobs


def _fold_task(job: FoldedJob, event_id: str, data: dict[str, Any]) -> None:
    status, attempt = data["status"], data["attempt"]
    task = job.tasks.setdefault(data["task_id"], FoldedTask(data["activity"], data["lane"]))
    assert task.activity == data["activity"], event_id
    task.lane = data["lane"]
    if status == "started":
        assert not task.holder, f"{event_id}: {data['task_id']} is handed out while somebody has it"
        assert job.state != "paused", f"{event_id}: handed out while the job is paused"
        assert attempt == task.attempt + 1, f"{event_id}: attempt {attempt} follows {task.attempt}"
        task.attempt, task.holder, task.status = attempt, True, "running"
        if job.state == "queued":
            job.state = "running"
        return
    assert attempt == task.attempt, f"{event_id}: attempt {attempt}, and {task.attempt} was the last"
    if status == "queued":
        assert not task.holder, f"{event_id}: queued while somebody has it"
        task.status = "queued"
        return
    if status == "stalled":
        assert task.status == "queued", f"{event_id}: stalled, and {task.status}"
        return
    assert status in ENDINGS, event_id
    if task.holder:
        assert task.attempt not in task.endings, f"{event_id}: attempt {attempt} ends twice"
        task.endings[task.attempt] = status
        task.holder = False
    else:
        assert status == "rerouted", f"{event_id}: {status}, and nobody has it"
    if status == "done":
        task.status = "done"
    elif status in ("failed", "expired"):
        task.status = "failed" if data["detail"]["final"] else "queued"
    else:
        task.status = "queued"


def _fold_job(job: FoldedJob, event_id: str, status: str) -> None:
    open_tasks = [name for name, task in job.tasks.items() if task.status in ("queued", "running")]
    if status == "queued":
        assert job.seq == 1, event_id
    elif status == "restarted":
        assert job.state == "failed", event_id
        assert open_tasks, f"{event_id}: runs again, and no task of it was queued before"
        job.state = "running"
    elif status in ("paused", "resumed"):
        assert job.state == "paused" or status == "paused", event_id  # by somebody after a failure, twice
        was_started = any(task.attempt for task in job.tasks.values())
        job.state = "paused" if status == "paused" else "running" if was_started else "queued"
    else:
        assert status in ("done", "failed"), event_id
        assert not open_tasks, f"{event_id}: {status} while {open_tasks} are open"
        job.state = status


def check_attempts(jobs: dict[str, FoldedJob]) -> None:
    """Check that every attempt but those that run now has ended, once."""
    for name, job in jobs.items():
        for task_name, task in job.tasks.items():
            ended = set(range(1, task.attempt + 1)) - ({task.attempt} if task.holder else set())
            assert set(task.endings) == ended, f"{name} {task_name}"


def check_places(rows: Sequence[Any]) -> None:
    """Check that ids only grow, and that each stream counts from 1 without a gap, in the order of the ids."""
    last_id = 0
    counted: dict[str, int] = {}
    for row in rows:
        assert row.id > last_id
        last_id = row.id
        counted[row.stream] = counted.get(row.stream, 0) + 1
        assert row.seq == counted[row.stream], f"{row.stream}: {row.seq} comes as number {counted[row.stream]}"


def check_agrees(jobs: dict[str, FoldedJob], views: dict[str, dict[str, Any]]) -> None:
    """Check that the events say what the tables say."""
    assert jobs.keys() == views.keys()
    for name, view in views.items():
        assert jobs[name].state == view["state"], name
        said = {
            task_id: (task.activity, task.lane, task.status, task.attempt) for task_id, task in jobs[name].tasks.items()
        }
        kept = {
            task["task_id"]: (task["activity"], task["lane"], task["status"], task["attempt"]) for task in view["tasks"]
        }
        assert said == kept, name
