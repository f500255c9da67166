"""A task that goes to its lane's backup by itself: its attempts are used up, or it has been queued for too long."""

from __future__ import annotations

from oms.domain.task import Job, Task, TaskStatus
from oms.sequencer.events import record_task
from oms.sequencer.lanes import lane_for
from oms.sequencer.place import give_place
from oms.storage.tasks import move_task
from oms.storage.transaction import Transaction

OMS = "oms"
"""The actor of what OMS does by itself."""


def backup_of(tx: Transaction, job: Job, task: Task) -> str | None:
    """Return the lane that a task goes to when its own one fails it; None where there is none.

    Backups never lead in a circle (no plan that has one is put in force), so that no task comes to a lane twice.
    """
    lane = lane_for(tx, job, task.lane)
    return None if lane is None else lane.backup


def go_to_backup(tx: Transaction, job: Job, task: Task, backup: str, *, reason: str) -> None:
    """Queue a task at the end of the backup lane now, with fresh attempts; its priority stays.

    Args:
        tx: with the job locked.
        job: the task's.
        task: queued, or running in an attempt whose end is recorded already.
        backup: the lane.
        reason: a short code for the ledger.
    """
    from_lane = task.lane
    task.failures = 0
    task.worker = None
    give_place(tx, job, task, lane=backup, earliest_ms=tx.now_ms)
    move_task(tx, task, TaskStatus.QUEUED, lane=backup)
    detail = {"from_lane": from_lane, "to_lane": backup, "reason": reason, "priority": task.priority}
    record_task(tx, job, task, "rerouted", actor=OMS, detail=detail)
