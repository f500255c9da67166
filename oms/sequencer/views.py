"""Read models of one thing each: a job, a task, the lanes, the plans. They change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Connection, func, select

from act.contract import format_time_ms
from oms.domain.errors import NotFoundError
from oms.domain.task import Job, Task
from oms.sequencer.block_views import outputs_of_blocks, running_blocks
from oms.sequencer.place import shown_available_at
from oms.sequencer.reroute import LANE_IS_ALIVE_SEC
from oms.sequencer.wishes import no_job, number_of
from oms.storage.jobs import job_of_row
from oms.storage.plan_cache import PlanCache
from oms.storage.plans import PlanVersion, compiled_in_force, versions
from oms.storage.tables import READY, jobs, lane_counts, tasks, workers
from oms.storage.tasks import task_of_row

MAX_WORKERS_SHOWN = 100
DEFAULT_KIND = "machine"


def job_view(connection: Connection, job_id: str) -> dict[str, Any]:
    """Return a job with its tasks and its outputs by activity.

    Raises:
        NotFoundError: there is no such job.
    """
    number = number_of(job_id, "JOB-")
    row = None if number is None else connection.execute(select(jobs).where(jobs.c.job_id == number)).one_or_none()
    if row is None:
        raise no_job(job_id)
    job = job_of_row(row)
    rows = connection.execute(select(tasks).where(tasks.c.job_id == number).order_by(tasks.c.task_id))
    its_tasks = [task_of_row(row) for row in rows]
    return {
        **job_fields(job),
        "input": from_json(job.input),
        "tasks": [task_fields(task, job.plan) for task in its_tasks],
        "outputs": {
            **{
                task.activity: from_json(task.output)
                for task in its_tasks
                if task.output is not None and not task.scope and not task.superseded
            },
            **outputs_of_blocks(connection, job.job_id),
        },
        "blocks": running_blocks(connection, job.job_id),
    }


def task_view(connection: Connection, task_id: str) -> dict[str, Any]:
    """Return a task. Its token is its holder's and is not shown.

    Raises:
        NotFoundError: there is no such task.
    """
    number = number_of(task_id, "TASK-")
    row = None if number is None else connection.execute(select(tasks).where(tasks.c.task_id == number)).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no task {task_id[:80]!r}; a task's id reads TASK-55 and comes with /pull.")
    task = task_of_row(row)
    plan = connection.execute(select(jobs.c.plan).where(jobs.c.job_id == task.job_id)).scalar_one()
    return task_fields(task, plan)


def lanes_view(connection: Connection, cache: PlanCache, *, now_ms: int) -> dict[str, Any]:
    """Return every lane that a plan in force declares, that holds live tasks or that somebody polls."""
    kinds: dict[str, str] = {}
    for plan in compiled_in_force(connection, cache):
        for lane in plan.lanes:
            kinds.setdefault(lane.id, lane.kind.value)
    counts = {
        lane: (queued, running)
        for lane, queued, running in connection.execute(
            select(lane_counts.c.lane, func.sum(lane_counts.c.queued), func.sum(lane_counts.c.running)).group_by(
                lane_counts.c.lane
            )
        )
    }
    seen = _workers_seen(connection, since_ms=now_ms - LANE_IS_ALIVE_SEC * 1000)
    live = {lane for lane, count in counts.items() if any(count)}
    items = []
    for lane_id in sorted(kinds.keys() | live | seen.keys()):
        queued, running = counts.get(lane_id, (0, 0))
        items.append(
            {
                "lane": lane_id,
                "kind": kinds.get(lane_id, DEFAULT_KIND),
                "queued": queued,
                "running": running,
                "oldest_queued_sec": _oldest_queued_sec(connection, lane_id, now_ms) if queued else None,
                "paused": False,
                "workers": seen.get(lane_id, []),
            }
        )
    return {"items": items}


def plans_view(connection: Connection) -> dict[str, Any]:
    """Return every plan with its versions."""
    return {"items": [_plan_fields(plan, known) for plan, known in versions(connection).items()]}


def plan_view(connection: Connection, plan: str) -> dict[str, Any]:
    """Return one plan with its versions and its document: the one in force, else the newest.

    Raises:
        NotFoundError: there is no such plan.
    """
    # No plan has a NUL in its name, and PostgreSQL does not even take the question.
    known = None if "\0" in plan else versions(connection, plan).get(plan)
    if not known:
        raise NotFoundError(f"There is no plan {plan[:80]!r}; GET /plans lists them.")
    shown = next((version for version in known if version.in_force), known[-1])
    return {**_plan_fields(plan, known), "document": from_json(shown.document)}


def job_fields(job: Job) -> dict[str, Any]:
    """Return what is shown of a job."""
    return {
        "job_id": job.name,
        "plan": job.plan,
        "plan_version": job.plan_version,
        "reference": job.reference,
        "state": job.state,
        "priority": job.priority,
        "error": job.error,
        "erased": job.is_erased,
        "parent": None if job.parent_job is None else f"JOB-{job.parent_job}",
        "created_at": format_time_ms(job.created_at),
        "updated_at": format_time_ms(job.updated_at),
    }


def task_fields(task: Task, plan: str) -> dict[str, Any]:
    """Return what is shown of a task."""
    return {
        "task_id": task.name,
        "job_id": f"JOB-{task.job_id}",
        "plan": plan,
        "activity": task.activity,
        "branch": task.branch or None,
        "lane": task.lane,
        "status": task.status,
        "attempt": task.attempt,
        "priority": task.priority,
        "worker": task.worker,
        "created_at": format_time_ms(task.created_at),
        "available_at": format_time_ms(shown_available_at(task)),
        "lease_expires_at": None if task.lease_expires_at is None else format_time_ms(task.lease_expires_at),
        "error": None if task.error is None else {"type": task.error_type, "message": task.error},
        "progress": task.progress,
        "note": task.note,
    }


def _plan_fields(plan: str, known: Sequence[PlanVersion]) -> dict[str, Any]:
    current = next((version for version in known if version.in_force), None)
    return {
        "id": plan,
        "plan_version": None if current is None else current.version,
        "file": None if current is None else current.file,
        "versions": [
            {
                "plan_version": version.version,
                "in_force": version.in_force,
                "digest": version.digest,
                "created_at": format_time_ms(version.created_at),
            }
            for version in known
        ],
        "schedules": [],
    }


def _workers_seen(connection: Connection, *, since_ms: int) -> dict[str, list[dict[str, Any]]]:
    seen: dict[str, list[dict[str, Any]]] = {}
    rows = connection.execute(
        select(workers).where(workers.c.last_seen > since_ms).order_by(workers.c.last_seen.desc(), workers.c.worker)
    )
    for row in rows:
        lane = seen.setdefault(row.lane, [])
        if len(lane) < MAX_WORKERS_SHOWN:
            lane.append({"worker": row.worker, "last_seen": format_time_ms(row.last_seen)})
    return seen


def _oldest_queued_sec(connection: Connection, lane: str, now_ms: int) -> float:
    """Return for how long the task that is ready longest has been so; 0 where all of them still wait.

    The index has the lane's tasks by priority and then by age: one step per priority finds each one's oldest.
    """
    oldest_ms = now_ms
    below = select(tasks.c.priority, tasks.c.available_at).where(tasks.c.lane == lane, READY)
    below = below.order_by(tasks.c.priority.desc(), tasks.c.available_at).limit(1)
    row = connection.execute(below).one_or_none()
    while row is not None:
        oldest_ms = min(oldest_ms, row.available_at)
        row = connection.execute(below.where(tasks.c.priority < row.priority)).one_or_none()
    return (now_ms - oldest_ms) / 1000
