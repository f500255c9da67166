"""`/pull`: hand tasks to the workers that poll their lane."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from act.contract import format_time_ms
from oms.domain.paths import scopes_of
from oms.domain.task import Job, JobState, Task
from oms.sequencer.admission import claim_in_lanes
from oms.sequencer.events import record_task
from oms.sequencer.ground import visible_outputs
from oms.sequencer.lanes import plan_of
from oms.sequencer.open_batches import open_polled
from oms.storage.jobs import input_of, load_outputs, lock_jobs
from oms.storage.tasks import wake_due
from oms.storage.transaction import Transaction
from oms.storage.written_rows import Change


@dataclass(frozen=True, slots=True)
class Pull:
    """Up to ``limit`` tasks of ``lane``."""

    lane: str
    limit: int
    worker: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class LeasedTask:
    """A task in a worker's hands, and what it needs to know. ``token`` is its boarding pass."""

    task_id: str
    job_id: str
    plan: str
    activity: str
    lane: str
    reference: str
    attempt: int
    token: str
    priority: int
    payload: dict[str, Any]
    lease_expires_at: str


def pull(tx: Transaction, wishes: Sequence[Pull]) -> list[list[LeasedTask]]:
    """Lease ready tasks, first come first served over ``wishes``; one list per wish, empty where its lane has none.

    Each lease counts an attempt and records ``started``; both stand or fall with ``tx``.
    """
    wake_due(tx)
    by_lane: dict[str, list[int]] = {}
    for place, wish in enumerate(wishes):
        by_lane.setdefault(wish.lane, []).append(place)
    open_polled(tx, by_lane)
    wanted = {lane: sum(wishes[place].limit for place in places) for lane, places in by_lane.items()}
    workers = {lane: _one_worker(wishes[place].worker for place in places) for lane, places in by_lane.items()}
    claimed = {lane: deque(tasks) for lane, tasks in claim_in_lanes(tx, wanted, workers=workers).items()}
    job_ids = sorted({task.job_id for tasks in claimed.values() for task in tasks})
    lock_jobs(tx, job_ids)
    tasks = [task for claimed_here in claimed.values() for task in claimed_here]
    load_outputs(tx, {(task.job_id, scope) for task in tasks for scope in _scopes(tx, task)})
    return [[_hand_out(tx, task, wish) for task in _take(claimed[wish.lane], wish.limit)] for wish in wishes]


def _scopes(tx: Transaction, task: Task) -> tuple[str, ...]:
    return scopes_of(plan_of(tx, tx.jobs[task.job_id]), task.scope) if task.scope else ("",)


def _take(tasks: deque[Task], limit: int) -> list[Task]:
    return [tasks.popleft() for _ in range(min(limit, len(tasks)))]


def _one_worker(workers: Iterable[str | None]) -> str | None:
    """Return the worker who is meant by all; None where they differ."""
    names = set(workers)
    return names.pop() if len(names) == 1 else None


def _hand_out(tx: Transaction, task: Task, wish: Pull) -> LeasedTask:
    job = tx.jobs[task.job_id]
    if job.state is JobState.QUEUED:
        job.state = JobState.RUNNING
    if wish.worker != task.worker:
        task.worker = wish.worker
        tx.task_changed(task, Change.WORKER)
    assert task.lease_expires_at is not None
    expires_at = format_time_ms(task.lease_expires_at)
    tx.trace = wish.trace
    record_task(
        tx, job, task, "started", worker=wish.worker, actor=wish.worker, detail={"lease_expires_at": expires_at}
    )
    return _leased(tx, task, job, expires_at)


def _leased(tx: Transaction, task: Task, job: Job, expires_at: str) -> LeasedTask:
    assert task.token is not None
    return LeasedTask(
        task_id=task.name,
        job_id=job.name,
        plan=job.plan,
        activity=task.activity,
        lane=task.lane,
        reference=job.reference,
        attempt=task.attempt,
        token=task.token,
        priority=task.priority,
        payload={
            "input": input_of(tx, job) if task.input is None else from_json(task.input),
            "outputs": visible_outputs(tx, job, task.scope),
        },
        lease_expires_at=expires_at,
    )
