"""`/tasks/{id}/why`: gather what the reason depends on, all of one moment, and let the rule decide."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, select

from act.contract import format_time_ms
from oms.domain.errors import OmsError
from oms.domain.task import Job, JobState, Task, TaskStatus, key_of
from oms.domain.why import MAX_AHEAD, Facts, Why, why
from oms.sequencer.admission import room_now
from oms.sequencer.advance import check_may_go_on
from oms.sequencer.lanes import calendar_of, declaring_plan
from oms.sequencer.place import shown_available_at
from oms.sequencer.standing import in_the_way
from oms.sequencer.wishes import no_task, number_of
from oms.storage.jobs import job_of_row
from oms.storage.lane_controls import held_back
from oms.storage.lane_places import count_ahead, last_seen_ms, top_priority
from oms.storage.store import Store
from oms.storage.tables import jobs, tasks
from oms.storage.tasks import task_of_row
from oms.storage.transaction import Transaction


def why_view(
    connection: Connection, store: Store, task_id: str, *, now_ms: int, waited_for: Collection[str] = ()
) -> dict[str, Any]:
    """Return why a task does not move, and what would change it.

    Args:
        connection: a reader's.
        store: the database.
        task_id: the task's name.
        now_ms: the time, milliseconds since the epoch.
        waited_for: lanes in which somebody waits for work at this moment, as far as this tower knows.

    Raises:
        NotFoundError: there is no such task.
    """
    number = number_of(task_id, "TASK-")
    row = None if number is None else connection.execute(select(tasks).where(tasks.c.task_id == number)).one_or_none()
    if row is None:
        raise no_task(task_id)
    task = task_of_row(row)
    job = job_of_row(connection.execute(select(jobs).where(jobs.c.job_id == task.job_id)).one())
    # It only looks, and nothing is ever flushed: so it can ask what the verbs would be told.
    tx = Transaction(
        connection, store.dialect, store.plans, store.set_aside, now_ms, random_bytes=bytes, random_unit=float
    )
    tx.jobs[job.job_id], tx.tasks[task.task_id] = job, task
    return _shown(task, why(_facts(tx, task, job, waited_for)))


def _shown(task: Task, answer: Why) -> dict[str, Any]:
    shown: dict[str, Any] = {"task_id": task.name, "reason": answer.reason, "sentence": answer.sentence}
    if answer.until_ms is not None:
        shown["until"] = format_time_ms(answer.until_ms)
    if answer.action is not None:
        shown["action"] = asdict(answer.action)
    return shown


def _facts(tx: Transaction, task: Task, job: Job, waited_for: Collection[str]) -> Facts:
    plan = declaring_plan(tx, job, task.lane)
    lane = None if plan is None else plan.lane(task.lane)
    facts: dict[str, Any] = {
        "lane": lane,
        "calendar": None if plan is None or lane is None else calendar_of(plan, lane),
        "timezone": "UTC" if plan is None else plan.timezone,
        "available_at": shown_available_at(task),
    }
    if task.status is TaskStatus.FAILED:
        facts["refusal"] = _refusal(tx, task, job)
    elif task.status is TaskStatus.QUEUED:
        if job.state is JobState.PAUSED:
            facts["in_the_way"] = next(iter(in_the_way(tx, job)), None)
        facts |= _lane_facts(tx, task)
        facts["is_waited_for"] = task.lane in waited_for
    return Facts(now_ms=tx.now_ms, task=task, job=job, **facts)


def _lane_facts(tx: Transaction, task: Task) -> dict[str, Any]:
    """Return how the lane of a queued task stands. Each is a step or two along an index."""
    connection = tx.connection
    control = held_back(connection, tx.dialect, [task.lane]).get(task.lane)
    facts: dict[str, Any] = {
        "control": control,
        "ahead": count_ahead(connection, task, now_ms=tx.now_ms, limit=MAX_AHEAD + 1),
        "top_priority": top_priority(connection, task.lane),
        "last_seen_ms": last_seen_ms(connection, task.lane),
    }
    if control is not None and control.caps:
        room = room_now(connection, control, now_ms=tx.now_ms)
        facts |= {"is_full": room.is_full, "opens_at": room.opens_at}
    return facts


def _refusal(tx: Transaction, task: Task, job: Job) -> str | None:
    """Return why a failed task cannot be tried again; None where it can."""
    try:
        key_of(job)
        check_may_go_on(tx, job, task)
    except OmsError as error:
        return error.detail
    return None
