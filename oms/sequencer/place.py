"""Give a queued task its place in a lane: from when on it may be handed out, and for how long at a time."""

from __future__ import annotations

from oms.domain.task import Job, JobState, Task
from oms.sequencer.lanes import lane_for, plan_of
from oms.storage.transaction import Transaction

NEVER_MS = 253_402_300_799_999
"""The last moment that can be written: until then nothing wakes a task of a paused job."""


def give_place(tx: Transaction, job: Job, task: Task, *, lane: str, earliest_ms: int) -> None:
    """Set when a task may be handed out in ``lane``, at ``earliest_ms`` or later, and its lease; the caller moves it.

    Of a job that is paused, nothing is handed out: the task keeps the time, and waits.
    """
    declared = lane_for(tx, job, lane)
    if declared is None:  # of a lane that nobody knows, the activity's own lane tells how long an attempt may take
        plan = plan_of(tx, job)
        declared = plan.lane(plan.steps[task.position].lane)
        assert declared is not None
    task.lease_sec = declared.lease_sec
    task.available_at = earliest_ms
    task.ready = earliest_ms <= tx.now_ms
    task.held_available_at = None
    if job.state is JobState.PAUSED:
        hold(task)


def hold(task: Task) -> None:
    """Keep a queued task from being handed out; the time from which it could be is kept."""
    if task.held_available_at is None:
        task.held_available_at = task.available_at
        task.available_at = NEVER_MS
        task.ready = False


def let_go(tx: Transaction, task: Task, *, held_since_ms: int | None) -> None:
    """Let a task that was held be handed out from its time on; what it was held for is no part of its waiting."""
    if task.stalls_at is not None and held_since_ms is not None:
        task.stalls_at += tx.now_ms - held_since_ms
    if task.held_available_at is not None:
        task.available_at = task.held_available_at
        task.held_available_at = None
        task.ready = task.available_at <= tx.now_ms


def shown_available_at(task: Task) -> int:
    """Return from when on the task may be handed out, as far as its lane is concerned."""
    return task.available_at if task.held_available_at is None else task.held_available_at
